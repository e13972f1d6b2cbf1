//! Elementwise operators.

use super::{Entry, row};
use crate::node::{Node, Outputs, one};
use crate::tensor;
use djinn_diag::Result;
use djinn_ir::{DType, OpKind as K, attrs};
use djinn_srg::SrgValue;

/// Rows of this family.
pub(crate) const OPS: &[Entry] = &[
    row("Abs", 6, |n| unary(n, K::Abs)),
    row("Neg", 6, |n| unary(n, K::Neg)),
    row("Sign", 9, |n| unary(n, K::Sign)),
    row("Exp", 6, |n| unary(n, K::Exp)),
    row("Log", 6, |n| unary(n, K::Log)),
    row("Sqrt", 6, |n| unary(n, K::Sqrt)),
    row("Reciprocal", 6, |n| unary(n, K::Reciprocal)),
    row("Sin", 7, |n| unary(n, K::Sin)),
    row("Cos", 7, |n| unary(n, K::Cos)),
    row("Tan", 7, |n| unary(n, K::Tan)),
    row("Asin", 7, |n| unary(n, K::Asin)),
    row("Acos", 7, |n| unary(n, K::Acos)),
    row("Atan", 7, |n| unary(n, K::Atan)),
    row("Sinh", 9, |n| unary(n, K::Sinh)),
    row("Cosh", 9, |n| unary(n, K::Cosh)),
    row("Tanh", 6, |n| unary(n, K::Tanh)),
    row("Asinh", 9, |n| unary(n, K::Asinh)),
    row("Acosh", 9, |n| unary(n, K::Acosh)),
    row("Atanh", 9, |n| unary(n, K::Atanh)),
    row("Erf", 9, |n| unary(n, K::Erf)),
    row("Sigmoid", 6, |n| unary(n, K::Sigmoid)),
    row("Softplus", 1, |n| unary(n, K::Softplus)),
    row("Relu", 6, |n| unary(n, K::Relu)),
    row("Floor", 6, |n| unary(n, K::Floor)),
    row("Ceil", 6, |n| unary(n, K::Ceil)),
    row("Round", 11, |n| unary(n, K::Round)),
    row("IsNaN", 9, |n| unary(n, K::IsNan)),
    row("Not", 1, |n| unary(n, K::Not)),
    row("BitwiseNot", 18, |n| unary(n, K::Not)),
    row("IsInf", 10, is_inf),
    row("Add", 7, |n| binary(n, K::Add)),
    row("Sub", 7, |n| binary(n, K::Sub)),
    row("Mul", 7, |n| binary(n, K::Mul)),
    row("Div", 7, |n| binary(n, K::Div)),
    row("Pow", 7, |n| binary(n, K::Pow)),
    row("And", 7, |n| binary(n, K::And)),
    row("Or", 7, |n| binary(n, K::Or)),
    row("Xor", 7, |n| binary(n, K::Xor)),
    row("BitwiseAnd", 18, |n| binary(n, K::And)),
    row("BitwiseOr", 18, |n| binary(n, K::Or)),
    row("BitwiseXor", 18, |n| binary(n, K::Xor)),
    row("BitShift", 11, bit_shift),
    row("Mod", 10, modulo),
    row("Equal", 7, |n| comparison(n, "eq")),
    row("Less", 7, |n| comparison(n, "lt")),
    row("LessOrEqual", 12, |n| comparison(n, "le")),
    row("Greater", 7, |n| comparison(n, "gt")),
    row("GreaterOrEqual", 12, |n| comparison(n, "ge")),
    row("Max", 6, |n| variadic(n, K::Max)),
    row("Min", 6, |n| variadic(n, K::Min)),
    row("Sum", 6, |n| variadic(n, K::Add)),
    row("Mean", 6, mean),
    row("Where", 9, select),
    row("Clip", 6, clip),
    row("Cast", 6, cast),
    row("CastLike", 15, cast_like),
    row("BitCast", 26, bit_cast),
    row("Identity", 1, |n| one(n.x(0)?)),
    row("Dropout", 7, dropout),
];

fn unary(n: &mut Node<'_, '_>, kind: K) -> Result<Outputs> {
    let x = n.x(0)?;
    one(n.plain(kind, &[x])?)
}

fn binary(n: &mut Node<'_, '_>, kind: K) -> Result<Outputs> {
    let (a, b) = (n.x(0)?, n.x(1)?);
    one(n.plain(kind, &[a, b])?)
}

fn comparison(n: &mut Node<'_, '_>, predicate: &str) -> Result<Outputs> {
    let (a, b) = (n.x(0)?, n.x(1)?);
    one(n.compare(predicate, a, b)?)
}

