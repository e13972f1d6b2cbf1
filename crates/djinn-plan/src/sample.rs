//! Plans made by hand and at random, for tests, examples and timings. All of them pass the check.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::Engine;
use crate::plan::{
    ALIGNMENT, Action, Alias, Arena, ArenaId, ArenaKind, Budget, Buffer, BufferId, Command, Content,
    CopyReason, Device, DeviceId, Entry, EventId, FORMAT_VERSION, Kernel, KernelId, Link, Operand, Place,
    Plan, Port, StateBinding, StateUpdate, Stream, StreamId, StreamKind, ValueRef, View,
};

/// A plan without anything in it.
pub fn empty() -> Plan {
    Plan {
        version: FORMAT_VERSION,
        program: "00c0ffee".into(),
        devices: Vec::new(),
        links: Vec::new(),
        arenas: Vec::new(),
        buffers: Vec::new(),
        entries: Vec::new(),
    }
}

/// The first result of an operation.
pub fn result(op: u32) -> ValueRef {
    ValueRef::Result { op, index: 0 }
}

/// Bytes of a buffer.
pub fn view(buffer: BufferId, offset: u64, bytes: u64) -> View {
    View { buffer, offset, bytes }
}

/// A value at a place.
pub fn at(value: ValueRef, view: View) -> Operand {
    Operand { value, view }
}

/// A kernel of one microsecond that takes half a device.
pub fn kernel(name: &str, op: u32, reads: &[Operand], writes: &[Operand]) -> Kernel {
    let bytes: u64 = reads.iter().chain(writes).map(|o| o.view.bytes).sum();
    Kernel {
        name: name.into(),
        ops: vec![op],
        engine: None,
        reads: reads.to_vec(),
        writes: writes.to_vec(),
        workspace: None,
        seconds: 1e-6,
        flops: bytes as f64,
        traffic: bytes as f64,
        share: 0.5,
    }
}

/// An input or output that a copy moves.
pub fn port(name: &str, value: ValueRef, view: View) -> Port {
    let ty = format!("tensor<{}xi8>", view.bytes);
    Port { name: name.into(), ty, value, view: Some(view), resident: false, update_of: None }
}

/// Puts together devices, memory and one entry.
pub struct Builder {
    /// The plan so far.
    pub plan: Plan,
    /// Its entry.
    pub entry: Entry,
}

impl Builder {
    /// A plan with one entry, both empty.
    pub fn new() -> Builder {
        Builder { plan: empty(), entry: Entry::empty("forward") }
    }

    /// Adds a device with memory for what its arenas will take.
    pub fn device(&mut self, name: &str, host: bool) -> DeviceId {
        let profile = if host { "host" } else { "test" };
        let (name, profile) = (name.into(), profile.into());
        self.plan.devices.push(Device { name, profile, memory_bytes: 0, host, sync_seconds: 0.0 });
        DeviceId(self.plan.devices.len() as u32 - 1)
    }

    /// Adds links of 1 GB/s in both directions, over one shared hop.
    pub fn link(&mut self, a: DeviceId, b: DeviceId) {
        for (from, to) in [(a, b), (b, a)] {
            let hops = vec![format!("bus-{}-{}", a.0, b.0)];
            self.plan.links.push(Link { from, to, bandwidth: 1e9, latency: 1e-6, hops });
        }
    }

    /// Adds an arena; buffers make it grow.
    pub fn arena(&mut self, device: DeviceId, kind: ArenaKind) -> ArenaId {
        self.plan.arenas.push(Arena { device, kind, bytes: 0 });
        ArenaId(self.plan.arenas.len() as u32 - 1)
    }

    /// Adds a buffer at the end of an arena.
    pub fn buffer(&mut self, name: &str, arena: ArenaId, bytes: u64, content: Content) -> BufferId {
        let size = &mut self.plan.arenas[arena.index()].bytes;
        let offset = size.next_multiple_of(ALIGNMENT);
        *size = offset + bytes;
        self.plan.buffers.push(Buffer { name: name.into(), arena, offset, bytes, content });
        BufferId(self.plan.buffers.len() as u32 - 1)
    }

