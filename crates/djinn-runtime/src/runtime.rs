//! The runtime: a plan, its program and its memory.

use crate::code::{EntryCode, Source};
use crate::compile::compile;
use crate::compiled::compile_kernels;
use crate::constants::compute;
use crate::events::lock;
use crate::execute::{Finished, Run, Setting};
use crate::hazard::{Access, Record, find};
use crate::jit::KernelReport;
use crate::kept::KeptValues;
use crate::links::Links;
use crate::memory::{Memory, POISON};
use crate::options::{Kernels, RunOptions};
use crate::output::{RunOutput, label};
use crate::persistent::States;
use crate::resolve::{FunctionTable, Slot, buffer_slot, check_plan, type_of, wrong};
use crate::symbols::{Shaped, bind, check_promises, left_range, show_ranges};
use djinn_diag::{Context, Diagnostic, Result, input};
use djinn_interp::Env;
use djinn_ir::{Module, TensorData, ValueId};
use djinn_plan::{Content, Plan};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A plan ready to run on this machine.
pub struct HostRuntime {
    plan: Arc<Plan>,
    program: Arc<Module>,
    options: RunOptions,
    memory: Memory,
    links: Links,
    entries: Vec<EntryCode>,
    /// By entry: sizes that depend on weights only.
    sizes: Vec<Env>,
    states: States,
    kept: KeptValues,
    kernels: KernelReport,
}

impl HostRuntime {
    /// Checks a plan against its program, allocates its arenas, computes its constants and loads its states.
    ///
    /// That the plan was made from this very program (by its hash) is for the caller to know.
    ///
    /// # Errors
    /// `runtime.plan` for a plan that does not hold together or does not fit the program; `runtime.memory` if it needs
    /// more memory than allowed or there; `runtime.constant`, `runtime.state` and those of
    /// [`djinn_interp::eval_op`] for constants and states that cannot be had.
    pub fn new(plan: Arc<Plan>, program: Arc<Module>, options: RunOptions) -> Result<HostRuntime> {
        check_plan(&plan, options.memory_limit)?;
        let mut entries =
            (0..plan.entries.len()).map(|i| compile(&plan, &program, i)).collect::<Result<Vec<_>>>()?;
        let kernels = match options.kernels {
            Kernels::Evaluator => KernelReport::default(),
            Kernels::Compiled => {
                check_order(&plan)?;
                compile_kernels(&program, &mut entries, options.poison)
            }
        };
        let mut states = States::new(&plan, &program)?;
        let memory = Memory::new(&plan, options.share_constants, options.poison)?;
        states.reset(&program, &memory)?;
        let links = Links::new(&plan, options.links);
        let sizes = entries.iter().map(|_| Env::new()).collect();
        let kept = KeptValues::default();
        let mut runtime =
            HostRuntime { plan, program, options, memory, links, entries, sizes, states, kept, kernels };
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
        self.states.get(name, &self.memory)
    }

    /// Gives a state a value.
    ///
    /// # Errors
    /// `runtime.state` if there is no such state; `runtime.plan` or `interp.input` if the value does not fit.
    pub fn set_state(&mut self, name: &str, value: &TensorData) -> Result<()> {
        self.states.set(name, value, &self.memory)
    }

    /// Gives every state its first value: that of its weight, or zeros if it has none and its sizes are fixed.
    ///
    /// # Errors
    /// `runtime.state` if the weight has no values.
    pub fn reset_states(&mut self) -> Result<()> {
        self.states.reset(&self.program, &self.memory)
    }

