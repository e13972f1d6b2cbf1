//! The command line.

use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Reads a model, optimises it by equality saturation, compares the result with the original, and writes it or a plan
/// of it for one or many devices.
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
    /// Run a bundle on this machine
    Run(BundleArgs),
    /// Say what a plan does: what runs where and why, what is costly, what limits it
    Explain {
        /// A plan (.json or binary) or the folder of a bundle
        plan: PathBuf,
        /// Show beside the predictions of a bundle what `run --profile` measured
        #[arg(long, value_name = "FILE")]
        profile: Option<PathBuf>,
    },
    /// Prove with the independent checker that a plan may run
    PlanCheck {
        /// A plan (.json or binary) or the folder of a bundle
        plan: PathBuf,
    },
    /// Pack buffers with fixed lifetimes into one arena (columns id, lower, upper, size; minimalloc's format)
    Pack(PackArgs),
    /// Place an operator graph on devices (dnn-partitioning's JSON format)
    Place(PlaceArgs),
    /// Measure this machine, or take what runs measured, fit its device profile, and report the error on what was left out
    /// of the fit
    Calibrate(CalibrateArgs),
}

/// Running a bundle.
#[derive(Debug, clap::Args)]
pub(crate) struct BundleArgs {
    /// The folder that `--emit bundle` wrote
    pub(crate) bundle: PathBuf,
    /// Files that hold weights of a bundle that was written with --weights reference, if they are not where they were
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Vec<PathBuf>,
    /// Inputs by argument name (.npz); random ones if not given
    #[arg(long, value_name = "FILE")]
    pub(crate) inputs: Option<PathBuf>,
    /// Write the outputs here (.npz)
    #[arg(long, value_name = "FILE")]
    pub(crate) outputs: Option<PathBuf>,
    /// The entry function to run (default: the first)
    #[arg(long, value_name = "NAME")]
    pub(crate) function: Option<String>,
    /// Write what ran when here, for Perfetto or chrome://tracing (.json)
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Where to run: host, or a GPU for each device of the plan: cuda:0, or cuda:0,cuda:1 (one GPU may stand for several).
    /// Without a CUDA device the host runs it
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "host")]
    pub(crate) device: Vec<String>,
    /// Do not capture runs on a GPU as CUDA graphs
    #[arg(long)]
    pub(crate) no_graphs: bool,
    /// How the host runs kernels
    #[arg(long, value_enum, default_value = "compiled", value_name = "HOW")]
    pub(crate) kernels: KernelMode,
    /// Compare with the reference evaluator
    #[arg(long)]
    pub(crate) check: bool,
    /// Report conflicting accesses that no event orders
    #[arg(long)]
    pub(crate) detect_races: bool,
    /// Runs, one after the other; state lives on between them (default: 1, with --profile 10)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) repeat: Option<u32>,
    /// Runs before those that count (default: 0, with --profile 2)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) warm_up: Option<u32>,
    /// Measure every kernel beside its prediction, print where they differ, and write the times here (.json); what is there
    /// already of this or other plans is kept and added to
    #[arg(long, value_name = "FILE", conflicts_with_all = ["check", "detect_races"])]
    pub(crate) profile: Option<PathBuf>,
    /// The device profile (.toml) that the plan was made with, if it is not built in: predictions for sizes below the
    /// largest are made with it
    #[arg(long, value_name = "FILE", requires = "profile")]
    pub(crate) device_profile: Option<PathBuf>,
    /// Seed of random inputs
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Count runs of a bundle without engines here, and build in the background those TensorRT engines that pay; the next
    /// `--emit bundle` finds them
    #[arg(long, value_name = "DIR")]
    pub(crate) engine_cache: Option<PathBuf>,
}

/// How `run` runs kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KernelMode {
    /// Compiled code and library calls, the evaluator for the rest
    Compiled,
    /// The reference evaluator, operation by operation
    Evaluator,
}

/// Packing an instance.
#[derive(Debug, clap::Args)]
pub(crate) struct PackArgs {
    /// The instance (.csv): one buffer a line
    pub(crate) instance: PathBuf,
    /// Bytes that must suffice; without it the least capacity is sought
    #[arg(long, value_name = "BYTES")]
    pub(crate) capacity: Option<u64>,
    /// Write the instance with a column `offset` here
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    /// Search nodes, at most
    #[arg(long, value_name = "N")]
    pub(crate) node_limit: Option<u64>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// What placement minimises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlaceObjective {
    /// The largest load of a device (time per sample of a pipeline)
    Throughput,
    /// The time of one sample
    Latency,
}

