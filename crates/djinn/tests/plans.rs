//! Plans of full-size models and of the models of the repository; caches of plans.

use djinn::device::{Objective, Profile, Target, Topology};
use djinn::ir::{Attr, Module, Op};
use djinn::plan_data::{Action, ArenaKind, Content, Place, Plan};
use djinn::{PlanCache, PlanRequest, PlanSource, RequestKey};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn model(name: &str) -> Module {
    djinn::read(&root().join("testdata/models").join(name)).expect("the model is read").module
}

/// A full-size model without weights; `None`, with a line, where they are not at hand.
fn full_model(name: &str) -> Option<Module> {
    let path = root().join("../shared/models-full").join(name).join("model.pt2.gz");
    if !path.exists() {
        eprintln!("skipped: {name}: ../shared/models-full is not present");
        return None;
    }
    Some(djinn::read(&path).expect("the model is read").module)
}

fn topology(name: &str) -> Topology {
    let path = root().join("testdata/topologies").join(format!("{name}.toml"));
    Topology::parse(&std::fs::read_to_string(&path).expect("the file is there"), name).expect("a topology")
}

fn request(target: Target, sizes: &[(&str, i64)]) -> PlanRequest {
    let mut request = PlanRequest::new(target);
    request.sizes = sizes.iter().map(|(s, n)| ((*s).to_owned(), vec![(*n, *n)])).collect();
    request
}

fn host(sizes: &[(&str, i64)]) -> PlanRequest {
    request(Target::single(Profile::builtin("host").expect("built in")), sizes)
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_the_arithmetic() {
    let Some(mut module) = full_model("full_llama3.1_70b_decode_dyn") else { return };
    let request = request(Target::new(topology("h100-40-x2-100gbe")), &[("s0", 2048)]);
    let error = djinn::plan(&mut module, &request, None).expect_err("141 GB in 80 GB").to_string();
    for part in ["141.1 GB of weights", "of states", "of activations", "80.0 GB in all", "h100-80:1 40.0 GB"]
    {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
}

#[test]
fn caches_stay_where_their_layers_are() {
    let Some(module) = full_model("full_llama3.1_70b_decode_dyn") else { return };
    for objective in [Objective::Latency, Objective::Throughput, Objective::Memory] {
        let mut request = request(Target::new(topology("h100-80-x4-nvlink")), &[("s0", 2048)]);
        request.target.objective = objective;
        let plan = djinn::plan(&mut module.clone(), &request, None).expect("it fits").plan;
        let states = plan.buffers.iter().filter(|b| matches!(b.content, Content::State { .. })).count();
        assert_eq!(states, 2 * 80, "keys and values of 80 layers");
        let (mut used, mut crossings) = (std::collections::BTreeSet::new(), 0);
        for command in plan.entries.iter().flat_map(|e| &e.commands) {
            if let Action::Copy { from, to, .. } = &command.action
                && let (Some(a), Some(b)) = (device(&plan, from), device(&plan, to))
                && a.0 != b.0
            {
                crossings += 1;
                assert!(!a.1 && !b.1, "a cache crosses from device {} to device {}", a.0, b.0);
            }
            used.insert(plan.entries[0].streams[command.stream.0 as usize].device.0);
        }
        assert_eq!(used.len(), 4, "every device runs something");
        assert!(crossings <= 20, "{objective}: each device hands on to the next: {crossings} copies");
    }
}

/// The device of a place in an arena, and whether it holds state.
fn device(plan: &Plan, place: &Place) -> Option<(u32, bool)> {
    let Place::Buffer(operand) = place else { return None };
    let arena = &plan.arenas[plan.buffers[operand.buffer.0 as usize].arena.0 as usize];
    Some((arena.device.0, arena.kind == ArenaKind::State))
}

#[test]
fn a_plan_is_found_again_in_memory_and_on_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let request = host(&[]);
    let cache = PlanCache::with_folder(folder.path());
    let (made, source) = cache.plan(&model("bert/model.onnx"), &request).expect("planned");
    assert!(matches!(source, PlanSource::Made { .. }));
    let (found, source) = cache.plan(&model("bert/model.onnx"), &request).expect("found");
    assert!(matches!(source, PlanSource::Memory) && found == made);
    let other_process = PlanCache::with_folder(folder.path());
    let (found, source) = other_process.plan(&model("bert/model.onnx"), &request).expect("found");
    assert!(matches!(source, PlanSource::Disk) && found == made);
    assert!(other_process.take_warnings().is_empty());
}

#[test]
fn a_plan_is_not_found_for_anything_else() {
    let module = model("llama_decode/model.pt2");
    let key = |request: &PlanRequest, module: &Module| RequestKey::new(request).plan_of(module);
    let one = key(&host(&[]), &module);
    assert_eq!(one, key(&host(&[]), &model("llama_decode/model.pt2")));
    assert_ne!(one, key(&host(&[("s72", 64)]), &module));
    assert_ne!(one, key(&request(Target::single(Profile::builtin("h200").expect("built in")), &[]), &module));
    let mut changed = host(&[]);
    changed.copy_caches = true;
    assert_ne!(one, key(&changed, &module));
    let mut changed = host(&[]);
    changed.optimize.limits.nodes += 1;
    assert_ne!(one, key(&changed, &module));
    let mut changed = host(&[]);
    changed.target.memory_limit = Some(1 << 30);
    assert_ne!(one, key(&changed, &module));
    assert_ne!(one, key(&host(&[]), &model("llama_decode/model.onnx")));
    let mut renamed = module.clone();
    renamed.functions[0].arguments[0].0 = "other".into();
    assert_ne!(one, key(&host(&[]), &renamed), "names of ports stand in the plan");
}

#[test]
fn a_damaged_plan_on_disk_is_a_miss() {
    let folder = tempfile::tempdir().expect("a folder");
    let request = host(&[]);
    let (made, _) = PlanCache::with_folder(folder.path())
        .plan(&model("squeezenet/model.onnx"), &request)
        .expect("planned");
    for entry in walk(folder.path()) {
        let mut bytes = std::fs::read(&entry).expect("readable");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&entry, bytes).expect("writable");
    }
    let (again, source) = PlanCache::with_folder(folder.path())
        .plan(&model("squeezenet/model.onnx"), &request)
        .expect("planned again");
    assert!(matches!(source, PlanSource::Made { .. }) && again == made);
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("readable").flatten() {
        if entry.path().is_dir() { files.extend(walk(&entry.path())) } else { files.push(entry.path()) }
    }
    files
}

