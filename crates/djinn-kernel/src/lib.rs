//! Kernel groups as loop programs, printed as MLIR for the host and for a GPU.
//!
//! An operation is a function from an index to a value that pulls the values that it needs (the model is XLA's
//! elemental IR emitter, `xla/service/elemental_ir_emitter.h`). Whatever is pulled at the same point twice is one
//! expression. Reductions, scans, concatenations, scatters, results, and what is expensive and needed more than once
//! are written down; every such tensor is a stage of loops, and stages that need one another row by row share their
//! outer loops, so that rows stay in registers and caches.
//!
//! - `expand`: operations as tensors defined point by point; `scalar`, `math`: elementwise functions;
//! - `affine`, `dag`, `build`: positions as linear forms, hash-consed scalar expressions, and how they are pulled;
//! - `stage`, `schedule`: loops over tensors, and which run together;
//! - `sides`: sums of products that tiles pay for; `levels`: where expressions are computed;
//! - `text`, `host`, `gpu`: printing.
//!
//! Invariant: no LLVM here, no clock, no hash-order iteration: the same group gives the same text.

mod affine;
mod build;
mod dag;
mod expand;
mod fold;
mod gpu;
mod host;
mod levels;
mod math;
mod program;
mod scalar;
mod schedule;
mod sides;
mod stage;
mod steps;
mod text;

use djinn_diag::{Result, unsupported};
use djinn_ir::{DType, Dim, Graph, OpId, ValueId};

/// Operations that are launched together.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    /// The graph that they are in.
    pub graph: &'a Graph,
    /// The operations, operands before users.
    pub ops: &'a [OpId],
    /// The values that they read from elsewhere.
    pub reads: &'a [ValueId],
    /// The values that others need.
    pub writes: &'a [ValueId],
}

/// A step of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Operations of one generated kernel.
    Fused {
        /// The operations.
        ops: Vec<OpId>,
        /// Values that it reads.
        reads: Vec<ValueId>,
        /// Values that it writes.
        writes: Vec<ValueId>,
    },
    /// A contraction for a library.
    Library {
        /// The operation.
        op: OpId,
    },
    /// An operation for the evaluator: [`refusal`] says why, or the evaluator is better at it on a host.
    Evaluate {
        /// The operation.
        op: OpId,
    },
}

/// What an argument of a kernel is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Param {
    /// A pointer to a value that is read.
    Read(ValueId),
    /// A pointer to a value that is written.
    Write(ValueId),
    /// A pointer to memory that the kernel uses as it likes.
    Scratch {
        /// Number of elements.
        elements: Dim,
        /// Element type.
        dtype: DType,
    },
    /// A size, as `i64`.
    Size(Dim),
}

/// A kernel for the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKernel {
    /// Name of the function.
    pub name: String,
    /// One `func.func`, without a module around it.
    pub mlir: String,
    /// The function's arguments, in order.
    pub params: Vec<Param>,
}

/// A launch of a function of a [`GpuKernel`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Name of the function.
    pub function: String,
    /// Blocks, as many as there is work for.
    ///
    /// Every function takes its work in steps of the grid, so that any smaller number of blocks computes the same: a
    /// caller clamps what it evaluates to what the device takes, 1 ≤ x ≤ 2³¹ − 1. `x` is at least 1, also where there
    /// is nothing to do, and may exceed the limit where it depends on a symbol; `y` and `z` are 1.
    pub grid: [Dim; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic workgroup memory; what the functions declare themselves is not counted.
    pub shared_bytes: Dim,
    /// Bytes that it writes to global memory, at most (results and scratch).
    pub bytes_written: Dim,
}

/// Kernels for a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuKernel {
    /// Name of the group's function, or what the names of its functions begin with.
    pub name: String,
    /// `gpu.func`s, to stand inside a `gpu.module`.
    pub mlir: String,
    /// The arguments of every function, in order.
    pub params: Vec<Param>,
    /// The launches, one after the other.
    pub launches: Vec<Launch>,
}

/// The steps that compute a group, in order; values between steps are temporaries.
pub fn steps(group: &Group) -> Vec<Step> {
    steps::steps(group)
}

/// Why an operation has no kernel, whatever its types; `None` if it may have one.
pub fn refusal(kind: djinn_ir::OpKind) -> Option<&'static str> {
    expand::refusal(kind)
}