/// Placing an instance.
#[derive(Debug, clap::Args)]
pub(crate) struct PlaceArgs {
    /// The instance (.json)
    pub(crate) instance: PathBuf,
    /// What to minimise
    #[arg(long, value_enum, default_value_t = PlaceObjective::Throughput)]
    pub(crate) objective: PlaceObjective,
    /// Every device gets one contiguous set (throughput)
    #[arg(long)]
    pub(crate) contiguous: bool,
    /// Write the placement here (.json)
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// Calibrating.
#[derive(Debug, clap::Args)]
pub(crate) struct CalibrateArgs {
    /// Write the fitted profile here (.toml)
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    /// Write the measurements here (.csv)
    #[arg(long, value_name = "FILE")]
    pub(crate) measurements: Option<PathBuf>,
    /// Fit to the times of this file, which `run --profile` wrote, instead of measuring; may be repeated
    #[arg(long, value_name = "FILE", conflicts_with_all = ["measurements", "seconds"])]
    pub(crate) from: Vec<PathBuf>,
    /// The profile to correct: a built-in one or a .toml file; what was measured on the device of its name counts
    #[arg(long, value_name = "NAME", default_value = "host", requires = "from")]
    pub(crate) device: String,
    /// Of several ways of running kernels, fit to the times of this one
    #[arg(long, value_name = "NAME", requires = "from")]
    pub(crate) mode: Option<String>,
    /// Seconds of measuring, about
    #[arg(long, value_name = "S", default_value_t = 35.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// A number of seconds that measuring may take.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if (0.0..=3600.0).contains(&s) => Ok(s),
        _ => Err("a number from 0 to 3600".to_owned()),
    }
}

/// The name of a program.
fn program_name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("a name that is not empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// What a plan is to be good at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanObjective {
    /// The time of one run
    Latency,
    /// Runs per second, as a pipeline over the devices
    Throughput,
    /// That it fits
    Memory,
}

/// Planning for devices.
#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    /// Plan for this device (h200, h100-80, a100-80, l4, rtx-4090, host, the .toml file of a profile, or cuda:0 for a GPU of
    /// this machine; default: host); several, comma-separated, stand in one machine and are joined through its host (a topology file says otherwise)
    #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with = "topology")]
    pub(crate) device: Vec<String>,
    /// Plan for the devices and links of this file (.toml)
    #[arg(long, value_name = "FILE")]
    pub(crate) topology: Option<PathBuf>,
    /// Plan only the functions of this phase (llm_prefill, llm_decode, forward, …)
    #[arg(long)]
    pub(crate) phase: Option<String>,
    /// Size of a symbol: s0=128, a range s0=1..128, or several ranges s0=1..128,129..2048; may be repeated
    #[arg(long, value_name = "SYMBOL=SIZES")]
    pub(crate) bind: Vec<String>,
    /// What the plan is to be good at
    #[arg(long, value_enum, default_value_t = PlanObjective::Latency)]
    pub(crate) objective: PlanObjective,
    /// Run the operations of a module on a device, such as model.layers.0=h200:1; may be repeated, the first that fits
    /// counts
    #[arg(long, value_name = "SCOPE=DEVICE")]
    pub(crate) pin: Vec<String>,
    /// Cost models of your own for operations (.toml), asked before the built-in one
    #[arg(long, value_name = "FILE")]
    pub(crate) costs: Option<PathBuf>,
    /// Memory that the plan may use on every device, such as 24GB or 512MiB
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_limit: Option<String>,
    /// Streams per device, at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) max_streams: Option<u32>,
    /// Copy KV caches that are inputs and outputs on every run instead of keeping them on their device
    #[arg(long)]
    pub(crate) copy_caches: bool,
    /// Keep weights that do not fit the devices on the host, and copy them in every run
    #[arg(long)]
    pub(crate) stream_weights: bool,
    /// Several model files are entry functions of one program of this name that share weights and state
    #[arg(long, value_name = "NAME", value_parser = program_name)]
    pub(crate) program: Option<String>,
    /// Keep plans here and use those that are there
    #[arg(long, value_name = "DIR")]
    pub(crate) plan_cache: Option<PathBuf>,
    /// Keep TensorRT engines here and use those that are there (default: djinn/engines in $XDG_CACHE_HOME or ~/.cache)
    #[arg(long, value_name = "DIR")]
    pub(crate) engine_cache: Option<PathBuf>,
    /// Build every engine of a bundle, not only those that pay within a million runs
    #[arg(long)]
    pub(crate) eager_engines: bool,
    /// Build no engines: everything runs by kernels
    #[arg(long, conflicts_with = "eager_engines")]
    pub(crate) no_engines: bool,
    /// Element type of contractions inside engines, `f16`, `bf16` or `keep`, also for a module and what is below it:
    /// SCOPE=TYPE
    #[arg(long, value_name = "[SCOPE=]TYPE", value_delimiter = ',')]
    pub(crate) precision: Vec<String>,
    /// Leave engine regions as they are whose results would be further off than this with `--precision`, relative to their
    /// largest values; measured by the evaluator, on --inputs if given
    #[arg(long, value_name = "ERROR", requires = "precision", allow_negative_numbers = true)]
    pub(crate) max_error: Option<f64>,
}

