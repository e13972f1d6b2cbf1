//! How long a plan takes: made without saturation, and found again.
//!
//! Models that are not at hand are left out with a line.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use djinn::PlanCache;
use djinn::device::{Profile, Target, Topology};
use djinn::ir::Module;
use djinn::{PlanRequest, RequestKey};
use std::hint::black_box;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> Option<Module> {
    let path = root().join("../shared").join(path);
    if !path.exists() {
        eprintln!("skipped: {} is not present", path.display());
        return None;
    }
    Some(djinn::read(&path).expect("the model is read").module)
}

fn four_devices() -> Target {
    let path = root().join("testdata/topologies/h100-80-x4-nvlink.toml");
    let text = std::fs::read_to_string(path).expect("the topology is there");
    Target::new(Topology::parse(&text, "h100-80-x4-nvlink").expect("a topology"))
}

/// Name, module, and the request for its plan without saturation.
fn cases() -> Vec<(&'static str, Module, PlanRequest)> {
    let single = |name| Target::single(Profile::builtin(name).expect("built in"));
    let sources = [
        ("gpt2_prefill_static", "models/gpt2_prefill_static/model.pt2", single("h200")),
        ("llama3.1_70b_decode", "models-full/full_llama3.1_70b_decode_dyn/model.pt2.gz", four_devices()),
    ];
    let case = |(name, path, target): (&'static str, &str, Target)| {
        let mut request = PlanRequest::new(target);
        request.optimize.pipeline = "builtin.module(canonicalize)".into();
        if name == "llama3.1_70b_decode" {
            request.sizes.insert("s0".into(), vec![(2048, 2048)]);
        }
        read(path).map(|module| (name, module, request))
    };
    sources.into_iter().filter_map(case).collect()
}

fn plans(c: &mut Criterion) {
    for (name, module, request) in cases() {
        c.bench_function(&format!("cold/{name}"), |b| {
            let plan = |mut m: Module| djinn::plan(&mut m, &request, None).expect("planned");
            b.iter_batched(|| module.clone(), |m| black_box(plan(m)), BatchSize::SmallInput);
        });
        let cache = PlanCache::default();
        cache.plan(&module, &request).expect("planned");
        let key = RequestKey::new(&request);
        c.bench_function(&format!("warm/{name}"), |b| {
            b.iter(|| black_box(cache.get(&key.plan_of(&module)).expect("kept")))
        });
        c.bench_function(&format!("warm with request/{name}"), |b| {
            b.iter(|| black_box(cache.get(&RequestKey::new(&request).plan_of(&module)).expect("kept")))
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50).without_plots();
    targets = plans
}
criterion_main!(benches);
