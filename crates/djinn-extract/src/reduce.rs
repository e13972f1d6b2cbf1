//! Exact simplifications of a graph.
//!
//! Every step keeps at least one cheapest selection, and every selection of the result is one of
//! the input at the same cost. A round drops e-nodes that cannot be part of a finite derivation,
//! makes free e-classes vanish, charges what every selection needs to the base cost, folds
//! e-classes with a single e-node into the e-nodes that use them, and drops dominated e-nodes.

use crate::graph::{Components, Derivation, Graph, GraphBuilder, Lists, NONE, components, derive};
use crate::needs::{self, Needs};
use crate::problem::NodeId;

/// Rounds of simplification; further rounds find little.
const MAX_ROUNDS: usize = 12;

/// How many kept e-nodes of its e-class an e-node is compared with in the search for dominance.
const MAX_COMPARED: usize = 128;

/// An e-class may be folded into its users when this adds at most so many child references.
const FOLD_SLACK: usize = 4;

/// An e-class with more children than this after folding is not folded itself.
const MAX_FOLDED: usize = 64;

/// Simplifies `graph` without the e-nodes that `drop` marks, until nothing changes.
///
/// `fixed` receives the e-nodes of e-classes that vanish. Returns `None` when no selection is left.
pub(crate) fn reduce(mut graph: Graph, mut drop: Vec<bool>, fixed: &mut [Option<NodeId>]) -> Option<Graph> {
    for _ in 0..MAX_ROUNDS {
        let before = graph.size();
        graph = round(&graph, &drop, true, fixed)?;
        if before == graph.size() {
            break;
        }
        drop = vec![false; graph.nodes()];
    }
    // Only folding and pruning can leave an e-node unusable, so a round without them ends with a
    // graph in which every e-class is derivable.
    let drop = vec![false; graph.nodes()];
    round(&graph, &drop, false, fixed)
}

/// What becomes of an e-class in one round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It stays.
    Stay,
    /// It is free or always present, and no e-node needs to mention it.
    Vanish,
    /// Its only e-node is folded into the e-nodes that use it.
    Fold,
}

/// The facts that one round works from.
struct Round<'a> {
    graph: &'a Graph,
    live: Vec<bool>,
    live_count: Vec<u32>,
    users: Vec<u32>,
    fate: Vec<Fate>,
    forced: Vec<bool>,
    /// The cost and the children that a folded e-class adds to its users.
    folded_cost: Vec<f64>,
    folded_start: Vec<(u32, u32)>,
    folded: Vec<u32>,
    base: f64,
}

/// One round; with `all` unset it neither folds e-classes nor prunes cycles.
fn round(graph: &Graph, drop: &[bool], all: bool, fixed: &mut [Option<NodeId>]) -> Option<Graph> {
    let parents = graph.parents();
    let derived = derive(graph, &parents, |n| !drop[n]);
    if derived.by[graph.root as usize] == NONE {
        return None;
    }
    let mut round = Round::new(graph, drop, &derived);
    round.vanish_free(&parents, fixed);
    let scc = components(graph, |n| round.live[n]);
    if all {
        round.use_needs(&scc, &derived.order, &parents);
    } else {
        round.find_forced();
    }
    round.vanish_forced(&scc, fixed);
    if all {
        round.fold(&derived, fixed);
    }
    Some(round.rebuild())
}

impl<'a> Round<'a> {
    fn new(graph: &'a Graph, drop: &[bool], derived: &Derivation) -> Self {
        let mut live = vec![false; graph.nodes()];
        let mut live_count = vec![0; graph.classes()];
        let mut users = vec![0; graph.classes()];
        for n in 0..graph.nodes() {
            let class = graph.node_class[n];
            let children = graph.children_of(n);
            let finite = |&c: &u32| c != class && derived.by[c as usize] != NONE;
            live[n] = !drop[n] && children.iter().all(finite);
            if live[n] {
                live_count[class as usize] += 1;
                children.iter().for_each(|&c| users[c as usize] += 1);
            }
        }
        Self {
            graph,
            live,
            live_count,
            users,
            fate: vec![Fate::Stay; graph.classes()],
            forced: vec![false; graph.classes()],
            folded_cost: vec![0.0; graph.classes()],
            folded_start: vec![(0, 0); graph.classes()],
            folded: Vec::new(),
            base: graph.base,
        }
    }

    /// Makes e-classes vanish that have a derivation of cost zero.
    fn vanish_free(&mut self, parents: &Lists, fixed: &mut [Option<NodeId>]) {
        let graph = self.graph;
        let free = derive(graph, parents, |n| self.live[n] && graph.node_cost[n] == 0.0);
        for &c in free.order.iter().filter(|&&c| c != graph.root) {
            self.fate[c as usize] = Fate::Vanish;
            self.fix(c as usize, free.by[c as usize] as usize, fixed);
        }
    }

