//! Reductions, scans, softmax, normalisations and rotary embedding.
//!
//! Statistics are tensors of their own without the reduced axes, so that they are computed once per row.

use super::{Expander, wide};
use crate::affine::Affine;
use crate::build::Builder;
use crate::dag::{Bin, Conv, Dag, Id, Ty, Un};
use crate::math::Math;
use crate::program::{Def, Element, Fold, NodeId, Point};
use crate::scalar;
use djinn_diag::{Result, unsupported};
use djinn_ir::{DType, Dim, Op, OpKind};
use std::rc::Rc;

/// A number of elements as a float.
fn count(dag: &mut Dag, size: &Dim, ty: Ty) -> Id {
    let n = dag.size(size);
    match dag.as_int(n) {
        Some(c) => dag.float(ty, c as f64),
        None => dag.conv(Conv::SignedToFloat, ty, n),
    }
}

impl Expander<'_> {
    /// The fold of a function of elements of `x` over axes, which keep size 1.
    pub(super) fn fold(
        &mut self,
        x: NodeId,
        (dtype, axes): (DType, &[usize]),
        fold: Fold,
        others: &[NodeId],
        cost: u32,
        f: impl Fn(&mut Builder, Id, &[Affine], Point) -> Result<Id> + 'static,
    ) -> NodeId {
        let from = self.shape(x);
        let kept: Vec<Dim> = shape_kept(&from, axes);
        let extents: Vec<Dim> = axes.iter().map(|a| from[*a].clone()).collect();
        let axes = axes.to_vec();
        let element: Element = Rc::new(move |b, p| {
            let mut index = p.index[..from.len()].to_vec();
            axes.iter().zip(&p.index[from.len()..]).for_each(|(a, at)| index[*a] = at.clone());
            let value = b.value(x, &index, p.guard)?;
            f(b, value, &index, p)
        });
        let reads: Vec<(NodeId, bool)> = [x].iter().chain(others).map(|n| (*n, false)).collect();
        self.push((dtype, &kept), &reads, cost, Def::Reduce { fold, extents, element })
    }

    pub(super) fn reduction(&mut self, op: &Op, x: NodeId, ty: (DType, &[Dim])) -> Result<NodeId> {
        use OpKind as K;
        let from = self.shape(x);
        if matches!(op.kind, K::CumSum | K::CumProd) {
            return Ok(self.scan(op, x, ty));
        }
        let dtype = self.dtype(x);
        let last = || op.attrs.bool("select_last");
        let kind = match op.kind {
            K::ReduceSum | K::ReduceMean => Fold::Sum,
            K::ReduceProd => Fold::Product,
            K::ReduceMax => Fold::Max,
            K::ReduceMin => Fold::Min,
            K::ArgMax => Fold::ArgMax { last: last() },
            K::ArgMin => Fold::ArgMin { last: last() },
            _ => return Err(unsupported("kernel.op", format!("'{}' has no kernel", op.kind.name()))),
        };
        let arg = matches!(op.kind, K::ArgMax | K::ArgMin);
        let axes: Vec<usize> = if arg {
            vec![op.attrs.int("axis") as usize]
        } else {
            op.attrs.ints("axes").iter().map(|a| *a as usize).collect()
        };
        let sums = if arg { DType::I64 } else { wide(dtype) };
        let folded = self.fold(x, (sums, &axes), kind, &[], 1, |_, v, _, _| Ok(v));
        self.program.nodes[folded.0 as usize].unsigned = !dtype.is_signed();
        let size = axes.iter().fold(Dim::ONE, |n, a| &n * &from[*a]);
        let finished = match op.kind {
            K::ReduceMean => {
                let (shape, out) = (self.shape(folded), ty.0);
                self.pointwise((out, &shape), &[folded], 6, move |dag, v| mean(dag, v[0], &size, out))
            }
            _ if sums != ty.0 => {
                let (shape, out) = (self.shape(folded), ty.0);
                self.pointwise((out, &shape), &[folded], 1, move |dag, v| Ok(scalar::round(dag, out, v[0])))
            }
            _ => folded,
        };
        Ok(if self.shape(finished) == ty.1 { finished } else { self.reshaped(finished, ty) })
    }

    fn scan(&mut self, op: &Op, x: NodeId, ty: (DType, &[Dim])) -> NodeId {
        let fold = if op.kind == OpKind::CumSum { Fold::Sum } else { Fold::Product };
        let element: Element = Rc::new(move |b, p| b.value(x, p.index, p.guard));
        let def = Def::Scan {
            fold,
            axis: op.attrs.int("axis") as usize,
            exclusive: op.attrs.bool("exclusive"),
            reverse: op.attrs.bool("reverse"),
            element,
        };
        self.push(ty, &[(x, false)], 1, def)
    }

    pub(super) fn normalization(&mut self, op: &Op, x: &[NodeId], ty: (DType, &[Dim])) -> Result<NodeId> {
        use OpKind as K;
        match op.kind {
            K::Softmax | K::LogSoftmax => {
                Ok(self.softmax(x[0], op.attrs.int("axis") as usize, op.kind == K::LogSoftmax, ty, false))
            }
            K::LayerNorm | K::RmsNorm => {
                let axis = op.attrs.int("axis") as usize;
                Ok(self.norm(op, x, axis, ty))
            }
            K::GroupNorm => {
                let groups = Dim::from(op.attrs.int("groups"));
                let shape = self.shape(x[0]);
                let per_group = shape[1].exact_div(&groups).ok_or_else(|| {
                    unsupported("kernel.op", "the size of a group of channels is not known")
                })?;
                let mut split = vec![shape[0].clone(), groups, per_group];
                split.extend_from_slice(&shape[2..]);
                Ok(self.group_norm(op, x, &split, ty))
            }
            _ => Err(unsupported("kernel.op", format!("'{}' has no kernel", op.kind.name()))),
        }
    }

    /// exp(x − max)/Σ or its logarithm; a row of −∞ gives zeros if `zero_rows`, else NaN.
    pub(super) fn softmax(
        &mut self,
        x: NodeId,
        axis: usize,
        logarithm: bool,
        ty: (DType, &[Dim]),
        zero_rows: bool,
    ) -> NodeId {
        let dtype = wide(self.dtype(x));
        let number = Ty::of(dtype);
        let kept = shape_kept(ty.1, &[axis]);
        let max = self.fold(x, (dtype, &[axis]), Fold::Max, &[], 1, |_, v, _, _| Ok(v));
        let shift = if zero_rows {
            self.pointwise((dtype, &kept), &[max], 2, move |dag, v| {
                let (lowest, zero) = (dag.float(number, f64::NEG_INFINITY), dag.float(number, 0.0));
                let hidden = dag.cmp(crate::dag::Cmp::FEq, v[0], lowest);
                Ok(dag.select(hidden, zero, v[0]))
            })
        } else {
            max
        };
        let power = self.pointwise((dtype, ty.1), &[x, shift], 24, move |dag, v| {
            let difference = dag.bin(Bin::SubF, v[0], v[1]);
            Ok(Math { dag, ty: number }.exp(difference))
        });
        self.program.nodes[power.0 as usize].keep = !logarithm;
        let sum = self.fold(power, (dtype, &[axis]), Fold::Sum, &[], 1, |_, v, _, _| Ok(v));
        let out = ty.0;
        if logarithm {
            let log = self
                .pointwise((dtype, &kept), &[sum], 24, move |dag, v| Ok(Math { dag, ty: number }.log(v[0])));
            return self.pointwise(ty, &[x, max, log], 2, move |dag, v| {
                let difference = dag.bin(Bin::SubF, v[0], v[1]);
                let y = dag.bin(Bin::SubF, difference, v[2]);
                Ok(scalar::round(dag, out, y))
            });
        }
        self.pointwise(ty, &[power, sum], 6, move |dag, v| {
            let y = if zero_rows {
                let (zero, one) = (dag.float(number, 0.0), dag.float(number, 1.0));
                let nothing = dag.cmp(crate::dag::Cmp::FEq, v[1], zero);
                let by = dag.select(nothing, one, v[1]);
                dag.bin(Bin::DivF, v[0], by)
            } else {
                dag.bin(Bin::DivF, v[0], v[1])
            };
            Ok(scalar::round(dag, out, y))
        })
    }

    /// Mean over the axes from `axis` on, and 1/√(variance + ε) (or of the mean square, if not `centred`).
    fn statistics(
        &mut self,
        x: NodeId,
        axis: usize,
        centred: bool,
        epsilon: f64,
    ) -> (Option<NodeId>, NodeId) {
        let from = self.shape(x);
        let dtype = wide(self.dtype(x));
        let axes: Vec<usize> = (axis..from.len()).collect();
        let kept = shape_kept(&from, &axes);
        let size = types_product(&from[axis..]);
        let mean = centred.then(|| {
            let sum = self.fold(x, (dtype, &axes), Fold::Sum, &[], 1, |_, v, _, _| Ok(v));
            let size = size.clone();
            self.pointwise((dtype, &kept), &[sum], 6, move |dag, v| mean(dag, v[0], &size, dtype))
        });
        let rank = from.len();
        let others: Vec<NodeId> = mean.into_iter().collect();
        let squares = self.fold(x, (dtype, &axes), Fold::Sum, &others, 2, move |b, v, _, p| {
            let v = match mean {
                Some(mean) => {
                    let mean = b.value(mean, &p.index[..rank], p.guard)?;
                    b.dag.bin(Bin::SubF, v, mean)
                }
                None => v,
            };
            Ok(b.dag.bin(Bin::MulFused, v, v))
        });
        let number = Ty::of(dtype);
        let factor = self.pointwise((dtype, &kept), &[squares], 12, move |dag, v| {
            let n = count(dag, &size, number);
            let mut m = Math { dag, ty: number };
            let variance = m.div(v[0], n);
            let (epsilon, one) = (m.c(epsilon), m.c(1.0));
            let sum = m.dag.bin(Bin::AddF, variance, epsilon);
            let root = m.dag.un(Un::Sqrt, sum);
            Ok(m.div(one, root))
        });
        (mean, factor)
    }

    fn norm(&mut self, op: &Op, x: &[NodeId], axis: usize, ty: (DType, &[Dim])) -> NodeId {
        let centred = op.kind == OpKind::LayerNorm;
        let (mean, factor) = self.statistics(x[0], axis, centred, op.attrs.float("epsilon"));
        let mut operands = vec![x[0], factor, x[1]];
        operands.extend(mean);
        operands.extend(x.get(2));
        let (out, has_bias) = (ty.0, x.len() > 2);
        self.pointwise(ty, &operands, 4, move |dag, v| {
            let centre = if centred { dag.bin(Bin::SubF, v[0], v[3]) } else { v[0] };
            let scaled = dag.bin(Bin::MulF, centre, v[1]);
            let mut y = dag.bin(Bin::MulFused, scaled, v[2]);
            if has_bias {
                y = dag.bin(Bin::AddFused, y, v[v.len() - 1]);
            }
            Ok(scalar::round(dag, out, y))
        })
    }

    fn group_norm(&mut self, op: &Op, x: &[NodeId], split: &[Dim], ty: (DType, &[Dim])) -> NodeId {
        let dtype = self.dtype(x[0]);
        let parts = self.reshaped(x[0], (dtype, split));
        let (mean, factor) = self.statistics(parts, 2, true, op.attrs.float("epsilon"));
        // [channels] as [groups, channels per group, 1, …].
        let mut channels = split[1..3].to_vec();
        channels.resize(split.len() - 1, Dim::ONE);
        let scale = self.reshaped(x[1], (dtype, &channels));
        let bias = self.reshaped(x[2], (dtype, &channels));
        let mut operands = vec![parts, factor, scale, bias];
        operands.extend(mean);
        let y = self.pointwise((dtype, split), &operands, 4, move |dag, v| {
            let centre = dag.bin(Bin::SubF, v[0], v[4]);
            let scaled = dag.bin(Bin::MulF, centre, v[1]);
            let scaled = dag.bin(Bin::MulFused, scaled, v[2]);
            let y = dag.bin(Bin::AddFused, scaled, v[3]);
            Ok(scalar::round(dag, dtype, y))
        });
        self.reshaped(y, ty)
    }

    pub(super) fn batch_norm(&mut self, op: &Op, x: &[NodeId], ty: (DType, &[Dim])) -> Result<NodeId> {
        let dtype = wide(ty.0);
        let (number, epsilon, out) = (Ty::of(dtype), op.attrs.float("epsilon"), ty.0);
        let mut per_channel = vec![ty.1[1].clone()];
        per_channel.resize(ty.1.len() - 1, Dim::ONE);
        let mut operands = vec![x[0]];
        for v in &x[1..] {
            let own = self.dtype(*v);
            operands.push(self.reshaped(*v, (own, &per_channel)));
        }
        Ok(self.pointwise(ty, &operands, 10, move |dag, v| {
            let mut m = Math { dag, ty: number };
            let epsilon = m.c(epsilon);
            let variance = m.dag.bin(Bin::AddF, v[4], epsilon);
            let root = m.dag.un(Un::Sqrt, variance);
            let factor = m.div(v[1], root);
            let centre = m.sub(v[0], v[3]);
            let scaled = m.mul(centre, factor);
            let y = m.add(scaled, v[2]);
            Ok(scalar::round(m.dag, out, y))
        }))
    }

    /// (x1·cos − x2·sin, x2·cos + x1·sin) on halves, or on even and odd elements, of every head.
    pub(super) fn rope(&mut self, op: &Op, x: &[NodeId], ty: (DType, &[Dim])) -> Result<NodeId> {
        let (dtype, shape) = ty;
        let heads = op.attrs.int("heads");
        let merged = shape.len() == 3;
        let last = &shape[shape.len() - 1];
        let width = if merged { last.exact_div(&Dim::from(heads.max(1))) } else { Some(last.clone()) };
        let two = Dim::from(2);
        let half = width.as_ref().and_then(|w| w.exact_div(&two));
        let half = half.ok_or_else(|| unsupported("kernel.op", "the width of a head is not known"))?;
        // The loops run over [batch, heads, length, …] or [batch, length, heads, …], the width in two.
        let interleaved = op.attrs.bool("interleaved");
        let mut split: Vec<Dim> = shape[..shape.len() - 1].to_vec();
        if merged {
            split.push(Dim::from(heads));
        }
        split.extend(if interleaved { [half, two] } else { [two, half] });
        let source = self.reshaped(x[0], (dtype, &split));
        let (n, length) = (split.len(), if merged { 1 } else { 2 });
        let (which, at) = if interleaved { (n - 1, n - 2) } else { (n - 2, n - 1) };
        let (cos, sin) = (x[1], x[2]);
        let batched = !self.shape(cos)[0].is(1);
        let reads = [source, cos, sin];
        let turned = self.element((dtype, &split), &reads, 6, move |b, p| {
            let mut other = p.index.to_vec();
            other[which] = Affine::constant(Dim::ONE).sub(&other[which]);
            let (own, other) = (b.value(source, p.index, p.guard)?, b.value(source, &other, p.guard)?);
            let first = if batched { p.index[0].clone() } else { Affine::zero() };
            let angle = [first, p.index[length].clone(), p.index[at].clone()];
            let (c, s) = (b.value(cos, &angle, p.guard)?, b.value(sin, &angle, p.guard)?);
            let side = b.dag.index(&p.index[which]);
            let zero = b.dag.int(Ty::I64, 0);
            let first_half = b.dag.cmp(crate::dag::Cmp::Eq, side, zero);
            let minus = b.dag.un(Un::NegF, s);
            let signed = b.dag.select(first_half, minus, s);
            let (p1, p2) = (b.dag.bin(Bin::MulFused, own, c), b.dag.bin(Bin::MulFused, other, signed));
            let y = b.dag.bin(Bin::AddFused, p1, p2);
            Ok(scalar::round(b.dag, dtype, y))
        });
        Ok(self.reshaped(turned, ty))
    }
}

/// A sum divided by the number of its terms; integers truncate, and the mean of none is 0.
fn mean(dag: &mut Dag, sum: Id, size: &Dim, dtype: DType) -> Result<Id> {
    let ty = dag.ty(sum);
    if ty.is_float() {
        let n = count(dag, size, ty);
        let y = dag.bin(Bin::DivF, sum, n);
        return Ok(scalar::round(dag, dtype, y));
    }
    if !dtype.is_signed() || ty.bits() < 32 {
        return Err(unsupported("kernel.op", "the mean of narrow or unsigned integers"));
    }
    let n = dag.size(size);
    let n = scalar::cast(dag, n, DType::I64, dtype);
    scalar::binary(dag, OpKind::Div, &djinn_ir::Attrs::new(), dtype, sum, n)
}

/// The shape with these axes of size 1.
pub(super) fn shape_kept(shape: &[Dim], axes: &[usize]) -> Vec<Dim> {
    let size = |(i, d): (usize, &Dim)| if axes.contains(&i) { Dim::ONE } else { d.clone() };
    shape.iter().enumerate().map(size).collect()
}

fn types_product(shape: &[Dim]) -> Dim {
    shape.iter().fold(Dim::ONE, |n, d| &n * d)
}
