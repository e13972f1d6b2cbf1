//! Slices: chains on several axes become one Slice, siblings that partition an axis one Split.

use super::Cx;
use crate::dims;
use crate::proto::int;
use djinn_diag::Result;
use djinn_ir::{DType, Dim, Op, OpId, OpKind, TensorType, ValueId};

/// One slice along one axis.
struct Cut {
    axis: i64,
    start: Dim,
    limit: Dim,
    stride: i64,
    size: Dim,
}

fn cut(cx: &Cx<'_, '_>, op: &Op) -> Cut {
    let axis = op.attrs.int("axis");
    let ty = cx.operand_ty(op, 0);
    let size = usize::try_from(axis).ok().and_then(|a| ty.shape.get(a)).cloned().unwrap_or(Dim::ONE);
    Cut {
        axis,
        start: op.attrs.dim("start"),
        limit: op.attrs.dim("limit"),
        stride: op.attrs.int("stride"),
        size,
    }
}

impl Cut {
    fn is_whole(&self) -> bool {
        self.start.is(0) && self.limit == self.size && self.stride == 1
    }
}

/// A slice: part of a Split, the end of a chain of slices, or a Slice of its own.
pub(super) fn slice(cx: &mut Cx<'_, '_>, id: OpId, op: &Op) -> Result<String> {
    if let Some(name) = split(cx, id, op)? {
        return Ok(name);
    }
    let mut cuts = vec![cut(cx, op)];
    let mut source = op.operands[0];
    while let Some(inner) = cx.def(source, OpKind::Slice) {
        let outer = cut(cx, inner);
        let distinct = cuts.iter().all(|c| c.axis != outer.axis);
        if !distinct || !cx.single_use(source) || partition(cx, inner).is_some() {
            break;
        }
        cuts.push(outer);
        source = inner.operands[0];
    }
    cuts.retain(|c| !c.is_whole());
    cuts.sort_by_key(|c| c.axis);
    let x = cx.name(source)?;
    if cuts.is_empty() {
        return Ok(x);
    }
    let starts: Vec<Dim> = cuts.iter().map(|c| bound(&c.start, &c.size)).collect();
    let limits: Vec<Dim> = cuts
        .iter()
        .map(|c| if c.limit == c.size { Dim::from(i64::MAX) } else { bound(&c.limit, &c.size) })
        .collect();
    let axes: Vec<i64> = cuts.iter().map(|c| c.axis).collect();
    let strides: Vec<i64> = cuts.iter().map(|c| c.stride).collect();
    let (starts, limits) = (dims::vector(cx.e, &starts)?, dims::vector(cx.e, &limits)?);
    let axes = cx.e.i64s(&axes)?;
    let strides = if strides.iter().all(|s| *s == 1) { String::new() } else { cx.e.i64s(&strides)? };
    cx.result_node(op, "Slice", &[&x, &starts, &limits, &axes, &strides], vec![])
}

/// A symbolic bound that lies a constant number of elements (at least one) before the end counts from the end.
///
/// The bounds of a slice lie between 0 and the size, so this is the same position.
fn bound(position: &Dim, size: &Dim) -> Dim {
    let from_end = (position - size).as_const().filter(|c| *c < 0);
    match (position.as_const(), from_end) {
        (None, Some(c)) => Dim::from(c),
        _ => position.clone(),
    }
}

/// The slices that together with this one partition an axis of its operand, in order.
fn partition(cx: &Cx<'_, '_>, op: &Op) -> Option<Vec<OpId>> {
    let axis = op.attrs.int("axis");
    let size = cut(cx, op).size.as_const()?;
    let mut parts: Vec<(i64, i64, OpId)> = Vec::new();
    for id in cx.users(op.operands[0]) {
        let other = cx.graph.op(*id);
        if other.kind != OpKind::Slice || other.attrs.int("axis") != axis || other.attrs.int("stride") != 1 {
            continue;
        }
        let (start, limit) = (other.attrs.dim("start").as_const()?, other.attrs.dim("limit").as_const()?);
        parts.push((start, limit, *id));
    }
    parts.sort();
    parts.dedup_by_key(|p| (p.0, p.1));
    let chained = parts.windows(2).all(|w| w[0].1 == w[1].0);
    let covers = parts.first()?.0 == 0 && parts.last()?.1 == size && parts.iter().all(|p| p.0 < p.1);
    (parts.len() > 1 && chained && covers).then(|| parts.into_iter().map(|p| p.2).collect())
}

