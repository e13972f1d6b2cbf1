//! Data movement but for slices.

use super::{Cx, reduce, slices};
use crate::dims;
use crate::proto::{float, int, ints, string};
use crate::reshape;
use djinn_diag::{Result, unsupported};
use djinn_ir::{DType, Dim, Op, OpKind, TensorData, TensorType, ValueId};

/// Elements of an `iota` that is written as a constant, at most.
const MAX_CONSTANT_IOTA: usize = 4096;

/// 0, 1, 2, … along an axis: a constant if it is small, else a Range that is shaped and expanded.
pub(super) fn iota(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let a = &op.attrs;
    let ty = cx.result_ty(op);
    let axis = usize::try_from(a.int("axis")).unwrap_or(0);
    let mut line = vec![Dim::ONE; ty.rank()];
    line[axis] = ty.shape[axis].clone();
    let name = iota_line(cx, &ty.shape[axis], ty.dtype)?;
    let name = reshape::reshape_cached(cx.e, &name, &line)?;
    reshape::expand(cx.e, &name, &ty.shape)
}

/// The numbers below `size` as a vector.
pub(super) fn iota_line(cx: &mut Cx<'_, '_>, size: &Dim, dtype: DType) -> Result<String> {
    let count = size.as_const().and_then(|c| usize::try_from(c).ok()).filter(|n| *n <= MAX_CONSTANT_IOTA);
    if let Some(n) = count {
        let bytes = (0..n).flat_map(|i| djinn_ir::data::encode_f64(dtype, i as f64)).collect::<Vec<u8>>();
        let data = TensorData::new(dtype, vec![n], bytes).ok_or_else(crate::emit::too_large)?;
        return Ok(cx.e.constant(&data));
    }
    let (start, limit, step) = (cx.e.i64_scalar(0)?, dims::scalar(cx.e, size)?, cx.e.i64_scalar(1)?);
    let ty = TensorType::new(DType::I64, [size.clone()]);
    let name = cx.e.cached("Range", &[&start, &limit, &step], vec![], ty)?;
    cx.e.cast(&name, dtype)
}

/// Reshape, from the first of a chain of reshapes where that needs no sizes at run time.
pub(super) fn reshape(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let (source, to) = (op.operands[0], op.attrs.dims("shape"));
    if let Some((id, _)) = cx.graph.definition(source).filter(|_| cx.single_use(source)) {
        let inner = cx.graph.op(id);
        if let Some(name) = reduce::with_other_rank(cx, inner, op, to)? {
            return Ok(name);
        }
        if let Some(name) = slices::single_element(cx, inner, op, to)? {
            return Ok(name);
        }
    }
    reshaped(cx, source, to)
}

/// The value of `v` under another shape.
pub(super) fn reshaped(cx: &mut Cx<'_, '_>, v: ValueId, to: &[Dim]) -> Result<String> {
    let mut source = v;
    let mut chain = vec![source];
    while let Some(inner) = cx.def(source, OpKind::Reshape) {
        source = inner.operands[0];
        chain.push(source);
    }
    let easy = |v: &&ValueId| {
        let from = &cx.graph.ty(**v).shape;
        from == to || reshape::is_static(from, to)
    };
    let best = chain.iter().rev().find(easy).or(chain.last()).copied().unwrap_or(source);
    let x = cx.name(best)?;
    reshape::reshape(cx.e, &x, to)
}

/// The permuted value of `v`; a transpose that defines `v` is merged into it.
pub(super) fn transposed(cx: &mut Cx<'_, '_>, v: ValueId, perm: &[i64]) -> Result<String> {
    let mut perm: Vec<usize> = perm.iter().map(|p| usize::try_from(*p).unwrap_or(0)).collect();
    let mut source = v;
    while let Some(inner) = cx.def(source, OpKind::Transpose) {
        let outer = inner.attrs.ints("perm");
        perm =
            perm.iter().map(|p| outer.get(*p).and_then(|q| usize::try_from(*q).ok()).unwrap_or(0)).collect();
        source = inner.operands[0];
    }
    let (x, from) = (cx.name(source)?, cx.graph.ty(source).clone());
    transposed_name(cx, &x, &from, &perm)
}

