//! Routes: the fastest way between two endpoints for a given number of bytes.
//!
//! Hosts and devices store what passes through them before they send it on; switches pass it on as it comes. So the
//! way falls into stretches between stores, and `seconds = Σ latencies + Σ over stretches (bytes / slowest link)`.
//! The search is Dijkstra's (Numerische Mathematik 1, 1959) over pairs of endpoint and bandwidth of the current
//! stretch: that bandwidth is chosen on leaving a store, and slower links are then closed, which keeps costs additive.

use crate::topology::Topology;
use djinn_diag::{Result, input};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

/// For how many bytes [`Topology::route`] chooses: 1 MiB, of the order of an activation.
pub const ROUTE_BYTES: u64 = 1 << 20;

/// One link of a route.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hop {
    /// Number of the link.
    pub link: usize,
    /// Endpoint number where it starts.
    pub from: usize,
    /// Endpoint number where it ends.
    pub to: usize,
    /// Bytes per second.
    pub bandwidth: f64,
    /// Seconds until the first byte arrives.
    pub latency: f64,
    /// Does the data go on from `to` without being stored there?
    pub to_switch: bool,
}

/// A way from one endpoint to another; no hops if they are the same.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Route {
    /// The links, in order.
    pub hops: Vec<Hop>,
}

/// A transfer that is under way together with others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transfer<'a> {
    /// Its way.
    pub route: &'a Route,
    /// How much.
    pub bytes: u64,
}

impl Route {
    /// Seconds that these bytes take alone.
    pub fn seconds(&self, bytes: u64) -> f64 {
        self.seconds_with(bytes, |_| 1.0)
    }

    /// Seconds where `sharers` transfers, this one included, use each of its links.
    pub fn seconds_shared(&self, bytes: u64, sharers: u32) -> f64 {
        self.seconds_with(bytes, |_| f64::from(sharers.max(1)))
    }

    fn seconds_with(&self, bytes: u64, sharers: impl Fn(&Hop) -> f64) -> f64 {
        let mut seconds = 0.0;
        let mut slowest = f64::INFINITY;
        for hop in &self.hops {
            seconds += hop.latency;
            slowest = slowest.min(hop.bandwidth / sharers(hop));
            if !hop.to_switch {
                seconds += bytes as f64 / slowest;
                slowest = f64::INFINITY;
            }
        }
        // A route that ends at a switch still has to deliver there.
        if slowest.is_finite() { seconds + bytes as f64 / slowest } else { seconds }
    }

    /// The stretches between stores: (latency, bandwidth) of each.
    pub fn stretches(&self) -> Vec<(f64, f64)> {
        let mut out: Vec<(f64, f64)> = Vec::new();
        let mut open = false;
        for hop in &self.hops {
            match out.last_mut().filter(|_| open) {
                Some(last) => *last = (last.0 + hop.latency, last.1.min(hop.bandwidth)),
                None => out.push((hop.latency, hop.bandwidth)),
            }
            open = hop.to_switch;
        }
        out
    }
}

/// Seconds of transfers that start together: each link gives each transfer that crosses it in the same direction an
/// equal share of its bandwidth, for the whole time. That is exact for equal transfers over one link, and never too
/// short otherwise.
pub fn shared_seconds(transfers: &[Transfer<'_>]) -> Vec<f64> {
    let mut sharers: BTreeMap<(usize, usize), u32> = BTreeMap::new();
    for hop in transfers.iter().flat_map(|t| &t.route.hops) {
        *sharers.entry((hop.link, hop.from)).or_default() += 1;
    }
    let count = |hop: &Hop| f64::from(sharers.get(&(hop.link, hop.from)).copied().unwrap_or(1));
    transfers.iter().map(|t| t.route.seconds_with(t.bytes, count)).collect()
}

impl Topology {
    /// The fastest way for a transfer of [`ROUTE_BYTES`] between two endpoints, by name.
    ///
    /// # Errors
    /// `topology.endpoint` for a name that is none, `topology.unreachable` if no links lead there.
    pub fn route(&self, from: &str, to: &str) -> Result<Route> {
        self.route_for(from, to, ROUTE_BYTES)
    }

    /// The fastest way for a transfer of this many bytes between two endpoints, by name.
    ///
    /// # Errors
    /// See [`Topology::route`].
    pub fn route_for(&self, from: &str, to: &str, bytes: u64) -> Result<Route> {
        let (start, goal) = (self.endpoint(from)?, self.endpoint(to)?);
        self.search(start, goal, bytes as f64).ok_or_else(|| {
            input("topology.unreachable", format!("no links lead from '{from}' to '{to}'"))
                .help("add a link between their hosts")
                .shortened()
        })
    }

    fn search(&self, start: usize, goal: usize, bytes: f64) -> Option<Route> {
        let mut search = Search::new(self, bytes);
        search.improve(Step { seconds: 0.0, hops: 0, state: search.state(start, 0) }, None);
        while let Some(step) = search.queue.pop() {
            if step.beaten_by(&search.best[step.state]) {
                continue;
            }
            let (at, _) = search.place(step.state);
            if at == goal {
                return Some(search.way(step.state));
            }
            search.expand(step);
        }
        None
    }
}

/// A state reached: the seconds and hops to it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    seconds: f64,
    hops: u32,
    state: usize,
}

