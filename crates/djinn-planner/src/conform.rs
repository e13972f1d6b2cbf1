//! Does a plan run the program that it is for?
//!
//! The checker of `djinn-plan` proves that every read finds the value it names; this one, which sees the program,
//! proves that kernels name the right values: every operation runs exactly once, reads its operands and writes what
//! others need; what shares bytes may do so ([`crate::aliases`]); inputs, outputs, states and constants are those of the
//! function, and views are as large as their values ([`crate::interface`]); and that what one run leaves for the next is
//! the same in both ([`crate::handover`]).

use crate::aliases::{Sizes, appends, overlap};
use crate::handover;
use crate::interface::{Constants, Interface};
use crate::names::{positions, value_ref};
use djinn_diag::{Context, Result, internal};
use djinn_ir::walk::known_before_runs;
use djinn_ir::{Function, Module, OpId, OpKind, ValueId};
use djinn_plan::{Action, Alias, Entry, Kernel, Operand, Plan, ValueRef};
use std::collections::{BTreeMap, BTreeSet};

/// Compares every entry of a plan with its function.
///
/// # Errors
/// `plan.conform` names the operation that is missing, doubled, or read or written wrongly.
pub fn conforms(plan: &Plan, module: &Module) -> Result<()> {
    let mut constants = Constants::default();
    let order = |f: &Function| f.graph.ops().map(|(id, _)| id).collect();
    let orders: BTreeMap<&str, Vec<OpId>> = module.functions.iter().map(|f| (&*f.name, order(f))).collect();
    let value = |f: &Function, v: ValueRef| value_of(orders.get(&*f.name)?, f, v);
    for entry in &plan.entries {
        let function = module.function(&entry.function).ok_or_else(|| {
            internal("plan.conform", format!("the program has no function '{}'", entry.function))
        })?;
        let ops: Vec<OpId> = function.graph.ops().map(|(id, _)| id).collect();
        let mut check = Check {
            plan,
            entry,
            function,
            done: vec![false; ops.len()],
            ops,
            positions: positions(&function.graph),
            sizes: Sizes::of(entry),
        };
        check.entry().at(|| format!("function '{}'", entry.function))?;
        let (positions, sizes) = (&check.positions, &check.sizes);
        Interface { plan, module, entry, function, positions, sizes }
            .check(&mut constants, &value)
            .at(|| format!("function '{}'", entry.function))?;
    }
    handover::check(plan, module, &value)
}

/// The value of a function that a plan names; operations are named by their place in the order.
fn value_of(order: &[OpId], function: &Function, value: ValueRef) -> Option<ValueId> {
    let graph = &function.graph;
    match value {
        ValueRef::Argument(n) => graph.arguments.get(n as usize).copied(),
        ValueRef::Result { op, index } => {
            graph.op(*order.get(op as usize)?).results.get(index as usize).copied()
        }
    }
}

struct Check<'a> {
    plan: &'a Plan,
    entry: &'a Entry,
    function: &'a Function,
    ops: Vec<OpId>,
    positions: Vec<u32>,
    sizes: Sizes,
    /// Operations that run, by position.
    done: Vec<bool>,
}

