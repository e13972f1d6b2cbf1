//! Interpolation as ONNX Resize without antialiasing, one axis after the other.

use crate::call::Call;
use crate::index::Lanes;
use crate::tensor::{checked_numel, filled, floats, from_bytes, from_floats, reserved};
use djinn_diag::Result;
use djinn_ir::TensorData;

/// One resized axis.
#[derive(Clone, Copy)]
struct Axis {
    number: usize,
    from: usize,
    to: usize,
    scale: f64,
}

/// Positions further out than this are all the same: far outside.
const FAR: f64 = 1e12;

/// Position in the operand that result position `i` stands for.
fn coordinate(words: &str, axis: Axis, i: usize) -> f64 {
    let (i, from, to) = (i as f64, axis.from as f64, axis.to as f64);
    let half_pixel = (i + 0.5) / axis.scale - 0.5;
    let position = match words {
        "asymmetric" => i / axis.scale,
        "align_corners" if axis.to == 1 => 0.0,
        "align_corners" => i * (from - 1.0) / (to - 1.0),
        "pytorch_half_pixel" if axis.to == 1 => 0.0,
        "half_pixel_symmetric" => {
            let adjustment = to / (axis.scale * from);
            from / 2.0 * (1.0 - adjustment) + half_pixel
        }
        _ => half_pixel,
    };
    position.clamp(-FAR, FAR)
}

/// The nearest operand position by the rounding that `words` names.
fn nearest(words: &str, x: f64, size: usize) -> usize {
    let rounded = match words {
        "floor" => x.floor(),
        "ceil" => x.ceil(),
        "round_prefer_ceil" => (x + 0.5).floor(),
        _ => (x - 0.5).ceil(),
    };
    (rounded.max(0.0) as usize).min(size.saturating_sub(1))
}

/// Weights of the four neighbours of a point that lies `s` after the second of them.
fn cubic_weights(a: f64, s: f64) -> [f64; 4] {
    let near = |d: f64| ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
    let far = |d: f64| ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
    [far(s + 1.0), near(s), near(1.0 - s), far(2.0 - s)]
}

/// Operand positions and weights that make one result position of a linear or cubic resize.
fn taps(call: &Call, axis: Axis, i: usize) -> Vec<(usize, f64)> {
    let x = coordinate(call.attrs.str("coordinates"), axis, i);
    let (below, s) = (x.floor(), x - x.floor());
    let below = below as i64;
    let mut taps: Vec<(i64, f64)> = if call.attrs.str("mode") == "cubic" {
        let weights = cubic_weights(call.attrs.float("cubic_a"), s);
        weights.into_iter().enumerate().map(|(n, w)| (below - 1 + n as i64, w)).collect()
    } else {
        vec![(below, 1.0 - s), (below + 1, s)]
    };
    let last = axis.from as i64 - 1;
    if call.attrs.bool("exclude_outside") {
        let inside = |t: &&(i64, f64)| (0..=last).contains(&t.0);
        let sum: f64 = taps.iter().filter(inside).map(|t| t.1).sum();
        if sum != 0.0 {
            taps.retain(|t| (0..=last).contains(&t.0));
            taps.iter_mut().for_each(|t| t.1 /= sum);
        }
    }
    taps.into_iter().map(|(at, w)| (at.clamp(0, last) as usize, w)).collect()
}

/// Resizes one axis of row-major values.
fn interpolate(call: &Call, values: &[f64], shape: &[usize], axis: Axis) -> Result<Vec<f64>> {
    let lanes = Lanes::new(shape, axis.number);
    let all: Vec<_> = (0..axis.to).map(|i| taps(call, axis, i)).collect();
    let mut out = filled(checked_numel(&[lanes.outer, axis.to, lanes.inner])?, 0.0)?;
    for o in 0..lanes.outer {
        for (i, taps) in all.iter().enumerate() {
            let target = &mut out[(o * axis.to + i) * lanes.inner..][..lanes.inner];
            for (at, weight) in taps {
                let source = &values[(o * lanes.len + at) * lanes.inner..][..lanes.inner];
                target.iter_mut().zip(source).for_each(|(t, v)| *t += weight * v);
            }
        }
    }
    Ok(out)
}

/// Picks the nearest positions along one axis, bit for bit.
fn pick(call: &Call, x: &TensorData, axis: Axis) -> Result<TensorData> {
    let lanes = Lanes::new(x.shape(), axis.number);
    let mut shape = x.shape().to_vec();
    shape[axis.number] = axis.to;
    let block = lanes.inner * x.dtype().size();
    let mut out = reserved(checked_numel(&shape)? * x.dtype().size())?;
    for o in 0..lanes.outer {
        for i in 0..axis.to {
            let position = coordinate(call.attrs.str("coordinates"), axis, i);
            let at = (o * lanes.len + nearest(call.attrs.str("nearest"), position, axis.from)) * block;
            out.extend_from_slice(&x.bytes()[at..at + block]);
        }
    }
    from_bytes(x.dtype(), &shape, out)
}

/// ONNX Resize to `sizes`.
pub(crate) fn resize(call: &Call) -> Result<TensorData> {
    let x = call.x()?;
    let (sizes, scales) = (call.sizes("sizes")?, call.attrs.floats("scales"));
    checked_numel(&sizes)?;
    let axes = x.shape().iter().zip(&sizes).zip(&scales).enumerate();
    let axes: Vec<Axis> = axes
        .map(|(number, ((from, to), scale))| Axis { number, from: *from, to: *to, scale: *scale })
        .filter(|a| a.from != a.to || a.scale != 1.0)
        .collect();
    if let Some(a) =
        axes.iter().find(|a| (a.from == 0) != (a.to == 0) || !a.scale.is_finite() || a.scale <= 0.0)
    {
        return Err(call
            .fail(format!("axis {} does not resize from {} to {} by {}", a.number, a.from, a.to, a.scale)));
    }
    if sizes.contains(&0) {
        return from_bytes(x.dtype(), &sizes, Vec::new());
    }
    if call.attrs.str("mode") == "nearest" {
        return axes.iter().try_fold(x.clone(), |x, axis| pick(call, &x, *axis));
    }
    let (mut values, mut shape) = (floats(x), x.shape().to_vec());
    for axis in axes {
        values = interpolate(call, &values, &shape, axis)?;
        shape[axis.number] = axis.to;
    }
    from_floats(x.dtype(), &sizes, &values)
}
