//! The text of a few kernels.

mod support;

use djinn_ir::{Attrs, DType, OpKind as K};
use support::Case;

#[test]
fn a_chain_is_one_loop() {
    let mut c = Case::new(true);
    let (x, y) = (c.f32(&[4, 8]), c.f32(&[8]));
    let sum = c.op(K::Add, &[x, y], Attrs::new());
    let out = c.op(K::Relu, &[sum], Attrs::new());
    insta::assert_snapshot!("chain", c.lower(&[out], &[]).expect("it lowers").mlir);
}

#[test]
fn rows_are_folded_where_they_are_needed() {
    let mut c = Case::new(false);
    let (x, scale) = (c.f32(&[4, 16]), c.f32(&[16]));
    let attrs = Attrs::new().with("axis", 1i64).with("epsilon", 1e-6);
    let out = c.op(K::RmsNorm, &[x, scale], attrs);
    insta::assert_snapshot!("rms_norm", c.lower(&[out], &[]).expect("it lowers").mlir);
}

#[test]
fn heads_are_split_and_merged_without_division() {
    let mut c = Case::new(true);
    let x = c.range(DType::F32, &[2, 3, 5, 8], 0.0, 1.0);
    let turned = c.op(K::Transpose, &[x], Attrs::new().with("perm", vec![0i64, 2, 1, 3]));
    let merged = vec![c.dim(2), c.dim(5), &c.dim(3) * &c.dim(8)];
    let out = c.op(K::Reshape, &[turned], Attrs::new().with("shape", merged));
    let text = c.lower(&[out], &[]).expect("it lowers").mlir;
    assert!(!text.contains("div") && !text.contains("rem"), "{text}");
}

#[test]
fn the_same_group_gives_the_same_text() {
    let text = || {
        let mut c = Case::new(true);
        let x = c.f32(&[4, 8]);
        let e = c.op(K::Exp, &[x], Attrs::new());
        let out = c.op(K::Softmax, &[e], Attrs::new().with("axis", 1i64));
        (c.lower(&[out], &[]).expect("it lowers"), c.lower_gpu(&[out], &[], 128).expect("it lowers"))
    };
    assert_eq!(text(), text());
}
