//! From the facts of a function to a placement problem and back.

use crate::devices::Devices;
use crate::facts::{Facts, States};
use crate::{alternate, report, stream};
use djinn_device::{Objective, Target};
use djinn_diag::{Result, internal};
use djinn_ir::Function;
use djinn_place::{
    Limits, Link, PlaceError, Problem, ProblemCost, Shared, Solution, StopReason, Task, Value,
    evaluate_problem, solve,
};
use std::collections::{BTreeMap, BTreeSet};

/// A placement is taken only if it costs less than this part of a simpler one.
const WORTHWHILE: f64 = 0.95;

/// What earlier functions have put on the devices.
#[derive(Debug)]
pub(crate) struct Resident {
    /// The devices that hold each constant, by key.
    constants: BTreeMap<String, BTreeSet<usize>>,
    /// The device of each class of states.
    states: BTreeMap<usize, usize>,
    /// Bytes of constants on each device.
    constant_bytes: BTreeMap<usize, u64>,
    /// Bytes of states on each device.
    state_bytes: BTreeMap<usize, u64>,
    /// Bytes kept free for activations on every device: the most that one function needs at once.
    pub(crate) allowance: u64,
    /// The part of the constants that is to stay on the devices; the rest is streamed from hosts.
    keep: f64,
}

impl Resident {
    pub(crate) fn new(allowance: u64, keep: f64) -> Self {
        Self {
            constants: BTreeMap::new(),
            states: BTreeMap::new(),
            constant_bytes: BTreeMap::new(),
            state_bytes: BTreeMap::new(),
            allowance,
            keep,
        }
    }

    /// Bytes of states on a device.
    pub(crate) fn states_on(&self, device: usize) -> u64 {
        self.state_bytes.get(&device).copied().unwrap_or(0)
    }

    /// Bytes of constants and states on a device, streamed ones included.
    pub(crate) fn held(&self, device: usize) -> u64 {
        let constants = self.constant_bytes.get(&device).copied().unwrap_or(0);
        constants.saturating_add(self.states_on(device))
    }

