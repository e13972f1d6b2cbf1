//! The C interface: memory, copies and fills.

use super::abi::{Handle, api, context_device, current, give, own_mode, stream_of};
use super::code::{Code, Result};
use super::space::of_device;
use super::state::{Guard, Wait, legacy_stream, wait};
use super::task::{Side, Work, host_bytes, side};
use std::alloc::{Layout, alloc, dealloc};
use std::ffi::{c_uchar, c_uint, c_ushort, c_void};

/// Is this address of the host inside pinned memory?
fn pinned(driver: &Guard, address: usize, size: usize) -> bool {
    let before = driver.pinned.range(..=address).next_back();
    before.is_some_and(|(base, length)| address - base + size <= *length)
}

fn check(driver: &Guard, side: &Side, size: usize) -> Result<()> {
    match side {
        Side::Device(address) if !of_device(*address) => Err(Code::INVALID_VALUE),
        // What is not there now may be there when the copy is done, but an address of nothing is refused at once.
        Side::Device(address) if driver.space.range(*address, size).is_none() => Err(Code::INVALID_VALUE),
        Side::Host(0) => Err(Code::INVALID_VALUE),
        _ => Ok(()),
    }
}

/// A copy in a stream. Pageable memory is read at once, and written before the call returns.
fn copy(mut driver: Guard, to: Side, from: Side, size: usize, stream: u64, wait_for_it: bool) -> Result<()> {
    if size == 0 {
        return Ok(());
    }
    check(&driver, &to, size)?;
    check(&driver, &from, size)?;
    let capturing = driver.stream(stream)?.capture.is_some();
    let device = driver.stream(stream)?.device;
    let pageable = |driver: &Guard, side: &Side| matches!(side, Side::Host(a) if !pinned(driver, *a, size));
    let reads = pageable(&driver, &from) && !capturing;
    let from = match from {
        Side::Host(address) if reads => Side::Bytes(host_bytes(address, size).into()),
        other => other,
    };
    let synchronous = wait_for_it || pageable(&driver, &to) && !capturing;
    let task = driver.enqueue(stream, Work::Copy { to, from, size })?;
    if synchronous {
        return wait(driver, &Wait::Tasks(vec![task])).healthy(device);
    }
    Ok(())
}

/// A copy that the caller waits for, in the legacy stream.
fn copy_now(mut driver: Guard, to: Side, from: Side, size: usize) -> Result<()> {
    let device = current(&driver)?;
    driver.no_capture(own_mode())?;
    copy(driver, to, from, size, legacy_stream(device), true)
}

fn fill(mut driver: Guard, to: u64, value: u32, (width, count): (usize, usize), stream: u64) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    check(&driver, &Side::Device(to), width.saturating_mul(count))?;
    if !to.is_multiple_of(width as u64) {
        return Err(Code::INVALID_VALUE);
    }
    driver.enqueue(stream, Work::Fill { to, value, width, count }).map(|_| ())
}

fn host(pointer: *const c_void) -> Side {
    Side::Host(pointer as usize)
}

fn layout(size: usize) -> Result<Layout> {
    Layout::from_size_align(size.max(1), 4096).map_err(|_| Code::INVALID_VALUE)
}

#[allow(unsafe_code, reason = "pinned memory is allocated for C")]
fn pin(driver: &mut Guard, size: usize) -> Result<*mut c_void> {
    // SAFETY: the layout's size is not zero.
    let pointer = unsafe { alloc(layout(size)?) };
    if pointer.is_null() {
        return Err(Code::OUT_OF_MEMORY);
    }
    driver.pinned.insert(pointer as usize, size);
    Ok(pointer.cast())
}

fn allocate(driver: &mut Guard, device: usize, size: usize) -> Result<u64> {
    let room = driver.memory;
    driver.space.allocate(device, size, room)
}