    fn fix(&self, class: usize, node: usize, fixed: &mut [Option<NodeId>]) {
        let origin = self.graph.class_origin[class];
        if origin != NONE {
            fixed[origin as usize] = Some(NodeId(self.graph.node_origin[node]));
        }
    }

    fn live_nodes(&self, class: usize) -> impl Iterator<Item = usize> + use<'_, 'a> {
        self.graph.nodes_of(class).filter(|&n| self.live[n])
    }

    /// Finds what e-classes need, drops e-nodes that only cyclic selections could use, and marks
    /// forced e-classes.
    fn use_needs(&mut self, scc: &Components, order: &[u32], parents: &Lists) {
        let graph = self.graph;
        let mut order = order.to_vec();
        order.sort_by_key(|&c| scc.of[c as usize]);
        let mut position = vec![NONE; graph.classes()];
        let whole = Needs::new(graph, &order, &mut position, &self.live);
        let mut removed = 0;
        if let Some(needs) = &whole {
            removed += needs::prune_cycles(graph, scc, needs, parents, &mut self.live);
            for c in needs.of(graph.root).map(|c| c as usize) {
                self.forced[c] = self.fate[c] == Fate::Stay;
            }
        } else {
            drop(whole);
            for members in order.chunk_by(|&a, &b| scc.together(a as usize, b as usize)) {
                let needs = match members.len() {
                    1 => None,
                    _ => Needs::new(graph, members, &mut position, &self.live),
                };
                if let Some(needs) = needs {
                    removed += needs::prune_cycles(graph, scc, &needs, parents, &mut self.live);
                }
            }
            self.find_forced();
        }
        if removed > 0 {
            self.recount();
        }
    }

    /// Counts the live e-nodes and users of every e-class again.
    fn recount(&mut self) {
        self.live_count.fill(0);
        self.users.fill(0);
        for n in (0..self.graph.nodes()).filter(|&n| self.live[n]) {
            self.live_count[self.graph.node_class[n] as usize] += 1;
            self.graph.children_of(n).iter().for_each(|&c| self.users[c as usize] += 1);
        }
    }

    /// Marks e-classes that every selection needs because all e-nodes of a needed e-class use them.
    fn find_forced(&mut self) {
        let graph = self.graph;
        let mut stack = vec![graph.root];
        self.forced[graph.root as usize] = true;
        let mut hits = vec![0u32; graph.classes()];
        while let Some(class) = stack.pop() {
            let nodes: Vec<usize> = self.live_nodes(class as usize).collect();
            for &child in nodes.iter().flat_map(|&n| graph.children_of(n)) {
                let c = child as usize;
                hits[c] += 1;
                let always = hits[c] as usize == nodes.len();
                if always && !self.forced[c] && self.fate[c] == Fate::Stay {
                    self.forced[c] = true;
                    stack.push(child);
                }
            }
            for &child in nodes.iter().flat_map(|&n| graph.children_of(n)) {
                hits[child as usize] = 0;
            }
        }
    }

    /// Charges forced e-classes with a single e-node to the base cost.
    ///
    /// Forced e-classes that lie on no cycle vanish from all e-nodes but the root's.
    fn vanish_forced(&mut self, scc: &Components, fixed: &mut [Option<NodeId>]) {
        let graph = self.graph;
        for c in 0..graph.classes() {
            if !self.forced[c] || c == graph.root as usize {
                continue;
            }
            let single = match self.live_count[c] {
                1 => self.live_nodes(c).next(),
                _ => None,
            };
            if let Some(node) = single {
                self.base += graph.node_cost[node];
                self.folded_cost[c] = -graph.node_cost[node];
                self.fix(c, node, fixed);
            }
            if !scc.cyclic(c) {
                self.fate[c] = Fate::Vanish;
                // A forced e-class with a choice stays as a child of the root alone.
                self.forced[c] = single.is_none();
            }
        }
    }

    /// Folds e-classes with a single e-node into their users where that does not grow the graph.
    fn fold(&mut self, derived: &Derivation, fixed: &mut [Option<NodeId>]) {
        let mut children = Vec::new();
        for &class in &derived.order {
            let c = class as usize;
            if self.fate[c] != Fate::Stay || self.live_count[c] != 1 || class == self.graph.root {
                continue;
            }
            let Some(node) = self.live_nodes(c).next() else { continue };
            // A forced e-class has its cost in the base and is free here.
            let cost = self.expand(node, &mut children) + self.folded_cost[c];
            let (size, users) = (children.len(), self.users[c] as usize);
            let users = users + usize::from(self.forced[c]);
            let cheap = cost <= 0.0 || users <= 1;
            if size > MAX_FOLDED {
                continue;
            }
            let small = size <= 1 || users <= 1 || size * users <= size + users + FOLD_SLACK;
            if cheap && small {
                self.fate[c] = Fate::Fold;
                self.folded_cost[c] = cost.max(0.0);
                let start = self.folded.len() as u32;
                self.folded.extend_from_slice(&children);
                self.folded_start[c] = (start, self.folded.len() as u32);
                self.fix(c, node, fixed);
            }
        }
    }

