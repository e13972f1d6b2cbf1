//! Commands recorded once and launched as one.

use crate::device::Device;
use crate::error::Explain;
use crate::stream::Stream;
use cudarc::driver::{result, sys};
use djinn_diag::Result;

/// A graph of commands, ready to run. What its commands use must live as long as it is launched.
#[derive(Debug)]
pub struct Graph {
    device: Device,
    raw: sys::CUgraphExec,
}

#[allow(unsafe_code, reason = "a graph is known by address")]
// SAFETY: the driver guards graphs with its own locks; one is launched by one thread at a time, since that takes `&mut`.
unsafe impl Send for Graph {}

impl Graph {
    #[allow(unsafe_code, reason = "the driver is called")]
    pub(crate) fn new(device: &Device, graph: sys::CUgraph) -> Result<Graph> {
        // SAFETY: the recorded graph is valid; it is destroyed once, when the executable one has been made of it.
        let raw = unsafe {
            let raw = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            let _ = result::graph::destroy(graph);
            raw
        };
        Ok(Graph { device: device.clone(), raw: raw.explain(|| "making a graph".to_owned())? })
    }

    /// Runs all commands as one command of a stream.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Safety
    /// What the recorded commands use is still there, and is not used by others until the stream has passed.
    #[allow(unsafe_code, reason = "the caller vouches for what was recorded")]
    pub unsafe fn launch(&mut self, stream: &Stream) -> Result<()> {
        self.device.make_current()?;
        // SAFETY: the caller's contract; graph and stream are alive.
        let done = unsafe { result::graph::launch(self.raw, stream.raw().cast()) };
        done.explain(|| "launching a graph".to_owned())
    }
}

impl Drop for Graph {
    #[allow(unsafe_code, reason = "the driver is called")]
    fn drop(&mut self) {
        if self.device.make_current().is_ok() {
            // SAFETY: the graph is destroyed once.
            let _ = unsafe { result::graph::exec_destroy(self.raw) };
        }
    }
}
