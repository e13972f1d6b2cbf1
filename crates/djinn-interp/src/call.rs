//! One operation under evaluation: its operands, its attributes with all sizes known, its inferred types.

use djinn_diag::{Diagnostic, Result, input, internal};
use djinn_ir::{Attrs, Dim, OpKind, TensorData, TensorType};

/// An operation whose operand count, attribute kinds and constraints have been checked by type inference.
pub(crate) struct Call<'a> {
    /// The operation.
    pub(crate) kind: OpKind,
    /// Its attributes; symbolic sizes are constants, but for `result_shape`.
    pub(crate) attrs: &'a Attrs,
    /// Its operands.
    pub(crate) operands: &'a [TensorData],
    /// The inferred types of its results.
    pub(crate) types: &'a [TensorType],
}

impl Call<'_> {
    /// Operand `i`, which the op table says is there.
    pub(crate) fn operand(&self, i: usize) -> Result<&TensorData> {
        self.operands
            .get(i)
            .ok_or_else(|| input("op.operands", format!("'{}' has no operand {i}", self.kind.name())))
    }

    /// The first operand.
    pub(crate) fn x(&self) -> Result<&TensorData> {
        self.operand(0)
    }

    /// The attribute `axis`, which type inference has checked.
    pub(crate) fn axis(&self) -> usize {
        usize::try_from(self.attrs.int("axis")).unwrap_or(0)
    }

    /// Integers that are axes or sizes: all are at least 0.
    pub(crate) fn naturals(&self, name: &str) -> Result<Vec<usize>> {
        let convert = |v: &i64| usize::try_from(*v).ok();
        self.attrs
            .ints(name)
            .iter()
            .map(convert)
            .collect::<Option<_>>()
            .ok_or_else(|| self.fail(format!("attribute '{name}' is negative: {:?}", self.attrs.ints(name))))
    }

    /// Sizes that must not be negative.
    pub(crate) fn sizes(&self, name: &str) -> Result<Vec<usize>> {
        let convert = |d: &Dim| d.as_const().and_then(|c| usize::try_from(c).ok());
        self.attrs.dims(name).iter().map(convert).collect::<Option<_>>().ok_or_else(|| {
            let shown: Vec<String> = self.attrs.dims(name).iter().map(ToString::to_string).collect();
            self.fail(format!("attribute '{name}' is not a list of sizes: [{}]", shown.join(", ")))
        })
    }

    /// Positions or amounts, which may be negative.
    pub(crate) fn amounts(&self, name: &str) -> Result<Vec<i64>> {
        self.attrs.dims(name).iter().map(|d| self.constant(name, d)).collect()
    }

    /// One position or amount.
    pub(crate) fn amount(&self, name: &str) -> Result<i64> {
        self.constant(name, &self.attrs.dim(name))
    }

    fn constant(&self, name: &str, dim: &Dim) -> Result<i64> {
        dim.as_const().ok_or_else(|| self.fail(format!("attribute '{name}' has no value: {dim}")))
    }

    /// The shape of result 0 by type inference.
    pub(crate) fn result_shape(&self) -> Result<Vec<usize>> {
        self.types.first().and_then(TensorType::const_shape).ok_or_else(|| {
            internal(
                "interp.shape",
                format!("the shape of the result of '{}' is not known", self.kind.name()),
            )
        })
    }

    /// A diagnostic: these operands and attributes do not go together.
    pub(crate) fn fail(&self, message: impl Into<String>) -> Box<Diagnostic> {
        let name = self.kind.name();
        input(format!("interp.{name}"), format!("'{name}': {}", message.into()))
    }
}
