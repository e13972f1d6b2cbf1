//! A kernel: an engine, or its steps on one stream.

use super::code::{GpuFused, GpuLaunch};
use super::gemm;
use super::machine::CudaMachine;
use super::prepare::{BoundEngine, Queue, Source, Steps};
use crate::call::{check_op, size_of};
use crate::code::{KernelCode, Placed};
use crate::compiled::{Home, Local, StepCode, StepWork};
use crate::constants::evaluate;
use crate::events::lock;
use crate::jit::FusedParam;
use crate::resolve::{byte_size, wrong};
use crate::symbols;
use djinn_diag::{Result, internal};
use djinn_interp::Env;
use djinn_ir::{DType, Graph, Module, TensorData, TensorType};
use djinn_plan::{ALIGNMENT, SymbolRange};
use djinn_tensorrt::Binding;
use std::ffi::c_void;

/// Blocks of a launch, at most: kernels take their points in steps of the grid (CUDA C++ Programming Guide, "Features and
/// Technical Specifications": 2³¹ − 1).
const MAX_BLOCKS: i64 = (1 << 31) - 1;

/// What launches a kernel on a stream.
pub(crate) struct Launcher<'a> {
    pub(crate) machine: &'a CudaMachine,
    pub(crate) program: &'a Module,
    pub(crate) graph: &'a Graph,
    pub(crate) kernel: &'a KernelCode,
    pub(crate) queue: &'a mut Queue,
    pub(crate) ranges: &'a [SymbolRange],
}

/// Where a value of a kernel stands while it runs.
#[derive(Debug, Clone, Copy)]
struct Held {
    address: u64,
    bytes: u64,
    /// Is it scratch memory?
    scratch: bool,
}

/// Element type of vectors that only carry a size.
const LENGTH: DType = DType::Bool;

/// A tensor that is bound to an engine.
struct Bound {
    name: String,
    dtype: DType,
    address: u64,
    shape: Vec<usize>,
}

impl Bound {
    fn tensor(&self) -> Binding<'_> {
        Binding { name: &self.name, dtype: self.dtype, address: self.address, shape: &self.shape }
    }
}

/// The values of a kernel by local.
type Values = Vec<Option<Held>>;

