//! Engines built while their plan runs without them: what is counted, when a build is started, what comes of it.

use djinn::diag::unsupported;
use djinn::engine_cache::{BuildContext, BuildError, Policy};
use djinn::ir::Module;
use djinn::plan_data::Plan;
use djinn::tensorrt::{Engine, Region};
use djinn::{EngineRequest, Lazy, PlanRequest, device};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

fn planned() -> (Module, Plan) {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models/llama_decode/model.pt2");
    let mut module = djinn::read(&model).expect("a model").module;
    let target = device::Target::single(device::Profile::builtin("h200").expect("built in"));
    let planned = djinn::plan(&mut module, &PlanRequest::new(target), None).expect("a plan");
    (module, planned.plan)
}

fn request(plan: &Plan, cache: &Path) -> EngineRequest {
    let mut request = EngineRequest::of_plan(plan);
    request.cache = Some(cache.to_owned());
    request.policy = Policy::BreakEven { expected: None };
    request
}

fn fake(region: &Region) -> Engine {
    let bytes = format!("{} operations", region.len()).into_bytes();
    Engine { bytes, inputs: Vec::new(), outputs: Vec::new(), layers: Vec::new(), messages: Vec::new() }
}

type Built = Result<Engine, BuildError>;

fn lazy(
    (module, plan): &(Module, Plan),
    cache: &Path,
    build: impl Fn(&Region, &BuildContext) -> Built + Send + Sync + 'static,
) -> Lazy {
    Lazy::with_builder(module, plan, &request(plan, cache), "fake 1", build).expect("threads start")
}

/// Runs so often, waits for what is built, and says how many were.
fn builds(program: &(Module, Plan), cache: &Path, runs: usize, seconds: f64) -> usize {
    let built = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&built);
    let mut lazy = lazy(program, cache, move |region, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(fake(region))
    });
    (0..runs).for_each(|_| lazy.ran(0, seconds));
    let (remarks, warnings) = lazy.finish();
    assert!(warnings.is_empty(), "{warnings:?}");
    let built = built.load(Ordering::Relaxed);
    assert_eq!(remarks.len(), built, "{remarks:?}");
    built
}

#[test]
fn what_pays_is_built_once_and_found_by_the_next() {
    let program = planned();
    let cache = tempfile::tempdir().expect("a folder");
    let distinct = lazy(&program, cache.path(), |r, _| Ok(fake(r))).counts().0;
    assert!(distinct > 1 && distinct < program.1.entries[0].engines.len(), "equal layers are one region");
    assert_eq!(builds(&program, cache.path(), 3, 1e-6), 0, "three short runs pay for nothing");
    assert_eq!(builds(&program, cache.path(), 40, 1000.0), distinct);
    assert_eq!(builds(&program, cache.path(), 40, 1000.0), 0);
    let mut later = lazy(&program, cache.path(), |_, _| panic!("it is there"));
    for engine in &program.1.entries[0].engines {
        let bytes = later.ready(0, engine.number).expect("there");
        assert!(bytes.as_slice().ends_with(b" operations"));
    }
    assert!(later.ready(0, 999).is_none() && later.ready(9, 0).is_none());
    later.ran(9, 1.0);
    assert_eq!(later.counts().1, 0);
}

#[test]
fn runs_of_several_processes_add_up() {
    let program = planned();
    let (once, twice) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    // One second of a build against runs of a second in all: some regions pay after 3 runs, others after some more.
    let first = builds(&program, once.path(), 4, 1.0);
    assert_eq!(builds(&program, twice.path(), 4, 1.0), first);
    let more: usize = (0..10).map(|_| builds(&program, twice.path(), 4, 1.0)).sum();
    assert!(more > 0, "counts were kept");
}

#[test]
fn a_refusal_is_told_and_a_panic_harms_nothing() {
    let program = planned();
    let refuse = |_: &Region, _: &BuildContext| -> Built {
        Err(BuildError::from(unsupported("tensorrt.layer", "no such layer")))
    };
    let panics = |_: &Region, _: &BuildContext| -> Built { panic!("a bug") };
    for (says, build) in [
        ("no such layer", Arc::new(refuse) as Arc<dyn Fn(&Region, &BuildContext) -> Built + Send + Sync>),
        ("panicked", Arc::new(panics)),
    ] {
        let cache = tempfile::tempdir().expect("a folder");
        let mut lazy = lazy(&program, cache.path(), move |r, c| build(r, c));
        (0..40).for_each(|_| lazy.ran(0, 1000.0));
        let (remarks, _) = lazy.finish();
        assert!(!remarks.is_empty() && remarks.iter().all(|r| r.message.contains(says)), "{remarks:?}");
    }
}

#[test]
fn dropping_waits_for_no_build() {
    let program = planned();
    let cache = tempfile::tempdir().expect("a folder");
    let (release, wait) = mpsc::channel::<()>();
    let (started, begun) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let mut lazy = lazy(&program, cache.path(), move |region, _| {
        let _ = started.send(());
        let _ = wait.lock().expect("one builder").recv();
        Ok(fake(region))
    });
    (0..40).for_each(|_| lazy.ran(0, 1000.0));
    begun.recv_timeout(Duration::from_secs(60)).expect("a build is running");
    assert!(lazy.ready(0, program.1.entries[0].engines[0].number).is_none(), "nothing is waited for");
    // This returns although the builder has not been released.
    drop(lazy);
    drop(release);
}
