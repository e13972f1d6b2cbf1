//! The driver through its C interface, as a program that is linked with CUDA sees it.

#![allow(unsafe_code, non_snake_case, reason = "functions of C are called")]

use std::ffi::{CString, c_int, c_uint, c_void};
use std::ptr::{null, null_mut};
use std::sync::{Mutex, MutexGuard, PoisonError};

// The library's symbols come from here.
use djinn_cuda_emulator as _;

type Handle = *mut c_void;

unsafe extern "C" {
    safe fn cuInit(flags: c_uint) -> c_int;
    fn cuDevicePrimaryCtxRetain(to: *mut Handle, n: c_int) -> c_int;
    fn cuCtxSetCurrent(context: Handle) -> c_int;
    safe fn cuCtxSynchronize() -> c_int;
    fn cuCtxEnablePeerAccess(context: Handle, flags: c_uint) -> c_int;
    fn cuMemAlloc_v2(to: *mut u64, size: usize) -> c_int;
    safe fn cuMemFree_v2(address: u64) -> c_int;
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int;
    fn cuMemHostAlloc(to: *mut *mut c_void, size: usize, flags: c_uint) -> c_int;
    fn cuMemFreeHost(pointer: *mut c_void) -> c_int;
    fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, size: usize) -> c_int;
    fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, size: usize) -> c_int;
    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, size: usize, stream: Handle) -> c_int;
    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, size: usize, stream: Handle) -> c_int;
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, size: usize, stream: Handle) -> c_int;
    fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: Handle) -> c_int;
    fn cuStreamCreate(to: *mut Handle, flags: c_uint) -> c_int;
    fn cuStreamSynchronize(stream: Handle) -> c_int;
    fn cuStreamWaitEvent(stream: Handle, event: Handle, flags: c_uint) -> c_int;
    fn cuStreamBeginCapture_v2(stream: Handle, mode: c_uint) -> c_int;
    fn cuStreamEndCapture(stream: Handle, to: *mut Handle) -> c_int;
    fn cuGraphInstantiateWithFlags(to: *mut Handle, graph: Handle, flags: u64) -> c_int;
    fn cuGraphLaunch(graph: Handle, stream: Handle) -> c_int;
    fn cuGraphGetNodes(graph: Handle, nodes: *mut Handle, count: *mut usize) -> c_int;
    fn cuEventCreate(to: *mut Handle, flags: c_uint) -> c_int;
    fn cuEventRecord(event: Handle, stream: Handle) -> c_int;
    fn cuEventQuery(event: Handle) -> c_int;
    fn cuEventSynchronize(event: Handle) -> c_int;
    fn cuModuleLoadDataEx(
        to: *mut Handle,
        image: *const c_void,
        count: c_uint,
        options: *const c_int,
        values: *const *mut c_void,
    ) -> c_int;
    fn cuModuleGetFunction(to: *mut Handle, module: Handle, name: *const i8) -> c_int;
    fn cuLaunchKernel(
        f: Handle,
        gx: c_uint,
        gy: c_uint,
        gz: c_uint,
        bx: c_uint,
        by: c_uint,
        bz: c_uint,
        shared: c_uint,
        stream: Handle,
        params: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> c_int;
    fn cuLaunchHostFunc(stream: Handle, f: extern "C" fn(*mut c_void), data: *mut c_void) -> c_int;
}

/// A test has the driver for itself: a fault of one must not be seen by another.
static ALONE: Mutex<()> = Mutex::new(());

fn device(n: c_int) -> (Handle, MutexGuard<'static, ()>) {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the tests take turns, and nothing reads the environment meanwhile.
    unsafe { std::env::set_var("DJINN_EMULATOR_DEVICES", "8") };
    assert_eq!(cuInit(0), 0);
    (select(n), alone)
}

fn select(n: c_int) -> Handle {
    let mut context = null_mut();
    // SAFETY: the pointer is to a handle.
    unsafe {
        assert_eq!(cuDevicePrimaryCtxRetain(&raw mut context, n), 0);
        assert_eq!(cuCtxSetCurrent(context), 0);
    }
    context
}

/// The handle that a function writes.
fn made(f: impl FnOnce(*mut Handle) -> c_int) -> Handle {
    let mut out = null_mut();
    assert_eq!(f(&raw mut out), 0);
    out
}

fn stream() -> Handle {
    // SAFETY: the pointer is to a handle.
    made(|to| unsafe { cuStreamCreate(to, 1) })
}

fn event() -> Handle {
    // SAFETY: the pointer is to a handle.
    made(|to| unsafe { cuEventCreate(to, 2) })
}

fn memory(size: usize) -> u64 {
    let mut out = 0;
    // SAFETY: the pointer is to an address.
    assert_eq!(unsafe { cuMemAlloc_v2(&raw mut out, size) }, 0);
    out
}

