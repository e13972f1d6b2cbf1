//! Schedules as functions for the host: loops of one thread that LLVM's loop vectoriser takes.

use crate::build::Loop;
use crate::dag::{BufferId, Dag, Expr, Id, Ty};
use crate::fold;
use crate::levels::{Levels, levels};
use crate::program::Fold;
use crate::schedule::{Copied, Nest, Schedule};
use crate::stage::{Goal, Stage, Work};
use crate::text::{Writer, bin_name, memory_type};
use djinn_ir::Dim;
use std::collections::BTreeSet;

/// The text of a function and the sizes that it takes after its buffers, in order.
pub(crate) struct Function {
    pub(crate) text: String,
    pub(crate) sizes: Vec<Dim>,
}

struct Host<'a> {
    dag: &'a mut Dag,
    w: Writer,
    zero: String,
    one: String,
}

/// Prints a schedule as a `func.func`.
pub(crate) fn print(schedule: &mut Schedule, name: &str) -> Function {
    let sizes = sizes(schedule);
    let mut w = Writer::default();
    w.indent = 1;
    let mut arguments = Vec::new();
    for (i, _) in schedule.storage.iter().enumerate() {
        let pointer = format!("%p{i}");
        arguments.push(format!("{pointer}: !llvm.ptr {{llvm.noalias}}"));
        w.pointers.insert(BufferId(i as u32), pointer);
    }
    for (i, dim) in sizes.iter().enumerate() {
        arguments.push(format!("%n{i}: i64"));
        w.sizes.insert(dim.clone(), format!("%n{i}"));
    }
    let (zero, one) = (w.int("i64", 0), w.int("i64", 1));
    let mut host = Host { dag: &mut schedule.dag, w, zero, one };
    host.constants(&schedule.nests);
    for nest in &schedule.nests {
        host.nest(nest);
    }
    for copied in &schedule.copies {
        host.copy(copied);
    }
    let body = host.w.text;
    let text = format!("func.func @{name}({}) {{\n{body}  return\n}}\n", arguments.join(", "));
    Function { text, sizes }
}

/// The sizes that are not constant, in order of first use.
pub(crate) fn sizes(schedule: &Schedule) -> Vec<Dim> {
    let mut out: Vec<Dim> = Vec::new();
    let mut note = |dim: &Dim| {
        if dim.as_const().is_none() && !out.contains(dim) {
            out.push(dim.clone());
        }
    };
    for nest in &schedule.nests {
        for stage in &nest.stages {
            stage.all_loops().iter().for_each(|l| note(&l.size));
            for id in levels(&schedule.dag, stage, 0).all {
                if let Expr::Size(dim) = schedule.dag.expr(id) {
                    note(dim);
                }
            }
        }
    }
    schedule.copies.iter().for_each(|c| note(&c.elements));
    out
}

