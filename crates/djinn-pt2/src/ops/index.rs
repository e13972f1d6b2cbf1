//! Gathers and scatters: embedding, advanced indexing, writes by index.

use super::Table;
use crate::context::{Call, Cx, Ret, Scalar};
use djinn_diag::Result;
use djinn_ir::types::broadcast;
use djinn_ir::{DType, Dim, OpKind, attrs};
use djinn_srg::SrgValue;

pub(super) const TABLE: Table = &[
    ("embedding", embedding),
    ("index_select", index_select),
    ("index", index),
    ("_unsafe_index", index),
    ("index_put", index_put),
    ("_index_put_impl", index_put),
    ("_unsafe_index_put", index_put),
    ("index_copy", index_copy),
    ("index_fill", index_fill),
    ("index_add", index_add),
    ("gather", gather),
    ("take_along_dim", gather),
    ("scatter", scatter),
    ("scatter_add", scatter),
    ("scatter_reduce", scatter),
    ("one_hot", one_hot),
    ("nonzero", nonzero),
    ("masked_select", masked_select),
];

fn embedding<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (w, indices) = (cx.tensor(call, "weight")?, cx.tensor(call, "indices")?);
    cx.b.op(OpKind::Gather, &[w, indices], attrs! { axis: 0i64 }).map(Ret::Value)
}

/// The index as a vector.
fn vector(cx: &mut Cx<'_>, v: SrgValue) -> Result<SrgValue> {
    if cx.rank(v) == 0 { cx.unsqueeze(v, 0) } else { Ok(v) }
}

fn index_select<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let i = cx.tensor(call, "index")?;
    let i = vector(cx, i)?;
    let axis = cx.axis(call, "dim", cx.rank(x))? as i64;
    cx.b.op(OpKind::Gather, &[x, i], attrs! { axis: axis }).map(Ret::Value)
}

/// Advanced indexing: which axes are indexed, and the index tensors, all of integer type and one shape.
struct Advanced {
    axes: Vec<usize>,
    /// Shape of every index tensor.
    shape: Vec<Dim>,
    /// Index tuples, [shape…, axes].
    tuples: SrgValue,
    /// The only index tensor, if there is one, unbroadcast.
    single: Option<SrgValue>,
}

impl Advanced {
    /// Reads the argument `indices` over an operand of this rank; bool masks become their positions.
    fn new<'p>(cx: &mut Cx<'p>, call: &Call<'p>, rank: usize) -> Result<Advanced> {
        let mut list: Vec<(usize, SrgValue)> = Vec::new();
        let mut axis = 0;
        for given in cx.opt_tensors(call, "indices")? {
            match given {
                None => axis += 1,
                Some(mask) if matches!(cx.dtype(mask), DType::Bool) => {
                    for column in mask_columns(cx, mask)? {
                        list.push((axis, column));
                        axis += 1;
                    }
                }
                Some(v) => {
                    let v = if cx.dtype(v) == DType::I64 { v } else { cx.cast(v, DType::I64)? };
                    list.push((axis, v));
                    axis += 1;
                }
            }
        }
        if list.is_empty() || axis > rank {
            return Err(call.bad("indices", "a list of indices of the tensor's axes"));
        }
        let shapes: Vec<Vec<Dim>> = list.iter().map(|(_, v)| cx.shape(*v)).collect();
        let shape = broadcast(shapes.iter().map(Vec::as_slice))
            .map_err(|(a, b)| call.bad("indices", &format!("broadcastable: {a} and {b}")))?;
        let mut columns = Vec::new();
        for (_, v) in &list {
            let v = cx.broadcast_to(*v, &shape)?;
            columns.push(cx.unsqueeze(v, shape.len())?);
        }
        let single = if let [(_, v)] = list.as_slice() { Some(*v) } else { None };
        let tuples = cx.concat(&columns, shape.len())?;
        Ok(Advanced { axes: list.into_iter().map(|(a, _)| a).collect(), shape, tuples, single })
    }

    /// Order that brings the indexed axes to the front.
    fn perm(&self, rank: usize) -> Vec<i64> {
        let rest = (0..rank).filter(|a| !self.axes.contains(a));
        self.axes.iter().copied().chain(rest).map(|a| a as i64).collect()
    }

    /// Axis of the result at which the index axes stand: where the indexed axes were if they are adjacent, else 0.
    fn place(&self) -> usize {
        let adjacent = self.axes.windows(2).all(|w| w[1] == w[0] + 1);
        if adjacent { self.axes[0] } else { 0 }
    }

    /// Order that moves the index axes of [index…, rest…] to their place.
    fn to_place(&self, rank: usize) -> Vec<i64> {
        let (n, at) = (self.shape.len(), self.place());
        (n..n + at).chain(0..n).chain(n + at..rank).map(|a| a as i64).collect()
    }
}

