//! Engine regions of an entry: what the partition pass has numbered, as the plan says it.
//!
//! The pass numbers regions before memory is short and before it is known what is written in place: where a value of a
//! region is spilled and fetched again, a kernel has left it ([`crate::caches`]), or else a region came to wait for what
//! waits for it, all regions are cut by levels. Along a dependence the level rises by one
//! where the region changes, so the operations of one region and level wait for nothing that waits for one of them.
//! Then regions are cut at layers that come again ([`crate::layers`]).

use crate::layers::{self, Member};
use djinn_ir::{Graph, Module, Op};
use djinn_plan::{Action, Content, DeviceId, Engine, Entry, KernelId, Operand, Place, Plan, ValueRef, View};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// What ends a part of a region that was cut.
const CUT: &str = "its values leave the device or come back, or a cache is appended to in place, in between";

/// Enters the engines of an entry whose kernels carry the numbers of their regions.
pub(crate) fn fill(module: &Module, graph: &Graph, plan: &Plan, entry: &mut Entry) {
    let annotated = |name: &str| -> Vec<Option<u32>> {
        graph.ops().map(|(_, op)| op.annotated_int(name).and_then(|n| u32::try_from(n).ok())).collect()
    };
    let regions = annotated("engine");
    let mut region_of: BTreeMap<u32, u32> =
        entry.kernels.iter().filter_map(|k| k.engine).map(|e| (e, e)).collect();
    if region_of.is_empty() {
        return;
    }
    let acts = Acts::of(entry, &regions);
    if acts.waits_for_itself(&acts.regions) {
        region_of = cut(entry, &acts);
    }
    let mut parts: BTreeMap<u32, usize> = BTreeMap::new();
    region_of.values().for_each(|region| *parts.entry(*region).or_default() += 1);
    let layers = cut_layers(graph, entry, &acts, &regions, &mut region_of, &annotated("repeat"));
    let owners = owners(entry, &regions, &region_of);
    let mut engines = blank(entry, &region_of);
    let mut borders = Borders::of(plan, entry, &owners);
    for (op, engine) in &owners {
        if let Ok(place) = engines.binary_search_by_key(engine, |e| e.number) {
            engines[place].ops.push(*op);
        }
    }
    for engine in &mut engines {
        borders.enter(engine);
        let region = region_of[&engine.number];
        let why = module.metadata.get(format!("engine.{}.{region}", entry.function).as_str());
        engine.ends.extend(why.into_iter().flat_map(|w| w.lines()).map(str::to_owned));
        if parts[&region] > 1 {
            engine.ends.push(CUT.to_owned());
        }
        if layers.contains(&engine.number) {
            engine.ends.push(layers::LAYER.to_owned());
        }
    }
    entry.engines = engines;
}

/// Enters the engines of an entry whose launches are the engines of another one; `launch_seconds` says what a launch costs
/// on a device.
///
/// What is said of a region as a whole is what the kernels of the other entry say. It takes as long as they do, one after the
/// other, but is launched once; it never takes less than the longest of them.
pub(crate) fn fill_whole(
    plan: &Plan,
    apart: &Entry,
    entry: &mut Entry,
    launch_seconds: &dyn Fn(DeviceId) -> f64,
) {
    let known = |number: u32| apart.engines.iter().find(|e| e.number == number);
    for kernel in &mut entry.kernels {
        let Some(engine) = kernel.engine.and_then(known) else { continue };
        let kernels = || engine.kernels.iter().filter_map(|k| apart.kernels.get(k.index()));
        let saved = engine.kernels.len().saturating_sub(1) as f64 * launch_seconds(engine.device);
        let longest = kernels().map(|k| k.seconds).fold(0.0, f64::max);
        kernel.seconds = (engine.seconds - saved).max(longest);
        kernel.flops = engine.flops;
        kernel.traffic = kernels().map(|k| k.traffic).sum();
        let shares: f64 = kernels().map(|k| k.share * k.seconds).sum();
        let share = shares / engine.seconds;
        kernel.share = if share > 0.0 { share.min(1.0) } else { 1.0 };
    }
    let numbers = entry.kernels.iter().filter_map(|k| k.engine).map(|n| (n, n)).collect();
    let mut owners: BTreeMap<u32, u32> = BTreeMap::new();
    for kernel in &entry.kernels {
        owners.extend(kernel.engine.iter().flat_map(|e| kernel.ops.iter().map(|op| (*op, *e))));
    }
    let mut engines = blank(entry, &numbers);
    let mut borders = Borders::of(plan, entry, &owners);
    for engine in &mut engines {
        borders.enter(engine);
        let kernel = engine.kernels.first().and_then(|k| entry.kernels.get(k.index()));
        engine.ops = kernel.map(|k| k.ops.clone()).unwrap_or_default();
        engine.ends = known(engine.number).map(|e| e.ends.clone()).unwrap_or_default();
    }
    entry.engines = engines;
}

