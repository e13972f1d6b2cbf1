//! Convolutions and pooling.

use super::{Entry, row};
use crate::node::{Node, Outputs, one, size};
use djinn_diag::Result;
use djinn_ir::{Dim, OpKind as K, attrs};
use djinn_srg::SrgValue;

/// Rows of this family.
pub(crate) const OPS: &[Entry] = &[
    row("Conv", 1, conv),
    row("ConvTranspose", 1, conv_transpose),
    row("MaxPool", 1, max_pool),
    row("AveragePool", 1, average_pool),
    row("LpPool", 2, lp_pool),
    row("GlobalMaxPool", 1, |n| global(n, K::ReduceMax)),
    row("GlobalAveragePool", 1, |n| global(n, K::ReduceMean)),
    row("GlobalLpPool", 2, global_lp),
    row("CausalConvWithState", 27, causal_conv),
];

/// The window of a convolution or pooling.
struct Window {
    strides: Vec<i64>,
    dilations: Vec<i64>,
    /// All lows, then all highs.
    pads: Vec<i64>,
}

/// One positive attribute entry per spatial axis; ones if it is missing.
fn per_axis(n: &Node<'_, '_>, name: &str, axes: usize) -> Result<Vec<i64>> {
    let values = n.attrs.ints(name)?.unwrap_or_else(|| vec![1; axes]);
    if values.len() != axes || values.iter().any(|v| *v < 1) {
        return Err(n.invalid(format!("'{name}' must hold {axes} positive numbers, not {values:?}")));
    }
    Ok(values)
}

/// Number of spatial axes.
fn spatial_axes(n: &Node<'_, '_>, x: SrgValue) -> Result<usize> {
    n.rank(x)
        .checked_sub(2)
        .filter(|a| *a >= 1)
        .ok_or_else(|| n.invalid(format!("the operand {} has no spatial axes", n.ty(x))))
}

/// Reads strides, dilations and pads, `auto_pad` resolved.
fn window(n: &Node<'_, '_>, x: SrgValue, kernel: &[Dim]) -> Result<Window> {
    let axes = kernel.len();
    let (strides, dilations) = (per_axis(n, "strides", axes)?, per_axis(n, "dilations", axes)?);
    let mode = n.text("auto_pad", "NOTSET")?;
    let pads = match mode.as_str() {
        "NOTSET" | "" => {
            let pads = n.attrs.ints("pads")?.unwrap_or_else(|| vec![0; 2 * axes]);
            if pads.len() != 2 * axes {
                return Err(n.invalid(format!("'pads' must hold {} numbers", 2 * axes)));
            }
            pads
        }
        "VALID" => vec![0; 2 * axes],
        "SAME_UPPER" | "SAME_LOWER" => {
            let mut pads = vec![0; 2 * axes];
            for i in 0..axes {
                let total = same_padding(n, &n.shape(x)[2 + i], &kernel[i], strides[i], dilations[i])?;
                let (small, large) = (total / 2, total - total / 2);
                let upper = mode == "SAME_UPPER";
                pads[i] = if upper { small } else { large };
                pads[axes + i] = if upper { large } else { small };
            }
            pads
        }
        other => return Err(n.invalid(format!("'{other}' is no padding mode"))),
    };
    Ok(Window { strides, dilations, pads })
}

/// Padding of one axis so that the result has ⌈size/stride⌉ elements.
fn same_padding(n: &Node<'_, '_>, length: &Dim, kernel: &Dim, stride: i64, dilation: i64) -> Result<i64> {
    let reach = &(&(kernel - &Dim::ONE) * &size(dilation)) + &Dim::ONE;
    let out = length.ceil_div(&size(stride));
    let total = &(&(&(&out - &Dim::ONE) * &size(stride)) + &reach) - length;
    let total = total.as_const().ok_or_else(|| {
        n.unsupported("automatic padding with strides needs sizes that are known when the model is compiled")
    })?;
    Ok(total.max(0))
}

/// Refuses a `kernel_shape` that is not the weight's.
fn check_kernel(n: &Node<'_, '_>, kernel: &[Dim]) -> Result<()> {
    let Some(wanted) = n.attrs.ints("kernel_shape")?.filter(|w| !w.is_empty()) else { return Ok(()) };
    let differs = |(w, k): (&i64, &Dim)| *w < 0 || k.as_const().is_some_and(|k| k != *w);
    if wanted.len() != kernel.len() || wanted.iter().zip(kernel).any(differs) {
        let sizes: Vec<String> = kernel.iter().map(ToString::to_string).collect();
        return Err(n.invalid(format!(
            "'kernel_shape' is {wanted:?}, but the weight's kernel is [{}]",
            sizes.join(", ")
        )));
    }
    Ok(())
}

