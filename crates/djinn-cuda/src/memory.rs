//! Blocks of memory.

use crate::device::Device;
use crate::error::Explain;
use cudarc::driver::result;
use djinn_diag::{Result, internal};

/// A block of memory on a GPU.
#[derive(Debug)]
pub struct DeviceMemory {
    device: Device,
    address: u64,
    bytes: u64,
}

impl DeviceMemory {
    /// Allocates so many bytes; none is a block without an address.
    ///
    /// # Errors
    /// `cuda.memory` if they are not there.
    #[allow(unsafe_code, reason = "the driver is called")]
    pub fn new(device: &Device, bytes: u64) -> Result<DeviceMemory> {
        device.make_current()?;
        let size = usize::try_from(bytes).map_err(|_| internal("cuda.memory", "a block is too large"))?;
        let address = match size {
            0 => 0,
            // SAFETY: the block is freed once; nothing reads it before it is written.
            _ => unsafe { result::malloc_sync(size) }
                .explain(|| format!("allocating {bytes} bytes on GPU {}", device.ordinal()))?,
        };
        Ok(DeviceMemory { device: device.clone(), address, bytes })
    }

    /// The GPU.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Address of the first byte.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes bytes from `offset` on, and waits until they are there.
    ///
    /// # Errors
    /// `cuda.range` beyond the end; what the driver says.
    #[allow(unsafe_code, reason = "the driver is called")]
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check(offset, bytes.len() as u64)?;
        // SAFETY: the range is inside the block.
        unsafe { self.device.write(self.address + offset, bytes) }
    }

    /// Reads bytes from `offset` on.
    ///
    /// # Errors
    /// `cuda.range` beyond the end; what the driver says.
    #[allow(unsafe_code, reason = "the driver is called")]
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.check(offset, bytes.len() as u64)?;
        // SAFETY: the range is inside the block.
        unsafe { self.device.read(self.address + offset, bytes) }
    }

    /// Sets bytes from `offset` on.
    ///
    /// # Errors
    /// `cuda.range` beyond the end; what the driver says.
    #[allow(unsafe_code, reason = "the driver is called")]
    pub fn fill(&self, offset: u64, bytes: u64, value: u8) -> Result<()> {
        self.check(offset, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        self.device.make_current()?;
        // SAFETY: the range is inside the block.
        let done = unsafe { result::memset_d8_sync(self.address + offset, value, bytes as usize) };
        done.explain(|| format!("filling {bytes} bytes on GPU {}", self.device.ordinal()))?;
        self.device.settle()
    }

    fn check(&self, offset: u64, bytes: u64) -> Result<()> {
        check_range(offset, bytes, self.bytes)
    }
}

impl Drop for DeviceMemory {
    #[allow(unsafe_code, reason = "the driver is called")]
    fn drop(&mut self) {
        if self.address != 0 && self.device.make_current().is_ok() {
            // SAFETY: the block is freed once; `cuMemFree` waits for commands that use it.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

/// A block of memory of the host that GPUs copy from and to while the host goes on.
#[derive(Debug)]
pub struct PinnedMemory {
    device: Device,
    start: *mut u8,
    bytes: u64,
}

#[allow(unsafe_code, reason = "pinned memory is known by address")]
// SAFETY: the block belongs to this value; it is not bound to a thread.
unsafe impl Send for PinnedMemory {}
#[allow(unsafe_code, reason = "pinned memory is known by address")]
// SAFETY: shared references only copy bytes in and out; see `write`.
unsafe impl Sync for PinnedMemory {}

impl PinnedMemory {
    /// Allocates so many bytes, which any GPU can reach.
    ///
    /// # Errors
    /// `cuda.memory` if they are not there.
    #[allow(unsafe_code, reason = "the driver is called")]
    pub fn new(device: &Device, bytes: u64) -> Result<PinnedMemory> {
        /// `CU_MEMHOSTALLOC_PORTABLE`: pinned for every context.
        const PORTABLE: u32 = 1;
        device.make_current()?;
        let size = usize::try_from(bytes).map_err(|_| internal("cuda.memory", "a block is too large"))?;
        let start = match size {
            0 => std::ptr::null_mut(),
            // SAFETY: the block is freed once; it is zeroed before anything reads it.
            _ => unsafe {
                let start = result::malloc_host(size, PORTABLE)
                    .explain(|| format!("pinning {bytes} bytes of the host's memory"))?
                    .cast::<u8>();
                start.write_bytes(0, size);
                start
            },
        };
        Ok(PinnedMemory { device: device.clone(), start, bytes })
    }

    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Address of a byte.
    ///
    /// # Errors
    /// `cuda.range` beyond the end.
    pub fn address(&self, offset: u64, bytes: u64) -> Result<*mut u8> {
        check_range(offset, bytes, self.bytes)?;
        Ok(self.start.wrapping_add(offset as usize))
    }

    /// Writes bytes from `offset` on. No command that uses them may be on its way: streams must be waited for before.
    ///
    /// # Errors
    /// `cuda.range` beyond the end.
    #[allow(unsafe_code, reason = "bytes are copied to an address")]
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let to = self.address(offset, bytes.len() as u64)?;
        if !bytes.is_empty() {
            // SAFETY: the range is inside the block, to which no Rust reference exists.
            unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
        }
        Ok(())
    }

    /// Reads bytes from `offset` on. Streams whose commands write them must be waited for before.
    ///
    /// # Errors
    /// `cuda.range` beyond the end.
    #[allow(unsafe_code, reason = "bytes are copied from an address")]
    pub fn read(&self, offset: u64, bytes: usize) -> Result<Vec<u8>> {
        let from = self.address(offset, bytes as u64)?;
        let mut out = vec![0; bytes];
        if bytes > 0 {
            // SAFETY: as in `write`.
            unsafe { from.copy_to_nonoverlapping(out.as_mut_ptr(), bytes) }
        }
        Ok(out)
    }

    /// Sets bytes from `offset` on; see [`PinnedMemory::write`].
    ///
    /// # Errors
    /// `cuda.range` beyond the end.
    #[allow(unsafe_code, reason = "bytes are written to an address")]
    pub fn fill(&self, offset: u64, bytes: u64, value: u8) -> Result<()> {
        let to = self.address(offset, bytes)?;
        if bytes > 0 {
            // SAFETY: as in `write`.
            unsafe { to.write_bytes(value, bytes as usize) }
        }
        Ok(())
    }
}

impl Drop for PinnedMemory {
    #[allow(unsafe_code, reason = "the driver is called")]
    fn drop(&mut self) {
        if !self.start.is_null() && self.device.make_current().is_ok() {
            // SAFETY: the block is freed once.
            let _ = unsafe { result::free_host(self.start.cast()) };
        }
    }
}

fn check_range(offset: u64, bytes: u64, all: u64) -> Result<()> {
    match offset.checked_add(bytes) {
        Some(end) if end <= all => Ok(()),
        _ => {
            Err(internal("cuda.range", format!("{bytes} bytes from byte {offset} on leave a block of {all}")))
        }
    }
}
