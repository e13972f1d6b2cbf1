//! One run of an entry: which one it is, what is put into its memory before, and what is taken out of it after.

use crate::code::{EntryCode, Source};
use crate::hazard::{Access, Record, find};
use crate::machine::{Job, Ran};
use crate::memory::{POISON, Store};
use crate::output::{RunOutput, label};
use crate::resolve::{Slot, type_of, wrong};
use crate::runtime::Runtime;
use crate::symbols::{Shaped, bind, check_promises, left_range, show_ranges};
use djinn_diag::{Context, Diagnostic, Result, input};
use djinn_interp::Env;
use djinn_ir::{TensorData, ValueId};
use std::collections::{BTreeMap, BTreeSet};

impl Runtime {
    fn memory(&self) -> &dyn Store {
        self.machine.memory()
    }

    /// Sets the states that are given; gives the inputs.
    pub(crate) fn take_states(
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
                self.states.set(name, value, self.machine.memory())?;
            } else {
                let known: Vec<&str> = code.inputs.iter().map(|i| i.name.as_str()).collect();
                return Err(input("runtime.input", format!("there is no input '{name}'"))
                    .help(format!("the inputs are '{}'", known.join("', '"))));
            }
        }
        Ok(given)
    }

    /// The first entry that holds the sizes of the inputs, and the values of the symbols.
    pub(crate) fn choose(
        &self,
        function: &str,
        inputs: &BTreeMap<String, TensorData>,
    ) -> Result<(usize, Env)> {
        let mut tried = Vec::new();
        let entries = self.plan.entries.iter().enumerate();
        for (number, entry) in entries.filter(|(n, e)| e.function == function && self.machine.takes(*n)) {
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

    pub(crate) fn run_entry(
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
        let (plan, program, options) = (&*self.plan, &*self.program, &self.options);
        let job = Job { plan, program, number, code, inputs: &inputs, options };
        let mut ran = self.machine.execute(&job, env);
        let collected = match ran.failure.take() {
            Some(failure) => Err(self.explain(number, failure, &before, &ran)),
            None => self.collect(code, &inputs, &mut ran, &old_states),
        };
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
            self.kept.set(&slot, ty, ran.env.shape(ty)?)?;
        }
        let record = Record { before: &before, commands: &ran.accesses, after: &collected.after };
        let races = self.races(number, &record);
        for (name, shape) in collected.shapes {
            self.states.set_shape(&name, Some(shape));
        }
        let (outputs, updates) = (collected.outputs, collected.updates);
        let Ran { trace, elapsed_ns, work, graph, .. } = ran;
        Ok(RunOutput { entry: number, outputs, updates, trace, races, elapsed_ns, work, graph })
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
                *value = self.kept.load(slot, self.memory())?;
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
            for slot in &code.buffers {
                self.memory().fill(slot, POISON)?;
            }
        }
        let mut before = Vec::new();
        for (port, value) in code.inputs.iter().zip(inputs) {
            let Some(slot) = &port.resident else { continue };
            let bytes = self.value_bytes(code, port.value, slot, env);
            let bytes = bytes.at(|| format!("input '{}'", port.name))?;
            if let Some(value) = value {
                self.memory().store(slot, value.bytes()).at(|| format!("input '{}'", port.name))?;
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
                old_states.insert(i, self.memory().load(slot, ty, env.shape(ty)?)?);
            }
        }
        Ok((before, old_states))
    }

    /// Bytes of a value, which must fit its slot.
    fn value_bytes(&self, code: &EntryCode, value: ValueId, slot: &Slot, env: &Env) -> Result<u64> {
        let ty = type_of(&code.table.function(&self.program).graph, value)?;
        let bytes = crate::resolve::byte_size(ty, &env.shape(ty)?)?;
        self.memory().check_room(slot, bytes)?;
        Ok(bytes)
    }

    /// Gathers outputs, and what the end of a run reads.
    fn collect(
        &self,
        code: &EntryCode,
        inputs: &[Option<TensorData>],
        ran: &mut Ran,
        old_states: &BTreeMap<usize, TensorData>,
    ) -> Result<Collected> {
        let graph = &code.table.function(&self.program).graph;
        let mut all = Collected::default();
        for (i, output) in code.outputs.iter().enumerate() {
            let value = match &output.source {
                Source::Copied => ran.outputs.get_mut(i).and_then(Option::take),
                Source::Resident(slot) => {
                    let ty = type_of(graph, output.value)?;
                    let value = self.memory().load(slot, ty, ran.env.shape(ty)?)?;
                    all.after.push(Access::read(slot, value.bytes().len() as u64, output.value));
                    Some(value)
                }
                Source::Input(n) => inputs.get(*n).cloned().flatten(),
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
            let bytes = self.value_bytes(code, update.value, &update.slot, &ran.env)?;
            all.after.push(Access::read(&update.slot, bytes, update.value));
            all.shapes.push((update.name.clone(), ran.env.shape(type_of(graph, update.value)?)?));
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
        ran: &Ran,
    ) -> Box<Diagnostic> {
        let races = self.races(number, &Record { before, commands: &ran.accesses, after: &[] });
        match races.first() {
            Some(race) => failure.help(format!("the plan may be wrong: {race}")),
            None => failure,
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
