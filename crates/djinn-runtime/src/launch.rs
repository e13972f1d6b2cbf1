//! Runs a kernel that was made into steps: on the bytes of the arenas, without copies where that is possible.

use crate::code::{KernelCode, Step};
use crate::compiled::{Compiled, Home, LaidOut, Local, StepCode, StepWork};
use crate::constants::evaluate;
use crate::events::lock;
use crate::execute::Run;
use crate::hazard::Access;
use crate::memory::{Bytes, BytesMut, Store};
use crate::resolve::{byte_size, wrong};
use crate::symbols;
use djinn_blas::Operation;
use djinn_diag::{Result, internal};
use djinn_interp::Env;
use djinn_ir::{Attr, Attrs, Dim, TensorData};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Nanoseconds that a run spent on each kind of work, all streams together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorkTimes {
    /// In compiled code.
    pub fused: u64,
    /// In library calls.
    pub library: u64,
    /// In operations that were evaluated, their operands copied.
    pub evaluated: u64,
    /// In launches as a whole, what they do beside their steps included.
    pub launches: u64,
    /// In copies between devices, and from and to the caller.
    pub copies: u64,
}

/// [`WorkTimes`] in the making.
#[derive(Default)]
pub(crate) struct Clocks {
    pub(crate) fused: AtomicU64,
    pub(crate) library: AtomicU64,
    pub(crate) evaluated: AtomicU64,
    pub(crate) launches: AtomicU64,
    pub(crate) copies: AtomicU64,
}

impl Clocks {
    pub(crate) fn read(&self) -> WorkTimes {
        WorkTimes {
            fused: self.fused.load(Relaxed),
            library: self.library.load(Relaxed),
            evaluated: self.evaluated.load(Relaxed),
            launches: self.launches.load(Relaxed),
            copies: self.copies.load(Relaxed),
        }
    }
}

/// Does some work and adds its time to a clock.
pub(crate) fn clocked<T>(clock: &AtomicU64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let made = work();
    clock.fetch_add(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX), Relaxed);
    made
}

/// A value while its kernel runs.
pub(crate) enum Held {
    /// Not made yet.
    Nothing,
    /// In an arena, so many bytes.
    Placed(u64),
    /// In scratch memory.
    Made(TensorData),
}

/// The values of a kernel while it runs.
pub(crate) struct Frame<'a> {
    pub(crate) kernel: &'a KernelCode,
    pub(crate) compiled: &'a Compiled,
    pub(crate) env: Env,
    pub(crate) held: Vec<Held>,
}

impl Frame<'_> {
    pub(crate) fn shape(&self, local: usize) -> Result<Vec<usize>> {
        let local = self.local(local)?;
        local.fixed.clone().map_or_else(|| self.env.shape(&local.ty), Ok)
    }

    pub(crate) fn local(&self, local: usize) -> Result<&Local> {
        self.compiled.locals.get(local).ok_or_else(|| internal("runtime.step", "a step names no value"))
    }
}

