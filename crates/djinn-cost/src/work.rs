//! The work of an operation: multiply-accumulate operations, bytes, elements and launches.
//!
//! One description serves numbers and symbolic sizes: [`Sizes`] says what a quantity is.

use djinn_device::{OpClass, Precision};
use djinn_ir::ops::CostClass;
use djinn_ir::{Attrs, DType, Dim, OpKind, TensorType};

/// The share of a launch that a pure shape change costs: no kernel, but a node that the executor visits.
const VIEW_SHARE: f64 = 0.1;

/// The share of a launch that one slice costs: slices that together partition an axis become one split.
const SLICE_SHARE: f64 = 0.3;

/// What an operation asks of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Work<Q> {
    /// Multiply-accumulate operations, a multiplication and an addition counting two; 0 for all other work.
    pub flops: Q,
    /// Bytes read.
    pub bytes_read: Q,
    /// Bytes written.
    pub bytes_written: Q,
    /// Elements worked on: of the operand where an operation reduces it, what is gathered for a convolution, the
    /// scores of an attention, the pieces that are moved whole by data movement, else the elements of the results.
    pub elements: Q,
    /// Bytes of 16-bit floats read or written that have to be converted to be computed on.
    pub half_bytes: Q,
    /// Kernels launched: 1, less for views and slices, 0 for nothing to do at run time.
    pub launches: f64,
    /// How often the operation goes over its data.
    pub passes: f64,
}

/// What a quantity is: numbers, or symbolic sizes.
pub(crate) trait Sizes {
    /// Products of sizes.
    type Quantity: Clone;
    fn size(&self, dim: &Dim) -> Self::Quantity;
    fn constant(&self, value: i64) -> Self::Quantity;
    fn add(&self, a: &Self::Quantity, b: &Self::Quantity) -> Self::Quantity;
    fn mul(&self, a: &Self::Quantity, b: &Self::Quantity) -> Self::Quantity;

    fn product<'a>(&self, dims: impl IntoIterator<Item = &'a Dim>) -> Self::Quantity {
        dims.into_iter().fold(self.constant(1), |p, d| self.mul(&p, &self.size(d)))
    }

    fn elements(&self, ty: &TensorType) -> Self::Quantity {
        self.product(&ty.shape)
    }

    fn bytes(&self, ty: &TensorType) -> Self::Quantity {
        self.mul(&self.elements(ty), &self.constant(ty.dtype.size() as i64))
    }

    fn sum(&self, terms: impl IntoIterator<Item = Self::Quantity>) -> Self::Quantity {
        terms.into_iter().fold(self.constant(0), |s, t| self.add(&s, &t))
    }
}

/// Symbolic sizes.
pub(crate) struct Symbolic;

impl Sizes for Symbolic {
    type Quantity = Dim;

    fn size(&self, dim: &Dim) -> Dim {
        dim.clone()
    }

    fn constant(&self, value: i64) -> Dim {
        Dim::from(value)
    }

    fn add(&self, a: &Dim, b: &Dim) -> Dim {
        a + b
    }

    fn mul(&self, a: &Dim, b: &Dim) -> Dim {
        a * b
    }
}

/// The class of an operation's work, `None` if there is no work at run time.
pub fn op_class(kind: OpKind) -> Option<OpClass> {
    match kind.def().cost {
        CostClass::Free => None,
        CostClass::Elementwise => Some(OpClass::Elementwise),
        CostClass::Copy => Some(OpClass::Copy),
        CostClass::Reduction => Some(OpClass::Reduction),
        CostClass::Normalization => Some(OpClass::Normalization),
        CostClass::Contraction => Some(OpClass::Contraction),
        CostClass::Control => Some(OpClass::Control),
    }
}

/// The precision in which multiply-accumulate work on this element type is done.
pub fn precision(dtype: DType) -> Precision {
    match dtype {
        DType::F64 => Precision::F64,
        DType::F32 => Precision::F32,
        DType::F16 => Precision::F16,
        DType::BF16 => Precision::Bf16,
        DType::I8 | DType::U8 | DType::Bool => Precision::I8,
        DType::I16 | DType::I32 | DType::I64 | DType::U16 | DType::U32 | DType::U64 => Precision::F32,
    }
}

