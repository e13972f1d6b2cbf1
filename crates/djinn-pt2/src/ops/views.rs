//! Operators whose result shares storage with an operand, and copies, which cost nothing in a pure graph.

use super::Table;
use crate::context::{Call, Cx, Operand, Ret};
use crate::env::{SlotId, Step};
use djinn_diag::{Result, input};
use djinn_ir::dim::product;
use djinn_ir::types::normalize_axis;
use djinn_ir::{DType, Dim, OpKind, attrs};

pub(super) const TABLE: Table = &[
    ("view", view),
    ("reshape", view),
    ("_unsafe_view", view),
    ("_reshape_alias", view),
    ("view_copy", view),
    ("view_as", view_as),
    ("reshape_as", view_as),
    ("flatten", flatten),
    ("unflatten", unflatten),
    ("ravel", flatten),
    ("transpose", transpose),
    ("swapaxes", transpose),
    ("swapdims", transpose),
    ("transpose_copy", transpose),
    ("t", reverse_axes),
    ("t_copy", reverse_axes),
    ("numpy_T", reverse_axes),
    ("mT", swap_last),
    ("permute", permute),
    ("permute_copy", permute),
    ("movedim", movedim),
    ("moveaxis", movedim),
    ("unsqueeze", unsqueeze),
    ("unsqueeze_copy", unsqueeze),
    ("squeeze", squeeze),
    ("squeeze_copy", squeeze),
    ("expand", expand),
    ("expand_copy", expand),
    ("broadcast_to", expand),
    ("expand_as", expand_as),
    ("select", select),
    ("select_copy", select),
    ("slice", slice),
    ("slice_copy", slice),
    ("narrow", narrow),
    ("narrow_copy", narrow),
    ("split", split),
    ("split_copy", split),
    ("unsafe_split", split),
    ("split_with_sizes", split),
    ("split_with_sizes_copy", split),
    ("unsafe_split_with_sizes", split),
    ("chunk", chunk),
    ("unsafe_chunk", chunk),
    ("unbind", unbind),
    ("unbind_copy", unbind),
    ("alias", identity),
    ("alias_copy", identity),
    ("detach", identity),
    ("detach_copy", identity),
    ("lift", identity),
    ("lift_fresh", identity),
    ("positive", identity),
    ("resolve_conj", identity),
    ("resolve_neg", identity),
    ("real", identity),
    ("requires_grad", identity),
    ("clone", copy),
    ("lift_fresh_copy", copy),
    ("contiguous", contiguous),
    ("to", to),
    ("_to_copy", to_copy),
    ("type_as", type_as),
    ("copy", copy_from),
    ("fill", fill),
    ("zero", fill),
    ("dropout", dropout),
    ("alpha_dropout", dropout),
    ("feature_dropout", dropout),
    ("native_dropout", dropout),
];

fn reshape_step(shape: Vec<Dim>) -> Step {
    (OpKind::Reshape, attrs! { shape: shape })
}

/// The step from `from` to `to`; nothing if they are equal.
fn reshape_steps(from: &[Dim], to: Vec<Dim>) -> Vec<Step> {
    if from == to { Vec::new() } else { vec![reshape_step(to)] }
}

/// Slot and shape of the operand.
fn operand<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<(SlotId, Vec<Dim>)> {
    let slot = cx.slot(call, "self")?;
    let value = cx.read(slot)?;
    Ok((slot, cx.shape(value)))
}

/// Are the recorded strides of the tensor argument `self` those of row-major order?
fn is_contiguous<'p>(cx: &mut Cx<'p>, call: &Call<'p>, shape: &[Dim]) -> Result<bool> {
    let Some(name) = cx.tensor_name(call, "self")? else { return Ok(false) };
    let Some(strides) = cx.strides(name)? else { return Ok(false) };
    let mut want = Dim::ONE;
    for (size, stride) in shape.iter().zip(&strides).rev() {
        if !size.is(1) && !(stride - &want).is(0) {
            return Ok(false);
        }
        want = &want * size;
    }
    Ok(true)
}