/// Cuts engines at layers that come again; the numbers of those that were cut out of one.
///
/// Nothing is cut if engines would wait for themselves then, which a view of values of several of them may bring about.
fn cut_layers(
    graph: &Graph,
    entry: &mut Entry,
    acts: &Acts,
    regions: &[Option<u32>],
    region_of: &mut BTreeMap<u32, u32>,
    repeats: &[Option<u32>],
) -> BTreeSet<u32> {
    if repeats.iter().all(Option::is_none) {
        return BTreeSet::new();
    }
    let engines = engines_of_acts(entry, acts, &owners(entry, regions, region_of));
    let ops: Vec<&Op> = graph.ops().map(|(_, op)| op).collect();
    let kernels: Vec<Member> = entry.kernels.iter().map(|k| member(graph, k, &ops, repeats)).collect();
    let views = entry.aliases.len();
    let Some((numbers, of)) = layers::cut(acts, &engines, &kernels, views) else { return BTreeSet::new() };
    let before: Vec<Option<u32>> = entry.kernels.iter().map(|k| k.engine).collect();
    entry.kernels.iter_mut().zip(&numbers).for_each(|(kernel, number)| kernel.engine = *number);
    let named: BTreeSet<u32> = entry.kernels.iter().filter_map(|k| k.engine).collect();
    let cut_of = |number: &u32| Some((*number, *region_of.get(of.get(number)?)?));
    let new: BTreeMap<u32, u32> = named.iter().filter_map(cut_of).collect();
    if acts.waits_for_itself(&engines_of_acts(entry, acts, &owners(entry, regions, &new))) {
        entry.kernels.iter_mut().zip(before).for_each(|(kernel, engine)| kernel.engine = engine);
        return BTreeSet::new();
    }
    *region_of = new;
    let several = |number: &&u32| named.iter().filter(|other| of.get(*other) == of.get(*number)).count() > 1;
    named.iter().filter(several).copied().collect()
}

/// The layer of the first operation of a kernel, and what the kernel does: operations and types of their results.
fn member(graph: &Graph, kernel: &djinn_plan::Kernel, ops: &[&Op], repeats: &[Option<u32>]) -> Member {
    let layer = kernel.ops.first().and_then(|op| repeats.get(*op as usize).copied().flatten());
    let mut hasher = DefaultHasher::new();
    if layer.is_some() {
        for op in kernel.ops.iter().filter_map(|op| ops.get(*op as usize)) {
            op.kind.hash(&mut hasher);
            op.results.iter().for_each(|v| graph.ty(*v).hash(&mut hasher));
        }
    }
    Member { layer, work: hasher.finish() }
}

/// The engine of every act.
fn engines_of_acts(entry: &Entry, acts: &Acts, owners: &BTreeMap<u32, u32>) -> Vec<Option<u32>> {
    let view = |alias: &djinn_plan::Alias| match alias.value.value {
        ValueRef::Result { op, .. } => owners.get(&op).copied(),
        ValueRef::Argument(_) => None,
    };
    let kernels = entry.kernels.iter().map(|k| k.engine);
    let mut engines: Vec<Option<u32>> = kernels.chain(entry.aliases.iter().map(view)).collect();
    engines.resize(acts.needs.len(), None);
    engines
}

/// The engines with their kernels, devices and figures, by number.
fn blank(entry: &Entry, region_of: &BTreeMap<u32, u32>) -> Vec<Engine> {
    let mut engines: BTreeMap<u32, Engine> =
        region_of.keys().map(|n| (*n, Engine::empty(*n, DeviceId(0)))).collect();
    for (id, kernel) in (0..).map(KernelId).zip(&entry.kernels) {
        if let Some(engine) = kernel.engine.and_then(|number| engines.get_mut(&number)) {
            engine.kernels.push(id);
            engine.seconds += kernel.seconds;
            engine.flops += kernel.flops;
        }
    }
    for command in &entry.commands {
        if let Action::Launch { kernel } = command.action
            && let Some(number) = entry.kernels[kernel.index()].engine
            && let Some(engine) = engines.get_mut(&number)
        {
            engine.device = entry.streams[command.stream.index()].device;
        }
    }
    engines.into_values().collect()
}

