//! Kernels as steps: compiled code, library calls, and operations that are evaluated.
//!
//! A value between two steps of a kernel is scratch memory of the run. A value that the kernel leaves is written where it
//! belongs at once, unless bytes that the kernel still reads stand there: then it is made in scratch memory and moved when
//! everything has been read, which is what [`djinn_plan::Kernel::writes`] asks for.

use crate::code::{EntryCode, KernelCode};
use crate::jit::{Fused, HostCode, KernelReport};
use djinn_blas::Operation;
use djinn_ir::{Graph, Module, Op, OpId, OpKind, TensorType, ValueId};
use djinn_kernel::Group;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// How the steps of kernels become code of some machine.
pub(crate) trait Lowering {
    /// Code before it is compiled.
    type Lowered;
    /// Code of several operations.
    type Fused;
    /// What is kept of a library call from run to run.
    type Library: Default;

    /// Lowers a group; `None` if that is not supported. For `aliases` see [`djinn_kernel::lower_host`].
    fn lower(&mut self, group: &Group, aliases: &[(usize, usize)]) -> Option<Self::Lowered>;

    /// Does a library have this operation?
    fn has_library(&self, op: &Op) -> bool;

    /// The code of a lowered group, if there is any; `local` gives the number of a value.
    fn code(
        &self,
        lowered: &Self::Lowered,
        ops: Vec<OpId>,
        local: &dyn Fn(ValueId) -> Option<usize>,
    ) -> Option<Self::Fused>;
}

/// A kernel as steps.
pub(crate) struct Compiled<F = Fused, L = LaidOut> {
    pub(crate) steps: Vec<StepCode<F, L>>,
    /// First the reads of the kernel in their order, then what its steps make.
    pub(crate) locals: Vec<Local>,
    /// Writes of the kernel that are made elsewhere and moved: number of the local and of the write.
    pub(crate) moved: Vec<(usize, usize)>,
}

/// A value that a kernel reads or makes.
pub(crate) struct Local {
    pub(crate) ty: TensorType,
    /// Its shape, if no symbol is in it.
    pub(crate) fixed: Option<Vec<usize>>,
    pub(crate) home: Home,
}

/// Where a value stands while its kernel runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// In the place of the read of this number.
    Read(usize),
    /// In the place of the write of this number.
    Write(usize),
    /// In scratch memory.
    Scratch,
}

/// What a step does. Operations are numbers among those of the kernel, values are numbers of locals.
pub(crate) struct StepCode<F = Fused, L = LaidOut> {
    pub(crate) work: StepWork<F, L>,
    pub(crate) operands: Vec<usize>,
    pub(crate) results: Vec<usize>,
}

/// The work of a step.
pub(crate) enum StepWork<F = Fused, L = LaidOut> {
    /// A call of the library.
    Library { op: usize, laid_out: L },
    /// An operation that is evaluated.
    Evaluate { op: usize },
    /// Compiled code for several operations.
    Fused(F),
}

/// The shapes that a library operation was laid out for, and the outcome.
type Layout = (Vec<Vec<usize>>, Option<i64>, Option<Arc<Operation>>);

/// The last layout of a library operation: sizes seldom change from run to run.
#[derive(Default)]
pub(crate) struct LaidOut(Mutex<Option<Layout>>);

impl LaidOut {
    /// The operation for these shapes and this value of its size attribute; `None`: the library does not have it.
    pub(crate) fn get(
        &self,
        shapes: Vec<Vec<usize>>,
        size: Option<i64>,
        make: impl FnOnce(&[Vec<usize>]) -> Option<Operation>,
    ) -> Option<Arc<Operation>> {
        let mut kept = crate::events::lock(&self.0);
        match &*kept {
            Some((of, with, made)) if *of == shapes && *with == size => made.clone(),
            _ => {
                let made = make(&shapes).map(Arc::new);
                *kept = Some((shapes, size, made.clone()));
                made
            }
        }
    }
}

