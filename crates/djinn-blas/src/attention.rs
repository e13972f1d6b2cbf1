//! Scaled dot-product attention in tiles, with the softmax kept up to date from tile to tile.
//!
//! The running maximum and sum of each row are those of Milakov and Gimelshein, "Online normalizer calculation for
//! softmax", 2018, section 3; the accumulated rows are rescaled as in Dao et al., "FlashAttention", NeurIPS 2022,
//! algorithm 1. Work memory does not grow with the number of keys.

use crate::gemm::{Matrix, multiply};
use crate::operation::{Call, Values};
use crate::real::Real;
use djinn_ir::DType;
use half::{bf16, f16};

/// Queries and keys of a tile.
const QUERIES: usize = 64;
const KEYS: usize = 512;

/// Where the heads of a tensor of rank 4 `[batch, heads, length, width]` or 3 `[batch, length, heads·width]` lie.
#[derive(Debug, Clone, Copy)]
struct Heads {
    batch: usize,
    heads: usize,
    length: usize,
    width: usize,
    /// Is the layout that of rank 3?
    merged: bool,
}

impl Heads {
    fn new(shape: &[usize], heads: usize) -> Option<Heads> {
        match *shape {
            [batch, heads, length, width] => Some(Heads { batch, heads, length, width, merged: false }),
            [batch, length, all] if heads >= 1 && all % heads == 0 => {
                Some(Heads { batch, heads, length, width: all / heads, merged: true })
            }
            _ => None,
        }
    }

    /// Offset of a row, and the distance to the next one.
    fn row(self, batch: usize, head: usize, position: usize) -> (usize, usize) {
        let Heads { heads, length, width, .. } = self;
        if self.merged {
            (((batch * length + position) * heads + head) * width, heads * width)
        } else {
            (((batch * heads + head) * length + position) * width, width)
        }
    }

    /// Some rows of one head.
    fn rows<'a, T>(
        self,
        values: &'a [T],
        (b, h): (usize, usize),
        first: usize,
        count: usize,
    ) -> Matrix<'a, T> {
        let (start, step) = self.row(b, h, first);
        Matrix::new(values.get(start..).unwrap_or_default(), (count, self.width), step)
    }
}

/// How the mask is read.
#[derive(Debug)]
struct Mask {
    strides: [usize; 4],
    /// Booleans hide; numbers are added.
    boolean: bool,
}

/// An attention.
#[derive(Debug)]
pub(crate) struct Attention {
    q: Heads,
    k: Heads,
    v: Heads,
    scale: f64,
    /// Query `i` sees the keys up to `i` plus this.
    causal: Option<i64>,
    mask: Option<Mask>,
}

/// What a row of scores was rounded to before its softmax, for a sum of score and mask.
pub(crate) fn round_score<T: Real>(dtype: DType, score: T) -> T {
    match dtype {
        DType::F16 => T::from_f32(f16::from_f32(score.to_f32()).to_f32()),
        DType::BF16 => T::from_f32(bf16::from_f32(score.to_f32()).to_f32()),
        _ => score,
    }
}

/// What is known of the rows of a tile of queries.
struct Rows<T> {
    largest: [T; QUERIES],
    sum: [T; QUERIES],
    scores: Vec<T>,
    weighted: Vec<T>,
}

impl Attention {
    pub(crate) fn new(call: &Call, mask: Option<DType>) -> Option<Attention> {
        let (query_heads, kv_heads) = (call.count("query_heads")?, call.count("kv_heads")?);
        let q = Heads::new(call.shape(0), query_heads)?;
        let [k, v] = [1, 2].map(|i| Heads::new(call.shape(i), kv_heads));
        let (k, v) = (k?, v?);
        let agree = q.batch == k.batch
            && q.batch == v.batch
            && k.heads == v.heads
            && k.heads > 0
            && q.heads.is_multiple_of(k.heads)
            && k.length == v.length
            && q.width == k.width;
        let offset = call.attrs.dim("causal_offset").as_const()?;
        let causal = call.attrs.bool("causal").then_some(offset);
        let mask = match mask {
            Some(dtype) => {
                let strides = mask_strides(call.shape(3), [q.batch, q.heads, q.length, k.length])?;
                Some(Mask { strides, boolean: dtype == DType::Bool })
            }
            None => None,
        };
        agree.then_some(Attention { q, k, v, scale: call.attrs.float("scale"), causal, mask })
    }

