//! `saturate`: equality saturation with the project's rules, then extraction of the cheapest body.
//!
//! Requires: a verified module. Ensures: a verified module that computes the same up to the numerics classes of the
//! rules, of no higher modelled cost (but for what sharing weights may cost). Preserves: signatures, state updates, opaque operations, regions' interfaces.
//!
//! Every body is worked on by itself, those of private functions included; one that this pass left as it is now, under
//! the same rules and limits, is skipped. In a program of several entry functions, each prefers the forms of weights that
//! earlier ones store (transposed, scaled, joined with others), so that a weight is stored once: see [`MEMORY_WORTH`].

mod sharing;

use crate::sharing::{Sharing, entry_by_entry, outside};

use djinn_cost::CostModel;
use djinn_diag::{Context, RemarkKind, Result};
use djinn_egraph::extraction::{Extracted, Storage};
use djinn_egraph::forms::ArgumentForms;
use djinn_egraph::region::Region;
pub use djinn_egraph::rule::Rule;
use djinn_egraph::rule::parse_rules;
use djinn_egraph::saturate::{Limits, Saturation, saturate};
use djinn_ir::{ArgumentKind, Graph, Module, Patch, graph_hash, walk};
use djinn_pass::{OptionInfo, Pass, PassContext, PassInfo, PassOptions};
use std::collections::BTreeSet;
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

/// What part of its modelled time a body may be slower, at most, so that it uses weights in the forms that bodies of
/// other entry functions store: memory for `s` percent of its weights is worth that part of `s` percent of its time. In
/// percent; a layer of Llama-3.1-8B has more than half of its weights shared for 0.3 % of its time, while in models of a
/// hundred microseconds one more kernel is some percent.
pub const MEMORY_WORTH: u64 = 20;

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
        OptionInfo {
            name: "memory-worth",
            default: "20",
            summary: "percent of its time that a body may lose so that entry functions share all its weights; 0: none",
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
    /// Names the rules and limits: two passes of equal keys do the same.
    key: String,
    node_limit: Option<u64>,
    iteration_limit: Option<u64>,
    /// In percent.
    memory_worth: u64,
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
    let (node_limit, iteration_limit) = (limit("node-limit")?, limit("iter-limit")?);
    let memory_worth = options.u64("memory-worth")?;
    let key = format!("{} {wanted} {node_limit:?} {iteration_limit:?} {memory_worth}", INFO.name);
    Ok(Box::new(Saturate { rules, key, node_limit, iteration_limit, memory_worth }))
}

impl Saturate {
    /// The pass with these rules, under the limits of the context.
    pub fn with_rules(rules: Vec<Rule>) -> Self {
        let names: Vec<&str> = rules.iter().map(|r| r.name.as_str()).collect();
        let key = format!("{} with {}", INFO.name, names.join(" "));
        Saturate { rules, key, node_limit: None, iteration_limit: None, memory_worth: MEMORY_WORTH }
    }
}

impl Pass for Saturate {
    fn info(&self) -> &'static PassInfo {
        &INFO
    }

    fn run(&self, module: &mut Module, cx: &mut PassContext) -> Result<()> {
        let mut sharing = Sharing::new(module, self.memory_worth > 0);
        let order =
            if sharing.is_active() { entry_by_entry(module) } else { (0..module.functions.len()).collect() };
        for i in order {
            let contexts = sharing.contexts(module, i);
            let function = &mut module.functions[i];
            let mut graph = std::mem::take(&mut function.graph);
            let mut bodies = 0;
            walk::for_each_graph(&graph, &mut |_| bodies += 1);
            let weights = function.arguments.iter().zip(0..).filter(|((_, k), _)| *k == ArgumentKind::Weight);
            let weights: BTreeSet<u32> = weights.map(|(_, n)| n).collect();
            let mut subject = Subject {
                function: Arc::clone(&function.name),
                weights: BTreeSet::new(),
                fixed_results: function.is_private(),
                contexts: Vec::new(),
            };
            // The function's own body comes last, after all regions.
            let outcome = walk::for_each_graph_mut(&mut graph, &mut |body| {
                bodies -= 1;
                subject.contexts = vec![outside(body)];
                if bodies == 0 {
                    subject.weights.clone_from(&weights);
                    subject.contexts.clone_from(&contexts);
                }
                self.optimise(body, module, &subject, &mut sharing, cx)
            });
            sharing.store(&graph, &contexts);
            module.functions[i].graph = graph;
            outcome.at(|| format!("function '{}'", subject.function))?;
        }
        Ok(())
    }
}

