//! Sums of products in tiles beside the evaluator, at sizes that tiles do not divide.

mod support;

use djinn_ir::{Attrs, DType, OpKind as K};
use support::{Case, both, compiler};

fn conv(strides: [i64; 2], pads: [i64; 4], dilations: [i64; 2], groups: i64) -> Attrs {
    Attrs::new()
        .with("strides", strides.to_vec())
        .with("pads", pads.to_vec())
        .with("dilations", dilations.to_vec())
        .with("groups", groups)
}

/// Does the kernel use tiles?
fn is_tiled(c: &Case, write: djinn_ir::ValueId) -> bool {
    c.lower_gpu(&[write], &[], 256).expect("it lowers").mlir.contains("%left: memref")
}

#[test]
fn products_of_matrices() {
    let Some(compiler) = compiler("products_of_matrices") else { return };
    for [m, k, n] in [[9, 17, 11], [67, 33, 65], [8, 8, 8], [16, 1, 31], [65, 100, 9], [2, 40, 50]] {
        both(&format!("{m}×{k}×{n}"), &compiler, |c| {
            let (a, b) = (c.range(DType::F32, &[m, k], 0.0, 1.0), c.range(DType::F32, &[k, n], 0.0, 1.0));
            let y = c.op(K::MatMul, &[a, b], Attrs::new());
            assert_eq!(is_tiled(c, y), c.symbolic() && k > 1 || m.min(k).min(n) >= 8, "{m} {k} {n}");
            vec![y]
        });
    }
    for dtype in [DType::F16, DType::BF16, DType::F64, DType::I32, DType::I64, DType::U8] {
        both(&format!("{dtype}"), &compiler, |c| {
            let (a, b) = (c.range(dtype, &[21, 35], 0.0, 3.0), c.range(dtype, &[35, 13], 0.0, 3.0));
            vec![c.op(K::MatMul, &[a, b], Attrs::new())]
        });
    }
}

#[test]
fn batches_and_fused_operations() {
    let Some(compiler) = compiler("batches_and_fused_operations") else { return };
    for (left, right) in [
        (vec![3, 1, 9, 10], vec![1, 2, 10, 12]),
        (vec![2, 4, 9, 10], vec![10, 12]),
        (vec![9, 10], vec![5, 10, 12]),
    ] {
        both(&format!("{left:?} {right:?}"), &compiler, |c| {
            let (a, b) = (c.f32(&left), c.f32(&right));
            vec![c.op(K::MatMul, &[a, b], Attrs::new())]
        });
    }
    both("fused", &compiler, |c| {
        let (a, b, bias) = (c.f32(&[19, 23]), c.f32(&[14, 23]), c.f32(&[14]));
        let a = c.op(K::Silu, &[a], Attrs::new());
        let b = c.op(K::Transpose, &[b], Attrs::new().with("perm", vec![1i64, 0]));
        let y = c.op(K::MatMul, &[a, b], Attrs::new());
        let y = c.op(K::Add, &[y, bias], Attrs::new());
        let z = c.op(K::Gelu, &[y], Attrs::new().with("approximate", "tanh"));
        vec![y, z, c.op(K::Softmax, &[z], Attrs::new().with("axis", 1i64))]
    });
    both("heads", &compiler, |c| {
        let x = c.range(DType::F32, &[2, 11, 3, 16], 0.0, 1.0);
        let turned = c.op(K::Transpose, &[x], Attrs::new().with("perm", vec![0i64, 2, 1, 3]));
        let across = c.op(K::Transpose, &[x], Attrs::new().with("perm", vec![0i64, 2, 3, 1]));
        let scores = c.op(K::MatMul, &[turned, across], Attrs::new());
        let out = c.op(K::MatMul, &[scores, turned], Attrs::new());
        vec![c.op(K::Transpose, &[out], Attrs::new().with("perm", vec![0i64, 2, 1, 3]))]
    });
    both("two in a row", &compiler, |c| {
        let (a, b) = (c.range(DType::BF16, &[12, 16], -1.0, 1.0), c.range(DType::BF16, &[16, 10], -1.0, 1.0));
        let y = c.op(K::MatMul, &[a, b], Attrs::new());
        let y = c.op(K::Relu, &[y], Attrs::new());
        let w = c.range(DType::BF16, &[10, 9], -1.0, 1.0);
        vec![c.op(K::MatMul, &[y, w], Attrs::new())]
    });
}

#[test]
fn convolutions() {
    let Some(compiler) = compiler("convolutions") else { return };
    for (strides, pads, dilations, groups) in [
        ([1, 1], [0, 0, 0, 0], [1, 1], 1),
        ([2, 1], [1, 2, 0, 3], [1, 2], 1),
        ([1, 1], [1, 1, 1, 1], [1, 1], 2),
        ([3, 3], [2, 2, 2, 2], [1, 1], 4),
    ] {
        both(&format!("strides {strides:?}, groups {groups}"), &compiler, |c| {
            c.keep_constant(&[4 / groups, 3, 20, 2]);
            c.keep_constant(&[4]);
            let (x, w) = (c.f32(&[2, 4, 9, 13]), c.f32(&[20, 4 / groups, 3, 2]));
            let bias = c.f32(&[20]);
            let y = c.op(K::Conv, &[x, w, bias], conv(strides, pads, dilations, groups));
            if groups == 1 {
                assert!(is_tiled(c, y));
            }
            vec![y, c.op(K::Relu, &[y], Attrs::new())]
        });
    }
}

#[test]
fn folds_of_columns() {
    let Some(compiler) = compiler("folds_of_columns") else { return };
    both("a row and a matrix", &compiler, |c| {
        let (a, b) = (c.range(DType::F32, &[1, 150], 0.0, 1.0), c.range(DType::F32, &[150, 70], 0.0, 1.0));
        let y = c.op(K::MatMul, &[a, b], Attrs::new());
        let kernel = c.lower_gpu(&[y], &[], 256).expect("it lowers");
        assert!(kernel.mlir.contains("arith.minui"), "neighbouring threads take neighbouring columns");
        vec![c.op(K::Gelu, &[y], Attrs::new().with("approximate", "tanh")), y]
    });
    for kind in [K::ReduceSum, K::ReduceMax, K::ReduceMean, K::ReduceMin] {
        for dtype in [DType::F32, DType::I32, DType::BF16] {
            both(&format!("{} of {dtype}", kind.name()), &compiler, |c| {
                let x = c.range(dtype, &[3, 77, 35], 0.0, 4.0);
                let attrs = |axes: Vec<i64>| Attrs::new().with("axes", axes).with("keepdims", false);
                let (y, z) = (c.op(kind, &[x], attrs(vec![1])), c.op(kind, &[x], attrs(vec![0, 1])));
                vec![y, z, c.op(K::Neg, &[y], Attrs::new())]
            });
        }
    }
}
