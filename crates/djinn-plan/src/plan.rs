//! The data of a plan.

use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Granularity};

/// Version of the data format; a reader refuses every other.
pub const FORMAT_VERSION: u32 = 3;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The number as an index.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

ids! {
    /// Number of a device in [`Plan::devices`].
    DeviceId
    /// Number of an arena in [`Plan::arenas`].
    ArenaId
    /// Number of a buffer in [`Plan::buffers`].
    BufferId
    /// Number of a stream in [`Entry::streams`].
    StreamId
    /// Number of a kernel in [`Entry::kernels`].
    KernelId
    /// Number of an event, below [`Entry::events`].
    EventId
}

/// An execution plan of a program on the devices of a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`FORMAT_VERSION`] of the writer.
    pub version: u32,
    /// Structural hash of the program that the plan runs, in hexadecimal digits.
    pub program: String,
    /// Devices; the host, if it holds an arena, is one of them.
    pub devices: Vec<Device>,
    /// What copies between two devices take; one entry per ordered pair that a copy uses.
    pub links: Vec<Link>,
    /// One block of memory each, allocated once.
    pub arenas: Vec<Arena>,
    /// Every buffer of the plan.
    pub buffers: Vec<Buffer>,
    /// Entry functions; the first whose ranges hold the sizes of a call runs it. There is one per function and range of sizes,
    /// and behind all of these there may be a second one for some, of [`Granularity::Engines`].
    pub entries: Vec<Entry>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Name, unique in the plan, such as `h100-80:0`.
    pub name: String,
    /// Name of the profile, such as `h100-80`.
    pub profile: String,
    /// Bytes that the plan may use.
    pub memory_bytes: u64,
    /// Is this the memory of the host?
    pub host: bool,
    /// Seconds that a stream of the device loses to each wait for an event; see [`crate::simulate()`].
    pub sync_seconds: f64,
}

/// A way from one device to another, as the planner reckoned with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Where copies start.
    pub from: DeviceId,
    /// Where they end.
    pub to: DeviceId,
    /// Bytes per second of the slowest hop.
    pub bandwidth: f64,
    /// Seconds before the first byte arrives.
    pub latency: f64,
    /// Names of the physical links on the way; copies that share one contend for it.
    pub hops: Vec<String>,
}

/// What an arena holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArenaKind {
    /// Weights and constants: written before the first run, only read afterwards.
    Weights,
    /// State that lives from run to run (KV caches, buffers).
    State,
    /// Values of one run; shared by the entries, of which one runs at a time.
    Activations,
    /// Values that were spilled, on the host.
    Spill,
}

/// A block of memory on a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arena {
    /// Where it is.
    pub device: DeviceId,
    /// What it holds.
    pub kind: ArenaKind,
    /// Its size.
    pub bytes: u64,
}

/// Where the bytes of a buffer come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// A value that depends on weights and constants only: computed (or loaded) once, before the first run.
    Constant {
        /// Name of an entry function.
        function: String,
        /// The value in it.
        value: ValueRef,
    },
    /// State of this name: the first value is loaded before the first run, later ones are left by runs. Or a cache, the
    /// same in all entries whose resident inputs and outputs stand here: callers and runs leave its values.
    State {
        /// Name of the argument that the state is, or of the function and the input or output that the cache is.
        name: String,
    },
    /// Written during a run of this entry.
    Run {
        /// Number of the entry in [`Plan::entries`].
        entry: u32,
    },
}

/// A range of an arena.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Buffer {
    /// For people: name of the weight or of the operation that makes it.
    pub name: String,
    /// The arena.
    pub arena: ArenaId,
    /// First byte in the arena; a multiple of [`ALIGNMENT`].
    pub offset: u64,
    /// Size in bytes: the largest over the sizes that the plan admits.
    pub bytes: u64,
    /// Where its bytes come from.
    pub content: Content,
}

/// Buffers begin at multiples of this many bytes (what `cudaMalloc` promises: CUDA C++ Programming Guide, "Device
/// Memory Accesses").
pub const ALIGNMENT: u64 = 256;

/// A value of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueRef {
    /// Argument by number.
    Argument(u32),
    /// Result of an operation.
    Result {
        /// Position of the operation in the order of the function.
        op: u32,
        /// Number of the result.
        index: u32,
    },
}

