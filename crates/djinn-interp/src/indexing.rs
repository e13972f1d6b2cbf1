//! Reads and writes at positions that integer operands hold: gather, scatter, index copy, positions of non-zeros.

use crate::call::Call;
use crate::elementwise::{int_order, max_nan, min_nan};
use crate::index::{Lanes, each_index, strides, wrap_index};
use crate::tensor::{checked_numel, floats, from_bytes, from_floats, from_ints, ints, reserved};
use djinn_diag::Result;
use djinn_ir::{DType, TensorData};
use std::cmp::Ordering;

/// Positions along an axis of `size` elements, negative ones counted from the end.
fn positions(call: &Call, indices: &TensorData, size: usize) -> Result<Vec<usize>> {
    let unsigned = indices.dtype() == DType::U64;
    let one = |i: i64| {
        let at = if unsigned && i < 0 { None } else { wrap_index(i, size) };
        at.ok_or_else(|| call.fail(format!("index {i} is outside an axis of {size} elements")))
    };
    ints(indices).into_iter().map(one).collect()
}

/// ONNX Gather.
pub(crate) fn gather(call: &Call) -> Result<TensorData> {
    let (x, indices) = (call.operand(0)?, call.operand(1)?);
    let axis = call.axis();
    let at = positions(call, indices, x.shape()[axis])?;
    let shape = [&x.shape()[..axis], indices.shape(), &x.shape()[axis + 1..]].concat();
    let lanes = Lanes::new(x.shape(), axis);
    let block = lanes.inner * x.dtype().size();
    let mut out = reserved(checked_numel(&shape)? * x.dtype().size())?;
    for o in 0..lanes.outer {
        for i in &at {
            let start = (o * lanes.len + i) * block;
            out.extend_from_slice(&x.bytes()[start..start + block]);
        }
    }
    from_bytes(x.dtype(), &shape, out)
}

/// Offset in `x` of every element of an index tensor of `shape`, whose entries replace the coordinate along `axis`.
fn element_offsets(call: &Call, x: &TensorData, indices: &TensorData, axis: usize) -> Result<Vec<usize>> {
    let shape = indices.shape();
    let fits = |i: usize| i == axis || shape[i] <= x.shape()[i];
    if shape.len() != x.shape().len() || !(0..shape.len()).all(fits) {
        return Err(
            call.fail(format!("indices of shape {shape:?} leave an operand of shape {:?}", x.shape()))
        );
    }
    let at = positions(call, indices, x.shape()[axis])?;
    let steps = strides(x.shape());
    let mut offsets = Vec::with_capacity(at.len());
    each_index(shape, |index| {
        let here = index.iter().enumerate().map(|(i, v)| {
            let coordinate = if i == axis { at[offsets.len()] } else { *v };
            coordinate * steps[i] as usize
        });
        let offset = here.sum();
        offsets.push(offset);
    });
    Ok(offsets)
}

/// `result[i][j] = x[indices[i][j]][j]` for axis 0.
pub(crate) fn gather_elements(call: &Call) -> Result<TensorData> {
    let (x, indices) = (call.operand(0)?, call.operand(1)?);
    let offsets = element_offsets(call, x, indices, call.axis())?;
    take_blocks(x, indices.shape(), &offsets, 1)
}

/// Blocks of `block` elements that start at these offsets.
fn take_blocks(x: &TensorData, shape: &[usize], offsets: &[usize], block: usize) -> Result<TensorData> {
    let size = x.dtype().size();
    let mut out = reserved(checked_numel(shape)? * size)?;
    for o in offsets {
        out.extend_from_slice(&x.bytes()[o * size..(o + block) * size]);
    }
    from_bytes(x.dtype(), shape, out)
}

/// Offsets in `x` of the blocks that the index tuples name, after `batch` common axes, and the size of a block.
fn tuple_offsets(
    call: &Call,
    x: &TensorData,
    indices: &TensorData,
    batch: usize,
) -> Result<(Vec<usize>, usize)> {
    let Some((tuple, leading)) = indices.shape().split_last() else {
        return Err(call.fail("indices have rank 0"));
    };
    if leading.len() < batch || batch + tuple > x.shape().len() || leading[..batch] != x.shape()[..batch] {
        let message = format!("indices of shape {:?} do not fit shape {:?}", indices.shape(), x.shape());
        return Err(call.fail(message));
    }
    let steps = strides(x.shape());
    let values = ints(indices);
    let tuples: usize = leading.iter().product();
    let per_batch: usize = leading[batch..].iter().product();
    let block: usize = x.shape()[batch + tuple..].iter().product();
    let batch_step: usize = x.shape()[batch..].iter().product();
    let mut offsets = Vec::with_capacity(tuples);
    for t in 0..tuples {
        let mut offset = t / per_batch * batch_step;
        for (k, value) in values[t * tuple..(t + 1) * tuple].iter().enumerate() {
            let size = x.shape()[batch + k];
            let at = wrap_index(*value, size)
                .ok_or_else(|| call.fail(format!("index {value} is outside an axis of {size} elements")))?;
            offset += at * steps[batch + k] as usize;
        }
        offsets.push(offset);
    }
    Ok((offsets, block))
}