    /// Adds a buffer for values of a run.
    pub fn scratch(&mut self, name: &str, arena: ArenaId, bytes: u64) -> BufferId {
        self.buffer(name, arena, bytes, Content::Run { entry: 0 })
    }

    /// Adds a stream.
    pub fn stream(&mut self, device: DeviceId, kind: StreamKind) -> StreamId {
        self.entry.streams.push(Stream { device, kind });
        StreamId(self.entry.streams.len() as u32 - 1)
    }

    /// Adds a command.
    pub fn issue(&mut self, stream: StreamId, action: Action) {
        self.entry.commands.push(Command { stream, action });
    }

    /// Adds a kernel and its launch.
    pub fn launch(&mut self, stream: StreamId, kernel: Kernel) {
        let id = KernelId(self.entry.kernels.len() as u32);
        self.entry.kernels.push(kernel);
        self.issue(stream, Action::Launch { kernel: id });
    }

    /// Adds a copy.
    pub fn copy(
        &mut self,
        stream: StreamId,
        value: [ValueRef; 2],
        from: Place,
        to: Place,
        reason: CopyReason,
    ) {
        let [value, result] = value;
        self.issue(stream, Action::Copy { value, result, from, to, reason, seconds: 2e-6 });
    }

    /// Makes `later` wait for all that `earlier` has been given so far.
    pub fn sync(&mut self, earlier: StreamId, later: StreamId) {
        let event = EventId(self.entry.events);
        self.entry.events += 1;
        self.issue(earlier, Action::Record { event });
        self.issue(later, Action::Wait { event });
    }

    /// The plan, with capacities and budgets that just suffice.
    pub fn finish(mut self) -> Plan {
        for (d, device) in self.plan.devices.iter_mut().enumerate() {
            let arenas: Vec<&Arena> = self.plan.arenas.iter().filter(|a| a.device.index() == d).collect();
            device.memory_bytes = arenas.iter().map(|a| a.bytes).sum();
            let of = |kind| arenas.iter().filter(|a| a.kind == kind).map(|a| a.bytes).sum();
            self.entry.budgets.push(Budget {
                device: DeviceId(d as u32),
                weights: of(ArenaKind::Weights),
                state: of(ArenaKind::State),
                kv_per_token: 0,
                kv_per_session: 0,
                activations: of(ArenaKind::Activations),
                activations_bound: 0,
                workspace: 0,
                sessions: None,
            });
        }
        for view in self.entry.kernels.iter().filter_map(|k| k.workspace) {
            let arena = self.plan.buffers[view.buffer.index()].arena;
            let device = self.plan.arenas[arena.index()].device;
            let workspace = &mut self.entry.budgets[device.index()].workspace;
            *workspace = (*workspace).max(view.bytes);
        }
        self.plan.entries.push(self.entry);
        self.plan
    }
}

impl Default for Builder {
    fn default() -> Self {
        Builder::new()
    }
}

