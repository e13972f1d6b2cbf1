//! The checker against two slow judges, on random plans and on all their mutations: one compares every two commands and
//! every byte; the other executes plans with their streams interleaved at random and compares what comes out.

use std::collections::BTreeMap;

use djinn_plan::mutate::{Edit, mutations};
use djinn_plan::sample::{self, Random, Size};
use djinn_plan::*;

/// Arena, first byte, end.
type Range = (usize, u64, u64);

fn range(plan: &Plan, view: &View) -> Range {
    let buffer = &plan.buffers[view.buffer.index()];
    let start = buffer.offset + view.offset;
    (buffer.arena.index(), start, start + view.bytes)
}

fn overlap(a: Range, b: Range) -> bool {
    a.0 == b.0 && a.1.max(b.1) < a.2.min(b.2)
}

/// What a command reads, and what it writes (scratch memory without a value).
#[allow(clippy::type_complexity)]
fn accesses(
    plan: &Plan,
    entry: &Entry,
    action: &Action,
) -> (Vec<(ValueRef, Range)>, Vec<(Option<ValueRef>, Range)>) {
    match action {
        Action::Launch { kernel } => {
            let kernel = &entry.kernels[kernel.index()];
            let reads = kernel.reads.iter().map(|o| (o.value, range(plan, &o.view))).collect();
            let scratch = kernel.workspace.iter().map(|w| (None, range(plan, w)));
            let writes = kernel.writes.iter().map(|o| (Some(o.value), range(plan, &o.view)));
            (reads, scratch.chain(writes).collect())
        }
        Action::Copy { value, result, from, to, .. } => {
            let (mut reads, mut writes) = (Vec::new(), Vec::new());
            if let Place::Buffer(view) = from {
                reads.push((*value, range(plan, view)));
            }
            if let Place::Buffer(view) = to {
                writes.push((Some(*result), range(plan, view)));
            }
            (reads, writes)
        }
        Action::Record { .. } | Action::Wait { .. } => (Vec::new(), Vec::new()),
    }
}

/// Are there unordered conflicts? By the transitive closure over all pairs of commands.
fn races(plan: &Plan, entry: &Entry) -> bool {
    let commands = &entry.commands;
    let n = commands.len();
    let mut before = vec![vec![false; n]; n];
    for j in 0..n {
        for i in 0..j {
            before[i][j] = commands[i].stream == commands[j].stream
                || matches!((commands[i].action, commands[j].action),
                    (Action::Record { event: a }, Action::Wait { event: b }) if a == b);
        }
    }
    for k in 0..n {
        for i in 0..n {
            for j in 0..n {
                before[i][j] |= before[i][k] && before[k][j];
            }
        }
    }
    let all: Vec<_> = commands.iter().map(|c| accesses(plan, entry, &c.action)).collect();
    (0..n).any(|j| {
        (0..j).any(|i| {
            let ((ri, wi), (rj, wj)) = (&all[i], &all[j]);
            let ww = wi.iter().any(|a| wj.iter().any(|b| overlap(a.1, b.1)));
            let wr = wi.iter().any(|a| rj.iter().any(|b| overlap(a.1, b.1)));
            let rw = ri.iter().any(|a| wj.iter().any(|b| overlap(a.1, b.1)));
            (ww || wr || rw) && !before[i][j]
        })
    })
}

/// The value that was written to a byte, and through which view.
type Cell = Option<(ValueRef, View)>;

fn stands(plan: &Plan, entry: &Entry, memory: &[Vec<Cell>], value: ValueRef, view: View, byte: u64) -> bool {
    let at = range(plan, &view);
    entry.constants.iter().any(|c| c.value == value && c.view == view)
        || memory[at.0][byte as usize] == Some((value, view))
        || entry.aliases.iter().any(|alias| {
            let part_stands = |part: &Operand| {
                let place = range(plan, &part.view);
                let there = part.view.buffer == view.buffer && (place.1..place.2).contains(&byte);
                there && stands(plan, entry, memory, part.value, part.view, byte)
            };
            alias.value == at_view(value, view) && alias.of.iter().any(part_stands)
        })
}

