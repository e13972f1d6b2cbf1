//! Joining, repeating, padding and reordering.

use super::Table;
use super::views::bounds;
use crate::context::{Call, Cx, Operand, Ret, Scalar};
use djinn_diag::Result;
use djinn_ir::types::normalize_axis;
use djinn_ir::{DType, Dim, OpKind, attrs};
use djinn_srg::SrgValue;

pub(super) const TABLE: Table = &[
    ("cat", cat),
    ("concat", cat),
    ("concatenate", cat),
    ("stack", stack),
    ("repeat", repeat),
    ("tile", repeat),
    ("repeat_interleave", repeat_interleave),
    ("roll", roll),
    ("flip", flip),
    ("pad", pad),
    ("constant_pad_nd", pad),
    ("reflection_pad1d", pad),
    ("reflection_pad2d", pad),
    ("reflection_pad3d", pad),
    ("replication_pad1d", pad),
    ("replication_pad2d", pad),
    ("replication_pad3d", pad),
    ("tril", trilu),
    ("triu", trilu),
    ("slice_scatter", slice_scatter),
    ("select_scatter", select_scatter),
    ("pixel_shuffle", pixel_shuffle),
    ("pixel_unshuffle", pixel_unshuffle),
    ("unfold", unfold),
    ("meshgrid", meshgrid),
];

fn cat<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let mut all = cx.tensors(call, "tensors")?;
    // torch skips empty tensors of rank 1 among others.
    let legacy = |cx: &Cx<'_>, v: &SrgValue| cx.shape(*v).as_slice() == [Dim::ZERO];
    if all.iter().any(|v| !legacy(cx, v)) {
        all.retain(|v| !legacy(cx, v));
    }
    let operands: Vec<Operand> = all.iter().map(|v| Operand::Tensor(*v)).collect();
    let ty = cx.result_type(&operands.iter().collect::<Vec<_>>());
    let first = *all.first().ok_or_else(|| call.bad("tensors", "a list with a tensor"))?;
    let axis = cx.axis_or(call, "dim", cx.rank(first), 0)?;
    let all: Vec<SrgValue> = all.into_iter().map(|v| cx.cast(v, ty)).collect::<Result<_>>()?;
    cx.concat(&all, axis).map(Ret::Value)
}

fn stack<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let all = cx.tensors(call, "tensors")?;
    let first = *all.first().ok_or_else(|| call.bad("tensors", "a list with a tensor"))?;
    let axis = cx.axis_or(call, "dim", cx.rank(first) + 1, 0)?;
    let all: Vec<SrgValue> = all.into_iter().map(|v| cx.unsqueeze(v, axis)).collect::<Result<_>>()?;
    cx.concat(&all, axis).map(Ret::Value)
}

fn repeat<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let mut repeats = cx.dims(call, if call.base == "tile" { "dims" } else { "repeats" })?;
    let mut shape = cx.shape(x);
    while repeats.len() < shape.len() {
        repeats.insert(0, Dim::ONE);
    }
    while shape.len() < repeats.len() {
        shape.insert(0, Dim::ONE);
    }
    let x = cx.reshape(x, shape)?;
    if repeats.iter().all(|r| r.is(1)) {
        return Ok(Ret::Value(x));
    }
    cx.b.op(OpKind::Tile, &[x], attrs! { repeats: repeats }).map(Ret::Value)
}

fn repeat_interleave<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    if call.overload == "Tensor" || call.overload == "self_Tensor" {
        return Err(
            call.unsupported("repeats given by a tensor: the result's size is known at run time only")
        );
    }
    let repeats = cx.dim(call, "repeats")?;
    let mut x = cx.tensor(call, "self")?;
    if call.arg("dim").is_none() {
        let numel = cx.b.ty(x).numel();
        x = cx.reshape(x, vec![numel])?;
    }
    let axis = cx.axis_or(call, "dim", cx.rank(x), 0)?;
    let mut shape = cx.shape(x);
    let x = cx.unsqueeze(x, axis + 1)?;
    let mut wide = shape.clone();
    wide.insert(axis + 1, repeats.clone());
    let x = cx.broadcast_to(x, &wide)?;
    shape[axis] = &shape[axis] * &repeats;
    cx.reshape(x, shape).map(Ret::Value)
}

