//! Weights that exceed the memory of all devices: kept on the host, copied in every run, ahead of their use.

use djinn::device::{Profile, Target, Topology};
use djinn::ir::{Module, TensorData};
use djinn::plan_data::{Action, Buffer, Content, CopyReason, Place, Plan};
use djinn::runtime::{RunOptions, Runtime};
use djinn::{PlanRequest, Planned};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn model(name: &str) -> Module {
    djinn::read(&root().join("testdata/models").join(name)).expect("the model is read").module
}

fn arrays(name: &str) -> BTreeMap<String, TensorData> {
    let path = root().join("testdata/models").join(name);
    djinn::npz::read(&path).expect("arrays").into_iter().collect()
}

/// As many host devices as limits, each with so much memory.
fn hosts(limits: &[u64]) -> Target {
    let device = |bytes: &u64| format!("[[device]]\nprofile = \"host\"\nmemory_bytes = {bytes}\n");
    let text: String = limits.iter().map(device).collect();
    Target::new(Topology::parse(&text, "test").expect("a topology"))
}

fn planned(module: &mut Module, target: Target, stream: bool) -> djinn::diag::Result<Planned> {
    let mut request = PlanRequest::new(target);
    request.stream_weights = stream;
    for symbol in djinn::ir::walk::symbols(module) {
        request.sizes.insert(symbol.name().to_owned(), vec![(1, 16)]);
    }
    djinn::plan(module, &request, None)
}

/// Bytes of the arenas of all devices but hosts.
fn arena_bytes(plan: &Plan) -> u64 {
    plan.arenas.iter().filter(|a| !plan.devices[a.device.index()].host).map(|a| a.bytes).sum()
}

fn is_constant(buffer: &Buffer) -> bool {
    matches!(buffer.content, Content::Constant { .. })
}

/// Bytes of weights and constants on hosts (`true`) or on devices.
fn constants(plan: &Plan, host: bool) -> u64 {
    let here = |b: &&Buffer| plan.devices[plan.arenas[b.arena.index()].device.index()].host == host;
    plan.buffers.iter().filter(|b| is_constant(b)).filter(here).map(|b| b.bytes).sum()
}

/// Bytes that copies of this reason move in one run of an entry.
fn moved(plan: &Plan, entry: usize, wanted: CopyReason) -> u64 {
    let bytes = |a: &Action| match a {
        Action::Copy { to: Place::Buffer(view), reason, .. } if *reason == wanted => view.bytes,
        _ => 0,
    };
    plan.entries[entry].commands.iter().map(|c| bytes(&c.action)).sum()
}

/// Runs the plan with poison and race detection and compares with what the model is known to give.
fn agrees(plan: &Plan, program: &Module, name: &str) {
    let (plan, program) = (Arc::new(plan.clone()), Arc::new(program.clone()));
    let mut runtime = Runtime::host(plan, program, RunOptions::checking()).expect("runs");
    let inputs = arrays(&format!("{name}/inputs.npz"));
    let function = runtime.program().functions[0].name.to_string();
    for _ in 0..2 {
        let (out, _, report) = djinn::execute_and_check(&mut runtime, &function, &inputs)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(report.passed(), "{name}: {report:?}");
        assert_eq!(out.races, [], "{name}");
    }
}

#[test]
fn models_run_with_less_memory_than_they_have_weights() {
    for name in ["bert", "llama_decode", "llama_staticcache", "lstm", "squeezenet"] {
        let file = format!("{name}/model.onnx");
        let whole = planned(&mut model(&file), hosts(&[1 << 30]), true).expect("it fits").plan;
        assert_eq!(moved(&whole, 0, CopyReason::Fetch), 0, "{name}: what fits is not streamed");
        let (all, weights) = (arena_bytes(&whole), constants(&whole, false));
        let largest = whole.buffers.iter().filter(|b| is_constant(b)).map(|b| b.bytes).max().unwrap_or(0);
        // Half of the weights fit, beside one more that is on its way.
        let limit = all - weights / 2 + largest;
        if limit >= all {
            eprintln!("{name}: one weight of {largest} B is more than half of all");
            continue;
        }
        let refusal = planned(&mut model(&file), hosts(&[limit]), false).map(|p| p.plan.entries.len());
        let refusal = refusal.expect_err("too small");
        assert!(djinn::MEMORY_REFUSALS.contains(&refusal.code.as_str()), "{name}: {refusal}");
        assert!(refusal.to_string().contains("--stream-weights"), "{name}: {refusal}");
        let mut module = model(&file);
        let Planned { plan, .. } = planned(&mut module, hosts(&[limit]), true).expect("streamed");
        assert!(arena_bytes(&plan) <= limit, "{name}");
        let (streamed, kept) = (moved(&plan, 0, CopyReason::Fetch), constants(&plan, false));
        let on_host = constants(&plan, true);
        eprintln!("{name}: {all} B as a whole; limit {limit} B: {streamed} B streamed, {kept} B stay");
        assert!(streamed > 0 && on_host > 0 && on_host + kept == weights, "{name}: {on_host} B on the host");
        agrees(&plan, &module, name);
    }
}

