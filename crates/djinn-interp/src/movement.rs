//! Data movement with positions known from attributes: views, joins, padding, sources.

use crate::call::Call;
use crate::elementwise;
use crate::index::{Lanes, Walk, broadcast_strides, each_index, strides};
use crate::tensor::{checked_numel, from_bytes, from_ints, reserved};
use djinn_diag::{Result, input};
use djinn_ir::{DType, TensorData};

/// The elements of `x` that a strided walk visits, as a tensor of `shape`.
///
/// The caller has made sure that every position of the walk lies inside `x`.
pub(crate) fn strided(x: &TensorData, shape: &[usize], steps: &[isize], base: isize) -> Result<TensorData> {
    let size = x.dtype().size();
    let bytes = x.bytes();
    let mut out = reserved(checked_numel(shape)? * size)?;
    Walk::starting_at(shape, [steps], [base]).runs(|[start], length, [step]| {
        if step == 1 {
            out.extend_from_slice(&bytes[start * size..(start + length) * size]);
            return;
        }
        let mut at = start as isize;
        for _ in 0..length {
            out.extend_from_slice(&bytes[at as usize * size..(at as usize + 1) * size]);
            at += step;
        }
    });
    from_bytes(x.dtype(), shape, out)
}

/// The elements in row-major order under another shape.
pub(crate) fn reshape(x: &TensorData, shape: Vec<usize>) -> Result<TensorData> {
    let message = format!("{:?} elements do not reshape to {shape:?}", x.shape());
    x.reshaped(shape).ok_or_else(|| input("interp.reshape", message))
}

/// Result axis i is operand axis `perm[i]`.
pub(crate) fn transpose(call: &Call) -> Result<TensorData> {
    let x = call.x()?;
    let perm = call.naturals("perm")?;
    let steps = strides(x.shape());
    let shape: Vec<usize> = perm.iter().map(|p| x.shape()[*p]).collect();
    let steps: Vec<isize> = perm.iter().map(|p| steps[*p]).collect();
    strided(x, &shape, &steps, 0)
}

/// Numpy broadcast of `x` to exactly `shape`.
pub(crate) fn broadcast_to(x: &TensorData, shape: &[usize]) -> Result<TensorData> {
    strided(x, shape, &broadcast_strides(x.shape(), shape)?, 0)
}

/// `count` elements along every axis, from `start` on in steps that may be negative.
///
/// Every `(start, step, count)` must stay inside its axis; an empty axis may start anywhere.
pub(crate) fn slice_axes(x: &TensorData, ranges: &[(i64, i64, usize)]) -> Result<TensorData> {
    let mut base = 0isize;
    let mut steps = strides(x.shape());
    let shape: Vec<usize> = ranges.iter().map(|r| r.2).collect();
    if shape.contains(&0) {
        return from_bytes(x.dtype(), &shape, Vec::new());
    }
    for (axis, (start, step, count)) in ranges.iter().enumerate() {
        let last = (*count as i64 - 1).checked_mul(*step).and_then(|d| d.checked_add(*start));
        let inside = |i: i64| i >= 0 && i < x.shape()[axis] as i64;
        if !inside(*start) || !last.is_some_and(inside) {
            let message = format!("{count} elements from {start} in steps of {step} leave axis {axis}");
            return Err(input("interp.slice", format!("{message} of shape {:?}", x.shape())));
        }
        base += steps[axis] * *start as isize;
        // With a single element the step is never taken, so that it may be of any size.
        steps[axis] = if *count == 1 { 0 } else { steps[axis] * *step as isize };
    }
    strided(x, &shape, &steps, base)
}

/// All of every axis: the ranges that [`slice_axes`] takes for the identity.
pub(crate) fn whole(x: &TensorData) -> Vec<(i64, i64, usize)> {
    x.shape().iter().map(|n| (0, 1, *n)).collect()
}

/// Elements start, start + stride, … below limit along one axis.
pub(crate) fn slice(call: &Call) -> Result<TensorData> {
    let x = call.x()?;
    let axis = call.axis();
    let (start, limit, stride) = (call.amount("start")?, call.amount("limit")?, call.attrs.int("stride"));
    let size = x.shape()[axis];
    if !(0 <= start && start <= limit && limit <= size as i64) {
        return Err(call.fail(format!("start {start} and limit {limit} do not fit the size {size}")));
    }
    let mut ranges = whole(x);
    ranges[axis] = (start, stride, ((limit - start) as u64).div_ceil(stride as u64) as usize);
    slice_axes(x, &ranges)
}

/// Reverses the order along `axes`.
pub(crate) fn reverse(call: &Call) -> Result<TensorData> {
    let x = call.x()?;
    let mut ranges = whole(x);
    for axis in call.naturals("axes")? {
        let size = x.shape()[axis];
        ranges[axis] = (size as i64 - 1, -1, size);
    }
    slice_axes(x, &ranges)
}

/// Joins tensors of one element type along an axis.
pub(crate) fn concat(inputs: &[TensorData], axis: usize) -> Result<TensorData> {
    let fail = |message: &str| input("interp.concat", format!("'concat': {message}"));
    let first = inputs.first().ok_or_else(|| fail("there are no operands"))?;
    let mut shape = first.shape().to_vec();
    let same = |t: &TensorData| {
        let agree = |i: usize| i == axis || t.shape()[i] == shape[i];
        t.dtype() == first.dtype() && t.shape().len() == shape.len() && (0..shape.len()).all(agree)
    };
    if axis >= shape.len() || !inputs.iter().all(same) {
        let shapes: Vec<_> = inputs.iter().map(TensorData::shape).collect();
        return Err(fail(&format!("the shapes {shapes:?} do not join along axis {axis}")));
    }
    shape[axis] = inputs.iter().map(|t| t.shape()[axis]).fold(0, usize::saturating_add);
    let mut out = reserved(checked_numel(&shape)? * first.dtype().size())?;
    let outer: usize = shape[..axis].iter().product();
    for o in 0..outer {
        for t in inputs {
            let block = t.bytes().len() / outer;
            out.extend_from_slice(&t.bytes()[o * block..(o + 1) * block]);
        }
    }
    from_bytes(first.dtype(), &shape, out)
}

