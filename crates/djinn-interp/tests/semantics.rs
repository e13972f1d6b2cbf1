//! Hand-checked values where types, rounding, wrapping and special values matter.

use djinn_interp::{Env, Tolerance, compare, eval_op};
use djinn_ir::{Attrs, DType, Dim, OpKind as K, Symbol, TensorData, attrs};

fn eval(kind: K, attrs: Attrs, operands: &[TensorData]) -> TensorData {
    let results = eval_op(kind, &attrs, operands, &[], &mut Env::new(), &|_| None);
    results.unwrap_or_else(|e| panic!("{kind:?}: {e}")).remove(0)
}

fn code(kind: K, attrs: Attrs, operands: &[TensorData]) -> String {
    let results = eval_op(kind, &attrs, operands, &[], &mut Env::new(), &|_| None);
    results.expect_err("must be refused").code
}

fn f32s(values: &[f32]) -> TensorData {
    TensorData::from_f32(&[values.len()], values).expect("fits")
}

fn i64s(values: &[i64]) -> TensorData {
    TensorData::from_i64(&[values.len()], values).expect("fits")
}

fn u64s(values: &[u64]) -> TensorData {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    TensorData::new(DType::U64, vec![values.len()], bytes).expect("fits")
}

fn i8s(values: &[i8]) -> TensorData {
    TensorData::new(DType::I8, vec![values.len()], values.iter().map(|v| *v as u8).collect::<Vec<_>>())
        .expect("fits")
}

fn bools(values: &[bool]) -> TensorData {
    let bytes: Vec<u8> = values.iter().map(|v| u8::from(*v)).collect();
    TensorData::new(DType::Bool, vec![values.len()], bytes).expect("fits")
}

fn cast(x: &TensorData, to: DType) -> TensorData {
    eval(K::Cast, attrs! { to: to }, std::slice::from_ref(x))
}

fn scalar(t: &TensorData) -> TensorData {
    t.reshaped(vec![]).expect("one element")
}

#[test]
fn wide_integers_never_pass_through_floats() {
    let (a, b) = (i64s(&[i64::MAX, (1 << 53) + 1, i64::MIN]), i64s(&[1, 2, -1]));
    assert_eq!(eval(K::Add, attrs! {}, &[a.clone(), b.clone()]), i64s(&[i64::MIN, (1 << 53) + 3, i64::MAX]));
    assert_eq!(eval(K::Mul, attrs! {}, &[a.clone(), b.clone()]), i64s(&[i64::MAX, (1 << 54) + 2, i64::MIN]));
    assert_eq!(eval(K::Div, attrs! {}, &[a.clone(), b.clone()]), i64s(&[i64::MAX, 1 << 52, i64::MIN]));
    assert_eq!(eval(K::Max, attrs! {}, &[a.clone(), b]), i64s(&[i64::MAX, (1 << 53) + 1, -1]));
    let rows = a.reshaped(vec![1, 3]).expect("fits");
    assert_eq!(eval(K::MatMul, attrs! {}, &[rows, i64s(&[0, 1, 0])]), i64s(&[(1 << 53) + 1]));
    assert_eq!(eval(K::ReduceSum, attrs! { axes: vec![0i64], keepdims: true }, &[a]), i64s(&[(1 << 53)]));
}

#[test]
fn u64_is_unsigned_everywhere() {
    let (a, b) = (u64s(&[u64::MAX, 7, u64::MAX]), u64s(&[2, 0, u64::MAX - 1]));
    assert_eq!(eval(K::Div, attrs! {}, &[a.clone(), b.clone()]), u64s(&[u64::MAX / 2, 0, 1]));
    assert_eq!(eval(K::Mod, attrs! { fmod: false }, &[a.clone(), b.clone()]), u64s(&[1, 0, 1]));
    assert_eq!(eval(K::Min, attrs! {}, &[a.clone(), b.clone()]), u64s(&[2, 0, u64::MAX - 1]));
    assert_eq!(eval(K::Compare, attrs! { predicate: "gt" }, &[a.clone(), b.clone()]), bools(&[true; 3]));
    assert_eq!(eval(K::Shr, attrs! {}, &[a.clone(), u64s(&[63])]), u64s(&[1, 0, 1]));
    let reduce = attrs! { axes: vec![0i64], keepdims: true };
    assert_eq!(eval(K::ReduceMax, reduce.clone(), std::slice::from_ref(&b)), u64s(&[u64::MAX - 1]));
    assert_eq!(eval(K::ReduceMean, reduce, &[a]), u64s(&[((u128::from(u64::MAX) * 2 + 7) / 3) as u64]));
    assert_eq!(cast(&b, DType::F64).get_f64(2), Some(u64::MAX as f64));
    assert_eq!(eval(K::Relu, attrs! {}, std::slice::from_ref(&b)), b);
}

