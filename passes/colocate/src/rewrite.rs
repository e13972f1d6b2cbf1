//! Writing a placement into a function: annotations, transfers, and cheap operations computed again.

use crate::devices::Devices;
use crate::facts::{Facts, users_by_value};
use crate::model::Placed;
use crate::stream::{Arrived, Streamed};
use djinn_diag::{Result, internal};
use djinn_ir::cleanup::eliminate_dead_code;
use djinn_ir::ops::traits;
use djinn_ir::{
    ArgumentKind, Attr, Attrs, Fuel, Graph, Location, Module, Op, OpId, OpKind, Patch, TensorType, ValueId,
};
use djinn_pass::PassContext;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How far back operations are computed again for one value.
const MAX_RECOMPUTED: usize = 3;

/// Annotates every operation, regions included, that has no device yet; says how many.
pub(crate) fn annotate_all(graph: &mut Graph, device: &Arc<str>) -> u64 {
    let bare = |op: &Op| !op.annotations.contains_key("device");
    let ids: Vec<OpId> = graph.ops().filter(|(_, op)| bare(op)).map(|(id, _)| id).collect();
    let attr = Attr::Str(Arc::clone(device));
    for id in &ids {
        graph.annotate(*id, "device", attr.clone());
    }
    ids.len() as u64
}

/// The function's body with its placement.
pub(crate) fn rewrite(
    module: &Module,
    function: usize,
    facts: &Facts,
    placed: &Placed,
    (devices, streamed): (&Devices, &Streamed),
    cx: &mut PassContext,
) -> Result<Graph> {
    let function = &module.functions[function];
    let graph = &function.graph;
    let position: BTreeMap<OpId, usize> = facts.ops.iter().enumerate().map(|(i, id)| (*id, i)).collect();
    let resident = |i: usize| matches!(function.arguments.get(i), Some((_, ArgumentKind::State { .. })));
    let mut rewriter = Rewriter {
        graph,
        facts,
        placed,
        devices,
        streamed,
        arrived: Arrived::new(),
        fetches: 0,
        everywhere: graph
            .arguments
            .iter()
            .enumerate()
            .filter(|(i, _)| !resident(*i))
            .map(|(_, v)| *v)
            .collect(),
        home: BTreeMap::new(),
        arrivals: BTreeMap::new(),
        repeats: BTreeMap::new(),
        again: BTreeSet::new(),
        position,
        out: Graph::new(),
        names: BTreeMap::new(),
        transfers: 0,
        recomputed: 0,
    };
    rewriter.decide();
    rewriter.spread();
    rewriter.write()?;
    // What is computed again where it is needed may be needed nowhere else.
    eliminate_dead_code(&mut rewriter.out, &mut Fuel::unlimited())?;
    cx.count("operations annotated", rewriter.out.len() as u64);
    cx.count("transfers", rewriter.transfers);
    if streamed.any() {
        cx.count("copies of streamed weights", rewriter.fetches);
    }
    cx.count("operations computed again", rewriter.recomputed);
    let mut result = graph.clone();
    let patch = Patch::replace_body("colocate", rewriter.out);
    cx.apply(patch, &mut result)?;
    Ok(result)
}

struct Rewriter<'a> {
    graph: &'a Graph,
    facts: &'a Facts,
    placed: &'a Placed,
    devices: &'a Devices,
    streamed: &'a Streamed,
    /// Copies of streamed weights.
    arrived: Arrived<ValueId>,
    fetches: u64,
    /// Arguments that every device can read.
    everywhere: BTreeSet<ValueId>,
    position: BTreeMap<OpId, usize>,
    /// The device of each value that a run-time operation makes.
    home: BTreeMap<ValueId, usize>,
    /// Devices where a value arrives by transfer.
    arrivals: BTreeMap<ValueId, BTreeSet<usize>>,
    /// The devices of each operation that runs on every device that needs it.
    repeats: BTreeMap<OpId, BTreeSet<usize>>,
    /// Operations that are computed again, and where.
    again: BTreeSet<(OpId, usize)>,
    out: Graph,
    /// What each value is called in the new body; with a device where it is a copy there.
    names: BTreeMap<(ValueId, Option<usize>), ValueId>,
    transfers: u64,
    recomputed: u64,
}