fn upload(values: &[f32]) -> u64 {
    let to = memory(values.len() * 4);
    // SAFETY: the values are there.
    assert_eq!(unsafe { cuMemcpyHtoD_v2(to, values.as_ptr().cast(), values.len() * 4) }, 0);
    to
}

fn download(from: u64, count: usize) -> Vec<f32> {
    let mut out = vec![0f32; count];
    // SAFETY: the room is there.
    assert_eq!(unsafe { cuMemcpyDtoH_v2(out.as_mut_ptr().cast(), from, count * 4) }, 0);
    out
}

/// `out[i] = a[i] + b[i]` for `i < n`; one more if `bad` elements are asked for.
const ADD: &str = r#"
.version 7.8
.target sm_90
.address_size 64
.visible .entry add(.param .u64 .ptr .align 1 a, .param .u64 b, .param .u64 out, .param .u32 n)
{
	.reg .pred %p<2>;
	.reg .b32 %r<8>;
	.reg .b64 %rd<10>;
	ld.param.b64 %rd1, [a];
	ld.param.b64 %rd2, [b];
	ld.param.b64 %rd3, [out];
	ld.param.b32 %r1, [n];
	mov.u32 %r2, %ctaid.x;
	mov.u32 %r3, %ntid.x;
	mov.u32 %r4, %tid.x;
	mad.lo.s32 %r5, %r2, %r3, %r4;
	setp.ge.u32 %p1, %r5, %r1;
	@%p1 bra $done;
	mul.wide.u32 %rd4, %r5, 4;
	add.s64 %rd5, %rd1, %rd4;
	ld.global.b32 %r6, [%rd5];
	add.s64 %rd6, %rd2, %rd4;
	ld.global.b32 %r7, [%rd6];
	add.rn.f32 %r6, %r6, %r7;
	add.s64 %rd7, %rd3, %rd4;
	st.global.b32 [%rd7], %r6;
$done:
	ret;
}
"#;

fn load(text: &str) -> Result<Handle, (c_int, String)> {
    let text = CString::new(text).expect("no zero byte");
    let mut log = vec![0u8; 256];
    let options = [5, 6];
    let values = [log.as_mut_ptr().cast::<c_void>(), 256 as *mut c_void];
    let mut out = null_mut();
    // SAFETY: the options' values are a buffer and its size.
    let code = unsafe {
        cuModuleLoadDataEx(&raw mut out, text.as_ptr().cast(), 2, options.as_ptr(), values.as_ptr())
    };
    let end = log.iter().position(|b| *b == 0).unwrap_or(0);
    if code == 0 { Ok(out) } else { Err((code, String::from_utf8_lossy(&log[..end]).into_owned())) }
}

fn kernel(text: &str, name: &str) -> Handle {
    let module = load(text).expect("it is right");
    let name = CString::new(name).expect("no zero byte");
    // SAFETY: the name ends with a zero byte.
    made(|to| unsafe { cuModuleGetFunction(to, module, name.as_ptr()) })
}

fn launch(f: Handle, blocks: u32, threads: u32, stream: Handle, mut values: [u64; 4]) -> c_int {
    let mut params: Vec<*mut c_void> = values.iter_mut().map(|v| std::ptr::from_mut(v).cast()).collect();
    // SAFETY: one pointer for each parameter.
    unsafe { cuLaunchKernel(f, blocks, 1, 1, threads, 1, 1, 0, stream, params.as_mut_ptr(), null_mut()) }
}

#[test]
fn kernels_add_in_a_stream_when_it_is_waited_for() {
    let (_, _alone) = device(0);
    let (a, b, out) = (upload(&[1.0, 2.0, 3.0]), upload(&[10.0, 20.0, 30.0]), memory(12));
    assert!(download(out, 3).iter().all(|v| v.is_nan()), "fresh memory is poisoned");
    let s = stream();
    assert_eq!(launch(kernel(ADD, "add"), 2, 32, s, [a, b, out, 3]), 0);
    // SAFETY: the stream is there.
    assert_eq!(unsafe { cuStreamSynchronize(s) }, 0);
    assert_eq!(download(out, 3), [11.0, 22.0, 33.0]);
    assert_eq!(cuMemFree_v2(out), 0);
    assert_ne!(cuMemFree_v2(out), 0, "it is freed already");
}

/// Two streams, the second reading what the first writes; with or without an event between them.
fn handover(with_wait: bool) -> bool {
    let (a, b, out) = (upload(&[1.0]), upload(&[5.0]), upload(&[0.0]));
    let (s, t, e) = (stream(), stream(), event());
    let add = kernel(ADD, "add");
    let last = upload(&[0.0]);
    assert_eq!(launch(add, 1, 1, s, [a, b, out, 1]), 0);
    // SAFETY: streams and events are there.
    unsafe {
        assert_eq!(cuEventRecord(e, s), 0);
        if with_wait {
            assert_eq!(cuStreamWaitEvent(t, e, 0), 0);
        }
    }
    assert_eq!(launch(add, 1, 1, t, [out, out, last, 1]), 0);
    assert_eq!(cuCtxSynchronize(), 0);
    download(last, 1) == [12.0]
}

