//! One violation of every labelled constraint of the op table.

use crate::attr::{Attr, AttrKind, Attrs};
use crate::attrs;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Graph;
use crate::infer::infer;
use crate::ops::{OP_TABLE, OpDef, OpKind};
use crate::types::TensorType;
use std::collections::BTreeSet;

/// Reads `f32[2,s0]`.
fn ty(text: &str) -> TensorType {
    let (dtype, sizes) = text.trim_end_matches(']').split_once('[').expect("dtype[sizes]");
    let sizes = sizes.split(',').filter(|s| !s.is_empty()).map(|s| s.parse().expect("a size"));
    TensorType::new(DType::from_mlir(dtype).expect("dtype"), sizes)
}

/// Attributes of the table with unremarkable values.
fn defaults(def: &OpDef) -> Attrs {
    let value = |kind: AttrKind| -> Attr {
        match kind {
            AttrKind::Int => 0i64.into(),
            AttrKind::Float => 1.0.into(),
            AttrKind::Bool => false.into(),
            AttrKind::Str => "".into(),
            AttrKind::Word(words) => words[0].into(),
            AttrKind::Ints => Vec::<i64>::new().into(),
            AttrKind::Floats => Vec::<f64>::new().into(),
            AttrKind::Dim => Dim::ONE.into(),
            AttrKind::Dims => Vec::<Dim>::new().into(),
            AttrKind::DType => DType::F32.into(),
            AttrKind::Types => Vec::<TensorType>::new().into(),
            AttrKind::Tensor => crate::TensorData::splat(DType::F32, &[], 0.0).expect("scalar").into(),
        }
    };
    def.attrs.iter().fold(Attrs::new(), |attrs, a| attrs.with(a.name, value(a.kind)))
}

struct Case {
    label: String,
    operands: Vec<TensorType>,
    attrs: Attrs,
    regions: Vec<Graph>,
}

/// A violation: label, operands separated by spaces, and attributes that are not the defaults.
fn case(label: &str, operands: &str, attrs: Attrs) -> Case {
    Case {
        label: label.into(),
        operands: operands.split_whitespace().map(ty).collect(),
        attrs,
        regions: Vec::new(),
    }
}

fn dims(text: &str) -> Vec<Dim> {
    text.split_whitespace().map(|d| d.parse().expect("a size")).collect()
}

fn elementwise() -> Vec<Case> {
    let mut cases = Vec::new();
    // Every operation of one operand whose only constraint is a float operand.
    for def in OP_TABLE {
        if matches!(def.constraints, [(_, "operand is a float")]) {
            cases.push(case(def.constraints[0].0, "i64[2]", Attrs::new()));
        }
    }
    let wrong_types = [
        ("add sub mul div mod shl shr", "i1[2] i1[2]"),
        ("pow", "f32[2] i1[2]"),
        ("min max compare", "f32[2] i64[2]"),
        ("and or xor", "f32[2] f32[2]"),
    ];
    for (names, operands) in wrong_types {
        for name in names.split(' ') {
            cases.push(case(&format!("{name}.C1"), operands, Attrs::new()));
            cases.push(case(&format!("{name}.C2"), "i64[2] i64[3]", Attrs::new()));
        }
    }
    cases.extend([
        case("not.C1", "f32[2]", Attrs::new()),
        case("bit_cast.C1", "f32[2]", attrs! { to: DType::F16 }),
        case("select.C1", "f32[2] f32[2] f32[2]", Attrs::new()),
        case("select.C2", "i1[2] f32[3] f32[3]", Attrs::new()),
        case("clamp.C1", "f32[2] i64[] i64[]", Attrs::new()),
        case("clamp.C2", "f32[2] f32[1] f32[]", Attrs::new()),
    ]);
    cases
}

