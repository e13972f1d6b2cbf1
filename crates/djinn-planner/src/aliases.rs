//! Which values may share bytes, seen from what the operations mean: the judge of what storage decided.
//!
//! Shares no code with `djinn-lifetime`: the rules are those of the operations, the places those of the plan.

use djinn_ir::dim::product;
use djinn_ir::ops::{CostClass, traits};
use djinn_ir::{Dim, Graph, Op, OpId, OpKind, Symbol, SymbolInfo, SymbolTable, ValueId};
use djinn_plan::{Entry, Kernel, Operand, Plan, Port, View};

/// The sizes of one entry of a plan.
pub(crate) struct Sizes(SymbolTable);

impl Sizes {
    pub(crate) fn of(entry: &Entry) -> Self {
        let mut table = SymbolTable::default();
        for range in &entry.symbols {
            let symbol = Symbol::new(&range.name);
            let info = SymbolInfo { min: range.min, max: Some(range.max), ..SymbolInfo::default() };
            table.0.insert(symbol, info);
        }
        Sizes(table)
    }

    /// The symbols and their ranges.
    pub(crate) fn symbols(&self) -> &SymbolTable {
        &self.0
    }

    /// The one number that an expression is at all sizes.
    fn number(&self, dim: &Dim) -> Option<i64> {
        match self.settled(dim).bounds(&self.0) {
            (Some(low), Some(high)) if low == high => Some(low),
            _ => None,
        }
    }

    /// The expression with a number for every symbol of one size only: factors that are one would keep equal
    /// products from being seen to be equal.
    fn settled(&self, dim: &Dim) -> Dim {
        dim.substitute(&|symbol| {
            let range = self.0.0.get(symbol)?;
            (range.max == Some(range.min)).then(|| Dim::from(range.min))
        })
    }

    fn equal(&self, a: &Dim, b: &Dim) -> bool {
        a == b || self.number(&(&self.settled(a) - &self.settled(b))) == Some(0)
    }

    fn same_shape(&self, graph: &Graph, a: ValueId, b: ValueId) -> bool {
        let (a, b) = (&graph.ty(a).shape, &graph.ty(b).shape);
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.equal(a, b))
    }

    /// Have all axes before this one a single element?
    fn is_outermost(&self, graph: &Graph, v: ValueId, axis: i64) -> bool {
        let outer = usize::try_from(axis).ok().and_then(|axis| graph.ty(v).shape.get(..axis));
        outer.is_some_and(|sizes| sizes.iter().all(|d| self.number(d) == Some(1)))
    }

    /// Are the bytes of these parts at these places, one after the other as the operation has it, its result?
    pub(crate) fn is_alias(&self, graph: &Graph, op: &Op, value: &Operand, of: &[Operand]) -> bool {
        let starts = match op.kind {
            OpKind::Concat => self.concatenated(graph, op),
            // The part begins before the result.
            _ => self.begins(graph, op).and_then(|n| n.checked_neg()).map(|n| vec![n]),
        };
        let Some(starts) = starts.filter(|starts| starts.len() == of.len()) else { return false };
        let at = |view: &View| i128::from(view.offset);
        of.iter().zip(starts).all(|(part, start)| {
            part.view.buffer == value.view.buffer && at(&part.view) == at(&value.view) + i128::from(start)
        })
    }

    /// The first bytes of the operands of a concatenation in its result.
    fn concatenated(&self, graph: &Graph, op: &Op) -> Option<Vec<i64>> {
        if !self.is_outermost(graph, op.results[0], op.attrs.int("axis")) {
            return None;
        }
        let mut starts = Vec::new();
        let mut at = 0i64;
        for (i, v) in op.operands.iter().enumerate() {
            starts.push(at);
            if i + 1 < op.operands.len() {
                at = at.checked_add(self.number(&bytes(graph, *v))?)?;
            }
        }
        Some(starts)
    }

    /// The first byte of an operation's first operand that is in its result, if the result is bytes of it.
    fn begins(&self, graph: &Graph, op: &Op) -> Option<i64> {
        let (source, result) = (*op.operands.first()?, *op.results.first()?);
        let (from, to) = (graph.ty(source), graph.ty(result));
        let unchanged = match op.kind {
            OpKind::Reshape | OpKind::DynamicReshape | OpKind::BitCast => {
                self.equal(&bytes(graph, source), &bytes(graph, result))
            }
            OpKind::Transfer => true,
            OpKind::Cast | OpKind::Broadcast => {
                from.dtype == to.dtype && self.same_shape(graph, source, result)
            }
            OpKind::Transpose => {
                let is_one = |axis: &i64| {
                    let size = usize::try_from(*axis).ok().and_then(|a| from.shape.get(a));
                    size.is_some_and(|d| self.number(d) == Some(1))
                };
                let axes: Vec<i64> = op.attrs.ints("perm").iter().copied().filter(|a| !is_one(a)).collect();
                axes.is_sorted()
            }
            OpKind::Slice => {
                let axis = op.attrs.int("axis");
                if op.attrs.int("stride") != 1 || !self.is_outermost(graph, source, axis) {
                    return None;
                }
                let row = product(from.shape.get(usize::try_from(axis).ok()? + 1..)?);
                let start = &op.attrs.dim("start") * &row;
                return self.number(&(&start * &Dim::from(from.dtype.size())));
            }
            _ => false,
        };
        unchanged.then_some(0)
    }

    /// May a kernel of these operations write where it reads? It may replace an operand element by element, or
    /// change some elements of the one that it scatters to and reads for nothing else.
    pub(crate) fn may_overwrite(
        &self,
        plan: &Plan,
        graph: &Graph,
        ops: &[OpId],
        kernel: &Kernel,
        read: (ValueId, &View),
        write: (ValueId, &View),
    ) -> bool {
        let (from, to) = (read.0, write.0);
        if read.1 != write.1 || graph.ty(from).dtype.size() != graph.ty(to).dtype.size() {
            return false;
        }
        let elementwise = |id: &OpId| {
            let (op, def) = (graph.op(*id), graph.op(*id).kind.def());
            let of_this_shape = op.results.iter().all(|r| self.same_shape(graph, *r, to));
            def.cost == CostClass::Elementwise && def.has(traits::BROADCAST) && of_this_shape
        };
        if ops.iter().all(elementwise) {
            return self.equal(&graph.ty(from).numel(), &graph.ty(to).numel());
        }
        let scatters = graph.definition(to).map(|(id, _)| graph.op(id)).is_some_and(|op| {
            let kind = matches!(op.kind, OpKind::IndexCopy | OpKind::ScatterNd | OpKind::ScatterElements);
            kind && op.operands.first() == Some(&from)
        });
        let uses = ops.iter().flat_map(|id| &graph.op(*id).operands).filter(|v| **v == from).count();
        let readers = kernel.reads.iter().filter(|r| overlap(plan, &r.view, write.1)).count();
        scatters && uses == 1 && readers == 1
    }
}