/// Gives the kernels numbers of parts of their regions that can run one after another; the region of each part.
fn cut(entry: &mut Entry, acts: &Acts) -> BTreeMap<u32, u32> {
    let levels = acts.levels();
    let part_of = |(kernel, level): (&djinn_plan::Kernel, &u32)| Some((*level, kernel.engine?));
    let parts: BTreeSet<(u32, u32)> = entry.kernels.iter().zip(&levels).filter_map(part_of).collect();
    // The part of the highest number is the one of the highest level.
    let number: BTreeMap<(u32, u32), u32> = parts.into_iter().zip(0..).collect();
    for (kernel, level) in entry.kernels.iter_mut().zip(&levels) {
        kernel.engine = kernel.engine.and_then(|region| number.get(&(*level, region)).copied());
    }
    number.into_iter().map(|((_, region), part)| (part, region)).collect()
}

/// The engine of every operation that is in one: those of kernels, and views of what kernels of the same region make.
fn owners(entry: &Entry, regions: &[Option<u32>], region_of: &BTreeMap<u32, u32>) -> BTreeMap<u32, u32> {
    let mut owners: BTreeMap<u32, u32> = BTreeMap::new();
    for kernel in &entry.kernels {
        owners.extend(kernel.engine.iter().flat_map(|e| kernel.ops.iter().map(|op| (*op, *e))));
    }
    for alias in &entry.aliases {
        let ValueRef::Result { op, .. } = alias.value.value else { continue };
        let region = regions.get(op as usize).copied().flatten();
        let makers = alias.of.iter().filter_map(|part| match part.value {
            ValueRef::Result { op, .. } => owners.get(&op).copied(),
            ValueRef::Argument(_) => None,
        });
        // Of several parts of the region, what is put together is there with the last.
        let last = makers.filter(|engine| region.is_some() && region_of.get(engine).copied() == region).max();
        if let Some(engine) = last {
            owners.entry(op).or_insert(engine);
        }
    }
    owners
}

/// What crosses the borders of engines, by their numbers.
#[derive(Default)]
struct Borders {
    inputs: BTreeMap<u32, BTreeMap<ValueRef, u64>>,
    outputs: BTreeMap<u32, BTreeSet<ValueRef>>,
    weights: BTreeMap<u32, BTreeSet<View>>,
    /// Bytes of what kernels and views make.
    size: BTreeMap<ValueRef, u64>,
}

impl Borders {
    fn of(plan: &Plan, entry: &Entry, owners: &BTreeMap<u32, u32>) -> Borders {
        let owner = |value: ValueRef| match value {
            ValueRef::Result { op, .. } => owners.get(&op).copied(),
            ValueRef::Argument(_) => None,
        };
        let mut found = Borders::default();
        for kernel in &entry.kernels {
            found.size.extend(kernel.writes.iter().map(|o| (o.value, o.view.bytes)));
            kernel.reads.iter().for_each(|o| found.used(plan, o, owner(o.value), kernel.engine));
        }
        for alias in &entry.aliases {
            let Operand { value, view } = alias.value;
            found.size.insert(value, view.bytes);
            alias.of.iter().for_each(|o| found.used(plan, o, owner(o.value), owner(value)));
        }
        let copied = entry.commands.iter().filter_map(|c| match c.action {
            Action::Copy { value, .. } => Some(value),
            _ => None,
        });
        let kept = entry.outputs.iter().map(|p| p.value).chain(entry.updates.iter().map(|u| u.value));
        for value in copied.chain(kept) {
            if let Some(engine) = owner(value) {
                found.outputs.entry(engine).or_default().insert(value);
            }
        }
        found
    }

    /// An operand that one engine (or none) makes and another (or none) uses.
    fn used(&mut self, plan: &Plan, operand: &Operand, from: Option<u32>, by: Option<u32>) {
        let Operand { value, view } = *operand;
        if from == by {
            return;
        }
        if let Some(engine) = from {
            self.outputs.entry(engine).or_default().insert(value);
        }
        if let Some(engine) = by {
            match plan.buffers[view.buffer.index()].content {
                Content::Constant { .. } => {
                    self.weights.entry(engine).or_default().insert(view);
                }
                _ => {
                    let bytes = self.inputs.entry(engine).or_default().entry(value).or_default();
                    *bytes = view.bytes.max(*bytes);
                }
            }
        }
    }

    /// Enters the border of an engine.
    fn enter(&mut self, engine: &mut Engine) {
        let sum = |bytes: &mut dyn Iterator<Item = u64>| bytes.fold(0u64, u64::saturating_add);
        let inputs = self.inputs.remove(&engine.number).unwrap_or_default();
        let outputs = self.outputs.remove(&engine.number).unwrap_or_default();
        let weights = self.weights.remove(&engine.number).unwrap_or_default();
        engine.weight_bytes = sum(&mut weights.iter().map(|v| v.bytes));
        engine.bytes_in = sum(&mut inputs.values().copied());
        engine.bytes_out = sum(&mut outputs.iter().map(|v| self.size.get(v).copied().unwrap_or(0)));
        engine.inputs = inputs.into_keys().collect();
        engine.outputs = outputs.into_iter().collect();
    }
}

