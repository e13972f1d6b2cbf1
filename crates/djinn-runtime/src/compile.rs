//! Resolves an entry of a plan, and refuses what does not hold together.

use crate::code::{
    CopyCode, End, EntryCode, Input, KernelCode, OpCode, OperandCode, Output, Piece, Placed, Source,
    StateUse, Step, Work, Write,
};
use crate::lifetimes::Lifetimes;
use crate::resolve::{FunctionTable, MAX_STREAMS, Slot, name, slot, wrong};
use crate::symbols::{symbols_needed, symbols_of};
use djinn_diag::{Context, Result};
use djinn_ir::{ArgumentKind, Graph, Module, OpKind, Symbol, ValueId, ops::traits};
use djinn_plan::{Action, Content, Entry, Kernel, Operand, Place, Plan, Port, ValueRef, View};
use std::collections::{BTreeMap, BTreeSet};

/// Resolves the entry of this number.
pub(crate) fn compile(plan: &Plan, program: &Module, number: usize) -> Result<EntryCode> {
    let entry = plan.entries.get(number).ok_or_else(|| wrong(format!("there is no entry {number}")))?;
    let build = || {
        let table = FunctionTable::new(program, &entry.function)?;
        let graph = &table.function(program).graph;
        let given = symbols_of(graph, &graph.arguments);
        let copied = vec![0; entry.outputs.len()];
        Compiler { plan, program, number, entry, table, given, copied }.entry()
    };
    build().at(|| format!("entry {number} '{}'", entry.function))
}

struct Compiler<'a> {
    plan: &'a Plan,
    program: &'a Module,
    number: usize,
    entry: &'a Entry,
    table: FunctionTable,
    /// Symbols that the shapes of arguments determine.
    given: BTreeSet<Symbol>,
    /// How many commands copy each output to the caller.
    copied: Vec<usize>,
}

