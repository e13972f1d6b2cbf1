//! Elementwise operations.

use super::Cx;
use crate::proto::{int, string};
use djinn_diag::{Result, unsupported};
use djinn_ir::types::broadcast;
use djinn_ir::{DType, Dim, Op, OpKind, TensorType, ValueId};

/// Operand names, without broadcasts and reshapes that ONNX's own broadcasting makes superfluous.
fn broadcast_operands(cx: &mut Cx<'_, '_>, op: &Op) -> Result<Vec<String>> {
    let want = &cx.graph.ty(op.results[0]).shape;
    let mut values: Vec<ValueId> = op.operands.clone();
    for i in 0..values.len() {
        while let Some(inner) = spread_source(cx, values[i]) {
            let mut trial = values.clone();
            trial[i] = inner;
            let shapes: Vec<&[Dim]> = trial.iter().map(|v| cx.graph.ty(*v).shape.as_slice()).collect();
            if broadcast(shapes).ok().as_ref() != Some(want) {
                break;
            }
            values = trial;
        }
    }
    values.iter().map(|v| cx.name(*v)).collect()
}

/// The value of which `v` is a broadcast, or a reshape that only adds leading ones.
fn spread_source(cx: &Cx<'_, '_>, v: ValueId) -> Option<ValueId> {
    if let Some(spread) = cx.def(v, OpKind::Broadcast) {
        return Some(spread.operands[0]);
    }
    let inner = cx.def(v, OpKind::Reshape)?.operands[0];
    let (from, to) = (&cx.graph.ty(inner).shape, &cx.graph.ty(v).shape);
    let added = to.len().checked_sub(from.len())?;
    (added > 0 && to[..added].iter().all(|d| d.is(1)) && to[added..] == from[..]).then_some(inner)
}

/// An ONNX operator with numpy broadcasting.
pub(super) fn binary(cx: &mut Cx<'_, '_>, op: &Op, onnx_op: &str) -> Result<String> {
    let inputs = broadcast_operands(cx, op)?;
    cx.result_node(op, onnx_op, &[&inputs[0], &inputs[1]], vec![])
}

/// Power; onnxruntime has kernels for exponents of the common types only.
pub(super) fn pow(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let mut inputs = broadcast_operands(cx, op)?;
    let exponent = cx.operand_ty(op, 1).dtype;
    if exponent.is_int() && !matches!(exponent, DType::I32 | DType::I64) {
        inputs[1] = cx.e.cast(&inputs[1], if exponent.size() < 4 { DType::I32 } else { DType::I64 })?;
    }
    cx.result_node(op, "Pow", &[&inputs[0], &inputs[1]], vec![])
}

/// An operator that ONNX defines for numbers; on booleans all of these are the identity.
pub(super) fn unary(cx: &mut Cx<'_, '_>, op: &Op, onnx_op: &str) -> Result<String> {
    if cx.operand_ty(op, 0).dtype == DType::Bool {
        return cx.name(op.operands[0]);
    }
    cx.simple(op, onnx_op, vec![]).map(|mut names| names.swap_remove(0))
}

/// Negation; ONNX has none for unsigned integers, where it is 0 − x.
pub(super) fn neg(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let dtype = cx.operand_ty(op, 0).dtype;
    if dtype.is_signed() || dtype == DType::Bool {
        return unary(cx, op, "Neg");
    }
    let (zero, x) = (cx.e.scalar(dtype, 0.0)?, cx.name(op.operands[0])?);
    cx.result_node(op, "Sub", &[&zero, &x], vec![])
}

/// Relu; the identity on types without negative values.
pub(super) fn relu(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    if cx.operand_ty(op, 0).dtype.is_signed() { unary(cx, op, "Relu") } else { cx.name(op.operands[0]) }
}

pub(super) fn rsqrt(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let x = cx.name(op.operands[0])?;
    let root = cx.result_node(op, "Sqrt", &[&x], vec![])?;
    cx.result_node(op, "Reciprocal", &[&root], vec![])
}

/// Swish is a function in onnxruntime, about half as fast as the two nodes that it stands for.
pub(super) fn silu(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let x = cx.name(op.operands[0])?;
    if cx.e.opset() >= 24 && cx.e.options.spelling != crate::Spelling::Fast {
        return cx.result_node(op, "Swish", &[&x], vec![]);
    }
    let sigmoid = cx.result_node(op, "Sigmoid", &[&x], vec![])?;
    cx.result_node(op, "Mul", &[&x, &sigmoid], vec![])
}

pub(super) fn gelu(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let approximate = op.attrs.str("approximate");
    let attrs = if approximate == "none" { vec![] } else { vec![string("approximate", approximate)] };
    let x = cx.name(op.operands[0])?;
    cx.result_node(op, "Gelu", &[&x], attrs)
}

