//! Which nodes are written: fusions, shapes, interfaces, weights and diagnostics.

mod cases;

use cases::build;
use djinn_diag::Culprit;
use djinn_ir::{
    ArgumentKind, Attrs, DType, Dim, Function, Graph, Location, Module, OpKind, ResultKind, TensorData,
    TensorType, Weight, attrs, weight_attrs,
};
use djinn_onnx_export::{ExportOptions, Exported, ExternalData, MissingWeights, Spelling, export};
use djinn_onnx_proto::{GraphProto, ModelProto, NodeProto, prost::Message};
use std::sync::Arc;

fn options(opset: i64) -> ExportOptions {
    ExportOptions { opset, ..Default::default() }
}

fn decode(exported: &Exported) -> ModelProto {
    ModelProto::decode(exported.model.as_slice()).expect("decodes")
}

fn graph(module: &Module, options: &ExportOptions) -> GraphProto {
    decode(&export(module, options).expect("exports")).graph.expect("a graph")
}

fn op_types(g: &GraphProto) -> Vec<&str> {
    g.node.iter().map(|n| n.op_type.as_str()).collect()
}

/// The node kinds of a case of the collection.
fn case_ops(name: &str, opset: i64) -> Vec<String> {
    let all = cases::all().0;
    let case = all.iter().find(|c| c.name == name).expect(name);
    op_types(&graph(&case.module, &options(opset))).into_iter().map(str::to_owned).collect()
}

fn int(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|a| a.name == name).and_then(|a| a.i)
}

#[test]
fn products_with_bias_are_gemm() {
    let all = cases::all().0;
    let case = all.iter().find(|c| c.name == "gemm.sym").expect("case");
    let g = graph(&case.module, &options(20));
    assert_eq!(op_types(&g), ["Gemm"]);
    assert_eq!(int(&g.node[0], "transB"), Some(1));
    assert_eq!(g.node[0].input, ["in0", "in1", "in2"]);
    assert_eq!(g.node[0].output, ["out0"]);
    assert_eq!(case_ops("matmul_2d.const", 20), ["MatMul"]);
    assert_eq!(case_ops("matmul_i8.const", 20), ["Cast", "Cast", "MatMul", "Cast"]);
}

#[test]
fn slices_are_merged() {
    assert_eq!(case_ops("slice_siblings.sym", 23), ["Split"]);
    assert_eq!(case_ops("slice_chain.sym", 23), ["Slice"]);
    // A bound that counts from the end needs no size at run time.
    assert_eq!(case_ops("slice_tail.sym", 23), ["Slice"]);
    assert_eq!(case_ops("slice_element.sym", 23), ["Gather"]);
    assert_eq!(case_ops("reduce_mean_drop.sym", 23), ["ReduceMean"]);
    assert_eq!(case_ops("reduce_mean_keep.sym", 23), ["ReduceMean"]);
}

#[test]
fn reshapes_need_sizes_only_where_two_are_unknown() {
    for name in ["split", "merge", "ones", "chain"] {
        assert_eq!(case_ops(&format!("reshape_{name}.sym"), 20), ["Reshape"], "{name}");
    }
    assert_eq!(case_ops("reshape_back.sym", 20), ["Shape", "Concat", "Reshape"]);
    assert_eq!(case_ops("broadcast_part.sym", 20), ["Expand"]);
    assert_eq!(case_ops("add_broadcast_operand.sym", 20), ["Add"]);
    assert_eq!(case_ops("transpose_identity.sym", 20), ["Identity"]);
}

#[test]
fn composites_are_native_where_the_opset_has_them() {
    assert_eq!(case_ops("rms_norm.const", 23), ["RMSNormalization"]);
    let spelled = ["Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul"];
    assert_eq!(case_ops("rms_norm.const", 20), spelled);
    assert_eq!(case_ops("silu.const", 23), ["Sigmoid", "Mul"]);
    assert_eq!(case_ops("silu.const", 24), ["Swish"]);
    assert_eq!(case_ops("gelu.const", 20), ["Gelu"]);
    assert_eq!(case_ops("rope_false.sym", 23), ["RotaryEmbedding"]);
    assert_eq!(case_ops("group_norm_instance.sym", 23), ["InstanceNormalization"]);
    assert_eq!(case_ops("reduce_mean_global.sym", 20), ["GlobalAveragePool"]);
    assert_eq!(case_ops("index_copy_one_batch.sym", 24), ["TensorScatter"]);
    assert_eq!(case_ops("sdpa_full_false.sym", 23), ["Attention"]);
    let all = cases::all().0;
    let case = all.iter().find(|c| c.name == "group_norm.const").expect("case");
    let fewest = ExportOptions { spelling: Spelling::Native, ..options(23) };
    assert_eq!(op_types(&graph(&case.module, &fewest)), ["GroupNormalization"]);
}

