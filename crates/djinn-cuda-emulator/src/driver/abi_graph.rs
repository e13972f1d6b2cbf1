//! The C interface: captures and graphs.

use super::abi::{Handle, api, give, handle, id, stream_of, take};
use super::capture::Mode;
use super::code::{Code, Result};
use super::state::Guard;
use std::ffi::{c_uint, c_ulonglong};

fn instantiate(mut driver: Guard, to: *mut Handle, graph: Handle) -> Result<()> {
    let graph = driver.graphs.get(&id(graph)).ok_or(Code::INVALID_VALUE)?.clone();
    let made = driver.fresh();
    driver.executables.insert(made, (graph, None));
    give(to, handle(made))
}

api! {
    fn cuStreamBeginCapture_v2(driver, stream: Handle, mode: c_uint) {
        let mut driver = driver;
        if id(stream) <= 2 {
            // The legacy stream cannot be captured.
            return Err(Code::STREAM_CAPTURE_UNSUPPORTED);
        }
        let stream = stream_of(&driver, stream)?;
        driver.begin_capture(stream, Mode::of(mode)?)
    }

    fn cuStreamEndCapture(driver, stream: Handle, to: *mut Handle) {
        let mut driver = driver;
        if !to.is_null() {
            give(to, std::ptr::null_mut())?;
        }
        let stream = stream_of(&driver, stream)?;
        let graph = driver.end_capture(stream)?;
        let made = driver.fresh();
        driver.graphs.insert(made, graph);
        give(to, handle(made))
    }

    fn cuStreamIsCapturing(driver, stream: Handle, to: *mut c_uint) {
        let stream = stream_of(&driver, stream)?;
        let capture = driver.stream(stream)?.capture.as_ref().map(|c| c.0);
        let broken = |c| driver.captures.get(c).is_none_or(|c| c.broken);
        give(to, capture.map_or(0, |c| 1 + c_uint::from(broken(c))))
    }

    fn cuGraphInstantiateWithFlags(driver, to: *mut Handle, graph: Handle, _flags: c_ulonglong) {
        instantiate(driver, to, graph)
    }

    fn cuGraphInstantiateWithParams(driver, to: *mut Handle, graph: Handle, params: *mut [u64; 4]) {
        // Flags, upload stream, error node, result.
        let mut values = take(params)?;
        (values[2], values[3]) = (0, 0);
        give(params, values)?;
        instantiate(driver, to, graph)
    }

    fn cuGraphUpload(driver, graph: Handle, stream: Handle) {
        stream_of(&driver, stream)?;
        driver.executables.get(&id(graph)).map(|_| ()).ok_or(Code::INVALID_VALUE)
    }

    fn cuGraphLaunch(driver, graph: Handle, stream: Handle) {
        let mut driver = driver;
        let stream = stream_of(&driver, stream)?;
        driver.launch_graph(id(graph), stream)
    }

    fn cuGraphExecDestroy(driver, graph: Handle) {
        let mut driver = driver;
        driver.executables.remove(&id(graph)).map(|_| ()).ok_or(Code::INVALID_VALUE)
    }

    fn cuGraphDestroy(driver, graph: Handle) {
        let mut driver = driver;
        driver.graphs.remove(&id(graph)).map(|_| ()).ok_or(Code::INVALID_VALUE)
    }

    fn cuGraphGetNodes(driver, graph: Handle, nodes: *mut Handle, count: *mut usize) {
        let known = driver.graphs.get(&id(graph)).ok_or(Code::INVALID_VALUE)?.nodes.len();
        if nodes.is_null() {
            return give(count, known);
        }
        let room = take(count)?;
        for n in 0..room {
            let node = if n < known { handle(id(graph) + n as u64 + 1) } else { std::ptr::null_mut() };
            give(nodes.wrapping_add(n), node)?;
        }
        give(count, known.min(room))
    }
}
