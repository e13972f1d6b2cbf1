//! Finding the driver.

use crate::error::Explain;
use cudarc::driver::{result, sys};
use djinn_diag::{Diagnostic, Result, unsupported};
use std::sync::OnceLock;

/// What this crate calls; `cudarc` panics if one is missing.
const FUNCTIONS: [&str; 47] = [
    "cuCtxEnablePeerAccess",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuDeviceCanAccessPeer",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime",
    "cuEventRecord",
    "cuFuncGetAttribute",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyAsync",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoH_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyHtoD_v2",
    "cuMemcpyPeerAsync",
    "cuMemsetD8Async",
    "cuMemsetD8_v2",
    "cuModuleGetFunction",
    "cuModuleLoadDataEx",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
];

/// The CUDA driver of this machine, initialised.
#[derive(Debug, Clone, Copy)]
pub struct Driver {
    version: i32,
}

impl Driver {
    /// Loads `libcuda.so` (or `.so.1`) as the loader finds it, and initialises it once in a process.
    ///
    /// # Errors
    /// `cuda.missing` if there is no driver, `cuda.device` if it knows no GPU, `cuda.driver` if it refuses.
    pub fn load() -> Result<Driver> {
        static DRIVER: OnceLock<std::result::Result<Driver, Box<Diagnostic>>> = OnceLock::new();
        DRIVER.get_or_init(Driver::find).clone()
    }

    #[allow(unsafe_code, reason = "the driver is loaded")]
    fn find() -> Result<Driver> {
        // SAFETY: loading the driver runs its initialisers and nothing of ours.
        if !unsafe { sys::is_culib_present() } {
            return Err(unsupported("cuda.missing", "this machine has no CUDA driver (libcuda.so.1)")
                .help("install NVIDIA's driver, or run on the host"));
        }
        // SAFETY: as above; functions are looked up and not called.
        let has =
            |name: &&str| unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()).is_ok() };
        if let Some(missing) = FUNCTIONS.iter().find(|name| !has(name)) {
            let problem = unsupported("cuda.driver", format!("the CUDA driver lacks '{missing}'"));
            return Err(problem.help("update the driver"));
        }
        let found = {
            result::init().explain(|| "initialising CUDA".to_owned())?;
            let mut version = 0;
            // SAFETY: the driver writes one integer.
            let asked = unsafe { sys::cuDriverGetVersion(&raw mut version) }.result();
            asked.explain(|| "asking for the driver's version".to_owned())?;
            Driver { version }
        };
        if found.devices()? == 0 {
            return Err(unsupported("cuda.device", "the CUDA driver knows no GPU").help("run on the host"));
        }
        Ok(found)
    }

    /// Number of GPUs.
    ///
    /// # Errors
    /// `cuda.driver` if the driver does not say.
    pub fn devices(&self) -> Result<usize> {
        let count = result::device::get_count().explain(|| "counting GPUs".to_owned())?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// The newest CUDA that the driver supports: 12080 for 12.8.
    pub fn version(&self) -> i32 {
        self.version
    }
}
