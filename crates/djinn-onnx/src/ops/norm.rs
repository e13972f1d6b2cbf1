//! Normalisations.

use super::{Entry, row};
use crate::node::{Node, Outputs, one, size};
use crate::tensor;
use djinn_diag::Result;
use djinn_ir::{DType, Dim, OpKind as K, attrs};
use djinn_srg::SrgValue;

/// Rows of this family.
pub(crate) const OPS: &[Entry] = &[
    row("BatchNormalization", 7, batch_norm),
    row("InstanceNormalization", 6, instance_norm),
    row("GroupNormalization", 18, group_norm),
    row("LayerNormalization", 17, layer_norm),
    row("RMSNormalization", 23, rms_norm),
    row("MeanVarianceNormalization", 9, mean_variance),
    row("LpNormalization", 1, lp_norm),
    row("LRN", 1, lrn),
];

/// A vector of channels as a value that broadcasts over axis 1 of a value of this rank.
fn per_channel(n: &mut Node<'_, '_>, v: SrgValue, rank: usize) -> Result<SrgValue> {
    let mut dims = vec![Dim::ONE; rank];
    if rank >= 2 {
        dims[1] = n.ty(v).numel();
    }
    n.reshape(v, dims)
}

fn batch_norm(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let dtype = n.dtype(x);
    let mut others = Vec::new();
    for i in 1..5 {
        let v = n.x(i)?;
        others.push(n.cast(v, dtype)?);
    }
    let epsilon = n.float("epsilon", 1e-5)?;
    if n.flag("training_mode", false)? {
        return batch_norm_training(n, x, &others, epsilon);
    }
    if n.rank(x) < 2 {
        return Err(n.unsupported("the operand has rank 1"));
    }
    let operands = [&[x], others.as_slice()].concat();
    one(n.op(K::BatchNorm, &operands, attrs! { epsilon: epsilon })?)
}

/// Statistics of the batch itself, and the running statistics after it.
fn batch_norm_training(
    n: &mut Node<'_, '_>,
    x: SrgValue,
    others: &[SrgValue],
    epsilon: f64,
) -> Result<Outputs> {
    let rank = n.rank(x);
    let axes: Vec<i64> = (0..rank as i64).filter(|a| *a != 1).collect();
    let mean = n.reduce(K::ReduceMean, x, &axes, true)?;
    let centered = n.plain(K::Sub, &[x, mean])?;
    let square = n.plain(K::Mul, &[centered, centered])?;
    let var = n.reduce(K::ReduceMean, square, &axes, true)?;
    let normalized = normalize(n, centered, var, epsilon)?;
    let (scale, bias) = (per_channel(n, others[0], rank)?, per_channel(n, others[1], rank)?);
    let y = n.plain(K::Mul, &[normalized, scale])?;
    let y = n.plain(K::Add, &[y, bias])?;
    let momentum = n.float("momentum", 0.9)?;
    let mut out = vec![Some(y)];
    for (old, new) in [(others[2], mean), (others[3], var)] {
        let channels = n.shape(old);
        let new = n.reshape(new, channels)?;
        let kept = n.with_scalar(K::Mul, old, momentum)?;
        let added = n.with_scalar(K::Mul, new, 1.0 - momentum)?;
        out.push(Some(n.plain(K::Add, &[kept, added])?));
    }
    Ok(out)
}

/// `centered / √(var + ε)`.
fn normalize(n: &mut Node<'_, '_>, centered: SrgValue, var: SrgValue, epsilon: f64) -> Result<SrgValue> {
    let shifted = n.with_scalar(K::Add, var, epsilon)?;
    let deviation = n.plain(K::Sqrt, &[shifted])?;
    n.plain(K::Div, &[centered, deviation])
}

fn instance_norm(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, scale, bias) = (n.x(0)?, n.x(1)?, n.x(2)?);
    let channels = n.shape(x).get(1).and_then(Dim::as_const).or_else(|| n.shape(scale).first()?.as_const());
    let channels = channels.ok_or_else(|| n.unsupported("the number of channels is not known"))?;
    let a = attrs! { groups: channels, epsilon: n.float("epsilon", 1e-5)? };
    one(n.op(K::GroupNorm, &[x, scale, bias], a)?)
}

fn group_norm(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, mut scale, mut bias) = (n.x(0)?, n.x(1)?, n.x(2)?);
    let groups = n.attrs.int("num_groups")?.filter(|g| *g >= 1);
    let groups = groups.ok_or_else(|| n.invalid("the number of groups must be positive"))?;
    let channels = n.shape(x).get(1).cloned().ok_or_else(|| n.invalid("the operand has rank 1"))?;
    if n.version < 21 && n.shape(scale).first().is_none_or(|d| *d != channels) {
        // Scale and bias are given per group.
        let each = channels.floor_div(&size(groups));
        for v in [&mut scale, &mut bias] {
            let column = n.reshape(*v, vec![size(groups), Dim::ONE])?;
            let spread = n.broadcast(column, vec![size(groups), each.clone()])?;
            *v = n.reshape(spread, vec![channels.clone()])?;
        }
    }
    let a = attrs! { groups: groups, epsilon: n.float("epsilon", 1e-5)? };
    one(n.op(K::GroupNorm, &[x, scale, bias], a)?)
}

