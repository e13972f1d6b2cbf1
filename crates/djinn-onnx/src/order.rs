//! Order of nodes and free names of graphs.

use djinn_diag::{Result, input};
use djinn_onnx_proto::{GraphProto, NodeProto};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// Names that the node reads, those of its subgraphs' free names included.
pub(crate) fn reads(node: &NodeProto) -> BTreeSet<&str> {
    let mut out: BTreeSet<&str> = node.input.iter().map(String::as_str).filter(|n| !n.is_empty()).collect();
    for a in &node.attribute {
        for g in a.g.iter().map(AsRef::as_ref).chain(&a.graphs) {
            out.extend(free_names(g));
        }
    }
    out
}

/// Names that the graph reads without defining them.
pub(crate) fn free_names(g: &GraphProto) -> BTreeSet<&str> {
    let mut defined: BTreeSet<&str> = g.input.iter().map(|i| i.name.as_str()).collect();
    defined.extend(g.initializer.iter().map(|i| i.name.as_str()));
    defined.extend(g.node.iter().flat_map(|n| n.output.iter().map(String::as_str)));
    let used = g.node.iter().flat_map(reads).chain(g.output.iter().map(|o| o.name.as_str()));
    used.filter(|n| !n.is_empty() && !defined.contains(n)).collect()
}

/// The nodes' numbers in an order in which every value is defined before it is read; the file's own order where
/// possible.
///
/// # Errors
/// A value defined twice, or a cycle.
pub(crate) fn execution_order(nodes: &[NodeProto]) -> Result<Vec<usize>> {
    let mut producer: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, n) in nodes.iter().enumerate() {
        for o in n.output.iter().filter(|o| !o.is_empty()) {
            if producer.insert(o, i).is_some() {
                return Err(input("onnx.ssa", format!("the value '{o}' is defined twice"))
                    .help("every value must be defined by exactly one node; export the model again"));
            }
        }
    }
    let mut waiting = vec![0usize; nodes.len()];
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (i, n) in nodes.iter().enumerate() {
        let sources: BTreeSet<usize> =
            reads(n).into_iter().filter_map(|r| producer.get(r).copied()).collect();
        waiting[i] = sources.len();
        sources.into_iter().for_each(|s| users[s].push(i));
    }
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..nodes.len()).filter(|i| waiting[*i] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(i)) = ready.pop() {
        order.push(i);
        for u in &users[i] {
            waiting[*u] -= 1;
            if waiting[*u] == 0 {
                ready.push(Reverse(*u));
            }
        }
    }
    match (0..nodes.len()).find(|i| waiting[*i] > 0) {
        None => Ok(order),
        Some(i) => {
            let name = nodes[i].output.first().map_or("", String::as_str);
            Err(input("onnx.cycle", format!("the graph has a cycle through the value '{name}'"))
                .help("the file is damaged; export the model again"))
        }
    }
}
