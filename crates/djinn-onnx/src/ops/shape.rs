//! Operators that make or change shapes: Constant, Shape, Reshape, Range and their kin.

use super::{Entry, row};
use crate::model::MAX_RANK;
use crate::names::Hint;
use crate::node::{Node, Outputs, one, proves_ge, size};
use crate::tensor::{self, Literal};
use djinn_diag::Result;
use djinn_ir::dim::product;
use djinn_ir::{DType, Dim, OpKind as K, TensorData, attrs};
use djinn_srg::SrgValue;

/// Rows of this family.
pub(crate) const OPS: &[Entry] = &[
    row("Constant", 1, constant),
    row("ConstantOfShape", 9, constant_of_shape),
    row("Shape", 1, shape),
    row("Size", 1, element_count),
    row("Reshape", 5, reshape),
    row("Flatten", 1, flatten),
    row("Squeeze", 1, squeeze),
    row("Unsqueeze", 1, unsqueeze),
    row("Range", 11, range),
    row("EyeLike", 9, eye_like),
];

/// Becomes a literal, made anew wherever it is read.
fn constant(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let name = match n.proto.output.first() {
        Some(name) if !name.is_empty() => name.clone(),
        _ => return Ok(Vec::new()),
    };
    let data = if let Some(t) = n.attrs.tensor("value")? {
        Some(n.imp.read_tensor(t)?)
    } else if let Some(v) = n.attrs.float("value_float")? {
        TensorData::from_f32(&[], &[v as f32])
    } else if let Some(v) = n.attrs.floats("value_floats")? {
        let values: Vec<f32> = v.iter().map(|v| *v as f32).collect();
        TensorData::from_f32(&[values.len()], &values)
    } else if let Some(v) = n.attrs.int("value_int")? {
        TensorData::from_i64(&[], &[v])
    } else if let Some(v) = n.attrs.ints("value_ints")? {
        TensorData::from_i64(&[v.len()], &v)
    } else {
        return Err(n.unsupported("string and sparse constants are not supported"));
    };
    let data = data.ok_or_else(|| n.invalid("the constant has no value"))?;
    n.imp.define_literal(&name, Literal::of_constant(data))?;
    Ok(Vec::new())
}

fn constant_of_shape(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let shape = n.x(0)?;
    let value = match n.attrs.tensor("value")? {
        Some(t) => n.imp.read_tensor(t)?,
        None => TensorData::from_f32(&[1], &[0.0]).ok_or_else(|| n.invalid("no default value"))?,
    };
    let scalar = value.reshaped(Vec::new()).ok_or_else(|| n.invalid("the value must have one element"))?;
    let scalar = n.imp.b.constant(scalar)?;
    let rank_known = n.ty(shape).shape.first().and_then(Dim::as_const);
    match n.known(shape) {
        Some(dims) => one(n.broadcast(scalar, dims)?),
        None => {
            let rank = rank_known.ok_or_else(|| n.unsupported("the rank of the result is not known"))?;
            dynamic_broadcast(n, scalar, shape, rank)
        }
    }
}

/// A broadcast whose sizes only the run reveals.
pub(crate) fn dynamic_broadcast(
    n: &mut Node<'_, '_>,
    x: SrgValue,
    shape: SrgValue,
    rank: i64,
) -> Result<Outputs> {
    let rank = usize::try_from(rank).unwrap_or(0).max(n.rank(x));
    if rank > MAX_RANK {
        return Err(n.unsupported("the rank of the result is too large"));
    }
    let dims: Vec<Dim> = (0..rank).map(|i| n.hint_or_fresh(i, rank)).collect();
    one(n.op(K::DynamicBroadcast, &[x, shape], attrs! { result_shape: dims })?)
}

fn shape(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let dims = n.shape(x);
    let rank = dims.len() as i64;
    let clamp = |v: i64| (if v < 0 { v.saturating_add(rank) } else { v }).clamp(0, rank) as usize;
    let start = clamp(n.int("start", 0)?);
    let end = clamp(n.int("end", rank)?).max(start);
    one(n.imp.b.dims(dims[start..end].to_vec())?)
}

fn element_count(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let count = {
        let x = n.x(0)?;
        n.ty(x).numel()
    };
    one(n.imp.b.dim(count)?)
}

