//! The one way to change a graph.
//!
//! A [`Patch`] is made for one graph in one state. It collects new operations (typed through
//! [`crate::infer`]), replacements of values, new results and annotations, and [`Patch::apply`] carries them out
//! together or not at all: the types of replaced values must agree, the result must have no cycle, and the order of
//! execution stays as it was wherever the new operands allow it. Every patch has a name, is counted, and uses
//! [`Fuel`], so that a wrong rewrite can be found by bisection.

use crate::attr::{Attr, Attrs};
use crate::dim::Dim;
use crate::graph::{Definition, Graph, Location, Op, OpId, Value, ValueId};
use crate::infer::infer;
use crate::ops::{OpKind, traits};
use crate::types::TensorType;
use djinn_diag::{Context, Result, internal};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many more rewrites are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fuel {
    left: Option<u64>,
    used: u64,
}

impl Default for Fuel {
    fn default() -> Self {
        Fuel::unlimited()
    }
}

impl Fuel {
    /// Any number of rewrites.
    pub fn unlimited() -> Self {
        Fuel { left: None, used: 0 }
    }

    /// This many rewrites.
    pub fn limited(rewrites: u64) -> Self {
        Fuel { left: Some(rewrites), used: 0 }
    }

    /// How many are left; `None` if there is no limit.
    pub fn left(&self) -> Option<u64> {
        self.left
    }

    /// How many were used.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Is nothing left?
    pub fn is_exhausted(&self) -> bool {
        self.left == Some(0)
    }

    fn allows(&self, amount: u64) -> bool {
        self.left.is_none_or(|left| left >= amount)
    }

    fn take(&mut self, amount: u64) {
        self.left = self.left.map(|left| left.saturating_sub(amount));
        self.used = self.used.saturating_add(amount);
    }
}

/// What became of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchOutcome {
    /// The graph was changed.
    Applied,
    /// There was nothing to do; no fuel was used.
    NothingToDo,
    /// There was not enough fuel; the graph is as it was.
    OutOfFuel,
}

/// What [`Patch::apply`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchReport {
    /// Name of the patch: the rule or pass.
    pub name: Arc<str>,
    /// What became of it.
    pub outcome: PatchOutcome,
    /// Operations added.
    pub added: usize,
    /// Values replaced.
    pub replaced: usize,
    /// Operations removed.
    pub removed: usize,
}

impl PatchReport {
    fn new(name: &Arc<str>, outcome: PatchOutcome) -> Self {
        PatchReport { name: Arc::clone(name), outcome, added: 0, replaced: 0, removed: 0 }
    }

    /// Was the graph changed?
    pub fn changed(&self) -> bool {
        self.outcome == PatchOutcome::Applied
    }
}

/// A change to one graph, collected first and applied as a whole.
///
/// The ids that [`Patch::op`] gives are those that the new values have in the graph after [`Patch::apply`].
#[derive(Debug, Clone)]
pub struct Patch {
    name: Arc<str>,
    cost: u64,
    base_values: usize,
    base_ops: usize,
    values: Vec<Value>,
    ops: Vec<Op>,
    replacements: BTreeMap<ValueId, ValueId>,
    annotations: Vec<(OpId, Arc<str>, Attr)>,
    results: Option<Vec<ValueId>>,
    regions: BTreeMap<OpId, Vec<Graph>>,
    inherited: (Location, BTreeMap<Arc<str>, Attr>),
    sweep: bool,
    body: Option<Graph>,
    order: Option<Vec<OpId>>,
}

/// Replaced values with what stands for them in the end, and whether some type changes in form.
struct Resolved {
    map: BTreeMap<ValueId, ValueId>,
    retype: bool,
}

impl Resolved {
    fn get(&self, v: ValueId) -> ValueId {
        self.map.get(&v).copied().unwrap_or(v)
    }
}

impl Patch {
    /// An empty patch for `graph` as it is now. `name` is that of the rule or pass.
    pub fn new(name: &str, graph: &Graph) -> Self {
        Patch {
            name: Arc::from(name),
            cost: 1,
            base_values: graph.values.len(),
            base_ops: graph.ops.len(),
            values: Vec::new(),
            ops: Vec::new(),
            replacements: BTreeMap::new(),
            annotations: Vec::new(),
            results: None,
            regions: BTreeMap::new(),
            inherited: Default::default(),
            sweep: false,
            body: None,
            order: None,
        }
    }

