//! Regions are self-contained, equal for equal layers, and compute what the program computes.

use djinn_ir::{Attrs, DType, Dim, Module, OpKind, TensorData, TensorType, Weight};
use djinn_plan::{DeviceId, Engine, Entry, Kernel, KernelId, SymbolRange, ValueRef};
use djinn_srg::{Origin, SrgBuilder, lower};
use djinn_tensorrt::{ArgumentSource, Precision, Region};
use std::collections::BTreeMap;

/// Two equal layers with weights of their own: x·w + 2.
fn module() -> Module {
    let mut b = SrgBuilder::new("main");
    let mut y = b.input("x", TensorType::new(DType::F32, [Dim::symbol("n"), Dim::from(4i64)]));
    for layer in 0..2 {
        b.set_origin(Origin { scope: Some(format!("layers.{layer}").into()), ..Origin::default() });
        let values: Vec<f32> = (0..16).map(|i| (i + layer * 7) as f32 * 0.1 - 0.5).collect();
        let data = TensorData::from_f32(&[4, 4], &values).expect("16 values");
        let w = b.weight(&format!("w{layer}"), Weight::with_data(data)).expect("a weight");
        let two = b.constant(TensorData::from_f32(&[], &[2.0]).expect("one value")).expect("a literal");
        let product = b.op(OpKind::MatMul, &[y, w], Attrs::new()).expect("it fits");
        y = b.op(OpKind::Add, &[product, two], Attrs::new()).expect("it fits");
    }
    b.output("y", y);
    lower(&b.finish().expect("a program")).expect("a module")
}

/// A plan of it: a kernel for every operation that computes, all in one engine.
fn planned(module: &Module) -> (Entry, Engine) {
    let function = &module.functions[0];
    let runs = |kind| matches!(kind, OpKind::MatMul | OpKind::Add);
    let ops: Vec<u32> =
        (0..).zip(function.graph.ops()).filter(|(_, (_, op))| runs(op.kind)).map(|(n, _)| n).collect();
    let mut entry = Entry::empty("main");
    entry.symbols.push(SymbolRange { name: "n".into(), min: 0, max: 8 });
    let kernel = |op: &u32| Kernel {
        name: "kernel".into(),
        ops: vec![*op],
        engine: Some(0),
        reads: Vec::new(),
        writes: Vec::new(),
        workspace: None,
        seconds: 1.0,
        flops: 1.0,
        traffic: 1.0,
        share: 1.0,
    };
    entry.kernels = ops.iter().map(kernel).collect();
    let engine = Engine {
        number: 0,
        device: DeviceId(0),
        kernels: (0..ops.len() as u32).map(KernelId).collect(),
        inputs: vec![ValueRef::Argument(0)],
        outputs: vec![ValueRef::Result { op: *ops.last().expect("there are some"), index: 0 }],
        ops,
        bytes_in: 0,
        bytes_out: 0,
        weight_bytes: 0,
        seconds: 4.0,
        flops: 4.0,
        ends: Vec::new(),
    };
    (entry, engine)
}

fn layer(module: &Module, entry: &Entry, engine: &Engine, number: usize) -> Region {
    Region::of_kernels(module, entry, engine, &engine.kernels[2 * number..2 * number + 2]).expect("a region")
}

fn evaluate(module: &Module, function: &str, inputs: &BTreeMap<String, TensorData>) -> Vec<TensorData> {
    let outputs = djinn_interp::run(module, function, inputs).expect("it evaluates");
    outputs.outputs.into_iter().map(|(_, value)| value).collect()
}

#[test]
fn equal_layers_are_equal_regions() {
    let module = module();
    let (entry, engine) = planned(&module);
    let [first, second] = [0, 1].map(|n| layer(&module, &entry, &engine, n));
    assert_eq!(first.key(), second.key());
    djinn_ir::verify::verify(&first.module).expect("a module");
    let names: Vec<&str> = first.arguments.iter().map(|a| &*a.name).collect();
    assert_eq!(names, ["i0", "w0"]);
    // Each is bound to values of its own.
    assert_ne!(first.arguments[1].source, second.arguments[1].source);
    assert!(matches!(second.arguments[0].source, ArgumentSource::Input(ValueRef::Result { .. })));
    let whole = Region::of_engine(&module, &entry, &engine).expect("a region");
    assert_ne!(whole.key(), first.key());
    assert_eq!(whole.arguments.len(), 3);
    assert_eq!(whole.symbols.len(), 1);
    assert_eq!((whole.symbols[0].min, whole.symbols[0].max), (1, 8), "engines do not run on empty tensors");
}

