//! What an entry needs from run to run.

use super::code::{GpuFused, is_product};
use super::engine::{EngineUnit, EngineValue, SharedEngine};
use super::scratch::Scratch;
use crate::code::{End, EntryCode, KernelCode, Work};
use crate::compiled::{Compiled, StepWork};
use djinn_cuda::{Device, DeviceMemory, Event, Graph, PinnedMemory, Stream};
use djinn_diag::{Context, Result, internal};
use djinn_ir::{Graph as IrGraph, Symbol, ValueId};
use djinn_plan::Entry;
use std::collections::BTreeSet;

/// Scratch memory of cuBLASLt on each stream; NVIDIA recommends 32 MiB on Hopper (cuBLAS documentation,
/// "cublasSetWorkspace").
pub(crate) const BLAS_BYTES: u64 = 32 << 20;

/// A kernel on a GPU.
pub(crate) struct CudaKernel {
    /// Its steps; `None` where an engine runs.
    pub(crate) steps: Option<Steps>,
    /// What runs instead of them.
    pub(crate) engine: Option<BoundEngine>,
}

impl CudaKernel {
    /// Does it call cuBLASLt?
    pub(crate) fn has_products(&self) -> bool {
        let steps = self.steps.iter().flat_map(|steps| &steps.compiled.steps);
        steps.into_iter().any(|step| matches!(step.work, StepWork::Library { .. }))
    }
}

/// The steps of a kernel.
pub(crate) struct Steps {
    pub(crate) compiled: Compiled<GpuFused, ()>,
    /// By local: the number of the last step that reads it; its own if none does.
    pub(crate) last_use: Vec<usize>,
}

impl Steps {
    /// Finds the last uses.
    pub(crate) fn new(compiled: Compiled<GpuFused, ()>) -> Steps {
        let mut last_use = vec![0; compiled.locals.len()];
        for (number, step) in compiled.steps.iter().enumerate() {
            for local in step.operands.iter().chain(&step.results) {
                last_use[*local] = number;
            }
        }
        for (local, _) in &compiled.moved {
            last_use[*local] = compiled.steps.len();
        }
        Steps { compiled, last_use }
    }

    fn needs_host(&self) -> bool {
        self.compiled.steps.iter().any(|step| matches!(step.work, StepWork::Evaluate { .. }))
    }
}

/// An engine with the places of its tensors.
pub(crate) struct BoundEngine {
    pub(crate) execution: SharedEngine,
    pub(crate) inputs: Vec<(String, Source)>,
    pub(crate) outputs: Vec<(String, Source)>,
}

/// Where a tensor of an engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The read of the kernel of this number.
    Read(usize),
    /// The write of this number.
    Write(usize),
    /// A vector as long as this symbol.
    Length(Symbol),
}

impl BoundEngine {
    /// Finds the values that an engine is bound to among those of its kernel.
    pub(crate) fn new(
        (unit, execution): (&EngineUnit, SharedEngine),
        kernel: &KernelCode,
        value: &dyn Fn(djinn_plan::ValueRef) -> Result<ValueId>,
    ) -> Result<BoundEngine> {
        let missing = |name: &str| internal("runtime.engine", format!("nothing is bound to '{name}'"));
        let find = |name: &str, bound: &EngineValue, written: bool| -> Result<Source> {
            let bound = match bound {
                EngineValue::Length(symbol) => return Ok(Source::Length(Symbol::new(symbol))),
                EngineValue::Value(v) => value(*v)?,
            };
            let read = || kernel.reads.iter().position(|r| r.value == bound).map(Source::Read);
            let write = || kernel.writes.iter().position(|w| w.to.value == bound).map(Source::Write);
            if written { write() } else { read() }.ok_or_else(|| missing(name))
        };
        let all = |tensors: &[(String, EngineValue)], written| -> Result<Vec<(String, Source)>> {
            tensors.iter().map(|(name, bound)| Ok((name.clone(), find(name, bound, written)?))).collect()
        };
        let (inputs, outputs) = (all(&unit.inputs, false)?, all(&unit.outputs, true)?);
        Ok(BoundEngine { execution, inputs, outputs })
    }
}

/// An entry ready to be enqueued.
pub(crate) struct CudaEntry {
    pub(crate) kernels: Vec<CudaKernel>,
    /// A queue for each stream of the plan.
    pub(crate) streams: Vec<Queue>,
    pub(crate) events: Vec<Event>,
    /// What every stream waits for at the start of a run.
    pub(crate) fork: Event,
    /// Stream and position in it of every command, in the order of issue.
    pub(crate) order: Vec<(usize, usize)>,
    /// Pinned memory for each input and output that commands copy; grows.
    pub(crate) inputs: Vec<Option<PinnedMemory>>,
    pub(crate) outputs: Vec<Option<PinnedMemory>>,
    /// May runs be captured? Not if the host takes part in them, nor if engines have sizes that change: a graph would hold
    /// the state that an engine's execution context had (TensorRT documentation, "CUDA Graphs"). And not once that failed.
    pub(crate) may_capture: bool,
    /// Graphs by sizes, the last used one last.
    pub(crate) graphs: Vec<(Vec<i64>, Graph)>,
    /// Sizes of earlier runs, the last ones: a size that comes again is worth a graph.
    pub(crate) seen: Vec<Vec<i64>>,
    /// By output: the input that a command hands out as it.
    pub(crate) handed_on: Vec<Option<usize>>,
}

