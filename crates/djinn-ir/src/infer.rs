//! Result types of every operation, and the labelled constraints of the op table.
//!
//! [`infer`] is the one place where an operation's type rule stands: frontends, the verifier and the e-graph
//! call it. Sizes are symbolic; where a constraint cannot be decided for all values of the symbols it is taken
//! to hold, since the model file promises that the model runs.

use crate::attr::Attrs;
use crate::dim::{Dim, product};
use crate::dtype::DType;
use crate::graph::Graph;
use crate::ops::{OpDef, OpKind};
use crate::types::{TensorType, broadcast};
use djinn_diag::{Result, input, internal};

/// The result types of an operation, after checking operand count, attributes and the op table's constraints.
///
/// # Errors
/// A diagnostic whose code is the label of the violated constraint (`matmul.C3`), or `op.operands`, `op.attrs`,
/// `op.regions` for the checks that all operations share.
pub fn infer(
    kind: OpKind,
    operands: &[&TensorType],
    attrs: &Attrs,
    regions: &[Graph],
) -> Result<Vec<TensorType>> {
    let def = kind.def();
    check_shape_of_op(def, operands.len(), attrs, regions.len())?;
    let rule = Rule { def, t: operands, attrs };
    let types = rule.types(regions)?;
    for ty in &types {
        if ty.shape.iter().any(Dim::is_overflow) || ty.numel().is_overflow() {
            return Err(input("type.C2", format!("the size of a result of '{}' overflows", def.name)));
        }
        if let Some(d) = ty.shape.iter().find(|d| d.as_const().is_some_and(|c| c < 0)) {
            return Err(input("type.C1", format!("a result of '{}' has the negative size {d}", def.name)));
        }
    }
    Ok(types)
}

fn check_shape_of_op(def: &OpDef, operands: usize, attrs: &Attrs, regions: usize) -> Result<()> {
    if operands < def.min_operands() || def.max_operands().is_some_and(|max| operands > max) {
        let wants = def.operands.join(", ");
        return Err(input("op.operands", format!("'{}' takes ({wants}), not {operands} operands", def.name)));
    }
    if regions != def.regions {
        return Err(input(
            "op.regions",
            format!("'{}' takes {} regions, not {regions}", def.name, def.regions),
        ));
    }
    for a in def.attrs {
        match attrs.get(a.name) {
            None => {
                return Err(input("op.attrs", format!("'{}' needs the attribute '{}'", def.name, a.name)));
            }
            Some(v) if !a.kind.accepts(v) => {
                let message =
                    format!("attribute '{}' of '{}' must be {:?}, not {v:?}", a.name, def.name, a.kind);
                return Err(input("op.attrs", message));
            }
            Some(_) => {}
        }
    }
    if attrs.len() != def.attrs.len() {
        let extra = attrs.iter().find(|(n, _)| !def.attrs.iter().any(|a| a.name == *n));
        let name = extra.map_or("?", |(n, _)| n);
        return Err(input("op.attrs", format!("'{}' has no attribute '{name}'", def.name)));
    }
    Ok(())
}

/// One operation under inference.
struct Rule<'a> {
    def: &'static OpDef,
    t: &'a [&'a TensorType],
    attrs: &'a Attrs,
}