fn layer_norm(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, scale) = (n.x(0)?, n.x(1)?);
    let rank = n.rank(x);
    let axis = n.axis(n.int("axis", -1)?, rank)?;
    let epsilon = n.float("epsilon", 1e-5)?;
    let mut operands = vec![x, scale];
    operands.extend(n.opt(2));
    let y = n.op(K::LayerNorm, &operands, attrs! { axis: axis as i64, epsilon: epsilon })?;
    if !n.wants(1) && !n.wants(2) {
        return one(y);
    }
    let stash = tensor::dtype(i32::try_from(n.int("stash_type", 1)?).unwrap_or(-1))?;
    let wide = n.cast(x, stash)?;
    let axes: Vec<i64> = (axis as i64..rank as i64).collect();
    let mean = n.reduce(K::ReduceMean, wide, &axes, true)?;
    let centered = n.plain(K::Sub, &[wide, mean])?;
    let square = n.plain(K::Mul, &[centered, centered])?;
    let var = n.reduce(K::ReduceMean, square, &axes, true)?;
    let shifted = n.with_scalar(K::Add, var, epsilon)?;
    let inverse = n.plain(K::Rsqrt, &[shifted])?;
    Ok(vec![Some(y), Some(mean), Some(inverse)])
}

fn rms_norm(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, scale) = (n.x(0)?, n.x(1)?);
    let axis = n.axis(n.int("axis", -1)?, n.rank(x))?;
    let a = attrs! { axis: axis as i64, epsilon: n.float("epsilon", 1e-5)? };
    let dtype = n.dtype(x);
    let scale = n.cast(scale, dtype)?;
    one(n.op(K::RmsNorm, &[x, scale], a)?)
}

/// `(x − mean) / (√(mean(x²) − mean²) + 1e−9)`.
fn mean_variance(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let axes = n.attrs.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    let axes = n.axes(&axes, n.rank(x))?;
    let mean = n.reduce(K::ReduceMean, x, &axes, true)?;
    let mean_square = n.plain(K::Mul, &[mean, mean])?;
    let square = n.plain(K::Mul, &[x, x])?;
    let square_mean = n.reduce(K::ReduceMean, square, &axes, true)?;
    let var = n.plain(K::Sub, &[square_mean, mean_square])?;
    let deviation = n.plain(K::Sqrt, &[var])?;
    let shifted = n.with_scalar(K::Add, deviation, f64::from(1e-9f32))?;
    let centered = n.plain(K::Sub, &[x, mean])?;
    one(n.plain(K::Div, &[centered, shifted])?)
}

/// `x` over its p-norm along an axis; 0 where the norm is 0.
fn lp_norm(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let axis = n.axis(n.int("axis", -1)?, n.rank(x))? as i64;
    let norm = match n.int("p", 2)? {
        1 => {
            let magnitude = n.plain(K::Abs, &[x])?;
            n.reduce(K::ReduceSum, magnitude, &[axis], true)?
        }
        2 => {
            let square = n.plain(K::Mul, &[x, x])?;
            let sum = n.reduce(K::ReduceSum, square, &[axis], true)?;
            n.plain(K::Sqrt, &[sum])?
        }
        _ => return Err(n.unsupported("p must be 1 or 2")),
    };
    let zero = n.scalar(n.dtype(x), 0.0)?;
    let vanishes = n.compare("eq", norm, zero)?;
    let quotient = n.plain(K::Div, &[x, norm])?;
    one(n.plain(K::Select, &[vanishes, zero, quotient])?)
}

/// `x / (bias + alpha/size · Σ x²)^beta`, the sum over `size` neighbouring channels.
fn lrn(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let (rank, dtype) = (n.rank(x), n.dtype(x));
    let window = n.attrs.int("size")?.filter(|s| (1..=4096).contains(s));
    let window = window.ok_or_else(|| n.invalid("the size must be positive"))?;
    if rank < 3 {
        return Err(n.invalid("the operand must have rank 3 or more"));
    }
    let dims = n.shape(x);
    let square = n.plain(K::Mul, &[x, x])?;
    // Averages over windows of channels: channels become the first spatial axis of a pooling.
    let mut image = vec![dims[0].clone(), Dim::ONE];
    image.extend_from_slice(&dims[1..]);
    let image = n.reshape(square, image)?;
    let spatial = rank - 1;
    let mut kernel = vec![1i64; spatial];
    kernel[0] = window;
    let (mut low, mut high) = (vec![0i64; spatial], vec![0i64; spatial]);
    low[0] = (window - 1) / 2;
    high[0] = window - 1 - low[0];
    let a = attrs! {
        kernel: kernel,
        strides: vec![1i64; spatial],
        pads: [low, high].concat(),
        dilations: vec![1i64; spatial],
        ceil_mode: false,
        count_include_pad: true,
    };
    let mean = n.op(K::AvgPool, &[image], a)?;
    let mean = n.reshape(mean, dims)?;
    let (alpha, beta, bias) = (n.float("alpha", 1e-4)?, n.float("beta", 0.75)?, n.float("bias", 1.0)?);
    let scaled = n.with_scalar(K::Mul, mean, alpha)?;
    let shifted = n.with_scalar(K::Add, scaled, bias)?;
    let exponent = n.scalar(if dtype == DType::F64 { DType::F64 } else { DType::F32 }, beta)?;
    let root = n.plain(K::Pow, &[shifted, exponent])?;
    one(n.plain(K::Div, &[x, root])?)
}
