//! `djinn-harness host`: how much faster plans run with compiled kernels than with the evaluator, and what takes the time.

use crate::case::{self, Case};
use crate::judge;
use crate::plans::sizes;
use crate::stage::{Problem, Stages};
use crate::table::{Table, number, save, short};
use djinn::device::{Profile, Target};
use djinn::interp::Outputs;
use djinn::ir::{Module, TensorData};
use djinn::runtime::{KernelReport, Kernels, RunOptions, Runtime, WorkTimes};
use djinn::{PlanRequest, plan_data::Plan};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Runs of one kind, at most and at least; the fastest counts.
const RUNS: std::ops::RangeInclusive<usize> = 3..=2000;

/// Options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folders of cases, or folders of such folders
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Formats to run
    #[arg(long, value_delimiter = ',', default_value = "pt2")]
    formats: Vec<String>,
    /// Seconds to repeat runs of one kind
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Fail if one of these models is not this much faster: NAME=FACTOR
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME=FACTOR",
        default_value = "bert_static=3,resnet50=3"
    )]
    floor: Vec<String>,
    /// Write the records here, one JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table here
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

/// Measures every case; gives false if one is wrong or slower than its floor.
pub(crate) fn main(args: &Args) -> Result<bool, String> {
    let mut t = Table::new(&[
        "model",
        "status",
        ">compiled",
        ">library",
        ">evaluated",
        ">functions",
        ">compile s",
        ">prepare s",
        ">evaluator ms",
        ">kernels ms",
        ">factor",
        ">fused %",
        ">library %",
        ">evaluated %",
        ">rest of launches %",
        ">copies %",
        "message",
    ]);
    let floors: Vec<(String, f64)> = args.floor.iter().map(|f| floor(f)).collect::<Result<_, _>>()?;
    let (mut records, mut missed) = (Vec::new(), Vec::new());
    for case in case::find(&args.dirs, &args.formats)? {
        let mut stages = Stages::default();
        stages.note("case", json!(case.name));
        measure(&mut stages, &case, args.seconds);
        let record = stages.finish();
        if record["status"] != "ok" {
            missed.push(format!("{}: {}", case.name, record["message"].as_str().unwrap_or("")));
        }
        let wanted = floors.iter().find(|(name, _)| *name == case.name);
        let factor = record["factor"].as_f64().unwrap_or(0.0);
        if let Some((name, wanted)) = wanted.filter(|(_, wanted)| factor < *wanted) {
            missed.push(format!("{name} is {factor:.2} times as fast, not {wanted}"));
        }
        t.row(row(&record));
        records.push(record);
    }
    let verdict: String = match missed.is_empty() {
        true => "host: all that is asked is reached\n".into(),
        false => missed.iter().map(|m| format!("host: MISSED: {m}\n")).collect(),
    };
    let text = format!("{}{verdict}", t.render());
    print!("{text}");
    save(args.json.as_deref(), &records.iter().map(|r| format!("{r}\n")).collect::<String>())?;
    save(args.table.as_deref(), &text)?;
    Ok(missed.is_empty())
}

fn floor(text: &str) -> Result<(String, f64), String> {
    let pair = text.split_once('=').and_then(|(name, factor)| Some((name.to_owned(), factor.parse().ok()?)));
    pair.ok_or_else(|| format!("'{text}' is not NAME=FACTOR"))
}

fn row(r: &Value) -> Vec<String> {
    let text = |key: &str| r[key].as_str().unwrap_or("").to_owned();
    let mut cells = vec![text("case"), text("status")];
    cells.extend(["compiled", "library", "evaluated"].map(|k| number(&r[k], 0)));
    cells.push(number(&r["functions"], 0));
    cells.extend(["compile", "prepare", "evaluator", "kernels", "factor"].map(|k| number(&r[k], 3)));
    cells.extend(
        ["fused_share", "library_share", "evaluated_share", "rest_share", "copy_share"]
            .map(|k| number(&r[k], 1)),
    );
    cells.push(short(&text("message"), 120));
    cells
}

