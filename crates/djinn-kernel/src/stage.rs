//! Stages: the loops that write one tensor (or a part of it), with the expressions inside.

use crate::affine::{Affine, delinear, linear};
use crate::build::{Access, Builder, Choices, Loop, Place};
use crate::dag::{BufferId, Dag, Id, Ty};
use crate::fold;
use crate::program::{Def, Fold, NodeId, Part, Point, Program};
use djinn_diag::{Result, internal};
use djinn_ir::{DType, Dim};
use std::collections::BTreeMap;

/// Where a stage leaves its values.
#[derive(Debug, Clone)]
pub(crate) enum Goal {
    /// In a buffer at this position, where the guard is true.
    Memory { buffer: BufferId, position: Affine, index: Id, guard: Option<Id> },
    /// In the register of the stage's tensor.
    Register,
}

/// What a stage does at every point of its loops.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// Leaves a value.
    Store { value: Id },
    /// Folds values over further loops; `position` is the linear position in them.
    Reduce { fold: Fold, loops: Vec<Loop>, value: Id, position: Id },
    /// Folds along a loop and leaves every step.
    Scan { fold: Fold, exclusive: bool, along: Loop, value: Id },
    /// Moves elements inside one buffer.
    Move { buffer: BufferId, from: Id, to: Id, elements: Id },
}

/// Loops over one tensor.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) node: NodeId,
    pub(crate) part: usize,
    pub(crate) dtype: DType,
    pub(crate) unsigned: bool,
    pub(crate) loops: Vec<Loop>,
    /// At most so many outer loops can be shared with other stages.
    pub(crate) shared: usize,
    /// So many loops, of which the first is the one after those that can be shared, run in order.
    pub(crate) ordered: usize,
    pub(crate) work: Work,
    pub(crate) goal: Goal,
    pub(crate) accesses: Vec<Access>,
    /// Positions that are read from buffers.
    pub(crate) loads: Vec<(BufferId, Affine)>,
    /// Linear forms in the expressions.
    pub(crate) forms: Vec<Affine>,
}

/// Which neighbouring loops run as one: lengths of runs of loops.
#[derive(Debug, Clone, Default)]
pub(crate) struct Joins {
    pub(crate) own: Vec<usize>,
    pub(crate) folded: Vec<usize>,
}

/// What building all stages told about better choices.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    /// How many points of each tensor were computed inside others.
    pub(crate) points: BTreeMap<NodeId, u32>,
    /// Axes to split: tensor, axis, number of the size in its split, and the factor.
    pub(crate) splits: Vec<(NodeId, usize, usize, Dim)>,
}

/// Makes the stages of tensors.
pub(crate) struct Stager<'a> {
    pub(crate) program: &'a Program,
    pub(crate) dag: &'a mut Dag,
    pub(crate) choices: &'a Choices,
    /// By tensor and part.
    pub(crate) joins: &'a BTreeMap<(NodeId, usize), Joins>,
    /// Parts that need not be copied since their bytes are already in place; true: they move inside the buffer.
    pub(crate) in_place: &'a BTreeMap<NodeId, bool>,
    pub(crate) wishes: Wishes,
}

