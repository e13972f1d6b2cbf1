//! Structure: numbers, ranges, figures and contents, before anything is executed.

use std::collections::{BTreeMap, BTreeSet};

use djinn_diag::clipped;

use super::{Constraint, Range, Report, describe, each_view, overlapping};
use crate::plan::{
    ALIGNMENT, Action, Arena, ArenaKind, Content, DeviceId, Entry, FORMAT_VERSION, Place, Plan, StreamKind,
    ValueRef, View,
};

/// Checks what an entry is made from, and everything by which the other checks index.
pub(super) fn plan(plan: &Plan, report: &mut Report) {
    if plan.version != FORMAT_VERSION {
        report.add(Constraint::Version, || {
            format!("version {} of the data; this checker knows version {FORMAT_VERSION} only", plan.version)
        });
        return;
    }
    let hex = !plan.program.is_empty() && plan.program.bytes().all(|b| b.is_ascii_hexdigit());
    report.demand(hex, Constraint::Ids, || {
        format!("the program '{}' is not a hash in hexadecimal digits", clipped(&plan.program, 40, 20))
    });
    devices(plan, report);
    buffers(plan, report);
    for (number, entry) in plan.entries.iter().enumerate() {
        report.entry = Some((number, entry.function.clone()));
        entry_ids(plan, entry, report);
        entry_figures(entry, report);
        entry_views(plan, entry, report);
    }
    report.entry = None;
}

fn figure(value: f64, what: &dyn Fn() -> String, report: &mut Report) {
    report.demand(value.is_finite() && value >= 0.0, Constraint::Figures, || {
        format!("{} is {value}, which is no finite figure of at least 0", what())
    });
}

fn device_id(plan: &Plan, id: DeviceId, what: &dyn Fn() -> String, report: &mut Report) {
    report.demand(id.index() < plan.devices.len(), Constraint::Ids, || {
        format!("{} is on device {}, but the plan has {}", what(), id.0, plan.devices.len())
    });
}

fn devices(plan: &Plan, report: &mut Report) {
    let mut names = BTreeSet::new();
    for device in &plan.devices {
        report.demand(!device.name.is_empty() && names.insert(&device.name), Constraint::Devices, || {
            format!("the device name '{}' is empty or occurs twice", device.name)
        });
        figure(device.sync_seconds, &|| format!("the time of a wait on device '{}'", device.name), report);
    }
    let mut pairs = BTreeSet::new();
    for (number, link) in plan.links.iter().enumerate() {
        let what = || format!("an end of link {number}");
        device_id(plan, link.from, &what, report);
        device_id(plan, link.to, &what, report);
        report.demand(
            link.from != link.to && pairs.insert((link.from, link.to)),
            Constraint::Devices,
            || {
                let (from, to) = (link.from.0, link.to.0);
                format!(
                    "link {number} from device {from} to {to} joins a device to itself or is a second one"
                )
            },
        );
        figure(link.latency, &|| format!("the latency of link {number}"), report);
        report.demand(link.bandwidth.is_finite() && link.bandwidth > 0.0, Constraint::Figures, || {
            format!("the bandwidth of link {number} is {}, which is no finite figure above 0", link.bandwidth)
        });
    }
    for (number, arena) in plan.arenas.iter().enumerate() {
        device_id(plan, arena.device, &|| format!("arena {number}"), report);
    }
}

fn buffers(plan: &Plan, report: &mut Report) {
    for (number, buffer) in plan.buffers.iter().enumerate() {
        let name = || format!("buffer {number} '{}'", clipped(&buffer.name, 40, 20));
        let Some(arena) = plan.arenas.get(buffer.arena.index()) else {
            report.add(Constraint::Ids, || {
                format!("{} is in arena {}, but the plan has {}", name(), buffer.arena.0, plan.arenas.len())
            });
            continue;
        };
        report.demand(buffer.offset % ALIGNMENT == 0, Constraint::Buffers, || {
            format!("{} begins at byte {}, which is no multiple of {ALIGNMENT}", name(), buffer.offset)
        });
        let within = buffer.offset.checked_add(buffer.bytes).is_some_and(|end| end <= arena.bytes);
        report.demand(within, Constraint::Buffers, || {
            let (offset, bytes, id, size) = (buffer.offset, buffer.bytes, buffer.arena.0, arena.bytes);
            format!("{} takes {offset} + {bytes} bytes, but arena {id} has {size}", name())
        });
        if let Content::Run { entry } = buffer.content {
            report.demand((entry as usize) < plan.entries.len(), Constraint::Ids, || {
                format!("{} belongs to entry {entry}, but the plan has {}", name(), plan.entries.len())
            });
        }
    }
}

