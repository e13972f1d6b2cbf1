//! Exact search on small problems: branch and bound over the devices of the tasks, in order.

use super::bound;
use super::problem::{Objective, Problem};
use std::collections::BTreeMap;

/// Problems with more tasks are not searched.
pub(crate) const MAX_TASKS: usize = 48;

/// The best placement below `upper`, if there is one, and whether the search ended by itself.
pub(crate) fn search(
    problem: &Problem,
    same: &[Vec<bool>],
    upper: f64,
    max_nodes: u64,
) -> (Option<Vec<usize>>, bool) {
    let n = problem.tasks.len();
    let d = problem.devices();
    let mut inputs: Vec<Vec<usize>> = vec![Vec::new(); n];
    for (i, value) in problem.values.iter().enumerate() {
        for &c in &value.consumers {
            if inputs[c].last() != Some(&i) {
                inputs[c].push(i);
            }
        }
    }
    let mut shared = vec![Vec::new(); n];
    for (i, s) in problem.shared.iter().enumerate() {
        for &u in &s.users {
            shared[u].push(i);
        }
    }
    let mut tree = Tree {
        problem,
        same,
        inputs,
        shared,
        tail: bound::tails(problem),
        device: Vec::with_capacity(n),
        end: vec![0.0; n],
        sent: vec![0; problem.values.len()],
        holders: vec![0; problem.shared.len()],
        classes: BTreeMap::new(),
        sends: vec![0; d],
        best: None,
        upper,
        nodes: 0,
        max_nodes,
    };
    let complete =
        tree.branch(&State { free: vec![0.0; d], load: vec![0.0; d], bytes: vec![0.0; d], lower: 0.0 });
    (tree.best, complete)
}

/// What depends on the tasks placed so far.
#[derive(Clone)]
struct State {
    free: Vec<f64>,
    load: Vec<f64>,
    bytes: Vec<f64>,
    lower: f64,
}

struct Tree<'a> {
    problem: &'a Problem,
    same: &'a [Vec<bool>],
    inputs: Vec<Vec<usize>>,
    shared: Vec<Vec<usize>>,
    tail: Vec<f64>,
    device: Vec<usize>,
    end: Vec<f64>,
    /// For each value the devices it was sent to, as bits.
    sent: Vec<u64>,
    /// For each piece of shared bytes the devices that hold it.
    holders: Vec<u64>,
    classes: BTreeMap<u32, (usize, usize)>,
    /// For each device how it sends to others, as bits; only grows in depth.
    sends: Vec<u64>,
    best: Option<Vec<usize>>,
    upper: f64,
    nodes: u64,
    max_nodes: u64,
}

impl Tree<'_> {
    /// Places the next task everywhere; says whether the limit allowed it.
    fn branch(&mut self, state: &State) -> bool {
        let task = self.device.len();
        if task == self.problem.tasks.len() {
            self.upper = state.lower;
            self.best = Some(self.device.clone());
            return true;
        }
        let forced = self.problem.tasks[task].colour_class.and_then(|c| self.classes.get(&c)).map(|x| x.1);
        for x in 0..self.problem.devices() {
            let twin = (0..x).any(|y| self.same[x][y] && !self.device.contains(&y));
            if forced.is_some_and(|f| f != x) || (twin && !self.device.contains(&x)) {
                continue;
            }
            self.nodes += 1;
            if self.nodes > self.max_nodes {
                return false;
            }
            if !self.enter(state, task, x) {
                return false;
            }
        }
        true
    }

    /// Places `task` on `x` and goes on; says whether the limit allowed it.
    fn enter(&mut self, state: &State, task: usize, x: usize) -> bool {
        let problem = self.problem;
        let seconds = problem.tasks[task].seconds[x];
        if !seconds.is_finite() {
            return true;
        }
        let mut next = state.clone();
        let sends = self.sends.clone();
        let mut sent_now = Vec::new();
        let mut start = next.free[x];
        let mut possible = true;
        for k in 0..self.inputs[task].len() {
            let v = self.inputs[task][k];
            let value = &problem.values[v];
            let home = self.device[value.producer];
            let time = problem.transfer(home, x, value.bytes);
            possible &= time.is_finite();
            start = start.max(self.end[value.producer] + time);
            if home != x && self.sent[v] >> x & 1 == 0 {
                self.sent[v] |= 1 << x;
                sent_now.push(v);
                self.sends[home] |= 1 << x;
                next.load[home] += time;
                next.load[x] += time;
            }
        }
        let mut held_now = Vec::new();
        next.bytes[x] += problem.tasks[task].bytes;
        for k in 0..self.shared[task].len() {
            let s = self.shared[task][k];
            if self.holders[s] >> x & 1 == 0 {
                self.holders[s] |= 1 << x;
                held_now.push(s);
                next.bytes[x] += problem.shared[s].bytes;
            }
        }
        next.load[x] += seconds;
        self.end[task] = start + seconds;
        next.free[x] = self.end[task];
        next.lower = next.lower.max(match problem.objective {
            Objective::Latency => self.end[task] + self.tail[task],
            Objective::Throughput => next.load.iter().copied().fold(0.0, f64::max),
            Objective::Memory => next.bytes[x] / problem.capacity[x].max(1e-300),
        });
        possible &= next.bytes[x] <= problem.capacity[x] && next.lower < self.upper;
        possible &= !problem.stages || !self.circular();
        let mut complete = true;
        if possible {
            let class = problem.tasks[task].colour_class;
            if let Some(c) = class {
                self.classes.entry(c).or_insert((task, x));
            }
            self.device.push(x);
            complete = self.branch(&next);
            self.device.pop();
            if let Some(c) = class.filter(|c| self.classes.get(c).is_some_and(|e| e.0 == task)) {
                self.classes.remove(&c);
            }
        }
        for v in sent_now {
            self.sent[v] &= !(1 << x);
        }
        for s in held_now {
            self.holders[s] &= !(1 << x);
        }
        self.sends = sends;
        complete
    }

    fn circular(&self) -> bool {
        let pairs: Vec<(usize, usize)> = (0..self.sends.len())
            .flat_map(|a| (0..self.sends.len()).map(move |b| (a, b)))
            .filter(|&(a, b)| self.sends[a] >> b & 1 == 1)
            .collect();
        crate::graph::topological_order(self.sends.len(), &pairs).is_err()
    }
}
