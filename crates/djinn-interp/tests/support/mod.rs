//! What the tests against reference values share.

#![allow(dead_code, reason = "not every test file uses all of it")]

use djinn_interp::{Env, Tolerance, compare, eval_op};
use djinn_ir::{Attrs, DType, Dim, OpKind, TensorData};

/// A tensor of `f32` values.
pub(crate) fn f(shape: &[usize], values: &[f32]) -> TensorData {
    TensorData::from_f32(shape, values).expect("values fit the shape")
}

/// A tensor of `i64` values.
pub(crate) fn i(shape: &[usize], values: &[i64]) -> TensorData {
    TensorData::from_i64(shape, values).expect("values fit the shape")
}

/// A boolean tensor.
pub(crate) fn b(shape: &[usize], values: &[u8]) -> TensorData {
    TensorData::new(DType::Bool, shape.to_vec(), values.to_vec()).expect("values fit the shape")
}

/// Constant sizes.
pub(crate) fn dims(values: &[i64]) -> Vec<Dim> {
    values.iter().map(|v| Dim::from(*v)).collect()
}

/// Symbols that nothing has bound yet.
pub(crate) fn fresh(rank: usize) -> Vec<Dim> {
    (0..rank).map(|n| Dim::symbol(&format!("fresh{n}"))).collect()
}

/// Evaluates an operation and compares the results with what was expected.
pub(crate) fn check(kind: OpKind, attrs: Attrs, operands: &[TensorData], expected: &[TensorData]) {
    let results = eval_op(kind, &attrs, operands, &[], &mut Env::new(), &|_| None);
    let results = results.unwrap_or_else(|e| panic!("{kind:?} {attrs:?}: {e}"));
    assert_eq!(results.len(), expected.len());
    for (actual, expected) in results.iter().zip(expected) {
        let tolerance = Tolerance::Approx { rtol: 2e-5, atol: 2e-6 };
        if let Err(mismatch) = compare(expected, actual, tolerance) {
            panic!("{kind:?} {attrs:?}: {mismatch}");
        }
    }
}
