//! CUDA, loaded at run time: a thin layer over `cudarc` whose errors are diagnostics.
//!
//! - [`Driver`]: finds the driver; without one (or without a GPU) there is a diagnostic that says so;
//! - [`Device`]: a GPU and its primary context;
//! - [`DeviceMemory`], [`PinnedMemory`]: blocks of memory, freed when they are dropped;
//! - [`Stream`], [`Event`]: queues of commands, and moments in them;
//! - [`Module`], [`Function`]: kernels from PTX;
//! - [`Graph`]: commands recorded once and launched as one;
//! - [`Blas`]: matrix products of cuBLASLt.
//!
//! Addresses are plain numbers: who enqueues a command vouches that they lie in memory that lives until the stream has
//! passed the command. That is what `unsafe` means here; the plan's checker is what makes it true for a plan.
//!
//! Invariant: nothing here is linked to CUDA, and no function panics because a library or one of its functions is missing.

mod blas;
mod device;
mod driver;
mod error;
mod graph;
mod memory;
mod module;
mod stream;

pub use blas::{Blas, Gemm, GemmType};
pub use device::Device;
pub use driver::Driver;
pub use graph::Graph;
pub use memory::{DeviceMemory, PinnedMemory};
pub use module::{Function, Module};
pub use stream::{Event, Stream};
