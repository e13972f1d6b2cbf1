//! Placing buffers one by one: in a given order over listed neighbours, or in a sweep over time.

use std::collections::BTreeMap;

use crate::instance::{FREE, Instance};

/// Which of the gaps that are wide enough a buffer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The lowest.
    First,
    /// The narrowest, and the lowest of these.
    Narrowest,
    /// The narrowest, where the range between the last neighbour and the top of all placed buffers counts.
    NarrowestUnderTop,
}

/// Places buffers one by one among the placed buffers that they conflict with.
pub(crate) struct Placer<'a> {
    instance: &'a Instance,
    /// The offset of each buffer in units, or [`FREE`] while it is not placed.
    pub(crate) offset: Vec<u64>,
    taken: Vec<(u64, u64, u32)>,
    top: u64,
    /// Neighbours looked at so far.
    pub(crate) steps: u64,
}

impl<'a> Placer<'a> {
    /// Starts with the fixed buffers placed.
    pub(crate) fn new(instance: &'a Instance) -> Self {
        Self { instance, offset: instance.fixed.clone(), taken: Vec::new(), top: 0, steps: 0 }
    }

    /// Takes every buffer out that is not fixed.
    pub(crate) fn clear(&mut self) {
        self.offset.copy_from_slice(&self.instance.fixed);
        self.top = 0;
    }

    /// Places every free buffer in the given order.
    pub(crate) fn place_all(&mut self, order: &[u32], rule: Rule) {
        for &b in order {
            if self.offset[b as usize] == FREE {
                self.place(b as usize, rule);
            }
        }
    }

    /// Places one free buffer and returns the placed neighbour that it sits on, if any.
    pub(crate) fn place(&mut self, buffer: usize, rule: Rule) -> Option<u32> {
        self.taken.clear();
        let near = self.instance.neighbours(buffer);
        self.steps += near.len() as u64;
        for &other in near {
            let low = self.offset[other as usize];
            if low != FREE {
                self.taken.push((low, low + self.instance.size[other as usize], other));
            }
        }
        self.taken.sort_unstable();
        let (size, align) = (self.instance.size[buffer], self.instance.align[buffer]);
        let (mut at, mut below) = (0, None);
        let mut best: Option<(u64, u64, Option<u32>)> = None;
        for &(low, high, other) in &self.taken {
            if low >= at + size && best.is_none_or(|(gap, ..)| low - at < gap) {
                best = Some((low - at, at, below));
                if rule == Rule::First {
                    break;
                }
            }
            if high > at {
                at = high.next_multiple_of(align);
                below = Some(other);
            }
        }
        // The top is not at a whole unit, as the last buffer is not rounded up.
        let room = self.top.saturating_sub(at * self.instance.unit);
        let narrower = |gap: u64| room < gap * self.instance.unit;
        if rule == Rule::NarrowestUnderTop
            && room >= self.instance.bytes(buffer)
            && best.is_none_or(|(gap, ..)| narrower(gap))
        {
            best = Some((0, at, below));
        }
        let (_, offset, under) = best.unwrap_or((0, at, below));
        self.offset[buffer] = offset;
        self.top = self.top.max(self.instance.end(buffer, offset));
        under
    }
}

/// Orders in which buffers are worth placing. Fixed buffers may stand anywhere in an order.
pub(crate) struct Orders<'a> {
    instance: &'a Instance,
    urgency: Vec<u64>,
    birth: Vec<u32>,
    degree: Vec<u32>,
}

impl<'a> Orders<'a> {
    /// Looks up what the orders sort by.
    pub(crate) fn new(instance: &'a Instance) -> Self {
        let loads = instance.loads();
        let n = instance.len();
        let mut birth = vec![0; n];
        for (turn, &b) in instance.births.iter().enumerate() {
            birth[b as usize] = turn as u32;
        }
        let heaviest = |b: usize| {
            let runs = instance.runs.of(b).iter();
            runs.flat_map(|&(first, end)| &loads[first as usize..end as usize]).copied().max().unwrap_or(0)
        };
        let urgency = (0..n).map(heaviest).collect();
        let degree = (0..n).map(|b| instance.neighbours(b).len() as u32).collect();
        Self { instance, urgency, birth, degree }
    }

    /// By the highest load of an own section, then the number of conflicts, then birth, then size
    /// (the start of the hill climb of Arm's Vela).
    pub(crate) fn by_urgency(&self) -> Vec<u32> {
        self.sorted(|b| (!self.urgency[b], !u64::from(self.degree[b]), u64::from(self.birth[b])))
    }

