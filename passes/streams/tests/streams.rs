//! Streams of functions: where several help, where one is best, copies beside kernels.

use djinn_device::{Objective, Profile, Target, Topology};
use djinn_ir::{
    ArgumentKind, Attr, Attrs, DType, Function, Graph, Module, Op, OpKind, ResultKind, TensorType, ValueId,
    attrs,
};
use djinn_pass::{PassContext, PassOptions};
use djinn_streams::{STREAMS, make};
use std::sync::Arc;

const LINKED: &str = include_str!("../../../testdata/topologies/h100-80-x4-nvlink.toml");

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

    fn chain(&mut self, x: ValueId, w: ValueId, length: usize) -> ValueId {
        (0..length).fold(x, |x, _| self.op(OpKind::MatMul, &[x, w], Attrs::new()))
    }

    fn annotate(&mut self, v: ValueId, name: &str, value: impl Into<Attr>) {
        let (op, _) = self.graph.definition(v).expect("an operation");
        self.graph.annotate(op, name, value);
    }

    fn run(self, results: &[ValueId], target: Target, max_streams: &str) -> (Function, PassContext) {
        self.try_run(results, target, max_streams).expect("schedules")
    }

    fn try_run(
        mut self,
        results: &[ValueId],
        target: Target,
        max_streams: &str,
    ) -> djinn_diag::Result<(Function, PassContext)> {
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
        let mut cx =
            PassContext { pass: "streams".into(), target: Some(Arc::new(target)), ..PassContext::new() };
        let options = PassOptions::new(&STREAMS, &[("max-streams".into(), max_streams.into())])?;
        make(&options)?.run(&mut module, &mut cx)?;
        Ok((module.functions.remove(0), cx))
    }
}

fn stream(op: &Op) -> Option<i64> {
    match op.annotations.get("stream") {
        Some(Attr::Int(n)) => Some(*n),
        _ => None,
    }
}

fn streams(function: &Function) -> Vec<Option<i64>> {
    function.graph.ops().map(|(_, op)| stream(op)).collect()
}

fn h100() -> Target {
    Target::single(Profile::named("h100-80").expect("built in"))
}

/// Two chains of small products that meet.
fn fork(length: usize, size: i64) -> (Net, ValueId) {
    let mut net = Net::default();
    let (x, w) = (net.input(&[size, size]), net.input(&[size, size]));
    let (a, b) = (net.chain(x, w, length), net.chain(w, x, length));
    let y = net.op(OpKind::Add, &[a, b], Attrs::new());
    (net, y)
}

#[test]
fn long_small_branches_run_beside_each_other() {
    let (net, y) = fork(10, 64);
    let (function, cx) = net.run(&[y], h100(), "4");
    let found = streams(&function);
    assert_eq!(found[..10], vec![found[0]; 10]);
    assert_eq!(found[10..20], vec![found[10]; 10]);
    assert_ne!(found[0], found[10]);
    assert_eq!(cx.statistics.get("streams", "streams"), 2);
    assert_eq!(cx.statistics.get("streams", "events"), 1);
    let get = |name| cx.statistics.get("streams", name);
    assert!(get("simulated ns with streams") * 10 < get("simulated ns on one stream a device") * 7);
    assert!(cx.remarks.iter().any(|r| r.message.contains("2 streams, 1 events")), "{:?}", cx.remarks);
}

#[test]
fn one_stream_where_one_is_best() {
    // Branches that fill the device, branches as short as an event, one stream allowed, memory before speed.
    let memory = Target { objective: Objective::Memory, ..h100() };
    let cases = [(10, 8192, h100(), "4"), (1, 64, h100(), "4"), (10, 64, h100(), "1"), (10, 64, memory, "4")];
    for (length, size, target, max_streams) in cases {
        let (net, y) = fork(length, size);
        let (function, cx) = net.run(&[y], target, max_streams);
        assert!(streams(&function).iter().all(|s| *s == Some(0)), "{length} × {size}");
        assert_eq!(cx.statistics.get("streams", "events"), 0);
    }
}

#[test]
fn a_kernel_group_is_one_unit_and_views_go_along() {
    let (mut net, y) = fork(4, 64);
    let z = net.op(OpKind::Relu, &[y], Attrs::new());
    let flat = net.op(OpKind::Reshape, &[z], attrs! { shape: vec![djinn_ir::Dim::from(4096)] });
    let last = net.op(OpKind::Exp, &[flat], Attrs::new());
    net.annotate(y, "kernel", 7i64);
    net.annotate(z, "kernel", 7i64);
    let (function, cx) = net.run(&[last], h100(), "4");
    assert_eq!(cx.statistics.get("streams", "units"), 10);
    let found = streams(&function);
    assert_eq!(found[8..11], vec![found[8]; 3]);
}

