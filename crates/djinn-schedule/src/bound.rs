//! A lower bound on the time of every schedule.

use crate::assign::Options;
use crate::dag::Dag;
use crate::list::Priorities;
use crate::simulate::Node;

/// No schedule takes less than this.
///
/// With one group, the graph is cut at nodes that are ordered with all others: those before are
/// complete when such a node starts. What stands between two cuts takes at least its longest path
/// and its work, and either runs on one stream or makes the next cut wait for an event.
pub(crate) fn lower_bound(dag: &Dag, priorities: &Priorities, nodes: &[Node], options: &Options) -> f64 {
    let mut work = vec![0.0; options.groups.len()];
    for node in nodes {
        work[node.group] += node.seconds * node.share;
    }
    let whole = work.into_iter().fold(priorities.critical_path(), f64::max);
    if options.groups.len() == 1 { whole.max(by_sections(dag, nodes, options.sync_seconds)) } else { whole }
}

/// What stands between two cuts.
#[derive(Debug, Clone, Copy, Default)]
struct Section {
    seconds: f64,
    work: f64,
    longest: f64,
}

impl Section {
    /// The least time of the section, given what the next cut pays if it waits for another stream.
    fn least(self, sync_seconds: f64) -> f64 {
        self.seconds.min(self.longest.max(self.work) + sync_seconds)
    }
}

fn by_sections(dag: &Dag, nodes: &[Node], sync_seconds: f64) -> f64 {
    let cuts = cuts(dag);
    let mut longest = vec![0.0f64; dag.len()];
    let mut section = Section::default();
    let mut total = 0.0;
    for (place, &node) in dag.topological().iter().enumerate() {
        let Node { seconds, share, .. } = nodes[node];
        if cuts[place] {
            total += section.least(sync_seconds) + seconds;
            section = Section::default();
            longest[node] = 0.0;
        } else {
            let before = dag.predecessors(node).iter().map(|&p| longest[p]).fold(0.0, f64::max);
            longest[node] = before + seconds;
            section.longest = section.longest.max(longest[node]);
            section.seconds += seconds;
            section.work += seconds * share;
        }
    }
    // Nothing waits for the end of the last section.
    total + section.least(0.0)
}

/// Which places of the topological order hold a node that is ordered with all others.
///
/// All nodes before it lead to it if each of them has a successor no later than it; all nodes
/// after it come from it if each of them has a predecessor no earlier than it.
fn cuts(dag: &Dag) -> Vec<bool> {
    let order = dag.topological();
    let mut place = vec![0; dag.len()];
    for (i, &node) in order.iter().enumerate() {
        place[node] = i;
    }
    let mut cuts = vec![false; dag.len()];
    let mut latest_first_use = 0;
    for (i, &node) in order.iter().enumerate() {
        cuts[i] = latest_first_use <= i;
        let first_use = dag.successors(node).iter().map(|&s| place[s]).min();
        latest_first_use = latest_first_use.max(first_use.unwrap_or(usize::MAX));
    }
    // Counted from 1, so that 0 stands for a node without predecessors.
    let mut earliest_last_input = usize::MAX;
    for (i, &node) in order.iter().enumerate().rev() {
        cuts[i] &= earliest_last_input > i;
        let last_input = dag.predecessors(node).iter().map(|&p| place[p] + 1).max();
        earliest_last_input = earliest_last_input.min(last_input.unwrap_or(0));
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_the_nodes_ordered_with_all_others() {
        let mut state = 3u64;
        for _ in 0..300 {
            let mut random = |n: usize| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as usize % n
            };
            let len = 1 + random(9);
            let percent = 10 + random(70);
            let mut edges = Vec::new();
            for v in 0..len {
                edges.extend((0..v).filter(|_| random(100) < percent).map(|u| (u, v)));
            }
            let dag = Dag::new(len, &edges).expect("edges go up");
            let closure = dag.reduce().closure;
            let expected: Vec<bool> = (0..len)
                .map(|v| (0..len).all(|u| u == v || closure.get(u, v) || closure.get(v, u)))
                .collect();
            assert_eq!(cuts(&dag), expected, "{edges:?}");
        }
    }
}
