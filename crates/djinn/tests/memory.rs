//! Memory of plans from end to end: what storage and the lifetime pass decide, the planner carries out, the checker
//! accepts and the runtime runs, with poison and race detection.

#[path = "../../../passes/lifetime/tests/common/mod.rs"]
mod common;

use common::{Random, inputs, module, random_function};
use djinn::PlanRequest;
use djinn::device::{Objective, Profile, Target};
use djinn::ir::{Module, TensorData, text};
use djinn::plan_data::{Action, ArenaKind, CopyReason, Plan};
use djinn::runtime::{RunOptions, Runtime};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A host device with this much memory.
fn target(limit: Option<u64>) -> Target {
    let host = Profile::builtin("host").expect("a built-in profile");
    Target { memory_limit: limit, ..Target::single(host) }
}

fn plan(module: &mut Module, target: Target) -> djinn::diag::Result<Plan> {
    let mut request = PlanRequest::new(target);
    request.optimize.pipeline = "builtin.module()".into();
    djinn::plan(module, &request, None).map(|planned| planned.plan)
}

/// Bytes on the device that is not host memory.
fn device_bytes(plan: &Plan) -> u64 {
    let of = |a: &&djinn::plan_data::Arena| !plan.devices[a.device.index()].host;
    plan.arenas.iter().filter(of).map(|a| a.bytes).sum()
}

fn copies(plan: &Plan, wanted: CopyReason) -> usize {
    let commands = plan.entries.iter().flat_map(|e| &e.commands);
    let is = |a: &Action| matches!(a, Action::Copy { reason, .. } if *reason == wanted);
    commands.filter(|c| is(&c.action)).count()
}

