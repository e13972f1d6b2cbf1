//! Reads and writes at positions that integer operands hold.
//!
//! Positions outside an axis are an error of the caller that the evaluator reports; a kernel keeps them inside (reads)
//! or leaves them out (writes), so that it never touches memory that is not its own.

use super::Expander;
use crate::affine::Affine;
use crate::build::Builder;
use crate::dag::{Bin, Cmp, Id, Ty};
use crate::program::{Def, Fold, NodeId, Part, Target};
use crate::scalar;
use djinn_diag::{Result, unsupported};
use djinn_ir::{DType, Dim, Op, OpKind};
use std::rc::Rc;

/// A position that a value holds, counted from the end if it is negative.
fn wrapped(b: &mut Builder, dtype: DType, value: Id, size: &Dim) -> Id {
    let at = scalar::cast(b.dag, value, dtype, DType::I64);
    if !dtype.is_signed() {
        return at;
    }
    let (zero, n) = (b.dag.int(Ty::I64, 0), b.dag.size(size));
    let negative = b.dag.cmp(Cmp::SLt, at, zero);
    let from_end = b.dag.bin(Bin::Add, at, n);
    b.dag.select(negative, from_end, at)
}

/// The same, kept inside the axis.
pub(super) fn clamped(b: &mut Builder, dtype: DType, value: Id, size: &Dim) -> Affine {
    let at = wrapped(b, dtype, value, size);
    let (zero, one, n) = (b.dag.int(Ty::I64, 0), b.dag.int(Ty::I64, 1), b.dag.size(size));
    let last = b.dag.bin(Bin::Sub, n, one);
    let at = b.dag.bin(Bin::MinS, at, last);
    let at = b.dag.bin(Bin::MaxS, at, zero);
    b.dag.computed(at, Some(size.clone()))
}

/// No read from an axis that may be empty.
pub(super) fn not_empty(b: &mut Builder, size: &Dim) -> Option<Id> {
    if size.as_const().is_some_and(|c| c > 0) {
        return None;
    }
    let (n, zero) = (b.dag.size(size), b.dag.int(Ty::I64, 0));
    Some(b.dag.cmp(Cmp::SGt, n, zero))
}