#[test]
fn copies_have_streams_of_their_own() {
    // A second device works on what the first sends; a value goes to the host and back.
    let target = Target::new(Topology::parse(LINKED, "x4").expect("valid"));
    let [first, second] = [0, 1].map(|d| target.topology.devices()[d].name.clone());
    let mut net = Net::default();
    let (x, w) = (net.input(&[256, 256]), net.input(&[256, 256]));
    let a = net.chain(x, w, 1);
    net.annotate(a, "device", first.as_str());
    let spilled = net.op(OpKind::Transfer, &[a], attrs! { device: "host" });
    let fetched = net.op(OpKind::Transfer, &[spilled], attrs! { device: first.as_str() });
    let moved = net.op(OpKind::Transfer, &[a], attrs! { device: second.as_str() });
    let b = net.op(OpKind::Exp, &[moved], Attrs::new());
    net.annotate(b, "device", second.as_str());
    let c = net.op(OpKind::Exp, &[fetched], Attrs::new());
    net.annotate(c, "device", first.as_str());
    let (function, cx) = net.run(&[b, c], target, "4");
    assert_eq!(streams(&function), [Some(0); 6]);
    // Kernels and copies of each device: four streams. Events: to the host, to the other device, and to each
    // exp; the way back from the host follows on the same copy stream.
    assert_eq!(cx.statistics.get("streams", "streams"), 4);
    assert_eq!(cx.statistics.get("streams", "events"), 4);
}

#[test]
fn work_on_weights_has_no_stream() {
    let mut net = Net::default();
    let x = net.input(&[4, 8]);
    let types = vec![TensorType::of(DType::F32, &[4, 8])];
    let w = net.op(OpKind::Weight, &[], attrs! { name: "w", hash: "", types: types });
    let w = net.op(OpKind::Exp, &[w], Attrs::new());
    let y = net.op(OpKind::Add, &[x, w], Attrs::new());
    let (function, _) = net.run(&[y], h100(), "4");
    assert_eq!(streams(&function), [None, None, Some(0)]);
}

#[test]
fn kernel_groups_that_wait_for_one_another_are_refused() {
    let mut net = Net::default();
    let x = net.input(&[4, 8]);
    let a = net.op(OpKind::Exp, &[x], Attrs::new());
    let b = net.op(OpKind::Exp, &[a], Attrs::new());
    let c = net.op(OpKind::Exp, &[b], Attrs::new());
    net.annotate(a, "kernel", 0i64);
    net.annotate(b, "kernel", 1i64);
    net.annotate(c, "kernel", 0i64);
    let refused = net.try_run(&[c], h100(), "4").map(|_| ()).expect_err("a cycle");
    assert_eq!(refused.code, "streams.kernels");
}

#[test]
fn options_are_checked() {
    let (net, y) = fork(2, 64);
    assert_eq!(net.try_run(&[y], h100(), "many").map(|_| ()).expect_err("no number").code, "pipeline.option");
    let (net, y) = fork(10, 64);
    let huge = net.run(&[y], h100(), "18446744073709551615");
    assert_eq!(huge.1.statistics.get("streams", "streams"), 2);
    let mut net = Net::default();
    let x = net.input(&[4]);
    let (_, cx) = net.run(&[x], h100(), "4");
    assert_eq!(cx.statistics.get("streams", "units"), 0);
}

/// Two concatenations that need the bandwidth of the whole device take, side by side, no less than their bytes do.
#[test]
fn kernels_side_by_side_share_the_bandwidth() {
    let mut net = Net::default();
    let (a, b) = (net.input(&[1 << 25]), net.input(&[1 << 25]));
    let results = [a, b].map(|x| net.op(OpKind::Concat, &[x, x], attrs! { axis: 0i64 }));
    let target = h100();
    let bandwidth = target.topology.devices()[0].profile.memory_bandwidth;
    let (_, cx) = net.run(&results, target, "4");
    // An operand counts once for each time it is named, or once at all: the least is that it is read once.
    let bytes = 2.0 * 3.0 * f64::from(1 << 25) * 4.0;
    for name in ["simulated ns with streams", "simulated ns on one stream a device"] {
        let found = cx.statistics.get("streams", name) as f64;
        assert!(found * 1e-9 >= bytes / bandwidth, "{name}: {found} ns for {bytes} bytes");
    }
}
