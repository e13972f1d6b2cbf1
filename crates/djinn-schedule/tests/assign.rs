//! Schedules within a budget of streams.

mod common;

use common::{Random, random_dag};
use djinn_schedule::samples::{Net, inception_v3, nasnet_like, rand_wire, transformer};
use djinn_schedule::{
    Dag, Limits, Node, Options, Order, Schedule, ScheduleError, assign, assign_unlimited, happens_before,
    simulate, synchronise,
};

const SYNC: f64 = 1.5e-6;

fn unlimited_seconds(dag: &Dag, nodes: &[Node], sync: f64) -> f64 {
    let stream = assign_unlimited(dag, &Limits::default()).stream;
    let events = synchronise(dag, dag.topological(), &stream, &Limits::default()).expect("in order").events;
    simulate(nodes, dag.topological(), &stream, &events, sync).expect("valid").makespan
}

fn check(dag: &Dag, nodes: &[Node], options: &Options, schedule: &Schedule) {
    let order = &schedule.order;
    let known =
        happens_before(order, &schedule.stream, &schedule.events, &Limits::default()).expect("in order");
    assert!(dag.edges().all(|(u, v)| known.before(u, v)), "a dependence is lost");
    for (group, used) in schedule.streams.iter().enumerate() {
        assert!(*used <= options.groups[group]);
    }
    for (node, number) in nodes.iter().zip(&schedule.number) {
        assert!(*number < schedule.streams[node.group]);
    }
    let again =
        simulate(nodes, order, &schedule.stream, &schedule.events, options.sync_seconds).expect("valid");
    assert!((again.makespan - schedule.makespan).abs() <= 1e-9 * schedule.makespan);
    assert!(schedule.makespan <= schedule.sequential * (1.0 + 1e-9));
    assert!(schedule.makespan >= schedule.bound * (1.0 - 1e-9));
}

#[test]
fn four_streams_come_within_five_percent_of_unlimited() {
    for (name, net) in [
        ("inception", inception_v3()),
        ("nasnet", nasnet_like(18)),
        ("randwire", rand_wire(3, 5)),
        ("transformer", transformer(12)),
    ] {
        let (dag, nodes) = (net.dag(), net.nodes.clone());
        for order in [Order::Free, Order::Given] {
            let options = Options { order, ..Options::new(4, SYNC) };
            let schedule = assign(&dag, &nodes, &options, &Limits::default()).expect("valid");
            check(&dag, &nodes, &options, &schedule);
            let unlimited = unlimited_seconds(&dag, &nodes, SYNC);
            assert!(
                schedule.makespan <= 1.05 * unlimited,
                "{name} {order:?}: {} {unlimited}",
                schedule.makespan
            );
        }
    }
}

#[test]
fn random_graphs_get_valid_schedules_twice_the_same() {
    let mut random = Random(6);
    for _ in 0..150 {
        let (count, percent) = (1 + random.below(40), 2 + random.below(30));
        let dag = random_dag(&mut random, count, percent);
        let groups = 1 + random.below(3);
        let nodes: Vec<Node> = (0..count)
            .map(|_| Node {
                seconds: 1e-6 * random.below(30) as f64,
                share: 0.1 + 0.9 * random.unit().min(1.0),
                group: random.below(groups),
            })
            .collect();
        let order = if random.below(2) == 0 { Order::Free } else { Order::Given };
        let budgets = (0..groups).map(|_| 1 + random.below(5)).collect();
        let options = Options { groups: budgets, sync_seconds: random.below(3) as f64 * 1e-6, order };
        let schedule = assign(&dag, &nodes, &options, &Limits::default()).expect("valid");
        check(&dag, &nodes, &options, &schedule);
        assert_eq!(schedule, assign(&dag, &nodes, &options, &Limits::default()).expect("valid"));
        if order == Order::Given {
            assert_eq!(schedule.order, dag.topological());
        }
    }
}

#[test]
fn one_stream_where_nothing_is_gained() {
    // Branches that fill the device, a chain, and branches shorter than an event.
    let mut full = inception_v3();
    full.nodes.iter_mut().for_each(|n| n.share = 1.0);
    let mut chain = Net::default();
    let first = chain.node(&[], 5.0, 0.2);
    chain.chain(first, 50, 5.0, 0.2);
    let mut short = inception_v3();
    short.nodes.iter_mut().for_each(|n| n.seconds = 0.5e-6);
    for net in [full, chain, short] {
        let schedule = assign(&net.dag(), &net.nodes.clone(), &Options::new(4, SYNC), &Limits::default())
            .expect("valid");
        assert_eq!(schedule.streams, [1]);
        assert_eq!(schedule.events, []);
        assert_eq!(schedule.makespan, schedule.sequential);
    }
}

