//! Sliding windows over spatial axes: convolutions and pools.

use crate::call::Call;
use crate::contraction::{Matrix, multiply};
use crate::elementwise::{int_order, max_nan};
use crate::index::each_index;
use crate::reduce::int_range;
use crate::tensor::{checked_numel, filled, floats, from_floats, from_ints, ints};
use djinn_diag::{Result, unsupported};
use djinn_ir::TensorData;
use std::cmp::Ordering;
use std::ops::Range;

/// Elements of one gathered matrix of a convolution, at most: longer outputs are computed piece by piece.
const CHUNK_ELEMENTS: usize = 1 << 22;
/// Kernel positions times output positions that are looked at in one piece, at least one output position.
const CHUNK_POSITIONS: usize = 1 << 20;
/// Positions of one kernel, at most.
const MAX_KERNEL: usize = 1 << 24;
/// Marks a window position that lies in the padding.
const OUTSIDE: usize = usize::MAX;

/// How windows lie over the spatial axes: position `o·stride + k·dilation − pad` for window `o`, kernel index `k`.
struct Windows {
    /// Number of windows along every axis.
    counts: Vec<usize>,
    /// Kernel size along every axis.
    kernel: Vec<usize>,
    /// Size of the axes that the windows lie over.
    bounds: Vec<usize>,
    strides: Vec<i64>,
    dilations: Vec<i64>,
    pads: Vec<i64>,
}

impl Windows {
    fn new(call: &Call, counts: &[usize], kernel: &[usize], bounds: &[usize]) -> Self {
        Windows {
            counts: counts.to_vec(),
            kernel: kernel.to_vec(),
            bounds: bounds.to_vec(),
            strides: call.attrs.ints("strides").to_vec(),
            dilations: call.attrs.ints("dilations").to_vec(),
            pads: call.attrs.ints("pads").to_vec(),
        }
    }

    /// Number of windows.
    fn len(&self) -> usize {
        self.counts.iter().product()
    }

    /// Number of positions in a window.
    fn reach(&self) -> Result<usize> {
        let reach = checked_numel(&self.kernel)?;
        if reach > MAX_KERNEL {
            let message = format!("a kernel of shape {:?} has more than {MAX_KERNEL} positions", self.kernel);
            return Err(unsupported("interp.size", message));
        }
        Ok(reach)
    }

    /// Position along one axis; below 0 or beyond the bound if it lies in the padding.
    fn position(&self, axis: usize, window: usize, k: usize) -> i64 {
        let start = (window as i64).saturating_mul(self.strides[axis]);
        let inside = (k as i64).saturating_mul(self.dilations[axis]);
        start.saturating_add(inside).saturating_sub(self.pads[axis])
    }

    /// Coordinates of window number `n`.
    fn coordinates(&self, mut n: usize) -> Vec<usize> {
        let mut out = vec![0; self.counts.len()];
        for (slot, count) in out.iter_mut().zip(&self.counts).rev() {
            *slot = n % count;
            n /= count;
        }
        out
    }

    /// For every kernel position, the offset (or [`OUTSIDE`]) that each of these windows reads there.
    fn offsets(&self, windows: Range<usize>) -> Vec<Vec<usize>> {
        let coordinates: Vec<Vec<usize>> = windows.map(|n| self.coordinates(n)).collect();
        let mut out = Vec::new();
        each_index(&self.kernel, |k| {
            let offset = |window: &Vec<usize>| {
                let mut offset = 0;
                for (axis, bound) in self.bounds.iter().enumerate() {
                    match usize::try_from(self.position(axis, window[axis], k[axis])) {
                        Ok(p) if p < *bound => offset = offset * bound + p,
                        _ => return OUTSIDE,
                    }
                }
                offset
            };
            out.push(coordinates.iter().map(offset).collect());
        });
        out
    }

    /// Pieces of the windows such that `per_window` times their length stays bounded.
    fn chunks(&self, per_window: usize, limit: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (len, step) = (self.len(), (limit / per_window.max(1)).max(1));
        (0..len).step_by(step).map(move |start| start..(start + step).min(len))
    }
}

/// Batch, channels and spatial sizes of a shape of rank 3 or more.
fn split<'a>(call: &Call, shape: &'a [usize]) -> Result<(usize, usize, &'a [usize])> {
    match shape {
        [n, c, spatial @ ..] => Ok((*n, *c, spatial)),
        _ => Err(call.fail(format!("shape {shape:?} has no spatial axes"))),
    }
}