impl Check<'_> {
    fn entry(&mut self) -> Result<()> {
        for command in &self.entry.commands {
            match command.action {
                Action::Launch { kernel } => {
                    let Some(kernel) = self.entry.kernels.get(kernel.index()) else {
                        return Err(internal(
                            "plan.conform",
                            "a command launches a kernel that is not there",
                        ));
                    };
                    self.kernel(kernel)?;
                }
                Action::Copy { value, result, .. } if value != result => self.copy(value, result)?,
                Action::Copy { .. } | Action::Record { .. } | Action::Wait { .. } => {}
            }
        }
        let mut aliased = BTreeSet::new();
        for alias in &self.entry.aliases {
            self.alias(alias, &mut aliased)?;
        }
        let ahead = known_before_runs(self.function);
        for (position, id) in self.ops.iter().enumerate() {
            let known = self.function.graph.op(*id).results.iter().all(|r| ahead[r.0 as usize]);
            if !self.done[position] && !known {
                return self.wrong(position, "never runs");
            }
        }
        Ok(())
    }

    fn wrong(&self, position: usize, what: &str) -> Result<()> {
        let kind = self.ops.get(position).map_or("nothing", |id| self.function.graph.op(*id).kind.name());
        Err(internal("plan.conform", format!("operation {position} ({kind}) {what}")))
    }

    fn name(&self, v: ValueId) -> ValueRef {
        value_ref(&self.positions, &self.function.graph, v)
    }

    /// The value of the program that the plan names.
    fn value(&self, value: ValueRef) -> Option<ValueId> {
        value_of(&self.ops, self.function, value)
    }

    fn kernel(&mut self, kernel: &Kernel) -> Result<()> {
        let graph = &self.function.graph;
        let reads: BTreeSet<_> = kernel.reads.iter().map(|o| key(o.value)).collect();
        let mut made: BTreeSet<(u32, u32)> = BTreeSet::new();
        let mut run = Vec::new();
        for &position in &kernel.ops {
            let position = position as usize;
            let Some(id) = self.ops.get(position).copied() else {
                return self.wrong(position, "does not exist");
            };
            if std::mem::replace(&mut self.done[position], true) {
                return self.wrong(position, "runs twice");
            }
            let op = graph.op(id);
            let missing = op.operands.iter().any(|v| {
                let k = key(self.name(*v));
                !reads.contains(&k) && !made.contains(&k)
            });
            if missing {
                return self.wrong(position, "runs without one of its operands");
            }
            made.extend(op.results.iter().map(|v| key(self.name(*v))));
            run.push(id);
        }
        let first = kernel.ops.first().map_or(0, |o| *o as usize);
        if kernel.writes.iter().any(|o| !made.contains(&key(o.value))) {
            return self.wrong(first, "is said to write what it does not make");
        }
        for write in &kernel.writes {
            for read in kernel.reads.iter().filter(|r| overlap(self.plan, &r.view, &write.view)) {
                if !self.may_overwrite(&run, kernel, read, write) {
                    return self.wrong(first, "writes over an operand that it still reads");
                }
            }
        }
        Ok(())
    }

    fn may_overwrite(&self, run: &[OpId], kernel: &Kernel, read: &Operand, write: &Operand) -> bool {
        let (Some(from), Some(to)) = (self.value(read.value), self.value(write.value)) else { return false };
        let graph = &self.function.graph;
        let (before, after) = ((from, &read.view), (to, &write.view));
        self.sizes.may_overwrite(self.plan, graph, run, kernel, before, after)
            || appends(self.plan, self.entry, graph, run, kernel, (read, write), (from, to))
    }

    /// A copy that stands for a transfer.
    fn copy(&mut self, value: ValueRef, result: ValueRef) -> Result<()> {
        let ValueRef::Result { op, .. } = result else { return Ok(()) };
        let position = op as usize;
        let Some(id) = self.ops.get(position) else { return self.wrong(position, "does not exist") };
        let copied = self.function.graph.op(*id);
        let right = copied.kind == OpKind::Transfer && key(self.name(copied.operands[0])) == key(value);
        if !right || std::mem::replace(&mut self.done[position], true) {
            return self.wrong(position, "is copied from another value than its operand");
        }
        Ok(())
    }

    /// An alias; one operation may have several, at different places.
    fn alias(&mut self, alias: &Alias, aliased: &mut BTreeSet<usize>) -> Result<()> {
        let ValueRef::Result { op: position, .. } = alias.value.value else { return Ok(()) };
        let position = position as usize;
        let Some(id) = self.ops.get(position) else { return self.wrong(position, "does not exist") };
        let op = self.function.graph.op(*id);
        let parts = if op.kind == OpKind::Concat {
            &op.operands[..]
        } else {
            op.operands.get(..1).unwrap_or_default()
        };
        let from = parts.iter().map(|v| key(self.name(*v)));
        let right = from.eq(alias.of.iter().map(|o| key(o.value)))
            && self.sizes.is_alias(&self.function.graph, op, &alias.value, &alias.of);
        let runs = std::mem::replace(&mut self.done[position], true);
        if !right || (runs && !aliased.contains(&position)) {
            return self.wrong(position, "is said to be the bytes of another value than its operand");
        }
        aliased.insert(position);
        Ok(())
    }
}

/// A value as a pair that sorts: arguments first.
fn key(value: ValueRef) -> (u32, u32) {
    match value {
        ValueRef::Argument(n) => (u32::MAX, n),
        ValueRef::Result { op, index } => (op, index),
    }
}
