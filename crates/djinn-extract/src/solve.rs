//! The way from a problem to a selection and its bound.

use std::fmt;

use crate::check::{CheckError, check};
use crate::cuts::{excluded, prove};
use crate::graph::{Graph, NONE, derive};
use crate::prepared::Prepared;
use crate::problem::{ClassId, NodeId, Problem};
use crate::reduce::reduce;
use crate::search::Search;

/// Rounds of search, bound and exclusion.
const MAX_ROUNDS: usize = 4;

/// Another round starts when it has at most this part of the e-nodes of the last one.
const WORTHWHILE: f64 = 0.9;

/// The most steps that annealing takes per e-node of the simplified graph.
const ANNEAL_PER_NODE: u64 = 50_000;

/// The smallest relative difference to the bound that is worth working on.
const GAP_CLOSED: f64 = 1e-9;

/// How much work an extraction may do.
///
/// Work is counted in steps, never in time, so the result depends on the input alone. A step of
/// either kind takes a few nanoseconds. The steps before the first selection is there, which take
/// time nearly in proportion to the problem, are not limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps of the local search: e-classes entered or left and child references looked at.
    pub local_search_steps: u64,
    /// Steps of the lower bound: e-nodes and child references looked at in the search for cuts.
    pub bound_steps: u64,
}

impl Default for Limits {
    /// About one second in all.
    fn default() -> Self {
        Self { local_search_steps: 120_000_000, bound_steps: 80_000_000 }
    }
}

impl Limits {
    /// Limits for use within a compilation: a few tenths of a second on large graphs.
    pub fn quick() -> Self {
        Self { local_search_steps: 40_000_000, bound_steps: 20_000_000 }
    }
}

/// Why the work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The selection is proved optimal, up to a relative 1e-9.
    Optimal,
    /// All searches ended by themselves.
    Exhausted,
    /// [`Limits::local_search_steps`] was used up.
    LocalSearchSteps,
    /// [`Limits::bound_steps`] was used up.
    BoundSteps,
    /// Both limits were used up.
    AllSteps,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Optimal => "optimal",
            Self::Exhausted => "exhausted",
            Self::LocalSearchSteps => "local-search-steps",
            Self::BoundSteps => "bound-steps",
            Self::AllSteps => "all-steps",
        })
    }
}

/// What an extraction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// E-classes left after simplification.
    pub reduced_classes: usize,
    /// E-nodes left after simplification.
    pub reduced_nodes: usize,
    /// E-nodes left after the last exclusion by the bound.
    pub final_nodes: usize,
    /// Rounds of search, bound and exclusion.
    pub rounds: usize,
    /// Steps of the local search.
    pub local_search_steps: u64,
    /// Steps of the lower bound.
    pub bound_steps: u64,
}

/// A selection and a proof of how good it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Extraction {
    /// The chosen e-node of each e-class that the roots reach in the selection.
    pub choice: Vec<Option<NodeId>>,
    /// The cost of the selection, as [`check`] computes it.
    pub cost: f64,
    /// No selection costs less than this.
    pub lower_bound: f64,
    /// Why the work ended.
    pub stopped_by: StopReason,
    /// What was done.
    pub stats: Stats,
}

impl Extraction {
    /// The difference between cost and bound in relation to the cost.
    pub fn gap(&self) -> f64 {
        if self.cost > 0.0 { (self.cost - self.lower_bound) / self.cost } else { 0.0 }
    }
}

/// Why there is no selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtractError {
    /// Every selection for this root e-class is cyclic or needs an e-class without e-nodes.
    NoSelection(ClassId),
    /// The warm start is not a valid selection.
    WarmStart(CheckError),
}

impl fmt::Display for ExtractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSelection(class) => {
                write!(f, "root e-class {} has no acyclic selection", class.0)
            }
            Self::WarmStart(e) => write!(f, "the warm start is not valid: {e}"),
        }
    }
}

impl std::error::Error for ExtractError {}

/// Looks for a cheapest selection.
///
/// `warm_start` is a valid selection; the result never costs more than it.
pub fn extract(
    problem: &Problem,
    limits: &Limits,
    warm_start: Option<&[Option<NodeId>]>,
) -> Result<Extraction, ExtractError> {
    let warm_cost = match warm_start {
        Some(choice) => check(problem, choice).map_err(ExtractError::WarmStart)?,
        None => f64::INFINITY,
    };
    let graph = Graph::new(problem);
    let derived = derive(&graph, &graph.parents(), |_| true);
    let underivable = |root: &&ClassId| derived.by[root.index()] == NONE;
    if let Some(&root) = problem.roots().iter().find(underivable) {
        return Err(ExtractError::NoSelection(root));
    }
    let mut solver = Solver {
        problem,
        limits: *limits,
        best: (warm_cost, warm_start.map_or_else(Vec::new, <[_]>::to_vec)),
        bound: 0.0,
        cuts_complete: true,
        fixed: vec![None; problem.class_count()],
        stats: Stats::default(),
    };
    // Any derivation gives a valid selection, so there is one from here on.
    solver.offer(&graph, &derived.by);
    let stopped_by = solver.run(graph);
    let (cost, choice) = solver.best;
    Ok(Extraction {
        choice: reached(problem, &choice),
        cost,
        lower_bound: solver.bound.clamp(0.0, cost),
        stopped_by,
        stats: solver.stats,
    })
}