#[test]
fn integer_division_remainder_and_shift_are_total() {
    let (a, b) = (i8s(&[-128, -7, 7, 5]), i8s(&[-1, 2, -2, 0]));
    assert_eq!(eval(K::Div, attrs! {}, &[a.clone(), b.clone()]), i8s(&[-128, -3, -3, 0]));
    assert_eq!(eval(K::Mod, attrs! { fmod: false }, &[a.clone(), b.clone()]), i8s(&[0, 1, -1, 0]));
    assert_eq!(eval(K::Mod, attrs! { fmod: true }, &[a.clone(), b]), i8s(&[0, -1, 1, 0]));
    let by = i8s(&[1, 8, 7, 100]);
    assert_eq!(eval(K::Shl, attrs! {}, &[a.clone(), by.clone()]), i8s(&[0, 0, -128, 0]));
    assert_eq!(eval(K::Shr, attrs! {}, &[a.clone(), by]), i8s(&[-64, -1, 0, 0]));
    assert_eq!(eval(K::Abs, attrs! {}, std::slice::from_ref(&a)), i8s(&[-128, 7, 7, 5]));
    assert_eq!(eval(K::Not, attrs! {}, &[a]), i8s(&[127, 6, -8, -6]));
    assert_eq!(eval(K::Not, attrs! {}, &[bools(&[true, false])]), bools(&[false, true]));
    let powers = eval(K::Pow, attrs! {}, &[i64s(&[2, -1, 0, 5, 3]), i64s(&[-1, -3, -2, 0, 41])]);
    assert_eq!(powers, i64s(&[0, -1, 0, 1, 3i64.wrapping_pow(41)]));
}

#[test]
fn casts_follow_the_table() {
    let x = f32s(&[-1.9, 300.7, f32::NAN, f32::INFINITY, -0.0]);
    assert_eq!(cast(&x, DType::I8), i8s(&[-1, 127, 0, 127, 0]));
    assert_eq!(cast(&x, DType::U64), u64s(&[0, 300, 0, u64::MAX, 0]));
    assert_eq!(cast(&x, DType::Bool), bools(&[true, true, true, true, false]));
    assert_eq!(cast(&i64s(&[257, -129, -1]), DType::I8), i8s(&[1, 127, -1]));
    assert_eq!(cast(&i64s(&[-1]), DType::U64), u64s(&[u64::MAX]));
    assert_eq!(cast(&bools(&[true, false]), DType::F32), f32s(&[1.0, 0.0]));
    // Direct rounding to f32; by way of f64 it would be 2⁶⁰.
    let close = (1i64 << 60) + (1 << 36) + 1;
    assert_eq!(cast(&i64s(&[close]), DType::F32), f32s(&[((1i64 << 60) + (1 << 37)) as f32]));
    assert_eq!(cast(&f32s(&[1.0 + 0.5f32.powi(11)]), DType::F16).get_f64(0), Some(1.0));
    assert_eq!(cast(&f32s(&[65520.0]), DType::F16).get_f64(0), Some(f64::INFINITY));
    let bits = eval(K::BitCast, attrs! { to: DType::F64 }, &[u64s(&[0x3FF0_0000_0000_0000])]);
    assert_eq!(bits.get_f64(0), Some(1.0));
}

