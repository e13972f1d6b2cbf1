//! A function as what the scheduler knows: units of work with seconds, and what needs what.

use djinn_cost::{CostModel, MIN_SHARE};
use djinn_device::Target;
use djinn_diag::{Result, internal};
use djinn_ir::walk::known_before_runs;
use djinn_ir::{Function, Graph, Op, OpId, OpKind, SymbolTable, ValueId};
use djinn_schedule::{Dag, Node};
use std::collections::BTreeMap;

/// What runs a unit: the kernels of a device, or the engines that copy to and from it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Engine {
    /// Number of the device in the topology; none for the host and for names that the topology does not have.
    pub(crate) device: Option<usize>,
    /// Name of the device; empty for the first one.
    name: String,
    /// Copies, not kernels.
    pub(crate) copies: bool,
}

/// The units of a function.
pub(crate) struct Units {
    /// The unit of every operation that runs.
    pub(crate) unit_of: Vec<(OpId, usize)>,
    /// Seconds, share and engine (as group) of every unit.
    pub(crate) nodes: Vec<Node>,
    /// What needs what.
    pub(crate) dag: Dag,
    /// What runs units, by group.
    pub(crate) engines: Vec<Engine>,
    /// What each wait for an event costs: the most over the devices, see [`djinn_device::Profile::sync_seconds`].
    pub(crate) sync_seconds: f64,
}

/// One unit while they are collected.
struct Unit {
    ops: Vec<OpId>,
    engine: Engine,
    /// For a transfer, the name of the device that holds the operand.
    from: Option<String>,
}

/// Collects the units of a function and what each costs.
///
/// # Errors
/// `streams.kernels` if kernel groups wait for one another.
pub(crate) fn units(function: &Function, target: &Target, symbols: &SymbolTable) -> Result<Units> {
    let graph = &function.graph;
    let ahead = known_before_runs(function);
    let mut collector = Collector::new(graph, target, &ahead);
    let is_ahead = |v: &ValueId| ahead.get(v.0 as usize).is_some_and(|a| *a);
    for (id, op) in graph.ops() {
        if op.results.is_empty() || !op.results.iter().all(is_ahead) {
            collector.take(id, op);
        }
    }
    collector.finish(symbols)
}

struct Collector<'a> {
    graph: &'a Graph,
    target: &'a Target,
    /// Which values are known ahead of time, by value number.
    ahead: &'a [bool],
    units: Vec<Unit>,
    unit_of: Vec<(OpId, usize)>,
    by_kernel: BTreeMap<i64, usize>,
    /// The unit that computes each value.
    producer: Vec<Option<usize>>,
    edges: Vec<(usize, usize)>,
}

