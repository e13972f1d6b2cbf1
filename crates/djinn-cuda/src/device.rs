//! GPUs.

use crate::driver::Driver;
use crate::error::Explain;
use cudarc::driver::sys::{self, CUdevice_attribute};
use cudarc::driver::{DriverError, result};
use djinn_diag::{Result, unsupported};
use std::fmt;
use std::sync::Arc;

/// A GPU and its primary context, which lives as long as one of these.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    ordinal: usize,
    device: sys::CUdevice,
    context: sys::CUcontext,
    name: String,
    capability: u32,
}

#[allow(unsafe_code, reason = "a context is known by address")]
// SAFETY: the driver guards contexts with its own locks; the address is only passed to it.
unsafe impl Send for Inner {}
#[allow(unsafe_code, reason = "a context is known by address")]
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("ordinal", &self.0.ordinal).field("name", &self.0.name).finish()
    }
}

impl Device {
    /// The GPU of this number.
    ///
    /// # Errors
    /// `cuda.device` if there is none, `cuda.driver` if it cannot be used.
    #[allow(unsafe_code, reason = "the driver is called")]
    pub fn open(driver: &Driver, ordinal: usize) -> Result<Device> {
        let count = driver.devices()?;
        if ordinal >= count {
            let message = format!("there is no GPU {ordinal}: this machine has {count}");
            return Err(unsupported("cuda.device", message).help("GPUs are numbered from 0"));
        }
        let what = || format!("opening GPU {ordinal}");
        let device = result::device::get(ordinal as i32).explain(what)?;
        // SAFETY: the device was just asked for; the context is released once, when the last `Device` goes.
        let context = unsafe { result::primary_ctx::retain(device) }.explain(what)?;
        let attribute = |which| {
            // SAFETY: as above.
            unsafe { result::device::get_attribute(device, which) }
        };
        let describe = || -> std::result::Result<(String, u32), DriverError> {
            let major = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
            let minor = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
            let capability = u32::try_from(major * 10 + minor).unwrap_or(0);
            Ok((result::device::get_name(device)?, capability))
        };
        let mut inner = Inner { ordinal, device, context, name: String::new(), capability: 0 };
        (inner.name, inner.capability) = describe().explain(what)?;
        Ok(Device(Arc::new(inner)))
    }

    /// Its number.
    pub fn ordinal(&self) -> usize {
        self.0.ordinal
    }

    /// Its name, such as `NVIDIA H200`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its compute capability: 90 for 9.0.
    pub fn compute_capability(&self) -> u32 {
        self.0.capability
    }

    /// Free bytes, and all.
    ///
    /// # Errors
    /// `cuda.driver` if the driver does not say.
    pub fn memory(&self) -> Result<(u64, u64)> {
        self.make_current()?;
        let (free, total) = result::mem_get_info().explain(|| "asking for free memory".to_owned())?;
        Ok((free as u64, total as u64))
    }

    /// Lets kernels and copies of this GPU reach the memory of another. `false`: they cannot, and copies go through the
    /// memory of the host.
    ///
    /// # Errors
    /// `cuda.driver` if the driver refuses.
    #[allow(unsafe_code, reason = "the driver is called")]
    pub fn enable_peer(&self, other: &Device) -> Result<bool> {
        let what = || format!("connecting GPU {} to GPU {}", self.ordinal(), other.ordinal());
        let mut able = 0;
        // SAFETY: the driver writes one integer.
        let asked = unsafe { sys::cuDeviceCanAccessPeer(&raw mut able, self.0.device, other.0.device) };
        asked.result().explain(what)?;
        if able == 0 {
            return Ok(false);
        }
        self.make_current()?;
        // SAFETY: the other context is alive.
        match unsafe { sys::cuCtxEnablePeerAccess(other.0.context, 0) } {
            sys::CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED => Ok(true),
            result => result.result().explain(what).map(|()| true),
        }
    }

    /// Reads bytes from an address.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Safety
    /// The range lies in memory of this GPU that lives.
    #[allow(unsafe_code, reason = "the caller vouches for the address")]
    pub unsafe fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.make_current()?;
        let count = bytes.len();
        // SAFETY: the caller's contract; the call returns when the bytes are written.
        let done = unsafe { result::memcpy_dtoh_sync(bytes, address) };
        done.explain(|| format!("copying {count} bytes from GPU {}", self.ordinal()))
    }

    /// Writes bytes to an address, and waits until they are there.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Safety
    /// As for [`Device::read`]; no command that uses the range is on its way.
    #[allow(unsafe_code, reason = "the caller vouches for the address")]
    pub unsafe fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.make_current()?;
        // SAFETY: the caller's contract; the call returns when the bytes have been read.
        let done = unsafe { result::memcpy_htod_sync(address, bytes) };
        done.explain(|| format!("copying {} bytes to GPU {}", bytes.len(), self.ordinal()))?;
        self.settle()
    }

    /// Waits for the default stream: copies from pageable memory and fills return before they have reached the GPU (CUDA
    /// driver API, "API synchronization behavior"), and streams that wait for no other do not wait for it either.
    #[allow(unsafe_code, reason = "the driver is called")]
    pub(crate) fn settle(&self) -> Result<()> {
        // SAFETY: the default stream is always there.
        let done = unsafe { result::stream::synchronize(result::stream::null()) };
        done.explain(|| format!("waiting for GPU {}", self.ordinal()))
    }

    /// Waits until everything enqueued on it is done.
    ///
    /// # Errors
    /// What went wrong in any command before.
    pub fn synchronize(&self) -> Result<()> {
        self.make_current()?;
        result::ctx::synchronize().explain(|| format!("waiting for GPU {}", self.ordinal()))
    }

    /// Makes this the GPU that calls of this thread are for.
    ///
    /// # Errors
    /// `cuda.driver` if the driver refuses.
    #[allow(unsafe_code, reason = "the driver is called")]
    pub fn make_current(&self) -> Result<()> {
        // SAFETY: the context is alive.
        let made = unsafe { result::ctx::set_current(self.0.context) };
        made.explain(|| format!("using GPU {}", self.ordinal()))
    }

    pub(crate) fn context(&self) -> sys::CUcontext {
        self.0.context
    }
}

impl Drop for Inner {
    #[allow(unsafe_code, reason = "the driver is called")]
    fn drop(&mut self) {
        // SAFETY: the context was retained once for this.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}
