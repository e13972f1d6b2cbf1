//! Every row of the op table is evaluated, and no operand or attribute makes the evaluator panic.

use djinn_diag::Culprit;
use djinn_interp::{Env, eval_op};
use djinn_ir::ops::{OP_TABLE, traits};
use djinn_ir::{Attr, Attrs, DType, Dim, Graph, OpKind, TensorData, TensorType, attrs, infer};

fn floats(shape: &[usize]) -> TensorData {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| (i * 7 % 11) as f32 / 4.0 - 1.0).collect();
    TensorData::from_f32(shape, &values).expect("values fit the shape")
}

fn ints(shape: &[usize], values: &[i64]) -> TensorData {
    TensorData::from_i64(shape, values).expect("values fit the shape")
}

fn truth(shape: &[usize]) -> TensorData {
    TensorData::splat(DType::Bool, shape, 1.0).expect("small")
}

fn dims(values: &[i64]) -> Vec<Dim> {
    values.iter().map(|v| Dim::from(*v)).collect()
}

fn fresh(rank: usize) -> Vec<Dim> {
    (0..rank).map(|n| Dim::symbol(&format!("fresh{n}"))).collect()
}

/// A region that gives its arguments back.
fn identity(types: &[TensorType]) -> Graph {
    let mut graph = Graph::new();
    graph.results = types.iter().map(|ty| graph.add_argument(ty.clone())).collect();
    graph
}

struct Example {
    attrs: Attrs,
    operands: Vec<TensorData>,
    regions: Vec<Graph>,
}

fn example(kind: OpKind) -> Option<Example> {
    let (attrs, operands) = plain(kind)?;
    let scalar = TensorType::scalar;
    let regions = match kind {
        OpKind::If => vec![identity(&[operands[1].ty()]), identity(&[operands[1].ty()])],
        OpKind::Loop => {
            let mut body = identity(&[scalar(DType::I64), scalar(DType::Bool), operands[2].ty()]);
            body.results.remove(0);
            vec![body]
        }
        _ => vec![],
    };
    Some(Example { attrs, operands, regions })
}

