//! What the order of units means for memory: which buffers are live when, and how many bytes they take.
//!
//! A buffer of a run is live from the first unit that writes it (or, for an input, reads it) to the last one that reads
//! or writes it. While a unit runs, its operands and results are live together, unless a result is written over an
//! operand that dies. States, weights and what the caller keeps on the device take the same bytes whatever the order;
//! they count as *resident*.

use crate::storage::{StorageKind, StorageOptions, assign, homes};
use crate::units::{is_ahead, owners};
use djinn_cost::CostModel;
use djinn_ir::ops::{CostClass, traits};
use djinn_ir::{Dim, Function, Graph, OpId, OpKind, SymbolTable, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes that buffers are rounded up to: where an arena may place them.
const GRANULE: u64 = 256;

/// A buffer of one run.
#[derive(Debug, Clone)]
pub(crate) struct Buffer {
    /// Bytes.
    pub(crate) bytes: u64,
    /// Number of its device in [`Model::devices`].
    pub(crate) device: usize,
    /// Units that read or write it.
    pub(crate) accessors: Vec<u32>,
    /// Is it made by the run, so that something may be written over it?
    pub(crate) made: bool,
    /// Values in it.
    pub(crate) values: Vec<ValueId>,
}

/// Units, the order between them, and the buffers that they touch.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    /// Units in the given order.
    pub(crate) units: Vec<Vec<OpId>>,
    /// Units that each unit has to come after.
    pub(crate) before: Vec<Vec<u32>>,
    /// Units that have to come after each unit.
    pub(crate) after: Vec<Vec<u32>>,
    /// Buffers.
    pub(crate) buffers: Vec<Buffer>,
    /// Buffers that each unit touches.
    pub(crate) touches: Vec<Vec<u32>>,
    /// For each unit, results that may be written over an operand: (result, operand), both buffers.
    pub(crate) over: Vec<Vec<(u32, u32)>>,
    /// Names of the devices; the first is that of operations without one.
    pub(crate) devices: Vec<String>,
    /// Bytes on each device that do not depend on the order.
    pub(crate) resident: Vec<Resident>,
}

/// What a function is run with.
#[derive(Clone, Copy)]
pub(crate) struct Setting<'a> {
    /// Sizes and times.
    pub(crate) cost: CostModel<'a>,
    /// The device of operations without one.
    pub(crate) main: &'a str,
    /// The symbols, each with the one size that it has for `cost`.
    pub(crate) sizes: &'a SymbolTable,
    /// Names of memory that is not counted.
    pub(crate) hosts: &'a BTreeSet<String>,
    /// Arguments and results that stay on the device between runs.
    pub(crate) kept: &'a BTreeSet<ValueId>,
}

/// Bytes of a device that do not depend on the order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Resident {
    /// Weights, constants and what is computed from them ahead of time.
    pub(crate) weights: u64,
    /// States.
    pub(crate) states: u64,
    /// Inputs and results that stay on the device between runs.
    pub(crate) kept: u64,
}

impl Resident {
    /// All together.
    pub(crate) fn total(&self) -> u64 {
        self.weights.saturating_add(self.states).saturating_add(self.kept)
    }
}

/// The most bytes that are live at once on each device, and the positions in the order where that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peaks {
    /// Bytes by device.
    pub(crate) bytes: Vec<u64>,
    /// First position of the peak by device.
    pub(crate) position: Vec<usize>,
}

impl Peaks {
    /// Is no device worse off than with `other`, and some better?
    pub(crate) fn better_than(&self, other: &Peaks) -> bool {
        self.bytes != other.bytes && self.bytes.iter().zip(&other.bytes).all(|(a, b)| a <= b)
    }

    /// The peaks of all devices together.
    pub(crate) fn total(&self) -> u64 {
        self.bytes.iter().fold(0, |sum, b| sum.saturating_add(*b))
    }
}

impl Model {
    /// The model of a function's units.
    pub(crate) fn new(
        function: &Function,
        ahead: &[bool],
        units: Vec<Vec<OpId>>,
        setting: &Setting<'_>,
    ) -> Self {
        let n = units.len();
        let mut model = Model {
            units,
            before: vec![Vec::new(); n],
            after: vec![Vec::new(); n],
            buffers: Vec::new(),
            touches: vec![Vec::new(); n],
            over: vec![Vec::new(); n],
            devices: vec![setting.main.to_owned()],
            resident: vec![Resident::default()],
        };
        let owner = owners(&function.graph, &model.units);
        model.add_buffers(function, ahead, &owner, setting);
        model.add_dependences(&function.graph, &owner);
        for list in model.before.iter_mut() {
            list.sort_unstable();
            list.dedup();
        }
        for u in 0..n {
            for &b in &model.before[u] {
                model.after[b as usize].push(u as u32);
            }
        }
        model
    }

