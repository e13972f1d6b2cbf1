//! Engines are cut at layers that come again: one engine serves all of them, however many there are.

use djinn::PlanRequest;
use djinn::device::{Profile, Target, Topology};
use djinn::ir::{
    ArgumentKind, Attrs, DType, Dim, Function, Graph, Location, Module, OpId, OpKind, ResultKind, TensorType,
    ValueId, Visibility, Weight, attrs, weight_attrs,
};
use djinn::plan_data::{Entry, Plan};
use djinn_subgraph_hash::{RegionHash, engine_hash, same_engine};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Engines of an entry and how many kinds of them there are.
#[derive(Debug, PartialEq)]
struct Shares {
    engines: usize,
    distinct: usize,
    /// Operations of each kind with the number of engines, in order of the first.
    kinds: Vec<(usize, usize)>,
}

fn shares(module: &Module, entry: &Entry) -> Shares {
    let function = module.function(&entry.function).expect("the entry's function");
    let ids: Vec<OpId> = function.graph.ops().map(|(id, _)| id).collect();
    let mut known: BTreeMap<RegionHash, usize> = BTreeMap::new();
    let mut kinds: Vec<(usize, usize)> = Vec::new();
    let mut first: Vec<Vec<OpId>> = Vec::new();
    for engine in &entry.engines {
        let ops: Vec<OpId> = engine.ops.iter().map(|op| ids[*op as usize]).collect();
        let kind = *known.entry(engine_hash(&function.graph, &ops)).or_insert(kinds.len());
        if kind == kinds.len() {
            kinds.push((ops.len(), 0));
            first.push(ops);
        } else {
            let found = same_engine((&function.graph, &first[kind]), (&function.graph, &ops));
            assert!(found.is_some_and(|c| c.keeps_symbols()), "{}", entry.function);
        }
        kinds[kind].1 += 1;
    }
    Shares { engines: entry.engines.len(), distinct: kinds.len(), kinds }
}

fn h100() -> Target {
    Target::single(Profile::builtin("h100-80").expect("built in"))
}

fn planned(mut module: Module, request: &PlanRequest) -> (Plan, Module) {
    let planned = djinn::plan(&mut module, request, None).unwrap_or_else(|e| panic!("{e}"));
    (planned.plan, module)
}

fn told(name: &str, module: &Module, plan: &Plan) -> Vec<Shares> {
    let tell = |entry: &Entry| {
        let found = shares(module, entry);
        let outside = entry.kernels.iter().filter(|k| k.engine.is_none()).count();
        println!(
            "{name:32} {:12} {:3} engines, {:2} distinct, operations × engines {:?}; {outside} of {} kernels outside; {:.1} µs",
            entry.function,
            found.engines,
            found.distinct,
            found.kinds,
            entry.kernels.len(),
            entry.seconds * 1e6
        );
        found
    };
    plan.entries.iter().map(tell).collect()
}

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models").join(name).join("model.pt2")
}

/// A decoder like Llama, 256 wide, of so many layers.
struct Decoder {
    module: Module,
    graph: Graph,
}

const WIDTH: i64 = 256;
const HEADS: i64 = 8;
const LENGTH: i64 = 64;

impl Decoder {
    fn op(&mut self, kind: OpKind, operands: &[ValueId], attrs: Attrs, scope: &str) -> ValueId {
        let location = Location { scope: Some(scope.into()), source: None };
        let id = self.graph.build(kind, operands, attrs, Vec::new(), location).expect("well typed");
        self.graph.op(id).results[0]
    }

    fn weight(&mut self, name: String, sizes: &[i64]) -> ValueId {
        let weight = Weight { ty: TensorType::of(DType::F32, sizes), data: None };
        let v = self.op(OpKind::Weight, &[], weight_attrs(&name, &weight), "");
        self.module.weights.insert(name.into(), weight);
        v
    }

    fn product(&mut self, x: ValueId, name: String, sizes: [i64; 2]) -> ValueId {
        let w = self.weight(name.clone(), &sizes);
        self.op(OpKind::MatMul, &[x, w], Attrs::new(), &name)
    }

    fn norm(&mut self, x: ValueId, name: String) -> ValueId {
        let w = self.weight(name.clone(), &[WIDTH]);
        self.op(OpKind::RmsNorm, &[x, w], attrs! { axis: 2i64, epsilon: 1e-5 }, &name)
    }

    fn heads(&mut self, x: ValueId, name: &str) -> ValueId {
        let split: Vec<Dim> = [1, LENGTH, HEADS, WIDTH / HEADS].map(Dim::from).to_vec();
        let x = self.op(OpKind::Reshape, &[x], attrs! { shape: split }, name);
        self.op(OpKind::Transpose, &[x], attrs! { perm: vec![0i64, 2, 1, 3] }, name)
    }

