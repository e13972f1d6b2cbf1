//! Streams for a fixed order: each node goes where it is expected to end first.

use crate::assign::Search;

/// A stream while nodes are handed out.
#[derive(Debug, Clone, Default)]
struct Lane {
    free_at: f64,
    length: usize,
    /// How far this stream knows every other stream to be.
    seen: Vec<usize>,
}

/// What a node would meet on a stream.
struct Offer {
    finish: f64,
    waits: usize,
    follows: bool,
    lane: usize,
}

/// Hands the nodes, in topological order, to the streams of their groups: earliest finish first
/// (HEFT; Topcuoglu et al., IEEE TPDS 13(3), 2002), as if the device were never full.
///
/// `streams` is the number of streams that each group may use.
pub(crate) fn earliest_finish(search: &Search, streams: &[usize]) -> Vec<usize> {
    let (dag, nodes) = (search.dag, search.nodes);
    let count = search.options.groups.iter().sum();
    let mut lanes = vec![Lane { seen: vec![0; count], ..Lane::default() }; count];
    let mut stream = vec![usize::MAX; dag.len()];
    let mut position = vec![0; dag.len()];
    let mut finish = vec![0.0f64; dag.len()];
    let mut last = vec![None; count];
    for &node in dag.topological() {
        let predecessors = dag.predecessors(node);
        let ready = predecessors.iter().map(|&p| finish[p]).fold(0.0, f64::max);
        let first = search.first_stream(nodes[node].group);
        let offer = |lane: usize| {
            let mut others: Vec<usize> = Vec::new();
            for &p in predecessors.iter().filter(|&&p| stream[p] != lane) {
                if position[p] > lanes[lane].seen[stream[p]] && !others.contains(&stream[p]) {
                    others.push(stream[p]);
                }
            }
            let start = ready.max(lanes[lane].free_at) + others.len() as f64 * search.options.sync_seconds;
            let follows = last[lane].is_some_and(|p| predecessors.binary_search(&p).is_ok());
            Offer { finish: start + nodes[node].seconds, waits: others.len(), follows, lane }
        };
        let better = |a: &Offer, b: &Offer| {
            a.finish
                .total_cmp(&b.finish)
                .then(a.waits.cmp(&b.waits))
                .then(b.follows.cmp(&a.follows))
                .then(a.lane.cmp(&b.lane))
        };
        let lanes_of_group = first..first + streams[nodes[node].group];
        let Some(best) = lanes_of_group.map(offer).min_by(better) else { continue };
        for &p in predecessors {
            let seen = &mut lanes[best.lane].seen[stream[p]];
            *seen = (*seen).max(position[p]);
        }
        let lane = &mut lanes[best.lane];
        lane.free_at = best.finish;
        lane.length += 1;
        (position[node], stream[node], finish[node]) = (lane.length, best.lane, best.finish);
        last[best.lane] = Some(node);
    }
    stream
}
