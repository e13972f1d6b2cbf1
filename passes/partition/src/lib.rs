//! `partition`: engine regions and kernel groups.
//!
//! Requires: a verified module, operations in an order of execution; reads the annotations `device` and `phase`.
//! Ensures: `engine` numbers the largest sets of operations that one TensorRT engine may hold, `kernel` those
//! that one launch runs, both per function in order of first operation; the graph of groups has no cycle, and a
//! kernel group lies within one engine region or outside of all. Operations that are known ahead of time have
//! neither; transfers, and views that no single kernel could take in, have no `kernel`: each is a unit of its own.
//! In the metadata `engine.F.N` says, a line a reason, what kept users of the values of engine N of function F out of it.
//! Preserves: everything but these annotations and this metadata.

mod body;
mod ends;
mod fusion;
mod kernels;
mod regions;
mod supported;

pub use supported::refusal;

use body::Body;
use djinn_diag::{RemarkKind, Result};
use djinn_ir::{Function, Module};
use djinn_pass::{Pass, PassContext, PassInfo};
use kernels::{Kernels, MAX_GROUP_OPS};
use regions::Regions;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the pass manager knows of `partition`.
pub static PARTITION: PassInfo = PassInfo {
    name: "partition",
    summary: "numbers engine regions and kernel groups",
    requires: "a verified module; devices and phases are annotated",
    ensures: "annotations `engine` and `kernel`; neither kind of group waits for itself; metadata `engine.F.N`",
    preserves: "everything but these",
    options: &[],
};

/// The pass.
#[derive(Debug, Default)]
pub struct Partition;

/// The groups of one function, by position among the operations that run.
struct Groups {
    regions: Regions,
    kernels: Kernels,
}

impl Pass for Partition {
    fn info(&self) -> &'static PassInfo {
        &PARTITION
    }

    fn run(&self, module: &mut Module, cx: &mut PassContext) -> Result<()> {
        let metadata = &mut module.metadata;
        metadata.retain(|key, _| !key.starts_with("engine."));
        for function in &mut module.functions {
            let body = Body::new(function);
            let regions = regions::regions(&body);
            let kernels = kernels::kernels(&body, &regions.class);
            let groups = Groups { regions, kernels };
            report(function, &body, &groups, cx);
            for (engine, reasons) in ends::ends(&body, &groups.regions) {
                let key = format!("engine.{}.{engine}", function.name);
                metadata.insert(Arc::from(key), Arc::from(reasons.join("\n")));
            }
            let ids: Vec<_> = body.ops.iter().map(|(id, _)| *id).collect();
            for (position, id) in ids.into_iter().enumerate() {
                if let Some(engine) = groups.regions.engine[position] {
                    function.graph.annotate(id, "engine", i64::from(engine));
                }
                if let Some(kernel) = groups.kernels.kernel[position] {
                    function.graph.annotate(id, "kernel", i64::from(kernel));
                }
            }
        }
        Ok(())
    }
}

/// Counts the groups and says what kept them apart.
fn report(function: &Function, body: &Body, groups: &Groups, cx: &mut PassContext) {
    cx.count("operations", body.len() as u64);
    cx.count("engine regions", groups.regions.count as u64);
    cx.count("kernel groups", groups.kernels.count as u64);
    cx.count("kernel groups kept apart by a cycle", groups.kernels.cycles as u64);
    cx.count("kernel groups kept apart by their size", groups.kernels.full as u64);
    cx.count("path searches stopped", groups.kernels.gave_up as u64);
    let mut outside: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for ((_, op), refusal) in body.ops.iter().zip(&groups.regions.refusals) {
        if let Some(reason) = refusal {
            *outside.entry((op.kind.name(), reason)).or_default() += 1;
        }
    }
    for ((name, reason), count) in outside {
        let message = format!("{count} × {name} outside of engines: {reason}");
        cx.remark(RemarkKind::Missed, "engine", &function.name, message);
    }
    let mut places = body.places.clone();
    places.sort_unstable();
    places.dedup();
    if groups.regions.count > 1 {
        let message = format!(
            "{} engine regions: kept apart by the operations outside and {} combinations of device and phase",
            groups.regions.count,
            places.len()
        );
        cx.remark(RemarkKind::Analysis, "engine", &function.name, message);
    }
    if groups.kernels.full > 0 {
        let message =
            format!("{} operations found their group at its {MAX_GROUP_OPS} operations", groups.kernels.full);
        cx.remark(RemarkKind::Missed, "kernel", &function.name, message);
    }
    if groups.kernels.gave_up > 0 {
        let message = format!("{} searches for a path between groups were stopped", groups.kernels.gave_up);
        cx.remark(RemarkKind::Missed, "kernel", &function.name, message);
    }
}
