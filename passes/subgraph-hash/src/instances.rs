//! Instances of a region that comes again, and the function that stands for all of them.
//!
//! Instances correspond operation by operation. Where they use values from outside, one argument stands for the values
//! that all of them use in one place; where that is the same literal or weight in all instances, it stays in the
//! function; what is computed ahead of time for one instance alone goes into the function too.

use crate::scopes::{self, Parts};
use crate::sequence::{Sequence, is_source, may_move};
use djinn_diag::{Result, internal};
use djinn_ir::ops::{CostClass, traits};
use djinn_ir::{
    ArgumentKind, Attr, Attrs, Function, Graph, Location, Op, OpId, OpKind, Patch, ResultKind, TensorType,
    ValueId, Visibility,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Operations ahead of time that feed one another and are followed into an instance, at most.
const MAX_AHEAD_DEPTH: usize = 64;

/// Cheap operations on the way to a value that all instances share (a mask, say) and that are done anew in the
/// function, where rules can see them, at most: one after the other, and in all. Inlining merges them again.
const MAX_SHARED_DEPTH: usize = 16;
const MAX_SHARED: usize = 96;

/// A region that was made a function.
pub(crate) struct Outlined {
    /// The function.
    pub function: Function,
    /// The patch that calls it.
    pub patch: Patch,
    /// How often it is called.
    pub instances: usize,
}

/// Where an operand comes from, seen from its instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// This result of this member.
    Inside(u32, u32),
    /// Known ahead of time.
    Ahead,
    /// Anything else.
    Outside,
}

/// Who uses an operation ahead of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Nobody,
    Instance(u32),
    Others,
}

impl Owner {
    fn join(self, other: Owner) -> Owner {
        match (self, other) {
            (Owner::Nobody, o) | (o, Owner::Nobody) => o,
            (a, b) if a == b => a,
            _ => Owner::Others,
        }
    }
}

/// Corresponding operations of a function.
pub(crate) struct Instances<'a> {
    graph: &'a Graph,
    sequence: &'a Sequence,
    /// Operations by instance and place in the region.
    members: Vec<Vec<OpId>>,
    /// Instance and place of every member, by number of the operation.
    places: BTreeMap<OpId, (u32, u32)>,
    /// By number of the operation, for those that are known ahead of time.
    owners: Vec<Owner>,
}

