//! Running pass pipelines.

use crate::check::evaluator;
use djinn_device::Target;
use djinn_diag::{Remark, Result};
use djinn_ir::{Fuel, Module};
use djinn_pass::{Event, Limits, PassContext, PassManager, PassRegistry, Pipeline, RunReport, Statistics};
use std::sync::Arc;

/// The pipeline that runs when none is given.
///
/// Layers are saturated once for all of them, then once more cut in the middle, so that rules see across the ends.
pub const DEFAULT_PIPELINE: &str = "builtin.module(canonicalize,outline,saturate,inline,\
    outline{phase=shifted},saturate,inline,fold-weights,canonicalize)";

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
    /// Devices, sizes and limits for the passes that plan for devices.
    pub target: Option<Arc<Target>>,
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
            target: None,
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
    registry.register(&djinn_colocate::COLOCATE, |options| {
        Ok(Box::new(djinn_colocate::Colocate::new(options)?))
    })?;
    registry.register(&djinn_lifetime::LIFETIME, |options| {
        Ok(Box::new(djinn_lifetime::Lifetime::new(options)?))
    })?;
    registry.register(&djinn_partition::PARTITION, |_| Ok(Box::new(djinn_partition::Partition)))?;
    registry.register(&djinn_phase_detect::INFO, djinn_phase_detect::make)?;
    registry.register(&djinn_subgraph_hash::OUTLINE, djinn_subgraph_hash::make_outline)?;
    registry.register(&djinn_subgraph_hash::REPEATS, djinn_subgraph_hash::make_repeats)?;
    registry.register(&djinn_subgraph_hash::INLINE, |_| Ok(Box::new(djinn_subgraph_hash::Inline)))?;
    let extra_rules = extra_rules.to_vec();
    registry.register(&djinn_saturate::INFO, move |options| djinn_saturate::make(options, &extra_rules))?;
    registry.register(&djinn_streams::STREAMS, djinn_streams::make)?;
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
    optimize_and(module, options, "", watch)
}

/// [`optimize`] with further passes (comma-separated) at the end.
pub(crate) fn optimize_and(
    module: &mut Module,
    options: &OptimizeOptions,
    further: &str,
    watch: Option<Watch>,
) -> Result<Outcome> {
    let registry = registry(&options.extra_rules)?;
    let mut pipeline = Pipeline::parse(&options.pipeline)?;
    if !further.is_empty() {
        pipeline.items.extend(Pipeline::parse(&format!("builtin.module({further})"))?.items);
    }
    // Without somebody who is told of a failure, copies of the module to reproduce it with are of no use.
    let mut manager =
        PassManager::new(&registry, &pipeline)?.verify_each(options.verify_each).reproducers(watch.is_some());
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
        target: options.target.clone(),
        ..PassContext::new()
    };
    let run = manager.run(module, &mut cx)?;
    if !options.verify_each {
        djinn_ir::verify::verify(module)?;
    }
    Ok(Outcome { remarks: cx.remarks, statistics: cx.statistics, run })
}