fn groups(call: &Call, channels: usize) -> Result<usize> {
    usize::try_from(call.attrs.int("groups"))
        .ok()
        .filter(|g| *g >= 1 && channels.is_multiple_of(*g))
        .ok_or_else(|| call.fail(format!("the groups do not divide {channels} channels")))
}

/// The output of a convolution before anything is added: its bias, or zeros.
fn biased(call: &Call, shape: &[usize], spatial: usize) -> Result<Vec<f64>> {
    let mut out = filled(checked_numel(shape)?, 0.0)?;
    if let Some(bias) = call.operands.get(2) {
        let bias = floats(bias);
        if bias.len() != shape[1] {
            return Err(call.fail(format!("the bias has {} elements, not {}", bias.len(), shape[1])));
        }
        for (i, row) in out.chunks_exact_mut(spatial.max(1)).enumerate() {
            row.fill(bias[i % bias.len()]);
        }
    }
    Ok(out)
}

/// N-dimensional cross-correlation, as a matrix product with gathered windows.
pub(crate) fn conv(call: &Call) -> Result<TensorData> {
    let (x, w) = (call.operand(0)?, call.operand(1)?);
    let (batch, channels, spatial) = split(call, x.shape())?;
    let (features, group_channels, kernel) = split(call, w.shape())?;
    let shape = call.result_shape()?;
    let groups = groups(call, channels)?;
    if group_channels * groups != channels || features % groups != 0 {
        return Err(call.fail(format!("weight {:?} does not fit {channels} channels", w.shape())));
    }
    let windows = Windows::new(call, &shape[2..], kernel, spatial);
    let (reach, positions, area) = (windows.reach()?, windows.len(), spatial.iter().product::<usize>());
    let (depth, group_features) = (group_channels * reach, features / groups);
    let (xs, ws) = (floats(x), floats(w));
    let mut out = biased(call, &shape, positions)?;
    for chunk in windows.chunks(depth, CHUNK_ELEMENTS) {
        let offsets = windows.offsets(chunk.clone());
        for (n, g) in (0..batch).flat_map(|n| (0..groups).map(move |g| (n, g))) {
            let mut gathered = Vec::with_capacity(depth * chunk.len());
            for c in 0..group_channels {
                let plane = &xs[(n * channels + g * group_channels + c) * area..][..area];
                for row in &offsets {
                    gathered.extend(row.iter().map(|o| plane.get(*o).copied().unwrap_or(0.0)));
                }
            }
            let weight = Matrix::dense(&ws, g * group_features * depth, (group_features, depth));
            let product = multiply(weight, Matrix::dense(&gathered, 0, (depth, chunk.len())))?;
            for m in 0..group_features {
                let row = (n * features + g * group_features + m) * positions;
                let target = &mut out[row + chunk.start..row + chunk.end];
                target.iter_mut().zip(&product[m * chunk.len()..]).for_each(|(t, v)| *t += v);
            }
        }
    }
    from_floats(x.dtype(), &shape, &out)
}

/// Transposed convolution: every operand element adds a scaled kernel to the result.
pub(crate) fn conv_transpose(call: &Call) -> Result<TensorData> {
    let (x, w) = (call.operand(0)?, call.operand(1)?);
    let (batch, channels, spatial) = split(call, x.shape())?;
    let (weight_channels, group_features, kernel) = split(call, w.shape())?;
    let shape = call.result_shape()?;
    let groups = groups(call, channels)?;
    if weight_channels != channels {
        return Err(call.fail(format!("weight {:?} does not fit {channels} channels", w.shape())));
    }
    let windows = Windows::new(call, spatial, kernel, &shape[2..]);
    let (reach, positions) = (windows.reach()?, windows.len());
    let area: usize = shape[2..].iter().product();
    let (height, group_channels) = (group_features * reach, channels / groups);
    let (xs, ws) = (floats(x), floats(w));
    let mut out = biased(call, &shape, area)?;
    for chunk in windows.chunks(height, CHUNK_ELEMENTS) {
        let offsets = windows.offsets(chunk.clone());
        for (n, g) in (0..batch).flat_map(|n| (0..groups).map(move |g| (n, g))) {
            let start = (n * channels + g * group_channels) * positions + chunk.start;
            let size = (group_channels, chunk.len());
            let part = Matrix { values: &xs, start, size, steps: (positions, 1) };
            let weight = Matrix::dense(&ws, g * group_channels * height, (group_channels, height));
            let product = multiply(weight.transposed(), part)?;
            for (row, values) in product.chunks_exact(chunk.len()).enumerate() {
                let (m, k) = (row / reach, row % reach);
                let plane = (n * shape[1] + g * group_features + m) * area;
                let targets = offsets[k].iter().zip(values).filter(|(o, _)| **o != OUTSIDE);
                targets.for_each(|(o, v)| out[plane + o] += v);
            }
        }
    }
    from_floats(x.dtype(), &shape, &out)
}

