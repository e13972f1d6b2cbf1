//! Which bytes of the buffers of a run die when: how many commands access them until then.
//!
//! Bytes of a buffer may die before others of it, and then hold another buffer: lifetimes are those of pieces, ranges of
//! a buffer that the same commands access.

use crate::code::{CopyCode, End, KernelCode, Piece, Placed, Step, Work};
use crate::resolve::{Slot, buffer_slot};
use djinn_ir::ValueId;
use djinn_plan::{Content, Plan};
use std::collections::{BTreeMap, BTreeSet};

/// Values looked at to find those that an alias is made of, at most; places of those beyond it are not known.
const MAX_ALIAS_STEPS: usize = 4096;

/// Pieces that the commands of an entry access, counted once for each command, at most: buffers that would need more
/// have no pieces.
const MAX_PIECE_USES: usize = 1 << 22;

/// What the lifetimes of an entry's buffers follow from.
pub(crate) struct Lifetimes<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) kernels: &'a [KernelCode],
    pub(crate) aliases: &'a BTreeMap<ValueId, Vec<ValueId>>,
    /// Resident inputs: written before the first command.
    pub(crate) before: &'a [Placed],
    /// Resident outputs: read after the last command.
    pub(crate) after: &'a [Placed],
}

impl Lifetimes<'_> {
    /// Finds the buffers of the run and their pieces, and notes for each command which pieces it reads and writes.
    pub(crate) fn find(&self, streams: &mut [Vec<Step>]) -> (Vec<Slot>, Vec<Piece>) {
        let mut groups = Groups::default();
        let written = self.written(streams);
        for step in streams.iter().flatten() {
            let (reads, writes, workspace) = self.accesses(&step.work);
            for slot in reads.iter().chain(&writes).map(|p| p.slot).chain(workspace) {
                self.add(&mut groups, &slot);
            }
            reads.iter().for_each(|read| self.join(&mut groups, &written, read));
        }
        self.before.iter().chain(self.after).for_each(|p| self.add(&mut groups, &p.slot));
        self.after.iter().for_each(|read| self.join(&mut groups, &written, read));
        let buffers = groups.parents.keys().filter_map(|b| buffer_slot(self.plan, *b).ok()).collect();
        let mut dying = groups.alone();
        // Resident inputs and outputs outlive the commands.
        self.before.iter().chain(self.after).for_each(|p| {
            dying.remove(&p.slot.buffer);
        });
        (buffers, self.pieces(&dying, streams))
    }

    /// The pieces of these buffers, and the numbers of those that each command accesses.
    fn pieces(&self, dying: &BTreeSet<usize>, streams: &mut [Vec<Step>]) -> Vec<Piece> {
        let mut ranges: BTreeMap<usize, Vec<Slot>> = BTreeMap::new();
        for step in streams.iter().flatten() {
            let (reads, writes, workspace) = self.accesses(&step.work);
            let slots = reads.iter().chain(&writes).map(|p| p.slot).chain(workspace);
            for slot in slots.filter(|s| s.bytes > 0 && dying.contains(&s.buffer)) {
                ranges.entry(slot.buffer).or_default().push(slot);
            }
        }
        let mut pieces = Pieces::default();
        ranges.values().for_each(|accesses| pieces.cut(accesses));
        for step in streams.iter_mut().flatten() {
            let (reads, writes, workspace) = self.accesses(&step.work);
            let writes = writes.iter().map(|p| p.slot).chain(workspace);
            let written: BTreeSet<usize> = writes.flat_map(|s| pieces.within(&s)).collect();
            let mut read: BTreeSet<usize> = reads.iter().flat_map(|p| pieces.within(&p.slot)).collect();
            read.retain(|n| !written.contains(n));
            for n in read.iter().chain(&written) {
                pieces.all[*n].uses = pieces.all[*n].uses.saturating_add(1);
            }
            (step.read, step.written) = (read.into_iter().collect(), written.into_iter().collect());
        }
        pieces.all
    }

    /// What a command reads and writes, and its scratch memory.
    fn accesses(&self, work: &Work) -> (Vec<Placed>, Vec<Placed>, Option<Slot>) {
        let place = |end: &End, value| match end {
            End::Slot(slot, _) => vec![Placed { value, slot: *slot }],
            End::Input(_) | End::Output(_) => Vec::new(),
        };
        match work {
            Work::Launch(kernel) => {
                let Some(kernel) = self.kernels.get(*kernel) else { return Default::default() };
                let writes = kernel.writes.iter().map(|w| w.to).collect();
                (kernel.reads.clone(), writes, kernel.workspace)
            }
            Work::Copy(CopyCode { value, result, from, to }) => {
                (place(from, *value), place(to, *result), None)
            }
            Work::Record(_) | Work::Wait(_) => Default::default(),
        }
    }

    /// Every place that a value is written to.
    fn written(&self, streams: &[Vec<Step>]) -> BTreeMap<ValueId, Vec<Slot>> {
        let mut written: BTreeMap<ValueId, Vec<Slot>> = BTreeMap::new();
        let commands = streams.iter().flatten().flat_map(|step| self.accesses(&step.work).1);
        for placed in commands.chain(self.before.iter().copied()) {
            written.entry(placed.value).or_default().push(placed.slot);
        }
        written
    }

    fn is_of_run(&self, slot: &Slot) -> bool {
        self.plan.buffers.get(slot.buffer).is_some_and(|b| matches!(b.content, Content::Run { .. }))
    }

    fn add(&self, groups: &mut Groups, slot: &Slot) {
        if self.is_of_run(slot) {
            groups.parents.entry(slot.buffer).or_insert(slot.buffer);
        }
    }

    /// A value may be read through another buffer than it was written through, if both hold its bytes.
    fn join(&self, groups: &mut Groups, written: &BTreeMap<ValueId, Vec<Slot>>, read: &Placed) {
        let (mut open, mut seen) = (vec![read.value], BTreeSet::new());
        while let Some(v) = open.pop().filter(|_| seen.len() <= MAX_ALIAS_STEPS) {
            if !seen.insert(v) {
                continue;
            }
            for slot in written.get(&v).into_iter().flatten() {
                let (a, b) = (slot, &read.slot);
                if a.overlaps(b) && a.buffer != b.buffer && self.is_of_run(a) && self.is_of_run(b) {
                    groups.union(a.buffer, b.buffer);
                }
            }
            open.extend(self.aliases.get(&v).into_iter().flatten());
        }
    }
}