fn index<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let rank = cx.rank(x);
    let advanced = Advanced::new(cx, call, rank)?;
    if let Some(single) = advanced.single {
        return cx
            .b
            .op(OpKind::Gather, &[x, single], attrs! { axis: advanced.axes[0] as i64 })
            .map(Ret::Value);
    }
    let front = cx.transpose(x, advanced.perm(rank))?;
    let v = cx.b.op(OpKind::GatherNd, &[front, advanced.tuples], attrs! { batch_dims: 0i64 })?;
    let perm = advanced.to_place(cx.rank(v));
    cx.transpose(v, perm).map(Ret::Value)
}

fn index_put<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let values = cx.tensor(call, "values")?;
    let values = cx.cast(values, cx.dtype(x))?;
    let accumulate = call.bool_or("accumulate", false)?;
    if let Some(v) = masked_put(cx, call, x, values, accumulate)? {
        return Ok(Ret::Value(v));
    }
    let rank = cx.rank(x);
    let shape = cx.shape(x);
    let advanced = Advanced::new(cx, call, rank)?;
    let perm = advanced.perm(rank);
    // Shape of x[indices], to which values broadcast.
    let rest: Vec<Dim> = perm[advanced.axes.len()..].iter().map(|a| shape[*a as usize].clone()).collect();
    let at = advanced.place();
    let target = [&rest[..at], &advanced.shape, &rest[at..]].concat();
    let values = cx.broadcast_to(values, &target)?;
    if let (Some(single), false, 1) = (advanced.single, accumulate, advanced.shape.len()) {
        let attrs = attrs! { axis: advanced.axes[0] as i64 };
        return cx.b.op(OpKind::IndexCopy, &[x, single, values], attrs).map(Ret::Value);
    }
    let to_front = inverse(&advanced.to_place(target.len()));
    let updates = cx.transpose(values, to_front)?;
    let front = cx.transpose(x, perm.clone())?;
    let reduction = if accumulate { "add" } else { "none" };
    let v =
        cx.b.op(OpKind::ScatterNd, &[front, advanced.tuples, updates], attrs! { reduction: reduction })?;
    cx.transpose(v, inverse(&perm)).map(Ret::Value)
}

fn inverse(perm: &[i64]) -> Vec<i64> {
    let mut out = vec![0; perm.len()];
    for (i, p) in perm.iter().enumerate() {
        out[*p as usize] = i as i64;
    }
    out
}

/// `x[mask] = value` for one value is a selection.
fn masked_put<'p>(
    cx: &mut Cx<'p>,
    call: &Call<'p>,
    x: SrgValue,
    values: SrgValue,
    accumulate: bool,
) -> Result<Option<SrgValue>> {
    let indices = cx.opt_tensors(call, "indices")?;
    let [Some(mask)] = indices.as_slice() else { return Ok(None) };
    if cx.dtype(*mask) != DType::Bool || !cx.b.ty(values).numel().is(1) {
        return Ok(None);
    }
    let mut shape = cx.shape(*mask);
    shape.resize(cx.rank(x).max(shape.len()), Dim::ONE);
    let mask = cx.reshape(*mask, shape)?;
    let value = cx.reshape(values, Vec::new())?;
    let value = if accumulate { cx.op(OpKind::Add, &[x, value])? } else { value };
    cx.op(OpKind::Select, &[mask, value, x]).map(Some)
}

/// Positions of the true elements, [n, rank].
fn positions(cx: &mut Cx<'_>, mask: SrgValue) -> Result<SrgValue> {
    let rank = cx.rank(mask);
    let count = cx.b.fresh_symbol();
    let shape = vec![Dim::from(rank), count];
    let v = cx.b.op(OpKind::NonZero, &[mask], attrs! { result_shape: shape })?;
    cx.transpose(v, vec![1, 0])
}

/// Positions of the true elements, one vector per axis.
fn mask_columns(cx: &mut Cx<'_>, mask: SrgValue) -> Result<Vec<SrgValue>> {
    let rank = cx.rank(mask);
    let all = positions(cx, mask)?;
    let mut columns = Vec::new();
    for axis in 0..rank {
        let column = cx.slice(all, 1, Dim::from(axis), Dim::from(axis + 1))?;
        columns.push(cx.squeeze(column, 1)?);
    }
    Ok(columns)
}

fn nonzero<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    positions(cx, x).map(Ret::Value)
}

/// `torch.where(condition)`: one vector of positions per axis.
pub(super) fn nonzero_columns<'p>(cx: &mut Cx<'p>, call: &Call<'p>, name: &str) -> Result<Ret> {
    let x = cx.tensor(call, name)?;
    Ok(Ret::Values(mask_columns(cx, x)?.into_iter().map(Some).collect()))
}