/// Bytes of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// The buffer.
    pub buffer: BufferId,
    /// First byte in the buffer.
    pub offset: u64,
    /// Number of bytes: the largest over the sizes that the entry admits.
    pub bytes: u64,
}

/// A value at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operand {
    /// The value.
    pub value: ValueRef,
    /// Where it is. Values are contiguous, row-major.
    pub view: View,
}

/// A value that costs nothing because its bytes are those of other values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    /// The value and its bytes.
    pub value: Operand,
    /// The values whose bytes it is made of. Together their views cover `value.view`: one of them for a reshape or a
    /// slice, several for a concatenation that was made in place.
    pub of: Vec<Operand>,
}

/// A run of one or more operations, launched together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// For people: the operation kinds or the scope.
    pub name: String,
    /// Positions of the operations in the order of the function, ascending. Those of a whole engine region
    /// ([`Granularity::Engines`]) are all of the region, also those that cost nothing where each kernel is launched by itself.
    pub ops: Vec<u32>,
    /// Number of the engine region that it belongs to, if an engine can hold it. Never for a kernel that appends in place,
    /// see [`Kernel::writes`].
    pub engine: Option<u32>,
    /// Values read.
    pub reads: Vec<Operand>,
    /// Values written. A value may be written over one that the kernel reads, in two ways:
    ///
    /// - *Same bytes*: both views are the same. Each element is computed from the one in its place, or (a scatter) stays.
    /// - *Append*: the kernel reads a resident input and writes the resident output that is its new content, both from the
    ///   same byte on, the output being longer. The output is the input and further operands, one behind the other along
    ///   one axis. With `R` the product of the sizes of the axes before it, row `r` of `R` moves from byte `r · n` to
    ///   `r · (n + m)`, where `n` and `m` are the bytes of one row of the input and of all that is appended to it.
    ///   Who runs the kernel must leave the bytes as if all reads came before all writes: it may move rows from the last
    ///   one to the first, each as by `memmove`, and put what is appended behind a row once that has moved; if `R` is 1,
    ///   nothing moves. Rows must not move in parallel unless they are copied elsewhere first.
    ///   Sizes are those of the run, not the largest ones: values are contiguous, whatever room their views have.
    pub writes: Vec<Operand>,
    /// Bytes of scratch memory that the kernel needs beside its operands, taken from the arena at this view.
    pub workspace: Option<View>,
    /// Predicted seconds, launch included.
    pub seconds: f64,
    /// Multiply-accumulate work, FLOP.
    pub flops: f64,
    /// Bytes that it reads and writes.
    pub traffic: f64,
    /// Share of the device that it occupies while it runs, above 0 and at most 1.
    pub share: f64,
}

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamKind {
    /// Kernels, and copies if there is no stream for them.
    Compute,
    /// Copies only.
    Copy,
}

/// A queue of commands, executed one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Where its kernels run.
    pub device: DeviceId,
    /// What it is for.
    pub kind: StreamKind,
}

/// One end of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Bytes of a buffer.
    Buffer(View),
    /// Memory of the caller: the input at this number of [`Entry::inputs`].
    Input(u32),
    /// Memory of the caller: the output at this number of [`Entry::outputs`].
    Output(u32),
}

/// Why a copy is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyReason {
    /// An input goes to a device.
    Input,
    /// An output goes to the caller.
    Output,
    /// A value goes from one device to another.
    Transfer,
    /// A value leaves a device for want of memory.
    Spill,
    /// A spilled value, or a weight kept on the host, comes to a device.
    Fetch,
    /// A state's new value goes to the state's buffer.
    Update,
}

/// What a stream does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Runs a kernel.
    Launch {
        /// The kernel.
        kernel: KernelId,
    },
    /// Copies bytes.
    Copy {
        /// The value that is copied.
        value: ValueRef,
        /// The value that the copy is: another one if the copy stands for a `transfer` operation.
        result: ValueRef,
        /// From here.
        from: Place,
        /// To here; of the same size.
        to: Place,
        /// Why.
        reason: CopyReason,
        /// Predicted seconds without contention.
        seconds: f64,
    },
    /// Marks a moment of this stream. Every event is recorded exactly once.
    Record {
        /// The event.
        event: EventId,
    },
    /// Waits for the moment that the event marks.
    Wait {
        /// The event; its record comes earlier in [`Entry::commands`].
        event: EventId,
    },
}

/// A command in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The stream.
    pub stream: StreamId,
    /// What it does.
    pub action: Action,
}

