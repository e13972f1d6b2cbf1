//! Choosing a body from an e-graph: the cheapest one, and one that stores few weights besides those that other bodies
//! store.

use crate::forms::{Known, stored_bytes};
use crate::language::{Graph, Head, Node};
use crate::region::{CostFn, Region};
use djinn_diag::{Result, internal};
use djinn_extract::{ClassId, Extraction, Limits, NodeId, Problem, ProblemBuilder};
use djinn_ir::graph::Graph as Body;
use djinn_ir::{OpKind, TensorType};
use egg::Id;
use std::collections::{BTreeMap, BTreeSet};

/// A body chosen from the e-graph.
pub struct Extracted {
    /// The body.
    pub body: Body,
    /// Its cost, shared work counted once.
    pub cost: f64,
    /// The cost of the input under the same model.
    pub original_cost: f64,
    /// A proved lower bound of the cost of every body in the e-graph.
    pub lower_bound: f64,
    /// Why the search for a better one ended.
    pub stop: String,
    /// What it stores besides what other bodies store.
    pub storage: Storage,
}

/// Weights of a body that no other body stores, in bytes; zero where others store nothing that the e-graph has.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Storage {
    /// Of the body that was chosen.
    pub own: f64,
    /// Of the cheapest body.
    pub own_of_cheapest: f64,
    /// Cost of the cheapest body.
    pub cheapest: f64,
}

impl Region {
    /// Chooses the cheapest body.
    ///
    /// # Errors
    /// Internal diagnostics only: the input itself is always a valid choice.
    pub fn extract(&self, cost: &CostFn<'_>, limits: &Limits) -> Result<Extracted> {
        self.extract_sharing(cost, limits, &Known::default(), 0.0)
    }

    /// Chooses a body that uses weights in the form in which other bodies store them, where that costs little.
    ///
    /// Every byte that no other body stores has a price: if all weights of the cheapest body take `B` bytes and it costs
    /// `T`, then `tolerance · T / B`. So sharing a share `s` of the weights may cost `tolerance · s · T` at most, and the
    /// body never more than `(1 + tolerance) · T`.
    ///
    /// # Errors
    /// Internal diagnostics only.
    pub fn extract_sharing(
        &self,
        cost: &CostFn<'_>,
        limits: &Limits,
        known: &Known,
        tolerance: f64,
    ) -> Result<Extracted> {
        let classes = Classes::new(&self.graph);
        let free = Candidates::new(self, &classes, cost, None)?;
        let (cheapest, result) = free.solve(limits, &self.first_of_input(&classes))?;
        let mut chosen = (cheapest, result.cost);
        let mut storage = Storage { cheapest: result.cost, ..Storage::default() };
        if !known.is_empty() {
            let all = self.storage(&classes, &chosen.0, &Known::default());
            storage.own_of_cheapest = self.storage(&classes, &chosen.0, known);
            let prices = Prices { known, per_byte: tolerance * result.cost / all.max(1.0) };
            let priced = Candidates::new(self, &classes, cost, Some(prices))?;
            let (choice, _) = priced.solve(limits, &chosen.0)?;
            storage.own = storage.own_of_cheapest;
            let cost = self.choice_cost(&classes, &choice, cost);
            // The prices see to that, but for a search that ends early.
            if cost <= result.cost * (1.0 + tolerance) {
                storage.own = self.storage(&classes, &choice, known);
                chosen = (choice, cost);
            }
        }
        let (choice, cost_of_chosen) = chosen;
        let node =
            |class: u32| choice[class as usize].map(|at| &self.graph[classes.ids[class as usize]].nodes[at]);
        Ok(Extracted {
            body: self.rebuild(&classes.ids, &classes.index, &node)?,
            cost: cost_of_chosen,
            original_cost: self.original_cost(cost),
            lower_bound: result.lower_bound.min(cost_of_chosen),
            stop: format!("{:?}", result.stopped_by),
            storage,
        })
    }

    /// The first e-node of the input in each e-class. It has operands before it, so this selection is acyclic. Where
    /// rules merged e-classes of the input it costs less than the input, never more.
    fn first_of_input(&self, classes: &Classes) -> Choice {
        let mut choice: Choice = vec![None; classes.ids.len()];
        for (id, node) in &self.original {
            let class = classes.of(&self.graph, *id);
            if choice[class].is_none() {
                let canonical = node.clone().map_children_of(&self.graph);
                choice[class] = self.graph[classes.ids[class]].nodes.iter().position(|n| *n == canonical);
            }
        }
        choice
    }

