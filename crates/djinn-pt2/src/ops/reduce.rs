//! Reductions, searches and running sums.

use super::Table;
use crate::context::{Call, Cx, Ret, Scalar};
use djinn_diag::Result;
use djinn_ir::{DType, Dim, OpKind, attrs};
use djinn_srg::SrgValue;

pub(super) const TABLE: Table = &[
    ("sum", sum),
    ("mean", mean),
    ("prod", sum),
    ("amax", extremum),
    ("amin", extremum),
    ("max", max_min),
    ("min", max_min),
    ("argmax", arg),
    ("argmin", arg),
    ("any", any_all),
    ("all", any_all),
    ("var", var),
    ("std", var),
    ("var_mean", var),
    ("std_mean", var),
    ("cumsum", running),
    ("cumprod", running),
    ("logsumexp", logsumexp),
    ("linalg_vector_norm", norm),
    ("norm", norm),
    ("topk", topk),
    ("sort", sort),
    ("argsort", sort),
];

fn sum<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let mut x = cx.tensor(call, "self")?;
    let widened = if cx.dtype(x).is_float() { cx.dtype(x) } else { DType::I64 };
    x = cx.cast(x, call.dtype("dtype")?.unwrap_or(widened))?;
    let axes = cx.axes(call, "dim", cx.rank(x))?;
    let kind = if call.base == "prod" { OpKind::ReduceProd } else { OpKind::ReduceSum };
    cx.reduce(kind, x, axes, call.bool_or("keepdim", false)?).map(Ret::Value)
}

fn mean<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let mut x = cx.tensor(call, "self")?;
    x = match call.dtype("dtype")? {
        Some(to) => cx.cast(x, to)?,
        None => cx.float_value(x)?,
    };
    let axes = cx.axes(call, "dim", cx.rank(x))?;
    cx.reduce(OpKind::ReduceMean, x, axes, call.bool_or("keepdim", false)?).map(Ret::Value)
}

fn is_max(call: &Call<'_>) -> bool {
    call.base.contains("max")
}

fn extremum<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let axes = cx.axes(call, "dim", cx.rank(x))?;
    let kind = if is_max(call) { OpKind::ReduceMax } else { OpKind::ReduceMin };
    cx.reduce(kind, x, axes, call.bool_or("keepdim", false)?).map(Ret::Value)
}

/// max and min: of two tensors, of a whole tensor, or along an axis with positions.
fn max_min<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    if call.arg("other").is_some() {
        let (a, b) = (cx.operand(call, "self")?, cx.operand(call, "other")?);
        let ty = cx.result_type(&[&a, &b]);
        let (a, b) = (cx.materialize(&a, ty)?, cx.materialize(&b, ty)?);
        return cx.op(if is_max(call) { OpKind::Max } else { OpKind::Min }, &[a, b]).map(Ret::Value);
    }
    if call.arg("dim").is_none() {
        return extremum(cx, call);
    }
    let x = cx.tensor(call, "self")?;
    let keep = call.bool_or("keepdim", false)?;
    let axes = cx.axes(call, "dim", cx.rank(x))?;
    let kind = if is_max(call) { OpKind::ReduceMax } else { OpKind::ReduceMin };
    let value = cx.reduce(kind, x, axes.clone(), keep)?;
    let position =
        if cx.is_used(call, 1) { Some(position(cx, x, axes.first(), keep, is_max(call))?) } else { None };
    Ok(Ret::Values(vec![Some(value), position]))
}

/// Position of the extremum along an axis; 0 for a scalar.
fn position(cx: &mut Cx<'_>, x: SrgValue, axis: Option<&i64>, keep: bool, max: bool) -> Result<SrgValue> {
    let Some(axis) = axis else { return cx.constant(DType::I64, &Scalar::Int(Dim::ZERO)) };
    let x = if cx.dtype(x) == DType::Bool { cx.cast(x, DType::U8)? } else { x };
    let kind = if max { OpKind::ArgMax } else { OpKind::ArgMin };
    cx.b.op(kind, &[x], attrs! { axis: *axis, keepdims: keep, select_last: false })
}

fn arg<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let keep = call.bool_or("keepdim", false)?;
    if call.arg("dim").is_some() {
        let axes = cx.axes(call, "dim", cx.rank(x))?;
        return position(cx, x, axes.first(), keep, is_max(call)).map(Ret::Value);
    }
    let (rank, numel) = (cx.rank(x), cx.b.ty(x).numel());
    let flat = cx.reshape(x, vec![numel])?;
    let at = position(cx, flat, Some(&0), false, is_max(call))?;
    let shape = if keep { vec![Dim::ONE; rank] } else { Vec::new() };
    cx.reshape(at, shape).map(Ret::Value)
}

fn any_all<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let byte = cx.dtype(x) == DType::U8;
    let x = cx.cast(x, DType::Bool)?;
    let axes = cx.axes(call, "dim", cx.rank(x))?;
    let kind = if call.base == "any" { OpKind::ReduceMax } else { OpKind::ReduceMin };
    let v = cx.reduce(kind, x, axes, call.bool_or("keepdim", false)?)?;
    cx.cast(v, if byte { DType::U8 } else { DType::Bool }).map(Ret::Value)
}