impl Rule<'_> {
    /// Fails with the constraint's label and text unless `holds`.
    fn require(&self, label: &str, holds: bool) -> Result<()> {
        if holds {
            return Ok(());
        }
        let code = format!("{}.{label}", self.def.name);
        let text = self.def.constraints.iter().find(|(l, _)| *l == code).map(|(_, t)| *t);
        let Some(text) = text else {
            return Err(internal(code, "this constraint is not in the op table"));
        };
        let operands: Vec<String> = self.t.iter().map(ToString::to_string).collect();
        let message = format!("{text} (operands: {})", operands.join(", "));
        Err(input(code, message))
    }

    fn axis(&self, label: &str) -> Result<usize> {
        let axis = usize::try_from(self.attrs.int("axis")).ok().filter(|a| *a < self.t[0].rank());
        self.require(label, axis.is_some())?;
        Ok(axis.unwrap_or(0))
    }

    fn all_same_dtype(&self) -> bool {
        self.t.windows(2).all(|w| w[0].dtype == w[1].dtype)
    }

    fn broadcast(&self, label: &str) -> Result<Vec<Dim>> {
        let shape = broadcast(self.t.iter().map(|t| t.shape.as_slice()));
        self.require(label, shape.is_ok())?;
        Ok(shape.unwrap_or_default())
    }

    fn types(&self, regions: &[Graph]) -> Result<Vec<TensorType>> {
        match self.def.kind {
            OpKind::If => self.if_types(regions),
            OpKind::Loop => self.loop_types(regions),
            OpKind::Call | OpKind::Opaque => Ok(self.attrs.types("types").to_vec()),
            OpKind::TopK => {
                let mut ty = self.t[0].clone();
                ty.shape[self.axis("C1")?] = self.attrs.dim("k");
                Ok(vec![ty.clone(), ty.with_dtype(DType::I64)])
            }
            OpKind::Lstm => self.lstm(),
            _ => Ok(vec![self.single()?]),
        }
    }

    #[allow(clippy::too_many_lines, reason = "one arm per operation of the table")]
    fn single(&self) -> Result<TensorType> {
        use OpKind as K;
        let x = || self.t[0];
        match self.def.kind {
            K::Constant => Ok(self.attrs.tensor("value").map_or(TensorType::scalar(DType::F32), |t| t.ty())),
            K::Weight => {
                let types = self.attrs.types("types");
                self.require("C1", types.len() == 1 && types[0].const_shape().is_some())?;
                Ok(types[0].clone())
            }
            K::DimExpr => {
                let (exprs, scalar) = (self.attrs.dims("exprs"), self.attrs.bool("scalar"));
                self.require("C1", !scalar || exprs.len() == 1)?;
                let shape = if scalar { vec![] } else { vec![Dim::from(exprs.len())] };
                Ok(TensorType::new(DType::I64, shape))
            }
            K::Iota => {
                let shape = self.attrs.dims("shape");
                let axis = self.attrs.int("axis");
                self.require("C1", usize::try_from(axis).is_ok_and(|a| a < shape.len()))?;
                let dtype = self.attrs.dtype("dtype").unwrap_or(DType::I64);
                self.require("C2", dtype != DType::Bool)?;
                Ok(TensorType::new(dtype, shape.iter().cloned()))
            }
            K::Range => {
                self.require("C1", self.all_same_dtype() && self.t.iter().all(|t| t.rank() == 0))?;
                self.require("C2", self.attrs.dims("result_shape").len() == 1)?;
                Ok(self.result_shape())
            }
            K::Abs | K::Neg | K::Sign | K::Relu => Ok(x().clone()),
            K::Exp
            | K::Log
            | K::Sqrt
            | K::Rsqrt
            | K::Reciprocal
            | K::Sin
            | K::Cos
            | K::Tan
            | K::Asin
            | K::Acos
            | K::Atan
            | K::Sinh
            | K::Cosh
            | K::Tanh
            | K::Asinh
            | K::Acosh
            | K::Atanh
            | K::Erf
            | K::Sigmoid
            | K::Softplus
            | K::LeakyRelu
            | K::Elu
            | K::Silu
            | K::Gelu
            | K::HardSigmoid
            | K::HardSwish
            | K::Mish
            | K::Floor
            | K::Ceil
            | K::Round => {
                self.require("C1", x().dtype.is_float())?;
                Ok(x().clone())
            }
            K::IsNan | K::IsInf => {
                self.require("C1", x().dtype.is_float())?;
                Ok(x().with_dtype(DType::Bool))
            }
            K::Not => {
                self.require("C1", !x().dtype.is_float())?;
                Ok(x().clone())
            }
            K::Cast => Ok(x().with_dtype(self.attrs.dtype("to").unwrap_or(x().dtype))),
            K::BitCast => {
                let to = self.attrs.dtype("to").unwrap_or(x().dtype);
                self.require("C1", to.size() == x().dtype.size())?;
                Ok(x().with_dtype(to))
            }
            K::Add | K::Sub | K::Mul | K::Div | K::Mod => {
                self.require("C1", self.all_same_dtype() && x().dtype != DType::Bool)?;
                Ok(TensorType::new(x().dtype, self.broadcast("C2")?))
            }
            K::Pow => {
                self.require("C1", self.t.iter().all(|t| t.dtype != DType::Bool))?;
                Ok(TensorType::new(x().dtype, self.broadcast("C2")?))
            }
            K::Min | K::Max => {
                self.require("C1", self.all_same_dtype())?;
                Ok(TensorType::new(x().dtype, self.broadcast("C2")?))
            }
            K::And | K::Or | K::Xor => {
                self.require("C1", self.all_same_dtype() && !x().dtype.is_float())?;
                Ok(TensorType::new(x().dtype, self.broadcast("C2")?))
            }
            K::Shl | K::Shr => {
                self.require("C1", self.all_same_dtype() && x().dtype.is_int())?;
                Ok(TensorType::new(x().dtype, self.broadcast("C2")?))
            }
            K::Compare => {
                self.require("C1", self.all_same_dtype())?;
                Ok(TensorType::new(DType::Bool, self.broadcast("C2")?))
            }
            K::Select => {
                self.require("C1", x().dtype == DType::Bool && self.t[1].dtype == self.t[2].dtype)?;
                Ok(TensorType::new(self.t[1].dtype, self.broadcast("C2")?))
            }
            K::Clamp => {
                self.require("C1", self.all_same_dtype() && x().dtype != DType::Bool)?;
                self.require("C2", self.t[1].rank() == 0 && self.t[2].rank() == 0)?;
                Ok(x().clone())
            }
            K::Reshape => {
                let shape = self.attrs.dims("shape");
                let (a, b) = (x().numel(), product(shape));
                let differ = (&a - &b).as_const().is_some_and(|d| d != 0);
                self.require("C1", !differ)?;
                Ok(TensorType::new(x().dtype, shape.iter().cloned()))
            }
            K::DynamicReshape => {
                let n = self.attrs.dims("result_shape").len();
                self.require("C1", self.t[1].dtype == DType::I64 && self.t[1].shape == [Dim::from(n)])?;
                Ok(self.result_shape())
            }
            K::Transpose => {
                let perm = self.attrs.ints("perm");
                self.require("C1", is_permutation(perm, x().rank()))?;
                Ok(TensorType::new(x().dtype, perm.iter().map(|p| x().shape[*p as usize].clone())))
            }
            K::Broadcast => {
                let shape = self.attrs.dims("shape");
                let fits = x().rank() <= shape.len()
                    && broadcast([x().shape.as_slice(), shape]).is_ok_and(|s| {
                        s.iter().zip(shape).all(|(a, b)| (a - b).as_const().is_none_or(|d| d == 0))
                    });
                self.require("C1", fits)?;
                Ok(TensorType::new(x().dtype, shape.iter().cloned()))
            }
            K::DynamicBroadcast => {
                self.require("C1", self.t[1].dtype == DType::I64 && self.t[1].rank() == 1)?;
                Ok(self.result_shape())
            }
            K::Slice => self.slice(),
            K::DynamicSlice => {
                let axes = self.attrs.ints("axes");
                self.require("C1", are_axes(axes, x().rank(), false))?;
                let n = Dim::from(axes.len());
                self.require("C2", self.t[1..].iter().all(|t| t.dtype.is_int() && t.shape == [n.clone()]))?;
                Ok(self.result_shape())
            }
            K::Reverse => {
                self.require("C1", are_axes(self.attrs.ints("axes"), x().rank(), false))?;
                Ok(x().clone())
            }
            K::Concat => self.concat(),
            K::Pad => {
                let (low, high) = (self.attrs.dims("low"), self.attrs.dims("high"));
                self.require("C1", low.len() == x().rank() && high.len() == x().rank())?;
                self.require("C2", self.t[1].rank() == 0 && self.t[1].dtype == x().dtype)?;
                let sizes = x().shape.iter().zip(low).zip(high).map(|((d, l), h)| &(d + l) + h);
                Ok(TensorType::new(x().dtype, sizes))
            }
            K::DynamicPad => {
                self.require("C1", are_axes(self.attrs.ints("axes"), x().rank(), false))?;
                Ok(self.result_shape())
            }
            K::Tile => {
                let repeats = self.attrs.dims("repeats");
                self.require("C1", repeats.len() == x().rank())?;
                Ok(TensorType::new(x().dtype, x().shape.iter().zip(repeats).map(|(d, r)| d * r)))
            }
            K::DynamicTile => {
                self.require(
                    "C1",
                    self.t[1].dtype == DType::I64 && self.t[1].shape == [Dim::from(x().rank())],
                )?;
                Ok(self.result_shape())
            }
            K::Gather => {
                let axis = self.axis("C1")?;
                self.require("C2", self.t[1].dtype.is_int())?;
                let mut shape = x().shape[..axis].to_vec();
                shape.extend_from_slice(&self.t[1].shape);
                shape.extend_from_slice(&x().shape[axis + 1..]);
                Ok(TensorType::new(x().dtype, shape))
            }
            K::GatherElements => {
                self.axis("C1")?;
                self.require("C2", self.t[1].dtype.is_int() && self.t[1].rank() == x().rank())?;
                Ok(TensorType::new(x().dtype, self.t[1].shape.iter().cloned()))
            }
            K::GatherNd => {
                let tuple = self.tuple_length("C1")?;
                let batch = usize::try_from(self.attrs.int("batch_dims")).unwrap_or(usize::MAX);
                let fits =
                    batch < self.t[1].rank() && batch.checked_add(tuple).is_some_and(|n| n <= x().rank());
                self.require("C2", fits)?;
                let mut shape = self.t[1].shape[..self.t[1].rank() - 1].to_vec();
                shape.extend_from_slice(&x().shape[batch + tuple..]);
                Ok(TensorType::new(x().dtype, shape))
            }
            K::ScatterNd => {
                let tuple = self.tuple_length("C1")?;
                self.require("C2", self.t[2].dtype == x().dtype && tuple <= x().rank())?;
                Ok(x().clone())
            }
            K::ScatterElements => {
                self.axis("C1")?;
                self.require("C2", self.t[1].dtype.is_int() && self.t[1].rank() == x().rank())?;
                self.require("C3", self.t[2].dtype == x().dtype && self.t[2].rank() == x().rank())?;
                Ok(x().clone())
            }
            K::IndexCopy => {
                let axis = self.axis("C1")?;
                self.require("C2", self.t[1].dtype.is_int() && self.t[1].rank() == 1)?;
                let s = self.t[2];
                let fits = s.dtype == x().dtype
                    && s.rank() == x().rank()
                    && (0..s.rank()).all(|i| {
                        let want = if i == axis { &self.t[1].shape[0] } else { &x().shape[i] };
                        may_equal(&s.shape[i], want)
                    });
                self.require("C3", fits)?;
                Ok(x().clone())
            }
            K::Trilu => {
                self.require("C1", x().rank() >= 2)?;
                Ok(x().clone())
            }
            K::NonZero => {
                self.require("C1", self.attrs.dims("result_shape").len() == 2)?;
                Ok(self.result_shape().with_dtype(DType::I64))
            }
            K::ReduceSum | K::ReduceMean | K::ReduceProd => {
                let ty = self.reduce()?;
                self.require("C2", x().dtype != DType::Bool)?;
                Ok(ty)
            }
            K::ReduceMax | K::ReduceMin => self.reduce(),
            K::ArgMax | K::ArgMin => {
                let axis = self.axis("C1")?;
                let mut shape = x().shape.clone();
                if self.attrs.bool("keepdims") {
                    shape[axis] = Dim::ONE;
                } else {
                    shape.remove(axis);
                }
                Ok(TensorType::new(DType::I64, shape))
            }
            K::CumSum | K::CumProd => {
                self.axis("C1")?;
                Ok(x().clone())
            }
            K::Softmax | K::LogSoftmax => {
                self.axis("C1")?;
                self.require("C2", x().dtype.is_float())?;
                Ok(x().clone())
            }
            K::LayerNorm | K::RmsNorm => {
                let axis = self.axis("C1")?;
                self.require("C2", self.all_same_dtype() && x().dtype.is_float())?;
                let normalized = &x().shape[axis..];
                let fits = self.t[1..].iter().all(|t| {
                    broadcast([normalized, t.shape.as_slice()]).is_ok_and(|s| s.len() == normalized.len())
                });
                self.require("C3", fits)?;
                Ok(x().clone())
            }
            K::GroupNorm => {
                self.require("C1", x().rank() >= 2)?;
                let (channels, groups) = (&x().shape[1], self.attrs.int("groups"));
                self.require("C2", groups > 0 && channels.as_const().is_none_or(|c| c % groups == 0))?;
                let fits = self.all_same_dtype()
                    && x().dtype.is_float()
                    && self.t[1..].iter().all(|t| t.rank() == 1 && may_equal(&t.shape[0], channels));
                self.require("C3", fits)?;
                Ok(x().clone())
            }
            K::BatchNorm => {
                self.require("C1", x().rank() >= 2)?;
                let fits = self.t[1..].iter().all(|t| t.rank() == 1 && may_equal(&t.shape[0], &x().shape[1]));
                self.require("C2", fits)?;
                Ok(x().clone())
            }
            K::MatMul => self.matmul(),
            K::Conv => self.conv(),
            K::ConvTranspose => self.conv_transpose(),
            K::MaxPool | K::AvgPool => self.pool(),
            K::Sdpa => self.sdpa(),
            K::Rope => self.rope(),
            K::Resize => {
                let sizes = self.attrs.dims("sizes");
                self.require(
                    "C1",
                    sizes.len() == x().rank() && self.attrs.floats("scales").len() == x().rank(),
                )?;
                Ok(TensorType::new(x().dtype, sizes.iter().cloned()))
            }
            K::Transfer => Ok(x().clone()),
            K::If | K::Loop | K::Call | K::Opaque | K::TopK | K::Lstm => {
                Err(internal("infer.single", "an operation with several results has no single result type"))
            }
        }
    }

    fn result_shape(&self) -> TensorType {
        TensorType::new(self.t[0].dtype, self.attrs.dims("result_shape").iter().cloned())
    }

    fn slice(&self) -> Result<TensorType> {
        let axis = self.axis("C1")?;
        let stride = self.attrs.int("stride");
        self.require("C2", stride >= 1)?;
        let (start, limit) = (self.attrs.dim("start"), self.attrs.dim("limit"));
        let size = &self.t[0].shape[axis];
        let holds = [(&start, &Dim::ZERO), (&limit, &start), (size, &limit)]
            .into_iter()
            .all(|(big, small)| (big - small).as_const().is_none_or(|d| d >= 0));
        self.require("C3", holds)?;
        let mut ty = self.t[0].clone();
        ty.shape[axis] = (&limit - &start).ceil_div(&Dim::from(stride));
        Ok(ty)
    }

    fn concat(&self) -> Result<TensorType> {
        self.require("C1", !self.t.is_empty())?;
        let axis = self.axis("C2")?;
        let first = self.t[0];
        let agree = self.t.iter().all(|t| {
            t.dtype == first.dtype
                && t.rank() == first.rank()
                && (0..t.rank()).all(|i| i == axis || may_equal(&t.shape[i], &first.shape[i]))
        });
        self.require("C3", agree)?;
        let mut ty = first.clone();
        ty.shape[axis] = self.t.iter().fold(Dim::ZERO, |sum, t| &sum + &t.shape[axis]);
        Ok(ty)
    }

    fn tuple_length(&self, label: &str) -> Result<usize> {
        let last = self.t[1].shape.last().and_then(Dim::as_const).and_then(|c| usize::try_from(c).ok());
        self.require(label, self.t[1].dtype.is_int() && last.is_some())?;
        Ok(last.unwrap_or(0))
    }

    fn reduce(&self) -> Result<TensorType> {
        let (x, axes) = (self.t[0], self.attrs.ints("axes"));
        self.require("C1", are_axes(axes, x.rank(), true))?;
        let keep = self.attrs.bool("keepdims");
        let shape = x.shape.iter().enumerate().filter_map(|(i, d)| {
            if !axes.contains(&(i as i64)) { Some(d.clone()) } else { keep.then_some(Dim::ONE) }
        });
        Ok(TensorType::new(x.dtype, shape))
    }

    fn matmul(&self) -> Result<TensorType> {
        let (a, b) = (self.t[0], self.t[1]);
        self.require("C1", self.all_same_dtype() && a.dtype != DType::Bool)?;
        self.require("C2", a.rank() >= 1 && b.rank() >= 1)?;
        let inner_b = &b.shape[b.rank().saturating_sub(2)];
        self.require("C3", may_equal(&a.shape[a.rank() - 1], inner_b))?;
        let batch =
            broadcast([&a.shape[..a.rank().saturating_sub(2)], &b.shape[..b.rank().saturating_sub(2)]]);
        self.require("C4", batch.is_ok())?;
        let mut shape = batch.unwrap_or_default();
        if a.rank() >= 2 {
            shape.push(a.shape[a.rank() - 2].clone());
        }
        if b.rank() >= 2 {
            shape.push(b.shape[b.rank() - 1].clone());
        }
        Ok(TensorType::new(a.dtype, shape))
    }

    /// Spatial rank of a window operation, if `names` all have one entry per spatial axis (`pads` two).
    fn spatial(&self, label: &str, names: &[&str]) -> Result<usize> {
        let n = self.t[0].rank().saturating_sub(2);
        let fits = self.t[0].rank() >= 3
            && self.attrs.ints("pads").len() == 2 * n
            && names.iter().all(|name| self.attrs.ints(name).len() == n)
            && ["strides", "dilations", "kernel"]
                .iter()
                .all(|name| self.attrs.ints(name).iter().all(|v| *v >= 1));
        self.require(label, fits)?;
        Ok(n)
    }

    /// Output size of one window axis.
    fn window(&self, i: usize, n: usize, size: &Dim, kernel: &Dim, ceil: bool) -> Dim {
        let pads = self.attrs.ints("pads");
        let stride = Dim::from(self.attrs.ints("strides")[i]);
        let reach = &(&(kernel - &Dim::ONE) * &Dim::from(self.attrs.ints("dilations")[i])) + &Dim::ONE;
        let padded = &(size + &Dim::from(pads[i])) + &Dim::from(pads[n + i]);
        let span = &padded - &reach;
        if !ceil {
            return &span.floor_div(&stride) + &Dim::ONE;
        }
        let out = &span.ceil_div(&stride) + &Dim::ONE;
        // The last window must start inside the operand or the low padding.
        let last_start = &(&out - &Dim::ONE) * &stride;
        let limit = size + &Dim::from(pads[i]);
        if (&last_start - &limit).as_const().is_some_and(|d| d >= 0) { &out - &Dim::ONE } else { out }
    }

    fn conv(&self) -> Result<TensorType> {
        let (x, w) = (self.t[0], self.t[1]);
        self.require(
            "C1",
            x.dtype == w.dtype && x.dtype.is_float() && x.rank() >= 3 && w.rank() == x.rank(),
        )?;
        let n = self.spatial("C2", &["strides", "dilations"])?;
        let groups = self.attrs.int("groups");
        let fits = groups >= 1
            && may_equal(&x.shape[1], &(&w.shape[1] * &Dim::from(groups)))
            && w.shape[0].as_const().is_none_or(|m| m % groups == 0);
        self.require("C3", fits)?;
        let bias_fits = self.t.get(2).is_none_or(|b| b.rank() == 1 && may_equal(&b.shape[0], &w.shape[0]));
        self.require("C4", bias_fits)?;
        let mut shape = vec![x.shape[0].clone(), w.shape[0].clone()];
        shape.extend((0..n).map(|i| self.window(i, n, &x.shape[2 + i], &w.shape[2 + i], false)));
        Ok(TensorType::new(x.dtype, shape))
    }

    fn conv_transpose(&self) -> Result<TensorType> {
        let (x, w) = (self.t[0], self.t[1]);
        self.require(
            "C1",
            x.dtype == w.dtype && x.dtype.is_float() && x.rank() >= 3 && w.rank() == x.rank(),
        )?;
        let n = self.spatial("C2", &["strides", "dilations", "output_padding"])?;
        let groups = self.attrs.int("groups");
        self.require("C3", groups >= 1 && may_equal(&x.shape[1], &w.shape[0]))?;
        let channels = &w.shape[1] * &Dim::from(groups);
        let bias_fits = self.t.get(2).is_none_or(|b| b.rank() == 1 && may_equal(&b.shape[0], &channels));
        self.require("C4", bias_fits)?;
        let (strides, dilations, pads) =
            (self.attrs.ints("strides"), self.attrs.ints("dilations"), self.attrs.ints("pads"));
        let output_padding = self.attrs.ints("output_padding");
        let mut shape = vec![x.shape[0].clone(), channels];
        shape.extend((0..n).map(|i| {
            let span = &(&x.shape[2 + i] - &Dim::ONE) * &Dim::from(strides[i]);
            let reach = &(&w.shape[2 + i] - &Dim::ONE) * &Dim::from(dilations[i]);
            let fixed = [output_padding[i], 1, pads[i].saturating_neg(), pads[n + i].saturating_neg()];
            fixed.iter().fold(&span + &reach, |sum, v| &sum + &Dim::from(*v))
        }));
        Ok(TensorType::new(x.dtype, shape))
    }

    fn pool(&self) -> Result<TensorType> {
        let x = self.t[0];
        let n = self.spatial("C1", &["kernel", "strides", "dilations"])?;
        let ceil = self.attrs.bool("ceil_mode");
        let mut shape = x.shape[..2].to_vec();
        let kernel = self.attrs.ints("kernel");
        shape.extend((0..n).map(|i| self.window(i, n, &x.shape[2 + i], &Dim::from(kernel[i]), ceil)));
        Ok(TensorType::new(x.dtype, shape))
    }

    fn sdpa(&self) -> Result<TensorType> {
        let (q, k, v) = (self.t[0], self.t[1], self.t[2]);
        let (hq, hk) = (self.attrs.int("query_heads"), self.attrs.int("kv_heads"));
        let rank = q.rank();
        let one_type = q.dtype == k.dtype && q.dtype == v.dtype && q.dtype.is_float();
        self.require("C1", one_type && (rank == 3 || rank == 4) && k.rank() == rank && v.rank() == rank)?;
        let (result, score) = if rank == 4 {
            self.require("C2", hq == 0 && hk == 0 && divides(&k.shape[1], &q.shape[1]))?;
            let fits = may_equal(&q.shape[3], &k.shape[3])
                && may_equal(&k.shape[1], &v.shape[1])
                && may_equal(&k.shape[2], &v.shape[2]);
            self.require("C3", fits)?;
            let result = [q.shape[0].clone(), q.shape[1].clone(), q.shape[2].clone(), v.shape[3].clone()];
            (
                result.to_vec(),
                [q.shape[0].clone(), q.shape[1].clone(), q.shape[2].clone(), k.shape[2].clone()],
            )
        } else {
            let ok = hq >= 1 && hk >= 1 && hq % hk == 0;
            self.require(
                "C2",
                ok && [(q, hq), (k, hk), (v, hk)].iter().all(|(t, h)| divides(&Dim::from(*h), &t.shape[2])),
            )?;
            let (hq, hk) = (Dim::from(hq), Dim::from(hk));
            let fits = may_equal(&q.shape[2].floor_div(&hq), &k.shape[2].floor_div(&hk))
                && may_equal(&k.shape[1], &v.shape[1]);
            self.require("C3", fits)?;
            let width = &v.shape[2].floor_div(&hk) * &hq;
            let score = [q.shape[0].clone(), hq, q.shape[1].clone(), k.shape[1].clone()];
            (vec![q.shape[0].clone(), q.shape[1].clone(), width], score)
        };
        let mask_fits = self.t.get(3).is_none_or(|m| {
            (m.dtype == DType::Bool || m.dtype == q.dtype)
                && m.rank() <= 4
                && broadcast([m.shape.as_slice(), &score[..]]).is_ok_and(|s| s.len() == 4)
        });
        self.require("C4", mask_fits)?;
        Ok(TensorType::new(q.dtype, result))
    }

    fn rope(&self) -> Result<TensorType> {
        let (x, cos, sin) = (self.t[0], self.t[1], self.t[2]);
        self.require("C1", self.all_same_dtype() && x.dtype.is_float())?;
        let heads = self.attrs.int("heads");
        let (width, length) = match (x.rank(), heads) {
            (4, 0) => (x.shape[3].as_const(), &x.shape[2]),
            (3, h) if h >= 1 => (x.shape[2].as_const().filter(|w| w % h == 0).map(|w| w / h), &x.shape[1]),
            _ => (None, &Dim::ONE),
        };
        self.require("C2", width.is_some_and(|w| w % 2 == 0))?;
        let half = Dim::from(width.unwrap_or(0) / 2);
        let fits = [cos, sin].iter().all(|t| {
            t.rank() == 3
                && (t.shape[0].is(1) || may_equal(&t.shape[0], &x.shape[0]))
                && may_equal(&t.shape[1], length)
                && t.shape[2] == half
        });
        self.require("C3", fits)?;
        Ok(x.clone())
    }

    fn lstm(&self) -> Result<Vec<TensorType>> {
        let ranks: Vec<usize> = self.t.iter().map(|t| t.rank()).collect();
        let ok = ranks == [3, 3, 3, 2, 3, 3] && self.all_same_dtype() && self.t[0].dtype.is_float();
        self.require("C1", ok)?;
        let x = self.t[0];
        let hidden = Dim::from(self.attrs.int("hidden"));
        let directions = self.t[1].shape[0].clone();
        let (steps, batch) = (x.shape[0].clone(), x.shape[1].clone());
        let last = TensorType::new(x.dtype, [directions.clone(), batch.clone(), hidden.clone()]);
        Ok(vec![TensorType::new(x.dtype, [steps, directions, batch, hidden]), last.clone(), last])
    }

    fn if_types(&self, regions: &[Graph]) -> Result<Vec<TensorType>> {
        self.require("C1", self.t[0].dtype == DType::Bool && self.t[0].rank() == 0)?;
        let args: Vec<&TensorType> = self.t[1..].to_vec();
        let takes_args = regions.iter().all(|r| {
            r.arguments.len() == args.len() && r.arguments.iter().zip(&args).all(|(v, t)| r.ty(*v) == *t)
        });
        let results = |r: &Graph| r.results.iter().map(|v| r.ty(*v).clone()).collect::<Vec<_>>();
        let (then, other) = (results(&regions[0]), results(&regions[1]));
        let agree = then.len() == other.len()
            && then.iter().zip(&other).all(|(a, b)| {
                a.dtype == b.dtype
                    && a.rank() == b.rank()
                    && a.shape.iter().zip(&b.shape).all(|(x, y)| may_equal(x, y))
            });
        self.require("C2", takes_args && agree)?;
        Ok(then)
    }

    fn loop_types(&self, regions: &[Graph]) -> Result<Vec<TensorType>> {
        let scalar = |t: &TensorType, d: DType| t.dtype == d && t.rank() == 0;
        self.require("C1", scalar(self.t[0], DType::I64) && scalar(self.t[1], DType::Bool))?;
        let (body, args) = (&regions[0], &self.t[2..]);
        let types = self.attrs.types("types");
        let carried = usize::try_from(self.attrs.int("carried")).unwrap_or(usize::MAX);
        let fits = carried <= args.len()
            && body.arguments.len() == args.len() + 2
            && !body.results.is_empty()
            && body.results.len() - 1 == types.len()
            && carried <= types.len()
            && body.ty(body.arguments[0]).dtype == DType::I64
            && body.ty(body.arguments[1]).dtype == DType::Bool
            && body.ty(body.results[0]).dtype == DType::Bool
            && body.arguments[2..].iter().zip(args).all(|(v, t)| body.ty(*v).dtype == t.dtype)
            && body.results[1..=carried].iter().zip(types).all(|(v, t)| body.ty(*v).dtype == t.dtype)
            && body.results[carried + 1..]
                .iter()
                .zip(&types[carried..])
                .all(|(v, t)| body.ty(*v).dtype == t.dtype && body.ty(*v).rank() + 1 == t.rank());
        self.require("C2", fits)?;
        Ok(types.to_vec())
    }
}