/// Does a kernel of these operations append to an input that stays on its device? It writes `write`, an output that stays
/// there too, from the first byte of `read` on, and reads of these bytes nothing else, and `read` for nothing else.
pub(crate) fn appends(
    plan: &Plan,
    entry: &Entry,
    graph: &Graph,
    ops: &[OpId],
    kernel: &Kernel,
    (read, write): (&Operand, &Operand),
    (from, to): (ValueId, ValueId),
) -> bool {
    let stays = |ports: &[Port], operand: &Operand| {
        ports.iter().any(|p| p.resident && p.value == operand.value && p.view == Some(operand.view))
    };
    let in_place = read.view.buffer == write.view.buffer
        && read.view.offset == write.view.offset
        && read.view.bytes <= write.view.bytes;
    let made = graph.definition(to).map(|(id, _)| id).filter(|id| ops.contains(id)).map(|id| graph.op(id));
    let renews = made.is_some_and(|op| op.kind == OpKind::Concat && op.operands.first() == Some(&from));
    let operands = || ops.iter().flat_map(|id| &graph.op(*id).operands);
    let once = operands().filter(|v| **v == from).count() == 1 && operands().all(|v| *v != to);
    let reads = kernel.reads.iter().filter(|r| overlap(plan, &r.view, &write.view)).count();
    let writes = kernel.writes.iter().filter(|w| overlap(plan, &w.view, &write.view)).count();
    let alone = reads == 1 && writes == 1 && kernel.engine.is_none();
    in_place && renews && once && alone && stays(&entry.inputs, read) && stays(&entry.outputs, write)
}

/// Do two views share bytes, be it through one buffer or two at the same place of an arena?
pub(crate) fn overlap(plan: &Plan, a: &View, b: &View) -> bool {
    let place = |v: &View| {
        let buffer = plan.buffers.get(v.buffer.index())?;
        Some((buffer.arena, buffer.offset.saturating_add(v.offset)))
    };
    let (Some((arena, start)), Some((other, begin))) = (place(a), place(b)) else { return true };
    let (end, finish) = (start.saturating_add(a.bytes), begin.saturating_add(b.bytes));
    arena == other && start < finish && begin < end
}

fn bytes(graph: &Graph, v: ValueId) -> Dim {
    let ty = graph.ty(v);
    &ty.numel() * &Dim::from(ty.dtype.size())
}
