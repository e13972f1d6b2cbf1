//! `djinn-harness packing`: MiniMalloc's hard instances, at their capacity and as low as they go.

use crate::bench::{self, Args, Seconds, timed};
use crate::table::Table;
use djinn::pack::{Fit, Limits, Outcome, Problem, baseline, check, fit, pack};
use std::path::Path;

/// Seconds for packing an instance into its capacity, and for the least capacity.
const FIT_SECONDS: f64 = 6.0;
const LEAST_SECONDS: f64 = 60.0;

/// Least capacities that are asked for; of the others, their capacity.
const ASKED: [(&str, u64); 2] = [("C", 1_039_360), ("D", 1_029_120)];

/// What was found for one instance.
struct Row {
    name: String,
    buffers: usize,
    capacity: u64,
    fitted: bool,
    fit_time: Seconds,
    least: Outcome,
    least_time: Seconds,
    /// Heights of the planners of TensorFlow Lite and ONNX Runtime.
    baselines: [u64; 2],
}

/// Solves every instance of the folder; gives false if one misses what is asked.
pub(crate) fn main(args: &Args) -> Result<bool, String> {
    let mut table = Table::new(&[
        "instance",
        ">buffers",
        ">capacity",
        "fits",
        ">s cpu / wall",
        ">lower bound",
        ">asked",
        ">reached",
        ">s cpu / wall",
        "ended by",
        ">greedy by size",
        ">by birth, best fit",
    ]);
    let mut missed = Vec::new();
    for path in bench::files(&args.dir, ".csv")? {
        let row = solve(&path)?;
        missed.extend(row.missed());
        table.row(row.cells());
    }
    bench::publish("packing", &table, &missed, args)
}

fn solve(path: &Path) -> Result<Row, String> {
    let stem = bench::name_without(path, ".csv");
    let (name, capacity) = stem
        .split_once('.')
        .and_then(|(name, capacity)| Some((name.to_owned(), capacity.parse().ok()?)))
        .ok_or_else(|| format!("{}: the name is not NAME.CAPACITY.csv", path.display()))?;
    let problem = Problem::from_csv(&bench::read(path)?).map_err(|e| format!("{}: {e}", path.display()))?;
    let (answer, fit_time) = timed(|| fit(&problem, capacity, &Limits::thorough()));
    let fitted = match &answer {
        Fit::Packed(offsets) => check(&problem, offsets, capacity).map(|()| true),
        Fit::Impossible { .. } | Fit::Stopped { .. } => Ok(false),
    };
    let (least, least_time) = timed(|| pack(&problem, &Limits::thorough()));
    let heights = [baseline::tflite_greedy_by_size, baseline::onnxruntime_mem_pattern]
        .map(|plan| baseline::height(&problem, &plan(&problem)));
    let wrong = |e: djinn::pack::Violation| format!("{name}: the packing is wrong: {e}");
    check(&problem, &least.offsets, least.height).map_err(wrong)?;
    let fitted = fitted.map_err(wrong)?;
    let buffers = problem.buffers().len();
    Ok(Row { name, buffers, capacity, fitted, fit_time, least, least_time, baselines: heights })
}

impl Row {
    fn asked(&self) -> u64 {
        ASKED.iter().find(|(name, _)| *name == self.name).map_or(self.capacity, |(_, asked)| *asked)
    }

    fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        if !self.fitted {
            missed.push(format!("{} is not packed into {}", self.name, self.capacity));
        }
        if self.fit_time.cpu > FIT_SECONDS {
            missed.push(format!("{} took {:.1} s, not {FIT_SECONDS}", self.name, self.fit_time.cpu));
        }
        if self.least.height > self.asked() {
            missed.push(format!("{} reaches {}, not {}", self.name, self.least.height, self.asked()));
        }
        if self.least_time.cpu > LEAST_SECONDS {
            missed.push(format!("{} took {:.1} s, not {LEAST_SECONDS}", self.name, self.least_time.cpu));
        }
        missed
    }

    fn cells(&self) -> Vec<String> {
        let bound = self.least.lower_bound;
        let above =
            |height: u64| format!("{height} (+{:.1} %)", (height as f64 / bound.max(1) as f64 - 1.0) * 100.0);
        let [by_size, by_birth] = self.baselines.map(above);
        vec![
            self.name.clone(),
            self.buffers.to_string(),
            self.capacity.to_string(),
            if self.fitted { "yes" } else { "no" }.to_owned(),
            self.fit_time.to_string(),
            bound.to_string(),
            self.asked().to_string(),
            self.least.height.to_string(),
            self.least_time.to_string(),
            self.least.stopped_by.to_string(),
            by_size,
            by_birth,
        ]
    }
}