fn entry_ids(plan: &Plan, entry: &Entry, report: &mut Report) {
    for (number, stream) in entry.streams.iter().enumerate() {
        device_id(plan, stream.device, &|| format!("stream {number}"), report);
    }
    for budget in &entry.budgets {
        device_id(plan, budget.device, &|| "a budget".into(), report);
    }
    // Every event is recorded by one command, so this also bounds what is allocated for events.
    report.demand(entry.events as usize <= entry.commands.len(), Constraint::Events, || {
        format!("{} events, but only {} commands to record them", entry.events, entry.commands.len())
    });
    for (number, command) in entry.commands.iter().enumerate() {
        report.command = Some(number);
        let mut id = |kind: &str, id: u32, count: usize| {
            report.demand((id as usize) < count, Constraint::Ids, || {
                format!("{kind} {id} is named, but the entry has {count}")
            });
        };
        id("stream", command.stream.0, entry.streams.len());
        match command.action {
            Action::Launch { kernel } => id("kernel", kernel.0, entry.kernels.len()),
            Action::Record { event } | Action::Wait { event } => id("event", event.0, entry.events as usize),
            Action::Copy { from, to, .. } => {
                for place in [from, to] {
                    match place {
                        Place::Input(i) => id("input", i, entry.inputs.len()),
                        Place::Output(o) => id("output", o, entry.outputs.len()),
                        Place::Buffer(_) => {}
                    }
                }
            }
        }
    }
    report.command = None;
}

fn entry_figures(entry: &Entry, report: &mut Report) {
    figure(entry.seconds, &|| "the predicted time of a run".into(), report);
    for (number, kernel) in entry.kernels.iter().enumerate() {
        for (what, value) in [("time", kernel.seconds), ("work", kernel.flops), ("traffic", kernel.traffic)] {
            figure(value, &|| format!("the {what} of kernel {number} '{}'", kernel.name), report);
        }
        report.demand(kernel.share > 0.0 && kernel.share <= 1.0, Constraint::Figures, || {
            let (name, share) = (&kernel.name, kernel.share);
            format!("the share of kernel {number} '{name}' is {share}, not above 0 and at most 1")
        });
    }
    for (number, command) in entry.commands.iter().enumerate() {
        if let Action::Copy { seconds, .. } = command.action {
            figure(seconds, &|| format!("the time of command {number}, a copy,"), report);
        }
    }
}

fn entry_views(plan: &Plan, entry: &Entry, report: &mut Report) {
    each_view(entry, |view, what| {
        let Some(buffer) = plan.buffers.get(view.buffer.index()) else {
            report.add(Constraint::Ids, || {
                format!("{} is in buffer {}, but the plan has {}", what(), view.buffer.0, plan.buffers.len())
            });
            return;
        };
        let within = view.offset.checked_add(view.bytes).is_some_and(|end| end <= buffer.bytes);
        report.demand(within, Constraint::Views, || {
            let (offset, bytes, id, size) = (view.offset, view.bytes, view.buffer.0, buffer.bytes);
            format!(
                "{} takes {offset} + {bytes} bytes of buffer {id} '{}', which has {size}",
                what(),
                buffer.name
            )
        });
    });
}

/// Checks memory over all entries: capacities, and what lives from run to run.
pub(super) fn capacity(plan: &Plan, report: &mut Report) {
    for (number, device) in plan.devices.iter().enumerate() {
        let arenas: Vec<&Arena> = plan.arenas.iter().filter(|a| a.device.index() == number).collect();
        let sum: u128 = arenas.iter().map(|a| u128::from(a.bytes)).sum();
        report.demand(sum <= u128::from(device.memory_bytes), Constraint::Capacity, || {
            let terms: Vec<String> = arenas.iter().map(|a| format!("{} ({:?})", a.bytes, a.kind)).collect();
            let (name, memory) = (&device.name, device.memory_bytes);
            format!("the arenas of '{name}' take {} = {sum} bytes, but it has {memory}", terms.join(" + "))
        });
    }
    let mut persistent = Vec::new();
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, buffer) in plan.buffers.iter().enumerate() {
        let kind = plan.arenas[buffer.arena.index()].kind;
        let fits = match &buffer.content {
            Content::Constant { .. } => kind == ArenaKind::Weights,
            Content::State { .. } => kind == ArenaKind::State,
            Content::Run { .. } => matches!(kind, ArenaKind::Activations | ArenaKind::Spill),
        };
        report.demand(fits, Constraint::Contents, || {
            let (name, content) = (&buffer.name, &buffer.content);
            format!("buffer {number} '{name}' holds {content:?}, but its arena is for {kind:?}")
        });
        if let Content::State { name } = &buffer.content
            && let Some(other) = names.insert(name, number)
        {
            report.add(Constraint::Contents, || {
                format!("buffers {other} and {number} both hold state '{name}'")
            });
        }
        if !matches!(buffer.content, Content::Run { .. }) {
            persistent.push(Range {
                arena: buffer.arena.index(),
                start: buffer.offset,
                end: buffer.offset + buffer.bytes,
            });
        }
    }
    if let Some((a, b)) = overlapping(persistent) {
        report.add(Constraint::Contents, || {
            let (arena, shared) = (a.arena, a.intersection(&b));
            format!(
                "two constants or states of arena {arena} share bytes {}..{}: one takes {}..{}, the other {}..{}",
                shared.start, shared.end, a.start, a.end, b.start, b.end
            )
        });
    }
}

