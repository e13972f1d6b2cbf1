//! Commands of an entry: what is launched and copied, on which bytes, in an order that is right when followed one
//! after the other.
//!
//! Which values share bytes is decided by [`djinn_lifetime::assign`]; here every buffer that it asks for gets its place
//! in the plan when a command first needs it ([`crate::places`]), and ports and states their copies
//! ([`crate::ports`]).

use crate::caches;
use crate::cost::Costs;
use crate::entry::{EntrySpec, Prepared, Shared};
use crate::names::{kernel_name, positions, value_ref};
use crate::places::Places;
use crate::units::{Unit, UnitKind, external_operands};
use djinn_diag::{Result, internal};
use djinn_ir::{Function, OpId, SymbolTable, ValueId};
use djinn_plan::{
    Action, BufferId, CopyReason, DeviceId, Entry, Granularity, Kernel, KernelId, Operand, Place, Stream,
    StreamId, StreamKind, ValueRef, View,
};
use std::collections::BTreeMap;

/// A command with the bytes that it touches.
#[derive(Debug, Clone)]
pub(crate) struct DraftCommand {
    pub(crate) stream: StreamId,
    pub(crate) action: Action,
    pub(crate) reads: Vec<View>,
    pub(crate) writes: Vec<View>,
}

/// An entry without events and offsets.
#[derive(Debug)]
pub(crate) struct Draft {
    /// The entry; its commands and events come last.
    pub(crate) entry: Entry,
    pub(crate) commands: Vec<DraftCommand>,
    /// Buffers of this run whose offsets a packing decides.
    pub(crate) packed: Vec<BufferId>,
}

/// Drafts the commands of an entry.
pub(crate) fn draft(shared: &mut Shared<'_>, spec: &EntrySpec, prepared: Prepared) -> Result<Draft> {
    let Prepared { function, symbols, ahead, units, places } = prepared;
    let mut drafter = Drafter::new(shared, function, spec, &symbols, &ahead, places);
    drafter.ports();
    for (i, unit) in units.iter().enumerate() {
        drafter.unit(i, unit)?;
    }
    drafter.updates()?;
    if drafter.entry.streams.is_empty() {
        drafter.stream(DeviceId(0), StreamKind::Compute, 0);
    }
    if spec.granularity == Granularity::Kernels {
        caches::leave_engines(&mut drafter.entry);
    }
    Ok(Draft { entry: drafter.entry, commands: drafter.commands, packed: drafter.packed })
}

/// What drafts an entry.
pub(crate) struct Drafter<'a, 'b> {
    pub(crate) shared: &'a mut Shared<'b>,
    /// Number of the function.
    pub(crate) f: usize,
    pub(crate) function: &'b Function,
    pub(crate) spec: &'a EntrySpec,
    pub(crate) symbols: &'a SymbolTable,
    pub(crate) ahead: &'a [bool],
    pub(crate) costs: Costs<'a>,
    pub(crate) positions: Vec<u32>,
    /// Number of the entry in the plan.
    pub(crate) number: u32,
    pub(crate) places: Places,
    /// Numbers of the outputs that a value is, by value number of those that are any.
    pub(crate) outputs_of: BTreeMap<ValueId, Vec<usize>>,
    /// Numbers of the input ports, by argument.
    pub(crate) input_of: BTreeMap<u32, usize>,
    /// The stream of the last command that wrote to a buffer.
    pub(crate) writer: BTreeMap<BufferId, StreamId>,
    streams: BTreeMap<(DeviceId, StreamKind, i64), StreamId>,
    pub(crate) entry: Entry,
    commands: Vec<DraftCommand>,
    pub(crate) packed: Vec<BufferId>,
}

