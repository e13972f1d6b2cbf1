//! Every library operation against the evaluator, on many shapes, those with sizes of 0 and 1 among them.

use djinn_blas::Operation;
use djinn_interp::{Env, eval_op};
use djinn_ir::{Attr, Attrs, DType, Dim, OpKind, TensorData, data};

/// Small numbers in an order that looks random (Marsaglia, "Xorshift RNGs", 2003).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn tensor(&mut self, dtype: DType, shape: &[usize]) -> TensorData {
        let count: usize = shape.iter().product();
        let bytes = (0..count).flat_map(|_| {
            let value = (self.below(2001) as f64 - 1000.0) / 500.0;
            data::encode_f64(dtype, if dtype == DType::Bool { value.max(0.0) } else { value })
        });
        let bytes: Vec<u8> = bytes.collect();
        TensorData::new(dtype, shape.to_vec(), bytes).expect("the bytes fit")
    }
}

fn attrs(list: &[(&'static str, Attr)]) -> Attrs {
    let mut attrs = Attrs::new();
    list.iter().for_each(|(name, value)| attrs.set(*name, value.clone()));
    attrs
}

/// Runs an operation both ways; gives whether the library has it.
fn compare(kind: OpKind, attrs: &Attrs, operands: &[TensorData]) -> bool {
    let what = || {
        let shapes: Vec<String> = operands.iter().map(|t| t.ty().to_string()).collect();
        format!("{} of {} with {attrs:?}", kind.name(), shapes.join(", "))
    };
    let types: Vec<(DType, &[usize])> = operands.iter().map(|t| (t.dtype(), t.shape())).collect();
    let expected = eval_op(kind, attrs, operands, &[], &mut Env::new(), &|_| None);
    let Some(operation) = Operation::new(kind, attrs, &types) else { return false };
    let expected = expected.unwrap_or_else(|e| panic!("{}: computed, but refused: {e}", what()));
    let dtype = operands[0].dtype();
    let shapes: Vec<&[usize]> = expected.iter().map(TensorData::shape).collect();
    assert_eq!(operation.results(), shapes, "{}", what());
    // Bytes at odd addresses, and results that hold something else before.
    for shift in [0, 1] {
        let padded: Vec<Vec<u8>> =
            operands.iter().map(|t| [vec![0; shift], t.bytes().to_vec()].concat()).collect();
        let inputs: Vec<&[u8]> = padded.iter().map(|b| &b[shift..]).collect();
        let mut made: Vec<Vec<u8>> = expected.iter().map(|t| vec![0xFF; t.bytes().len() + shift]).collect();
        let mut outputs: Vec<&mut [u8]> = made.iter_mut().map(|b| &mut b[shift..]).collect();
        operation.run(&inputs, &mut outputs).unwrap_or_else(|e| panic!("{}: {e}", what()));
        for (made, expected) in made.iter().zip(&expected) {
            let made =
                TensorData::new(dtype, expected.shape().to_vec(), made[shift..].to_vec()).expect("fits");
            close(&made, expected).unwrap_or_else(|e| panic!("{}: {e}", what()));
        }
    }
    true
}

/// Numbers of a few rounding errors' distance; half floats have rounded once on both sides.
fn close(made: &TensorData, expected: &TensorData) -> Result<(), String> {
    let tolerance = match made.dtype() {
        DType::F64 => 1e-11,
        DType::F32 => 2e-5,
        DType::F16 => 2e-3,
        _ => 2e-2,
    };
    for i in 0..expected.numel() {
        let (got, want) = (made.get_f64(i).unwrap_or(f64::NAN), expected.get_f64(i).unwrap_or(f64::NAN));
        let same = got == want || (got.is_nan() && want.is_nan());
        let near = (got - want).abs() <= tolerance * (1.0 + want.abs());
        if !same && !near {
            return Err(format!("element {i} is {got}, not {want}"));
        }
    }
    Ok(())
}

const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

#[test]
fn products_of_every_form() {
    let mut r = Numbers(1);
    let none = Attrs::new();
    for _ in 0..300 {
        let dtype = r.of(&FLOATS);
        let sizes = [0, 1, 2, 3, 5, 17, 40];
        let (m, k, n, b, c) = (r.of(&sizes), r.of(&sizes), r.of(&sizes), r.below(4), r.below(3));
        let forms: [(Vec<usize>, Vec<usize>); 8] = [
            (vec![m, k], vec![k, n]),
            (vec![k], vec![k, n]),
            (vec![m, k], vec![k]),
            (vec![k], vec![k]),
            (vec![b, m, k], vec![k, n]),
            (vec![b, 1, m, k], vec![c, k, n]),
            (vec![1, m, k], vec![b, k, n]),
            (vec![b, m, k], vec![1, 1, k, n]),
        ];
        let (x, y) = &forms[r.below(forms.len())];
        assert!(compare(OpKind::MatMul, &none, &[r.tensor(dtype, x), r.tensor(dtype, y)]), "{x:?} {y:?}");
    }
}

/// Attributes of windows over `n` axes.
fn windows(r: &mut Numbers, n: usize) -> Vec<(&'static str, Attr)> {
    let ints = |r: &mut Numbers, n: usize, of: &[i64]| Attr::Ints((0..n).map(|_| r.of(of)).collect());
    vec![
        ("strides", ints(r, n, &[1, 1, 2, 3])),
        ("dilations", ints(r, n, &[1, 1, 2])),
        ("pads", ints(r, 2 * n, &[0, 1, 1, 2])),
    ]
}

#[test]
fn convolutions_and_their_transposes() {
    let mut r = Numbers(2);
    let (mut had, mut all) = (0, 0);
    for i in 0..400 {
        let n = 1 + r.below(3);
        let (dtype, groups) = (r.of(&FLOATS), r.of(&[1usize, 1, 2, 3]));
        let (batch, channels, features) = (r.below(3), 1 + r.below(3), 1 + r.below(4));
        let spatial: Vec<usize> = (0..n).map(|_| r.of(&[1usize, 4, 5, 9])).collect();
        let kernel: Vec<usize> = (0..n).map(|_| r.of(&[1usize, 2, 3])).collect();
        let mut list = windows(&mut r, n);
        list.push(("groups", Attr::Int(groups as i64)));
        let transpose = i % 2 == 1;
        let weight = if transpose { [channels * groups, features] } else { [features * groups, channels] };
        if transpose {
            list.push(("output_padding", Attr::Ints(vec![0; n])));
        }
        let x = r.tensor(dtype, &[&[batch, channels * groups], &spatial[..]].concat());
        let w = r.tensor(dtype, &[&weight[..], &kernel].concat());
        let mut operands = vec![x, w];
        if r.below(2) == 0 {
            operands.push(r.tensor(dtype, &[features * groups]));
        }
        let kind = if transpose { OpKind::ConvTranspose } else { OpKind::Conv };
        had += usize::from(compare(kind, &attrs(&list), &operands));
        all += 1;
    }
    assert!(had * 10 >= all * 6, "{had} of {all}");
}

#[test]
fn long_convolutions_are_cut_into_pieces() {
    let mut r = Numbers(3);
    let (x, w) = (r.tensor(DType::F32, &[1, 3, 150, 160]), r.tensor(DType::F32, &[4, 3, 5, 5]));
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let list = [
        ("strides", ints(&[1, 1])),
        ("dilations", ints(&[1, 1])),
        ("pads", ints(&[2, 2, 2, 2])),
        ("groups", Attr::Int(1)),
    ];
    const { assert!(3 * 25 * 150 * 160 > 2 * djinn_blas::WORKSPACE_ELEMENTS) };
    assert!(compare(OpKind::Conv, &attrs(&list), &[x.clone(), w]));
    let depthwise = [&list[..3], &[("groups", Attr::Int(3))]].concat();
    assert!(compare(OpKind::Conv, &attrs(&depthwise), &[x, r.tensor(DType::F32, &[3, 1, 3, 3])]));
}

#[test]
fn pools() {
    let mut r = Numbers(4);
    let (mut had, mut all) = (0, 0);
    for i in 0..300 {
        let n = 1 + r.below(2);
        let mut list = windows(&mut r, n);
        let kernel: Vec<i64> = (0..n).map(|_| r.of(&[1, 2, 3])).collect();
        list.push(("kernel", Attr::Ints(kernel)));
        list.push(("ceil_mode", Attr::Bool(r.below(2) == 0)));
        let largest = i % 2 == 0;
        if !largest {
            list.push(("count_include_pad", Attr::Bool(r.below(2) == 0)));
        }
        let spatial: Vec<usize> = (0..n).map(|_| r.of(&[3usize, 4, 7, 10])).collect();
        let dtype = r.of(&FLOATS);
        let planes = [r.below(3), 1 + r.below(3)];
        let x = r.tensor(dtype, &[&planes, &spatial[..]].concat());
        let kind = if largest { OpKind::MaxPool } else { OpKind::AvgPool };
        had += usize::from(compare(kind, &attrs(&list), &[x]));
        all += 1;
    }
    assert!(had * 10 >= all * 6, "{had} of {all}");
}

fn attention(heads: (i64, i64), causal: Option<i64>) -> Attrs {
    attrs(&[
        ("scale", Attr::from(0.35f64)),
        ("causal", Attr::Bool(causal.is_some())),
        ("causal_offset", Attr::Dim(Dim::from(causal.unwrap_or(0)))),
        ("query_heads", Attr::Int(heads.0)),
        ("kv_heads", Attr::Int(heads.1)),
    ])
}

#[test]
fn attention_with_every_mask() {
    let mut r = Numbers(5);
    for i in 0..200 {
        let (dtype, kv, shared) = (r.of(&FLOATS), 1 + r.below(2), 1 + r.below(3));
        let (heads, batch, width, value) =
            (kv * shared, r.below(3), r.of(&[1usize, 4, 7]), r.of(&[1usize, 5]));
        let (queries, keys) = (r.of(&[0usize, 1, 3, 70]), r.of(&[0usize, 1, 4, 33, 600]));
        let merged = i % 2 == 0;
        let shape =
            |h: usize, l: usize, w: usize| if merged { vec![batch, l, h * w] } else { vec![batch, h, l, w] };
        let mut operands = vec![
            r.tensor(dtype, &shape(heads, queries, width)),
            r.tensor(dtype, &shape(kv, keys, width)),
            r.tensor(dtype, &shape(kv, keys, value)),
        ];
        let masks = [
            vec![batch, heads, queries, keys],
            vec![queries, keys],
            vec![batch, 1, 1, keys],
            vec![1, 1, queries, 1],
        ];
        if r.below(3) > 0 {
            let boolean = if r.below(2) == 0 { DType::Bool } else { dtype };
            let mask = &masks[r.below(masks.len())];
            operands.push(r.tensor(boolean, mask));
        }
        let causal = r.of(&[None, None, Some(0i64), Some(3), Some(-2)]);
        let named = if merged { (heads as i64, kv as i64) } else { (0, 0) };
        assert!(compare(OpKind::Sdpa, &attention(named, causal), &operands));
    }
}

#[test]
fn fully_masked_rows_give_zeros() {
    let mut r = Numbers(6);
    let tensors: Vec<TensorData> = (0..3).map(|_| r.tensor(DType::F32, &[1, 1, 3, 4])).collect();
    let hidden = TensorData::splat(DType::F32, &[3, 3], f64::NEG_INFINITY).expect("fits");
    let operands = [&tensors[..], &[hidden]].concat();
    assert!(compare(OpKind::Sdpa, &attention((0, 0), None), &operands));
    let nan = TensorData::splat(DType::F32, &[3, 3], f64::NAN).expect("fits");
    assert!(compare(OpKind::Sdpa, &attention((0, 0), None), &[&tensors[..], &[nan]].concat()));
}

#[test]
fn recurrent_cells_in_every_direction() {
    let mut r = Numbers(7);
    for (i, direction) in ["forward", "reverse", "bidirectional"].iter().cycle().take(24).enumerate() {
        let directions = 1 + usize::from(*direction == "bidirectional");
        let (steps, batch) = (r.below(4), r.below(3));
        let (input, hidden) = (1 + r.below(4), 1 + r.below(5));
        let list = [("direction", Attr::from(*direction)), ("hidden", Attr::Int(hidden as i64))];
        let dtype = FLOATS[i % 2];
        let shapes = [
            vec![steps, batch, input],
            vec![directions, 4 * hidden, input],
            vec![directions, 4 * hidden, hidden],
            vec![directions, 8 * hidden],
            vec![directions, batch, hidden],
            vec![directions, batch, hidden],
        ];
        let operands: Vec<TensorData> = shapes.iter().map(|s| r.tensor(dtype, s)).collect();
        assert!(compare(OpKind::Lstm, &attrs(&list), &operands));
    }
}

#[test]
fn what_does_not_fit_is_declined() {
    let none = Attrs::new();
    let f = DType::F32;
    let hostile: [&[(DType, &[usize])]; 6] = [
        &[(f, &[2, 3]), (f, &[4, 2])],
        &[(f, &[]), (f, &[2])],
        &[(f, &[usize::MAX, 1 << 40]), (f, &[1 << 40, 2])],
        &[(f, &[1 << 20, 0]), (f, &[0, 1 << 20])],
        &[(DType::I64, &[2, 2]), (DType::I64, &[2, 2])],
        &[],
    ];
    for operands in hostile {
        assert!(Operation::new(OpKind::MatMul, &none, operands).is_none(), "{operands:?}");
    }
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let far = [
        ("strides", ints(&[i64::MAX])),
        ("dilations", ints(&[i64::MAX])),
        ("pads", ints(&[i64::MIN, i64::MAX])),
        ("groups", Attr::Int(1)),
    ];
    assert!(Operation::new(OpKind::Conv, &attrs(&far), &[(f, &[1, 1, 4]), (f, &[1, 1, 2])]).is_none());
    let operation = Operation::new(OpKind::MatMul, &none, &[(f, &[2, 2]), (f, &[2, 2])]).expect("fits");
    assert_eq!(
        operation.run(&[&[0; 16], &[0; 15]], &mut [&mut [0; 16]]).expect_err("short").code,
        "blas.bytes"
    );
}
