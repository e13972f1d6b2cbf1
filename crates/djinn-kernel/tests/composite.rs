//! Resizes, sorting and recurrences as kernels beside the evaluator.

mod support;

use djinn_ir::{Attrs, DType, Dim, Location, OpKind as K, TensorData, ValueId};
use support::{Case, both, compiler};

const COORDINATES: [&str; 5] =
    ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"];

/// Attributes of a resize to these sizes.
fn resize(c: &Case, from: &[i64], to: &[i64], mode: &str, coordinates: &str) -> Attrs {
    let scales: Vec<f64> = from.iter().zip(to).map(|(f, t)| *t as f64 / *f as f64).collect();
    Attrs::new()
        .with("sizes", c.dims(to))
        .with("scales", scales)
        .with("mode", mode)
        .with("coordinates", coordinates)
        .with("nearest", "round_prefer_floor")
        .with("cubic_a", -0.75)
        .with("exclude_outside", false)
}

#[test]
fn every_mode_of_resize() {
    let Some(compiler) = compiler("every_mode_of_resize") else { return };
    let (from, to) = ([2, 3, 5, 4], [2, 3, 11, 3]);
    for mode in ["nearest", "linear", "cubic"] {
        both(mode, &compiler, |c| {
            let x = c.f32(&from);
            c.f32(&to);
            let mut out: Vec<ValueId> =
                COORDINATES.map(|words| c.op(K::Resize, &[x], resize(c, &from, &to, mode, words))).to_vec();
            for nearest in ["round_prefer_ceil", "floor", "ceil"] {
                let attrs = resize(c, &from, &to, mode, "asymmetric").with("nearest", nearest);
                out.push(c.op(K::Resize, &[x], attrs));
            }
            for words in ["asymmetric", "half_pixel_symmetric"] {
                let attrs = resize(c, &from, &to, mode, words).with("exclude_outside", true);
                out.push(c.op(K::Resize, &[x], attrs));
            }
            out
        });
        both(&format!("{mode} to one"), &compiler, |c| {
            let x = c.f32(&[1, 2, 5, 6]);
            c.f32(&[12]);
            let attrs = |words| resize(c, &[1, 2, 5, 6], &[1, 2, 1, 12], mode, words);
            COORDINATES.map(attrs).map(|attrs| c.op(K::Resize, &[x], attrs)).to_vec()
        });
        for dtype in [DType::F16, DType::BF16, DType::F64, DType::U8, DType::I32] {
            both(&format!("{mode} of {dtype}"), &compiler, |c| {
                let x = c.range(dtype, &[3, 7], 0.0, 100.0);
                c.f32(&[6]);
                let y = c.op(K::Resize, &[x], resize(c, &[3, 7], &[6, 7], mode, "half_pixel"));
                vec![y, c.op(K::Resize, &[x], resize(c, &[3, 7], &[3, 7], mode, "half_pixel"))]
            });
        }
    }
}

#[test]
fn resizes_of_computed_values() {
    let Some(compiler) = compiler("resizes_of_computed_values") else { return };
    both("fused", &compiler, |c| {
        let x = c.f32(&[1, 2, 6, 6]);
        c.f32(&[12]);
        let y = c.op(K::Gelu, &[x], Attrs::new().with("approximate", "none"));
        let up = resize(c, &[1, 2, 6, 6], &[1, 2, 12, 12], "linear", "half_pixel");
        let z = c.op(K::Resize, &[y], up);
        vec![c.op(K::Relu, &[z], Attrs::new())]
    });
}

fn topk(c: &mut Case, x: ValueId, axis: i64, k: i64, largest: bool) -> Vec<ValueId> {
    let attrs =
        Attrs::new().with("axis", axis).with("k", Dim::from(k)).with("largest", largest).with("sorted", true);
    let op = c
        .graph
        .build(K::TopK, &[x], attrs, Vec::new(), Location::default())
        .unwrap_or_else(|e| panic!("{e}"));
    c.graph.op(op).results.to_vec()
}