fn masked_select<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (x, mask) = (cx.tensor(call, "self")?, cx.tensor(call, "mask")?);
    let shapes = [cx.shape(x), cx.shape(mask)];
    let shape = broadcast(shapes.iter().map(Vec::as_slice))
        .map_err(|(a, b)| call.bad("mask", &format!("broadcastable: {a} and {b}")))?;
    let (x, mask) = (cx.broadcast_to(x, &shape)?, cx.broadcast_to(mask, &shape)?);
    let at = positions(cx, mask)?;
    cx.b.op(OpKind::GatherNd, &[x, at], attrs! { batch_dims: 0i64 }).map(Ret::Value)
}

fn index_copy<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let axis = cx.axis(call, "dim", cx.rank(x))?;
    let i = cx.tensor(call, "index")?;
    let i = vector(cx, i)?;
    let mut source = cx.tensor(call, "source")?;
    if cx.rank(source) + 1 == cx.rank(x) {
        source = cx.unsqueeze(source, axis)?;
    }
    cx.b.op(OpKind::IndexCopy, &[x, i, source], attrs! { axis: axis as i64 }).map(Ret::Value)
}

fn index_fill<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let axis = cx.axis(call, "dim", cx.rank(x))?;
    let i = cx.tensor(call, "index")?;
    let i = vector(cx, i)?;
    let value = cx.operand(call, "value")?;
    let value = cx.materialize(&value, cx.dtype(x))?;
    let mut shape = cx.shape(x);
    if let Some(size) = shape.get_mut(axis) {
        *size = cx.b.ty(i).numel();
    }
    let source = cx.broadcast_to(value, &shape)?;
    cx.b.op(OpKind::IndexCopy, &[x, i, source], attrs! { axis: axis as i64 }).map(Ret::Value)
}

fn index_add<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (x, mut source) = (cx.tensor(call, "self")?, cx.tensor(call, "source")?);
    let rank = cx.want_rank(x, "self", 1, 64)?;
    let axis = cx.axis(call, "dim", rank)? as i64;
    let alpha = cx.float_or(call, "alpha", 1.0)?;
    if alpha != 1.0 {
        let alpha = cx.number(cx.dtype(source), alpha)?;
        source = cx.op(OpKind::Mul, &[source, alpha])?;
    }
    let i = cx.tensor(call, "index")?;
    let i = vector(cx, i)?;
    let i = cx.unsqueeze(i, 1)?;
    let perm: Vec<i64> = [axis].into_iter().chain((0..rank as i64).filter(|a| *a != axis)).collect();
    let (front, updates) = (cx.transpose(x, perm.clone())?, cx.transpose(source, perm.clone())?);
    let v = cx.b.op(OpKind::ScatterNd, &[front, i, updates], attrs! { reduction: "add" })?;
    cx.transpose(v, inverse(&perm)).map(Ret::Value)
}

fn gather<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let i = cx.tensor(call, if call.arg("indices").is_some() { "indices" } else { "index" })?;
    if call.base == "take_along_dim" && call.arg("dim").is_none() {
        return Err(call.unsupported("without an axis"));
    }
    let axis = cx.axis(call, "dim", cx.rank(x))? as i64;
    if cx.rank(x) == 0 {
        return Ok(Ret::Value(x));
    }
    cx.b.op(OpKind::GatherElements, &[x, i], attrs! { axis: axis }).map(Ret::Value)
}

fn scatter<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (x, i) = (cx.tensor(call, "self")?, cx.tensor(call, "index")?);
    let axis = cx.axis(call, "dim", cx.rank(x))? as i64;
    let shape = cx.shape(i);
    let mut updates = if call.arg("value").is_some() {
        let value: Scalar = cx.scalar(call, "value")?;
        cx.filled(cx.dtype(x), &shape, &value)?
    } else {
        cx.tensor(call, "src")?
    };
    // Only the part of src that index covers is read.
    for (a, size) in shape.iter().enumerate().take(cx.rank(updates)) {
        updates = cx.slice(updates, a, Dim::ZERO, size.clone())?;
    }
    let word = call.str_or("reduce", if call.base == "scatter_add" { "add" } else { "none" })?;
    let reduction = match word {
        "none" => "none",
        "add" | "sum" => "add",
        "multiply" | "prod" => "mul",
        "amax" => "max",
        "amin" => "min",
        other => return Err(call.unsupported(format!("the reduction '{other}'"))),
    };
    if !call.bool_or("include_self", true)? {
        return Err(call.unsupported("include_self=False"));
    }
    cx.b.op(OpKind::ScatterElements, &[x, i, updates], attrs! { axis: axis, reduction: reduction })
        .map(Ret::Value)
}

fn one_hot<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let x = cx.tensor(call, "self")?;
    let classes = cx.dim(call, "num_classes")?;
    if classes.as_const().is_some_and(|c| c < 0) {
        return Err(call.unsupported("a number of classes that the data decides"));
    }
    let rank = cx.rank(x);
    let x = cx.unsqueeze(x, rank)?;
    let classes = cx.iota(classes, cx.dtype(x))?;
    let hot = cx.compare("eq", x, classes)?;
    cx.cast(hot, DType::I64).map(Ret::Value)
}
