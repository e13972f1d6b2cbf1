//! Work of streams and graphs, and what it does when its turn has come.

use super::code::Code;
use super::space::{Space, View, of_device};
use crate::blas::Product;
use crate::ptx::{Kernel, Launch, Trouble, run};
use std::ffi::c_void;
use std::sync::Arc;

/// Memory that a copy reads or writes.
#[derive(Debug, Clone)]
pub(crate) enum Side {
    Device(u64),
    /// An address of the host.
    Host(usize),
    /// Bytes that were read when the copy was asked for.
    Bytes(Arc<[u8]>),
}

/// A function of the host that a stream calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostCall {
    pub(crate) function: extern "C" fn(*mut c_void),
    pub(crate) data: usize,
}

/// What is done.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// Nothing; an event may be told.
    Mark(Option<u64>),
    Kernel {
        kernel: Arc<Kernel>,
        launch: Launch,
        params: Arc<[u8]>,
    },
    Copy {
        to: Side,
        from: Side,
        size: usize,
    },
    /// A pattern, its bytes, and how often.
    Fill {
        to: u64,
        value: u32,
        width: usize,
        count: usize,
    },
    Free(u64),
    Call(HostCall),
    Product(Arc<Product>),
}

/// Work that waits for other work.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) device: usize,
    pub(crate) after: Vec<u64>,
    pub(crate) work: Work,
}

/// Does work (but calls of host functions); what fails is told on standard error.
pub(crate) fn execute(work: &Work, space: &mut Space, device: usize, reach: u64) -> Result<(), Code> {
    match work {
        Work::Mark(_) | Work::Call(_) => Ok(()),
        Work::Kernel { kernel, launch, params } => {
            let fault = run(kernel, launch, params, &mut View { space, reach }).err();
            let Some(fault) = fault else { return Ok(()) };
            let near = match fault.trouble {
                Trouble::Illegal { address, .. } => space.nearest(address),
                _ => String::new(),
            };
            eprintln!("djinn emulator: kernel '{}' on device {device}: {fault}; {near}", kernel.name());
            Err(match fault.trouble {
                Trouble::Illegal { .. } => Code::ILLEGAL_ADDRESS,
                Trouble::Misaligned { .. } => Code::MISALIGNED_ADDRESS,
                Trouble::Limit => Code::LAUNCH_TIMEOUT,
                _ => Code::LAUNCH_FAILED,
            })
        }
        Work::Copy { to, from, size } => copy(space, to, from, *size, device),
        Work::Fill { to, value, width, count } => {
            let pattern = &value.to_le_bytes()[..*width];
            let Some(bytes) = space.write(*to, width.saturating_mul(*count)) else {
                return refuse(space, "fill", device, *to);
            };
            bytes.chunks_exact_mut(*width).for_each(|c| c.copy_from_slice(pattern));
            Ok(())
        }
        Work::Free(address) => space.free(*address),
        Work::Product(product) => match product.compute(space, reach) {
            Ok(()) => Ok(()),
            Err(address) => refuse(space, "matrix product", device, address),
        },
    }
}

fn refuse(space: &Space, what: &str, device: usize, address: u64) -> Result<(), Code> {
    eprintln!(
        "djinn emulator: {what} on device {device}: illegal address {address:#x}; {}",
        space.nearest(address)
    );
    Err(Code::ILLEGAL_ADDRESS)
}

/// Reads bytes of the host.
#[allow(unsafe_code, reason = "the driver's user gives pointers")]
pub(crate) fn host_bytes(address: usize, size: usize) -> Vec<u8> {
    let mut out = vec![0; size];
    // SAFETY: the caller of the driver says that so many bytes are there, as CUDA asks of it.
    unsafe { std::ptr::copy_nonoverlapping(address as *const u8, out.as_mut_ptr(), size) };
    out
}

#[allow(unsafe_code, reason = "the driver's user gives pointers")]
fn write_host(address: usize, bytes: &[u8]) {
    // SAFETY: as in `host_bytes`.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
}

fn copy(space: &mut Space, to: &Side, from: &Side, size: usize, device: usize) -> Result<(), Code> {
    let bytes = match from {
        Side::Bytes(bytes) => bytes.to_vec(),
        Side::Host(address) => host_bytes(*address, size),
        Side::Device(address) => match space.read(*address, size) {
            Some(bytes) => bytes.to_vec(),
            None => return refuse(space, "copy", device, *address),
        },
    };
    match to {
        Side::Bytes(_) => Err(Code::INVALID_VALUE),
        Side::Host(address) => {
            write_host(*address, &bytes);
            Ok(())
        }
        Side::Device(address) => match space.write(*address, size) {
            Some(room) => {
                room.copy_from_slice(&bytes);
                Ok(())
            }
            None => refuse(space, "copy", device, *address),
        },
    }
}

/// The side that an address of unified addressing names.
pub(crate) fn side(address: u64) -> Side {
    if of_device(address) { Side::Device(address) } else { Side::Host(address as usize) }
}
