//! Pools: the largest or the mean of each window.

use crate::operation::{Call, Values};
use crate::real::Real;
use crate::windows::{Segment, Windows};

/// A pool.
#[derive(Debug)]
pub(crate) struct Pool {
    windows: Windows,
    /// By window: how many elements the mean is over. `None`: the largest is wanted.
    counts: Option<Vec<f64>>,
}

impl Pool {
    pub(crate) fn new(call: &Call, largest: bool) -> Option<Pool> {
        let spatial = call.shape(0).get(2..)?;
        let shape = call.results.first()?.get(2..)?;
        let kernel: Vec<usize> =
            call.attrs.ints("kernel").iter().map(|k| usize::try_from(*k).ok()).collect::<Option<_>>()?;
        let windows = Windows::new(call.attrs, (shape, &kernel, spatial), 1)?;
        let counts = match largest {
            true => None,
            false => Some(counts(&windows, shape, spatial, call.attrs.bool("count_include_pad"))),
        };
        Some(Pool { windows, counts })
    }

    pub(crate) fn run<T: Real>(&self, operands: &Values<T>, out: &mut [T]) {
        let (area, len, step) = (self.windows.area(), self.windows.len(), self.windows.step());
        let largest = self.counts.is_none();
        out.fill(if largest { T::LOWEST } else { T::ZERO });
        if len == 0 {
            return;
        }
        let fold = |slot: &mut T, v: &T| {
            if !largest {
                *slot += *v;
            } else if *v > *slot || v.is_nan() {
                *slot = *v;
            }
        };
        if area > 0 {
            self.windows.each_piece(|piece, segments| {
                for (plane, target) in operands[0].chunks_exact(area).zip(out.chunks_exact_mut(len)) {
                    let target = &mut target[piece.clone()];
                    for Segment { to, from, len } in segments.iter().flatten().copied() {
                        let seen = plane[from..].iter().step_by(step);
                        target[to..to + len].iter_mut().zip(seen).for_each(|(slot, v)| fold(slot, v));
                    }
                }
            });
        }
        if let Some(counts) = &self.counts {
            for target in out.chunks_exact_mut(len) {
                target.iter_mut().zip(counts).for_each(|(slot, n)| *slot = *slot / T::from_f64(*n));
            }
        }
    }
}

/// By window: the elements inside, or those inside the operand and the padding that is asked for.
fn counts(windows: &Windows, shape: &[usize], spatial: &[usize], include_pad: bool) -> Vec<f64> {
    let along = |axis: usize| -> Vec<usize> {
        let bound = spatial[axis] as i64;
        let (from, limit) = if include_pad { (i64::MIN, bound + windows.high_pad(axis)) } else { (0, bound) };
        (0..shape[axis]).map(|window| windows.inside(axis, window, from, limit)).collect()
    };
    let axes: Vec<Vec<usize>> = (0..shape.len()).map(along).collect();
    let product = |number: usize| {
        let at = Windows::coordinates(number, shape);
        at.iter().zip(&axes).map(|(i, counts)| counts[*i] as f64).product()
    };
    (0..windows.len()).map(product).collect()
}
