//! Schedules as kernels for a GPU: a launch per nest.
//!
//! A nest of one pointwise stage gives every thread elements in steps of the grid, so that neighbouring threads read
//! neighbouring elements. Other nests give every block rows: the threads of a block share the points of each stage,
//! fold rows together through workgroup memory, and wait for one another between stages. All temporaries are in
//! global memory, where a block finds what it has just written in the cache.

use crate::build::Loop;
use crate::dag::{BufferId, Dag, Id, Ty};
use crate::fold;
use crate::host::sizes;
use crate::levels::{Levels, levels};
use crate::program::Fold;
use crate::schedule::{Nest, Schedule};
use crate::stage::{Goal, Stage, Work};
use crate::text::{Writer, bin_name};
use djinn_diag::{Result, unsupported};
use djinn_ir::Dim;
use std::collections::BTreeSet;

/// Folds over at most this many elements are left to one thread each.
const SMALL_FOLD: i64 = 64;

/// One function and over how much it runs.
pub(crate) struct Launched {
    pub(crate) function: String,
    pub(crate) grid: Dim,
}

/// The text of all functions, their launches, and the sizes that they take after the buffers.
pub(crate) struct Functions {
    pub(crate) text: String,
    pub(crate) launches: Vec<Launched>,
    pub(crate) sizes: Vec<Dim>,
}

struct Gpu<'a> {
    dag: &'a mut Dag,
    w: Writer,
    zero: String,
    one: String,
    thread: String,
    threads: String,
    shared: Option<Ty>,
    /// Threads of a block, a power of two.
    block: u32,
}

/// Prints a schedule as `gpu.func`s.
pub(crate) fn print(schedule: &mut Schedule, name: &str, block: u32) -> Result<Functions> {
    let sizes = sizes(schedule);
    let mut out = Functions { text: String::new(), launches: Vec::new(), sizes };
    if !schedule.copies.is_empty() {
        return Err(unsupported("kernel.gpu", "a result that is an operand or another result"));
    }
    let mut dag = std::mem::take(&mut schedule.dag);
    for (i, nest) in schedule.nests.iter().enumerate() {
        let function = if schedule.nests.len() == 1 { name.to_owned() } else { format!("{name}_{i}") };
        let (text, grid) =
            nest_function(&mut dag, nest, &function, (schedule.storage.len(), &out.sizes, block))?;
        out.text.push_str(&text);
        out.launches.push(Launched { function, grid });
    }
    schedule.dag = dag;
    Ok(out)
}

fn product(loops: &[Loop]) -> Dim {
    loops.iter().fold(Dim::ONE, |n, l| &n * &l.size)
}

/// Does one thread compute each point of this stage?
fn per_thread(stage: &Stage) -> bool {
    match &stage.work {
        Work::Store { .. } => stage.ordered == 0,
        Work::Scan { .. } => true,
        Work::Reduce { fold, loops, .. } => {
            matches!(fold, Fold::ArgMax { .. } | Fold::ArgMin { .. })
                || product(loops).as_const().is_some_and(|n| n <= SMALL_FOLD)
        }
        Work::Move { .. } => false,
    }
}

