//! Damaged input gives a typed diagnostic with a place and advice, never a panic.

use crate::mutate::{Random, mutate};
use crate::program::{Program, evaluate, f, i, ints, ramp, t};
use djinn_diag::{Culprit, Diagnostic};
use serde_json::{Value, json};
use std::sync::Arc;

fn import(bytes: &[u8]) -> Option<Box<Diagnostic>> {
    djinn_pt2::import(Arc::new(bytes.to_vec())).err()
}

fn small() -> Value {
    assert_eq!(crate::program::longs(&[1], &[1]).numel(), 1);
    Program::new()
        .input("x", 7, &[2, 3])
        .buffer("b_w", "w", 7, &[3])
        .call("a", "mul.Tensor", json!({"self": t("x"), "other": f(2.0)}))
        .call("v", "slice.Tensor", json!({"self": t("a"), "dim": i(1), "start": i(0), "end": i(2)}))
        .call("u", "add_.Tensor", json!({"self": t("v"), "other": i(1)}))
        .call("r", "view.default", json!({"self": t("a"), "size": ints(&[3, 2])}))
        .call("s", "sum.dim_IntList", json!({"self": t("r"), "dim": ints(&[0])}))
        .json(&["s"])
}

#[test]
fn the_small_program_is_good() {
    let out = evaluate(&small(), &[("x", ramp(&[2, 3]))]).expect("evaluates");
    assert_eq!(
        crate::program::floats(&out.outputs[0].1),
        crate::program::first(&small(), &[("x", ramp(&[2, 3]))]).2
    );
}

#[test]
fn wrong_files_are_input_errors() {
    let deep = "[".repeat(200_000);
    let cases: [&[u8]; 7] = [
        b"",
        b"PK\x03\x04",
        b"garbage",
        b"{}",
        b"{\"schema_version\": 7}",
        &[0x1F, 0x8B, 8, 0],
        deep.as_bytes(),
    ];
    for bytes in cases {
        let e = import(bytes).expect("refused");
        assert_eq!(e.culprit, Culprit::Input, "{e}");
        assert!(e.help.is_some(), "{e}");
    }
    let directory =
        djinn_pt2::import_file(std::path::Path::new(env!("CARGO_MANIFEST_DIR"))).expect_err("refused");
    assert_eq!((directory.code.as_str(), directory.message.as_str()), ("pt2.file", "not a regular file"));
    assert!(directory.place.is_empty(), "the caller adds the path: {directory}");
    let said = |bytes: &[u8], words: &str| {
        let e = import(bytes).expect("refused");
        assert!(e.message.contains(words) && e.message.len() < 220, "{e}");
    };
    said(b"hello world", "this is not a torch.export program");
    said(b"{\"a\": 1}", "this JSON is not a program of torch.export");
    let nested = format!("{{\"x\": {}1{}}}", "[".repeat(5000), "]".repeat(5000));
    assert_eq!(import(nested.as_bytes()).map(|e| e.culprit), Some(Culprit::Input));
}

#[test]
fn wrong_programs_name_the_culprit() {
    let check = |change: &dyn Fn(&mut Value), culprit: Culprit, code: &str| {
        let mut p = small();
        change(&mut p);
        let e = import(p.to_string().as_bytes()).expect(code);
        assert_eq!((e.culprit, e.code.as_str()), (culprit, code), "{e}");
        assert!(e.help.is_some(), "{e}");
    };
    let node = |p: &mut Value, n: usize| p["graph_module"]["graph"]["nodes"][n].take();
    check(&|p| p["schema_version"]["major"] = json!(9), Culprit::Unsupported, "pt2.schema");
    check(&|p| drop(node(p, 0)), Culprit::Input, "pt2.json");
    let range = json!({"s0": {"min_val": 5, "max_val": 2}});
    check(&|p| p["range_constraints"] = range.clone(), Culprit::Input, "pt2.range");
    let values = |p: &mut Value, name: &str, key: &str, v: Value| {
        p["graph_module"]["graph"]["tensor_values"][name][key] = v;
    };
    check(&|p| values(p, "x", "dtype", json!(10)), Culprit::Unsupported, "pt2.dtype");
    check(&|p| values(p, "x", "dtype", json!(31)), Culprit::Unsupported, "pt2.dtype");
    check(&|p| values(p, "x", "dtype", json!(77)), Culprit::Input, "pt2.dtype");
    check(&|p| values(p, "x", "sizes", json!([{"as_int": -2}])), Culprit::Input, "pt2.type");
    check(
        &|p| values(p, "x", "sizes", json!([{"as_int": 1i64 << 62}, {"as_int": 8}])),
        Culprit::Input,
        "pt2.type",
    );
    let rename = |p: &mut Value, n: usize, name: &str| {
        p["graph_module"]["graph"]["nodes"][n]["outputs"][0] = json!({"as_tensor": {"name": name}});
    };
    check(&|p| rename(p, 1, "a"), Culprit::Input, "pt2.name");
    check(&|p| rename(p, 0, "elsewhere"), Culprit::Input, "pt2.name");
}

#[test]
fn non_finite_numbers_load() {
    let p = small().to_string().replace("{\"as_float\":2.0}", "{\"as_float\":\"-Infinity\"}");
    assert!(p.contains("Infinity"));
    assert!(import(p.as_bytes()).is_none());
}

#[test]
fn random_damage_never_panics() {
    for seed in 1..=2000u64 {
        let mut r = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut p = small();
        for _ in 0..=r.below(2) {
            mutate(&mut p, &mut r);
        }
        if let Some(e) = import(p.to_string().as_bytes()) {
            assert_ne!(e.culprit, Culprit::Internal, "seed {seed}: {e}");
        }
    }
}
