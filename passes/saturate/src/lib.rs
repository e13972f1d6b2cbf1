//! `saturate`: equality saturation with the project's rules, then extraction of the cheapest body.
//!
//! Requires: a verified module. Ensures: a verified module that computes the same up to the numerics classes of the
//! rules, of no higher modelled cost. Preserves: signatures, state updates, opaque operations, regions' interfaces.

use djinn_cost::{CostModel, Device};
use djinn_diag::{Context, RemarkKind, Result};
use djinn_egraph::region::Region;
pub use djinn_egraph::rule::Rule;
use djinn_egraph::rule::parse_rules;
use djinn_egraph::saturate::{Limits, Saturation, saturate};
use djinn_ir::{Graph, Module, Patch, walk};
use djinn_pass::{OptionInfo, Pass, PassContext, PassInfo, PassOptions};
use std::sync::Arc;

/// The built-in rule files, by name.
pub const RULE_FILES: &[(&str, &str)] = &[
    ("activations.rw", include_str!("../rules/activations.rw")),
    ("attention.rw", include_str!("../rules/attention.rw")),
    ("gemm.rw", include_str!("../rules/gemm.rw")),
    ("movement.rw", include_str!("../rules/movement.rw")),
    ("norms.rw", include_str!("../rules/norms.rw")),
    ("pointwise.rw", include_str!("../rules/pointwise.rw")),
];

/// What the pass manager knows of this pass.
pub static INFO: PassInfo = PassInfo {
    name: "saturate",
    summary: "equality saturation with the rewrite rules, then extraction of the cheapest graph",
    requires: "a verified module",
    ensures: "a graph of no higher modelled cost that computes the same",
    preserves: "signatures, state updates, opaque operations",
    options: &[
        OptionInfo {
            name: "rules",
            default: "all",
            summary: "rule files to use, separated by '+', without '.rw'",
        },
        OptionInfo {
            name: "node-limit",
            default: "",
            summary: "e-nodes at which the search stops; else --node-limit",
        },
        OptionInfo { name: "iter-limit", default: "", summary: "rounds over all rules; else --iter-limit" },
    ],
};

/// All built-in rules.
///
/// # Errors
/// An internal diagnostic if a built-in file is malformed; a test makes sure that none is.
pub fn builtin_rules() -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for (file, text) in RULE_FILES {
        rules.extend(parse_rules(file, text)?);
    }
    Ok(rules)
}

/// The pass.
#[derive(Debug)]
pub struct Saturate {
    rules: Vec<Rule>,
    node_limit: Option<u64>,
    iteration_limit: Option<u64>,
}

/// Makes the pass from its options and further rule files (name and text).
///
/// # Errors
/// Unknown or malformed rule files and malformed numbers.
pub fn make(options: &PassOptions, extra_rules: &[(String, String)]) -> Result<Box<dyn Pass>> {
    let wanted = options.get("rules")?;
    let mut rules = Vec::new();
    if wanted == "all" {
        rules = builtin_rules()?;
    } else {
        for name in wanted.split('+') {
            let Some((file, text)) = RULE_FILES.iter().find(|(f, _)| f.strip_suffix(".rw") == Some(name))
            else {
                let known: Vec<&str> = RULE_FILES.iter().filter_map(|(f, _)| f.strip_suffix(".rw")).collect();
                return Err(djinn_diag::input("saturate.rules", format!("there is no rule file '{name}'"))
                    .help(format!("one or more of: all, {}", known.join(", "))));
            };
            rules.extend(parse_rules(file, text)?);
        }
    }
    for (file, text) in extra_rules {
        rules.extend(parse_rules(file, text)?);
    }
    let limit = |name: &str| match options.get(name)? {
        "" => Ok(None),
        _ => options.u64(name).map(Some),
    };
    Ok(Box::new(Saturate { rules, node_limit: limit("node-limit")?, iteration_limit: limit("iter-limit")? }))
}

impl Saturate {
    /// The pass with these rules, under the limits of the context.
    pub fn with_rules(rules: Vec<Rule>) -> Self {
        Saturate { rules, node_limit: None, iteration_limit: None }
    }
}

