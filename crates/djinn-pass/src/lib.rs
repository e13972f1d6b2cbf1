//! Passes, pipelines and the pass manager.
//!
//! - [`Pass`] and [`PassInfo`]: what a pass is and what it says of itself;
//! - [`PassContext`]: fuel, limits, seed, remarks and counters of a run;
//! - [`PassRegistry`]: passes by name, registered explicitly;
//! - [`Pipeline`]: pipelines as text, in `mlir-opt`'s grammar;
//! - [`PassManager`]: runs a pipeline, verifies between passes, reports events and times;
//! - [`Reproducer`]: everything needed to run a failed pass again, as one text file.
//!
//! Invariant: no file system, no clock, no environment; times come from a clock that the caller gives.

mod context;
mod manager;
mod pass;
mod pipeline;
mod registry;
mod reproducer;

pub use context::{Limits, PassContext, Statistics};
pub use manager::{Event, PassManager, PassRun, RunReport};
pub use pass::{ConstantEvaluator, OptionInfo, Pass, PassInfo, PassOptions};
pub use pipeline::{Pipeline, PipelineItem};
pub use registry::PassRegistry;
pub use reproducer::Reproducer;
