//! Slice, Split and Pad.

use super::{Entry, row};
use crate::node::{Node, Outputs, one, proves_ge, size};
use djinn_diag::Result;
use djinn_ir::{Dim, OpKind as K, SymbolTable, attrs};
use djinn_srg::SrgValue;

/// Rows of this family.
pub(crate) const OPS: &[Entry] =
    &[row("Slice", 1, slice_attributes), row("Slice", 10, slice), row("Split", 2, split), row("Pad", 2, pad)];

/// Bounds from here on mean "to the end" for sizes that are not known.
const FAR: i64 = i32::MAX as i64;

fn slice_attributes(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let mut x = n.x(0)?;
    let rank = n.rank(x);
    let (starts, ends) =
        (n.attrs.ints("starts")?.unwrap_or_default(), n.attrs.ints("ends")?.unwrap_or_default());
    let axes = n.attrs.ints("axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    if starts.len() != ends.len() || starts.len() != axes.len() {
        return Err(n.invalid("starts, ends and axes differ in length"));
    }
    for ((start, end), axis) in starts.iter().zip(&ends).zip(&axes) {
        let axis = n.axis(*axis, rank)?;
        if let Some(y) = slice_axis(n, x, axis, &size(*start), &size(*end), 1)? {
            x = y;
        }
    }
    one(x)
}

fn slice(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, starts, ends) = (n.x(0)?, n.x(1)?, n.x(2)?);
    let rank = n.rank(x);
    let count = n.shape(starts).first().and_then(Dim::as_const).unwrap_or(-1);
    let count = usize::try_from(count).ok().filter(|c| *c <= rank);
    let count = count.ok_or_else(|| n.unsupported("the number of sliced axes is not known"))?;
    let axes = match n.const_operand(3, "the axes")? {
        Some(axes) => axes.iter().map(|a| n.axis(*a, rank)).collect::<Result<Vec<_>>>()?,
        None => (0..count).collect(),
    };
    let steps = match n.opt(4) {
        Some(v) => n.consts(v),
        None => Some(vec![1; count]),
    };
    let known = n.known(starts).zip(n.known(ends)).zip(steps);
    let Some(((s, e), steps)) = known else { return dynamic_slice(n, &axes) };
    if s.len() != axes.len() || e.len() != axes.len() || steps.len() != axes.len() {
        return Err(n.invalid("starts, ends, axes and steps differ in length"));
    }
    let mut y = x;
    for (i, axis) in axes.iter().enumerate() {
        match slice_axis(n, y, *axis, &s[i], &e[i], steps[i])? {
            Some(v) => y = v,
            None => return dynamic_slice(n, &axes),
        }
    }
    one(y)
}

/// A slice whose bounds only the run reveals.
fn dynamic_slice(n: &mut Node<'_, '_>, axes: &[usize]) -> Result<Outputs> {
    let (x, starts, ends) = (n.x(0)?, n.x(1)?, n.x(2)?);
    let steps = match n.opt(4) {
        Some(v) => v,
        None => n.vector(&vec![1; axes.len()])?,
    };
    let mut dims = n.shape(x);
    for a in axes {
        dims[*a] = n.hint_or_fresh(*a, n.rank(x));
    }
    let axes: Vec<i64> = axes.iter().map(|a| *a as i64).collect();
    one(n.op(K::DynamicSlice, &[x, starts, ends, steps], attrs! { axes: axes, result_shape: dims })?)
}

/// One bound of a slice with a positive step.
struct Bound {
    /// The position, if it lies within the axis.
    wanted: Dim,
    /// The position clamped to the axis.
    clamped: Dim,
}

