//! Tests on small modules made by hand: forced splits, pins, states, several functions, and equal results.

use crate::{COLOCATE, Colocate};
use djinn_device::{Profile, Target, Topology};
use djinn_diag::Result;
use djinn_interp::run;
use djinn_ir::{
    ArgumentKind, Attr, Attrs, DType, Function, Graph, Location, Module, OpKind, ResultKind, TensorData,
    TensorType, ValueId, Visibility, Weight, text, verify, weight_attrs,
};
use djinn_pass::{Pass, PassContext, PassOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bytes of one weight of [`layered`].
const WEIGHT: u64 = 64 * 64 * 4;

struct Builder {
    module: Module,
    graph: Graph,
    arguments: Vec<(Arc<str>, ArgumentKind)>,
    results: Vec<(Arc<str>, ResultKind)>,
}

impl Builder {
    fn new(module: Module) -> Self {
        Self { module, graph: Graph::new(), arguments: Vec::new(), results: Vec::new() }
    }

    fn argument(&mut self, name: &str, kind: ArgumentKind, shape: &[i64]) -> ValueId {
        self.arguments.push((Arc::from(name), kind));
        self.graph.add_argument(TensorType::of(DType::F32, shape))
    }

    fn op(&mut self, scope: &str, kind: OpKind, operands: &[ValueId], attrs: Attrs) -> ValueId {
        let location = Location { scope: Some(Arc::from(scope)), source: None };
        let id = self.graph.build(kind, operands, attrs, Vec::new(), location).expect("a good operation");
        self.graph.op(id).results[0]
    }

    fn weight(&mut self, scope: &str, name: &str, shape: &[usize]) -> ValueId {
        let numel: usize = shape.iter().product();
        let seed = name.bytes().fold(7usize, |s, b| s * 31 % 1009 + b as usize);
        let values: Vec<f32> = (0..numel).map(|i| ((i * 37 + seed) % 19) as f32 * 0.02 - 0.17).collect();
        let weight = Weight::with_data(TensorData::from_f32(shape, &values).expect("a tensor"));
        let attrs = weight_attrs(name, &weight);
        self.module.weights.entry(Arc::from(name)).or_insert(weight);
        self.op(scope, OpKind::Weight, &[], attrs)
    }

    fn result(&mut self, name: &str, kind: ResultKind, v: ValueId) {
        self.results.push((Arc::from(name), kind));
        self.graph.results.push(v);
    }

    fn finish(mut self, name: &str) -> Module {
        self.module.functions.push(Function {
            name: Arc::from(name),
            visibility: Visibility::Entry,
            graph: self.graph,
            arguments: self.arguments,
            results: self.results,
        });
        verify::verify(&self.module).expect("a good module");
        self.module
    }
}

/// `rows` times `layers` of matmul, state (if asked), relu, all reading one mask; weights of 16 KiB.
fn layered(module: Module, name: &str, rows: i64, layers: usize, state: bool) -> Module {
    let mut b = Builder::new(module);
    let mut x = b.argument("x", ArgumentKind::Input, &[rows, 64]);
    let input = x;
    let mask = b.op("mask", OpKind::Sigmoid, &[x], Attrs::new());
    let mut updates = Vec::new();
    for l in 0..layers {
        let scope = format!("layers.{l}");
        let w = b.weight(&scope, &format!("w{l}"), &[64, 64]);
        let w = b.op(&scope, OpKind::Neg, &[w], Attrs::new());
        let mut y = b.op(&scope, OpKind::MatMul, &[x, w], Attrs::new());
        if state {
            let cache = b.argument(&format!("cache{l}"), ArgumentKind::State { initial: None }, &[1, 64]);
            let first = Attrs::new().with("axes", vec![0i64]).with("keepdims", true);
            let row = b.op(&scope, OpKind::ReduceSum, &[y], first);
            let new = b.op(&scope, OpKind::Add, &[cache, row], Attrs::new());
            y = b.op(&scope, OpKind::Add, &[y, cache], Attrs::new());
            updates.push((b.arguments.len() as u32 - 1, new));
        }
        let y = b.op(&scope, OpKind::Relu, &[y], Attrs::new());
        x = b.op(&scope, OpKind::Mul, &[y, mask], Attrs::new());
    }
    x = b.op("end", OpKind::Add, &[x, input], Attrs::new());
    b.result("y", ResultKind::Output, x);
    for (argument, v) in updates {
        b.result(&format!("new{argument}"), ResultKind::Update(argument), v);
    }
    b.finish(name)
}

fn target(devices: &[u64]) -> Target {
    let device = |m: &u64| format!("[[device]]\nprofile = \"generic\"\nmemory_bytes = {m}\n");
    let text: String = devices.iter().map(device).collect();
    Target::new(Topology::parse(&text, "test.toml").expect("a topology"))
}

fn colocate(module: &Module, target: Target, options: &[(&str, &str)]) -> Result<(Module, PassContext)> {
    let given: Vec<_> = options.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
    let pass = Colocate::new(&PassOptions::new(&COLOCATE, &given)?)?;
    let mut cx =
        PassContext { target: Some(Arc::new(target)), pass: "colocate".into(), ..PassContext::new() };
    let mut changed = module.clone();
    pass.run(&mut changed, &mut cx)?;
    verify::verify(&changed)?;
    assert_eq!(check(&changed), Vec::<String>::new());
    same_results(module, &changed);
    Ok((changed, cx))
}

/// The device of an operation.
fn device_of(graph: &Graph, id: djinn_ir::OpId) -> String {
    match graph.op(id).annotations.get("device") {
        Some(Attr::Str(name)) => name.to_string(),
        other => panic!("no device: {other:?}"),
    }
}

/// What is wrong with the placement of a module: operands elsewhere, transfers made twice, states in two places.
fn check(module: &Module) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut states: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for f in &module.functions {
        let ahead = djinn_ir::walk::function_ahead_of_time(f);
        let mut transfers = BTreeSet::new();
        for (id, op) in f.graph.ops() {
            let device = device_of(&f.graph, id);
            for v in op.operands.iter().filter(|v| !ahead[v.0 as usize]) {
                match f.graph.definition(*v) {
                    Some((source, _)) if op.kind == OpKind::Transfer => {
                        if !transfers.insert((*v, device.clone())) || device_of(&f.graph, source) == device {
                            wrong.push(format!("%{} is transferred to {device} for nothing", v.0));
                        }
                    }
                    Some((source, _)) if device_of(&f.graph, source) != device => {
                        wrong.push(format!("%{} is not on {device}", v.0));
                    }
                    Some(_) => {}
                    None => {
                        let n = f.graph.arguments.iter().position(|a| a == v).expect("an argument");
                        if matches!(f.arguments[n].1, ArgumentKind::State { .. }) {
                            states.entry(f.arguments[n].0.to_string()).or_default().insert(device.clone());
                        }
                    }
                }
            }
        }
        for (v, (_, kind)) in f.graph.results.iter().zip(&f.results) {
            if let (ResultKind::Update(n), Some((id, _))) = (kind, f.graph.definition(*v)) {
                states
                    .entry(f.arguments[*n as usize].0.to_string())
                    .or_default()
                    .insert(device_of(&f.graph, id));
            }
        }
    }
    let split = states.into_iter().filter(|(_, d)| d.len() > 1);
    wrong.extend(split.map(|(name, d)| format!("state {name} is on {d:?}")));
    wrong
}