/// The entries of `choice` that the roots reach.
fn reached(problem: &Problem, choice: &[Option<NodeId>]) -> Vec<Option<NodeId>> {
    let mut kept = vec![None; choice.len()];
    let mut stack: Vec<ClassId> = problem.roots().to_vec();
    while let Some(class) = stack.pop() {
        let c = class.index();
        if let (None, Some(node)) = (kept[c], choice[c]) {
            kept[c] = Some(node);
            stack.extend_from_slice(problem.children_of(node));
        }
    }
    kept
}

/// The state of one extraction.
struct Solver<'a> {
    problem: &'a Problem,
    limits: Limits,
    /// The best selection so far.
    best: (f64, Vec<Option<NodeId>>),
    bound: f64,
    /// Whether every search for cuts has ended by itself.
    cuts_complete: bool,
    /// The e-nodes of e-classes that simplification decided.
    fixed: Vec<Option<NodeId>>,
    stats: Stats,
}

impl Solver<'_> {
    fn run(&mut self, graph: Graph) -> StopReason {
        let mut drop = vec![false; graph.nodes()];
        let mut graph = Some(graph);
        while let Some(input) = graph.take() {
            let mut fixed = self.fixed.clone();
            let reduced = reduce(input, drop, &mut fixed);
            // Exclusion keeps every selection as good as the best one, so an empty graph, which
            // can only come from rounding, leaves nothing to search.
            let Some(reduced) = reduced else { break };
            self.fixed = fixed;
            let prepared = Prepared::new(reduced);
            let size = prepared.graph.nodes();
            self.note_size(&prepared.graph);
            self.search_quickly(&prepared);
            drop = self.improve_bound(&prepared);
            if self.closed() {
                return StopReason::Optimal;
            }
            let left = drop.iter().filter(|&&d| !d).count();
            if (left as f64) < size as f64 * WORTHWHILE && self.stats.rounds < MAX_ROUNDS {
                graph = Some(prepared.graph);
            } else {
                self.search_long(&prepared);
            }
        }
        let searched = self.stats.local_search_steps < self.limits.local_search_steps;
        match (searched, self.cuts_complete) {
            _ if self.closed() => StopReason::Optimal,
            (true, true) => StopReason::Exhausted,
            (false, true) => StopReason::LocalSearchSteps,
            (true, false) => StopReason::BoundSteps,
            (false, false) => StopReason::AllSteps,
        }
    }

    fn note_size(&mut self, graph: &Graph) {
        if self.stats.rounds == 0 {
            self.stats.reduced_classes = graph.classes();
            self.stats.reduced_nodes = graph.nodes();
        }
        self.stats.rounds += 1;
        self.stats.final_nodes = graph.nodes();
    }

    fn closed(&self) -> bool {
        self.best.0 - self.bound <= self.best.0 * GAP_CLOSED
    }

    /// Takes over a selection of `graph` if it is valid and better than the best one.
    fn offer(&mut self, graph: &Graph, choice: &[u32]) {
        let mut whole = self.fixed.clone();
        graph.to_problem(choice, &mut whole);
        if let Ok(cost) = check(self.problem, &whole)
            && cost < self.best.0
        {
            self.best = (cost, whole);
        }
    }

    /// The start of the search: the best selection as far as `prepared` has it, or trees.
    fn start<'p>(&self, prepared: &'p Prepared) -> Search<'p> {
        let graph = &prepared.graph;
        let by_trees = Search::new(prepared, &prepared.tree);
        let mut choice = prepared.tree.clone();
        for (c, choice) in choice.iter_mut().enumerate() {
            let origin = graph.class_origin[c];
            let chosen = if origin == NONE { None } else { self.best.1[origin as usize] };
            let same = |&n: &usize| Some(NodeId(graph.node_origin[n])) == chosen;
            if let Some(n) = graph.nodes_of(c).find(same) {
                *choice = n as u32;
            }
        }
        match Search::checked(prepared, &choice) {
            Some(search) if search.cost <= by_trees.cost => search,
            _ => by_trees,
        }
    }

    /// Runs the descent and the systematic joint moves.
    fn search_quickly(&mut self, prepared: &Prepared) {
        let mut search = self.start(prepared);
        self.offer(&prepared.graph, &search.selection());
        let left = self.limits.local_search_steps - self.stats.local_search_steps;
        search.descend(left);
        search.sweep(left / 2);
        self.stats.local_search_steps += search.work.min(left);
        self.offer(&prepared.graph, &search.selection());
    }

    /// Spends what is left of the local search on annealing.
    fn search_long(&mut self, prepared: &Prepared) {
        let mut search = self.start(prepared);
        let left = self.limits.local_search_steps - self.stats.local_search_steps;
        let best = search.anneal(left.min(ANNEAL_PER_NODE * prepared.graph.nodes() as u64));
        self.stats.local_search_steps += search.work.min(left);
        self.offer(&prepared.graph, &best);
    }

    /// Raises the bound and returns the e-nodes that it excludes.
    fn improve_bound(&mut self, prepared: &Prepared) -> Vec<bool> {
        let Prepared { graph, scc, parents, order, .. } = prepared;
        let upper = self.best.0;
        let left = self.limits.bound_steps - self.stats.bound_steps;
        let proof = prove(graph, parents, left, upper);
        self.stats.bound_steps += proof.work.min(left);
        self.bound = self.bound.max(proof.bound);
        self.cuts_complete &= proof.complete;
        let room = upper - proof.bound + upper * GAP_CLOSED;
        excluded(graph, scc, order, &proof.reduced, room)
    }
}