fn roll<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let mut x = cx.tensor(call, "self")?;
    let shape = cx.shape(x);
    let shifts = cx.ints(call, "shifts")?;
    let dims = cx.ints_opt(call, "dims")?.unwrap_or_default();
    if dims.is_empty() {
        let numel = cx.b.ty(x).numel();
        x = cx.reshape(x, vec![numel])?;
        x = rolled(cx, x, 0, shifts.first().copied().unwrap_or(0))?;
        return cx.reshape(x, shape).map(Ret::Value);
    }
    for (shift, dim) in shifts.iter().zip(&dims) {
        let axis = normalize_axis(*dim, shape.len()).ok_or_else(|| call.bad("dims", "axes of the tensor"))?;
        x = rolled(cx, x, axis, *shift)?;
    }
    Ok(Ret::Value(x))
}

fn rolled(cx: &mut Cx<'_>, x: SrgValue, axis: usize, shift: i64) -> Result<SrgValue> {
    let size = cx.const_size(x, axis, "size of a rolled axis")?;
    let cut = if size == 0 { 0 } else { shift.saturating_neg().rem_euclid(size) };
    if cut == 0 {
        return Ok(x);
    }
    let back = cx.slice(x, axis, Dim::from(cut), Dim::from(size))?;
    let front = cx.slice(x, axis, Dim::ZERO, Dim::from(cut))?;
    cx.concat(&[back, front], axis)
}

fn flip<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    if cx.ints(call, "dims")?.is_empty() {
        return Ok(Ret::Value(x));
    }
    let axes = cx.axes(call, "dims", cx.rank(x))?;
    cx.b.op(OpKind::Reverse, &[x], attrs! { axes: axes }).map(Ret::Value)
}

fn pad<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let amounts = cx.dims(call, if call.arg("pad").is_some() { "pad" } else { "padding" })?;
    let word = match call.base {
        "pad" => call.str_or("mode", "constant")?,
        base if base.starts_with("reflection") => "reflect",
        base if base.starts_with("replication") => "replicate",
        _ => "constant",
    };
    let mode = match word {
        "constant" => "constant",
        "reflect" => "reflect",
        "replicate" => "edge",
        "circular" => "wrap",
        other => return Err(call.unsupported(format!("the padding mode '{other}'"))),
    };
    let rank = cx.rank(x);
    if amounts.len() % 2 != 0 || amounts.len() / 2 > rank {
        return Err(call.bad("pad", "two amounts for each of the last axes"));
    }
    let (mut low, mut high) = (vec![Dim::ZERO; rank], vec![Dim::ZERO; rank]);
    // torch lists the last axis first.
    for (i, both) in amounts.chunks_exact(2).enumerate() {
        let axis = rank - 1 - i;
        (low[axis], high[axis]) = (both[0].clone(), both[1].clone());
    }
    if low.iter().chain(&high).all(|d| d.is(0)) {
        return Ok(Ret::Value(x));
    }
    let value = cx.scalar_opt(call, "value")?.unwrap_or(Scalar::Int(Dim::ZERO));
    let value = cx.constant(cx.dtype(x), &value)?;
    cx.b.op(OpKind::Pad, &[x, value], attrs! { low: low, high: high, mode: mode }).map(Ret::Value)
}

fn trilu<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let k = cx.int_or(call, "diagonal", 0)?;
    cx.b.op(OpKind::Trilu, &[x], attrs! { upper: call.base == "triu", k: k }).map(Ret::Value)
}

fn slice_scatter<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (x, src) = (cx.tensor(call, "self")?, cx.tensor(call, "src")?);
    let axis = cx.axis_or(call, "dim", cx.rank(x), 0)?;
    let size = cx.shape(x).get(axis).cloned().ok_or_else(|| call.bad("dim", "an axis"))?;
    let (start, _) = bounds(cx, call, &size)?;
    let stride = cx.int_or(call, "step", 1)?;
    let count = cx.shape(src).get(axis).cloned().ok_or_else(|| call.bad("src", "of self's rank"))?;
    if count == size && stride == 1 {
        return Ok(Ret::Value(src));
    }
    let index = cx.positions(&start, &count, stride)?;
    cx.b.op(OpKind::IndexCopy, &[x, index, src], attrs! { axis: axis as i64 }).map(Ret::Value)
}

