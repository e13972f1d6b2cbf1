//! Normalisations.

use super::Cx;
use crate::proto::{float, int};
use crate::reshape;
use djinn_diag::Result;
use djinn_ir::{DType, Dim, Op, TensorData, TensorType};

pub(super) fn layer_norm(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let attrs = vec![int("axis", op.attrs.int("axis")), float("epsilon", op.attrs.float("epsilon"))];
    let inputs = cx.operands(op)?;
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    cx.result_node(op, "LayerNormalization", &inputs, attrs)
}

/// RMSNormalization from opset 23 on. Before, the pattern that onnxruntime fuses into its own kernel, with the
/// statistics in f32 or wider.
pub(super) fn rms_norm(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let (axis, epsilon) = (op.attrs.int("axis"), op.attrs.float("epsilon"));
    let (x, scale) = (cx.name(op.operands[0])?, cx.name(op.operands[1])?);
    if cx.e.opset() >= 23 {
        let attrs = vec![int("axis", axis), float("epsilon", epsilon)];
        return cx.result_node(op, "RMSNormalization", &[&x, &scale], attrs);
    }
    let ty = cx.result_ty(op);
    let wide = if ty.dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let wide_ty = ty.with_dtype(wide);
    let mut mean_ty = wide_ty.clone();
    let axes: Vec<i64> = (axis..ty.rank() as i64).collect();
    mean_ty.shape[usize::try_from(axis).unwrap_or(0)..].fill(Dim::ONE);
    let wide_x = cx.e.cast(&x, wide)?;
    let (two, axes, eps) = (cx.e.scalar(wide, 2.0)?, cx.e.i64s(&axes)?, cx.e.scalar(wide, epsilon)?);
    let squares = cx.e.node("Pow", &[&wide_x, &two], vec![], wide_ty.clone())?;
    let mean = cx.e.node("ReduceMean", &[&squares, &axes], vec![], mean_ty.clone())?;
    let sum = cx.e.node("Add", &[&mean, &eps], vec![], mean_ty.clone())?;
    let root = cx.e.node("Sqrt", &[&sum], vec![], mean_ty)?;
    let normal = cx.e.node("Div", &[&wide_x, &root], vec![], wide_ty)?;
    let normal = cx.e.cast(&normal, ty.dtype)?;
    cx.e.node("Mul", &[&normal, &scale], vec![], ty)
}

/// Group normalisation. onnxruntime has no kernel for GroupNormalization and expands it into many nodes that run
/// several times slower than the spelling by InstanceNormalization, which the fast spelling therefore uses.
pub(super) fn group_norm(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let (groups, epsilon) = (op.attrs.int("groups"), op.attrs.float("epsilon"));
    let ty = cx.result_ty(op);
    let inputs = cx.operands(op)?;
    let (x, scale, bias) = (inputs[0].as_str(), inputs[1].as_str(), inputs[2].as_str());
    let eps = float("epsilon", epsilon);
    if ty.rank() >= 3 && ty.shape[1].is(groups) {
        return cx.e.node("InstanceNormalization", &[x, scale, bias], vec![eps], ty);
    }
    if cx.e.opset() >= 21 && cx.e.options.spelling != crate::Spelling::Fast {
        return cx.e.node("GroupNormalization", &[x, scale, bias], vec![int("num_groups", groups), eps], ty);
    }
    let channels = ty.shape[1].clone();
    let rest = ty.shape[1..].iter().fold(Dim::ONE, |p, d| &p * d).floor_div(&Dim::from(groups));
    let grouped = [ty.shape[0].clone(), Dim::from(groups), rest];
    let flat = reshape::reshape(cx.e, x, &grouped)?;
    let ones = splat(cx, ty.dtype, groups, 1.0)?;
    let zeros = splat(cx, ty.dtype, groups, 0.0)?;
    let flat_ty = TensorType::new(ty.dtype, grouped);
    let normal = cx.e.node("InstanceNormalization", &[&flat, &ones, &zeros], vec![eps], flat_ty)?;
    let mut result = reshape::reshape(cx.e, &normal, &ty.shape)?;
    let mut column = vec![Dim::ONE; ty.rank() - 1];
    column[0] = channels;
    for (operand, name, onnx_op, idle) in [(1, scale, "Mul", 1.0), (2, bias, "Add", 0.0)] {
        if cx.known(op.operands[operand]).and_then(|d| d.splat_value()) == Some(idle) {
            continue;
        }
        let column = column_of(cx, name, &column)?;
        result = cx.e.node(onnx_op, &[&result, &column], vec![], ty.clone())?;
    }
    Ok(result)
}

/// A vector under another shape: the initializer itself is reshaped, if the vector is one.
fn column_of(cx: &mut Cx<'_, '_>, name: &str, shape: &[Dim]) -> Result<String> {
    let sizes: Option<Vec<usize>> =
        shape.iter().map(|d| d.as_const().and_then(|c| usize::try_from(c).ok())).collect();
    let data = cx.e.initializer_data(name).zip(sizes).and_then(|(d, s)| d.reshaped(s));
    match data {
        Some(data) => Ok(cx.e.constant(&data)),
        None => reshape::reshape_cached(cx.e, name, shape),
    }
}

fn splat(cx: &mut Cx<'_, '_>, dtype: DType, count: i64, value: f64) -> Result<String> {
    let count = usize::try_from(count).unwrap_or(0);
    let data = TensorData::splat(dtype, &[count], value).ok_or_else(crate::emit::too_large)?;
    Ok(cx.e.constant(&data))
}

pub(super) fn batch_norm(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let attrs = vec![float("epsilon", op.attrs.float("epsilon"))];
    cx.simple(op, "BatchNormalization", attrs).map(|mut names| names.swap_remove(0))
}
