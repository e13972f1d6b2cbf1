//! Engine regions: what is said of them agrees with the kernels, they can run one after another, and where launches are
//! whole regions, each is one kernel.

use std::collections::{BTreeMap, BTreeSet};

use super::{Constraint, Range, Report};
use crate::engine::{Engine, Granularity};
use crate::plan::{Action, Content, DeviceId, Entry, Kernel, Operand, Place, Plan, ValueRef, View};

/// Sums of figures may differ by so much of themselves: they were added in another order.
const ROUNDING: f64 = 1e-9;

pub(super) fn check(plan: &Plan, entry: &Entry, report: &mut Report) {
    let owners = owners(entry, report);
    kernels(entry, report);
    devices(entry, report);
    operations(entry, &owners, report);
    let crossings = crossings(plan, entry, &owners);
    for engine in &entry.engines {
        border(engine, &crossings, report);
        figures(entry, engine, report);
    }
    acyclic(entry, &owners, report);
    if entry.granularity == Granularity::Engines {
        entry.engines.iter().for_each(|engine| whole(plan, entry, engine, report));
    }
}

/// The engine is one kernel that an engine may be launched in place of.
fn whole(plan: &Plan, entry: &Entry, engine: &Engine, report: &mut Report) {
    let number = engine.number;
    let [id] = engine.kernels.as_slice() else {
        report.add(Constraint::Granularity, || {
            format!("launches are whole engines, but engine {number} has {} kernels", engine.kernels.len())
        });
        return;
    };
    // That there is such a kernel is demanded elsewhere.
    let Some(kernel) = entry.kernels.get(id.index()) else { return };
    report.demand(kernel.ops == engine.ops, Constraint::Granularity, || {
        format!("kernel {} '{}' does not run all operations of engine {number}", id.0, kernel.name)
    });
    report.demand(kernel.workspace.is_none(), Constraint::Granularity, || {
        format!("kernel {} '{}' is engine {number} and has a workspace", id.0, kernel.name)
    });
    let written: BTreeSet<ValueRef> = kernel.writes.iter().map(|o| o.value).collect();
    report.demand(written.iter().eq(&engine.outputs), Constraint::Granularity, || {
        format!("kernel {} '{}' does not write exactly what leaves engine {number}", id.0, kernel.name)
    });
    if let Some((read, write)) = overwritten(plan, kernel) {
        report.add(Constraint::Granularity, || {
            let (name, id) = (&kernel.name, id.0);
            format!("kernel {id} '{name}' is engine {number} and writes {write} over {read}, which it reads")
        });
    }
}

/// What a kernel reads, and what it writes over that.
fn overwritten(plan: &Plan, kernel: &Kernel) -> Option<(ValueRef, ValueRef)> {
    let ranged = |operands: &[Operand], writes: bool| -> Vec<(Range, bool, ValueRef)> {
        let ranges = operands.iter().map(|o| (Range::of(plan, &o.view), writes, o.value));
        ranges.filter(|(range, ..)| !range.is_empty()).collect()
    };
    let mut all = ranged(&kernel.reads, false);
    all.extend(ranged(&kernel.writes, true));
    all.sort_unstable();
    // Of each kind, what reaches furthest so far.
    let mut furthest: [Option<(Range, ValueRef)>; 2] = [None, None];
    for (range, writes, value) in all {
        let (own, other) = (usize::from(writes), usize::from(!writes));
        if let Some((_, theirs)) = furthest[other].filter(|(before, _)| before.overlaps(&range)) {
            return Some(if writes { (theirs, value) } else { (value, theirs) });
        }
        let reaches =
            |(before, _): &(Range, ValueRef)| (before.arena, before.end) >= (range.arena, range.end);
        if !furthest[own].as_ref().is_some_and(reaches) {
            furthest[own] = Some((range, value));
        }
    }
    None
}

