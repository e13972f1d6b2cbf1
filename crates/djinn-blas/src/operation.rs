//! An operation with everything known but the values.

use crate::attention::Attention;
use crate::conv::{Conv, ConvTranspose};
use crate::lstm::Lstm;
use crate::matmul::MatMul;
use crate::pool::Pool;
use crate::real::{Real, finish, values};
use crate::{MAX_ELEMENTS, attention};
use djinn_diag::{Result, internal};
use djinn_ir::{Attrs, DType, OpKind, TensorType, infer};

/// Has this operation an implementation here, for some types and attributes?
pub fn supports(kind: OpKind) -> bool {
    use OpKind as K;
    matches!(kind, K::MatMul | K::Conv | K::ConvTranspose | K::MaxPool | K::AvgPool | K::Sdpa | K::Lstm)
}

/// The operands of a call as numbers.
pub(crate) type Values<'a, T> = [std::borrow::Cow<'a, [T]>];

/// A library operation on operands of known types.
#[derive(Debug)]
pub struct Operation {
    work: Work,
    dtype: DType,
    /// Elements of every operand, and its element type.
    operands: Vec<(usize, DType)>,
    results: Vec<Vec<usize>>,
}

#[derive(Debug)]
enum Work {
    MatMul(MatMul),
    Conv(Conv),
    ConvTranspose(ConvTranspose),
    Pool(Pool),
    Attention(Attention),
    Lstm(Lstm),
}

/// What an operation is made from: its attributes and the shapes of its operands and results.
pub(crate) struct Call<'a> {
    pub(crate) attrs: &'a Attrs,
    pub(crate) shapes: Vec<&'a [usize]>,
    pub(crate) results: &'a [Vec<usize>],
}

impl Call<'_> {
    /// The shape of an operand, empty if it is not there.
    pub(crate) fn shape(&self, operand: usize) -> &[usize] {
        self.shapes.get(operand).copied().unwrap_or_default()
    }

    /// An attribute that counts something.
    pub(crate) fn count(&self, name: &str) -> Option<usize> {
        usize::try_from(self.attrs.int(name)).ok()
    }
}

impl Operation {
    /// Lays out an operation; its attributes hold no symbols. `None`: there is no implementation for these types, or they
    /// do not fit together, which the evaluator can explain.
    pub fn new(kind: OpKind, attrs: &Attrs, operands: &[(DType, &[usize])]) -> Option<Operation> {
        let dtype = operands.first()?.0;
        if !supports(kind) || !dtype.is_float() {
            return None;
        }
        let types: Vec<TensorType> = operands
            .iter()
            .map(|(dtype, shape)| TensorType::new(*dtype, shape.iter().map(|d| (*d).into())))
            .collect();
        let results = infer::infer(kind, &types.iter().collect::<Vec<_>>(), attrs, &[]).ok()?;
        let results: Vec<Vec<usize>> = results.iter().map(TensorType::const_shape).collect::<Option<_>>()?;
        let counts = operands.iter().map(|(dtype, shape)| Some((elements(shape)?, *dtype)));
        let counts: Vec<(usize, DType)> = counts.collect::<Option<_>>()?;
        results.iter().try_for_each(|shape| elements(shape).map(|_| ()))?;
        let shapes = operands.iter().map(|(_, shape)| *shape).collect();
        let call = Call { attrs, shapes, results: &results };
        let work = match kind {
            OpKind::MatMul => Work::MatMul(MatMul::new(&call)?),
            OpKind::Conv => Work::Conv(Conv::new(&call)?),
            OpKind::ConvTranspose => Work::ConvTranspose(ConvTranspose::new(&call)?),
            OpKind::MaxPool => Work::Pool(Pool::new(&call, true)?),
            OpKind::AvgPool => Work::Pool(Pool::new(&call, false)?),
            OpKind::Sdpa => Work::Attention(Attention::new(&call, operands.get(3).map(|m| m.0))?),
            OpKind::Lstm => Work::Lstm(Lstm::new(&call)?),
            _ => return None,
        };
        Some(Operation { work, dtype, operands: counts, results })
    }

    /// The shapes of the results; their element type is that of the first operand.
    pub fn results(&self) -> &[Vec<usize>] {
        &self.results
    }

    /// Computes the results from the operands, all of them row-major and little-endian.
    ///
    /// # Errors
    /// `blas.bytes` if a slice has not the bytes of its type.
    pub fn run(&self, operands: &[&[u8]], results: &mut [&mut [u8]]) -> Result<()> {
        self.check(operands, results)?;
        match self.dtype {
            DType::F64 => self.run_in::<f64>(operands, results),
            _ => self.run_in::<f32>(operands, results),
        }
    }

    fn check(&self, operands: &[&[u8]], results: &[&mut [u8]]) -> Result<()> {
        let wanted = self.operands.iter().map(|(n, dtype)| n * dtype.size());
        let made = self.results.iter().map(|shape| shape.iter().product::<usize>() * self.dtype.size());
        if wanted.eq(operands.iter().map(|o| o.len())) && made.eq(results.iter().map(|r| r.len())) {
            return Ok(());
        }
        Err(internal("blas.bytes", "operands or results have not the bytes of their types"))
    }

    fn run_in<T: Real>(&self, operands: &[&[u8]], results: &mut [&mut [u8]]) -> Result<()> {
        let numbers: Vec<_> = operands
            .iter()
            .zip(&self.operands)
            .map(|(bytes, (_, dtype))| values::<T>(*dtype, bytes))
            .collect();
        if let (Work::Lstm(lstm), [y, h, c]) = (&self.work, &mut *results) {
            let (py, ph, pc) = lstm.run(&numbers);
            finish(self.dtype, y, |out| out.copy_from_slice(&py));
            finish(self.dtype, h, |out| out.copy_from_slice(&ph));
            finish(self.dtype, c, |out| out.copy_from_slice(&pc));
            return Ok(());
        }
        let Some(out) = results.first_mut() else { return Ok(()) };
        finish(self.dtype, out, |out: &mut [T]| match &self.work {
            Work::MatMul(work) => work.run(&numbers, out),
            Work::Conv(work) => work.run(&numbers, out),
            Work::ConvTranspose(work) => work.run(&numbers, out),
            Work::Pool(work) => work.run(&numbers, out),
            Work::Attention(work) => {
                work.run(&numbers, out, &|score| attention::round_score(self.dtype, score));
            }
            Work::Lstm(_) => {}
        });
        Ok(())
    }
}

/// Elements of a shape; sizes of 0 count as 1 for the limit, so that products of any of its sizes are small.
fn elements(shape: &[usize]) -> Option<usize> {
    let bound = shape.iter().try_fold(1usize, |n, d| n.checked_mul((*d).max(1)));
    bound.filter(|n| *n <= MAX_ELEMENTS)?;
    Some(shape.iter().product())
}
