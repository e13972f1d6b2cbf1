//! Costs in symbolic sizes: an operation is analysed once and costed under any sizes later.

use crate::model::CostModel;
use crate::work::{Symbolic, Work, work};
use djinn_ir::{Attrs, DType, Dim, OpKind, TensorType};

/// The cost of an operation as expressions over its symbols.
#[derive(Debug, Clone, PartialEq)]
pub struct SymbolicCost {
    /// The operation.
    pub kind: OpKind,
    /// What it asks for. An expression that overflows counts as the largest size there is.
    pub work: Work<Dim>,
    /// Element type of the first operand, which says the precision.
    pub dtype: Option<DType>,
}

impl SymbolicCost {
    /// Analyses an operation; types must have passed the verifier.
    pub fn of(kind: OpKind, attrs: &Attrs, operands: &[&TensorType], results: &[TensorType]) -> SymbolicCost {
        SymbolicCost {
            kind,
            work: work(&Symbolic, kind, attrs, operands, results),
            dtype: operands.first().map(|t| t.dtype),
        }
    }

    /// Its work under the sizes of a model.
    pub fn work_in(&self, model: &CostModel<'_>) -> Work<f64> {
        let value = |d: &Dim| {
            let known = d.as_const().or_else(|| d.eval(&|s| Some(model.symbol(s))));
            known.unwrap_or(i64::MAX).max(0) as f64
        };
        Work {
            flops: value(&self.work.flops),
            bytes_read: value(&self.work.bytes_read),
            bytes_written: value(&self.work.bytes_written),
            elements: value(&self.work.elements),
            half_bytes: value(&self.work.half_bytes),
            launches: self.work.launches,
            passes: self.work.passes,
        }
    }

    /// Its seconds on the device and under the sizes of a model. Custom models are not asked, and regions not counted.
    pub fn seconds(&self, model: &CostModel<'_>) -> f64 {
        self.work_in(model).seconds(model.profile, self.kind, self.dtype)
    }
}
