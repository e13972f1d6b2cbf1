//! Copies that share hops.

use std::collections::BTreeMap;

use crate::plan::{DeviceId, Plan};

/// A copy whose bytes flow.
pub(super) struct Flow {
    /// Number of its link.
    pub(super) link: usize,
    /// All its bytes.
    pub(super) bytes: f64,
    /// Seconds that all its bytes take alone.
    pub(super) alone: f64,
    /// Part of its bytes that is left, 0 to 1.
    pub(super) left: f64,
}

impl Flow {
    /// Bytes per second alone.
    fn demand(&self) -> f64 {
        if self.alone > 0.0 { self.bytes / self.alone } else { 0.0 }
    }
}

/// Links by their ends, and hops.
pub(super) struct Network {
    links: BTreeMap<(DeviceId, DeviceId), usize>,
    /// Hops of every link.
    hops: Vec<Vec<usize>>,
    /// Bytes per second of every hop.
    capacities: Vec<f64>,
}

impl Network {
    pub(super) fn new(plan: &Plan) -> Network {
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut capacities: Vec<f64> = Vec::new();
        let mut hops = Vec::new();
        for link in &plan.links {
            let mut own = Vec::new();
            for hop in &link.hops {
                let number = *numbers.entry(hop).or_insert_with(|| {
                    capacities.push(0.0);
                    capacities.len() - 1
                });
                capacities[number] = capacities[number].max(link.bandwidth);
                own.push(number);
            }
            own.sort_unstable();
            own.dedup();
            hops.push(own);
        }
        let links =
            plan.links.iter().enumerate().map(|(number, link)| ((link.from, link.to), number)).collect();
        Network { links, hops, capacities }
    }

    /// The link of a copy, if it goes over one.
    pub(super) fn link(&self, ends: [Option<DeviceId>; 2]) -> Option<usize> {
        let [Some(from), Some(to)] = ends else { return None };
        self.links.get(&(from, to)).copied()
    }

    /// How fast each flow is, as a part of its speed alone: max-min fair, by progressive filling.
    pub(super) fn speeds(&self, flows: &[&Flow]) -> Vec<f64> {
        let mut speeds = vec![1.0; flows.len()];
        let mut room: BTreeMap<usize, (f64, usize)> = BTreeMap::new();
        for flow in flows {
            for &hop in &self.hops[flow.link] {
                room.entry(hop).or_insert((self.capacities[hop], 0)).1 += 1;
            }
        }
        let mut open: Vec<usize> = (0..flows.len()).filter(|&f| flows[f].demand() > 0.0).collect();
        let idle = (0..flows.len()).filter(|f| !open.contains(f));
        idle.for_each(|f| self.leave(flows[f], 0.0, &mut room));
        while !open.is_empty() {
            // The hop that gives each of its flows least; flows that ask for no more than that are served first.
            let fair = |f: usize| {
                let hops = self.hops[flows[f].link].iter();
                hops.map(|hop| room[hop].0.max(0.0) / room[hop].1.max(1) as f64).fold(f64::INFINITY, f64::min)
            };
            let least = open.iter().map(|&f| fair(f).min(flows[f].demand())).fold(f64::INFINITY, f64::min);
            let limit = least * (1.0 + 1e-9);
            let (served, rest): (Vec<usize>, Vec<usize>) =
                open.iter().partition(|&&f| fair(f).min(flows[f].demand()) <= limit);
            for &f in &served {
                // A hop never gives less than a millionth: rounding may leave it empty.
                speeds[f] = (least / flows[f].demand()).clamp(1e-6, 1.0);
                self.leave(flows[f], least, &mut room);
            }
            open = rest;
        }
        speeds
    }

    fn leave(&self, flow: &Flow, rate: f64, room: &mut BTreeMap<usize, (f64, usize)>) {
        for hop in &self.hops[flow.link] {
            if let Some((bandwidth, count)) = room.get_mut(hop) {
                *bandwidth -= rate;
                *count -= 1;
            }
        }
    }
}
