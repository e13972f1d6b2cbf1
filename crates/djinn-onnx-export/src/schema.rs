//! Which element types each ONNX operator accepts, per opset.
//!
//! A row of the table repeats the type constraints of one version of an operator's schema (from `onnx.defs`): the
//! type variable of every input and output, and the set of element types of every variable. The emitter inserts
//! `Cast` nodes where the IR allows an element type that the schema does not.

use djinn_ir::DType;

/// One version of one operator's type constraints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schema {
    /// Operator name in the default domain.
    pub(crate) op: &'static str,
    /// First opset in which this version holds.
    pub(crate) since: i64,
    /// Type variable of every formal input; the last one repeats for a variadic input.
    pub(crate) inputs: &'static [u8],
    /// Type variable of every formal output; the last one repeats for a variadic output.
    pub(crate) outputs: &'static [u8],
    /// Allowed element types of every variable: bit `n` stands for `DType::ALL[n]`.
    pub(crate) masks: &'static [u16],
}

impl Schema {
    /// The type variable of input `i`.
    pub(crate) fn input(&self, i: usize) -> Option<usize> {
        self.inputs.get(i).or(self.inputs.last()).map(|v| usize::from(*v))
    }

    /// The type variable of output `i`.
    pub(crate) fn output(&self, i: usize) -> Option<usize> {
        self.outputs.get(i).or(self.outputs.last()).map(|v| usize::from(*v))
    }

    /// Does variable `var` accept this element type?
    pub(crate) fn accepts(&self, var: usize, dtype: DType) -> bool {
        self.masks.get(var).is_some_and(|m| m >> (dtype as u16) & 1 == 1)
    }

    /// The accepted element type in which values of `dtype` are best computed, if `dtype` itself is not accepted.
    ///
    /// Lossless types come first, then (for `u64` and `f64`) the widest lossy one.
    pub(crate) fn stand_in(&self, var: usize, dtype: DType) -> Option<DType> {
        use DType::{F32, F64, I32, I64, U8, U64};
        let preference = [I32, I64, U8, U64, F32, F64];
        let floats = [F32, F64];
        let candidates: &[DType] = if dtype.is_float() { &floats } else { &preference };
        let lossless = candidates.iter().find(|c| self.accepts(var, **c) && dtype.fits_in(**c));
        lossless.or_else(|| candidates.iter().rev().find(|c| self.accepts(var, **c))).copied()
    }
}

/// The schema of `op` that holds in `opset`.
pub(crate) fn schema(op: &str, opset: i64) -> Option<&'static Schema> {
    let first = SCHEMAS.partition_point(|s| s.op < op);
    SCHEMAS[first..].iter().take_while(|s| s.op == op && s.since <= opset).last()
}

const fn row(
    op: &'static str,
    since: i64,
    inputs: &'static [u8],
    outputs: &'static [u8],
    masks: &'static [u16],
) -> Schema {
    Schema { op, since, inputs, outputs, masks }
}

