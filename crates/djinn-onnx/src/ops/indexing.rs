//! Gather, scatter and operators built on them.

use super::{Entry, row};
use crate::node::{Node, Outputs, one, size};
use djinn_diag::Result;
use djinn_ir::dim::product;
use djinn_ir::{DType, Dim, OpKind as K, attrs};
use djinn_srg::SrgValue;

/// Rows of this family.
pub(crate) const OPS: &[Entry] = &[
    row("Gather", 1, gather),
    row("GatherElements", 11, gather_elements),
    row("GatherND", 11, gather_nd),
    row("Scatter", 9, scatter_elements),
    row("ScatterElements", 11, scatter_elements),
    row("ScatterND", 11, scatter_nd),
    row("OneHot", 9, one_hot),
    row("NonZero", 9, nonzero),
    row("Compress", 9, compress),
    row("Trilu", 14, trilu),
    row("ReverseSequence", 10, reverse_sequence),
    row("TensorScatter", 24, tensor_scatter),
];

fn gather(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, indices) = (n.x(0)?, n.x(1)?);
    let axis = n.axis(n.int("axis", 0)?, n.rank(x))?;
    one(n.along(K::Gather, &[x, indices], axis)?)
}

fn gather_elements(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, indices) = (n.x(0)?, n.x(1)?);
    let axis = n.axis(n.int("axis", 0)?, n.rank(x))?;
    one(n.along(K::GatherElements, &[x, indices], axis)?)
}

fn gather_nd(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, indices) = (n.x(0)?, n.x(1)?);
    let batch_dims = n.int("batch_dims", 0)?;
    one(n.op(K::GatherNd, &[x, indices], attrs! { batch_dims: batch_dims })?)
}

fn reduction(n: &Node<'_, '_>) -> Result<String> {
    let word = n.text("reduction", "none")?;
    if djinn_ir::ops::SCATTER_REDUCTIONS.contains(&word.as_str()) {
        Ok(word)
    } else {
        Err(n.invalid(format!("'{word}' is no reduction")))
    }
}

fn scatter_elements(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, indices, updates) = (n.x(0)?, n.x(1)?, n.x(2)?);
    let axis = n.axis(n.int("axis", 0)?, n.rank(x))? as i64;
    let reduction = reduction(n)?;
    one(n.op(K::ScatterElements, &[x, indices, updates], attrs! { axis: axis, reduction: reduction })?)
}

fn scatter_nd(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, indices, updates) = (n.x(0)?, n.x(1)?, n.x(2)?);
    let reduction = reduction(n)?;
    one(n.op(K::ScatterNd, &[x, indices, updates], attrs! { reduction: reduction })?)
}

/// `values[1]` where the position along the new axis equals the index, else `values[0]`.
fn one_hot(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (indices, depth, values) = (n.x(0)?, n.x(1)?, n.x(2)?);
    let depth_size = match n.known(depth).and_then(|k| k.first().cloned()) {
        Some(d) => d,
        None => match n.number(depth) {
            Some(v) if v.is_finite() && v >= 0.0 => size(v as i64),
            _ => n
                .hint_dim(n.axis(n.int("axis", -1)?, n.rank(indices) + 1)?, n.rank(indices) + 1)
                .ok_or_else(|| n.unsupported("the depth must be known when the model is compiled"))?,
        },
    };
    let rank = n.rank(indices) + 1;
    let axis = n.axis(n.int("axis", -1)?, rank)?;
    let index = n.cast(indices, DType::I64)?;
    let depth_value = n.imp.b.dim(depth_size.clone())?;
    let zero = n.scalar(DType::I64, 0.0)?;
    let negative = n.compare("lt", index, zero)?;
    let wrapped = n.plain(K::Add, &[index, depth_value])?;
    let index = n.plain(K::Select, &[negative, wrapped, index])?;
    let index = n.unsqueeze(index, axis)?;
    let mut dims = n.shape(index);
    dims[axis] = depth_size;
    let positions = n.iota(dims, axis, DType::I64)?;
    let hit = n.compare("eq", positions, index)?;
    let (off, on) = (pick(n, values, 0)?, pick(n, values, 1)?);
    one(n.plain(K::Select, &[hit, on, off])?)
}

/// Element `i` of a vector as a scalar.
fn pick(n: &mut Node<'_, '_>, x: SrgValue, i: i64) -> Result<SrgValue> {
    let part = n.slice(x, 0, size(i), size(i + 1))?;
    n.as_scalar(part)
}

fn nonzero(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    one(positions(n, x, true)?)
}

