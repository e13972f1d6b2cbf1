//! Waits for events are counted one way: the simulated seconds of a plan are those that the streams pass chose by.

use djinn::device::{Profile, Target, Topology};
use djinn::ir::Module;
use djinn::{OptimizeOptions, PLANNING_PASSES};
use djinn_planner::{EntrySpec, PlanOptions};
use std::path::Path;
use std::sync::Arc;

/// Seconds of a model by the streams pass and by the simulator of its plan, and the waits in the plan. Everything that
/// comes in and goes out stays on the device, so that nothing is copied.
fn both(module: &Module, target: &Target) -> (f64, f64, usize) {
    let mut module = module.clone();
    let options = OptimizeOptions {
        pipeline: format!("builtin.module(canonicalize,{PLANNING_PASSES})"),
        target: Some(Arc::new(target.clone())),
        ..OptimizeOptions::default()
    };
    let outcome = djinn::optimize(&mut module, &options, None).unwrap_or_else(|e| panic!("{e}"));
    let simulated = |counter: &str| {
        let found = outcome.statistics.iter().find(|(pass, name, _)| *pass == "streams" && *name == counter);
        found.map_or(0, |(_, _, value)| value) as f64 * 1e-9
    };
    let function = module.entries().next().expect("an entry");
    let names = function.arguments.iter().map(|(n, _)| n).chain(function.results.iter().map(|(n, _)| n));
    let spec = EntrySpec {
        function: function.name.to_string(),
        resident: names.map(ToString::to_string).collect(),
        ..EntrySpec::default()
    };
    let plan = djinn_planner::plan(&module, target, &[spec], &PlanOptions::default());
    let plan = plan.unwrap_or_else(|e| panic!("{e}"));
    let entry = &plan.entries[0];
    let is = |of: fn(&djinn_plan::Action) -> bool| entry.commands.iter().filter(|c| of(&c.action)).count();
    assert_eq!(is(|a| matches!(a, djinn_plan::Action::Copy { .. })), 0, "nothing is to be copied");
    let waits = is(|a| matches!(a, djinn_plan::Action::Wait { .. }));
    (simulated("simulated ns with streams"), entry.seconds, waits)
}

#[test]
fn the_plan_takes_what_the_streams_pass_said() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models");
    let mut waited = 0;
    for name in ["bert", "squeezenet", "whisper_encoder", "lstm"] {
        let folder = models.join(name);
        let file = ["model.pt2", "model.onnx"].map(|f| folder.join(f)).into_iter().find(|f| f.exists());
        let module = djinn::read(&file.expect("a model of the repository")).expect("a model").module;
        for profile in ["h100-80", "l4", "host"] {
            let target = Target::new(Topology::single(Profile::builtin(profile).expect("built in")));
            let (streams, plan, waits) = both(&module, &target);
            println!("{name} on {profile}: streams {streams:.3e} s, plan {plan:.3e} s, {waits} waits");
            // The pass counts whole nanoseconds.
            assert!((streams - plan).abs() <= 1e-9, "{name} on {profile}: {streams} s and {plan} s");
            waited += waits;
        }
    }
    assert!(waited > 0, "no plan has a wait: nothing was compared");
}
