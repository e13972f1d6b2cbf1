//! Every operation as a kernel, at several sizes, constant and symbolic, beside the evaluator.

mod support;

use djinn_ir::{Attrs, DType, OpKind as K, TensorData, ValueId};
use support::{Case, both, compiler};

#[test]
fn functions_of_one_operand() {
    let Some(compiler) = compiler("functions_of_one_operand") else { return };
    let plain = [
        K::Abs,
        K::Neg,
        K::Sign,
        K::Exp,
        K::Sin,
        K::Cos,
        K::Tan,
        K::Atan,
        K::Sinh,
        K::Cosh,
        K::Tanh,
        K::Asinh,
        K::Erf,
        K::Sigmoid,
        K::Softplus,
        K::Relu,
        K::Silu,
        K::HardSwish,
        K::Mish,
        K::Floor,
        K::Ceil,
        K::Round,
        K::IsNan,
    ];
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        both(&format!("{dtype}"), &compiler, |c| {
            let x = c.range(dtype, &[37], -6.0, 6.0);
            plain.iter().map(|k| c.op(*k, &[x], Attrs::new())).collect()
        });
    }
    both("positive", &compiler, |c| {
        let x = c.range(DType::F32, &[5, 7], 1e-3, 9.0);
        [K::Log, K::Sqrt, K::Rsqrt, K::Reciprocal].iter().map(|k| c.op(*k, &[x], Attrs::new())).collect()
    });
    both("above 1", &compiler, |c| {
        let x = c.range(DType::F32, &[9], 1.0, 50.0);
        vec![c.op(K::Acosh, &[x], Attrs::new())]
    });
    both("below 1", &compiler, |c| {
        let x = c.range(DType::F32, &[19], -1.0, 1.0);
        [K::Asin, K::Acos, K::Atanh].iter().map(|k| c.op(*k, &[x], Attrs::new())).collect()
    });
    both("large angles", &compiler, |c| {
        let x = c.range(DType::F32, &[999], -1e6, 1e6);
        [K::Sin, K::Cos].iter().map(|k| c.op(*k, &[x], Attrs::new())).collect()
    });
    both("wide range", &compiler, |c| {
        let x = c.range(DType::F32, &[777], -110.0, 110.0);
        [K::Exp, K::Sigmoid, K::Tanh, K::Erf, K::Softplus]
            .iter()
            .map(|k| c.op(*k, &[x], Attrs::new()))
            .collect()
    });
    both("attributes", &compiler, |c| {
        let x = c.f32(&[3, 11]);
        let gelu = |word: &str| Attrs::new().with("approximate", word);
        vec![
            c.op(K::Gelu, &[x], gelu("none")),
            c.op(K::Gelu, &[x], gelu("tanh")),
            c.op(K::LeakyRelu, &[x], Attrs::new().with("alpha", 0.1)),
            c.op(K::Elu, &[x], Attrs::new().with("alpha", 1.5)),
            c.op(K::HardSigmoid, &[x], Attrs::new().with("alpha", 0.2).with("beta", 0.5)),
        ]
    });
}

#[test]
fn special_values() {
    let Some(compiler) = compiler("special_values") else { return };
    let inf = f32::INFINITY;
    let values = [0.0, -0.0, 1.0, -1.0, inf, -inf, f32::NAN, 1e-40, 3e38, -3e38, 0.5, 1.5, 2.5];
    both("specials", &compiler, |c| {
        let x = c.argument(TensorData::from_f32(&[13], &values).expect("fits"), &[13]);
        let mut out: Vec<ValueId> = [
            K::Exp,
            K::Log,
            K::Tanh,
            K::Erf,
            K::Sigmoid,
            K::Relu,
            K::Sign,
            K::Round,
            K::Softplus,
            K::Sqrt,
            K::Silu,
            K::Abs,
            K::Atan,
        ]
        .iter()
        .map(|k| c.op(*k, &[x], Attrs::new()))
        .collect();
        for to in DType::ALL {
            if to != DType::F32 {
                out.push(c.op(K::Cast, &[x], Attrs::new().with("to", to)));
            }
        }
        out.push(c.op(K::IsInf, &[x], Attrs::new().with("negative", true).with("positive", true)));
        out
    });
}

