//! The C interface: initialisation, devices, contexts, and what all its functions share.

use super::capture::Mode;
use super::code::{Code, Result, describe};
use super::state::{Guard, Wait, legacy_stream, lock, wait};
use std::cell::{Cell, RefCell};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(crate) type Handle = *mut c_void;

thread_local! {
    /// The contexts of a thread, the current one last.
    static CONTEXTS: RefCell<Vec<Option<usize>>> = const { RefCell::new(Vec::new()) };
    /// What captures forbid this thread.
    static MODE: Cell<Mode> = const { Cell::new(Mode::Global) };
}

/// Contexts are known by their devices.
const CONTEXT: usize = 0xc000;

pub(crate) fn handle(id: u64) -> Handle {
    id as usize as Handle
}

pub(crate) fn id(handle: Handle) -> u64 {
    handle as usize as u64
}

/// Calls with the driver's lock; nothing unwinds into the caller.
pub(crate) fn call(f: impl FnOnce(Guard) -> Result<()>) -> c_int {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let driver = lock();
        if !driver.initialized {
            return Err(Code::NOT_INITIALIZED);
        }
        f(driver)
    }));
    match result {
        Ok(Ok(())) => 0,
        Ok(Err(code)) => code.0,
        Err(_) => Code::UNKNOWN.0,
    }
}

/// Writes a result through a pointer of the caller.
#[allow(unsafe_code, reason = "results go through pointers of C")]
pub(crate) fn give<T>(to: *mut T, value: T) -> Result<()> {
    if to.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    // SAFETY: the caller gives a pointer to a value of the type, as the function's prototype asks.
    unsafe { to.write_unaligned(value) };
    Ok(())
}

/// Reads through a pointer of the caller.
#[allow(unsafe_code, reason = "arguments come through pointers of C")]
pub(crate) fn take<T: Copy>(from: *const T) -> Result<T> {
    if from.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    // SAFETY: as in `give`.
    Ok(unsafe { from.read_unaligned() })
}

/// The device of the current context, which must not have failed.
pub(crate) fn current(driver: &Guard) -> Result<usize> {
    let device = CONTEXTS.with_borrow(|c| c.last().copied().flatten()).ok_or(Code::INVALID_CONTEXT)?;
    driver.healthy(device)?;
    Ok(device)
}

pub(crate) fn own_mode() -> Mode {
    MODE.get()
}

/// The stream of a handle: 0 and 1 are the legacy stream of the current context, 2 is here the same.
pub(crate) fn stream_of(driver: &Guard, stream: Handle) -> Result<u64> {
    match id(stream) {
        0..=2 => Ok(legacy_stream(current(driver)?)),
        n => {
            let device = driver.stream(n)?.device;
            driver.healthy(device)?;
            Ok(n)
        }
    }
}

fn device_of(driver: &Guard, context: Handle) -> Result<usize> {
    let device = (context as usize).wrapping_sub(CONTEXT) / 16;
    let known = driver.devices.get(device).is_some_and(|d| d.retained > 0);
    if known && context as usize == CONTEXT + device * 16 { Ok(device) } else { Err(Code::INVALID_CONTEXT) }
}

pub(crate) fn context_device(driver: &Guard, context: Handle) -> Result<usize> {
    device_of(driver, context)
}

fn device(driver: &Guard, n: c_int) -> Result<usize> {
    let n = usize::try_from(n).map_err(|_| Code::INVALID_DEVICE)?;
    if n < driver.devices.len() { Ok(n) } else { Err(Code::INVALID_DEVICE) }
}

/// Exported functions: each gets the driver and gives a result code.
macro_rules! api {
    ($(fn $name:ident($driver:ident $(, $arg:ident: $ty:ty)* $(,)?) $body:block)*) => { $(
        #[allow(non_snake_case, unsafe_code, reason = "the name is that of CUDA's driver")]
        #[unsafe(no_mangle)]
        extern "C" fn $name($($arg: $ty),*) -> std::ffi::c_int {
            $crate::driver::abi::call(move |$driver| $body)
        }
    )* };
}
pub(crate) use api;

