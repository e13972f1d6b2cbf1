//! `djinn-harness engines`: TensorRT engines of the regions of plans, each distinct one built once.
//!
//! Every case runs in a process of its own: a library that crashes must not take the table with it.

use crate::case::{self, Case};
use crate::plans;
use crate::table::{Table, number, save, short};
use djinn::device::{Profile, Target};
use djinn::ir::{ContentHash, Module};
use djinn::plan_data::{Entry, Plan};
use djinn::{OptimizeOptions, PlanRequest};
use djinn_tensorrt::{BuildOptions, Engine, Library, Outcome, Precision, Region, build, build_or_split};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Share of the multiply-accumulate work that must be in engines.
const FLOOR: f64 = 0.95;

/// Options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folders of cases, or folders of such folders
    #[arg(default_value = "testdata/models")]
    dirs: Vec<PathBuf>,
    /// Formats to run
    #[arg(long, value_delimiter = ',', default_value = "pt2,onnx")]
    formats: Vec<String>,
    #[command(flatten)]
    how: How,
    /// Write the records here, one JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table here
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

/// What is built and how.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct How {
    /// Device of the plans
    #[arg(long, default_value = "h200")]
    device: String,
    /// Bind symbols to the recorded sizes only, instead of everything up to them
    #[arg(long)]
    fixed: bool,
    /// Element type of contractions: keep, f16 or bf16
    #[arg(long, default_value = "keep")]
    precision: String,
}

/// Builds the engines of every case; gives false if one fails or falls short.
pub(crate) fn main(args: &Args) -> Result<bool, String> {
    let library = Library::load();
    if let Err(missing) = &library {
        println!("engines: skipped: {missing}");
        return Ok(true);
    }
    let columns = [
        "model",
        "format",
        ">regions",
        ">distinct",
        ">built",
        ">engine bytes",
        ">build s",
        ">work in engines %",
        "fallbacks",
    ];
    let (mut t, mut records, mut failed, mut short_of) = (Table::new(&columns), Vec::new(), 0, 0);
    for case in case::find(&args.dirs, &args.formats)? {
        let record = in_process(&case, &args.how);
        failed += usize::from(record["error"].is_string());
        let low = record["share"].as_f64().is_some_and(|share| share < FLOOR);
        short_of += usize::from(low);
        t.row(row(&record));
        records.push(record);
    }
    let summary = format!(
        "engines: {} of {} plans; {failed} failed, {short_of} below {:.0} % of the work in engines",
        records.len() - failed,
        records.len(),
        FLOOR * 100.0
    );
    println!("{}{summary}", t.render());
    save(args.json.as_deref(), &records.iter().map(|r| format!("{r}\n")).collect::<String>())?;
    save(args.table.as_deref(), &format!("{}{summary}\n", t.render()))?;
    Ok(failed == 0 && short_of == 0)
}

