//! Reductions along axes.

use super::{Node, is_float, movement};
use crate::network::{Net, Val, layer, no_layer};
use djinn_diag::Result;
use djinn_ir::{DType, Dim, OpKind};
use trtx::{CumulativeOperation, ElementWiseOperation as E, ReduceOperation as R, UnaryOperation as U};

/// Passes that `topk` takes, at most: one an element.
const MAX_K: i64 = 8;

/// Sums, means, extremes, products and running sums.
pub(super) fn reduce<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let x = node.x(0)?;
    let op = match node.kind {
        OpKind::CumSum => return cumsum(net, node),
        OpKind::ReduceSum => R::kSUM,
        OpKind::ReduceMean if is_float(x.dtype()) => R::kAVG,
        OpKind::ReduceMean => return Err(no_layer("there is no mean of integers")),
        OpKind::ReduceMax => R::kMAX,
        OpKind::ReduceMin => R::kMIN,
        _ => R::kPROD,
    };
    net.reduce(x, op, &node.axes(), node.attrs.bool("keepdims"))
}

fn cumsum<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let x = node.x(0)?;
    let (exclusive, reverse) = (node.attrs.bool("exclusive"), node.attrs.bool("reverse"));
    let sum = CumulativeOperation::kSUM;
    let made = net.inner.add_cumulative(&x.tensor, node.axis() as i32, sum, exclusive, reverse);
    Ok(layer!(net, made, x.ty.clone()))
}

/// Position of the extreme, by position of what equals it: TensorRT's own layer promises nothing of equals.
pub(super) fn arg<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let (x, axis) = (node.x(0)?, node.axis());
    let extreme = if node.kind == OpKind::ArgMax { R::kMAX } else { R::kMIN };
    let best = net.reduce(x, extreme, &[axis], true)?;
    let hit = net.binary(x, &best, E::kEQUAL)?;
    let found = position(net, &hit, axis, node.attrs.bool("select_last"))?;
    net.reshape(&found, &node.types[0].shape)
}

/// The first (or last) true position along an axis, which keeps size 1.
fn position<'n>(net: &mut Net<'n>, hit: &Val<'n>, axis: usize, last: bool) -> Result<Val<'n>> {
    let places = places(net, hit, axis)?;
    let none = net.extreme(DType::I64, hit.rank(), !last)?;
    let marked = net.select(hit, &places, &none)?;
    net.reduce(&marked, if last { R::kMAX } else { R::kMIN }, &[axis], true)
}

/// 0, 1, 2, … along an axis.
fn places<'n>(net: &mut Net<'n>, x: &Val<'n>, axis: usize) -> Result<Val<'n>> {
    let length = x.shape()[axis].clone();
    let line = movement::counter(net, &length, DType::I64)?;
    let mut shape = vec![Dim::ONE; x.rank()];
    shape[axis] = length;
    net.reshape(&line, &shape)
}

/// The k best in order, one after the other: the first of equals wins.
pub(super) fn top_k<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Vec<Val<'n>>> {
    let (x, axis) = (node.x(0)?, node.axis());
    let k = node.attrs.dim("k").as_const().filter(|k| (1..=MAX_K).contains(k));
    let k =
        k.ok_or_else(|| no_layer(format!("more than {MAX_K} elements, whose order among equals is open")))?;
    let largest = node.attrs.bool("largest");
    let places = places(net, x, axis)?;
    let worst = net.extreme(x.dtype(), x.rank(), !largest)?;
    let (mut values, mut positions) = (Vec::new(), Vec::new());
    let mut free: Option<Val<'n>> = None;
    for _ in 0..k {
        let left = match &free {
            Some(free) => net.select(free, x, &worst)?,
            None => x.clone(),
        };
        let best = net.reduce(&left, if largest { R::kMAX } else { R::kMIN }, &[axis], true)?;
        let mut hit = net.binary(&left, &best, E::kEQUAL)?;
        if let Some(free) = &free {
            hit = net.binary(&hit, free, E::kAND)?;
        }
        let found = position(net, &hit, axis, false)?;
        let taken = net.binary(&places, &found, E::kEQUAL)?;
        let open = net.unary(&taken, U::kNOT)?;
        free = Some(match &free {
            Some(free) => net.binary(free, &open, E::kAND)?,
            None => open,
        });
        values.push(best);
        positions.push(found);
    }
    Ok(vec![net.concat(&values, axis)?, net.concat(&positions, axis)?])
}