fn is_inf(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let a = attrs! { negative: n.flag("detect_negative", true)?, positive: n.flag("detect_positive", true)? };
    one(n.op(K::IsInf, &[x], a)?)
}

fn bit_shift(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let kind = match n.text("direction", "")?.as_str() {
        "LEFT" => K::Shl,
        "RIGHT" => K::Shr,
        other => return Err(n.invalid(format!("'{other}' is no shift direction"))),
    };
    binary(n, kind)
}

fn modulo(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (a, b) = (n.x(0)?, n.x(1)?);
    let fmod = n.flag("fmod", false)?;
    one(n.op(K::Mod, &[a, b], attrs! { fmod: fmod })?)
}

/// A chain of two-operand operations over all operands.
fn chain(n: &mut Node<'_, '_>, kind: K) -> Result<SrgValue> {
    let all = n.all()?;
    let Some((first, rest)) = all.split_first() else {
        return Err(n.invalid("needs at least one operand"));
    };
    rest.iter().try_fold(*first, |acc, v| n.plain(kind, &[acc, *v]))
}

fn variadic(n: &mut Node<'_, '_>, kind: K) -> Result<Outputs> {
    one(chain(n, kind)?)
}

fn mean(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let sum = chain(n, K::Add)?;
    let count = n.inputs.len() as f64;
    if count == 1.0 {
        return one(sum);
    }
    one(n.with_scalar(K::Div, sum, count)?)
}

fn select(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (c, a, b) = (n.x(0)?, n.x(1)?, n.x(2)?);
    one(n.plain(K::Select, &[c, a, b])?)
}

/// The smallest and largest value of a type; the infinities for floats.
pub(crate) fn limits(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::Bool => (0.0, 1.0),
        DType::I8 => (f64::from(i8::MIN), f64::from(i8::MAX)),
        DType::I16 => (f64::from(i16::MIN), f64::from(i16::MAX)),
        DType::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
        // Conversion from float saturates, so that the rounded maxima give the exact ones.
        DType::I64 => (i64::MIN as f64, i64::MAX as f64),
        DType::U8 => (0.0, f64::from(u8::MAX)),
        DType::U16 => (0.0, f64::from(u16::MAX)),
        DType::U32 => (0.0, f64::from(u32::MAX)),
        DType::U64 => (0.0, u64::MAX as f64),
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => (f64::NEG_INFINITY, f64::INFINITY),
    }
}

fn clip(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let dtype = n.dtype(x);
    let (lowest, highest) = limits(dtype);
    let mut bound = |i: usize, name: &str, default: f64| -> Result<SrgValue> {
        if n.version < 11 {
            let value = n.attrs.float(name)?.unwrap_or(default);
            return n.scalar(dtype, value);
        }
        match n.opt(i) {
            Some(v) => n.as_scalar(v),
            None => n.scalar(dtype, default),
        }
    };
    let (low, high) = (bound(1, "min", lowest)?, bound(2, "max", highest)?);
    one(n.plain(K::Clamp, &[x, low, high])?)
}

fn cast(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let code = n.attrs.int("to")?.ok_or_else(|| n.invalid("the attribute 'to' is missing"))?;
    let to = tensor::dtype(i32::try_from(code).unwrap_or(-1))?;
    one(n.cast(x, to)?)
}

fn cast_like(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, like) = (n.x(0)?, n.x(1)?);
    let to = n.dtype(like);
    one(n.cast(x, to)?)
}

fn bit_cast(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let code = n.attrs.int("to")?.ok_or_else(|| n.invalid("the attribute 'to' is missing"))?;
    let to = tensor::dtype(i32::try_from(code).unwrap_or(-1))?;
    if to.size() != n.dtype(x).size() {
        return Err(n.unsupported("the types differ in width"));
    }
    one(n.op(K::BitCast, &[x], attrs! { to: to })?)
}

/// Inference: the operand itself and a mask of ones.
fn dropout(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let training = match n.opt(2) {
        Some(v) => n.consts(v).and_then(|c| c.first().copied()),
        None => Some(0),
    };
    let keeps_all = match n.opt(1) {
        Some(v) => n.number(v) == Some(0.0),
        None => false,
    };
    if training != Some(0) && !keeps_all {
        return Err(n.unsupported("training mode drops random elements"));
    }
    if !n.wants(1) {
        return one(x);
    }
    let (truth, shape) = (n.scalar(DType::Bool, 1.0)?, n.shape(x));
    let mask = n.broadcast(truth, shape)?;
    Ok(vec![Some(x), Some(mask)])
}
