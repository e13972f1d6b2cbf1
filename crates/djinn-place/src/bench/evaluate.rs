//! What a placement costs, and whether it is one: the judge of the solvers, which shares nothing with them.

use super::instance::Instance;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A device of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    /// An accelerator, numbered from zero.
    Accelerator(usize),
    /// A CPU core, numbered from zero; the latency objective has as many as it needs and ignores the number.
    Cpu(usize),
}

/// The device of each node of an instance.
pub type Placement = Vec<Device>;

/// What a placement costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// The largest load of a device: its time per sample when samples follow one another.
    pub max_load: f64,
    /// The time from start to end of one sample; none if accelerators wait for one another in a circle.
    pub latency: Option<f64>,
    /// Whether no path leaves the nodes of an accelerator and comes back to them.
    pub contiguous: bool,
    /// The same for CPU cores.
    pub cpus_contiguous: bool,
    /// The load of each device in use.
    pub loads: BTreeMap<Device, f64>,
}

/// Why something is not a placement.
#[derive(Clone, Debug, PartialEq)]
pub enum Violation {
    /// The placement speaks of another number of nodes.
    Length(usize),
    /// The node with this id is on a device that does not exist.
    NoSuchDevice(i64, Device),
    /// An accelerator cannot run the node with this id.
    Unsupported(i64),
    /// An accelerator holds more bytes than its capacity.
    Capacity(usize, f64),
    /// The nodes of this colour class are on several devices.
    ColourClass(i64),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(n) => write!(f, "the placement has {n} nodes"),
            Self::NoSuchDevice(id, device) => write!(f, "node {id} is on {device:?}, which does not exist"),
            Self::Unsupported(id) => write!(f, "node {id} is on an accelerator, which cannot run it"),
            Self::Capacity(a, bytes) => write!(f, "accelerator {a} holds {bytes} bytes, above its capacity"),
            Self::ColourClass(class) => write!(f, "colour class {class} is on several devices"),
        }
    }
}

/// Computes what `placement` costs under both objectives.
///
/// The load of an accelerator is the time of its nodes plus, once for each node whose output enters or leaves it, the
/// cost of that output; a CPU pays for its nodes alone. A sample starts on an accelerator when all its
/// inputs are there and ends, with all its outputs, one load later.
pub fn evaluate(instance: &Instance, placement: &Placement) -> Result<Cost, Violation> {
    if placement.len() != instance.nodes.len() {
        return Err(Violation::Length(placement.len()));
    }
    check_devices(instance, placement)?;
    let mut loads: BTreeMap<Device, f64> = BTreeMap::new();
    for (node, &device) in instance.nodes.iter().zip(placement) {
        let time = match device {
            Device::Accelerator(_) => node.accelerator_time,
            Device::Cpu(_) => node.cpu_time,
        };
        *loads.entry(device).or_default() += time;
    }
    let mut crossings: BTreeSet<(Device, usize)> = BTreeSet::new();
    for &(a, b) in &instance.edges {
        if placement[a] != placement[b] {
            crossings.extend([(placement[a], a), (placement[b], a)]);
        }
    }
    for (device, node) in crossings {
        if matches!(device, Device::Accelerator(_)) {
            *loads.entry(device).or_default() += instance.nodes[node].output_cost;
        }
    }
    let is_cpu = |d: &Device| matches!(d, Device::Cpu(_));
    let (cpus, accelerators): (Vec<Device>, Vec<Device>) = loads.keys().copied().partition(is_cpu);
    Ok(Cost {
        max_load: loads.values().copied().fold(0.0, f64::max),
        latency: latency(instance, placement, &loads),
        contiguous: accelerators.iter().all(|&d| is_contiguous(instance, placement, d)),
        cpus_contiguous: cpus.iter().all(|&d| is_contiguous(instance, placement, d)),
        loads,
    })
}

fn check_devices(instance: &Instance, placement: &Placement) -> Result<(), Violation> {
    let mut held: BTreeMap<usize, f64> = BTreeMap::new();
    let mut classes: BTreeMap<i64, Device> = BTreeMap::new();
    for (node, &device) in instance.nodes.iter().zip(placement) {
        let exists = match device {
            Device::Accelerator(a) => a < instance.accelerators,
            Device::Cpu(c) => c < instance.cpus,
        };
        if !exists {
            return Err(Violation::NoSuchDevice(node.id, device));
        }
        if let Device::Accelerator(a) = device {
            if !node.supported {
                return Err(Violation::Unsupported(node.id));
            }
            *held.entry(a).or_default() += node.size;
        }
        if let Some(class) = node.colour_class
            && *classes.entry(class).or_insert(device) != device
        {
            return Err(Violation::ColourClass(class));
        }
    }
    match held.into_iter().find(|&(_, bytes)| bytes > instance.capacity) {
        Some((a, bytes)) => Err(Violation::Capacity(a, bytes)),
        None => Ok(()),
    }
}

/// Whether no path leaves `device` and comes back.
fn is_contiguous(instance: &Instance, placement: &Placement, device: Device) -> bool {
    let mut left = vec![false; instance.nodes.len()];
    let mut stack = Vec::new();
    let mut successors = vec![Vec::new(); instance.nodes.len()];
    for &(a, b) in &instance.edges {
        successors[a].push(b);
        if placement[a] == device && placement[b] != device {
            stack.push(b);
        }
    }
    while let Some(v) = stack.pop() {
        if placement[v] == device {
            return false;
        }
        if !std::mem::replace(&mut left[v], true) {
            stack.extend_from_slice(&successors[v]);
        }
    }
    true
}

/// The end of the last node; none if accelerators wait for one another in a circle.
fn latency(instance: &Instance, placement: &Placement, loads: &BTreeMap<Device, f64>) -> Option<f64> {
    // A step of work is a CPU node or a whole accelerator; the steps must form an acyclic graph.
    let step_of = |v: usize| match placement[v] {
        Device::Accelerator(a) => a,
        Device::Cpu(_) => instance.accelerators + v,
    };
    let mut steps: BTreeMap<usize, f64> = BTreeMap::new();
    for (v, device) in placement.iter().enumerate() {
        let time = match device {
            Device::Accelerator(_) => loads.get(device).copied().unwrap_or(0.0),
            Device::Cpu(_) => instance.nodes[v].cpu_time,
        };
        steps.insert(step_of(v), time);
    }
    let edges: BTreeSet<(usize, usize)> =
        instance.edges.iter().map(|&(a, b)| (step_of(a), step_of(b))).filter(|(a, b)| a != b).collect();
    let mut waiting: BTreeMap<usize, usize> = steps.keys().map(|&s| (s, 0)).collect();
    let mut successors: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for &(a, b) in &edges {
        *waiting.entry(b).or_default() += 1;
        successors.entry(a).or_default().push(b);
    }
    let mut start: BTreeMap<usize, f64> = BTreeMap::new();
    let mut ready: Vec<usize> = waiting.iter().filter(|&(_, &w)| w == 0).map(|(&s, _)| s).collect();
    let (mut done, mut end) = (0, 0.0f64);
    while let Some(s) = ready.pop() {
        done += 1;
        let finish = start.get(&s).copied().unwrap_or(0.0) + steps[&s];
        end = end.max(finish);
        for &t in successors.get(&s).map_or(&[][..], Vec::as_slice) {
            let begin = start.entry(t).or_default();
            *begin = begin.max(finish);
            let left = waiting.entry(t).or_default();
            *left -= 1;
            if *left == 0 {
                ready.push(t);
            }
        }
    }
    (done == steps.len()).then_some(end)
}