#[test]
fn functions_of_two_operands() {
    let Some(compiler) = compiler("functions_of_two_operands") else { return };
    for dtype in [DType::F32, DType::I32, DType::I64, DType::U8, DType::I8, DType::BF16] {
        both(&format!("{dtype}"), &compiler, |c| {
            let low = if dtype.is_signed() { -4.0 } else { 0.0 };
            let a = c.range(dtype, &[3, 1, 5], low, 5.0);
            let b = c.range(dtype, &[4, 5], low, 5.0);
            let mut out: Vec<ValueId> = [K::Add, K::Sub, K::Mul, K::Min, K::Max]
                .iter()
                .map(|k| c.op(*k, &[a, b], Attrs::new()))
                .collect();
            if !dtype.is_float() {
                out.push(c.op(K::Div, &[a, b], Attrs::new()));
                out.extend([K::And, K::Or, K::Xor, K::Shl, K::Shr].map(|k| c.op(k, &[a, b], Attrs::new())));
                out.push(c.op(K::Mod, &[a, b], Attrs::new().with("fmod", false)));
            }
            out.push(c.op(K::Mod, &[a, b], Attrs::new().with("fmod", true)));
            for p in djinn_ir::ops::PREDICATES {
                out.push(c.op(K::Compare, &[a, b], Attrs::new().with("predicate", *p)));
            }
            let cond = out[out.len() - 1];
            out.push(c.op(K::Select, &[cond, a, b], Attrs::new()));
            out
        });
    }
    both("pow", &compiler, |c| {
        let a = c.range(DType::F32, &[6, 5], 0.0, 4.0);
        let b = c.f32(&[5]);
        vec![c.op(K::Pow, &[a, b], Attrs::new())]
    });
}

#[test]
fn movement() {
    let Some(compiler) = compiler("movement") else { return };
    both("views", &compiler, |c| {
        let x = c.f32(&[2, 6, 5]);
        let t = c.op(K::Transpose, &[x], Attrs::new().with("perm", vec![1i64, 2, 0]));
        let shape = c.dims(&[6, 10]);
        let shape =
            if shape[1].as_const().is_none() { vec![shape[0].clone(), &c.dim(5) * &c.dim(2)] } else { shape };
        let r = c.op(K::Reshape, &[t], Attrs::new().with("shape", shape));
        let e = c.op(K::Exp, &[r], Attrs::new());
        let reversed = c.op(K::Reverse, &[e], Attrs::new().with("axes", vec![1i64]));
        let repeats = vec![djinn_ir::Dim::from(2), djinn_ir::Dim::from(3)];
        let tiled = c.op(K::Tile, &[reversed], Attrs::new().with("repeats", repeats));
        vec![t, r, reversed, tiled]
    });
    both("slices and joins", &compiler, |c| {
        let x = c.f32(&[4, 9]);
        let y = c.f32(&[4, 3]);
        let slice = |start: i64, limit: i64, stride: i64| {
            let (start, limit) = (djinn_ir::Dim::from(start), djinn_ir::Dim::from(limit));
            Attrs::new().with("axis", 1i64).with("start", start).with("limit", limit).with("stride", stride)
        };
        let s = c.op(K::Slice, &[x], slice(1, 8, 3));
        let neg = c.op(K::Neg, &[s], Attrs::new());
        let joined = c.op(K::Concat, &[y, neg, x], Attrs::new().with("axis", 1i64));
        let used = c.op(K::Relu, &[joined], Attrs::new());
        vec![s, joined, used]
    });
    for mode in ["constant", "reflect", "edge", "wrap"] {
        both(mode, &compiler, |c| {
            let x = c.f32(&[3, 4, 5]);
            let fill = c.argument(TensorData::from_f32(&[], &[7.5]).expect("fits"), &[]);
            let low: Vec<djinn_ir::Dim> = [0i64, 2, 1].map(djinn_ir::Dim::from).to_vec();
            let high: Vec<djinn_ir::Dim> = [1i64, 1, 2].map(djinn_ir::Dim::from).to_vec();
            let attrs = Attrs::new().with("low", low).with("high", high).with("mode", mode);
            vec![c.op(K::Pad, &[x, fill], attrs)]
        });
    }
    both("triangles and sources", &compiler, |c| {
        let x = c.f32(&[2, 5, 6]);
        let shape = c.dims(&[5, 6]);
        vec![
            c.op(K::Trilu, &[x], Attrs::new().with("upper", true).with("k", 1i64)),
            c.op(K::Trilu, &[x], Attrs::new().with("upper", false).with("k", 0i64)),
            c.op(
                K::Iota,
                &[],
                Attrs::new().with("shape", shape).with("axis", 1i64).with("dtype", DType::F32),
            ),
        ]
    });
}

