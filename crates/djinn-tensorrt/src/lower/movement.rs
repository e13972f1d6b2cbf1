//! Sources and data movement.

use super::Node;
use crate::network::{Net, Val, layer, no_layer, refused};
use djinn_diag::Result;
use djinn_ir::{DType, Dim, OpKind, TensorType};
use trtx::{ElementWiseOperation as E, FillOperation, GatherMode, ScatterMode};

/// Copies that a tile or a wrap is put together from, at most.
const MAX_COPIES: i64 = 64;

/// Literals, sizes and counters.
pub(super) fn source<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    match node.kind {
        OpKind::Constant => {
            let value = node.attrs.tensor("value").ok_or_else(|| no_layer("a literal has no value"))?;
            net.literal(value)
        }
        OpKind::DimExpr => {
            let parts: Vec<Val<'n>> =
                node.attrs.dims("exprs").iter().map(|d| net.size(d)).collect::<Result<_>>()?;
            let vector = net.concat(&parts, 0)?;
            net.reshape(&vector, &node.types[0].shape)
        }
        _ => {
            let ty = &node.types[0];
            let axis = node.axis();
            let length = ty.shape.get(axis).ok_or_else(|| no_layer("the axis is out of range"))?;
            let line = counter(net, length, ty.dtype)?;
            let mut shape = vec![Dim::ONE; ty.rank()];
            shape[axis] = length.clone();
            let line = net.reshape(&line, &shape)?;
            net.broadcast(&line, &ty.shape)
        }
    }
}

/// 0, 1, 2, … of this length and type.
pub(super) fn counter<'n>(net: &mut Net<'n>, length: &Dim, dtype: DType) -> Result<Val<'n>> {
    let plain = [length.as_const().unwrap_or(0)];
    let fill = net.inner.add_fill(&plain, FillOperation::kLINSPACE, trtx::DataType::kINT64);
    let mut fill = fill.map_err(|e| refused(&e))?;
    let dims = net.shape_tensor(std::slice::from_ref(length))?;
    let start = net.number(DType::I64, 0, 0.0)?;
    let step = net.number(DType::I64, 1, 1.0)?;
    for (number, tensor) in [(0, &dims), (1, &start.tensor), (2, &step.tensor)] {
        fill.set_input(&mut net.inner, number, tensor).map_err(|e| refused(&e))?;
    }
    let ty = TensorType::new(DType::I64, [length.clone()]);
    let line = layer!(net, Ok::<_, trtx::Error>(fill), ty);
    net.cast(&line, dtype)
}

/// Movement along axes.
pub(super) fn lower<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    use OpKind as K;
    let x = node.x(0)?;
    match node.kind {
        K::Reshape => net.reshape(x, &node.types[0].shape),
        K::Transpose => {
            let perm: Vec<usize> =
                node.attrs.ints("perm").iter().filter_map(|p| usize::try_from(*p).ok()).collect();
            net.transpose(x, &perm)
        }
        K::Broadcast => net.broadcast(x, &node.types[0].shape),
        K::Slice => slice(net, node),
        K::Reverse => reverse(net, x, &node.axes()),
        K::Concat => {
            let whole = |v: &&Val<'n>| !v.shape()[node.axis()].is(0);
            let parts: Vec<Val<'n>> = node.operands.iter().filter(whole).cloned().collect();
            net.concat(&parts, node.axis())
        }
        K::Pad => pad(net, node),
        K::Tile => tile(net, x, node.attrs.dims("repeats")),
        K::Trilu => trilu(net, node),
        K::Gather => gather(net, node),
        K::GatherElements => {
            let indices = wrapped(net, node, 1, &x.shape()[node.axis()])?;
            gather_elements(net, x, &indices, node.axis())
        }
        K::GatherNd if node.attrs.int("batch_dims") == 0 => {
            let indices = wrapped_tuples(net, node)?;
            let gather = net.inner.add_gather_v2(&x.tensor, &indices.tensor, GatherMode::kND);
            Ok(layer!(net, gather, node.types[0].clone()))
        }
        _ => Err(no_layer("there is no layer for these attributes")),
    }
}

fn slice<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let (x, axis) = (node.x(0)?, node.axis());
    let mut starts = vec![Dim::ZERO; x.rank()];
    let mut strides = vec![1; x.rank()];
    starts[axis] = node.attrs.dim("start");
    strides[axis] = node.attrs.int("stride");
    net.slice(x, &starts, &node.types[0].shape, &strides)
}

/// Elements from the last to the first.
fn reverse<'n>(net: &mut Net<'n>, x: &Val<'n>, axes: &[usize]) -> Result<Val<'n>> {
    let mut starts = vec![Dim::ZERO; x.rank()];
    let mut strides = vec![1; x.rank()];
    for axis in axes {
        starts[*axis] = &x.shape()[*axis] - &Dim::ONE;
        strides[*axis] = -1;
    }
    let sizes = x.shape().to_vec();
    net.slice(x, &starts, &sizes, &strides)
}