impl<'a> Collector<'a> {
    fn new(graph: &'a Graph, target: &'a Target, ahead: &'a [bool]) -> Collector<'a> {
        Collector {
            graph,
            target,
            ahead,
            units: Vec::new(),
            unit_of: Vec::new(),
            by_kernel: BTreeMap::new(),
            producer: vec![None; graph.value_capacity()],
            edges: Vec::new(),
        }
    }

    fn take(&mut self, id: OpId, op: &Op) {
        let kernel = op.annotated_int("kernel").filter(|_| op.kind != OpKind::Transfer);
        // A view that no kernel computes is the bytes of its operand: there when its producer is complete.
        let viewed = op.operands.first().and_then(|v| self.producer[v.0 as usize]);
        let known = match kernel {
            Some(kernel) => self.by_kernel.get(&kernel).copied(),
            None => viewed.filter(|_| op.kind == OpKind::Reshape),
        };
        let unit = match known {
            Some(unit) if kernel.is_none() => {
                self.unit_of.push((id, unit));
                op.results.iter().for_each(|v| self.producer[v.0 as usize] = Some(unit));
                return;
            }
            Some(unit) => unit,
            None => {
                let (engine, from) = self.engine(op);
                self.units.push(Unit { ops: Vec::new(), engine, from });
                let unit = self.units.len() - 1;
                if let Some(kernel) = kernel {
                    self.by_kernel.insert(kernel, unit);
                }
                unit
            }
        };
        self.units[unit].ops.push(id);
        self.unit_of.push((id, unit));
        let producers = op.operands.iter().filter_map(|v| self.producer[v.0 as usize]);
        self.edges.extend(producers.filter(|p| *p != unit).map(|p| (p, unit)));
        for v in &op.results {
            self.producer[v.0 as usize] = Some(unit);
        }
    }

    fn named(&self, name: &str, copies: bool) -> Engine {
        let devices = self.target.topology.devices();
        // What says nothing of its device is on the first one.
        let device = if name.is_empty() { Some(0) } else { self.target.topology.device_index(name) };
        let device = device.filter(|d| *d < devices.len());
        let name = device.map_or(name, |d| &devices[d].name);
        Engine { device, name: name.to_owned(), copies }
    }

    /// What runs an operation; for a transfer also the device that it copies from.
    ///
    /// A copy to the host is the work of the device that it comes from, any other of the one that it goes to.
    ///
    /// What is known ahead of time and copied in the run comes from the host of the device.
    fn engine(&self, op: &Op) -> (Engine, Option<String>) {
        if op.kind != OpKind::Transfer {
            return (self.named(op.annotated_str("device").unwrap_or(""), false), None);
        }
        let ahead = |v: &ValueId| self.ahead.get(v.0 as usize).is_some_and(|a| *a);
        if op.operands.first().is_some_and(ahead) {
            let to = self.named(op.attrs.str("device"), true);
            let node = to.device.and_then(|d| self.target.topology.node_of(d));
            let host = node.map_or_else(|| to.name.clone(), |n| n.host.clone());
            return (to, Some(host));
        }
        let unit = op.operands.first().and_then(|v| self.producer[v.0 as usize]);
        let unit = unit.map(|u| &self.units[u]);
        // What a copy engine holds lies where the transfer that made it copied to.
        let last = unit.and_then(|u| u.ops.last()).and_then(|id| self.graph.get_op(*id));
        let from = last.map_or("", |last| match last.kind {
            OpKind::Transfer => last.attrs.str("device"),
            _ => last.annotated_str("device").unwrap_or(""),
        });
        let from = self.named(from, true);
        let to = self.named(op.attrs.str("device"), true);
        let name = from.name.clone();
        (if to.device.is_none() && from.device.is_some() { from } else { to }, Some(name))
    }

    fn finish(self, symbols: &SymbolTable) -> Result<Units> {
        let mut engines: Vec<Engine> = self.units.iter().map(|u| u.engine.clone()).collect();
        engines.sort_unstable();
        engines.dedup();
        let uses = self.graph.use_counts();
        let mut nodes = Vec::with_capacity(self.units.len());
        let mut sync_seconds = 0.0f64;
        for unit in &self.units {
            let model = model(self.target, &unit.engine, symbols);
            sync_seconds = sync_seconds.max(model.profile.sync_seconds());
            let (seconds, share) = match &unit.from {
                Some(from) => (self.transfer_seconds(&model, unit, from), 1.0),
                None => kernel_seconds(&model, self.graph, unit, &uses),
            };
            let group = engines.partition_point(|e| *e < unit.engine);
            nodes.push(Node { seconds: finite(seconds), share, group });
        }
        let dag = Dag::new(self.units.len(), &self.edges).map_err(|e| {
            internal("streams.kernels", format!("kernel groups wait for one another: {e}"))
                .help("run the partition pass again")
        })?;
        Ok(Units { unit_of: self.unit_of, nodes, dag, engines, sync_seconds: finite(sync_seconds) })
    }

    fn transfer_seconds(&self, model: &CostModel, unit: &Unit, from: &str) -> f64 {
        let Some(op) = unit.ops.first().and_then(|id| self.graph.get_op(*id)) else { return 0.0 };
        let Some(ty) = op.results.first().map(|v| self.graph.ty(*v)) else { return 0.0 };
        match self.target.topology.route(from, op.attrs.str("device")) {
            Ok(route) => model.transfer(ty, &route),
            // A topology without such a link: at the speed of the device's link to its host.
            Err(_) => {
                let link = &model.profile.host_link;
                link.latency_seconds + model.bytes(ty) / link.bandwidth
            }
        }
    }
}

fn model<'a>(target: &'a Target, engine: &Engine, symbols: &'a SymbolTable) -> CostModel<'a> {
    CostModel::of_target(target, engine.device.unwrap_or(0), symbols)
}

/// Seconds of a kernel, and the part of the device that it uses, averaged over its launch as well.
fn kernel_seconds(model: &CostModel, graph: &Graph, unit: &Unit, uses: &[u32]) -> (f64, f64) {
    let is_view = |id: &OpId| matches!(graph.op(*id).kind, OpKind::Reshape | OpKind::DynamicReshape);
    if let [only] = unit.ops.as_slice()
        && is_view(only)
    {
        return (0.0, MIN_SHARE);
    }
    let cost = model.group_cost(graph, &unit.ops, uses);
    (cost.seconds, cost.share)
}

fn finite(seconds: f64) -> f64 {
    if seconds.is_finite() && seconds > 0.0 { seconds } else { 0.0 }
}
