//! One or a few cases per operator family, judged by the reference evaluator.

mod support;

use djinn_onnx_proto::{GraphProto, NodeProto, data_type};
use support::*;

/// A model of one node over `x` with these initializers, of operator set 20.
fn single(
    n: NodeProto,
    x: &[&str],
    constants: Vec<djinn_onnx_proto::TensorProto>,
) -> djinn_onnx_proto::ModelProto {
    at_version(20, n, x, constants)
}

fn at_version(
    version: i64,
    n: NodeProto,
    x: &[&str],
    constants: Vec<djinn_onnx_proto::TensorProto>,
) -> djinn_onnx_proto::ModelProto {
    model(version, build(vec![n], vec![f32v("x", x)], vec![untyped("y")], constants))
}

#[test]
fn clip_takes_bounds_from_attributes_or_operands() {
    let x = [("x", t(&[3], &[-2.0, 0.5, 9.0]))];
    let old = at_version(
        7,
        with(node("Clip", &["x"], &["y"]), vec![float("min", -1.0), float("max", 1.0)]),
        &["3"],
        vec![],
    );
    assert_eq!(run(&old, &x), [-1.0, 0.5, 1.0]);
    let new = single(node("Clip", &["x", "", "high"], &["y"]), &["3"], vec![f32s("high", &[], &[1.0])]);
    assert_eq!(run(&new, &x), [-2.0, 0.5, 1.0]);
    assert_eq!(ops(&new), ["constant", "constant", "clamp"]);
}

#[test]
fn softmax_changed_its_axes_in_operator_set_13() {
    let n = || node("Softmax", &["x"], &["y"]);
    assert_eq!(ops(&at_version(12, n(), &["2", "3", "4"], vec![])), ["reshape", "softmax", "reshape"]);
    assert_eq!(ops(&at_version(13, n(), &["2", "3", "4"], vec![])), ["softmax"]);
}

#[test]
fn reshape_resolves_zero_and_minus_one_symbolically() {
    let m = single(
        node("Reshape", &["x", "to"], &["y"]),
        &["s0", "6", "8"],
        vec![i64s("to", &[3], &[0, -1, 16])],
    );
    assert_eq!(result_type(&m, 0), "tensor<?x3x16xf32, [\"s0\"]>");
}

#[test]
fn shape_arithmetic_reaches_reshape() {
    let nodes = vec![
        with(node("Shape", &["x"], &["batch"]), vec![int("start", 0), int("end", 1)]),
        with(node("Concat", &["batch", "rest"], &["to"]), vec![int("axis", 0)]),
        node("Reshape", &["x", "to"], &["y"]),
    ];
    let m = model(
        20,
        build(
            nodes,
            vec![f32v("x", &["n", "4", "4"])],
            vec![f32v("y", &["n", "16"])],
            vec![i64s("rest", &[1], &[-1])],
        ),
    );
    assert_eq!(result_type(&m, 0), "tensor<?x16xf32, [\"n\"]>");
    assert!(ops(&m).contains(&"reshape"));
}

#[test]
fn slices_clamp_wrap_and_go_backwards() {
    let slice = |starts: i64, ends: i64, steps: i64| {
        let c = vec![
            i64s("a", &[1], &[starts]),
            i64s("b", &[1], &[ends]),
            i64s("c", &[1], &[0]),
            i64s("d", &[1], &[steps]),
        ];
        let m = single(node("Slice", &["x", "a", "b", "c", "d"], &["y"]), &["5"], c);
        run(&m, &[("x", counting(&[5]))])
    };
    assert_eq!(slice(1, i64::MAX, 2), [1.0, 3.0]);
    assert_eq!(slice(-2, 100, 1), [3.0, 4.0]);
    assert_eq!(slice(-1, i64::MIN, -2), [4.0, 2.0, 0.0]);
    assert_eq!(slice(3, 0, -1), [3.0, 2.0, 1.0]);
    assert_eq!(slice(4, 2, 1), [] as [f64; 0]);
}

