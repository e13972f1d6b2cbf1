//! From a problem to a packing: greedy orders, a hill climb, and the exact search.

use std::fmt;

use crate::climb::climb;
use crate::exact::{Search, Verdict};
use crate::greedy::{Orders, Placer, Rule, by_size, sweep};
use crate::instance::Instance;
use crate::problem::Problem;
use crate::random::Random;

/// The most buffers of a connected part that the exact search takes on.
const SEARCHED_BUFFERS: usize = 1_000;

/// Steps of the first attempt of the exact search for each buffer; they double from round to round.
const FIRST_STEPS: u64 = 2_000;

/// The most steps of the hill climb for each buffer.
const CLIMB_STEPS: u64 = 50_000;

/// How much work a packing may do.
///
/// Work is counted in steps of a few nanoseconds, never in time, so the result depends on the input
/// alone. The greedy packings come first and are not limited; they take time nearly in proportion to
/// the conflicting pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps of the hill climb: neighbours looked at.
    pub climb_steps: u64,
    /// Steps of the exact search: buffers and sections looked at.
    pub search_steps: u64,
}

impl Default for Limits {
    /// About one second.
    fn default() -> Self {
        Self { climb_steps: 20_000_000, search_steps: 200_000_000 }
    }
}

impl Limits {
    /// Limits for use within a compilation: a few milliseconds.
    pub fn quick() -> Self {
        Self { climb_steps: 100_000, search_steps: 1_000_000 }
    }

    /// Limits for problems that matter: about half a minute.
    pub fn thorough() -> Self {
        Self { climb_steps: 100_000_000, search_steps: 6_000_000_000 }
    }
}

/// Why the work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Nothing better is possible.
    Optimal,
    /// [`Limits::search_steps`] was used up.
    SearchSteps,
    /// The problem has too many buffers or conflicts for the exact search.
    TooLarge,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Optimal => "optimal",
            Self::SearchSteps => "search-steps",
            Self::TooLarge => "too-large",
        })
    }
}

/// A packing and a proof of how good it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The offset of each buffer.
    pub offsets: Vec<u64>,
    /// The highest end of a buffer.
    pub height: u64,
    /// No packing is lower than this.
    pub lower_bound: u64,
    /// Why the work ended.
    pub stopped_by: StopReason,
}

/// Why a capacity is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Buffers that all conflict with each other, or a fixed buffer, need this many bytes.
    Load(u64),
    /// The exact search went through every packing; it placed this many buffers.
    Search {
        /// Buffers placed, those taken back included.
        nodes: u64,
    },
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(bytes) => write!(f, "buffers that are live together need {bytes} bytes"),
            Self::Search { nodes } => write!(f, "an exhaustive search of {nodes} steps found no packing"),
        }
    }
}

/// The answer to whether a problem fits a capacity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The offset of each buffer.
    Packed(Vec<u64>),
    /// No packing fits.
    Impossible {
        /// Why.
        proof: Proof,
    },
    /// The limits ended the search.
    Stopped {
        /// Which limit.
        by: StopReason,
        /// The lowest packing found, which is above the capacity.
        best: Outcome,
    },
}

/// Packs `problem` into as few bytes as the limits allow to find.
///
/// There is always a packing; the limits decide how low it is.
pub fn pack(problem: &Problem, limits: &Limits) -> Outcome {
    let instance = Instance::new(problem);
    let mut work = Work::new(&instance, *limits);
    work.greedy(instance.bound);
    if work.height > instance.bound {
        work.improve(None);
    }
    work.outcome(problem)
}

/// Packs `problem` into `capacity` bytes, proves that this is impossible, or says which limit was in the way.
pub fn fit(problem: &Problem, capacity: u64, limits: &Limits) -> Fit {
    let instance = Instance::new(problem);
    if instance.bound > capacity {
        return Fit::Impossible { proof: Proof::Load(instance.bound) };
    }
    let mut work = Work::new(&instance, *limits);
    work.greedy(capacity);
    if work.height > capacity {
        work.improve(Some(capacity));
    }
    if work.height <= capacity {
        return Fit::Packed(work.outcome(problem).offsets);
    }
    if work.lower > capacity {
        return Fit::Impossible { proof: Proof::Search { nodes: work.nodes } };
    }
    let best = work.outcome(problem);
    Fit::Stopped { by: best.stopped_by, best }
}

/// The best packing so far, and the work left to do.
struct Work<'a> {
    instance: &'a Instance,
    limits: Limits,
    offsets: Vec<u64>,
    height: u64,
    lower: u64,
    stopped: StopReason,
    nodes: u64,
}

impl<'a> Work<'a> {
    fn new(instance: &'a Instance, limits: Limits) -> Self {
        Self {
            instance,
            limits,
            offsets: Vec::new(),
            height: u64::MAX,
            lower: instance.bound,
            stopped: StopReason::TooLarge,
            nodes: 0,
        }
    }

    /// Takes a packing if it is lower than the best.
    fn offer(&mut self, offsets: &[u64]) {
        let height = self.instance.height(offsets);
        if height < self.height || self.offsets.len() != offsets.len() {
            self.height = height;
            self.offsets = offsets.to_vec();
        }
    }

