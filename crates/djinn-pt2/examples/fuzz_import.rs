//! Imports randomly damaged programs: every one must give a program or a diagnostic, without panic and in short time.
//!
//! Arguments: a number of rounds, then program JSON files (plain).

#[path = "../tests/programs/mutate.rs"]
mod mutate;

use mutate::{Random, mutate};

fn main() {
    let mut args = std::env::args().skip(1);
    let rounds: u64 = args.next().and_then(|n| n.parse().ok()).unwrap_or(100);
    for path in args {
        let text = std::fs::read(&path).unwrap_or_default();
        let Ok(original) = serde_json::from_slice::<serde_json::Value>(&text) else { continue };
        let (mut good, mut input, mut unsupported, mut internal, mut slowest) = (0, 0, 0, 0, 0);
        for seed in 1..=rounds {
            let mut r = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
            let mut program = original.clone();
            for _ in 0..=r.below(3) {
                mutate(&mut program, &mut r);
            }
            let bytes = serde_json::to_vec(&program).unwrap_or_default();
            let start = std::time::Instant::now();
            match djinn_pt2::import_program_json(&bytes) {
                Ok(_) => good += 1,
                Err(e) => match e.culprit {
                    djinn_diag::Culprit::Input => input += 1,
                    djinn_diag::Culprit::Unsupported => unsupported += 1,
                    djinn_diag::Culprit::Internal => {
                        internal += 1;
                        println!("seed {seed} of {path}: {e}");
                    }
                },
            }
            slowest = slowest.max(start.elapsed().as_millis());
        }
        println!(
            "{path}: {good} ok, {input} input, {unsupported} unsupported, {internal} internal, slowest {slowest} ms"
        );
    }
}
