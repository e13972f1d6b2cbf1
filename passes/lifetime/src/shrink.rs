//! Under a memory limit: computing values again, or keeping them in host memory, until the peak fits.
//!
//! While some position of the order needs more than the limit, a buffer that is live there without being used is
//! chosen and freed until its next use: the cheapest for the bytes and the time that it is kept away, as dynamic
//! tensor rematerialisation does (Kirisame et al., ICLR 2021: cost over size times staleness), but with the whole
//! graph in view. A choice is taken only if it lowers what is over the limit, summed over all positions.

use crate::model::{Model, Run};
use crate::units::owners;
use djinn_cost::CostModel;
use djinn_diag::{Diagnostic, input, units};
use djinn_ir::graph::Definition;
use djinn_ir::ops::traits;
use djinn_ir::{ArgumentKind, Attrs, Function, Graph, OpId, OpKind, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// The cheapest choices that are tried before giving up.
pub(crate) const TRIES: usize = 16;

/// What frees a buffer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Means {
    /// These operations are run again before the next use.
    Rematerialise(Vec<OpId>),
    /// The value goes to this memory and comes back to this device.
    Spill { host: String, device: String },
}

/// A buffer freed between two uses.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    /// The value that later units use.
    pub(crate) value: ValueId,
    /// Position after which the value is not needed for a while.
    pub(crate) from: usize,
    /// Position before which it has to be back.
    pub(crate) to: usize,
    /// How.
    pub(crate) means: Means,
    /// Seconds for each byte and second that it is away.
    pub(crate) score: f64,
}

/// What is decided about: a function with its units in order, and what they cost.
pub(crate) struct View<'a> {
    pub(crate) function: &'a Function,
    pub(crate) ahead: &'a [bool],
    pub(crate) model: &'a Model,
    pub(crate) cost: CostModel<'a>,
    /// Bytes that each device may use, if that is limited.
    pub(crate) limits: &'a [Option<u64>],
    /// Host memory and seconds for a byte there and back, by device; none if it cannot be reached.
    pub(crate) hosts: &'a [Option<(String, f64)>],
}

/// A place in the order where a device needs too much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Overload {
    /// The device.
    pub(crate) device: usize,
    /// The position where it needs most.
    pub(crate) position: usize,
    /// Bytes of the run that are live there.
    pub(crate) live: u64,
    /// Bytes over the limit, summed over all positions and devices.
    pub(crate) sum: u128,
}

/// Where the most is needed over the limit, if anywhere, when units run in this order.
pub(crate) fn overload(model: &Model, order: &[u32], limits: &[Option<u64>]) -> Option<Overload> {
    if limits.iter().all(Option::is_none) {
        return None;
    }
    let mut run = Run::new(model);
    let mut worst: Option<(u64, Overload)> = None;
    let mut sum: u128 = 0;
    let mut busy = vec![0u64; model.devices.len()];
    for (position, &u) in order.iter().enumerate() {
        busy.fill(0);
        run.step(u as usize, |device, bytes| busy[device] = bytes);
        for (device, live) in busy.iter().copied().enumerate() {
            let Some(limit) = limits.get(device).copied().flatten() else { continue };
            let over = model.resident[device].total().saturating_add(live).saturating_sub(limit);
            sum += u128::from(over);
            if over > 0 && worst.is_none_or(|(most, _)| over > most) {
                worst = Some((over, Overload { device, position, live, sum: 0 }));
            }
        }
    }
    worst.map(|(_, place)| Overload { sum, ..place })
}

