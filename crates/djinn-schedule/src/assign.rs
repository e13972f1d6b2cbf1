//! The best schedule within a budget of streams.

use crate::bound::lower_bound;
use crate::clocks::{Lanes, check_length};
use crate::dag::Dag;
use crate::error::ScheduleError;
use crate::events::{Event, fewest_events};
use crate::improve::improve;
use crate::in_order::earliest_finish;
use crate::limits::{Limits, Stop};
use crate::list::{Builder, Priorities, Recipe};
use crate::simulate::{Node, Timeline, check_nodes, run};
use crate::unlimited::assign_unlimited;

/// Streams and events must save at least this part of the time on one stream: below it, the
/// simulation is not precise enough to prefer them, and buffers that may be used at the same time
/// cannot share memory.
const MIN_GAIN: f64 = 0.02;

/// A schedule with more streams or events must save at least this part of the time.
const MIN_STEP: f64 = 0.001;

/// A schedule within this part of the lower bound is not improved further.
pub(crate) const CLOSE_TO_BOUND: f64 = 0.005;

/// Chains that take less than this many events are kept on a stream of their predecessors, in the
/// second half of the list schedules tried: leaving it and coming back costs two.
const EVENTS_WORTH_A_STREAM: f64 = 2.0;

/// The most streams of a group that are ever used.
const MAX_STREAMS: usize = 64;

/// Which orders of launching are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Any order that keeps the dependences.
    #[default]
    Free,
    /// The order of [`Dag::topological`]: the numbering, where that is topological.
    Given,
}

/// What [`assign`] may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The most streams of each group of nodes; above 64 counts as 64.
    pub groups: Vec<usize>,
    /// What each wait for an event costs the waiting stream.
    pub sync_seconds: f64,
    /// Which orders of launching are allowed.
    pub order: Order,
}

impl Options {
    /// One group with at most `max_streams` streams.
    pub fn new(max_streams: usize, sync_seconds: f64) -> Options {
        Options { groups: vec![max_streams], sync_seconds, order: Order::Free }
    }
}

/// Streams, events and an order of launching.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The stream of every node; streams of different groups have different numbers, and the
    /// numbers of a group are consecutive.
    pub stream: Vec<usize>,
    /// The stream of every node within its group, numbered by first use.
    pub number: Vec<usize>,
    /// How many streams each group uses.
    pub streams: Vec<usize>,
    /// The order of launching.
    pub order: Vec<usize>,
    /// The fewest events for these streams and this order.
    pub events: Vec<Event>,
    /// Simulated seconds.
    pub makespan: f64,
    /// Simulated seconds with one stream a group.
    pub sequential: f64,
    /// No schedule takes less: between nodes that everything passes through, the critical path or
    /// the work.
    pub bound: f64,
    /// How many schedules were simulated.
    pub evaluations: usize,
    /// The bound that stopped the search.
    pub stop: Option<Stop>,
}

/// A schedule under consideration.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) order: Vec<usize>,
    pub(crate) stream: Vec<usize>,
    pub(crate) events: Vec<Event>,
    pub(crate) timeline: Timeline,
}

/// What is to be scheduled, and the count of simulations so far.
pub(crate) struct Search<'a> {
    pub(crate) dag: &'a Dag,
    pub(crate) nodes: &'a [Node],
    pub(crate) options: &'a Options,
    pub(crate) limits: &'a Limits,
    pub(crate) bound: f64,
    pub(crate) evaluations: usize,
    pub(crate) stop: Option<Stop>,
}

impl Search<'_> {
    /// The first stream of `group`.
    pub(crate) fn first_stream(&self, group: usize) -> usize {
        self.options.groups[..group].iter().sum()
    }

    /// The events and the time of streams under an order that keeps the dependences.
    pub(crate) fn evaluate(
        &mut self,
        order: Vec<usize>,
        stream: Vec<usize>,
    ) -> Result<Candidate, ScheduleError> {
        self.evaluations += 1;
        let lanes = Lanes::new(self.dag.len(), &order, &stream)?;
        let found = fewest_events(self.dag, &order, &lanes, self.limits);
        self.stop = self.stop.or(found.stop);
        let timeline = run(self.nodes, &order, &lanes, &found.events, self.options.sync_seconds);
        Ok(Candidate { order, stream, events: found.events, timeline })
    }
}

/// Looks for the fastest schedule of at most [`Options::groups`] streams, by simulated time.
///
/// Nodes that fill their device gain nothing from company, and each event costs time: one stream
/// is the answer unless more save at least 2 %. Otherwise list schedules with 2, 3, … streams are
/// simulated, and the best one is improved by moving chains that hold up its critical path.
pub fn assign(
    dag: &Dag,
    nodes: &[Node],
    options: &Options,
    limits: &Limits,
) -> Result<Schedule, ScheduleError> {
    check_length("nodes with weights", nodes.len(), dag.len())?;
    check_nodes(nodes, options.sync_seconds)?;
    if let Some(node) = nodes.iter().position(|n| options.groups.get(n.group).is_none_or(|&s| s == 0)) {
        return Err(ScheduleError::Group { node });
    }
    let groups = options.groups.iter().map(|&s| s.min(MAX_STREAMS)).collect();
    let options = &Options { groups, ..options.clone() };
    let priorities = Priorities::new(dag, nodes);
    let bound = lower_bound(dag, &priorities, nodes, options);
    let mut search = Search { dag, nodes, options, limits, bound, evaluations: 0, stop: None };
    let one_each = nodes.iter().map(|n| search.first_stream(n.group)).collect();
    let sequential = search.evaluate(dag.topological().to_vec(), one_each)?;
    let slowest = sequential.timeline.makespan;
    let most = options.groups.iter().copied().max().unwrap_or(1);
    let mut best = sequential;
    if most > 1 && slowest - bound > MIN_GAIN * slowest {
        let mut found = best_concurrent(&mut search, &priorities, most)?;
        // Where a first schedule gains next to nothing, moving chains hardly ever makes it worth having.
        if found.timeline.makespan < slowest * (1.0 - MIN_GAIN / 2.0) {
            found = improve(&mut search, found)?;
        }
        if found.timeline.makespan < slowest * (1.0 - MIN_GAIN) {
            best = found;
        }
    }
    Ok(finish(&search, best, slowest))
}

