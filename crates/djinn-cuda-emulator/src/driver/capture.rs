//! Captures of streams, and the graphs that they give.

use super::code::{Code, Result};
use super::state::Driver;
use super::task::{Task, Work};
use std::collections::{BTreeMap, BTreeSet};
use std::thread::ThreadId;

/// A node: the nodes it comes after, its device, and its work.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) after: Vec<usize>,
    pub(crate) device: usize,
    pub(crate) work: Work,
}

/// A graph; nodes come after earlier ones only.
#[derive(Debug, Clone, Default)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
}

/// What a capture forbids to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Global,
    ThreadLocal,
    Relaxed,
}

impl Mode {
    pub(crate) fn of(n: u32) -> Result<Self> {
        [Self::Global, Self::ThreadLocal, Self::Relaxed].get(n as usize).copied().ok_or(Code::INVALID_VALUE)
    }
}

#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) origin: u64,
    mode: Mode,
    thread: ThreadId,
    graph: Graph,
    pub(crate) broken: bool,
}

/// The captures in progress.
#[derive(Debug, Default)]
pub(crate) struct Captures {
    list: BTreeMap<u64, Capture>,
}

impl Captures {
    pub(crate) fn add(
        &mut self,
        capture: u64,
        after: Vec<usize>,
        device: usize,
        work: Work,
    ) -> Result<usize> {
        let capture = self.list.get_mut(&capture).ok_or(Code::STREAM_CAPTURE_INVALIDATED)?;
        if capture.broken {
            return Err(Code::STREAM_CAPTURE_INVALIDATED);
        }
        capture.graph.nodes.push(Node { after, device, work });
        Ok(capture.graph.nodes.len() - 1)
    }

    pub(crate) fn get(&self, capture: u64) -> Option<&Capture> {
        self.list.get(&capture)
    }

    pub(crate) fn invalidate(&mut self, capture: u64) {
        if let Some(capture) = self.list.get_mut(&capture) {
            capture.broken = true;
        }
    }

    pub(crate) fn invalidate_all(&mut self) {
        self.list.values_mut().for_each(|c| c.broken = true);
    }

    /// Whether a call that might wait for work is forbidden in this thread whose own mode is `own`.
    fn forbid(&self, own: Mode) -> bool {
        let thread = std::thread::current().id();
        self.list.values().any(|c| match c.mode {
            Mode::Relaxed => false,
            Mode::ThreadLocal => c.thread == thread && own != Mode::Relaxed,
            Mode::Global => own == Mode::Global || c.thread == thread && own == Mode::ThreadLocal,
        })
    }
}

impl Driver {
    /// Refuses a call that might wait for work while something is captured, and breaks the captures.
    pub(crate) fn no_capture(&mut self, own: Mode) -> Result<()> {
        if self.captures.forbid(own) {
            return Err(self.invalidate(Code::STREAM_CAPTURE_UNSUPPORTED));
        }
        Ok(())
    }

    /// Refuses a call that waits for a stream that is captured.
    pub(crate) fn not_captured(&mut self, stream: u64) -> Result<()> {
        match self.stream(stream)?.capture {
            Some((capture, _)) => {
                self.captures.invalidate(capture);
                Err(Code::STREAM_CAPTURE_UNSUPPORTED)
            }
            None => Ok(()),
        }
    }

    pub(crate) fn begin_capture(&mut self, stream: u64, mode: Mode) -> Result<()> {
        let id = self.fresh();
        if self.stream(stream)?.capture.is_some() {
            return Err(Code::INVALID_VALUE);
        }
        let thread = std::thread::current().id();
        let capture = Capture { origin: stream, mode, thread, graph: Graph::default(), broken: false };
        self.captures.list.insert(id, capture);
        self.stream_mut(stream)?.capture = Some((id, Vec::new()));
        Ok(())
    }

