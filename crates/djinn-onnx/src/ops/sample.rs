//! GridSample: interpolation at positions given by a tensor, as gathers of the neighbouring elements.

use super::{Entry, row};
use crate::node::{Node, Outputs, one};
use djinn_diag::Result;
use djinn_ir::dim::product;
use djinn_ir::{DType, Dim, OpKind as K, attrs};
use djinn_srg::SrgValue;

/// Rows of this family.
pub(crate) const OPS: &[Entry] = &[row("GridSample", 16, grid_sample)];

/// Gathers of one GridSample, at most (cubic interpolation over three axes takes 64).
const MAX_TAPS: usize = 64;
/// The coefficient of cubic interpolation.
const CUBIC_A: f64 = -0.75;

/// What happens to positions outside the operand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// One neighbour along one axis.
#[derive(Clone, Copy)]
struct Tap {
    /// Its position, i64 `[N, P]`, in range.
    index: SrgValue,
    /// Its weight `[N, P]`; 1 if there is none.
    weight: Option<SrgValue>,
    /// Is the position inside, so that it does not read as zero?
    inside: Option<SrgValue>,
}

fn grid_sample(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, grid) = (n.x(0)?, n.x(1)?);
    let (dims, places) = (n.shape(x), n.shape(grid));
    let axes = dims.len().saturating_sub(2);
    if axes < 1 || places.len() != dims.len() || places[axes + 1].as_const().is_some_and(|c| c != axes as i64)
    {
        return Err(n.invalid("operand and grid do not fit together"));
    }
    let per_axis = match n.text("mode", "linear")?.as_str() {
        "nearest" => 1usize,
        "linear" | "bilinear" => 2,
        "cubic" | "bicubic" => 4,
        other => return Err(n.invalid(format!("'{other}' is no interpolation mode"))),
    };
    let padding = match n.text("padding_mode", "zeros")?.as_str() {
        "zeros" => Padding::Zeros,
        "border" => Padding::Border,
        "reflection" => Padding::Reflection,
        other => return Err(n.invalid(format!("'{other}' is no padding mode"))),
    };
    if per_axis.checked_pow(axes as u32).is_none_or(|t| t > MAX_TAPS) {
        return Err(n.unsupported("too many spatial axes for this mode"));
    }
    let points = product(&places[1..=axes]);
    let flat = n.reshape(grid, vec![places[0].clone(), points.clone(), Dim::from(axes)])?;
    let flat = n.cast(flat, DType::F32)?;
    let mut taps: Vec<Vec<Tap>> = Vec::new();
    for axis in 0..axes {
        // The grid lists the axes from the last to the first.
        let last = Dim::from(axes - 1 - axis);
        let part = n.slice(flat, 2, last.clone(), &last + &Dim::ONE)?;
        let part = n.reshape(part, vec![places[0].clone(), points.clone()])?;
        taps.push(axis_taps(n, part, &dims[2 + axis], per_axis, padding)?);
    }
    let y = gather_all(n, x, &taps, &points)?;
    let mut shape = dims[..2].to_vec();
    shape.extend_from_slice(&places[1..=axes]);
    one(n.reshape(y, shape)?)
}

/// `low + (t or its mirror image)` with t in one period: reflection at the borders of an interval.
fn reflect(n: &mut Node<'_, '_>, v: SrgValue, low: f64, length: SrgValue) -> Result<SrgValue> {
    let shifted = n.with_scalar(K::Sub, v, low)?;
    let period = n.with_scalar(K::Mul, length, 2.0)?;
    let t = n.op(K::Mod, &[shifted, period], attrs! { fmod: false })?;
    let mirrored = n.plain(K::Sub, &[period, t])?;
    let nearer = n.plain(K::Min, &[t, mirrored])?;
    n.with_scalar(K::Add, nearer, low)
}

/// The neighbours along one axis of positions in −1 … 1.
fn axis_taps(
    n: &mut Node<'_, '_>,
    position: SrgValue,
    size: &Dim,
    count: usize,
    padding: Padding,
) -> Result<Vec<Tap>> {
    let corners = n.flag("align_corners", false)?;
    let length = n.imp.b.dim(size.clone())?;
    let length = n.cast(length, DType::F32)?;
    let last = n.with_scalar(K::Sub, length, 1.0)?;
    let zero = n.scalar(DType::F32, 0.0)?;
    let (low, span) = if corners { (0.0, last) } else { (-0.5, length) };
    let shifted = n.with_scalar(K::Add, position, 1.0)?;
    let scaled = n.plain(K::Mul, &[shifted, span])?;
    let half = n.with_scalar(K::Div, scaled, 2.0)?;
    let mut v = n.with_scalar(K::Add, half, low)?;
    if count == 1 {
        v = n.plain(K::Round, &[v])?;
    }
    v = match padding {
        Padding::Zeros => v,
        Padding::Reflection => reflect(n, v, low, span)?,
        Padding::Border => {
            let first = n.scalar(DType::F32, low)?;
            let end = n.with_scalar(K::Add, span, low)?;
            let (below, above) = (n.compare("lt", v, first)?, n.compare("gt", v, end)?);
            let outside = n.plain(K::Or, &[below, above])?;
            let clamped = n.plain(K::Clamp, &[v, zero, last])?;
            n.plain(K::Select, &[outside, clamped, v])?
        }
    };
    let base = if count == 1 { v } else { n.plain(K::Floor, &[v])? };
    let fraction = n.plain(K::Sub, &[v, base])?;
    let mut taps = Vec::new();
    for i in 0..count {
        let offset = if count == 4 { i as f64 - 1.0 } else { i as f64 };
        let mut at = n.with_scalar(K::Add, base, offset)?;
        let mut inside = None;
        match padding {
            Padding::Zeros => {
                let (a, b) = (n.compare("ge", at, zero)?, n.compare("le", at, last)?);
                inside = Some(n.plain(K::And, &[a, b])?);
            }
            Padding::Border => {}
            Padding::Reflection => at = reflect(n, at, low, span)?,
        }
        let at = n.plain(K::Clamp, &[at, zero, last])?;
        let index = n.cast(at, DType::I64)?;
        let weight = tap_weight(n, fraction, count, i)?;
        taps.push(Tap { index, weight, inside });
    }
    Ok(taps)
}

