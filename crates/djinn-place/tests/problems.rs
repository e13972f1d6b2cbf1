//! Problems with devices of any kind against brute force, and large ones within their limits.

use djinn_place::{
    Limits, Link, Objective, PlaceError, Problem, Shared, StopReason, Task, Value, evaluate_problem, solve,
};

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % sides
    }
}

fn random_problem(dice: &mut Dice) -> Problem {
    let (n, d) = (2 + dice.roll(5) as usize, 1 + dice.roll(3) as usize);
    let seconds = |dice: &mut Dice| {
        let pin = (dice.roll(8) == 0).then(|| dice.roll(d as u64) as usize);
        let time = 1.0 + dice.roll(5) as f64;
        (0..d)
            .map(|x| if pin.is_some_and(|p| p != x) { f64::INFINITY } else { time * (1.0 + (x % 2) as f64) })
            .collect()
    };
    let tasks = (0..n)
        .map(|_| Task {
            seconds: seconds(dice),
            bytes: dice.roll(4) as f64,
            colour_class: (dice.roll(4) == 0).then(|| dice.roll(2) as u32),
        })
        .collect();
    let mut values = Vec::new();
    for producer in 0..n {
        let consumers: Vec<usize> = (producer + 1..n).filter(|_| dice.roll(3) == 0).collect();
        if !consumers.is_empty() {
            values.push(Value { producer, consumers, bytes: dice.roll(4) as f64 });
        }
    }
    let shared = (0..dice.roll(3))
        .map(|_| Shared { bytes: dice.roll(5) as f64, users: (0..n).filter(|_| dice.roll(2) == 0).collect() })
        .collect();
    let links = (0..d)
        .map(|a| (0..d).map(|b| Link { latency: 0.5 * (a + b) as f64, seconds_per_byte: 0.25 }).collect())
        .collect();
    let objective = [Objective::Latency, Objective::Throughput, Objective::Memory][dice.roll(3) as usize];
    let capacity = (0..d).map(|_| 4.0 + dice.roll(12) as f64).collect();
    Problem { capacity, links, tasks, values, shared, objective, stages: dice.roll(2) == 0 }
}

fn brute_force(problem: &Problem) -> f64 {
    let (n, d) = (problem.tasks.len(), problem.devices());
    let mut best = f64::INFINITY;
    for code in 0..d.pow(n as u32) {
        let device: Vec<usize> = (0..n).map(|i| code / d.pow(i as u32) % d).collect();
        if let Ok(cost) = evaluate_problem(problem, &device)
            && (cost.staged || !problem.stages)
        {
            best = best.min(cost.value(problem));
        }
    }
    best
}

#[test]
fn small_problems_are_solved_exactly() {
    let mut dice = Dice(3);
    let mut solved = 0;
    for round in 0..3000 {
        let problem = random_problem(&mut dice);
        let best = brute_force(&problem);
        match solve(&problem, &Limits::default()) {
            Ok(solution) => {
                assert!((solution.value - best).abs() < 1e-9, "round {round}: {} {best}", solution.value);
                assert_eq!(solution.stopped_by, StopReason::Proved, "round {round} {problem:?} {solution:?}");
                assert_eq!(solution.lower_bound, solution.value);
                solved += 1;
            }
            Err(PlaceError::Infeasible(_)) => assert_eq!(best, f64::INFINITY, "round {round} {problem:?}"),
            Err(e) => panic!("round {round}: {e}"),
        }
    }
    assert!(solved > 500, "{solved}");
}

#[test]
fn bounds_hold_without_the_exact_search() {
    let mut dice = Dice(11);
    for round in 0..3000 {
        let problem = random_problem(&mut dice);
        let best = brute_force(&problem);
        if let Ok(solution) = solve(&problem, &Limits { tree_nodes: 0, ..Limits::default() }) {
            assert!(solution.lower_bound <= best + 1e-9, "round {round}: {} {best}", solution.lower_bound);
            assert!(solution.value >= best - 1e-9, "round {round}");
        }
    }
}

/// A transformer-like chain: `layers` of `ops` tasks, a value that all layers use, a weight for each task.
fn chain(layers: usize, ops: usize, devices: usize, room: f64) -> Problem {
    let n = layers * ops;
    let task = |i: usize| Task {
        seconds: vec![1e-5 * (1 + i % 3) as f64; devices],
        bytes: 0.0,
        colour_class: (i % ops < 2).then_some((i / ops) as u32),
    };
    let mut values: Vec<Value> = (0..n - 1)
        .map(|i| {
            let mut consumers = vec![i + 1];
            if i % ops == 0 && i + ops - 1 < n {
                consumers.push(i + ops - 1);
            }
            let bytes = if i % ops == ops - 1 { 8192.0 } else { 65536.0 };
            Value { producer: i, consumers, bytes }
        })
        .collect();
    values.push(Value { producer: 0, consumers: (1..layers).map(|l| l * ops).collect(), bytes: 64.0 });
    let link = Link { latency: 5e-6, seconds_per_byte: 1e-11 };
    Problem {
        capacity: vec![room; devices],
        links: vec![vec![link; devices]; devices],
        tasks: (0..n).map(task).collect(),
        values,
        shared: (0..n).map(|i| Shared { bytes: 1e6, users: vec![i] }).collect(),
        objective: Objective::Latency,
        stages: true,
    }
}

#[test]
fn two_thousand_tasks_on_eight_devices() {
    let mut problem = chain(100, 20, 8, 300e6);
    let solution = solve(&problem, &Limits::default()).unwrap();
    assert!(solution.cost.staged);
    assert!(solution.value <= solution.lower_bound * 1.05, "{} {}", solution.value, solution.lower_bound);
    problem.objective = Objective::Throughput;
    let solution = solve(&problem, &Limits::default()).unwrap();
    assert!(solution.value <= solution.lower_bound * 1.15, "{} {}", solution.value, solution.lower_bound);
    assert_eq!(solution, solve(&problem, &Limits::default()).unwrap());
}

#[test]
fn one_device_is_immediate_and_too_little_room_is_said() {
    let solution = solve(&chain(100, 20, 1, 3e9), &Limits::default()).unwrap();
    assert_eq!((solution.stopped_by, solution.lower_bound), (StopReason::Proved, solution.value));
    let error = solve(&chain(100, 20, 2, 300e6), &Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "nothing fits: 2000000000 bytes are needed, 2 devices hold 600000000");
}

#[test]
fn wrong_problems_are_diagnosed() {
    let good = chain(2, 3, 2, 1e9);
    let mut cases = vec![(good.clone(), "0 devices")];
    cases[0].0.capacity.clear();
    let mut with = |change: &dyn Fn(&mut Problem), text| {
        let mut problem = good.clone();
        change(&mut problem);
        cases.push((problem, text));
    };
    with(&|p| p.links[0][1].latency = f64::NAN, "a link is missing");
    with(&|p| p.tasks[1].bytes = -1.0, "task 1 has a wrong number");
    with(&|p| p.tasks[1].seconds = vec![f64::NAN; 2], "task 1 has a wrong number");
    with(&|p| p.values[0].consumers = vec![0], "used before it is made");
    with(&|p| p.shared[0].users = vec![99], "shared bytes");
    with(&|p| p.tasks[2].seconds = vec![f64::INFINITY; 2], "task 2 needs 0 bytes, and no device");
    for (problem, text) in cases {
        let error = solve(&problem, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains(text), "{error}\nshould say: {text}");
    }
}