impl<'a, 'b> Drafter<'a, 'b> {
    fn new(
        shared: &'a mut Shared<'b>,
        f: usize,
        spec: &'a EntrySpec,
        symbols: &'a SymbolTable,
        ahead: &'a [bool],
        places: Places,
    ) -> Self {
        let function = &shared.module.functions[f];
        let number = shared.plan.entries.len() as u32;
        let costs = Costs::new(shared.target, symbols, &function.graph);
        Drafter {
            shared,
            f,
            function,
            spec,
            symbols,
            ahead,
            costs,
            positions: positions(&function.graph),
            number,
            places,
            outputs_of: BTreeMap::new(),
            input_of: BTreeMap::new(),
            writer: BTreeMap::new(),
            streams: BTreeMap::new(),
            entry: Entry {
                phase: spec.phase.clone(),
                granularity: spec.granularity,
                ..Entry::empty(&function.name)
            },
            commands: Vec::new(),
            packed: Vec::new(),
        }
    }

    /// A value as the plan names it.
    pub(crate) fn value(&self, v: ValueId) -> ValueRef {
        value_ref(&self.positions, &self.function.graph, v)
    }

    /// The stream of this number, made when it is first asked for.
    pub(crate) fn stream(&mut self, device: DeviceId, kind: StreamKind, number: i64) -> StreamId {
        let streams = &mut self.entry.streams;
        *self.streams.entry((device, kind, number)).or_insert_with(|| {
            streams.push(Stream { device, kind });
            StreamId(streams.len() as u32 - 1)
        })
    }

    /// The device of an operation: its annotation, or the first one of the target.
    fn device_of(&mut self, id: OpId) -> Result<DeviceId> {
        match self.function.graph.op(id).annotated_str("device") {
            Some(name) => self.shared.device(name),
            None => Ok(DeviceId(0)),
        }
    }

    /// The device that storage reckons with for a value.
    pub(crate) fn home(&mut self, v: ValueId) -> Result<DeviceId> {
        match self.places.home(v) {
            Some(name) => self.shared.device(&name),
            None => Ok(DeviceId(0)),
        }
    }

    pub(crate) fn push(&mut self, stream: StreamId, action: Action, reads: Vec<View>, writes: Vec<View>) {
        for view in &writes {
            self.writer.insert(view.buffer, stream);
        }
        self.commands.push(DraftCommand { stream, action, reads, writes });
    }

    fn unit(&mut self, i: usize, unit: &Unit) -> Result<()> {
        match unit.kind {
            _ if self.places.storage.skipped[i] => self.alias(unit)?,
            UnitKind::Transfer => self.transfer(unit)?,
            UnitKind::Kernel | UnitKind::Engine(_) => self.kernel(unit)?,
        }
        let graph = &self.function.graph;
        for v in unit.ops.iter().flat_map(|id| &graph.op(*id).results) {
            self.output_copies(*v)?;
        }
        Ok(())
    }

    /// Values that are bytes of others.
    fn alias(&mut self, unit: &Unit) -> Result<()> {
        let graph = &self.function.graph;
        for id in &unit.ops {
            let from = graph.op(*id).operands[0];
            let device = match self.places.device(from) {
                Some(device) => device,
                None => self.home(from)?,
            };
            // What brings an argument here is for whoever reads the view.
            let annotated = graph.op(*id).annotated_int("stream").unwrap_or(0);
            let stream = match graph.op(*id).kind {
                djinn_ir::OpKind::Transfer => self.stream(device, StreamKind::Copy, annotated),
                _ => self.stream(device, StreamKind::Compute, annotated),
            };
            // An input may be on several devices by now, and so is every view of it.
            let elsewhere = self.places.other_copies(from, device);
            for device in std::iter::once(device).chain(elsewhere) {
                self.alias_at(*id, device, stream)?;
            }
            self.places.note_view(*id, graph.op(*id).results[0]);
        }
        Ok(())
    }

