//! Translations of operators that the repository's models do not use, against values worked out by hand or numpy.

use crate::program::{Program, evaluate, f, first, i, ints, longs, ramp, t};
use djinn_ir::{DType, TensorData};
use serde_json::{Value, json};

/// The result of one operator over the f32 ramp x of this shape.
fn on_ramp(shape: &[i64], op: &str, mut args: Value) -> (Vec<usize>, Vec<f64>) {
    let sizes: Vec<usize> = shape.iter().map(|d| *d as usize).collect();
    if args.get("self").is_none() && args.get("input").is_none() && args.get("tensors").is_none() {
        args["self"] = t("x");
    }
    let p = Program::new().input("x", 7, shape).call("y", op, args).json(&["y"]);
    let (_, shape, values) = first(&p, &[("x", ramp(&sizes))]);
    (shape, values)
}

/// The result of one operator over i64 vectors `self` and `other`.
fn on_longs(op: &str, a: &[i64], b: &[i64], extra: Value) -> (DType, Vec<f64>) {
    let mut args = extra;
    (args["self"], args["other"]) = (t("a"), t("b"));
    let n = a.len() as i64;
    let p = Program::new().input("a", 5, &[n]).input("b", 5, &[n]).call("y", op, args).json(&["y"]);
    let (ty, _, values) = first(&p, &[("a", longs(&[a.len()], a)), ("b", longs(&[b.len()], b))]);
    (ty, values)
}

#[test]
fn integer_division_rounds_as_in_torch() {
    let (a, b) = (&[7, -7, 7, -7][..], &[2, 2, -2, -2][..]);
    let mode = |m: &str| json!({"rounding_mode": {"as_string": m}});
    assert_eq!(on_longs("floor_divide.default", a, b, json!({})), (DType::I64, vec![3.0, -4.0, -4.0, 3.0]));
    assert_eq!(on_longs("div.Tensor_mode", a, b, mode("floor")).1, [3.0, -4.0, -4.0, 3.0]);
    assert_eq!(on_longs("div.Tensor_mode", a, b, mode("trunc")).1, [3.0, -3.0, -3.0, 3.0]);
    assert_eq!(on_longs("div.Tensor", a, b, json!({})), (DType::F32, vec![3.5, -3.5, -3.5, 3.5]));
    assert_eq!(on_longs("remainder.Tensor", a, b, json!({})).1, [1.0, 1.0, -1.0, -1.0]);
    assert_eq!(on_longs("fmod.Tensor", a, b, json!({})).1, [1.0, -1.0, 1.0, -1.0]);
    assert_eq!(on_longs("sub.Tensor", a, b, json!({"alpha": i(3)})).1, [1.0, -13.0, 13.0, -1.0]);
}

#[test]
fn numbers_promote() {
    let p = |op: &str, other: Value| {
        Program::new().input("n", 5, &[2]).call("y", op, json!({"self": t("n"), "other": other})).json(&["y"])
    };
    let n = || longs(&[2], &[1, 2]);
    assert_eq!(first(&p("mul.Tensor", f(1.5)), &[("n", n())]).0, DType::F32);
    assert_eq!(first(&p("mul.Tensor", i(2)), &[("n", n())]).0, DType::I64);
    assert_eq!(first(&p("gt.Scalar", f(1.5)), &[("n", n())]), (DType::Bool, vec![2], vec![0.0, 1.0]));
    assert_eq!(first(&p("rsub.Scalar", i(10)), &[("n", n())]).2, [9.0, 8.0]);
}

