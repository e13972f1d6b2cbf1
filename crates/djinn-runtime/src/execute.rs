//! Runs the commands of an entry: one thread per stream.

use crate::code::{CopyCode, End, EntryCode, KernelCode, OpCode, OperandCode, Placed, Step, Work};
use crate::constants::evaluate;
use crate::events::{Board, lock};
use crate::hazard::Access;
use crate::launch::{Clocks, clocked};
use crate::links::Links;
use crate::machine::Ran;
use crate::memory::{Memory, POISON, Store};
use crate::output::Span;
use crate::resolve::{Slot, byte_size, type_of, wrong};
use crate::symbols;
use djinn_diag::{Context, Result, internal};
use djinn_interp::Env;
use djinn_ir::{Graph, Module, TensorData, ValueId};
use djinn_plan::{StreamId, SymbolRange};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering::AcqRel};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Stack of a stream's thread: regions inside regions are evaluated recursively.
const STACK_BYTES: usize = 16 << 20;

/// What the streams of a run share.
pub(crate) struct Run<'a> {
    pub(crate) setting: Setting<'a>,
    pub(crate) env: Mutex<Env>,
    /// By output: what commands have copied to the caller.
    outputs: Vec<Mutex<Option<TensorData>>>,
    /// By piece of a buffer: commands that have not accessed it yet.
    left: Vec<AtomicU32>,
    board: Board,
    start: Instant,
    pub(crate) clocks: Clocks,
}

/// What one stream did.
#[derive(Default)]
struct Log {
    trace: Vec<Span>,
    accesses: Vec<(usize, Vec<Access>)>,
}

/// What a run is made of, besides what it makes itself.
pub(crate) struct Setting<'a> {
    pub(crate) program: &'a Module,
    pub(crate) code: &'a EntryCode,
    pub(crate) ranges: &'a [SymbolRange],
    pub(crate) memory: &'a Memory,
    pub(crate) links: &'a Links,
    /// By input; `None` for one that the run before has left in its place.
    pub(crate) inputs: &'a [Option<TensorData>],
    pub(crate) poison: bool,
    /// Are accesses noted?
    pub(crate) record: bool,
}

