//! The runtime: a plan, its program and its memory.

use crate::code::EntryCode;
use crate::compile::compile;
use crate::compiled::compile_kernels;
use crate::host::{HostMachine, not_for_host};
use crate::jit::KernelReport;
use crate::kept::KeptValues;
use crate::machine::Machine;
use crate::options::{Kernels, RunOptions};
use crate::output::{RunOutput, label};
use crate::persistent::States;
use crate::resolve::{check_plan, wrong};
use djinn_diag::{Context, Result};
use djinn_interp::Env;
use djinn_ir::{Module, TensorData};
use djinn_plan::Plan;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A plan ready to run.
pub struct Runtime {
    pub(crate) plan: Arc<Plan>,
    pub(crate) program: Arc<Module>,
    pub(crate) options: RunOptions,
    pub(crate) machine: Box<dyn Machine>,
    pub(crate) entries: Vec<EntryCode>,
    /// By entry: sizes that depend on weights only.
    pub(crate) sizes: Vec<Env>,
    pub(crate) states: States,
    pub(crate) kept: KeptValues,
    kernels: KernelReport,
}

impl Runtime {
    /// Checks a plan against its program, allocates its arenas on this machine's memory, computes its constants and loads
    /// its states. The host stands for every device.
    ///
    /// That the plan was made from this very program (by its hash) is for the caller to know.
    ///
    /// # Errors
    /// `runtime.plan` for a plan that does not hold together or does not fit the program; `runtime.memory` if it needs
    /// more memory than allowed or there; `runtime.constant`, `runtime.state` and those of
    /// [`djinn_interp::eval_op`] for constants and states that cannot be had.
    pub fn host(plan: Arc<Plan>, program: Arc<Module>, options: RunOptions) -> Result<Runtime> {
        let mut entries = resolved(&plan, &program, &options)?;
        let kernels = match options.kernels {
            Kernels::Evaluator => KernelReport::default(),
            Kernels::Compiled => {
                check_order(&plan)?;
                compile_kernels(&program, &mut entries, options.poison, &not_for_host(&plan))
            }
        };
        let machine = Box::new(HostMachine::new(&plan, &options)?);
        Runtime::start((plan, program), options, entries, machine, kernels)
    }

    /// A runtime on a machine with memory; the constants and states are put there.
    pub(crate) fn start(
        (plan, program): (Arc<Plan>, Arc<Module>),
        options: RunOptions,
        entries: Vec<EntryCode>,
        machine: Box<dyn Machine>,
        kernels: KernelReport,
    ) -> Result<Runtime> {
        let mut states = States::new(&plan, &program)?;
        states.reset(&program, machine.memory())?;
        let sizes = entries.iter().map(|_| Env::new()).collect();
        let kept = KeptValues::default();
        let mut runtime = Runtime { plan, program, options, machine, entries, sizes, states, kept, kernels };
        runtime.load_constants()?;
        Ok(runtime)
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// How the kernels are run.
    pub fn kernels(&self) -> &KernelReport {
        &self.kernels
    }

    /// The program.
    pub fn program(&self) -> &Arc<Module> {
        &self.program
    }

    /// Names of the states, sorted.
    pub fn states(&self) -> Vec<&str> {
        self.states.names()
    }

    /// The value of a state.
    ///
    /// # Errors
    /// `runtime.state` if there is no such state or it has no value.
    pub fn state(&self, name: &str) -> Result<TensorData> {
        self.states.get(name, self.machine.memory())
    }

    /// Gives a state a value.
    ///
    /// # Errors
    /// `runtime.state` if there is no such state; `runtime.plan` or `interp.input` if the value does not fit.
    pub fn set_state(&mut self, name: &str, value: &TensorData) -> Result<()> {
        self.states.set(name, value, self.machine.memory())
    }

    /// Gives every state its first value: that of its weight, or zeros if it has none and its sizes are fixed.
    ///
    /// # Errors
    /// `runtime.state` if the weight has no values.
    pub fn reset_states(&mut self) -> Result<()> {
        self.states.reset(&self.program, self.machine.memory())
    }

    /// The value that stands where an input of a function stays between runs: what [`Runtime::run`] takes if it is not
    /// given. None if nothing stands there, or the input does not stay.
    ///
    /// # Errors
    /// `runtime.plan` for a plan that does not hold together.
    pub fn kept(&self, function: &str, input: &str) -> Result<Option<TensorData>> {
        let entries = self.plan.entries.iter().zip(&self.entries).filter(|(e, _)| e.function == function);
        for input in entries.flat_map(|(_, code)| &code.inputs).filter(|i| i.name == input) {
            if let Some(slot) = &input.resident
                && let Some(value) = self.kept.load(slot, self.machine.memory())?
            {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Forgets what runs have left where inputs stay: the next run must be given them again.
    pub fn forget_kept(&mut self) {
        self.kept.clear();
    }

    /// A command of an entry for messages, such as `command 3 (launch 'matmul')`.
    pub fn label(&self, entry: usize, command: usize) -> String {
        label(&self.plan, entry, command)
    }

    /// Runs the first entry of a function whose ranges hold the sizes of the inputs. States may be given like inputs.
    ///
    /// An input that stays on its device may be left out: then it is what the run before left in its place, with the sizes
    /// that it has by now; unless its new value stays elsewhere. If it is given, it takes that place.
    ///
    /// # Errors
    /// `runtime.input` for missing, unknown or ill-typed inputs; `runtime.sizes` if no entry holds their sizes; those of
    /// [`djinn_interp::eval_op`] with the command, kernel and operation as place. After an error during the run the states
    /// that it updates have no value, and neither has what stays in the places of its outputs.
    pub fn run(&mut self, function: &str, inputs: &BTreeMap<String, TensorData>) -> Result<RunOutput> {
        let given = self.take_states(function, inputs)?;
        let (number, env) = self.choose(function, &given)?;
        self.run_entry(number, &given, env).at(|| format!("entry {number} '{function}'"))
    }
}

/// The entries of a plan, resolved against its program.
pub(crate) fn resolved(plan: &Plan, program: &Module, options: &RunOptions) -> Result<Vec<EntryCode>> {
    check_plan(plan, options.memory_limit)?;
    (0..plan.entries.len()).map(|i| compile(plan, program, i)).collect()
}

/// Kernels that work on the bytes of the arenas rely on the order of the plan's commands.
pub(crate) fn check_order(plan: &Plan) -> Result<()> {
    match djinn_plan::check(plan) {
        Ok(_) => Ok(()),
        Err(violations) => {
            let first = violations.first().map(ToString::to_string).unwrap_or_default();
            Err(wrong(format!("kernels cannot work in place: {first}")))
        }
    }
}
