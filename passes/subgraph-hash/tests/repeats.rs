//! The pass `repeats` marks layers and nothing else; hashes of engines say which of them one engine serves.

use djinn_ir::{
    ArgumentKind, Attrs, DType, Function, Graph, Module, OpId, OpKind, ResultKind, TensorData, TensorType,
    ValueId, Visibility, Weight, attrs, text, weight_attrs,
};
use djinn_pass::{PassContext, PassOptions};
use djinn_subgraph_hash::{REPEATS, engine_hash, make_repeats, same_engine};

fn op(g: &mut Graph, kind: OpKind, operands: &[ValueId], attrs: Attrs) -> ValueId {
    g.build1(kind, operands, attrs).expect("well typed")
}

fn weight(m: &mut Module, g: &mut Graph, sizes: &[i64]) -> ValueId {
    let name = format!("w{}", m.weights.len());
    let weight = Weight { ty: TensorType::of(DType::F32, sizes), data: None };
    let v = op(g, OpKind::Weight, &[], weight_attrs(&name, &weight));
    m.weights.insert(name.into(), weight);
    v
}

fn literal(g: &mut Graph, value: f64, count: usize) -> ValueId {
    let data = TensorData::splat(DType::F32, &[count], value).expect("fits");
    op(g, OpKind::Constant, &[], Attrs::new().with("value", data))
}

/// A perceptron of layers with so many products; every layer multiplies by its own number.
fn layers(products: &[usize], number: impl Fn(usize) -> (f64, usize)) -> Module {
    let mut m = Module::default();
    let mut g = Graph::new();
    let mut x = g.add_argument(TensorType::of(DType::F32, &[4, 8]));
    x = op(&mut g, OpKind::Exp, &[x], Attrs::new());
    for (layer, products) in products.iter().enumerate() {
        let (value, count) = number(layer);
        let scale = literal(&mut g, value, count);
        let residual = x;
        for i in 0..6 {
            if i < *products {
                let w = weight(&mut m, &mut g, &[8, 8]);
                x = op(&mut g, OpKind::MatMul, &[x, w], Attrs::new());
            } else {
                x = op(&mut g, OpKind::Sigmoid, &[x], Attrs::new());
            }
            let bias = weight(&mut m, &mut g, &[8]);
            x = op(&mut g, OpKind::Add, &[x, bias], Attrs::new());
        }
        if count == 1 {
            x = op(&mut g, OpKind::Mul, &[x, scale], Attrs::new());
        } else {
            let rows = op(
                &mut g,
                OpKind::Reshape,
                &[scale],
                attrs! { shape: vec![djinn_ir::Dim::from(32), djinn_ir::Dim::from(8)] },
            );
            let rows = op(&mut g, OpKind::ReduceSum, &[rows], attrs! { axes: vec![0i64], keepdims: true });
            x = op(&mut g, OpKind::Mul, &[x, rows], Attrs::new());
        }
        x = op(&mut g, OpKind::Add, &[x, residual], Attrs::new());
    }
    let y = op(&mut g, OpKind::Tanh, &[x], Attrs::new());
    g.results = vec![y];
    let function = Function {
        name: "main".into(),
        visibility: Visibility::Entry,
        graph: g,
        arguments: vec![("x".into(), ArgumentKind::Input)],
        results: vec![("y".into(), ResultKind::Output)],
    };
    Module { functions: vec![function], ..m }
}

fn run(module: &mut Module, options: &[(&str, &str)]) -> PassContext {
    let given: Vec<(String, String)> =
        options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let options = PassOptions::new(&REPEATS, &given).expect("options");
    let pass = make_repeats(&options).expect("options");
    let mut cx = PassContext { pass: "repeats".into(), ..PassContext::new() };
    pass.run(module, &mut cx).expect("runs");
    cx
}

/// The operations of every instance.
fn marked(module: &Module) -> Vec<Vec<OpId>> {
    let mut out: Vec<Vec<OpId>> = Vec::new();
    for (id, op) in module.functions[0].graph.ops() {
        if let Some(n) = op.annotated_int("repeat").and_then(|n| usize::try_from(n).ok()) {
            out.resize(out.len().max(n + 1), Vec::new());
            out[n].push(id);
        }
    }
    out
}

