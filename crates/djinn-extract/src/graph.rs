//! The solver's own form of a problem: one root e-class and flat tables.
//!
//! The e-nodes of one e-class are numbered consecutively, children are sorted and distinct, and a
//! synthetic root e-class with a single free e-node stands for all roots of the problem.

use crate::problem::{ClassId, NodeId, Problem};

/// Marks the absence of an e-node or e-class in a table of numbers.
pub(crate) const NONE: u32 = u32::MAX;

/// An extraction problem with a single root.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    /// Where the e-nodes of each e-class start; one entry more than there are e-classes.
    pub class_start: Vec<u32>,
    /// The e-class of the [`Problem`] behind each e-class, or [`NONE`] for the synthetic root.
    pub class_origin: Vec<u32>,
    /// The e-class of each e-node.
    pub node_class: Vec<u32>,
    /// The cost of each e-node.
    pub node_cost: Vec<f64>,
    /// The e-node of the [`Problem`] behind each e-node, or [`NONE`] for the synthetic root's.
    pub node_origin: Vec<u32>,
    /// Where the children of each e-node start; one entry more than there are e-nodes.
    pub child_start: Vec<u32>,
    /// The children of all e-nodes.
    pub children: Vec<u32>,
    /// The root e-class.
    pub root: u32,
    /// A cost that every selection has in addition to those of its e-nodes.
    pub base: f64,
}

/// Collects the e-nodes of a [`Graph`], one e-class after the other.
pub(crate) struct GraphBuilder {
    graph: Graph,
}

impl GraphBuilder {
    /// Starts a graph without e-classes.
    pub fn new(root: u32, base: f64) -> Self {
        let graph = Graph {
            class_start: vec![0],
            class_origin: Vec::new(),
            node_class: Vec::new(),
            node_cost: Vec::new(),
            node_origin: Vec::new(),
            child_start: vec![0],
            children: Vec::new(),
            root,
            base,
        };
        Self { graph }
    }

    /// Adds an e-node to the current e-class; `children` are sorted and distinct.
    pub fn node(&mut self, cost: f64, origin: u32, children: impl IntoIterator<Item = u32>) {
        let g = &mut self.graph;
        g.node_class.push(g.class_origin.len() as u32);
        g.node_cost.push(cost);
        g.node_origin.push(origin);
        g.children.extend(children);
        g.child_start.push(g.children.len() as u32);
    }

    /// Closes the current e-class and starts the next one.
    pub fn end_class(&mut self, origin: u32) {
        self.graph.class_origin.push(origin);
        self.graph.class_start.push(self.graph.node_class.len() as u32);
    }

    /// Returns the graph.
    pub fn finish(self) -> Graph {
        self.graph
    }
}

impl Graph {
    /// Turns a problem into a graph; e-class `c` keeps its number and the root comes last.
    pub fn new(problem: &Problem) -> Self {
        let mut builder = GraphBuilder::new(problem.class_count() as u32, 0.0);
        let mut sorted = Vec::new();
        for c in 0..problem.class_count() as u32 {
            for &node in problem.nodes_of(ClassId(c)) {
                sorted.clear();
                sorted.extend(problem.children_of(node).iter().map(|child| child.0));
                sorted.sort_unstable();
                sorted.dedup();
                let cost = problem.cost_of(node).unwrap_or(0.0);
                builder.node(cost, node.0, sorted.iter().copied());
            }
            builder.end_class(c);
        }
        sorted.clear();
        sorted.extend(problem.roots().iter().map(|root| root.0));
        sorted.sort_unstable();
        builder.node(0.0, NONE, sorted);
        builder.end_class(NONE);
        builder.finish()
    }

    /// The number of e-classes.
    pub fn classes(&self) -> usize {
        self.class_origin.len()
    }

    /// The number of e-nodes.
    pub fn nodes(&self) -> usize {
        self.node_class.len()
    }

    /// The number of e-classes, of e-nodes and of child references.
    pub fn size(&self) -> (usize, usize, usize) {
        (self.classes(), self.nodes(), self.children.len())
    }

    /// The e-nodes of e-class `c`.
    pub fn nodes_of(&self, c: usize) -> std::ops::Range<usize> {
        self.class_start[c] as usize..self.class_start[c + 1] as usize
    }

    /// The positions in [`Graph::children`] of the children of e-node `n`.
    pub fn edges_of(&self, n: usize) -> std::ops::Range<usize> {
        self.child_start[n] as usize..self.child_start[n + 1] as usize
    }

    /// The children of e-node `n`.
    pub fn children_of(&self, n: usize) -> &[u32] {
        &self.children[self.edges_of(n)]
    }

    /// The e-nodes that use each e-class.
    pub fn parents(&self) -> Lists {
        let pairs =
            (0..self.nodes()).flat_map(|n| self.children_of(n).iter().map(move |&child| (child, n as u32)));
        Lists::new(self.classes(), pairs)
    }

    /// Translates a selection into one of the problem: an entry per e-class of the problem.
    pub fn to_problem(&self, choice: &[u32], fixed: &mut [Option<NodeId>]) {
        for (c, &n) in choice.iter().enumerate() {
            let origin = self.class_origin[c];
            if n != NONE && origin != NONE {
                fixed[origin as usize] = Some(NodeId(self.node_origin[n as usize]));
            }
        }
    }
}

