//! `djinn-harness cases`.

use crate::case;
use crate::pipeline::{self, Job};
use crate::stage::Status;
use crate::table::{Table, error, number, short};
use crate::worker;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Case folders, or folders of case folders
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Where written models go
    #[arg(long)]
    out: PathBuf,
    /// ONNX opset to write
    #[arg(long, default_value_t = 23)]
    opset: i64,
    /// Spellings of the written model
    #[arg(long, default_value = "native", value_parser = ["native", "fast"])]
    spelling: String,
    /// Also try to write every opset, without keeping the result
    #[arg(long)]
    all_opsets: bool,
    /// Formats to run: pt2, onnx, core (the decomposed program beside a .pt2)
    #[arg(long, value_delimiter = ',', default_value = "pt2,onnx")]
    formats: Vec<String>,
    /// Write the records here, one JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table here
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Name in the summary line
    #[arg(long, default_value = "cases")]
    label: String,
    /// Print only the rows that fail, and why cases are unsupported
    #[arg(long)]
    brief: bool,
    /// Processes at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Seconds a case may take
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    /// Only the cases named in this file, one a line, make the run fail
    #[arg(long, value_name = "FILE")]
    enforce: Option<PathBuf>,
    /// Fail unless at least this many cases are ok or wrong, not refused
    #[arg(long, value_name = "N")]
    min_supported: Option<usize>,
    /// Fail unless at least this many cases are ok
    #[arg(long, value_name = "N")]
    min_ok: Option<usize>,
    /// Fail unless every case is ok
    #[arg(long)]
    all_ok: bool,
}

/// Runs the cases, prints the table; gives false if something is wrong.
pub(crate) fn main(args: &Args) -> Result<bool, String> {
    let cases = case::find(&args.dirs, &args.formats)?;
    pipeline::make_folder(&args.out)?;
    let job = |case| Job {
        case,
        out: args.out.clone(),
        opset: args.opset,
        spelling: args.spelling.clone(),
        all_opsets: args.all_opsets,
    };
    let jobs: Vec<Job> = cases.into_iter().map(job).collect();
    let records = worker::run_all(&jobs, args.jobs, Duration::from_secs(args.timeout))?;
    if let Some(path) = &args.json {
        let lines: String = records.iter().map(|r| format!("{r}\n")).collect();
        write(path, &lines)?;
    }
    let summary = summary(&args.label, &records);
    let all = table(records.iter());
    if let Some(path) = &args.table {
        write(path, &format!("# {}\n\n{summary}\n\n{all}", args.label))?;
    }
    if args.brief {
        print_brief(args, &records);
    } else {
        print!("{all}");
    }
    println!("{summary}");
    verdict(args, &records)
}

