//! The race detector: checks the accesses of a run against the order that streams and events give.
//!
//! Each stream has a vector clock, which events carry from one to another (Mattern, "Virtual Time and Global States of
//! Distributed Systems", 1989). An access is ordered after an earlier one if its stream's clock has reached the earlier
//! one's stamp; the last write and the last reads of each byte range are kept as such stamps (Flanagan and Freund,
//! "FastTrack", PLDI 2009, section 3). The accesses are those that the streams made, looked at afterwards in the order of
//! the commands, so that the reports do not depend on the timing of threads.

use crate::code::{EntryCode, Step, Work};
use crate::resolve::Slot;
use djinn_ir::{Symbol, ValueId};
use djinn_plan::{ArenaId, BufferId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Reports of one run, at most.
pub const MAX_REPORTS: usize = 64;

/// Values looked at to find out whether the bytes of one are those of another, at most; beyond it they are taken to be.
const MAX_ALIAS_STEPS: usize = 4096;

/// What is wrong with two accesses, or with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HazardKind {
    /// Two commands access the same bytes, one of them writes, and nothing orders them.
    Race,
    /// Bytes are read that nothing has written in this run.
    Unwritten,
    /// Bytes are read that hold another value by now.
    Stale,
    /// A size that depends on data is used, and nothing orders the use after the operation that determines it.
    Symbol,
}

/// A hazard that the race detector found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaceReport {
    /// What is wrong.
    pub kind: HazardKind,
    /// The earlier command by its position in the entry; `None`: before the first one.
    pub first: Option<u32>,
    /// The later command; `None`: after the last one.
    pub second: Option<u32>,
    /// The arena; `None` for a hazard of a size.
    pub arena: Option<ArenaId>,
    /// The buffer through which the later command accesses the bytes.
    pub buffer: Option<BufferId>,
    /// First byte in the arena.
    pub start: u64,
    /// Byte after the last one in the arena.
    pub end: u64,
    /// One sentence.
    pub message: String,
}

impl fmt::Display for RaceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// An access to a range of an arena.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    arena: usize,
    buffer: usize,
    start: u64,
    end: u64,
    /// The value; `None` for scratch memory.
    value: Option<ValueId>,
    write: bool,
}

impl Access {
    /// A read of a value of so many bytes.
    pub(crate) fn read(slot: &Slot, bytes: u64, value: ValueId) -> Access {
        let (arena, buffer, start) = (slot.arena, slot.buffer, slot.start);
        Access { arena, buffer, start, end: start + bytes, value: Some(value), write: false }
    }

    /// A write of so many bytes.
    pub(crate) fn write(slot: &Slot, bytes: u64, value: Option<ValueId>) -> Access {
        let (arena, buffer, start) = (slot.arena, slot.buffer, slot.start);
        Access { arena, buffer, start, end: start + bytes, value, write: true }
    }
}

/// What a run did.
pub(crate) struct Record<'a> {
    /// Writes before the first command.
    pub(crate) before: &'a [Access],
    /// Accesses of each command; `None` if it did not run.
    pub(crate) commands: &'a [Option<Vec<Access>>],
    /// Reads after the last command.
    pub(crate) after: &'a [Access],
}

/// The hazards of a run. `label` names a command.
pub(crate) fn find(code: &EntryCode, record: &Record, label: &dyn Fn(usize) -> String) -> Vec<RaceReport> {
    let mut steps: Vec<(usize, &Step)> = Vec::with_capacity(code.commands);
    for (stream, queue) in code.streams.iter().enumerate() {
        steps.extend(queue.iter().map(|step| (stream, step)));
    }
    steps.sort_by_key(|(_, step)| step.command);
    let mut detector = Detector::new(code, label);
    detector.accesses(&Now { command: None, stream: None }, record.before);
    for (stream, step) in steps {
        let Some(Some(accesses)) = record.commands.get(step.command) else { continue };
        detector.step(stream, step, accesses);
    }
    detector.accesses(&Now { command: None, stream: None }, record.after);
    detector.reports
}

/// When an access was made: `None` before or after all commands, ordered with everything.
#[derive(Debug, Clone, Copy)]
struct Stamp {
    command: Option<usize>,
    /// Stream and the value of its own clock.
    at: Option<(usize, u32)>,
}

/// What is known of a range of bytes.
#[derive(Debug, Clone, Default)]
struct Segment {
    end: u64,
    /// Last write: when, and the value.
    write: Option<(Stamp, Option<ValueId>)>,
    /// Reads since then, the last of each stream.
    reads: Vec<Stamp>,
}