impl<'a> Instances<'a> {
    /// [`Instances::alike`] as a function can stand for them.
    pub(crate) fn new(
        function: &'a Function,
        sequence: &'a Sequence,
        members: Vec<Vec<OpId>>,
    ) -> Instances<'a> {
        let mut this = Instances::alike(function, sequence, members);
        this.leave_siblings_outside();
        this.owners = this.find_owners();
        this
    }

    /// Keeps of the members those instances that are connected alike: the largest group of such.
    pub(crate) fn alike(
        function: &'a Function,
        sequence: &'a Sequence,
        members: Vec<Vec<OpId>>,
    ) -> Instances<'a> {
        let mut this = Instances {
            graph: &function.graph,
            sequence,
            members,
            places: BTreeMap::new(),
            owners: Vec::new(),
        };
        this.number();
        let mut groups: BTreeMap<Vec<Source>, Vec<usize>> = BTreeMap::new();
        for k in 0..this.members.len() {
            groups.entry(this.connections(k)).or_default().push(k);
        }
        let largest = groups.into_values().max_by_key(|g| (g.len(), std::cmp::Reverse(g[0])));
        let kept = largest.unwrap_or_default();
        if kept.len() < this.members.len() {
            this.members = kept.into_iter().map(|k| std::mem::take(&mut this.members[k])).collect();
            this.number();
        }
        this
    }

    /// The operations of every instance, in corresponding order.
    pub(crate) fn members(&self) -> &[Vec<OpId>] {
        &self.members
    }

    /// Takes products of a value that all instances share out of them, with their biases: where they are, they can be
    /// merged with those of the other instances (the keys and values of cross attention, say).
    fn leave_siblings_outside(&mut self) {
        let Some(length) = self.members.first().map(Vec::len) else { return };
        let mut outside = vec![false; length];
        for t in 0..length {
            let ops: Vec<&Op> = self.members.iter().map(|m| self.graph.op(m[t])).collect();
            let cost = ops[0].kind.def().cost;
            let mut products = 0;
            let free = (0..ops[0].operands.len()).all(|j| {
                let of = |k: usize| ops[k].operands[j];
                match self.source(0, of(0)) {
                    Source::Ahead => true,
                    Source::Outside => {
                        cost == CostClass::Contraction && (0..ops.len()).all(|k| of(k) == of(0))
                    }
                    Source::Inside(from, _) => {
                        products += 1;
                        cost == CostClass::Elementwise && outside[from as usize]
                    }
                }
            });
            outside[t] = free && (cost == CostClass::Contraction || products == 1);
        }
        if outside.contains(&true) {
            for members in &mut self.members {
                let mut t = 0;
                members.retain(|_| {
                    t += 1;
                    !outside[t - 1]
                });
            }
            self.number();
        }
    }

    fn number(&mut self) {
        self.places.clear();
        for (k, members) in self.members.iter().enumerate() {
            for (t, id) in members.iter().enumerate() {
                self.places.insert(*id, (k as u32, t as u32));
            }
        }
    }

    fn source(&self, instance: u32, v: ValueId) -> Source {
        if self.sequence.ahead[v.0 as usize] {
            return Source::Ahead;
        }
        match self.graph.definition(v).map(|(op, r)| (self.places.get(&op), r)) {
            Some((Some((k, t)), r)) if *k == instance => Source::Inside(*t, r as u32),
            _ => Source::Outside,
        }
    }

    /// The operands of a member; of a commutative operation, those from inside come first.
    fn operands(&self, instance: u32, op: &Op) -> Vec<ValueId> {
        let mut operands = op.operands.clone();
        if op.kind.def().has(traits::COMMUTATIVE) {
            operands.sort_by_key(|v| self.source(instance, *v));
        }
        operands
    }

    /// The operands of corresponding members: in their own order, unless that of some commutative operation is another.
    fn slots(&self, ops: &[&Op]) -> Vec<Vec<ValueId>> {
        let sources =
            |k: usize| -> Vec<Source> { ops[k].operands.iter().map(|v| self.source(k as u32, *v)).collect() };
        let first = sources(0);
        if (1..ops.len()).all(|k| sources(k) == first) {
            return ops.iter().map(|op| op.operands.clone()).collect();
        }
        ops.iter().zip(0..).map(|(op, k)| self.operands(k, op)).collect()
    }

    fn connections(&self, k: usize) -> Vec<Source> {
        let ops = self.members[k].iter().map(|id| self.graph.op(*id));
        ops.flat_map(|op| self.operands(k as u32, op)).map(|v| self.source(k as u32, v)).collect()
    }

    /// For every operation ahead of time the one instance that uses it, if it is one.
    fn find_owners(&self) -> Vec<Owner> {
        let mut of_values = vec![Owner::Nobody; self.graph.value_capacity()];
        self.graph.results.iter().for_each(|v| of_values[v.0 as usize] = Owner::Others);
        let mut owners = Vec::new();
        for (id, op) in self.graph.ops().rev() {
            let owner = match self.places.get(&id) {
                Some((k, _)) => Owner::Instance(*k),
                None if self.sequence.is_ahead(op) => {
                    op.results.iter().fold(Owner::Nobody, |o, v| o.join(of_values[v.0 as usize]))
                }
                None => Owner::Others,
            };
            for v in &op.operands {
                let slot = &mut of_values[v.0 as usize];
                *slot = slot.join(owner);
            }
            let i = id.0 as usize;
            if owners.len() <= i {
                owners.resize(i + 1, Owner::Nobody);
            }
            owners[i] = owner;
        }
        owners
    }

    /// The function and the patch that calls it; `None` if fewer instances than wanted are connected alike.
    ///
    /// # Errors
    /// Internal diagnostics if the graph is not well formed.
    pub(crate) fn outline(&self, name: &Arc<str>, min_instances: usize) -> Result<Option<Outlined>> {
        let results = self.results();
        if self.members.len() < min_instances || self.members[0].is_empty() || results.is_empty() {
            return Ok(None);
        }
        let mut body = Body::new(self);
        let mut made: Vec<Vec<ValueId>> = Vec::new();
        for t in 0..self.members[0].len() {
            let ops: Vec<&Op> = self.members.iter().map(|m| self.graph.op(m[t])).collect();
            let slots = self.slots(&ops);
            let mut operands = Vec::new();
            for (j, v) in slots[0].iter().enumerate() {
                operands.push(match self.source(0, *v) {
                    Source::Inside(t, r) => made[t as usize][r as usize],
                    Source::Ahead | Source::Outside => body.outer(slots.iter().map(|s| s[j]).collect(), 0),
                });
            }
            made.push(body.emit(&ops, operands));
        }
        body.graph.results = results.iter().map(|(t, r)| made[*t][*r]).collect();
        let patch = self.calls(name, &body, &results)?;
        let named = |prefix: &str, i: usize| Arc::from(format!("{prefix}{i}"));
        let arguments = body.arguments.iter().enumerate().map(|(i, tuple)| match self.all_ahead(tuple) {
            true => (named("w", i), ArgumentKind::Weight),
            false => (named("x", i), ArgumentKind::Input),
        });
        let function = Function {
            name: Arc::clone(name),
            visibility: Visibility::Private,
            arguments: arguments.collect(),
            results: (0..results.len()).map(|i| (named("y", i), ResultKind::Output)).collect(),
            graph: body.graph,
        };
        Ok(Some(Outlined { function, patch, instances: self.members.len() }))
    }

    fn all_ahead(&self, tuple: &[ValueId]) -> bool {
        tuple.iter().all(|v| self.sequence.ahead[v.0 as usize])
    }

    /// Results of members (by place and number) that some instance's surroundings use.
    fn results(&self) -> Vec<(usize, usize)> {
        let mut outside: BTreeSet<(usize, usize)> = BTreeSet::new();
        let mut note = |v: &ValueId, user: Option<u32>| {
            if let Some((op, r)) = self.graph.definition(*v)
                && let Some((k, t)) = self.places.get(&op)
                && user != Some(*k)
            {
                outside.insert((*t as usize, r));
            }
        };
        for (id, op) in self.graph.ops() {
            let user = self.places.get(&id).map(|(k, _)| *k);
            op.operands.iter().for_each(|v| note(v, user));
        }
        self.graph.results.iter().for_each(|v| note(v, None));
        outside.into_iter().collect()
    }

    /// Puts a call in the place of every instance.
    fn calls(&self, name: &str, body: &Body<'_, 'a>, results: &[(usize, usize)]) -> Result<Patch> {
        let mut patch = Patch::new(crate::OUTLINE.name, self.graph);
        let types: Vec<TensorType> = body.graph.results.iter().map(|v| body.graph.ty(*v).clone()).collect();
        let attrs = Attrs::new().with("callee", name).with("types", types);
        // Operations of a patch keep their operands, so calls name the results of earlier ones themselves.
        let mut replaced: BTreeMap<ValueId, ValueId> = BTreeMap::new();
        for (k, members) in self.members.iter().enumerate() {
            let scopes = members.iter().filter_map(|id| self.graph.op(*id).location.scope.as_deref());
            let location = Location { scope: scopes::common_scope(scopes), source: None };
            patch.locate(location, body.parts.annotations(k));
            let given = body.arguments.iter().map(|tuple| tuple[k]);
            let operands: Vec<ValueId> = given.map(|v| replaced.get(&v).copied().unwrap_or(v)).collect();
            let new = patch.op_full(self.graph, OpKind::Call, &operands, attrs.clone(), Vec::new())?;
            for ((t, r), new) in results.iter().zip(new) {
                let old = self.graph.op(members[*t]).results.get(*r);
                let old = old.ok_or_else(|| internal("outline.result", "instances have other results"))?;
                patch.replace(*old, new);
                replaced.insert(*old, new);
            }
        }
        Ok(patch)
    }
}