fn reshape(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, target) = (n.x(0)?, n.x(1)?);
    let allow_zero = n.flag("allowzero", false)?;
    match n.known(target) {
        Some(dims) => {
            let dims = resolve(n, x, dims, allow_zero)?;
            one(n.reshape(x, dims)?)
        }
        None => dynamic_reshape(n, x, target, allow_zero),
    }
}

/// Gives 0 and −1 in a reshape's target their values.
fn resolve(n: &Node<'_, '_>, x: SrgValue, mut dims: Vec<Dim>, allow_zero: bool) -> Result<Vec<Dim>> {
    let ty = n.ty(x);
    for (i, d) in dims.iter_mut().enumerate() {
        if d.is(0) && !allow_zero {
            *d = ty.shape.get(i).cloned().ok_or_else(|| {
                n.invalid(format!("axis {i} of the target copies a size that the operand {ty} lacks"))
            })?;
        }
    }
    let open: Vec<usize> = (0..dims.len()).filter(|i| dims[*i].is(-1)).collect();
    let [at] = open.as_slice() else {
        return if open.is_empty() { Ok(dims) } else { Err(n.invalid("the target has more than one −1")) };
    };
    let others = product(dims.iter().enumerate().filter(|(i, _)| i != at).map(|(_, d)| d));
    let total = ty.numel();
    dims[*at] = if others.is(0) {
        Dim::ZERO
    } else {
        let exact = total.exact_div(&others);
        if exact.is_none() && total.as_const().is_some() && others.as_const().is_some() {
            return Err(n.invalid(format!("{total} elements cannot be divided by {others}")));
        }
        // The factors common to operand and target cancel, which keeps quotients simple.
        exact.unwrap_or_else(|| quotient(&ty.shape, &dims, *at))
    };
    Ok(dims)
}

/// The number of elements of `shape` over that of `dims` without axis `at`, common factors cancelled.
fn quotient(shape: &[Dim], dims: &[Dim], at: usize) -> Dim {
    let mut above: Vec<&Dim> = shape.iter().collect();
    let mut below: Vec<&Dim> = Vec::new();
    for (_, d) in dims.iter().enumerate().filter(|(i, _)| *i != at) {
        match above.iter().position(|a| *a == d) {
            Some(i) => drop(above.remove(i)),
            None => below.push(d),
        }
    }
    product(above).floor_div(&product(below))
}

fn dynamic_reshape(n: &mut Node<'_, '_>, x: SrgValue, target: SrgValue, allow_zero: bool) -> Result<Outputs> {
    let rank = n.ty(target).shape.first().and_then(Dim::as_const).and_then(|r| usize::try_from(r).ok());
    let rank = rank
        .filter(|r| *r <= MAX_RANK)
        .ok_or_else(|| n.unsupported("the rank of the result is not known"))?;
    let dims: Vec<Dim> = (0..rank).map(|i| n.hint_or_fresh(i, rank)).collect();
    one(n.op(K::DynamicReshape, &[x, target], attrs! { result_shape: dims, allow_zero: allow_zero })?)
}

fn flatten(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let dims = n.shape(x);
    let rank = dims.len() as i64;
    let axis = n.int("axis", 1)?;
    let at = if axis < 0 { axis.saturating_add(rank) } else { axis };
    let at = usize::try_from(at)
        .ok()
        .filter(|a| *a <= dims.len())
        .ok_or_else(|| n.invalid(format!("axis {axis} is out of range for rank {rank}")))?;
    one(n.reshape(x, vec![product(&dims[..at]), product(&dims[at..])])?)
}

/// The axes of Squeeze and Unsqueeze: an attribute before operator set 13, then operand 1.
fn axes_of(n: &Node<'_, '_>) -> Result<Option<Vec<i64>>> {
    if n.version < 13 { n.attrs.ints("axes") } else { n.const_operand(1, "the axes") }
}

/// Squeeze and Unsqueeze with axes that only the run reveals: the declared result type tells the shape.
fn declared_shape(n: &mut Node<'_, '_>, error: Box<djinn_diag::Diagnostic>) -> Result<Outputs> {
    let Some(ty) = n.hint(0).and_then(Hint::whole) else { return Err(error) };
    let x = n.x(0)?;
    one(n.reshape(x, ty.shape)?)
}