/// The weight of neighbour `i` of `count` at this distance from its base.
fn tap_weight(n: &mut Node<'_, '_>, f: SrgValue, count: usize, i: usize) -> Result<Option<SrgValue>> {
    let unit = n.scalar(DType::F32, 1.0)?;
    let weight = match (count, i) {
        (1, _) => return Ok(None),
        (2, 0) => n.plain(K::Sub, &[unit, f])?,
        (2, _) => f,
        (_, 0) => {
            let d = n.with_scalar(K::Add, f, 1.0)?;
            outer_cubic(n, d)?
        }
        (_, 1) => inner_cubic(n, f)?,
        (_, 2) => {
            let d = n.plain(K::Sub, &[unit, f])?;
            inner_cubic(n, d)?
        }
        _ => {
            let two = n.scalar(DType::F32, 2.0)?;
            let d = n.plain(K::Sub, &[two, f])?;
            outer_cubic(n, d)?
        }
    };
    Ok(Some(weight))
}

/// A polynomial, highest power first.
fn polynomial(n: &mut Node<'_, '_>, d: SrgValue, coefficients: [f64; 4]) -> Result<SrgValue> {
    let [first, rest @ ..] = coefficients;
    let mut y = n.with_scalar(K::Mul, d, first)?;
    for (i, c) in rest.into_iter().enumerate() {
        y = n.with_scalar(K::Add, y, c)?;
        if i < 2 {
            y = n.plain(K::Mul, &[y, d])?;
        }
    }
    Ok(y)
}

/// Cubic weight at distances from 0 to 1.
fn inner_cubic(n: &mut Node<'_, '_>, d: SrgValue) -> Result<SrgValue> {
    polynomial(n, d, [CUBIC_A + 2.0, -(CUBIC_A + 3.0), 0.0, 1.0])
}

/// Cubic weight at distances from 1 to 2.
fn outer_cubic(n: &mut Node<'_, '_>, d: SrgValue) -> Result<SrgValue> {
    polynomial(n, d, [CUBIC_A, -5.0 * CUBIC_A, 8.0 * CUBIC_A, -4.0 * CUBIC_A])
}

/// The weighted sum over all combinations of neighbours, `[N, C, P]`.
fn gather_all(n: &mut Node<'_, '_>, x: SrgValue, taps: &[Vec<Tap>], points: &Dim) -> Result<SrgValue> {
    let (dims, dtype) = (n.shape(x), n.dtype(x));
    let pixels = n.reshape(x, vec![dims[0].clone(), dims[1].clone(), product(&dims[2..])])?;
    let per_axis = taps.first().map_or(0, Vec::len);
    let combinations = per_axis.pow(taps.len() as u32);
    let mut sum: Option<SrgValue> = None;
    for combination in 0..combinations {
        let mut rest = combination;
        let (mut index, mut weight, mut inside): (Option<SrgValue>, Option<SrgValue>, Option<SrgValue>) =
            (None, None, None);
        for (axis, choices) in taps.iter().enumerate() {
            let tap = choices[rest % per_axis];
            rest /= per_axis;
            index = Some(match index {
                Some(i) => {
                    let stride = n.imp.b.dim(dims[2 + axis].clone())?;
                    let scaled = n.plain(K::Mul, &[i, stride])?;
                    n.plain(K::Add, &[scaled, tap.index])?
                }
                None => tap.index,
            });
            weight = both(n, K::Mul, weight, tap.weight)?;
            inside = both(n, K::And, inside, tap.inside)?;
        }
        let Some(index) = index else { continue };
        let index = n.unsqueeze(index, 1)?;
        let index = n.broadcast(index, vec![dims[0].clone(), dims[1].clone(), points.clone()])?;
        let mut part = n.along(K::GatherElements, &[pixels, index], 2)?;
        if let Some(w) = weight {
            let w = n.unsqueeze(w, 1)?;
            let w = n.cast(w, dtype)?;
            part = n.plain(K::Mul, &[part, w])?;
        }
        if let Some(m) = inside {
            let (m, zero) = (n.unsqueeze(m, 1)?, n.scalar(dtype, 0.0)?);
            part = n.plain(K::Select, &[m, part, zero])?;
        }
        sum = both(n, K::Add, sum, Some(part))?;
    }
    sum.ok_or_else(|| n.invalid("nothing to sample"))
}

/// The combination of two values that may be missing.
fn both(n: &mut Node<'_, '_>, kind: K, a: Option<SrgValue>, b: Option<SrgValue>) -> Result<Option<SrgValue>> {
    match (a, b) {
        (Some(a), Some(b)) => n.plain(kind, &[a, b]).map(Some),
        (a, b) => Ok(a.or(b)),
    }
}