impl Rewriter<'_> {
    /// Notes where repeated operations are needed: on the devices of all that depends on them.
    fn spread(&mut self) {
        let order: Vec<OpId> = self.graph.ops().map(|(id, _)| id).collect();
        for id in order.into_iter().rev() {
            let devices: BTreeSet<usize> = match self.position.get(&id) {
                Some(&p) => {
                    let again = self.again.iter().filter(|(other, _)| *other == id).map(|(_, d)| *d);
                    again.chain([self.placed.device[p]]).collect()
                }
                None => self.repeats.get(&id).cloned().unwrap_or_default(),
            };
            for v in &self.graph.op(id).operands {
                let source =
                    self.graph.definition(*v).map(|d| d.0).filter(|s| self.facts.repeated.contains(s));
                if let Some(source) = source {
                    self.repeats.entry(source).or_default().extend(&devices);
                }
            }
        }
        for id in &self.facts.repeated {
            // What nothing uses is on the first device until it is removed.
            self.repeats.entry(*id).or_insert_with(|| BTreeSet::from([0]));
        }
    }

    /// Decides for every value that crosses how it gets there.
    fn decide(&mut self) {
        let users = users_by_value(self.facts);
        for (p, id) in self.facts.ops.iter().enumerate() {
            let device = self.placed.device[p];
            for v in self.graph.op(*id).results.iter().filter(|v| !self.facts.ahead[v.0 as usize]) {
                self.home.insert(*v, device);
            }
            for v in &self.graph.op(*id).results {
                let Some(users) = users.get(v) else { continue };
                let is_copy = |user: usize| self.graph.op(self.facts.ops[user]).kind == OpKind::Transfer;
                let wanted: BTreeSet<usize> =
                    users.iter().filter(|u| !is_copy(**u)).map(|u| self.placed.device[*u]).collect();
                for target in wanted.into_iter().filter(|d| *d != device) {
                    self.bring(*v, target);
                }
            }
        }
    }

    /// Decides how a value gets to a device: by transfer, or computed again if that takes less time.
    fn bring(&mut self, v: ValueId, target: usize) {
        let (Some(&home), Some((id, _))) = (self.home.get(&v), self.graph.definition(v)) else { return };
        if self.present(v, target) || self.again.contains(&(id, target)) {
            return;
        }
        let link = self.facts.links[home][target];
        let bytes = self.facts.values.iter().find(|x| x.value == v).map_or(0.0, |x| x.bytes);
        let moved = link.latency + link.seconds_per_byte * bytes;
        let mut needed = BTreeSet::new();
        match self.cost_again(id, target, MAX_RECOMPUTED, &mut needed) {
            Some(seconds) if seconds < moved => self.again.extend(needed.into_iter().map(|id| (id, target))),
            _ => {
                self.arrivals.entry(v).or_default().insert(target);
            }
        }
    }

    /// Whether a device has a value without more work.
    fn present(&self, v: ValueId, device: usize) -> bool {
        let repeated =
            |v: ValueId| self.graph.definition(v).is_some_and(|d| self.facts.repeated.contains(&d.0));
        self.everywhere.contains(&v)
            || repeated(v)
            || self.facts.ahead[v.0 as usize]
            || self.home.get(&v) == Some(&device)
            || self.arrivals.get(&v).is_some_and(|d| d.contains(&device))
    }

    /// Seconds to compute an operation again on a device, with all of `needed`; none if that is not possible.
    fn cost_again(&self, id: OpId, device: usize, depth: usize, needed: &mut BTreeSet<OpId>) -> Option<f64> {
        let op = self.graph.op(id);
        let pure = op.kind.def().has(traits::PURE) && op.regions.is_empty() && op.kind != OpKind::Transfer;
        let p = *self.position.get(&id)?;
        // What the user has pinned stays where it is.
        if depth == 0 || !pure || self.facts.pins[p].is_some() || self.facts.state_of[p].is_some() {
            return None;
        }
        if self.again.contains(&(id, device)) || !needed.insert(id) {
            return Some(0.0);
        }
        let mut seconds = self.facts.seconds[p][device];
        for v in op.operands.iter().filter(|v| !self.present(**v, device)) {
            let (source, _) = self.graph.definition(*v)?;
            seconds += self.cost_again(source, device, depth - 1, needed)?;
        }
        Some(seconds)
    }

    /// Writes the new body.
    fn write(&mut self) -> Result<()> {
        for v in &self.graph.arguments {
            let new = self.out.add_argument(self.graph.ty(*v).clone());
            self.names.insert((*v, None), new);
        }
        let ahead_devices = self.ahead_devices();
        let order: Vec<OpId> = self.graph.ops().map(|(id, _)| id).collect();
        for id in order {
            if let Some(devices) = self.repeats.get(&id).cloned() {
                self.recomputed += devices.len() as u64 - 1;
                for device in devices {
                    self.write_op(id, device, Some(device))?;
                }
                continue;
            }
            let device = match self.position.get(&id) {
                Some(&p) => self.placed.device[p],
                None => ahead_devices.get(&id).copied().unwrap_or(0),
            };
            let left = self.is_left(id, device);
            if !left {
                self.write_op(id, device, None)?;
            }
            let results = self.graph.op(id).results.clone();
            for v in results {
                for target in self.arrivals.get(&v).cloned().unwrap_or_default() {
                    self.write_transfer(id, v, target)?;
                }
            }
            for target in 0..self.devices.names.len() {
                if self.again.contains(&(id, target)) {
                    self.write_op(id, target, Some(target))?;
                    self.recomputed += 1;
                }
            }
            self.recomputed -= u64::from(left);
        }
        let results = self.graph.results.iter().map(|v| self.name(*v, None)).collect::<Result<_>>()?;
        self.out.results = results;
        Ok(())
    }

    /// Whether an operation is computed again elsewhere and needed nowhere else.
    fn is_left(&self, id: OpId, device: usize) -> bool {
        let again = (0..self.devices.names.len()).any(|d| self.again.contains(&(id, d)));
        let needed = |v: &ValueId| {
            let uses = self.facts.values.iter().find(|x| x.value == *v).map_or(&[][..], |x| &x.users);
            let here = |user: &usize| {
                let is_copy = self.graph.op(self.facts.ops[*user]).kind == OpKind::Transfer;
                self.placed.device[*user] == device || is_copy
            };
            self.arrivals.contains_key(v) || self.graph.results.contains(v) || uses.iter().any(here)
        };
        // Operations computed again on this device's account may need it too.
        let feeds = |v: &ValueId| {
            self.again.iter().any(|(other, d)| *d == device && self.graph.op(*other).operands.contains(v))
        };
        again && !self.graph.op(id).results.iter().any(|v| needed(v) || feeds(v))
    }

    /// What a value is called in the new body where this device reads it.
    fn name(&self, v: ValueId, device: Option<usize>) -> Result<ValueId> {
        let copy = device.and_then(|d| self.names.get(&(v, Some(d))));
        copy.or_else(|| self.names.get(&(v, None)))
            .copied()
            .ok_or_else(|| internal("colocate.order", format!("%{} is used before it is made", v.0)))
    }

    fn write_op(&mut self, id: OpId, device: usize, copy: Option<usize>) -> Result<()> {
        let op = self.graph.op(id);
        // A transfer reads where its operand is.
        let reads = (op.kind != OpKind::Transfer).then_some(device);
        let mut operands = op.operands.iter().map(|v| self.name(*v, reads)).collect::<Result<Vec<_>>>()?;
        if self.streamed.any() && !op.results.iter().all(|v| self.facts.ahead[v.0 as usize]) {
            for (v, operand) in op.operands.iter().zip(&mut operands) {
                *operand = self.on_device(*v, *operand, device, id);
            }
        }
        let mut regions = op.regions.clone();
        for region in &mut regions {
            annotate_nested(region, &self.devices.names[device]);
        }
        let types: Vec<TensorType> = op.results.iter().map(|v| self.graph.ty(*v).clone()).collect();
        let new = self.out.push(op.kind, operands, op.attrs.clone(), regions, types, op.location.clone());
        for (name, value) in &op.annotations {
            self.out.annotate(new, name, value.clone());
        }
        if copy.is_some() || !op.annotations.contains_key("device") {
            self.out.annotate(new, "device", Attr::Str(Arc::clone(&self.devices.names[device])));
        }
        let results = self.out.op(new).results.clone();
        for (v, new) in op.results.iter().zip(results) {
            self.names.insert((*v, copy), new);
        }
        Ok(())
    }

    /// A constant as an operation on a device reads it: `name`, or a copy of it if it is streamed there.
    fn on_device(&mut self, v: ValueId, name: ValueId, device: usize, user: OpId) -> ValueId {
        let Some(key) = self.facts.keys.get(&v).filter(|key| self.streamed.has(device, key)) else {
            return name;
        };
        let position = self.out.len();
        if let Some(copy) = self.arrived.near(device, key, position) {
            return copy;
        }
        let target = Arc::clone(&self.devices.names[device]);
        let attrs = Attrs::new().with("device", &*target);
        let types = vec![self.graph.ty(v).clone()];
        let location = self.graph.op(user).location.clone();
        let id = push(&mut self.out, OpKind::Transfer, name, attrs, types, location);
        self.out.annotate(id, "device", Attr::Str(target));
        let copy = self.out.op(id).results[0];
        self.arrived.note(device, key, position, copy);
        self.fetches += 1;
        copy
    }

    fn write_transfer(&mut self, id: OpId, v: ValueId, target: usize) -> Result<()> {
        let (location, mut annotations) = {
            let op = self.graph.op(id);
            (op.location.clone(), op.annotations.clone())
        };
        let name = Arc::clone(&self.devices.names[target]);
        annotations.insert(Arc::from("device"), Attr::Str(Arc::clone(&name)));
        let source = self.name(v, None)?;
        let attrs = Attrs::new().with("device", &*name);
        let types = vec![self.graph.ty(v).clone()];
        let new = push(&mut self.out, OpKind::Transfer, source, attrs, types, location);
        for (name, value) in annotations {
            self.out.annotate(new, &name, value);
        }
        let result = self.out.op(new).results[0];
        self.names.insert((v, Some(target)), result);
        self.transfers += 1;
        Ok(())
    }

    /// Operations that are done ahead of time are annotated with the first device that uses what they make.
    fn ahead_devices(&self) -> BTreeMap<OpId, usize> {
        let mut wanted: BTreeMap<ValueId, usize> = BTreeMap::new();
        let mut devices = BTreeMap::new();
        for (id, op) in self.graph.ops().rev() {
            let device = match self.position.get(&id) {
                Some(&p) => self.placed.device[p],
                None => {
                    let device = op.results.iter().filter_map(|v| wanted.get(v)).min().copied().unwrap_or(0);
                    devices.insert(id, device);
                    device
                }
            };
            for v in &op.operands {
                let entry = wanted.entry(*v).or_insert(device);
                *entry = (*entry).min(device);
            }
        }
        devices
    }
}

fn push(
    out: &mut Graph,
    kind: OpKind,
    operand: ValueId,
    attrs: Attrs,
    types: Vec<TensorType>,
    location: Location,
) -> OpId {
    out.push(kind, vec![operand], attrs, Vec::new(), types, location)
}

/// Operations within regions run where their operation runs.
fn annotate_nested(graph: &mut Graph, device: &Arc<str>) {
    annotate_all(graph, device);
}
