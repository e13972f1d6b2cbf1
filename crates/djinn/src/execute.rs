//! Running plans on the host runtime, and comparing what they compute with the reference evaluator.

use crate::check::{CheckReport, compare_outputs};
use djinn_diag::{Context, Result, input};
use djinn_interp::Outputs;
use djinn_ir::{ArgumentKind, Function, Module, TensorData};
use djinn_runtime::{RunOutput, Runtime};
use std::collections::BTreeMap;

/// Runs an entry function. Values for states set them; states that no value is given for stay as the last run left
/// them, and so do inputs that stay on their device. Gives what ran, and every result and state update as the evaluator would name them.
///
/// # Errors
/// A function that the program does not have; inputs that are missing or do not fit; whatever stops a command.
pub fn execute(
    runtime: &mut Runtime,
    function: &str,
    inputs: &BTreeMap<String, TensorData>,
) -> Result<(RunOutput, Outputs)> {
    let program = runtime.program().clone();
    let function = entry_function(&program, Some(function))?;
    let mut given = BTreeMap::new();
    for (name, value) in inputs {
        let kind = function.arguments.iter().find(|(n, _)| **n == **name).map(|(_, k)| k);
        if matches!(kind, Some(ArgumentKind::State { .. })) {
            if runtime.states().contains(&name.as_str()) {
                runtime.set_state(name, value)?;
            }
        } else {
            given.insert(name.clone(), value.clone());
        }
    }
    let output = runtime.run(&function.name, &given)?;
    let mut updates = output.updates.clone();
    let plan = runtime.plan().clone();
    for update in &plan.entries[output.entry].updates {
        let name = &function.arguments[update.argument as usize].0;
        updates.push((name.to_string(), runtime.state(name)?));
    }
    let outputs = Outputs { outputs: output.outputs.clone(), updates };
    Ok((output, outputs))
}

/// [`execute`], and the comparison with the reference evaluator on the same inputs and states.
///
/// # Errors
/// Those of [`execute`] and of the evaluator.
pub fn execute_and_check(
    runtime: &mut Runtime,
    function: &str,
    inputs: &BTreeMap<String, TensorData>,
) -> Result<(RunOutput, Outputs, CheckReport)> {
    let program = runtime.program().clone();
    let mut known = inputs.clone();
    for (name, kind) in &entry_function(&program, Some(function))?.arguments {
        let is_state = matches!(kind, ArgumentKind::State { .. }) && runtime.states().contains(&&**name);
        if known.contains_key(&**name) {
            continue;
        }
        if is_state {
            known.insert(name.to_string(), runtime.state(name)?);
        } else if let Some(value) = runtime.kept(function, name)? {
            known.insert(name.to_string(), value);
        }
    }
    let (output, outputs) = execute(runtime, function, inputs)?;
    let mut expected = djinn_interp::run(&program, function, &known).at(|| "reference evaluator")?;
    let mut updates = outputs.updates.clone();
    expected.updates.sort_by(|a, b| a.0.cmp(&b.0));
    updates.sort_by(|a, b| a.0.cmp(&b.0));
    let mut report = CheckReport::default();
    report.results.extend(compare_outputs(function, &expected.outputs, &outputs.outputs)?);
    report.results.extend(compare_outputs(function, &expected.updates, &updates)?);
    Ok((output, outputs, report))
}

/// The entry function of this name, or the first one.
///
/// # Errors
/// `run.function` with the names that there are.
pub fn entry_function<'a>(program: &'a Module, name: Option<&str>) -> Result<&'a Function> {
    let found = program.entries().find(|f| name.is_none_or(|n| *f.name == *n));
    found.ok_or_else(|| {
        let names: Vec<&str> = program.entries().map(|f| &*f.name).collect();
        let message = format!("the program has no entry function '{}'", name.unwrap_or(""));
        input("run.function", message).help(format!("its entry functions are {}", names.join(", ")))
    })
}