    /// Tries the greedy packings one after another until the height is at most `enough`.
    fn greedy(&mut self, enough: u64) {
        let instance = self.instance;
        if instance.neighbours.is_some() {
            let mut placer = Placer::new(instance);
            for rule in [Rule::Narrowest, Rule::First] {
                placer.clear();
                placer.place_all(&by_size(instance), rule);
                self.offer(&placer.offset);
                if self.height <= enough {
                    return;
                }
            }
            for rule in [Rule::NarrowestUnderTop, Rule::Narrowest, Rule::First] {
                placer.clear();
                placer.place_all(&instance.births, rule);
                self.offer(&placer.offset);
                if self.height <= enough {
                    return;
                }
            }
            let orders = Orders::new(instance);
            for order in
                [orders.by_load_and_size(), orders.by_area(), orders.by_degree(), orders.by_urgency()]
            {
                placer.clear();
                placer.place_all(&order, Rule::First);
                self.offer(&placer.offset);
                if self.height <= enough {
                    return;
                }
            }
        } else {
            for rule in [Rule::Narrowest, Rule::First] {
                for backwards in [false, true] {
                    self.offer(&sweep(instance, rule, backwards));
                    if self.height <= enough {
                        return;
                    }
                }
            }
        }
    }

    /// Improves the highest part again and again, to `capacity` bytes or as low as the limits allow.
    fn improve(&mut self, capacity: Option<u64>) {
        if self.instance.neighbours.is_none() {
            return;
        }
        let enough = capacity.unwrap_or(self.lower);
        let members = connected_parts(self.instance);
        let parts: Vec<Instance> = members.iter().map(|m| self.instance.part(m)).collect();
        let mut found: Vec<Part> = Vec::new();
        for (part, members) in parts.iter().zip(&members) {
            let offsets: Vec<u64> = members.iter().map(|&b| self.offsets[b as usize]).collect();
            found.push(Part::new(part, offsets));
        }
        // No part has to be lower than another one can be brought to, so the highest goes first.
        while let Some(part) = found.iter_mut().max_by_key(|part| part.height) {
            if part.height <= enough.max(part.proved) || !part.improve(capacity, enough, &mut self.limits) {
                self.stopped = part.stopped;
                break;
            }
        }
        self.lower = found.iter().map(|part| part.proved).max().unwrap_or(0).max(self.lower);
        self.nodes = found.iter().map(Part::nodes).sum();
        let mut offsets = self.offsets.clone();
        for (part, members) in found.iter().zip(&members) {
            for (&b, &offset) in members.iter().zip(&part.offsets) {
                offsets[b as usize] = offset;
            }
        }
        self.offer(&offsets);
    }

    /// The packing in bytes, with the buffers of no bytes at the bottom.
    fn outcome(&self, problem: &Problem) -> Outcome {
        let mut offsets: Vec<u64> = problem.buffers().iter().map(|b| b.offset.unwrap_or(0)).collect();
        for (&i, &offset) in self.instance.original.iter().zip(&self.offsets) {
            offsets[i as usize] = offset * self.instance.unit;
        }
        let height = self.instance.height(&self.offsets);
        let optimal = height <= self.lower;
        Outcome {
            offsets,
            height,
            lower_bound: self.lower,
            stopped_by: if optimal { StopReason::Optimal } else { self.stopped },
        }
    }
}

/// A connected part of a problem: its best packing and the searches that improve it.
struct Part<'a> {
    instance: &'a Instance,
    search: Option<Search<'a>>,
    orders: Vec<Vec<u32>>,
    random: Random,
    offsets: Vec<u64>,
    height: u64,
    /// No packing of the part is lower than this.
    proved: u64,
    climbed: bool,
    /// The steps of the next attempt.
    steps: u64,
    stopped: StopReason,
}

impl<'a> Part<'a> {
    fn new(instance: &'a Instance, offsets: Vec<u64>) -> Self {
        Self {
            instance,
            search: None,
            orders: Vec::new(),
            random: Random::new(),
            height: instance.height(&offsets),
            offsets,
            proved: 0,
            climbed: false,
            steps: FIRST_STEPS * instance.len() as u64,
            stopped: StopReason::Optimal,
        }
    }

    fn nodes(&self) -> u64 {
        self.search.as_ref().map_or(0, |search| search.nodes)
    }

    /// One round of work: the climb at first, then attempts of the exact search. False when there is no more.
    fn improve(&mut self, capacity: Option<u64>, enough: u64, limits: &mut Limits) -> bool {
        // The first attempts solve what is easy; what is not is worth climbing before the next ones.
        let searched =
            self.search.is_some() || self.instance.len() > SEARCHED_BUFFERS || limits.search_steps == 0;
        if searched && !self.climbed {
            self.climbed = true;
            self.climb(enough, limits);
            return true;
        }
        if self.instance.len() > SEARCHED_BUFFERS {
            self.stopped = StopReason::TooLarge;
            return false;
        }
        if limits.search_steps == 0 {
            self.stopped = StopReason::SearchSteps;
            return false;
        }
        if self.search.is_none() {
            self.search = Some(Search::new(self.instance));
            self.orders = static_orders(self.instance);
        } else {
            self.steps = self.steps.saturating_mul(2);
            self.shuffle();
        }
        match capacity {
            Some(capacity) => {
                self.attempts(capacity, limits);
            }
            None => self.shrink(enough, limits),
        }
        true
    }