/// Attributes and operands with which an operation can be evaluated; `None` for the one that never can.
#[allow(clippy::too_many_lines, reason = "one arm per operation of the table")]
fn plain(kind: OpKind) -> Option<(Attrs, Vec<TensorData>)> {
    use OpKind as K;
    let x = || floats(&[2, 3]);
    let window = attrs! { strides: vec![2i64], pads: vec![1i64, 0], dilations: vec![1i64] };
    let reduction = attrs! { axes: vec![0i64], keepdims: true };
    let scan = attrs! { axis: 1i64, exclusive: true, reverse: false };
    Some(match kind {
        K::Constant => (attrs! { value: x() }, vec![]),
        K::Weight => (attrs! { name: "w", hash: "", types: vec![x().ty()] }, vec![]),
        K::DimExpr => (attrs! { exprs: dims(&[3, -4]), scalar: false }, vec![]),
        K::Iota => (attrs! { shape: dims(&[2, 3]), axis: 1i64, dtype: DType::F16 }, vec![]),
        K::Range => (attrs! { result_shape: fresh(1) }, [1, 9, 3].map(|v| ints(&[], &[v])).to_vec()),
        K::Abs
        | K::Neg
        | K::Sign
        | K::Exp
        | K::Log
        | K::Sqrt
        | K::Rsqrt
        | K::Reciprocal
        | K::Sin
        | K::Cos
        | K::Tan
        | K::Asin
        | K::Acos
        | K::Atan
        | K::Sinh
        | K::Cosh
        | K::Tanh
        | K::Asinh
        | K::Acosh
        | K::Atanh
        | K::Erf
        | K::Sigmoid
        | K::Softplus
        | K::Relu
        | K::Silu
        | K::HardSwish
        | K::Mish
        | K::Floor
        | K::Ceil
        | K::Round
        | K::IsNan => (attrs! {}, vec![x()]),
        K::LeakyRelu | K::Elu => (attrs! { alpha: 0.1 }, vec![x()]),
        K::Gelu => (attrs! { approximate: "none" }, vec![x()]),
        K::HardSigmoid => (attrs! { alpha: 0.2, beta: 0.5 }, vec![x()]),
        K::IsInf => (attrs! { negative: true, positive: false }, vec![x()]),
        K::Not => (attrs! {}, vec![truth(&[2])]),
        K::Cast => (attrs! { to: DType::I8 }, vec![x()]),
        K::BitCast => (attrs! { to: DType::I32 }, vec![x()]),
        K::Add | K::Sub | K::Mul | K::Div | K::Pow | K::Min | K::Max => {
            (attrs! {}, vec![x(), floats(&[2, 1])])
        }
        K::Mod => (attrs! { fmod: false }, vec![x(), floats(&[1, 3])]),
        K::And | K::Or | K::Xor => (attrs! {}, vec![truth(&[2]), truth(&[1])]),
        K::Shl | K::Shr => (attrs! {}, vec![ints(&[2], &[-9, 9]), ints(&[], &[2])]),
        K::Compare => (attrs! { predicate: "le" }, vec![x(), floats(&[])]),
        K::Select => (attrs! {}, vec![truth(&[2, 1]), x(), floats(&[])]),
        K::Clamp => (attrs! {}, vec![x(), floats(&[]), floats(&[])]),
        K::Reshape => (attrs! { shape: dims(&[3, 2]) }, vec![x()]),
        K::DynamicReshape => {
            (attrs! { result_shape: fresh(2), allow_zero: false }, vec![x(), ints(&[2], &[-1, 2])])
        }
        K::Transpose => (attrs! { perm: vec![1i64, 0] }, vec![x()]),
        K::Broadcast => (attrs! { shape: dims(&[4, 2, 3]) }, vec![x()]),
        K::DynamicBroadcast => (attrs! { result_shape: fresh(3) }, vec![x(), ints(&[3], &[4, 1, 3])]),
        K::Slice => (attrs! { axis: 1i64, start: Dim::ONE, limit: Dim::from(3i64), stride: 2i64 }, vec![x()]),
        K::DynamicSlice => {
            let bounds = [-1, -9, -2].map(|v| ints(&[1], &[v]));
            (attrs! { axes: vec![1i64], result_shape: fresh(2) }, [vec![x()], bounds.to_vec()].concat())
        }
        K::Reverse => (attrs! { axes: vec![1i64] }, vec![x()]),
        K::Concat => (attrs! { axis: 0i64 }, vec![x(), floats(&[1, 3])]),
        K::Pad => (attrs! { low: dims(&[1, -1]), high: dims(&[0, 2]), mode: "wrap" }, vec![x(), floats(&[])]),
        K::DynamicPad => {
            let a = attrs! { axes: vec![1i64], mode: "reflect", result_shape: fresh(2) };
            (a, vec![x(), ints(&[2], &[1, 2]), floats(&[])])
        }
        K::Tile => (attrs! { repeats: dims(&[2, 0]) }, vec![x()]),
        K::DynamicTile => (attrs! { result_shape: fresh(2) }, vec![x(), ints(&[2], &[1, 2])]),
        K::Gather => (attrs! { axis: 1i64 }, vec![x(), ints(&[2], &[-1, 0])]),
        K::GatherElements => (attrs! { axis: 0i64 }, vec![x(), ints(&[1, 3], &[1, 0, -1])]),
        K::GatherNd => (attrs! { batch_dims: 0i64 }, vec![x(), ints(&[2, 1], &[1, -2])]),
        K::ScatterNd => (attrs! { reduction: "add" }, vec![x(), ints(&[1, 2], &[1, 2]), floats(&[1])]),
        K::ScatterElements => {
            (attrs! { axis: 0i64, reduction: "max" }, vec![x(), ints(&[1, 3], &[1, 0, -1]), floats(&[1, 3])])
        }
        K::IndexCopy => (attrs! { axis: 1i64 }, vec![x(), ints(&[2], &[2, 0]), floats(&[2, 2])]),
        K::Trilu => (attrs! { upper: true, k: 0i64 }, vec![x()]),
        K::NonZero => (attrs! { result_shape: fresh(2) }, vec![x()]),
        K::ReduceSum | K::ReduceMean | K::ReduceMax | K::ReduceMin | K::ReduceProd => (reduction, vec![x()]),
        K::ArgMax | K::ArgMin => (attrs! { axis: 1i64, keepdims: false, select_last: false }, vec![x()]),
        K::CumSum | K::CumProd => (scan, vec![x()]),
        K::TopK => (attrs! { axis: 1i64, k: Dim::from(2i64), largest: true, sorted: true }, vec![x()]),
        K::Softmax | K::LogSoftmax => (attrs! { axis: 1i64 }, vec![x()]),
        K::LayerNorm => (attrs! { axis: 1i64, epsilon: 1e-5 }, vec![x(), floats(&[3]), floats(&[1])]),
        K::RmsNorm => (attrs! { axis: 1i64, epsilon: 1e-5 }, vec![x(), floats(&[3])]),
        K::GroupNorm => {
            (attrs! { groups: 2i64, epsilon: 1e-5 }, vec![floats(&[1, 4, 2]), floats(&[4]), floats(&[4])])
        }
        K::BatchNorm => {
            let statistics = std::iter::repeat_n(floats(&[3]), 4);
            (attrs! { epsilon: 1e-5 }, [x()].into_iter().chain(statistics).collect())
        }
        K::MatMul => (attrs! {}, vec![floats(&[2, 2, 3]), floats(&[3, 2])]),
        K::Conv => (window.with("groups", 2i64), vec![floats(&[1, 4, 5]), floats(&[2, 2, 3]), floats(&[2])]),
        K::ConvTranspose => {
            let a = window.with("groups", 2i64).with("output_padding", vec![1i64]);
            (a, vec![floats(&[1, 4, 5]), floats(&[4, 1, 3]), floats(&[2])])
        }
        K::MaxPool => (window.with("kernel", vec![3i64]).with("ceil_mode", true), vec![floats(&[1, 2, 6])]),
        K::AvgPool => {
            let a = window.with("kernel", vec![3i64]).with("ceil_mode", true).with("count_include_pad", true);
            (a, vec![floats(&[1, 2, 6])])
        }
        K::Sdpa => {
            let a = attrs! { scale: 0.5, causal: true, causal_offset: Dim::ONE, query_heads: 2i64, kv_heads: 1i64 };
            (a, vec![floats(&[1, 2, 4]), floats(&[1, 3, 2]), floats(&[1, 3, 2]), floats(&[2, 3])])
        }
        K::Rope => {
            let angles = floats(&[1, 2, 2]);
            (attrs! { interleaved: false, heads: 2i64 }, vec![floats(&[1, 2, 8]), angles.clone(), angles])
        }
        K::Lstm => {
            let shapes: [&[usize]; 6] =
                [&[2, 1, 3], &[2, 8, 3], &[2, 8, 2], &[2, 16], &[2, 1, 2], &[2, 1, 2]];
            (attrs! { direction: "bidirectional", hidden: 2i64 }, shapes.map(floats).to_vec())
        }
        K::Resize => {
            let a = attrs! {
                sizes: dims(&[2, 5]), scales: vec![1.0, 5.0 / 3.0], mode: "cubic", coordinates: "half_pixel",
                nearest: "floor", cubic_a: -0.75, exclude_outside: true,
            };
            (a, vec![x()])
        }
        K::If => (attrs! {}, vec![truth(&[]), x()]),
        K::Loop => {
            let a = attrs! { carried: 1i64, types: vec![x().ty()] };
            (a, vec![ints(&[], &[2]), truth(&[]), x()])
        }
        K::Transfer => (attrs! { device: "host" }, vec![x()]),
        // A call needs a module, an opaque operation cannot be evaluated.
        K::Call | K::Opaque => return None,
    })
}

