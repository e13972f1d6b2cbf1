//! What the driver knows: contexts, streams, events, modules, and the order in which waiting work is done.

use super::capture::{Captures, Graph};
use super::code::{Code, Result};
use super::space::Space;
use super::task::{Task, Work, execute};
use crate::ptx::{Kernel, Module};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// A stream.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) device: usize,
    /// Does it wait for the legacy stream, and that for it?
    pub(crate) blocking: bool,
    pub(crate) priority: i32,
    /// What the next work comes after: the last work, and events waited for.
    pub(crate) after: Vec<u64>,
    /// The capture that it takes part in, and its last nodes there.
    pub(crate) capture: Option<(u64, Vec<usize>)>,
}

/// An event.
#[derive(Debug, Clone, Default)]
pub(crate) struct Event {
    pub(crate) device: usize,
    pub(crate) timed: bool,
    /// The work that it was recorded behind.
    pub(crate) mark: Option<u64>,
    /// When that was done.
    pub(crate) time: Option<u64>,
    /// The capture that it was recorded in, and the nodes.
    pub(crate) captured: Option<(u64, Vec<usize>)>,
}

/// A function of a module.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) device: usize,
    pub(crate) module: u64,
    pub(crate) dynamic_limit: u32,
}

/// A device and its primary context.
#[derive(Debug, Clone, Default)]
pub(crate) struct Device {
    pub(crate) retained: u32,
    /// What every further call gives.
    pub(crate) sticky: Option<Code>,
    /// Bit by device whose memory kernels may reach.
    pub(crate) reach: u64,
}

/// The driver.
pub(crate) struct Driver {
    pub(crate) initialized: bool,
    pub(crate) memory: u64,
    pub(crate) limit: u64,
    random: u64,
    pub(crate) devices: Vec<Device>,
    pub(crate) space: Space,
    pub(crate) streams: BTreeMap<u64, Stream>,
    pub(crate) events: BTreeMap<u64, Event>,
    pub(crate) modules: BTreeMap<u64, (usize, Module)>,
    pub(crate) functions: BTreeMap<u64, Function>,
    pub(crate) graphs: BTreeMap<u64, Graph>,
    pub(crate) executables: BTreeMap<u64, (Graph, Option<u64>)>,
    pub(crate) captures: Captures,
    /// Pinned memory: address and size.
    pub(crate) pinned: BTreeMap<usize, usize>,
    tasks: BTreeMap<u64, Task>,
    /// Tasks whose host function runs now.
    busy: BTreeSet<u64>,
    counter: u64,
    clock: u64,
}

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.trim().parse().ok()).unwrap_or(default)
}

/// What a call waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wait {
    Device(usize),
    Tasks(Vec<u64>),
    /// All work of all devices.
    All,
}

impl Driver {
    fn new() -> Self {
        let count = setting("DJINN_EMULATOR_DEVICES", 1).clamp(1, 16) as usize;
        let device = |n: usize| Device { retained: 0, sticky: None, reach: 1u64 << n };
        let mut streams = BTreeMap::new();
        for n in 0..count {
            let legacy = Stream { device: n, blocking: false, priority: 0, after: Vec::new(), capture: None };
            streams.insert(legacy_stream(n), legacy);
        }
        Self {
            initialized: false,
            memory: setting("DJINN_EMULATOR_MEMORY", 4 << 30),
            limit: setting("DJINN_EMULATOR_INSTRUCTIONS", 1 << 38),
            random: setting("DJINN_EMULATOR_SEED", 0),
            devices: (0..count).map(device).collect(),
            space: Space::default(),
            streams,
            events: BTreeMap::new(),
            modules: BTreeMap::new(),
            functions: BTreeMap::new(),
            graphs: BTreeMap::new(),
            executables: BTreeMap::new(),
            captures: Captures::default(),
            pinned: BTreeMap::new(),
            tasks: BTreeMap::new(),
            busy: BTreeSet::new(),
            counter: 0x1000,
            clock: 0,
        }
    }

    /// A number that was not given before.
    pub(crate) fn fresh(&mut self) -> u64 {
        self.counter += 8;
        self.counter
    }

