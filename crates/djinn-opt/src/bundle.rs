//! `djinn-opt run`, `explain` and `plan-check`: what is done with plans that were written.

use crate::args::{BundleArgs, KernelMode};
use crate::report;
use crate::run::{complain, print_text};
use djinn::Bundle;
use djinn::diag::{Context, Culprit, Result, input};
use djinn::ir::{ArgumentKind, Function, Module, TensorData};
use djinn::plan_data::{self, Plan};
use djinn::profile::Recorder;
use djinn::runtime::{Kernels, RunOptions, RunOutput, Runtime};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Warnings about kernels that are printed.
const MAX_WARNINGS: usize = 3;

/// Runs a bundle; gives false if a check found a difference.
pub(crate) fn run(args: &BundleArgs) -> Result<bool> {
    let Bundle { module, plan, parts } = djinn::read_bundle_with(&args.bundle, &args.weights)?;
    let engines = djinn::EngineIndex::of_bundle(&parts, &plan)?.map_or(0, |index| index.uses.len());
    djinn::verify_plan(&plan, Culprit::Input)?;
    conforms(&plan, &module).at(|| args.bundle.display().to_string())?;
    let function = planned_function(&plan, &module, args.function.as_deref())?;
    let inputs = inputs(args, &plan, &module, &function)?;
    let options = RunOptions {
        detect_races: args.detect_races,
        poison: args.check || args.detect_races,
        kernels: match args.kernels {
            KernelMode::Compiled => Kernels::Compiled,
            KernelMode::Evaluator => Kernels::Evaluator,
        },
        ..RunOptions::default()
    };
    let (plan, module) = (Arc::new(plan), Arc::new(module));
    let measuring = args.profile.is_some();
    let device =
        args.device_profile.as_deref().map(|p| crate::planning::profile(&p.to_string_lossy())).transpose()?;
    // A profile that cannot be added to is told of before the work.
    let earlier = args.profile.as_deref().map(crate::profile::read_if_there).transpose()?;
    let mut runtime = crate::gpu::runtime(args, (&plan, &module), &parts, options)?;
    let ran = match runtime.kernels().devices.as_slice() {
        [] => djinn::profile::host(options.kernels),
        gpus => djinn::profile::gpus(gpus),
    };
    let mut recorder = Recorder::new(&plan, &module, ran, device.as_ref());
    for problem in runtime.kernels().problems.iter().take(MAX_WARNINGS) {
        complain(&format!("warning: {problem}\n"));
    }
    let (mut times, mut passed, mut last) = (Vec::new(), true, None);
    let mut lazy = match args.engine_cache.as_deref().filter(|_| engines == 0) {
        Some(cache) => crate::engines::lazy(cache, &module, &plan)?,
        None => None,
    };
    let warm_up = args.warm_up.unwrap_or(if measuring { djinn::profile::WARM_UP_RUNS } else { 0 });
    let repeat = args.repeat.unwrap_or(if measuring { djinn::profile::RUNS } else { 1 });
    let turns = warm_up.saturating_add(repeat);
    for turn in 0..turns {
        // States are set once: later runs go on from what the first one left.
        let given = if turn == 0 { inputs.clone() } else { without_states(&runtime, &function, &inputs)? };
        let (output, outputs) = if args.check {
            let (output, outputs, mut check) = djinn::execute_and_check(&mut runtime, &function, &given)?;
            check.random_inputs = args.inputs.is_none();
            passed &= check.passed();
            if turn + 1 == turns || !check.passed() {
                print_text(&report::check_table(&check))?;
            }
            (output, outputs)
        } else {
            djinn::execute(&mut runtime, &function, &given)?
        };
        report_races(&output)?;
        if let Some(lazy) = &mut lazy {
            crate::engines::ran(lazy, &plan, output.entry);
        }
        if turn >= warm_up {
            times.push(output.elapsed_ns);
            if measuring {
                recorder.record(&inputs, &output)?;
            }
        }
        last = Some((output, outputs));
        if !passed {
            break;
        }
    }
    if let Some(lazy) = lazy {
        crate::engines::finish(lazy);
    }
    if let Some((output, outputs)) = last {
        // Results that were found wrong are not written.
        if let Some(path) = args.outputs.as_deref().filter(|_| passed) {
            djinn::npz::write(path, &named(outputs))?;
        }
        if let Some(path) = &args.trace {
            let plan = runtime.plan();
            let text = plan_data::spans_json(plan, output.entry, &output.spans(plan), &[]);
            djinn::write_atomically(path, &mut |out| out.write_all(text.as_bytes()))?;
        }
        if !times.is_empty() {
            print_text(&summary(&runtime, (output.entry, output.graph), &mut times, engines))?;
        }
    }
    if let (Some(path), Some(earlier)) = (&args.profile, earlier) {
        crate::profile::write(path, earlier, recorder, device.as_ref())?;
    }
    Ok(passed)
}

