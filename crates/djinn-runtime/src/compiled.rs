//! Kernels as steps: compiled code, library calls, and operations that are evaluated.
//!
//! A value between two steps of a kernel is scratch memory of the run. A value that the kernel leaves is written where it
//! belongs at once, unless bytes that the kernel still reads stand there: then it is made in scratch memory and moved when
//! everything has been read, which is what [`djinn_plan::Kernel::writes`] asks for.

use crate::code::{EntryCode, KernelCode};
use crate::jit::{self, Fused, KernelReport, Lowered, Texts};
use crate::resolve::Slot;
use djinn_blas::Operation;
use djinn_ir::{Graph, Module, OpId, OpKind, TensorType, ValueId};
use djinn_kernel::Group;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// A kernel as steps.
pub(crate) struct Compiled {
    pub(crate) steps: Vec<StepCode>,
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
pub(crate) struct StepCode {
    pub(crate) work: StepWork,
    pub(crate) operands: Vec<usize>,
    pub(crate) results: Vec<usize>,
}

/// The work of a step.
pub(crate) enum StepWork {
    /// A call of the library.
    Library { op: usize, laid_out: LaidOut },
    /// An operation that is evaluated.
    Evaluate { op: usize },
    /// Compiled code for several operations.
    Fused(Fused),
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

/// Makes steps of the kernels of all entries, and compiles what can be. Under `poison`, nothing is written over what is
/// read, so that what is read can be poisoned first.
pub(crate) fn compile_kernels(program: &Module, entries: &mut [EntryCode], poison: bool) -> KernelReport {
    let mut texts = Texts::default();
    let mut plans: Vec<Vec<Planned>> = Vec::new();
    for entry in &*entries {
        let graph = &entry.table.function(program).graph;
        for kernel in &entry.kernels {
            plans.push(plan_steps(graph, kernel, poison, &mut texts));
        }
    }
    let (functions, mut report) = jit::compile(texts);
    let mut plans = plans.into_iter();
    for entry in entries {
        let graph = &entry.table.function(program).graph;
        for kernel in &mut entry.kernels {
            let planned = plans.next().unwrap_or_default();
            let builder = Builder::new(graph, kernel);
            kernel.compiled = builder.and_then(|builder| builder.build(planned, &functions, &mut report));
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
enum Planned {
    Library(OpId),
    Evaluate(OpId),
    /// The operations, what they read and write, their kernel, and the numbers of writes of the whole kernel that it
    /// writes over what it reads.
    Fused {
        ops: Vec<OpId>,
        reads: Vec<ValueId>,
        writes: Vec<ValueId>,
        lowered: Lowered,
        over: Vec<usize>,
    },
}

fn plan_steps(graph: &Graph, kernel: &KernelCode, poison: bool, texts: &mut Texts) -> Vec<Planned> {
    let ops: Vec<OpId> = kernel.ops.iter().map(|code| code.op).collect();
    let reads: Vec<ValueId> = kernel.reads.iter().map(|r| r.value).collect();
    let writes: Vec<ValueId> = kernel.writes.iter().map(|w| w.to.value).collect();
    let steps = djinn_kernel::steps(&Group { graph, ops: &ops, reads: &reads, writes: &writes });
    let mut planned = Vec::with_capacity(steps.len());
    for (number, step) in steps.iter().enumerate() {
        match step {
            djinn_kernel::Step::Library { op } => planned.push(Planned::Library(*op)),
            djinn_kernel::Step::Evaluate { op } => planned.push(single(graph, *op)),
            djinn_kernel::Step::Fused { ops, .. } if ops.iter().all(|op| is_library(graph, *op)) => {
                planned.extend(ops.iter().map(|op| Planned::Library(*op)));
            }
            djinn_kernel::Step::Fused { ops, reads, writes } => {
                let group = Group { graph, ops, reads, writes };
                let later = operands_after(graph, &steps[number + 1..]);
                let pairs = if poison { Vec::new() } else { overwritten(kernel, &group, &later) };
                let aliases: Vec<(usize, usize)> = pairs.iter().map(|p| (p.0, p.1)).collect();
                let over = pairs.iter().map(|p| p.2).collect();
                let with = texts.lower(&group, &aliases).map(|lowered| (lowered, over));
                let lowered = with.or_else(|| Some((texts.lower(&group, &[])?, Vec::new())));
                match lowered {
                    Some((lowered, over)) => {
                        let (ops, reads, writes) = (ops.clone(), reads.clone(), writes.clone());
                        planned.push(Planned::Fused { ops, reads, writes, lowered, over });
                    }
                    None => planned.extend(ops.iter().map(|op| single(graph, *op))),
                }
            }
        }
    }
    planned
}

fn is_library(graph: &Graph, op: OpId) -> bool {
    graph.get_op(op).is_some_and(|op| djinn_blas::supports(op.kind))
}

fn single(graph: &Graph, op: OpId) -> Planned {
    if is_library(graph, op) { Planned::Library(op) } else { Planned::Evaluate(op) }
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
        let mut there = kernel.reads.iter().filter(|r| needed(&r.value) && overlap(&r.slot, &write.to.slot));
        let (Some(read), None) = (there.next(), there.next()) else { continue };
        let same = read.slot.start == write.to.slot.start && !later.contains(&read.value);
        if let Some(r) = group.reads.iter().position(|v| *v == read.value).filter(|_| same) {
            pairs.push((r, w, number));
        }
    }
    pairs
}

struct Builder<'a> {
    graph: &'a Graph,
    kernel: &'a KernelCode,
    locals: Vec<Local>,
    numbers: BTreeMap<ValueId, usize>,
    steps: Vec<StepCode>,
}

impl<'a> Builder<'a> {
    fn new(graph: &'a Graph, kernel: &'a KernelCode) -> Option<Builder<'a>> {
        let (locals, numbers, steps) = Default::default();
        let mut builder = Builder { graph, kernel, locals, numbers, steps };
        for (i, read) in kernel.reads.iter().enumerate() {
            builder.add(read.value, Home::Read(i))?;
        }
        Some(builder)
    }

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
        planned: Vec<Planned>,
        functions: &jit::Functions,
        report: &mut KernelReport,
    ) -> Option<Compiled> {
        let mut over = BTreeSet::new();
        for step in planned {
            match step {
                Planned::Library(op) => self.add_op(op, true, report)?,
                Planned::Evaluate(op) => self.add_op(op, false, report)?,
                Planned::Fused { ops, reads, writes, lowered, over: written_over } => {
                    let Some(function) = functions.get(&lowered) else {
                        for op in ops {
                            self.add_op(op, is_library(self.graph, op), report)?;
                        }
                        continue;
                    };
                    let operands = self.numbers_of(&reads)?;
                    for v in &writes {
                        self.add(*v, Home::Scratch)?;
                    }
                    let results = self.numbers_of(&writes)?;
                    let fused = Fused::new(function, &lowered, ops, &|v| self.numbers.get(&v).copied())?;
                    self.steps.push(StepCode { work: StepWork::Fused(fused), operands, results });
                    report.fused += 1;
                    over.extend(written_over);
                }
            }
        }
        let moved = self.settle(&over)?;
        Some(Compiled { steps: self.steps, locals: self.locals, moved })
    }

    fn add_op(&mut self, id: OpId, library: bool, report: &mut KernelReport) -> Option<()> {
        let op = self.graph.get_op(id)?;
        let number = self.kernel.ops.iter().position(|code| code.op == id)?;
        let operands = self.numbers_of(&op.operands)?;
        let results =
            op.results.iter().map(|v| self.add(*v, Home::Scratch)).collect::<Option<Vec<usize>>>()?;
        let work = match library {
            true => StepWork::Library { op: number, laid_out: LaidOut::default() },
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
                && self.kernel.reads.iter().any(|read| overlap(&read.slot, &write.to.slot));
            if blocked || self.locals[local].home != Home::Scratch {
                moved.push((local, number));
            } else {
                self.locals[local].home = Home::Write(number);
            }
        }
        Some(moved)
    }
}

fn overlap(a: &Slot, b: &Slot) -> bool {
    a.arena == b.arena && a.start < b.start + b.bytes && b.start < a.start + a.bytes
}