    fn layer(&mut self, x: ValueId, tables: [ValueId; 2], i: i64) -> ValueId {
        let name = |part: &str| format!("layers.{i}.{part}");
        let n = self.norm(x, name("norm"));
        let mut q = Vec::new();
        for part in ["q", "k", "v"] {
            let y = self.product(n, name(part), [WIDTH, WIDTH]);
            let mut y = self.heads(y, &name(part));
            if part != "v" {
                let [cos, sin] = tables;
                let (even, odd) = (
                    self.op(OpKind::Mul, &[y, cos], Attrs::new(), &name(part)),
                    self.op(OpKind::Mul, &[y, sin], Attrs::new(), &name(part)),
                );
                y = self.op(OpKind::Add, &[even, odd], Attrs::new(), &name(part));
            }
            q.push(y);
        }
        let attention = attrs! {
            scale: 0.25, causal: true, causal_offset: Dim::from(0), query_heads: 0i64, kv_heads: 0i64
        };
        let y = self.op(OpKind::Sdpa, &q, attention, &name("attention"));
        let y = self.op(OpKind::Transpose, &[y], attrs! { perm: vec![0i64, 2, 1, 3] }, &name("o"));
        let whole: Vec<Dim> = [1, LENGTH, WIDTH].map(Dim::from).to_vec();
        let y = self.op(OpKind::Reshape, &[y], attrs! { shape: whole }, &name("o"));
        let y = self.product(y, name("o"), [WIDTH, WIDTH]);
        let x = self.op(OpKind::Add, &[x, y], Attrs::new(), &name("o"));
        let n = self.norm(x, name("norm2"));
        let gate = self.product(n, name("gate"), [WIDTH, 3 * WIDTH]);
        let gate = self.op(OpKind::Silu, &[gate], Attrs::new(), &name("gate"));
        let up = self.product(n, name("up"), [WIDTH, 3 * WIDTH]);
        let both = self.op(OpKind::Mul, &[gate, up], Attrs::new(), &name("up"));
        let y = self.product(both, name("down"), [3 * WIDTH, WIDTH]);
        self.op(OpKind::Add, &[x, y], Attrs::new(), &name("down"))
    }

    fn of(layers: i64) -> Module {
        let mut net = Decoder { module: Module::default(), graph: Graph::new() };
        let ids = net.graph.add_argument(TensorType::of(DType::I64, &[1, LENGTH]));
        let places = net.graph.add_argument(TensorType::of(DType::F32, &[1, 1, LENGTH, WIDTH / HEADS]));
        let words = net.weight("words".into(), &[1000, WIDTH]);
        let mut x = net.op(OpKind::Gather, &[words, ids], attrs! { axis: 0i64 }, "words");
        let cos = net.op(OpKind::Cos, &[places], Attrs::new(), "rope");
        let sin = net.op(OpKind::Sin, &[places], Attrs::new(), "rope");
        for i in 0..layers {
            x = net.layer(x, [cos, sin], i);
        }
        let n = net.norm(x, "norm".into());
        let y = net.product(n, "head".into(), [WIDTH, 1000]);
        net.graph.results = vec![y];
        let arguments = ["ids", "places"].map(|n| (n.into(), ArgumentKind::Input)).to_vec();
        let function = Function {
            name: "prefill".into(),
            visibility: Visibility::Entry,
            graph: net.graph,
            arguments,
            results: vec![("logits".into(), ResultKind::Output)],
        };
        Module { functions: vec![function], ..net.module }
    }
}

#[test]
fn kinds_of_engines_do_not_grow_with_the_layers() {
    let mut all = Vec::new();
    for layers in [2, 4, 8, 16] {
        let (plan, module) = planned(Decoder::of(layers), &PlanRequest::new(h100()));
        let found = told(&format!("decoder of {layers} layers"), &module, &plan).remove(0);
        assert!(plan.entries[0].kernels.iter().all(|k| k.engine.is_some()));
        assert!(layers == 2 || found.engines as i64 >= layers, "{found:?}");
        all.push(found);
    }
    let sizes = |s: &Shares| s.kinds.iter().map(|(ops, _)| *ops).collect::<Vec<_>>();
    assert_eq!(all[0].engines, 1, "two layers are too few");
    assert!(all[1..].iter().all(|s| sizes(s) == sizes(&all[1]) && s.distinct <= 4), "{all:?}");
    assert!(all[3].kinds.iter().any(|(_, engines)| *engines >= 14), "{:?}", all[3]);
}

