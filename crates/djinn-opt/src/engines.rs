//! What a bundle carries beside its plan: TensorRT engines for devices that run them.

use crate::args::PlanArgs;
use djinn::device::Target;
use djinn::diag::{Context, Culprit, Result, input};
use djinn::engine_cache::Policy;
use djinn::ir::{DType, Module, data::Bytes};
use djinn::plan_data::Plan;
use djinn::tensorrt::Precision;
use djinn::{EngineRequest, Engines, compile_engines};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Runs that a bundle is expected to be used for: an engine is built if it pays within them.
const EXPECTED_RUNS: u64 = 1_000_000;

/// The parts of a bundle, and what to tell of how they came about.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) files: BTreeMap<String, Bytes>,
    /// A line about engines, if the devices run any.
    pub(crate) summary: Option<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) remarks: Vec<djinn::diag::Remark>,
}

/// Builds what the bundle of a plan carries beside it.
pub(crate) fn parts(args: &PlanArgs, target: &Target, module: &Module, plan: &Plan) -> Result<Parts> {
    let mut parts = Parts::default();
    let mut request = EngineRequest::new(target);
    request.precision = precision(&args.precision)?;
    if request.capabilities.is_empty() || args.no_engines {
        return Ok(parts);
    }
    request.policy = match args.eager_engines {
        true => Policy::Eager,
        false => Policy::BreakEven { expected: Some(EXPECTED_RUNS) },
    };
    request.cache = args.engine_cache.clone().or_else(default_cache);
    match compile_engines(module, plan, &request) {
        Ok(engines) => {
            parts.summary = Some(summary(&engines));
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

/// `f16`, `bf16`, `keep`, or `SCOPE=` one of them.
fn precision(words: &[String]) -> Result<Precision> {
    let mut precision = Precision::keep();
    for word in words {
        let (scope, name) = word.rsplit_once('=').map_or((None, word.as_str()), |(s, n)| (Some(s), n));
        let narrow = match name {
            "keep" => None,
            "f16" => Some(DType::F16),
            "bf16" => Some(DType::BF16),
            _ => {
                return Err(input("cli.precision", "this is no precision")
                    .help("write keep, f16 or bf16, or SCOPE=TYPE for a module and what is below it"))
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
