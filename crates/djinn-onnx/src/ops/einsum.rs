//! Einsum as transposes, reductions and products.

use super::{Entry, row};
use crate::node::{Node, Outputs, one};
use djinn_diag::Result;
use djinn_ir::dim::product;
use djinn_ir::{DType, Dim, OpKind as K};
use djinn_srg::SrgValue;

/// Rows of this family.
pub(crate) const OPS: &[Entry] = &[row("Einsum", 12, einsum)];

/// An axis name: a letter, or the position of an ellipsis axis counted from its end, above [`ELLIPSIS`].
type Label = u32;
/// Labels from here on stand for the axes of `...`.
const ELLIPSIS: u32 = 1 << 24;

/// An operand with one label per axis, all distinct.
#[derive(Clone)]
struct Term {
    value: SrgValue,
    labels: Vec<Label>,
}

fn einsum(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let equation: String = n.text("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((l, r)) => (l, Some(r)),
        None => (equation.as_str(), None),
    };
    let operands = n.all()?;
    let parts: Vec<&str> = left.split(',').collect();
    if parts.len() != operands.len() {
        return Err(n.invalid(format!("the equation '{equation}' has {} operands", parts.len())));
    }
    let mut terms = Vec::new();
    let mut seen: Vec<Label> = Vec::new();
    let mut ellipsis = 0;
    for (part, value) in parts.iter().zip(&operands) {
        let labels = labels(n, part, Some(n.rank(*value)), 0)?;
        ellipsis = ellipsis.max(labels.iter().filter(|l| **l >= ELLIPSIS).count());
        seen.extend(&labels);
        terms.push(diagonal(n, Term { value: *value, labels })?);
    }
    let output = match right {
        Some(r) => labels(n, r, None, ellipsis)?,
        None => implicit_output(&seen, ellipsis),
    };
    if output.iter().any(|l| !seen.contains(l)) {
        return Err(n.invalid(format!("the result of '{equation}' names an axis that no operand has")));
    }
    let mut terms = terms.into_iter();
    let Some(mut acc) = terms.next() else { return Err(n.invalid("needs at least one operand")) };
    let rest: Vec<Term> = terms.collect();
    for (i, t) in rest.iter().enumerate() {
        let later: Vec<Label> = rest[i + 1..]
            .iter()
            .flat_map(|t| t.labels.iter().copied())
            .chain(output.iter().copied())
            .collect();
        acc = contract(n, acc, t.clone(), &later)?;
    }
    let acc = sum_out(n, acc, &output)?;
    one(arrange(n, &acc, &output)?)
}

/// The labels of one part of the equation; `rank` gives the width of an ellipsis, else `ellipsis` does.
fn labels(n: &Node<'_, '_>, part: &str, rank: Option<usize>, ellipsis: usize) -> Result<Vec<Label>> {
    let letters = part.chars().filter(|c| *c != '.').count();
    let width = rank.map_or(Some(ellipsis), |r| r.checked_sub(letters));
    let bad = || n.invalid(format!("'{part}' does not fit the operand"));
    let mut out = Vec::new();
    let mut rest = part;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("...") {
            let width = width.ok_or_else(bad)?;
            out.extend((0..width).map(|i| ELLIPSIS + (width - i) as u32));
            rest = after;
        } else if c.is_ascii_alphabetic() {
            out.push(c as u32);
            rest = &rest[1..];
        } else {
            return Err(bad());
        }
    }
    if rank.is_some_and(|r| r != out.len()) {
        return Err(bad());
    }
    Ok(out)
}

/// Without `->`: the ellipsis, then the letters that occur once in alphabetical order.
fn implicit_output(seen: &[Label], ellipsis: usize) -> Vec<Label> {
    let mut once: Vec<Label> = seen
        .iter()
        .copied()
        .filter(|l| *l < ELLIPSIS && seen.iter().filter(|m| *m == l).count() == 1)
        .collect();
    once.sort_unstable();
    (0..ellipsis).map(|i| ELLIPSIS + (ellipsis - i) as u32).chain(once).collect()
}