    /// By size times the number of conflicts, widest first.
    pub(crate) fn by_area(&self) -> Vec<u32> {
        self.sorted(|b| (!self.instance.size[b].saturating_mul(u64::from(self.degree[b]) + 1), 0, 0))
    }

    /// By the highest load of an own section, then size.
    pub(crate) fn by_load_and_size(&self) -> Vec<u32> {
        self.sorted(|b| (!self.urgency[b], !self.instance.size[b], 0))
    }

    /// By the number of conflicts, then size.
    pub(crate) fn by_degree(&self) -> Vec<u32> {
        self.sorted(|b| (!u64::from(self.degree[b]), !self.instance.size[b], 0))
    }

    fn sorted(&self, key: impl Fn(usize) -> (u64, u64, u64)) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.instance.len() as u32).collect();
        order.sort_by_key(|&b| key(b as usize));
        order
    }
}

/// By size, largest first, then birth: the order of TensorFlow Lite's arena planner.
pub(crate) fn by_size(instance: &Instance) -> Vec<u32> {
    let mut order = instance.births.clone();
    order.sort_by_key(|&b| std::cmp::Reverse(instance.bytes(b as usize)));
    order
}

/// Allocates and frees in the order of time, taking the narrowest or the lowest free range each time.
///
/// Near-linear in the number of buffers, whatever they overlap; for the interval form only. A problem
/// with fixed buffers has its other buffers above all of them. `backwards` lets time run the other way.
pub(crate) fn sweep(instance: &Instance, rule: Rule, backwards: bool) -> Vec<u64> {
    let base =
        instance.fixed.iter().zip(&instance.size).filter(|&(&f, _)| f != FREE).map(|(f, s)| f + s).max();
    let mut free = FreeRanges::new(base.unwrap_or(0));
    let mut offset = instance.fixed.clone();
    let first = |b: u32| instance.runs.of(b as usize)[0].0;
    let end = |b: u32| instance.runs.of(b as usize)[0].1;
    let (births, deaths): (Vec<u32>, Vec<u32>) = if backwards {
        (instance.deaths.iter().rev().copied().collect(), instance.births.iter().rev().copied().collect())
    } else {
        (instance.births.clone(), instance.deaths.clone())
    };
    let ended_before = |a: u32, b: u32| if backwards { first(a) >= end(b) } else { end(a) <= first(b) };
    let mut ended = 0;
    for b in births.into_iter().filter(|&b| instance.fixed[b as usize] == FREE) {
        while ended < deaths.len() && ended_before(deaths[ended], b) {
            let a = deaths[ended] as usize;
            if instance.fixed[a] == FREE {
                free.release(offset[a], instance.size[a]);
            }
            ended += 1;
        }
        offset[b as usize] = free.take(instance.size[b as usize], instance.align[b as usize], rule);
    }
    offset
}

/// The free ranges of an arena that grows at its top.
struct FreeRanges {
    by_start: BTreeMap<u64, u64>,
    top: u64,
}

/// Free ranges that are looked at for one buffer.
const RANGES_LOOKED_AT: usize = 256;

impl FreeRanges {
    fn new(base: u64) -> Self {
        Self { by_start: BTreeMap::new(), top: base }
    }

    fn take(&mut self, size: u64, align: u64, rule: Rule) -> u64 {
        let mut best: Option<(u64, u64, u64)> = None;
        for (&start, &length) in self.by_start.iter().take(RANGES_LOOKED_AT) {
            let at = start.next_multiple_of(align);
            let fits = at + size <= start + length;
            if fits && best.is_none_or(|(gap, ..)| length < gap) {
                best = Some((length, start, at));
                if rule == Rule::First {
                    break;
                }
            }
        }
        if let Some((length, start, at)) = best {
            self.by_start.remove(&start);
            self.release(start, at - start);
            self.release(at + size, start + length - at - size);
            return at;
        }
        // The last free range grows, if it ends at the top.
        let mut start = self.top;
        if let Some((&low, &length)) = self.by_start.iter().next_back()
            && low + length == self.top
        {
            self.by_start.remove(&low);
            start = low;
        }
        let at = start.next_multiple_of(align);
        self.release(start, at - start);
        self.release(at + size, self.top.saturating_sub(at + size));
        self.top = self.top.max(at + size);
        at
    }

    fn release(&mut self, mut start: u64, mut length: u64) {
        if length == 0 {
            return;
        }
        if let Some(after) = self.by_start.remove(&(start + length)) {
            length += after;
        }
        if let Some((&low, &before)) = self.by_start.range(..start).next_back()
            && low + before == start
        {
            self.by_start.remove(&low);
            start = low;
            length += before;
        }
        self.by_start.insert(start, length);
    }
}
