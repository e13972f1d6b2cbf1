//! Discrete-event simulation of a run: when every command starts and ends, what devices, links and memory do meanwhile.
//!
//! Model. A stream executes its commands one after the other. A kernel takes its predicted seconds, its launch included,
//! so a launch hides behind kernels of other streams only. Waits that stand directly before a command are one act: they end
//! when the last of their events is recorded, and then the stream, but not the device, is busy for
//! [`crate::plan::Device::sync_seconds`] times their number. That is what they cost in the worst order (a wait is a
//! command of its own stream, carried out after those before it, and the latest event may be waited for first), and what
//! `djinn-schedule` reckons with when it chooses streams. A record costs nothing: what it marks is part of the end of the
//! command before it (CUDA C++ Programming Guide, "Events": recorded once all work before it in its stream is complete).
//!
//! Kernels that run on
//! one device at the same time share it: while their shares sum to more than 1, all of them slow down by that sum. A copy
//! first takes the latency of its link, then its bytes flow; copies that flow over the same hop share its bandwidth max-min
//! fairly (Bertsekas and Gallager, *Data Networks*, 2nd edition, 1992, section 6.5.2). A hop is as fast as the fastest link
//! that goes over it. Copies on one device and such of the caller's memory without a link contend with nothing.

mod flows;
mod live;

use std::collections::BTreeMap;

use djinn_diag::{Result, input, internal};

use crate::check::indexable;
use crate::plan::{Action, BufferId, DeviceId, Entry, Place, Plan, View};
use flows::{Flow, Network};

/// From when to when, in seconds since the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Interval {
    /// Start.
    pub start: f64,
    /// End.
    pub end: f64,
}

/// What a device does during a run.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DeviceUse {
    /// Seconds in which at least one kernel runs.
    pub busy: f64,
    /// Seconds in which at least one copy from or to it is under way.
    pub copying: f64,
    /// Part of the run in which at least one kernel runs, 0 to 1.
    pub utilisation: f64,
    /// Part of the device that kernels occupy, on average over the run, 0 to 1.
    pub occupancy: f64,
}

/// From when to when the bytes of a buffer are needed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Live {
    /// The buffer.
    pub buffer: BufferId,
    /// When.
    pub interval: Interval,
}

/// What a run of an entry does when.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    /// Number of the entry.
    pub entry: usize,
    /// Seconds of the whole run.
    pub seconds: f64,
    /// One per command.
    pub commands: Vec<Interval>,
    /// One per device of the plan.
    pub devices: Vec<DeviceUse>,
    /// The most bytes in use at one time, one per arena of the plan; all bytes that are persistent count throughout.
    pub peaks: Vec<u64>,
    /// The buffers of the run, by number: from the start of the first command that touches one to the end of the last.
    pub live: Vec<Live>,
}

/// Simulates one run of an entry. The plan must be one that passes [`crate::check()`]; of another one, what cannot be
/// simulated is refused.
pub fn simulate(plan: &Plan, entry: usize) -> Result<Timeline> {
    indexable(plan).map_err(|v| v.diagnostic(djinn_diag::Culprit::Input))?;
    let Some(found) = plan.entries.get(entry) else {
        return Err(internal("plan.simulate", format!("there is no entry {entry}")));
    };
    let mut run = Run::new(plan, found);
    run.finish()?;
    let Run { now: seconds, times: commands, busy, copying, occupied, .. } = run;
    let part = |of: f64| if seconds > 0.0 { of / seconds } else { 0.0 };
    let devices = (0..plan.devices.len()).map(|d| DeviceUse {
        busy: busy[d],
        copying: copying[d],
        utilisation: part(busy[d]),
        occupancy: part(occupied[d]),
    });
    let live = live::intervals(plan, found, &commands);
    let peaks = live::peaks(plan, entry, &live);
    Ok(Timeline { entry, seconds, devices: devices.collect(), peaks, live, commands })
}

/// Something under way.
struct Activity {
    command: usize,
    stream: usize,
    work: Work,
}

enum Work {
    /// A kernel: seconds left when it has the device for itself.
    Kernel { device: usize, share: f64, left: f64 },
    /// Waits that are paid for, a copy before its first byte, or one that contends with nothing: seconds left.
    Delay { left: f64, then: Option<Flow> },
    /// A copy under way.
    Flow { flow: Flow },
}

