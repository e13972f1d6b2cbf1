//! Inputs, outputs and states: who brings them, who takes them, where they stand.

use std::collections::{BTreeMap, BTreeSet};

use super::production::{Origin, origins};
use super::{Constraint, Range, Report, describe, overlapping};
use crate::plan::{Action, Content, DeviceId, Entry, Place, Plan, Port, ValueRef, View};

/// A copy from or to the caller: its command, the values before and after, and the place on the device.
type PortCopy = (usize, ValueRef, ValueRef, Place);

pub(super) fn check(plan: &Plan, entry: &Entry, report: &mut Report) {
    let mut brought: BTreeMap<u32, Vec<PortCopy>> = BTreeMap::new();
    let mut taken: BTreeMap<u32, Vec<PortCopy>> = BTreeMap::new();
    for (number, command) in entry.commands.iter().enumerate() {
        if let Action::Copy { value, result, from, to, .. } = command.action {
            if let Place::Input(i) = from {
                brought.entry(i).or_default().push((number, value, result, to));
            }
            if let Place::Output(o) = to {
                taken.entry(o).or_default().push((number, value, result, from));
            }
        }
    }
    for (i, port) in (0..).zip(&entry.inputs) {
        report.demand(matches!(port.value, ValueRef::Argument(_)), Constraint::Ports, || {
            format!("input {i} '{}' is {}, which is no argument", port.name, port.value)
        });
        port_check(plan, "input", i, port, brought.get(&i), report);
    }
    let (origins, _) = origins(entry);
    for (o, port) in (0..).zip(&entry.outputs) {
        port_check(plan, "output", o, port, taken.get(&o), report);
        let computed = matches!(
            origins.get(&port.value),
            Some(Origin::Kernel | Origin::Transfer | Origin::Alias | Origin::State)
        );
        report.demand(port.view.is_some() || !computed, Constraint::Ports, || {
            format!("output {o} '{}' is {}, which is computed but has no place", port.name, port.value)
        });
        let known = port
            .update_of
            .is_none_or(|a| entry.inputs.iter().any(|input| input.value == ValueRef::Argument(a)));
        report.demand(known, Constraint::Ports, || {
            format!(
                "output {o} '{}' is the new value of argument {:?}, which is no input",
                port.name, port.update_of
            )
        });
    }
    states(plan, entry, report);
}

fn port_check(
    plan: &Plan,
    kind: &str,
    number: u32,
    port: &Port,
    copies: Option<&Vec<PortCopy>>,
    report: &mut Report,
) {
    let name = || format!("{kind} {number} '{}'", port.name);
    let copies = copies.map_or(&[][..], Vec::as_slice);
    let wanted = usize::from(port.view.is_some() && !port.resident);
    // An input may be brought to further devices, to each once.
    let devices: BTreeSet<_> = copies.iter().filter_map(|c| device_of(plan, c.3)).collect();
    let apart = kind == "input" && wanted == 1 && !copies.is_empty() && devices.len() == copies.len();
    report.demand(copies.len() == wanted || apart, Constraint::Ports, || {
        let commands: Vec<usize> = copies.iter().map(|c| c.0).collect();
        format!("{} is copied by commands {commands:?}, but {wanted} copies are due", name())
    });
    for (i, &(command, value, result, place)) in copies.iter().enumerate() {
        report.command = Some(command);
        report.demand(value == port.value && result == port.value, Constraint::Ports, || {
            format!("{} is {}, but the copy moves {value} as {result}", name(), port.value)
        });
        report.demand(
            (i > 0 && apart) || port.view.map(Place::Buffer) == Some(place),
            Constraint::Ports,
            || format!("{} is kept at {:?}, but the copy has {place:?}", name(), port.view),
        );
    }
    report.command = None;
    match &port.view {
        Some(view) if port.resident => report.demand(in_state(plan, view), Constraint::Ports, || {
            format!("{} stays on the device, but {} is no state", name(), describe(plan, view))
        }),
        None => report.demand(!port.resident, Constraint::Ports, || {
            format!("{} stays on the device, but has no place there", name())
        }),
        _ => {}
    }
}

fn device_of(plan: &Plan, place: Place) -> Option<DeviceId> {
    let Place::Buffer(view) = place else { return None };
    Some(plan.arenas[plan.buffers[view.buffer.index()].arena.index()].device)
}

fn in_state(plan: &Plan, view: &View) -> bool {
    matches!(plan.buffers[view.buffer.index()].content, Content::State { .. })
}

fn states(plan: &Plan, entry: &Entry, report: &mut Report) {
    let bound = entry.states.iter().map(|s| ("state", s.argument, &s.view));
    let updated = entry.updates.iter().map(|u| ("update", u.argument, &u.view));
    for (kind, argument, view) in bound.chain(updated) {
        report.demand(in_state(plan, view), Constraint::State, || {
            format!("the {kind} of argument {argument} is at {}, which is no state", describe(plan, view))
        });
    }
    let resident = |ports: &[Port]| -> Vec<Range> {
        ports.iter().filter(|p| p.resident).filter_map(|p| Some(Range::of(plan, &p.view?))).collect()
    };
    let before = entry.states.iter().map(|s| Range::of(plan, &s.view)).chain(resident(&entry.inputs));
    let after = entry.updates.iter().map(|u| Range::of(plan, &u.view)).chain(resident(&entry.outputs));
    for (when, clash) in [("before", overlapping(before)), ("after", overlapping(after))] {
        if let Some((a, b)) = clash {
            report.add(Constraint::State, || {
                let (arena, s) = (a.arena, a.intersection(&b));
                format!("two states claim bytes {}..{} of arena {arena} {when} a run", s.start, s.end)
            });
        }
    }
    let bindings: BTreeMap<u32, &View> = entry.states.iter().map(|s| (s.argument, &s.view)).collect();
    let mut seen = BTreeSet::new();
    for update in &entry.updates {
        report.demand(seen.insert(update.argument), Constraint::State, || {
            format!("the state of argument {} is updated twice", update.argument)
        });
        let same = bindings.get(&update.argument).is_none_or(|view| **view == update.view);
        report.demand(same, Constraint::State, || {
            let place = describe(plan, &update.view);
            format!("the state of argument {} is read at another place than {place}", update.argument)
        });
    }
}