impl<'a> Run<'a> {
    /// A run that has not begun.
    pub(crate) fn new(setting: Setting<'a>, env: Env) -> Run<'a> {
        let code = setting.code;
        Run {
            setting,
            env: Mutex::new(env),
            outputs: code.outputs.iter().map(|_| Mutex::new(None)).collect(),
            left: code.pieces.iter().map(|p| AtomicU32::new(p.uses)).collect(),
            board: Board::new(code.events),
            start: Instant::now(),
            clocks: Clocks::default(),
        }
    }

    /// Runs all streams to their ends.
    pub(crate) fn execute(mut self) -> Ran {
        self.start = Instant::now();
        let logs = self.run_streams();
        let elapsed_ns = self.now();
        let board = std::mem::replace(&mut self.board, Board::new(0));
        let mut trace = Vec::with_capacity(self.setting.code.commands);
        let mut accesses = vec![None; self.setting.code.commands];
        for mut log in logs {
            trace.append(&mut log.trace);
            for (command, list) in log.accesses {
                accesses[command] = Some(list);
            }
        }
        trace.sort_by_key(|span| span.command);
        let work = self.clocks.read();
        let taken = |output: Mutex<_>| output.into_inner().unwrap_or_else(PoisonError::into_inner);
        let outputs = self.outputs.into_iter().map(taken).collect();
        let env = self.env.into_inner().unwrap_or_else(PoisonError::into_inner);
        let failure = board.into_failure();
        Ran { outputs, env, trace, accesses, elapsed_ns, work, failure, ..Ran::default() }
    }

    fn run_streams(&self) -> Vec<Log> {
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            let busy = self.setting.code.streams.iter().enumerate().filter(|(_, steps)| !steps.is_empty());
            let mut busy: Vec<(usize, &Vec<Step>)> = busy.collect();
            // Making a thread takes longer than many a kernel: one stream runs on the caller's.
            let own = if self.setting.code.is_flat { busy.pop() } else { None };
            for (number, steps) in busy {
                let Some(first) = steps.first() else { continue };
                let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
                match builder.spawn_scoped(scope, move || self.run_stream(number, steps)) {
                    Ok(thread) => threads.push(thread),
                    Err(e) => {
                        let message = format!("no thread for stream {number}: {e}");
                        self.board.fail(first.command, djinn_diag::input("runtime.thread", message));
                    }
                }
            }
            let own = own.map(|(number, steps)| self.run_stream(number, steps));
            let join = |thread: std::thread::ScopedJoinHandle<'_, Log>| thread.join().unwrap_or_default();
            threads.into_iter().map(join).chain(own).collect()
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn run_stream(&self, number: usize, steps: &[Step]) -> Log {
        let mut log = Log::default();
        for step in steps {
            if !self.board.may_run(step.command) {
                break;
            }
            let mut accesses = Vec::new();
            let start_ns = self.now();
            let panicked = |_| Err(internal("runtime.panic", "a command panicked"));
            let done =
                catch_unwind(AssertUnwindSafe(|| self.step(step, &mut accesses))).unwrap_or_else(panicked);
            let end_ns = self.now();
            if self.setting.record {
                log.accesses.push((step.command, accesses));
            }
            match done {
                Ok(true) => {}
                Ok(false) => break,
                Err(problem) => {
                    self.board.fail(step.command, problem.at(format!("command {}", step.command)));
                    break;
                }
            }
            let stream = StreamId(number as u32);
            log.trace.push(Span { command: step.command as u32, stream, start_ns, end_ns });
        }
        log
    }

    /// Runs a command; gives `false` if it was stopped.
    fn step(&self, step: &Step, accesses: &mut Vec<Access>) -> Result<bool> {
        match &step.work {
            Work::Record(event) => self.board.record(*event),
            Work::Wait(event) => return Ok(self.board.wait(*event, step.command)),
            Work::Copy(copy) => {
                let may_run = || self.board.may_run(step.command);
                self.setting.links.copy(copy.from.device(), copy.to.device(), &may_run, || {
                    clocked(&self.clocks.copies, || self.copy(step, copy, accesses))
                })?;
            }
            Work::Launch(kernel) => {
                let kernel = self.setting.code.kernels.get(*kernel);
                let kernel = kernel.ok_or_else(|| wrong("there is no such kernel"))?;
                let launch = || match &kernel.compiled {
                    Some(compiled) => self.launch_compiled(step, (kernel, compiled), accesses),
                    None => self.launch(step, kernel, accesses),
                };
                clocked(&self.clocks.launches, launch).at(|| format!("kernel '{}'", kernel.name))?;
            }
        }
        Ok(true)
    }

    pub(crate) fn graph(&self) -> &'a Graph {
        &self.setting.code.table.function(self.setting.program).graph
    }

    pub(crate) fn known(&self) -> Env {
        lock(&self.env).clone()
    }

    /// Notes an access for the race detector.
    pub(crate) fn note(&self, accesses: &mut Vec<Access>, access: Access) {
        if self.setting.record {
            accesses.push(access);
        }
    }

    fn load(&self, placed: &Placed, env: &Env, accesses: &mut Vec<Access>) -> Result<TensorData> {
        let ty = type_of(self.graph(), placed.value)?;
        let value = self.setting.memory.load(&placed.slot, ty, env.shape(ty)?)?;
        // Nothing writes constants during a run.
        if !self.setting.memory.is_constant(&placed.slot) {
            self.note(accesses, Access::read(&placed.slot, value.bytes().len() as u64, placed.value));
        }
        Ok(value)
    }

    pub(crate) fn store(
        &self,
        placed: &Placed,
        value: &TensorData,
        accesses: &mut Vec<Access>,
    ) -> Result<()> {
        self.note(accesses, Access::write(&placed.slot, value.bytes().len() as u64, Some(placed.value)));
        self.setting.memory.store(&placed.slot, value.bytes())
    }

    /// Counts an access of these pieces of buffers; poisons those that no later command accesses. Other buffers that
    /// take over their bytes write them only later.
    pub(crate) fn release(&self, pieces: &[usize]) {
        for number in pieces {
            if self.left[*number].fetch_sub(1, AcqRel) == 1 && self.setting.poison {
                let _ = self.setting.memory.fill(&self.setting.code.pieces[*number].slot, POISON);
            }
        }
    }

    pub(crate) fn scribble(&self, workspace: Option<&Slot>) {
        if let Some(slot) = workspace.filter(|_| self.setting.poison) {
            let _ = self.setting.memory.fill(slot, POISON);
        }
    }

    fn launch(&self, step: &Step, kernel: &KernelCode, accesses: &mut Vec<Access>) -> Result<()> {
        let mut env = self.known();
        let symbols = env.iter().count();
        let workspace = kernel.workspace.as_ref();
        if let Some(slot) = workspace {
            self.note(accesses, Access::write(slot, slot.bytes, None));
        }
        self.scribble(workspace);
        let reads: Vec<TensorData> =
            kernel.reads.iter().map(|r| self.load(r, &env, accesses)).collect::<Result<_>>()?;
        let results = clocked(&self.clocks.evaluated, || self.evaluate(kernel, &reads, &mut env))?;
        drop(reads);
        if env.iter().count() > symbols {
            symbols::merge(&mut lock(&self.env), &env, self.setting.ranges)?;
        }
        // What is written may stand where something was read for the last time.
        self.release(&step.read);
        for write in &kernel.writes {
            let value = results.get(write.from.0).and_then(|r| r.get(write.from.1));
            let value = value.ok_or_else(|| internal("runtime.results", "a result is missing"))?;
            self.store(&write.to, value, accesses)?;
        }
        self.scribble(workspace);
        self.release(&step.written);
        Ok(())
    }

    /// The results of the operations of a kernel; those that nothing uses later are dropped.
    fn evaluate(
        &self,
        kernel: &KernelCode,
        reads: &[TensorData],
        env: &mut Env,
    ) -> Result<Vec<Vec<TensorData>>> {
        let mut results: Vec<Vec<TensorData>> = Vec::with_capacity(kernel.ops.len());
        for op in &kernel.ops {
            let made = self.evaluate_op(op, &results, reads, env)?;
            results.push(made);
            for of in &op.drops {
                results[*of].clear();
            }
        }
        Ok(results)
    }

    fn evaluate_op(
        &self,
        code: &OpCode,
        results: &[Vec<TensorData>],
        reads: &[TensorData],
        env: &mut Env,
    ) -> Result<Vec<TensorData>> {
        let graph = self.graph();
        let op = graph.get_op(code.op).ok_or_else(|| wrong("an operation is not there"))?;
        let mut operands = Vec::with_capacity(code.operands.len());
        for operand in &code.operands {
            let value = match operand {
                OperandCode::Local(of, result) => results.get(*of).and_then(|r| r.get(*result)),
                OperandCode::Read(read) => reads.get(*read),
            };
            operands
                .push(value.cloned().ok_or_else(|| internal("runtime.operand", "an operand is missing"))?);
        }
        evaluate(self.setting.program, graph, (code.position, op), &operands, env)
    }

    /// Copies a value; gives its bytes.
    fn copy(&self, step: &Step, copy: &CopyCode, accesses: &mut Vec<Access>) -> Result<usize> {
        let env = self.known();
        let value = match copy.from {
            End::Slot(slot, _) => self.load(&Placed { value: copy.value, slot }, &env, accesses)?,
            End::Input(i) => {
                let input = self.setting.inputs.get(i).cloned().flatten();
                input.ok_or_else(|| wrong(format!("there is no input {i}")))?
            }
            End::Output(_) => return Err(wrong("an output is no source of a copy")),
        };
        self.check_same(&value, copy.result, &env)?;
        self.release(&step.read);
        match copy.to {
            End::Slot(slot, _) => self.store(&Placed { value: copy.result, slot }, &value, accesses)?,
            End::Output(i) => self.hand_out(i, &value, &env)?,
            End::Input(_) => return Err(wrong("an input is no destination of a copy")),
        }
        self.release(&step.written);
        Ok(value.bytes().len())
    }

    /// A copy has the bytes of what is copied.
    fn check_same(&self, value: &TensorData, result: ValueId, env: &Env) -> Result<()> {
        let ty = type_of(self.graph(), result)?;
        let (from, to) = (value.bytes().len() as u64, byte_size(ty, &env.shape(ty)?)?);
        if from != to || ty.dtype != value.dtype() {
            return Err(wrong(format!(
                "a value {} of {from} bytes is copied as {ty} of {to} bytes",
                value.ty()
            )));
        }
        Ok(())
    }

    fn hand_out(&self, output: usize, value: &TensorData, env: &Env) -> Result<()> {
        let (Some(code), Some(place)) = (self.setting.code.outputs.get(output), self.outputs.get(output))
        else {
            return Err(wrong(format!("there is no output {output}")));
        };
        let ty = type_of(self.graph(), code.value)?;
        let tensor = value.reshaped(env.shape(ty)?).filter(|t| t.dtype() == ty.dtype);
        let tensor =
            tensor.ok_or_else(|| wrong(format!("output '{}' is {ty}, not {}", code.name, value.ty())))?;
        *lock(place) = Some(tensor);
        Ok(())
    }
}