fn sources_and_movement() -> Vec<Case> {
    vec![
        case("weight.C1", "", Attrs::new()),
        case("dim_expr.C1", "", attrs! { scalar: true }),
        case("iota.C1", "", attrs! { shape: dims("4"), axis: 1i64 }),
        case("iota.C2", "", attrs! { shape: dims("4"), dtype: DType::Bool }),
        case("range.C1", "f32[] i64[] f32[]", attrs! { result_shape: dims("n") }),
        case("range.C2", "f32[] f32[] f32[]", Attrs::new()),
        case("reshape.C1", "f32[4]", attrs! { shape: dims("5") }),
        case("dynamic_reshape.C1", "f32[4] i32[1]", attrs! { result_shape: dims("n") }),
        case("transpose.C1", "f32[2,3]", attrs! { perm: vec![0i64, 0] }),
        case("broadcast.C1", "f32[2]", attrs! { shape: dims("3") }),
        case("dynamic_broadcast.C1", "f32[2] i64[]", attrs! { result_shape: dims("n") }),
        case("slice.C1", "f32[2]", attrs! { axis: 1i64, stride: 1i64 }),
        case("slice.C2", "f32[2]", attrs! { stride: 0i64 }),
        case("slice.C3", "f32[2]", attrs! { start: Dim::ZERO, limit: Dim::from(3), stride: 1i64 }),
        case(
            "dynamic_slice.C1",
            "f32[2] i64[1] i64[1] i64[1]",
            attrs! { axes: vec![1i64], result_shape: dims("n") },
        ),
        case(
            "dynamic_slice.C2",
            "f32[2] i64[1] i64[2] i64[1]",
            attrs! { axes: vec![0i64], result_shape: dims("n") },
        ),
        case("reverse.C1", "f32[2,2]", attrs! { axes: vec![0i64, 0] }),
        case("concat.C1", "", Attrs::new()),
        case("concat.C2", "f32[2]", attrs! { axis: 1i64 }),
        case("concat.C3", "f32[2,2] f32[2,3]", Attrs::new()),
        case("pad.C1", "f32[2] f32[]", Attrs::new()),
        case("pad.C2", "f32[2] f32[1]", attrs! { low: dims("0"), high: dims("1") }),
        case("dynamic_pad.C1", "f32[2] i64[2] f32[]", attrs! { axes: vec![-1i64] }),
        case("tile.C1", "f32[2]", Attrs::new()),
        case("dynamic_tile.C1", "f32[2] i64[2]", attrs! { result_shape: dims("n") }),
        case("gather.C1", "f32[2] i64[1]", attrs! { axis: 1i64 }),
        case("gather.C2", "f32[2] f32[1]", Attrs::new()),
        case("gather_elements.C1", "f32[2] i64[1]", attrs! { axis: 7i64 }),
        case("gather_elements.C2", "f32[2] i64[1,1]", Attrs::new()),
        case("gather_nd.C1", "f32[2] i64[1,n]", Attrs::new()),
        case("gather_nd.C2", "f32[2] i64[1,2]", Attrs::new()),
        case("scatter_nd.C1", "f32[2] f32[1,1] f32[1]", Attrs::new()),
        case("scatter_nd.C2", "f32[2] i64[1,1] i64[1]", Attrs::new()),
        case("scatter_elements.C1", "f32[2] i64[1] f32[1]", attrs! { axis: -1i64 }),
        case("scatter_elements.C2", "f32[2] f32[1] f32[1]", Attrs::new()),
        case("scatter_elements.C3", "f32[2] i64[1] f16[1]", Attrs::new()),
        case("index_copy.C1", "f32[4,2] i64[1] f32[1,2]", attrs! { axis: 2i64 }),
        case("index_copy.C2", "f32[4,2] f32[1] f32[1,2]", Attrs::new()),
        case("index_copy.C3", "f32[4,2] i64[1] f32[2,2]", Attrs::new()),
        case("trilu.C1", "f32[2]", Attrs::new()),
        case("nonzero.C1", "f32[2]", Attrs::new()),
        case("resize.C1", "f32[2]", Attrs::new()),
    ]
}

