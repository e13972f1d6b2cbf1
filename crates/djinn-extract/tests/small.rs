//! Extraction on small graphs whose optimum is plain to see.

use djinn_extract::{
    CheckError, ClassId, ExtractError, Extraction, Limits, NodeId, Problem, ProblemBuilder, ProblemError,
    StopReason, check, extract,
};

/// Builds a problem from `(e-class, cost, children)` e-nodes.
fn problem(classes: usize, roots: &[u32], nodes: &[(u32, f64, &[u32])]) -> Problem {
    let mut builder = ProblemBuilder::new(classes);
    for &(class, cost, children) in nodes {
        builder.node(ClassId(class), cost, children.iter().map(|&c| ClassId(c)));
    }
    roots.iter().for_each(|&root| builder.root(ClassId(root)));
    builder.finish().expect("the problem is valid")
}

fn solve(problem: &Problem) -> Extraction {
    let result = extract(problem, &Limits::default(), None).expect("there is a selection");
    assert_eq!(check(problem, &result.choice), Ok(result.cost));
    assert!(result.lower_bound <= result.cost);
    result
}

#[test]
fn merged_operation_pays_only_when_both_halves_use_it() {
    let p = problem(
        4,
        &[0],
        &[(0, 1.0, &[1, 2]), (1, 3.0, &[]), (1, 0.0, &[3]), (2, 3.0, &[]), (2, 0.0, &[3]), (3, 4.0, &[])],
    );
    let result = solve(&p);
    assert_eq!(result.cost, 5.0);
    assert_eq!(result.stopped_by, StopReason::Optimal);
}

#[test]
fn nested_merges_are_found_together() {
    // Four leaves at 3, two pairs at 5, and all four at 6 by way of the pairs.
    let p = problem(
        8,
        &[0],
        &[
            (0, 0.0, &[1, 2, 3, 4]),
            (1, 3.0, &[]),
            (1, 0.0, &[5]),
            (2, 3.0, &[]),
            (2, 0.0, &[5]),
            (3, 3.0, &[]),
            (3, 0.0, &[6]),
            (4, 3.0, &[]),
            (4, 0.0, &[6]),
            (5, 5.0, &[]),
            (5, 0.0, &[7]),
            (6, 5.0, &[]),
            (6, 0.0, &[7]),
            (7, 6.0, &[]),
        ],
    );
    assert_eq!(solve(&p).cost, 6.0);
}

#[test]
fn shared_class_counts_once() {
    let p = problem(4, &[0], &[(0, 1.0, &[1, 2]), (1, 1.0, &[3]), (2, 1.0, &[3]), (3, 10.0, &[])]);
    let result = solve(&p);
    assert_eq!(result.cost, 13.0);
    assert!((result.lower_bound - 13.0).abs() < 1e-8);
}

#[test]
fn zero_cost_cycle_is_not_an_answer() {
    let p = problem(2, &[0], &[(0, 0.0, &[1]), (0, 5.0, &[]), (1, 0.0, &[0]), (1, 6.0, &[])]);
    assert_eq!(solve(&p).cost, 5.0);
    let p =
        problem(3, &[2], &[(0, 0.0, &[1]), (0, 5.0, &[]), (1, 0.0, &[0]), (1, 6.0, &[]), (2, 0.0, &[0, 1])]);
    assert_eq!(solve(&p).cost, 5.0);
}

#[test]
fn unreached_classes_have_no_choice() {
    let p = problem(3, &[0], &[(0, 1.0, &[]), (1, 1.0, &[2]), (2, 1.0, &[])]);
    assert_eq!(solve(&p).choice, [Some(NodeId(0)), None, None]);
}

#[test]
fn self_loops_and_repeated_children_are_harmless() {
    let p = problem(2, &[0, 0], &[(0, 0.0, &[0]), (0, 2.0, &[1, 1, 1]), (1, 3.0, &[])]);
    assert_eq!(solve(&p).cost, 5.0);
}

#[test]
fn no_roots_cost_nothing() {
    let p = problem(1, &[], &[(0, 1.0, &[])]);
    assert_eq!(solve(&p).cost, 0.0);
    assert_eq!(solve(&problem(0, &[], &[])).cost, 0.0);
}

#[test]
fn root_on_a_cycle_only_is_an_error() {
    let p = problem(3, &[0, 1], &[(0, 1.0, &[]), (1, 1.0, &[2]), (2, 1.0, &[1])]);
    let result = extract(&p, &Limits::default(), None);
    assert_eq!(result, Err(ExtractError::NoSelection(ClassId(1))));
}