    pub(crate) fn end_capture(&mut self, stream: u64) -> Result<Graph> {
        let Some((id, last)) = self.stream(stream)?.capture.clone() else {
            return Err(Code::INVALID_VALUE);
        };
        let capture = self.captures.list.get(&id).ok_or(Code::STREAM_CAPTURE_INVALIDATED)?;
        if capture.origin != stream {
            self.captures.invalidate(id);
            return Err(Code::STREAM_CAPTURE_UNMATCHED);
        }
        if capture.mode != Mode::Relaxed && capture.thread != std::thread::current().id() {
            return Err(Code::STREAM_CAPTURE_WRONG_THREAD);
        }
        let capture = self.captures.list.remove(&id).ok_or(Code::STREAM_CAPTURE_INVALIDATED)?;
        let taking_part = self.streams.values_mut().filter(|s| s.capture.as_ref().is_some_and(|c| c.0 == id));
        taking_part.for_each(|s| s.capture = None);
        if capture.broken {
            return Err(Code::STREAM_CAPTURE_INVALIDATED);
        }
        let (mut open, mut joined) = (last, BTreeSet::new());
        while let Some(node) = open.pop() {
            if joined.insert(node) {
                open.extend(&capture.graph.nodes[node].after);
            }
        }
        if joined.len() < capture.graph.nodes.len() {
            return Err(Code::STREAM_CAPTURE_UNJOINED);
        }
        Ok(capture.graph)
    }

    /// An event is recorded behind the last work of a stream.
    pub(crate) fn record(&mut self, event: u64, stream: u64) -> Result<()> {
        let found = self.stream(stream)?.clone();
        let known = self.events.get(&event).ok_or(Code::INVALID_HANDLE)?;
        if known.device != found.device {
            return Err(Code::INVALID_HANDLE);
        }
        if let Some((capture, nodes)) = found.capture {
            if self.captures.get(capture).is_none_or(|c| c.broken) {
                return Err(Code::STREAM_CAPTURE_INVALIDATED);
            }
            if let Some(event) = self.events.get_mut(&event) {
                event.captured = Some((capture, nodes));
            }
            return Ok(());
        }
        let mark = self.enqueue(stream, Work::Mark(Some(event)))?;
        if let Some(event) = self.events.get_mut(&event) {
            (event.mark, event.time, event.captured) = (Some(mark), None, None);
        }
        Ok(())
    }

    /// Work that a stream gets from now on comes after an event.
    pub(crate) fn wait_event(&mut self, stream: u64, event: u64) -> Result<()> {
        let event = self.events.get(&event).ok_or(Code::INVALID_HANDLE)?.clone();
        let found = self.stream(stream)?.clone();
        self.healthy(found.device)?;
        match (event.captured, found.capture) {
            (Some((theirs, nodes)), own) => {
                if self.captures.get(theirs).is_none_or(|c| c.broken) {
                    return Err(Code::STREAM_CAPTURE_INVALIDATED);
                }
                let mut last = match own {
                    Some((capture, _)) if capture != theirs => {
                        self.captures.invalidate(theirs);
                        self.captures.invalidate(capture);
                        return Err(Code::STREAM_CAPTURE_MERGE);
                    }
                    Some((_, last)) => last,
                    None => Vec::new(),
                };
                last.extend(nodes);
                last.sort_unstable();
                last.dedup();
                self.stream_mut(stream)?.capture = Some((theirs, last));
            }
            (None, Some((capture, _))) => {
                self.captures.invalidate(capture);
                return Err(Code::STREAM_CAPTURE_ISOLATION);
            }
            (None, None) => {
                let mark = event.mark.filter(|m| self.pending(*m));
                self.stream_mut(stream)?.after.extend(mark);
            }
        }
        Ok(())
    }

    /// Adds the nodes of a graph as work of a stream.
    pub(crate) fn launch_graph(&mut self, executable: u64, stream: u64) -> Result<()> {
        let (graph, last) = self.executables.get(&executable).ok_or(Code::INVALID_HANDLE)?.clone();
        let device = self.stream(stream)?.device;
        if self.stream(stream)?.capture.is_some() {
            self.not_captured(stream)?;
        }
        // A graph's runs come one after the other.
        let begin = self.enqueue(stream, Work::Mark(None))?;
        let mut roots = vec![begin];
        roots.extend(last);
        let mut ids = Vec::new();
        for node in &graph.nodes {
            let mut after: Vec<u64> = node.after.iter().map(|n| ids[*n]).collect();
            if after.is_empty() {
                after.clone_from(&roots);
            }
            ids.push(self.add(Task { device: node.device, after, work: node.work.clone() }));
        }
        let mut after = ids;
        after.push(begin);
        let end = self.add(Task { device, after, work: Work::Mark(None) });
        self.stream_mut(stream)?.after = vec![end];
        if let Some(executable) = self.executables.get_mut(&executable) {
            executable.1 = Some(end);
        }
        Ok(())
    }
}
