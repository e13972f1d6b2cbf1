//! What changed, per module scope.

use djinn_ir::{Graph, Module, OpKind};
use std::collections::BTreeMap;

/// Operations of one scope before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeChange {
    /// Module path; empty for operations without one.
    pub scope: String,
    /// Operations by name, before.
    pub before: BTreeMap<&'static str, usize>,
    /// Operations by name, after.
    pub after: BTreeMap<&'static str, usize>,
}

type Counts = BTreeMap<String, BTreeMap<&'static str, usize>>;

/// The scopes whose operations differ, in alphabetical order. Literals and weights are not counted.
pub fn scope_changes(before: &Module, after: &Module) -> Vec<ScopeChange> {
    let (before, after) = (count(before), count(after));
    let mut scopes: Vec<&String> = before.keys().chain(after.keys()).collect();
    scopes.sort();
    scopes.dedup();
    let of = |counts: &Counts, scope: &str| counts.get(scope).cloned().unwrap_or_default();
    scopes
        .into_iter()
        .map(|s| ScopeChange { scope: s.clone(), before: of(&before, s), after: of(&after, s) })
        .filter(|c| c.before != c.after)
        .collect()
}

fn count(module: &Module) -> Counts {
    fn add(graph: &Graph, out: &mut Counts) {
        for (_, op) in graph.ops() {
            if !matches!(op.kind, OpKind::Weight | OpKind::Constant | OpKind::DimExpr) {
                let scope = op.location.scope.as_deref().unwrap_or("").to_owned();
                *out.entry(scope).or_default().entry(op.kind.name()).or_default() += 1;
            }
            op.regions.iter().for_each(|r| add(r, out));
        }
    }
    let mut out = Counts::new();
    module.functions.iter().for_each(|f| add(&f.graph, &mut out));
    out
}
