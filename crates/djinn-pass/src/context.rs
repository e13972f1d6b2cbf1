//! What passes share during a run.

use crate::ConstantEvaluator;
use djinn_device::Target;
use djinn_diag::{Remark, RemarkKind, Result, input};
use djinn_ir::{ContentHash, Fuel, Graph, Patch, PatchReport};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bounds of every search, by name. Each search reports which of them stopped it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Nodes of an e-graph, at most.
    pub nodes: u64,
    /// Rounds of rewriting, at most.
    pub iterations: u64,
    /// Matches of one rule in one round, at most.
    pub matches_per_rule: u64,
    /// Bytes that a search may hold, at most.
    pub memory_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { nodes: 100_000, iterations: 30, matches_per_rule: 10_000, memory_bytes: 4 << 30 }
    }
}

impl Limits {
    /// Names and values, in the order of declaration.
    pub fn entries(&self) -> [(&'static str, u64); 4] {
        [
            ("nodes", self.nodes),
            ("iterations", self.iterations),
            ("matches-per-rule", self.matches_per_rule),
            ("memory-bytes", self.memory_bytes),
        ]
    }

    /// Sets a limit by name.
    ///
    /// # Errors
    /// `pass.limit` if there is none of this name.
    pub fn set(&mut self, name: &str, value: u64) -> Result<()> {
        let slot = match name {
            "nodes" => &mut self.nodes,
            "iterations" => &mut self.iterations,
            "matches-per-rule" => &mut self.matches_per_rule,
            "memory-bytes" => &mut self.memory_bytes,
            _ => {
                let names = self.entries().map(|(name, _)| name).join(", ");
                return Err(input("pass.limit", format!("there is no limit '{name}'"))
                    .help(format!("limits are: {names}")));
            }
        };
        *slot = value;
        Ok(())
    }
}

/// Named counters, by pass and name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statistics(BTreeMap<(String, String), u64>);

impl Statistics {
    /// Adds to a counter.
    pub fn add(&mut self, pass: &str, name: &str, amount: u64) {
        let slot = self.0.entry((pass.to_string(), name.to_string())).or_insert(0);
        *slot = slot.saturating_add(amount);
    }

    /// Adds the counters of another run.
    pub fn merge(&mut self, other: &Statistics) {
        for (pass, name, value) in other.iter() {
            self.add(pass, name, value);
        }
    }

    /// A counter; 0 if nothing was counted.
    pub fn get(&self, pass: &str, name: &str) -> u64 {
        self.0.get(&(pass.to_string(), name.to_string())).copied().unwrap_or(0)
    }

    /// Pass, name and value of every counter, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.0.iter().map(|((pass, name), value)| (pass.as_str(), name.as_str(), *value))
    }
}

/// Fuel, limits, seed, remarks and counters of a run.
#[derive(Clone, Default)]
pub struct PassContext {
    /// What passes have to say.
    pub remarks: Vec<Remark>,
    /// What passes have counted.
    pub statistics: Statistics,
    /// How many more rewrites are allowed.
    pub fuel: Fuel,
    /// Bounds of searches.
    pub limits: Limits,
    /// Seed of everything random.
    pub seed: u64,
    /// Computes constants, if there is someone who can.
    pub const_eval: Option<Arc<dyn ConstantEvaluator>>,
    /// What is planned for: devices, bound symbols, objective; none while a module is only optimised.
    pub target: Option<Arc<Target>>,
    /// Bodies that a pass would not change, by what the pass calls itself with its options.
    pub fixpoints: BTreeSet<(String, ContentHash)>,
    /// Name of the pass that runs now, set by the pass manager; empty outside of it.
    pub pass: String,
}

impl PassContext {
    /// A context without limits on fuel, with default limits on searches.
    pub fn new() -> Self {
        PassContext::default()
    }

    /// Adds to a counter of the running pass.
    pub fn count(&mut self, name: &str, amount: u64) {
        self.statistics.add(&self.pass, name, amount);
    }

    /// Adds a remark of the running pass about a rule (or fact) at a place (scope or function, or empty).
    pub fn remark(&mut self, kind: RemarkKind, rule: &str, place: &str, message: impl Into<String>) {
        self.remarks.push(Remark {
            kind,
            pass: self.pass.clone(),
            rule: rule.to_string(),
            place: place.to_string(),
            message: message.into(),
        });
    }

    /// Notes that the pass with this key would not change a body of this hash.
    pub fn add_fixpoint(&mut self, key: &str, body: ContentHash) {
        self.fixpoints.insert((key.to_string(), body));
    }

    /// Is it known that the pass with this key would not change a body of this hash?
    pub fn is_fixpoint(&self, key: &str, body: &ContentHash) -> bool {
        self.fixpoints.contains(&(key.to_string(), *body))
    }

    /// Applies a patch with this context's fuel, and counts it under its name if it changed the graph.
    ///
    /// # Errors
    /// See [`Patch::apply`].
    pub fn apply(&mut self, patch: Patch, graph: &mut Graph) -> Result<PatchReport> {
        let report = patch.apply(graph, &mut self.fuel)?;
        self.count_patch(&report);
        Ok(report)
    }

    /// Counts a patch that was applied elsewhere with this context's fuel.
    pub fn count_patch(&mut self, report: &PatchReport) {
        if report.changed() {
            self.count(&report.name, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_set_by_name() {
        let mut l = Limits::default();
        for (i, (name, _)) in Limits::default().entries().into_iter().enumerate() {
            l.set(name, i as u64).expect("known");
        }
        assert_eq!(l.entries().map(|(_, v)| v), [0, 1, 2, 3]);
        assert_eq!(l.set("time", 1).map_err(|e| e.code), Err("pass.limit".into()));
    }

    #[test]
    fn counters_and_remarks_carry_the_pass() {
        let mut c = PassContext::new();
        c.pass = "p".into();
        c.count("merged", 2);
        c.count("merged", 3);
        c.remark(RemarkKind::Missed, "fuse", "layers.0", "two users");
        assert_eq!(c.statistics.iter().collect::<Vec<_>>(), [("p", "merged", 5)]);
        assert_eq!(c.statistics.get("p", "other"), 0);
        assert_eq!(c.remarks[0].to_string(), "missed [p] fuse at layers.0: two users");
    }

    #[test]
    fn patches_use_fuel_and_are_counted() {
        let mut c = PassContext { fuel: Fuel::limited(1), ..PassContext::new() };
        let mut g = Graph::new();
        let one = djinn_ir::attrs! { exprs: vec![djinn_ir::Dim::ONE], scalar: true };
        g.build1(djinn_ir::OpKind::DimExpr, &[], one).expect("a size");
        let mut sweep = Patch::new("sweep", &g);
        sweep.sweep();
        assert!(c.apply(sweep, &mut g).expect("applies").changed());
        assert_eq!((c.statistics.get("", "sweep"), c.fuel.left()), (1, Some(0)));
    }
}
