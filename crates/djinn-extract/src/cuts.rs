//! A lower bound from cuts that every acyclic selection crosses.
//!
//! Take a set of e-nodes of which every acyclic selection has at least one. The least cost in it
//! is a lower bound on the cost of a selection, and it may be taken off all of its e-nodes; what
//! is left are *reduced costs*, and a selection costs at least the bound plus the reduced costs of
//! its e-nodes. This is repeated until the root has a derivation without reduced costs. The sets
//! are the landmarks of M. Helmert and C. Domshlak, "Landmarks, critical paths and abstractions:
//! what's the difference anyway?", ICAPS 2009 (LM-cut), where an e-class is a fact and an e-node
//! an action without delete effects; they generalise the cuts of R. Wong, "A dual ascent approach
//! for Steiner tree problems on a directed graph", Mathematical Programming 28, 1984. Cycles
//! support nothing here, so cyclic selections do not weaken the bound.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::graph::{Components, Graph, Lists, NONE};

/// The relative margin for rounding in a sum of cuts.
const ROUNDING: f64 = 1e-10;

/// What the cuts prove.
pub(crate) struct Proof {
    /// No selection costs less, with the base cost of the graph.
    pub bound: f64,
    /// The reduced cost of each e-node.
    pub reduced: Vec<f64>,
    /// The work done.
    pub work: u64,
    /// Whether the search ended before `steps` did.
    pub complete: bool,
}

/// Finds cuts in `graph` until the root can be derived without reduced costs, the bound reaches
/// `upper`, or `steps` are used up.
///
/// A first run lowers heights after each cut only where they change. A second run computes all of
/// them anew, which finds better cuts, when the number of cuts in the first run says that there
/// is enough work left for it.
pub(crate) fn prove(graph: &Graph, parents: &Lists, steps: u64, upper: f64) -> Proof {
    let once = Cuts::climb_work(graph);
    let mut cuts = Cuts::new(graph, parents, graph.node_cost.clone(), upper);
    let mut bound = graph.base;
    let mut count = 0u64;
    if once <= steps {
        cuts.climb();
        while cuts.work < steps && cuts.open() && bound < upper {
            let Some(gain) = cuts.cut() else { break };
            bound += gain;
            count += 1;
        }
    }
    let complete = once <= steps && cuts.work < steps;
    let first = Proof { bound: rounded_down(bound), reduced: cuts.reduced, work: cuts.work, complete };
    let left = steps.saturating_sub(first.work);
    if once.saturating_mul(count) > left / 2 {
        return first;
    }
    let mut cuts = Cuts::new(graph, parents, graph.node_cost.clone(), upper);
    let bound = rounded_down(graph.base + cuts.raise(left, upper - graph.base));
    let work = first.work + cuts.work;
    match bound > first.bound {
        true => Proof { bound, reduced: cuts.reduced, work, complete },
        false => Proof { work, ..first },
    }
}

/// A sum of cuts, less a margin for rounding.
fn rounded_down(bound: f64) -> f64 {
    bound - bound * ROUNDING
}

/// The search for cuts over reduced costs.
struct Cuts<'a> {
    graph: &'a Graph,
    parents: &'a Lists,
    /// The reduced cost of each e-node.
    reduced: Vec<f64>,
    /// Reduced costs up to this count as none.
    tiny: f64,
    /// The height of each e-class: the least, over e-nodes, of reduced cost plus highest child.
    height: Vec<f64>,
    /// The time at which each e-class got its height in the last climb.
    time: Vec<u32>,
    /// A highest child of each e-node, the latest among equals, or [`NONE`].
    highest: Vec<u32>,
    missing: Vec<u32>,
    zone: Vec<bool>,
    border: Vec<u32>,
    heap: BinaryHeap<Reverse<(u64, u32)>>,
    /// The work done so far.
    work: u64,
}

impl<'a> Cuts<'a> {
    /// Starts from reduced costs; parts of `upper` below rounding count as zero.
    fn new(graph: &'a Graph, parents: &'a Lists, reduced: Vec<f64>, upper: f64) -> Self {
        Self {
            graph,
            parents,
            reduced,
            tiny: upper * 1e-12,
            height: vec![f64::INFINITY; graph.classes()],
            time: vec![0; graph.classes()],
            highest: vec![NONE; graph.nodes()],
            missing: vec![0; graph.nodes()],
            zone: vec![false; graph.classes()],
            border: Vec::new(),
            heap: BinaryHeap::new(),
            work: 0,
        }
    }

    /// The work of one climb.
    fn climb_work(graph: &Graph) -> u64 {
        (graph.nodes() + graph.children.len()) as u64
    }

    /// Finds cuts until there are none or they add up to `room`, and returns their sum.
    fn raise(&mut self, steps: u64, room: f64) -> f64 {
        let end = self.work.saturating_add(steps);
        let mut gain = 0.0;
        while self.work < end && gain < room {
            self.climb();
            if !self.open() {
                break;
            }
            let Some(least) = self.find_cut() else { break };
            gain += least;
        }
        gain
    }

    /// Whether every derivation of the root has a reduced cost.
    fn open(&self) -> bool {
        self.height[self.graph.root as usize] > self.tiny
    }

