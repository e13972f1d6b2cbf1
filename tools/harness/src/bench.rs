//! What the benchmarks of the solvers share: time, files, and the table with its verdict.

use crate::table::Table;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Options of every benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the instances
    #[arg(required = true)]
    pub(crate) dir: PathBuf,
    /// Write the table here
    #[arg(long, value_name = "FILE")]
    pub(crate) table: Option<PathBuf>,
}

/// Seconds that some work took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seconds {
    /// Of the processor in this thread, which other programs do not disturb; the same as `wall` where it is not known.
    pub(crate) cpu: f64,
    /// By the clock.
    pub(crate) wall: f64,
}

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} / {:.2}", self.cpu, self.wall)
    }
}

/// Does some work in this thread and says how long it took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Seconds) {
    let (clock, cpu) = (Instant::now(), thread_seconds());
    let result = work();
    let wall = clock.elapsed().as_secs_f64();
    let cpu = cpu.zip(thread_seconds()).map_or(wall, |(before, after)| after - before);
    (result, Seconds { cpu, wall })
}

/// The processor time of this thread, from Linux.
fn thread_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split_whitespace().next()?.parse::<f64>().ok()? * 1e-9)
}

/// The files in a folder whose names end like this, sorted by name.
pub(crate) fn files(dir: &Path, ending: &str) -> Result<Vec<PathBuf>, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", dir.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    match found.is_empty() {
        true => Err(format!("{}: no file here ends in '{ending}'", dir.display())),
        false => Ok(found),
    }
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// The name of a file up to the first of these endings.
pub(crate) fn name_without(path: &Path, ending: &str) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.strip_suffix(ending).unwrap_or(&name).to_owned()
}

/// Prints the table and what was missed, and writes both to the file if one is wanted; whether nothing was missed.
pub(crate) fn publish(name: &str, table: &Table, missed: &[String], args: &Args) -> Result<bool, String> {
    let verdict = match missed.is_empty() {
        true => format!("{name}: all that is asked is reached\n"),
        false => missed.iter().map(|m| format!("{name}: MISSED: {m}\n")).collect(),
    };
    let text = format!("{}{verdict}", table.render());
    print!("{text}");
    if let Some(path) = &args.table {
        djinn::write_atomically(path, &mut |out| out.write_all(text.as_bytes()))
            .map_err(|e| e.to_string())?;
    }
    Ok(missed.is_empty())
}
