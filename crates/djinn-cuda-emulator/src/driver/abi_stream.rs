//! The C interface: streams and events.

use super::abi::{Handle, api, current, give, handle, id, own_mode, stream_of};
use super::code::{Code, Result};
use super::state::{Event, Guard, Stream, Wait, dawdle, legacy_stream, wait};
use super::task::{HostCall, Work};
use std::ffi::{c_int, c_uint, c_void};

fn create(mut driver: Guard, to: *mut Handle, flags: c_uint, priority: c_int) -> Result<()> {
    let device = current(&driver)?;
    if flags > 1 {
        return Err(Code::INVALID_VALUE);
    }
    let id = driver.fresh();
    let priority = priority.clamp(-5, 0);
    driver
        .streams
        .insert(id, Stream { device, blocking: flags == 0, priority, after: Vec::new(), capture: None });
    give(to, handle(id))
}

fn elapsed(driver: &Guard, from: Handle, to: Handle) -> Result<f32> {
    let time = |event: Handle| {
        let event = driver.events.get(&id(event)).ok_or(Code::INVALID_HANDLE)?;
        match event.mark {
            Some(_) if event.timed => event.time.ok_or(Code::NOT_READY),
            _ => Err(Code::INVALID_HANDLE),
        }
    };
    // Tasks between the two, a microsecond each: this says nothing about time.
    Ok((time(to)? as f32 - time(from)? as f32) * 1e-3)
}

fn event(driver: &Guard, event: Handle) -> Result<Event> {
    let event = driver.events.get(&id(event)).ok_or(Code::INVALID_HANDLE)?;
    driver.healthy(event.device)?;
    if event.captured.is_some() { Err(Code::CAPTURED_EVENT) } else { Ok(event.clone()) }
}

api! {
    fn cuStreamCreate(driver, to: *mut Handle, flags: c_uint) {
        create(driver, to, flags, 0)
    }

    fn cuStreamCreateWithPriority(driver, to: *mut Handle, flags: c_uint, priority: c_int) {
        create(driver, to, flags, priority)
    }

    fn cuStreamGetPriority(driver, stream: Handle, to: *mut c_int) {
        let stream = stream_of(&driver, stream)?;
        give(to, driver.stream(stream)?.priority)
    }

    fn cuStreamDestroy_v2(driver, stream: Handle) {
        let mut driver = driver;
        if id(stream) <= 2 {
            return Err(Code::INVALID_HANDLE);
        }
        let found = driver.streams.remove(&id(stream)).ok_or(Code::INVALID_HANDLE)?;
        if let Some((capture, _)) = found.capture {
            driver.captures.invalidate(capture);
        }
        // Its work goes on; the legacy stream still comes after it.
        if found.blocking {
            driver.stream_mut(legacy_stream(found.device))?.after.extend(found.after);
        }
        Ok(())
    }

    fn cuStreamSynchronize(driver, stream: Handle) {
        let mut driver = driver;
        let stream = stream_of(&driver, stream)?;
        driver.not_captured(stream)?;
        driver.no_capture(own_mode())?;
        let found = driver.stream(stream)?.clone();
        let mut tasks = driver.unfinished(&found);
        if stream == legacy_stream(found.device) {
            let others = driver.streams.values().filter(|s| s.device == found.device && s.blocking);
            tasks.extend(others.flat_map(|s| s.after.iter().copied()));
        }
        wait(driver, &Wait::Tasks(tasks)).healthy(found.device)
    }

    fn cuStreamQuery(driver, stream: Handle) {
        let mut driver = driver;
        let stream = stream_of(&driver, stream)?;
        driver.not_captured(stream)?;
        let driver = dawdle(driver);
        let found = driver.stream(stream)?.clone();
        driver.healthy(found.device)?;
        if driver.unfinished(&found).is_empty() { Ok(()) } else { Err(Code::NOT_READY) }
    }

    fn cuStreamWaitEvent(driver, stream: Handle, event: Handle, _flags: c_uint) {
        let mut driver = driver;
        let stream = stream_of(&driver, stream)?;
        driver.wait_event(stream, id(event))
    }

    fn cuLaunchHostFunc(driver, stream: Handle, function: Option<extern "C" fn(*mut c_void)>, data: *mut c_void) {
        let mut driver = driver;
        let stream = stream_of(&driver, stream)?;
        let function = function.ok_or(Code::INVALID_VALUE)?;
        driver.enqueue(stream, Work::Call(HostCall { function, data: data as usize })).map(|_| ())
    }

    fn cuEventCreate(driver, to: *mut Handle, flags: c_uint) {
        let mut driver = driver;
        let device = current(&driver)?;
        let id = driver.fresh();
        driver.events.insert(id, Event { device, timed: flags & 2 == 0, ..Event::default() });
        give(to, handle(id))
    }

    fn cuEventDestroy_v2(driver, event: Handle) {
        let mut driver = driver;
        driver.events.remove(&id(event)).map(|_| ()).ok_or(Code::INVALID_HANDLE)
    }

    fn cuEventRecord(driver, event: Handle, stream: Handle) {
        let mut driver = driver;
        let stream = stream_of(&driver, stream)?;
        driver.record(id(event), stream)
    }

    fn cuEventRecordWithFlags(driver, event: Handle, stream: Handle, _flags: c_uint) {
        let mut driver = driver;
        let stream = stream_of(&driver, stream)?;
        driver.record(id(event), stream)
    }

    fn cuEventQuery(driver, which: Handle) {
        event(&driver, which)?;
        let driver = dawdle(driver);
        let found = event(&driver, which)?;
        if found.mark.is_some_and(|m| driver.pending(m)) { Err(Code::NOT_READY) } else { Ok(()) }
    }

    fn cuEventSynchronize(driver, which: Handle) {
        let mut driver = driver;
        let found = event(&driver, which)?;
        driver.no_capture(own_mode())?;
        let tasks = found.mark.into_iter().collect();
        wait(driver, &Wait::Tasks(tasks)).healthy(found.device)
    }

    fn cuEventElapsedTime(driver, to: *mut f32, from: Handle, until: Handle) {
        give(to, elapsed(&driver, from, until)?)
    }

    fn cuEventElapsedTime_v2(driver, to: *mut f32, from: Handle, until: Handle) {
        give(to, elapsed(&driver, from, until)?)
    }
}
