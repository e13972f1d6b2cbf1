//! Matrix products as cuBLASLt computes them: `D = epilogue(alpha · op(A) · op(B) + beta · C)`, in batches.
//!
//! Sums are taken in `f64` and rounded once; the library itself sums in `f32`.

use crate::driver::space::{Space, View};
use crate::ptx::Memory;
use half::{bf16, f16};

/// An element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F16,
    Bf16,
    F32,
    F64,
}

impl Element {
    /// By cuBLASLt's number.
    pub(crate) fn of(n: i32) -> Option<Self> {
        Some(match n {
            0 => Self::F32,
            1 => Self::F64,
            2 => Self::F16,
            14 => Self::Bf16,
            _ => return None,
        })
    }

    pub(crate) fn size(self) -> u32 {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    fn value(self, word: u64) -> f64 {
        match self {
            Self::F16 => f16::from_bits(word as u16).to_f64(),
            Self::Bf16 => bf16::from_bits(word as u16).to_f64(),
            Self::F32 => f64::from(f32::from_bits(word as u32)),
            Self::F64 => f64::from_bits(word),
        }
    }

    fn word(self, value: f64) -> u64 {
        match self {
            Self::F16 => u64::from(f16::from_f64(value).to_bits()),
            Self::Bf16 => u64::from(bf16::from_f64(value).to_bits()),
            Self::F32 => u64::from((value as f32).to_bits()),
            Self::F64 => value.to_bits(),
        }
    }
}

/// How a matrix lies in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Layout {
    pub(crate) element: Element,
    pub(crate) rows: u64,
    pub(crate) cols: u64,
    /// Elements from one column (row, if `row_major`) to the next.
    pub(crate) stride: i64,
    pub(crate) row_major: bool,
    pub(crate) batch: i32,
    pub(crate) batch_stride: i64,
}

impl Layout {
    /// Can the matrices be there like this?
    pub(crate) fn valid(&self) -> bool {
        let least = if self.row_major { self.cols } else { self.rows };
        self.rows > 0 && self.cols > 0 && self.batch > 0 && self.stride >= 0 && self.stride as u64 >= least
    }

    fn place(&self, base: u64, batch: i64, row: u64, col: u64) -> u64 {
        let (row, col) = (row as i64, col as i64);
        let inside = if self.row_major { row * self.stride + col } else { col * self.stride + row };
        base.wrapping_add_signed((batch * self.batch_stride + inside) * i64::from(self.element.size()))
    }
}

/// What is done with an element of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Epilogue {
    pub(crate) bias: bool,
    pub(crate) relu: bool,
    pub(crate) gelu: bool,
}

/// A matrix: its address and how it lies there.
pub(crate) type Matrix = (u64, Layout);

/// A product.
#[derive(Debug, Clone)]
pub(crate) struct Product {
    pub(crate) a: Matrix,
    pub(crate) b: Matrix,
    pub(crate) c: Matrix,
    pub(crate) d: Matrix,
    pub(crate) transposed: [bool; 2],
    pub(crate) alpha: f64,
    pub(crate) beta: f64,
    pub(crate) epilogue: Epilogue,
    /// Address, element type and elements from one batch to the next.
    pub(crate) bias: (u64, Element, i64),
}

impl Product {
    /// Rows, columns and depth; `None` if the sizes do not agree.
    pub(crate) fn sizes(&self) -> Option<(u64, u64, u64)> {
        let turned = |(_, l): &Matrix, t: bool| if t { (l.cols, l.rows) } else { (l.rows, l.cols) };
        let ((m, k), (k2, n)) = (turned(&self.a, self.transposed[0]), turned(&self.b, self.transposed[1]));
        let out = |(_, l): &Matrix| (l.rows, l.cols) == (m, n) && l.batch == self.a.1.batch;
        let all = [&self.a, &self.b, &self.c, &self.d].iter().all(|(_, l)| l.valid());
        (all && k == k2 && out(&self.c) && out(&self.d) && self.b.1.batch == self.a.1.batch)
            .then_some((m, n, k))
    }

    /// Computes it; an address that is not there is given back.
    pub(crate) fn compute(&self, space: &mut Space, reach: u64) -> Result<(), u64> {
        let Some((m, n, k)) = self.sizes() else { return Ok(()) };
        let mut view = View { space, reach };
        for batch in 0..i64::from(self.d.1.batch) {
            let a = gather(&view, &self.a, batch, (m, k), self.transposed[0])?;
            // Columns of B are gathered as rows.
            let b = gather(&view, &self.b, batch, (n, k), !self.transposed[1])?;
            for col in 0..n {
                for row in 0..m {
                    let left = &a[(row * k) as usize..][..k as usize];
                    let right = &b[(col * k) as usize..][..k as usize];
                    let sum: f64 = left.iter().zip(right).map(|(x, y)| x * y).sum();
                    self.finish(&mut view, batch, (row, col), sum)?;
                }
            }
        }
        Ok(())
    }

    fn finish(&self, view: &mut View, batch: i64, (row, col): (u64, u64), sum: f64) -> Result<(), u64> {
        let mut value = self.alpha * sum;
        if self.beta != 0.0 {
            value += self.beta * read(view, self.c.1.element, self.c.1.place(self.c.0, batch, row, col))?;
        }
        if self.epilogue.bias {
            let (base, element, stride) = self.bias;
            let at = (batch * stride + row as i64) * i64::from(element.size());
            value += read(view, element, base.wrapping_add_signed(at))?;
        }
        if self.epilogue.relu {
            value = value.max(0.0);
        }
        if self.epilogue.gelu {
            // cuBLASLt approximates by tanh (Hendrycks and Gimpel, arXiv:1606.08415, section 2).
            value *=
                0.5 * (1.0 + (0.797_884_560_802_865_4 * (value + 0.044_715 * value * value * value)).tanh());
        }
        let (element, at) = (self.d.1.element, self.d.1.place(self.d.0, batch, row, col));
        view.store(at, element.size(), element.word(value), &mut 0).map_err(|_| at)
    }
}

fn read(view: &View, element: Element, at: u64) -> Result<f64, u64> {
    view.load(at, element.size(), &mut 0).map(|w| element.value(w)).map_err(|_| at)
}

/// The values of a matrix of this size, row by row; `turned` if it lies there transposed.
fn gather(
    view: &View,
    (base, layout): &Matrix,
    batch: i64,
    (rows, cols): (u64, u64),
    turned: bool,
) -> Result<Vec<f64>, u64> {
    let mut out = Vec::with_capacity((rows * cols) as usize);
    let mut hint = 0;
    for row in 0..rows {
        for col in 0..cols {
            let (r, c) = if turned { (col, row) } else { (row, col) };
            let at = layout.place(*base, batch, r, c);
            let word = view.load(at, layout.element.size(), &mut hint).map_err(|_| at)?;
            out.push(layout.element.value(word));
        }
    }
    Ok(out)
}