fn at_view(value: ValueRef, view: View) -> Operand {
    Operand { value, view }
}

/// Does a read find another value? Byte by byte, in the order of the list.
fn wrong_values(plan: &Plan, entry: &Entry) -> bool {
    let mut memory: Vec<Vec<Cell>> = plan.arenas.iter().map(|a| vec![None; a.bytes as usize]).collect();
    let put = |memory: &mut Vec<Vec<Cell>>, value: Option<ValueRef>, view: &View| {
        let at = range(plan, view);
        memory[at.0][at.1 as usize..at.2 as usize].fill(value.map(|v| (v, *view)));
    };
    let finds = |memory: &[Vec<Cell>], value: ValueRef, view: &View| {
        let at = range(plan, view);
        (at.1..at.2).all(|byte| stands(plan, entry, memory, value, *view, byte))
    };
    let states = entry.states.iter().map(|s| (ValueRef::Argument(s.argument), s.view));
    let resident = entry.inputs.iter().filter(|p| p.resident).map(|p| (p.value, p.view.expect("a place")));
    states.chain(resident).for_each(|(value, view)| put(&mut memory, Some(value), &view));
    for command in &entry.commands {
        match &command.action {
            Action::Launch { kernel } => {
                let kernel = &entry.kernels[kernel.index()];
                if !kernel.reads.iter().all(|o| finds(&memory, o.value, &o.view)) {
                    return true;
                }
                kernel.workspace.iter().for_each(|view| put(&mut memory, None, view));
                kernel.writes.iter().for_each(|o| put(&mut memory, Some(o.value), &o.view));
            }
            Action::Copy { value, result, from, to, .. } => {
                if let Place::Buffer(view) = from
                    && !finds(&memory, *value, view)
                {
                    return true;
                }
                if let Place::Buffer(view) = to {
                    put(&mut memory, Some(*result), view);
                }
            }
            Action::Record { .. } | Action::Wait { .. } => {}
        }
    }
    let updates = entry.updates.iter().map(|u| (u.value, u.view));
    let outputs = entry.outputs.iter().filter(|p| p.resident).map(|p| (p.value, p.view.expect("a place")));
    updates.chain(outputs).any(|(value, view)| !finds(&memory, value, &view))
}

/// What a run leaves: bytes of outputs, and of updated states and resident outputs.
type Outcome = BTreeMap<(u8, u32), Vec<u64>>;

fn mix(a: u64, b: u64) -> u64 {
    let mut random = Random(a.rotate_left(17) ^ b.wrapping_mul(0x2545_f491_4f6c_dd1d));
    ((random.below(1 << 31) as u64) << 31) | random.below(1 << 31) as u64
}

fn digest(memory: &[Vec<u64>], at: Range) -> u64 {
    memory[at.0][at.1 as usize..at.2 as usize].iter().fold(at.2 - at.1, |h, &cell| mix(h, cell))
}

struct Machine<'p> {
    plan: &'p Plan,
    entry: &'p Entry,
    memory: Vec<Vec<u64>>,
    outcome: Outcome,
    rng: Random,
}

