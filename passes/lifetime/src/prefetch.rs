//! Fetches before their time: copies from the host are moved forward in the order, so that they run beside the work
//! before them.
//!
//! A fetch right before its use keeps the least memory, and makes the device wait for the link. Listed earlier, its copy
//! runs while other units do; the order then says when its bytes are taken, and the packer reuses them in turn, so that
//! the buffers of fetched values are a ring in the arena. One walk along the units simulates them and the copy engine
//! of each device: whenever an engine would fall idle, its next fetch is listed, if memory has room for it from there to
//! its last use and if the time until its use is not much longer than it needs.

use crate::model::Model;
use std::collections::{BTreeMap, VecDeque};

/// A fetch is listed at most so many times the time that it and those before it need before its use.
const LEAD: f64 = 2.0;

/// So many fetches are looked at to see whether one of them is due: those before it have to be listed then, too.
const WINDOW: usize = 16;

/// A unit that copies a value from a host to a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fetch {
    /// The unit.
    pub(crate) unit: u32,
    /// The device, by number in the model.
    pub(crate) device: usize,
    /// Seconds of the copy.
    pub(crate) seconds: f64,
}

/// A fetch among the other units.
struct Job {
    fetch: Fetch,
    bytes: u64,
    /// The first of the others that it may come before.
    earliest: usize,
    /// The first of the others that needs it.
    needed: usize,
    /// The last of the others that uses it.
    last: usize,
}

/// The units with fetches moved forward. `seconds` are those of every unit, `limits` the bytes of each device; the units
/// stand in an order that respects all dependences.
pub(crate) fn prefetch(
    model: &Model,
    fetches: &[Fetch],
    seconds: &[f64],
    limits: &[Option<u64>],
) -> Vec<u32> {
    let mut walk = Walk::new(model, fetches, seconds, limits);
    let mut order = Vec::with_capacity(model.units.len());
    for i in 0..walk.others.len() {
        walk.issue(i, &mut order);
        let unit = walk.others[i];
        order.push(unit);
        walk.clock = walk.start(i) + seconds[unit as usize];
    }
    // What nothing needs comes last.
    order.extend(walk.queues.iter().flatten().map(|job| job.fetch.unit));
    order
}

struct Walk<'a> {
    /// Units that are no fetches, in order.
    others: Vec<u32>,
    seconds: &'a [f64],
    /// Seconds of the others before each, if nothing waits.
    before: Vec<f64>,
    /// Jobs by device, in the order in which they are needed.
    queues: Vec<VecDeque<Job>>,
    /// Bytes live on each device while each of the others runs.
    load: Vec<Vec<u64>>,
    /// Bytes that each device has for what is live.
    room: Vec<u64>,
    /// When the copies listed so far are complete, by device.
    copied: Vec<f64>,
    /// When fetched values are there, by the first of the others that needs them.
    arrival: BTreeMap<usize, f64>,
    /// When the others so far are complete.
    clock: f64,
}

