//! Queues of commands.

use crate::device::Device;
use crate::error::Explain;
use crate::graph::Graph;
use crate::module::Function;
use cudarc::driver::DriverError;
use cudarc::driver::result::{self, stream::StreamKind};
use cudarc::driver::sys::{self, CUevent_flags_enum, CUevent_wait_flags, CUstreamCaptureMode};
use djinn_diag::Result;
use std::ffi::c_void;

/// A queue of commands on a GPU, executed one after the other.
#[derive(Debug)]
pub struct Stream {
    device: Device,
    raw: sys::CUstream,
}

#[allow(unsafe_code, reason = "a stream is known by address")]
// SAFETY: the driver guards streams with its own locks.
unsafe impl Send for Stream {}
#[allow(unsafe_code, reason = "a stream is known by address")]
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    /// A stream that waits for no other.
    ///
    /// # Errors
    /// What the driver says.
    pub fn new(device: &Device) -> Result<Stream> {
        device.make_current()?;
        let raw = result::stream::create(StreamKind::NonBlocking);
        let raw = raw.explain(|| format!("making a stream on GPU {}", device.ordinal()))?;
        Ok(Stream { device: device.clone(), raw })
    }

    /// The GPU.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The stream as CUDA's libraries know it.
    pub fn raw(&self) -> *mut c_void {
        self.raw.cast()
    }

    /// Copies bytes of pinned memory to a GPU.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Safety
    /// Both ranges live, and what is read does not change, until the stream has passed.
    #[allow(unsafe_code, reason = "the caller vouches for the addresses")]
    pub unsafe fn copy_to_device(&self, to: u64, from: *const u8, bytes: u64) -> Result<()> {
        // SAFETY: the caller's contract.
        let call = |count| unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.cast(), count, self.raw).result() };
        self.transfer(bytes, call, || format!("copying {bytes} bytes to GPU {}", self.device.ordinal()))
    }

    /// Copies bytes of a GPU to pinned memory.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Safety
    /// Both ranges live, and nobody looks at what is written, until the stream has passed.
    #[allow(unsafe_code, reason = "the caller vouches for the addresses")]
    pub unsafe fn copy_to_host(&self, to: *mut u8, from: u64, bytes: u64) -> Result<()> {
        // SAFETY: the caller's contract.
        let call = |count| unsafe { sys::cuMemcpyDtoHAsync_v2(to.cast(), from, count, self.raw).result() };
        self.transfer(bytes, call, || format!("copying {bytes} bytes from GPU {}", self.device.ordinal()))
    }

    /// Copies bytes within the memory of the GPU; the ranges must not overlap.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Safety
    /// Both ranges live until the stream has passed.
    #[allow(unsafe_code, reason = "the caller vouches for the addresses")]
    pub unsafe fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<()> {
        // SAFETY: the caller's contract.
        let call = |count| unsafe { result::memcpy_dtod_async(to, from, count, self.raw) };
        self.transfer(bytes, call, || format!("copying {bytes} bytes on GPU {}", self.device.ordinal()))
    }

    /// Copies bytes from the memory of one GPU to that of another.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Safety
    /// Both ranges live until the stream has passed.
    #[allow(unsafe_code, reason = "the caller vouches for the addresses")]
    pub unsafe fn copy_peer(&self, to: (&Device, u64), from: (&Device, u64), bytes: u64) -> Result<()> {
        // SAFETY: the caller's contract; the contexts are alive.
        let call = |count| unsafe {
            result::memcpy_peer_async(to.0.context(), to.1, from.0.context(), from.1, count, self.raw)
        };
        self.transfer(bytes, call, || {
            format!("copying {bytes} bytes from GPU {} to GPU {}", from.0.ordinal(), to.0.ordinal())
        })
    }

    /// Sets bytes of the memory of the GPU.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Safety
    /// The range lives until the stream has passed.
    #[allow(unsafe_code, reason = "the caller vouches for the addresses")]
    pub unsafe fn fill(&self, at: u64, value: u8, bytes: u64) -> Result<()> {
        // SAFETY: the caller's contract.
        let call = |count| unsafe { result::memset_d8_async(at, value, count, self.raw) };
        self.transfer(bytes, call, || format!("filling {bytes} bytes on GPU {}", self.device.ordinal()))
    }

    /// Copies between any two ranges of memory of GPUs or pinned memory, wherever their addresses say that they are.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Safety
    /// Both ranges live until the stream has passed.
    #[allow(unsafe_code, reason = "the caller vouches for the addresses")]
    pub unsafe fn copy_anywhere(&self, to: u64, from: u64, bytes: u64) -> Result<()> {
        // SAFETY: the caller's contract.
        let call = |count| unsafe { sys::cuMemcpyAsync(to, from, count, self.raw).result() };
        self.transfer(bytes, call, || format!("copying {bytes} bytes"))
    }

    /// Enqueues a command on so many bytes; none on none, which CUDA refuses.
    fn transfer(
        &self,
        bytes: u64,
        call: impl FnOnce(usize) -> std::result::Result<(), DriverError>,
        what: impl FnOnce() -> String,
    ) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.device.make_current()?;
        call(bytes as usize).explain(what)
    }

    /// Runs a kernel: `grid` and `block` are numbers of blocks and of threads of one. `arguments` point to its arguments,
    /// which are copied at once.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Safety
    /// There are as many arguments, of the types, as the kernel has; the memory that it touches lives until the stream
    /// has passed.
    #[allow(unsafe_code, reason = "the caller vouches for the arguments")]
    pub unsafe fn launch(
        &self,
        function: &Function,
        (grid, block): ([u32; 3], [u32; 3]),
        shared_bytes: u32,
        arguments: &mut [*mut c_void],
    ) -> Result<()> {
        self.device.make_current()?;
        let dims = |d: [u32; 3]| (d[0], d[1], d[2]);
        let raw = function.raw();
        // SAFETY: the caller's contract; the function keeps its module alive.
        let done =
            unsafe { result::launch_kernel(raw, dims(grid), dims(block), shared_bytes, self.raw, arguments) };
        done.explain(|| format!("launching '{}' on {grid:?} blocks of {block:?}", function.name()))
    }

    /// Marks this moment of the stream.
    ///
    /// # Errors
    /// What the driver says.
    #[allow(unsafe_code, reason = "the driver is called")]
    pub fn record(&self, event: &Event) -> Result<()> {
        self.device.make_current()?;
        // SAFETY: both are alive; the driver keeps what it needs of an event that goes.
        unsafe { result::event::record(event.raw, self.raw) }.explain(|| "recording an event".to_owned())
    }

    /// What comes later waits for the moment that the event marks.
    ///
    /// # Errors
    /// What the driver says.
    #[allow(unsafe_code, reason = "the driver is called")]
    pub fn wait(&self, event: &Event) -> Result<()> {
        self.device.make_current()?;
        let flags = CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: as in `record`.
        let done = unsafe { result::stream::wait_event(self.raw, event.raw, flags) };
        done.explain(|| "waiting for an event".to_owned())
    }

    /// Waits until everything enqueued is done.
    ///
    /// # Errors
    /// What went wrong in any command before.
    #[allow(unsafe_code, reason = "the driver is called")]
    pub fn synchronize(&self) -> Result<()> {
        self.device.make_current()?;
        // SAFETY: the stream is alive.
        let done = unsafe { result::stream::synchronize(self.raw) };
        done.explain(|| format!("running on GPU {}", self.device.ordinal()))
    }

    /// From here on, commands of this thread are recorded and not run, also those on streams that wait for this one.
    ///
    /// # Errors
    /// What the driver says.
    #[allow(unsafe_code, reason = "the driver is called")]
    pub fn begin_capture(&self) -> Result<()> {
        self.device.make_current()?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive.
        let done = unsafe { result::stream::begin_capture(self.raw, mode) };
        done.explain(|| "capturing a graph".to_owned())
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// `cuda.driver` if something was enqueued that no graph can hold, or a stream was not joined.
    #[allow(unsafe_code, reason = "the driver is called")]
    pub fn end_capture(&self) -> Result<Graph> {
        self.device.make_current()?;
        // SAFETY: the stream is alive, and the graph is destroyed once.
        let graph = unsafe { result::stream::end_capture(self.raw) };
        Graph::new(&self.device, graph.explain(|| "capturing a graph".to_owned())?)
    }
}

