//! Execution in the order of the list: which value stands where, and whether what touches it is ordered.

use std::collections::{BTreeMap, BTreeSet};

use super::memory::{Memory, Piece, Tag};
use super::order::{Clocks, Moment};
use super::{Constraint, Proof, Range, Report, describe, overlapping};
use crate::plan::{Action, ArenaKind, Content, Entry, Kernel, Operand, Place, Plan, Port, ValueRef, View};

/// Alias within alias, at most.
const MAX_DEPTH: usize = 64;

pub(super) fn check(plan: &Plan, entry: &Entry, report: &mut Report, proof: &mut Proof) {
    let Some(clocks) = Clocks::new(entry, report) else { return };
    let aliases = aliases(plan, entry, report);
    let constants = entry.constants.iter().map(|c| tag(plan, c)).collect();
    let mut flow = Flow { plan, entry, clocks, memory: Memory::new(plan), aliases, constants };
    flow.begin();
    for (number, command) in entry.commands.iter().enumerate() {
        report.command = Some(number);
        let Some(now) = flow.clocks.step(number, command, report) else { return };
        flow.execute(now, &command.action, report, proof);
        if !flow.memory.within_limits(report) || report.full() {
            return;
        }
    }
    report.command = None;
    flow.clocks.end(report);
    flow.end(report, proof);
    flow.memory.within_limits(report);
    proof.ordered += flow.memory.ordered;
}

fn tag(plan: &Plan, operand: &Operand) -> Tag {
    Tag::of(plan, operand.value, &operand.view)
}

/// The parts of every alias that is well made.
fn aliases(plan: &Plan, entry: &Entry, report: &mut Report) -> BTreeMap<Tag, Vec<Tag>> {
    let mut aliases = BTreeMap::new();
    for alias in &entry.aliases {
        let value = tag(plan, &alias.value);
        let parts: Vec<Tag> = alias.of.iter().map(|part| tag(plan, part)).collect();
        let inside: Vec<Range> = parts.iter().map(|p| p.range.intersection(&value.range)).collect();
        let covered: u128 = inside.iter().map(|r| u128::from(r.end - r.start)).sum();
        let apart = parts.iter().find(|p| p.buffer != value.buffer);
        report.demand(apart.is_none(), Constraint::Aliases, || {
            let (place, part) = (describe(plan, &alias.value.view), apart.map(|p| p.value.to_string()));
            format!("{} at {place} has its part {} in another buffer", value.value, part.unwrap_or_default())
        });
        let whole = u128::from(value.range.end - value.range.start);
        let disjoint = overlapping(inside.iter().copied()).is_none();
        report.demand(disjoint && covered == whole, Constraint::Aliases, || {
            let place = describe(plan, &alias.value.view);
            format!("{} at {place} has {whole} bytes, but its parts cover {covered} of them", value.value)
        });
        if aliases.insert(value, parts).is_some() {
            report.add(Constraint::Aliases, || {
                format!("{} is an alias at {} twice", value.value, describe(plan, &alias.value.view))
            });
        }
    }
    for tag in circular(&aliases) {
        report
            .add(Constraint::Aliases, || format!("{} is made of itself, or by too long a chain", tag.value));
    }
    aliases
}

/// Aliases that depend on themselves or on a chain of more than [`MAX_DEPTH`] others.
fn circular(aliases: &BTreeMap<Tag, Vec<Tag>>) -> Vec<Tag> {
    let mut settled: BTreeSet<Tag> = BTreeSet::new();
    let mut open: Vec<Tag> = aliases.keys().copied().collect();
    // Round by round, an alias is settled when all its parts are.
    for _ in 0..MAX_DEPTH {
        let is_settled = |part: &Tag| !aliases.contains_key(part) || settled.contains(part);
        let (now, rest): (Vec<Tag>, Vec<Tag>) = open.iter().partition(|t| aliases[*t].iter().all(is_settled));
        if now.is_empty() {
            break;
        }
        settled.extend(now);
        open = rest;
    }
    open
}

struct Flow<'p> {
    plan: &'p Plan,
    entry: &'p Entry,
    clocks: Clocks,
    memory: Memory,
    aliases: BTreeMap<Tag, Vec<Tag>>,
    /// Constants stand where they are for good: no command writes to their buffers.
    constants: BTreeSet<Tag>,
}

