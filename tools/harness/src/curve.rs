//! `djinn-harness curve`: what compiling costs against the number of repeated layers.
//!
//! Models of fewer layers are made of the file's own layers (see `scaling`) and written as IR text, so their import is
//! that of text; the row `file` is the file itself. Every row runs in a process of its own, several times; times are the
//! least of them, which other work on the machine disturbs least, memory is the peak of the process.
//!
//! The curve passes if, from the fewest to the most layers,
//! - saturation takes at most [`MAX_SATURATE_GROWTH`] times as long: each distinct layer is worked on once;
//! - program hash, outlining and inlining grow at most [`MAX_LINEAR_GROWTH`] times as much as the import does;
//! - no row saturates more than [`MAX_BODIES`] bodies;
//!
//! and no row exceeds the limits of time and memory that were given.

use crate::memory;
use crate::scaling::truncated;
use crate::table::{Table, number};
use djinn::device::{Profile, Target, Topology};
use djinn::diag::{Result, input};
use djinn::ir::{Module, Symbol, text, walk};
use djinn::pass::Event;
use djinn::{DEFAULT_PIPELINE, OptimizeOptions, PlanRequest, Watch};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

/// Time of saturation with most layers over that with fewest, at most: the layer is worked on once, but the function
/// around it has a call a layer, and its arguments and results grow with them.
const MAX_SATURATE_GROWTH: f64 = 1.75;
/// Growth of what is linear by design over the growth of the import, at most: room for noise and for the file's parts
/// that do not repeat.
const MAX_LINEAR_GROWTH: f64 = 1.5;
/// Bodies saturated, at most: the layer and the function around it, in both phases of the cut.
const MAX_BODIES: u64 = 4;

/// Options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Numbers of layers
    #[arg(long, value_delimiter = ',', default_value = "8,16,32,80")]
    layers: Vec<usize>,
    #[command(flatten)]
    run: RunArgs,
    /// Seconds from the file to the plan, at most
    #[arg(long)]
    max_seconds: Option<f64>,
    /// MiB at the peak, at most
    #[arg(long)]
    max_mib: Option<f64>,
}

/// Options of one row.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RunArgs {
    /// Plan for this topology: a TOML file or the name of a device profile; `none` plans nothing
    #[arg(long, default_value = "none")]
    target: String,
    /// Size of every symbol, within what the file says of it
    #[arg(long, default_value_t = 1024)]
    size: i64,
    /// Runs, of which the least times are shown
    #[arg(long, default_value_t = 7)]
    repeats: usize,
}

/// Columns of times, in seconds.
const TIMES: [&str; 8] = ["import", "hash", "outline", "saturate", "inline", "rest", "plan", "total"];

/// Prints one table a file; gives false if a curve does not pass.
pub(crate) fn main(args: &Args) -> std::result::Result<bool, String> {
    let mut passed = true;
    for file in &args.files {
        passed &= curve(file, args)?;
    }
    Ok(passed)
}

fn curve(file: &Path, args: &Args) -> std::result::Result<bool, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let model = djinn::read(file).map_err(|e| e.to_string())?;
    let mut rows: Vec<Value> = Vec::new();
    for layers in &args.layers {
        let module = truncated(model.module.clone(), *layers).map_err(|e| e.to_string())?;
        let path = folder.path().join(format!("{layers}.mlir"));
        std::fs::write(&path, text::print_module(&module)).map_err(|e| e.to_string())?;
        let mut row = child(&path, &args.run)?;
        row["layers"] = json!(layers.to_string());
        rows.push(row);
    }
    drop(model);
    let mut row = child(file, &args.run)?;
    row["layers"] = json!("file");
    rows.push(row);

    let name = file.parent().and_then(Path::file_name).unwrap_or(file.as_os_str()).to_string_lossy();
    println!(
        "{name}, for {}, sizes {}, least of {} runs\n",
        args.run.target, args.run.size, args.run.repeats
    );
    println!("{}", render(&rows));
    let problems = judge(&rows, args);
    problems.iter().for_each(|p| println!("{name}: {p}"));
    Ok(problems.is_empty())
}

