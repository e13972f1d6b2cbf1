//! The time of one sample: dynamic programme over ideals whose states keep when each open value is there.
//!
//! An accelerator runs its nodes as one call: it starts when all inputs are there and hands out all outputs one load
//! later. So every split has an order of steps, each an accelerator or a unit on CPU cores, in which the nodes done
//! form an ideal. A *label* of an ideal says how many accelerators are used, when the last step ended, and when each
//! value that is still needed was there. A label is dropped if another is no worse in each of these (dominance), or
//! if a path of shortest times from one of its values ends no earlier than the best split known (bound).

use super::evaluate::Device;
use super::ideals::{Between, Ideals, Walk};
use super::instance::Instance;
use super::units::Units;

/// Labels kept in all, and numbers in them; more would take too much memory.
const MAX_LABELS: usize = 4_000_000;
const MAX_NUMBERS: usize = 40_000_000;

/// Pairs of users of open values up to which it is worked out which values a user waits for.
const MAX_WAITING: usize = 100_000;

/// Numbers of a label that are moved in one step.
const NUMBERS_A_STEP: usize = 16;

/// What the programme found.
pub(crate) struct Search {
    /// The best split below the bound given: its latency and the device of each unit.
    pub(crate) best: Option<(f64, Vec<Device>)>,
    /// No split that the ideals allow is shorter than this; infinite if there is none below the bound given.
    pub(crate) lower_bound: f64,
    /// Whether labels were dropped because an ideal had too many.
    pub(crate) narrowed: bool,
    /// Whether the search ended early because of the limit of steps.
    pub(crate) stopped: bool,
}

/// Limits of one search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Width {
    /// Labels that an ideal keeps.
    pub(crate) labels: usize,
    /// Pairs of ideals visited and labels extended, longer labels counting for more.
    pub(crate) steps: u64,
    /// The same for the ideals below one ideal; what is left out then is not noted in the bound.
    pub(crate) steps_an_ideal: u64,
}

#[derive(Clone)]
struct Label {
    /// The accelerators used.
    used: usize,
    /// When the last step so far ended.
    end: f64,
    /// No continuation ends earlier.
    bound: f64,
    /// When each open value of the ideal was there.
    ready: Vec<f64>,
    /// The lower ideal and its label.
    from: (u32, u32),
    /// Whether the step was on an accelerator.
    accelerator: bool,
}

/// What lies ahead of an open item of an ideal.
struct Outlook {
    /// The time that must pass after it is there.
    tail: f64,
    /// The same where no accelerator is left.
    cpu_tail: f64,
    /// For each node outside that uses it the positions of the open items that this node waits for.
    waits: Vec<Vec<u32>>,
}

struct Programme<'a> {
    instance: &'a Instance,
    units: &'a Units,
    ideals: &'a Ideals,
    predecessors: Vec<Vec<usize>>,
    /// The nodes that use a node.
    users: Vec<Vec<usize>>,
    /// The time that must pass from the start of each node on.
    from: Vec<f64>,
    /// The same where no accelerator is left.
    from_on_cpus: Vec<f64>,
    /// The nodes that can be reached from each node, itself included, as bits.
    reach: Vec<Vec<u64>>,
    /// The open items of the ideal whose labels are being made.
    outlook: Vec<Outlook>,
    /// For each ideal the items that it produced and that others still need.
    open: Vec<Vec<usize>>,
    labels: Vec<Vec<Label>>,
    upper: f64,
    width: Width,
    dropped_bound: f64,
    steps: u64,
}

/// Looks for the split with the least latency below `upper`.
pub(crate) fn search(
    instance: &Instance,
    units: &Units,
    ideals: &Ideals,
    upper: f64,
    width: Width,
    steps: &mut u64,
) -> Search {
    let mut programme = Programme::new(instance, units, ideals, upper, width);
    let stopped = programme.run();
    *steps += programme.steps;
    let finals = programme.labels.last().map_or(&[][..], Vec::as_slice);
    let best = (0..finals.len()).min_by(|&a, &b| finals[a].end.total_cmp(&finals[b].end));
    let best = best.map(|l| (finals[l].end, programme.trace(l as u32)));
    let found = best.as_ref().map_or(f64::INFINITY, |b| b.0);
    let lower_bound = if stopped { 0.0 } else { found.min(programme.dropped_bound) };
    Search { best, lower_bound, narrowed: programme.dropped_bound.is_finite(), stopped }
}

