//! The JSON form of a program.
//!
//! ```json
//! {
//!   "format": "djinn-srg",
//!   "version": 1,
//!   "metadata": {"producer": "torch"},
//!   "symbols": {"s0": {"min": 1, "max": 64, "divisor": 1}},
//!   "weights": {"w": {"type": "tensor<8x4xf32>", "hash": "…32 hexadecimal digits…", "data": "…base64…"}},
//!   "functions": [{
//!     "name": "main",
//!     "arguments": [{"name": "x", "kind": "input"}, {"name": "cache", "kind": "state", "initial": "w"}],
//!     "results": [{"name": "y", "kind": "output"}, {"name": "cache", "kind": "update", "argument": 1}],
//!     "body": {
//!       "nodes": [
//!         {"op": null, "types": ["tensor<?x8xf32, [\"s0\"]>"]},
//!         {"op": "softmax", "types": ["tensor<?x8xf32, [\"s0\"]>"], "attrs": {"axis": {"int": 1}},
//!          "regions": [], "origin": {"framework_op": "aten.softmax.int", "name": "softmax_1", "scope": "layers.0",
//!          "source": {"file": "model.py", "line": 12}}, "semantics": {"phase": "forward",
//!          "residency": "ephemeral_activation", "modality": "text", "device": "cuda:0", "flops_hint": 100}}
//!       ],
//!       "edges": [{"from": 0, "result": 0, "to": 1, "operand": 0, "bytes": "32*s0", "rate": 1.0,
//!                  "criticality": 0.5}],
//!       "arguments": [0],
//!       "results": [{"node": 1, "result": 0}]
//!     }
//!   }]
//! }
//! ```
//!
//! - `op` is a name of the op table, or null for an argument. Nodes are in a valid order of execution.
//! - An attribute is an object with one entry that names its kind: `int`, `float`, `bool`, `string`, `ints`,
//!   `floats`, `dim`, `dims`, `dtype`, `types`, or `tensor` (`{"type": …, "data": base64}`). Bytes are little-endian.
//! - Floats that are not finite are their bits in a string: `"0x7FF8000000000000"`.
//! - `attrs`, `regions`, `origin`, `semantics` and their parts, `max`, `initial`, `hash` and `data` may be left out.
//!
//! Unknown fields, double fields and values of another kind are refused with the path of the value. Writing what was
//! read gives the same bytes.

mod read;
mod strict;
mod write;

pub use read::read;
pub(crate) use read::{check_hash, read_with};
pub(crate) use write::to_value;
pub use write::{WeightBytes, write};

/// The value of `format`.
pub(crate) const FORMAT: &str = "djinn-srg";

/// The value of `version`.
pub(crate) const VERSION: u64 = 1;

#[cfg(test)]
pub(crate) mod tests;
