//! `djinn-opt run`, `explain` and `plan-check`: what is done with plans that were written.

use crate::args::BundleArgs;
use crate::report;
use crate::run::{complain, print_text};
use djinn::Bundle;
use djinn::diag::{Context, Culprit, Result, input};
use djinn::ir::{ArgumentKind, Function, Module, TensorData};
use djinn::plan_data::{self, Plan};
use djinn::runtime::{HostRuntime, RunOptions, RunOutput};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Runs a bundle; gives false if a check found a difference.
pub(crate) fn run(args: &BundleArgs) -> Result<bool> {
    let Bundle { module, plan } = djinn::read_bundle(&args.bundle)?;
    djinn::verify_plan(&plan, Culprit::Input)?;
    conforms(&plan, &module).at(|| args.bundle.display().to_string())?;
    let function = planned_function(&plan, &module, args.function.as_deref())?;
    let inputs = inputs(args, &plan, &module, &function)?;
    let options = RunOptions {
        detect_races: args.detect_races,
        poison: args.check || args.detect_races,
        ..RunOptions::default()
    };
    let mut runtime = HostRuntime::new(Arc::new(plan), Arc::new(module), options)?;
    let (mut times, mut passed, mut last) = (Vec::new(), true, None);
    for turn in 0..args.repeat {
        // States are set once: later runs go on from what the first one left.
        let given = if turn == 0 { inputs.clone() } else { without_states(&runtime, &function, &inputs)? };
        let (output, outputs) = if args.check {
            let (output, outputs, mut check) = djinn::execute_and_check(&mut runtime, &function, &given)?;
            check.random_inputs = args.inputs.is_none();
            passed &= check.passed();
            if turn + 1 == args.repeat || !check.passed() {
                print_text(&report::check_table(&check))?;
            }
            (output, outputs)
        } else {
            djinn::execute(&mut runtime, &function, &given)?
        };
        report_races(&output)?;
        times.push(output.elapsed_ns);
        last = Some((output, outputs));
        if !passed {
            break;
        }
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
        print_text(&summary(runtime.plan(), output.entry, &mut times))?;
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
            let all = djinn::npz::read(path)?;
            djinn::npz::check_types(&all, function).at(|| path.display().to_string())?;
            let known: BTreeMap<_, _> =
                all.into_iter().filter(|(n, _)| function.arguments.iter().any(|(a, _)| **a == **n)).collect();
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
    runtime: &HostRuntime,
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

fn summary(plan: &Plan, entry: usize, times: &mut [u64]) -> String {
    times.sort_unstable();
    let entry = &plan.entries[entry];
    let median = times[times.len() / 2] as f64 / 1e6;
    let runs = times.len();
    let (kernels, streams) = (entry.kernels.len(), entry.streams.len());
    format!(
        "ran '{}': {kernels} kernels on {streams} streams of {} devices, {runs} run{}, median {median:.3} ms\n",
        entry.function,
        plan.devices.iter().filter(|d| !d.host).count(),
        if runs == 1 { "" } else { "s" },
    )
}

/// Prints what a plan does.
pub(crate) fn explain(path: &Path) -> Result<bool> {
    let (plan, module) = read(path)?;
    djinn::verify_plan(&plan, Culprit::Input).at(|| path.display().to_string())?;
    print_text(&djinn::report::explain(&plan, module.as_ref()))?;
    Ok(true)
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
    if path.is_dir() {
        let bundle = djinn::read_bundle(path)?;
        return Ok((bundle.plan, Some(bundle.module)));
    }
    let bytes = std::fs::read(path)
        .map_err(|e| input("file.read", e.to_string()))
        .at(|| path.display().to_string())?;
    crate::sniff::plan(bytes).at(|| path.display().to_string()).map(|plan| (plan, None))
}
