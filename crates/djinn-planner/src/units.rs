//! Units of a function: what one command runs.

use djinn_diag::Result;
use djinn_ir::{Graph, OpId, OpKind, ValueId};
use std::collections::BTreeSet;

/// What a unit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitKind {
    /// Runs operations on a device.
    Kernel,
    /// Runs the engine region of this number: what it writes shares no bytes with what it reads.
    Engine(u32),
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

/// The units of a graph in an order of execution: operations with one `kernel` annotation together, every other
/// operation alone; operations whose results are all ahead of time (`ahead`, by value number) in none.
///
/// # Errors
/// `lifetime.kernels` if the groups wait for one another.
pub fn units(graph: &Graph, ahead: &[bool]) -> Result<Vec<Unit>> {
    let kind = |ops: &[OpId]| match ops {
        [only] if graph.op(*only).kind == OpKind::Transfer => UnitKind::Transfer,
        _ => UnitKind::Kernel,
    };
    let units = djinn_lifetime::units(graph, ahead)?;
    Ok(units.into_iter().map(|ops| Unit { kind: kind(&ops), ops }).collect())
}

/// Values that a unit reads and does not make, each once, in order of first use.
pub(crate) fn external_operands(graph: &Graph, unit: &Unit) -> Vec<ValueId> {
    let own: BTreeSet<ValueId> = unit.ops.iter().flat_map(|id| &graph.op(*id).results).copied().collect();
    let mut seen = BTreeSet::new();
    let operands = unit.ops.iter().flat_map(|id| &graph.op(*id).operands).copied();
    operands.filter(|v| !own.contains(v) && seen.insert(*v)).collect()
}
