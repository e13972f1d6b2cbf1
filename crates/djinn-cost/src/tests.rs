//! Tests of the cost model: the ranking formula bit by bit, groups, symbolic sizes, custom models, speed.

use super::*;
use djinn_device::{OpClass, Profile, Target, Topology};
use djinn_ir::ops::{CostClass, OP_TABLE};
use djinn_ir::{Attrs, DType, Dim, Graph, OpKind, SymbolTable, TensorData, TensorType, attrs};
use std::collections::BTreeMap;
use std::sync::Arc;

fn t(sizes: &[i64]) -> TensorType {
    TensorType::of(DType::F32, sizes)
}

/// The formula by which saturation has ranked alternatives from the start, kept here word by word: extraction breaks
/// ties on it, so the last bit matters.
fn ranking(kind: OpKind, operands: &[&TensorType], results: &[TensorType], ahead: bool) -> f64 {
    let (peak, bandwidth, launch) = (100e12, 1e12, 4e-6);
    let size = |d: &Dim| d.eval(&|_| Some(64)).unwrap_or(64).max(0) as f64;
    let elements = |t: &TensorType| t.shape.iter().map(size).product::<f64>();
    let bytes = |t: &TensorType| elements(t) * t.dtype.size() as f64;
    let written: f64 = results.iter().map(bytes).sum();
    if ahead {
        return (written + 64.0) * 1e-18;
    }
    let read: f64 = match kind {
        OpKind::Gather | OpKind::GatherNd | OpKind::GatherElements | OpKind::Slice => written,
        _ => operands.iter().map(|t| bytes(t)).sum(),
    };
    let out = results.first().map_or(0.0, elements);
    let flops = match kind {
        OpKind::MatMul => 2.0 * out * operands[0].shape.last().map_or(1.0, size),
        OpKind::Conv => 2.0 * out * operands[1].shape[1..].iter().map(size).product::<f64>(),
        OpKind::ConvTranspose => {
            2.0 * elements(operands[0]) * operands[1].shape[1..].iter().map(size).product::<f64>()
        }
        OpKind::Sdpa => 4.0 * elements(operands[0]) * size(&operands[1].shape[operands[1].rank() - 2]),
        OpKind::Lstm => {
            let weights: f64 = operands[1..3].iter().map(|t| elements(t)).sum();
            2.0 * weights * operands[0].shape[..2].iter().map(size).product::<f64>()
        }
        _ => 0.0,
    };
    let effort = match kind {
        OpKind::Pow => 1.02,
        OpKind::Div | OpKind::Mod => 1.01,
        _ => 1.0,
    };
    let passes = if kind.def().cost == CostClass::Normalization { 1.5 } else { 1.0 };
    let traffic = (read + written) / bandwidth;
    match kind.def().cost {
        CostClass::Free => match kind {
            OpKind::Reshape | OpKind::DynamicReshape => launch * 0.1,
            _ => 0.0,
        },
        CostClass::Copy if kind == OpKind::Slice => launch * 0.3 + traffic,
        CostClass::Elementwise | CostClass::Copy | CostClass::Reduction | CostClass::Normalization => {
            launch * effort + traffic * passes
        }
        CostClass::Contraction => launch + (flops / peak).max(traffic),
        CostClass::Control => launch + traffic,
    }
}

fn random(state: &mut u64, n: u64) -> u64 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 33) % n
}

fn random_type(state: &mut u64) -> TensorType {
    let dtype = DType::ALL[random(state, 13) as usize];
    let shape = (0..4).map(|_| match random(state, 5) {
        0 => &Dim::symbol("s0") + &Dim::from(random(state, 9) as i64),
        1 => Dim::symbol("s1").floor_div(&Dim::from(2i64)),
        small => {
            let bits = 2 * small + random(state, 3);
            Dim::from(random(state, 1 << bits) as i64)
        }
    });
    TensorType::new(dtype, shape)
}

#[test]
fn the_generic_device_ranks_as_ever_to_the_last_bit() {
    let symbols = SymbolTable::default();
    let model = CostModel::generic(&symbols);
    let mut state = 1;
    for _ in 0..200 {
        let types: Vec<TensorType> = (0..6).map(|_| random_type(&mut state)).collect();
        let operands: Vec<&TensorType> = types[..5].iter().collect();
        for def in OP_TABLE {
            let ahead = random(&mut state, 8) == 0;
            let (ours, old) = (
                model.op(def.kind, &operands, &types[5..], ahead),
                ranking(def.kind, &operands, &types[5..], ahead),
            );
            assert_eq!(ours.to_bits(), old.to_bits(), "{}: {ours} and {old}", def.name);
        }
    }
}

