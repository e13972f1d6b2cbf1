//! The `djinn` dialect as data, from the op table, so that stock MLIR tools verify modules:
//! `mlir-opt-22 --irdl-file=djinn.irdl.mlir module.mlir`.
//!
//! IRDL (the "IR definition language", Fehr et al., PLDI 2022) says which operands, results, attributes and regions an
//! operation has and constrains each of them, but it cannot look into a builtin type: "a tensor of f32" or "of rank 2"
//! has no IRDL. What it can say is "one of these types". So [`irdl`] writes the definition for one text: from the tensor
//! types that occur in it, it lists for every operand and result those that have a permitted element type and rank.
//! Facts about several of them ("one element type") are relations, see `relation.rs`.
//!
//! Checked: every operation's name, number of operands, results and regions; presence and kind of every attribute, and
//! its words; element types and ranks as `facts.rs` lists them; `axis` against the rank; results that have the operand's
//! type. Not checked: sizes, contents of lists (`axes`, `perm`, …), regions' arguments and ends, names of weights and
//! functions, and which of the integer attributes' bits are set aside: an integer may also be written as a boolean.
//! [`djinn_ir::verify`] checks all of it.
//!
//! Modules are to be printed with [`djinn_ir::text::PrintOptions::for_mlir`].

mod facts;
mod relation;
mod vocabulary;

use djinn_ir::ops::OP_TABLE;
use facts::{Fact, facts};
use relation::Operation;
use std::fmt::Write;
use vocabulary::Vocabulary;

/// The definition of the dialect, in IRDL, for modules that hold the tensor types of `module`, a module as text. A module
/// with other tensor types is refused.
pub fn irdl(module: &str) -> String {
    let vocabulary = Vocabulary::of(module);
    let mut out = String::from("irdl.dialect @djinn {\n");
    structure(&mut out);
    for def in OP_TABLE {
        if def.max_operands().is_some() {
            define(&mut out, &Operation::new(def, def.operands.len(), def.results.unwrap_or(0)), &vocabulary);
            continue;
        }
        for (operands, results) in vocabulary.counts(def) {
            define(&mut out, &Operation::new(def, operands, results), &vocabulary);
        }
    }
    out.push_str("}\n");
    out
}

/// What a module holds beside the operations of the table.
fn structure(out: &mut String) {
    out.push_str(
        "  irdl.operation @weight_decl {\n\
         \x20   %text = irdl.base \"#builtin.string\"\n\
         \x20   %name = irdl.base \"#builtin.string\"\n\
         \x20   %type = irdl.base \"!builtin.tensor\"\n\
         \x20   irdl.attributes {\"hash\" = %text, \"sym_name\" = %name, \"type\" = %type}\n  }\n",
    );
    out.push_str(
        "  irdl.operation @func {\n\
         \x20   %arguments = irdl.base \"#builtin.array\"\n\
         \x20   %results = irdl.base \"#builtin.array\"\n\
         \x20   %name = irdl.base \"#builtin.string\"\n\
         \x20   %body = irdl.region\n\
         \x20   irdl.attributes {\"arguments\" = %arguments, \"results\" = %results, \"sym_name\" = %name}\n\
         \x20   irdl.regions(body: %body)\n  }\n",
    );
}

/// Writes the definition of one operation. Types are constrained only if the text has the operation.
fn define(out: &mut String, operation: &Operation, vocabulary: &Vocabulary) {
    let used = vocabulary.uses(&operation.name);
    let facts: Vec<Fact> = if used { facts(operation) } else { Vec::new() };
    let _ = writeln!(out, "  irdl.operation @{} {{", operation.name);
    operation.write(&facts, if used { vocabulary.types() } else { &[] }, out);
    out.push_str("  }\n");
}
