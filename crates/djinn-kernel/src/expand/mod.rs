//! Operations as tensors that are defined point by point.

mod contraction;
mod indexing;
mod movement;
mod recurrence;
mod reduction;
mod resize;
mod sorting;
mod window;

use crate::affine::Affine;
use crate::build::Builder;
use crate::dag::{Dag, Id, Ty};
use crate::program::{Def, Element, Node, NodeId, Point, Program};
use crate::scalar;
use djinn_diag::{Result, internal, unsupported};
use djinn_ir::{DType, Dim, Graph, Op, OpId, OpKind, TensorData, ValueId};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Why an operation is not lowered, whatever its types; `None` if it is.
pub(crate) fn refusal(kind: OpKind) -> Option<&'static str> {
    use OpKind as K;
    match kind {
        K::NonZero => Some("the size of the result is not known before it is computed"),
        K::Range | K::DynamicReshape | K::DynamicBroadcast | K::DynamicSlice | K::DynamicPad => {
            Some("the shape of the result depends on values")
        }
        K::DynamicTile => Some("the shape of the result depends on values"),
        K::If | K::Loop | K::Call => Some("control flow runs on the host"),
        K::Opaque => Some("the operation is unknown"),
        K::Transfer => Some("copies between devices are commands of the plan"),
        _ => None,
    }
}

/// Makes a program from operations.
pub(crate) struct Expander<'g> {
    pub(crate) graph: &'g Graph,
    pub(crate) program: Program,
    of: BTreeMap<ValueId, NodeId>,
}

/// The program of operations in order.
pub(crate) fn expand(graph: &Graph, ops: &[OpId], writes: &[ValueId]) -> Result<Program> {
    let mut expander = Expander { graph, program: Program::default(), of: BTreeMap::new() };
    for id in ops {
        let op =
            graph.get_op(*id).ok_or_else(|| internal("kernel.op", "an operation is not in its graph"))?;
        expander.op(op).map_err(|e| e.at(format!("'{}'", op.kind.name())))?;
    }
    for v in writes {
        let node = *expander.of.get(v).ok_or_else(|| internal("kernel.write", "a value is not computed"))?;
        expander.program.writes.push((*v, node));
    }
    Ok(expander.program)
}

/// The type in which statistics over elements of this type are computed.
pub(crate) fn wide(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        other => other,
    }
}

/// The index of an operand of shape `from` that broadcasts to `to`.
pub(crate) fn broadcast_index(dag: &mut Dag, index: &[Affine], from: &[Dim], to: &[Dim]) -> Vec<Affine> {
    let offset = to.len() - from.len();
    let pick = |(axis, size): (usize, &Dim)| {
        let at = &index[offset + axis];
        if size.is(1) {
            Affine::zero()
        } else if size == &to[offset + axis] || size.as_const().is_some() {
            at.clone()
        } else {
            // A symbolic size that may be 1 at run time.
            let (at, size) = (dag.index(at), dag.size(size));
            let one = dag.int(Ty::I64, 1);
            let last = dag.bin(crate::dag::Bin::Sub, size, one);
            let low = dag.bin(crate::dag::Bin::MinS, at, last);
            dag.computed(low, to[offset + axis].as_const().map(Dim::from))
        }
    };
    from.iter().enumerate().map(pick).collect()
}