#[test]
fn slices_of_symbolic_sizes_stay_symbolic() {
    let c = || vec![i64s("a", &[1], &[-1]), i64s("b", &[1], &[i64::MAX])];
    let m = single(node("Slice", &["x", "a", "b"], &["y"]), &["s0 + 1"], c());
    assert_eq!(result_type(&m, 0), "tensor<1xf32>");
    let open = vec![i64s("a", &[1], &[1]), i64s("b", &[1], &[i64::MAX])];
    let mut m = single(node("Slice", &["x", "a", "b"], &["y"]), &["s0"], open);
    assert_eq!(result_type(&m, 0), "tensor<?xf32, [\"s0 - min(1, s0)\"]>");
    if let Some(g) = m.graph.as_mut() {
        g.output = vec![f32v("y", &["s0 - 1"])];
    }
    assert_eq!(result_type(&m, 0), "tensor<?xf32, [\"s0 - 1\"]>");
}

#[test]
fn split_without_sizes_makes_the_last_part_smaller() {
    let n = with(node("Split", &["x"], &["p", "y"]), vec![int("num_outputs", 2)]);
    assert_eq!(run(&single(n, &["5"], vec![]), &[("x", counting(&[5]))]), [3.0, 4.0]);
}

#[test]
fn reductions_take_axes_from_attribute_or_operand() {
    let x = [("x", counting(&[2, 3]))];
    let old = with(node("ReduceMax", &["x"], &["y"]), vec![ints("axes", &[-1]), int("keepdims", 0)]);
    assert_eq!(run(&at_version(13, old, &["2", "3"], vec![]), &x), [2.0, 5.0]);
    let new = single(node("ReduceMax", &["x", "a"], &["y"]), &["2", "3"], vec![i64s("a", &[1], &[0])]);
    assert_eq!(run(&new, &x), [3.0, 4.0, 5.0]);
    let noop = with(node("ReduceSum", &["x"], &["y"]), vec![int("noop_with_empty_axes", 1)]);
    assert_eq!(run(&single(noop, &["2", "3"], vec![]), &x).len(), 6);
}

#[test]
fn einsum_covers_products_and_diagonals() {
    let einsum = |equation: &str, inputs: &[&str]| {
        with(node("Einsum", inputs, &["y"]), vec![text("equation", equation)])
    };
    let x = [("x", counting(&[2, 2]))];
    let m = single(einsum("ij,kj->ik", &["x", "x"]), &["2", "2"], vec![]);
    assert_eq!(run(&m, &x), [1.0, 3.0, 3.0, 13.0]);
    assert!(ops(&m).contains(&"matmul"));
    assert_eq!(run(&single(einsum("ii->i", &["x"]), &["2", "2"], vec![]), &x), [0.0, 3.0]);
    assert_eq!(run(&single(einsum("ij->", &["x"]), &["2", "2"], vec![]), &x), [6.0]);
}

#[test]
fn gemm_becomes_primitives() {
    let n = with(node("Gemm", &["x", "w", "c"], &["y"]), vec![int("transB", 1), float("beta", 2.0)]);
    let c = vec![f32s("w", &[1, 2], &[1.0, 1.0]), f32s("c", &[1], &[10.0])];
    let m = single(n, &["2", "2"], c);
    assert_eq!(run(&m, &[("x", counting(&[2, 2]))]), [21.0, 25.0]);
}

#[test]
fn pads_and_pools_resolve_automatic_padding() {
    let n = with(
        node("MaxPool", &["x"], &["y"]),
        vec![ints("kernel_shape", &[2]), ints("strides", &[2]), text("auto_pad", "SAME_UPPER")],
    );
    assert_eq!(run(&single(n, &["1", "1", "3"], vec![]), &[("x", counting(&[1, 1, 3]))]), [1.0, 2.0]);
    let pad = with(node("Pad", &["x", "p"], &["y"]), vec![text("mode", "reflect")]);
    let m = single(pad, &["3"], vec![i64s("p", &[2], &[2, 0])]);
    assert_eq!(run(&m, &[("x", counting(&[3]))]), [2.0, 1.0, 0.0, 1.0, 2.0]);
}