#[test]
fn attention_takes_the_past_and_gives_the_present() {
    let all = cases::all().0;
    let case = all.iter().find(|c| c.name == "sdpa_past.sym").expect("case");
    let g = graph(&case.module, &options(23));
    assert_eq!(op_types(&g), ["Attention"]);
    assert_eq!(g.node[0].input, ["in0", "in2", "in4", "", "in1", "in3"]);
    assert_eq!(g.node[0].output, ["out0", "out1", "out2"]);
    assert_eq!(int(&g.node[0], "is_causal"), Some(1));
    assert_eq!(case_ops("sdpa_past_decode.sym", 23), ["Attention"]);
    assert_eq!(case_ops("sdpa_past_shared.const", 23), ["Concat", "Concat", "Attention", "Neg"]);
    // Heads stay side by side: no transpose and no reshape is left.
    let ops = case_ops("attention_layer.const", 23);
    assert_eq!(ops, ["Expand", "Expand", "RotaryEmbedding", "RotaryEmbedding", "Attention"]);
    assert_eq!(case_ops("attention_prefill.const", 24), ops);
}

/// The node kinds of attention over three keys from two queries, with or without a mask.
fn attention_ops(opset: i64, scale: f64, causal: Option<i64>, mask: Option<TensorData>) -> Vec<String> {
    let module = build(false, |b| {
        let mut operands = vec![b.f32("b 4 2 8"), b.f32("b 4 3 8"), b.f32("b 4 3 8")];
        operands.extend(mask.clone().map(|m| b.op(OpKind::Constant, &[], attrs! { value: m })));
        let offset = Dim::from(causal.unwrap_or(0));
        let a = attrs! { scale: scale, causal: causal.is_some(), causal_offset: offset, query_heads: 0i64, kv_heads: 0i64 };
        let y = b.op(OpKind::Sdpa, &operands, a);
        b.output(y);
    });
    op_types(&graph(&module, &options(opset))).into_iter().map(str::to_owned).collect()
}

#[test]
fn spelled_out_attention_gives_zeros_for_queries_without_keys() {
    let guarded = |causal: Option<i64>, mask: Option<TensorData>| {
        let ops = attention_ops(20, 0.5, causal, mask);
        let nan = ops.iter().position(|o| o == "IsNaN");
        assert!(nan.is_none_or(|i| ops[i - 1] == "Softmax" && ops[i + 1] == "Where"), "{ops:?}");
        nan.is_some()
    };
    let bools = |shape: &[usize], bytes: &[u8]| TensorData::new(DType::Bool, shape.to_vec(), bytes.to_vec());
    let floats = TensorData::from_f32;
    assert!(!guarded(None, None));
    assert!(!guarded(Some(0), None));
    assert!(guarded(Some(-1), None));
    assert!(!guarded(None, bools(&[2, 3], &[0, 0, 1, 1, 0, 0])));
    assert!(guarded(None, bools(&[2, 3], &[0, 0, 1, 0, 0, 0])));
    assert!(guarded(Some(0), bools(&[2, 3], &[0, 0, 1, 1, 0, 0])));
    assert!(!guarded(Some(0), bools(&[2, 3], &[1, 0, 1, 0, 1, 0])));
    assert!(guarded(Some(0), bools(&[3], &[0, 1, 1])));
    assert!(!guarded(Some(1), bools(&[3], &[0, 1, 1])));
    assert!(!guarded(None, floats(&[2, 3], &[f32::MIN; 6])));
    assert!(guarded(Some(-1), floats(&[2, 3], &[0.0; 6])));
    assert!(guarded(None, floats(&[1, 1], &[f32::NEG_INFINITY])));
    let hidden = f32::NEG_INFINITY;
    assert!(!guarded(None, floats(&[1, 3], &[hidden, 0.0, hidden])));
    assert!(guarded(Some(0), floats(&[1, 3], &[hidden, 0.0, hidden])));

    // A mask that is computed may hide everything, unless it only chooses between finite numbers.
    let computed = |lowest: f32| {
        let module = build(false, |b| {
            let shown = b.input(DType::Bool, "b 1 s p");
            let (zero, lowest) = (b.scalar(DType::F32, 0.0), b.scalar(DType::F32, f64::from(lowest)));
            let mask = b.op(OpKind::Select, &[shown, zero, lowest], Attrs::new());
            let operands = [b.f32("b 4 s 8"), b.f32("b 4 p 8"), b.f32("b 4 p 8"), mask];
            let a = attrs! { scale: 0.5, causal: false, causal_offset: Dim::ZERO, query_heads: 0i64, kv_heads: 0i64 };
            let y = b.op(OpKind::Sdpa, &operands, a);
            b.output(y);
        });
        graph(&module, &options(20)).node.iter().any(|n| n.op_type == "IsNaN")
    };
    assert!(computed(hidden));
    assert!(!computed(f32::MIN));
}