impl Host<'_> {
    /// Literals of all nests, and those that folds begin with.
    fn constants(&mut self, nests: &[Nest]) {
        let mut all: BTreeSet<Id> = BTreeSet::new();
        for stage in nests.iter().flat_map(|n| &n.stages) {
            all.extend(levels(self.dag, stage, 0).all);
            if let Work::Reduce { fold, value, .. } | Work::Scan { fold, value, .. } = &stage.work {
                all.insert(stage.first(self.dag, *fold, *value));
            }
        }
        let dag = std::mem::take(self.dag);
        self.w.constants(&dag, &all);
        *self.dag = dag;
    }

    fn size(&mut self, dim: &Dim) -> String {
        match dim.as_const() {
            Some(1) => self.one.clone(),
            Some(c) => self.w.int("i64", c),
            None => self.w.sizes[dim].clone(),
        }
    }

    /// Opens a loop; the name of its variable.
    fn open(&mut self, l: &Loop, backward: bool) -> String {
        let size = self.size(&l.size);
        let var = self.w.fresh();
        let (zero, one) = (self.zero.clone(), self.one.clone());
        self.w.open(&format!("scf.for {var} = {zero} to {size} step {one} : i64 {{"));
        if !backward {
            return var;
        }
        let last = self.w.op(&format!("arith.subi {size}, {one} : i64"));
        self.w.op(&format!("arith.subi {last}, {var} : i64"))
    }

    fn nest(&mut self, nest: &Nest) {
        let Some(first) = nest.stages.first() else { return };
        let outer: Vec<String> =
            first.loops[..nest.outer].iter().map(|l| self.open(l, nest.backward)).collect();
        let names = self.w.names.clone();
        for stage in &nest.stages {
            self.stage(stage, nest.outer, &outer);
            self.w.names.clone_from(&names);
        }
        outer.iter().for_each(|_| self.w.close("}"));
    }

    /// Computes the expressions of a level.
    fn level(&mut self, levels: &Levels, at: usize) {
        for id in &levels.by_level[at] {
            self.w.expression(self.dag, *id);
        }
    }

    fn bind(&mut self, levels: &Levels, l: &Loop, name: &str) {
        if let Some(id) = levels.vars.get(&l.var) {
            self.w.names.insert(*id, name.to_owned());
        }
    }

    fn stage(&mut self, stage: &Stage, outer: usize, names: &[String]) {
        let levels = levels(self.dag, stage, outer);
        for (l, name) in stage.loops.iter().zip(names) {
            self.bind(&levels, l, name);
        }
        self.level(&levels, outer);
        for (i, l) in stage.loops.iter().enumerate().skip(outer) {
            let name = self.open(l, false);
            self.bind(&levels, l, &name);
            self.level(&levels, i + 1);
        }
        match &stage.work {
            Work::Store { value } => {
                let value = self.w.names[value].clone();
                self.leave(stage, &value);
            }
            Work::Reduce { fold, loops, value, position } => {
                let first = stage.first(self.dag, *fold, *value);
                let first = self.w.names[&first].clone();
                let result = if matches!(fold, Fold::ArgMax { .. } | Fold::ArgMin { .. }) {
                    self.arg_loops(stage, &levels, loops, (*fold, *value, *position), &first)
                } else {
                    self.fold_loops(stage, &levels, loops, (*fold, *value), &first)
                };
                self.leave(stage, &result);
            }
            Work::Scan { fold, exclusive, along, value } => {
                self.scan(stage, &levels, (*fold, *exclusive), along, *value);
            }
            Work::Move { buffer, from, to, elements } => self.moved(stage, *buffer, [*from, *to, *elements]),
        }
        (outer..stage.loops.len()).for_each(|_| self.w.close("}"));
    }

    /// Leaves a value where the stage wants it.
    fn leave(&mut self, stage: &Stage, value: &str) {
        match &stage.goal {
            Goal::Register => {
                self.w.registers.insert(stage.node.0, value.to_owned());
            }
            Goal::Memory { buffer, index, guard, .. } => {
                let index = self.w.names[index].clone();
                if let Some(guard) = guard {
                    let guard = self.w.names[guard].clone();
                    self.w.open(&format!("scf.if {guard} {{"));
                    self.w.store(*buffer, &index, stage.dtype, value);
                    self.w.close("}");
                } else {
                    self.w.store(*buffer, &index, stage.dtype, value);
                }
            }
        }
    }

    /// Opens a loop that carries values; the names of its variable and of what it carries.
    fn open_carrying(&mut self, l: &Loop, first: &[String], types: &[&str]) -> (String, String, Vec<String>) {
        let size = self.size(&l.size);
        let result = self.w.fresh();
        let var = self.w.fresh();
        let carried: Vec<String> = first.iter().map(|_| self.w.fresh()).collect();
        let pairs: Vec<String> = carried.iter().zip(first).map(|(c, f)| format!("{c} = {f}")).collect();
        let count = if first.len() > 1 { format!(":{}", first.len()) } else { String::new() };
        let (zero, one) = (self.zero.clone(), self.one.clone());
        self.w.open(&format!(
            "{result}{count} = scf.for {var} = {zero} to {size} step {one} iter_args({}) -> ({}) : i64 {{",
            pairs.join(", "),
            types.join(", ")
        ));
        (result, var, carried)
    }

    fn fold_loops(
        &mut self,
        stage: &Stage,
        levels: &Levels,
        loops: &[Loop],
        (fold, value): (Fold, Id),
        first: &str,
    ) -> String {
        let ty = self.dag.ty(value);
        let mut carried = first.to_owned();
        let mut results = Vec::new();
        for (i, l) in loops.iter().enumerate() {
            let (result, var, next) = self.open_carrying(l, &[carried], &[ty.mlir()]);
            results.push(result);
            carried = next[0].clone();
            self.bind(levels, l, &var);
            self.level(levels, stage.loops.len() + i + 1);
        }
        let value = self.w.names[&value].clone();
        let mut total = self.combine(fold, stage.unsigned, ty, &carried, &value);
        for result in results.into_iter().rev() {
            self.w.line(&format!("scf.yield {total} : {}", ty.mlir()));
            self.w.close("}");
            total = result;
        }
        total
    }

    /// Folds two named values; sums may be taken in any order, several lanes at once.
    fn combine(&mut self, fold: Fold, unsigned: bool, ty: Ty, a: &str, b: &str) -> String {
        let op = fold::operation(fold, unsigned, ty);
        let free = ty.is_float() && matches!(fold, Fold::Sum | Fold::Product);
        let flags = if free { " fastmath<reassoc, contract>" } else { "" };
        self.w.op(&format!("{} {a}, {b}{flags} : {}", bin_name(op), ty.mlir()))
    }

    fn arg_loops(
        &mut self,
        stage: &Stage,
        levels: &Levels,
        loops: &[Loop],
        (fold, value, position): (Fold, Id, Id),
        first: &str,
    ) -> String {
        let ty = self.dag.ty(value);
        let mut carried = vec![first.to_owned(), self.zero.clone()];
        let mut results = Vec::new();
        for (i, l) in loops.iter().enumerate() {
            let (result, var, next) = self.open_carrying(l, &carried, &[ty.mlir(), "i64"]);
            results.push(result);
            carried = next;
            self.bind(levels, l, &var);
            self.level(levels, stage.loops.len() + i + 1);
        }
        let (value, position) = (self.w.names[&value].clone(), self.w.names[&position].clone());
        let better = self.w.beats(fold, stage.unsigned, ty, &value, &carried[0]);
        let best = self.w.op(&format!("arith.select {better}, {value}, {} : {}", carried[0], ty.mlir()));
        let at = self.w.op(&format!("arith.select {better}, {position}, {} : i64", carried[1]));
        let mut now = [best, at];
        for result in results.into_iter().rev() {
            self.w.line(&format!("scf.yield {}, {} : {}, i64", now[0], now[1], ty.mlir()));
            self.w.close("}");
            now = [format!("{result}#0"), format!("{result}#1")];
        }
        let [_, at] = now;
        at
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
        let (_, var, carried) = self.open_carrying(along, &[first], &[ty.mlir()]);
        self.bind(levels, along, &var);
        self.level(levels, stage.loops.len() + 1);
        let value = self.w.names[&value].clone();
        let op = fold::operation(fold, stage.unsigned, ty);
        let next = self.w.op(&format!("{} {}, {value} : {}", bin_name(op), carried[0], ty.mlir()));
        let kept = if exclusive { carried[0].clone() } else { next.clone() };
        self.leave(stage, &kept);
        self.w.line(&format!("scf.yield {next} : {}", ty.mlir()));
        self.w.close("}");
    }

    fn moved(&mut self, stage: &Stage, buffer: BufferId, [from, to, elements]: [Id; 3]) {
        let ty = memory_type(stage.dtype);
        let pointer = self.w.pointers[&buffer].clone();
        let [from, to, elements] = [from, to, elements].map(|id| self.w.names[&id].clone());
        let from = self.w.address(&pointer, &from, ty);
        let to = self.w.address(&pointer, &to, ty);
        self.bytes(&to, &from, &elements, stage.dtype.size());
    }

    fn bytes(&mut self, to: &str, from: &str, elements: &str, size: usize) {
        let size = self.w.int("i64", size as i64);
        let bytes = self.w.op(&format!("arith.muli {elements}, {size} : i64"));
        self.w.line(&format!(
            "\"llvm.intr.memmove\"({to}, {from}, {bytes}) <{{isVolatile = false}}> : (!llvm.ptr, !llvm.ptr, i64) -> ()"
        ));
    }

    fn copy(&mut self, copied: &Copied) {
        let elements = self.size(&copied.elements);
        let (from, to) = (self.w.pointers[&copied.from].clone(), self.w.pointers[&copied.to].clone());
        self.bytes(&to, &from, &elements, copied.dtype.size());
    }
}