/// Positions of the elements that are not zero, `[rank, count]`.
fn positions(n: &mut Node<'_, '_>, x: SrgValue, declared: bool) -> Result<SrgValue> {
    let rank = size(n.rank(x) as i64);
    let count = if declared { n.hint_or_fresh(1, 2) } else { n.imp.b.fresh_symbol() };
    n.op(K::NonZero, &[x], attrs! { result_shape: vec![rank, count] })
}

/// The slices along an axis (or elements) for which the condition holds.
fn compress(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, condition) = (n.x(0)?, n.x(1)?);
    let (x, axis) = match n.attrs.int("axis")? {
        Some(a) => (x, n.axis(a, n.rank(x))?),
        None => {
            let count = product(&n.shape(x));
            (n.reshape(x, vec![count])?, 0)
        }
    };
    let hits = positions(n, condition, false)?;
    let count = n.shape(hits)[1].clone();
    let indices = n.reshape(hits, vec![count])?;
    one(n.along(K::Gather, &[x, indices], axis)?)
}

fn trilu(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let upper = n.flag("upper", true)?;
    let k = match n.opt(1) {
        None => 0,
        Some(v) => match n.consts(v).and_then(|k| k.first().copied()) {
            Some(k) => k,
            None => return trilu_at(n, x, v, upper),
        },
    };
    one(n.op(K::Trilu, &[x], attrs! { upper: upper, k: k })?)
}

/// Trilu whose diagonal only the run reveals: a comparison of row and column.
fn trilu_at(n: &mut Node<'_, '_>, x: SrgValue, k: SrgValue, upper: bool) -> Result<Outputs> {
    let (dims, dtype) = (n.shape(x), n.dtype(x));
    let [.., rows, columns] = dims.as_slice() else {
        return Err(n.invalid("the operand must have rank 2 or more"));
    };
    let plane = vec![rows.clone(), columns.clone()];
    let (row, column) = (n.iota(plane.clone(), 0, DType::I64)?, n.iota(plane, 1, DType::I64)?);
    let k = n.as_scalar(k)?;
    let diagonal = n.plain(K::Add, &[row, k])?;
    let kept = n.compare(if upper { "ge" } else { "le" }, column, diagonal)?;
    let zero = n.scalar(dtype, 0.0)?;
    one(n.plain(K::Select, &[kept, x, zero])?)
}

/// Reverses the first `lengths[b]` steps of batch entry b: a gather whose positions count backwards there.
fn reverse_sequence(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, lengths) = (n.x(0)?, n.x(1)?);
    let dims = n.shape(x);
    let (batch, time) =
        (n.axis(n.int("batch_axis", 1)?, dims.len())?, n.axis(n.int("time_axis", 0)?, dims.len())?);
    let step = n.iota(dims.clone(), time, DType::I64)?;
    let lengths = n.cast(lengths, DType::I64)?;
    let mut aligned = vec![Dim::ONE; dims.len()];
    aligned[batch] = dims[batch].clone();
    let lengths = n.reshape(lengths, aligned)?;
    let inside = n.compare("lt", step, lengths)?;
    let last = n.with_scalar(K::Sub, lengths, 1.0)?;
    let mirrored = n.plain(K::Sub, &[last, step])?;
    let index = n.plain(K::Select, &[inside, mirrored, step])?;
    one(n.along(K::GatherElements, &[x, index], time)?)
}

/// Writes `update` into the cache from `write_indices[b]` on.
fn tensor_scatter(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (cache, update) = (n.x(0)?, n.x(1)?);
    let (dims, new) = (n.shape(cache), n.shape(update));
    let axis = n.axis(n.int("axis", -2)?, dims.len())?;
    if new.len() != dims.len() {
        return Err(n.invalid("cache and update differ in rank"));
    }
    let steps = n.iota(new.clone(), axis, DType::I64)?;
    let mut index = steps;
    if let Some(first) = n.opt(2) {
        let first = n.cast(first, DType::I64)?;
        let mut aligned = vec![Dim::ONE; dims.len()];
        aligned[0] = new[0].clone();
        let first = n.reshape(first, aligned)?;
        index = n.plain(K::Add, &[steps, first])?;
    }
    match n.text("mode", "linear")?.as_str() {
        "linear" => {}
        "circular" => {
            let length = n.imp.b.dim(dims[axis].clone())?;
            index = n.op(K::Mod, &[index, length], attrs! { fmod: false })?;
        }
        other => return Err(n.invalid(format!("'{other}' is no mode of TensorScatter"))),
    }
    let a = attrs! { axis: axis as i64, reduction: "none" };
    one(n.op(K::ScatterElements, &[cache, index, update], a)?)
}