    /// A patch that puts `body` in the place of the whole graph. Arguments must have equal types, results agreeing
    /// ones.
    pub fn replace_body(name: &str, body: Graph) -> Self {
        Patch { body: Some(body), ..Patch::new(name, &Graph::new()) }
    }

    /// Makes the patch use this much fuel instead of 1: one that carries out several rewrites at once.
    #[must_use]
    pub fn counts_as(mut self, rewrites: u64) -> Self {
        self.cost = rewrites;
        self
    }

    /// Would it change nothing? (A [`Patch::sweep`] may turn out to.)
    pub fn is_empty(&self) -> bool {
        self.body.is_none()
            && self.ops.is_empty()
            && self.replacements.is_empty()
            && self.annotations.is_empty()
            && self.results.is_none()
            && self.regions.is_empty()
            && !self.sweep
            && self.order.is_none()
    }

    fn value<'a>(&'a self, graph: &'a Graph, v: ValueId) -> Result<&'a Value> {
        let i = v.0 as usize;
        let value = match i.checked_sub(self.base_values) {
            None => graph.values.get(i),
            Some(i) => self.values.get(i),
        };
        value.ok_or_else(|| internal("patch.value", format!("%{i} is no value of this graph or patch")))
    }

    /// The type of a value of the graph or of this patch.
    ///
    /// # Errors
    /// An internal diagnostic for a value of neither.
    pub fn ty<'a>(&'a self, graph: &'a Graph, v: ValueId) -> Result<&'a TensorType> {
        Ok(&self.value(graph, v).at(|| self.place())?.ty)
    }

    fn place(&self) -> String {
        format!("patch '{}'", self.name)
    }

    /// Adds an operation with one result and no regions; gives its result.
    ///
    /// # Errors
    /// The constraint that it violates, see [`crate::infer`].
    pub fn op(&mut self, graph: &Graph, kind: OpKind, operands: &[ValueId], attrs: Attrs) -> Result<ValueId> {
        let results = self.op_full(graph, kind, operands, attrs, Vec::new())?;
        match results.as_slice() {
            [one] => Ok(*one),
            _ => {
                let message = format!("'{}' has {} results, not one", kind.name(), results.len());
                Err(internal("patch.results", message).at(self.place()))
            }
        }
    }

    /// Adds an operation with any number of results and regions; gives its results.
    ///
    /// # Errors
    /// The constraint that it violates, see [`crate::infer`].
    pub fn op_full(
        &mut self,
        graph: &Graph,
        kind: OpKind,
        operands: &[ValueId],
        attrs: Attrs,
        regions: Vec<Graph>,
    ) -> Result<Vec<ValueId>> {
        let types: Vec<&TensorType> = operands.iter().map(|v| self.ty(graph, *v)).collect::<Result<_>>()?;
        let inferred = infer(kind, &types, &attrs, &regions).at(|| self.place())?;
        let id = OpId((self.base_ops + self.ops.len()) as u32);
        let first = self.base_values + self.values.len();
        let results: Vec<ValueId> = (first..first + inferred.len()).map(|i| ValueId(i as u32)).collect();
        let defined =
            inferred.into_iter().zip(0..).map(|(ty, i)| Value { ty, def: Definition::Result(id, i) });
        self.values.extend(defined);
        let (location, annotations) = self.inherited.clone();
        self.ops.push(Op {
            kind,
            operands: operands.to_vec(),
            attrs,
            annotations,
            results: results.clone(),
            regions,
            location,
        });
        Ok(results)
    }

    /// Gives location and annotations of this operation to the operations added from now on.
    ///
    /// Without it, a new operation takes those of the operation whose result it replaces.
    pub fn inherit(&mut self, graph: &Graph, from: OpId) {
        if let Some(op) = graph.get_op(from) {
            self.inherited = (op.location.clone(), op.annotations.clone());
        }
    }

    /// Gives this location and these annotations to the operations added from now on, see [`Patch::inherit`].
    pub fn locate(&mut self, location: Location, annotations: BTreeMap<Arc<str>, Attr>) {
        self.inherited = (location, annotations);
    }