    /// Climbs from the order of urgency.
    fn climb(&mut self, enough: u64, limits: &mut Limits) {
        let order = Orders::new(self.instance).by_urgency();
        let steps = limits.climb_steps.min(CLIMB_STEPS * self.instance.len() as u64);
        let (offsets, height, steps) = climb(self.instance, order, enough, steps);
        limits.climb_steps -= steps.min(limits.climb_steps);
        if height < self.height {
            (self.offsets, self.height) = (offsets, height);
        }
    }

    /// Attempts at `capacity` with each order in turn.
    fn attempts(&mut self, capacity: u64, limits: &mut Limits) -> Verdict {
        let Some(search) = &mut self.search else { return Verdict::Stopped };
        for order in &self.orders {
            let (verdict, steps) = search.run(capacity, order, self.steps.min(limits.search_steps));
            limits.search_steps -= steps.min(limits.search_steps);
            match verdict {
                Verdict::Found => {
                    let height = self.instance.height(&search.offset);
                    if height < self.height {
                        self.height = height;
                        self.offsets.copy_from_slice(&search.offset);
                    }
                    return verdict;
                }
                Verdict::None => {
                    self.proved = self.proved.max(capacity + 1);
                    return verdict;
                }
                Verdict::Stopped => {}
            }
        }
        Verdict::Stopped
    }

    /// Bisects between what is enough or proved and the best packing, each attempt with the same steps.
    fn shrink(&mut self, enough: u64, limits: &mut Limits) {
        // In this round, the attempts at all capacities below this have failed.
        let mut failed = enough.max(self.proved);
        // Real problems often reach their bound, so it is tried before the middle.
        if self.attempts(failed, limits) != Verdict::Found {
            failed = (failed + 1).max(self.proved);
        }
        while failed < self.height && limits.search_steps > 0 {
            let capacity = self.capacity_between(failed);
            match self.attempts(capacity, limits) {
                Verdict::Found => {}
                Verdict::None => failed = failed.max(self.proved),
                Verdict::Stopped => failed = capacity + 1,
            }
        }
    }

    /// A capacity below the height and not below `failed`, at whole units.
    fn capacity_between(&self, failed: u64) -> u64 {
        let middle = failed + (self.height - 1 - failed) / 2;
        let rounded = middle / self.instance.unit * self.instance.unit;
        if rounded >= failed { rounded } else { middle }
    }

    /// Replaces the last order by one near to one of the others.
    fn shuffle(&mut self) {
        let from = self.random.below(STATIC_ORDERS);
        let mut order = self.orders[from].clone();
        let n = order.len();
        for _ in 0..n / 8 + 1 {
            let a = self.random.below(n);
            let b = self.random.below(n);
            order.swap(a, b);
        }
        self.orders.truncate(STATIC_ORDERS);
        self.orders.push(order);
    }
}

/// The number of orders of [`static_orders`].
const STATIC_ORDERS: usize = 3;

/// The orders of MiniMalloc, by width (W), area (A) and highest load of an own section (T): WAT, TAW, TWA.
fn static_orders(part: &Instance) -> Vec<Vec<u32>> {
    let loads = part.loads();
    let total = |b: usize| {
        let runs = part.runs.of(b).iter();
        runs.flat_map(|&(first, end)| &loads[first as usize..end as usize]).copied().max().unwrap_or(0)
    };
    let keys: Vec<[u128; 3]> = (0..part.len())
        .map(|b| {
            let width = u128::from(part.width[b]);
            [width, u128::from(part.size[b]) * width, u128::from(total(b))]
        })
        .collect();
    let sorted = |by: [usize; 3]| {
        let mut order: Vec<u32> = (0..part.len() as u32).collect();
        order.sort_by_key(|&b| std::cmp::Reverse(by.map(|k| keys[b as usize][k])));
        order
    };
    vec![sorted([0, 1, 2]), sorted([2, 1, 0]), sorted([2, 0, 1])]
}

/// The groups of buffers that conflict with no other group.
fn connected_parts(instance: &Instance) -> Vec<Vec<u32>> {
    let mut seen = vec![false; instance.len()];
    let mut parts = Vec::new();
    for &start in &instance.births {
        if seen[start as usize] {
            continue;
        }
        seen[start as usize] = true;
        let mut members = vec![start];
        let mut next = 0;
        while next < members.len() {
            for &b in instance.neighbours(members[next] as usize) {
                if !std::mem::replace(&mut seen[b as usize], true) {
                    members.push(b);
                }
            }
            next += 1;
        }
        members.sort_unstable();
        parts.push(members);
    }
    parts
}
