//! Reductions over axes, positions of extremes, running sums and products, and the k largest.

use crate::call::Call;
use crate::elementwise::{int_order, max_nan, min_nan};
use crate::index::{Lanes, Walk, strides};
use crate::tensor::{checked_numel, filled, floats, from_floats, from_ints, ints};
use djinn_diag::Result;
use djinn_ir::{DType, TensorData};
use std::cmp::Ordering;

/// Shape of the result of a reduction, strides of the result seen from the operand, and elements per result.
fn plan(call: &Call, shape: &[usize]) -> Result<(Vec<usize>, Vec<isize>, usize)> {
    let axes = call.naturals("axes")?;
    let kept: Vec<usize> =
        shape.iter().enumerate().map(|(i, n)| if axes.contains(&i) { 1 } else { *n }).collect();
    let mut steps = strides(&kept);
    axes.iter().for_each(|a| steps[*a] = 0);
    let count = axes.iter().map(|a| shape[*a]).product();
    let result = if call.attrs.bool("keepdims") {
        kept
    } else {
        shape.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, n)| *n).collect()
    };
    Ok((result, steps, count))
}

fn accumulate<T: Copy, A: Copy>(
    (values, shape): (&[T], &[usize]),
    (result, steps): (&[usize], &[isize]),
    first: A,
    f: impl Fn(A, T) -> A,
) -> Result<Vec<A>> {
    let mut out = filled(checked_numel(result)?, first)?;
    Walk::new(shape, [&strides(shape), steps]).each(|[i, o]| out[o] = f(out[o], values[i]));
    Ok(out)
}

/// A fold over axes, given for floats (accumulated in `f64`) and for integers (wrapping).
pub(crate) fn fold(
    call: &Call,
    (float_first, float): (f64, fn(f64, f64) -> f64),
    (int_first, int): (i64, &dyn Fn(i64, i64) -> i64),
) -> Result<TensorData> {
    let x = call.x()?;
    let (result, steps, _) = plan(call, x.shape())?;
    let target = (result.as_slice(), steps.as_slice());
    if x.dtype().is_float() {
        let out = accumulate((&floats(x), x.shape()), target, float_first, float)?;
        return from_floats(x.dtype(), &result, &out);
    }
    let out = accumulate((&ints(x), x.shape()), target, int_first, int)?;
    from_ints(x.dtype(), &result, &out)
}

/// Mean over axes; integers truncate towards zero, and the mean of no integers is 0.
pub(crate) fn mean(call: &Call) -> Result<TensorData> {
    let x = call.x()?;
    let (result, steps, count) = plan(call, x.shape())?;
    let target = (result.as_slice(), steps.as_slice());
    if x.dtype().is_float() {
        let sums = accumulate((&floats(x), x.shape()), target, 0.0, |a, v| a + v)?;
        let means: Vec<f64> = sums.into_iter().map(|s| s / count as f64).collect();
        return from_floats(x.dtype(), &result, &means);
    }
    let unsigned = x.dtype() == DType::U64;
    let wide = |v: i64| if unsigned { i128::from(v as u64) } else { i128::from(v) };
    let sums = accumulate((&ints(x), x.shape()), target, 0i128, |a, v| a + wide(v))?;
    let means: Vec<i64> =
        sums.into_iter().map(|s| s.checked_div(count as i128).unwrap_or(0) as i64).collect();
    from_ints(x.dtype(), &result, &means)
}

/// Smallest and largest value of an integer type (`u64` by its bits) or of `bool`.
pub(crate) fn int_range(dtype: DType) -> (i64, i64) {
    match dtype {
        DType::Bool => (0, 1),
        DType::U64 => (0, -1),
        _ => {
            let bits = 8 * dtype.size() as u32;
            if dtype.is_signed() {
                (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits))
            } else {
                (0, (1i64 << bits) - 1)
            }
        }
    }
}

/// Largest or smallest over axes.
pub(crate) fn extreme(call: &Call, largest: bool) -> Result<TensorData> {
    let dtype = call.x()?.dtype();
    let (low, high) = if dtype.is_float() { (0, 0) } else { int_range(dtype) };
    let want = if largest { Ordering::Greater } else { Ordering::Less };
    let pick = move |a: i64, b: i64| if int_order(dtype, b, a) == want { b } else { a };
    if largest {
        fold(call, (f64::NEG_INFINITY, max_nan), (low, &pick))
    } else {
        fold(call, (f64::INFINITY, min_nan), (high, &pick))
    }
}