fn select_scatter<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (x, src) = (cx.tensor(call, "self")?, cx.tensor(call, "src")?);
    let axis = cx.axis(call, "dim", cx.rank(x))?;
    let size = cx.shape(x).get(axis).cloned().ok_or_else(|| call.bad("dim", "an axis"))?;
    let index = cx.dim(call, "index")?;
    let index = if index.as_const().is_some_and(|c| c < 0) { &size + &index } else { index };
    let (index, src) = (cx.positions(&index, &Dim::ONE, 1)?, cx.unsqueeze(src, axis)?);
    cx.b.op(OpKind::IndexCopy, &[x, index, src], attrs! { axis: axis as i64 }).map(Ret::Value)
}

/// […, c·r², h, w] to […, c, h·r, w·r].
fn pixel_shuffle<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let r = Dim::from(cx.int(call, "upscale_factor")?);
    let rank = cx.want_rank(x, "the operand", 3, 16)?;
    let shape = cx.shape(x);
    let lead = shape[..rank - 3].to_vec();
    let (c, h, w) = (shape[rank - 3].floor_div(&(&r * &r)), &shape[rank - 2], &shape[rank - 1]);
    let split = [&lead[..], &[c.clone(), r.clone(), r.clone(), h.clone(), w.clone()]].concat();
    let x = cx.reshape(x, split)?;
    let n = lead.len() as i64;
    let perm = (0..n).chain([0, 3, 1, 4, 2].map(|i| n + i)).collect();
    let x = cx.transpose(x, perm)?;
    cx.reshape(x, [&lead[..], &[c, h * &r, w * &r]].concat()).map(Ret::Value)
}

/// […, c, h·r, w·r] to […, c·r², h, w].
fn pixel_unshuffle<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let r = Dim::from(cx.int(call, "downscale_factor")?);
    let rank = cx.want_rank(x, "the operand", 3, 16)?;
    let shape = cx.shape(x);
    let lead = shape[..rank - 3].to_vec();
    let (c, h, w) = (&shape[rank - 3], shape[rank - 2].floor_div(&r), shape[rank - 1].floor_div(&r));
    let split = [&lead[..], &[c.clone(), h.clone(), r.clone(), w.clone(), r.clone()]].concat();
    let x = cx.reshape(x, split)?;
    let n = lead.len() as i64;
    let perm = (0..n).chain([0, 2, 4, 1, 3].map(|i| n + i)).collect();
    let x = cx.transpose(x, perm)?;
    cx.reshape(x, [&lead[..], &[&(c * &r) * &r, h, w]].concat()).map(Ret::Value)
}

/// Windows of an axis as a new last axis.
fn unfold<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let rank = cx.rank(x);
    let axis = cx.axis(call, "dimension", rank)?;
    let (size, step) = (cx.dim(call, "size")?, cx.dim(call, "step")?);
    let total = cx.shape(x).get(axis).cloned().ok_or_else(|| call.bad("dimension", "an axis"))?;
    let count = &(&total - &size).floor_div(&step) + &Dim::ONE;
    let starts = cx.iota(count, DType::I64)?;
    let step = cx.b.dim(step)?;
    let starts = cx.op(OpKind::Mul, &[starts, step])?;
    let starts = cx.unsqueeze(starts, 1)?;
    let within = cx.iota(size, DType::I64)?;
    let index = cx.op(OpKind::Add, &[starts, within])?;
    let v = cx.b.op(OpKind::Gather, &[x, index], attrs! { axis: axis as i64 })?;
    let moved = axis as i64 + 1;
    let perm = (0..=rank as i64).filter(|a| *a != moved).chain([moved]).collect();
    cx.transpose(v, perm).map(Ret::Value)
}

fn meshgrid<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let tensors = cx.tensors(call, "tensors")?;
    let xy = call.str_or("indexing", "ij")? == "xy" && tensors.len() >= 2;
    let rank = tensors.len();
    let place = |i: usize| if xy && i < 2 { 1 - i } else { i };
    let mut shape = vec![Dim::ONE; rank];
    for (i, t) in tensors.iter().enumerate() {
        shape[place(i)] = cx.b.ty(*t).numel();
    }
    let mut out = Vec::new();
    for (i, t) in tensors.iter().enumerate() {
        let mut one = vec![Dim::ONE; rank];
        one[place(i)] = shape[place(i)].clone();
        let v = cx.reshape(*t, one)?;
        out.push(Some(cx.broadcast_to(v, &shape)?));
    }
    Ok(Ret::Values(out))
}
