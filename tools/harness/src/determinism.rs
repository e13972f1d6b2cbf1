//! `djinn-harness determinism`: the same model must give the same bytes every time, on every thread, in every process.

use djinn::OptimizeOptions;
use djinn::onnx_export::{ExportOptions, export};
use djinn::srg::json;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// ONNX opset to write
    #[arg(long, default_value_t = 23)]
    opset: i64,
    /// Runs in this process, and as many on a second thread and in processes of their own
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

/// What one run gives, by name.
type Bytes = Vec<(&'static str, Vec<u8>)>;

/// Compares the runs on every file; gives false if two differ.
pub(crate) fn main(args: &Args) -> Result<bool, String> {
    let mut same = true;
    for file in &args.files {
        let difference = compare(file, args)?;
        match &difference {
            None => println!("deterministic: {} ({} runs a kind)", file.display(), args.runs),
            Some(what) => println!("NOT deterministic: {}: {what}", file.display()),
        }
        same &= difference.is_none();
    }
    Ok(same)
}

/// One run in a process of its own: prints the fingerprint.
pub(crate) fn one(path: &Path, opset: i64) -> Result<bool, String> {
    println!("{}", fingerprint(&run(path, opset)?));
    Ok(true)
}

/// Says what differs, if something does.
fn compare(file: &Path, args: &Args) -> Result<Option<String>, String> {
    let first = run(file, args.opset)?;
    let differs = |other: &Bytes| first.iter().zip(other).find(|(a, b)| a != b).map(|(a, _)| a.0);
    // Both threads run at the same time, so that anything they share shows.
    let many = || (0..args.runs).map(|_| run(file, args.opset)).collect::<Result<Vec<Bytes>, String>>();
    let (here, there) = std::thread::scope(|scope| {
        let there = scope.spawn(many);
        (many(), there.join().unwrap_or(Err("a run on a second thread failed unexpectedly".into())))
    });
    for (place, runs) in [("in one process", here?), ("on a second thread", there?)] {
        if let Some(what) = runs.iter().find_map(differs) {
            return Ok(Some(format!("the {what} differs {place}")));
        }
    }
    let fingerprint = fingerprint(&first);
    for _ in 0..args.runs {
        if fingerprint_elsewhere(file, args.opset)? != fingerprint {
            return Ok(Some("another process gives other bytes".into()));
        }
    }
    Ok(None)
}

fn fingerprint_elsewhere(file: &Path, opset: i64) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("a child process cannot be run: {e}");
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    let output = command.arg("fingerprint").arg(file).arg(opset.to_string()).output().map_err(failed)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Import, optimise, print, export.
fn run(path: &Path, opset: i64) -> Result<Bytes, String> {
    let text = |e: Box<djinn::diag::Diagnostic>| e.to_string();
    let model = djinn::read(path).map_err(text)?;
    let mut module = model.module;
    let imported = djinn::ir::text::print_module(&module);
    let outcome = djinn::optimize(&mut module, &OptimizeOptions::default(), None).map_err(text)?;
    let remarks: String = outcome.remarks.iter().map(|r| format!("{r}\n")).collect();
    let options = ExportOptions { opset, ..ExportOptions::default() };
    let onnx = export(&module, &options).map_err(text)?;
    let srg = model.srg.map(|srg| json::write(&srg, json::WeightBytes::Omit));
    Ok(vec![
        ("SRG", srg.unwrap_or_default().into()),
        ("imported IR", imported.into()),
        ("optimised IR", djinn::ir::text::print_module(&module).into()),
        ("list of remarks", remarks.into()),
        ("ONNX model", onnx.model),
    ])
}

/// The hash of everything; `DefaultHasher::new` has fixed keys, so processes of one binary agree.
fn fingerprint(bytes: &Bytes) -> String {
    let mut hasher = DefaultHasher::new();
    for (_, content) in bytes {
        hasher.write_usize(content.len());
        hasher.write(content);
    }
    format!("{:016x}", hasher.finish())
}
