//! `djinn-harness gpu`: plans of models on CUDA devices, compared with the recorded results and timed.

use crate::case::{self, Case};
use crate::judge;
use crate::plans::{Needs, Site, planned};
use crate::stage::{self, Problem, Stages};
use crate::table::{Table, number, save, short};
use djinn::cuda::{Device, Driver};
use djinn::device::{Profile, Target};
use djinn::diag::Culprit;
use djinn::interp::Outputs;
use djinn::ir::TensorData;
use djinn::runtime::{KernelReport, RunOptions, Runtime};
use djinn::{Bundle, EngineRequest, OptimizeOptions, PlanRequest};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folders of cases, or folders of such folders
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Formats to run
    #[arg(long, value_delimiter = ',', default_value = "pt2")]
    formats: Vec<String>,
    /// Numbers of devices; several get capacities that force a split. GPUs that are there take turns in their places
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    devices: Vec<usize>,
    /// Numbers of devices that together cannot hold the weights: some stay on the host and are copied in every run
    #[arg(long, value_delimiter = ',', value_name = "DEVICES")]
    stream_weights: Vec<usize>,
    /// The device profile that plans for one device are made with
    #[arg(long, default_value = "h200")]
    profile: String,
    /// Runs that are timed, beside the three that are judged
    #[arg(long, default_value_t = 0)]
    repeat: u32,
    /// Do not run: write a bundle of every plan into this folder, with its kernels, and engines where TensorRT is installed
    #[arg(long, value_name = "FOLDER", conflicts_with = "prepared")]
    prepare: Option<PathBuf>,
    /// Run the bundles of this folder, which `--prepare` wrote: nothing is planned or compiled
    #[arg(long, value_name = "FOLDER")]
    prepared: Option<PathBuf>,
    /// Write the records here, one JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table here
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

/// Runs every case on every number of devices; gives false if one is wrong.
pub(crate) fn main(args: &Args) -> Result<bool, String> {
    stage::record_panics();
    let gpus = match (&args.prepare, Driver::load()) {
        (Some(_), _) => 0,
        (None, Ok(driver)) => {
            let gpus = driver.devices().map_err(|e| e.to_string())?;
            let names: Result<Vec<String>, _> =
                (0..gpus).map(|n| Device::open(&driver, n)).map(named).collect();
            let names = names.map_err(|e| e.to_string())?;
            println!("gpu: {}; CUDA {}", names.join(", "), driver.version());
            gpus
        }
        (None, Err(missing)) => {
            println!("gpu: skipped (no CUDA device): {}", missing.message);
            return Ok(true);
        }
    };
    let mut t = Table::new(&[
        "model",
        "format",
        ">devices",
        "status",
        ">kernels",
        ">library",
        ">host",
        ">engines",
        "graph",
        ">predicted ms",
        ">median ms",
        "message",
    ]);
    let (mut records, mut failures) = (Vec::new(), 0);
    for case in case::find(&args.dirs, &args.formats)? {
        let mut needs = None;
        let one = args.devices.iter().map(|n| Site::Devices(*n));
        for site in one.chain(args.stream_weights.iter().map(|n| Site::Streaming(*n))) {
            let mut stages = Stages::default();
            stages.note("case", json!(case.name));
            stages.note("format", json!(case.format));
            stages.note("devices", json!(site.devices()));
            let found = run(&mut stages, &case, args, (site, needs), gpus);
            needs = needs.or(found);
            let record = stages.finish();
            failures += usize::from(record["status"] != "ok");
            t.row(row(&record));
            records.push(record);
        }
    }
    let done = if args.prepare.is_some() { "written" } else { "run and agree" };
    let summary = format!("gpu: {} of {} {done}", records.len() - failures, records.len());
    println!("{}{summary}", t.render());
    save(args.json.as_deref(), &records.iter().map(|r| format!("{r}\n")).collect::<String>())?;
    save(args.table.as_deref(), &format!("{}{summary}\n", t.render()))?;
    Ok(failures == 0)
}