impl Stager<'_> {
    /// The stages that write a tensor, in order.
    pub(crate) fn stages(&mut self, node: NodeId) -> Result<Vec<Stage>> {
        match self.program.node(node).def.clone() {
            Def::Read(_) => Ok(Vec::new()),
            Def::Element(_) => Ok(vec![self.store(node)?]),
            Def::Reduce { fold, extents, .. } => Ok(vec![self.reduce(node, fold, &extents)?]),
            Def::Scan { fold, axis, exclusive, reverse, .. } => {
                Ok(vec![self.scan(node, fold, axis, exclusive, reverse)?])
            }
            Def::Parts(parts) => {
                let mut out = Vec::new();
                for (n, part) in parts.iter().enumerate() {
                    match self.in_place.get(&node) {
                        Some(false) if n == 0 => {}
                        Some(true) if n == 0 => out.push(self.moved(node, part)?),
                        _ => out.push(self.part(node, n, part)?),
                    }
                }
                Ok(out)
            }
        }
    }

    /// Loops over these sizes, joined as `runs` says; the position in each size.
    fn loops(&mut self, sizes: &[Dim], runs: &[usize]) -> (Vec<Loop>, Vec<Affine>) {
        let ones = vec![1; sizes.len()];
        let runs = if runs.is_empty() { &ones } else { runs };
        let (mut loops, mut positions, mut at) = (Vec::new(), Vec::new(), 0);
        for run in runs {
            let own = &sizes[at..at + run];
            at += run;
            let size = own.iter().fold(Dim::ONE, |n, d| &n * d);
            let var = self.dag.variable(&size);
            loops.push(Loop { var, size });
            positions.extend(delinear(self.dag, &Affine::atom(var), own));
        }
        (loops, positions)
    }

    /// Loops over a shape whose axes may be split; the index in it.
    fn index(&mut self, node: NodeId, part: usize, shape: &[Dim], split: bool) -> (Vec<Loop>, Vec<Affine>) {
        let whole: Vec<Vec<Dim>> = shape.iter().map(|d| vec![d.clone()]).collect();
        let split = self.choices.splits.get(&node).filter(|_| split).unwrap_or(&whole).clone();
        let sizes: Vec<Dim> = split.concat().into_iter().filter(|d| !d.is(1)).collect();
        let joins = self.joins.get(&(node, part)).map(|j| j.own.clone()).unwrap_or_default();
        let (loops, positions) = self.loops(&sizes, &joins);
        let mut next = positions.into_iter();
        let mut index = Vec::with_capacity(shape.len());
        for sizes in &split {
            let at: Vec<Affine> = sizes
                .iter()
                .map(|d| if d.is(1) { Affine::zero() } else { next.next().unwrap_or_else(Affine::zero) })
                .collect();
            index.push(linear(&at, sizes));
        }
        (loops, index)
    }

    fn goal(&self, b: &mut Builder, node: NodeId, index: &[Affine], guard: Option<Id>) -> Result<Goal> {
        let place = self.choices.places.get(&node).cloned();
        let place = place.ok_or_else(|| internal("kernel.place", "a tensor that is written has no place"))?;
        Ok(match b.position(node, &place, index) {
            Some((buffer, position)) => {
                let index = b.dag.index(&position);
                Goal::Memory { buffer, position, index, guard }
            }
            None => Goal::Register,
        })
    }

    /// Runs `f` with a builder and keeps what it found out.
    fn build<R>(&mut self, f: impl FnOnce(&Self, &mut Builder) -> Result<R>) -> Result<(R, Found)> {
        let (mut dag, program, choices) = (std::mem::take(self.dag), self.program, self.choices);
        dag.forms.clear();
        let mut builder = Builder::new(program, &mut dag, choices);
        let result = f(self, &mut builder);
        let found = Found {
            accesses: std::mem::take(&mut builder.accesses),
            loads: std::mem::take(&mut builder.loads),
            forms: Vec::new(),
        };
        let points = std::mem::take(&mut builder.points);
        let forms = std::mem::take(&mut dag.forms);
        *self.dag = dag;
        for (node, count) in points {
            *self.wishes.points.entry(node).or_default() += count;
        }
        Ok((result?, Found { forms, ..found }))
    }

    /// Turns splits that the expressions asked for into wishes.
    fn note_splits(&mut self, node: NodeId, loops: &[Loop]) {
        let asked = std::mem::take(&mut self.dag.splits);
        if self.program.node(node).recurrence.is_some() {
            return;
        }
        let whole: Vec<Vec<Dim>> = self.program.node(node).shape.iter().map(|d| vec![d.clone()]).collect();
        let split = self.choices.splits.get(&node).unwrap_or(&whole);
        let mut places = Vec::new();
        for (axis, sizes) in split.iter().enumerate() {
            places.extend(sizes.iter().enumerate().filter(|(_, d)| !d.is(1)).map(|(n, _)| (axis, n)));
        }
        for (var, factor) in asked {
            let at = loops.iter().position(|l| l.var == var);
            if let Some((axis, n)) = at.and_then(|at| places.get(at)) {
                self.wishes.splits.push((node, *axis, *n, factor));
            }
        }
    }

    fn stage(
        &self,
        node: NodeId,
        part: usize,
        loops: Vec<Loop>,
        work: Work,
        goal: Goal,
        found: Found,
    ) -> Stage {
        let n = self.program.node(node);
        Stage {
            node,
            part,
            dtype: n.dtype,
            unsigned: n.unsigned,
            shared: loops.len(),
            ordered: 0,
            loops,
            work,
            goal,
            accesses: found.accesses,
            loads: found.loads,
            forms: found.forms,
        }
    }

    fn store(&mut self, node: NodeId) -> Result<Stage> {
        let shape = self.program.node(node).shape.clone();
        let (loops, index) = self.index(node, 0, &shape, true);
        let ((value, goal), found) = self.build(|this, b| {
            let value = b.compute(node, Point { index: &index, guard: None })?;
            Ok((value, this.goal(b, node, &index, None)?))
        })?;
        self.note_splits(node, &loops);
        Ok(self.stage(node, 0, loops, Work::Store { value }, goal, found))
    }

    fn reduce(&mut self, node: NodeId, fold: Fold, extents: &[Dim]) -> Result<Stage> {
        let shape = self.program.node(node).shape.clone();
        let (loops, index) = self.index(node, 0, &shape, true);
        let sizes: Vec<Dim> = extents.iter().filter(|d| !d.is(1)).cloned().collect();
        let runs = self.joins.get(&(node, 0)).map(|j| j.folded.clone()).unwrap_or_default();
        let (folded, positions) = self.loops(&sizes, &runs);
        let mut next = positions.into_iter();
        let inner: Vec<Affine> = extents
            .iter()
            .map(|d| if d.is(1) { Affine::zero() } else { next.next().unwrap_or_else(Affine::zero) })
            .collect();
        let Def::Reduce { element, .. } = self.program.node(node).def.clone() else {
            return Err(internal("kernel.reduce", "no reduction"));
        };
        let arg = matches!(fold, Fold::ArgMax { .. } | Fold::ArgMin { .. });
        let ((value, position, goal), found) = self.build(|this, b| {
            let full: Vec<Affine> = index.iter().chain(&inner).cloned().collect();
            let value = element(b, Point { index: &full, guard: None })?;
            let position = if arg { b.dag.index(&linear(&inner, extents)) } else { b.dag.int(Ty::I64, 0) };
            Ok((value, position, this.goal(b, node, &index, None)?))
        })?;
        self.note_splits(node, &loops);
        Ok(self.stage(node, 0, loops, Work::Reduce { fold, loops: folded, value, position }, goal, found))
    }

    fn scan(
        &mut self,
        node: NodeId,
        fold: Fold,
        axis: usize,
        exclusive: bool,
        reverse: bool,
    ) -> Result<Stage> {
        let shape = self.program.node(node).shape.clone();
        let mut others = shape.clone();
        others[axis] = Dim::ONE;
        let (loops, mut index) = self.index(node, 0, &others, false);
        let var = self.dag.variable(&shape[axis]);
        let along = Loop { var, size: shape[axis].clone() };
        let step = Affine::atom(var);
        index[axis] = if reverse { Affine::constant(&shape[axis] - &Dim::ONE).sub(&step) } else { step };
        let Def::Scan { element, .. } = self.program.node(node).def.clone() else {
            return Err(internal("kernel.scan", "no scan"));
        };
        let ((value, goal), found) = self.build(|this, b| {
            let value = element(b, Point { index: &index, guard: None })?;
            Ok((value, this.goal(b, node, &index, None)?))
        })?;
        self.dag.splits.clear();
        let mut stage = self.stage(node, 0, loops, Work::Scan { fold, exclusive, along, value }, goal, found);
        stage.shared = shape[..axis].iter().filter(|d| !d.is(1)).count();
        Ok(stage)
    }

    fn part(&mut self, node: NodeId, n: usize, part: &Part) -> Result<Stage> {
        let (loops, index) = self.index(node, n, &part.loops, false);
        let ((value, goal), found) = self.build(|this, b| {
            let (target, guard) = (part.target)(b, &index)?;
            let value = (part.element)(b, Point { index: &index, guard: None })?;
            Ok((value, this.goal(b, node, &target, guard)?))
        })?;
        self.dag.splits.clear();
        let mut stage = self.stage(node, n, loops, Work::Store { value }, goal, found);
        stage.shared = part.loops[..part.shared].iter().filter(|d| !d.is(1)).count();
        let ordered = &part.loops[part.shared..part.shared + part.ordered];
        stage.ordered = ordered.iter().filter(|d| !d.is(1)).count();
        Ok(stage)
    }

    /// The first part of a concatenation whose bytes stand at the beginning of the result's.
    fn moved(&mut self, node: NodeId, part: &Part) -> Result<Stage> {
        let outer = &part.loops[..part.shared];
        let row: Dim = part.loops[part.shared..].iter().fold(Dim::ONE, |n, d| &n * d);
        let shape = self.program.node(node).shape.clone();
        let wide: Dim = shape[part.shared..].iter().fold(Dim::ONE, |n, d| &n * d);
        let mut sizes = outer.to_vec();
        sizes.resize(part.loops.len(), Dim::ONE);
        let (loops, index) = self.index(node, 0, &sizes, false);
        let place = self.choices.places.get(&node).cloned();
        let Some(Place::Memory(buffer)) = place else {
            return Err(internal("kernel.place", "what is appended to has no memory"));
        };
        let (work, found) = self.build(|_, b| {
            let row_number = linear(&index[..part.shared], outer);
            let (from, to) = (b.dag.index(&row_number.scale(&row)), b.dag.index(&row_number.scale(&wide)));
            let elements = b.dag.size(&row);
            Ok(Work::Move { buffer, from, to, elements })
        })?;
        let stage = self.stage(node, 0, loops, work, Goal::Register, found);
        Ok(stage)
    }
}

