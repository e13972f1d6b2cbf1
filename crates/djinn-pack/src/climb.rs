//! Hill climbing over the order in which buffers are placed, after the allocator of Arm's Vela compiler
//! (`ethos-u-vela` 5.2.0, `hillclimb_allocation.py`, Apache-2.0).
//!
//! Buffers are placed at the lowest free offset in order of their turns. Each iteration looks at a buffer that
//! reaches highest, its neighbours and what they sit on, swaps the turns of two of these, and keeps the
//! result unless it is higher.

use crate::greedy::{Placer, Rule};
use crate::instance::{FREE, Instance};
use crate::random::Random;

/// Iterations without a lower packing after which the turns to choose from are widened.
const STUCK: u64 = 50;

/// How often the first turn is taken from those of the predecessors only, in per cent.
const FROM_PREDECESSORS: u64 = 30;

/// Improves on `order` until the height is at most `enough` bytes or `steps` neighbours were looked at.
///
/// Returns the best offsets in units, their height in bytes and the steps taken.
pub(crate) fn climb(instance: &Instance, order: Vec<u32>, enough: u64, steps: u64) -> (Vec<u64>, u64, u64) {
    let mut climber = Climber::new(instance, order);
    climber.replace_from(0, u64::MAX);
    let mut best = climber.placer.offset.clone();
    let mut best_height = instance.height(&best);
    let mut last_better = 0;
    let mut iteration = 0;
    while best_height > enough && climber.placer.steps < steps && instance.len() > 1 {
        iteration += 1;
        let swapped = climber.swap_turns(iteration - last_better > STUCK);
        let Some(from) = swapped else { break };
        match climber.replace_from(from, best_height) {
            Some(height) => {
                if height < best_height {
                    last_better = iteration;
                }
                best_height = height;
                best.copy_from_slice(&climber.placer.offset);
                climber.keep();
            }
            None => climber.restore(&best),
        }
    }
    (best, best_height, climber.placer.steps)
}

/// The state of the climb: an order, the packing it gives, and how to go back to the last one.
struct Climber<'a> {
    instance: &'a Instance,
    placer: Placer<'a>,
    order: Vec<u32>,
    turn: Vec<u32>,
    under: Vec<Option<u32>>,
    kept_under: Vec<Option<u32>>,
    swaps: Vec<(usize, usize)>,
    random: Random,
    chosen: Vec<bool>,
}

impl<'a> Climber<'a> {
    fn new(instance: &'a Instance, order: Vec<u32>) -> Self {
        let n = instance.len();
        let mut turn = vec![0; n];
        for (t, &b) in order.iter().enumerate() {
            turn[b as usize] = t as u32;
        }
        Self {
            instance,
            placer: Placer::new(instance),
            order,
            turn,
            under: vec![None; n],
            kept_under: vec![None; n],
            swaps: Vec::new(),
            random: Random::new(),
            chosen: vec![false; n],
        }
    }

    /// Places everything from turn `from` on again; gives up above `limit` bytes.
    fn replace_from(&mut self, from: usize, limit: u64) -> Option<u64> {
        for &b in &self.order[from..] {
            self.placer.offset[b as usize] = self.instance.fixed[b as usize];
        }
        let mut height = 0;
        for (turn, &b) in self.order.iter().enumerate() {
            let b = b as usize;
            if turn >= from && self.placer.offset[b] == FREE {
                self.under[b] = self.placer.place(b, Rule::First);
            }
            height = height.max(self.instance.end(b, self.placer.offset[b]));
            if height > limit {
                return None;
            }
        }
        Some(height)
    }

    fn keep(&mut self) {
        self.swaps.clear();
        self.kept_under.copy_from_slice(&self.under);
    }

    fn restore(&mut self, offsets: &[u64]) {
        while let Some((a, b)) = self.swaps.pop() {
            self.swap(a, b);
        }
        self.placer.offset.copy_from_slice(offsets);
        self.under.copy_from_slice(&self.kept_under);
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.order.swap(a, b);
        self.turn[self.order[a] as usize] = a as u32;
        self.turn[self.order[b] as usize] = b as u32;
    }

    /// Swaps two turns, or three when `wide`, around a highest buffer; returns the first turn that changed.
    fn swap_turns(&mut self, wide: bool) -> Option<usize> {
        let (near, far) = self.turns_of_interest(wide);
        let total = near.len() + far.len();
        if total < 2 {
            return None;
        }
        let pick = |from_far: bool, random: &mut Random| {
            if from_far && !far.is_empty() {
                return far[random.below(far.len())];
            }
            let i = random.below(total);
            if i < near.len() { near[i] } else { far[i - near.len()] }
        };
        let mut from = usize::MAX;
        for _ in 0..if wide { 2 } else { 1 } {
            let from_far = self.random.below(100) < FROM_PREDECESSORS as usize;
            let a = pick(from_far, &mut self.random);
            let mut b = pick(false, &mut self.random);
            while b == a {
                b = pick(false, &mut self.random);
            }
            from = from.min(a).min(b);
            self.swaps.push((a, b));
            self.swap(a, b);
        }
        Some(from)
    }

    /// The turns of a highest buffer and its neighbours, and of all they sit on that are neither.
    fn turns_of_interest(&mut self, wide: bool) -> (Vec<usize>, Vec<usize>) {
        let height = self.instance.height(&self.placer.offset);
        let ends_high = |b: &usize| self.instance.end(*b, self.placer.offset[*b]) == height;
        let highest: Vec<usize> = (0..self.instance.len()).filter(ends_high).collect();
        let top = highest[self.random.below(highest.len())];
        let mut near = Vec::new();
        let mut far = Vec::new();
        let mut members = Vec::new();
        let mut add = |b: usize, list: &mut Vec<usize>, chosen: &mut Vec<bool>| {
            if !chosen[b] && self.instance.fixed[b] == FREE {
                chosen[b] = true;
                members.push(b);
                list.push(self.turn[b] as usize);
            }
        };
        add(top, &mut near, &mut self.chosen);
        for &b in self.instance.neighbours(top) {
            add(b as usize, &mut near, &mut self.chosen);
        }
        for start in self.instance.neighbours(top).iter().copied().chain([top as u32]) {
            let mut at = self.under[start as usize];
            while let Some(b) = at {
                if self.chosen[b as usize] {
                    break;
                }
                add(b as usize, &mut far, &mut self.chosen);
                at = self.under[b as usize];
            }
        }
        if wide {
            let around: Vec<u32> = members_neighbours(self.instance, &far, &self.order);
            for b in around {
                if !self.chosen[b as usize] && self.instance.fixed[b as usize] == FREE {
                    self.chosen[b as usize] = true;
                    far.push(self.turn[b as usize] as usize);
                }
            }
        }
        for &turn in near.iter().chain(&far) {
            self.chosen[self.order[turn] as usize] = false;
        }
        (near, far)
    }
}

/// The neighbours of the buffers that have the given turns.
fn members_neighbours(instance: &Instance, turns: &[usize], order: &[u32]) -> Vec<u32> {
    turns.iter().flat_map(|&t| instance.neighbours(order[t] as usize)).copied().collect()
}
