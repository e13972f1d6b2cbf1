//! Which tensors are written down, which stages share outer loops, and where values stand.

mod hazard;
mod nests;

use crate::build::{Choices, Place, Split, loop_sizes};
use crate::dag::{BufferId, Dag};
use crate::program::{Def, NodeId, Program};
use crate::sides::sides;
use crate::stage::{Joins, Stage, Stager, Wishes};
use djinn_diag::{Result, internal, unsupported};
use djinn_ir::{DType, Dim, ValueId};
use nests::{joins, regroup};
use std::collections::{BTreeMap, BTreeSet};

/// Instructions above which a tensor is computed once and kept rather than computed at every use.
const KEEP_COST: u32 = 12;
/// Rounds of better choices, at most; what is still wished for then stays as it is.
const MAX_ROUNDS: usize = 64;

/// What a buffer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Storage {
    Read(ValueId),
    Write(ValueId),
    Scratch { elements: Dim, dtype: DType },
}

/// Stages that run together inside shared outer loops.
#[derive(Debug, Clone)]
pub(crate) struct Nest {
    /// The first so many loops of every stage are shared.
    pub(crate) outer: usize,
    pub(crate) stages: Vec<Stage>,
    /// The shared loops run from the last turn to the first.
    pub(crate) backward: bool,
    /// The last so many shared loops run in order, whatever runs at once.
    pub(crate) serial: usize,
    /// The first stage is a sum of products for tiles; the others follow it at every point.
    pub(crate) tiled: bool,
}

/// A buffer that is copied to another.
#[derive(Debug, Clone)]
pub(crate) struct Copied {
    pub(crate) from: BufferId,
    pub(crate) to: BufferId,
    pub(crate) elements: Dim,
    pub(crate) dtype: DType,
}

/// Everything that an emitter needs.
pub(crate) struct Schedule {
    pub(crate) dag: Dag,
    pub(crate) nests: Vec<Nest>,
    pub(crate) storage: Vec<Storage>,
    /// At the end, these buffers are copied.
    pub(crate) copies: Vec<Copied>,
}

/// An operand and a result that stand in the same bytes (or, for a concatenation, begin at the same byte).
pub(crate) type Pair = (ValueId, ValueId);

/// Schedules a program for one thread after the other (`per_row`: rows may be kept in registers and row buffers).
pub(crate) fn schedule(program: &Program, pairs: &[Pair], per_row: bool) -> Result<Schedule> {
    let mut copied: BTreeSet<ValueId> = BTreeSet::new();
    loop {
        let mut planner = Planner::new(program, pairs, &copied);
        let done = planner.run(per_row)?;
        match planner.hazard(&done) {
            None => return Ok(done),
            Some(v) if !copied.insert(v) => {
                return Err(internal("kernel.alias", "an alias cannot be undone"));
            }
            Some(_) => {}
        }
    }
}

/// Schedules a program for threads that run at once, every pair being one buffer.
///
/// A stage reads such a buffer only where it writes itself (then one thread does both), or all of its row is read
/// before a barrier and written after it, or the launch that writes comes later.
///
/// # Errors
/// `kernel.alias`: a pair cannot be one buffer.
pub(crate) fn schedule_in_place(program: &Program, pairs: &[Pair]) -> Result<Schedule> {
    let copied = BTreeSet::new();
    let mut planner = Planner::new(program, pairs, &copied);
    let done = planner.run(false)?;
    planner.check_pairs(&done)?;
    match planner.hazard(&done) {
        None => Ok(done),
        Some(_) => {
            let message = "an operand is read where its bytes may already be overwritten";
            Err(unsupported("kernel.alias", message).help("lower the group without aliases"))
        }
    }
}

