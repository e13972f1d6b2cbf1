//! Nests whose blocks take rows: threads share the points of each stage and wait for one another between stages.

use super::{Gpu, per_thread, product};
use crate::build::Loop;
use crate::dag::{Id, Ty};
use crate::levels::{Levels, levels};
use crate::program::Fold;
use crate::schedule::Nest;
use crate::stage::{Stage, Work};
use djinn_diag::{Result, unsupported};
use djinn_ir::Dim;

impl Gpu<'_> {
    /// Every block takes rows in steps of the grid.
    pub(super) fn rows(&mut self, nest: &Nest) -> Result<Dim> {
        let Some(first) = nest.stages.first() else { return Ok(Dim::ONE) };
        let (outer, serial) = first.loops[..nest.outer].split_at(nest.outer - nest.serial);
        let total = self.count(outer);
        let (block, blocks) = (self.block_number.clone(), self.blocks.clone());
        let row = self.open(&block, &total, &blocks);
        let mut at = self.apart(&row, outer);
        for l in serial {
            let size = self.size(&l.size);
            let (zero, one) = (self.zero.clone(), self.one.clone());
            at.push(self.open(&zero, &size, &one));
        }
        let names = self.w.names.clone();
        for stage in &nest.stages {
            let levels = levels(self.dag, stage, 0);
            self.bind(&levels, &stage.loops[..nest.outer], &at);
            self.row_stage(stage, &levels, nest.outer)?;
            self.w.line("gpu.barrier");
            self.w.names.clone_from(&names);
        }
        serial.iter().for_each(|_| self.w.close("}"));
        self.w.close("}");
        Ok(product(outer))
    }

    /// What a block does for one row of a stage.
    fn row_stage(&mut self, stage: &Stage, levels: &Levels, outer: usize) -> Result<()> {
        if matches!(stage.work, Work::Move { .. }) {
            return Err(unsupported("kernel.gpu", "rows that move inside their buffer"));
        }
        let inner = stage.loops[outer..].to_vec();
        if let Work::Reduce { fold, loops, value, position } = &stage.work
            && inner.is_empty()
            && !per_thread(stage)
        {
            self.compute(levels, 0..=outer);
            self.block_fold(stage, levels, loops, (*fold, *value, *position));
            return Ok(());
        }
        // Loops that run in order are run by every thread; the others are shared out.
        let ordered = (stage.shared.saturating_sub(outer) + stage.ordered).min(inner.len());
        let ordered = if stage.ordered == 0 { 0 } else { ordered };
        let (in_order, free) = inner.split_at(ordered);
        let mut bound = Vec::new();
        for l in in_order {
            let size = self.size(&l.size);
            let (zero, one) = (self.zero.clone(), self.one.clone());
            bound.push(self.open(&zero, &size, &one));
        }
        let total = self.count(free);
        let (thread, threads) = (self.thread.clone(), self.threads.clone());
        let point = self.open(&thread, &total, &threads);
        bound.extend(self.apart(&point, free));
        self.bind(levels, &inner, &bound);
        self.point(stage, levels);
        self.w.close("}");
        in_order.iter().for_each(|_| self.w.close("}"));
        Ok(())
    }

    /// All threads of a block fold one row: each a part, then the parts in workgroup memory.
    fn block_fold(&mut self, stage: &Stage, levels: &Levels, loops: &[Loop], work: (Fold, Id, Id)) {
        let (fold, value, _) = work;
        let ty = self.dag.ty(value);
        let total = self.count(loops);
        let (thread, threads) = (self.thread.clone(), self.threads.clone());
        let part = self.fold_range(stage, levels, loops, work, [&thread, &total, &threads]);
        let (shared, memory) = self.fold_memory(ty);
        let here = self.w.op(&format!("arith.index_cast {thread} : i64 to index"));
        self.w.line(&format!("memref.store {part}, {shared}[{here}] : {memory}"));
        self.w.line("gpu.barrier");
        self.fold_shared(fold, stage.unsigned, ty, (&shared, &memory, &here), (self.block / 2, 1));
        let first = self.w.op(&format!("arith.cmpi eq, {thread}, {} : i64", self.zero));
        self.w.open(&format!("scf.if {first} {{"));
        let result = self.w.op(&format!("memref.load {shared}[{here}] : {memory}"));
        self.leave(stage, &result);
        self.w.close("}");
    }

    /// Name and type of workgroup memory with an element for each thread. Folds of a nest share it: they run one
    /// after the other and wait for one another at their ends.
    pub(super) fn fold_memory(&mut self, ty: Ty) -> (String, String) {
        let known = self.shared.iter().find(|(_, _, t)| *t == ty).map(|(name, ..)| name.clone());
        let shared = known.unwrap_or_else(|| {
            let name = format!("%shared{}", self.shared.len());
            self.shared.push((name.clone(), self.block, ty));
            name
        });
        (shared, format!("memref<{}x{}, #gpu.address_space<workgroup>>", self.block, ty.mlir()))
    }

    /// Folds elements that are `from`, half of that, …, down to `to` threads apart: each of the first `to` threads
    /// then has the fold of its own and all that are a multiple of `to` further on.
    pub(super) fn fold_shared(
        &mut self,
        fold: Fold,
        unsigned: bool,
        ty: Ty,
        (shared, memory, here): (&str, &str, &str),
        (from, to): (u32, u32),
    ) {
        let (thread, mut offset) = (self.thread.clone(), from);
        while offset >= to {
            let limit = self.w.int("i64", i64::from(offset));
            let active = self.w.op(&format!("arith.cmpi ult, {thread}, {limit} : i64"));
            self.w.open(&format!("scf.if {active} {{"));
            let other = self.w.op(&format!("arith.addi {thread}, {limit} : i64"));
            let other = self.w.op(&format!("arith.index_cast {other} : i64 to index"));
            let a = self.w.op(&format!("memref.load {shared}[{here}] : {memory}"));
            let b = self.w.op(&format!("memref.load {shared}[{other}] : {memory}"));
            let sum = self.combine(fold, unsigned, ty, &a, &b);
            self.w.line(&format!("memref.store {sum}, {shared}[{here}] : {memory}"));
            self.w.close("}");
            self.w.line("gpu.barrier");
            offset /= 2;
        }
    }
}
