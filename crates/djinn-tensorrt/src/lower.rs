//! Operations as layers.

mod attention;
mod contraction;
mod elementwise;
mod movement;
mod normalization;
mod recurrent;
mod reduction;

use crate::network::{Net, Val, no_layer};
use djinn_diag::{Result, internal};
use djinn_ir::{Attrs, DType, Graph, Op, OpKind, TensorType, ValueId};
use std::collections::BTreeMap;

/// An operation with its operands in the network.
pub(crate) struct Node<'a, 'n> {
    pub(crate) kind: OpKind,
    pub(crate) attrs: &'a Attrs,
    pub(crate) operands: Vec<Val<'n>>,
    /// Declared types of the results.
    pub(crate) types: Vec<TensorType>,
    /// The literal that an operand is, if it is one.
    pub(crate) literals: Vec<Option<&'a djinn_ir::TensorData>>,
}

impl<'n> Node<'_, 'n> {
    pub(crate) fn x(&self, number: usize) -> Result<&Val<'n>> {
        self.operands.get(number).ok_or_else(|| {
            internal("tensorrt.operands", format!("'{}' has no operand {number}", self.kind.name()))
        })
    }

    pub(crate) fn axis(&self) -> usize {
        usize::try_from(self.attrs.int("axis")).unwrap_or(0)
    }

    pub(crate) fn axes(&self) -> Vec<usize> {
        self.attrs.ints("axes").iter().filter_map(|a| usize::try_from(*a).ok()).collect()
    }

    /// The number that an operand is everywhere, if it is a literal.
    pub(crate) fn splat(&self, number: usize) -> Option<f64> {
        self.literals.get(number)?.and_then(djinn_ir::TensorData::splat_value)
    }
}

/// Makes the layers of every operation of a body whose arguments are in `values`; labels are numbers of operations.
pub(crate) fn body<'n>(
    net: &mut Net<'n>,
    graph: &Graph,
    values: &mut BTreeMap<ValueId, Val<'n>>,
) -> Result<()> {
    for (number, (_, op)) in graph.ops().enumerate() {
        net.label = format!("op{number}.{}", op.kind.name());
        let place = || format!("operation {number}, {}", op.kind.name());
        let results = lower(net, graph, op, values).map_err(|e| e.at(place()))?;
        for (result, value) in op.results.iter().zip(results) {
            let declared = graph.ty(*result);
            net.confirm(&value, declared).map_err(|e| e.at(place()))?;
            values.insert(*result, Val { ty: declared.clone(), ..value });
        }
    }
    Ok(())
}

fn lower<'n>(
    net: &mut Net<'n>,
    graph: &Graph,
    op: &Op,
    values: &BTreeMap<ValueId, Val<'n>>,
) -> Result<Vec<Val<'n>>> {
    let operand = |v: &ValueId| {
        let value = values.get(v).cloned();
        value.ok_or_else(|| internal("tensorrt.operands", format!("%{} is not in the network", v.0)))
    };
    let literal = |v: &ValueId| {
        let (maker, _) = graph.definition(*v)?;
        graph.get_op(maker).filter(|op| op.kind == OpKind::Constant)?.attrs.tensor("value")
    };
    let node = Node {
        kind: op.kind,
        attrs: &op.attrs,
        operands: op.operands.iter().map(operand).collect::<Result<_>>()?,
        types: op.results.iter().map(|r| graph.ty(*r).clone()).collect(),
        literals: op.operands.iter().map(literal).collect(),
    };
    if node.types.is_empty() {
        return Err(no_layer("it has no results"));
    }
    route(net, &node)
}

/// Exhaustive on purpose: a new operation needs a decision.
fn route<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Vec<Val<'n>>> {
    use OpKind as K;
    let one = |value: Val<'n>| vec![value];
    match node.kind {
        K::Abs
        | K::Neg
        | K::Sign
        | K::Exp
        | K::Log
        | K::Sqrt
        | K::Rsqrt
        | K::Reciprocal
        | K::Sin
        | K::Cos => elementwise::unary(net, node).map(one),
        K::Tan
        | K::Asin
        | K::Acos
        | K::Atan
        | K::Sinh
        | K::Cosh
        | K::Asinh
        | K::Acosh
        | K::Atanh
        | K::Erf => elementwise::unary(net, node).map(one),
        K::Floor | K::Ceil | K::Round | K::IsNan | K::IsInf | K::Not | K::Tanh | K::Sigmoid => {
            elementwise::unary(net, node).map(one)
        }
        K::Relu | K::LeakyRelu | K::Elu | K::Silu | K::Gelu | K::HardSigmoid | K::HardSwish | K::Mish => {
            elementwise::activation(net, node).map(one)
        }
        K::Softplus => elementwise::softplus(net, node.x(0)?).map(one),
        K::Cast => elementwise::cast(net, node).map(one),
        K::Add | K::Sub | K::Mul | K::Div | K::Mod | K::Pow | K::Min | K::Max => {
            elementwise::arithmetic(net, node).map(one)
        }
        K::And | K::Or | K::Xor | K::Compare | K::Select | K::Clamp => elementwise::logic(net, node).map(one),
        K::Constant | K::DimExpr | K::Iota => movement::source(net, node).map(one),
        K::Reshape | K::Transpose | K::Broadcast | K::Slice | K::Reverse | K::Concat | K::Pad | K::Tile => {
            movement::lower(net, node).map(one)
        }
        K::Gather | K::GatherElements | K::GatherNd | K::Trilu => movement::lower(net, node).map(one),
        K::ScatterNd | K::ScatterElements | K::IndexCopy => movement::scatter(net, node).map(one),
        K::ReduceSum | K::ReduceMean | K::ReduceMax | K::ReduceMin | K::ReduceProd | K::CumSum => {
            reduction::reduce(net, node).map(one)
        }
        K::ArgMax | K::ArgMin => reduction::arg(net, node).map(one),
        K::TopK => reduction::top_k(net, node),
        K::Softmax | K::LogSoftmax | K::LayerNorm | K::RmsNorm | K::GroupNorm | K::BatchNorm => {
            normalization::lower(net, node).map(one)
        }
        K::MatMul | K::Conv | K::ConvTranspose | K::MaxPool | K::AvgPool | K::Resize => {
            contraction::lower(net, node).map(one)
        }
        K::Sdpa => attention::sdpa(net, node).map(one),
        K::Rope => attention::rope(net, node).map(one),
        K::Lstm => recurrent::lstm(net, node),
        K::Weight | K::Range | K::DynamicReshape | K::DynamicBroadcast | K::DynamicSlice | K::DynamicPad => {
            Err(no_layer("it is no operation of an engine"))
        }
        K::DynamicTile | K::NonZero | K::If | K::Loop | K::Transfer | K::Call | K::Opaque => {
            Err(no_layer("it is no operation of an engine"))
        }
        K::BitCast | K::Shl | K::Shr | K::CumProd => Err(no_layer("TensorRT has no layer for it")),
    }
}

/// Is it a float that engines compute in?
pub(crate) fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}
