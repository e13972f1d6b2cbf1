//! What placement needs to know of a function: its run-time operations, values, constants and states.

use crate::devices::Devices;
use djinn_cost::{CostModel, UNBOUND_SIZE};
use djinn_device::Target;
use djinn_diag::{Result, input};
use djinn_ir::ops::{CostClass, traits};
use djinn_ir::{
    ArgumentKind, Caches, Function, Graph, Module, OpId, OpKind, ResultKind, SymbolTable, TensorType,
    ValueId, walk,
};
use djinn_place::Link;
use std::collections::{BTreeMap, BTreeSet};

/// Buffers of a plan begin at multiples of this many bytes (`djinn_plan::ALIGNMENT`).
const ALIGNMENT: u64 = 256;

/// States of the module by name, joined where one operation needs two.
#[derive(Debug, Default)]
pub(crate) struct States {
    numbers: BTreeMap<String, usize>,
    /// Where the search for the class of a state goes on.
    parents: Vec<usize>,
    /// Bytes of each state.
    pub(crate) bytes: Vec<u64>,
}

impl States {
    fn number(&mut self, name: String, bytes: u64) -> usize {
        let fresh = self.parents.len();
        let number = *self.numbers.entry(name).or_insert(fresh);
        if number == fresh {
            self.parents.push(fresh);
            self.bytes.push(0);
        }
        self.bytes[number] = self.bytes[number].max(bytes);
        number
    }

    /// The class that a state belongs to.
    pub(crate) fn class(&self, state: usize) -> usize {
        let mut class = state;
        while self.parents[class] != class {
            class = self.parents[class];
        }
        class
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.class(a), self.class(b));
        let (low, high) = (a.min(b), a.max(b));
        self.parents[high] = low;
    }
}

/// A value that run-time operations pass on.
#[derive(Debug)]
pub(crate) struct Passed {
    /// Which.
    pub(crate) value: ValueId,
    /// The position of its operation among the run-time operations.
    pub(crate) producer: usize,
    /// The positions of its users.
    pub(crate) users: Vec<usize>,
    /// Its bytes at the bound sizes.
    pub(crate) bytes: f64,
}

/// A weight, or what is computed from weights, that run-time operations read.
#[derive(Debug)]
pub(crate) struct Constant {
    /// Equal for equal constants, in all functions.
    pub(crate) key: String,
    /// Its bytes.
    pub(crate) bytes: u64,
    /// The positions of its users.
    pub(crate) users: Vec<usize>,
}

/// What placement needs to know of a function.
#[derive(Debug)]
pub(crate) struct Facts {
    /// The operations that run and have one place, in order.
    pub(crate) ops: Vec<OpId>,
    /// The operations that run on every device that needs their results: that takes less time than a transfer.
    pub(crate) repeated: BTreeSet<OpId>,
    /// The links between devices.
    pub(crate) links: Vec<Vec<Link>>,
    /// Which values are known ahead of time, by value number.
    pub(crate) ahead: Vec<bool>,
    /// Seconds of each operation on each device.
    pub(crate) seconds: Vec<Vec<f64>>,
    /// The device that each operation is pinned to.
    pub(crate) pins: Vec<Option<usize>>,
    /// A state that each operation reads or updates.
    pub(crate) state_of: Vec<Option<usize>>,
    /// Values between operations.
    pub(crate) values: Vec<Passed>,
    /// Weights and what is computed from them.
    pub(crate) constants: Vec<Constant>,
    /// The key of each of these values.
    pub(crate) keys: BTreeMap<ValueId, String>,
    /// The bytes of activations that each device keeps free.
    pub(crate) activation_bytes: u64,
}