/// Ways to free something at an overloaded position, the best first.
pub(crate) fn choices(view: &View<'_>, place: Overload) -> Vec<Choice> {
    let model = view.model;
    let graph = &view.function.graph;
    let owner = owners(graph, &model.units);
    let seconds: Vec<f64> = model.units.iter().map(|ops| unit_seconds(view, ops)).collect();
    let mut until = vec![0.0; seconds.len() + 1];
    for (i, s) in seconds.iter().enumerate() {
        until[i + 1] = until[i] + s;
    }
    let given_back: BTreeSet<ValueId> = graph.results.iter().copied().collect();
    let uses = uses_after(view, place.position);
    let mut found = Vec::new();
    for buffer in model.buffers.iter().filter(|b| b.device == place.device) {
        if buffer.values.iter().any(|v| given_back.contains(v)) {
            continue;
        }
        let p = place.position as u32;
        let Some(&from) = buffer.accessors.iter().take_while(|u| **u < p).last() else { continue };
        if buffer.accessors.contains(&p) {
            continue;
        }
        let early = |v: &&ValueId| maker(graph, &owner, **v).is_some_and(|m| m < place.position);
        let used: Vec<(ValueId, usize)> =
            buffer.values.iter().filter(early).filter_map(|v| Some((*v, *uses.get(v)?))).collect();
        let [(value, to)] = used.as_slice() else { continue };
        let away = (until[*to] - until[from as usize + 1]).max(f64::MIN_POSITIVE);
        let made = maker(graph, &owner, *value).unwrap_or(0);
        let worth = buffer.bytes.max(1) as f64 * away;
        let mut offer = |means: Means, cost: f64| {
            found.push(Choice {
                value: *value,
                from: made.max(from as usize),
                to: *to,
                means,
                score: cost / worth,
            });
        };
        if let Some((host, per_byte)) = view.hosts.get(place.device).and_then(Option::as_ref) {
            let (host, device) = (host.clone(), model.devices[place.device].clone());
            offer(Means::Spill { host, device }, per_byte * view.cost.bytes(graph.ty(*value)));
        }
        if let Some(ops) = recomputable(view, &owner, *value, *to) {
            let cost = unit_seconds(view, &ops);
            offer(Means::Rematerialise(ops), cost);
        }
    }
    found.sort_by(|a, b| a.score.total_cmp(&b.score).then(a.value.cmp(&b.value)).then(a.to.cmp(&b.to)));
    found
}

fn unit_seconds(view: &View<'_>, ops: &[OpId]) -> f64 {
    ops.iter().map(|id| view.cost.graph_op(&view.function.graph, *id, false)).sum()
}

fn maker(graph: &Graph, owner: &[Option<usize>], v: ValueId) -> Option<usize> {
    graph.definition(v).and_then(|(id, _)| owner[id.0 as usize])
}

/// The first unit after a position that has each value as an operand.
fn uses_after(view: &View<'_>, position: usize) -> BTreeMap<ValueId, usize> {
    let mut uses = BTreeMap::new();
    for (u, ops) in view.model.units.iter().enumerate().skip(position + 1) {
        for v in ops.iter().flat_map(|id| &view.function.graph.op(*id).operands) {
            uses.entry(*v).or_insert(u);
        }
    }
    uses
}

/// The operations of a value's unit that make it, if they can run again before unit `to`.
fn recomputable(view: &View<'_>, owner: &[Option<usize>], value: ValueId, to: usize) -> Option<Vec<OpId>> {
    let graph = &view.function.graph;
    let unit = maker(graph, owner, value)?;
    let mut needed = BTreeSet::from([value]);
    let mut ops = Vec::new();
    for id in view.model.units[unit].iter().rev() {
        let op = graph.op(*id);
        if op.results.iter().any(|v| needed.contains(v)) {
            let plain =
                op.kind.def().has(traits::PURE) && op.regions.is_empty() && op.kind != OpKind::Transfer;
            if !plain {
                return None;
            }
            needed.extend(&op.operands);
            ops.push(*id);
        }
    }
    ops.reverse();
    let own = |v: &ValueId| maker(graph, owner, *v) == Some(unit);
    needed.iter().filter(|v| !own(v)).all(|v| is_there(view, *v, to)).then_some(ops)
}

/// Is a value there at a later position without being kept for the purpose?
fn is_there(view: &View<'_>, v: ValueId, position: usize) -> bool {
    if view.ahead[v.0 as usize] {
        return true;
    }
    if let Definition::Argument(n) = view.function.graph.value(v).def {
        // The old value of a state may be gone.
        return matches!(view.function.arguments.get(n as usize), Some((_, ArgumentKind::Input)));
    }
    let mut buffers = view.model.buffers.iter().filter(|b| b.values.contains(&v));
    buffers.any(|b| b.accessors.last().is_some_and(|last| *last as usize >= position))
}