/// Writes the Split to which this slice belongs and binds its siblings; gives this slice's part.
fn split(cx: &mut Cx<'_, '_>, id: OpId, op: &Op) -> Result<Option<String>> {
    let Some(parts) = partition(cx, op) else { return Ok(None) };
    let x = cx.name(op.operands[0])?;
    let results: Vec<ValueId> = parts.iter().map(|p| cx.graph.op(*p).results[0]).collect();
    // A slice that equals one of the parts without being it is an alias of the part.
    let same = |p: &OpId| {
        let other = &cx.graph.op(*p).attrs;
        *p == id
            || (other.dim("start") == op.attrs.dim("start") && other.dim("limit") == op.attrs.dim("limit"))
    };
    let mine = parts.iter().position(same).unwrap_or(0);
    if let Ok(name) = cx.name(results[mine]) {
        return Ok(Some(name));
    }
    let axis = op.attrs.int("axis");
    let types: Vec<TensorType> = results.iter().map(|v| cx.graph.ty(*v).clone()).collect();
    let axis_index = usize::try_from(axis).unwrap_or(0);
    let lengths: Vec<i64> = types.iter().filter_map(|t| t.shape.get(axis_index)?.as_const()).collect();
    let lengths = cx.e.i64s(&lengths)?;
    let names = cx.e.nodes("Split", &[&x, &lengths], vec![int("axis", axis)], &types)?;
    for (v, name) in results.iter().zip(&names) {
        cx.bind(*v, name);
    }
    Ok(Some(names[mine].clone()))
}

/// One element of an axis that the only reader drops, as a Gather; `None` if `inner` is no such slice.
pub(super) fn single_element(cx: &mut Cx<'_, '_>, inner: &Op, op: &Op, to: &[Dim]) -> Result<Option<String>> {
    if inner.kind != OpKind::Slice || partition(cx, inner).is_some() {
        return Ok(None);
    }
    let (c, mut shape) = (cut(cx, inner), cx.operand_ty(inner, 0).shape.clone());
    let one = (&c.limit - &c.start).is(1);
    let Some(position) = bound(&c.start, &c.size).as_const().filter(|_| one) else { return Ok(None) };
    if let Ok(axis) = usize::try_from(c.axis) {
        shape.remove(axis);
    }
    if to != shape {
        return Ok(None);
    }
    let (x, position) = (cx.name(inner.operands[0])?, cx.e.i64_scalar(position)?);
    cx.result_node(op, "Gather", &[&x, &position], vec![int("axis", c.axis)]).map(Some)
}

/// Slice with bounds given at run time, all brought to i64.
pub(super) fn dynamic_slice(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let mut inputs = cx.operands(op)?;
    for name in &mut inputs[1..] {
        *name = cx.e.cast(name, DType::I64)?;
    }
    let axes = cx.e.i64s(op.attrs.ints("axes"))?;
    cx.result_node(op, "Slice", &[&inputs[0], &inputs[1], &inputs[2], &axes, &inputs[3]], vec![])
}

/// A Slice with stride −1 from the last element to before the first.
pub(super) fn reverse(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let x = cx.name(op.operands[0])?;
    let axes = op.attrs.ints("axes");
    if axes.is_empty() {
        return Ok(x);
    }
    let (last, first) = (vec![-1i64; axes.len()], vec![i64::MIN; axes.len()]);
    let (last, first, axes) = (cx.e.i64s(&last)?, cx.e.i64s(&first)?, cx.e.i64s(axes)?);
    cx.result_node(op, "Slice", &[&x, &last, &first, &axes, &last], vec![])
}