#[test]
fn a_forgotten_wait_is_found_and_a_kept_one_is_not() {
    let (_, _alone) = device(0);
    assert!((0..40).all(|_| handover(true)));
    let right = (0..40).filter(|_| handover(false)).count();
    assert!((1..40).contains(&right), "chance decides: {right} of 40");
}

#[test]
fn accesses_outside_break_the_context_and_say_so_ever_after() {
    let (_, _alone) = device(1);
    let (a, b, out) = (upload(&[1.0; 8]), upload(&[1.0; 8]), memory(28));
    assert_eq!(launch(kernel(ADD, "add"), 1, 8, null_mut(), [a, b, out, 8]), 0, "nothing runs yet");
    assert_eq!(cuCtxSynchronize(), 700);
    assert_eq!(cuCtxSynchronize(), 700);
    let mut more = 0;
    // SAFETY: the pointer is to an address.
    assert_eq!(unsafe { cuMemAlloc_v2(&raw mut more, 4) }, 700);
}

#[test]
fn misaligned_accesses_are_refused() {
    let (_, _alone) = device(2);
    let (a, b, out) = (upload(&[1.0; 8]), upload(&[1.0; 8]), memory(32));
    assert_eq!(launch(kernel(ADD, "add"), 1, 1, null_mut(), [a + 2, b, out, 1]), 0);
    assert_eq!(cuCtxSynchronize(), 716);
}

#[test]
fn memory_of_another_device_needs_peer_access() {
    let (_, _alone) = device(4);
    let there = upload(&[2.0]);
    let other = select(4);
    select(5);
    let (b, out, f) = (upload(&[1.0]), memory(4), kernel(ADD, "add"));
    // SAFETY: the context is there.
    assert_eq!(unsafe { cuCtxEnablePeerAccess(other, 0) }, 0);
    assert_eq!(launch(f, 1, 1, null_mut(), [there, b, out, 1]), 0);
    assert_eq!(cuCtxSynchronize(), 0);
    assert_eq!(download(out, 1), [3.0]);
    select(6);
    let (b, out, f) = (upload(&[1.0]), memory(4), kernel(ADD, "add"));
    assert_eq!(launch(f, 1, 1, null_mut(), [there, b, out, 1]), 0);
    assert_eq!(cuCtxSynchronize(), 700);
}

#[test]
fn memory_ends() {
    let (_, _alone) = device(0);
    let (mut free, mut total, mut out) = (0, 0, 0);
    // SAFETY: the pointers are to numbers.
    unsafe {
        assert_eq!(cuMemGetInfo_v2(&raw mut free, &raw mut total), 0);
        assert_eq!(cuMemAlloc_v2(&raw mut out, free + 1), 2);
    }
    assert!(free <= total);
}

#[test]
fn pinned_memory_is_read_late_and_other_memory_at_once() {
    let (_, _alone) = device(0);
    let (s, to) = (stream(), memory(4));
    let mut pinned = null_mut();
    // SAFETY: pinned memory holds a float.
    unsafe {
        assert_eq!(cuMemHostAlloc(&raw mut pinned, 4, 0), 0);
        let pinned = pinned.cast::<f32>();
        pinned.write(1.0);
        assert_eq!(cuMemcpyHtoDAsync_v2(to, pinned.cast(), 4, s), 0);
        pinned.write(2.0);
        assert_eq!(cuStreamSynchronize(s), 0);
        assert_eq!(download(to, 1), [2.0]);
        let mut here = 3.0f32;
        assert_eq!(cuMemcpyHtoDAsync_v2(to, (&raw const here).cast(), 4, s), 0);
        here = 4.0;
        assert_eq!(cuMemcpyDtoHAsync_v2(pinned.cast(), to, 4, s), 0);
        assert_eq!(pinned.read(), 2.0, "it is written when the stream is waited for");
        assert_eq!(cuStreamSynchronize(s), 0);
        assert_eq!((pinned.read(), here), (3.0, 4.0));
        assert_eq!(cuMemFreeHost(pinned.cast()), 0);
    }
}

extern "C" fn count(data: *mut c_void) {
    // SAFETY: the data is a number that outlives the call.
    unsafe { *data.cast::<u32>() += 1 };
}

