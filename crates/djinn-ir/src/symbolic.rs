//! Shape arithmetic: values of small integer tensors as symbolic sizes.
//!
//! Exported models compute shapes with tensors (`Shape → Gather → Mul → Concat → Reshape`). [`fold`] follows such
//! chains: given what is known of the operands it gives the elements of the result as [`Dim`]s, from which a
//! frontend takes the `shape` attribute of a reshape and a pass makes a `dim_expr`.

use crate::attr::Attrs;
use crate::data::TensorData;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::ops::OpKind;
use crate::types::TensorType;

/// Elements of a known tensor, at most: larger ones are data, not shapes.
pub const MAX_ELEMENTS: usize = 256;

/// An integer or boolean tensor whose elements are known as symbolic expressions (booleans as 0 and 1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SymbolicValue {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Elements in row-major order.
    pub elements: Vec<Dim>,
}

impl SymbolicValue {
    /// A rank-0 value.
    pub fn scalar(value: Dim) -> Self {
        SymbolicValue { shape: Vec::new(), elements: vec![value] }
    }

    /// A rank-1 value.
    pub fn vector(elements: Vec<Dim>) -> Self {
        SymbolicValue { shape: vec![elements.len()], elements }
    }

    /// The value of a small integer or boolean tensor.
    pub fn from_data(data: &TensorData) -> Option<Self> {
        if data.dtype().is_float() || data.numel() > MAX_ELEMENTS {
            return None;
        }
        let elements = data.to_i64s()?.into_iter().map(Dim::from).collect();
        Some(SymbolicValue { shape: data.shape().to_vec(), elements })
    }

    /// The only element of a tensor with one element, of any rank.
    pub fn as_scalar(&self) -> Option<&Dim> {
        match self.elements.as_slice() {
            [d] => Some(d),
            _ => None,
        }
    }

    /// All elements as constants.
    pub fn as_consts(&self) -> Option<Vec<i64>> {
        self.elements.iter().map(Dim::as_const).collect()
    }
}

/// The value of the result of a single-result operation, if it follows from what is known of the operands.
pub fn fold(
    kind: OpKind,
    attrs: &Attrs,
    operands: &[Option<&SymbolicValue>],
    result: &TensorType,
) -> Option<SymbolicValue> {
    if result.dtype.is_float() {
        return None;
    }
    let shape = result.const_shape()?;
    let count = crate::data::numel(&shape)?;
    if count > MAX_ELEMENTS {
        return None;
    }
    let value = |elements: Vec<Dim>| {
        (elements.len() == count && !elements.iter().any(Dim::is_overflow))
            .then(|| SymbolicValue { shape: shape.clone(), elements })
    };
    let x = || operands.first().copied().flatten();
    use OpKind as K;
    match kind {
        K::Constant => SymbolicValue::from_data(attrs.tensor("value")?),
        K::DimExpr => value(attrs.dims("exprs").to_vec()),
        K::Iota if result.rank() == 1 => value((0..count).map(Dim::from).collect()),
        K::Cast if result.dtype != DType::Bool || x()?.as_consts().is_some() => match result.dtype {
            DType::Bool => value(x()?.as_consts()?.iter().map(|v| Dim::from(i64::from(*v != 0))).collect()),
            _ => value(x()?.elements.clone()),
        },
        K::Reshape => value(x()?.elements.clone()),
        K::Neg => value(x()?.elements.iter().map(|d| &Dim::ZERO - d).collect()),
        K::Not if result.dtype == DType::Bool => {
            value(x()?.as_consts()?.iter().map(|v| Dim::from(i64::from(*v == 0))).collect())
        }
        K::Add | K::Sub | K::Mul | K::Div | K::Mod | K::Min | K::Max | K::Compare | K::And | K::Or => {
            let (a, b) = (x()?, operands.get(1).copied().flatten()?);
            let pairs = (0..count).map(|i| (at_broadcast(a, &shape, i), at_broadcast(b, &shape, i)));
            value(pairs.map(|(a, b)| binary(kind, attrs, result.dtype, a?, b?)).collect::<Option<_>>()?)
        }
        K::Select => {
            let cond = x()?.as_consts()?;
            let cond = SymbolicValue {
                shape: x()?.shape.clone(),
                elements: cond.into_iter().map(Dim::from).collect(),
            };
            let (a, b) = (operands.get(1).copied().flatten(), operands.get(2).copied().flatten());
            let pick = |i: usize| {
                let chosen = if at_broadcast(&cond, &shape, i)?.is(0) { b } else { a };
                at_broadcast(chosen?, &shape, i).cloned()
            };
            value((0..count).map(pick).collect::<Option<_>>()?)
        }
        K::Broadcast => {
            let a = x()?;
            value((0..count).map(|i| at_broadcast(a, &shape, i).cloned()).collect::<Option<_>>()?)
        }
        K::Concat if result.rank() == 1 => {
            let mut all = Vec::with_capacity(count);
            for o in operands {
                all.extend_from_slice(&(*o)?.elements);
            }
            value(all)
        }
        K::Slice if result.rank() == 1 => {
            let start = usize::try_from(attrs.dim("start").as_const()?).ok()?;
            let stride = usize::try_from(attrs.int("stride")).ok()?;
            let all = &x()?.elements;
            value((0..count).map(|i| all.get(start + i * stride).cloned()).collect::<Option<_>>()?)
        }
        K::Gather if x()?.shape.len() == 1 => {
            let all = &x()?.elements;
            let len = i64::try_from(all.len()).ok()?;
            let pick = |i: &i64| {
                let i = if *i < 0 { *i + len } else { *i };
                all.get(usize::try_from(i).ok()?).cloned()
            };
            value(operands.get(1).copied().flatten()?.as_consts()?.iter().map(pick).collect::<Option<_>>()?)
        }
        K::ReduceSum | K::ReduceProd if count == 1 && attrs.ints("axes").len() == x()?.shape.len() => {
            let start = if kind == K::ReduceSum { Dim::ZERO } else { Dim::ONE };
            let step = |acc: Dim, d: &Dim| if kind == K::ReduceSum { &acc + d } else { &acc * d };
            value(vec![x()?.elements.iter().fold(start, step)])
        }
        _ => None,
    }
}

