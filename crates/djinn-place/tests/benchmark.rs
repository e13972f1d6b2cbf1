//! Known optima of the published instances, and random instances against brute force.

use djinn_place::{
    Device, Goal, Instance, Limits, Node, PlaceError, Placement, StopReason, evaluate, place, read_placement,
};

fn instance(name: &str) -> Instance {
    let path =
        format!("{}/../../testdata/dnn-partitioning/{name}_inference.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    Instance::parse(&text).unwrap()
}

fn proved(name: &str, goal: Goal, value: f64) {
    let instance = instance(name);
    let placed = place(&instance, goal, &Limits::default()).unwrap();
    assert!((placed.value - value).abs() < 5e-5, "{name}: {}", placed.value);
    assert_eq!((placed.stopped_by, placed.lower_bound), (StopReason::Proved, placed.value));
    let cost = evaluate(&instance, &placed.placement).unwrap();
    assert!(cost.contiguous && cost.latency.is_some());
    assert!(goal == Goal::Latency || cost.cpus_contiguous);
}

#[test]
fn stages_reach_the_proved_optimum() {
    proved("throughput/bert24", Goal::Stages, 17.789906);
    proved("throughput/gnmt", Goal::Stages, 32.910658);
    proved("throughput/bert_l-3", Goal::Stages, 27.918568);
}

#[test]
fn latency_reaches_the_proved_optimum() {
    proved("latency/bert24", Goal::Latency, 100.2185);
    proved("latency/gnmt", Goal::Latency, 225.647891);
}

#[test]
fn free_splits_are_no_worse_than_published_ones() {
    for (name, published) in [("bert24", 17.7776), ("gnmt", 31.783), ("bert_l-3", 27.574)] {
        let instance = instance(&format!("throughput/{name}"));
        let limits = Limits { moves: 600_000, ..Limits::default() };
        let placed = place(&instance, Goal::Load, &limits).unwrap();
        assert!(placed.value <= published, "{name}: {}", placed.value);
        assert!(placed.lower_bound <= placed.value && placed.lower_bound > 0.5 * placed.value);
        assert_eq!(placed, place(&instance, Goal::Load, &limits).unwrap(), "the same input, another answer");
    }
}

#[test]
fn json_survives_a_round_trip() {
    let first = instance("latency/bert_l-3");
    assert_eq!(Instance::parse(&first.to_json()).unwrap(), first);
}

#[test]
fn placements_survive_a_round_trip() {
    let instance = instance("latency/gnmt");
    for goal in [Goal::Stages, Goal::Load, Goal::Latency] {
        let placed = place(&instance, goal, &Limits { moves: 1_000, ..Limits::default() }).unwrap();
        let text = placed.to_json(&instance);
        assert_eq!(read_placement(&instance, &text).unwrap(), placed.placement);
        let word = if goal == Goal::Latency { "totalLatency" } else { "maxLoad" };
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn wrong_placements_are_diagnosed() {
    let instance = instance("throughput/bert24");
    let cases = [
        ("{", "EOF while parsing"),
        ("{\"cpus\":[]}", "the file: 'fpgas' is missing"),
        ("{\"fpgas\":[],\"cpus\":7}", "the file: 'cpus' is 7, not a list"),
        ("{\"fpgas\":[],\"cpus\":[{}]}", "'cpus' 0: 'nodes' is missing"),
        ("{\"fpgas\":[{\"nodes\":[1,999]}],\"cpus\":[]}", "'fpgas' 0: 'nodes' is 999, not the id of a node"),
        ("{\"fpgas\":[{\"nodes\":[1.5]}],\"cpus\":[]}", "'fpgas' 0: 'nodes' is 1.5, not the id of a node"),
        (
            "{\"fpgas\":[{\"nodes\":[1]}],\"cpus\":[{\"nodes\":[1]}]}",
            "'cpus' 0: node 1 is on another device too",
        ),
        ("{\"fpgas\":[{\"nodes\":[1]}],\"cpus\":[]}", "is on no device"),
    ];
    for (text, wanted) in cases {
        let error = read_placement(&instance, text).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}\nshould say: {wanted}");
    }
}

/// A sequence of pseudo-random numbers.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % sides
    }
}

fn random_instance(dice: &mut Dice) -> Instance {
    let n = 2 + dice.roll(5) as usize;
    let node = |i: usize, dice: &mut Dice| Node {
        id: i as i64 * 3,
        supported: dice.roll(6) > 0,
        cpu_time: dice.roll(3) as f64 * 4.0,
        accelerator_time: dice.roll(3) as f64,
        size: dice.roll(4) as f64,
        colour_class: (dice.roll(3) == 0).then(|| dice.roll(3) as i64),
        output_cost: dice.roll(4) as f64,
    };
    let nodes: Vec<Node> = (0..n).map(|i| node(i, dice)).collect();
    let pairs = (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b)));
    let edges = pairs.filter(|_| dice.roll(5) < 2).collect();
    let (accelerators, cpus) = [(2, 1), (1, 1), (2, 0), (1, 2), (0, 1)][dice.roll(5) as usize];
    Instance { accelerators, cpus, capacity: 3.0 + dice.roll(8) as f64, nodes, edges }
}