/// The entry function of this name, or the first one that the plan has.
fn planned_function(plan: &Plan, module: &Module, name: Option<&str>) -> Result<String> {
    let planned: Vec<&str> = plan.entries.iter().map(|e| e.function.as_str()).collect();
    let name = name.or(planned.first().copied());
    let function = djinn::entry_function(module, name)?.name.to_string();
    if planned.contains(&function.as_str()) {
        return Ok(function);
    }
    Err(input("run.function", format!("the plan does not have the function '{function}'"))
        .help(format!("it has {}", planned.join(", "))))
}

/// [`djinn::conforms`] for a plan that was read: where it does not, the file is at fault.
fn conforms(plan: &Plan, module: &Module) -> Result<()> {
    djinn::conforms(plan, module).map_err(|e| {
        input("bundle.plan", format!("the plan is not one of this program: {}", e.message))
            .help("write the bundle again")
    })
}

/// The given inputs that the program has, or random ones.
fn inputs(
    args: &BundleArgs,
    plan: &Plan,
    module: &Module,
    function: &str,
) -> Result<BTreeMap<String, TensorData>> {
    let function = djinn::entry_function(module, Some(function))?;
    match &args.inputs {
        Some(path) => {
            let bound = djinn::npz::bind(djinn::npz::read_in_order(path)?, function);
            let known = bound.inputs;
            djinn::npz::check_types(&known, function).at(|| path.display().to_string())?;
            if let [(array, argument), ..] = bound.by_position.as_slice() {
                complain(&format!(
                    "note: {} arrays have the name of no argument and are given in their order: '{array}' is '{argument}'\n",
                    bound.by_position.len()
                ));
            }
            if known.is_empty() && !function.arguments.is_empty() {
                let names: Vec<&str> = function.arguments.iter().map(|(n, _)| &**n).collect();
                return Err(input("run.inputs", "no array has the name of an argument")
                    .at(path.display().to_string())
                    .help(format!("the arguments of '{}' are {}", function.name, names.join(", "))));
            }
            Ok(known)
        }
        None => {
            let entry = plan.entries.iter().find(|e| *e.function == *function.name);
            let ranges = entry.map(|e| e.symbols.as_slice()).unwrap_or_default();
            let range = |name: &str| ranges.iter().find(|r| r.name == name).map(|r| (r.min, r.max));
            Ok(djinn::random::inputs_within(module, &function.name, args.seed, &range))
        }
    }
}

fn without_states(
    runtime: &Runtime,
    function: &str,
    inputs: &BTreeMap<String, TensorData>,
) -> Result<BTreeMap<String, TensorData>> {
    let function: &Function = djinn::entry_function(runtime.program(), Some(function))?;
    let is_state = |name: &str| {
        function.arguments.iter().any(|(n, k)| **n == *name && matches!(k, ArgumentKind::State { .. }))
    };
    Ok(inputs.iter().filter(|(n, _)| !is_state(n)).map(|(n, v)| (n.clone(), v.clone())).collect())
}

fn report_races(output: &RunOutput) -> Result<()> {
    match output.races.as_slice() {
        [] => Ok(()),
        [first, rest @ ..] => Err(djinn::diag::internal("run.race", first.to_string())
            .help(format!("{} further races; please report the bundle", rest.len()))),
    }
}

/// Outputs under their names, and updated states under theirs.
fn named(outputs: djinn::interp::Outputs) -> Vec<(String, TensorData)> {
    let mut all = outputs.outputs;
    for (name, value) in outputs.updates {
        if !all.iter().any(|(n, _)| *n == name) {
            all.push((name, value));
        }
    }
    all
}

