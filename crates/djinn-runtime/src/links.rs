//! Simulated links: copies that take as long as the links of the plan would.

use crate::events::lock;
use crate::options::LinkSpeed;
use djinn_diag::Result;
use djinn_plan::Plan;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// One simulated copy lasts no longer than this.
pub const MAX_COPY_SECONDS: f64 = 10.0;

/// How long a copy sleeps before it looks whether the run goes on.
const SLICE: Duration = Duration::from_millis(5);

struct Route {
    bandwidth: f64,
    latency: f64,
    /// Sorted, so that copies take shared hops in one order.
    hops: Vec<usize>,
}

/// The links between devices.
pub(crate) struct Links {
    speed: LinkSpeed,
    /// The device whose memory is the caller's.
    host: Option<usize>,
    routes: BTreeMap<(usize, usize), Route>,
    /// One per physical link: a copy holds those on its way.
    hops: Vec<Mutex<()>>,
}

impl Links {
    /// The links of a plan.
    pub(crate) fn new(plan: &Plan, speed: LinkSpeed) -> Links {
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        for hop in plan.links.iter().flat_map(|link| &link.hops) {
            let next = names.len();
            names.entry(hop).or_insert(next);
        }
        let mut routes = BTreeMap::new();
        for link in &plan.links {
            let mut hops: Vec<usize> =
                link.hops.iter().filter_map(|h| names.get(h.as_str()).copied()).collect();
            hops.sort_unstable();
            hops.dedup();
            let route = Route { bandwidth: link.bandwidth, latency: link.latency, hops };
            routes.insert((link.from.index(), link.to.index()), route);
        }
        let hops = names.iter().map(|_| Mutex::new(())).collect();
        Links { speed, host: plan.devices.iter().position(|d| d.host), routes, hops }
    }

    /// Copies, and takes as long as the link takes; `None` is the memory of the caller.
    pub(crate) fn copy(
        &self,
        from: Option<usize>,
        to: Option<usize>,
        may_run: &dyn Fn() -> bool,
        copy: impl FnOnce() -> Result<usize>,
    ) -> Result<()> {
        let (from, to) = (from.or(self.host), to.or(self.host));
        let ends = from.zip(to).filter(|(from, to)| from != to);
        let route = ends.and_then(|ends| self.routes.get(&ends));
        let (bandwidth, latency) = match (self.speed, route) {
            (LinkSpeed::Planned, Some(route)) => (route.bandwidth, route.latency),
            (LinkSpeed::BytesPerSecond(bandwidth), _) if from != to => (bandwidth, 0.0),
            _ => return copy().map(|_| ()),
        };
        let hops = route.filter(|_| self.speed == LinkSpeed::Planned).map_or(&[][..], |r| &r.hops);
        let _held: Vec<_> = hops.iter().filter_map(|h| self.hops.get(*h)).map(lock).collect();
        let start = Instant::now();
        let bytes = copy()?;
        let seconds = latency.max(0.0) + bytes as f64 / bandwidth.max(0.0);
        let seconds = if seconds.is_nan() { MAX_COPY_SECONDS } else { seconds.clamp(0.0, MAX_COPY_SECONDS) };
        let end = start + Duration::from_secs_f64(seconds);
        while may_run() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(SLICE));
        }
        Ok(())
    }
}
