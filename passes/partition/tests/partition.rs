//! Engine regions and kernel groups: known cases, and random graphs on which no group may wait for itself.

use djinn_ir::walk::function_ahead_of_time;
use djinn_ir::{
    ArgumentKind, Attr, Attrs, DType, Function, Graph, Module, Op, OpId, OpKind, ResultKind, TensorType,
    ValueId, attrs,
};
use djinn_partition::Partition;
use djinn_pass::{Pass, PassContext};
use std::collections::{BTreeMap, BTreeSet};

/// A function under construction.
#[derive(Default)]
struct Net {
    graph: Graph,
}

impl Net {
    fn input(&mut self, sizes: &[i64]) -> ValueId {
        self.graph.add_argument(TensorType::of(DType::F32, sizes))
    }

    fn op(&mut self, kind: OpKind, operands: &[ValueId], attrs: Attrs) -> ValueId {
        self.graph.build1(kind, operands, attrs).expect("well typed")
    }

    fn unary(&mut self, kind: OpKind, x: ValueId) -> ValueId {
        self.op(kind, &[x], Attrs::new())
    }

    fn binary(&mut self, kind: OpKind, a: ValueId, b: ValueId) -> ValueId {
        self.op(kind, &[a, b], Attrs::new())
    }

    fn reshape(&mut self, x: ValueId, sizes: &[i64]) -> ValueId {
        let shape: Vec<djinn_ir::Dim> = sizes.iter().map(|s| djinn_ir::Dim::from(*s)).collect();
        self.op(OpKind::Reshape, &[x], attrs! { shape: shape })
    }

    /// Runs the pass on a function that gives `results`.
    fn run(self, results: &[ValueId]) -> (Function, PassContext) {
        let (mut module, cx) = self.run_in_module(results);
        (module.functions.remove(0), cx)
    }

    fn run_in_module(mut self, results: &[ValueId]) -> (Module, PassContext) {
        self.graph.results = results.to_vec();
        let name = |prefix: &str, i: usize| format!("{prefix}{i}").into();
        let arguments =
            (0..self.graph.arguments.len()).map(|i| (name("x", i), ArgumentKind::Input)).collect();
        let results = (0..results.len()).map(|i| (name("y", i), ResultKind::Output)).collect();
        let function = Function {
            name: "main".into(),
            visibility: djinn_ir::Visibility::default(),
            graph: self.graph,
            arguments,
            results,
        };
        let mut module = Module { functions: vec![function], ..Module::default() };
        let mut cx = PassContext { pass: "partition".into(), ..PassContext::new() };
        Partition.run(&mut module, &mut cx).expect("partitions");
        (module, cx)
    }
}

fn number(op: &Op, name: &str) -> Option<i64> {
    match op.annotations.get(name) {
        Some(Attr::Int(n)) => Some(*n),
        _ => None,
    }
}

fn numbers(function: &Function, name: &str) -> Vec<Option<i64>> {
    function.graph.ops().map(|(_, op)| number(op, name)).collect()
}

/// The graph whose nodes are sets of operations has no cycle.
fn is_acyclic(graph: &Graph, set: &BTreeMap<OpId, usize>) -> bool {
    let mut waits: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (id, op) in graph.ops() {
        let own = set[&id];
        let from = op.operands.iter().filter_map(|v| graph.definition(*v)).map(|(p, _)| set[&p]);
        waits.entry(own).or_default().extend(from.filter(|p| *p != own));
    }
    while !waits.is_empty() {
        let ready: Vec<usize> =
            waits.iter().filter(|(_, w)| w.iter().all(|p| !waits.contains_key(p))).map(|(s, _)| *s).collect();
        if ready.is_empty() {
            return false;
        }
        ready.iter().for_each(|s| {
            waits.remove(s);
        });
    }
    true
}

/// Sets of operations: those with one number by the first annotation that they have, the others alone.
fn sets(graph: &Graph, names: &[&str]) -> BTreeMap<OpId, usize> {
    let mut known: BTreeMap<(usize, i64), usize> = BTreeMap::new();
    let mut next = 0;
    let mut fresh = || {
        next += 1;
        next
    };
    let mut out = BTreeMap::new();
    for (id, op) in graph.ops() {
        let key = names.iter().enumerate().find_map(|(i, name)| Some((i, number(op, name)?)));
        let set = match key {
            Some(key) => *known.entry(key).or_insert_with(&mut fresh),
            None => fresh(),
        };
        out.insert(id, set);
    }
    out
}

