//! Writing over old values: elementwise units over a dying operand, updates over their state.

use super::{Assigner, StorageId, StorageKind};
use djinn_ir::ops::{CostClass, traits};
use djinn_ir::{ArgumentKind, Dim, OpId, OpKind, ResultKind, ValueId};
use std::collections::BTreeMap;

/// The most steps from the new value of a state back to the old one that are followed.
const MAX_CHAIN: usize = 64;

impl Assigner<'_> {
    /// Decides unit by unit, in order, which results are written over something.
    pub(super) fn overwrites(&mut self) {
        let bound = if self.options.updates { self.bound_for_states() } else { BTreeMap::new() };
        for u in 0..self.units.len() {
            if self.storage.skipped[u] {
                continue;
            }
            let whole = self.options.whole.contains(&u);
            for v in self.results_of(u) {
                if let Some(old) = self.options.renewals.get(&v) {
                    self.renew(u, v, *old);
                } else if let Some(n) = bound.get(&v) {
                    self.update(u, v, *n);
                } else if self.options.in_place && !whole {
                    self.reuse_operand(u, v);
                }
            }
        }
    }

    fn results_of(&self, u: usize) -> Vec<ValueId> {
        let results = self.units[u].iter().flat_map(|id| &self.graph.op(*id).results).copied();
        results.filter(|v| self.root(*v).is_some()).collect()
    }

    /// Values made on the way from the old value of a state to its new one, with the argument of the state.
    ///
    /// A state is left out if its old value is given back too, or if it has several new values.
    fn bound_for_states(&self) -> BTreeMap<ValueId, u32> {
        let mut updates: BTreeMap<u32, Vec<ValueId>> = BTreeMap::new();
        for (v, (_, kind)) in self.graph.results.iter().zip(&self.function.results) {
            if let ResultKind::Update(n) = kind {
                updates.entry(*n).or_default().push(*v);
            }
        }
        let mut bound = BTreeMap::new();
        for (n, values) in updates {
            let is_state =
                matches!(self.function.arguments.get(n as usize), Some((_, ArgumentKind::State { .. })));
            let state = self.graph.arguments.get(n as usize).copied();
            if let ([new], Some(state), true) = (values.as_slice(), state, is_state)
                && !self.outputs.contains(new)
                && !self.given_back.contains(&state)
            {
                self.follow_update(*new, n, &mut bound);
            }
        }
        bound
    }

    /// Follows the first operands of in-place writers back from the new value of a state.
    fn follow_update(&self, new: ValueId, n: u32, bound: &mut BTreeMap<ValueId, u32>) {
        let mut at = new;
        for _ in 0..MAX_CHAIN {
            let Some(u) = self.owner_of(at).filter(|_| !bound.contains_key(&at)) else { return };
            let next = if self.storage.skipped[u] {
                self.graph.definition(at).map(|(id, _)| self.graph.op(id).operands[0])
            } else {
                bound.insert(at, n);
                self.writer_operand(u, at)
            };
            match next {
                Some(next) => at = next,
                None => return,
            }
        }
    }

    /// The operand over which a unit of one writing operation (a scatter) can make its result.
    pub(super) fn writer_operand(&self, u: usize, v: ValueId) -> Option<ValueId> {
        let (id, _) = self.graph.definition(v)?;
        let op = self.graph.op(id);
        let writes = matches!(op.kind, OpKind::IndexCopy | OpKind::ScatterNd | OpKind::ScatterElements);
        let target = *op.operands.first()?;
        let reads =
            self.units[u].iter().flat_map(|id| &self.graph.op(*id).operands).filter(|o| **o == target);
        (writes && reads.count() == 1 && self.owner_of(target) != Some(u)).then_some(target)
    }

    /// Writes the new value of state `n`, or one on the way to it, over the old one.
    fn update(&mut self, u: usize, v: ValueId, n: u32) {
        let state = self.graph.arguments[n as usize];
        let (Some(from), Some(into)) = (self.fills_temporary(v), self.root(state)) else { return };
        if self.info(into).bytes != self.info(from).bytes {
            return;
        }
        let over = self.writer_operand(u, v).or_else(|| self.elementwise_operand(u, v, into));
        let over = over.filter(|_| !self.options.whole.contains(&u));
        let over = over.filter(|o| !self.overwritten[o.0 as usize]);
        let reads_itself = over.is_none_or(|o| self.root(o) != Some(into));
        // A unit that reads the state in another way than element by element cannot write over it.
        if !self.reads_only(u, over.filter(|_| !reads_itself), into, &Dim::ZERO, &self.bytes_of(v).clone()) {
            return;
        }
        // A value on the way must be the present content of the state.
        if !self.is_new_value(v, n) && reads_itself {
            return;
        }
        if let Some(pairs) = self.readers_before(u, into, &Dim::ZERO, &self.bytes_of(v).clone(), true) {
            self.write_over(from, into, &Dim::ZERO, pairs);
        }
    }

    /// Is this value, or a view of it, what the function gives back as the new value of argument `n`?
    fn is_new_value(&self, v: ValueId, n: u32) -> bool {
        let results = self.graph.results.iter().zip(&self.function.results);
        let root = self.root(v);
        let mut new = results.filter(|(_, (_, kind))| *kind == ResultKind::Update(n)).map(|(r, _)| *r);
        new.any(|r| r == v || self.root(r) == root)
    }

    /// Writes a result over an operand of the same bytes that nothing reads afterwards: element by element, or where
    /// the unit changes some elements of the operand.
    fn reuse_operand(&mut self, u: usize, v: ValueId) {
        let Some(from) = self.fills(v) else { return };
        if self.info(from).values.iter().any(|o| self.options.apart.contains(o)) {
            return;
        }
        let changed = self.writer_operand(u, v);
        let operands = self.units[u].iter().flat_map(|id| &self.graph.op(*id).operands);
        let candidates: Vec<ValueId> = operands.copied().filter(|o| self.owner_of(*o) != Some(u)).collect();
        for o in candidates {
            let Some(into) = self.root(o).filter(|into| *into != from) else { continue };
            let info = self.info(into);
            let usable = info.kind == StorageKind::Temporary && !self.overwritten[o.0 as usize];
            let over = || changed == Some(o) || self.is_elementwise_over(u, v, o);
            if !usable || !self.same_device(u, o) || !over() {
                continue;
            }
            let (offset, length) = (self.storage.offset[o.0 as usize].clone(), self.bytes_of(o).clone());
            if !self.reads_only(u, Some(o), into, &offset, &length) {
                continue;
            }
            if let Some(pairs) = self.readers_before(u, into, &offset, &length, self.options.order_streams) {
                self.write_over(from, into, &offset, pairs);
                return;
            }
        }
    }

    fn same_device(&self, u: usize, operand: ValueId) -> bool {
        self.owner_of(operand).is_some() && self.homes[operand.0 as usize] == self.device_of(u)
    }

    /// An operand in buffer `into`, over which the unit can make `v` element by element.
    fn elementwise_operand(&self, u: usize, v: ValueId, into: StorageId) -> Option<ValueId> {
        let operands = self.units[u].iter().flat_map(|id| &self.graph.op(*id).operands);
        let mut inside = operands.filter(|o| self.root(**o) == Some(into) && self.owner_of(**o) != Some(u));
        let first = *inside.next()?;
        let same = inside.all(|o| *o == first);
        (same && self.is_elementwise_over(u, v, first)).then_some(first)
    }

    /// Does the unit compute every element of `v` from nothing of `operand` but the element at the same place?
    fn is_elementwise_over(&self, u: usize, v: ValueId, operand: ValueId) -> bool {
        let elementwise = |id: &OpId| {
            let op = self.graph.op(*id);
            let def = op.kind.def();
            def.cost == CostClass::Elementwise
                && def.has(traits::BROADCAST)
                && op.results.iter().all(|r| self.same_shape(*r, v))
        };
        self.same_shape(v, operand)
            && self.graph.ty(v).dtype.size() == self.graph.ty(operand).dtype.size()
            && self.units[u].iter().all(elementwise)
    }

    /// Is `operand` all that unit `u` reads of these bytes? Of what lies there, it may read nothing else.
    pub(super) fn reads_only(
        &self,
        u: usize,
        operand: Option<ValueId>,
        id: StorageId,
        offset: &Dim,
        length: &Dim,
    ) -> bool {
        let operands = self.units[u].iter().flat_map(|id| &self.graph.op(*id).operands);
        let mut inside = operands.filter(|o| self.root(**o) == Some(id) && self.owner_of(**o) != Some(u));
        inside.all(|o| Some(*o) == operand || self.apart(*o, offset, length))
    }

    /// The units other than `u` that read bytes of this range and so must run before `u` writes them; `None` if one
    /// of them runs later, or is on another stream and `order_streams` is false, or if a value there is given back.
    pub(super) fn readers_before(
        &self,
        u: usize,
        id: StorageId,
        offset: &Dim,
        length: &Dim,
        order_streams: bool,
    ) -> Option<Vec<(usize, usize)>> {
        let mut pairs = Vec::new();
        for &v in &self.present[id.index()] {
            if self.apart(v, offset, length) {
                continue;
            }
            let old_state =
                matches!(self.info(id).kind, StorageKind::State(n) if self.graph.arguments[n as usize] == v);
            if self.given_back.contains(&v) && !old_state {
                return None;
            }
            // Whoever made the old bytes is before its readers, but there may be none.
            let maker = self.owner_of(v).filter(|maker| self.readers[v.0 as usize].is_empty() && *maker != u);
            for &reader in self.readers[v.0 as usize].iter().chain(&maker) {
                if reader == u || self.storage.skipped[reader] {
                    continue;
                }
                let other_stream = self.stream_of(reader) != self.stream_of(u);
                let other_device = self.device_of(reader) != self.device_of(u);
                if reader > u || other_device || (other_stream && !order_streams && !self.feeds(reader, u)) {
                    return None;
                }
                if !self.feeds(reader, u) {
                    pairs.push((reader, u));
                }
            }
        }
        Some(pairs)
    }

    fn stream_of(&self, u: usize) -> Option<i64> {
        self.units[u].first().and_then(|id| self.graph.op(*id).annotated_int("stream"))
    }

    /// Does unit `u` read a result of unit `before`?
    fn feeds(&self, before: usize, u: usize) -> bool {
        let results = self.units[before].iter().flat_map(|id| &self.graph.op(*id).results);
        results.into_iter().any(|v| self.readers[v.0 as usize].binary_search(&u).is_ok())
    }

    /// Are the bytes of a value provably none of this range?
    fn apart(&self, v: ValueId, offset: &Dim, length: &Dim) -> bool {
        let own = &self.storage.offset[v.0 as usize];
        let constants = (own.as_const(), self.bytes_of(v).as_const(), offset.as_const(), length.as_const());
        match constants {
            (Some(a), Some(n), Some(b), Some(m)) => a.saturating_add(n) <= b || b.saturating_add(m) <= a,
            _ => false,
        }
    }

    /// Puts the values of buffer `from` over those of `into`.
    pub(super) fn write_over(
        &mut self,
        from: StorageId,
        into: StorageId,
        offset: &Dim,
        pairs: Vec<(usize, usize)>,
    ) {
        let length = self.info(from).bytes.clone();
        let mut present = std::mem::take(&mut self.present[into.index()]);
        present.retain(|v| {
            let stays = self.apart(*v, offset, &length);
            self.overwritten[v.0 as usize] |= !stays;
            stays
        });
        self.present[into.index()] = present;
        self.storage.must_precede.extend(pairs);
        self.merge(from, into, offset);
    }
}