    /// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
    pub(crate) fn dice(&mut self, sides: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % sides.max(1) as u64) as usize
    }

    pub(crate) fn stream(&self, id: u64) -> Result<&Stream> {
        self.streams.get(&id).ok_or(Code::INVALID_HANDLE)
    }

    pub(crate) fn stream_mut(&mut self, id: u64) -> Result<&mut Stream> {
        self.streams.get_mut(&id).ok_or(Code::INVALID_HANDLE)
    }

    pub(crate) fn pending(&self, task: u64) -> bool {
        self.tasks.contains_key(&task)
    }

    /// Is any work of this stream waiting?
    pub(crate) fn unfinished(&self, stream: &Stream) -> Vec<u64> {
        stream.after.iter().copied().filter(|t| self.pending(*t)).collect()
    }

    /// What all work of a device must give once it has failed.
    pub(crate) fn healthy(&self, device: usize) -> Result<()> {
        self.devices.get(device).ok_or(Code::INVALID_CONTEXT)?.sticky.map_or(Ok(()), Err)
    }

    /// Adds work to a stream, or to the graph that it captures.
    pub(crate) fn enqueue(&mut self, stream: u64, work: Work) -> Result<u64> {
        let found = self.stream(stream)?.clone();
        self.healthy(found.device)?;
        if let Some((capture, nodes)) = found.capture {
            let node = self.captures.add(capture, nodes, found.device, work)?;
            self.stream_mut(stream)?.capture = Some((capture, vec![node]));
            return Ok(0);
        }
        let mut after = found.after;
        let legacy = legacy_stream(found.device);
        if stream == legacy {
            let others = self.streams.values().filter(|s| s.device == found.device && s.blocking);
            if others.clone().any(|s| s.capture.is_some()) {
                return Err(self.invalidate(Code::STREAM_CAPTURE_IMPLICIT));
            }
            after.extend(others.flat_map(|s| s.after.iter().copied()));
        } else if found.blocking {
            after.extend(self.stream(legacy)?.after.iter().copied());
        }
        let id = self.add(Task { device: found.device, after, work });
        self.stream_mut(stream)?.after = vec![id];
        Ok(id)
    }

    pub(crate) fn add(&mut self, mut task: Task) -> u64 {
        task.after.retain(|t| self.tasks.contains_key(t));
        let id = self.fresh();
        self.tasks.insert(id, task);
        id
    }

    /// All captures are broken.
    pub(crate) fn invalidate(&mut self, code: Code) -> Code {
        self.captures.invalidate_all();
        code
    }

    fn done(&self, wait: &Wait) -> bool {
        match wait {
            Wait::All => self.tasks.is_empty(),
            Wait::Device(d) => self.tasks.values().all(|t| t.device != *d),
            Wait::Tasks(list) => list.iter().all(|t| !self.pending(*t)),
        }
    }

    /// The tasks that must be done for these.
    fn needed(&self, wait: &Wait) -> BTreeSet<u64> {
        let mut open: Vec<u64> = match wait {
            Wait::All => self.tasks.keys().copied().collect(),
            Wait::Device(d) => self.tasks.iter().filter(|(_, t)| t.device == *d).map(|(id, _)| *id).collect(),
            Wait::Tasks(list) => list.clone(),
        };
        let mut out = BTreeSet::new();
        while let Some(id) = open.pop() {
            if let Some(task) = self.tasks.get(&id)
                && out.insert(id)
            {
                open.extend(&task.after);
            }
        }
        out
    }

    fn runnable(&self) -> Vec<u64> {
        let free = |t: &Task| t.after.iter().all(|id| !self.pending(*id));
        self.tasks.iter().filter(|(id, t)| !self.busy.contains(id) && free(t)).map(|(id, _)| *id).collect()
    }

    /// Chooses what is done next. There are three manners: only what is needed, anything, and what is not needed first.
    fn choose(&mut self, wait: &Wait, manner: usize) -> Option<u64> {
        let all = self.runnable();
        let needed = self.needed(wait);
        let part =
            |want: bool| all.iter().copied().filter(|t| needed.contains(t) == want).collect::<Vec<_>>();
        let list = match manner {
            0 => part(true),
            1 => all,
            _ => Some(part(false)).filter(|l| !l.is_empty()).unwrap_or(all),
        };
        if list.is_empty() {
            return None;
        }
        let n = self.dice(list.len());
        list.get(n).copied()
    }

    /// Does a task; a failure breaks its device's context and drops what waits there.
    fn perform(&mut self, id: u64) {
        let Some(task) = self.tasks.get(&id).cloned() else { return };
        let reach = self.devices.get(task.device).map_or(0, |d| d.reach);
        let result = execute(&task.work, &mut self.space, task.device, reach);
        self.finish(id, &task.work);
        if let Err(code) = result {
            if let Some(device) = self.devices.get_mut(task.device) {
                device.sticky.get_or_insert(code);
            }
            self.tasks.retain(|id, t| t.device != task.device || self.busy.contains(id));
        }
    }

    fn finish(&mut self, id: u64, work: &Work) {
        self.tasks.remove(&id);
        self.clock += 1;
        if let Work::Mark(Some(event)) = work
            && let Some(event) = self.events.get_mut(event).filter(|e| e.mark == Some(id))
        {
            event.time = Some(self.clock);
        }
    }
}

/// The number of a device's legacy stream.
pub(crate) fn legacy_stream(device: usize) -> u64 {
    0x100 + device as u64
}

pub(crate) type Guard = MutexGuard<'static, Driver>;

fn shared() -> &'static (Mutex<Driver>, Condvar) {
    static DRIVER: OnceLock<(Mutex<Driver>, Condvar)> = OnceLock::new();
    DRIVER.get_or_init(|| (Mutex::new(Driver::new()), Condvar::new()))
}

pub(crate) fn lock() -> Guard {
    shared().0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does work until what is waited for is done. Host functions are called without the lock.
pub(crate) fn wait(mut driver: Guard, wait: &Wait) -> Guard {
    let manner = driver.dice(3);
    while !driver.done(wait) {
        let Some(id) = driver.choose(wait, manner) else {
            if driver.busy.is_empty() {
                // Dependencies only go back in time, so something can always run.
                eprintln!("djinn emulator: work waits for itself");
                driver.tasks.clear();
                return driver;
            }
            driver = shared().1.wait(driver).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        driver = step(driver, id);
    }
    driver
}

fn step(mut driver: Guard, id: u64) -> Guard {
    let Some(Work::Call(call)) = driver.tasks.get(&id).map(|t| t.work.clone()) else {
        driver.perform(id);
        return driver;
    };
    driver.busy.insert(id);
    drop(driver);
    (call.function)(call.data as *mut std::ffi::c_void);
    let mut driver = lock();
    driver.busy.remove(&id);
    driver.finish(id, &Work::Call(call));
    shared().1.notify_all();
    driver
}

/// Does some work, or none, as chance has it.
pub(crate) fn dawdle(mut driver: Guard) -> Guard {
    let count = driver.dice(4);
    for _ in 0..count {
        let Some(id) = driver.choose(&Wait::All, 1) else { break };
        driver = step(driver, id);
    }
    driver
}