    /// Sets an annotation of an operation of the graph or of this patch.
    pub fn annotate(&mut self, op: OpId, name: &str, value: impl Into<Attr>) {
        self.annotations.push((op, Arc::from(name), value.into()));
    }

    /// The operation of this patch that defines `v`, if one does.
    pub fn definition(&self, v: ValueId) -> Option<OpId> {
        let value = self.values.get((v.0 as usize).checked_sub(self.base_values)?)?;
        match value.def {
            Definition::Result(op, _) => Some(op),
            Definition::Argument(_) => None,
        }
    }

    /// Uses of `old` by the graph's operations and results become uses of `new`.
    ///
    /// Operations of this patch keep the operands they were built with, so that `new` may be computed from `old`.
    pub fn replace(&mut self, old: ValueId, new: ValueId) {
        if old != new {
            self.replacements.insert(old, new);
        }
    }

    /// Makes the graph give these values, exactly as listed, whatever is replaced.
    pub fn set_results(&mut self, results: Vec<ValueId>) {
        self.results = Some(results);
    }

    /// Puts these regions in the place of those of an operation of the graph.
    pub fn set_regions(&mut self, op: OpId, regions: Vec<Graph>) {
        self.regions.insert(op, regions);
    }

    /// Makes this the order of execution: every operation of the graph once, and any of this patch. Operations of
    /// this patch that are not listed come right before what first needs them.
    pub fn reorder(&mut self, order: Vec<OpId>) {
        self.order = Some(order);
    }

    /// Also removes operations that were dead before.
    pub fn sweep(&mut self) {
        self.sweep = true;
    }

    /// Changes `graph`; on errors and without fuel it stays as it was.
    ///
    /// # Errors
    /// Internal diagnostics: `patch.stale` (the graph changed since [`Patch::new`]), `patch.value`, `patch.removed`
    /// (ids that name nothing), `patch.type` (types that do not agree), `patch.cycle`, `patch.order` (an order of
    /// execution that is not one), and the constraint of an operation that does not accept a replaced operand.
    pub fn apply(self, graph: &mut Graph, fuel: &mut Fuel) -> Result<PatchReport> {
        let name = Arc::clone(&self.name);
        self.apply_inner(graph, fuel).at(|| format!("patch '{name}'"))
    }

    fn apply_inner(mut self, graph: &mut Graph, fuel: &mut Fuel) -> Result<PatchReport> {
        if self.is_empty() {
            return Ok(PatchReport::new(&self.name, PatchOutcome::NothingToDo));
        }
        if !fuel.allows(self.cost) {
            return Ok(PatchReport::new(&self.name, PatchOutcome::OutOfFuel));
        }
        let cost = self.cost;
        let report = match self.body.take() {
            Some(body) => self.swap_body(graph, body)?,
            None => self.edit(graph)?,
        };
        if report.changed() {
            fuel.take(cost);
        }
        Ok(report)
    }

    fn swap_body(&self, graph: &mut Graph, body: Graph) -> Result<PatchReport> {
        crate::verify::verify_graph(&body)?;
        let arguments = types_of(&body, &body.arguments)?;
        if arguments != types_of(graph, &graph.arguments)? {
            return Err(internal("patch.type", "the new body has other arguments"));
        }
        let (new, old) = (types_of(&body, &body.results)?, types_of(graph, &graph.results)?);
        if new.len() != old.len() || !new.iter().zip(&old).all(|(a, b)| types_agree(a, b)) {
            return Err(internal("patch.type", "the new body has other results"));
        }
        let mut report = PatchReport::new(&self.name, PatchOutcome::Applied);
        (report.added, report.removed) = (body.len(), graph.len());
        *graph = body;
        Ok(report)
    }

