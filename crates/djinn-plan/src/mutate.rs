//! Plans with one thing changed, for testing checkers and runtimes: what the checker accepts of these must still run
//! right, and what no longer runs right it must refuse.

use std::fmt;

use crate::engine::Granularity;
use crate::plan::{ALIGNMENT, Action, BufferId, Entry, EventId, Place, Plan, StreamId, View};

/// A view within an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// What a kernel reads: kernel, number of the operand.
    Read(usize, usize),
    /// What a kernel writes: kernel, number of the result.
    Write(usize, usize),
    /// The scratch memory of a kernel.
    Workspace(usize),
    /// The source of a copy: number of the command.
    From(usize),
    /// The destination of a copy.
    To(usize),
    /// The bytes of an alias.
    Alias(usize),
    /// A part of an alias: alias, number of the part.
    Part(usize, usize),
    /// An input's bytes.
    Input(usize),
    /// An output's bytes.
    Output(usize),
    /// A state's bytes.
    State(usize),
    /// A state's bytes at the end.
    Update(usize),
    /// A constant's bytes.
    Constant(usize),
}

/// One change of a plan.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// Takes a command away.
    RemoveCommand(usize),
    /// Takes an event away, its record and its waits.
    RemoveEvent(usize),
    /// Swaps two commands.
    SwapCommands(usize, usize),
    /// Puts a command in another stream.
    MoveCommand(usize, StreamId),
    /// Sets the memory of a device.
    Capacity(usize, u64),
    /// Sets the size of an arena.
    ArenaBytes(usize, u64),
    /// Moves a buffer within its arena.
    BufferOffset(usize, u64),
    /// Sets the size of a buffer.
    BufferBytes(usize, u64),
    /// Points a view at another buffer.
    Redirect(Site, BufferId),
    /// Moves a view within its buffer.
    ViewOffset(Site, u64),
    /// Takes the update of a state away.
    RemoveUpdate(usize),
    /// Takes an alias away.
    RemoveAlias(usize),
    /// Takes the binding of a constant away.
    RemoveConstant(usize),
    /// Puts an operation into another kernel too.
    ShareOperation(usize, usize),
    /// Says that a launch is what it is not.
    Granularity(Granularity),
    /// Takes an operation away from a kernel: number of the kernel, place in its list.
    RemoveOperation(usize, usize),
    /// Gives a kernel scratch memory at this view.
    Workspace(usize, View),
}

/// A change and where it is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Mutation {
    /// The entry that is changed; devices, arenas and buffers belong to none, and then it is 0.
    pub entry: usize,
    /// The change.
    pub edit: Edit,
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {}: {:?}", self.entry, self.edit)
    }
}

/// All mutations of a plan, always in the same order. There are some ten per command: take every n-th of a large plan.
pub fn mutations(plan: &Plan) -> Vec<Mutation> {
    let mut edits: Vec<(usize, Edit)> = Vec::new();
    for (number, device) in plan.devices.iter().enumerate() {
        let taken = plan.arenas.iter().filter(|a| a.device.index() == number).map(|a| a.bytes);
        let taken = taken.fold(0u64, u64::saturating_add);
        if taken > 0 && taken <= device.memory_bytes {
            edits.push((0, Edit::Capacity(number, taken - 1)));
        }
    }
    for (number, arena) in plan.arenas.iter().enumerate() {
        let buffers = plan.buffers.iter().filter(|b| b.arena.index() == number);
        if let Some(end) = buffers.map(|b| b.offset.saturating_add(b.bytes)).max()
            && end > 0
            && end <= arena.bytes
        {
            edits.push((0, Edit::ArenaBytes(number, end - 1)));
        }
    }
    buffer_edits(plan, &mut |edit| edits.push((0, edit)));
    for (number, entry) in plan.entries.iter().enumerate() {
        command_edits(entry, &mut |edit| edits.push((number, edit)));
        view_edits(plan, entry, &mut |edit| edits.push((number, edit)));
        (0..entry.updates.len()).for_each(|i| edits.push((number, Edit::RemoveUpdate(i))));
        (0..entry.aliases.len()).for_each(|i| edits.push((number, Edit::RemoveAlias(i))));
        (0..entry.constants.len()).for_each(|i| edits.push((number, Edit::RemoveConstant(i))));
        (1..entry.kernels.len()).for_each(|i| edits.push((number, Edit::ShareOperation(i - 1, i))));
        granularity_edits(entry, &mut |edit| edits.push((number, edit)));
    }
    edits.into_iter().map(|(entry, edit)| Mutation { entry, edit }).collect()
}

