//! What commands cost on the devices of the target, at the largest sizes of an entry.

use crate::units::Unit;
use djinn_cost::CostModel;
use djinn_device::{Profile, Target};
use djinn_diag::Result;
use djinn_ir::{Graph, SymbolTable};
use djinn_plan::{DeviceId, Link, Plan};
use std::collections::BTreeMap;

/// What a kernel costs.
pub(crate) struct KernelCost {
    /// Seconds, launch included.
    pub(crate) seconds: f64,
    /// Multiply-accumulate operations.
    pub(crate) flops: f64,
    /// Bytes read and written.
    pub(crate) bytes: f64,
    /// Share of the device that it occupies.
    pub(crate) share: f64,
}

/// Costs at the sizes of one entry.
pub(crate) struct Costs<'a> {
    target: &'a Target,
    symbols: &'a SymbolTable,
    /// The largest size of every symbol.
    sizes: BTreeMap<String, i64>,
    /// [`Graph::use_counts`] of the function.
    uses: Vec<u32>,
}

impl<'a> Costs<'a> {
    /// Costs of the operations of a graph.
    pub(crate) fn new(target: &'a Target, symbols: &'a SymbolTable, graph: &Graph) -> Self {
        let largest = symbols.0.iter().filter_map(|(s, info)| Some((s.name().to_owned(), info.max?)));
        Costs { target, symbols, sizes: largest.collect(), uses: graph.use_counts() }
    }

    fn profile(&self, device: DeviceId) -> &'a Profile {
        let info = self.target.topology.devices().get(device.index());
        // Not an argument of `map_or`: built-in profiles are parsed when first asked for.
        match info {
            Some(device) => &device.profile,
            None => Profile::generic(),
        }
    }

    /// The cost of a unit on a device.
    pub(crate) fn kernel(&self, graph: &Graph, unit: &Unit, device: DeviceId) -> KernelCost {
        let model = CostModel::of_target(self.target, device.index(), self.symbols).with_sizes(&self.sizes);
        let cost = model.group_cost(graph, &unit.ops, &self.uses);
        let bytes = cost.bytes_read + cost.bytes_written;
        KernelCost { seconds: cost.seconds, flops: cost.flops, bytes, share: cost.share }
    }

    /// Seconds to bring bytes from the caller's memory to a device, or back.
    pub(crate) fn host_copy(&self, device: DeviceId, bytes: u64) -> f64 {
        let link = self.profile(device).host_link;
        link.latency_seconds + bytes as f64 / link.bandwidth
    }

    /// Seconds to copy bytes within a device: each is read and written.
    pub(crate) fn within(&self, device: DeviceId, bytes: u64) -> f64 {
        let profile = self.profile(device);
        profile.launch_seconds + 2.0 * bytes as f64 / profile.memory_bandwidth
    }

    /// Seconds to copy bytes between two devices; enters their link into the plan.
    ///
    /// # Errors
    /// See [`djinn_device::Topology::route`].
    pub(crate) fn between(&self, plan: &mut Plan, from: DeviceId, to: DeviceId, bytes: u64) -> Result<f64> {
        let topology = &self.target.topology;
        let name = |d: DeviceId| plan.devices[d.index()].name.clone();
        let route = topology.route(&name(from), &name(to))?;
        if !plan.links.iter().any(|l| l.from == from && l.to == to) {
            let slowest = route.hops.iter().map(|h| h.bandwidth).fold(f64::INFINITY, f64::min);
            // Each direction of a link is a resource of its own.
            let hop = |h: &djinn_device::Hop| {
                format!("{}→{}", topology.endpoint_name(h.from), topology.endpoint_name(h.to))
            };
            plan.links.push(Link {
                from,
                to,
                bandwidth: if slowest.is_finite() { slowest } else { self.profile(from).memory_bandwidth },
                latency: route.hops.iter().map(|h| h.latency).sum(),
                hops: route.hops.iter().map(hop).collect(),
            });
        }
        Ok(route.seconds(bytes))
    }
}
