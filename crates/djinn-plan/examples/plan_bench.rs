//! Times of checking, simulating and encoding plans: medians of several runs.
//!
//! `cargo run --release -p djinn-plan --example plan_bench`

use std::time::Instant;

use djinn_plan::sample::{Size, random};
use djinn_plan::{check, from_binary, from_json, simulate, text, to_binary, to_json, trace_json};

fn median(mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..9)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    for (devices, streams, kernels) in [(1, 4, 900), (2, 4, 700), (2, 4, 7000), (8, 16, 7000)] {
        let plan = random(Size { devices, streams, kernels }, 1);
        let proof = check(&plan).expect("random plans pass");
        let timeline = simulate(&plan, 0).expect("random plans run");
        let (json, binary) = (to_json(&plan).expect("writes"), to_binary(&plan).expect("writes"));
        println!("{devices} devices, {streams} streams each, {} commands: {proof:?}", proof.commands);
        println!("  check       {:9.3} ms", median(|| drop(check(&plan))));
        println!("  simulate    {:9.3} ms", median(|| drop(simulate(&plan, 0))));
        println!("  to_json     {:9.3} ms, {} bytes", median(|| drop(to_json(&plan))), json.len());
        println!("  from_json   {:9.3} ms", median(|| drop(from_json(&json))));
        println!("  to_binary   {:9.3} ms, {} bytes", median(|| drop(to_binary(&plan))), binary.len());
        println!("  from_binary {:9.3} ms", median(|| drop(from_binary(&binary))));
        println!("  text        {:9.3} ms", median(|| drop(text(&plan))));
        println!("  trace       {:9.3} ms", median(|| drop(trace_json(&timeline, &plan))));
    }
}