    /// Computes all heights.
    ///
    /// E-classes of one height are settled depth first, and the last child to be settled counts
    /// as the highest; this choice among equals makes for good cuts.
    fn climb(&mut self) {
        let graph = self.graph;
        self.work += Self::climb_work(graph);
        self.height.fill(f64::INFINITY);
        let mut time = 0;
        for n in 0..graph.nodes() {
            self.missing[n] = graph.edges_of(n).len() as u32;
            if self.missing[n] == 0 {
                self.heap.push(Reverse((self.reduced[n].to_bits(), n as u32)));
            }
        }
        let mut level = Vec::new();
        while let Some(Reverse((bits, node))) = self.heap.pop() {
            let height = f64::from_bits(bits);
            level.push(node);
            while let Some(node) = level.pop() {
                let c = graph.node_class[node as usize];
                if self.height[c as usize] < f64::INFINITY {
                    continue;
                }
                self.height[c as usize] = height;
                self.time[c as usize] = time;
                time += 1;
                for &user in self.parents.of(c as usize) {
                    let u = user as usize;
                    self.missing[u] -= 1;
                    self.highest[u] = c;
                    if self.missing[u] > 0 {
                        continue;
                    }
                    if self.reduced[u] == 0.0 {
                        level.push(user);
                    } else {
                        self.heap.push(Reverse(((height + self.reduced[u]).to_bits(), user)));
                    }
                }
            }
        }
    }

    /// Takes one cut off the reduced costs and lowers the heights that it changes.
    fn cut(&mut self) -> Option<f64> {
        let least = self.find_cut()?;
        self.sink();
        Some(least)
    }

    /// Lowers heights after the reduced costs of the e-nodes in `border` have fallen.
    ///
    /// Heights only fall, and are settled in increasing order as in Dijkstra's algorithm.
    fn sink(&mut self) {
        let (graph, parents) = (self.graph, self.parents);
        for i in 0..self.border.len() {
            self.offer_height(self.border[i] as usize);
        }
        while let Some(Reverse((bits, class))) = self.heap.pop() {
            let height = f64::from_bits(bits);
            if height >= self.height[class as usize] {
                continue;
            }
            self.height[class as usize] = height;
            for &user in parents.of(class as usize) {
                let u = user as usize;
                self.work += 1;
                if self.highest[u] == class {
                    self.work += graph.edges_of(u).len() as u64;
                    self.highest[u] = self.highest_child(u);
                    self.offer_height(u);
                }
            }
        }
    }

    /// Queues the height that `node` gives its e-class if it is lower than the present one.
    fn offer_height(&mut self, node: usize) {
        let class = self.graph.node_class[node];
        let below = match self.highest[node] {
            NONE => 0.0,
            child => self.height[child as usize],
        };
        let height = self.reduced[node] + below;
        if height < self.height[class as usize] {
            self.heap.push(Reverse((height.to_bits(), class)));
        }
    }

    /// The child of `node` with the greatest height, and among those the latest.
    fn highest_child(&self, node: usize) -> u32 {
        let mut top = (f64::NEG_INFINITY, 0, NONE);
        for &child in self.graph.children_of(node) {
            let (height, time) = (self.height[child as usize], self.time[child as usize]);
            if height > top.0 || height == top.0 && time >= top.1 {
                top = (height, time, child);
            }
        }
        top.2
    }

    /// Takes the cut below the e-classes that reach the root at no reduced cost by way of highest
    /// children off the reduced costs, leaves it in `border`, and returns its least reduced cost.
    ///
    /// Follow a selection from the root, always to the highest child: as long as the e-nodes have
    /// no reduced cost the heights do not fall, so the way cannot end at an e-node without
    /// children, and it has to leave through an e-node with a reduced cost.
    fn find_cut(&mut self) -> Option<f64> {
        let graph = self.graph;
        let mut zone = vec![graph.root];
        self.zone[graph.root as usize] = true;
        self.border.clear();
        let mut next = 0;
        while next < zone.len() {
            for n in graph.nodes_of(zone[next] as usize) {
                self.work += 1;
                // An e-node with an underivable child is in no selection.
                if self.missing[n] > 0 {
                    continue;
                }
                let child = self.highest[n];
                if self.reduced[n] > 0.0 {
                    self.border.push(n as u32);
                } else if child != NONE && !std::mem::replace(&mut self.zone[child as usize], true) {
                    zone.push(child);
                }
            }
            next += 1;
        }
        // The way can pass by an e-node whose highest child is in the zone: it goes on there.
        let inside = |child: u32| child != NONE && self.zone[child as usize];
        self.border.retain(|&n| !inside(self.highest[n as usize]));
        zone.iter().for_each(|&c| self.zone[c as usize] = false);
        let costs = self.border.iter().map(|&n| self.reduced[n as usize]);
        let least = costs.fold(f64::INFINITY, f64::min);
        if !least.is_finite() {
            return None;
        }
        for &n in &self.border {
            let rest = self.reduced[n as usize] - least;
            self.reduced[n as usize] = if rest <= self.tiny { 0.0 } else { rest };
        }
        Some(least)
    }
}

/// Marks e-nodes whose reduced costs, together with the least ones on a way to them from the root,
/// exceed `room`.
///
/// `order` lists the e-classes with children before users where cycles allow.
pub(crate) fn excluded(
    graph: &Graph,
    scc: &Components,
    order: &[u32],
    reduced: &[f64],
    room: f64,
) -> Vec<bool> {
    // Within a component the way is that to the component as a whole.
    let mut way = vec![f64::INFINITY; scc.size.len()];
    way[scc.of[graph.root as usize] as usize] = 0.0;
    let mut excluded = vec![true; graph.nodes()];
    for &class in order.iter().rev() {
        let c = class as usize;
        for n in graph.nodes_of(c) {
            let through = way[scc.of[c] as usize] + reduced[n];
            excluded[n] = through > room;
            for &child in graph.children_of(n) {
                let to = scc.of[child as usize] as usize;
                if !scc.together(c, child as usize) && !excluded[n] {
                    way[to] = way[to].min(through);
                }
            }
        }
    }
    excluded
}