/// Source position of every result position along one padded axis; `None` reads the pad value.
fn pad_sources(call: &Call, mode: &str, size: usize, low: i64, high: i64) -> Result<Vec<Option<usize>>> {
    let n = size as i64;
    let total = low.checked_add(n).and_then(|t| t.checked_add(high)).filter(|t| *t >= 0);
    let total =
        total.ok_or_else(|| call.fail(format!("padding {size} by {low} and {high} is not a size")))?;
    checked_numel(&[total as usize])?;
    // Negative amounts remove elements first; the mode then sees what is left.
    let (first, left) = (low.saturating_neg().max(0), n + low.min(0) + high.min(0));
    let source = |i: i64| {
        let at = i - low.max(0);
        let inside = (0..left).contains(&at).then_some(at);
        let folded = match mode {
            "constant" => inside,
            "edge" => (left > 0).then(|| at.clamp(0, left - 1)),
            "wrap" => (left > 0).then(|| at.rem_euclid(left)),
            _ if left == 1 => Some(0),
            _ => (left > 0).then(|| {
                let turn = at.rem_euclid(2 * (left - 1));
                turn.min(2 * (left - 1) - turn)
            }),
        };
        match folded {
            None if mode != "constant" => Err(call.fail(format!("mode '{mode}' has nothing to pad with"))),
            _ => Ok(folded.map(|p| (p + first) as usize)),
        }
    };
    let mut sources = reserved(total as usize)?;
    for i in 0..total {
        sources.push(source(i)?);
    }
    Ok(sources)
}

/// Pads every axis by the given amounts.
pub(crate) fn pad(call: &Call, value: &TensorData, low: &[i64], high: &[i64]) -> Result<TensorData> {
    let x = call.x()?;
    let mode = call.attrs.str("mode");
    let size = x.dtype().size();
    let fill = value.bytes().get(..size).filter(|_| value.dtype() == x.dtype());
    let fill = fill.ok_or_else(|| call.fail("the pad value is not one element of the operand's type"))?;
    let amounts = low.iter().zip(high).zip(x.shape());
    let sources: Vec<Vec<Option<usize>>> =
        amounts.map(|((l, h), n)| pad_sources(call, mode, *n, *l, *h)).collect::<Result<_>>()?;
    let shape: Vec<usize> = sources.iter().map(Vec::len).collect();
    let Some((last, outer)) = sources.split_last() else { return Ok(x.clone()) };
    let steps = strides(x.shape());
    let mut out = reserved(checked_numel(&shape)? * size)?;
    each_index(&shape[..outer.len()], |index| {
        let row = index
            .iter()
            .enumerate()
            .try_fold(0usize, |at, (axis, i)| Some(at + sources[axis][*i]? * steps[axis] as usize));
        for s in last {
            match row.zip(*s) {
                Some((row, s)) => out.extend_from_slice(&x.bytes()[(row + s) * size..(row + s + 1) * size]),
                None => out.extend_from_slice(fill),
            }
        }
    });
    from_bytes(x.dtype(), &shape, out)
}

/// Repeats the whole of axis i `repeats[i]` times.
pub(crate) fn tile(x: &TensorData, repeats: &[usize]) -> Result<TensorData> {
    let (mut split, mut shape, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for ((n, r), step) in x.shape().iter().zip(repeats).zip(strides(x.shape())) {
        split.extend([*r, *n]);
        steps.extend([0, step]);
        shape.push(n.saturating_mul(*r));
    }
    checked_numel(&shape)?;
    reshape(&strided(x, &split, &steps, 0)?, shape)
}

/// 0, 1, 2, … along `axis`, constant along the others.
pub(crate) fn iota(call: &Call) -> Result<TensorData> {
    let shape = call.sizes("shape")?;
    let lanes = Lanes::new(&shape, call.axis());
    let mut values = reserved(checked_numel(&shape)?)?;
    for _ in 0..lanes.outer {
        for i in 0..lanes.len {
            values.extend(std::iter::repeat_n(i as i64, lanes.inner));
        }
    }
    let data = from_ints(DType::I64, &shape, &values)?;
    elementwise::cast(&data, call.attrs.dtype("dtype").unwrap_or(DType::I64))
}

/// An i64 tensor of sizes.
pub(crate) fn dim_expr(call: &Call) -> Result<TensorData> {
    let values = call.amounts("exprs")?;
    let shape = if call.attrs.bool("scalar") { vec![] } else { vec![values.len()] };
    from_ints(DType::I64, &shape, &values)
}

/// Keeps one triangle of the last two axes and sets the other to zero.
pub(crate) fn trilu(call: &Call) -> Result<TensorData> {
    let x = call.x()?;
    let (upper, k) = (call.attrs.bool("upper"), i128::from(call.attrs.int("k")));
    let [.., rows, columns] = *x.shape() else { return Err(call.fail("the rank is below 2")) };
    let size = x.dtype().size();
    let mut out = x.bytes().to_vec();
    for (n, element) in out.chunks_exact_mut(size).enumerate() {
        let (i, j) = ((n / columns % rows) as i128, (n % columns) as i128);
        let keep = if upper { j - i >= k } else { j - i <= k };
        if !keep {
            element.fill(0);
        }
    }
    from_bytes(x.dtype(), x.shape(), out)
}
