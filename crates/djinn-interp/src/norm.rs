//! Softmax and normalisations: statistics in `f64`, one rounding at the end.

use crate::call::Call;
use crate::index::{Lanes, Walk, broadcast_strides};
use crate::tensor::{floats, from_floats};
use djinn_diag::Result;
use djinn_ir::TensorData;

/// Softmax along one axis, or its logarithm.
pub(crate) fn softmax(call: &Call, logarithm: bool) -> Result<TensorData> {
    let x = call.x()?;
    let lanes = Lanes::new(x.shape(), call.axis());
    let mut values = floats(x);
    for start in lanes.starts() {
        let at = |i: usize| start + i * lanes.inner;
        let largest = (0..lanes.len).fold(f64::NEG_INFINITY, |m, i| m.max(values[at(i)]));
        let sum: f64 = (0..lanes.len).map(|i| libm::exp(values[at(i)] - largest)).sum();
        for i in 0..lanes.len {
            let v = values[at(i)] - largest;
            values[at(i)] = if logarithm { v - libm::log(sum) } else { libm::exp(v) / sum };
        }
    }
    from_floats(x.dtype(), x.shape(), &values)
}

/// Mean and variance of a slice.
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let var = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    (mean, var)
}

/// Values of an operand broadcast to `shape`.
fn broadcast_values(t: &TensorData, shape: &[usize]) -> Result<Vec<f64>> {
    let values = floats(t);
    let mut out = Vec::new();
    Walk::new(shape, [&broadcast_strides(t.shape(), shape)?]).each(|[i]| out.push(values[i]));
    Ok(out)
}

/// Layer normalisation over the axes from `axis` on.
pub(crate) fn layer_norm(call: &Call) -> Result<TensorData> {
    let x = call.x()?;
    let normalized = &x.shape()[call.axis()..];
    let scale = broadcast_values(call.operand(1)?, normalized)?;
    let bias = call.operands.get(2).map(|b| broadcast_values(b, normalized)).transpose()?;
    let epsilon = call.attrs.float("epsilon");
    let mut values = floats(x);
    for row in values.chunks_exact_mut(scale.len().max(1)) {
        let (mean, var) = moments(row);
        let factor = 1.0 / (var + epsilon).sqrt();
        for (i, v) in row.iter_mut().enumerate() {
            *v = (*v - mean) * factor * scale[i] + bias.as_ref().map_or(0.0, |b| b[i]);
        }
    }
    from_floats(x.dtype(), x.shape(), &values)
}

/// Root-mean-square normalisation over the axes from `axis` on.
pub(crate) fn rms_norm(call: &Call) -> Result<TensorData> {
    let x = call.x()?;
    let scale = broadcast_values(call.operand(1)?, &x.shape()[call.axis()..])?;
    let epsilon = call.attrs.float("epsilon");
    let mut values = floats(x);
    for row in values.chunks_exact_mut(scale.len().max(1)) {
        let square = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
        let factor = 1.0 / (square + epsilon).sqrt();
        row.iter_mut().zip(&scale).for_each(|(v, s)| *v = *v * factor * s);
    }
    from_floats(x.dtype(), x.shape(), &values)
}

/// Values of an operand that must be `[channels]`.
fn per_channel(call: &Call, i: usize, channels: usize) -> Result<Vec<f64>> {
    let t = call.operand(i)?;
    if t.shape() != [channels] {
        return Err(call.fail(format!("operand {i} has shape {:?}, not [{channels}]", t.shape())));
    }
    Ok(floats(t))
}

/// Normalisation of groups of channels (axis 1) over their channels and all later axes.
pub(crate) fn group_norm(call: &Call) -> Result<TensorData> {
    let x = call.x()?;
    let channels = x.shape()[1];
    let (scale, bias) = (per_channel(call, 1, channels)?, per_channel(call, 2, channels)?);
    let (groups, epsilon) = (call.attrs.int("groups").max(1) as usize, call.attrs.float("epsilon"));
    if channels % groups != 0 {
        return Err(call.fail(format!("{groups} groups do not divide {channels} channels")));
    }
    let spatial: usize = x.shape()[2..].iter().product();
    let per_group = channels / groups;
    let mut values = floats(x);
    for (n, group) in values.chunks_exact_mut((per_group * spatial).max(1)).enumerate() {
        let (mean, var) = moments(group);
        let factor = 1.0 / (var + epsilon).sqrt();
        for (i, v) in group.iter_mut().enumerate() {
            let channel = n % groups * per_group + i / spatial;
            *v = (*v - mean) * factor * scale[channel] + bias[channel];
        }
    }
    from_floats(x.dtype(), x.shape(), &values)
}

/// Normalisation per channel (axis 1) by given statistics.
pub(crate) fn batch_norm(call: &Call) -> Result<TensorData> {
    let x = call.x()?;
    let channels = x.shape()[1];
    let [scale, bias, mean, var] = [1, 2, 3, 4].map(|i| per_channel(call, i, channels));
    let (scale, bias, mean, var) = (scale?, bias?, mean?, var?);
    let epsilon = call.attrs.float("epsilon");
    let spatial: usize = x.shape()[2..].iter().product();
    let mut values = floats(x);
    for (n, row) in values.chunks_exact_mut(spatial.max(1)).enumerate() {
        let c = n % channels;
        let factor = scale[c] / (var[c] + epsilon).sqrt();
        row.iter_mut().for_each(|v| *v = (*v - mean[c]) * factor + bias[c]);
    }
    from_floats(x.dtype(), x.shape(), &values)
}
