//! Stages along the order of the tasks: a dynamic programme over cut positions and devices.
//!
//! Cuts are chosen where few bytes cross. A state is a cut, the device of the stage that ends there, and the devices
//! used; transfers into a stage are taken to come from the stage before it. Tasks that a device must not run go to
//! the device where they are fastest.

use super::problem::{Objective, Problem};
use std::collections::BTreeMap;

/// The most cut positions.
const MAX_CUTS: usize = 48;

/// Up to so many devices stages may come in any order of devices; beyond, in the order given.
const ANY_ORDER: usize = 8;

/// The device of each task by the best stages, if any stages fit.
pub(crate) fn stages(problem: &Problem, same: &[Vec<bool>]) -> Option<Vec<usize>> {
    let cuts = choose_cuts(problem);
    let table = Table::new(problem, &cuts);
    let count = cuts.len();
    let devices = problem.devices();
    // For each cut the states: devices used and last device, to value, previous cut and previous state.
    type State = (u64, usize);
    let mut states: Vec<BTreeMap<State, (f64, usize, State)>> = vec![BTreeMap::new(); count];
    states[0].insert((0, usize::MAX), (0.0, 0, (0, usize::MAX)));
    for i in 0..count - 1 {
        let here: Vec<(State, f64)> = states[i].iter().map(|(s, v)| (*s, v.0)).collect();
        for ((used, last), value) in here {
            for (x, alike) in same.iter().enumerate() {
                let taken = used >> x & 1 == 1;
                let in_order = devices <= ANY_ORDER || last == usize::MAX || x > last;
                let twin = devices <= ANY_ORDER && (0..x).any(|y| alike[y] && used >> y & 1 == 0);
                if taken || !in_order || twin {
                    continue;
                }
                let key = if devices <= ANY_ORDER { (used | 1 << x, x) } else { (1 << x, x) };
                for (j, ends) in states.iter_mut().enumerate().skip(i + 1) {
                    let Some(next) = table.extend(value, i, j, last, x) else { break };
                    let entry = ends.entry(key).or_insert((f64::INFINITY, 0, (0, 0)));
                    if next < entry.0 {
                        *entry = (next, i, (used, last));
                    }
                }
            }
        }
    }
    let ends = &states[count - 1];
    let (mut state, _) = ends.iter().min_by(|a, b| a.1.0.total_cmp(&b.1.0).then(a.0.cmp(b.0)))?;
    let mut device = vec![0; problem.tasks.len()];
    let mut j = count - 1;
    while j > 0 {
        let (_, i, previous) = states[j].get(state)?;
        device[cuts[*i]..cuts[j]].fill(state.1);
        (j, state) = (*i, previous);
    }
    Some(device)
}

/// Positions where the order may be cut, first and last included.
fn choose_cuts(problem: &Problem) -> Vec<usize> {
    let n = problem.tasks.len();
    let mut crossing = vec![0.0f64; n + 1];
    let mut forbidden = vec![0i32; n + 1];
    for value in &problem.values {
        if let Some(&last) = value.consumers.iter().max() {
            crossing[value.producer + 1] += value.bytes + 1.0;
            crossing[last + 1] -= value.bytes + 1.0;
        }
    }
    let mut spans: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
    for (i, class) in problem.tasks.iter().enumerate().filter_map(|(i, t)| Some((i, t.colour_class?))) {
        spans.entry(class).or_insert((i, i)).1 = i;
    }
    for (first, last) in spans.into_values().filter(|(a, b)| b - a < n / 2) {
        forbidden[first + 1] += 1;
        forbidden[last + 1] -= 1;
    }
    let mut open = 0.0;
    let mut blocked = 0;
    let shared = first_uses(problem);
    let mut weight = vec![0.0; n + 1];
    let seconds: f64 = super::bound::shortest(problem).iter().sum();
    let bytes = super::bound::total_bytes(problem);
    let mut candidates: Vec<(usize, f64)> = Vec::new();
    for p in 0..n {
        open += crossing[p];
        blocked += forbidden[p];
        let task = &problem.tasks[p];
        let least = task.seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let held = task.bytes + shared[p];
        let part = |x: f64, all: f64| if all > 0.0 { x / all } else { 0.0 };
        weight[p + 1] = weight[p] + part(least, seconds) + part(held, bytes) + 0.1 / n as f64;
        if p > 0 && blocked == 0 {
            candidates.push((p, open));
        }
    }
    // One cut, the one that fewest bytes cross, out of each stretch of equal weight.
    let total = weight[n].max(1e-300);
    let mut best: BTreeMap<usize, (usize, f64)> = BTreeMap::new();
    for (p, open) in candidates {
        let stretch = ((weight[p] / total) * MAX_CUTS as f64) as usize;
        let entry = best.entry(stretch).or_insert((p, open));
        if open < entry.1 {
            *entry = (p, open);
        }
    }
    let mut cuts = vec![0];
    cuts.extend(best.into_values().map(|(p, _)| p));
    cuts.push(n);
    cuts.dedup();
    cuts
}