api! {
    fn cuMemAlloc_v2(driver, to: *mut u64, size: usize) {
        let mut driver = driver;
        let device = current(&driver)?;
        driver.no_capture(own_mode())?;
        let address = allocate(&mut driver, device, size)?;
        give(to, address)
    }

    fn cuMemFree_v2(driver, address: u64) {
        let mut driver = driver;
        if address == 0 {
            return Ok(());
        }
        let device = driver.space.device_of(address).ok_or(Code::INVALID_VALUE)?;
        driver.healthy(device)?;
        driver.no_capture(own_mode())?;
        let mut driver = wait(driver, &Wait::Device(device));
        driver.healthy(device)?;
        driver.space.free(address)
    }

    fn cuMemAllocAsync(driver, to: *mut u64, size: usize, stream: Handle) {
        let mut driver = driver;
        let stream = stream_of(&driver, stream)?;
        let device = driver.stream(stream)?.device;
        driver.not_captured(stream)?;
        let address = allocate(&mut driver, device, size)?;
        give(to, address)
    }

    fn cuMemFreeAsync(driver, address: u64, stream: Handle) {
        let mut driver = driver;
        let stream = stream_of(&driver, stream)?;
        driver.not_captured(stream)?;
        if address == 0 {
            return Ok(());
        }
        driver.space.device_of(address).ok_or(Code::INVALID_VALUE)?;
        driver.enqueue(stream, Work::Free(address)).map(|_| ())
    }

    fn cuMemGetInfo_v2(driver, free: *mut usize, total: *mut usize) {
        let device = current(&driver)?;
        give(free, driver.memory.saturating_sub(driver.space.used(device)) as usize)?;
        give(total, driver.memory as usize)
    }

    fn cuMemHostAlloc(driver, to: *mut *mut c_void, size: usize, _flags: c_uint) {
        let mut driver = driver;
        current(&driver)?;
        if size == 0 {
            return Err(Code::INVALID_VALUE);
        }
        driver.no_capture(own_mode())?;
        let pointer = pin(&mut driver, size)?;
        give(to, pointer)
    }

    fn cuMemAllocHost_v2(driver, to: *mut *mut c_void, size: usize) {
        let mut driver = driver;
        current(&driver)?;
        if size == 0 {
            return Err(Code::INVALID_VALUE);
        }
        driver.no_capture(own_mode())?;
        let pointer = pin(&mut driver, size)?;
        give(to, pointer)
    }

    fn cuMemFreeHost(driver, pointer: *mut c_void) {
        let mut driver = wait(driver, &Wait::All);
        let size = driver.pinned.remove(&(pointer as usize)).ok_or(Code::INVALID_VALUE)?;
        let layout = layout(size)?;
        #[allow(unsafe_code, reason = "pinned memory is allocated for C")]
        // SAFETY: it was allocated with this layout, and the list names it once.
        unsafe {
            dealloc(pointer.cast(), layout);
        }
        Ok(())
    }

    fn cuMemcpyHtoD_v2(driver, to: u64, from: *const c_void, size: usize) {
        copy_now(driver, Side::Device(to), host(from), size)
    }

    fn cuMemcpyDtoH_v2(driver, to: *mut c_void, from: u64, size: usize) {
        copy_now(driver, host(to), Side::Device(from), size)
    }

    fn cuMemcpyDtoD_v2(driver, to: u64, from: u64, size: usize) {
        // A copy inside a device does not make the host wait.
        let mut driver = driver;
        let device = current(&driver)?;
        driver.no_capture(own_mode())?;
        copy(driver, Side::Device(to), Side::Device(from), size, legacy_stream(device), false)
    }

    fn cuMemcpy(driver, to: u64, from: u64, size: usize) {
        copy_now(driver, side(to), side(from), size)
    }

    fn cuMemcpyHtoDAsync_v2(driver, to: u64, from: *const c_void, size: usize, stream: Handle) {
        let stream = stream_of(&driver, stream)?;
        copy(driver, Side::Device(to), host(from), size, stream, false)
    }

    fn cuMemcpyDtoHAsync_v2(driver, to: *mut c_void, from: u64, size: usize, stream: Handle) {
        let stream = stream_of(&driver, stream)?;
        copy(driver, host(to), Side::Device(from), size, stream, false)
    }

    fn cuMemcpyDtoDAsync_v2(driver, to: u64, from: u64, size: usize, stream: Handle) {
        let stream = stream_of(&driver, stream)?;
        copy(driver, Side::Device(to), Side::Device(from), size, stream, false)
    }

    fn cuMemcpyAsync(driver, to: u64, from: u64, size: usize, stream: Handle) {
        let stream = stream_of(&driver, stream)?;
        copy(driver, side(to), side(from), size, stream, false)
    }

    fn cuMemcpyPeerAsync(driver, to: u64, to_context: Handle, from: u64, from_context: Handle, size: usize, stream: Handle) {
        let stream = stream_of(&driver, stream)?;
        for (address, context) in [(to, to_context), (from, from_context)] {
            let device = context_device(&driver, context)?;
            if driver.space.device_of(address) != Some(device) {
                return Err(Code::INVALID_VALUE);
            }
        }
        copy(driver, Side::Device(to), Side::Device(from), size, stream, false)
    }

    fn cuMemcpyPeer(driver, to: u64, _to_context: Handle, from: u64, _from_context: Handle, size: usize) {
        copy_now(driver, Side::Device(to), Side::Device(from), size)
    }

    fn cuMemsetD8_v2(driver, to: u64, value: c_uchar, count: usize) {
        let mut driver = driver;
        let stream = legacy_stream(current(&driver)?);
        driver.no_capture(own_mode())?;
        fill(driver, to, u32::from(value), (1, count), stream)
    }

    fn cuMemsetD32_v2(driver, to: u64, value: c_uint, count: usize) {
        let mut driver = driver;
        let stream = legacy_stream(current(&driver)?);
        driver.no_capture(own_mode())?;
        fill(driver, to, value, (4, count), stream)
    }

    fn cuMemsetD8Async(driver, to: u64, value: c_uchar, count: usize, stream: Handle) {
        let stream = stream_of(&driver, stream)?;
        fill(driver, to, u32::from(value), (1, count), stream)
    }

    fn cuMemsetD16Async(driver, to: u64, value: c_ushort, count: usize, stream: Handle) {
        let stream = stream_of(&driver, stream)?;
        fill(driver, to, u32::from(value), (2, count), stream)
    }

    fn cuMemsetD32Async(driver, to: u64, value: c_uint, count: usize, stream: Handle) {
        let stream = stream_of(&driver, stream)?;
        fill(driver, to, value, (4, count), stream)
    }
}
