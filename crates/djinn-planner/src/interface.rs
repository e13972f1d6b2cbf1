//! Do the ends of a plan fit the program: inputs, outputs, states, constants, and the sizes of all views?

use crate::aliases::Sizes;
use crate::names::value_ref;
use crate::sizes::max_bytes;
use djinn_diag::{Result, internal};
use djinn_ir::{ArgumentKind, ContentHash, Function, Module, ResultKind, ValueId, constant_hashes};
use djinn_plan::{Action, Content, Entry, Operand, Place, Plan, Port, ValueRef, View};
use std::collections::BTreeMap;

/// Hashes of the constants of every function that is asked for.
#[derive(Default)]
pub(crate) struct Constants(BTreeMap<String, Vec<Option<ContentHash>>>);

impl Constants {
    fn hash(&mut self, module: &Module, function: &str, v: ValueId) -> Option<ContentHash> {
        let of = self.0.entry(function.to_owned()).or_insert_with(|| {
            module.function(function).map(|f| constant_hashes(module, f)).unwrap_or_default()
        });
        of.get(v.0 as usize).copied().flatten()
    }
}

/// An entry of a plan and its function.
pub(crate) struct Interface<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) module: &'a Module,
    pub(crate) entry: &'a Entry,
    pub(crate) function: &'a Function,
    pub(crate) positions: &'a [u32],
    pub(crate) sizes: &'a Sizes,
}

fn wrong(what: impl Into<String>) -> Result<()> {
    Err(internal("plan.conform", what))
}

