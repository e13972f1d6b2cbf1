//! Small modules, at least one for every operation of the op table, with constant and with symbolic sizes.

use djinn_ir::ops::PREDICATES;
use djinn_ir::{
    ArgumentKind, Attrs, DType, Dim, Function, Graph, Location, Module, OpKind, ResultKind, Symbol,
    SymbolInfo, TensorData, TensorType, ValueId, attrs,
};
use std::sync::Arc;

/// What a symbol stands for where sizes are constant.
pub(crate) const SIZES: [(&str, i64); 3] = [("b", 2), ("s", 6), ("p", 4)];

/// A module under construction.
pub(crate) struct Build {
    graph: Graph,
    arguments: Vec<Arc<str>>,
    results: Vec<Arc<str>>,
    symbolic: bool,
}

/// A named module.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) module: Module,
}

impl Build {
    /// A size; symbols are replaced where sizes are constant.
    pub(crate) fn dim(&self, text: &str) -> Dim {
        let dim: Dim = text.parse().expect("a dimension");
        let value = |s: &Symbol| SIZES.iter().find(|(n, _)| *n == s.name()).map(|(_, v)| Dim::from(*v));
        if self.symbolic { dim } else { dim.substitute(&value) }
    }

    /// Sizes separated by blanks (an expression has none inside).
    pub(crate) fn dims(&self, text: &str) -> Vec<Dim> {
        text.split_whitespace().map(|t| self.dim(&t.replace('+', " + ").replace('-', " - "))).collect()
    }

    pub(crate) fn ty(&self, dtype: DType, dims: &str) -> TensorType {
        TensorType::new(dtype, self.dims(dims))
    }

    pub(crate) fn input(&mut self, dtype: DType, dims: &str) -> ValueId {
        let ty = self.ty(dtype, dims);
        self.arguments.push(Arc::from(format!("in{}", self.arguments.len())));
        self.graph.add_argument(ty)
    }

    pub(crate) fn f32(&mut self, dims: &str) -> ValueId {
        self.input(DType::F32, dims)
    }

    pub(crate) fn op(&mut self, kind: OpKind, operands: &[ValueId], attrs: Attrs) -> ValueId {
        self.ops(kind, operands, attrs, vec![])[0]
    }

    pub(crate) fn ops(
        &mut self,
        kind: OpKind,
        operands: &[ValueId],
        attrs: Attrs,
        regions: Vec<Graph>,
    ) -> Vec<ValueId> {
        let location =
            Location { scope: Some(Arc::from("model.layer")), source: Some((Arc::from("m.py"), 7)) };
        let op = self.graph.build(kind, operands, attrs, regions, location).expect("a valid operation");
        self.graph.op(op).results.clone()
    }

    pub(crate) fn constant(&mut self, data: TensorData) -> ValueId {
        self.op(OpKind::Constant, &[], attrs! { value: data })
    }

    pub(crate) fn scalar(&mut self, dtype: DType, value: f64) -> ValueId {
        self.constant(TensorData::splat(dtype, &[], value).expect("fits"))
    }

    pub(crate) fn output(&mut self, v: ValueId) {
        self.results.push(Arc::from(format!("out{}", self.results.len())));
        self.graph.results.push(v);
    }

    fn module(self) -> Module {
        let mut module = Module::default();
        for (name, _) in SIZES {
            module.symbols.0.insert(Symbol::new(name), SymbolInfo { min: 1, max: None, divisor: 1 });
        }
        module.functions.push(Function {
            name: Arc::from("main"),
            visibility: djinn_ir::Visibility::Entry,
            graph: self.graph,
            arguments: self.arguments.into_iter().map(|n| (n, ArgumentKind::Input)).collect(),
            results: self.results.into_iter().map(|n| (n, ResultKind::Output)).collect(),
        });
        module
    }
}

/// One module of this content.
pub(crate) fn build(symbolic: bool, fill: impl Fn(&mut Build)) -> Module {
    let mut b = Build { graph: Graph::new(), arguments: Vec::new(), results: Vec::new(), symbolic };
    fill(&mut b);
    b.module()
}

/// All cases, in a fixed order.
#[derive(Default)]
pub(crate) struct Cases(pub(crate) Vec<Case>);

impl Cases {
    fn add(&mut self, name: &str, fill: impl Fn(&mut Build)) {
        for (suffix, symbolic) in [("const", false), ("sym", true)] {
            self.0.push(Case { name: format!("{name}.{suffix}"), module: build(symbolic, &fill) });
        }
    }

