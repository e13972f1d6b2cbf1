//! Operations whose result shape depends on operand values.

use crate::call::Call;
use crate::index::broadcast;
use crate::movement::{broadcast_to, pad, reshape, slice_axes, tile, whole};
use crate::tensor::{checked_numel, floats, from_floats, from_ints, ints, reserved};
use djinn_diag::Result;
use djinn_ir::{DType, TensorData};

/// ONNX Range: start, start + delta, … below limit.
pub(crate) fn range(call: &Call) -> Result<TensorData> {
    let dtype = call.x()?.dtype();
    if dtype.is_float() {
        let [start, limit, delta] = scalars(call, floats)?;
        let count = ((limit - start) / delta).ceil();
        if !count.is_finite() {
            return Err(call.fail(format!("from {start} to {limit} in steps of {delta} does not end")));
        }
        let count = checked_numel(&[count.max(0.0) as usize])?;
        let mut values = reserved(count)?;
        values.extend((0..count).map(|i| start + i as f64 * delta));
        return from_floats(dtype, &[count], &values);
    }
    let wide = |v: i64| if dtype == DType::U64 { i128::from(v as u64) } else { i128::from(v) };
    let [start, limit, delta] = scalars(call, ints)?.map(wide);
    if delta == 0 {
        return Err(call.fail("the step is 0"));
    }
    let span = if delta > 0 { limit - start } else { start - limit };
    let count = (span.max(0) as u128).div_ceil(delta.unsigned_abs());
    let count = checked_numel(&[usize::try_from(count).unwrap_or(usize::MAX)])?;
    let mut values = reserved(count)?;
    values.extend((0..count as i128).map(|i| (start + i * delta) as i64));
    from_ints(dtype, &[count], &values)
}

fn scalars<T: Copy>(call: &Call, read: fn(&TensorData) -> Vec<T>) -> Result<[T; 3]> {
    let one = |i: usize| -> Result<T> {
        let values = read(call.operand(i)?);
        values.first().copied().ok_or_else(|| call.fail(format!("operand {i} is empty")))
    };
    Ok([one(0)?, one(1)?, one(2)?])
}

/// Reshape with ONNX's meaning of −1 and 0.
pub(crate) fn dynamic_reshape(call: &Call) -> Result<TensorData> {
    let x = call.x()?;
    let wanted = ints(call.operand(1)?);
    let fail = || call.fail(format!("shape {:?} does not reshape to {wanted:?}", x.shape()));
    let (mut shape, mut open) = (Vec::new(), None);
    for (i, v) in wanted.iter().enumerate() {
        let size = match v {
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            0 if !call.attrs.bool("allow_zero") => *x.shape().get(i).ok_or_else(fail)?,
            v => usize::try_from(*v).map_err(|_| fail())?,
        };
        shape.push(size);
    }
    if let Some(i) = open {
        let rest = checked_numel(&shape)?;
        shape[i] = x.numel().checked_div(rest).ok_or_else(fail)?;
    }
    reshape(x, shape)
}

/// ONNX Expand: broadcasts the operand and the shape against each other.
pub(crate) fn dynamic_broadcast(call: &Call) -> Result<TensorData> {
    let x = call.x()?;
    let wanted = natural(call, &ints(call.operand(1)?))?;
    broadcast_to(x, &broadcast(&[x.shape(), &wanted])?)
}

fn natural(call: &Call, values: &[i64]) -> Result<Vec<usize>> {
    let sizes: Option<Vec<usize>> = values.iter().map(|v| usize::try_from(*v).ok()).collect();
    sizes.ok_or_else(|| call.fail(format!("{values:?} holds a negative size")))
}

/// First position and number of elements of ONNX Slice along an axis of `size` elements.
pub(crate) fn clamped_range(size: usize, start: i64, limit: i64, stride: i64) -> (i64, usize) {
    let n = size as i64;
    let from_front = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
    let (lowest, highest) = if stride > 0 { (0, n) } else { (-1, n - 1) };
    let start = from_front(start).clamp(lowest.max(0).min(highest), highest);
    let limit = from_front(limit).clamp(lowest, highest);
    let span = if stride > 0 { limit - start } else { start - limit };
    (start, (span.max(0) as u64).div_ceil(stride.unsigned_abs()) as usize)
}

/// ONNX Slice with bounds given at run time.
pub(crate) fn dynamic_slice(call: &Call) -> Result<TensorData> {
    let x = call.x()?;
    let [starts, limits, strides] = [ints(call.operand(1)?), ints(call.operand(2)?), ints(call.operand(3)?)];
    let mut ranges = whole(x);
    for (i, axis) in call.naturals("axes")?.into_iter().enumerate() {
        let bounds = starts.get(i).zip(limits.get(i)).zip(strides.get(i));
        let ((start, limit), stride) = bounds.ok_or_else(|| call.fail("there are fewer bounds than axes"))?;
        if *stride == 0 {
            return Err(call.fail("a stride is 0"));
        }
        let (first, count) = clamped_range(x.shape()[axis], *start, *limit, *stride);
        ranges[axis] = (first, *stride, count);
    }
    slice_axes(x, &ranges)
}

/// Pad with amounts given at run time: all lows, then all highs, for `axes`.
pub(crate) fn dynamic_pad(call: &Call) -> Result<TensorData> {
    let x = call.x()?;
    let axes = call.naturals("axes")?;
    let pads = call.operand(1)?;
    if !pads.dtype().is_int() || pads.shape() != [2 * axes.len()] {
        return Err(call.fail(format!("pads of type {} do not fit {} axes", pads.ty(), axes.len())));
    }
    let pads = ints(pads);
    let (mut low, mut high) = (vec![0; x.shape().len()], vec![0; x.shape().len()]);
    for (i, axis) in axes.iter().enumerate() {
        low[*axis] = pads[i];
        high[*axis] = pads[axes.len() + i];
    }
    pad(call, call.operand(2)?, &low, &high)
}

/// Tile with repeats given at run time.
pub(crate) fn dynamic_tile(call: &Call) -> Result<TensorData> {
    let x = call.x()?;
    let repeats = natural(call, &ints(call.operand(1)?))?;
    tile(x, &repeats)
}