fn same_results(a: &Module, b: &Module) {
    for f in &a.functions {
        let inputs: BTreeMap<String, TensorData> = f
            .arguments
            .iter()
            .zip(&f.graph.arguments)
            .map(|((name, _), v)| {
                let shape = f.graph.ty(*v).const_shape().expect("constant sizes");
                let numel = shape.iter().product::<usize>();
                let values: Vec<f32> = (0..numel).map(|i| (i % 13) as f32 * 0.1 - 0.5).collect();
                (name.to_string(), TensorData::from_f32(&shape, &values).expect("a tensor"))
            })
            .collect();
        let (x, y) = (run(a, &f.name, &inputs).expect("runs"), run(b, &f.name, &inputs).expect("runs"));
        assert_eq!(format!("{x:?}"), format!("{y:?}"));
    }
}

fn devices_used(module: &Module) -> BTreeSet<String> {
    let ops = |f: &Function| f.graph.ops().map(|(id, _)| device_of(&f.graph, id)).collect::<Vec<_>>();
    module.functions.iter().flat_map(ops).collect()
}

fn transfers(module: &Module) -> usize {
    module.functions.iter().map(|f| f.graph.ops().filter(|(_, op)| op.kind == OpKind::Transfer).count()).sum()
}

#[test]
fn one_device_is_annotated_only() {
    let module = layered(Module::default(), "main", 4, 3, true);
    let (placed, cx) = colocate(&module, target(&[1]), &[]).unwrap();
    assert_eq!(devices_used(&placed), BTreeSet::from(["generic:0".to_string()]));
    assert_eq!((placed.op_count(), transfers(&placed)), (module.op_count(), 0));
    assert_eq!(cx.statistics.get("colocate", "operations annotated"), module.op_count() as u64);
}

