//! Where values are: the buffers that storage asks for, as buffers of the plan.

use crate::choice;
use crate::commands::Drafter;
use crate::entry::EntrySpec;
use crate::names::buffer_name;
use crate::sizes::{max_bytes, max_size};
use crate::units::{Unit, UnitKind};
use djinn_device::{Target, Topology};
use djinn_diag::{Diagnostic, Result, internal};
use djinn_ir::graph::Definition;
use djinn_ir::{Dim, Function, Graph, OpId, OpKind, SymbolTable, ValueId};
use djinn_lifetime::{Storage, StorageId, StorageKind, StorageOptions};
use djinn_plan::{
    Action, Alias, ArenaKind, BufferId, Content, CopyReason, DeviceId, Operand, Place, StateBinding,
    StreamId, ValueRef, View,
};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of the places of values.
pub(crate) struct Places {
    pub(crate) storage: Storage,
    homes: Vec<Option<String>>,
    /// Where the buffers of the storage are; inputs may be on several devices.
    bound: Vec<Vec<(DeviceId, BufferId)>>,
    /// Where constants are, by value number.
    constants: Vec<Vec<(DeviceId, View)>>,
    /// Views of arguments, in the order in which they were made.
    views: Vec<OpId>,
    /// Buffers that several devices touch.
    shared: BTreeSet<StorageId>,
    /// Outputs that are written over the input that they are the new content of.
    pub(crate) renewed: BTreeMap<ValueId, ValueId>,
    /// Outputs that were to be, and why they are not.
    pub(crate) not_renewed: BTreeMap<ValueId, String>,
}

/// The devices; whether values may share bytes; outputs that are to be written over an input.
pub(crate) type Site<'a> = ((&'a Target, bool), &'a BTreeMap<ValueId, ValueId>);

impl Places {
    /// Storage of a function, none of it in the plan yet.
    pub(crate) fn new(
        function: &Function,
        spec: &EntrySpec,
        symbols: &SymbolTable,
        ahead: &[bool],
        units: &[Unit],
        ((target, sharing), wanted): Site<'_>,
    ) -> Self {
        let graph = &function.graph;
        let ops: Vec<Vec<OpId>> = units.iter().map(|u| u.ops.clone()).collect();
        let kept = |name: &str| spec.resident.contains(name);
        let results = graph.results.iter().zip(&function.results);
        let apart: BTreeSet<ValueId> = results.filter(|(_, (name, _))| kept(name)).map(|(v, _)| *v).collect();
        let is_whole = |u: &&(usize, &Unit)| matches!(u.1.kind, UnitKind::Engine(_));
        let whole = units.iter().enumerate().filter(|u| is_whole(&u)).map(|(i, _)| i).collect();
        let mut renewals = wanted.clone();
        let mut not_renewed = BTreeMap::new();
        let (storage, shared) = loop {
            let options = StorageOptions {
                symbols: Some(symbols),
                apart: &apart,
                renewals: &renewals,
                whole: &whole,
                ..StorageOptions::default()
            };
            let storage = match sharing {
                true => choice::assign(function, &ops, ahead, &options),
                false => djinn_lifetime::assign(function, &ops, ahead, &choice::nothing(&options)),
            };
            let shared = several_devices(&function.graph, &storage, units, &target.topology);
            // What several devices touch does not stay on one of them, and then neither part of the pair does.
            let elsewhere =
                |v: &ValueId| storage.root[v.0 as usize].is_some_and(|root| shared.contains(&root));
            let before = renewals.len();
            renewals.retain(|new, old| {
                let stays = !elsewhere(new) && !elsewhere(old);
                if !stays {
                    not_renewed.insert(*new, "several devices read it".to_owned());
                }
                stays
            });
            if renewals.len() == before {
                break (storage, shared);
            }
        };
        for (v, why) in &storage.not_renewed {
            not_renewed.insert(*v, (*why).to_owned());
            renewals.remove(v);
        }
        renewals.retain(|new, old| {
            let same = storage.root[new.0 as usize] == storage.root[old.0 as usize];
            if !same {
                not_renewed.insert(*new, "nothing shares bytes in this plan".to_owned());
            }
            same
        });
        let homes = djinn_lifetime::homes(function, &ops);
        Places {
            homes: homes.into_iter().map(|h| h.map(str::to_owned)).collect(),
            bound: vec![Vec::new(); storage.buffers.len()],
            constants: vec![Vec::new(); graph.value_capacity()],
            views: Vec::new(),
            shared,
            renewed: renewals,
            not_renewed,
            storage,
        }
    }