impl Flow<'_> {
    /// Puts states and resident inputs in place.
    fn begin(&mut self) {
        for state in &self.entry.states {
            self.memory.place(Tag::of(self.plan, ValueRef::Argument(state.argument), &state.view));
        }
        for port in self.entry.inputs.iter().filter(|p| p.resident) {
            if let Some(view) = &port.view {
                self.memory.place(Tag::of(self.plan, port.value, view));
            }
        }
    }

    fn execute(&mut self, now: Moment, action: &Action, report: &mut Report, proof: &mut Proof) {
        match *action {
            Action::Launch { kernel } => {
                let kernel = &self.entry.kernels[kernel.index()];
                in_place(self.plan, self.entry, kernel, report);
                kernel.reads.iter().for_each(|o| self.read(now, o.value, &o.view, report, proof));
                if let Some(view) = &kernel.workspace {
                    self.write(now, None, view, report, proof);
                }
                kernel.writes.iter().for_each(|o| self.write(now, Some(o.value), &o.view, report, proof));
            }
            Action::Copy { value, result, from, to, .. } => {
                if let (Place::Buffer(a), Place::Buffer(b)) = (from, to) {
                    let overlap = Range::of(self.plan, &a).overlaps(&Range::of(self.plan, &b));
                    report.demand(!overlap, Constraint::InPlace, || {
                        let (from, to) = (describe(self.plan, &a), describe(self.plan, &b));
                        format!("a copy from {from} to {to} overlaps itself")
                    });
                }
                if let Place::Buffer(view) = from {
                    self.read(now, value, &view, report, proof);
                }
                if let Place::Buffer(view) = to {
                    self.write(now, Some(result), &view, report, proof);
                }
            }
            Action::Record { .. } | Action::Wait { .. } => {}
        }
    }

    fn read(&mut self, now: Moment, value: ValueRef, view: &View, report: &mut Report, proof: &mut Proof) {
        let range = Range::of(self.plan, view);
        let mut races = BTreeSet::new();
        self.memory.read(range, now, &self.clocks, |past| {
            races.insert(past.command);
        });
        for past in races {
            self.race(past, "writes", "reads", view, report);
        }
        if let Err(found) = self.holds(Tag::of(self.plan, value, view), range, 0) {
            report.add(Constraint::Values, || {
                format!("{value} is read at {}, but {found}", describe(self.plan, view))
            });
        }
        proof.reads += 1;
    }

    fn write(
        &mut self,
        now: Moment,
        value: Option<ValueRef>,
        view: &View,
        report: &mut Report,
        proof: &mut Proof,
    ) {
        let plan = self.plan;
        let buffer = &plan.buffers[view.buffer.index()];
        report.demand(!matches!(buffer.content, Content::Constant { .. }), Constraint::Ownership, || {
            format!("{} is written, but holds a constant", describe(plan, view))
        });
        let range = Range::of(plan, view);
        let tag = value.map(|value| Tag::of(plan, value, view));
        let mut races = BTreeSet::new();
        self.memory.write(range, tag, now, &self.clocks, |past, is_write| {
            races.insert((past.command, is_write));
        });
        for (past, is_write) in races {
            self.race(past, if is_write { "writes" } else { "reads" }, "writes", view, report);
        }
        proof.writes += 1;
    }

    fn race(&self, past: usize, did: &str, does: &str, view: &View, report: &mut Report) {
        let command = &self.entry.commands[past];
        report.add(Constraint::Order, || {
            let (place, stream) = (describe(self.plan, view), command.stream.0);
            format!("it {does} {place}, which command {past} in stream {stream} {did}, and no event orders the two")
        });
    }

    /// Do these bytes of a value stand there? If not: what does instead. Once the steps are spent, the answer is yes:
    /// [`Memory::within_limits`] says that the check failed.
    fn holds(&self, tag: Tag, bytes: Range, depth: usize) -> Result<(), String> {
        if bytes.is_empty() || self.constants.contains(&tag) {
            return Ok(());
        }
        let mut visited = 1;
        let odd =
            self.memory.pieces(bytes).inspect(|_| visited += 1).find(|(_, piece)| piece.tag != Some(tag));
        let Some((range, piece)) = odd else {
            self.memory.spend(visited);
            return Ok(());
        };
        let Some(parts) = self.aliases.get(&tag).filter(|_| depth < MAX_DEPTH) else {
            return Err(found(piece, range, tag));
        };
        if !self.memory.spend(visited + parts.len() as u64) {
            return Ok(());
        }
        parts.iter().try_for_each(|part| {
            self.holds(*part, part.range.intersection(&bytes), depth + 1)
                .map_err(|found| format!("its part {}: {found}", part.value))
        })
    }

    /// What must stand there when all streams have ended.
    fn end(&mut self, report: &mut Report, proof: &mut Proof) {
        let updates = self.entry.updates.iter().map(|u| (u.value, u.view));
        let outputs =
            self.entry.outputs.iter().filter(|p| p.resident).filter_map(|p| Some((p.value, p.view?)));
        let left: Vec<(ValueRef, View)> = updates.chain(outputs).collect();
        for (value, view) in &left {
            let range = Range::of(self.plan, view);
            if let Err(found) = self.holds(Tag::of(self.plan, *value, view), range, 0) {
                report.add(Constraint::End, || {
                    format!("{value} shall stand at {} in the end, but {found}", describe(self.plan, view))
                });
            }
            proof.reads += 1;
        }
        self.declared(&left, report);
    }

    /// All that commands wrote to states must be the value of an update or of a resident output.
    fn declared(&self, left: &[(ValueRef, View)], report: &mut Report) {
        let mut ranges: Vec<Range> = left.iter().map(|(_, view)| Range::of(self.plan, view)).collect();
        ranges.sort_unstable();
        for (number, arena) in self.plan.arenas.iter().enumerate().filter(|(_, a)| a.kind == ArenaKind::State)
        {
            let whole = Range { arena: number, start: 0, end: arena.bytes };
            for (range, piece) in self.memory.pieces(whole) {
                let Some(write) = piece.written else { continue };
                let at = ranges.partition_point(|r| (r.arena, r.start) <= (range.arena, range.start));
                let declared = at > 0 && ranges[at - 1].intersection(&range) == range;
                report.demand(declared, Constraint::State, || {
                    let (start, end, command) = (range.start, range.end, write.command);
                    format!("command {command} leaves bytes {start}..{end} of arena {number}, a state's, changed; no update says so")
                });
            }
        }
    }
}

