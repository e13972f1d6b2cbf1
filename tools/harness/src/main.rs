//! `djinn-harness`: runs models through Djinn and judges the results.
//!
//! - `cases` imports, evaluates, optimises and writes every model of some folders and compares what it computes with
//!   the recorded results;
//! - `full` does the same for models without weights, and measures time and memory of each in a process of its own;
//! - `plans` makes plans of models, runs them on host devices, and breaks them on purpose;
//! - `engines` builds the TensorRT engines of plans;
//! - `engines-growth` measures how building engines grows with repeated layers;
//! - `gpu` runs plans on the CUDA devices of this machine, or on the emulated ones of tests;
//! - `kernels` lowers every kernel group of plans, runs it on this machine, interprets its GPU code, and compares both with
//!   the evaluator;
//! - `peaks` compares the memory of plans with its lower bound and with what other runtimes' planners reach;
//! - `planning` measures how long planning takes;
//! - `determinism` wants the same bytes from several runs, threads and processes;
//! - `scaling` measures how time and memory grow with the number of repeated layers;
//! - `curve` wants the work of the passes not to grow with the number of repeated layers;
//! - `coverage` tabulates which operations the cases exercise;
//! - `mlir` has MLIR verify every module under the dialect's definition, and refuse wrong ones;
//! - `host` times plans that compiled kernels run against the evaluator;
//! - `packing`, `placement` and `streams` hold the solvers to published instances and figures.
//!
//! Exit codes: 0 all is well; 1 something is wrong; 2 the command line or a file is wrong.

mod bench;
mod bench_engines;
mod bench_host;
mod bench_packing;
mod bench_placement;
mod bench_streams;
mod case;
mod cases;
mod coverage;
mod curve;
mod determinism;
mod engines;
mod full;
mod gpu;
mod interpret;
mod judge;
mod kernels;
mod memory;
mod mlir;
mod peaks;
mod pipeline;
mod planning;
mod plans;
mod scaling;
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
    /// Plan every case, check the plan, run it on host devices and compare with the recorded results
    Plans(plans::Args),
    /// Plan every case and build the TensorRT engines of its regions, each distinct one once
    Engines(engines::Args),
    /// Plan every case, run it on the CUDA devices of this machine and compare with the recorded results
    Gpu(gpu::Args),
    /// Build engines of a Llama of 2 to 16 layers, distinct regions once, beside one engine of everything
    EnginesGrowth(bench_engines::Args),
    /// Lower every kernel group of every case's plan, run it on this machine and compare it with the evaluator
    Kernels(kernels::Args),
    /// Compare the memory of plans with its lower bound and with what other runtimes' planners reach
    Peaks(peaks::Args),
    /// Measure how long planning takes, pass by pass
    Planning(planning::Args),
    /// Compare the bytes of several runs on one model
    Determinism(determinism::Args),
    /// Measure time and memory against the number of repeated layers
    Scaling(scaling::Args),
    /// Measure every stage up to the plan against the number of repeated layers, and judge the growth
    Curve(curve::Args),
    /// Write the table of operations against what the cases exercise
    Coverage(coverage::Args),
    /// Have MLIR verify every module, before and after optimisation, and refuse wrong ones
    Mlir(mlir::Args),
    /// Pack MiniMalloc's instances (a folder of NAME.CAPACITY.csv)
    Packing(bench::Args),
    /// Place the instances of the placement benchmark (a folder with `throughput` and `latency`)
    Placement(bench::Args),
    /// Time plans run by compiled kernels against the evaluator
    Host(bench_host::Args),
    /// Schedule generated graphs and models (a folder of cases) on streams
    Streams(bench::Args),
    /// Run the cases named on standard input (used by `cases`)
    #[command(hide = true)]
    Worker,
    /// Run one model without weights (used by `full`)
    #[command(hide = true)]
    FullOne { path: PathBuf, opset: i64 },
    /// Build the engines of one model (used by `engines`)
    #[command(hide = true)]
    EnginesOne {
        dir: PathBuf,
        model: PathBuf,
        #[command(flatten)]
        how: engines::How,
    },
    /// Measure one model (used by `curve`)
    #[command(hide = true)]
    CurveOne {
        path: PathBuf,
        #[command(flatten)]
        run: curve::RunArgs,
    },
    /// Print the fingerprint of one run (used by `determinism`)
    #[command(hide = true)]
    Fingerprint { path: PathBuf, opset: i64 },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Cases(args) => cases::main(&args),
        Command::Full(args) => full::main(&args),
        Command::Plans(args) => plans::main(&args),
        Command::Engines(args) => engines::main(&args),
        Command::EnginesOne { dir, model, how } => engines::one(&dir, &model, &how),
        Command::EnginesGrowth(args) => bench_engines::main(&args),
        Command::Kernels(args) => kernels::main(&args),
        Command::Gpu(args) => gpu::main(&args),
        Command::Peaks(args) => peaks::main(&args),
        Command::Planning(args) => planning::main(&args),
        Command::Determinism(args) => determinism::main(&args),
        Command::Scaling(args) => scaling::run(&args).map_err(|e| e.to_string()),
        Command::Curve(args) => curve::main(&args),
        Command::Coverage(args) => coverage::main(&args),
        Command::Mlir(args) => mlir::main(&args),
        Command::Packing(args) => bench_packing::main(&args),
        Command::Placement(args) => bench_placement::main(&args),
        Command::Host(args) => bench_host::main(&args),
        Command::Streams(args) => bench_streams::main(&args),
        Command::Worker => worker::main(),
        Command::CurveOne { path, run } => curve::one(&path, &run),
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
