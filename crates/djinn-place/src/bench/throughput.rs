//! The largest load: dynamic programme over ideals for contiguous splits.

use super::evaluate::Device;
use super::ideals::{Ideals, Walk};
use super::units::Units;

/// What the dynamic programme found.
pub(crate) struct Split {
    /// The largest load.
    pub(crate) value: f64,
    /// The device of each unit.
    pub(crate) device: Vec<Device>,
    /// The device whose turn is first, where free units go.
    pub(crate) first: Device,
}

/// How the programme ended.
pub(crate) enum Outcome {
    /// The best split among those that `ideals` allow, below the bound given.
    Found(Split),
    /// There is none below the bound given.
    Nothing,
    /// The limit of pairs was reached.
    TooManyPairs,
}

const NO_ENTRY: u32 = u32::MAX;

/// Up to so many units every device is considered.
const FEW_UNITS: usize = 256;

/// The most accelerators and CPU cores that are considered for more units.
const MOST_DEVICES: (usize, usize) = (63, 3);

/// The devices of an instance, and what one accelerator holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub(crate) accelerators: usize,
    pub(crate) cpus: usize,
    pub(crate) capacity: f64,
}

impl Machine {
    /// The accelerators and CPU cores that the programme considers for so many units.
    pub(crate) fn useful(&self, units: usize) -> (usize, usize) {
        let (most_accelerators, most_cpus) = if units > FEW_UNITS { MOST_DEVICES } else { (units, units) };
        (self.accelerators.min(units).min(most_accelerators), self.cpus.min(units).min(most_cpus))
    }
}

/// Rounds of bisection for a first split.
const BISECTIONS: usize = 40;

/// The largest load of some split into prefixes, which bounds what [`split`] has to look at; infinite if none is found.
///
/// For a load, each device in turn takes as many of the last units as that load allows; the load is bisected.
pub(crate) fn first_bound(units: &Units, prefixes: &Ideals, machine: Machine) -> f64 {
    let (ks, ls) = machine.useful(units.len());
    let mut walk = Walk::new(units, prefixes);
    let mut reached = |limit: f64| -> Option<f64> {
        let (mut top, mut largest) = (prefixes.len() - 1, 0.0f64);
        for device in 0..ks + ls {
            if top == 0 {
                break;
            }
            let mut end = (top, 0.0);
            walk.below(top, &mut |_, lower, between| {
                let (work, load) = if device < ks {
                    (between.accelerator, between.accelerator + between.transfers)
                } else {
                    (between.cpu, between.cpu)
                };
                let holds = device >= ks || between.size <= machine.capacity;
                if holds && load <= limit {
                    end = (lower, load);
                }
                holds && work <= limit
            });
            top = end.0;
            largest = largest.max(end.1);
        }
        (top == 0).then_some(largest)
    };
    let sum = |times: &[f64]| times.iter().filter(|t| t.is_finite()).sum::<f64>();
    let transfers: f64 = units.items.iter().map(|i| i.cost).sum();
    let (mut low, mut high) = (0.0, sum(&units.accelerator).max(sum(&units.cpu)) + transfers);
    let mut best = f64::INFINITY;
    for _ in 0..BISECTIONS {
        let middle = (low + high) / 2.0;
        match reached(middle) {
            Some(value) => (best, high) = (best.min(value), middle.min(value)),
            None => low = middle,
        }
    }
    best
}

/// Looks for the split with the smallest largest load below `upper`; adds the pairs of ideals it visits to `pairs`.
pub(crate) fn split(
    units: &Units,
    ideals: &Ideals,
    machine: Machine,
    upper: f64,
    max_pairs: u64,
    pairs: &mut u64,
) -> Outcome {
    let (ks, ls) = machine.useful(units.len());
    let width = (ks + 1) * (ls + 1);
    let mut best = vec![f64::INFINITY; ideals.len() * width];
    // The lower ideal, twice its number, plus one if the device between is a CPU core.
    let mut from = vec![NO_ENTRY; ideals.len() * width];
    best[0] = 0.0;
    let mut walk = Walk::new(units, ideals);
    for top in 1..ideals.len() {
        let (done, rest) = best.split_at_mut(top * width);
        let entries = &mut rest[..width];
        let origins = &mut from[top * width..(top + 1) * width];
        walk.below(top, &mut |_, lower, between| {
            let fits = between.size <= machine.capacity && between.accelerator < upper && ks > 0;
            let on_accelerator = between.accelerator + between.transfers;
            let cpu_fits = between.cpu < upper && ls > 0;
            let lower_entries = &done[lower * width..(lower + 1) * width];
            for (e, &value) in lower_entries.iter().enumerate().filter(|(_, v)| **v < upper) {
                let mut relax = |target: usize, load: f64, origin: u32| {
                    let value = value.max(load);
                    if value < upper && value < entries[target] {
                        entries[target] = value;
                        origins[target] = origin;
                    }
                };
                if fits && e / (ls + 1) < ks {
                    relax(e + ls + 1, on_accelerator, lower as u32 * 2);
                }
                if cpu_fits && e % (ls + 1) < ls {
                    relax(e + 1, between.cpu, lower as u32 * 2 + 1);
                }
            }
            fits || cpu_fits
        });
        if *pairs + walk.pairs > max_pairs {
            *pairs += walk.pairs;
            return Outcome::TooManyPairs;
        }
    }
    *pairs += walk.pairs;
    let last = (ideals.len() - 1) * width;
    let Some(end) = (last..last + width).min_by(|&a, &b| best[a].total_cmp(&best[b])) else {
        return Outcome::Nothing;
    };
    if best[end] >= upper {
        return Outcome::Nothing;
    }
    Outcome::Found(trace(units, ideals, &from, end, width, ls, best[end]))
}

fn trace(
    units: &Units,
    ideals: &Ideals,
    from: &[u32],
    end: usize,
    width: usize,
    ls: usize,
    value: f64,
) -> Split {
    let mut device = vec![Device::Accelerator(0); units.len()];
    let mut first = Device::Accelerator(0);
    let mut entry = end;
    while from[entry] != NO_ENTRY {
        let (ideal, e) = (entry / width, entry % width);
        let lower = (from[entry] / 2) as usize;
        let (chosen, rest) = if from[entry] % 2 == 1 {
            (Device::Cpu(e % (ls + 1) - 1), e - 1)
        } else {
            (Device::Accelerator(e / (ls + 1) - 1), e - (ls + 1))
        };
        for (unit, slot) in device.iter_mut().enumerate() {
            if ideals.has(ideal, unit) && !ideals.has(lower, unit) {
                *slot = chosen;
            }
        }
        first = chosen;
        entry = lower * width + rest;
    }
    Split { value, device, first }
}
