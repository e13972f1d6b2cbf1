//! PTX of a plan, made ahead of time.

use super::code::{GpuCode, GpuTexts, compile, entries};
use crate::code::EntryCode;
use crate::compiled::plan_steps;
use crate::options::RunOptions;
use crate::runtime::resolved;
use djinn_diag::{Diagnostic, Result};
use djinn_ir::Module;
use djinn_plan::{Granularity, Kernel, Plan};
use std::collections::{BTreeMap, BTreeSet};

/// Kernels of a plan as PTX.
#[derive(Debug, Clone, Default)]
pub struct PtxSet {
    /// PTX modules, each the text of one.
    pub modules: Vec<String>,
    /// Number of kernels in them; kernels that do the same are one.
    pub kernels: usize,
    /// Operations that no kernel does, with the reason, and how often they occur: the evaluator does them on the host.
    pub refused: BTreeMap<String, usize>,
    /// What the compiler refused.
    pub problems: Vec<Diagnostic>,
}

/// Compiles the kernels of a plan for a GPU such as `sm_90`, with those that are needed only where cuBLASLt is missing.
///
/// # Errors
/// `runtime.plan` for a plan that does not fit its program.
pub fn compile_ptx(plan: &Plan, program: &Module, chip: &str) -> Result<PtxSet> {
    let options = RunOptions { memory_limit: u64::MAX, ..RunOptions::default() };
    let code = resolved(plan, program, &options)?;
    let mut texts = GpuTexts::default();
    for (entry, code) in plan.entries.iter().zip(&code) {
        // Without its engine, a region runs by the kernels of the other entry.
        let is_needed =
            |kernel: &Kernel| entry.granularity == Granularity::Kernels || kernel.engine.is_none();
        let needed: Vec<bool> = entry.kernels.iter().map(is_needed).collect();
        lower_all(program, code, &needed, &mut texts);
    }
    let (modules, problems) = compile(&texts.texts, &BTreeSet::new(), chip);
    let kernels: BTreeSet<&str> =
        modules.iter().flat_map(|m| entries(m)).map(super::code::kernel_of).collect();
    let kernels = kernels.len();
    Ok(PtxSet { modules, kernels, refused: texts.refused, problems })
}

/// Lowers the needed kernels of an entry with all products as kernels: beside these, what a library leaves is the same.
fn lower_all(program: &Module, entry: &EntryCode, needed: &[bool], texts: &mut GpuTexts) {
    let graph = &entry.table.function(program).graph;
    let functions = BTreeMap::new();
    let mut code = GpuCode { texts, has_blas: false, functions: &functions, graph };
    for (kernel, _) in entry.kernels.iter().zip(needed).filter(|(_, needed)| **needed) {
        plan_steps(graph, kernel, true, &mut code);
    }
}