/// Two devices and a host, five streams, and one of everything: constant, resident cache that is appended to, updated state, slices in place,
/// a transfer there and back, a spill, a concatenation made in place, scratch memory.
pub fn two_devices() -> Plan {
    let mut b = Builder::new();
    let (g0, g1, host) = (b.device("gpu:0", false), b.device("gpu:1", false), b.device("host", true));
    b.link(g0, g1);
    b.link(g0, host);
    let weights = b.arena(g0, ArenaKind::Weights);
    let state = b.arena(g0, ArenaKind::State);
    let (act0, act1) = (b.arena(g0, ArenaKind::Activations), b.arena(g1, ArenaKind::Activations));
    let spill = b.arena(host, ArenaKind::Spill);
    let [x, w, kv, counter] = [0, 1, 2, 3].map(ValueRef::Argument);
    let constant = Content::Constant { function: "forward".into(), value: w };
    let w_at = view(b.buffer("w", weights, 4096, constant), 0, 4096);
    let kv_all = view(b.buffer("kv", state, 2048, Content::State { name: "kv".into() }), 0, 2048);
    let kv_at = View { bytes: 1536, ..kv_all };
    let counter_at = view(b.buffer("counter", state, 100, Content::State { name: "counter".into() }), 0, 100);
    let x_at = view(b.scratch("x", act0, 1024), 0, 1024);
    let h = b.scratch("h", act0, 1024);
    let (low, high) = (view(h, 0, 512), view(h, 512, 512));
    let back_at = view(b.scratch("r, fetched", act0, 512), 0, 512);
    let cat = b.scratch("cat", act0, 1024);
    let y_at = view(b.scratch("y", act0, 256), 0, 256);
    let scratch = view(b.scratch("workspace", act0, 700), 0, 700);
    let (t_at, u_at) = (view(b.scratch("t", act1, 512), 0, 512), view(b.scratch("u", act1, 512), 0, 512));
    let spilled = view(b.scratch("r, spilled", spill, 512), 0, 512);
    b.entry.constants = vec![at(w, w_at)];
    b.entry.inputs = vec![port("x", x, x_at), Port { resident: true, ..port("kv", kv, kv_at) }];
    b.entry.states = vec![StateBinding { argument: 3, view: counter_at }];
    b.entry.outputs = vec![
        port("y", result(11), y_at),
        Port { resident: true, update_of: Some(2), ..port("kv_out", result(9), kv_all) },
        Port { view: None, ..port("echo", x, x_at) },
    ];
    b.entry.updates = vec![StateUpdate { argument: 3, value: result(10), view: counter_at }];
    let part = |value, view| Alias { value: at(value, view), of: vec![at(result(0), view_of(h))] };
    let all = view(cat, 0, 1024);
    b.entry.aliases = vec![
        part(result(1), low),
        part(result(2), high),
        Alias {
            value: at(result(7), all),
            of: vec![at(result(8), view(cat, 0, 512)), at(result(6), view(cat, 512, 512))],
        },
    ];
    let (s0, s1) = (b.stream(g0, StreamKind::Compute), b.stream(g0, StreamKind::Copy));
    let (s2, s3) = (b.stream(g1, StreamKind::Compute), b.stream(g1, StreamKind::Copy));
    let s4 = b.stream(g0, StreamKind::Compute);
    b.copy(s1, [x, x], Place::Input(0), Place::Buffer(x_at), CopyReason::Input);
    b.sync(s1, s0);
    let matmul = kernel("matmul", 0, &[at(x, x_at), at(w, w_at)], &[at(result(0), view_of(h))]);
    b.launch(s0, Kernel { workspace: Some(scratch), ..matmul });
    b.sync(s0, s1);
    b.copy(s1, [result(2), result(4)], Place::Buffer(high), Place::Buffer(t_at), CopyReason::Transfer);
    b.sync(s1, s2);
    b.launch(s2, kernel("gelu", 5, &[at(result(4), t_at)], &[at(result(5), u_at)]));
    b.sync(s2, s3);
    let half = Place::Buffer(view(cat, 512, 512));
    b.copy(s3, [result(5), result(6)], Place::Buffer(u_at), half, CopyReason::Transfer);
    b.launch(s0, kernel("relu in place", 3, &[at(result(1), low)], &[at(result(3), low)]));
    b.sync(s0, s1);
    b.copy(s1, [result(3); 2], Place::Buffer(low), Place::Buffer(spilled), CopyReason::Spill);
    b.copy(s1, [result(3); 2], Place::Buffer(spilled), Place::Buffer(back_at), CopyReason::Fetch);
    b.sync(s1, s0);
    b.launch(s0, kernel("exp", 8, &[at(result(3), back_at)], &[at(result(8), view(cat, 0, 512))]));
    b.launch(s4, kernel("count", 10, &[at(counter, counter_at)], &[at(result(10), counter_at)]));
    b.sync(s3, s0);
    b.launch(s0, kernel("append", 9, &[at(kv, kv_at), at(result(7), all)], &[at(result(9), kv_all)]));
    b.launch(s0, kernel("sum", 11, &[at(result(7), all), at(result(9), kv_all)], &[at(result(11), y_at)]));
    b.sync(s0, s1);
    b.copy(s1, [result(11); 2], Place::Buffer(y_at), Place::Output(0), CopyReason::Output);
    b.entry.engines = vec![Engine {
        number: 0,
        device: g0,
        kernels: vec![KernelId(0), KernelId(2)],
        ops: vec![0, 1, 2, 3],
        inputs: vec![x],
        outputs: vec![result(2), result(3)],
        bytes_in: 1024,
        bytes_out: 1024,
        weight_bytes: 4096,
        seconds: 2e-6,
        flops: 7168.0,
        ends: vec!["gelu runs on another device".into()],
    }];
    b.entry.engines[0].kernels.iter().for_each(|k| b.entry.kernels[k.index()].engine = Some(0));
    b.finish()
}