/// One value everywhere.
pub(super) fn filled<'n>(net: &mut Net<'n>, value: &Val<'n>, shape: &[Dim]) -> Result<Val<'n>> {
    let one = net.reshape(value, &vec![Dim::ONE; shape.len()])?;
    net.broadcast(&one, shape)
}

/// Pads by joining: one axis after the other.
fn pad<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let (low, high) = (node.attrs.dims("low").to_vec(), node.attrs.dims("high").to_vec());
    let mut x = node.x(0)?.clone();
    for axis in 0..x.rank() {
        x = cropped(net, &x, axis, &low[axis], &high[axis])?;
        let mut parts = Vec::new();
        for (amount, before) in [(&low[axis], true), (&high[axis], false)] {
            let Some(amount) = positive(net, amount)? else { continue };
            let part = border(net, node, &x, axis, &amount, before)?;
            parts.push((before, part));
        }
        let mut joined: Vec<Val<'n>> = parts.iter().filter(|p| p.0).map(|p| p.1.clone()).collect();
        joined.push(x.clone());
        joined.extend(parts.iter().filter(|p| !p.0).map(|p| p.1.clone()));
        x = net.concat(&joined, axis)?;
    }
    Ok(x)
}

/// The amount, if something is added; an error if that is not known.
fn positive(net: &Net<'_>, amount: &Dim) -> Result<Option<Dim>> {
    match amount.bounds(&net.symbols) {
        (_, Some(most)) if most <= 0 => Ok(None),
        (Some(least), _) if least >= 1 => Ok(Some(amount.clone())),
        _ => Err(no_layer("whether something is padded is not known")),
    }
}

/// Negative amounts take elements away.
fn cropped<'n>(net: &mut Net<'n>, x: &Val<'n>, axis: usize, low: &Dim, high: &Dim) -> Result<Val<'n>> {
    let negative = |d: &Dim| d.as_const().map_or(0, |c| (-c).max(0));
    let (first, last) = (negative(low), negative(high));
    if first == 0 && last == 0 {
        return Ok(x.clone());
    }
    let mut starts = vec![Dim::ZERO; x.rank()];
    starts[axis] = Dim::from(first);
    let mut sizes = x.shape().to_vec();
    sizes[axis] = &sizes[axis] - &Dim::from(first + last);
    net.slice(x, &starts, &sizes, &vec![1; starts.len()])
}

/// What stands before or after x along an axis.
fn border<'n>(
    net: &mut Net<'n>,
    node: &Node<'_, 'n>,
    x: &Val<'n>,
    axis: usize,
    amount: &Dim,
    before: bool,
) -> Result<Val<'n>> {
    let mut shape = x.shape().to_vec();
    let length = shape[axis].clone();
    shape[axis] = amount.clone();
    let mut starts = vec![Dim::ZERO; shape.len()];
    let mut strides = vec![1; shape.len()];
    match node.attrs.str("mode") {
        "constant" => return filled(net, node.x(1)?, &shape),
        "edge" => {
            starts[axis] = if before { Dim::ZERO } else { &length - &Dim::ONE };
            strides[axis] = 0;
        }
        "reflect" => {
            starts[axis] = if before { amount.clone() } else { &length - &Dim::from(2i64) };
            strides[axis] = -1;
        }
        _ => {
            // What is wrapped must not be longer than x.
            starts[axis] = if before { &length - amount } else { Dim::ZERO };
        }
    }
    let inside = (&length - amount).bounds(&net.symbols).0;
    if !strides.contains(&0) && inside.is_none_or(|rest| rest < i64::from(strides[axis] < 0)) {
        return Err(no_layer("the border may be longer than the operand"));
    }
    net.slice(x, &starts, &shape, &strides)
}

fn tile<'n>(net: &mut Net<'n>, x: &Val<'n>, repeats: &[Dim]) -> Result<Val<'n>> {
    let mut x = x.clone();
    for (axis, repeat) in repeats.iter().enumerate() {
        if x.shape()[axis].is(1) {
            let mut shape = x.shape().to_vec();
            shape[axis] = repeat.clone();
            x = net.broadcast(&x, &shape)?;
            continue;
        }
        let copies = repeat.as_const().filter(|c| (1..=MAX_COPIES).contains(c));
        let copies = copies.ok_or_else(|| no_layer("the number of copies is not known, or large"))?;
        x = net.concat(&vec![x; copies as usize], axis)?;
    }
    Ok(x)
}

/// Is column − row ≥ k (or ≤ k)?
fn trilu<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let x = node.x(0)?;
    let (rows, columns) = (x.shape()[x.rank() - 2].clone(), x.shape()[x.rank() - 1].clone());
    let row = counter(net, &rows, DType::I64)?;
    let row = net.reshape(&row, &[rows, Dim::ONE])?;
    let column = counter(net, &columns, DType::I64)?;
    let distance = net.binary(&column, &row, E::kSUB)?;
    // Whole numbers: ≥ k is > k − 1.
    let k = node.attrs.int("k");
    let (op, bound) = match node.attrs.bool("upper") {
        true => (E::kGREATER, k.saturating_sub(1)),
        false => (E::kLESS, k.saturating_add(1)),
    };
    let keep = net.with_number(&distance, op, bound as f64)?;
    let zero = match x.dtype() {
        DType::Bool => {
            let none = net.number(DType::I32, x.rank(), 0.0)?;
            net.cast(&none, DType::Bool)?
        }
        dtype => net.number(dtype, x.rank(), 0.0)?,
    };
    net.select(&keep, x, &zero)
}