    fn edit(self, graph: &mut Graph) -> Result<PatchReport> {
        if graph.values.len() != self.base_values || graph.ops.len() != self.base_ops {
            return Err(internal("patch.stale", "the graph has changed since the patch was begun"));
        }
        let resolved = self.resolve(graph)?;
        self.check_targets(graph, &resolved)?;
        let order = self.schedule(graph, &resolved)?;
        self.check_reorder(graph, &order)?;
        let mut report = PatchReport::new(&self.name, PatchOutcome::Applied);
        report.replaced = self.replacements.len();
        let backup = (resolved.retype || !self.regions.is_empty()).then(|| graph.clone());
        let added = self.ops.len();
        let sweep_only =
            added == 0 && report.replaced == 0 && self.annotations.is_empty() && self.results.is_none();
        let no_regions = self.regions.is_empty();
        let same_order = graph.order == order;
        let seeds = self.commit(graph, &resolved, order);
        if let Some(backup) = backup
            && let Err(e) = retype(graph)
        {
            *graph = backup;
            return Err(e);
        }
        let removed = remove_dead(graph, seeds);
        let kept = graph.ops[graph.ops.len() - added..].iter().filter(|op| op.is_some()).count();
        (report.added, report.removed) = (kept, removed - (added - kept));
        if sweep_only && no_regions && same_order && removed == 0 {
            report.outcome = PatchOutcome::NothingToDo;
        }
        Ok(report)
    }

    /// Follows chains of replacements and compares the types.
    fn resolve(&self, graph: &Graph) -> Result<Resolved> {
        let mut resolved = Resolved { map: BTreeMap::new(), retype: false };
        for old in self.replacements.keys() {
            let (mut new, mut steps) = (*old, 0);
            while let Some(next) = self.replacements.get(&new) {
                (new, steps) = (*next, steps + 1);
                if steps > self.replacements.len() {
                    return Err(internal("patch.cycle", format!("%{} replaces itself", old.0)));
                }
            }
            let (from, to) = (&self.value(graph, *old)?.ty, &self.value(graph, new)?.ty);
            if !types_agree(from, to) {
                return Err(internal(
                    "patch.type",
                    format!("%{} of type {from} cannot become %{} of type {to}", old.0, new.0),
                ));
            }
            resolved.retype |= from != to;
            resolved.map.insert(*old, new);
        }
        Ok(resolved)
    }

    /// Checks that everything else the patch names exists.
    fn check_targets(&self, graph: &Graph, resolved: &Resolved) -> Result<()> {
        let exists = |op: &OpId| {
            graph.get_op(*op).is_some()
                || (op.0 as usize).checked_sub(self.base_ops).is_some_and(|i| i < self.ops.len())
        };
        let mut named = self.annotations.iter().map(|(op, _, _)| op).chain(self.regions.keys());
        if let Some(op) = named.find(|op| !exists(op)) {
            return Err(internal("patch.removed", format!("operation {} does not exist", op.0)));
        }
        if let Some(results) = &self.results {
            let same_count = results.len() == graph.results.len();
            for (new, old) in results.iter().zip(&graph.results) {
                if !types_agree(&self.value(graph, *new)?.ty, &self.value(graph, *old)?.ty) {
                    return Err(internal("patch.type", "a new result of the graph has another type"));
                }
            }
            if !same_count {
                return Err(internal("patch.type", "the patch changes the number of results"));
            }
        }
        for v in self.results.as_ref().unwrap_or(&graph.results) {
            let v = if self.results.is_some() { *v } else { resolved.get(*v) };
            self.alive(graph, v)?;
        }
        Ok(())
    }

    /// The operation that defines `v` in the end; `None` for arguments.
    fn alive(&self, graph: &Graph, v: ValueId) -> Result<Option<OpId>> {
        match self.value(graph, v)?.def {
            Definition::Argument(_) => Ok(None),
            Definition::Result(op, _) if op.0 as usize >= self.base_ops => Ok(Some(op)),
            Definition::Result(op, _) if graph.get_op(op).is_some() => Ok(Some(op)),
            Definition::Result(..) => {
                Err(internal("patch.removed", format!("%{} was removed with its operation", v.0)))
            }
        }
    }

