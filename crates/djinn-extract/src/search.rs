//! Local search over selections, with joint moves.
//!
//! A selection is kept with the number of chosen e-nodes that use each e-class, so a change costs
//! time in proportion to the e-classes that it adds and removes, and a trail takes it back.
//! E-classes outside the selection have a *default*: the e-node that completes them most cheaply
//! on top of the selection.
//!
//! The central move *buys* an e-class that is not selected, holds it as if it were needed, lets
//! every e-class that can now be computed more cheaply or as cheaply switch to it, mends what the
//! switches left behind, and gives up whatever is still unused. A merged operation whose parts pay
//! only together is found this way. Moves that make the selection a little dearer are accepted now
//! and then by simulated annealing (S. Kirkpatrick, C. Gelatt and M. Vecchi, "Optimization by
//! simulated annealing", Science 220, 1983) with a fixed pseudo-random sequence.

use crate::graph::{Components, Graph, Lists, NONE};
use crate::prepared::Prepared;

/// E-classes examined upwards from a bought e-class, and e-classes mended after a move.
const MAX_SPREAD: usize = 64;

/// Users of one e-class that are examined when the e-class gets cheaper.
const MAX_USERS: usize = 256;

/// Accepted moves between two computations of the defaults.
const REFRESH_EVERY: u64 = 32;

/// The first temperature of annealing in relation to the cost that is not in the base.
const HEAT: f64 = 3e-3;

/// How often annealing cools down.
const CYCLES: f64 = 16.0;

/// The start of the pseudo-random sequence of annealing.
const SEED: u64 = 88_172_645_463_325_252;

/// G. Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003.
fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// One entry of the trail.
#[derive(Clone, Copy)]
enum Undo {
    Entered(u32),
    Used(u32),
    Released(u32),
    Chose(u32, u32),
}

/// The state of the local search.
pub(crate) struct Search<'a> {
    graph: &'a Graph,
    scc: &'a Components,
    parents: &'a Lists,
    /// The e-classes with children before users; on cycles, in the order of `rank`.
    order: &'a [u32],
    rank: &'a [u32],
    /// The chosen e-node of each e-class in the selection.
    pub choice: Vec<u32>,
    /// The number of chosen e-nodes that use each e-class; the selection is where it is not zero.
    users: Vec<u32>,
    default: Vec<u32>,
    /// What each e-class would cost by its default.
    price: Vec<f64>,
    pub cost: f64,
    trail: Vec<Undo>,
    pub work: u64,
    stamp: Vec<u64>,
    stamp_now: u64,
    color: Vec<u8>,
    touched: Vec<u32>,
    stack: Vec<u32>,
}

impl<'a> Search<'a> {
    /// Starts from the acyclic selection `choice`, of which only what the root reaches counts.
    pub fn new(prepared: &'a Prepared, choice: &[u32]) -> Self {
        let Prepared { graph, scc, parents, order, rank, .. } = prepared;
        let classes = graph.classes();
        let mut search = Self {
            graph,
            scc,
            parents,
            order,
            rank,
            choice: choice.to_vec(),
            users: vec![0; classes],
            default: choice.to_vec(),
            price: vec![0.0; classes],
            cost: graph.base,
            trail: Vec::new(),
            work: 0,
            stamp: vec![0; classes],
            stamp_now: 0,
            color: vec![0; classes],
            touched: Vec::new(),
            stack: Vec::new(),
        };
        search.acquire(graph.root);
        search.trail.clear();
        search.refresh();
        search
    }

    /// Like [`Search::new`], but returns `None` when `choice` has a cycle.
    pub fn checked(prepared: &'a Prepared, choice: &[u32]) -> Option<Self> {
        let mut search = Self::new(prepared, choice);
        let fine = (0..choice.len() as u32).all(|c| !search.active(c as usize) || search.acyclic_below(c));
        search.uncolor();
        fine.then_some(search)
    }

    /// Whether `class` is in the selection.
    pub fn active(&self, class: usize) -> bool {
        self.users[class] > 0
    }

    /// The selection: an e-node per selected e-class.
    pub fn selection(&self) -> Vec<u32> {
        (0..self.choice.len()).map(|c| if self.active(c) { self.choice[c] } else { NONE }).collect()
    }