/// Prints the rows that make the run fail, and the reasons of refusals with how often each occurs.
fn print_brief(args: &Args, records: &[Value]) {
    let counts = |r: &&Value| !is(r, Status::Ok) && (args.all_ok || !is(r, Status::Unsupported));
    let bad: Vec<&Value> = records.iter().filter(counts).collect();
    if !bad.is_empty() {
        print!("{}", table(bad.into_iter()));
    }
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for record in records.iter().filter(|r| is(r, Status::Unsupported)) {
        *reasons.entry(record["code"].as_str().unwrap_or_default()).or_default() += 1;
    }
    if !reasons.is_empty() {
        let reasons: Vec<String> = reasons.iter().map(|(code, n)| format!("{n} {code}")).collect();
        println!("{}: unsupported because of {}", args.label, reasons.join(", "));
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    djinn::write_atomically(path, &mut |out| out.write_all(text.as_bytes())).map_err(|e| e.to_string())
}

fn is(record: &Value, status: Status) -> bool {
    record["status"] == status.word()
}

fn count(records: &[Value], status: Status) -> usize {
    records.iter().filter(|r| is(r, status)).count()
}

/// One line: how many cases went how, and what else is worth counting.
fn summary(label: &str, records: &[Value]) -> String {
    let counts: Vec<String> =
        Status::ALL.iter().map(|s| format!("{} {}", count(records, *s), s.word())).collect();
    let sum = |f: &dyn Fn(&Value) -> u64| records.iter().map(f).sum::<u64>();
    let opaque = sum(&|r| r["opaque"].as_object().map_or(0, |o| o.values().filter_map(Value::as_u64).sum()));
    let disagreements = sum(&|r| r["type_disagreements"].as_u64().unwrap_or(0));
    let skipped = sum(&|r| r["evaluate-result"]["skipped"].as_u64().unwrap_or(0));
    format!(
        "{label}: {} ({} in all; {opaque} opaque operations, {disagreements} type disagreements, {skipped} state \
         updates skipped because ONNX exports drop them)",
        counts.join(", "),
        records.len()
    )
}

/// The table of these records.
fn table<'a>(records: impl Iterator<Item = &'a Value>) -> String {
    let mut t = Table::new(&[
        "case",
        "format",
        "status",
        ">nodes",
        ">after",
        ">ONNX",
        ">cost",
        ">error",
        ">import s",
        ">optimise s",
        ">evaluate s",
        ">write s",
        ">peak MiB",
        "stage",
        "message",
    ]);
    for r in records {
        let text = |key: &str| r[key].as_str().unwrap_or_default().to_owned();
        let seconds = |stage: &str| number(&r["stages"][stage]["seconds"], 3);
        let cost = match (r["seconds_before"].as_f64(), r["seconds_after"].as_f64()) {
            (Some(b), Some(a)) if b > 0.0 => format!("{:.0} %", 100.0 * a / b),
            _ => "-".into(),
        };
        let peak = r["stages"].as_object().into_iter().flat_map(|s| s.values());
        let peak = peak.filter_map(|s| s["peak_mib"].as_f64()).fold(0.0, f64::max);
        t.row(vec![
            text("case"),
            text("format"),
            text("status"),
            number(&r["nodes_before"], 0),
            number(&r["nodes_after"], 0),
            number(&r["onnx_nodes"], 0),
            cost,
            error(&r["evaluate-optimised-result"]["max_scaled"]),
            seconds("import"),
            seconds("optimise"),
            seconds("evaluate"),
            seconds("write"),
            format!("{peak:.0}"),
            text("stage"),
            short(&text("message"), 240),
        ]);
    }
    t.render()
}

/// Is the run as good as it has to be? Says why not.
fn verdict(args: &Args, records: &[Value]) -> Result<bool, String> {
    let enforced: Option<BTreeSet<String>> = match &args.enforce {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
            Some(text.split_whitespace().map(str::to_owned).collect())
        }
    };
    let counts = |r: &&Value| {
        enforced.as_ref().is_none_or(|names| r["case"].as_str().is_some_and(|c| names.contains(c)))
    };
    let bad = |r: &&Value| [Status::Wrong, Status::Crash, Status::Error].iter().any(|s| is(r, *s));
    let failures = records.iter().filter(counts).filter(bad).count();
    let reported = records.iter().filter(|r| !counts(r)).filter(bad).count();
    if reported > 0 {
        println!("{}: {reported} failures in cases that are reported only", args.label);
    }
    let mut good = failures == 0;
    let mut floor = |what: &str, least: Option<usize>, found: usize| {
        if let Some(least) = least.filter(|n| found < *n) {
            println!("{}: {found} {what}, at least {least} are required", args.label);
            good = false;
        }
    };
    let supported = |r: &&Value| is(r, Status::Ok) || is(r, Status::Wrong);
    floor("supported", args.min_supported, records.iter().filter(supported).count());
    floor("ok", args.min_ok, count(records, Status::Ok));
    floor("ok", args.all_ok.then_some(records.len()), count(records, Status::Ok));
    Ok(good)
}
