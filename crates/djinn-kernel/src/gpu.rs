//! Schedules as kernels for a GPU: a launch per nest.
//!
//! A nest of one pointwise stage gives every thread elements in steps of the grid, so that neighbouring threads read
//! neighbouring elements. Other nests give every block rows: the threads of a block share the points of each stage,
//! fold rows together through workgroup memory, and wait for one another between stages; the steps of a recurrence
//! run in order inside a block. Sums of products are computed in tiles, and
//! folds over far elements by neighbouring threads for neighbouring results. All temporaries are in global memory, where a
//! block finds what it has just written in the cache. Results that are operands or other results are copied last.

mod columns;
mod rows;
mod tiles;

use crate::affine::Affine;
use crate::build::Loop;
use crate::dag::{BufferId, Dag, Id, Ty};
use crate::fold;
use crate::host::sizes;
use crate::levels::{Levels, levels};
use crate::program::Fold;
use crate::schedule::{Copied, Nest, Schedule};
use crate::sides::sides;
use crate::stage::{Goal, Stage, Work};
use crate::text::{Writer, bin_name, memory_type};
use djinn_diag::Result;
use djinn_ir::Dim;
use std::collections::BTreeSet;

/// Folds over at most this many elements are left to one thread each.
const SMALL_FOLD: i64 = 64;

/// One function and over how much it runs.
pub(crate) struct Launched {
    pub(crate) function: String,
    pub(crate) grid: Dim,
    /// Bytes, at most.
    pub(crate) written: Dim,
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
    arguments: String,
    zero: String,
    one: String,
    thread: String,
    threads: String,
    block_number: String,
    blocks: String,
    /// Workgroup memory: name, elements, type.
    shared: Vec<(String, u32, Ty)>,
    /// Threads of a block, a power of two.
    block: u32,
    /// Positions that a sum of products reads.
    loads: Vec<(BufferId, Affine)>,
}

/// Prints a schedule as `gpu.func`s.
pub(crate) fn print(schedule: &mut Schedule, name: &str, block: u32) -> Result<Functions> {
    let sizes = sizes(schedule);
    let mut out = Functions { text: String::new(), launches: Vec::new(), sizes };
    let mut dag = std::mem::take(&mut schedule.dag);
    let single = schedule.nests.len() + schedule.copies.len() == 1;
    let named = |i: usize| if single { name.to_owned() } else { format!("{name}_{i}") };
    for (i, nest) in schedule.nests.iter().enumerate() {
        let function = named(i);
        let (text, grid) =
            nest_function(&mut dag, nest, &function, (schedule.storage.len(), &out.sizes, block))?;
        out.text.push_str(&text);
        out.launches.push(Launched { function, grid, written: written(nest) });
    }
    for (i, copied) in schedule.copies.iter().enumerate() {
        let function = named(schedule.nests.len() + i);
        let unshared = vec![true; schedule.storage.len()];
        let mut gpu = Gpu::new(&mut dag, (&unshared, &out.sizes, block));
        let grid = gpu.copy(copied);
        out.text.push_str(&gpu.function(&function));
        let written = &copied.elements * &Dim::from(copied.dtype.size());
        out.launches.push(Launched { function, grid: grid.max_of(&Dim::ONE), written });
    }
    schedule.dag = dag;
    Ok(out)
}

/// Which buffers no thread reads after another thread of the launch may have written them.
fn unshared(nest: &Nest, buffers: usize) -> Vec<bool> {
    let writes = |s: &Stage, buffer: usize| matches!(&s.goal, Goal::Memory { buffer: b, .. } if b.0 as usize == buffer);
    let reads = |s: &Stage, buffer: usize| s.loads.iter().any(|(b, _)| b.0 as usize == buffer);
    let both = |b: usize| nest.stages.iter().any(|s| writes(s, b)) && nest.stages.iter().any(|s| reads(s, b));
    (0..buffers).map(|b| !both(b)).collect()
}

fn product(loops: &[Loop]) -> Dim {
    loops.iter().fold(Dim::ONE, |n, l| &n * &l.size)
}