/// A stream of the plan.
pub(crate) struct Queue {
    pub(crate) stream: Stream,
    /// Marks the end of a run on it.
    pub(crate) join: Event,
    pub(crate) scratch: Scratch,
    /// Scratch memory of cuBLASLt, if there are products.
    pub(crate) blas: Option<DeviceMemory>,
}

impl CudaEntry {
    /// Makes streams and events. `devices`: the GPU in the place of each device of the plan, `first` in that of the host.
    pub(crate) fn new(
        entry: &Entry,
        code: &EntryCode,
        kernels: Vec<CudaKernel>,
        (devices, first): (&[Option<Device>], &Device),
    ) -> Result<CudaEntry> {
        let of = |stream: usize| {
            let device = entry.streams.get(stream).and_then(|s| devices.get(s.device.index())?.as_ref());
            device.unwrap_or(first)
        };
        let queue = |number: usize| -> Result<Queue> {
            let device = of(number);
            let (stream, join) = (Stream::new(device)?, Event::new(device, false)?);
            Ok(Queue { stream, join, scratch: Scratch::new(device), blas: None })
        };
        let streams = (0..code.streams.len().max(1)).map(queue).collect::<Result<Vec<_>>>()?;
        let mut recorded = vec![0; code.events];
        let mut order = vec![(0, 0); code.commands];
        for (number, steps) in code.streams.iter().enumerate() {
            for (position, step) in steps.iter().enumerate() {
                order[step.command] = (number, position);
                if let Work::Record(event) = step.work {
                    recorded[event] = number;
                }
            }
        }
        let events = recorded.iter().map(|s| Event::new(of(*s), false)).collect::<Result<_>>()?;
        let needs_host = kernels.iter().filter_map(|k| k.steps.as_ref()).any(Steps::needs_host);
        let has_engines = kernels.iter().any(|k| k.engine.is_some());
        let may_capture = !needs_host && (!has_engines || entry.symbols.is_empty());
        Ok(CudaEntry {
            kernels,
            events,
            fork: Event::new(of(0), false)?,
            streams,
            order,
            inputs: code.inputs.iter().map(|_| None).collect(),
            outputs: code.outputs.iter().map(|_| None).collect(),
            may_capture,
            graphs: Vec::new(),
            seen: Vec::new(),
            handed_on: handed_on(code),
        })
    }

    /// With scratch memory for cuBLASLt on these streams, which the plan does not count.
    pub(crate) fn with_blas(mut self, streams: &BTreeSet<usize>) -> Result<CudaEntry> {
        for (_, queue) in self.streams.iter_mut().enumerate().filter(|(n, _)| streams.contains(n)) {
            let memory = DeviceMemory::new(queue.stream.device(), BLAS_BYTES);
            queue.blas = Some(memory.at(|| "workspace of cuBLASLt, beside what is planned")?);
        }
        Ok(self)
    }

    /// Pinned memory of at least so many bytes in the place of an input or output; graphs hold the address of the old one.
    pub(crate) fn staging<'s>(
        staging: &'s mut Option<PinnedMemory>,
        graphs: &mut Vec<(Vec<i64>, Graph)>,
        device: &Device,
        bytes: u64,
    ) -> Result<&'s PinnedMemory> {
        if staging.as_ref().is_none_or(|s| s.bytes() < bytes) {
            graphs.clear();
            *staging = Some(PinnedMemory::new(device, roomy(bytes))?);
        }
        staging.as_ref().ok_or_else(|| internal("runtime.staging", "staging memory is missing"))
    }
}

/// Bytes to allocate where so many are needed and more may be soon: what is asked for grows in steps that double.
pub(crate) fn roomy(bytes: u64) -> u64 {
    bytes.checked_next_power_of_two().unwrap_or(bytes)
}

/// By output: the input that a command hands out as it.
fn handed_on(code: &EntryCode) -> Vec<Option<usize>> {
    let mut inputs = vec![None; code.outputs.len()];
    for step in code.streams.iter().flatten() {
        if let Work::Copy(copy) = &step.work
            && let (End::Input(from), End::Output(to)) = (copy.from, copy.to)
        {
            inputs[to] = Some(from);
        }
    }
    inputs
}

/// Are there products in this kernel that cuBLASLt has?
pub(crate) fn has_products(graph: &IrGraph, kernel: &KernelCode) -> bool {
    kernel.ops.iter().filter_map(|code| graph.get_op(code.op)).any(|op| is_product(graph, op))
}