#[test]
fn layers_are_numbered_in_order_and_nothing_else_changes() {
    let mut module = layers(&[4; 5], |_| (2.0, 1));
    let before = text::print_module(&module);
    let cx = run(&mut module, &[]);
    assert_eq!(cx.statistics.get("repeats", "instances"), 5);
    let found = marked(&module);
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [14; 5]);
    assert!(found.windows(2).all(|w| w[0].last() < w[1].first()), "{found:?}");
    let after = text::print_module(&module);
    let plain: String = (0..5).fold(after.clone(), |t, i| {
        t.replace(&format!("djinn.repeat = {i} : i64, "), "")
            .replace(&format!("djinn.repeat = {i} : i64"), "")
    });
    assert_eq!(plain.matches("djinn.").count(), before.matches("djinn.").count());
    run(&mut module, &[]);
    assert_eq!(text::print_module(&module), after, "a second run changes nothing");
}

#[test]
fn what_is_too_small_for_an_engine_is_not_marked() {
    let mut few_products = layers(&[1; 5], |_| (2.0, 1));
    let cx = run(&mut few_products, &[]);
    assert!(marked(&few_products).is_empty());
    assert!(cx.remarks.iter().any(|r| r.message.contains("too few for an engine")), "{:?}", cx.remarks);
    let mut few_operations = layers(&[4; 5], |_| (2.0, 1));
    run(&mut few_operations, &[("min-ops", "90")]);
    assert!(marked(&few_operations).is_empty());
    let mut alone = layers(&[4], |_| (2.0, 1));
    run(&mut alone, &[]);
    assert!(marked(&alone).is_empty());
}

#[test]
fn several_kinds_of_layers_are_numbered_together() {
    let mut module = layers(&[4, 4, 4, 6, 6, 6], |_| (2.0, 1));
    run(&mut module, &[]);
    let found = marked(&module);
    assert_eq!(found.len(), 6, "{found:?}");
    let graph = &module.functions[0].graph;
    let hashes: Vec<_> = found.iter().map(|ops| engine_hash(graph, ops)).collect();
    assert!(hashes[0] == hashes[1] && hashes[1] == hashes[2] && hashes[3] == hashes[4]);
    assert_ne!(hashes[0], hashes[3]);
    let same = same_engine((graph, &found[3]), (graph, &found[5])).expect("the same");
    assert_eq!(same.ops.len(), found[3].len());
    assert!(same_engine((graph, &found[0]), (graph, &found[3])).is_none());
}

/// Weights and large literals are given to an engine, small literals are part of it.
#[test]
fn engines_have_small_literals_by_value() {
    let hashes = |number: &dyn Fn(usize) -> (f64, usize)| {
        let mut module = layers(&[4; 3], number);
        run(&mut module, &[]);
        let graph = &module.functions[0].graph;
        marked(&module).iter().map(|ops| engine_hash(graph, ops)).collect::<Vec<_>>()
    };
    let all_same = |h: &[djinn_subgraph_hash::RegionHash]| h.len() == 3 && h.iter().all(|x| *x == h[0]);
    assert!(all_same(&hashes(&|_| (2.0, 1))));
    assert!(!all_same(&hashes(&|layer| (layer as f64, 1))));
    assert!(all_same(&hashes(&|layer| (layer as f64, 256))));
    assert_ne!(hashes(&|_| (2.0, 1))[0], hashes(&|_| (3.0, 1))[0]);
}

#[test]
fn annotations_and_numbers_do_not_count() {
    let mut module = layers(&[4; 2], |_| (2.0, 1));
    run(&mut module, &[]);
    let found = marked(&module);
    let graph = &mut module.functions[0].graph;
    let before = engine_hash(graph, &found[0]);
    graph.annotate(found[0][3], "device", "gpu1");
    assert_eq!(engine_hash(graph, &found[0]), before);
    let mut backwards = found[0].clone();
    backwards.reverse();
    assert_eq!(engine_hash(graph, &backwards), before);
    assert_ne!(engine_hash(graph, &found[0][1..]), before);
}
