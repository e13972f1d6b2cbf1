//! Activation functions and softmax.

use super::Table;
use crate::context::{Call, Cx, Ret, Scalar};
use djinn_diag::Result;
use djinn_ir::{Dim, OpKind, attrs};
use djinn_srg::SrgValue;

pub(super) const TABLE: Table = &[
    ("relu", relu),
    ("relu6", bounded),
    ("hardtanh", bounded),
    ("leaky_relu", leaky_relu),
    ("elu", elu),
    ("selu", elu),
    ("celu", elu),
    ("prelu", prelu),
    ("_prelu_kernel", prelu),
    ("threshold", threshold),
    ("silu", plain),
    ("mish", plain),
    ("hardswish", plain),
    ("hardsigmoid", hardsigmoid),
    ("gelu", gelu),
    ("softplus", softplus),
    ("log_sigmoid", log_sigmoid),
    ("glu", glu),
    ("softmax", softmax),
    ("_softmax", softmax),
    ("_safe_softmax", safe_softmax),
    ("log_softmax", softmax),
    ("_log_softmax", softmax),
    ("special_softmax", softmax),
    ("special_log_softmax", softmax),
];

fn relu<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    cx.op(OpKind::Relu, &[x]).map(Ret::Value)
}

fn bounded<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let (low, high) = if call.base == "relu6" {
        (Scalar::Float(0.0), Scalar::Float(6.0))
    } else {
        (
            cx.scalar_opt(call, "min_val")?.unwrap_or(Scalar::Float(-1.0)),
            cx.scalar_opt(call, "max_val")?.unwrap_or(Scalar::Float(1.0)),
        )
    };
    let ty = cx.dtype(x);
    let (low, high) = (cx.constant(ty, &low)?, cx.constant(ty, &high)?);
    cx.op(OpKind::Clamp, &[x, low, high]).map(Ret::Value)
}

fn leaky_relu<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let alpha = cx.float_or(call, "negative_slope", 0.01)?;
    cx.b.op(OpKind::LeakyRelu, &[x], attrs! { alpha: alpha }).map(Ret::Value)
}

/// scale · (x for x ≥ 0, else alpha·(e^(input_scale·x) − 1)).
fn elu<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let ty = cx.dtype(x);
    let (alpha, scale, input_scale) = match call.base {
        "selu" => (1.673_263_242_354_377_2, 1.050_700_987_355_480_5, 1.0),
        "celu" => {
            let a = cx.float_or(call, "alpha", 1.0)?;
            (a, 1.0, 1.0 / a)
        }
        _ => (
            cx.float_or(call, "alpha", 1.0)?,
            cx.float_or(call, "scale", 1.0)?,
            cx.float_or(call, "input_scale", 1.0)?,
        ),
    };
    let mut v = x;
    if input_scale == 1.0 {
        v = cx.b.op(OpKind::Elu, &[v], attrs! { alpha: alpha })?;
    } else {
        let factor = cx.number(ty, input_scale)?;
        let scaled = cx.op(OpKind::Mul, &[v, factor])?;
        let negative = cx.b.op(OpKind::Elu, &[scaled], attrs! { alpha: alpha })?;
        let zero = cx.number(ty, 0.0)?;
        let positive = cx.compare("gt", x, zero)?;
        v = cx.op(OpKind::Select, &[positive, x, negative])?;
    }
    if scale != 1.0 {
        let factor = cx.number(ty, scale)?;
        v = cx.op(OpKind::Mul, &[v, factor])?;
    }
    Ok(Ret::Value(v))
}

fn prelu<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (x, mut w) = (cx.tensor(call, "self")?, cx.tensor(call, "weight")?);
    let rank = cx.rank(x);
    if cx.rank(w) == 1 && rank >= 2 && call.base == "prelu" {
        let mut shape = vec![Dim::ONE; rank];
        shape[1] = cx.shape(w)[0].clone();
        w = cx.reshape(w, shape)?;
    }
    let zero = cx.number(cx.dtype(x), 0.0)?;
    let positive = cx.compare("ge", x, zero)?;
    let scaled = cx.op(OpKind::Mul, &[w, x])?;
    cx.op(OpKind::Select, &[positive, x, scaled]).map(Ret::Value)
}

