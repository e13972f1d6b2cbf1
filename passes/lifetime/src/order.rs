//! Orders of units with a low peak: list schedules, then exact search in windows around the peak.

use crate::model::{Model, Peaks, Run};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

/// Units of a window, at most: one bit each.
const WINDOW: usize = 60;

/// Windows that are looked at, at most.
const MAX_WINDOWS: usize = 64;

/// What became of the search for an order.
#[derive(Debug, Clone)]
pub(crate) struct Ordered {
    /// The units in the best order.
    pub(crate) order: Vec<u32>,
    /// Its peaks.
    pub(crate) peaks: Peaks,
    /// The peaks of the given order.
    pub(crate) before: Peaks,
    /// Was the search ended by its number of states?
    pub(crate) stopped: bool,
}

/// Looks for an order with a lower peak in at most `states` states of the windows; never worse than the given one.
pub(crate) fn improve(model: &Model, states: u64) -> Ordered {
    let given: Vec<u32> = (0..model.units.len() as u32).collect();
    let before = model.simulate(&given);
    let mut best = Ordered { order: given, peaks: before.clone(), before, stopped: false };
    let least = lower_bounds(model);
    if best.peaks.bytes == least {
        return best;
    }
    for order in [list_schedule(model, &best.order), as_late_as_possible(model, &best.order)] {
        let peaks = model.simulate(&order);
        if peaks.better_than(&best.peaks) {
            best = Ordered { order, peaks, ..best };
        }
    }
    let mut left = states;
    for (device, bound) in least.into_iter().enumerate() {
        for _ in 0..MAX_WINDOWS {
            if best.peaks.bytes[device] <= bound || left == 0 {
                break;
            }
            let Some(order) = better_window(model, &best, device, &mut left) else { break };
            let peaks = model.simulate(&order);
            let no_worse = peaks.bytes.iter().zip(&best.peaks.bytes).all(|(a, b)| a <= b);
            let moved_on =
                peaks.better_than(&best.peaks) || peaks.position[device] > best.peaks.position[device];
            if !no_worse || !moved_on {
                break;
            }
            best = Ordered { order, peaks, ..best };
        }
    }
    best.stopped = left == 0;
    best
}

/// What the operands and results of a single unit take.
pub(crate) fn lower_bounds(model: &Model) -> Vec<u64> {
    let mut least = vec![0u64; model.devices.len()];
    let mut need = vec![0u64; model.devices.len()];
    for (touched, over) in model.touches.iter().zip(&model.over) {
        need.fill(0);
        for buffer in touched.iter().map(|b| &model.buffers[*b as usize]) {
            need[buffer.device] = need[buffer.device].saturating_add(buffer.bytes);
        }
        let in_place: BTreeSet<u32> = over.iter().map(|(to, _)| *to).collect();
        for buffer in in_place.iter().map(|b| &model.buffers[*b as usize]) {
            need[buffer.device] = need[buffer.device].saturating_sub(buffer.bytes);
        }
        for (least, need) in least.iter_mut().zip(&need) {
            *least = (*least).max(*need);
        }
    }
    least
}

/// Runs at each step the ready unit that adds the fewest bytes; the earlier one of equals.
fn list_schedule(model: &Model, given: &[u32]) -> Vec<u32> {
    let mut run = Run::new(model);
    let mut waits: Vec<usize> = model.before.iter().map(Vec::len).collect();
    let mut done = vec![false; given.len()];
    let grows = |run: &Run<'_>, u: u32| -> i64 {
        let touched = model.touches[u as usize].iter();
        touched
            .map(|&b| {
                let bytes = i64::try_from(model.buffers[b as usize].bytes).unwrap_or(i64::MAX);
                let freed = if run.open[b as usize] == 1 { bytes } else { 0 };
                if run.is_new(b) { bytes - freed } else { -freed }
            })
            .fold(0, i64::saturating_add)
    };
    let mut ready: BinaryHeap<Reverse<(i64, u32)>> = BinaryHeap::new();
    for &u in given.iter().filter(|u| waits[**u as usize] == 0) {
        ready.push(Reverse((grows(&run, u), u)));
    }
    let mut order = Vec::with_capacity(given.len());
    while let Some(Reverse((growth, u))) = ready.pop() {
        // Entries are not updated in place; an old one is as good as none.
        if done[u as usize] || growth != grows(&run, u) {
            continue;
        }
        done[u as usize] = true;
        order.push(u);
        run.step(u as usize, |_, _| {});
        for &a in &model.after[u as usize] {
            waits[a as usize] -= 1;
            if waits[a as usize] == 0 {
                ready.push(Reverse((grows(&run, a), a)));
            }
        }
        for &b in &model.touches[u as usize] {
            let buffer = &model.buffers[b as usize];
            if run.open[b as usize] == 1
                && let Some(&last) = buffer.accessors.iter().find(|a| !done[**a as usize])
                && waits[last as usize] == 0
            {
                ready.push(Reverse((grows(&run, last), last)));
            }
        }
        // What was first to touch a buffer makes it cheaper for the others.
        for &b in &model.touches[u as usize] {
            let accessors = &model.buffers[b as usize].accessors;
            if run.open[b as usize] as usize + 1 == accessors.len() {
                for &a in accessors.iter().filter(|a| !done[**a as usize] && waits[**a as usize] == 0) {
                    ready.push(Reverse((grows(&run, a), a)));
                }
            }
        }
    }
    order
}

