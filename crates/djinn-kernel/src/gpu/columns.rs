//! Folds along axes whose neighbours are far apart in memory, such as sums of columns and products of a row and a
//! matrix: neighbouring threads take neighbouring results, so that they read neighbouring elements, and the other
//! threads of a block take other parts of the same folds.

use super::{Gpu, per_thread, product};
use crate::affine::{Affine, AtomId};
use crate::dag::Id;
use crate::levels::{Levels, levels};
use crate::program::Fold;
use crate::schedule::Nest;
use crate::stage::{Stage, Work};
use djinn_ir::Dim;

/// Neighbouring results of a block: the threads of a warp.
const WIDTH: u32 = 32;

/// Is this a nest of folds over large ranges, and of what follows at the same points, whose first fold reads
/// neighbours for neighbouring results and not for neighbouring positions?
pub(super) fn is_columns(nest: &Nest) -> bool {
    let folds = |s: &Stage| matches!(s.work, Work::Reduce { .. }) && !per_thread(s);
    let whole = |s: &Stage| s.loops.len() == nest.outer && (folds(s) || per_thread(s));
    let Some(first) = nest.stages.iter().find(|s| folds(s)) else { return false };
    if nest.serial > 0 || !nest.stages.iter().all(whole) {
        return false;
    }
    let Work::Reduce { loops: folded, .. } = &first.work else { return false };
    let (Some(point), Some(position)) = (first.loops.last(), folded.last()) else { return false };
    // What all points read alike does not matter.
    let needs = |form: &Affine, var: AtomId| form.terms.iter().find(|t| t.0 == var).map(|t| t.1.is(1));
    let own: Vec<&Affine> =
        first.loads.iter().map(|l| &l.1).filter(|form| needs(form, point.var).is_some()).collect();
    let neighbours = |var: AtomId| own.iter().any(|form| needs(form, var) == Some(true));
    neighbours(point.var) && !neighbours(position.var)
}

impl Gpu<'_> {
    /// Every block takes neighbouring points in steps of the grid; how many blocks have work.
    pub(super) fn columns(&mut self, nest: &Nest) -> Dim {
        let Some(first) = nest.stages.first() else { return Dim::ONE };
        let loops = first.loops.clone();
        let width = WIDTH.min(self.block);
        let parts = self.block / width;
        let (one, thread) = (self.one.clone(), self.thread.clone());
        let across = self.w.int("i64", i64::from(width));
        let lane = self.w.op(&format!("arith.remui {thread}, {across} : i64"));
        let part = self.w.op(&format!("arith.divui {thread}, {across} : i64"));
        let total = self.count(&loops);
        let begin = self.w.op(&format!("arith.muli {}, {across} : i64", self.block_number));
        let step = self.w.op(&format!("arith.muli {}, {across} : i64", self.blocks));
        let from = self.open(&begin, &total, &step);
        let point = self.w.op(&format!("arith.addi {from}, {lane} : i64"));
        let inside = self.w.op(&format!("arith.cmpi ult, {point}, {total} : i64"));
        // Threads without a point compute the last one, and leave nothing.
        let last = self.w.op(&format!("arith.subi {total}, {one} : i64"));
        let point = self.w.op(&format!("arith.minui {point}, {last} : i64"));
        let begins = self.w.op(&format!("arith.cmpi eq, {part}, {} : i64", self.zero));
        let leaves = self.w.op(&format!("arith.andi {inside}, {begins} : i1"));
        let at = self.apart(&point, &loops);
        let names = self.w.names.clone();
        for stage in &nest.stages {
            let levels = levels(self.dag, stage, 0);
            self.bind(&levels, &stage.loops, &at);
            match &stage.work {
                Work::Reduce { fold, value, position, .. } if !per_thread(stage) => {
                    self.compute(&levels, 0..=stage.loops.len());
                    let work = (*fold, *value, *position);
                    self.part_folds(stage, &levels, work, (width, parts), (&part, &leaves));
                }
                _ => {
                    self.w.open(&format!("scf.if {leaves} {{"));
                    self.point(stage, &levels);
                    self.w.close("}");
                }
            }
            self.w.line("gpu.barrier");
            self.w.names.clone_from(&names);
        }
        self.w.close("}");
        product(&loops).ceil_div(&Dim::from(i64::from(width)))
    }

    /// Folds a part of the range for the thread's point, then the parts of all threads of that point.
    fn part_folds(
        &mut self,
        stage: &Stage,
        levels: &Levels,
        work: (Fold, Id, Id),
        (width, parts): (u32, u32),
        (part, leaves): (&str, &str),
    ) {
        let Work::Reduce { loops, .. } = &stage.work else { return };
        let ty = self.dag.ty(work.1);
        let total = self.count(loops);
        let step = self.w.int("i64", i64::from(parts));
        let own = self.fold_range(stage, levels, loops, work, [part, &total, &step]);
        let (shared, memory) = self.fold_memory(ty);
        let thread = self.thread.clone();
        let here = self.w.op(&format!("arith.index_cast {thread} : i64 to index"));
        self.w.line(&format!("memref.store {own}, {shared}[{here}] : {memory}"));
        self.w.line("gpu.barrier");
        self.fold_shared(work.0, stage.unsigned, ty, (&shared, &memory, &here), (self.block / 2, width));
        self.w.open(&format!("scf.if {leaves} {{"));
        let result = self.w.op(&format!("memref.load {shared}[{here}] : {memory}"));
        self.leave(stage, &result);
        self.w.close("}");
    }
}
