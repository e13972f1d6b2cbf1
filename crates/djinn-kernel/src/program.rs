//! What a group computes, as tensors that are defined point by point.

use crate::affine::Affine;
use crate::build::Builder;
use crate::dag::Id;
use djinn_diag::Result;
use djinn_ir::{DType, Dim, ValueId};
use std::rc::Rc;

/// A tensor of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(crate) u32);

/// A point at which a tensor is asked for; under a guard that is false, any value will do and no memory may be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point<'a> {
    pub(crate) index: &'a [Affine],
    pub(crate) guard: Option<Id>,
}

/// The value at a point.
pub(crate) type Element = Rc<dyn Fn(&mut Builder, Point) -> Result<Id>>;

/// Where a part writes at a point of its loops, and whether it does.
pub(crate) type Target = Rc<dyn Fn(&mut Builder, &[Affine]) -> Result<(Vec<Affine>, Option<Id>)>>;

/// How a reduction or a scan combines values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fold {
    Sum,
    Product,
    Max,
    Min,
    /// Position of the largest; of equals the last if `last`.
    ArgMax {
        last: bool,
    },
    /// Position of the smallest.
    ArgMin {
        last: bool,
    },
}

/// One of several loops that together write a tensor.
#[derive(Clone)]
pub(crate) struct Part {
    /// Sizes of the loops.
    pub(crate) loops: Vec<Dim>,
    /// So many leading loops write places that no other turn of them writes: they may be shared with other stages.
    pub(crate) shared: usize,
    /// So many loops after the shared ones must run in order, since a later turn may write over an earlier one.
    pub(crate) ordered: usize,
    /// The tensor that this part copies unchanged, if it does nothing else.
    pub(crate) copies: Option<NodeId>,
    pub(crate) target: Target,
    pub(crate) element: Element,
}

/// How a tensor is computed.
#[derive(Clone)]
pub(crate) enum Def {
    /// An operand of the group.
    Read(ValueId),
    /// By a function of the index.
    Element(Element),
    /// By folding a function of the index followed by the position in these extents.
    Reduce { fold: Fold, extents: Vec<Dim>, element: Element },
    /// By folding along one axis, every step being kept.
    Scan { fold: Fold, axis: usize, exclusive: bool, reverse: bool, element: Element },
    /// By several loops, in order.
    Parts(Vec<Part>),
}

/// A tensor.
#[derive(Clone)]
pub(crate) struct Node {
    /// Element type in memory; values of it are computed in [`crate::dag::Ty::of`] it.
    pub(crate) dtype: DType,
    pub(crate) unsigned: bool,
    pub(crate) shape: Vec<Dim>,
    pub(crate) def: Def,
    /// The tensors that the definition reads, and whether each of their elements is asked for many times.
    pub(crate) reads: Vec<(NodeId, bool)>,
    /// Instructions per element, without those of what it reads.
    pub(crate) cost: u32,
    /// Should it be kept in memory rather than computed again at every use?
    pub(crate) keep: bool,
    /// If its points read earlier points of itself: the recurrence that it belongs to, and how many leading axes all
    /// tensors of the recurrence have in common, of which the last is the step and runs in order.
    pub(crate) recurrence: Option<(u32, usize)>,
}

/// The tensors of a group, operands before users.
#[derive(Default)]
pub(crate) struct Program {
    pub(crate) nodes: Vec<Node>,
    /// The values that the group writes, with the tensors that they are.
    pub(crate) writes: Vec<(ValueId, NodeId)>,
}

impl Program {
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(crate) fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(self.nodes.len() as u32 - 1)
    }

    pub(crate) fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }
}