    /// Computes the children of `node` after folding, and returns its cost.
    fn expand(&self, node: usize, children: &mut Vec<u32>) -> f64 {
        children.clear();
        let mut cost = self.graph.node_cost[node];
        for &child in self.graph.children_of(node) {
            cost += self.push_expanded(child, children);
        }
        children.sort_unstable();
        children.dedup();
        cost
    }

    fn push_expanded(&self, child: u32, children: &mut Vec<u32>) -> f64 {
        let c = child as usize;
        match self.fate[c] {
            Fate::Vanish => 0.0,
            Fate::Stay => {
                children.push(child);
                0.0
            }
            Fate::Fold => {
                let (start, end) = self.folded_start[c];
                children.extend_from_slice(&self.folded[start as usize..end as usize]);
                self.folded_cost[c]
            }
        }
    }

    /// The children of the root: every forced e-class that is still there.
    fn root_children(&self) -> Vec<u32> {
        let mut children = Vec::new();
        for c in (0..self.graph.classes()).filter(|&c| self.forced[c]) {
            if c == self.graph.root as usize {
                continue;
            }
            // A forced e-class with a choice vanishes from all users except this one.
            if self.fate[c] == Fate::Vanish {
                children.push(c as u32);
            } else {
                self.push_expanded(c as u32, &mut children);
            }
        }
        children.sort_unstable();
        children.dedup();
        children
    }

    /// Builds the simplified graph out of what the root reaches.
    fn rebuild(&self) -> Graph {
        let graph = self.graph;
        let mut number = vec![NONE; graph.classes()];
        let mut order = vec![graph.root];
        number[graph.root as usize] = 0;
        let mut builder = GraphBuilder::new(0, self.base);
        let mut next = 0;
        while next < order.len() {
            let c = order[next] as usize;
            next += 1;
            for node in self.undominated(c) {
                for child in &node.children {
                    if number[*child as usize] == NONE {
                        number[*child as usize] = order.len() as u32;
                        order.push(*child);
                    }
                }
                let mut children: Vec<u32> =
                    node.children.iter().map(|&child| number[child as usize]).collect();
                children.sort_unstable();
                builder.node(node.cost, node.origin, children);
            }
            builder.end_class(graph.class_origin[c]);
        }
        builder.finish()
    }

    /// The e-nodes of `class` after folding, without dominated ones.
    ///
    /// An e-node is dominated by another one of its e-class that costs no more and needs no
    /// e-class that it does not need itself.
    fn undominated(&self, class: usize) -> Vec<Candidate> {
        let mut candidates: Vec<Candidate> = Vec::new();
        for n in self.live_nodes(class) {
            let mut children = Vec::new();
            let mut cost = self.expand(n, &mut children);
            if class == self.graph.root as usize {
                children = self.root_children();
                cost = 0.0;
            } else if self.forced[class] && self.live_count[class] == 1 {
                cost = 0.0;
            }
            if children.binary_search(&(class as u32)).is_err() {
                let mask = children.iter().fold(0, |m, &c| m | 1 << (c % 64));
                candidates.push(Candidate { cost, origin: self.graph.node_origin[n], mask, children });
            }
        }
        candidates.sort_by(|a, b| {
            let size = a.children.len().cmp(&b.children.len());
            size.then(a.cost.total_cmp(&b.cost)).then(a.origin.cmp(&b.origin))
        });
        let mut kept: Vec<Candidate> = Vec::new();
        for candidate in candidates {
            if !kept.iter().take(MAX_COMPARED).any(|k| k.dominates(&candidate)) {
                kept.push(candidate);
            }
        }
        kept.sort_by_key(|k| k.origin);
        kept
    }
}

/// An e-node of the graph under construction.
struct Candidate {
    cost: f64,
    origin: u32,
    /// A bit per child, chosen by its number modulo 64.
    mask: u64,
    children: Vec<u32>,
}

impl Candidate {
    fn dominates(&self, other: &Candidate) -> bool {
        if self.cost > other.cost || self.mask & !other.mask != 0 {
            return false;
        }
        let mut rest = other.children.iter();
        self.children.iter().all(|c| rest.any(|o| o == c))
    }
}
