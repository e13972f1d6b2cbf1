//! The command line.

use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Reads a model, optimises it by equality saturation, compares the result with the original, and writes it.
///
/// Exit codes: 0 done; 1 the input is wrong; 2 the command line is wrong; 3 the input needs something that is not
/// supported; 4 a bug in Djinn (a reproducer file is written where possible); 5 the check found a difference.
#[derive(Debug, Parser)]
#[command(name = "djinn-opt", version, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Work that is not "optimise a model"
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// What to do with the model
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Other work.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Extract the cheapest selection from an e-graph in the egraph-serialize format (.json, .json.xz)
    Extract {
        /// The e-graph
        graph: PathBuf,
        /// Write the chosen e-node of every e-class here, as JSON
        #[arg(short, long)]
        output: Option<PathBuf>,
        /// Print one JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Run again what a reproducer file describes
    Rerun {
        /// The reproducer file
        file: PathBuf,
    },
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Emit {
    /// The semantically rich graph as read, as JSON
    Srg,
    /// The IR in MLIR's generic syntax
    Ir,
    /// An ONNX model
    Onnx,
    /// Graphviz
    Dot,
}

/// How operations are spelled in ONNX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Spelling {
    /// The standard operator wherever the opset has one
    Native,
    /// What onnxruntime's CPU provider runs fastest
    Fast,
}

/// Options of a run.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The model: .pt2, .onnx (each also gzipped), SRG JSON or binary, or IR text; told by content
    pub(crate) input: Option<PathBuf>,
    /// Write the result here (default for text: standard output)
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    /// What to write
    #[arg(long, value_enum)]
    pub(crate) emit: Option<Emit>,
    /// ONNX opset to write: 20, 23 or 24
    #[arg(long, default_value_t = 23)]
    pub(crate) opset: i64,
    /// Which of several ONNX spellings of an operation is written
    #[arg(long, value_enum, default_value_t = Spelling::Native)]
    pub(crate) spelling: Spelling,
    /// Passes to run, in mlir-opt's grammar; an empty pipeline only reads and writes
    #[arg(long, value_name = "PIPELINE", default_value = djinn::DEFAULT_PIPELINE)]
    pub(crate) pass_pipeline: String,
    /// List the passes and their options
    #[arg(long)]
    pub(crate) list_passes: bool,
    /// List the built-in rewrite rules
    #[arg(long)]
    pub(crate) list_rules: bool,
    /// Print the IR before these passes (comma-separated), to standard error
    #[arg(long, value_name = "PASS", value_delimiter = ',')]
    pub(crate) print_ir_before: Vec<String>,
    /// Print the IR after these passes (comma-separated), to standard error
    #[arg(long, value_name = "PASS", value_delimiter = ',')]
    pub(crate) print_ir_after: Vec<String>,
    /// Print the IR before every pass
    #[arg(long)]
    pub(crate) print_ir_before_all: bool,
    /// Print the IR after every pass
    #[arg(long)]
    pub(crate) print_ir_after_all: bool,
    /// Verify the module after every pass
    #[arg(long)]
    pub(crate) verify_each: bool,
    /// Evaluate original and result on the same inputs and compare
    #[arg(long)]
    pub(crate) check: bool,
    /// Inputs for --check (.npz, by argument name); random ones if not given
    #[arg(long, value_name = "FILE")]
    pub(crate) inputs: Option<PathBuf>,
    /// Print operations and modelled cost before and after
    #[arg(long)]
    pub(crate) stats: bool,
    /// Print how long everything took
    #[arg(long)]
    pub(crate) timing: bool,
    /// Write what the passes did and did not do here, one remark a line
    #[arg(long, value_name = "FILE")]
    pub(crate) remarks: Option<PathBuf>,
    /// Print what changed, per module scope
    #[arg(long)]
    pub(crate) diff: bool,
    /// E-nodes at which a search stops
    #[arg(long, value_name = "N", default_value_t = djinn::pass::Limits::default().nodes)]
    pub(crate) node_limit: u64,
    /// Rounds of rewriting at which a search stops
    #[arg(long, value_name = "N", default_value_t = djinn::pass::Limits::default().iterations)]
    pub(crate) iter_limit: u64,
    /// Seed of random inputs
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Use the rules in the .rw files of this folder as well; they are taken on trust, so add --check
    #[arg(long, value_name = "DIR")]
    pub(crate) rules: Option<PathBuf>,
    /// Stop after this many rewrites: halving it until --check agrees finds the guilty one, which --remarks names
    #[arg(long, value_name = "N")]
    pub(crate) fuel: Option<u64>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Where a reproducer is written when a pass fails
    #[arg(long, value_name = "FILE", default_value = "djinn-reproducer.mlir")]
    pub(crate) reproducer: PathBuf,
}