    /// Recomputes the defaults and their prices on top of the present selection.
    pub fn refresh(&mut self) {
        self.work += (self.graph.nodes() + self.graph.children.len()) as u64;
        // On a cycle an e-node counts only with children of lower rank or in the selection.
        for i in 0..self.order.len() {
            let c = self.order[i] as usize;
            let mut best = (f64::INFINITY, NONE);
            for n in self.graph.nodes_of(c) {
                let children = self.graph.children_of(n).iter().map(|&x| x as usize);
                let mut price = self.graph.node_cost[n];
                for x in children {
                    let ready = !self.scc.together(c, x) || self.rank[x] < self.rank[c];
                    if self.users[x] == 0 {
                        price += if ready { self.price[x] } else { f64::INFINITY };
                    }
                }
                if price < best.0 {
                    best = (price, n as u32);
                }
            }
            if best.1 != NONE {
                (self.price[c], self.default[c]) = best;
            }
        }
    }

    fn acquire(&mut self, class: u32) {
        let mut stack = std::mem::take(&mut self.stack);
        stack.push(class);
        while let Some(class) = stack.pop() {
            let c = class as usize;
            self.work += 1;
            self.users[c] += 1;
            let entered = self.users[c] == 1;
            self.trail.push(if entered { Undo::Entered(class) } else { Undo::Used(class) });
            if entered {
                if self.choice[c] != self.default[c] {
                    self.trail.push(Undo::Chose(class, self.choice[c]));
                    self.choice[c] = self.default[c];
                }
                let node = self.choice[c] as usize;
                self.cost += self.graph.node_cost[node];
                stack.extend_from_slice(self.graph.children_of(node));
            }
        }
        self.stack = stack;
    }

    fn release(&mut self, class: u32) {
        let mut stack = std::mem::take(&mut self.stack);
        stack.push(class);
        while let Some(class) = stack.pop() {
            let c = class as usize;
            self.work += 1;
            self.users[c] -= 1;
            self.trail.push(Undo::Released(class));
            if self.users[c] == 0 {
                let node = self.choice[c] as usize;
                self.cost -= self.graph.node_cost[node];
                stack.extend_from_slice(self.graph.children_of(node));
            }
        }
        self.stack = stack;
    }

    /// Takes back everything after `mark`; `cost` is what the cost was there.
    fn undo(&mut self, mark: usize, cost: f64) {
        self.work += (self.trail.len() - mark) as u64;
        while self.trail.len() > mark {
            match self.trail.pop() {
                Some(Undo::Entered(c) | Undo::Used(c)) => self.users[c as usize] -= 1,
                Some(Undo::Released(c)) => self.users[c as usize] += 1,
                Some(Undo::Chose(c, node)) => self.choice[c as usize] = node,
                None => break,
            }
        }
        self.cost = cost;
    }

    /// Switches a selected e-class to another of its e-nodes; returns whether no cycle arose.
    fn switch(&mut self, class: u32, node: u32) -> bool {
        let old = self.choice[class as usize];
        let mark = self.trail.len();
        self.trail.push(Undo::Chose(class, old));
        self.choice[class as usize] = node;
        self.cost += self.graph.node_cost[node as usize] - self.graph.node_cost[old as usize];
        let graph = self.graph;
        for &child in graph.children_of(node as usize) {
            self.acquire(child);
        }
        for &child in graph.children_of(old as usize) {
            self.release(child);
        }
        self.acyclic(mark)
    }

    /// Whether the changes after `mark` left the selection without cycles.
    ///
    /// A new cycle passes through an e-class that got another e-node or that came in.
    fn acyclic(&mut self, mark: usize) -> bool {
        let mut fine = true;
        self.work += (self.trail.len() - mark) as u64;
        for i in mark..self.trail.len() {
            if let Undo::Entered(c) | Undo::Chose(c, _) = self.trail[i]
                && self.scc.cyclic(c as usize)
                && self.active(c as usize)
            {
                fine = fine && self.acyclic_below(c);
            }
        }
        self.uncolor();
        fine
    }

    /// Forgets what [`Self::acyclic_below`] has visited.
    fn uncolor(&mut self) {
        for c in self.touched.drain(..) {
            self.color[c as usize] = 0;
        }
    }

