//! Interpolation: every result element is a weighted sum of neighbours, one axis after the other.
//!
//! Positions and weights are computed in `f64` by the formulas of ONNX Resize without antialiasing
//! (<https://onnx.ai/onnx/operators/onnx__Resize.html>), so that no element comes from another neighbour than in the
//! evaluator.

use super::indexing::not_empty;
use super::{Expander, wide};
use crate::affine::Affine;
use crate::build::Builder;
use crate::dag::{Bin, Cmp, Conv, Dag, Id, Ty, Un};
use crate::program::NodeId;
use crate::scalar;
use djinn_diag::{Result, unsupported};
use djinn_ir::{DType, Dim, Op};

/// Positions further out than this are all the same: far outside.
const FAR: f64 = 1e12;

/// One resized axis.
#[derive(Clone)]
struct Axis {
    number: usize,
    from: Dim,
    to: Dim,
    scale: f64,
}

/// The attributes that name formulas.
#[derive(Clone)]
struct Words {
    coordinates: String,
    nearest: String,
    cubic: Option<f64>,
    exclude_outside: bool,
}

impl Expander<'_> {
    pub(super) fn resize(&mut self, op: &Op, x: NodeId, ty: (DType, &[Dim])) -> Result<NodeId> {
        let (from, scales) = (self.shape(x), op.attrs.floats("scales"));
        let axes = from.iter().zip(ty.1).zip(scales).enumerate();
        let axes: Vec<Axis> = axes
            .map(|(number, ((from, to), scale))| Axis { number, from: from.clone(), to: to.clone(), scale })
            .filter(|a| a.from != a.to || a.scale != 1.0)
            .collect();
        if axes.iter().any(|a| !a.scale.is_finite() || a.scale <= 0.0) {
            return Err(unsupported("kernel.op", "an axis is resized by a factor that is not positive"));
        }
        let attrs = &op.attrs;
        let words = Words {
            coordinates: attrs.str("coordinates").to_owned(),
            nearest: attrs.str("nearest").to_owned(),
            cubic: (attrs.str("mode") == "cubic").then(|| attrs.float("cubic_a")),
            exclude_outside: attrs.bool("exclude_outside"),
        };
        if attrs.str("mode") == "nearest" {
            return Ok(self.nearest(x, ty, axes, words));
        }
        let sums = if ty.0.is_float() { wide(ty.0) } else { DType::F64 };
        let (mut node, mut shape) = (x, from);
        for axis in axes {
            shape[axis.number] = axis.to.clone();
            node = self.interpolated(node, (sums, &shape), axis, words.clone());
        }
        let from = self.dtype(node);
        Ok(self.pointwise(ty, &[node], 1, move |dag, v| Ok(scalar::cast(dag, v[0], from, ty.0))))
    }

    /// The element at the nearest position of every axis.
    fn nearest(&mut self, x: NodeId, ty: (DType, &[Dim]), axes: Vec<Axis>, words: Words) -> NodeId {
        let cost = 8 * axes.len() as u32;
        self.element(ty, &[x], cost, move |b, p| {
            let (mut index, mut guard) = (p.index.to_vec(), p.guard);
            for axis in &axes {
                let at = coordinate(b.dag, &words, axis, &p.index[axis.number]);
                let at = nearest(b.dag, &words, at);
                index[axis.number] = kept_inside(b, at, &axis.from);
                let some = not_empty(b, &axis.from);
                guard = b.dag.both(guard, some);
            }
            b.value(x, &index, guard)
        })
    }

    /// One axis interpolated.
    fn interpolated(&mut self, x: NodeId, ty: (DType, &[Dim]), axis: Axis, words: Words) -> NodeId {
        let (from, number) = (self.dtype(x), Ty::of(ty.0));
        let (sums, taps_of_axis) = (ty.0, if words.cubic.is_some() { 4 } else { 2 });
        self.element(ty, &[x], 12 * taps_of_axis, move |b, p| {
            let some = not_empty(b, &axis.from);
            let guard = b.dag.both(p.guard, some);
            let mut total: Option<Id> = None;
            for (at, weight) in taps(b, &words, &axis, &p.index[axis.number]) {
                let mut index = p.index.to_vec();
                index[axis.number] = at;
                let value = b.value(x, &index, guard)?;
                let value = scalar::cast(b.dag, value, from, sums);
                let weight =
                    if number == Ty::F32 { b.dag.conv(Conv::Narrow, Ty::F32, weight) } else { weight };
                let term = b.dag.bin(Bin::MulF, value, weight);
                total = Some(match total {
                    None => term,
                    Some(sum) => b.dag.bin(Bin::AddF, sum, term),
                });
            }
            Ok(total.unwrap_or_else(|| b.dag.float(number, 0.0)))
        })
    }
}

