//! Einstein summation: operands are contracted from left to right as batched matrix products.

use super::Table;
use crate::context::{Call, Cx, Ret};
use djinn_diag::Result;
use djinn_ir::dim::product;
use djinn_ir::{Dim, OpKind};
use djinn_srg::SrgValue;
use std::collections::BTreeMap;

pub(super) const TABLE: Table = &[("einsum", einsum)];

/// A value whose axes carry labels; an ellipsis has become labels above the letters.
#[derive(Clone)]
struct Labelled {
    value: SrgValue,
    labels: Vec<u32>,
}

/// First label of ellipsis axes, which are counted from the right.
const ELLIPSIS: u32 = 1 << 16;

fn einsum<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let equation: String = call.str_or("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    let tensors = cx.tensors(call, "tensors")?;
    let (left, right) = match equation.split_once("->") {
        Some((l, r)) => (l, Some(r)),
        None => (equation.as_str(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != tensors.len() || terms.len() > 64 {
        return Err(call.bad("equation", "one term per tensor"));
    }
    let mut operands = Vec::new();
    let mut dots = 0;
    for (term, value) in terms.iter().zip(tensors) {
        let labels = labels_of(call, term, Some(cx.rank(value)))?;
        dots = dots.max(labels.iter().filter(|l| **l >= ELLIPSIS).count());
        operands.push(Labelled { value, labels });
    }
    let output = match right {
        Some(r) => {
            let letters = r.replace("...", "").chars().count();
            labels_of(call, r, Some(letters + if r.contains("...") { dots } else { 0 }))?
        }
        None => implicit_output(&operands, dots),
    };
    contract_all(cx, call, operands, &output).map(Ret::Value)
}

/// The labels of a term, with the ellipsis filled up to the rank.
fn labels_of(call: &Call<'_>, term: &str, rank: Option<usize>) -> Result<Vec<u32>> {
    let bad = || call.bad("equation", "an einsum equation for these ranks");
    let letters = |s: &str| -> Result<Vec<u32>> {
        s.chars().map(|c| if c.is_ascii_alphabetic() { Ok(c as u32) } else { Err(bad()) }).collect()
    };
    let rank = rank.unwrap_or(0);
    let labels = match term.split_once("...") {
        None => letters(term)?,
        Some((before, after)) => {
            let (before, after) = (letters(before)?, letters(after)?);
            let dots = rank.checked_sub(before.len() + after.len()).ok_or_else(bad)?;
            let ellipsis = (0..dots as u32).rev().map(|i| ELLIPSIS + i);
            before.into_iter().chain(ellipsis).chain(after).collect()
        }
    };
    if labels.len() == rank { Ok(labels) } else { Err(bad()) }
}

/// Ellipsis axes, then the labels that occur once, in alphabetical order.
fn implicit_output(operands: &[Labelled], dots: usize) -> Vec<u32> {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for label in operands.iter().flat_map(|o| &o.labels) {
        *counts.entry(*label).or_default() += 1;
    }
    let once = counts.into_iter().filter(|(l, n)| *l < ELLIPSIS && *n == 1).map(|(l, _)| l);
    (0..dots as u32).rev().map(|i| ELLIPSIS + i).chain(once).collect()
}

fn contract_all<'p>(
    cx: &mut Cx<'p>,
    call: &Call<'p>,
    mut operands: Vec<Labelled>,
    output: &[u32],
) -> Result<SrgValue> {
    for o in &operands {
        let mut sorted = o.labels.clone();
        sorted.sort_unstable();
        if sorted.windows(2).any(|w| w[0] == w[1]) {
            return Err(call.unsupported("a label that repeats within one operand (a diagonal)"));
        }
    }
    let mut left = operands.remove(0);
    while !operands.is_empty() {
        let right = operands.remove(0);
        let kept = |l: &u32| output.contains(l) || operands.iter().any(|o| o.labels.contains(l));
        left = contract(cx, left, right, &kept)?;
    }
    let left = sum_out(cx, left, &|l: &u32| output.contains(l))?;
    let position = |l: &u32| left.labels.iter().position(|x| x == l).map(|i| i as i64);
    let perm: Option<Vec<i64>> = output.iter().map(position).collect();
    let perm = perm.filter(|p| p.len() == left.labels.len());
    cx.transpose(left.value, perm.ok_or_else(|| call.bad("equation", "consistent"))?)
}

/// Sums over the labels that are not kept.
fn sum_out(cx: &mut Cx<'_>, x: Labelled, kept: &dyn Fn(&u32) -> bool) -> Result<Labelled> {
    let gone = x.labels.iter().enumerate().filter(|(_, l)| !kept(l)).map(|(i, _)| i as i64).collect();
    let value = cx.reduce(OpKind::ReduceSum, x.value, gone, false)?;
    Ok(Labelled { value, labels: x.labels.into_iter().filter(|l| kept(l)).collect() })
}

/// The value as [batch…, first, second]: axes in this order, the two groups joined into one axis each.
fn arranged(cx: &mut Cx<'_>, x: &Labelled, batch: &[u32], first: &[u32], second: &[u32]) -> Result<SrgValue> {
    let order = batch.iter().chain(first).chain(second);
    let perm = order.filter_map(|l| x.labels.iter().position(|m| m == l)).map(|i| i as i64).collect();
    let turned = cx.transpose(x.value, perm)?;
    let shape = cx.shape(turned);
    let (b, f) = (batch.len(), batch.len() + first.len());
    let mut to: Vec<Dim> = shape[..b].to_vec();
    to.push(product(&shape[b..f]));
    to.push(product(&shape[f..]));
    cx.reshape(turned, to)
}

/// The product of two operands, summed over the labels that are not kept.
fn contract(cx: &mut Cx<'_>, a: Labelled, b: Labelled, kept: &dyn Fn(&u32) -> bool) -> Result<Labelled> {
    let a = sum_out(cx, a, &|l| kept(l) || b.labels.contains(l))?;
    let b = sum_out(cx, b, &|l| kept(l) || a.labels.contains(l))?;
    let pick = |from: &Labelled, test: &dyn Fn(&u32) -> bool| -> Vec<u32> {
        from.labels.iter().copied().filter(|l| test(l)).collect()
    };
    let shared = |l: &u32| a.labels.contains(l) && b.labels.contains(l);
    let batch = pick(&a, &|l| shared(l) && kept(l));
    let summed = pick(&a, &|l| shared(l) && !kept(l));
    let (rows, columns) = (pick(&a, &|l| !shared(l)), pick(&b, &|l| !shared(l)));
    let size = |cx: &Cx<'_>, x: &Labelled, l: &u32| {
        let at = x.labels.iter().position(|m| m == l);
        at.and_then(|i| cx.shape(x.value).get(i).cloned()).unwrap_or(Dim::ONE)
    };
    let mut shape: Vec<Dim> = Vec::new();
    for l in &batch {
        let (da, db) = (size(cx, &a, l), size(cx, &b, l));
        shape.push(if da.is(1) { db } else { da });
    }
    shape.extend(rows.iter().map(|l| size(cx, &a, l)));
    shape.extend(columns.iter().map(|l| size(cx, &b, l)));
    let left = arranged(cx, &a, &batch, &rows, &summed)?;
    let right = arranged(cx, &b, &batch, &summed, &columns)?;
    let value = cx.op(OpKind::MatMul, &[left, right])?;
    let value = cx.reshape(value, shape)?;
    Ok(Labelled { value, labels: [batch, rows, columns].concat() })
}
