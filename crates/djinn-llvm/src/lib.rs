//! MLIR and LLVM behind a small C interface.
//!
//! `djinn-mlir` loads this library at run time, so that nothing else links LLVM: programs start fast, and everything
//! but this crate builds on a machine without LLVM 22.
//!
//! - [`abi`]: the exported functions and the layout of what crosses them;
//! - [`session`]: contexts, parsing, diagnostics, and running a pipeline of passes;
//! - [`host`]: host code, compiled in memory;
//! - [`ptx`]: PTX text for NVIDIA GPUs;
//! - [`builtins`]: functions that a GPU computes by itself, in place of those of CUDA's `libdevice`.
//!
//! Invariant: nothing is printed; what MLIR has to say comes back as the text of an error with its place.

mod abi;
mod builtins;
mod host;
mod ptx;
mod session;
