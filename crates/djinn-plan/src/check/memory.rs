//! What stands in the bytes of the arenas while the commands are visited in the order of the list, and who touched them
//! last.
//!
//! Each arena is cut into pieces whose bytes were all touched alike. As in FastTrack (Flanagan and Freund, PLDI 2009) a
//! piece knows its last write and, per stream, the last read since: if all earlier conflicts were ordered, these are all
//! that a further access has to be compared with.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::order::{Clocks, Moment};
use super::{Constraint, MAX_STEPS, Range, Report};
use crate::plan::{BufferId, Plan, ValueRef, View};

/// A value as it was written: the value, the buffer and all its bytes. Bytes written through one buffer are not to be read
/// through another that happens to lie there: a runtime may clear a buffer when its own use begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tag {
    pub(super) value: ValueRef,
    pub(super) buffer: BufferId,
    pub(super) range: Range,
}

impl Tag {
    /// The value at a view of a sound plan.
    pub(super) fn of(plan: &Plan, value: ValueRef, view: &View) -> Tag {
        Tag { value, buffer: view.buffer, range: Range::of(plan, view) }
    }
}

/// A piece of an arena, up to its end; the map's key is its start.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) end: u64,
    /// The command that wrote it, if one did.
    pub(super) written: Option<Moment>,
    /// What was written, if it is a value.
    pub(super) tag: Option<Tag>,
    reads: Vec<Moment>,
}

/// All arenas.
pub(super) struct Memory {
    arenas: Vec<BTreeMap<u64, Piece>>,
    steps: Cell<u64>,
    /// Pairs of conflicting accesses found ordered.
    pub(super) ordered: u64,
}

impl Memory {
    pub(super) fn new(plan: &Plan) -> Memory {
        let arenas = plan.arenas.iter().map(|arena| {
            let piece = Piece { end: arena.bytes, written: None, tag: None, reads: Vec::new() };
            if arena.bytes > 0 { BTreeMap::from([(0, piece)]) } else { BTreeMap::new() }
        });
        Memory { arenas: arenas.collect(), steps: Cell::new(0), ordered: 0 }
    }

    /// Counts steps; `false` when there were too many.
    pub(super) fn spend(&self, steps: u64) -> bool {
        self.steps.set(self.steps.get().saturating_add(steps));
        self.steps.get() <= MAX_STEPS
    }

    /// What stands there when a run begins.
    pub(super) fn place(&mut self, tag: Tag) {
        self.replace(tag.range, Piece { end: 0, written: None, tag: Some(tag), reads: Vec::new() });
    }

    /// Notes a read; each unordered write goes to `race`.
    pub(super) fn read(&mut self, range: Range, now: Moment, clocks: &Clocks, mut race: impl FnMut(Moment)) {
        if range.is_empty() {
            return;
        }
        self.cut(range.arena, range.start);
        self.cut(range.arena, range.end);
        let mut visited = 0;
        for (_, piece) in self.arenas[range.arena].range_mut(range.start..range.end) {
            visited += 1 + piece.reads.len() as u64;
            if let Some(write) = piece.written {
                self.ordered += 1;
                if !clocks.ordered(write, now) {
                    race(write);
                }
            }
            match piece.reads.iter_mut().find(|r| r.stream == now.stream) {
                Some(read) => *read = now,
                None => piece.reads.push(now),
            }
        }
        self.spend(visited);
    }

    /// Notes a write; each unordered access, and whether it is a write, goes to `race`.
    pub(super) fn write(
        &mut self,
        range: Range,
        tag: Option<Tag>,
        now: Moment,
        clocks: &Clocks,
        mut race: impl FnMut(Moment, bool),
    ) {
        if range.is_empty() {
            return;
        }
        self.cut(range.arena, range.start);
        self.cut(range.arena, range.end);
        let mut visited = 0;
        for (_, piece) in self.arenas[range.arena].range(range.start..range.end) {
            visited += 1 + piece.reads.len() as u64;
            let accesses =
                piece.written.iter().map(|w| (*w, true)).chain(piece.reads.iter().map(|r| (*r, false)));
            for (past, is_write) in accesses.filter(|(past, _)| past.command != now.command) {
                self.ordered += 1;
                if !clocks.ordered(past, now) {
                    race(past, is_write);
                }
            }
        }
        self.spend(visited);
        self.replace(range, Piece { end: 0, written: Some(now), tag, reads: Vec::new() });
    }

    /// The pieces of a range, each with its start, cut to the range.
    pub(super) fn pieces(&self, range: Range) -> impl Iterator<Item = (Range, &Piece)> {
        let map = &self.arenas[range.arena];
        let first = map.range(..=range.start).next_back().map_or(range.start, |(start, _)| *start);
        map.range(first..range.end.max(first)).filter_map(move |(&start, piece)| {
            let cut = range.intersection(&Range { arena: range.arena, start, end: piece.end });
            (!cut.is_empty()).then_some((cut, piece))
        })
    }

    /// Reports when there were too many steps.
    pub(super) fn within_limits(&self, report: &mut Report) -> bool {
        let within = self.spend(0);
        report.demand(within, Constraint::Limits, || {
            format!("the check gave up after {MAX_STEPS} steps: too many values in pieces")
        });
        within
    }

    /// Makes `at` the start of a piece.
    fn cut(&mut self, arena: usize, at: u64) {
        let map = &mut self.arenas[arena];
        if let Some((&start, piece)) = map.range_mut(..at).next_back()
            && start < at
            && at < piece.end
        {
            let tail = piece.clone();
            piece.end = at;
            map.insert(at, tail);
        }
    }

    /// Replaces the pieces of a range by one.
    fn replace(&mut self, range: Range, piece: Piece) {
        if range.is_empty() {
            return;
        }
        self.cut(range.arena, range.start);
        self.cut(range.arena, range.end);
        let map = &mut self.arenas[range.arena];
        while let Some((&start, _)) = map.range(range.start..range.end).next() {
            map.remove(&start);
        }
        map.insert(range.start, Piece { end: range.end, ..piece });
    }
}