/// Every placement of the nodes.
fn placements(instance: &Instance) -> Vec<Placement> {
    let devices: Vec<Device> = (0..instance.accelerators)
        .map(Device::Accelerator)
        .chain((0..instance.cpus).map(Device::Cpu))
        .collect();
    let mut all = vec![Vec::new()];
    for _ in &instance.nodes {
        all = all
            .into_iter()
            .flat_map(|p: Placement| devices.iter().map(move |&d| p.iter().copied().chain([d]).collect()))
            .collect();
    }
    all
}

/// Whether the devices can be put in an order in which every edge goes forward.
fn in_stages(instance: &Instance, placement: &Placement) -> bool {
    let mut pairs: Vec<(Device, Device)> =
        instance.edges.iter().map(|&(a, b)| (placement[a], placement[b])).filter(|(a, b)| a != b).collect();
    while !pairs.is_empty() {
        let before = pairs.len();
        let sources: Vec<Device> = pairs.iter().map(|p| p.0).collect();
        pairs.retain(|p| sources.contains(&p.1));
        if pairs.len() == before {
            return false;
        }
    }
    true
}

#[test]
fn random_instances_agree_with_brute_force() {
    let mut dice = Dice(7);
    let mut proved = [0; 3];
    for round in 0..400 {
        let instance = random_instance(&mut dice);
        let valid: Vec<_> = placements(&instance)
            .into_iter()
            .filter_map(|p| Some((evaluate(&instance, &p).ok()?, in_stages(&instance, &p))))
            .collect();
        let least = |values: Vec<f64>| values.into_iter().fold(f64::INFINITY, f64::min);
        let stages = least(valid.iter().filter(|v| v.1).map(|v| v.0.max_load).collect());
        let load = least(valid.iter().map(|v| v.0.max_load).collect());
        let latency = least(valid.iter().filter_map(|v| v.0.latency).collect());
        for (k, (goal, best)) in
            [(Goal::Stages, stages), (Goal::Load, load), (Goal::Latency, latency)].into_iter().enumerate()
        {
            match place(&instance, goal, &Limits { moves: 20_000, ..Limits::default() }) {
                Ok(placed) => {
                    assert!(placed.value >= best - 1e-9, "round {round} {goal:?}: better than brute force");
                    assert!(
                        placed.lower_bound <= best + 1e-9,
                        "round {round} {goal:?}: {placed:?} {best} {}",
                        instance.to_json()
                    );
                    proved[k] += usize::from(placed.stopped_by == StopReason::Proved);
                    if placed.stopped_by == StopReason::Proved {
                        assert!((placed.value - best).abs() < 1e-9, "round {round} {goal:?}");
                    }
                }
                Err(PlaceError::Infeasible(_)) => {}
                Err(e) => panic!("round {round} {goal:?}: {e}"),
            }
        }
    }
    assert!(proved[0] > 250 && proved[2] > 200, "{proved:?}");
}