#[test]
fn child_without_nodes_makes_its_user_unusable() {
    let p = problem(2, &[0], &[(0, 1.0, &[1]), (0, 7.0, &[])]);
    assert_eq!(solve(&p).cost, 7.0);
}

#[test]
fn zero_limits_still_give_a_selection_and_a_bound() {
    let p =
        problem(4, &[0], &[(0, 1.0, &[1, 2]), (1, 1.0, &[3]), (2, 1.0, &[3]), (2, 8.0, &[]), (3, 10.0, &[])]);
    let limits = Limits { local_search_steps: 0, bound_steps: 0 };
    let result = extract(&p, &limits, None).expect("there is a selection");
    assert_eq!(check(&p, &result.choice), Ok(result.cost));
    assert!(result.lower_bound <= 13.0 && result.cost >= 13.0);
}

#[test]
fn warm_start_is_never_made_worse() {
    let p = problem(
        4,
        &[0],
        &[(0, 1.0, &[1, 2]), (1, 3.0, &[]), (1, 0.0, &[3]), (2, 3.0, &[]), (2, 0.0, &[3]), (3, 4.0, &[])],
    );
    let warm = [Some(NodeId(0)), Some(NodeId(2)), Some(NodeId(4)), Some(NodeId(5))];
    let limits = Limits { local_search_steps: 0, bound_steps: 0 };
    let result = extract(&p, &limits, Some(&warm)).expect("there is a selection");
    assert_eq!(result.cost, 5.0);
}

#[test]
fn invalid_warm_starts_are_refused() {
    let p = problem(2, &[0], &[(0, 0.0, &[1]), (0, 5.0, &[]), (1, 0.0, &[0]), (1, 6.0, &[])]);
    let refused = |warm: &[Option<NodeId>]| match extract(&p, &Limits::default(), Some(warm)) {
        Err(ExtractError::WarmStart(e)) => e,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&[None]), CheckError::WrongLength { expected: 2, found: 1 });
    assert_eq!(refused(&[Some(NodeId(0)), None]), CheckError::Missing(ClassId(1)));
    let foreign = CheckError::WrongClass { class: ClassId(1), node: NodeId(1) };
    assert_eq!(refused(&[Some(NodeId(0)), Some(NodeId(1))]), foreign);
    let unknown = CheckError::WrongClass { class: ClassId(0), node: NodeId(99) };
    assert_eq!(refused(&[Some(NodeId(99)), None]), unknown);
    assert!(matches!(refused(&[Some(NodeId(0)), Some(NodeId(2))]), CheckError::Cycle(_)));
}

#[test]
fn builder_refuses_faults() {
    let build = |class: u32, cost: f64, child: u32, root: u32| {
        let mut builder = ProblemBuilder::new(2);
        builder.node(ClassId(class), cost, [ClassId(child)]);
        builder.root(ClassId(root));
        builder.finish().err()
    };
    let node = NodeId(0);
    assert_eq!(build(0, 1.0, 1, 0), None);
    assert_eq!(build(2, 1.0, 1, 0), Some(ProblemError::UnknownClass { node, class: ClassId(2) }));
    assert_eq!(build(0, 1.0, 9, 0), Some(ProblemError::DanglingChild { node, child: ClassId(9) }));
    assert_eq!(build(0, -1.0, 1, 0), Some(ProblemError::BadCost { node, cost: -1.0 }));
    assert_eq!(build(0, f64::INFINITY, 1, 0), Some(ProblemError::BadCost { node, cost: f64::INFINITY }));
    assert!(matches!(build(0, f64::NAN, 1, 0), Some(ProblemError::BadCost { .. })));
    assert_eq!(build(0, 1.0, 1, 2), Some(ProblemError::UnknownRoot(ClassId(2))));
    assert_eq!(build(0, 1.0, 1, 1), Some(ProblemError::EmptyRoot(ClassId(1))));
}

#[test]
fn deep_chain_needs_no_deep_stack() {
    let depth = 200_000u32;
    let mut builder = ProblemBuilder::new(depth as usize);
    for c in 0..depth {
        let children = (c + 1 < depth).then_some(ClassId(c + 1));
        builder.node(ClassId(c), 1.0, children);
        builder.node(ClassId(c), 2.0, children);
    }
    builder.root(ClassId(0));
    let p = builder.finish().expect("the problem is valid");
    assert_eq!(solve(&p).cost, f64::from(depth));
}