#[test]
fn plans_are_the_same_every_time() {
    for name in ["llama_staticcache/model.pt2", "squeezenet/model.onnx"] {
        let plans: Vec<Vec<u8>> = (0..3)
            .map(|_| {
                let text = "[[device]]\nprofile = \"host\"\ncount = 2\n";
                let request =
                    request(Target::new(Topology::parse(text, "two hosts").expect("a topology")), &[]);
                let planned = djinn::plan(&mut model(name), &request, None).expect("planned");
                djinn::plan_data::to_binary(&planned.plan).expect("written")
            })
            .collect();
        assert!(plans.windows(2).all(|w| w[0] == w[1]), "{name}");
    }
}

#[test]
fn placements_go_through_onnx() {
    let mut module = model("llama_decode/model.pt2");
    let text = "[[device]]\nprofile = \"host\"\ncount = 2\n";
    let target = Target::new(Topology::parse(text, "two hosts").expect("a topology"));
    let options = djinn::OptimizeOptions {
        pipeline: "builtin.module(canonicalize,colocate{pin=lm.model.layers.1:host:1,lm:host:0})".into(),
        target: Some(std::sync::Arc::new(target.clone())),
        ..djinn::OptimizeOptions::default()
    };
    djinn::optimize(&mut module, &options, None).expect("placed");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("placed.onnx");
    let export = djinn::onnx_export::ExportOptions::default();
    djinn::export_onnx(&module, &path, export).expect("written");
    let mut again = djinn::read(&path).expect("read").module;
    let on = |module: &Module, device: &str| {
        let ops = module.functions.iter().flat_map(|f| f.graph.ops());
        let here = |op: &Op| matches!(op.annotations.get("device"), Some(Attr::Str(d)) if **d == *device);
        ops.filter(|(_, op)| here(op)).count()
    };
    assert!(on(&again, "host:0") > 50 && on(&again, "host:1") > 20, "pins are read");
    let plan =
        djinn::plan(&mut again, &request(target, &[("s0", 4), ("s17", 2)]), None).expect("planned").plan;
    let devices: std::collections::BTreeSet<u32> =
        plan.entries[0].streams.iter().map(|s| s.device.0).collect();
    assert_eq!(devices.len(), 2, "pins are kept");
    let one = host(&[("s0", 4), ("s17", 2)]);
    let mut elsewhere = djinn::read(&path).expect("read").module;
    let error = djinn::plan(&mut elsewhere, &one, None).expect_err("host:1 is not there");
    assert_eq!(error.code, "colocate.device");
}

#[test]
fn own_costs_reach_the_kernels_of_a_plan() {
    let table = "[op.matmul]\nseconds = 3.0\n";
    let own = djinn::cost::CostTable::from_toml(table, "mine.toml").expect("a table");
    let mut with_own = host(&[]);
    with_own.target.costs = Some(djinn::cost::own_costs(table, vec![std::sync::Arc::new(own)]));
    let seconds = |request: &PlanRequest| {
        let plan = djinn::plan(&mut model("bert/model.onnx"), request, None).expect("planned").plan;
        plan.entries[0].kernels.iter().filter(|k| k.name.contains("matmul")).map(|k| k.seconds).sum::<f64>()
    };
    assert!(seconds(&host(&[])) < 1.0 && seconds(&with_own) >= 3.0);
    let key = |request: &PlanRequest| RequestKey::new(request).plan_of(&model("bert/model.onnx"));
    assert_ne!(key(&host(&[])), key(&with_own));
}

#[test]
fn every_kernel_writes_something() {
    // Small operations are computed again on each device that needs them, and only there.
    let request = request(Target::new(topology("host-x3")), &[]);
    let plan = djinn::plan(&mut model("llama_staticcache/model.pt2"), &request, None).expect("planned").plan;
    let idle: Vec<&str> =
        plan.entries[0].kernels.iter().filter(|k| k.writes.is_empty()).map(|k| &*k.name).collect();
    assert_eq!(idle, Vec::<&str>::new());
}
