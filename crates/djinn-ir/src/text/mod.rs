//! The text form: MLIR's generic operation syntax, printed and parsed.
//!
//! ```text
//! "builtin.module"() ({
//!   "djinn.weight_decl"() {hash = "…", sym_name = "w", type = tensor<8x4xf32>} : () -> ()
//!   "djinn.func"() ({
//!   ^bb0(%0: tensor<?x8xf32, ["s0"]>):
//!     %1 = "djinn.weight"() {hash = "…", name = "w", types = [tensor<8x4xf32>]} : () -> tensor<8x4xf32>
//!     %2 = "djinn.matmul"(%0, %1) {djinn.phase = "forward"} : (…) -> tensor<?x4xf32, ["s0"]> loc("layer"("m.py":3:1))
//!     "djinn.return"(%2) : (tensor<?x4xf32, ["s0"]>) -> ()
//!   }) {arguments = [{kind = "input", name = "x"}], results = [{kind = "output", name = "y"}], sym_name = "main"} : () -> ()
//! }) {djinn.metadata = {}, djinn.symbols = {s0 = {min = 1 : i64}}} : () -> ()
//! ```
//!
//! Attributes of the op table have their plain names and builtin spellings (sizes are strings, `"s0 + 1"`).
//! Annotations have the prefix `djinn.` and describe themselves: a size is `{dim = "s0 + 1"}`, several are
//! `{dims = ["s0", "4"]}`. Bytes of weights stay outside, unless [`PrintOptions`] says otherwise; the content hash
//! finds them again ([`attach_weights`]).
//!
//! Printing what was parsed gives the same bytes. The parser accepts any white space, `//` comments, MLIR's own
//! spelling of several results (`%3:2`, `%3#1`) and properties (`<{…}>`), so that it reads what `mlir-opt` writes.
//!
//! Text that stock MLIR tools shall verify ([`PrintOptions::for_mlir`]) differs in two names, which the parser reads
//! too: operations that take any number of operands carry their counts (`djinn.concat_3`), and a body ends with
//! [`TERMINATOR`] in place of `djinn.return`.

mod counted;
mod cursor;
mod literal;
mod parse;
mod print;
mod tensor;

pub use counted::{TERMINATOR, counted_name};
pub use parse::{parse_module, parse_type};
pub use print::{PrintOptions, print_graph, print_module, print_module_with};

use crate::data::{ContentHash, TensorData};
use crate::graph::Module;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Nesting of regions and attributes in text, at most.
pub const MAX_DEPTH: usize = 64;

/// Bytes that constants written as one repeated element may have, all together: a bound on what parsing allocates.
pub const MAX_SPLAT_BYTES: usize = 1 << 30;

/// Gives weights of `module` that have no content the bytes of the weights of `source` with the same content hash
/// and type; gives the number of weights that got theirs.
pub fn attach_weights(module: &mut Module, source: &Module) -> usize {
    let held: BTreeMap<ContentHash, &TensorData> =
        source.weights.values().filter_map(|w| w.data.as_ref()).map(|(hash, data)| (*hash, data)).collect();
    let mut attached: Vec<Arc<str>> = Vec::new();
    for (name, weight) in module.weights.iter_mut().filter(|(_, w)| w.data.is_none()) {
        let Some(hash) = module.absent.get(name) else { continue };
        if let Some(data) = held.get(hash).filter(|data| data.ty() == weight.ty) {
            weight.data = Some((*hash, (*data).clone()));
            attached.push(Arc::clone(name));
        }
    }
    for name in &attached {
        module.absent.remove(name);
    }
    attached.len()
}

#[cfg(test)]
mod tests;