    /// Does a value have bytes of a run or a state?
    pub(crate) fn is_stored(&self, v: ValueId) -> bool {
        self.root(v).is_some()
    }

    fn root(&self, v: ValueId) -> Option<StorageId> {
        self.storage.root[v.0 as usize]
    }

    /// The name of the device where a value is made, or an argument first read.
    pub(crate) fn home(&self, v: ValueId) -> Option<String> {
        self.homes[v.0 as usize].clone()
    }

    /// The device where a value first was.
    pub(crate) fn device(&self, v: ValueId) -> Option<DeviceId> {
        let constant = || self.constants[v.0 as usize].first().map(|(d, _)| *d);
        self.root(v).and_then(|root| self.bound[root.index()].first().map(|(d, _)| *d)).or_else(constant)
    }

    /// The other devices where the buffer of a value is.
    pub(crate) fn other_copies(&self, v: ValueId, device: DeviceId) -> Vec<DeviceId> {
        let bound = self.root(v).map(|root| &self.bound[root.index()]);
        bound.into_iter().flatten().map(|(d, _)| *d).filter(|d| *d != device).collect()
    }

    /// Notes a view of an input: further devices that the input is brought to have it too.
    pub(crate) fn note_view(&mut self, id: OpId, result: ValueId) {
        let kind = self.root(result).map(|root| self.storage.buffers[root.index()].kind);
        if matches!(kind, Some(StorageKind::Input(_))) {
            self.views.push(id);
        }
    }

    /// Do several devices touch the bytes of a value, memory of hosts aside? Such a value cannot stay on one of them.
    pub(crate) fn is_shared(&self, v: ValueId) -> bool {
        self.root(v).is_some_and(|root| self.shared.contains(&root))
    }

    fn buffer(&self, v: ValueId, device: DeviceId) -> Option<BufferId> {
        let bound = &self.bound[self.root(v)?.index()];
        bound.iter().find(|(d, _)| *d == device).map(|(_, buffer)| *buffer)
    }

    /// Do two values share all their bytes?
    pub(crate) fn same(&self, a: ValueId, b: ValueId) -> bool {
        let at = |v: ValueId| (self.root(v), &self.storage.offset[v.0 as usize]);
        self.root(a).is_some() && at(a) == at(b)
    }
}

/// The buffers that units of several devices read or write. A transfer touches its operand for the device that it brings
/// it to, unless that is the memory of a host.
fn several_devices(
    graph: &Graph,
    storage: &Storage,
    units: &[Unit],
    topology: &Topology,
) -> BTreeSet<StorageId> {
    let mut touched: BTreeMap<StorageId, BTreeSet<usize>> = BTreeMap::new();
    for (unit, _) in units.iter().zip(&storage.skipped).filter(|(_, skipped)| !**skipped) {
        let first = graph.op(unit.ops[0]);
        let device = match (unit.kind, first.annotated_str("device")) {
            (UnitKind::Transfer, _) => topology.device_index(first.attrs.str("device")),
            (_, Some(name)) => topology.device_index(name),
            (_, None) => Some(0),
        };
        let ops = unit.ops.iter().map(|id| graph.op(*id));
        for v in ops.flat_map(|op| op.operands.iter().chain(&op.results)) {
            if let (Some(root), Some(device)) = (storage.root[v.0 as usize], device) {
                touched.entry(root).or_default().insert(device);
            }
        }
    }
    touched.into_iter().filter(|(_, devices)| devices.len() > 1).map(|(root, _)| root).collect()
}

impl Drafter<'_, '_> {
    pub(crate) fn bytes(&self, v: ValueId) -> Result<u64> {
        max_bytes(self.function.graph.ty(v), self.symbols)
    }

    pub(crate) fn is_ahead(&self, v: ValueId) -> bool {
        self.ahead[v.0 as usize]
    }