/// The function's body with a choice carried out. Its operations stand in the order of the units.
pub(crate) fn rebuilt(view: &View<'_>, choice: &Choice) -> Graph {
    let old = &view.function.graph;
    let mut body = Rebuild { old, graph: Graph::new(), map: vec![None; old.value_capacity()] };
    for v in &old.arguments {
        let new = body.graph.add_argument(old.ty(*v).clone());
        body.map[v.0 as usize] = Some(new);
    }
    let kernels = old.ops().filter_map(|(_, op)| op.annotated_int("kernel")).max().unwrap_or(-1);
    for (id, op) in old.ops() {
        if crate::units::is_ahead(op, view.ahead) {
            body.copy(id);
        }
    }
    let mut kept = None;
    for (u, ops) in view.model.units.iter().enumerate() {
        if u == choice.to {
            match &choice.means {
                Means::Rematerialise(again) => {
                    for id in again {
                        let new = body.copy(*id);
                        if old.op(*id).annotated_int("kernel").is_some() {
                            body.graph.annotate(new, "kernel", kernels + 1);
                        }
                    }
                }
                Means::Spill { device, .. } => {
                    let back = kept.map(|v| body.transfer(v, device, choice.value));
                    body.map[choice.value.0 as usize] = back.or(body.map[choice.value.0 as usize]);
                }
            }
        }
        for id in ops {
            body.copy(*id);
        }
        if let Means::Spill { host, .. } = &choice.means
            && u == choice.from
            && let Some(v) = body.map[choice.value.0 as usize]
        {
            kept = Some(body.transfer(v, host, choice.value));
        }
    }
    body.graph.results = old.results.iter().filter_map(|v| body.map[v.0 as usize]).collect();
    body.graph
}

/// A graph while it is copied.
struct Rebuild<'a> {
    old: &'a Graph,
    graph: Graph,
    map: Vec<Option<ValueId>>,
}

impl Rebuild<'_> {
    /// Copies an operation; later copies use its results.
    fn copy(&mut self, id: OpId) -> OpId {
        let op = self.old.op(id);
        let operands = op.operands.iter().map(|v| self.map[v.0 as usize].unwrap_or(*v)).collect();
        let types = op.results.iter().map(|v| self.old.ty(*v).clone()).collect();
        let location = op.location.clone();
        let new = self.graph.push(op.kind, operands, op.attrs.clone(), op.regions.clone(), types, location);
        for (name, value) in &op.annotations {
            self.graph.annotate(new, name, value.clone());
        }
        let results = self.graph.op(new).results.clone();
        for (from, to) in op.results.iter().zip(results) {
            self.map[from.0 as usize] = Some(to);
        }
        new
    }

    /// Adds a copy of a value to another memory; `of` is the value in the old graph.
    fn transfer(&mut self, v: ValueId, device: &str, of: ValueId) -> ValueId {
        let location =
            self.old.definition(of).map(|(id, _)| self.old.op(id).location.clone()).unwrap_or_default();
        let ty = self.old.ty(of).clone();
        let attrs = Attrs::new().with("device", device);
        let id = self.graph.push(OpKind::Transfer, vec![v], attrs, Vec::new(), vec![ty], location);
        self.graph.annotate(id, "device", device);
        self.graph.op(id).results[0]
    }
}

/// Says, with the arithmetic, that a limit cannot be kept.
pub(crate) fn does_not_fit(view: &View<'_>, place: Overload) -> Box<Diagnostic> {
    let model = view.model;
    let fixed = model.resident[place.device];
    let limit = view.limits[place.device].unwrap_or(u64::MAX);
    let need = fixed.total().saturating_add(place.live);
    let graph = &view.function.graph;
    let what = model.units[place.position].last().map_or(String::new(), |id| {
        let op = graph.op(*id);
        let scope = op.location.scope.as_deref().map(|s| format!(" of {s}")).unwrap_or_default();
        format!("{}{scope}", op.kind.name())
    });
    let message = format!(
        "function '{}' needs {} on '{}' but may use {}: weights {} + states {} + inputs and caches that stay {} + {} \
         live at once at {what}; {} too many",
        view.function.name,
        units::bytes(need),
        model.devices[place.device],
        units::bytes(limit),
        units::bytes(fixed.weights),
        units::bytes(fixed.states),
        units::bytes(fixed.kept),
        units::bytes(place.live),
        units::bytes(need.saturating_sub(limit)),
    );
    input("lifetime.memory", message)
        .help("allow more memory, bind smaller sizes, place the model on more devices, or keep weights on the host and copy \
               them in every run (--stream-weights)")
}