fn c(dag: &mut Dag, value: f64) -> Id {
    dag.float(Ty::F64, value)
}

/// A size as `f64`.
fn float_size(dag: &mut Dag, size: &Dim) -> Id {
    match size.as_const() {
        Some(n) => c(dag, n as f64),
        None => {
            let n = dag.size(size);
            dag.conv(Conv::SignedToFloat, Ty::F64, n)
        }
    }
}

/// Position in the operand that a result position stands for.
fn coordinate(dag: &mut Dag, words: &Words, axis: &Axis, i: &Affine) -> Id {
    let i = dag.index(i);
    let i = dag.conv(Conv::SignedToFloat, Ty::F64, i);
    let (half, one, zero) = (c(dag, 0.5), c(dag, 1.0), c(dag, 0.0));
    let scale = c(dag, axis.scale);
    let (from, to) = (float_size(dag, &axis.from), float_size(dag, &axis.to));
    let single = |dag: &mut Dag, other: Id| {
        let (n, one) = (dag.size(&axis.to), dag.int(Ty::I64, 1));
        let single = dag.cmp(Cmp::Eq, n, one);
        dag.select(single, zero, other)
    };
    let moved = dag.bin(Bin::AddF, i, half);
    let moved = dag.bin(Bin::DivF, moved, scale);
    let half_pixel = dag.bin(Bin::SubF, moved, half);
    let position = match words.coordinates.as_str() {
        "asymmetric" => dag.bin(Bin::DivF, i, scale),
        "align_corners" => {
            let (from, to) = (dag.bin(Bin::SubF, from, one), dag.bin(Bin::SubF, to, one));
            let part = dag.bin(Bin::MulF, i, from);
            let part = dag.bin(Bin::DivF, part, to);
            single(dag, part)
        }
        "pytorch_half_pixel" => single(dag, half_pixel),
        "half_pixel_symmetric" => {
            let product = dag.bin(Bin::MulF, scale, from);
            let adjustment = dag.bin(Bin::DivF, to, product);
            let two = c(dag, 2.0);
            let middle = dag.bin(Bin::DivF, from, two);
            let rest = dag.bin(Bin::SubF, one, adjustment);
            let offset = dag.bin(Bin::MulF, middle, rest);
            dag.bin(Bin::AddF, offset, half_pixel)
        }
        _ => half_pixel,
    };
    let (low, high) = (c(dag, -FAR), c(dag, FAR));
    let position = dag.bin(Bin::MaxF, position, low);
    dag.bin(Bin::MinF, position, high)
}

/// The nearest whole position by the rounding that the attribute names.
fn nearest(dag: &mut Dag, words: &Words, x: Id) -> Id {
    let half = c(dag, 0.5);
    let rounded = match words.nearest.as_str() {
        "floor" => dag.un(Un::Floor, x),
        "ceil" => dag.un(Un::Ceil, x),
        "round_prefer_ceil" => {
            let moved = dag.bin(Bin::AddF, x, half);
            dag.un(Un::Floor, moved)
        }
        _ => {
            let moved = dag.bin(Bin::SubF, x, half);
            dag.un(Un::Ceil, moved)
        }
    };
    dag.conv(Conv::FloatToSigned, Ty::I64, rounded)
}

/// A position moved to the nearest one of the axis.
fn kept_inside(b: &mut Builder, at: Id, size: &Dim) -> Affine {
    let (zero, one, n) = (b.dag.int(Ty::I64, 0), b.dag.int(Ty::I64, 1), b.dag.size(size));
    let last = b.dag.bin(Bin::Sub, n, one);
    let at = b.dag.bin(Bin::MinS, at, last);
    let at = b.dag.bin(Bin::MaxS, at, zero);
    b.dag.computed(at, Some(size.clone()))
}

