//! The events between streams, and what they order.

use crate::clocks::{Clocks, Lanes};
use crate::dag::Dag;
use crate::error::ScheduleError;
use crate::limits::{Limits, Stop};

/// The stream of `before` waits, in front of `before`, until `after` is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// The node after which the event is recorded.
    pub after: usize,
    /// The node before which it is waited for, on another stream.
    pub before: usize,
}

/// The events of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synchronisation {
    /// In the launch order of `before`; one recorded event may be waited for several times.
    pub events: Vec<Event>,
    /// The bound because of which there may be more events than needed.
    pub stop: Option<Stop>,
}

impl Synchronisation {
    /// How many events are recorded: the different nodes after which one is.
    pub fn records(&self) -> usize {
        let mut after: Vec<usize> = self.events.iter().map(|e| e.after).collect();
        after.sort_unstable();
        after.dedup();
        after.len()
    }
}

/// The fewest events that order every dependence between streams and order nothing else.
///
/// `order` is the order of launching, in which each stream runs its nodes one after another. The
/// events are the edges between streams in the transitive reduction of the dependences together
/// with the order within each stream. Takes O(nodes × streams + dependences × streams²) at most.
/// Above [`Limits::clock_cells`] only events that earlier waits of the same stream imply are left
/// out.
pub fn synchronise(
    dag: &Dag,
    order: &[usize],
    stream: &[usize],
    limits: &Limits,
) -> Result<Synchronisation, ScheduleError> {
    let lanes = Lanes::new(dag.len(), order, stream)?;
    check_order(dag, order)?;
    Ok(fewest_events(dag, order, &lanes, limits))
}

/// [`synchronise`] for an order that was checked.
pub(crate) fn fewest_events(dag: &Dag, order: &[usize], lanes: &Lanes, limits: &Limits) -> Synchronisation {
    if lanes.lanes <= 1 {
        return Synchronisation { events: Vec::new(), stop: None };
    }
    if dag.len().saturating_mul(lanes.lanes) > limits.clock_cells {
        let events = latest_per_stream(dag, order, lanes);
        return Synchronisation { events, stop: Some(Stop::ClockCells) };
    }
    Synchronisation { events: reduced_events(dag, order, lanes), stop: None }
}

fn check_order(dag: &Dag, order: &[usize]) -> Result<(), ScheduleError> {
    let mut place = vec![0; dag.len()];
    for (i, &node) in order.iter().enumerate() {
        place[node] = i;
    }
    match dag.edges().find(|&(u, v)| place[u] >= place[v]) {
        Some((_, node)) => Err(ScheduleError::Order { node }),
        None => Ok(()),
    }
}

fn reduced_events(dag: &Dag, order: &[usize], lanes: &Lanes) -> Vec<Event> {
    let mut clocks = Clocks::new(dag.len(), lanes.lanes);
    let mut last = vec![usize::MAX; lanes.lanes];
    let mut latest = Latest::new(lanes.lanes);
    let mut events = Vec::new();
    for &node in order {
        let own = lanes.of(node);
        if last[own] != usize::MAX {
            clocks.follow(node, last[own], lanes);
        }
        last[own] = node;
        latest.collect(dag, node, lanes);
        latest.nodes.retain(|&p| clocks.row(node)[lanes.of(p)] < lanes.position[p]);
        let first = events.len();
        for &p in &latest.nodes {
            let implied = |q: &usize| *q != p && clocks.row(*q)[lanes.of(p)] >= lanes.position[p];
            if !latest.nodes.iter().any(implied) {
                events.push(Event { after: p, before: node });
            }
        }
        for event in &events[first..] {
            clocks.follow(node, event.after, lanes);
        }
    }
    events
}

/// The latest predecessor on every other stream, by stream.
struct Latest {
    nodes: Vec<usize>,
    /// Where the node of a stream stands in `nodes`; a guess that is checked, so it is never reset.
    slot: Vec<usize>,
}

impl Latest {
    fn new(lanes: usize) -> Latest {
        Latest { nodes: Vec::new(), slot: vec![usize::MAX; lanes] }
    }

    fn collect(&mut self, dag: &Dag, node: usize, lanes: &Lanes) {
        self.nodes.clear();
        for &p in dag.predecessors(node).iter().filter(|&&p| lanes.of(p) != lanes.of(node)) {
            let slot = &mut self.slot[lanes.of(p)];
            match self.nodes.get_mut(*slot) {
                Some(known) if lanes.of(*known) == lanes.of(p) => {
                    if lanes.position[p] > lanes.position[*known] {
                        *known = p;
                    }
                }
                _ => {
                    *slot = self.nodes.len();
                    self.nodes.push(p);
                }
            }
        }
        self.nodes.sort_unstable_by_key(|&p| lanes.of(p));
    }
}

