//! Scaled dot-product attention and rotary position embedding.

use crate::call::Call;
use crate::contraction::{Matrix, multiply};
use crate::index::broadcast_strides;
use crate::tensor::{checked_numel, filled, floats, from_floats, rounded};
use djinn_diag::Result;
use djinn_ir::{DType, TensorData};

/// Where the heads of a tensor of rank 4 `[batch, heads, length, width]` or 3 `[batch, length, heads·width]` lie.
#[derive(Clone, Copy)]
struct Heads {
    batch: usize,
    heads: usize,
    length: usize,
    width: usize,
    /// Is the layout that of rank 3?
    merged: bool,
}

impl Heads {
    fn new(call: &Call, shape: &[usize], heads: i64) -> Result<Heads> {
        let heads = usize::try_from(heads).unwrap_or(0);
        match *shape {
            [batch, heads, length, width] => Ok(Heads { batch, heads, length, width, merged: false }),
            [batch, length, all] if heads >= 1 && all % heads == 0 => {
                Ok(Heads { batch, heads, length, width: all / heads, merged: true })
            }
            _ => Err(call.fail(format!("shape {shape:?} does not hold {heads} heads"))),
        }
    }

    /// Offset of the first element of a row of one head.
    fn row(self, batch: usize, head: usize, position: usize) -> usize {
        if self.merged {
            ((batch * self.length + position) * self.heads + head) * self.width
        } else {
            ((batch * self.heads + head) * self.length + position) * self.width
        }
    }

    /// One head as a matrix [length, width].
    fn matrix(self, values: &[f64], batch: usize, head: usize) -> Matrix<'_> {
        let step = if self.merged { self.heads * self.width } else { self.width };
        Matrix { values, start: self.row(batch, head, 0), size: (self.length, self.width), steps: (step, 1) }
    }
}

/// The mask of an attention, read at (batch, head, query, key).
struct Mask {
    values: Vec<f64>,
    strides: Vec<isize>,
    dtype: DType,
}

impl Mask {
    fn new(mask: &TensorData, scores: &[usize; 4]) -> Result<Mask> {
        let strides = broadcast_strides(mask.shape(), scores)?;
        Ok(Mask { values: floats(mask), strides, dtype: mask.dtype() })
    }

    /// A score under the mask. Booleans overwrite what they hide; floats are added and the sum is rounded, so that a
    /// large negative number absorbs the score as it does where the addition is an operation of its own.
    fn apply(&self, score: f64, index: [usize; 4]) -> f64 {
        let offset: usize = index.iter().zip(&self.strides).map(|(i, s)| i * *s as usize).sum();
        let value = self.values[offset];
        match self.dtype {
            DType::Bool if value != 0.0 => score,
            DType::Bool => f64::NEG_INFINITY,
            dtype => rounded(dtype, score + value),
        }
    }
}

/// Softmax of one row in place; a row of −∞ becomes zeros.
fn softmax_row(row: &mut [f64]) {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY && !row.iter().any(|v| v.is_nan()) {
        row.fill(0.0);
        return;
    }
    row.iter_mut().for_each(|v| *v = libm::exp(*v - largest));
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|v| *v /= sum);
}

/// softmax(scale·Q·Kᵀ + mask)·V per head.
pub(crate) fn sdpa(call: &Call) -> Result<TensorData> {
    let [q, k, v] = [call.operand(0)?, call.operand(1)?, call.operand(2)?];
    let (query_heads, kv_heads) = (call.attrs.int("query_heads"), call.attrs.int("kv_heads"));
    let hq = Heads::new(call, q.shape(), query_heads)?;
    let hk = Heads::new(call, k.shape(), kv_heads)?;
    let hv = Heads::new(call, v.shape(), kv_heads)?;
    let agree = hq.batch == hk.batch
        && hq.batch == hv.batch
        && hk.heads == hv.heads
        && hk.heads > 0
        && hq.heads % hk.heads == 0
        && hk.length == hv.length
        && hq.width == hk.width;
    if !agree {
        let shapes = [q, k, v].map(TensorData::shape);
        return Err(call.fail(format!("query, key and value do not fit: {shapes:?}")));
    }
    let scores_shape = [hq.batch, hq.heads, hq.length, hk.length];
    let mask = call.operands.get(3).map(|m| Mask::new(m, &scores_shape)).transpose()?;
    let (scale, causal) = (call.attrs.float("scale"), call.attrs.bool("causal"));
    let offset = call.amount("causal_offset")?;
    let (qs, ks, vs) = (floats(q), floats(k), floats(v));
    let shape = call.result_shape()?;
    let mut out = filled(checked_numel(&shape)?, 0.0)?;
    let ho = Heads { width: hv.width, ..hq };
    for (b, h) in (0..hq.batch).flat_map(|b| (0..hq.heads).map(move |h| (b, h))) {
        let shared = h / (hq.heads / hk.heads);
        let mut scores = multiply(hq.matrix(&qs, b, h), hk.matrix(&ks, b, shared).transposed())?;
        for (i, row) in scores.chunks_exact_mut(hk.length.max(1)).enumerate() {
            for (j, score) in row.iter_mut().enumerate() {
                let hidden = causal && j as i64 > (i as i64).saturating_add(offset);
                *score = match &mask {
                    _ if hidden => f64::NEG_INFINITY,
                    Some(mask) => mask.apply(*score * scale, [b, h, i, j]),
                    None => *score * scale,
                };
            }
            softmax_row(row);
        }
        let attended =
            multiply(Matrix::dense(&scores, 0, (hq.length, hk.length)), hv.matrix(&vs, b, shared))?;
        for (i, row) in attended.chunks_exact(hv.width.max(1)).enumerate() {
            let at = ho.row(b, h, i);
            out[at..at + hv.width].copy_from_slice(row);
        }
    }
    from_floats(q.dtype(), &shape, &out)
}

/// Rotary position embedding over the whole head width.
pub(crate) fn rope(call: &Call) -> Result<TensorData> {
    let (x, cos, sin) = (call.operand(0)?, call.operand(1)?, call.operand(2)?);
    let heads = Heads::new(call, x.shape(), call.attrs.int("heads"))?;
    let half = heads.width / 2;
    let fits = |t: &TensorData| matches!(*t.shape(), [b, l, h] if (b == 1 || b == heads.batch) && l == heads.length && h == half);
    if !fits(cos) || !fits(sin) {
        let message = format!("cos {:?} and sin {:?} do not fit {:?}", cos.shape(), sin.shape(), x.shape());
        return Err(call.fail(message));
    }
    let interleaved = call.attrs.bool("interleaved");
    let (cs, ss) = (floats(cos), floats(sin));
    let angle = |t: &TensorData, b: usize, l: usize| {
        (if t.shape()[0] == 1 { 0 } else { b } * heads.length + l) * half
    };
    let mut values = floats(x);
    for b in 0..heads.batch {
        for (h, l) in (0..heads.heads).flat_map(|h| (0..heads.length).map(move |l| (h, l))) {
            let row = heads.row(b, h, l);
            let (ca, sa) = (angle(cos, b, l), angle(sin, b, l));
            for i in 0..half {
                let (p, q) =
                    if interleaved { (row + 2 * i, row + 2 * i + 1) } else { (row + i, row + half + i) };
                let (x1, x2, c, s) = (values[p], values[q], cs[ca + i], ss[sa + i]);
                values[p] = x1 * c - x2 * s;
                values[q] = x2 * c + x1 * s;
            }
        }
    }
    from_floats(x.dtype(), x.shape(), &values)
}