    /// [`Self::held`] of all devices.
    pub(crate) fn held_in_all(&self) -> u64 {
        let all = self.constant_bytes.values().chain(self.state_bytes.values());
        all.fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// Bytes that a device has left for further functions.
    fn room(&self, device: usize, memory: u64) -> f64 {
        let constants = self.constant_bytes.get(&device).copied().unwrap_or(0) as f64 * self.keep;
        let fixed = self.states_on(device).saturating_add(self.allowance);
        (memory.saturating_sub(fixed) as f64 - constants).max(0.0)
    }

    /// Bytes that a constant takes on a device.
    fn kept_bytes(&self, bytes: u64) -> f64 {
        bytes.min(1 << 60) as f64 * self.keep
    }
}

/// Parts of the constants that may stay on the devices, the largest first: all, and if weights may be streamed, what
/// the devices have room for together, and less.
pub(crate) fn parts_to_keep(
    functions: &[&Facts],
    states: &States,
    target: &Target,
    stream: bool,
) -> Vec<f64> {
    let mut parts = vec![1.0];
    if stream {
        let mut constants: BTreeMap<&str, u64> = BTreeMap::new();
        constants.extend(functions.iter().flat_map(|f| &f.constants).map(|c| (c.key.as_str(), c.bytes)));
        let weights: f64 = constants.values().map(|b| *b as f64).sum();
        let largest = constants.values().max().copied().unwrap_or(0) as f64;
        let allowance = functions.iter().map(|f| f.activation_bytes).max().unwrap_or(0) as f64;
        let held: f64 = states.bytes.iter().map(|b| *b as f64).sum();
        let free = |d: usize| target.memory_bytes(d) as f64 - allowance - stream::RING as f64 * largest;
        let room = (0..target.topology.devices().len()).map(free).sum::<f64>() - held;
        let most = (room / weights.max(1.0)).clamp(0.0, 1.0);
        parts.extend((0..16).map(|i| most * 0.95 * 0.8f64.powi(i)));
        parts.push(0.0);
    }
    parts
}

/// Where the operations of a function run.
#[derive(Debug)]
pub(crate) struct Placed {
    /// The device of each run-time operation.
    pub(crate) device: Vec<usize>,
    /// What the placement costs under the objective.
    pub(crate) value: f64,
    /// No placement costs less.
    pub(crate) lower_bound: f64,
    /// Why the search ended.
    pub(crate) stopped_by: StopReason,
    /// Loads, bytes and transfers.
    pub(crate) cost: ProblemCost,
    /// The objective.
    pub(crate) objective: Objective,
    /// Whether pins make devices wait for one another in a circle, so that they are no stages of a pipeline.
    pub(crate) circular: bool,
}

/// Places a function, and notes what it puts on the devices.
pub(crate) fn place(
    function: &Function,
    facts: &Facts,
    states: &States,
    target: &Target,
    devices: &Devices,
    objective: Objective,
    resident: &mut Resident,
) -> Result<Placed> {
    let mut problem = problem(facts, states, target, devices, objective, resident);
    let limits = Limits::default();
    let mut answer = solve(&problem, &limits);
    let mut circular = false;
    if problem.stages && matches!(answer, Err(PlaceError::Infeasible(_))) {
        problem.stages = false;
        circular = true;
        answer = solve(&problem, &limits);
    }
    let solution = match answer {
        Ok(solution) => {
            let simple = together(&problem, &limits, solution);
            let several = problem.devices() > 1 && problem.objective == djinn_place::Objective::Latency;
            match resident.keep < 1.0 && several {
                true => alternate::faster(&problem, facts, resident, target, simple),
                false => simple,
            }
        }
        Err(PlaceError::Infeasible(why)) => {
            return Err(report::infeasible(function, facts, states, target, devices, resident, &why));
        }
        Err(other) => return Err(internal("colocate.problem", other.to_string())),
    };
    settle(facts, states, &solution, resident);
    Ok(Placed {
        value: solution.value,
        lower_bound: solution.lower_bound,
        stopped_by: solution.stopped_by,
        cost: solution.cost,
        device: solution.device,
        objective,
        circular,
    })
}

/// The solution, or a simpler one if that is nearly as good: everything on one device, or each device a stage that
/// hands on to the next. Otherwise the search for latency, or for equal use of memory, sends values to and fro for next
/// to nothing.
fn together(problem: &Problem, limits: &Limits, solution: Solution) -> Solution {
    let alone = solution.device.windows(2).all(|w| w[0] == w[1]);
    if problem.objective == djinn_place::Objective::Throughput || alone {
        return solution;
    }
    let on_one = (0..problem.devices()).map(|d| vec![d; problem.tasks.len()]);
    let mut best = solution.clone();
    for device in on_one.chain(in_stages(problem, limits)) {
        let Ok(cost) = evaluate_problem(problem, &device) else { continue };
        let value = cost.value(problem);
        let simpler = (cost.transfers, value) < (best.cost.transfers, best.value);
        if simpler && value * WORTHWHILE <= solution.value {
            best = Solution { device, value, cost, stopped_by: StopReason::Relaxation, ..best };
        }
    }
    best
}

/// A placement in stages of equal load, if there is one.
fn in_stages(problem: &Problem, limits: &Limits) -> Option<Vec<usize>> {
    let pipeline = Problem { objective: djinn_place::Objective::Throughput, stages: true, ..problem.clone() };
    solve(&pipeline, limits).ok().map(|s| s.device)
}

fn problem(
    facts: &Facts,
    states: &States,
    target: &Target,
    devices: &Devices,
    objective: Objective,
    resident: &Resident,
) -> Problem {
    let count = devices.names.len();
    let room = |d: usize| resident.room(d, target.memory_bytes(d));
    let pins = pins(facts, states, resident);
    let task = |position: usize| {
        let only = pins[position];
        let seconds = facts.seconds[position].iter().enumerate();
        Task {
            seconds: seconds
                .map(|(d, s)| if only.is_some_and(|p| p != d) { f64::INFINITY } else { *s })
                .collect(),
            bytes: 0.0,
            colour_class: facts.state_of[position].map(|s| states.class(s) as u32),
        }
    };
    let mut shared: Vec<Shared> = facts
        .constants
        .iter()
        .filter(|c| !resident.constants.contains_key(&c.key))
        .map(|c| Shared { bytes: resident.kept_bytes(c.bytes), users: c.users.clone() })
        .collect();
    for (class, bytes) in state_bytes(facts, states) {
        let of_class = |s: &Option<usize>| s.is_some_and(|s| states.class(s) == class);
        let users = (0..facts.ops.len()).filter(|p| of_class(&facts.state_of[*p])).collect();
        if !resident.states.contains_key(&class) {
            shared.push(Shared { bytes: bytes.min(1 << 60) as f64, users });
        }
    }
    Problem {
        capacity: (0..count).map(room).collect(),
        links: facts.links.clone(),
        tasks: (0..facts.ops.len()).map(task).collect(),
        values: facts
            .values
            .iter()
            .map(|v| Value { producer: v.producer, consumers: v.users.clone(), bytes: v.bytes })
            .collect(),
        shared,
        objective: match objective {
            Objective::Latency => djinn_place::Objective::Latency,
            Objective::Throughput => djinn_place::Objective::Throughput,
            Objective::Memory => djinn_place::Objective::Memory,
        },
        stages: objective == Objective::Throughput,
    }
}

/// Pins of the operations: their own, that of their state, or where their largest constant is already.
fn pins(facts: &Facts, states: &States, resident: &Resident) -> Vec<Option<usize>> {
    let mut pins = facts.pins.clone();
    let mut largest: Vec<(u64, Option<usize>)> = vec![(0, None); pins.len()];
    for constant in &facts.constants {
        let Some(home) = resident.constants.get(&constant.key).and_then(|d| d.first()) else { continue };
        for &user in &constant.users {
            if constant.bytes > largest[user].0 {
                largest[user] = (constant.bytes, Some(*home));
            }
        }
    }
    for (position, pin) in pins.iter_mut().enumerate() {
        let state = facts.state_of[position].and_then(|s| resident.states.get(&states.class(s)).copied());
        *pin = pin.or(state);
        // An operation with a state goes with it, and with the others of its class.
        if facts.state_of[position].is_none() {
            *pin = pin.or(largest[position].1);
        }
    }
    pins
}

/// Bytes of the classes of states that the function uses.
pub(crate) fn state_bytes(facts: &Facts, states: &States) -> BTreeMap<usize, u64> {
    let used: BTreeSet<usize> = facts.state_of.iter().flatten().map(|s| states.class(*s)).collect();
    let mut bytes: BTreeMap<usize, u64> = BTreeMap::new();
    for (state, size) in states.bytes.iter().enumerate() {
        let class = states.class(state);
        if used.contains(&class) {
            let sum = bytes.entry(class).or_default();
            *sum = sum.saturating_add(*size);
        }
    }
    bytes
}

/// Links between devices by the fastest routes; where there is none, a transfer takes forever.
pub(crate) fn links(target: &Target, devices: &Devices) -> Vec<Vec<Link>> {
    let link = |a: usize, b: usize| {
        if a == b {
            return Link { latency: 0.0, seconds_per_byte: 0.0 };
        }
        match target.topology.route(&devices.names[a], &devices.names[b]) {
            Ok(route) => {
                let stretches = route.stretches();
                Link {
                    latency: stretches.iter().map(|s| s.0).sum(),
                    seconds_per_byte: stretches.iter().map(|s| 1.0 / s.1).sum(),
                }
            }
            Err(_) => Link { latency: f64::INFINITY, seconds_per_byte: 0.0 },
        }
    };
    let count = devices.names.len();
    (0..count).map(|a| (0..count).map(|b| link(a, b)).collect()).collect()
}

/// Notes constants and states as resident where the solution puts them.
fn settle(facts: &Facts, states: &States, solution: &Solution, resident: &mut Resident) {
    for constant in &facts.constants {
        let homes = resident.constants.entry(constant.key.clone()).or_default();
        for &user in &constant.users {
            let device = solution.device[user];
            if homes.insert(device) {
                let held = resident.constant_bytes.entry(device).or_default();
                *held = held.saturating_add(constant.bytes);
            }
        }
    }
    let bytes = state_bytes(facts, states);
    for (state, &device) in facts.state_of.iter().zip(&solution.device) {
        let Some(class) = state.map(|s| states.class(s)) else { continue };
        if resident.states.insert(class, device).is_none() {
            let held = resident.state_bytes.entry(device).or_default();
            *held = held.saturating_add(bytes.get(&class).copied().unwrap_or(0));
        }
    }
}
