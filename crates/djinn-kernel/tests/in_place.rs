//! GPU kernels that write into the memory of their operands.

mod support;

use djinn_ir::{Attrs, DType, Dim, OpKind as K, ValueId};
use djinn_kernel::Param;
use support::{Case, compiler};

/// Bytes that the launches write, aliased and not; fails if the aliased kernel still takes the operand.
fn written(c: &Case, writes: &[ValueId], aliases: &[(usize, usize)]) -> (Dim, Dim) {
    let total = |aliases: &[(usize, usize)]| {
        let kernel = c.lower_gpu(writes, aliases, 256).expect("it lowers");
        let aliased = aliases.iter().map(|(r, _)| Param::Read(c.graph.arguments[*r]));
        aliased.for_each(|read| assert!(!kernel.params.contains(&read), "{:?}", kernel.params));
        kernel.launches.iter().fold(Dim::ZERO, |n, l| &n + &l.bytes_written)
    };
    (total(aliases), total(&[]))
}

fn refused(c: &Case, writes: &[ValueId], aliases: &[(usize, usize)]) {
    let error = c.lower_gpu(writes, aliases, 256).expect_err("another thread may still read");
    assert_eq!(error.code, "kernel.alias");
    assert!(c.lower_gpu(writes, &[], 256).is_ok());
}

#[test]
fn elements_overwrite_what_they_are_computed_from() {
    let Some(compiler) = compiler("elements_overwrite_what_they_are_computed_from") else { return };
    let mut c = Case::new(true);
    let (x, y) = (c.f32(&[5, 33]), c.f32(&[5, 33]));
    let sum = c.op(K::Add, &[x, y], Attrs::new());
    let out = c.op(K::Gelu, &[sum], Attrs::new().with("approximate", "tanh"));
    written(&c, &[out], &[(0, 0)]);
    c.check("elementwise", &[out], &[(0, 0)], &compiler);
    // A row is read as a whole before any of it is written.
    let mut c = Case::new(false);
    let x = c.f32(&[5, 333]);
    let out = c.op(K::Softmax, &[x], Attrs::new().with("axis", 1i64));
    written(&c, &[out], &[(0, 0)]);
    c.check("softmax", &[out], &[(0, 0)], &compiler);
}

#[test]
fn caches_are_appended_to() {
    let Some(compiler) = compiler("caches_are_appended_to") else { return };
    for symbolic in [false, true] {
        let mut c = Case::new(symbolic);
        let (cache, new) = (c.f32(&[1, 1, 9, 4]), c.f32(&[1, 1, 2, 4]));
        let new = c.op(K::Neg, &[new], Attrs::new());
        let out = c.op(K::Concat, &[cache, new], Attrs::new().with("axis", 2i64));
        if !symbolic {
            assert_eq!(written(&c, &[out], &[(0, 0)]), (Dim::from(2 * 4 * 4), Dim::from(11 * 4 * 4)));
        }
        c.check("append", &[out], &[(0, 0)], &compiler);
        let mut c = Case::new(symbolic);
        let (cache, new) = (c.f32(&[3, 9, 4]), c.f32(&[3, 2, 4]));
        let out = c.op(K::Concat, &[cache, new], Attrs::new().with("axis", 1i64));
        refused(&c, &[out], &[(0, 0)]);
    }
}

#[test]
fn only_changed_elements_are_written() {
    let Some(compiler) = compiler("only_changed_elements_are_written") else { return };
    let mut c = Case::new(false);
    let (cache, new) = (c.f32(&[2, 3, 50, 4]), c.f32(&[2, 3, 2, 4]));
    let at = c.range(DType::I64, &[2], 0.0, 49.0);
    let out = c.op(K::IndexCopy, &[cache, at, new], Attrs::new().with("axis", 2i64));
    let few = Dim::from(2 * 3 * 2 * 4 * 4);
    assert_eq!(written(&c, &[out], &[(0, 0)]).0, few);
    c.check("index_copy", &[out], &[(0, 0)], &compiler);
    for reduction in ["none", "add", "max"] {
        let mut c = Case::new(false);
        let (x, new) = (c.f32(&[40, 5]), c.f32(&[7, 5]));
        let at = c.range(DType::I64, &[7, 1], 0.0, 39.0);
        let out = c.op(K::ScatterNd, &[x, at, new], Attrs::new().with("reduction", reduction));
        assert_eq!(written(&c, &[out], &[(0, 0)]).0, Dim::from(7 * 5 * 4));
        c.check(reduction, &[out], &[(0, 0)], &compiler);
    }
}

#[test]
fn what_is_still_needed_is_not_overwritten() {
    let Some(compiler) = compiler("what_is_still_needed_is_not_overwritten") else { return };
    let mut c = Case::new(false);
    let x = c.f32(&[6, 6]);
    let out = c.op(K::Transpose, &[x], Attrs::new().with("perm", vec![1i64, 0]));
    refused(&c, &[out], &[(0, 0)]);
    let mut c = Case::new(false);
    let x = c.f32(&[12]);
    let y = c.op(K::Reverse, &[x], Attrs::new().with("axes", vec![0i64]));
    let out = c.op(K::Add, &[x, y], Attrs::new());
    refused(&c, &[out], &[(0, 0)]);
    // The second result needs the operand that the first overwrites.
    let mut c = Case::new(false);
    let x = c.f32(&[7, 9]);
    let (a, minus) = (c.op(K::Relu, &[x], Attrs::new()), c.op(K::Neg, &[x], Attrs::new()));
    let both = c.op(K::Add, &[a, minus], Attrs::new());
    refused(&c, &[a, both], &[(0, 0)]);
    c.check("both", &[a, both], &[(0, 0)], &compiler);
    let mut c = Case::new(false);
    let x = c.f32(&[7, 9]);
    let other = c.op(K::Cast, &[x], Attrs::new().with("to", DType::F64));
    refused(&c, &[other], &[(0, 0)]);
}
