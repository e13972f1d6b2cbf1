//! What a placement of a problem costs, and whether it is one: the judge, which shares nothing with the solvers.

use super::problem::{Objective, Problem};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What a placement of a [`Problem`] costs.
#[derive(Clone, Debug, PartialEq)]
pub struct ProblemCost {
    /// The time of one run.
    pub latency: f64,
    /// The load of each device: tasks, and transfers in and out.
    pub loads: Vec<f64>,
    /// The bytes that each device holds.
    pub bytes: Vec<f64>,
    /// Transfers, one for each value and device that needs it from elsewhere.
    pub transfers: usize,
    /// The seconds of all transfers.
    pub transfer_seconds: f64,
    /// Whether no circle of devices send values to one another.
    pub staged: bool,
}

impl ProblemCost {
    /// The quantity that `objective` minimises.
    pub fn value(&self, problem: &Problem) -> f64 {
        match problem.objective {
            Objective::Latency => self.latency,
            Objective::Throughput => self.loads.iter().copied().fold(0.0, f64::max),
            Objective::Memory => {
                let part = |(&used, &room): (&f64, &f64)| if used > 0.0 { used / room } else { 0.0 };
                self.bytes.iter().zip(&problem.capacity).map(part).fold(0.0, f64::max)
            }
        }
    }
}

/// Why something is not a placement of a [`Problem`].
#[derive(Clone, Debug, PartialEq)]
pub enum ProblemViolation {
    /// The placement speaks of another number of tasks.
    Length(usize),
    /// A task is on a device that does not exist or must not run it.
    Device(usize, usize),
    /// The tasks of a colour class are on several devices.
    ColourClass(u32),
    /// A device holds more bytes than its capacity.
    Capacity(usize, f64),
    /// A value must pass from one device to another, and there is no link.
    NoLink(usize, usize),
}

impl fmt::Display for ProblemViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(n) => write!(f, "the placement has {n} tasks"),
            Self::Device(task, device) => write!(f, "task {task} must not run on device {device}"),
            Self::ColourClass(class) => write!(f, "colour class {class} is on several devices"),
            Self::Capacity(device, bytes) => {
                write!(f, "device {device} holds {bytes} bytes, above its capacity")
            }
            Self::NoLink(a, b) => write!(f, "a value must pass from device {a} to {b}, and there is no link"),
        }
    }
}

/// Computes what a placement costs.
pub fn evaluate_problem(problem: &Problem, device: &[usize]) -> Result<ProblemCost, ProblemViolation> {
    check(problem, device)?;
    let n = problem.tasks.len();
    let mut inputs: Vec<Vec<(usize, f64)>> = vec![Vec::new(); n];
    let mut loads = vec![0.0; problem.devices()];
    let (mut transfers, mut transfer_seconds) = (0, 0.0);
    let mut sends: BTreeSet<(usize, usize)> = BTreeSet::new();
    for value in &problem.values {
        let home = device[value.producer];
        for &c in &value.consumers {
            inputs[c].push((value.producer, problem.transfer(home, device[c], value.bytes)));
        }
        let targets: BTreeSet<usize> =
            value.consumers.iter().map(|&c| device[c]).filter(|&d| d != home).collect();
        for target in targets {
            let seconds = problem.transfer(home, target, value.bytes);
            if !seconds.is_finite() {
                return Err(ProblemViolation::NoLink(home, target));
            }
            transfers += 1;
            transfer_seconds += seconds;
            loads[home] += seconds;
            loads[target] += seconds;
            sends.insert((home, target));
        }
    }
    let mut end = vec![0.0f64; n];
    let mut free = vec![0.0f64; problem.devices()];
    for task in 0..n {
        let d = device[task];
        let seconds = problem.tasks[task].seconds[d];
        let ready = inputs[task].iter().map(|&(p, t)| end[p] + t).fold(0.0, f64::max);
        end[task] = ready.max(free[d]) + seconds;
        free[d] = end[task];
        loads[d] += seconds;
    }
    let sends: Vec<(usize, usize)> = sends.into_iter().collect();
    Ok(ProblemCost {
        latency: end.into_iter().fold(0.0, f64::max),
        loads,
        bytes: bytes_held(problem, device),
        transfers,
        transfer_seconds,
        staged: crate::graph::topological_order(problem.devices(), &sends).is_ok(),
    })
}

/// The bytes that each device holds.
pub fn bytes_held(problem: &Problem, device: &[usize]) -> Vec<f64> {
    let mut bytes = vec![0.0; problem.devices()];
    for (task, &d) in problem.tasks.iter().zip(device) {
        bytes[d] += task.bytes;
    }
    for shared in &problem.shared {
        let holders: BTreeSet<usize> = shared.users.iter().map(|&u| device[u]).collect();
        for d in holders {
            bytes[d] += shared.bytes;
        }
    }
    bytes
}

fn check(problem: &Problem, device: &[usize]) -> Result<(), ProblemViolation> {
    if device.len() != problem.tasks.len() {
        return Err(ProblemViolation::Length(device.len()));
    }
    let mut classes: BTreeMap<u32, usize> = BTreeMap::new();
    for (i, (task, &d)) in problem.tasks.iter().zip(device).enumerate() {
        if !task.seconds.get(d).is_some_and(|s| s.is_finite()) {
            return Err(ProblemViolation::Device(i, d));
        }
        if let Some(class) = task.colour_class
            && *classes.entry(class).or_insert(d) != d
        {
            return Err(ProblemViolation::ColourClass(class));
        }
    }
    let bytes = bytes_held(problem, device);
    match (0..bytes.len()).find(|&d| bytes[d] > problem.capacity[d]) {
        Some(d) => Err(ProblemViolation::Capacity(d, bytes[d])),
        None => Ok(()),
    }
}