#[test]
fn operands_known_only_at_run_time_use_dynamic_operations() {
    let g = |op: &str, dims: &[&str]| {
        build(
            vec![node(op, &["x", "d"], &["y"])],
            vec![f32v("x", &["2", "3"]), value("d", data_type::INT64, &["2"])],
            vec![f32v("y", dims)],
            vec![],
        )
    };
    assert_eq!(ops(&model(20, g("Reshape", &["?", "?"]))), ["dynamic_reshape"]);
    assert_eq!(ops(&model(20, g("Expand", &["?", "?"]))), ["dynamic_broadcast"]);
    assert_eq!(ops(&model(20, g("Tile", &["?", "?"]))), ["dynamic_tile"]);
}

#[test]
fn attention_with_past_concatenates_and_shifts_causality() {
    let n = with(
        node("Attention", &["x", "x", "x", "", "past", "past"], &["y", "k", "v"]),
        vec![int("is_causal", 1)],
    );
    let inputs = vec![f32v("x", &["1", "2", "s", "4"]), f32v("past", &["1", "2", "p", "4"])];
    let outputs = vec![untyped("y"), untyped("k")];
    let m = model(23, build(vec![n], inputs, outputs, vec![]));
    assert_eq!(ops(&m), ["concat", "concat", "sdpa"]);
    assert_eq!(result_type(&m, 1), "tensor<1x2x?x4xf32, [\"p + s\"]>");
}

#[test]
fn layer_norm_computes_statistics_only_when_read() {
    let plain = single(
        node("LayerNormalization", &["x", "s"], &["y"]),
        &["2", "3"],
        vec![f32s("s", &[3], &[1.0; 3])],
    );
    assert_eq!(ops(&plain), ["weight", "layer_norm"]);
    let all = node("LayerNormalization", &["x", "s"], &["z", "y"]);
    let m = single(all, &["2", "3"], vec![f32s("s", &[3], &[1.0; 3])]);
    assert_eq!(run(&m, &[("x", counting(&[2, 3]))]), [1.0, 4.0]);
}

/// `x` is doubled or negated; both branches read the outer `x` and an outer literal.
fn branches() -> (GraphProto, GraphProto) {
    let then = build(vec![node("Mul", &["x", "two"], &["a"])], vec![], vec![untyped("a")], vec![]);
    let other = build(vec![node("Neg", &["x"], &["b"])], vec![], vec![untyped("b")], vec![]);
    (then, other)
}

#[test]
fn if_takes_captured_values_as_arguments() {
    let (then, other) = branches();
    let n = with(node("If", &["c"], &["y"]), vec![graph("then_branch", then), graph("else_branch", other)]);
    let g = build(
        vec![n],
        vec![f32v("x", &["2"]), value("c", data_type::BOOL, &[])],
        vec![f32v("y", &["2"])],
        vec![f32s("two", &[], &[2.0])],
    );
    let m = model(20, g);
    assert_eq!(ops(&m), ["if"]);
    let flag = |v: u8| djinn_ir::TensorData::new(djinn_ir::DType::Bool, vec![], vec![v]).expect("fits");
    assert_eq!(run(&m, &[("x", counting(&[2])), ("c", flag(1))]), [0.0, 2.0]);
    assert_eq!(run(&m, &[("x", counting(&[2])), ("c", flag(0))]), [0.0, -1.0]);
}

#[test]
fn if_with_a_known_condition_keeps_one_branch() {
    let (then, other) = branches();
    let nodes = vec![
        node("Shape", &["x"], &["s"]),
        node("Equal", &["s", "one"], &["c"]),
        with(node("If", &["c"], &["y"]), vec![graph("then_branch", then), graph("else_branch", other)]),
    ];
    let c = vec![f32s("two", &[], &[2.0]), i64s("one", &[1], &[1])];
    let m = model(20, build(nodes, vec![f32v("x", &["2"])], vec![untyped("y")], c));
    assert!(!ops(&m).contains(&"if"));
    assert_eq!(run(&m, &[("x", counting(&[2]))]), [0.0, -1.0]);
}

