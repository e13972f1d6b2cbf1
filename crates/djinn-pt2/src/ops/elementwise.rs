//! Elementwise operators: arithmetic with torch's promotion, comparisons, logic, selection.

use super::Table;
use crate::context::{Call, Cx, Operand, Ret, Scalar};
use djinn_diag::Result;
use djinn_ir::{DType, Dim, OpKind, attrs};
use djinn_srg::SrgValue;

pub(super) const TABLE: Table = &[
    ("add", add),
    ("sub", sub),
    ("subtract", sub),
    ("rsub", rsub),
    ("mul", mul),
    ("multiply", mul),
    ("div", div),
    ("divide", div),
    ("true_divide", div),
    ("floor_divide", floor_divide),
    ("remainder", remainder),
    ("fmod", remainder),
    ("pow", pow),
    ("square", square),
    ("maximum", extremum),
    ("minimum", extremum),
    ("fmax", extremum),
    ("fmin", extremum),
    ("eq", compare),
    ("ne", compare),
    ("lt", compare),
    ("le", compare),
    ("gt", compare),
    ("ge", compare),
    ("not_equal", compare),
    ("less", compare),
    ("less_equal", compare),
    ("greater", compare),
    ("greater_equal", compare),
    ("logical_and", logical),
    ("logical_or", logical),
    ("logical_xor", logical),
    ("logical_not", logical_not),
    ("bitwise_and", bitwise),
    ("bitwise_or", bitwise),
    ("bitwise_xor", bitwise),
    ("__and__", bitwise),
    ("__or__", bitwise),
    ("__xor__", bitwise),
    ("bitwise_not", bitwise_not),
    ("bitwise_left_shift", shift),
    ("bitwise_right_shift", shift),
    ("__lshift__", shift),
    ("__rshift__", shift),
    ("where", where_),
    ("clamp", clamp),
    ("clip", clamp),
    ("clamp_min", clamp),
    ("clamp_max", clamp),
    ("masked_fill", masked_fill),
    ("addcmul", addc),
    ("addcdiv", addc),
    ("lerp", lerp),
    ("neg", unary_any),
    ("negative", unary_any),
    ("abs", unary_any),
    ("absolute", unary_any),
    ("sign", unary_any),
    ("sgn", unary_any),
    ("exp", unary_float),
    ("log", unary_float),
    ("sqrt", unary_float),
    ("rsqrt", unary_float),
    ("reciprocal", unary_float),
    ("sin", unary_float),
    ("cos", unary_float),
    ("tan", unary_float),
    ("asin", unary_float),
    ("acos", unary_float),
    ("atan", unary_float),
    ("sinh", unary_float),
    ("cosh", unary_float),
    ("tanh", unary_float),
    ("asinh", unary_float),
    ("acosh", unary_float),
    ("atanh", unary_float),
    ("erf", unary_float),
    ("sigmoid", unary_float),
    ("expm1", scaled_unary),
    ("log1p", scaled_unary),
    ("log2", scaled_unary),
    ("log10", scaled_unary),
    ("exp2", scaled_unary),
    ("erfc", scaled_unary),
    ("floor", rounding),
    ("ceil", rounding),
    ("round", rounding),
    ("trunc", rounding),
    ("fix", rounding),
    ("isnan", isnan),
    ("isinf", isinf),
    ("isfinite", isfinite),
    ("nan_to_num", nan_to_num),
];

/// Operands `self` and `other` in their common type.
fn pair<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<(SrgValue, SrgValue)> {
    let (a, b) = (cx.operand(call, "self")?, cx.operand(call, "other")?);
    let ty = cx.result_type(&[&a, &b]);
    Ok((cx.materialize(&a, ty)?, cx.materialize(&b, ty)?))
}

/// `b` times the argument `alpha`, if that is not one.
fn times_alpha<'p>(cx: &mut Cx<'p>, call: &Call<'p>, b: SrgValue) -> Result<SrgValue> {
    match cx.scalar_opt(call, "alpha")? {
        None => Ok(b),
        Some(Scalar::Int(d)) if d.is(1) => Ok(b),
        Some(Scalar::Float(1.0)) => Ok(b),
        Some(alpha) => {
            let alpha = cx.constant(cx.dtype(b), &alpha)?;
            cx.op(OpKind::Mul, &[b, alpha])
        }
    }
}

fn add<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (a, b) = pair(cx, call)?;
    let b = times_alpha(cx, call, b)?;
    let kind = if cx.dtype(a) == DType::Bool { OpKind::Or } else { OpKind::Add };
    cx.op(kind, &[a, b]).map(Ret::Value)
}

fn sub<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (a, b) = pair(cx, call)?;
    let b = times_alpha(cx, call, b)?;
    cx.op(OpKind::Sub, &[a, b]).map(Ret::Value)
}