    /// A case with one result.
    fn one(&mut self, name: &str, fill: impl Fn(&mut Build) -> ValueId) {
        self.add(name, |b| {
            let v = fill(b);
            b.output(v);
        });
    }
}

/// The whole collection.
pub(crate) fn all() -> Cases {
    let mut c = Cases::default();
    sources(&mut c);
    unary(&mut c);
    binary(&mut c);
    movement(&mut c);
    indexing(&mut c);
    reductions(&mut c);
    norms(&mut c);
    contractions(&mut c);
    attention(&mut c);
    control(&mut c);
    c
}

fn sources(c: &mut Cases) {
    use OpKind as K;
    c.one("constant", |b| {
        let (x, k) = (b.f32("s 3"), b.constant(TensorData::from_f32(&[3], &[1.0, 2.0, 3.0]).expect("fits")));
        b.op(K::Add, &[x, k], Attrs::new())
    });
    c.one("dim_expr", |b| {
        b.f32("b s+1 3");
        let a = attrs! { exprs: b.dims("b s 2*s+b floordiv(s,4) floordiv(s-5,4) max(s,b) 7"), scalar: false };
        b.op(K::DimExpr, &[], a)
    });
    c.one("dim_expr_scalar", |b| {
        b.f32("2*s+3 b");
        let a = attrs! { exprs: b.dims("s"), scalar: true };
        b.op(K::DimExpr, &[], a)
    });
    for (name, dtype) in [("iota", DType::F32), ("iota_f16", DType::F16)] {
        c.one(name, |b| {
            b.f32("s");
            b.op(K::Iota, &[], attrs! { shape: b.dims("2 s 3"), axis: 1i64, dtype: dtype })
        });
    }
    c.one("range", |b| {
        let n = b.input(DType::I64, "");
        let (zero, step) = (b.scalar(DType::I64, 0.0), b.scalar(DType::I64, 1.0));
        b.op(K::Range, &[zero, n, step], attrs! { result_shape: vec![Dim::symbol("u0")] })
    });
}