/// The command whose accesses are looked at.
struct Now {
    command: Option<usize>,
    stream: Option<usize>,
}

struct Detector<'a> {
    code: &'a EntryCode,
    label: &'a dyn Fn(usize) -> String,
    /// By stream: what it knows of the clocks of all streams.
    clocks: Vec<Vec<u32>>,
    events: Vec<Vec<u32>>,
    /// By arena, segments by their first byte.
    arenas: BTreeMap<usize, BTreeMap<u64, Segment>>,
    /// Where symbols were determined.
    symbols: BTreeMap<&'a Symbol, Vec<Stamp>>,
    /// Hazards reported: kind, first command, second command, buffer.
    seen: BTreeSet<(HazardKind, [Option<usize>; 3])>,
    reports: Vec<RaceReport>,
}

impl<'a> Detector<'a> {
    fn new(code: &'a EntryCode, label: &'a dyn Fn(usize) -> String) -> Self {
        let streams = code.streams.len();
        Detector {
            code,
            label,
            clocks: vec![vec![0; streams]; streams],
            events: vec![Vec::new(); code.events],
            arenas: BTreeMap::new(),
            symbols: BTreeMap::new(),
            seen: BTreeSet::new(),
            reports: Vec::new(),
        }
    }

    fn step(&mut self, stream: usize, step: &'a Step, accesses: &[Access]) {
        self.clocks[stream][stream] += 1;
        match &step.work {
            Work::Record(event) => self.events[*event] = self.clocks[stream].clone(),
            Work::Wait(event) => {
                for (mine, theirs) in self.clocks[stream].iter_mut().zip(&self.events[*event]) {
                    *mine = (*mine).max(*theirs);
                }
            }
            Work::Copy(_) => {}
            Work::Launch(kernel) => self.kernel_symbols(stream, step.command, *kernel),
        }
        self.accesses(&Now { command: Some(step.command), stream: Some(stream) }, accesses);
    }

    fn stamp(&self, now: &Now) -> Stamp {
        Stamp { command: now.command, at: now.stream.map(|s| (s, self.clocks[s][s])) }
    }

    fn ordered(&self, earlier: &Stamp, now: &Now) -> bool {
        match (earlier.at, now.stream) {
            (Some((stream, time)), Some(mine)) => self.clocks[mine][stream] >= time,
            _ => true,
        }
    }

    fn kernel_symbols(&mut self, stream: usize, command: usize, kernel: usize) {
        let code = self.code;
        let Some(kernel) = code.kernels.get(kernel) else { return };
        let now = Now { command: Some(command), stream: Some(stream) };
        for symbol in &kernel.needs {
            let determined =
                self.symbols.get(symbol).is_some_and(|s| s.iter().any(|s| self.ordered(s, &now)));
            if !determined {
                let message = format!(
                    "{} uses size '{}' without waiting for what determines it",
                    (self.label)(command),
                    symbol.name()
                );
                self.report(HazardKind::Symbol, None, &now, None, message);
            }
        }
        let stamp = self.stamp(&now);
        for symbol in &kernel.determines {
            self.symbols.entry(symbol).or_default().push(stamp);
        }
    }

    fn accesses(&mut self, now: &Now, accesses: &[Access]) {
        for access in accesses.iter().filter(|a| a.start < a.end) {
            let mut segments = self.arenas.remove(&access.arena).unwrap_or_default();
            for start in cover(&mut segments, access.start, access.end) {
                let Some(segment) = segments.get_mut(&start) else { continue };
                if access.write { self.write(now, access, segment) } else { self.read(now, access, segment) }
            }
            self.arenas.insert(access.arena, segments);
        }
    }

    fn read(&mut self, now: &Now, access: &Access, segment: &mut Segment) {
        match &segment.write {
            None => self.found(HazardKind::Unwritten, None, now, access),
            Some((stamp, _)) if !self.ordered(stamp, now) => {
                self.found(HazardKind::Race, Some(*stamp), now, access);
            }
            Some((stamp, written)) if !self.holds(access.value, *written) => {
                self.found(HazardKind::Stale, Some(*stamp), now, access);
            }
            Some(_) => {}
        }
        let stamp = self.stamp(now);
        segment.reads.retain(|r| r.at.map(|(s, _)| s) != stamp.at.map(|(s, _)| s));
        segment.reads.push(stamp);
    }

