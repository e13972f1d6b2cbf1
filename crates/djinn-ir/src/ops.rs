//! The op table: every fact about every operation stands here and only here.
//!
//! Verifier, type inference, printer, parser, evaluator, e-graph, frontends, backends and documentation read it.
//! Attributes in the table are all required: an operation always carries exactly the attributes listed for it, so
//! that two equal operations look equal. Axes are always counted from the front (0 ≤ axis < rank).

use crate::attr::AttrKind;

/// How many operands an operation takes and what they are called.
///
/// A name ending in `?` is optional (only trailing operands can be left out), one ending in `*` stands for any number.
pub type OperandNames = &'static [&'static str];

/// What an operation costs, roughly; the cost model refines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CostClass {
    /// No work at run time: constants, and views that only change the shape.
    Free,
    /// One pass over operands and result, bound by memory bandwidth.
    Elementwise,
    /// Copies data (transpose, concat, gather, …).
    Copy,
    /// One pass over the operand, smaller result.
    Reduction,
    /// A few passes over the operand (softmax, norms).
    Normalization,
    /// Multiply-accumulate work (matmul, conv, attention, recurrent cells).
    Contraction,
    /// Regions or unknown work.
    Control,
}

/// Properties that passes may rely on, as a bit set.
pub mod traits {
    /// Operands broadcast against each other; the result has the broadcast shape.
    pub const BROADCAST: u32 = 1;
    /// Swapping the two operands changes nothing.
    pub const COMMUTATIVE: u32 = 1 << 1;
    /// Applying it twice is applying it once.
    pub const IDEMPOTENT: u32 = 1 << 2;
    /// Every result element is a copy of an operand element (or of the pad value).
    pub const MOVEMENT: u32 = 1 << 3;
    /// The value depends on nothing but the operands and attributes; may be merged, moved and removed.
    pub const PURE: u32 = 1 << 4;
    /// Has a decomposition into simpler operations (`decomposition`).
    pub const COMPOSITE: u32 = 1 << 5;
    /// The result's shape depends on operand values; its `result_shape` names fresh symbols for what is unknown.
    pub const DATA_DEPENDENT: u32 = 1 << 6;
}

/// One attribute of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttrDef {
    /// Name in text form and API.
    pub name: &'static str,
    /// Which values it takes.
    pub kind: AttrKind,
}

/// One row of the op table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpDef {
    /// The operation.
    pub kind: OpKind,
    /// Name in text form, without the `djinn.` prefix.
    pub name: &'static str,
    /// What it computes.
    pub summary: &'static str,
    /// Operands.
    pub operands: OperandNames,
    /// Number of results; `None` if it varies.
    pub results: Option<usize>,
    /// Number of regions.
    pub regions: usize,
    /// Attributes, all required.
    pub attrs: &'static [AttrDef],
    /// Bit set of [`traits`].
    pub traits: u32,
    /// What it costs.
    pub cost: CostClass,
    /// The ONNX operator it corresponds to, empty if there is none.
    pub onnx: &'static str,
    /// Labelled constraints, in the order in which the verifier checks them.
    pub constraints: &'static [(&'static str, &'static str)],
}

impl OpDef {
    /// Smallest number of operands.
    pub fn min_operands(&self) -> usize {
        self.operands.iter().filter(|n| !n.ends_with('?') && !n.ends_with('*')).count()
    }

    /// Largest number of operands, `None` if there is no limit.
    pub fn max_operands(&self) -> Option<usize> {
        (!self.operands.iter().any(|n| n.ends_with('*'))).then_some(self.operands.len())
    }

    /// Does it have this trait?
    pub fn has(&self, bit: u32) -> bool {
        self.traits & bit != 0
    }
}

macro_rules! op_table {
    ($( $kind:ident $name:literal ($($operand:literal),*) -> $results:tt $([regions $regions:literal])?
        { $($attr:ident : $akind:expr),* $(,)? } $cost:ident $traits:expr, onnx $onnx:literal
        $summary:literal $( ; $label:literal $text:literal )* )*) => {
        /// Every operation of the IR.
        #[allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags, reason = "summaries are plain text: x[i] is no link")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum OpKind {
            $(#[doc = $summary] $kind,)*
        }

        /// The table, in the order of [`OpKind`].
        pub static OP_TABLE: &[OpDef] = &[$(OpDef {
            kind: OpKind::$kind,
            name: $name,
            summary: $summary,
            operands: &[$($operand),*],
            results: op_table!(@results $results),
            regions: 0 $(+ $regions)?,
            attrs: &[$(AttrDef { name: stringify!($attr), kind: $akind }),*],
            traits: $traits,
            cost: CostClass::$cost,
            onnx: $onnx,
            constraints: &[$((concat!($name, ".", $label), $text)),*],
        }),*];
    };
    (@results many) => { None };
    (@results $n:literal) => { Some($n) };
}