impl Facts {
    pub(crate) fn new(
        module: &Module,
        function: &Function,
        target: &Target,
        devices: &Devices,
        states: &mut States,
        estimate: Activations,
    ) -> Result<Self> {
        let graph = &function.graph;
        let ahead = walk::known_before_runs(function);
        let runs = |id: &OpId| {
            graph.op(*id).results.iter().any(|v| !ahead[v.0 as usize]) || graph.op(*id).results.is_empty()
        };
        let mut ops: Vec<OpId> = graph.ops().map(|(id, _)| id).filter(runs).collect();
        let links = crate::model::links(target, devices);
        let repeated =
            Repeated { module, function, target, devices, links: &links, ahead: &ahead }.find(&ops)?;
        let sizes = Sizes { symbols: &module.symbols, target };
        let caches = module.caches(function);
        let activation_bytes = activations(function, &caches, &ops, &sizes, estimate);
        ops.retain(|id| !repeated.contains(id));
        let mut facts = Self {
            repeated,
            links,
            pins: ops.iter().map(|id| devices.pin(graph.op(*id))).collect::<Result<_>>()?,
            seconds: seconds(module, graph, &ops, target, devices.names.len()),
            state_of: vec![None; ops.len()],
            values: Vec::new(),
            constants: Vec::new(),
            keys: BTreeMap::new(),
            activation_bytes,
            ahead,
            ops,
        };
        facts.find_states(module, function, &sizes, states);
        facts.find_values(graph, &CostModel::of_target(target, 0, &module.symbols));
        facts.find_constants(graph, &sizes);
        facts.check_pins(function, states, devices)?;
        Ok(facts)
    }

    /// Bytes of all constants.
    pub(crate) fn constant_bytes(&self) -> u64 {
        self.constants.iter().fold(0, |sum, c| sum.saturating_add(c.bytes))
    }

    /// Joins each operation with the states that it reads or updates.
    fn find_states(&mut self, module: &Module, function: &Function, sizes: &Sizes<'_>, states: &mut States) {
        let graph = &function.graph;
        let updates: BTreeMap<usize, ValueId> = function
            .results
            .iter()
            .zip(&graph.results)
            .filter_map(|((_, kind), v)| match kind {
                ResultKind::Update(argument) => Some((*argument as usize, *v)),
                ResultKind::Output => None,
            })
            .collect();
        let mut number_of: BTreeMap<ValueId, usize> = BTreeMap::new();
        let caches = module.caches(function);
        for (i, ((name, kind), v)) in function.arguments.iter().zip(&graph.arguments).enumerate() {
            let is_state = matches!(kind, ArgumentKind::State { .. });
            if is_state || updates.contains_key(&i) || caches.arguments.contains(&i) {
                // An input that is written in place belongs to this function alone.
                let name = if is_state { name.to_string() } else { format!("{}\n{name}", function.name) };
                let number = states.number(name, sizes.bytes(graph.ty(*v)));
                number_of.insert(*v, number);
                if let Some(update) = updates.get(&i).filter(|u| !graph.is_argument(**u)) {
                    number_of.insert(*update, number);
                }
            }
        }
        for (i, v) in graph.results.iter().enumerate().filter(|(i, _)| caches.results.contains(i)) {
            let bytes = sizes.bytes(graph.ty(*v));
            // What is appended to a cache stands in its bytes.
            let old = graph.definition(*v).map(|(id, _)| graph.op(id));
            let old =
                old.filter(|op| op.kind == OpKind::Concat).and_then(|op| number_of.get(&op.operands[0]));
            if let Some(&state) = old {
                states.bytes[state] = states.bytes[state].max(bytes);
                number_of.insert(*v, state);
                continue;
            }
            let name = format!("{}\n\n{i}", function.name);
            number_of.entry(*v).or_insert_with(|| states.number(name, bytes));
        }
        for (position, id) in self.ops.iter().enumerate() {
            let op = graph.op(*id);
            // The bytes of a view are those of the state, so its readers are where the state is.
            if matches!(op.kind, OpKind::Reshape | OpKind::DynamicReshape)
                && let Some(state) = number_of.get(&op.operands[0]).copied()
            {
                number_of.entry(op.results[0]).or_insert(state);
            }
            for state in op.operands.iter().chain(&op.results).filter_map(|v| number_of.get(v)) {
                match self.state_of[position] {
                    None => self.state_of[position] = Some(*state),
                    Some(first) => states.join(first, *state),
                }
            }
        }
    }

    fn find_values(&mut self, graph: &Graph, model: &CostModel<'_>) {
        let mut index: BTreeMap<ValueId, usize> = BTreeMap::new();
        for (position, id) in self.ops.iter().enumerate() {
            let op = graph.op(*id);
            for v in &op.operands {
                if let Some(&i) = index.get(v)
                    && self.values[i].users.last() != Some(&position)
                {
                    self.values[i].users.push(position);
                }
            }
            for v in op.results.iter().filter(|v| !self.ahead[v.0 as usize]) {
                index.insert(*v, self.values.len());
                let bytes = model.bytes(graph.ty(*v)).clamp(0.0, 1e18);
                self.values.push(Passed { value: *v, producer: position, users: Vec::new(), bytes });
            }
        }
        self.values.retain(|v| !v.users.is_empty());
    }