/// Kernels, then views and copies, and what each needs.
pub(crate) struct Acts {
    pub(crate) needs: Vec<BTreeSet<usize>>,
    /// The region of each.
    pub(crate) regions: Vec<Option<u32>>,
}

impl Acts {
    fn of(entry: &Entry, annotated: &[Option<u32>]) -> Acts {
        let mut acts: Vec<(Vec<Operand>, Vec<Operand>)> = Vec::new();
        acts.extend(entry.kernels.iter().map(|k| (k.reads.clone(), k.writes.clone())));
        acts.extend(entry.aliases.iter().map(|a| (a.of.clone(), vec![a.value])));
        for command in &entry.commands {
            if let Action::Copy { value, result, from, to, .. } = command.action {
                let end = |value, place| match place {
                    Place::Buffer(view) => vec![Operand { value, view }],
                    Place::Input(_) | Place::Output(_) => Vec::new(),
                };
                acts.push((end(value, from), end(result, to)));
            }
        }
        let mut made: BTreeMap<(ValueRef, View), usize> = BTreeMap::new();
        for (act, (_, writes)) in acts.iter().enumerate() {
            for write in writes {
                made.entry((write.value, write.view)).or_insert(act);
            }
        }
        let maker = |o: &Operand| made.get(&(o.value, o.view)).copied();
        let needs = acts.iter().map(|(reads, _)| reads.iter().filter_map(maker).collect()).collect();
        let mut regions: Vec<Option<u32>> = entry.kernels.iter().map(|k| k.engine).collect();
        regions.resize(acts.len(), None);
        Acts { needs, regions }.with_views(entry, annotated)
    }

    /// A view is in its region if it is one of something that is made there. Views of views come later in the list.
    fn with_views(mut self, entry: &Entry, annotated: &[Option<u32>]) -> Acts {
        let first = entry.kernels.len();
        for (view, alias) in (first..).zip(&entry.aliases) {
            let ValueRef::Result { op, .. } = alias.value.value else { continue };
            let region = annotated.get(op as usize).copied().flatten();
            if self.needs[view].iter().any(|maker| self.regions[*maker] == region) {
                self.regions[view] = region;
            }
        }
        self
    }

    /// Does a group wait for what waits for it? Acts without a group are groups of their own.
    pub(crate) fn waits_for_itself(&self, groups: &[Option<u32>]) -> bool {
        let mut numbers: BTreeMap<u32, usize> = BTreeMap::new();
        let mut count = 0;
        let group: Vec<usize> = groups
            .iter()
            .map(|g| {
                let number = g.map_or(count, |g| *numbers.entry(g).or_insert(count));
                count = count.max(number + 1);
                number
            })
            .collect();
        let mut edges: BTreeSet<(usize, usize)> = BTreeSet::new();
        for (act, needs) in self.needs.iter().enumerate() {
            edges.extend(needs.iter().map(|n| (group[*n], group[act])).filter(|(a, b)| a != b));
        }
        let mut missing = vec![0usize; count];
        edges.iter().for_each(|(_, to)| missing[*to] += 1);
        let mut ready: Vec<usize> = (0..count).filter(|g| missing[*g] == 0).collect();
        let mut done = 0;
        while let Some(next) = ready.pop() {
            done += 1;
            for (_, to) in edges.range((next, 0)..(next + 1, 0)) {
                missing[*to] -= 1;
                if missing[*to] == 0 {
                    ready.push(*to);
                }
            }
        }
        done < count
    }

    /// How often the region changes on the way to each act, at most.
    fn levels(&self) -> Vec<u32> {
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); self.needs.len()];
        let mut missing: Vec<usize> = self.needs.iter().map(BTreeSet::len).collect();
        for (act, needs) in self.needs.iter().enumerate() {
            needs.iter().for_each(|n| users[*n].push(act));
        }
        let mut levels = vec![0u32; self.needs.len()];
        let mut ready: Vec<usize> = (0..missing.len()).filter(|a| missing[*a] == 0).collect();
        while let Some(act) = ready.pop() {
            for user in &users[act] {
                let rise = u32::from(self.regions[act] != self.regions[*user]);
                levels[*user] = levels[*user].max(levels[act] + rise);
                missing[*user] -= 1;
                if missing[*user] == 0 {
                    ready.push(*user);
                }
            }
        }
        levels
    }
}
