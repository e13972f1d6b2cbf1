//! Module paths: which of them run where in few words, and the tree that they form.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{EntryFacts, Task};
use crate::names;

/// Parts of a path that are told apart where it has no number.
const DEPTH: usize = 3;

/// Paths with weights in few words: up to the first number, numbers as ranges, such as `model.layers.0–39`; at most
/// `limit` of them, those of the greatest weight first.
pub(crate) fn summary<'a>(scopes: impl Iterator<Item = (&'a str, f64)>, limit: usize) -> String {
    let mut groups: BTreeMap<String, (f64, BTreeSet<u64>)> = BTreeMap::new();
    for (scope, weight) in scopes.filter(|(s, _)| !s.is_empty()) {
        let parts: Vec<&str> = scope.split('.').take(MAX_DEPTH).collect();
        let number = parts.iter().enumerate().find_map(|(i, p)| Some((i, p.parse::<u64>().ok()?)));
        let depth = number.map_or(parts.len().min(DEPTH), |(i, _)| i);
        let group = groups.entry(parts[..depth].join(".")).or_default();
        group.0 += weight;
        group.1.extend(number.map(|(_, n)| n));
    }
    let mut order: Vec<(&String, &(f64, BTreeSet<u64>))> = groups.iter().collect();
    order.sort_by(|a, b| b.1.0.total_cmp(&a.1.0).then(a.0.cmp(b.0)));
    let text = |(key, (_, numbers)): &(&String, &(f64, BTreeSet<u64>))| match ranges(numbers) {
        text if text.is_empty() => (*key).clone(),
        text if key.is_empty() => text,
        text => format!("{key}.{text}"),
    };
    let mut texts: Vec<String> = order.iter().take(limit).map(text).collect();
    if order.len() > limit {
        texts.push(format!("{} more", order.len() - limit));
    }
    texts.join(", ")
}

/// A path with `*` for every number: what repeated layers have in common.
pub(crate) fn pattern(scope: &str) -> String {
    let part = |p: &str| if p.parse::<u64>().is_ok() { "*".to_owned() } else { p.to_owned() };
    scope.split('.').map(part).collect::<Vec<_>>().join(".")
}

/// Ascending numbers, runs of them shortened: `0–3,7`; at most six runs.
fn ranges(numbers: &BTreeSet<u64>) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &n in numbers {
        match runs.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(n) => *end = n,
            _ => runs.push((n, n)),
        }
    }
    let text = |(a, b): &(u64, u64)| if a == b { a.to_string() } else { format!("{a}–{b}") };
    let mut texts: Vec<String> = runs.iter().take(6).map(text).collect();
    if runs.len() > 6 {
        texts.push("…".into());
    }
    texts.join(",")
}

/// A scope with what runs in it and below it.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    /// Scopes below, by name; numbers in their order.
    pub(crate) children: BTreeMap<(u64, String), Scope>,
    /// Operations in it or below; of a plan without its module, those that kernels count.
    pub(crate) ops: usize,
    /// Kernels and copies whose costliest operation is in it or below, and their predicted seconds.
    pub(crate) tasks: usize,
    pub(crate) seconds: f64,
    /// The same by device.
    pub(crate) devices: BTreeMap<usize, f64>,
    /// Operations of the scope itself by kind.
    pub(crate) kinds: BTreeMap<String, usize>,
}

impl Scope {
    /// The tree of an entry.
    pub(crate) fn tree(entry: &EntryFacts<'_>) -> Scope {
        let mut root = Scope::default();
        for op in entry.ops.of_run() {
            let kind = op.kind;
            use djinn_ir::OpKind::{Constant, DimExpr, Weight};
            if !matches!(kind, Weight | Constant | DimExpr) {
                let leaf = root.reach(&names::scope(op), &mut |s| s.ops += 1);
                *leaf.kinds.entry(kind.name().to_owned()).or_default() += 1;
            }
        }
        let unknown = root.ops == 0;
        for task in &entry.tasks {
            let leaf = root.reach(&task.scope, &mut |s| s.count(task, unknown));
            if unknown && task.ops > 0 {
                *leaf.kinds.entry(task.kind.clone()).or_default() += 1;
            }
        }
        root
    }

    fn count(&mut self, task: &Task, with_ops: bool) {
        self.tasks += 1;
        self.seconds += task.seconds;
        if let Some(device) = task.device {
            *self.devices.entry(device).or_default() += task.seconds;
        }
        if with_ops {
            self.ops += task.ops;
        }
    }

    /// The scope of this path; `visit` sees it and every one above.
    fn reach(&mut self, path: &str, visit: &mut dyn FnMut(&mut Scope)) -> &mut Scope {
        visit(self);
        let mut at = self;
        for part in path.split('.').filter(|p| !p.is_empty()).take(MAX_DEPTH) {
            let key = (part.parse().unwrap_or(u64::MAX), part.to_owned());
            at = at.children.entry(key).or_default();
            visit(at);
        }
        at
    }
}

/// Parts of a path below which scopes are not told apart.
const MAX_DEPTH: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_ranges() {
        let scopes: Vec<String> = (0..4)
            .chain([7])
            .map(|i| format!("m.layers.{i}.mlp"))
            .chain(["m.norm".into(), String::new()])
            .collect();
        let weighted = || scopes.iter().map(|s| (s.as_str(), 1.0));
        assert_eq!(summary(weighted(), 4), "m.layers.0–3,7, m.norm");
        assert_eq!(summary(weighted(), 1), "m.layers.0–3,7, 1 more");
        let wild = [("18446744073709551615", f64::NAN), ("0.a", 1.0)];
        assert_eq!(summary(wild.into_iter(), 4), "0,18446744073709551615");
        assert_eq!(pattern("m.layers.17.mlp"), "m.layers.*.mlp");
    }
}
