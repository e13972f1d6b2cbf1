//! Names that say how many operands and results an operation has.
//!
//! A dialect that is defined as data (IRDL) cannot say that an operation takes any number of operands of different
//! types: a variadic operand stands for values of one type. So text for stock MLIR tools
//! ([`super::PrintOptions::for_mlir`]) names such operations by their counts: `djinn.concat_3` has three operands,
//! `djinn.if_2_1` two operands and one result. A definition cannot name a terminator either, so the end of a body is
//! [`TERMINATOR`] there, which takes any values under any operation.

use crate::ops::{OpDef, OpKind};

/// What ends a body in text for stock MLIR tools.
pub const TERMINATOR: &str = "gpu.yield";

/// The name with its counts, without the `djinn.` prefix; `None` for operations whose counts the op table fixes.
pub fn counted_name(def: &OpDef, operands: usize, results: usize) -> Option<String> {
    match (def.max_operands(), def.results) {
        (Some(_), _) => None,
        (None, Some(_)) => Some(format!("{}_{operands}", def.name)),
        (None, None) => Some(format!("{}_{operands}_{results}", def.name)),
    }
}

/// The operation that [`counted_name`] names so.
pub(super) fn from_counted_name(name: &str) -> Option<OpKind> {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
    let kind = OpKind::from_name(stem)?;
    let counts: Vec<usize> = name[stem.len()..].split('_').skip(1).filter_map(|n| n.parse().ok()).collect();
    let (operands, results) = (*counts.first()?, counts.get(1).copied().unwrap_or(1));
    (counted_name(kind.def(), operands, results).as_deref() == Some(name)).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for (kind, name) in
            [(OpKind::Concat, "concat_3"), (OpKind::If, "if_2_1"), (OpKind::Opaque, "opaque_0_0")]
        {
            assert_eq!(from_counted_name(name), Some(kind), "{name}");
        }
        assert_eq!(counted_name(OpKind::Concat.def(), 3, 1).as_deref(), Some("concat_3"));
        assert_eq!(counted_name(OpKind::Loop.def(), 4, 2).as_deref(), Some("loop_4_2"));
        assert_eq!(counted_name(OpKind::Add.def(), 2, 1), None);
    }

    #[test]
    fn other_names_are_not_read() {
        for name in ["add_2", "concat", "concat_", "concat_03", "concat_3_1", "if_2", "concat_x", "concat__3"]
        {
            assert_eq!(from_counted_name(name), None, "{name}");
        }
    }
}