use AttrKind::{Bool, DType, Dim, Dims, Float, Floats, Int, Ints, Str, Tensor, Types, Word};
use traits::{BROADCAST, COMMUTATIVE, COMPOSITE, DATA_DEPENDENT, IDEMPOTENT, MOVEMENT, PURE};

/// Pure elementwise operation with broadcasting.
const EW: u32 = PURE | BROADCAST;
/// Pure data movement.
const MV: u32 = PURE | MOVEMENT;

/// Words of `compare`'s `predicate`.
pub const PREDICATES: &[&str] = &["eq", "ne", "lt", "le", "gt", "ge"];
/// Words of the scatters' `reduction`.
pub const SCATTER_REDUCTIONS: &[&str] = &["none", "add", "mul", "min", "max"];

op_table! {
    // ---- sources
    Constant "constant" () -> 1 { value: Tensor } Free PURE, onnx "Constant"
        "A literal, printed whole in the text form."
    Weight "weight" () -> 1 { name: Str, hash: Str, types: Types } Free PURE, onnx ""
        "A weight of the module's weight table by name. `types` holds its one type; `hash` is the content hash in hexadecimal, empty if the file came without values."
        ; "C1" "`types` holds exactly one type with constant sizes"
    DimExpr "dim_expr" () -> 1 { exprs: Dims, scalar: Bool } Free PURE, onnx ""
        "An i64 tensor of symbolic sizes: rank 0 if `scalar` (then `exprs` has one entry), else rank 1."
        ; "C1" "a scalar has exactly one expression"
    Iota "iota" () -> 1 { shape: Dims, axis: Int, dtype: DType } Copy PURE, onnx "Range"
        "0, 1, 2, … along `axis`, constant along the other axes, of numeric type `dtype`."
        ; "C1" "axis is in range" ; "C2" "dtype is not bool"
    Range "range" ("start", "limit", "delta") -> 1 { result_shape: Dims } Copy PURE | DATA_DEPENDENT, onnx "Range"
        "start, start + delta, … below limit: ONNX Range over scalars whose values are not known at compile time."
        ; "C1" "operands are scalars of one type" ; "C2" "result_shape has rank 1"

    // ---- elementwise, one operand
    Abs "abs" ("x") -> 1 {} Elementwise EW | IDEMPOTENT, onnx "Abs" "Absolute value."
    Neg "neg" ("x") -> 1 {} Elementwise EW, onnx "Neg" "Negation; wraps for integers."
    Sign "sign" ("x") -> 1 {} Elementwise EW | IDEMPOTENT, onnx "Sign" "−1, 0 or 1; NaN stays NaN."
    Exp "exp" ("x") -> 1 {} Elementwise EW, onnx "Exp" "e to the x." ; "C1" "operand is a float"
    Log "log" ("x") -> 1 {} Elementwise EW, onnx "Log" "Natural logarithm." ; "C1" "operand is a float"
    Sqrt "sqrt" ("x") -> 1 {} Elementwise EW, onnx "Sqrt" "Square root." ; "C1" "operand is a float"
    Rsqrt "rsqrt" ("x") -> 1 {} Elementwise EW, onnx "" "1/√x." ; "C1" "operand is a float"
    Reciprocal "reciprocal" ("x") -> 1 {} Elementwise EW, onnx "Reciprocal" "1/x." ; "C1" "operand is a float"
    Sin "sin" ("x") -> 1 {} Elementwise EW, onnx "Sin" "Sine." ; "C1" "operand is a float"
    Cos "cos" ("x") -> 1 {} Elementwise EW, onnx "Cos" "Cosine." ; "C1" "operand is a float"
    Tan "tan" ("x") -> 1 {} Elementwise EW, onnx "Tan" "Tangent." ; "C1" "operand is a float"
    Asin "asin" ("x") -> 1 {} Elementwise EW, onnx "Asin" "Inverse sine." ; "C1" "operand is a float"
    Acos "acos" ("x") -> 1 {} Elementwise EW, onnx "Acos" "Inverse cosine." ; "C1" "operand is a float"
    Atan "atan" ("x") -> 1 {} Elementwise EW, onnx "Atan" "Inverse tangent." ; "C1" "operand is a float"
    Sinh "sinh" ("x") -> 1 {} Elementwise EW, onnx "Sinh" "Hyperbolic sine." ; "C1" "operand is a float"
    Cosh "cosh" ("x") -> 1 {} Elementwise EW, onnx "Cosh" "Hyperbolic cosine." ; "C1" "operand is a float"
    Tanh "tanh" ("x") -> 1 {} Elementwise EW, onnx "Tanh" "Hyperbolic tangent." ; "C1" "operand is a float"
    Asinh "asinh" ("x") -> 1 {} Elementwise EW, onnx "Asinh" "Inverse hyperbolic sine." ; "C1" "operand is a float"
    Acosh "acosh" ("x") -> 1 {} Elementwise EW, onnx "Acosh" "Inverse hyperbolic cosine." ; "C1" "operand is a float"
    Atanh "atanh" ("x") -> 1 {} Elementwise EW, onnx "Atanh" "Inverse hyperbolic tangent." ; "C1" "operand is a float"
    Erf "erf" ("x") -> 1 {} Elementwise EW, onnx "Erf" "Error function." ; "C1" "operand is a float"
    Sigmoid "sigmoid" ("x") -> 1 {} Elementwise EW, onnx "Sigmoid" "1/(1 + e⁻ˣ)." ; "C1" "operand is a float"
    Softplus "softplus" ("x") -> 1 {} Elementwise EW, onnx "Softplus" "log(1 + eˣ), without overflow for large x." ; "C1" "operand is a float"
    Relu "relu" ("x") -> 1 {} Elementwise EW | IDEMPOTENT, onnx "Relu" "max(x, 0); NaN stays NaN."
    LeakyRelu "leaky_relu" ("x") -> 1 { alpha: Float } Elementwise EW, onnx "LeakyRelu" "x for x ≥ 0, else alpha·x." ; "C1" "operand is a float"
    Elu "elu" ("x") -> 1 { alpha: Float } Elementwise EW, onnx "Elu" "x for x ≥ 0, else alpha·(eˣ − 1)." ; "C1" "operand is a float"
    Silu "silu" ("x") -> 1 {} Elementwise EW | COMPOSITE, onnx "Swish" "x·sigmoid(x)." ; "C1" "operand is a float"
    Gelu "gelu" ("x") -> 1 { approximate: Word(&["none", "tanh"]) } Elementwise EW | COMPOSITE, onnx "Gelu"
        "none: ½x(1 + erf(x/√2)); tanh: ½x(1 + tanh(√(2/π)(x + 0.044715x³)))." ; "C1" "operand is a float"
    HardSigmoid "hard_sigmoid" ("x") -> 1 { alpha: Float, beta: Float } Elementwise EW, onnx "HardSigmoid"
        "max(0, min(1, alpha·x + beta))." ; "C1" "operand is a float"
    HardSwish "hard_swish" ("x") -> 1 {} Elementwise EW | COMPOSITE, onnx "HardSwish" "x·max(0, min(1, x/6 + ½))." ; "C1" "operand is a float"
    Mish "mish" ("x") -> 1 {} Elementwise EW | COMPOSITE, onnx "Mish" "x·tanh(softplus(x))." ; "C1" "operand is a float"
    Floor "floor" ("x") -> 1 {} Elementwise EW | IDEMPOTENT, onnx "Floor" "Largest integer not above x." ; "C1" "operand is a float"
    Ceil "ceil" ("x") -> 1 {} Elementwise EW | IDEMPOTENT, onnx "Ceil" "Smallest integer not below x." ; "C1" "operand is a float"
    Round "round" ("x") -> 1 {} Elementwise EW | IDEMPOTENT, onnx "Round" "Nearest integer, halves to even." ; "C1" "operand is a float"
    IsNan "is_nan" ("x") -> 1 {} Elementwise EW, onnx "IsNaN" "Is the element NaN? Gives bool." ; "C1" "operand is a float"
    IsInf "is_inf" ("x") -> 1 { negative: Bool, positive: Bool } Elementwise EW, onnx "IsInf"
        "Is the element −∞ (if `negative`) or +∞ (if `positive`)? Gives bool." ; "C1" "operand is a float"
    Not "not" ("x") -> 1 {} Elementwise EW, onnx "Not" "Logical for bool, bitwise for integers." ; "C1" "operand is bool or integer"
    Cast "cast" ("x") -> 1 { to: DType } Elementwise EW, onnx "Cast"
        "Conversion. Float to integer truncates towards zero and saturates (NaN gives 0); integer to narrower integer wraps; to bool is x ≠ 0; float to narrower float rounds to nearest even."
    BitCast "bit_cast" ("x") -> 1 { to: DType } Elementwise EW, onnx "BitCast" "The same bits read as another type of the same width."
        ; "C1" "both types have the same width"

    // ---- elementwise, several operands (numpy broadcasting, one element type unless said otherwise)
    Add "add" ("a", "b") -> 1 {} Elementwise EW | COMMUTATIVE, onnx "Add" "Sum; wraps for integers." ; "C1" "operands have one numeric type" ; "C2" "shapes broadcast"
    Sub "sub" ("a", "b") -> 1 {} Elementwise EW, onnx "Sub" "Difference; wraps for integers." ; "C1" "operands have one numeric type" ; "C2" "shapes broadcast"
    Mul "mul" ("a", "b") -> 1 {} Elementwise EW | COMMUTATIVE, onnx "Mul" "Product; wraps for integers." ; "C1" "operands have one numeric type" ; "C2" "shapes broadcast"
    Div "div" ("a", "b") -> 1 {} Elementwise EW, onnx "Div" "Quotient; integers truncate towards zero, and division by zero gives 0." ; "C1" "operands have one numeric type" ; "C2" "shapes broadcast"
    Mod "mod" ("a", "b") -> 1 { fmod: Bool } Elementwise EW, onnx "Mod" "Remainder with the sign of b (`fmod` false) or of a (`fmod` true); integer remainder by zero is 0." ; "C1" "operands have one numeric type" ; "C2" "shapes broadcast"
    Pow "pow" ("a", "b") -> 1 {} Elementwise EW, onnx "Pow" "a to the b, in a's type; the exponent may be of another numeric type." ; "C1" "operands are numeric" ; "C2" "shapes broadcast"
    Min "min" ("a", "b") -> 1 {} Elementwise EW | COMMUTATIVE, onnx "Min" "Smaller of the two; NaN if either is." ; "C1" "operands have one type" ; "C2" "shapes broadcast"
    Max "max" ("a", "b") -> 1 {} Elementwise EW | COMMUTATIVE, onnx "Max" "Larger of the two; NaN if either is." ; "C1" "operands have one type" ; "C2" "shapes broadcast"
    And "and" ("a", "b") -> 1 {} Elementwise EW | COMMUTATIVE, onnx "And" "Logical for bool, bitwise for integers." ; "C1" "operands have one type, bool or integer" ; "C2" "shapes broadcast"
    Or "or" ("a", "b") -> 1 {} Elementwise EW | COMMUTATIVE, onnx "Or" "Logical for bool, bitwise for integers." ; "C1" "operands have one type, bool or integer" ; "C2" "shapes broadcast"
    Xor "xor" ("a", "b") -> 1 {} Elementwise EW | COMMUTATIVE, onnx "Xor" "Logical for bool, bitwise for integers." ; "C1" "operands have one type, bool or integer" ; "C2" "shapes broadcast"
    Shl "shl" ("a", "b") -> 1 {} Elementwise EW, onnx "BitShift" "Left shift; 0 where the shift reaches the width." ; "C1" "operands have one integer type" ; "C2" "shapes broadcast"
    Shr "shr" ("a", "b") -> 1 {} Elementwise EW, onnx "BitShift" "Right shift, arithmetic for signed types." ; "C1" "operands have one integer type" ; "C2" "shapes broadcast"
    Compare "compare" ("a", "b") -> 1 { predicate: Word(PREDICATES) } Elementwise EW, onnx "" "Comparison, gives bool; every predicate but `ne` is false on NaN." ; "C1" "operands have one type" ; "C2" "shapes broadcast"
    Select "select" ("cond", "a", "b") -> 1 {} Elementwise EW, onnx "Where" "a where cond, else b." ; "C1" "cond is bool and the others have one type" ; "C2" "shapes broadcast"
    Clamp "clamp" ("x", "low", "high") -> 1 {} Elementwise EW, onnx "Clip" "min(max(x, low), high); low and high are scalars." ; "C1" "operands have one numeric type" ; "C2" "low and high have rank 0"

    // ---- movement
    Reshape "reshape" ("x") -> 1 { shape: Dims } Free MV, onnx "Reshape" "The elements in row-major order under another shape." ; "C1" "the number of elements is provably the same or not comparable"
    DynamicReshape "dynamic_reshape" ("x", "shape") -> 1 { result_shape: Dims, allow_zero: Bool } Free MV | DATA_DEPENDENT, onnx "Reshape" "Reshape to a size given at run time, with ONNX's meaning of −1, and of 0 (copy the size, unless `allow_zero`)." ; "C1" "shape is an i64 vector as long as result_shape"
    Transpose "transpose" ("x") -> 1 { perm: Ints } Copy MV, onnx "Transpose" "Result axis i is operand axis perm[i]." ; "C1" "perm is a permutation of the axes"
    Broadcast "broadcast" ("x") -> 1 { shape: Dims } Copy MV, onnx "Expand" "Numpy broadcast of x to exactly `shape`." ; "C1" "x broadcasts to shape"
    DynamicBroadcast "dynamic_broadcast" ("x", "shape") -> 1 { result_shape: Dims } Copy MV | DATA_DEPENDENT, onnx "Expand" "Numpy broadcast of x against a shape given at run time (ONNX Expand: two-way)." ; "C1" "shape is an i64 vector"
    Slice "slice" ("x") -> 1 { axis: Int, start: Dim, limit: Dim, stride: Int } Copy MV, onnx "Slice" "Elements start, start + stride, … below limit along one axis; 0 ≤ start ≤ limit ≤ size, stride ≥ 1." ; "C1" "axis is in range" ; "C2" "stride is positive" ; "C3" "0 ≤ start ≤ limit ≤ size where comparable"
    DynamicSlice "dynamic_slice" ("x", "starts", "limits", "strides") -> 1 { axes: Ints, result_shape: Dims } Copy MV | DATA_DEPENDENT, onnx "Slice" "ONNX Slice with bounds given at run time: negative counts from the end, out of range clamps, negative strides go backwards." ; "C1" "axes are in range and distinct" ; "C2" "bounds are integer vectors as long as axes"
    Reverse "reverse" ("x") -> 1 { axes: Ints } Copy MV, onnx "Slice" "Reverses the order along `axes`." ; "C1" "axes are in range and distinct"
    Concat "concat" ("inputs*") -> 1 { axis: Int } Copy MV, onnx "Concat" "Joins at least one operand along `axis`." ; "C1" "at least one operand" ; "C2" "axis is in range" ; "C3" "types agree but for the size of axis"
    Pad "pad" ("x", "value") -> 1 { low: Dims, high: Dims, mode: Word(&["constant", "reflect", "edge", "wrap"]) } Copy MV, onnx "Pad" "Adds low[i] elements before and high[i] after axis i (negative removes); `value` is a scalar, used in mode constant." ; "C1" "low and high have one entry per axis" ; "C2" "value is a scalar of x's type"
    DynamicPad "dynamic_pad" ("x", "pads", "value") -> 1 { axes: Ints, mode: Word(&["constant", "reflect", "edge", "wrap"]), result_shape: Dims } Copy MV | DATA_DEPENDENT, onnx "Pad" "Pad with amounts given at run time: all lows, then all highs, for `axes`." ; "C1" "axes are in range and distinct"
    Tile "tile" ("x") -> 1 { repeats: Dims } Copy MV, onnx "Tile" "Repeats the whole of axis i repeats[i] times." ; "C1" "repeats has one entry per axis"
    DynamicTile "dynamic_tile" ("x", "repeats") -> 1 { result_shape: Dims } Copy MV | DATA_DEPENDENT, onnx "Tile" "Tile with repeats given at run time." ; "C1" "repeats is an i64 vector with one entry per axis"
    Gather "gather" ("x", "indices") -> 1 { axis: Int } Copy MV, onnx "Gather" "ONNX Gather: result shape is x[:axis] ++ indices ++ x[axis+1:]; negative indices count from the end." ; "C1" "axis is in range" ; "C2" "indices are integers"
    GatherElements "gather_elements" ("x", "indices") -> 1 { axis: Int } Copy MV, onnx "GatherElements" "result[i][j] = x[indices[i][j]][j] for axis 0." ; "C1" "axis is in range" ; "C2" "indices are integers of x's rank"
    GatherNd "gather_nd" ("x", "indices") -> 1 { batch_dims: Int } Copy MV, onnx "GatherND" "The last axis of indices holds index tuples into x after `batch_dims` common axes." ; "C1" "indices are integers with a constant last size" ; "C2" "tuple length and batch_dims fit the rank"
    ScatterNd "scatter_nd" ("x", "indices", "updates") -> 1 { reduction: Word(SCATTER_REDUCTIONS) } Copy PURE, onnx "ScatterND" "x with the slices at the index tuples replaced by, or combined with, updates; the last of equal tuples wins." ; "C1" "indices are integers with a constant last size" ; "C2" "updates have x's type"
    ScatterElements "scatter_elements" ("x", "indices", "updates") -> 1 { axis: Int, reduction: Word(SCATTER_REDUCTIONS) } Copy PURE, onnx "ScatterElements" "x with x[indices[i][j]][j] = updates[i][j] for axis 0." ; "C1" "axis is in range" ; "C2" "indices are integers of x's rank" ; "C3" "updates have x's type and indices' shape"
    IndexCopy "index_copy" ("x", "index", "source") -> 1 { axis: Int } Copy PURE, onnx "" "x with slice index[i] along axis replaced by slice i of source: the write of a KV cache." ; "C1" "axis is in range" ; "C2" "index is an integer vector" ; "C3" "source has x's type but for the size of axis, which is index's"
    Trilu "trilu" ("x") -> 1 { upper: Bool, k: Int } Copy PURE | IDEMPOTENT, onnx "Trilu" "Keeps j − i ≥ k (`upper`) or ≤ k of the last two axes, zero elsewhere." ; "C1" "rank is at least 2"
    NonZero "nonzero" ("x") -> 1 { result_shape: Dims } Copy PURE | DATA_DEPENDENT, onnx "NonZero" "Positions of the elements that are not zero, i64 [rank, n]." ; "C1" "result_shape has rank 2"

    // ---- reductions: `axes` sorted and distinct; `keepdims` leaves size 1
    ReduceSum "reduce_sum" ("x") -> 1 { axes: Ints, keepdims: Bool } Reduction PURE, onnx "ReduceSum" "Sum over axes; 0 over nothing." ; "C1" "axes are in range, sorted and distinct" ; "C2" "operand is numeric"
    ReduceMean "reduce_mean" ("x") -> 1 { axes: Ints, keepdims: Bool } Reduction PURE, onnx "ReduceMean" "Mean over axes; integers truncate." ; "C1" "axes are in range, sorted and distinct" ; "C2" "operand is numeric"
    ReduceMax "reduce_max" ("x") -> 1 { axes: Ints, keepdims: Bool } Reduction PURE, onnx "ReduceMax" "Largest over axes (any, for bool); NaN if there is one; the type's lowest value over nothing." ; "C1" "axes are in range, sorted and distinct"
    ReduceMin "reduce_min" ("x") -> 1 { axes: Ints, keepdims: Bool } Reduction PURE, onnx "ReduceMin" "Smallest over axes (all, for bool); NaN if there is one; the type's highest value over nothing." ; "C1" "axes are in range, sorted and distinct"
    ReduceProd "reduce_prod" ("x") -> 1 { axes: Ints, keepdims: Bool } Reduction PURE, onnx "ReduceProd" "Product over axes; 1 over nothing." ; "C1" "axes are in range, sorted and distinct" ; "C2" "operand is numeric"
    ArgMax "argmax" ("x") -> 1 { axis: Int, keepdims: Bool, select_last: Bool } Reduction PURE, onnx "ArgMax" "i64 position of the largest element; the first (or last) of equals; NaN counts as largest." ; "C1" "axis is in range"
    ArgMin "argmin" ("x") -> 1 { axis: Int, keepdims: Bool, select_last: Bool } Reduction PURE, onnx "ArgMin" "i64 position of the smallest element; the first (or last) of equals; NaN counts as smallest." ; "C1" "axis is in range"
    CumSum "cumsum" ("x") -> 1 { axis: Int, exclusive: Bool, reverse: Bool } Reduction PURE, onnx "CumSum" "Running sum along an axis." ; "C1" "axis is in range"
    CumProd "cumprod" ("x") -> 1 { axis: Int, exclusive: Bool, reverse: Bool } Reduction PURE, onnx "CumProd" "Running product along an axis." ; "C1" "axis is in range"
    TopK "topk" ("x") -> 2 { axis: Int, k: Dim, largest: Bool, sorted: Bool } Reduction PURE, onnx "TopK" "The k largest (or smallest) along an axis, in order, and their i64 positions; the first of equals wins." ; "C1" "axis is in range"

    // ---- normalisations
    Softmax "softmax" ("x") -> 1 { axis: Int } Normalization PURE | COMPOSITE, onnx "Softmax" "exp(x − max)/Σ along one axis." ; "C1" "axis is in range" ; "C2" "operand is a float"
    LogSoftmax "log_softmax" ("x") -> 1 { axis: Int } Normalization PURE | COMPOSITE, onnx "LogSoftmax" "log of softmax, without overflow." ; "C1" "axis is in range" ; "C2" "operand is a float"
    LayerNorm "layer_norm" ("x", "scale", "bias?") -> 1 { axis: Int, epsilon: Float } Normalization PURE | COMPOSITE, onnx "LayerNormalization" "(x − mean)/√(var + ε)·scale + bias over the axes from `axis` on; scale and bias broadcast to them. Statistics in f32 or wider." ; "C1" "axis is in range" ; "C2" "operands have one float type" ; "C3" "scale and bias broadcast to the normalised axes"
    RmsNorm "rms_norm" ("x", "scale") -> 1 { axis: Int, epsilon: Float } Normalization PURE | COMPOSITE, onnx "RMSNormalization" "x/√(mean(x²) + ε)·scale over the axes from `axis` on. Statistics in f32 or wider." ; "C1" "axis is in range" ; "C2" "operands have one float type" ; "C3" "scale broadcasts to the normalised axes"
    GroupNorm "group_norm" ("x", "scale", "bias") -> 1 { groups: Int, epsilon: Float } Normalization PURE | COMPOSITE, onnx "GroupNormalization" "Channels (axis 1) in `groups` groups, each normalised over its channels and all later axes; scale and bias [channels]. One channel a group is instance normalisation." ; "C1" "rank is at least 2" ; "C2" "groups divides the channels" ; "C3" "scale and bias are [channels] of x's float type"
    BatchNorm "batch_norm" ("x", "scale", "bias", "mean", "var") -> 1 { epsilon: Float } Normalization PURE | COMPOSITE, onnx "BatchNormalization" "(x − mean)/√(var + ε)·scale + bias per channel (axis 1), with given statistics." ; "C1" "rank is at least 2" ; "C2" "the others are [channels]"

    // ---- contractions
    MatMul "matmul" ("a", "b") -> 1 {} Contraction PURE, onnx "MatMul" "numpy matmul: last two axes contracted, leading axes broadcast; rank 1 is a row (a) or column (b) whose axis is dropped." ; "C1" "operands have one numeric type" ; "C2" "rank is at least 1" ; "C3" "inner sizes agree" ; "C4" "batch axes broadcast"
    Conv "conv" ("x", "weight", "bias?") -> 1 { strides: Ints, pads: Ints, dilations: Ints, groups: Int } Contraction PURE, onnx "Conv" "N-dimensional cross-correlation. x [N, C, spatial…], weight [M, C/groups, kernel…], bias [M]; pads: all lows, then all highs." ; "C1" "x and weight have one float type and rank ≥ 3" ; "C2" "strides, dilations and half of pads have one entry per spatial axis" ; "C3" "channels fit groups" ; "C4" "bias is [M]"
    ConvTranspose "conv_transpose" ("x", "weight", "bias?") -> 1 { strides: Ints, pads: Ints, dilations: Ints, output_padding: Ints, groups: Int } Contraction PURE, onnx "ConvTranspose" "Transposed convolution. weight [C, M/groups, kernel…]." ; "C1" "x and weight have one float type and rank ≥ 3" ; "C2" "attributes have one entry per spatial axis" ; "C3" "channels fit groups" ; "C4" "bias is [M]"
    MaxPool "max_pool" ("x") -> 1 { kernel: Ints, strides: Ints, pads: Ints, dilations: Ints, ceil_mode: Bool } Reduction PURE, onnx "MaxPool" "Largest in each window; padding counts as −∞." ; "C1" "attributes have one entry per spatial axis"
    AvgPool "avg_pool" ("x") -> 1 { kernel: Ints, strides: Ints, pads: Ints, dilations: Ints, ceil_mode: Bool, count_include_pad: Bool } Reduction PURE, onnx "AveragePool" "Mean of each window; padding counts as zeros if `count_include_pad`, else not at all." ; "C1" "attributes have one entry per spatial axis"
    Sdpa "sdpa" ("query", "key", "value", "mask?") -> 1 { scale: Float, causal: Bool, causal_offset: Dim, query_heads: Int, kv_heads: Int } Contraction PURE | COMPOSITE, onnx "Attention" "softmax(scale·Q·Kᵀ + mask)·V. Rank 4: [batch, heads, length, width]; rank 3: [batch, length, heads·width] with `query_heads` and `kv_heads` (0 for rank 4). Each key/value head serves query_heads/kv_heads consecutive query heads. mask: bool (true = attend) or of Q's type (added), broadcast to [batch, heads, queries, keys]. `causal`: key j is seen by query i if j ≤ i + causal_offset. A query that sees no key (all masked by false or −∞) gives zeros." ; "C1" "query, key and value have one float type and rank 3 or 4" ; "C2" "heads divide" ; "C3" "widths and lengths agree" ; "C4" "mask is bool or of the query's type and broadcasts"
    Rope "rope" ("x", "cos", "sin") -> 1 { interleaved: Bool, heads: Int } Elementwise PURE | COMPOSITE, onnx "RotaryEmbedding" "Rotary position embedding over the whole head width d. x: rank 4 [batch, heads, length, d] (heads = 0) or rank 3 [batch, length, heads·d]; cos, sin: [batch or 1, length, d/2]. Halves (x1, x2) of the width, or even and odd elements if `interleaved`, become (x1·cos − x2·sin, x2·cos + x1·sin)." ; "C1" "operands have one float type" ; "C2" "x has rank 3 or 4 and an even constant head width" ; "C3" "cos and sin are [batch or 1, length, d/2]"
    Lstm "lstm" ("x", "w", "r", "b", "h0", "c0") -> 3 { direction: Word(&["forward", "reverse", "bidirectional"]), hidden: Int } Contraction PURE, onnx "LSTM" "ONNX LSTM with default activations and layout 0: x [T, B, I], w [D, 4H, I], r [D, 4H, H], b [D, 8H], h0 and c0 [D, B, H]; gates in the order i, o, f, c. Gives Y [T, D, B, H], last h and last c [D, B, H]." ; "C1" "operands have one float type and the ranks 3, 3, 3, 2, 3, 3"
    Resize "resize" ("x") -> 1 { sizes: Dims, scales: Floats, mode: Word(&["nearest", "linear", "cubic"]), coordinates: Word(&["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"]), nearest: Word(&["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]), cubic_a: Float, exclude_outside: Bool } Copy PURE, onnx "Resize" "Interpolation as ONNX Resize without antialiasing: result shape is `sizes`, coordinates map by `scales` (both one entry per axis)." ; "C1" "sizes and scales have one entry per axis"

    // ---- control flow and the rest: regions see nothing but their own arguments
    If "if" ("cond", "args*") -> many [regions 2] {} Control PURE, onnx "If" "Runs the first region if the bool scalar cond is true, else the second, on args." ; "C1" "cond is a bool scalar" ; "C2" "regions take args and give the results"
    Loop "loop" ("trip_count", "cond", "args*") -> many [regions 1] { carried: Int, types: Types } Control PURE | DATA_DEPENDENT, onnx "Loop" "ONNX Loop. args: the first `carried` are loop-carried, the rest invariant. The region takes (iteration i64, cond, carried…, invariant…) and gives (cond, carried…, scanned…). Results: carried…, then each scanned value stacked along a new axis 0. `types` are the result types." ; "C1" "trip_count is an i64 scalar and cond a bool scalar" ; "C2" "the region's arguments and results fit"
    Transfer "transfer" ("x") -> 1 { device: Str } Copy PURE, onnx "Identity" "The operand, copied to the device of this name: one of the topology, or `host`."
    Call "call" ("args*") -> many { callee: Str, types: Types } Control 0, onnx "" "The results, of these `types`, of the private function `callee` of the module on args."
    Opaque "opaque" ("args*") -> many { op: Str, payload: Str, types: Types } Control 0, onnx "" "An operation that Djinn does not know, kept with its name, an uninterpreted payload (its attributes as text) and the result types that the file gave. Never moved, merged or removed while its results are used."
}

impl OpKind {
    /// The row of this operation.
    pub fn def(self) -> &'static OpDef {
        &OP_TABLE[self as usize]
    }

    /// Name in text form, without the `djinn.` prefix.
    pub fn name(self) -> &'static str {
        self.def().name
    }

    /// The operation of this name.
    pub fn from_name(name: &str) -> Option<OpKind> {
        OP_TABLE.iter().find(|d| d.name == name).map(|d| d.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_consistent() {
        for (i, def) in OP_TABLE.iter().enumerate() {
            assert_eq!(def.kind as usize, i);
            assert_eq!(OpKind::from_name(def.name), Some(def.kind));
            let mut seen_optional = false;
            for (n, name) in def.operands.iter().enumerate() {
                let optional = name.ends_with('?');
                assert!(optional || !seen_optional, "{}: required operand after an optional one", def.name);
                assert!(
                    !name.ends_with('*') || n + 1 == def.operands.len(),
                    "{}: variadic not last",
                    def.name
                );
                seen_optional |= optional;
            }
            for label in def.constraints {
                assert!(label.0.starts_with(def.name));
            }
        }
    }
}