    /// Where a value can be read on a device; brings inputs there on `stream`.
    pub(crate) fn read(&mut self, v: ValueId, device: DeviceId, stream: StreamId) -> Result<Operand> {
        let value = self.value(v);
        if self.is_ahead(v) {
            return Ok(Operand { value, view: self.constant(v, device)? });
        }
        if self.places.buffer(v, device).is_none() {
            self.bring(v, device, stream)?;
        }
        if let Definition::Argument(n) = self.function.graph.value(v).def {
            self.bind_state(n, v, device)?;
        }
        Ok(Operand { value, view: self.view(v, device)? })
    }

    /// Where a command on a device writes a value.
    pub(crate) fn write(&mut self, v: ValueId, device: DeviceId) -> Result<View> {
        if self.places.buffer(v, device).is_none() {
            let root = self.places.root(v).ok_or_else(|| missing(v))?;
            let elsewhere = !self.places.bound[root.index()].is_empty();
            let buffer = match self.places.storage.buffers[root.index()].kind {
                _ if elsewhere => return Err(self.elsewhere(v, device)),
                StorageKind::Input(_) => return Err(missing(v)),
                StorageKind::State(n) => self.state_buffer(n, device)?,
                StorageKind::Temporary => self.run_buffer(root, device)?,
            };
            self.places.bound[root.index()].push((device, buffer));
        }
        self.view(v, device)
    }

    /// Makes the results of a view or concatenation the bytes that they are, on a device.
    pub(crate) fn alias_at(&mut self, id: OpId, device: DeviceId, stream: StreamId) -> Result<()> {
        let op = self.function.graph.op(id);
        let parts = if op.kind == OpKind::Concat { &op.operands[..] } else { &op.operands[..1] };
        let mut of = Vec::new();
        for v in parts {
            of.push(self.read(*v, device, stream)?);
        }
        let v = op.results[0];
        let view = self.view(v, device)?;
        self.entry.aliases.push(Alias { value: Operand { value: self.value(v), view }, of });
        Ok(())
    }

    /// The bytes of a value whose buffer is on a device.
    fn view(&self, v: ValueId, device: DeviceId) -> Result<View> {
        let buffer = self.places.buffer(v, device).ok_or_else(|| self.elsewhere(v, device))?;
        let root = self.places.root(v).ok_or_else(|| missing(v))?;
        let info = &self.places.storage.buffers[root.index()];
        let offset = &self.places.storage.offset[v.0 as usize];
        let whole = self.shared.plan.buffers[buffer.index()].bytes;
        // What stays is as large as it becomes in any entry.
        if offset.is(0) && self.is_whole(v, &info.bytes) && !self.shared.is_kept(buffer) {
            return Ok(View { buffer, offset: 0, bytes: whole });
        }
        let offset = max_size(offset, self.symbols)?;
        Ok(View { buffer, offset, bytes: self.bytes(v)? })
    }

    /// Has a value as many bytes as its buffer, whatever the sizes?
    fn is_whole(&self, v: ValueId, bytes: &Dim) -> bool {
        let own = &self.places.storage.bytes[v.0 as usize];
        own == bytes || own.bounds(self.symbols) == bytes.bounds(self.symbols)
    }

    fn constant(&mut self, v: ValueId, device: DeviceId) -> Result<View> {
        if let Some((_, view)) = self.places.constants[v.0 as usize].iter().find(|(d, _)| *d == device) {
            return Ok(*view);
        }
        let view = self.shared.constant(self.f, v, device, &self.positions)?;
        self.entry.constants.push(Operand { value: self.value(v), view });
        self.places.constants[v.0 as usize].push((device, view));
        Ok(view)
    }

    /// Brings the argument that a value is a view of to a device, and its views with it.
    fn bring(&mut self, v: ValueId, device: DeviceId, stream: StreamId) -> Result<()> {
        let root = self.places.root(v).ok_or_else(|| missing(v))?;
        let further = !self.places.bound[root.index()].is_empty();
        let buffer = match self.places.storage.buffers[root.index()].kind {
            StorageKind::Temporary => return Err(self.elsewhere(v, device)),
            StorageKind::State(_) if further => return Err(self.elsewhere(v, device)),
            StorageKind::State(n) => self.state_buffer(n, device)?,
            StorageKind::Input(n) => self.input_buffer(n, device, stream)?,
        };
        self.places.bound[root.index()].push((device, buffer));
        let views: Vec<OpId> = self.places.views.clone();
        for id in views.into_iter().filter(|_| further) {
            let result = self.function.graph.op(id).results[0];
            if self.places.root(result) == Some(root) {
                self.alias_at(id, device, stream)?;
            }
        }
        Ok(())
    }

