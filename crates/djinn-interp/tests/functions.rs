//! Whole functions: inputs, state, regions, symbols, traces, and how fast a convolution network runs.

use djinn_diag::Culprit;
use djinn_interp::{run, run_traced};
use djinn_ir::{
    ArgumentKind, Attrs, DType, Dim, Function, Graph, Location, Module, OpKind as K, ResultKind, TensorData,
    TensorType, ValueId, Weight, attrs, weight_attrs,
};
use std::collections::BTreeMap;
use std::sync::Arc;

fn f32s(shape: &[usize], values: &[f32]) -> TensorData {
    TensorData::from_f32(shape, values).expect("fits")
}

fn ty(dims: &[&str]) -> TensorType {
    TensorType::new(DType::F32, dims.iter().map(|d| d.parse().expect("dimension")))
}

fn op(graph: &mut Graph, kind: K, operands: &[ValueId], attrs: Attrs) -> ValueId {
    graph.build1(kind, operands, attrs).unwrap_or_else(|e| panic!("{e}"))
}

fn inputs(values: &[(&str, TensorData)]) -> BTreeMap<String, TensorData> {
    values.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect()
}

fn function(graph: Graph, arguments: &[(&str, ArgumentKind)], results: &[(&str, ResultKind)]) -> Function {
    Function {
        name: Arc::from("main"),
        visibility: djinn_ir::Visibility::Entry,
        graph,
        arguments: arguments.iter().map(|(n, k)| (Arc::from(*n), k.clone())).collect(),
        results: results.iter().map(|(n, k)| (Arc::from(*n), k.clone())).collect(),
    }
}

/// `y = x + total`, and `total` becomes `y`; x is [s, 2] and the state starts as a weight.
fn accumulator() -> Module {
    let mut graph = Graph::new();
    let x = graph.add_argument(ty(&["s", "2"]));
    let total = graph.add_argument(ty(&["1", "2"]));
    let y = op(&mut graph, K::Add, &[x, total], Attrs::new());
    let sum = op(&mut graph, K::ReduceSum, &[y], attrs! { axes: vec![0i64], keepdims: true });
    graph.results = vec![y, sum];
    let state = ArgumentKind::State { initial: Some(Arc::from("zero")) };
    let f = function(
        graph,
        &[("x", ArgumentKind::Input), ("total", state)],
        &[("y", ResultKind::Output), ("new_total", ResultKind::Update(1))],
    );
    let weights = [(Arc::from("zero"), Weight::with_data(f32s(&[1, 2], &[0.5, 0.0])))];
    Module { functions: vec![f], weights: weights.into(), ..Module::default() }
}

#[test]
fn state_starts_as_its_weight_and_comes_back_updated() {
    let module = accumulator();
    let x = f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let first = run(&module, "main", &inputs(&[("x", x.clone())])).expect("runs");
    assert_eq!(first.output("y"), Some(&f32s(&[2, 2], &[1.5, 2.0, 3.5, 4.0])));
    assert_eq!(first.update("total"), Some(&f32s(&[1, 2], &[5.0, 6.0])));
    let second = run(
        &module,
        "main",
        &inputs(&[("x", x), first.updates.first().map(|(_, t)| ("total", t.clone())).expect("one update")]),
    );
    assert_eq!(second.expect("runs").output("y"), Some(&f32s(&[2, 2], &[6.0, 8.0, 8.0, 10.0])));
}

