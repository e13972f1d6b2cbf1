//! How operations may share a kernel: what each is to a kernel that computes one space of elements.

use djinn_ir::ops::{CostClass, traits};
use djinn_ir::{Graph, Op, OpKind};

/// What an operation is to a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Each element of the result needs one element of each operand, after broadcasting.
    Pointwise,
    /// Each element of the result is one element of the operand, elsewhere; none is used often.
    Moving,
    /// The same bytes under another shape.
    View,
    /// Each element needs a row of the first operand: reductions and norms over some axes.
    Row,
    /// Computes its result by a loop of its own; pointwise work may follow in the same kernel.
    Anchor,
    /// Shares no kernel.
    Alone,
    /// Launches no kernel at all.
    Copy,
}

pub(crate) fn role(op: &Op) -> Role {
    use OpKind as K;
    let def = op.kind.def();
    if def.has(traits::DATA_DEPENDENT) && op.kind != K::DynamicReshape {
        return Role::Alone;
    }
    match op.kind {
        K::Transfer => Role::Copy,
        K::Reshape => Role::View,
        K::BatchNorm | K::Trilu | K::Iota | K::DimExpr => Role::Pointwise,
        K::Transpose | K::Slice | K::Reverse | K::Broadcast => Role::Moving,
        K::Rope => Role::Row,
        // Operations that write into their first operand run alone, so that they can do so in place.
        K::IndexCopy | K::ScatterNd | K::ScatterElements => Role::Alone,
        K::Lstm | K::TopK | K::DynamicReshape => Role::Alone,
        K::MaxPool | K::AvgPool => Role::Anchor,
        _ => match def.cost {
            CostClass::Elementwise => Role::Pointwise,
            CostClass::Reduction | CostClass::Normalization => Role::Row,
            CostClass::Copy | CostClass::Contraction => Role::Anchor,
            CostClass::Free | CostClass::Control => Role::Alone,
        },
    }
}

/// The axes of the first operand whose elements a row operation needs together.
pub(crate) fn row_axes(graph: &Graph, op: &Op) -> Vec<i64> {
    use OpKind as K;
    let rank = op.operands.first().map_or(0, |v| graph.ty(*v).rank()) as i64;
    match op.kind {
        K::ReduceSum | K::ReduceMean | K::ReduceMax | K::ReduceMin | K::ReduceProd => {
            op.attrs.ints("axes").to_vec()
        }
        K::LayerNorm | K::RmsNorm => (op.attrs.int("axis")..rank).collect(),
        K::GroupNorm => (1..rank).collect(),
        K::Rope => vec![rank - 1],
        _ => vec![op.attrs.int("axis")],
    }
}