fn render(rows: &[Value]) -> String {
    let mut t = Table::new(&[
        ">layers",
        ">ops",
        ">import s",
        ">hash s",
        ">outline s",
        ">saturate s",
        ">inline s",
        ">rest s",
        ">plan s",
        ">total s",
        ">functions saturated",
        ">kernels",
        ">peak MiB",
    ]);
    for row in rows {
        let mut cells = vec![row["layers"].as_str().unwrap_or_default().to_owned(), number(&row["ops"], 0)];
        cells.extend(TIMES.iter().map(|t| number(&row[*t], 4)));
        cells.extend([number(&row["bodies"], 0), number(&row["kernels"], 0), number(&row["peak_mib"], 0)]);
        t.row(cells);
    }
    t.render()
}

/// What is wrong with a curve.
fn judge(rows: &[Value], args: &Args) -> Vec<String> {
    let mut problems = Vec::new();
    let of = |row: &Value, key: &str| row[key].as_f64().unwrap_or(0.0);
    for row in rows {
        let layers = row["layers"].as_str().unwrap_or_default();
        let (bodies, total, mib) = (of(row, "bodies"), of(row, "total"), of(row, "peak_mib"));
        if bodies > MAX_BODIES as f64 {
            problems.push(format!("{layers} layers: {bodies} bodies saturated, {MAX_BODIES} are allowed"));
        }
        if args.max_seconds.is_some_and(|max| total > max) {
            problems.push(format!("{layers} layers: {total:.2} s are more than allowed"));
        }
        if args.max_mib.is_some_and(|max| mib > max) {
            problems.push(format!("{layers} layers: {mib:.0} MiB are more than allowed"));
        }
    }
    // The last row is the file, whose import is another one.
    let counted = &rows[..rows.len() - 1];
    let by_ops = |row: &&Value| row["ops"].as_u64();
    if let (Some(least), Some(most)) = (counted.iter().min_by_key(by_ops), counted.iter().max_by_key(by_ops))
    {
        let growth = |key: &str| of(most, key) / of(least, key).max(1e-9);
        let sum = |row: &Value| of(row, "hash") + of(row, "outline") + of(row, "inline");
        let linear = sum(most) / sum(least).max(1e-9);
        println!(
            "growth from {} to {} ops: import {:.2}, saturate {:.2}, hash + outline + inline {linear:.2}",
            least["ops"],
            most["ops"],
            growth("import"),
            growth("saturate"),
        );
        if growth("saturate") > MAX_SATURATE_GROWTH {
            problems.push(format!("saturation grows by more than {MAX_SATURATE_GROWTH}"));
        }
        if linear > MAX_LINEAR_GROWTH * growth("import") {
            let message = "hash, outline and inline grow more than the import by a factor of";
            problems.push(format!("{message} {MAX_LINEAR_GROWTH}"));
        }
    }
    problems
}