/// The best of the list schedules and of full concurrency.
fn best_concurrent(
    search: &mut Search,
    priorities: &Priorities,
    most: usize,
) -> Result<Candidate, ScheduleError> {
    let mut best = concurrent_without_budget(search)?;
    let worth = EVENTS_WORTH_A_STREAM * search.options.sync_seconds;
    let mut tried: Vec<Vec<usize>> = Vec::new();
    for budget in stream_budgets(most) {
        let streams: Vec<usize> = search.options.groups.iter().map(|&s| s.min(budget)).collect();
        let full = tried.len();
        for worth_a_stream in if worth > 0.0 { vec![worth, 0.0] } else { vec![0.0] } {
            let recipe = Recipe { streams: streams.clone(), worth_a_stream };
            let list =
                Builder::new(search.dag, search.nodes, priorities, &recipe, search.options.sync_seconds)
                    .build();
            let stream = renumber(search, &recipe, list.stream);
            let order = match search.options.order {
                Order::Free => list.order,
                Order::Given => search.dag.topological().to_vec(),
            };
            try_candidate(search, &mut best, &mut tried, order, stream)?;
        }
        if search.options.order == Order::Given {
            let stream = earliest_finish(search, &streams);
            try_candidate(search, &mut best, &mut tried, search.dag.topological().to_vec(), stream)?;
        }
        let near = |b: &Candidate| b.timeline.makespan <= search.bound * (1.0 + CLOSE_TO_BOUND);
        if tried.len() == full || best.as_ref().is_some_and(near) {
            break;
        }
    }
    best.ok_or(ScheduleError::Group { node: 0 })
}

/// Simulates a schedule unless one with the same streams was; a larger budget may change nothing.
fn try_candidate(
    search: &mut Search,
    best: &mut Option<Candidate>,
    tried: &mut Vec<Vec<usize>>,
    order: Vec<usize>,
    stream: Vec<usize>,
) -> Result<(), ScheduleError> {
    if tried.contains(&stream) {
        return Ok(());
    }
    tried.push(stream.clone());
    let found = search.evaluate(order, stream)?;
    if best.as_ref().is_none_or(|b| is_better(&found, b)) {
        *best = Some(found);
    }
    Ok(())
}

/// The numbers of streams to try: all small ones, then doubling, then the whole budget.
fn stream_budgets(most: usize) -> Vec<usize> {
    let mut budgets: Vec<usize> = (2..=most.min(4)).collect();
    let mut next = 8;
    while next < most {
        budgets.push(next);
        next *= 2;
    }
    if most > 4 {
        budgets.push(most);
    }
    budgets
}

/// From the recipe's numbering of streams to that of the whole budget.
fn renumber(search: &Search, recipe: &Recipe, mut stream: Vec<usize>) -> Vec<usize> {
    let mut shift = Vec::new();
    let mut first = 0;
    for (group, streams) in recipe.streams.iter().enumerate() {
        shift.push(search.first_stream(group) - first);
        first += streams;
    }
    for (node, stream) in stream.iter_mut().enumerate() {
        *stream += shift[search.nodes[node].group];
    }
    stream
}

/// Full concurrency with the fewest events, if it fits the budget.
fn concurrent_without_budget(search: &mut Search) -> Result<Option<Candidate>, ScheduleError> {
    let [budget] = search.options.groups[..] else { return Ok(None) };
    if search.dag.len() > search.limits.closure_nodes {
        return Ok(None);
    }
    let assignment = assign_unlimited(search.dag, search.limits);
    if assignment.streams > budget {
        return Ok(None);
    }
    search.evaluate(search.dag.topological().to_vec(), assignment.stream).map(Some)
}

/// Whether `a` is to be preferred to `b`, which was found before it.
pub(crate) fn is_better(a: &Candidate, b: &Candidate) -> bool {
    let (time, than) = (a.timeline.makespan, b.timeline.makespan);
    time < than * (1.0 - MIN_STEP) || (time <= than && a.events.len() < b.events.len())
}

fn finish(search: &Search, best: Candidate, sequential: f64) -> Schedule {
    let groups = search.options.groups.len();
    let mut order = best.order;
    if search.options.order == Order::Free {
        let start = &best.timeline.start;
        // Stable: what starts at the same time keeps its order.
        order.sort_by(|&a, &b| start[a].total_cmp(&start[b]));
    }
    let budget: usize = search.options.groups.iter().sum();
    let mut number_of = vec![usize::MAX; budget];
    let mut streams = vec![0; groups];
    for &node in &order {
        let (group, number) = (search.nodes[node].group, &mut number_of[best.stream[node]]);
        if *number == usize::MAX {
            *number = streams[group];
            streams[group] += 1;
        }
    }
    let number: Vec<usize> = best.stream.iter().map(|&s| number_of[s]).collect();
    let first: Vec<usize> = (0..groups).map(|g| streams[..g].iter().sum()).collect();
    let stream = number.iter().zip(search.nodes).map(|(&n, node)| first[node.group] + n).collect();
    Schedule {
        stream,
        number,
        streams,
        order,
        events: best.events,
        makespan: best.timeline.makespan,
        sequential,
        bound: search.bound,
        evaluations: search.evaluations,
        stop: search.stop,
    }
}
