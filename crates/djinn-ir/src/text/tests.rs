use super::*;
use crate::dim::{Dim, Symbol, SymbolInfo};
use crate::dtype::DType;
use crate::graph::{
    ArgumentKind, Function, Graph, Location, ResultKind, ValueId, Visibility, Weight, weight_attrs,
};
use crate::ops::{OP_TABLE, OpKind};
use crate::types::TensorType;
use crate::verify::verify;
use crate::walk::same_module;
use crate::{Attr, Attrs, attrs};

fn function(name: &str, graph: Graph) -> Function {
    let arguments = (0..graph.arguments.len()).map(|i| (format!("x{i}").into(), ArgumentKind::Input));
    let results = (0..graph.results.len()).map(|i| (format!("y{i}").into(), ResultKind::Output));
    Function {
        name: name.into(),
        visibility: Visibility::Entry,
        arguments: arguments.collect(),
        results: results.collect(),
        graph,
    }
}

/// A module with something of everything that the text form has to carry.
fn sample() -> Module {
    let mut m = Module::default();
    let w = Weight::with_data(TensorData::from_f32(&[2, 2], &[1.0, -0.0, f32::NAN, 1e-7]).expect("four"));
    m.metadata.insert("producer \"x\"\n".into(), "größe \\ 1".into());
    m.symbols.0.insert(Symbol::new("s0"), SymbolInfo { min: 1, max: Some(9), divisor: 1 });
    m.symbols.0.insert(Symbol::new("n:[1]"), SymbolInfo { min: 0, max: None, divisor: 8 });
    let mut g = Graph::new();
    let x = g.add_argument(TensorType::new(DType::F32, [Dim::symbol("s0"), Dim::from(2)]));
    let cache = g.add_argument(TensorType::of(DType::F32, &[2, 2]));
    let c = g.add_argument(TensorType::scalar(DType::Bool));
    let v = g.build1(OpKind::Weight, &[], weight_attrs("layer.w", &w)).expect("weight");
    let location = Location { scope: Some("model.layers.0".into()), source: Some(("a b.py".into(), 12)) };
    let mm = g.build(OpKind::MatMul, &[x, v], Attrs::new(), vec![], location).expect("matmul");
    annotate_everything(&mut g, mm);
    let y = g.op(mm).results[0];
    let file_only = Location { scope: None, source: Some(("b.py".into(), 1)) };
    let top = attrs! { axis: 1i64, k: Dim::ONE, largest: true, sorted: false };
    let top = g.build(OpKind::TopK, &[y], top, vec![], file_only).expect("topk");
    let top = g.op(top).results.clone();
    let scope_only = Location { scope: Some("if".into()), source: None };
    let regions = vec![region(OpKind::Exp), region(OpKind::Neg)];
    let op = g.build(OpKind::If, &[c, top[0]], Attrs::new(), regions, scope_only).expect("if");
    let z = g.op(op).results[0];
    g.results = vec![z, top[1], cache];
    let mut f = function("main", g);
    f.arguments[1].1 = ArgumentKind::State { initial: Some("layer.w".into()) };
    f.arguments[2].1 = ArgumentKind::Input;
    f.results[2].1 = ResultKind::Update(1);
    m.functions.push(f);
    m.functions.push(function("constants", constants()));
    m.weights.insert("layer.w".into(), w);
    let absent = Weight { ty: TensorType::of(DType::I8, &[3]), data: None };
    m.weights.insert("absent".into(), absent);
    assert_eq!(verify(&m), Ok(()));
    m
}

fn region(kind: OpKind) -> Graph {
    let mut r = Graph::new();
    let x = r.add_argument(TensorType::new(DType::F32, [Dim::symbol("s0"), Dim::ONE]));
    let y = r.build1(kind, &[x], Attrs::new()).expect("unary");
    r.results = vec![y];
    r
}

