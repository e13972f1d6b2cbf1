//! In-place operators become pure ones: every alias sees a write, and written inputs and buffers are updated.

use crate::program::{Program, evaluate, f, floats, i, ints, ramp, t};
use serde_json::json;

/// x [2, 3] = 0..6, `view` of it named v, then `v += 10`; gives x read afterwards, and the update of x.
fn write_through(op: &str, mut args: serde_json::Value) -> Result<(Vec<f64>, Vec<f64>), String> {
    args["self"] = t("x");
    let p = Program::new()
        .input("x", 7, &[2, 3])
        .call("v", op, args)
        .call("w", "add_.Tensor", json!({"self": t("v"), "other": i(10)}))
        .call("y", "mul.Tensor", json!({"self": t("x"), "other": i(1)}))
        .json(&["y"]);
    let out = evaluate(&p, &[("x", ramp(&[2, 3]))])?;
    assert_eq!(out.updates.len(), 1);
    assert_eq!(out.updates[0].0, "x");
    Ok((floats(&out.outputs[0].1), floats(&out.updates[0].1)))
}

#[test]
fn writes_reach_the_base_through_views() {
    let cases: &[(&str, serde_json::Value, [f64; 6])] = &[
        ("select.int", json!({"dim": i(1), "index": i(-1)}), [0.0, 1.0, 12.0, 3.0, 4.0, 15.0]),
        (
            "slice.Tensor",
            json!({"dim": i(1), "start": i(0), "end": i(3), "step": i(2)}),
            [10.0, 1.0, 12.0, 13.0, 4.0, 15.0],
        ),
        ("slice.Tensor", json!({"dim": i(0), "start": i(1)}), [0.0, 1.0, 2.0, 13.0, 14.0, 15.0]),
        ("t.default", json!({}), [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]),
        ("view.default", json!({"size": ints(&[-1])}), [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]),
        ("detach.default", json!({}), [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]),
        ("to.dtype", json!({"dtype": {"as_scalar_type": 7}}), [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]),
    ];
    for (op, args, want) in cases {
        let (read, update) = write_through(op, args.clone()).expect(op);
        assert_eq!((read.as_slice(), update.as_slice()), (&want[..], &want[..]), "{op}");
    }
}

#[test]
fn copies_do_not_alias() {
    for (op, args) in [("clone.default", json!({})), ("to.dtype", json!({"dtype": {"as_scalar_type": 8}}))] {
        let mut args = args;
        args["self"] = t("x");
        let p = Program::new()
            .input("x", 7, &[2])
            .call("c", op, args)
            .call("w", "add_.Tensor", json!({"self": t("c"), "other": i(10)}))
            .json(&["x", "w"]);
        let out = evaluate(&p, &[("x", ramp(&[2]))]).expect("evaluates");
        assert!(out.updates.is_empty());
        assert_eq!(floats(&out.outputs[0].1), [0.0, 1.0]);
        assert_eq!(floats(&out.outputs[1].1), [10.0, 11.0]);
    }
}