/// One event per other stream that holds a predecessor, unless the stream waited for it before.
fn latest_per_stream(dag: &Dag, order: &[usize], lanes: &Lanes) -> Vec<Event> {
    let mut waited = std::collections::BTreeMap::new();
    let mut events = Vec::new();
    for &node in order {
        let mut latest = std::collections::BTreeMap::new();
        for &p in dag.predecessors(node).iter().filter(|&&p| lanes.of(p) != lanes.of(node)) {
            let known = latest.entry(lanes.of(p)).or_insert(p);
            if lanes.position[p] > lanes.position[*known] {
                *known = p;
            }
        }
        for (lane, p) in latest {
            let seen = waited.entry((lanes.of(node), lane)).or_insert(0);
            if lanes.position[p] > *seen {
                *seen = lanes.position[p];
                events.push(Event { after: p, before: node });
            }
        }
    }
    events
}

/// What is complete before what starts, under streams and events.
#[derive(Debug, Clone)]
pub struct HappensBefore {
    lanes: Lanes,
    knowledge: Knowledge,
}

/// How the order across streams is known.
#[derive(Debug, Clone)]
enum Knowledge {
    /// Exactly.
    Clocks(Clocks),
    /// Only what one event says by itself: pairs (after, before), sorted.
    Events(Vec<Event>),
}

impl HappensBefore {
    /// Whether `first` is certainly complete before `second` starts.
    pub fn before(&self, first: usize, second: usize) -> bool {
        let (lane, position) = (self.lanes.of(first), self.lanes.position[first]);
        if lane == self.lanes.of(second) {
            return position < self.lanes.position[second];
        }
        match &self.knowledge {
            Knowledge::Clocks(clocks) => clocks.row(second)[lane] >= position,
            Knowledge::Events(events) => {
                events.binary_search(&Event { after: first, before: second }).is_ok()
            }
        }
    }

    /// Whether neither node is complete before the other starts: they may run at the same time.
    pub fn concurrent(&self, a: usize, b: usize) -> bool {
        a != b && !self.before(a, b) && !self.before(b, a)
    }

    /// How many streams there are.
    pub fn streams(&self) -> usize {
        self.lanes.lanes
    }

    /// The stream of `node`, numbered densely from 0, in the order of the given numbers.
    pub fn stream(&self, node: usize) -> usize {
        self.lanes.of(node)
    }

    /// The position of `node` in its stream, from 1.
    pub fn position(&self, node: usize) -> usize {
        self.lanes.position[node] as usize
    }

    /// How many nodes of each stream are complete before `node` starts; `None` if the order is
    /// known only in part ([`HappensBefore::is_exact`]).
    pub fn clock(&self, node: usize) -> Option<&[u32]> {
        match &self.knowledge {
            Knowledge::Clocks(clocks) => Some(clocks.row(node)),
            Knowledge::Events(_) => None,
        }
    }

    /// Whether [`HappensBefore::before`] knows every order that streams and events make; if not,
    /// it errs towards "may run at the same time".
    pub fn is_exact(&self) -> bool {
        matches!(self.knowledge, Knowledge::Clocks(_))
    }
}

/// What streams and events order: each stream runs its nodes in `order`.
///
/// Above [`Limits::clock_cells`] the answer is not exact but safe.
pub fn happens_before(
    order: &[usize],
    stream: &[usize],
    events: &[Event],
    limits: &Limits,
) -> Result<HappensBefore, ScheduleError> {
    let nodes = order.len();
    let lanes = Lanes::new(nodes, order, stream)?;
    if let Some(e) = events.iter().find(|e| e.after >= nodes || e.before >= nodes) {
        return Err(ScheduleError::NodeOutOfRange { node: e.after.max(e.before), nodes });
    }
    let mut sorted: Vec<Event> = events.to_vec();
    if nodes.saturating_mul(lanes.lanes) > limits.clock_cells {
        sorted.sort_unstable();
        return Ok(HappensBefore { lanes, knowledge: Knowledge::Events(sorted) });
    }
    sorted.sort_unstable_by_key(|e| (e.before, e.after));
    let mut seen = vec![false; nodes];
    let mut last = vec![usize::MAX; lanes.lanes];
    let mut clocks = Clocks::new(nodes, lanes.lanes);
    for &node in order {
        let own = lanes.of(node);
        if last[own] != usize::MAX {
            clocks.follow(node, last[own], &lanes);
        }
        last[own] = node;
        let first = sorted.partition_point(|e| e.before < node);
        for event in sorted[first..].iter().take_while(|e| e.before == node) {
            if !seen[event.after] {
                return Err(ScheduleError::Order { node });
            }
            clocks.follow(node, event.after, &lanes);
        }
        seen[node] = true;
    }
    Ok(HappensBefore { lanes, knowledge: Knowledge::Clocks(clocks) })
}