#[test]
fn wrong_inputs_are_the_callers_fault() {
    let module = accumulator();
    let message = |values: &[(&str, TensorData)]| {
        let e = run(&module, "main", &inputs(values)).expect_err("must be refused");
        assert_eq!((e.culprit, e.code.as_str()), (Culprit::Input, "interp.input"));
        e.message
    };
    assert_eq!(message(&[]), "argument 'x' is missing");
    let wrong = f32s(&[2, 3], &[0.0; 6]);
    assert_eq!(
        message(&[("x", wrong)]),
        "shape of argument 'x' is [2, 3], but its type says [s, 2] where s = 2"
    );
    let ints = TensorData::from_i64(&[1, 2], &[0, 0]).expect("fits");
    assert_eq!(message(&[("x", ints)]), "element type of argument 'x' is i64, but its type says f32");
    let x = f32s(&[1, 2], &[0.0; 2]);
    assert_eq!(message(&[("x", x.clone()), ("z", x)]), "there is no argument 'z'");
    assert!(run(&module, "other", &BTreeMap::new()).is_err());
}

#[test]
fn weights_without_values_are_named() {
    let weight = Weight { ty: ty(&["2"]), data: None };
    let mut graph = Graph::new();
    let w = op(&mut graph, K::Weight, &[], weight_attrs("layer.bias", &weight));
    graph.results = vec![w];
    let f = function(graph, &[], &[("y", ResultKind::Output)]);
    let weights = [(Arc::from("layer.bias"), weight)];
    let module = Module { functions: vec![f], weights: weights.into(), ..Module::default() };
    let e = run(&module, "main", &BTreeMap::new()).expect_err("no values");
    assert_eq!(e.code, "interp.weight");
    assert!(e.message.contains("layer.bias"));
    assert_eq!(e.place, ["operation 0 'weight'"]);
}

#[test]
fn wrong_declared_types_are_internal_errors() {
    let mut graph = Graph::new();
    let x = graph.add_argument(ty(&["s"]));
    let id = graph.push(K::Neg, vec![x], Attrs::new(), vec![], vec![ty(&["s + 1"])], Location::default());
    graph.results = graph.op(id).results.clone();
    let f = function(graph, &[("x", ArgumentKind::Input)], &[("y", ResultKind::Output)]);
    let module = Module { functions: vec![f], ..Module::default() };
    let e = run(&module, "main", &inputs(&[("x", f32s(&[1], &[1.0]))])).expect_err("declared wrongly");
    assert_eq!((e.culprit, e.code.as_str()), (Culprit::Internal, "interp.type"));
}

#[test]
fn traces_show_every_operation_in_order() {
    let module = accumulator();
    let mut seen = Vec::new();
    let x = f32s(&[1, 2], &[1.0, 2.0]);
    run_traced(&module, "main", &inputs(&[("x", x)]), &mut |id, op, values| {
        seen.push((id.0, op.kind, values[0].shape().to_vec()));
    })
    .expect("runs");
    assert_eq!(seen, vec![(0, K::Add, vec![1, 2]), (1, K::ReduceSum, vec![1, 2])]);
}

/// A region with these arguments whose results `body` builds.
fn region(arguments: &[TensorType], body: impl FnOnce(&mut Graph, &[ValueId]) -> Vec<ValueId>) -> Graph {
    let mut graph = Graph::new();
    let arguments: Vec<ValueId> = arguments.iter().map(|t| graph.add_argument(t.clone())).collect();
    graph.results = body(&mut graph, &arguments);
    graph
}

#[test]
fn conditions_choose_a_region() {
    let mut graph = Graph::new();
    let cond = graph.add_argument(TensorType::scalar(DType::Bool));
    let x = graph.add_argument(ty(&["s"]));
    let unary = |kind: K| region(&[ty(&["s"])], |g, a| vec![op(g, kind, &[a[0]], Attrs::new())]);
    let id =
        graph.build(K::If, &[cond, x], Attrs::new(), vec![unary(K::Neg), unary(K::Abs)], Location::default());
    graph.results = graph.op(id.expect("well typed")).results.clone();
    let arguments = [("cond", ArgumentKind::Input), ("x", ArgumentKind::Input)];
    let module = Module {
        functions: vec![function(graph, &arguments, &[("y", ResultKind::Output)])],
        ..Module::default()
    };
    for (cond, expected) in [(1.0, [1.0, -2.0]), (0.0, [1.0, 2.0])] {
        let cond = TensorData::splat(DType::Bool, &[], cond).expect("fits");
        let out =
            run(&module, "main", &inputs(&[("cond", cond), ("x", f32s(&[2], &[-1.0, 2.0]))])).expect("runs");
        assert_eq!(out.output("y"), Some(&f32s(&[2], &expected)));
    }
}

