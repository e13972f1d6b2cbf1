//! Splits without contiguity: simulated annealing over the loads.

use super::throughput::Machine;
use super::units::Units;
use crate::graph::Random;

/// Runs of the annealing, each from the best placement so far or from the start.
const RUNS: u64 = 6;

/// The temperatures at which a run begins and ends, as parts of the largest load.
const TEMPERATURES: (f64, f64) = (0.03, 0.00003);

/// Loads of devices that are looked at in one move of a small instance.
const LOADS_A_MOVE: usize = 64;

/// The most numbers of uses of items on devices; more would take too much memory.
const MAX_USES: usize = 50_000_000;

/// The moves that may be made in the time that `moves` take on a small instance; none where memory would not do.
pub(crate) fn affordable(units: &Units, machine: Machine, moves: u64) -> u64 {
    let devices = machine.accelerators + machine.cpus;
    if devices.saturating_mul(units.items.len()) > MAX_USES {
        return 0;
    }
    // A move looks at every device for each item of a unit, and once more for the largest load.
    let uses: usize = units.items.iter().map(|item| 1 + item.consumers.len()).sum();
    let loads = devices * (1 + uses / units.len().max(1));
    moves / (1 + loads / LOADS_A_MOVE) as u64
}

/// Loads of every device under moves of units.
struct Loads<'a> {
    units: &'a Units,
    devices: usize,
    cpus: usize,
    capacity: f64,
    device: Vec<usize>,
    load: Vec<f64>,
    bytes: Vec<f64>,
    /// For each item and device, the consumers there.
    uses: Vec<u32>,
}

impl<'a> Loads<'a> {
    fn new(units: &'a Units, machine: Machine, device: Vec<usize>) -> Self {
        let devices = machine.accelerators + machine.cpus;
        let mut loads = Self {
            units,
            devices,
            cpus: machine.cpus,
            capacity: machine.capacity,
            load: vec![0.0; devices],
            bytes: vec![0.0; devices],
            uses: vec![0; devices * units.items.len()],
            device,
        };
        for (i, item) in units.items.iter().enumerate() {
            for &c in &item.consumers {
                loads.uses[i * devices + loads.device[c]] += 1;
            }
        }
        for unit in 0..units.len() {
            loads.weigh(unit, loads.device[unit], 1.0);
        }
        for i in 0..units.items.len() {
            loads.charge(i, 1.0);
        }
        loads
    }

    /// CPU cores are the first devices.
    fn is_cpu(&self, device: usize) -> bool {
        device < self.cpus
    }

    fn weigh(&mut self, unit: usize, device: usize, sign: f64) {
        let (time, bytes) = if self.is_cpu(device) {
            (self.units.cpu[unit], 0.0)
        } else {
            (self.units.accelerator[unit], self.units.size[unit])
        };
        self.load[device] += sign * time;
        self.bytes[device] += sign * bytes;
    }

    /// Adds or removes what an item costs each accelerator.
    fn charge(&mut self, i: usize, sign: f64) {
        let item = &self.units.items[i];
        if item.cost == 0.0 {
            return;
        }
        let home = self.device[item.producer];
        let uses = &self.uses[i * self.devices..(i + 1) * self.devices];
        for (d, &count) in uses.iter().enumerate().skip(self.cpus) {
            let pays = if d == home { (count as usize) < item.consumers.len() } else { count > 0 };
            if pays {
                self.load[d] += sign * item.cost;
            }
        }
    }

    fn relocate(&mut self, unit: usize, to: usize) {
        let units = self.units;
        let from = self.device[unit];
        let touched = || units.consumed[unit].iter().chain(&units.produced[unit]);
        for &i in touched() {
            self.charge(i, -1.0);
        }
        self.weigh(unit, from, -1.0);
        for &i in &units.consumed[unit] {
            self.uses[i * self.devices + from] -= 1;
            self.uses[i * self.devices + to] += 1;
        }
        self.device[unit] = to;
        self.weigh(unit, to, 1.0);
        for &i in touched() {
            self.charge(i, 1.0);
        }
    }

