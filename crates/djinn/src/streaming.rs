//! The search for a plan in which as few weights as possible stay on hosts.
//!
//! How many bytes run beside the copies of weights is known only when the operations are ordered and their buffers packed.
//! So devices are first taken to need the least that one operation needs; where that is too little, more is kept free
//! (and more weights are streamed), twice as much each time, until a plan fits; then the least that does is found by
//! bisection.

use crate::plan::{Attempt, Estimate, PlanRequest, Setting, attempt, refused_for_memory};
use djinn_device::Target;
use djinn_diag::{Diagnostic, Result, internal};
use djinn_ir::Module;
use djinn_pack::Limits;

/// Plans that are tried on one choice of devices, at most.
const MAX_ROUNDS: usize = 20;

/// So many packings that do not fit make more weights be streamed.
const OVERFLOWS: usize = 3;

/// Bytes kept free are found to within one part in this many of the memory of a device.
const RESOLUTION: u64 = 128;

/// The first bytes kept free are one part in this many of the memory of a device.
const FIRST_STEP: u64 = 32;

/// Devices that are tried by themselves, at most.
const MAX_ALONE: usize = 4;

/// The search for a packing: what does not fit is made smaller by streaming more, sooner than by a long search.
const PACKING: Limits = Limits { climb_steps: 500_000, search_steps: 5_000_000 };

/// Plans with streamed weights: on all devices, or else on one of them.
///
/// # Errors
/// The last refusal, if the model does not fit in this way either.
pub(crate) fn plan(module: &Module, target: &Target, request: &PlanRequest) -> Result<Attempt> {
    let mut sites = vec![request.pins.clone()];
    let devices = target.topology.devices();
    if devices.len() > 1 && request.pins.is_empty() {
        let mut kinds = Vec::new();
        for (d, device) in devices.iter().enumerate() {
            let kind = (&device.profile.name, target.memory_bytes(d));
            if !kinds.contains(&kind) && kinds.len() < MAX_ALONE {
                kinds.push(kind);
                sites.push(vec![(String::new(), device.name.clone())]);
            }
        }
    }
    let mut refusal = None;
    for pins in sites {
        match on(module, target, request, &pins) {
            Err(e) if refused_for_memory(&e) => refusal = refusal.or(Some(e)),
            result => return result,
        }
    }
    Err(refusal.map_or_else(|| internal("plan.capacity", "no plan was made"), advised))
}

/// The plan that streams least, with these pins.
fn on(module: &Module, target: &Target, request: &PlanRequest, pins: &[(String, String)]) -> Result<Attempt> {
    let memory = (0..target.topology.devices().len()).map(|d| target.memory_bytes(d)).max().unwrap_or(0);
    let estimate = Estimate { activations: "least", stream_weights: true };
    let mut setting = Setting { estimate, pins: pins.to_vec(), reserve: 0, spare: 0, packing: PACKING };
    let mut bounds = Bounds::default();
    let mut best: Option<Attempt> = None;
    let mut refusal: Option<Box<Diagnostic>> = None;
    let mut overflows = 0;
    for _ in 0..MAX_ROUNDS {
        match attempt(module, target, request, &setting) {
            Ok(made) => match djinn_planner::capacities(&made.plan) {
                Ok(()) => {
                    bounds.enough = Some(setting.spare);
                    best = Some(made);
                }
                Err(e) => {
                    // Packed buffers take more than what is live at once: copies can be listed less early.
                    setting.reserve = setting.reserve.saturating_add(djinn_planner::overflow(&made.plan));
                    refusal = Some(e);
                    overflows += 1;
                    if overflows % OVERFLOWS != 0 {
                        continue;
                    }
                    bounds.too_little = Some(setting.spare);
                }
            },
            Err(e) if e.code == "colocate.memory" => {
                bounds.too_much = Some(setting.spare);
                refusal = refusal.or(Some(e));
            }
            Err(e) if refused_for_memory(&e) => {
                bounds.too_little = Some(setting.spare);
                refusal = Some(e);
            }
            Err(e) => return Err(e),
        }
        match bounds.next(memory) {
            Some(spare) => setting.spare = spare,
            None => break,
        }
    }
    best.ok_or_else(|| refusal.unwrap_or_else(|| internal("plan.capacity", "no plan was made")))
}

/// What is known of the bytes to keep free.
#[derive(Debug, Default)]
struct Bounds {
    /// The most with which something did not fit.
    too_little: Option<u64>,
    /// The least with which everything fits.
    enough: Option<u64>,
    /// The least that leaves no room for weights.
    too_much: Option<u64>,
}

impl Bounds {
    /// What to try next, if anything.
    fn next(&self, memory: u64) -> Option<u64> {
        let low = self.too_little?;
        let Some(high) = self.enough.or(self.too_much) else {
            let more = low.saturating_mul(2).max(memory / FIRST_STEP).max(1);
            return (more <= memory).then_some(more);
        };
        let middle = low.saturating_add(high.saturating_sub(low) / 2);
        (high.saturating_sub(low) > (memory / RESOLUTION).max(1)).then_some(middle)
    }
}

/// The refusal with advice for those who have asked for streaming already.
fn advised(refusal: Box<Diagnostic>) -> Box<Diagnostic> {
    let host = refusal.message.contains("host") && refusal.code == "plan.capacity";
    match host && refusal.help.as_deref().is_some_and(|h| h.contains("host_memory_bytes")) {
        true => refusal,
        false => refusal.help(
            "weights are streamed already (--stream-weights): use a device with more memory or smaller sizes (--bind)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::Bounds;

    /// The bytes that the search settles on if `least` are enough and `most` too many.
    fn search(least: u64, most: u64) -> Option<u64> {
        let mut bounds = Bounds::default();
        let mut spare = 0;
        for _ in 0..super::MAX_ROUNDS {
            match spare {
                s if s > most => bounds.too_much = Some(s),
                s if s >= least => bounds.enough = Some(s),
                s => bounds.too_little = Some(s),
            }
            match bounds.next(12_800) {
                Some(next) => spare = next,
                None => break,
            }
        }
        bounds.enough
    }

    #[test]
    fn the_least_that_is_enough_is_found() {
        assert_eq!(search(0, 12_800), Some(0));
        for least in [1, 99, 400, 1000, 5000, 9000, 12_000] {
            let found = search(least, 12_800).expect("there is one");
            assert!((least..=least + 100).contains(&found), "{least}: {found}");
        }
        // A narrow window between too little and too much.
        assert!(search(3000, 3200).is_some_and(|s| (3000..=3200).contains(&s)));
        assert_eq!(search(4000, 3000), None);
    }
}