fn nest_function(
    dag: &mut Dag,
    nest: &Nest,
    name: &str,
    (buffers, sizes, size): (usize, &[Dim], u32),
) -> Result<(String, Dim)> {
    let mut w = Writer::default();
    w.indent = 1;
    let mut arguments = Vec::new();
    for i in 0..buffers {
        arguments.push(format!("%p{i}: !llvm.ptr {{llvm.noalias}}"));
        w.pointers.insert(BufferId(i as u32), format!("%p{i}"));
    }
    for (i, dim) in sizes.iter().enumerate() {
        arguments.push(format!("%n{i}: i64"));
        w.sizes.insert(dim.clone(), format!("%n{i}"));
    }
    let (zero, one) = (w.int("i64", 0), w.int("i64", 1));
    let index = |w: &mut Writer, what: &str| {
        let raw = w.op(&format!("gpu.{what} x"));
        w.op(&format!("arith.index_cast {raw} : index to i64"))
    };
    let thread = index(&mut w, "thread_id");
    let (block, blocks) = (index(&mut w, "block_id"), index(&mut w, "grid_dim"));
    let threads = w.int("i64", i64::from(size));
    let mut gpu = Gpu { dag, w, zero, one, thread, threads, shared: None, block: size };
    gpu.constants(nest);
    let whole = nest.stages.iter().all(|s| s.loops.len() == nest.outer);
    let flat = nest.stages.iter().all(per_thread) && (nest.stages.len() == 1 || whole);
    let grid = if flat { gpu.flat(nest, &block, &blocks) } else { gpu.rows(nest, &block, &blocks)? };
    let workgroup = match gpu.shared {
        Some(ty) => {
            format!(" workgroup(%shared: memref<{size}x{}, #gpu.address_space<workgroup>>)", ty.mlir())
        }
        None => String::new(),
    };
    let body = gpu.w.text;
    let head = format!("gpu.func @{name}({}){workgroup} kernel {{\n", arguments.join(", "));
    Ok((format!("{head}{body}  gpu.return\n}}\n"), grid.max_of(&Dim::ONE)))
}

