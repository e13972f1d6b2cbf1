//! Budgets, computed again from arenas and buffers.

use std::collections::{BTreeMap, BTreeSet};

use super::{Constraint, Report, each_view};
use crate::plan::{ALIGNMENT, ArenaKind, Budget, Content, DeviceId, Entry, Plan};

/// What the buffers of one entry come to on one device.
#[derive(Default)]
struct Needs {
    weights: u128,
    state: u128,
    /// Last byte of the entry's buffers, per arena.
    activations: BTreeMap<usize, u64>,
    workspace_least: u64,
    workspace_most: u128,
}

pub(super) fn check(plan: &Plan, number: usize, entry: &Entry, report: &mut Report) {
    let needs = needs(plan, number, entry);
    let mut seen = BTreeSet::new();
    for budget in &entry.budgets {
        report.demand(seen.insert(budget.device), Constraint::Budgets, || {
            format!("two budgets for device {}", budget.device.0)
        });
        let empty = Needs::default();
        compare(plan, budget, needs.get(&budget.device).unwrap_or(&empty), report);
        sessions(plan, budget, report);
    }
    for device in needs.keys().filter(|d| !plan.devices[d.index()].host && !seen.contains(d)) {
        report.add(Constraint::Budgets, || {
            format!("no budget for '{}', which the entry uses", plan.devices[device.index()].name)
        });
    }
}

fn needs(plan: &Plan, number: usize, entry: &Entry) -> BTreeMap<DeviceId, Needs> {
    let mut needs: BTreeMap<DeviceId, Needs> = BTreeMap::new();
    let mut used = BTreeSet::new();
    each_view(entry, |view, _| {
        used.insert(view.buffer.index());
    });
    for (id, buffer) in plan.buffers.iter().enumerate() {
        let arena = &plan.arenas[buffer.arena.index()];
        let is_used = used.contains(&id);
        match buffer.content {
            Content::Constant { .. } if is_used => {
                needs.entry(arena.device).or_default().weights += u128::from(buffer.bytes);
            }
            Content::State { .. } if is_used => {
                needs.entry(arena.device).or_default().state += u128::from(buffer.bytes);
            }
            Content::Run { entry } if entry as usize == number && arena.kind == ArenaKind::Activations => {
                let needs = needs.entry(arena.device).or_default();
                let end = needs.activations.entry(buffer.arena.index()).or_default();
                *end = (*end).max(buffer.offset + buffer.bytes);
            }
            _ => {}
        }
    }
    for view in entry.kernels.iter().filter_map(|k| k.workspace.as_ref()) {
        let arena = plan.buffers[view.buffer.index()].arena;
        let needs = needs.entry(plan.arenas[arena.index()].device).or_default();
        needs.workspace_least = needs.workspace_least.max(view.bytes);
        needs.workspace_most += u128::from(view.bytes);
    }
    needs
}

fn compare(plan: &Plan, budget: &Budget, needs: &Needs, report: &mut Report) {
    let device = &plan.devices[budget.device.index()].name;
    let arenas = |kind: ArenaKind| -> u128 {
        let of_kind = plan.arenas.iter().filter(|a| a.device == budget.device && a.kind == kind);
        of_kind.map(|a| u128::from(a.bytes)).sum()
    };
    let mut between = |what: &str, value: u64, least: u128, most: u128| {
        report.demand((least..=most).contains(&u128::from(value)), Constraint::Budgets, || {
            format!("the budget of '{device}' has {value} bytes of {what}, but buffers and arenas say {least} to {most}")
        });
    };
    between("weights", budget.weights, needs.weights, arenas(ArenaKind::Weights));
    between("state", budget.state, needs.state, arenas(ArenaKind::State));
    let extent: u128 = needs.activations.values().map(|&end| u128::from(end)).sum();
    let rounded =
        needs.activations.values().map(|&end| u128::from(end).next_multiple_of(u128::from(ALIGNMENT)));
    between("activations", budget.activations, extent, rounded.sum());
    between("the bound on activations", budget.activations_bound, 0, u128::from(budget.activations));
    let most =
        needs.workspace_most.next_multiple_of(u128::from(ALIGNMENT)).min(u128::from(budget.activations));
    between("workspace", budget.workspace, u128::from(needs.workspace_least), most);
}

fn sessions(plan: &Plan, budget: &Budget, report: &mut Report) {
    let device = &plan.devices[budget.device.index()];
    report.demand(budget.kv_per_token <= budget.kv_per_session, Constraint::Budgets, || {
        let (token, session) = (budget.kv_per_token, budget.kv_per_session);
        format!("a cache on '{}' takes {token} bytes a token, but only {session} a session", device.name)
    });
    let Some(sessions) = budget.sessions else { return };
    let (weights, activations, cache) = (budget.weights, budget.activations, budget.kv_per_session);
    let sum = u128::from(weights) + u128::from(activations) + u128::from(sessions) * u128::from(cache);
    report.demand(cache > 0 && sum <= u128::from(device.memory_bytes), Constraint::Budgets, || {
        format!(
            "{sessions} sessions on '{}' take {weights} + {activations} + {sessions} * {cache} = {sum} bytes, but it has {}",
            device.name, device.memory_bytes
        )
    });
}