/// Takes diagonals until every label occurs once: elements off the diagonal become 0 and are summed away.
fn diagonal(n: &mut Node<'_, '_>, mut t: Term) -> Result<Term> {
    while let Some((i, j)) = repeated(&t.labels) {
        let (dims, dtype) = (n.shape(t.value), n.dtype(t.value));
        let (a, b) = (n.iota(dims.clone(), i, DType::I64)?, n.iota(dims, j, DType::I64)?);
        let on = n.compare("eq", a, b)?;
        let zero = n.scalar(dtype, 0.0)?;
        let kept = n.plain(K::Select, &[on, t.value, zero])?;
        t.value = n.reduce(K::ReduceSum, kept, &[j as i64], false)?;
        t.labels.remove(j);
    }
    Ok(t)
}

fn repeated(labels: &[Label]) -> Option<(usize, usize)> {
    (0..labels.len()).find_map(|i| (i + 1..labels.len()).find(|j| labels[*j] == labels[i]).map(|j| (i, j)))
}

/// Sums over the axes whose labels are not kept.
fn sum_out(n: &mut Node<'_, '_>, t: Term, keep: &[Label]) -> Result<Term> {
    let axes: Vec<i64> =
        (0..t.labels.len()).filter(|i| !keep.contains(&t.labels[*i])).map(|i| i as i64).collect();
    let value = n.reduce(K::ReduceSum, t.value, &axes, false)?;
    Ok(Term { value, labels: t.labels.into_iter().filter(|l| keep.contains(l)).collect() })
}

/// The axes in this order of labels; labels that the term lacks become axes of size 1.
fn arrange(n: &mut Node<'_, '_>, t: &Term, order: &[Label]) -> Result<SrgValue> {
    let perm: Vec<usize> = order.iter().filter_map(|l| t.labels.iter().position(|m| m == l)).collect();
    if perm.len() != t.labels.len() {
        return Err(n.invalid("the equation's result names an axis twice or not at all"));
    }
    let y = n.transpose(t.value, &perm)?;
    let mut sizes = n.shape(y).into_iter();
    let dims: Vec<Dim> = order
        .iter()
        .map(|l| if t.labels.contains(l) { sizes.next().unwrap_or(Dim::ONE) } else { Dim::ONE })
        .collect();
    n.reshape(y, dims)
}

/// The product of two terms, summed over the labels that nobody needs later.
fn contract(n: &mut Node<'_, '_>, a: Term, b: Term, later: &[Label]) -> Result<Term> {
    let keep_a: Vec<Label> = b.labels.iter().chain(later).copied().collect();
    let keep_b: Vec<Label> = a.labels.iter().chain(later).copied().collect();
    let (a, b) = (sum_out(n, a, &keep_a)?, sum_out(n, b, &keep_b)?);
    let shared = |l: &&Label| a.labels.contains(l) && b.labels.contains(l);
    let batch: Vec<Label> = a.labels.iter().filter(shared).filter(|l| later.contains(l)).copied().collect();
    let inner: Vec<Label> = a.labels.iter().filter(shared).filter(|l| !later.contains(l)).copied().collect();
    let own = |t: &Term, o: &Term| t.labels.iter().filter(|l| !o.labels.contains(l)).copied().collect();
    let (rows, columns): (Vec<Label>, Vec<Label>) = (own(&a, &b), own(&b, &a));
    let labels = [batch.clone(), rows.clone(), columns.clone()].concat();
    if inner.is_empty() {
        let (x, y) = (arrange(n, &a, &labels)?, arrange(n, &b, &labels)?);
        return Ok(Term { value: n.plain(K::Mul, &[x, y])?, labels });
    }
    let x = arrange(n, &a, &[batch.clone(), rows.clone(), inner.clone()].concat())?;
    let y = arrange(n, &b, &[batch.clone(), inner.clone(), columns.clone()].concat())?;
    let (k, r, c) = (inner.len(), rows.len(), columns.len());
    let (x_dims, y_dims) = (n.shape(x), n.shape(y));
    let m = batch.len();
    let flat = |dims: &[Dim], cut: usize| {
        let mut out = dims[..m].to_vec();
        out.extend([product(&dims[m..m + cut]), product(&dims[m + cut..])]);
        out
    };
    let (left, right) = (n.reshape(x, flat(&x_dims, r))?, n.reshape(y, flat(&y_dims, k))?);
    let value = n.plain(K::MatMul, &[left, right])?;
    let mut dims = n.shape(value)[..m].to_vec();
    dims.extend_from_slice(&x_dims[m..m + r]);
    dims.extend_from_slice(&y_dims[m + k..m + k + c]);
    Ok(Term { value: n.reshape(value, dims)?, labels })
}