pub(super) fn cast(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let x = cx.name(op.operands[0])?;
    cx.e.cast(&x, cx.result_ty(op).dtype)
}

/// Between integers of one width a cast keeps the bits; ONNX's BitCast is younger than the opsets written here.
pub(super) fn bit_cast(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let (from, to) = (cx.operand_ty(op, 0).dtype, cx.result_ty(op).dtype);
    if from == to || (from.is_int() && to.is_int()) {
        return cast(cx, op);
    }
    let message = format!("'bit_cast' from {from} to {to} has no spelling before opset 26");
    Err(unsupported("onnx-export.bit_cast", message))
}

/// Remainder. ONNX's float remainder has the dividend's sign only, so the other is corrected by the divisor.
pub(super) fn modulo(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let inputs = broadcast_operands(cx, op)?;
    let (a, b) = (inputs[0].as_str(), inputs[1].as_str());
    let (ty, fmod) = (cx.result_ty(op), op.attrs.bool("fmod"));
    if fmod || !ty.dtype.is_float() {
        let attrs = if fmod { vec![int("fmod", 1)] } else { vec![] };
        return cx.e.node("Mod", &[a, b], attrs, ty);
    }
    let rest = cx.e.node("Mod", &[a, b], vec![int("fmod", 1)], ty.clone())?;
    let product = cx.e.node("Mul", &[&rest, b], vec![], ty.clone())?;
    let zero = cx.e.scalar(ty.dtype, 0.0)?;
    let differ = cx.e.node("Less", &[&product, &zero], vec![], ty.with_dtype(DType::Bool))?;
    let moved = cx.e.node("Add", &[&rest, b], vec![], ty.clone())?;
    cx.e.node("Where", &[&differ, &moved, &rest], vec![], ty)
}

/// Minimum or maximum; on booleans a logical operator.
pub(super) fn extremum(cx: &mut Cx<'_, '_>, op: &Op, number: &str, bool: &str) -> Result<String> {
    let onnx_op = if cx.operand_ty(op, 0).dtype == DType::Bool { bool } else { number };
    binary(cx, op, onnx_op)
}

/// A logical operator on booleans, a bitwise one on integers.
pub(super) fn logical(cx: &mut Cx<'_, '_>, op: &Op, bool: &str, bits: &str) -> Result<String> {
    extremum(cx, op, bits, bool)
}

/// The unsigned type of the same width.
fn unsigned(dtype: DType) -> DType {
    match dtype {
        DType::I8 => DType::U8,
        DType::I16 => DType::U16,
        DType::I32 => DType::U32,
        DType::I64 => DType::U64,
        other => other,
    }
}

/// ONNX shifts unsigned integers only and leaves shifts by the width or more undefined.
pub(super) fn shift(cx: &mut Cx<'_, '_>, op: &Op, direction: &str) -> Result<String> {
    let inputs = broadcast_operands(cx, op)?;
    let ty = cx.result_ty(op);
    let width = (ty.dtype.size() * 8) as i64;
    let bits = unsigned(ty.dtype);
    let in_range = cx.known(op.operands[1]).and_then(|d| d.to_i64s());
    let in_range = in_range.is_some_and(|s| s.iter().all(|v| (0..width).contains(v)));
    let arithmetic = direction == "RIGHT" && ty.dtype.is_signed();
    let (mut x, mut by) = (inputs[0].clone(), inputs[1].clone());
    if arithmetic && !in_range {
        // Shifting by width − 1 gives what every larger shift gives.
        let last = cx.e.scalar(ty.dtype, (width - 1) as f64)?;
        let by_ty = cx.e.ty(&by).cloned().unwrap_or_else(|| ty.clone());
        by = cx.e.node("Min", &[&by, &last], vec![], by_ty)?;
    }
    let zero = cx.e.scalar(ty.dtype, 0.0)?;
    let mut negative = None;
    if arithmetic {
        // Negative numbers are shifted as their complement: x >> s = ~(~x >> s).
        let x_ty = cx.e.ty(&x).cloned().unwrap_or_else(|| ty.clone());
        let sign = cx.e.node("Less", &[&x, &zero], vec![], x_ty.with_dtype(DType::Bool))?;
        let flipped = cx.e.node("BitwiseNot", &[&x], vec![], x_ty.clone())?;
        x = cx.e.node("Where", &[&sign, &flipped, &x], vec![], x_ty)?;
        negative = Some(sign);
    }
    let (x_bits, by_bits) = (cx.e.cast(&x, bits)?, cx.e.cast(&by, bits)?);
    let attrs = vec![string("direction", direction)];
    let shifted = cx.e.node("BitShift", &[&x_bits, &by_bits], attrs, ty.with_dtype(bits))?;
    let shifted = cx.e.cast(&shifted, ty.dtype)?;
    if let Some(sign) = negative {
        let flipped = cx.e.node("BitwiseNot", &[&shifted], vec![], ty.clone())?;
        return cx.e.node("Where", &[&sign, &flipped, &shifted], vec![], ty);
    }
    if in_range {
        return Ok(shifted);
    }
    let limit = cx.e.scalar(ty.dtype, width as f64)?;
    let by_ty = cx.e.ty(&by).cloned().unwrap_or_else(|| ty.clone());
    let fits = cx.e.node("Less", &[&by, &limit], vec![], by_ty.with_dtype(DType::Bool))?;
    cx.e.node("Where", &[&fits, &shifted, &zero], vec![], ty)
}

