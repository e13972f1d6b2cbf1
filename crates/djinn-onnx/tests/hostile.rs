//! Wrong and hostile files: each gives one typed diagnostic.

mod support;

use djinn_onnx_proto::prost::Message;
use djinn_onnx_proto::{
    Bytes, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, data_type,
};
use std::path::Path;
use std::sync::Arc;
use support::*;

fn fails(m: &ModelProto, code: &str, words: &str) {
    match import(m) {
        Ok(_) => panic!("imported, but should fail with {code}"),
        Err(e) => {
            assert!(e.contains(&format!("[{code}]")), "{e}");
            assert!(e.contains(words), "{e}");
            assert!(e.contains("help: "), "no help: {e}");
        }
    }
}

fn abs() -> ModelProto {
    model(20, build(vec![node("Abs", &["x"], &["y"])], vec![f32v("x", &["2"])], vec![untyped("y")], vec![]))
}

/// `x + w` with this tensor as `w`.
fn adding(w: TensorProto) -> ModelProto {
    model(
        20,
        build(vec![node("Add", &["x", "w"], &["y"])], vec![f32v("x", &["2"])], vec![untyped("y")], vec![w]),
    )
}

#[test]
fn empty_and_damaged_bytes() {
    let import = |b: Vec<u8>| djinn_onnx::import(Bytes::from(b), &|_| Ok(None)).map_err(|e| e.code);
    assert_eq!(import(vec![]).err().as_deref(), Some("onnx.empty"));
    assert_eq!(import(b"not a model at all".to_vec()).err().as_deref(), Some("onnx.decode"));
    let mut bytes = abs().encode_to_vec();
    bytes.truncate(bytes.len() - 3);
    assert_eq!(import(bytes).err().as_deref(), Some("onnx.decode"));
}

#[test]
fn every_prefix_and_every_flipped_bit_is_survived() {
    let bytes = abs().encode_to_vec();
    for n in 0..bytes.len() {
        let _ = djinn_onnx::import(Bytes::from(bytes[..n].to_vec()), &|_| Ok(None));
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[n] ^= 1 << bit;
            if let Err(e) = djinn_onnx::import(Bytes::from(flipped), &|_| Ok(None)) {
                assert_ne!(e.culprit, djinn_diag::Culprit::Internal, "{e}");
            }
        }
    }
}

#[test]
fn folders_and_missing_files() {
    let code = |p: &str| djinn_onnx::import_file(Path::new(p)).map_err(|e| e.code).err();
    assert_eq!(code(env!("CARGO_MANIFEST_DIR")).as_deref(), Some("onnx.file"));
    assert_eq!(code("no-such-file.onnx").as_deref(), Some("onnx.file"));
}

#[test]
fn texts_say_what_they_are_not() {
    let e = djinn_onnx::import(Bytes::from_static(b"hello world"), &|_| Ok(None)).expect_err("refused");
    assert!(e.message.starts_with("this is not an ONNX model") && e.message.len() < 200, "{e}");
    assert!(e.help.as_deref().is_some_and(|h| h.contains(".pt2, .onnx, SRG JSON and IR text")), "{e}");
}

#[test]
fn diagnostics_do_not_repeat_the_file_and_stay_short() {
    let path = std::env::temp_dir().join(format!("djinn-onnx-short-{}.onnx", std::process::id()));
    let long = "n".repeat(100_000);
    let nodes = vec![node("Abs", &[&long], &["y"])];
    let bytes = model(20, build(nodes, vec![], vec![untyped("y")], vec![])).encode_to_vec();
    std::fs::write(&path, bytes).expect("written");
    let e = djinn_onnx::import_file(&path).expect_err("refused");
    std::fs::remove_file(&path).expect("removed");
    let text = e.to_string();
    assert!(text.len() < 1000 && !text.contains("djinn-onnx-short"), "{text}");
    let e = djinn_onnx::import_file(Path::new(env!("CARGO_MANIFEST_DIR"))).expect_err("refused");
    assert_eq!(e.message, "not a regular file");
}