    /// The memory of the host of a device: where constants are that a run copies to it.
    fn host_of(&mut self, device: DeviceId) -> Result<DeviceId> {
        if self.shared.plan.devices[device.index()].host {
            return Ok(device);
        }
        let name = &self.shared.plan.devices[device.index()].name;
        let topology = &self.shared.target.topology;
        let node = topology.device_index(name).and_then(|d| topology.node_of(d));
        let Some(host) = node.map(|n| n.host.clone()) else {
            return Err(internal("plan.device", format!("{name} is in no machine of the topology")));
        };
        self.shared.device(&host)
    }

    fn transfer(&mut self, unit: &Unit) -> Result<()> {
        let id = unit.ops[0];
        let op = self.function.graph.op(id);
        let (from, to) = (op.operands[0], op.results[0]);
        let device = self.shared.device(op.attrs.str("device"))?;
        let home = match self.places.device(from) {
            _ if self.is_ahead(from) => self.host_of(device)?,
            Some(home) => home,
            None => self.home(from)?,
        };
        let is_host = |d: DeviceId| self.shared.plan.devices[d.index()].host;
        let (from_host, to_host) = (is_host(home), is_host(device));
        let stream_device = if to_host { home } else { device };
        let stream = self.stream(stream_device, StreamKind::Copy, op.annotated_int("stream").unwrap_or(0));
        let source = self.read(from, home, stream)?;
        let view = self.write(to, device)?;
        let seconds = match home == device {
            true => self.costs.within(device, view.bytes),
            false => self.costs.between(&mut self.shared.plan, home, device, view.bytes)?,
        };
        let (value, result) = (self.value(from), self.value(to));
        // A value keeps its name when it leaves a device for want of memory and when it comes back.
        let (reason, copied) = match (from_host, to_host) {
            (true, _) => (CopyReason::Fetch, value),
            (_, true) => (CopyReason::Spill, value),
            _ => (CopyReason::Transfer, result),
        };
        if copied != result {
            let part = Operand { value: copied, view };
            self.entry
                .aliases
                .push(djinn_plan::Alias { value: Operand { value: result, view }, of: vec![part] });
        }
        let (from, target) = (Place::Buffer(source.view), Place::Buffer(view));
        let action = Action::Copy { value, result: copied, from, to: target, reason, seconds };
        self.push(stream, action, vec![source.view], vec![view]);
        Ok(())
    }

    fn kernel(&mut self, unit: &Unit) -> Result<()> {
        let graph = &self.function.graph;
        let first = graph.op(unit.ops[0]);
        let device = self.device_of(unit.ops[0])?;
        let stream = self.stream(device, StreamKind::Compute, first.annotated_int("stream").unwrap_or(0));
        let mut reads = Vec::new();
        for v in external_operands(graph, unit) {
            reads.push(self.read(v, device, stream)?);
        }
        let mut writes = Vec::new();
        for v in unit.ops.iter().flat_map(|id| &graph.op(*id).results) {
            if self.places.is_stored(*v) {
                writes.push(Operand { view: self.write(*v, device)?, value: self.value(*v) });
            }
        }
        let work = self.costs.kernel(graph, unit, device);
        let kernel = Kernel {
            name: kernel_name(graph, unit),
            ops: unit.ops.iter().map(|id| self.positions[id.0 as usize]).collect(),
            engine: match (unit.kind, self.spec.granularity) {
                (UnitKind::Engine(number), _) => Some(number),
                (_, Granularity::Engines) => None,
                (_, Granularity::Kernels) => {
                    first.annotated_int("engine").and_then(|n| u32::try_from(n).ok())
                }
            },
            workspace: None,
            seconds: work.seconds,
            flops: work.flops,
            traffic: work.bytes,
            share: work.share,
            reads,
            writes,
        };
        let views = |operands: &[Operand]| operands.iter().map(|o| o.view).collect();
        let (reads, writes) = (views(&kernel.reads), views(&kernel.writes));
        self.entry.kernels.push(kernel);
        let action = Action::Launch { kernel: KernelId(self.entry.kernels.len() as u32 - 1) };
        self.push(stream, action, reads, writes);
        Ok(())
    }
}