struct Run<'p> {
    plan: &'p Plan,
    entry: &'p Entry,
    network: Network,
    now: f64,
    times: Vec<Interval>,
    /// Commands of each stream, in order, and how many have started.
    queues: Vec<Vec<usize>>,
    next: Vec<usize>,
    recorded: Vec<bool>,
    /// Waits of each stream that are over but not paid for.
    unpaid: Vec<u32>,
    /// Streams that wait for an event.
    waiting: BTreeMap<usize, Vec<usize>>,
    active: Vec<Activity>,
    shares: Vec<f64>,
    busy: Vec<f64>,
    copying: Vec<f64>,
    occupied: Vec<f64>,
}

impl<'p> Run<'p> {
    fn new(plan: &'p Plan, entry: &'p Entry) -> Run<'p> {
        let mut queues = vec![Vec::new(); entry.streams.len()];
        for (number, command) in entry.commands.iter().enumerate() {
            queues[command.stream.index()].push(number);
        }
        let devices = plan.devices.len();
        Run {
            plan,
            entry,
            network: Network::new(plan),
            now: 0.0,
            times: vec![Interval::default(); entry.commands.len()],
            next: vec![0; queues.len()],
            unpaid: vec![0; queues.len()],
            queues,
            recorded: vec![false; entry.events as usize],
            waiting: BTreeMap::new(),
            active: Vec::new(),
            shares: vec![0.0; devices],
            busy: vec![0.0; devices],
            copying: vec![0.0; devices],
            occupied: vec![0.0; devices],
        }
    }

    fn finish(&mut self) -> Result<()> {
        let mut ready: Vec<usize> = (0..self.queues.len()).collect();
        loop {
            while let Some(stream) = ready.pop() {
                self.advance(stream, &mut ready);
            }
            if self.active.is_empty() {
                break;
            }
            ready = self.pass_time()?;
            // The stream of the smallest number goes first.
            ready.sort_unstable_by(|a, b| b.cmp(a));
        }
        let done: usize = self.next.iter().sum();
        if done < self.entry.commands.len() {
            let message =
                format!("after {done} of {} commands every stream waits", self.entry.commands.len());
            return Err(
                input("plan.simulate", message).help("the plan does not pass the check; make it anew")
            );
        }
        Ok(())
    }

    /// Starts commands of a stream up to one that takes time; adds streams that an event sets free.
    fn advance(&mut self, stream: usize, ready: &mut Vec<usize>) {
        while let Some(&number) = self.queues[stream].get(self.next[stream]) {
            if !matches!(self.entry.commands[number].action, Action::Wait { .. })
                && let Some(activity) = self.synchronisation(stream)
            {
                self.active.push(activity);
                return;
            }
            self.times[number] = Interval { start: self.now, end: self.now };
            let work = match self.entry.commands[number].action {
                Action::Wait { event } if !self.recorded[event.index()] => {
                    self.waiting.entry(event.index()).or_default().push(stream);
                    return;
                }
                Action::Wait { .. } => {
                    self.unpaid[stream] += 1;
                    None
                }
                Action::Record { event } => {
                    self.recorded[event.index()] = true;
                    ready.extend(self.waiting.remove(&event.index()).unwrap_or_default());
                    None
                }
                Action::Launch { kernel } => {
                    let kernel = &self.entry.kernels[kernel.index()];
                    let device = self.entry.streams[stream].device.index();
                    self.shares[device] += kernel.share;
                    Some(Work::Kernel { device, share: kernel.share, left: kernel.seconds })
                }
                Action::Copy { from, to, seconds, .. } => Some(self.copy(from, to, seconds)),
            };
            self.next[stream] += 1;
            if let Some(work) = work {
                self.active.push(Activity { command: number, stream, work });
                return;
            }
        }
    }

    /// What the waits before the next command of a stream cost, as time of the last of them.
    fn synchronisation(&mut self, stream: usize) -> Option<Activity> {
        let waits = std::mem::take(&mut self.unpaid[stream]);
        let device = &self.plan.devices[self.entry.streams[stream].device.index()];
        let left = f64::from(waits) * device.sync_seconds;
        let command = self.queues[stream][self.next[stream].checked_sub(1)?];
        (left > 0.0).then_some(Activity { command, stream, work: Work::Delay { left, then: None } })
    }

    fn copy(&self, from: Place, to: Place, seconds: f64) -> Work {
        let ends = [from, to].map(|place| device_of(self.plan, place));
        let bytes = [from, to].into_iter().find_map(|place| match place {
            Place::Buffer(view) => Some(view.bytes),
            Place::Input(_) | Place::Output(_) => None,
        });
        match self.network.link(ends) {
            None => Work::Delay { left: seconds, then: None },
            Some(link) => {
                let latency = self.plan.links[link].latency.min(seconds);
                let flow =
                    Flow { link, bytes: bytes.unwrap_or(0) as f64, alone: seconds - latency, left: 1.0 };
                Work::Delay { left: latency, then: Some(flow) }
            }
        }
    }

    /// Lets time pass until something ends; the streams that go on.
    fn pass_time(&mut self) -> Result<Vec<usize>> {
        let flows: Vec<&Flow> = self.active.iter().filter_map(|a| a.work.flow()).collect();
        let mut speeds = self.network.speeds(&flows).into_iter();
        let rates: Vec<f64> = self
            .active
            .iter()
            .map(|a| match &a.work {
                Work::Kernel { device, .. } => 1.0 / self.shares[*device].max(1.0),
                Work::Delay { .. } => 1.0,
                Work::Flow { .. } => speeds.next().unwrap_or(1.0),
            })
            .collect();
        let left: Vec<f64> = self.active.iter().zip(&rates).map(|(a, rate)| a.work.left() / rate).collect();
        let step = left.iter().copied().fold(f64::INFINITY, f64::min);
        if !(self.now + step).is_finite() {
            return Err(input("plan.simulate", "the predicted times of the plan sum to no finite number"));
        }
        self.account(step);
        self.now += step;
        // What would end within a rounding error of the step ends with it.
        let limit = step * (1.0 + 1e-12);
        let mut ready = Vec::new();
        let mut going = Vec::with_capacity(self.active.len());
        for ((mut activity, rate), left) in std::mem::take(&mut self.active).into_iter().zip(rates).zip(left)
        {
            if left > limit {
                activity.work.reduce(step * rate);
                going.push(activity);
            } else if let Work::Delay { then: Some(flow), .. } = activity.work {
                going.push(Activity { work: Work::Flow { flow }, ..activity });
            } else {
                if let Work::Kernel { device, share, .. } = activity.work {
                    self.shares[device] -= share;
                }
                self.times[activity.command].end = self.now;
                ready.push(activity.stream);
            }
        }
        self.active = going;
        self.settle_shares();
        Ok(ready)
    }

    /// Sums of shares anew, so that rounding errors do not pile up.
    fn settle_shares(&mut self) {
        self.shares.fill(0.0);
        for activity in &self.active {
            if let Work::Kernel { device, share, .. } = activity.work {
                self.shares[device] += share;
            }
        }
    }

    fn account(&mut self, step: f64) {
        for (device, share) in self.shares.iter().enumerate().filter(|(_, share)| **share > 0.0) {
            self.busy[device] += step;
            self.occupied[device] += step * share.min(1.0);
        }
        let mut copies = vec![false; self.copying.len()];
        for activity in self.active.iter().filter(|a| !matches!(a.work, Work::Kernel { .. })) {
            if let Action::Copy { from, to, .. } = self.entry.commands[activity.command].action {
                let ends = [from, to].map(|place| device_of(self.plan, place));
                ends.into_iter().flatten().for_each(|device| copies[device.index()] = true);
            }
        }
        for (copying, _) in self.copying.iter_mut().zip(copies).filter(|(_, now)| *now) {
            *copying += step;
        }
    }
}

impl Work {
    fn flow(&self) -> Option<&Flow> {
        match self {
            Work::Flow { flow } => Some(flow),
            Work::Kernel { .. } | Work::Delay { .. } => None,
        }
    }

    /// Seconds left at full speed.
    fn left(&self) -> f64 {
        match self {
            Work::Kernel { left, .. } | Work::Delay { left, .. } => *left,
            Work::Flow { flow } => flow.left * flow.alone,
        }
    }

    fn reduce(&mut self, by: f64) {
        match self {
            Work::Kernel { left, .. } | Work::Delay { left, .. } => *left = (*left - by).max(0.0),
            Work::Flow { flow } => flow.left = (flow.left - by / flow.alone).max(0.0),
        }
    }
}

fn device_of(plan: &Plan, place: Place) -> Option<DeviceId> {
    match place {
        Place::Buffer(View { buffer, .. }) => {
            Some(plan.arenas[plan.buffers[buffer.index()].arena.index()].device)
        }
        Place::Input(_) | Place::Output(_) => {
            plan.devices.iter().position(|d| d.host).map(|d| DeviceId(d as u32))
        }
    }
}
