//! The ideals (sets of units closed under producers) of an instance, and the walk through the ideals below one.

use super::units::Units;
use std::collections::HashMap;

/// Ideals, numbered so that smaller ones come first; the first is empty and the last is everything.
pub(crate) struct Ideals {
    words: usize,
    bits: Vec<u64>,
    /// Where the entries of an ideal in `below` start.
    start: Vec<u32>,
    /// A unit that can be taken away, and the ideal that is left.
    below: Vec<(u32, u32)>,
}

impl Ideals {
    /// The number of ideals.
    pub(crate) fn len(&self) -> usize {
        self.start.len() - 1
    }

    /// The ideals below `ideal` by one unit.
    pub(crate) fn below(&self, ideal: usize) -> &[(u32, u32)] {
        &self.below[self.start[ideal] as usize..self.start[ideal + 1] as usize]
    }

    /// Whether `ideal` has `unit`.
    pub(crate) fn has(&self, ideal: usize, unit: usize) -> bool {
        self.bits[ideal * self.words + unit / 64] >> (unit % 64) & 1 == 1
    }

    /// All ideals, or none if there are more than `limit`.
    pub(crate) fn all(units: &Units, limit: usize) -> Option<Self> {
        let words = units.len().div_ceil(64).max(1);
        let mut bits = vec![0u64; words];
        let mut above: Vec<(u32, u32, u32)> = Vec::new();
        let (mut first, mut count) = (0usize, 1usize);
        // One level has the ideals with the same number of units. Lookup in the map only; its order is not used.
        while first < count {
            let end = count;
            let mut level: HashMap<Vec<u64>, u32> = HashMap::new();
            for ideal in first..end {
                let set = bits[ideal * words..(ideal + 1) * words].to_vec();
                for unit in 0..units.len() {
                    let has = |u: usize| set[u / 64] >> (u % 64) & 1 == 1;
                    if has(unit) || !units.predecessors[unit].iter().all(|&p| has(p)) {
                        continue;
                    }
                    let mut larger = set.clone();
                    larger[unit / 64] |= 1 << (unit % 64);
                    let known = level.get(&larger).copied();
                    let target = known.unwrap_or(count as u32);
                    if known.is_none() {
                        if count >= limit {
                            return None;
                        }
                        bits.extend_from_slice(&larger);
                        level.insert(larger, target);
                        count += 1;
                    }
                    above.push((target, unit as u32, ideal as u32));
                }
            }
            first = end;
        }
        Some(Self::with_links(words, bits, count, above))
    }

    /// The ideals that are prefixes of the order of the units.
    pub(crate) fn prefixes(units: &Units) -> Self {
        let words = units.len().div_ceil(64).max(1);
        let mut set = vec![0u64; words];
        let mut bits = set.clone();
        let mut above = Vec::new();
        for unit in 0..units.len() {
            set[unit / 64] |= 1 << (unit % 64);
            bits.extend_from_slice(&set);
            above.push((unit as u32 + 1, unit as u32, unit as u32));
        }
        Self::with_links(words, bits, units.len() + 1, above)
    }

    fn with_links(words: usize, bits: Vec<u64>, count: usize, mut above: Vec<(u32, u32, u32)>) -> Self {
        above.sort_unstable();
        let mut start = vec![0u32; count + 1];
        for &(target, _, _) in &above {
            start[target as usize + 1] += 1;
        }
        for i in 0..count {
            start[i + 1] += start[i];
        }
        let below = above.into_iter().map(|(_, unit, ideal)| (unit, ideal)).collect();
        Self { words, bits, start, below }
    }
}

/// What is known of the units between an ideal and one below it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Between {
    /// Their time on a CPU core.
    pub(crate) cpu: f64,
    /// Their time on an accelerator; infinite if it cannot run all.
    pub(crate) accelerator: f64,
    /// Their bytes.
    pub(crate) size: f64,
    /// What it costs an accelerator to move values in and out.
    pub(crate) transfers: f64,
}

/// Walks through the ideals below one, keeping the sums of what lies between up to date.
pub(crate) struct Walk<'a> {
    units: &'a Units,
    ideals: &'a Ideals,
    /// The walk in which each ideal was last reached.
    stamp: Vec<u32>,
    walks: u32,
    inside: Vec<bool>,
    /// For each item, its consumers between.
    used: Vec<u32>,
    /// Pairs of ideals visited.
    pub(crate) pairs: u64,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(units: &'a Units, ideals: &'a Ideals) -> Self {
        Self {
            units,
            ideals,
            stamp: vec![0; ideals.len()],
            walks: 0,
            inside: vec![false; units.len()],
            used: vec![0; units.items.len()],
            pairs: 0,
        }
    }

    /// The number of consumers of an item between the two ideals.
    pub(crate) fn uses(&self, item: usize) -> u32 {
        self.used[item]
    }

    /// Whether a unit lies between the two ideals.
    pub(crate) fn inside(&self, unit: usize) -> bool {
        self.inside[unit]
    }

    /// Calls `visit` for each ideal below `top`; it says whether to go on to the ideals below that one.
    ///
    /// Everything that `visit` decides by must grow as the lower ideal shrinks.
    pub(crate) fn below(&mut self, top: usize, visit: &mut dyn FnMut(&Self, usize, Between) -> bool) {
        self.walks += 1;
        let nothing = Between { cpu: 0.0, accelerator: 0.0, size: 0.0, transfers: 0.0 };
        // Where we are: the ideal, its sums, the unit taken to get there, the next entry to follow.
        let mut path: Vec<(usize, Between, usize, usize)> = vec![(top, nothing, usize::MAX, 0)];
        while let Some(&mut (ideal, sums, unit, ref mut next)) = path.last_mut() {
            let Some(&(taken, lower)) = self.ideals.below(ideal).get(*next) else {
                if unit != usize::MAX {
                    self.put_back(unit);
                }
                path.pop();
                continue;
            };
            *next += 1;
            if self.stamp[lower as usize] == self.walks {
                continue;
            }
            self.stamp[lower as usize] = self.walks;
            self.pairs += 1;
            let taken = taken as usize;
            let mut sums = sums;
            sums.cpu += self.units.cpu[taken];
            sums.accelerator += self.units.accelerator[taken];
            sums.size += self.units.size[taken];
            sums.transfers += self.take(taken);
            if visit(self, lower as usize, sums) {
                path.push((lower as usize, sums, taken, 0));
            } else {
                self.put_back(taken);
            }
        }
    }

    /// Adds a unit to the set between; returns how much the cost of transfers changes.
    fn take(&mut self, unit: usize) -> f64 {
        let units = self.units;
        let mut change = 0.0;
        self.inside[unit] = true;
        for &i in &units.consumed[unit] {
            let item = &units.items[i];
            let before = self.crosses(i);
            self.used[i] += 1;
            change += item.cost * (f64::from(self.crosses(i)) - f64::from(before));
        }
        for &i in &units.produced[unit] {
            let item = &units.items[i];
            let before = self.used[i] > 0;
            change += item.cost * (f64::from(self.crosses(i)) - f64::from(before));
        }
        change
    }

    fn put_back(&mut self, unit: usize) {
        self.inside[unit] = false;
        for &i in &self.units.consumed[unit] {
            self.used[i] -= 1;
        }
    }

    /// Whether an item enters or leaves the set between.
    fn crosses(&self, i: usize) -> bool {
        let item = &self.units.items[i];
        if self.inside[item.producer] {
            (self.used[i] as usize) < item.consumers.len()
        } else {
            self.used[i] > 0
        }
    }
}