/// Reads a bound; `None` if it cannot be told whether it counts from the end.
fn bound(v: &Dim, length: &Dim) -> Option<Bound> {
    let from_end = match v.as_const() {
        Some(c) if c >= FAR && length.as_const().is_none() => {
            return Some(Bound { wanted: length.clone(), clamped: length.clone() });
        }
        Some(c) => c < 0,
        None => {
            let (low, high) = v.bounds(&SymbolTable::default());
            if low.is_some_and(|l| l >= 0) {
                false
            } else if high.is_some_and(|h| h <= 0) {
                true
            } else {
                return None;
            }
        }
    };
    let wanted = if from_end { length + v } else { v.clone() };
    let not_negative =
        if proves_ge(&wanted, &Dim::ZERO) { wanted.clone() } else { wanted.max_of(&Dim::ZERO) };
    let clamped = if proves_ge(length, &not_negative) { not_negative } else { not_negative.min_of(length) };
    Some(Bound { wanted, clamped })
}

/// Slices one axis; `None` if the bounds cannot be expressed.
fn slice_axis(
    n: &mut Node<'_, '_>,
    x: SrgValue,
    axis: usize,
    start: &Dim,
    end: &Dim,
    step: i64,
) -> Result<Option<SrgValue>> {
    let rank = n.rank(x);
    let length = n.shape(x)[axis].clone();
    if step == 0 {
        return Err(n.invalid("the step of a slice is 0"));
    }
    if step < 0 {
        return slice_backwards(n, x, axis, start, end, step);
    }
    let stride = size(step);
    let declared = n.hint_dim(axis, rank);
    let (s, e) = (bound(start, &length), bound(end, &length));
    // The file's own shape tells that the bounds are in range where that cannot be proved.
    let plain = |b: &Option<Bound>, v: &Dim| b.as_ref().map_or_else(|| v.clone(), |b| b.wanted.clone());
    let wanted = (plain(&s, start), plain(&e, end));
    let promised = declared.is_some_and(|d| {
        let result = (&wanted.1 - &wanted.0).ceil_div(&stride);
        d == result
            && d.as_const().is_none()
            && ![&wanted.0, &wanted.1].iter().any(|w| w.as_const().is_some_and(|c| c < 0))
    });
    let (start, limit) = if promised {
        wanted
    } else {
        let (Some(s), Some(e)) = (s, e) else { return Ok(None) };
        let ordered = e.clamped == length || s.clamped.is(0) || proves_ge(&e.clamped, &s.clamped);
        let limit = if ordered { e.clamped } else { e.clamped.max_of(&s.clamped) };
        (s.clamped, limit)
    };
    if step == 1 {
        return n.slice(x, axis, start, limit).map(Some);
    }
    let a = attrs! { axis: axis as i64, start: start, limit: limit, stride: step };
    n.op(K::Slice, &[x], a).map(Some)
}

/// A slice with a negative step: the same positions counted from the end of the reversed axis.
fn slice_backwards(
    n: &mut Node<'_, '_>,
    x: SrgValue,
    axis: usize,
    start: &Dim,
    end: &Dim,
    step: i64,
) -> Result<Option<SrgValue>> {
    let length = n.shape(x)[axis].clone();
    let last = &length - &Dim::ONE;
    let (Some(s), Some(e)) = (start.as_const(), end.as_const()) else { return Ok(None) };
    let mirrored = |v: i64, lowest: i64| -> Dim {
        if let Some(c) = length.as_const() {
            let position = if v < 0 { v.saturating_add(c) } else { v }.clamp(lowest, c - 1);
            return size(c - 1 - position);
        }
        match v {
            v if v >= FAR => Dim::ZERO,
            v if v <= -FAR => length.clone(),
            v if v < 0 => size(-1 - v).min_of(&length),
            v => (&last - &size(v)).max_of(&Dim::ZERO),
        }
    };
    let from = mirrored(s, if length.is(0) { -1 } else { 0 });
    let to = mirrored(e, -1).max_of(&from);
    let reversed = n.op(K::Reverse, &[x], attrs! { axes: vec![axis as i64] })?;
    let from = if length.is(0) { Dim::ZERO } else { from };
    let to = if length.is(0) { Dim::ZERO } else { to };
    let a = attrs! { axis: axis as i64, start: from, limit: to, stride: step.saturating_neg() };
    n.op(K::Slice, &[reversed], a).map(Some)
}