/// The body of the function while it is made.
struct Body<'i, 'a> {
    instances: &'i Instances<'a>,
    graph: Graph,
    /// What stands for the values that the instances have in one place.
    known: BTreeMap<Vec<ValueId>, ValueId>,
    /// For every argument, the values that the instances give.
    arguments: Vec<Vec<ValueId>>,
    parts: Parts<'a>,
    /// Operations that may yet be done anew for values that all instances share.
    shared_left: usize,
}

impl<'i, 'a> Body<'i, 'a> {
    fn new(instances: &'i Instances<'a>) -> Self {
        Body {
            instances,
            graph: Graph::new(),
            known: BTreeMap::new(),
            arguments: Vec::new(),
            parts: Parts::default(),
            shared_left: MAX_SHARED,
        }
    }

    /// One operation for those of all instances.
    fn emit(&mut self, ops: &[&'a Op], operands: Vec<ValueId>) -> Vec<ValueId> {
        let locations: Vec<&'a Location> = ops.iter().map(|op| &op.location).collect();
        let location = self.parts.common(&locations);
        let types = ops[0].results.iter().map(|v| self.instances.graph.ty(*v).clone()).collect();
        let id = self.graph.push(ops[0].kind, operands, ops[0].attrs.clone(), Vec::new(), types, location);
        for (name, value) in &ops[0].annotations {
            self.graph.annotate(id, name, Attr::clone(value));
        }
        self.graph.op(id).results.clone()
    }

    /// What stands for values that the instances have from outside.
    fn outer(&mut self, tuple: Vec<ValueId>, depth: usize) -> ValueId {
        if let Some(v) = self.known.get(&tuple) {
            return *v;
        }
        let inner = self.moved(&tuple, depth);
        let v = inner.unwrap_or_else(|| {
            let v = self.graph.add_argument(self.instances.graph.ty(tuple[0]).clone());
            self.arguments.push(tuple.clone());
            v
        });
        self.known.insert(tuple, v);
        v
    }

    /// The operation that stands for those that give these values, if it can go into the function.
    fn moved(&mut self, tuple: &[ValueId], depth: usize) -> Option<ValueId> {
        let instances = self.instances;
        let graph = instances.graph;
        let definitions: Vec<(OpId, usize)> =
            tuple.iter().map(|v| graph.definition(*v)).collect::<Option<_>>()?;
        let ops: Vec<&'a Op> = definitions.iter().map(|(id, _)| graph.op(*id)).collect();
        let (first, r) = (ops[0], definitions[0].1);
        let alike = |op: &&Op| {
            op.kind == first.kind
                && op.attrs == first.attrs
                && op.annotations == first.annotations
                && op.operands.len() == first.operands.len()
        };
        if !ops.iter().all(alike) || definitions.iter().any(|(_, other)| *other != r) {
            return None;
        }
        let mut operands = Vec::new();
        if !is_source(first) {
            let own = |((id, _), k): (&(OpId, usize), u32)| {
                instances.owners.get(id.0 as usize) == Some(&Owner::Instance(k))
            };
            let owned = instances.all_ahead(tuple)
                && depth < MAX_AHEAD_DEPTH
                && first.results.len() == 1
                && definitions.iter().zip(0..).all(own);
            let shared = !owned
                && tuple.iter().all(|v| *v == tuple[0])
                && depth < MAX_SHARED_DEPTH
                && self.shared_left > 0
                && is_cheap(first);
            self.shared_left -= usize::from(shared);
            let movable = owned || shared;
            let same_types =
                |j: usize| ops.iter().all(|op| graph.ty(op.operands[j]) == graph.ty(first.operands[j]));
            if !movable || !(0..first.operands.len()).all(same_types) {
                return None;
            }
            for j in 0..first.operands.len() {
                operands.push(self.outer(ops.iter().map(|op| op.operands[j]).collect(), depth + 1));
            }
        }
        self.emit(&ops, operands).get(r).copied()
    }
}

/// May it be done anew without harm?
fn is_cheap(op: &Op) -> bool {
    let def = op.kind.def();
    let cheap = matches!(def.cost, CostClass::Free | CostClass::Copy | CostClass::Elementwise);
    cheap && may_move(op) && op.results.len() == 1 && op.kind != OpKind::Transfer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_joined() {
        let (a, b) = (Owner::Instance(1), Owner::Instance(2));
        assert_eq!(Owner::Nobody.join(a), a);
        assert_eq!(a.join(a), a);
        assert_eq!(a.join(b), Owner::Others);
        assert_eq!(a.join(Owner::Others), Owner::Others);
    }
}