/// Runs the plan twice and compares outputs and states with the evaluator's.
fn agrees(
    plan: &Plan,
    planned: &Module,
    original: &Module,
    given: &BTreeMap<String, TensorData>,
    case: &str,
) {
    let expected = djinn::interp::run(original, "main", given).unwrap_or_else(|e| panic!("{case}: {e}"));
    let (plan, program) = (Arc::new(plan.clone()), Arc::new(planned.clone()));
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

#[test]
fn a_value_is_spilled_and_fetched() {
    let source = include_str!("../../../testdata/filetests/lifetime/spill.mlir");
    let original = text::parse_module(source).expect("parses");
    let mut planned = original.clone();
    let plan = plan(&mut planned, target(Some(200_000))).expect("fits");
    assert!(device_bytes(&plan) <= 200_000, "{}", device_bytes(&plan));
    assert_eq!((copies(&plan, CopyReason::Spill), copies(&plan, CopyReason::Fetch)), (1, 1));
    assert!(plan.arenas.iter().any(|a| a.kind == ArenaKind::Spill && a.bytes == 65_536));
    assert!(plan.entries[0].seconds > 0.0, "the simulated time");
    agrees(&plan, &planned, &original, &inputs(&original.functions[0]), "spill");
}

#[test]
fn random_plans_keep_their_limit_and_compute_the_same() {
    let mut random = Random(23);
    let (mut limited, mut refused, mut spilled) = (0, 0, 0);
    for case in 0..120 {
        let ops = 8 + random.below(30);
        let original = module(random_function(&mut random, ops, case % 2 == 0));
        let given = inputs(&original.functions[0]);
        let mut planned = original.clone();
        let objective = if case % 3 == 0 { Objective::Memory } else { Objective::Latency };
        let free = plan(&mut planned, Target { objective, ..target(None) })
            .unwrap_or_else(|e| panic!("case {case}: {e}"));
        agrees(&free, &planned, &original, &given, &format!("case {case}"));
        let limit = device_bytes(&free) * (60 + random.below(40) as u64) / 100;
        let mut planned = original.clone();
        match plan(&mut planned, target(Some(limit))) {
            Ok(plan) => {
                limited += 1;
                spilled += copies(&plan, CopyReason::Spill);
                assert!(device_bytes(&plan) <= limit, "case {case}");
                agrees(&plan, &planned, &original, &given, &format!("case {case} limited"));
            }
            Err(e) => {
                refused += 1;
                assert!(["lifetime.memory", "plan.capacity"].contains(&e.code.as_ref()), "case {case}: {e}");
            }
        }
    }
    assert!(limited > 10 && refused > 10 && spilled > 0, "{limited} {refused} {spilled}");
}

/// A value over which the next one is made, and a slice that is bytes of that.
const IN_PLACE: &str = r#"
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<8x64xf32>):
    %1 = "djinn.softmax"(%0) {axis = 1} : (tensor<8x64xf32>) -> tensor<8x64xf32>
    %2 = "djinn.relu"(%1) {djinn.kernel = 7} : (tensor<8x64xf32>) -> tensor<8x64xf32>
    %3 = "djinn.slice"(%2) {axis = 0, start = "2", limit = "6", stride = 1} : (tensor<8x64xf32>) -> tensor<4x64xf32>
    %4 = "djinn.softmax"(%3) {axis = 1} : (tensor<4x64xf32>) -> tensor<4x64xf32>
    "djinn.return"(%4) : (tensor<4x64xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x"}], results = [{kind = "output", name = "y"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
"#;

#[test]
fn bytes_are_shared_only_where_the_operations_allow_it() {
    let entry = djinn_planner::EntrySpec { function: "main".into(), ..Default::default() };
    let module = text::parse_module(IN_PLACE).expect("parses");
    let options = djinn_planner::PlanOptions::default();
    let plan = djinn_planner::plan(&module, &target(None), &[entry], &options).expect("a plan");
    assert_eq!(plan.entries[0].aliases.len(), 1, "the slice copies nothing");
    assert_eq!(plan.entries[0].aliases[0].value.view.offset, 2 * 256);
    assert_eq!(plan.buffers.len(), 3, "relu is made over its operand");
    djinn::conforms(&plan, &module).expect("conforms");
    let others = [
        (r#""djinn.relu"(%1) {"#, r#""djinn.softmax"(%1) {axis = 1, "#, "writes over an operand"),
        (r#"start = "2", limit = "6""#, r#"start = "3", limit = "7""#, "bytes of another value"),
    ];
    for (from, to, message) in others {
        let other = text::parse_module(&IN_PLACE.replace(from, to)).expect("parses");
        let refusal = djinn::conforms(&plan, &other).expect_err(message);
        assert!(refusal.message.contains(message), "{refusal}");
    }
}

/// The plan of a module as it stands, on two host devices, after all checks.
fn annotated(source: &str, entry: djinn_planner::EntrySpec) -> (Plan, Module) {
    let topology = "[[device]]\nprofile = \"host\"\ncount = 2\nmemory_bytes = 4000000\n";
    let target = Target::new(djinn::device::Topology::parse(topology, "test").expect("a topology"));
    let module = text::parse_module(source).expect("parses");
    let entry = djinn_planner::EntrySpec { function: "main".into(), ..entry };
    let options = djinn_planner::PlanOptions::default();
    let plan = djinn_planner::plan(&module, &target, &[entry], &options).expect("a plan");
    djinn::plan_data::check(&plan).unwrap_or_else(|e| panic!("{e:?}"));
    djinn::conforms(&plan, &module).expect("conforms");
    (plan, module)
}

/// An input that two devices read before a slice of it, which both of them read, is looked at.
const SLICED_INPUT: &str = r#"
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<8x64xf32>):
    %1 = "djinn.softmax"(%0) {axis = 1, djinn.device = "host:0"} : (tensor<8x64xf32>) -> tensor<8x64xf32>
    %2 = "djinn.softmax"(%0) {axis = 0, djinn.device = "host:1"} : (tensor<8x64xf32>) -> tensor<8x64xf32>
    %3 = "djinn.slice"(%0) {axis = 0, djinn.device = "host:0", start = "2", limit = "6", stride = 1} : (tensor<8x64xf32>) -> tensor<4x64xf32>
    %4 = "djinn.softmax"(%3) {axis = 1, djinn.device = "host:1"} : (tensor<4x64xf32>) -> tensor<4x64xf32>
    %5 = "djinn.softmax"(%3) {axis = 0, djinn.device = "host:0"} : (tensor<4x64xf32>) -> tensor<4x64xf32>
    "djinn.return"(%1, %2, %4, %5) : (tensor<8x64xf32>, tensor<8x64xf32>, tensor<4x64xf32>, tensor<4x64xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x"}], results = [{kind = "output", name = "a"}, {kind = "output", name = "b"}, {kind = "output", name = "c"}, {kind = "output", name = "d"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
"#;

#[test]
fn a_view_of_an_input_is_there_on_every_device_that_has_the_input() {
    let (plan, module) = annotated(SLICED_INPUT, djinn_planner::EntrySpec::default());
    assert_eq!(plan.entries[0].aliases.len(), 2, "the slice is bytes of the input on both devices");
    assert_eq!(copies(&plan, CopyReason::Input), 2);
    agrees(&plan, &module, &module, &inputs(&module.functions[0]), "sliced input");
}

/// Results that another device reads, or does not, and an input that two devices read.
const CACHES: &str = r#"
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<8x64xf32>):
    %1 = "djinn.softmax"(%0) {axis = 1, djinn.device = "host:0"} : (tensor<8x64xf32>) -> tensor<8x64xf32>
    %2 = "djinn.transfer"(%1) {device = "host:1", djinn.device = "host:1"} : (tensor<8x64xf32>) -> tensor<8x64xf32>
    %3 = "djinn.softmax"(%2) {axis = 0, djinn.device = "host:1"} : (tensor<8x64xf32>) -> tensor<8x64xf32>
    %4 = "djinn.softmax"(%0) {axis = 0, djinn.device = "host:1"} : (tensor<8x64xf32>) -> tensor<8x64xf32>
    "djinn.return"(%1, %3, %4) : (tensor<8x64xf32>, tensor<8x64xf32>, tensor<8x64xf32>) -> ()
  }) {arguments = [{kind = "input", name = "past"}], results = [{kind = "output", name = "present"}, {kind = "output", name = "y"}, {kind = "output", name = "other"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
"#;

#[test]
fn a_cache_that_two_devices_touch_does_not_stay() {
    let resident = ["past", "present", "other"].map(str::to_owned).into();
    let (plan, module) = annotated(CACHES, djinn_planner::EntrySpec { resident, ..Default::default() });
    let entry = &plan.entries[0];
    assert!(!entry.inputs[0].resident);
    assert_eq!(entry.outputs.iter().map(|o| o.resident).collect::<Vec<_>>(), [false, false, true]);
    agrees(&plan, &module, &module, &inputs(&module.functions[0]), "caches");
}

/// Two symbols, of which one has a single size, so that both operands of the addition have the result's shape.
const ONE_SIZE: &str = r#"
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<1x?x4xf32, ["s"]>, %1: tensor<?x1x4xf32, ["b"]>):
    %2 = "djinn.softmax"(%0) {axis = 2} : (tensor<1x?x4xf32, ["s"]>) -> tensor<1x?x4xf32, ["s"]>
    %3 = "djinn.add"(%1, %2) : (tensor<?x1x4xf32, ["b"]>, tensor<1x?x4xf32, ["s"]>) -> tensor<?x?x4xf32, ["b", "s"]>
    %4 = "djinn.softmax"(%3) {axis = 2} : (tensor<?x?x4xf32, ["b", "s"]>) -> tensor<?x?x4xf32, ["b", "s"]>
    "djinn.return"(%4) : (tensor<?x?x4xf32, ["b", "s"]>) -> ()
  }) {arguments = [{kind = "input", name = "x"}, {kind = "input", name = "z"}], results = [{kind = "output", name = "y"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {b = {divisor = 1 : i64, max = 8 : i64, min = 1 : i64}, s = {divisor = 1 : i64, max = 8 : i64, min = 1 : i64}}} : () -> ()
"#;

#[test]
fn sizes_of_one_number_are_that_number_wherever_bytes_are_shared() {
    let range = |symbol: &str, min, max| djinn_planner::SizeRange { symbol: symbol.into(), min, max };
    let sizes = vec![range("b", 1, 1), range("s", 2, 8)];
    let (plan, _) = annotated(ONE_SIZE, djinn_planner::EntrySpec { sizes, ..Default::default() });
    assert_eq!(plan.buffers.len(), 4, "the sum is made over its operand");
    let sizes = vec![range("b", 1, 8), range("s", 2, 8)];
    let (plan, _) = annotated(ONE_SIZE, djinn_planner::EntrySpec { sizes, ..Default::default() });
    assert_eq!(plan.buffers.len(), 5);
}