    /// The chosen e-nodes that the results need, by e-class.
    fn needed<'a>(&'a self, classes: &'a Classes, choice: &'a Choice) -> Vec<(usize, &'a Node)> {
        let mut seen = vec![false; classes.ids.len()];
        let mut stack: Vec<usize> = self.roots.iter().map(|r| classes.of(&self.graph, *r)).collect();
        let mut needed = Vec::new();
        while let Some(class) = stack.pop() {
            if std::mem::replace(&mut seen[class], true) {
                continue;
            }
            if let Some(at) = choice[class] {
                let node = &self.graph[classes.ids[class]].nodes[at];
                stack.extend(node.children.iter().map(|c| classes.of(&self.graph, *c)));
                needed.push((class, node));
            }
        }
        needed.sort_unstable_by_key(|(class, _)| *class);
        needed
    }

    fn choice_cost(&self, classes: &Classes, choice: &Choice, cost: &CostFn<'_>) -> f64 {
        self.needed(classes, choice).iter().map(|(c, n)| self.node_cost(cost, n, classes.ids[*c])).sum()
    }

    /// Bytes of weights that a selection stores and others do not.
    fn storage(&self, classes: &Classes, choice: &Choice, known: &Known) -> f64 {
        let mut stored: BTreeSet<Id> = BTreeSet::new();
        for (class, node) in self.needed(classes, choice) {
            if self.reads_weights(node, classes.ids[class]) {
                stored.extend(node.children.iter().map(|c| self.graph.find(*c)));
            }
        }
        stored.extend(self.roots.iter().map(|r| self.graph.find(*r)));
        stored.iter().filter_map(|id| self.own_bytes(*id, known)).sum()
    }

    /// Do weights among the operands have to be stored for this e-node? Those of calls are stored for the function.
    fn reads_weights(&self, node: &Node, class: Id) -> bool {
        match &node.head {
            Head::Barrier(i) => self.barriers[*i as usize].kind != OpKind::Call,
            Head::Projection(_) => false,
            Head::Argument(_) | Head::Op(..) => !self.graph[class].data.weight_only,
        }
    }

    /// Bytes that storing the value of an e-class takes, as far as others do not store it.
    fn own_bytes(&self, class: Id, known: &Known) -> Option<f64> {
        let facts = &self.graph[class].data;
        let ty: &TensorType = facts.types.first().filter(|_| facts.weight_only)?;
        let own = 1.0 - known.stored.get(&class).copied().unwrap_or(0.0);
        Some(stored_bytes(ty)? * own.max(0.0))
    }
}

/// The position of the chosen e-node in every e-class.
type Choice = Vec<Option<usize>>;

/// The e-classes of an e-graph, numbered in order.
struct Classes {
    ids: Vec<Id>,
    /// By number of the e-graph.
    index: Vec<u32>,
}

impl Classes {
    fn new(graph: &Graph) -> Classes {
        let mut ids: Vec<Id> = graph.classes().map(|c| c.id).collect();
        ids.sort_unstable();
        let mut index: Vec<u32> = vec![u32::MAX; ids.last().map_or(0, |id| usize::from(*id) + 1)];
        ids.iter().zip(0..).for_each(|(id, i)| index[usize::from(*id)] = i);
        Classes { ids, index }
    }

    fn of(&self, graph: &Graph, id: Id) -> usize {
        self.index[usize::from(graph.find(id))] as usize
    }
}

/// What storing weights costs.
#[derive(Clone, Copy)]
struct Prices<'a> {
    /// What others store: free, in the form that they store.
    known: &'a Known,
    /// Of everything else.
    per_byte: f64,
}

/// The problem of choosing from an e-graph. Where weights have a price, what reads one needs a node besides that costs
/// the price, once for all that read it.
struct Candidates {
    problem: Problem,
    /// E-classes of the e-graph; those of the problem that stand for storing come behind them.
    classes: usize,
    /// Nodes of the problem by e-class and position; none where a stored form leaves no choice.
    ids: Vec<Vec<Option<NodeId>>>,
    /// The only node of every e-class that stands for storing, in their order.
    storing: Vec<NodeId>,
}