#[allow(non_snake_case, unsafe_code, reason = "the name is that of CUDA's driver")]
#[unsafe(no_mangle)]
extern "C" fn cuInit(_flags: c_uint) -> c_int {
    lock().initialized = true;
    0
}

#[allow(non_snake_case, unsafe_code, reason = "the name is that of CUDA's driver")]
#[unsafe(no_mangle)]
extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    give(version, 12090).map_or_else(|c| c.0, |()| 0)
}

#[allow(non_snake_case, unsafe_code, reason = "the name is that of CUDA's driver")]
#[unsafe(no_mangle)]
extern "C" fn cuGetErrorName(code: c_int, text: *mut *const c_char) -> c_int {
    let Some((name, _)) = describe(code) else { return Code::INVALID_VALUE.0 };
    give(text, name.as_ptr().cast()).map_or_else(|c| c.0, |()| 0)
}

#[allow(non_snake_case, unsafe_code, reason = "the name is that of CUDA's driver")]
#[unsafe(no_mangle)]
extern "C" fn cuGetErrorString(code: c_int, text: *mut *const c_char) -> c_int {
    let Some((_, what)) = describe(code) else { return Code::INVALID_VALUE.0 };
    give(text, what.as_ptr().cast()).map_or_else(|c| c.0, |()| 0)
}

/// Attributes of a device, those of an H100 where they limit what may be launched.
fn attribute(n: c_int, device: usize) -> c_int {
    match n {
        1 | 2 | 3 | 14 => 1024,
        4 => 64,
        5 => i32::MAX,
        6 | 7 => 65535,
        8 => 48 << 10,
        9 => 64 << 10,
        10 => 32,
        11 => i32::MAX,
        12 | 82 => 65536,
        13 => 1_980_000,
        16 => 132,
        15 | 19 | 31 | 41 | 78 | 79 | 80 | 95 | 115 => 1,
        33 => device as c_int + 1,
        36 => 2_619_000,
        37 => 5120,
        38 => 50 << 20,
        39 => 2048,
        40 => 3,
        75 => 9,
        81 => 228 << 10,
        97 => 227 << 10,
        106 => 32,
        111 => 1024,
        _ => 0,
    }
}