/// Folds the positions inside every window of every plane; `finish` gets window number, fold and count.
fn pool<T: Copy, R>(
    windows: &Windows,
    (planes, values): (usize, &[T]),
    (first, f): (T, impl Fn(T, T) -> T),
    finish: impl Fn(usize, T, usize) -> R,
) -> Result<Vec<R>> {
    let area: usize = windows.bounds.iter().product();
    let mut out: Vec<Vec<R>> = (0..planes).map(|_| Vec::new()).collect();
    for chunk in windows.chunks(windows.reach()?, CHUNK_POSITIONS) {
        let offsets = windows.offsets(chunk.clone());
        for (n, results) in out.iter_mut().enumerate() {
            let plane = &values[n * area..(n + 1) * area];
            for (i, window) in chunk.clone().enumerate() {
                let inside = offsets.iter().filter_map(|row| plane.get(row[i]));
                let (total, count) = inside.fold((first, 0), |(total, n), v| (f(total, *v), n + 1));
                results.push(finish(window, total, count));
            }
        }
    }
    Ok(out.into_iter().flatten().collect())
}

/// Operand, number of planes, spatial sizes, result shape and windows of a pooling operation.
struct Pooling<'a> {
    x: &'a TensorData,
    planes: usize,
    spatial: &'a [usize],
    shape: Vec<usize>,
    windows: Windows,
}

impl<'a> Pooling<'a> {
    fn new(call: &'a Call) -> Result<Self> {
        let x = call.x()?;
        let (batch, channels, spatial) = split(call, x.shape())?;
        let shape = call.result_shape()?;
        checked_numel(&shape)?;
        let windows = Windows::new(call, &shape[2..], &call.naturals("kernel")?, spatial);
        Ok(Pooling { x, planes: batch * channels, spatial, shape, windows })
    }
}

/// Largest in each window; padding counts as the lowest value.
pub(crate) fn max_pool(call: &Call) -> Result<TensorData> {
    let Pooling { x, planes, shape, windows, .. } = Pooling::new(call)?;
    let dtype = x.dtype();
    if dtype.is_float() {
        let out = pool(&windows, (planes, &floats(x)), (f64::NEG_INFINITY, max_nan), |_, v, _| v)?;
        return from_floats(dtype, &shape, &out);
    }
    let larger = |a: i64, b: i64| if int_order(dtype, b, a) == Ordering::Greater { b } else { a };
    let out = pool(&windows, (planes, &ints(x)), (int_range(dtype).0, larger), |_, v, _| v)?;
    from_ints(dtype, &shape, &out)
}

/// Mean of each window. With `count_include_pad` the padding that `pads` asks for counts as zeros; what a last
/// window reaches beyond it (`ceil_mode`) never counts.
pub(crate) fn avg_pool(call: &Call) -> Result<TensorData> {
    let Pooling { x, planes, spatial, shape, windows } = Pooling::new(call)?;
    let include_pad = call.attrs.bool("count_include_pad");
    let n = spatial.len();
    let padded = |window: usize| -> usize {
        let at = windows.coordinates(window);
        let inside = |axis: usize| {
            let limit = (spatial[axis] as i64).saturating_add(windows.pads[n + axis]);
            (0..windows.kernel[axis]).filter(|k| windows.position(axis, at[axis], *k) < limit).count()
        };
        (0..n).map(inside).product()
    };
    let finish = |window: usize, sum: f64, count: usize| {
        let count = if include_pad { padded(window) } else { count };
        sum / count as f64
    };
    let out = pool(&windows, (planes, &floats(x)), (0.0, |a, v| a + v), finish)?;
    from_floats(x.dtype(), &shape, &out)
}
