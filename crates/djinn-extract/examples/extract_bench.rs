//! Extracts from serialized e-graphs and prints cost, bound, gap and time for each file.
//!
//! Usage: `extract_bench [--steps LOCAL_SEARCH_STEPS BOUND_STEPS] [--choices] FILE.json...`
//!
//! `--choices` prints the selection of each file as a line of JSON as well.

use std::time::Instant;

use djinn_extract::{Limits, check, extract, serialized};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let mut limits = Limits::default();
    if args.first().is_some_and(|a| a == "--steps") && args.len() >= 3 {
        limits.local_search_steps = args[1].parse()?;
        limits.bound_steps = args[2].parse()?;
        args.drain(..3);
    }
    let choices = args.first().is_some_and(|a| a == "--choices");
    for file in args.into_iter().skip(usize::from(choices)) {
        let text = std::fs::read_to_string(&file)?;
        let start = Instant::now();
        let input = serialized::read(&text)?;
        let parsed = start.elapsed();
        let result = extract(&input.problem, &limits, None)?;
        let solved = start.elapsed() - parsed;
        let cost = check(&input.problem, &result.choice)?;
        println!(
            "{file}: cost {cost:.6} bound {:.6} gap {:.2} % read {parsed:.2?} solve {solved:.2?} {} {:?}",
            result.lower_bound,
            100.0 * result.gap(),
            result.stopped_by,
            result.stats
        );
        if choices {
            println!("{}", input.write(&result));
        }
    }
    Ok(())
}
