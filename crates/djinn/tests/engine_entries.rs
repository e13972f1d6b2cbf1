//! Entries whose launches are whole engine regions, beside those whose launches are kernels.

#[path = "../../../passes/lifetime/tests/common/mod.rs"]
mod common;

use common::{Random, inputs, module, random_function};
use djinn::device::{Profile, Target};
use djinn::ir::{Module, TensorData};
use djinn::plan_data::{ArenaKind, Content, Entry, Granularity, Plan};
use djinn::runtime::{RunOptions, Runtime};
use djinn::tensorrt::Region;
use djinn::{PlanRequest, RequestKey};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

fn request() -> PlanRequest {
    let target = Target::single(Profile::builtin("h100-80").expect("built in"));
    PlanRequest { engine_entries: true, ..PlanRequest::new(target) }
}

fn model(name: &str) -> Module {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models");
    djinn::read(&models.join(name).join("model.pt2")).expect("a model").module
}

/// A plan that had to give up nothing.
fn planned(module: &mut Module, request: &PlanRequest) -> Plan {
    let planned = djinn::plan(module, request, None).unwrap_or_else(|e| panic!("{e}"));
    let remarks = planned.outcome.remarks;
    let given_up = remarks.iter().find(|r| r.pass == "planner" && r.rule != "cache");
    assert!(given_up.is_none(), "{given_up:?}");
    planned.plan
}

/// The entries of kernels with those of engines.
fn pairs(plan: &Plan) -> Vec<(&Entry, &Entry)> {
    let of = |granularity: Granularity| plan.entries.iter().filter(move |e| e.granularity == granularity);
    let same =
        |a: &Entry, b: &Entry| a.function == b.function && a.symbols == b.symbols && a.phase == b.phase;
    of(Granularity::Engines)
        .map(|whole| (of(Granularity::Kernels).find(|e| same(e, whole)).expect("its kernels"), whole))
        .collect()
}

const MODELS: [&str; 7] =
    ["bert", "cond_while", "llama_decode", "llama_staticcache", "lstm", "squeezenet", "whisper_encoder"];

#[test]
fn both_entries_share_engines_weights_and_caches() {
    for name in MODELS {
        let mut module = model(name);
        let plan = planned(&mut module, &request());
        let pairs = pairs(&plan);
        assert!(!pairs.is_empty(), "{name} has no entry of engines");
        for (apart, whole) in pairs {
            let numbers = |e: &Entry| e.engines.iter().map(|e| e.number).collect::<Vec<_>>();
            assert_eq!(numbers(apart), numbers(whole), "{name}");
            for (a, b) in apart.engines.iter().zip(&whole.engines) {
                let [left, right] = [(apart, a), (whole, b)]
                    .map(|(entry, engine)| Region::of_engine(&module, entry, engine).expect("a region"));
                assert_eq!(left.key(), right.key(), "{name}: engine {}", a.number);
                assert_eq!((&left.results, left.flops), (&right.results, right.flops));
                assert_eq!((&a.ops, &a.inputs, &a.outputs), (&b.ops, &b.inputs, &b.outputs));
                assert_eq!((a.bytes_in, a.bytes_out), (b.bytes_in, b.bytes_out));
                assert_eq!((a.weight_bytes, &a.ends, a.device), (b.weight_bytes, &b.ends, b.device));
                assert!(
                    b.seconds <= a.seconds && b.seconds > 0.0,
                    "{name}: {} s, {} s",
                    a.seconds,
                    b.seconds
                );
                assert_eq!(b.kernels.len(), 1, "{name}");
            }
            let resident = |e: &Entry| -> Vec<_> {
                e.inputs.iter().chain(&e.outputs).filter(|p| p.resident).map(|p| p.view).collect()
            };
            assert_eq!(resident(apart), resident(whole), "{name}: caches stand in the same bytes");
            let states =
                |e: &Entry| e.states.iter().map(|s| (s.argument, s.view)).collect::<BTreeMap<_, _>>();
            assert_eq!(states(apart), states(whole), "{name}");
            let outside = |e: &Entry| e.kernels.iter().filter(|k| k.engine.is_none()).count();
            println!(
                "{name:18} {:4} launches as kernels, {:3} with engines ({} and {} outside); {} B and {} B",
                apart.kernels.len(),
                whole.kernels.len(),
                outside(apart),
                outside(whole),
                apart.budgets[0].activations,
                whole.budgets[0].activations,
            );
            assert!(whole.kernels.len() <= outside(apart) + apart.engines.len(), "{name}");
        }
        only_activations_are_added(name, &plan);
    }
}

