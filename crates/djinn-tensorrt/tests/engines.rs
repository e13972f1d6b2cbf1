//! Engines of single operations: what is refused is refused by name, everything else builds and has the ports that the
//! region says. Without TensorRT each test says that it is skipped.

use djinn_ir::{Attrs, DType, Dim, Module, OpKind, SymbolInfo, TensorData, TensorType, attrs};
use djinn_srg::{SrgBuilder, lower};
use djinn_tensorrt::{BuildOptions, Engine, Kind, Library, Loaded, PortInfo, Precision, Region, build};

fn library(test: &str) -> Option<Library> {
    match Library::load() {
        Ok(library) => Some(library),
        Err(missing) => {
            println!("{test}: skipped: {missing}");
            None
        }
    }
}

/// A type in short: `f32 2 n 4`.
fn ty(text: &str) -> TensorType {
    let mut words = text.split_whitespace();
    let dtype = DType::from_mlir(words.next().expect("an element type")).expect("a known element type");
    TensorType::new(dtype, words.map(|w| w.parse::<Dim>().expect("a size")))
}

/// A function of one operation.
fn program(kind: OpKind, operands: &[&str], attributes: Attrs) -> Module {
    let mut b = SrgBuilder::new("main");
    for symbol in ["n", "m"] {
        b.declare_symbol(symbol, SymbolInfo { min: 1, max: Some(8), divisor: 1 });
    }
    let values: Vec<_> = operands.iter().enumerate().map(|(i, t)| b.input(&format!("x{i}"), ty(t))).collect();
    let results = b.op_with_regions(kind, &values, attributes, Vec::new());
    let results = results.unwrap_or_else(|e| panic!("{}: {e}", kind.name()));
    results.iter().enumerate().for_each(|(i, r)| b.output(&format!("y{i}"), *r));
    lower(&b.finish().expect("a program")).expect("a module")
}

fn engine(library: &Library, module: &Module) -> djinn_diag::Result<Engine> {
    let region = Region::of_function(module, "main")?;
    let engine = build(library, &region, &BuildOptions::default())?;
    let declared: Vec<&TensorType> = region.graph().results.iter().map(|v| region.graph().ty(*v)).collect();
    assert_eq!(engine.outputs.len(), declared.len());
    for (n, (port, ty)) in engine.outputs.iter().zip(declared).enumerate() {
        assert_eq!((port.name.as_str(), &port.ty), (format!("o{n}").as_str(), ty));
    }
    assert!(!engine.bytes.is_empty());
    Ok(engine)
}