fn reductions_and_norms() -> Vec<Case> {
    let mut cases = Vec::new();
    for name in ["reduce_sum", "reduce_mean", "reduce_prod", "reduce_max", "reduce_min"] {
        cases.push(case(&format!("{name}.C1"), "f32[2,2]", attrs! { axes: vec![1i64, 0] }));
    }
    for name in ["reduce_sum", "reduce_mean", "reduce_prod"] {
        cases.push(case(&format!("{name}.C2"), "i1[2]", attrs! { axes: vec![0i64] }));
    }
    for name in ["argmax", "argmin", "cumsum", "cumprod", "topk", "softmax", "log_softmax"] {
        cases.push(case(&format!("{name}.C1"), "f32[2]", attrs! { axis: 1i64 }));
    }
    for name in ["softmax", "log_softmax"] {
        cases.push(case(&format!("{name}.C2"), "i64[2]", Attrs::new()));
    }
    for name in ["layer_norm", "rms_norm"] {
        cases.push(case(&format!("{name}.C1"), "f32[2] f32[2]", attrs! { axis: 1i64 }));
        cases.push(case(&format!("{name}.C2"), "f32[2] f16[2]", Attrs::new()));
        cases.push(case(&format!("{name}.C3"), "f32[2] f32[3]", Attrs::new()));
    }
    cases.extend([
        case("group_norm.C1", "f32[2] f32[2] f32[2]", attrs! { groups: 1i64 }),
        case("group_norm.C2", "f32[1,4,2] f32[4] f32[4]", attrs! { groups: 3i64 }),
        case("group_norm.C3", "f32[1,4,2] f32[4] f32[3]", attrs! { groups: 2i64 }),
        case("batch_norm.C1", "f32[2] f32[2] f32[2] f32[2] f32[2]", Attrs::new()),
        case("batch_norm.C2", "f32[1,2] f32[2] f32[2] f32[2] f32[3]", Attrs::new()),
    ]);
    for name in ["max_pool", "avg_pool"] {
        cases.push(case(&format!("{name}.C1"), "f32[1,1,4]", attrs! { kernel: vec![2i64, 2] }));
    }
    cases
}

fn window(groups: i64) -> Attrs {
    attrs! { strides: vec![1i64], pads: vec![0i64, 0], dilations: vec![1i64], groups: groups }
}

fn contractions() -> Vec<Case> {
    let heads = |q: i64, kv: i64| attrs! { query_heads: q, kv_heads: kv };
    let transposed = |groups: i64| window(groups).with("output_padding", vec![0i64]);
    vec![
        case("matmul.C1", "f32[2,2] f16[2,2]", Attrs::new()),
        case("matmul.C2", "f32[] f32[2,2]", Attrs::new()),
        case("matmul.C3", "f32[2,2] f32[3,2]", Attrs::new()),
        case("matmul.C4", "f32[2,2,2] f32[3,2,2]", Attrs::new()),
        case("conv.C1", "f32[1,2,4] f32[2,2]", window(1)),
        case("conv.C2", "f32[1,2,4] f32[2,2,3]", attrs! { groups: 1i64 }),
        case("conv.C3", "f32[1,2,4] f32[2,2,3]", window(2)),
        case("conv.C4", "f32[1,2,4] f32[2,2,3] f32[3]", window(1)),
        case("conv_transpose.C1", "f32[1,2,4] i64[2,2,3]", transposed(1)),
        case("conv_transpose.C2", "f32[1,2,4] f32[2,2,3]", window(1)),
        case("conv_transpose.C3", "f32[1,2,4] f32[3,2,3]", transposed(1)),
        case("conv_transpose.C4", "f32[1,2,4] f32[2,2,3] f32[2]", transposed(2)),
        case("sdpa.C1", "f32[2,4] f32[2,4] f32[2,4]", Attrs::new()),
        case("sdpa.C2", "f32[1,2,8] f32[1,2,8] f32[1,2,8]", heads(3, 2)),
        case("sdpa.C3", "f32[1,2,8] f32[1,2,4] f32[1,2,4]", heads(2, 2)),
        case("sdpa.C4", "f32[1,2,8] f32[1,2,8] f32[1,2,8] i64[2,2]", heads(2, 2)),
        case("rope.C1", "f32[1,2,3,4] f16[1,3,2] f32[1,3,2]", Attrs::new()),
        case("rope.C2", "f32[1,2,3,5] f32[1,3,2] f32[1,3,2]", Attrs::new()),
        case("rope.C3", "f32[1,2,3,4] f32[1,3,3] f32[1,3,2]", Attrs::new()),
        case("lstm.C1", "f32[1] f32[1] f32[1] f32[1] f32[1] f32[1]", Attrs::new()),
    ]
}