/// The plan with its entries of engines alone; functions without one are not in it.
fn engines_alone(plan: &Plan) -> Plan {
    let mut alone = plan.clone();
    let first =
        plan.entries.iter().position(|e| e.granularity == Granularity::Engines).expect("there is one");
    for buffer in &mut alone.buffers {
        if let Content::Run { entry } = &mut buffer.content {
            // What entries that are gone had in memory is nothing any more.
            if (*entry as usize) < first {
                (buffer.offset, buffer.bytes) = (0, 0);
            }
            *entry = entry.saturating_sub(first as u32);
        }
    }
    alone.entries.drain(..first);
    alone
}

/// Runs the entries of engines and compares outputs and states with the evaluator's.
fn agrees(
    plan: &Plan,
    planned: &Module,
    original: &Module,
    given: &BTreeMap<String, TensorData>,
    case: &str,
) {
    let expected = djinn::interp::run(original, "main", given).unwrap_or_else(|e| panic!("{case}: {e}"));
    let (plan, program) = (Arc::new(engines_alone(plan)), Arc::new(planned.clone()));
    let mut runtime =
        Runtime::host(plan, program, RunOptions::checking()).unwrap_or_else(|e| panic!("{case}: {e}"));
    let states = runtime.states().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let mut arguments = given.clone();
    for name in &states {
        if let Some(value) = arguments.remove(name) {
            runtime.set_state(name, &value).unwrap_or_else(|e| panic!("{case}: {e}"));
        }
    }
    arguments.remove("s");
    let out = runtime.run("main", &arguments).unwrap_or_else(|e| panic!("{case}: {e}"));
    assert_eq!(out.outputs, expected.outputs, "{case}");
    assert_eq!(out.races, [], "{case}");
    for (_, value) in &expected.updates {
        assert_eq!(runtime.state("s").unwrap_or_else(|e| panic!("{case}: {e}")), *value, "{case}");
    }
}

/// Also where values are spilled: entries of engines are right or, for want of memory, not there.
#[test]
fn engines_of_random_functions_compute_the_same() {
    let mut random = Random(77);
    let (mut ran, mut limited, mut given_up, mut left) = (0, 0, 0, 0);
    for case in 0..120 {
        let ops = 8 + random.below(40);
        let original = module(random_function(&mut random, ops, case % 2 == 0));
        let given = inputs(&original.functions[0]);
        let mut plan = |limit: Option<u64>| {
            let mut planned = original.clone();
            let mut request = request();
            request.target.memory_limit = limit;
            request.optimize.pipeline = "builtin.module()".into();
            let made = djinn::plan(&mut planned, &request, None)?;
            let mut remarks =
                made.outcome.remarks.iter().filter(|r| r.pass == "planner" && r.rule != "cache");
            let remark = remarks.next().map(|r| r.message.clone());
            let no_room = remark.as_ref().is_some_and(|r| r.contains("[plan.capacity]"));
            // Where a state is written over what reads it, some regions have no order as wholes.
            let is_left = remark.as_ref().is_some_and(|r| r.contains("is launched kernel by kernel"));
            left += usize::from(is_left);
            assert!(remark.is_none() || is_left || (no_room && limit.is_some()), "case {case}: {remark:?}");
            let has = made.plan.entries.iter().any(|e| e.granularity == Granularity::Engines);
            let has_regions = made.plan.entries.iter().any(|e| !e.engines.is_empty());
            assert!(is_left || has == (!no_room && has_regions), "case {case}");
            if has {
                ran += 1;
                agrees(&made.plan, &planned, &original, &given, &format!("case {case}, {limit:?}"));
            }
            given_up += usize::from(no_room);
            Ok::<Plan, Box<djinn::diag::Diagnostic>>(made.plan)
        };
        let free = plan(None).unwrap_or_else(|e| panic!("case {case}: {e}"));
        let bytes: u64 = free.arenas.iter().map(|a| a.bytes).sum();
        limited += usize::from(plan(Some(bytes * (55 + random.below(40) as u64) / 100)).is_ok());
    }
    println!(
        "{ran} ran, {limited} with little memory, {given_up} of these without entries of engines; \
         {left} with a region that stays kernels"
    );
    assert!(left <= 8, "{left} regions stay kernels");
    assert!(ran > 100 && limited > 20 && given_up < limited, "{ran} {limited} {given_up}");
}

