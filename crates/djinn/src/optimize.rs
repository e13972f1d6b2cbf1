//! Running pass pipelines.

use crate::check::evaluator;
use djinn_diag::{Remark, Result};
use djinn_ir::{Fuel, Module};
use djinn_pass::{Event, Limits, PassContext, PassManager, PassRegistry, Pipeline, RunReport, Statistics};

/// The pipeline that runs when none is given.
pub const DEFAULT_PIPELINE: &str = "builtin.module(canonicalize,saturate,fold-weights,canonicalize)";

/// How a module is optimised.
#[derive(Debug, Clone)]
pub struct OptimizeOptions {
    /// The pipeline, in mlir-opt's grammar.
    pub pipeline: String,
    /// Limits of the searches.
    pub limits: Limits,
    /// Transformations allowed in all; `None` for no limit.
    pub fuel: Option<u64>,
    /// Seed of everything random.
    pub seed: u64,
    /// Run the verifier after every pass.
    pub verify_each: bool,
    /// Further rule files: name and text.
    pub extra_rules: Vec<(String, String)>,
}

impl Default for OptimizeOptions {
    fn default() -> Self {
        OptimizeOptions {
            pipeline: DEFAULT_PIPELINE.into(),
            limits: Limits::default(),
            fuel: None,
            seed: 0,
            verify_each: false,
            extra_rules: Vec::new(),
        }
    }
}

/// What a run did.
#[derive(Debug)]
pub struct Outcome {
    /// What the passes said.
    pub remarks: Vec<Remark>,
    /// What they counted.
    pub statistics: Statistics,
    /// Which passes ran, for how long if a clock was given.
    pub run: RunReport,
}

/// What the caller hands in to watch a run: called on every event, and a clock in nanoseconds.
pub struct Watch {
    /// Called before and after every pass.
    pub on_event: Box<dyn FnMut(&Event<'_>)>,
    /// Nanoseconds since some fixed moment.
    pub clock: Option<Box<dyn FnMut() -> u64>>,
}

/// Every pass; `saturate` uses further rule files (name and text) as well.
///
/// # Errors
/// An internal diagnostic if two passes have one name.
pub fn registry(extra_rules: &[(String, String)]) -> Result<PassRegistry> {
    let mut registry = PassRegistry::new();
    registry
        .register(&djinn_canonicalize::CANONICALIZE, |_| Ok(Box::new(djinn_canonicalize::Canonicalize)))?;
    registry
        .register(&djinn_canonicalize::FOLD_WEIGHTS, |_| Ok(Box::new(djinn_canonicalize::FoldWeights)))?;
    let extra_rules = extra_rules.to_vec();
    registry.register(&djinn_saturate::INFO, move |options| djinn_saturate::make(options, &extra_rules))?;
    Ok(registry)
}

/// What is known of a rewrite rule without reading its file.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleInfo {
    /// Unique name.
    pub name: String,
    /// `exact`, `reassoc` or `approx(tolerance)`.
    pub numerics: String,
    /// One sentence.
    pub summary: String,
    /// File and line.
    pub place: String,
}

/// The built-in rewrite rules, by file and line.
///
/// # Errors
/// An internal diagnostic if a built-in rule file is malformed.
pub fn rules() -> Result<Vec<RuleInfo>> {
    let info = |rule: djinn_saturate::Rule| RuleInfo {
        numerics: rule.numerics.to_string(),
        name: rule.name,
        summary: rule.summary,
        place: rule.place,
    };
    Ok(djinn_saturate::builtin_rules()?.into_iter().map(info).collect())
}

/// Runs a pipeline over a module.
///
/// # Errors
/// Malformed pipelines and rule files (`input`), and whatever a pass or the verifier finds (`internal`).
pub fn optimize(module: &mut Module, options: &OptimizeOptions, watch: Option<Watch>) -> Result<Outcome> {
    let registry = registry(&options.extra_rules)?;
    let pipeline = Pipeline::parse(&options.pipeline)?;
    let mut manager = PassManager::new(&registry, &pipeline)?.verify_each(options.verify_each);
    if let Some(watch) = watch {
        manager = manager.on_event(watch.on_event);
        if let Some(clock) = watch.clock {
            manager = manager.clock(clock);
        }
    }
    let mut cx = PassContext {
        limits: options.limits,
        fuel: options.fuel.map_or_else(Fuel::unlimited, Fuel::limited),
        seed: options.seed,
        const_eval: Some(evaluator()),
        ..PassContext::new()
    };
    let run = manager.run(module, &mut cx)?;
    if !options.verify_each {
        djinn_ir::verify::verify(module)?;
    }
    Ok(Outcome { remarks: cx.remarks, statistics: cx.statistics, run })
}
