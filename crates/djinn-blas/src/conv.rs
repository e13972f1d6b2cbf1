//! Convolutions as products of the weights with gathered windows, piece by piece; depthwise ones as loops.

use crate::gemm::{Matrix, multiply};
use crate::operation::{Call, Values};
use crate::real::Real;
use crate::windows::{Segment, Segments, Windows};

/// Features and depth of a group from which on a product pays for gathering.
const MIN_PRODUCT: usize = 2;

/// Batch, channels and spatial sizes.
fn split(shape: &[usize]) -> Option<(usize, usize, &[usize])> {
    match shape {
        [n, c, spatial @ ..] if !spatial.is_empty() => Some((*n, *c, spatial)),
        _ => None,
    }
}

/// Fills the result with its bias, or with zeros.
fn start<T: Real>(operands: &Values<T>, out: &mut [T], features: usize, area: usize) {
    match operands.get(2) {
        Some(bias) if area > 0 && features > 0 => {
            out.chunks_exact_mut(area).enumerate().for_each(|(i, row)| row.fill(bias[i % features]));
        }
        _ => out.fill(T::ZERO),
    }
}

fn bias_fits(call: &Call, features: usize) -> bool {
    call.shapes.len() < 3 || call.shape(2) == [features]
}

/// N-dimensional cross-correlation.
#[derive(Debug)]
pub(crate) struct Conv {
    windows: Windows,
    batch: usize,
    groups: usize,
    /// Channels and features of a group.
    channels: usize,
    features: usize,
}

impl Conv {
    pub(crate) fn new(call: &Call) -> Option<Conv> {
        let (batch, channels, spatial) = split(call.shape(0))?;
        let (features, group_channels, kernel) = split(call.shape(1))?;
        let groups = call.count("groups").filter(|g| *g >= 1)?;
        let counts = call.results.first()?.get(2..)?;
        let fits = group_channels.checked_mul(groups) == Some(channels)
            && features.is_multiple_of(groups)
            && bias_fits(call, features);
        if !fits {
            return None;
        }
        let depth = kernel.iter().product::<usize>().checked_mul(group_channels)?;
        let windows = Windows::new(call.attrs, (counts, kernel, spatial), depth)?;
        Some(Conv { windows, batch, groups, channels: group_channels, features: features / groups })
    }

    pub(crate) fn run<T: Real>(&self, operands: &Values<T>, out: &mut [T]) {
        let (positions, area) = (self.windows.len(), self.windows.area());
        start(operands, out, self.groups * self.features, positions);
        if out.is_empty() || operands[0].is_empty() || operands[1].is_empty() {
            return;
        }
        let (x, w) = (&*operands[0], &*operands[1]);
        if self.features < MIN_PRODUCT && self.channels < MIN_PRODUCT {
            return self.depthwise(x, w, out);
        }
        let depth = self.channels * self.windows.reach();
        if self.windows.is_identity() {
            for (planes, g, target) in self.each(x, area, out) {
                let weight = Matrix::new(&w[g * self.features * depth..], (self.features, depth), depth);
                multiply(weight, Matrix::new(planes, (depth, area), area), target, positions, true);
            }
            return;
        }
        let mut gathered = Vec::new();
        self.windows.each_piece(|piece, segments| {
            gathered.clear();
            gathered.resize(depth * piece.len(), T::ZERO);
            for (planes, g, target) in self.each(x, area, out) {
                self.gather(planes, segments, &mut gathered, piece.len());
                let weight = Matrix::new(&w[g * self.features * depth..], (self.features, depth), depth);
                let windows = Matrix::new(&gathered, (depth, piece.len()), piece.len());
                multiply(weight, windows, &mut target[piece.start..], positions, true);
            }
        });
    }