/// Kernels, and so the predicted time, are those of a plan without cuts.
#[test]
fn cuts_change_no_kernel() {
    for layers in [2, 8] {
        let (plan, mut module) = planned(Decoder::of(layers), &PlanRequest::new(h100()));
        let mut request = PlanRequest::new(h100());
        request.optimize.pipeline = "builtin.module()".into();
        let ids: Vec<OpId> = module.functions[0].graph.ops().map(|(id, _)| id).collect();
        // Whoever marks all operations as one layer keeps engines whole.
        ids.into_iter().for_each(|id| module.functions[0].graph.annotate(id, "repeat", 0i64));
        let (whole, _) = planned(module, &request);
        let (cut, whole) = (&plan.entries[0], &whole.entries[0]);
        assert_eq!((whole.engines.len(), cut.engines.len() > 1), (1, layers > 2));
        assert!(cut.seconds <= whole.seconds * 1.01 && cut.kernels.len() == whole.kernels.len());
        let kernels: usize = cut.engines.iter().map(|e| e.kernels.len()).sum();
        assert_eq!(kernels, cut.kernels.len());
        let why = |e: &djinn::plan_data::Engine| e.ends.iter().any(|w| w.starts_with("layers come again"));
        assert!(layers == 2 || cut.engines.iter().all(why));
    }
}

#[test]
fn layers_of_models_share_engines() {
    let mut names: Vec<String> =
        std::fs::read_dir(model("x").parent().and_then(Path::parent).expect("a folder"))
            .expect("models")
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .filter(|name| model(name).exists())
            .collect();
    names.sort();
    for name in names {
        let module = djinn::read(&model(&name)).expect("a model").module;
        for copy_caches in [false, true] {
            let request = PlanRequest { copy_caches, ..PlanRequest::new(h100()) };
            let (plan, module) = planned(module.clone(), &request);
            told(&format!("{name}{}", if copy_caches { " (copied)" } else { "" }), &module, &plan);
        }
    }
}

/// The models of `DJINN_MODELS`, a list of `.pt2` files, are told of as well.
#[test]
fn other_models_are_told_of() {
    let Ok(files) = std::env::var("DJINN_MODELS") else {
        println!("skipped: DJINN_MODELS names no files");
        return;
    };
    for file in files.split_whitespace() {
        let module = djinn::read(Path::new(file)).unwrap_or_else(|e| panic!("{file}: {e}")).module;
        let mut request = PlanRequest::new(h100());
        let known = djinn::ir::walk::symbols(&module);
        let largest = |s: &djinn::ir::Symbol| {
            let info = module.symbols.info(s);
            (s.name().to_owned(), vec![(info.min.max(0), info.max.unwrap_or(512).min(512))])
        };
        request.sizes = known.iter().map(largest).collect();
        let weights = module.weights.values().map(|w| w.ty.bytes_estimate(&module.symbols, 1)).sum::<f64>();
        if weights > 60e9 {
            let topology = "[[device]]\nprofile = \"h200\"\ncount = 2\n\n[[link]]\n\
                            between = [\"h200:0\", \"h200:1\"]\nkind = \"nvlink\"\n";
            request.target = Target::new(Topology::parse(topology, "two devices").expect("a topology"));
        }
        let mut module = module;
        let start = std::time::Instant::now();
        let watch = djinn::Watch {
            on_event: Box::new(|_| ()),
            clock: Some(Box::new(move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))),
        };
        let name = file.trim_end_matches("/model.pt2").rsplit('/').next().unwrap_or(file);
        match djinn::plan(&mut module, &request, Some(watch)) {
            Ok(planned) => {
                told(name, &module, &planned.plan);
                let time = |r: &djinn::pass::PassRun| format!("{} {:.2}", r.pass, r.time as f64 / 1e6);
                let all = planned.outcome.run.passes.iter();
                let times: Vec<String> = all.skip_while(|r| r.pass != "phase-detect").map(time).collect();
                println!("  {:.1} ms in all; {}", start.elapsed().as_secs_f64() * 1e3, times.join(", "));
            }
            Err(e) => println!("{name}: {e}"),
        }
    }
}

#[test]
fn layers_on_several_devices_share_engines_on_each() {
    let topology = "[[device]]\nprofile = \"h100-80\"\ncount = 2\nmemory_bytes = 40_000_000\n\n[[link]]\n\
                    between = [\"h100-80:0\", \"h100-80:1\"]\nkind = \"nvlink\"\n";
    let target = Target::new(Topology::parse(topology, "two devices").expect("a topology"));
    let (plan, module) = planned(Decoder::of(16), &PlanRequest::new(target));
    let found = told("decoder on two devices", &module, &plan).remove(0);
    assert!(found.engines >= 14 && found.distinct <= 8, "{found:?}");
}
