//! From an instance to a placement and its certificate.

use super::evaluate::{Cost, Device, Placement, evaluate};
use super::free;
use super::ideals::Ideals;
use super::instance::Instance;
use super::latency::{self, Width};
use super::throughput::{self, Machine, Outcome};
use super::units::{Leaves, Units};
use crate::error::PlaceError;
use crate::limits::{Limits, StopReason};

/// Labels that an ideal keeps in the first, quick search for a short latency.
const QUICK_LABELS: usize = 4;

/// Bits of ideals looked at while they are enumerated; bounds memory and time for graphs with many units.
const MAX_IDEAL_BITS: usize = 40_000_000;

/// Values this close, relatively, are the same.
const SAME: f64 = 1e-9;

/// What a placement is to minimise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The largest load, where each device runs one stage of a pipeline: stages follow one another in an order.
    Stages,
    /// The largest load, with any set of nodes on any device.
    Load,
    /// The time of one sample; each accelerator runs its nodes as one call, and there are as many CPU cores as needed.
    Latency,
}

/// A placement of an instance and its certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// What was to be minimised.
    pub goal: Goal,
    /// The device of each node.
    pub placement: Placement,
    /// What it costs under the goal, as [`evaluate`] computes it.
    pub value: f64,
    /// No placement costs less.
    pub lower_bound: f64,
    /// Why the search ended, and with that how the bound is known.
    pub stopped_by: StopReason,
    /// What [`evaluate`] says in full.
    pub cost: Cost,
    /// Units after contraction.
    pub units: usize,
    /// Ideals enumerated; 0 if there were too many.
    pub ideals: usize,
    /// Pairs of ideals visited, labels extended, moves tried.
    pub steps: u64,
}

/// Looks for the placement that costs least under `goal`.
pub fn place(instance: &Instance, goal: Goal, limits: &Limits) -> Result<Placed, PlaceError> {
    instance.validate()?;
    check_room(instance)?;
    let units = Units::new(instance, Leaves::Carried, true)?;
    let mut search = Search { instance, limits, steps: 0, ideals: 0 };
    let draft = match goal {
        Goal::Latency => search.latency(&units)?,
        Goal::Stages => search.stages(&units)?,
        Goal::Load => {
            let start = search.stages(&units).map(|draft| draft.placement(&units));
            search.load(start)?
        }
    };
    search.finish(goal, &units, draft)
}

/// Refuses nodes that no device can hold.
fn check_room(instance: &Instance) -> Result<(), PlaceError> {
    if instance.cpus > 0 {
        return Ok(());
    }
    if let Some(node) = instance.nodes.iter().find(|n| !n.supported || n.size > instance.capacity) {
        let why = if node.supported {
            format!("takes {} bytes, an accelerator holds {}", node.size, instance.capacity)
        } else {
            "is not supported on accelerators".to_string()
        };
        return Err(PlaceError::Infeasible(format!("node {} {why}, and there is no CPU", node.id)));
    }
    let total: f64 = instance.nodes.iter().map(|n| n.size).sum();
    let room = instance.capacity * instance.accelerators as f64;
    if total > room {
        return Err(PlaceError::Infeasible(format!(
            "the nodes take {total} bytes, {} accelerators of {} hold {room}, and there is no CPU",
            instance.accelerators, instance.capacity
        )));
    }
    Ok(())
}

/// A placement before it is judged.
struct Draft {
    /// The devices of units, or of nodes.
    devices: Devices,
    lower_bound: f64,
    stopped_by: StopReason,
}

enum Devices {
    /// The device of each unit, and the one of free units.
    OfUnits(Vec<Device>, Device),
    OfNodes(Placement),
}

impl Draft {
    fn placement(self, units: &Units) -> Placement {
        match self.devices {
            Devices::OfNodes(placement) => placement,
            Devices::OfUnits(device, free) => {
                units.unit_of.iter().map(|unit| unit.map_or(free, |u| device[u])).collect()
            }
        }
    }
}

struct Search<'a> {
    instance: &'a Instance,
    limits: &'a Limits,
    steps: u64,
    ideals: usize,
}

