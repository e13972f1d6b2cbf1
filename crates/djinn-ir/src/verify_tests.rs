use super::*;
use crate::attr::Attrs;
use crate::data::TensorData;
use crate::dim::{Symbol, SymbolInfo};
use crate::dtype::DType;
use crate::graph::{Visibility, Weight, weight_attrs};

/// A module with a weight, a state and an update: `x + w` and `state + 1 token`.
fn sample() -> Module {
    let mut m = Module::default();
    let w = Weight::with_data(TensorData::from_f32(&[4], &[1.0, 2.0, 3.0, 4.0]).expect("four"));
    let mut g = Graph::new();
    let x = g.add_argument(TensorType::new(DType::F32, [Dim::symbol("s0"), Dim::from(4)]));
    let state = g.add_argument(TensorType::new(DType::F32, [Dim::symbol("past")]));
    let v = g.build1(OpKind::Weight, &[], weight_attrs("w", &w)).expect("weight");
    let y = g.build1(OpKind::Add, &[x, v], Attrs::new()).expect("add");
    let grown = g.build1(OpKind::Concat, &[state, v], crate::attrs! { axis: 0i64 }).expect("concat");
    g.results = vec![y, grown];
    m.functions.push(Function {
        name: "main".into(),
        visibility: Visibility::Entry,
        graph: g,
        arguments: vec![
            ("x".into(), ArgumentKind::Input),
            ("cache".into(), ArgumentKind::State { initial: Some("w".into()) }),
        ],
        results: vec![("y".into(), ResultKind::Output), ("cache".into(), ResultKind::Update(1))],
    });
    m.weights.insert("w".into(), w);
    m
}

/// [`sample`] whose sum stands in a private function `sum`, changed.
fn called(change: &dyn Fn(&mut Module)) -> Module {
    let mut m = sample();
    let (x, w, y) = (ValueId(0), ValueId(2), ValueId(3));
    let mut body = Graph::new();
    let mut types = [x, w].map(|v| m.functions[0].graph.ty(v).clone()).into_iter();
    let arguments: Vec<ValueId> = types.by_ref().map(|ty| body.add_argument(ty)).collect();
    body.results = vec![body.build1(OpKind::Add, &arguments, Attrs::new()).expect("add")];
    m.functions.push(Function {
        name: "sum".into(),
        visibility: Visibility::Private,
        graph: body,
        arguments: vec![("x".into(), ArgumentKind::Input), ("w".into(), ArgumentKind::Weight)],
        results: vec![("y".into(), ResultKind::Output)],
    });
    let g = &mut m.functions[0].graph;
    assert_eq!(g.results[0], y);
    call(g, x, w);
    change(&mut m);
    m
}

/// Makes the first result that of a call of `sum`.
fn call(g: &mut Graph, x: ValueId, w: ValueId) {
    let types = vec![g.ty(g.results[0]).clone()];
    g.results[0] =
        g.build1(OpKind::Call, &[x, w], crate::attrs! { callee: "sum", types: types }).expect("call");
}

fn make_fresh_symbol(g: &mut Graph) {
    let shape = vec![Dim::from(2), Dim::symbol("u0")];
    let x = g.arguments[0];
    g.build1(OpKind::NonZero, &[x], crate::attrs! { result_shape: shape }).expect("nonzero");
}

#[test]
fn a_good_module_passes() {
    assert_eq!(verify(&sample()), Ok(()));
    assert!(diagnose(&sample()).is_empty());
    assert_eq!(verify(&called(&|_| {})), Ok(()));
}