fn child(file: &Path, run: &RunArgs) -> std::result::Result<Value, String> {
    let failed = |e: std::io::Error| format!("a child process cannot be run: {e}");
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.arg("curve-one").arg(file).args(["--target", &run.target]);
    command.args(["--size", &run.size.to_string(), "--repeats", &run.repeats.to_string()]);
    let output = command.output().map_err(failed)?;
    serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("{}: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim()))
}

/// One row: prints its record.
pub(crate) fn one(file: &Path, run: &RunArgs) -> std::result::Result<bool, String> {
    let mut records: Vec<BTreeMap<String, f64>> = Vec::new();
    for _ in 0..run.repeats.max(1) {
        records.push(measure(file, run).map_err(|e| e.to_string())?);
    }
    let mut row = BTreeMap::new();
    for key in records[0].keys() {
        let values = records.iter().filter_map(|r| r.get(key).copied());
        row.insert(key.as_str(), values.fold(f64::INFINITY, f64::min));
    }
    row.insert("peak_mib", memory::peak_mib().unwrap_or(0.0));
    println!("{}", json!(row));
    Ok(true)
}

fn measure(file: &Path, run: &RunArgs) -> Result<BTreeMap<String, f64>> {
    let mut out = BTreeMap::new();
    let start = Instant::now();
    let mut module = djinn::read(file)?.module;
    out.insert("import".to_owned(), start.elapsed().as_secs_f64());
    out.insert("ops".into(), djinn::stats(&module).count() as f64);
    let hashing = Instant::now();
    std::hint::black_box(djinn::program_hash(&module));
    out.insert("hash".into(), hashing.elapsed().as_secs_f64());
    let (bodies, times, optimise) = optimised(&mut module)?;
    let of = |pass: &str| times.get(pass).copied().unwrap_or(0.0);
    let (outline, saturate, inline) = (of("outline"), of("saturate"), of("inline"));
    let rest = optimise - outline - saturate - inline;
    let shown = [("outline", outline), ("saturate", saturate), ("inline", inline), ("rest", rest)];
    out.extend(shown.map(|(name, s)| (name.to_owned(), s)));
    out.insert("bodies".into(), bodies as f64);
    if run.target != "none" {
        let request = request(&module, run)?;
        let planning = Instant::now();
        let planned = djinn::plan(&mut module, &request, None)?;
        out.insert("plan".into(), planning.elapsed().as_secs_f64());
        let kernels: usize = planned.plan.entries.iter().map(|e| e.kernels.len()).sum();
        out.insert("kernels".into(), kernels as f64);
    }
    out.insert("total".into(), start.elapsed().as_secs_f64());
    Ok(out)
}

/// Runs the default pipeline; gives the bodies saturated, the seconds of every pass and of all.
fn optimised(module: &mut Module) -> Result<(u64, BTreeMap<String, f64>, f64)> {
    let times: Rc<RefCell<BTreeMap<String, f64>>> = Rc::default();
    let began = RefCell::new(Instant::now());
    let noted = Rc::clone(&times);
    let watch = Watch {
        on_event: Box::new(move |event| match event {
            Event::Before { .. } => *began.borrow_mut() = Instant::now(),
            Event::After { pass, .. } => {
                *noted.borrow_mut().entry((*pass).to_string()).or_default() +=
                    began.borrow().elapsed().as_secs_f64();
            }
            _ => {}
        }),
        clock: None,
    };
    let options = OptimizeOptions { pipeline: DEFAULT_PIPELINE.into(), ..OptimizeOptions::default() };
    let start = Instant::now();
    let outcome = djinn::optimize(module, &options, Some(watch))?;
    let seconds = start.elapsed().as_secs_f64();
    let times = times.borrow().clone();
    Ok((outcome.statistics.get("saturate", "bodies"), times, seconds))
}

/// A request for the plan of a module that is optimised already.
fn request(module: &Module, run: &RunArgs) -> Result<PlanRequest> {
    let target = match Profile::builtin(&run.target) {
        Some(profile) => Target::single(profile),
        None => {
            let text = std::fs::read_to_string(&run.target).map_err(|e| input("file.read", e.to_string()))?;
            Target::new(Topology::parse(&text, &run.target)?)
        }
    };
    let mut request = PlanRequest::new(target);
    request.optimize.pipeline = "builtin.module()".into();
    let size = |symbol: &Symbol| {
        let info = module.symbols.info(symbol);
        let within = run.size.clamp(info.min, info.max.unwrap_or(i64::MAX));
        (within / info.divisor * info.divisor).max(info.min)
    };
    let known = walk::symbols(module);
    request.sizes = known.iter().map(|s| (s.name().to_owned(), vec![(size(s), size(s))])).collect();
    Ok(request)
}
