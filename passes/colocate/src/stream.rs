//! Weights that stay in the memory of the host and are copied to their device in every run.
//!
//! Where the weights of a device exceed what it has beside states and activations, the excess is *streamed*: kept on
//! the host of its node and copied before each use, through buffers that hold a few weights at a time (the ring). A run
//! reads most weights once, so that it takes at least the time of copying the streamed bytes, whichever weights they
//! are. What matters is that copies run beside the work all the time: streamed weights are spread evenly over the order
//! of their first uses (as FlexGen splits each layer's weights: Sheng et al., ICML 2023, §4.2). Large ones need a large
//! ring, small ones many copies; whichever takes less time is chosen.

use crate::facts::{Constant, Facts};
use crate::model::{Placed, Resident};
use djinn_device::Target;
use djinn_diag::{Result, input, units};
use std::collections::{BTreeMap, BTreeSet};

/// Weights that the ring of a device holds at once: one in use, one being copied. Where that does not fit it is one, and
/// copies and work take turns.
pub(crate) const RING: u64 = 2;

/// The copies of a weight serve operations that are at most this many positions apart.
const NEAR: usize = 8;

/// The weights that each device gets copied in every run.
#[derive(Debug, Default)]
pub(crate) struct Streamed {
    /// Keys of constants by device.
    keys: Vec<BTreeSet<String>>,
    /// Bytes by device.
    pub(crate) bytes: Vec<u64>,
}

/// A weight that may be streamed to a device.
struct Candidate<'a> {
    key: &'a str,
    bytes: u64,
    /// How often a run copies it, at most.
    copies: usize,
}

impl Streamed {
    /// Is a constant streamed to a device?
    pub(crate) fn has(&self, device: usize, key: &str) -> bool {
        self.keys.get(device).is_some_and(|keys| keys.contains(key))
    }

    /// Does any device get weights in this way?
    pub(crate) fn any(&self) -> bool {
        self.keys.iter().any(|keys| !keys.is_empty())
    }

    /// Chooses what is streamed to each device, so that the rest fits. The functions are in the order in which they
    /// were placed.
    ///
    /// # Errors
    /// `colocate.memory` if a device cannot hold its states, the activations and a weight.
    pub(crate) fn choose(
        functions: &[(&Facts, &Placed)],
        resident: &Resident,
        target: &Target,
        names: &[std::sync::Arc<str>],
    ) -> Result<Streamed> {
        let mut streamed = Streamed::default();
        for (device, name) in names.iter().enumerate() {
            let fixed = resident.states_on(device).saturating_add(resident.allowance);
            let memory = target.memory_bytes(device);
            let candidates = candidates(functions, device);
            let weights = candidates.iter().fold(0u64, |sum, c| sum.saturating_add(c.bytes));
            let room = memory.saturating_sub(fixed);
            if weights <= room {
                streamed.keys.push(BTreeSet::new());
                streamed.bytes.push(0);
                continue;
            }
            let link = target.topology.devices().get(device).map(|d| d.profile.host_link);
            let latency = link.map_or(0.0, |l| l.latency_seconds * l.bandwidth);
            let chosen = spread(&candidates, weights - room, latency).ok_or_else(|| {
                let largest = candidates.iter().map(|c| c.bytes).max().unwrap_or(0);
                let message = format!(
                    "'{name}' has {}; states and activations take {}, and weights that are copied from the host, of up to \
                     {}, find no room beside them",
                    units::bytes(memory),
                    units::bytes(fixed),
                    units::bytes(largest),
                );
                input("colocate.memory", message).help("use a larger device or smaller sizes (--bind)")
            })?;
            streamed.bytes.push(chosen.iter().map(|i| candidates[*i].bytes).fold(0, u64::saturating_add));
            streamed.keys.push(chosen.into_iter().map(|i| candidates[i].key.to_owned()).collect());
        }
        Ok(streamed)
    }
}

/// The constants of a device in the order of their first uses, each once.
fn candidates<'a>(functions: &[(&'a Facts, &Placed)], device: usize) -> Vec<Candidate<'a>> {
    let mut found: Vec<Candidate<'a>> = Vec::new();
    let mut index: BTreeMap<&str, usize> = BTreeMap::new();
    for (facts, placed) in functions {
        let here = |c: &&Constant| c.users.iter().any(|u| placed.device[*u] == device);
        let mut constants: Vec<&Constant> = facts.constants.iter().filter(here).collect();
        constants.sort_by_key(|c| c.users.iter().find(|u| placed.device[**u] == device).copied());
        for constant in constants {
            let users: Vec<usize> =
                constant.users.iter().copied().filter(|u| placed.device[*u] == device).collect();
            let copies = 1 + users.windows(2).filter(|w| w[1] - w[0] > NEAR).count();
            match index.get(constant.key.as_str()) {
                Some(&i) => found[i].copies = found[i].copies.max(copies),
                None => {
                    index.insert(&constant.key, found.len());
                    found.push(Candidate { key: &constant.key, bytes: constant.bytes, copies });
                }
            }
        }
    }
    found
}

/// How often the size of the candidates is halved: smaller ones need a smaller ring.
const HALVINGS: u32 = 12;

/// Times that differ by less than this factor count as equal.
const NEARLY: f64 = 1.02;

