//! `djinn-harness`: runs models through Djinn and judges the results.
//!
//! - `cases` imports, evaluates, optimises and writes every model of some folders and compares what it computes with
//!   the recorded results;
//! - `full` does the same for models without weights, and measures time and memory of each in a process of its own;
//! - `determinism` wants the same bytes from several runs, threads and processes;
//! - `coverage` tabulates which operations the cases exercise.
//!
//! Exit codes: 0 all is well; 1 something is wrong; 2 the command line or a file is wrong.

mod case;
mod cases;
mod coverage;
mod determinism;
mod full;
mod judge;
mod memory;
mod pipeline;
mod stage;
mod table;
mod worker;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs models through Djinn and judges the results.
#[derive(Debug, Parser)]
#[command(name = "djinn-harness", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run folders of cases (model.pt2, model.onnx or both, with inputs.npz and expected.npz)
    Cases(cases::Args),
    /// Run models without weights within limits of time and memory
    Full(full::Args),
    /// Compare the bytes of several runs on one model
    Determinism(determinism::Args),
    /// Write the table of operations against what the cases exercise
    Coverage(coverage::Args),
    /// Run the cases named on standard input (used by `cases`)
    #[command(hide = true)]
    Worker,
    /// Run one model without weights (used by `full`)
    #[command(hide = true)]
    FullOne { path: PathBuf, opset: i64 },
    /// Print the fingerprint of one run (used by `determinism`)
    #[command(hide = true)]
    Fingerprint { path: PathBuf, opset: i64 },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Cases(args) => cases::main(&args),
        Command::Full(args) => full::main(&args),
        Command::Determinism(args) => determinism::main(&args),
        Command::Coverage(args) => coverage::main(&args),
        Command::Worker => worker::main(),
        Command::FullOne { path, opset } => full::one(&path, opset),
        Command::Fingerprint { path, opset } => determinism::one(&path, opset),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(message) => {
            eprintln!("djinn-harness: {message}");
            ExitCode::from(2)
        }
    }
}