/// Lowers a group to one function for the host.
///
/// `aliases` are pairs of numbers (in `reads`, in `writes`) of values in the same memory: both begin at the same byte,
/// and either are the same bytes, or the written value is a concatenation that begins with the one that is read. The
/// kernel reads such an operand through the pointer of the result, so that its `Read` is no parameter. All other
/// pointers must not overlap where one of them is written.
///
/// # Errors
/// `kernel.op`, `kernel.size`: unsupported; the evaluator can still run the group.
pub fn lower_host(group: &Group, name: &str, aliases: &[(usize, usize)]) -> Result<HostKernel> {
    let program = expand::expand(group.graph, group.ops, group.writes)?;
    schedule::check_sizes(&program)?;
    let pairs = pairs(group, aliases)?;
    let mut schedule = schedule::schedule(&program, &pairs, true)?;
    let function = host::print(&mut schedule, name);
    let mut params: Vec<Param> = schedule.storage.iter().map(param).collect();
    params.extend(function.sizes.into_iter().map(Param::Size));
    Ok(HostKernel { name: name.to_owned(), mlir: function.text, params })
}

/// The values that aliases name.
fn pairs(group: &Group, aliases: &[(usize, usize)]) -> Result<Vec<(ValueId, ValueId)>> {
    let pair = |(r, w): &(usize, usize)| Some((*group.reads.get(*r)?, *group.writes.get(*w)?));
    let pairs: Option<Vec<_>> = aliases.iter().map(pair).collect();
    pairs.ok_or_else(|| unsupported("kernel.alias", "an alias names no operand or result"))
}

fn param(storage: &schedule::Storage) -> Param {
    match storage {
        schedule::Storage::Read(v) => Param::Read(*v),
        schedule::Storage::Write(v) => Param::Write(*v),
        schedule::Storage::Scratch { elements, dtype } => {
            Param::Scratch { elements: elements.clone(), dtype: *dtype }
        }
    }
}

/// Lowers a group to functions for a GPU, contractions included.
///
/// Pointers must not overlap where one of them is written.
///
/// # Errors
/// `kernel.op`, `kernel.size`, `kernel.gpu`: unsupported.
pub fn lower_gpu(group: &Group, name: &str) -> Result<GpuKernel> {
    lower_gpu_with(group, name, &[], 256)
}

/// [`lower_gpu`] with operands and results in the same memory; `aliases` as in [`lower_host`].
///
/// Elementwise results overwrite what they are computed from, concatenations append if no row moves, and scatters
/// write only the elements that change.
///
/// # Errors
/// As [`lower_gpu`]; `kernel.alias`: in place, a thread might read what another has overwritten. [`lower_gpu`] still
/// lowers the group, for other memory.
pub fn lower_gpu_aliased(group: &Group, name: &str, aliases: &[(usize, usize)]) -> Result<GpuKernel> {
    lower_gpu_with(group, name, aliases, 256)
}

/// [`lower_gpu_aliased`] with so many threads a block, rounded up to a power of two.
///
/// # Errors
/// As [`lower_gpu_aliased`].
pub fn lower_gpu_with(
    group: &Group,
    name: &str,
    aliases: &[(usize, usize)],
    threads: u32,
) -> Result<GpuKernel> {
    let threads = threads.clamp(1, 1024).next_power_of_two();
    let program = expand::expand(group.graph, group.ops, group.writes)?;
    schedule::check_sizes(&program)?;
    let mut schedule = schedule::schedule_in_place(&program, &pairs(group, aliases)?)?;
    let functions = gpu::print(&mut schedule, name, threads)?;
    let mut params: Vec<Param> = schedule.storage.iter().map(param).collect();
    params.extend(functions.sizes.into_iter().map(Param::Size));
    let launch = |l: gpu::Launched| Launch {
        function: l.function,
        grid: [l.grid, Dim::ONE, Dim::ONE],
        block: [threads, 1, 1],
        shared_bytes: Dim::ZERO,
        bytes_written: l.written,
    };
    let launches = functions.launches.into_iter().map(launch).collect();
    Ok(GpuKernel { name: name.to_owned(), mlir: functions.text, params, launches })
}