/// Makes steps of the kernels of all entries but those that are `skipped`, and compiles what can be. Under `poison`, nothing is written over what is
/// read, so that what is read can be poisoned first.
pub(crate) fn compile_kernels(
    program: &Module,
    entries: &mut [EntryCode],
    poison: bool,
    skipped: &[bool],
) -> KernelReport {
    let mut code = HostCode::default();
    let mut plans: Vec<Vec<Planned<_>>> = Vec::new();
    let wanted = |number: usize| skipped.get(number) != Some(&true);
    for (_, entry) in entries.iter().enumerate().filter(|(n, _)| wanted(*n)) {
        let graph = &entry.table.function(program).graph;
        for kernel in &entry.kernels {
            plans.push(plan_steps(graph, kernel, !poison, &mut code));
        }
    }
    let mut report = code.compile();
    let mut plans = plans.into_iter();
    for (_, entry) in entries.iter_mut().enumerate().filter(|(n, _)| wanted(*n)) {
        let graph = &entry.table.function(program).graph;
        for kernel in &mut entry.kernels {
            let planned = plans.next().unwrap_or_default();
            kernel.compiled = build(graph, kernel, planned, &code, &mut report);
        }
        entry.is_flat = entry.kernels.iter().all(|kernel| is_flat(graph, kernel));
    }
    report
}

fn is_flat(graph: &Graph, kernel: &KernelCode) -> bool {
    let flat = |op: &djinn_ir::Op| op.regions.is_empty() && op.kind != OpKind::Call;
    kernel.compiled.is_some() && kernel.ops.iter().all(|code| graph.get_op(code.op).is_some_and(flat))
}

/// A step before anything is compiled.
pub(crate) enum Planned<T> {
    Library(OpId),
    Evaluate(OpId),
    /// The operations, what they read and write, their kernel, and the numbers of writes of the whole kernel that it
    /// writes over what it reads.
    Fused {
        ops: Vec<OpId>,
        reads: Vec<ValueId>,
        writes: Vec<ValueId>,
        lowered: T,
        over: Vec<usize>,
    },
}

/// The steps of a kernel. If `in_place`, a step may write over what it reads.
pub(crate) fn plan_steps<C: Lowering>(
    graph: &Graph,
    kernel: &KernelCode,
    in_place: bool,
    code: &mut C,
) -> Vec<Planned<C::Lowered>> {
    let ops: Vec<OpId> = kernel.ops.iter().map(|code| code.op).collect();
    let reads: Vec<ValueId> = kernel.reads.iter().map(|r| r.value).collect();
    let writes: Vec<ValueId> = kernel.writes.iter().map(|w| w.to.value).collect();
    let steps = djinn_kernel::steps(&Group { graph, ops: &ops, reads: &reads, writes: &writes });
    let mut planned = Vec::with_capacity(steps.len());
    for (number, step) in steps.iter().enumerate() {
        match step {
            djinn_kernel::Step::Library { op } | djinn_kernel::Step::Evaluate { op } => {
                planned.push(single(graph, *op, code));
            }
            djinn_kernel::Step::Fused { ops, .. } if ops.iter().all(|op| is_library(graph, *op, code)) => {
                planned.extend(ops.iter().map(|op| Planned::Library(*op)));
            }
            djinn_kernel::Step::Fused { ops, reads, writes } => {
                let group = Group { graph, ops, reads, writes };
                let later = operands_after(graph, &steps[number + 1..]);
                let pairs = if in_place { overwritten(kernel, &group, &later) } else { Vec::new() };
                let aliases: Vec<(usize, usize)> = pairs.iter().map(|p| (p.0, p.1)).collect();
                let over = pairs.iter().map(|p| p.2).collect();
                let with = code.lower(&group, &aliases).map(|lowered| (lowered, over));
                let lowered = with.or_else(|| Some((code.lower(&group, &[])?, Vec::new())));
                match lowered {
                    Some((lowered, over)) => {
                        let (ops, reads, writes) = (ops.clone(), reads.clone(), writes.clone());
                        planned.push(Planned::Fused { ops, reads, writes, lowered, over });
                    }
                    None => planned.extend(ops.iter().map(|op| single(graph, *op, code))),
                }
            }
        }
    }
    planned
}

