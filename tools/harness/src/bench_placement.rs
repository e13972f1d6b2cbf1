//! `djinn-harness placement`: instances of the published placement benchmark against their known optima.

use crate::bench::{self, Args, Seconds, timed};
use crate::table::Table;
use djinn::place::{Goal, Instance, Limits, Placed, StopReason, evaluate, place, read_placement};
use std::path::Path;

/// Seconds for an instance.
const MOST_SECONDS: f64 = 60.0;

/// Published values have six digits.
const DIGITS: f64 = 5e-5;

/// Published latencies are of times rounded to a thousandth; that moves sums by up to so much, relatively.
const ROUNDED_TIMES: f64 = 2e-5;

/// Largest loads of stages, largest loads of any sets, and latencies that were published, by instance.
const PUBLISHED: [(&str, f64, f64, f64); 3] = [
    ("bert24_inference", 17.7899, 17.7776, 100.218),
    ("gnmt_inference", 32.9107, 31.783, 225.651),
    ("bert_l-3_inference", 27.9186, 27.574, 408.471),
];

/// The folders of the benchmark and the goals of their instances.
const GOALS: [(&str, &[Goal]); 2] =
    [("throughput", &[Goal::Stages, Goal::Load]), ("latency", &[Goal::Latency])];

/// Places every instance of the folder; gives false if one misses what is asked.
pub(crate) fn main(args: &Args) -> Result<bool, String> {
    let mut table = Table::new(&[
        "instance",
        "objective",
        ">asked",
        ">reached",
        ">bound",
        "certificate",
        ">s cpu / wall",
    ]);
    let mut missed = Vec::new();
    for (folder, goals) in GOALS {
        for path in bench::files(&args.dir.join(folder), ".json")? {
            let name = bench::name_without(&path, ".json");
            for goal in goals {
                let (placed, seconds) = solve(&path, *goal)?;
                let asked = asked(&name, *goal);
                missed.extend(failures(&name, *goal, asked, &placed, seconds));
                table.row(vec![
                    name.clone(),
                    words(*goal).to_owned(),
                    asked.map_or_else(|| "-".into(), |a| a.to_string()),
                    format!("{:.6}", placed.value),
                    format!("{:.6}", placed.lower_bound),
                    placed.stopped_by.to_string(),
                    seconds.to_string(),
                ]);
            }
        }
    }
    bench::publish("placement", &table, &missed, args)
}

fn words(goal: Goal) -> &'static str {
    match goal {
        Goal::Stages => "throughput, contiguous",
        Goal::Load => "throughput",
        Goal::Latency => "latency",
    }
}

fn asked(name: &str, goal: Goal) -> Option<f64> {
    let (_, stages, load, latency) = PUBLISHED.iter().find(|p| p.0 == name)?;
    Some(match goal {
        Goal::Stages => *stages,
        Goal::Load => *load,
        Goal::Latency => *latency,
    })
}

/// Places an instance, and has the placement judged after a way through its file form.
fn solve(path: &Path, goal: Goal) -> Result<(Placed, Seconds), String> {
    let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let instance = Instance::parse(&bench::read(path)?).map_err(|e| failed(&e))?;
    let (placed, seconds) = timed(|| place(&instance, goal, &Limits::default()));
    let placed = placed.map_err(|e| failed(&e))?;
    let again = read_placement(&instance, &placed.to_json(&instance)).map_err(|e| failed(&e))?;
    let cost = evaluate(&instance, &again).map_err(|e| failed(&e))?;
    let judged = if goal == Goal::Latency { cost.latency } else { Some(cost.max_load) };
    if judged != Some(placed.value) || (goal == Goal::Stages && !(cost.contiguous && cost.cpus_contiguous)) {
        return Err(failed(&format!("the placement costs {judged:?}, not {}", placed.value)));
    }
    Ok((placed, seconds))
}

fn failures(name: &str, goal: Goal, asked: Option<f64>, placed: &Placed, seconds: Seconds) -> Vec<String> {
    let mut missed = Vec::new();
    let objective = words(goal);
    let reached = match (asked, goal) {
        (None, _) => true,
        (Some(asked), Goal::Stages) => (placed.value - asked).abs() <= DIGITS,
        (Some(asked), Goal::Load) => placed.value <= asked,
        (Some(asked), Goal::Latency) => (placed.value / asked - 1.0).abs() <= ROUNDED_TIMES,
    };
    if !reached {
        missed.push(format!("{name}, {objective}: {} instead of {asked:?}", placed.value));
    }
    if goal != Goal::Load && placed.stopped_by != StopReason::Proved {
        missed.push(format!("{name}, {objective}: no proof ({})", placed.stopped_by));
    }
    if seconds.cpu > MOST_SECONDS {
        missed.push(format!("{name}, {objective}: {:.1} s instead of {MOST_SECONDS}", seconds.cpu));
    }
    missed
}