struct Planner<'a> {
    program: &'a Program,
    pairs: Vec<Pair>,
    /// Written values that are computed elsewhere and copied at the end.
    copied: &'a BTreeSet<ValueId>,
    stored: BTreeSet<NodeId>,
    splits: BTreeMap<NodeId, Split>,
    in_place: BTreeMap<NodeId, bool>,
    live: BTreeSet<NodeId>,
    storage: Vec<Storage>,
    read_buffers: BTreeMap<NodeId, BufferId>,
    write_buffers: BTreeMap<NodeId, BufferId>,
}

impl<'a> Planner<'a> {
    fn new(program: &'a Program, pairs: &[Pair], copied: &'a BTreeSet<ValueId>) -> Self {
        let pairs = pairs.iter().copied().filter(|(_, w)| !copied.contains(w)).collect();
        let mut planner = Planner {
            program,
            pairs,
            copied,
            stored: BTreeSet::new(),
            splits: BTreeMap::new(),
            in_place: BTreeMap::new(),
            live: BTreeSet::new(),
            storage: Vec::new(),
            read_buffers: BTreeMap::new(),
            write_buffers: BTreeMap::new(),
        };
        planner.find_live();
        planner.place_operands();
        planner
    }

    fn find_live(&mut self) {
        let mut stack: Vec<NodeId> = self.program.writes.iter().map(|w| w.1).collect();
        while let Some(node) = stack.pop() {
            if self.live.insert(node) {
                stack.extend(self.program.node(node).reads.iter().map(|r| r.0));
            }
        }
    }

    fn buffer(&mut self, storage: Storage) -> BufferId {
        self.storage.push(storage);
        BufferId(self.storage.len() as u32 - 1)
    }

    /// Buffers of operands and results, and which tensors are surely written down.
    fn place_operands(&mut self) {
        for (value, node) in self.program.writes.clone() {
            if matches!(self.program.node(node).def, Def::Read(_)) || self.write_buffers.contains_key(&node) {
                continue;
            }
            let n = self.program.node(node);
            let elements = n.shape.iter().fold(Dim::ONE, |a, d| &a * d);
            let buffer = if self.copied.contains(&value) {
                self.buffer(Storage::Scratch { elements, dtype: n.dtype })
            } else {
                self.buffer(Storage::Write(value))
            };
            self.write_buffers.insert(node, buffer);
            self.stored.insert(node);
        }
        for node in self.program.ids() {
            let n = self.program.node(node);
            if !self.live.contains(&node) {
                continue;
            }
            if let Def::Read(value) = n.def {
                let buffer = self.operand_buffer(value);
                self.read_buffers.insert(node, buffer);
            } else if !matches!(n.def, Def::Element(_)) || n.keep {
                self.stored.insert(node);
            }
        }
        for (node, _) in self.write_buffers.clone() {
            self.note_in_place(node);
        }
    }

    /// The buffer of an operand: that of the result which stands in its bytes, if there is one.
    fn operand_buffer(&mut self, value: ValueId) -> BufferId {
        let partner = self.pairs.iter().find(|p| p.0 == value).map(|p| p.1);
        let shared = partner.and_then(|w| {
            let node = self.program.writes.iter().find(|(v, _)| *v == w)?.1;
            self.write_buffers.get(&node).copied()
        });
        shared.unwrap_or_else(|| self.buffer(Storage::Read(value)))
    }

    /// Concatenations and scatters whose first part is already where it belongs.
    fn note_in_place(&mut self, node: NodeId) {
        let Def::Parts(parts) = &self.program.node(node).def else { return };
        let Some(first) = parts.first().and_then(|p| Some((p, p.copies?))) else { return };
        let Def::Read(_) = self.program.node(first.1).def else { return };
        if self.read_buffers.get(&first.1) != self.write_buffers.get(&node) {
            return;
        }
        let same_size = self.program.node(first.1).shape == self.program.node(node).shape;
        let rows = first.0.loops[..first.0.shared].iter().all(|d| d.is(1));
        self.in_place.insert(node, !same_size && !rows);
    }

