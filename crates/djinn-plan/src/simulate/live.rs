//! Memory over time.

use std::collections::BTreeMap;

use super::{Interval, Live};
use crate::plan::{Action, BufferId, Content, Entry, Place, Plan, View};

/// When each buffer of the run is needed.
pub(super) fn intervals(plan: &Plan, entry: &Entry, times: &[Interval]) -> Vec<Live> {
    let mut live: BTreeMap<BufferId, Interval> = BTreeMap::new();
    let mut touch = |view: &View, time: Interval| {
        if matches!(plan.buffers[view.buffer.index()].content, Content::Run { .. }) {
            let known = live.entry(view.buffer).or_insert(time);
            known.start = known.start.min(time.start);
            known.end = known.end.max(time.end);
        }
    };
    for (command, &time) in entry.commands.iter().zip(times) {
        match command.action {
            Action::Launch { kernel } => {
                let kernel = &entry.kernels[kernel.index()];
                let views = kernel.reads.iter().chain(&kernel.writes).map(|o| &o.view);
                views.chain(&kernel.workspace).for_each(|view| touch(view, time));
            }
            Action::Copy { from, to, .. } => {
                for place in [from, to] {
                    if let Place::Buffer(view) = place {
                        touch(&view, time);
                    }
                }
            }
            Action::Record { .. } | Action::Wait { .. } => {}
        }
    }
    live.into_iter().map(|(buffer, interval)| Live { buffer, interval }).collect()
}

/// The most bytes of each arena that are in use at one time; bytes of two buffers count once.
pub(super) fn peaks(plan: &Plan, entry: usize, live: &[Live]) -> Vec<u64> {
    let mut changes: Vec<Vec<Change>> = vec![Vec::new(); plan.arenas.len()];
    let mut add = |buffer: usize, interval: Interval| {
        let b = &plan.buffers[buffer];
        let (start, end) = (b.offset, b.offset + b.bytes);
        if b.bytes > 0 {
            let of_arena = &mut changes[b.arena.index()];
            of_arena.push(Change { time: interval.start, begins: true, start, end });
            of_arena.push(Change { time: interval.end, begins: false, start, end });
        }
    };
    for (number, buffer) in plan.buffers.iter().enumerate() {
        if !matches!(buffer.content, Content::Run { .. }) {
            add(number, Interval { start: 0.0, end: f64::INFINITY });
        }
    }
    let own = |l: &&Live| plan.buffers[l.buffer.index()].content == Content::Run { entry: entry as u32 };
    live.iter().filter(own).for_each(|l| add(l.buffer.index(), l.interval));
    changes.into_iter().map(peak).collect()
}

/// A buffer begins or ceases to be needed.
#[derive(Clone)]
struct Change {
    time: f64,
    begins: bool,
    start: u64,
    end: u64,
}

fn peak(mut changes: Vec<Change>) -> u64 {
    let mut points: Vec<u64> = changes.iter().flat_map(|c| [c.start, c.end]).collect();
    points.sort_unstable();
    points.dedup();
    // At one moment what ends makes room for what begins.
    changes.sort_by(|a, b| a.time.total_cmp(&b.time).then(a.begins.cmp(&b.begins)));
    let mut cover = Cover::new(points);
    let mut peak = 0;
    // A buffer that is needed for no time at all would end before it begins: it is left out.
    let mut begun: BTreeMap<(u64, u64), i64> = BTreeMap::new();
    for change in changes {
        let count = begun.entry((change.start, change.end)).or_default();
        if change.begins {
            *count += 1;
            if *count > 0 {
                cover.add(&change, 1);
            }
        } else {
            *count -= 1;
            if *count >= 0 {
                cover.add(&change, -1);
            }
        }
        peak = peak.max(cover.total());
    }
    peak
}

/// Bytes covered by at least one range: a segment tree over the points where ranges begin and end (Bentley, "Algorithms
/// for Klee's rectangle problems", 1977).
struct Cover {
    points: Vec<u64>,
    count: Vec<u32>,
    covered: Vec<u64>,
}

impl Cover {
    fn new(points: Vec<u64>) -> Cover {
        let size = 4 * points.len().max(1);
        Cover { points, count: vec![0; size], covered: vec![0; size] }
    }

    fn total(&self) -> u64 {
        self.covered[1.min(self.covered.len() - 1)]
    }

    fn add(&mut self, change: &Change, by: i32) {
        self.update(1, 0, self.points.len() - 1, change, by);
    }

    /// Node `node` covers the gaps between points `from` and `to`.
    fn update(&mut self, node: usize, from: usize, to: usize, change: &Change, by: i32) {
        let (low, high) = (self.points[from], self.points[to]);
        if change.end <= low || high <= change.start {
            return;
        }
        if change.start <= low && high <= change.end {
            self.count[node] = self.count[node].saturating_add_signed(by);
        } else {
            let middle = from.midpoint(to);
            self.update(2 * node, from, middle, change, by);
            self.update(2 * node + 1, middle, to, change, by);
        }
        self.covered[node] = match (self.count[node], to - from) {
            (0, 1) => 0,
            (0, _) => self.covered[2 * node] + self.covered[2 * node + 1],
            _ => high - low,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Random;

    #[test]
    fn peaks_agree_with_counting_bytes() {
        let mut rng = Random(3);
        for _ in 0..200 {
            let mut changes = Vec::new();
            for _ in 0..1 + rng.below(12) {
                let (start, bytes) = (rng.below(30) as u64, 1 + rng.below(10) as u64);
                let (from, long) = (rng.below(20), 1 + rng.below(8));
                for (time, begins) in [(from, true), (from + long, false)] {
                    changes.push(Change { time: time as f64, begins, start, end: start + bytes });
                }
            }
            let used = |time: f64, byte: u64| {
                changes
                    .chunks(2)
                    .any(|c| c[0].time <= time && time < c[1].time && c[0].start <= byte && byte < c[0].end)
            };
            let expected = (0..30).map(|t| (0..50).filter(|&b| used(f64::from(t), b)).count()).max();
            assert_eq!(peak(changes), expected.unwrap_or(0) as u64);
        }
    }
}
