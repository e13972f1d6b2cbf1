//! Reductions, running sums, arg-extrema and top-k.

use super::{Entry, row};
use crate::node::{Node, Outputs, one, size};
use djinn_diag::Result;
use djinn_ir::{DType, OpKind as K, attrs};
use djinn_srg::SrgValue;

/// Rows of this family.
pub(crate) const OPS: &[Entry] = &[
    row("ReduceSum", 1, |n| reduce(n, 13, |n, x, a, k| n.reduce(K::ReduceSum, x, a, k))),
    row("ReduceMean", 1, |n| reduce(n, 18, |n, x, a, k| n.reduce(K::ReduceMean, x, a, k))),
    row("ReduceMax", 1, |n| reduce(n, 18, |n, x, a, k| n.reduce(K::ReduceMax, x, a, k))),
    row("ReduceMin", 1, |n| reduce(n, 18, |n, x, a, k| n.reduce(K::ReduceMin, x, a, k))),
    row("ReduceProd", 1, |n| reduce(n, 18, |n, x, a, k| n.reduce(K::ReduceProd, x, a, k))),
    row("ReduceL1", 1, |n| reduce(n, 18, l1)),
    row("ReduceL2", 1, |n| reduce(n, 18, l2)),
    row("ReduceLogSum", 1, |n| reduce(n, 18, log_sum)),
    row("ReduceLogSumExp", 1, |n| reduce(n, 18, log_sum_exp)),
    row("ReduceSumSquare", 1, |n| reduce(n, 18, sum_square)),
    row("ArgMax", 1, |n| arg(n, K::ArgMax)),
    row("ArgMin", 1, |n| arg(n, K::ArgMin)),
    row("CumSum", 11, |n| running(n, K::CumSum)),
    row("CumProd", 26, |n| running(n, K::CumProd)),
    row("TopK", 1, topk),
];

/// Reduces a value over sorted axes.
type Reduction = fn(&mut Node<'_, '_>, SrgValue, &[i64], bool) -> Result<SrgValue>;

/// `since`: the operator set from which on the axes are an operand.
fn reduce(n: &mut Node<'_, '_>, since: i64, f: Reduction) -> Result<Outputs> {
    let x = n.x(0)?;
    let rank = n.rank(x);
    let keepdims = n.flag("keepdims", true)?;
    let given = if n.version < since {
        n.attrs.ints("axes")?
    } else {
        match n.const_operand(1, "the axes") {
            Ok(axes) => axes,
            Err(e) => Some(axes_of_declared_type(n, x, keepdims).ok_or(e)?),
        }
    };
    let axes: Vec<i64> = match given {
        Some(a) if !a.is_empty() => n.axes(&a, rank)?,
        _ if n.flag("noop_with_empty_axes", false)? => Vec::new(),
        _ => (0..rank as i64).collect(),
    };
    one(f(n, x, &axes, keepdims)?)
}

/// The axes that the declared result type implies, if it implies them: an axis of size 1 may count as reduced, since
/// reducing it changes nothing.
fn axes_of_declared_type(n: &Node<'_, '_>, x: SrgValue, keepdims: bool) -> Option<Vec<i64>> {
    let have = n.shape(x);
    let result = n.hint(0)?.whole()?.shape;
    let indices = |removed: &[usize]| -> Vec<i64> { removed.iter().map(|a| *a as i64).collect() };
    if keepdims {
        let removed: Vec<usize> =
            (0..have.len()).filter(|i| result.get(*i).is_some_and(|d| d.is(1))).collect();
        let kept = (0..have.len()).all(|i| removed.contains(&i) || result.get(i) == Some(&have[i]));
        return (kept && result.len() == have.len() && !removed.is_empty()).then(|| indices(&removed));
    }
    let count = have.len().checked_sub(result.len()).filter(|c| *c >= 1 && have.len() <= 16)?;
    let mut found: Option<Vec<i64>> = None;
    for set in 0..1u32 << have.len() {
        let removed: Vec<usize> = (0..have.len()).filter(|i| set & (1 << i) != 0).collect();
        let kept = have.iter().enumerate().filter(|(i, _)| !removed.contains(i)).map(|(_, d)| d);
        if removed.len() == count && kept.eq(&result) && found.replace(indices(&removed)).is_some() {
            return None;
        }
    }
    found
}

fn l1(n: &mut Node<'_, '_>, x: SrgValue, axes: &[i64], keepdims: bool) -> Result<SrgValue> {
    let y = n.plain(K::Abs, &[x])?;
    n.reduce(K::ReduceSum, y, axes, keepdims)
}

fn sum_square(n: &mut Node<'_, '_>, x: SrgValue, axes: &[i64], keepdims: bool) -> Result<SrgValue> {
    let y = n.plain(K::Mul, &[x, x])?;
    n.reduce(K::ReduceSum, y, axes, keepdims)
}