impl Interface<'_> {
    /// Compares everything; `value` gives the value of the function that the plan names.
    pub(crate) fn check(
        &self,
        constants: &mut Constants,
        value: &dyn Fn(&Function, ValueRef) -> Option<ValueId>,
    ) -> Result<()> {
        self.inputs()?;
        self.results()?;
        self.constants(constants, value)?;
        self.view_sizes(value)
    }

    fn is_state(&self, argument: u32) -> bool {
        matches!(self.function.arguments.get(argument as usize), Some((_, ArgumentKind::State { .. })))
    }

    fn name(&self, v: ValueId) -> ValueRef {
        value_ref(self.positions, &self.function.graph, v)
    }

    fn port(&self, port: &Port, name: &str, v: ValueId, update_of: Option<u32>) -> Result<()> {
        let ty = self.function.graph.ty(v).to_string();
        let right =
            port.name == *name && port.ty == ty && port.value == self.name(v) && port.update_of == update_of;
        if right { Ok(()) } else { wrong(format!("'{}' is not '{name}' of the function", port.name)) }
    }

    fn inputs(&self) -> Result<()> {
        let arguments = self.function.arguments.iter().zip(&self.function.graph.arguments);
        let inputs: Vec<_> = arguments.filter(|((_, kind), _)| *kind == ArgumentKind::Input).collect();
        if inputs.len() != self.entry.inputs.len() {
            return wrong("the plan has another number of inputs than the function");
        }
        for (((name, _), v), port) in inputs.into_iter().zip(&self.entry.inputs) {
            self.port(port, name, *v, None)?;
        }
        let read = self.entry.states.iter().map(|s| (s.argument, &s.view));
        let written = self.entry.updates.iter().map(|u| (u.argument, &u.view));
        if read.chain(written).any(|(argument, view)| !self.is_in_its_state(argument, view)) {
            return wrong("the plan keeps a state where another one is");
        }
        Ok(())
    }

    /// Is the argument a state, and this view all of its buffer?
    fn is_in_its_state(&self, argument: u32, view: &View) -> bool {
        let Some((of, ArgumentKind::State { .. })) = self.function.arguments.get(argument as usize) else {
            return false;
        };
        let held = self.plan.buffers.get(view.buffer.index()).map(|b| &b.content);
        matches!(held, Some(Content::State { name }) if *name == **of) && view.offset == 0
    }

    fn results(&self) -> Result<()> {
        let (mut outputs, mut updates) = (self.entry.outputs.iter(), self.entry.updates.iter());
        for (v, (name, kind)) in self.function.graph.results.iter().zip(&self.function.results) {
            match kind {
                ResultKind::Update(n) if self.is_state(*n) => {
                    let right = updates.next().is_some_and(|u| u.argument == *n && u.value == self.name(*v));
                    if !right {
                        return wrong(format!("the plan does not bring '{name}' to its state"));
                    }
                }
                kind => {
                    let Some(port) = outputs.next() else {
                        return wrong(format!("the plan lacks the output '{name}'"));
                    };
                    let update_of = match kind {
                        ResultKind::Update(n) => Some(*n),
                        ResultKind::Output => None,
                    };
                    self.port(port, name, *v, update_of)?;
                }
            }
        }
        if outputs.next().is_some() || updates.next().is_some() {
            return wrong("the plan has outputs or updates of states that the function has not");
        }
        Ok(())
    }

    /// A constant buffer holds the value that the entry reads from it, or one that is computed in the same way, and is
    /// read from its first byte.
    fn constants(
        &self,
        constants: &mut Constants,
        value: &dyn Fn(&Function, ValueRef) -> Option<ValueId>,
    ) -> Result<()> {
        for operand in &self.entry.constants {
            let held = self.plan.buffers.get(operand.view.buffer.index()).map(|b| &b.content);
            let Some(Content::Constant { function, value: of }) = held else {
                return wrong("a constant is read from a buffer that holds none");
            };
            let owner = self.module.function(function);
            let (read, held) = (value(self.function, operand.value), owner.and_then(|f| value(f, *of)));
            let (Some(read), Some(held)) = (read, held) else {
                return wrong("a constant is a value that does not exist");
            };
            let itself = *function == *self.function.name && read == held;
            let alike = |constants: &mut Constants| {
                let hash = constants.hash(self.module, &self.function.name, read);
                hash.is_some() && hash == constants.hash(self.module, function, held)
            };
            if operand.view.offset != 0 || !(itself || alike(constants)) {
                return wrong(format!("the buffer of a constant holds another one than {:?}", operand.value));
            }
        }
        Ok(())
    }

    /// Every view is as large as its value can become at the sizes of the entry.
    fn view_sizes(&self, value: &dyn Fn(&Function, ValueRef) -> Option<ValueId>) -> Result<()> {
        let mut needed: BTreeMap<ValueId, u64> = BTreeMap::new();
        let mut fits = |v: ValueRef, view: &View| {
            let Some(v) = value(self.function, v) else {
                return wrong("the plan names a value that does not exist");
            };
            let needs = match needed.get(&v) {
                Some(needs) => *needs,
                None => {
                    let needs = max_bytes(self.function.graph.ty(v), self.sizes.symbols())?;
                    needed.insert(v, needs);
                    needs
                }
            };
            if view.bytes == needs {
                return Ok(());
            }
            wrong(format!("value %{} has {} bytes in the plan and takes {needs}", v.0, view.bytes))
        };
        let entry = self.entry;
        let kernels = entry.kernels.iter().flat_map(|k| k.reads.iter().chain(&k.writes));
        let aliases = entry.aliases.iter().flat_map(|a| std::iter::once(&a.value).chain(&a.of));
        for operand in kernels.chain(aliases).chain(&entry.constants) {
            let Operand { value, view } = operand;
            fits(*value, view)?;
        }
        for state in &entry.states {
            fits(ValueRef::Argument(state.argument), &state.view)?;
        }
        for update in &entry.updates {
            fits(ValueRef::Argument(update.argument), &update.view)?;
        }
        for port in entry.inputs.iter().chain(&entry.outputs) {
            if let Some(view) = &port.view {
                fits(port.value, view)?;
            }
        }
        for command in &entry.commands {
            if let Action::Copy { value, from, to, .. } = &command.action {
                for place in [from, to] {
                    if let Place::Buffer(view) = place {
                        fits(*value, view)?;
                    }
                }
            }
        }
        Ok(())
    }
}