impl<'a> Programme<'a> {
    fn new(instance: &'a Instance, units: &'a Units, ideals: &'a Ideals, upper: f64, width: Width) -> Self {
        let mut users = vec![Vec::new(); instance.nodes.len()];
        for &(a, b) in &instance.edges {
            users[a].push(b);
        }
        let mut predecessors = vec![Vec::new(); instance.nodes.len()];
        for &(a, b) in &instance.edges {
            if units.unit_of[a].is_some() {
                predecessors[b].push(a);
            }
        }
        let mut labels = vec![Vec::new(); ideals.len()];
        labels[0].push(Label {
            used: 0,
            end: 0.0,
            bound: 0.0,
            ready: Vec::new(),
            from: (0, 0),
            accelerator: false,
        });
        Self {
            instance,
            units,
            ideals,
            predecessors,
            from: tails(instance, units, true),
            from_on_cpus: tails(instance, units, false),
            reach: reach(units, &users),
            users,
            outlook: Vec::new(),
            open: vec![Vec::new()],
            labels,
            upper,
            width,
            dropped_bound: f64::INFINITY,
            steps: 0,
        }
    }

    /// Fills in the labels of all ideals; says whether it stopped early.
    fn run(&mut self) -> bool {
        let mut walk = Walk::new(self.units, self.ideals);
        let accelerators = self.instance.accelerators;
        let (mut kept, mut numbers) = (0, 0);
        for top in 1..self.ideals.len() {
            let mut fresh: Vec<Label> = Vec::new();
            let open = self.open_items(top);
            numbers += open.len();
            self.open.push(open);
            self.outlook = self.look_ahead(top);
            if self.instance.cpus > 0 {
                for &(unit, lower) in self.ideals.below(top) {
                    for l in 0..self.labels[lower as usize].len() {
                        self.on_cpu(top, unit as usize, lower, l as u32, &mut fresh);
                    }
                }
            }
            let (capacity, upper) = (self.instance.capacity, self.upper);
            let most_steps = self.steps.saturating_add(self.width.steps_an_ideal);
            walk.below(top, &mut |walk, lower, between| {
                let too_large = between.size > capacity || between.accelerator >= upper;
                if accelerators == 0 || too_large || self.steps >= most_steps {
                    return false;
                }
                if between.accelerator + between.transfers < upper {
                    for l in 0..self.labels[lower].len() {
                        self.on_accelerator(walk, top, lower, l, between, &mut fresh);
                    }
                }
                true
            });
            self.labels[top] = fresh;
            self.narrow(top);
            kept += self.labels[top].len();
            numbers += self.labels[top].len() * self.open[top].len();
            let steps = self.steps + walk.pairs;
            if steps > self.width.steps || kept > MAX_LABELS || numbers > MAX_NUMBERS {
                self.steps += walk.pairs;
                return true;
            }
        }
        self.steps += walk.pairs;
        false
    }

    /// The items that an ideal produced and that others still need.
    fn open_items(&self, ideal: usize) -> Vec<usize> {
        let needed = |i: &usize| {
            let item = &self.units.items[*i];
            let missing = |&c: &usize| !self.ideals.has(ideal, c);
            self.ideals.has(ideal, item.producer) && item.consumers.iter().any(missing)
        };
        (0..self.units.items.len()).filter(needed).collect()
    }

