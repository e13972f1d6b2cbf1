//! `djinn-harness peaks`: memory of plans against its lower bound and against what other runtimes' planners reach.
//!
//! Every model is planned on one device and one stream four times: its kernels in the order of the file and in that of
//! `lifetime`, every value in a buffer of its own and with views and values in place. For each of these problems
//! the most bytes that are live at once are a lower bound of any packing. What TensorFlow Lite and ONNX Runtime do in the
//! order of the file is compared with what Djinn does; a plan above either is a failure.

use crate::case::{self, Case};
use crate::plans;
use crate::stage::{self, Problem, Stages};
use crate::table::{Table, number, save, short};
use djinn::device::{Target, Topology};
use djinn::ir::Module;
use djinn::pack::baseline::{height, onnxruntime_mem_pattern, tflite_greedy_by_size};
use djinn::pack::{Limits, pack};
use djinn::pass::{PassContext, PassManager, Pipeline};
use djinn::{OptimizeOptions, PLANNING_PASSES};
use djinn_planner::{EntrySpec, PlanOptions, SizeRange};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folders of models, or folders of such folders
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Formats to run
    #[arg(long, value_delimiter = ',', default_value = "pt2,onnx")]
    formats: Vec<String>,
    /// Passes before planning (default: those of djinn-opt)
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<String>,
    /// The size of symbols that no recorded input binds
    #[arg(long, default_value_t = 128)]
    size: i64,
    /// Write the records here, one JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table here
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

/// Memory of the device: enough for every model.
const MEMORY: u64 = 1 << 44;

/// Columns of figures, with their names in records.
const FIGURES: [(&str, &str); 9] = [
    (">file: bound", "file_bound"),
    (">TFLite", "file_tflite"),
    (">ORT", "file_ort"),
    (">Djinn", "file_djinn"),
    (">in place: bound", "bound"),
    (">TFLite", "tflite"),
    (">ORT", "ort"),
    (">Djinn", "djinn"),
    (">own bytes", "sum"),
];

/// Measures every model; gives false if a plan takes more than a baseline.
pub(crate) fn main(args: &Args) -> Result<bool, String> {
    stage::record_panics();
    let mut columns = vec!["model", "format", "status", ">kernels"];
    columns.extend(FIGURES.iter().map(|(title, _)| *title));
    columns.extend([">gap %", ">of TFLite %", ">of ORT %", "message"]);
    let mut t = Table::new(&columns);
    let mut records = Vec::new();
    for case in case::find(&args.dirs, &args.formats)? {
        let mut stages = Stages::default();
        stages.note("case", json!(case.name));
        stages.note("format", json!(case.format));
        for (key, value) in stages.run("peaks", || measure(&case, args)).unwrap_or_default() {
            stages.note(key, json!(value));
        }
        let mut record = stages.finish();
        judge(&mut record);
        t.row(row(&record));
        records.push(record);
    }
    let bad = records.iter().filter(|r| r["status"] != "ok").count();
    let summary = summary(&records);
    println!("{}{summary}", t.render());
    save(args.json.as_deref(), &records.iter().map(|r| format!("{r}\n")).collect::<String>())?;
    save(args.table.as_deref(), &format!("{}{summary}\n", t.render()))?;
    Ok(bad == 0)
}

/// A record is wrong if Djinn's peak is above a baseline's.
fn judge(record: &mut Value) {
    let figure = |key: &str| record[key].as_u64();
    let Some(djinn) = figure("djinn") else { return };
    let baselines = ["file_tflite", "file_ort", "tflite", "ort"];
    if let Some(above) = baselines.into_iter().find(|b| figure(b).is_some_and(|b| djinn > b)) {
        record["status"] = json!("wrong");
        record["message"] = json!(format!("above {above}"));
    }
}

fn row(r: &Value) -> Vec<String> {
    let text = |key: &str| r[key].as_str().unwrap_or("").to_owned();
    let share = |of: &str, less: f64| match (r["djinn"].as_f64(), r[of].as_f64().filter(|x| *x > 0.0)) {
        (Some(x), Some(of)) => format!("{:.2}", (x / of - less) * 100.0),
        _ => String::new(),
    };
    let mut cells = vec![text("case"), text("format"), text("status"), number(&r["kernels"], 0)];
    cells.extend(FIGURES.iter().map(|(_, key)| number(&r[*key], 0)));
    cells.extend([share("bound", 1.0), share("file_tflite", 0.0), share("file_ort", 0.0)]);
    cells.push(short(r["message"].as_str().unwrap_or(""), 120));
    cells
}

fn summary(records: &[Value]) -> String {
    let total = |key: &str| records.iter().filter_map(|r| r[key].as_u64()).sum::<u64>();
    let count = |of: &dyn Fn(&&Value) -> bool| records.iter().filter(of).count();
    format!(
        "peaks: {} of {} at the lower bound, {} not above any baseline; all models: {} bytes, TFLite {}, ONNX Runtime {}, \
         a buffer for every value {}",
        count(&|r| r["djinn"].is_u64() && r["djinn"] == r["bound"]),
        records.len(),
        count(&|r| r["status"] == "ok"),
        total("djinn"),
        total("file_tflite"),
        total("file_ort"),
        total("sum")
    )
}