#[test]
fn symbolic_costs_agree_with_numbers_for_any_sizes() {
    let symbols = SymbolTable::default();
    let mut state = 2;
    for _ in 0..50 {
        let types: Vec<TensorType> = (0..6).map(|_| random_type(&mut state)).collect();
        let operands: Vec<&TensorType> = types[..5].iter().collect();
        for def in OP_TABLE {
            let none = Attrs::new();
            let symbolic = SymbolicCost::of(def.kind, &none, &operands, &types[5..]);
            for (s0, s1) in [(1, 1), (17, 64), (1000, 3)] {
                let sizes = BTreeMap::from([("s0".to_owned(), s0), ("s1".to_owned(), s1)]);
                for name in Profile::names() {
                    let profile = Profile::named(name).expect("built in");
                    let model = CostModel::new(profile, &symbols).with_sizes(&sizes);
                    let (a, b) =
                        (symbolic.seconds(&model), model.op(def.kind, &operands, &types[5..], false));
                    assert!((a - b).abs() <= 1e-12 * b, "{} on {name}: {a} and {b}", def.name);
                }
            }
        }
    }
}

#[test]
fn overflowing_sizes_cost_most_and_nothing_panics() {
    let symbols = SymbolTable::default();
    let sizes = BTreeMap::from([("s".to_owned(), i64::MAX)]);
    let model = CostModel::generic(&symbols).with_sizes(&sizes);
    let huge = TensorType::new(DType::F32, [Dim::symbol("s"), Dim::symbol("s"), Dim::symbol("s")]);
    let symbolic =
        SymbolicCost::of(OpKind::MatMul, &Attrs::new(), &[&huge, &huge], std::slice::from_ref(&huge));
    assert!(symbolic.seconds(&model) > 1e4);
    assert!(model.op(OpKind::MatMul, &[&huge, &huge], std::slice::from_ref(&huge), false) > 1e4);
    for def in OP_TABLE {
        let s = model.op(def.kind, &[&huge], std::slice::from_ref(&huge), false);
        assert!(!s.is_nan(), "{}", def.name);
    }
}

#[test]
fn merged_products_cost_less_than_separate_ones() {
    let symbols = SymbolTable::default();
    let model = CostModel::generic(&symbols);
    let matmul = |n: i64| {
        let (x, w) = (t(&[16, 64]), t(&[64, n]));
        model.op(OpKind::MatMul, &[&x, &w], &[t(&[16, n])], false)
    };
    let slice = model.op(OpKind::Slice, &[&t(&[16, 192])], &[t(&[16, 64])], false);
    assert!(matmul(192) + 3.0 * slice < 3.0 * matmul(64));
}

#[test]
fn work_on_weights_is_free_at_run_time() {
    let symbols = SymbolTable::default();
    let model = CostModel::generic(&symbols);
    let w = t(&[4096, 4096]);
    let ahead = model.op(OpKind::Transpose, &[&w], std::slice::from_ref(&w), true);
    assert!(ahead < model.profile.launch_seconds / 1000.0);
}

#[test]
fn precision_and_device_count() {
    let symbols = SymbolTable::default();
    let h100 = CostModel::new(Profile::named("h100-80").expect("built in"), &symbols);
    let matmul = |model: CostModel<'_>, dtype| {
        let x = TensorType::of(dtype, &[8192, 8192]);
        model.op(OpKind::MatMul, &[&x, &x], std::slice::from_ref(&x), false)
    };
    let half = 2.0 * 8192f64.powi(3) / 989.5e12;
    assert!((matmul(h100, DType::BF16) - half - 4e-6).abs() < 1e-9);
    assert!(matmul(h100, DType::F32) > 10.0 * matmul(h100, DType::F16));
    let l4 = Profile::named("l4").expect("built in");
    assert!(matmul(h100.on(l4), DType::BF16) > 5.0 * matmul(h100, DType::BF16));
}

/// x [n, 64] → matmul → gelu → + bias, twice used in the end if `leak`.
fn chain(leak: bool) -> Graph {
    let mut g = Graph::new();
    let x = g.add_argument(t(&[512, 64]));
    let w = g.add_argument(t(&[64, 64]));
    let b = g.add_argument(t(&[64]));
    let y = g.build1(OpKind::MatMul, &[x, w], Attrs::new()).expect("typed");
    let z = g.build1(OpKind::Gelu, &[y], attrs! { approximate: "none" }).expect("typed");
    let r = g.build1(OpKind::Add, &[z, b], Attrs::new()).expect("typed");
    g.results = if leak { vec![r, y] } else { vec![r] };
    g
}

