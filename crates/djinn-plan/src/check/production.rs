//! Origins of values: each is an argument, a constant, a result of one kernel, a transfer or an alias, and only one of
//! these.

use std::collections::BTreeMap;

use super::{Constraint, Report};
use crate::plan::{Action, CopyReason, Entry, Place, ValueRef};

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Input,
    State,
    Constant,
    Kernel,
    Transfer,
    Alias,
}

pub(super) fn check(entry: &Entry, report: &mut Report) {
    launches(entry, report);
    let kernels = operations(entry, report);
    for (number, kernel) in entry.kernels.iter().enumerate() {
        for write in &kernel.writes {
            let own = matches!(write.value, ValueRef::Result { op, .. } if kernels.get(&op) == Some(&number));
            report.demand(own, Constraint::Production, || {
                let (name, value) = (&kernel.name, write.value);
                format!("kernel {number} '{name}' writes {value}, which is no result of its operations")
            });
        }
    }
    copies(entry, report);
    one_origin_each(entry, &kernels, report);
}

fn launches(entry: &Entry, report: &mut Report) {
    let mut times = vec![0usize; entry.kernels.len()];
    for command in &entry.commands {
        if let Action::Launch { kernel } = command.action {
            times[kernel.index()] += 1;
        }
    }
    for (number, &times) in times.iter().enumerate() {
        report.demand(times == 1, Constraint::Production, || {
            format!(
                "kernel {number} '{}' is launched {times} times instead of once",
                entry.kernels[number].name
            )
        });
    }
}

/// The kernel that holds each operation.
fn operations(entry: &Entry, report: &mut Report) -> BTreeMap<u32, usize> {
    let mut owners = BTreeMap::new();
    for (number, kernel) in entry.kernels.iter().enumerate() {
        let ascending = !kernel.ops.is_empty() && kernel.ops.windows(2).all(|w| w[0] < w[1]);
        report.demand(ascending, Constraint::Production, || {
            format!("the operations of kernel {number} '{}' are none or not in ascending order", kernel.name)
        });
        for &op in &kernel.ops {
            if let Some(other) = owners.insert(op, number)
                && other != number
            {
                report.add(Constraint::Production, || {
                    format!("operation {op} belongs to kernels {other} and {number}")
                });
            }
        }
    }
    owners
}

fn copies(entry: &Entry, report: &mut Report) {
    for (number, command) in entry.commands.iter().enumerate() {
        let Action::Copy { value, result, from, to, reason, .. } = command.action else { continue };
        report.command = Some(number);
        report.demand(value == result || reason == CopyReason::Transfer, Constraint::Copies, || {
            format!("a copy for {reason:?} turns {value} into {result}; only a transfer may rename a value")
        });
        let bytes = |place| match place {
            Place::Buffer(view) => Some(view.bytes),
            Place::Input(_) | Place::Output(_) => None,
        };
        if let (Some(a), Some(b)) = (bytes(from), bytes(to)) {
            report.demand(a == b, Constraint::Copies, || format!("a copy takes {a} bytes but leaves {b}"));
        }
        let sensible = match (from, to) {
            (Place::Input(_), Place::Buffer(_)) => reason == CopyReason::Input,
            (Place::Buffer(_), Place::Output(_)) => reason == CopyReason::Output,
            (Place::Buffer(_), Place::Buffer(_)) => !matches!(reason, CopyReason::Input | CopyReason::Output),
            _ => false,
        };
        report.demand(sensible, Constraint::Copies, || {
            format!("a copy from {from:?} to {to:?} is not one for {reason:?}")
        });
    }
    report.command = None;
}

/// A value with two origins.
type Double = (ValueRef, Origin, Origin);

/// The origins of all values that the entry names, and those values that have two.
pub(super) fn origins(entry: &Entry) -> (BTreeMap<ValueRef, Origin>, Vec<Double>) {
    let mut origins = BTreeMap::new();
    let mut doubles = Vec::new();
    let mut add = |value: ValueRef, origin: Origin, again: bool| match origins.insert(value, origin) {
        Some(other) if other != origin || !again => doubles.push((value, other, origin)),
        _ => {}
    };
    entry.inputs.iter().for_each(|port| add(port.value, Origin::Input, false));
    entry.states.iter().for_each(|state| add(ValueRef::Argument(state.argument), Origin::State, false));
    // A constant or an alias may stand at several places; a kernel may write its result to several.
    entry.constants.iter().for_each(|c| add(c.value, Origin::Constant, true));
    entry.kernels.iter().flat_map(|k| &k.writes).for_each(|w| add(w.value, Origin::Kernel, true));
    for command in &entry.commands {
        if let Action::Copy { value, result, .. } = command.action
            && value != result
        {
            add(result, Origin::Transfer, false);
        }
    }
    entry.aliases.iter().for_each(|a| add(a.value.value, Origin::Alias, true));
    (origins, doubles)
}

fn one_origin_each(entry: &Entry, kernels: &BTreeMap<u32, usize>, report: &mut Report) {
    let (origins, doubles) = origins(entry);
    for (value, a, b) in doubles {
        report.add(Constraint::Production, || format!("{value} has two origins: {a:?} and {b:?}"));
    }
    for (&value, &origin) in &origins {
        if matches!(origin, Origin::Kernel | Origin::Input | Origin::State) {
            continue;
        }
        let ValueRef::Result { op, .. } = value else {
            report.demand(origin == Origin::Constant, Constraint::Production, || {
                format!("argument {value} is no {origin:?}: arguments are inputs, states or constants")
            });
            continue;
        };
        if let Some(kernel) = kernels.get(&op) {
            report.add(Constraint::Production, || {
                format!("{value} is of origin {origin:?}, but kernel {kernel} computes its operation")
            });
        }
    }
}