#[test]
fn what_fits_one_device_stays_there_for_latency() {
    let module = layered(Module::default(), "main", 4, 3, true);
    let (placed, _) = colocate(&module, target(&[1 << 20, 1 << 20]), &[]).unwrap();
    assert_eq!((devices_used(&placed).len(), transfers(&placed)), (1, 0));
}

#[test]
fn weights_force_a_split_with_few_transfers() {
    let module = layered(Module::default(), "main", 4, 6, true);
    let (placed, cx) = colocate(&module, target(&[WEIGHT * 4, WEIGHT * 4]), &[]).unwrap();
    assert_eq!(devices_used(&placed).len(), 2);
    // The running value crosses once; the mask is cheap enough to compute again.
    assert_eq!(transfers(&placed), 1);
    assert_eq!(cx.statistics.get("colocate", "operations computed again"), 1);
    let stages: Vec<&str> =
        cx.remarks.iter().filter(|r| r.rule == "stage").map(|r| r.message.as_str()).collect();
    assert_eq!(stages.len(), 2);
    assert!(stages[0].starts_with("generic:0: ") && stages[0].contains(" kB of 65.5 kB ("), "{}", stages[0]);
    // A second run finds everything pinned and changes nothing.
    let (again, _) = colocate(&placed, target(&[WEIGHT * 4, WEIGHT * 4]), &[]).unwrap();
    assert_eq!(text::print_module(&again), text::print_module(&placed));
}

#[test]
fn throughput_makes_balanced_stages() {
    let module = layered(Module::default(), "main", 512, 8, false);
    let (placed, cx) =
        colocate(&module, target(&[1 << 30, 1 << 30]), &[("objective", "throughput")]).unwrap();
    // Launches take the most time, so balanced stages have as many operations.
    let work: Vec<&str> =
        cx.remarks.iter().filter(|r| r.rule == "stage").map(|r| r.message.as_str()).collect();
    assert!(work.len() == 2 && work.iter().all(|w| w.contains(": 11 operations")), "{work:?}");
    assert_eq!(transfers(&placed), 1);
}

#[test]
fn memory_spreads_bytes() {
    let module = layered(Module::default(), "main", 1, 8, false);
    let (placed, _) = colocate(&module, target(&[1 << 20, 1 << 20]), &[("objective", "memory")]).unwrap();
    assert_eq!(devices_used(&placed).len(), 2);
}

#[test]
fn functions_that_share_weights_and_states_agree() {
    let module = layered(Module::default(), "decode", 1, 6, true);
    let module = layered(module, "prefill", 16, 6, true);
    let (placed, _) = colocate(&module, target(&[WEIGHT * 5, WEIGHT * 5]), &[]).unwrap();
    let homes = |f: &Function| -> Vec<String> {
        let matmul = |(id, op): (djinn_ir::OpId, &djinn_ir::Op)| {
            (op.kind == OpKind::MatMul).then(|| device_of(&f.graph, id))
        };
        f.graph.ops().filter_map(matmul).collect()
    };
    assert_eq!(homes(&placed.functions[0]), homes(&placed.functions[1]));
    assert_eq!(devices_used(&placed).len(), 2);
}