impl Machine<'_> {
    fn start(plan: &Plan, seed: u64) -> Machine<'_> {
        let mut rng = Random(seed);
        // What nobody has written is different in every run.
        let memory = plan.arenas.iter().map(|a| (0..a.bytes).map(|_| rng.below(1 << 40) as u64).collect());
        let mut machine =
            Machine { plan, entry: &plan.entries[0], memory: memory.collect(), outcome: Outcome::new(), rng };
        for (number, b) in plan.buffers.iter().enumerate() {
            if !matches!(b.content, Content::Run { .. }) {
                for byte in 0..b.bytes {
                    machine.memory[b.arena.index()][(b.offset + byte) as usize] = mix(number as u64, byte);
                }
            }
        }
        machine
    }

    /// Begins a command: its reads, and garbage where it writes.
    fn begin(&mut self, action: &Action) -> Vec<u64> {
        let (reads, writes) = accesses(self.plan, self.entry, action);
        let seen = match action {
            Action::Copy { from: Place::Buffer(view), .. } => {
                let (arena, start, end) = range(self.plan, view);
                self.memory[arena][start as usize..end as usize].to_vec()
            }
            _ => reads.iter().map(|r| digest(&self.memory, r.1)).collect(),
        };
        for (_, (arena, start, end)) in writes {
            for byte in start..end {
                self.memory[arena][byte as usize] = self.rng.below(1 << 40) as u64;
            }
        }
        seen
    }

    /// Ends a command: looks again at what it read, and writes its results.
    fn end(&mut self, action: &Action, seen: Vec<u64>) {
        let (reads, writes) = accesses(self.plan, self.entry, action);
        match *action {
            Action::Launch { kernel } => {
                let mut hash = u64::from(self.entry.kernels[kernel.index()].ops[0]);
                for ((_, at), first) in reads.iter().zip(seen) {
                    let own = writes.iter().any(|w| overlap(w.1, *at));
                    let again = if own { first } else { digest(&self.memory, *at) };
                    hash = mix(mix(hash, first), again);
                }
                for (number, (value, (arena, start, end))) in writes.into_iter().enumerate() {
                    for byte in 0..end - start {
                        let noise = if value.is_some() { 0 } else { self.rng.below(1 << 40) as u64 };
                        let cell = mix(mix(hash, number as u64), byte) ^ noise;
                        self.memory[arena][(start + byte) as usize] = cell;
                    }
                }
            }
            Action::Copy { from, to, .. } => {
                let data = match from {
                    Place::Input(i) => {
                        let bytes = self.entry.inputs[i as usize].view.expect("a place").bytes;
                        (0..bytes).map(|b| mix(mix(99, i.into()), b)).collect()
                    }
                    Place::Buffer(view) => {
                        let (arena, start, end) = range(self.plan, &view);
                        let again = self.memory[arena][start as usize..end as usize].iter();
                        again
                            .zip(seen)
                            .map(|(&now, then)| if now == then { now } else { mix(now, then) })
                            .collect()
                    }
                    Place::Output(_) => unreachable!("nothing is copied from an output"),
                };
                match to {
                    Place::Output(o) => drop(self.outcome.insert((0, o), data)),
                    Place::Buffer(view) => {
                        let (arena, start, end) = range(self.plan, &view);
                        self.memory[arena][start as usize..end as usize].copy_from_slice(&data);
                    }
                    Place::Input(_) => unreachable!("nothing is copied to an input"),
                }
            }
            Action::Record { .. } | Action::Wait { .. } => {}
        }
    }

    fn finish(mut self) -> Outcome {
        let updates = self.entry.updates.iter().map(|u| ((1, u.argument), u.view));
        let ports = (0..).zip(&self.entry.outputs).filter(|(_, p)| p.resident);
        let resident = ports.map(|(o, p)| ((2, o), p.view.expect("a place")));
        for (key, view) in updates.chain(resident) {
            let (arena, start, end) = range(self.plan, &view);
            self.outcome.insert(key, self.memory[arena][start as usize..end as usize].to_vec());
        }
        self.outcome
    }
}

