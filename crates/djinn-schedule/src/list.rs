//! List scheduling: the ready node with the longest way to the end first, on the stream where it
//! waits for the fewest events.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::dag::Dag;
use crate::simulate::{Device, Node};

/// What a device is filled to before nothing more is started beside what runs.
const FULL: f64 = 0.999;

/// How many ready nodes that would rather wait are passed over at a time.
const LOOK_AHEAD: usize = 16;

/// One way to build a list schedule.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// How many streams each group may use.
    pub(crate) streams: Vec<usize>,
    /// A chain of nodes that takes less than this stays on a stream of its predecessors.
    pub(crate) worth_a_stream: f64,
}

/// A list schedule.
#[derive(Debug, Clone)]
pub(crate) struct List {
    /// The order of starting.
    pub(crate) order: Vec<usize>,
    /// The stream of every node; streams of different groups have different numbers.
    pub(crate) stream: Vec<usize>,
}

/// Facts about the nodes that every list schedule uses.
#[derive(Debug, Clone)]
pub(crate) struct Priorities {
    /// Seconds from the start of the node to the end, without streams or sharing.
    pub(crate) to_end: Vec<f64>,
    /// Seconds of the chain that begins at the node: nodes with one way in and one way out.
    chain: Vec<f64>,
}

impl Priorities {
    pub(crate) fn new(dag: &Dag, nodes: &[Node]) -> Priorities {
        let mut to_end = vec![0.0f64; dag.len()];
        let mut chain = vec![0.0f64; dag.len()];
        for &node in dag.topological().iter().rev() {
            let successors = dag.successors(node);
            let longest = successors.iter().map(|&s| to_end[s]).fold(0.0, f64::max);
            to_end[node] = nodes[node].seconds + longest;
            chain[node] = nodes[node].seconds;
            if let [next] = successors
                && dag.predecessors(*next).len() == 1
                && nodes[*next].group == nodes[node].group
            {
                chain[node] += chain[*next];
            }
        }
        Priorities { to_end, chain }
    }

    /// The length of the critical path.
    pub(crate) fn critical_path(&self) -> f64 {
        self.to_end.iter().copied().fold(0.0, f64::max)
    }
}

/// A ready node: the longest way to the end, then the smallest number, first.
#[derive(Debug, Clone, Copy)]
struct Ready {
    to_end: f64,
    node: usize,
}

impl PartialEq for Ready {
    fn eq(&self, other: &Ready) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ready {}

impl PartialOrd for Ready {
    fn partial_cmp(&self, other: &Ready) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ready {
    fn cmp(&self, other: &Ready) -> Ordering {
        self.to_end.total_cmp(&other.to_end).then(other.node.cmp(&self.node))
    }
}

/// A stream while a list schedule is built.
#[derive(Debug, Clone, Default)]
struct Lane {
    last: Option<usize>,
    length: usize,
    busy: bool,
    /// How far this stream knows every other stream to be.
    seen: Vec<usize>,
}

/// A list schedule under way.
pub(crate) struct Builder<'a> {
    dag: &'a Dag,
    nodes: &'a [Node],
    priorities: &'a Priorities,
    recipe: &'a Recipe,
    sync_seconds: f64,
    /// The first stream of every group.
    first: Vec<usize>,
    lanes: Vec<Lane>,
    devices: Vec<Device>,
    ready: Vec<BinaryHeap<Ready>>,
    missing: Vec<usize>,
    /// How many successors of each node have not started.
    wanted: Vec<usize>,
    position: Vec<usize>,
    list: List,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(
        dag: &'a Dag,
        nodes: &'a [Node],
        priorities: &'a Priorities,
        recipe: &'a Recipe,
        sync_seconds: f64,
    ) -> Builder<'a> {
        let mut first = Vec::with_capacity(recipe.streams.len());
        let mut count = 0;
        for streams in &recipe.streams {
            first.push(count);
            count += streams;
        }
        let lane = Lane { seen: vec![0; count], ..Lane::default() };
        Builder {
            dag,
            nodes,
            priorities,
            recipe,
            sync_seconds,
            first,
            lanes: vec![lane; count],
            devices: vec![Device::default(); recipe.streams.len()],
            ready: vec![BinaryHeap::new(); recipe.streams.len()],
            missing: (0..dag.len()).map(|v| dag.predecessors(v).len()).collect(),
            wanted: (0..dag.len()).map(|v| dag.successors(v).len()).collect(),
            position: vec![0; dag.len()],
            list: List { order: Vec::with_capacity(dag.len()), stream: vec![0; dag.len()] },
        }
    }