/// What building the expressions of a stage found out.
struct Found {
    accesses: Vec<Access>,
    loads: Vec<(BufferId, Affine)>,
    forms: Vec<Affine>,
}

impl Stage {
    /// All loops, folded ones last.
    pub(crate) fn all_loops(&self) -> Vec<Loop> {
        let mut out = self.loops.clone();
        match &self.work {
            Work::Reduce { loops, .. } => out.extend(loops.iter().cloned()),
            Work::Scan { along, .. } => out.push(along.clone()),
            Work::Store { .. } | Work::Move { .. } => {}
        }
        out
    }

    /// Can the loops `a` and `b`, of which `b` runs inside `a`, run as one?
    pub(crate) fn joinable(&self, a: &Loop, b: &Loop) -> bool {
        self.forms.iter().all(|form| {
            let factor = |l: &Loop| {
                form.terms.iter().find(|(atom, _)| *atom == l.var).map_or(Dim::ZERO, |(_, c)| c.clone())
            };
            factor(a) == &factor(b) * &b.size
        })
    }

    /// The value that a fold over nothing gives.
    pub(crate) fn first(&self, dag: &mut Dag, fold: Fold, value: Id) -> Id {
        let arg = matches!(fold, Fold::ArgMax { .. } | Fold::ArgMin { .. });
        if !arg {
            return fold::first(dag, fold, self.dtype);
        }
        let dtype = match (dag.ty(value), self.unsigned) {
            (Ty::F32, _) => DType::F32,
            (Ty::F64, _) => DType::F64,
            (Ty::I1, _) => DType::Bool,
            (Ty::I8, false) => DType::I8,
            (Ty::I16, false) => DType::I16,
            (Ty::I32, false) => DType::I32,
            (Ty::I64, false) => DType::I64,
            (Ty::I8, true) => DType::U8,
            (Ty::I16, true) => DType::U16,
            (Ty::I32, true) => DType::U32,
            (Ty::I64, true) => DType::U64,
        };
        fold::first(dag, fold, dtype)
    }
}