impl Expander<'_> {
    pub(super) fn gathers(&mut self, op: &Op, x: &[NodeId], ty: (DType, &[Dim])) -> Result<NodeId> {
        let (source, indices) = (x[0], x[1]);
        let (shape, index_shape) = (self.shape(source), self.shape(indices));
        let (index_type, rank) = (self.dtype(indices), index_shape.len());
        match op.kind {
            OpKind::Gather => {
                let axis = op.attrs.int("axis") as usize;
                Ok(self.element(ty, x, 4, move |b, p| {
                    let value = b.value(indices, &p.index[axis..axis + rank], p.guard)?;
                    let at = clamped(b, index_type, value, &shape[axis]);
                    let mut index = p.index[..axis].to_vec();
                    index.push(at);
                    index.extend_from_slice(&p.index[axis + rank..]);
                    let some = not_empty(b, &shape[axis]);
                    let guard = b.dag.both(p.guard, some);
                    b.value(source, &index, guard)
                }))
            }
            OpKind::GatherElements => {
                let axis = op.attrs.int("axis") as usize;
                Ok(self.element(ty, x, 4, move |b, p| {
                    let value = b.value(indices, p.index, p.guard)?;
                    let mut index = p.index.to_vec();
                    index[axis] = clamped(b, index_type, value, &shape[axis]);
                    let some = not_empty(b, &shape[axis]);
                    let guard = b.dag.both(p.guard, some);
                    b.value(source, &index, guard)
                }))
            }
            _ => {
                let batch = op.attrs.int("batch_dims") as usize;
                let tuple = tuple_length(&index_shape)?;
                let leading = rank - 1;
                Ok(self.element(ty, x, 4, move |b, p| {
                    let mut index = p.index[..batch].to_vec();
                    let mut guard = p.guard;
                    for k in 0..tuple {
                        let at = tuple_index(&p.index[..leading], k);
                        let value = b.value(indices, &at, p.guard)?;
                        index.push(clamped(b, index_type, value, &shape[batch + k]));
                        let some = not_empty(b, &shape[batch + k]);
                        guard = b.dag.both(guard, some);
                    }
                    index.extend_from_slice(&p.index[leading..]);
                    b.value(source, &index, guard)
                }))
            }
        }
    }

    pub(super) fn scatters(&mut self, op: &Op, x: &[NodeId], ty: (DType, &[Dim])) -> Result<NodeId> {
        let (base, indices, updates) = (x[0], x[1], x[2]);
        let (shape, index_shape) = (self.shape(base), self.shape(indices));
        let index_type = self.dtype(indices);
        let whole = Part {
            loops: shape.clone(),
            shared: 0,
            ordered: 0,
            copies: Some(base),
            target: Rc::new(|_, index| Ok((index.to_vec(), None))),
            element: Rc::new(move |b, p| b.value(base, p.index, p.guard)),
        };
        let axis = if op.kind == OpKind::ScatterNd { 0 } else { op.attrs.int("axis") as usize };
        let kind = op.kind;
        let tuple = if kind == OpKind::ScatterNd { tuple_length(&index_shape)? } else { 0 };
        let leading = index_shape.len().saturating_sub(1);
        let target: Target = Rc::new(move |b, index| {
            let (mut out, mut guard) = (index.to_vec(), None);
            let positions = match kind {
                OpKind::IndexCopy => vec![(axis, vec![index[axis].clone()])],
                OpKind::ScatterElements => vec![(axis, index.to_vec())],
                _ => {
                    out = vec![Affine::zero(); tuple];
                    out.extend_from_slice(&index[leading..]);
                    (0..tuple).map(|k| (k, tuple_index(&index[..leading], k))).collect()
                }
            };
            for (axis, at) in positions {
                let value = b.value(indices, &at, None)?;
                let at = wrapped(b, index_type, value, &shape[axis]);
                let at = b.dag.computed(at, None);
                let inside = b.dag.inside(&at, &shape[axis]);
                guard = b.dag.both(guard, inside);
                out[axis] = at;
            }
            Ok((out, guard))
        });
        let combine = if kind == OpKind::IndexCopy { "none" } else { op.attrs.str("reduction") }.to_owned();
        let element = scatter_element(
            updates,
            ty.0,
            &combine,
            target.clone(),
            NodeId(self.program.nodes.len() as u32),
        )?;
        let shared = if kind == OpKind::IndexCopy { axis } else { 0 };
        let loops = self.shape(updates);
        let ordered = match kind {
            OpKind::IndexCopy => 1,
            OpKind::ScatterNd => leading,
            _ => loops.len(),
        };
        let update = Part { loops, shared, ordered, copies: None, target, element };
        let reads: Vec<(NodeId, bool)> = x.iter().map(|x| (*x, false)).collect();
        Ok(self.push(ty, &reads, 4, Def::Parts(vec![whole, update])))
    }
}

/// The update itself, or combined with what stands at its place.
fn scatter_element(
    updates: NodeId,
    dtype: DType,
    combine: &str,
    target: Target,
    result: NodeId,
) -> Result<crate::program::Element> {
    let fold = match combine {
        "none" => return Ok(Rc::new(move |b, p| b.value(updates, p.index, p.guard))),
        "add" => Fold::Sum,
        "mul" => Fold::Product,
        "min" => Fold::Min,
        "max" => Fold::Max,
        other => return Err(unsupported("kernel.op", format!("there is no reduction '{other}'"))),
    };
    Ok(Rc::new(move |b, p| {
        let (index, guard) = target(b, p.index)?;
        let update = b.value(updates, p.index, p.guard)?;
        let place = b.choices.places.get(&result).cloned();
        let place = place.ok_or_else(|| djinn_diag::internal("kernel.place", "a scatter has no place"))?;
        let old = b.stored(result, &place, &index, guard);
        let y = crate::fold::combine(b.dag, fold, !dtype.is_signed(), old, update);
        Ok(scalar::round(b.dag, dtype, y))
    }))
}

fn tuple_length(index_shape: &[Dim]) -> Result<usize> {
    let size = index_shape.last().and_then(Dim::as_const).and_then(|c| usize::try_from(c).ok());
    size.filter(|s| *s <= 16).ok_or_else(|| unsupported("kernel.op", "index tuples of this length"))
}

fn tuple_index(leading: &[Affine], k: usize) -> Vec<Affine> {
    let mut at = leading.to_vec();
    at.push(Affine::constant(Dim::from(k)));
    at
}