impl Candidates {
    fn new(
        region: &Region,
        classes: &Classes,
        cost: &CostFn<'_>,
        prices: Option<Prices<'_>>,
    ) -> Result<Candidates> {
        let graph = &region.graph;
        // By e-class: the e-class that stands for storing it.
        let mut stores: BTreeMap<usize, (ClassId, f64)> = BTreeMap::new();
        for (class, id) in classes.ids.iter().enumerate() {
            let price = prices.and_then(|p| Some(region.own_bytes(*id, p.known)? * p.per_byte));
            if let Some(price) = price.filter(|p| *p > 0.0) {
                stores.insert(class, (ClassId((classes.ids.len() + stores.len()) as u32), price));
            }
        }
        let operand = |class: usize, reads: bool| match stores.get(&class) {
            Some((storing, _)) if reads => *storing,
            _ => ClassId(class as u32),
        };
        let mut builder = ProblemBuilder::new(classes.ids.len() + stores.len());
        let mut ids: Vec<Vec<Option<NodeId>>> = Vec::with_capacity(classes.ids.len());
        for (class, id) in classes.ids.iter().enumerate() {
            let nodes = &graph[*id].nodes;
            let only = prices.and_then(|p| p.known.nodes.get(id)).filter(|only| nodes.contains(only));
            let mut here = Vec::with_capacity(nodes.len());
            for node in nodes {
                if only.is_some_and(|only| only != node) {
                    here.push(None);
                    continue;
                }
                let reads = region.reads_weights(node, *id);
                let children = node.children.iter().map(|c| operand(classes.of(graph, *c), reads));
                here.push(Some(builder.node(
                    ClassId(class as u32),
                    region.node_cost(cost, node, *id),
                    children,
                )));
            }
            ids.push(here);
        }
        let storing = stores
            .iter()
            .map(|(class, (storing, price))| builder.node(*storing, *price, [ClassId(*class as u32)]))
            .collect();
        let mut roots: Vec<usize> = region.roots.iter().map(|r| classes.of(graph, *r)).collect();
        roots.sort_unstable();
        roots.dedup();
        roots.iter().for_each(|r| builder.root(operand(*r, true)));
        let problem = builder.finish().map_err(|e| internal("extract.problem", e.to_string()))?;
        Ok(Candidates { problem, classes: classes.ids.len(), ids, storing })
    }

    /// Solves the problem from a start, which counts only if it is a selection of this problem.
    fn solve(&self, limits: &Limits, start: &Choice) -> Result<(Choice, Extraction)> {
        let of_class = |(class, at): (usize, &Option<usize>)| {
            let ids = &self.ids[class];
            // Where a stored form leaves no choice, it is taken.
            at.and_then(|at| ids[at])
                .or_else(|| ids.iter().flatten().next().copied().filter(|_| ids.contains(&None)))
        };
        let start: Vec<Option<NodeId>> =
            start.iter().enumerate().map(of_class).chain(self.storing.iter().copied().map(Some)).collect();
        let start = restrict(&self.problem, &start);
        let start = djinn_extract::check(&self.problem, &start).is_ok().then_some(start);
        let result = djinn_extract::extract(&self.problem, limits, start.as_deref())
            .map_err(|e| internal("extract.failed", e.to_string()))?;
        djinn_extract::check(&self.problem, &result.choice)
            .map_err(|e| internal("extract.check", e.to_string()))?;
        let position = |class: usize| {
            let chosen = result.choice[class]?;
            self.ids[class].iter().position(|id| *id == Some(chosen))
        };
        Ok(((0..self.classes).map(position).collect(), result))
    }
}

/// Keeps of a selection what the roots need.
fn restrict(problem: &djinn_extract::Problem, choice: &[Option<NodeId>]) -> Vec<Option<NodeId>> {
    let mut out: Vec<Option<NodeId>> = vec![None; choice.len()];
    let mut stack: Vec<ClassId> = problem.roots().to_vec();
    while let Some(class) = stack.pop() {
        if out[class.index()].is_some() {
            continue;
        }
        if let Some(node) = choice[class.index()] {
            out[class.index()] = Some(node);
            stack.extend_from_slice(problem.children_of(node));
        }
    }
    out
}

trait Canonical {
    fn map_children_of(self, graph: &Graph) -> Self;
}

impl Canonical for Node {
    fn map_children_of(mut self, graph: &Graph) -> Self {
        self.children.iter_mut().for_each(|c| *c = graph.find(*c));
        self
    }
}
