//! Entries: which functions run at which sizes, and the plan that holds them.

use crate::caches::{self, Caches};
use crate::commands::{Draft, draft};
use crate::constants::{ConstantKey, ConstantKeys};
use crate::places::Places;
use crate::sizes::max_bytes;
use crate::units::{Unit, units};
use crate::whole::{self, Apart};
use crate::{budget, engines, events, memory};
use djinn_device::{Profile, Target};
use djinn_diag::{Context, Remark, Result, input, internal};
use djinn_ir::walk::known_before_runs;
use djinn_ir::{Module, Symbol, SymbolTable, ValueId};
use djinn_plan::{
    ALIGNMENT, Arena, ArenaId, ArenaKind, Buffer, BufferId, Content, Device, DeviceId, Entry, FORMAT_VERSION,
    Granularity, Plan, SymbolRange, View,
};
use std::collections::{BTreeMap, BTreeSet};

/// The sizes of one symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeRange {
    /// Name of the symbol.
    pub symbol: String,
    /// Smallest size.
    pub min: i64,
    /// Largest size.
    pub max: i64,
}

/// A function that the plan runs, and the sizes for which this entry of the plan is valid.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EntrySpec {
    /// Name of the function.
    pub function: String,
    /// Sizes; symbols that are not named keep the range that the module declares.
    pub sizes: Vec<SizeRange>,
    /// Phase, if it is known.
    pub phase: Option<String>,
    /// Arguments and results, by name, that stay on their device between runs (KV caches handed in and out). A result that
    /// is an argument with something appended or changed takes its place where that is possible, and all entries, of other
    /// functions as well, share the buffer of one cache.
    pub resident: BTreeSet<String>,
    /// What a launch is. An entry of engines needs one of kernels before it that is the same otherwise: its engines are the
    /// regions of that one. It is left out of the plan where there are none.
    pub granularity: Granularity,
}

/// How a plan is made.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// Structural hash of the program, in hexadecimal digits; by default that of no program.
    pub program: String,
    /// Bounds of the search for a packing.
    pub packing: djinn_pack::Limits,
    /// Do views and values in place share buffers? Only comparisons want them not to.
    pub sharing: bool,
}

impl Default for PlanOptions {
    fn default() -> Self {
        PlanOptions { program: "0".repeat(32), packing: djinn_pack::Limits::default(), sharing: true }
    }
}

/// What entries of one plan share.
pub(crate) struct Shared<'a> {
    pub(crate) module: &'a Module,
    pub(crate) target: &'a Target,
    pub(crate) options: &'a PlanOptions,
    pub(crate) plan: Plan,
    arenas: BTreeMap<(DeviceId, ArenaKind), ArenaId>,
    keys: ConstantKeys,
    constants: BTreeMap<(ConstantKey, DeviceId), BufferId>,
    states: BTreeMap<String, BufferId>,
    caches: Caches,
    /// The buffer of each cache on each device, by number.
    kept: BTreeMap<(usize, DeviceId), BufferId>,
    /// Entries of kernels that are to have one of engines.
    apart: Vec<(EntrySpec, Apart)>,
    /// Of the entry that is being made: bytes that no packing of an arena can undercut.
    pub(crate) bounds: Vec<(ArenaId, u64)>,
}

/// An entry whose values have places, but not yet bytes.
pub(crate) struct Prepared {
    /// Number of the function.
    pub(crate) function: usize,
    /// Its symbols, with the ranges of the entry.
    pub(crate) symbols: SymbolTable,
    pub(crate) ahead: Vec<bool>,
    pub(crate) units: Vec<Unit>,
    pub(crate) places: Places,
}

/// As [`plan_with`], without the remarks.
///
/// # Errors
/// Those of [`plan_with`].
pub fn plan(module: &Module, target: &Target, entries: &[EntrySpec], options: &PlanOptions) -> Result<Plan> {
    plan_with(module, target, entries, options, &mut Vec::new())
}