fn split(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let rank = n.rank(x);
    let axis = n.axis(n.int("axis", 0)?, rank)?;
    let length = n.shape(x)[axis].clone();
    let given = if n.version < 13 {
        n.attrs.ints("split")?.map(|s| s.into_iter().map(size).collect())
    } else {
        match n.known_operand(1, "the sizes of the parts") {
            Ok(sizes) => sizes,
            Err(e) => Some(declared_parts(n, axis, rank).ok_or(e)?),
        }
    };
    let parts = n.proto.output.len();
    let sizes: Vec<Dim> = match given {
        Some(sizes) => sizes,
        None => {
            let count = n.int("num_outputs", parts as i64)?;
            if count < 1 || count as usize != parts {
                return Err(n.invalid(format!("{count} parts for {parts} results")));
            }
            let part = length.ceil_div(&size(count));
            let rest = &length - &(&part * &size(count - 1));
            (0..count).map(|i| if i + 1 == count { rest.clone() } else { part.clone() }).collect()
        }
    };
    if sizes.len() != parts {
        return Err(n.invalid(format!("{} parts for {parts} results", sizes.len())));
    }
    let mut out = Vec::with_capacity(parts);
    let mut start = Dim::ZERO;
    for part in &sizes {
        let limit = &start + part;
        out.push(Some(n.slice(x, axis, start, limit.clone())?));
        start = limit;
    }
    Ok(out)
}

/// The sizes of the parts as the declared result types give them.
fn declared_parts(n: &Node<'_, '_>, axis: usize, rank: usize) -> Option<Vec<Dim>> {
    (0..n.proto.output.len()).map(|i| n.hint(i)?.dim(axis, rank).cloned()).collect()
}

fn pad(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let (rank, dtype) = (n.rank(x), n.dtype(x));
    let mode = n.text("mode", "constant")?;
    if !["constant", "reflect", "edge", "wrap"].contains(&mode.as_str()) {
        return Err(n.invalid(format!("'{mode}' is no padding mode")));
    }
    let (pads, value) = if n.version < 11 {
        let pads = n.attrs.ints("pads")?.ok_or_else(|| n.invalid("the attribute 'pads' is missing"))?;
        let value = n.float("value", 0.0)?;
        (Some(pads.into_iter().map(size).collect::<Vec<_>>()), n.scalar(dtype, value)?)
    } else {
        let value = match n.opt(2) {
            Some(v) => n.as_scalar(v)?,
            None => n.scalar(dtype, 0.0)?,
        };
        let pads = n.x(1)?;
        (n.known(pads), value)
    };
    let axes: Vec<usize> = match n.const_operand(3, "the axes")? {
        Some(axes) => axes.iter().map(|a| n.axis(*a, rank)).collect::<Result<_>>()?,
        None => (0..rank).collect(),
    };
    let Some(pads) = pads else { return dynamic_pad(n, x, value, &axes, &mode) };
    if pads.len() != 2 * axes.len() {
        return Err(n.invalid(format!("{} pads for {} axes", pads.len(), axes.len())));
    }
    let (mut low, mut high) = (vec![Dim::ZERO; rank], vec![Dim::ZERO; rank]);
    for (i, a) in axes.iter().enumerate() {
        low[*a] = pads[i].clone();
        high[*a] = pads[axes.len() + i].clone();
    }
    if low.iter().chain(&high).all(|d| d.is(0)) {
        return one(x);
    }
    one(n.op(K::Pad, &[x, value], attrs! { low: low, high: high, mode: mode })?)
}

/// Padding whose amounts only the run reveals.
fn dynamic_pad(
    n: &mut Node<'_, '_>,
    x: SrgValue,
    value: SrgValue,
    axes: &[usize],
    mode: &str,
) -> Result<Outputs> {
    let pads = n.x(1)?;
    let mut dims = n.shape(x);
    for a in axes {
        dims[*a] = n.hint_or_fresh(*a, n.rank(x));
    }
    let axes: Vec<i64> = axes.iter().map(|a| *a as i64).collect();
    one(n.op(K::DynamicPad, &[x, pads, value], attrs! { axes: axes, mode: mode, result_shape: dims })?)
}
