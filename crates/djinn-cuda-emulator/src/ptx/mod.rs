//! PTX: a parser and an interpreter for what LLVM's NVPTX backend emits for Djinn's kernels.
//!
//! [`Module::parse`] reads a text once into instructions with numbered registers; [`run`] does a launch on any
//! [`Memory`]. What is not known is refused when the text is read, with its line. Functions other than kernels, calls,
//! textures, tensor cores and the directed roundings of arithmetic are not known.

mod alu;
mod convert;
mod decode;
mod decode_memory;
mod fault;
mod kernel;
mod lex;
mod memory;
mod number;
mod parse;
mod run;
mod warp_ops;

pub use fault::{Fault, Launch, Trouble};
pub use kernel::{Kernel, Module, ParamLayout};
pub use memory::{Buffers, Memory, Refusal};
pub(crate) use memory::{get, put};
pub use parse::ParseError;
pub use run::run;
