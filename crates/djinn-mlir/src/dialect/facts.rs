//! What is known of the element types and ranks of an operation: the op table's constraints, and the results' types as
//! [`djinn_ir::infer`] gives them.

use super::relation::Operation;
use Fact::{
    AttributeIsDType, AxisOf, DType, DTypeOrBool, Rank, RankAtMost, SameDType, SameRank, SameType, SameWidth,
};
use Position::{Attribute, Operand, Result};
use djinn_ir::ops::{OpKind as K, traits};

/// Where a type or an attribute stands, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Position {
    Operand(usize),
    Result(usize),
    Attribute(usize),
}

/// Element types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    Bool,
    I64,
    Integer,
    Float,
    Numeric,
    BoolOrInteger,
}

impl Set {
    pub(super) fn has(self, dtype: djinn_ir::DType) -> bool {
        match self {
            Set::Bool => dtype == djinn_ir::DType::Bool,
            Set::I64 => dtype == djinn_ir::DType::I64,
            Set::Integer => dtype.is_int(),
            Set::Float => dtype.is_float(),
            Set::Numeric => dtype != djinn_ir::DType::Bool,
            Set::BoolOrInteger => !dtype.is_float(),
        }
    }
}

/// One thing that must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fact {
    /// The element type, or the attribute that is one, is of this set.
    DType(Position, Set),
    /// The rank is in this range, bounds included.
    Rank(Position, usize, usize),
    /// Both have one type.
    SameType(Position, Position),
    /// Both have one element type.
    SameDType(Position, Position),
    /// The elements of both have as many bits.
    SameWidth(Position, Position),
    /// The second is of bool, or has the element type of the first.
    DTypeOrBool(Position, Position),
    /// Both have one rank.
    SameRank(Position, Position),
    /// The rank of the first is not above that of the second.
    RankAtMost(Position, Position),
    /// The attribute of this number names the element type.
    AttributeIsDType(usize, Position),
    /// The attribute of this number is an axis.
    AxisOf(usize, Position),
}

/// No rank is above this; a range up to here has no upper end.
const ANY: usize = usize::MAX;

/// All facts about an operation.
pub(super) fn facts(operation: &Operation) -> Vec<Fact> {
    let mut all = Vec::new();
    for (_, text) in operation.def.constraints {
        all.extend(meaning(text, operation).unwrap_or_default());
    }
    all.extend(results(operation));
    all
}