fn conv(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, weight) = (n.x(0)?, n.x(1)?);
    let axes = spatial_axes(n, x)?;
    if n.rank(weight) != axes + 2 {
        return Err(n.invalid("operand and weight differ in rank"));
    }
    let kernel = n.shape(weight)[2..].to_vec();
    check_kernel(n, &kernel)?;
    let w = window(n, x, &kernel)?;
    let mut operands = vec![x, weight];
    operands.extend(n.opt(2));
    let a = attrs! { strides: w.strides, pads: w.pads, dilations: w.dilations, groups: n.int("group", 1)? };
    one(n.op(K::Conv, &operands, a)?)
}

fn conv_transpose(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, weight) = (n.x(0)?, n.x(1)?);
    let axes = spatial_axes(n, x)?;
    if n.rank(weight) != axes + 2 {
        return Err(n.invalid("operand and weight differ in rank"));
    }
    check_kernel(n, &n.shape(weight)[2..])?;
    let (strides, dilations) = (per_axis(n, "strides", axes)?, per_axis(n, "dilations", axes)?);
    let output_padding = n.attrs.ints("output_padding")?.unwrap_or_else(|| vec![0; axes]);
    if output_padding.len() != axes {
        return Err(n.invalid(format!("'output_padding' must hold {axes} numbers")));
    }
    let mut pads = n.attrs.ints("pads")?.unwrap_or_else(|| vec![0; 2 * axes]);
    let mode = n.text("auto_pad", "NOTSET")?;
    let wanted = n.attrs.ints("output_shape")?;
    if pads.len() != 2 * axes || wanted.as_ref().is_some_and(|w| w.len() < axes) {
        return Err(n.invalid("'pads' or 'output_shape' does not fit the operand"));
    }
    let same = mode.starts_with("SAME");
    if same || wanted.is_some() {
        let kernel = n.shape(weight)[2..].to_vec();
        for i in 0..axes {
            let length = n.shape(x)[2 + i].clone();
            let out = match &wanted {
                Some(w) => size(w[w.len() - axes + i]),
                None => &length * &size(strides[i]),
            };
            let reach = &(&(&kernel[i] - &Dim::ONE) * &size(dilations[i])) + &Dim::ONE;
            let span = &(&(&length - &Dim::ONE) * &size(strides[i])) + &reach;
            let total = (&(&span + &size(output_padding[i])) - &out).as_const();
            let total = total.ok_or_else(|| {
                n.unsupported("this padding needs sizes that are known when the model is compiled")
            })?;
            let (small, large) = (total.div_euclid(2), total - total.div_euclid(2));
            let upper = mode == "SAME_UPPER";
            pads[i] = if upper { small } else { large };
            pads[axes + i] = if upper { large } else { small };
        }
    } else if mode == "VALID" {
        pads = vec![0; 2 * axes];
    }
    let mut operands = vec![x, weight];
    operands.extend(n.opt(2));
    let a = attrs! {
        strides: strides,
        pads: pads,
        dilations: dilations,
        output_padding: output_padding,
        groups: n.int("group", 1)?,
    };
    one(n.op(K::ConvTranspose, &operands, a)?)
}

/// Operand, kernel and window of a pooling operator.
fn pooling(n: &Node<'_, '_>) -> Result<(SrgValue, Vec<i64>, Window)> {
    let x = n.x(0)?;
    let axes = spatial_axes(n, x)?;
    if !n.attrs.has("kernel_shape") {
        return Err(n.invalid("the attribute 'kernel_shape' is missing"));
    }
    let kernel = per_axis(n, "kernel_shape", axes)?;
    let sizes: Vec<Dim> = kernel.iter().map(|k| size(*k)).collect();
    let w = window(n, x, &sizes)?;
    Ok((x, kernel, w))
}

fn max_pool(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, kernel, w) = pooling(n)?;
    if n.wants(1) {
        return Err(n.unsupported("positions of the largest elements are not supported"));
    }
    let ceil_mode = n.flag("ceil_mode", false)?;
    let a = attrs! {
        kernel: kernel, strides: w.strides, pads: w.pads, dilations: w.dilations, ceil_mode: ceil_mode,
    };
    one(n.op(K::MaxPool, &[x], a)?)
}