    fn write(&mut self, now: &Now, access: &Access, segment: &mut Segment) {
        let twice = |s: &Stamp| now.command.is_some() && s.command == now.command;
        let write = segment.write.iter().map(|(stamp, _)| stamp).find(|s| twice(s) || !self.ordered(s, now));
        let read = segment.reads.iter().find(|s| !self.ordered(s, now));
        if let Some(other) = write.or(read) {
            self.found(HazardKind::Race, Some(*other), now, access);
        }
        segment.write = Some((self.stamp(now), access.value));
        segment.reads.clear();
    }

    /// Are the bytes of `written` bytes of `value`?
    fn holds(&self, value: Option<ValueId>, written: Option<ValueId>) -> bool {
        let (Some(value), Some(written)) = (value, written) else { return false };
        let (mut open, mut seen) = (vec![value], BTreeSet::new());
        while let Some(v) = open.pop() {
            if v == written || seen.len() > MAX_ALIAS_STEPS {
                return true;
            }
            if seen.insert(v) {
                open.extend(self.code.aliases.get(&v).into_iter().flatten());
            }
        }
        false
    }

    fn found(&mut self, kind: HazardKind, earlier: Option<Stamp>, now: &Now, access: &Access) {
        let name = |command: Option<usize>, or: &str| command.map_or(or.to_owned(), |c| (self.label)(c));
        let verb = if access.write { "writes" } else { "reads" };
        let second = name(now.command, "the end of the run");
        let other = name(earlier.and_then(|s| s.command), "the start of the run");
        let range = format!("buffer {} (arena {}, from byte {})", access.buffer, access.arena, access.start);
        let message = match kind {
            HazardKind::Race if earlier.is_some_and(|s| s.command == now.command) => {
                format!("{second} writes {range} twice")
            }
            HazardKind::Unwritten => format!("{second} reads {range}, which nothing has written"),
            HazardKind::Stale => format!("{second} reads {range}, where {other} has put another value"),
            HazardKind::Race | HazardKind::Symbol => {
                format!("{second} {verb} {range} without waiting for {other}")
            }
        };
        self.report(kind, earlier, now, Some(access), message);
    }

    fn report(
        &mut self,
        kind: HazardKind,
        earlier: Option<Stamp>,
        now: &Now,
        access: Option<&Access>,
        message: String,
    ) {
        let first = earlier.and_then(|s| s.command);
        let new = self.seen.insert((kind, [first, now.command, access.map(|a| a.buffer)]));
        if !new || self.reports.len() >= MAX_REPORTS {
            return;
        }
        self.reports.push(RaceReport {
            kind,
            first: first.map(|c| c as u32),
            second: now.command.map(|c| c as u32),
            arena: access.map(|a| ArenaId(a.arena as u32)),
            buffer: access.map(|a| BufferId(a.buffer as u32)),
            start: access.map_or(0, |a| a.start),
            end: access.map_or(0, |a| a.end),
            message,
        });
    }
}

/// Cuts segments at both ends of a range and fills its gaps; gives the first bytes of the segments that make it up.
fn cover(segments: &mut BTreeMap<u64, Segment>, start: u64, end: u64) -> Vec<u64> {
    for at in [start, end] {
        if let Some((_, segment)) = segments.range_mut(..at).next_back()
            && segment.end > at
        {
            let right = segment.clone();
            segment.end = at;
            segments.insert(at, right);
        }
    }
    let (mut at, mut gaps) = (start, Vec::new());
    for (first, segment) in segments.range(start..end) {
        if *first > at {
            gaps.push((at, *first));
        }
        at = segment.end;
    }
    if at < end {
        gaps.push((at, end));
    }
    for (start, end) in gaps {
        segments.insert(start, Segment { end, ..Segment::default() });
    }
    segments.range(start..end).map(|(first, _)| *first).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_and_filled() {
        let mut segments = BTreeMap::new();
        assert_eq!(cover(&mut segments, 10, 20), [10]);
        assert_eq!(cover(&mut segments, 15, 30), [15, 20]);
        assert_eq!(cover(&mut segments, 0, 40), [0, 10, 15, 20, 30]);
        assert_eq!(cover(&mut segments, 12, 13), [12]);
        let ends: Vec<u64> = segments.values().map(|s| s.end).collect();
        assert_eq!(ends, [10, 12, 13, 15, 20, 30, 40]);
    }
}
