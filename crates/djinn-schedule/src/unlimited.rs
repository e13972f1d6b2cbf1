//! Streams without a budget: full concurrency with the fewest events, then the fewest streams.
//!
//! After Kwon et al., "Nimble: Lightweight and Parallel GPU Task Scheduling for Deep Learning"
//! (NeurIPS 2020, section 4.2): a maximum matching on the transitive reduction glues nodes into
//! chains, and an assignment in which any two unordered nodes are on different streams needs at
//! least |reduction| − |matching| events. Events are set for edges of the reduction only, so that
//! this bound is met exactly. Chains that can never overlap are then joined by a second matching.

use crate::dag::{Dag, Reduction};
use crate::limits::{Limits, Stop};
use crate::matching::{Matching, maximum_matching};

/// Streams under full concurrency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The stream of every node, numbered by first use in topological order.
    pub stream: Vec<usize>,
    /// How many streams there are.
    pub streams: usize,
    /// How many chains there were before chains that never overlap were joined.
    pub chains: usize,
    /// How many edges the transitive reduction has; 0 if it was not computed.
    pub reduced_edges: usize,
    /// How many events the assignment needs.
    pub syncs: usize,
    /// The bound that kept the result from being the best one.
    pub stop: Option<Stop>,
}

/// Gives any two nodes that are not ordered by the graph different streams, with the fewest
/// events that allow it.
///
/// Above [`Limits::closure_nodes`] each node follows a predecessor that nobody follows yet: the
/// rule of Opara (Chen et al., IEEE TC 2024, algorithm 1), linear, with more events and streams.
pub fn assign_unlimited(dag: &Dag, limits: &Limits) -> Assignment {
    if dag.len() > limits.closure_nodes {
        return follow_first_predecessor(dag);
    }
    let reduction = dag.reduce();
    let matching = match_edges(dag.len(), &reduction.edges);
    let (mut chain_of, chains) = chains(dag, &matching.right_of);
    let (join, stop) = join_chains(&chains, &reduction, limits);
    for chain in &mut chain_of {
        *chain = join[*chain];
    }
    let (stream, streams) = number_by_first_use(dag.topological(), &chain_of);
    Assignment {
        stream,
        streams,
        chains: chains.len(),
        reduced_edges: reduction.edges.len(),
        syncs: reduction.edges.len() - matching.size,
        stop,
    }
}

/// The size of the largest set of nodes of which none needs another (Dilworth's theorem: nodes
/// less a maximum matching on the closure). Quadratic in memory; for reports.
pub fn width(dag: &Dag) -> usize {
    let reduction = dag.reduce();
    let neighbours: Vec<Vec<usize>> = (0..dag.len()).map(|u| reduction.closure.ones(u).collect()).collect();
    dag.len() - maximum_matching(&neighbours, dag.len()).size
}

fn match_edges(len: usize, edges: &[(usize, usize)]) -> Matching {
    let mut neighbours = vec![Vec::new(); len];
    for &(u, v) in edges {
        neighbours[u].push(v);
    }
    maximum_matching(&neighbours, len)
}

/// First and last node of a chain.
struct Chain {
    head: usize,
    tail: usize,
}

/// The chain of every node, given the node that follows it in its chain.
fn chains(dag: &Dag, next: &[Option<usize>]) -> (Vec<usize>, Vec<Chain>) {
    let mut chain_of = vec![usize::MAX; dag.len()];
    let mut chains = Vec::new();
    for &head in dag.topological() {
        if chain_of[head] != usize::MAX {
            continue;
        }
        let mut tail = head;
        chain_of[head] = chains.len();
        while let Some(node) = next[tail] {
            chain_of[node] = chains.len();
            tail = node;
        }
        chains.push(Chain { head, tail });
    }
    (chain_of, chains)
}

/// Joins chains where the tail of one is needed by the head of the other; the number after joining.
///
/// This costs no event: an edge of the reduction between two such chains would have a way around
/// it through tail and head, or could have been matched.
fn join_chains(chains: &[Chain], reduction: &Reduction, limits: &Limits) -> (Vec<usize>, Option<Stop>) {
    let mut pairs = 0usize;
    let mut neighbours = Vec::with_capacity(chains.len());
    for from in chains {
        let after = |to: &&(usize, &Chain)| reduction.closure.get(from.tail, to.1.head);
        let row: Vec<usize> = chains.iter().enumerate().filter(|to| after(&to)).map(|(j, _)| j).collect();
        pairs += row.len();
        if pairs > limits.chain_pairs {
            return ((0..chains.len()).collect(), Some(Stop::ChainPairs));
        }
        neighbours.push(row);
    }
    let matching = maximum_matching(&neighbours, chains.len());
    let mut join = vec![usize::MAX; chains.len()];
    for first in (0..chains.len()).filter(|&c| matching.left_of[c].is_none()) {
        let mut chain = Some(first);
        while let Some(c) = chain {
            join[c] = first;
            chain = matching.right_of[c];
        }
    }
    (join, None)
}

fn number_by_first_use(order: &[usize], label: &[usize]) -> (Vec<usize>, usize) {
    let mut number = vec![usize::MAX; label.len()];
    let mut count = 0;
    let mut out = vec![0; label.len()];
    for &node in order {
        let slot = &mut number[label[node]];
        if *slot == usize::MAX {
            *slot = count;
            count += 1;
        }
        out[node] = *slot;
    }
    (out, count)
}

fn follow_first_predecessor(dag: &Dag) -> Assignment {
    let mut followed = vec![false; dag.len()];
    let mut stream = vec![0; dag.len()];
    let (mut streams, mut syncs) = (0, 0);
    for &node in dag.topological() {
        match dag.predecessors(node).iter().find(|&&p| !followed[p]) {
            Some(&p) => {
                followed[p] = true;
                stream[node] = stream[p];
            }
            None => {
                stream[node] = streams;
                streams += 1;
            }
        }
        syncs += dag.predecessors(node).iter().filter(|&&p| stream[p] != stream[node]).count();
    }
    Assignment { stream, streams, chains: streams, reduced_edges: 0, syncs, stop: Some(Stop::ClosureNodes) }
}
