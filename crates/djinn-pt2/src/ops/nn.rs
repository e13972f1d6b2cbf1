//! Convolutions and resampling.

use super::Table;
use crate::context::{Call, Cx, Ret};
use crate::schema::Argument;
use djinn_diag::Result;
use djinn_ir::{Dim, OpKind, attrs};
use djinn_srg::SrgValue;

pub(super) const TABLE: Table = &[
    ("conv1d", conv),
    ("conv2d", conv),
    ("conv3d", conv),
    ("convolution", conv),
    ("_convolution", conv),
    ("conv_transpose1d", conv),
    ("conv_transpose2d", conv),
    ("conv_transpose3d", conv),
    ("upsample_nearest1d", upsample),
    ("upsample_nearest2d", upsample),
    ("upsample_nearest3d", upsample),
    ("_upsample_nearest_exact1d", upsample),
    ("_upsample_nearest_exact2d", upsample),
    ("upsample_linear1d", upsample),
    ("upsample_bilinear2d", upsample),
    ("upsample_trilinear3d", upsample),
    ("upsample_bicubic2d", upsample),
];

/// `n` numbers: a list of one stands for all axes, an absent one for `default`.
pub(super) fn per_axis<'p>(
    cx: &Cx<'p>,
    call: &Call<'p>,
    name: &str,
    n: usize,
    default: i64,
) -> Result<Vec<i64>> {
    match cx.ints_opt(call, name)?.as_deref() {
        None | Some([]) => Ok(vec![default; n]),
        Some([one]) => Ok(vec![*one; n]),
        Some(all) if all.len() == n => Ok(all.to_vec()),
        Some(_) => Err(call.bad(name, &format!("a list of {n} integers"))),
    }
}

/// Lows, then highs.
fn both_sides(pads: &[i64]) -> Vec<i64> {
    [pads, pads].concat()
}

fn conv<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (mut x, w) = (cx.tensor(call, "input")?, cx.tensor(call, "weight")?);
    let rank = cx.want_rank(w, "the convolution weight", 3, 5)?;
    let n = rank - 2;
    let unbatched = cx.rank(x) + 1 == rank;
    if unbatched {
        x = cx.unsqueeze(x, 0)?;
    }
    let transposed = call.base.contains("transpose") || call.bool_or("transposed", false)?;
    let (strides, dilations) = (per_axis(cx, call, "stride", n, 1)?, per_axis(cx, call, "dilation", n, 1)?);
    let pads = conv_pads(cx, call, w, n, &dilations)?;
    let groups = cx.int_or(call, "groups", 1)?;
    let mut operands = vec![x, w];
    operands.extend(cx.tensor_opt(call, "bias")?);
    let out = if transposed {
        let output_padding = per_axis(cx, call, "output_padding", n, 0)?;
        let attrs = attrs! {
            strides: strides, pads: pads, dilations: dilations, output_padding: output_padding, groups: groups,
        };
        cx.b.op(OpKind::ConvTranspose, &operands, attrs)?
    } else {
        let attrs = attrs! { strides: strides, pads: pads, dilations: dilations, groups: groups };
        cx.b.op(OpKind::Conv, &operands, attrs)?
    };
    if unbatched { cx.squeeze(out, 0).map(Ret::Value) } else { Ok(Ret::Value(out)) }
}

/// Padding as numbers, or as the words `valid` and `same`.
fn conv_pads<'p>(cx: &Cx<'p>, call: &Call<'p>, w: SrgValue, n: usize, dilations: &[i64]) -> Result<Vec<i64>> {
    let Some(Argument::Str(word)) = call.arg("padding") else {
        return Ok(both_sides(&per_axis(cx, call, "padding", n, 0)?));
    };
    match word.as_str() {
        "valid" => Ok(vec![0; 2 * n]),
        "same" => {
            let mut pads = vec![0; 2 * n];
            for i in 0..n {
                let kernel = cx.const_size(w, 2 + i, "kernel")?;
                let total = dilations[i].saturating_mul(kernel - 1);
                (pads[i], pads[n + i]) = (total / 2, total - total / 2);
            }
            Ok(pads)
        }
        other => Err(call.unsupported(format!("the padding '{other}'"))),
    }
}

/// Interpolation over the axes from 2 on, to given sizes or by given factors.
fn upsample<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, if call.arg("input").is_some() { "input" } else { "self" })?;
    let rank = cx.want_rank(x, "the operand", 3, 5)?;
    let shape = cx.shape(x);
    let factors = factors(cx, call, rank - 2)?;
    let mut sizes = shape[..2].to_vec();
    match cx.dims_opt(call, "output_size")? {
        Some(given) if given.len() == rank - 2 => sizes.extend(given),
        Some(_) => return Err(call.bad("output_size", "one size per spatial axis")),
        None => {
            for (i, f) in factors.iter().enumerate() {
                let f = f.ok_or_else(|| call.bad("scale_factors", "one factor per spatial axis"))?;
                sizes.push(scaled_size(call, &shape[2 + i], f)?);
            }
        }
    }
    let mut scales = vec![1.0, 1.0];
    for (i, f) in factors.iter().enumerate() {
        scales.push(match (f, sizes[2 + i].as_const(), shape[2 + i].as_const()) {
            (Some(f), _, _) => *f,
            (None, Some(to), Some(from)) if from > 0 => to as f64 / from as f64,
            _ => return Err(call.unsupported("a symbolic size without a factor")),
        });
    }
    let align = call.bool_or("align_corners", false)?;
    let (mode, coordinates, nearest) = match call.base {
        base if base.contains("nearest_exact") => ("nearest", "half_pixel", "round_prefer_ceil"),
        base if base.contains("nearest") => ("nearest", "asymmetric", "floor"),
        base => {
            let mode = if base.contains("cubic") { "cubic" } else { "linear" };
            (mode, if align { "align_corners" } else { "half_pixel" }, "floor")
        }
    };
    let attrs = attrs! {
        sizes: sizes, scales: scales, mode: mode, coordinates: coordinates, nearest: nearest,
        cubic_a: -0.75, exclude_outside: false,
    };
    cx.b.op(OpKind::Resize, &[x], attrs).map(Ret::Value)
}

/// Factor of each spatial axis, where given: as a list, or as one argument per axis.
fn factors<'p>(cx: &Cx<'p>, call: &Call<'p>, n: usize) -> Result<Vec<Option<f64>>> {
    if let Some(list) = call.floats("scale_factors")? {
        if list.len() != n {
            return Err(call.bad("scale_factors", "one factor per spatial axis"));
        }
        return Ok(list.into_iter().map(Some).collect());
    }
    let names: &[&str] = match n {
        1 => &["scales"],
        2 => &["scales_h", "scales_w"],
        _ => &["scales_d", "scales_h", "scales_w"],
    };
    names.iter().map(|name| cx.float_opt(call, name)).collect()
}

/// ⌊size · factor⌋ for a constant size or a whole factor.
fn scaled_size(call: &Call<'_>, size: &Dim, factor: f64) -> Result<Dim> {
    if !(factor.is_finite() && factor > 0.0 && factor < 1e9) {
        return Err(call.bad("scale_factors", "a list of positive factors"));
    }
    match size.as_const() {
        Some(s) => Ok(Dim::from((s as f64 * factor).floor() as i64)),
        None if factor.fract() == 0.0 => Ok(size * &Dim::from(factor as i64)),
        None => Err(call.unsupported("a fraction of a symbolic size")),
    }
}
