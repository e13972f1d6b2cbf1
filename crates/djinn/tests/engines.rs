//! Engine regions in plans: what partition has found reaches plan, text and report.

#[path = "../../../passes/lifetime/tests/common/mod.rs"]
mod common;

use common::{Random, module, random_function};
use djinn::PlanRequest;
use djinn::device::{Profile, Target, Topology};
use djinn::ir::{Module, text};
use djinn::plan_data::{Action, CopyReason, Engine, Plan};
use std::path::Path;

fn planned(name: &str, target: Target) -> (Plan, Module) {
    planned_for(name, &PlanRequest::new(target))
}

fn planned_for(name: &str, request: &PlanRequest) -> (Plan, Module) {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models");
    let mut module = djinn::read(&models.join(name).join("model.pt2")).expect("a model").module;
    let planned = djinn::plan(&mut module, request, None).unwrap_or_else(|e| panic!("{e}"));
    (planned.plan, module)
}

fn h100() -> Target {
    Target::single(Profile::builtin("h100-80").expect("built in"))
}

#[test]
fn one_engine_takes_a_whole_decoder() {
    let request = PlanRequest { copy_caches: true, ..PlanRequest::new(h100()) };
    let (plan, module) = planned_for("llama_decode", &request);
    let entry = &plan.entries[0];
    let [engine] = entry.engines.as_slice() else { panic!("{:?}", entry.engines) };
    assert_eq!(engine.kernels.len(), entry.kernels.len());
    assert!(engine.ops.len() > engine.kernels.len() && engine.flops > 0.0 && engine.weight_bytes > 0);
    assert!(engine.bytes_in > 0 && engine.bytes_out > 0 && engine.ends.is_empty(), "{engine:?}");
    let told = djinn::report::explain(&plan, Some(&module));
    let first =
        module.functions[0].arguments.iter().find(|(name, _)| told.contains(&format!("takes {name}")));
    assert!(told.contains("every kernel is in one") && first.is_some(), "{told}");
    assert!(djinn::plan_data::text(&plan).contains("\n  engine 0 d0 kernels 0-"));
}

/// What appends to a cache in place is in no engine: the engines before and behind it are others.
#[test]
fn engines_end_where_a_cache_is_appended_to() {
    let (plan, _) = planned("llama_decode", h100());
    let entry = &plan.entries[0];
    let outside: Vec<&str> =
        entry.kernels.iter().filter(|k| k.engine.is_none()).map(|k| k.name.as_str()).collect();
    let caches = entry.inputs.iter().filter(|p| p.resident).count();
    assert!(outside.len() == caches && outside.iter().all(|name| name.contains("concat")), "{outside:?}");
    assert!(entry.engines.len() > 1);
    assert!(entry.engines.iter().all(|e| e.ends.iter().any(|why| why.contains("appended to in place"))));
}

#[test]
fn engines_end_where_another_device_goes_on() {
    let topology = "[[device]]\nprofile = \"h100-80\"\ncount = 2\nmemory_bytes = 16_000_000\n\n[[link]]\n\
                    between = [\"h100-80:0\", \"h100-80:1\"]\nkind = \"nvlink\"\n";
    let target = Target::new(Topology::parse(topology, "two devices").expect("a topology"));
    let (plan, _) = planned("llama_decode", target);
    let engines = &plan.entries[0].engines;
    let devices: std::collections::BTreeSet<_> = engines.iter().map(|e| e.device).collect();
    assert_eq!(devices.len(), 2, "{engines:?}");
    let copied = |e: &Engine| e.ends.iter().any(|why| why.starts_with("transfer: copies between devices"));
    assert!(engines.iter().any(copied), "{engines:?}");
}

#[test]
fn engines_end_at_control_flow() {
    let (plan, _) = planned("cond_while", h100());
    let entry = &plan.entries[0];
    assert!(entry.kernels.iter().any(|k| k.engine.is_none()), "control flow is in no engine");
    let why = entry.engines.iter().flat_map(|e| &e.ends).find(|why| why.contains("control flow"));
    assert!(why.is_some(), "{:?}", entry.engines);
}

/// Partition made one region before it was known that one of its values has to leave the device.
#[test]
fn a_region_is_cut_where_a_value_is_spilled() {
    let source = include_str!("../../../testdata/filetests/lifetime/spill.mlir");
    let plan = |limit: Option<u64>| {
        let mut module = text::parse_module(source).expect("parses");
        let mut request = PlanRequest::new(Target { memory_limit: limit, ..h100() });
        request.optimize.pipeline = "builtin.module()".into();
        djinn::plan(&mut module, &request, None).unwrap_or_else(|e| panic!("{e}")).plan.entries.remove(0)
    };
    let (free, limited) = (plan(None), plan(Some(200_000)));
    let spills = |a: &Action| matches!(a, Action::Copy { reason: CopyReason::Spill, .. });
    assert!(limited.commands.iter().any(|c| spills(&c.action)));
    assert_eq!(free.engines.len(), 1, "{:?}", free.engines);
    assert!(limited.engines.len() > 1, "{:?}", limited.engines);
    let cut = |e: &Engine| e.ends.iter().any(|why| why.starts_with("its values leave the device"));
    assert!(limited.engines.iter().all(cut), "{:?}", limited.engines);
}

/// A plan that the checker refuses is made again without sharing bytes, and says so: engines are no reason for that.
#[test]
fn engines_of_random_functions_are_never_refused() {
    let mut random = Random(31);
    let (mut limited, mut several) = (0, 0);
    for case in 0..150 {
        let ops = 8 + random.below(40);
        let original = module(random_function(&mut random, ops, case % 2 == 0));
        let plan = |limit: Option<u64>| {
            let target = Target { memory_limit: limit, ..h100() };
            let mut request = PlanRequest::new(target);
            request.optimize.pipeline = "builtin.module()".into();
            let planned = djinn::plan(&mut original.clone(), &request, None)?;
            let given_up = planned.outcome.remarks.iter().find(|r| r.message.contains("are given up"));
            assert!(given_up.is_none(), "case {case}: {given_up:?}");
            Ok::<Plan, Box<djinn::diag::Diagnostic>>(planned.plan)
        };
        let free = plan(None).unwrap_or_else(|e| panic!("case {case}: {e}"));
        let bytes: u64 = free.arenas.iter().map(|a| a.bytes).sum();
        if let Ok(tight) = plan(Some(bytes * (55 + random.below(40) as u64) / 100)) {
            limited += 1;
            several += usize::from(tight.entries[0].engines.len() > free.entries[0].engines.len());
        }
    }
    assert!(limited > 20 && several > 0, "{limited} limited, {several} with regions that were cut");
}