    fn find_constants(&mut self, graph: &Graph, sizes: &Sizes<'_>) {
        let mut users: BTreeMap<ValueId, Vec<usize>> = BTreeMap::new();
        for (position, id) in self.ops.iter().enumerate() {
            for v in self.constants_of(graph, *id) {
                users.entry(v).or_default().push(position);
            }
        }
        let mut keys: BTreeMap<ValueId, String> = BTreeMap::new();
        let mut constants: BTreeMap<String, Constant> = BTreeMap::new();
        for (value, users) in users {
            let key = key_of(graph, value, &mut keys);
            let bytes = sizes.bytes(graph.ty(value));
            let fresh = Constant { key: key.clone(), bytes, users: Vec::new() };
            constants.entry(key.clone()).or_insert(fresh).users.extend(users);
            self.keys.insert(value, key);
        }
        self.constants = constants.into_values().collect();
        for constant in &mut self.constants {
            constant.users.sort_unstable();
            constant.users.dedup();
        }
    }

    /// The constants that an operation needs: its own, and those of the repeated operations before it.
    fn constants_of(&self, graph: &Graph, id: OpId) -> BTreeSet<ValueId> {
        let mut found = BTreeSet::new();
        let mut stack = vec![id];
        let mut seen = BTreeSet::new();
        while let Some(id) = stack.pop() {
            for v in &graph.op(id).operands {
                let source = graph.definition(*v).map(|d| d.0).filter(|s| self.repeated.contains(s));
                if self.ahead[v.0 as usize] {
                    found.insert(*v);
                } else if let Some(source) = source.filter(|s| seen.insert(*s)) {
                    stack.push(source);
                }
            }
        }
        found
    }

    /// Refuses pins that put one state on several devices.
    fn check_pins(&self, function: &Function, states: &States, devices: &Devices) -> Result<()> {
        let mut pinned: BTreeMap<usize, usize> = BTreeMap::new();
        for (position, (state, pin)) in self.state_of.iter().zip(&self.pins).enumerate() {
            let (Some(state), Some(device)) = (state, pin) else { continue };
            let first = *pinned.entry(states.class(*state)).or_insert(*device);
            if first != *device {
                let op = function.graph.op(self.ops[position]);
                let message = format!(
                    "'{}' is pinned to {}, but the state it uses is needed on {} by another pin",
                    op.kind.name(),
                    devices.names[*device],
                    devices.names[first]
                );
                let help =
                    "a state, its readers and its update are on one device: pin all of them to the same";
                return Err(input("colocate.pin", message).help(help).shortened());
            }
        }
        Ok(())
    }
}

/// How the bytes that activations take on a device are estimated before it is known what runs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Activations {
    /// As if everything ran there: what is placed then fits.
    #[default]
    Peak,
    /// What the largest operation takes by itself: less does not do, but it may take more.
    Least,
}

/// The bytes of activations that each device is to keep free. Views, states and caches take none.
fn activations(
    function: &Function,
    caches: &Caches,
    ops: &[OpId],
    sizes: &Sizes<'_>,
    estimate: Activations,
) -> u64 {
    let graph = &function.graph;
    let kept = |(i, (_, (_, kind))): &(usize, (&ValueId, &(std::sync::Arc<str>, ResultKind)))| {
        caches.results.contains(i) || matches!(kind, ResultKind::Update(_))
    };
    let results = graph.results.iter().zip(&function.results).enumerate();
    let kept: BTreeSet<ValueId> = results.filter(kept).map(|(_, (v, _))| *v).collect();
    if estimate == Activations::Peak {
        return peak(graph, ops, sizes, &kept);
    }
    let bytes = |v: &ValueId| {
        if graph.is_argument(*v) || kept.contains(v) { 0 } else { sizes.bytes(graph.ty(*v)) }
    };
    let made: BTreeSet<ValueId> = ops.iter().flat_map(|id| &graph.op(*id).results).copied().collect();
    let of_one = |id: &OpId| {
        let op = graph.op(*id);
        if op.kind.def().cost == CostClass::Free {
            return 0;
        }
        // An operand may be overwritten by the result, so that only the larger side surely has to be there.
        let read = op.operands.iter().filter(|v| made.contains(v)).map(bytes).fold(0, u64::saturating_add);
        let written = op.results.iter().map(bytes).fold(0, u64::saturating_add);
        read.max(written)
    };
    ops.iter().map(of_one).max().unwrap_or(0)
}