#[test]
fn indices() {
    let Some(compiler) = compiler("indices") else { return };
    both("gathers", &compiler, |c| {
        let x = c.f32(&[4, 6, 3]);
        let i = c.range(DType::I64, &[5], -6.0, 6.0);
        let elements = c.range(DType::I32, &[4, 2, 3], -6.0, 6.0);
        vec![
            c.op(K::Gather, &[x, i], Attrs::new().with("axis", 1i64)),
            c.op(K::GatherElements, &[x, elements], Attrs::new().with("axis", 1i64)),
        ]
    });
    let mut c = Case::new(false);
    let x = c.f32(&[4, 6, 3]);
    let tuples = c.range(DType::I64, &[5, 2], -4.0, 4.0);
    let updates = c.f32(&[5, 3]);
    let elements = c.range(DType::I64, &[2, 6, 3], -4.0, 4.0);
    let more = c.f32(&[2, 6, 3]);
    let index = c.argument(TensorData::from_i64(&[3], &[1, 4, 1]).expect("fits"), &[3]);
    let source = c.f32(&[4, 3, 3]);
    let mut writes = vec![
        c.op(K::GatherNd, &[x, tuples], Attrs::new().with("batch_dims", 0i64)),
        c.op(K::IndexCopy, &[x, index, source], Attrs::new().with("axis", 1i64)),
    ];
    for how in djinn_ir::ops::SCATTER_REDUCTIONS {
        let attrs = Attrs::new().with("reduction", *how);
        writes.push(c.op(K::ScatterNd, &[x, tuples, updates], attrs.clone()));
        writes.push(c.op(K::ScatterElements, &[x, elements, more], attrs.with("axis", 0i64)));
    }
    c.check("scatters", &writes, &[], &compiler);
}

#[test]
fn reductions() {
    let Some(compiler) = compiler("reductions") else { return };
    for dtype in [DType::F32, DType::F16, DType::I32, DType::I64] {
        for axes in [vec![2i64], vec![1], vec![0, 2], vec![0, 1, 2]] {
            both(&format!("{dtype} over {axes:?}"), &compiler, |c| {
                let x = c.range(dtype, &[3, 4, 17], -2.0, 3.0);
                let attrs = |keep: bool| Attrs::new().with("axes", axes.clone()).with("keepdims", keep);
                let mut out: Vec<ValueId> = [K::ReduceSum, K::ReduceMax, K::ReduceMin, K::ReduceMean]
                    .iter()
                    .map(|k| c.op(*k, &[x], attrs(true)))
                    .collect();
                out.push(c.op(K::ReduceProd, &[x], attrs(false)));
                out
            });
        }
    }
    both("positions and scans", &compiler, |c| {
        let x = c.range(DType::F32, &[3, 8, 5], -2.0, 2.0);
        let whole = c.op(K::Round, &[x], Attrs::new());
        let mut out = Vec::new();
        for last in [false, true] {
            let attrs = Attrs::new().with("axis", 1i64).with("keepdims", last).with("select_last", last);
            out.push(c.op(K::ArgMax, &[whole], attrs.clone()));
            out.push(c.op(K::ArgMin, &[whole], attrs));
            let attrs = Attrs::new().with("axis", 1i64).with("exclusive", last).with("reverse", last);
            out.push(c.op(K::CumSum, &[x], attrs.clone()));
            out.push(c.op(K::CumProd, &[x], attrs));
        }
        out
    });
}

