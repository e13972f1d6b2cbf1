//! A large synthetic graph stays within memory and time that a compilation can afford.

use djinn_extract::{ClassId, Limits, Problem, ProblemBuilder, check, extract};

/// Layers of operations that read two operations of the layer below; neighbours in a layer can be
/// merged, and every class has a slower spelling, some of which lead back up.
fn layered(layers: u32, width: u32) -> Problem {
    let classes_per_layer = width + width / 2;
    let class = |layer: u32, i: u32| ClassId(layer * classes_per_layer + i);
    let mut builder = ProblemBuilder::new((layers * classes_per_layer) as usize);
    for layer in 0..layers {
        let below = |i: u32| (layer + 1 < layers).then(|| class(layer + 1, i % width));
        for i in 0..width {
            let cost = 1.0 + f64::from((layer * 7 + i * 3) % 5) * 0.1;
            let children = [below(i), below(i + 1)].into_iter().flatten();
            builder.node(class(layer, i), cost, children);
            builder.node(class(layer, i), cost + 0.5, below(i * 5 + 2));
            builder.node(class(layer, i), 0.0, [class(layer, width + i / 2)]);
        }
        for pair in 0..width / 2 {
            let children = [below(2 * pair), below(2 * pair + 1), below(2 * pair + 2)];
            builder.node(class(layer, width + pair), 1.6, children.into_iter().flatten());
            let halves = [class(layer, 2 * pair), class(layer, 2 * pair + 1)];
            builder.node(class(layer, width + pair), 0.01, halves);
        }
    }
    (0..width).for_each(|i| builder.root(class(0, i)));
    builder.finish().expect("the problem is valid")
}

#[test]
fn two_hundred_thousand_nodes_are_handled() {
    let problem = layered(500, 100);
    assert_eq!(problem.node_count(), 200_000);
    let limits = Limits::quick();
    let result = extract(&problem, &limits, None).expect("there is a selection");
    assert_eq!(check(&problem, &result.choice), Ok(result.cost));
    assert!(result.lower_bound <= result.cost && result.lower_bound > 0.0);
    assert!(result.stats.local_search_steps <= limits.local_search_steps);
    assert!(result.stats.bound_steps <= limits.bound_steps);
    assert!(result.cost <= 1911.5, "cost {}", result.cost);
}
