//! Which stages run together, and which of their loops run as one.

use super::{Nest, Planner};
use crate::affine::Affine;
use crate::program::NodeId;
use crate::stage::{Joins, Stage, Work};
use djinn_diag::{Result, internal};
use std::collections::{BTreeMap, BTreeSet};

impl Planner<'_> {
    /// Stages in nests: each joins the last nest if the rows that it needs are those that the nest has at hand.
    pub(super) fn nests(&self, stages: Vec<Stage>, tiled: &BTreeSet<(NodeId, usize)>) -> Vec<Nest> {
        let mut nests: Vec<Nest> = Vec::new();
        for stage in stages {
            if let Some(recurrent) = self.recurrent(&stage) {
                match nests.last_mut().filter(|n| n.stages.iter().any(|s| self.recurs_with(s, &stage))) {
                    Some(nest) => nest.stages.push(stage),
                    None => nests.push(Nest { stages: vec![stage], ..recurrent }),
                }
                continue;
            }
            let tiled = tiled.contains(&(stage.node, stage.part));
            if !tiled
                && let Some(nest) = nests.last_mut()
                && let Some(outer) = common(nest, &stage)
            {
                nest.outer = outer;
                nest.stages.push(stage);
                continue;
            }
            let moves = matches!(stage.work, Work::Move { .. });
            nests.push(Nest { outer: stage.shared, stages: vec![stage], backward: moves, serial: 0, tiled });
        }
        nests
    }

    /// The nest of a recurrence, without its stages, if the stage belongs to one.
    fn recurrent(&self, stage: &Stage) -> Option<Nest> {
        let node = self.program.node(stage.node);
        let (_, axes) = node.recurrence?;
        let outer = node.shape[..axes].iter().filter(|d| !d.is(1)).count();
        let serial = usize::from(!node.shape[axes - 1].is(1));
        Some(Nest { outer, stages: Vec::new(), backward: false, serial, tiled: false })
    }

    fn recurs_with(&self, a: &Stage, b: &Stage) -> bool {
        let of = |s: &Stage| self.program.node(s.node).recurrence.map(|r| r.0);
        of(a).is_some() && of(a) == of(b)
    }
}

/// So many outer loops can the stage share with a nest, if sharing pays.
fn common(nest: &Nest, stage: &Stage) -> Option<usize> {
    let first = nest.stages.first()?;
    if nest.serial > 0 {
        return None;
    }
    if nest.backward {
        return (first.node == stage.node && stage.shared == nest.outer).then_some(nest.outer);
    }
    if matches!(stage.work, Work::Move { .. }) {
        return None;
    }
    let mut outer = nest.outer.min(stage.shared);
    let sizes = first.loops.iter().zip(&stage.loops);
    outer = outer.min(sizes.take_while(|(a, b)| a.size == b.size).count());
    for access in &stage.accesses {
        if nest.stages.iter().any(|s| s.node == access.node) {
            let own = stage.loops.iter().map(|l| Affine::atom(l.var));
            outer = outer.min(access.loops.iter().zip(own).take_while(|(a, b)| *a == b).count());
        }
    }
    let folds = |s: &Stage| !matches!(s.work, Work::Store { .. });
    let pays = outer == nest.outer
        || (!nest.stages.iter().any(folds) && outer == stage.loops.len())
        || (!nest.stages.iter().any(folds) && stage.node == first.node);
    let whole = outer == nest.outer && outer == stage.loops.len() && !folds(stage) && stage.ordered == 0;
    (outer > 0 && pays && (!nest.tiled || whole)).then_some(outer)
}

/// The same nests with newly made stages.
pub(super) fn regroup(nests: &[Nest], stages: Vec<Stage>) -> Result<Vec<Nest>> {
    let mut rest = stages.into_iter();
    let mut out = Vec::with_capacity(nests.len());
    for nest in nests {
        let stages: Vec<Stage> = rest.by_ref().take(nest.stages.len()).collect();
        if stages.len() != nest.stages.len() {
            return Err(internal("kernel.stages", "stages were lost"));
        }
        out.push(Nest {
            outer: nest.outer,
            stages,
            backward: nest.backward,
            serial: nest.serial,
            tiled: nest.tiled,
        });
    }
    Ok(out)
}

/// Neighbouring loops that run as one.
pub(super) fn joins(nests: &[Nest]) -> BTreeMap<(NodeId, usize), Joins> {
    let mut out = BTreeMap::new();
    for nest in nests {
        // Shared loops must join in all stages of the nest.
        let join_outer = |i: usize| {
            !nest.backward
                && i + 1 + nest.serial < nest.outer
                && nest.stages.iter().all(|s| s.joinable(&s.loops[i], &s.loops[i + 1]))
        };
        let outer: Vec<bool> = (0..nest.outer.saturating_sub(1)).map(join_outer).collect();
        for stage in &nest.stages {
            let own = runs(stage.loops.len(), |i| match i + 1 {
                n if n < nest.outer => outer[i],
                n if n == nest.outer => false,
                // Loops that run in order stay apart from those that need not.
                n if stage.ordered > 0 && n == stage.shared + stage.ordered => false,
                n if n == stage.shared => false,
                _ => stage.joinable(&stage.loops[i], &stage.loops[i + 1]),
            });
            let folded = match &stage.work {
                Work::Reduce { loops, .. } => runs(loops.len(), |i| stage.joinable(&loops[i], &loops[i + 1])),
                _ => Vec::new(),
            };
            out.insert((stage.node, stage.part), Joins { own, folded });
        }
    }
    out
}

/// Lengths of runs of `n` things, neighbours being in one run where `joined`.
fn runs(n: usize, joined: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut out: Vec<usize> = Vec::new();
    for i in 0..n {
        match out.last_mut() {
            Some(last) if joined(i - 1) => *last += 1,
            _ => out.push(1),
        }
    }
    out
}
