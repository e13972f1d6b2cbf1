//! `outline`: regions that come again become one private function.
//!
//! Requires: a verified module. Ensures: a verified module that computes the same. Preserves: signatures, order of
//! unknown operations and of operations with regions.

use crate::instances::Instances;
use crate::repeats::{Wanted, best_unit};
use crate::same::{RegionHash, function_hash};
use crate::sequence::Sequence;
use djinn_diag::{Context, RemarkKind, Result};
use djinn_ir::{Function, Module, OpId, OpKind, Patch, PatchOutcome, ValueId, walk};
use djinn_pass::{OptionInfo, Pass, PassContext, PassInfo, PassOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the pass manager knows of `outline`.
pub static OUTLINE: PassInfo = PassInfo {
    name: "outline",
    summary: "makes private functions of regions that come again, such as the layers of a transformer",
    requires: "a verified module",
    ensures: "every region that was found more than once stands in one private function, called where it stood",
    preserves: "signatures, results bit for bit, operations with regions, unknown operations",
    options: &[
        OptionInfo { name: "min-ops", default: "12", summary: "operations of a region, at least" },
        OptionInfo { name: "min-instances", default: "2", summary: "instances of a region, at least" },
        OptionInfo {
            name: "min-saving",
            default: "20",
            summary: "operations that a region saves, at least, in percent of those of the function",
        },
        OptionInfo {
            name: "phase",
            default: "aligned",
            summary: "where tandem repeats are cut: aligned (where fewest values cross) or shifted (half a region on)",
        },
    ],
};

/// Regions that one function is looked through for, at most.
const MAX_REGIONS: usize = 16;

/// The pass.
#[derive(Debug, Clone, Copy)]
pub struct Outline {
    wanted: Wanted,
    /// In percent.
    min_saving: usize,
}

/// Makes the pass from its options.
///
/// # Errors
/// Malformed options.
pub fn make(options: &PassOptions) -> Result<Box<dyn Pass>> {
    let number = |name: &str| options.u64(name).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let shifted = match options.get("phase")? {
        "aligned" => false,
        "shifted" => true,
        other => {
            let message = format!("option 'phase' of pass 'outline' is aligned or shifted, not '{other}'");
            return Err(djinn_diag::input("pipeline.option", message));
        }
    };
    let (min_length, min_instances) = (number("min-ops")?.max(1), number("min-instances")?.max(2));
    let min_saving = number("min-saving")?;
    Ok(Box::new(Outline {
        wanted: Wanted { min_length, min_instances, shifted, everywhere: false },
        min_saving,
    }))
}

impl Pass for Outline {
    fn info(&self) -> &'static PassInfo {
        &OUTLINE
    }

    fn run(&self, module: &mut Module, cx: &mut PassContext) -> Result<()> {
        for i in 0..module.functions.len() {
            let name = Arc::clone(&module.functions[i].name);
            self.function(module, i, cx).at(|| format!("function '{name}'"))?;
        }
        share(module, cx)
    }
}

