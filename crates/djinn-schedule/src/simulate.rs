//! What a schedule takes: a discrete-event simulation.
//!
//! Nodes of one stream run one after another. Nodes of one group that run at the same time share
//! its device: each alone uses its `share`; where the shares add up to S above 1, all run 1/S as
//! fast (processor sharing). Each wait for an event occupies the waiting stream, not the device,
//! for a fixed time after the last of the events. That is how the simulator of plans counts, where
//! the model and its reasons stand (`djinn_plan::simulate`).

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::clocks::{Lanes, check_length};
use crate::error::ScheduleError;
use crate::events::Event;

/// The greatest number of a group.
const MAX_GROUP: usize = 1 << 16;

/// What a node asks of its device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Node {
    /// How long it takes on its own.
    pub seconds: f64,
    /// The part of the device that it uses, in (0, 1].
    pub share: f64,
    /// The device (or copy engine) that it runs on: an index into [`crate::Options::groups`].
    pub group: usize,
}

impl Node {
    /// A node of group 0.
    pub fn new(seconds: f64, share: f64) -> Node {
        Node { seconds, share, group: 0 }
    }

    fn is_valid(&self) -> bool {
        self.seconds.is_finite() && self.seconds >= 0.0 && self.share > 0.0 && self.share <= 1.0
    }
}

/// When everything runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    /// When the last node ends.
    pub makespan: f64,
    /// When each node starts, after its waits.
    pub start: Vec<f64>,
    /// When each node ends.
    pub finish: Vec<f64>,
}

/// Checks what stands in `nodes` and the price of an event.
pub(crate) fn check_nodes(nodes: &[Node], sync_seconds: f64) -> Result<(), ScheduleError> {
    if !(sync_seconds.is_finite() && sync_seconds >= 0.0) {
        return Err(ScheduleError::SyncSeconds);
    }
    if let Some(node) = nodes.iter().position(|n| !n.is_valid()) {
        return Err(ScheduleError::Weight { node });
    }
    match nodes.iter().position(|n| n.group > MAX_GROUP) {
        Some(node) => Err(ScheduleError::Group { node }),
        None => Ok(()),
    }
}

/// Simulates `nodes`, launched in `order` on their streams, under `events`.
///
/// Dependences count only as far as streams and events keep them.
pub fn simulate(
    nodes: &[Node],
    order: &[usize],
    stream: &[usize],
    events: &[Event],
    sync_seconds: f64,
) -> Result<Timeline, ScheduleError> {
    check_nodes(nodes, sync_seconds)?;
    check_length("places in the order", order.len(), nodes.len())?;
    let lanes = Lanes::new(nodes.len(), order, stream)?;
    let mut place = vec![0; nodes.len()];
    for (i, &node) in order.iter().enumerate() {
        place[node] = i;
    }
    let late =
        |e: &&Event| e.after >= nodes.len() || e.before >= nodes.len() || place[e.after] >= place[e.before];
    match events.iter().find(late) {
        Some(event) => Err(ScheduleError::Order { node: event.before }),
        None => Ok(run(nodes, order, &lanes, events, sync_seconds)),
    }
}

/// [`simulate`] for input that was checked.
pub(crate) fn run(
    nodes: &[Node],
    order: &[usize],
    lanes: &Lanes,
    events: &[Event],
    sync_seconds: f64,
) -> Timeline {
    Run::new(nodes, order, lanes, events, sync_seconds).finish()
}

/// A point in time at which a node does something; the earliest, then the smallest node, first.
#[derive(Debug, Clone, Copy)]
struct At {
    time: f64,
    node: usize,
}

impl PartialEq for At {
    fn eq(&self, other: &At) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for At {}

impl PartialOrd for At {
    fn partial_cmp(&self, other: &At) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for At {
    /// Reversed, because [`BinaryHeap`] hands out the greatest first.
    fn cmp(&self, other: &At) -> Ordering {
        other.time.total_cmp(&self.time).then(other.node.cmp(&self.node))
    }
}

/// A device: running nodes progress together, so their ends are ordered in its own virtual time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Device {
    virtual_now: f64,
    share: f64,
    running: BinaryHeap<At>,
}

impl Device {
    /// How many times slower than alone nodes run now.
    fn slowdown(&self) -> f64 {
        self.share.max(1.0)
    }

    /// The sum of the shares of what runs.
    pub(crate) fn share(&self) -> f64 {
        self.share
    }

    /// In how many seconds the next node ends.
    pub(crate) fn next_in(&self) -> Option<f64> {
        self.running.peek().map(|at| (at.time - self.virtual_now).max(0.0) * self.slowdown())
    }

    pub(crate) fn advance(&mut self, seconds: f64) {
        self.virtual_now += seconds / self.slowdown();
    }

