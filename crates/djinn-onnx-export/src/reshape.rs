//! Reshape, squeeze, unsqueeze and expand with the cheapest spelling of a symbolic shape.

use crate::dims;
use crate::emit::Emitter;
use crate::proto::int;
use djinn_diag::Result;
use djinn_ir::{Dim, TensorType};

/// `x` under the shape `to`; `x` itself if it has that shape.
pub(crate) fn reshape(e: &mut Emitter<'_>, x: &str, to: &[Dim]) -> Result<String> {
    reshape_node(e, x, to, false)
}

/// Like [`reshape`], shared with equal reshapes.
pub(crate) fn reshape_cached(e: &mut Emitter<'_>, x: &str, to: &[Dim]) -> Result<String> {
    reshape_node(e, x, to, true)
}

fn reshape_node(e: &mut Emitter<'_>, x: &str, to: &[Dim], shared: bool) -> Result<String> {
    let from = e.ty(x).cloned().unwrap_or_else(|| TensorType::scalar(djinn_ir::DType::F32));
    if from.shape == to {
        return Ok(x.to_owned());
    }
    let (op, second, attrs) = match static_shape(&from.shape, to) {
        Some(shape) => {
            let zero = if to.iter().any(|d| d.is(0)) { vec![int("allowzero", 1)] } else { vec![] };
            ("Reshape", e.i64s(&shape)?, zero)
        }
        None => match (added_ones(&from.shape, to), added_ones(to, &from.shape)) {
            (Some(axes), _) => ("Unsqueeze", e.i64s(&axes)?, vec![]),
            (_, Some(axes)) => ("Squeeze", e.i64s(&axes)?, vec![]),
            // All sizes are computed, so a computed 0 must be taken literally.
            (None, None) => ("Reshape", dims::vector(e, to)?, vec![int("allowzero", 1)]),
        },
    };
    let ty = TensorType::new(from.dtype, to.iter().cloned());
    if shared { e.cached(op, &[x, &second], attrs, ty) } else { e.node(op, &[x, &second], attrs, ty) }
}

/// Can `x` of shape `from` be reshaped without computing sizes at run time?
pub(crate) fn is_static(from: &[Dim], to: &[Dim]) -> bool {
    static_shape(from, to).is_some() || added_ones(from, to).is_some() || added_ones(to, from).is_some()
}

/// ONNX's constant target shape: sizes, 0 for "the operand's size of the same axis" and at most one −1.
fn static_shape(from: &[Dim], to: &[Dim]) -> Option<Vec<i64>> {
    if let Some(all) = to.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>() {
        return Some(all);
    }
    if to.iter().any(|d| d.is(0)) {
        return None;
    }
    let mut inferred = 0;
    let shape = to.iter().enumerate().map(|(i, d)| match d.as_const() {
        Some(c) => c,
        None if from.get(i) == Some(d) => 0,
        None => {
            inferred += 1;
            -1
        }
    });
    let shape: Vec<i64> = shape.collect();
    (inferred <= 1).then_some(shape)
}

/// The axes of `to` that are ones put between the sizes of `from`.
fn added_ones(from: &[Dim], to: &[Dim]) -> Option<Vec<i64>> {
    let mut rest = from.iter().peekable();
    let mut axes = Vec::new();
    for (i, d) in to.iter().enumerate() {
        let missing = to.len() - i > rest.len();
        if rest.peek() == Some(&d) && !(d.is(1) && missing) {
            rest.next();
        } else if d.is(1) {
            axes.push(i as i64);
        } else {
            return None;
        }
    }
    (rest.next().is_none() && !axes.is_empty()).then_some(axes)
}

/// `x` broadcast to `to`; `x` itself if it has that shape. Equal expansions are shared.
///
/// ONNX Expand broadcasts both ways, so a 1 stands for every size that `x` has already.
pub(crate) fn expand(e: &mut Emitter<'_>, x: &str, to: &[Dim]) -> Result<String> {
    let from = e.ty(x).cloned().unwrap_or_else(|| TensorType::scalar(djinn_ir::DType::F32));
    if from.shape == to {
        return Ok(x.to_owned());
    }
    let missing = to.len().saturating_sub(from.rank());
    let lazy: Vec<Dim> = to
        .iter()
        .enumerate()
        .map(|(i, d)| if i >= missing && from.shape[i - missing] == *d { Dim::ONE } else { d.clone() })
        .collect();
    let constant = lazy.iter().all(|d| d.as_const().is_some());
    // With symbols left over, the whole shape is more likely to be that of some value.
    let shape = dims::vector(e, if constant { &lazy } else { to })?;
    e.cached("Expand", &[x, &shape], vec![], TensorType::new(from.dtype, to.iter().cloned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(texts: &[&str]) -> Vec<Dim> {
        texts.iter().map(|t| t.parse().expect("dimension")).collect()
    }

    #[test]
    fn static_shapes() {
        assert_eq!(static_shape(&d(&["b", "s", "64"]), &d(&["b", "s", "8", "8"])), Some(vec![0, 0, 8, 8]));
        assert_eq!(static_shape(&d(&["b", "s", "64"]), &d(&["b*s", "64"])), Some(vec![-1, 64]));
        assert_eq!(static_shape(&d(&["b*s", "64"]), &d(&["b", "s", "64"])), None);
        assert_eq!(static_shape(&d(&["0", "s"]), &d(&["s", "0"])), None);
    }

    #[test]
    fn ones() {
        assert_eq!(added_ones(&d(&["b", "s"]), &d(&["b", "1", "s", "1"])), Some(vec![1, 3]));
        assert_eq!(added_ones(&d(&["1", "s"]), &d(&["1", "1", "s"])), Some(vec![0]));
        assert_eq!(added_ones(&d(&["s", "b"]), &d(&["b", "1", "s"])), None);
        assert_eq!(added_ones(&d(&["b"]), &d(&["b"])), None);
    }
}