impl Expander<'_> {
    pub(crate) fn shape(&self, node: NodeId) -> Vec<Dim> {
        self.program.node(node).shape.clone()
    }

    pub(crate) fn dtype(&self, node: NodeId) -> DType {
        self.program.node(node).dtype
    }

    /// The tensor of a value: computed by an earlier operation, a literal, or read.
    pub(crate) fn operand(&mut self, v: ValueId) -> NodeId {
        if let Some(node) = self.of.get(&v) {
            return *node;
        }
        let ty = self.graph.ty(v);
        let literal = self.graph.definition(v).and_then(|(op, _)| literal(self.graph.op(op)));
        let def = match literal {
            Some(value) => Def::Element(value),
            None => Def::Read(v),
        };
        let node = self.program.push(Node {
            dtype: ty.dtype,
            unsigned: !ty.dtype.is_signed(),
            shape: ty.shape.clone(),
            def,
            reads: Vec::new(),
            cost: 1,
            keep: false,
            recurrence: None,
        });
        self.of.insert(v, node);
        node
    }

    pub(crate) fn push(
        &mut self,
        (dtype, shape): (DType, &[Dim]),
        reads: &[(NodeId, bool)],
        cost: u32,
        def: Def,
    ) -> NodeId {
        self.program.push(Node {
            dtype,
            unsigned: !dtype.is_signed(),
            shape: shape.to_vec(),
            def,
            reads: reads.to_vec(),
            cost,
            keep: false,
            recurrence: None,
        })
    }

    /// A tensor given by a function of the index.
    pub(crate) fn element(
        &mut self,
        ty: (DType, &[Dim]),
        reads: &[NodeId],
        cost: u32,
        f: impl Fn(&mut Builder, Point) -> Result<Id> + 'static,
    ) -> NodeId {
        let reads: Vec<(NodeId, bool)> = reads.iter().map(|r| (*r, false)).collect();
        self.push(ty, &reads, cost, Def::Element(Rc::new(f)))
    }

    /// A tensor whose elements are a function of the elements of tensors that broadcast to its shape.
    pub(crate) fn pointwise(
        &mut self,
        (dtype, shape): (DType, &[Dim]),
        operands: &[NodeId],
        cost: u32,
        f: impl Fn(&mut Dag, &[Id]) -> Result<Id> + 'static,
    ) -> NodeId {
        let reads: Vec<(NodeId, bool)> =
            operands.iter().map(|o| (*o, repeats_outside(&self.program.node(*o).shape, shape))).collect();
        let (operands, shape_of_result) = (operands.to_vec(), shape.to_vec());
        let element: Element = Rc::new(move |b, p| {
            let mut values = Vec::with_capacity(operands.len());
            for operand in &operands {
                let from = b.program.node(*operand).shape.clone();
                let index = broadcast_index(b.dag, p.index, &from, &shape_of_result);
                values.push(b.value(*operand, &index, p.guard)?);
            }
            f(b.dag, &values)
        });
        self.push((dtype, shape), &reads, cost, Def::Element(element))
    }

    fn op(&mut self, op: &Op) -> Result<()> {
        if let Some(why) = refusal(op.kind) {
            return Err(unsupported("kernel.op", format!("'{}': {why}", op.kind.name())));
        }
        let result =
            *op.results.first().ok_or_else(|| internal("kernel.op", "an operation has no result"))?;
        let operands: Vec<NodeId> = op.operands.iter().map(|v| self.operand(*v)).collect();
        let ty = self.graph.ty(result).clone();
        let ty = (ty.dtype, ty.shape.as_slice());
        let nodes = match op.kind {
            OpKind::TopK => {
                let [values, positions] = self.topk(op, operands[0], ty.1);
                vec![values, positions]
            }
            OpKind::Lstm => self.lstm(op, &operands, ty.0)?.to_vec(),
            _ => vec![self.result(op, &operands, ty)?],
        };
        self.of.extend(op.results.iter().copied().zip(nodes));
        Ok(())
    }

    fn result(&mut self, op: &Op, x: &[NodeId], ty: (DType, &[Dim])) -> Result<NodeId> {
        use OpKind as K;
        use djinn_ir::ops::CostClass as C;
        match op.kind {
            K::Constant | K::Weight => Err(unsupported("kernel.op", "constants are read, not computed")),
            K::Iota | K::DimExpr => self.source(op, ty),
            K::Trilu => self.trilu(op, x[0], ty),
            K::Rope => self.rope(op, x, ty),
            K::BatchNorm => self.batch_norm(op, x, ty),
            K::Resize => self.resize(op, x[0], ty),
            K::MaxPool | K::AvgPool => self.pool(op, x[0], ty),
            _ => match op.kind.def().cost {
                C::Elementwise => self.elementwise(op, x, ty),
                C::Free | C::Copy => match op.kind {
                    K::Gather | K::GatherElements | K::GatherNd => self.gathers(op, x, ty),
                    K::ScatterNd | K::ScatterElements | K::IndexCopy => self.scatters(op, x, ty),
                    _ => self.movement(op, x, ty),
                },
                C::Reduction => self.reduction(op, x[0], ty),
                C::Normalization => self.normalization(op, x, ty),
                C::Contraction => self.contraction(op, x, ty),
                C::Control => Err(unsupported("kernel.op", "control flow runs on the host")),
            },
        }
    }

    fn elementwise(&mut self, op: &Op, x: &[NodeId], ty: (DType, &[Dim])) -> Result<NodeId> {
        use OpKind as K;
        let (kind, attrs) = (op.kind, op.attrs.clone());
        let from = self.dtype(x[0]);
        let second = x.get(1).map(|n| self.dtype(*n));
        let out = ty.0;
        if kind == K::BitCast
            && [from, out].iter().any(|d| matches!(d, DType::F16 | DType::BF16 | DType::Bool))
        {
            return Err(unsupported(
                "kernel.op",
                "the bits of narrow floats and booleans are not taken apart",
            ));
        }
        let cost = scalar::cost(kind);
        Ok(self.pointwise(ty, x, cost, move |dag, v| {
            let y = match kind {
                K::Select => return Ok(dag.select(v[0], v[1], v[2])),
                K::Cast => return Ok(scalar::cast(dag, v[0], from, out)),
                K::BitCast if Ty::of(from) == Ty::of(out) => return Ok(v[0]),
                K::BitCast => return Ok(dag.conv(crate::dag::Conv::Bits, Ty::of(out), v[0])),
                K::Compare => return scalar::compare(dag, attrs.str("predicate"), from, v[0], v[1]),
                K::Clamp => {
                    let low = scalar::binary(dag, K::Max, &attrs, from, v[0], v[1])?;
                    scalar::binary(dag, K::Min, &attrs, from, low, v[2])?
                }
                K::Pow => scalar::pow(dag, (from, v[0]), (second.unwrap_or(from), v[1]))?,
                _ if v.len() == 1 => scalar::unary(dag, kind, &attrs, from, v[0])?,
                _ => scalar::binary(dag, kind, &attrs, from, v[0], v[1])?,
            };
            Ok(scalar::round(dag, out, y))
        }))
    }
}