/// `loop` over a carried list that grows by one element an iteration until it has `limit` elements; every
/// iteration scans its number.
fn growing_loop(limit: i64) -> Module {
    let scalar = |d| TensorType::scalar(d);
    let list = TensorType::new(DType::I64, [Dim::symbol("n")]);
    let body =
        region(&[scalar(DType::I64), scalar(DType::Bool), list.clone(), scalar(DType::I64)], |g, a| {
            let one = op(g, K::Reshape, &[a[0]], attrs! { shape: vec![Dim::ONE] });
            let longer = op(g, K::Concat, &[a[2], one], attrs! { axis: 0i64 });
            let length =
                op(g, K::DimExpr, &[], attrs! { exprs: vec![&Dim::symbol("n") + &Dim::ONE], scalar: true });
            let go_on = op(g, K::Compare, &[length, a[3]], attrs! { predicate: "lt" });
            vec![go_on, longer, a[0]]
        });
    let mut graph = Graph::new();
    let trips = graph.add_argument(scalar(DType::I64));
    let start = graph.add_argument(list.clone());
    let yes = TensorData::splat(DType::Bool, &[], 1.0).expect("fits");
    let yes = op(&mut graph, K::Constant, &[], attrs! { value: yes });
    let limit = TensorData::from_i64(&[], &[limit]).expect("fits");
    let limit = op(&mut graph, K::Constant, &[], attrs! { value: limit });
    let types = ["m", "t"].map(|s| TensorType::new(DType::I64, [Dim::symbol(s)])).to_vec();
    let a = attrs! { carried: 1i64, types: types };
    let id = graph.build(K::Loop, &[trips, yes, start, limit], a, vec![body], Location::default());
    graph.results = graph.op(id.unwrap_or_else(|e| panic!("{e}"))).results.clone();
    let arguments = [("trips", ArgumentKind::Input), ("start", ArgumentKind::Input)];
    let results = [("list", ResultKind::Output), ("scanned", ResultKind::Output)];
    Module { functions: vec![function(graph, &arguments, &results)], ..Module::default() }
}

#[test]
fn loops_carry_values_of_changing_size_and_stack_the_scanned_ones() {
    let i64s = |v: &[i64]| TensorData::from_i64(&[v.len()], v).expect("fits");
    let module = growing_loop(4);
    let go = |trips: i64, start: &[i64]| {
        let trips = TensorData::from_i64(&[], &[trips]).expect("fits");
        let out = run(&module, "main", &inputs(&[("trips", trips), ("start", i64s(start))]));
        out.unwrap_or_else(|e| panic!("{e}"))
    };
    let out = go(i64::MAX, &[9]);
    assert_eq!(out.output("list"), Some(&i64s(&[9, 0, 1, 2])));
    assert_eq!(out.output("scanned"), Some(&i64s(&[0, 1, 2])));
    assert_eq!(go(2, &[]).output("list"), Some(&i64s(&[0, 1])));
    let none = go(0, &[7, 8]);
    assert_eq!(none.output("list"), Some(&i64s(&[7, 8])));
    assert_eq!(none.output("scanned"), Some(&i64s(&[])));
}

