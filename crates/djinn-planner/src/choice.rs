//! Which kinds of sharing a function's storage uses.
//!
//! A view keeps its whole operand, and a concatenation made in place takes its room from the first part on. That saves
//! copies and mostly memory too, but not always: the kinds are left out one after the other while that lowers the peak.

use djinn_ir::{Function, OpId, ValueId};
use djinn_lifetime::{Storage, StorageKind, StorageOptions, assign as with};
use std::collections::BTreeSet;

/// Storage with the most sharing among those with the lowest peak.
pub(crate) fn assign(
    function: &Function,
    units: &[Vec<OpId>],
    ahead: &[bool],
    all: &StorageOptions<'_>,
) -> Storage {
    let mut best = with(function, units, ahead, all);
    let shares = |kinds: &[djinn_ir::OpKind]| {
        let skipped = units.iter().zip(&best.skipped).filter(|(_, skipped)| **skipped);
        skipped.flat_map(|(ops, _)| ops).any(|id| kinds.contains(&function.graph.op(*id).kind))
    };
    let (concats, slices) = (shares(&[djinn_ir::OpKind::Concat]), shares(&[djinn_ir::OpKind::Slice]));
    if !concats && !slices {
        return best;
    }
    let mut least = peak(function, units, all, &best);
    let without = [(false, true, concats), (true, false, slices), (false, false, concats && slices)];
    for (concat, slices, _) in without.into_iter().filter(|(.., differs)| *differs) {
        let storage = with(function, units, ahead, &StorageOptions { concat, slices, ..*all });
        let peak = peak(function, units, all, &storage);
        if peak < least {
            (best, least) = (storage, peak);
        }
    }
    best
}

/// The same without any sharing.
pub(crate) fn nothing<'a>(all: &StorageOptions<'a>) -> StorageOptions<'a> {
    let renewals = djinn_lifetime::StorageOptions::default().renewals;
    StorageOptions {
        views: false,
        slices: false,
        concat: false,
        in_place: false,
        updates: false,
        renewals,
        ..*all
    }
}

/// Bytes live at once at most, at the largest sizes, when the units run one after the other.
fn peak(function: &Function, units: &[Vec<OpId>], options: &StorageOptions<'_>, storage: &Storage) -> u128 {
    let graph = &function.graph;
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; storage.buffers.len()];
    for (u, ops) in units.iter().enumerate().filter(|(u, _)| !storage.skipped[*u]) {
        for id in ops {
            let op = graph.op(*id);
            for v in op.operands.iter().chain(&op.results) {
                if let Some(root) = storage.root[v.0 as usize] {
                    lives[root.index()].get_or_insert((u, u)).1 = u;
                }
            }
        }
    }
    let kept: BTreeSet<usize> = options.apart.iter().filter_map(|v| root(storage, *v)).collect();
    let mut change = vec![0i128; units.len() + 1];
    for (i, info) in storage.buffers.iter().enumerate() {
        let (Some((first, last)), false) = (lives[i], kept.contains(&i)) else { continue };
        if matches!(info.kind, StorageKind::State(_)) {
            continue;
        }
        let most = options.symbols.and_then(|symbols| info.bytes.bounds(symbols).1).unwrap_or(0);
        change[first] += i128::from(most.max(0));
        change[last + 1] -= i128::from(most.max(0));
    }
    let (mut live, mut peak) = (0i128, 0i128);
    for bytes in change {
        live += bytes;
        peak = peak.max(live);
    }
    peak.unsigned_abs()
}

fn root(storage: &Storage, v: ValueId) -> Option<usize> {
    storage.root[v.0 as usize].map(|root| root.index())
}
