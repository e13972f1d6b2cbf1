//! A naive planner for tests: correct by construction, configurable in what it exercises.
#![allow(dead_code, reason = "each test file uses a part of it")]

use djinn_interp::Env;
use djinn_ir::{
    ArgumentKind, Attrs, Function, Graph, Module, OpId, OpKind, ResultKind, Symbol, TensorData, TensorType,
    ValueId, Visibility,
};
use djinn_plan::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) fn f32s(shape: &[usize], values: &[f32]) -> TensorData {
    TensorData::from_f32(shape, values).expect("fits")
}

pub(crate) fn ty(dims: &[&str]) -> TensorType {
    TensorType::new(djinn_ir::DType::F32, dims.iter().map(|d| d.parse().expect("dimension")))
}

pub(crate) fn op(graph: &mut Graph, kind: OpKind, operands: &[ValueId], attrs: Attrs) -> ValueId {
    graph.build1(kind, operands, attrs).unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn inputs(values: &[(&str, TensorData)]) -> BTreeMap<String, TensorData> {
    values.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect()
}

pub(crate) fn function(
    graph: Graph,
    arguments: &[(&str, ArgumentKind)],
    results: &[(&str, ResultKind)],
) -> Function {
    Function {
        name: Arc::from("main"),
        visibility: Visibility::Entry,
        graph,
        arguments: arguments.iter().map(|(n, k)| (Arc::from(*n), k.clone())).collect(),
        results: results.iter().map(|(n, k)| (Arc::from(*n), k.clone())).collect(),
    }
}

pub(crate) fn module(f: Function) -> Module {
    Module { functions: vec![f], ..Module::default() }
}

/// A small generator of numbers (Steele, Lea, Flood: SplitMix64, OOPSLA 2014).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// What the planner is asked to do.
pub(crate) struct Wish {
    pub(crate) devices: usize,
    pub(crate) streams_per_device: usize,
    /// Global stream of each operation by position: `device * streams_per_device + stream`.
    pub(crate) stream_of: Box<dyn Fn(usize) -> usize>,
    /// Reshapes are aliases of their operands.
    pub(crate) aliases: bool,
    /// Storage of dead values is used again.
    pub(crate) reuse: bool,
    /// Operations per kernel, at most, where they follow each other in one stream.
    pub(crate) group: usize,
    /// Inputs and outputs stay on the device.
    pub(crate) resident: bool,
    /// Sizes of symbols.
    pub(crate) ranges: Vec<(&'static str, i64, i64)>,
}

impl Default for Wish {
    fn default() -> Self {
        Wish {
            devices: 1,
            streams_per_device: 1,
            stream_of: Box::new(|_| 0),
            aliases: false,
            reuse: false,
            group: 1,
            resident: false,
            ranges: Vec::new(),
        }
    }
}

/// A plan for function `main`.
pub(crate) fn plan(program: &Module, wish: &Wish) -> Plan {
    plan_functions(program, &["main"], wish)
}

/// A plan with one entry for each of these functions.
pub(crate) fn plan_functions(program: &Module, functions: &[&str], wish: &Wish) -> Plan {
    let mut plan = empty_plan(wish.devices);
    for name in functions {
        add_entry(&mut plan, program, name, wish);
    }
    plan
}

fn empty_plan(devices: usize) -> Plan {
    let device = |i| Device {
        name: format!("host:{i}"),
        profile: "host".to_owned(),
        memory_bytes: 1 << 30,
        host: true,
        sync_seconds: 0.0,
    };
    let kinds = [ArenaKind::Weights, ArenaKind::State, ArenaKind::Activations];
    let arenas =
        (0..devices).flat_map(|d| kinds.map(|kind| Arena { device: DeviceId(d as u32), kind, bytes: 0 }));
    let mut links = Vec::new();
    for (a, b) in (0..devices).flat_map(|a| (0..devices).map(move |b| (a, b))).filter(|(a, b)| a != b) {
        let (from, to) = (DeviceId(a as u32), DeviceId(b as u32));
        links.push(Link { from, to, bandwidth: 1e9, latency: 1e-5, hops: vec!["bus".to_owned()] });
    }
    Plan {
        version: FORMAT_VERSION,
        program: "0".to_owned(),
        devices: (0..devices).map(device).collect(),
        links,
        arenas: arenas.collect(),
        buffers: Vec::new(),
        entries: Vec::new(),
    }
}

fn add_entry(plan: &mut Plan, program: &Module, name: &str, wish: &Wish) {
    let f = program.function(name).expect("there");
    let number = plan.entries.len() as u32;
    let symbols: Vec<SymbolRange> = wish
        .ranges
        .iter()
        .map(|(name, min, max)| SymbolRange { name: (*name).to_owned(), min: *min, max: *max })
        .collect();
    let mut largest = Env::new();
    symbols.iter().for_each(|r| largest.set(Symbol::new(&r.name), r.max));
    let streams = (0..wish.devices * wish.streams_per_device)
        .map(|s| Stream { device: DeviceId((s / wish.streams_per_device) as u32), kind: StreamKind::Compute })
        .collect();
    let entry = Entry {
        function: name.to_owned(),
        phase: None,
        granularity: djinn_plan::Granularity::Kernels,
        symbols,
        inputs: Vec::new(),
        outputs: Vec::new(),
        states: Vec::new(),
        updates: Vec::new(),
        constants: Vec::new(),
        streams,
        events: 0,
        kernels: Vec::new(),
        engines: Vec::new(),
        aliases: Vec::new(),
        commands: Vec::new(),
        budgets: Vec::new(),
        seconds: 0.0,
    };
    let ops: Vec<OpId> = f.graph.ops().map(|(id, _)| id).collect();
    Naive {
        plan,
        program,
        f,
        wish,
        number,
        largest,
        entry,
        ops,
        ahead: BTreeSet::new(),
        homes: BTreeMap::new(),
        accesses: BTreeMap::new(),
        free: Vec::new(),
        uses: f.graph.use_counts(),
    }
    .run();
}

/// Does no size of an operation depend on a symbol?
fn sizes_fixed(graph: &Graph, op: &djinn_ir::Op) -> bool {
    let attrs = op.attrs.iter().all(|(_, attr)| match attr {
        djinn_ir::Attr::Dim(dim) => dim.as_const().is_some(),
        djinn_ir::Attr::Dims(dims) => dims.iter().all(|d| d.as_const().is_some()),
        _ => true,
    });
    attrs && op.results.iter().all(|v| graph.ty(*v).const_shape().is_some())
}

/// Where a value is on a device.
#[derive(Clone, Copy)]
struct Home {
    view: View,
    /// Key of `accesses`: buffers on the same bytes share it.
    storage: (u32, u64),
}

#[derive(Default, Clone)]
struct Accesses {
    /// Stream and event.
    writer: Option<(usize, u32)>,
    readers: Vec<(usize, u32)>,
}

struct Naive<'a> {
    plan: &'a mut Plan,
    program: &'a Module,
    f: &'a Function,
    wish: &'a Wish,
    number: u32,
    largest: Env,
    entry: Entry,
    ops: Vec<OpId>,
    ahead: BTreeSet<ValueId>,
    homes: BTreeMap<(ValueId, usize), Home>,
    accesses: BTreeMap<(u32, u64), Accesses>,
    /// Device, bytes, first byte of storage that is free.
    free: Vec<(usize, u64, u64)>,
    uses: Vec<u32>,
}

impl Naive<'_> {
    fn value_ref(&self, v: ValueId) -> ValueRef {
        if let Some(i) = self.f.graph.arguments.iter().position(|a| *a == v) {
            return ValueRef::Argument(i as u32);
        }
        let (op, index) = self.f.graph.definition(v).expect("result");
        let op = self.ops.iter().position(|o| *o == op).expect("in order") as u32;
        ValueRef::Result { op, index: index as u32 }
    }

    fn bytes(&self, v: ValueId) -> u64 {
        let ty = self.f.graph.ty(v);
        let shape = self.largest.shape(ty).expect("ranges name every symbol");
        (shape.iter().product::<usize>() * ty.dtype.size()) as u64
    }

    fn buffer(&mut self, name: String, device: usize, kind: usize, bytes: u64, content: Content) -> Home {
        let arena = device * 3 + kind;
        let reused = self.free.iter().position(|(d, n, _)| *d == device && *n >= bytes && kind == 2);
        let offset = match reused {
            Some(i) => self.free.remove(i).2,
            None => {
                let offset = self.plan.arenas[arena].bytes;
                self.plan.arenas[arena].bytes = (offset + bytes).next_multiple_of(ALIGNMENT);
                offset
            }
        };
        let id = BufferId(self.plan.buffers.len() as u32);
        self.plan.buffers.push(Buffer { name, arena: ArenaId(arena as u32), offset, bytes, content });
        Home { view: View { buffer: id, offset: 0, bytes }, storage: (arena as u32, offset) }
    }

    fn new_home(&mut self, v: ValueId, device: usize) -> Home {
        let mut content = Content::Run { entry: self.number };
        let mut kind = 2;
        let graph = &self.f.graph;
        let mut results = graph.results.iter().zip(&self.f.results);
        let handed_out = results.any(|(r, (_, kind))| *r == v && *kind == ResultKind::Output);
        if self.wish.resident && (graph.arguments.contains(&v) || handed_out) {
            // What stays on the device stands in a state's buffer on the first device.
            if device == 0 {
                (content, kind) = (Content::State { name: format!("resident {}", v.0) }, 1);
            }
        }
        let home = self.buffer(format!("value {}", v.0), device, kind, self.bytes(v), content);
        self.homes.insert((v, device), home);
        home
    }

    fn push(&mut self, stream: usize, action: Action) {
        self.entry.commands.push(Command { stream: StreamId(stream as u32), action });
    }

    /// Issues a command after everything that it must wait for, and records an event after it.
    fn issue(&mut self, stream: usize, reads: &[Home], writes: &[Home], action: Action) {
        let mut waits = BTreeSet::new();
        for home in reads.iter().chain(writes) {
            waits.extend(self.accesses.entry(home.storage).or_default().writer);
        }
        for home in writes {
            waits.extend(self.accesses[&home.storage].readers.iter().copied());
        }
        for (_, event) in waits.into_iter().filter(|(s, _)| *s != stream) {
            self.push(stream, Action::Wait { event: EventId(event) });
        }
        self.push(stream, action);
        let event = self.entry.events;
        self.entry.events += 1;
        self.push(stream, Action::Record { event: EventId(event) });
        for home in reads {
            self.accesses.entry(home.storage).or_default().readers.push((stream, event));
        }
        for home in writes {
            let fresh = Accesses { writer: Some((stream, event)), readers: Vec::new() };
            self.accesses.insert(home.storage, fresh);
        }
    }

    fn copy(
        &mut self,
        stream: usize,
        v: ValueId,
        from: (Place, Option<Home>),
        to: (Place, Option<Home>),
        reason: CopyReason,
    ) {
        let value = self.value_ref(v);
        let (reads, writes): (Vec<Home>, Vec<Home>) =
            (from.1.into_iter().collect(), to.1.into_iter().collect());
        let action = Action::Copy { value, result: value, from: from.0, to: to.0, reason, seconds: 0.0 };
        self.issue(stream, &reads, &writes, action);
    }

    /// The value on a device, copied there if need be.
    fn home(&mut self, v: ValueId, device: usize, stream: usize) -> Home {
        if let Some(home) = self.homes.get(&(v, device)) {
            return *home;
        }
        if self.ahead.contains(&v) {
            let content =
                Content::Constant { function: self.entry.function.clone(), value: self.value_ref(v) };
            let home = self.buffer(format!("constant {}", v.0), device, 0, self.bytes(v), content);
            self.homes.insert((v, device), home);
            self.entry.constants.push(Operand { value: self.value_ref(v), view: home.view });
            return home;
        }
        let from = (0..self.wish.devices).find_map(|d| self.homes.get(&(v, d))).copied().expect("made");
        let to = self.new_home(v, device);
        let places = (Place::Buffer(from.view), Place::Buffer(to.view));
        self.copy(stream, v, (places.0, Some(from)), (places.1, Some(to)), CopyReason::Transfer);
        to
    }

    fn run(mut self) {
        self.arguments();
        let (mut at, ops) = (0, self.ops.clone());
        while at < ops.len() {
            let o = self.f.graph.op(ops[at]);
            if o.operands.iter().all(|v| self.ahead.contains(v)) && sizes_fixed(&self.f.graph, o) {
                self.ahead.extend(o.results.iter().copied());
                at += 1;
                continue;
            }
            let stream = (self.wish.stream_of)(at);
            if self.wish.aliases && o.kind == OpKind::Reshape && self.alias(o.operands[0], o.results[0]) {
                self.count_down(&o.operands);
                at += 1;
                continue;
            }
            let mut end = at + 1;
            while end < ops.len() && end - at < self.wish.group && (self.wish.stream_of)(end) == stream {
                let next = self.f.graph.op(ops[end]);
                let ahead =
                    next.operands.iter().all(|v| self.ahead.contains(v)) && sizes_fixed(&self.f.graph, next);
                if ahead || (self.wish.aliases && next.kind == OpKind::Reshape) {
                    break;
                }
                end += 1;
            }
            self.kernel(at, end, stream);
            at = end;
        }
        self.results();
        self.plan.entries.push(self.entry);
    }

    fn arguments(&mut self) {
        for (i, (name, kind)) in self.f.arguments.iter().enumerate() {
            let v = self.f.graph.arguments[i];
            let bytes = self.bytes(v);
            if let ArgumentKind::State { .. } = kind {
                let content = Content::State { name: name.to_string() };
                let old = self.plan.buffers.iter().position(|b| b.content == content);
                let home = match old {
                    Some(b) => Home {
                        view: View { buffer: BufferId(b as u32), offset: 0, bytes },
                        storage: (self.plan.buffers[b].arena.0, self.plan.buffers[b].offset),
                    },
                    None => self.buffer(name.to_string(), 0, 1, bytes, content),
                };
                self.homes.insert((v, 0), home);
                self.entry.states.push(StateBinding { argument: i as u32, view: home.view });
                continue;
            }
            let number = self.entry.inputs.len() as u32;
            let used = self.uses[v.0 as usize] > 0;
            let home = used.then(|| self.new_home(v, 0));
            self.entry.inputs.push(Port {
                name: name.to_string(),
                ty: self.f.graph.ty(v).to_string(),
                value: ValueRef::Argument(i as u32),
                view: home.map(|h| h.view),
                resident: self.wish.resident && used,
                update_of: None,
            });
            if let Some(home) = home.filter(|_| !self.wish.resident) {
                let to = (Place::Buffer(home.view), Some(home));
                self.copy(0, v, (Place::Input(number), None), to, CopyReason::Input);
            }
        }
    }

    fn alias(&mut self, of: ValueId, result: ValueId) -> bool {
        let homes: Vec<(usize, Home)> =
            (0..self.wish.devices).filter_map(|d| Some((d, *self.homes.get(&(of, d))?))).collect();
        let Some((device, home)) = homes.first().copied() else { return false };
        self.homes.insert((result, device), home);
        let (value, of) = (self.value_ref(result), self.value_ref(of));
        let value = Operand { value, view: home.view };
        self.entry.aliases.push(Alias { value, of: vec![Operand { value: of, view: home.view }] });
        true
    }

    fn kernel(&mut self, at: usize, end: usize, stream: usize) {
        let device = stream / self.wish.streams_per_device;
        let graph = &self.f.graph;
        let members: Vec<&djinn_ir::Op> = self.ops[at..end].iter().map(|o| graph.op(*o)).collect();
        let made: BTreeSet<ValueId> = members.iter().flat_map(|o| o.results.iter().copied()).collect();
        let read: BTreeSet<ValueId> = members.iter().flat_map(|o| o.operands.iter().copied()).collect();
        let reads: Vec<(ValueId, Home)> =
            read.difference(&made).map(|v| (*v, self.home(*v, device, stream))).collect();
        let inner = |v: &ValueId| {
            let count = members.iter().flat_map(|o| &o.operands).filter(|o| *o == v).count() as u32;
            count == self.uses[v.0 as usize]
        };
        let written: Vec<ValueId> = made.iter().copied().filter(|v| !inner(v)).collect();
        let operands: Vec<ValueId> = members.iter().flat_map(|o| o.operands.iter().copied()).collect();
        // Storage of what dies here may take what is written here: in place.
        self.count_down(&operands);
        let writes: Vec<(ValueId, Home)> = written.iter().map(|v| (*v, self.new_home(*v, device))).collect();
        let operand =
            |n: &Self, (v, home): &(ValueId, Home)| Operand { value: n.value_ref(*v), view: home.view };
        let name: Vec<&str> = self.ops[at..end].iter().map(|o| self.f.graph.op(*o).kind.name()).collect();
        let kernel = Kernel {
            name: name.join("+"),
            ops: (at as u32..end as u32).collect(),
            engine: None,
            reads: reads.iter().map(|r| operand(self, r)).collect(),
            writes: writes.iter().map(|w| operand(self, w)).collect(),
            workspace: None,
            seconds: 0.0,
            flops: 0.0,
            traffic: 0.0,
            share: 1.0,
        };
        self.entry.kernels.push(kernel);
        let kernel = KernelId(self.entry.kernels.len() as u32 - 1);
        let homes = |list: &[(ValueId, Home)]| list.iter().map(|(_, h)| *h).collect::<Vec<Home>>();
        let varying: Vec<(ValueId, Home)> =
            reads.iter().copied().filter(|(v, _)| !self.ahead.contains(v)).collect();
        self.issue(stream, &homes(&varying), &homes(&writes), Action::Launch { kernel });
    }

    /// Counts uses; storage of values without further uses becomes free.
    fn count_down(&mut self, operands: &[ValueId]) {
        for v in operands {
            let left = &mut self.uses[v.0 as usize];
            *left -= 1;
            if *left > 0 || !self.wish.reuse || self.ahead.contains(v) {
                continue;
            }
            for device in 0..self.wish.devices {
                let Some(home) = self.homes.get(&(*v, device)) else { continue };
                let storage = home.storage;
                // Another value alive on the same bytes (an alias), a state, or what outlives the run keeps them.
                let alive = |(other, _): &(ValueId, usize)| self.uses[other.0 as usize] > 0;
                let shared = self.homes.iter().any(|(k, h)| h.storage == storage && k.0 != *v && alive(k));
                let freed = self.free.iter().any(|(d, _, o)| (*d, *o) == (device, storage.1));
                if storage.0 as usize % 3 == 2 && !shared && !freed {
                    self.free.push((device, home.view.bytes, storage.1));
                }
            }
        }
    }

    fn results(&mut self) {
        for ((name, kind), v) in self.f.results.iter().zip(self.f.graph.results.clone()) {
            let update_of = match kind {
                ResultKind::Update(n) => Some(*n),
                ResultKind::Output => None,
            };
            let state = update_of
                .and_then(|n| self.entry.states.iter().find(|s| s.argument == n).map(|s| (n, s.view)));
            if let Some((argument, view)) = state {
                let old = self.homes[&(self.f.graph.arguments[argument as usize], 0)];
                let new = self.home(v, 0, 0);
                if new.view != view {
                    let to = (Place::Buffer(view), Some(old));
                    self.copy(0, v, (Place::Buffer(new.view), Some(new)), to, CopyReason::Update);
                }
                self.entry.updates.push(StateUpdate { argument, value: self.value_ref(v), view });
                continue;
            }
            let number = self.entry.outputs.len() as u32;
            let plain = self.ahead.contains(&v) || self.f.graph.arguments.contains(&v);
            let home = (!plain).then(|| self.home(v, 0, 0));
            // An alias stands where its operand is, and that is no state's buffer.
            let in_state = |h: Home| h.storage.0 % 3 == 1;
            let resident = self.wish.resident && home.is_some_and(in_state);
            self.entry.outputs.push(Port {
                name: name.to_string(),
                ty: self.f.graph.ty(v).to_string(),
                value: self.value_ref(v),
                view: home.map(|h| h.view),
                resident,
                update_of,
            });
            if let Some(home) = home.filter(|_| !resident) {
                let from = (Place::Buffer(home.view), Some(home));
                self.copy(0, v, from, (Place::Output(number), None), CopyReason::Output);
            }
        }
    }
}
