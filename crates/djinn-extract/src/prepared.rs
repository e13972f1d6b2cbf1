//! A graph together with the tables that the search and the bound share.

use crate::graph::{Components, Graph, Lists, NONE, components};
use crate::greedy::{Trees, trees};

/// A simplified graph, ready for search and bound.
pub(crate) struct Prepared {
    /// The graph.
    pub graph: Graph,
    /// Its strongly connected components.
    pub scc: Components,
    /// The e-nodes that use each e-class.
    pub parents: Lists,
    /// The e-node at the top of the cheapest derivation tree of each e-class.
    pub tree: Vec<u32>,
    /// The e-classes with children before users; on cycles, in the order of `rank`.
    pub order: Vec<u32>,
    /// The place of each e-class in the order in which the trees were settled.
    pub rank: Vec<u32>,
}

impl Prepared {
    /// Computes the tables of `graph`, all of whose e-classes are derivable.
    pub fn new(graph: Graph) -> Self {
        let scc = components(&graph, |_| true);
        let parents = graph.parents();
        let Trees { mut order, by } = trees(&graph, &parents);
        let mut rank = vec![NONE; graph.classes()];
        for (i, &c) in order.iter().enumerate() {
            rank[c as usize] = i as u32;
        }
        order.sort_by_key(|&c| (scc.of[c as usize], rank[c as usize]));
        Self { graph, scc, parents, tree: by, order, rank }
    }
}
