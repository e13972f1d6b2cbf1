//! Row-major index arithmetic: strides, broadcasting, and walking over several strided operands at once.

use djinn_diag::{Result, input};

/// Distance of neighbours along every axis, in elements.
pub(crate) fn strides(shape: &[usize]) -> Vec<isize> {
    let mut out = vec![1isize; shape.len()];
    for i in (1..shape.len()).rev() {
        out[i - 1] = out[i].saturating_mul(isize::try_from(shape[i]).unwrap_or(isize::MAX));
    }
    out
}

/// The shape that these shapes broadcast to.
pub(crate) fn broadcast(shapes: &[&[usize]]) -> Result<Vec<usize>> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut out = vec![1; rank];
    for shape in shapes {
        for (slot, size) in out.iter_mut().rev().zip(shape.iter().rev()) {
            if *slot == 1 {
                *slot = *size;
            } else if *size != 1 && *size != *slot {
                return Err(input("interp.broadcast", format!("the shapes {shapes:?} do not broadcast")));
            }
        }
    }
    Ok(out)
}

/// Strides with which an operand of shape `from` is read as one of shape `to`: 0 along axes it is repeated on.
pub(crate) fn broadcast_strides(from: &[usize], to: &[usize]) -> Result<Vec<isize>> {
    let fail = || input("interp.broadcast", format!("shape {from:?} does not broadcast to {to:?}"));
    let missing = to.len().checked_sub(from.len()).ok_or_else(fail)?;
    let mut out = vec![0; to.len()];
    for (i, stride) in strides(from).into_iter().enumerate() {
        if from[i] == to[missing + i] {
            out[missing + i] = stride;
        } else if from[i] != 1 {
            return Err(fail());
        }
    }
    Ok(out)
}

/// A walk in row-major order over an index space, with an offset into each of `N` strided operands.
///
/// Neighbouring axes that all operands step through evenly are joined, so that contiguous operands are one run.
pub(crate) struct Walk<const N: usize> {
    sizes: Vec<usize>,
    strides: Vec<[isize; N]>,
    base: [isize; N],
}

impl<const N: usize> Walk<N> {
    /// A walk over `shape`; every operand has one stride per axis.
    pub(crate) fn new(shape: &[usize], strides: [&[isize]; N]) -> Self {
        Walk::starting_at(shape, strides, [0; N])
    }

    /// A walk whose first element lies at `base`.
    pub(crate) fn starting_at(shape: &[usize], strides: [&[isize]; N], base: [isize; N]) -> Self {
        let mut walk = Walk { sizes: Vec::new(), strides: Vec::new(), base };
        for (axis, size) in shape.iter().enumerate() {
            if *size == 1 {
                continue;
            }
            let step: [isize; N] = std::array::from_fn(|n| strides[n][axis]);
            let joins = walk
                .strides
                .last()
                .is_some_and(|outer| (0..N).all(|n| step[n].checked_mul(*size as isize) == Some(outer[n])));
            match (joins, walk.sizes.last_mut(), walk.strides.last_mut()) {
                (true, Some(outer_size), Some(outer_step)) => {
                    *outer_size *= size;
                    *outer_step = step;
                }
                _ => {
                    walk.sizes.push(*size);
                    walk.strides.push(step);
                }
            }
        }
        walk
    }

    /// Calls `visit` with the offsets of the first element, the length and the steps of every innermost run.
    pub(crate) fn runs(&self, mut visit: impl FnMut([usize; N], usize, [isize; N])) {
        if self.sizes.contains(&0) {
            return;
        }
        let (length, step) = match (self.sizes.last(), self.strides.last()) {
            (Some(size), Some(step)) => (*size, *step),
            _ => (1, [1; N]),
        };
        let outer = self.sizes.len().saturating_sub(1);
        let mut counters = vec![0usize; outer];
        let mut offsets = self.base;
        loop {
            visit(offsets.map(|o| o as usize), length, step);
            let mut axis = outer;
            loop {
                if axis == 0 {
                    return;
                }
                axis -= 1;
                counters[axis] += 1;
                (0..N).for_each(|n| offsets[n] += self.strides[axis][n]);
                if counters[axis] < self.sizes[axis] {
                    break;
                }
                let back = self.sizes[axis] as isize;
                (0..N).for_each(|n| offsets[n] -= back * self.strides[axis][n]);
                counters[axis] = 0;
            }
        }
    }