#[test]
fn attention_is_spelled_out_where_the_scale_is_not_positive() {
    assert_eq!(attention_ops(23, 0.5, None, None), ["Attention"]);
    for scale in [0.0, -0.5, 1e-60, f64::INFINITY] {
        let ops = attention_ops(23, scale, None, None);
        assert!(
            ops.contains(&"Softmax".to_owned()) && !ops.contains(&"Attention".to_owned()),
            "{scale}: {ops:?}"
        );
    }
}

#[test]
fn finite_minima_are_replaced_where_they_reach_nothing_but_masks() {
    let module = |also_elsewhere: bool| {
        build(false, |b| {
            let shown = b.input(DType::Bool, "b 1 s p");
            let literal = |v: f32| attrs! { value: TensorData::from_f32(&[], &[v]).expect("one value") };
            let zero = b.op(OpKind::Constant, &[], literal(0.0));
            let lowest = b.op(OpKind::Constant, &[], literal(f32::MIN));
            let mask = b.op(OpKind::Select, &[shown, zero, lowest], Attrs::new());
            let operands = [b.f32("b 4 s 8"), b.f32("b 4 p 8"), b.f32("b 4 p 8"), mask];
            let a = attrs! { scale: 0.5, causal: false, causal_offset: Dim::ZERO, query_heads: 0i64, kv_heads: 0i64 };
            let y = b.op(OpKind::Sdpa, &operands, a);
            b.output(y);
            if also_elsewhere {
                b.output(mask);
            }
        })
    };
    let minimum = |m: &Module| {
        let g = graph(m, &options(23));
        let floats = g.initializer.iter().filter_map(|t| t.raw_data.as_ref().filter(|d| d.len() == 4));
        floats.map(|d| f32::from_le_bytes([d[0], d[1], d[2], d[3]])).fold(0.0, f32::min)
    };
    assert_eq!(minimum(&module(false)), -1e30);
    assert_eq!(minimum(&module(true)), f32::MIN);
}

#[test]
fn a_mask_row_is_expanded_once_for_all_layers() {
    let module = build(false, |b| {
        let mask = b.input(DType::Bool, "b 1 1 p");
        for _ in 0..3 {
            let operands = [b.f32("b 4 s 8"), b.f32("b 4 p 8"), b.f32("b 4 p 8"), mask];
            let a = attrs! { scale: 0.5, causal: false, causal_offset: Dim::ZERO, query_heads: 0i64, kv_heads: 0i64 };
            let y = b.op(OpKind::Sdpa, &operands, a);
            b.output(y);
        }
    });
    let g = graph(&module, &options(23));
    assert_eq!(op_types(&g), ["Expand", "Attention", "Attention", "Attention"]);
}

#[test]
fn parametric_relu_is_recognised() {
    let module = build(true, |b| {
        let (x, slope) = (b.f32("b 3 s"), b.f32("3 1"));
        let zero = b.scalar(DType::F32, 0.0);
        let below = b.op(OpKind::Compare, &[x, zero], attrs! { predicate: "lt" });
        let scaled = b.op(OpKind::Mul, &[x, slope], Attrs::new());
        let y = b.op(OpKind::Select, &[below, scaled, x], Attrs::new());
        b.output(y);
    });
    assert_eq!(op_types(&graph(&module, &options(20))), ["PRelu"]);
}