#[test]
fn reductions() {
    assert_eq!(on_ramp(&[2, 3], "var.correction", json!({"dim": ints(&[1])})).1, [1.0, 1.0]);
    assert_eq!(on_ramp(&[2, 3], "sum.dim_IntList", json!({"dim": ints(&[-1, 0])})), (vec![], vec![15.0]));
    assert_eq!(on_ramp(&[2, 3], "amax.default", json!({"dim": ints(&[0])})).1, [3.0, 4.0, 5.0]);
    assert_eq!(on_ramp(&[2, 3], "argmax.default", json!({})), (vec![], vec![5.0]));
    assert_eq!(on_ramp(&[2, 3], "cumsum.default", json!({"dim": i(1)})).1, [0.0, 1.0, 3.0, 3.0, 7.0, 12.0]);
    assert_eq!(on_ramp(&[4], "linalg_vector_norm.default", json!({"ord": f(1.0)})).1, [6.0]);
    let p = Program::new()
        .input("x", 7, &[2, 3])
        .call("v p", "max.dim", json!({"self": t("x"), "dim": i(0), "keepdim": {"as_bool": true}}))
        .json(&["v", "p"]);
    let out = evaluate(&p, &[("x", ramp(&[2, 3]))]).expect("evaluates");
    assert_eq!(crate::program::floats(&out.outputs[1].1), [1.0, 1.0, 1.0]);
    assert_eq!(out.outputs[1].1.shape(), [1, 3]);
}

#[test]
fn movement() {
    assert_eq!(
        on_ramp(&[4], "roll.default", json!({"shifts": ints(&[1]), "dims": ints(&[0])})).1,
        [3.0, 0.0, 1.0, 2.0]
    );
    assert_eq!(on_ramp(&[2, 2], "flip.default", json!({"dims": ints(&[1])})).1, [1.0, 0.0, 3.0, 2.0]);
    let (shape, values) =
        on_ramp(&[2, 2], "constant_pad_nd.default", json!({"pad": ints(&[1, 0, 0, 1]), "value": f(9.0)}));
    assert_eq!((shape, values), (vec![3, 3], vec![9.0, 0.0, 1.0, 9.0, 2.0, 3.0, 9.0, 9.0, 9.0]));
    assert_eq!(on_ramp(&[2], "repeat_interleave.self_int", json!({"repeats": i(2)})).1, [0.0, 0.0, 1.0, 1.0]);
    assert_eq!(on_ramp(&[2], "repeat.default", json!({"repeats": ints(&[2, 2])})).0, [2, 4]);
    assert_eq!(
        on_ramp(&[5], "unfold.default", json!({"dimension": i(0), "size": i(3), "step": i(2)})),
        (vec![2, 3], vec![0.0, 1.0, 2.0, 2.0, 3.0, 4.0])
    );
    assert_eq!(
        on_ramp(&[1, 4, 1, 2], "pixel_shuffle.default", json!({"upscale_factor": i(2)})),
        (vec![1, 1, 2, 4], vec![0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0])
    );
    assert_eq!(on_ramp(&[2, 3, 4], "movedim.int", json!({"source": i(0), "destination": i(2)})).0, [3, 4, 2]);
    assert_eq!(on_ramp(&[2, 1, 3, 1], "squeeze.default", json!({})).0, [2, 3]);
    assert_eq!(on_ramp(&[6], "unflatten.int", json!({"dim": i(0), "sizes": ints(&[2, -1])})).0, [2, 3]);
}

