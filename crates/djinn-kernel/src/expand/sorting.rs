//! The k best along an axis by comparison counting (D. E. Knuth, "The Art of Computer Programming", vol. 3, 5.2,
//! algorithm C): an element's place is the number of elements that go before it, so that all places are found at once
//! and no element waits for another. It takes n² comparisons.

use super::Expander;
use super::indexing::{clamped, not_empty};
use crate::affine::Affine;
use crate::dag::{Cmp, Ty};
use crate::fold;
use crate::program::{Def, Element, Fold, NodeId, Part};
use djinn_ir::{DType, Dim, Op};
use std::rc::Rc;

impl Expander<'_> {
    /// Values and positions: NaN goes before everything, and of equals the first.
    pub(super) fn topk(&mut self, op: &Op, x: NodeId, shape: &[Dim]) -> [NodeId; 2] {
        let axis = op.attrs.int("axis") as usize;
        let places = self.places(x, axis, op.attrs.bool("largest"));
        let positions = self.placed(places, axis, shape);
        let size = self.shape(x)[axis].clone();
        let values = self.element((self.dtype(x), shape), &[x, positions], 4, move |b, p| {
            let at = b.value(positions, p.index, p.guard)?;
            let mut index = p.index.to_vec();
            index[axis] = clamped(b, DType::I64, at, &size);
            let some = not_empty(b, &size);
            let guard = b.dag.both(p.guard, some);
            b.value(x, &index, guard)
        });
        [values, positions]
    }

    /// How many elements of its row go before each element.
    fn places(&mut self, x: NodeId, axis: usize, largest: bool) -> NodeId {
        let shape = self.shape(x);
        let (rank, extents) = (shape.len(), vec![shape[axis].clone()]);
        let unsigned = !self.dtype(x).is_signed() && !self.dtype(x).is_float();
        let beats = |last: bool| if largest { Fold::ArgMax { last } } else { Fold::ArgMin { last } };
        let (strictly, or_equal) = (beats(false), beats(true));
        let element: Element = Rc::new(move |b, p| {
            let (own, other) = (&p.index[..rank], &p.index[rank]);
            let mut there = own.to_vec();
            there[axis] = other.clone();
            let (here, there) = (b.value(x, own, p.guard)?, b.value(x, &there, p.guard)?);
            let (i, j) = (b.dag.index(&own[axis]), b.dag.index(other));
            let earlier = b.dag.cmp(Cmp::SLt, j, i);
            let better = fold::beats(b.dag, strictly, unsigned, there, here);
            let as_good = fold::beats(b.dag, or_equal, unsigned, there, here);
            let before = b.dag.select(earlier, as_good, better);
            let (one, zero) = (b.dag.int(Ty::I64, 1), b.dag.int(Ty::I64, 0));
            Ok(b.dag.select(before, one, zero))
        });
        let def = Def::Reduce { fold: Fold::Sum, extents, element };
        self.push((DType::I64, &shape), &[(x, true)], 8, def)
    }

    /// The positions whose places are below the size of the axis of the result.
    fn placed(&mut self, places: NodeId, axis: usize, shape: &[Dim]) -> NodeId {
        let limit = shape[axis].clone();
        let part = Part {
            loops: self.shape(places),
            shared: axis,
            ordered: 0,
            copies: None,
            target: Rc::new(move |b, index| {
                let place = b.value(places, index, None)?;
                let place: Affine = b.dag.computed(place, None);
                let guard = b.dag.inside(&place, &limit);
                let mut out = index.to_vec();
                out[axis] = place;
                Ok((out, guard))
            }),
            element: Rc::new(move |b, p| Ok(b.dag.index(&p.index[axis]))),
        };
        self.push((DType::I64, shape), &[(places, false)], 1, Def::Parts(vec![part]))
    }
}