#[test]
fn weights_larger_than_all_devices_are_streamed_to_each() {
    let name = "bert";
    let file = format!("{name}/model.onnx");
    let whole = planned(&mut model(&file), hosts(&[1 << 30]), true).expect("it fits").plan;
    let (all, weights) = (arena_bytes(&whole), constants(&whole, false));
    let each = all - weights + weights / 3;
    let mut module = model(&file);
    let Planned { plan, .. } = planned(&mut module, hosts(&[each, each]), true).expect("streamed");
    for (d, device) in plan.devices.iter().enumerate().filter(|(_, d)| !d.host) {
        let here = plan.arenas.iter().filter(|a| a.device.index() == d);
        assert!(here.map(|a| a.bytes).sum::<u64>() <= device.memory_bytes);
    }
    assert!(moved(&plan, 0, CopyReason::Fetch) > 0);
    agrees(&plan, &module, name);
}

/// The plan of a model of 141 GB of weights on two devices of 40 GB; none, with a line, where it is not at hand.
fn large(phase: &str, symbol: &str, size: i64) -> Option<Plan> {
    let name = format!("full_llama3.1_70b_{phase}_dyn");
    let path = root().join("../shared/models-full").join(&name).join("model.pt2.gz");
    if !path.exists() {
        eprintln!("skipped: {name}: ../shared/models-full is not present");
        return None;
    }
    let mut module = djinn::read(&path).expect("the model is read").module;
    let text = std::fs::read_to_string(root().join("testdata/topologies/h100-40-x2-100gbe.toml"));
    let topology = Topology::parse(&text.expect("there"), "h100-40-x2").expect("a topology");
    let mut request = PlanRequest::new(Target::new(topology));
    request.sizes = BTreeMap::from([(symbol.to_owned(), vec![(size, size)])]);
    request.stream_weights = true;
    Some(djinn::plan(&mut module, &request, None).expect("streamed").plan)
}

/// Seconds of the copies of weights, of the kernels, and of a run.
fn figures(plan: &Plan, what: &str) -> (f64, f64, f64) {
    let streamed = moved(plan, 0, CopyReason::Fetch) as f64;
    assert!((141e9 - 80e9..0.5 * 141e9).contains(&streamed), "{streamed}");
    let links = streamed / Profile::builtin("h100-80").expect("built in").host_link.bandwidth;
    let work: f64 = plan.entries[0].kernels.iter().map(|k| k.seconds).sum();
    let run = plan.entries[0].seconds;
    eprintln!(
        "70B {what} on 2 × 40 GB: {:.1} GB copied in {links:.3} s, kernels {work:.3} s, run {run:.3} s",
        streamed / 1e9
    );
    (links, work, run)
}

#[test]
fn copies_run_beside_the_work() {
    let Some(plan) = large("prefill", "s70", 4096) else { return };
    let (links, work, run) = figures(&plan, "prefill");
    assert!(run < 1.05 * links.max(work), "the ring keeps the links busy");
}

#[test]
fn devices_take_turns_so_that_all_links_are_busy() {
    let Some(plan) = large("decode", "s0", 2048) else { return };
    let (links, work, run) = figures(&plan, "decode");
    assert!(run < 0.7 * (links + work), "two links are faster than one after the other");
}

#[test]
fn a_ring_of_one_weight_does_where_two_find_no_room() {
    let mut module = model("bert/model.onnx");
    let Planned { plan, .. } = planned(&mut module, hosts(&[60_000]), true).expect("streamed");
    assert!(arena_bytes(&plan) <= 60_000 && constants(&plan, false) < 20_000);
    agrees(&plan, &module, "bert");
}