/// The first 1,024 bytes of a buffer.
fn view_of(buffer: BufferId) -> View {
    view(buffer, 0, 1024)
}

/// How large a random plan is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Devices.
    pub devices: usize,
    /// Streams on each.
    pub streams: usize,
    /// Kernels over all devices; transfers, records and waits come on top.
    pub kernels: usize,
}

/// Random numbers (splitmix64: Steele, Lea and Flood, OOPSLA 2014, p. 459).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`, which is above 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// A command of a random plan before events are added.
struct Step {
    stream: usize,
    action: Action,
    after: BTreeSet<usize>,
}

/// Where a value is, and which steps touched its buffer: the write and the reads since.
#[derive(Clone)]
struct Live {
    operand: Operand,
    device: usize,
    touched: Vec<usize>,
    written: usize,
}

/// A random plan: kernels that read live values and write to new or reused buffers, transfers between devices, slices and
/// kernels in place; events order exactly what conflicts.
pub fn random(size: Size, seed: u64) -> Plan {
    let mut made =
        Making { b: Builder::new(), rng: Random(seed), steps: Vec::new(), live: Vec::new(), next_op: 1 };
    let devices: Vec<DeviceId> =
        (0..size.devices).map(|d| made.b.device(&format!("gpu:{d}"), false)).collect();
    for (i, &a) in devices.iter().enumerate() {
        devices[i + 1..].iter().for_each(|&other| made.b.link(a, other));
    }
    let arenas: Vec<ArenaId> = devices.iter().map(|&d| made.b.arena(d, ArenaKind::Activations)).collect();
    for &device in &devices {
        (0..size.streams).for_each(|_| {
            made.b.stream(device, StreamKind::Compute);
        });
    }
    for (d, &arena) in arenas.iter().enumerate() {
        made.input(d, arena, d * size.streams);
    }
    for _ in 0..size.kernels {
        let device = made.rng.below(size.devices);
        let stream = device * size.streams + made.rng.below(size.streams);
        made.kernel(device, arenas[device], stream);
    }
    let last = made.live.len() - 1;
    made.output(last, size.streams);
    made.emit()
}

struct Making {
    b: Builder,
    rng: Random,
    steps: Vec<Step>,
    live: Vec<Live>,
    next_op: u32,
}

impl Making {
    fn op(&mut self) -> u32 {
        self.next_op += 1;
        self.next_op - 1
    }

    fn step(&mut self, stream: usize, action: Action, after: BTreeSet<usize>) -> usize {
        self.steps.push(Step { stream, action, after });
        self.steps.len() - 1
    }

    fn input(&mut self, device: usize, arena: ArenaId, stream: usize) {
        let value = ValueRef::Argument(device as u32);
        let place = view(self.b.scratch("input", arena, 1024), 0, 1024);
        self.b.entry.inputs.push(port(&format!("in{device}"), value, place));
        let (from, to) = (Place::Input(device as u32), Place::Buffer(place));
        let copy = Action::Copy { value, result: value, from, to, reason: CopyReason::Input, seconds: 3e-6 };
        let step = self.step(stream, copy, BTreeSet::new());
        self.live.push(Live { operand: at(value, place), device, touched: vec![step], written: step });
    }

