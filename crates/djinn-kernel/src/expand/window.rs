//! Pools: folds over windows.

use super::{Expander, wide};
use crate::affine::Affine;
use crate::build::Builder;
use crate::dag::{Bin, Conv, Id, Ty};
use crate::program::{Def, Element, Fold, NodeId};
use crate::scalar;
use djinn_diag::Result;
use djinn_ir::{Attrs, DType, Dim, Op, OpKind};
use std::rc::Rc;

/// How windows lie over the spatial axes: position `o·stride + k·dilation − pad`.
#[derive(Clone)]
pub(super) struct Windows {
    pub(super) strides: Vec<i64>,
    pub(super) dilations: Vec<i64>,
    pub(super) pads: Vec<i64>,
}

impl Windows {
    pub(super) fn new(attrs: &Attrs) -> Windows {
        let list = |name| attrs.ints(name).to_vec();
        Windows { strides: list("strides"), dilations: list("dilations"), pads: list("pads") }
    }

    /// The position along an axis of element `k` of window `o`.
    pub(super) fn position(&self, axis: usize, o: &Affine, k: &Affine) -> Affine {
        let start = o.scale(&Dim::from(self.strides[axis]));
        let inside = k.scale(&Dim::from(self.dilations[axis]));
        start.add(&inside).plus(&Dim::from(-self.pads[axis]))
    }
}

impl Expander<'_> {
    /// The largest or the mean of each window.
    pub(super) fn pool(&mut self, op: &Op, x: NodeId, ty: (DType, &[Dim])) -> Result<NodeId> {
        let windows = Windows::new(&op.attrs);
        let kernel = op.attrs.ints("kernel").to_vec();
        let spatial: Vec<Dim> = self.shape(x)[2..].to_vec();
        let rank = ty.1.len();
        let sums = wide(ty.0);
        let fold = if op.kind == OpKind::MaxPool { Fold::Max } else { Fold::Sum };
        let (w, s) = (windows.clone(), spatial.clone());
        let element: Element = Rc::new(move |b, p| {
            let (out, k) = p.index.split_at(rank);
            let (mut index, mut inside) = (out[..2].to_vec(), None);
            for axis in 0..s.len() {
                let at = w.position(axis, &out[2 + axis], &k[axis]);
                let here = b.dag.inside(&at, &s[axis]);
                inside = b.dag.both(inside, here);
                index.push(at);
            }
            let guard = b.dag.both(p.guard, inside);
            let value = b.value(x, &index, guard)?;
            let Some(inside) = inside else { return Ok(value) };
            let nothing = crate::fold::first(b.dag, fold, sums);
            Ok(b.dag.select(inside, value, nothing))
        });
        let extents = kernel.iter().map(|k| Dim::from(*k)).collect();
        let folded = self.push((sums, ty.1), &[(x, false)], 2, Def::Reduce { fold, extents, element });
        if op.kind == OpKind::MaxPool {
            let out = ty.0;
            return Ok(if sums == out {
                folded
            } else {
                self.pointwise(ty, &[folded], 1, move |dag, v| Ok(scalar::round(dag, out, v[0])))
            });
        }
        let include = op.attrs.bool("count_include_pad");
        let out = ty.0;
        Ok(self.element(ty, &[folded], 12, move |b, p| {
            let sum = b.value(folded, p.index, p.guard)?;
            let mut count = b.dag.int(Ty::I64, 1);
            for (axis, size) in spatial.iter().enumerate() {
                let n = counted(b, &windows, axis, &p.index[2 + axis], kernel[axis], size, include);
                count = b.dag.bin(Bin::Mul, count, n);
            }
            let number = Ty::of(sums);
            let count = match b.dag.as_int(count) {
                Some(c) => b.dag.float(number, c as f64),
                None => b.dag.conv(Conv::SignedToFloat, number, count),
            };
            let y = b.dag.bin(Bin::DivF, sum, count);
            Ok(scalar::round(b.dag, out, y))
        }))
    }
}

/// How many elements of a window count along an axis: with `include`, those of the padding do.
fn counted(
    b: &mut Builder,
    w: &Windows,
    axis: usize,
    o: &Affine,
    kernel: i64,
    size: &Dim,
    include: bool,
) -> Id {
    let start = w.position(axis, o, &Affine::zero());
    let end = w.position(axis, o, &Affine::constant(Dim::from(kernel - 1)));
    let low_pad = if include { Dim::from(-w.pads[axis]) } else { Dim::ZERO };
    let high_pad = if include { Dim::from(w.pads[w.strides.len() + axis]) } else { Dim::ZERO };
    let limit = size + &high_pad;
    let shifted = start.sub(&Affine::constant(low_pad.clone()));
    if b.dag.is_nonneg(&shifted) && b.dag.is_below(&end, &limit) {
        return b.dag.int(Ty::I64, kernel);
    }
    // First and one past the last k with low ≤ start + k·dilation < limit, kept within 0..kernel.
    let d = Dim::from(w.dilations[axis]);
    let round_up = Affine::constant(&d - &Dim::ONE);
    let first = Affine::constant(low_pad).sub(&start).add(&round_up);
    let past = Affine::constant(limit).sub(&start).add(&round_up);
    let divisor = b.dag.size(&d);
    let mut bound = |a: &Affine| {
        let a = b.dag.index(a);
        let q = b.dag.floor_div(a, divisor, false);
        let (zero, n) = (b.dag.int(Ty::I64, 0), b.dag.int(Ty::I64, kernel));
        let q = b.dag.bin(Bin::MaxS, q, zero);
        b.dag.bin(Bin::MinS, q, n)
    };
    let (first, past) = (bound(&first), bound(&past));
    let n = b.dag.bin(Bin::Sub, past, first);
    let zero = b.dag.int(Ty::I64, 0);
    b.dag.bin(Bin::MaxS, n, zero)
}