/// Element `i` (row-major in `shape`) of `v` broadcast to `shape`.
fn at_broadcast<'a>(v: &'a SymbolicValue, shape: &[usize], i: usize) -> Option<&'a Dim> {
    let (mut rest, mut index, mut scale) = (i, 0usize, 1usize);
    let missing = shape.len().checked_sub(v.shape.len())?;
    for axis in (0..shape.len()).rev() {
        let position = rest % shape[axis];
        rest /= shape[axis];
        if axis >= missing {
            let size = v.shape[axis - missing];
            index += if size == 1 { 0 } else { position * scale };
            scale *= size;
        }
    }
    v.elements.get(index)
}

fn binary(kind: OpKind, attrs: &Attrs, dtype: DType, a: &Dim, b: &Dim) -> Option<Dim> {
    let difference = (a - b).as_const();
    Some(match kind {
        OpKind::Add => a + b,
        OpKind::Sub => a - b,
        OpKind::Mul => a * b,
        // Truncating and floor division agree where both operands are sizes; constants are decided exactly.
        OpKind::Div => match (a.as_const(), b.as_const()) {
            (_, Some(0)) => return None,
            (Some(x), Some(y)) => Dim::from(x.checked_div(y)?),
            (None, Some(y)) if y > 0 && is_size(a) => a.floor_div(b),
            (None, None) if is_size(a) && is_size(b) => a.floor_div(b),
            _ => return None,
        },
        OpKind::Mod => match (a.as_const(), b.as_const()) {
            (Some(x), Some(y)) if y > 0 && x >= 0 => Dim::from(x % y),
            (None, Some(y)) if y > 0 && is_size(a) => a.modulo(b),
            _ => return None,
        },
        OpKind::Min => a.min_of(b),
        OpKind::Max => a.max_of(b),
        OpKind::And if dtype == DType::Bool => Dim::from(i64::from(!a.is(0) && !b.is(0))),
        OpKind::Or if dtype == DType::Bool => Dim::from(i64::from(!a.is(0) || !b.is(0))),
        OpKind::Compare => {
            let d = difference?;
            let holds = match attrs.str("predicate") {
                "eq" => d == 0,
                "ne" => d != 0,
                "lt" => d < 0,
                "le" => d <= 0,
                "gt" => d > 0,
                _ => d >= 0,
            };
            Dim::from(i64::from(holds))
        }
        _ => return None,
    })
}

/// Is the expression non-negative for all non-negative values of its symbols?
fn is_size(d: &Dim) -> bool {
    d.bounds(&crate::dim::SymbolTable::default()).0.is_some_and(|low| low >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attrs;

    #[test]
    fn follows_a_typical_chain() {
        // reshape target [batch, -1] computed from a shape
        let s = Dim::symbol("s0");
        let shape = SymbolicValue::vector(vec![s.clone(), Dim::from(12)]);
        let i64s = |n: i64| TensorType::of(DType::I64, &[n]);
        let index = SymbolicValue::vector(vec![Dim::ZERO]);
        let first = fold(OpKind::Gather, &attrs! { axis: 0i64 }, &[Some(&shape), Some(&index)], &i64s(1));
        assert_eq!(first.as_ref().and_then(|v| v.as_scalar()), Some(&s));
        let minus = SymbolicValue::vector(vec![Dim::from(-1)]);
        let both = fold(OpKind::Concat, &attrs! { axis: 0i64 }, &[first.as_ref(), Some(&minus)], &i64s(2));
        assert_eq!(both.map(|v| v.elements), Some(vec![s, Dim::from(-1)]));
    }

    #[test]
    fn comparisons_are_folded_only_when_decided() {
        let ty = TensorType::scalar(DType::Bool);
        let s = SymbolicValue::scalar(Dim::symbol("s0"));
        let s1 = SymbolicValue::scalar("s0 + 1".parse().expect("dimension"));
        let two = SymbolicValue::scalar(Dim::from(2));
        let lt = attrs! { predicate: "lt" };
        assert_eq!(
            fold(OpKind::Compare, &lt, &[Some(&s), Some(&s1)], &ty),
            Some(SymbolicValue::scalar(Dim::ONE))
        );
        assert_eq!(fold(OpKind::Compare, &lt, &[Some(&s), Some(&two)], &ty), None);
    }
}