impl Compiler<'_> {
    fn entry(mut self) -> Result<EntryCode> {
        let entry = self.entry;
        check_order(entry)?;
        let arguments = self.check_inputs()?;
        let number = |i: usize, of: &str| format!("{of} {i}");
        let each = entry.kernels.iter().enumerate();
        let kernels: Vec<KernelCode> = each
            .map(|(i, k)| self.kernel(k).at(|| format!("kernel {i} '{}'", k.name)))
            .collect::<Result<_>>()?;
        let mut streams = self.streams(&kernels)?;
        let inputs = entry.inputs.iter().enumerate();
        let inputs: Vec<Input> =
            inputs.map(|(i, p)| self.input(p).at(|| number(i, "input"))).collect::<Result<_>>()?;
        let outputs = entry.outputs.iter().enumerate();
        let outputs: Vec<Output> = outputs
            .map(|(i, p)| self.output(i, p, &arguments).at(|| number(i, "output")))
            .collect::<Result<_>>()?;
        let state =
            |s: &djinn_plan::StateBinding| self.state(s.argument, ValueRef::Argument(s.argument), s.view);
        let states = entry.states.iter().map(state).collect::<Result<_>>()?;
        let updates =
            entry.updates.iter().map(|u| self.state(u.argument, u.value, u.view)).collect::<Result<_>>()?;
        self.check_constants()?;
        let aliases = self.aliases()?;
        let (buffers, pieces) = lifetimes(self.plan, &kernels, &aliases, &inputs, &outputs, &mut streams);
        Ok(EntryCode {
            inputs,
            outputs,
            states,
            updates,
            kernels,
            streams,
            commands: entry.commands.len(),
            events: entry.events as usize,
            is_flat: false,
            buffers,
            pieces,
            aliases,
            table: self.table,
        })
    }

    fn graph(&self) -> &Graph {
        &self.table.function(self.program).graph
    }

    fn value(&self, value: ValueRef) -> Result<ValueId> {
        self.table.value(self.program, value)
    }

    /// A view that this entry may use.
    fn slot(&self, view: View, written: bool) -> Result<Slot> {
        let slot = slot(self.plan, view)?;
        let buffer = &self.plan.buffers[slot.buffer];
        let problem = match &buffer.content {
            Content::Run { entry } if *entry as usize != self.number => "belongs to another entry",
            Content::Constant { .. } if written => "is a constant and is written",
            _ => return Ok(slot),
        };
        Err(wrong(format!("buffer {} '{}' {problem}", slot.buffer, buffer.name)))
    }

    fn placed(&self, operand: &Operand, written: bool) -> Result<Placed> {
        Ok(Placed { value: self.value(operand.value)?, slot: self.slot(operand.view, written)? })
    }

    fn kernel(&self, kernel: &Kernel) -> Result<KernelCode> {
        let reads: Vec<Placed> = kernel.reads.iter().map(|o| self.placed(o, false)).collect::<Result<_>>()?;
        let (mut ops, made) = self.kernel_ops(kernel, &reads)?;
        let mut writes = Vec::with_capacity(kernel.writes.len());
        for operand in &kernel.writes {
            let to = self.placed(operand, true)?;
            let from = made.get(&to.value).copied();
            let from = from.ok_or_else(|| {
                wrong(format!("it writes {}, which none of its operations makes", name(operand.value)))
            })?;
            writes.push(Write { from, to });
        }
        set_drops(&mut ops, &writes);
        let workspace = kernel.workspace.map(|view| self.slot(view, true)).transpose()?;
        let (needs, determines) = self.kernel_symbols(&ops);
        let name = kernel.name.clone();
        Ok(KernelCode { name, ops, reads, writes, workspace, compiled: None, needs, determines })
    }

    /// The operations of a kernel, and which of them makes which value.
    #[allow(clippy::type_complexity, reason = "used in one place")]
    fn kernel_ops(
        &self,
        kernel: &Kernel,
        reads: &[Placed],
    ) -> Result<(Vec<OpCode>, BTreeMap<ValueId, (usize, usize)>)> {
        let read: BTreeMap<ValueId, usize> =
            reads.iter().enumerate().rev().map(|(i, r)| (r.value, i)).collect();
        let mut made = BTreeMap::new();
        let mut ops = Vec::with_capacity(kernel.ops.len());
        if kernel.ops.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(wrong("its operations are not in the order of the function"));
        }
        for (n, position) in kernel.ops.iter().enumerate() {
            let id = self.table.op(*position)?;
            let Some(op) = self.graph().get_op(id) else { continue };
            let operand = |v: &ValueId| {
                let local = made.get(v).map(|(op, result)| OperandCode::Local(*op, *result));
                local.or_else(|| read.get(v).map(|i| OperandCode::Read(*i))).ok_or_else(|| {
                    wrong(format!(
                        "operation {position} '{}' uses value {}, which the kernel neither makes nor reads",
                        op.kind.name(),
                        v.0
                    ))
                })
            };
            let operands = op.operands.iter().map(operand).collect::<Result<_>>()?;
            made.extend(op.results.iter().enumerate().map(|(i, v)| (*v, (n, i))));
            ops.push(OpCode { op: id, position: *position as usize, operands, drops: Vec::new() });
        }
        Ok((ops, made))
    }

    /// Symbols beyond those of the arguments that a kernel needs, and those that it determines.
    fn kernel_symbols(&self, ops: &[OpCode]) -> (BTreeSet<Symbol>, BTreeSet<Symbol>) {
        let graph = self.graph();
        let (mut needs, mut determines) = (BTreeSet::new(), BTreeSet::new());
        for op in ops.iter().filter_map(|op| graph.get_op(op.op)) {
            let unknown = |s: &Symbol| !self.given.contains(s);
            needs.extend(
                symbols_needed(graph, op).into_iter().filter(|s| unknown(s) && !determines.contains(s)),
            );
            if op.kind.def().has(traits::DATA_DEPENDENT) {
                determines.extend(symbols_of(graph, &op.results).into_iter().filter(unknown));
            }
        }
        (needs, determines)
    }

    fn streams(&mut self, kernels: &[KernelCode]) -> Result<Vec<Vec<Step>>> {
        let entry = self.entry;
        if entry.streams.len() > MAX_STREAMS {
            return Err(wrong(format!("{} streams are more than {MAX_STREAMS}", entry.streams.len())));
        }
        if let Some(stream) = entry.streams.iter().find(|s| s.device.index() >= self.plan.devices.len()) {
            return Err(wrong(format!("there is no device {}", stream.device.0)));
        }
        let mut streams: Vec<Vec<Step>> = entry.streams.iter().map(|_| Vec::new()).collect();
        for (i, command) in entry.commands.iter().enumerate() {
            let stream = command.stream.index();
            let step = self.step(i, stream, &command.action, kernels).at(|| format!("command {i}"))?;
            let queue = streams.get_mut(stream);
            queue.ok_or_else(|| wrong(format!("command {i}: there is no stream {stream}")))?.push(step);
        }
        Ok(streams)
    }

    fn step(
        &mut self,
        command: usize,
        stream: usize,
        action: &Action,
        kernels: &[KernelCode],
    ) -> Result<Step> {
        let work = match action {
            Action::Launch { kernel } => {
                let code = kernels.get(kernel.index());
                let code = code.ok_or_else(|| wrong(format!("there is no kernel {}", kernel.0)))?;
                let (reads, writes) =
                    (code.reads.iter().map(|r| r.slot), code.writes.iter().map(|w| w.to.slot));
                self.check_device(stream, reads.chain(writes).chain(code.workspace))?;
                Work::Launch(kernel.index())
            }
            Action::Copy { value, result, from, to, .. } => {
                let (from, to) = (self.end(*from, false)?, self.end(*to, true)?);
                if let End::Output(i) = &to {
                    self.copied[*i] += 1;
                }
                Work::Copy(CopyCode { value: self.value(*value)?, result: self.value(*result)?, from, to })
            }
            Action::Record { event } => Work::Record(event.index()),
            Action::Wait { event } => Work::Wait(event.index()),
        };
        Ok(Step { command, work, read: Vec::new(), written: Vec::new() })
    }

    /// Kernels see the memory of their own device.
    fn check_device(&self, stream: usize, slots: impl Iterator<Item = Slot>) -> Result<()> {
        let Some(stream) = self.entry.streams.get(stream) else { return Ok(()) };
        for slot in slots {
            let device = self.plan.arenas[slot.arena].device;
            if device != stream.device {
                return Err(wrong(format!(
                    "a kernel on device {} uses buffer {}, which is on device {}",
                    stream.device.0, slot.buffer, device.0
                )));
            }
        }
        Ok(())
    }

    fn end(&self, place: Place, written: bool) -> Result<End> {
        let (inputs, outputs) = (self.entry.inputs.len(), self.entry.outputs.len());
        match place {
            Place::Buffer(view) => {
                let slot = self.slot(view, written)?;
                Ok(End::Slot(slot, self.plan.arenas[slot.arena].device.index()))
            }
            Place::Input(i) if !written && (i as usize) < inputs => Ok(End::Input(i as usize)),
            Place::Output(i) if written && (i as usize) < outputs => Ok(End::Output(i as usize)),
            Place::Input(i) => Err(wrong(format!("input {i} cannot be copied like this"))),
            Place::Output(i) => Err(wrong(format!("output {i} cannot be copied like this"))),
        }
    }

    fn input(&self, port: &Port) -> Result<Input> {
        let ValueRef::Argument(n) = port.value else {
            return Err(wrong(format!("'{}' is no argument of the function", port.name)));
        };
        let argument = self.table.argument(self.program, n)?;
        if argument != port.name {
            return Err(wrong(format!("argument {n} is called '{argument}', not '{}'", port.name)));
        }
        let name = port.name.clone();
        let view = port.view.filter(|_| port.resident);
        let resident = view.map(|view| self.slot(view, true)).transpose()?;
        let value = self.value(port.value)?;
        let elsewhere = |o: &&Port| o.resident && o.view.map(|v| v.buffer) != view.map(|v| v.buffer);
        let mut renewed = self.entry.outputs.iter().filter(elsewhere).filter(|o| self.renews(o, value));
        let renewed_elsewhere = renewed.next().filter(|_| view.is_some()).map(|o| o.name.clone());
        Ok(Input { name, value, resident, renewed_elsewhere })
    }

    /// Is an output an input with something appended, or with some elements changed?
    fn renews(&self, output: &Port, value: ValueId) -> bool {
        let graph = &self.table.function(self.program).graph;
        let maker = self.value(output.value).ok().and_then(|v| graph.definition(v));
        maker.map(|(id, _)| graph.op(id)).is_some_and(|op| {
            let kind = matches!(
                op.kind,
                OpKind::Concat | OpKind::IndexCopy | OpKind::ScatterNd | OpKind::ScatterElements
            );
            kind && op.operands.first() == Some(&value)
        })
    }

    /// Every argument that the caller gives is an input once. Gives the inputs by argument.
    fn check_inputs(&self) -> Result<BTreeMap<u32, usize>> {
        let mut ports = BTreeMap::new();
        for (i, port) in self.entry.inputs.iter().enumerate() {
            if let ValueRef::Argument(n) = port.value
                && ports.insert(n, i).is_some()
            {
                return Err(wrong(format!("argument '{}' is an input twice", port.name)));
            }
        }
        for (i, (name, kind)) in self.table.function(self.program).arguments.iter().enumerate() {
            let given = matches!(kind, ArgumentKind::Input);
            if given != ports.contains_key(&(i as u32)) {
                let problem = if given { "is no input" } else { "is no input of the function, but one" };
                return Err(wrong(format!("argument '{name}' {problem} of the plan")));
            }
        }
        Ok(ports)
    }

    fn output(&self, number: usize, port: &Port, arguments: &BTreeMap<u32, usize>) -> Result<Output> {
        let value = self.value(port.value)?;
        let copies = self.copied.get(number).copied().unwrap_or(0);
        let source = match (copies, port.view, port.value) {
            (1, _, _) => Source::Copied,
            (2.., _, _) => {
                return Err(wrong(format!("{copies} commands copy '{}' to the caller", port.name)));
            }
            (0, Some(view), _) if port.resident => Source::Resident(self.slot(view, false)?),
            (0, Some(_), _) => return Err(wrong(format!("no command copies '{}' to the caller", port.name))),
            (0, None, ValueRef::Argument(n)) => self.passed_on(n, arguments)?,
            (0, None, ValueRef::Result { .. }) => Source::Constant(None),
        };
        let update = port.update_of.map(|n| self.table.argument(self.program, n).map(str::to_owned));
        Ok(Output { name: port.name.clone(), value, source, update_of: update.transpose()? })
    }

    /// An argument that is handed back as it came.
    fn passed_on(&self, argument: u32, arguments: &BTreeMap<u32, usize>) -> Result<Source> {
        if let Some(input) = arguments.get(&argument) {
            return Ok(Source::Input(*input));
        }
        let state = self.entry.states.iter().find(|s| s.argument == argument);
        let state = state.ok_or_else(|| wrong(format!("argument {argument} is no input and no state")))?;
        Ok(Source::State(self.slot(state.view, false)?))
    }

    fn state(&self, argument: u32, value: ValueRef, view: View) -> Result<StateUse> {
        let argument = self.table.argument(self.program, argument)?;
        let slot = self.slot(view, false).at(|| format!("state '{argument}'"))?;
        match &self.plan.buffers[slot.buffer].content {
            Content::State { name } if name == argument => {}
            _ => return Err(wrong(format!("buffer {} does not hold state '{argument}'", slot.buffer))),
        }
        Ok(StateUse { name: argument.to_owned(), value: self.value(value)?, slot })
    }

    fn check_constants(&self) -> Result<()> {
        for operand in &self.entry.constants {
            let placed = self.placed(operand, false)?;
            if !matches!(self.plan.buffers[placed.slot.buffer].content, Content::Constant { .. }) {
                return Err(wrong(format!("buffer {} does not hold a constant", placed.slot.buffer)));
            }
        }
        Ok(())
    }

    fn aliases(&self) -> Result<BTreeMap<ValueId, Vec<ValueId>>> {
        let mut aliases: BTreeMap<ValueId, Vec<ValueId>> = BTreeMap::new();
        for alias in &self.entry.aliases {
            let of: Vec<ValueId> = alias.of.iter().map(|o| self.value(o.value)).collect::<Result<_>>()?;
            aliases.entry(self.value(alias.value.value)?).or_default().extend(of);
        }
        Ok(aliases)
    }
}