#[test]
fn epilogues_join_the_contraction() {
    let mut net = Net::default();
    let (x, w, b) = (net.input(&[4, 8]), net.input(&[8, 8]), net.input(&[8]));
    let y = net.binary(OpKind::MatMul, x, w);
    let y = net.binary(OpKind::Add, y, b);
    let y = net.op(OpKind::Gelu, &[y], attrs! { approximate: "none" });
    let y = net.binary(OpKind::Add, y, x);
    let z = net.op(OpKind::Softmax, &[y], attrs! { axis: 1i64 });
    let (function, _) = net.run(&[y, z]);
    assert_eq!(numbers(&function, "kernel"), [Some(0), Some(0), Some(0), Some(0), Some(1)]);
    assert_eq!(numbers(&function, "engine"), [Some(0); 5]);
}

#[test]
fn a_norm_written_out_is_one_kernel() {
    // Two reductions over the same rows and what stands between them are one kernel.
    let mut net = Net::default();
    let x = net.input(&[4, 8]);
    let x = net.unary(OpKind::Exp, x);
    let mean = net.op(OpKind::ReduceMean, &[x], attrs! { axes: vec![1i64], keepdims: true });
    let centred = net.binary(OpKind::Sub, x, mean);
    let square = net.binary(OpKind::Mul, centred, centred);
    let variance = net.op(OpKind::ReduceMean, &[square], attrs! { axes: vec![1i64], keepdims: true });
    let scale = net.unary(OpKind::Rsqrt, variance);
    let y = net.binary(OpKind::Mul, centred, scale);
    let column = net.op(OpKind::ReduceMean, &[y], attrs! { axes: vec![0i64], keepdims: true });
    let (function, _) = net.run(&[y, column]);
    let kernels = numbers(&function, "kernel");
    assert_eq!(kernels[..7], [Some(0); 7]);
    assert_eq!(kernels[7], Some(1), "other rows");
}

#[test]
fn a_reduction_that_drops_its_axis_is_not_added_back_in_the_same_kernel() {
    let mut net = Net::default();
    let x = net.input(&[8, 8]);
    let sum = net.op(OpKind::ReduceSum, &[x], attrs! { axes: vec![1i64], keepdims: false });
    let y = net.binary(OpKind::Add, x, sum);
    let (function, _) = net.run(&[y]);
    assert_eq!(numbers(&function, "kernel"), [Some(0), Some(1)]);
}

#[test]
fn views_join_producer_or_reader_or_stay_alone() {
    let mut net = Net::default();
    let (x, w) = (net.input(&[4, 8]), net.input(&[8, 8]));
    let flat = net.reshape(x, &[2, 2, 8]);
    let y = net.binary(OpKind::MatMul, flat, w);
    let y = net.reshape(y, &[4, 8]);
    let shared = net.reshape(x, &[32]);
    let a = net.unary(OpKind::Exp, shared);
    let b = net.op(OpKind::ReduceSum, &[shared], attrs! { axes: vec![0i64], keepdims: false });
    let (function, _) = net.run(&[y, a, b]);
    assert_eq!(numbers(&function, "kernel"), [Some(0), Some(0), Some(0), None, Some(1), Some(2)]);
}

#[test]
fn a_group_never_waits_for_itself() {
    // exp could join add through x, but add also needs the softmax of exp.
    let mut net = Net::default();
    let x = net.input(&[4, 8]);
    let exp = net.unary(OpKind::Exp, x);
    let other = net.op(OpKind::CumSum, &[exp], attrs! { axis: 0i64, exclusive: false, reverse: false });
    let other = net.op(OpKind::Softmax, &[other], attrs! { axis: 1i64 });
    let y = net.binary(OpKind::Add, exp, other);
    let (function, _) = net.run(&[y]);
    let kernels = numbers(&function, "kernel");
    assert_eq!(kernels, [Some(0), Some(0), Some(1), Some(1)]);
}