/// Replaces a −1 in `sizes` by what makes the number of elements that of `from`.
fn infer_size(from: &[Dim], sizes: &mut [Dim], recorded: Option<&[Dim]>) -> Result<()> {
    let Some(at) = sizes.iter().position(|d| d.is(-1)) else { return Ok(()) };
    let rest = product(sizes.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, d)| d));
    let known = product(from).exact_div(&rest).or_else(|| recorded?.get(at).cloned());
    sizes[at] = known.ok_or_else(|| {
        input("pt2.shape", "the size -1 does not follow from the number of elements")
            .help("the file is damaged: export the model again")
    })?;
    Ok(())
}

fn view<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    if let Some(to) = call.dtype("dtype")? {
        let x = cx.tensor(call, "self")?;
        return cx.b.op(OpKind::BitCast, &[x], attrs! { to: to }).map(Ret::Value);
    }
    let (slot, from) = operand(cx, call)?;
    let name = if call.arg("shape").is_some() { "shape" } else { "size" };
    let mut sizes = cx.dims(call, name)?;
    let recorded = cx.recorded_result(call)?.map(|t| t.shape).filter(|s| s.len() == sizes.len());
    infer_size(&from, &mut sizes, recorded.as_deref())?;
    let certain = call.base != "reshape" || is_contiguous(cx, call, &from)?;
    let steps = reshape_steps(&from, sizes);
    if certain { cx.view(slot, steps).map(Ret::Slot) } else { cx.uncertain_view(slot, steps).map(Ret::Slot) }
}

fn view_as<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (slot, from) = operand(cx, call)?;
    let other = cx.tensor(call, "other")?;
    let steps = reshape_steps(&from, cx.shape(other));
    cx.view(slot, steps).map(Ret::Slot)
}

fn flatten<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (slot, from) = operand(cx, call)?;
    let start = cx.axis_or(call, "start_dim", from.len(), 0)?;
    let end = cx.axis_or(call, "end_dim", from.len(), -1)?;
    let to = if from.is_empty() {
        vec![Dim::ONE]
    } else if start > end {
        return Err(call.bad("end_dim", "at least start_dim"));
    } else {
        let mut to = from[..start].to_vec();
        to.push(product(&from[start..=end]));
        to.extend_from_slice(&from[end + 1..]);
        to
    };
    let certain = is_contiguous(cx, call, &from)?;
    let steps = reshape_steps(&from, to);
    if certain { cx.view(slot, steps).map(Ret::Slot) } else { cx.uncertain_view(slot, steps).map(Ret::Slot) }
}

fn unflatten<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (slot, from) = operand(cx, call)?;
    let axis = cx.axis(call, "dim", from.len())?;
    let size = from.get(axis).cloned().ok_or_else(|| call.bad("dim", "an axis"))?;
    let mut sizes = cx.dims(call, "sizes")?;
    infer_size(&[size], &mut sizes, None)?;
    let to = [&from[..axis], &sizes, &from[axis + 1..]].concat();
    cx.view(slot, reshape_steps(&from, to)).map(Ret::Slot)
}

/// A view with permuted axes.
fn permuted(cx: &mut Cx<'_>, slot: SlotId, perm: Vec<i64>) -> Result<Ret> {
    let is_identity = perm.iter().enumerate().all(|(i, p)| i as i64 == *p);
    let steps = if is_identity { Vec::new() } else { vec![(OpKind::Transpose, attrs! { perm: perm })] };
    cx.view(slot, steps).map(Ret::Slot)
}

fn transpose<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (slot, from) = operand(cx, call)?;
    let (a, b) = if call.arg("axis0").is_some() { ("axis0", "axis1") } else { ("dim0", "dim1") };
    let (a, b) = (cx.axis(call, a, from.len())?, cx.axis(call, b, from.len())?);
    let mut perm: Vec<i64> = (0..from.len() as i64).collect();
    if !perm.is_empty() {
        perm.swap(a, b);
    }
    permuted(cx, slot, perm)
}

fn reverse_axes<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (slot, from) = operand(cx, call)?;
    permuted(cx, slot, (0..from.len() as i64).rev().collect())
}

fn swap_last<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (slot, from) = operand(cx, call)?;
    let mut perm: Vec<i64> = (0..from.len() as i64).collect();
    if let [.., a, b] = perm.as_mut_slice() {
        std::mem::swap(a, b);
    }
    permuted(cx, slot, perm)
}

