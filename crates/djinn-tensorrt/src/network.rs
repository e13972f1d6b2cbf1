//! A network under construction: layers with the types that the IR gives their results.
//!
//! Every value carries its IR type, so ranks and sizes are known here, symbolic ones too. TensorRT's elementwise layers
//! want operands of one rank: leading axes of size 1 are put in front.

use crate::sizes::Sizes;
use djinn_diag::{Diagnostic, Result, unsupported};
use djinn_ir::{DType, Dim, SymbolTable, TensorData, TensorType, data, types};
use trtx::{
    Axes, DataType, ElementWiseOperation, MatrixOperation, NetworkDefinition, ReduceOperation, Tensor,
    UnaryOperation,
};

/// Axes that the bindings can describe, at most.
const MAX_RANK: usize = 7;

/// A tensor of the network and its type.
#[derive(Debug, Clone)]
pub(crate) struct Val<'n> {
    pub(crate) tensor: Tensor<'n>,
    pub(crate) ty: TensorType,
}

impl Val<'_> {
    pub(crate) fn rank(&self) -> usize {
        self.ty.rank()
    }

    pub(crate) fn dtype(&self) -> DType {
        self.ty.dtype
    }

    pub(crate) fn shape(&self) -> &[Dim] {
        &self.ty.shape
    }
}

/// The network and what is known of its sizes.
pub(crate) struct Net<'n> {
    pub(crate) inner: NetworkDefinition<'n>,
    pub(crate) symbols: SymbolTable,
    pub(crate) sizes: Sizes<'n>,
    /// What layers are called: the operation that they are made for.
    pub(crate) label: String,
    layers: usize,
}

/// A refusal by TensorRT or its bindings.
pub(crate) fn refused(error: &trtx::Error) -> Box<Diagnostic> {
    unsupported("tensorrt.layer", error.to_string())
}

/// A refusal by this crate: no layer means the same.
pub(crate) fn no_layer(why: impl Into<String>) -> Box<Diagnostic> {
    unsupported("tensorrt.operation", why.into())
}

/// The element type in TensorRT.
pub(crate) fn data_type(dtype: DType) -> Result<DataType> {
    Ok(match dtype {
        DType::F32 => DataType::kFLOAT,
        DType::F16 => DataType::kHALF,
        DType::BF16 => DataType::kBF16,
        DType::I32 => DataType::kINT32,
        DType::I64 => DataType::kINT64,
        DType::Bool => DataType::kBOOL,
        other => return Err(no_layer(format!("engines have no element type {other}"))),
    })
}

/// The element type that one of TensorRT is, if it is one.
pub(crate) fn dtype_of(ty: DataType) -> Option<DType> {
    DType::ALL.into_iter().find(|d| data_type(*d).is_ok_and(|known| known == ty))
}

/// Sizes for TensorRT: −1 for symbolic ones.
pub(crate) fn plain(dims: &[Dim]) -> Vec<i64> {
    dims.iter().map(|d| d.as_const().unwrap_or(-1)).collect()
}

/// Names the layer and gives its first result.
macro_rules! layer {
    ($net:expr, $layer:expr, $ty:expr) => {{
        let mut layer = $layer.map_err(|e| $crate::network::refused(&e))?;
        let name = $net.next_name();
        layer.set_name(&mut $net.inner, &name).map_err(|e| $crate::network::refused(&e))?;
        let tensor = layer.output(&$net.inner, 0).map_err(|e| $crate::network::refused(&e))?;
        $crate::network::Val { tensor, ty: $ty }
    }};
}
pub(crate) use layer;

impl<'n> Net<'n> {
    pub(crate) fn new(inner: NetworkDefinition<'n>, symbols: SymbolTable) -> Net<'n> {
        Net { inner, symbols, sizes: Sizes::default(), label: String::new(), layers: 0 }
    }

    pub(crate) fn next_name(&mut self) -> String {
        self.layers += 1;
        format!("{}:{}", self.label, self.layers)
    }

    /// An argument of the network.
    pub(crate) fn input(&mut self, name: &str, ty: &TensorType) -> Result<Val<'n>> {
        if ty.rank() > MAX_RANK {
            return Err(no_layer(format!("tensors in engines have at most {MAX_RANK} axes")));
        }
        let tensor = self.inner.add_input(name, data_type(ty.dtype)?, &plain(&ty.shape));
        let value = Val { tensor: tensor.map_err(|e| refused(&e))?, ty: ty.clone() };
        Ok(value)
    }

