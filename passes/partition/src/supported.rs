//! What a TensorRT engine can hold: by operation and element type.
//!
//! After NVIDIA's "TensorRT Operators" reference and the operator table of its ONNX parser (10.x): a layer
//! per operation, with the element types that the layer takes.

use djinn_ir::{DType, Graph, Op, OpKind};

/// Element types that tensors inside an engine may have, besides special rules below.
const ENGINE_TYPES: &[DType] = &[DType::F32, DType::F16, DType::BF16, DType::I32, DType::I64, DType::Bool];

const FLOATS: &[DType] = &[DType::F32, DType::F16, DType::BF16];
const NUMBERS: &[DType] = &[DType::F32, DType::F16, DType::BF16, DType::I32, DType::I64];
const BOOL: &[DType] = &[DType::Bool];
const TOP_K_TYPES: &[DType] = &[DType::F32, DType::F16, DType::BF16, DType::I32, DType::I64];

/// The most elements that TensorRT's TopK layer returns along its axis.
const TOP_K_LIMIT: i64 = 3840;

/// Why an operation stays outside of engines; `None` if an engine can hold it.
pub fn refusal(graph: &Graph, op: &Op) -> Option<&'static str> {
    let rule = match rule(op.kind) {
        Rule::Never(reason) => return Some(reason),
        Rule::Types(types) => types,
    };
    let values = op.operands.iter().chain(&op.results);
    if values.clone().any(|v| !ENGINE_TYPES.contains(&graph.ty(*v).dtype)) {
        return Some("an operand or result has an element type that engines do not have");
    }
    if let Some(first) = op.operands.first()
        && !rule.contains(&graph.ty(*first).dtype)
    {
        return Some("the layer does not take this element type");
    }
    let large_k = |k: Option<i64>| k.is_none_or(|k| k > TOP_K_LIMIT);
    match op.kind {
        OpKind::TopK if large_k(op.attrs.dim("k").as_const()) => {
            Some("TopK layers give at most 3840 elements, known beforehand")
        }
        OpKind::Conv | OpKind::ConvTranspose if !(3..=5).contains(&graph.ty(op.operands[0]).rank()) => {
            Some("convolution layers have one to three spatial axes")
        }
        _ => None,
    }
}

/// A row of the table.
enum Rule {
    /// There is no layer; why.
    Never(&'static str),
    /// There is one, for these types of the first operand.
    Types(&'static [DType]),
}

const CONTROL: Rule = Rule::Never("control flow and calls run between engines");
const HOST_SIZED: Rule = Rule::Never("the size of the result is known on the host only after the run");
const NO_LAYER: Rule = Rule::Never("TensorRT has no layer for it");

/// The table. Exhaustive on purpose: a new operation needs a row.
fn rule(kind: OpKind) -> Rule {
    use OpKind as K;
    match kind {
        K::If | K::Loop | K::Call => CONTROL,
        K::Opaque => Rule::Never("its meaning is not known"),
        K::Transfer => Rule::Never("copies between devices run between engines"),
        K::Range | K::NonZero => HOST_SIZED,
        K::DynamicReshape | K::DynamicBroadcast | K::DynamicSlice | K::DynamicPad | K::DynamicTile => {
            Rule::Never("its sizes come out of another operation at run time")
        }
        K::BitCast | K::Shl | K::Shr | K::CumProd => NO_LAYER,
        K::Constant | K::Weight | K::DimExpr | K::Iota => Rule::Types(ENGINE_TYPES),
        K::Abs | K::Neg | K::Sign => Rule::Types(NUMBERS),
        K::Exp
        | K::Log
        | K::Sqrt
        | K::Rsqrt
        | K::Reciprocal
        | K::Sin
        | K::Cos
        | K::Tan
        | K::Asin
        | K::Acos
        | K::Atan
        | K::Sinh
        | K::Cosh
        | K::Tanh
        | K::Asinh
        | K::Acosh
        | K::Atanh
        | K::Erf
        | K::Sigmoid
        | K::Softplus
        | K::LeakyRelu
        | K::Elu
        | K::Silu
        | K::Gelu
        | K::HardSigmoid
        | K::HardSwish
        | K::Mish
        | K::Floor
        | K::Ceil
        | K::Round
        | K::IsNan
        | K::IsInf => Rule::Types(FLOATS),
        K::Relu => Rule::Types(NUMBERS),
        K::Not | K::And | K::Or | K::Xor => Rule::Types(BOOL),
        K::Cast => Rule::Types(ENGINE_TYPES),
        K::Add | K::Sub | K::Mul | K::Div | K::Mod | K::Pow | K::Min | K::Max | K::Clamp => {
            Rule::Types(NUMBERS)
        }
        K::Compare | K::Select => Rule::Types(ENGINE_TYPES),
        K::Reshape
        | K::Transpose
        | K::Broadcast
        | K::Slice
        | K::Reverse
        | K::Concat
        | K::Tile
        | K::Gather
        | K::GatherElements
        | K::GatherNd => Rule::Types(ENGINE_TYPES),
        K::Pad | K::Trilu => Rule::Types(ENGINE_TYPES),
        K::ScatterNd | K::ScatterElements | K::IndexCopy => Rule::Types(ENGINE_TYPES),
        K::ReduceSum | K::ReduceMean | K::ReduceMax | K::ReduceMin | K::ReduceProd | K::CumSum => {
            Rule::Types(NUMBERS)
        }
        K::ArgMax | K::ArgMin | K::TopK => Rule::Types(TOP_K_TYPES),
        K::Softmax | K::LogSoftmax | K::LayerNorm | K::RmsNorm | K::GroupNorm | K::BatchNorm => {
            Rule::Types(FLOATS)
        }
        K::MatMul | K::Conv | K::ConvTranspose | K::MaxPool | K::AvgPool | K::Sdpa | K::Rope | K::Lstm => {
            Rule::Types(FLOATS)
        }
        K::Resize => Rule::Types(FLOATS),
    }
}