/// Bytes that the stages of a nest write.
fn written(nest: &Nest) -> Dim {
    let of = |stage: &Stage| match (&stage.goal, &stage.work) {
        (Goal::Register, _) => Dim::ZERO,
        (Goal::Memory { .. }, Work::Scan { along, .. }) => &product(&stage.loops) * &along.size,
        (Goal::Memory { .. }, _) => product(&stage.loops),
    };
    nest.stages.iter().fold(Dim::ZERO, |n, s| &n + &(&of(s) * &Dim::from(s.dtype.size())))
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
    let unshared = unshared(nest, buffers);
    let mut gpu = Gpu::new(dag, (&unshared, sizes, size));
    gpu.constants(nest);
    let whole = nest.stages.iter().all(|s| s.loops.len() == nest.outer);
    let flat = nest.serial == 0 && nest.stages.iter().all(per_thread) && (nest.stages.len() == 1 || whole);
    let sides = nest.stages.first().filter(|_| nest.tiled && whole).and_then(|s| sides(gpu.dag, s));
    let grid = match sides {
        Some(sides) => {
            gpu.loads = nest.stages[0].loads.clone();
            gpu.tiles(nest, &sides)
        }
        None if flat => gpu.flat(nest),
        None if columns::is_columns(nest) => gpu.columns(nest),
        None => gpu.rows(nest)?,
    };
    Ok((gpu.function(name), grid.max_of(&Dim::ONE)))
}

impl<'a> Gpu<'a> {
    /// Begins a function: its arguments, and what every thread asks for first.
    fn new(dag: &'a mut Dag, (unshared, sizes, size): (&[bool], &[Dim], u32)) -> Gpu<'a> {
        let mut w = Writer::default();
        w.indent = 1;
        let mut arguments = Vec::new();
        for (i, unshared) in unshared.iter().enumerate() {
            let attribute = if *unshared { " {llvm.noalias}" } else { "" };
            arguments.push(format!("%p{i}: !llvm.ptr{attribute}"));
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
        let (block_number, blocks) = (index(&mut w, "block_id"), index(&mut w, "grid_dim"));
        let threads = w.int("i64", i64::from(size));
        let arguments = arguments.join(", ");
        let shared = Vec::new();
        Gpu {
            dag,
            w,
            arguments,
            zero,
            one,
            thread,
            threads,
            block_number,
            blocks,
            shared,
            block: size,
            loads: Vec::new(),
        }
    }

    /// The text of the function.
    fn function(self, name: &str) -> String {
        let memory = |(name, elements, ty): &(String, u32, Ty)| {
            format!("{name}: memref<{elements}x{}, #gpu.address_space<workgroup>>", ty.mlir())
        };
        let shared: Vec<String> = self.shared.iter().map(memory).collect();
        let workgroup = match shared.is_empty() {
            true => String::new(),
            false => format!(" workgroup({})", shared.join(", ")),
        };
        let head = format!("gpu.func @{name}({}){workgroup} kernel {{\n", self.arguments);
        format!("{head}{}  gpu.return\n}}\n", self.w.text)
    }
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

    /// Opens the loop in which every thread takes positions in steps of the grid.
    fn open_points(&mut self, total: &str) -> String {
        let begin = self.w.op(&format!("arith.muli {}, {} : i64", self.block_number, self.threads));
        let begin = self.w.op(&format!("arith.addi {begin}, {} : i64", self.thread));
        let step = self.w.op(&format!("arith.muli {}, {} : i64", self.blocks, self.threads));
        self.open(&begin, total, &step)
    }

    /// Every thread copies elements in steps of the grid.
    fn copy(&mut self, copied: &Copied) -> Dim {
        let total = self.size(&copied.elements);
        let point = self.open_points(&total);
        let ty = memory_type(copied.dtype);
        let [from, to] = [copied.from, copied.to].map(|b| self.w.pointers[&b].clone());
        let from = self.w.address(&from, &point, ty);
        let value = self.w.op(&format!("llvm.load {from} : !llvm.ptr -> {ty}"));
        let to = self.w.address(&to, &point, ty);
        self.w.line(&format!("llvm.store {value}, {to} : {ty}, !llvm.ptr"));
        self.w.close("}");
        copied.elements.ceil_div(&Dim::from(i64::from(self.block)))
    }

    /// Every thread takes points in steps of the grid.
    fn flat(&mut self, nest: &Nest) -> Dim {
        let Some(first) = nest.stages.first() else { return Dim::ONE };
        let loops = first.loops.clone();
        let total = self.count(&loops);
        let point = self.open_points(&total);
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
}