fn rsub<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (a, b) = pair(cx, call)?;
    let a = times_alpha(cx, call, a)?;
    cx.op(OpKind::Sub, &[b, a]).map(Ret::Value)
}

fn mul<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (a, b) = pair(cx, call)?;
    let kind = if cx.dtype(a) == DType::Bool { OpKind::And } else { OpKind::Mul };
    cx.op(kind, &[a, b]).map(Ret::Value)
}

fn div<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (a, b) = pair(cx, call)?;
    match call.str_or("rounding_mode", "")? {
        "" => {
            let (a, b) = (cx.float_value(a)?, cx.float_value(b)?);
            cx.op(OpKind::Div, &[a, b]).map(Ret::Value)
        }
        "floor" => floor_quotient(cx, a, b).map(Ret::Value),
        "trunc" => {
            let q = cx.op(OpKind::Div, &[a, b])?;
            if cx.dtype(q).is_float() { truncate(cx, q).map(Ret::Value) } else { Ok(Ret::Value(q)) }
        }
        other => Err(call.unsupported(format!("the rounding mode '{other}'"))),
    }
}

fn floor_divide<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (a, b) = pair(cx, call)?;
    floor_quotient(cx, a, b).map(Ret::Value)
}

/// ⌊a/b⌋; for integers (a − a mod b)/b, which is exact.
fn floor_quotient(cx: &mut Cx<'_>, a: SrgValue, b: SrgValue) -> Result<SrgValue> {
    if cx.dtype(a).is_float() {
        let q = cx.op(OpKind::Div, &[a, b])?;
        return cx.op(OpKind::Floor, &[q]);
    }
    let rest = cx.b.op(OpKind::Mod, &[a, b], attrs! { fmod: false })?;
    let whole = cx.op(OpKind::Sub, &[a, rest])?;
    cx.op(OpKind::Div, &[whole, b])
}

/// The float rounded towards zero.
fn truncate(cx: &mut Cx<'_>, v: SrgValue) -> Result<SrgValue> {
    let zero = cx.number(cx.dtype(v), 0.0)?;
    let negative = cx.compare("lt", v, zero)?;
    let (up, down) = (cx.op(OpKind::Ceil, &[v])?, cx.op(OpKind::Floor, &[v])?);
    cx.op(OpKind::Select, &[negative, up, down])
}

fn remainder<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (a, b) = pair(cx, call)?;
    cx.b.op(OpKind::Mod, &[a, b], attrs! { fmod: call.base == "fmod" }).map(Ret::Value)
}

fn pow<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (a, b) = (cx.operand(call, "self")?, cx.operand(call, "exponent")?);
    let ty = cx.result_type(&[&a, &b]);
    let (a, b) = (cx.materialize(&a, ty)?, cx.materialize(&b, ty)?);
    cx.op(OpKind::Pow, &[a, b]).map(Ret::Value)
}

fn square<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let a = cx.tensor(call, "self")?;
    cx.op(OpKind::Mul, &[a, a]).map(Ret::Value)
}

fn extremum<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (a, b) = pair(cx, call)?;
    let (kind, ignores_nan) = match call.base {
        "maximum" => (OpKind::Max, false),
        "minimum" => (OpKind::Min, false),
        "fmax" => (OpKind::Max, true),
        _ => (OpKind::Min, true),
    };
    let v = cx.op(kind, &[a, b])?;
    if !ignores_nan || !cx.dtype(a).is_float() {
        return Ok(Ret::Value(v));
    }
    let (a_nan, b_nan) = (cx.op(OpKind::IsNan, &[a])?, cx.op(OpKind::IsNan, &[b])?);
    let v = cx.op(OpKind::Select, &[b_nan, a, v])?;
    cx.op(OpKind::Select, &[a_nan, b, v]).map(Ret::Value)
}

fn compare<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let predicate = match call.base {
        "eq" => "eq",
        "ne" | "not_equal" => "ne",
        "lt" | "less" => "lt",
        "le" | "less_equal" => "le",
        "gt" | "greater" => "gt",
        _ => "ge",
    };
    let (a, b) = pair(cx, call)?;
    cx.compare(predicate, a, b).map(Ret::Value)
}

fn logical<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (a, b) = (cx.tensor(call, "self")?, cx.tensor(call, "other")?);
    let (a, b) = (cx.cast(a, DType::Bool)?, cx.cast(b, DType::Bool)?);
    let kind = match call.base {
        "logical_and" => OpKind::And,
        "logical_or" => OpKind::Or,
        _ => OpKind::Xor,
    };
    cx.op(kind, &[a, b]).map(Ret::Value)
}

fn logical_not<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let a = cx.tensor(call, "self")?;
    let a = cx.cast(a, DType::Bool)?;
    cx.op(OpKind::Not, &[a]).map(Ret::Value)
}