/// The shared bytes that each task is the first to use.
fn first_uses(problem: &Problem) -> Vec<f64> {
    let mut bytes = vec![0.0; problem.tasks.len()];
    for shared in &problem.shared {
        if let Some(&first) = shared.users.iter().min() {
            bytes[first] += shared.bytes;
        }
    }
    bytes
}

/// What a stage between two cuts costs.
struct Table<'a> {
    problem: &'a Problem,
    /// Seconds of the tasks before each cut, for each device.
    seconds: Vec<Vec<f64>>,
    /// Bytes of a stage, by first and last cut.
    bytes: Vec<Vec<f64>>,
    /// Values that a stage takes in, and their bytes, by first and last cut.
    inputs: Vec<Vec<(f64, f64)>>,
    /// Values that leave a stage, and their bytes.
    outputs: Vec<Vec<(f64, f64)>>,
}

impl<'a> Table<'a> {
    fn new(problem: &'a Problem, cuts: &[usize]) -> Self {
        let devices = problem.devices();
        let shortest = super::bound::shortest(problem);
        let mut seconds = vec![vec![0.0; devices]];
        for pair in cuts.windows(2) {
            let mut row = seconds[seconds.len() - 1].clone();
            for (task, &least) in problem.tasks[pair[0]..pair[1]].iter().zip(&shortest[pair[0]..pair[1]]) {
                for (sum, &time) in row.iter_mut().zip(&task.seconds) {
                    *sum += if time.is_finite() { time } else { least };
                }
            }
            seconds.push(row);
        }
        let mut table = Self {
            problem,
            seconds,
            bytes: vec![vec![0.0; cuts.len()]; cuts.len()],
            inputs: vec![vec![(0.0, 0.0); cuts.len()]; cuts.len()],
            outputs: vec![vec![(0.0, 0.0); cuts.len()]; cuts.len()],
        };
        table.fill(cuts);
        table
    }

    fn fill(&mut self, cuts: &[usize]) {
        let n = self.problem.tasks.len();
        let mut stretch = vec![0usize; n];
        for (k, pair) in cuts.windows(2).enumerate() {
            stretch[pair[0]..pair[1]].fill(k);
        }
        for (t, task) in self.problem.tasks.iter().enumerate() {
            let k = stretch[t];
            self.each_around(k, k, |table, i, j| table.bytes[i][j] += task.bytes);
        }
        for shared in &self.problem.shared {
            let mut used: Vec<usize> = shared.users.iter().map(|&u| stretch[u]).collect();
            used.sort_unstable();
            used.dedup();
            self.add_touching(&used, |table, i, j| table.bytes[i][j] += shared.bytes);
        }
        for value in &self.problem.values {
            let made = stretch[value.producer];
            let mut used: Vec<usize> =
                value.consumers.iter().map(|&c| stretch[c]).filter(|&k| k > made).collect();
            used.sort_unstable();
            used.dedup();
            let Some(&last) = used.last() else { continue };
            self.add_touching(&used, |table, i, j| {
                if i > made {
                    table.inputs[i][j].0 += 1.0;
                    table.inputs[i][j].1 += value.bytes;
                }
            });
            self.each_around(made, made, |table, i, j| {
                if j <= last {
                    table.outputs[i][j].0 += 1.0;
                    table.outputs[i][j].1 += value.bytes;
                }
            });
        }
    }

    /// Calls `add` for every stage (first cut, last cut) that has the stretches from `a` to `b`.
    fn each_around(&mut self, a: usize, b: usize, mut add: impl FnMut(&mut Self, usize, usize)) {
        for i in 0..=a {
            for j in b + 1..self.bytes.len() {
                add(self, i, j);
            }
        }
    }

    /// Calls `add` once for every stage that has one of the stretches, which are sorted.
    fn add_touching(&mut self, stretches: &[usize], mut add: impl FnMut(&mut Self, usize, usize)) {
        let mut before = 0;
        for &k in stretches {
            for i in before..=k {
                for j in k + 1..self.bytes.len() {
                    add(self, i, j);
                }
            }
            before = k + 1;
        }
    }

    /// The value after one more stage on `x`, or none if it does not fit there.
    fn extend(&self, value: f64, i: usize, j: usize, last: usize, x: usize) -> Option<f64> {
        let bytes = self.bytes[i][j];
        if bytes > self.problem.capacity[x] {
            return None;
        }
        let time = self.seconds[j][x] - self.seconds[i][x];
        let taken_in = if last == usize::MAX { 0.0 } else { self.moved(last, x, self.inputs[i][j]) };
        Some(match self.problem.objective {
            Objective::Latency => value + time + taken_in,
            Objective::Throughput => {
                let others = (0..self.problem.devices()).filter(|&y| y != x);
                let out = others.map(|y| self.moved(x, y, self.outputs[i][j])).fold(f64::INFINITY, f64::min);
                let out = if out.is_finite() { out } else { 0.0 };
                value.max(time + taken_in + out)
            }
            Objective::Memory => value.max(bytes / self.problem.capacity[x].max(1e-300)),
        })
    }

    fn moved(&self, from: usize, to: usize, (count, bytes): (f64, f64)) -> f64 {
        let link = self.problem.links[from][to];
        if count > 0.0 { count * link.latency + bytes * link.seconds_per_byte } else { 0.0 }
    }
}