#[test]
fn contradictions() {
    let mut w = f32s("w", &[2], &[1.0, 2.0]);
    w.raw_data = Some(Bytes::from_static(&[0; 8]));
    w.float_data = vec![1.0, 2.0];
    fails(&adding(w), "onnx.tensor-data", "both raw data and typed data");
    let mut m = abs();
    m.opset_import.push(OperatorSetIdProto { domain: "ai.onnx".into(), version: 13 });
    fails(&m, "onnx.opset", "has operator sets");
    for kernel in [[5, 5], [-3, 3]] {
        let conv = with(node("Conv", &["x", "w"], &["y"]), vec![ints("kernel_shape", &kernel)]);
        let w = f32s("w", &[1, 1, 3, 3], &[0.0; 9]);
        let g = build(vec![conv], vec![f32v("x", &["1", "1", "8", "8"])], vec![untyped("y")], vec![w]);
        fails(&model(20, g), "onnx.node", "'kernel_shape' is");
    }
    let mut m = abs();
    if let Some(g) = m.graph.as_mut() {
        g.input = vec![f32v("x", &[&"d".repeat(100_000)])];
    }
    fails(&m, "onnx.dim", "longer than 4096");
}

#[test]
fn versions() {
    let mut m = abs();
    m.ir_version = Some(99);
    fails(&m, "onnx.ir-version", "IR version 99");
    m.ir_version = None;
    fails(&m, "onnx.ir-version", "IR version 0");
    fails(&model(29, abs().graph.expect("a graph")), "onnx.opset", "operator set 29");
    let mut m = abs();
    m.opset_import = vec![OperatorSetIdProto { domain: "other".into(), version: 1 }];
    fails(&m, "onnx.opset", "does not say");
}

#[test]
fn names_defined_twice_or_not_at_all() {
    let nodes = vec![node("Abs", &["x"], &["y"]), node("Neg", &["x"], &["y"])];
    fails(
        &model(20, build(nodes, vec![f32v("x", &["2"])], vec![], vec![])),
        "onnx.ssa",
        "'y' is defined twice",
    );
    let nodes = vec![node("Abs", &["x"], &["x"])];
    fails(&model(20, build(nodes, vec![f32v("x", &["2"])], vec![], vec![])), "onnx.cycle", "'x'");
    let nodes = vec![node("Abs", &["q"], &["x"])];
    let inputs = vec![f32v("x", &["2"]), f32v("q", &["2"])];
    fails(&model(20, build(nodes, inputs, vec![], vec![])), "onnx.ssa", "'x' is defined twice");
    let nodes = vec![node("Abs", &["nowhere"], &["y"])];
    fails(&model(20, build(nodes, vec![], vec![], vec![])), "onnx.undefined", "'nowhere'");
    let mut m = abs();
    if let Some(g) = m.graph.as_mut() {
        g.output.push(untyped("z"));
    }
    fails(&m, "onnx.undefined", "'z'");
}

#[test]
fn cycles() {
    let nodes = vec![node("Abs", &["b"], &["a"]), node("Neg", &["a"], &["b"])];
    fails(&model(20, build(nodes, vec![], vec![untyped("a")], vec![])), "onnx.cycle", "through the value");
}

#[test]
fn recursive_functions() {
    let mut call = node("F", &["a"], &["b"]);
    call.domain = "local".into();
    let mut m = abs();
    m.functions.push(function("F", &["a"], &["b"], vec![call.clone()]));
    call.input = vec!["x".into()];
    if let Some(g) = m.graph.as_mut() {
        g.node.push(call);
    }
    fails(&m, "onnx.function", "calls itself");
}

#[test]
fn functions_that_explode() {
    // Each of 40 functions calls the one before it twice.
    let mut m = abs();
    m.functions.push(function("F0", &["a"], &["b"], vec![node("Abs", &["a"], &["b"])]));
    for i in 1..40 {
        let mut first = node(&format!("F{}", i - 1), &["a"], &["m"]);
        let mut second = node(&format!("F{}", i - 1), &["m"], &["b"]);
        first.domain = "local".into();
        second.domain = "local".into();
        m.functions.push(function(&format!("F{i}"), &["a"], &["b"], vec![first, second]));
    }
    let mut call = node("F39", &["x"], &["z"]);
    call.domain = "local".into();
    if let Some(g) = m.graph.as_mut() {
        g.node.push(call);
    }
    fails(&m, "onnx.size", "more than");
}

#[test]
fn deep_nesting() {
    let mut g = build(vec![node("Abs", &["x"], &["y"])], vec![], vec![untyped("y")], vec![]);
    for _ in 0..60 {
        let n =
            with(node("If", &["c"], &["y"]), vec![graph("then_branch", g.clone()), graph("else_branch", g)]);
        g = build(vec![n], vec![], vec![untyped("y")], vec![]);
        // Only one branch stays deep, so that the file stays small.
        if let Some(a) = g.node[0].attribute.get_mut(1) {
            let leaf = build(vec![node("Abs", &["x"], &["y"])], vec![], vec![untyped("y")], vec![]);
            *a = graph("else_branch", leaf);
        }
    }
    g.input = vec![f32v("x", &["2"]), value("c", data_type::BOOL, &[])];
    fails(&model(20, g), "onnx.nesting", "subgraphs are nested too deeply");
}

