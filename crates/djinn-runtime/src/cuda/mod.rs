//! Plans on NVIDIA GPUs.
//!
//! - `memory`: an arena is one block of a GPU's memory, or pinned memory of the host;
//! - `code`: kernels as PTX, found again by a hash of what they were compiled from;
//! - `prepare`: what an entry needs from run to run: streams, events, staging memory, compiled kernels, engines;
//! - `enqueue`: the commands of the plan on its streams, in its order;
//! - `launch`: a kernel as an engine, or as steps: PTX, products of cuBLASLt, and what only the evaluator can do;
//! - `load`: which entries run by engines and which by kernels, and what these need;
//! - `machine`: runs, and graphs for sizes that come again.
//!
//! Invariant: the order of commands on the GPU is that of the plan: its streams and its events, and nothing else but a
//! fork from and a join to the first stream.

mod code;
mod engine;
mod enqueue;
mod gemm;
mod launch;
mod load;
mod machine;
mod memory;
mod prepare;
mod ptx;
mod scratch;

pub use engine::{EngineExecution, EngineUnit, EngineValue, LoadEngine};
pub use machine::CudaOptions;
pub use ptx::{PtxSet, compile_ptx};