/// Does the operation touch only as much of its first operand as it gives, and little else?
pub(crate) fn reads_what_it_gives(kind: OpKind) -> bool {
    matches!(kind, OpKind::Gather | OpKind::GatherNd | OpKind::GatherElements | OpKind::Slice)
}

/// The work of one operation. Attributes refine it where they are given; types must have passed the verifier.
pub(crate) fn work<S: Sizes>(
    sizes: &S,
    kind: OpKind,
    attrs: &Attrs,
    operands: &[&TensorType],
    results: &[TensorType],
) -> Work<S::Quantity> {
    let bytes_written = sizes.sum(results.iter().map(|t| sizes.bytes(t)));
    let bytes_read = if reads_what_it_gives(kind) {
        bytes_written.clone()
    } else {
        sizes.sum(operands.iter().map(|t| sizes.bytes(t)))
    };
    Work {
        flops: flops(sizes, kind, operands, results),
        bytes_read,
        bytes_written,
        elements: elements(sizes, kind, attrs, operands, results),
        half_bytes: half_bytes(sizes, kind, operands, results),
        launches: launches(kind),
        passes: if kind.def().cost == CostClass::Normalization { 1.5 } else { 1.0 },
    }
}

/// Kernels launched. Elementwise operations with iterative instruction sequences cost a little more, to break ties.
fn launches(kind: OpKind) -> f64 {
    match kind {
        OpKind::Pow => 1.02,
        OpKind::Div | OpKind::Mod => 1.01,
        OpKind::Slice => SLICE_SHARE,
        OpKind::Reshape | OpKind::DynamicReshape => VIEW_SHARE,
        _ if kind.def().cost == CostClass::Free => 0.0,
        _ => 1.0,
    }
}

/// Multiply-accumulate operations.
pub(crate) fn flops<S: Sizes>(
    sizes: &S,
    kind: OpKind,
    operands: &[&TensorType],
    results: &[TensorType],
) -> S::Quantity {
    let size = |operand: usize, from_end: usize| {
        let shape = operands.get(operand).map_or(&[][..], |t| &t.shape);
        shape
            .len()
            .checked_sub(from_end)
            .and_then(|i| shape.get(i))
            .map_or(sizes.constant(1), |d| sizes.size(d))
    };
    let tail = |operand: usize| {
        let shape = operands.get(operand).map_or(&[][..], |t| &t.shape);
        sizes.product(shape.get(1..).unwrap_or(&[]))
    };
    let all = |t: Option<&TensorType>| t.map_or(sizes.constant(0), |t| sizes.elements(t));
    let times =
        |factor: i64, a: S::Quantity, b: S::Quantity| sizes.mul(&sizes.mul(&sizes.constant(factor), &a), &b);
    match kind {
        OpKind::MatMul => times(2, all(results.first()), size(0, 1)),
        OpKind::Conv => times(2, all(results.first()), tail(1)),
        OpKind::ConvTranspose => times(2, all(operands.first().copied()), tail(1)),
        // Q·Kᵀ and probabilities·V, each two operations per query element and key.
        OpKind::Sdpa => times(4, all(operands.first().copied()), size(1, 2)),
        OpKind::Lstm => {
            let weights = sizes.sum(operands.get(1..3).unwrap_or(&[]).iter().map(|t| sizes.elements(t)));
            let steps = sizes.product(operands[0].shape.get(..2).unwrap_or(&[]));
            times(2, weights, steps)
        }
        _ => sizes.constant(0),
    }
}

fn half_bytes<S: Sizes>(
    sizes: &S,
    kind: OpKind,
    operands: &[&TensorType],
    results: &[TensorType],
) -> S::Quantity {
    // Data movement looks at no value.
    if matches!(kind.def().cost, CostClass::Free | CostClass::Copy | CostClass::Control) {
        return sizes.constant(0);
    }
    let half = |t: &&TensorType| matches!(t.dtype, DType::F16 | DType::BF16);
    let all = operands.iter().copied().chain(results).filter(half);
    sizes.sum(all.map(|t| sizes.bytes(t)))
}

