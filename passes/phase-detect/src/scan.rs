//! A graph with what every search asks of it: which values are known ahead of time, which are results, and the
//! walks from a value back to where it comes from.

use djinn_ir::graph::{Definition, Op};
use djinn_ir::{Graph, OpId, OpKind, ValueId};

/// Steps of one walk, at most. Real models need fewer than 20 between an input and what recognises it.
pub(crate) const MAX_STEPS: usize = 64;

/// A graph and facts about its values, indexed by value number.
pub(crate) struct Scan<'a> {
    pub(crate) graph: &'a Graph,
    ahead: Vec<bool>,
    fed: Vec<bool>,
    result: Vec<bool>,
}

impl<'a> Scan<'a> {
    /// Looks at a graph once, in order.
    pub(crate) fn new(graph: &'a Graph) -> Self {
        let mut ahead = vec![false; graph.value_capacity()];
        let mut fed = vec![false; graph.value_capacity()];
        graph.arguments.iter().for_each(|v| fed[v.0 as usize] = true);
        for (_, op) in graph.ops() {
            if op.operands.iter().any(|v| fed[v.0 as usize]) {
                op.results.iter().for_each(|v| fed[v.0 as usize] = true);
            }
            let known = matches!(op.kind, OpKind::Weight | OpKind::Constant)
                || (!op.operands.is_empty()
                    && op.regions.is_empty()
                    && op.kind != OpKind::Opaque
                    && op.operands.iter().all(|v| ahead[v.0 as usize]));
            if known {
                op.results.iter().for_each(|v| ahead[v.0 as usize] = true);
            }
        }
        let mut result = vec![false; graph.value_capacity()];
        graph.results.iter().for_each(|v| result[v.0 as usize] = true);
        Scan { graph, ahead, fed, result }
    }

    /// Does the value depend on weights and constants only?
    pub(crate) fn is_ahead(&self, v: ValueId) -> bool {
        self.ahead[v.0 as usize]
    }

    /// Does the value depend on an argument? Positions that are only counted do not, nor does what is known ahead.
    pub(crate) fn is_fed(&self, v: ValueId) -> bool {
        self.fed[v.0 as usize]
    }

    /// Is the value a result of the graph?
    pub(crate) fn is_result(&self, v: ValueId) -> bool {
        self.result[v.0 as usize]
    }

    /// The operation that makes the value; `None` for arguments.
    pub(crate) fn maker(&self, v: ValueId) -> Option<(OpId, &'a Op)> {
        let (id, _) = self.graph.definition(v)?;
        Some((id, self.graph.op(id)))
    }

    /// The number of the argument that the value is.
    pub(crate) fn argument(&self, v: ValueId) -> Option<usize> {
        match self.graph.value(v).def {
            Definition::Argument(i) => Some(i as usize),
            Definition::Result(..) => None,
        }
    }

    /// The rank of a value.
    pub(crate) fn rank(&self, v: ValueId) -> usize {
        self.graph.ty(v).rank()
    }

    /// Is the value one number?
    fn is_scalar(&self, v: ValueId) -> bool {
        self.graph.ty(v).shape.iter().all(|d| d.is(1))
    }

    /// The only operand that depends on an argument, if there is exactly one.
    pub(crate) fn live_operand(&self, op: &Op) -> Option<ValueId> {
        let mut live = op.operands.iter().copied().filter(|v| self.is_fed(*v));
        live.next().filter(|_| live.next().is_none())
    }

    /// One step back through operations that only move elements or scale all of them by one number.
    pub(crate) fn moved_from(&self, op: &Op) -> Option<ValueId> {
        use OpKind::{
            Broadcast, Cast, Div, DynamicBroadcast, DynamicReshape, DynamicSlice, DynamicTile, Gather, Mul,
            Reshape, Slice, Tile, Transpose,
        };
        match op.kind {
            Reshape | DynamicReshape | Transpose | Broadcast | DynamicBroadcast | Slice | DynamicSlice
            | Tile | DynamicTile | Cast | Gather => op.operands.first().copied(),
            Mul | Div => {
                let live = self.live_operand(op)?;
                op.operands.iter().all(|v| *v == live || self.is_scalar(*v)).then_some(live)
            }
            _ => None,
        }
    }

    /// One step back through preparations of an input: movement, and elementwise work with operands that no input feeds.
    pub(crate) fn prepared_from(&self, op: &Op) -> Option<ValueId> {
        use OpKind::{Concat, GatherElements, GatherNd, Pad, Reverse};
        if let Some(v) = self.moved_from(op) {
            return Some(v);
        }
        match op.kind {
            Concat | Pad | Reverse | GatherElements | GatherNd => {
                op.operands.iter().copied().find(|v| self.is_fed(*v))
            }
            _ if op.kind.def().has(djinn_ir::ops::traits::BROADCAST) => self.live_operand(op),
            _ => None,
        }
    }

    /// Walks back as long as `step` gives an operand; gives the value where it ends.
    pub(crate) fn walk(&self, from: ValueId, step: impl Fn(&Op) -> Option<ValueId>) -> ValueId {
        let mut v = from;
        for _ in 0..MAX_STEPS {
            match self.maker(v).and_then(|(_, op)| step(op)) {
                Some(next) => v = next,
                None => break,
            }
        }
        v
    }

    /// The input of which the value is a preparation.
    pub(crate) fn input_of(&self, v: ValueId) -> Option<ValueId> {
        let end = self.walk(v, |op| self.prepared_from(op));
        self.graph.is_argument(end).then_some(end)
    }
}
