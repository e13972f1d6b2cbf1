use super::*;
use crate::{Modality, Origin, Phase, Residency, Semantics, Srg, SrgBuilder, lower};
use djinn_ir::{Attrs, DType, Dim, OpKind, SymbolInfo, TensorData, TensorType, Weight, attrs, verify, walk};

/// A program with something of everything that the file forms carry.
pub(crate) fn sample() -> Srg {
    let mut b = SrgBuilder::new("main");
    b.metadata("producer", "tests \"quoted\"\n");
    b.declare_symbol("s0", SymbolInfo { min: 1, max: Some(8), divisor: 1 });
    b.declare_symbol("s1", SymbolInfo::default());
    let x = b.input("x", TensorType::new(DType::F32, [Dim::symbol("s0"), Dim::from(2)]));
    let state = b.state("cache", TensorType::of(DType::F32, &[2, 2]), Some("w"));
    let cond = b.input("cond", TensorType::scalar(DType::Bool));
    b.set_origin(Origin {
        framework_op: "aten.mm.default".into(),
        name: "mm_1".into(),
        scope: Some("layers.0".into()),
        source: Some(("model.py".into(), 12)),
    });
    b.set_semantics(Semantics {
        phase: Some(Phase::LlmDecode),
        residency: Some(Residency::EphemeralActivation),
        modality: Some(Modality::Text),
        device: Some("cuda:0".into()),
        flops_hint: Some(u64::MAX),
    });
    let data = TensorData::from_f32(&[2, 2], &[1.0, -0.0, f32::NAN, 1e-7]).expect("four");
    let w = b.weight("w", Weight::with_data(data.clone())).expect("a weight");
    b.declare_weight("twin", Weight::with_data(data)).expect("a weight");
    let unknown = Weight { ty: TensorType::of(DType::I8, &[3]), data: None };
    b.declare_weight("unknown", unknown).expect("a weight");
    let y = b.op(OpKind::MatMul, &[x, w], Attrs::new()).expect("matmul");
    b.set_origin(Origin::default());
    b.set_semantics(Semantics::default());
    let slope = attrs! { alpha: 0.1f64 };
    let y = b.op(OpKind::LeakyRelu, &[y], slope).expect("leaky_relu");
    let never = attrs! { alpha: f64::NEG_INFINITY };
    let y = b.op(OpKind::Elu, &[y], never).expect("elu");
    let ty = b.ty(y).clone();
    let region = |b: &mut SrgBuilder, kind: OpKind| {
        let args = b.begin_region(vec![ty.clone()]);
        let r = b.op(kind, &args, Attrs::new()).expect("unary");
        b.end_region(vec![r]).expect("begun")
    };
    let regions = vec![region(&mut b, OpKind::Exp), region(&mut b, OpKind::Neg)];
    let y = b.op_with_regions(OpKind::If, &[cond, y], Attrs::new(), regions).expect("if")[0];
    let half = b.op(OpKind::Cast, &[y], attrs! { to: DType::F16 }).expect("cast");
    let shape = attrs! { shape: vec![Dim::symbol("s0"), Dim::ONE, Dim::from(2)] };
    let half = b.op(OpKind::Reshape, &[half], shape).expect("reshape");
    let turned = b.op(OpKind::Transpose, &[half], attrs! { perm: vec![1i64, 0, 2] }).expect("transpose");
    let one = b.constant(TensorData::from_i64(&[1], &[-1]).expect("one")).expect("constant");
    let types = vec![TensorType::new(DType::U8, [Dim::symbol("s1")])];
    let custom = attrs! { op: "custom", payload: "{}", types: types };
    let custom = b.op(OpKind::Opaque, &[one], custom).expect("opaque");
    b.output("y", turned);
    b.output("z", custom);
    b.update(1, state);
    b.finish().expect("complete")
}

pub(crate) fn same_text(a: &Srg, b: &Srg) {
    assert_eq!(write(a, WeightBytes::Inline), write(b, WeightBytes::Inline));
}

#[test]
fn text_round_trips_and_lowers_to_the_same_module() {
    let srg = sample();
    let text = write(&srg, WeightBytes::Inline);
    let again = read(&text).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(write(&again, WeightBytes::Inline), text);
    let (a, b) = (lower(&srg).expect("lowers"), lower(&again).expect("lowers"));
    assert!(walk::same_module(&a, &b));
    assert_eq!(verify::verify(&b), Ok(()));
    assert!(crate::read(std::sync::Arc::new(text.into_bytes())).is_ok());
}