#[test]
fn nodes_say_where_they_come_from() {
    let all = cases::all().0;
    let case = all.iter().find(|c| c.name == "exp.const").expect("case");
    let g = graph(&case.module, &options(23));
    let props: Vec<(&str, &str)> =
        g.node[0].metadata_props.iter().map(|p| (p.key.as_str(), p.value.as_str())).collect();
    assert_eq!(props, [("djinn.scope", "model.layer"), ("djinn.source", "m.py:7")]);
    assert!(g.node[0].name.starts_with("model.layer/"));
}

#[test]
fn every_output_has_a_value_of_its_own() {
    let all = cases::all().0;
    let case = all.iter().find(|c| c.name == "weight.sym").expect("case");
    let g = graph(&case.module, &options(23));
    assert_eq!(op_types(&g), ["Identity", "Identity", "Identity"]);
    assert_eq!(g.output.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["out0", "out1", "out2"]);
}

/// x·w + state, where the state is replaced by the result.
fn weighted(with_values: bool) -> Module {
    let data = TensorData::splat(DType::F32, &[32, 32], 0.5).expect("fits");
    let mut weight = Weight::with_data(data);
    if !with_values {
        weight.data = None;
    }
    let mut g = Graph::new();
    let ty = TensorType::new(DType::F32, [Dim::symbol("n"), Dim::from(32)]);
    let (x, state) = (g.add_argument(ty.clone()), g.add_argument(ty));
    let w = g.build1(OpKind::Weight, &[], weight_attrs("layer.w", &weight)).expect("valid");
    let tied = g.build1(OpKind::Weight, &[], weight_attrs("layer.tied", &weight)).expect("valid");
    let y = g.build1(OpKind::MatMul, &[x, w], Attrs::new()).expect("valid");
    let y = g.build1(OpKind::MatMul, &[y, tied], Attrs::new()).expect("valid");
    let y = g.build1(OpKind::Add, &[y, state], Attrs::new()).expect("valid");
    g.results = vec![y];
    let mut module = Module::default();
    module.weights.insert(Arc::from("layer.w"), weight.clone());
    module.weights.insert(Arc::from("layer.tied"), weight);
    module.metadata.insert(Arc::from("author"), Arc::from("someone"));
    module.functions.push(Function {
        name: Arc::from("step"),
        visibility: djinn_ir::Visibility::Entry,
        graph: g,
        arguments: vec![
            (Arc::from("x"), ArgumentKind::Input),
            (Arc::from("cache"), ArgumentKind::State { initial: Some(Arc::from("layer.w")) }),
        ],
        results: vec![(Arc::from("cache"), ResultKind::Update(1))],
    });
    module
}

#[test]
fn states_are_inputs_and_outputs() {
    let model = decode(&export(&weighted(true), &options(23)).expect("exports"));
    let g = model.graph.as_ref().expect("a graph");
    assert_eq!(g.input.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["x", "cache"]);
    assert_eq!(g.output[0].name, "cache.updated");
    let prop = |key: &str| model.metadata_props.iter().find(|p| p.key == key).map(|p| p.value.as_str());
    assert_eq!(prop("djinn.state.cache"), Some("cache.updated"));
    assert_eq!(prop("djinn.initial.cache"), Some("layer.w"));
    assert_eq!(prop("author"), Some("someone"));
    assert_eq!(model.producer_name, "djinn");
    // The tied weights are one initializer.
    assert_eq!(g.initializer.len(), 1);
    assert_eq!(g.initializer[0].name, "layer.w");
}

