//! Local search on problems: first placements, and moves of units and of stretches between devices.

use super::problem::{Objective, Problem};
use std::collections::BTreeMap;

/// How bad a placement is; compared in the order of the fields.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct Score {
    /// Overfull devices, missing links, circles of stages.
    pub(crate) violation: f64,
    /// What the objective says.
    pub(crate) value: f64,
    /// Seconds of all transfers.
    pub(crate) transfers: f64,
}

/// Colour classes as units, and what the moves need to know.
pub(crate) struct Search<'a> {
    problem: &'a Problem,
    /// The tasks of each unit.
    units: Vec<Vec<usize>>,
    unit_of: Vec<usize>,
    /// Bytes of a unit, its shared bytes included.
    bytes: Vec<f64>,
    /// For each task the values it uses, as indices.
    inputs: Vec<Vec<usize>>,
    /// Tasks and uses looked at by scoring so far, and at most.
    work: u64,
    limit: u64,
    cost_of_score: u64,
}

impl<'a> Search<'a> {
    pub(crate) fn new(problem: &'a Problem, limit: u64) -> Self {
        let n = problem.tasks.len();
        let mut classes: BTreeMap<u32, usize> = BTreeMap::new();
        let mut units: Vec<Vec<usize>> = Vec::new();
        let mut unit_of = Vec::with_capacity(n);
        for (i, task) in problem.tasks.iter().enumerate() {
            let fresh = units.len();
            let unit = task.colour_class.map_or(fresh, |c| *classes.entry(c).or_insert(fresh));
            if unit == fresh {
                units.push(Vec::new());
            }
            units[unit].push(i);
            unit_of.push(unit);
        }
        let mut bytes = vec![0.0; units.len()];
        for (i, task) in problem.tasks.iter().enumerate() {
            bytes[unit_of[i]] += task.bytes;
        }
        for shared in &problem.shared {
            for &u in &shared.users {
                bytes[unit_of[u]] += shared.bytes;
            }
        }
        let mut inputs = vec![Vec::new(); n];
        let mut uses = 0;
        for (i, value) in problem.values.iter().enumerate() {
            for &c in &value.consumers {
                inputs[c].push(i);
                uses += 1;
            }
        }
        let cost_of_score = (n + uses + problem.shared.len() + 1) as u64;
        Self { problem, units, unit_of, bytes, inputs, work: 0, limit, cost_of_score }
    }

    fn spent(&self) -> bool {
        self.work >= self.limit
    }

    /// The devices that may run a unit.
    fn allowed(&self, unit: usize, device: usize) -> bool {
        self.units[unit].iter().all(|&t| self.problem.tasks[t].seconds[device].is_finite())
    }

    fn seconds(&self, unit: usize, device: usize) -> f64 {
        self.units[unit].iter().map(|&t| self.problem.tasks[t].seconds[device]).sum()
    }

    /// A unit that no device may run.
    pub(crate) fn homeless(&self) -> Option<usize> {
        let d = self.problem.devices();
        (0..self.units.len()).find(|&u| !(0..d).any(|x| self.allowed(u, x))).map(|u| self.units[u][0])
    }

    /// Makes a placement lawful: units on one device that may run them.
    fn lawful(&self, wish: &[usize]) -> Vec<usize> {
        let mut device = wish.to_vec();
        for unit in 0..self.units.len() {
            let wished = wish[self.units[unit][0]];
            let target = if self.allowed(unit, wished) { wished } else { self.fastest(unit) };
            self.put(&mut device, unit, target);
        }
        device
    }

    fn fastest(&self, unit: usize) -> usize {
        let d = self.problem.devices();
        (0..d)
            .filter(|&x| self.allowed(unit, x))
            .min_by(|&a, &b| self.seconds(unit, a).total_cmp(&self.seconds(unit, b)))
            .unwrap_or(0)
    }

    fn put(&self, device: &mut [usize], unit: usize, target: usize) {
        for &t in &self.units[unit] {
            device[t] = target;
        }
    }

