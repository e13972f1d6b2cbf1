//! A placement problem with devices of any kind and any links between them.

use crate::error::PlaceError;

/// The most devices of a problem.
pub const MAX_DEVICES: usize = 64;

/// What a placement of a [`Problem`] is to minimise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// The time of one run: each device works through its tasks in order, transfers wait for nothing but their value.
    Latency,
    /// The largest load of a device, its tasks and its transfers in and out, when runs follow one another.
    Throughput,
    /// The largest part of a device's capacity that is in use.
    Memory,
}

/// One piece of work.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Seconds on each device; infinite where it must not run.
    pub seconds: Vec<f64>,
    /// Bytes that stay on its device: what belongs to it alone.
    pub bytes: f64,
    /// Tasks of one class go to one device.
    pub colour_class: Option<u32>,
}

/// A value that tasks pass on; it is moved once to each device that needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// The task that makes it.
    pub producer: usize,
    /// The tasks that use it, all later than the producer.
    pub consumers: Vec<usize>,
    /// Its size.
    pub bytes: f64,
}

/// Bytes that each device with one of the users holds once, such as a weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Shared {
    /// The size.
    pub bytes: f64,
    /// The tasks that need it.
    pub users: Vec<usize>,
}

/// What it takes to move bytes from one device to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Seconds for any transfer; infinite if there is no way.
    pub latency: f64,
    /// Seconds for each byte.
    pub seconds_per_byte: f64,
}

/// Tasks in an order in which they can run, and the devices they may run on.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// The bytes that each device holds.
    pub capacity: Vec<f64>,
    /// The link from each device to each.
    pub links: Vec<Vec<Link>>,
    /// The tasks; a value is used by later tasks only.
    pub tasks: Vec<Task>,
    /// The values that pass between tasks.
    pub values: Vec<Value>,
    /// Bytes shared by tasks.
    pub shared: Vec<Shared>,
    /// What to minimise.
    pub objective: Objective,
    /// Whether devices are to be stages of a pipeline: no circle of devices that send values to one another.
    pub stages: bool,
}

impl Problem {
    /// The number of devices.
    pub fn devices(&self) -> usize {
        self.capacity.len()
    }

    /// Seconds to move `bytes` from one device to another.
    pub fn transfer(&self, from: usize, to: usize, bytes: f64) -> f64 {
        if from == to {
            return 0.0;
        }
        let link = self.links[from][to];
        link.latency + link.seconds_per_byte * bytes
    }

    /// Checks sizes, indices and numbers.
    pub fn validate(&self) -> Result<(), PlaceError> {
        let invalid = |text: String| Err(PlaceError::Invalid(text));
        let d = self.devices();
        if d == 0 || d > MAX_DEVICES {
            return invalid(format!("{d} devices; there may be 1 to {MAX_DEVICES}"));
        }
        let square = self.links.len() == d && self.links.iter().all(|row| row.len() == d);
        let link_ok =
            |l: &Link| l.latency >= 0.0 && l.seconds_per_byte >= 0.0 && l.seconds_per_byte < f64::INFINITY;
        if !square || !self.links.iter().flatten().all(link_ok) {
            return invalid("a link is missing or has a negative time".into());
        }
        let amount = |x: f64| (0.0..=crate::MAX_QUANTITY).contains(&x);
        if !self.capacity.iter().all(|&c| c >= 0.0) {
            return invalid("a capacity is negative or not a number".into());
        }
        for (i, task) in self.tasks.iter().enumerate() {
            let seconds_ok = task.seconds.iter().all(|&s| amount(s) || s == f64::INFINITY);
            if task.seconds.len() != d || !seconds_ok || !amount(task.bytes) {
                return invalid(format!("task {i} has a wrong number of times, or a negative time or size"));
            }
        }
        for value in &self.values {
            let forward = value.consumers.iter().all(|&c| c > value.producer && c < self.tasks.len());
            if !forward || value.producer >= self.tasks.len() || !amount(value.bytes) {
                return invalid(format!("a value of task {} is used before it is made", value.producer));
            }
        }
        if self.shared.iter().any(|s| !amount(s.bytes) || s.users.iter().any(|&u| u >= self.tasks.len())) {
            return invalid("shared bytes have a wrong size or user".into());
        }
        Ok(())
    }
}
