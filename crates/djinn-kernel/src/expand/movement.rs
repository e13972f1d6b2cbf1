//! Sources and movement: every element is one element of an operand, or a function of its index.

use super::Expander;
use crate::affine::{Affine, delinear, linear};
use crate::build::Builder;
use crate::dag::{Bin, Cmp, Id, Ty};
use crate::program::{Def, NodeId, Part};
use crate::scalar;
use djinn_diag::{Result, unsupported};
use djinn_ir::{DType, Dim, Op, OpKind};
use std::rc::Rc;

impl Expander<'_> {
    /// `iota` and `dim_expr`.
    pub(super) fn source(&mut self, op: &Op, ty: (DType, &[Dim])) -> Result<NodeId> {
        if op.kind == OpKind::Iota {
            let (axis, dtype) = (op.attrs.int("axis") as usize, ty.0);
            return Ok(self.element(ty, &[], 1, move |b, p| {
                let value = b.dag.index(&p.index[axis]);
                Ok(scalar::cast(b.dag, value, DType::I64, dtype))
            }));
        }
        let sizes = op.attrs.dims("exprs").to_vec();
        Ok(self.element(ty, &[], sizes.len() as u32, move |b, p| {
            let Some((first, rest)) = sizes.split_first() else { return Ok(b.dag.int(Ty::I64, 0)) };
            let mut value = b.dag.size(first);
            for (i, size) in rest.iter().enumerate() {
                let (at, n) = (b.dag.index(&p.index[0]), b.dag.int(Ty::I64, i as i64 + 1));
                let (here, size) = (b.dag.cmp(Cmp::Eq, at, n), b.dag.size(size));
                value = b.dag.select(here, size, value);
            }
            Ok(value)
        }))
    }

    /// A tensor whose elements are those of `x` at a function of the index.
    pub(super) fn moved(
        &mut self,
        ty: (DType, &[Dim]),
        x: NodeId,
        f: impl Fn(&mut Builder, &[Affine]) -> Vec<Affine> + 'static,
    ) -> NodeId {
        self.element(ty, &[x], 0, move |b, p| {
            let index = f(b, p.index);
            b.value(x, &index, p.guard)
        })
    }

    /// Operations whose element is always one element of the first operand, or a pad value.
    pub(super) fn movement(&mut self, op: &Op, x: &[NodeId], ty: (DType, &[Dim])) -> Result<NodeId> {
        use OpKind as K;
        let attrs = &op.attrs;
        let from = x.first().map(|x| self.shape(*x)).unwrap_or_default();
        match op.kind {
            K::Reshape => Ok(self.reshaped(x[0], ty)),
            K::Transpose => {
                let perm = attrs.ints("perm").to_vec();
                Ok(self.moved(ty, x[0], move |_, index| {
                    let mut out = vec![Affine::zero(); perm.len()];
                    perm.iter().zip(index).for_each(|(p, i)| out[*p as usize] = i.clone());
                    out
                }))
            }
            K::Broadcast => Ok(self.pointwise(ty, &x[..1], 0, |_, v| Ok(v[0]))),
            K::Slice => {
                let (axis, start) = (attrs.int("axis") as usize, attrs.dim("start"));
                let stride = Dim::from(attrs.int("stride"));
                Ok(self.moved(ty, x[0], move |_, index| {
                    let mut out = index.to_vec();
                    out[axis] = out[axis].scale(&stride).plus(&start);
                    out
                }))
            }
            K::Reverse => {
                let axes = attrs.ints("axes").to_vec();
                Ok(self.moved(ty, x[0], move |_, index| {
                    let mut out = index.to_vec();
                    for axis in &axes {
                        let axis = *axis as usize;
                        out[axis] = Affine::constant(&from[axis] - &Dim::ONE).sub(&out[axis]);
                    }
                    out
                }))
            }
            K::Tile => Ok(self.moved(ty, x[0], move |b, index| {
                let wrapped = |(at, size): (&Affine, &Dim)| {
                    let turns = b.dag.quotient(at, size);
                    at.sub(&turns.scale(size))
                };
                index.iter().zip(&from).map(wrapped).collect()
            })),
            K::Concat => Ok(self.concat(x, attrs.int("axis") as usize, ty)),
            K::Pad => self.pad(op, x, ty),
            _ => Err(unsupported("kernel.op", format!("'{}' has no kernel", op.kind.name()))),
        }
    }

    /// The elements in row-major order under another shape.
    pub(super) fn reshaped(&mut self, x: NodeId, ty: (DType, &[Dim])) -> NodeId {
        let (from, to) = (self.shape(x), ty.1.to_vec());
        self.moved(ty, x, move |b, index| reshape_index(b, index, &from, &to))
    }

    fn concat(&mut self, x: &[NodeId], axis: usize, ty: (DType, &[Dim])) -> NodeId {
        let (mut parts, mut offset) = (Vec::new(), Dim::ZERO);
        for operand in x.iter().copied() {
            let loops = self.shape(operand);
            let start = offset.clone();
            offset = &offset + &loops[axis];
            parts.push(Part {
                loops,
                shared: axis,
                ordered: 0,
                copies: Some(operand),
                target: Rc::new(move |_, index| {
                    let mut out = index.to_vec();
                    out[axis] = out[axis].plus(&start);
                    Ok((out, None))
                }),
                element: Rc::new(move |b, p| b.value(operand, p.index, p.guard)),
            });
        }
        let reads: Vec<(NodeId, bool)> = x.iter().map(|x| (*x, false)).collect();
        self.push(ty, &reads, 1, Def::Parts(parts))
    }

    fn pad(&mut self, op: &Op, x: &[NodeId], ty: (DType, &[Dim])) -> Result<NodeId> {
        let (low, high) = (op.attrs.dims("low").to_vec(), op.attrs.dims("high").to_vec());
        let mode = op.attrs.str("mode").to_owned();
        let from = self.shape(x[0]);
        let (source, fill) = (x[0], x[1]);
        let removes = low.iter().chain(&high).any(|d| {
            !d.provably_ge(&Dim::ZERO, &djinn_ir::SymbolTable::default())
                && d.as_const().is_none_or(|c| c < 0)
        });
        if mode != "constant" && removes {
            return Err(unsupported("kernel.op", "padding that removes elements and repeats others"));
        }
        Ok(self.element(ty, &[source, fill], 2, move |b, p| {
            let (mut index, mut inside) = (Vec::new(), None);
            for (axis, at) in p.index.iter().enumerate() {
                let at = at.sub(&Affine::constant(low[axis].clone()));
                if mode == "constant" {
                    let here = b.dag.inside(&at, &from[axis]);
                    inside = b.dag.both(inside, here);
                    index.push(at);
                } else if low[axis].is(0) && high[axis].is(0) {
                    index.push(at);
                } else {
                    index.push(folded(b, &mode, &at, &from[axis]));
                }
            }
            let guard = b.dag.both(p.guard, inside);
            let value = b.value(source, &index, guard)?;
            let Some(inside) = inside else { return Ok(value) };
            let fill = b.value(fill, &[], p.guard)?;
            Ok(b.dag.select(inside, value, fill))
        }))
    }

    /// One triangle of the last two axes, zero elsewhere.
    pub(super) fn trilu(&mut self, op: &Op, x: NodeId, ty: (DType, &[Dim])) -> Result<NodeId> {
        let (upper, k, number) = (op.attrs.bool("upper"), op.attrs.int("k"), Ty::of(ty.0));
        Ok(self.element(ty, &[x], 3, move |b, p| {
            let n = p.index.len();
            let distance = p.index[n - 1].sub(&p.index[n - 2]);
            let (distance, k) = (b.dag.index(&distance), b.dag.int(Ty::I64, k));
            let keep = b.dag.cmp(if upper { Cmp::SGe } else { Cmp::SLe }, distance, k);
            let value = b.value(x, p.index, p.guard)?;
            let zero = b.dag.number(number, 0);
            Ok(b.dag.select(keep, value, zero))
        }))
    }
}

