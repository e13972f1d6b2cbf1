//! Small building blocks: casts, constants, movement, promotion.

use crate::context::{Cx, Operand, Scalar};
use djinn_diag::{Result, input, internal};
use djinn_ir::data::encode_f64;
use djinn_ir::{Attrs, DType, Dim, OpKind, TensorData, attrs};
use djinn_srg::SrgValue;

/// torch's order of kinds of numbers.
fn category(d: DType) -> u8 {
    if d == DType::Bool {
        0
    } else if d.is_int() {
        1
    } else {
        2
    }
}

/// The common type of two element types, as torch promotes them.
pub(crate) fn promote(a: DType, b: DType) -> DType {
    if a == b {
        return a;
    }
    match category(a).cmp(&category(b)) {
        std::cmp::Ordering::Greater => a,
        std::cmp::Ordering::Less => b,
        std::cmp::Ordering::Equal if a.is_float() => match (a, b) {
            (DType::F16, DType::BF16) | (DType::BF16, DType::F16) => DType::F32,
            _ if a.size() >= b.size() => a,
            _ => b,
        },
        std::cmp::Ordering::Equal => promote_ints(a, b),
    }
}

fn promote_ints(a: DType, b: DType) -> DType {
    if a.is_signed() == b.is_signed() {
        return if a.size() >= b.size() { a } else { b };
    }
    let (signed, unsigned) = if a.is_signed() { (a, b) } else { (b, a) };
    if signed.size() > unsigned.size() {
        return signed;
    }
    match unsigned.size() {
        1 => DType::I16,
        2 => DType::I32,
        _ => DType::I64,
    }
}

/// How much an operand's type counts: tensors before rank-0 tensors before numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weightiness {
    /// A Python number.
    Number,
    /// A tensor of rank 0.
    ZeroDim,
    /// Any other tensor.
    Tensor,
}

/// torch's result type of operands of these types.
pub(crate) fn result_type(operands: &[(Weightiness, DType)]) -> DType {
    let of = |w: Weightiness| operands.iter().filter(|(o, _)| *o == w).map(|(_, d)| *d).reduce(promote);
    let combine = |high: Option<DType>, low: Option<DType>| match (high, low) {
        (Some(h), Some(l)) if category(h) >= category(l) => Some(h),
        (Some(h), Some(l)) => Some(promote(h, l)),
        (h, l) => h.or(l),
    };
    let tensors = combine(of(Weightiness::Tensor), of(Weightiness::ZeroDim));
    combine(tensors, of(Weightiness::Number)).unwrap_or(DType::F32)
}

/// The type of a Python number.
pub(crate) fn scalar_dtype(s: &Scalar) -> DType {
    match s {
        Scalar::Int(_) => DType::I64,
        Scalar::Float(_) => DType::F32,
        Scalar::Bool(_) => DType::Bool,
    }
}