#[test]
fn pins_are_kept() {
    let mut module = layered(Module::default(), "main", 4, 4, true);
    let graph = &mut module.functions[0].graph;
    let relu = graph.ops().find(|(_, op)| op.kind == OpKind::Relu).map(|(id, _)| id).unwrap();
    graph.annotate(relu, "device", "generic:1");
    let (placed, _) =
        colocate(&module, target(&[1 << 30, 1 << 30]), &[("pin", "layers.3:generic:0")]).unwrap();
    let graph = &placed.functions[0].graph;
    for (id, op) in graph.ops().filter(|(_, op)| op.kind != OpKind::Transfer) {
        match (op.kind, op.location.scope.as_deref()) {
            (OpKind::Relu, Some("layers.0")) => assert_eq!(device_of(graph, id), "generic:1"),
            (k, Some("layers.3")) if k != OpKind::Weight && k != OpKind::Neg => {
                assert_eq!(device_of(graph, id), "generic:0");
            }
            _ => {}
        }
    }
    assert!(transfers(&placed) > 0);
}

#[test]
fn unknown_devices_and_wrong_options_are_diagnosed() {
    let mut module = layered(Module::default(), "main", 4, 2, true);
    let both = || target(&[1 << 30, 1 << 30]);
    let e = colocate(&module, both(), &[("pin", "layers.0:generic:7")]).err().expect("refused");
    assert_eq!(
        (e.code.as_str(), e.message.as_str()),
        ("colocate.device", "the topology has no device 'generic:7'")
    );
    assert!(e.help.as_deref().is_some_and(|h| h.contains("devices are: generic:0, generic:1")));
    assert_eq!(
        colocate(&module, both(), &[("pin", "layers.0")]).err().expect("refused").code,
        "colocate.pin"
    );
    assert_eq!(
        colocate(&module, both(), &[("objective", "speed")]).err().expect("refused").code,
        "target.objective"
    );
    let graph = &mut module.functions[0].graph;
    let adds: Vec<_> = graph.ops().filter(|(_, op)| op.kind == OpKind::Add).map(|(id, _)| id).collect();
    graph.annotate(adds[0], "device", "generic:0");
    graph.annotate(adds[1], "device", "generic:1");
    assert_eq!(colocate(&module, both(), &[]).err().expect("refused").code, "colocate.pin");
    module.functions[0].graph.annotate(adds[0], "device", "gpu");
    assert_eq!(colocate(&module, target(&[1]), &[]).err().expect("refused").code, "colocate.device");
    let mut cx = PassContext::new();
    let e = Colocate::default().run(&mut module, &mut cx).expect_err("refused");
    assert_eq!((e.code.as_str(), e.culprit), ("colocate.target", djinn_diag::Culprit::Input));
    assert!(e.to_string().contains("--topology"), "{e}");
}

#[test]
fn what_cannot_fit_is_told_with_the_arithmetic() {
    let module = layered(Module::default(), "main", 4, 8, true);
    let e = colocate(&module, target(&[WEIGHT * 3, WEIGHT * 3]), &[]).err().expect("refused");
    assert_eq!(e.code, "colocate.memory");
    assert_eq!(
        e.message,
        "'main' needs 131.1 kB of weights, 2.0 kB of states and 3.1 kB of activations on each of 2 devices, \
         139.3 kB in all; they hold 98.3 kB in all (generic:0 49.2 kB, generic:1 49.2 kB)"
    );
}

#[test]
fn random_pins_give_sound_placements() {
    let mut seed = 5u64;
    let mut roll = |n: u64| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) % n
    };
    for round in 0..40 {
        let mut module = layered(Module::default(), "main", 2, 3, round % 2 == 0);
        let graph = &mut module.functions[0].graph;
        let ids: Vec<_> = graph.ops().map(|(id, _)| id).collect();
        for id in ids {
            if roll(4) == 0 {
                graph.annotate(id, "device", format!("generic:{}", roll(3)).as_str());
            }
        }
        let objective = ["latency", "throughput", "memory"][round % 3];
        let devices = target(&[WEIGHT * 12, WEIGHT * 12, WEIGHT * 12]);
        match colocate(&module, devices, &[("objective", objective)]) {
            Ok((placed, _)) => {
                let (before, after) = (&module.functions[0].graph, &placed.functions[0].graph);
                let pins = before.ops().filter(|(_, op)| op.annotations.contains_key("device")).count();
                assert!(pins <= after.len());
            }
            Err(e) => assert_eq!(e.code, "colocate.pin", "round {round}: {e}"),
        }
    }
}

