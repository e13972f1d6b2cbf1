//! `repeats`: says which operations are layers that come again, and changes nothing else.
//!
//! Requires: a verified module. Ensures: operations of a region that comes again carry the number of their instance as
//! `repeat`; numbers are unique in their function and ascend with the first operation. Engines are cut there
//! later, so that one serves all instances. Preserves: everything but this annotation.
//!
//! Regions are found as `outline` finds them. A region that comes again is not marked where an engine of its own would
//! do too little: every engine is one more launch.

use crate::instances::Instances;
use crate::repeats::{Wanted, best_unit};
use crate::sequence::Sequence;
use djinn_diag::{Context, RemarkKind, Result};
use djinn_ir::ops::CostClass;
use djinn_ir::{Function, Module, OpId};
use djinn_pass::{OptionInfo, Pass, PassContext, PassInfo, PassOptions};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the pass manager knows of `repeats`.
pub static REPEATS: PassInfo = PassInfo {
    name: "repeats",
    summary: "numbers the instances of regions that come again, such as the layers of a transformer",
    requires: "a verified module",
    ensures: "annotation `repeat` on the operations of every instance of a region that comes again",
    preserves: "everything but this annotation",
    options: &[
        OptionInfo { name: "min-ops", default: "12", summary: "operations of a region, at least" },
        OptionInfo {
            name: "min-contractions",
            default: "2",
            summary: "products and convolutions of a region, at least",
        },
        OptionInfo {
            name: "min-saving",
            default: "10",
            summary: "operations that a region saves, at least, in percent of those of the function",
        },
    ],
};

/// Regions that one function is looked through for, at most.
const MAX_REGIONS: usize = 16;

/// The pass.
#[derive(Debug, Clone, Copy)]
pub struct Repeats {
    min_ops: usize,
    min_contractions: usize,
    /// In percent.
    min_saving: usize,
}

/// Makes the pass from its options.
///
/// # Errors
/// Malformed options.
pub fn make(options: &PassOptions) -> Result<Box<dyn Pass>> {
    let number = |name: &str| options.u64(name).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    Ok(Box::new(Repeats {
        min_ops: number("min-ops")?.max(1),
        min_contractions: number("min-contractions")?,
        min_saving: number("min-saving")?,
    }))
}

impl Pass for Repeats {
    fn info(&self) -> &'static PassInfo {
        &REPEATS
    }

    fn run(&self, module: &mut Module, cx: &mut PassContext) -> Result<()> {
        for function in module.functions.iter_mut().filter(|f| !f.is_private()) {
            let name = Arc::clone(&function.name);
            self.function(function, cx).at(|| format!("function '{name}'"))?;
        }
        Ok(())
    }
}

impl Repeats {
    fn function(&self, function: &mut Function, cx: &mut PassContext) -> Result<()> {
        let mut instances: Vec<Vec<OpId>> = Vec::new();
        let mut blocked: BTreeSet<OpId> = BTreeSet::new();
        for _ in 0..MAX_REGIONS {
            let Some(mut found) = self.next(function, &mut blocked, cx) else { break };
            instances.append(&mut found);
        }
        if instances.is_empty() {
            return Ok(());
        }
        let mut place =
            vec![0usize; instances.iter().flatten().map(|id| id.0 as usize + 1).max().unwrap_or(0)];
        for (position, (id, _)) in function.graph.ops().enumerate() {
            if let Some(slot) = place.get_mut(id.0 as usize) {
                *slot = position;
            }
        }
        instances.sort_by_key(|ops| ops.iter().map(|id| place[id.0 as usize]).min());
        for (number, ops) in (0i64..).zip(&instances) {
            ops.iter().for_each(|id| function.graph.annotate(*id, "repeat", number));
        }
        Ok(())
    }

    /// The instances of the region that saves most among operations that are not blocked, which are blocked then; none
    /// if an engine of its own would not pay for any of them.
    fn next(
        &self,
        function: &Function,
        blocked: &mut BTreeSet<OpId>,
        cx: &mut PassContext,
    ) -> Option<Vec<Vec<OpId>>> {
        let wanted = Wanted { min_length: self.min_ops, min_instances: 2, shifted: false, everywhere: true };
        let sequence = Sequence::new(function, blocked);
        let unit = best_unit(&sequence.tokens, &sequence.cuts, wanted)?;
        if unit.saving().saturating_mul(100) < sequence.ops.len().saturating_mul(self.min_saving) {
            return None;
        }
        let members = unit.starts.iter().map(|s| sequence.ops[*s..*s + unit.length].to_vec()).collect();
        let instances = Instances::alike(function, &sequence, members);
        let members = instances.members();
        blocked.extend(unit.starts.iter().flat_map(|s| &sequence.ops[*s..*s + unit.length]));
        let place = &function.name;
        let is_contraction = |id: &&OpId| function.graph.op(**id).kind.def().cost == CostClass::Contraction;
        let contractions = members.first().map_or(0, |ops| ops.iter().filter(is_contraction).count());
        let text = |n: usize| format!("{n} instances of {} operations", unit.length);
        if members.len() < 2 {
            let message = format!("{} look the same, but are not connected alike", text(unit.starts.len()));
            cx.remark(RemarkKind::Missed, "repeat", place, message);
            return Some(Vec::new());
        }
        if contractions < self.min_contractions {
            let message = format!(
                "{} come again, but {contractions} products or convolutions are too few for an engine",
                text(members.len())
            );
            cx.remark(RemarkKind::Missed, "repeat", place, message);
            return Some(Vec::new());
        }
        cx.count("repeats", 1);
        cx.count("instances", members.len() as u64);
        let message = format!("{} come again: one engine can serve all of them", text(members.len()));
        cx.remark(RemarkKind::Applied, "repeat", place, message);
        Some(members.to_vec())
    }
}