#[test]
fn engines_end_at_what_they_cannot_hold_and_stay_few() {
    // Two branches, one with an unsupported operation in the middle: two regions, not three.
    let mut net = Net::default();
    let (x, w) = (net.input(&[4, 8]), net.input(&[8, 8]));
    let a = net.binary(OpKind::MatMul, x, w);
    let a = net.op(OpKind::CumProd, &[a], attrs! { axis: 0i64, exclusive: false, reverse: false });
    let a = net.binary(OpKind::MatMul, a, w);
    let b = net.binary(OpKind::MatMul, x, w);
    let y = net.binary(OpKind::Add, a, b);
    let (function, cx) = net.run(&[y]);
    assert_eq!(numbers(&function, "engine"), [Some(0), None, Some(1), Some(0), Some(1)]);
    assert_eq!(cx.statistics.get("partition", "engine regions"), 2);
    let said = cx.remarks.iter().find(|r| r.message.contains("cumprod")).expect("says why");
    assert!(said.message.contains("no layer"), "{said}");
}

#[test]
fn why_engines_end_stands_in_the_metadata() {
    let mut net = Net::default();
    let (x, w) = (net.input(&[4, 8]), net.input(&[8, 8]));
    let a = net.binary(OpKind::MatMul, x, w);
    let b = net.op(OpKind::CumProd, &[a], attrs! { axis: 0i64, exclusive: false, reverse: false });
    let c = net.binary(OpKind::MatMul, b, w);
    let y = net.binary(OpKind::Add, a, c);
    let (mut module, mut cx) = net.run_in_module(&[y]);
    let expected = [(
        "engine.main.0",
        "cumprod: TensorRT has no layer for it\nadd also waits for operations outside of the engine",
    )];
    let said = |module: &Module| -> Vec<(String, String)> {
        module.metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    };
    let expected = expected.map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(said(&module), expected);
    // What an earlier run said is forgotten.
    module.metadata.insert("engine.main.7".into(), "gone".into());
    Partition.run(&mut module, &mut cx).expect("partitions");
    assert_eq!(said(&module), expected);
}

#[test]
fn devices_and_phases_are_kept_apart() {
    let mut net = Net::default();
    let x = net.input(&[4, 8]);
    let a = net.unary(OpKind::Exp, x);
    let b = net.op(OpKind::Transfer, &[a], attrs! { device: "gpu1" });
    let c = net.unary(OpKind::Exp, b);
    let d = net.unary(OpKind::Exp, c);
    for (v, device, phase) in
        [(a, "gpu0", "llm_prefill"), (b, "gpu1", ""), (c, "gpu1", "llm_prefill"), (d, "gpu1", "llm_decode")]
    {
        let (op, _) = net.graph.definition(v).expect("an operation");
        net.graph.annotate(op, "device", device);
        if !phase.is_empty() {
            net.graph.annotate(op, "phase", phase);
        }
    }
    let (function, _) = net.run(&[d]);
    assert_eq!(numbers(&function, "engine"), [Some(0), None, Some(1), Some(2)]);
    assert_eq!(numbers(&function, "kernel"), [Some(0), None, Some(1), Some(2)]);
}

#[test]
fn work_on_weights_is_in_no_group() {
    let mut net = Net::default();
    let x = net.input(&[4, 8]);
    let types = vec![TensorType::of(DType::F32, &[4, 8])];
    let w = net.op(OpKind::Weight, &[], attrs! { name: "w", hash: "", types: types });
    let w = net.unary(OpKind::Exp, w);
    let y = net.binary(OpKind::Add, x, w);
    let (function, _) = net.run(&[y]);
    assert_eq!(numbers(&function, "kernel"), [None, None, Some(0)]);
    assert_eq!(numbers(&function, "engine"), [None, None, Some(0)]);
}

/// Knuth's MMIX generator.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % n as u64) as usize
    }
}

/// Any operation on any of `values`, most often the latest; all are [6, 6], [6, 1], [36] or [6].
fn random_op(net: &mut Net, random: &mut Random, values: &[ValueId]) -> ValueId {
    let mut pick = || {
        let back = if random.below(3) == 0 { values.len() } else { values.len().min(4) };
        values[values.len() - 1 - random.below(back)]
    };
    let (a, b) = (pick(), pick());
    let shape = |net: &Net, v: ValueId| net.graph.ty(v).const_shape().expect("constant");
    let size = |net: &Net, v: ValueId| shape(net, v).iter().product::<usize>();
    match random.below(12) {
        0 => net.unary(OpKind::Exp, a),
        1 | 2 if shape(net, a) != [36] && shape(net, b) != [36] => net.binary(OpKind::Add, a, b),
        3 => net.op(OpKind::Softmax, &[a], attrs! { axis: 0i64 }),
        4 if shape(net, a).len() == 2 => {
            net.op(OpKind::ReduceSum, &[a], attrs! { axes: vec![1i64], keepdims: random.below(2) == 0 })
        }
        5 | 6 if shape(net, a) == [6, 6] && shape(net, b) == [6, 6] => net.binary(OpKind::MatMul, a, b),
        7 if size(net, a) == 36 => net.reshape(a, if random.below(2) == 0 { &[36] } else { &[6, 6] }),
        8 if shape(net, a) == [6, 6] => net.op(OpKind::Transpose, &[a], attrs! { perm: vec![1i64, 0] }),
        9 => net.op(OpKind::CumProd, &[a], attrs! { axis: 0i64, exclusive: false, reverse: false }),
        10 => net.op(OpKind::Transfer, &[a], attrs! { device: "gpu1" }),
        _ => net.unary(OpKind::Tanh, a),
    }
}