fn unary(c: &mut Cases) {
    use OpKind as K;
    let plain = [
        K::Abs,
        K::Neg,
        K::Sign,
        K::Exp,
        K::Log,
        K::Sqrt,
        K::Rsqrt,
        K::Reciprocal,
        K::Sin,
        K::Cos,
        K::Tan,
        K::Asin,
        K::Acos,
        K::Atan,
        K::Sinh,
        K::Cosh,
        K::Tanh,
        K::Asinh,
        K::Acosh,
        K::Atanh,
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
    for kind in plain {
        for (suffix, dtype) in [("", DType::F32), ("_f16", DType::F16), ("_bf16", DType::BF16)] {
            c.one(&format!("{}{suffix}", kind.name()), |b| {
                let x = b.input(dtype, "s 3");
                b.op(kind, &[x], Attrs::new())
            });
        }
    }
    for (kind, dtype) in [
        (K::Neg, DType::U8),
        (K::Abs, DType::I16),
        (K::Relu, DType::U8),
        (K::Relu, DType::I32),
        (K::Sign, DType::I64),
        (K::Not, DType::Bool),
        (K::Not, DType::I32),
        (K::Neg, DType::I64),
    ] {
        c.one(&format!("{}_{dtype}", kind.name()), |b| {
            let x = b.input(dtype, "s 3");
            b.op(kind, &[x], Attrs::new())
        });
    }
    let with_attrs = [
        ("leaky_relu", K::LeakyRelu, attrs! { alpha: 0.1 }),
        ("elu", K::Elu, attrs! { alpha: 0.7 }),
        ("gelu", K::Gelu, attrs! { approximate: "none" }),
        ("gelu_tanh", K::Gelu, attrs! { approximate: "tanh" }),
        ("hard_sigmoid", K::HardSigmoid, attrs! { alpha: 0.2, beta: 0.5 }),
        ("is_inf", K::IsInf, attrs! { negative: true, positive: false }),
        ("cast", K::Cast, attrs! { to: DType::I32 }),
    ];
    for (name, kind, a) in with_attrs {
        c.one(name, |b| {
            let x = b.f32("s 3");
            b.op(kind, &[x], a.clone())
        });
    }
    c.one("transfer", |b| {
        let x = b.f32("s 3");
        b.op(K::Transfer, &[x], attrs! { device: "host" })
    });
    c.one("bit_cast", |b| {
        let x = b.input(DType::I32, "s 3");
        b.op(K::BitCast, &[x], attrs! { to: DType::U32 })
    });
}

fn binary(c: &mut Cases) {
    use DType::{BF16, Bool, F32, I8, I32, I64, U8, U32};
    use OpKind as K;
    let none = Attrs::new;
    let mut rows = vec![
        (K::Add, F32, none()),
        (K::Sub, I64, none()),
        (K::Mul, I8, none()),
        (K::Div, F32, none()),
        (K::Add, BF16, none()),
        (K::Pow, F32, none()),
        (K::Pow, U8, none()),
        (K::Min, F32, none()),
        (K::Max, Bool, none()),
        (K::Min, Bool, none()),
        (K::Max, I32, none()),
        (K::And, Bool, none()),
        (K::Or, I32, none()),
        (K::Xor, Bool, none()),
        (K::Shl, U32, none()),
        (K::Shr, I32, none()),
        (K::Shl, I32, none()),
        (K::Mod, F32, attrs! { fmod: false }),
        (K::Mod, F32, attrs! { fmod: true }),
        (K::Mod, I64, attrs! { fmod: false }),
    ];
    rows.extend(PREDICATES.iter().map(|p| (K::Compare, F32, attrs! { predicate: *p })));
    rows.push((K::Compare, Bool, attrs! { predicate: "lt" }));
    for (i, (kind, dtype, a)) in rows.into_iter().enumerate() {
        c.one(&format!("{}_{dtype}_{i}", kind.name()), |b| {
            let (x, y) = (b.input(dtype, "s 3"), b.input(dtype, "b 1 3"));
            b.op(kind, &[x, y], a.clone())
        });
    }
    for dtype in [F32, Bool, I8] {
        c.one(&format!("select_{dtype}"), |b| {
            let (p, x, y) = (b.input(Bool, "s 1"), b.input(dtype, "s 3"), b.input(dtype, "3"));
            b.op(K::Select, &[p, x, y], none())
        });
    }
    c.one("clamp", |b| {
        let (x, low) = (b.f32("s 3"), b.scalar(F32, -0.5));
        let high = b.scalar(F32, f64::INFINITY);
        b.op(K::Clamp, &[x, low, high], none())
    });
    c.one("add_broadcast_operand", |b| {
        let (x, y) = (b.f32("3"), b.f32("b s 3"));
        let wide = b.op(K::Broadcast, &[x], attrs! { shape: b.dims("b s 3") });
        b.op(K::Add, &[wide, y], none())
    });
}

fn movement(c: &mut Cases) {
    use OpKind as K;
    let reshapes = [
        ("split", "b s 12", "b s 3 4"),
        ("merge", "b s 3 4", "b*s 12"),
        ("ones", "b s", "b 1 s 1"),
        ("swap", "b s 12", "s b 12"),
        ("back", "b*s 12", "b s 12"),
    ];
    for (name, from, to) in reshapes {
        c.one(&format!("reshape_{name}"), |b| {
            b.f32("b s");
            let x = b.f32(from);
            b.op(K::Reshape, &[x], attrs! { shape: b.dims(to) })
        });
    }
    c.one("reshape_chain", |b| {
        let x = b.f32("b s 12");
        let y = b.op(K::Reshape, &[x], attrs! { shape: b.dims("b*s 12") });
        b.op(K::Reshape, &[y], attrs! { shape: b.dims("b s 3 4") })
    });
    c.one("dynamic_reshape", |b| {
        let (x, n) = (b.f32("s 4"), b.input(DType::I64, "2"));
        b.op(
            K::DynamicReshape,
            &[x, n],
            attrs! { result_shape: vec![Dim::symbol("u0"), Dim::symbol("u1")], allow_zero: false },
        )
    });
    c.one("transpose", |b| {
        let x = b.f32("b s 3");
        b.op(K::Transpose, &[x], attrs! { perm: vec![2i64, 0, 1] })
    });
    c.one("transpose_identity", |b| {
        let x = b.f32("b s 3");
        b.op(K::Transpose, &[x], attrs! { perm: vec![0i64, 1, 2] })
    });
    for (name, from, to) in [("full", "3", "b s 3"), ("part", "b 1 3", "b 7 3"), ("mixed", "b 1", "b s")] {
        c.one(&format!("broadcast_{name}"), |b| {
            b.f32("b s");
            let x = b.f32(from);
            b.op(K::Broadcast, &[x], attrs! { shape: b.dims(to) })
        });
    }
    c.one("dynamic_broadcast", |b| {
        let (x, n) = (b.f32("1 4"), b.input(DType::I64, "2"));
        b.op(
            K::DynamicBroadcast,
            &[x, n],
            attrs! { result_shape: vec![Dim::symbol("u0"), Dim::symbol("u1")] },
        )
    });
    let cuts = [
        ("head", "0", "2", 1),
        ("tail", "s-2", "s", 1),
        ("stride", "1", "s-1", 2),
        ("middle", "floordiv(s,3)", "s-1", 1),
    ];
    for (name, start, limit, stride) in cuts {
        c.one(&format!("slice_{name}"), |b| {
            let x = b.f32("b s 3");
            let (start, limit) = (b.dims(start)[0].clone(), b.dims(limit)[0].clone());
            b.op(K::Slice, &[x], attrs! { axis: 1i64, start: start, limit: limit, stride: i64::from(stride) })
        });
    }
    let cut = |axis: i64, start: i64, limit: i64| {
        attrs! { axis: axis, start: Dim::from(start), limit: Dim::from(limit), stride: 1i64 }
    };
    c.one("slice_chain", |b| {
        let x = b.f32("s 8 9");
        let y = b.op(K::Slice, &[x], cut(1, 2, 6));
        b.op(K::Slice, &[y], cut(2, 1, 8))
    });
    c.add("slice_siblings", |b| {
        let x = b.f32("s 9");
        for (start, limit) in [(5, 9), (0, 2), (2, 5)] {
            let y = b.op(K::Slice, &[x], cut(1, start, limit));
            b.output(y);
        }
    });
    c.one("slice_element", |b| {
        let x = b.f32("b s 3");
        let a = attrs! { axis: 1i64, start: b.dims("s-1")[0].clone(), limit: b.dim("s"), stride: 1i64 };
        let y = b.op(K::Slice, &[x], a);
        b.op(K::Reshape, &[y], attrs! { shape: b.dims("b 3") })
    });
    c.one("dynamic_slice", |b| {
        let x = b.f32("s 4");
        let bounds: Vec<ValueId> = (0..2).map(|_| b.input(DType::I64, "1")).collect();
        let step = b.constant(TensorData::splat(DType::I32, &[1], 1.0).expect("fits"));
        b.op(
            K::DynamicSlice,
            &[x, bounds[0], bounds[1], step],
            attrs! { axes: vec![0i64], result_shape: vec![Dim::symbol("u0"), Dim::from(4)] },
        )
    });
    c.one("reverse", |b| {
        let x = b.f32("b s 3");
        b.op(K::Reverse, &[x], attrs! { axes: vec![1i64, 2] })
    });
    c.one("concat", |b| {
        let (x, y) = (b.f32("b s 3"), b.f32("b p 3"));
        b.op(K::Concat, &[x, y], attrs! { axis: 1i64 })
    });
    for mode in ["constant", "reflect", "edge", "wrap"] {
        c.one(&format!("pad_{mode}"), |b| {
            let (x, v) = (b.f32("b s 3"), b.scalar(DType::F32, 1.5));
            b.op(K::Pad, &[x, v], attrs! { low: b.dims("0 1 1"), high: b.dims("0 2 0"), mode: mode })
        });
    }
    c.one("pad_sizes", |b| {
        let (x, v) = (b.f32("b s 3"), b.scalar(DType::F32, 0.0));
        b.op(K::Pad, &[x, v], attrs! { low: b.dims("b 0 0"), high: b.dims("0 0 s"), mode: "constant" })
    });
    c.one("dynamic_pad", |b| {
        let (x, n, v) = (b.f32("s 4"), b.input(DType::I64, "2"), b.scalar(DType::F32, 2.0));
        b.op(K::DynamicPad, &[x, n, v], attrs! { axes: vec![0i64], mode: "constant", result_shape: vec![Dim::symbol("u0"), Dim::from(4)] })
    });
    c.one("tile", |b| {
        let x = b.f32("b 1 3");
        b.op(K::Tile, &[x], attrs! { repeats: b.dims("1 b 2") })
    });
    c.one("dynamic_tile", |b| {
        let (x, n) = (b.f32("s 4"), b.input(DType::I64, "2"));
        b.op(K::DynamicTile, &[x, n], attrs! { result_shape: vec![Dim::symbol("u0"), Dim::symbol("u1")] })
    });
    let modes = [
        ("nearest", "asymmetric", "floor", [1.0, 1.0, 2.0, 2.0], "b 3 2*s 10"),
        ("linear", "half_pixel", "floor", [1.0, 1.0, 2.0, 2.0], "b 3 2*s 10"),
        ("cubic", "align_corners", "floor", [1.0, 1.0, 2.0, 2.0], "b 3 2*s 10"),
        ("linear", "pytorch_half_pixel", "floor", [1.0, 1.0, 1.0, 1.4], "b 3 s 7"),
    ];
    for (i, (mode, coordinates, nearest, scales, sizes)) in modes.into_iter().enumerate() {
        c.one(&format!("resize_{i}_{mode}"), |b| {
            let x = b.f32("b 3 s 5");
            let a = attrs! { sizes: b.dims(sizes), scales: scales.to_vec(), mode: mode, coordinates: coordinates, nearest: nearest, cubic_a: -0.75, exclude_outside: false };
            b.op(K::Resize, &[x], a)
        });
    }
}

fn indexing(c: &mut Cases) {
    use OpKind as K;
    c.one("gather", |b| {
        let x = b.f32("s 4");
        let i = b.constant(TensorData::splat(DType::I8, &[2], 1.0).expect("fits"));
        b.op(K::Gather, &[x, i], attrs! { axis: 1i64 })
    });
    c.one("gather_elements", |b| {
        let (x, i) = (b.f32("s 4"), b.input(DType::I64, "s 2"));
        b.op(K::GatherElements, &[x, i], attrs! { axis: 1i64 })
    });
    c.one("gather_nd", |b| {
        let (x, i) = (b.f32("b 4 s"), b.input(DType::I32, "b 3 1"));
        b.op(K::GatherNd, &[x, i], attrs! { batch_dims: 1i64 })
    });
    for reduction in ["none", "add", "max"] {
        c.one(&format!("scatter_nd_{reduction}"), |b| {
            let (x, i, u) = (b.f32("4 s"), b.input(DType::I64, "1 1"), b.f32("1 s"));
            b.op(K::ScatterNd, &[x, i, u], attrs! { reduction: reduction })
        });
        c.one(&format!("scatter_elements_{reduction}"), |b| {
            let (x, i, u) = (b.f32("s 4"), b.input(DType::I64, "s 1"), b.f32("s 1"));
            b.op(K::ScatterElements, &[x, i, u], attrs! { axis: 1i64, reduction: reduction })
        });
    }
    for (name, x, n, source, axis) in [
        ("slot", "b 2 8 3", "1", "b 2 1 3", 2),
        ("slots", "b 2 8 3", "2", "b 2 2 3", 2),
        ("rows", "8 s", "2", "2 s", 0),
        ("one_batch", "1 2 8 3", "1", "1 2 1 3", 2),
    ] {
        c.one(&format!("index_copy_{name}"), |b| {
            let (x, i, u) = (b.f32(x), b.input(DType::I64, n), b.f32(source));
            b.op(K::IndexCopy, &[x, i, u], attrs! { axis: i64::from(axis) })
        });
    }
    for (name, upper, k) in [("upper", true, 1), ("lower", false, 0)] {
        c.one(&format!("trilu_{name}"), |b| {
            let x = b.f32("b s 4");
            b.op(K::Trilu, &[x], attrs! { upper: upper, k: i64::from(k) })
        });
    }
    c.one("nonzero", |b| {
        let x = b.f32("s 4");
        let y = b.op(K::NonZero, &[x], attrs! { result_shape: vec![Dim::from(2), Dim::symbol("u0")] });
        b.op(K::Iota, &[], attrs! { shape: vec![Dim::symbol("u0")], axis: 0i64, dtype: DType::I64 });
        b.op(K::Transpose, &[y], attrs! { perm: vec![1i64, 0] })
    });
}

fn reductions(c: &mut Cases) {
    use DType::{Bool, F32, I32, I64, U8};
    use OpKind as K;
    let rows = [
        (K::ReduceSum, F32, vec![1i64], false),
        (K::ReduceMean, F32, vec![1, 2], true),
        (K::ReduceMax, Bool, vec![0], false),
        (K::ReduceMin, I32, vec![0, 1, 2], false),
        (K::ReduceProd, F32, vec![2], true),
        (K::ReduceSum, U8, vec![1], false),
        (K::ReduceSum, F32, vec![], true),
        (K::ReduceMin, Bool, vec![0, 1, 2], true),
    ];
    for (i, (kind, dtype, axes, keep)) in rows.into_iter().enumerate() {
        c.one(&format!("{}_{i}", kind.name()), |b| {
            let x = b.input(dtype, "b s 3");
            b.op(kind, &[x], attrs! { axes: axes.clone(), keepdims: keep })
        });
    }
    c.one("reduce_mean_global", |b| {
        let x = b.f32("b 3 s 5");
        b.op(K::ReduceMean, &[x], attrs! { axes: vec![2i64, 3], keepdims: true })
    });
    for (name, keep, to) in [("drop", true, "b 3"), ("keep", false, "b 3 1 1")] {
        c.one(&format!("reduce_mean_{name}"), |b| {
            let x = b.f32("b 3 s 5");
            let y = b.op(K::ReduceMean, &[x], attrs! { axes: vec![2i64, 3], keepdims: keep });
            b.op(K::Reshape, &[y], attrs! { shape: b.dims(to) })
        });
    }
    for (kind, last) in [(K::ArgMax, false), (K::ArgMin, true)] {
        c.one(kind.name(), |b| {
            let x = b.f32("b s 3");
            b.op(kind, &[x], attrs! { axis: 1i64, keepdims: last, select_last: last })
        });
    }
    for (name, kind, dtype, exclusive, reverse) in [
        ("cumsum", K::CumSum, F32, false, false),
        ("cumsum_reverse", K::CumSum, I64, true, true),
        ("cumprod", K::CumProd, F32, false, false),
        ("cumprod_reverse", K::CumProd, F32, true, true),
        ("cumsum_u8", K::CumSum, U8, false, false),
    ] {
        c.one(name, |b| {
            let x = b.input(dtype, "b s 3");
            b.op(kind, &[x], attrs! { axis: 1i64, exclusive: exclusive, reverse: reverse })
        });
    }
    c.add("topk", |b| {
        let x = b.f32("b s 7");
        let a = attrs! { axis: 2i64, k: b.dim("b"), largest: true, sorted: true };
        for v in b.ops(K::TopK, &[x], a, vec![]) {
            b.output(v);
        }
    });
}

fn norms(c: &mut Cases) {
    use OpKind as K;
    for (name, kind) in [("softmax", K::Softmax), ("log_softmax", K::LogSoftmax)] {
        c.one(name, |b| {
            let x = b.f32("b s 3");
            b.op(kind, &[x], attrs! { axis: 1i64 })
        });
    }
    for (name, bias, dtype) in
        [("", true, DType::F32), ("_no_bias", false, DType::F32), ("_f16", true, DType::F16)]
    {
        c.one(&format!("layer_norm{name}"), |b| {
            let mut operands = vec![b.input(dtype, "b s 8"), b.input(dtype, "8")];
            if bias {
                operands.push(b.input(dtype, "8"));
            }
            b.op(K::LayerNorm, &operands, attrs! { axis: 2i64, epsilon: 1e-5 })
        });
    }
    for (name, dtype, axis) in [("", DType::F32, 2), ("_f16", DType::F16, 2), ("_wide", DType::F32, 1)] {
        c.one(&format!("rms_norm{name}"), |b| {
            let operands = [b.input(dtype, "b 6 8"), b.input(dtype, "8")];
            b.op(K::RmsNorm, &operands, attrs! { axis: i64::from(axis), epsilon: 1e-5 })
        });
    }
    for (name, groups) in [("", 2), ("_instance", 6), ("_layer", 1)] {
        c.one(&format!("group_norm{name}"), |b| {
            let operands = [b.f32("b 6 s 5"), b.f32("6"), b.f32("6")];
            b.op(K::GroupNorm, &operands, attrs! { groups: i64::from(groups), epsilon: 1e-5 })
        });
    }
    c.one("batch_norm", |b| {
        let x = b.f32("b 3 s");
        let rest: Vec<ValueId> = (0..3).map(|_| b.f32("3")).collect();
        let var = b.constant(TensorData::from_f32(&[3], &[1.0, 0.5, 2.0]).expect("fits"));
        b.op(K::BatchNorm, &[x, rest[0], rest[1], rest[2], var], attrs! { epsilon: 1e-3 })
    });
}

fn contractions(c: &mut Cases) {
    use OpKind as K;
    for (name, x, y, dtype) in [
        ("", "b s 4", "4 5", DType::F32),
        ("_2d", "s 4", "4 5", DType::F32),
        ("_vector", "4", "b 4 5", DType::F32),
        ("_i8", "s 4", "4 5", DType::I8),
    ] {
        c.one(&format!("matmul{name}"), |b| {
            let (x, y) = (b.input(dtype, x), b.input(dtype, y));
            b.op(K::MatMul, &[x, y], Attrs::new())
        });
    }
    c.one("gemm", |b| {
        let (x, w, bias) = (b.f32("s 4"), b.f32("5 4"), b.f32("5"));
        let wt = b.op(K::Transpose, &[w], attrs! { perm: vec![1i64, 0] });
        let y = b.op(K::MatMul, &[x, wt], Attrs::new());
        b.op(K::Add, &[bias, y], Attrs::new())
    });
    let conv = |pads: [i64; 4]| attrs! { strides: vec![2i64, 1], pads: pads.to_vec(), dilations: vec![1i64, 2], groups: 2i64 };
    for bias in [false, true] {
        c.one(&format!("conv_{bias}"), |b| {
            let mut operands = vec![b.f32("b 4 s 9"), b.f32("6 2 3 3")];
            if bias {
                operands.push(b.f32("6"));
            }
            b.op(K::Conv, &operands, conv([1, 0, 1, 2]))
        });
        c.one(&format!("conv_transpose_{bias}"), |b| {
            let mut operands = vec![b.f32("b 4 s 9"), b.f32("4 3 3 3")];
            if bias {
                operands.push(b.f32("6"));
            }
            b.op(K::ConvTranspose, &operands, conv([1, 0, 1, 2]).with("output_padding", vec![1i64, 0]))
        });
    }
    for ceil in [false, true] {
        let pool = move || attrs! { kernel: vec![3i64, 2], strides: vec![2i64, 2], pads: vec![1i64, 0, 1, 1], dilations: vec![1i64, 1], ceil_mode: ceil };
        c.one(&format!("max_pool_{ceil}"), |b| {
            let x = b.f32("b 3 s 8");
            b.op(K::MaxPool, &[x], pool())
        });
        c.one(&format!("avg_pool_{ceil}"), |b| {
            let x = b.f32("b 3 s 8");
            b.op(K::AvgPool, &[x], pool().with("count_include_pad", ceil))
        });
    }
    for (direction, n) in [("forward", 1), ("bidirectional", 2)] {
        c.add(&format!("lstm_{direction}"), |b| {
            let shapes = [
                "s b 3".to_owned(),
                format!("{n} 16 3"),
                format!("{n} 16 4"),
                format!("{n} 32"),
                format!("{n} b 4"),
                format!("{n} b 4"),
            ];
            let operands: Vec<ValueId> = shapes.iter().map(|s| b.f32(s)).collect();
            for v in b.ops(K::Lstm, &operands, attrs! { direction: direction, hidden: 4i64 }, vec![]) {
                b.output(v);
            }
        });
    }
}

fn attention(c: &mut Cases) {
    use OpKind as K;
    let plain = |causal: bool, offset: Dim, heads: (i64, i64)| {
        attrs! { scale: 0.5, causal: causal, causal_offset: offset, query_heads: heads.0, kv_heads: heads.1 }
    };
    let masks = [
        ("none", None, DType::F32),
        ("row", Some("b 1 1 p"), DType::Bool),
        ("full", Some("b 1 s p"), DType::F32),
        ("vector", Some("p"), DType::F32),
        ("head", Some("b 4 s p"), DType::Bool),
    ];
    for (name, mask, dtype) in masks {
        for causal in [false, true] {
            c.one(&format!("sdpa_{name}_{causal}"), |b| {
                let mut operands = vec![b.f32("b 4 s 8"), b.f32("b 2 p 8"), b.f32("b 2 p 6")];
                operands.extend(mask.map(|m| b.input(dtype, m)));
                b.op(K::Sdpa, &operands, plain(causal, Dim::ZERO, (0, 0)))
            });
        }
    }
    c.one("sdpa_offset", |b| {
        let operands = [b.f32("b 2 3 8"), b.f32("b 2 p+3 8"), b.f32("b 2 p+3 8")];
        b.op(K::Sdpa, &operands, plain(true, b.dim("p"), (0, 0)))
    });
    for mask in [false, true] {
        c.one(&format!("sdpa_rank3_{mask}"), |b| {
            let mut operands = vec![b.f32("b s 32"), b.f32("b p 16"), b.f32("b p 16")];
            if mask {
                operands.push(b.f32("s p"));
            }
            b.op(K::Sdpa, &operands, plain(false, Dim::ZERO, (4, 2)))
        });
    }
    // Causality after the past, a mask over past and present, another alignment, one query, keys read elsewhere.
    let pasts = [
        ("", "s", "p", false, false),
        ("_mask", "s", "", true, false),
        ("_shifted", "s", "p-1", false, false),
        ("_decode", "1", "p", true, false),
        ("_shared", "s", "p", false, true),
    ];
    for (name, length, offset, masked, shared) in pasts {
        c.add(&format!("sdpa_past{name}"), |b| {
            let q = b.f32(&format!("b 4 {length} 8"));
            let parts: Vec<ValueId> =
                ["p", length, "p", length].iter().map(|l| b.f32(&format!("b 2 {l} 8"))).collect();
            let k = b.op(K::Concat, &[parts[0], parts[1]], attrs! { axis: 2i64 });
            let v = b.op(K::Concat, &[parts[2], parts[3]], attrs! { axis: 2i64 });
            let mut operands = vec![q, k, v];
            if masked {
                operands.push(b.f32(&format!("b 1 {length} p+{length}")));
            }
            let at = b.dims(if offset.is_empty() { "0" } else { offset })[0].clone();
            let y = b.op(K::Sdpa, &operands, plain(!offset.is_empty(), at, (0, 0)));
            let k = if shared { b.op(K::Neg, &[k], Attrs::new()) } else { k };
            [y, k, v].into_iter().for_each(|v| b.output(v));
        });
    }
    for interleaved in [false, true] {
        for (name, x, batch, heads) in
            [("", "b 4 s 8", "b", 0), ("_shared", "b 4 s 8", "1", 0), ("_rank3", "b s 32", "1", 4)]
        {
            c.one(&format!("rope{name}_{interleaved}"), |b| {
                let x = b.f32(x);
                let (cos, sin) = (b.f32(&format!("{batch} s 4")), b.f32(&format!("{batch} s 4")));
                b.op(K::Rope, &[x, cos, sin], attrs! { interleaved: interleaved, heads: i64::from(heads) })
            });
        }
    }
    c.add("attention_layer", |b| attention_layer(b, true));
    c.add("attention_prefill", |b| attention_layer(b, false));
}

/// Projections with heads split off and swapped, rotary embedding, a cache, and the way back.
fn attention_layer(b: &mut Build, past: bool) {
    use OpKind as K;
    let swap = || attrs! { perm: vec![0i64, 2, 1, 3] };
    let (cos, sin) = (b.f32("1 s 4"), b.f32("1 s 4"));
    let mut heads = Vec::new();
    for n in [4, 2, 2] {
        let x = b.f32(&format!("b s {}", n * 8));
        let split = b.op(K::Reshape, &[x], attrs! { shape: b.dims(&format!("b s {n} 8")) });
        heads.push(b.op(K::Transpose, &[split], swap()));
    }
    for head in &mut heads[..2] {
        *head = b.op(K::Rope, &[*head, cos, sin], attrs! { interleaved: false, heads: 0i64 });
    }
    if past {
        for head in &mut heads[1..] {
            let old = b.f32("b 2 p 8");
            *head = b.op(K::Concat, &[old, *head], attrs! { axis: 2i64 });
        }
    }
    let offset = if past { b.dim("p") } else { Dim::ZERO };
    let a = attrs! { scale: 0.25, causal: true, causal_offset: offset, query_heads: 0i64, kv_heads: 0i64 };
    let y = b.op(K::Sdpa, &heads.clone(), a);
    let y = b.op(K::Transpose, &[y], swap());
    let y = b.op(K::Reshape, &[y], attrs! { shape: b.dims("b s 32") });
    [y, heads[1], heads[2]].into_iter().for_each(|v| b.output(v));
}

fn control(c: &mut Cases) {
    use OpKind as K;
    c.one("if", |b| {
        let (p, x) = (b.input(DType::Bool, ""), b.f32("s 3"));
        let regions = [K::Neg, K::Relu].map(|kind| {
            let mut g = Graph::new();
            let arg = g.add_argument(b.ty(DType::F32, "s 3"));
            let y = g.build1(kind, &[arg], Attrs::new()).expect("valid");
            g.results = vec![if kind == K::Neg { y } else { arg }];
            g
        });
        b.ops(K::If, &[p, x], Attrs::new(), regions.to_vec())[0]
    });
    c.add("loop", |b| {
        let (n, x, w) = (b.input(DType::I64, ""), b.f32("s 3"), b.f32("s 3"));
        let go = b.scalar(DType::Bool, 1.0);
        let ty = b.ty(DType::F32, "s 3");
        let mut body = Graph::new();
        body.add_argument(TensorType::scalar(DType::I64));
        let cond = body.add_argument(TensorType::scalar(DType::Bool));
        let (state, fixed) = (body.add_argument(ty.clone()), body.add_argument(ty.clone()));
        let next = body.build1(K::Add, &[state, fixed], Attrs::new()).expect("valid");
        body.results = vec![cond, next, next];
        let mut stacked = ty.clone();
        stacked.shape.insert(0, Dim::symbol("u0"));
        let a = attrs! { carried: 1i64, types: vec![ty, stacked] };
        for v in b.ops(K::Loop, &[n, go, x, w], a, vec![body]) {
            b.output(v);
        }
    });
    c.add("weight", |b| {
        let x = b.f32("s 3");
        b.output(x);
        b.output(x);
        let k = b.constant(TensorData::from_f32(&[1], &[4.0]).expect("fits"));
        b.output(k);
    });
}
