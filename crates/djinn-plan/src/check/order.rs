//! Happens-before, as vector clocks per stream (Mattern, "Virtual Time and Global States of Distributed Systems",
//! 1989): a clock says how many commands of every stream are known to have ended.

use std::collections::BTreeMap;

use super::{Constraint, MAX_CLOCK_CELLS, Report};
use crate::plan::{Action, Command, Entry};

/// A moment: the command of this number in this stream (numbered among those that have commands), counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) stream: usize,
    pub(super) tick: u32,
    /// Number in the list of commands.
    pub(super) command: usize,
}

/// The clocks of all streams while the commands are visited in the order of the list.
pub(super) struct Clocks {
    streams: BTreeMap<u32, usize>,
    clocks: Vec<Vec<u32>>,
    /// What an event's record knew, until its last wait.
    events: Vec<Option<Vec<u32>>>,
    recorded: Vec<bool>,
    waits: Vec<u32>,
    alive: usize,
}

impl Clocks {
    /// Clocks at the start of a run; `None`, with a violation, if there are too many streams.
    pub(super) fn new(entry: &Entry, report: &mut Report) -> Option<Clocks> {
        let mut streams = BTreeMap::new();
        for command in &entry.commands {
            let next = streams.len();
            streams.entry(command.stream.0).or_insert(next);
        }
        let count = streams.len();
        let alive = count.saturating_mul(count);
        if alive > MAX_CLOCK_CELLS {
            report.add(Constraint::Limits, || format!("{count} streams are too many to check"));
            return None;
        }
        let mut waits = vec![0; entry.events as usize];
        for command in &entry.commands {
            if let Action::Wait { event } = command.action {
                waits[event.index()] += 1;
            }
        }
        let events = entry.events as usize;
        Some(Clocks {
            streams,
            clocks: vec![vec![0; count]; count],
            events: vec![None; events],
            recorded: vec![false; events],
            waits,
            alive,
        })
    }

    /// Begins the next command of the list. `None`, with a violation, if too many events are alive.
    pub(super) fn step(&mut self, number: usize, command: &Command, report: &mut Report) -> Option<Moment> {
        let stream = self.streams[&command.stream.0];
        self.clocks[stream][stream] += 1;
        match command.action {
            Action::Record { event } => self.record(stream, event.index(), report)?,
            Action::Wait { event } => self.wait(stream, event.index(), report),
            Action::Launch { .. } | Action::Copy { .. } => {}
        }
        Some(Moment { stream, tick: self.clocks[stream][stream], command: number })
    }

    fn record(&mut self, stream: usize, event: usize, report: &mut Report) -> Option<()> {
        report
            .demand(!self.recorded[event], Constraint::Events, || format!("event {event} is recorded again"));
        if self.waits[event] > 0 && !self.recorded[event] {
            self.alive += self.clocks.len();
            if self.alive > MAX_CLOCK_CELLS {
                report.add(Constraint::Limits, || "too many events are pending to be checked".into());
                return None;
            }
            self.events[event] = Some(self.clocks[stream].clone());
        }
        self.recorded[event] = true;
        Some(())
    }

    fn wait(&mut self, stream: usize, event: usize, report: &mut Report) {
        report.demand(self.recorded[event], Constraint::Events, || {
            format!("event {event} is waited for before its record: the stream would wait forever")
        });
        if let Some(known) = &self.events[event] {
            for (mine, theirs) in self.clocks[stream].iter_mut().zip(known) {
                *mine = (*mine).max(*theirs);
            }
        }
        self.waits[event] -= 1;
        if self.waits[event] == 0 && self.events[event].take().is_some() {
            self.alive -= self.clocks.len();
        }
    }

    /// Reports events that no command records.
    pub(super) fn end(&self, report: &mut Report) {
        for (event, recorded) in self.recorded.iter().enumerate() {
            report.demand(*recorded, Constraint::Events, || format!("event {event} is recorded nowhere"));
        }
    }

    /// Has `past` ended before `now` begins? Both are the same command: yes.
    pub(super) fn ordered(&self, past: Moment, now: Moment) -> bool {
        self.clocks[now.stream][past.stream] >= past.tick
    }
}