fn evaluate(kind: OpKind, e: &Example) -> djinn_diag::Result<Vec<TensorData>> {
    let weight = |_: &str| Some(floats(&[2, 3]));
    eval_op(kind, &e.attrs, &e.operands, &e.regions, &mut Env::new(), &weight)
}

#[test]
fn every_row_of_the_table_is_evaluated_to_its_inferred_type() {
    for def in OP_TABLE {
        let Some(e) = example(def.kind) else { continue };
        let results = evaluate(def.kind, &e).unwrap_or_else(|d| panic!("{}: {d}", def.name));
        let types: Vec<TensorType> = e.operands.iter().map(TensorData::ty).collect();
        let inferred = infer::infer(def.kind, &types.iter().collect::<Vec<_>>(), &e.attrs, &e.regions);
        let inferred = inferred.unwrap_or_else(|d| panic!("{}: {d}", def.name));
        assert_eq!(results.len(), inferred.len(), "{}", def.name);
        for (r, ty) in results.iter().zip(&inferred) {
            assert_eq!((r.dtype(), r.shape().len()), (ty.dtype, ty.rank()), "{}", def.name);
            if !def.has(traits::DATA_DEPENDENT) {
                assert_eq!(r.ty(), *ty, "{}", def.name);
            }
        }
    }
}

#[test]
fn opaque_operations_are_unsupported_by_name() {
    let attrs = attrs! { op: "custom.Frobnicate", payload: "", types: Vec::<TensorType>::new() };
    let e = eval_op(OpKind::Opaque, &attrs, &[], &[], &mut Env::new(), &|_| None).expect_err("opaque");
    assert_eq!((e.culprit, e.code.as_str()), (Culprit::Unsupported, "interp.opaque"));
    assert!(e.message.contains("custom.Frobnicate"));
}

