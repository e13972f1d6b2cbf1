//! Units of a function: what one command runs.

use djinn_diag::{Result, internal};
use djinn_ir::{Attr, Graph, Op, OpId, OpKind, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// What a unit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitKind {
    /// Runs operations on a device.
    Kernel,
    /// Copies a value from one device to another: a single `transfer`.
    Transfer,
}

/// Operations that one command runs.
#[derive(Debug, Clone)]
pub struct Unit {
    /// What it does.
    pub kind: UnitKind,
    /// Its operations, in the order of the graph.
    pub ops: Vec<OpId>,
}

/// An integer annotation of an operation.
pub(crate) fn number(op: &Op, name: &str) -> Option<i64> {
    match op.annotations.get(name) {
        Some(Attr::Int(n)) => Some(*n),
        _ => None,
    }
}

/// The units of a graph in an order of execution: operations with one `kernel` annotation together, every other
/// operation alone; operations whose results are all ahead of time (`ahead`, by value number) in none.
///
/// # Errors
/// `plan.kernels` if the groups wait for one another.
pub fn units(graph: &Graph, ahead: &[bool]) -> Result<Vec<Unit>> {
    let mut groups: BTreeMap<i64, usize> = BTreeMap::new();
    let mut units: Vec<Unit> = Vec::new();
    let mut unit_of: BTreeMap<OpId, usize> = BTreeMap::new();
    for (id, op) in graph.ops() {
        if op.results.iter().all(|r| ahead[r.0 as usize]) {
            continue;
        }
        let group = number(op, "kernel").filter(|_| op.kind != OpKind::Transfer);
        let index = match group.and_then(|g| groups.get(&g).copied()) {
            Some(index) => index,
            None => {
                units.push(Unit { kind: UnitKind::Kernel, ops: Vec::new() });
                if let Some(g) = group {
                    groups.insert(g, units.len() - 1);
                }
                units.len() - 1
            }
        };
        units[index].ops.push(id);
        unit_of.insert(id, index);
    }
    for unit in &mut units {
        if let [only] = unit.ops.as_slice() {
            let op = graph.op(*only);
            unit.kind = match op.kind {
                OpKind::Transfer => UnitKind::Transfer,
                _ => UnitKind::Kernel,
            };
        }
    }
    in_order(graph, units, &unit_of)
}

/// Orders units so that each comes after what it reads, earlier ones first where there is a choice.
fn in_order(graph: &Graph, units: Vec<Unit>, unit_of: &BTreeMap<OpId, usize>) -> Result<Vec<Unit>> {
    let mut waits = vec![BTreeSet::new(); units.len()];
    let mut wakes = vec![Vec::new(); units.len()];
    for (i, unit) in units.iter().enumerate() {
        for v in external_operands(graph, unit) {
            let producer = graph.definition(v).and_then(|(op, _)| unit_of.get(&op)).copied();
            if let Some(p) = producer.filter(|p| *p != i && waits[i].insert(*p)) {
                wakes[p].push(i);
            }
        }
    }
    let mut open: Vec<usize> = waits.iter().map(BTreeSet::len).collect();
    let mut ready: BTreeSet<usize> = (0..units.len()).filter(|i| open[*i] == 0).collect();
    let mut order = Vec::with_capacity(units.len());
    while let Some(i) = ready.pop_first() {
        order.push(i);
        for w in &wakes[i] {
            open[*w] -= 1;
            if open[*w] == 0 {
                ready.insert(*w);
            }
        }
    }
    if order.len() != units.len() {
        let message = "kernel groups wait for one another: no order of execution exists";
        return Err(internal("plan.kernels", message).help("run the partition pass again"));
    }
    let mut slots: Vec<Option<Unit>> = units.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|i| slots[i].take()).collect())
}

/// Values that a unit reads and does not make, each once, in order of first use.
pub(crate) fn external_operands(graph: &Graph, unit: &Unit) -> Vec<ValueId> {
    let own: BTreeSet<ValueId> = unit.ops.iter().flat_map(|id| &graph.op(*id).results).copied().collect();
    let mut seen = BTreeSet::new();
    let operands = unit.ops.iter().flat_map(|id| &graph.op(*id).operands).copied();
    operands.filter(|v| !own.contains(v) && seen.insert(*v)).collect()
}