fn row(r: &Value) -> Vec<String> {
    let text = |key: &str| r[key].as_str().unwrap_or("").to_owned();
    let mut cells = vec![text("case"), text("format")];
    cells.extend(["regions", "distinct", "built", "bytes"].map(|k| number(&r[k], 0)));
    cells.push(number(&r["seconds"], 2));
    cells.push(number(&json!(r["share"].as_f64().map(|s| s * 100.0)), 1));
    let fallbacks: Vec<&str> =
        r["fallbacks"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    cells.push(r["error"].as_str().map_or_else(|| short(&fallbacks.join(" / "), 300), |e| short(e, 300)));
    cells
}

/// The record of a case, made by a process of its own.
fn in_process(case: &Case, how: &How) -> Value {
    let run = || -> Result<Value, String> {
        let exe = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut command = Command::new(exe);
        command.arg("engines-one").arg(&case.dir).arg(&case.model);
        command.args(["--device", &how.device, "--precision", &how.precision]);
        if how.fixed {
            command.arg("--fixed");
        }
        let output = command.stderr(Stdio::piped()).output().map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8_lossy(&output.stdout);
        let record = printed.lines().last().and_then(|l| serde_json::from_str(l).ok());
        record.ok_or_else(|| format!("{}: {}", output.status, short(said.trim(), 200)))
    };
    let mut record = run().unwrap_or_else(|e| json!({ "error": e }));
    record["case"] = json!(case.name);
    record["format"] = json!(case.format);
    record
}

/// Builds the engines of one case and prints the record.
pub(crate) fn one(dir: &Path, model: &Path, how: &How) -> Result<bool, String> {
    let record = measure(dir, model, how).unwrap_or_else(|e| json!({ "error": e }));
    println!("{record}");
    Ok(true)
}

fn measure(dir: &Path, model: &Path, how: &How) -> Result<Value, String> {
    let mut module = djinn::read(model).map_err(|e| e.to_string())?.module;
    let plan = plan(dir, &mut module, how)?;
    let mut work = Work::new(how)?;
    for entry in &plan.entries {
        for engine in &entry.engines {
            work.region(&module, entry, engine);
        }
    }
    let all: f64 = plan.entries.iter().flat_map(|e| &e.kernels).map(|k| k.flops).sum();
    let share = if all > 0.0 { work.flops / all } else { 1.0 };
    Ok(json!({
        "regions": work.regions,
        "distinct": work.engines.len(),
        "built": work.engines.values().filter(|e| e.is_ok()).count(),
        "bytes": work.engines.values().flatten().map(|e| e.bytes.len()).sum::<usize>(),
        "layers": work.engines.values().flatten().map(|e| e.layers.len()).sum::<usize>(),
        "seconds": work.seconds,
        "share": share,
        "fallbacks": work.reasons(),
    }))
}

/// The plan for one device, with symbols up to their recorded sizes.
pub(crate) fn plan(dir: &Path, module: &mut Module, how: &How) -> Result<Plan, String> {
    let data = case::read_data(dir).map_err(|e| e.to_string())?;
    let feeds = module.functions.first().map(|f| case::feeds(f, &data)).unwrap_or_default();
    let mut sizes = plans::sizes(module, &feeds.values(&data)).map_err(|e| e.message)?;
    if !how.fixed {
        for (symbol, ranges) in &mut sizes {
            let least = module.symbols.info(&djinn::ir::Symbol::new(symbol)).min.max(1);
            ranges.iter_mut().for_each(|(min, max)| *min = least.min(*max));
        }
    }
    let profile =
        Profile::builtin(&how.device).ok_or_else(|| format!("no device is called {}", how.device))?;
    let mut request = PlanRequest::new(Target::single(profile));
    request.sizes = sizes;
    request.optimize = OptimizeOptions::default();
    Ok(djinn::plan(module, &request, None).map_err(|e| e.to_string())?.plan)
}

/// What has been built so far.
struct Work {
    library: Library,
    precision: Precision,
    regions: usize,
    engines: BTreeMap<ContentHash, Result<Engine, Box<djinn::diag::Diagnostic>>>,
    seconds: f64,
    flops: f64,
    /// Reasons and how many kernels they keep out.
    refused: BTreeMap<String, usize>,
}

impl Work {
    fn new(how: &How) -> Result<Work, String> {
        let precision = match how.precision.as_str() {
            "keep" => Precision::keep(),
            "f16" => Precision::f16(),
            "bf16" => Precision::bf16(),
            other => return Err(format!("unknown precision '{other}': choose among keep, f16 and bf16")),
        };
        let library = Library::load().map_err(|e| e.to_string())?;
        let (engines, refused) = (BTreeMap::new(), BTreeMap::new());
        Ok(Work { library, precision, regions: 0, engines, seconds: 0.0, flops: 0.0, refused })
    }

    fn region(&mut self, module: &Module, entry: &Entry, engine: &djinn::plan_data::Engine) {
        self.regions += 1;
        let Work { library, engines, seconds, .. } = self;
        let mut one = |region: &Region| {
            let known = engines.entry(region.key()).or_insert_with(|| {
                let begin = Instant::now();
                let built = build(library, region, &BuildOptions::default());
                *seconds += begin.elapsed().as_secs_f64();
                built
            });
            known.clone()
        };
        for outcome in build_or_split(module, entry, engine, &self.precision, &mut one) {
            match outcome {
                Outcome::Built { region, .. } => self.flops += region.flops,
                Outcome::Refused { kernels, reason, .. } => {
                    let place = reason.place.first().cloned().unwrap_or_default();
                    let place = place.rsplit(", ").next().unwrap_or_default().to_owned();
                    *self.refused.entry(format!("{place}: {}", reason.message)).or_default() += kernels.len();
                }
            }
        }
    }

    fn reasons(&self) -> Vec<String> {
        self.refused.iter().map(|(reason, kernels)| format!("{kernels} × {reason}")).collect()
    }
}
