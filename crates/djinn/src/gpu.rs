//! Plans on NVIDIA GPUs: kernels made ahead of time for a bundle, and what a bundle hands to the runtime.

use crate::engines::{EngineBinding, EngineIndex, EngineSource, EngineUse};
use djinn_device::{Profile, Target};
use djinn_diag::{Culprit, Diagnostic, Result, input};
use djinn_ir::Module;
use djinn_ir::data::Bytes;
use djinn_plan::{Granularity, Plan};
use djinn_runtime::{CudaOptions, EngineExecution, EngineUnit, EngineValue, PtxSet, compile_ptx};
use djinn_tensorrt::{Library, Loaded};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The part of a bundle that lists its kernels.
const INDEX: &str = "kernels.json";
/// The folder of kernels in a bundle.
const FOLDER: &str = "kernels";
/// Version of [`KernelIndex`].
const VERSION: u32 = 1;

/// Kernels of a plan as PTX.
#[derive(Debug, Clone, Default)]
pub struct GpuKernels {
    /// What there is.
    pub index: KernelIndex,
    /// PTX by name of file.
    pub files: BTreeMap<String, Bytes>,
    /// What the compiler refused, or why there is none.
    pub problems: Vec<Diagnostic>,
}

/// The list of kernels in a bundle (`kernels.json`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelIndex {
    version: u32,
    /// The PTX modules.
    pub modules: Vec<KernelModule>,
    /// Number of kernels for each GPU; kernels that do the same are one.
    pub kernels: usize,
    /// Operations that no kernel does, with the reason, and how often they occur: the evaluator does them on the host.
    pub refused: BTreeMap<String, usize>,
}

/// A PTX module of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelModule {
    /// The file in the bundle.
    pub file: String,
    /// Compute capability that it was compiled for, 90 for 9.0: it runs on this and on later GPUs.
    pub capability: u32,
}

impl GpuKernels {
    /// The parts of a bundle that hold them; none if there are none.
    pub fn parts(&self) -> BTreeMap<String, Bytes> {
        let mut parts = self.files.clone();
        if !self.files.is_empty() {
            let text = serde_json::to_string_pretty(&self.index).unwrap_or_default() + "\n";
            parts.insert(INDEX.to_owned(), text.into_bytes().into());
        }
        parts
    }
}

/// Compute capabilities of the devices of a target, ascending.
pub fn compute_capabilities(target: &Target) -> Vec<u32> {
    let of = |profile: &Profile| profile.compute_capability;
    let all: BTreeSet<u32> = target.topology.devices().iter().filter_map(|d| of(&d.profile)).collect();
    all.into_iter().collect()
}

/// Compiles the kernels of a plan for GPUs of these compute capabilities.
///
/// # Errors
/// `runtime.plan` for a plan that does not fit its program.
pub fn compile_kernels(program: &Module, plan: &Plan, capabilities: &[u32]) -> Result<GpuKernels> {
    let mut all = GpuKernels::default();
    all.index.version = VERSION;
    for capability in capabilities {
        let chip = format!("sm_{capability}");
        let PtxSet { modules, kernels, refused, problems } = compile_ptx(plan, program, &chip)?;
        for (number, ptx) in modules.into_iter().enumerate() {
            let file = format!("{FOLDER}/{chip}.{number}.ptx");
            all.index.modules.push(KernelModule { file: file.clone(), capability: *capability });
            all.files.insert(file, ptx.into_bytes().into());
        }
        all.index.kernels = all.index.kernels.max(kernels);
        all.index.refused = refused;
        all.problems.extend(problems);
    }
    Ok(all)
}

/// What the parts of a bundle say of running its plan on GPUs: its kernels and its engines. Which GPUs is for the caller to
/// say. Engines need TensorRT; without it the plan runs by its kernels, and the second result says why.
///
/// # Errors
/// `kernels.format` if the list of kernels is malformed, or names files that are not there.
pub fn cuda_options(
    parts: &BTreeMap<String, Bytes>,
    plan: &Plan,
) -> Result<(CudaOptions, Option<Box<Diagnostic>>)> {
    let mut options = CudaOptions { graphs: true, ..CudaOptions::default() };
    let (units, missing) = engine_units(parts, plan)?;
    options.engines = units;
    let Some(bytes) = parts.get(INDEX) else { return Ok((options, missing)) };
    let malformed = |what: String| input("kernels.format", what).at(INDEX).help("write the bundle again");
    let index: KernelIndex =
        serde_json::from_slice(bytes.as_slice()).map_err(|e| malformed(e.to_string()))?;
    if index.version != VERSION {
        return Err(malformed(format!("version {}, this is {VERSION}", index.version)));
    }
    for module in &index.modules {
        let bytes = parts.get(&module.file);
        let bytes = bytes.ok_or_else(|| malformed(format!("'{}' is not there", module.file)))?;
        let text = std::str::from_utf8(bytes.as_slice());
        let text = text.map_err(|_| malformed(format!("'{}' is no text", module.file)))?;
        options.ptx.push((module.capability, text.to_owned()));
    }
    Ok((options, missing))
}

/// The engines of a bundle in the places where an engine is launched as a whole.
fn engine_units(
    parts: &BTreeMap<String, Bytes>,
    plan: &Plan,
) -> Result<(Vec<EngineUnit>, Option<Box<Diagnostic>>)> {
    let Some(index) = EngineIndex::of_bundle(parts, plan)? else { return Ok((Vec::new(), None)) };
    let launched = |place: &&EngineUse| {
        let entry = plan.entries.get(place.entry as usize);
        entry.is_some_and(|e| e.granularity == Granularity::Engines) && place.kernels.len() == 1
    };
    let places: Vec<&EngineUse> = index.uses.iter().filter(launched).collect();
    if places.is_empty() {
        return Ok((Vec::new(), None));
    }
    let library = match Library::load() {
        Ok(library) => Arc::new(library),
        Err(missing) if missing.culprit == Culprit::Unsupported => return Ok((Vec::new(), Some(missing))),
        Err(problem) => return Err(problem),
    };
    Ok((places.into_iter().map(|place| engine_unit(place, parts, &library)).collect(), None))
}

fn engine_unit(place: &EngineUse, parts: &BTreeMap<String, Bytes>, library: &Arc<Library>) -> EngineUnit {
    let bound = |bindings: &[EngineBinding]| {
        let value = |source: &EngineSource| match source {
            EngineSource::Value(value) => EngineValue::Value(*value),
            EngineSource::Length(symbol) => EngineValue::Length(symbol.clone()),
        };
        bindings.iter().map(|b| (b.name.clone(), value(&b.source))).collect()
    };
    let bytes = parts.get(&place.file).cloned();
    let library = Arc::clone(library);
    let load = move || -> Result<Box<dyn EngineExecution>> {
        let bytes = bytes.as_ref().map(Bytes::as_slice).unwrap_or_default();
        Ok(Box::new(Loaded::new(&library, bytes)?))
    };
    EngineUnit {
        entry: place.entry as usize,
        kernel: place.kernels.first().map_or(0, |k| *k as usize),
        key: place.file.clone(),
        inputs: bound(&place.inputs),
        outputs: bound(&place.outputs),
        load: Arc::new(load),
    }
}