/// Could the two sizes be equal? Only provably different sizes are refused.
fn may_equal(a: &Dim, b: &Dim) -> bool {
    (a - b).as_const().is_none_or(|d| d == 0)
}

/// Could `divisor` divide `size`?
fn divides(divisor: &Dim, size: &Dim) -> bool {
    match (divisor.as_const(), size.as_const()) {
        (Some(d), Some(s)) => d > 0 && s % d == 0,
        _ => true,
    }
}

/// Is `perm` a permutation of `0..rank`?
pub fn is_permutation(perm: &[i64], rank: usize) -> bool {
    perm.len() == rank && (0..rank).all(|i| perm.contains(&(i as i64)))
}

/// Are these distinct axes of a tensor of this rank (and in ascending order, if `sorted`)?
pub fn are_axes(axes: &[i64], rank: usize, sorted: bool) -> bool {
    let in_range = axes.iter().all(|a| usize::try_from(*a).is_ok_and(|a| a < rank));
    let mut sorted_axes = axes.to_vec();
    sorted_axes.sort_unstable();
    let distinct = sorted_axes.windows(2).all(|w| w[0] < w[1]);
    in_range && distinct && (!sorted || sorted_axes == axes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attrs;

    fn t(dims: &[&str]) -> TensorType {
        TensorType::new(DType::F32, dims.iter().map(|d| d.parse().expect("dimension")))
    }

    fn one(kind: OpKind, operands: &[&TensorType], attrs: Attrs) -> std::result::Result<TensorType, String> {
        infer(kind, operands, &attrs, &[]).map(|t| t[0].clone()).map_err(|e| e.code)
    }

    #[test]
    fn matmul_broadcasts_batches() {
        let r = one(OpKind::MatMul, &[&t(&["s0", "1", "4", "8"]), &t(&["3", "8", "5"])], Attrs::new());
        assert_eq!(r, Ok(t(&["s0", "3", "4", "5"])));
        assert_eq!(one(OpKind::MatMul, &[&t(&["8"]), &t(&["8"])], Attrs::new()), Ok(t(&[])));
        assert_eq!(
            one(OpKind::MatMul, &[&t(&["2", "7"]), &t(&["8", "2"])], Attrs::new()),
            Err("matmul.C3".into())
        );
    }

    #[test]
    fn conv_and_pool_sizes() {
        let a = attrs! { strides: vec![2i64, 2], pads: vec![3i64, 3, 3, 3], dilations: vec![1i64, 1], groups: 1i64 };
        let r = one(OpKind::Conv, &[&t(&["s0", "3", "224", "224"]), &t(&["64", "3", "7", "7"])], a);
        assert_eq!(r, Ok(t(&["s0", "64", "112", "112"])));
        let a = attrs! { kernel: vec![3i64, 3], strides: vec![2i64, 2], pads: vec![0i64; 4], dilations: vec![1i64, 1], ceil_mode: true };
        assert_eq!(one(OpKind::MaxPool, &[&t(&["1", "8", "6", "6"])], a), Ok(t(&["1", "8", "3", "3"])));
    }

    #[test]
    fn slices_and_concats() {
        let a = attrs! { axis: 1i64, start: Dim::ONE, limit: Dim::symbol("s"), stride: 2i64 };
        assert_eq!(one(OpKind::Slice, &[&t(&["2", "s"])], a), Ok(t(&["2", "floordiv(s, 2)"])));
        assert_eq!(
            one(OpKind::Concat, &[&t(&["s", "2"]), &t(&["1", "2"])], attrs! { axis: 0i64 }),
            Ok(t(&["s + 1", "2"]))
        );
        assert_eq!(one(OpKind::Concat, &[], attrs! { axis: 0i64 }), Err("concat.C1".into()));
    }

    #[test]
    fn overflowing_sizes_are_refused() {
        let big = t(&["4611686018427387904", "4"]);
        assert_eq!(one(OpKind::Relu, &[&big], Attrs::new()), Err("type.C2".into()));
    }

    #[test]
    fn every_single_constraint_failure_has_a_label_in_the_table() {
        // A wrong attribute set is refused before any rule reads it.
        assert_eq!(one(OpKind::Softmax, &[&t(&["2"])], Attrs::new()), Err("op.attrs".into()));
        assert_eq!(one(OpKind::Softmax, &[&t(&["2"])], attrs! { axis: 3i64 }), Err("softmax.C1".into()));
        assert_eq!(one(OpKind::Softmax, &[], attrs! { axis: 0i64 }), Err("op.operands".into()));
    }
}