/// Variance and standard deviation, with or without the mean.
fn var<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let ty = cx.dtype(x);
    let axes = cx.axes(call, "dim", cx.rank(x))?;
    let keep = call.bool_or("keepdim", false)?;
    let unbiased = call.bool_or("unbiased", true)?;
    let correction = cx.float_or(call, "correction", if unbiased { 1.0 } else { 0.0 })?;
    let shape = cx.shape(x);
    let count = axes.iter().fold(Dim::ONE, |n, a| &n * &shape[*a as usize]);
    let mean = cx.reduce(OpKind::ReduceMean, x, axes.clone(), true)?;
    let centred = cx.op(OpKind::Sub, &[x, mean])?;
    let squares = cx.op(OpKind::Mul, &[centred, centred])?;
    let total = cx.reduce(OpKind::ReduceSum, squares, axes.clone(), keep)?;
    let n = cx.constant(ty, &Scalar::Int(count))?;
    let correction = cx.number(ty, correction)?;
    let divisor = cx.op(OpKind::Sub, &[n, correction])?;
    let mut v = cx.op(OpKind::Div, &[total, divisor])?;
    if call.base.starts_with("std") {
        v = cx.op(OpKind::Sqrt, &[v])?;
    }
    if !call.base.ends_with("_mean") {
        return Ok(Ret::Value(v));
    }
    let mean = cx.reduce(OpKind::ReduceMean, x, axes, keep)?;
    Ok(Ret::Values(vec![Some(v), Some(mean)]))
}

fn running<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let mut x = cx.tensor(call, "self")?;
    let widened = if cx.dtype(x).is_float() { cx.dtype(x) } else { DType::I64 };
    x = cx.cast(x, call.dtype("dtype")?.unwrap_or(widened))?;
    if cx.rank(x) == 0 {
        return Ok(Ret::Value(x));
    }
    let axis = cx.axis(call, "dim", cx.rank(x))? as i64;
    let kind = if call.base == "cumsum" { OpKind::CumSum } else { OpKind::CumProd };
    cx.b.op(kind, &[x], attrs! { axis: axis, exclusive: false, reverse: false }).map(Ret::Value)
}

fn logsumexp<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let x = cx.float_value(x)?;
    let axes = cx.axes(call, "dim", cx.rank(x))?;
    let keep = call.bool_or("keepdim", false)?;
    let top = cx.reduce(OpKind::ReduceMax, x, axes.clone(), true)?;
    let shifted = cx.op(OpKind::Sub, &[x, top])?;
    let e = cx.op(OpKind::Exp, &[shifted])?;
    let total = cx.reduce(OpKind::ReduceSum, e, axes.clone(), keep)?;
    let log = cx.op(OpKind::Log, &[total])?;
    let top = if keep { top } else { cx.reduce(OpKind::ReduceMax, x, axes, false)? };
    cx.op(OpKind::Add, &[log, top]).map(Ret::Value)
}

/// Vector norms of order 0, 1, 2, ∞ and any other positive order.
fn norm<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let mut x = cx.tensor(call, "self")?;
    if let Some(to) = call.dtype("dtype")? {
        x = cx.cast(x, to)?;
    }
    let order = cx.float_or(call, if call.base == "norm" { "p" } else { "ord" }, 2.0)?;
    let axes = cx.axes(call, "dim", cx.rank(x))?;
    let keep = call.bool_or("keepdim", false)?;
    let ty = cx.dtype(x);
    if order == 2.0 {
        let squares = cx.op(OpKind::Mul, &[x, x])?;
        let total = cx.reduce(OpKind::ReduceSum, squares, axes, keep)?;
        return cx.op(OpKind::Sqrt, &[total]).map(Ret::Value);
    }
    let size = cx.op(OpKind::Abs, &[x])?;
    if order.is_infinite() {
        let kind = if order > 0.0 { OpKind::ReduceMax } else { OpKind::ReduceMin };
        return cx.reduce(kind, size, axes, keep).map(Ret::Value);
    }
    if order == 1.0 {
        return cx.reduce(OpKind::ReduceSum, size, axes, keep).map(Ret::Value);
    }
    if order <= 0.0 || order.is_nan() {
        return Err(call.unsupported(format!("the norm of order {order}")));
    }
    let (p, inverse) = (cx.number(ty, order)?, cx.number(ty, 1.0 / order)?);
    let powers = cx.op(OpKind::Pow, &[size, p])?;
    let total = cx.reduce(OpKind::ReduceSum, powers, axes, keep)?;
    cx.op(OpKind::Pow, &[total, inverse]).map(Ret::Value)
}

fn topk<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let axis = cx.axis_or(call, "dim", cx.rank(x), -1)? as i64;
    let k = cx.dim(call, "k")?;
    let (largest, sorted) = (call.bool_or("largest", true)?, call.bool_or("sorted", true)?);
    let attrs = attrs! { axis: axis, k: k, largest: largest, sorted: sorted };
    let both = cx.b.op_with_regions(OpKind::TopK, &[x], attrs, Vec::new())?;
    Ok(Ret::Values(both.into_iter().map(Some).collect()))
}

fn sort<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let axis = cx.axis_or(call, "dim", cx.rank(x), -1)?;
    let k = cx.shape(x).get(axis).cloned().ok_or_else(|| call.unsupported("of a scalar"))?;
    let largest = call.bool_or("descending", false)?;
    let attrs = attrs! { axis: axis as i64, k: k, largest: largest, sorted: true };
    let both = cx.b.op_with_regions(OpKind::TopK, &[x], attrs, Vec::new())?;
    match (call.base, both.as_slice()) {
        ("argsort", [_, positions]) => Ok(Ret::Value(*positions)),
        _ => Ok(Ret::Values(both.into_iter().map(Some).collect())),
    }
}
