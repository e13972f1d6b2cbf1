//! Comparison of an actual tensor with the expected one, within a declared tolerance.

use djinn_ir::{DType, TensorData};
use std::fmt;

/// How far an actual value may be from the expected one: `|a − e| ≤ atol + rtol·|e|`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// Every element has the same value; NaN equals NaN, and the sign of zero does not matter.
    Exact,
    /// The same sums in another order, with other intermediate roundings: see [`Tolerance::bounds`].
    Reassoc,
    /// Given bounds, whatever the element type and the magnitude of the tensor.
    Approx {
        /// Bound relative to the expected element.
        rtol: f64,
        /// Absolute bound.
        atol: f64,
    },
}

impl Tolerance {
    /// `(rtol, atol)` for an expected tensor of this type whose largest finite magnitude is `scale`.
    pub fn bounds(self, dtype: DType, scale: f64) -> (f64, f64) {
        match (self, dtype) {
            (Tolerance::Approx { rtol, atol }, _) => (rtol, atol),
            (Tolerance::Exact, _) => (0.0, 0.0),
            (Tolerance::Reassoc, DType::F64) => (1e-10, 1e-11 * scale),
            (Tolerance::Reassoc, DType::F32) => (2e-4, 2e-5 * scale),
            (Tolerance::Reassoc, DType::F16) => (1e-2, 2e-3 * scale),
            (Tolerance::Reassoc, DType::BF16) => (5e-2, 1e-2 * scale),
            (Tolerance::Reassoc, _) => (0.0, 0.0),
        }
    }
}

/// The element that is furthest from what is allowed.
#[derive(Debug, Clone, PartialEq)]
pub struct Worst {
    /// Its index.
    pub index: Vec<usize>,
    /// The expected value.
    pub expected: f64,
    /// The actual value.
    pub actual: f64,
}

/// How close two tensors of one type are.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Number of elements.
    pub elements: usize,
    /// Number of elements outside the tolerance.
    pub wrong: usize,
    /// Largest absolute error; infinite where only one value is finite.
    pub max_abs: f64,
    /// Largest error relative to the expected element, over elements that are not 0.
    pub max_rel: f64,
    /// The worst element; `None` if all are equal.
    pub worst: Option<Worst>,
}

/// Why two tensors do not agree.
#[derive(Debug, Clone, PartialEq)]
pub enum Mismatch {
    /// The element types differ.
    DType {
        /// The expected type.
        expected: DType,
        /// The actual type.
        actual: DType,
    },
    /// The shapes differ.
    Shape {
        /// The expected shape.
        expected: Vec<usize>,
        /// The actual shape.
        actual: Vec<usize>,
    },
    /// Elements lie outside the tolerance.
    Values(Report),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { elements, wrong, max_abs, max_rel, worst } = self;
        write!(f, "{wrong} of {elements} elements differ too much")?;
        write!(f, " (largest error {max_abs:e} absolute, {max_rel:e} relative)")?;
        match worst {
            Some(w) => write!(f, "; worst at {:?}: expected {:?}, got {:?}", w.index, w.expected, w.actual),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::DType { expected, actual } => {
                write!(f, "expected element type {expected}, got {actual}")
            }
            Mismatch::Shape { expected, actual } => write!(f, "expected shape {expected:?}, got {actual:?}"),
            Mismatch::Values(report) => report.fmt(f),
        }
    }
}

impl std::error::Error for Mismatch {}

/// Compares `actual` with `expected`: types and shapes must be equal, integers and booleans too, floats within
/// the tolerance. NaN agrees with NaN and an infinity with itself.
///
/// # Errors
/// The first of element type, shape and values that does not agree.
pub fn compare(
    expected: &TensorData,
    actual: &TensorData,
    tolerance: Tolerance,
) -> std::result::Result<Report, Box<Mismatch>> {
    if expected.dtype() != actual.dtype() {
        return Err(Box::new(Mismatch::DType { expected: expected.dtype(), actual: actual.dtype() }));
    }
    if expected.shape() != actual.shape() {
        let (expected, actual) = (expected.shape().to_vec(), actual.shape().to_vec());
        return Err(Box::new(Mismatch::Shape { expected, actual }));
    }
    let report = if expected.dtype().is_float() {
        compare_floats(expected, actual, tolerance)
    } else {
        compare_exactly(expected, actual)
    };
    if report.wrong == 0 { Ok(report) } else { Err(Box::new(Mismatch::Values(report))) }
}

/// Collects the report element by element.
struct Collector<'a> {
    shape: &'a [usize],
    report: Report,
    worst_excess: f64,
}