api! {
    fn cuDeviceGet(driver, to: *mut c_int, ordinal: c_int) {
        give(to, device(&driver, ordinal)? as c_int)
    }

    fn cuDeviceGetCount(driver, to: *mut c_int) {
        give(to, driver.devices.len() as c_int)
    }

    fn cuDeviceGetName(driver, to: *mut c_char, room: c_int, n: c_int) {
        device(&driver, n)?;
        let name = b"Djinn emulator\0";
        let room = usize::try_from(room).unwrap_or(0);
        if room == 0 || to.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        for (i, byte) in name.iter().take(room).enumerate() {
            let last = i + 1 == room;
            give(to.wrapping_add(i), if last { 0 } else { *byte as c_char })?;
        }
        Ok(())
    }

    fn cuDeviceGetUuid(driver, to: *mut [u8; 16], n: c_int) {
        let n = device(&driver, n)?;
        give(to, std::array::from_fn(|i| if i == 15 { n as u8 } else { b"djinn-emulator--"[i] }))
    }

    fn cuDeviceGetUuid_v2(driver, to: *mut [u8; 16], n: c_int) {
        let n = device(&driver, n)?;
        give(to, std::array::from_fn(|i| if i == 15 { n as u8 } else { b"djinn-emulator--"[i] }))
    }

    fn cuDeviceGetAttribute(driver, to: *mut c_int, what: c_int, n: c_int) {
        give(to, attribute(what, device(&driver, n)?))
    }

    fn cuDeviceTotalMem_v2(driver, to: *mut usize, n: c_int) {
        device(&driver, n)?;
        give(to, driver.memory as usize)
    }

    fn cuDeviceCanAccessPeer(driver, to: *mut c_int, a: c_int, b: c_int) {
        give(to, c_int::from(device(&driver, a)? != device(&driver, b)?))
    }

    fn cuDevicePrimaryCtxRetain(driver, to: *mut Handle, n: c_int) {
        let mut driver = driver;
        let n = device(&driver, n)?;
        driver.devices[n].retained += 1;
        give(to, (CONTEXT + n * 16) as Handle)
    }

    fn cuDevicePrimaryCtxRelease_v2(driver, n: c_int) {
        let n = device(&driver, n)?;
        let mut driver = wait(driver, &Wait::Device(n));
        let device = &mut driver.devices[n];
        device.retained = device.retained.checked_sub(1).ok_or(Code::INVALID_CONTEXT)?;
        Ok(())
    }

    fn cuDevicePrimaryCtxGetState(driver, n: c_int, flags: *mut c_uint, active: *mut c_int) {
        let n = device(&driver, n)?;
        give(flags, 0)?;
        give(active, c_int::from(driver.devices[n].retained > 0))
    }

    fn cuDevicePrimaryCtxSetFlags_v2(driver, n: c_int, _flags: c_uint) {
        device(&driver, n).map(|_| ())
    }

    fn cuCtxSetCurrent(driver, context: Handle) {
        let found = if context.is_null() { None } else { Some(device_of(&driver, context)?) };
        CONTEXTS.with_borrow_mut(|c| {
            c.pop();
            c.push(found);
        });
        Ok(())
    }

    fn cuCtxGetCurrent(_driver, to: *mut Handle) {
        let device = CONTEXTS.with_borrow(|c| c.last().copied().flatten());
        give(to, device.map_or(std::ptr::null_mut(), |n| (CONTEXT + n * 16) as Handle))
    }

    fn cuCtxPushCurrent_v2(driver, context: Handle) {
        let device = device_of(&driver, context)?;
        CONTEXTS.with_borrow_mut(|c| c.push(Some(device)));
        Ok(())
    }

    fn cuCtxPopCurrent_v2(_driver, to: *mut Handle) {
        let device = CONTEXTS.with_borrow_mut(|c| c.pop()).flatten().ok_or(Code::INVALID_CONTEXT)?;
        if to.is_null() { Ok(()) } else { give(to, (CONTEXT + device * 16) as Handle) }
    }

    fn cuCtxGetDevice(driver, to: *mut c_int) {
        give(to, current(&driver)? as c_int)
    }

    fn cuCtxSynchronize(driver) {
        let mut driver = driver;
        let device = current(&driver)?;
        if driver.streams.values().any(|s| s.device == device && s.capture.is_some()) {
            return Err(driver.invalidate(Code::STREAM_CAPTURE_UNSUPPORTED));
        }
        driver.no_capture(own_mode())?;
        wait(driver, &Wait::Device(device)).healthy(device)
    }

    fn cuCtxSetFlags(driver, _flags: c_uint) {
        current(&driver).map(|_| ())
    }

    fn cuCtxGetStreamPriorityRange(driver, least: *mut c_int, greatest: *mut c_int) {
        current(&driver)?;
        if !least.is_null() {
            give(least, 0)?;
        }
        if greatest.is_null() { Ok(()) } else { give(greatest, -5) }
    }

    fn cuCtxEnablePeerAccess(driver, context: Handle, flags: c_uint) {
        let mut driver = driver;
        let (own, peer) = (current(&driver)?, device_of(&driver, context)?);
        if flags != 0 {
            return Err(Code::INVALID_VALUE);
        }
        if own == peer {
            return Err(Code::INVALID_DEVICE);
        }
        if driver.devices[own].reach >> peer & 1 == 1 {
            return Err(Code::PEER_ACCESS_ALREADY_ENABLED);
        }
        driver.devices[own].reach |= 1 << peer;
        Ok(())
    }

    fn cuCtxDisablePeerAccess(driver, context: Handle) {
        let mut driver = driver;
        let (own, peer) = (current(&driver)?, device_of(&driver, context)?);
        if own == peer || driver.devices[own].reach >> peer & 1 == 0 {
            return Err(Code::PEER_ACCESS_NOT_ENABLED);
        }
        driver.devices[own].reach &= !(1 << peer);
        Ok(())
    }

    fn cuThreadExchangeStreamCaptureMode(_driver, mode: *mut c_uint) {
        let new = Mode::of(take(mode)?)?;
        give(mode, MODE.replace(new) as c_uint)
    }
}