impl Search<'_> {
    fn machine(&self) -> Machine {
        Machine {
            accelerators: self.instance.accelerators,
            cpus: self.instance.cpus,
            capacity: self.instance.capacity,
        }
    }

    fn all_ideals(&mut self, units: &Units) -> Option<Ideals> {
        let limit = self.limits.ideals.min(MAX_IDEAL_BITS / units.len().max(1));
        let ideals = Ideals::all(units, limit);
        self.ideals = ideals.as_ref().map_or(0, Ideals::len);
        ideals
    }

    fn stages(&mut self, units: &Units) -> Result<Draft, PlaceError> {
        let machine = self.machine();
        let prefixes = Ideals::prefixes(units);
        // A little above, so that the split of the bound itself is found.
        let upper = throughput::first_bound(units, &prefixes, machine) * (1.0 + SAME) + f64::MIN_POSITIVE;
        let quick = match throughput::split(units, &prefixes, machine, upper, u64::MAX, &mut self.steps) {
            Outcome::Found(split) => Some(split),
            Outcome::Nothing | Outcome::TooManyPairs => None,
        };
        let upper = quick.as_ref().map_or(f64::INFINITY, |s| s.value);
        let mut lower_bound = self.work_bound(true)?;
        let (split, stopped_by) = match self.all_ideals(units) {
            None => (quick, StopReason::Ideals),
            Some(ideals) => match self.split(units, &ideals, upper) {
                Outcome::TooManyPairs => (quick, StopReason::Steps),
                outcome => {
                    let split = if let Outcome::Found(split) = outcome { Some(split) } else { quick };
                    let value = split.as_ref().map_or(f64::INFINITY, |s| s.value);
                    let proved = self.no_lighter_split(units, value)?;
                    if proved {
                        lower_bound = value;
                    }
                    (split, if proved { StopReason::Proved } else { StopReason::Relaxation })
                }
            },
        };
        let split = split.ok_or_else(|| infeasible(stopped_by))?;
        Ok(Draft { devices: Devices::OfUnits(split.device, split.first), lower_bound, stopped_by })
    }

    fn split(&mut self, units: &Units, ideals: &Ideals, upper: f64) -> Outcome {
        let (ks, ls) = self.machine().useful(units.len());
        if ideals.len().saturating_mul((ks + 1) * (ls + 1)) > self.limits.entries {
            return Outcome::TooManyPairs;
        }
        throughput::split(units, ideals, self.machine(), upper, self.limits.steps, &mut self.steps)
    }

    /// Whether the relaxation in which joined units weigh nothing has no split below `value` either.
    fn no_lighter_split(&mut self, units: &Units, value: f64) -> Result<bool, PlaceError> {
        if !units.carried_bytes {
            return Ok(true);
        }
        let light = Units::new(self.instance, Leaves::Weightless, true)?;
        let Some(ideals) = self.all_ideals(&light) else { return Ok(false) };
        Ok(matches!(self.split(&light, &ideals, value * (1.0 - SAME)), Outcome::Nothing))
    }

    /// The fluid bound, in which joined units weigh nothing.
    fn work_bound(&self, in_order: bool) -> Result<f64, PlaceError> {
        Ok(work_bound(&Units::new(self.instance, Leaves::Weightless, in_order)?, self.machine()))
    }

    fn load(&mut self, start: Result<Placement, PlaceError>) -> Result<Draft, PlaceError> {
        let units = Units::new(self.instance, Leaves::Carried, false)?;
        // Devices beyond the number of units stay empty.
        let all = self.machine();
        let machine = Machine {
            accelerators: all.accelerators.min(units.len()),
            cpus: all.cpus.min(units.len()),
            ..all
        };
        let number = |d: Device| match d {
            Device::Cpu(c) => c,
            Device::Accelerator(a) => machine.cpus + a,
        };
        let device = |d: usize| {
            if d < machine.cpus { Device::Cpu(d) } else { Device::Accelerator(d - machine.cpus) }
        };
        let start: Vec<usize> = match start {
            Ok(placement) => units.members.iter().map(|m| number(placement[m[0]])).collect(),
            Err(error) => first_fit(&units, machine).ok_or(error)?,
        };
        let moves = free::affordable(&units, machine, self.limits.moves);
        self.steps += moves;
        let found = free::anneal(&units, machine, start, moves);
        let free = found.first().map_or(device(0), |&d| device(d));
        let placement = units.unit_of.iter().map(|unit| unit.map_or(free, |u| device(found[u]))).collect();
        let lower_bound = self.work_bound(false)?;
        Ok(Draft { devices: Devices::OfNodes(placement), lower_bound, stopped_by: StopReason::Moves })
    }

    fn latency(&mut self, units: &Units) -> Result<Draft, PlaceError> {
        let prefixes = Ideals::prefixes(units);
        let steps = self.limits.steps;
        let steps_an_ideal = (steps / prefixes.len() as u64).max(1);
        let quick = Width { labels: QUICK_LABELS, steps, steps_an_ideal };
        let instance = self.instance;
        let mut best =
            latency::search(instance, units, &prefixes, f64::INFINITY, quick, &mut self.steps).best;
        if instance.cpus > 0 && best.is_none() {
            // CPU cores alone are always a way.
            best = Some((f64::INFINITY, vec![Device::Cpu(0); units.len()]));
        }
        let upper = |best: &Option<(f64, Vec<Device>)>| best.as_ref().map_or(f64::INFINITY, |b| b.0);
        let mut lower_bound = path_bound(instance, units);
        let mut stopped_by = StopReason::Ideals;
        if let Some(ideals) = self.all_ideals(units) {
            for labels in [QUICK_LABELS, self.limits.labels] {
                let width = Width { labels, steps, steps_an_ideal: u64::MAX };
                let found = latency::search(instance, units, &ideals, upper(&best), width, &mut self.steps);
                best = found.best.or(best);
                stopped_by = match (found.stopped, found.narrowed) {
                    (true, _) => StopReason::Steps,
                    (_, true) => StopReason::Labels,
                    _ => StopReason::Proved,
                };
                let exact = !units.carried_bytes && !units.fused_cycles;
                if exact && !found.stopped {
                    lower_bound = lower_bound.max(found.lower_bound.min(upper(&best)));
                }
                if stopped_by == StopReason::Proved {
                    break;
                }
            }
            if stopped_by == StopReason::Proved && (units.carried_bytes || units.fused_cycles) {
                let (bound, proved) = self.latency_relaxed(units, upper(&best))?;
                lower_bound = lower_bound.max(bound);
                stopped_by = if proved { StopReason::Proved } else { StopReason::Relaxation };
            }
        }
        let (_, device) = best.ok_or_else(|| infeasible(stopped_by))?;
        let free = if instance.cpus > 0 { Device::Cpu(0) } else { Device::Accelerator(0) };
        Ok(Draft { devices: Devices::OfUnits(device, free), lower_bound, stopped_by })
    }

    /// A lower bound by the relaxation in which joined units weigh nothing, and whether it is `value`.
    fn latency_relaxed(&mut self, units: &Units, value: f64) -> Result<(f64, bool), PlaceError> {
        if units.fused_cycles {
            return Ok((0.0, false));
        }
        let light = Units::new(self.instance, Leaves::Weightless, true)?;
        let Some(ideals) = self.all_ideals(&light) else { return Ok((0.0, false)) };
        let width = Width { labels: self.limits.labels, steps: self.limits.steps, steps_an_ideal: u64::MAX };
        let upper = value * (1.0 - SAME);
        let found = latency::search(self.instance, &light, &ideals, upper, width, &mut self.steps);
        let bound = if found.stopped { 0.0 } else { found.lower_bound.min(value) };
        Ok((bound, bound >= upper))
    }

    fn finish(&self, goal: Goal, units: &Units, draft: Draft) -> Result<Placed, PlaceError> {
        let (bound, stopped_by) = (draft.lower_bound, draft.stopped_by);
        let placement = draft.placement(units);
        let cost = evaluate(self.instance, &placement)
            .map_err(|e| PlaceError::Invalid(format!("the solver made a wrong placement: {e}")))?;
        let value = match goal {
            Goal::Latency => cost.latency.unwrap_or(f64::INFINITY),
            Goal::Stages | Goal::Load => cost.max_load,
        };
        let lower_bound = bound.min(value);
        let closed = value - lower_bound <= value * SAME;
        Ok(Placed {
            goal,
            placement,
            value,
            lower_bound: if closed { value } else { lower_bound },
            stopped_by: if closed { StopReason::Proved } else { stopped_by },
            cost,
            units: units.len(),
            ideals: self.ideals,
            steps: self.steps,
        })
    }
}