fn buffer_edits(plan: &Plan, add: &mut impl FnMut(Edit)) {
    for (number, buffer) in plan.buffers.iter().enumerate() {
        add(Edit::BufferOffset(number, buffer.offset.saturating_add(ALIGNMENT)));
        add(Edit::BufferOffset(number, buffer.offset.saturating_add(1)));
        if buffer.bytes > 0 {
            add(Edit::BufferBytes(number, buffer.bytes - 1));
        }
        // Onto its neighbours in the list: the mistake that a packer would make.
        let near = plan.buffers.iter().enumerate().skip(number.saturating_sub(3)).take(7);
        for (other, neighbour) in near.filter(|(_, n)| n.arena == buffer.arena && n.offset != buffer.offset) {
            if other != number {
                add(Edit::BufferOffset(number, neighbour.offset));
            }
        }
    }
}

/// Another granularity, and engines that are launched as a whole, but not right.
fn granularity_edits(entry: &Entry, add: &mut impl FnMut(Edit)) {
    if entry.granularity == Granularity::Kernels {
        if entry.engines.iter().any(|e| e.kernels.len() > 1) {
            add(Edit::Granularity(Granularity::Engines));
        }
        return;
    }
    for (number, kernel) in entry.kernels.iter().enumerate().filter(|(_, k)| k.engine.is_some()) {
        add(Edit::RemoveOperation(number, kernel.ops.len() / 2));
        if let Some(write) = kernel.writes.first() {
            add(Edit::Workspace(number, write.view));
        }
    }
}

fn command_edits(entry: &Entry, add: &mut impl FnMut(Edit)) {
    let count = entry.commands.len();
    for (number, command) in entry.commands.iter().enumerate() {
        add(Edit::RemoveCommand(number));
        if let Action::Record { event } = command.action {
            add(Edit::RemoveEvent(event.index()));
        }
        for distance in [1, 2, 5, 13] {
            if number + distance < count {
                add(Edit::SwapCommands(number, number + distance));
            }
        }
        let device = entry.streams.get(command.stream.index()).map(|s| s.device);
        let others = (0..entry.streams.len()).filter(|&s| s != command.stream.index());
        // One on the same device, one elsewhere.
        let (here, there): (Vec<usize>, Vec<usize>) =
            others.partition(|&s| Some(entry.streams[s].device) == device);
        for stream in here.first().into_iter().chain(there.first()) {
            add(Edit::MoveCommand(number, StreamId(*stream as u32)));
        }
    }
}

fn view_edits(plan: &Plan, entry: &Entry, add: &mut impl FnMut(Edit)) {
    let mut scratch = entry.clone();
    for site in sites(entry) {
        let Some(view) = view_at(&mut scratch, site).copied() else { continue };
        let Some(buffer) = plan.buffers.get(view.buffer.index()) else { continue };
        let own = view.buffer.index();
        let near = (own.saturating_sub(2)..own + 3).filter(|&b| b != own);
        for other in near.filter(|&b| plan.buffers.get(b).is_some_and(|b| b.arena == buffer.arena)) {
            add(Edit::Redirect(site, BufferId(other as u32)));
        }
        for step in [view.bytes / 2, ALIGNMENT] {
            if step > 0 {
                add(Edit::ViewOffset(site, view.offset.saturating_add(step)));
                if view.offset >= step {
                    add(Edit::ViewOffset(site, view.offset - step));
                }
            }
        }
    }
}

fn sites(entry: &Entry) -> Vec<Site> {
    let mut out = Vec::new();
    for (k, kernel) in entry.kernels.iter().enumerate() {
        out.extend((0..kernel.reads.len()).map(|i| Site::Read(k, i)));
        out.extend((0..kernel.writes.len()).map(|i| Site::Write(k, i)));
        out.extend(kernel.workspace.iter().map(|_| Site::Workspace(k)));
    }
    for (c, command) in entry.commands.iter().enumerate() {
        if let Action::Copy { from, to, .. } = command.action {
            out.extend(matches!(from, Place::Buffer(_)).then_some(Site::From(c)));
            out.extend(matches!(to, Place::Buffer(_)).then_some(Site::To(c)));
        }
    }
    for (a, alias) in entry.aliases.iter().enumerate() {
        out.push(Site::Alias(a));
        out.extend((0..alias.of.len()).map(|i| Site::Part(a, i)));
    }
    out.extend((0..entry.inputs.len()).map(Site::Input));
    out.extend((0..entry.outputs.len()).map(Site::Output));
    out.extend((0..entry.states.len()).map(Site::State));
    out.extend((0..entry.updates.len()).map(Site::Update));
    out.extend((0..entry.constants.len()).map(Site::Constant));
    out
}

