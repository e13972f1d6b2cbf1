//! Partitions modules in text form, prints what was counted and how long it took.
//!
//! `cargo run --release -p djinn-partition --example partition FILE.mlir ...` writes the annotated
//! module to `FILE.mlir.partitioned`.

use djinn_ir::text;
use djinn_partition::Partition;
use djinn_pass::{Pass, PassContext};
use std::time::Instant;

/// Runs of which the fastest is reported.
const RUNS: usize = 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for path in std::env::args().skip(1) {
        let module = text::parse_module(&std::fs::read_to_string(&path)?)?;
        let mut best = f64::INFINITY;
        let mut last = None;
        for _ in 0..RUNS {
            let mut module = module.clone();
            let mut cx = PassContext { pass: "partition".into(), ..PassContext::new() };
            let start = Instant::now();
            Partition.run(&mut module, &mut cx)?;
            best = best.min(start.elapsed().as_secs_f64());
            last = Some((module, cx));
        }
        let Some((module, cx)) = last else { continue };
        let counts: Vec<String> =
            cx.statistics.iter().map(|(_, name, value)| format!("{name} {value}")).collect();
        println!("{path}: {:.3} ms; {}", best * 1e3, counts.join(", "));
        for remark in &cx.remarks {
            println!("  {remark}");
        }
        std::fs::write(format!("{path}.partitioned"), text::print_module(&module))?;
    }
    Ok(())
}
