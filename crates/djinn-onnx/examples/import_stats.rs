//! Imports every file named on the command line and prints one line of facts for each.

use std::path::Path;
use std::time::Instant;

fn main() {
    let (mut good, mut opaque_files, mut bad) = (0, 0, 0);
    for file in std::env::args().skip(1) {
        let start = Instant::now();
        let imported = match djinn_onnx::import_file(Path::new(&file)) {
            Ok(i) => i,
            Err(e) => {
                bad += 1;
                println!("ERR {}", e.to_string().replace('\n', " |"));
                continue;
            }
        };
        let took = start.elapsed();
        let lowered = match djinn_srg::lower(&imported.srg) {
            Ok(m) => format!("{} ops", m.functions.iter().map(|f| f.graph.len()).sum::<usize>()),
            Err(e) => {
                bad += 1;
                format!("LOWER-ERR {}", e.to_string().replace('\n', " |"))
            }
        };
        let r = &imported.report;
        let opaque: usize = r.opaque.values().sum();
        opaque_files += usize::from(opaque > 0);
        good += usize::from(opaque == 0);
        println!(
            "ok {file}: {} nodes, {lowered}, {opaque} opaque {:?}, {} disagreements, {} unproved, {} weights ({} without values), {:.1} ms",
            r.nodes,
            r.opaque.keys().map(|k| k.1.as_str()).collect::<Vec<_>>(),
            r.type_disagreements,
            r.type_unproved,
            r.weights.values().sum::<usize>(),
            r.weights_without_values,
            took.as_secs_f64() * 1e3,
        );
    }
    println!("TOTAL imported without opaque {good}, with opaque {opaque_files}, failed {bad}");
}
