//! Engines in the place of kernels.

use crate::jit::KernelReport;
use djinn_cuda::Device;
use djinn_diag::{Culprit, Result, internal};
use djinn_plan::ValueRef;
use djinn_tensorrt::{Binding, Loaded};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

/// A loaded engine.
pub trait EngineExecution: Send {
    /// Enqueues a run of the engine on a CUDA stream.
    ///
    /// # Errors
    /// What its library says.
    ///
    /// # Safety
    /// Every address holds a tensor of that shape, of the element type that the engine wants, which lives and is used by
    /// nothing else until the stream has passed; the stream belongs to the GPU that the engine was loaded on, which is
    /// current.
    #[allow(unsafe_code, reason = "the caller vouches for the addresses")]
    unsafe fn enqueue(
        &mut self,
        inputs: &[Binding<'_>],
        outputs: &[Binding<'_>],
        stream: *mut c_void,
    ) -> Result<()>;
}

impl EngineExecution for Loaded {
    #[allow(unsafe_code, reason = "the caller vouches for the addresses")]
    unsafe fn enqueue(
        &mut self,
        inputs: &[Binding<'_>],
        outputs: &[Binding<'_>],
        stream: *mut c_void,
    ) -> Result<()> {
        // SAFETY: the contract of both is the same.
        unsafe { Loaded::enqueue(self, inputs, outputs, stream) }
    }
}

/// What is bound to a tensor of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineValue {
    /// A value of the entry function: one that the kernel reads or writes.
    Value(ValueRef),
    /// Any vector as long as this symbol; its elements are not read.
    Length(String),
}

/// Loads an engine on the GPU that is current.
pub type LoadEngine = dyn Fn() -> Result<Box<dyn EngineExecution>> + Send + Sync;

/// An engine that does what a kernel of the plan says.
#[derive(Clone)]
pub struct EngineUnit {
    /// Number of the entry.
    pub entry: usize,
    /// Number of the kernel in the entry.
    pub kernel: usize,
    /// What engine it is: units with one key share what is loaded where they run one after the other.
    pub key: String,
    /// Inputs by name in the engine.
    pub inputs: Vec<(String, EngineValue)>,
    /// Outputs by name in the engine.
    pub outputs: Vec<(String, EngineValue)>,
    /// Loads it. If that is refused, the kernel runs by its steps.
    pub load: Arc<LoadEngine>,
}

impl std::fmt::Debug for EngineUnit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let EngineUnit { entry, kernel, key, .. } = self;
        f.debug_struct("EngineUnit").field("entry", entry).field("kernel", kernel).field("key", key).finish()
    }
}

/// A loaded engine that several kernels of one stream run.
pub(crate) type SharedEngine = Arc<Mutex<OnDevice>>;

/// A loaded engine and its GPU, which is current when the engine goes.
pub(crate) struct OnDevice {
    device: Device,
    /// `None` only while it is dropped.
    execution: Option<Box<dyn EngineExecution>>,
}

impl OnDevice {
    /// The engine.
    pub(crate) fn execution(&mut self) -> Result<&mut dyn EngineExecution> {
        let execution = self.execution.as_deref_mut();
        execution
            .map(|e| e as &mut dyn EngineExecution)
            .ok_or_else(|| internal("runtime.engine", "an engine is gone"))
    }
}

impl Drop for OnDevice {
    fn drop(&mut self) {
        // If the GPU is lost, so is what the engine has there.
        let _ = self.device.make_current();
        drop(self.execution.take());
    }
}

/// Engines that are loaded.
#[derive(Default)]
pub(crate) struct LoadedEngines {
    /// By engine, GPU, entry and number of the stream: one engine keeps its scratch memory to itself, and must not run twice
    /// at the same time; a captured graph holds the state that it had. `None`: it was refused.
    loaded: BTreeMap<(String, usize, usize, usize), Option<SharedEngine>>,
}

impl LoadedEngines {
    /// The engine of a unit for a stream of a GPU; `None` if it is refused, with the reason the first time.
    pub(crate) fn get(
        &mut self,
        unit: &EngineUnit,
        device: &Device,
        stream: usize,
        report: &mut KernelReport,
    ) -> Result<Option<SharedEngine>> {
        let key = (unit.key.clone(), device.ordinal(), unit.entry, stream);
        if let Some(known) = self.loaded.get(&key) {
            return Ok(known.clone());
        }
        device.make_current()?;
        let loaded = match (unit.load)() {
            Ok(execution) => {
                let device = device.clone();
                Some(Arc::new(Mutex::new(OnDevice { device, execution: Some(execution) })))
            }
            Err(problem) if problem.culprit == Culprit::Unsupported => {
                if !report.problems.contains(&problem) {
                    report.problems.push(problem);
                }
                None
            }
            Err(problem) => return Err(problem),
        };
        self.loaded.insert(key, loaded.clone());
        Ok(loaded)
    }
}