/// The figures of a model.
fn measure(case: &Case, args: &Args) -> Result<Vec<(&'static str, u64)>, Problem> {
    let mut module = djinn::read(&case.model)?.module;
    let sizes = sizes(case, &module, args.size)?;
    let pipeline = args.pipeline.clone().unwrap_or_else(|| OptimizeOptions::default().pipeline);
    djinn::optimize(&mut module, &OptimizeOptions { pipeline, ..OptimizeOptions::default() }, None)?;
    let target = target("host")?.with_sizes(sizes.clone());
    let passes: Vec<&str> = PLANNING_PASSES.split(',').filter(|p| *p != "streams").collect();
    let before: Vec<&str> = passes.iter().copied().filter(|p| *p != "lifetime").collect();
    run(&mut module, &target, &before)?;
    let file = posed(&module, &target, &sizes, false)?;
    run(&mut module, &target, &["lifetime"])?;
    let plan = posed(&module, &target, &sizes, true)?;
    Ok(vec![
        ("kernels", plan.kernels),
        ("sum", file.sum),
        ("file_bound", file.bound),
        ("file_tflite", file.tflite),
        ("file_ort", file.ort),
        ("file_djinn", file.djinn),
        ("bound", plan.bound),
        ("tflite", plan.tflite),
        ("ort", plan.ort),
        ("djinn", plan.djinn),
    ])
}

/// One device of a profile, with memory for every model.
pub(crate) fn target(profile: &str) -> Result<Target, Problem> {
    let text = format!("[[device]]\nprofile = \"{profile}\"\ncount = 1\nmemory_bytes = {MEMORY}\n");
    Ok(Target::new(Topology::parse(&text, "harness")?))
}

/// The sizes of recorded inputs, or the given one within what the model admits.
pub(crate) fn sizes(case: &Case, module: &Module, size: i64) -> Result<BTreeMap<String, i64>, Problem> {
    let mut sizes = BTreeMap::new();
    if case.dir.join("inputs.npz").is_file() {
        let data = case::read_data(&case.dir)?;
        let feeds = module.functions.first().map(|f| case::feeds(f, &data)).unwrap_or_default();
        let bound = plans::sizes(module, &feeds.values(&data))?;
        sizes.extend(bound.into_iter().filter_map(|(s, ranges)| Some((s, ranges.first()?.0))));
    }
    for symbol in djinn::ir::walk::symbols(module) {
        let info = module.symbols.info(&symbol);
        let size = size.max(info.min).min(info.max.unwrap_or(i64::MAX));
        let size = size - size.rem_euclid(info.divisor.max(1));
        sizes.entry(symbol.name().to_owned()).or_insert(size.max(info.min));
    }
    Ok(sizes)
}

fn run(module: &mut Module, target: &Target, passes: &[&str]) -> Result<(), Problem> {
    let registry = djinn::registry(&[])?;
    let pipeline = Pipeline::parse(&format!("builtin.module({})", passes.join(",")))?;
    let mut cx = PassContext {
        target: Some(Arc::new(target.clone())),
        const_eval: Some(djinn::evaluator()),
        ..PassContext::new()
    };
    PassManager::new(&registry, &pipeline)?.run(module, &mut cx)?;
    Ok(())
}

/// Bytes that a problem takes.
#[derive(Default)]
struct Figures {
    kernels: u64,
    sum: u64,
    bound: u64,
    tflite: u64,
    ort: u64,
    djinn: u64,
}

/// Plans every function and packs what its runs need, in several ways; the largest function counts.
fn posed(
    module: &Module,
    target: &Target,
    sizes: &BTreeMap<String, i64>,
    sharing: bool,
) -> Result<Figures, Problem> {
    let options = PlanOptions { sharing, packing: Limits::quick(), ..PlanOptions::default() };
    let mut most = Figures::default();
    for function in module.entries() {
        let range =
            |(symbol, size): (&String, &i64)| SizeRange { symbol: symbol.clone(), min: *size, max: *size };
        let entry = EntrySpec {
            function: function.name.to_string(),
            sizes: sizes.iter().map(range).collect(),
            ..EntrySpec::default()
        };
        let plan = djinn_planner::plan(module, target, &[entry], &options)?;
        for (_, problem) in djinn_planner::packing(&plan, 0)? {
            let outcome = pack(&problem, &Limits::default());
            if outcome.height < most.djinn {
                continue;
            }
            most = Figures {
                kernels: plan.entries[0].kernels.len() as u64,
                sum: problem.buffers().iter().map(|b| b.size).sum(),
                bound: outcome.lower_bound,
                tflite: height(&problem, &tflite_greedy_by_size(&problem)),
                ort: height(&problem, &onnxruntime_mem_pattern(&problem)),
                djinn: outcome.height,
            };
        }
    }
    Ok(most)
}