/// Is every element of a tensor of shape `from`, broadcast to `to`, needed again for an axis outside its own?
fn repeats_outside(from: &[Dim], to: &[Dim]) -> bool {
    let offset = to.len() - from.len();
    let size = |axis: usize| if axis < offset { None } else { Some(&from[axis - offset]) };
    let repeated = |axis: usize| size(axis).is_none_or(|s| s.is(1)) && !to[axis].is(1);
    let own = |axis: usize| size(axis).is_some_and(|s| !s.is(1));
    (0..to.len()).any(|outer| repeated(outer) && (outer + 1..to.len()).any(own))
}

/// The function that gives the one number of a constant.
fn literal(op: &Op) -> Option<Element> {
    if op.kind != OpKind::Constant {
        return None;
    }
    let data: TensorData = op.attrs.tensor("value").filter(|d| d.numel() == 1)?.clone();
    let ty = Ty::of(data.dtype());
    let int = data.get_i64(0);
    let float = data.get_f64(0);
    Some(Rc::new(move |b, _| match (ty.is_float(), float, int) {
        (true, Some(value), _) => Ok(b.dag.float(ty, value)),
        (false, _, Some(value)) => Ok(b.dag.int(ty, value)),
        _ => Err(internal("kernel.constant", "a constant has no value")),
    }))
}