fn permute<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (slot, from) = operand(cx, call)?;
    let dims = cx.ints(call, "dims")?;
    let perm: Option<Vec<i64>> =
        dims.iter().map(|d| normalize_axis(*d, from.len()).map(|a| a as i64)).collect();
    permuted(cx, slot, perm.ok_or_else(|| call.bad("dims", "a permutation of the axes"))?)
}

fn movedim<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (slot, from) = operand(cx, call)?;
    let rank = from.len();
    let axes = |name: &str| -> Result<Vec<usize>> {
        let ints = cx.ints(call, name)?;
        let axes: Option<Vec<usize>> = ints.iter().map(|a| normalize_axis(*a, rank)).collect();
        axes.ok_or_else(|| call.bad(name, "axes of the tensor"))
    };
    let (source, destination) = (axes("source")?, axes("destination")?);
    let mut perm: Vec<Option<usize>> = vec![None; rank];
    for (s, d) in source.iter().zip(&destination) {
        perm[*d] = Some(*s);
    }
    let mut rest = (0..rank).filter(|a| !source.contains(a));
    let perm: Option<Vec<i64>> =
        perm.into_iter().map(|p| p.or_else(|| rest.next()).map(|a| a as i64)).collect();
    permuted(cx, slot, perm.ok_or_else(|| call.bad("source", "as long as destination"))?)
}

fn unsqueeze<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (slot, from) = operand(cx, call)?;
    let axis = cx.axis(call, "dim", from.len() + 1)?;
    let mut to = from.clone();
    to.insert(axis, Dim::ONE);
    cx.view(slot, vec![reshape_step(to)]).map(Ret::Slot)
}

fn squeeze<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (slot, from) = operand(cx, call)?;
    let axes = cx.axes(call, "dim", from.len())?;
    let kept = from.iter().enumerate().filter(|(i, d)| !(axes.contains(&(*i as i64)) && d.is(1)));
    let to: Vec<Dim> = kept.map(|(_, d)| d.clone()).collect();
    cx.view(slot, reshape_steps(&from, to)).map(Ret::Slot)
}

fn expanded(cx: &mut Cx<'_>, slot: SlotId, from: &[Dim], to: Vec<Dim>) -> Result<Ret> {
    let steps = if from == to { Vec::new() } else { vec![(OpKind::Broadcast, attrs! { shape: to })] };
    cx.view(slot, steps).map(Ret::Slot)
}

fn expand<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (slot, from) = operand(cx, call)?;
    let mut to = cx.dims(call, "size")?;
    let missing = to.len().checked_sub(from.len()).ok_or_else(|| call.bad("size", "as long as the rank"))?;
    for (i, d) in to.iter_mut().enumerate() {
        if d.is(-1) {
            let kept = i.checked_sub(missing).map(|i| from[i].clone());
            *d = kept.ok_or_else(|| call.bad("size", "a list of sizes"))?;
        }
    }
    expanded(cx, slot, &from, to)
}

fn expand_as<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (slot, from) = operand(cx, call)?;
    let other = cx.tensor(call, "other")?;
    let to = cx.shape(other);
    expanded(cx, slot, &from, to)
}

fn slice_step(axis: usize, start: Dim, limit: Dim, stride: i64) -> Step {
    (OpKind::Slice, attrs! { axis: axis as i64, start: start, limit: limit, stride: stride })
}

/// Slice steps; none if everything is taken.
fn slice_steps(from: &[Dim], axis: usize, start: Dim, limit: Dim, stride: i64) -> Vec<Step> {
    if start.is(0) && stride == 1 && from.get(axis) == Some(&limit) {
        return Vec::new();
    }
    vec![slice_step(axis, start, limit, stride)]
}

/// A position as torch means it: negative counts from the end, out of range is clamped.
pub(super) fn clamp_position(cx: &Cx<'_>, position: &Dim, size: &Dim) -> Dim {
    let position = match position.as_const() {
        Some(c) if c < 0 => size + position,
        Some(i64::MAX) => return size.clone(),
        _ => position.clone(),
    };
    let proved = |a: &Dim, b: &Dim| a.provably_ge(b, &cx.symbols);
    if proved(&Dim::ZERO, &position) {
        return Dim::ZERO;
    }
    if proved(&position, size) {
        return size.clone();
    }
    let low = if proved(&position, &Dim::ZERO) { position } else { position.max_of(&Dim::ZERO) };
    if proved(size, &low) { low } else { low.min_of(size) }
}