    fn state_buffer(&mut self, n: u32, device: DeviceId) -> Result<BufferId> {
        let bytes = self.bytes(self.function.graph.arguments[n as usize])?;
        let view = self.shared.state(&self.function.arguments[n as usize].0, bytes, device)?;
        Ok(view.buffer)
    }

    /// Notes that a state is read.
    fn bind_state(&mut self, n: u32, v: ValueId, device: DeviceId) -> Result<()> {
        if self.is_state(n) && !self.entry.states.iter().any(|s| s.argument == n) {
            let view = self.view(v, device)?;
            self.entry.states.push(StateBinding { argument: n, view });
        }
        Ok(())
    }

    /// A buffer for an input; a command on `stream` brings it from the caller, unless it stays on the device.
    fn input_buffer(&mut self, n: u32, device: DeviceId, stream: StreamId) -> Result<BufferId> {
        let v = self.function.graph.arguments[n as usize];
        let bytes = self.bytes(v)?;
        let Some(port) = self.input_of.get(&n).copied() else {
            return Err(internal("plan.input", format!("argument {n} is no input")));
        };
        let (resident, first) = (self.entry.inputs[port].resident, self.entry.inputs[port].view.is_none());
        if resident && !first {
            return Err(self.elsewhere(v, device));
        }
        let buffer = if resident {
            self.shared.kept(self.f, v, device).ok_or_else(|| missing(v))?
        } else {
            self.new_buffer(v, bytes, device)
        };
        let view = View { buffer, offset: 0, bytes };
        if first {
            self.entry.inputs[port].view = Some(view);
        }
        if !resident {
            let (from, to) = (Place::Input(port as u32), Place::Buffer(view));
            let value = ValueRef::Argument(n);
            let seconds = self.costs.host_copy(device, bytes);
            let action = Action::Copy { value, result: value, from, to, reason: CopyReason::Input, seconds };
            self.push(stream, action, Vec::new(), vec![view]);
        }
        Ok(buffer)
    }

    /// A buffer of this run, or one that the caller keeps if it holds such a result.
    fn run_buffer(&mut self, root: StorageId, device: DeviceId) -> Result<BufferId> {
        let info = &self.places.storage.buffers[root.index()];
        let Some(first) = info.values.first().copied() else {
            return Err(internal("plan.storage", "a buffer holds no value"));
        };
        let fills = info
            .values
            .iter()
            .copied()
            .find(|v| self.places.storage.offset[v.0 as usize].is(0) && self.is_whole(*v, &info.bytes));
        let bytes = match fills {
            Some(v) => self.bytes(v)?,
            None => max_size(&info.bytes, self.symbols)?,
        };
        let outputs = info.values.iter().filter_map(|v| Some((*v, self.outputs_of.get(v)?)));
        let kept = outputs.flat_map(|(v, all)| all.iter().map(move |n| (v, *n)));
        let kept = kept.into_iter().find(|(_, n)| self.entry.outputs[*n].resident);
        Ok(match kept {
            Some((v, _)) => self.shared.kept(self.f, v, device).ok_or_else(|| missing(v))?,
            None => self.new_buffer(fills.unwrap_or(first), bytes, device),
        })
    }

    /// A buffer of this run, named after a value.
    fn new_buffer(&mut self, v: ValueId, bytes: u64, device: DeviceId) -> BufferId {
        let name = buffer_name(self.function, v);
        let host = self.shared.plan.devices[device.index()].host;
        let kind = if host { ArenaKind::Spill } else { ArenaKind::Activations };
        let arena = self.shared.arena(device, kind);
        let buffer = self.shared.buffer(name, arena, bytes, Content::Run { entry: self.number });
        self.packed.push(buffer);
        buffer
    }

    fn elsewhere(&self, v: ValueId, device: DeviceId) -> Box<Diagnostic> {
        let name = &self.shared.plan.devices[device.index()].name;
        internal("plan.transfer", format!("%{} is read on {name} but was never brought there", v.0))
            .help("the colocate pass inserts a transfer wherever a value crosses devices")
    }
}

fn missing(v: ValueId) -> Box<Diagnostic> {
    internal("plan.storage", format!("%{} has no place", v.0))
}