/// The engine of each operation that an engine lists.
fn owners(entry: &Entry, report: &mut Report) -> BTreeMap<u32, u32> {
    let ascending = entry.engines.windows(2).all(|w| w[0].number < w[1].number);
    report.demand(ascending, Constraint::Engines, || "the engines are not listed by ascending number".into());
    let mut owners = BTreeMap::new();
    for engine in &entry.engines {
        let number = engine.number;
        for &op in &engine.ops {
            if let Some(other) = owners.insert(op, number) {
                report.add(Constraint::Engines, || {
                    format!("operation {op} is in engine {other} and in engine {number}")
                });
            }
        }
        let lists =
            [engine.ops.windows(2).all(|w| w[0] < w[1]), ascends(&engine.inputs), ascends(&engine.outputs)];
        report.demand(lists == [true; 3], Constraint::Engines, || {
            format!("a list of engine {number} is not in ascending order")
        });
    }
    owners
}

fn ascends(values: &[ValueRef]) -> bool {
    values.windows(2).all(|w| w[0] < w[1])
}

/// Kernels and engines name each other.
fn kernels(entry: &Entry, report: &mut Report) {
    let mut listed = BTreeSet::new();
    for engine in &entry.engines {
        let number = engine.number;
        let ascending = !engine.kernels.is_empty() && engine.kernels.windows(2).all(|w| w[0] < w[1]);
        report.demand(ascending, Constraint::Engines, || {
            format!("the kernels of engine {number} are none or not in ascending order")
        });
        for id in &engine.kernels {
            listed.insert((id.index(), number));
            let says = entry.kernels.get(id.index()).map(|k| k.engine);
            report.demand(says == Some(Some(number)), Constraint::Engines, || match says {
                None => {
                    format!("engine {number} lists kernel {}, but there are {}", id.0, entry.kernels.len())
                }
                Some(says) => {
                    format!(
                        "engine {number} lists kernel {}, which says that it is in {}",
                        id.0,
                        engine_of(says)
                    )
                }
            });
        }
    }
    for (k, kernel) in entry.kernels.iter().enumerate() {
        let known = kernel.engine.is_none_or(|number| listed.contains(&(k, number)));
        report.demand(known, Constraint::Engines, || {
            let engine = engine_of(kernel.engine);
            format!("kernel {k} '{}' says that it is in {engine}, which does not list it", kernel.name)
        });
    }
}

/// The engine that a kernel says it is in, in words.
fn engine_of(engine: Option<u32>) -> String {
    engine.map_or_else(|| "no engine".into(), |number| format!("engine {number}"))
}

/// Kernels run on the device of their engine.
fn devices(entry: &Entry, report: &mut Report) {
    let home: BTreeMap<u32, DeviceId> = entry.engines.iter().map(|e| (e.number, e.device)).collect();
    for command in &entry.commands {
        if let Action::Launch { kernel } = command.action
            && let Some(number) = entry.kernels[kernel.index()].engine
        {
            let place = entry.streams[command.stream.index()].device;
            let right = home.get(&number).is_none_or(|device| *device == place);
            report.demand(right, Constraint::Engines, || {
                let (device, place) = (home[&number].0, place.0);
                format!("engine {number} is on device {device}, but its kernel {} runs on {place}", kernel.0)
            });
        }
    }
}

/// The operations of engines are those of their kernels, and views of their results.
fn operations(entry: &Entry, owners: &BTreeMap<u32, u32>, report: &mut Report) {
    let mut explained: BTreeSet<u32> = BTreeSet::new();
    for (kernel, number) in entry.kernels.iter().filter_map(|k| Some((k, k.engine?))) {
        explained.extend(&kernel.ops);
        let missing = kernel.ops.iter().find(|op| owners.get(op) != Some(&number));
        if let Some(op) = missing {
            report.add(Constraint::Engines, || {
                format!("engine {number} does not list operation {op} of its kernel '{}'", kernel.name)
            });
        }
    }
    for alias in &entry.aliases {
        if let ValueRef::Result { op, .. } = alias.value.value
            && let Some(number) = owners.get(&op)
            && alias.of.iter().any(|part| is_of(owners, part.value, *number))
        {
            explained.insert(op);
        }
    }
    for (op, number) in owners.iter().filter(|(op, _)| !explained.contains(op)) {
        report.add(Constraint::Engines, || {
            format!("engine {number} lists operation {op}, which none of its kernels runs")
        });
    }
}