impl Pass for Saturate {
    fn info(&self) -> &'static PassInfo {
        &INFO
    }

    fn run(&self, module: &mut Module, cx: &mut PassContext) -> Result<()> {
        for i in 0..module.functions.len() {
            let name = Arc::clone(&module.functions[i].name);
            let mut graph = std::mem::take(&mut module.functions[i].graph);
            let outcome =
                walk::for_each_graph_mut(&mut graph, &mut |body| self.optimise(body, module, &name, cx));
            module.functions[i].graph = graph;
            outcome.at(|| format!("function '{name}'"))?;
        }
        Ok(())
    }
}

impl Saturate {
    fn limits(&self, cx: &PassContext) -> Limits {
        let as_usize = |v: u64| usize::try_from(v).unwrap_or(usize::MAX);
        Limits {
            iterations: as_usize(self.iteration_limit.unwrap_or(cx.limits.iterations)),
            nodes: as_usize(self.node_limit.unwrap_or(cx.limits.nodes)),
            matches_per_rule: as_usize(cx.limits.matches_per_rule),
            memory: as_usize(cx.limits.memory_bytes),
            fuel: cx.fuel.left().unwrap_or(u64::MAX),
            ..Limits::default()
        }
    }

    fn optimise(
        &self,
        body: &mut Graph,
        module: &Module,
        function: &str,
        cx: &mut PassContext,
    ) -> Result<()> {
        if body.is_empty() {
            return Ok(());
        }
        let evaluator = cx.const_eval.clone().map(|e| -> Arc<djinn_egraph::language::ConstantEvaluator> {
            Arc::new(move |kind, attrs, operands, _ty| e.eval(kind, attrs, operands, &[])?.into_iter().next())
        });
        let mut region = Region::new(body, module, evaluator);
        let limits = self.limits(cx);
        let outcome = saturate(&mut region.graph, &self.rules, &module.symbols, &limits);
        let model = CostModel { device: &Device::GENERIC, symbols: &module.symbols };
        let cost =
            |kind, _: &_, operands: &[&_], results: &[_], ahead| model.op(kind, operands, results, ahead);
        let extracted = region.extract(&cost, &djinn_extract::Limits::quick())?;
        report(&outcome, &self.rules, function, cx);
        let gap = if extracted.cost > 0.0 { 1.0 - extracted.lower_bound / extracted.cost } else { 0.0 };
        cx.remark(
            RemarkKind::Analysis,
            "extraction",
            function,
            format!(
                "modelled cost {:.3} µs, was {:.3} µs; lower bound {:.3} µs (gap {:.1} %), {}",
                extracted.cost * 1e6,
                extracted.original_cost * 1e6,
                extracted.lower_bound * 1e6,
                gap * 100.0,
                extracted.stop
            ),
        );
        let applied: u64 = outcome.rules.iter().map(|r| r.applied).sum();
        if applied > 0 {
            Patch::replace_body(INFO.name, extracted.body).counts_as(applied).apply(body, &mut cx.fuel)?;
        }
        Ok(())
    }
}

fn report(outcome: &Saturation, rules: &[Rule], function: &str, cx: &mut PassContext) {
    cx.remark(
        RemarkKind::Analysis,
        "saturation",
        function,
        format!(
            "{} after {} rounds: {} e-nodes in {} e-classes",
            outcome.stop.describe(),
            outcome.iterations,
            outcome.nodes,
            outcome.classes
        ),
    );
    cx.count("e-nodes", outcome.nodes as u64);
    cx.count("rounds", outcome.iterations as u64);
    for (rule, count) in rules.iter().zip(&outcome.rules) {
        if count.applied > 0 {
            cx.count(&format!("rule {}", rule.name), count.applied);
            cx.remark(
                RemarkKind::Applied,
                &rule.name,
                function,
                format!("{} times: {}", count.applied, rule.summary),
            );
        }
        if count.refused > 0 {
            cx.remark(
                RemarkKind::Missed,
                &rule.name,
                function,
                format!(
                    "{} matches refused: the right side could not be built or has not provably the same type",
                    count.refused
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_file_is_built_in() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/rules");
        let mut files: Vec<String> = std::fs::read_dir(dir)
            .expect("rules are there")
            .map(|e| e.expect("readable").file_name().to_string_lossy().into_owned())
            .filter(|f| f.ends_with(".rw"))
            .collect();
        files.sort();
        assert_eq!(files, RULE_FILES.iter().map(|(f, _)| (*f).to_owned()).collect::<Vec<_>>());
        assert!(builtin_rules().expect("they parse").len() >= 120);
    }
}
