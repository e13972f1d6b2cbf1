//! Matrix products: floats accumulate in `f64` and round once, integers wrap.

use crate::call::Call;
use crate::index::{Walk, broadcast, broadcast_strides};
use crate::tensor::{checked_numel, filled, floats, from_floats, from_ints, ints, reserved};
use djinn_diag::{Result, internal};
use djinn_ir::TensorData;
use ndarray::{Array2, ArrayView2, ShapeBuilder};

/// A matrix inside a slice: its size, where it starts, and the distance of its rows and columns.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    /// The slice.
    pub(crate) values: &'a [f64],
    /// Offset of element (0, 0).
    pub(crate) start: usize,
    /// Rows and columns.
    pub(crate) size: (usize, usize),
    /// Distance of neighbouring rows and of neighbouring columns.
    pub(crate) steps: (usize, usize),
}

impl<'a> Matrix<'a> {
    /// A matrix whose elements lie row by row without gaps.
    pub(crate) fn dense(values: &'a [f64], start: usize, size: (usize, usize)) -> Self {
        Matrix { values, start, size, steps: (size.1, 1) }
    }

    /// The same elements with rows and columns swapped.
    pub(crate) fn transposed(self) -> Self {
        Matrix { size: (self.size.1, self.size.0), steps: (self.steps.1, self.steps.0), ..self }
    }

    fn view(self) -> Result<ArrayView2<'a, f64>> {
        let values = self.values.get(self.start..).unwrap_or_default();
        ArrayView2::from_shape(self.size.strides(self.steps), values)
            .map_err(|e| internal("interp.matrix", format!("a matrix leaves its operand: {e}")))
    }
}

/// The product of two matrices, row by row.
pub(crate) fn multiply(a: Matrix, b: Matrix) -> Result<Vec<f64>> {
    let (m, k, n) = (a.size.0, a.size.1, b.size.1);
    if b.size.0 != k {
        return Err(internal("interp.matrix", format!("inner sizes {k} and {} differ", b.size.0)));
    }
    if m == 0 || n == 0 || k == 0 {
        return filled(checked_numel(&[m, n])?, 0.0);
    }
    let product: Array2<f64> = a.view()?.dot(&b.view()?);
    let product = product.as_standard_layout().into_owned();
    Ok(product.into_raw_vec_and_offset().0)
}

/// The product of two row-major integer matrices, wrapping.
fn multiply_ints(a: &[i64], b: &[i64], (m, k, n): (usize, usize, usize)) -> Vec<i64> {
    let mut out = vec![0i64; m * n];
    for i in 0..m {
        for l in 0..k {
            let factor = a[i * k + l];
            for j in 0..n {
                let slot = &mut out[i * n + j];
                *slot = slot.wrapping_add(factor.wrapping_mul(b[l * n + j]));
            }
        }
    }
    out
}

/// numpy matmul: the last two axes are contracted, the leading ones broadcast.
pub(crate) fn matmul(call: &Call) -> Result<TensorData> {
    let (a, b) = (call.operand(0)?, call.operand(1)?);
    let (batch_a, m, k) = match *a.shape() {
        [] => return Err(call.fail("an operand is a scalar")),
        [k] => (&[][..], 1, k),
        [ref batch @ .., m, k] => (batch, m, k),
    };
    let (batch_b, k_b, n) = match *b.shape() {
        [] => return Err(call.fail("an operand is a scalar")),
        [k] => (&[][..], k, 1),
        [ref batch @ .., k, n] => (batch, k, n),
    };
    if k != k_b {
        return Err(call.fail(format!("inner sizes {k} and {k_b} differ")));
    }
    let batch = broadcast(&[batch_a, batch_b])?;
    let (sa, sb) = (broadcast_strides(batch_a, &batch)?, broadcast_strides(batch_b, &batch)?);
    let mut pairs = Vec::new();
    Walk::new(&batch, [&sa, &sb]).each(|[i, j]| pairs.push((i * m * k, j * k * n)));
    let shape = call.result_shape()?;
    let count = checked_numel(&shape)?;
    if a.dtype().is_float() {
        let (x, y) = (floats(a), floats(b));
        let mut out = reserved(count)?;
        for (i, j) in pairs {
            out.extend(multiply(Matrix::dense(&x, i, (m, k)), Matrix::dense(&y, j, (k, n)))?);
        }
        return from_floats(a.dtype(), &shape, &out);
    }
    let (x, y) = (ints(a), ints(b));
    let mut out = reserved(count)?;
    for (i, j) in pairs {
        out.extend(multiply_ints(&x[i..i + m * k], &y[j..j + k * n], (m, k, n)));
    }
    from_ints(a.dtype(), &shape, &out)
}