    /// Instructions per element, as far as they are not kept elsewhere.
    fn costs(&self) -> Vec<u32> {
        let mut costs: Vec<u32> = Vec::with_capacity(self.program.nodes.len());
        for node in &self.program.nodes {
            let reads = node.reads.iter().map(|(r, _)| match self.program.node(*r).def {
                _ if self.stored.contains(r) => 1,
                Def::Read(_) => 1,
                _ => costs[r.0 as usize],
            });
            costs.push(reads.fold(node.cost, u32::saturating_add));
        }
        costs
    }

    /// Tensors that are read many times over and cost much.
    fn keep_repeated(&mut self) {
        let costs = self.costs();
        for node in self.live.clone() {
            for (read, repeated) in &self.program.node(node).reads {
                if *repeated && costs[read.0 as usize] >= KEEP_COST && self.can_store(*read) {
                    self.stored.insert(*read);
                }
            }
        }
    }

    fn can_store(&self, node: NodeId) -> bool {
        !self.stored.contains(&node) && matches!(self.program.node(node).def, Def::Element(_))
    }

    fn full_choices(&self) -> Choices {
        let mut choices = Choices { places: BTreeMap::new(), splits: self.splits.clone() };
        let mut next = self.storage.len() as u32;
        for (node, buffer) in self.read_buffers.iter().chain(&self.write_buffers) {
            choices.places.insert(*node, Place::Memory(*buffer));
        }
        for node in &self.stored {
            choices.places.entry(*node).or_insert_with(|| {
                next += 1;
                Place::Memory(BufferId(next - 1))
            });
        }
        choices
    }

    /// All stages under these choices.
    fn stages(
        &self,
        dag: &mut Dag,
        choices: &Choices,
        joins: &BTreeMap<(NodeId, usize), Joins>,
    ) -> Result<(Vec<Stage>, Wishes)> {
        let mut stager = Stager {
            program: self.program,
            dag,
            choices,
            joins,
            in_place: &self.in_place,
            wishes: Wishes::default(),
        };
        let mut out = Vec::new();
        for node in &self.stored {
            if self.live.contains(node) {
                out.extend(stager.stages(*node)?);
            }
        }
        Ok((out, stager.wishes))
    }

    /// Whether the wishes change a choice.
    fn grant(&mut self, wishes: &Wishes) -> bool {
        let costs = self.costs();
        let wanted = |node: &NodeId| costs[node.0 as usize] >= KEEP_COST && self.can_store(*node);
        let mut often = wishes.points.iter().filter(|(n, count)| **count > 1 && wanted(n)).map(|(n, _)| *n);
        if let Some(node) = often.next_back() {
            self.stored.insert(node);
            return true;
        }
        let Some((node, axis, n, factor)) = wishes.splits.first() else { return false };
        let shape = &self.program.node(*node).shape;
        let split =
            self.splits.entry(*node).or_insert_with(|| shape.iter().map(|d| vec![d.clone()]).collect());
        let Some(outer) = split[*axis][*n].exact_div(factor) else { return false };
        split[*axis].splice(*n..=*n, [outer, factor.clone()]);
        true
    }

    fn run(&mut self, per_row: bool) -> Result<Schedule> {
        self.keep_repeated();
        let mut rounds = 0;
        let (stages, tiled) = loop {
            let mut dag = Dag::default();
            let (stages, wishes) = self.stages(&mut dag, &self.full_choices(), &BTreeMap::new())?;
            rounds += 1;
            if rounds > MAX_ROUNDS || !self.grant(&wishes) {
                let sums = stages.iter().filter(|s| !per_row && sides(&dag, s).is_some());
                let tiled: BTreeSet<_> = sums.map(|s| (s.node, s.part)).collect();
                break (stages, tiled);
            }
        };
        let nests = self.nests(stages, &tiled);
        let (choices, storage) = self.place(&nests, per_row);
        // Stages are made once more under the final choices, then once more with joined loops.
        let joins = {
            let mut dag = Dag::default();
            let (stages, _) = self.stages(&mut dag, &choices, &BTreeMap::new())?;
            joins(&regroup(&nests, stages)?)
        };
        let mut dag = Dag::default();
        let (stages, _) = self.stages(&mut dag, &choices, &joins)?;
        let mut final_nests = regroup(&nests, stages)?;
        for nest in &mut final_nests {
            let first = nest.stages.first().map(|s| (s.node, s.part));
            let runs = first.and_then(|f| joins.get(&f)).map(|j| j.own.as_slice()).unwrap_or_default();
            let (mut left, mut outer) = (nest.outer, 0);
            for run in runs {
                if left == 0 {
                    break;
                }
                left = left.saturating_sub(*run);
                outer += 1;
            }
            if !runs.is_empty() {
                nest.outer = outer;
            }
        }
        let copies = self.copies()?;
        let mut storage = storage;
        let copies = copies
            .into_iter()
            .map(|(from, value, elements, dtype)| {
                storage.push(Storage::Write(value));
                Copied { from, to: BufferId(storage.len() as u32 - 1), elements, dtype }
            })
            .collect();
        Ok(Schedule { dag, nests: final_nests, storage, copies })
    }