#[test]
fn normalisations() {
    let Some(compiler) = compiler("normalisations") else { return };
    for dtype in [DType::F32, DType::BF16] {
        both(&format!("{dtype}"), &compiler, |c| {
            let x = c.range(dtype, &[2, 6, 10], -3.0, 3.0);
            let residual = c.range(dtype, &[2, 6, 10], -3.0, 3.0);
            let (scale, bias) = (c.range(dtype, &[10], 0.5, 2.0), c.range(dtype, &[10], -1.0, 1.0));
            let sum = c.op(K::Add, &[x, residual], Attrs::new());
            let attrs = Attrs::new().with("axis", 2i64).with("epsilon", 1e-5);
            let layer = c.op(K::LayerNorm, &[sum, scale, bias], attrs.clone());
            let rms = c.op(K::RmsNorm, &[sum, scale], attrs);
            vec![
                sum,
                layer,
                rms,
                c.op(K::Softmax, &[sum], Attrs::new().with("axis", 2i64)),
                c.op(K::Softmax, &[x], Attrs::new().with("axis", 1i64)),
                c.op(K::LogSoftmax, &[x], Attrs::new().with("axis", 2i64)),
            ]
        });
    }
    let mut c = Case::new(false);
    let x = c.f32(&[2, 6, 4, 5]);
    let channel = |c: &mut Case| c.range(DType::F32, &[6], 0.5, 2.0);
    let (scale, bias, mean, var) = (channel(&mut c), channel(&mut c), channel(&mut c), channel(&mut c));
    let writes = vec![
        c.op(K::GroupNorm, &[x, scale, bias], Attrs::new().with("groups", 3i64).with("epsilon", 1e-5)),
        c.op(K::BatchNorm, &[x, scale, bias, mean, var], Attrs::new().with("epsilon", 1e-5)),
    ];
    c.check("group_norm and batch_norm", &writes, &[], &compiler);
}