/// Makes the plan of a module whose operations are annotated with devices, kernels and streams, and remarks on caches
/// that are not updated in place or not shared, and on engines that are not launched as a whole.
///
/// # Errors
/// `plan.function` and `plan.symbol` for entries that the module does not have, `plan.unbound` for sizes without an
/// upper bound, `plan.granularity` for an entry of engines without one of kernels before it. Whether the devices hold the plan is for [`crate::capacities`] to say.
pub fn plan_with(
    module: &Module,
    target: &Target,
    entries: &[EntrySpec],
    options: &PlanOptions,
    remarks: &mut Vec<Remark>,
) -> Result<Plan> {
    let of_kernels = |spec: &&EntrySpec| spec.granularity == Granularity::Kernels;
    let kernels: Vec<EntrySpec> = entries.iter().filter(of_kernels).cloned().collect();
    let prepared = prepare(module, target, &kernels, options)?;
    let caches = Caches::new(module, &kernels, &prepared, remarks)?;
    let devices = target.topology.devices().iter().enumerate().map(|(i, d)| Device {
        name: d.name.clone(),
        profile: d.profile.name.clone(),
        memory_bytes: target.memory_bytes(i),
        host: false,
        sync_seconds: d.profile.sync_seconds(),
    });
    let plan = Plan {
        version: FORMAT_VERSION,
        program: options.program.clone(),
        devices: devices.collect(),
        links: Vec::new(),
        arenas: Vec::new(),
        buffers: Vec::new(),
        entries: Vec::new(),
    };
    let mut shared = Shared {
        module,
        target,
        options,
        plan,
        arenas: BTreeMap::new(),
        keys: ConstantKeys::default(),
        constants: BTreeMap::new(),
        states: BTreeMap::new(),
        caches,
        kept: BTreeMap::new(),
        apart: Vec::new(),
        bounds: Vec::new(),
    };
    let mut bounds = Vec::new();
    let mut prepared = prepared.into_iter();
    for spec in entries {
        let place = || format!("function '{}'", spec.function);
        let one = match spec.granularity {
            Granularity::Kernels => prepared.next().map(|one| shared.apart(spec, entries, one)),
            Granularity::Engines => shared.merged(spec, remarks).at(place)?,
        };
        let Some(one) = one else { continue };
        let entry = shared.entry(spec, one).at(place)?;
        shared.plan.entries.push(entry);
        bounds.push(std::mem::take(&mut shared.bounds));
    }
    let mut plan = shared.plan;
    budget::fill(module, &mut plan, &bounds);
    for entry in 0..plan.entries.len() {
        plan.entries[entry].seconds = djinn_plan::simulate(&plan, entry)?.seconds;
    }
    Ok(plan)
}

/// Decides for every entry which values share bytes. A cache is one buffer for all entries of a function: what cannot be
/// written over its input in one of them is not in the others.
fn prepare(
    module: &Module,
    target: &Target,
    entries: &[EntrySpec],
    options: &PlanOptions,
) -> Result<Vec<Prepared>> {
    let mut prepared = Vec::with_capacity(entries.len());
    for spec in entries {
        let one = Prepared::new(module, target, spec, options);
        prepared.push(one.at(|| format!("function '{}'", spec.function))?);
    }
    // Fewer pairs each time, so that this ends.
    while narrow(module, target, entries, options, &mut prepared) {}
    Ok(prepared)
}

/// Gives up the renewals that not every entry of a function has. Were there any?
fn narrow(
    module: &Module,
    target: &Target,
    entries: &[EntrySpec],
    options: &PlanOptions,
    prepared: &mut [Prepared],
) -> bool {
    let mut least: BTreeMap<usize, BTreeSet<ValueId>> = BTreeMap::new();
    for one in prepared.iter() {
        let renewed: BTreeSet<ValueId> = one.places.renewed.keys().copied().collect();
        least.entry(one.function).and_modify(|all| all.retain(|v| renewed.contains(v))).or_insert(renewed);
    }
    let mut changed = false;
    for (spec, one) in entries.iter().zip(prepared) {
        let mut wanted = one.places.renewed.clone();
        wanted.retain(|v, _| least[&one.function].contains(v));
        if wanted.len() < one.places.renewed.len() {
            let function = &module.functions[one.function];
            let site = ((target, options.sharing), &wanted);
            one.places = Places::new(function, spec, &one.symbols, &one.ahead, &one.units, site);
            changed = true;
        }
    }
    changed
}