fn named(device: djinn::diag::Result<Device>) -> djinn::diag::Result<String> {
    let device = device?;
    let (_, total) = device.memory()?;
    Ok(format!("cuda:{} {} ({:.0} GB)", device.ordinal(), device.name(), total as f64 / 1e9))
}

fn row(r: &Value) -> Vec<String> {
    let text = |key: &str| r[key].as_str().unwrap_or("").to_owned();
    let mut cells = vec![text("case"), text("format"), number(&r["devices"], 0), text("status")];
    cells.extend(["kernels", "library", "host", "engines"].map(|k| number(&r[k], 0)));
    cells.push(text("graph"));
    cells.extend(["predicted", "median"].map(|k| number(&r[k], 3)));
    let told = ["message", "why"].iter().filter_map(|key| r[*key].as_str()).find(|text| !text.is_empty());
    cells.push(short(told.unwrap_or(""), 200));
    cells
}

/// Plans and runs a case on a site; gives the bytes that one device needs.
fn run(
    stages: &mut Stages,
    case: &Case,
    args: &Args,
    (site, needed): (Site, Option<Needs>),
    gpus: usize,
) -> Option<Needs> {
    let data = stages.run("data", || Ok(case::read_data(&case.dir)?))?;
    let file = |folder: &PathBuf| {
        let kind = if matches!(site, Site::Streaming(_)) { "streamed" } else { "plain" };
        folder.join(format!("{}.{}.{kind}{}.djinn", case.name, case.format, site.devices()))
    };
    let bundle = match &args.prepared {
        Some(folder) => stages.run("read", || Ok(djinn::read_bundle(&file(folder))?))?,
        None => stages.run("plan", || planned_bundle(case, &data, args, (site, needed)))?,
    };
    let needs = Needs::of(&bundle.plan);
    if let Some(folder) = &args.prepare {
        stages.run("write", || Ok(djinn::write_bundle(&file(folder), &with_parts(bundle, args)?)?));
        return Some(needs);
    }
    stages.note("predicted", json!(bundle.plan.entries.first().map_or(0.0, |e| e.seconds) * 1e3));
    let feeds = bundle.module.functions.first().map(|f| case::feeds(f, &data)).unwrap_or_default();
    let values = feeds.values(&data);
    let ran = stages.run("run", || {
        judged(bundle, &values, (gpus, args.repeat), &|outputs| {
            judge::judge(outputs, &data, &feeds, case.format != "onnx").map(|_| ())
        })
    })?;
    let report = &ran.report;
    stages.note("kernels", json!(report.fused));
    stages.note("library", json!(report.library));
    stages.note("host", json!(report.evaluated));
    stages.note("engines", json!(report.engines));
    stages.note("graph", json!(if ran.graph { "yes" } else { "no" }));
    stages.note("median", ran.median.map_or(Value::Null, |t| json!(t)));
    let why: Vec<String> = report.refused.iter().map(|(what, n)| format!("{n}× {what}")).collect();
    let problems = report.problems.iter().map(|p| p.message.clone());
    stages.note("why", json!(why.into_iter().chain(problems).collect::<Vec<_>>().join("; ")));
    stages.run("judge", || ran.verdict);
    Some(needs)
}

/// What runs of a plan came to.
struct Judged {
    verdict: Result<(), Problem>,
    /// Was the last one a graph?
    graph: bool,
    /// Of the timed runs, in milliseconds.
    median: Option<f64>,
    report: KernelReport,
}