/// What a constraint of the op table says of element types and ranks; `None` for a text that is not known here.
pub(super) fn meaning(text: &str, operation: &Operation) -> Option<Vec<Fact>> {
    let x = Operand(0);
    let axis_of = if operation.operands == 0 { Result(0) } else { x };
    let attribute = |name: &str| operation.def.attrs.iter().position(|a| a.name == name);
    let facts = match text {
        "axis is in range" => vec![AxisOf(attribute("axis")?, axis_of)],
        "dtype is not bool" => vec![DType(Attribute(attribute("dtype")?), Set::Numeric)],
        "operand is a float" => vec![DType(x, Set::Float)],
        "operand is bool or integer" => vec![DType(x, Set::BoolOrInteger)],
        "operand is numeric" => vec![DType(x, Set::Numeric)],
        "operands are numeric" => each(operation, |p| DType(p, Set::Numeric)),
        "operands have one type" => one_dtype(operation),
        "operands have one numeric type" => with(one_dtype(operation), [DType(x, Set::Numeric)]),
        "operands have one integer type" => with(one_dtype(operation), [DType(x, Set::Integer)]),
        "operands have one type, bool or integer" => {
            with(one_dtype(operation), [DType(x, Set::BoolOrInteger)])
        }
        "operands have one float type" => with(one_dtype(operation), [DType(x, Set::Float)]),
        "operands are scalars of one type" => with(one_dtype(operation), each(operation, |p| Rank(p, 0, 0))),
        "both types have the same width" => vec![SameWidth(x, Result(0))],
        "cond is bool and the others have one type" => {
            vec![DType(x, Set::Bool), SameDType(Operand(1), Operand(2))]
        }
        "low and high have rank 0" => vec![Rank(Operand(1), 0, 0), Rank(Operand(2), 0, 0)],
        "shape is an i64 vector as long as result_shape"
        | "shape is an i64 vector"
        | "repeats is an i64 vector with one entry per axis" => {
            vec![DType(Operand(1), Set::I64), Rank(Operand(1), 1, 1)]
        }
        "bounds are integer vectors as long as axes" => {
            (1..4).flat_map(|i| [DType(Operand(i), Set::Integer), Rank(Operand(i), 1, 1)]).collect()
        }
        "types agree but for the size of axis" => {
            with(one_dtype(operation), (1..operation.operands).map(|i| SameRank(x, Operand(i))))
        }
        "value is a scalar of x's type" => vec![Rank(Operand(1), 0, 0), SameDType(x, Operand(1))],
        "indices are integers" => vec![DType(Operand(1), Set::Integer)],
        "indices are integers of x's rank" => vec![DType(Operand(1), Set::Integer), SameRank(x, Operand(1))],
        "indices are integers with a constant last size" => {
            vec![DType(Operand(1), Set::Integer), Rank(Operand(1), 1, ANY)]
        }
        "updates have x's type" => vec![SameDType(x, Operand(2))],
        "updates have x's type and indices' shape"
        | "source has x's type but for the size of axis, which is index's" => {
            vec![SameDType(x, Operand(2)), SameRank(x, Operand(2))]
        }
        "index is an integer vector" => vec![DType(Operand(1), Set::Integer), Rank(Operand(1), 1, 1)],
        "rank is at least 1" => each(operation, |p| Rank(p, 1, ANY)),
        "rank is at least 2" => vec![Rank(x, 2, ANY)],
        "result_shape has rank 1" => vec![Rank(Result(0), 1, 1)],
        "result_shape has rank 2" => vec![Rank(Result(0), 2, 2)],
        "scale and bias broadcast to the normalised axes" | "scale broadcasts to the normalised axes" => {
            (1..operation.operands).map(|i| RankAtMost(Operand(i), x)).collect()
        }
        "scale and bias are [channels] of x's float type" => {
            let others = (1..3).map(|i| Rank(Operand(i), 1, 1));
            with(one_dtype(operation), others.chain([DType(x, Set::Float)]))
        }
        "the others are [channels]" => (1..5).map(|i| Rank(Operand(i), 1, 1)).collect(),
        "x and weight have one float type and rank ≥ 3" => {
            vec![DType(x, Set::Float), Rank(x, 3, ANY), SameDType(x, Operand(1)), SameRank(x, Operand(1))]
        }
        "bias is [M]" => vec![Rank(Operand(2), 1, 1)],
        "query, key and value have one float type and rank 3 or 4" => {
            let others = (1..3).flat_map(|i| [SameDType(x, Operand(i)), SameRank(x, Operand(i))]);
            with(vec![DType(x, Set::Float), Rank(x, 3, 4)], others)
        }
        "mask is bool or of the query's type and broadcasts" => {
            vec![DTypeOrBool(x, Operand(3)), Rank(Operand(3), 0, 4)]
        }
        "x has rank 3 or 4 and an even constant head width" => vec![Rank(x, 3, 4)],
        "cos and sin are [batch or 1, length, d/2]" => vec![Rank(Operand(1), 3, 3), Rank(Operand(2), 3, 3)],
        "operands have one float type and the ranks 3, 3, 3, 2, 3, 3" => {
            let ranks =
                [3, 3, 3, 2, 3, 3].into_iter().enumerate().map(|(i, rank)| Rank(Operand(i), rank, rank));
            with(one_dtype(operation), ranks.chain([DType(x, Set::Float)]))
        }
        "cond is a bool scalar" => vec![DType(x, Set::Bool), Rank(x, 0, 0)],
        "trip_count is an i64 scalar and cond a bool scalar" => {
            vec![DType(x, Set::I64), Rank(x, 0, 0), DType(Operand(1), Set::Bool), Rank(Operand(1), 0, 0)]
        }
        _ => return about_sizes(text).then(Vec::new),
    };
    Some(facts)
}

/// Is this a constraint on sizes, on the contents of lists or on regions, of which IRDL can say nothing?
fn about_sizes(text: &str) -> bool {
    const TEXTS: &[&str] = &[
        "`types` holds exactly one type with constant sizes",
        "a scalar has exactly one expression",
        "shapes broadcast",
        "the number of elements is provably the same or not comparable",
        "perm is a permutation of the axes",
        "x broadcasts to shape",
        "stride is positive",
        "0 ≤ start ≤ limit ≤ size where comparable",
        "axes are in range and distinct",
        "axes are in range, sorted and distinct",
        "at least one operand",
        "low and high have one entry per axis",
        "repeats has one entry per axis",
        "tuple length and batch_dims fit the rank",
        "groups divides the channels",
        "inner sizes agree",
        "batch axes broadcast",
        "strides, dilations and half of pads have one entry per spatial axis",
        "channels fit groups",
        "attributes have one entry per spatial axis",
        "heads divide",
        "widths and lengths agree",
        "sizes and scales have one entry per axis",
        "regions take args and give the results",
        "the region's arguments and results fit",
    ];
    TEXTS.contains(&text)
}

