//! Directed acyclic graphs, their closure and their transitive reduction.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::bits::BitMatrix;
use crate::error::ScheduleError;

/// A directed acyclic graph on the nodes `0..len`; an edge `(u, v)` says that `v` needs `u`.
#[derive(Debug, Clone)]
pub struct Dag {
    successors: Adjacency,
    predecessors: Adjacency,
    topological: Vec<usize>,
}

/// Neighbours of every node, ascending, in one array.
#[derive(Debug, Clone)]
struct Adjacency {
    first: Vec<usize>,
    nodes: Vec<usize>,
}

impl Adjacency {
    /// From pairs (node, neighbour) in ascending order of neighbours for each node.
    fn new(len: usize, pairs: impl Iterator<Item = (usize, usize)> + Clone) -> Adjacency {
        let mut first = vec![0; len + 1];
        for (node, _) in pairs.clone() {
            first[node + 1] += 1;
        }
        for i in 0..len {
            first[i + 1] += first[i];
        }
        let mut next = first.clone();
        let mut nodes = vec![0; first[len]];
        for (node, neighbour) in pairs {
            nodes[next[node]] = neighbour;
            next[node] += 1;
        }
        Adjacency { first, nodes }
    }

    fn of(&self, node: usize) -> &[usize] {
        &self.nodes[self.first[node]..self.first[node + 1]]
    }
}

impl Dag {
    /// A graph of `len` nodes; edges given twice count once.
    pub fn new(len: usize, edges: &[(usize, usize)]) -> Result<Dag, ScheduleError> {
        if u32::try_from(len).is_err() {
            return Err(ScheduleError::TooManyNodes { nodes: len });
        }
        if let Some(&(u, v)) = edges.iter().find(|(u, v)| *u >= len || *v >= len) {
            return Err(ScheduleError::NodeOutOfRange { node: u.max(v), nodes: len });
        }
        let mut sorted = edges.to_vec();
        if !sorted.is_sorted_by(|a, b| a < b) {
            sorted.sort_unstable();
            sorted.dedup();
        }
        let successors = Adjacency::new(len, sorted.iter().copied());
        let predecessors = Adjacency::new(len, sorted.iter().map(|&(u, v)| (v, u)));
        let mut dag = Dag { successors, predecessors, topological: Vec::new() };
        dag.topological =
            if sorted.iter().all(|(u, v)| u < v) { (0..len).collect() } else { dag.sort_topologically()? };
        Ok(dag)
    }

    /// Kahn's algorithm, the smallest ready node first.
    fn sort_topologically(&self) -> Result<Vec<usize>, ScheduleError> {
        let mut missing: Vec<usize> = (0..self.len()).map(|v| self.predecessors(v).len()).collect();
        let mut ready: BinaryHeap<Reverse<usize>> =
            (0..self.len()).filter(|&v| missing[v] == 0).map(Reverse).collect();
        let mut order = Vec::with_capacity(self.len());
        while let Some(Reverse(node)) = ready.pop() {
            order.push(node);
            for &next in self.successors(node) {
                missing[next] -= 1;
                if missing[next] == 0 {
                    ready.push(Reverse(next));
                }
            }
        }
        match missing.iter().position(|&m| m > 0) {
            Some(node) => Err(ScheduleError::Cycle { node: self.on_cycle(node, &missing) }),
            None => Ok(order),
        }
    }

    /// A node on a cycle, found by walking back from `node` through nodes that never became ready.
    fn on_cycle(&self, mut node: usize, missing: &[usize]) -> usize {
        for _ in 0..self.len() {
            let back = self.predecessors(node).iter().find(|&&p| missing[p] > 0);
            node = back.copied().unwrap_or(node);
        }
        node
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.successors.first.len() - 1
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of different edges.
    pub fn edge_count(&self) -> usize {
        self.successors.nodes.len()
    }

    /// The nodes that need `node` directly, ascending.
    pub fn successors(&self, node: usize) -> &[usize] {
        self.successors.of(node)
    }

    /// The nodes that `node` needs directly, ascending.
    pub fn predecessors(&self, node: usize) -> &[usize] {
        self.predecessors.of(node)
    }

    /// The edges, ascending.
    pub fn edges(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.len()).flat_map(|u| self.successors(u).iter().map(move |&v| (u, v)))
    }

    /// All nodes, each after those that it needs; `0..len` itself where that is such an order.
    pub fn topological(&self) -> &[usize] {
        &self.topological
    }

    /// Which nodes need which, directly or not, and the fewest edges that say the same.
    ///
    /// Takes `len²/8` bytes.
    pub fn reduce(&self) -> Reduction {
        let mut rank = vec![0; self.len()];
        for (i, &node) in self.topological.iter().enumerate() {
            rank[node] = i;
        }
        let mut closure = BitMatrix::new(self.len(), self.len());
        let mut kept = Vec::with_capacity(self.edge_count());
        let mut near: Vec<usize> = Vec::new();
        for &node in self.topological.iter().rev() {
            near.clear();
            near.extend(self.successors(node));
            near.sort_unstable_by_key(|&v| rank[v]);
            for &next in &near {
                // A path around the edge would pass through a successor of lower rank.
                if !closure.get(node, next) {
                    kept.push((node, next));
                    closure.union_rows(node, next);
                    closure.set(node, next);
                }
            }
        }
        kept.sort_unstable();
        Reduction { closure, edges: kept }
    }
}

/// The closure and the reduction of a [`Dag`].
#[derive(Debug, Clone)]
pub struct Reduction {
    /// Row `u` has bit `v` if `v` needs `u`, directly or not.
    pub closure: BitMatrix,
    /// The transitive reduction (minimum equivalent graph), ascending.
    pub edges: Vec<(usize, usize)>,
}