impl Drop for Stream {
    #[allow(unsafe_code, reason = "the driver is called")]
    fn drop(&mut self) {
        if self.device.make_current().is_ok() {
            // SAFETY: the stream is destroyed once; what is on it runs to its end.
            let _ = unsafe { result::stream::destroy(self.raw) };
        }
    }
}

/// A moment in a stream.
#[derive(Debug)]
pub struct Event {
    device: Device,
    raw: sys::CUevent,
}

#[allow(unsafe_code, reason = "an event is known by address")]
// SAFETY: the driver guards events with its own locks.
unsafe impl Send for Event {}
#[allow(unsafe_code, reason = "an event is known by address")]
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// An event that is not recorded; one that is not `timed` costs less.
    ///
    /// # Errors
    /// What the driver says.
    pub fn new(device: &Device, timed: bool) -> Result<Event> {
        device.make_current()?;
        let flags = if timed {
            CUevent_flags_enum::CU_EVENT_DEFAULT
        } else {
            CUevent_flags_enum::CU_EVENT_DISABLE_TIMING
        };
        let raw = result::event::create(flags).explain(|| "making an event".to_owned())?;
        Ok(Event { device: device.clone(), raw })
    }

    /// Seconds from an earlier event to this one; both are timed, recorded on this GPU, and passed.
    ///
    /// # Errors
    /// What the driver says.
    #[allow(unsafe_code, reason = "the driver is called")]
    pub fn seconds_since(&self, earlier: &Event) -> Result<f64> {
        self.device.make_current()?;
        // SAFETY: both are alive.
        let milliseconds = unsafe { result::event::elapsed(earlier.raw, self.raw) };
        let milliseconds = milliseconds.explain(|| "measuring between events".to_owned())?;
        Ok(f64::from(milliseconds) / 1e3)
    }
}

impl Drop for Event {
    #[allow(unsafe_code, reason = "the driver is called")]
    fn drop(&mut self) {
        if self.device.make_current().is_ok() {
            // SAFETY: the event is destroyed once.
            let _ = unsafe { result::event::destroy(self.raw) };
        }
    }
}
