//! Views: results that are bytes of an operand, and operands that are bytes of a result.

use super::{Assigner, StorageId, StorageKind};
use djinn_ir::{Dim, Op, OpKind, ValueId};

impl Assigner<'_> {
    /// Lets every unit of views alone share the buffers of its operands.
    pub(super) fn views(&mut self) {
        for u in 0..self.units.len() {
            let whole = self.options.whole.contains(&u);
            let Some(places) = (!whole).then(|| self.view_unit(u)).flatten() else { continue };
            for (v, root, offset) in places {
                match self.root(v) {
                    Some(own) => self.merge(own, root, &offset),
                    None => self.put(v, root, offset),
                }
            }
            self.storage.skipped[u] = true;
        }
    }

    /// Puts a value without a buffer into one.
    fn put(&mut self, v: ValueId, root: StorageId, offset: Dim) {
        self.storage.root[v.0 as usize] = Some(root);
        self.storage.offset[v.0 as usize] = offset;
        self.storage.buffers[root.index()].values.push(v);
        self.present[root.index()].push(v);
    }

    /// Where the results of a unit are if all its operations are views that may share.
    fn view_unit(&self, u: usize) -> Option<Vec<(ValueId, StorageId, Dim)>> {
        let mut places: Vec<(ValueId, StorageId, Dim)> = Vec::new();
        for id in &self.units[u] {
            let op = self.graph.op(*id);
            let inner = self.fixed(self.view_offset(op)?);
            let source = op.operands[0];
            let (root, base) = match places.iter().find(|(v, ..)| *v == source) {
                Some((_, root, offset)) => (*root, offset.clone()),
                None => (self.root(source)?, self.storage.offset[source.0 as usize].clone()),
            };
            let offset = &base + &inner;
            let v = op.results[0];
            // What is given back needs bytes of its own, unless this run made them.
            let lent = self.info(root).kind != StorageKind::Temporary;
            if (lent && self.given_back.contains(&v)) || !self.is_usable(v, root, &offset) {
                return None;
            }
            if self.options.apart.contains(&v) && !(offset.is(0) && self.is_free_for(v, root, &places)) {
                return None;
            }
            places.push((v, root, offset));
        }
        Some(places)
    }

    /// May a value that the caller keeps fill this buffer?
    fn is_free_for(&self, v: ValueId, root: StorageId, places: &[(ValueId, StorageId, Dim)]) -> bool {
        let info = self.info(root);
        let mut others = info.values.iter().chain(places.iter().map(|(other, ..)| other));
        info.bytes == *self.bytes_of(v) && !others.any(|other| self.options.apart.contains(other))
    }

    fn is_aligned(&self, offset: &Dim) -> bool {
        offset.modulo(&Dim::from(self.options.view_alignment.max(1))).is(0)
    }

    /// May a view begin there? Where sizes are bounded, at one byte for all of them, and never leave the buffer.
    fn is_usable(&self, v: ValueId, root: StorageId, offset: &Dim) -> bool {
        if !self.is_aligned(offset) {
            return false;
        }
        let Some(symbols) = self.options.symbols else { return true };
        let (Some(at), whole) = (offset.as_const(), &self.info(root).bytes) else { return false };
        // Equal bytes are equal whatever interval arithmetic makes of them.
        (at == 0 && whole == self.bytes_of(v))
            || match (self.bytes_of(v).bounds(symbols).1, whole.bounds(symbols).1) {
                (Some(length), Some(whole)) => at >= 0 && at.saturating_add(length) <= whole,
                _ => false,
            }
    }

    /// Lets the operands of contiguous concatenations be made at their places in the result.
    pub(super) fn concats(&mut self) {
        for u in 0..self.units.len() {
            let ([id], false) = (self.units[u].as_slice(), self.options.whole.contains(&u)) else { continue };
            let op = self.graph.op(*id);
            if let Some(places) = self.concat_unit(u, op) {
                let Some(into) = self.root(op.results[0]) else { continue };
                let base = self.storage.offset[op.results[0].0 as usize].clone();
                for (from, offset) in places {
                    self.merge(from, into, &(&base + &offset));
                }
                self.storage.skipped[u] = true;
            }
        }
    }

    /// The buffers of the operands and their places in the result, if all of them may be made there.
    fn concat_unit(&self, u: usize, op: &Op) -> Option<Vec<(StorageId, Dim)>> {
        if op.kind != OpKind::Concat || !self.leading_are_one(op.results[0], op.attrs.int("axis")) {
            return None;
        }
        let result = op.results[0];
        let into = self.root(result)?;
        if self.info(into).kind != StorageKind::Temporary {
            return None;
        }
        let mut places = Vec::new();
        let mut offset = Dim::ZERO;
        for v in &op.operands {
            let from = self.fills_temporary(*v)?;
            let own = places.iter().all(|(other, _)| *other != from) && from != into;
            let fixed = self.bytes_of(*v).as_const().is_some();
            let near = self.homes[v.0 as usize] == self.device_of(u);
            if !own || !fixed || !near || self.given_back.contains(v) || !self.is_aligned(&offset) {
                return None;
            }
            places.push((from, offset.clone()));
            offset = &offset + self.bytes_of(*v);
        }
        Some(places)
    }

    /// The first byte of the operand at which the result of a view begins; `None` if the operation is no view.
    ///
    /// Results must be contiguous: reshapes, transposes that move axes of one element only, broadcasts and casts that
    /// change nothing, bit casts, slices without stride whose outer axes have one element, and transfers that do not
    /// leave the device.
    fn view_offset(&self, op: &Op) -> Option<Dim> {
        let graph = self.graph;
        let source = *op.operands.first()?;
        let result = *op.results.first()?;
        let (from, to) = (graph.ty(source), graph.ty(result));
        match op.kind {
            OpKind::Reshape | OpKind::DynamicReshape | OpKind::BitCast => {
                (self.bytes_of(source) == self.bytes_of(result)).then_some(Dim::ZERO)
            }
            OpKind::Cast | OpKind::Broadcast => {
                (from.dtype == to.dtype && self.same_shape(source, result)).then_some(Dim::ZERO)
            }
            OpKind::Transfer => {
                (self.homes[source.0 as usize] == Some(op.attrs.str("device"))).then_some(Dim::ZERO)
            }
            OpKind::Transpose => {
                let perm = op.attrs.ints("perm");
                let size = |p: &&i64| usize::try_from(**p).ok().and_then(|p| from.shape.get(p));
                let mut moved = perm.iter().filter(|p| size(p).is_none_or(|d| !self.fixed(d.clone()).is(1)));
                let mut last = -1;
                moved.all(|p| std::mem::replace(&mut last, *p) < *p).then_some(Dim::ZERO)
            }
            OpKind::Slice if self.options.slices => {
                let axis = usize::try_from(op.attrs.int("axis")).ok()?;
                if op.attrs.int("stride") != 1 || !self.leading_are_one(source, op.attrs.int("axis")) {
                    return None;
                }
                let row = djinn_ir::dim::product(from.shape.get(axis + 1..)?);
                let start = op.attrs.dim("start");
                Some(&(&start * &row) * &Dim::from(from.dtype.size()))
            }
            _ => None,
        }
    }

    /// Do all axes before `axis` have one element?
    fn leading_are_one(&self, v: ValueId, axis: i64) -> bool {
        let leading = usize::try_from(axis).ok().and_then(|axis| self.graph.ty(v).shape.get(..axis));
        leading.is_some_and(|sizes| sizes.iter().all(|d| self.fixed(d.clone()).is(1)))
    }
}