    pub(crate) fn build(mut self) -> List {
        for node in (0..self.dag.len()).filter(|&v| self.dag.predecessors(v).is_empty()) {
            self.push_ready(node);
        }
        loop {
            for group in 0..self.devices.len() {
                self.start_ready(group);
            }
            let next = |(g, d): (usize, &Device)| d.next_in().map(|s| (s, g));
            let earliest = self.devices.iter().enumerate().filter_map(next);
            let Some((seconds, group)) = earliest.min_by(|a, b| a.0.total_cmp(&b.0)) else { break };
            for device in &mut self.devices {
                device.advance(seconds);
            }
            self.end_next(group);
        }
        self.list
    }

    fn push_ready(&mut self, node: usize) {
        let ready = Ready { to_end: self.priorities.to_end[node], node };
        self.ready[self.nodes[node].group].push(ready);
    }

    fn end_next(&mut self, group: usize) {
        let Some(node) = self.devices[group].end_next(self.nodes) else { return };
        self.lanes[self.list.stream[node]].busy = false;
        let dag = self.dag;
        for &next in dag.successors(node) {
            self.missing[next] -= 1;
            if self.missing[next] == 0 {
                self.push_ready(next);
            }
        }
    }

    /// Starts ready nodes of `group` while a stream is idle and the device is not full.
    fn start_ready(&mut self, group: usize) {
        let mut later = Vec::new();
        while later.len() < LOOK_AHEAD
            && self.devices[group].share() < FULL
            && self.idle(group).next().is_some()
            && let Some(ready) = self.ready[group].pop()
        {
            match self.choose_lane(group, ready.node) {
                Some(lane) => self.start(ready.node, lane),
                None => later.push(ready),
            }
        }
        self.ready[group].extend(later);
    }

    fn idle(&self, group: usize) -> impl Iterator<Item = usize> + '_ {
        let first = self.first[group];
        (first..first + self.recipe.streams[group]).filter(|&l| !self.lanes[l].busy)
    }

    /// The idle stream on which `node` waits least, or none if it should wait for a busy one.
    fn choose_lane(&self, group: usize, node: usize) -> Option<usize> {
        let predecessors = self.dag.predecessors(node);
        let follows = |l: &usize| self.lanes[*l].last.is_some_and(|p| predecessors.binary_search(&p).is_ok());
        let key = |l: &usize| {
            let last = self.lanes[*l].last;
            let own = usize::from(follows(l));
            let wanted_by_others = last.map_or(0, |p| self.wanted[p] - own.min(self.wanted[p]));
            (self.waits(*l, node), own == 0 && wanted_by_others > 0, own == 0, *l)
        };
        let best = self.idle(group).min_by_key(key)?;
        let own_lane_is_busy = predecessors.iter().any(|&p| {
            let lane = &self.lanes[self.list.stream[p]];
            self.nodes[p].group == group && lane.busy
        });
        let small = self.priorities.chain[node] < self.recipe.worth_a_stream;
        (follows(&best) || !(small && own_lane_is_busy)).then_some(best)
    }

    /// How many events `node` would wait for on `lane`.
    fn waits(&self, lane: usize, node: usize) -> usize {
        let mut lanes = Vec::new();
        for &p in self.dag.predecessors(node) {
            let other = self.list.stream[p];
            let known = other == lane || self.position[p] <= self.lanes[lane].seen[other];
            if !known && !lanes.contains(&other) {
                lanes.push(other);
            }
        }
        lanes.len()
    }

    fn start(&mut self, node: usize, lane: usize) {
        let waits = self.waits(lane, node);
        let dag = self.dag;
        for &p in dag.predecessors(node) {
            let other = self.list.stream[p];
            let seen = &mut self.lanes[lane].seen[other];
            *seen = (*seen).max(self.position[p]);
            self.wanted[p] -= 1;
        }
        let state = &mut self.lanes[lane];
        state.last = Some(node);
        state.busy = true;
        state.length += 1;
        self.position[node] = state.length;
        self.list.stream[node] = lane;
        self.list.order.push(node);
        let Node { seconds, share, group } = self.nodes[node];
        self.devices[group].start(node, seconds + waits as f64 * self.sync_seconds, share);
    }
}