#[test]
fn copies_run_beside_compute() {
    // Twenty weights come in while the layers before them run.
    let mut edges = Vec::new();
    let mut nodes = Vec::new();
    for layer in 0..20 {
        nodes.push(Node { seconds: 9e-6, share: 1.0, group: 1 });
        nodes.push(Node::new(10e-6, 1.0));
        edges.push((2 * layer, 2 * layer + 1));
        if layer > 0 {
            edges.push((2 * layer - 1, 2 * layer + 1));
        }
    }
    let dag = Dag::new(40, &edges).expect("acyclic");
    let options = Options { groups: vec![4, 1], sync_seconds: 1e-6, order: Order::Given };
    let schedule = assign(&dag, &nodes, &options, &Limits::default()).expect("valid");
    assert_eq!(schedule.streams, [1, 1]);
    assert!(schedule.makespan < 235e-6, "{}", schedule.makespan);
}

#[test]
fn sharing_slows_down_in_proportion() {
    // Two nodes of 10 s on 80 % of the device each: both run 1.6 times as long.
    let two = [Node::new(10.0, 0.8); 2];
    assert_eq!(simulate(&two, &[0, 1], &[0, 1], &[], 0.0).expect("valid").makespan, 16.0);
    let small = [Node::new(10.0, 0.5); 2];
    assert_eq!(simulate(&small, &[0, 1], &[0, 1], &[], 0.0).expect("valid").makespan, 10.0);
    assert_eq!(simulate(&small, &[0, 1], &[0, 0], &[], 0.0).expect("valid").makespan, 20.0);
}

#[test]
fn the_best_schedule_of_small_graphs_is_nearly_found() {
    let mut random = Random(9);
    let mut worst: f64 = 1.0;
    for _ in 0..60 {
        let (count, percent) = (1 + random.below(7), 10 + random.below(50));
        let dag = random_dag(&mut random, count, percent);
        let nodes: Vec<Node> = (0..count)
            .map(|_| Node::new(1e-6 * (1 + random.below(20)) as f64, 0.2 + 0.8 * random.unit()))
            .collect();
        let options = Options { order: Order::Given, ..Options::new(2, 1e-6) };
        let schedule = assign(&dag, &nodes, &options, &Limits::default()).expect("valid");
        let mut best = f64::INFINITY;
        for mask in 0..1usize << count {
            let stream: Vec<usize> = (0..count).map(|v| mask >> v & 1).collect();
            let events =
                synchronise(&dag, dag.topological(), &stream, &Limits::default()).expect("in order").events;
            best = best
                .min(simulate(&nodes, dag.topological(), &stream, &events, 1e-6).expect("valid").makespan);
        }
        worst = worst.max(schedule.makespan / best);
    }
    assert!(worst <= 1.1, "{worst}");
}

#[test]
fn large_graphs_stay_within_the_limits() {
    // 20,000 nodes: a fork of short chains, and one node that all end in.
    let mut net = Net::default();
    let first = net.node(&[], 1.0, 0.1);
    let ends: Vec<usize> = (0..4000).map(|_| net.chain(first, 5, 1.0, 0.1)).collect();
    net.node(&ends, 1.0, 0.1);
    let (dag, nodes) = (net.dag(), net.nodes.clone());
    let options = Options::new(usize::MAX, 0.5e-6);
    let schedule = assign(&dag, &nodes, &options, &Limits::default()).expect("valid");
    check(&dag, &nodes, &Options::new(64, 0.5e-6), &schedule);
    assert!(schedule.makespan < 0.2 * schedule.sequential, "{} {}", schedule.makespan, schedule.sequential);
}

#[test]
fn wrong_input_is_refused() {
    let dag = Dag::new(1, &[]).expect("acyclic");
    let limits = Limits::default();
    for node in [Node::new(f64::NAN, 1.0), Node::new(-1.0, 1.0), Node::new(1.0, 0.0), Node::new(1.0, 1.5)] {
        let refused = assign(&dag, &[node], &Options::new(1, 0.0), &limits);
        assert_eq!(refused, Err(ScheduleError::Weight { node: 0 }));
    }
    let node = Node::new(1.0, 1.0);
    assert_eq!(assign(&dag, &[node], &Options::new(0, 0.0), &limits), Err(ScheduleError::Group { node: 0 }));
    assert_eq!(
        assign(&dag, &[node], &Options::new(1, f64::INFINITY), &limits),
        Err(ScheduleError::SyncSeconds)
    );
    assert!(assign(&dag, &[], &Options::new(1, 0.0), &limits).is_err());
    let far = Node { group: usize::MAX, ..node };
    assert!(assign(&dag, &[far], &Options::new(1, 0.0), &limits).is_err());
    assert!(simulate(&[far], &[0], &[0], &[], 0.0).is_err());
    assert!(assign(&dag, &[node], &Options::new(usize::MAX, 0.0), &limits).is_ok());
    let none = Dag::new(0, &[]).expect("acyclic");
    assert_eq!(assign(&none, &[], &Options::new(4, 0.0), &limits).expect("empty").makespan, 0.0);
}