#[test]
fn the_best_in_order() {
    let Some(compiler) = compiler("the_best_in_order") else { return };
    for (axis, k) in [(0, 2), (1, 5), (2, 7), (0, 0)] {
        for largest in [false, true] {
            both(&format!("axis {axis}, k {k}"), &compiler, |c| {
                let x = c.f32(&[3, 5, 7]);
                let equals = c.range(DType::I32, &[3, 5, 7], -2.0, 3.0);
                let mut out = topk(c, x, axis, k, largest);
                out.extend(topk(c, equals, axis, k, largest));
                out
            });
        }
    }
    for dtype in [DType::F16, DType::BF16, DType::F64, DType::U8, DType::I64, DType::Bool] {
        both(&format!("{dtype}"), &compiler, |c| {
            let x = c.range(dtype, &[90], 0.0, if dtype == DType::Bool { 2.0 } else { 250.0 });
            let mut out = topk(c, x, 0, 40, true);
            out.extend(topk(c, x, 0, 40, false));
            out
        });
    }
    let values = [1.0, f32::NAN, -0.0, 0.0, f32::INFINITY, f32::NAN, -f32::INFINITY, 1.0];
    both("special values", &compiler, |c| {
        let x = c.argument(TensorData::from_f32(&[8], &values).expect("fits"), &[8]);
        let mut out = topk(c, x, 0, 8, true);
        out.extend(topk(c, x, 0, 8, false));
        out
    });
    both("of computed values", &compiler, |c| {
        let x = c.f32(&[4, 33]);
        let y = c.op(K::Softmax, &[x], Attrs::new().with("axis", 1i64));
        let best = topk(c, y, 1, 3, true);
        vec![c.op(K::Neg, &[best[0]], Attrs::new()), best[1]]
    });
}

fn lstm(
    c: &mut Case,
    dtype: DType,
    [steps, batch, input, hidden]: [i64; 4],
    direction: &str,
) -> Vec<ValueId> {
    let directions = if direction == "bidirectional" { 2 } else { 1 };
    let shapes: [&[i64]; 6] = [
        &[steps, batch, input],
        &[directions, 4 * hidden, input],
        &[directions, 4 * hidden, hidden],
        &[directions, 8 * hidden],
        &[directions, batch, hidden],
        &[directions, batch, hidden],
    ];
    c.keep_constant(&[2, input, hidden, 4 * hidden, 8 * hidden]);
    let operands = shapes.map(|shape| c.range(dtype, shape, -0.5, 0.5));
    let attrs = Attrs::new().with("direction", direction).with("hidden", hidden);
    let op = c
        .graph
        .build(K::Lstm, &operands, attrs, Vec::new(), Location::default())
        .unwrap_or_else(|e| panic!("{e}"));
    c.graph.op(op).results.to_vec()
}

#[test]
fn recurrences() {
    let Some(compiler) = compiler("recurrences") else { return };
    for direction in ["forward", "reverse", "bidirectional"] {
        for sizes in [[1, 3, 2, 6], [9, 1, 1, 1], [17, 11, 13, 10]] {
            both(&format!("{direction} {sizes:?}"), &compiler, |c| lstm(c, DType::F32, sizes, direction));
        }
        both(direction, &compiler, |c| lstm(c, DType::F64, [4, 3, 5, 8], direction));
        both(direction, &compiler, |c| lstm(c, DType::F16, [4, 3, 5, 8], direction));
    }
    both("two layers", &compiler, |c| {
        let first = lstm(c, DType::F32, [6, 3, 5, 4], "forward");
        let y = c.op(K::Tanh, &[first[0]], Attrs::new());
        let second = lstm(c, DType::F32, [6, 3, 5, 4], "bidirectional");
        vec![y, first[2], second[0], second[1]]
    });
}