/// ONNX GatherND.
pub(crate) fn gather_nd(call: &Call) -> Result<TensorData> {
    let (x, indices) = (call.operand(0)?, call.operand(1)?);
    let batch = usize::try_from(call.attrs.int("batch_dims")).unwrap_or(0);
    let (offsets, block) = tuple_offsets(call, x, indices, batch)?;
    take_blocks(x, &call.result_shape()?, &offsets, block)
}

/// How a scatter combines what is there with what comes.
fn combine(
    call: &Call,
    x: &TensorData,
    writes: &[(usize, usize)],
    updates: &TensorData,
) -> Result<TensorData> {
    let dtype = x.dtype();
    let reduction = call.attrs.str("reduction");
    if reduction == "none" {
        let size = dtype.size();
        let mut out = x.bytes().to_vec();
        for (to, from) in writes {
            out[to * size..(to + 1) * size].copy_from_slice(&updates.bytes()[from * size..(from + 1) * size]);
        }
        return from_bytes(dtype, x.shape(), out);
    }
    if dtype.is_float() {
        let f: fn(f64, f64) -> f64 = match reduction {
            "add" => |a, b| a + b,
            "mul" => |a, b| a * b,
            "min" => min_nan,
            "max" => max_nan,
            other => return Err(call.fail(format!("there is no reduction '{other}'"))),
        };
        let (mut out, updates) = (floats(x), floats(updates));
        writes.iter().for_each(|(to, from)| out[*to] = f(out[*to], updates[*from]));
        return from_floats(dtype, x.shape(), &out);
    }
    let f = |a: i64, b: i64| match reduction {
        "add" if dtype == DType::Bool => a | b,
        "add" => a.wrapping_add(b),
        "mul" => a.wrapping_mul(b),
        "min" if int_order(dtype, b, a) == Ordering::Less => b,
        "max" if int_order(dtype, b, a) == Ordering::Greater => b,
        _ => a,
    };
    let (mut out, updates) = (ints(x), ints(updates));
    writes.iter().for_each(|(to, from)| out[*to] = f(out[*to], updates[*from]));
    from_ints(dtype, x.shape(), &out)
}

/// ONNX ScatterND.
pub(crate) fn scatter_nd(call: &Call) -> Result<TensorData> {
    let (x, indices, updates) = (call.operand(0)?, call.operand(1)?, call.operand(2)?);
    let (offsets, block) = tuple_offsets(call, x, indices, 0)?;
    let leading = indices.shape().len() - 1;
    let tuple = indices.shape()[leading];
    let want = [&indices.shape()[..leading], &x.shape()[tuple..]].concat();
    if updates.shape() != want {
        return Err(call.fail(format!("updates have shape {:?}, not {want:?}", updates.shape())));
    }
    let writes: Vec<(usize, usize)> = offsets
        .iter()
        .enumerate()
        .flat_map(|(t, offset)| (0..block).map(move |i| (offset + i, t * block + i)))
        .collect();
    combine(call, x, &writes, updates)
}

/// `x` with `x[indices[i][j]][j] = updates[i][j]` for axis 0.
pub(crate) fn scatter_elements(call: &Call) -> Result<TensorData> {
    let (x, indices, updates) = (call.operand(0)?, call.operand(1)?, call.operand(2)?);
    if updates.shape() != indices.shape() {
        let message = format!("updates have shape {:?}, indices {:?}", updates.shape(), indices.shape());
        return Err(call.fail(message));
    }
    let offsets = element_offsets(call, x, indices, call.axis())?;
    let writes: Vec<(usize, usize)> = offsets.into_iter().enumerate().map(|(from, to)| (to, from)).collect();
    combine(call, x, &writes, updates)
}

/// `x` with slice `index[i]` along the axis replaced by slice i of `source`.
pub(crate) fn index_copy(call: &Call) -> Result<TensorData> {
    let (x, index, source) = (call.operand(0)?, call.operand(1)?, call.operand(2)?);
    let axis = call.axis();
    let at = positions(call, index, x.shape()[axis])?;
    let mut want = x.shape().to_vec();
    want[axis] = at.len();
    if source.shape() != want {
        return Err(call.fail(format!("source has shape {:?}, not {want:?}", source.shape())));
    }
    let lanes = Lanes::new(x.shape(), axis);
    let block = lanes.inner * x.dtype().size();
    let mut out = x.bytes().to_vec();
    for o in 0..lanes.outer {
        for (i, to) in at.iter().enumerate() {
            let (to, from) = ((o * lanes.len + to) * block, (o * at.len() + i) * block);
            out[to..to + block].copy_from_slice(&source.bytes()[from..from + block]);
        }
    }
    from_bytes(x.dtype(), x.shape(), out)
}

/// Positions of the elements that are not zero: i64 [rank, n].
pub(crate) fn nonzero(call: &Call) -> Result<TensorData> {
    let x = call.x()?;
    let hit: Vec<bool> = if x.dtype().is_float() {
        floats(x).into_iter().map(|v| v != 0.0).collect()
    } else {
        ints(x).into_iter().map(|v| v != 0).collect()
    };
    let rank = x.shape().len();
    let mut columns: Vec<Vec<i64>> = vec![Vec::new(); rank];
    let (mut n, mut count) = (0, 0);
    each_index(x.shape(), |index| {
        if hit[n] {
            count += 1;
            columns.iter_mut().zip(index).for_each(|(c, i)| c.push(*i as i64));
        }
        n += 1;
    });
    from_ints(DType::I64, &[rank, count], &columns.concat())
}
