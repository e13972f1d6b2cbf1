//! Modality as a dataflow analysis over the lattice of sets of {text, vision, audio}; join is union.
//!
//! Forwards, a result carries what the operands carry, with two exceptions: what a rule or the frontend says of a value
//! holds, and attention that looks elsewhere gives what its queries carry (the stream of the queries takes something in,
//! but stays what it is; the operations in between are fusion). Backwards, an operation that nothing reached takes what
//! its users have.

use crate::findings::Findings;
use crate::verdict::Verdict;
use djinn_ir::{Graph, OpId, ValueId};
use djinn_srg::Modality;
use std::collections::BTreeMap;

/// A set of modalities.
pub(crate) type Set = u8;

/// The set of one modality; `fusion` is all of them.
pub(crate) fn set_of(modality: Modality) -> Set {
    match modality {
        Modality::Text => 1,
        Modality::Vision => 2,
        Modality::Audio => 4,
        Modality::Fusion => 7,
        Modality::Unknown => 0,
    }
}

/// The word for a set.
pub(crate) fn word_of(set: Set) -> Modality {
    match set {
        0 => Modality::Unknown,
        1 => Modality::Text,
        2 => Modality::Vision,
        4 => Modality::Audio,
        _ => Modality::Fusion,
    }
}

/// The modality of every operation of a function.
pub(crate) struct Spread {
    /// In order of execution.
    pub(crate) of_op: Vec<(OpId, Set)>,
    /// Of the whole function: what its results carry.
    pub(crate) of_function: Set,
}

/// Spreads what the verdict and the frontend say over the graph.
pub(crate) fn spread(
    graph: &Graph,
    found: &Findings,
    verdict: &Verdict<'_>,
    given: &BTreeMap<OpId, Modality>,
) -> Spread {
    let mut values = vec![0 as Set; graph.value_capacity()];
    let mut seeds: BTreeMap<ValueId, Set> = BTreeMap::new();
    for (_, modality, fact) in &verdict.seeds {
        for v in found.values.get(fact).into_iter().flatten() {
            *seeds.entry(*v).or_default() |= set_of(*modality);
        }
    }
    graph.arguments.iter().for_each(|v| values[v.0 as usize] = seeds.get(v).copied().unwrap_or(0));
    let mut ops: Vec<(OpId, Set)> = Vec::with_capacity(graph.len());
    for (id, op) in graph.ops() {
        let flows = op.operands.iter().fold(0, |set, v| set | values[v.0 as usize]);
        let seeded = op.results.iter().filter_map(|v| seeds.get(v)).fold(0, |set, s| set | s);
        let here = given.get(&id).map_or(flows | seeded, |m| set_of(*m));
        let out = found.crossing.get(&id).map_or(here, |query| values[query.0 as usize]);
        op.results.iter().for_each(|v| values[v.0 as usize] = out);
        ops.push((id, here));
    }
    let of_results = graph.results.iter().filter(|v| !found.cache_values.contains(v));
    let mut of_function = of_results.fold(0, |set, v| set | values[v.0 as usize]);
    if of_function == 0 {
        of_function = ops.iter().fold(0, |set, (_, here)| set | here);
    }
    backwards(graph, &mut ops);
    let of_op = ops.into_iter().map(|(id, set)| (id, if set == 0 { of_function } else { set })).collect();
    Spread { of_op, of_function }
}

/// Operations that nothing reached take what their users have.
fn backwards(graph: &Graph, ops: &mut [(OpId, Set)]) {
    let mut wanted = vec![0 as Set; graph.value_capacity()];
    for (id, set) in ops.iter_mut().rev() {
        let op = graph.op(*id);
        if *set == 0 {
            *set = op.results.iter().fold(0, |all, v| all | wanted[v.0 as usize]);
        }
        op.operands.iter().for_each(|v| wanted[v.0 as usize] |= *set);
    }
}