fn lifetimes(
    plan: &Plan,
    kernels: &[KernelCode],
    aliases: &BTreeMap<ValueId, Vec<ValueId>>,
    inputs: &[Input],
    outputs: &[Output],
    streams: &mut [Vec<Step>],
) -> (Vec<Slot>, Vec<Piece>) {
    let before: Vec<Placed> =
        inputs.iter().filter_map(|i| Some(Placed { value: i.value, slot: i.resident? })).collect();
    let stays = |o: &Output| match o.source {
        Source::Resident(slot) => Some(Placed { value: o.value, slot }),
        _ => None,
    };
    let after: Vec<Placed> = outputs.iter().filter_map(stays).collect();
    Lifetimes { plan, kernels, aliases, before: &before, after: &after }.find(streams)
}

/// Notes after which operation of a kernel the results of each are no longer needed.
fn set_drops(ops: &mut [OpCode], writes: &[Write]) {
    let mut last: Vec<Option<usize>> = (0..ops.len()).map(Some).collect();
    for (n, op) in ops.iter().enumerate() {
        for operand in &op.operands {
            if let OperandCode::Local(of, _) = operand {
                last[*of] = Some(n);
            }
        }
    }
    for write in writes {
        last[write.from.0] = None;
    }
    for (of, n) in last.into_iter().enumerate() {
        if let Some(n) = n {
            ops[n].drops.push(of);
        }
    }
}

/// Every event is recorded once, and before it is waited for in the order of the commands: then no run can deadlock, since
/// the first command in that order that has not run can always run.
fn check_order(entry: &Entry) -> Result<()> {
    if entry.events as usize > entry.commands.len() {
        return Err(wrong(format!("{} events are more than there are commands", entry.events)));
    }
    let mut recorded = vec![false; entry.events as usize];
    for (i, command) in entry.commands.iter().enumerate() {
        let (Action::Record { event } | Action::Wait { event }) = command.action else { continue };
        let waits = matches!(command.action, Action::Wait { .. });
        let problem = match recorded.get_mut(event.index()) {
            None => "does not exist",
            Some(true) if waits => continue,
            Some(false) if waits => "is recorded later or never: the streams would wait for each other",
            Some(true) => "is recorded twice",
            Some(seen) => {
                *seen = true;
                continue;
            }
        };
        return Err(wrong(format!("event {} {problem}", event.0)).at(format!("command {i}")));
    }
    Ok(())
}