impl<'a> Collector<'a> {
    fn new(t: &'a TensorData) -> Self {
        let report = Report { elements: t.numel(), wrong: 0, max_abs: 0.0, max_rel: 0.0, worst: None };
        Collector { shape: t.shape(), report, worst_excess: 0.0 }
    }

    /// Notes an element with an error, and how many times the error is what is allowed.
    fn add(&mut self, i: usize, (expected, actual): (f64, f64), error: f64, excess: f64) {
        self.report.wrong += usize::from(excess > 1.0);
        self.report.max_abs = self.report.max_abs.max(error);
        if expected != 0.0 && expected.is_finite() {
            self.report.max_rel = self.report.max_rel.max(error / expected.abs());
        }
        if excess > self.worst_excess || self.report.worst.is_none() {
            self.worst_excess = excess;
            let mut rest = i;
            let mut index: Vec<usize> = self
                .shape
                .iter()
                .rev()
                .map(|n| {
                    let at = rest % n;
                    rest /= n;
                    at
                })
                .collect();
            index.reverse();
            self.report.worst = Some(Worst { index, expected, actual });
        }
    }
}

fn compare_floats(expected: &TensorData, actual: &TensorData, tolerance: Tolerance) -> Report {
    let (e, a) = (crate::tensor::floats(expected), crate::tensor::floats(actual));
    let scale = e.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    let (rtol, atol) = tolerance.bounds(expected.dtype(), scale);
    let mut collector = Collector::new(expected);
    for (i, (e, a)) in e.into_iter().zip(a).enumerate() {
        if e == a || (e.is_nan() && a.is_nan()) {
            continue;
        }
        let error = (a - e).abs();
        let allowed = atol + rtol * e.abs();
        if error.is_finite() && e.is_finite() {
            let excess =
                if error <= allowed { error / allowed } else { (error / allowed).max(1.0 + f64::EPSILON) };
            collector.add(i, (e, a), error, excess);
        } else {
            collector.add(i, (e, a), f64::INFINITY, f64::INFINITY);
        }
    }
    collector.report
}

fn compare_exactly(expected: &TensorData, actual: &TensorData) -> Report {
    let (e, a) = (crate::tensor::ints(expected), crate::tensor::ints(actual));
    let mut collector = Collector::new(expected);
    for (i, (e, a)) in e.into_iter().zip(a).enumerate() {
        if e != a {
            let error = e.abs_diff(a) as f64;
            collector.add(i, (e as f64, a as f64), error, 1.0 + error);
        }
    }
    collector.report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(values: &[f32]) -> TensorData {
        TensorData::from_f32(&[values.len()], values).expect("fits")
    }

    #[test]
    fn special_values_agree_with_themselves() {
        let special = t(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0]);
        let report =
            compare(&special, &t(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0]), Tolerance::Exact);
        assert_eq!(report.expect("equal").worst, None);
        assert!(
            compare(&special, &t(&[0.0, f32::INFINITY, f32::NEG_INFINITY, 0.0]), Tolerance::Reassoc).is_err()
        );
        assert!(
            compare(&special, &t(&[f32::NAN, 3e38, f32::NEG_INFINITY, 0.0]), Tolerance::Reassoc).is_err()
        );
    }

    #[test]
    fn the_report_names_the_worst_element() {
        let (e, a) = (t(&[100.0, 1.0, 0.0]), t(&[100.001, 1.1, 0.001]));
        let Err(mismatch) = compare(&e, &a, Tolerance::Reassoc) else { panic!("0.1 is too much") };
        let Mismatch::Values(report) = *mismatch else { panic!("values differ") };
        assert_eq!(report.wrong, 1);
        assert_eq!(report.worst.map(|w| w.index), Some(vec![1]));
        assert!(compare(&e, &a, Tolerance::Approx { rtol: 0.0, atol: 0.2 }).is_ok());
        assert!(compare(&e, &e, Tolerance::Exact).is_ok());
    }

    #[test]
    fn integers_are_exact_and_types_must_agree() {
        let (e, a) =
            (TensorData::from_i64(&[2], &[1 << 60, 2]), TensorData::from_i64(&[2], &[(1 << 60) + 1, 2]));
        let (e, a) = (e.expect("fits"), a.expect("fits"));
        assert!(compare(&e, &a, Tolerance::Reassoc).is_err());
        assert!(matches!(
            *compare(&e, &t(&[1.0, 2.0]), Tolerance::Exact).expect_err("types"),
            Mismatch::DType { .. }
        ));
        let flat = e.reshaped(vec![1, 2]).expect("fits");
        assert!(matches!(*compare(&e, &flat, Tolerance::Exact).expect_err("shapes"), Mismatch::Shape { .. }));
    }
}