    fn add_dependences(&mut self, graph: &Graph, owner: &[Option<usize>]) {
        let mut impure = None;
        for (u, ops) in self.units.iter().enumerate() {
            for id in ops {
                let op = graph.op(*id);
                let makers = op.operands.iter().filter_map(|v| owner[graph.definition(*v)?.0.0 as usize]);
                self.before[u].extend(makers.filter(|m| *m != u).map(|m| m as u32));
            }
            // Operations that may have effects keep their order.
            if ops.iter().any(|id| !graph.op(*id).kind.def().has(traits::PURE)) {
                self.before[u].extend(impure);
                impure = Some(u as u32);
            }
        }
    }

    fn add_buffers(
        &mut self,
        function: &Function,
        ahead: &[bool],
        owner: &[Option<usize>],
        setting: &Setting<'_>,
    ) {
        let graph = &function.graph;
        let kept = |v: &ValueId| setting.kept.contains(v);
        // What is written in place depends on the order, but for the states, whose order is kept.
        let renewals = crate::storage::renewals(function, setting.kept);
        let options = StorageOptions {
            in_place: false,
            apart: setting.kept,
            renewals: &renewals,
            symbols: Some(setting.sizes),
            ..StorageOptions::default()
        };
        let storage = assign(function, &self.units, ahead, &options);
        for &(first, second) in &storage.must_precede {
            self.before[second].push(first as u32);
        }
        let mut readers: BTreeMap<ValueId, Vec<u32>> = BTreeMap::new();
        for (u, ops) in self.units.iter().enumerate().filter(|(u, _)| !storage.skipped[*u]) {
            for v in ops.iter().flat_map(|id| &graph.op(*id).operands) {
                readers.entry(*v).or_default().push(u as u32);
            }
        }
        let maker = |v: ValueId| graph.definition(v).and_then(|(id, _)| owner[id.0 as usize]);
        let homes = homes(function, &self.units);
        let mut number_of: Vec<Option<u32>> = vec![None; storage.buffers.len()];
        for (i, info) in storage.buffers.iter().enumerate().filter(|(_, info)| !info.values.is_empty()) {
            let bytes = granules(&info.bytes, &setting.cost);
            // The device of the value that is no view; of an argument there is none but that.
            let first = info.values.iter().find(|v| maker(**v).is_none_or(|u| !storage.skipped[u]));
            let device = self.device_number(first.and_then(|v| homes[v.0 as usize]));
            match info.kind {
                _ if self.devices.get(device).is_some_and(|d| setting.hosts.contains(d)) => {}
                StorageKind::State(_) => add(&mut self.resident[device].states, bytes),
                _ if info.values.iter().any(kept) => add(&mut self.resident[device].kept, bytes),
                StorageKind::Input(_) | StorageKind::Temporary => {
                    let makers =
                        info.values.iter().filter_map(|v| maker(*v)).filter(|u| !storage.skipped[*u]);
                    let mut accessors: Vec<u32> = makers.map(|u| u as u32).collect();
                    accessors.extend(info.values.iter().filter_map(|v| readers.get(v)).flatten());
                    accessors.sort_unstable();
                    accessors.dedup();
                    for &u in &accessors {
                        self.touches[u as usize].push(self.buffers.len() as u32);
                    }
                    number_of[i] = Some(self.buffers.len() as u32);
                    let made = info.kind == StorageKind::Temporary;
                    self.buffers.push(Buffer { bytes, device, accessors, made, values: info.values.clone() });
                }
            }
        }
        self.add_weights(graph, ahead, &setting.cost);
        self.add_reuse(graph, owner, |v| number_of[storage.root[v.0 as usize]?.index()]);
    }

    fn device_number(&mut self, name: Option<&str>) -> usize {
        let Some(name) = name else { return 0 };
        if let Some(i) = self.devices.iter().position(|d| d == name) {
            return i;
        }
        self.devices.push(name.to_owned());
        self.resident.push(Resident::default());
        self.devices.len() - 1
    }

    /// Values known ahead of time, once for each device that reads them. Those that are copied to it in the run are on
    /// the host.
    fn add_weights(&mut self, graph: &Graph, ahead: &[bool], cost: &CostModel<'_>) {
        let mut seen = BTreeSet::new();
        for u in 0..self.units.len() {
            let first = graph.op(self.units[u][0]);
            if first.kind == OpKind::Transfer {
                continue;
            }
            let home = first.annotated_str("device").map(str::to_owned);
            let device = self.device_number(home.as_deref());
            for v in self.units[u].iter().flat_map(|id| &graph.op(*id).operands) {
                if ahead[v.0 as usize] && seen.insert((device, *v)) {
                    let bytes =
                        granules(&(&graph.ty(*v).numel() * &Dim::from(graph.ty(*v).dtype.size())), cost);
                    add(&mut self.resident[device].weights, bytes);
                }
            }
        }
    }