    /// Whether no cycle within the component of `class` can be reached from it.
    ///
    /// E-classes visited since the last [`Self::uncolor`] are not visited again.
    fn acyclic_below(&mut self, class: u32) -> bool {
        let mut stack = std::mem::take(&mut self.stack);
        stack.push(class);
        let mut fine = true;
        while let Some(&at) = stack.last() {
            let c = at as usize;
            if self.color[c] != 0 {
                self.color[c] = 2;
                stack.pop();
                continue;
            }
            self.color[c] = 1;
            self.touched.push(at);
            for &child in self.graph.children_of(self.choice[c] as usize) {
                self.work += 1;
                if self.scc.together(c, child as usize) {
                    match self.color[child as usize] {
                        0 => stack.push(child),
                        1 => fine = false,
                        _ => {}
                    }
                }
            }
        }
        self.stack = stack;
        fine
    }

    /// What `node` would add to the cost, judged by the defaults.
    fn estimate(&mut self, node: usize) -> f64 {
        let mut price = self.graph.node_cost[node];
        for &child in self.graph.children_of(node) {
            self.work += 1;
            if self.users[child as usize] == 0 {
                price += self.price[child as usize];
            }
        }
        price
    }

    /// Switches a selected e-class to the best of its e-nodes; returns whether the cost fell.
    fn polish(&mut self, class: u32) -> bool {
        let nodes = self.graph.nodes_of(class as usize);
        if nodes.len() < 2 {
            return false;
        }
        let (mark, cost) = (self.trail.len(), self.cost);
        let old = self.choice[class as usize];
        for &child in self.graph.children_of(old as usize) {
            self.release(child);
        }
        let kept = self.cost - self.graph.node_cost[old as usize];
        let mut best = (cost - slack(cost), NONE);
        for n in nodes.filter(|&n| n as u32 != old) {
            let price = kept + self.estimate(n);
            if price < best.0 {
                best = (price, n as u32);
            }
        }
        self.undo(mark, cost);
        if best.1 == NONE {
            return false;
        }
        let fine = self.switch(class, best.1);
        if !fine || self.cost >= cost - slack(cost) {
            self.undo(mark, cost);
            return false;
        }
        true
    }

    /// Polishes every selected e-class until nothing changes or the work is spent.
    pub fn descend(&mut self, work_end: u64) {
        loop {
            let mut changed = false;
            for i in (0..self.order.len()).rev() {
                let class = self.order[i];
                if self.work >= work_end {
                    return;
                }
                if self.active(class as usize) && self.polish(class) {
                    self.trail.clear();
                    changed = true;
                }
            }
            if !changed {
                return;
            }
            self.refresh();
        }
    }

    /// Buys `class` and keeps the outcome if it costs at most `allowance` more than before.
    ///
    /// Returns whether the selection changed.
    pub fn buy(&mut self, class: u32, allowance: f64) -> bool {
        let (mark, cost) = (self.trail.len(), self.cost);
        let mut held = vec![class];
        let default = self.default[class as usize];
        if default == NONE {
            return false;
        }
        self.acquire(class);
        let fine = self.acyclic(mark);
        if fine {
            self.spread(&mut held);
        }
        for &class in &held {
            self.release(class);
        }
        if fine {
            self.mend(mark);
        }
        self.finish(fine, mark, cost, allowance)
    }

    /// Switches `class` to `node`, spreads what came in, and keeps the outcome like [`Self::buy`].
    pub fn force(&mut self, class: u32, node: u32, allowance: f64) -> bool {
        let (mark, cost) = (self.trail.len(), self.cost);
        let fine = self.switch(class, node);
        if fine {
            let mut held: Vec<u32> = Vec::new();
            for i in mark..self.trail.len() {
                if let Undo::Entered(c) = self.trail[i]
                    && self.active(c as usize)
                    && held.len() < MAX_SPREAD / 4
                {
                    held.push(c);
                }
            }
            for &class in &held {
                self.acquire(class);
            }
            self.spread(&mut held);
            for &class in &held {
                self.release(class);
            }
            self.mend(mark);
        }
        self.finish(fine, mark, cost, allowance)
    }

    /// Tries every joint move once, in a fixed order, until a pass brings nothing.
    pub fn sweep(&mut self, work_end: u64) {
        let mut accepted = 0;
        loop {
            let before = self.cost;
            for class in 0..self.graph.classes() as u32 {
                let nodes = self.graph.nodes_of(class as usize);
                for node in nodes {
                    if self.work >= work_end {
                        return;
                    }
                    let changed = if !self.active(class as usize) {
                        node as u32 == self.default[class as usize] && self.buy(class, 0.0)
                    } else {
                        node as u32 != self.choice[class as usize] && self.force(class, node as u32, 0.0)
                    };
                    accepted += u64::from(changed);
                    if changed && accepted % REFRESH_EVERY == 0 {
                        self.refresh();
                    }
                }
            }
            self.refresh();
            self.descend(work_end);
            if self.cost >= before - slack(before) {
                return;
            }
        }
    }

