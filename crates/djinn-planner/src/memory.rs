//! Offsets of the buffers of a run.
//!
//! Two buffers may share bytes if every access to one is complete before the first access to the other starts. On
//! one stream these lifetimes are intervals of the order of commands; with several streams they are a partial order,
//! and buffers whose accesses are not ordered never share, unless memory is short: then events order them.

use crate::commands::{Draft, DraftCommand};
use crate::entry::Shared;
use crate::events::{Order, in_arena, in_buffer, synchronise};
use djinn_device::Objective;
use djinn_diag::{Result, internal};
use djinn_pack::{Conflicts, Fit, Limits, Outcome, Problem, ProblemError, fit, pack};
use djinn_plan::{ALIGNMENT, Action, ArenaId, BufferId, Command, Content, Entry, Place, Plan};
use std::collections::{BTreeMap, BTreeSet};

/// Accesses to a buffer, by stream: 1 + the first and 1 + the last command; 0 for none. The parts of a concatenation may
/// be written first on several streams.
#[derive(Clone)]
struct Accesses {
    first: Vec<u32>,
    last: Vec<u32>,
}

/// Buffers that are packed with every pair compared, at most; more of them get the lifetimes of a single stream.
const MAX_UNORDERED: usize = 4096;

/// Packs every arena that the draft uses, lets it grow to what this entry needs, and gives what orders the commands.
///
/// Where several streams would need more than a device has, buffers get the lifetimes of a single stream, and events
/// keep those that share bytes in the order of the draft.
pub(crate) fn assign(shared: &mut Shared<'_>, draft: &Draft) -> Result<Order> {
    let order = synchronise(&draft.commands, &in_buffer);
    let wasteful = shared.target.objective == Objective::Memory || draft.packed.len() > MAX_UNORDERED;
    let concurrent = order.streams > 1 && !wasteful;
    let posed = match order.streams == 1 || concurrent {
        true => problems(&shared.plan, &draft.packed, &draft.commands, &order)?,
        false => Vec::new(),
    };
    if order.streams == 1 || (concurrent && !posed.iter().any(|p| cannot_fit(shared, p))) {
        let packed: Vec<Packed> = posed.into_iter().map(|p| packing_of(p, &shared.options.packing)).collect();
        if order.streams == 1 || fits(shared, &packed) {
            settle(shared, packed);
            return Ok(order);
        }
    }
    let posed = problems(&shared.plan, &draft.packed, &draft.commands, &Order::listed())?;
    let packed = posed.into_iter().map(|p| first_fit(shared, p)).collect();
    settle(shared, packed);
    Ok(synchronise(&draft.commands, &in_arena(&shared.plan)))
}

/// An arena, its buffers, and where they go.
type Packed = (ArenaId, Vec<BufferId>, Outcome);

fn packing_of((arena, buffers, problem): Posed, limits: &Limits) -> Packed {
    let outcome = pack(&problem, limits);
    (arena, buffers, outcome)
}

/// Bytes that the device of an arena has for it beside the others.
fn room(shared: &Shared<'_>, arena: ArenaId) -> u64 {
    let arenas = &shared.plan.arenas;
    let device = arenas[arena.index()].device;
    let others = arenas.iter().enumerate().filter(|(i, a)| *i != arena.index() && a.device == device);
    let taken = others.fold(0u64, |sum, (_, a)| sum.saturating_add(a.bytes));
    shared.plan.devices[device.index()].memory_bytes.saturating_sub(taken)
}

/// Is there no need to look for a packing that fits?
fn cannot_fit(shared: &Shared<'_>, (arena, _, problem): &Posed) -> bool {
    let no_search = Limits { climb_steps: 0, search_steps: 0 };
    matches!(fit(problem, room(shared, *arena), &no_search), Fit::Impossible { .. })
}

/// A packing where memory is short: a quick one if it fits.
fn first_fit(shared: &Shared<'_>, posed: Posed) -> Packed {
    let room = room(shared, posed.0);
    let outcome = pack(&posed.2, &Limits::quick());
    if outcome.height <= room {
        return (posed.0, posed.1, outcome);
    }
    packing_of(posed, &shared.options.packing)
}

/// Do the devices hold these arenas beside the others?
fn fits(shared: &Shared<'_>, packed: &[Packed]) -> bool {
    let mut bytes: Vec<u64> = shared.plan.arenas.iter().map(|a| a.bytes).collect();
    for (arena, _, outcome) in packed {
        bytes[arena.index()] = bytes[arena.index()].max(outcome.height);
    }
    shared.plan.devices.iter().enumerate().all(|(d, device)| {
        let here = shared.plan.arenas.iter().zip(&bytes).filter(|(a, _)| a.device.index() == d);
        here.fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes)) <= device.memory_bytes
    })
}

fn settle(shared: &mut Shared<'_>, packed: Vec<Packed>) {
    for (arena, buffers, outcome) in packed {
        for (buffer, offset) in buffers.iter().zip(&outcome.offsets) {
            shared.plan.buffers[buffer.index()].offset = *offset;
        }
        let bytes = &mut shared.plan.arenas[arena.index()].bytes;
        *bytes = (*bytes).max(outcome.height);
        shared.bounds.push((arena, outcome.lower_bound));
    }
}

