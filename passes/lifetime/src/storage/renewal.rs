//! Renewals: what the caller keeps on the device, written over the input that it is the new content of.
//!
//! Two operations renew an input: a scatter changes some elements of it, and a concatenation *appends* to it. What is
//! appended to moves unless the axis is the outermost one: of `[B, H, S, D]` with one more row, row `r` of the `B · H`
//! begins at `r · (S + 1) · D` instead of `r · S · D`. Every row moves towards the end, so that it can be done within one
//! buffer, from the last row to the first; whoever runs such a unit has to know that.

use super::{Assigner, StorageKind};
use djinn_ir::graph::Definition;
use djinn_ir::{ArgumentKind, Dim, Function, OpKind, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Results among the values that are kept on a device, and the input among them that each is made from: what
/// [`super::StorageOptions::renewals`] may ask for.
pub fn renewals(function: &Function, kept: &BTreeSet<ValueId>) -> BTreeMap<ValueId, ValueId> {
    let graph = &function.graph;
    let mut pairs: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for v in graph.results.iter().filter(|v| kept.contains(v)) {
        let Some((id, _)) = graph.definition(*v) else { continue };
        let op = graph.op(id);
        let renews = matches!(
            op.kind,
            OpKind::Concat | OpKind::IndexCopy | OpKind::ScatterNd | OpKind::ScatterElements
        );
        let Some(old) = op.operands.first().copied().filter(|old| renews && kept.contains(old)) else {
            continue;
        };
        let Definition::Argument(n) = graph.value(old).def else { continue };
        let is_input = function.arguments.get(n as usize).is_some_and(|a| a.1 == ArgumentKind::Input);
        if is_input && !pairs.contains_key(v) && taken.insert(old) {
            pairs.insert(*v, old);
        }
    }
    pairs
}

impl Assigner<'_> {
    /// Writes a value that unit `u` makes over the input `old`, or notes why not.
    pub(super) fn renew(&mut self, u: usize, v: ValueId, old: ValueId) {
        if let Err(why) = self.try_renew(u, v, old) {
            self.storage.not_renewed.insert(v, why);
        }
    }

    fn try_renew(&mut self, u: usize, v: ValueId, old: ValueId) -> Result<(), &'static str> {
        let (Some(from), Some(into)) = (self.fills(v), self.root(old)) else {
            return Err("it is part of a larger buffer");
        };
        let is_input = matches!(self.info(into).kind, StorageKind::Input(_)) && self.graph.is_argument(old);
        if !is_input || self.overwritten[old.0 as usize] {
            return Err("the input has no buffer of its own, or was written over before");
        }
        if self.given_back.contains(&old) {
            return Err("the function gives the input back as well");
        }
        if self.homes[old.0 as usize] != self.device_of(u) {
            return Err("the input is on another device");
        }
        if self.options.whole.contains(&u) {
            return Err("what makes it still reads while it writes");
        }
        if !self.appends(u, v, old) && self.writer_operand(u, v) != Some(old) {
            return Err("what makes it does not append to the input");
        }
        let length = self.bytes_of(v).clone();
        if !self.reads_only(u, Some(old), into, &Dim::ZERO, &length) {
            return Err("what makes it reads the input in another way, too");
        }
        let Some(pairs) = self.readers_before(u, into, &Dim::ZERO, &length, true) else {
            return Err("the input is read afterwards, or on another device");
        };
        self.write_over(from, into, &Dim::ZERO, pairs);
        self.storage.buffers[into.index()].bytes = length;
        Ok(())
    }

    /// Does unit `u` make `v` by appending to `old`, and neither read `v` itself nor `old` in another way?
    fn appends(&self, u: usize, v: ValueId, old: ValueId) -> bool {
        let made = self.graph.definition(v).map(|(id, _)| self.graph.op(id));
        let first = |op: &djinn_ir::Op| op.kind == OpKind::Concat && op.operands.first() == Some(&old);
        let operands = || self.units[u].iter().flat_map(|id| &self.graph.op(*id).operands);
        made.is_some_and(first)
            && operands().filter(|o| **o == old).count() == 1
            && !operands().any(|o| *o == v)
    }
}
