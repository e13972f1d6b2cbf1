//! Profiles of runs end to end: real models are measured, a device profile is fitted, plans with it predict better.

use djinn::cost::Features;
use djinn::cost::profile::{Judgement, RunProfile, is_held_out, kernel_key};
use djinn::device::{OpClass, Profile, Target, Topology};
use djinn::ir::Module;
use djinn::plan_data::{Action, Plan};
use djinn::profile::{Ran, Recorder};
use djinn::runtime::Kernels;
use djinn::runtime::{RunOptions, RunOutput, Runtime, Span};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

fn module(name: &str) -> Module {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models").join(name).join("model.pt2");
    djinn::read(&path).unwrap_or_else(|e| panic!("{e}")).module
}

fn planned(name: &str, device: &Profile) -> (Plan, Module) {
    let mut module = module(name);
    let request = djinn::PlanRequest::new(Target::new(Topology::single(device)));
    let planned = djinn::plan(&mut module, &request, None).unwrap_or_else(|e| panic!("{name}: {e}"));
    (planned.plan, module)
}

struct Noise(u64);

impl Noise {
    /// About 1, off by at most 5 %; one of twenty three times as much.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let unit = (self.0 >> 33) as f64 / (1u64 << 31) as f64;
        let disturbed = if self.0 >> 60 == 7 { 3.0 } else { 1.0 };
        disturbed * (0.95 + 0.1 * unit)
    }
}

/// What a device with this hidden profile would measure.
fn simulated(plan: &Plan, module: &Module, hidden: &Profile, runs: usize, noise: &mut Noise) -> RunProfile {
    let ran = Ran { device: "host".into(), mode: "simulated".into(), machine: "none".into() };
    // A recorder with one run of no time says which kernels there are.
    let kernels: Vec<Vec<Features>> = features(plan, module);
    let mut recorder = Recorder::new(plan, module, ran, None);
    for _ in 0..runs {
        for (number, entry) in plan.entries.iter().enumerate() {
            let (mut trace, mut now) = (Vec::new(), 0u64);
            for (i, command) in entry.commands.iter().enumerate() {
                let seconds = match command.action {
                    Action::Launch { kernel } => {
                        kernels[number][kernel.index()].seconds(hidden) * noise.next()
                    }
                    Action::Copy { seconds, .. } => seconds,
                    Action::Record { .. } | Action::Wait { .. } => 0.0,
                };
                let end = now + (seconds * 1e9) as u64;
                trace.push(Span { command: i as u32, stream: command.stream, start_ns: now, end_ns: end });
                now = end;
            }
            let (outputs, updates, races) = (Vec::new(), Vec::new(), Vec::new());
            let output = RunOutput {
                entry: number,
                outputs,
                updates,
                trace,
                races,
                elapsed_ns: now,
                work: Default::default(),
                graph: false,
            };
            recorder.record(&BTreeMap::new(), &output).unwrap_or_else(|e| panic!("{e}"));
        }
    }
    recorder.finish().0
}

/// The kernels of every entry, as the cost model sees them at the largest sizes.
fn features(plan: &Plan, module: &Module) -> Vec<Vec<Features>> {
    let of_entry = |entry: &djinn::plan_data::Entry| {
        let function = djinn::entry_function(module, Some(&entry.function)).expect("planned");
        let ops: Vec<_> = function.graph.ops().map(|(id, _)| id).collect();
        let (uses, sizes) = (
            function.graph.use_counts(),
            entry.symbols.iter().map(|s| (s.name.clone(), s.max)).collect::<BTreeMap<_, _>>(),
        );
        let model = djinn::cost::CostModel::generic(&module.symbols).with_sizes(&sizes);
        let kernel = |k: &djinn::plan_data::Kernel| {
            let ids: Vec<_> = k.ops.iter().map(|p| ops[*p as usize]).collect();
            model.features(&function.graph, &ids, &uses)
        };
        entry.kernels.iter().map(kernel).collect()
    };
    plan.entries.iter().map(of_entry).collect()
}

/// A host unlike the built-in one.
fn hidden() -> Profile {
    let mut hidden = Profile::named("host").expect("built in").clone();
    hidden.launch_seconds = 3e-6;
    let class_factor = |class: OpClass| 1.6 + 0.5 * class as usize as f64;
    let slower = |rates: &mut djinn::device::Rates, factor: f64| {
        rates.overhead_seconds = rates.overhead_seconds * factor + 4e-6;
        rates.per_element *= factor;
        rates.per_flop *= factor;
        rates.per_byte = rates.per_byte * factor + 1e-10;
    };
    for class in OpClass::ALL {
        slower(&mut hidden.classes[class as usize], class_factor(class));
    }
    for (name, rates) in &mut hidden.ops {
        let class = djinn::ir::OpKind::from_name(name).and_then(djinn::cost::op_class);
        slower(rates, class.map_or(1.0, class_factor));
    }
    hidden
}

fn median_error(plan: &Plan, module: &Module, hidden: &Profile) -> f64 {
    let mut errors: Vec<f64> = Vec::new();
    for (entry, features) in plan.entries.iter().zip(features(plan, module)) {
        let kernels = entry.kernels.iter().zip(features).filter(|(_, f)| !f.regions);
        errors.extend(kernels.map(|(k, f)| (k.seconds / f.seconds(hidden) - 1.0).abs()));
    }
    errors.sort_by(f64::total_cmp);
    errors[errors.len() / 2]
}