/// The view at a site of an entry, if there is one.
pub fn view_at(entry: &mut Entry, site: Site) -> Option<&mut View> {
    match site {
        Site::Read(k, i) => entry.kernels.get_mut(k)?.reads.get_mut(i).map(|o| &mut o.view),
        Site::Write(k, i) => entry.kernels.get_mut(k)?.writes.get_mut(i).map(|o| &mut o.view),
        Site::Workspace(k) => entry.kernels.get_mut(k)?.workspace.as_mut(),
        Site::From(c) | Site::To(c) => match (&mut entry.commands.get_mut(c)?.action, site) {
            (Action::Copy { from: Place::Buffer(view), .. }, Site::From(_)) => Some(view),
            (Action::Copy { to: Place::Buffer(view), .. }, Site::To(_)) => Some(view),
            _ => None,
        },
        Site::Alias(a) => entry.aliases.get_mut(a).map(|a| &mut a.value.view),
        Site::Part(a, i) => entry.aliases.get_mut(a)?.of.get_mut(i).map(|o| &mut o.view),
        Site::Input(i) => entry.inputs.get_mut(i)?.view.as_mut(),
        Site::Output(i) => entry.outputs.get_mut(i)?.view.as_mut(),
        Site::State(i) => entry.states.get_mut(i).map(|s| &mut s.view),
        Site::Update(i) => entry.updates.get_mut(i).map(|u| &mut u.view),
        Site::Constant(i) => entry.constants.get_mut(i).map(|c| &mut c.view),
    }
}

impl Mutation {
    /// The plan with this change. A change that the plan has no place for leaves it as it is.
    pub fn apply(&self, plan: &Plan) -> Plan {
        let mut plan = plan.clone();
        let Plan { devices, arenas, buffers, entries, .. } = &mut plan;
        match self.edit {
            Edit::Capacity(i, bytes) => {
                devices.iter_mut().skip(i).take(1).for_each(|d| d.memory_bytes = bytes)
            }
            Edit::ArenaBytes(i, bytes) => arenas.iter_mut().skip(i).take(1).for_each(|a| a.bytes = bytes),
            Edit::BufferOffset(i, offset) => {
                buffers.iter_mut().skip(i).take(1).for_each(|b| b.offset = offset)
            }
            Edit::BufferBytes(i, bytes) => buffers.iter_mut().skip(i).take(1).for_each(|b| b.bytes = bytes),
            _ => {
                if let Some(entry) = entries.get_mut(self.entry) {
                    self.apply_to(entry);
                }
            }
        }
        plan
    }

    fn apply_to(&self, entry: &mut Entry) {
        let commands = &mut entry.commands;
        match self.edit {
            Edit::RemoveCommand(i) => remove(commands, i),
            Edit::SwapCommands(i, j) if i.max(j) < commands.len() => commands.swap(i, j),
            Edit::SwapCommands(..) => {}
            Edit::MoveCommand(i, stream) => {
                commands.iter_mut().skip(i).take(1).for_each(|c| c.stream = stream);
            }
            Edit::RemoveEvent(i) => remove_event(entry, i),
            Edit::Redirect(site, buffer) => {
                if let Some(view) = view_at(entry, site) {
                    view.buffer = buffer;
                }
            }
            Edit::ViewOffset(site, offset) => {
                if let Some(view) = view_at(entry, site) {
                    view.offset = offset;
                }
            }
            Edit::RemoveUpdate(i) => remove(&mut entry.updates, i),
            Edit::RemoveAlias(i) => remove(&mut entry.aliases, i),
            Edit::RemoveConstant(i) => remove(&mut entry.constants, i),
            Edit::ShareOperation(i, j) => {
                let op = entry.kernels.get(i).and_then(|k| k.ops.first().copied());
                if let (Some(op), Some(kernel)) = (op, entry.kernels.get_mut(j)) {
                    kernel.ops.push(op);
                    kernel.ops.sort_unstable();
                }
            }
            Edit::Granularity(granularity) => entry.granularity = granularity,
            Edit::RemoveOperation(kernel, place) => {
                entry.kernels.iter_mut().skip(kernel).take(1).for_each(|k| remove(&mut k.ops, place));
            }
            Edit::Workspace(kernel, view) => {
                entry.kernels.iter_mut().skip(kernel).take(1).for_each(|k| k.workspace = Some(view));
            }
            Edit::Capacity(..) | Edit::ArenaBytes(..) | Edit::BufferOffset(..) | Edit::BufferBytes(..) => {}
        }
    }
}

fn remove<T>(list: &mut Vec<T>, i: usize) {
    if i < list.len() {
        list.remove(i);
    }
}

/// Removes an event's commands and closes the gap in the numbers.
fn remove_event(entry: &mut Entry, i: usize) {
    entry.commands.retain_mut(|command| match &mut command.action {
        Action::Record { event } | Action::Wait { event } => {
            let gone = event.index() == i;
            if event.index() > i {
                *event = EventId(event.0 - 1);
            }
            !gone
        }
        Action::Launch { .. } | Action::Copy { .. } => true,
    });
    entry.events = entry.events.saturating_sub(1);
}
