//! Values that depend on weights and constants only: computed once, before the first run.

use djinn_ir::{ContentHash, Module, ValueId, constant_hashes};
use std::collections::BTreeMap;

/// What makes two constants the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ConstantKey {
    /// A weight or literal of this content, or what is computed in this way from such: the same in all functions.
    Content(ContentHash),
    /// Anything else, by number of the function.
    Computed(usize, ValueId),
}

/// Keys of constants, by function.
#[derive(Debug, Default)]
pub(crate) struct ConstantKeys(BTreeMap<usize, Vec<Option<ContentHash>>>);

impl ConstantKeys {
    /// The key of a constant of function number `f`.
    pub(crate) fn key(&mut self, module: &Module, f: usize, v: ValueId) -> ConstantKey {
        let hashes = self.0.entry(f).or_insert_with(|| constant_hashes(module, &module.functions[f]));
        let hash = hashes.get(v.0 as usize).copied().flatten();
        hash.map_or(ConstantKey::Computed(f, v), ConstantKey::Content)
    }
}
