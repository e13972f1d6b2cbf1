//! Runs a plan as it stands: on the host, which stands for every device, or on NVIDIA GPUs.
//!
//! - [`Runtime`]: checks a plan against its program, allocates the arenas, computes the constants, runs entries;
//! - [`RunOptions`]: poison, race detection, simulated links, shared constants, limits;
//! - [`CudaOptions`]: GPUs, kernels made ahead of time, engines, graphs;
//! - [`RunOutput`]: outputs, updates, the measured trace, what the race detector found.
//!
//! On the host every arena is one allocation, every stream one thread, every event a real one; kernels are the operations
//! of the program, evaluated by `djinn_interp` or, with [`Kernels::Compiled`], steps on the bytes of the arenas: compiled
//! code (`djinn_kernel`, `djinn_mlir`), library calls (`djinn_blas`), and the evaluator for the rest. Nothing is repaired:
//! a plan that orders, places or reuses memory wrongly gives wrong values, which poison makes visible and the race
//! detector names. On GPUs (module `cuda`) they are CUDA's, and kernels are engines, PTX, or products of cuBLASLt.
//!
//! Invariant: a plan that the runtime accepts runs to its end or to a diagnostic. Waits look back in the order of the
//! commands only (checked beforehand), so that no run can deadlock.
//!
//! Inputs that stay on their device (caches) are given once: a run that is not given one takes what the run before left in
//! its place, be it of the same entry, of another range of sizes or of another function.
//!
//! Invariant: neither results nor errors of a correctly ordered plan depend on the timing of threads.

mod arena;
mod call;
mod code;
mod compile;
mod compiled;
mod constants;
mod cuda;
mod events;
mod execute;
mod hazard;
mod host;
mod jit;
mod kept;
mod launch;
mod lifetimes;
mod links;
mod load;
mod machine;
mod memory;
mod options;
mod output;
mod persistent;
mod resolve;
mod run;
mod runtime;
mod symbols;

pub use cuda::{CudaOptions, EngineExecution, EngineUnit, EngineValue, LoadEngine, PtxSet, compile_ptx};
pub use hazard::{HazardKind, MAX_REPORTS, RaceReport};
pub use jit::KernelReport;
pub use launch::WorkTimes;
pub use links::MAX_COPY_SECONDS;
pub use options::{Kernels, LinkSpeed, RunOptions};
pub use output::{RunOutput, Span};
pub use resolve::MAX_STREAMS;
pub use runtime::Runtime;