#[test]
fn loop_grows_a_carried_value() {
    let body = build(
        vec![
            with(node("Concat", &["v", "x"], &["w"]), vec![int("axis", 0)]),
            node("Identity", &["c"], &["d"]),
        ],
        vec![untyped("i"), untyped("c"), untyped("v")],
        vec![untyped("d"), untyped("w")],
        vec![],
    );
    let n = with(node("Loop", &["n", "", "x"], &["y"]), vec![graph("body", body)]);
    let m =
        model(20, build(vec![n], vec![f32v("x", &["2"])], vec![untyped("y")], vec![i64s("n", &[], &[2])]));
    assert_eq!(run(&m, &[("x", counting(&[2]))]), [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
}

#[test]
fn scan_runs_over_slices() {
    let body = build(
        vec![node("Add", &["acc", "e"], &["next"]), node("Identity", &["next"], &["out"])],
        vec![untyped("acc"), untyped("e")],
        vec![untyped("next"), untyped("out")],
        vec![],
    );
    let n = with(
        node("Scan", &["zero", "x"], &["last", "y"]),
        vec![graph("body", body), int("num_scan_inputs", 1), ints("scan_input_directions", &[1])],
    );
    let m = model(
        20,
        build(vec![n], vec![f32v("x", &["3"])], vec![untyped("y")], vec![f32s("zero", &[], &[0.0])]),
    );
    assert_eq!(run(&m, &[("x", counting(&[3]))]), [2.0, 3.0, 3.0]);
}

#[test]
fn functions_are_inlined_with_their_attributes() {
    let inner = with(
        node("LeakyRelu", &["a"], &["b"]),
        vec![reference("alpha", djinn_onnx_proto::attribute_type::FLOAT, "slope")],
    );
    let mut f = function("Leaky", &["a"], &["b"], vec![inner]);
    f.attribute = vec!["slope".into()];
    let mut call = with(node("Leaky", &["x"], &["y"]), vec![float("slope", 0.5)]);
    call.domain = "local".into();
    let mut m = single(call, &["2"], vec![]);
    m.functions.push(f);
    assert_eq!(run(&m, &[("x", t(&[2], &[-4.0, 4.0]))]), [-2.0, 4.0]);
}

#[test]
fn unknown_operators_are_opaque_if_the_file_types_them() {
    let mut n = with(node("Fancy", &["x", ""], &["y"]), vec![int("k", 3)]);
    n.domain = "com.example".into();
    let m = model(20, build(vec![n], vec![f32v("x", &["2"])], vec![f32v("y", &["7"])], vec![]));
    let (module, report) = lowered(&m);
    assert_eq!(report.opaque.values().sum::<usize>(), 1);
    let graph = &module.functions[0].graph;
    let (_, op) = graph.ops().next().expect("one operation");
    assert_eq!(op.attrs.str("op"), "com.example.Fancy");
    assert_eq!(op.attrs.str("payload"), "version=1;operands=10;k=3");
}

#[test]
fn nodes_are_sorted_and_unused_initializers_left_out() {
    let nodes = vec![node("Neg", &["a"], &["y"]), node("Abs", &["x"], &["a"])];
    let m = model(
        20,
        build(nodes, vec![f32v("x", &["2"])], vec![untyped("y")], vec![f32s("w", &[2], &[0.0; 2])]),
    );
    assert_eq!(ops(&m), ["abs", "neg"]);
}

#[test]
fn inputs_with_a_default_are_weights() {
    let mut m = single(node("Add", &["x", "w"], &["y"]), &["2"], vec![f32s("w", &[2], &[1.0, 2.0])]);
    if let Some(g) = m.graph.as_mut() {
        g.input.push(f32v("w", &["2"]));
    }
    let (module, report) = lowered(&m);
    assert_eq!(module.functions[0].arguments.len(), 1);
    assert_eq!(report.weights.get("f32"), Some(&1));
}

#[test]
fn weights_without_payload_are_declared_without_value() {
    let mut w = f32s("w", &[2], &[]);
    w.raw_data = None;
    let (module, report) = lowered(&single(node("Add", &["x", "w"], &["y"]), &["2"], vec![w]));
    assert_eq!(report.weights_without_values, 1);
    assert!(module.weights.values().all(|w| w.data.is_none()));
}

#[test]
fn declared_types_are_only_cross_checked() {
    let mut m = single(node("Abs", &["x"], &["y"]), &["2"], vec![]);
    if let Some(g) = m.graph.as_mut() {
        g.output = vec![f32v("y", &["3"])];
    }
    let (_, report) = lowered(&m);
    assert_eq!(report.type_disagreements, 1);
    assert_eq!(result_type(&m, 0), "tensor<2xf32>");
}

#[test]
fn if_whose_branches_differ_in_rank_keeps_the_declared_one() {
    let then = build(vec![node("Squeeze", &["x", "first"], &["a"])], vec![], vec![untyped("a")], vec![]);
    let other = build(vec![node("Identity", &["x"], &["b"])], vec![], vec![untyped("b")], vec![]);
    let n = with(node("If", &["c"], &["y"]), vec![graph("then_branch", then), graph("else_branch", other)]);
    let inputs = vec![f32v("x", &["s0", "2"]), value("c", data_type::BOOL, &[])];
    let m =
        |out| model(20, build(vec![n.clone()], inputs.clone(), vec![out], vec![i64s("first", &[1], &[0])]));
    assert_eq!(result_type(&m(f32v("y", &["2"])), 0), "tensor<2xf32>");
    assert_eq!(result_type(&m(f32v("y", &["s0", "2"])), 0), "tensor<?x2xf32, [\"s0\"]>");
    let error = import(&m(untyped("y"))).err().unwrap_or_default();
    assert!(error.contains("[onnx.op]") && error.contains("different rank or size"), "{error}");
}

#[test]
fn gru_becomes_a_loop_that_respects_sequence_lengths() {
    // One unit without recurrence: h' = (1 − σ(0))·tanh(x) + σ(0)·h.
    let n = node("GRU", &["x", "w", "r", "", "lengths"], &["y"]);
    let lengths = djinn_onnx_proto::TensorProto {
        name: "lengths".into(),
        dims: vec![1],
        data_type: Some(data_type::INT32),
        int32_data: vec![1],
        ..Default::default()
    };
    let c = vec![f32s("w", &[1, 3, 1], &[0.0, 0.0, 1.0]), f32s("r", &[1, 3, 1], &[0.0; 3]), lengths];
    let y = run(&single(n, &["2", "1", "1"], c), &[("x", t(&[2, 1, 1], &[1.0, 1.0]))]);
    assert!((y[0] - 0.5 * 1f64.tanh()).abs() < 1e-6 && y[1] == 0.0, "{y:?}");
}

#[test]
fn grid_sample_at_the_corners_is_the_identity() {
    let n = with(node("GridSample", &["x", "g"], &["y"]), vec![int("align_corners", 1)]);
    let corners = [-1.0, -1.0, 1.0, -1.0, -1.0, 1.0, 1.0, 1.0];
    let m = single(n, &["1", "1", "2", "2"], vec![f32s("g", &[1, 2, 2, 2], &corners)]);
    assert_eq!(run(&m, &[("x", counting(&[1, 1, 2, 2]))]), [0.0, 1.0, 2.0, 3.0]);
}

#[test]
fn mixed_element_types_of_concat_are_mended_as_declared() {
    let nodes = vec![
        with(node("Cast", &["x"], &["h"]), vec![int("to", i64::from(data_type::FLOAT16))]),
        with(node("Concat", &["h", "x"], &["y"]), vec![int("axis", 0)]),
    ];
    let m = |out| model(20, build(nodes.clone(), vec![f32v("x", &["2"])], vec![out], vec![]));
    let (_, report) = lowered(&m(f32v("y", &["4"])));
    assert_eq!(report.repairs, 1);
    let error = import(&m(untyped("y"))).err().unwrap_or_default();
    assert!(error.contains("differ in element type"), "{error}");
}