fn summary(runtime: &Runtime, (entry, graph): (usize, bool), times: &mut [u64], engines: usize) -> String {
    times.sort_unstable();
    let plan = runtime.plan();
    let entry = &plan.entries[entry];
    let median = times[times.len() / 2] as f64 / 1e6;
    let runs = times.len();
    let (kernels, streams) = (entry.kernels.len(), entry.streams.len());
    let how = runtime.kernels();
    let mut text = format!(
        "ran '{}': {kernels} kernels on {streams} streams of {} devices, {runs} run{}, median {median:.3} ms\n",
        entry.function,
        plan.devices.iter().filter(|d| !d.host).count(),
        if runs == 1 { "" } else { "s" },
    );
    if how.fused + how.library > 0 {
        text.push_str(&format!(
            "kernels: {} compiled ({} functions in {:.2} s), {} library calls, {} evaluated\n",
            how.fused, how.functions, how.compile_seconds, how.library, how.evaluated
        ));
    }
    if !how.devices.is_empty() {
        text.push_str(&format!(
            "on {}{}\n",
            how.devices.join(", "),
            if graph { ", as a CUDA graph" } else { "" }
        ));
    }
    for (what, times) in &how.refused {
        text.push_str(&format!("no kernel for {what} ({times} ×): the evaluator does it on the host\n"));
    }
    if engines > 0 && how.devices.is_empty() {
        text.push_str(&format!("{engines} engine regions ran by their kernels: this is the host\n"));
    }
    text
}

/// Prints what a plan does.
pub(crate) fn explain(path: &Path, profile: Option<&Path>) -> Result<bool> {
    let (plan, module) = read(path)?;
    djinn::verify_plan(&plan, Culprit::Input).at(|| path.display().to_string())?;
    let built = engines_of(path, &plan)?;
    let mut text = match (profile, &module) {
        (None, _) => djinn::report::explain(&plan, module.as_ref()),
        (Some(_), None) => {
            return Err(input("cli.profile", "measured times are shown beside those of a bundle")
                .help("give the folder of the bundle instead of the plan"));
        }
        (Some(file), Some(module)) => {
            let measured = djinn::profile::shown(&crate::profile::read(file)?, &plan, module);
            let measured = measured.at(|| file.display().to_string())?;
            djinn::report::explain_measured(&plan, Some(module), &measured)
        }
    };
    if let Some(built) = built {
        text.push_str(&djinn::report::explain_built(&plan, module.as_ref(), &built));
    }
    print_text(&text)?;
    Ok(true)
}

/// The engines of a bundle, if it is one and has any.
fn engines_of(path: &Path, plan: &Plan) -> Result<Option<djinn::report::Built>> {
    if !djinn::is_bundle(path) {
        return Ok(None);
    }
    let parts = djinn::read_bundle(path)?.parts;
    djinn::built_engines(&parts, plan).at(|| path.display().to_string())
}

/// Proves that a plan may run.
pub(crate) fn plan_check(path: &Path) -> Result<bool> {
    let (plan, module) = read(path)?;
    match plan_data::check(&plan) {
        Ok(proof) => {
            let mut text = format!(
                "{}: accepted\n{} entries, {} commands; {} reads find their value, {} writes harm none, {} conflicting \
                 pairs are ordered\n",
                path.display(),
                proof.entries,
                proof.commands,
                proof.reads,
                proof.writes,
                proof.ordered
            );
            if let Some(module) = &module {
                conforms(&plan, module).at(|| path.display().to_string())?;
                text.push_str("the plan runs every operation of the program once, on its operands\n");
            }
            print_text(&text)?;
            Ok(true)
        }
        Err(violations) => {
            for violation in violations.iter().take(20) {
                complain(&format!("{violation}\n"));
            }
            let message = format!("the plan breaks {} constraints", violations.len());
            Err(input("plan.check", message).at(path.display().to_string()))
        }
    }
}

/// A plan in any of its forms, and the program if it is a bundle.
fn read(path: &Path) -> Result<(Plan, Option<Module>)> {
    if path.is_dir() || djinn::is_bundle(path) {
        let bundle = djinn::read_bundle(path)?;
        return Ok((bundle.plan, Some(bundle.module)));
    }
    let bytes = std::fs::read(path)
        .map_err(|e| input("file.read", e.to_string()))
        .at(|| path.display().to_string())?;
    crate::sniff::plan(bytes).at(|| path.display().to_string()).map(|plan| (plan, None))
}
