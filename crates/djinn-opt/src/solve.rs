//! `djinn-opt pack`, `place` and `calibrate`: the solvers alone, on public formats.

use crate::args::{CalibrateArgs, PackArgs, PlaceArgs, PlaceObjective};
use crate::planning::read_text;
use crate::run::print_text;
use djinn::diag::{Context, Diagnostic, Result, input, internal, unsupported};
use djinn::pack::{self, Fit, Limits, Problem};
use djinn::place::{self, Goal, Instance, PlaceError};
use std::path::Path;
use std::time::Instant;

/// Packs buffers; gives false if they do not fit, or no packing was found within the limits.
pub(crate) fn pack(args: &PackArgs) -> Result<bool> {
    let place = || args.instance.display().to_string();
    let text = read_text(&args.instance)?;
    let problem = Problem::from_csv(&text)
        .map_err(|e| {
            input("pack.format", e.to_string())
                .help("the columns are id, lower, upper (exclusive) and size, with a header line")
        })
        .at(place)?;
    let mut limits = if args.capacity.is_some() { Limits::thorough() } else { Limits::default() };
    if let Some(nodes) = args.node_limit {
        limits.search_steps = nodes;
    }
    let start = Instant::now();
    let mut found = Packed { buffers: problem.buffers().len(), capacity: args.capacity, ..Packed::default() };
    let offsets = match args.capacity {
        None => {
            let outcome = pack::pack(&problem, &limits);
            found.fits = true;
            found.describe(&outcome);
            Some(outcome.offsets)
        }
        Some(capacity) => match pack::fit(&problem, capacity, &limits) {
            Fit::Packed(offsets) => {
                found.fits = true;
                found.height = height(&problem, &offsets);
                found.lower_bound = pack::pack(&problem, &Limits::quick()).lower_bound;
                found.stopped_by = "found".into();
                Some(offsets)
            }
            Fit::Impossible { proof } => {
                found.lower_bound = pack::pack(&problem, &Limits::quick()).lower_bound;
                found.stopped_by = format!("proved impossible: {proof}");
                None
            }
            Fit::Stopped { by, best } => {
                found.describe(&best);
                found.stopped_by = format!("{by}: not found, not proved impossible");
                None
            }
        },
    };
    found.seconds = start.elapsed().as_secs_f64();
    if let Some(offsets) = &offsets {
        pack::check(&problem, offsets, args.capacity.unwrap_or(u64::MAX))
            .map_err(|e| internal("pack.check", e.to_string()))
            .at(place)?;
        if let Some(path) = &args.output {
            write(path, &problem.to_csv_with_offsets(offsets))?;
        }
    }
    print_text(&if args.json { found.json() } else { found.table() })?;
    Ok(found.fits)
}

/// Bytes that a packing takes.
fn height(problem: &Problem, offsets: &[u64]) -> u64 {
    let ends = problem.buffers().iter().zip(offsets).map(|(b, offset)| offset.saturating_add(b.size));
    ends.max().unwrap_or(0)
}

/// What packing found.
#[derive(Default)]
struct Packed {
    buffers: usize,
    capacity: Option<u64>,
    fits: bool,
    height: u64,
    lower_bound: u64,
    stopped_by: String,
    seconds: f64,
}

impl Packed {
    fn describe(&mut self, outcome: &pack::Outcome) {
        self.height = outcome.height;
        self.lower_bound = outcome.lower_bound;
        self.stopped_by = outcome.stopped_by.to_string();
    }

    fn json(&self) -> String {
        let object = serde_json::json!({
            "buffers": self.buffers, "capacity": self.capacity, "fits": self.fits, "height": self.height,
            "lower_bound": self.lower_bound, "stopped_by": self.stopped_by, "solve_s": self.seconds,
        });
        format!("{object}\n")
    }

    fn table(&self) -> String {
        let capacity = self.capacity.map(|c| format!("capacity      {c} bytes\n")).unwrap_or_default();
        let height = if self.height > 0 { format!("{} bytes", self.height) } else { "none".into() };
        format!(
            "buffers       {}\n{capacity}packed in     {height}\nlower bound   {} bytes\nstopped by    {}\n\
             time          {:.3} s\n",
            self.buffers, self.lower_bound, self.stopped_by, self.seconds
        )
    }
}