/// Checks what belongs where in one entry of a sound plan.
pub(super) fn entry(plan: &Plan, number: usize, entry: &Entry, report: &mut Report) {
    symbols(entry, report);
    each_view(entry, |view, what| {
        if let Content::Run { entry: owner } = plan.buffers[view.buffer.index()].content {
            report.demand(owner as usize == number, Constraint::Ownership, || {
                format!("{} is in {}, which entry {owner} owns", what(), describe(plan, view))
            });
        }
    });
    constants(plan, entry, report);
    for (number, command) in entry.commands.iter().enumerate() {
        report.command = Some(number);
        let stream = &entry.streams[command.stream.index()];
        match command.action {
            Action::Launch { kernel } => {
                let name = &entry.kernels[kernel.index()].name;
                report.demand(stream.kind == StreamKind::Compute, Constraint::Locality, || {
                    format!("kernel '{name}' is launched in stream {}, which is for copies", command.stream.0)
                });
                kernel_is_local(plan, entry, kernel.index(), stream.device, report);
            }
            Action::Copy { from, to, .. } => copy_has_a_way(plan, stream.device, from, to, report),
            Action::Record { .. } | Action::Wait { .. } => {}
        }
    }
    report.command = None;
}

fn symbols(entry: &Entry, report: &mut Report) {
    let mut names = BTreeSet::new();
    for symbol in &entry.symbols {
        let (name, min, max) = (&symbol.name, symbol.min, symbol.max);
        report.demand(!name.is_empty() && names.insert(name), Constraint::Symbols, || {
            format!("the symbol name '{name}' is empty or occurs twice")
        });
        report.demand(0 <= min && min <= max, Constraint::Symbols, || {
            format!("symbol '{name}' ranges from {min} to {max}: negative or empty")
        });
    }
}

fn constants(plan: &Plan, entry: &Entry, report: &mut Report) {
    for constant in &entry.constants {
        let buffer = &plan.buffers[constant.view.buffer.index()];
        let Content::Constant { function, value } = &buffer.content else {
            report.add(Constraint::Ownership, || {
                format!("{} is a constant, but {} is not", constant.value, describe(plan, &constant.view))
            });
            continue;
        };
        // Constants of other functions are shared by what they hold, which the data does not tell.
        let agrees = *function != entry.function || *value == constant.value;
        report.demand(agrees, Constraint::Ownership, || {
            format!(
                "constant {} is bound to {}, which holds {value}",
                constant.value,
                describe(plan, &constant.view)
            )
        });
    }
}

fn device_of(plan: &Plan, view: &View) -> DeviceId {
    plan.arenas[plan.buffers[view.buffer.index()].arena.index()].device
}

fn kernel_is_local(plan: &Plan, entry: &Entry, number: usize, device: DeviceId, report: &mut Report) {
    let kernel = &entry.kernels[number];
    let views = kernel.reads.iter().chain(&kernel.writes).map(|o| (Some(o.value), &o.view));
    for (value, view) in views.chain(kernel.workspace.iter().map(|w| (None, w))) {
        let place = device_of(plan, view);
        report.demand(place == device, Constraint::Locality, || {
            let what = value.map_or_else(|| "scratch memory".to_owned(), |v: ValueRef| v.to_string());
            let (here, there) = (&plan.devices[device.index()].name, &plan.devices[place.index()].name);
            let view = describe(plan, view);
            format!("kernel '{}' runs on '{here}', but {what} is on '{there}' ({view})", kernel.name)
        });
    }
}

fn copy_has_a_way(plan: &Plan, stream: DeviceId, from: Place, to: Place, report: &mut Report) {
    let device = |place: Place| match place {
        Place::Buffer(view) => Some(device_of(plan, &view)),
        Place::Input(_) | Place::Output(_) => None,
    };
    let name = |id: DeviceId| plan.devices[id.index()].name.as_str();
    let ends = [device(from), device(to)];
    if let [Some(a), Some(b)] = ends {
        let linked = a == b || plan.links.iter().any(|l| l.from == a && l.to == b);
        report.demand(linked, Constraint::Locality, || {
            format!("a copy goes from '{}' to '{}', but the plan has no link between them", name(a), name(b))
        });
        if let Place::Buffer(view) = from {
            let state = matches!(plan.buffers[view.buffer.index()].content, Content::State { .. });
            report.demand(!state || a == b || plan.devices[b.index()].host, Constraint::State, || {
                format!(
                    "state in {} is copied to '{}', away from '{}'",
                    describe(plan, &view),
                    name(b),
                    name(a)
                )
            });
        }
    }
    report.demand(ends.contains(&Some(stream)), Constraint::Locality, || {
        let names: Vec<&str> = ends.iter().flatten().map(|&d| name(d)).collect();
        format!("a copy on {names:?} is issued to a stream of '{}'", name(stream))
    });
}