    /// The order of execution afterwards: as before, with what an operation newly needs pulled in front of it.
    fn schedule(&self, graph: &Graph, resolved: &Resolved) -> Result<Vec<OpId>> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            Unseen,
            Open,
            Done,
        }
        let mut marks = vec![Mark::Unseen; self.base_ops + self.ops.len()];
        let mut order = Vec::with_capacity(graph.order.len() + self.ops.len());
        let new_ops = (self.base_ops..self.base_ops + self.ops.len()).map(|i| OpId(i as u32));
        let mut stack: Vec<(OpId, usize)> = Vec::new();
        let roots = self.order.as_ref().unwrap_or(&graph.order);
        if let Some(op) = roots.iter().find(|op| op.0 as usize >= marks.len()) {
            return Err(internal("patch.order", format!("operation {} does not exist", op.0)));
        }
        for root in roots.iter().copied().chain(new_ops) {
            if marks[root.0 as usize] != Mark::Unseen {
                continue;
            }
            marks[root.0 as usize] = Mark::Open;
            stack.push((root, 0));
            while let Some((op, next)) = stack.last_mut() {
                let Some(operand) = self.operand(graph, resolved, *op, *next) else {
                    marks[op.0 as usize] = Mark::Done;
                    order.push(*op);
                    stack.pop();
                    continue;
                };
                *next += 1;
                let Some(needed) = self.alive(graph, operand)? else { continue };
                match marks[needed.0 as usize] {
                    Mark::Done => {}
                    Mark::Open => {
                        return Err(internal("patch.cycle", format!("%{} would need itself", operand.0)));
                    }
                    Mark::Unseen => {
                        marks[needed.0 as usize] = Mark::Open;
                        stack.push((needed, 0));
                    }
                }
            }
        }
        Ok(order)
    }

    /// Checks that a given order lists every operation of the graph once, and that it was kept.
    fn check_reorder(&self, graph: &Graph, order: &[OpId]) -> Result<()> {
        let Some(given) = &self.order else { return Ok(()) };
        let mut listed = vec![false; self.base_ops + self.ops.len()];
        for op in given {
            if std::mem::replace(&mut listed[op.0 as usize], true) {
                return Err(internal("patch.order", format!("operation {} comes twice", op.0)));
            }
        }
        if let Some(op) = graph.order.iter().find(|op| !listed[op.0 as usize]) {
            return Err(internal("patch.order", format!("operation {} is left out", op.0)));
        }
        if !order.iter().filter(|op| listed[op.0 as usize]).eq(given) {
            return Err(internal("patch.order", "an operation would come before one that it needs"));
        }
        Ok(())
    }

    /// Operand `i` of an operation afterwards.
    fn operand(&self, graph: &Graph, resolved: &Resolved, op: OpId, i: usize) -> Option<ValueId> {
        match (op.0 as usize).checked_sub(self.base_ops) {
            None => graph.get_op(op)?.operands.get(i).map(|v| resolved.get(*v)),
            Some(new) => self.ops.get(new)?.operands.get(i).copied(),
        }
    }

    /// Changes the graph; gives the operations that may have become dead.
    fn commit(mut self, graph: &mut Graph, resolved: &Resolved, order: Vec<OpId>) -> Vec<OpId> {
        self.pass_on_locations(graph, resolved);
        let mut seeds = if self.sweep { graph.order.clone() } else { Vec::new() };
        let defining = |graph: &Graph, v: &ValueId| match graph.get_value(*v)?.def {
            Definition::Result(op, _) => Some(op),
            Definition::Argument(_) => None,
        };
        for op in graph.ops.iter_mut().flatten() {
            op.operands.iter_mut().for_each(|v| *v = resolved.get(*v));
        }
        match self.results {
            Some(results) => {
                seeds.extend(graph.results.iter().filter_map(|v| defining(graph, v)));
                graph.results = results;
            }
            None => graph.results.iter_mut().for_each(|v| *v = resolved.get(*v)),
        }
        seeds.extend(resolved.map.keys().filter_map(|old| defining(graph, old)));
        graph.values.append(&mut self.values);
        seeds.extend((self.base_ops..self.base_ops + self.ops.len()).map(|i| OpId(i as u32)));
        graph.ops.extend(self.ops.into_iter().map(Some));
        graph.order = order;
        for (op, regions) in self.regions {
            if let Some(op) = graph.ops[op.0 as usize].as_mut() {
                op.regions = regions;
            }
        }
        for (op, name, value) in self.annotations {
            if let Some(op) = graph.ops[op.0 as usize].as_mut() {
                op.annotations.insert(name, value);
            }
        }
        seeds
    }

    /// New operations without location and annotations take those of the operation that they replace.
    fn pass_on_locations(&mut self, graph: &Graph, resolved: &Resolved) {
        for (old, new) in &resolved.map {
            let from = graph.get_value(*old).and_then(|v| match v.def {
                Definition::Result(op, _) => graph.get_op(op),
                Definition::Argument(_) => None,
            });
            let Some(from) = from else { continue };
            let mut stack = vec![*new];
            while let Some(v) = stack.pop() {
                let op = self.definition(v).and_then(|op| self.ops.get_mut(op.0 as usize - self.base_ops));
                let Some(op) = op else { continue };
                if op.location != Location::default() || !op.annotations.is_empty() {
                    continue;
                }
                if from.location == Location::default() && from.annotations.is_empty() {
                    continue;
                }
                (op.location, op.annotations) = (from.location.clone(), from.annotations.clone());
                stack.extend_from_slice(&op.operands);
            }
        }
    }
}