/// The most bytes of results alive at once, in order.
fn peak(graph: &Graph, ops: &[OpId], sizes: &Sizes<'_>, kept: &BTreeSet<ValueId>) -> u64 {
    let mut last: BTreeMap<ValueId, usize> = BTreeMap::new();
    for (position, id) in ops.iter().enumerate() {
        for v in &graph.op(*id).operands {
            last.insert(*v, position);
        }
    }
    for v in &graph.results {
        last.insert(*v, ops.len());
    }
    let mut ends: Vec<u64> = vec![0; ops.len() + 1];
    let (mut live, mut most) = (0u64, 0u64);
    for (position, id) in ops.iter().enumerate() {
        let op = graph.op(*id);
        if op.kind.def().cost != CostClass::Free {
            for v in op.results.iter().filter(|v| !kept.contains(v)) {
                let bytes = sizes.bytes(graph.ty(*v));
                let end = last.get(v).copied().unwrap_or(position);
                ends[end] = ends[end].saturating_add(bytes);
                live = live.saturating_add(bytes);
            }
        }
        most = most.max(live);
        live = live.saturating_sub(ends[position]);
    }
    most
}

/// The search for operations to be repeated.
struct Repeated<'a> {
    module: &'a Module,
    function: &'a Function,
    target: &'a Target,
    devices: &'a Devices,
    links: &'a [Vec<Link>],
    ahead: &'a [bool],
}

impl Repeated<'_> {
    /// Pure operations without pins whose operands every device has, and that take less time, with the repeated ones
    /// before them, than the transfer of each result between any two devices.
    fn find(&self, ops: &[OpId]) -> Result<BTreeSet<OpId>> {
        let graph = &self.function.graph;
        let updated =
            |i: usize| self.function.results.iter().any(|(_, kind)| *kind == ResultKind::Update(i as u32));
        let is_state = |i: usize| matches!(self.function.arguments[i].1, ArgumentKind::State { .. });
        let given = graph.arguments.iter().enumerate().filter(|(i, _)| !is_state(*i) && !updated(*i));
        let mut seconds: BTreeMap<ValueId, f64> = given.map(|(_, v)| (*v, 0.0)).collect();
        let model = CostModel::of_target(self.target, 0, &self.module.symbols);
        let mut repeated = BTreeSet::new();
        for id in ops {
            let op = graph.op(*id);
            let pure = op.kind.def().has(traits::PURE) && op.regions.is_empty();
            let result = op.results.iter().any(|v| graph.results.contains(v));
            if !pure || result || op.kind == OpKind::Transfer || self.devices.pin(op)?.is_some() {
                continue;
            }
            let operand =
                |v: &ValueId| if self.ahead[v.0 as usize] { Some(0.0) } else { seconds.get(v).copied() };
            let Some(before) = op.operands.iter().map(operand).sum::<Option<f64>>() else { continue };
            let own = seconds_on_slowest(self.module, graph, *id, self.target, self.devices.names.len());
            let total = before + own;
            let moved = |v: &ValueId| self.least_transfer(model.bytes(graph.ty(*v)));
            if op.results.iter().all(|v| total < moved(v)) {
                repeated.insert(*id);
                seconds.extend(op.results.iter().map(|v| (*v, total)));
            }
        }
        Ok(repeated)
    }

    fn least_transfer(&self, bytes: f64) -> f64 {
        let rows = self.links.iter().enumerate();
        let pairs = rows.flat_map(|(a, row)| row.iter().enumerate().filter(move |(b, _)| a != *b));
        pairs.map(|(_, l)| l.latency + l.seconds_per_byte * bytes).fold(f64::INFINITY, f64::min)
    }
}

/// Seconds of an operation on the device where it takes longest.
fn seconds_on_slowest(module: &Module, graph: &Graph, id: OpId, target: &Target, count: usize) -> f64 {
    seconds(module, graph, &[id], target, count)[0].iter().copied().fold(0.0, f64::max)
}

