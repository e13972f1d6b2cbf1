//! Operators that make tensors from numbers.

use super::Table;
use crate::context::{Call, Cx, Ret, Scalar};
use crate::emit::scalar_dtype;
use djinn_diag::Result;
use djinn_ir::{DType, Dim, OpKind, attrs};

pub(super) const TABLE: Table = &[
    ("arange", arange),
    ("linspace", linspace),
    ("full", full),
    ("zeros", full),
    ("ones", full),
    ("empty", full),
    ("empty_strided", full),
    ("empty_permuted", full),
    ("new_full", full),
    ("new_zeros", full),
    ("new_ones", full),
    ("new_empty", full),
    ("new_empty_strided", full),
    ("full_like", full_like),
    ("zeros_like", full_like),
    ("ones_like", full_like),
    ("empty_like", full_like),
    ("scalar_tensor", scalar_tensor),
    ("eye", eye),
];

/// The value that the operator's name means.
fn fill_value<'p>(cx: &Cx<'p>, call: &Call<'p>) -> Result<Scalar> {
    match call.base {
        "full" | "new_full" | "full_like" => cx.scalar(call, "fill_value"),
        "ones" | "new_ones" | "ones_like" => Ok(Scalar::Int(Dim::ONE)),
        _ => Ok(Scalar::Int(Dim::ZERO)),
    }
}

fn full<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let shape = cx.dims(call, "size")?;
    let value = fill_value(cx, call)?;
    let dtype = match (call.dtype("dtype")?, call.base) {
        (Some(d), _) => d,
        (None, "full") => scalar_dtype(&value),
        (None, base) if base.starts_with("new_") => {
            let x = cx.tensor(call, "self")?;
            cx.dtype(x)
        }
        (None, _) => DType::F32,
    };
    cx.filled(dtype, &shape, &value).map(Ret::Value)
}

fn full_like<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let ty = cx.b.ty(x).clone();
    let value = fill_value(cx, call)?;
    cx.filled(call.dtype("dtype")?.unwrap_or(ty.dtype), &ty.shape, &value).map(Ret::Value)
}

fn scalar_tensor<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let value = cx.scalar(call, "s")?;
    cx.constant(call.dtype("dtype")?.unwrap_or(DType::F32), &value).map(Ret::Value)
}

fn arange<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let start = cx.scalar_opt(call, "start")?.unwrap_or(Scalar::Int(Dim::ZERO));
    let step = cx.scalar_opt(call, "step")?.unwrap_or(Scalar::Int(Dim::ONE));
    let end = cx.scalar(call, "end")?;
    let all_ints = [&start, &step, &end].iter().all(|s| matches!(s, Scalar::Int(_)));
    let dtype = call.dtype("dtype")?.unwrap_or(if all_ints { DType::I64 } else { DType::F32 });
    let count = count(call, &start, &end, &step)?;
    let mut v = cx.iota(count, dtype)?;
    if !is(&step, 1.0) {
        let step = cx.constant(dtype, &step)?;
        v = cx.op(OpKind::Mul, &[v, step])?;
    }
    if !is(&start, 0.0) {
        let start = cx.constant(dtype, &start)?;
        v = cx.op(OpKind::Add, &[v, start])?;
    }
    Ok(Ret::Value(v))
}

fn is(s: &Scalar, value: f64) -> bool {
    as_f64(s) == Some(value)
}

fn as_f64(s: &Scalar) -> Option<f64> {
    match s {
        Scalar::Int(d) => d.as_const().map(|v| v as f64),
        Scalar::Float(v) => Some(*v),
        Scalar::Bool(b) => Some(f64::from(u8::from(*b))),
    }
}

/// ⌈(end − start)/step⌉, at least 0 where that is decided.
fn count(call: &Call<'_>, start: &Scalar, end: &Scalar, step: &Scalar) -> Result<Dim> {
    if let (Scalar::Int(a), Scalar::Int(b), Scalar::Int(s)) = (start, end, step) {
        let by =
            s.as_const().filter(|s| *s != 0).ok_or_else(|| call.bad("step", "a constant other than 0"))?;
        let (span, by) = if by > 0 { (b - a, by) } else { (a - b, by.saturating_neg()) };
        let count = span.ceil_div(&Dim::from(by));
        return Ok(if count.as_const().is_some_and(|c| c < 0) { Dim::ZERO } else { count });
    }
    let numbers = as_f64(start).zip(as_f64(end)).zip(as_f64(step));
    let count = numbers.map(|((a, b), s)| ((b - a) / s).ceil()).filter(|c| c.is_finite() && c.abs() < 1e15);
    let count = count.ok_or_else(|| call.unsupported("a float range with symbolic bounds"))?;
    Ok(Dim::from(count.max(0.0) as i64))
}

fn linspace<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (start, end) = (cx.float_or(call, "start", 0.0)?, cx.float_or(call, "end", 1.0)?);
    let steps = cx.int(call, "steps")?;
    let dtype = call.dtype("dtype")?.unwrap_or(DType::F32);
    let step = if steps > 1 { (end - start) / (steps - 1) as f64 } else { 0.0 };
    let v = cx.iota(Dim::from(steps), dtype)?;
    let step = cx.number(dtype, step)?;
    let v = cx.op(OpKind::Mul, &[v, step])?;
    let start = cx.number(dtype, start)?;
    cx.op(OpKind::Add, &[v, start]).map(Ret::Value)
}

fn eye<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let n = cx.dim(call, "n")?;
    let m = cx.dim_opt(call, "m")?.unwrap_or_else(|| n.clone());
    let shape = vec![n, m];
    let axis = |axis: i64| attrs! { shape: shape.clone(), axis: axis, dtype: DType::I64 };
    let (row, column) = (cx.b.op(OpKind::Iota, &[], axis(0))?, cx.b.op(OpKind::Iota, &[], axis(1))?);
    let same = cx.compare("eq", row, column)?;
    cx.cast(same, call.dtype("dtype")?.unwrap_or(DType::F32)).map(Ret::Value)
}