/// What is known of a body from outside.
struct Subject {
    /// The function that it belongs to.
    function: Arc<str>,
    /// Arguments that are always weights.
    weights: BTreeSet<u32>,
    /// Calls name the types of the results, so that these must stay exactly as they are.
    fixed_results: bool,
    /// The chains of calls that lead to it.
    contexts: Vec<ArgumentForms>,
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
        subject: &Subject,
        sharing: &mut Sharing,
        cx: &mut PassContext,
    ) -> Result<()> {
        let function = &*subject.function;
        if body.is_empty() {
            return Ok(());
        }
        let mut hash = graph_hash(body);
        if cx.is_fixpoint(&self.key, &hash) && !sharing.differs(body, &subject.contexts) {
            cx.remark(
                RemarkKind::Analysis,
                "saturation",
                function,
                "skipped: nothing has changed since the last",
            );
            return Ok(());
        }
        cx.count("bodies", 1);
        let evaluator = cx.const_eval.clone().map(|e| -> Arc<djinn_egraph::language::ConstantEvaluator> {
            Arc::new(move |kind, attrs, operands, _ty| e.eval(kind, attrs, operands, &[])?.into_iter().next())
        });
        let mut region = Region::with_weight_arguments(body, module, evaluator, subject.weights.clone());
        let limits = self.limits(cx);
        let outcome = saturate(&mut region.graph, &self.rules, &module.symbols, &limits);
        let model = CostModel::generic(&module.symbols);
        let cost =
            |kind, _: &_, operands: &[&_], results: &[_], ahead| model.op(kind, operands, results, ahead);
        let tolerance = self.memory_worth as f64 / 100.0;
        let known = sharing.known_in(&region, &subject.contexts);
        let extracted = region.extract_sharing(&cost, &djinn_extract::Limits::quick(), &known, tolerance)?;
        report(&outcome, &self.rules, function, cx);
        report_extraction(&extracted, function, cx);
        let applied: u64 = outcome.rules.iter().map(|r| r.applied).sum();
        let result_types = |g: &Graph| g.results.iter().map(|v| g.ty(*v).clone()).collect::<Vec<_>>();
        if subject.fixed_results && result_types(&extracted.body) != result_types(body) {
            let message = "refused: a result would have another form of its type than the calls name";
            cx.remark(RemarkKind::Missed, "extraction", function, message);
        } else if applied > 0 {
            Patch::replace_body(INFO.name, extracted.body).counts_as(applied).apply(body, &mut cx.fuel)?;
            hash = graph_hash(body);
        }
        cx.add_fixpoint(&self.key, hash);
        Ok(())
    }
}

fn report_extraction(extracted: &Extracted, function: &str, cx: &mut PassContext) {
    let gap = if extracted.cost > 0.0 { 1.0 - extracted.lower_bound / extracted.cost } else { 0.0 };
    let message = format!(
        "modelled cost {:.3} µs, was {:.3} µs; lower bound {:.3} µs (gap {:.1} %), {}",
        extracted.cost * 1e6,
        extracted.original_cost * 1e6,
        extracted.lower_bound * 1e6,
        gap * 100.0,
        extracted.stop
    );
    cx.remark(RemarkKind::Analysis, "extraction", function, message);
    let Storage { own, own_of_cheapest, cheapest } = extracted.storage;
    if own < own_of_cheapest {
        let message = format!(
            "{own:.0} bytes of weights besides those of other functions, not {own_of_cheapest:.0}: {:.3} µs, not {:.3} µs",
            extracted.cost * 1e6,
            cheapest * 1e6
        );
        cx.count("bodies that share weights", 1);
        cx.remark(RemarkKind::Applied, "sharing", function, message);
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