impl Prepared {
    fn new(module: &Module, target: &Target, spec: &EntrySpec, options: &PlanOptions) -> Result<Prepared> {
        let found = module.functions.iter().enumerate().find(|(_, f)| *f.name == *spec.function);
        let (number, function) = found.ok_or_else(|| {
            input("plan.function", format!("the module has no function '{}'", spec.function))
        })?;
        let symbols = narrowed(&module.symbols, &spec.sizes)?;
        let ahead = known_before_runs(function);
        let units = units(&function.graph, &ahead)?;
        let wanted = caches::renewals(function, spec);
        let places =
            Places::new(function, spec, &symbols, &ahead, &units, ((target, options.sharing), &wanted));
        Ok(Prepared { function: number, symbols, ahead, units, places })
    }
}

impl Shared<'_> {
    fn entry(&mut self, spec: &EntrySpec, prepared: Prepared) -> Result<Entry> {
        let function = &self.module.functions[prepared.function];
        let symbols = prepared.symbols.clone();
        let drafted: Draft = draft(self, spec, prepared)?;
        let order = memory::assign(self, &drafted)?;
        let commands = events::with_events(&drafted.commands, &order);
        let mut entry = drafted.entry;
        entry.events = order.events;
        entry.commands = commands;
        entry.symbols = occurring(function, &symbols);
        match spec.granularity {
            Granularity::Kernels => engines::fill(self.module, &function.graph, &self.plan, &mut entry),
            Granularity::Engines => {
                let apart = &self.plan.entries[self.apart_from(spec)?.entry];
                let topology = self.target.topology.devices();
                let launch = |d: DeviceId| topology.get(d.index()).map_or(0.0, |d| d.profile.launch_seconds);
                engines::fill_whole(&self.plan, apart, &mut entry, &launch);
            }
        }
        Ok(entry)
    }

    /// Notes what the entry of engines will ask of one of kernels, if there is to be one.
    fn apart(&mut self, spec: &EntrySpec, entries: &[EntrySpec], prepared: Prepared) -> Prepared {
        let wanted = EntrySpec { granularity: Granularity::Engines, ..spec.clone() };
        if entries.contains(&wanted) {
            let Prepared { function, symbols, ahead, units, places } = &prepared;
            let graph = &self.module.functions[*function].graph;
            let number = self.plan.entries.len();
            let apart = Apart::new(graph, (*function, symbols, ahead), units, places, number);
            self.apart.push((wanted, apart));
        }
        prepared
    }

    /// What is known of the entry of kernels of an entry of engines.
    fn apart_from(&self, spec: &EntrySpec) -> Result<&Apart> {
        let found = self.apart.iter().find(|(of, _)| of == spec).map(|(_, apart)| apart);
        found.ok_or_else(|| {
            internal("plan.granularity", "an entry of engines comes before the one of kernels")
                .help("list the entry of kernels for the same sizes first")
        })
    }

    /// The entry of the engine regions of an entry of kernels, if there are any. Both have the same caches: if one could not
    /// be renewed in place, there is no such entry.
    fn merged(&self, spec: &EntrySpec, remarks: &mut Vec<Remark>) -> Result<Option<Prepared>> {
        let apart = self.apart_from(spec)?;
        let function = &self.module.functions[apart.function];
        let (units, left) = apart.merged(&function.graph, &self.plan.entries[apart.entry].engines);
        remarks.extend(left.into_iter().map(|message| whole::missed(&function.name, message)));
        let Some(units) = units else { return Ok(None) };
        let Apart { symbols, ahead, renewed, .. } = apart;
        let places = Places::new(
            function,
            spec,
            symbols,
            ahead,
            &units,
            ((self.target, self.options.sharing), renewed),
        );
        if places.renewed != *renewed {
            let why = places.not_renewed.values().next().map_or("", String::as_str);
            let message =
                format!("no entry launches engines as a whole: a cache would take two buffers: {why}");
            remarks.push(whole::missed(&function.name, message));
            return Ok(None);
        }
        let (function, symbols, ahead) = (apart.function, symbols.clone(), ahead.clone());
        Ok(Some(Prepared { function, symbols, ahead, units, places }))
    }

    /// The number of a device by name; the memory of a host becomes a device when it is first asked for.
    pub(crate) fn device(&mut self, name: &str) -> Result<DeviceId> {
        if let Some(i) = self.plan.devices.iter().position(|d| d.name == name) {
            return Ok(DeviceId(i as u32));
        }
        let Some(node) = self.target.topology.nodes().iter().find(|n| n.host == name) else {
            let names: Vec<&str> = self.plan.devices.iter().map(|d| d.name.as_str()).collect();
            return Err(input("plan.device", format!("the target has no device '{name}'"))
                .help(format!("its devices are {}", names.join(", "))));
        };
        let (name, memory_bytes) = (name.to_owned(), node.host_memory_bytes);
        let sync_seconds = Profile::builtin("host").map_or(0.0, Profile::sync_seconds);
        let profile = "host".to_owned();
        self.plan.devices.push(Device { name, profile, memory_bytes, host: true, sync_seconds });
        Ok(DeviceId(self.plan.devices.len() as u32 - 1))
    }

    /// The arena of this kind on a device, made when it is first asked for.
    pub(crate) fn arena(&mut self, device: DeviceId, kind: ArenaKind) -> ArenaId {
        let arenas = &mut self.plan.arenas;
        *self.arenas.entry((device, kind)).or_insert_with(|| {
            arenas.push(Arena { device, kind, bytes: 0 });
            ArenaId(arenas.len() as u32 - 1)
        })
    }

    /// A buffer whose offset is decided later.
    pub(crate) fn buffer(&mut self, name: String, arena: ArenaId, bytes: u64, content: Content) -> BufferId {
        self.plan.buffers.push(Buffer { name, arena, offset: 0, bytes, content });
        BufferId(self.plan.buffers.len() as u32 - 1)
    }

    /// A buffer at the end of an arena, for good.
    pub(crate) fn appended(
        &mut self,
        name: String,
        arena: ArenaId,
        bytes: u64,
        content: Content,
    ) -> BufferId {
        let id = self.buffer(name, arena, bytes, content);
        let arena = &mut self.plan.arenas[arena.index()];
        let offset = arena.bytes.next_multiple_of(ALIGNMENT);
        arena.bytes = offset.saturating_add(bytes);
        self.plan.buffers[id.index()].offset = offset;
        id
    }

    /// Where a constant is on a device; equal constants share their bytes.
    pub(crate) fn constant(
        &mut self,
        f: usize,
        v: ValueId,
        device: DeviceId,
        positions: &[u32],
    ) -> Result<View> {
        let module = self.module;
        let key = (self.keys.key(module, f, v), device);
        let ty = module.functions[f].graph.ty(v);
        let buffer = match self.constants.get(&key) {
            Some(buffer) => *buffer,
            None => {
                let bytes = max_bytes(ty, &module.symbols)?;
                let function = &module.functions[f];
                let name = constant_name(function, v);
                let value = crate::names::value_ref(positions, &function.graph, v);
                let arena = self.arena(device, ArenaKind::Weights);
                let content = Content::Constant { function: function.name.to_string(), value };
                let buffer = self.appended(name, arena, bytes, content);
                self.constants.insert(key, buffer);
                buffer
            }
        };
        Ok(View { buffer, offset: 0, bytes: self.plan.buffers[buffer.index()].bytes })
    }

    /// The buffer of an input or output that stays on its device, if it does.
    pub(crate) fn kept(&mut self, f: usize, v: ValueId, device: DeviceId) -> Option<BufferId> {
        let (number, name, bytes) = self.caches.of(f, v)?;
        if let Some(buffer) = self.kept.get(&(number, device)) {
            return Some(*buffer);
        }
        let elsewhere = self.kept.keys().any(|(n, _)| *n == number);
        let name = if elsewhere { format!("{name} on device {}", device.0) } else { name.to_owned() };
        let arena = self.arena(device, ArenaKind::State);
        let buffer = self.appended(name.clone(), arena, bytes, Content::State { name });
        self.kept.insert((number, device), buffer);
        Some(buffer)
    }

    /// Does a buffer hold what stays on its device from run to run, other than a state?
    pub(crate) fn is_kept(&self, buffer: BufferId) -> bool {
        let held = &self.plan.buffers[buffer.index()].content;
        matches!(held, Content::State { name } if self.states.get(name) != Some(&buffer))
    }

    /// Where a state is: on the device that asks first.
    pub(crate) fn state(&mut self, name: &str, bytes: u64, device: DeviceId) -> Result<View> {
        let buffer = match self.states.get(name) {
            Some(buffer) => *buffer,
            None => {
                let arena = self.arena(device, ArenaKind::State);
                let content = Content::State { name: name.to_owned() };
                let buffer = self.appended(name.to_owned(), arena, bytes, content);
                self.states.insert(name.to_owned(), buffer);
                buffer
            }
        };
        let (home, held) = {
            let b = &self.plan.buffers[buffer.index()];
            (self.plan.arenas[b.arena.index()].device, b.bytes)
        };
        if home != device {
            let name_of = |d: DeviceId| self.plan.devices[d.index()].name.clone();
            let message = format!("state '{name}' is on {} but used on {}", name_of(home), name_of(device));
            return Err(djinn_diag::internal("plan.state", message).help("run the colocate pass again"));
        }
        if held != bytes {
            let message = format!("state '{name}' has {held} bytes in one function and {bytes} in another");
            return Err(
                input("plan.state", message).help("functions that share a state must agree on its type")
            );
        }
        Ok(View { buffer, offset: 0, bytes })
    }
}