/// The sizes of a symbol for which an entry is valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SymbolRange {
    /// Name.
    pub name: String,
    /// Smallest size.
    pub min: i64,
    /// Largest size.
    pub max: i64,
}

/// An input or an output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Name of the argument or of the result.
    pub name: String,
    /// Its type in the IR's text form, such as `tensor<1x?xf32>`.
    pub ty: String,
    /// The argument itself for an input; the value handed out for an output.
    pub value: ValueRef,
    /// Where the plan keeps it. `None` for an input that nothing reads and for an output that is an input or constant.
    pub view: Option<View>,
    /// `true`: the value stays on the device between runs (a KV cache handed in and out), no command copies it. An input
    /// that is not given is what the last run left in its bytes: as it was given, or the output that stands there.
    /// Ports of all entries that stand in one buffer are one and the same cache.
    /// `false`: a copy command brings an input from the caller, or an output to the caller.
    pub resident: bool,
    /// The argument that an output is the new value of.
    pub update_of: Option<u32>,
}

/// A state's value at the end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateUpdate {
    /// Number of the argument that is the state.
    pub argument: u32,
    /// The new value; it stands in the state's view when the run ends.
    pub value: ValueRef,
    /// The state's bytes.
    pub view: View,
}

/// State that an entry reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateBinding {
    /// Number of the argument that is the state.
    pub argument: u32,
    /// The state's bytes.
    pub view: View,
}

/// Bytes that an entry needs on a device, by what they are for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// The device.
    pub device: DeviceId,
    /// Weights and constants.
    pub weights: u64,
    /// State, KV caches included.
    pub state: u64,
    /// KV cache per token of one session; 0 if there is none.
    pub kv_per_token: u64,
    /// KV cache per session at the largest size that the entry admits; 0 if there is none.
    pub kv_per_session: u64,
    /// Activations at their peak.
    pub activations: u64,
    /// The peak that no packing can undercut.
    pub activations_bound: u64,
    /// Scratch memory of kernels, part of `activations`.
    pub workspace: u64,
    /// Sessions whose caches fit beside the weights and activations; `None` if there is no cache.
    pub sessions: Option<u64>,
}

/// How one function runs for one range of sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Name of the function.
    pub function: String,
    /// Phase (`llm_prefill`, `llm_decode`, …), if it is known.
    pub phase: Option<String>,
    /// What a launch of it is.
    pub granularity: Granularity,
    /// Sizes for which it is valid; symbols that are not named here do not occur.
    pub symbols: Vec<SymbolRange>,
    /// Inputs in the order of the arguments; states are no inputs.
    pub inputs: Vec<Port>,
    /// Outputs in the order of the results; updates of states are no outputs.
    pub outputs: Vec<Port>,
    /// States read.
    pub states: Vec<StateBinding>,
    /// States written.
    pub updates: Vec<StateUpdate>,
    /// Constants read: a constant buffer of the plan holds this value of the function.
    pub constants: Vec<Operand>,
    /// Streams.
    pub streams: Vec<Stream>,
    /// Number of events.
    pub events: u32,
    /// Kernels.
    pub kernels: Vec<Kernel>,
    /// Engine regions, by number; kernels that no engine can hold are in none.
    pub engines: Vec<Engine>,
    /// Values that are bytes of others.
    pub aliases: Vec<Alias>,
    /// Commands in the order in which they are issued. Each stream executes its own in this order.
    pub commands: Vec<Command>,
    /// Memory per device.
    pub budgets: Vec<Budget>,
    /// Predicted seconds of one run.
    pub seconds: f64,
}

impl Entry {
    /// Are both for the same function and sizes? Then they differ in their [`Granularity`].
    pub fn is_for_same(&self, other: &Entry) -> bool {
        self.function == other.function && self.symbols == other.symbols
    }

    /// An entry of this function without anything in it.
    pub fn empty(function: &str) -> Entry {
        Entry {
            function: function.into(),
            phase: None,
            granularity: Granularity::default(),
            symbols: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            states: Vec::new(),
            updates: Vec::new(),
            constants: Vec::new(),
            streams: Vec::new(),
            events: 0,
            kernels: Vec::new(),
            engines: Vec::new(),
            aliases: Vec::new(),
            commands: Vec::new(),
            budgets: Vec::new(),
            seconds: 0.0,
        }
    }
}