#[test]
fn tensors_whose_size_and_data_disagree() {
    let mut w = f32s("w", &[2], &[1.0, 2.0]);
    w.raw_data = Some(Bytes::from_static(&[0; 7]));
    fails(&adding(w.clone()), "onnx.tensor-data", "needs 8 bytes of data, but has 7");
    w.dims = vec![i64::MAX, 4];
    fails(&adding(w.clone()), "onnx.tensor-shape", "overflows");
    w.dims = vec![-2];
    fails(&adding(w.clone()), "onnx.tensor-shape", "negative size -2");
    w.data_type = Some(77);
    fails(&adding(w.clone()), "onnx.dtype", "77 is no ONNX element type");
    w.data_type = Some(data_type::STRING);
    fails(&adding(w.clone()), "onnx.dtype", "string");
    w = i64s("w", &[1 << 40], &[1, 2]);
    fails(&adding(w), "onnx.tensor-data", "needs");
}

#[test]
fn negative_sizes_and_unknown_ranks_of_inputs() {
    let mut m = abs();
    if let Some(g) = m.graph.as_mut() {
        g.input = vec![f32v("x", &["-7"])];
    }
    fails(&m, "onnx.dim", "negative size -7");
    if let Some(g) = m.graph.as_mut() {
        g.input = vec![f32v("x", &["4611686018427387904", "4611686018427387904"])];
    }
    fails(&m, "onnx.dim", "overflows");
    if let Some(g) = m.graph.as_mut() {
        g.input = vec![untyped("x")];
    }
    fails(&m, "onnx.input-type", "no known rank");
    if let Some(g) = m.graph.as_mut() {
        g.input = vec![f32v("x", &["?"; 1000])];
    }
    fails(&m, "onnx.rank", "axes");
}

#[test]
fn contradicting_types() {
    let mut m = abs();
    if let Some(g) = m.graph.as_mut() {
        g.output = vec![f32v("y", &["2", "1"])];
    }
    fails(&m, "onnx.type", "'y' is declared as f32 of rank 2");
    if let Some(g) = m.graph.as_mut() {
        g.output = vec![value("y", data_type::DOUBLE, &["2"])];
    }
    fails(&m, "onnx.type", "f64");
}

#[test]
fn wrong_attributes_and_operands() {
    let one = |n| model(20, build(vec![n], vec![f32v("x", &["2"])], vec![untyped("y")], vec![]));
    fails(&one(with(node("Softmax", &["x"], &["y"]), vec![int("axis", 5)])), "onnx.axis", "axis 5");
    fails(
        &one(with(node("Softmax", &["x"], &["y"]), vec![float("axis", 1.0)])),
        "onnx.attribute",
        "must be an integer",
    );
    fails(&one(node("Add", &["x"], &["y"])), "onnx.operands", "operand 1 of 'Add' is missing");
    let e = import(&one(node("MatMul", &["x", "w"], &["y"]))).err().unwrap_or_default();
    assert!(e.contains("node 0 'the MatMul' (MatMul)"), "{e}");
}

#[test]
fn unsupported_operators_say_what_to_do() {
    let m = model(
        20,
        build(vec![node("Unique", &["x"], &["y"])], vec![f32v("x", &["2"])], vec![untyped("y")], vec![]),
    );
    fails(&m, "onnx.op", "Unique (domain ai.onnx, version 20)");
}

fn external(location: &str, offset: &str) -> TensorProto {
    let entry = |k: &str, v: &str| StringStringEntryProto { key: k.into(), value: v.into() };
    let mut w = f32s("w", &[2], &[]);
    w.raw_data = None;
    w.data_location = Some(1);
    w.external_data = vec![entry("location", location), entry("offset", offset)];
    w
}