#[test]
fn a_different_literal_is_a_different_region() {
    let module = module();
    let (entry, engine) = planned(&module);
    let key = Region::of_engine(&module, &entry, &engine).expect("a region").key();
    let text = djinn_ir::text::print_module(&module);
    let changed = djinn_ir::text::parse_module(&text.replacen("2.0", "3.0", 1));
    if let Ok(changed) = changed {
        let other = Region::of_engine(&changed, &entry, &engine).expect("a region").key();
        assert_ne!(key, other);
    }
    let mut wider = entry.clone();
    wider.symbols[0].max = 16;
    assert_ne!(key, Region::of_engine(&module, &wider, &engine).expect("a region").key());
}

#[test]
fn regions_compute_what_the_program_does() {
    let module = module();
    let (entry, engine) = planned(&module);
    let x = TensorData::from_f32(&[2, 4], &[0.5, -1.0, 2.0, 3.0, 0.0, 1.0, -2.0, 0.25]).expect("8 values");
    let expected = evaluate(&module, "main", &BTreeMap::from([("x".to_owned(), x.clone())]));
    let mut value = x;
    for number in 0..2 {
        let region = layer(&module, &entry, &engine, number);
        let weight = module.weights[&*format!("w{number}")].data.clone().expect("values").1;
        let inputs = BTreeMap::from([("i0".to_owned(), value), ("w0".to_owned(), weight)]);
        value = evaluate(&region.module, "region", &inputs).remove(0);
    }
    assert_eq!(value, expected[0]);
}

#[test]
fn precision_is_in_the_graph_and_its_error_can_be_seen() {
    let module = module();
    let (entry, engine) = planned(&module);
    let region = Region::of_engine(&module, &entry, &engine).expect("a region");
    let casts = |r: &Region| r.graph().ops().filter(|(_, op)| op.kind == OpKind::Cast).count();
    assert_eq!(casts(&Precision::keep().apply(&region).expect("nothing changes")), 0);
    let narrow = Precision::f16().apply(&region).expect("casts");
    djinn_ir::verify::verify(&narrow.module).expect("a module");
    assert!(casts(&narrow) >= 6, "two products with three casts each");
    assert_ne!(narrow.key(), region.key());
    let scoped = Precision { scopes: vec![("layers.1".into(), None)], ..Precision::f16() };
    assert_eq!(casts(&scoped.apply(&region).expect("casts")), 3);
    // Of a fixed size, so that all inputs are there.
    let x = TensorData::from_f32(&[1, 4], &[0.3, -1.7, 2.1, 3.3]).expect("4 values");
    let weight = |n: usize| module.weights[&*format!("w{n}")].data.clone().expect("values").1;
    let mut inputs = BTreeMap::from([("i0".to_owned(), x)]);
    for argument in &region.arguments[1..] {
        let n = usize::from(argument.source != region.arguments[1].source);
        inputs.insert(argument.name.to_string(), weight(n));
    }
    let exact = evaluate(&region.module, "region", &inputs);
    let rounded = evaluate(&narrow.module, "region", &inputs);
    let error = |i| (exact[0].get_f64(i).expect("a float") - rounded[0].get_f64(i).expect("a float")).abs();
    let worst = (0..4).map(error).fold(0.0, f64::max);
    assert!(worst > 0.0 && worst < 0.02, "{worst}");
}

#[test]
fn a_size_that_no_shape_gives_is_an_argument() {
    let mut b = SrgBuilder::new("main");
    for symbol in ["n", "m"] {
        b.declare_symbol(symbol, djinn_ir::SymbolInfo { min: 1, max: Some(8), divisor: 1 });
    }
    let x = b.input("x", TensorType::new(DType::F32, [Dim::symbol("n"), Dim::ONE]));
    let shape = vec![Dim::symbol("n"), Dim::symbol("m")];
    let y = b.op(OpKind::Broadcast, &[x], Attrs::new().with("shape", shape)).expect("it fits");
    b.output("y", y);
    let module = lower(&b.finish().expect("a program")).expect("a module");
    let region = Region::of_function(&module, "main").expect("a region");
    assert_eq!(&*region.arguments[1].name, "n1");
    assert_eq!(region.arguments[1].source, ArgumentSource::Size(1));
    let x = TensorData::from_f32(&[2, 1], &[1.0, 2.0]).expect("2 values");
    let m = TensorData::new(DType::Bool, vec![3], vec![0u8; 3]).expect("3 values");
    let inputs = BTreeMap::from([("i0".to_owned(), x), ("n1".to_owned(), m)]);
    assert_eq!(evaluate(&region.module, "region", &inputs)[0].shape(), [2, 3]);
}
