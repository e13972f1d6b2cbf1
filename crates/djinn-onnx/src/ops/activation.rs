//! Activation functions and softmax.

use super::{Entry, row};
use crate::node::{Node, Outputs, one};
use djinn_diag::Result;
use djinn_ir::dim::product;
use djinn_ir::{DType, OpKind as K, attrs};
use djinn_srg::SrgValue;

/// Rows of this family.
pub(crate) const OPS: &[Entry] = &[
    row("LeakyRelu", 6, |n| with_alpha(n, K::LeakyRelu, 0.01)),
    row("Elu", 6, |n| with_alpha(n, K::Elu, 1.0)),
    row("Selu", 6, selu),
    row("Celu", 12, celu),
    row("ThresholdedRelu", 10, thresholded_relu),
    row("Shrink", 9, shrink),
    row("Softsign", 1, softsign),
    row("PRelu", 7, prelu),
    row("HardSigmoid", 6, hard_sigmoid),
    row("HardSwish", 14, |n| simple(n, K::HardSwish)),
    row("Mish", 18, |n| simple(n, K::Mish)),
    row("Gelu", 20, gelu),
    row("Swish", 24, |n| swish(n).and_then(one)),
    row("SwiGLU", 28, swiglu),
    row("Softmax", 1, |n| flattened(n, softmax_last)),
    row("Softmax", 13, |n| on_axis(n, |n, x, axis| n.along(K::Softmax, &[x], axis))),
    row("LogSoftmax", 1, |n| flattened(n, log_softmax_last)),
    row("LogSoftmax", 13, |n| on_axis(n, |n, x, axis| n.along(K::LogSoftmax, &[x], axis))),
    row("Hardmax", 1, |n| flattened(n, hardmax)),
    row("Hardmax", 13, |n| on_axis(n, hardmax)),
];

fn simple(n: &mut Node<'_, '_>, kind: K) -> Result<Outputs> {
    let x = n.x(0)?;
    one(n.plain(kind, &[x])?)
}

fn with_alpha(n: &mut Node<'_, '_>, kind: K, default: f32) -> Result<Outputs> {
    let x = n.x(0)?;
    let alpha = n.float("alpha", default)?;
    one(n.op(kind, &[x], attrs! { alpha: alpha })?)
}

/// `gamma · elu(x, alpha)`.
fn selu(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let (alpha, gamma) = (n.float("alpha", 1.673_263_2)?, n.float("gamma", 1.050_701)?);
    let e = n.op(K::Elu, &[x], attrs! { alpha: alpha })?;
    one(n.with_scalar(K::Mul, e, gamma)?)
}

/// `max(0, x) + min(0, alpha·(exp(x/alpha) − 1))`, which is `alpha · elu(x/alpha)` for positive alpha.
fn celu(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let alpha = n.float("alpha", 1.0)?;
    if alpha <= 0.0 {
        return Err(n.unsupported("alpha is not positive"));
    }
    let scaled = n.with_scalar(K::Div, x, alpha)?;
    let e = n.op(K::Elu, &[scaled], attrs! { alpha: 1.0f64 })?;
    one(n.with_scalar(K::Mul, e, alpha)?)
}

fn thresholded_relu(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let dtype = n.dtype(x);
    let alpha = n.float("alpha", 1.0)?;
    let (alpha, zero) = (n.scalar(dtype, alpha)?, n.scalar(dtype, 0.0)?);
    let above = n.compare("gt", x, alpha)?;
    one(n.plain(K::Select, &[above, x, zero])?)
}

/// `x + bias` below `−lambd`, `x − bias` above `lambd`, 0 between.
fn shrink(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let dtype = n.dtype(x);
    let (bias, lambd) = (n.float("bias", 0.0)?, n.float("lambd", 0.5)?);
    let (low, high, zero) = (n.scalar(dtype, -lambd)?, n.scalar(dtype, lambd)?, n.scalar(dtype, 0.0)?);
    let (below, above) = (n.compare("lt", x, low)?, n.compare("gt", x, high)?);
    let (plus, minus) = (n.with_scalar(K::Add, x, bias)?, n.with_scalar(K::Sub, x, bias)?);
    let rest = n.plain(K::Select, &[above, minus, zero])?;
    one(n.plain(K::Select, &[below, plus, rest])?)
}

