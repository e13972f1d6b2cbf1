//! The LSTM of ONNX with default activations; gates in the order i, o, f, c.

use crate::gemm::{Matrix, multiply};
use crate::operation::{Call, Values};
use crate::real::Real;

/// Sizes of an LSTM.
#[derive(Debug)]
pub(crate) struct Lstm {
    steps: usize,
    batch: usize,
    input: usize,
    hidden: usize,
    /// By direction: does it go from the last step to the first?
    backwards: Vec<bool>,
}

impl Lstm {
    pub(crate) fn new(call: &Call) -> Option<Lstm> {
        let backwards = match call.attrs.str("direction") {
            "bidirectional" => vec![false, true],
            "reverse" => vec![true],
            _ => vec![false],
        };
        let (directions, hidden) = (backwards.len(), call.count("hidden")?);
        let [steps, batch, input] = *call.shape(0) else { return None };
        let gates = hidden.checked_mul(4)?;
        let state = [directions, batch, hidden];
        let fits = call.shape(1) == [directions, gates, input]
            && call.shape(2) == [directions, gates, hidden]
            && call.shape(3) == [directions, gates.checked_mul(2)?]
            && call.shape(4) == state
            && call.shape(5) == state;
        fits.then_some(Lstm { steps, batch, input, hidden, backwards })
    }

    /// Y, last h and last c.
    pub(crate) fn run<T: Real>(&self, operands: &Values<T>) -> (Vec<T>, Vec<T>, Vec<T>) {
        let [x, w, r, b, h, c] = [0, 1, 2, 3, 4, 5].map(|i| &*operands[i]);
        let (state, gates) = (self.batch * self.hidden, 4 * self.hidden);
        let directions = self.backwards.len();
        let mut y = vec![T::ZERO; self.steps * directions * state];
        let (mut h, mut c) = (h.to_vec(), c.to_vec());
        let mut sums = vec![T::ZERO; self.steps * self.batch * gates];
        if state == 0 {
            return (y, h, c);
        }
        for (d, backwards) in self.backwards.iter().enumerate() {
            let (h, c) = (&mut h[d * state..(d + 1) * state], &mut c[d * state..(d + 1) * state]);
            let w = Matrix::new(&w[d * gates * self.input..], (gates, self.input), self.input).transposed();
            let r =
                Matrix::new(&r[d * gates * self.hidden..], (gates, self.hidden), self.hidden).transposed();
            let bias = &b[d * 2 * gates..(d + 1) * 2 * gates];
            let (first, second) = bias.split_at(gates);
            for row in sums.chunks_exact_mut(gates) {
                row.iter_mut().zip(first).zip(second).for_each(|((slot, a), b)| *slot = *a + *b);
            }
            let rows = self.steps * self.batch;
            multiply(Matrix::new(x, (rows, self.input), self.input), w, &mut sums, gates, true);
            for t in 0..self.steps {
                let t = if *backwards { self.steps - 1 - t } else { t };
                let now = &mut sums[t * self.batch * gates..][..self.batch * gates];
                multiply(Matrix::new(h, (self.batch, self.hidden), self.hidden), r, now, gates, true);
                self.step(now, h, c);
                y[(t * directions + d) * state..][..state].copy_from_slice(h);
            }
        }
        (y, h, c)
    }

    /// The gates' sums become the new cell and hidden state.
    fn step<T: Real>(&self, gates: &[T], h: &mut [T], c: &mut [T]) {
        let n = self.hidden;
        for (row, (h, c)) in gates.chunks_exact(4 * n).zip(h.chunks_exact_mut(n).zip(c.chunks_exact_mut(n))) {
            for (unit, (h, c)) in h.iter_mut().zip(c).enumerate() {
                let gate = |i: usize| row[i * n + unit];
                *c = gate(2).sigmoid() * *c + gate(0).sigmoid() * gate(3).tanh();
                *h = gate(1).sigmoid() * c.tanh();
            }
        }
    }
}