#[test]
fn host_functions_and_events_take_their_turn() {
    let (_, _alone) = device(0);
    let (s, e, to) = (stream(), event(), memory(16));
    let mut calls = 0u32;
    // SAFETY: the number outlives the stream's work, which is waited for.
    unsafe {
        assert_eq!(cuEventQuery(e), 0, "an event that was never recorded is done");
        assert_eq!(cuMemsetD8Async(to, 0, 16, s), 0);
        assert_eq!(cuLaunchHostFunc(s, count, (&raw mut calls).cast()), 0);
        assert_eq!(cuEventRecord(e, s), 0);
        assert_eq!(cuEventSynchronize(e), 0);
        assert_eq!(cuEventQuery(e), 0);
    }
    assert_eq!(calls, 1);
    assert_eq!(download(to, 4), [0.0; 4]);
}

#[test]
fn captured_work_keeps_its_order_and_is_not_done_at_once() {
    let (_, _alone) = device(0);
    let (s, t, fork, join) = (stream(), stream(), event(), event());
    let add = kernel(ADD, "add");
    let (x, y, z) = (upload(&[1.0]), upload(&[0.0]), upload(&[0.0]));
    let graph;
    // SAFETY: streams and events are there.
    unsafe {
        assert_eq!(cuStreamBeginCapture_v2(s, 1), 0);
        assert_eq!(launch(add, 1, 1, s, [x, x, y, 1]), 0);
        assert_eq!(cuEventRecord(fork, s), 0);
        assert_eq!(cuStreamWaitEvent(t, fork, 0), 0);
        assert_eq!(launch(add, 1, 1, t, [y, y, z, 1]), 0);
        assert_eq!(cuEventRecord(join, t), 0);
        assert_eq!(cuStreamWaitEvent(s, join, 0), 0);
        assert_eq!(cuMemcpyDtoDAsync_v2(x, z, 4, s), 0);
        graph = made(|to| cuStreamEndCapture(s, to));
        let mut nodes = 0;
        assert_eq!(cuGraphGetNodes(graph, null_mut(), &raw mut nodes), 0);
        assert_eq!(nodes, 3);
    }
    assert_eq!(download(x, 1), [1.0]);
    // SAFETY: the graph is there.
    unsafe {
        let run = made(|to| cuGraphInstantiateWithFlags(to, graph, 0));
        for _ in 0..3 {
            assert_eq!(cuGraphLaunch(run, s), 0);
        }
        assert_eq!(cuStreamSynchronize(s), 0);
    }
    assert_eq!(download(x, 1), [64.0]);
}

#[test]
fn captures_that_are_wrong_are_refused() {
    let (_, _alone) = device(0);
    let (s, t, e) = (stream(), stream(), event());
    let x = upload(&[1.0]);
    let mut graph = null_mut();
    // SAFETY: streams and events are there.
    unsafe {
        assert_eq!(cuStreamBeginCapture_v2(s, 1), 0);
        assert_eq!(cuMemsetD8Async(x, 0, 4, s), 0);
        assert_eq!(cuEventRecord(e, s), 0);
        assert_eq!(cuStreamWaitEvent(t, e, 0), 0);
        assert_eq!(cuMemsetD8Async(x, 0, 4, t), 0);
        assert_eq!(cuStreamEndCapture(s, &raw mut graph), 904, "the second stream never came back");
        assert_eq!(cuStreamBeginCapture_v2(s, 1), 0);
        assert_eq!(cuStreamSynchronize(s), 900);
        assert_eq!(cuStreamEndCapture(s, &raw mut graph), 901);
        assert_eq!(cuStreamBeginCapture_v2(s, 1), 0);
        let mut more = 0;
        assert_eq!(cuMemAlloc_v2(&raw mut more, 4), 900);
        assert_eq!(cuStreamEndCapture(s, &raw mut graph), 901);
        assert_eq!(cuMemsetD8Async(x, 0, 4, s), 0, "the stream is free again");
        assert_eq!(cuStreamSynchronize(s), 0);
    }
    let _ = null::<u8>();
}

#[test]
fn texts_that_are_wrong_are_refused_with_their_line() {
    let (_, _alone) = device(0);
    let wrong = ADD.replace("add.rn.f32", "wmma.f32");
    let (code, log) = load(&wrong).expect_err("the instruction is not known");
    assert_eq!(code, 218);
    assert!(log.contains("line 25") && log.contains("wmma.f32"), "{log}");
}

#[test]
fn launches_that_are_wrong_are_refused() {
    let (_, _alone) = device(0);
    let f = kernel(ADD, "add");
    assert_eq!(launch(f, 0, 32, null_mut(), [0; 4]), 1);
    assert_eq!(launch(f, 1, 1025, null_mut(), [0; 4]), 1);
    let s = stream();
    select(3);
    let f = kernel(ADD, "add");
    assert_eq!(launch(f, 1, 1, s, [0; 4]), 400, "the stream is of another device");
    select(0);
}