fn annotate_everything(g: &mut Graph, op: crate::OpId) {
    g.annotate(op, "int", -5i64);
    g.annotate(op, "float", f64::NEG_INFINITY);
    g.annotate(op, "bool", false);
    g.annotate(op, "phase", "llm_\u{7f}\"decode\"");
    g.annotate(op, "strange name", Vec::<i64>::new());
    g.annotate(op, "ints", vec![i64::MIN, 0]);
    g.annotate(op, "floats", vec![1e-5, -0.0, f64::NAN, 1e300, 0.1]);
    g.annotate(op, "dim", "floordiv(s0 + 1, 2)".parse::<Dim>().expect("dimension"));
    g.annotate(op, "dims", vec![Dim::symbol("s0"), Dim::from(4)]);
    g.annotate(op, "dtype", DType::BF16);
    g.annotate(op, "types", vec![TensorType::new(DType::U8, [Dim::symbol("s0")])]);
    g.annotate(op, "tensor", Attr::Tensor(TensorData::from_i64(&[2], &[1, -2]).expect("two")));
}

/// Constants of every element type and printed form.
fn constants() -> Graph {
    let mut g = Graph::new();
    for dtype in DType::ALL {
        let size = dtype.size();
        for (shape, count) in [(vec![], 1), (vec![2, 3], 6), (vec![5, 5], 25), (vec![0, 2], 0), (vec![1], 1)]
        {
            let bytes: Vec<u8> = (0..count * size).map(|i| (i * 37 % 251) as u8).collect();
            let bytes = if dtype == DType::Bool { bytes.iter().map(|b| b & 1).collect() } else { bytes };
            let data = TensorData::new(dtype, shape.clone(), bytes).expect("sizes fit");
            g.build1(OpKind::Constant, &[], attrs! { value: data }).expect("constant");
        }
        for value in [0.0, 1.0, -0.0, 0.5, f64::NAN, f64::INFINITY, 1e-6] {
            let data = TensorData::splat(dtype, &[3, 2], value).expect("small");
            g.build1(OpKind::Constant, &[], attrs! { value: data }).expect("constant");
        }
    }
    let odd_bool = TensorData::new(DType::Bool, vec![2], vec![2u8, 0]).expect("two");
    g.build1(OpKind::Constant, &[], attrs! { value: odd_bool }).expect("constant");
    g
}

