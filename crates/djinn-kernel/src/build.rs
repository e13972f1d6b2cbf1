//! Pulls values of tensors at points into scalar expressions.

use crate::affine::{Affine, AtomId, linear};
use crate::dag::{BufferId, Dag, Id, Ty};
use crate::program::{Def, NodeId, Point, Program};
use djinn_diag::{Result, unsupported};
use djinn_ir::Dim;
use std::collections::{BTreeMap, HashMap};

/// Expressions of one kernel, at most: more do not make a kernel that pays.
const MAX_NODES: usize = 60_000;
/// Tensors pulled through one another, at most.
const MAX_DEPTH: u32 = 400;

/// How the loops that write a tensor run over its axes: axis by axis, the sizes that it is split into.
pub(crate) type Split = Vec<Vec<Dim>>;

/// Where the elements of a tensor stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a buffer, row-major.
    Memory(BufferId),
    /// In a buffer that holds only what one turn of this many outer loops needs.
    Row(BufferId, usize),
    /// In a register per turn of the outer loops.
    Register,
}

/// What is decided about every tensor.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choices {
    /// Tensors that are written down, and where.
    pub(crate) places: BTreeMap<NodeId, Place>,
    /// Axes that are split; the others run whole.
    pub(crate) splits: BTreeMap<NodeId, Split>,
}

/// A read of a tensor that the group writes down.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) node: NodeId,
    /// Positions in the loops that wrote it.
    pub(crate) loops: Vec<Affine>,
}

/// Builds the expressions of one stage.
pub(crate) struct Builder<'a> {
    pub(crate) program: &'a Program,
    pub(crate) dag: &'a mut Dag,
    pub(crate) choices: &'a Choices,
    memo: HashMap<(NodeId, Vec<Affine>, Option<Id>), Id>,
    pub(crate) accesses: Vec<Access>,
    /// At how many points each tensor was computed.
    pub(crate) points: BTreeMap<NodeId, u32>,
    depth: u32,
    /// Positions that loads read.
    pub(crate) loads: Vec<(BufferId, Affine)>,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(program: &'a Program, dag: &'a mut Dag, choices: &'a Choices) -> Self {
        Builder {
            program,
            dag,
            choices,
            memo: HashMap::new(),
            accesses: Vec::new(),
            points: BTreeMap::new(),
            depth: 0,
            loads: Vec::new(),
        }
    }

    /// The value of a tensor at an index.
    pub(crate) fn value(&mut self, node: NodeId, index: &[Affine], guard: Option<Id>) -> Result<Id> {
        let key = (node, index.to_vec(), guard);
        if let Some(known) = self.memo.get(&key) {
            return Ok(*known);
        }
        let value = match self.choices.places.get(&node).cloned() {
            Some(place) => self.stored(node, &place, index, guard),
            None => {
                *self.points.entry(node).or_default() += 1;
                self.compute(node, Point { index, guard })?
            }
        };
        self.memo.insert(key, value);
        Ok(value)
    }

    /// The value of a tensor that is computed where it is needed, or that is being written.
    pub(crate) fn compute(&mut self, node: NodeId, point: Point) -> Result<Id> {
        if self.dag.len() > MAX_NODES || self.depth > MAX_DEPTH {
            let message = format!("the kernel has more than {MAX_NODES} expressions");
            return Err(unsupported("kernel.size", message));
        }
        let element = match &self.program.node(node).def {
            Def::Element(element) => element.clone(),
            _ => {
                return Err(djinn_diag::internal(
                    "kernel.place",
                    "a tensor that is not pointwise has no place",
                ));
            }
        };
        self.depth += 1;
        let value = element(self, point);
        self.depth -= 1;
        value
    }

    /// Positions in the loops that write a tensor.
    pub(crate) fn loop_positions(&mut self, node: NodeId, index: &[Affine]) -> Vec<Affine> {
        let shape = &self.program.node(node).shape;
        let mut out = Vec::new();
        for (axis, position) in index.iter().enumerate() {
            match self.choices.splits.get(&node).map(|s| &s[axis]) {
                Some(sizes) if sizes.len() > 1 => {
                    out.extend(crate::affine::delinear(self.dag, position, sizes));
                }
                _ if shape[axis].is(1) => {}
                _ => out.push(position.clone()),
            }
        }
        out
    }

    /// The element at an index of a tensor that stands somewhere.
    pub(crate) fn stored(&mut self, node: NodeId, place: &Place, index: &[Affine], guard: Option<Id>) -> Id {
        let dtype = self.program.node(node).dtype;
        if !matches!(self.program.node(node).def, Def::Read(_)) {
            let loops = self.loop_positions(node, index);
            self.accesses.push(Access { node, loops });
        }
        match self.position(node, place, index) {
            Some((buffer, position)) => {
                self.loads.push((buffer, position.clone()));
                let position = self.dag.index(&position);
                self.dag.load(buffer, dtype, position, guard)
            }
            None => self.dag.register(node.0, Ty::of(dtype)),
        }
    }

    /// The buffer and the position in it of an element.
    pub(crate) fn position(
        &mut self,
        node: NodeId,
        place: &Place,
        index: &[Affine],
    ) -> Option<(BufferId, Affine)> {
        match place {
            Place::Memory(buffer) => Some((*buffer, linear(index, &self.program.node(node).shape))),
            Place::Row(buffer, outer) => {
                let loops = self.loop_positions(node, index);
                let sizes = self.loop_sizes(node);
                Some((*buffer, linear(&loops[*outer..], &sizes[*outer..])))
            }
            Place::Register => None,
        }
    }

    /// Sizes of the loops that write a tensor.
    pub(crate) fn loop_sizes(&self, node: NodeId) -> Vec<Dim> {
        loop_sizes(self.program, self.choices, node)
    }
}

/// Sizes of the loops that write a tensor: none for axes of size 1.
pub(crate) fn loop_sizes(program: &Program, choices: &Choices, node: NodeId) -> Vec<Dim> {
    let sizes = match choices.splits.get(&node) {
        Some(split) => split.concat(),
        None => program.node(node).shape.clone(),
    };
    sizes.into_iter().filter(|d| !d.is(1)).collect()
}

/// A loop.
#[derive(Debug, Clone)]
pub(crate) struct Loop {
    pub(crate) var: AtomId,
    pub(crate) size: Dim,
}
