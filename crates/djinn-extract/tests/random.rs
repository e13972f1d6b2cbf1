//! Extraction against exhaustive enumeration, and twice on the same input.

use djinn_extract::{
    ClassId, ExtractError, Limits, NodeId, Problem, ProblemBuilder, StopReason, check, extract,
};

/// G. Marsaglia's xorshift generator.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }
}

/// A random problem in which a child is below its user with probability `order` out of 10.
fn random_problem(random: &mut Random, classes: usize, nodes: usize, order: usize) -> Problem {
    let mut builder = ProblemBuilder::new(classes);
    for n in 0..nodes {
        let class = if n < classes { n } else { random.below(classes) };
        let mut children = Vec::new();
        for _ in 0..random.below(4) {
            let below = random.below(10) < order;
            let child = match below {
                true if class + 1 < classes => class + 1 + random.below(classes - class - 1),
                true => continue,
                false => random.below(classes),
            };
            children.push(ClassId(child as u32));
        }
        let cost = [0.0, 0.0, 1.0, 2.0, 3.5, 0.1, 7.0, 1e-3][random.below(8)];
        builder.node(ClassId(class as u32), cost, children);
    }
    for _ in 0..1 + random.below(2) {
        builder.root(ClassId(random.below(classes) as u32));
    }
    builder.finish().expect("the problem is valid")
}

/// The cost of a cheapest selection, by trying all of them.
fn optimum(problem: &Problem) -> Option<f64> {
    let classes = problem.class_count();
    let options: Vec<&[NodeId]> = (0..classes).map(|c| problem.nodes_of(ClassId(c as u32))).collect();
    let mut digits = vec![0; classes];
    let mut best: Option<f64> = None;
    loop {
        let choice: Vec<Option<NodeId>> =
            digits.iter().zip(&options).map(|(&d, o): (&usize, _)| o.get(d).copied()).collect();
        if let Ok(cost) = check(problem, &choice) {
            best = Some(best.map_or(cost, |b: f64| b.min(cost)));
        }
        let mut at = 0;
        while at < classes && digits[at] + 1 >= options[at].len() {
            digits[at] = 0;
            at += 1;
        }
        if at == classes {
            return best;
        }
        digits[at] += 1;
    }
}

/// Solves random problems of one shape and returns how many were not solved to optimality.
fn run(seed: u64, count: usize, classes: usize, nodes: usize, order: usize) -> usize {
    let mut random = Random(seed);
    let limits = Limits { local_search_steps: 20_000, bound_steps: 20_000 };
    let mut missed = 0;
    for case in 0..count {
        let problem = random_problem(&mut random, classes, nodes, order);
        let result = extract(&problem, &limits, None);
        let Some(optimum) = optimum(&problem) else {
            assert!(matches!(result, Err(ExtractError::NoSelection(_))), "case {case}");
            continue;
        };
        let result = result.expect("there is a selection");
        assert_eq!(check(&problem, &result.choice), Ok(result.cost), "case {case}");
        let close = 1e-9 * (1.0 + optimum);
        assert!(result.cost >= optimum - close, "case {case}: {} < {optimum}", result.cost);
        assert!(result.lower_bound <= optimum, "case {case}: {} > {optimum}", result.lower_bound);
        if result.stopped_by == StopReason::Optimal {
            assert!(result.cost <= optimum + close, "case {case}: {} > {optimum}", result.cost);
        }
        missed += usize::from(result.cost > optimum + close);
    }
    missed
}

#[test]
fn acyclic_graphs_agree_with_enumeration() {
    assert!(run(1, 2000, 7, 14, 10) <= 2);
}

#[test]
fn nearly_acyclic_graphs_agree_with_enumeration() {
    assert!(run(2, 2000, 7, 14, 8) <= 2);
}

#[test]
fn cyclic_graphs_agree_with_enumeration() {
    assert!(run(3, 2000, 6, 15, 3) <= 2);
    assert!(run(4, 2000, 5, 13, 0) <= 2);
}

#[test]
fn tiny_graphs_agree_with_enumeration() {
    assert!(run(5, 4000, 3, 7, 4) <= 2);
}

#[test]
fn larger_graphs_agree_with_enumeration() {
    assert!(run(6, 60, 12, 24, 8) <= 2);
}

#[test]
fn bounds_hold_for_selections_found_by_longer_searches() {
    let mut random = Random(9);
    let short = Limits { local_search_steps: 1_000, bound_steps: 10_000 };
    let long = Limits { local_search_steps: 100_000, bound_steps: 1_000_000 };
    for case in 0..400 {
        let (classes, order) = (20 + random.below(100), random.below(11));
        let problem = random_problem(&mut random, classes, classes * 3, order);
        let (Ok(one), Ok(two)) = (extract(&problem, &short, None), extract(&problem, &long, None)) else {
            continue;
        };
        assert_eq!(check(&problem, &one.choice), Ok(one.cost), "case {case}");
        assert_eq!(check(&problem, &two.choice), Ok(two.cost), "case {case}");
        let (cost, bound) = (one.cost.min(two.cost), one.lower_bound.max(two.lower_bound));
        assert!(bound <= cost, "case {case}: {bound} > {cost}");
    }
}

#[test]
fn same_input_gives_the_same_result() {
    let mut random = Random(7);
    let limits = Limits { local_search_steps: 200_000, bound_steps: 200_000 };
    for order in [2, 6, 10] {
        let problem = random_problem(&mut random, 300, 900, order);
        assert_eq!(extract(&problem, &limits, None), extract(&problem, &limits, None));
    }
}

#[test]
fn warm_start_bounds_the_cost() {
    let mut random = Random(8);
    let quick = Limits { local_search_steps: 0, bound_steps: 0 };
    let limits = Limits { local_search_steps: 20_000, bound_steps: 20_000 };
    for order in [2, 6, 9, 10] {
        for _ in 0..40 {
            let problem = random_problem(&mut random, 40, 120, order);
            let Ok(good) = extract(&problem, &limits, None) else { continue };
            let again = extract(&problem, &quick, Some(&good.choice)).expect("there is a selection");
            assert!(again.cost <= good.cost);
            assert_eq!(check(&problem, &again.choice), Ok(again.cost));
        }
    }
}