    /// Results that are computed elsewhere, or are operands.
    fn copies(&self) -> Result<Vec<(BufferId, ValueId, Dim, DType)>> {
        let mut out = Vec::new();
        let mut written: BTreeSet<NodeId> = BTreeSet::new();
        for (value, node) in &self.program.writes {
            let n = self.program.node(*node);
            let direct =
                !self.copied.contains(value) && !matches!(n.def, Def::Read(_)) && written.insert(*node);
            if direct {
                continue;
            }
            let buffer = self.write_buffers.get(node).or_else(|| self.read_buffers.get(node));
            let buffer = buffer.ok_or_else(|| internal("kernel.write", "a result is computed nowhere"))?;
            out.push((*buffer, *value, n.shape.iter().fold(Dim::ONE, |a, d| &a * d), n.dtype));
        }
        Ok(out)
    }

    /// Where every tensor stands: rows that only one nest needs are not kept whole.
    fn place(&self, nests: &[Nest], per_row: bool) -> (Choices, Vec<Storage>) {
        let mut choices = self.full_choices();
        let mut storage = self.storage.clone();
        choices.places.retain(|n, _| self.read_buffers.contains_key(n) || self.write_buffers.contains_key(n));
        let home = |node: NodeId| nests.iter().position(|n| n.stages.iter().any(|s| s.node == node));
        for node in self.stored.iter().filter(|n| !self.write_buffers.contains_key(n)) {
            let own = home(*node);
            let reads_it = |n: &Nest| n.stages.iter().any(|s| s.accesses.iter().any(|a| a.node == *node));
            let readers: Vec<usize> = (0..nests.len()).filter(|i| reads_it(&nests[*i])).collect();
            let n = self.program.node(*node);
            let sizes = loop_sizes(self.program, &choices, *node);
            let private = per_row && n.recurrence.is_none() && readers.iter().all(|r| Some(*r) == own);
            let outer = own.map_or(0, |o| nests[o].outer).min(sizes.len());
            let whole = !matches!(n.def, Def::Parts(_) | Def::Scan { .. });
            if private && whole && outer == sizes.len() {
                choices.places.insert(*node, Place::Register);
                continue;
            }
            let first = if private { outer } else { 0 };
            let elements = sizes[first..].iter().fold(Dim::ONE, |a, d| &a * d);
            storage.push(Storage::Scratch { elements, dtype: n.dtype });
            let buffer = BufferId(storage.len() as u32 - 1);
            let place = if private { Place::Row(buffer, outer) } else { Place::Memory(buffer) };
            choices.places.insert(*node, place);
        }
        (choices, storage)
    }
}

/// Refuses sizes that do not exist.
pub(crate) fn check_sizes(program: &Program) -> Result<()> {
    let bad = program.nodes.iter().flat_map(|n| &n.shape).any(Dim::is_overflow);
    if bad { Err(unsupported("kernel.size", "a size does not fit 64 bits")) } else { Ok(()) }
}