/// Order in which NaN is above everything else and equal to itself.
fn nan_high(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Order in which NaN is below everything else and equal to itself.
fn nan_low(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// Position of the best element of every lane, "best" being `Greater` in `order`.
fn best_positions<T: Copy>(
    values: &[T],
    lanes: Lanes,
    last: bool,
    order: impl Fn(T, T) -> Ordering,
) -> Vec<i64> {
    let best = |start: usize| {
        let at = |i: usize| values[start + i * lanes.inner];
        let better = |i: usize, b: usize| match order(at(i), at(b)) {
            Ordering::Greater => true,
            Ordering::Equal => last,
            Ordering::Less => false,
        };
        (1..lanes.len).fold(0, |b, i| if better(i, b) { i } else { b }) as i64
    };
    lanes.starts().map(best).collect()
}

/// i64 position of the largest or smallest element along an axis; NaN beats everything.
pub(crate) fn arg_extreme(call: &Call, largest: bool) -> Result<TensorData> {
    let x = call.x()?;
    let lanes = Lanes::new(x.shape(), call.axis());
    if lanes.len == 0 && lanes.outer * lanes.inner > 0 {
        return Err(call.fail("there is no element to choose from"));
    }
    let last = call.attrs.bool("select_last");
    let dtype = x.dtype();
    let out = match (dtype.is_float(), largest) {
        (true, true) => best_positions(&floats(x), lanes, last, nan_high),
        (true, false) => best_positions(&floats(x), lanes, last, |a, b| nan_low(b, a)),
        (false, true) => best_positions(&ints(x), lanes, last, |a, b| int_order(dtype, a, b)),
        (false, false) => best_positions(&ints(x), lanes, last, |a, b| int_order(dtype, b, a)),
    };
    from_ints(DType::I64, &call.result_shape()?, &out)
}

fn scan<T: Copy>(values: &mut [T], lanes: Lanes, call: &Call, first: T, f: impl Fn(T, T) -> T) {
    let (exclusive, reverse) = (call.attrs.bool("exclusive"), call.attrs.bool("reverse"));
    for start in lanes.starts() {
        let mut running = first;
        for i in 0..lanes.len {
            let i = if reverse { lanes.len - 1 - i } else { i };
            let slot = &mut values[start + i * lanes.inner];
            let next = f(running, *slot);
            *slot = if exclusive { running } else { next };
            running = next;
        }
    }
}

/// Running fold along an axis; floats accumulate in `f64`.
pub(crate) fn cumulate(
    call: &Call,
    (float_first, float): (f64, fn(f64, f64) -> f64),
    (int_first, int): (i64, fn(i64, i64) -> i64),
) -> Result<TensorData> {
    let x = call.x()?;
    let lanes = Lanes::new(x.shape(), call.axis());
    if x.dtype().is_float() {
        let mut values = floats(x);
        scan(&mut values, lanes, call, float_first, float);
        return from_floats(x.dtype(), x.shape(), &values);
    }
    let mut values = ints(x);
    scan(&mut values, lanes, call, int_first, int);
    from_ints(x.dtype(), x.shape(), &values)
}

/// The first `k` positions of every lane when sorted by `order`, ties in order of position.
fn ranked(lanes: Lanes, k: usize, order: impl Fn(usize, usize) -> Ordering) -> Vec<Vec<usize>> {
    let rank = |start: usize| {
        let mut positions: Vec<usize> = (0..lanes.len).collect();
        positions.sort_by(|a, b| order(start + a * lanes.inner, start + b * lanes.inner));
        positions.truncate(k);
        positions
    };
    lanes.starts().map(rank).collect()
}

/// The k largest or smallest along an axis in order, and their positions; NaN beats everything.
pub(crate) fn topk(call: &Call) -> Result<Vec<TensorData>> {
    let x = call.x()?;
    let axis = call.axis();
    let lanes = Lanes::new(x.shape(), axis);
    let k = usize::try_from(call.amount("k")?).ok().filter(|k| *k <= lanes.len);
    let k = k.ok_or_else(|| call.fail(format!("k does not fit an axis of {} elements", lanes.len)))?;
    let (largest, dtype) = (call.attrs.bool("largest"), x.dtype());
    let best =
        if dtype.is_float() {
            let v = floats(x);
            ranked(lanes, k, |a, b| if largest { nan_high(v[b], v[a]) } else { nan_low(v[a], v[b]) })
        } else {
            let v = ints(x);
            ranked(lanes, k, |a, b| {
                if largest { int_order(dtype, v[b], v[a]) } else { int_order(dtype, v[a], v[b]) }
            })
        };
    let mut shape = x.shape().to_vec();
    shape[axis] = k;
    let out_lanes = Lanes::new(&shape, axis);
    let size = dtype.size();
    let mut positions = filled(checked_numel(&shape)?, 0i64)?;
    let mut bytes = filled(positions.len() * size, 0u8)?;
    for ((from, to), best) in lanes.starts().zip(out_lanes.starts()).zip(best) {
        for (i, p) in best.into_iter().enumerate() {
            let (from, to) = (from + p * lanes.inner, to + i * lanes.inner);
            positions[to] = p as i64;
            bytes[to * size..(to + 1) * size].copy_from_slice(&x.bytes()[from * size..(from + 1) * size]);
        }
    }
    let values = crate::tensor::from_bytes(dtype, &shape, bytes)?;
    Ok(vec![values, from_ints(DType::I64, &shape, &positions)?])
}