fn control() -> Vec<Case> {
    let with = |label: &str, operands: &str, count: usize| Case {
        regions: vec![Graph::new(); count],
        ..case(label, operands, Attrs::new())
    };
    vec![
        with("if.C1", "f32[]", 2),
        with("if.C2", "i1[] f32[]", 2),
        with("loop.C1", "i32[] i1[]", 1),
        with("loop.C2", "i64[] i1[]", 1),
    ]
}

fn cases() -> Vec<Case> {
    [elementwise(), sources_and_movement(), reductions_and_norms(), contractions(), control()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn every_labelled_constraint_is_reported_with_its_text() {
    let mut wrong = Vec::new();
    for case in cases() {
        let name = case.label.split('.').next().expect("a label");
        let def = OpKind::from_name(name).expect(name).def();
        let attrs =
            case.attrs.iter().fold(defaults(def), |a, (name, value)| a.with(name.to_string(), value.clone()));
        let operands: Vec<&TensorType> = case.operands.iter().collect();
        let text = def.constraints.iter().find(|(label, _)| *label == case.label).expect("labelled").1;
        match infer(def.kind, &operands, &attrs, &case.regions) {
            Err(e) if e.code == case.label && e.message.contains(text) => {}
            other => wrong.push(format!("{}: {other:?}", case.label)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_label_is_without_a_negative_test() {
    let tested: BTreeSet<String> = cases().into_iter().map(|c| c.label).collect();
    let labels = OP_TABLE.iter().flat_map(|d| d.constraints).map(|(label, _)| *label);
    let untested: Vec<&str> = labels.filter(|l| !tested.contains(*l)).collect();
    assert!(untested.is_empty(), "{untested:?}");
}

#[test]
fn wrong_counts_and_kinds_are_refused_before_any_rule() {
    for def in OP_TABLE {
        let scalar = TensorType::scalar(DType::F32);
        let attrs = defaults(def);
        let too_many = vec![&scalar; def.operands.len() + 1];
        if def.max_operands().is_some() {
            let code = infer(def.kind, &too_many, &attrs, &[]).map_err(|e| e.code);
            assert_eq!(code, Err("op.operands".into()), "{}", def.name);
        }
        let enough = vec![&scalar; def.min_operands()];
        let extra = attrs.clone().with("surplus", 1i64);
        let regions = vec![Graph::new(); def.regions];
        let code = infer(def.kind, &enough, &extra, &regions).map_err(|e| e.code);
        assert_eq!(code, Err("op.attrs".into()), "{}", def.name);
        let more = vec![Graph::new(); def.regions + 1];
        let code = infer(def.kind, &enough, &attrs, &more).map_err(|e| e.code);
        assert_eq!(code, Err("op.regions".into()), "{}", def.name);
        // Whatever the types, a rule gives types or a diagnostic; it never panics.
        for shape in ["f32[]", "i64[0]", "i1[1,1]", "f32[2,3,4]", "f16[s,1,2,2]"] {
            let t = ty(shape);
            let _ = infer(def.kind, &vec![&t; def.min_operands()], &attrs, &regions);
        }
    }
}