/// What stands in a piece where a value was looked for.
fn found(piece: &Piece, range: Range, wanted: Tag) -> String {
    let bytes = format!("bytes {}..{} of arena {}", range.start, range.end, range.arena);
    let writer = piece.written.map_or_else(String::new, |w| format!(", written by command {}", w.command));
    match piece.tag {
        Some(tag) if tag.value == wanted.value => {
            let Range { start, end, .. } = tag.range;
            format!("{bytes} hold it as bytes {start}..{end}, of buffer {}{writer}", tag.buffer.0)
        }
        Some(tag) => format!("{bytes} hold {}{writer}", tag.value),
        None if piece.written.is_some() => format!("{bytes} hold scratch data{writer}"),
        None => format!("nothing has written {bytes}"),
    }
}

/// Does a kernel write the new content of a resident input, an output that stays where the input was, from its first byte
/// on? It reads nothing else there, and is outside of engines, which write while they read.
fn appends(plan: &Plan, entry: &Entry, kernel: &Kernel, operand: &Operand) -> bool {
    let resident = |ports: &[Port], o: &Operand| {
        ports.iter().any(|p| p.resident && p.value == o.value && p.view == Some(o.view))
    };
    let read = Range::of(plan, &operand.view);
    let mut written = kernel.writes.iter().filter(|w| Range::of(plan, &w.view).overlaps(&read));
    let (Some(new), None) = (written.next(), written.next()) else { return false };
    let write = Range::of(plan, &new.view);
    let alone = kernel.reads.iter().filter(|r| Range::of(plan, &r.view).overlaps(&write)).count() == 1;
    let begins = new.view.buffer == operand.view.buffer && write.start == read.start && write.end >= read.end;
    let ports = resident(&entry.inputs, operand) && resident(&entry.outputs, new);
    alone && begins && ports && kernel.engine.is_none()
}

/// The writes of a kernel are disjoint from each other and from its scratch memory, and a read that shares bytes with a
/// write is of just these bytes, or the kernel appends to it: anything else has a kernel overwrite what it still reads.
fn in_place(plan: &Plan, entry: &Entry, kernel: &Kernel, report: &mut Report) {
    let writes: Vec<Range> = kernel.writes.iter().map(|o| Range::of(plan, &o.view)).collect();
    let scratch = kernel.workspace.as_ref().map(|w| Range::of(plan, w));
    if let Some((a, b)) = overlapping(writes.iter().copied().chain(scratch)) {
        report.add(Constraint::InPlace, || {
            let (name, s) = (&kernel.name, a.intersection(&b));
            format!("kernel '{name}' writes bytes {}..{} of arena {} twice", s.start, s.end, s.arena)
        });
    }
    let mut sorted = writes.clone();
    sorted.sort_unstable();
    for operand in &kernel.reads {
        let read = Range::of(plan, &operand.view);
        // Disjoint ranges in order: those that overlap the read are neighbours in the list.
        let first = sorted.partition_point(|w| (w.arena, w.end) <= (read.arena, read.start));
        let clash = sorted[first..].iter().take_while(|w| w.overlaps(&read)).any(|w| *w != read);
        let clash = clash && !appends(plan, entry, kernel, operand);
        report.demand(!clash && !scratch.is_some_and(|s| s.overlaps(&read)), Constraint::InPlace, || {
            let (name, value, place) = (&kernel.name, operand.value, describe(plan, &operand.view));
            format!("kernel '{name}' reads {value} at {place} and overwrites a part of it or more")
        });
    }
}