    /// The value that stands where an input of a function stays between runs: what [`HostRuntime::run`] takes if it is not
    /// given. None if nothing stands there, or the input does not stay.
    ///
    /// # Errors
    /// `runtime.plan` for a plan that does not hold together.
    pub fn kept(&self, function: &str, input: &str) -> Result<Option<TensorData>> {
        let entries = self.plan.entries.iter().zip(&self.entries).filter(|(e, _)| e.function == function);
        for input in entries.flat_map(|(_, code)| &code.inputs).filter(|i| i.name == input) {
            if let Some(slot) = &input.resident
                && let Some(value) = self.kept.load(slot, &self.memory)?
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

    /// Computes the constants of each function and puts them into their buffers.
    fn load_constants(&mut self) -> Result<()> {
        let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
        let plan = Arc::clone(&self.plan);
        for (number, buffer) in plan.buffers.iter().enumerate() {
            let Content::Constant { function, value } = &buffer.content else { continue };
            let slot = buffer_slot(&plan, number)?;
            let wanted = Wanted::of(&mut wanted, &self.program, function)?;
            let id = wanted.table.value(&self.program, *value)?;
            wanted.slots.entry(id).or_default().push(slot);
        }
        for (number, (entry, code)) in plan.entries.iter().zip(&self.entries).enumerate() {
            for (i, output) in code.outputs.iter().enumerate() {
                if let Source::Constant(_) = output.source {
                    let wanted = Wanted::of(&mut wanted, &self.program, &entry.function)?;
                    wanted.outputs.entry(output.value).or_default().push((number, i));
                }
            }
        }
        for (function, wanted) in &wanted {
            let sizes = self.load_function(wanted).at(|| format!("constants of '{function}'"))?;
            for (number, entry) in plan.entries.iter().enumerate() {
                if entry.function == *function {
                    self.sizes[number] = sizes.clone();
                }
            }
        }
        Ok(())
    }

    fn load_function(&mut self, wanted: &Wanted) -> Result<Env> {
        let values: BTreeSet<ValueId> = wanted.slots.keys().chain(wanted.outputs.keys()).copied().collect();
        let (memory, entries) = (&mut self.memory, &mut self.entries);
        compute(&self.program, &wanted.table, &values, &mut |v, value| {
            for slot in wanted.slots.get(&v).into_iter().flatten() {
                memory.set_constant(slot, value)?;
            }
            for (entry, output) in wanted.outputs.get(&v).into_iter().flatten() {
                entries[*entry].outputs[*output].source = Source::Constant(Some(value.clone()));
            }
            Ok(())
        })
    }

    /// Sets the states that are given; gives the inputs.
    fn take_states(
        &mut self,
        function: &str,
        inputs: &BTreeMap<String, TensorData>,
    ) -> Result<BTreeMap<String, TensorData>> {
        let entry = self.plan.entries.iter().position(|e| e.function == function);
        let Some(code) = entry.and_then(|i| self.entries.get(i)) else {
            let known: BTreeSet<&str> = self.plan.entries.iter().map(|e| e.function.as_str()).collect();
            let known: Vec<&str> = known.into_iter().collect();
            return Err(input("runtime.input", format!("the plan has no function '{function}'"))
                .help(format!("its functions are '{}'", known.join("', '"))));
        };
        let mut given = BTreeMap::new();
        for (name, value) in inputs {
            if code.inputs.iter().any(|i| i.name == *name) {
                given.insert(name.clone(), value.clone());
            } else if code.states.iter().chain(&code.updates).any(|s| s.name == *name) {
                self.states.set(name, value, &self.memory)?;
            } else {
                let known: Vec<&str> = code.inputs.iter().map(|i| i.name.as_str()).collect();
                return Err(input("runtime.input", format!("there is no input '{name}'"))
                    .help(format!("the inputs are '{}'", known.join("', '"))));
            }
        }
        Ok(given)
    }

    /// The first entry that holds the sizes of the inputs, and the values of the symbols.
    fn choose(&self, function: &str, inputs: &BTreeMap<String, TensorData>) -> Result<(usize, Env)> {
        let mut tried = Vec::new();
        for (number, entry) in self.plan.entries.iter().enumerate().filter(|(_, e)| e.function == function) {
            let env = self.bind(number, inputs)?;
            match left_range(&entry.symbols, &env) {
                None => return Ok((number, env)),
                Some(_) => tried.push((number, env)),
            }
        }
        let shown: Vec<String> =
            tried.iter().map(|(number, _)| show_ranges(&self.plan.entries[*number].symbols)).collect();
        let sizes =
            tried.first().map(|(_, env)| env.iter().map(|(s, v)| format!("{} = {v}", s.name())).collect());
        let sizes: Vec<String> = sizes.unwrap_or_default();
        Err(input("runtime.sizes", format!("no entry of '{function}' holds the sizes {}", sizes.join(", ")))
            .help(format!("the plan was made for {}", shown.join("; or "))))
    }

    /// The sizes that the inputs and states give.
    fn bind(&self, number: usize, inputs: &BTreeMap<String, TensorData>) -> Result<Env> {
        let code = &self.entries[number];
        let graph = &code.table.function(&self.program).graph;
        let mut shapes = Vec::with_capacity(code.inputs.len() + code.states.len());
        for argument in &code.inputs {
            let name = &argument.name;
            let kept = || {
                let slot = argument.resident.as_ref().filter(|_| argument.renewed_elsewhere.is_none())?;
                self.kept.at(slot).map(|k| (k.dtype, k.shape.clone()))
            };
            let given = inputs.get(name).map(|value| (value.dtype(), value.shape().to_vec()));
            let (dtype, shape) = given.or_else(kept).ok_or_else(|| missing(argument))?;
            let ty = type_of(graph, argument.value)?;
            if ty.dtype != dtype {
                let message = format!("element type of input '{name}' is {dtype}, not {}", ty.dtype);
                return Err(input("runtime.input", message));
            }
            shapes.push(Shaped { what: format!("input '{name}'"), ty, shape });
        }
        for state in &code.states {
            let (ty, shape) = (type_of(graph, state.value)?, self.states.shape(&state.name)?);
            shapes.push(Shaped { what: format!("state '{}'", state.name), ty, shape });
        }
        let mut env = self.sizes[number].clone();
        bind(&mut env, &shapes)?;
        check_promises(&self.program.symbols, &env)?;
        Ok(env)
    }

    fn run_entry(
        &mut self,
        number: usize,
        inputs: &BTreeMap<String, TensorData>,
        env: Env,
    ) -> Result<RunOutput> {
        let code = &self.entries[number];
        let inputs = self.inputs(code, inputs)?;
        let (before, old_states) = self.prepare(code, &inputs, &env)?;
        let given = code.inputs.iter().zip(&inputs).filter_map(|(i, v)| Some((i, i.resident?, v.as_ref()?)));
        for (port, slot, value) in given {
            let ty = type_of(&code.table.function(&self.program).graph, port.value)?;
            self.kept.set(&slot, ty, value.shape().to_vec())?;
        }
        let setting = Setting {
            program: &self.program,
            code,
            ranges: &self.plan.entries[number].symbols,
            memory: &self.memory,
            links: &self.links,
            inputs: &inputs,
            poison: self.options.poison,
            record: self.options.detect_races,
        };
        let mut run = Run::new(setting, env);
        let finished = run.execute();
        let env = lock(&run.env).clone();
        let collected = match &finished.failure {
            Some(failure) => Err(self.explain(number, failure.clone(), &before, &finished)),
            None => self.collect(code, &run, &env, &old_states),
        };
        drop(run);
        let left = code.outputs.iter().filter_map(|o| match o.source {
            Source::Resident(slot) => Some((o.value, slot)),
            _ => None,
        });
        left.clone().for_each(|(_, slot)| self.kept.forget(&slot));
        let collected = collected.inspect_err(|_| {
            code.updates.iter().for_each(|update| self.states.set_shape(&update.name, None));
        })?;
        for (v, slot) in left {
            let ty = type_of(&code.table.function(&self.program).graph, v)?;
            self.kept.set(&slot, ty, env.shape(ty)?)?;
        }
        let record = Record { before: &before, commands: &finished.accesses, after: &collected.after };
        let races = self.races(number, &record);
        for (name, shape) in collected.shapes {
            self.states.set_shape(&name, Some(shape));
        }
        let (outputs, updates) = (collected.outputs, collected.updates);
        let Finished { trace, elapsed_ns, work, .. } = finished;
        Ok(RunOutput { entry: number, outputs, updates, trace, races, elapsed_ns, work })
    }

    /// The value of each input that is given, or that is handed out as it was.
    fn inputs(
        &self,
        code: &EntryCode,
        given: &BTreeMap<String, TensorData>,
    ) -> Result<Vec<Option<TensorData>>> {
        let mut inputs: Vec<Option<TensorData>> =
            code.inputs.iter().map(|i| given.get(&i.name).cloned()).collect();
        for output in &code.outputs {
            if let Source::Input(n) = output.source
                && let (Some(value @ None), Some(port)) = (inputs.get_mut(n), code.inputs.get(n))
                && let Some(slot) = &port.resident
            {
                *value = self.kept.load(slot, &self.memory)?;
            }
        }
        Ok(inputs)
    }

    /// Poisons the buffers of a run and puts resident inputs into them. Gives the writes that this means, and the values of
    /// states that are handed out as they were.
    fn prepare(
        &self,
        code: &EntryCode,
        inputs: &[Option<TensorData>],
        env: &Env,
    ) -> Result<(Vec<Access>, BTreeMap<usize, TensorData>)> {
        let graph = &code.table.function(&self.program).graph;
        if self.options.poison {
            code.buffers.iter().for_each(|slot| self.memory.fill(slot, POISON));
        }
        let mut before = Vec::new();
        for (port, value) in code.inputs.iter().zip(inputs) {
            let Some(slot) = &port.resident else { continue };
            let bytes = self.value_bytes(code, port.value, slot, env);
            let bytes = bytes.at(|| format!("input '{}'", port.name))?;
            if let Some(value) = value {
                self.memory.store(slot, value.bytes()).at(|| format!("input '{}'", port.name))?;
            }
            before.push(Access::write(slot, bytes, Some(port.value)));
        }
        for state in &code.states {
            let bytes = self.value_bytes(code, state.value, &state.slot, env)?;
            before.push(Access::write(&state.slot, bytes, Some(state.value)));
        }
        let mut old_states = BTreeMap::new();
        for (i, output) in code.outputs.iter().enumerate() {
            if let Source::State(slot) = &output.source {
                let ty = type_of(graph, output.value)?;
                old_states.insert(i, self.memory.load(slot, ty, env.shape(ty)?)?);
            }
        }
        Ok((before, old_states))
    }

    /// Bytes of a value, which must fit its slot.
    fn value_bytes(&self, code: &EntryCode, value: ValueId, slot: &Slot, env: &Env) -> Result<u64> {
        let ty = type_of(&code.table.function(&self.program).graph, value)?;
        let bytes = crate::resolve::byte_size(ty, &env.shape(ty)?)?;
        self.memory.check_room(slot, bytes)?;
        Ok(bytes)
    }

    /// Gathers outputs, and what the end of a run reads.
    fn collect(
        &self,
        code: &EntryCode,
        run: &Run,
        env: &Env,
        old_states: &BTreeMap<usize, TensorData>,
    ) -> Result<Collected> {
        let graph = &code.table.function(&self.program).graph;
        let mut all = Collected::default();
        for (i, output) in code.outputs.iter().enumerate() {
            let value = match &output.source {
                Source::Copied => run.outputs.get(i).and_then(|slot| lock(slot).take()),
                Source::Resident(slot) => {
                    let ty = type_of(graph, output.value)?;
                    let value = self.memory.load(slot, ty, env.shape(ty)?)?;
                    all.after.push(Access::read(slot, value.bytes().len() as u64, output.value));
                    Some(value)
                }
                Source::Input(n) => run.setting.inputs.get(*n).cloned().flatten(),
                Source::State(_) => old_states.get(&i).cloned(),
                Source::Constant(value) => value.clone(),
            };
            let value = value.ok_or_else(|| wrong(format!("output '{}' has no value", output.name)))?;
            match &output.update_of {
                Some(argument) => all.updates.push((argument.clone(), value)),
                None => all.outputs.push((output.name.clone(), value)),
            }
        }
        for update in &code.updates {
            let bytes = self.value_bytes(code, update.value, &update.slot, env)?;
            all.after.push(Access::read(&update.slot, bytes, update.value));
            all.shapes.push((update.name.clone(), env.shape(type_of(graph, update.value)?)?));
        }
        Ok(all)
    }

    fn races(&self, number: usize, record: &Record) -> Vec<crate::RaceReport> {
        if !self.options.detect_races {
            return Vec::new();
        }
        find(&self.entries[number], record, &|command| label(&self.plan, number, command))
    }

    /// A failure of a run, with the first hazard that may have led to it.
    fn explain(
        &self,
        number: usize,
        failure: Box<Diagnostic>,
        before: &[Access],
        finished: &Finished,
    ) -> Box<Diagnostic> {
        let races = self.races(number, &Record { before, commands: &finished.accesses, after: &[] });
        match races.first() {
            Some(race) => failure.help(format!("the plan may be wrong: {race}")),
            None => failure,
        }
    }
}

/// Kernels that work on the bytes of the arenas rely on the order of the plan's commands.
fn check_order(plan: &Plan) -> Result<()> {
    match djinn_plan::check(plan) {
        Ok(_) => Ok(()),
        Err(violations) => {
            let first = violations.first().map(ToString::to_string).unwrap_or_default();
            Err(wrong(format!("kernels cannot work in place: {first}")))
        }
    }
}

/// An input that is neither given nor there.
fn missing(argument: &crate::code::Input) -> Box<Diagnostic> {
    let missing = input("runtime.input", format!("input '{}' is missing", argument.name));
    if let Some(output) = &argument.renewed_elsewhere {
        return missing
            .help(format!("its new value, '{output}', stays in another place: give it what that was"));
    }
    match argument.resident {
        Some(_) => missing.help(
            "it stays on its device, but no run has left a value there, or the last one failed: give it, or run what makes it",
        ),
        None => missing,
    }
}

/// What a run leaves.
#[derive(Default)]
struct Collected {
    outputs: Vec<(String, TensorData)>,
    updates: Vec<(String, TensorData)>,
    /// New sizes of states.
    shapes: Vec<(String, Vec<usize>)>,
    /// Reads after the last command.
    after: Vec<Access>,
}

/// Constants of a function: where their values go.
struct Wanted {
    table: FunctionTable,
    slots: BTreeMap<ValueId, Vec<Slot>>,
    /// Numbers of an entry and of its output.
    outputs: BTreeMap<ValueId, Vec<(usize, usize)>>,
}

impl Wanted {
    fn of<'a>(
        all: &'a mut BTreeMap<String, Wanted>,
        program: &Module,
        function: &str,
    ) -> Result<&'a mut Wanted> {
        let new = || -> Result<Wanted> {
            let table = FunctionTable::new(program, function)?;
            Ok(Wanted { table, slots: BTreeMap::new(), outputs: BTreeMap::new() })
        };
        match all.entry(function.to_owned()) {
            std::collections::btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => Ok(entry.insert(new()?)),
        }
    }
}