#[test]
fn a_small_convolution_network_runs_in_seconds() {
    let mut graph = Graph::new();
    let x = graph.add_argument(ty(&["1", "3", "64", "64"]));
    let (mut v, mut channels, mut size) = (x, 3usize, 64usize);
    for layer in 0..24usize {
        let features = 16 << (layer / 8);
        let stride = if layer % 8 == 0 { 2i64 } else { 1 };
        let w = TensorData::splat(DType::F32, &[features, channels, 3, 3], 0.01).expect("fits");
        let w = op(&mut graph, K::Constant, &[], attrs! { value: w });
        let a =
            attrs! { strides: vec![stride; 2], pads: vec![1i64; 4], dilations: vec![1i64; 2], groups: 1i64 };
        v = op(&mut graph, K::Conv, &[v, w], a);
        v = op(&mut graph, K::Relu, &[v], Attrs::new());
        channels = features;
        size = size.div_ceil(stride as usize);
    }
    v = op(&mut graph, K::ReduceMean, &[v], attrs! { axes: vec![2i64, 3], keepdims: false });
    graph.results = vec![v];
    let f = function(graph, &[("x", ArgumentKind::Input)], &[("y", ResultKind::Output)]);
    let module = Module { functions: vec![f], ..Module::default() };
    let x = TensorData::splat(DType::F32, &[1, 3, 64, 64], 1.0).expect("fits");
    let out = run(&module, "main", &inputs(&[("x", x)])).expect("runs");
    assert_eq!(out.output("y").map(TensorData::shape), Some(&[1, 64][..]));
    assert_eq!(size, 8);
}

/// `main(x) = twice(twice(x, w), w)` with the private `twice(x, w) = x·w + x`.
fn calling() -> Module {
    let mut body = Graph::new();
    let x = body.add_argument(ty(&["s", "2"]));
    let w = body.add_argument(ty(&["2"]));
    let product = op(&mut body, K::Mul, &[x, w], Attrs::new());
    body.results = vec![op(&mut body, K::Add, &[product, x], Attrs::new())];
    let mut callee = function(
        body,
        &[("x", ArgumentKind::Input), ("w", ArgumentKind::Weight)],
        &[("y", ResultKind::Output)],
    );
    callee.name = Arc::from("twice");
    callee.visibility = djinn_ir::Visibility::Private;
    let weight = Weight::with_data(f32s(&[2], &[1.0, 2.0]));
    let mut graph = Graph::new();
    let mut v = graph.add_argument(ty(&["s", "2"]));
    let w = op(&mut graph, K::Weight, &[], weight_attrs("w", &weight));
    for _ in 0..2 {
        v = op(&mut graph, K::Call, &[v, w], attrs! { callee: "twice", types: vec![ty(&["s", "2"])] });
    }
    graph.results = vec![v];
    let main = function(graph, &[("x", ArgumentKind::Input)], &[("y", ResultKind::Output)]);
    let weights = [(Arc::from("w"), weight)].into();
    Module { functions: vec![main, callee], weights, ..Module::default() }
}

#[test]
fn calls_run_private_functions() {
    let mut module = calling();
    djinn_ir::verify::verify(&module).expect("well formed");
    let x = inputs(&[("x", f32s(&[1, 2], &[1.0, 2.0]))]);
    let out = run(&module, "main", &x).expect("runs");
    assert_eq!(out.output("y"), Some(&f32s(&[1, 2], &[4.0, 18.0])));
    module.functions.pop();
    let error = run(&module, "main", &x).expect_err("no callee");
    assert_eq!((error.culprit, error.code.as_str()), (Culprit::Input, "interp.call"));
}

#[test]
fn endless_recursion_is_a_diagnostic() {
    let mut module = calling();
    let call = attrs! { callee: "twice", types: vec![ty(&["s", "2"])] };
    let callee = &mut module.functions[1].graph;
    let arguments = callee.arguments.clone();
    callee.results = vec![op(callee, K::Call, &arguments, call)];
    assert_eq!(djinn_ir::verify::verify(&module).map_err(|e| e.code), Err("module.C4".into()));
    let x = inputs(&[("x", f32s(&[1, 2], &[1.0, 2.0]))]);
    assert_eq!(run(&module, "main", &x).map_err(|e| e.code), Err("interp.depth".into()));
}