fn threshold<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let ty = cx.dtype(x);
    let (limit, value) = (cx.scalar(call, "threshold")?, cx.scalar(call, "value")?);
    let (limit, value) = (cx.constant(ty, &limit)?, cx.constant(ty, &value)?);
    let below = cx.compare("le", x, limit)?;
    cx.op(OpKind::Select, &[below, value, x]).map(Ret::Value)
}

fn plain<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let kind = match call.base {
        "silu" => OpKind::Silu,
        "mish" => OpKind::Mish,
        _ => OpKind::HardSwish,
    };
    cx.op(kind, &[x]).map(Ret::Value)
}

fn hardsigmoid<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    cx.b.op(OpKind::HardSigmoid, &[x], attrs! { alpha: 1.0 / 6.0, beta: 0.5 }).map(Ret::Value)
}

fn gelu<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let approximate = call.str_or("approximate", "none")?;
    cx.b.op(OpKind::Gelu, &[x], attrs! { approximate: approximate }).map(Ret::Value)
}

/// log(1 + e^(beta·x))/beta. Above `threshold` torch gives x itself, which is the same to within rounding.
fn softplus<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let beta = cx.float_or(call, "beta", 1.0)?;
    if beta == 1.0 {
        return cx.op(OpKind::Softplus, &[x]).map(Ret::Value);
    }
    let beta = cx.number(cx.dtype(x), beta)?;
    let scaled = cx.op(OpKind::Mul, &[x, beta])?;
    let v = cx.op(OpKind::Softplus, &[scaled])?;
    cx.op(OpKind::Div, &[v, beta]).map(Ret::Value)
}

fn log_sigmoid<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let minus = cx.op(OpKind::Neg, &[x])?;
    let v = cx.op(OpKind::Softplus, &[minus])?;
    cx.op(OpKind::Neg, &[v]).map(Ret::Value)
}

fn glu<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let axis = cx.axis_or(call, "dim", cx.rank(x), -1)?;
    let size = cx.const_size(x, axis, "split axis of glu")?;
    let half = Dim::from(size / 2);
    let a = cx.slice(x, axis, Dim::ZERO, half.clone())?;
    let b = cx.slice(x, axis, half, Dim::from(size))?;
    let gate = cx.op(OpKind::Sigmoid, &[b])?;
    cx.op(OpKind::Mul, &[a, gate]).map(Ret::Value)
}

/// softmax or log_softmax along `dim` after a cast to `dtype`.
fn softmax<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let is_log = call.base.contains("log");
    normalize(cx, call, is_log).map(Ret::Value)
}

fn normalize<'p>(cx: &mut Cx<'p>, call: &Call<'p>, is_log: bool) -> Result<SrgValue> {
    let mut x = cx.tensor(call, "self")?;
    if call.bool_or("half_to_float", false)? {
        x = cx.cast(x, djinn_ir::DType::F32)?;
    }
    x = match call.dtype("dtype")? {
        Some(to) => cx.cast(x, to)?,
        None => cx.float_value(x)?,
    };
    let axis = cx.axis(call, "dim", cx.rank(x))?;
    let kind = if is_log { OpKind::LogSoftmax } else { OpKind::Softmax };
    if cx.rank(x) == 0 {
        let x = cx.unsqueeze(x, 0)?;
        let v = cx.b.op(kind, &[x], attrs! { axis: 0i64 })?;
        return cx.squeeze(v, 0);
    }
    cx.b.op(kind, &[x], attrs! { axis: axis as i64 })
}

/// softmax that gives zeros where a whole row is −∞.
fn safe_softmax<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let v = normalize(cx, call, false)?;
    let nan = cx.op(OpKind::IsNan, &[v])?;
    let zero = cx.number(cx.dtype(v), 0.0)?;
    cx.op(OpKind::Select, &[nan, zero, v]).map(Ret::Value)
}
