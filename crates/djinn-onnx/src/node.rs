//! What an operator's import function works with: operands, attributes and building blocks.

use crate::attributes::Attributes;
use crate::model::Importer;
use crate::names::Hint;
use djinn_diag::{Diagnostic, Result, input, unsupported};
use djinn_ir::data::encode_f64;
use djinn_ir::types::normalize_axis;
use djinn_ir::{Attrs, DType, Dim, OpKind, SymbolTable, TensorData, TensorType, attrs};
use djinn_onnx_proto::NodeProto;
use djinn_srg::SrgValue;

/// Results by number; `None` for results that nobody reads or that are not supported.
pub(crate) type Outputs = Vec<Option<SrgValue>>;
/// The import function of an operator.
pub(crate) type Handler = fn(&mut Node<'_, '_>) -> Result<Outputs>;

/// One node under import.
pub(crate) struct Node<'a, 'm> {
    /// The import around it.
    pub(crate) imp: &'a mut Importer<'m>,
    /// The node.
    pub(crate) proto: &'a NodeProto,
    /// Its attributes.
    pub(crate) attrs: Attributes<'a>,
    /// Version of its operator set.
    pub(crate) version: i64,
    /// Operands by number; `None` for those left out.
    pub(crate) inputs: Vec<Option<SrgValue>>,
}

/// One result.
#[allow(clippy::unnecessary_wraps, reason = "the tail call of most import functions")]
pub(crate) fn one(v: SrgValue) -> Result<Outputs> {
    Ok(vec![Some(v)])
}

/// A size from a constant.
pub(crate) fn size(v: i64) -> Dim {
    Dim::from(v)
}

/// Is `a ≥ b` for all values of the symbols?
pub(crate) fn proves_ge(a: &Dim, b: &Dim) -> bool {
    a.provably_ge(b, &SymbolTable::default())
}

impl Node<'_, '_> {
    // ---- operands

    /// Operand `i`, which must be there.
    pub(crate) fn x(&self, i: usize) -> Result<SrgValue> {
        self.opt(i).ok_or_else(|| {
            input("onnx.operands", format!("operand {i} of '{}' is missing", self.proto.op_type))
                .help("the file is damaged or uses another operator set version than it declares")
        })
    }

    /// Operand `i`, if it is there.
    pub(crate) fn opt(&self, i: usize) -> Option<SrgValue> {
        self.inputs.get(i).copied().flatten()
    }

    /// All operands, none of which may be left out.
    pub(crate) fn all(&self) -> Result<Vec<SrgValue>> {
        (0..self.inputs.len()).map(|i| self.x(i)).collect()
    }

    /// Does anyone read result `i`?
    pub(crate) fn wants(&self, i: usize) -> bool {
        self.proto.output.get(i).is_some_and(|o| !o.is_empty())
    }

    /// The type of a value.
    pub(crate) fn ty(&self, v: SrgValue) -> TensorType {
        self.imp.b.ty(v).clone()
    }

    /// The shape of a value.
    pub(crate) fn shape(&self, v: SrgValue) -> Vec<Dim> {
        self.imp.b.ty(v).shape.clone()
    }

    /// The rank of a value.
    pub(crate) fn rank(&self, v: SrgValue) -> usize {
        self.imp.b.ty(v).rank()
    }

    /// The element type of a value.
    pub(crate) fn dtype(&self, v: SrgValue) -> DType {
        self.imp.b.ty(v).dtype
    }

    /// The elements of an integer value as sizes, if they are known.
    pub(crate) fn known(&self, v: SrgValue) -> Option<Vec<Dim>> {
        self.imp.b.known(v).map(|k| k.elements.clone())
    }

    /// The elements of a value as integers, if they are known constants.
    pub(crate) fn consts(&self, v: SrgValue) -> Option<Vec<i64>> {
        if let Some(k) = self.imp.b.known(v) {
            return k.as_consts();
        }
        self.imp.b.constant_value(v)?.to_i64s()
    }

    /// The elements of a value as numbers, if they are known constants.
    pub(crate) fn numbers(&self, v: SrgValue) -> Option<Vec<f64>> {
        if let Some(d) = self.imp.b.constant_value(v) {
            return (0..d.numel()).map(|i| d.get_f64(i)).collect();
        }
        Some(self.consts(v)?.into_iter().map(|v| v as f64).collect())
    }

    /// The one element of a value, if it is a known constant.
    pub(crate) fn number(&self, v: SrgValue) -> Option<f64> {
        if self.ty(v).numel().as_const() != Some(1) {
            return None;
        }
        self.numbers(v)?.first().copied()
    }

