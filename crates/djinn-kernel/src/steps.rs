//! What runs one after the other to compute a group.

use crate::expand;
use crate::{Group, Step};
use djinn_ir::{OpId, OpKind, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Who runs an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runner {
    Kernel,
    Library,
    Evaluator,
}

fn runner(kind: OpKind) -> Runner {
    match kind {
        OpKind::MatMul | OpKind::Conv | OpKind::ConvTranspose | OpKind::Sdpa => Runner::Library,
        _ if expand::refusal(kind).is_some() => Runner::Evaluator,
        // The evaluator sorts in n·log n steps and multiplies by a library; the kernels are for devices.
        OpKind::TopK | OpKind::Lstm => Runner::Evaluator,
        OpKind::Constant | OpKind::Weight => Runner::Evaluator,
        _ => Runner::Kernel,
    }
}

/// The steps of a group: library calls and evaluated operations in order, fused ones between them.
pub(crate) fn steps(group: &Group) -> Vec<Step> {
    let ops: Vec<OpId> = group.ops.iter().copied().filter(|id| group.graph.get_op(*id).is_some()).collect();
    let producer: BTreeMap<ValueId, usize> = ops
        .iter()
        .enumerate()
        .flat_map(|(i, id)| group.graph.op(*id).results.iter().map(move |r| (*r, i)))
        .collect();
    let alone: Vec<usize> =
        (0..ops.len()).filter(|i| runner(group.graph.op(ops[*i]).kind) != Runner::Kernel).collect();
    let phases = phases(group, &ops, &producer, &alone);
    let mut out = Vec::new();
    for phase in 0..=alone.len() {
        let fused: Vec<OpId> = (0..ops.len()).filter(|i| phases[*i] == Some(phase)).map(|i| ops[i]).collect();
        if !fused.is_empty() {
            out.push(fused_step(group, &ops, fused));
        }
        if let Some(i) = alone.get(phase) {
            let op = ops[*i];
            out.push(match runner(group.graph.op(op).kind) {
                Runner::Library => Step::Library { op },
                Runner::Kernel | Runner::Evaluator => Step::Evaluate { op },
            });
        }
    }
    out
}

/// For every fused operation, after how many of the others it runs: late, if only later operations need it.
fn phases(
    group: &Group,
    ops: &[OpId],
    producer: &BTreeMap<ValueId, usize>,
    alone: &[usize],
) -> Vec<Option<usize>> {
    let number = |i: usize| alone.iter().position(|a| *a == i);
    let mut early: Vec<Option<usize>> = Vec::with_capacity(ops.len());
    for (i, id) in ops.iter().enumerate() {
        let after = |v: &ValueId| {
            let p = *producer.get(v)?;
            number(p).map(|n| n + 1).or_else(|| early.get(p).copied().flatten())
        };
        let phase = group.graph.op(*id).operands.iter().filter_map(after).max().unwrap_or(0);
        early.push(number(i).is_none().then_some(phase));
    }
    let mut late = early.clone();
    for i in (0..ops.len()).rev() {
        let Some(earliest) = early[i] else { continue };
        let results = &group.graph.op(ops[i]).results;
        let users =
            (0..ops.len()).filter(|u| group.graph.op(ops[*u]).operands.iter().any(|v| results.contains(v)));
        let needed = users.map(|u| number(u).or(late[u]).unwrap_or(0)).min();
        if let Some(needed) = needed
            && !results.iter().any(|r| group.writes.contains(r))
        {
            late[i] = Some(needed.max(earliest));
        }
    }
    late
}

fn fused_step(group: &Group, all: &[OpId], ops: Vec<OpId>) -> Step {
    let graph = group.graph;
    let made: BTreeSet<ValueId> = ops.iter().flat_map(|id| graph.op(*id).results.iter().copied()).collect();
    let mut reads: Vec<ValueId> = Vec::new();
    for v in ops.iter().flat_map(|id| &graph.op(*id).operands) {
        if !made.contains(v) && !reads.contains(v) {
            reads.push(*v);
        }
    }
    let others: BTreeSet<ValueId> = all
        .iter()
        .filter(|id| !ops.contains(id))
        .flat_map(|id| graph.op(*id).operands.iter().copied())
        .collect();
    let results = ops.iter().flat_map(|id| graph.op(*id).results.iter().copied());
    let writes = results.filter(|v| group.writes.contains(v) || others.contains(v)).collect();
    Step::Fused { ops, reads, writes }
}