fn select<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (slot, from) = operand(cx, call)?;
    let axis = cx.axis(call, "dim", from.len())?;
    let size = from.get(axis).ok_or_else(|| call.bad("dim", "an axis"))?;
    let index = cx.dim(call, "index")?;
    cx.view(slot, select_steps(&from, axis, size, &index)).map(Ret::Slot)
}

/// The steps to the element at `index` of an axis.
fn select_steps(from: &[Dim], axis: usize, size: &Dim, index: &Dim) -> Vec<Step> {
    let start = if index.as_const().is_some_and(|c| c < 0) { size + index } else { index.clone() };
    let limit = &start + &Dim::ONE;
    let mut to = from.to_vec();
    to.remove(axis);
    let mut steps = slice_steps(from, axis, start, limit, 1);
    steps.push(reshape_step(to));
    steps
}

fn slice<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (slot, from) = operand(cx, call)?;
    let axis = cx.axis_or(call, "dim", from.len(), 0)?;
    let size = from.get(axis).ok_or_else(|| call.bad("dim", "an axis"))?.clone();
    let (start, limit) = bounds(cx, call, &size)?;
    let stride = cx.int_or(call, "step", 1)?;
    cx.view(slot, slice_steps(&from, axis, start, limit, stride)).map(Ret::Slot)
}

/// Start and limit of a slice of an axis of this size.
pub(super) fn bounds<'p>(cx: &Cx<'p>, call: &Call<'p>, size: &Dim) -> Result<(Dim, Dim)> {
    let start = cx.dim_opt(call, "start")?.map_or(Dim::ZERO, |d| clamp_position(cx, &d, size));
    let limit = cx.dim_opt(call, "end")?.map_or_else(|| size.clone(), |d| clamp_position(cx, &d, size));
    let limit = if start.provably_ge(&limit, &cx.symbols) { start.clone() } else { limit };
    Ok((start, limit))
}

fn narrow<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (slot, from) = operand(cx, call)?;
    let axis = cx.axis(call, "dim", from.len())?;
    let size = from.get(axis).ok_or_else(|| call.bad("dim", "an axis"))?.clone();
    let start = clamp_position(cx, &cx.dim(call, "start")?, &size);
    let limit = &start + &cx.dim(call, "length")?;
    cx.view(slot, slice_steps(&from, axis, start, limit, 1)).map(Ret::Slot)
}

/// Views of consecutive pieces of these sizes along an axis.
fn pieces(cx: &mut Cx<'_>, slot: SlotId, from: &[Dim], axis: usize, sizes: &[Dim]) -> Result<Ret> {
    let mut start = Dim::ZERO;
    let mut slots = Vec::with_capacity(sizes.len());
    for size in sizes {
        let limit = &start + size;
        slots.push(cx.view(slot, slice_steps(from, axis, start, limit.clone(), 1))?);
        start = limit;
    }
    Ok(Ret::Slots(slots))
}

/// `count` pieces of one size, the last of them whatever is left.
fn equal_pieces(total: &Dim, size: &Dim, count: usize) -> Vec<Dim> {
    let mut sizes = vec![size.clone(); count.saturating_sub(1)];
    if count > 0 {
        sizes.push(total - &(size * &Dim::from(count - 1)));
    }
    sizes
}

fn split<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (slot, from) = operand(cx, call)?;
    let axis = cx.axis_or(call, "dim", from.len(), 0)?;
    let total = from.get(axis).ok_or_else(|| call.bad("dim", "an axis"))?;
    let sizes = if call.arg("split_sizes").is_some() {
        cx.dims(call, "split_sizes")?
    } else if call.overload.starts_with("sizes") {
        cx.dims(call, "split_size")?
    } else {
        equal_pieces(total, &cx.dim(call, "split_size")?, cx.output_names(call).len())
    };
    pieces(cx, slot, &from, axis, &sizes)
}