fn bitwise<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (a, b) = pair(cx, call)?;
    let kind = match call.base {
        "bitwise_and" | "__and__" => OpKind::And,
        "bitwise_or" | "__or__" => OpKind::Or,
        _ => OpKind::Xor,
    };
    cx.op(kind, &[a, b]).map(Ret::Value)
}

fn bitwise_not<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let a = cx.tensor(call, "self")?;
    cx.op(OpKind::Not, &[a]).map(Ret::Value)
}

fn shift<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (a, b) = pair(cx, call)?;
    let left = matches!(call.base, "bitwise_left_shift" | "__lshift__");
    cx.op(if left { OpKind::Shl } else { OpKind::Shr }, &[a, b]).map(Ret::Value)
}

fn where_<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    if call.arg("self").is_none() {
        return super::index::nonzero_columns(cx, call, "condition");
    }
    let cond = cx.tensor(call, "condition")?;
    let cond = cx.cast(cond, DType::Bool)?;
    let (a, b) = (cx.operand(call, "self")?, cx.operand(call, "other")?);
    let ty = cx.result_type(&[&a, &b]);
    let (a, b) = (cx.materialize(&a, ty)?, cx.materialize(&b, ty)?);
    cx.op(OpKind::Select, &[cond, a, b]).map(Ret::Value)
}

fn clamp<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = Operand::Tensor(cx.tensor(call, "self")?);
    let low = if call.base == "clamp_max" { None } else { cx.operand_opt(call, "min")? };
    let high = if call.base == "clamp_min" { None } else { cx.operand_opt(call, "max")? };
    let all: Vec<&Operand> = [Some(&x), low.as_ref(), high.as_ref()].into_iter().flatten().collect();
    let ty = cx.result_type(&all);
    let mut v = cx.materialize(&x, ty)?;
    let numbers = |o: &Option<Operand>| matches!(o, Some(Operand::Scalar(_)));
    if let (Some(l), Some(h), true) = (&low, &high, numbers(&low) && numbers(&high)) {
        let (l, h) = (cx.materialize(l, ty)?, cx.materialize(h, ty)?);
        return cx.op(OpKind::Clamp, &[v, l, h]).map(Ret::Value);
    }
    if let Some(l) = low {
        let l = cx.materialize(&l, ty)?;
        v = cx.op(OpKind::Max, &[v, l])?;
    }
    if let Some(h) = high {
        let h = cx.materialize(&h, ty)?;
        v = cx.op(OpKind::Min, &[v, h])?;
    }
    Ok(Ret::Value(v))
}

fn masked_fill<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (x, mask) = (cx.tensor(call, "self")?, cx.tensor(call, "mask")?);
    let value = cx.operand(call, "value")?;
    let value = cx.materialize(&value, cx.dtype(x))?;
    let mask = cx.cast(mask, DType::Bool)?;
    cx.op(OpKind::Select, &[mask, value, x]).map(Ret::Value)
}

/// self + value · tensor1 · tensor2 (or tensor1 / tensor2).
fn addc<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let names = ["self", "tensor1", "tensor2"];
    let mut operands = Vec::new();
    for n in names {
        operands.push(cx.operand(call, n)?);
    }
    let ty = cx.result_type(&operands.iter().collect::<Vec<_>>());
    let (x, a, b) = (
        cx.materialize(&operands[0], ty)?,
        cx.materialize(&operands[1], ty)?,
        cx.materialize(&operands[2], ty)?,
    );
    let kind = if call.base == "addcmul" { OpKind::Mul } else { OpKind::Div };
    let mut term = cx.op(kind, &[a, b])?;
    let value = cx.float_or(call, "value", 1.0)?;
    if value != 1.0 {
        let value = cx.number(ty, value)?;
        term = cx.op(OpKind::Mul, &[value, term])?;
    }
    cx.op(OpKind::Add, &[x, term]).map(Ret::Value)
}

fn lerp<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (start, end) = (cx.tensor(call, "self")?, cx.tensor(call, "end")?);
    let weight = cx.operand(call, "weight")?;
    let weight = cx.materialize(&weight, cx.dtype(start))?;
    let span = cx.op(OpKind::Sub, &[end, start])?;
    let part = cx.op(OpKind::Mul, &[weight, span])?;
    cx.op(OpKind::Add, &[start, part]).map(Ret::Value)
}

fn unary_any<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let kind = match call.base {
        "neg" | "negative" => OpKind::Neg,
        "abs" | "absolute" => OpKind::Abs,
        _ => OpKind::Sign,
    };
    if cx.dtype(x) == DType::Bool && kind != OpKind::Neg {
        return Ok(Ret::Value(x));
    }
    cx.op(kind, &[x]).map(Ret::Value)
}