#[test]
fn random_graphs_keep_an_order_of_execution() {
    let mut random = Random(11);
    for case in 0..600 {
        let mut net = Net::default();
        let mut values = vec![net.input(&[6, 6]), net.input(&[6, 1])];
        for _ in 0..1 + random.below(60) {
            let v = random_op(&mut net, &mut random, &values);
            if case % 3 == 0 {
                let (op, _) = net.graph.definition(v).expect("an operation");
                net.graph.annotate(op, "device", ["gpu0", "gpu1"][random.below(2)]);
            }
            values.push(v);
        }
        let results: Vec<ValueId> = (0..2).map(|_| values[2 + random.below(values.len() - 2)]).collect();
        let (function, cx) = net.run(&results);
        let graph = &function.graph;
        assert!(is_acyclic(graph, &sets(graph, &["kernel"])), "case {case}: kernels");
        assert!(is_acyclic(graph, &sets(graph, &["engine"])), "case {case}: engines");
        assert!(is_acyclic(graph, &sets(graph, &["engine", "kernel"])), "case {case}: both");
        check_groups(&function);
        assert_eq!(cx.statistics.get("partition", "path searches stopped"), 0);
    }
}

/// Every launch lies in one engine or in none and on one device; sizes are bounded.
fn check_groups(function: &Function) {
    let mut groups: BTreeMap<i64, Vec<&Op>> = BTreeMap::new();
    let ahead = function_ahead_of_time(function);
    for (_, op) in function.graph.ops() {
        let runs = !op.results.iter().all(|v| ahead[v.0 as usize]);
        let kernel = number(op, "kernel");
        let needs_none = matches!(op.kind, OpKind::Reshape | OpKind::Transfer);
        assert!(kernel.is_some() || !runs || needs_none, "{:?}", op.kind);
        if let Some(kernel) = kernel {
            groups.entry(kernel).or_default().push(op);
        }
    }
    let expected: Vec<i64> = (0..groups.len() as i64).collect();
    assert_eq!(groups.keys().copied().collect::<Vec<_>>(), expected, "numbered without gaps");
    for ops in groups.values() {
        assert!(ops.len() <= 32);
        assert!(ops.iter().all(|op| op.annotations.get("engine") == ops[0].annotations.get("engine")));
        assert!(ops.iter().all(|op| op.annotations.get("device") == ops[0].annotations.get("device")));
        let contractions = ops.iter().filter(|op| op.kind == OpKind::MatMul).count();
        assert!(contractions <= 1);
    }
}

#[test]
fn long_chains_are_cut_at_the_size_of_a_group() {
    let mut net = Net::default();
    let mut x = net.input(&[6, 6]);
    for _ in 0..100 {
        x = net.unary(OpKind::Tanh, x);
    }
    let (function, cx) = net.run(&[x]);
    let last = numbers(&function, "kernel").last().copied().flatten();
    assert_eq!(last, Some(3));
    assert!(cx.statistics.get("partition", "kernel groups kept apart by their size") > 0);
}

#[test]
fn a_large_graph_takes_time_in_proportion() {
    // 20,000 operations that all read one early value: no search goes through all of them.
    let mut net = Net::default();
    let first = net.input(&[6, 6]);
    let first = net.op(OpKind::Softmax, &[first], attrs! { axis: 0i64 });
    let mut x = first;
    for i in 0..20_000 {
        x = net.binary(OpKind::Add, x, first);
        if i % 7 == 0 {
            x = net.op(OpKind::Softmax, &[x], attrs! { axis: (i % 2) as i64 });
        }
    }
    let (function, _) = net.run(&[x]);
    assert!(is_acyclic(&function.graph, &sets(&function.graph, &["kernel"])));
}
