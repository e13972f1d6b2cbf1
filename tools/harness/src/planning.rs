//! `djinn-harness planning`: how long it takes to plan an optimised model, pass by pass.

use crate::case::{self, Case};
use crate::peaks;
use crate::stage::Problem;
use crate::table::Table;
use djinn::pass::{PassContext, PassManager, Pipeline};
use djinn::{OptimizeOptions, PLANNING_PASSES};
use djinn_planner::{EntrySpec, PlanOptions, SizeRange};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folders of models, or folders of such folders
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Formats to run
    #[arg(long, value_delimiter = ',', default_value = "onnx")]
    formats: Vec<String>,
    /// Passes before planning, not measured
    #[arg(long, value_name = "PIPELINE", default_value = "builtin.module(canonicalize)")]
    pipeline: String,
    /// The device to plan for
    #[arg(long, default_value = "h100-80")]
    device: String,
    /// The size of symbols that no recorded input binds
    #[arg(long, default_value_t = 128)]
    size: i64,
    /// Runs of which the median is printed
    #[arg(long, default_value_t = 11)]
    repeat: usize,
}

/// What is measured after the passes.
const REST: [&str; 3] = ["plan", "conform", "check"];

/// Prints one line a model.
pub(crate) fn main(args: &Args) -> Result<bool, String> {
    let passes: Vec<&'static str> = PLANNING_PASSES.split(',').collect();
    let mut columns = vec!["model", "format", ">operations", ">kernels"];
    let titles: Vec<String> = passes.iter().chain(&REST).map(|p| format!(">{p} ms")).collect();
    columns.extend(titles.iter().map(|t| &*t.clone().leak()));
    columns.extend([">all ms", "message"]);
    let mut t = Table::new(&columns);
    for case in case::find(&args.dirs, &args.formats)? {
        let mut cells = vec![case.name.clone(), case.format.clone()];
        match measure(&case, args, &passes) {
            Ok(Times { operations, kernels, seconds }) => {
                cells.extend([operations.to_string(), kernels.to_string()]);
                cells.extend(seconds.iter().map(|s| format!("{:.3}", s * 1e3)));
                cells.push(format!("{:.3}", seconds.iter().sum::<f64>() * 1e3));
            }
            Err(problem) => {
                cells.resize(columns.len() - 1, String::new());
                cells.push(problem.message);
            }
        }
        t.row(cells);
    }
    println!("{}", t.render());
    Ok(true)
}

/// Medians of a model.
struct Times {
    operations: usize,
    kernels: usize,
    /// By pass, then those of [`REST`].
    seconds: Vec<f64>,
}

fn measure(case: &Case, args: &Args, passes: &[&str]) -> Result<Times, Problem> {
    let mut module = djinn::read(&case.model)?.module;
    let sizes = peaks::sizes(case, &module, args.size)?;
    let pipeline = args.pipeline.clone();
    djinn::optimize(&mut module, &OptimizeOptions { pipeline, ..OptimizeOptions::default() }, None)?;
    let target = peaks::target(&args.device)?.with_sizes(sizes.clone());
    let registry = djinn::registry(&[])?;
    let options = PlanOptions::default();
    let range =
        |(symbol, size): (&String, &i64)| SizeRange { symbol: symbol.clone(), min: *size, max: *size };
    let entry = |name: &str| EntrySpec {
        function: name.to_owned(),
        sizes: sizes.iter().map(range).collect(),
        ..EntrySpec::default()
    };
    let entries: Vec<EntrySpec> = module.entries().map(|f| entry(&f.name)).collect();
    let mut times = vec![Vec::new(); passes.len() + REST.len()];
    let mut kernels = 0;
    let pipeline = Pipeline::parse(&format!("builtin.module({})", passes.join(",")))?;
    let operations = module.functions.iter().map(|f| f.graph.len()).sum();
    for _ in 0..args.repeat.max(1) {
        let mut module = module.clone();
        let mut cx = PassContext {
            target: Some(Arc::new(target.clone())),
            const_eval: Some(djinn::evaluator()),
            ..PassContext::new()
        };
        let began = Instant::now();
        let clock = move || began.elapsed().as_nanos() as u64;
        let mut manager =
            PassManager::new(&registry, &pipeline)?.verify_each(false).reproducers(false).clock(clock);
        let report = manager.run(&mut module, &mut cx)?;
        for (times, run) in times.iter_mut().zip(&report.passes) {
            times.push(run.time as f64 / 1e9);
        }
        let start = Instant::now();
        let plan = djinn_planner::plan(&module, &target, &entries, &options)?;
        times[passes.len()].push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        djinn::conforms(&plan, &module)?;
        times[passes.len() + 1].push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let checked = djinn::plan_data::check(&plan);
        times[passes.len() + 2].push(start.elapsed().as_secs_f64());
        if let Err(violations) = checked {
            return Err(Problem::error(violations.first().map(ToString::to_string).unwrap_or_default()));
        }
        kernels = plan.entries.iter().map(|e| e.kernels.len()).sum();
    }
    let median = |mut list: Vec<f64>| {
        list.sort_by(f64::total_cmp);
        list[list.len() / 2]
    };
    Ok(Times { operations, kernels, seconds: times.into_iter().map(median).collect() })
}