/// Do the types agree: same element type, same rank, no size provably different?
pub fn types_agree(a: &TensorType, b: &TensorType) -> bool {
    a.dtype == b.dtype && a.rank() == b.rank() && a.shape.iter().zip(&b.shape).all(|(x, y)| sizes_agree(x, y))
}

fn sizes_agree(a: &Dim, b: &Dim) -> bool {
    (a - b).as_const().is_none_or(|d| d == 0)
}

fn types_of<'a>(graph: &'a Graph, values: &[ValueId]) -> Result<Vec<&'a TensorType>> {
    let ty = |v: &ValueId| graph.get_value(*v).map(|v| &v.ty);
    let missing = |v: &ValueId| internal("patch.value", format!("%{} is no value of this graph", v.0));
    values.iter().map(|v| ty(v).ok_or_else(|| missing(v))).collect()
}

/// Infers again every result type that follows from a changed operand type or region.
fn retype(graph: &mut Graph) -> Result<()> {
    for id in graph.order.clone() {
        let Some(op) = graph.get_op(id) else { continue };
        let operands = types_of(graph, &op.operands)?;
        let types = infer(op.kind, &operands, &op.attrs, &op.regions)?;
        let (name, results) = (op.kind.name(), op.results.clone());
        if types.len() != results.len() {
            return Err(internal("patch.type", "an operation would change its number of results"));
        }
        for (v, ty) in results.into_iter().zip(types) {
            let value = &mut graph.values[v.0 as usize];
            if !types_agree(&value.ty, &ty) {
                let message = format!("the result of '{name}' would become {ty}, not {}", value.ty);
                return Err(internal("patch.type", message));
            }
            value.ty = ty;
        }
    }
    Ok(())
}

/// Must this operation stay although nothing uses its results?
///
/// Only an unknown operation without results (a print, an assertion) has an effect, or one that contains such.
pub fn has_effect(op: &Op) -> bool {
    (op.results.is_empty() && !op.kind.def().has(traits::PURE))
        || op.regions.iter().any(|r| r.ops().any(|(_, op)| has_effect(op)))
}

/// Removes those of `seeds` that are dead and what becomes dead with them; gives their number.
fn remove_dead(graph: &mut Graph, mut seeds: Vec<OpId>) -> usize {
    let mut counts = graph.use_counts();
    let mut removed = 0;
    while let Some(id) = seeds.pop() {
        let Some(op) = graph.get_op(id) else { continue };
        if op.results.iter().any(|v| counts.get(v.0 as usize).is_some_and(|c| *c > 0)) || has_effect(op) {
            continue;
        }
        for v in &op.operands {
            let (Some(count), Some(value)) = (counts.get_mut(v.0 as usize), graph.get_value(*v)) else {
                continue;
            };
            *count = count.saturating_sub(1);
            if let (0, Definition::Result(def, _)) = (*count, value.def) {
                seeds.push(def);
            }
        }
        graph.ops[id.0 as usize] = None;
        removed += 1;
    }
    if removed > 0 {
        let ops = &graph.ops;
        graph.order.retain(|id| ops[id.0 as usize].is_some());
    }
    removed
}

impl Graph {
    /// Removes operations whose results nothing uses, also inside regions; gives their number.
    pub fn eliminate_dead_code(&mut self) -> usize {
        let mut removed = 0;
        for op in self.ops.iter_mut().flatten() {
            removed += op.regions.iter_mut().map(Graph::eliminate_dead_code).sum::<usize>();
        }
        removed + remove_dead(self, self.order.clone())
    }
}

#[cfg(test)]
#[path = "patch_tests.rs"]
mod tests;
