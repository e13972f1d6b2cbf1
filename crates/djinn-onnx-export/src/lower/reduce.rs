//! Reductions, running sums and orderings.

use super::Cx;
use crate::dims;
use crate::proto::{flag, int};
use djinn_diag::Result;
use djinn_ir::{DType, Dim, Op, OpKind};

/// An ONNX reduction with its axes as an input; over no axes at all it is the identity.
pub(super) fn reduce(cx: &mut Cx<'_, '_>, op: &Op, onnx_op: &str) -> Result<String> {
    let x = cx.name(op.operands[0])?;
    let axes = op.attrs.ints("axes");
    if axes.is_empty() {
        return Ok(x);
    }
    let keep = op.attrs.bool("keepdims");
    let all = axes.len() == cx.operand_ty(op, 0).rank();
    let axes = if all { String::new() } else { cx.e.i64s(axes)? };
    // keepdims is 1 by default.
    let attrs = if keep { vec![] } else { vec![int("keepdims", 0)] };
    cx.result_node(op, onnx_op, &[&x, &axes], attrs)
}

/// A reduction that keeps its axes where its only reader drops them, or the other way round, written as the reader
/// wants it; `None` if `inner` is no reduction or `to` is neither shape.
pub(super) fn with_other_rank(
    cx: &mut Cx<'_, '_>,
    inner: &Op,
    op: &Op,
    to: &[Dim],
) -> Result<Option<String>> {
    let onnx_op = match inner.kind {
        OpKind::ReduceSum => "ReduceSum",
        OpKind::ReduceMean => "ReduceMean",
        OpKind::ReduceMax => "ReduceMax",
        OpKind::ReduceMin => "ReduceMin",
        OpKind::ReduceProd => "ReduceProd",
        _ => return Ok(None),
    };
    let (from, axes) = (cx.operand_ty(inner, 0), inner.attrs.ints("axes"));
    let reduced = |i: usize| axes.contains(&(i as i64));
    let sizes = || from.shape.iter().enumerate();
    let kept: Vec<Dim> = sizes().map(|(i, d)| if reduced(i) { Dim::ONE } else { d.clone() }).collect();
    let dropped: Vec<Dim> = sizes().filter(|(i, _)| !reduced(*i)).map(|(_, d)| d.clone()).collect();
    let keep = to == kept;
    if axes.is_empty() || (!keep && to != dropped) {
        return Ok(None);
    }
    let x = cx.name(inner.operands[0])?;
    let axes = if axes.len() == from.rank() { String::new() } else { cx.e.i64s(axes)? };
    let attrs = if keep { vec![] } else { vec![int("keepdims", 0)] };
    cx.result_node(op, onnx_op, &[&x, &axes], attrs).map(Some)
}

/// Mean; over all axes behind the channels of an image it is a global pooling.
///
/// A rank-3 operand is more often a sequence than an image, and onnxruntime recognises norms by their ReduceMean,
/// so pooling begins at rank 4.
pub(super) fn mean(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let ty = cx.operand_ty(op, 0);
    let spatial: Vec<i64> = (2..ty.rank() as i64).collect();
    let pooled = ty.rank() >= 4 && op.attrs.ints("axes") == spatial && op.attrs.bool("keepdims");
    if pooled && ty.dtype.is_float() {
        return cx.simple(op, "GlobalAveragePool", vec![]).map(|mut names| names.swap_remove(0));
    }
    reduce(cx, op, "ReduceMean")
}

pub(super) fn arg(cx: &mut Cx<'_, '_>, op: &Op, onnx_op: &str) -> Result<String> {
    let a = &op.attrs;
    let mut attrs = vec![int("axis", a.int("axis")), flag("keepdims", a.bool("keepdims"))];
    if a.bool("select_last") {
        attrs.push(int("select_last_index", 1));
    }
    cx.simple(op, onnx_op, attrs).map(|mut names| names.swap_remove(0))
}

pub(super) fn cumsum(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let (x, axis) = (cx.name(op.operands[0])?, cx.e.i64_scalar(op.attrs.int("axis"))?);
    let attrs =
        ["exclusive", "reverse"].into_iter().filter(|n| op.attrs.bool(n)).map(|n| int(n, 1)).collect();
    cx.result_node(op, "CumSum", &[&x, &axis], attrs)
}

pub(super) fn topk(cx: &mut Cx<'_, '_>, op: &Op) -> Result<Vec<String>> {
    let a = &op.attrs;
    let (x, k) = (cx.name(op.operands[0])?, dims::vector(cx.e, &[a.dim("k")])?);
    let attrs = vec![
        int("axis", a.int("axis")),
        flag("largest", a.bool("largest")),
        flag("sorted", a.bool("sorted")),
    ];
    let ty = cx.graph.ty(op.results[0]).clone();
    let indices = ty.with_dtype(DType::I64);
    cx.e.nodes("TopK", &[&x, &k], attrs, &[ty, indices])
}
