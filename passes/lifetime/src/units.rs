//! Units of scheduling: the operations of one `kernel` annotation together, every other operation alone.

use djinn_diag::{Result, internal};
use djinn_ir::{Graph, Op, OpId, OpKind};
use std::collections::BTreeMap;

/// Are all results of the operation known ahead of time (`ahead`, by value number)?
pub(crate) fn is_ahead(op: &Op, ahead: &[bool]) -> bool {
    op.results.iter().all(|v| ahead.get(v.0 as usize).copied().unwrap_or(false))
}

/// The units of a graph, ordered so that each comes after what it reads, by their first operation where there is a
/// choice. Operations whose results are all ahead of time (`ahead`, by value number) are in none.
///
/// # Errors
/// `lifetime.kernels` if kernel groups wait for one another.
pub fn units(graph: &Graph, ahead: &[bool]) -> Result<Vec<Vec<OpId>>> {
    let mut groups: BTreeMap<i64, usize> = BTreeMap::new();
    let mut units: Vec<Vec<OpId>> = Vec::new();
    let mut consecutive = true;
    for (id, op) in graph.ops().filter(|(_, op)| !is_ahead(op, ahead)) {
        let group = op.annotated_int("kernel").filter(|_| op.kind != OpKind::Transfer);
        match group.and_then(|g| groups.get(&g).copied()) {
            Some(index) => {
                consecutive &= index + 1 == units.len();
                units[index].push(id);
            }
            None => {
                if let Some(g) = group {
                    groups.insert(g, units.len());
                }
                units.push(vec![id]);
            }
        }
    }
    if consecutive { Ok(units) } else { in_order(graph, units) }
}

/// Orders units whose operations are not consecutive.
fn in_order(graph: &Graph, units: Vec<Vec<OpId>>) -> Result<Vec<Vec<OpId>>> {
    let owner = owners(graph, &units);
    let mut open = vec![0usize; units.len()];
    let mut wakes = vec![Vec::new(); units.len()];
    for (u, ops) in units.iter().enumerate() {
        let operands = ops.iter().flat_map(|id| &graph.op(*id).operands);
        for maker in operands.filter_map(|v| owner[graph.definition(*v)?.0.0 as usize]).filter(|m| *m != u) {
            open[u] += 1;
            wakes[maker].push(u);
        }
    }
    let mut ready: std::collections::BTreeSet<usize> = (0..units.len()).filter(|u| open[*u] == 0).collect();
    let mut order = Vec::with_capacity(units.len());
    while let Some(u) = ready.pop_first() {
        order.push(u);
        for &w in &wakes[u] {
            open[w] -= 1;
            if open[w] == 0 {
                ready.insert(w);
            }
        }
    }
    if order.len() != units.len() {
        let message = "kernel groups wait for one another: no order of execution exists";
        return Err(internal("lifetime.kernels", message).help("run the partition pass again"));
    }
    let mut slots: Vec<Option<Vec<OpId>>> = units.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|u| slots[u].take()).collect())
}

/// The unit of each operation, by operation number.
pub(crate) fn owners(graph: &Graph, units: &[Vec<OpId>]) -> Vec<Option<usize>> {
    let largest = graph.ops().map(|(id, _)| id.0 as usize + 1).max().unwrap_or(0);
    let mut owner = vec![None; largest];
    for (u, ops) in units.iter().enumerate() {
        for id in ops {
            if let Some(slot) = owner.get_mut(id.0 as usize) {
                *slot = Some(u);
            }
        }
    }
    owner
}