fn chunk<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (slot, from) = operand(cx, call)?;
    let axis = cx.axis_or(call, "dim", from.len(), 0)?;
    let total = from.get(axis).ok_or_else(|| call.bad("dim", "an axis"))?;
    let size = total.ceil_div(&Dim::from(cx.int(call, "chunks")?.max(1)));
    let sizes = equal_pieces(total, &size, cx.output_names(call).len());
    pieces(cx, slot, &from, axis, &sizes)
}

fn unbind<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (slot, from) = operand(cx, call)?;
    let axis = cx.axis_or(call, "dim", from.len(), 0)?;
    let size = from.get(axis).ok_or_else(|| call.bad("dim", "an axis"))?;
    let count = cx.output_names(call).len();
    if !size.is(count as i64) {
        return Err(call.bad("dim", "an axis with as many elements as results"));
    }
    let mut slots = Vec::with_capacity(count);
    for i in 0..count {
        slots.push(cx.view(slot, select_steps(&from, axis, size, &Dim::from(i)))?);
    }
    Ok(Ret::Slots(slots))
}

fn identity<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    cx.slot(call, "self").map(Ret::Slot)
}

fn copy<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    cx.tensor(call, "self").map(Ret::Value)
}

fn contiguous<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (slot, from) = operand(cx, call)?;
    if is_contiguous(cx, call, &from)? { Ok(Ret::Slot(slot)) } else { cx.read(slot).map(Ret::Value) }
}

/// A conversion; shares storage if neither type nor device changes and no copy is asked for.
fn to<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let slot = cx.slot(call, "self")?;
    let value = cx.read(slot)?;
    let target = match (call.dtype("dtype")?, cx.tensor_opt(call, "other")?) {
        (Some(d), _) => d,
        (None, Some(other)) => cx.dtype(other),
        (None, None) => cx.dtype(value),
    };
    if target == cx.dtype(value) && !call.bool_or("copy", false)? && same_device(cx, call)? {
        return Ok(Ret::Slot(slot));
    }
    cx.cast(value, target).map(Ret::Value)
}

/// Does the file record the same device for operand and result, or none for one of them?
fn same_device<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<bool> {
    let graph = cx.env().graph;
    let device = |n: Option<&&str>| n.and_then(|n| graph.tensor_values.get(*n)).map(|m| &m.device);
    let (from, to) = (cx.tensor_name(call, "self")?, cx.output_names(call));
    let both = device(from.as_ref()).zip(device(to.first()));
    Ok(both.is_none_or(|(a, b)| a == b))
}

fn to_copy<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let value = cx.tensor(call, "self")?;
    let target: DType = call.dtype("dtype")?.unwrap_or(cx.dtype(value));
    cx.cast(value, target).map(Ret::Value)
}

fn type_as<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let slot = cx.slot(call, "self")?;
    let (value, other) = (cx.read(slot)?, cx.tensor(call, "other")?);
    if cx.dtype(value) == cx.dtype(other) {
        return Ok(Ret::Slot(slot));
    }
    cx.cast(value, cx.dtype(other)).map(Ret::Value)
}

/// `src` in self's type and shape.
fn copy_from<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (value, src) = (cx.tensor(call, "self")?, cx.tensor(call, "src")?);
    let ty = cx.b.ty(value).clone();
    let src = cx.cast(src, ty.dtype)?;
    cx.broadcast_to(src, &ty.shape).map(Ret::Value)
}

/// The value (zero for `zero`) in self's type and shape.
fn fill<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let ty = cx.b.ty(x).clone();
    let zero = || Operand::Scalar(crate::context::Scalar::Int(Dim::ZERO));
    let value = cx.operand_opt(call, "value")?.unwrap_or_else(zero);
    let value = cx.materialize(&value, ty.dtype)?;
    cx.broadcast_to(value, &ty.shape).map(Ret::Value)
}

/// Identity outside training.
fn dropout<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    if call.bool_or("train", false)? && cx.float_or(call, "p", 0.5)? != 0.0 {
        return Err(call.unsupported("dropout in training mode; call model.eval() before exporting"));
    }
    let slot = cx.slot(call, if call.arg("input").is_some() { "input" } else { "self" })?;
    if call.base == "native_dropout" {
        let value = cx.read(slot)?;
        return Ok(Ret::Values(vec![Some(value), None]));
    }
    Ok(Ret::Slot(slot))
}