/// Seconds of each operation on each device; devices of one profile share the work of finding out.
fn seconds(module: &Module, graph: &Graph, ops: &[OpId], target: &Target, count: usize) -> Vec<Vec<f64>> {
    let all = &target.topology.devices()[..count];
    let mut rows = vec![Vec::with_capacity(count); ops.len()];
    for (d, device) in all.iter().enumerate() {
        let twin = all[..d].iter().position(|e| e.profile == device.profile);
        let model = CostModel::of_target(target, d, &module.symbols);
        for (row, id) in rows.iter_mut().zip(ops) {
            let known = twin.map(|t| row[t]);
            row.push(known.unwrap_or_else(|| op_seconds(module, graph, *id, &model, 0)));
        }
    }
    rows
}

/// Calls are followed to this depth; verified modules have no circles of calls.
const MAX_CALL_DEPTH: usize = 32;

fn op_seconds(module: &Module, graph: &Graph, id: OpId, model: &CostModel<'_>, depth: usize) -> f64 {
    let op = graph.op(id);
    if op.kind == OpKind::Transfer {
        return 0.0;
    }
    let own = model.graph_op(graph, id, false);
    let callee = match op.kind {
        OpKind::Call if depth < MAX_CALL_DEPTH => module.function(op.attrs.str("callee")),
        _ => None,
    };
    let inside = callee.map_or(0.0, |f| {
        let ahead = walk::function_ahead_of_time(f);
        let runs = |op: &djinn_ir::Op| op.results.iter().any(|v| !ahead[v.0 as usize]);
        let ids = f.graph.ops().filter(|(_, op)| runs(op)).map(|(id, _)| id);
        ids.map(|id| op_seconds(module, &f.graph, id, model, depth + 1)).sum()
    });
    (own + inside).clamp(0.0, 1e18)
}

/// Sizes of what is stored: symbols as bound, else the largest that is declared.
struct Sizes<'a> {
    symbols: &'a SymbolTable,
    target: &'a Target,
}

impl Sizes<'_> {
    fn bytes(&self, ty: &TensorType) -> u64 {
        let value = |s: &djinn_ir::Symbol| {
            let bound = self.target.sizes.get(s.name()).copied();
            let info = self.symbols.info(s);
            Some(bound.or(info.max).unwrap_or(UNBOUND_SIZE.max(info.min)))
        };
        let elements = ty.shape.iter().map(|d| d.eval(&value).map_or(u64::MAX, |n| n.max(0) as u64));
        let bytes = elements.fold(ty.dtype.size() as u64, u64::saturating_mul);
        // Buffers begin at multiples of the alignment.
        bytes.checked_next_multiple_of(ALIGNMENT).unwrap_or(u64::MAX)
    }
}

/// The same text for the same constant in every function.
fn key_of(graph: &Graph, value: ValueId, keys: &mut BTreeMap<ValueId, String>) -> String {
    let mut stack = vec![value];
    while let Some(&v) = stack.last() {
        if keys.contains_key(&v) {
            stack.pop();
            continue;
        }
        let Some((id, result)) = graph.definition(v) else {
            keys.insert(v, format!("argument {}", v.0));
            continue;
        };
        let op = graph.op(id);
        let waiting: Vec<ValueId> = op.operands.iter().copied().filter(|o| !keys.contains_key(o)).collect();
        if !waiting.is_empty() {
            stack.extend(waiting);
            continue;
        }
        let operands: Vec<&str> = op.operands.iter().map(|o| keys[o].as_str()).collect();
        let text = match op.kind {
            OpKind::Weight if !op.attrs.str("hash").is_empty() => op.attrs.str("hash").to_owned(),
            OpKind::Weight => format!("weight {}", op.attrs.str("name")),
            OpKind::Constant => {
                op.attrs.tensor("value").map_or_else(String::new, |t| t.content_hash().to_string())
            }
            kind => format!("{}{:?}({})#{result}", kind.name(), op.attrs, operands.join(",")),
        };
        // Long chains of operations would give long texts; their hash says as much.
        let text = if text.len() > 128 { format!("{:x}", fingerprint(&text)) } else { text };
        keys.insert(v, text);
    }
    keys.get(&value).cloned().unwrap_or_default()
}

/// FNV-1a with 128 bits.
fn fingerprint(text: &str) -> u128 {
    let step = |hash: u128, byte: u8| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    };
    text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, step)
}

/// The positions of the operations that use each value, by value.
pub(crate) fn users_by_value(facts: &Facts) -> BTreeMap<ValueId, BTreeSet<usize>> {
    facts.values.iter().map(|v| (v.value, v.users.iter().copied().collect())).collect()
}
