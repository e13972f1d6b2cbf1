//! Products of matrices that lie in slices.

use crate::real::Real;

/// A matrix inside a slice: where it starts, its size, and the distances of its rows and columns.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    values: &'a [T],
    rows: usize,
    columns: usize,
    row: usize,
    column: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// A matrix whose columns are neighbours and whose rows are `row` apart.
    pub(crate) fn new(values: &'a [T], (rows, columns): (usize, usize), row: usize) -> Self {
        Matrix { values, rows, columns, row, column: 1 }
    }

    /// The same elements with rows and columns swapped.
    pub(crate) fn transposed(self) -> Self {
        Matrix { rows: self.columns, columns: self.rows, row: self.column, column: self.row, ..self }
    }

    fn fits(&self) -> bool {
        reach((self.rows, self.columns), (self.row, self.column)).is_some_and(|n| n <= self.values.len())
    }

    /// A row whose elements are neighbours.
    fn whole_row(&self, i: usize) -> &'a [T] {
        &self.values[i * self.row..][..self.columns]
    }
}

/// Elements from the first to the last one.
fn reach(size: (usize, usize), steps: (usize, usize)) -> Option<usize> {
    if size.0 == 0 || size.1 == 0 {
        return Some(0);
    }
    let rows = (size.0 - 1).checked_mul(steps.0)?;
    rows.checked_add((size.1 - 1).checked_mul(steps.1)?)?.checked_add(1)
}

/// Adds a·b to `out` (`add`), or overwrites it; the rows of `out` are `row` apart.
///
/// # Panics
/// If the matrices leave their slices or their sizes do not agree; callers have laid them out.
pub(crate) fn multiply<T: Real>(a: Matrix<T>, b: Matrix<T>, out: &mut [T], row: usize, add: bool) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert!(b.rows == k && a.fits() && b.fits(), "matrices leave their slices");
    assert!(reach((m, n), (row, 1)).is_some_and(|end| end <= out.len()), "a product leaves its slice");
    if m == 0 || n == 0 {
        return;
    }
    if m == 1 && b.column == 1 {
        return row_times_matrix(a, b, &mut out[..n], add);
    }
    if m == 1 && b.row == 1 && a.column == 1 {
        return dot_rows(b.transposed(), a.whole_row(0), out, 1, add);
    }
    if n == 1 && a.column == 1 && b.row == 1 {
        return dot_rows(a, &b.values[..k], out, row, add);
    }
    let beta = if add { T::ONE } else { T::ZERO };
    let of = |m: &Matrix<T>| (m.values.as_ptr(), m.row as isize, m.column as isize);
    // SAFETY: the assertions above hold every element that the library reaches inside the slices, and `out` is
    // borrowed exclusively, so that it overlaps neither operand.
    #[allow(unsafe_code, reason = "the library of matrix products takes pointers")]
    unsafe {
        T::gemm((m, k, n), of(&a), of(&b), beta, (out.as_mut_ptr(), row as isize, 1));
    }
}

/// A row vector times a matrix whose rows have no gaps inside: rows are added up.
fn row_times_matrix<T: Real>(a: Matrix<T>, b: Matrix<T>, out: &mut [T], add: bool) {
    if !add {
        out.fill(T::ZERO);
    }
    let factor = |i: usize| a.values[i * a.column];
    let mut i = 0;
    // Four rows at a time: `out` is read and written a quarter as often.
    while i + 4 <= b.rows {
        let rows: [&[T]; 4] = std::array::from_fn(|r| b.whole_row(i + r));
        let f: [T; 4] = std::array::from_fn(|r| factor(i + r));
        let [r0, r1, r2, r3] = rows;
        let rest = r0.iter().zip(r1).zip(r2).zip(r3);
        for (slot, (((v0, v1), v2), v3)) in out.iter_mut().zip(rest) {
            *slot += (*v0 * f[0] + *v1 * f[1]) + (*v2 * f[2] + *v3 * f[3]);
        }
        i += 4;
    }
    for i in i..b.rows {
        let f = factor(i);
        out.iter_mut().zip(b.whole_row(i)).for_each(|(slot, v)| *slot += *v * f);
    }
}

/// The dot product of every row with a vector.
fn dot_rows<T: Real>(a: Matrix<T>, vector: &[T], out: &mut [T], step: usize, add: bool) {
    for i in 0..a.rows {
        let sum = dot(a.whole_row(i), vector);
        let slot = &mut out[i * step];
        *slot = if add { *slot + sum } else { sum };
    }
}

/// A dot product in sixteen partial sums, so that it vectorises with one result everywhere.
fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let ((wholes_a, rest_a), (wholes_b, rest_b)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut sums = [T::ZERO; 16];
    for (x, y) in wholes_a.iter().zip(wholes_b) {
        sums.iter_mut().zip(x).zip(y).for_each(|((s, x), y)| *s += *x * *y);
    }
    let mut total = rest_a.iter().zip(rest_b).fold(T::ZERO, |sum, (x, y)| sum + *x * *y);
    sums.iter().for_each(|s| total += *s);
    total
}