/// Lists of numbers, one per key, in one flat table.
#[derive(Clone, Debug)]
pub(crate) struct Lists {
    start: Vec<u32>,
    items: Vec<u32>,
}

impl Lists {
    /// Groups `(key, item)` pairs by key, keeping their order.
    pub fn new(keys: usize, pairs: impl Iterator<Item = (u32, u32)> + Clone) -> Self {
        let mut start = vec![0u32; keys + 1];
        for (key, _) in pairs.clone() {
            start[key as usize + 1] += 1;
        }
        for k in 0..keys {
            start[k + 1] += start[k];
        }
        let mut fill = start.clone();
        let mut items = vec![0; start[keys] as usize];
        for (key, item) in pairs {
            items[fill[key as usize] as usize] = item;
            fill[key as usize] += 1;
        }
        Self { start, items }
    }

    /// The items of `key`.
    pub fn of(&self, key: usize) -> &[u32] {
        &self.items[self.start[key] as usize..self.start[key + 1] as usize]
    }
}

/// The e-classes that have a finite derivation, and how each one gets its first.
pub(crate) struct Derivation {
    /// The derivable e-classes; each comes after the children of its e-node in `by`.
    pub order: Vec<u32>,
    /// An e-node per derivable e-class whose children all come earlier, or [`NONE`].
    pub by: Vec<u32>,
}

/// Derives e-classes bottom-up from the e-nodes that `usable` admits.
pub(crate) fn derive(graph: &Graph, parents: &Lists, usable: impl Fn(usize) -> bool) -> Derivation {
    let mut by = vec![NONE; graph.classes()];
    let mut order = Vec::new();
    let mut missing: Vec<u32> = Vec::with_capacity(graph.nodes());
    for n in 0..graph.nodes() {
        let count = graph.edges_of(n).len() as u32;
        missing.push(count);
        let c = graph.node_class[n];
        if count == 0 && by[c as usize] == NONE && usable(n) {
            by[c as usize] = n as u32;
            order.push(c);
        }
    }
    let mut next = 0;
    while next < order.len() {
        for &n in parents.of(order[next] as usize) {
            missing[n as usize] -= 1;
            let c = graph.node_class[n as usize];
            if missing[n as usize] == 0 && by[c as usize] == NONE && usable(n as usize) {
                by[c as usize] = n;
                order.push(c);
            }
        }
        next += 1;
    }
    Derivation { order, by }
}

/// The strongly connected components of the e-class graph.
#[derive(Clone, Debug)]
pub(crate) struct Components {
    /// The component of each e-class; components are numbered with children first.
    pub of: Vec<u32>,
    /// The number of e-classes in each component.
    pub size: Vec<u32>,
}

impl Components {
    /// Whether `a` and `b` may lie on a common cycle.
    pub fn together(&self, a: usize, b: usize) -> bool {
        self.of[a] == self.of[b]
    }

    /// Whether e-class `c` lies on a cycle with another e-class.
    pub fn cyclic(&self, c: usize) -> bool {
        self.size[self.of[c] as usize] > 1
    }
}

/// Finds the components over the e-nodes that `usable` admits.
///
/// R. Tarjan, "Depth-first search and linear graph algorithms", SIAM J. Comput. 1(2), 1972, with
/// an explicit stack.
pub(crate) fn components(graph: &Graph, usable: impl Fn(usize) -> bool) -> Components {
    let classes = graph.classes();
    let mut index = vec![NONE; classes];
    let mut low = vec![0u32; classes];
    let mut of = vec![NONE; classes];
    let mut size = Vec::new();
    let mut open: Vec<u32> = Vec::new();
    let mut count = 0;
    let mut stack: Vec<(u32, u32, u32)> = Vec::new();
    let enter = |c: u32| {
        let first = graph.class_start[c as usize];
        (c, first, graph.child_start[first as usize])
    };
    for start in 0..classes as u32 {
        if index[start as usize] != NONE {
            continue;
        }
        index[start as usize] = count;
        low[start as usize] = count;
        count += 1;
        open.push(start);
        stack.push(enter(start));
        while let Some((c, node, edge)) = stack.last_mut() {
            let at = *c as usize;
            if *node < graph.class_start[at + 1] {
                if !usable(*node as usize) || *edge == graph.child_start[*node as usize + 1] {
                    *node += 1;
                    *edge = graph.child_start[*node as usize];
                    continue;
                }
                let child = graph.children[*edge as usize];
                *edge += 1;
                if index[child as usize] == NONE {
                    index[child as usize] = count;
                    low[child as usize] = count;
                    count += 1;
                    open.push(child);
                    stack.push(enter(child));
                } else if of[child as usize] == NONE {
                    low[at] = low[at].min(index[child as usize]);
                }
                continue;
            }
            stack.pop();
            if let Some((parent, _, _)) = stack.last() {
                low[*parent as usize] = low[*parent as usize].min(low[at]);
            }
            if low[at] == index[at] {
                let mut members = 0;
                while let Some(member) = open.pop() {
                    of[member as usize] = size.len() as u32;
                    members += 1;
                    if member as usize == at {
                        break;
                    }
                }
                size.push(members);
            }
        }
    }
    Components { of, size }
}
