//! Times the pass: `cargo run --release -p djinn-phase-detect --example time -- model.mlir…` (canonicalised IR text).

use djinn_pass::{Pass, PassContext};
use djinn_phase_detect::PhaseDetect;
use std::time::Instant;

/// Runs of the pass, each over a fresh copy.
const RUNS: usize = 51;

fn main() {
    for path in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&path).expect("the file is readable");
        let module = djinn_ir::text::parse_module(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
        let mut times: Vec<f64> = (0..RUNS)
            .map(|_| {
                let mut copy = module.clone();
                let mut cx = PassContext::new();
                let start = Instant::now();
                PhaseDetect::default().run(&mut copy, &mut cx).unwrap_or_else(|e| panic!("{path}: {e}"));
                start.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!(
            "{:.3} ms (median of {RUNS}, {:.3} least)  {} operations  {path}",
            times[RUNS / 2],
            times[0],
            module.op_count()
        );
    }
}