    /// Calls `visit` with the offsets of every element.
    pub(crate) fn each(&self, mut visit: impl FnMut([usize; N])) {
        self.runs(|start, length, step| {
            let mut offsets = start.map(|o| o as isize);
            for _ in 0..length {
                visit(offsets.map(|o| o as usize));
                (0..N).for_each(|n| offsets[n] += step[n]);
            }
        });
    }
}

/// The three parts of a shape around one axis: elements before it, along it and after it.
#[derive(Clone, Copy)]
pub(crate) struct Lanes {
    /// Product of the sizes before the axis.
    pub(crate) outer: usize,
    /// Size of the axis.
    pub(crate) len: usize,
    /// Product of the sizes after the axis: the distance of neighbours along it.
    pub(crate) inner: usize,
}

impl Lanes {
    /// The lanes of `shape` along `axis`.
    pub(crate) fn new(shape: &[usize], axis: usize) -> Lanes {
        let len = shape.get(axis).copied().unwrap_or(1);
        let inner = shape.iter().skip(axis + 1).product();
        Lanes { outer: shape.iter().take(axis).product(), len, inner }
    }

    /// Offset of the first element of every lane.
    pub(crate) fn starts(self) -> impl Iterator<Item = usize> {
        (0..self.outer).flat_map(move |o| (0..self.inner).map(move |i| o * self.len * self.inner + i))
    }
}

/// Calls `visit` with every index of `shape` in row-major order. Slow; for small index spaces.
pub(crate) fn each_index(shape: &[usize], mut visit: impl FnMut(&[usize])) {
    if shape.contains(&0) {
        return;
    }
    let mut index = vec![0usize; shape.len()];
    loop {
        visit(&index);
        let mut axis = shape.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

/// `index` of an axis of `size` elements, negative ones counted from the end; `None` out of range.
pub(crate) fn wrap_index(index: i64, size: usize) -> Option<usize> {
    let size_i = i64::try_from(size).ok()?;
    let i = if index < 0 { index.checked_add(size_i)? } else { index };
    usize::try_from(i).ok().filter(|i| *i < size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_visit_in_order() {
        let mut seen = Vec::new();
        let s = broadcast_strides(&[3, 1], &[2, 3, 2]).expect("broadcasts");
        Walk::new(&[2, 3, 2], [&s]).each(|[o]| seen.push(o));
        assert_eq!(seen, vec![0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]);
        let mut runs = Vec::new();
        Walk::new(&[2, 3, 2], [&strides(&[2, 3, 2])]).runs(|[o], n, _| runs.push((o, n)));
        assert_eq!(runs, vec![(0, 12)]);
        let mut none = 0;
        Walk::new(&[2, 0], [&[0, 1]]).each(|_| none += 1);
        assert_eq!(none, 0);
        let mut scalar = Vec::new();
        Walk::<1>::new(&[], [&[]]).each(|[o]| scalar.push(o));
        assert_eq!(scalar, vec![0]);
    }

    #[test]
    fn shapes_broadcast_as_in_numpy() {
        assert_eq!(broadcast(&[&[3, 1], &[2, 1, 4]]).expect("broadcasts"), vec![2, 3, 4]);
        assert_eq!(broadcast(&[&[0], &[1]]).expect("broadcasts"), vec![0]);
        assert!(broadcast(&[&[2], &[3]]).is_err());
        assert!(broadcast_strides(&[2, 2], &[2]).is_err());
    }
}