/// The name of the weight, or of the operation that makes the constant.
fn constant_name(function: &djinn_ir::Function, v: ValueId) -> String {
    match function.graph.definition(v) {
        Some((id, _)) => {
            let op = function.graph.op(id);
            match op.kind {
                djinn_ir::OpKind::Weight => op.attrs.str("name").to_owned(),
                kind => format!("{} {}", kind.name(), op.location.scope.as_deref().unwrap_or(""))
                    .trim()
                    .to_owned(),
            }
        }
        None => "argument".to_owned(),
    }
}

/// The module's symbols with the ranges of an entry.
fn narrowed(symbols: &SymbolTable, sizes: &[SizeRange]) -> Result<SymbolTable> {
    let mut narrowed = symbols.clone();
    for range in sizes {
        let symbol = Symbol::new(&range.symbol);
        let known = symbols.info(&symbol);
        let fits =
            range.min <= range.max && range.min >= known.min && known.max.is_none_or(|m| range.max <= m);
        if !fits {
            let upper = known.max.map_or("∞".to_owned(), |m| m.to_string());
            let message = format!(
                "{} = {}..{} is not within the sizes that the model admits, {}..{upper}",
                range.symbol, range.min, range.max, known.min
            );
            return Err(input("plan.symbol", message));
        }
        let mut info = known;
        (info.min, info.max) = (range.min, Some(range.max));
        narrowed.0.insert(symbol, info);
    }
    Ok(narrowed)
}

/// The ranges of the symbols that occur in the types of a function's arguments and values.
fn occurring(function: &djinn_ir::Function, symbols: &SymbolTable) -> Vec<SymbolRange> {
    let mut names = BTreeSet::new();
    let graph = &function.graph;
    let results = graph.ops().flat_map(|(_, op)| &op.results);
    for v in graph.arguments.iter().chain(results) {
        for dim in graph.ty(*v).shape.iter().filter(|d| d.as_const().is_none()) {
            dim.visit_symbols(&mut |s| {
                if !names.contains(s) {
                    names.insert(s.clone());
                }
            });
        }
    }
    let range = |s: Symbol| {
        let info = symbols.info(&s);
        SymbolRange { name: s.name().to_owned(), min: info.min, max: info.max.unwrap_or(i64::MAX) }
    };
    names.into_iter().map(range).collect()
}