/// Is it the result of an operation of this engine?
fn is_of(owners: &BTreeMap<u32, u32>, value: ValueRef, number: u32) -> bool {
    matches!(value, ValueRef::Result { op, .. } if owners.get(&op) == Some(&number))
}

/// What crosses the borders: by engine and value its bytes, and by engine the constants that it reads.
#[derive(Default)]
struct Crossings {
    inputs: BTreeMap<(u32, ValueRef), u64>,
    outputs: BTreeSet<(u32, ValueRef)>,
    constants: BTreeSet<(u32, View)>,
    bytes: BTreeMap<ValueRef, u64>,
}

fn crossings(plan: &Plan, entry: &Entry, owners: &BTreeMap<u32, u32>) -> Crossings {
    let owner = |value: ValueRef| match value {
        ValueRef::Result { op, .. } => owners.get(&op).copied(),
        ValueRef::Argument(_) => None,
    };
    let mut all = Crossings::default();
    // Whoever uses a value (an engine, or nothing that is in one), and where it is.
    let reads = entry.kernels.iter().flat_map(|k| k.reads.iter().map(|o| (k.engine, o)));
    let parts = entry.aliases.iter().flat_map(|a| a.of.iter().map(move |o| (owner(a.value.value), o)));
    for (user, operand) in reads.chain(parts) {
        let (maker, view) = (owner(operand.value), operand.view);
        if maker == user {
            continue;
        }
        all.outputs.extend(maker.map(|m| (m, operand.value)));
        match plan.buffers[view.buffer.index()].content {
            Content::Constant { .. } => all.constants.extend(user.map(|u| (u, view))),
            _ => {
                if let Some(user) = user {
                    let bytes = all.inputs.entry((user, operand.value)).or_default();
                    *bytes = view.bytes.max(*bytes);
                }
            }
        }
    }
    let copied = entry.commands.iter().filter_map(|c| match c.action {
        Action::Copy { value, .. } => Some(value),
        _ => None,
    });
    let kept = entry.outputs.iter().map(|p| p.value).chain(entry.updates.iter().map(|u| u.value));
    all.outputs.extend(copied.chain(kept).filter_map(|v| Some((owner(v)?, v))));
    all.bytes = entry.aliases.iter().map(|a| &a.value).map(|o| (o.value, o.view.bytes)).collect();
    all.bytes.extend(entry.kernels.iter().flat_map(|k| &k.writes).map(|o| (o.value, o.view.bytes)));
    all
}

/// The engine says of its border what crosses it.
fn border(engine: &Engine, all: &Crossings, report: &mut Report) {
    let number = engine.number;
    let (least, most) = (ValueRef::Argument(0), ValueRef::Result { op: u32::MAX, index: u32::MAX });
    let inputs = || all.inputs.range((number, least)..=(number, most));
    let outputs = || all.outputs.range((number, least)..=(number, most)).map(|(_, value)| *value);
    let no_view = View { buffer: crate::plan::BufferId(0), offset: 0, bytes: 0 };
    let weights = all.constants.range((number, no_view)..).take_while(|(n, _)| *n == number);
    let mut named = |what: &str, said: &[ValueRef], found: Vec<ValueRef>| {
        report.demand(said == found, Constraint::Engines, || {
            let odd = said.iter().find(|v| !found.contains(v));
            let lacking = found.iter().find(|v| !said.contains(v));
            let wrong = match (odd, lacking) {
                (Some(odd), Some(lacking)) => format!("name {odd} wrongly and lack {lacking}"),
                (Some(odd), None) => format!("name {odd} wrongly"),
                (None, Some(lacking)) => format!("lack {lacking}"),
                (None, None) => "are in another order or named twice".into(),
            };
            format!("the {what} of engine {number} {wrong}")
        });
    };
    named("inputs", &engine.inputs, inputs().map(|((_, value), _)| *value).collect());
    named("outputs", &engine.outputs, outputs().collect());
    let sums = [
        ("inputs", engine.bytes_in, inputs().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes))),
        ("outputs", engine.bytes_out, {
            let sizes = outputs().map(|v| all.bytes.get(&v).copied().unwrap_or(0));
            sizes.fold(0u64, u64::saturating_add)
        }),
        ("constants", engine.weight_bytes, weights.fold(0u64, |sum, (_, v)| sum.saturating_add(v.bytes))),
    ];
    for (what, said, sum) in sums {
        report.demand(said == sum, Constraint::Engines, || {
            format!("the {what} of engine {number} have {sum} bytes, not {said}")
        });
    }
}