    pub(crate) fn run<T: Real>(&self, operands: &Values<T>, out: &mut [T], round: &dyn Fn(T) -> T) {
        if out.is_empty() {
            return;
        }
        let (tile, width) = (QUERIES.min(self.q.length), self.v.width);
        let mut rows = Rows {
            largest: [T::ZERO; QUERIES],
            sum: [T::ZERO; QUERIES],
            scores: vec![T::ZERO; tile * KEYS.min(self.k.length)],
            weighted: vec![T::ZERO; tile * width],
        };
        for b in 0..self.q.batch {
            for h in 0..self.q.heads {
                for first in (0..self.q.length).step_by(QUERIES) {
                    let count = QUERIES.min(self.q.length - first);
                    self.tile(operands, &mut rows, (b, h), first..first + count, round);
                    let target = Heads { width, ..self.q };
                    for i in 0..count {
                        let (at, _) = target.row(b, h, first + i);
                        let sum = if rows.sum[i] == T::ZERO { T::ONE } else { rows.sum[i] };
                        let row = &rows.weighted[i * width..][..width];
                        out[at..at + width].iter_mut().zip(row).for_each(|(o, v)| *o = *v / sum);
                    }
                }
            }
        }
    }

    /// The weighted sums of some queries of one head, not yet divided by the sums of their weights.
    fn tile<T: Real>(
        &self,
        operands: &Values<T>,
        rows: &mut Rows<T>,
        (b, h): (usize, usize),
        queries: std::ops::Range<usize>,
        round: &dyn Fn(T) -> T,
    ) {
        let (count, width) = (queries.len(), self.v.width);
        let shared = h / (self.q.heads / self.k.heads);
        let query = self.q.rows(&operands[0], (b, h), queries.start, count);
        rows.largest.fill(T::LOWEST);
        rows.sum.fill(T::ZERO);
        rows.weighted[..count * width].fill(T::ZERO);
        for first in (0..self.k.length).step_by(KEYS) {
            let keys = KEYS.min(self.k.length - first);
            let scores = &mut rows.scores[..count * keys];
            let key = self.k.rows(&operands[1], (b, shared), first, keys);
            multiply(query, key.transposed(), scores, keys, false);
            for (i, row) in scores.chunks_exact_mut(keys).enumerate() {
                self.hide(operands.get(3).map(|m| &**m), row, [b, h, queries.start + i, first], round);
                let shrink = update(row, &mut rows.largest[i], &mut rows.sum[i]);
                if shrink != T::ONE {
                    rows.weighted[i * width..][..width].iter_mut().for_each(|v| *v *= shrink);
                }
            }
            let value = self.v.rows(&operands[2], (b, shared), first, keys);
            multiply(Matrix::new(scores, (count, keys), keys), value, &mut rows.weighted, width, true);
        }
    }

    /// Scales a row of scores and puts them under the mask; `at` is the index of its first element.
    fn hide<T: Real>(&self, mask: Option<&[T]>, row: &mut [T], at: [usize; 4], round: &dyn Fn(T) -> T) {
        let scale = T::from_f64(self.scale);
        row.iter_mut().for_each(|score| *score *= scale);
        if let (Some(mask), Some(values)) = (&self.mask, mask) {
            let start: usize = at.iter().zip(&mask.strides).map(|(i, s)| i * s).sum();
            let step = mask.strides[3];
            for (j, score) in row.iter_mut().enumerate() {
                let value = values[start + j * step];
                if !mask.boolean {
                    *score = round(*score + value);
                } else if value == T::ZERO {
                    *score = T::LOWEST;
                }
            }
        }
        if let Some(offset) = self.causal {
            let seen = (at[2] as i64).saturating_add(offset).saturating_add(1).saturating_sub(at[3] as i64);
            let seen = usize::try_from(seen).unwrap_or(0).min(row.len());
            row[seen..].fill(T::LOWEST);
        }
    }
}

/// Turns scores into weights relative to the new maximum; gives the factor of what was weighted before.
fn update<T: Real>(row: &mut [T], largest: &mut T, sum: &mut T) -> T {
    let before = *largest;
    let now = row.iter().fold(before, |m, v| if *v > m { *v } else { m });
    *largest = now;
    if now == T::LOWEST {
        // Nothing is seen yet: no weight, unless a score is no number.
        row.iter_mut().for_each(|v| *v = if v.is_nan() { *v } else { T::ZERO });
        row.iter().for_each(|v| *sum += *v);
        return T::ONE;
    }
    row.iter_mut().for_each(|v| *v = (*v - now).exp());
    let shrink = if before == now { T::ONE } else { (before - now).exp() };
    let added = row.iter().fold(T::ZERO, |s, v| s + *v);
    *sum = *sum * shrink + added;
    shrink
}

/// Distances of the elements of a mask that broadcasts to the shape of the scores.
fn mask_strides(shape: &[usize], scores: [usize; 4]) -> Option<[usize; 4]> {
    let missing = 4usize.checked_sub(shape.len())?;
    let mut strides = [0; 4];
    let mut step = 1;
    for (i, size) in shape.iter().enumerate().rev() {
        if *size == scores[missing + i] {
            strides[missing + i] = step;
        } else if *size != 1 {
            return None;
        }
        step *= size;
    }
    Some(strides)
}
