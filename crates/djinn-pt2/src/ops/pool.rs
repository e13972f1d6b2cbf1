//! Pooling over windows.

use super::Table;
use super::nn::per_axis;
use crate::context::{Call, Cx, Ret};
use djinn_diag::Result;
use djinn_ir::{Attrs, OpKind, TensorData, attrs};
use djinn_srg::SrgValue;

pub(super) const TABLE: Table = &[
    ("max_pool1d", max_pool),
    ("max_pool2d", max_pool),
    ("max_pool3d", max_pool),
    ("max_pool2d_with_indices", max_pool),
    ("max_pool3d_with_indices", max_pool),
    ("avg_pool1d", avg_pool),
    ("avg_pool2d", avg_pool),
    ("avg_pool3d", avg_pool),
    ("adaptive_avg_pool1d", adaptive),
    ("adaptive_avg_pool2d", adaptive),
    ("adaptive_avg_pool3d", adaptive),
    ("_adaptive_avg_pool2d", adaptive),
    ("_adaptive_avg_pool3d", adaptive),
    ("adaptive_max_pool1d", adaptive),
    ("adaptive_max_pool2d", adaptive),
    ("adaptive_max_pool3d", adaptive),
];

/// Number of spatial axes, from the operator's name.
fn spatial(call: &Call<'_>) -> usize {
    call.base.chars().find_map(|c| c.to_digit(10)).map_or(2, |d| d as usize)
}

/// The operand with a batch axis, and whether one was added.
fn batched<'p>(cx: &mut Cx<'p>, call: &Call<'p>, n: usize) -> Result<(SrgValue, bool)> {
    let x = cx.tensor(call, "self")?;
    let rank = cx.want_rank(x, "the operand", n + 1, n + 2)?;
    if rank == n + 1 { Ok((cx.unsqueeze(x, 0)?, true)) } else { Ok((x, false)) }
}

fn finish(cx: &mut Cx<'_>, v: SrgValue, unbatched: bool) -> Result<SrgValue> {
    if unbatched { cx.squeeze(v, 0) } else { Ok(v) }
}

/// Attributes that all window operations share.
fn window<'p>(cx: &Cx<'p>, call: &Call<'p>, n: usize) -> Result<Attrs> {
    let kernel = per_axis(cx, call, "kernel_size", n, 1)?;
    let given = cx.ints_opt(call, "stride")?.filter(|s| !s.is_empty());
    let strides = if given.is_some() { per_axis(cx, call, "stride", n, 1)? } else { kernel.clone() };
    let pads = per_axis(cx, call, "padding", n, 0)?;
    Ok(attrs! {
        kernel: kernel, strides: strides, pads: [&pads[..], &pads].concat(),
        dilations: per_axis(cx, call, "dilation", n, 1)?, ceil_mode: call.bool_or("ceil_mode", false)?,
    })
}

fn max_pool<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let n = spatial(call);
    let (x, unbatched) = batched(cx, call, n)?;
    let attrs = window(cx, call, n)?;
    let v = cx.b.op(OpKind::MaxPool, &[x], attrs)?;
    let v = finish(cx, v, unbatched)?;
    if call.base.ends_with("indices") { Ok(Ret::Values(vec![Some(v), None])) } else { Ok(Ret::Value(v)) }
}

fn avg_pool<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    if call.arg("divisor_override").is_some() {
        return Err(call.unsupported("divisor_override"));
    }
    let n = spatial(call);
    let (x, unbatched) = batched(cx, call, n)?;
    let attrs = window(cx, call, n)?.with("count_include_pad", call.bool_or("count_include_pad", true)?);
    let v = cx.b.op(OpKind::AvgPool, &[x], attrs)?;
    finish(cx, v, unbatched).map(Ret::Value)
}

/// Pooling to a given size: a reduction to size 1, equal windows where sizes divide, else a product with the
/// matrix of window weights along each axis.
fn adaptive<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let n = spatial(call);
    let is_max = call.base.contains("max");
    let (x, unbatched) = batched(cx, call, n)?;
    let out = adaptive_sizes(cx, call, x, n)?;
    let v = if out.iter().all(|o| *o == 1) {
        let axes = (2..2 + n as i64).collect();
        cx.reduce(if is_max { OpKind::ReduceMax } else { OpKind::ReduceMean }, x, axes, true)?
    } else {
        let mut sizes = Vec::new();
        for i in 0..n {
            sizes.push(cx.const_size(x, 2 + i, "operand of adaptive pooling")?);
        }
        let divides = sizes.iter().zip(&out).all(|(s, o)| *o > 0 && s % o == 0);
        match (divides, is_max) {
            (true, _) => equal_windows(cx, x, &sizes, &out, is_max)?,
            (false, false) => weighted_windows(cx, call, x, &sizes, &out)?,
            (false, true) => return Err(call.unsupported("windows of unequal size")),
        }
    };
    let v = finish(cx, v, unbatched)?;
    if is_max { Ok(Ret::Values(vec![Some(v), None])) } else { Ok(Ret::Value(v)) }
}

