//! Tensors of field elements, and data movement on them.

use super::Stop;
use super::element::Element;
use crate::rng::scatter;
use djinn_interp::{Env, eval_op};
use djinn_ir::{Attrs, OpKind, TensorData};

/// A value of one side: elements of the fields for floats, a concrete tensor for integers and booleans.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Elements in row-major order.
    Field(Tensor),
    /// A concrete tensor.
    Concrete(TensorData),
}

/// Field elements and their shape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) elements: Vec<Element>,
}

impl Value {
    /// Random elements; the fields of each are drawn apart.
    pub(crate) fn random(shape: &[usize], seed: u64) -> Value {
        let count = shape.iter().product::<usize>() as u64;
        let elements = (0..count).map(|i| Element::random(scatter(seed ^ scatter(i)))).collect();
        Value::Field(Tensor { shape: shape.to_vec(), elements })
    }

    /// Equal in the base field, and in that of the exponents where both sides are defined there.
    pub(crate) fn agrees(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Field(a), Value::Field(b)) => {
                let same =
                    |x: &Element, y: &Element| x.p == y.p && (x.q == y.q || x.q.is_none() || y.q.is_none());
                a.shape == b.shape && a.elements.iter().zip(&b.elements).all(|(x, y)| same(x, y))
            }
            (a, b) => a == b,
        }
    }

    /// The field elements; integers and booleans are embedded.
    pub(crate) fn field(&self) -> Result<Tensor, Stop> {
        match self {
            Value::Field(t) => Ok(t.clone()),
            Value::Concrete(data) => {
                let element = |i: usize| {
                    if data.dtype().is_float() {
                        Element::float(data.get_f64(i)?)
                    } else {
                        data.get_i64(i).map(Element::int)
                    }
                };
                let elements: Option<Vec<Element>> = (0..data.numel()).map(element).collect();
                let elements =
                    elements.ok_or_else(|| Stop::Unsupported("a constant is not finite".into()))?;
                Ok(Tensor { shape: data.shape().to_vec(), elements })
            }
        }
    }
}

impl Tensor {
    /// Applies `f` to every element.
    pub(crate) fn map(&self, f: impl FnMut(&Element) -> Result<Element, Stop>) -> Result<Tensor, Stop> {
        Ok(Tensor {
            shape: self.shape.clone(),
            elements: self.elements.iter().map(f).collect::<Result<_, _>>()?,
        })
    }

    /// Applies `f` to the pairs of two tensors that broadcast against each other.
    pub(crate) fn zip(
        &self,
        other: &Tensor,
        f: impl Fn(Element, Element) -> Result<Element, Stop>,
    ) -> Result<Tensor, Stop> {
        let shape = joint_shape(&self.shape, &other.shape);
        let (a, b) = (self.broadcast(&shape)?, other.broadcast(&shape)?);
        let elements =
            a.elements.iter().zip(&b.elements).map(|(x, y)| f(*x, *y)).collect::<Result<_, _>>()?;
        Ok(Tensor { shape, elements })
    }

    /// Numpy broadcast to a shape.
    pub(crate) fn broadcast(&self, shape: &[usize]) -> Result<Tensor, Stop> {
        let dims: Vec<djinn_ir::Dim> = shape.iter().map(|d| (*d).into()).collect();
        movement(OpKind::Broadcast, &Attrs::new().with("shape", dims), &[Value::Field(self.clone())])
    }

    /// The axes in another order.
    pub(crate) fn transpose(&self, perm: &[usize]) -> Result<Tensor, Stop> {
        let perm: Vec<i64> = perm.iter().map(|p| *p as i64).collect();
        movement(OpKind::Transpose, &Attrs::new().with("perm", perm), &[Value::Field(self.clone())])
    }

    /// The elements in rows along these axes, the other axes in order; the axes come last.
    pub(crate) fn rows(&self, axes: &[usize]) -> Result<(Vec<Vec<Element>>, Vec<usize>), Stop> {
        let mut perm: Vec<usize> = (0..self.shape.len()).filter(|a| !axes.contains(a)).collect();
        perm.extend_from_slice(axes);
        let moved = self.transpose(&perm)?;
        let width: usize = axes.iter().map(|a| self.shape[*a]).product();
        Ok((moved.elements.chunks_exact(width.max(1)).map(<[Element]>::to_vec).collect(), perm))
    }
}

/// The shape that two broadcastable shapes have together.
fn joint_shape(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| if i + s.len() < rank { 1 } else { s[i + s.len() - rank] };
    (0..rank).map(|i| if at(a, i) == 1 { at(b, i) } else { at(a, i) }).collect()
}

/// Data movement: the reference evaluator moves the positions of elements, which are then replaced by the elements.
pub(crate) fn movement(kind: OpKind, attrs: &Attrs, operands: &[Value]) -> Result<Tensor, Stop> {
    let mut pool: Vec<Element> = Vec::new();
    let mut positions = Vec::new();
    for operand in operands {
        match operand {
            Value::Field(t) => {
                let ids: Vec<i64> = (0..t.elements.len()).map(|i| (pool.len() + i) as i64).collect();
                let data = TensorData::from_i64(&t.shape, &ids);
                positions.push(data.ok_or_else(|| Stop::Unsupported("a tensor is malformed".into()))?);
                pool.extend_from_slice(&t.elements);
            }
            Value::Concrete(data) => positions.push(data.clone()),
        }
    }
    let moved = eval_op(kind, attrs, &positions, &[], &mut Env::new(), &|_| None);
    let moved = moved.ok().and_then(|r| r.into_iter().next());
    let moved = moved.ok_or_else(|| Stop::Unsupported(format!("{} has no value", kind.name())))?;
    let elements = (0..moved.numel()).map(|i| pool.get(usize::try_from(moved.get_i64(i)?).ok()?).copied());
    let elements: Option<Vec<Element>> = elements.collect();
    let elements =
        elements.ok_or_else(|| Stop::Unsupported(format!("{} makes new elements", kind.name())))?;
    Ok(Tensor { shape: moved.shape().to_vec(), elements })
}