/// Runs a plan with its streams interleaved at random.
fn run(plan: &Plan, seed: u64) -> Outcome {
    let mut machine = Machine::start(plan, seed);
    let entry = &plan.entries[0];
    let mut queues: Vec<Vec<usize>> = vec![Vec::new(); entry.streams.len()];
    for (number, command) in entry.commands.iter().enumerate().rev() {
        queues[command.stream.index()].push(number);
    }
    let mut recorded = vec![false; entry.events as usize];
    let mut under_way: Vec<Option<(usize, Vec<u64>)>> = vec![None; queues.len()];
    loop {
        let able: Vec<usize> = (0..queues.len())
            .filter(|&s| {
                under_way[s].is_some()
                    || queues[s].last().is_some_and(|&c| match entry.commands[c].action {
                        Action::Wait { event } => recorded[event.index()],
                        _ => true,
                    })
            })
            .collect();
        if able.is_empty() {
            assert!(queues.iter().all(Vec::is_empty), "the streams wait for each other");
            return machine.finish();
        }
        let stream = able[machine.rng.below(able.len())];
        match under_way[stream].take() {
            Some((command, seen)) => machine.end(&entry.commands[command].action, seen),
            None => {
                let command = queues[stream].pop().expect("able");
                match entry.commands[command].action {
                    Action::Record { event } => recorded[event.index()] = true,
                    Action::Wait { .. } => {}
                    action => under_way[stream] = Some((command, machine.begin(&action))),
                }
            }
        }
    }
}

/// Judges a changed plan in all three ways. Was it accepted?
fn judge(plan: &Plan, expected: &Outcome, label: &str, seed: u64) -> bool {
    let labels: Vec<Constraint> = match check(plan) {
        Ok(_) => Vec::new(),
        Err(violations) => violations.iter().map(|v| v.constraint).collect(),
    };
    let flow = [Constraint::Order, Constraint::Values, Constraint::End];
    if labels.iter().any(|l| !flow.contains(l)) {
        return false;
    }
    let entry = &plan.entries[0];
    assert_eq!(labels.contains(&Constraint::Order), races(plan, entry), "{label}: races; {:#?}", check(plan));
    let values = labels.contains(&Constraint::Values) || labels.contains(&Constraint::End);
    assert_eq!(values, wrong_values(plan, entry), "{label}: values; {:#?}", check(plan));
    if labels.is_empty() {
        for s in 0..4 {
            assert_eq!(&run(plan, mix(seed, s)), expected, "{label} was accepted but does not run right");
        }
    }
    labels.is_empty()
}

fn judge_all_mutations(plan: &Plan, seed: u64, stride: usize) -> (usize, usize) {
    let expected = run(plan, seed);
    assert!(judge(plan, &expected, "the plan itself", seed), "{:#?}", check(plan));
    let all = mutations(plan);
    let offset = seed as usize % stride;
    let (mut accepted, mut count) = (0, 0);
    for mutation in all.iter().skip(offset).step_by(stride) {
        count += 1;
        let label = format!("seed {seed}, {mutation}");
        accepted += usize::from(judge(&mutation.apply(plan), &expected, &label, seed));
    }
    (accepted, count)
}

#[test]
fn mutations_of_the_sample() {
    let plan = sample::two_devices();
    let (accepted, count) = judge_all_mutations(&plan, 1, 1);
    assert!(count > 300 && accepted > 0 && accepted * 4 < count, "{accepted} of {count} accepted");
}

#[test]
fn mutations_of_random_plans() {
    let (mut accepted, mut count) = (0, 0);
    for seed in 0..60 {
        let size = Size { devices: 1 + seed as usize % 2, streams: 1 + seed as usize % 3, kernels: 7 };
        let (a, c) = judge_all_mutations(&sample::random(size, seed), seed, 7);
        (accepted, count) = (accepted + a, count + c);
    }
    assert!(count > 1000 && accepted > 20 && accepted * 2 < count, "{accepted} of {count} accepted");
}

#[test]
fn mutations_are_deterministic_and_of_every_kind() {
    let plan = sample::two_devices();
    let all = mutations(&plan);
    assert_eq!(all, mutations(&plan));
    let kinds: std::collections::BTreeSet<String> =
        all.iter().map(|m| format!("{:?}", m.edit).split('(').next().unwrap_or("").to_owned()).collect();
    assert_eq!(kinds.len(), 15, "{kinds:?}");
    assert!(all.iter().filter(|m| m.apply(&plan) == plan).all(|m| matches!(m.edit, Edit::ViewOffset(..))));
}