    /// What lies ahead of the open items of an ideal.
    fn look_ahead(&self, ideal: usize) -> Vec<Outlook> {
        let outside = |&item: &usize| -> Vec<usize> {
            let users = self.users[self.units.items[item].node].iter().copied();
            users.filter(|&v| self.units.unit_of[v].is_some_and(|u| !self.ideals.has(ideal, u))).collect()
        };
        let users: Vec<Vec<usize>> = self.open[ideal].iter().map(outside).collect();
        let reaches = |from: usize, to: usize| self.reach[from][to / 64] >> (to % 64) & 1 == 1;
        let waits_for = |&v: &usize| -> Vec<u32> {
            let needed = |i: &u32| users[*i as usize].iter().any(|&first| reaches(first, v));
            (0..users.len() as u32).filter(needed).collect()
        };
        let all: usize = users.iter().map(Vec::len).sum();
        let few = all.saturating_mul(all) <= MAX_WAITING;
        let longest = |users: &[usize], from: &[f64]| users.iter().map(|&v| from[v]).fold(0.0, f64::max);
        let outlook = |(i, users): (usize, &Vec<usize>)| Outlook {
            tail: longest(users, &self.from),
            cpu_tail: longest(users, &self.from_on_cpus),
            waits: if few { users.iter().map(waits_for).collect() } else { vec![vec![i as u32]] },
        };
        users.iter().enumerate().map(outlook).collect()
    }

    /// The label after `unit` on CPU cores.
    fn on_cpu(&mut self, top: usize, unit: usize, lower: u32, l: u32, fresh: &mut Vec<Label>) {
        self.steps += 1 + (self.open[top].len() / NUMBERS_A_STEP) as u64;
        let label = &self.labels[lower as usize][l as usize];
        let open = &self.open[lower as usize];
        let members = &self.units.members[unit];
        let mut times: Vec<f64> = Vec::with_capacity(members.len());
        let mut end = label.end;
        for (m, &v) in members.iter().enumerate() {
            let mut start = 0.0f64;
            for &p in &self.predecessors[v] {
                let inside = members[..m].iter().position(|&w| w == p).map(|i| times[i]);
                let outside =
                    || open.iter().position(|&i| self.units.items[i].node == p).map(|i| label.ready[i]);
                start = start.max(inside.or_else(outside).unwrap_or(0.0));
            }
            times.push(start + self.instance.nodes[v].cpu_time);
            end = end.max(times[m]);
        }
        let ready = |item: usize| {
            let node = self.units.items[item].node;
            members.iter().position(|&w| w == node).map_or(0.0, |i| times[i])
        };
        let produced = |item: usize| self.units.items[item].producer == unit;
        let from = Label { end, from: (lower, l), accelerator: false, ..label.clone() };
        let next = self.extend(top, lower as usize, from, &produced, &ready);
        self.offer(next, fresh);
    }

    /// The label after an accelerator runs what lies between.
    fn on_accelerator(
        &mut self,
        walk: &Walk,
        top: usize,
        lower: usize,
        l: usize,
        between: Between,
        fresh: &mut Vec<Label>,
    ) {
        self.steps += 1 + (self.open[top].len() / NUMBERS_A_STEP) as u64;
        let label = &self.labels[lower][l];
        if label.used >= self.instance.accelerators {
            return;
        }
        let inputs = self.open[lower].iter().zip(&label.ready).filter(|(i, _)| walk.uses(**i) > 0);
        let start = inputs.map(|(_, &t)| t).fold(0.0, f64::max);
        let finish = start + between.accelerator + between.transfers;
        if finish >= self.upper {
            return;
        }
        let produced = |item: usize| walk.inside(self.units.items[item].producer);
        let from = Label {
            used: label.used + 1,
            end: label.end.max(finish),
            from: (lower as u32, l as u32),
            accelerator: true,
            bound: 0.0,
            ready: label.ready.clone(),
        };
        let next = self.extend(top, lower, from, &produced, &|_| finish);
        self.offer(next, fresh);
    }

    /// Moves the open values of a label from those of `lower` to those of `top`, and computes its bound.
    fn extend(
        &self,
        top: usize,
        lower: usize,
        mut label: Label,
        produced: &dyn Fn(usize) -> bool,
        ready: &dyn Fn(usize) -> f64,
    ) -> Label {
        let old = &self.open[lower];
        let mut position = 0;
        let mut values = Vec::with_capacity(self.open[top].len());
        label.bound = label.end;
        let on_cpus = label.used >= self.instance.accelerators;
        for (&item, outlook) in self.open[top].iter().zip(&self.outlook) {
            let time = if produced(item) {
                ready(item)
            } else {
                // Both lists are sorted by item, and every open item that is not new was open before.
                while old[position] != item {
                    position += 1;
                }
                label.ready[position]
            };
            let tail = if on_cpus { outlook.cpu_tail } else { outlook.tail };
            label.bound = label.bound.max(time + tail);
            values.push(time);
        }
        // A value may as well come later if all its users wait longer for other values.
        let latest = |items: &Vec<u32>| items.iter().map(|&i| values[i as usize]).fold(0.0, f64::max);
        let raised = |outlook: &Outlook| outlook.waits.iter().map(latest).fold(f64::INFINITY, f64::min);
        label.ready = self.outlook.iter().map(raised).collect();
        label
    }