#[test]
fn external_data_windows() {
    let bytes = |m: &ModelProto| Bytes::from(m.encode_to_vec());
    let source =
        |_: &str| -> djinn_diag::Result<Option<djinn_onnx::ByteSource>> { Ok(Some(Arc::new(vec![0u8; 12]))) };
    let imported = djinn_onnx::import(bytes(&adding(external("w.bin", "4"))), &source);
    assert_eq!(imported.map(|i| i.report.weights_without_values).ok(), Some(0));
    for (offset, words) in
        [("8", "lies beyond"), ("-1", "no valid offset"), ("18446744073709551615", "lies beyond")]
    {
        let e =
            djinn_onnx::import(bytes(&adding(external("w.bin", offset))), &source).expect_err("must fail");
        assert_eq!(e.code, "onnx.external-data");
        assert!(e.message.contains(words), "{e}");
    }
}

#[test]
fn external_data_stays_in_the_folder() {
    let folder = std::env::temp_dir().join(format!("djinn-onnx-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let code = |location: &str| {
        let path = folder.join("m.onnx");
        std::fs::write(&path, adding(external(location, "0")).encode_to_vec()).expect("written");
        djinn_onnx::import_file(&path).map(|i| i.report.weights_without_values).map_err(|e| e.code)
    };
    let refused = || Err("onnx.external-data".to_owned());
    assert_eq!(code("../w.bin"), refused());
    assert_eq!(code("/etc/hostname"), refused());
    assert_eq!(code(""), refused());
    assert_eq!(code("missing.bin"), Ok(1));
    std::fs::write(folder.join("w.bin"), [0u8; 8]).expect("written");
    assert_eq!(code("w.bin"), Ok(0));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(folder.join("w.bin"), folder.join("link.bin")).expect("linked");
        assert_eq!(code("link.bin"), refused());
    }
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn damaged_gzip() {
    let path = std::env::temp_dir().join(format!("djinn-onnx-test-{}.onnx.gz", std::process::id()));
    std::fs::write(&path, [0x1f, 0x8b, 8, 0, 1, 2, 3]).expect("written");
    let code = djinn_onnx::import_file(&path).map_err(|e| e.code).err();
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(code.as_deref(), Some("onnx.gzip"));
}

#[test]
fn ranks_and_size_expressions_that_explode() {
    // Each gather of a value by itself adds up ranks.
    let mut nodes = vec![with(node("Cast", &["x"], &["v0"]), vec![int("to", i64::from(data_type::INT64))])];
    nodes.extend((0..12).map(|i| {
        let v = format!("v{i}");
        node("Gather", &[&v, &v], &[&format!("v{}", i + 1)])
    }));
    let m = model(20, build(nodes, vec![f32v("x", &["1", "1"])], vec![untyped("v12")], vec![]));
    fails(&m, "onnx.rank", "more than 64 axes");
    // Each pooling halves a symbolic size that nothing simplifies.
    let pool = |i: usize| {
        with(
            node("MaxPool", &[&format!("x{i}")], &[&format!("x{}", i + 1)]),
            vec![ints("kernel_shape", &[3]), ints("strides", &[3]), ints("pads", &[1, 1])],
        )
    };
    let nodes = (0..20_000).map(pool).collect();
    let m = model(20, build(nodes, vec![f32v("x0", &["1", "1", "s0"])], vec![untyped("x20000")], vec![]));
    fails(&m, "onnx.dim", "grows beyond all bounds");
}

#[test]
fn nested_loops_that_never_settle() {
    // Every level is imported several times until the sizes of its loop-carried values settle.
    let mut body = build(
        vec![
            with(node("Concat", &["v0", "v0"], &["w0"]), vec![int("axis", 0)]),
            node("Identity", &["c0"], &["d0"]),
        ],
        vec![untyped("i0"), untyped("c0"), untyped("v0")],
        vec![untyped("d0"), untyped("w0")],
        vec![],
    );
    for k in 1..28 {
        let name = |s: &str| format!("{s}{k}");
        let inner = with(node("Loop", &["n", "", &name("v")], &[&name("l")]), vec![graph("body", body)]);
        body = build(
            vec![
                inner,
                with(node("Concat", &[&name("l"), &name("v")], &[&name("w")]), vec![int("axis", 0)]),
                node("Identity", &[&name("c")], &[&name("d")]),
            ],
            vec![untyped(&name("i")), untyped(&name("c")), untyped(&name("v"))],
            vec![untyped(&name("d")), untyped(&name("w"))],
            vec![],
        );
    }
    let n = with(node("Loop", &["n", "", "x"], &["y"]), vec![graph("body", body)]);
    let g = build(vec![n], vec![f32v("x", &["2"])], vec![untyped("y")], vec![i64s("n", &[], &[2])]);
    fails(&model(20, g), "onnx.size", "more than");
}
