//! numpy's matmul: batches of matrix products with broadcasting.

use crate::gemm::{Matrix, multiply};
use crate::operation::{Call, Values};
use crate::real::Real;

/// A batched product.
#[derive(Debug)]
pub(crate) struct MatMul {
    size: (usize, usize, usize),
    /// Where the operands of each product begin.
    starts: Vec<(usize, usize)>,
}

impl MatMul {
    pub(crate) fn new(call: &Call) -> Option<MatMul> {
        let (batch_a, m, k) = match *call.shape(0) {
            [] => return None,
            [k] => (&[][..], 1, k),
            [ref batch @ .., m, k] => (batch, m, k),
        };
        let (batch_b, k_b, n) = match *call.shape(1) {
            [] => return None,
            [k] => (&[][..], k, 1),
            [ref batch @ .., k, n] => (batch, k, n),
        };
        if k != k_b {
            return None;
        }
        // Where the right operand is one matrix, the rows of all left ones make one product.
        let one = batch_b.iter().all(|d| *d == 1) && batch_b.len() <= batch_a.len();
        if one && call.shape(0).len() > 1 {
            let rows = batch_a.iter().product::<usize>() * m;
            return Some(MatMul { size: (rows, k, n), starts: vec![(0, 0)] });
        }
        let rank = batch_a.len().max(batch_b.len());
        let at =
            |batch: &[usize], axis: usize| (axis + batch.len()).checked_sub(rank).map_or(1, |i| batch[i]);
        let mut starts = vec![(0usize, 0usize)];
        let (mut step_a, mut step_b) = (m * k, k * n);
        for axis in (0..rank).rev() {
            let (a, b) = (at(batch_a, axis), at(batch_b, axis));
            if a != b && a != 1 && b != 1 {
                return None;
            }
            let size = if a == 1 { b } else { a };
            let (by_a, by_b) = (if a == 1 { 0 } else { step_a }, if b == 1 { 0 } else { step_b });
            let outer = (0..size).flat_map(|i| starts.iter().map(move |(x, y)| (x + i * by_a, y + i * by_b)));
            starts = outer.collect();
            (step_a, step_b) = (step_a * a, step_b * b);
        }
        Some(MatMul { size: (m, k, n), starts })
    }

    pub(crate) fn run<T: Real>(&self, operands: &Values<T>, out: &mut [T]) {
        let (m, k, n) = self.size;
        for (i, (a, b)) in self.starts.iter().enumerate() {
            let (Some(a), Some(b)) = (operands[0].get(*a..), operands[1].get(*b..)) else { continue };
            let out = &mut out[i * m * n..][..m * n];
            multiply(Matrix::new(a, (m, k), k), Matrix::new(b, (k, n), n), out, n, false);
        }
    }
}