/// Moves every unit to right before the first that needs it, keeping the order of the others.
fn as_late_as_possible(model: &Model, given: &[u32]) -> Vec<u32> {
    // A depth-first walk from the end: the last unit, before it what it needs, and so on.
    let mut placed = vec![false; given.len()];
    let mut order = Vec::with_capacity(given.len());
    let is_sink = |u: &&u32| model.after[**u as usize].is_empty();
    let mut stack: Vec<(u32, usize)> = Vec::new();
    for &sink in given.iter().filter(is_sink) {
        if placed[sink as usize] {
            continue;
        }
        placed[sink as usize] = true;
        stack.push((sink, 0));
        while let Some((u, next)) = stack.last_mut() {
            match model.before[*u as usize].get(*next) {
                Some(&b) => {
                    *next += 1;
                    if !std::mem::replace(&mut placed[b as usize], true) {
                        stack.push((b, 0));
                    }
                }
                None => {
                    order.push(*u);
                    stack.pop();
                }
            }
        }
    }
    order
}

/// A better order of the units around the peak of a device, if the search finds one.
fn better_window(model: &Model, best: &Ordered, device: usize, left: &mut u64) -> Option<Vec<u32>> {
    let (from, to) = window(model, best, device);
    let search = WindowSearch::new(model, &best.order, from, to, device);
    let inside = search.run(best.peaks.bytes[device], left)?;
    let mut order = best.order.clone();
    for (slot, unit) in inside.into_iter().enumerate() {
        order[from + slot] = best.order[from + unit];
    }
    Some(order)
}

/// The positions around a peak between those where at most one buffer is live, or where the fewest bytes are.
fn window(model: &Model, best: &Ordered, device: usize) -> (usize, usize) {
    let peak = best.peaks.position[device];
    let first = peak.saturating_sub(WINDOW - 1);
    let last = (peak + WINDOW).min(best.order.len());
    let mut run = Run::new(model);
    // Live bytes before each position from `first` on, and after the last one.
    let mut live = Vec::new();
    for (position, &u) in best.order[..last].iter().enumerate() {
        if position >= first {
            live.push(run.live[device]);
        }
        run.step(u as usize, |_, _| {});
    }
    live.push(run.live[device]);
    let half = WINDOW / 2;
    let lowest = |range: &mut dyn Iterator<Item = usize>| range.min_by_key(|p| live[p - first]);
    let low_from = first.max(peak.saturating_sub(half));
    let from = lowest(&mut (low_from..=peak)).unwrap_or(peak);
    let high_to = last.min(peak + half);
    let to = lowest(&mut (peak + 1..=high_to).rev()).unwrap_or(peak + 1);
    (from, to)
}

/// A buffer as a window sees it.
struct WindowBuffer {
    bytes: u64,
    accessors: u64,
    before: bool,
    after: bool,
}

/// The search for an order of the units of a window: the path through the sets of units that have run whose
/// highest step is lowest.
struct WindowSearch {
    count: usize,
    before: Vec<u64>,
    touches: Vec<Vec<u32>>,
    over: Vec<Vec<(u32, u32)>>,
    buffers: Vec<WindowBuffer>,
    base: u64,
}

/// A set of units that have run, how it was reached, and what is live then.
struct Node {
    set: u64,
    live: u64,
    last: u32,
    parent: u32,
}