/// Runs a plan as it is, as it is again, and as a graph, and so many times more; the GPUs that are there take turns in
/// the places of its devices.
fn judged(
    bundle: Bundle,
    inputs: &BTreeMap<String, TensorData>,
    (gpus, repeat): (usize, u32),
    judge: &dyn Fn(&Outputs) -> Result<(), Problem>,
) -> Result<Judged, Problem> {
    let Bundle { module, plan, parts } = bundle;
    let function = module.entries().next().map(|f| f.name.to_string());
    let function = function.ok_or_else(|| Problem::error("the module has no entry function"))?;
    let wanted = plan.devices.iter().filter(|d| !d.host).count();
    let (mut cuda, missing) = djinn::cuda_options(&parts, &plan)?;
    if let Some(missing) = missing {
        eprintln!("gpu: engines do not run: {}", missing.message);
    }
    cuda.gpus = (0..wanted).map(|n| n % gpus.max(1)).collect();
    let options = RunOptions { poison: true, ..RunOptions::default() };
    let mut runtime = Runtime::cuda(Arc::new(plan), Arc::new(module), options, cuda)?;
    let mut ran = Judged { verdict: Ok(()), graph: false, median: None, report: runtime.kernels().clone() };
    for _ in 0..3 {
        runtime.reset_states()?;
        let (output, outputs) = djinn::execute(&mut runtime, &function, inputs)?;
        (ran.verdict, ran.graph) = (judge(&outputs), output.graph);
        if ran.verdict.is_err() {
            return Ok(ran);
        }
    }
    ran.median = times(&mut runtime, &function, inputs, repeat)?;
    Ok(ran)
}

/// The plan of a case for a site, in a bundle without further parts.
fn planned_bundle(
    case: &Case,
    data: &case::Data,
    args: &Args,
    (site, needed): (Site, Option<Needs>),
) -> Result<Bundle, Problem> {
    let mut module = djinn::read(&case.model)?.module;
    let feeds = module.functions.first().map(|f| case::feeds(f, data)).unwrap_or_default();
    let sizes = crate::plans::sizes(&module, &feeds.values(data))?;
    djinn::optimize(&mut module, &OptimizeOptions::default(), None)?;
    if site != Site::Devices(1) {
        let plan = planned(&mut module, site, needed, &sizes)?.0;
        return Ok(Bundle::new(module, plan));
    }
    let mut request = PlanRequest::new(target(args)?);
    request.optimize.pipeline = "builtin.module()".into();
    request.sizes = sizes;
    request.engine_entries = true;
    let plan = djinn::plan(&mut module, &request, None)?.plan;
    Ok(Bundle::new(module, plan))
}

fn target(args: &Args) -> Result<Target, Problem> {
    Ok(Target::single(Profile::named(&args.profile)?))
}

/// The bundle with its kernels, and with engines if TensorRT is there.
fn with_parts(mut bundle: Bundle, args: &Args) -> Result<Bundle, Problem> {
    let target = target(args)?;
    let chips = djinn::compute_capabilities(&target);
    let kernels = djinn::compile_kernels(&bundle.module, &bundle.plan, &chips)?;
    if let Some(problem) = kernels.problems.first() {
        return Err(Problem::error(problem.to_string()));
    }
    bundle.parts.extend(kernels.parts());
    match djinn::compile_engines(&bundle.module, &bundle.plan, &EngineRequest::new(&target)) {
        Ok(engines) => bundle.parts.extend(engines.parts()),
        Err(e) if e.culprit == Culprit::Unsupported => {}
        Err(e) => return Err(e.into()),
    }
    Ok(bundle)
}

/// The median of so many runs, in milliseconds.
fn times(
    runtime: &mut Runtime,
    function: &str,
    inputs: &BTreeMap<String, TensorData>,
    repeat: u32,
) -> Result<Option<f64>, Problem> {
    let mut times = Vec::new();
    for _ in 0..repeat {
        runtime.reset_states()?;
        times.push(djinn::execute(runtime, function, inputs)?.0.elapsed_ns);
    }
    times.sort_unstable();
    Ok(times.get(times.len() / 2).map(|ns| *ns as f64 / 1e6))
}
