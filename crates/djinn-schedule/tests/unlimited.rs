//! Full concurrency: the number of events is the minimum, proved by trying every assignment.

mod common;

use common::{Random, random_dag};
use djinn_schedule::samples::{inception_v3, nasnet_like, rand_wire, transformer};
use djinn_schedule::{Dag, Limits, assign_unlimited, synchronise, width};

/// The fewest events of all assignments in which nodes share a stream only if they are ordered.
fn fewest_events(dag: &Dag) -> usize {
    let closure = dag.reduce().closure;
    let mut best = usize::MAX;
    let mut stream = vec![0; dag.len()];
    visit(dag, &closure, &mut stream, 0, 0, &mut best);
    best
}

fn visit(
    dag: &Dag,
    closure: &djinn_schedule::BitMatrix,
    stream: &mut Vec<usize>,
    node: usize,
    used: usize,
    best: &mut usize,
) {
    if node == dag.len() {
        let found = synchronise(dag, dag.topological(), stream, &Limits::default()).expect("in order");
        *best = (*best).min(found.events.len());
        return;
    }
    for s in 0..=used {
        let ordered = |other: usize| closure.get(other, node) || closure.get(node, other);
        if (0..node).all(|other| stream[other] != s || ordered(other)) {
            stream[node] = s;
            visit(dag, closure, stream, node + 1, used.max(s + 1), best);
        }
    }
}

#[test]
fn events_are_the_fewest_on_small_graphs() {
    let mut random = Random(1);
    for case in 0..400 {
        let (nodes, percent) = (1 + random.below(7), 15 + random.below(60));
        let dag = random_dag(&mut random, nodes, percent);
        let assignment = assign_unlimited(&dag, &Limits::default());
        assert_eq!(
            assignment.syncs,
            fewest_events(&dag),
            "case {case}: {:?}",
            dag.edges().collect::<Vec<_>>()
        );
        let found =
            synchronise(&dag, dag.topological(), &assignment.stream, &Limits::default()).expect("in order");
        assert_eq!(found.events.len(), assignment.syncs);
    }
}

#[test]
fn streams_hold_ordered_nodes_only_and_events_are_counted_exactly() {
    let mut random = Random(2);
    for _ in 0..100 {
        let (nodes, percent) = (1 + random.below(60), 1 + random.below(20));
        let dag = random_dag(&mut random, nodes, percent);
        let assignment = assign_unlimited(&dag, &Limits::default());
        let closure = dag.reduce().closure;
        for v in 0..dag.len() {
            for u in 0..v {
                assert!(assignment.stream[u] != assignment.stream[v] || closure.get(u, v));
            }
        }
        assert!(assignment.streams >= width(&dag));
        let found =
            synchronise(&dag, dag.topological(), &assignment.stream, &Limits::default()).expect("in order");
        assert_eq!(found.events.len(), assignment.syncs);
    }
}

#[test]
fn known_networks_have_the_known_figures() {
    let dag = inception_v3().dag();
    let found = assign_unlimited(&dag, &Limits::default());
    assert_eq!((dag.len(), dag.edge_count()), (119, 153));
    assert_eq!((found.reduced_edges, found.syncs, found.chains, found.streams), (153, 70, 36, 6));
    for net in [nasnet_like(18), rand_wire(3, 5), transformer(12)] {
        let dag = net.dag();
        let found = assign_unlimited(&dag, &Limits::default());
        let events =
            synchronise(&dag, dag.topological(), &found.stream, &Limits::default()).expect("in order");
        assert_eq!(events.events.len(), found.syncs);
        assert_eq!(found.streams, width(&dag));
    }
}

#[test]
fn a_graph_too_large_for_closures_still_gets_streams() {
    let dag = nasnet_like(4).dag();
    let limits = Limits { closure_nodes: 10, ..Limits::default() };
    let found = assign_unlimited(&dag, &limits);
    assert_eq!(found.stop.map(|s| s.to_string()).as_deref(), Some("closure_nodes"));
    let events = synchronise(&dag, dag.topological(), &found.stream, &limits).expect("in order");
    assert!(events.events.len() <= found.syncs);
    let few_pairs = Limits { chain_pairs: 1, ..Limits::default() };
    let unjoined = assign_unlimited(&dag, &few_pairs);
    assert_eq!(unjoined.streams, unjoined.chains);
    assert!(unjoined.stop.is_some());
}