fn average(
    n: &mut Node<'_, '_>,
    x: SrgValue,
    kernel: Vec<i64>,
    w: Window,
    include_pad: bool,
) -> Result<SrgValue> {
    let ceil_mode = n.flag("ceil_mode", false)?;
    let a = attrs! {
        kernel: kernel, strides: w.strides, pads: w.pads, dilations: w.dilations, ceil_mode: ceil_mode,
        count_include_pad: include_pad,
    };
    n.op(K::AvgPool, &[x], a)
}

fn average_pool(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, kernel, w) = pooling(n)?;
    let include_pad = n.flag("count_include_pad", false)?;
    one(average(n, x, kernel, w, include_pad)?)
}

/// `(Σ |x|^p)^(1/p)` in each window: the mean over the window times its size.
fn lp_pool(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, kernel, w) = pooling(n)?;
    if n.flag("ceil_mode", false)? {
        return Err(n.unsupported("ceil_mode is not supported"));
    }
    let p = n.int("p", 2)? as f64;
    let count: i64 = kernel.iter().fold(1i64, |a, k| a.saturating_mul(*k));
    let powers = power(n, x, p)?;
    let mean = average(n, powers, kernel, w, true)?;
    let sum = n.with_scalar(K::Mul, mean, count as f64)?;
    one(root(n, sum, p)?)
}

/// `|x|^p`.
fn power(n: &mut Node<'_, '_>, x: SrgValue, p: f64) -> Result<SrgValue> {
    let magnitude = n.plain(K::Abs, &[x])?;
    if p == 1.0 { Ok(magnitude) } else { n.with_scalar(K::Pow, magnitude, p) }
}

/// `x^(1/p)`.
fn root(n: &mut Node<'_, '_>, x: SrgValue, p: f64) -> Result<SrgValue> {
    if p == 1.0 {
        Ok(x)
    } else if p == 2.0 {
        n.plain(K::Sqrt, &[x])
    } else {
        n.with_scalar(K::Pow, x, 1.0 / p)
    }
}

/// A reduction over all spatial axes.
fn global(n: &mut Node<'_, '_>, kind: K) -> Result<Outputs> {
    let x = n.x(0)?;
    let axes: Vec<i64> = (2..n.rank(x) as i64).collect();
    one(n.reduce(kind, x, &axes, true)?)
}

fn global_lp(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let axes: Vec<i64> = (2..n.rank(x) as i64).collect();
    let p = n.int("p", 2)? as f64;
    let powers = power(n, x, p)?;
    let sum = n.reduce(K::ReduceSum, powers, &axes, true)?;
    one(root(n, sum, p)?)
}

/// A depthwise convolution over past and present positions, with the last ones as the next state.
fn causal_conv(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, weight) = (n.x(0)?, n.x(1)?);
    let (dims, kernel) = (n.shape(x), n.shape(weight));
    let (channels, taps) = match (dims.get(1).and_then(Dim::as_const), kernel.get(2).and_then(Dim::as_const))
    {
        (Some(c), Some(k)) if dims.len() == 3 && k >= 1 => (c, k),
        _ => return Err(n.unsupported("channels and kernel size must be known when the model is compiled")),
    };
    let past = match n.opt(3) {
        Some(v) => v,
        None => {
            let zero = n.scalar(n.dtype(x), 0.0)?;
            n.broadcast(zero, vec![dims[0].clone(), dims[1].clone(), size(taps - 1)])?
        }
    };
    let all = n.concat(&[past, x], 2)?;
    let mut operands = vec![all, weight];
    operands.extend(n.opt(2));
    let a = attrs! { strides: vec![1i64], pads: vec![0i64, 0], dilations: vec![1i64], groups: channels };
    let mut y = n.op(K::Conv, &operands, a)?;
    match n.text("activation", "none")?.as_str() {
        "none" | "" => {}
        "silu" | "swish" => y = n.plain(K::Silu, &[y])?,
        _ => return Err(n.unsupported("this activation is not supported")),
    }
    let length = n.shape(all)[2].clone();
    let state = n.slice(all, 2, &length - &size(taps - 1), length)?;
    Ok(vec![Some(y), Some(state)])
}
