//! At which loop each expression of a stage is computed: as far outside as its operands allow.

use crate::affine::AtomId;
use crate::dag::{BufferId, Dag, Expr, Id};
use crate::stage::{Goal, Stage, Work};
use std::collections::{BTreeMap, BTreeSet};

/// The expressions of a stage by the number of loops around them.
pub(crate) struct Levels {
    /// In order of computation, by level.
    pub(crate) by_level: Vec<Vec<Id>>,
    /// All expressions that the stage needs.
    pub(crate) all: BTreeSet<Id>,
    /// Loops' variables.
    pub(crate) vars: BTreeMap<AtomId, Id>,
}

/// The expressions that a stage needs at its end.
pub(crate) fn roots(stage: &Stage) -> Vec<Id> {
    let mut out = match &stage.work {
        Work::Store { value } | Work::Scan { value, .. } => vec![*value],
        Work::Reduce { value, position, .. } => vec![*value, *position],
        Work::Move { from, to, elements, .. } => vec![*from, *to, *elements],
    };
    if let Goal::Memory { index, guard, .. } = &stage.goal {
        out.push(*index);
        out.extend(guard);
    }
    out
}

/// Sorts the expressions of a stage; none is computed outside the `outer` shared loops.
pub(crate) fn levels(dag: &Dag, stage: &Stage, outer: usize) -> Levels {
    let loops = stage.all_loops();
    let mut all = BTreeSet::new();
    let mut stack = roots(stage);
    while let Some(id) = stack.pop() {
        if all.insert(id) {
            dag.expr(id).operands(|o| stack.push(o));
        }
    }
    let own: Option<BufferId> = match &stage.goal {
        Goal::Memory { buffer, .. } => Some(*buffer),
        Goal::Register => None,
    };
    let mut level: BTreeMap<Id, usize> = BTreeMap::new();
    let mut by_level = vec![Vec::new(); loops.len() + 1];
    let mut vars = BTreeMap::new();
    for id in &all {
        let expr = dag.expr(*id);
        let mut at = 0;
        expr.operands(|o| at = at.max(level[&o]));
        match expr {
            Expr::Int(..) | Expr::Float(..) | Expr::Size(_) => {
                level.insert(*id, 0);
                continue;
            }
            Expr::Var(atom) => {
                at = loops.iter().position(|l| l.var == *atom).map_or(loops.len(), |p| p + 1);
                vars.insert(*atom, *id);
                level.insert(*id, at);
                continue;
            }
            Expr::Load { buffer, .. } if Some(*buffer) == own => at = loops.len(),
            _ => {}
        }
        let at = at.max(outer);
        level.insert(*id, at);
        by_level[at].push(*id);
    }
    Levels { by_level, all, vars }
}
