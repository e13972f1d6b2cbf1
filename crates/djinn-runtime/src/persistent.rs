//! State that lives from run to run.

use crate::memory::Store;
use crate::resolve::{Slot, buffer_slot, byte_size};
use djinn_diag::{Context, Diagnostic, Result, input};
use djinn_interp::Env;
use djinn_ir::{ArgumentKind, Module, TensorData, TensorType};
use djinn_plan::{Content, Plan};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A state.
struct State {
    /// As the first function that has it declares it.
    ty: TensorType,
    /// Weight that holds the first value.
    initial: Option<Arc<str>>,
    /// The buffers that hold it.
    slots: Vec<Slot>,
    /// Its sizes by now; `None` if it has no value.
    shape: Option<Vec<usize>>,
}

/// All states of a plan, by name of the argument.
pub(crate) struct States(BTreeMap<String, State>);

impl States {
    /// The states of a plan, without values.
    pub(crate) fn new(plan: &Plan, program: &Module) -> Result<States> {
        let mut states: BTreeMap<String, State> = BTreeMap::new();
        let declared = declared(program);
        for (number, buffer) in plan.buffers.iter().enumerate() {
            let Content::State { name } = &buffer.content else { continue };
            let slot = buffer_slot(plan, number)?;
            if let Some(state) = states.get_mut(name) {
                state.slots.push(slot);
                continue;
            }
            // Ports that stay on the device stand in such buffers too, but are no states of the runtime.
            let Some((ty, initial)) = declared.get(name.as_str()) else { continue };
            let state =
                State { ty: (*ty).clone(), initial: (*initial).clone(), slots: vec![slot], shape: None };
            states.insert(name.clone(), state);
        }
        Ok(States(states))
    }

    /// Names of all states.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// Gives every state its first value: its weight, or zeros if it has none and its sizes are fixed.
    pub(crate) fn reset(&mut self, program: &Module, memory: &dyn Store) -> Result<()> {
        for (name, state) in &mut self.0 {
            state.reset(program, memory).at(|| format!("state '{name}'"))?;
        }
        Ok(())
    }

    /// The value of a state.
    pub(crate) fn get(&self, name: &str, memory: &dyn Store) -> Result<TensorData> {
        let state = self.0.get(name).ok_or_else(|| unknown(name))?;
        let shape = state.shape.clone().ok_or_else(|| no_value(name))?;
        let slot = state.slots.first().ok_or_else(|| unknown(name))?;
        memory.load(slot, &state.ty, shape)
    }

    /// Gives a state a value.
    pub(crate) fn set(&mut self, name: &str, value: &TensorData, memory: &dyn Store) -> Result<()> {
        let state = self.0.get_mut(name).ok_or_else(|| unknown(name))?;
        state.set(value, memory).at(|| format!("state '{name}'"))
    }

    /// The sizes of a state by now.
    pub(crate) fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let state = self.0.get(name).ok_or_else(|| unknown(name))?;
        state.shape.clone().ok_or_else(|| no_value(name))
    }

    /// Notes the sizes of a state's new value; `None` if a failed run has left no value.
    pub(crate) fn set_shape(&mut self, name: &str, shape: Option<Vec<usize>>) {
        if let Some(state) = self.0.get_mut(name) {
            state.shape = shape;
        }
    }
}

impl State {
    fn reset(&mut self, program: &Module, memory: &dyn Store) -> Result<()> {
        self.shape = None;
        if let Some(weight) = &self.initial {
            let data = program.weights.get(weight).and_then(|w| w.data.as_ref());
            let (_, data) = data.ok_or_else(|| {
                input("runtime.state", format!("it starts as weight '{weight}', which has no values"))
            })?;
            return self.set(data, memory);
        }
        let Some(shape) = self.ty.const_shape() else { return Ok(()) };
        let bytes = byte_size(&self.ty, &shape)?;
        for slot in &self.slots {
            memory.check_room(slot, bytes)?;
            memory.fill(&Slot { bytes, ..*slot }, 0)?;
        }
        self.shape = Some(shape);
        Ok(())
    }

    fn set(&mut self, value: &TensorData, memory: &dyn Store) -> Result<()> {
        if value.dtype() != self.ty.dtype {
            return Err(input(
                "runtime.state",
                format!("the value is {}, its type is {}", value.ty(), self.ty),
            ));
        }
        Env::new().bind_shape("its value", &self.ty, value.shape())?;
        for slot in &self.slots {
            memory.store(slot, value.bytes())?;
        }
        self.shape = Some(value.shape().to_vec());
        Ok(())
    }
}

/// Type and first value of a state.
type Declared<'a> = (&'a TensorType, &'a Option<Arc<str>>);

/// The states of the program by name; the first function that declares one counts.
fn declared(program: &Module) -> BTreeMap<&str, Declared<'_>> {
    let mut declared = BTreeMap::new();
    for f in &program.functions {
        for ((name, kind), v) in f.arguments.iter().zip(&f.graph.arguments) {
            if let (ArgumentKind::State { initial }, Some(value)) = (kind, f.graph.get_value(*v)) {
                declared.entry(&**name).or_insert((&value.ty, initial));
            }
        }
    }
    declared
}

fn unknown(name: &str) -> Box<Diagnostic> {
    input("runtime.state", format!("the plan has no state '{name}'"))
}

fn no_value(name: &str) -> Box<Diagnostic> {
    input("runtime.state", format!("state '{name}' has no value")).help(
        "it has no first value or a run failed while it was written: set it, give it as an input, or reset",
    )
}