/// Weights and states are what they are without entries of engines, and activations the most of both.
fn only_activations_are_added(name: &str, plan: &Plan) {
    let alone = planned(&mut model(name), &PlanRequest { engine_entries: false, ..request() });
    let kept = |p: &Plan| -> Vec<_> {
        p.buffers.iter().filter(|b| !matches!(b.content, Content::Run { .. })).cloned().collect()
    };
    assert_eq!(kept(plan), kept(&alone), "{name}");
    let kernels = plan.entries.iter().filter(|e| e.granularity == Granularity::Kernels);
    for (with, without) in kernels.zip(&alone.entries) {
        let figures = |e: &Entry| (e.commands.clone(), e.kernels.clone(), e.engines.clone(), e.seconds);
        assert_eq!(figures(with), figures(without), "{name}");
    }
    let most = plan.entries.iter().map(|e| e.budgets[0].activations).max();
    let arena = plan.arenas.iter().find(|a| a.kind == ArenaKind::Activations).map(|a| a.bytes);
    assert_eq!(arena, most, "{name}");
}

#[test]
fn there_are_none_on_hosts() {
    let host = Target::single(Profile::builtin("host").expect("built in"));
    let plan =
        planned(&mut model("squeezenet"), &PlanRequest { engine_entries: true, ..PlanRequest::new(host) });
    assert!(plan.entries.iter().all(|e| e.granularity == Granularity::Kernels));
}

#[test]
fn plans_with_and_without_them_are_kept_apart() {
    let module = model("squeezenet");
    let key = |engine_entries| RequestKey::new(&PlanRequest { engine_entries, ..request() }).plan_of(&module);
    assert_ne!(key(true), key(false));
}

/// Engines on two devices, and copies between them.
#[test]
fn engines_of_two_devices_are_launched_on_theirs() {
    let topology = "[[device]]\nprofile = \"h100-80\"\ncount = 2\n\n[[link]]\n\
                    between = [\"h100-80:0\", \"h100-80:1\"]\nkind = \"nvlink\"\n";
    let topology = djinn::device::Topology::parse(topology, "two devices").expect("a topology");
    let mut request = PlanRequest { target: Target::new(topology), ..request() };
    let pin = |n: usize| (format!("lm.model.layers.{n}"), format!("h100-80:{n}"));
    request.pins = vec![pin(0), pin(1)];
    let plan = planned(&mut model("llama_decode"), &request);
    let [(apart, whole)] = pairs(&plan)[..] else { panic!("one function") };
    let homes = |e: &Entry| e.engines.iter().map(|e| (e.number, e.device)).collect::<Vec<_>>();
    assert_eq!(homes(apart), homes(whole));
    let devices: std::collections::BTreeSet<_> = homes(whole).into_iter().map(|(_, d)| d).collect();
    assert_eq!(devices.len(), 2, "{devices:?}");
    assert!(whole.kernels.len() < apart.kernels.len());
}

/// 32 layers, each between appends to two caches: 34 engines and 64 appends instead of 390 kernels.
#[test]
fn a_decoder_of_full_size_has_few_launches() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/models-full/full_llama3.1_8b_decode_dyn/model.pt2.gz");
    if !path.exists() {
        eprintln!("skipped: ../shared/models-full is not present");
        return;
    }
    let mut module = djinn::read(&path).expect("a model").module;
    let mut request = request();
    request.sizes.insert("s0".into(), vec![(2048, 2048)]);
    let plan = planned(&mut module, &request);
    let [(apart, whole)] = pairs(&plan)[..] else { panic!("one function") };
    assert!(whole.kernels.len() <= whole.engines.len() + 64, "{}", whole.kernels.len());
    assert!(whole.kernels.len() * 3 < apart.kernels.len() && whole.seconds < apart.seconds);
    let grown = whole.budgets[0].activations as f64 / apart.budgets[0].activations as f64;
    assert!(grown < 1.1, "{grown}");
}