    /// Finds the elementwise units whose result may be written over an operand.
    fn add_reuse(&mut self, graph: &Graph, owner: &[Option<usize>], buffer: impl Fn(ValueId) -> Option<u32>) {
        for u in 0..self.units.len() {
            let ops = &self.units[u];
            let elementwise = |id: &OpId| {
                let def = graph.op(*id).kind.def();
                def.cost == CostClass::Elementwise && def.has(traits::BROADCAST)
            };
            if !ops.iter().all(elementwise) {
                continue;
            }
            let outside =
                |v: &&ValueId| graph.definition(**v).is_none_or(|(id, _)| owner[id.0 as usize] != Some(u));
            let mut pairs = Vec::new();
            for result in ops.iter().flat_map(|id| &graph.op(*id).results) {
                let Some(to) = buffer(*result) else { continue };
                for operand in ops.iter().flat_map(|id| &graph.op(*id).operands).filter(outside) {
                    let same = graph.ty(*operand).shape == graph.ty(*result).shape;
                    let Some(from) = buffer(*operand).filter(|from| same && *from != to) else { continue };
                    let (a, b) = (&self.buffers[to as usize], &self.buffers[from as usize]);
                    if b.made && a.bytes == b.bytes && a.device == b.device && !pairs.contains(&(to, from)) {
                        pairs.push((to, from));
                    }
                }
            }
            self.over[u] = pairs;
        }
    }

    /// Runs the units in this order and measures what is live.
    pub(crate) fn simulate(&self, order: &[u32]) -> Peaks {
        let mut run = Run::new(self);
        let mut peaks = Peaks { bytes: vec![0; self.devices.len()], position: vec![0; self.devices.len()] };
        for (position, &u) in order.iter().enumerate() {
            run.step(u as usize, |device, bytes| {
                if bytes > peaks.bytes[device] {
                    peaks.bytes[device] = bytes;
                    peaks.position[device] = position;
                }
            });
        }
        peaks
    }
}

/// The buffers while units run one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Run<'a> {
    model: &'a Model,
    /// Accessors of each buffer that have not run.
    pub(crate) open: Vec<u32>,
    /// Live bytes on each device.
    pub(crate) live: Vec<u64>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(model: &'a Model) -> Self {
        let open = model.buffers.iter().map(|b| b.accessors.len() as u32).collect();
        Run { model, open, live: vec![0; model.devices.len()] }
    }

    /// Has nothing touched the buffer yet?
    pub(crate) fn is_new(&self, buffer: u32) -> bool {
        self.open[buffer as usize] as usize == self.model.buffers[buffer as usize].accessors.len()
    }

    /// Runs a unit; `busy` hears what is live on a device meanwhile, if that changed.
    pub(crate) fn step(&mut self, u: usize, mut busy: impl FnMut(usize, u64)) {
        let model = self.model;
        for &b in &model.touches[u] {
            if self.is_new(b) {
                let buffer = &model.buffers[b as usize];
                self.live[buffer.device] = self.live[buffer.device].saturating_add(buffer.bytes);
            }
        }
        // One result may take the place of one dying operand.
        let mut taken: [u32; 4] = [u32::MAX; 4];
        let mut saved = 0;
        for &(to, from) in &model.over[u] {
            let fits = self.is_new(to) && self.open[from as usize] == 1;
            if fits && saved < 2 && !taken.contains(&to) && !taken.contains(&from) {
                (taken[2 * saved], taken[2 * saved + 1]) = (to, from);
                saved += 1;
            }
        }
        for &b in &model.touches[u] {
            let device = model.buffers[b as usize].device;
            let credit: u64 = (0..saved)
                .filter(|i| model.buffers[taken[2 * i] as usize].device == device)
                .map(|i| model.buffers[taken[2 * i] as usize].bytes)
                .sum();
            busy(device, self.live[device].saturating_sub(credit));
        }
        for &b in &model.touches[u] {
            self.open[b as usize] -= 1;
            if self.open[b as usize] == 0 {
                let buffer = &model.buffers[b as usize];
                self.live[buffer.device] = self.live[buffer.device].saturating_sub(buffer.bytes);
            }
        }
    }
}

/// Bytes at the sizes of `cost`, rounded up to where buffers may be placed.
fn granules(bytes: &Dim, cost: &CostModel<'_>) -> u64 {
    let bytes = bytes.eval(&|s| Some(cost.symbol(s))).unwrap_or(i64::MAX);
    u64::try_from(bytes).unwrap_or(0).next_multiple_of(GRANULE)
}

fn add(sum: &mut u64, bytes: u64) {
    *sum = sum.saturating_add(bytes);
}

/// Operations known ahead of time first, as they stood, then the units in this order.
pub(crate) fn op_order(graph: &Graph, ahead: &[bool], model: &Model, order: &[u32]) -> Vec<OpId> {
    let early = graph.ops().filter(|(_, op)| is_ahead(op, ahead)).map(|(id, _)| id);
    early.chain(order.iter().flat_map(|&u| model.units[u as usize].iter().copied())).collect()
}