#[test]
fn every_label_is_reported_by_its_violation() {
    let symbol = |name: &str, info: SymbolInfo| {
        let mut m = sample();
        m.symbols.0.insert(Symbol::new(name), info);
        m
    };
    let changed = |change: &dyn Fn(&mut Module)| {
        let mut m = sample();
        change(&mut m);
        m
    };
    let cases: Vec<(&str, Module)> = vec![
        ("graph.C1", changed(&|m| m.functions[0].graph.results[0] = ValueId(99))),
        ("graph.C1", changed(&|m| m.functions[0].graph.order.truncate(2))),
        ("graph.C1", changed(&|m| m.functions[0].graph.order.push(OpId(77)))),
        ("graph.C2", changed(&|m| m.functions[0].graph.arguments[1] = ValueId(0))),
        ("graph.C3", changed(&|m| m.functions[0].graph.order.swap(0, 1))),
        ("graph.C4", changed(&|m| m.functions[0].graph.values[3].ty = TensorType::scalar(DType::F32))),
        ("graph.C5", changed(&|m| m.functions[0].graph = nested(70))),
        ("type.C1", changed(&|m| m.functions[0].graph.values[0].ty.shape[0] = Dim::from(-1))),
        ("type.C2", changed(&|m| m.functions[0].graph.values[0].ty.shape[0] = Dim::OVERFLOW)),
        ("function.C1", changed(&|m| m.functions.push(sample().functions.remove(0)))),
        ("function.C2", changed(&|m| drop(m.functions[0].results.pop()))),
        ("function.C3", changed(&|m| m.functions[0].results[0].1 = ResultKind::Update(9))),
        ("function.C3", changed(&|m| m.functions[0].results[0].1 = ResultKind::Update(1))),
        (
            "function.C4",
            changed(&|m| {
                m.functions[0].arguments[1].1 = ArgumentKind::State { initial: Some("gone".into()) };
            }),
        ),
        ("module.C1", changed(&|m| m.weights.extend([("w".into(), weight_of(5.0))]))),
        ("module.C2", changed(&|m| m.weights.extend([("v".into(), weight_symbolic())]))),
        ("function.C5", changed(&|m| m.functions[0].arguments[0].1 = ArgumentKind::Weight)),
        ("function.C5", called(&|m| m.functions[1].results[0].1 = ResultKind::Update(0))),
        ("function.C5", called(&|m| m.functions[1].arguments[0].1 = ArgumentKind::State { initial: None })),
        ("function.C6", called(&|m| make_fresh_symbol(&mut m.functions[1].graph))),
        ("module.C3", called(&|m| m.functions[1].visibility = Visibility::Entry)),
        ("module.C3", called(&|m| drop(m.functions.pop()))),
        ("module.C3", called(&|m| m.functions[1].graph.results.clear())),
        ("module.C4", called(&|m| call(&mut m.functions[1].graph, ValueId(0), ValueId(1)))),
        ("module.C5", called(&|m| m.functions[1].arguments[0].1 = ArgumentKind::Weight)),
        ("symbol.C1", symbol("two words", SymbolInfo::default())),
        ("symbol.C2", symbol("s0", SymbolInfo { min: 3, max: Some(2), divisor: 1 })),
        ("symbol.C2", symbol("s0", SymbolInfo { min: 0, max: None, divisor: 0 })),
    ];
    for (label, module) in &cases {
        let found = diagnose(module);
        let hit = found.iter().find(|d| d.code == *label);
        let text = LABELS.iter().find(|(l, _)| l == label).map(|(_, t)| *t);
        let said = hit.is_some_and(|d| text.is_some_and(|t| d.message.contains(t)));
        // Sizes are checked by inference too, whose message is its own.
        assert!(said || (hit.is_some() && label.starts_with("type.")), "{label}: {found:?}");
        assert!(verify(module).is_err(), "{label}");
    }
    let untested: Vec<_> =
        LABELS.iter().filter(|(label, _)| !cases.iter().any(|(l, _)| l == label)).collect();
    assert!(untested.is_empty(), "labels without a negative test: {untested:?}");
}

fn weight_of(value: f32) -> Weight {
    Weight::with_data(TensorData::from_f32(&[4], &[value; 4]).expect("four"))
}

fn weight_symbolic() -> Weight {
    Weight { ty: TensorType::new(DType::F32, [Dim::symbol("s0")]), data: None }
}

/// A body of `depth` regions inside each other.
fn nested(depth: usize) -> Graph {
    let mut g = Graph::new();
    let c = g.add_argument(TensorType::scalar(DType::Bool));
    let x = g.add_argument(TensorType::new(DType::F32, [Dim::symbol("s0"), Dim::from(4)]));
    if depth > 0 {
        let inner = nested(depth - 1);
        let types = [g.ty(c).clone(), g.ty(x).clone()];
        let mut outer = Graph::new();
        let args: Vec<ValueId> = types.iter().map(|t| outer.add_argument(t.clone())).collect();
        let regions = vec![inner, Graph::new()];
        let location = Location::default();
        outer.push(OpKind::If, args, Attrs::new(), regions, vec![], location);
        return outer;
    }
    g
}

#[test]
fn places_name_function_operation_and_source() {
    let mut m = sample();
    let g = &mut m.functions[0].graph;
    let op = g.ops[1].as_mut().expect("add");
    op.location = Location { scope: Some("layers.0".into()), source: Some(("m.py".into(), 7)) };
    op.attrs = crate::attrs! { axis: 0i64 };
    let error = verify(&m).expect_err("add has no attributes");
    assert_eq!(error.code, "op.attrs");
    assert_eq!(error.place, ["function 'main'", "op 1 'djinn.add' in layers.0 at m.py:7"]);
}
