//! What a bundle carries beside its plan: TensorRT engines for devices that run them.

use crate::args::RunArgs;
use crate::run::complain;
use djinn::device::Target;
use djinn::diag::{Context, Culprit, Result, input};
use djinn::engine_cache::Policy;
use djinn::ir::{DType, Module, data::Bytes};
use djinn::plan_data::Plan;
use djinn::tensorrt::Precision;
use djinn::{EngineRequest, Engines, Lazy, compile_engines};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Runs that a bundle is expected to be used for: an engine is built if it pays within them.
const EXPECTED_RUNS: u64 = 1_000_000;

/// The parts of a bundle, and what to tell of how they came about.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) files: BTreeMap<String, Bytes>,
    /// A line about engines, and one about kernels, if the devices are GPUs.
    pub(crate) summary: Option<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) remarks: Vec<djinn::diag::Remark>,
}

/// Builds what the bundle of a plan carries beside it.
pub(crate) fn parts(run: &RunArgs, target: &Target, module: &Module, plan: &Plan) -> Result<Parts> {
    let args = &run.plan;
    let mut parts = Parts::default();
    let mut request = EngineRequest::new(target);
    request.precision = precision(&args.precision)?;
    request.max_error = max_error(args.max_error)?;
    if let Some(path) = run.inputs.as_deref().filter(|_| !args.precision.is_empty()) {
        let arrays = djinn::npz::read_in_order(path)?;
        for function in module.entries() {
            request.samples.extend(djinn::npz::bind(arrays.clone(), function).inputs);
        }
    }
    if request.capabilities.is_empty() {
        return Ok(parts);
    }
    crate::gpu::add_kernels(target, module, plan, &mut parts)?;
    if args.no_engines {
        return Ok(parts);
    }
    request.policy = match args.eager_engines {
        true => Policy::Eager,
        false => Policy::BreakEven { expected: Some(EXPECTED_RUNS) },
    };
    request.cache = args.engine_cache.clone().or_else(default_cache);
    match compile_engines(module, plan, &request) {
        Ok(engines) => {
            parts.summary.get_or_insert_default().push_str(&summary(&engines));
            parts.warnings.extend(engines.warnings.iter().map(|w| format!("warning: {w}\n")));
            parts.files.extend(engines.parts());
            parts.remarks = engines.remarks;
        }
        // A plan runs without engines too.
        Err(e) if e.culprit == Culprit::Unsupported => {
            parts.warnings.push(format!("warning: no engines: {e}\n"));
        }
        Err(e) => return Err(e),
    }
    Ok(parts)
}

fn summary(engines: &Engines) -> String {
    let bytes: usize = engines.files.values().map(|b| b.as_slice().len()).sum();
    let index = &engines.index;
    let rest = match index.refused.len() {
        0 => String::new(),
        n => format!("; {n} regions stay kernels (--remarks says why)"),
    };
    format!(
        "engines: {} serve {} regions, {:.1} MB; {} built, {} found{rest}\n",
        engines.files.len(),
        index.uses.len(),
        bytes as f64 / 1e6,
        engines.built,
        engines.found,
    )
}

/// Where engines are kept if nobody says: as the XDG Base Directory Specification has it.
fn default_cache() -> Option<PathBuf> {
    let named = |variable: &str| std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")))?;
    base.is_absolute().then(|| base.join("djinn").join("engines"))
}

/// `f16`, `bf16`, `keep` (also `f32`: nothing is narrowed), or `SCOPE=` one of them.
fn precision(words: &[String]) -> Result<Precision> {
    let mut precision = Precision::keep();
    for word in words {
        let (scope, name) = word.rsplit_once('=').map_or((None, word.as_str()), |(s, n)| (Some(s), n));
        let narrow = match name {
            "keep" | "f32" => None,
            "f16" => Some(DType::F16),
            "bf16" => Some(DType::BF16),
            _ => {
                return Err(input("cli.precision", "this is no precision").help(
                    "write keep (or f32), f16 or bf16, or SCOPE=TYPE for a module and what is below it",
                ))
                .at(|| format!("--precision {word}"));
            }
        };
        match scope {
            Some(scope) => precision.scopes.push((scope.to_owned(), narrow)),
            None => precision.narrow = narrow,
        }
    }
    Ok(precision)
}

fn max_error(most: Option<f64>) -> Result<Option<f64>> {
    match most {
        Some(most) if !(most >= 0.0 && most.is_finite()) => {
            Err(input("cli.max-error", "this is no relative error").help("write a number such as 1e-3"))
                .at(|| format!("--max-error {most}"))
        }
        most => Ok(most),
    }
}

/// What counts the runs of a plan whose engines are not built; `None` with a warning where nothing can be built.
pub(crate) fn lazy(cache: &Path, module: &Module, plan: &Plan) -> Result<Option<Lazy>> {
    let mut request = EngineRequest::of_plan(plan);
    request.cache = Some(cache.to_owned());
    request.policy = Policy::BreakEven { expected: None };
    match Lazy::new(module, plan, &request) {
        Ok(lazy) => Ok(Some(lazy)),
        Err(e) if e.culprit == Culprit::Unsupported => {
            complain(&format!("warning: no runs are counted: {e}\n"));
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// Counts a run on the host: what its engines would save is what the plan predicts for its devices.
pub(crate) fn ran(lazy: &mut Lazy, plan: &Plan, entry: usize) {
    let kernels = plan.entries.get(entry).map(|e| e.kernels.as_slice()).unwrap_or_default();
    lazy.ran(entry, kernels.iter().map(|k| k.seconds).sum());
}

/// Waits for the builds that were started, and tells of them.
pub(crate) fn finish(lazy: Lazy) {
    let (remarks, warnings) = lazy.finish();
    warnings.iter().for_each(|w| complain(&format!("warning: {w}\n")));
    remarks.iter().for_each(|r| complain(&format!("{r}\n")));
}