/// The index of a reshaped tensor's element under the shape that it had.
pub(super) fn reshape_index(b: &mut Builder, index: &[Affine], from: &[Dim], to: &[Dim]) -> Vec<Affine> {
    // Leading and trailing axes that agree need no arithmetic.
    let same = |(a, b): &(&Dim, &Dim)| a == b;
    let head = from.iter().zip(to).take_while(same).count();
    let tail = from[head..].iter().rev().zip(to[head..].iter().rev()).take_while(same).count();
    let (from_end, to_end) = (from.len() - tail, to.len() - tail);
    let position = linear(&index[head..to_end], &to[head..to_end]);
    let middle = delinear(b.dag, &position, &from[head..from_end]);
    index[..head].iter().cloned().chain(middle).chain(index[to_end..].iter().cloned()).collect()
}

/// A position outside an axis folded back into it.
fn folded(b: &mut Builder, mode: &str, at: &Affine, size: &Dim) -> Affine {
    let (at, n) = (b.dag.index(at), b.dag.size(size));
    let (zero, one) = (b.dag.int(Ty::I64, 0), b.dag.int(Ty::I64, 1));
    let last = b.dag.bin(Bin::Sub, n, one);
    let value = match mode {
        "edge" => {
            let low = b.dag.bin(Bin::MaxS, at, zero);
            b.dag.bin(Bin::MinS, low, last)
        }
        "wrap" => remainder(b, at, n),
        _ => {
            let two = b.dag.int(Ty::I64, 2);
            let period = b.dag.bin(Bin::Mul, last, two);
            let turn = remainder(b, at, period);
            let back = b.dag.bin(Bin::Sub, period, turn);
            b.dag.bin(Bin::MinS, turn, back)
        }
    };
    b.dag.computed(value, Some(size.clone()))
}

/// a mod n, at least 0; 0 where n is 0.
fn remainder(b: &mut Builder, a: Id, n: Id) -> Id {
    let one = b.dag.int(Ty::I64, 1);
    let n = b.dag.bin(Bin::MaxS, n, one);
    let quotient = b.dag.floor_div(a, n, false);
    let whole = b.dag.bin(Bin::Mul, quotient, n);
    b.dag.bin(Bin::Sub, a, whole)
}