    /// The planes of the operand, the number of the group, and the planes of the result, for every batch and group.
    fn each<'a, T>(
        &self,
        x: &'a [T],
        area: usize,
        out: &'a mut [T],
    ) -> impl Iterator<Item = (&'a [T], usize, &'a mut [T])> + use<'a, T> {
        let groups = self.groups;
        let planes = x.chunks_exact((self.channels * area).max(1));
        let targets = out.chunks_exact_mut((self.features * self.windows.len()).max(1));
        planes.zip(targets).enumerate().map(move |(i, (planes, target))| (planes, i % groups, target))
    }

    /// Puts what the windows see into rows, one for each channel and kernel position. What lies in the padding is not
    /// touched: it is the same for all planes.
    fn gather<T: Real>(&self, planes: &[T], segments: &Segments, rows: &mut [T], len: usize) {
        let (reach, area, step) = (self.windows.reach(), self.windows.area(), self.windows.step());
        for (plane, rows) in planes.chunks_exact(area).zip(rows.chunks_exact_mut(reach * len)) {
            for (row, list) in rows.chunks_exact_mut(len).zip(segments) {
                for Segment { to, from, len } in list.iter().copied() {
                    let target = &mut row[to..to + len];
                    if step == 1 {
                        target.copy_from_slice(&plane[from..from + len]);
                    } else {
                        target.iter_mut().zip(plane[from..].iter().step_by(step)).for_each(|(t, v)| *t = *v);
                    }
                }
            }
        }
    }

    /// One channel and one feature a group.
    fn depthwise<T: Real>(&self, x: &[T], w: &[T], out: &mut [T]) {
        let (reach, area, step) = (self.windows.reach(), self.windows.area(), self.windows.step());
        self.windows.each_piece(|piece, segments| {
            for (plane, g, target) in self.each(x, area, out) {
                let target = &mut target[piece.clone()];
                for (list, factor) in segments.iter().zip(&w[g * reach..][..reach]) {
                    for Segment { to, from, len } in list.iter().copied() {
                        let target = &mut target[to..to + len];
                        if step == 1 {
                            let seen = &plane[from..from + len];
                            target.iter_mut().zip(seen).for_each(|(t, v)| *t += *v * *factor);
                        } else {
                            let seen = plane[from..].iter().step_by(step);
                            target.iter_mut().zip(seen).for_each(|(t, v)| *t += *v * *factor);
                        }
                    }
                }
            }
        });
        debug_assert_eq!(out.len(), self.batch * self.groups * self.windows.len());
    }
}

/// Transposed convolution: every operand element adds a scaled kernel to the result.
#[derive(Debug)]
pub(crate) struct ConvTranspose {
    /// Over the result: one window for each operand position.
    windows: Windows,
    groups: usize,
    channels: usize,
    features: usize,
}

impl ConvTranspose {
    pub(crate) fn new(call: &Call) -> Option<ConvTranspose> {
        let (_, channels, spatial) = split(call.shape(0))?;
        let (weight_channels, features, kernel) = split(call.shape(1))?;
        let groups = call.count("groups").filter(|g| *g >= 1)?;
        let bounds = call.results.first()?.get(2..)?;
        let fits = weight_channels == channels
            && channels.is_multiple_of(groups)
            && bias_fits(call, features.checked_mul(groups)?);
        if !fits {
            return None;
        }
        let height = kernel.iter().product::<usize>().checked_mul(features)?;
        let windows = Windows::new(call.attrs, (spatial, kernel, bounds), height)?;
        Some(ConvTranspose { windows, groups, channels: channels / groups, features })
    }

    pub(crate) fn run<T: Real>(&self, operands: &Values<T>, out: &mut [T]) {
        let (positions, area) = (self.windows.len(), self.windows.area());
        start(operands, out, self.groups * self.features, area);
        if out.is_empty() || operands[0].is_empty() || operands[1].is_empty() {
            return;
        }
        let (x, w) = (&*operands[0], &*operands[1]);
        let (reach, step) = (self.windows.reach(), self.windows.step());
        let height = self.features * reach;
        let mut product = Vec::new();
        self.windows.each_piece(|piece, segments| {
            let len = piece.len();
            product.resize(height * len, T::ZERO);
            let parts =
                x.chunks_exact(self.channels * positions).zip(out.chunks_exact_mut(self.features * area));
            for (i, (part, target)) in parts.enumerate() {
                let w = &w[(i % self.groups) * self.channels * height..];
                let weight = Matrix::new(w, (self.channels, height), height).transposed();
                let part = Matrix::new(&part[piece.start..], (self.channels, len), positions);
                multiply(weight, part, &mut product, len, false);
                for (plane, rows) in target.chunks_exact_mut(area).zip(product.chunks_exact(reach * len)) {
                    for (list, row) in segments.iter().zip(rows.chunks_exact(len)) {
                        for Segment { to, from, len } in list.iter().copied() {
                            let seen = plane[from..].iter_mut().step_by(step);
                            seen.zip(&row[to..to + len]).for_each(|(t, v)| *t += *v);
                        }
                    }
                }
            }
        });
    }
}