/// Sets of buffers: each points to another of its set, the first to itself.
#[derive(Default)]
struct Groups {
    parents: BTreeMap<usize, usize>,
}

impl Groups {
    fn first(&self, mut buffer: usize) -> usize {
        // Parents are smaller, so that this ends.
        while let Some(parent) = self.parents.get(&buffer).filter(|p| **p < buffer) {
            buffer = *parent;
        }
        buffer
    }

    fn union(&mut self, a: usize, b: usize) {
        let (a, b) = (self.first(a), self.first(b));
        self.parents.insert(a.max(b), a.min(b));
        self.parents.entry(a.min(b)).or_insert(a.min(b));
    }

    /// The buffers that are alone in their sets.
    fn alone(&self) -> BTreeSet<usize> {
        let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for buffer in self.parents.keys() {
            members.entry(self.first(*buffer)).or_default().push(*buffer);
        }
        members.into_values().filter(|set| set.len() == 1).flatten().collect()
    }
}

/// Pieces of buffers.
#[derive(Default)]
struct Pieces {
    all: Vec<Piece>,
    /// Of each buffer, by first byte in the arena: the number of the piece.
    numbers: BTreeMap<usize, BTreeMap<u64, usize>>,
    /// Uses of pieces so far; see [`MAX_PIECE_USES`].
    uses: usize,
}

impl Pieces {
    /// Cuts a buffer where its accesses begin and end.
    fn cut(&mut self, accesses: &[Slot]) {
        let Some(first) = accesses.first() else { return };
        let ends = accesses.iter().flat_map(|s| [s.start, s.start + s.bytes]);
        let cuts: Vec<u64> = ends.collect::<BTreeSet<u64>>().into_iter().collect();
        let position = |byte: u64| cuts.partition_point(|cut| *cut < byte);
        let mut covered = vec![0isize; cuts.len()];
        let mut uses = 0usize;
        for slot in accesses {
            let (from, to) = (position(slot.start), position(slot.start + slot.bytes));
            uses = uses.saturating_add(to - from);
            covered[from] += 1;
            covered[to] -= 1;
        }
        if self.uses.saturating_add(uses) > MAX_PIECE_USES {
            return;
        }
        self.uses += uses;
        let numbers = self.numbers.entry(first.buffer).or_default();
        let mut open = 0;
        for (change, range) in covered.iter().zip(cuts.windows(2)) {
            open += change;
            if open > 0 {
                let within = range[0] - (first.start - first.within);
                let slot = Slot { start: range[0], bytes: range[1] - range[0], within, ..*first };
                numbers.insert(range[0], self.all.len());
                self.all.push(Piece { slot, uses: 0 });
            }
        }
    }

    /// The pieces that an access touches.
    fn within(&self, slot: &Slot) -> impl Iterator<Item = usize> + use<'_> {
        let numbers = self.numbers.get(&slot.buffer);
        let range = slot.start..slot.start + slot.bytes;
        numbers.into_iter().flat_map(move |n| n.range(range.clone()).map(|(_, number)| *number))
    }
}
