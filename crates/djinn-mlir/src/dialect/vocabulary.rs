//! The tensor types and the operations that occur in a text.

use djinn_ir::TensorType;
use djinn_ir::ops::OpDef;
use djinn_ir::text::{counted_name, parse_type};
use std::collections::BTreeSet;

/// What occurs in a text.
pub(super) struct Vocabulary {
    types: Vec<TensorType>,
    operations: BTreeSet<String>,
}

impl Vocabulary {
    /// Of a module as text, which need not be a right one.
    pub(super) fn of(text: &str) -> Self {
        let mut types = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for (at, _) in text.match_indices("tensor<") {
            let Some(spelled) = spelled_type(&text[at..]) else { continue };
            if seen.insert(spelled)
                && let Ok(ty) = parse_type(spelled)
            {
                types.insert(ty);
            }
        }
        let operations = text.split("\"djinn.").skip(1).filter_map(|rest| rest.split_once('"'));
        let operations = operations.map(|(name, _)| name.to_owned()).collect();
        Self { types: types.into_iter().collect(), operations }
    }

    /// The types, sorted.
    pub(super) fn types(&self) -> &[TensorType] {
        &self.types
    }

    /// Does the operation of this name occur?
    pub(super) fn uses(&self, name: &str) -> bool {
        self.operations.contains(name)
    }

    /// The counts of operands and results with which an operation occurs that takes any number. Counts below the least
    /// number of operands are left out.
    pub(super) fn counts(&self, def: &OpDef) -> BTreeSet<(usize, usize)> {
        let least = def.min_operands().max(usize::from(def.results.is_some()));
        let counts = |name: &String| {
            let mut numbers = name.strip_prefix(def.name)?.split('_').skip(1).map(str::parse::<usize>);
            let operands = numbers.next()?.ok()?;
            let results = numbers.next().map_or(def.results, |number| number.ok())?;
            (counted_name(def, operands, results).as_ref() == Some(name) && operands >= least)
                .then_some((operands, results))
        };
        self.operations.iter().filter_map(counts).collect()
    }
}

/// The type that `text` starts with.
fn spelled_type(text: &str) -> Option<&str> {
    let mut quoted = false;
    let end = text.bytes().take(4096).position(|byte| {
        quoted ^= byte == b'"';
        byte == b'>' && !quoted
    })?;
    text.get(..=end)
}