fn is_library<C: Lowering>(graph: &Graph, op: OpId, code: &C) -> bool {
    graph.get_op(op).is_some_and(|op| code.has_library(op))
}

/// An operation by itself: a library call if there is one, else code if there can be, else evaluated.
fn single<C: Lowering>(graph: &Graph, id: OpId, code: &mut C) -> Planned<C::Lowered> {
    let Some(op) = graph.get_op(id) else { return Planned::Evaluate(id) };
    if code.has_library(op) {
        return Planned::Library(id);
    }
    let mut reads = op.operands.clone();
    reads.sort_unstable();
    reads.dedup();
    let (ops, writes) = (vec![id], op.results.clone());
    match code.lower(&Group { graph, ops: &ops, reads: &reads, writes: &writes }, &[]) {
        Some(lowered) => Planned::Fused { ops, reads, writes, lowered, over: Vec::new() },
        None => Planned::Evaluate(id),
    }
}

/// The values that some steps read.
fn operands_after(graph: &Graph, steps: &[djinn_kernel::Step]) -> BTreeSet<ValueId> {
    let ops = |step: &djinn_kernel::Step| match step {
        djinn_kernel::Step::Fused { ops, .. } => ops.clone(),
        djinn_kernel::Step::Library { op } | djinn_kernel::Step::Evaluate { op } => vec![*op],
    };
    let operands = |op: OpId| graph.get_op(op).map(|op| op.operands.clone()).unwrap_or_default();
    steps.iter().flat_map(ops).flat_map(operands).collect()
}

/// Reads and writes of a group in the same memory from the same byte on, if nothing else that is still read stands there:
/// numbers in the group's reads and writes, and of the write of the kernel.
fn overwritten(kernel: &KernelCode, group: &Group, later: &BTreeSet<ValueId>) -> Vec<(usize, usize, usize)> {
    let mut pairs = Vec::new();
    for (number, write) in kernel.writes.iter().enumerate() {
        let Some(w) = group.writes.iter().position(|v| *v == write.to.value) else { continue };
        // A value that the kernel leaves twice is made in the other place.
        if kernel.writes.iter().filter(|other| other.to.value == write.to.value).count() > 1 {
            continue;
        }
        let needed = |v: &ValueId| group.reads.contains(v) || later.contains(v);
        let mut there = kernel.reads.iter().filter(|r| needed(&r.value) && r.slot.overlaps(&write.to.slot));
        let (Some(read), None) = (there.next(), there.next()) else { continue };
        let same = read.slot.start == write.to.slot.start && !later.contains(&read.value);
        if let Some(r) = group.reads.iter().position(|v| *v == read.value).filter(|_| same) {
            pairs.push((r, w, number));
        }
    }
    pairs
}

/// Puts the planned steps of a kernel together with their code; `None` if they do not hold together.
pub(crate) fn build<C: Lowering>(
    graph: &Graph,
    kernel: &KernelCode,
    planned: Vec<Planned<C::Lowered>>,
    code: &C,
    report: &mut KernelReport,
) -> Option<Compiled<C::Fused, C::Library>> {
    let (locals, numbers, steps) = Default::default();
    let mut builder = Builder { graph, kernel, code, locals, numbers, steps };
    for (i, read) in kernel.reads.iter().enumerate() {
        builder.add(read.value, Home::Read(i))?;
    }
    builder.build(planned, report)
}

struct Builder<'a, C: Lowering> {
    graph: &'a Graph,
    kernel: &'a KernelCode,
    code: &'a C,
    locals: Vec<Local>,
    numbers: BTreeMap<ValueId, usize>,
    steps: Vec<StepCode<C::Fused, C::Library>>,
}

