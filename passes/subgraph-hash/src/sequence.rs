//! A body as a sequence of tokens.
//!
//! Operations that may be moved into a function, in order of execution; two have the same token if and only if they
//! are the same but for which values they work on. Weights, literals and what is known ahead of time have no place of
//! their own in the sequence: they belong to whoever uses them.

use djinn_ir::ops::traits;
use djinn_ir::{Function, Graph, Op, OpId, OpKind, ValueId, walk};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};

/// The sequence of one body.
pub(crate) struct Sequence {
    /// The operations.
    pub ops: Vec<OpId>,
    /// Their tokens.
    pub tokens: Vec<u32>,
    /// Which values are known ahead of time, by value number.
    pub ahead: Vec<bool>,
    /// How many values are made before each position and used at or after it; one entry more than operations.
    pub cuts: Vec<u32>,
}

impl Sequence {
    /// The sequence of a function's body. Operations in `blocked` are like no other.
    pub(crate) fn new(function: &Function, blocked: &BTreeSet<OpId>) -> Sequence {
        let graph = &function.graph;
        let ahead = walk::function_ahead_of_time(function);
        let mut sequence = Sequence { ops: Vec::new(), tokens: Vec::new(), ahead, cuts: Vec::new() };
        let mut seen: HashMap<u64, Vec<(OpId, u32)>> = HashMap::new();
        let mut next = 0;
        for (id, op) in graph.ops() {
            if is_source(op) || sequence.is_ahead(op) {
                continue;
            }
            let mut token = None;
            if !blocked.contains(&id) && may_move(op) {
                let alike = seen.entry(sequence.hash(graph, op)).or_default();
                let same = |other: &OpId| sequence.same(graph, op, graph.op(*other));
                token = alike.iter().find(|(other, _)| same(other)).map(|(_, token)| *token);
                if token.is_none() {
                    alike.push((id, next));
                }
            }
            sequence.ops.push(id);
            sequence.tokens.push(token.unwrap_or_else(|| {
                next += 1;
                next - 1
            }));
        }
        sequence.cuts = sequence.count_cuts(graph);
        sequence
    }

    /// Is everything that the operation gives known ahead of time?
    pub(crate) fn is_ahead(&self, op: &Op) -> bool {
        !op.results.is_empty() && op.results.iter().all(|v| self.ahead[v.0 as usize])
    }

    fn hash(&self, graph: &Graph, op: &Op) -> u64 {
        let mut h = DefaultHasher::new();
        (op.kind, &op.attrs, &op.annotations, op.results.len()).hash(&mut h);
        for v in &op.operands {
            (graph.ty(*v), self.ahead[v.0 as usize]).hash(&mut h);
        }
        h.finish()
    }

    fn same(&self, graph: &Graph, a: &Op, b: &Op) -> bool {
        let types = |x: &[ValueId], y: &[ValueId]| {
            x.len() == y.len() && x.iter().zip(y).all(|(v, w)| graph.ty(*v) == graph.ty(*w))
        };
        let ahead = |v: &ValueId| self.ahead[v.0 as usize];
        a.kind == b.kind
            && a.attrs == b.attrs
            && a.annotations == b.annotations
            && types(&a.operands, &b.operands)
            && types(&a.results, &b.results)
            && a.operands.iter().map(ahead).eq(b.operands.iter().map(ahead))
    }

    fn count_cuts(&self, graph: &Graph) -> Vec<u32> {
        let mut made = vec![None; graph.value_capacity()];
        let mut last = vec![0usize; graph.value_capacity()];
        for (i, id) in self.ops.iter().enumerate() {
            let op = graph.op(*id);
            op.operands.iter().for_each(|v| last[v.0 as usize] = i);
            op.results.iter().for_each(|v| made[v.0 as usize] = Some(i));
        }
        let mut steps = vec![0i64; self.ops.len() + 2];
        for (made, last) in made.iter().zip(&last) {
            if let Some(made) = made.filter(|made| last > made) {
                steps[made + 1] += 1;
                steps[last + 1] -= 1;
            }
        }
        steps.pop();
        let mut live = 0;
        let running = steps.iter().map(|step| {
            live += step;
            u32::try_from(live).unwrap_or(u32::MAX)
        });
        running.collect()
    }
}

/// Is it a value out of nothing: a weight, a literal, a size?
pub(crate) fn is_source(op: &Op) -> bool {
    matches!(op.kind, OpKind::Weight | OpKind::Constant | OpKind::DimExpr)
}

/// May a function hold it? Operations with regions, calls, unknown operations and such that give symbols their values
/// stay where they are.
pub(crate) fn may_move(op: &Op) -> bool {
    let def = op.kind.def();
    def.has(traits::PURE)
        && !def.has(traits::DATA_DEPENDENT)
        && op.regions.is_empty()
        && !op.results.is_empty()
}