/// Comparison; booleans are ordered as 0 and 1.
pub(super) fn compare(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let inputs = broadcast_operands(cx, op)?;
    let (onnx_op, negate) = match op.attrs.str("predicate") {
        "eq" => ("Equal", false),
        "ne" => ("Equal", true),
        "lt" => ("Less", false),
        "le" => ("LessOrEqual", false),
        "gt" => ("Greater", false),
        _ => ("GreaterOrEqual", false),
    };
    let name = cx.result_node(op, onnx_op, &[&inputs[0], &inputs[1]], vec![])?;
    if negate { cx.result_node(op, "Not", &[&name], vec![]) } else { Ok(name) }
}

/// The slope of `select(x < 0, x·slope, x)`, which ONNX has as PRelu, if it broadcasts to x.
fn prelu_slope(cx: &Cx<'_, '_>, op: &Op) -> Option<ValueId> {
    let x = op.operands[2];
    let (cond, product) = (cx.def(op.operands[0], OpKind::Compare)?, cx.def(op.operands[1], OpKind::Mul)?);
    let below_zero = cond.attrs.str("predicate") == "lt"
        && cond.operands[0] == x
        && cx.known(cond.operands[1]).and_then(|d| d.splat_value()) == Some(0.0);
    let slope = match product.operands[..] {
        [a, slope] if a == x => slope,
        [slope, b] if b == x => slope,
        _ => return None,
    };
    let (ty, slope_ty) = (cx.graph.ty(x), cx.graph.ty(slope));
    let spread = broadcast([ty.shape.as_slice(), slope_ty.shape.as_slice()]);
    let fits = slope_ty.rank() <= ty.rank() && spread.as_ref() == Ok(&ty.shape);
    (below_zero && fits && ty.dtype.is_float() && cx.graph.ty(op.results[0]) == ty).then_some(slope)
}

/// Where; onnxruntime has no kernel for booleans, which are chosen by logic instead.
pub(super) fn select(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    if let Some(slope) = prelu_slope(cx, op) {
        let (x, slope) = (cx.name(op.operands[2])?, cx.name(slope)?);
        return cx.result_node(op, "PRelu", &[&x, &slope], vec![]);
    }
    let inputs = broadcast_operands(cx, op)?;
    let (cond, a, b) = (inputs[0].as_str(), inputs[1].as_str(), inputs[2].as_str());
    let ty = cx.result_ty(op);
    if ty.dtype != DType::Bool {
        return cx.e.node("Where", &[cond, a, b], vec![], ty);
    }
    let splat = |cx: &Cx<'_, '_>, name: &str| cx.e.initializer_data(name).and_then(|d| d.splat_value());
    let (known_a, known_b) = (splat(cx, a), splat(cx, b));
    let full = |cx: &Cx<'_, '_>, names: [&str; 2]| {
        let types: Vec<&TensorType> = names.iter().filter_map(|n| cx.e.ty(n)).collect();
        broadcast(types.iter().map(|t| t.shape.as_slice())).is_ok_and(|s| s == ty.shape)
    };
    match (known_a, known_b) {
        (_, Some(0.0)) if full(cx, [cond, a]) => cx.e.node("And", &[cond, a], vec![], ty),
        (Some(1.0), _) if full(cx, [cond, b]) => cx.e.node("Or", &[cond, b], vec![], ty),
        _ => {
            // b ^ (cond & (a ^ b))
            let differ = cx.e.node("Xor", &[a, b], vec![], ty.clone())?;
            let flip = cx.e.node("And", &[cond, &differ], vec![], ty.clone())?;
            cx.e.node("Xor", &[b, &flip], vec![], ty)
        }
    }
}

/// Clip; a bound that no value passes is left out.
pub(super) fn clamp(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let mut inputs = cx.operands(op)?;
    for (i, idle) in [(1, f64::NEG_INFINITY), (2, f64::INFINITY)] {
        if cx.known(op.operands[i]).and_then(|d| d.get_f64(0)) == Some(idle) {
            inputs[i].clear();
        }
    }
    if inputs[1].is_empty() && inputs[2].is_empty() {
        return Ok(inputs.swap_remove(0));
    }
    cx.result_node(op, "Clip", &[&inputs[0], &inputs[1], &inputs[2]], vec![])
}