fn squeeze(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let axes = match axes_of(n) {
        Ok(axes) => axes,
        Err(e) => return declared_shape(n, e),
    };
    let mut dims = n.shape(x);
    match axes {
        Some(axes) => {
            for a in n.axes(&axes, dims.len())?.into_iter().rev() {
                let removed = dims.remove(a as usize);
                if removed.as_const().is_some_and(|c| c != 1) {
                    return Err(n.invalid(format!("axis {a} of size {removed} cannot be removed")));
                }
            }
        }
        None => dims.retain(|d| !d.is(1)),
    }
    one(n.reshape(x, dims)?)
}

fn unsqueeze(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let axes = match axes_of(n) {
        Ok(axes) => axes.ok_or_else(|| n.invalid("the axes are missing"))?,
        Err(e) => return declared_shape(n, e),
    };
    let mut dims = n.shape(x);
    let rank = dims.len() + axes.len();
    for a in n.axes(&axes, rank)? {
        dims.insert(a as usize, Dim::ONE);
    }
    one(n.reshape(x, dims)?)
}

fn range(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (start, limit, delta) = (n.x(0)?, n.x(1)?, n.x(2)?);
    let (start, limit, delta) = (n.as_scalar(start)?, n.as_scalar(limit)?, n.as_scalar(delta)?);
    let dtype = n.dtype(start);
    let Some(count) = range_count(n, start, limit, delta)? else {
        let length = n.hint_or_fresh(0, 1);
        return one(n.op(K::Range, &[start, limit, delta], attrs! { result_shape: vec![length] })?);
    };
    let mut y = n.iota(vec![count], 0, dtype)?;
    if n.number(delta) != Some(1.0) {
        y = n.plain(K::Mul, &[y, delta])?;
    }
    if n.number(start) != Some(0.0) {
        y = n.plain(K::Add, &[y, start])?;
    }
    one(y)
}

/// The number of elements of a range, if it is known.
fn range_count(n: &Node<'_, '_>, start: SrgValue, limit: SrgValue, delta: SrgValue) -> Result<Option<Dim>> {
    if n.dtype(start).is_float() {
        let (Some(s), Some(l), Some(d)) = (n.number(start), n.number(limit), n.number(delta)) else {
            return Ok(None);
        };
        let count = ((l - s) / d).ceil().max(0.0);
        let fits = count.is_finite() && count < 1e15;
        return if fits { Ok(Some(size(count as i64))) } else { Err(n.invalid("the range is not finite")) };
    }
    let scalar = |v| n.known(v).and_then(|k| k.first().cloned());
    let (Some(s), Some(l), Some(d)) = (scalar(start), scalar(limit), scalar(delta)) else {
        return Ok(None);
    };
    let count = match d.as_const() {
        Some(0) => return Err(n.invalid("the step of the range is 0")),
        Some(c) if c > 0 => (&l - &s).ceil_div(&d),
        Some(c) => (&s - &l).ceil_div(&Dim::from(c.saturating_neg())),
        None => return Ok(None),
    };
    let confirmed = n.hint_dim(0, 1).is_some_and(|h| h == count);
    Ok(Some(if confirmed || proves_ge(&count, &Dim::ZERO) { count } else { count.max_of(&Dim::ZERO) }))
}

/// 1 on one diagonal, 0 elsewhere.
fn eye_like(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let dtype = match n.attrs.int("dtype")? {
        Some(code) => tensor::dtype(i32::try_from(code).unwrap_or(-1))?,
        None => n.dtype(x),
    };
    let k = n.int("k", 0)?;
    let dims = n.shape(x);
    if dims.len() != 2 {
        return Err(n.invalid("the operand must have rank 2"));
    }
    let (rows, columns) = (n.iota(dims.clone(), 0, DType::I64)?, n.iota(dims, 1, DType::I64)?);
    let shift = n.imp.b.constant(TensorData::from_i64(&[], &[k]).ok_or_else(|| n.invalid("no shift"))?)?;
    let wanted = n.plain(K::Add, &[rows, shift])?;
    let hit = n.compare("eq", columns, wanted)?;
    one(n.cast(hit, dtype)?)
}