    /// A live value on the device, brought there if need be.
    fn operand(&mut self, device: usize, arena: ArenaId, stream: usize) -> usize {
        let pick = self.rng.below(self.live.len());
        if self.live[pick].device == device {
            return pick;
        }
        let source = self.live[pick].clone();
        let value = result(self.op());
        let bytes = source.operand.view.bytes;
        let to = view(self.b.scratch("moved", arena, bytes), 0, bytes);
        let copy = Action::Copy {
            value: source.operand.value,
            result: value,
            from: Place::Buffer(source.operand.view),
            to: Place::Buffer(to),
            reason: CopyReason::Transfer,
            seconds: 1e-6 + bytes as f64 / 1e9,
        };
        let step = self.step(stream, copy, BTreeSet::from([source.written]));
        self.live[pick].touched.push(step);
        self.live.push(Live { operand: at(value, to), device, touched: vec![step], written: step });
        self.live.len() - 1
    }

    fn kernel(&mut self, device: usize, arena: ArenaId, stream: usize) {
        let count = 1 + self.rng.below(2);
        let mut picks: Vec<usize> = (0..count).map(|_| self.operand(device, arena, stream)).collect();
        picks.sort_unstable();
        picks.dedup();
        let mut after: BTreeSet<usize> = picks.iter().map(|&p| self.live[p].written).collect();
        let mut reads: Vec<Operand> = picks.iter().map(|&p| self.live[p].operand).collect();
        let op = self.op();
        let step = self.steps.len();
        picks.iter().for_each(|&p| self.live[p].touched.push(step));
        // A slice of the first operand: the second half of its bytes.
        let first = reads[0];
        if self.rng.below(4) == 0 && first.view.bytes >= 2 {
            let slice = result(self.op());
            let half = first.view.bytes / 2;
            let place = view(first.view.buffer, first.view.offset + half, half);
            self.b.entry.aliases.push(Alias { value: at(slice, place), of: vec![first] });
            reads[0] = at(slice, place);
        }
        let here: Vec<usize> = (0..self.live.len()).filter(|&l| self.live[l].device == device).collect();
        let place = if here.len() > 3 && self.rng.below(3) > 0 {
            // Over a value that dies here: all that touched it comes first.
            let dead = here[self.rng.below(here.len())];
            let dead = self.live.remove(dead);
            after.extend(dead.touched.iter().copied().filter(|&s| s != step));
            dead.operand.view
        } else {
            let bytes = 128 * (1 + self.rng.below(8) as u64);
            view(self.b.scratch("value", arena, bytes), 0, bytes)
        };
        // A slice may not be overwritten in part by the kernel that reads it.
        reads.retain(|r| r.view == place || r.view.buffer != place.buffer);
        let written = at(result(op), place);
        let id = KernelId(self.b.entry.kernels.len() as u32);
        self.b.entry.kernels.push(kernel(&format!("k{}", id.0), op, &reads, &[written]));
        let step = self.step(stream, Action::Launch { kernel: id }, after);
        self.live.push(Live { operand: written, device, touched: vec![step], written: step });
    }

    fn output(&mut self, pick: usize, streams: usize) {
        let live = self.live[pick].clone();
        let Operand { value, view } = live.operand;
        self.b.entry.outputs.push(port("out", value, view));
        let (from, to) = (Place::Buffer(view), Place::Output(0));
        let copy = Action::Copy { value, result: value, from, to, reason: CopyReason::Output, seconds: 2e-6 };
        self.step(live.device * streams, copy, BTreeSet::from([live.written]));
    }

    /// Adds records and waits for what other streams' steps come after.
    fn emit(mut self) -> Plan {
        let steps = std::mem::take(&mut self.steps);
        let mut events: BTreeMap<usize, EventId> = BTreeMap::new();
        for step in &steps {
            for &earlier in step.after.iter().filter(|&&e| steps[e].stream != step.stream) {
                let next = EventId(events.len() as u32);
                events.entry(earlier).or_insert(next);
            }
        }
        self.b.entry.events = events.len() as u32;
        for (number, step) in steps.iter().enumerate() {
            let stream = StreamId(step.stream as u32);
            for earlier in step.after.iter().filter(|&&e| steps[e].stream != step.stream) {
                self.b.issue(stream, Action::Wait { event: events[earlier] });
            }
            self.b.issue(stream, step.action);
            if let Some(&event) = events.get(&number) {
                self.b.issue(stream, Action::Record { event });
            }
        }
        self.b.finish()
    }
}
