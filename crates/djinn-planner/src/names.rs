//! How the plan names values, kernels and buffers.

use crate::units::{Unit, UnitKind};
use djinn_ir::graph::Definition;
use djinn_ir::{Function, Graph, ValueId};
use djinn_plan::ValueRef;

/// Operations that a kernel's name lists, at most.
const SHOWN: usize = 4;

/// Positions of operations in the order of a graph, by number of the operation.
pub(crate) fn positions(graph: &Graph) -> Vec<u32> {
    let mut positions = Vec::new();
    for (i, (id, _)) in graph.ops().enumerate() {
        if positions.len() <= id.0 as usize {
            positions.resize(id.0 as usize + 1, u32::MAX);
        }
        positions[id.0 as usize] = i as u32;
    }
    positions
}

/// A value as the plan names it.
pub(crate) fn value_ref(positions: &[u32], graph: &Graph, v: ValueId) -> ValueRef {
    match graph.value(v).def {
        Definition::Argument(n) => ValueRef::Argument(n),
        Definition::Result(op, index) => ValueRef::Result { op: positions[op.0 as usize], index },
    }
}

/// The kinds of a unit's operations and the scope of the last one.
pub(crate) fn kernel_name(graph: &Graph, unit: &Unit) -> String {
    let kinds: Vec<&str> = unit.ops.iter().take(SHOWN).map(|id| graph.op(*id).kind.name()).collect();
    let mut name = kinds.join("+");
    if unit.ops.len() > SHOWN {
        name.push_str(&format!("+{} more", unit.ops.len() - SHOWN));
    }
    if let UnitKind::Engine(number) = unit.kind {
        name = format!("engine {number}: {name}");
    }
    match unit.ops.last().and_then(|id| graph.op(*id).location.scope.as_deref()) {
        Some(scope) if !scope.is_empty() => format!("{name} @{scope}"),
        _ => name,
    }
}

/// The argument, or the kind and scope of the operation that makes a value.
pub(crate) fn buffer_name(function: &Function, v: ValueId) -> String {
    let graph = &function.graph;
    match graph.value(v).def {
        Definition::Argument(n) => function.arguments[n as usize].0.to_string(),
        Definition::Result(op, i) => {
            let op = graph.op(op);
            let scope = op.location.scope.as_deref().unwrap_or("");
            let index = if op.results.len() > 1 { format!("#{i}") } else { String::new() };
            format!("{}{index} {scope}", op.kind.name()).trim_end().to_owned()
        }
    }
}