impl Launcher<'_> {
    /// Enqueues an engine. What it writes may stand where something is read: then it is made elsewhere and copied.
    #[allow(unsafe_code, reason = "an engine and copies are enqueued")]
    pub(crate) fn engine(&mut self, engine: &BoundEngine, env: &Env) -> Result<()> {
        let mut moved = Vec::new();
        let inputs = self.bound(&engine.inputs, env, &mut moved)?;
        let outputs = self.bound(&engine.outputs, env, &mut moved)?;
        let (a, b) = (as_tensors(&inputs), as_tensors(&outputs));
        self.queue.stream.device().make_current()?;
        // SAFETY: the addresses are those of operands of the kernel, in arenas or in scratch memory that live as long as
        // the machine; the plan's order of commands keeps others from them until the stream has passed.
        unsafe { lock(&engine.execution).execution()?.enqueue(&a, &b, self.queue.stream.raw())? }
        for (from, to, bytes) in moved {
            // SAFETY: as above.
            unsafe { self.queue.stream.copy(to, from, bytes)? }
        }
        Ok(())
    }

    /// The addresses and shapes of tensors; `moved` gets those that are made in scratch memory, with their places.
    fn bound(
        &mut self,
        tensors: &[(String, Source)],
        env: &Env,
        moved: &mut Vec<(u64, u64, u64)>,
    ) -> Result<Vec<Bound>> {
        let mut out = Vec::with_capacity(tensors.len());
        for (name, source) in tensors {
            let (dtype, (address, shape)) = match source {
                Source::Read(i) => {
                    let read = &self.kernel.reads[*i];
                    (self.graph.ty(read.value).dtype, self.engine_input(read, env)?)
                }
                Source::Write(i) => {
                    let to = self.kernel.writes[*i].to;
                    let (mut address, shape) = self.operand(&to, env)?;
                    let is_read = self.kernel.reads.iter().any(|read| read.slot.overlaps(&to.slot));
                    if is_read || !address.is_multiple_of(ALIGNMENT) {
                        let bytes = byte_size(self.graph.ty(to.value), &shape)?;
                        let made = self.queue.scratch.take(bytes)?;
                        moved.push((made, address, bytes));
                        address = made;
                    }
                    (self.graph.ty(to.value).dtype, (address, shape))
                }
                Source::Length(symbol) => {
                    let length = env.get(symbol).and_then(|n| usize::try_from(n).ok());
                    let length = length.ok_or_else(|| wrong(format!("'{}' has no value", symbol.name())))?;
                    (LENGTH, (self.queue.scratch.take(8 * length as u64)?, vec![length]))
                }
            };
            out.push(Bound { name: name.clone(), dtype, address, shape });
        }
        Ok(out)
    }

    /// Where an input of an engine is: TensorRT wants tensors on boundaries of 256 bytes (`NvInferRuntime.h`,
    /// `setTensorAddress`), so that others are copied.
    #[allow(unsafe_code, reason = "a copy is enqueued")]
    fn engine_input(&mut self, placed: &Placed, env: &Env) -> Result<(u64, Vec<usize>)> {
        let (address, shape) = self.operand(placed, env)?;
        if address.is_multiple_of(ALIGNMENT) {
            return Ok((address, shape));
        }
        let bytes = byte_size(self.graph.ty(placed.value), &shape)?;
        let copy = self.queue.scratch.take(bytes)?;
        // SAFETY: the operand was checked against its view; scratch memory lives as long as the machine.
        unsafe { self.queue.stream.copy(copy, address, bytes)? }
        Ok((copy, shape))
    }

    fn operand(&self, placed: &Placed, env: &Env) -> Result<(u64, Vec<usize>)> {
        let ty = self.graph.ty(placed.value);
        let shape = env.shape(ty)?;
        let place = self.machine.memory.place(&placed.slot, byte_size(ty, &shape)?)?;
        Ok((place.address(), shape))
    }

    /// Enqueues the steps of a kernel.
    #[allow(unsafe_code, reason = "copies are enqueued")]
    pub(crate) fn steps(&mut self, steps: &Steps, env: &mut Env) -> Result<()> {
        let compiled = &steps.compiled;
        let mut values: Values = vec![None; compiled.locals.len()];
        for (i, read) in self.kernel.reads.iter().enumerate() {
            let bytes = byte_size(&compiled.locals[i].ty, &env.shape(&compiled.locals[i].ty)?)?;
            let address = self.machine.memory.place(&read.slot, bytes)?.address();
            values[i] = Some(Held { address, bytes, scratch: false });
        }
        for (number, step) in compiled.steps.iter().enumerate() {
            match &step.work {
                StepWork::Fused(fused) => self.fused(fused, step, &compiled.locals, &mut values, env)?,
                StepWork::Library { .. } => self.product(step, &compiled.locals, &mut values, env)?,
                StepWork::Evaluate { op } => self.evaluate(*op, step, &compiled.locals, &mut values, env)?,
            }
            for local in step.operands.iter().chain(&step.results).filter(|l| steps.last_use[**l] == number) {
                if let Some(held) = values[*local].filter(|held| held.scratch) {
                    self.queue.scratch.give_back(held.address);
                }
            }
        }
        for (local, write) in &compiled.moved {
            let held = values[*local].ok_or_else(|| internal("runtime.results", "a result is missing"))?;
            let slot = &self.kernel.writes[*write].to.slot;
            let to = self.machine.memory.place(slot, held.bytes)?.address();
            let mut from = held.address;
            if from.abs_diff(to) < held.bytes && from != to {
                let between = self.queue.scratch.take(held.bytes)?;
                // SAFETY: the ranges lie in arenas and scratch memory, which live as long as the machine.
                unsafe { self.queue.stream.copy(between, from, held.bytes)? }
                from = between;
            }
            if from != to {
                // SAFETY: as above.
                unsafe { self.queue.stream.copy(to, from, held.bytes)? }
            }
        }
        Ok(())
    }

    /// Gives the results of a step their places.
    fn place_results(
        &mut self,
        step: &StepCode<GpuFused, ()>,
        locals: &[Local],
        values: &mut Values,
        env: &Env,
    ) -> Result<()> {
        for result in &step.results {
            let local = &locals[*result];
            let bytes = byte_size(&local.ty, &env.shape(&local.ty)?)?;
            values[*result] = Some(match local.home {
                Home::Write(write) => {
                    let slot = &self.kernel.writes[write].to.slot;
                    let address = self.machine.memory.place(slot, bytes)?.address();
                    Held { address, bytes, scratch: false }
                }
                Home::Read(_) | Home::Scratch => {
                    Held { address: self.queue.scratch.take(bytes)?, bytes, scratch: true }
                }
            });
        }
        Ok(())
    }

    fn fused(
        &mut self,
        fused: &GpuFused,
        step: &StepCode<GpuFused, ()>,
        locals: &[Local],
        values: &mut Values,
        env: &Env,
    ) -> Result<()> {
        let is_fixed = |l: &usize| locals[*l].fixed.is_some();
        if !step.operands.iter().chain(&step.results).all(is_fixed) {
            fused.ops.iter().try_for_each(|op| check_op(self.graph, *op, env))?;
        }
        self.place_results(step, locals, values, env)?;
        let mut arguments = vec![0u64; fused.params.len()];
        let mut taken = Vec::new();
        for (argument, param) in arguments.iter_mut().zip(&fused.params) {
            *argument = match param {
                FusedParam::Read(local) | FusedParam::Write(local) => {
                    let held = values[*local];
                    held.ok_or_else(|| internal("runtime.operand", "an operand is missing"))?.address
                }
                FusedParam::Scratch(elements, size) => {
                    let bytes = u64::try_from(size_of(elements, env)?).ok();
                    let bytes = bytes.and_then(|n| n.checked_mul(*size as u64));
                    let bytes = bytes.ok_or_else(|| wrong("a kernel needs too much scratch memory"))?;
                    taken.push(self.queue.scratch.take(bytes)?);
                    taken.last().copied().unwrap_or(0)
                }
                FusedParam::Size(dim) => size_of(dim, env)?.cast_unsigned(),
            };
        }
        fused.launches.iter().try_for_each(|launch| self.launch(launch, &mut arguments, env))?;
        taken.into_iter().for_each(|address| self.queue.scratch.give_back(address));
        Ok(())
    }

    #[allow(unsafe_code, reason = "a kernel is launched")]
    fn launch(&self, launch: &GpuLaunch, arguments: &mut [u64], env: &Env) -> Result<()> {
        let mut grid = [1u32; 3];
        for ((blocks, dim), most) in grid.iter_mut().zip(&launch.grid).zip([MAX_BLOCKS, 65_535, 65_535]) {
            *blocks = size_of(dim, env)?.clamp(1, most) as u32;
        }
        let shared = u32::try_from(size_of(&launch.shared_bytes, env)?);
        let shared = shared.map_err(|_| wrong("a kernel needs too much workgroup memory"))?;
        let mut pointers: Vec<*mut c_void> =
            arguments.iter_mut().map(|a| std::ptr::from_mut(a).cast()).collect();
        // SAFETY: there is one argument for each parameter of the function, a pointer or an i64, which both have 8 bytes: for
        // PTX from elsewhere `GpuTexts::check` has found that.
        // The pointers are those of the kernel's operands, checked against their views, and of scratch memory, which the
        // kernel uses within the sizes that it is given; `check_op` found that its operations go together for these.
        unsafe { self.queue.stream.launch(&launch.function, (grid, launch.block), shared, &mut pointers) }
    }

    #[allow(unsafe_code, reason = "a product is enqueued")]
    fn product(
        &mut self,
        step: &StepCode<GpuFused, ()>,
        locals: &[Local],
        values: &mut Values,
        env: &Env,
    ) -> Result<()> {
        self.place_results(step, locals, values, env)?;
        let ([a, b], [d]) = (step.operands.as_slice(), step.results.as_slice()) else {
            return Err(internal("runtime.product", "a product has two operands and a result"));
        };
        let shape = |local: &usize| env.shape(&locals[*local].ty);
        let held = |local: &usize| {
            values[*local].ok_or_else(|| internal("runtime.operand", "an operand is missing"))
        };
        let (ty, shapes) = (&locals[*a].ty, [shape(a)?, shape(b)?]);
        let held = [held(a)?, held(b)?, held(d)?];
        if gemm::is_empty_sum(&shapes[0]) {
            // SAFETY: the result's range was checked when it was placed.
            return unsafe { self.queue.stream.fill(held[2].address, 0, held[2].bytes) };
        }
        let element = gemm::element(ty.dtype);
        let calls = element.and_then(|e| gemm::calls(e, &shapes[0], &shapes[1]));
        let calls = calls.ok_or_else(|| wrong("the operands of a product do not go together"))?;
        let made: u64 = calls.iter().map(|c| c.gemm.m * c.gemm.n * u64::from(c.gemm.batch)).sum();
        let size = ty.dtype.size() as u64;
        if made * size != held[2].bytes {
            return Err(wrong("the result of a product has another size than its type says"));
        }
        let blas = self.machine.blas(self.queue.stream.device())?;
        let workspace = self.queue.blas.as_ref().map_or((0, 0), |m| (m.address(), m.bytes()));
        for call in calls {
            let at = |i: usize| held[i].address + call.first[i] * size;
            // SAFETY: the operands hold as many elements as their shapes say, and the result as many as the calls make.
            unsafe { blas.run(&call.gemm, [at(0), at(1), at(2)], workspace, &self.queue.stream)? }
        }
        Ok(())
    }

    /// Evaluates an operation on the host: waits for its operands, and brings its results back.
    #[allow(unsafe_code, reason = "memory of a GPU is read and written")]
    fn evaluate(
        &mut self,
        number: usize,
        step: &StepCode<GpuFused, ()>,
        locals: &[Local],
        values: &mut Values,
        env: &mut Env,
    ) -> Result<()> {
        self.queue.stream.synchronize()?;
        let device = self.queue.stream.device().clone();
        let code = &self.kernel.ops[number];
        let op = self.graph.get_op(code.op).ok_or_else(|| wrong("an operation is not there"))?;
        let mut operands = Vec::with_capacity(step.operands.len());
        for local in &step.operands {
            let held = values[*local].ok_or_else(|| internal("runtime.operand", "an operand is missing"))?;
            let ty: &TensorType = &locals[*local].ty;
            let mut bytes = vec![0; held.bytes as usize];
            // SAFETY: the range was checked against its view; everything before has been waited for.
            unsafe { device.read(held.address, &mut bytes)? }
            let value = TensorData::new(ty.dtype, env.shape(ty)?, bytes);
            operands.push(value.ok_or_else(|| internal("runtime.operand", "an operand has other bytes"))?);
        }
        let made = evaluate(self.program, self.graph, (code.position, op), &operands, env)?;
        symbols::check_ranges(self.ranges, env)?;
        self.place_results(step, locals, values, env)?;
        for (local, value) in step.results.iter().zip(made) {
            let held = values[*local].ok_or_else(|| internal("runtime.results", "a result has no place"))?;
            if held.bytes != value.bytes().len() as u64 {
                return Err(internal("runtime.results", "a result has other bytes than its type says"));
            }
            // SAFETY: as above.
            unsafe { device.write(held.address, value.bytes())? }
        }
        Ok(())
    }
}

fn as_tensors(all: &[Bound]) -> Vec<Binding<'_>> {
    all.iter().map(Bound::tensor).collect()
}
