//! Gives streams to modules in text form on an H100, prints what was counted and how long it took.
//!
//! `cargo run --release -p djinn-streams --example schedule FILE.mlir ...`

use djinn_device::{Profile, Target};
use djinn_ir::text;
use djinn_pass::{PassContext, PassOptions};
use djinn_streams::{STREAMS, make};
use std::sync::Arc;
use std::time::Instant;

/// Runs of which the fastest is reported.
const RUNS: usize = 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let target = Arc::new(Target::single(Profile::named("h100-80")?));
    let pass = make(&PassOptions::new(&STREAMS, &[])?)?;
    for path in std::env::args().skip(1) {
        let module = text::parse_module(&std::fs::read_to_string(&path)?)?;
        let mut best = f64::INFINITY;
        let mut remarks = Vec::new();
        for _ in 0..RUNS {
            let mut module = module.clone();
            let mut cx = PassContext {
                pass: "streams".into(),
                target: Some(Arc::clone(&target)),
                ..PassContext::new()
            };
            let start = Instant::now();
            pass.run(&mut module, &mut cx)?;
            best = best.min(start.elapsed().as_secs_f64());
            remarks = cx.remarks;
        }
        println!("{path}: {:.3} ms", best * 1e3);
        for remark in &remarks {
            println!("  {remark}");
        }
    }
    Ok(())
}