impl<C: Lowering> Builder<'_, C> {
    fn add(&mut self, value: ValueId, home: Home) -> Option<usize> {
        let ty = self.graph.get_value(value)?.ty.clone();
        let fixed = ty.const_shape();
        self.locals.push(Local { ty, fixed, home });
        let number = self.locals.len() - 1;
        self.numbers.entry(value).or_insert(number);
        Some(number)
    }

    fn numbers_of(&self, values: &[ValueId]) -> Option<Vec<usize>> {
        values.iter().map(|v| self.numbers.get(v).copied()).collect()
    }

    fn build(
        mut self,
        planned: Vec<Planned<C::Lowered>>,
        report: &mut KernelReport,
    ) -> Option<Compiled<C::Fused, C::Library>> {
        let mut over = BTreeSet::new();
        for step in planned {
            match step {
                Planned::Library(op) => self.add_op(op, true, report)?,
                Planned::Evaluate(op) => self.add_op(op, false, report)?,
                Planned::Fused { ops, reads, writes, lowered, over: written_over } => {
                    let Some(results) = self.add_fused(&ops, (&reads, &writes), &lowered)? else {
                        for op in ops {
                            self.add_op(op, is_library(self.graph, op, self.code), report)?;
                        }
                        continue;
                    };
                    self.steps.push(results);
                    report.fused += 1;
                    over.extend(written_over);
                }
            }
        }
        let moved = self.settle(&over)?;
        Some(Compiled { steps: self.steps, locals: self.locals, moved })
    }

    /// A step of compiled code; the inner `None` if there is none.
    #[allow(clippy::type_complexity, reason = "used in one place")]
    fn add_fused(
        &mut self,
        ops: &[OpId],
        (reads, writes): (&[ValueId], &[ValueId]),
        lowered: &C::Lowered,
    ) -> Option<Option<StepCode<C::Fused, C::Library>>> {
        let operands = self.numbers_of(reads)?;
        let before = (self.locals.len(), self.numbers.clone());
        for v in writes {
            self.add(*v, Home::Scratch)?;
        }
        let results = self.numbers_of(writes)?;
        let numbers = &self.numbers;
        let Some(code) = self.code.code(lowered, ops.to_vec(), &|v| numbers.get(&v).copied()) else {
            self.locals.truncate(before.0);
            self.numbers = before.1;
            return Some(None);
        };
        Some(Some(StepCode { work: StepWork::Fused(code), operands, results }))
    }

    fn add_op(&mut self, id: OpId, library: bool, report: &mut KernelReport) -> Option<()> {
        let op = self.graph.get_op(id)?;
        let number = self.kernel.ops.iter().position(|code| code.op == id)?;
        let operands = self.numbers_of(&op.operands)?;
        let results =
            op.results.iter().map(|v| self.add(*v, Home::Scratch)).collect::<Option<Vec<usize>>>()?;
        let work = match library {
            true => StepWork::Library { op: number, laid_out: C::Library::default() },
            false => StepWork::Evaluate { op: number },
        };
        *if library { &mut report.library } else { &mut report.evaluated } += 1;
        self.steps.push(StepCode { work, operands, results });
        Some(())
    }

    /// Gives what the kernel leaves its place; gives the values that cannot be made there. `over`: writes that a step
    /// makes over what it reads.
    fn settle(&mut self, over: &BTreeSet<usize>) -> Option<Vec<(usize, usize)>> {
        let mut moved = Vec::new();
        for (number, write) in self.kernel.writes.iter().enumerate() {
            let local = *self.numbers.get(&write.to.value)?;
            let blocked = !over.contains(&number)
                && self.kernel.reads.iter().any(|read| read.slot.overlaps(&write.to.slot));
            if blocked || self.locals[local].home != Home::Scratch {
                moved.push((local, number));
            } else {
                self.locals[local].home = Home::Write(number);
            }
        }
        Some(moved)
    }
}