/// Positions and weights that make one element of a linear or cubic resize.
fn taps(b: &mut Builder, words: &Words, axis: &Axis, i: &Affine) -> Vec<(Affine, Id)> {
    let x = coordinate(b.dag, words, axis, i);
    let floor = b.dag.un(Un::Floor, x);
    let s = b.dag.bin(Bin::SubF, x, floor);
    let below = b.dag.conv(Conv::FloatToSigned, Ty::I64, floor);
    let (first, mut weights) = match words.cubic {
        Some(a) => (-1, cubic_weights(b.dag, a, s).to_vec()),
        None => {
            let one = c(b.dag, 1.0);
            (0, vec![b.dag.bin(Bin::SubF, one, s), s])
        }
    };
    let positions: Vec<Id> = (0..weights.len() as i64)
        .map(|n| {
            let offset = b.dag.int(Ty::I64, first + n);
            b.dag.bin(Bin::Add, below, offset)
        })
        .collect();
    if words.exclude_outside {
        exclude_outside(b, &positions, &mut weights, &axis.from);
    }
    let inside = |at| kept_inside(b, at, &axis.from);
    positions.into_iter().map(inside).zip(weights).collect()
}

/// Weights of positions outside become 0 and the others sum to 1, unless theirs sum to 0.
fn exclude_outside(b: &mut Builder, positions: &[Id], weights: &mut [Id], size: &Dim) {
    let (zero, nothing, n) = (c(b.dag, 0.0), b.dag.int(Ty::I64, 0), b.dag.size(size));
    let mut inside = Vec::new();
    let mut sum = zero;
    for (at, weight) in positions.iter().zip(&*weights) {
        let (low, high) = (b.dag.cmp(Cmp::SGe, *at, nothing), b.dag.cmp(Cmp::SLt, *at, n));
        let here = b.dag.bin(Bin::And, low, high);
        let term = b.dag.select(here, *weight, zero);
        sum = b.dag.bin(Bin::AddF, sum, term);
        inside.push(term);
    }
    let some = b.dag.cmp(Cmp::FNe, sum, zero);
    for (weight, term) in weights.iter_mut().zip(inside) {
        let part = b.dag.bin(Bin::DivF, term, sum);
        *weight = b.dag.select(some, part, *weight);
    }
}

/// Weights of the four neighbours of a point that lies `s` after the second of them (R. Keys, "Cubic convolution
/// interpolation for digital image processing", 1981, equation 15 for any `a`).
fn cubic_weights(dag: &mut Dag, a: f64, s: Id) -> [Id; 4] {
    // ((a + 2)·d − (a + 3))·d² + 1
    let near = |dag: &mut Dag, d: Id| {
        let (k2, k3, one) = (c(dag, a + 2.0), c(dag, a + 3.0), c(dag, 1.0));
        let y = dag.bin(Bin::MulF, k2, d);
        let y = dag.bin(Bin::SubF, y, k3);
        let y = dag.bin(Bin::MulF, y, d);
        let y = dag.bin(Bin::MulF, y, d);
        dag.bin(Bin::AddF, y, one)
    };
    // ((a·d − 5a)·d + 8a)·d − 4a
    let far = |dag: &mut Dag, d: Id| {
        let [k1, k5, k8, k4] = [a, 5.0 * a, 8.0 * a, 4.0 * a].map(|k| c(dag, k));
        let y = dag.bin(Bin::MulF, k1, d);
        let y = dag.bin(Bin::SubF, y, k5);
        let y = dag.bin(Bin::MulF, y, d);
        let y = dag.bin(Bin::AddF, y, k8);
        let y = dag.bin(Bin::MulF, y, d);
        dag.bin(Bin::SubF, y, k4)
    };
    let (one, two) = (c(dag, 1.0), c(dag, 2.0));
    let after = dag.bin(Bin::AddF, s, one);
    let (before, beyond) = (dag.bin(Bin::SubF, one, s), dag.bin(Bin::SubF, two, s));
    [far(dag, after), near(dag, s), near(dag, before), far(dag, beyond)]
}