type Sample = (OpKind, Vec<&'static str>, Attrs);

fn elementwise() -> Vec<Sample> {
    use OpKind as K;
    let none = Attrs::new;
    let mut samples = Vec::new();
    for kind in [K::Abs, K::Sign, K::Exp, K::Log, K::Sqrt, K::Rsqrt, K::Reciprocal, K::Sin, K::Tan, K::Atanh]
    {
        samples.push((kind, vec!["f32 n 4"], none()));
    }
    for kind in [K::Erf, K::Sigmoid, K::Tanh, K::Softplus, K::Relu, K::Silu, K::HardSwish, K::Mish, K::Round]
    {
        samples.push((kind, vec!["f16 3 4"], none()));
    }
    for kind in [K::Neg, K::Cos, K::Floor, K::Ceil, K::IsNan] {
        samples.push((kind, vec!["f32"], none()));
    }
    samples.extend([
        (K::Abs, vec!["i64 n"], none()),
        (K::Neg, vec!["i32 n"], none()),
        (K::Sign, vec!["i64 n"], none()),
        (K::Relu, vec!["i32 n"], none()),
        (K::Not, vec!["i1 n 2"], none()),
        (K::Not, vec!["i1"], none()),
        (K::LeakyRelu, vec!["bf16 n"], attrs! { alpha: 0.1 }),
        (K::Elu, vec!["f32 n"], attrs! { alpha: 1.5 }),
        (K::Gelu, vec!["f32 n"], attrs! { approximate: "none" }),
        (K::Gelu, vec!["bf16 n"], attrs! { approximate: "tanh" }),
        (K::HardSigmoid, vec!["f32 n"], attrs! { alpha: 0.2, beta: 0.5 }),
        (K::IsInf, vec!["f32 n"], attrs! { negative: true, positive: true }),
        (K::IsInf, vec!["f16 n"], attrs! { negative: true, positive: false }),
        (K::Cast, vec!["f32 n"], attrs! { to: DType::I64 }),
        (K::Cast, vec!["i64 n"], attrs! { to: DType::Bool }),
        (K::Cast, vec!["i1 n"], attrs! { to: DType::F16 }),
        (K::Cast, vec!["f32"], attrs! { to: DType::BF16 }),
    ]);
    samples
}

fn binary() -> Vec<Sample> {
    use OpKind as K;
    let none = Attrs::new;
    let mut samples = Vec::new();
    for kind in [K::Add, K::Sub, K::Mul, K::Div, K::Min, K::Max] {
        samples.push((kind, vec!["f32 n 1 4", "f32 3 4"], none()));
        samples.push((kind, vec!["i64 n 4", "i64"], none()));
    }
    for kind in [K::And, K::Or, K::Xor] {
        samples.push((kind, vec!["i1 n 4", "i1 4"], none()));
    }
    for predicate in ["eq", "ne", "lt", "le", "gt", "ge"] {
        samples.push((K::Compare, vec!["i64 n", "i64"], attrs! { predicate: predicate }));
        samples.push((K::Compare, vec!["f16 n", "f16 n"], attrs! { predicate: predicate }));
    }
    samples.extend([
        (K::Compare, vec!["i1 n", "i1 n"], attrs! { predicate: "ne" }),
        (K::Mod, vec!["i64 n", "i64 n"], attrs! { fmod: false }),
        (K::Mod, vec!["i32 n", "i32"], attrs! { fmod: true }),
        (K::Pow, vec!["f32 n", "f32"], none()),
        (K::Pow, vec!["f32 n", "i64"], none()),
        (K::Select, vec!["i1 n 1", "f32 4", "f32"], none()),
        (K::Select, vec!["i1 n", "i64 n", "i64 n"], none()),
        (K::Select, vec!["i1 n", "i1 n", "i1 n"], none()),
        (K::Clamp, vec!["f32 n", "f32", "f32"], none()),
        (K::Clamp, vec!["i64 n", "i64", "i64"], none()),
    ]);
    samples
}

fn dims(text: &str) -> Vec<Dim> {
    text.split_whitespace().map(|w| w.parse().expect("a size")).collect()
}

fn movement() -> Vec<Sample> {
    use OpKind as K;
    let pad = |mode: &str| attrs! { low: dims("0 2"), high: dims("0 1"), mode: mode };
    vec![
        (K::Reshape, vec!["f32 n 4"], attrs! { shape: dims("2*n 2") }),
        (K::Reshape, vec!["f32 n m 4"], attrs! { shape: dims("n 2 m 2") }),
        (K::Reshape, vec!["i1 n m"], attrs! { shape: dims("n*m") }),
        (K::Transpose, vec!["i64 n 3 m"], attrs! { perm: vec![2i64, 0, 1] }),
        (K::Broadcast, vec!["f32 n 1"], attrs! { shape: dims("2 n 3") }),
        (K::Broadcast, vec!["i1"], attrs! { shape: dims("n m") }),
        (
            K::Slice,
            vec!["f32 n 6"],
            attrs! { axis: 1i64, start: Dim::from(1i64), limit: Dim::from(6i64), stride: 2i64 },
        ),
        (
            K::Slice,
            vec!["i64 n+2 3"],
            attrs! { axis: 0i64, start: Dim::from(2i64), limit: "n+2".parse::<Dim>().expect("a size"), stride: 1i64 },
        ),
        (K::Reverse, vec!["f32 n 4"], attrs! { axes: vec![0i64, 1] }),
        (K::Concat, vec!["f32 n 4", "f32 m 4"], attrs! { axis: 0i64 }),
        (K::Concat, vec!["i1 n 4", "i1 n 4"], attrs! { axis: 1i64 }),
        (K::Pad, vec!["f32 n 4", "f32"], pad("constant")),
        (K::Pad, vec!["i64 n 4", "i64"], pad("constant")),
        (K::Pad, vec!["f32 n 4", "f32"], pad("reflect")),
        (K::Pad, vec!["f32 n 4", "f32"], pad("edge")),
        (K::Pad, vec!["f32 n 4", "f32"], pad("wrap")),
        (K::Tile, vec!["f32 n 1 2"], attrs! { repeats: dims("1 m 3") }),
        (K::Trilu, vec!["f32 n m"], attrs! { upper: true, k: 1i64 }),
        (K::Trilu, vec!["i1 4 4"], attrs! { upper: false, k: 0i64 }),
        (K::Gather, vec!["f32 n 4", "i64 2 3"], attrs! { axis: 0i64 }),
        (K::Gather, vec!["f32 5 4", "i32"], attrs! { axis: 1i64 }),
        (K::GatherElements, vec!["f32 n 4", "i64 n 2"], attrs! { axis: 1i64 }),
        (K::GatherNd, vec!["f32 n 4 3", "i64 6 2"], attrs! { batch_dims: 0i64 }),
        (K::ScatterNd, vec!["f32 n 4", "i64 3 1", "f32 3 4"], attrs! { reduction: "none" }),
        (K::ScatterElements, vec!["f32 n 4", "i64 n 2", "f32 n 2"], attrs! { axis: 1i64, reduction: "none" }),
        (K::IndexCopy, vec!["f32 2 n 4", "i64 1", "f32 2 1 4"], attrs! { axis: 1i64 }),
        (K::DimExpr, vec![], attrs! { exprs: dims("3 5"), scalar: false }),
        (K::Iota, vec![], attrs! { shape: dims("2 5"), axis: 1i64, dtype: DType::F32 }),
    ]
}

fn reductions() -> Vec<Sample> {
    use OpKind as K;
    let axes = |keep: bool| attrs! { axes: vec![1i64], keepdims: keep };
    let mut samples = Vec::new();
    for kind in [K::ReduceSum, K::ReduceMean, K::ReduceMax, K::ReduceMin, K::ReduceProd] {
        samples.push((kind, vec!["f32 n 4"], axes(true)));
    }
    samples.extend([
        (K::ReduceSum, vec!["i64 n 4"], axes(false)),
        (K::ReduceMax, vec!["i32 n 4"], attrs! { axes: vec![0i64, 1], keepdims: false }),
        (K::CumSum, vec!["f32 n 4"], attrs! { axis: 1i64, exclusive: false, reverse: false }),
        (K::CumSum, vec!["i64 n 4"], attrs! { axis: 1i64, exclusive: true, reverse: true }),
        (K::ArgMax, vec!["f32 n 4"], attrs! { axis: 1i64, keepdims: false, select_last: false }),
        (K::ArgMin, vec!["i64 n 4"], attrs! { axis: 0i64, keepdims: true, select_last: true }),
        (K::TopK, vec!["f32 n 8"], attrs! { axis: 1i64, k: Dim::from(2i64), largest: true, sorted: true }),
        (K::Softmax, vec!["f32 n 4"], attrs! { axis: 1i64 }),
        (K::Softmax, vec!["bf16 n"], attrs! { axis: 0i64 }),
        (K::LogSoftmax, vec!["f32 n 4"], attrs! { axis: 1i64 }),
        (K::LayerNorm, vec!["f32 n 3 4", "f32 4", "f32 4"], attrs! { axis: 2i64, epsilon: 1e-5 }),
        (K::LayerNorm, vec!["bf16 n 4", "bf16 4"], attrs! { axis: 1i64, epsilon: 1e-5 }),
        (K::RmsNorm, vec!["f16 n 4", "f16 4"], attrs! { axis: 1i64, epsilon: 1e-5 }),
        (K::GroupNorm, vec!["f32 n 4 6 6", "f32 4", "f32 4"], attrs! { groups: 2i64, epsilon: 1e-5 }),
        (K::BatchNorm, vec!["f32 n 4 6", "f32 4", "f32 4", "f32 4", "f32 4"], attrs! { epsilon: 1e-5 }),
    ]);
    samples
}

fn contractions() -> Vec<Sample> {
    use OpKind as K;
    let conv = |spatial: usize, pads: Vec<i64>, groups: i64| {
        attrs! { strides: vec![1i64; spatial], pads: pads, dilations: vec![1i64; spatial], groups: groups }
    };
    let pool = |pads: Vec<i64>| {
        attrs! {
            kernel: vec![3i64, 3], strides: vec![2i64, 2], pads: pads, dilations: vec![1i64, 1], ceil_mode: false
        }
    };
    let heads = |causal: bool, q: i64, kv: i64| {
        attrs! { scale: 0.5, causal: causal, causal_offset: Dim::ZERO, query_heads: q, kv_heads: kv }
    };
    let resize = |mode: &str, coordinates: &str| {
        attrs! {
            sizes: dims("1 2 8 8"), scales: vec![1.0f64, 1.0, 2.0, 2.0], mode: mode, coordinates: coordinates,
            nearest: "floor", cubic_a: -0.75, exclude_outside: false
        }
    };
    let lstm = |direction: &str| attrs! { direction: direction, hidden: 4i64 };
    vec![
        (K::MatMul, vec!["f32 n 4", "f32 4 5"], Attrs::new()),
        (K::MatMul, vec!["f16 2 n 4", "f16 4 m"], Attrs::new()),
        (K::MatMul, vec!["f32 n 2 4", "f32 4"], Attrs::new()),
        (K::MatMul, vec!["f32 4", "f32 4"], Attrs::new()),
        (K::Conv, vec!["f32 n 4 8 8", "f32 6 4 3 3", "f32 6"], conv(2, vec![1, 1, 1, 1], 1)),
        (K::Conv, vec!["f16 1 4 8 8", "f16 4 1 3 3"], conv(2, vec![0, 1, 1, 2], 4)),
        (K::Conv, vec!["f32 n 4 8", "f32 6 4 3"], conv(1, vec![1, 1], 1)),
        (
            K::ConvTranspose,
            vec!["f32 n 4 5 5", "f32 4 3 2 2", "f32 3"],
            conv(2, vec![0, 0, 0, 0], 1).with("strides", vec![2i64, 2]).with("output_padding", vec![0i64, 0]),
        ),
        (K::MaxPool, vec!["f32 n 4 9 9"], pool(vec![1, 1, 1, 1])),
        (K::AvgPool, vec!["f32 n 4 9 9"], pool(vec![1, 1, 1, 1]).with("count_include_pad", true)),
        (K::AvgPool, vec!["f16 n 4 9 9"], pool(vec![0, 0, 0, 0]).with("count_include_pad", false)),
        (K::Resize, vec!["f32 1 2 4 4"], resize("linear", "half_pixel")),
        (K::Resize, vec!["f32 1 2 4 4"], resize("nearest", "asymmetric")),
        (K::Resize, vec!["f32 1 2 4 4"], resize("cubic", "half_pixel")),
        (K::Sdpa, vec!["f32 1 4 n 8", "f32 1 2 m 8", "f32 1 2 m 8"], heads(true, 0, 0)),
        (K::Sdpa, vec!["f16 1 2 n 8", "f16 1 2 m 8", "f16 1 2 m 8", "i1 1 1 n m"], heads(false, 0, 0)),
        (K::Sdpa, vec!["f32 2 n 32", "f32 2 n 16", "f32 2 n 16", "f32 n n"], heads(true, 4, 2)),
        (K::Rope, vec!["f32 1 2 n 8", "f32 1 n 4", "f32 1 n 4"], attrs! { interleaved: false, heads: 0i64 }),
        (K::Rope, vec!["f32 2 n 16", "f32 1 n 4", "f32 1 n 4"], attrs! { interleaved: true, heads: 2i64 }),
        (
            K::Lstm,
            vec!["f32 3 2 5", "f32 2 16 5", "f32 2 16 4", "f32 2 32", "f32 2 2 4", "f32 2 2 4"],
            lstm("bidirectional"),
        ),
    ]
}

fn all_build(test: &str, samples: Vec<Sample>) {
    let Some(library) = library(test) else { return };
    let mut failures = Vec::new();
    for (kind, operands, attributes) in samples {
        let module = program(kind, &operands, attributes.clone());
        if let Err(error) = engine(&library, &module) {
            failures.push(format!("{} {operands:?} {attributes:?}: {error}", kind.name()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn elementwise_operations_build() {
    all_build("elementwise_operations_build", elementwise());
}

#[test]
fn operations_on_several_operands_build() {
    all_build("operations_on_several_operands_build", binary());
}

#[test]
fn movements_build() {
    all_build("movements_build", movement());
}

#[test]
fn reductions_and_norms_build() {
    all_build("reductions_and_norms_build", reductions());
}

#[test]
fn contractions_build() {
    all_build("contractions_build", contractions());
}

#[test]
fn what_no_layer_means_is_refused_by_name() {
    let Some(library) = library("what_no_layer_means_is_refused_by_name") else { return };
    let refused: Vec<Sample> = vec![
        (OpKind::Mod, vec!["f32 n", "f32 n"], attrs! { fmod: true }),
        (OpKind::Not, vec!["i32 n"], Attrs::new()),
        (OpKind::ReduceMean, vec!["i64 n 4"], attrs! { axes: vec![1i64], keepdims: true }),
        (OpKind::ScatterNd, vec!["f32 n 4", "i64 3 1", "f32 3 4"], attrs! { reduction: "add" }),
        (OpKind::Shl, vec!["i32 n", "i32 n"], Attrs::new()),
    ];
    for (kind, operands, attributes) in refused {
        let error = engine(&library, &program(kind, &operands, attributes)).expect_err(kind.name());
        assert_eq!(error.code, "tensorrt.operation", "{error}");
        assert!(error.place.iter().any(|p| p.contains(kind.name())), "{error}");
    }
}

#[test]
fn the_library_is_the_one_of_the_bindings() {
    let Some(library) = library("the_library_is_the_one_of_the_bindings") else { return };
    assert_eq!(library.kind(), Kind::Rtx);
    assert_eq!((library.version().0, library.version().1), (1, 7), "{}", library.path().display());
}

#[test]
fn narrow_engines_keep_their_ports() {
    let Some(library) = library("narrow_engines_keep_their_ports") else { return };
    let module = program(OpKind::MatMul, &["f32 n 4", "f32 4 5"], Attrs::new());
    let region = Region::of_function(&module, "main").expect("a region");
    for precision in [Precision::f16(), Precision::bf16()] {
        let narrow = precision.apply(&region).expect("casts");
        let engine = build(&library, &narrow, &BuildOptions::default()).expect("an engine");
        assert!(engine.inputs.iter().chain(&engine.outputs).all(|p| p.ty.dtype == DType::F32));
        assert!(engine.layers.iter().any(|l| l.kind.contains("cast")), "{:?}", engine.layers);
    }
}

#[test]
fn an_unknown_gpu_is_told() {
    let Some(library) = library("an_unknown_gpu_is_told") else { return };
    let region =
        Region::of_function(&program(OpKind::Exp, &["f32 n"], Attrs::new()), "main").expect("a region");
    let options = BuildOptions { compute_capabilities: vec![90], ..BuildOptions::default() };
    assert_eq!(build(&library, &region, &options).expect_err("no such GPU").code, "tensorrt.capability");
    let options = BuildOptions { compute_capabilities: vec![89], ..BuildOptions::default() };
    build(&library, &region, &options).expect("an engine for this GPU");
}

#[test]
fn the_same_region_gives_the_same_network() {
    let Some(library) = library("the_same_region_gives_the_same_network") else { return };
    let module = program(OpKind::Softmax, &["f32 n 4"], attrs! { axis: 1i64 });
    let first = engine(&library, &module).expect("an engine");
    let second = engine(&library, &module).expect("an engine");
    assert_eq!(first.layers, second.layers);
    let _ = TensorData::from_f32(&[], &[0.0]);
}

/// Needs neither a GPU nor a driver: without them the refusal is what is tested.
#[test]
fn engines_load_or_say_why_not() {
    let Some(library) = library("engines_load_or_say_why_not") else { return };
    let module = program(OpKind::Relu, &["f32 n 4"], Attrs::new());
    let built = engine(&library, &module).expect("an engine");
    match Loaded::new(&library, &built.bytes) {
        Ok(loaded) => {
            let names = |ports: &[PortInfo]| ports.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
            assert_eq!(
                (names(loaded.inputs()), names(loaded.outputs())),
                (vec!["i0".into()], vec!["o0".into()])
            );
            assert_eq!(loaded.inputs()[0].shape, [-1, 4]);
        }
        Err(error) => {
            println!("engines_load_or_say_why_not: {error}");
            assert_eq!(error.code, "tensorrt.load");
            assert!(error.help.is_some());
        }
    }
    for wrong in [&[][..], b"no engine", &built.bytes[..built.bytes.len() / 2]] {
        assert_eq!(Loaded::new(&library, wrong).expect_err("refused").code, "tensorrt.load");
    }
}
