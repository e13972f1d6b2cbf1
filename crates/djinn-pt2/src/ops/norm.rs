//! Normalisations.

use super::Table;
use crate::context::{Call, Cx, Ret, Scalar};
use djinn_diag::Result;
use djinn_ir::{DType, Dim, OpKind, attrs};
use djinn_srg::SrgValue;

pub(super) const TABLE: Table = &[
    ("layer_norm", layer_norm),
    ("native_layer_norm", layer_norm),
    ("rms_norm", rms_norm),
    ("_fused_rms_norm", rms_norm),
    ("group_norm", group_norm),
    ("native_group_norm", group_norm),
    ("instance_norm", instance_norm),
    ("batch_norm", batch_norm),
    ("_native_batch_norm_legit_no_training", batch_norm),
    ("cudnn_batch_norm", batch_norm),
];

/// A constant of this shape, without storing its elements.
fn splat(cx: &mut Cx<'_>, dtype: DType, shape: &[Dim], value: i64) -> Result<SrgValue> {
    cx.filled(dtype, shape, &Scalar::Int(Dim::from(value)))
}

/// The result of a norm and, where used, the mean and 1/√(var + ε) over `axes`.
fn with_statistics<'p>(
    cx: &mut Cx<'p>,
    call: &Call<'p>,
    x: SrgValue,
    out: SrgValue,
    axes: &[i64],
    epsilon: f64,
) -> Result<Ret> {
    if !cx.is_used(call, 1) && !cx.is_used(call, 2) {
        return Ok(Ret::Values(vec![Some(out), None, None, None]));
    }
    let ty = cx.dtype(x);
    let mean = cx.reduce(OpKind::ReduceMean, x, axes.to_vec(), true)?;
    let centred = cx.op(OpKind::Sub, &[x, mean])?;
    let squares = cx.op(OpKind::Mul, &[centred, centred])?;
    let var = cx.reduce(OpKind::ReduceMean, squares, axes.to_vec(), true)?;
    let epsilon = cx.number(ty, epsilon)?;
    let sum = cx.op(OpKind::Add, &[var, epsilon])?;
    let inverse = cx.op(OpKind::Rsqrt, &[sum])?;
    Ok(Ret::Values(vec![Some(out), Some(mean), Some(inverse), None]))
}

/// First normalised axis.
fn first_axis<'p>(cx: &Cx<'p>, call: &Call<'p>, x: SrgValue) -> Result<(i64, Vec<Dim>)> {
    let shape = cx.dims(call, "normalized_shape")?;
    let axis = cx.rank(x).checked_sub(shape.len()).filter(|a| *a < cx.rank(x));
    let axis = axis.ok_or_else(|| call.bad("normalized_shape", "a suffix of the operand's shape"))?;
    Ok((axis as i64, shape))
}

fn layer_norm<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "input")?;
    let (axis, shape) = first_axis(cx, call, x)?;
    let ty = cx.dtype(x);
    let mut operands = vec![x];
    operands.push(match cx.tensor_opt(call, "weight")? {
        Some(w) => cx.cast(w, ty)?,
        None => splat(cx, ty, &shape, 1)?,
    });
    if let Some(b) = cx.tensor_opt(call, "bias")? {
        operands.push(cx.cast(b, ty)?);
    }
    let epsilon = cx.float_or(call, "eps", 1e-5)?;
    let out = cx.b.op(OpKind::LayerNorm, &operands, attrs! { axis: axis, epsilon: epsilon })?;
    if call.base == "layer_norm" {
        return Ok(Ret::Value(out));
    }
    let axes: Vec<i64> = (axis..cx.rank(x) as i64).collect();
    with_statistics(cx, call, x, out, &axes, epsilon)
}

/// Distance from 1 to the next larger value.
fn machine_epsilon(d: DType) -> f64 {
    match d {
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        DType::F64 => f64::EPSILON,
        _ => f64::from(f32::EPSILON),
    }
}

fn rms_norm<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "input")?;
    let (axis, shape) = first_axis(cx, call, x)?;
    let ty = cx.dtype(x);
    let scale = match cx.tensor_opt(call, "weight")? {
        Some(w) => cx.cast(w, ty)?,
        None => splat(cx, ty, &shape, 1)?,
    };
    let epsilon = cx.float_or(call, "eps", machine_epsilon(ty))?;
    let out = cx.b.op(OpKind::RmsNorm, &[x, scale], attrs! { axis: axis, epsilon: epsilon })?;
    if call.base == "rms_norm" { Ok(Ret::Value(out)) } else { Ok(Ret::Values(vec![Some(out), None])) }
}

/// Optional per-channel operand, or this constant for every channel.
fn per_channel<'p>(
    cx: &mut Cx<'p>,
    call: &Call<'p>,
    name: &str,
    x: SrgValue,
    default: i64,
) -> Result<SrgValue> {
    let ty = cx.dtype(x);
    match cx.tensor_opt(call, name)? {
        Some(v) => cx.cast(v, ty),
        None => {
            let channels =
                cx.shape(x).get(1).cloned().ok_or_else(|| call.bad("input", "of rank 2 or more"))?;
            splat(cx, ty, &[channels], default)
        }
    }
}

fn group_norm<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "input")?;
    let groups = cx.int(call, if call.base == "group_norm" { "num_groups" } else { "group" })?;
    let (scale, bias) = (per_channel(cx, call, "weight", x, 1)?, per_channel(cx, call, "bias", x, 0)?);
    let epsilon = cx.float_or(call, "eps", 1e-5)?;
    let out = cx.b.op(OpKind::GroupNorm, &[x, scale, bias], attrs! { groups: groups, epsilon: epsilon })?;
    if call.base == "group_norm" { Ok(Ret::Value(out)) } else { Ok(Ret::Values(vec![Some(out), None, None])) }
}

fn instance_norm<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    if !call.bool_or("use_input_stats", true)? {
        return batch_norm(cx, call);
    }
    let x = cx.tensor(call, "input")?;
    let channels = cx.const_size(x, 1, "number of channels")?;
    let (scale, bias) = (per_channel(cx, call, "weight", x, 1)?, per_channel(cx, call, "bias", x, 0)?);
    let epsilon = cx.float_or(call, "eps", 1e-5)?;
    cx.b.op(OpKind::GroupNorm, &[x, scale, bias], attrs! { groups: channels, epsilon: epsilon })
        .map(Ret::Value)
}

fn batch_norm<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    if call.bool_or("training", false)? {
        return Err(call.unsupported("batch norm in training mode; call model.eval() before exporting"));
    }
    let x = cx.tensor(call, "input")?;
    let operands = [
        x,
        per_channel(cx, call, "weight", x, 1)?,
        per_channel(cx, call, "bias", x, 0)?,
        per_channel(cx, call, "running_mean", x, 0)?,
        per_channel(cx, call, "running_var", x, 1)?,
    ];
    let epsilon = cx.float_or(call, if call.arg("epsilon").is_some() { "epsilon" } else { "eps" }, 1e-5)?;
    let out = cx.b.op(OpKind::BatchNorm, &operands, attrs! { epsilon: epsilon })?;
    if matches!(call.base, "batch_norm" | "instance_norm") {
        return Ok(Ret::Value(out));
    }
    Ok(Ret::Values(vec![Some(out), None, None, None]))
}