    /// Spends `steps` on simulated annealing and returns the best selection it meets.
    ///
    /// The temperature falls to zero and starts again several times.
    pub fn anneal(&mut self, steps: u64) -> Vec<u32> {
        let mut best = (self.cost, self.selection());
        let mut random = SEED;
        let mut accepted = 0;
        let heat = HEAT * (self.cost - self.graph.base);
        let start = self.work;
        while self.work - start < steps {
            let done = (self.work - start) as f64 / steps as f64;
            let cold = (done * CYCLES).fract();
            let temperature = heat * (1.0 - cold) * (1.0 - cold);
            self.work += 1;
            if self.random_move(&mut random, temperature) {
                accepted += 1;
                if accepted % REFRESH_EVERY == 0 {
                    self.refresh();
                }
                if self.cost < best.0 - slack(best.0) {
                    best = (self.cost, self.selection());
                }
            }
        }
        best.1
    }

    /// Tries one joint move; returns whether the selection changed.
    fn random_move(&mut self, random: &mut u64, temperature: f64) -> bool {
        let fraction = (xorshift(random) >> 11) as f64 / (1u64 << 53) as f64;
        let allowance = -temperature * fraction.max(1e-18).ln();
        let class = (xorshift(random) % self.graph.classes() as u64) as usize;
        if !self.active(class) {
            return self.buy(class as u32, allowance);
        }
        let nodes = self.graph.nodes_of(class);
        let node = nodes.start + (xorshift(random) % nodes.len() as u64) as usize;
        self.choice[class] != node as u32 && self.force(class as u32, node as u32, allowance)
    }

    fn finish(&mut self, fine: bool, mark: usize, cost: f64, allowance: f64) -> bool {
        let limit = if allowance > 0.0 { cost + allowance } else { cost - slack(cost) };
        if !fine || self.cost >= limit || self.trail.len() == mark {
            self.undo(mark, cost);
            return false;
        }
        self.trail.clear();
        true
    }

    /// Lets e-classes switch to e-nodes that use held ones, and holds e-classes that get cheaper.
    fn spread(&mut self, held: &mut Vec<u32>) {
        let mut next = 0;
        while next < held.len() && next < MAX_SPREAD {
            let at = held[next];
            next += 1;
            let parents = self.parents;
            for &node in parents.of(at as usize).iter().take(MAX_USERS) {
                let class = self.graph.node_class[node as usize];
                let c = class as usize;
                self.work += 1;
                if self.active(c) {
                    if self.choice[c] != node {
                        let (mark, cost) = (self.trail.len(), self.cost);
                        if !self.switch(class, node) || self.cost > cost + slack(cost) {
                            self.undo(mark, cost);
                        }
                    }
                } else if held.len() < MAX_SPREAD {
                    let price = self.estimate(node as usize);
                    if price < self.price[c] - slack(self.price[c]) {
                        let (mark, cost) = (self.trail.len(), self.cost);
                        let default = std::mem::replace(&mut self.default[c], node);
                        self.acquire(class);
                        self.default[c] = default;
                        if self.acyclic(mark) {
                            held.push(class);
                        } else {
                            self.undo(mark, cost);
                        }
                    }
                }
            }
        }
    }

    /// Polishes the users of e-classes that lost a user since `mark`.
    fn mend(&mut self, mark: usize) {
        self.stamp_now += 1;
        self.work += (self.trail.len() - mark) as u64;
        let mut lost = Vec::new();
        for i in mark..self.trail.len() {
            if let Undo::Released(c) = self.trail[i]
                && self.users[c as usize] > 0
                && self.stamp[c as usize] != self.stamp_now
                && lost.len() < MAX_SPREAD
            {
                self.stamp[c as usize] = self.stamp_now;
                lost.push(c);
            }
        }
        for class in lost {
            let parents = self.parents;
            for &node in parents.of(class as usize).iter().take(MAX_USERS) {
                self.work += 1;
                let user = self.graph.node_class[node as usize];
                if self.active(user as usize) && self.choice[user as usize] == node {
                    self.polish(user);
                }
            }
        }
    }
}

/// The difference below which two costs count as equal.
pub(crate) fn slack(cost: f64) -> f64 {
    cost.abs() * 1e-12
}