/// The packing problems that the buffers of an entry's runs pose, by arena: what the offsets of the plan solve, and
/// what other packers may be tried on.
///
/// # Errors
/// `plan.packing` if there is no such entry or a buffer is too large to pack.
pub fn packing(plan: &Plan, entry: usize) -> Result<Vec<(ArenaId, Problem)>> {
    let Some(found) = plan.entries.get(entry) else {
        return Err(internal("plan.packing", format!("there is no entry {entry}")));
    };
    let content = Content::Run { entry: entry as u32 };
    let numbered = (0..).map(BufferId).zip(&plan.buffers);
    let buffers: Vec<BufferId> = numbered.filter(|(_, b)| b.content == content).map(|(id, _)| id).collect();
    let commands: Vec<DraftCommand> = found.commands.iter().filter_map(|c| accessing(found, c)).collect();
    let problems = problems(plan, &buffers, &commands, &Order::of_entry(found))?;
    Ok(problems.into_iter().map(|(arena, _, problem)| (arena, problem)).collect())
}

/// A command with the bytes that it touches; none for events.
fn accessing(entry: &Entry, command: &Command) -> Option<DraftCommand> {
    let view = |place| match place {
        Place::Buffer(view) => Some(view),
        Place::Input(_) | Place::Output(_) => None,
    };
    let (reads, writes) = match command.action {
        Action::Launch { kernel } => {
            let kernel = entry.kernels.get(kernel.index())?;
            let writes = kernel.writes.iter().map(|o| o.view).chain(kernel.workspace);
            (kernel.reads.iter().map(|o| o.view).collect(), writes.collect())
        }
        Action::Copy { from, to, .. } => (view(from).into_iter().collect(), view(to).into_iter().collect()),
        Action::Record { .. } | Action::Wait { .. } => return None,
    };
    Some(DraftCommand { stream: command.stream, action: command.action, reads, writes })
}

type Posed = (ArenaId, Vec<BufferId>, Problem);

/// The problem of each arena that some of these buffers are in.
fn problems(
    plan: &Plan,
    packed: &[BufferId],
    commands: &[DraftCommand],
    order: &Order,
) -> Result<Vec<Posed>> {
    let accesses = accesses(plan, commands);
    let mut by_arena: BTreeMap<ArenaId, Vec<BufferId>> = BTreeMap::new();
    for buffer in packed {
        by_arena.entry(plan.buffers[buffer.index()].arena).or_default().push(*buffer);
    }
    let mut problems = Vec::new();
    for (arena, buffers) in by_arena {
        let posed = problem(plan, &buffers, &accesses, order);
        problems.push((arena, buffers, posed.map_err(|e| internal("plan.packing", e.to_string()))?));
    }
    Ok(problems)
}

/// The accesses to every buffer of the plan.
fn accesses(plan: &Plan, commands: &[DraftCommand]) -> Vec<Option<Accesses>> {
    let streams = commands.iter().map(|c| c.stream.index() + 1).max().unwrap_or(1);
    let mut accesses: Vec<Option<Accesses>> = vec![None; plan.buffers.len()];
    for (i, command) in commands.iter().enumerate() {
        for view in command.reads.iter().chain(&command.writes) {
            let fresh = || Accesses { first: vec![0; streams], last: vec![0; streams] };
            if let Some(slot) = accesses.get_mut(view.buffer.index()) {
                let (of, stream) = (slot.get_or_insert_with(fresh), command.stream.index());
                of.last[stream] = i as u32 + 1;
                if of.first[stream] == 0 {
                    of.first[stream] = i as u32 + 1;
                }
            }
        }
    }
    accesses
}

fn problem(
    plan: &Plan,
    buffers: &[BufferId],
    accesses: &[Option<Accesses>],
    order: &Order,
) -> std::result::Result<Problem, ProblemError> {
    let never = Accesses { first: Vec::new(), last: Vec::new() };
    let of: Vec<&Accesses> = buffers.iter().map(|b| accesses[b.index()].as_ref().unwrap_or(&never)).collect();
    let last = of.iter().flat_map(|a| a.last.iter().enumerate());
    let streams: BTreeSet<usize> = last.filter(|(_, last)| **last > 0).map(|(s, _)| s).collect();
    let bytes = |b: &BufferId| plan.buffers[b.index()].bytes;
    if order.streams == 1 || streams.len() <= 1 {
        let interval = |(b, a): (&BufferId, &&Accesses)| {
            let first = a.first.iter().copied().filter(|f| *f > 0).min().unwrap_or(1);
            let last = a.last.iter().copied().max().unwrap_or(0).max(first);
            djinn_pack::Buffer::new(i64::from(first), i64::from(last) + 1, bytes(b)).aligned(ALIGNMENT)
        };
        return Problem::intervals(buffers.iter().zip(&of).map(interval).collect());
    }
    // `a` is over before `b` begins if the clock of b's first command on each stream has passed every last access of a.
    let over = |a: &Accesses, b: &Accesses| {
        let passed = |first: &u32| {
            a.last.iter().zip(order.clock(*first as usize - 1)).all(|(last, clock)| last <= clock)
        };
        b.first.iter().filter(|first| **first > 0).all(passed)
    };
    let mut pairs = Vec::new();
    for i in 0..of.len() {
        for j in 0..i {
            if !over(of[i], of[j]) && !over(of[j], of[i]) {
                pairs.push((j, i));
            }
        }
    }
    let conflicts = Conflicts::from_pairs(buffers.len(), &pairs)?;
    let sized = buffers.iter().map(|b| djinn_pack::Buffer::sized(bytes(b)).aligned(ALIGNMENT));
    Problem::with_conflicts(sized.collect(), conflicts)
}