/// Indices counted from the front: TensorRT does not know negative ones.
fn wrapped<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>, number: usize, size: &Dim) -> Result<Val<'n>> {
    let indices = node.x(number)?;
    let literal = node.literals.get(number).copied().flatten().and_then(|t| t.to_i64s());
    if literal.is_some_and(|all| all.iter().all(|i| *i >= 0)) {
        return Ok(indices.clone());
    }
    let negative = net.with_number(indices, E::kLESS, 0.0)?;
    let size = net.size(size)?;
    let size = net.cast(&size, indices.dtype())?;
    let size = net.reshape(&size, &vec![Dim::ONE; indices.rank()])?;
    let moved = net.binary(indices, &size, E::kSUM)?;
    net.select(&negative, &moved, indices)
}

/// Index tuples counted from the front.
fn wrapped_tuples<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let (x, indices) = (node.x(0)?, node.x(1)?);
    let length = indices.shape().last().and_then(Dim::as_const).and_then(|c| usize::try_from(c).ok());
    let length = length.filter(|n| *n <= x.rank());
    let length = length.ok_or_else(|| no_layer("the length of index tuples is not known"))?;
    let parts: Vec<Val<'n>> = x.shape()[..length].iter().map(|d| net.size(d)).collect::<Result<_>>()?;
    let sizes = net.concat(&parts, 0)?;
    let sizes = net.cast(&sizes, indices.dtype())?;
    let sizes = net.at_least_rank(&sizes, indices.rank())?;
    let negative = net.with_number(indices, E::kLESS, 0.0)?;
    let moved = net.binary(indices, &sizes, E::kSUM)?;
    net.select(&negative, &moved, indices)
}

/// Along the first axis, which the layer has by default and the bindings cannot change.
fn gather_elements<'n>(net: &mut Net<'n>, x: &Val<'n>, indices: &Val<'n>, axis: usize) -> Result<Val<'n>> {
    let mut perm: Vec<usize> = (0..x.rank()).collect();
    perm.swap(0, axis);
    let (front, places) = (net.transpose(x, &perm)?, net.transpose(indices, &perm)?);
    let gather = net.inner.add_gather_v2(&front.tensor, &places.tensor, GatherMode::kELEMENT);
    let ty = TensorType::new(x.dtype(), places.shape().iter().cloned());
    let found = layer!(net, gather, ty);
    net.transpose(&found, &perm)
}

fn gather<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let (x, axis) = (node.x(0)?, node.axis());
    let indices = wrapped(net, node, 1, &x.shape()[axis])?;
    let gather = net.inner.add_gather(&x.tensor, &indices.tensor, axis as i32);
    Ok(layer!(net, gather, node.types[0].clone()))
}

/// Writes at indices.
pub(super) fn scatter<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let (x, updates) = (node.x(0)?, node.x(2)?);
    if node.kind == OpKind::IndexCopy {
        return index_copy(net, node);
    }
    if node.attrs.str("reduction") != "none" {
        return Err(no_layer("scatter layers only replace"));
    }
    match node.kind {
        OpKind::ScatterNd => {
            let indices = wrapped_tuples(net, node)?;
            let mode = ScatterMode::kND;
            let scatter = net.inner.add_scatter(&x.tensor, &indices.tensor, &updates.tensor, mode);
            Ok(layer!(net, scatter, x.ty.clone()))
        }
        _ => {
            let indices = wrapped(net, node, 1, &x.shape()[node.axis()])?;
            let mode = ScatterMode::kELEMENT;
            let scatter = net.inner.add_scatter(&x.tensor, &indices.tensor, &updates.tensor, mode);
            let mut scatter = scatter.map_err(|e| refused(&e))?;
            scatter.set_axis(&mut net.inner, node.axis() as i32);
            Ok(layer!(net, Ok::<_, trtx::Error>(scatter), x.ty.clone()))
        }
    }
}

/// Slices along an axis replaced: that axis first, then a scatter of whole slices.
fn index_copy<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let (x, axis) = (node.x(0)?, node.axis());
    let mut perm: Vec<usize> = (0..x.rank()).filter(|a| *a != axis).collect();
    perm.insert(0, axis);
    let mut back = vec![0; perm.len()];
    perm.iter().enumerate().for_each(|(to, from)| back[*from] = to);
    let front = net.transpose(x, &perm)?;
    let source = net.transpose(node.x(2)?, &perm)?;
    let indices = wrapped(net, node, 1, &x.shape()[axis])?;
    let column = [indices.shape()[0].clone(), Dim::ONE];
    let indices = net.reshape(&indices, &column)?;
    let scatter = net.inner.add_scatter(&front.tensor, &indices.tensor, &source.tensor, ScatterMode::kND);
    let ty = front.ty.clone();
    let written = layer!(net, scatter, ty);
    net.transpose(&written, &back)
}