#[test]
fn bytes_of_weights_can_be_left_out() {
    let text = write(&sample(), WeightBytes::Omit);
    let again = read(&text).expect("reads");
    assert_eq!(write(&again, WeightBytes::Inline), text);
    assert!(again.weights["w"].data.is_none() && again.absent.contains_key("w"));
    assert_eq!(verify::verify(&lower(&again).expect("lowers")), Ok(()));
}

#[test]
fn errors_name_the_path() {
    let text = write(&sample(), WeightBytes::Inline);
    let cases = [
        ("\"version\": 1", "\"version\": 2", "$.version", "version 2 is not known", "reads version 1"),
        ("\"djinn-srg\"", "\"other\"", "$.format", "the format is 'other'", ""),
        ("\"metadata\"", "\"metadta\"", "$", "no field 'metadta'", "did you mean 'metadata'?"),
        ("\"matmul\"", "\"matmull\"", ".op", "no operation 'matmull'", "did you mean 'matmul'?"),
        (
            "\"llm_decode\"",
            "\"llm_decod\"",
            ".phase",
            "'llm_decod' is not known",
            "did you mean 'llm_decode'?",
        ),
        ("\"line\": 12", "\"line\": -1", ".source.line", "expected a whole number", ""),
        ("\"line\": 12", "\"line\": 5000000000", ".source.line", "too large", ""),
        ("\"min\": 1", "\"min\": 9", "$.symbols[\"s0\"]", "range is empty", ""),
        ("\"s0\": {", "\"s 0\": {", "$.symbols[\"s 0\"]", "no name of a symbol", ""),
        ("\"float\": 0.1", "\"float\": true", ".attrs[\"alpha\"].float", "expected a number", ""),
        ("0xFFF0000000000000", "0x3FF0000000000000", ".float", "NaN or infinity", ""),
        ("\"from\": 0", "\"from\": 77", ".edges[", "no node 77", ""),
        ("\"kind\": \"input\"", "\"kind\": \"inputs\"", ".arguments[0].kind", "not known", "'input'"),
        ("\"data\": \"AAC", "\"data\": \"AQC", "[\"twin\"].data", "has the hash", ""),
        (
            "\"type\": \"tensor<3xi8>\"",
            "\"type\": \"tensor<3xi9>\"",
            "[\"unknown\"].type",
            "no element type",
            "",
        ),
        ("\"hash\": \"", "\"hush\": \"", "[\"twin\"]", "no field 'hush'", "'hash'"),
    ];
    for (from, to, path, message, help) in cases {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let e = read(&changed).map(drop).expect_err(to);
        assert!(e.place[0].contains(path), "{path}: {e}");
        assert!(e.message.contains(message), "{e}");
        assert!(e.help.as_deref().unwrap_or_default().contains(help), "{e}");
    }
}

#[test]
fn double_fields_broken_text_and_deep_nesting_are_refused() {
    let text = write(&sample(), WeightBytes::Inline);
    let doubled = text.replacen("\"version\": 1", "\"version\": 1, \"version\": 1", 1);
    assert!(read(&doubled).expect_err("double").message.contains("given twice"));
    assert!(read(&"[".repeat(100_000)).is_err());
    for end in (0..text.trim_end().len()).filter(|end| text.is_char_boundary(*end)) {
        let e = read(&text[..end]).map(drop).expect_err("cut");
        assert!(e.code == "srg.json" && e.place[0].starts_with("line "), "{e}");
    }
    assert!(crate::read(std::sync::Arc::new(vec![0xff, 0xfe])).is_err());
}

#[test]
fn mutations_never_panic() {
    let text = write(&sample(), WeightBytes::Inline);
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let alphabet = b"\"{}[],:0189-.etnl\\";
    for _ in 0..1500 {
        let mut bytes = text.clone().into_bytes();
        let at = random(bytes.len());
        bytes[at] = alphabet[random(alphabet.len())];
        if let Ok(srg) = read(&String::from_utf8_lossy(&bytes))
            && let Ok(module) = lower(&srg)
        {
            let _ = verify::verify(&module);
        }
    }
}