/// The figures of the engine are the sums of those of its kernels.
fn figures(entry: &Entry, engine: &Engine, report: &mut Report) {
    let kernels = || engine.kernels.iter().filter_map(|k| entry.kernels.get(k.index()));
    let sums = [
        ("seconds", engine.seconds, kernels().map(|k| k.seconds).sum::<f64>()),
        ("FLOP", engine.flops, kernels().map(|k| k.flops).sum()),
    ];
    for (what, said, sum) in sums {
        report.demand((said - sum).abs() <= ROUNDING * sum.abs(), Constraint::Engines, || {
            format!("the kernels of engine {} take {sum} {what}, not {said}", engine.number)
        });
    }
}

/// Engines, other kernels, copies and views can run one after another: no engine waits for what waits for it.
fn acyclic(entry: &Entry, owners: &BTreeMap<u32, u32>, report: &mut Report) {
    if entry.engines.is_empty() {
        return;
    }
    let mut graph = Groups::default();
    for kernel in &entry.kernels {
        graph.act(kernel.engine, &kernel.reads, &kernel.writes);
    }
    for alias in &entry.aliases {
        let engine = match alias.value.value {
            ValueRef::Result { op, .. } => owners.get(&op).copied(),
            ValueRef::Argument(_) => None,
        };
        graph.act(engine, &alias.of, std::slice::from_ref(&alias.value));
    }
    for command in &entry.commands {
        if let Action::Copy { value, result, from, to, .. } = command.action {
            let end = |value, place| match place {
                Place::Buffer(view) => vec![Operand { value, view }],
                Place::Input(_) | Place::Output(_) => Vec::new(),
            };
            graph.act(None, &end(value, from), &end(result, to));
        }
    }
    if let Some(number) = graph.stuck() {
        report.add(Constraint::Engines, || {
            format!("engine {number} waits for something outside of it that waits for it")
        });
    }
}

/// What needs what, engines as wholes.
#[derive(Default)]
struct Groups {
    /// The group of each engine.
    engines: BTreeMap<u32, usize>,
    /// What each group reads.
    reads: Vec<Vec<(ValueRef, View)>>,
    made: BTreeMap<(ValueRef, View), usize>,
}

impl Groups {
    /// Adds what reads and writes, to the group of its engine or to one of its own.
    fn act(&mut self, engine: Option<u32>, reads: &[Operand], writes: &[Operand]) {
        let next = self.reads.len();
        let group = engine.map_or(next, |number| *self.engines.entry(number).or_insert(next));
        if group == next {
            self.reads.push(Vec::new());
        }
        self.reads[group].extend(reads.iter().map(|o| (o.value, o.view)));
        for write in writes {
            self.made.entry((write.value, write.view)).or_insert(group);
        }
    }

    /// An engine that is on a cycle, or behind one (Kahn: "Topological sorting of large networks", CACM 1962).
    fn stuck(&self) -> Option<u32> {
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); self.reads.len()];
        let mut missing = vec![0usize; self.reads.len()];
        for (group, reads) in self.reads.iter().enumerate() {
            let makers: BTreeSet<usize> =
                reads.iter().filter_map(|key| self.made.get(key).copied()).collect();
            for maker in makers.into_iter().filter(|m| *m != group) {
                users[maker].push(group);
                missing[group] += 1;
            }
        }
        let mut ready: Vec<usize> = (0..missing.len()).filter(|g| missing[*g] == 0).collect();
        while let Some(group) = ready.pop() {
            for &user in &users[group] {
                missing[user] -= 1;
                if missing[user] == 0 {
                    ready.push(user);
                }
            }
        }
        self.engines.iter().find(|(_, group)| missing[**group] > 0).map(|(number, _)| *number)
    }
}
