//! Events: they order every dependence, none can be left out, and the order is known exactly.

mod common;

use common::{Random, random_dag};
use djinn_schedule::{Dag, Event, Limits, ScheduleError, happens_before, simulate, synchronise};

fn random_order(random: &mut Random, dag: &Dag) -> Vec<usize> {
    let mut order = Vec::new();
    while order.len() < dag.len() {
        let ready: Vec<usize> = (0..dag.len())
            .filter(|v| !order.contains(v) && dag.predecessors(*v).iter().all(|p| order.contains(p)))
            .collect();
        order.push(ready[random.below(ready.len())]);
    }
    order
}

/// Streams and events as a graph of their own.
fn ordered(order: &[usize], stream: &[usize], events: &[Event]) -> Dag {
    let mut edges: Vec<(usize, usize)> = events.iter().map(|e| (e.after, e.before)).collect();
    for (i, &v) in order.iter().enumerate() {
        edges.extend(order[..i].iter().filter(|&&u| stream[u] == stream[v]).map(|&u| (u, v)));
    }
    Dag::new(order.len(), &edges).expect("acyclic")
}

#[test]
fn events_are_the_transitive_reduction_between_streams() {
    let mut random = Random(3);
    for case in 0..500 {
        let (nodes, percent) = (1 + random.below(14), 5 + random.below(50));
        let dag = random_dag(&mut random, nodes, percent);
        let order = random_order(&mut random, &dag);
        let streams = 1 + random.below(4);
        let stream: Vec<usize> = (0..nodes).map(|_| 3 * random.below(streams)).collect();
        let found = synchronise(&dag, &order, &stream, &Limits::default()).expect("in order");
        let closure = ordered(&order, &stream, &found.events).reduce().closure;
        assert!(dag.edges().all(|(u, v)| closure.get(u, v)), "case {case}: a dependence is lost");
        for i in 0..found.events.len() {
            let mut fewer = found.events.clone();
            fewer.remove(i);
            let closure = ordered(&order, &stream, &fewer).reduce().closure;
            assert!(!dag.edges().all(|(u, v)| closure.get(u, v)), "case {case}: event {i} is not needed");
        }
        // The independent way: reduce dependences and stream order together.
        let dependences: Vec<Event> = dag.edges().map(|(after, before)| Event { after, before }).collect();
        let reduction = ordered(&order, &stream, &dependences).reduce();
        let mut expected: Vec<(usize, usize)> = reduction.edges;
        expected.retain(|(u, v)| stream[*u] != stream[*v]);
        let mut events: Vec<(usize, usize)> = found.events.iter().map(|e| (e.after, e.before)).collect();
        events.sort_unstable();
        assert_eq!(events, expected, "case {case}");
        check_order_is_known(&order, &stream, &found.events);
    }
}

fn check_order_is_known(order: &[usize], stream: &[usize], events: &[Event]) {
    let closure = ordered(order, stream, events).reduce().closure;
    let known = happens_before(order, stream, events, &Limits::default()).expect("in order");
    let few = Limits { clock_cells: 0, ..Limits::default() };
    let partly = happens_before(order, stream, events, &few).expect("in order");
    assert!(known.is_exact() && !partly.is_exact());
    for u in 0..order.len() {
        for v in 0..order.len() {
            assert_eq!(known.before(u, v), closure.get(u, v), "{u} before {v}");
            assert!(!partly.before(u, v) || known.before(u, v));
        }
    }
}

#[test]
fn without_clocks_every_dependence_is_still_ordered() {
    let mut random = Random(4);
    let few = Limits { clock_cells: 0, ..Limits::default() };
    for _ in 0..200 {
        let nodes = 1 + random.below(14);
        let dag = random_dag(&mut random, nodes, 30);
        let stream: Vec<usize> = (0..nodes).map(|_| random.below(3)).collect();
        let found = synchronise(&dag, dag.topological(), &stream, &few).expect("in order");
        let closure = ordered(dag.topological(), &stream, &found.events).reduce().closure;
        assert!(dag.edges().all(|(u, v)| closure.get(u, v)));
    }
}

#[test]
fn wrong_input_is_refused() {
    assert!(matches!(Dag::new(2, &[(0, 1), (1, 0)]), Err(ScheduleError::Cycle { .. })));
    assert!(matches!(Dag::new(1, &[(0, 0)]), Err(ScheduleError::Cycle { node: 0 })));
    assert!(matches!(Dag::new(2, &[(0, 2)]), Err(ScheduleError::NodeOutOfRange { node: 2, nodes: 2 })));
    let dag = Dag::new(3, &[(2, 0)]).expect("acyclic");
    let limits = Limits::default();
    for order in [&[0, 1, 2][..], &[2, 2, 1], &[2, 0], &[2, 0, 3], &[2, 1, 1]] {
        assert!(synchronise(&dag, order, &[0, 1, 2], &limits).is_err(), "{order:?}");
    }
    assert!(synchronise(&dag, &[2, 0, 1], &[0, 1], &limits).is_err());
    let event = |after, before| Event { after, before };
    for events in [[event(0, 7)], [event(1, 2)]] {
        assert!(happens_before(&[2, 0, 1], &[0, 1, 2], &events, &limits).is_err());
        assert!(
            simulate(&[djinn_schedule::Node::new(1.0, 1.0); 3], &[2, 0, 1], &[0, 1, 2], &events, 0.0)
                .is_err()
        );
    }
    let empty = Dag::new(0, &[]).expect("empty");
    assert_eq!(synchronise(&empty, &[], &[], &limits).expect("empty").events, []);
}