#[test]
fn single_precision_arithmetic_is_correctly_rounded() {
    let (a, b) = (f32s(&[0.1, 1e30, 16777216.0]), f32s(&[0.2, 3.3e9, 1.0]));
    for (kind, f) in [
        (K::Add, (|a, b| a + b) as fn(f32, f32) -> f32),
        (K::Sub, |a, b| a - b),
        (K::Mul, |a, b| a * b),
        (K::Div, |a, b| a / b),
    ] {
        let expected: Vec<f32> =
            [(0.1, 0.2), (1e30, 3.3e9), (16777216.0, 1.0)].map(|(a, b)| f(a, b)).to_vec();
        assert_eq!(eval(kind, attrs! {}, &[a.clone(), b.clone()]), f32s(&expected), "{kind:?}");
    }
}

#[test]
fn nan_and_infinity_propagate_as_the_table_says() {
    let nan = f32s(&[f32::NAN, 1.0, -1.0]);
    let is_nan = |t: &TensorData| t.get_f64(0).is_some_and(f64::is_nan);
    for kind in [K::Relu, K::Sign, K::Softplus, K::Abs, K::Sigmoid] {
        assert!(is_nan(&eval(kind, attrs! {}, std::slice::from_ref(&nan))), "{kind:?}");
    }
    assert!(is_nan(&eval(K::Max, attrs! {}, &[nan.clone(), f32s(&[5.0])])));
    assert!(is_nan(&eval(
        K::ReduceMin,
        attrs! { axes: vec![0i64], keepdims: true },
        std::slice::from_ref(&nan)
    )));
    let low_high = [scalar(&f32s(&[0.0])), scalar(&f32s(&[0.5]))];
    assert!(is_nan(&eval(K::Clamp, attrs! {}, &[[nan.clone()].as_slice(), &low_high].concat())));
    let arg = attrs! { axis: 0i64, keepdims: true, select_last: false };
    assert_eq!(eval(K::ArgMax, arg.clone(), std::slice::from_ref(&nan)), i64s(&[0]));
    assert_eq!(eval(K::ArgMin, arg, std::slice::from_ref(&nan)), i64s(&[0]));
    let by = |predicate: &str| eval(K::Compare, attrs! { predicate: predicate }, &[nan.clone(), nan.clone()]);
    assert_eq!(by("eq"), bools(&[false, true, true]));
    assert_eq!(by("ne"), bools(&[true, false, false]));
    assert_eq!(by("ge"), bools(&[false, true, true]));
    let big = f32s(&[f32::INFINITY, 1000.0, -1000.0]);
    assert_eq!(eval(K::Softplus, attrs! {}, std::slice::from_ref(&big)), f32s(&[f32::INFINITY, 1000.0, 0.0]));
    assert_eq!(eval(K::Softmax, attrs! { axis: 0i64 }, &[f32s(&[1000.0, 1000.0])]), f32s(&[0.5, 0.5]));
    let is_inf = attrs! { negative: false, positive: true };
    assert_eq!(eval(K::IsInf, is_inf, &[f32s(&[f32::INFINITY, f32::NEG_INFINITY])]), bools(&[true, false]));
}

#[test]
fn reductions_over_nothing_have_their_neutral_value() {
    let none = TensorData::from_f32(&[0, 2], &[]).expect("fits");
    let axes = || attrs! { axes: vec![0i64], keepdims: false };
    for (kind, value) in [
        (K::ReduceSum, 0.0),
        (K::ReduceProd, 1.0),
        (K::ReduceMax, f32::NEG_INFINITY),
        (K::ReduceMin, f32::INFINITY),
    ] {
        assert_eq!(eval(kind, axes(), std::slice::from_ref(&none)), f32s(&[value; 2]), "{kind:?}");
    }
    let none = TensorData::from_i64(&[0, 1], &[]).expect("fits");
    assert_eq!(eval(K::ReduceMax, axes(), std::slice::from_ref(&none)), i64s(&[i64::MIN]));
    assert_eq!(eval(K::ReduceMean, axes(), std::slice::from_ref(&none)), i64s(&[0]));
    assert_eq!(eval(K::ReduceMean, axes(), &[i64s(&[-3, -4])]), scalar(&i64s(&[-3])));
    let any = bools(&[false, true]);
    assert_eq!(eval(K::ReduceMax, axes(), std::slice::from_ref(&any)), scalar(&bools(&[true])));
    assert_eq!(eval(K::ReduceMin, axes(), std::slice::from_ref(&any)), scalar(&bools(&[false])));
    assert_eq!(
        code(K::ArgMax, attrs! { axis: 0i64, keepdims: true, select_last: false }, &[none]),
        "interp.argmax"
    );
}

