//! `djinn-harness full`: models of published sizes without weights, each in a process of its own.

use crate::case;
use crate::memory;
use crate::stage::{self, Problem, Stages};
use crate::table::{Table, number, short};
use djinn::device::{Profile, Target, Topology};
use djinn::ir::Module;
use djinn::onnx_export::{ExportOptions, export};
use djinn::plan_data::Plan;
use djinn::{OptimizeOptions, PlanRequest};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folders of models without weights, or folders of such folders
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// ONNX opset to write
    #[arg(long, default_value_t = 23)]
    opset: i64,
    /// Formats to run
    #[arg(long, value_delimiter = ',', default_value = "pt2,onnx")]
    formats: Vec<String>,
    /// Seconds that a model may take
    #[arg(long, default_value_t = 60.0)]
    max_seconds: f64,
    /// MiB that a model may take at its peak
    #[arg(long, default_value_t = 4096.0)]
    max_mib: f64,
    /// Write the records here, one JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table here
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

/// Stages that are shown, in order.
const STAGES: [&str; 5] = ["import", "optimise", "plan", "print", "write"];

/// The size that symbols get where they may.
const SIZE: i64 = 1024;

/// Runs every model in a child process; gives false if one fails or exceeds a limit.
pub(crate) fn main(args: &Args) -> Result<bool, String> {
    let mut t = Table::new(&[
        "model",
        "format",
        "status",
        ">nodes",
        ">after",
        ">ONNX",
        ">cost",
        ">import s",
        ">optimise s",
        ">plan s",
        ">print s",
        ">write s",
        ">total s",
        ">peak MiB",
        "message",
    ]);
    let (mut records, mut failures) = (Vec::new(), 0);
    for case in case::find(&args.dirs, &args.formats)? {
        let mut record = run_child(&case.model, args.opset)?;
        record["case"] = json!(case.name);
        record["format"] = json!(case.format);
        if let Some(message) = failure(&record, args) {
            failures += 1;
            record["message"] = json!(message);
            if record["status"] == "ok" {
                record["status"] = json!("limit");
            }
        }
        t.row(row(&record));
        records.push(record);
    }
    let limits = format!("limits {} s, {} MiB", args.max_seconds, args.max_mib);
    let summary = format!("full-size models: {} ok, {failures} failed ({limits})", records.len() - failures);
    println!("{}{summary}", t.render());
    let save = |path: &Option<PathBuf>, text: String| match path {
        Some(path) => djinn::write_atomically(path, &mut |out| out.write_all(text.as_bytes())),
        None => Ok(()),
    };
    save(&args.json, records.iter().map(|r| format!("{r}\n")).collect()).map_err(|e| e.to_string())?;
    let text = format!("# Full-size models without weights\n\n{summary}\n\n{}", t.render());
    save(&args.table, text).map_err(|e| e.to_string())?;
    Ok(failures == 0)
}

fn run_child(model: &Path, opset: i64) -> Result<Value, String> {
    let failed = |e: std::io::Error| format!("a child process cannot be run: {e}");
    let program = std::env::current_exe().map_err(failed)?;
    let start = Instant::now();
    let output =
        Command::new(program).arg("full-one").arg(model).arg(opset.to_string()).output().map_err(failed)?;
    let mut record = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        let message = format!("the process ended: {}", output.status);
        json!({"status": "crash", "stage": "process", "message": message, "stages": {}})
    });
    record["wall_s"] = json!(start.elapsed().as_secs_f64());
    Ok(record)
}

fn failure(record: &Value, args: &Args) -> Option<String> {
    if record["status"] != "ok" {
        return Some(record["message"].as_str().unwrap_or_default().to_owned());
    }
    let (seconds, mib) = (record["wall_s"].as_f64()?, record["peak_mib"].as_f64());
    if seconds > args.max_seconds {
        return Some(format!("{seconds:.1} s, {} s are allowed", args.max_seconds));
    }
    mib.filter(|m| *m > args.max_mib).map(|m| format!("{m:.0} MiB at the peak, {} are allowed", args.max_mib))
}

