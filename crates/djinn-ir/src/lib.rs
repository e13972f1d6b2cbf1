//! The intermediate representation: SSA over tensors with symbolic shapes.
//!
//! - [`dtype`], [`dim`], [`types`]: element types, symbolic sizes, tensor types;
//! - [`ops`]: the op table, where every fact about an operation stands;
//! - [`graph`]: modules, functions, graphs; [`Patch`] is the one way to change a graph; [`walk`] looks at them;
//! - [`cleanup`]: dead code, common subexpressions and shape arithmetic, removed through patches;
//! - [`infer`]: result types and labelled constraints; [`verify`]: the whole-module check;
//! - [`symbolic`]: values of small integer tensors as symbolic sizes (shape arithmetic);
//! - [`hash`]: hashes of programs, for caches;
//! - [`text`]: the text form, in MLIR's generic syntax, printed and parsed;
//! - [`suggest`]: names near to a misspelled one, from the diagnostics.
//!
//! Invariant: no file system, no clock, no environment, no hash-order iteration in this crate.

pub mod attr;
pub mod cleanup;
pub mod data;
pub mod dim;
pub mod dtype;
pub mod graph;
pub mod hash;
pub mod infer;
pub mod ops;
pub mod patch;
pub mod symbolic;
pub mod text;
pub mod types;
pub mod verify;
pub mod walk;

pub use djinn_diag::suggest;

pub use attr::{Attr, Attrs};
pub use data::{ContentHash, TensorData};
pub use dim::{Dim, Symbol, SymbolInfo, SymbolTable};
pub use dtype::DType;
pub use graph::{
    ArgumentKind, Caches, Function, Graph, Location, Module, Op, OpId, ResultKind, Value, ValueId,
    Visibility, Weight, weight_attrs,
};
pub use hash::{constant_hashes, graph_hash, program_hash};
pub use ops::OpKind;
pub use patch::{Fuel, Patch, PatchOutcome, PatchReport};
pub use symbolic::SymbolicValue;
pub use types::TensorType;