impl Step {
    fn beaten_by(&self, best: &Option<Reached>) -> bool {
        best.is_some_and(|b| (b.seconds, b.hops) < (self.seconds, self.hops))
    }
}

impl Eq for Step {}

impl Ord for Step {
    /// Shortest first, then fewest hops, then the lowest number: the heap gives the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        let other_first = other.seconds.total_cmp(&self.seconds);
        other_first.then(other.hops.cmp(&self.hops)).then(other.state.cmp(&self.state))
    }
}

impl PartialOrd for Step {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The best known way to a state.
#[derive(Debug, Clone, Copy)]
struct Reached {
    seconds: f64,
    hops: u32,
    /// The state and the link before; none at the start.
    before: Option<(usize, usize)>,
}

struct Search<'a> {
    topology: &'a Topology,
    bytes: f64,
    /// Bandwidths that a stretch can have: those of the links, sorted.
    rates: Vec<f64>,
    queue: BinaryHeap<Step>,
    /// The best known way to each state.
    best: Vec<Option<Reached>>,
}

impl<'a> Search<'a> {
    fn new(topology: &'a Topology, bytes: f64) -> Self {
        let mut rates: Vec<f64> = topology.links().iter().map(|l| l.bandwidth).collect();
        rates.sort_by(f64::total_cmp);
        rates.dedup();
        let switches = (0..topology.endpoint_count()).filter(|e| topology.is_switch(*e)).count();
        let stores = topology.endpoint_count() - switches;
        let states = stores + switches * rates.len();
        Search { topology, bytes, rates, queue: BinaryHeap::new(), best: vec![None; states] }
    }

    fn stores(&self) -> usize {
        self.best.len().min(self.topology.devices().len() + self.topology.nodes().len())
    }

    /// State of being at an endpoint, in a stretch of rate number `rate` if it is a switch.
    fn state(&self, endpoint: usize, rate: usize) -> usize {
        match endpoint.checked_sub(self.stores()) {
            Some(switch) => self.stores() + switch * self.rates.len() + rate,
            None => endpoint,
        }
    }

    /// Endpoint of a state, and the rate number of its stretch if it is a switch.
    fn place(&self, state: usize) -> (usize, Option<usize>) {
        match state.checked_sub(self.stores()) {
            Some(rest) => (self.stores() + rest / self.rates.len(), Some(rest % self.rates.len())),
            None => (state, None),
        }
    }

    fn improve(&mut self, step: Step, before: Option<(usize, usize)>) {
        let better = self.best[step.state].is_none_or(|b| (step.seconds, step.hops) < (b.seconds, b.hops));
        if better {
            self.best[step.state] = Some(Reached { seconds: step.seconds, hops: step.hops, before });
            self.queue.push(step);
        }
    }

    fn expand(&mut self, step: Step) {
        let (at, rate) = self.place(step.state);
        let topology = self.topology;
        for &(link, next) in &topology.neighbours[at] {
            let figures = &topology.links()[link];
            let fits = self.rates.partition_point(|r| *r <= figures.bandwidth);
            // On the way through switches the rate is fixed; a direct link is used at its own rate.
            let choices = match rate {
                Some(rate) => rate..fits.min(rate + 1),
                None if topology.is_switch(next) => 0..fits,
                None => fits - 1..fits,
            };
            for choice in choices {
                let opens = if rate.is_none() { self.bytes / self.rates[choice] } else { 0.0 };
                let seconds = step.seconds + figures.latency + opens;
                let state = self.state(next, choice);
                self.improve(Step { seconds, hops: step.hops + 1, state }, Some((step.state, link)));
            }
        }
    }

    fn way(&self, goal: usize) -> Route {
        let mut hops = Vec::new();
        let mut state = goal;
        while let Some(Reached { before: Some((before, link)), .. }) = self.best[state] {
            let (from, to) = (self.place(before).0, self.place(state).0);
            let figures = &self.topology.links()[link];
            let to_switch = self.topology.is_switch(to);
            hops.push(Hop {
                link,
                from,
                to,
                bandwidth: figures.bandwidth,
                latency: figures.latency,
                to_switch,
            });
            state = before;
        }
        hops.reverse();
        Route { hops }
    }
}
