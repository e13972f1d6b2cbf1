//! Predicted and measured times of plans, kernel by kernel, and what they say of the cost model.
//!
//! - [`RunProfile`]: the data, one [`Section`] for each plan, entry and way of running it, written as JSON. Profiles of
//!   several runs and machines are merged: whatever the order, the result is the same to the last bit.
//! - [`Samples`]: measured times, summarised.
//! - [`Judgement`]: how far predictions are off, by class; [`off`]: the kernels that are far off, with the likely reason.
//! - [`fit()`]: the profile of a device, fitted to what was measured on it.
//!
//! *Accuracy* of a prediction is `1 − |predicted − measured| / measured`: 1 is exact, 0.9 is 10 % off, below 0 is more than
//! twice too long. A step whose accuracy is below [`ALARM`] is told of. Measured times are medians over the runs.
//!
//! Times of different devices, and of different ways of running on one ([`Ran::mode`]), have nothing to do with one another:
//! they are kept apart, and no fit mixes them.

mod accuracy;
mod codec;
mod fit;
mod nnls;
mod samples;

pub use accuracy::{ALARM, Judgement, OFF, accuracy, off};
pub use codec::{MAX_BYTES, VERSION};
pub use fit::{FEWEST, FEWEST_FULL, ProfileFit, fit, is_held_out};
pub use samples::{ACCURACY, LONGEST, Samples};

use crate::features::Features;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What ran a plan, and how.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ran {
    /// The device profile that stands for what ran the kernels, such as `host`.
    pub device: String,
    /// How kernels were run, such as `evaluator`: each way has times of its own.
    pub mode: String,
    /// The machine, such as the name of its processor.
    pub machine: String,
}

/// What was measured: a section is of one plan, entry, size and way of running.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Hash of the program, as the plan names it.
    pub program: String,
    /// Hash of the plan.
    pub plan: String,
    /// The entry function.
    pub entry: String,
    /// Sizes of symbols in the runs.
    pub sizes: BTreeMap<String, i64>,
    /// Device profiles that the plan was made for, comma-separated.
    pub planned_for: String,
    /// What ran it.
    pub ran: Ran,
}

/// A kernel, or kernels that are alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelTimes {
    /// Name in the plan.
    pub name: String,
    /// Seconds that the plan reckons with for one launch.
    pub predicted: f64,
    /// Seconds of each launch.
    pub measured: Samples,
    /// What the cost model sees.
    pub features: Features,
}

/// Copies that are alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyTimes {
    /// Why it is made: `input`, `output`, `transfer`, …
    pub reason: String,
    /// Bytes of each.
    pub bytes: u64,
    /// Seconds that the plan reckons with.
    pub predicted: f64,
    /// Seconds of each.
    pub measured: Samples,
}

/// Times of one plan, entry, size and way of running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// Seconds that the plan reckons with for one run.
    pub predicted: f64,
    /// Seconds of each run.
    pub step: Samples,
    /// Seconds that streams lose to each wait, beyond the time until what they wait for is there.
    pub waits: Samples,
    /// Kernels by key: equal kernels have equal keys, in every plan.
    pub kernels: BTreeMap<String, KernelTimes>,
    /// Copies by key.
    pub copies: BTreeMap<String, CopyTimes>,
}

/// Times of plans.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunProfile {
    /// By what was measured.
    pub sections: BTreeMap<Subject, Section>,
}

impl Section {
    /// A section without samples.
    pub fn new(predicted: f64) -> Section {
        Section {
            predicted,
            step: Samples::default(),
            waits: Samples::default(),
            kernels: BTreeMap::new(),
            copies: BTreeMap::new(),
        }
    }

    /// Runs that were measured.
    pub fn runs(&self) -> u64 {
        self.step.count()
    }

    /// Accuracy of the predicted step time; nothing where no run was measured.
    pub fn accuracy(&self) -> Option<f64> {
        accuracy(self.predicted, self.step.median())
    }

    /// Launches of a kernel in each run.
    pub fn launches(&self, kernel: &KernelTimes) -> f64 {
        if self.runs() == 0 { 0.0 } else { kernel.measured.count() as f64 / self.runs() as f64 }
    }

    /// Adds the samples of another section of the same subject. Where predictions differ, the least counts.
    pub fn merge(&mut self, other: &Section) {
        self.predicted = least(self.predicted, other.predicted);
        self.step.merge(&other.step);
        self.waits.merge(&other.waits);
        for (key, theirs) in &other.kernels {
            match self.kernels.get_mut(key) {
                Some(ours) => ours.merge(theirs),
                None => drop(self.kernels.insert(key.clone(), theirs.clone())),
            }
        }
        for (key, theirs) in &other.copies {
            match self.copies.get_mut(key) {
                Some(ours) => {
                    ours.predicted = least(ours.predicted, theirs.predicted);
                    ours.measured.merge(&theirs.measured);
                }
                None => drop(self.copies.insert(key.clone(), theirs.clone())),
            }
        }
    }
}

impl KernelTimes {
    /// How many times longer than predicted it takes; nothing without a sample or a prediction.
    pub fn ratio(&self) -> Option<f64> {
        (self.measured.count() > 0 && self.predicted > 0.0).then(|| self.measured.median() / self.predicted)
    }

    fn merge(&mut self, other: &KernelTimes) {
        self.predicted = least(self.predicted, other.predicted);
        self.measured.merge(&other.measured);
        if other.name < self.name {
            self.name.clone_from(&other.name);
        }
    }
}

impl RunProfile {
    /// Adds what another profile holds. The order in which profiles are merged does not matter.
    pub fn merge(&mut self, other: &RunProfile) {
        for (subject, theirs) in &other.sections {
            match self.sections.get_mut(subject) {
                Some(ours) => ours.merge(theirs),
                None => drop(self.sections.insert(subject.clone(), theirs.clone())),
            }
        }
    }
}

/// The key of a kernel: a hash of what the cost model sees, in hexadecimal digits.
pub fn kernel_key(features: &Features) -> String {
    let text = format!("{} {} {}", features.text(), features.bytes_read, features.bytes_written);
    format!("{:016x}", fnv(text.as_bytes()))
}

/// FNV-1a (Fowler, Noll, Vo; draft-eastlake-fnv, section 2), 64 bits: keys tell kernels apart and need no secret.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A time to as many digits as text carries without loss.
pub fn written(seconds: f64) -> f64 {
    format!("{seconds:.8e}").parse().unwrap_or(seconds)
}

fn least(a: f64, b: f64) -> f64 {
    if b.total_cmp(&a).is_lt() { b } else { a }
}

#[cfg(test)]
mod tests;
