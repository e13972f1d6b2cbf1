//! Recurrent cells.

use crate::call::Call;
use crate::contraction::{Matrix, multiply};
use crate::elementwise::sigmoid;
use crate::tensor::{checked_numel, filled, floats, from_floats};
use djinn_diag::Result;
use djinn_ir::TensorData;

/// Sizes of an LSTM.
#[derive(Clone, Copy)]
struct Sizes {
    steps: usize,
    batch: usize,
    input: usize,
    directions: usize,
    hidden: usize,
}

fn sizes(call: &Call) -> Result<Sizes> {
    let directions = if call.attrs.str("direction") == "bidirectional" { 2 } else { 1 };
    let hidden = usize::try_from(call.attrs.int("hidden")).unwrap_or(0);
    let [steps, batch, input] = *call.x()?.shape() else { return Err(call.fail("x must have rank 3")) };
    let gates = hidden.saturating_mul(4);
    let state = vec![directions, batch, hidden];
    let wants = [
        (1, vec![directions, gates, input]),
        (2, vec![directions, gates, hidden]),
        (3, vec![directions, gates.saturating_mul(2)]),
        (4, state.clone()),
        (5, state),
    ];
    for (i, want) in wants {
        if call.operand(i)?.shape() != want {
            let name = call.kind.def().operands[i];
            let shape = call.operand(i)?.shape();
            return Err(call.fail(format!("operand '{name}' has shape {shape:?}, not {want:?}")));
        }
    }
    Ok(Sizes { steps, batch, input, directions, hidden })
}

/// One time step for one direction: the gates' sums become the new cell and hidden state.
fn step(gates: &[f64], bias: &[f64], hidden: usize, h: &mut [f64], c: &mut [f64]) {
    for (n, (h, c)) in h.iter_mut().zip(c.iter_mut()).enumerate() {
        let (row, unit) = (n / hidden * 4 * hidden, n % hidden);
        let sum = |gate: usize| {
            let at = gate * hidden + unit;
            gates[row + at] + bias[at] + bias[4 * hidden + at]
        };
        let (input, output, forget) = (sigmoid(sum(0)), sigmoid(sum(1)), sigmoid(sum(2)));
        *c = forget * *c + input * libm::tanh(sum(3));
        *h = output * libm::tanh(*c);
    }
}

/// ONNX LSTM with default activations; gates in the order i, o, f, c. State is kept in `f64` between steps.
pub(crate) fn lstm(call: &Call) -> Result<Vec<TensorData>> {
    let s = sizes(call)?;
    let dtype = call.x()?.dtype();
    let [x, w, r, b] = [0, 1, 2, 3].map(|i| call.operand(i).map(floats));
    let (x, w, r, b) = (x?, w?, r?, b?);
    let (mut h, mut c) = (floats(call.operand(4)?), floats(call.operand(5)?));
    let (state, gates) = (s.batch * s.hidden, 4 * s.hidden);
    let y_shape = [s.steps, s.directions, s.batch, s.hidden];
    let mut y = filled(checked_numel(&y_shape)?, 0.0)?;
    for d in 0..s.directions {
        let backwards = d == 1 || call.attrs.str("direction") == "reverse";
        let h = &mut h[d * state..(d + 1) * state];
        let c = &mut c[d * state..(d + 1) * state];
        let w = Matrix::dense(&w, d * gates * s.input, (gates, s.input)).transposed();
        let r = Matrix::dense(&r, d * gates * s.hidden, (gates, s.hidden)).transposed();
        let bias = &b[d * 2 * gates..(d + 1) * 2 * gates];
        for t in 0..s.steps {
            let t = if backwards { s.steps - 1 - t } else { t };
            let now = Matrix::dense(&x, t * s.batch * s.input, (s.batch, s.input));
            let mut sums = multiply(now, w)?;
            let recurrent = multiply(Matrix::dense(h, 0, (s.batch, s.hidden)), r)?;
            sums.iter_mut().zip(recurrent).for_each(|(a, v)| *a += v);
            step(&sums, bias, s.hidden, h, c);
            let at = (t * s.directions + d) * state;
            y[at..at + state].copy_from_slice(h);
        }
    }
    let last = [s.directions, s.batch, s.hidden];
    Ok(vec![
        from_floats(dtype, &y_shape, &y)?,
        from_floats(dtype, &last, &h)?,
        from_floats(dtype, &last, &c)?,
    ])
}
