//! A first selection: the cheapest derivation tree of every e-class.
//!
//! D. Knuth, "A generalization of Dijkstra's algorithm", Information Processing Letters 6(1),
//! 1977. Shared e-classes are counted once per use here, so the selection is only a start.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::graph::{Graph, Lists, NONE};

/// The cheapest derivation trees.
pub(crate) struct Trees {
    /// The e-classes in the order in which they were settled: children before users.
    pub order: Vec<u32>,
    /// The e-node at the top of the tree of each e-class, or [`NONE`].
    pub by: Vec<u32>,
}

/// Computes the cheapest derivation tree of every derivable e-class.
pub(crate) fn trees(graph: &Graph, parents: &Lists) -> Trees {
    let mut order = Vec::with_capacity(graph.classes());
    let mut by = vec![NONE; graph.classes()];
    let mut cost = vec![f64::INFINITY; graph.classes()];
    let mut missing: Vec<u32> = (0..graph.nodes()).map(|n| graph.edges_of(n).len() as u32).collect();
    let mut sum = graph.node_cost.clone();
    // Costs are not negative, so their bit patterns have the order of their values.
    let ready = (0..graph.nodes()).filter(|&n| missing[n] == 0);
    let mut heap: BinaryHeap<_> = ready.map(|n| Reverse((sum[n].to_bits(), n as u32))).collect();
    while let Some(Reverse((_, node))) = heap.pop() {
        let c = graph.node_class[node as usize] as usize;
        if by[c] != NONE {
            continue;
        }
        by[c] = node;
        cost[c] = sum[node as usize];
        order.push(c as u32);
        for &user in parents.of(c) {
            let u = user as usize;
            // A sum that is not finite would lose the order; such trees are never cheapest.
            sum[u] = (sum[u] + cost[c]).min(f64::MAX);
            missing[u] -= 1;
            if missing[u] == 0 {
                heap.push(Reverse((sum[u].to_bits(), user)));
            }
        }
    }
    Trees { order, by }
}
