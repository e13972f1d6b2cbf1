//! Backward passes: products of an activation and of what flows back, shaped like the weight the activation met.

use crate::scan::Scan;
use djinn_ir::graph::Op;
use djinn_ir::{Dim, OpId, OpKind, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Operations looked at between a result and the product that makes its gradient, at most.
const MAX_VISITS: usize = 32;

/// The operations of the way back, if there is one.
///
/// For Y = X·W the gradient is dW = Xᵀ·dY: a product with an operand that a weight multiplied as well, of the
/// weight's shape, that goes on to a result through elementwise work only (an optimiser's step, say).
pub(crate) fn find(scan: &Scan<'_>) -> Option<BTreeSet<OpId>> {
    let met = met_by_weights(scan);
    let mut products = BTreeSet::new();
    let mut way = BTreeSet::new();
    let mut others: Vec<ValueId> = Vec::new();
    for result in &scan.graph.results {
        let mut seen = BTreeSet::new();
        let gradients: Vec<OpId> = products_behind(scan, *result, &mut seen)
            .into_iter()
            .filter(|id| is_gradient(scan, *id, &met))
            .collect();
        if gradients.is_empty() {
            others.push(*result);
        } else {
            way.extend(seen);
            products.extend(gradients);
        }
    }
    if products.is_empty() {
        return None;
    }
    if others.is_empty() {
        way.extend(products);
        return Some(way);
    }
    let forward = needed_for(scan, &others);
    Some(scan.graph.ops().map(|(id, _)| id).filter(|id| !forward.contains(id)).collect())
}

/// Two matrices multiplied: the operation, and the value behind transposes and reshapes of an operand.
fn matrices(op: &Op) -> Option<(ValueId, ValueId)> {
    match op.operands.as_slice() {
        &[a, b] if op.kind == OpKind::MatMul => Some((a, b)),
        _ => None,
    }
}

fn root(scan: &Scan<'_>, v: ValueId) -> ValueId {
    let moves = |op: &Op| matches!(op.kind, OpKind::Transpose | OpKind::Reshape);
    scan.walk(v, |op| if moves(op) { op.operands.first().copied() } else { None })
}

/// Sorted sizes of the weights that every activation meets, with the product where it does.
fn met_by_weights(scan: &Scan<'_>) -> BTreeMap<ValueId, Vec<(OpId, Vec<Dim>)>> {
    let mut met: BTreeMap<ValueId, Vec<(OpId, Vec<Dim>)>> = BTreeMap::new();
    for (id, op) in scan.graph.ops() {
        let Some((x, weight)) = matrices(op) else { continue };
        let weight = root(scan, weight);
        let is_weight = scan.is_ahead(weight) || scan.graph.is_argument(weight);
        if is_weight && scan.rank(weight) == 2 && !scan.is_ahead(x) {
            met.entry(root(scan, x)).or_default().push((id, sizes(scan, weight)));
        }
    }
    met
}

fn sizes(scan: &Scan<'_>, v: ValueId) -> Vec<Dim> {
    let mut sizes = scan.graph.ty(v).shape.clone();
    sizes.sort();
    sizes
}

fn is_gradient(scan: &Scan<'_>, id: OpId, met: &BTreeMap<ValueId, Vec<(OpId, Vec<Dim>)>>) -> bool {
    let op = scan.graph.op(id);
    let (Some((a, b)), Some(result)) = (matrices(op), op.results.first()) else { return false };
    if scan.is_ahead(a) || scan.is_ahead(b) {
        return false;
    }
    let shape = sizes(scan, *result);
    let meets = |v: ValueId| {
        met.get(&root(scan, v)).is_some_and(|m| m.iter().any(|(at, w)| *at != id && *w == shape))
    };
    meets(a) || meets(b)
}

/// Products that the result is made of by elementwise work and transposes; `seen` collects the latter.
fn products_behind(scan: &Scan<'_>, result: ValueId, seen: &mut BTreeSet<OpId>) -> Vec<OpId> {
    let mut products = Vec::new();
    let mut open = vec![result];
    for _ in 0..MAX_VISITS {
        let Some(v) = open.pop() else { break };
        let Some((id, op)) = scan.maker(v).filter(|_| !scan.is_ahead(v)) else { continue };
        let passes = op.kind.def().has(djinn_ir::ops::traits::BROADCAST)
            || matches!(op.kind, OpKind::Transpose | OpKind::Reshape);
        if op.kind == OpKind::MatMul {
            products.push(id);
        } else if passes && seen.insert(id) {
            open.extend(&op.operands);
        }
    }
    products
}

/// Operations that these values need.
fn needed_for(scan: &Scan<'_>, values: &[ValueId]) -> BTreeSet<OpId> {
    let mut needed = vec![false; scan.graph.value_capacity()];
    values.iter().for_each(|v| needed[v.0 as usize] = true);
    let mut ops = BTreeSet::new();
    for (id, op) in scan.graph.ops().rev() {
        if op.results.iter().any(|v| needed[v.0 as usize]) {
            ops.insert(id);
            op.operands.iter().for_each(|v| needed[v.0 as usize] = true);
        }
    }
    ops
}