impl Cx<'_> {
    /// Element type of a value.
    pub(crate) fn dtype(&self, v: SrgValue) -> DType {
        self.b.ty(v).dtype
    }

    /// Rank of a value.
    pub(crate) fn rank(&self, v: SrgValue) -> usize {
        self.b.ty(v).rank()
    }

    /// Sizes of a value.
    pub(crate) fn shape(&self, v: SrgValue) -> Vec<Dim> {
        self.b.ty(v).shape.clone()
    }

    /// An operation without attributes.
    pub(crate) fn op(&mut self, kind: OpKind, operands: &[SrgValue]) -> Result<SrgValue> {
        self.b.op(kind, operands, Attrs::new())
    }

    /// The value in another element type; itself if it has that type.
    pub(crate) fn cast(&mut self, v: SrgValue, to: DType) -> Result<SrgValue> {
        if self.dtype(v) == to { Ok(v) } else { self.b.op(OpKind::Cast, &[v], attrs! { to: to }) }
    }

    /// torch's type of a floating-point operation over a value of this type.
    pub(crate) fn float_of(d: DType) -> DType {
        if d.is_float() { d } else { DType::F32 }
    }

    /// The value as a float: itself, or f32 for integers and bool.
    pub(crate) fn float_value(&mut self, v: SrgValue) -> Result<SrgValue> {
        let to = Self::float_of(self.dtype(v));
        self.cast(v, to)
    }

    /// A rank-0 constant of this element type.
    pub(crate) fn constant(&mut self, dtype: DType, value: &Scalar) -> Result<SrgValue> {
        let data = match value {
            Scalar::Int(d) => match d.as_const() {
                Some(v) => int_scalar(dtype, v),
                None => {
                    let dim = self.b.dim(d.clone())?;
                    return self.cast(dim, dtype);
                }
            },
            Scalar::Float(v) => TensorData::splat(dtype, &[], *v),
            Scalar::Bool(v) => TensorData::splat(dtype, &[], f64::from(u8::from(*v))),
        };
        let data = data.ok_or_else(|| internal("pt2.constant", "a scalar constant does not fit its type"))?;
        self.b.constant(data)
    }

    /// A rank-0 float constant of this element type.
    pub(crate) fn number(&mut self, dtype: DType, value: f64) -> Result<SrgValue> {
        self.constant(dtype, &Scalar::Float(value))
    }

    /// A tensor or number as a value of this element type.
    pub(crate) fn materialize(&mut self, operand: &Operand, dtype: DType) -> Result<SrgValue> {
        match operand {
            Operand::Tensor(v) => self.cast(*v, dtype),
            Operand::Scalar(s) => self.constant(dtype, s),
        }
    }

    /// torch's result type of these operands.
    pub(crate) fn result_type(&self, operands: &[&Operand]) -> DType {
        let list: Vec<(Weightiness, DType)> = operands
            .iter()
            .map(|o| match o {
                Operand::Scalar(s) => (Weightiness::Number, scalar_dtype(s)),
                Operand::Tensor(v) if self.rank(*v) == 0 => (Weightiness::ZeroDim, self.dtype(*v)),
                Operand::Tensor(v) => (Weightiness::Tensor, self.dtype(*v)),
            })
            .collect();
        result_type(&list)
    }

    /// The value under another shape; itself if it has that shape.
    pub(crate) fn reshape(&mut self, v: SrgValue, shape: Vec<Dim>) -> Result<SrgValue> {
        if self.b.ty(v).shape == shape {
            Ok(v)
        } else {
            self.b.op(OpKind::Reshape, &[v], attrs! { shape: shape })
        }
    }

    /// The value with axes permuted; itself for the identity.
    pub(crate) fn transpose(&mut self, v: SrgValue, perm: Vec<i64>) -> Result<SrgValue> {
        if perm.iter().enumerate().all(|(i, p)| i as i64 == *p) {
            return Ok(v);
        }
        self.b.op(OpKind::Transpose, &[v], attrs! { perm: perm })
    }

    /// The value with its last two axes swapped.
    pub(crate) fn swap_last(&mut self, v: SrgValue) -> Result<SrgValue> {
        let rank = self.rank(v) as i64;
        let mut perm: Vec<i64> = (0..rank).collect();
        if rank >= 2 {
            perm.swap(rank as usize - 1, rank as usize - 2);
        }
        self.transpose(v, perm)
    }

    /// The value broadcast to exactly this shape; itself if it has it.
    pub(crate) fn broadcast_to(&mut self, v: SrgValue, shape: &[Dim]) -> Result<SrgValue> {
        if self.b.ty(v).shape == shape {
            return Ok(v);
        }
        self.b.op(OpKind::Broadcast, &[v], attrs! { shape: shape.to_vec() })
    }

    /// Elements `start..limit` along an axis.
    pub(crate) fn slice(&mut self, v: SrgValue, axis: usize, start: Dim, limit: Dim) -> Result<SrgValue> {
        if start.is(0) && self.b.ty(v).shape.get(axis) == Some(&limit) {
            return Ok(v);
        }
        self.b.op(OpKind::Slice, &[v], attrs! { axis: axis as i64, start: start, limit: limit, stride: 1i64 })
    }

    /// The value with an axis of size 1 inserted.
    pub(crate) fn unsqueeze(&mut self, v: SrgValue, axis: usize) -> Result<SrgValue> {
        let mut shape = self.shape(v);
        shape.insert(axis.min(shape.len()), Dim::ONE);
        self.reshape(v, shape)
    }

    /// The value without this axis of size 1.
    pub(crate) fn squeeze(&mut self, v: SrgValue, axis: usize) -> Result<SrgValue> {
        let mut shape = self.shape(v);
        if axis < shape.len() {
            shape.remove(axis);
        }
        self.reshape(v, shape)
    }

    /// Joins values along an axis; the value itself if there is one.
    pub(crate) fn concat(&mut self, values: &[SrgValue], axis: usize) -> Result<SrgValue> {
        match values {
            [one] => Ok(*one),
            _ => self.b.op(OpKind::Concat, values, attrs! { axis: axis as i64 }),
        }
    }

    /// 0, 1, … along the only axis.
    pub(crate) fn iota(&mut self, count: Dim, dtype: DType) -> Result<SrgValue> {
        self.b.op(OpKind::Iota, &[], attrs! { shape: vec![count], axis: 0i64, dtype: dtype })
    }

    /// A reduction; the value itself if there is nothing to reduce.
    pub(crate) fn reduce(
        &mut self,
        kind: OpKind,
        v: SrgValue,
        axes: Vec<i64>,
        keep: bool,
    ) -> Result<SrgValue> {
        if axes.is_empty() {
            return Ok(v);
        }
        self.b.op(kind, &[v], attrs! { axes: axes, keepdims: keep })
    }

    /// A comparison.
    pub(crate) fn compare(&mut self, predicate: &str, a: SrgValue, b: SrgValue) -> Result<SrgValue> {
        self.b.op(OpKind::Compare, &[a, b], attrs! { predicate: predicate })
    }

    /// A constant filled tensor of this shape, without storing its elements.
    pub(crate) fn filled(&mut self, dtype: DType, shape: &[Dim], value: &Scalar) -> Result<SrgValue> {
        let one = self.constant(dtype, value)?;
        self.broadcast_to(one, shape)
    }

    /// The constant size of an axis.
    pub(crate) fn const_size(&self, v: SrgValue, axis: usize, what: &str) -> Result<i64> {
        let size = self.b.ty(v).shape.get(axis).and_then(Dim::as_const);
        size.ok_or_else(|| {
            djinn_diag::unsupported("pt2.size", format!("the {what} must be a constant size"))
                .help("export the model with this size static")
        })
    }

    /// Fails unless the value has one of these ranks.
    pub(crate) fn want_rank(&self, v: SrgValue, what: &str, low: usize, high: usize) -> Result<usize> {
        let rank = self.rank(v);
        if (low..=high).contains(&rank) {
            return Ok(rank);
        }
        Err(input("pt2.rank", format!("{what} has rank {rank}, expected {low} to {high}"))
            .help("the file is damaged: export the model again"))
    }
}