    fn largest(&self) -> f64 {
        self.load.iter().copied().fold(0.0, f64::max)
    }

    /// A smooth stand-in for the largest load: the norm of order 32 relative to `scale`.
    fn energy(&self, scale: f64) -> f64 {
        self.load.iter().map(|l| (l / scale).powi(32)).sum::<f64>().powf(1.0 / 32.0)
    }
}

/// Improves a placement of units (CPU cores are devices `0..cpus`, then accelerators); returns the best one seen.
pub(crate) fn anneal(units: &Units, machine: Machine, start: Vec<usize>, moves: u64) -> Vec<usize> {
    if units.len() < 2 || machine.accelerators + machine.cpus < 2 || moves == 0 {
        return start;
    }
    let mut best = (Loads::new(units, machine, start.clone()).largest(), start);
    if best.0 == 0.0 {
        return best.1;
    }
    for run in 0..RUNS {
        let mut random = Random(run + 1);
        // Fresh sums each run keep rounding errors from piling up.
        let mut loads = Loads::new(units, machine, best.1.clone());
        let scale = best.0;
        let mut energy = loads.energy(scale);
        let per_run = moves / RUNS;
        let cooling = (TEMPERATURES.1 / TEMPERATURES.0).powf(1.0 / per_run.max(1) as f64);
        let mut temperature = TEMPERATURES.0;
        let mut undo: Vec<(usize, usize)> = Vec::new();
        for _ in 0..per_run {
            temperature *= cooling;
            undo.clear();
            if !propose(&mut loads, &mut random, &mut undo) {
                continue;
            }
            let next = loads.energy(scale);
            if next <= energy || random.unit() < ((energy - next) / temperature).exp() {
                energy = next;
                let largest = loads.largest();
                if largest < best.0 * (1.0 - 1e-12) {
                    best = (largest, loads.device.clone());
                }
            } else {
                for &(unit, home) in undo.iter().rev() {
                    loads.relocate(unit, home);
                }
            }
        }
    }
    best.1
}

/// Moves one unit, swaps two, or moves a unit and a neighbour; notes how to undo it. Says whether anything changed.
fn propose(loads: &mut Loads, random: &mut Random, undo: &mut Vec<(usize, usize)>) -> bool {
    let units = loads.units;
    let unit = random.below(units.len());
    let home = loads.device[unit];
    let neighbours = units.predecessors[unit].len() + units.successors[unit].len();
    let neighbour = |k: usize| {
        let before = units.predecessors[unit].len();
        if k < before { units.predecessors[unit][k] } else { units.successors[unit][k - before] }
    };
    // Half of the targets are devices of neighbours, which keeps values where they are.
    let target = if neighbours > 0 && random.below(2) == 0 {
        loads.device[neighbour(random.below(neighbours))]
    } else {
        random.below(loads.devices)
    };
    if target == home {
        return false;
    }
    let kind = random.below(3);
    let other = match kind {
        0 => None,
        1 => Some((random.below(units.len()), home)).filter(|(o, _)| loads.device[*o] == target),
        _ if neighbours > 0 => {
            Some((neighbour(random.below(neighbours)), target)).filter(|(o, _)| loads.device[*o] != target)
        }
        _ => None,
    };
    let moves: Vec<(usize, usize)> = std::iter::once((unit, target)).chain(other).collect();
    if moves.iter().any(|&(unit, to)| !loads.is_cpu(to) && units.accelerator[unit].is_infinite()) {
        return false;
    }
    for (unit, to) in moves {
        // A swap may pass through a full device, so its first half is judged together with the second.
        let home = loads.device[unit];
        loads.relocate(unit, to);
        undo.push((unit, home));
    }
    let broken = undo.iter().any(|&(u, _)| {
        let d = loads.device[u];
        !loads.is_cpu(d) && loads.bytes[d] > loads.capacity
    });
    if broken {
        for &(unit, home) in undo.iter().rev() {
            loads.relocate(unit, home);
        }
        return false;
    }
    true
}