/// Candidates that free `excess` bytes and make room for the ring, evenly spread; `None` if no choice does. Of the choices
/// among all candidates, those worth a copy, those that a run copies once, and those up to a size, the one whose copies
/// take least; a copy takes as long as its bytes and `latency` bytes more.
fn spread(candidates: &[Candidate<'_>], excess: u64, latency: f64) -> Option<Vec<usize>> {
    let largest = candidates.iter().map(|c| c.bytes).max().unwrap_or(0);
    let cost = |chosen: &Vec<usize>| -> f64 {
        chosen.iter().map(|i| &candidates[*i]).map(|c| c.copies as f64 * (c.bytes as f64 + latency)).sum()
    };
    (1..=RING).rev().find_map(|slots| {
        let kinds = [(true, true), (true, false), (false, true), (false, false)];
        let choices = (0..=HALVINGS).flat_map(|halvings| kinds.map(|(large, once)| (halvings, large, once)));
        let choices = choices.filter_map(|(halvings, large, once)| {
            let of_kind =
                |c: &Candidate<'_>| (c.bytes as f64 >= latency || !large) && (c.copies == 1 || !once);
            let fits = |c: &Candidate<'_>| of_kind(c) && c.bytes <= largest >> halvings;
            let some: Vec<usize> = (0..candidates.len()).filter(|i| fits(&candidates[*i])).collect();
            evenly(candidates, &some, excess, slots)
        });
        let choices: Vec<Vec<usize>> = choices.collect();
        let least = choices.iter().map(cost).fold(f64::INFINITY, f64::min);
        // A ring of larger weights lets copies be further ahead of their use.
        choices.into_iter().find(|chosen| cost(chosen) <= least * NEARLY)
    })
}

fn bytes_of(candidates: &[Candidate<'_>], chosen: &[usize]) -> u64 {
    chosen.iter().fold(0, |sum, i| sum.saturating_add(candidates[*i].bytes))
}

/// The smallest share of these candidates that frees enough, evenly spread over their order.
fn evenly(candidates: &[Candidate<'_>], some: &[usize], excess: u64, slots: u64) -> Option<Vec<usize>> {
    let enough = |chosen: &[usize]| {
        let slots = slots.min(chosen.len() as u64);
        let largest = chosen.iter().map(|i| candidates[*i].bytes).max().unwrap_or(0);
        bytes_of(candidates, chosen) >= excess.saturating_add(largest.saturating_mul(slots))
    };
    (1..=SHARES).map(|share| take(candidates, some, share)).find(|chosen| enough(chosen))
}

/// Shares of the bytes are tried in steps of one over this.
const SHARES: u128 = 256;

/// Takes a candidate whenever the bytes taken so far, with half of its own, are at most this share of those gone by.
fn take(candidates: &[Candidate<'_>], some: &[usize], share: u128) -> Vec<usize> {
    let (mut gone, mut taken) = (0u128, 0u128);
    let mut chosen = Vec::new();
    for &i in some {
        let bytes = u128::from(candidates[i].bytes);
        gone += bytes;
        if (2 * taken + bytes) * SHARES <= 2 * gone * share {
            taken += bytes;
            chosen.push(i);
        }
    }
    chosen
}

/// Copies of streamed weights that a body has by now.
#[derive(Debug)]
pub(crate) struct Arrived<V> {
    last: BTreeMap<(usize, String), (usize, V)>,
}

impl<V: Copy> Arrived<V> {
    /// An empty record.
    pub(crate) fn new() -> Self {
        Arrived { last: BTreeMap::new() }
    }

    /// The copy that an operation at this position can use.
    pub(crate) fn near(&mut self, device: usize, key: &str, position: usize) -> Option<V> {
        let (last, copy) = self.last.get_mut(&(device, key.to_owned()))?;
        if position.saturating_sub(*last) > NEAR {
            return None;
        }
        *last = position;
        Some(*copy)
    }

    /// Notes a copy.
    pub(crate) fn note(&mut self, device: usize, key: &str, position: usize, copy: V) {
        self.last.insert((device, key.to_owned()), (position, copy));
    }
}

#[cfg(test)]
mod tests {
    use super::{Candidate, spread};

    fn candidates(bytes: &[u64]) -> Vec<Candidate<'static>> {
        bytes.iter().map(|b| Candidate { key: "", bytes: *b, copies: 1 }).collect()
    }

    #[test]
    fn what_is_streamed_frees_enough_and_is_spread() {
        let all = candidates(&[100; 40]);
        for excess in [1, 100, 700, 1900, 3800] {
            let chosen = spread(&all, excess, 0.0).expect("enough");
            assert_eq!(chosen.len() as u64, excess.div_ceil(100) + 2, "and two slots of the ring");
            let gaps: Vec<usize> = chosen.windows(2).map(|w| w[1] - w[0]).collect();
            let (least, most) = (gaps.iter().min().copied(), gaps.iter().max().copied());
            assert!(most.unwrap_or(1) - least.unwrap_or(1) <= 1, "{chosen:?}");
        }
        // One slot where two do not fit.
        assert_eq!(spread(&all, 3900, 0.0).map(|c| c.len()), Some(40));
        assert_eq!(spread(&all, 3901, 0.0), None);
    }

    #[test]
    fn a_small_excess_takes_small_weights() {
        let mut bytes = vec![1000; 10];
        bytes.extend([50; 10]);
        assert_eq!(spread(&candidates(&bytes), 60, 0.0).map(|c| c.len()), Some(4));
        // Unless their copies are mostly latency.
        let mut bytes = vec![10_000; 10];
        bytes.extend([50; 1000]);
        let chosen = spread(&candidates(&bytes), 10_000, 5000.0).expect("enough");
        assert_eq!((chosen.len(), chosen.iter().all(|i| *i < 10)), (3, true));
    }
}