/// Plans a case for one host and times its plan both ways.
fn measure(stages: &mut Stages, case: &Case, seconds: f64) -> Option<()> {
    let model = stages.run("import", || Ok(djinn::read(&case.model)?))?;
    let data = stages.run("data", || Ok(case::read_data(&case.dir)?))?;
    let feeds = model.module.functions.first().map(|f| case::feeds(f, &data)).unwrap_or_default();
    let values = feeds.values(&data);
    let mut module = model.module;
    let plan = stages.run("plan", || {
        let host = Profile::builtin("host").ok_or_else(|| Problem::error("no profile is called host"))?;
        let mut request = PlanRequest::new(Target::single(host));
        request.sizes = sizes(&module, &values)?;
        Ok(djinn::plan(&mut module, &request, None)?.plan)
    })?;
    let (plan, module) = (Arc::new(plan), Arc::new(module));
    let budget = Duration::from_secs_f64(seconds);
    let time = |stages: &mut Stages, stage: &'static str, kernels| {
        stages.run(stage, || {
            let timed = time(&plan, &module, &values, kernels, budget)?;
            judge::judge(&timed.outputs, &data, &feeds, case.format != "onnx")?;
            Ok(timed)
        })
    };
    let slow = time(stages, "evaluator run", Kernels::Evaluator)?;
    let fast = time(stages, "compiled run", Kernels::Compiled)?;
    note(stages, &slow, &fast);
    Some(())
}

fn note(stages: &mut Stages, slow: &Timed, fast: &Timed) {
    let share = |part: u64| 100.0 * part as f64 / fast.nanoseconds.max(1) as f64;
    let WorkTimes { fused, library, evaluated, launches, copies } = fast.work;
    if let Some(problem) = fast.report.problems.first() {
        stages.note("message", json!(problem.to_string()));
    }
    stages.note("compiled", json!(fast.report.fused));
    stages.note("library", json!(fast.report.library));
    stages.note("evaluated", json!(fast.report.evaluated));
    stages.note("functions", json!(fast.report.functions));
    stages.note("compile", json!(fast.report.compile_seconds));
    stages.note("prepare", json!(fast.prepare));
    stages.note("evaluator", json!(slow.nanoseconds as f64 * 1e-6));
    stages.note("kernels", json!(fast.nanoseconds as f64 * 1e-6));
    stages.note("factor", json!(slow.nanoseconds as f64 / fast.nanoseconds.max(1) as f64));
    stages.note("fused_share", json!(share(fused)));
    stages.note("library_share", json!(share(library)));
    stages.note("evaluated_share", json!(share(evaluated)));
    stages.note("rest_share", json!(share(launches.saturating_sub(fused + library + evaluated))));
    stages.note("copy_share", json!(share(copies)));
}

/// The fastest of several runs.
struct Timed {
    outputs: Outputs,
    report: KernelReport,
    /// Seconds to make the runtime.
    prepare: f64,
    nanoseconds: u64,
    work: WorkTimes,
}

fn time(
    plan: &Arc<Plan>,
    module: &Arc<Module>,
    inputs: &BTreeMap<String, TensorData>,
    kernels: Kernels,
    budget: Duration,
) -> Result<Timed, Problem> {
    let function =
        module.entries().next().ok_or_else(|| Problem::error("the module has no entry function"))?;
    let start = Instant::now();
    let options = RunOptions { kernels, share_constants: true, ..RunOptions::default() };
    let mut runtime = Runtime::host(Arc::clone(plan), Arc::clone(module), options)?;
    let prepare = start.elapsed().as_secs_f64();
    let (first, outputs) = djinn::execute(&mut runtime, &function.name, inputs)?;
    let report = runtime.kernels().clone();
    let mut timed = Timed { outputs, report, prepare, nanoseconds: first.elapsed_ns, work: first.work };
    let start = Instant::now();
    for run in 1..*RUNS.end() {
        if run >= *RUNS.start() && start.elapsed() > budget {
            break;
        }
        runtime.reset_states()?;
        let (output, _) = djinn::execute(&mut runtime, &function.name, inputs)?;
        if output.elapsed_ns < timed.nanoseconds {
            (timed.nanoseconds, timed.work) = (output.elapsed_ns, output.work);
        }
    }
    Ok(timed)
}