#[test]
fn time_on_one_device_is_short() {
    let mut module = layered(Module::default(), "main", 4, 30, false);
    assert!(module.op_count() >= 150);
    let target = Target::single(Profile::named("h100-80").unwrap());
    let mut cx = PassContext { target: Some(Arc::new(target)), ..PassContext::new() };
    let mut fastest = std::time::Duration::MAX;
    for _ in 0..50 {
        let mut copy = module.clone();
        let start = std::time::Instant::now();
        Colocate::default().run(&mut copy, &mut cx).unwrap();
        fastest = fastest.min(start.elapsed());
    }
    Colocate::default().run(&mut module, &mut cx).unwrap();
    // The goal is 0.1 ms; the slack is for loaded machines and unoptimised builds.
    assert!(fastest < std::time::Duration::from_millis(2), "{fastest:?}");
    println!("{fastest:?} for {} operations", module.op_count());
}

/// The weights that functions copy in each run, by the device that they go to: names, and copies of each.
fn copied(module: &Module) -> BTreeMap<(String, String), usize> {
    let mut copied = BTreeMap::new();
    for f in &module.functions {
        let ahead = djinn_ir::walk::function_ahead_of_time(f);
        for (id, op) in f.graph.ops().filter(|(_, op)| op.kind == OpKind::Transfer) {
            let v = op.operands[0];
            let Some((source, _)) = f.graph.definition(v).filter(|_| ahead[v.0 as usize]) else { continue };
            let weight = f.graph.op(source).operands.first().and_then(|w| f.graph.definition(*w));
            let name = weight.map_or("", |(w, _)| f.graph.op(w).attrs.str("name"));
            *copied.entry((device_of(&f.graph, id), name.to_owned())).or_insert(0) += 1;
        }
    }
    copied
}

#[test]
fn weights_that_do_not_fit_are_copied_in_every_run() {
    let module = layered(Module::default(), "main", 4, 8, false);
    let stream = [("stream-weights", "true")];
    let (fits, _) = colocate(&module, target(&[9 * WEIGHT]), &stream).expect("fits");
    assert_eq!(copied(&fits).len(), 0);
    // Room for four weights and the activations: two stay, two slots are for the others.
    let small = target(&[4 * WEIGHT + 8 * 1024]);
    let (changed, cx) = colocate(&module, small.clone(), &stream).expect("streamed");
    assert_eq!(copied(&changed).len(), 6, "{:?}", copied(&changed));
    assert_eq!(cx.statistics.get("colocate", "copies of streamed weights"), 6);
    // Two devices: all of them stay.
    let both = target(&[4 * WEIGHT + 8 * 1024; 2]);
    let (changed, _) = colocate(&module, both, &stream).expect("fits");
    assert_eq!((copied(&changed).len(), devices_used(&changed).len()), (0, 2));
    // Without the option it is the lifetime pass that refuses one device.
    let (changed, _) = colocate(&module, small, &[]).expect("annotated");
    assert_eq!(copied(&changed).len(), 0);
    let error = colocate(&module, target(&[WEIGHT]), &stream).err().expect("no room for a weight");
    assert!(error.code == "colocate.memory" && error.message.contains("find no room"), "{error}");
}

#[test]
fn functions_copy_the_same_weights() {
    let both = layered(layered(Module::default(), "prefill", 16, 8, true), "decode", 1, 8, true);
    let small = target(&[4 * WEIGHT + 32 * 1024]);
    let (changed, _) = colocate(&both, small, &[("stream-weights", "true")]).expect("streamed");
    let copied = copied(&changed);
    assert!(!copied.is_empty() && copied.values().all(|n| *n == 2), "{copied:?}");
}
