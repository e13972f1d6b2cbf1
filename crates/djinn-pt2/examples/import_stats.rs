//! Imports every file named on the command line and prints one line per file.

use std::path::Path;

fn main() {
    let (mut failed, mut opaque, mut disagreements, mut checks) = (0, 0, 0, 0);
    for name in std::env::args().skip(1) {
        let start = std::time::Instant::now();
        let imported = match djinn_pt2::import_file(Path::new(&name)) {
            Ok(imported) => imported,
            Err(e) => {
                println!("ERR  {name}: {e}");
                failed += 1;
                continue;
            }
        };
        let (srg, report) = (&imported.srg, &imported.report);
        let nodes: usize = srg.functions.iter().map(|f| f.body.graph.node_count()).sum();
        let import_time = start.elapsed();
        let lowered = match djinn_srg::lower(srg) {
            Ok(m) => format!("lowered {} ops", m.op_count()),
            Err(e) => {
                failed += 1;
                format!("LOWERING FAILED {e}")
            }
        };
        println!(
            "ok   {name}: {nodes} nodes, {} opaque, {} checks, {} disagreements, {lowered}, {} ms",
            report.opaque.values().sum::<usize>(),
            report.type_checks,
            report.type_disagreements.len(),
            import_time.as_millis()
        );
        report.opaque.iter().for_each(|(op, n)| println!("       opaque {op} × {n}"));
        report.type_disagreements.iter().take(5).for_each(|d| println!("       {d}"));
        opaque += report.opaque.values().sum::<usize>();
        disagreements += report.type_disagreements.len();
        checks += report.type_checks;
    }
    println!("{failed} failed, {opaque} opaque, {checks} type checks, {disagreements} disagreements");
}
