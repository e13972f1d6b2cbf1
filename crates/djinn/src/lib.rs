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

mod check;
mod dot;
mod optimize;
mod read;
mod scopes;
mod stats;
mod write;

pub mod npz;
pub mod random;

pub use check::{CheckOptions, CheckReport, Compared, check, evaluate, evaluator};
pub use dot::dot;
pub use optimize::{DEFAULT_PIPELINE, OptimizeOptions, Outcome, RuleInfo, Watch, optimize, registry, rules};
pub use read::{Format, Model, read};
pub use scopes::{ScopeChange, scope_changes};
pub use stats::{ModuleStats, stats};
pub use write::{export_onnx, write_atomically};

pub use djinn_diag as diag;
pub use djinn_extract as extract;
pub use djinn_interp as interp;
pub use djinn_ir as ir;
pub use djinn_onnx_export as onnx_export;
pub use djinn_pass as pass;
pub use djinn_srg as srg;
