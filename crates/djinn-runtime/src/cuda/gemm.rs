//! Matrix products as calls of cuBLASLt.

use djinn_cuda::{Gemm, GemmType};
use djinn_ir::DType;

/// The element type of a product that the library has.
pub(crate) fn element(dtype: DType) -> Option<GemmType> {
    Some(match dtype {
        DType::F32 => GemmType::F32,
        DType::F64 => GemmType::F64,
        DType::F16 => GemmType::F16,
        DType::BF16 => GemmType::Bf16,
        _ => return None,
    })
}

/// A call, and the elements from which on it reads `a` and `b` and writes the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) gemm: Gemm,
    pub(crate) first: [u64; 3],
}

/// The calls that make `matmul` of operands of these shapes; `None` if these do not go together. Empty results need no
/// call, and empty sums are not for the library: see [`is_empty_sum`].
pub(crate) fn calls(ty: GemmType, a: &[usize], b: &[usize]) -> Option<Vec<Call>> {
    let (batch_a, m, k) = match *a {
        [] => return None,
        [k] => (&[][..], 1, k),
        [ref batch @ .., m, k] => (batch, m, k),
    };
    let (batch_b, n) = match *b {
        [] => return None,
        [_] => (&[][..], 1),
        [ref batch @ .., _, n] => (batch, n),
    };
    let batch = broadcast(batch_a, batch_b)?;
    let product: usize = batch.iter().product();
    if product * m * n * k == 0 {
        return Some(Vec::new());
    }
    let (m, n, k) = (m as u64, n as u64, k as u64);
    let one =
        Gemm { ty, m, n, k, transposed_a: false, transposed_b: false, batch: 1, stride_a: 0, stride_b: 0 };
    let is_shared = |batch: &[usize]| batch.iter().all(|size| *size == 1);
    // Rows of all `a` are rows of one: they share one `b`.
    if is_shared(batch_b) {
        return Some(vec![Call { gemm: Gemm { m: m * product as u64, ..one }, first: [0; 3] }]);
    }
    let full_a = batch_a.iter().product::<usize>() == product;
    let full_b = batch_b.iter().product::<usize>() == product;
    if full_b && (full_a || is_shared(batch_a)) {
        let stride_a = if full_a { (m * k) as i64 } else { 0 };
        let batch = u32::try_from(product).ok()?;
        return Some(vec![Call {
            gemm: Gemm { batch, stride_a, stride_b: (k * n) as i64, ..one },
            first: [0; 3],
        }]);
    }
    let (strides_a, strides_b) = (strides(batch_a, &batch), strides(batch_b, &batch));
    let at = |number: usize, strides: &[usize]| {
        let (mut rest, mut at) = (number, 0);
        for (size, stride) in batch.iter().zip(strides).rev() {
            at += rest % size * stride;
            rest /= size;
        }
        at as u64
    };
    let call = |number: usize| Call {
        gemm: one,
        first: [at(number, &strides_a) * m * k, at(number, &strides_b) * k * n, number as u64 * m * n],
    };
    Some((0..product).map(call).collect())
}

/// Is the result all zeros because nothing is summed?
pub(crate) fn is_empty_sum(a: &[usize]) -> bool {
    a.last() == Some(&0)
}

fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let size =
        |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    let one = |axis| match (size(a, axis), size(b, axis)) {
        (x, y) if x == y => Some(x),
        (1, y) => Some(y),
        (x, 1) => Some(x),
        _ => None,
    };
    (0..rank).map(one).collect()
}

/// How far apart, in matrices, neighbours along each axis of the batch are; 0 along axes that are broadcast.
fn strides(shape: &[usize], batch: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; batch.len()];
    let mut stride = 1;
    for (own, of) in shape.iter().rev().zip(strides.iter_mut().rev()) {
        *of = if *own == 1 { 0 } else { stride };
        stride *= own;
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Index of each element of the result, the pairs of elements that it is the sum of: what calls mean.
    fn meaning(a: &[usize], b: &[usize]) -> Vec<(u64, Vec<(u64, u64)>)> {
        let mut all = Vec::new();
        for Call { gemm, first: [x, y, z] } in calls(GemmType::F32, a, b).expect("fits") {
            for one in 0..u64::from(gemm.batch) {
                let (x, y) = (x + one * gemm.stride_a as u64, y + one * gemm.stride_b as u64);
                let z = z + one * gemm.m * gemm.n;
                for (row, column) in (0..gemm.m).flat_map(|r| (0..gemm.n).map(move |c| (r, c))) {
                    let pair = |i| (x + row * gemm.k + i, y + i * gemm.n + column);
                    all.push((z + row * gemm.n + column, (0..gemm.k).map(pair).collect()));
                }
            }
        }
        all.sort();
        all
    }

    #[test]
    fn every_broadcast_reads_the_right_matrices() {
        let reference = |a: &[usize], b: &[usize], batch: &[[u64; 2]], [m, k, n]: [u64; 3]| {
            let mut all = Vec::new();
            for (number, [i, j]) in batch.iter().enumerate() {
                for (row, column) in (0..m).flat_map(|r| (0..n).map(move |c| (r, c))) {
                    let pair = |x| (i * m * k + row * k + x, j * k * n + x * n + column);
                    all.push(((number as u64 * m + row) * n + column, (0..k).map(pair).collect::<Vec<_>>()));
                }
            }
            assert_eq!(meaning(a, b), all, "{a:?} by {b:?}");
        };
        reference(&[2, 3], &[3, 4], &[[0, 0]], [2, 3, 4]);
        reference(&[3], &[3, 4], &[[0, 0]], [1, 3, 4]);
        reference(&[2, 3], &[3], &[[0, 0]], [2, 3, 1]);
        reference(&[2, 2, 3], &[3, 4], &[[0, 0], [1, 0]], [2, 3, 4]);
        reference(&[2, 3], &[2, 3, 4], &[[0, 0], [0, 1]], [2, 3, 4]);
        reference(&[2, 2, 3], &[2, 3, 1], &[[0, 0], [1, 1]], [2, 3, 1]);
        let mixed = [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]];
        reference(&[2, 1, 2, 3], &[1, 3, 3, 2], &mixed, [2, 3, 2]);
        let other = [[0, 0], [1, 1], [2, 2], [0, 3], [1, 4], [2, 5]];
        reference(&[3, 2, 3], &[2, 3, 3, 2], &other, [2, 3, 2]);
    }

    #[test]
    fn nothing_is_called_for_nothing() {
        assert_eq!(calls(GemmType::F32, &[2, 0], &[0, 4]), Some(Vec::new()));
        assert!(is_empty_sum(&[2, 0]));
        assert_eq!(calls(GemmType::F32, &[0, 3], &[3, 4]), Some(Vec::new()));
        assert_eq!(calls(GemmType::F32, &[2, 3, 3], &[5, 3, 3]), None);
    }
}