impl WindowSearch {
    fn new(model: &Model, order: &[u32], from: usize, to: usize, device: usize) -> Self {
        let inside = &order[from..to];
        let mut run = Run::new(model);
        for &u in &order[..from] {
            run.step(u as usize, |_, _| {});
        }
        let mut place: HashMap<u32, usize> = HashMap::new();
        for (i, &u) in inside.iter().enumerate() {
            place.insert(u, i);
        }
        let mut number: HashMap<u32, u32> = HashMap::new();
        let mut buffers: Vec<WindowBuffer> = Vec::new();
        let mut touches = Vec::new();
        for (i, &u) in inside.iter().enumerate() {
            let mut list = Vec::new();
            for &b in
                model.touches[u as usize].iter().filter(|b| model.buffers[**b as usize].device == device)
            {
                let n = *number.entry(b).or_insert_with(|| {
                    let before = !run.is_new(b);
                    let bytes = model.buffers[b as usize].bytes;
                    buffers.push(WindowBuffer { bytes, accessors: 0, before, after: true });
                    buffers.len() as u32 - 1
                });
                let buffer = &mut buffers[n as usize];
                buffer.accessors |= 1 << i;
                buffer.after = run.open[b as usize] > buffer.accessors.count_ones();
                list.push(n);
            }
            touches.push(list);
        }
        let mask = |u: &u32| {
            let near = model.before[*u as usize].iter().filter_map(|b| place.get(b));
            near.fold(0u64, |mask, i| mask | 1 << i)
        };
        let pairs = |u: &u32| {
            let both = |(to, from): &(u32, u32)| Some((*number.get(to)?, *number.get(from)?));
            model.over[*u as usize].iter().filter_map(both).collect()
        };
        WindowSearch {
            count: inside.len(),
            before: inside.iter().map(mask).collect(),
            over: inside.iter().map(pairs).collect(),
            touches,
            buffers,
            base: run.live[device],
        }
    }

    /// Bytes live while unit `u` runs after `set`, and after it.
    fn step(&self, set: u64, live: u64, u: usize) -> (u64, u64) {
        let then = set | 1 << u;
        let is_new =
            |b: u32| !self.buffers[b as usize].before && self.buffers[b as usize].accessors & set == 0;
        let dies = |b: u32| {
            let buffer = &self.buffers[b as usize];
            !buffer.after && buffer.accessors & !then == 0
        };
        let (mut added, mut freed) = (0, 0);
        for &b in &self.touches[u] {
            let bytes = self.buffers[b as usize].bytes;
            added += if is_new(b) { bytes } else { 0 };
            freed += if dies(b) { bytes } else { 0 };
        }
        let pair = self.over[u].iter().find(|(to, from)| is_new(*to) && dies(*from) && !is_new(*from));
        let saved = pair.map_or(0, |(to, _)| self.buffers[*to as usize].bytes);
        (live + added - saved, live + added - freed)
    }

    /// An order in which every step stays below `limit`, with the lowest peak there is within `left` states.
    fn run(&self, limit: u64, left: &mut u64) -> Option<Vec<usize>> {
        let full = if self.count == 64 { u64::MAX } else { (1 << self.count) - 1 };
        let mut nodes = vec![Node { set: 0, live: self.base, last: 0, parent: 0 }];
        let mut seen: HashMap<u64, u64> = HashMap::from([(0, 0)]);
        // The lowest peak first, then the most units, then the earliest found.
        let mut open = BinaryHeap::from([(Reverse(0u64), 0u32, Reverse(0u32))]);
        while let Some((Reverse(peak), _, Reverse(at))) = open.pop() {
            let (set, live) = (nodes[at as usize].set, nodes[at as usize].live);
            if set == full {
                return Some(path(&nodes, at));
            }
            if seen.get(&set).is_some_and(|p| *p < peak) {
                continue;
            }
            if *left == 0 {
                return None;
            }
            *left -= 1;
            let ready = (0..self.count).filter(|u| set >> u & 1 == 0 && self.before[*u] & !set == 0);
            let mut steps: Vec<(usize, u64, u64)> = Vec::new();
            for u in ready {
                let (busy, then) = self.step(set, live, u);
                if busy <= peak && then <= live {
                    // It costs nothing to run this now, whatever comes later.
                    steps = vec![(u, busy, then)];
                    break;
                }
                steps.push((u, busy, then));
            }
            for (u, busy, then) in steps.into_iter().filter(|(_, busy, _)| *busy < limit) {
                let (next, peak) = (set | 1 << u, peak.max(busy));
                if seen.get(&next).is_none_or(|p| peak < *p) {
                    seen.insert(next, peak);
                    nodes.push(Node { set: next, live: then, last: u as u32, parent: at });
                    open.push((Reverse(peak), next.count_ones(), Reverse(nodes.len() as u32 - 1)));
                }
            }
        }
        None
    }
}

/// The units on the way to a node.
fn path(nodes: &[Node], mut at: u32) -> Vec<usize> {
    let mut order = Vec::new();
    while at != 0 {
        order.push(nodes[at as usize].last as usize);
        at = nodes[at as usize].parent;
    }
    order.reverse();
    order
}