#[test]
fn large_weights_go_into_an_aligned_file() {
    let module = weighted(true);
    let exported =
        export(&module, &ExportOptions { external_data: ExternalData::Threshold(4096), ..options(23) })
            .expect("exports");
    let external = exported.external.as_ref().expect("external data");
    assert_eq!(external.segments.len(), 1);
    assert!(external.segments.iter().all(|s| s.offset % 4096 == 0));
    let mut file = Vec::new();
    external.write(&mut file).expect("writes");
    assert_eq!(file.len() as u64, external.length);
    let model = decode(&exported);
    let tensor = &model.graph.as_ref().expect("a graph").initializer[0];
    assert!(tensor.raw_data.is_none());
    let entries: Vec<(&str, &str)> =
        tensor.external_data.iter().map(|e| (e.key.as_str(), e.value.as_str())).collect();
    assert_eq!(entries, [("location", "model.onnx.data"), ("offset", "0"), ("length", "4096")]);
    assert!(export(&module, &options(23)).expect("exports").external.is_none());
}

#[test]
fn weights_without_values_are_declared_or_refused() {
    let module = weighted(false);
    let model = decode(&export(&module, &options(23)).expect("exports"));
    let tensors = &model.graph.as_ref().expect("a graph").initializer;
    assert_eq!(tensors[0].dims, [32, 32]);
    assert_eq!(tensors[0].external_data[0].value, "missing.weights");
    assert!(model.metadata_props.iter().any(|p| p.key == "djinn.weights" && p.value == "missing"));
    let refuse = ExportOptions { missing_weights: MissingWeights::Refuse, ..options(23) };
    let error = export(&module, &refuse).expect_err("refused");
    assert_eq!((error.culprit, error.code.as_str()), (Culprit::Input, "onnx-export.weight"));
}

#[test]
fn diagnostics_name_the_culprit() {
    let error = export(&weighted(true), &options(21)).expect_err("unknown opset");
    assert_eq!((error.culprit, error.code.as_str()), (Culprit::Input, "onnx-export.opset"));
    let other = ExportOptions { function: "prefill".into(), ..options(23) };
    assert_eq!(export(&weighted(true), &other).expect_err("no such function").code, "onnx-export.function");
    let mut several = weighted(true);
    let second = djinn_ir::Function { name: "decode".into(), ..several.functions[0].clone() };
    several.functions.push(second);
    let error = export(&several, &options(23)).expect_err("no function is named");
    assert!(error.message.contains("one entry function, the module has 2"), "{error}");
    assert!(error.help.is_some_and(|h| h.contains("decode")));

    let mut module = weighted(true);
    let g = &mut module.functions[0].graph;
    let types = vec![TensorType::of(DType::F32, &[2])];
    let a = attrs! { op: "com.acme::Magic", payload: "", types: types };
    let location = Location { scope: Some("model.magic".into()), ..Location::default() };
    let op = g.build(OpKind::Opaque, &[], a, vec![], location).expect("valid");
    g.results = g.op(op).results.clone();
    let error = export(&module, &options(23)).expect_err("opaque");
    assert_eq!(error.culprit, Culprit::Unsupported);
    assert_eq!(error.message, "'com.acme::Magic' was kept as it is (opaque) and cannot be written as ONNX");
    assert_eq!(error.help.as_deref(), Some("write --emit ir, or export the model with it decomposed"));
    assert!(error.place.iter().any(|p| p.ends_with("'com.acme::Magic' in model.magic")), "{error}");

    let mut module = weighted(true);
    let g = &mut module.functions[0].graph;
    let a = attrs! { callee: "layer", types: vec![TensorType::of(DType::F32, &[2])] };
    let op = g.build(OpKind::Call, &[], a, vec![], Location::default()).expect("valid");
    g.results = g.op(op).results.clone();
    let error = export(&module, &options(23)).expect_err("call");
    assert_eq!((error.culprit, error.code.as_str()), (Culprit::Unsupported, "onnx-export.call"));
    assert_eq!(error.help.as_deref(), Some("run the pass 'inline' before writing ONNX"));

    let cast = build(false, |b| {
        let x = b.f32("s 3");
        let y = b.op(OpKind::BitCast, &[x], attrs! { to: DType::I32 });
        b.output(y);
    });
    assert_eq!(export(&cast, &options(24)).expect_err("no BitCast").code, "onnx-export.bit_cast");

    let unknown = build(false, |b| {
        let y = b.op(OpKind::DimExpr, &[], attrs! { exprs: vec![Dim::symbol("q")], scalar: true });
        b.output(y);
    });
    assert_eq!(export(&unknown, &options(24)).expect_err("no source").code, "onnx-export.symbol");
}
