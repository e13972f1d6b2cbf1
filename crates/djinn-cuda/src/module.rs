//! Kernels.

use crate::device::Device;
use crate::error::failed;
use cudarc::driver::sys::{self, CUfunction_attribute, CUjit_option};
use cudarc::driver::{DriverError, result};
use djinn_diag::{Result, input};
use std::ffi::{CString, c_void};
use std::sync::Arc;

/// Bytes for what the driver's assembler says.
const LOG_BYTES: usize = 4096;

/// Kernels on a GPU, from PTX that the driver has compiled for it.
#[derive(Debug, Clone)]
pub struct Module(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    device: Device,
    raw: sys::CUmodule,
}

#[allow(unsafe_code, reason = "a module is known by address")]
// SAFETY: the driver guards modules with its own locks.
unsafe impl Send for Inner {}
#[allow(unsafe_code, reason = "a module is known by address")]
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Module {
    /// Compiles PTX for a GPU and loads it.
    ///
    /// # Errors
    /// `cuda.ptx` if the driver refuses it, with its words.
    #[allow(unsafe_code, reason = "the driver is called")]
    pub fn from_ptx(device: &Device, ptx: &str) -> Result<Module> {
        device.make_current()?;
        let text = CString::new(ptx).map_err(|_| input("cuda.ptx", "the PTX holds a zero byte"))?;
        let mut log = vec![0u8; LOG_BYTES];
        let mut options =
            [CUjit_option::CU_JIT_ERROR_LOG_BUFFER, CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        // The second value is a number in the place of a pointer.
        let mut values: [*mut c_void; 2] =
            [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut(LOG_BYTES)];
        let mut raw = std::ptr::null_mut();
        // SAFETY: the text ends with a zero, and there are as many values as options, each of the kind that CUDA asks for.
        let loaded = unsafe {
            sys::cuModuleLoadDataEx(
                &raw mut raw,
                text.as_ptr().cast(),
                options.len() as u32,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        if let Err(error) = loaded.result() {
            let said: String = log.iter().take_while(|b| **b != 0).map(|b| char::from(*b)).collect();
            let mut problem = failed("loading kernels", error);
            if !said.trim().is_empty() {
                problem.message = format!("{}: {}", problem.message, said.trim());
            }
            return Err(problem);
        }
        Ok(Module(Arc::new(Inner { device: device.clone(), raw })))
    }

    /// The kernel of this name; `None` if there is none.
    #[allow(unsafe_code, reason = "the driver is called")]
    pub fn function(&self, name: &str) -> Option<Function> {
        let text = CString::new(name).ok()?;
        self.0.device.make_current().ok()?;
        // SAFETY: the module is alive.
        let raw = unsafe { result::module::get_function(self.0.raw, text) }.ok()?;
        Some(Function { module: self.clone(), raw, name: name.into() })
    }
}

impl Drop for Inner {
    #[allow(unsafe_code, reason = "the driver is called")]
    fn drop(&mut self) {
        if self.device.make_current().is_ok() {
            // SAFETY: the module is unloaded once, when no function of it is left.
            let _ = unsafe { result::module::unload(self.raw) };
        }
    }
}

/// A kernel; it keeps its module loaded.
#[derive(Debug, Clone)]
pub struct Function {
    module: Module,
    raw: sys::CUfunction,
    name: Arc<str>,
}

#[allow(unsafe_code, reason = "a function is known by address")]
// SAFETY: as for modules.
unsafe impl Send for Function {}
#[allow(unsafe_code, reason = "a function is known by address")]
// SAFETY: as for modules.
unsafe impl Sync for Function {}

impl Function {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Registers of a thread, as the driver compiled it.
    ///
    /// # Errors
    /// What the driver says.
    #[allow(unsafe_code, reason = "the driver is called")]
    pub fn registers(&self) -> Result<u32> {
        self.module.0.device.make_current()?;
        let which = CUfunction_attribute::CU_FUNC_ATTRIBUTE_NUM_REGS;
        // SAFETY: the function is alive.
        let asked = unsafe { result::function::get_function_attribute(self.raw, which) };
        let explain = |error: DriverError| failed(&format!("asking about kernel '{}'", self.name), error);
        asked.map(|n| u32::try_from(n).unwrap_or(0)).map_err(explain)
    }

    pub(crate) fn raw(&self) -> sys::CUfunction {
        self.raw
    }
}
