//! Placements in which devices take turns, for models whose weights are streamed.
//!
//! Where every device gets weights copied from its host, a run waits for links most of the time. With one stage for each
//! device only one link is busy at a time: the others can bring no more than their rings hold before their stage begins.
//! With devices that take turns, a few layers each, all links are busy all the time, at the price of more transfers
//! between devices.

use crate::facts::Facts;
use crate::model::Resident;
use crate::stream::RING;
use djinn_device::Target;
use djinn_place::{Problem, Solution, evaluate_problem};
use std::collections::BTreeMap;

/// Turns of each device that are tried.
const TURNS: [u64; 6] = [2, 4, 8, 16, 32, 64];

/// Devices take turns only if a run then takes less than this part of the time.
const WORTHWHILE: f64 = 0.95;

/// The solution, or one in which devices take turns if a run is faster with it, copies of weights included.
pub(crate) fn faster(
    problem: &Problem,
    facts: &Facts,
    resident: &Resident,
    target: &Target,
    solution: Solution,
) -> Solution {
    let links = Links::new(facts, target);
    let seconds = |s: &Solution| links.seconds(problem, resident, &s.device) + s.cost.transfer_seconds;
    let mut least = seconds(&solution) * WORTHWHILE;
    let mut best = solution;
    for turns in TURNS {
        let device = taking_turns(problem, facts, target, turns);
        let Ok(cost) = evaluate_problem(problem, &device) else { continue };
        let value = cost.value(problem);
        let candidate = Solution { device, value, cost, ..best.clone() };
        let time = seconds(&candidate);
        if time < least {
            (best, least) = (candidate, time);
        }
    }
    best
}

/// Each device in turn takes operations with so many bytes of constants, in proportion to its memory. Pins hold, and
/// operations with a state of one class stay together.
fn taking_turns(problem: &Problem, facts: &Facts, target: &Target, turns: u64) -> Vec<usize> {
    let devices = problem.devices();
    let carried = carried(facts);
    let all: u128 = carried.iter().map(|b| u128::from(*b)).sum();
    let memory: Vec<u128> = (0..devices).map(|d| u128::from(target.memory_bytes(d))).collect();
    let round = (all / u128::from(turns)).max(1);
    let every = memory.iter().sum::<u128>().max(1);
    let mut of_class: BTreeMap<u32, usize> = BTreeMap::new();
    let mut gone = 0u128;
    let mut place = Vec::with_capacity(facts.ops.len());
    for (task, bytes) in problem.tasks.iter().zip(&carried) {
        // The device whose part of the round this is.
        let mut within = gone % round * every / round;
        let own = memory.iter().position(|m| {
            let here = within < *m;
            within = within.saturating_sub(*m);
            here
        });
        gone += u128::from(*bytes);
        let possible: Vec<usize> = (0..devices).filter(|d| task.seconds[*d].is_finite()).collect();
        let mut device = own.unwrap_or(0);
        if let [only] = possible.as_slice() {
            device = *only;
        }
        if let Some(class) = task.colour_class {
            device = *of_class.entry(class).or_insert(device);
        }
        place.push(device);
    }
    place
}

/// For each operation, bytes of the constants that it is the first to read.
fn carried(facts: &Facts) -> Vec<u64> {
    let mut carried = vec![0u64; facts.ops.len()];
    for constant in &facts.constants {
        if let Some(first) = constant.users.first() {
            carried[*first] = carried[*first].saturating_add(constant.bytes);
        }
    }
    carried
}

/// Constants in the order in which operations read them, and the links that bring them.
struct Links<'a> {
    /// [`carried`].
    carried: Vec<u64>,
    largest: u64,
    target: &'a Target,
}

impl<'a> Links<'a> {
    fn new(facts: &Facts, target: &'a Target) -> Links<'a> {
        let largest = facts.constants.iter().map(|c| c.bytes).max().unwrap_or(0);
        Links { carried: carried(facts), largest, target }
    }

    /// Seconds of a run, one operation after the other, in which each device copies the same share of all its weights,
    /// at most two at a time before they are used.
    fn seconds(&self, problem: &Problem, resident: &Resident, device: &[usize]) -> f64 {
        let mut held = vec![0u64; problem.devices()];
        for (bytes, d) in self.carried.iter().zip(device) {
            held[*d] = held[*d].saturating_add(*bytes);
        }
        let part = |d: usize| {
            let fixed = resident.states_on(d).saturating_add(resident.allowance);
            let room = self.target.memory_bytes(d).saturating_sub(fixed);
            let streamed = match held[d] > room {
                true => (held[d] - room).saturating_add(RING * self.largest).min(held[d]),
                false => 0,
            };
            let rate = self
                .target
                .topology
                .devices()
                .get(d)
                .map_or(f64::INFINITY, |d| d.profile.host_link.bandwidth);
            streamed as f64 / held[d].max(1) as f64 / rate
        };
        let per_byte: Vec<f64> = (0..problem.devices()).map(part).collect();
        let mut clock = 0.0f64;
        // When each link is free, and when the bytes of the last weights but one were.
        let mut copied = vec![0.0f64; problem.devices()];
        let mut freed = vec![[0.0f64; RING as usize]; problem.devices()];
        for (p, d) in device.iter().enumerate() {
            if self.carried[p] > 0 && per_byte[*d] > 0.0 {
                let start = copied[*d].max(freed[*d][0]);
                copied[*d] = start + self.carried[p] as f64 * per_byte[*d];
                clock = clock.max(copied[*d]) + problem.tasks[p].seconds[*d];
                freed[*d].rotate_left(1);
                freed[*d][RING as usize - 1] = clock;
            } else {
                clock += problem.tasks[p].seconds[*d];
            }
        }
        clock
    }
}