fn softsign(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let magnitude = n.plain(K::Abs, &[x])?;
    let below = n.with_scalar(K::Add, magnitude, 1.0)?;
    one(n.plain(K::Div, &[x, below])?)
}

fn prelu(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, slope) = (n.x(0)?, n.x(1)?);
    let zero = n.scalar(n.dtype(x), 0.0)?;
    let negative = n.compare("lt", x, zero)?;
    let scaled = n.plain(K::Mul, &[x, slope])?;
    one(n.plain(K::Select, &[negative, scaled, x])?)
}

fn hard_sigmoid(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let a = attrs! { alpha: n.float("alpha", 0.2)?, beta: n.float("beta", 0.5)? };
    one(n.op(K::HardSigmoid, &[x], a)?)
}

fn gelu(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let approximate = n.text("approximate", "none")?;
    one(n.op(K::Gelu, &[x], attrs! { approximate: approximate })?)
}

/// `x · sigmoid(alpha·x)` of operand 0.
fn swish(n: &mut Node<'_, '_>) -> Result<SrgValue> {
    let x = n.x(0)?;
    let alpha = n.float("alpha", 1.0)?;
    if alpha == 1.0 {
        return n.plain(K::Silu, &[x]);
    }
    let scaled = n.with_scalar(K::Mul, x, alpha)?;
    let gate = n.plain(K::Sigmoid, &[scaled])?;
    n.plain(K::Mul, &[x, gate])
}

/// Swish of the gate times the value.
fn swiglu(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let value = n.x(1)?;
    let gate = swish(n)?;
    one(n.plain(K::Mul, &[gate, value])?)
}

/// A function along one axis of a value.
type AlongAxis = fn(&mut Node<'_, '_>, SrgValue, usize) -> Result<SrgValue>;

fn on_axis(n: &mut Node<'_, '_>, f: AlongAxis) -> Result<Outputs> {
    let x = n.x(0)?;
    let axis = n.axis(n.int("axis", -1)?, n.rank(x))?;
    one(f(n, x, axis)?)
}

/// Before operator set 13 the axes from `axis` on counted as one.
fn flattened(n: &mut Node<'_, '_>, f: AlongAxis) -> Result<Outputs> {
    let x = n.x(0)?;
    let shape = n.shape(x);
    let axis = n.axis(n.int("axis", 1)?, shape.len())?;
    if axis + 1 == shape.len() {
        return one(f(n, x, axis)?);
    }
    let flat = n.reshape(x, vec![product(&shape[..axis]), product(&shape[axis..])])?;
    let y = f(n, flat, 1)?;
    one(n.reshape(y, shape)?)
}

fn softmax_last(n: &mut Node<'_, '_>, x: SrgValue, axis: usize) -> Result<SrgValue> {
    n.along(K::Softmax, &[x], axis)
}

fn log_softmax_last(n: &mut Node<'_, '_>, x: SrgValue, axis: usize) -> Result<SrgValue> {
    n.along(K::LogSoftmax, &[x], axis)
}

/// 1 at the first largest element along the axis, else 0.
fn hardmax(n: &mut Node<'_, '_>, x: SrgValue, axis: usize) -> Result<SrgValue> {
    let a = attrs! { axis: axis as i64, keepdims: true, select_last: false };
    let best = n.op(K::ArgMax, &[x], a)?;
    let (shape, dtype) = (n.shape(x), n.dtype(x));
    let positions = n.iota(shape, axis, DType::I64)?;
    let hit = n.compare("eq", positions, best)?;
    n.cast(hit, dtype)
}
