//! `canonicalize`: symbolic sizes, common subexpressions, dead code.

use djinn_diag::{Context, Result};
use djinn_ir::{Module, cleanup, walk};
use djinn_pass::{Pass, PassContext, PassInfo};
use std::sync::Arc;

/// What the pass manager knows of `canonicalize`.
pub static CANONICALIZE: PassInfo = PassInfo {
    name: "canonicalize",
    summary: "folds shape arithmetic into symbolic sizes, merges common subexpressions, removes dead code",
    requires: "a verified module",
    ensures: "no two operations compute the same value, none is unused",
    preserves: "signatures, results bit for bit",
    options: &[],
};

/// The pass.
#[derive(Debug, Default)]
pub struct Canonicalize;

impl Pass for Canonicalize {
    fn info(&self) -> &'static PassInfo {
        &CANONICALIZE
    }

    fn run(&self, module: &mut Module, cx: &mut PassContext) -> Result<()> {
        for i in 0..module.functions.len() {
            let name = Arc::clone(&module.functions[i].name);
            let mut graph = std::mem::take(&mut module.functions[i].graph);
            let outcome = walk::for_each_graph_mut(&mut graph, &mut |body| {
                let folded = cleanup::fold_shapes(body, &module.weights, &mut cx.fuel)?;
                cx.count("shapes folded", folded.replaced as u64);
                let merged = cleanup::eliminate_common_subexpressions(body, &mut cx.fuel)?;
                cx.count("common subexpressions", merged.replaced as u64);
                let dead = cleanup::eliminate_dead_code(body, &mut cx.fuel)?;
                cx.count("dead operations", dead.removed as u64);
                Ok(())
            });
            module.functions[i].graph = graph;
            outcome.at(|| format!("function '{name}'"))?;
        }
        Ok(())
    }
}