#[test]
fn wrong_files_are_diagnosed() {
    let file = |nodes: &str, edges: &str, devices: &str| {
        format!("{{\"maxSizePerFPGA\":10,{devices},\"nodes\":[{nodes}],\"edges\":[{edges}]}}")
    };
    let two = "\"maxFPGAs\":1,\"maxCPUs\":1";
    let node = |id: i64, more: &str| {
        format!(
            "{{\"id\":{id},\"supportedOnFpga\":1,\"cpuLatency\":1,\"isBackwardNode\":0,\"size\":1{more}}}"
        )
    };
    let good = |id| node(id, ",\"fpgaLatency\":1");
    let nodes = format!("{},{}", good(1), good(2));
    let edge = |a: i64, b: i64, c: &str| format!("{{\"sourceId\":{a},\"destId\":{b},\"cost\":{c}}}");
    let cases = [
        ("{".to_string(), "not a placement instance: EOF"),
        ("[]".to_string(), "'maxFPGAs' is missing"),
        (file(&node(1, ""), "", two), "node 1: 'fpgaLatency' is missing"),
        (file(&node(1, ",\"fpgaLatency\":-1"), "", two), "is -1, not a number that is zero or more"),
        (file(&node(1, ",\"fpgaLatency\":1e999"), "", two), "number out of range"),
        (file(&node(1, ",\"fpgaLatency\":\"NaN\""), "", two), "is \"NaN\", not a number"),
        (file(&nodes, &edge(1, 7, "0"), two), "'destId' is 7, but no node has this id"),
        (file(&nodes, &format!("{},{}", edge(1, 2, "0"), edge(2, 1, "0")), two), "part of a cycle"),
        (
            file(&nodes, &format!("{},{}", edge(1, 2, "0"), edge(1, 2, "5")), two),
            "another edge out of node 1",
        ),
        (file(&format!("{},{}", good(1), good(1)), "", two), "node id 1 occurs twice"),
        (file(&nodes, "", "\"maxFPGAs\":0,\"maxCPUs\":0"), "there is no device"),
        (file(&nodes, "", "\"maxFPGAs\":-2,\"maxCPUs\":0"), "'maxFPGAs' is -2, not a number of devices"),
    ];
    for (text, wanted) in cases {
        let error = Instance::parse(&text).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}\nshould say: {wanted}");
    }
    let huge = file(&nodes, "", "\"maxFPGAs\":9000000000,\"maxCPUs\":9000000000");
    let placed = place(&Instance::parse(&huge).unwrap(), Goal::Latency, &Limits::default()).unwrap();
    assert_eq!(placed.value, 1.0);
    let heavy = file(
        &node(1, ",\"fpgaLatency\":1").replace("\"size\":1", "\"size\":11"),
        "",
        "\"maxFPGAs\":2,\"maxCPUs\":0",
    );
    let error = place(&Instance::parse(&heavy).unwrap(), Goal::Stages, &Limits::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "nothing fits: node 1 takes 11 bytes, an accelerator holds 10, and there is no CPU"
    );
}

#[test]
fn any_number_of_devices_is_taken() {
    let node = |id: i64| {
        format!(
            "{{\"id\":{id},\"supportedOnFpga\":1,\"cpuLatency\":2,\"fpgaLatency\":1,\"isBackwardNode\":0,\"size\":1}}"
        )
    };
    let nodes: Vec<String> = (0..9).map(node).collect();
    let nodes = nodes.join(",");
    for (accelerators, cpus, load) in [(i64::MAX, i64::MAX, 1.0), (0, i64::MAX, 2.0), (i64::MAX, 0, 1.0)] {
        let text = format!(
            "{{\"maxSizePerFPGA\":10,\"maxFPGAs\":{accelerators},\"maxCPUs\":{cpus},\"nodes\":[{nodes}],\"edges\":[]}}"
        );
        let instance = Instance::parse(&text).unwrap();
        for goal in [Goal::Stages, Goal::Load, Goal::Latency] {
            let placed = place(&instance, goal, &Limits { moves: 1_000, ..Limits::default() }).unwrap();
            assert_eq!(placed.value, load, "{goal:?}");
            assert_eq!(read_placement(&instance, &placed.to_json(&instance)).unwrap(), placed.placement);
        }
    }
}

/// `layers` layers of `width` nodes, each with an edge to every node of the next layer.
fn layered(layers: usize, width: usize) -> Instance {
    let n = layers * width;
    let mut dice = Dice(1);
    let node = |i: usize| Node {
        id: i as i64,
        supported: true,
        cpu_time: 10.0 + dice.roll(10) as f64,
        accelerator_time: 1.0 + dice.roll(5) as f64,
        size: 1.0,
        colour_class: None,
        output_cost: 0.1,
    };
    let nodes = (0..n).map(node).collect();
    let next = |a: usize| (a / width + 1) * width..((a / width + 2) * width).min(n);
    let edges = (0..n).flat_map(|a| next(a).map(move |b| (a, b))).collect();
    Instance { accelerators: 100, cpus: 3, capacity: n as f64 / 2.0, nodes, edges }
}

#[test]
fn large_and_dense_graphs_are_placed_within_bounds() {
    let instance = layered(30, 30);
    for goal in [Goal::Stages, Goal::Load, Goal::Latency] {
        let limits = Limits { moves: 10_000, steps: 2_000_000, ..Limits::default() };
        let placed = place(&instance, goal, &limits).unwrap();
        assert!(placed.lower_bound > 0.0 && placed.lower_bound < placed.value, "{goal:?}");
        assert_ne!(placed.stopped_by, StopReason::Proved, "{goal:?}");
    }
}

#[test]
fn beyond_exact_size_the_gap_is_told() {
    let instance = instance("throughput/bert_l-3");
    let limits = Limits { ideals: 100, ..Limits::default() };
    let placed = place(&instance, Goal::Stages, &limits).unwrap();
    assert_eq!(placed.stopped_by, StopReason::Ideals);
    assert!(placed.lower_bound < placed.value && placed.value < 27.918568 * 1.1, "{}", placed.value);
}