#[test]
fn half_precision_sums_accumulate_wide() {
    // 4096 ones and then 4096 times 2⁻¹²: an f16 accumulator would stop at 2048.
    let small = cast(&f32s(&vec![1.0; 4096]), DType::F16);
    let sum = eval(K::ReduceSum, attrs! { axes: vec![0i64], keepdims: true }, std::slice::from_ref(&small));
    assert_eq!(sum.get_f64(0), Some(4096.0));
    let row = small.reshaped(vec![1, 4096]).expect("fits");
    assert_eq!(eval(K::MatMul, attrs! {}, &[row, small]).get_f64(0), Some(4096.0));
}

#[test]
fn binary_broadcasting_agrees_with_naive_indexing() {
    let shapes: [(&[usize], &[usize]); 7] = [
        (&[2, 3, 4], &[2, 3, 4]),
        (&[2, 1, 4], &[3, 1]),
        (&[], &[2, 2]),
        (&[4], &[3, 4]),
        (&[2, 3, 1, 2], &[1, 4, 1]),
        (&[0, 3], &[1, 3]),
        (&[1, 1], &[5, 0, 1, 2]),
    ];
    for (a_shape, b_shape) in shapes {
        let fill = |shape: &[usize], seed: i64| {
            let values: Vec<i64> = (0..shape.iter().product::<usize>() as i64).map(|i| i * seed).collect();
            TensorData::from_i64(shape, &values).expect("fits")
        };
        let (a, b) = (fill(a_shape, 3), fill(b_shape, 1000));
        let rank = a_shape.len().max(b_shape.len());
        let size = |shape: &[usize], i: usize| (i + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
        let out_shape: Vec<usize> = (0..rank)
            .map(|i| if size(a_shape, i) == 1 { size(b_shape, i) } else { size(a_shape, i) })
            .collect();
        let naive = |t: &TensorData, flat: usize| {
            let (mut rest, mut offset, mut step) = (flat, 0, 1);
            for i in (0..rank).rev() {
                let (at, n) = (rest % out_shape[i], size(t.shape(), i));
                rest /= out_shape[i];
                offset += if n == 1 { 0 } else { at * step };
                step *= n;
            }
            t.get_i64(offset).expect("in range")
        };
        let expected: Vec<i64> =
            (0..out_shape.iter().product()).map(|flat| naive(&a, flat) - naive(&b, flat)).collect();
        let expected = TensorData::from_i64(&out_shape, &expected).expect("fits");
        assert_eq!(eval(K::Sub, attrs! {}, &[a, b]), expected, "{a_shape:?} {b_shape:?}");
    }
    assert_eq!(code(K::Add, attrs! {}, &[i64s(&[1, 2]), i64s(&[1, 2, 3])]), "add.C2");
}

#[test]
fn movement_keeps_bits() {
    let x = TensorData::new(DType::F32, vec![2, 2], (0u8..16).collect::<Vec<_>>()).expect("fits");
    let t = eval(K::Transpose, attrs! { perm: vec![1i64, 0] }, std::slice::from_ref(&x));
    assert_eq!(t.bytes(), [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15]);
    let r = eval(K::Reverse, attrs! { axes: vec![0i64, 1] }, std::slice::from_ref(&x));
    assert_eq!(r.bytes(), [12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3]);
    let joined = eval(K::Concat, attrs! { axis: 1i64 }, &[x.clone(), t]);
    assert_eq!(joined.shape(), [2, 4]);
    assert_eq!(joined.bytes()[8..16], [0, 1, 2, 3, 8, 9, 10, 11]);
    let tiled = eval(K::Tile, attrs! { repeats: vec![Dim::ONE, Dim::from(2i64)] }, &[x]);
    assert_eq!(tiled.bytes()[..16], [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn index_copy_writes_a_cache() {
    let cache = TensorData::from_f32(&[1, 4, 2], &[0.0; 8]).expect("fits");
    let new = TensorData::from_f32(&[1, 2, 2], &[1.0, 2.0, 3.0, 4.0]).expect("fits");
    let written = eval(K::IndexCopy, attrs! { axis: 1i64 }, &[cache.clone(), i64s(&[2, -4]), new.clone()]);
    let expected = TensorData::from_f32(&[1, 4, 2], &[3.0, 4.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0]).expect("fits");
    assert_eq!(written, expected);
    assert_eq!(code(K::IndexCopy, attrs! { axis: 1i64 }, &[cache, i64s(&[4, 0]), new]), "interp.index_copy");
}

#[test]
fn causal_attention_with_a_cache_sees_the_past() {
    let ones = |shape: &[usize]| TensorData::splat(DType::F32, shape, 1.0).expect("fits");
    let value = TensorData::from_f32(&[1, 1, 4, 1], &[1.0, 2.0, 3.0, 100.0]).expect("fits");
    let offset = attrs! {
        scale: 1.0, causal: true, causal_offset: Dim::symbol("past"), query_heads: 0i64, kv_heads: 0i64,
    };
    let mut env = Env::new();
    env.set(Symbol::new("past"), 1);
    let operands = [ones(&[1, 1, 2, 3]), ones(&[1, 1, 4, 3]), value];
    let out = eval_op(K::Sdpa, &offset, &operands, &[], &mut env, &|_| None).expect("evaluates");
    // Query 0 sees keys 0 and 1, query 1 sees keys 0 to 2.
    assert_eq!(out[0], TensorData::from_f32(&[1, 1, 2, 1], &[1.5, 2.0]).expect("fits"));
    assert_eq!(code(K::Sdpa, offset, &operands), "interp.symbol");
}

/// softmax(scores + mask) of one row of f32 scores, as attention over the unit vectors gives it.
fn attended(scores: &[f32], mask: &TensorData, causal: bool) -> Vec<f64> {
    let n = scores.len();
    let unit: Vec<f32> = (0..n * n).map(|i| f32::from(u8::from(i % (n + 1) == 0))).collect();
    let q = TensorData::from_f32(&[1, 1, 1, 1], &[1.0]).expect("fits");
    let k = TensorData::from_f32(&[1, 1, n, 1], scores).expect("fits");
    let v = TensorData::from_f32(&[1, 1, n, n], &unit).expect("fits");
    let a =
        attrs! { scale: 1.0, causal: causal, causal_offset: Dim::ZERO, query_heads: 0i64, kv_heads: 0i64 };
    let out = eval(K::Sdpa, a, &[q, k, v, mask.clone()]);
    (0..n).map(|i| out.get_f64(i).expect("a float")).collect()
}

#[test]
fn large_float_masks_absorb_scores() {
    // f32 has no 1 beside 10⁹: the scores vanish, and the mean of all values is left.
    assert_eq!(attended(&[3.0, 1.0], &f32s(&[-1e9, -1e9]), false), [0.5, 0.5]);
    assert_eq!(attended(&[3.0, 1.0], &f32s(&[0.0, -1e9]), false), [1.0, 0.0]);
    let small = attended(&[0.0, 0.0], &f32s(&[0.0, 3f32.ln()]), false);
    assert!((small[0] - 0.25).abs() < 1e-6, "{small:?}");
}

#[test]
fn hidden_scores_are_overwritten() {
    let scores = [1.0, f32::NAN, f32::INFINITY];
    assert_eq!(attended(&scores, &bools(&[true, false, false]), false), [1.0, 0.0, 0.0]);
    assert_eq!(attended(&scores, &bools(&[true; 3]), true), [1.0, 0.0, 0.0]);
    assert_eq!(attended(&scores, &f32s(&[0.0; 3]), true), [1.0, 0.0, 0.0]);
    assert!(attended(&scores, &bools(&[true, true, false]), false)[0].is_nan());
    // A query that sees no key gives zeros.
    assert_eq!(attended(&scores, &bools(&[false; 3]), false), [0.0; 3]);
    assert_eq!(attended(&scores, &bools(&[false, true, true]), true), [0.0; 3]);
    assert_eq!(attended(&[1.0, 2.0], &f32s(&[f32::NEG_INFINITY; 2]), false), [0.0; 2]);
}

#[test]
fn extremes_of_signed_zeros_do_not_depend_on_the_order() {
    let (a, b) = (f32s(&[0.0, -0.0, 0.0, -0.0]), f32s(&[-0.0, 0.0, 0.0, -0.0]));
    let signs =
        |t: &TensorData| (0..4).map(|i| t.get_f64(i).is_some_and(f64::is_sign_negative)).collect::<Vec<_>>();
    assert_eq!(signs(&eval(K::Max, attrs! {}, &[a.clone(), b.clone()])), [false, false, false, true]);
    assert_eq!(signs(&eval(K::Min, attrs! {}, &[a, b])), [true, true, false, true]);
}

#[test]
fn fresh_symbols_get_their_values() {
    let mut env = Env::new();
    let a = attrs! { result_shape: vec![Dim::from(1i64), Dim::symbol("u0")] };
    let x = f32s(&[0.0, 2.0, 0.0, f32::NAN]);
    let out = eval_op(K::NonZero, &a, &[x], &[], &mut env, &|_| None).expect("evaluates");
    assert_eq!(out[0], TensorData::from_i64(&[1, 2], &[1, 3]).expect("fits"));
    assert_eq!(env.get(&Symbol::new("u0")), Some(2));
    let wrong = attrs! { result_shape: vec![Dim::from(5i64)] };
    let bounds = [0, 3, 1].map(|v| scalar(&i64s(&[v])));
    assert_eq!(code(K::Range, wrong, &bounds), "interp.input");
}

#[test]
fn sizes_beyond_the_limit_are_diagnostics() {
    let huge = vec![Dim::from(1i64 << 40), Dim::ZERO];
    assert_eq!(code(K::Iota, attrs! { shape: huge, axis: 0i64, dtype: DType::I64 }, &[]), "interp.size");
    let repeats = vec![Dim::from(1i64 << 33)];
    assert_eq!(code(K::Tile, attrs! { repeats: repeats }, &[f32s(&[1.0])]), "interp.size");
}

#[test]
fn a_convolution_in_pieces_is_one_convolution() {
    // 64·3·3 rows times 90·90 windows are more than one piece.
    let values = |n: usize| (0..n).map(|i| (i * 31 % 17) as f32 - 8.0).collect::<Vec<f32>>();
    let (x, w) = (values(64 * 90 * 90), values(64 * 9));
    let a = attrs! { strides: vec![1i64, 1], pads: vec![1i64; 4], dilations: vec![1i64, 1], groups: 1i64 };
    let operands = [
        TensorData::from_f32(&[1, 64, 90, 90], &x).expect("fits"),
        TensorData::from_f32(&[1, 64, 3, 3], &w).expect("fits"),
    ];
    let out = eval(K::Conv, a, &operands);
    for (i, j) in [(0usize, 0usize), (44, 50), (45, 3), (80, 89), (89, 89)] {
        let mut sum = 0.0;
        for (c, di, dj) in (0..64).flat_map(|c| (0..9).map(move |k| (c, k / 3, k % 3))) {
            let (si, sj) = ((i + di).wrapping_sub(1), (j + dj).wrapping_sub(1));
            if si < 90 && sj < 90 {
                sum += f64::from(x[(c * 90 + si) * 90 + sj]) * f64::from(w[c * 9 + di * 3 + dj]);
            }
        }
        assert_eq!(out.get_f64(i * 90 + j), Some(sum), "({i}, {j})");
    }
}

#[test]
fn comparison_shows_up_wrong_results() {
    let (a, b) = (f32s(&[1.0, 2.0]), f32s(&[1.0, 2.1]));
    assert!(compare(&a, &b, Tolerance::Reassoc).is_err());
    assert!(compare(&a, &f32s(&[1.0, 2.0001]), Tolerance::Reassoc).is_ok());
}