/// Places an operator graph.
pub(crate) fn place(args: &PlaceArgs) -> Result<bool> {
    let at = || args.instance.display().to_string();
    let text = read_text(&args.instance)?;
    let instance = Instance::parse(&text).map_err(|e| diagnostic(&e)).at(at)?;
    let goal = match (args.objective, args.contiguous) {
        (PlaceObjective::Latency, _) => Goal::Latency,
        (PlaceObjective::Throughput, true) => Goal::Stages,
        (PlaceObjective::Throughput, false) => Goal::Load,
    };
    let start = Instant::now();
    let placed =
        place::place(&instance, goal, &place::Limits::default()).map_err(|e| diagnostic(&e)).at(at)?;
    let seconds = start.elapsed().as_secs_f64();
    if let Some(path) = &args.output {
        write(path, &placed.to_json(&instance))?;
    }
    let gap = if placed.value > 0.0 { (1.0 - placed.lower_bound / placed.value) * 100.0 } else { 0.0 };
    print_text(&if args.json {
        let object = serde_json::json!({
            "value": placed.value, "lower_bound": placed.lower_bound, "gap_percent": gap,
            "stopped_by": placed.stopped_by.to_string(), "max_load": placed.cost.max_load,
            "latency": placed.cost.latency, "contiguous": placed.cost.contiguous, "solve_s": seconds,
        });
        format!("{object}\n")
    } else {
        let name = if goal == Goal::Latency { "latency" } else { "largest load" };
        format!(
            "objective     {name}\nreached       {:.6}\nlower bound   {:.6}\ngap           {gap:.3} %\ncontiguous    {}\n\
             stopped by    {}\ntime          {seconds:.3} s\n",
            placed.value,
            placed.lower_bound,
            if placed.cost.contiguous { "yes" } else { "no" },
            placed.stopped_by,
        )
    })?;
    Ok(true)
}

fn diagnostic(error: &PlaceError) -> Box<Diagnostic> {
    match error {
        PlaceError::Unsupported { .. } => unsupported("place.unsupported", error.to_string()),
        PlaceError::Format { .. } | PlaceError::Invalid { .. } | PlaceError::Infeasible { .. } => {
            input("place.instance", error.to_string())
                .help("the format is that of the instances of dnn-partitioning")
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    djinn::write_atomically(path, &mut |out| out.write_all(text.as_bytes()))
}

/// Measures this machine and fits its profile.
pub(crate) fn calibrate(args: &CalibrateArgs) -> Result<bool> {
    let source = match &args.measurements {
        Some(path) => format!("measurements in {}", path.display()),
        None => "djinn-opt calibrate".to_owned(),
    };
    let options =
        djinn::CalibrateOptions { source, seconds: args.seconds, ..djinn::CalibrateOptions::default() };
    let calibration = djinn::calibrate(&options)?;
    if let Some(path) = &args.measurements {
        write(path, &calibration.measurements_csv())?;
    }
    if let Some(path) = &args.output {
        write(path, &calibration.profile_toml())?;
    }
    print_text(&if args.json { calibration_json(&calibration) } else { calibration_table(&calibration) })?;
    Ok(true)
}

fn calibration_json(calibration: &djinn::Calibration) -> String {
    let class = |c: &djinn::cost::calibrate::ClassReport| {
        serde_json::json!({
            "class": c.class.name(), "operations": c.operations, "fitted_median": c.fitted.median,
            "held_out": c.held_out.count, "held_out_median": c.held_out.median, "held_out_p90": c.held_out.p90,
        })
    };
    let (fitted, base) = (&calibration.fit.report, &calibration.base);
    let object = serde_json::json!({
        "measurements": calibration.measurements.len(), "rounds": calibration.rounds,
        "held_out": fitted.all.count, "held_out_median": fitted.all.median, "held_out_p90": fitted.all.p90,
        "built_in_median": base.all.median, "classes": calibration.table().iter().map(class).collect::<Vec<_>>(),
    });
    format!("{object}\n")
}

fn calibration_table(calibration: &djinn::Calibration) -> String {
    let percent = |error: f64| format!("{:.1} %", error * 100.0);
    let mut out = format!(
        "{:<18} {:>10} {:>12} {:>12} {:>12}\n",
        "class", "operations", "fitted to", "held out", "9 in 10"
    );
    for c in calibration.table() {
        let cells = [c.fitted.median, c.held_out.median, c.held_out.p90].map(percent);
        out += &format!(
            "{:<18} {:>10} {:>12} {:>12} {:>12}\n",
            c.class.name(),
            c.operations,
            cells[0],
            cells[1],
            cells[2]
        );
    }
    let (fitted, base) = (&calibration.fit.report.all, &calibration.base.all);
    out + &format!(
        "\n{} measurements in {} rounds; {} of them held out: median error {}, 9 in 10 at most {}\n\
         the built-in profile predicts the same ones with a median error of {}\n",
        calibration.measurements.len(),
        calibration.rounds,
        fitted.count,
        percent(fitted.median),
        percent(fitted.p90),
        percent(base.median)
    )
}