/// Lets private functions that are equal, also in their places in the model's code, be one: the first of them.
fn share(module: &mut Module, cx: &mut PassContext) -> Result<()> {
    if module.functions.iter().filter(|f| f.is_private()).count() < 2 {
        return Ok(());
    }
    let mut of_hash: BTreeMap<RegionHash, Vec<usize>> = BTreeMap::new();
    let mut same: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
    for (i, f) in module.functions.iter().enumerate().filter(|(_, f)| f.is_private()) {
        let alike = of_hash.entry(function_hash(f)).or_default();
        let equal = |other: &&usize| {
            let other = &module.functions[**other];
            let kinds = |f: &Function| f.arguments.iter().map(|(_, kind)| kind.clone()).collect::<Vec<_>>();
            kinds(other) == kinds(f) && walk::same_graph(&other.graph, &f.graph)
        };
        match alike.iter().find(equal) {
            Some(first) => drop(same.insert(Arc::clone(&f.name), Arc::clone(&module.functions[*first].name))),
            None => alike.push(i),
        }
    }
    if same.is_empty() {
        return Ok(());
    }
    for f in &mut module.functions {
        let calls = f.graph.ops().filter(|(_, op)| op.kind == OpKind::Call);
        let mut patch = Patch::new(OUTLINE.name, &f.graph);
        // Operations of a patch keep their operands, so calls name the results of earlier ones themselves.
        let mut replaced: BTreeMap<ValueId, ValueId> = BTreeMap::new();
        for (_, op) in calls {
            let Some(callee) = same.get(op.attrs.str("callee")) else { continue };
            let attrs = op.attrs.clone().with("callee", &**callee);
            patch.locate(op.location.clone(), op.annotations.clone());
            let operands: Vec<ValueId> =
                op.operands.iter().map(|v| replaced.get(v).copied().unwrap_or(*v)).collect();
            let new = patch.op_full(&f.graph, OpKind::Call, &operands, attrs, Vec::new())?;
            for (old, new) in op.results.iter().zip(new) {
                patch.replace(*old, new);
                replaced.insert(*old, new);
            }
        }
        if cx.apply(patch, &mut f.graph)?.outcome == PatchOutcome::OutOfFuel {
            return Ok(());
        }
    }
    // Calls inside regions of operations are left as they are, and so are the functions that they call.
    let called: BTreeSet<String> = module
        .functions
        .iter()
        .flat_map(|f| walk::callees(&f.graph))
        .filter(|name| same.contains_key(*name))
        .map(str::to_owned)
        .collect();
    let before = module.functions.len();
    module.functions.retain(|f| !same.contains_key(&f.name) || called.contains(&*f.name));
    let gone = before - module.functions.len();
    cx.count("shared", gone as u64);
    cx.remark(RemarkKind::Applied, "sharing", "", format!("{gone} functions are equal to others and went"));
    Ok(())
}

impl Outline {
    fn function(&self, module: &mut Module, index: usize, cx: &mut PassContext) -> Result<()> {
        let mut blocked: BTreeSet<OpId> = BTreeSet::new();
        for _ in 0..MAX_REGIONS {
            let function = &module.functions[index];
            let sequence = Sequence::new(function, &blocked);
            let Some(unit) = best_unit(&sequence.tokens, &sequence.cuts, self.wanted) else { return Ok(()) };
            if unit.saving().saturating_mul(100) < sequence.ops.len().saturating_mul(self.min_saving) {
                return Ok(());
            }
            let members: Vec<Vec<OpId>> =
                unit.starts.iter().map(|s| sequence.ops[*s..*s + unit.length].to_vec()).collect();
            // Whatever becomes of them, these operations are not looked at again.
            blocked.extend(members.iter().flatten());
            let name = fresh_name(module);
            let instances = Instances::new(function, &sequence, members);
            let place = function.name.to_string();
            let Some(outlined) = instances.outline(&name, self.wanted.min_instances)? else {
                let message = format!(
                    "{} regions of {} operations look the same, but are not connected alike",
                    unit.starts.len(),
                    unit.length
                );
                cx.remark(RemarkKind::Missed, "region", &place, message);
                continue;
            };
            let report = cx.apply(outlined.patch, &mut module.functions[index].graph)?;
            if report.outcome != PatchOutcome::Applied {
                return Ok(());
            }
            cx.count("functions", 1);
            cx.count("instances", outlined.instances as u64);
            let weights =
                outlined.function.arguments.iter().filter(|(_, k)| *k == djinn_ir::ArgumentKind::Weight);
            let message = format!(
                "{} instances of {} operations became '{name}' with {} arguments, {} of them weights, and {} results",
                outlined.instances,
                unit.length,
                outlined.function.arguments.len(),
                weights.count(),
                outlined.function.results.len()
            );
            cx.remark(RemarkKind::Applied, "region", &place, message);
            module.functions.push(outlined.function);
        }
        let message = format!("looked for {MAX_REGIONS} regions and stopped there");
        cx.remark(RemarkKind::Analysis, "region", "", message);
        Ok(())
    }
}

/// A name that no function has.
fn fresh_name(module: &Module) -> Arc<str> {
    let taken: BTreeSet<&str> = module.functions.iter().map(|f| &*f.name).collect();
    let mut number = taken.iter().filter(|n| n.starts_with("outlined.")).count();
    loop {
        let name = format!("outlined.{number}");
        if !taken.contains(name.as_str()) {
            return Arc::from(name);
        }
        number += 1;
    }
}
