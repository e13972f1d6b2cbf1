//! Placements in the JSON form that the programs of the benchmark write and read.

use super::evaluate::{Device, Placement};
use super::instance::{Instance, array, wrong};
use super::solve::{Goal, Placed};
use crate::error::PlaceError;
use serde_json::{Value, json};
use std::collections::BTreeMap;

impl Placed {
    /// Writes the placement in the form that [`read_placement`] reads: for each accelerator (`fpgas`) and each CPU core
    /// in use the ids of its nodes and its load, then the value of the goal, its bound, and what ended the search.
    pub fn to_json(&self, instance: &Instance) -> String {
        let device = |device: Device| {
            let here = instance.nodes.iter().zip(&self.placement).filter(|(_, d)| **d == device);
            let nodes: Vec<i64> = here.map(|(node, _)| node.id).collect();
            json!({"nodes": nodes, "load": self.cost.loads.get(&device).copied().unwrap_or(0.0)})
        };
        // Devices beyond the last one in use are left out: there may be billions.
        let number = |d: &Device| match *d {
            Device::Accelerator(a) => (a + 1, 0),
            Device::Cpu(c) => (0, c + 1),
        };
        let used = self.placement.iter().map(number).fold((0, 0), |x, y| (x.0.max(y.0), x.1.max(y.1)));
        let value = if self.goal == Goal::Latency { "totalLatency" } else { "maxLoad" };
        json!({
            "fpgas": (0..used.0).map(|a| device(Device::Accelerator(a))).collect::<Vec<_>>(),
            "cpus": (0..used.1).map(|c| device(Device::Cpu(c))).collect::<Vec<_>>(),
            value: self.value, "lowerBound": self.lower_bound, "stoppedBy": self.stopped_by.to_string(),
        })
        .to_string()
    }
}

/// Reads a placement of `instance`: of each device in `fpgas` and `cpus` the `nodes`; other fields are not looked at.
///
/// Every node has to be on one device. Whether the devices exist and hold their nodes is for
/// [`evaluate`](crate::evaluate) to say.
pub fn read_placement(instance: &Instance, text: &str) -> Result<Placement, PlaceError> {
    let file: Value = serde_json::from_str(text).map_err(|e| PlaceError::Format(e.to_string()))?;
    let index: BTreeMap<i64, usize> = instance.nodes.iter().enumerate().map(|(i, n)| (n.id, i)).collect();
    let mut placement: Vec<Option<Device>> = vec![None; instance.nodes.len()];
    for (key, device) in [("fpgas", Device::Accelerator as fn(usize) -> Device), ("cpus", Device::Cpu)] {
        for (number, entry) in array(&file, key, "the file")?.iter().enumerate() {
            let place = format!("'{key}' {number}");
            for id in array(entry, "nodes", &place)? {
                let node = id.as_i64().and_then(|id| index.get(&id).copied());
                let node = node.ok_or_else(|| wrong(&place, "nodes", id, "the id of a node"))?;
                if placement[node].replace(device(number)).is_some() {
                    return Err(PlaceError::Format(format!("{place}: node {id} is on another device too")));
                }
            }
        }
    }
    let missing = instance.nodes.iter().zip(&placement).find(|(_, device)| device.is_none());
    match missing {
        Some((node, _)) => Err(PlaceError::Format(format!("node {} is on no device", node.id))),
        None => Ok(placement.into_iter().flatten().collect()),
    }
}
