//! What is planned for: a topology, bound symbols, an objective and limits.

use crate::{Profile, Topology};
use djinn_diag::suggest::did_you_mean;
use djinn_diag::{Diagnostic, input};
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What a plan is to be good at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Objective {
    /// The shortest time of one run.
    #[default]
    Latency,
    /// The most runs in a given time.
    Throughput,
    /// The smallest peak of memory.
    Memory,
}

impl Objective {
    /// Every objective, in declaration order.
    pub const ALL: [Objective; 3] = [Objective::Latency, Objective::Throughput, Objective::Memory];

    /// The word of options and files.
    pub fn name(self) -> &'static str {
        match self {
            Objective::Latency => "latency",
            Objective::Throughput => "throughput",
            Objective::Memory => "memory",
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Objective {
    type Err = Box<Diagnostic>;

    /// Reads the word; `target.objective` for any other.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Objective::ALL.into_iter().find(|o| o.name() == text).ok_or_else(|| {
            let near = did_you_mean(text, Objective::ALL.map(Objective::name)).map(|t| t + " ");
            input("target.objective", format!("there is no objective '{text}'"))
                .help(near.unwrap_or_default() + "objectives are: latency, throughput, memory")
                .shortened()
        })
    }
}

/// What is planned for.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Devices and links.
    pub topology: Topology,
    /// Values of symbols that are bound for this plan.
    pub sizes: BTreeMap<String, i64>,
    /// What the plan is to be good at.
    pub objective: Objective,
    /// Bytes that a plan may use on each device, if less than the device has.
    pub memory_limit: Option<u64>,
    /// Streams on each device, at most.
    pub max_streams: u32,
    /// Cost models of a user's own, asked before the built-in one.
    pub costs: Option<OwnCosts>,
}

/// Cost models of a user's own. This crate knows nothing of operations: it carries what `djinn_cost::own_costs` made.
#[derive(Clone)]
pub struct OwnCosts {
    label: Arc<str>,
    models: Arc<dyn Any + Send + Sync>,
}

impl OwnCosts {
    /// Carries models under a label. Equal labels mean equal models: plans are kept by the label.
    pub fn new<T: Any + Send + Sync>(label: &str, models: T) -> OwnCosts {
        OwnCosts { label: Arc::from(label), models: Arc::new(models) }
    }

    /// What is carried, if it is of this type.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.models.downcast_ref()
    }
}

impl fmt::Debug for OwnCosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnCosts").field(&self.label).finish()
    }
}

impl PartialEq for OwnCosts {
    fn eq(&self, other: &OwnCosts) -> bool {
        self.label == other.label
    }
}

impl Target {
    /// A target without bound symbols, for latency, with all memory and as many streams as the devices suggest.
    pub fn new(topology: Topology) -> Target {
        let max_streams = topology.devices().iter().map(|d| d.profile.max_streams).max().unwrap_or(1);
        Target {
            topology,
            sizes: BTreeMap::new(),
            objective: Objective::Latency,
            memory_limit: None,
            max_streams: max_streams.max(1),
            costs: None,
        }
    }

    /// A target of one device with this profile.
    pub fn single(profile: &Profile) -> Target {
        Target::new(Topology::single(profile))
    }

    /// The same target with these symbols bound.
    #[must_use]
    pub fn with_sizes<S: Into<String>>(mut self, sizes: impl IntoIterator<Item = (S, i64)>) -> Target {
        self.sizes.extend(sizes.into_iter().map(|(name, size)| (name.into(), size)));
        self
    }

    /// Bytes that a plan may use on device number `device`: its memory, or the limit if that is less.
    pub fn memory_bytes(&self, device: usize) -> u64 {
        let own = self.topology.devices().get(device).map_or(0, |d| d.memory_bytes);
        own.min(self.memory_limit.unwrap_or(u64::MAX))
    }

    /// Streams that a plan may use on device number `device`, at least 1.
    pub fn streams(&self, device: usize) -> u32 {
        let own = self.topology.devices().get(device).map_or(1, |d| d.profile.max_streams);
        own.min(self.max_streams).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_the_target_or_of_the_device() {
        let mut t = Target::single(Profile::named("h100-80").expect("built in")).with_sizes([("s0", 7)]);
        assert_eq!((t.memory_bytes(0), t.sizes["s0"]), (80_000_000_000, 7));
        t.memory_limit = Some(1000);
        t.max_streams = 1;
        assert_eq!((t.memory_bytes(0), t.streams(0), t.memory_bytes(9)), (1000, 1, 0));
    }

    #[test]
    fn objectives_are_read_by_name() {
        assert_eq!("memory".parse::<Objective>(), Ok(Objective::Memory));
        let e = "latenc".parse::<Objective>().expect_err("unknown");
        assert!(e.help.as_deref().is_some_and(|h| h.contains("'latency'")));
    }
}