fn infeasible(stopped_by: StopReason) -> PlaceError {
    let text = match stopped_by {
        StopReason::Proved | StopReason::Relaxation => {
            "every split breaks a capacity, a colour class or what accelerators support".to_string()
        }
        limit => format!("no split was found before the search ended ({limit})"),
    };
    PlaceError::Infeasible(text)
}

/// Units on accelerators, largest first wherever there is room, and the rest on CPU cores in turn.
fn first_fit(units: &Units, machine: Machine) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..units.len()).collect();
    order.sort_by(|&a, &b| units.size[b].total_cmp(&units.size[a]).then(a.cmp(&b)));
    let mut room = vec![machine.capacity; machine.accelerators.min(units.len())];
    let mut device = vec![0; units.len()];
    for (turn, &u) in order.iter().enumerate() {
        let fits = |&a: &usize| units.accelerator[u].is_finite() && units.size[u] <= room[a];
        device[u] = match (0..room.len()).find(fits) {
            Some(a) => {
                room[a] -= units.size[u];
                machine.cpus + a
            }
            None if machine.cpus > 0 => turn % machine.cpus,
            None => return None,
        };
    }
    Some(device)
}

/// No largest load is smaller: the work divided as if it were fluid, and the longest unit.
fn work_bound(units: &Units, machine: Machine) -> f64 {
    let (k, l) = (machine.accelerators as f64, machine.cpus as f64);
    let time = |u: usize| {
        let cpu = if machine.cpus > 0 { units.cpu[u] } else { f64::INFINITY };
        let fits = machine.accelerators > 0 && units.size[u] <= machine.capacity;
        (cpu, if fits { units.accelerator[u] } else { f64::INFINITY })
    };
    let longest = (0..units.len()).map(|u| time(u).0.min(time(u).1)).fold(0.0, f64::max);
    let mut order: Vec<usize> = (0..units.len()).collect();
    // CPU cores take the work that gains least from accelerators first.
    let gain = |u: usize| if time(u).0 > 0.0 { time(u).1 / time(u).0 } else { f64::INFINITY };
    order.sort_by(|&a, &b| gain(b).total_cmp(&gain(a)).then(a.cmp(&b)));
    let possible = |limit: f64| {
        let mut room = limit * l;
        let mut rest = 0.0;
        for &u in &order {
            let (cpu, accelerator) = time(u);
            if accelerator.is_infinite() || cpu <= room {
                room -= cpu;
            } else {
                rest += accelerator * if cpu.is_finite() { 1.0 - room.max(0.0) / cpu } else { 1.0 };
                room = 0.0;
            }
        }
        room >= 0.0 && rest <= limit * k
    };
    let (mut low, mut high) = (0.0, longest.max(1e-300));
    while !possible(high) && high < f64::MAX / 4.0 {
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if possible(middle) { high = middle } else { low = middle }
    }
    longest.max(low)
}

/// No latency is smaller: the longest path of shortest times.
fn path_bound(instance: &Instance, units: &Units) -> f64 {
    let mut end = vec![0.0f64; instance.nodes.len()];
    let mut predecessors = vec![Vec::new(); instance.nodes.len()];
    for &(a, b) in &instance.edges {
        predecessors[b].push(a);
    }
    for &v in units.members.iter().flatten() {
        let node = &instance.nodes[v];
        let cpu = if instance.cpus > 0 { node.cpu_time } else { f64::INFINITY };
        let fits = node.supported && node.size <= instance.capacity && instance.accelerators > 0;
        let accelerator = if fits { node.accelerator_time } else { f64::INFINITY };
        end[v] = predecessors[v].iter().map(|&p| end[p]).fold(0.0, f64::max) + cpu.min(accelerator);
    }
    end.into_iter().fold(0.0, f64::max)
}
