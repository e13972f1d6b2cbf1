//! Contractions as plain folds of products: for a GPU without a library, and for tests. Hosts call a library.

use super::window::Windows;
use super::{Expander, broadcast_index, wide};
use crate::affine::Affine;
use crate::dag::{Bin, Cmp, Ty};
use crate::program::{Def, Element, Fold, NodeId};
use crate::scalar;
use djinn_diag::{Result, unsupported};
use djinn_ir::{DType, Dim, Op, OpKind};
use std::rc::Rc;

impl Expander<'_> {
    pub(super) fn contraction(&mut self, op: &Op, x: &[NodeId], ty: (DType, &[Dim])) -> Result<NodeId> {
        match op.kind {
            OpKind::MatMul => Ok(self.matmul(x, ty)),
            OpKind::Conv => self.conv(op, x, ty),
            OpKind::ConvTranspose => self.conv_transpose(op, x, ty),
            OpKind::Sdpa => self.sdpa(op, x, ty),
            _ => Err(unsupported("kernel.op", format!("'{}' has no kernel", op.kind.name()))),
        }
    }

    /// A sum of products, rounded, with an optional addend per element.
    fn products(
        &mut self,
        x: &[NodeId],
        (dtype, shape): (DType, &[Dim]),
        extents: Vec<Dim>,
        element: Element,
        bias: Option<NodeId>,
    ) -> NodeId {
        let sums = wide(dtype);
        let reads: Vec<(NodeId, bool)> = x.iter().map(|n| (*n, true)).collect();
        let sum = self.push((sums, shape), &reads, 2, Def::Reduce { fold: Fold::Sum, extents, element });
        if sums == dtype && bias.is_none() {
            return sum;
        }
        let mut operands = vec![sum];
        operands.extend(bias);
        self.pointwise((dtype, shape), &operands, 1, move |dag, v| {
            let y = if v.len() > 1 { dag.bin(Bin::AddF, v[0], v[1]) } else { v[0] };
            Ok(scalar::round(dag, dtype, y))
        })
    }

    fn matmul(&mut self, x: &[NodeId], ty: (DType, &[Dim])) -> NodeId {
        let (a, b) = (x[0], x[1]);
        let (a_shape, b_shape) = (self.shape(a), self.shape(b));
        let depth = a_shape[a_shape.len() - 1].clone();
        let (row, column) = (a_shape.len() > 1, b_shape.len() > 1);
        let batch = ty.1.len() - usize::from(row) - usize::from(column);
        let (rank, batch_shape) = (ty.1.len(), ty.1[..batch].to_vec());
        let float = ty.0.is_float();
        let element: Element = Rc::new(move |builder, p| {
            let (out, k) = (&p.index[..rank], &p.index[rank]);
            let outer = &out[..batch];
            let lead = a_shape.len().saturating_sub(2);
            let mut at = broadcast_index(builder.dag, outer, &a_shape[..lead], &batch_shape);
            if row {
                at.push(out[batch].clone());
            }
            at.push(k.clone());
            let left = builder.value(a, &at, p.guard)?;
            let lead = b_shape.len().saturating_sub(2);
            let mut at = broadcast_index(builder.dag, outer, &b_shape[..lead], &batch_shape);
            at.push(k.clone());
            if column {
                at.push(out[rank - 1].clone());
            }
            let right = builder.value(b, &at, p.guard)?;
            Ok(builder.dag.bin(if float { Bin::MulFused } else { Bin::Mul }, left, right))
        });
        self.products(x, ty, vec![depth], element, None)
    }

    /// A bias per channel as an addend.
    fn channel_bias(&mut self, x: &[NodeId], rank: usize) -> Option<NodeId> {
        let bias = *x.get(2)?;
        let mut shape = self.shape(bias);
        shape.resize(rank - 1, Dim::ONE);
        let dtype = self.dtype(bias);
        Some(self.reshaped(bias, (dtype, &shape)))
    }

    fn conv(&mut self, op: &Op, x: &[NodeId], ty: (DType, &[Dim])) -> Result<NodeId> {
        let (input, weight) = (x[0], x[1]);
        let (shape, kernel) = (self.shape(input), self.shape(weight));
        let groups = Dim::from(op.attrs.int("groups").max(1));
        let features = ty.1[1].exact_div(&groups);
        let features = features.ok_or_else(|| unsupported("kernel.op", "the features of a group"))?;
        let windows = Windows::new(&op.attrs);
        let (rank, group_channels) = (ty.1.len(), kernel[1].clone());
        let one_group = groups.is(1);
        let extents = kernel[1..].to_vec();
        let element: Element = Rc::new(move |b, p| {
            let (out, k) = p.index.split_at(rank);
            let group = if one_group { Affine::zero() } else { b.dag.quotient(&out[1], &features) };
            let channel = group.scale(&group_channels).add(&k[0]);
            let (mut at, mut inside) = (vec![out[0].clone(), channel], None);
            for axis in 0..rank - 2 {
                let position = windows.position(axis, &out[2 + axis], &k[1 + axis]);
                let here = b.dag.inside(&position, &shape[2 + axis]);
                inside = b.dag.both(inside, here);
                at.push(position);
            }
            let guard = b.dag.both(p.guard, inside);
            let mut value = b.value(input, &at, guard)?;
            if let Some(inside) = inside {
                // Padding is zero, as a factor: sums of products stay such.
                let number = b.dag.ty(value);
                let zero = b.dag.float(number, 0.0);
                value = b.dag.select(inside, value, zero);
            }
            let mut at = vec![out[1].clone()];
            at.extend_from_slice(k);
            let factor = b.value(weight, &at, p.guard)?;
            Ok(b.dag.bin(Bin::MulFused, value, factor))
        });
        let bias = self.channel_bias(x, ty.1.len());
        Ok(self.products(&x[..2], ty, extents, element, bias))
    }

    fn conv_transpose(&mut self, op: &Op, x: &[NodeId], ty: (DType, &[Dim])) -> Result<NodeId> {
        let (input, weight) = (x[0], x[1]);
        let (shape, kernel) = (self.shape(input), self.shape(weight));
        let groups = Dim::from(op.attrs.int("groups").max(1));
        let channels = shape[1].exact_div(&groups);
        let channels = channels.ok_or_else(|| unsupported("kernel.op", "the channels of a group"))?;
        let windows = Windows::new(&op.attrs);
        let (rank, features, one_group) = (ty.1.len(), kernel[1].clone(), groups.is(1));
        let mut extents = vec![channels.clone()];
        extents.extend_from_slice(&kernel[2..]);
        let element: Element = Rc::new(move |b, p| {
            let (out, k) = p.index.split_at(rank);
            let group = if one_group { Affine::zero() } else { b.dag.quotient(&out[1], &features) };
            let channel = group.scale(&channels).add(&k[0]);
            let feature = out[1].sub(&group.scale(&features));
            let (mut at, mut inside) = (vec![out[0].clone(), channel.clone()], None);
            for axis in 0..rank - 2 {
                // out = in·stride + k·dilation − pad must have a whole solution.
                let stride = Dim::from(windows.strides[axis]);
                let reach = k[1 + axis].scale(&Dim::from(windows.dilations[axis]));
                let moved = out[2 + axis].plus(&Dim::from(windows.pads[axis])).sub(&reach);
                let position = b.dag.quotient(&moved, &stride);
                let rest = moved.sub(&position.scale(&stride));
                let (rest, zero) = (b.dag.index(&rest), b.dag.int(Ty::I64, 0));
                let whole = b.dag.cmp(Cmp::Eq, rest, zero);
                let here = b.dag.inside(&position, &shape[2 + axis]);
                let here = b.dag.both(here, Some(whole));
                inside = b.dag.both(inside, here);
                at.push(position);
            }
            let guard = b.dag.both(p.guard, inside);
            let value = b.value(input, &at, guard)?;
            let mut at = vec![channel, feature];
            at.extend_from_slice(&k[1..]);
            let factor = b.value(weight, &at, p.guard)?;
            let product = b.dag.bin(Bin::MulFused, value, factor);
            let Some(inside) = inside else { return Ok(product) };
            let number = b.dag.ty(product);
            let zero = b.dag.float(number, 0.0);
            Ok(b.dag.select(inside, product, zero))
        });
        let bias = self.channel_bias(x, ty.1.len());
        Ok(self.products(&x[..2], ty, extents, element, bias))
    }

    /// `x` as [batch, heads, length, width].
    fn heads(&mut self, x: NodeId, heads: i64) -> Result<NodeId> {
        let (shape, dtype) = (self.shape(x), self.dtype(x));
        if shape.len() == 4 {
            return Ok(x);
        }
        let heads = Dim::from(heads.max(1));
        let width = shape[2].exact_div(&heads);
        let width = width.ok_or_else(|| unsupported("kernel.op", "the width of a head is not known"))?;
        let split = [shape[0].clone(), shape[1].clone(), heads.clone(), width.clone()];
        let apart = self.reshaped(x, (dtype, &split));
        let [batch, length, ..] = split;
        Ok(self.moved((dtype, &[batch, heads, length, width]), apart, |_, i| {
            vec![i[0].clone(), i[2].clone(), i[1].clone(), i[3].clone()]
        }))
    }

    fn sdpa(&mut self, op: &Op, x: &[NodeId], ty: (DType, &[Dim])) -> Result<NodeId> {
        let q = self.heads(x[0], op.attrs.int("query_heads"))?;
        let k = self.heads(x[1], op.attrs.int("kv_heads"))?;
        let v = self.heads(x[2], op.attrs.int("kv_heads"))?;
        let (qs, ks, vs) = (self.shape(q), self.shape(k), self.shape(v));
        let sums = wide(ty.0);
        let number = Ty::of(sums);
        let sharing = qs[1].exact_div(&ks[1]);
        let sharing = sharing.ok_or_else(|| unsupported("kernel.op", "the heads that share a key"))?;
        let scores_shape = [qs[0].clone(), qs[1].clone(), qs[2].clone(), ks[2].clone()];
        let share = sharing.clone();
        let element: Element = Rc::new(move |b, p| {
            let i = p.index;
            let head = b.dag.quotient(&i[1], &share);
            let left = b.value(q, &[i[0].clone(), i[1].clone(), i[2].clone(), i[4].clone()], p.guard)?;
            let right = b.value(k, &[i[0].clone(), head, i[3].clone(), i[4].clone()], p.guard)?;
            Ok(b.dag.bin(Bin::MulFused, left, right))
        });
        let def = Def::Reduce { fold: Fold::Sum, extents: vec![qs[3].clone()], element };
        let raw = self.push((sums, &scores_shape), &[(q, true), (k, true)], 2, def);
        let masked = self.masked(op, raw, x.get(3).copied(), (sums, &scores_shape), ty.0);
        self.program.nodes[masked.0 as usize].keep = true;
        let weights = self.softmax(masked, 3, false, (sums, &scores_shape), true);
        let result = [qs[0].clone(), qs[1].clone(), qs[2].clone(), vs[3].clone()];
        let element: Element = Rc::new(move |b, p| {
            let i = p.index;
            let head = b.dag.quotient(&i[1], &sharing);
            let left =
                b.value(weights, &[i[0].clone(), i[1].clone(), i[2].clone(), i[4].clone()], p.guard)?;
            let right = b.value(v, &[i[0].clone(), head, i[4].clone(), i[3].clone()], p.guard)?;
            Ok(b.dag.bin(Bin::MulFused, left, right))
        });
        let _ = number;
        let out = self.products(&[weights, v], (ty.0, &result), vec![ks[2].clone()], element, None);
        if ty.1.len() == 4 {
            return Ok(out);
        }
        let [batch, heads, length, width] = result;
        let turned = self.moved((ty.0, &[batch, length, heads, width]), out, |_, i| {
            vec![i[0].clone(), i[2].clone(), i[1].clone(), i[3].clone()]
        });
        Ok(self.reshaped(turned, ty))
    }

    /// Scores scaled and masked.
    fn masked(
        &mut self,
        op: &Op,
        raw: NodeId,
        mask: Option<NodeId>,
        (sums, shape): (DType, &[Dim]),
        dtype: DType,
    ) -> NodeId {
        let (scale, causal) = (op.attrs.float("scale"), op.attrs.bool("causal"));
        let offset = op.attrs.dim("causal_offset");
        let number = Ty::of(sums);
        let mask_type = mask.map(|m| (m, self.dtype(m), self.shape(m)));
        let mut reads = vec![raw];
        reads.extend(mask);
        let to = shape.to_vec();
        self.element((sums, shape), &reads, 4, move |b, p| {
            let score = b.value(raw, p.index, p.guard)?;
            let (factor, lowest) = (b.dag.float(number, scale), b.dag.float(number, f64::NEG_INFINITY));
            let mut y = b.dag.bin(Bin::MulF, score, factor);
            if let Some((mask, mask_type, mask_shape)) = &mask_type {
                let at = broadcast_index(b.dag, p.index, mask_shape, &to);
                let m = b.value(*mask, &at, p.guard)?;
                y = if *mask_type == DType::Bool {
                    b.dag.select(m, y, lowest)
                } else {
                    let sum = b.dag.bin(Bin::AddF, y, m);
                    scalar::round(b.dag, dtype, sum)
                };
            }
            if causal {
                let distance = p.index[3].sub(&p.index[2]);
                let (distance, offset) = (b.dag.index(&distance), b.dag.size(&offset));
                let seen = b.dag.cmp(Cmp::SLe, distance, offset);
                y = b.dag.select(seen, y, lowest);
            }
            Ok(y)
        })
    }
}