impl Run<'_> {
    /// Runs the steps of a kernel.
    pub(crate) fn launch_compiled(
        &self,
        step: &Step,
        (kernel, compiled): (&KernelCode, &Compiled),
        accesses: &mut Vec<Access>,
    ) -> Result<()> {
        let env = self.known();
        let symbols = env.iter().count();
        let workspace = kernel.workspace.as_ref();
        if let Some(slot) = workspace {
            self.note(accesses, Access::write(slot, slot.bytes, None));
        }
        self.scribble(workspace);
        let held = compiled.locals.iter().map(|_| Held::Nothing).collect();
        let mut frame = Frame { kernel, compiled, env, held };
        for (i, read) in kernel.reads.iter().enumerate() {
            let bytes = byte_size(&compiled.locals[i].ty, &frame.shape(i)?)?;
            self.setting.memory.check_room(&read.slot, bytes)?;
            if !self.setting.memory.is_constant(&read.slot) {
                self.note(accesses, Access::read(&read.slot, bytes, read.value));
            }
            frame.held[i] = Held::Placed(bytes);
        }
        for code in &compiled.steps {
            self.run_step(code, &mut frame)?;
        }
        if frame.env.iter().count() > symbols {
            symbols::merge(&mut lock(&self.env), &frame.env, self.setting.ranges)?;
        }
        self.leave(step, &frame, accesses)?;
        self.scribble(workspace);
        self.release(&step.written);
        Ok(())
    }

    /// Moves what the kernel leaves where it belongs, unless it is there.
    fn leave(&self, step: &Step, frame: &Frame, accesses: &mut Vec<Access>) -> Result<()> {
        // What is moved may stand where something was read for the last time; what is not stands nowhere that is read.
        self.release(&step.read);
        for (local, write) in &frame.compiled.moved {
            let to = &frame.kernel.writes[*write].to;
            let value = self.value(*local, frame)?;
            self.store(to, &value, accesses)?;
        }
        for (local, held) in frame.compiled.locals.iter().zip(&frame.held) {
            if let (Home::Write(write), Held::Placed(bytes)) = (local.home, held) {
                let to = &frame.kernel.writes[write].to;
                self.note(accesses, Access::write(&to.slot, *bytes, Some(to.value)));
            }
        }
        Ok(())
    }

    fn run_step(&self, code: &StepCode, frame: &mut Frame) -> Result<()> {
        let clocks = &self.clocks;
        match &code.work {
            StepWork::Library { op, laid_out } => {
                let operation = self.lay_out(*op, laid_out, code, frame)?;
                match operation {
                    Some(operation) => clocked(&clocks.library, || self.call(&operation, code, frame)),
                    None => clocked(&clocks.evaluated, || self.evaluate_step(*op, code, frame)),
                }
            }
            StepWork::Fused(fused) => clocked(&clocks.fused, || self.call_fused(fused, code, frame)),
            StepWork::Evaluate { op } => clocked(&clocks.evaluated, || self.evaluate_step(*op, code, frame)),
        }
    }

    fn lay_out(
        &self,
        op: usize,
        laid_out: &LaidOut,
        code: &StepCode,
        frame: &Frame,
    ) -> Result<Option<Arc<Operation>>> {
        let graph = self.graph();
        let op = graph.get_op(frame.kernel.ops[op].op).ok_or_else(|| wrong("an operation is not there"))?;
        let shapes = code.operands.iter().map(|o| frame.shape(*o)).collect::<Result<Vec<_>>>()?;
        let size = op.attrs.iter().find_map(|(name, attr)| match attr {
            Attr::Dim(dim) => Some((name, frame.env.eval(dim))),
            _ => None,
        });
        Ok(laid_out.get(shapes, size.and_then(|s| s.1), |shapes| {
            let attrs = match size {
                Some((name, value)) => with_size(&op.attrs, name, value?),
                None => op.attrs.clone(),
            };
            let dtypes = code.operands.iter().map(|o| frame.compiled.locals[*o].ty.dtype);
            let operands: Vec<_> = dtypes.zip(shapes.iter().map(Vec::as_slice)).collect();
            Operation::new(op.kind, &attrs, &operands)
        }))
    }

    /// Calls the library.
    fn call(&self, operation: &Operation, code: &StepCode, frame: &mut Frame) -> Result<()> {
        let mut made: Vec<Option<Vec<u8>>> = Vec::with_capacity(code.results.len());
        for (result, shape) in code.results.iter().zip(operation.results()) {
            let (ty, home) = (frame.local(*result)?.ty.clone(), frame.local(*result)?.home);
            if frame.local(*result)?.fixed.as_ref() != Some(shape) {
                frame.env.bind_shape("result", &ty, shape)?;
            }
            let bytes = byte_size(&ty, shape)?;
            if let Home::Write(write) = home {
                self.setting.memory.check_room(&frame.kernel.writes[write].to.slot, bytes)?;
                frame.held[*result] = Held::Placed(bytes);
                made.push(None);
            } else {
                made.push(Some(vec![0; bytes as usize]));
            }
        }
        self.call_on_bytes(operation, code, frame, &mut made)?;
        for ((result, bytes), shape) in code.results.iter().zip(made).zip(operation.results()) {
            let Some(bytes) = bytes else { continue };
            let dtype = frame.local(*result)?.ty.dtype;
            let value = TensorData::new(dtype, shape.clone(), bytes);
            frame.held[*result] =
                Held::Made(value.ok_or_else(|| internal("runtime.results", "a result has other bytes"))?);
        }
        Ok(())
    }

    fn call_on_bytes(
        &self,
        operation: &Operation,
        code: &StepCode,
        frame: &Frame,
        made: &mut [Option<Vec<u8>>],
    ) -> Result<()> {
        let operands = code.operands.iter().map(|o| self.bytes(*o, frame)).collect::<Result<Vec<_>>>()?;
        let operands: Vec<&[u8]> = operands.iter().map(Bytes::as_slice).collect();
        let mut results: Vec<BytesMut> = Vec::with_capacity(made.len());
        for (result, made) in code.results.iter().zip(made) {
            results.push(match (made, frame.local(*result)?.home, &frame.held[*result]) {
                (Some(bytes), ..) => BytesMut::Own(bytes),
                (None, Home::Write(write), Held::Placed(bytes)) => {
                    self.setting.memory.bytes_mut(&frame.kernel.writes[write].to.slot, *bytes)?
                }
                _ => return Err(internal("runtime.results", "a result has no place")),
            });
        }
        let mut results: Vec<&mut [u8]> = results.iter_mut().map(BytesMut::as_mut_slice).collect();
        operation.run(&operands, &mut results)
    }

    /// The bytes of a value where they stand.
    pub(crate) fn bytes<'f>(&'f self, local: usize, frame: &'f Frame) -> Result<Bytes<'f>> {
        match (&frame.held[local], frame.local(local)?.home) {
            (Held::Made(value), _) => Ok(Bytes::Own(value.bytes())),
            (Held::Placed(bytes), Home::Read(read)) => {
                self.setting.memory.bytes(&frame.kernel.reads[read].slot, *bytes)
            }
            (Held::Placed(bytes), Home::Write(write)) => {
                self.setting.memory.bytes(&frame.kernel.writes[write].to.slot, *bytes)
            }
            _ => Err(internal("runtime.operand", "an operand is missing")),
        }
    }

    /// A value for the evaluator.
    fn value(&self, local: usize, frame: &Frame) -> Result<TensorData> {
        let slot = match (&frame.held[local], frame.local(local)?.home) {
            (Held::Made(value), _) => return Ok(value.clone()),
            (Held::Placed(_), Home::Read(read)) => &frame.kernel.reads[read].slot,
            (Held::Placed(_), Home::Write(write)) => &frame.kernel.writes[write].to.slot,
            _ => return Err(internal("runtime.operand", "an operand is missing")),
        };
        self.setting.memory.load(slot, &frame.local(local)?.ty, frame.shape(local)?)
    }

    fn evaluate_step(&self, op: usize, code: &StepCode, frame: &mut Frame) -> Result<()> {
        let graph = self.graph();
        let op_code = &frame.kernel.ops[op];
        let op = graph.get_op(op_code.op).ok_or_else(|| wrong("an operation is not there"))?;
        let operands = code.operands.iter().map(|o| self.value(*o, frame)).collect::<Result<Vec<_>>>()?;
        let at = (op_code.position, op);
        let made = evaluate(self.setting.program, graph, at, &operands, &mut frame.env)?;
        for (result, value) in code.results.iter().zip(made) {
            frame.held[*result] = match frame.local(*result)?.home {
                Home::Write(write) => {
                    self.setting.memory.store(&frame.kernel.writes[write].to.slot, value.bytes())?;
                    Held::Placed(value.bytes().len() as u64)
                }
                Home::Read(_) | Home::Scratch => Held::Made(value),
            };
        }
        Ok(())
    }
}

/// The attributes with a value for the one that is a size.
fn with_size(attrs: &Attrs, name: &str, value: i64) -> Attrs {
    let mut attrs = attrs.clone();
    attrs.set(name.to_owned(), Dim::from(value));
    attrs
}
