//! MLIR for Djinn: host code and PTX through LLVM, and modules checked by MLIR.
//!
//! [`dialect`] writes the definition of the `djinn` dialect, which stock MLIR tools hold modules to.
//! [`Compiler`] loads a plugin (`libdjinn_llvm.so`, crate `djinn-llvm`) when it is asked to, and never before: nothing
//! that links this crate links LLVM.
//!
//! Invariant: nothing is printed, and no text makes a call panic; what MLIR refuses is a diagnostic with its place.

mod compiler;
pub mod dialect;
mod nesting;
mod plugin;

pub use compiler::{Compiler, Jit, JitFunction};