#[test]
fn rotary_embedding_pools_and_contractions() {
    let Some(compiler) = compiler("rotary_embedding_pools_and_contractions") else { return };
    for interleaved in [false, true] {
        let mut c = Case::new(false);
        let (x, y) = (c.f32(&[2, 3, 5, 8]), c.f32(&[2, 5, 24]));
        let (cos, sin) = (c.f32(&[1, 5, 4]), c.f32(&[1, 5, 4]));
        let attrs = |heads: i64| Attrs::new().with("interleaved", interleaved).with("heads", heads);
        let writes = vec![c.op(K::Rope, &[x, cos, sin], attrs(0)), c.op(K::Rope, &[y, cos, sin], attrs(3))];
        c.check("rope", &writes, &[], &compiler);
    }
    let mut c = Case::new(false);
    let x = c.f32(&[2, 4, 9, 8]);
    let pool = |ceil: bool| {
        Attrs::new()
            .with("kernel", vec![3i64, 2])
            .with("strides", vec![2i64, 2])
            .with("pads", vec![1i64, 0, 1, 1])
            .with("dilations", vec![1i64, 1])
            .with("ceil_mode", ceil)
    };
    let w = c.f32(&[6, 2, 3, 3]);
    let bias = c.f32(&[6]);
    let conv = Attrs::new()
        .with("strides", vec![2i64, 1])
        .with("pads", vec![1i64, 1, 1, 0])
        .with("dilations", vec![1i64, 2])
        .with("groups", 2i64);
    let wt = c.f32(&[4, 3, 3, 2]);
    let (a, b) = (c.f32(&[2, 5, 7]), c.f32(&[7, 6]));
    let (q, k, v) = (c.f32(&[1, 4, 3, 8]), c.f32(&[1, 2, 5, 8]), c.f32(&[1, 2, 5, 6]));
    let sdpa = Attrs::new()
        .with("scale", 0.3)
        .with("causal", true)
        .with("causal_offset", djinn_ir::Dim::from(2))
        .with("query_heads", 0i64)
        .with("kv_heads", 0i64);
    let writes = vec![
        c.op(K::MaxPool, &[x], pool(true)),
        c.op(K::AvgPool, &[x], pool(true).with("count_include_pad", false)),
        c.op(K::AvgPool, &[x], pool(false).with("count_include_pad", true)),
        c.op(K::Conv, &[x, w, bias], conv.clone()),
        c.op(K::ConvTranspose, &[x, wt], conv.with("output_padding", vec![1i64, 0])),
        c.op(K::MatMul, &[a, b], Attrs::new()),
        c.op(K::Sdpa, &[q, k, v], sdpa),
    ];
    c.check("pools and contractions", &writes, &[], &compiler);
}

#[test]
fn empty_and_unit_sizes() {
    let Some(compiler) = compiler("empty_and_unit_sizes") else { return };
    for shape in [[0i64, 4], [4, 0], [1, 1], [1, 7]] {
        both(&format!("{shape:?}"), &compiler, |c| {
            let x = c.f32(&shape);
            let e = c.op(K::Exp, &[x], Attrs::new());
            let attrs = Attrs::new().with("axes", vec![1i64]).with("keepdims", true);
            let sum = c.op(K::ReduceSum, &[e], attrs);
            let joined = c.op(K::Concat, &[e, x], Attrs::new().with("axis", 1i64));
            vec![e, sum, joined, c.op(K::Softmax, &[x], Attrs::new().with("axis", 1i64))]
        });
    }
}

#[test]
fn results_in_place_of_operands() {
    let Some(compiler) = compiler("results_in_place_of_operands") else { return };
    for rows in [1i64, 3] {
        let mut c = Case::new(false);
        let (past, new) = (c.f32(&[rows, 4, 2]), c.f32(&[rows, 2, 2]));
        let negated = c.op(K::Neg, &[new], Attrs::new());
        let joined = c.op(K::Concat, &[past, negated], Attrs::new().with("axis", 1i64));
        c.check("append", &[joined], &[(0, 0)], &compiler);
    }
    let mut c = Case::new(false);
    let (x, y) = (c.f32(&[4, 6]), c.f32(&[4, 6]));
    let sum = c.op(K::Add, &[x, y], Attrs::new());
    let soft = c.op(K::Softmax, &[sum], Attrs::new().with("axis", 1i64));
    c.check("softmax in place", &[soft], &[(0, 0)], &compiler);
    let mut c = Case::new(false);
    let x = c.f32(&[4, 6]);
    let reversed = c.op(K::Reverse, &[x], Attrs::new().with("axes", vec![0i64]));
    let sum = c.op(K::Add, &[x, reversed], Attrs::new());
    c.check("a hazard", &[sum], &[(0, 0)], &compiler);
    let mut c = Case::new(false);
    let (x, source) = (c.f32(&[4, 6]), c.f32(&[2, 6]));
    let index = c.argument(TensorData::from_i64(&[2], &[3, 1]).expect("fits"), &[2]);
    let y = c.op(K::IndexCopy, &[x, index, source], Attrs::new().with("axis", 0i64));
    c.check("index_copy in place", &[y], &[(0, 0)], &compiler);
}
