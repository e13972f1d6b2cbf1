//! Order of execution, rematerialisation, spilling, aliasing and storage.
//!
//! - [`Lifetime`]: the pass `lifetime`, which orders the units of every function (kernel groups and single operations)
//!   so that little memory is live at once, and under a memory limit recomputes values or keeps them in host memory;
//! - [`storage`]: which values share a buffer, and where in it: views, in-place results, updates of states. The
//!   planner asks for it once devices, kernels and streams are known.
//!
//! Requires: a verified module. Ensures: a verified module that computes the same bits, units consecutive.
//! Preserves: signatures.

mod model;
mod order;
mod pass;
mod prefetch;
mod shrink;
pub mod storage;
mod units;

pub use pass::{LIFETIME, Lifetime};
pub use storage::{Storage, StorageId, StorageInfo, StorageKind, StorageOptions, assign, homes};
pub use units::units;
