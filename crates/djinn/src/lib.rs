//! Djinn, a compiler for ML model graphs: the façade.
//!
//! ```no_run
//! use djinn::{CheckOptions, OptimizeOptions};
//! let model = djinn::read(std::path::Path::new("model.onnx"))?;
//! let mut optimised = model.module.clone();
//! let outcome = djinn::optimize(&mut optimised, &OptimizeOptions::default(), None)?;
//! let report = djinn::check(&model.module, &optimised, &CheckOptions::default())?;
//! assert!(report.passed());
//! # Ok::<(), Box<djinn_diag::Diagnostic>>(())
//! ```
//!
//! This is the only crate that promises a stable API; the crates below it are re-exported for those who extend Djinn.

mod bundle;
mod calibrate;
mod check;
mod dot;
mod engines;
mod execute;
mod gpu;
mod optimize;
mod plan;
mod plan_cache;
mod program;
mod read;
mod scopes;
mod sources;
mod stats;
mod streaming;
mod write;

pub mod npz;
pub mod profile;
pub mod random;

pub use bundle::{
    Bundle, WeightBytes, Weights, is_bundle, read_bundle, read_bundle_with, write_bundle, write_bundle_with,
};
pub use calibrate::{CalibrateOptions, Calibration, calibrate, calibrate_from, fitted_toml};
pub use check::{CheckOptions, CheckReport, Compared, check, evaluate, evaluator};
pub use dot::dot;
pub use engines::{
    EngineBinding, EngineIndex, EngineRefusal, EngineRequest, EngineSource, EngineUse, Engines, Lazy,
    built_engines, compile_engines,
};
pub use execute::{entry_function, execute, execute_and_check};
pub use gpu::{GpuKernels, KernelIndex, KernelModule, compile_kernels, compute_capabilities, cuda_options};
pub use optimize::{DEFAULT_PIPELINE, OptimizeOptions, Outcome, RuleInfo, Watch, optimize, registry, rules};
pub use plan::{MEMORY_REFUSALS, PLANNING_PASSES, PlanRequest, Planned, plan, program_hash, verify_plan};
pub use plan_cache::{PlanCache, PlanKey, PlanSource, RequestKey};
pub use program::{merge_programs, program_labels, share_weights};
pub use read::{Format, Model, read};
pub use scopes::{ScopeChange, scope_changes};
pub use stats::{ModuleStats, stats};
pub use write::{export_onnx, write_atomically};

pub use djinn_cost as cost;
pub use djinn_cuda as cuda;
pub use djinn_device as device;
pub use djinn_diag as diag;
pub use djinn_engines as engine_cache;
pub use djinn_extract as extract;
pub use djinn_interp as interp;
pub use djinn_ir as ir;
pub use djinn_mlir as mlir;
pub use djinn_onnx_export as onnx_export;
pub use djinn_pack as pack;
pub use djinn_pass as pass;
pub use djinn_place as place;
pub use djinn_plan as plan_data;
pub use djinn_planner::conforms;
pub use djinn_report as report;
pub use djinn_runtime as runtime;
pub use djinn_srg as srg;
pub use djinn_tensorrt as tensorrt;
