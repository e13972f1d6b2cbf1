//! A function's body as a graph of positions: what runs, where, and what needs what.

use djinn_ir::walk::known_before_runs;
use djinn_ir::{Function, Graph, Op, OpId, ValueId};
use std::collections::BTreeMap;

/// No operation of the body computes the value at run time.
pub(crate) const OUTSIDE: u32 = u32::MAX;

/// Where an operation runs and in which phase; operations of different places never share a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) device: u32,
    pub(crate) phase: u32,
}

/// The operations that run, in order, and their neighbours, all by position.
pub(crate) struct Body<'a> {
    pub(crate) graph: &'a Graph,
    /// What runs: all operations whose results are not known ahead of time.
    pub(crate) ops: Vec<(OpId, &'a Op)>,
    /// Where each runs.
    pub(crate) places: Vec<Place>,
    /// Which operation computes each value, by value number, or [`OUTSIDE`].
    pub(crate) producer: Vec<u32>,
    /// Whether an operation computes a result of the function.
    pub(crate) gives_result: Vec<bool>,
    successors: (Vec<u32>, Vec<u32>),
    predecessors: (Vec<u32>, Vec<u32>),
}

impl<'a> Body<'a> {
    pub(crate) fn new(function: &'a Function) -> Body<'a> {
        let graph = &function.graph;
        let ahead = known_before_runs(function);
        let is_ahead = |v: &ValueId| ahead.get(v.0 as usize).is_some_and(|a| *a);
        let ops: Vec<(OpId, &Op)> =
            graph.ops().filter(|(_, op)| op.results.is_empty() || !op.results.iter().all(is_ahead)).collect();
        let mut producer = vec![OUTSIDE; graph.value_capacity()];
        for (position, (_, op)) in ops.iter().enumerate() {
            for v in &op.results {
                producer[v.0 as usize] = position as u32;
            }
        }
        let mut gives_result = vec![false; ops.len()];
        for v in &graph.results {
            if let Some(given) = gives_result.get_mut(producer[v.0 as usize] as usize) {
                *given = true;
            }
        }
        let predecessors = predecessors(&ops, &producer);
        let successors = reversed(&predecessors, ops.len());
        let places = places(&ops, &predecessors);
        Body { graph, ops, places, producer, gives_result, successors, predecessors }
    }

    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }

    /// The operations that use results of the one at `position`, each once, ascending.
    pub(crate) fn successors(&self, position: u32) -> &[u32] {
        row(&self.successors, position)
    }

    /// The operations whose results the one at `position` uses, each once, ascending.
    pub(crate) fn predecessors(&self, position: u32) -> &[u32] {
        row(&self.predecessors, position)
    }

    pub(crate) fn op(&self, position: u32) -> &'a Op {
        self.ops[position as usize].1
    }

    /// The operation that computes `v` at run time.
    pub(crate) fn producer(&self, v: ValueId) -> Option<u32> {
        Some(self.producer[v.0 as usize]).filter(|p| *p != OUTSIDE)
    }
}

fn row(rows: &(Vec<u32>, Vec<u32>), position: u32) -> &[u32] {
    &rows.1[rows.0[position as usize] as usize..rows.0[position as usize + 1] as usize]
}

fn predecessors(ops: &[(OpId, &Op)], producer: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut first = vec![0u32];
    let mut nodes = Vec::with_capacity(2 * ops.len());
    for (_, op) in ops {
        let start = nodes.len();
        nodes.extend(op.operands.iter().map(|v| producer[v.0 as usize]).filter(|p| *p != OUTSIDE));
        nodes[start..].sort_unstable();
        let mut kept = start;
        for i in start..nodes.len() {
            if i == start || nodes[i] != nodes[kept - 1] {
                nodes[kept] = nodes[i];
                kept += 1;
            }
        }
        nodes.truncate(kept);
        first.push(kept as u32);
    }
    (first, nodes)
}

fn reversed(rows: &(Vec<u32>, Vec<u32>), len: usize) -> (Vec<u32>, Vec<u32>) {
    let mut first = vec![0u32; len + 1];
    for p in &rows.1 {
        first[*p as usize + 1] += 1;
    }
    for i in 0..len {
        first[i + 1] += first[i];
    }
    let mut next = first.clone();
    let mut nodes = vec![0; rows.1.len()];
    for position in 0..len as u32 {
        for p in row(rows, position) {
            nodes[next[*p as usize] as usize] = position;
            next[*p as usize] += 1;
        }
    }
    (first, nodes)
}

/// Numbers for the texts of an annotation; 0 stands for none.
#[derive(Default)]
struct Names<'a>(BTreeMap<&'a str, u32>);

impl<'a> Names<'a> {
    fn number(&mut self, op: &'a Op, annotation: &str) -> u32 {
        match op.annotated_str(annotation) {
            Some(name) => {
                let next = self.0.len() as u32 + 1;
                *self.0.entry(name).or_insert(next)
            }
            None => 0,
        }
    }
}

/// An operation that says nothing of its phase has that of the first operation that it uses.
fn places(ops: &[(OpId, &Op)], predecessors: &(Vec<u32>, Vec<u32>)) -> Vec<Place> {
    let (mut devices, mut phases) = (Names::default(), Names::default());
    let mut out: Vec<Place> = Vec::with_capacity(ops.len());
    for (position, (_, op)) in ops.iter().enumerate() {
        let device = devices.number(op, "device");
        let mut phase = phases.number(op, "phase");
        if phase == 0
            && let Some(first) = row(predecessors, position as u32).first()
        {
            phase = out[*first as usize].phase;
        }
        out.push(Place { device, phase });
    }
    out
}
