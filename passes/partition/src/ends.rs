//! Why engine regions end where they end: what keeps the users of their values out of them.

use crate::body::Body;
use crate::regions::Regions;
use std::collections::BTreeMap;

/// Reasons that are given for one region, at most.
const MAX_REASONS: usize = 3;

/// The reasons by region: what engines cannot hold before what waits for that, and what keeps out the most operations
/// first. A region whose values only the caller uses has
/// none.
pub(crate) fn ends(body: &Body, regions: &Regions) -> BTreeMap<u32, Vec<String>> {
    let mut counts: BTreeMap<u32, BTreeMap<(bool, String), usize>> = BTreeMap::new();
    for (position, engine) in (0u32..).zip(&regions.engine) {
        let Some(engine) = *engine else { continue };
        for user in body.successors(position).iter().filter(|u| regions.engine[**u as usize] != Some(engine))
        {
            let reason = reason(body, regions, position, *user);
            *counts.entry(engine).or_default().entry(reason).or_default() += 1;
        }
    }
    let sorted = |reasons: BTreeMap<(bool, String), usize>| {
        let mut reasons: Vec<((bool, String), usize)> = reasons.into_iter().collect();
        reasons.sort_by(|((late, a), n), ((later, b), m)| late.cmp(later).then(m.cmp(n)).then(a.cmp(b)));
        reasons.into_iter().take(MAX_REASONS).map(|((_, reason), _)| reason).collect()
    };
    counts.into_iter().map(|(engine, reasons)| (engine, sorted(reasons))).collect()
}

/// Why `user` is not in the region of `position`, whose value it uses; is it only for what it also waits for?
fn reason(body: &Body, regions: &Regions, position: u32, user: u32) -> (bool, String) {
    let name = body.op(user).kind.name();
    let (from, to) = (body.places[position as usize], body.places[user as usize]);
    match regions.refusals[user as usize] {
        Some(refusal) => (false, format!("{name}: {refusal}")),
        None if from.device != to.device => (false, format!("{name} runs on another device")),
        None if from.phase != to.phase => (false, format!("{name} is of another phase")),
        None => (true, format!("{name} also waits for operations outside of the engine")),
    }
}