/// A small deterministic generator (an LCG; its upper bits are good enough here).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }

    fn integer(&mut self) -> i64 {
        const EDGES: [i64; 14] = [0, 1, 2, 3, 4, 5, -1, -2, -3, 7, i64::MAX, i64::MIN, i64::MAX - 1, 1 << 40];
        EDGES[self.below(EDGES.len())]
    }

    fn small(&mut self) -> i64 {
        self.below(8) as i64 - 2
    }

    fn tensor(&mut self) -> TensorData {
        let shape: Vec<usize> = (0..self.below(5)).map(|_| [0, 1, 2, 3][self.below(4)]).collect();
        let dtype = DType::ALL[self.below(DType::ALL.len())];
        let count: usize = shape.iter().product();
        let mut bytes: Vec<u8> = (0..count * dtype.size()).map(|_| self.below(256) as u8).collect();
        // Sizes of 32 bits are kept small: they are not refused and only take time.
        if self.below(2) == 0 || matches!(dtype, DType::I32 | DType::U32) {
            bytes.iter_mut().enumerate().filter(|(i, _)| i % dtype.size() != 0).for_each(|(_, b)| *b = 0);
        }
        TensorData::new(dtype, shape, bytes).expect("the bytes fit")
    }

    fn attr(&mut self, old: &Attr) -> Attr {
        match old {
            Attr::Int(_) => Attr::Int(if self.below(2) == 0 { self.small() } else { self.integer() }),
            Attr::Float(_) => [0.0, -1.0, 1e-300, f64::NAN, f64::INFINITY, 1e30][self.below(6)].into(),
            Attr::Bool(b) => Attr::Bool(!b),
            Attr::Ints(v) => {
                let v: Vec<i64> =
                    v.iter().map(|o| if self.below(2) == 0 { *o } else { self.integer() }).collect();
                v.into()
            }
            Attr::Floats(v) => {
                let v: Vec<f64> =
                    v.iter().map(|_| [1.0, 1e-300, -1.0, f64::NAN, 1e300][self.below(5)]).collect();
                v.into()
            }
            Attr::Dim(_) => Attr::Dim(Dim::from(self.integer())),
            Attr::Dims(v) => {
                let replace = |o: &Dim| match self.below(4) {
                    0 => Dim::symbol("unknown"),
                    1 => Dim::from(self.small()),
                    2 => Dim::from(self.integer()),
                    _ => o.clone(),
                };
                Attr::Dims(v.iter().map(replace).collect())
            }
            Attr::DType(_) => Attr::DType(DType::ALL[self.below(DType::ALL.len())]),
            Attr::Str(_) => {
                ["reflect", "edge", "constant", "mul", "min", "linear", "nearest", "gt"][self.below(8)].into()
            }
            Attr::Types(_) | Attr::Tensor(_) => old.clone(),
        }
    }

    fn mutate(&mut self, e: &mut Example) {
        for _ in 0..=self.below(2) {
            let names: Vec<(String, Attr)> = e.attrs.iter().map(|(n, a)| (n.to_owned(), a.clone())).collect();
            match self.below(3) {
                0 if !names.is_empty() => {
                    let (name, old) = &names[self.below(names.len())];
                    e.attrs.set(name.clone(), self.attr(old));
                }
                1 if !e.operands.is_empty() => {
                    let i = self.below(e.operands.len());
                    e.operands[i] = self.tensor();
                }
                _ if !e.operands.is_empty() => {
                    let i = self.below(e.operands.len());
                    let old = e.operands[i].clone();
                    let other = TensorData::splat(old.dtype(), old.shape(), self.integer() as f64);
                    e.operands[i] =
                        if self.below(8) == 0 { e.operands[0].clone() } else { other.expect("small") };
                }
                _ => {}
            }
        }
    }
}

/// Would this be a loop of many iterations or a range of many elements? Both are allowed and only take time.
fn takes_long(kind: OpKind, e: &Example) -> bool {
    const MANY: f64 = 100.0;
    let values: Vec<f64> = e.operands.iter().filter_map(|t| t.get_f64(0)).collect();
    match (kind, values.as_slice()) {
        (OpKind::Loop, [trips, ..]) => *trips > MANY,
        (OpKind::Range, [start, limit, delta]) => (limit - start) / delta > MANY,
        _ => false,
    }
}

#[test]
fn no_operand_or_attribute_makes_the_evaluator_panic() {
    const ROUNDS: usize = 1000;
    let mut random = Random(42);
    for def in OP_TABLE {
        for round in 0..ROUNDS {
            let Some(mut e) = example(def.kind) else { continue };
            random.mutate(&mut e);
            if takes_long(def.kind, &e) {
                continue;
            }
            if let Err(d) = evaluate(def.kind, &e) {
                let shown: Vec<_> = e.operands.iter().map(|t| t.ty().to_string()).collect();
                assert!(d.culprit != Culprit::Internal, "round {round}: {d}\n{:?} {shown:?}", e.attrs);
            }
        }
    }
}
