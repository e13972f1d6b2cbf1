//! Engine regions: what they hold, what crosses their borders, and why they end.

use djinn_plan::{Engine, ValueRef};

use crate::facts::{EntryFacts, Facts, figure};
use crate::names::{clean, shorten};
use crate::units::things;

/// Values of a border that are named.
const MAX_VALUES: usize = 12;

/// The engines of an entry, those that take longest first.
pub(crate) fn engines<'a>(entry: &EntryFacts<'a>) -> Vec<&'a Engine> {
    let mut engines: Vec<&Engine> = entry.entry.engines.iter().collect();
    engines.sort_by(|a, b| figure(b.seconds).total_cmp(&figure(a.seconds)).then(a.number.cmp(&b.number)));
    engines
}

/// Names of the values of a border, in words.
pub(crate) fn values(entry: &EntryFacts<'_>, values: &[ValueRef]) -> String {
    let mut names: Vec<String> =
        values.iter().take(MAX_VALUES).map(|v| shorten(&entry.ops.value(*v), 60)).collect();
    let more = values.len().saturating_sub(MAX_VALUES);
    if more > 0 {
        names.push(format!("and {}", things(more, "other")));
    }
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

/// Why an engine ends; what nobody said is that only the caller uses its values.
pub(crate) fn ends(engine: &Engine) -> String {
    let reasons: Vec<String> = engine.ends.iter().take(MAX_VALUES).map(|why| clean(why)).collect();
    if reasons.is_empty() { "–".into() } else { reasons.join("; ") }
}

/// How many kernels are in no engine, and their seconds.
pub(crate) fn outside(entry: &EntryFacts<'_>) -> (usize, f64) {
    let kernels = entry.entry.kernels.iter().filter(|k| k.engine.is_none());
    kernels.fold((0, 0.0), |(n, s), k| (n + 1, s + figure(k.seconds)))
}

/// The name of an engine's device.
pub(crate) fn device<'f>(facts: &'f Facts<'_>, engine: &Engine) -> &'f str {
    facts.device(Some(engine.device.index()))
}
