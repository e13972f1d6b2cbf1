//! The commands of an entry on its streams.

use super::launch::Launcher;
use super::machine::CudaMachine;
use super::memory::Place;
use super::prepare::CudaEntry;
use crate::code::{CopyCode, End, Work};
use crate::machine::Job;
use crate::resolve::{byte_size, type_of, wrong};
use djinn_cuda::Event;
use djinn_diag::{Context, Result};
use djinn_interp::Env;
use djinn_ir::ValueId;

/// Moments before and after a command, if commands are timed.
pub(crate) struct Timed {
    pub(crate) command: usize,
    pub(crate) stream: usize,
    pub(crate) start: Event,
    pub(crate) end: Event,
}

/// A run that is being enqueued.
pub(crate) struct Enqueue<'a> {
    pub(crate) machine: &'a CudaMachine,
    pub(crate) job: &'a Job<'a>,
    pub(crate) entry: &'a mut CudaEntry,
    pub(crate) env: Env,
    /// `Some`: launches and copies are timed.
    pub(crate) timed: Option<Vec<Timed>>,
}

impl Enqueue<'_> {
    /// Enqueues everything: a fork from the first stream, the commands, a join to it.
    pub(crate) fn all(&mut self) -> Result<()> {
        if let [first, rest @ ..] = self.entry.streams.as_slice() {
            first.stream.record(&self.entry.fork)?;
            rest.iter().try_for_each(|queue| queue.stream.wait(&self.entry.fork))?;
        }
        let steps = &self.job.code.streams;
        for command in 0..self.entry.order.len() {
            let (stream, position) = self.entry.order[command];
            let step = &steps[stream][position];
            self.command(command, stream, &step.work).at(|| format!("command {command}"))?;
        }
        if let [first, rest @ ..] = self.entry.streams.as_slice() {
            for queue in rest {
                queue.stream.record(&queue.join)?;
                first.stream.wait(&queue.join)?;
            }
        }
        Ok(())
    }

    fn command(&mut self, command: usize, stream: usize, work: &Work) -> Result<()> {
        match work {
            Work::Record(event) => {
                self.entry.streams[stream].stream.record(self.event(*event)?)?;
            }
            Work::Wait(event) => {
                self.entry.streams[stream].stream.wait(self.event(*event)?)?;
            }
            Work::Copy(copy) => {
                let start = self.mark(stream)?;
                self.copy(stream, copy)?;
                self.note(command, stream, start)?;
            }
            Work::Launch(kernel) => {
                let start = self.mark(stream)?;
                let name = || format!("kernel '{}'", self.job.code.kernels[*kernel].name);
                self.launch(stream, *kernel).at(name)?;
                self.note(command, stream, start)?;
            }
        }
        Ok(())
    }

    fn event(&self, event: usize) -> Result<&Event> {
        self.entry.events.get(event).ok_or_else(|| wrong(format!("there is no event {event}")))
    }

    fn mark(&self, stream: usize) -> Result<Option<Event>> {
        if self.timed.is_none() {
            return Ok(None);
        }
        let stream = &self.entry.streams[stream].stream;
        let event = Event::new(stream.device(), true)?;
        stream.record(&event)?;
        Ok(Some(event))
    }

    fn note(&mut self, command: usize, stream: usize, start: Option<Event>) -> Result<()> {
        let end = self.mark(stream)?;
        if let (Some(start), Some(end), Some(timed)) = (start, end, &mut self.timed) {
            timed.push(Timed { command, stream, start, end });
        }
        Ok(())
    }

    fn bytes(&self, value: ValueId) -> Result<u64> {
        let ty = type_of(&self.job.code.table.function(self.job.program).graph, value)?;
        byte_size(ty, &self.env.shape(ty)?)
    }

    #[allow(unsafe_code, reason = "copies are enqueued")]
    fn copy(&mut self, stream: usize, copy: &CopyCode) -> Result<()> {
        let bytes = self.bytes(copy.result)?;
        if self.bytes(copy.value)? != bytes {
            return Err(wrong(format!("{} bytes are copied as {bytes}", self.bytes(copy.value)?)));
        }
        let memory = &self.machine.memory;
        let CudaEntry { streams, inputs, outputs, graphs, .. } = &mut *self.entry;
        let stream = &streams[stream].stream;
        let first = &self.machine.first;
        // Addresses beyond this point: arenas live as long as the machine, staging memory as long as the entry, and a run
        // is over before either is dropped or grows. Ranges lie inside their blocks: `place` and `address` check that.
        let host = |place: End, inputs: &mut [Option<_>], outputs: &mut [Option<_>], graphs: &mut Vec<_>| {
            let staging = match place {
                End::Input(i) => inputs.get_mut(i),
                End::Output(i) => outputs.get_mut(i),
                End::Slot(..) => None,
            };
            let staging = staging.ok_or_else(|| wrong("there is no such input or output"))?;
            CudaEntry::staging(staging, graphs, first, bytes)?.address(0, bytes)
        };
        match (copy.from, copy.to) {
            // Handed out without a detour when the run is over.
            (End::Input(_), End::Output(_)) => Ok(()),
            (from @ End::Input(_), End::Slot(to, _)) => {
                let from = host(from, inputs, outputs, graphs)?;
                match memory.place(&to, bytes)? {
                    // SAFETY: see above.
                    Place::Device(_, to) => unsafe { stream.copy_to_device(to, from, bytes) },
                    Place::Host(to) => unsafe {
                        // SAFETY: see above.
                        stream.copy_anywhere(to, from.expose_provenance() as u64, bytes)
                    },
                }
            }
            (End::Slot(from, _), to @ End::Output(_)) => {
                let to = host(to, inputs, outputs, graphs)?;
                match memory.place(&from, bytes)? {
                    // SAFETY: see above.
                    Place::Device(_, from) => unsafe { stream.copy_to_host(to, from, bytes) },
                    Place::Host(from) => unsafe {
                        // SAFETY: see above.
                        stream.copy_anywhere(to.expose_provenance() as u64, from, bytes)
                    },
                }
            }
            (End::Slot(from, _), End::Slot(to, _)) => {
                let (from, to) = (memory.place(&from, bytes)?, memory.place(&to, bytes)?);
                if from.address() == to.address() {
                    return Ok(());
                }
                let gpu = |device: usize| self.machine.gpu(device);
                match (from, to) {
                    // SAFETY: see above; the plan's checker found that the ranges do not overlap.
                    (Place::Device(a, from), Place::Device(b, to)) if a == b => unsafe {
                        stream.copy(to, from, bytes)
                    },
                    // SAFETY: see above.
                    (Place::Device(a, from), Place::Device(b, to)) => unsafe {
                        stream.copy_peer((gpu(b), to), (gpu(a), from), bytes)
                    },
                    // SAFETY: see above.
                    _ => unsafe { stream.copy_anywhere(to.address(), from.address(), bytes) },
                }
            }
            _ => Err(wrong("an output is no source and an input no destination of a copy")),
        }
    }

    fn launch(&mut self, stream: usize, number: usize) -> Result<()> {
        let kernel = self.job.code.kernels.get(number).ok_or_else(|| wrong("there is no such kernel"))?;
        let CudaEntry { kernels, streams, .. } = &mut *self.entry;
        let queue = &mut streams[stream];
        queue.scratch.clear();
        let graph = &self.job.code.table.function(self.job.program).graph;
        let ranges = &self.job.plan.entries[self.job.number].symbols;
        let mut launcher =
            Launcher { machine: self.machine, program: self.job.program, graph, kernel, queue, ranges };
        let one = kernels.get(number).ok_or_else(|| wrong("there is no such kernel"))?;
        match (&one.engine, &one.steps) {
            (Some(engine), _) => launcher.engine(engine, &self.env),
            (None, Some(steps)) => launcher.steps(steps, &mut self.env),
            (None, None) => Err(wrong("a kernel has neither an engine nor steps")),
        }
    }
}