/// The features of every kernel give what the plan predicts: nothing that the cost model looks at is lost.
#[test]
fn features_tell_all_that_predictions_depend_on() {
    for name in ["bert", "squeezenet", "lstm", "llama_decode", "cond_while"] {
        for device in ["host", "h200"] {
            let device = Profile::named(device).expect("built in");
            let (plan, module) = planned(name, device);
            for (entry, features) in plan.entries.iter().zip(features(&plan, &module)) {
                for (kernel, features) in entry.kernels.iter().zip(features) {
                    let again = features.seconds(device);
                    let same = (again - kernel.seconds).abs() <= 1e-9 * kernel.seconds;
                    assert!(same || features.regions, "{name} {}: {again} {}", kernel.name, kernel.seconds);
                }
            }
        }
    }
}

#[test]
fn a_plan_with_the_fitted_profile_predicts_a_model_that_was_not_measured() {
    let (base, hidden) = (Profile::named("host").expect("built in"), hidden());
    let (mut measured, mut noise) = (RunProfile::default(), Noise(11));
    for name in ["bert", "squeezenet", "lstm", "whisper_encoder"] {
        let (plan, module) = planned(name, base);
        measured.merge(&simulated(&plan, &module, &hidden, 7, &mut noise));
    }
    let fit = djinn::calibrate_from(&measured, base, None, "a test").expect("enough kernels");
    assert!(fit.after.all.median <= 0.10 && fit.before.all.median > 0.3, "{:?} {:?}", fit.before, fit.after);
    let text = djinn::fitted_toml(&fit);
    let fitted = Profile::from_toml(&text, "fitted").expect("a profile");
    assert_eq!(fitted, fit.profile);
    for name in ["llama_decode", "llama_staticcache"] {
        let (before, after) = (planned(name, base), planned(name, &fitted));
        let before = median_error(&before.0, &before.1, &hidden);
        let after = median_error(&after.0, &after.1, &hidden);
        println!("{name}: median error over kernels {before:.3} before, {after:.3} after");
        assert!(before > 0.3 && after <= 0.10, "{name}: {before} {after}");
    }
}

/// Measures real runs on this machine; bounds are generous, the machine may be busy.
#[test]
fn real_runs_are_measured_and_fitted_to() {
    let base = Profile::named("host").expect("built in");
    let mut measured = RunProfile::default();
    for name in ["squeezenet", "llama_decode", "lstm"] {
        let (plan, module) = planned(name, base);
        let (plan, module) = (Arc::new(plan), Arc::new(module));
        let function = plan.entries[0].function.clone();
        let ranges: BTreeMap<_, _> =
            plan.entries[0].symbols.iter().map(|s| (s.name.clone(), (s.min, s.max.min(32)))).collect();
        let inputs = djinn::random::inputs_within(&module, &function, 1, &|n| ranges.get(n).copied());
        let mut runtime =
            Runtime::host(Arc::clone(&plan), Arc::clone(&module), RunOptions::default()).expect("runs");
        let mut recorder = Recorder::new(&plan, &module, djinn::profile::host(Kernels::Evaluator), None);
        for turn in 0..4 {
            let (output, _) =
                djinn::execute(&mut runtime, &function, &inputs).unwrap_or_else(|e| panic!("{e}"));
            if turn > 0 {
                recorder.record(&inputs, &output).unwrap_or_else(|e| panic!("{e}"));
            }
        }
        let (profile, notes) = recorder.finish();
        assert_eq!(notes, Vec::<String>::new(), "{name}: the built-in profile is known");
        let (subject, section) = profile.sections.first_key_value().expect("one");
        assert_eq!(
            (profile.sections.len(), section.runs(), subject.ran.mode.starts_with("evaluator")),
            (1, 3, true)
        );
        let launches: f64 = section.kernels.values().map(|k| section.launches(k)).sum();
        assert_eq!(launches, plan.entries[0].kernels.len() as f64);
        assert!(
            section.kernels.iter().all(|(key, k)| k.measured.count() >= 3 && *key == kernel_key(&k.features))
        );
        let whole: f64 = section.kernels.values().map(|k| section.launches(k) * k.measured.median()).sum();
        assert!(whole > 0.0 && whole < 20.0 * section.step.median(), "{name}: {whole}");
        assert!(section.predicted > 0.0 && section.accuracy().is_some());
        let shown = djinn::profile::shown(&profile, &plan, &module).expect("its own");
        assert!(shown.entries[0].kernels.iter().all(Option::is_some));
        let text = djinn::report::explain_measured(&plan, Some(&module), &shown);
        assert!(text.contains("Measured: entry") && text.contains("Accuracy of the step time"), "{text}");
        assert!(text.lines().all(|l| l.chars().count() <= 100), "{text}");
        let reread = RunProfile::from_json(&profile.to_json().expect("written"), "p").expect("read");
        assert!(reread == profile);
        measured.merge(&profile);
    }
    let other = planned("bert", base);
    assert_eq!(
        djinn::profile::shown(&measured, &other.0, &other.1).expect_err("not measured").code,
        "profile.program"
    );
    let fit = djinn::calibrate_from(&measured, base, None, "a test").expect("enough kernels");
    let held_out =
        measured.sections.values().flat_map(|s| s.kernels.keys()).filter(|k| is_held_out(k)).count();
    assert!(held_out > 3 && fit.after.all.count <= held_out, "{held_out}");
    println!("held out: median error {:.2} before, {:.2} after", fit.before.all.median, fit.after.all.median);
    // What was fitted to is predicted no worse than before; how well depends on the machine.
    let (before, after) =
        (Judgement::of_profile(&measured, base), Judgement::of_profile(&measured, &fit.profile));
    assert!(after.all.median <= before.all.median.max(0.25) * 1.5, "{before:?} {after:?}");
}
