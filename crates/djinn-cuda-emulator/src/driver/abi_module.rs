//! The C interface: modules, functions and launches.

use super::abi::{Handle, api, current, give, handle, id, stream_of, take};
use super::code::{Code, Result};
use super::state::{Function, Guard};
use super::task::Work;
use crate::ptx::{Launch, Module};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Arc;

#[allow(unsafe_code, reason = "texts come as pointers of C")]
fn text<'a>(pointer: *const c_char) -> Result<&'a str> {
    if pointer.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    // SAFETY: the caller gives a text with a zero byte at its end, as the prototypes ask.
    unsafe { CStr::from_ptr(pointer) }.to_str().map_err(|_| Code::INVALID_IMAGE)
}

/// Where the caller wants to be told what is wrong with a text.
fn error_log(
    count: c_uint,
    options: *const c_int,
    values: *const *mut c_void,
) -> Result<(*mut c_char, usize)> {
    let (mut log, mut room) = (std::ptr::null_mut(), 0);
    for n in 0..count as usize {
        let value = take(values.wrapping_add(n))?;
        match take(options.wrapping_add(n))? {
            5 => log = value.cast(),
            6 => room = value as usize & 0xffff_ffff,
            _ => {}
        }
    }
    Ok((log, if log.is_null() { 0 } else { room }))
}

fn tell(log: *mut c_char, room: usize, message: &str) -> Result<()> {
    let bytes = message.bytes().take(room.saturating_sub(1)).chain([0]);
    for (n, byte) in bytes.enumerate().take(room) {
        give(log.wrapping_add(n), byte as c_char)?;
    }
    Ok(())
}

fn load(mut driver: Guard, to: *mut Handle, image: *const c_void, log: (*mut c_char, usize)) -> Result<()> {
    let device = current(&driver)?;
    match Module::parse(text(image.cast())?) {
        Ok(module) => {
            let made = driver.fresh();
            driver.modules.insert(made, (device, module));
            give(to, handle(made))
        }
        Err(e) => {
            eprintln!("djinn emulator: PTX: {e}");
            tell(log.0, log.1, &format!("ptxas: {e}"))?;
            Err(Code::INVALID_PTX)
        }
    }
}

fn function(driver: &Guard, f: Handle) -> Result<&Function> {
    driver.functions.get(&id(f)).ok_or(Code::INVALID_HANDLE)
}

#[allow(unsafe_code, reason = "parameters come as pointers of C")]
fn params(function: &Function, pointers: *mut *mut c_void) -> Result<Arc<[u8]>> {
    let mut out = vec![0u8; function.kernel.param_bytes()];
    for (n, layout) in function.kernel.params().iter().enumerate() {
        let from = take(pointers.wrapping_add(n))?;
        if from.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the caller gives a pointer to each parameter of the kernel, as the prototype asks.
        let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), layout.size) };
        out[layout.offset..][..layout.size].copy_from_slice(bytes);
    }
    Ok(out.into())
}

fn occupancy(function: &Function, block: c_int, dynamic: usize) -> Result<c_int> {
    let block = u64::try_from(block).ok().filter(|n| (1..=1024).contains(n)).ok_or(Code::INVALID_VALUE)?;
    let shared = function.kernel.shared_bytes() + dynamic as u64 + 1024;
    Ok((2048 / block.next_multiple_of(32)).min(32).min((228 << 10) / shared) as c_int)
}

api! {
    fn cuModuleLoadData(driver, to: *mut Handle, image: *const c_void) {
        load(driver, to, image, (std::ptr::null_mut(), 0))
    }

    fn cuModuleLoadDataEx(driver, to: *mut Handle, image: *const c_void, count: c_uint, options: *const c_int, values: *const *mut c_void) {
        let log = error_log(count, options, values)?;
        load(driver, to, image, log)
    }

    fn cuModuleUnload(driver, module: Handle) {
        let mut driver = driver;
        driver.modules.remove(&id(module)).ok_or(Code::INVALID_HANDLE)?;
        driver.functions.retain(|_, f| f.module != id(module));
        Ok(())
    }

    fn cuModuleGetFunction(driver, to: *mut Handle, module: Handle, name: *const c_char) {
        let mut driver = driver;
        let (device, found) = driver.modules.get(&id(module)).ok_or(Code::INVALID_HANDLE)?;
        let kernel = found.kernel(text(name)?).ok_or(Code::NOT_FOUND)?.clone();
        let dynamic_limit = 48 << 10;
        let made = Function { kernel, device: *device, module: id(module), dynamic_limit };
        let number = driver.fresh();
        driver.functions.insert(number, made);
        give(to, handle(number))
    }

    fn cuFuncGetAttribute(driver, to: *mut c_int, what: c_int, f: Handle) {
        let f = function(&driver, f)?;
        give(to, match what {
            0 => 1024,
            1 => f.kernel.shared_bytes() as c_int,
            2 | 7 => 0,
            3 => f.kernel.local_bytes() as c_int,
            4 => f.kernel.register_count().min(255) as c_int,
            5 | 6 => 90,
            8 => f.dynamic_limit as c_int,
            9 => -1,
            _ => return Err(Code::INVALID_VALUE),
        })
    }

    fn cuFuncSetAttribute(driver, f: Handle, what: c_int, value: c_int) {
        let mut driver = driver;
        let f = driver.functions.get_mut(&id(f)).ok_or(Code::INVALID_HANDLE)?;
        let room = (227u64 << 10).saturating_sub(f.kernel.shared_bytes());
        match (what, u32::try_from(value)) {
            (8, Ok(value)) if u64::from(value) <= room => {
                f.dynamic_limit = value;
                Ok(())
            }
            (9, _) => Ok(()),
            _ => Err(Code::INVALID_VALUE),
        }
    }

    fn cuFuncSetCacheConfig(driver, f: Handle, _config: c_int) {
        function(&driver, f).map(|_| ())
    }

    fn cuLaunchKernel(
        driver, f: Handle, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: c_uint,
        stream: Handle, pointers: *mut *mut c_void, extra: *mut *mut c_void,
    ) {
        let mut driver = driver;
        let stream = stream_of(&driver, stream)?;
        let f = function(&driver, f)?.clone();
        if f.device != driver.stream(stream)?.device {
            return Err(Code::INVALID_HANDLE);
        }
        let threads = [bx, by, bz].iter().try_fold(1u32, |a, b| a.checked_mul(*b)).unwrap_or(u32::MAX);
        let static_shared = f.kernel.shared_bytes();
        if threads == 0 || threads > 1024 || bz > 64 || gx == 0 || gy == 0 || gz == 0 || gx > i32::MAX as u32 || gy > 65535
            || gz > 65535 || u64::from(shared) + static_shared > u64::from(f.dynamic_limit).max(static_shared)
        {
            return Err(Code::INVALID_VALUE);
        }
        if !extra.is_null() {
            return Err(Code::NOT_SUPPORTED);
        }
        let params = params(&f, pointers)?;
        let (limit, reverse) = (driver.limit, driver.dice(2) == 1);
        let launch = Launch { grid: [gx, gy, gz], block: [bx, by, bz], dynamic_shared: shared, limit, reverse };
        driver.enqueue(stream, Work::Kernel { kernel: f.kernel, launch, params }).map(|_| ())
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(driver, to: *mut c_int, f: Handle, block: c_int, dynamic: usize) {
        give(to, occupancy(function(&driver, f)?, block, dynamic)?)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        driver, to: *mut c_int, f: Handle, block: c_int, dynamic: usize, _flags: c_uint,
    ) {
        give(to, occupancy(function(&driver, f)?, block, dynamic)?)
    }
}