fn elements<S: Sizes>(
    sizes: &S,
    kind: OpKind,
    attrs: &Attrs,
    operands: &[&TensorType],
    results: &[TensorType],
) -> S::Quantity {
    let operand = || operands.first().map_or(sizes.constant(0), |t| sizes.elements(t));
    let given = || sizes.sum(results.iter().map(|t| sizes.elements(t)));
    let windowed = |channels: &Dim, kernel: &[Dim]| {
        let windows = results.first().and_then(|t| t.shape.get(2..)).unwrap_or(&[]);
        let batch = results.first().and_then(|t| t.shape.first());
        sizes.product(batch.into_iter().chain([channels]).chain(windows).chain(kernel))
    };
    match kind {
        // Every window is read whole; without attributes, windows count as not overlapping.
        OpKind::MaxPool | OpKind::AvgPool if !attrs.ints("kernel").is_empty() => {
            let kernel: Vec<Dim> = attrs.ints("kernel").iter().map(|k| Dim::from(*k)).collect();
            sizes.mul(&given(), &sizes.product(&kernel))
        }
        OpKind::Conv => match (operands.first(), operands.get(1)) {
            (Some(x), Some(w)) if x.rank() >= 3 && w.rank() >= 3 => windowed(&x.shape[1], &w.shape[2..]),
            _ => given(),
        },
        OpKind::Sdpa => {
            let [Some(query), Some(key)] = [operands.first(), operands.get(1)] else { return given() };
            let heads = if query.rank() == 3 { attrs.int("query_heads").max(1) } else { 1 };
            let rows = query.shape.get(..query.rank().saturating_sub(1)).unwrap_or(&[]);
            let keys =
                key.shape.get(key.rank().saturating_sub(2)).map_or(sizes.constant(1), |d| sizes.size(d));
            sizes.mul(&sizes.mul(&sizes.product(rows), &sizes.constant(heads)), &keys)
        }
        OpKind::Transpose | OpKind::Broadcast | OpKind::Slice | OpKind::Concat | OpKind::Gather => {
            pieces(sizes, kind, attrs, operands, results)
        }
        _ => match kind.def().cost {
            CostClass::Reduction | CostClass::Normalization => operand(),
            CostClass::Free
            | CostClass::Elementwise
            | CostClass::Copy
            | CostClass::Contraction
            | CostClass::Control => given(),
        },
    }
}

/// Pieces that data movement can move as a whole: elements that lie next to each other before and after.
fn pieces<S: Sizes>(
    sizes: &S,
    kind: OpKind,
    attrs: &Attrs,
    operands: &[&TensorType],
    results: &[TensorType],
) -> S::Quantity {
    let (Some(from), Some(to)) = (operands.first(), results.first()) else { return sizes.constant(0) };
    let axis = usize::try_from(attrs.int("axis")).unwrap_or(0);
    // Leading axes of the result that are walked piece by piece.
    let walked = match kind {
        OpKind::Transpose => {
            // Axes of size 1 move nothing.
            let moving = |axis: &usize| from.shape.get(*axis).is_none_or(|d| !d.is(1));
            let perm = attrs.ints("perm").iter().filter_map(|p| usize::try_from(*p).ok()).filter(moving);
            let (perm, mut order): (Vec<usize>, Vec<usize>) = (perm.collect(), (0..from.rank()).collect());
            order.retain(moving);
            let kept = perm.iter().rev().zip(order.iter().rev()).take_while(|(p, o)| p == o).count();
            let last = if attrs.ints("perm").is_empty() { 0 } else { kept };
            return sizes.product(perm.iter().rev().skip(last).map(|p| &from.shape[*p]));
        }
        OpKind::Broadcast => {
            let same = from.shape.iter().rev().zip(to.shape.iter().rev()).take_while(|(a, b)| a == b);
            to.rank() - same.count()
        }
        OpKind::Slice if attrs.int("stride") == 1 => axis,
        // The indices stand where the axis was.
        OpKind::Gather => axis + operands.get(1).map_or(0, |i| i.rank()),
        OpKind::Concat => axis,
        _ => to.rank(),
    };
    let pieces = sizes.product(to.shape.get(..walked).unwrap_or(&to.shape));
    if kind == OpKind::Concat { sizes.mul(&pieces, &sizes.constant(operands.len() as i64)) } else { pieces }
}