/// Result sizes; `None` entries (−1) keep the operand's size.
fn adaptive_sizes<'p>(cx: &Cx<'p>, call: &Call<'p>, x: SrgValue, n: usize) -> Result<Vec<i64>> {
    let out = per_axis(cx, call, "output_size", n, -1)?;
    let keep = |(i, o): (usize, &i64)| if *o < 0 { cx.const_size(x, 2 + i, "kept axis") } else { Ok(*o) };
    out.iter().enumerate().map(keep).collect()
}

fn equal_windows(cx: &mut Cx<'_>, x: SrgValue, sizes: &[i64], out: &[i64], is_max: bool) -> Result<SrgValue> {
    let kernel: Vec<i64> = sizes.iter().zip(out).map(|(s, o)| s / o).collect();
    if kernel.iter().all(|k| *k == 1) {
        return Ok(x);
    }
    let n = kernel.len();
    let attrs = attrs! {
        kernel: kernel.clone(), strides: kernel, pads: vec![0i64; 2 * n], dilations: vec![1i64; n], ceil_mode: false,
    };
    if is_max {
        return cx.b.op(OpKind::MaxPool, &[x], attrs);
    }
    cx.b.op(OpKind::AvgPool, &[x], attrs.with("count_include_pad", true))
}

/// Elements of one window matrix, at most.
const MAX_MATRIX: i64 = 1 << 20;

fn weighted_windows<'p>(
    cx: &mut Cx<'p>,
    call: &Call<'p>,
    x: SrgValue,
    sizes: &[i64],
    out: &[i64],
) -> Result<SrgValue> {
    let rank = cx.rank(x) as i64;
    let mut v = x;
    for (i, (size, out)) in sizes.iter().zip(out).enumerate() {
        if size == out {
            continue;
        }
        if size.saturating_mul(*out) > MAX_MATRIX || *out < 1 || *size < 1 {
            return Err(call.unsupported("windows of unequal size over very long axes"));
        }
        let matrix = window_matrix(*size, *out);
        let data = TensorData::from_f32(&[*size as usize, *out as usize], &matrix);
        let matrix = cx.b.constant(data.ok_or_else(|| call.unsupported("empty windows"))?)?;
        let matrix = cx.cast(matrix, cx.dtype(v))?;
        // The pooled axis goes last, is contracted, and goes back.
        let mut perm: Vec<i64> = (0..rank).collect();
        perm.swap(2 + i, rank as usize - 1);
        let turned = cx.transpose(v, perm.clone())?;
        let pooled = cx.op(OpKind::MatMul, &[turned, matrix])?;
        v = cx.transpose(pooled, perm)?;
    }
    Ok(v)
}

/// Column j holds 1/length over window j: from ⌊j·size/out⌋ to ⌈(j+1)·size/out⌉.
fn window_matrix(size: i64, out: i64) -> Vec<f32> {
    let mut matrix = vec![0f32; (size * out) as usize];
    for j in 0..out {
        let (start, end) = (j * size / out, ((j + 1) * size + out - 1) / out);
        for i in start..end {
            matrix[(i * out + j) as usize] = 1.0 / (end - start) as f32;
        }
    }
    matrix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_overlap_as_in_torch() {
        // 5 elements to 3: windows 0..2, 1..4, 3..5.
        let m = window_matrix(5, 3);
        let column = |j: usize| (0..5).map(|i| m[i * 3 + j] > 0.0).collect::<Vec<_>>();
        assert_eq!(column(0), [true, true, false, false, false]);
        assert_eq!(column(1), [false, true, true, true, false]);
        assert_eq!(column(2), [false, false, false, true, true]);
        assert!((0..3).all(|j| ((0..5).map(|i| m[i * 3 + j]).sum::<f32>() - 1.0).abs() < 1e-6));
    }
}
