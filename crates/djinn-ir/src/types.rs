//! Tensor types and shapes.

use crate::dim::{Dim, SymbolTable, product};
use crate::dtype::DType;
use std::fmt;

/// Element type and shape of a tensor. The rank is always known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Size of every axis, outermost first; empty for a scalar.
    pub shape: Vec<Dim>,
}

impl TensorType {
    /// A type of this element type and shape.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = Dim>) -> Self {
        Self { dtype, shape: shape.into_iter().collect() }
    }

    /// A type with constant sizes.
    pub fn of(dtype: DType, sizes: &[i64]) -> Self {
        Self::new(dtype, sizes.iter().map(|s| Dim::from(*s)))
    }

    /// The rank-0 type.
    pub fn scalar(dtype: DType) -> Self {
        Self::new(dtype, [])
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn numel(&self) -> Dim {
        product(&self.shape)
    }

    /// The sizes, if all are constants.
    pub fn const_shape(&self) -> Option<Vec<usize>> {
        self.shape.iter().map(|d| d.as_const().and_then(|c| usize::try_from(c).ok())).collect()
    }

    /// The same shape with another element type.
    #[must_use]
    pub fn with_dtype(&self, dtype: DType) -> Self {
        Self { dtype, shape: self.shape.clone() }
    }

    /// `axis` counted from the front; negative axes count from the back. `None` if out of range.
    pub fn axis(&self, axis: i64) -> Option<usize> {
        normalize_axis(axis, self.rank())
    }

    /// Upper bound of the number of bytes if every symbol is at its largest, or at `unbounded` if it has no largest.
    pub fn bytes_estimate(&self, symbols: &SymbolTable, unbounded: i64) -> f64 {
        let elements: f64 = self
            .shape
            .iter()
            .map(|d| {
                let v = d.eval(&|s| {
                    let info = symbols.info(s);
                    Some(unbounded.max(info.min).min(info.max.unwrap_or(i64::MAX)))
                });
                v.unwrap_or(unbounded).max(0) as f64
            })
            .product();
        elements * self.dtype.size() as f64
    }
}

/// `axis` counted from the front, for a tensor of this rank.
pub fn normalize_axis(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let a = if axis < 0 { axis.checked_add(rank)? } else { axis };
    if (0..rank).contains(&a) { usize::try_from(a).ok() } else { None }
}

/// Numpy broadcasting of several shapes. `Err` holds the two sizes that do not fit.
///
/// A symbolic size against another size is accepted only where one of them is 1 or both are equal; where neither
/// is provable the larger-looking constant wins, since the file that gave the types promises that it runs.
pub fn broadcast<'a>(shapes: impl IntoIterator<Item = &'a [Dim]>) -> Result<Vec<Dim>, (Dim, Dim)> {
    let mut out: Vec<Dim> = Vec::new();
    for shape in shapes {
        if shape.len() > out.len() {
            let missing = shape.len() - out.len();
            out.splice(0..0, std::iter::repeat_n(Dim::ONE, missing));
        }
        let offset = out.len() - shape.len();
        for (i, d) in shape.iter().enumerate() {
            let slot = &mut out[offset + i];
            if d == slot || d.is(1) {
                continue;
            }
            if slot.is(1) {
                *slot = d.clone();
            } else {
                match (slot.as_const(), d.as_const()) {
                    (Some(_), Some(_)) => return Err((slot.clone(), d.clone())),
                    // A symbol that meets a constant other than 1 must equal it (or be 1, which broadcasts to it).
                    (None, Some(_)) => *slot = d.clone(),
                    (Some(_), None) => {}
                    (None, None) => {
                        if d < slot {
                            *slot = d.clone();
                        }
                    }
                }
            }
        }
    }
    Ok(out)
}

impl fmt::Display for TensorType {
    /// MLIR's syntax; symbolic sizes are `?` and stand in order in an encoding: `tensor<?x8xf32, ["s0"]>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tensor<")?;
        for d in &self.shape {
            match d.as_const() {
                Some(c) => write!(f, "{c}x")?,
                None => f.write_str("?x")?,
            }
        }
        write!(f, "{}", self.dtype)?;
        let symbolic: Vec<String> =
            self.shape.iter().filter(|d| d.as_const().is_none()).map(|d| format!("\"{d}\"")).collect();
        if !symbolic.is_empty() {
            write!(f, ", [{}]", symbolic.join(", "))?;
        }
        f.write_str(">")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_mlir() {
        let t = TensorType::new(DType::F32, [Dim::symbol("s0"), Dim::from(8i64)]);
        assert_eq!(t.to_string(), "tensor<?x8xf32, [\"s0\"]>");
        assert_eq!(TensorType::scalar(DType::Bool).to_string(), "tensor<i1>");
    }

    #[test]
    fn broadcasting() {
        let s = Dim::symbol("s0");
        let a = [s.clone(), Dim::ONE, Dim::from(4i64)];
        let b = [Dim::from(3i64), Dim::ONE];
        assert_eq!(broadcast([&a[..], &b[..]]), Ok(vec![s, Dim::from(3i64), Dim::from(4i64)]));
        assert!(broadcast([&[Dim::from(2i64)][..], &[Dim::from(3i64)][..]]).is_err());
    }

    #[test]
    fn axes() {
        assert_eq!(normalize_axis(-1, 3), Some(2));
        assert_eq!(normalize_axis(3, 3), None);
        assert_eq!(normalize_axis(i64::MIN, 3), None);
    }
}