#[test]
fn chains_of_views_write_back_and_earlier_reads_stay() {
    // y = x + 0 is read before the write; v = x.t()[1] (a column of x) is overwritten with 7.
    let p = Program::new()
        .input("x", 7, &[2, 3])
        .call("y", "add.Tensor", json!({"self": t("x"), "other": i(0)}))
        .call("a", "t.default", json!({"self": t("x")}))
        .call("v", "select.int", json!({"self": t("a"), "dim": i(0), "index": i(1)}))
        .call("w", "fill_.Scalar", json!({"self": t("v"), "value": f(7.0)}))
        .json(&["y", "a", "w"]);
    let out = evaluate(&p, &[("x", ramp(&[2, 3]))]).expect("evaluates");
    assert_eq!(floats(&out.outputs[0].1), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(floats(&out.outputs[1].1), [0.0, 3.0, 7.0, 7.0, 2.0, 5.0]);
    assert_eq!(floats(&out.outputs[2].1), [7.0, 7.0]);
    assert_eq!(floats(&out.updates[0].1), [0.0, 7.0, 2.0, 3.0, 7.0, 5.0]);
}

#[test]
fn written_buffers_become_state() {
    let p = Program::new()
        .input("x", 7, &[2])
        .buffer("b_count", "m.count", 7, &[2])
        .buffer("b_still", "m.still", 7, &[2])
        .call("w", "add_.Tensor", json!({"self": t("b_count"), "other": t("x")}))
        .call("y", "mul.Tensor", json!({"self": t("b_count"), "other": i(2)}))
        .json(&["y"]);
    let imported = djinn_pt2::import_program_json(p.to_string().as_bytes()).expect("imports");
    let names: Vec<&str> = imported.srg.functions[0].arguments.iter().map(|(n, _)| &**n).collect();
    assert_eq!(names, ["x", "m.count"]);
    let out = evaluate(&p, &[("x", ramp(&[2])), ("m.count", ramp(&[2]))]).expect("evaluates");
    assert_eq!(floats(&out.outputs[0].1), [0.0, 4.0]);
    assert_eq!(
        out.updates.iter().map(|(n, v)| (n.as_str(), floats(v))).collect::<Vec<_>>(),
        [("m.count", vec![0.0, 2.0])]
    );
}

#[test]
fn copy_converts_and_broadcasts() {
    let p = Program::new()
        .input("x", 7, &[2, 2])
        .input("n", 5, &[2])
        .call("w", "copy_.default", json!({"self": t("x"), "src": t("n")}))
        .json(&["w"]);
    let n = crate::program::longs(&[2], &[5, 6]);
    let out = evaluate(&p, &[("x", ramp(&[2, 2])), ("n", n)]).expect("evaluates");
    assert_eq!(floats(&out.updates[0].1), [5.0, 6.0, 5.0, 6.0]);
}

#[test]
fn unclear_aliases_are_refused() {
    // A reshape of a transposed tensor copies or not, depending on sizes.
    let mut p = Program::new()
        .input("x", 7, &[2, 3])
        .call("a", "t.default", json!({"self": t("x")}))
        .call("v", "reshape.default", json!({"self": t("a"), "shape": ints(&[6])}))
        .call("w", "add_.Tensor", json!({"self": t("v"), "other": i(1)}))
        .json(&["w"]);
    let mut turned = crate::program::meta(7, &[3, 2]);
    turned["strides"] = json!([{"as_int": 1}, {"as_int": 3}]);
    p["graph_module"]["graph"]["tensor_values"]["a"] = turned;
    let error = djinn_pt2::import_program_json(p.to_string().as_bytes()).expect_err("refused");
    assert_eq!((error.culprit, error.code.as_str()), (djinn_diag::Culprit::Unsupported, "pt2.mutation"));
    assert!(error.place.iter().any(|p| p.contains("add_")) && error.help.is_some());
    let expanded = write_through("expand.default", json!({"size": ints(&[4, 2, 3])}));
    assert!(expanded.is_err_and(|e| e.contains("cannot be functionalised")));
}

#[test]
fn long_chains_of_views_are_refused_only_when_written() {
    let build = |written: bool| {
        let mut p = Program::new().input("x", 7, &[2, 3]);
        let mut last = "x".to_string();
        for n in 0..5000 {
            let name = format!("v{n}");
            p = p.call(&name, "t.default", json!({"self": t(&last)}));
            last = name;
        }
        if written {
            p = p.call("w", "add_.Tensor", json!({"self": t("x"), "other": i(1)}));
        }
        p.json(&[&last])
    };
    assert!(evaluate(&build(false), &[("x", ramp(&[2, 3]))]).is_ok());
    let error = djinn_pt2::import_program_json(build(true).to_string().as_bytes()).expect_err("refused");
    assert_eq!(error.code, "pt2.mutation");
}