impl<'a> Walk<'a> {
    fn new(model: &Model, fetches: &[Fetch], seconds: &'a [f64], limits: &[Option<u64>]) -> Walk<'a> {
        let mut is_fetch = vec![false; model.units.len()];
        fetches.iter().for_each(|f| is_fetch[f.unit as usize] = true);
        let others: Vec<u32> = (0..model.units.len() as u32).filter(|u| !is_fetch[*u as usize]).collect();
        let mut place = vec![0usize; model.units.len()];
        others.iter().enumerate().for_each(|(i, u)| place[*u as usize] = i);
        let mut before = vec![0.0];
        before.extend(others.iter().scan(0.0, |sum, u| {
            *sum += seconds[*u as usize];
            Some(*sum)
        }));
        let devices = model.devices.len();
        let mut walk = Walk {
            load: vec![vec![0; others.len()]; devices],
            room: (0..devices)
                .map(|d| limits[d].map_or(u64::MAX, |limit| limit.saturating_sub(model.resident[d].total())))
                .collect(),
            queues: (0..devices).map(|_| VecDeque::new()).collect(),
            copied: vec![0.0; devices],
            arrival: BTreeMap::new(),
            clock: 0.0,
            others,
            seconds,
            before,
        };
        walk.add_load(model, &is_fetch, &place);
        walk.add_jobs(model, fetches, &is_fetch, &place);
        walk
    }

    /// Counts the buffers that no fetch makes.
    fn add_load(&mut self, model: &Model, is_fetch: &[bool], place: &[usize]) {
        let end = self.others.len();
        let mut born = vec![vec![0u64; end + 1]; self.load.len()];
        let mut dies = born.clone();
        for buffer in &model.buffers {
            let ends = (buffer.accessors.first(), buffer.accessors.last());
            let (Some(&first), Some(&last)) = ends else { continue };
            if !is_fetch[first as usize] && !is_fetch[last as usize] {
                let (born, dies) = (&mut born[buffer.device], &mut dies[buffer.device]);
                let (first, last) = (place[first as usize], place[last as usize] + 1);
                born[first] = born[first].saturating_add(buffer.bytes);
                dies[last] = dies[last].saturating_add(buffer.bytes);
            }
        }
        for (load, (born, dies)) in self.load.iter_mut().zip(born.iter().zip(&dies)) {
            let mut live = 0u64;
            for (slot, (born, dies)) in load.iter_mut().zip(born.iter().zip(dies)) {
                live = live.saturating_sub(*dies).saturating_add(*born);
                *slot = live;
            }
        }
    }

    fn add_jobs(&mut self, model: &Model, fetches: &[Fetch], is_fetch: &[bool], place: &[usize]) {
        let end = self.others.len();
        for fetch in fetches {
            let u = fetch.unit as usize;
            let others = |list: &[u32]| -> Vec<usize> {
                list.iter().filter(|x| !is_fetch[**x as usize]).map(|x| place[*x as usize]).collect()
            };
            let own = |b: &&u32| model.buffers[**b as usize].accessors.first() == Some(&fetch.unit);
            let made: Vec<&u32> = model.touches[u].iter().filter(own).collect();
            let last = made.iter().flat_map(|b| others(&model.buffers[**b as usize].accessors)).max();
            let needed = others(&model.after[u]).into_iter().min().unwrap_or(end);
            let job = Job {
                fetch: *fetch,
                bytes: made.iter().map(|b| model.buffers[**b as usize].bytes).fold(0, u64::saturating_add),
                earliest: others(&model.before[u]).into_iter().max().map_or(0, |b| b + 1),
                needed,
                last: last.unwrap_or(needed).max(needed),
            };
            self.queues[fetch.device].push_back(job);
        }
        for queue in &mut self.queues {
            queue.make_contiguous().sort_by_key(|job| (job.needed, job.fetch.unit));
        }
    }

    fn add(&mut self, device: usize, first: usize, last: usize, bytes: u64) {
        for load in self.load[device].iter_mut().take(last.saturating_add(1)).skip(first) {
            *load = load.saturating_add(bytes);
        }
    }

    /// When number `i` of the others can start.
    fn start(&self, i: usize) -> f64 {
        self.arrival.get(&i).map_or(self.clock, |arrival| arrival.max(self.clock))
    }

    /// Lists the fetches that are due before number `i` of the others.
    fn issue(&mut self, i: usize, order: &mut Vec<u32>) {
        for device in 0..self.queues.len() {
            while let Some(job) = self.queues[device].front() {
                if job.needed > i && !self.is_due(job, i) {
                    break;
                }
                let Some(job) = self.queues[device].pop_front() else { break };
                let done = self.copied[device].max(self.clock) + job.fetch.seconds;
                self.copied[device] = done;
                let arrival = self.arrival.entry(job.needed).or_insert(done);
                *arrival = arrival.max(done);
                self.add(device, i, job.last, job.bytes);
                order.push(job.fetch.unit);
            }
        }
    }

    /// Is it time for a fetch, and is there room for it?
    fn is_due(&self, job: &Job, i: usize) -> bool {
        let (device, unit) = (job.fetch.device, self.others[i] as usize);
        let idle = self.copied[device] < self.start(i) + self.seconds[unit];
        let mut time = (self.copied[device] - self.clock).max(0.0);
        let mut is_near = |job: &Job| {
            time += job.fetch.seconds;
            self.before[job.needed.min(self.before.len() - 1)] - self.before[i] <= LEAD * time
        };
        let fits = |load: &u64| load.saturating_add(job.bytes) <= self.room[device];
        job.earliest <= i
            && idle
            && self.queues[device].iter().take(WINDOW).any(&mut is_near)
            && self.load[device].iter().take(job.last.saturating_add(1)).skip(i).all(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::{Fetch, prefetch};
    use crate::model::{Buffer, Model, Resident};

    /// Units 0, 2, 4, …: fetches of `bytes` each; units 1, 3, 5, …: work that needs the fetch before it.
    fn chain(pairs: u32, bytes: u64) -> (Model, Vec<Fetch>) {
        let n = 2 * pairs as usize;
        let mut model = Model {
            units: vec![Vec::new(); n],
            before: vec![Vec::new(); n],
            after: vec![Vec::new(); n],
            buffers: Vec::new(),
            touches: vec![Vec::new(); n],
            over: vec![Vec::new(); n],
            devices: vec!["d".into()],
            resident: vec![Resident::default()],
        };
        for p in 0..pairs {
            let (fetch, work) = (2 * p, 2 * p + 1);
            model.before[work as usize].push(fetch);
            model.after[fetch as usize].push(work);
            if p > 0 {
                model.before[work as usize].push(work - 2);
                model.after[work as usize - 2].push(work);
            }
            for u in [fetch, work] {
                model.touches[u as usize].push(p);
            }
            let accessors = vec![fetch, work];
            model.buffers.push(Buffer { bytes, device: 0, accessors, made: true, values: Vec::new() });
        }
        let fetches = (0..pairs).map(|p| Fetch { unit: 2 * p, device: 0, seconds: 1.0 }).collect();
        (model, fetches)
    }

    #[test]
    fn a_ring_of_two_keeps_the_link_busy() {
        let (model, fetches) = chain(4, 100);
        let seconds = vec![0.5; 8];
        // Room for two: each fetch is one ahead.
        assert_eq!(prefetch(&model, &fetches, &seconds, &[Some(200)]), [0, 2, 1, 4, 3, 6, 5, 7]);
        // Room for one: none is.
        assert_eq!(prefetch(&model, &fetches, &seconds, &[Some(199)]), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn fetches_are_not_earlier_than_they_help() {
        let (model, fetches) = chain(4, 100);
        // Work of ten times the time of a fetch: one ahead is enough, whatever the room.
        assert_eq!(prefetch(&model, &fetches, &[10.0; 8], &[None]), [0, 1, 2, 3, 4, 5, 6, 7]);
        // Two copies end while the first work waits and runs.
        assert_eq!(prefetch(&model, &fetches, &[1.5; 8], &[None]), [0, 2, 4, 1, 6, 3, 5, 7]);
    }
}