    /// Operand `i` as known sizes: `Ok(None)` if it is left out, `unsupported` if its value is not known.
    pub(crate) fn known_operand(&self, i: usize, what: &str) -> Result<Option<Vec<Dim>>> {
        let Some(v) = self.opt(i) else { return Ok(None) };
        self.known(v).map(Some).ok_or_else(|| self.not_constant(what))
    }

    /// Operand `i` as known integers: `Ok(None)` if it is left out, `unsupported` if its value is not known.
    pub(crate) fn const_operand(&self, i: usize, what: &str) -> Result<Option<Vec<i64>>> {
        let Some(v) = self.opt(i) else { return Ok(None) };
        if self.ty(v).numel().is(0) {
            return Ok(Some(Vec::new()));
        }
        self.consts(v).map(Some).ok_or_else(|| self.not_constant(what))
    }

    /// An axis counted from the front.
    pub(crate) fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        normalize_axis(axis, rank).ok_or_else(|| {
            input("onnx.axis", format!("axis {axis} is out of range for rank {rank}"))
                .help("the file is damaged; export the model again")
        })
    }

    /// Distinct axes counted from the front, sorted.
    pub(crate) fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<i64>> {
        let mut out: Vec<i64> =
            axes.iter().map(|a| self.axis(*a, rank).map(|a| a as i64)).collect::<Result<_>>()?;
        out.sort_unstable();
        if out.windows(2).any(|w| w[0] == w[1]) {
            return Err(self.invalid(format!("the axes {axes:?} are not distinct")));
        }
        Ok(out)
    }

    // ---- attributes

    /// The integer attribute `name`, or its default.
    pub(crate) fn int(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.attrs.int(name)?.unwrap_or(default))
    }

    /// The integer attribute `name` as a truth value.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.attrs.int(name)?.map_or(default, |v| v != 0))
    }

    /// The float attribute `name`, or its default.
    pub(crate) fn float(&self, name: &str, default: f32) -> Result<f64> {
        Ok(self.attrs.float(name)?.unwrap_or(f64::from(default)))
    }

    /// The text attribute `name`, or its default.
    pub(crate) fn text(&self, name: &str, default: &str) -> Result<String> {
        Ok(self.attrs.text(name)?.unwrap_or_else(|| default.to_owned()))
    }

    /// The declared type of result `i`.
    pub(crate) fn hint(&self, i: usize) -> Option<&Hint> {
        self.imp.hint(self.proto.output.get(i)?)
    }

    /// The declared size of one axis of result 0, which has this rank.
    pub(crate) fn hint_dim(&self, axis: usize, rank: usize) -> Option<Dim> {
        self.hint(0)?.dim(axis, rank).cloned()
    }

    /// The declared size of one axis of result 0, or a fresh symbol.
    pub(crate) fn hint_or_fresh(&mut self, axis: usize, rank: usize) -> Dim {
        match self.hint_dim(axis, rank) {
            Some(d) => d,
            None => self.imp.b.fresh_symbol(),
        }
    }

    // ---- errors

    /// This node is wrong.
    pub(crate) fn invalid(&self, message: impl Into<String>) -> Box<Diagnostic> {
        input("onnx.node", message).help("the file is damaged; export the model again")
    }

    /// This node is right, but not supported.
    pub(crate) fn unsupported(&self, why: &str) -> Box<Diagnostic> {
        let op = &self.proto.op_type;
        let domain = if self.proto.domain.is_empty() { "ai.onnx" } else { &self.proto.domain };
        unsupported("onnx.op", format!("{op} (domain {domain}, version {}): {why}", self.version)).help(
            "replace the operator before export, or run shape inference on the model so that it can be kept as an \
             opaque operation",
        )
    }

    fn not_constant(&self, what: &str) -> Box<Diagnostic> {
        self.unsupported(&format!("{what} must be known when the model is compiled"))
    }

    // ---- building blocks

    /// Adds an operation with one result.
    pub(crate) fn op(&mut self, kind: OpKind, operands: &[SrgValue], attrs: Attrs) -> Result<SrgValue> {
        self.imp.b.op(kind, operands, attrs)
    }

    /// Adds an operation without attributes.
    pub(crate) fn plain(&mut self, kind: OpKind, operands: &[SrgValue]) -> Result<SrgValue> {
        self.op(kind, operands, Attrs::new())
    }

    /// Adds an operation with the attribute `axis`.
    pub(crate) fn along(&mut self, kind: OpKind, operands: &[SrgValue], axis: usize) -> Result<SrgValue> {
        self.op(kind, operands, attrs! { axis: axis as i64 })
    }

    /// A constant scalar.
    pub(crate) fn scalar(&mut self, dtype: DType, value: f64) -> Result<SrgValue> {
        let data = TensorData::new(dtype, Vec::new(), encode_f64(dtype, value));
        let data = data.ok_or_else(|| self.invalid("a scalar could not be made"))?;
        self.imp.b.constant(data)
    }

    /// A constant i64 vector.
    pub(crate) fn vector(&mut self, values: &[i64]) -> Result<SrgValue> {
        let data = TensorData::from_i64(&[values.len()], values);
        let data = data.ok_or_else(|| self.invalid("a vector could not be made"))?;
        self.imp.b.constant(data)
    }

    /// `x` combined with a constant.
    pub(crate) fn with_scalar(&mut self, kind: OpKind, x: SrgValue, value: f64) -> Result<SrgValue> {
        let c = self.scalar(self.dtype(x), value)?;
        self.plain(kind, &[x, c])
    }

    /// A comparison.
    pub(crate) fn compare(&mut self, predicate: &str, a: SrgValue, b: SrgValue) -> Result<SrgValue> {
        self.op(OpKind::Compare, &[a, b], attrs! { predicate: predicate })
    }

    /// A conversion; nothing if the type is right already.
    pub(crate) fn cast(&mut self, x: SrgValue, to: DType) -> Result<SrgValue> {
        if self.dtype(x) == to {
            return Ok(x);
        }
        self.op(OpKind::Cast, &[x], attrs! { to: to })
    }

    /// A reshape; nothing if the shape is right already.
    pub(crate) fn reshape(&mut self, x: SrgValue, shape: Vec<Dim>) -> Result<SrgValue> {
        if self.imp.b.ty(x).shape == shape {
            return Ok(x);
        }
        self.op(OpKind::Reshape, &[x], attrs! { shape: shape })
    }

    /// The one element of a value as a scalar.
    pub(crate) fn as_scalar(&mut self, x: SrgValue) -> Result<SrgValue> {
        self.reshape(x, Vec::new())
    }

    /// A new axis of size 1.
    pub(crate) fn unsqueeze(&mut self, x: SrgValue, axis: usize) -> Result<SrgValue> {
        let mut shape = self.shape(x);
        shape.insert(axis, Dim::ONE);
        self.reshape(x, shape)
    }

    /// A transpose; nothing for the identity.
    pub(crate) fn transpose(&mut self, x: SrgValue, perm: &[usize]) -> Result<SrgValue> {
        if perm.iter().enumerate().all(|(i, p)| i == *p) && perm.len() == self.rank(x) {
            return Ok(x);
        }
        let perm: Vec<i64> = perm.iter().map(|p| *p as i64).collect();
        self.op(OpKind::Transpose, &[x], attrs! { perm: perm })
    }

    /// Swaps the last two axes.
    pub(crate) fn swap_last(&mut self, x: SrgValue) -> Result<SrgValue> {
        let rank = self.rank(x);
        let mut perm: Vec<usize> = (0..rank).collect();
        if rank >= 2 {
            perm.swap(rank - 1, rank - 2);
        }
        self.transpose(x, &perm)
    }

    /// A broadcast; nothing if the shape is right already.
    pub(crate) fn broadcast(&mut self, x: SrgValue, shape: Vec<Dim>) -> Result<SrgValue> {
        if self.imp.b.ty(x).shape == shape {
            return Ok(x);
        }
        self.op(OpKind::Broadcast, &[x], attrs! { shape: shape })
    }

    /// Elements `start..limit` along one axis, which must be in range; nothing for the whole axis.
    pub(crate) fn slice(&mut self, x: SrgValue, axis: usize, start: Dim, limit: Dim) -> Result<SrgValue> {
        if start.is(0) && self.imp.b.ty(x).shape.get(axis) == Some(&limit) {
            return Ok(x);
        }
        self.op(OpKind::Slice, &[x], attrs! { axis: axis as i64, start: start, limit: limit, stride: 1i64 })
    }

    /// Joins values along one axis.
    pub(crate) fn concat(&mut self, values: &[SrgValue], axis: usize) -> Result<SrgValue> {
        match values {
            [one] => Ok(*one),
            _ => self.along(OpKind::Concat, values, axis),
        }
    }

    /// A reduction over sorted axes; nothing for no axes.
    pub(crate) fn reduce(
        &mut self,
        kind: OpKind,
        x: SrgValue,
        axes: &[i64],
        keepdims: bool,
    ) -> Result<SrgValue> {
        if axes.is_empty() {
            return Ok(x);
        }
        self.op(kind, &[x], attrs! { axes: axes.to_vec(), keepdims: keepdims })
    }

    /// 0, 1, 2, … along one axis of this shape.
    pub(crate) fn iota(&mut self, shape: Vec<Dim>, axis: usize, dtype: DType) -> Result<SrgValue> {
        self.op(OpKind::Iota, &[], attrs! { shape: shape, axis: axis as i64, dtype: dtype })
    }
}
