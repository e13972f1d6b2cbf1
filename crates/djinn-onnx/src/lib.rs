//! The ONNX frontend: `.onnx` and `.onnx.gz` files become an [`Srg`].
//!
//! - [`import_file`] opens a file (memory-mapped, or unzipped) and its external data; [`import`] works on bytes;
//! - `model` walks graphs, regions and functions and binds names to values;
//! - `node` is what an operator's import function sees: operands, attributes and building blocks;
//! - `ops` holds one function per operator and the table `(domain, operator, version) → function`;
//! - `tensor` and `attributes` read literals and attributes.
//!
//! Invariant: every problem of the file is one diagnostic that names node or tensor; nothing panics on input, and
//! no allocation is larger than the payload that backs it.

mod attributes;
mod devices;
mod file;
mod model;
mod names;
mod node;
mod ops;
mod order;
mod tensor;

pub use file::{ByteSource, import_file};

use djinn_diag::{Diagnostic, Result, clipped, input, unsupported};
use djinn_onnx_proto::{Bytes, ModelProto, prost::Message};
use djinn_srg::Srg;
use std::collections::BTreeMap;

/// Reads external data: given the location that the file names, its bytes; `None` if there is no such file, which
/// makes the tensors in it weights without values.
pub type Resolver<'a> = dyn Fn(&str) -> Result<Option<ByteSource>> + 'a;

/// A model after import.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The program: one function.
    pub srg: Srg,
    /// What happened on the way.
    pub report: ImportReport,
}

/// Facts about an import that are not part of the program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// How many nodes became `opaque`, by domain, operator and operator set version.
    pub opaque: BTreeMap<(String, String, i64), usize>,
    /// Nodes of the file that were imported, functions inlined.
    pub nodes: usize,
    /// Values whose declared size provably differs from the inferred one.
    pub type_disagreements: usize,
    /// Values whose declared size is another expression than the inferred one, neither provably equal nor different.
    pub type_unproved: usize,
    /// Nodes that break a type rule in a way known of an exporter, and that were mended.
    pub repairs: usize,
    /// Weights by element type.
    pub weights: BTreeMap<String, usize>,
    /// Weights that the file declares without giving their values.
    pub weights_without_values: usize,
}

/// Imports a serialised `ModelProto`.
///
/// # Errors
/// One diagnostic that names the culprit, the place in the model and what to do about it.
pub fn import(bytes: Bytes, external: &Resolver<'_>) -> Result<Imported> {
    if bytes.is_empty() {
        return Err(input("onnx.empty", "the file is empty").help("export or download the model again"));
    }
    let model = ModelProto::decode(bytes).map_err(|e| undecodable(&e.to_string()))?;
    model::import_model(&model, external).map_err(Diagnostic::shortened)
}

fn undecodable(reason: &str) -> Box<Diagnostic> {
    if reason.contains("recursion limit") {
        return unsupported("onnx.nesting", "subgraphs are nested too deeply")
            .help("export the model with less control flow inside control flow");
    }
    let reason = reason.strip_prefix("failed to decode Protobuf message: ").unwrap_or(reason);
    let reason = clipped(reason, 120, 0);
    input("onnx.decode", format!("this is not an ONNX model, or a damaged one ({reason})"))
        .help("djinn-opt reads .pt2, .onnx, SRG JSON and IR text; export the model again")
}
