//! Results in the memory of operands: is every operand read before it is overwritten?

use super::{Nest, Planner, Schedule, Storage};
use crate::affine::Affine;
use crate::program::NodeId;
use crate::stage::{Goal, Stage};
use djinn_diag::{Result, unsupported};
use djinn_ir::{Dim, SymbolTable, ValueId};
use std::collections::BTreeSet;

impl Planner<'_> {
    /// A result whose bytes are overwritten before they were read for the last time.
    pub(super) fn hazard(&self, done: &Schedule) -> Option<ValueId> {
        for (read, write) in &self.pairs {
            let node = self.program.writes.iter().find(|(v, _)| v == write)?.1;
            let Some(buffer) = self.write_buffers.get(&node) else { continue };
            let writes = |s: &Stage| s.node == node;
            let Some(home) = done.nests.iter().position(|n| n.stages.iter().any(writes)) else { continue };
            let moves = self.in_place.get(&node) == Some(&true);
            let later = done.nests[home + 1..]
                .iter()
                .flat_map(|n| &n.stages)
                .any(|s| s.loads.iter().any(|(b, _)| b == buffer) && !self.reads_result(node, s));
            let nest = &done.nests[home];
            let last = nest.stages.iter().rposition(writes).unwrap_or(0);
            let clash = nest.stages.iter().enumerate().any(|(i, s)| {
                let foreign = s.loads.iter().filter(|(b, _)| b == buffer);
                foreign.into_iter().any(|(_, form)| {
                    if self.reads_result(node, s) && i >= last {
                        return false;
                    }
                    moves || i > last || !in_step(nest, s, form, &nest.stages[last])
                })
            });
            let _ = read;
            if later || clash {
                return Some(*write);
            }
        }
        None
    }

    /// Does the stage read the result itself, and not the operand in its bytes?
    fn reads_result(&self, node: NodeId, stage: &Stage) -> bool {
        stage.accesses.iter().any(|a| a.node == node) && !self.reads_operand(node, stage.node)
    }

    /// Does computing a tensor read the operand in the bytes of the result `node`, through what is not written down?
    fn reads_operand(&self, node: NodeId, reader: NodeId) -> bool {
        let buffer = self.write_buffers.get(&node);
        let (mut stack, mut seen) = (vec![reader], BTreeSet::new());
        while let Some(n) = stack.pop() {
            for (read, _) in &self.program.node(n).reads {
                if self.read_buffers.contains_key(read) && self.read_buffers.get(read) == buffer {
                    return true;
                }
                if !self.stored.contains(read) && seen.insert(*read) {
                    stack.push(*read);
                }
            }
        }
        false
    }

    /// Refuses pairs that do not become one buffer, or whose elements move inside it.
    pub(super) fn check_pairs(&self, done: &Schedule) -> Result<()> {
        let refuse =
            |why: &str| Err(unsupported("kernel.alias", why).help("lower the group without aliases"));
        for (read, write) in &self.pairs {
            let Some((_, result)) = self.program.writes.iter().find(|(v, _)| v == write) else {
                return refuse("an aliased result is not computed");
            };
            let buffer = self.write_buffers.get(result);
            let own = buffer.is_some_and(|b| done.storage[b.0 as usize] == Storage::Write(*write));
            if !own {
                return refuse("an aliased result is an operand or another result");
            }
            if self.in_place.get(result) == Some(&true) {
                return refuse("rows move inside their buffer");
            }
            let operand = self.read_buffers.iter().find(
                |(n, _)| matches!(self.program.node(**n).def, crate::program::Def::Read(v) if v == *read),
            );
            let Some((operand, at)) = operand else { continue };
            if Some(at) != buffer {
                return refuse("an operand is aliased to several results");
            }
            if self.program.node(*operand).dtype.size() != self.program.node(*result).dtype.size() {
                return refuse("elements of an operand and a result have different sizes");
            }
        }
        Ok(())
    }
}

/// Does a stage read at `form` only what the storing stage writes in the same turn of the shared loops, or itself?
fn in_step(nest: &Nest, stage: &Stage, form: &Affine, storing: &Stage) -> bool {
    let Goal::Memory { position, .. } = &storing.goal else { return false };
    if stage.node == storing.node && stage.part == storing.part && position == form {
        return true;
    }
    if stage.node == storing.node {
        return false;
    }
    let factor = |f: &Affine, s: &Stage, i: usize| {
        let var = s.loops[i].var;
        f.terms.iter().find(|t| t.0 == var).map_or(Dim::ZERO, |t| t.1.clone())
    };
    let Some(last) = nest.outer.checked_sub(1) else { return true };
    let same = (0..nest.outer).all(|i| factor(form, stage, i) == factor(position, storing, i));
    // The rest must stay inside the row.
    let row = factor(position, storing, last);
    let mut reach = form.constant.clone();
    let outer: Vec<_> = stage.loops[..nest.outer].iter().map(|l| l.var).collect();
    for (atom, c) in form.terms.iter().filter(|t| !outer.contains(&t.0)) {
        let Some(l) = stage.all_loops().into_iter().find(|l| l.var == *atom) else { return false };
        reach = &reach + &(c * &(&l.size - &Dim::ONE));
    }
    let none = SymbolTable::default();
    same && form.constant.provably_ge(&Dim::ZERO, &none) && (&row - &reach).provably_ge(&Dim::ONE, &none)
}