#[test]
fn text_round_trips_byte_for_byte() {
    let m = sample();
    let text = print_module(&m);
    let read = parse_module(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(print_module(&read), text);
    assert_eq!(verify(&read), Ok(()));
    assert!(same_module(&read, &m));
    assert!(read.weights["layer.w"].data.is_none());

    let mut with_bytes = read;
    assert_eq!(attach_weights(&mut with_bytes, &m), 1);
    assert!(with_bytes.weights["layer.w"].data.is_some() && with_bytes.absent.is_empty());
    assert!(same_module(&with_bytes, &m));
}

#[test]
fn small_weights_can_be_inlined() {
    let m = sample();
    let options = PrintOptions { inline_weights_up_to: 16, ..Default::default() };
    let text = print_module_with(&m, &options);
    let read = parse_module(&text).expect("parses");
    assert_eq!(read.weights["layer.w"].data.as_ref().map(|d| d.0), m.weight_hash("layer.w"));
    assert_eq!(print_module_with(&read, &options), text);
    let lie = text.replace("dense<[[1.0", "dense<[[2.0");
    let error = parse_module(&lie).expect_err("the hash is another");
    assert!(error.message.contains("has the hash"), "{error}");
}

#[test]
fn the_documented_form_is_what_is_printed() {
    let mut g = Graph::new();
    let x = g.add_argument(TensorType::new(DType::F32, [Dim::symbol("s0"), Dim::from(8)]));
    let location = Location { scope: Some("layer".into()), source: Some(("m.py".into(), 3)) };
    let op = attrs! { axis: 0i64, start: Dim::ZERO, limit: Dim::ONE, stride: 1i64 };
    let slice = g.build(OpKind::Slice, &[x], op, vec![], location).expect("slice");
    g.annotate(slice, "phase", "forward");
    g.results = g.op(slice).results.clone();
    let m = Module { functions: vec![function("main", g)], ..Module::default() };
    let expected = r#""builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<?x8xf32, ["s0"]>):
    %1 = "djinn.slice"(%0) {axis = 0 : i64, limit = "1", start = "0", stride = 1 : i64, djinn.phase = "forward"} : (tensor<?x8xf32, ["s0"]>) -> tensor<1x8xf32> loc("layer"("m.py":3:1))
    "djinn.return"(%1) : (tensor<1x8xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x0"}], results = [{kind = "output", name = "y0"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
"#;
    assert_eq!(print_module(&m), expected);
    let empty = print_module(&Module::default());
    assert!(empty.contains("^bb0:"));
    assert!(parse_module(&empty).is_ok());
}

#[test]
fn the_spelling_of_mlir_tools_is_read() {
    let text = r#"
// a comment
"builtin.module"() <{}> ({
"#;
    assert!(parse_module(text).is_err());
    let text = r#""builtin.module"() ({ "djinn.func"() ({
      ^bb0(%arg0: tensor<4xf32> loc(unknown)) : // a comment
        %7 : 2 = "djinn.topk" ( %arg0 ) <{axis = 0, k = "1"}> {largest = true, sorted = true}
            : (tensor<4xf32>) -> (tensor<1xf32>, tensor<1xi64>) loc(unknown)
        "djinn.return"(%7#1) : (tensor<1xi64>) -> ()
      }) {sym_name = "f", arguments = [{name = "a", kind = "input"}],
          results = [{name = "r", kind = "output"}]} : () -> () }) : () -> ()"#;
    let m = parse_module(text).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(verify(&m), Ok(()));
    assert_eq!(m.functions[0].graph.results, [ValueId(2)]);
}

#[test]
fn errors_show_line_column_and_caret() {
    let text = print_module(&sample());
    let cases = [
        ("djinn.matmul", "djinn.matmull", "no operation 'djinn.matmull'", "did you mean 'matmul'?"),
        ("largest = true", "largest = 1 : i64", "expected true or false", ""),
        ("largest = true", "huge = true", "'topk' has no attribute 'huge'", "axis, k, largest"),
        ("(%0, %3)", "(%0, %99)", "%99 is not defined here", ""),
        ("%4 = ", "%3 = ", "%3 is defined twice", ""),
        ("-> (tensor", "-> ((tensor", "expected 'tensor'", ""),
        ("tensor<?x2xf32, [\"s0\"]>", "tensor<?x2xf32>", "every '?' needs a size", ""),
        ("tensor<?x2xf32, [\"s0\"]>", "tensor<?x2xq32, [\"s0\"]>", "no element type", ""),
        ("dense<[[0, 37", "dense<[[0, 3700", "no i8 element", ""),
        (": () -> ()\n", ": () ->", "expected '(', found", ""),
    ];
    for (from, to, message, help) in cases {
        let wrong = text.replacen(from, to, 1);
        assert_ne!(wrong, text, "{from}");
        let error = parse_module(&wrong).map(drop).expect_err(to);
        assert_eq!(error.code, "text.parse");
        assert!(error.message.contains(message), "{to}: {error}");
        assert!(error.help.as_deref().unwrap_or_default().contains(help), "{error}");
        assert!(error.place[0].starts_with("line "), "{error}");
        assert!(error.message.ends_with('^'));
    }
    let error = parse_module("\"builtin.module\"() (\n  x").expect_err("x");
    assert_eq!(error.place, ["line 2, column 3"]);
    assert_eq!(error.message, "expected '{', found 'x'\n    x\n    ^");
}

#[test]
fn depth_and_size_are_bounded() {
    let deep = format!("\"builtin.module\"() ({{}}) {{a = {} : () -> ()", "[".repeat(100_000));
    assert!(parse_module(&deep).expect_err("deep").message.contains("nested more than"));
    let regions = "\"djinn.if\"() ({".repeat(10_000);
    let deep = format!("\"builtin.module\"() ({{ \"djinn.func\"() ({{ {regions}");
    assert!(parse_module(&deep).expect_err("deep").message.contains("nested more than"));
    let large = "\"builtin.module\"() ({}) {a = dense<1> : tensor<99999999999xi64>} : () -> ()";
    assert!(parse_module(large).expect_err("large").message.contains("1 GiB"));
}

#[test]
fn every_prefix_is_refused_without_panic() {
    let mut m = sample();
    m.functions.truncate(1);
    let text = print_module(&m);
    let body = text.trim_end();
    for end in 0..body.len() {
        if let Some(prefix) = body.get(..end) {
            assert!(parse_module(prefix).is_err(), "{end}");
        }
    }
}

#[test]
fn mutations_never_panic() {
    let mut m = sample();
    m.functions[1].graph = Graph::new();
    let text = print_module(&m);
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let alphabet = b"\"%(){}[]<>:,x?0189-.\\#^e=ts\xff";
    for _ in 0..4000 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..1 + random(3) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = alphabet[random(alphabet.len())],
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, alphabet[random(alphabet.len())]),
            }
        }
        if let Ok(read) = parse_module(&String::from_utf8_lossy(&bytes)) {
            let _ = verify(&read);
            let printed = print_module(&read);
            let again = parse_module(&printed).unwrap_or_else(|e| panic!("{e}\n{printed}"));
            assert_eq!(print_module(&again), printed);
        }
    }
}