impl PlanArgs {
    /// Options that were given and that nothing asks for where no plan is made: passes know of the devices, and of what
    /// belongs to them, if devices were named.
    pub(crate) fn unused_without_plan(&self) -> Vec<&'static str> {
        let target = !self.device.is_empty() || self.topology.is_some();
        let given = [
            ("--phase", self.phase.is_some()),
            ("--bind", !self.bind.is_empty() && !target),
            ("--objective", self.objective != PlanObjective::Latency && !target),
            ("--pin", !self.pin.is_empty()),
            ("--costs", self.costs.is_some() && !target),
            ("--memory-limit", self.memory_limit.is_some() && !target),
            ("--max-streams", self.max_streams.is_some() && !target),
            ("--copy-caches", self.copy_caches),
            ("--stream-weights", self.stream_weights),
            ("--plan-cache", self.plan_cache.is_some()),
            ("--engine-cache", self.engine_cache.is_some()),
            ("--eager-engines", self.eager_engines),
            ("--no-engines", self.no_engines),
            ("--precision", !self.precision.is_empty()),
            ("--max-error", self.max_error.is_some()),
        ];
        given.into_iter().filter(|(_, unused)| *unused).map(|(name, _)| name).collect()
    }
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
    /// The execution plan as JSON, or in binary form if the output ends in .bin
    Plan,
    /// The execution plan as text, one line a buffer and command
    PlanText,
    /// A folder with program, plan and weights, for `djinn-opt run`
    Bundle,
    /// The simulated timelines of the plan's entries, each with its own processes, for Perfetto or chrome://tracing
    Trace,
    /// One HTML page: placement, timeline, memory, costs
    Report,
}

impl Emit {
    /// Does it need a plan?
    pub(crate) fn is_planned(self) -> bool {
        matches!(self, Emit::Plan | Emit::PlanText | Emit::Bundle | Emit::Trace | Emit::Report)
    }
}

/// Where the weights of a bundle are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WeightsMode {
    /// In the bundle
    Packed,
    /// Where the model has them: its own file, or files of weights beside it; the bundle holds their places and hashes, and
    /// what passes have computed
    Reference,
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
    /// The model: .pt2, .onnx (each also gzipped), SRG JSON or binary, or IR text; told by content; several with --program
    pub(crate) input: Vec<PathBuf>,
    /// Write the result here (default for text, and -: standard output)
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
    /// Show in the report what `run --profile` measured of this plan
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,
    /// Where the weights of a bundle are
    #[arg(long, value_enum, default_value_t = WeightsMode::Packed)]
    pub(crate) weights: WeightsMode,
    /// Where a reproducer is written when a pass fails
    #[arg(long, value_name = "FILE", default_value = "djinn-reproducer.mlir")]
    pub(crate) reproducer: PathBuf,
    // Last, or what follows would stand under its heading.
    /// Devices, sizes and limits of a plan
    #[command(flatten, next_help_heading = "Planning")]
    pub(crate) plan: PlanArgs,
}

impl RunArgs {
    /// Is anything asked for beside the result itself?
    pub(crate) fn reports(&self) -> bool {
        self.check || self.stats || self.diff || self.timing || self.json || self.remarks.is_some()
    }
}