/// Runs `f` in f64 for integers.
fn in_float(
    n: &mut Node<'_, '_>,
    x: SrgValue,
    f: impl FnOnce(&mut Node<'_, '_>, SrgValue) -> Result<SrgValue>,
) -> Result<SrgValue> {
    let dtype = n.dtype(x);
    let x = if dtype.is_float() { x } else { n.cast(x, DType::F64)? };
    let y = f(n, x)?;
    n.cast(y, dtype)
}

fn l2(n: &mut Node<'_, '_>, x: SrgValue, axes: &[i64], keepdims: bool) -> Result<SrgValue> {
    in_float(n, x, |n, x| {
        let s = sum_square(n, x, axes, keepdims)?;
        n.plain(K::Sqrt, &[s])
    })
}

fn log_sum(n: &mut Node<'_, '_>, x: SrgValue, axes: &[i64], keepdims: bool) -> Result<SrgValue> {
    in_float(n, x, |n, x| {
        let s = n.reduce(K::ReduceSum, x, axes, keepdims)?;
        n.plain(K::Log, &[s])
    })
}

/// `max + log Σ exp(x − max)`, where an infinite max counts as 0.
fn log_sum_exp(n: &mut Node<'_, '_>, x: SrgValue, axes: &[i64], keepdims: bool) -> Result<SrgValue> {
    in_float(n, x, |n, x| {
        let max = n.reduce(K::ReduceMax, x, axes, true)?;
        let infinite = n.op(K::IsInf, &[max], attrs! { negative: true, positive: true })?;
        let zero = n.scalar(n.dtype(x), 0.0)?;
        let max = n.plain(K::Select, &[infinite, zero, max])?;
        let shifted = n.plain(K::Sub, &[x, max])?;
        let e = n.plain(K::Exp, &[shifted])?;
        let sum = n.reduce(K::ReduceSum, e, axes, keepdims)?;
        let log = n.plain(K::Log, &[sum])?;
        let shape = n.shape(log);
        let max = n.reshape(max, shape)?;
        n.plain(K::Add, &[log, max])
    })
}

fn arg(n: &mut Node<'_, '_>, kind: K) -> Result<Outputs> {
    let x = n.x(0)?;
    let axis = n.axis(n.int("axis", 0)?, n.rank(x))? as i64;
    let a = attrs! {
        axis: axis,
        keepdims: n.flag("keepdims", true)?,
        select_last: n.flag("select_last_index", false)?,
    };
    one(n.op(kind, &[x], a)?)
}

fn running(n: &mut Node<'_, '_>, kind: K) -> Result<Outputs> {
    let x = n.x(0)?;
    let rank = n.rank(x);
    let at = n.x(1)?;
    match n.consts(at).and_then(|a| a.first().copied()) {
        Some(axis) => {
            let axis = n.axis(axis, rank)?;
            one(running_along(n, kind, x, axis)?)
        }
        None if (1..=MAX_AXES).contains(&rank) => one(running_by_cases(n, kind, x, at)?),
        None => Err(n.unsupported("the axis must be known when the model is compiled")),
    }
}

/// Axes of a running sum whose axis only the run reveals, at most: there is one sum for each.
const MAX_AXES: usize = 4;

fn running_along(n: &mut Node<'_, '_>, kind: K, x: SrgValue, axis: usize) -> Result<SrgValue> {
    let a = attrs! {
        axis: axis as i64,
        exclusive: n.flag("exclusive", false)?,
        reverse: n.flag("reverse", false)?,
    };
    n.op(kind, &[x], a)
}

/// The sum along every axis, and the choice of the wanted one.
fn running_by_cases(n: &mut Node<'_, '_>, kind: K, x: SrgValue, at: SrgValue) -> Result<SrgValue> {
    let rank = n.rank(x);
    let at = n.as_scalar(at)?;
    let mut y = running_along(n, kind, x, 0)?;
    for axis in 1..rank {
        let other = running_along(n, kind, x, axis)?;
        let (front, back) =
            (n.scalar(n.dtype(at), axis as f64)?, n.scalar(n.dtype(at), axis as f64 - rank as f64)?);
        let (front, back) = (n.compare("eq", at, front)?, n.compare("eq", at, back)?);
        let chosen = n.plain(K::Or, &[front, back])?;
        y = n.plain(K::Select, &[chosen, other, y])?;
    }
    Ok(y)
}

fn topk(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let rank = n.rank(x);
    let axis = n.axis(n.int("axis", -1)?, rank)?;
    let k = if n.version < 10 {
        n.attrs.int("k")?.map(size)
    } else {
        let v = n.x(1)?;
        n.known(v).and_then(|k| k.first().cloned()).or_else(|| n.hint_dim(axis, rank))
    };
    let k = k.ok_or_else(|| n.unsupported("k must be known when the model is compiled"))?;
    let a = attrs! {
        axis: axis as i64,
        k: k,
        largest: n.flag("largest", true)?,
        sorted: n.flag("sorted", true)?,
    };
    let out = n.imp.b.op_with_regions(K::TopK, &[x], a, Vec::new())?;
    Ok(out.into_iter().map(Some).collect())
}