#[test]
fn every_kind_of_the_op_table_can_be_spelled() {
    // No attribute name of the table collides with the prefix of annotations or needs quotes.
    for def in OP_TABLE {
        for a in def.attrs {
            assert!(!a.name.contains('.'), "{}", a.name);
        }
        assert!(def.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
    }
}

#[test]
fn private_functions_and_calls_are_printed_and_read() {
    let mut body = Graph::new();
    let x = body.add_argument(TensorType::of(DType::F32, &[2]));
    body.results = vec![x];
    let mut callee = function("layer", body);
    callee.visibility = Visibility::Private;
    callee.arguments[0].1 = ArgumentKind::Weight;
    let mut g = Graph::new();
    let c = TensorData::from_f32(&[2], &[1.0, 2.0]).expect("two");
    let c = g.build1(OpKind::Constant, &[], attrs! { value: c }).expect("constant");
    let types = vec![g.ty(c).clone()];
    let y = g.build1(OpKind::Call, &[c], attrs! { callee: "layer", types: types }).expect("call");
    g.results = vec![g.build1(OpKind::Transfer, &[y], attrs! { device: "gpu0" }).expect("transfer")];
    let module = Module { functions: vec![function("main", g), callee], ..Module::default() };
    crate::verify::verify(&module).expect("well formed");
    let text = print_module(&module);
    assert!(text.contains(r#"{kind = "weight", name = "x0"}"#), "{text}");
    assert!(text.contains(r#"sym_name = "layer", sym_visibility = "private"}"#), "{text}");
    let again = parse_module(&text).expect("parses");
    assert!(crate::walk::same_module(&module, &again));
    assert_eq!(print_module(&again), text);
    let wrong = text.replace(r#""private""#, r#""public""#);
    assert_eq!(parse_module(&wrong).expect_err("no such word").code, "text.parse");
}

#[test]
fn packed_booleans_of_mlir_are_read() {
    let ty = parse_type("tensor<3x4xi1>").expect("a type");
    let text = "\"builtin.module\"() ({\n\"djinn.func\"() ({\n\
        %0 = \"djinn.constant\"() {value = dense<\"0x310C\"> : tensor<3x4xi1>} : () -> tensor<3x4xi1>\n\
        \"gpu.yield\"(%0) : (tensor<3x4xi1>) -> ()\n\
        }) {arguments = [], results = [{kind = \"output\", name = \"y\"}], sym_name = \"main\"} : () -> ()\n\
        }) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()";
    let module = parse_module(text).expect("it parses");
    let (_, op) = module.functions[0].graph.ops().next().expect("an operation");
    let data = op.attrs.tensor("value").expect("a constant");
    assert_eq!(data.ty(), ty);
    assert_eq!(data.bytes(), [1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1]);
}

#[test]
fn text_for_mlir_is_the_same_module() {
    let text = "\"builtin.module\"() ({\n\"djinn.func\"() ({\n^bb0(%0: tensor<2xf32>):\n\
        %1 = \"djinn.concat\"(%0, %0) {axis = 0 : i64} : (tensor<2xf32>, tensor<2xf32>) -> tensor<4xf32>\n\
        \"djinn.return\"(%1) : (tensor<4xf32>) -> ()\n\
        }) {arguments = [{kind = \"input\", name = \"x\"}], results = [{kind = \"output\", name = \"y\"}], \
        sym_name = \"main\"} : () -> ()\n}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()";
    let module = parse_module(text).expect("it parses");
    let printed = print_module_with(&module, &PrintOptions { for_mlir: true, ..Default::default() });
    assert!(printed.contains("\"djinn.concat_2\"(") && printed.contains("\"gpu.yield\"("), "{printed}");
    assert!(same_module(&parse_module(&printed).expect("it parses"), &module));
    let wrong = printed.replace("concat_2", "concat_3");
    assert!(parse_module(&wrong).expect_err("other counts").message.contains("2 operands"));
}