/// A rank-0 tensor that holds `value` exactly where the type allows it.
fn int_scalar(dtype: DType, value: i64) -> Option<TensorData> {
    let bytes = match dtype {
        DType::I64 | DType::U64 => value.to_le_bytes().to_vec(),
        DType::I32 | DType::U32 => (value as i32).to_le_bytes().to_vec(),
        DType::I16 | DType::U16 => (value as i16).to_le_bytes().to_vec(),
        DType::I8 | DType::U8 => (value as i8).to_le_bytes().to_vec(),
        DType::Bool => vec![u8::from(value != 0)],
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => encode_f64(dtype, value as f64),
    };
    TensorData::new(dtype, Vec::new(), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use DType::*;
    use Weightiness::*;

    #[test]
    fn promotion_follows_torch() {
        assert_eq!(promote(U8, I8), I16);
        assert_eq!(promote(F16, BF16), F32);
        assert_eq!(promote(I64, F16), F16);
        assert_eq!(promote(Bool, U8), U8);
        assert_eq!(promote(I32, I64), I64);
    }

    #[test]
    fn numbers_and_rank_zero_tensors_do_not_widen() {
        assert_eq!(result_type(&[(Tensor, F16), (Number, F32)]), F16);
        assert_eq!(result_type(&[(Tensor, I32), (Number, I64)]), I32);
        assert_eq!(result_type(&[(Tensor, I32), (Number, F32)]), F32);
        assert_eq!(result_type(&[(Tensor, F16), (ZeroDim, F32)]), F16);
        assert_eq!(result_type(&[(Tensor, Bool), (Number, I64)]), I64);
        assert_eq!(result_type(&[(ZeroDim, F64), (Tensor, I8)]), F64);
        assert_eq!(result_type(&[(ZeroDim, I64), (ZeroDim, F32)]), F32);
    }

    #[test]
    fn wide_integers_are_exact() {
        assert_eq!(int_scalar(I64, i64::MIN).and_then(|t| t.get_i64(0)), Some(i64::MIN));
        assert_eq!(int_scalar(I64, (1 << 53) + 1).and_then(|t| t.get_i64(0)), Some((1 << 53) + 1));
    }
}
