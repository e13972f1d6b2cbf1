//! Arithmetic on sizes and other numbers that are not tensors.

use super::Table;
use crate::context::{Call, Cx, Ret, Scalar};
use djinn_diag::Result;
use djinn_ir::Dim;

pub(super) const TABLE: Table = &[
    ("sym_size", sym_size),
    ("sym_numel", sym_numel),
    ("item", item),
    ("_local_scalar_dense", item),
    ("_operator.add", binary),
    ("_operator.sub", binary),
    ("_operator.mul", binary),
    ("_operator.floordiv", binary),
    ("_operator.mod", binary),
    ("_operator.truediv", binary),
    ("_operator.pow", binary),
    ("_operator.neg", unary),
    ("_operator.pos", unary),
    ("torch.sym_max", binary),
    ("torch.sym_min", binary),
    ("torch.sym_int", unary),
    ("torch.sym_float", unary),
    ("math.floor", unary),
    ("math.ceil", unary),
    ("math.trunc", unary),
    ("_operator.eq", comparison),
    ("_operator.ne", comparison),
    ("_operator.lt", comparison),
    ("_operator.le", comparison),
    ("_operator.gt", comparison),
    ("_operator.ge", comparison),
    ("_operator.and_", comparison),
    ("_operator.or_", comparison),
    ("_operator.not_", comparison),
    ("torch.sym_not", comparison),
];

fn sym_size<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let axis = cx.axis(call, "dim", cx.rank(x))?;
    let size = cx.shape(x).get(axis).cloned().ok_or_else(|| call.bad("dim", "an axis"))?;
    Ok(Ret::Scalar(Scalar::Int(size)))
}

fn sym_numel<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    Ok(Ret::Scalar(Scalar::Int(cx.b.ty(x).numel())))
}

/// The only element of a tensor, where shape arithmetic knows it.
fn item<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    if let Some(d) = cx.b.known(x).and_then(|k| k.as_scalar()) {
        return Ok(Ret::Scalar(Scalar::Int(d.clone())));
    }
    if let Some(v) = cx.b.constant_value(x).and_then(|t| t.get_f64(0)) {
        return Ok(Ret::Scalar(Scalar::Float(v)));
    }
    Err(call.unsupported("reads a number out of a tensor that is computed at run time"))
}

/// The node's numeric arguments in order.
fn numbers<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Vec<Scalar>> {
    let args = call.node.inputs.iter();
    args.map(|a| cx.scalar_of(&a.arg)?.ok_or_else(|| call.bad(&a.name, "a number"))).collect()
}

/// The number's value as a float, if it is known.
fn as_float(s: &Scalar) -> Option<f64> {
    match s {
        Scalar::Int(d) => d.as_const().map(|v| v as f64),
        Scalar::Float(v) => Some(*v),
        Scalar::Bool(b) => Some(f64::from(u8::from(*b))),
    }
}

fn operation(call: &Call<'_>) -> &'static str {
    let name = call.base.rsplit('.').next().unwrap_or_default();
    const NAMES: &[&str] = &["add", "sub", "mul", "floordiv", "mod", "truediv", "pow", "sym_max", "sym_min"];
    NAMES.iter().copied().find(|n| *n == name).unwrap_or_default()
}

fn binary<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let args = numbers(cx, call)?;
    let [a, b] = args.as_slice() else { return Err(call.unsupported("takes two numbers")) };
    let op = operation(call);
    let result = match (a, b) {
        (Scalar::Int(x), Scalar::Int(y)) => integers(op, x, y),
        _ => as_float(a).zip(as_float(b)).and_then(|(x, y)| floats(op, x, y)),
    };
    match result {
        Some(Scalar::Int(d)) if d.is_overflow() => Err(call.unsupported("the size overflows")),
        Some(s) => Ok(Ret::Scalar(s)),
        None => Err(call.unsupported("the result is not a size expression")),
    }
}

fn integers(op: &str, a: &Dim, b: &Dim) -> Option<Scalar> {
    Some(Scalar::Int(match op {
        "add" => a + b,
        "sub" => a - b,
        "mul" => a * b,
        "floordiv" => a.floor_div(b),
        "mod" => a.modulo(b),
        "sym_max" => a.max_of(b),
        "sym_min" => a.min_of(b),
        "pow" => {
            let exponent = b.as_const().filter(|e| (0..=16).contains(e))?;
            (0..exponent).fold(Dim::ONE, |acc, _| &acc * a)
        }
        "truediv" => match (a.as_const(), b.as_const()) {
            (Some(x), Some(y)) => return Some(Scalar::Float(x as f64 / y as f64)),
            _ => a.exact_div(b)?,
        },
        _ => return None,
    }))
}

fn floats(op: &str, a: f64, b: f64) -> Option<Scalar> {
    Some(Scalar::Float(match op {
        "add" => a + b,
        "sub" => a - b,
        "mul" => a * b,
        "truediv" => a / b,
        "floordiv" => (a / b).floor(),
        "mod" => a - b * (a / b).floor(),
        "pow" => a.powf(b),
        "sym_max" => a.max(b),
        "sym_min" => a.min(b),
        _ => return None,
    }))
}

fn unary<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let args = numbers(cx, call)?;
    let [a] = args.as_slice() else { return Err(call.unsupported("takes one number")) };
    let name = call.base.rsplit('.').next().unwrap_or_default();
    let to_int = |v: f64| Scalar::Int(Dim::from(v as i64));
    Ok(Ret::Scalar(match (name, a) {
        ("neg", Scalar::Int(d)) => Scalar::Int(&Dim::ZERO - d),
        ("neg", Scalar::Float(v)) => Scalar::Float(-v),
        ("sym_float", Scalar::Int(d)) => d.as_const().map_or(a.clone(), |v| Scalar::Float(v as f64)),
        ("floor", Scalar::Float(v)) => to_int(v.floor()),
        ("ceil", Scalar::Float(v)) => to_int(v.ceil()),
        ("trunc" | "sym_int", Scalar::Float(v)) => to_int(v.trunc()),
        _ => a.clone(),
    }))
}

/// Comparisons of sizes serve checks only; where one is not decided it counts as true, as torch assumed it.
fn comparison<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let args = numbers(cx, call)?;
    let name = call.base.rsplit('.').next().unwrap_or_default();
    let truth = |s: &Scalar| as_float(s).is_none_or(|v| v != 0.0);
    let result = match (name, args.as_slice()) {
        ("not_" | "sym_not", [a]) => !truth(a),
        ("and_", [a, b]) => truth(a) && truth(b),
        ("or_", [a, b]) => truth(a) || truth(b),
        (_, [Scalar::Int(a), Scalar::Int(b)]) => (a - b).as_const().is_none_or(|d| decide(name, d as f64)),
        (_, [a, b]) => as_float(a).zip(as_float(b)).is_none_or(|(x, y)| decide(name, x - y)),
        _ => return Err(call.unsupported("takes one or two numbers")),
    };
    Ok(Ret::Scalar(Scalar::Bool(result)))
}

fn decide(name: &str, difference: f64) -> bool {
    match name {
        "eq" => difference == 0.0,
        "ne" => difference != 0.0,
        "lt" => difference < 0.0,
        "le" => difference <= 0.0,
        "gt" => difference > 0.0,
        _ => difference >= 0.0,
    }
}