fn unary_float<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let x = cx.float_value(x)?;
    // The names of these operators are those of the op table.
    let kind = OpKind::from_name(call.base).ok_or_else(|| call.unsupported("has no operation"))?;
    cx.op(kind, &[x]).map(Ret::Value)
}

/// Functions that are another function of a scaled or shifted operand.
fn scaled_unary<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let x = cx.float_value(x)?;
    let ty = cx.dtype(x);
    let v = match call.base {
        "expm1" => {
            let (e, one) = (cx.op(OpKind::Exp, &[x])?, cx.number(ty, 1.0)?);
            cx.op(OpKind::Sub, &[e, one])?
        }
        "log1p" => {
            let one = cx.number(ty, 1.0)?;
            let sum = cx.op(OpKind::Add, &[x, one])?;
            cx.op(OpKind::Log, &[sum])?
        }
        "log2" | "log10" => {
            let base = if call.base == "log2" { std::f64::consts::LN_2 } else { std::f64::consts::LN_10 };
            let (log, base) = (cx.op(OpKind::Log, &[x])?, cx.number(ty, base)?);
            cx.op(OpKind::Div, &[log, base])?
        }
        "exp2" => {
            let ln2 = cx.number(ty, std::f64::consts::LN_2)?;
            let scaled = cx.op(OpKind::Mul, &[x, ln2])?;
            cx.op(OpKind::Exp, &[scaled])?
        }
        _ => {
            let (erf, one) = (cx.op(OpKind::Erf, &[x])?, cx.number(ty, 1.0)?);
            cx.op(OpKind::Sub, &[one, erf])?
        }
    };
    Ok(Ret::Value(v))
}

fn rounding<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    if !cx.dtype(x).is_float() {
        return Ok(Ret::Value(x));
    }
    let v = match call.base {
        "floor" => cx.op(OpKind::Floor, &[x])?,
        "ceil" => cx.op(OpKind::Ceil, &[x])?,
        "round" => {
            let scale = 10f64.powi(cx.int_or(call, "decimals", 0)?.clamp(-300, 300) as i32);
            let factor = cx.number(cx.dtype(x), scale)?;
            let scaled = if scale == 1.0 { x } else { cx.op(OpKind::Mul, &[x, factor])? };
            let v = cx.op(OpKind::Round, &[scaled])?;
            if scale == 1.0 { v } else { cx.op(OpKind::Div, &[v, factor])? }
        }
        _ => truncate(cx, x)?,
    };
    Ok(Ret::Value(v))
}

/// A bool tensor of x's shape that is false everywhere.
fn all_false(cx: &mut Cx<'_>, x: SrgValue) -> Result<SrgValue> {
    let shape: Vec<Dim> = cx.shape(x);
    cx.filled(DType::Bool, &shape, &Scalar::Bool(false))
}

fn isnan<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    if !cx.dtype(x).is_float() {
        return all_false(cx, x).map(Ret::Value);
    }
    cx.op(OpKind::IsNan, &[x]).map(Ret::Value)
}

fn isinf<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    if !cx.dtype(x).is_float() {
        return all_false(cx, x).map(Ret::Value);
    }
    cx.b.op(OpKind::IsInf, &[x], attrs! { negative: true, positive: true }).map(Ret::Value)
}

fn isfinite<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    if !cx.dtype(x).is_float() {
        let no = all_false(cx, x)?;
        return cx.op(OpKind::Not, &[no]).map(Ret::Value);
    }
    let nan = cx.op(OpKind::IsNan, &[x])?;
    let inf = cx.b.op(OpKind::IsInf, &[x], attrs! { negative: true, positive: true })?;
    let either = cx.op(OpKind::Or, &[nan, inf])?;
    cx.op(OpKind::Not, &[either]).map(Ret::Value)
}

/// Largest finite value of a float type.
fn largest(d: DType) -> f64 {
    match d {
        DType::F16 => 65504.0,
        DType::BF16 => 3.389_531_389_251_535_5e38,
        DType::F64 => f64::MAX,
        _ => f64::from(f32::MAX),
    }
}

fn nan_to_num<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let ty = cx.dtype(x);
    if !ty.is_float() {
        return Ok(Ret::Value(x));
    }
    let fill = [
        cx.float_or(call, "nan", 0.0)?,
        cx.float_or(call, "posinf", largest(ty))?,
        cx.float_or(call, "neginf", -largest(ty))?,
    ];
    let tests = [
        cx.op(OpKind::IsNan, &[x])?,
        cx.b.op(OpKind::IsInf, &[x], attrs! { negative: false, positive: true })?,
        cx.b.op(OpKind::IsInf, &[x], attrs! { negative: true, positive: false })?,
    ];
    let mut v = x;
    for (test, fill) in tests.into_iter().zip(fill) {
        let fill = cx.number(ty, fill)?;
        v = cx.op(OpKind::Select, &[test, fill, v])?;
    }
    Ok(Ret::Value(v))
}