#[test]
fn a_group_pays_one_launch_and_its_border() {
    let symbols = SymbolTable::default();
    let model = CostModel::generic(&symbols);
    for leak in [false, true] {
        let g = chain(leak);
        let (ids, uses): (Vec<_>, _) = (g.ops().map(|(id, _)| id).collect(), g.use_counts());
        let cost = model.group_cost(&g, &ids, &uses);
        let big = 512.0 * 64.0 * 4.0;
        assert_eq!(cost.bytes_read, big + 64.0 * 64.0 * 4.0 + 64.0 * 4.0);
        assert_eq!(cost.bytes_written, if leak { 2.0 * big } else { big });
        assert_eq!(cost.flops, 2.0 * 512.0 * 64.0 * 64.0);
        assert_eq!(cost.seconds, 4e-6 + (cost.bytes_read + cost.bytes_written) / 1e12);
        let apart: f64 = ids.iter().map(|id| model.group(&g, &[*id], &uses)).sum();
        assert!(cost.seconds < apart && apart == model.graph(&g));
        let host = model.on(Profile::named("host").expect("built in"));
        let each: f64 = ids.iter().map(|id| host.group(&g, &[*id], &uses)).sum();
        assert_eq!(host.group(&g, &ids, &uses), each, "the host fuses nothing");
    }
    assert_eq!(model.group(&chain(false), &[], &[]), 0.0);
}

#[test]
fn a_gather_inside_a_group_reads_what_it_takes() {
    let symbols = SymbolTable::default();
    let model = CostModel::generic(&symbols);
    let mut g = Graph::new();
    let table = g.add_argument(t(&[50_000, 64]));
    let ids = g.add_argument(TensorType::of(DType::I64, &[8]));
    let e = g.build1(OpKind::Gather, &[table, ids], attrs! { axis: 0i64 }).expect("typed");
    let r = g.build1(OpKind::Relu, &[e], Attrs::new()).expect("typed");
    g.results = vec![r];
    let group: Vec<_> = g.ops().map(|(id, _)| id).collect();
    assert_eq!(model.group_cost(&g, &group, &g.use_counts()).bytes_read, 8.0 * 64.0 * 4.0 + 8.0 * 8.0);
}

fn looped(trips: Option<i64>) -> Graph {
    let mut body = Graph::new();
    let _i = body.add_argument(TensorType::scalar(DType::I64));
    let cond = body.add_argument(TensorType::scalar(DType::Bool));
    let x = body.add_argument(t(&[1024, 1024]));
    let y = body.build1(OpKind::Tanh, &[x], Attrs::new()).expect("typed");
    body.results = vec![cond, y];
    let mut g = Graph::new();
    let start = g.add_argument(t(&[1024, 1024]));
    let count = match trips {
        Some(n) => {
            let n = TensorData::from_i64(&[], &[n]).expect("fits");
            g.build1(OpKind::Constant, &[], attrs! { value: n }).expect("typed")
        }
        None => g.add_argument(TensorType::scalar(DType::I64)),
    };
    let go = TensorData::splat(DType::Bool, &[], 1.0).expect("fits");
    let go = g.build1(OpKind::Constant, &[], attrs! { value: go }).expect("typed");
    let attrs = attrs! { carried: 1i64, types: vec![t(&[1024, 1024])] };
    let out = g.build(OpKind::Loop, &[count, go, start], attrs, vec![body], djinn_ir::Location::default());
    g.results = g.op(out.expect("typed")).results.clone();
    g
}

#[test]
fn loops_cost_their_trips() {
    let symbols = SymbolTable::default();
    let model = CostModel::generic(&symbols);
    let once = 4e-6 + 2.0 * 4.0 * 1024.0 * 1024.0 / 1e12;
    let cost = |trips| model.graph(&looped(trips));
    assert!((cost(Some(11)) - cost(Some(1)) - 10.0 * once).abs() < 1e-12);
    assert!((cost(None) - cost(Some(UNBOUND_SIZE))).abs() < 1e-12);
}

#[test]
fn transfers_take_their_route() {
    let symbols = SymbolTable::default();
    let target =
        Target::new(Topology::single(Profile::named("l4").expect("built in"))).with_sizes([("s", 1000)]);
    let model = CostModel::of_target(&target, 0, &symbols);
    let route = target.topology.route("host", "l4:0").expect("linked");
    let ty = TensorType::new(DType::F32, [Dim::symbol("s"), Dim::from(8000i64)]);
    assert_eq!(model.transfer(&ty, &route), route.seconds(32_000_000));
    assert_eq!(CostModel::of_target(&target, 9, &symbols).profile.name, "generic");
}

/// A model that knows only gelu, and answers nonsense for tanh.
struct Mine;

impl OpCost for Mine {
    fn name(&self) -> &str {
        "mine"
    }

    fn seconds(&self, query: &OpQuery<'_>) -> Option<f64> {
        match query.kind {
            OpKind::Gelu => Some(query.work.elements),
            OpKind::Tanh => Some(f64::NAN),
            _ => None,
        }
    }
}