#[test]
fn creation() {
    let range = json!({"start": i(5), "end": i(0), "step": i(-2), "self": t("x")});
    assert_eq!(on_ramp(&[1], "arange.start_step", range).1, [5.0, 3.0, 1.0]);
    assert_eq!(
        on_ramp(&[1], "eye.m", json!({"n": i(2), "m": i(3), "self": t("x")})).1,
        [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    );
    let line = json!({"start": f(0.0), "end": f(1.0), "steps": i(3), "self": t("x")});
    assert_eq!(on_ramp(&[1], "linspace.default", line).1, [0.0, 0.5, 1.0]);
    let p = Program::new()
        .input("n", 5, &[2])
        .call("y", "one_hot.default", json!({"self": t("n"), "num_classes": i(3)}))
        .json(&["y"]);
    assert_eq!(first(&p, &[("n", longs(&[2], &[2, 0]))]).2, [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
}

/// x [2, 3, 4] = 0..24 with index tensors a = [1, 0] and b = [2, 3].
fn indexed(op: &str, mut args: Value, indices: Value) -> (Vec<usize>, Vec<f64>) {
    (args["self"], args["indices"]) = (t("x"), json!({"as_optional_tensors": indices}));
    let p = Program::new()
        .input("x", 7, &[2, 3, 4])
        .input("a", 5, &[2])
        .input("b", 5, &[2])
        .call("y", op, args)
        .json(&["y"]);
    let given = [("x", ramp(&[2, 3, 4])), ("a", longs(&[2], &[1, 0])), ("b", longs(&[2], &[2, 3]))];
    let (_, shape, values) = first(&p, &given);
    (shape, values)
}

#[test]
fn advanced_indexing() {
    let none = || json!({"as_none": true});
    // numpy: x[:, a, b] keeps the index axes in place, x[a, :, b] brings them to the front.
    let (shape, values) = indexed("index.Tensor", json!({}), json!([none(), t("a"), t("b")]));
    assert_eq!((shape, values), (vec![2, 2], vec![6.0, 3.0, 18.0, 15.0]));
    let (shape, values) = indexed("index.Tensor", json!({}), json!([t("a"), none(), t("b")]));
    assert_eq!((shape, values), (vec![2, 3], vec![14.0, 18.0, 22.0, 3.0, 7.0, 11.0]));
    let (shape, values) = indexed("index.Tensor", json!({}), json!([none(), none(), t("b")]));
    assert_eq!((shape, values[..4].to_vec()), (vec![2, 3, 2], vec![2.0, 3.0, 6.0, 7.0]));
    let add = |v: f64| {
        let p = Program::new()
            .input("x", 7, &[2, 2])
            .input("a", 5, &[2])
            .call("v", "full.default", json!({"size": ints(&[]), "fill_value": f(v)}))
            .call(
                "y",
                "index_put.default",
                json!({"self": t("x"), "indices": {"as_tensors": [{"name": "a"}, {"name": "a"}]},
                       "values": t("v"), "accumulate": {"as_bool": true}}),
            )
            .json(&["y"]);
        first(&p, &[("x", ramp(&[2, 2])), ("a", longs(&[2], &[1, 1]))]).2
    };
    assert_eq!(add(10.0), [0.0, 1.0, 2.0, 23.0]);
}

#[test]
fn masks() {
    let bools = |v: &[u8]| TensorData::new(DType::Bool, vec![v.len()], v.to_vec()).expect("sizes agree");
    let p = Program::new()
        .input("x", 7, &[3])
        .input("m", 12, &[3])
        .call("y", "index.Tensor", json!({"self": t("x"), "indices": {"as_tensors": [{"name": "m"}]}}))
        .json(&["y"]);
    let given = [("x", ramp(&[3])), ("m", bools(&[1, 0, 1]))];
    assert_eq!(first(&p, &given).2, [0.0, 2.0]);
    let p = Program::new()
        .input("x", 7, &[3])
        .input("m", 12, &[3])
        .call("v", "scalar_tensor.default", json!({"s": f(9.0)}))
        .call(
            "w",
            "index_put_.default",
            json!({
            "self": t("x"), "indices": {"as_tensors": [{"name": "m"}]}, "values": t("v")}),
        )
        .json(&["w"]);
    assert_eq!(first(&p, &given).2, [9.0, 1.0, 9.0]);
}

#[test]
fn scatters() {
    let p = |op: &str, extra: Value| {
        let mut args = extra;
        (args["self"], args["index"], args["dim"]) = (t("x"), t("n"), i(1));
        Program::new().input("x", 7, &[2, 3]).input("n", 5, &[2, 1]).call("y", op, args).json(&["y"])
    };
    let given = [("x", ramp(&[2, 3])), ("n", longs(&[2, 1], &[2, 0]))];
    assert_eq!(
        first(&p("scatter.value", json!({"value": f(-1.0)})), &given).2,
        [0.0, 1.0, -1.0, -1.0, 4.0, 5.0]
    );
    assert_eq!(
        first(&p("scatter_add.default", json!({"src": t("x")})), &given).2,
        [0.0, 1.0, 2.0, 6.0, 4.0, 5.0]
    );
    assert_eq!(first(&p("gather.default", json!({})), &given).2, [2.0, 3.0]);
}

#[test]
fn pooling_and_resampling() {
    let sizes = |v: &[i64]| json!({"output_size": ints(v)});
    assert_eq!(on_ramp(&[1, 1, 5], "adaptive_avg_pool1d.default", sizes(&[3])).1, [0.5, 2.0, 3.5]);
    assert_eq!(on_ramp(&[1, 1, 4, 2], "adaptive_avg_pool2d.default", sizes(&[2, 1])).1, [1.5, 5.5]);
    let nearest = json!({"output_size": ints(&[4]), "self": t("x")});
    assert_eq!(on_ramp(&[1, 1, 2], "upsample_nearest1d.default", nearest).1, [0.0, 0.0, 1.0, 1.0]);
    let linear = json!({"output_size": ints(&[4]), "align_corners": {"as_bool": false}, "self": t("x")});
    assert_eq!(on_ramp(&[1, 1, 2], "upsample_linear1d.default", linear).1, [0.0, 0.25, 0.75, 1.0]);
    let window = json!({"kernel_size": ints(&[2])});
    assert_eq!(on_ramp(&[1, 4], "max_pool1d.default", window).1, [1.0, 3.0]);
}

#[test]
fn einsum_contracts_batches_and_free_labels() {
    let p = |equation: &str, a: &[i64], b: &[i64]| {
        Program::new()
            .input("a", 7, a)
            .input("b", 7, b)
            .call("y", "einsum.default", json!({
                "equation": {"as_string": equation}, "tensors": {"as_tensors": [{"name": "a"}, {"name": "b"}]}}))
            .json(&["y"])
    };
    let given = [("a", ramp(&[2, 3])), ("b", ramp(&[3, 2]))];
    assert_eq!(first(&p("ij,jk->ki", &[2, 3], &[3, 2]), &given).2, [10.0, 28.0, 13.0, 40.0]);
    assert_eq!(first(&p("ij,jk", &[2, 3], &[3, 2]), &given).2, [10.0, 13.0, 28.0, 40.0]);
    let given = [("a", ramp(&[2, 3])), ("b", ramp(&[2, 3]))];
    assert_eq!(first(&p("...i,...i->...", &[2, 3], &[2, 3]), &given).2, [5.0, 50.0]);
    assert_eq!(first(&p("ai,bi->", &[2, 3], &[2, 3]), &given).2, [9.0 + 25.0 + 49.0]);
}

#[test]
fn activations() {
    assert_eq!(
        on_ramp(&[3], "hardtanh.default", json!({"min_val": f(0.5), "max_val": f(1.5)})).1,
        [0.5, 1.0, 1.5]
    );
    assert_eq!(on_ramp(&[3], "clamp.default", json!({"max": i(1)})).1, [0.0, 1.0, 1.0]);
    assert_eq!(
        on_ramp(&[3], "threshold.default", json!({"threshold": i(1), "value": i(7)})).1,
        [7.0, 7.0, 2.0]
    );
    assert_eq!(on_ramp(&[3], "pow.Scalar", json!({"self": f(2.0), "exponent": t("x")})).1, [1.0, 2.0, 4.0]);
    let (_, safe) = on_ramp(&[2], "log1p.default", json!({}));
    assert!((safe[1] - 2f64.ln()).abs() < 1e-6);
}

#[test]
fn unknown_operators_are_kept_opaque() {
    let mut p = Program::new()
        .input("x", 7, &[2])
        .call("y", "frobnicate.default", json!({"self": t("x"), "strength": f(0.5)}))
        .json(&["y"]);
    p["graph_module"]["graph"]["tensor_values"]["y"] = crate::program::meta(7, &[3]);
    let imported = djinn_pt2::import_program_json(p.to_string().as_bytes()).expect("imports");
    assert_eq!(imported.report.opaque.get("aten.frobnicate.default"), Some(&1));
    let module = djinn_srg::lower(&imported.srg).expect("lowers");
    assert_eq!(
        module.functions[0].graph.ty(module.functions[0].graph.results[0]).to_string(),
        "tensor<3xf32>"
    );
    let text = p.to_string().replace("frobnicate.default", "frobnicate_.default");
    let error = djinn_pt2::import_program_json(text.as_bytes()).expect_err("refused");
    assert_eq!(error.culprit, djinn_diag::Culprit::Unsupported);
}