impl Gpu<'_> {
    fn constants(&mut self, nest: &Nest) {
        let mut all: BTreeSet<Id> = BTreeSet::new();
        for stage in &nest.stages {
            all.extend(levels(self.dag, stage, 0).all);
            if let Work::Reduce { fold, value, .. } | Work::Scan { fold, value, .. } = &stage.work {
                all.insert(stage.first(self.dag, *fold, *value));
            }
        }
        self.w.constants(self.dag, &all);
    }

    fn size(&mut self, dim: &Dim) -> String {
        match dim.as_const() {
            Some(c) => self.w.int("i64", c),
            None => self.w.sizes[dim].clone(),
        }
    }

    /// The product of the sizes of loops.
    fn count(&mut self, loops: &[Loop]) -> String {
        let mut total = self.one.clone();
        for l in loops {
            let size = self.size(&l.size);
            total = self.w.op(&format!("arith.muli {total}, {size} : i64"));
        }
        total
    }

    /// Opens a loop; the name of its variable.
    fn open(&mut self, from: &str, to: &str, step: &str) -> String {
        let var = self.w.fresh();
        self.w.open(&format!("scf.for {var} = {from} to {to} step {step} : i64 {{"));
        var
    }

    /// Takes a linear position apart.
    fn apart(&mut self, position: &str, loops: &[Loop]) -> Vec<String> {
        let mut out = vec![String::new(); loops.len()];
        let mut rest = position.to_owned();
        for (i, l) in loops.iter().enumerate().rev() {
            if i == 0 {
                out[0] = rest;
                break;
            }
            let size = self.size(&l.size);
            out[i] = self.w.op(&format!("arith.remui {rest}, {size} : i64"));
            rest = self.w.op(&format!("arith.divui {rest}, {size} : i64"));
        }
        out
    }

    fn bind(&mut self, levels: &Levels, loops: &[Loop], names: &[String]) {
        for (l, name) in loops.iter().zip(names) {
            if let Some(id) = levels.vars.get(&l.var) {
                self.w.names.insert(*id, name.clone());
            }
        }
    }

    fn compute(&mut self, levels: &Levels, range: std::ops::RangeInclusive<usize>) {
        for id in range.flat_map(|at| &levels.by_level[at]) {
            self.w.expression(self.dag, *id);
        }
    }

    /// Every thread takes points in steps of the grid.
    fn flat(&mut self, nest: &Nest, block: &str, blocks: &str) -> Dim {
        let Some(first) = nest.stages.first() else { return Dim::ONE };
        let loops = first.loops.clone();
        let total = self.count(&loops);
        let begin = self.w.op(&format!("arith.muli {block}, {} : i64", self.threads));
        let begin = self.w.op(&format!("arith.addi {begin}, {} : i64", self.thread));
        let step = self.w.op(&format!("arith.muli {blocks}, {} : i64", self.threads));
        let point = self.open(&begin, &total, &step);
        let at = self.apart(&point, &loops);
        let names = self.w.names.clone();
        for stage in &nest.stages {
            let levels = levels(self.dag, stage, 0);
            self.bind(&levels, &stage.loops, &at);
            self.point(stage, &levels);
            self.w.names.clone_from(&names);
        }
        self.w.close("}");
        product(&loops).ceil_div(&Dim::from(i64::from(self.block)))
    }

    /// What one thread does at a point whose variables are bound.
    fn point(&mut self, stage: &Stage, levels: &Levels) {
        let depth = stage.loops.len();
        self.compute(levels, 0..=depth);
        match &stage.work {
            Work::Store { value } => {
                let value = self.w.names[value].clone();
                self.leave(stage, &value);
            }
            Work::Reduce { fold, loops, value, position } => {
                let total = self.count(loops);
                let (zero, one) = (self.zero.clone(), self.one.clone());
                let work = (*fold, *value, *position);
                let result = self.fold_range(stage, levels, loops, work, [&zero, &total, &one]);
                self.leave(stage, &result);
            }
            Work::Scan { fold, exclusive, along, value } => {
                self.scan(stage, levels, (*fold, *exclusive), along, *value)
            }
            Work::Move { .. } => {}
        }
    }

    fn leave(&mut self, stage: &Stage, value: &str) {
        let Goal::Memory { buffer, index, guard, .. } = &stage.goal else { return };
        let index = self.w.names[index].clone();
        if let Some(guard) = guard {
            let guard = self.w.names[guard].clone();
            self.w.open(&format!("scf.if {guard} {{"));
        }
        self.w.store(*buffer, &index, stage.dtype, value);
        if guard.is_some() {
            self.w.close("}");
        }
    }

    /// Folds the points of a range of linear positions.
    fn fold_range(
        &mut self,
        stage: &Stage,
        levels: &Levels,
        loops: &[Loop],
        (fold, value, position): (Fold, Id, Id),
        [from, to, step]: [&str; 3],
    ) -> String {
        let ty = self.dag.ty(value);
        let arg = matches!(fold, Fold::ArgMax { .. } | Fold::ArgMin { .. });
        let first = stage.first(self.dag, fold, value);
        let first = self.w.names[&first].clone();
        let (result, var, carried, at) = (self.w.fresh(), self.w.fresh(), self.w.fresh(), self.w.fresh());
        let zero = self.zero.clone();
        let head = format!("scf.for {var} = {from} to {to} step {step} iter_args");
        if arg {
            let types = format!("({}, i64)", ty.mlir());
            self.w.open(&format!(
                "{result}:2 = {head}({carried} = {first}, {at} = {zero}) -> {types} : i64 {{"
            ));
        } else {
            self.w.open(&format!("{result} = {head}({carried} = {first}) -> ({}) : i64 {{", ty.mlir()));
        }
        let saved = self.w.names.clone();
        let names = self.apart(&var, loops);
        self.bind(levels, loops, &names);
        let depth = stage.loops.len();
        self.compute(levels, depth + 1..=depth + loops.len());
        let value = self.w.names[&value].clone();
        if arg {
            let position = self.w.names[&position].clone();
            let better = self.w.beats(fold, stage.unsigned, ty, &value, &carried);
            let best = self.w.op(&format!("arith.select {better}, {value}, {carried} : {}", ty.mlir()));
            let now = self.w.op(&format!("arith.select {better}, {position}, {at} : i64"));
            self.w.line(&format!("scf.yield {best}, {now} : {}, i64", ty.mlir()));
        } else {
            let total = self.combine(fold, stage.unsigned, ty, &carried, &value);
            self.w.line(&format!("scf.yield {total} : {}", ty.mlir()));
        }
        self.w.names = saved;
        self.w.close("}");
        if arg { format!("{result}#1") } else { result }
    }

    fn combine(&mut self, fold: Fold, unsigned: bool, ty: Ty, a: &str, b: &str) -> String {
        let op = fold::operation(fold, unsigned, ty);
        self.w.op(&format!("{} {a}, {b} : {}", bin_name(op), ty.mlir()))
    }

    fn scan(
        &mut self,
        stage: &Stage,
        levels: &Levels,
        (fold, exclusive): (Fold, bool),
        along: &Loop,
        value: Id,
    ) {
        let ty = self.dag.ty(value);
        let first = stage.first(self.dag, fold, value);
        let first = self.w.names[&first].clone();
        let size = self.size(&along.size);
        let (result, var, carried) = (self.w.fresh(), self.w.fresh(), self.w.fresh());
        let (zero, one) = (self.zero.clone(), self.one.clone());
        self.w.open(&format!(
            "{result} = scf.for {var} = {zero} to {size} step {one} iter_args({carried} = {first}) -> ({}) : i64 {{",
            ty.mlir()
        ));
        self.bind(levels, std::slice::from_ref(along), &[var]);
        let depth = stage.loops.len() + 1;
        self.compute(levels, depth..=depth);
        let value = self.w.names[&value].clone();
        let next = self.combine(fold, stage.unsigned, ty, &carried, &value);
        let kept = if exclusive { carried } else { next.clone() };
        self.leave(stage, &kept);
        self.w.line(&format!("scf.yield {next} : {}", ty.mlir()));
        self.w.close("}");
    }

    /// Every block takes rows in steps of the grid.
    fn rows(&mut self, nest: &Nest, block: &str, blocks: &str) -> Result<Dim> {
        let Some(first) = nest.stages.first() else { return Ok(Dim::ONE) };
        let outer = first.loops[..nest.outer].to_vec();
        let total = self.count(&outer);
        let row = self.open(block, &total, blocks);
        let at = self.apart(&row, &outer);
        let names = self.w.names.clone();
        for stage in &nest.stages {
            let levels = levels(self.dag, stage, 0);
            self.bind(&levels, &stage.loops[..nest.outer], &at);
            self.row_stage(stage, &levels, nest.outer)?;
            self.w.line("gpu.barrier");
            self.w.names.clone_from(&names);
        }
        self.w.close("}");
        Ok(product(&outer))
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
        self.shared = Some(ty);
        let memory = format!("memref<{}x{}, #gpu.address_space<workgroup>>", self.block, ty.mlir());
        let here = self.w.op(&format!("arith.index_cast {thread} : i64 to index"));
        self.w.line(&format!("memref.store {part}, %shared[{here}] : {memory}"));
        self.w.line("gpu.barrier");
        let mut offset = self.block / 2;
        while offset > 0 {
            let limit = self.w.int("i64", i64::from(offset));
            let active = self.w.op(&format!("arith.cmpi ult, {thread}, {limit} : i64"));
            self.w.open(&format!("scf.if {active} {{"));
            let other = self.w.op(&format!("arith.addi {thread}, {limit} : i64"));
            let other = self.w.op(&format!("arith.index_cast {other} : i64 to index"));
            let a = self.w.op(&format!("memref.load %shared[{here}] : {memory}"));
            let b = self.w.op(&format!("memref.load %shared[{other}] : {memory}"));
            let sum = self.combine(fold, stage.unsigned, ty, &a, &b);
            self.w.line(&format!("memref.store {sum}, %shared[{here}] : {memory}"));
            self.w.close("}");
            self.w.line("gpu.barrier");
            offset /= 2;
        }
        let first = self.w.op(&format!("arith.cmpi eq, {thread}, {} : i64", self.zero));
        self.w.open(&format!("scf.if {first} {{"));
        let result = self.w.op(&format!("memref.load %shared[{here}] : {memory}"));
        self.leave(stage, &result);
        self.w.close("}");
    }
}