    /// First placements, best first.
    pub(crate) fn starts(&mut self, wishes: Vec<Vec<usize>>) -> Vec<(Score, Vec<usize>)> {
        let mut found: Vec<Vec<usize>> = wishes.iter().map(|w| self.lawful(w)).collect();
        for x in 0..self.problem.devices() {
            found.push(self.lawful(&vec![x; self.problem.tasks.len()]));
        }
        found.push(self.filled());
        found.push(self.spread());
        let mut scored: Vec<(Score, Vec<usize>)> = found.into_iter().map(|d| (self.score(&d), d)).collect();
        scored.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(std::cmp::Ordering::Equal));
        scored
    }

    /// Fills one device after another, in the order of the tasks, fastest device first.
    fn filled(&self) -> Vec<usize> {
        let d = self.problem.devices();
        let total =
            |x: usize| self.problem.tasks.iter().map(|t| t.seconds[x]).filter(|s| s.is_finite()).sum::<f64>();
        let mut order: Vec<usize> = (0..d).collect();
        order.sort_by(|&a, &b| total(a).total_cmp(&total(b)).then(a.cmp(&b)));
        let mut room = self.problem.capacity.clone();
        let mut device = vec![0; self.problem.tasks.len()];
        let mut turn = 0;
        for unit in 0..self.units.len() {
            let fits = |x: usize, room: &[f64]| self.allowed(unit, x) && self.bytes[unit] <= room[x];
            let later = (turn..d).find(|&k| fits(order[k], &room));
            let target = match later {
                Some(k) => {
                    if self.allowed(unit, order[turn]) {
                        turn = k;
                    }
                    order[k]
                }
                None => (0..d).find(|&x| fits(x, &room)).unwrap_or_else(|| self.fastest(unit)),
            };
            room[target] -= self.bytes[unit];
            self.put(&mut device, unit, target);
        }
        device
    }

    /// Puts each unit where its first task would end first, or where the load stays smallest.
    fn spread(&self) -> Vec<usize> {
        let d = self.problem.devices();
        let mut room = self.problem.capacity.clone();
        let mut device = vec![usize::MAX; self.problem.tasks.len()];
        let mut end = vec![0.0f64; device.len()];
        let mut free = vec![0.0f64; d];
        for task in 0..device.len() {
            let unit = self.unit_of[task];
            let arrival = |x: usize, device: &[usize], end: &[f64]| {
                let one = |&v: &usize| {
                    let value = &self.problem.values[v];
                    end[value.producer] + self.problem.transfer(device[value.producer], x, value.bytes)
                };
                self.inputs[task].iter().map(one).fold(0.0, f64::max)
            };
            if device[task] == usize::MAX {
                let finish = |x: usize| {
                    let full = if self.bytes[unit] <= room[x] { 0.0 } else { 1e30 };
                    full + self.problem.tasks[task].seconds[x]
                        + match self.problem.objective {
                            Objective::Latency => arrival(x, &device, &end).max(free[x]),
                            _ => free[x],
                        }
                };
                let possible = (0..d).filter(|&x| self.allowed(unit, x));
                let target = possible.min_by(|&a, &b| finish(a).total_cmp(&finish(b))).unwrap_or(0);
                room[target] -= self.bytes[unit];
                self.put(&mut device, unit, target);
            }
            let x = device[task];
            end[task] = arrival(x, &device, &end).max(free[x]) + self.problem.tasks[task].seconds[x];
            free[x] = match self.problem.objective {
                Objective::Latency => end[task],
                _ => free[x] + self.problem.tasks[task].seconds[x],
            };
        }
        device
    }

    pub(crate) fn score(&mut self, device: &[usize]) -> Score {
        self.work += self.cost_of_score;
        let problem = self.problem;
        let d = problem.devices();
        let (mut load, mut bytes) = (vec![0.0; d], vec![0.0; d]);
        let (mut violation, mut transfers) = (0.0, 0.0);
        let mut sends = vec![0u64; d];
        for value in &problem.values {
            let home = device[value.producer];
            let mut targets = 0u64;
            for &c in &value.consumers {
                targets |= 1 << device[c];
            }
            targets &= !(1 << home);
            sends[home] |= targets;
            while targets != 0 {
                let x = targets.trailing_zeros() as usize;
                targets &= targets - 1;
                let seconds = problem.transfer(home, x, value.bytes);
                if seconds.is_finite() {
                    transfers += seconds;
                    load[home] += seconds;
                    load[x] += seconds;
                } else {
                    violation += 1.0;
                }
            }
        }
        for (task, &x) in problem.tasks.iter().zip(device) {
            bytes[x] += task.bytes;
            load[x] += task.seconds[x];
        }
        for shared in &problem.shared {
            let mut holders = 0u64;
            for &u in &shared.users {
                holders |= 1 << device[u];
            }
            while holders != 0 {
                bytes[holders.trailing_zeros() as usize] += shared.bytes;
                holders &= holders - 1;
            }
        }
        for (&used, &room) in bytes.iter().zip(&problem.capacity) {
            violation += if used > room { (used - room) / room.max(1.0) + 1e-6 } else { 0.0 };
        }
        if problem.stages && circular(&sends) {
            violation += 0.5;
        }
        let value = match problem.objective {
            Objective::Latency => self.makespan(device),
            Objective::Throughput => load.into_iter().fold(0.0, f64::max),
            Objective::Memory => {
                let part = |(u, r): (&f64, &f64)| if *u > 0.0 { u / r } else { 0.0 };
                bytes.iter().zip(&problem.capacity).map(part).fold(0.0, f64::max)
            }
        };
        Score { violation, value, transfers }
    }

    fn makespan(&self, device: &[usize]) -> f64 {
        let mut end = vec![0.0f64; device.len()];
        let mut free = vec![0.0f64; self.problem.devices()];
        for (task, &x) in device.iter().enumerate() {
            let mut start = free[x];
            for &v in &self.inputs[task] {
                let value = &self.problem.values[v];
                let arrival = self.problem.transfer(device[value.producer], x, value.bytes);
                if arrival.is_finite() {
                    start = start.max(end[value.producer] + arrival);
                }
            }
            end[task] = start + self.problem.tasks[task].seconds[x];
            free[x] = end[task];
        }
        end.into_iter().fold(0.0, f64::max)
    }

    /// Moves units and stretches while that helps and the limit allows; says whether the limit ended it.
    pub(crate) fn descend(&mut self, best: &mut (Score, Vec<usize>)) -> bool {
        loop {
            let before = best.0;
            self.shift_boundaries(best);
            self.move_ends(best);
            if best.0.violation > 0.0 {
                self.relieve(best);
            }
            if self.spent() {
                return true;
            }
            if best.0 >= before {
                return false;
            }
        }
    }

    /// Takes a trial over if it is better.
    fn attempt(&mut self, best: &mut (Score, Vec<usize>), moves: &[(usize, usize)]) -> bool {
        let legal = |&(unit, x): &(usize, usize)| self.allowed(unit, x);
        let idle = |&(unit, x): &(usize, usize)| best.1[self.units[unit][0]] == x;
        if self.spent() || !moves.iter().all(legal) || moves.iter().all(idle) {
            return false;
        }
        let mut trial = best.1.clone();
        for &(unit, x) in moves {
            self.put(&mut trial, unit, x);
        }
        let score = self.score(&trial);
        let better = score < best.0;
        if better {
            *best = (score, trial);
        }
        better
    }

    /// Moves stretches of tasks across places where the order changes device.
    fn shift_boundaries(&mut self, best: &mut (Score, Vec<usize>)) {
        let n = self.problem.tasks.len();
        let mut p = 1;
        while p < n && !self.spent() {
            let (left, right) = (best.1[p - 1], best.1[p]);
            if left != right {
                let before = (0..p).rev().take_while(|&t| best.1[t] == left).count();
                let after = (p..n).take_while(|&t| best.1[t] == right).count();
                for k in lengths(after) {
                    let moves: Vec<_> = (p..p + k).map(|t| (self.unit_of[t], left)).collect();
                    self.attempt_movable(best, moves);
                }
                for k in lengths(before) {
                    let moves: Vec<_> = (p - k..p).map(|t| (self.unit_of[t], right)).collect();
                    self.attempt_movable(best, moves);
                }
            }
            p += 1;
        }
    }

    /// Like [`Self::attempt`], without the moves that a device does not allow.
    fn attempt_movable(&mut self, best: &mut (Score, Vec<usize>), mut moves: Vec<(usize, usize)>) -> bool {
        moves.retain(|&(unit, x)| self.allowed(unit, x));
        moves.dedup();
        !moves.is_empty() && self.attempt(best, &moves)
    }

    /// Moves the two ends of each transfer to the device of the other.
    fn move_ends(&mut self, best: &mut (Score, Vec<usize>)) {
        for v in 0..self.problem.values.len() {
            let value = &self.problem.values[v];
            for &c in &value.consumers {
                if self.spent() {
                    return;
                }
                let (a, b) = (best.1[value.producer], best.1[c]);
                if a != b {
                    let (producer, consumer) = (self.unit_of[value.producer], self.unit_of[c]);
                    let _ = self.attempt(best, &[(producer, b)]) || self.attempt(best, &[(consumer, a)]);
                }
            }
        }
    }

    /// Moves units to other devices, those with most bytes first.
    fn relieve(&mut self, best: &mut (Score, Vec<usize>)) {
        let mut order: Vec<usize> = (0..self.units.len()).collect();
        order.sort_by(|&a, &b| self.bytes[b].total_cmp(&self.bytes[a]).then(a.cmp(&b)));
        for unit in order {
            for x in 0..self.problem.devices() {
                if best.0.violation == 0.0 || self.spent() {
                    return;
                }
                self.attempt(best, &[(unit, x)]);
            }
        }
    }
}

/// Lengths to try: all, halves of it, one.
fn lengths(all: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(all), |&k| (k > 1).then_some(k / 2))
}

/// Whether some devices send values in a circle.
fn circular(sends: &[u64]) -> bool {
    let mut left: u64 = if sends.len() == 64 { u64::MAX } else { (1 << sends.len()) - 1 };
    loop {
        let leaf = (0..sends.len()).find(|&x| left >> x & 1 == 1 && sends[x] & left == 0);
        match leaf {
            Some(x) => left &= !(1 << x),
            None => return left != 0,
        }
    }
}
