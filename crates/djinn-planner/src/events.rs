//! Events between streams: the fewest that keep every conflicting pair of commands in the order of the draft.
//!
//! Commands are walked in that order with one vector clock each (Mattern: "Virtual time and global states of
//! distributed systems", 1988). A command waits for a predecessor only if no later predecessor, nor its own stream,
//! already implies it: exactly the cross-stream edges of the transitive reduction of the conflicts and the streams.

use crate::commands::DraftCommand;
use djinn_plan::{Action, Command, Entry, EventId, Plan, StreamId, View};
use std::collections::BTreeMap;

/// What orders the commands of a draft.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// Commands to wait for, by command.
    pub(crate) waits: Vec<Vec<usize>>,
    /// Event that marks the end of each command, if something waits for it.
    pub(crate) event: Vec<Option<EventId>>,
    /// Number of events.
    pub(crate) events: u32,
    /// By command and stream: 1 + the latest command of the stream that is complete when this one starts; 0 for none.
    clocks: Vec<u32>,
    /// Number of streams.
    pub(crate) streams: usize,
}

impl Order {
    /// Every command after those before it.
    pub(crate) fn listed() -> Self {
        Order { streams: 1, ..Order::default() }
    }

    /// What the events of an entry order.
    pub(crate) fn of_entry(entry: &Entry) -> Self {
        let streams = entry.commands.iter().map(|c| c.stream.index() + 1).max().unwrap_or(1);
        let mut order = Order { streams, ..Order::default() };
        let mut now = vec![vec![0u32; streams]; streams];
        let mut recorded: BTreeMap<EventId, Vec<u32>> = BTreeMap::new();
        let mut commands = 0;
        for command in &entry.commands {
            let own = command.stream.index();
            match command.action {
                Action::Record { event } => {
                    recorded.insert(event, now[own].clone());
                }
                Action::Wait { event } => {
                    for (mine, theirs) in now[own].iter_mut().zip(recorded.get(&event).into_iter().flatten())
                    {
                        *mine = (*mine).max(*theirs);
                    }
                }
                Action::Launch { .. } | Action::Copy { .. } => {
                    order.clocks.extend(&now[own]);
                    commands += 1;
                    now[own][own] = commands;
                }
            }
        }
        order
    }

    /// By stream: 1 + its latest command that is complete when `command` starts. Not known if there is one stream only.
    pub(crate) fn clock(&self, command: usize) -> &[u32] {
        &self.clocks[command * self.streams..][..self.streams]
    }
}

/// Bytes that two commands may both touch: what they are in, the first one, and the one behind the last.
pub(crate) type Bytes = (u32, u64, u64);

/// The bytes of a view as those of its buffer, whose place is not known yet.
pub(crate) fn in_buffer(view: &View) -> Bytes {
    (view.buffer.0, view.offset, view.offset.saturating_add(view.bytes))
}

/// The bytes of a view as those of its arena, so that buffers which share them come one after the other.
pub(crate) fn in_arena(plan: &Plan) -> impl Fn(&View) -> Bytes {
    |view| {
        let buffer = &plan.buffers[view.buffer.index()];
        let start = buffer.offset.saturating_add(view.offset);
        (buffer.arena.0, start, start.saturating_add(view.bytes))
    }
}

/// Finds the waits of every command, so that those which touch the same bytes keep their order.
pub(crate) fn synchronise(commands: &[DraftCommand], bytes: &dyn Fn(&View) -> Bytes) -> Order {
    let streams = commands.iter().map(|c| c.stream.index() + 1).max().unwrap_or(1);
    let mut order = Order {
        waits: vec![Vec::new(); commands.len()],
        event: vec![None; commands.len()],
        events: 0,
        clocks: vec![0; commands.len() * streams],
        streams,
    };
    // One stream keeps its own order.
    if streams == 1 {
        return order;
    }
    let mut latest: Vec<Option<usize>> = vec![None; streams];
    let mut history: BTreeMap<u32, Vec<Access>> = BTreeMap::new();
    for (i, command) in commands.iter().enumerate() {
        let own = command.stream.index();
        let mut clock = latest[own].map_or_else(|| vec![0; streams], |p| ended(&order, commands, p));
        for p in conflicts(&mut history, i, command, bytes).into_iter().rev() {
            let stream = commands[p].stream.index();
            if clock[stream] > p as u32 {
                continue;
            }
            for (mine, theirs) in clock.iter_mut().zip(ended(&order, commands, p)) {
                *mine = (*mine).max(theirs);
            }
            order.waits[i].push(p);
            if order.event[p].is_none() {
                order.event[p] = Some(EventId(order.events));
                order.events += 1;
            }
        }
        order.clocks[i * streams..][..streams].copy_from_slice(&clock);
        latest[own] = Some(i);
    }
    order
}

/// The clock at the end of a command.
fn ended(order: &Order, commands: &[DraftCommand], command: usize) -> Vec<u32> {
    let mut clock = order.clock(command).to_vec();
    clock[commands[command].stream.index()] = command as u32 + 1;
    clock
}

/// An access that later ones may conflict with.
struct Access {
    command: usize,
    stream: StreamId,
    start: u64,
    end: u64,
    write: bool,
}

/// Earlier commands whose accesses conflict with those of command `i`, ascending; remembers those of `i`.
fn conflicts(
    history: &mut BTreeMap<u32, Vec<Access>>,
    i: usize,
    command: &DraftCommand,
    bytes: &dyn Fn(&View) -> Bytes,
) -> Vec<usize> {
    let mut found = Vec::new();
    for (views, write) in [(&command.reads, false), (&command.writes, true)] {
        for (of, start, end) in views.iter().map(bytes) {
            let past = history.entry(of).or_default();
            let clash = |a: &&Access| (a.write || write) && a.start < end && start < a.end;
            found.extend(past.iter().filter(clash).map(|a| a.command));
            let covered = |a: &Access| start <= a.start && a.end <= end;
            if write {
                // What this write covers whole is ordered before it: later conflicts are found through it.
                past.retain(|a| a.command == i || !covered(a));
            } else {
                // Whoever waits for this read waits for earlier ones on its stream.
                past.retain(|a| a.write || a.stream != command.stream || !covered(a));
            }
            past.push(Access { command: i, stream: command.stream, start, end, write });
        }
    }
    found.retain(|p| *p != i);
    found.sort_unstable();
    found.dedup();
    found
}

/// The commands with their waits and records.
pub(crate) fn with_events(drafted: &[DraftCommand], order: &Order) -> Vec<Command> {
    let mut commands = Vec::with_capacity(drafted.len());
    for (i, command) in drafted.iter().enumerate() {
        let stream = command.stream;
        for p in &order.waits[i] {
            if let Some(event) = order.event[*p] {
                commands.push(Command { stream, action: Action::Wait { event } });
            }
        }
        commands.push(Command { stream, action: command.action });
        if let Some(event) = order.event[i] {
            commands.push(Command { stream, action: Action::Record { event } });
        }
    }
    commands
}