    /// A literal.
    pub(crate) fn literal(&mut self, value: &TensorData) -> Result<Val<'n>> {
        let dims: Vec<i64> = value.shape().iter().map(|d| *d as i64).collect();
        let (dtype, ty) = (data_type(value.dtype())?, value.ty());
        if ty.rank() > MAX_RANK || value.numel() == 0 {
            return Err(no_layer("a literal has no elements or too many axes"));
        }
        Ok(layer!(self, self.inner.add_small_constant_copied(&dims, value.bytes(), dtype, None), ty))
    }

    /// One number, of this many axes of size 1.
    pub(crate) fn number(&mut self, dtype: DType, rank: usize, value: f64) -> Result<Val<'n>> {
        let bytes = data::encode_f64(dtype, value);
        let data = TensorData::new(dtype, vec![1; rank], bytes)
            .ok_or_else(|| no_layer("a literal of this type cannot be made"))?;
        self.literal(&data)
    }

    /// The largest (or lowest) integer of a type, which has no exact float.
    pub(crate) fn extreme(&mut self, dtype: DType, rank: usize, largest: bool) -> Result<Val<'n>> {
        let bytes = match (dtype, largest) {
            (DType::I32, true) => i32::MAX.to_le_bytes().to_vec(),
            (DType::I32, false) => i32::MIN.to_le_bytes().to_vec(),
            (DType::I64, true) => i64::MAX.to_le_bytes().to_vec(),
            (DType::I64, false) => i64::MIN.to_le_bytes().to_vec(),
            (_, true) => return self.number(dtype, rank, f64::INFINITY),
            (_, false) => return self.number(dtype, rank, f64::NEG_INFINITY),
        };
        let data = TensorData::new(dtype, vec![1; rank], bytes)
            .ok_or_else(|| no_layer("a literal of this type cannot be made"))?;
        self.literal(&data)
    }

    /// An operation on each element. TensorRT's layers want at least one axis.
    pub(crate) fn unary(&mut self, x: &Val<'n>, op: UnaryOperation) -> Result<Val<'n>> {
        let logical = matches!(op, UnaryOperation::kISINF | UnaryOperation::kISNAN);
        let dtype = if logical { DType::Bool } else { x.dtype() };
        let lifted = self.at_least_rank(x, 1)?;
        let ty = lifted.ty.with_dtype(dtype);
        let y = layer!(self, self.inner.add_unary(&lifted.tensor, op), ty);
        self.reshape(&y, x.shape())
    }

    /// An activation function.
    pub(crate) fn activation(&mut self, x: &Val<'n>, op: trtx::ActivationType) -> Result<Val<'n>> {
        let lifted = self.at_least_rank(x, 1)?;
        let ty = lifted.ty.clone();
        let y = layer!(self, self.inner.add_activation(&lifted.tensor, op), ty);
        self.reshape(&y, x.shape())
    }

    /// An operation on two broadcast operands of one type.
    pub(crate) fn binary(&mut self, a: &Val<'n>, b: &Val<'n>, op: ElementWiseOperation) -> Result<Val<'n>> {
        use ElementWiseOperation as E;
        let rank = a.rank().max(b.rank());
        let (a, b) = (self.at_least_rank(a, rank)?, self.at_least_rank(b, rank)?);
        if a.dtype() != b.dtype() {
            return Err(no_layer(format!("operands are {} and {}", a.dtype(), b.dtype())));
        }
        let shape = broadcast(&[a.shape(), b.shape()])?;
        let logical = matches!(op, E::kEQUAL | E::kGREATER | E::kLESS);
        let ty = TensorType::new(if logical { DType::Bool } else { a.dtype() }, shape);
        Ok(layer!(self, self.inner.add_elementwise(&a.tensor, &b.tensor, op), ty))
    }

    /// `a` and a number.
    pub(crate) fn with_number(
        &mut self,
        a: &Val<'n>,
        op: ElementWiseOperation,
        number: f64,
    ) -> Result<Val<'n>> {
        let b = self.number(a.dtype(), a.rank(), number)?;
        self.binary(a, &b, op)
    }

    /// `a` where `cond`, else `b`.
    pub(crate) fn select(&mut self, cond: &Val<'n>, a: &Val<'n>, b: &Val<'n>) -> Result<Val<'n>> {
        let rank = cond.rank().max(a.rank()).max(b.rank());
        let cond = self.at_least_rank(cond, rank)?;
        let (a, b) = (self.at_least_rank(a, rank)?, self.at_least_rank(b, rank)?);
        let shape = broadcast(&[cond.shape(), a.shape(), b.shape()])?;
        let ty = TensorType::new(a.dtype(), shape);
        Ok(layer!(self, self.inner.add_select(&cond.tensor, &a.tensor, &b.tensor), ty))
    }

    /// Conversion by TensorRT's rules.
    pub(crate) fn cast(&mut self, x: &Val<'n>, to: DType) -> Result<Val<'n>> {
        if x.dtype() == to {
            return Ok(x.clone());
        }
        let ty = x.ty.with_dtype(to);
        Ok(layer!(self, self.inner.add_cast(&x.tensor, data_type(to)?), ty))
    }

    /// A copy of its own.
    pub(crate) fn identity(&mut self, x: &Val<'n>) -> Result<Val<'n>> {
        let ty = x.ty.clone();
        Ok(layer!(self, self.inner.add_identity(&x.tensor), ty))
    }

    /// With axes of size 1 in front.
    pub(crate) fn at_least_rank(&mut self, x: &Val<'n>, rank: usize) -> Result<Val<'n>> {
        let missing = rank.saturating_sub(x.rank());
        let shape: Vec<Dim> =
            std::iter::repeat_n(Dim::ONE, missing).chain(x.shape().iter().cloned()).collect();
        self.reshape(x, &shape)
    }

    /// The elements under another shape.
    pub(crate) fn reshape(&mut self, x: &Val<'n>, shape: &[Dim]) -> Result<Val<'n>> {
        if x.shape() == shape {
            return Ok(x.clone());
        }
        if shape.len() > MAX_RANK {
            return Err(no_layer(format!("tensors in engines have at most {MAX_RANK} axes")));
        }
        let symbolic = shape.iter().filter(|d| d.as_const().is_none()).count();
        let empty = |d: &Dim| d.bounds(&self.symbols).0.is_none_or(|low| low < 1);
        if shape.iter().chain(x.shape()).any(empty) {
            // A zero in a shape means "as the operand's" to TensorRT.
            return Err(no_layer("a reshape may meet an empty tensor"));
        }
        let ty = TensorType::new(x.dtype(), shape.iter().cloned());
        let mut shuffle = self.inner.add_shuffle(&x.tensor).map_err(|e| refused(&e))?;
        if symbolic <= 1 {
            shuffle.set_reshape_dimensions(&mut self.inner, &plain(shape)).map_err(|e| refused(&e))?;
        } else {
            let target = self.shape_tensor(shape)?;
            shuffle.set_input(&mut self.inner, 1, &target).map_err(|e| refused(&e))?;
        }
        Ok(layer!(self, Ok::<_, trtx::Error>(shuffle), ty))
    }

    /// Result axis i is operand axis `perm[i]`.
    pub(crate) fn transpose(&mut self, x: &Val<'n>, perm: &[usize]) -> Result<Val<'n>> {
        if perm.iter().enumerate().all(|(i, p)| i == *p) {
            return Ok(x.clone());
        }
        let order: Vec<i32> = perm.iter().map(|p| *p as i32).collect();
        let ty = TensorType::new(x.dtype(), perm.iter().map(|p| x.shape()[*p].clone()));
        let mut shuffle = self.inner.add_shuffle(&x.tensor).map_err(|e| refused(&e))?;
        shuffle.set_first_transpose(&mut self.inner, &order).map_err(|e| refused(&e))?;
        Ok(layer!(self, Ok::<_, trtx::Error>(shuffle), ty))
    }

    /// `sizes` elements from `starts` on, `strides` apart.
    pub(crate) fn slice(
        &mut self,
        x: &Val<'n>,
        starts: &[Dim],
        sizes: &[Dim],
        strides: &[i64],
    ) -> Result<Val<'n>> {
        let ty = TensorType::new(x.dtype(), sizes.iter().cloned());
        let fixed = |dims: &[Dim]| dims.iter().all(|d| d.as_const().is_some());
        let zeros = vec![0; starts.len()];
        let start = if fixed(starts) { plain(starts) } else { zeros.clone() };
        let size = if fixed(sizes) { plain(sizes) } else { zeros };
        let slice = self.inner.add_slice(&x.tensor, &start, &size, strides);
        let mut slice = slice.map_err(|e| refused(&e))?;
        for (number, dims) in [(1, starts), (2, sizes)] {
            if !fixed(dims) {
                let tensor = self.shape_tensor(dims)?;
                slice.set_input(&mut self.inner, number, &tensor).map_err(|e| refused(&e))?;
            }
        }
        Ok(layer!(self, Ok::<_, trtx::Error>(slice), ty))
    }

    /// Numpy broadcast to exactly this shape.
    pub(crate) fn broadcast(&mut self, x: &Val<'n>, shape: &[Dim]) -> Result<Val<'n>> {
        let x = self.at_least_rank(x, shape.len())?;
        if x.shape() == shape {
            return Ok(x);
        }
        if shape.iter().any(|d| d.bounds(&self.symbols).0.is_none_or(|low| low < 1)) {
            return Err(no_layer("a broadcast may meet an empty tensor"));
        }
        let mut strides = Vec::new();
        for (from, to) in x.shape().iter().zip(shape) {
            strides.push(match (from == to, from.is(1)) {
                (true, _) => 1,
                (false, true) => 0,
                _ => return Err(no_layer(format!("whether a size {from} broadcasts to {to} is not known"))),
            });
        }
        let starts = vec![Dim::ZERO; shape.len()];
        self.slice(&x, &starts, shape, &strides)
    }

    /// Joins along an axis.
    pub(crate) fn concat(&mut self, parts: &[Val<'n>], axis: usize) -> Result<Val<'n>> {
        let Some(first) = parts.first() else { return Err(no_layer("nothing is joined")) };
        if parts.len() == 1 {
            return Ok(first.clone());
        }
        let mut ty = first.ty.clone();
        ty.shape[axis] = parts.iter().fold(Dim::ZERO, |sum, p| &sum + &p.shape()[axis]);
        let tensors: Vec<&Tensor> = parts.iter().map(|p| &p.tensor).collect();
        let mut concat = self.inner.add_concatenation(&tensors).map_err(|e| refused(&e))?;
        concat.set_axis(&mut self.inner, axis as i32);
        Ok(layer!(self, Ok::<_, trtx::Error>(concat), ty))
    }

    /// A reduction over axes, which keep size 1 if `keep`.
    pub(crate) fn reduce(
        &mut self,
        x: &Val<'n>,
        op: ReduceOperation,
        axes: &[usize],
        keep: bool,
    ) -> Result<Val<'n>> {
        if axes.is_empty() {
            return Ok(x.clone());
        }
        let mut shape = Vec::new();
        for (axis, d) in x.shape().iter().enumerate() {
            match axes.contains(&axis) {
                true if keep => shape.push(Dim::ONE),
                true => {}
                false => shape.push(d.clone()),
            }
        }
        let bits: Vec<u32> = axes.iter().map(|a| *a as u32).collect();
        let ty = TensorType::new(x.dtype(), shape);
        Ok(layer!(self, self.inner.add_reduce(&x.tensor, op, Axes::from_slice(&bits), keep), ty))
    }

    /// Product of matrices in the last two axes, of operands of one rank; the others broadcast.
    pub(crate) fn matmul(&mut self, a: &Val<'n>, b: &Val<'n>, transpose_b: bool) -> Result<Val<'n>> {
        let rank = a.rank().max(b.rank());
        let (a, b) = (self.at_least_rank(a, rank)?, self.at_least_rank(b, rank)?);
        let mut shape = broadcast(&[&a.shape()[..rank - 2], &b.shape()[..rank - 2]])?;
        let column = if transpose_b { rank - 2 } else { rank - 1 };
        shape.extend([a.shape()[rank - 2].clone(), b.shape()[column].clone()]);
        let ty = TensorType::new(a.dtype(), shape);
        let how = if transpose_b { MatrixOperation::kTRANSPOSE } else { MatrixOperation::kNONE };
        let none = MatrixOperation::kNONE;
        Ok(layer!(self, self.inner.add_matrix_multiply(&a.tensor, none, &b.tensor, how), ty))
    }

    /// exp(x − max)/Σ along one axis.
    pub(crate) fn softmax(&mut self, x: &Val<'n>, axis: usize) -> Result<Val<'n>> {
        // The layer wants at least two axes.
        let lifted = self.at_least_rank(x, 2)?;
        let axis = axis + lifted.rank() - x.rank();
        let ty = lifted.ty.clone();
        let y = layer!(self, self.inner.add_softmax(&lifted.tensor, Axes::from_slice(&[axis as u32])), ty);
        self.reshape(&y, x.shape())
    }

    /// Is what TensorRT makes of this value what the IR says it is?
    pub(crate) fn confirm(&self, value: &Val<'n>, declared: &TensorType) -> Result<()> {
        let dims = value.tensor.dimensions(&self.inner).map_err(|e| refused(&e))?;
        let dtype = value.tensor.data_type(&self.inner);
        let fits = dims.len() == declared.rank()
            && dims.iter().zip(&declared.shape).all(|(d, s)| *d < 0 || s.as_const().is_none_or(|c| c == *d))
            && dtype == data_type(declared.dtype)?;
        if fits {
            return Ok(());
        }
        Err(unsupported("tensorrt.type", format!("TensorRT makes {dtype:?} {dims:?} of {declared}")))
    }
}

/// Numpy broadcasting of shapes of one rank.
fn broadcast(shapes: &[&[Dim]]) -> Result<Vec<Dim>> {
    types::broadcast(shapes.iter().copied())
        .map_err(|(a, b)| no_layer(format!("sizes {a} and {b} do not broadcast")))
}
