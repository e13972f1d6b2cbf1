//! Sums of products whose factors need different loops: what tiles in fast memory pay for.

use crate::affine::AtomId;
use crate::build::Loop;
use crate::dag::{Bin, BufferId, Dag, Expr, Id, Ty};
use crate::program::Fold;
use crate::stage::{Goal, Stage, Work};
use djinn_ir::Dim;
use std::collections::BTreeSet;

/// Extents below this are not tiled.
const SMALL: i64 = 8;

/// A sum of products: `left` needs the rows, `right` the columns, and both the other loops and those that are folded.
#[derive(Debug, Clone)]
pub(crate) struct Sides {
    pub(crate) left: Id,
    pub(crate) right: Id,
    pub(crate) rows: Vec<Loop>,
    pub(crate) columns: Vec<Loop>,
    pub(crate) batch: Vec<Loop>,
    pub(crate) folded: Vec<Loop>,
}

/// The sides of a stage; `None` if it is no such sum, or if one side is too small for tiles.
///
/// The columns are those of the last loop, so that neighbouring columns are neighbours in the result.
pub(crate) fn sides(dag: &Dag, stage: &Stage) -> Option<Sides> {
    let Work::Reduce { fold: Fold::Sum, loops: folded, value, .. } = &stage.work else { return None };
    let Expr::Bin(Bin::MulFused | Bin::Mul, a, b) = dag.expr(*value) else { return None };
    let Goal::Memory { buffer, guard: None, .. } = &stage.goal else { return None };
    if dag.ty(*value) == Ty::I1 {
        return None;
    }
    let (of_a, of_b) = (needs(dag, *a, *buffer)?, needs(dag, *b, *buffer)?);
    let only = |own: &BTreeSet<AtomId>, other: &BTreeSet<AtomId>| -> Vec<Loop> {
        stage.loops.iter().filter(|l| own.contains(&l.var) && !other.contains(&l.var)).cloned().collect()
    };
    let (rows, columns) = (only(&of_a, &of_b), only(&of_b, &of_a));
    let sided = |l: &Loop| rows.iter().chain(&columns).any(|s| s.var == l.var);
    let batch: Vec<Loop> = stage.loops.iter().filter(|l| !sided(l)).cloned().collect();
    if [&rows, &columns, folded].iter().any(|loops| is_small(loops)) {
        return None;
    }
    let last = stage.loops.iter().rev().find(|l| sided(l))?;
    let swapped = rows.iter().any(|l| l.var == last.var);
    let (left, right) = if swapped { (*b, *a) } else { (*a, *b) };
    let (rows, columns) = if swapped { (columns, rows) } else { (rows, columns) };
    Some(Sides { left, right, rows, columns, batch, folded: folded.clone() })
}

fn is_small(loops: &[Loop]) -> bool {
    let total = loops.iter().fold(Dim::ONE, |n, l| &n * &l.size);
    total.as_const().is_some_and(|n| n < SMALL)
}

/// The loops that an expression needs; `None` if it reads this buffer or a register.
fn needs(dag: &Dag, id: Id, own: BufferId) -> Option<BTreeSet<AtomId>> {
    let mut out = BTreeSet::new();
    for id in reachable(dag, &[id]) {
        match dag.expr(id) {
            Expr::Var(atom) => {
                out.insert(*atom);
            }
            Expr::Register(..) => return None,
            Expr::Load { buffer, .. } if *buffer == own => return None,
            _ => {}
        }
    }
    Some(out)
}

/// Expressions and all that they need, operands first.
pub(crate) fn reachable(dag: &Dag, roots: &[Id]) -> BTreeSet<Id> {
    let (mut out, mut stack) = (BTreeSet::new(), roots.to_vec());
    while let Some(id) = stack.pop() {
        if out.insert(id) {
            dag.expr(id).operands(|o| stack.push(o));
        }
    }
    out
}
