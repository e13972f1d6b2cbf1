//! The checker of plans and the runtime judge the same plans: what the checker accepts runs right, with nothing for the
//! race detector to report.

mod support;

use djinn_ir::{
    ArgumentKind, Attrs, Graph, Module, OpKind as K, ResultKind, TensorData, Weight, attrs, weight_attrs,
};
use djinn_plan::{Plan, check, mutate};
use djinn_runtime::{RunOptions, Runtime};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::*;

/// Two branches over a state and a weight.
fn program() -> Module {
    let mut g = Graph::new();
    let x = g.add_argument(ty(&["2", "2"]));
    let s = g.add_argument(ty(&["2", "2"]));
    let weight = Weight::with_data(f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]));
    let w = op(&mut g, K::Weight, &[], weight_attrs("w", &weight));
    let w2 = op(&mut g, K::Add, &[w, w], Attrs::new());
    let a = op(&mut g, K::MatMul, &[x, w2], Attrs::new());
    let b = op(&mut g, K::Sin, &[s], Attrs::new());
    let c = op(&mut g, K::Add, &[a, b], Attrs::new());
    let d = op(&mut g, K::Reshape, &[c], attrs! { shape: vec![djinn_ir::Dim::from(4i64)] });
    let e = op(&mut g, K::Cos, &[d], Attrs::new());
    let n = op(&mut g, K::Sub, &[b, x], Attrs::new());
    let y = op(&mut g, K::Tanh, &[e], Attrs::new());
    g.results = vec![y, n, c];
    let arguments =
        [("x", ArgumentKind::Input), ("s", ArgumentKind::State { initial: Some(Arc::from("w")) })];
    let results = [("y", ResultKind::Output), ("s", ResultKind::Update(1)), ("c", ResultKind::Output)];
    let mut m = module(function(g, &arguments, &results));
    m.weights.insert(Arc::from("w"), weight);
    m
}

/// Outputs and the new state, if the plan runs without a report.
fn outcome(plan: &Plan, program: &Module) -> Option<(Vec<(String, TensorData)>, TensorData)> {
    let options = RunOptions { memory_limit: 1 << 20, ..RunOptions::checking() };
    let mut runtime = Runtime::host(Arc::new(plan.clone()), Arc::new(program.clone()), options).ok()?;
    let x: BTreeMap<String, TensorData> = inputs(&[("x", f32s(&[2, 2], &[-1.0, 2.0, 0.5, -3.0]))]);
    let out = runtime.run("main", &x).ok()?;
    Some((out.outputs, runtime.state("s").ok()?)).filter(|_| out.races.is_empty())
}

fn wishes() -> Vec<Wish> {
    let wish = |devices, streams_per_device, aliases, reuse, resident| Wish {
        devices,
        streams_per_device,
        stream_of: Box::new(move |op| (op * 3 + 1) % (devices * streams_per_device)),
        aliases,
        reuse,
        resident,
        ..Wish::default()
    };
    vec![
        wish(1, 1, false, false, false),
        wish(1, 2, true, true, false),
        wish(2, 1, false, true, true),
        wish(2, 2, true, false, true),
    ]
}

#[test]
fn the_checker_accepts_the_plans_of_the_naive_planner() {
    let program = program();
    for (i, wish) in wishes().iter().enumerate() {
        let p = plan(&program, wish);
        check(&p).unwrap_or_else(|v| panic!("plan {i}: {}", v[0]));
        assert!(outcome(&p, &program).is_some(), "plan {i}");
    }
}

#[test]
fn mutants_that_the_checker_accepts_run_right() {
    let program = program();
    let (mut accepted, mut refused, mut caught) = (0, 0, 0);
    for (i, wish) in wishes().iter().enumerate() {
        let right = plan(&program, wish);
        let expected = outcome(&right, &program);
        for mutation in mutate::mutations(&right) {
            let mutant = mutation.apply(&right);
            let found = outcome(&mutant, &program);
            if check(&mutant).is_ok() {
                accepted += 1;
                assert_eq!(found, expected, "plan {i}, {mutation}: accepted and wrong");
            } else {
                refused += 1;
                caught += usize::from(found != expected);
            }
        }
    }
    assert!(accepted > 20 && refused > 500 && caught * 2 > refused, "{accepted}, {refused}, {caught}");
    println!("{accepted} accepted, {refused} refused, {caught} of them caught by the runtime");
}