    pub(crate) fn start(&mut self, node: usize, seconds: f64, share: f64) {
        self.running.push(At { time: self.virtual_now + seconds, node });
        self.share += share;
    }

    /// Ends the node that ends next.
    pub(crate) fn end_next(&mut self, nodes: &[Node]) -> Option<usize> {
        let At { time, node } = self.running.pop()?;
        // Without this, rounding could leave the clock a little short of the end.
        self.virtual_now = self.virtual_now.max(time);
        self.share = if self.running.is_empty() { 0.0 } else { self.share - nodes[node].share };
        Some(node)
    }
}

/// A simulation under way.
struct Run<'a> {
    nodes: &'a [Node],
    sync_seconds: f64,
    events: &'a [Event],
    /// The node after each node on its stream.
    next: Vec<Option<usize>>,
    /// The first event recorded after each node.
    first_event: Vec<Option<usize>>,
    /// The next event recorded after the same node, for each event.
    next_event: Vec<Option<usize>>,
    /// How many nodes each node still waits for, on its own stream and through events.
    missing: Vec<u32>,
    waits: Vec<u32>,
    now: f64,
    devices: Vec<Device>,
    waiting: BinaryHeap<At>,
    start: Vec<f64>,
    finish: Vec<f64>,
}

impl<'a> Run<'a> {
    fn new(
        nodes: &'a [Node],
        order: &[usize],
        lanes: &Lanes,
        events: &'a [Event],
        sync_seconds: f64,
    ) -> Run<'a> {
        let mut next = vec![None; nodes.len()];
        let mut missing = vec![0; nodes.len()];
        let mut waits = vec![0; nodes.len()];
        let mut last: Vec<Option<usize>> = vec![None; lanes.lanes];
        for &node in order {
            if let Some(previous) = last[lanes.of(node)].replace(node) {
                next[previous] = Some(node);
                missing[node] += 1;
            }
        }
        let mut first_event = vec![None; nodes.len()];
        let mut next_event = vec![None; events.len()];
        for (i, event) in events.iter().enumerate().rev() {
            next_event[i] = first_event[event.after].replace(i);
            missing[event.before] += 1;
            waits[event.before] += 1;
        }
        let groups = nodes.iter().map(|n| n.group + 1).max().unwrap_or(0);
        Run {
            nodes,
            sync_seconds,
            events,
            next,
            first_event,
            next_event,
            missing,
            waits,
            now: 0.0,
            devices: vec![Device::default(); groups],
            waiting: BinaryHeap::new(),
            start: vec![0.0; nodes.len()],
            finish: vec![0.0; nodes.len()],
        }
    }

    fn finish(mut self) -> Timeline {
        for node in 0..self.nodes.len() {
            if self.missing[node] == 0 {
                self.release(node);
            }
        }
        while let Some((seconds, device)) = self.next_step() {
            for each in &mut self.devices {
                each.advance(seconds);
            }
            self.now += seconds;
            match device {
                None => self.begin_waiting(),
                Some(device) => self.end(device),
            }
        }
        Timeline { makespan: self.now, start: self.start, finish: self.finish }
    }

    /// Seconds until something happens, and the device that ends a node, or none for a wait.
    fn next_step(&self) -> Option<(f64, Option<usize>)> {
        let mut best = self.waiting.peek().map(|at| ((at.time - self.now).max(0.0), None));
        for (index, device) in self.devices.iter().enumerate() {
            if let Some(seconds) = device.next_in()
                && best.is_none_or(|(b, _)| seconds < b)
            {
                best = Some((seconds, Some(index)));
            }
        }
        best
    }

    /// All that `node` waits for is complete.
    fn release(&mut self, node: usize) {
        if self.waits[node] == 0 {
            self.begin(node);
        } else {
            let time = self.now + f64::from(self.waits[node]) * self.sync_seconds;
            self.waiting.push(At { time, node });
        }
    }

    fn begin_waiting(&mut self) {
        if let Some(at) = self.waiting.pop() {
            self.begin(at.node);
        }
    }

    fn begin(&mut self, node: usize) {
        let Node { seconds, share, group } = self.nodes[node];
        self.start[node] = self.now;
        self.devices[group].start(node, seconds, share);
    }

    fn end(&mut self, device: usize) {
        let Some(node) = self.devices[device].end_next(self.nodes) else { return };
        self.finish[node] = self.now;
        if let Some(next) = self.next[node] {
            self.count_down(next);
        }
        let mut event = self.first_event[node];
        while let Some(i) = event {
            self.count_down(self.events[i].before);
            event = self.next_event[i];
        }
    }

    fn count_down(&mut self, node: usize) {
        self.missing[node] -= 1;
        if self.missing[node] == 0 {
            self.release(node);
        }
    }
}
