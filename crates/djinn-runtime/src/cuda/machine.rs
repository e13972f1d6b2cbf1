//! GPUs as a machine: runs of entries, and graphs for sizes that come again.

use super::engine::EngineUnit;
use super::enqueue::{Enqueue, Timed};
use super::memory::CudaMemory;
use super::prepare::{CudaEntry, has_products};
use crate::code::{EntryCode, Source};
use crate::jit::KernelReport;
use crate::machine::{Job, Machine, Ran};
use crate::memory::Store;
use crate::options::RunOptions;
use crate::output::Span;
use crate::resolve::{byte_size, type_of, wrong};
use crate::runtime::{Runtime, check_order, resolved};
use djinn_cuda::{Blas, Device, Driver, Event, Graph};
use djinn_diag::{Result, input, internal};
use djinn_interp::Env;
use djinn_ir::{Module, TensorData};
use djinn_plan::{Plan, StreamId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Graphs that an entry keeps.
const MAX_GRAPHS: usize = 16;

/// What runs a plan on GPUs.
#[derive(Debug, Default)]
pub struct CudaOptions {
    /// The GPU (numbered as CUDA numbers them) in the place of each device of the plan that is not the host, in order. One GPU
    /// may stand for several.
    pub gpus: Vec<usize>,
    /// PTX modules made ahead of time, with the compute capability that each is for (90 for 9.0); what they lack is
    /// compiled.
    pub ptx: Vec<(u32, String)>,
    /// Engines in the place of kernels.
    pub engines: Vec<EngineUnit>,
    /// Are runs whose sizes come again captured as graphs?
    pub graphs: bool,
    /// Is every command timed? Then nothing is captured.
    pub timed: bool,
}

impl Runtime {
    /// As [`Runtime::host`], on GPUs.
    ///
    /// # Errors
    /// Those of [`Runtime::host`]; `cuda.missing` and `cuda.device` without a driver or a GPU, `cuda.memory` if the arenas
    /// do not fit, `cuda.ptx` if the driver refuses the kernels.
    pub fn cuda(
        plan: Arc<Plan>,
        program: Arc<Module>,
        options: RunOptions,
        cuda: CudaOptions,
    ) -> Result<Runtime> {
        let entries = resolved(&plan, &program, &RunOptions { memory_limit: u64::MAX, ..options })?;
        check_order(&plan)?;
        let (machine, report) = CudaMachine::new(&plan, &program, &entries, &options, cuda)?;
        Runtime::start((plan, program), options, entries, Box::new(machine), report)
    }
}

/// GPUs, their memory, and the entries of a plan ready to run on them.
pub(crate) struct CudaMachine {
    /// Dropped before the memory that their commands use.
    entries: Vec<Option<CudaEntry>>,
    pub(crate) memory: CudaMemory,
    pub(super) blas: BTreeMap<usize, Blas>,
    /// By device of the plan; `None` for the host.
    pub(super) devices: Vec<Option<Device>>,
    /// The GPU in the place of the first device.
    pub(crate) first: Device,
    graphs: bool,
    timed: bool,
}

impl CudaMachine {
    fn new(
        plan: &Plan,
        program: &Module,
        code: &[EntryCode],
        options: &RunOptions,
        cuda: CudaOptions,
    ) -> Result<(CudaMachine, KernelReport)> {
        let driver = Driver::load()?;
        let devices = open(plan, &driver, &cuda.gpus)?;
        let first = devices.iter().flatten().next().cloned();
        let first = first.map_or_else(|| Device::open(&driver, 0), Ok)?;
        let memory = CudaMemory::new(plan, &devices, &first, options.poison)?;
        let mut machine = CudaMachine {
            entries: Vec::new(),
            memory,
            blas: BTreeMap::new(),
            devices,
            first,
            graphs: cuda.graphs && !cuda.timed,
            timed: cuda.timed,
        };
        let name = |device: &Device| format!("cuda:{} {}", device.ordinal(), device.name());
        let devices = machine.gpus().values().map(name).collect();
        let mut report = KernelReport { devices, ..KernelReport::default() };
        machine.open_blas(program, code, &mut report);
        machine.entries = machine.compile((plan, program), code, &cuda, &mut report)?;
        Ok((machine, report))
    }

    /// The GPU in the place of a device of the plan.
    pub(crate) fn gpu(&self, device: usize) -> &Device {
        self.devices.get(device).and_then(Option::as_ref).unwrap_or(&self.first)
    }

    /// cuBLASLt on a GPU.
    pub(crate) fn blas(&self, device: &Device) -> Result<&Blas> {
        self.blas.get(&device.ordinal()).ok_or_else(|| internal("cuda.blas", "cuBLASLt is not open"))
    }

    /// The GPUs by number.
    pub(super) fn gpus(&self) -> BTreeMap<usize, Device> {
        let all = self.devices.iter().flatten().chain([&self.first]);
        all.map(|device| (device.ordinal(), device.clone())).collect()
    }

    /// Opens cuBLASLt where products want it; without it they are kernels.
    fn open_blas(&mut self, program: &Module, code: &[EntryCode], report: &mut KernelReport) {
        let products = |entry: &EntryCode| {
            let graph = &entry.table.function(program).graph;
            entry.kernels.iter().any(|kernel| has_products(graph, kernel))
        };
        if !code.iter().any(products) {
            return;
        }
        for (ordinal, device) in self.gpus() {
            match Blas::new(&device) {
                Ok(blas) => drop(self.blas.insert(ordinal, blas)),
                Err(problem) => {
                    report.problems.push(problem);
                    self.blas.clear();
                    return;
                }
            }
        }
    }

    fn run(&self, entry: &mut CudaEntry, job: &Job, env: Env, ran: &mut Ran) -> Result<()> {
        stage_inputs(entry, job, &self.first)?;
        let sizes: Vec<i64> = env.iter().map(|(_, value)| value).collect();
        let again = entry.seen.contains(&sizes);
        ran.env = env;
        if self.graphs && entry.may_capture {
            if again && !entry.graphs.iter().any(|(of, _)| *of == sizes) {
                self.capture(entry, job, &ran.env, &sizes);
            }
            if let Some(at) = entry.graphs.iter().position(|(of, _)| *of == sizes) {
                // The one used last is the last.
                let used = entry.graphs.remove(at);
                entry.graphs.push(used);
                ran.graph = true;
                return launch_graph(entry);
            }
        }
        let timed = self.timed.then(Vec::new);
        let starts = if self.timed { start_marks(entry)? } else { Vec::new() };
        let mut enqueue = Enqueue { machine: self, job, entry, env: ran.env.clone(), timed };
        let done = enqueue.all();
        let (env, timed) = (enqueue.env, enqueue.timed);
        let waited = synchronize(entry);
        done?;
        waited?;
        ran.env = env;
        ran.trace = spans(&starts, timed.unwrap_or_default())?;
        if !again {
            entry.seen.push(sizes);
            let surplus = entry.seen.len().saturating_sub(MAX_GRAPHS);
            entry.seen.drain(..surplus);
        }
        Ok(())
    }

    /// Captures a run as a graph; what cannot be captured is run as it is from then on.
    fn capture(&self, entry: &mut CudaEntry, job: &Job, env: &Env, sizes: &[i64]) {
        let mut captured = || -> Result<Graph> {
            let Some(first) = entry.streams.first() else { return Err(internal("cuda.graph", "no stream")) };
            first.stream.begin_capture()?;
            let mut enqueue =
                Enqueue { machine: self, job, entry: &mut *entry, env: env.clone(), timed: None };
            let done = enqueue.all();
            let graph = entry.streams[0].stream.end_capture();
            done.and(graph)
        };
        match captured() {
            Ok(graph) => {
                entry.graphs.push((sizes.to_vec(), graph));
                let surplus = entry.graphs.len().saturating_sub(MAX_GRAPHS);
                entry.graphs.drain(..surplus);
            }
            Err(_) => entry.may_capture = false,
        }
    }
}

impl Machine for CudaMachine {
    fn memory(&self) -> &dyn Store {
        &self.memory
    }

    fn memory_mut(&mut self) -> &mut dyn Store {
        &mut self.memory
    }

    fn takes(&self, entry: usize) -> bool {
        self.entries.get(entry).is_some_and(Option::is_some)
    }

    fn execute(&mut self, job: &Job, env: Env) -> Ran {
        let start = Instant::now();
        let mut ran = Ran::default();
        let Some(mut entry) = self.entries.get_mut(job.number).and_then(Option::take) else {
            ran.failure = Some(internal("runtime.entry", "an entry is not there"));
            return ran;
        };
        let done = self.run(&mut entry, job, env, &mut ran);
        ran.elapsed_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let taken = done.and_then(|()| take_outputs(&entry, job, &ran.env));
        match taken {
            Ok(outputs) => ran.outputs = outputs,
            Err(problem) => {
                // Nothing may be on its way when memory is used again.
                let _ = synchronize(&entry);
                ran.failure = Some(problem);
            }
        }
        self.entries[job.number] = Some(entry);
        ran
    }
}

/// The GPU in the place of each device.
fn open(plan: &Plan, driver: &Driver, gpus: &[usize]) -> Result<Vec<Option<Device>>> {
    let wanted = plan.devices.iter().filter(|d| !d.host).count();
    if gpus.len() != wanted {
        let devices = if wanted == 1 { "1 device".to_owned() } else { format!("{wanted} devices") };
        let message = format!("the plan is for {devices}, and {} GPUs are to run it", gpus.len());
        return Err(input("runtime.devices", message)
            .help("name as many GPUs as the plan has devices, such as --device cuda:0,cuda:1"));
    }
    let mut opened: BTreeMap<usize, Device> = BTreeMap::new();
    for ordinal in gpus {
        if !opened.contains_key(ordinal) {
            opened.insert(*ordinal, Device::open(driver, *ordinal)?);
        }
    }
    for (a, one) in &opened {
        for (_, other) in opened.iter().filter(|(b, _)| *b != a) {
            one.enable_peer(other)?;
        }
    }
    let mut gpus = gpus.iter();
    Ok(plan.devices.iter().map(|d| if d.host { None } else { opened.get(gpus.next()?).cloned() }).collect())
}

/// Puts the inputs that commands copy into pinned memory.
fn stage_inputs(entry: &mut CudaEntry, job: &Job, first: &Device) -> Result<()> {
    for ((value, port), staging) in job.inputs.iter().zip(&job.code.inputs).zip(&mut entry.inputs) {
        if let (Some(value), None) = (value, &port.resident) {
            let bytes = value.bytes();
            CudaEntry::staging(staging, &mut entry.graphs, first, bytes.len() as u64)?.write(0, bytes)?;
        }
    }
    Ok(())
}

/// Waits for everything on all streams; the first problem counts.
fn synchronize(entry: &CudaEntry) -> Result<()> {
    let waited: Vec<Result<()>> = entry.streams.iter().map(|queue| queue.stream.synchronize()).collect();
    waited.into_iter().collect()
}

#[allow(unsafe_code, reason = "a graph is launched")]
fn launch_graph(entry: &mut CudaEntry) -> Result<()> {
    let (Some(first), Some((_, graph))) = (entry.streams.first(), entry.graphs.last_mut()) else {
        return Err(internal("cuda.graph", "a graph is missing"));
    };
    // SAFETY: what the graph uses lives as long as the machine and the entry; graphs are dropped when staging memory moves,
    // and runs of one machine come one after the other.
    unsafe { graph.launch(&first.stream)? }
    first.stream.synchronize()
}

/// What commands have copied to the caller.
fn take_outputs(entry: &CudaEntry, job: &Job, env: &Env) -> Result<Vec<Option<TensorData>>> {
    let graph = &job.code.table.function(job.program).graph;
    let mut outputs = Vec::with_capacity(job.code.outputs.len());
    let places = entry.outputs.iter().zip(&entry.handed_on);
    for (output, (staging, handed_on)) in job.code.outputs.iter().zip(places) {
        if !matches!(output.source, Source::Copied) {
            outputs.push(None);
            continue;
        }
        let ty = type_of(graph, output.value)?;
        let shape = env.shape(ty)?;
        let bytes = byte_size(ty, &shape)?;
        let tensor = match (handed_on, staging) {
            (Some(input), _) => job.inputs.get(*input).cloned().flatten().and_then(|v| v.reshaped(shape)),
            (None, Some(staging)) => TensorData::new(ty.dtype, shape, staging.read(0, bytes as usize)?),
            (None, None) => None,
        };
        let missing = || wrong(format!("output '{}' has no value", output.name));
        outputs.push(Some(tensor.ok_or_else(missing)?));
    }
    Ok(outputs)
}

/// A moment at the start of each stream.
fn start_marks(entry: &CudaEntry) -> Result<Vec<Event>> {
    let mark = |queue: &super::prepare::Queue| {
        let event = Event::new(queue.stream.device(), true)?;
        queue.stream.record(&event)?;
        Ok(event)
    };
    entry.streams.iter().map(mark).collect()
}

/// When commands ran, from the marks of their streams, which were made at nearly the same time.
fn spans(starts: &[Event], timed: Vec<Timed>) -> Result<Vec<Span>> {
    let mut spans = Vec::with_capacity(timed.len());
    for one in timed {
        let nanoseconds = |event: &Event| -> Result<u64> {
            let start =
                starts.get(one.stream).ok_or_else(|| internal("runtime.trace", "a mark is missing"))?;
            Ok((event.seconds_since(start)?.max(0.0) * 1e9) as u64)
        };
        let (start_ns, end_ns) = (nanoseconds(&one.start)?, nanoseconds(&one.end)?);
        let (command, stream) = (one.command as u32, StreamId(one.stream as u32));
        spans.push(Span { command, stream, start_ns, end_ns });
    }
    Ok(spans)
}