    /// Takes a label over unless the bound or another label excludes it.
    fn offer(&mut self, label: Label, fresh: &mut Vec<Label>) {
        if label.bound >= self.upper || fresh.iter().any(|other| dominates(other, &label)) {
            return;
        }
        fresh.retain(|other| !dominates(&label, other));
        fresh.push(label);
        // A list far above its width is cut at once, so that an ideal costs bounded time.
        if fresh.len() > self.width.labels.saturating_mul(4) {
            self.cut(fresh);
        }
    }

    fn narrow(&mut self, top: usize) {
        let mut labels = std::mem::take(&mut self.labels[top]);
        self.cut(&mut labels);
        self.labels[top] = labels;
    }

    fn cut(&mut self, labels: &mut Vec<Label>) {
        if labels.len() <= self.width.labels {
            return;
        }
        labels.sort_by(|a, b| {
            (a.bound.total_cmp(&b.bound)).then(a.used.cmp(&b.used)).then(a.from.cmp(&b.from))
        });
        for label in labels.drain(self.width.labels..) {
            self.dropped_bound = self.dropped_bound.min(label.bound);
        }
    }

    fn trace(&self, label: u32) -> Vec<Device> {
        let mut device = vec![Device::Cpu(0); self.units.len()];
        let (mut ideal, mut label) = (self.ideals.len() - 1, label as usize);
        while ideal != 0 {
            let step = &self.labels[ideal][label];
            let lower = step.from.0 as usize;
            for (unit, slot) in device.iter_mut().enumerate() {
                if step.accelerator && self.ideals.has(ideal, unit) && !self.ideals.has(lower, unit) {
                    *slot = Device::Accelerator(step.used - 1);
                }
            }
            (ideal, label) = (lower, step.from.1 as usize);
        }
        device
    }
}

/// Whether every way to go on from `b` is possible and no longer from `a`.
fn dominates(a: &Label, b: &Label) -> bool {
    // An end up to the bound of `b` costs `a` nothing that `b` does not pay.
    a.used <= b.used
        && a.end <= b.bound
        && a.bound <= b.bound
        && a.ready.iter().zip(&b.ready).all(|(x, y)| x <= y)
}

/// For each node the least time from its start to the end of all that depends on it.
fn tails(instance: &Instance, units: &Units, accelerators: bool) -> Vec<f64> {
    let mut successors = vec![Vec::new(); instance.nodes.len()];
    for &(a, b) in &instance.edges {
        successors[a].push(b);
    }
    let mut from = vec![0.0f64; instance.nodes.len()];
    for unit in (0..units.len()).rev() {
        for &v in units.members[unit].iter().rev() {
            let after = successors[v].iter().map(|&w| from[w]).fold(0.0, f64::max);
            let node = &instance.nodes[v];
            let cpu = if instance.cpus > 0 { node.cpu_time } else { f64::INFINITY };
            let fits = accelerators && node.supported && units.size[unit] <= instance.capacity;
            from[v] = after + cpu.min(if fits { node.accelerator_time } else { f64::INFINITY });
        }
    }
    from
}

/// For each node the nodes that can be reached from it, itself included, as bits.
fn reach(units: &Units, users: &[Vec<usize>]) -> Vec<Vec<u64>> {
    let words = users.len().div_ceil(64);
    let mut reach = vec![vec![0u64; words]; users.len()];
    for unit in (0..units.len()).rev() {
        for &v in units.members[unit].iter().rev() {
            let mut bits = vec![0u64; words];
            bits[v / 64] |= 1 << (v % 64);
            for &next in &users[v] {
                bits.iter_mut().zip(&reach[next]).for_each(|(a, b)| *a |= b);
            }
            reach[v] = bits;
        }
    }
    reach
}