#[test]
fn custom_models_go_first() {
    let symbols = SymbolTable::default();
    let table = "[op.relu]\nseconds = 1.0\nper_byte = 0.5\n[opaque.\"acme.Router\"]\nseconds = 7.0";
    let table = CostTable::from_toml(table, "mine.toml").expect("valid");
    let models: Vec<Arc<dyn OpCost>> = vec![Arc::new(Mine), Arc::new(table)];
    let mut target = Target::single(Profile::generic());
    target.costs = Some(own_costs("mine", models));
    let model = CostModel::of_target(&target, 0, &symbols);
    let plain = CostModel::generic(&symbols);
    let x = t(&[10]);
    let cost = |m: &CostModel<'_>, kind| m.op(kind, &[&x], std::slice::from_ref(&x), false);
    assert_eq!(cost(&model, OpKind::Gelu), 10.0);
    assert_eq!(cost(&model, OpKind::Relu), 1.0 + 0.5 * 80.0);
    assert_eq!(cost(&model, OpKind::Tanh), cost(&plain, OpKind::Tanh), "NaN is no time");
    let opaque = attrs! { op: "acme.Router", payload: "", types: vec![x.clone()] };
    assert_eq!(model.op_with(OpKind::Opaque, &opaque, &[&x], std::slice::from_ref(&x), false), 7.0);
    for (text, code) in [
        ("[op.rellu]", "cost.op"),
        ("[op.relu]\nseconds = -1.0", "cost.coefficient"),
        ("[op.relu]\nper_flop = nan", "cost.coefficient"),
        ("[op.relu]\nper_foot = 1.0", "cost.format"),
        ("[[", "cost.format"),
    ] {
        let e = CostTable::from_toml(text, "mine.toml").expect_err(text);
        assert_eq!((e.code.as_str(), e.place[0].as_str()), (code, "mine.toml"));
    }
}

#[test]
fn rates_of_a_class_or_an_operation_enter() {
    let symbols = SymbolTable::default();
    let mut profile = Profile::generic().clone();
    profile.classes[OpClass::Elementwise as usize].memory = 0.5;
    let mut own = djinn_device::Rates::default();
    (own.overhead_seconds, own.per_element) = (1.0, 2.0);
    profile.ops.insert("exp".into(), own);
    let (x, plain) = (t(&[1000]), CostModel::generic(&symbols));
    let cost = |m: &CostModel<'_>, kind| m.op(kind, &[&x], std::slice::from_ref(&x), false);
    let model = plain.on(&profile);
    assert_eq!(cost(&model, OpKind::Relu), 4e-6 + 2.0 * 8e-9);
    assert_eq!(cost(&model, OpKind::Exp), cost(&plain, OpKind::Exp) + 2001.0);
}

/// Kernels side by side get no more bytes and no more products out of a device than it has.
#[test]
fn the_share_covers_bandwidth_and_peak() {
    let symbols = SymbolTable::default();
    let mut g = Graph::new();
    let (x, small) = (g.add_argument(t(&[1 << 25])), g.add_argument(t(&[64])));
    let thin = g.add_argument(t(&[1, 1 << 20]));
    let thick = g.add_argument(t(&[1 << 20, 64]));
    let cat = g.build1(OpKind::Concat, &[x, x], attrs! { axis: 0i64 }).expect("typed");
    let neg = g.build1(OpKind::Neg, &[x], Attrs::new()).expect("typed");
    let tiny = g.build1(OpKind::Neg, &[small], Attrs::new()).expect("typed");
    let product = g.build1(OpKind::MatMul, &[thin, thick], Attrs::new()).expect("typed");
    g.results = vec![cat, neg, tiny, product];
    let uses = g.use_counts();
    let ids: Vec<_> = g.ops().map(|(id, _)| id).collect();
    for name in Profile::names() {
        let model = CostModel::new(Profile::named(name).expect("built in"), &symbols);
        let cost = |ids: &[djinn_ir::OpId]| model.group_cost(&g, ids, &uses);
        for id in &ids {
            let cost = cost(&[*id]);
            let moving = (cost.bytes_read + cost.bytes_written) / model.profile.memory_bandwidth;
            let computing = cost.flops / model.profile.peaks.of(djinn_device::Precision::F32);
            let used = cost.share * cost.seconds;
            let least = moving.max(computing).min(cost.seconds);
            assert!(used >= least * (1.0 - 1e-9), "{name}: {used} of {least}");
            assert!((MIN_SHARE..=1.0).contains(&cost.share));
        }
        let both = cost(&ids[..2]);
        let moving = (both.bytes_read + both.bytes_written) / model.profile.memory_bandwidth;
        assert!(both.share * both.seconds >= moving.min(both.seconds) * (1.0 - 1e-9), "{name}");
    }
    let h100 = CostModel::new(Profile::named("h100-80").expect("built in"), &symbols);
    assert!(h100.group_cost(&g, &ids[2..3], &uses).share < 0.01, "64 elements leave room beside them");
}