/// The table, sorted by operator and version.
static SCHEMAS: &[Schema] = &[
    row("Abs", 13, &[0], &[0], &[0x1ffe]),
    row("Acos", 7, &[0], &[0], &[0x1a00]),
    row("Acos", 22, &[0], &[0], &[0x1e00]),
    row("Acosh", 9, &[0], &[0], &[0x1a00]),
    row("Acosh", 22, &[0], &[0], &[0x1e00]),
    row("Add", 14, &[0, 0], &[0], &[0x1ffe]),
    row("And", 7, &[0, 0], &[1], &[0x1, 0x1]),
    row("ArgMax", 13, &[0], &[1], &[0x1ffe, 0x10]),
    row("ArgMin", 13, &[0], &[1], &[0x1ffe, 0x10]),
    row("Asin", 7, &[0], &[0], &[0x1a00]),
    row("Asin", 22, &[0], &[0], &[0x1e00]),
    row("Asinh", 9, &[0], &[0], &[0x1a00]),
    row("Asinh", 22, &[0], &[0], &[0x1e00]),
    row("Atan", 7, &[0], &[0], &[0x1a00]),
    row("Atan", 22, &[0], &[0], &[0x1e00]),
    row("Atanh", 9, &[0], &[0], &[0x1a00]),
    row("Atanh", 22, &[0], &[0], &[0x1e00]),
    row("Attention", 23, &[0, 0, 1, 2, 0, 1], &[0, 0, 1, 0], &[0x1e00, 0x1e00, 0x1fff]),
    row("Attention", 24, &[0, 0, 1, 2, 0, 1, 3], &[0, 0, 1, 0], &[0x1e00, 0x1e00, 0x1fff, 0x10]),
    row("AveragePool", 19, &[0], &[0], &[0x1a00]),
    row("AveragePool", 22, &[0], &[0], &[0x1e00]),
    row("BatchNormalization", 15, &[0, 1, 1, 2, 2], &[0, 2, 2], &[0x1e00, 0x1e00, 0x1e00]),
    row("BitShift", 11, &[0, 0], &[0], &[0x1e0]),
    row("BitwiseAnd", 18, &[0, 0], &[0], &[0x1fe]),
    row("BitwiseNot", 18, &[0], &[0], &[0x1fe]),
    row("BitwiseOr", 18, &[0, 0], &[0], &[0x1fe]),
    row("BitwiseXor", 18, &[0, 0], &[0], &[0x1fe]),
    row("Ceil", 13, &[0], &[0], &[0x1e00]),
    row("Clip", 13, &[0, 0, 0], &[0], &[0x1ffe]),
    row("Concat", 13, &[0], &[0], &[0x1fff]),
    row("ConstantOfShape", 20, &[0], &[1], &[0x10, 0x1fff]),
    row("ConstantOfShape", 23, &[0], &[1], &[0x10, 0x1fff]),
    row("ConstantOfShape", 24, &[0], &[1], &[0x10, 0x1fff]),
    row("Conv", 11, &[0, 0, 0], &[0], &[0x1a00]),
    row("Conv", 22, &[0, 0, 0], &[0], &[0x1e00]),
    row("ConvTranspose", 11, &[0, 0, 0], &[0], &[0x1a00]),
    row("ConvTranspose", 22, &[0, 0, 0], &[0], &[0x1e00]),
    row("Cos", 7, &[0], &[0], &[0x1a00]),
    row("Cos", 22, &[0], &[0], &[0x1e00]),
    row("Cosh", 9, &[0], &[0], &[0x1a00]),
    row("Cosh", 22, &[0], &[0], &[0x1e00]),
    row("CumSum", 14, &[0, 1], &[0], &[0x1f98, 0x18]),
    row("Div", 14, &[0, 0], &[0], &[0x1ffe]),
    row("Elu", 6, &[0], &[0], &[0x1a00]),
    row("Elu", 22, &[0], &[0], &[0x1e00]),
    row("Equal", 19, &[0, 0], &[1], &[0x1fff, 0x1]),
    row("Erf", 13, &[0], &[0], &[0x1e00]),
    row("Exp", 13, &[0], &[0], &[0x1e00]),
    row("Expand", 13, &[0, 1], &[0], &[0x1fff, 0x10]),
    row("Floor", 13, &[0], &[0], &[0x1e00]),
    row("Gather", 13, &[0, 1], &[0], &[0x1fff, 0x18]),
    row("GatherElements", 13, &[0, 1], &[0], &[0x1fff, 0x18]),
    row("GatherND", 13, &[0, 1], &[0], &[0x1fff, 0x10]),
    row("Gelu", 20, &[0], &[0], &[0x1e00]),
    row("Gemm", 13, &[0, 0, 0], &[0], &[0x1f98]),
    row("GlobalAveragePool", 1, &[0], &[0], &[0x1a00]),
    row("GlobalAveragePool", 22, &[0], &[0], &[0x1e00]),
    row("Greater", 13, &[0, 0], &[1], &[0x1ffe, 0x1]),
    row("GreaterOrEqual", 16, &[0, 0], &[1], &[0x1ffe, 0x1]),
    row("GroupNormalization", 18, &[0, 0, 0], &[0], &[0x1e00]),
    row("GroupNormalization", 21, &[0, 0, 0], &[0], &[0x1e00]),
    row("HardSigmoid", 6, &[0], &[0], &[0x1a00]),
    row("HardSigmoid", 22, &[0], &[0], &[0x1e00]),
    row("HardSwish", 14, &[0], &[0], &[0x1a00]),
    row("HardSwish", 22, &[0], &[0], &[0x1e00]),
    row("Identity", 19, &[0], &[0], &[0x1fff]),
    row("Identity", 23, &[0], &[0], &[0x1fff]),
    row("Identity", 24, &[0], &[0], &[0x1fff]),
    row("InstanceNormalization", 6, &[0, 0, 0], &[0], &[0x1a00]),
    row("InstanceNormalization", 22, &[0, 0, 0], &[0], &[0x1e00]),
    row("IsInf", 20, &[0], &[1], &[0x1e00, 0x1]),
    row("IsNaN", 20, &[0], &[1], &[0x1e00, 0x1]),
    row("LSTM", 14, &[0, 0, 0, 0, 1, 0, 0, 0], &[0, 0, 0], &[0x1a00, 0x8]),
    row("LSTM", 22, &[0, 0, 0, 0, 1, 0, 0, 0], &[0, 0, 0], &[0x1e00, 0x8]),
    row("LayerNormalization", 17, &[0, 0, 0], &[0, 1, 1], &[0x1e00, 0xc00]),
    row("LeakyRelu", 16, &[0], &[0], &[0x1e00]),
    row("Less", 13, &[0, 0], &[1], &[0x1ffe, 0x1]),
    row("LessOrEqual", 16, &[0, 0], &[1], &[0x1ffe, 0x1]),
    row("Log", 13, &[0], &[0], &[0x1e00]),
    row("LogSoftmax", 13, &[0], &[0], &[0x1e00]),
    row("MatMul", 13, &[0, 0], &[0], &[0x1f98]),
    row("Max", 13, &[0], &[0], &[0x1ffe]),
    row("MaxPool", 12, &[0], &[0, 1], &[0x1a22, 0x10]),
    row("MaxPool", 22, &[0], &[0, 1], &[0x1e22, 0x10]),
    row("Min", 13, &[0], &[0], &[0x1ffe]),
    row("Mish", 18, &[0], &[0], &[0x1a00]),
    row("Mish", 22, &[0], &[0], &[0x1e00]),
    row("Mod", 13, &[0, 0], &[0], &[0x1ffe]),
    row("Mul", 14, &[0, 0], &[0], &[0x1ffe]),
    row("Neg", 13, &[0], &[0], &[0x1e1e]),
    row("NonZero", 13, &[0], &[1], &[0x1fff, 0x10]),
    row("Not", 1, &[0], &[0], &[0x1]),
    row("Or", 7, &[0, 0], &[1], &[0x1, 0x1]),
    row("PRelu", 16, &[0, 0], &[0], &[0x1f98]),
    row("Pad", 19, &[0, 1, 0, 2], &[0], &[0x1fff, 0x10, 0x18]),
    row("Pad", 23, &[0, 1, 0, 2], &[0], &[0x1fff, 0x10, 0x18]),
    row("Pad", 24, &[0, 1, 0, 2], &[0], &[0x1fff, 0x10, 0x18]),
    row("Pow", 15, &[0, 1], &[0], &[0x1e18, 0x1ffe]),
    row("RMSNormalization", 23, &[0, 1], &[1], &[0x1e00, 0x1e00]),
    row("Range", 11, &[0, 0, 0], &[0], &[0x181c]),
    row("Reciprocal", 13, &[0], &[0], &[0x1e00]),
    row("ReduceMax", 20, &[0, 1], &[0], &[0x1fbb, 0x10]),
    row("ReduceMean", 18, &[0, 1], &[0], &[0x1f98, 0x10]),
    row("ReduceMin", 20, &[0, 1], &[0], &[0x1fbb, 0x10]),
    row("ReduceProd", 18, &[0, 1], &[0], &[0x1f98, 0x10]),
    row("ReduceSum", 13, &[0, 1], &[0], &[0x1f98, 0x10]),
    row("Relu", 14, &[0], &[0], &[0x1e1e]),
    row("Reshape", 19, &[0, 1], &[0], &[0x1fff, 0x10]),
    row("Reshape", 23, &[0, 1], &[0], &[0x1fff, 0x10]),
    row("Reshape", 24, &[0, 1], &[0], &[0x1fff, 0x10]),
    row("Resize", 19, &[0, 1, 2, 3], &[0], &[0x1fff, 0x1a00, 0x800, 0x10]),
    row("RotaryEmbedding", 23, &[0, 0, 0, 1], &[0], &[0xe00, 0x10]),
    row("Round", 11, &[0], &[0], &[0x1a00]),
    row("Round", 22, &[0], &[0], &[0x1e00]),
    row("ScatterElements", 18, &[0, 1, 0], &[0], &[0x1fff, 0x18]),
    row("ScatterND", 18, &[0, 1, 0], &[0], &[0x1fff, 0x10]),
    row("Shape", 19, &[0], &[1], &[0x1fff, 0x10]),
    row("Shape", 23, &[0], &[1], &[0x1fff, 0x10]),
    row("Shape", 24, &[0], &[1], &[0x1fff, 0x10]),
    row("Sigmoid", 13, &[0], &[0], &[0x1e00]),
    row("Sign", 13, &[0], &[0], &[0x1ffe]),
    row("Sin", 7, &[0], &[0], &[0x1a00]),
    row("Sin", 22, &[0], &[0], &[0x1e00]),
    row("Sinh", 9, &[0], &[0], &[0x1a00]),
    row("Sinh", 22, &[0], &[0], &[0x1e00]),
    row("Slice", 13, &[0, 1, 1, 1, 1], &[0], &[0x1fff, 0x18]),
    row("Softmax", 13, &[0], &[0], &[0x1e00]),
    row("Softplus", 1, &[0], &[0], &[0x1a00]),
    row("Softplus", 22, &[0], &[0], &[0x1e00]),
    row("Split", 18, &[0, 1], &[0], &[0x1fff, 0x10]),
    row("Sqrt", 13, &[0], &[0], &[0x1e00]),
    row("Squeeze", 13, &[0, 1], &[0], &[0x1fff, 0x10]),
    row("Squeeze", 23, &[0, 1], &[0], &[0x1fff, 0x10]),
    row("Squeeze", 24, &[0, 1], &[0], &[0x1fff, 0x10]),
    row("Sub", 14, &[0, 0], &[0], &[0x1ffe]),
    row("Swish", 24, &[0], &[0], &[0x1e00]),
    row("Tan", 7, &[0], &[0], &[0x1a00]),
    row("Tan", 22, &[0], &[0], &[0x1e00]),
    row("Tanh", 13, &[0], &[0], &[0x1e00]),
    row("TensorScatter", 24, &[0, 0, 1], &[0], &[0x1fff, 0x10]),
    row("Tile", 13, &[0, 1], &[0], &[0x1fff, 0x10]),
    row("TopK", 11, &[0, 1], &[0, 2], &[0x1bfe, 0x10, 0x10]),
    row("TopK", 24, &[0, 1], &[0, 2], &[0x1ffe, 0x10, 0x10]),
    row("Transpose", 13, &[0], &[0], &[0x1fff]),
    row("Transpose", 23, &[0], &[0], &[0x1fff]),
    row("Transpose", 24, &[0], &[0], &[0x1fff]),
    row("Trilu", 14, &[0, 1], &[0], &[0x1fff, 0x10]),
    row("Unsqueeze", 13, &[0, 1], &[0], &[0x1fff, 0x10]),
    row("Unsqueeze", 23, &[0, 1], &[0], &[0x1fff, 0x10]),
    row("Unsqueeze", 24, &[0, 1], &[0], &[0x1fff, 0x10]),
    row("Where", 16, &[0, 1, 1], &[1], &[0x1, 0x1fff]),
    row("Xor", 7, &[0, 0], &[1], &[0x1, 0x1]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_stand_ins() {
        let relu = schema("Relu", 20).expect("listed");
        assert!(!relu.accepts(0, DType::U8));
        assert_eq!(relu.stand_in(0, DType::U8), Some(DType::I32));
        assert!(schema("Swish", 23).is_none() && schema("Swish", 24).is_some());
        assert!(SCHEMAS.windows(2).all(|w| (w[0].op, w[0].since) < (w[1].op, w[1].since)));
    }
}
