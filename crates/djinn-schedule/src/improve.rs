//! Local search: moves chains that hold up the critical path to other streams.

use crate::assign::{CLOSE_TO_BOUND, Candidate, Search, is_better};
use crate::error::ScheduleError;
use crate::limits::Stop;

/// The search ends after so many moves in a row that do not help.
const PATIENCE: usize = 32;

/// Nodes, one after another on their stream, and the stream that they are to move to.
struct Move {
    nodes: Vec<usize>,
    to: usize,
}

/// Applies the first move that helps, again and again, until none does or a limit is reached.
pub(crate) fn improve(search: &mut Search, mut best: Candidate) -> Result<Candidate, ScheduleError> {
    let evaluations = search.evaluations.saturating_add(search.limits.evaluations);
    let visits = search.limits.visited_nodes.div_ceil(search.dag.len().max(1));
    let by_visits = search.evaluations.saturating_add(visits);
    'search: while best.timeline.makespan > search.bound * (1.0 + CLOSE_TO_BOUND) {
        for step in moves(search, &best).into_iter().take(PATIENCE) {
            if search.evaluations >= evaluations.min(by_visits) {
                let stop = if by_visits < evaluations { Stop::VisitedNodes } else { Stop::Evaluations };
                search.stop = search.stop.or(Some(stop));
                break 'search;
            }
            let mut stream = best.stream.clone();
            for &node in &step.nodes {
                stream[node] = step.to;
            }
            let found = search.evaluate(best.order.clone(), stream)?;
            if is_better(&found, &best) {
                best = found;
                continue 'search;
            }
        }
        break;
    }
    Ok(best)
}

/// The nodes before and after each node on its stream.
struct Neighbours {
    previous: Vec<Option<usize>>,
    next: Vec<Option<usize>>,
}

impl Neighbours {
    fn new(candidate: &Candidate) -> Neighbours {
        let len = candidate.order.len();
        let mut out = Neighbours { previous: vec![None; len], next: vec![None; len] };
        let streams = candidate.stream.iter().max().map_or(0, |s| s + 1);
        let mut last: Vec<Option<usize>> = vec![None; streams];
        for &node in &candidate.order {
            if let Some(before) = last[candidate.stream[node]].replace(node) {
                out.previous[node] = Some(before);
                out.next[before] = Some(node);
            }
        }
        out
    }
}

/// The moves that could shorten the critical path, those near its end first.
fn moves(search: &Search, best: &Candidate) -> Vec<Move> {
    let near = Neighbours::new(best);
    let finish = &best.timeline.finish;
    let mut waits_for: Vec<Vec<usize>> = vec![Vec::new(); best.order.len()];
    for event in &best.events {
        waits_for[event.before].push(event.after);
    }
    let mut out = Vec::new();
    let later = |a: &usize, b: &usize| finish[*a].total_cmp(&finish[*b]).then(b.cmp(a));
    let mut node = best.order.iter().copied().max_by(later);
    while let Some(held_up) = node {
        let event = waits_for[held_up].iter().copied().max_by(later);
        let previous = near.previous[held_up];
        match (previous, event) {
            (Some(p), e) if e.is_none_or(|e| finish[e] <= finish[p]) => {
                if search.dag.predecessors(held_up).binary_search(&p).is_err() {
                    spread(search, best, &near, held_up, &mut out);
                    spread(search, best, &near, p, &mut out);
                }
                node = Some(p);
            }
            (_, Some(e)) => {
                if search.nodes[e].group == search.nodes[held_up].group {
                    out.push(Move { nodes: chain_from(search, &near, held_up), to: best.stream[e] });
                    out.push(Move { nodes: chain_to(search, &near, e), to: best.stream[held_up] });
                }
                node = Some(e);
            }
            (_, None) => node = None,
        }
    }
    out
}

/// Moves of the chain of `node` to every other stream of its group.
fn spread(search: &Search, best: &Candidate, near: &Neighbours, node: usize, out: &mut Vec<Move>) {
    let group = search.nodes[node].group;
    let first = search.first_stream(group);
    for to in (first..first + search.options.groups[group]).filter(|&s| s != best.stream[node]) {
        out.push(Move { nodes: chain_from(search, near, node), to });
    }
}

fn is_edge(search: &Search, from: usize, to: usize) -> bool {
    search.dag.successors(from).binary_search(&to).is_ok()
}

/// `node` and the nodes after it on its stream, as long as each needs the one before.
fn chain_from(search: &Search, near: &Neighbours, node: usize) -> Vec<usize> {
    let mut chain = vec![node];
    let mut last = node;
    while let Some(next) = near.next[last].filter(|&next| is_edge(search, last, next)) {
        chain.push(next);
        last = next;
    }
    chain
}

/// `node` and the nodes before it on its stream, as long as each needs the one before.
fn chain_to(search: &Search, near: &Neighbours, node: usize) -> Vec<usize> {
    let mut chain = vec![node];
    let mut first = node;
    while let Some(previous) = near.previous[first].filter(|&p| is_edge(search, p, first)) {
        chain.push(previous);
        first = previous;
    }
    chain
}