fn with(mut facts: Vec<Fact>, more: impl IntoIterator<Item = Fact>) -> Vec<Fact> {
    facts.extend(more);
    facts
}

fn each(operation: &Operation, fact: impl Fn(Position) -> Fact) -> Vec<Fact> {
    (0..operation.operands).map(|i| fact(Operand(i))).collect()
}

/// All operands have the element type of the first.
fn one_dtype(operation: &Operation) -> Vec<Fact> {
    (1..operation.operands).map(|i| SameDType(Operand(0), Operand(i))).collect()
}

/// What type inference says of the results' element types and ranks.
fn results(operation: &Operation) -> Vec<Fact> {
    let (x, y) = (Operand(0), Result(0));
    let attribute =
        |name: &str| operation.def.attrs.iter().position(|a| a.name == name).unwrap_or(usize::MAX);
    let same = || vec![SameType(x, y)];
    let of = |set| DType(y, set);
    let broadcast = |set: Option<Set>| {
        let element = set.map_or(SameDType(x, y), of);
        with(vec![element], (0..operation.operands).map(|i| RankAtMost(Operand(i), y)))
    };
    match operation.def.kind {
        K::IsNan | K::IsInf => vec![of(Set::Bool), SameRank(x, y)],
        K::Cast | K::BitCast => vec![AttributeIsDType(attribute("to"), y), SameRank(x, y)],
        K::Compare => broadcast(Some(Set::Bool)),
        K::Select => with(vec![SameDType(Operand(1), y)], (0..3).map(|i| RankAtMost(Operand(i), y))),
        K::Clamp | K::Reverse | K::ScatterNd | K::ScatterElements | K::IndexCopy | K::Trilu | K::CumSum => {
            same()
        }
        K::CumProd | K::Softmax | K::LogSoftmax | K::LayerNorm | K::RmsNorm | K::GroupNorm | K::BatchNorm => {
            same()
        }
        K::Rope | K::Transfer => same(),
        K::Constant | K::Weight | K::If | K::Loop | K::Call | K::Opaque => Vec::new(),
        K::DimExpr => vec![of(Set::I64), Rank(y, 0, 1)],
        K::Iota => vec![AttributeIsDType(attribute("dtype"), y)],
        K::NonZero => vec![of(Set::I64)],
        K::ArgMax | K::ArgMin => vec![of(Set::I64), RankAtMost(y, x)],
        K::ReduceSum | K::ReduceMean | K::ReduceMax | K::ReduceMin | K::ReduceProd => {
            vec![SameDType(x, y), RankAtMost(y, x)]
        }
        K::TopK => vec![SameDType(x, y), SameRank(x, y), DType(Result(1), Set::I64), SameRank(x, Result(1))],
        K::Transpose | K::Slice | K::DynamicSlice | K::Concat | K::Pad | K::DynamicPad => {
            vec![SameDType(x, y), SameRank(x, y)]
        }
        K::Tile
        | K::DynamicTile
        | K::Conv
        | K::ConvTranspose
        | K::MaxPool
        | K::AvgPool
        | K::Sdpa
        | K::Resize => {
            vec![SameDType(x, y), SameRank(x, y)]
        }
        K::GatherElements => vec![SameDType(x, y), SameRank(Operand(1), y)],
        K::Broadcast | K::DynamicBroadcast => vec![SameDType(x, y), RankAtMost(x, y)],
        K::Range | K::Reshape | K::DynamicReshape | K::Gather | K::GatherNd | K::MatMul => {
            vec![SameDType(x, y)]
        }
        K::Lstm => {
            let last = (1..3).flat_map(|i| [SameDType(x, Result(i)), Rank(Result(i), 3, 3)]);
            with(vec![SameDType(x, y), Rank(y, 4, 4)], last)
        }
        kind if kind.def().has(traits::BROADCAST) && operation.operands > 1 => broadcast(None),
        _ => same(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use djinn_ir::ops::OP_TABLE;

    /// A constraint with a new text must be given its meaning here, or be listed as one on sizes.
    #[test]
    fn every_constraint_of_the_op_table_is_understood() {
        for def in OP_TABLE {
            let operation = Operation::new(def, def.operands.len(), def.results.unwrap_or(1));
            for (label, text) in def.constraints {
                assert!(meaning(text, &operation).is_some(), "{label}: '{text}' has no meaning here");
            }
        }
    }
}