/// The permuted value of an emitted one.
pub(super) fn transposed_name(
    cx: &mut Cx<'_, '_>,
    x: &str,
    from: &TensorType,
    perm: &[usize],
) -> Result<String> {
    if perm.iter().enumerate().all(|(i, p)| i == *p) {
        return Ok(x.to_owned());
    }
    let ty = TensorType::new(from.dtype, perm.iter().map(|p| from.shape[*p].clone()));
    let perm: Vec<i64> = perm.iter().map(|p| *p as i64).collect();
    cx.e.node("Transpose", &[x], vec![ints("perm", &perm)], ty)
}

pub(super) fn transpose_op(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    transposed(cx, op.operands[0], op.attrs.ints("perm"))
}

pub(super) fn concat(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let inputs = cx.operands(op)?;
    if let [only] = inputs.as_slice() {
        return Ok(only.clone());
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    cx.result_node(op, "Concat", &inputs, vec![int("axis", op.attrs.int("axis"))])
}

/// The pad value as an input; zero is ONNX's default.
fn pad_value(cx: &Cx<'_, '_>, op: &Op, operand: usize) -> Result<String> {
    let zero = cx.known(op.operands[operand]).is_some_and(|d| d.bytes().iter().all(|b| *b == 0));
    if zero || op.attrs.str("mode") != "constant" { Ok(String::new()) } else { cx.name(op.operands[operand]) }
}

fn pad_mode(op: &Op) -> Vec<djinn_onnx_proto::AttributeProto> {
    match op.attrs.str("mode") {
        "constant" => vec![],
        mode => vec![string("mode", mode)],
    }
}

pub(super) fn pad(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let (low, high) = (op.attrs.dims("low"), op.attrs.dims("high"));
    let pads: Vec<Dim> = low.iter().chain(high).cloned().collect();
    let (x, value) = (cx.name(op.operands[0])?, pad_value(cx, op, 1)?);
    if pads.iter().all(|p| p.is(0)) {
        return Ok(x);
    }
    let pads = dims::vector(cx.e, &pads)?;
    cx.result_node(op, "Pad", &[&x, &pads, &value], pad_mode(op))
}

pub(super) fn dynamic_pad(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let (x, pads) = (cx.name(op.operands[0])?, cx.name(op.operands[1])?);
    let (pads, value) = (cx.e.cast(&pads, DType::I64)?, pad_value(cx, op, 2)?);
    let axes = cx.e.i64s(op.attrs.ints("axes"))?;
    cx.result_node(op, "Pad", &[&x, &pads, &value, &axes], pad_mode(op))
}

pub(super) fn tile(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let repeats = op.attrs.dims("repeats");
    let x = cx.name(op.operands[0])?;
    if repeats.iter().all(|r| r.is(1)) {
        return Ok(x);
    }
    let repeats = dims::vector(cx.e, repeats)?;
    cx.result_node(op, "Tile", &[&x, &repeats], vec![])
}

pub(super) fn gather(cx: &mut Cx<'_, '_>, op: &Op, onnx_op: &str) -> Result<String> {
    let axis = op.attrs.int("axis");
    let attrs = if axis == 0 { vec![] } else { vec![int("axis", axis)] };
    cx.simple(op, onnx_op, attrs).map(|mut names| names.swap_remove(0))
}

pub(super) fn gather_nd(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let attrs = vec![int("batch_dims", op.attrs.int("batch_dims"))];
    cx.simple(op, "GatherND", attrs).map(|mut names| names.swap_remove(0))
}

fn reduction(op: &Op) -> Option<djinn_onnx_proto::AttributeProto> {
    let reduction = op.attrs.str("reduction");
    (reduction != "none").then(|| string("reduction", reduction))
}

pub(super) fn scatter_nd(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let attrs = reduction(op).into_iter().collect();
    cx.simple(op, "ScatterND", attrs).map(|mut names| names.swap_remove(0))
}

pub(super) fn scatter_elements(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let mut attrs = vec![int("axis", op.attrs.int("axis"))];
    attrs.extend(reduction(op));
    cx.simple(op, "ScatterElements", attrs).map(|mut names| names.swap_remove(0))
}

/// The write of a cache. One slot of a cache with a batch axis is a TensorScatter (24), whole slices along axis 0
/// are a ScatterND, and the rest a ScatterElements whose expanded index all layers share.
pub(super) fn index_copy(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let (ty, index_ty, source_ty) = (cx.result_ty(op), cx.operand_ty(op, 1), cx.operand_ty(op, 2));
    let axis = usize::try_from(op.attrs.int("axis")).unwrap_or(0);
    let (x, index) = (cx.name(op.operands[0])?, cx.name(op.operands[1])?);
    let source = cx.name(op.operands[2])?;
    let index = cx.e.cast(&index, DType::I64)?;
    if cx.e.opset() >= 24 && axis > 0 && index_ty.shape[0].is(1) && ty.rank() >= 3 {
        let starts = reshape::expand(cx.e, &index, &ty.shape[..1])?;
        let attrs = vec![int("axis", axis as i64)];
        return cx.result_node(op, "TensorScatter", &[&x, &source, &starts], attrs);
    }
    if axis == 0 {
        let column = reshape::reshape_cached(cx.e, &index, &[index_ty.shape[0].clone(), Dim::ONE])?;
        return cx.result_node(op, "ScatterND", &[&x, &column, &source], vec![]);
    }
    let mut line = vec![Dim::ONE; ty.rank()];
    line[axis] = index_ty.shape[0].clone();
    let line = reshape::reshape_cached(cx.e, &index, &line)?;
    let spread = reshape::expand(cx.e, &line, &source_ty.shape)?;
    let attrs = vec![int("axis", axis as i64)];
    cx.result_node(op, "ScatterElements", &[&x, &spread, &source], attrs)
}

pub(super) fn trilu(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let (x, k) = (cx.name(op.operands[0])?, op.attrs.int("k"));
    let k = if k == 0 { String::new() } else { cx.e.i64_scalar(k)? };
    let attrs = if op.attrs.bool("upper") { vec![] } else { vec![int("upper", 0)] };
    cx.result_node(op, "Trilu", &[&x, &k], attrs)
}

/// Does `size · scale`, as ONNX rounds it, give `result`?
fn scale_gives(size: &Dim, scale: f64, result: &Dim) -> bool {
    match (size.as_const(), result.as_const()) {
        // Implementations multiply in f32 or in f64: both must agree.
        (Some(s), Some(r)) => {
            let scale = scale as f32;
            (s as f32 * scale).floor() == r as f32 && (s as f64 * f64::from(scale)).floor() == r as f64
        }
        (None, None) if scale.fract() == 0.0 => &(size * &Dim::from(scale as i64)) == result,
        (None, None) => true,
        _ => false,
    }
}

/// Is `scale` the quotient of the sizes?
fn is_quotient(size: &Dim, scale: f64, result: &Dim) -> bool {
    match (size.as_const(), result.as_const()) {
        (Some(s), Some(r)) if s > 0 => (r as f64 / s as f64 - scale).abs() <= 1e-6 * scale.abs(),
        (Some(_), Some(_)) => true,
        _ => scale == 0.0 || !scale.is_finite() || (scale == 1.0 && size == result),
    }
}

/// Resize by scales where they give the sizes, else by sizes where these give the scales.
pub(super) fn resize(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let a = &op.attrs;
    let (sizes, scales) = (a.dims("sizes"), a.floats("scales"));
    let from = cx.operand_ty(op, 0);
    let axes = || from.shape.iter().zip(&scales).zip(sizes);
    let x = cx.name(op.operands[0])?;
    let by_scales = axes().all(|((d, s), r)| *s > 0.0 && s.is_finite() && scale_gives(d, *s, r));
    let by_sizes = axes().all(|((d, s), r)| is_quotient(d, *s, r));
    let (scales, sizes) = if by_scales {
        let values: Vec<f32> = scales.iter().map(|s| *s as f32).collect();
        let data = TensorData::from_f32(&[values.len()], &values).ok_or_else(crate::emit::too_large)?;
        (cx.e.constant(&data), String::new())
    } else if by_sizes {
        (String::new(), dims::vector(cx.e, sizes)?)
    } else {
        let message = "'resize' has scales that do not follow from its sizes, which ONNX cannot express";
        return Err(unsupported("onnx-export.resize", message));
    };
    let mut attrs =
        vec![string("mode", a.str("mode")), string("coordinate_transformation_mode", a.str("coordinates"))];
    match a.str("mode") {
        "nearest" => attrs.push(string("nearest_mode", a.str("nearest"))),
        "cubic" => attrs.push(float("cubic_coeff_a", a.float("cubic_a"))),
        _ => {}
    }
    if a.bool("exclude_outside") {
        attrs.push(int("exclude_outside", 1));
    }
    cx.result_node(op, "Resize", &[&x, "", &scales, &sizes], attrs)
}