fn row(r: &Value) -> Vec<String> {
    let text = |key: &str| r[key].as_str().unwrap_or_default().to_owned();
    let cost = match (r["seconds_before"].as_f64(), r["seconds_after"].as_f64()) {
        (Some(b), Some(a)) if b > 0.0 => format!("{:.0} %", 100.0 * a / b),
        _ => "-".into(),
    };
    let mut cells = vec![text("case"), text("format"), text("status")];
    cells.extend(["nodes_before", "nodes_after", "onnx_nodes"].map(|key| number(&r[key], 0)));
    cells.push(cost);
    cells.extend(STAGES.map(|s| number(&r["stages"][s]["seconds"], 2)));
    cells.extend([number(&r["wall_s"], 2), number(&r["peak_mib"], 0), short(&text("message"), 240)]);
    cells
}

/// One model: prints its record.
pub(crate) fn one(path: &Path, opset: i64) -> Result<bool, String> {
    stage::record_panics();
    let mut stages = Stages::default();
    let mut peak: f64 = 0.0;
    let mut measure = || peak = peak.max(memory::peak_mib().unwrap_or(0.0));
    let model = stages.run("import", || Ok(djinn::read(path)?));
    measure();
    if let Some(model) = model {
        let before = djinn::stats(&model.module);
        stages.note("nodes_before", json!(before.count()));
        stages.note("seconds_before", json!(before.seconds));
        stages.note("opaque", json!(model.opaque));
        stages.note("type_disagreements", json!(model.type_checks.1));
        let mut module = model.module;
        let optimised = stages.run("optimise", || {
            djinn::optimize(&mut module, &OptimizeOptions::default(), None)?;
            let after = djinn::stats(&module);
            if after.seconds > before.seconds * (1.0 + 1e-9) {
                return Err(Problem::wrong("the modelled cost grew"));
            }
            Ok(after)
        });
        measure();
        if let Some(after) = optimised {
            stages.note("nodes_after", json!(after.count()));
            stages.note("seconds_after", json!(after.seconds));
            let plan = stages.run("plan", || plan(&module, after.weight_bytes));
            measure();
            stages
                .note("devices", json!(plan.as_ref().map(|p| p.devices.iter().filter(|d| !d.host).count())));
            stages.note(
                "commands",
                json!(plan.map(|p| p.entries.iter().map(|e| e.commands.len()).sum::<usize>())),
            );
            let text = stages.run("print", || Ok(djinn::ir::text::print_module(&module).len()));
            measure();
            stages.note("ir_bytes", json!(text));
            let options = ExportOptions { opset, ..ExportOptions::default() };
            let onnx = stages.run("write", || Ok(export(&module, &options)?));
            measure();
            stages.note("onnx_nodes", json!(onnx.map(|o| o.node_count)));
        }
    }
    stages.note("peak_mib", json!(peak));
    println!("{}", stages.finish());
    Ok(true)
}

/// Plans an optimised model for one H200, or for so many H100 in one machine that its weights fill less than half.
fn plan(module: &Module, weight_bytes: u64) -> Result<Plan, Problem> {
    let single = Profile::builtin("h200").ok_or_else(|| Problem::error("no profile is called h200"))?;
    let target = if weight_bytes < single.memory_bytes / 2 {
        Target::single(single)
    } else {
        let text =
            format!("[[device]]\nprofile = \"h100-80\"\ncount = {}\n", 1 + weight_bytes / 40_000_000_000);
        Target::new(Topology::parse(&text, "harness")?)
    };
    let mut request = PlanRequest::new(target);
    request.optimize.pipeline = "builtin.module()".into();
    for symbol in djinn::ir::walk::symbols(module) {
        let (least, most) = module.symbols.0.get(&symbol).map_or((1, None), |info| (info.min, info.max));
        let size = SIZE.max(least).min(most.unwrap_or(SIZE));
        request.sizes.insert(symbol.name().to_owned(), vec![(size, size)]);
    }
    Ok(djinn::plan(&mut module.clone(), &request, None)?.plan)
}
