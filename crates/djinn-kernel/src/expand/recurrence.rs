//! Recurrent cells: tensors of which every step along one axis reads the step before.
//!
//! All steps of all sequences are tensors [direction, batch, step, …], whose stages run in one nest with the step as
//! its innermost shared loop, in order. What the inputs add to the gates does not wait and is one product before.

use super::{Expander, wide};
use crate::affine::Affine;
use crate::build::Builder;
use crate::dag::{Bin, Cmp, Id, Ty};
use crate::math;
use crate::program::{Def, Element, Fold, NodeId};
use crate::scalar;
use djinn_diag::{Result, internal};
use djinn_ir::{DType, Dim, Op};
use std::rc::Rc;

/// Axes before those of one step: direction, sequence, step.
const OUTER: usize = 3;

/// An LSTM under construction: operands x, w, r, b, h0, c0 and the sizes.
struct Lstm {
    operands: [NodeId; 6],
    directions: Dim,
    batch: Dim,
    steps: Dim,
    hidden: Dim,
    sums: DType,
    /// Which directions run from the last step to the first.
    reversed: [bool; 2],
}

impl Expander<'_> {
    /// All hidden states, the last hidden states and the last cell states.
    pub(super) fn lstm(&mut self, op: &Op, x: &[NodeId], dtype: DType) -> Result<[NodeId; 3]> {
        let operands: [NodeId; 6] =
            x.try_into().map_err(|_| internal("kernel.op", "an LSTM has six operands"))?;
        let (shape, state) = (self.shape(x[0]), self.shape(x[4]));
        let direction = op.attrs.str("direction");
        let lstm = Lstm {
            operands,
            directions: state[0].clone(),
            batch: shape[1].clone(),
            steps: shape[0].clone(),
            hidden: Dim::from(op.attrs.int("hidden")),
            sums: wide(dtype),
            reversed: [direction == "reverse", true],
        };
        let inputs = self.input_gates(&lstm);
        let number = self.program.nodes.len() as u32;
        let (gates, cell, hidden) = (NodeId(number), NodeId(number + 1), NodeId(number + 2));
        self.recurrent_gates(&lstm, hidden);
        self.cell(&lstm, inputs, gates, cell);
        self.hidden(&lstm, inputs, gates, cell);
        for node in [gates, cell, hidden] {
            let node = &mut self.program.nodes[node.0 as usize];
            node.keep = true;
            node.recurrence = Some((number, OUTER));
        }
        let all = self.all_states(&lstm, hidden, dtype);
        let last_hidden = self.last_state(&lstm, hidden, operands[4], dtype);
        let last_cell = self.last_state(&lstm, cell, operands[5], dtype);
        Ok([all, last_hidden, last_cell])
    }

    /// x·wᵀ for all steps: [direction, time, batch, gates].
    fn input_gates(&mut self, l: &Lstm) -> NodeId {
        let [x, w, ..] = l.operands;
        let depth = self.shape(x)[2].clone();
        let shape = [l.directions.clone(), l.steps.clone(), l.batch.clone(), &l.hidden * &Dim::from(4)];
        let element: Element = Rc::new(move |b, p| {
            let [direction, time, batch, gate, k] = p.index else { return Err(wrong_rank()) };
            let left = b.value(x, &[time.clone(), batch.clone(), k.clone()], p.guard)?;
            let right = b.value(w, &[direction.clone(), gate.clone(), k.clone()], p.guard)?;
            Ok(b.dag.bin(Bin::MulFused, left, right))
        });
        let def = Def::Reduce { fold: Fold::Sum, extents: vec![depth], element };
        self.push((l.sums, &shape), &[(x, true), (w, true)], 2, def)
    }

    /// h·rᵀ of the step before: [direction, batch, step, gates].
    fn recurrent_gates(&mut self, l: &Lstm, hidden: NodeId) -> NodeId {
        let [_, _, r, _, first, _] = l.operands;
        let shape = [l.directions.clone(), l.batch.clone(), l.steps.clone(), &l.hidden * &Dim::from(4)];
        let element: Element = Rc::new(move |b, p| {
            let [direction, batch, step, gate, k] = p.index else { return Err(wrong_rank()) };
            let at = [direction.clone(), batch.clone(), step.clone(), k.clone()];
            let left = before(b, hidden, first, &at, p.guard)?;
            let right = b.value(r, &[direction.clone(), gate.clone(), k.clone()], p.guard)?;
            Ok(b.dag.bin(Bin::MulFused, left, right))
        });
        let def = Def::Reduce { fold: Fold::Sum, extents: vec![l.hidden.clone()], element };
        self.push((l.sums, &shape), &[(first, true), (r, true), (hidden, true)], 2, def)
    }

    /// The cell states: what is not forgotten of the one before, and what is let in.
    fn cell(&mut self, l: &Lstm, inputs: NodeId, gates: NodeId, cell: NodeId) -> NodeId {
        let gate = self.gate_sum(l, inputs, gates);
        let (first, number) = (l.operands[5], Ty::of(l.sums));
        let shape = l.state_shape();
        let reads = [inputs, gates, l.operands[3], first, cell];
        self.element((l.sums, &shape), &reads, 40, move |b, p| {
            let (input, forget) = (gate(b, p.index, 0)?, gate(b, p.index, 2)?);
            let candidate = gate(b, p.index, 3)?;
            let old = before(b, cell, first, p.index, p.guard)?;
            let mut m = math::Math { dag: b.dag, ty: number };
            let (input, forget, candidate) = (m.sigmoid(input), m.sigmoid(forget), m.tanh(candidate));
            let (kept, new) = (m.mul(forget, old), m.mul(input, candidate));
            Ok(m.add(kept, new))
        })
    }

    /// The hidden states.
    fn hidden(&mut self, l: &Lstm, inputs: NodeId, gates: NodeId, cell: NodeId) -> NodeId {
        let gate = self.gate_sum(l, inputs, gates);
        let (number, shape) = (Ty::of(l.sums), l.state_shape());
        self.element((l.sums, &shape), &[inputs, gates, l.operands[3], cell], 30, move |b, p| {
            let output = gate(b, p.index, 1)?;
            let state = b.value(cell, p.index, p.guard)?;
            let mut m = math::Math { dag: b.dag, ty: number };
            let (output, state) = (m.sigmoid(output), m.tanh(state));
            Ok(m.mul(output, state))
        })
    }

    /// The sum of a gate (i, o, f, c) at [direction, batch, step, unit], biases included.
    fn gate_sum(
        &self,
        l: &Lstm,
        inputs: NodeId,
        gates: NodeId,
    ) -> impl Fn(&mut Builder, &[Affine], i64) -> Result<Id> + 'static {
        let (bias, hidden, four) = (l.operands[3], l.hidden.clone(), Dim::from(4));
        let order = l.order();
        move |b, index, gate| {
            let [direction, batch, step, unit] = index else { return Err(wrong_rank()) };
            let at = unit.plus(&(&hidden * &Dim::from(gate)));
            let time = order(b, direction, step);
            let input = b.value(inputs, &[direction.clone(), time, batch.clone(), at.clone()], None)?;
            let recurrent = [direction.clone(), batch.clone(), step.clone(), at.clone()];
            let recurrent = b.value(gates, &recurrent, None)?;
            let of_input = b.value(bias, &[direction.clone(), at.clone()], None)?;
            let of_state = b.value(bias, &[direction.clone(), at.plus(&(&hidden * &four))], None)?;
            let sum = b.dag.bin(Bin::AddF, input, recurrent);
            let sum = b.dag.bin(Bin::AddF, sum, of_input);
            Ok(b.dag.bin(Bin::AddF, sum, of_state))
        }
    }

    /// [time, direction, batch, unit].
    fn all_states(&mut self, l: &Lstm, hidden: NodeId, dtype: DType) -> NodeId {
        let shape = [l.steps.clone(), l.directions.clone(), l.batch.clone(), l.hidden.clone()];
        let order = l.order();
        self.element((dtype, &shape), &[hidden], 1, move |b, p| {
            let [time, direction, batch, unit] = p.index else { return Err(wrong_rank()) };
            let step = order(b, direction, time);
            let value = b.value(hidden, &[direction.clone(), batch.clone(), step, unit.clone()], p.guard)?;
            Ok(scalar::round(b.dag, dtype, value))
        })
    }

    /// The state after the last step; the first one if there is no step.
    fn last_state(&mut self, l: &Lstm, state: NodeId, first: NodeId, dtype: DType) -> NodeId {
        let shape = [l.directions.clone(), l.batch.clone(), l.hidden.clone()];
        let steps = l.steps.clone();
        self.element((dtype, &shape), &[state, first], 1, move |b, p| {
            let [direction, batch, unit] = p.index else { return Err(wrong_rank()) };
            let after = Affine::constant(steps.clone());
            let at = [direction.clone(), batch.clone(), after, unit.clone()];
            let value = before(b, state, first, &at, p.guard)?;
            Ok(scalar::round(b.dag, dtype, value))
        })
    }
}

impl Lstm {
    fn state_shape(&self) -> [Dim; 4] {
        [self.directions.clone(), self.batch.clone(), self.steps.clone(), self.hidden.clone()]
    }

    /// The time of a step in a direction, which is also the step of a time.
    fn order(&self) -> impl Fn(&mut Builder, &Affine, &Affine) -> Affine + use<> {
        let (steps, reversed, both) = (self.steps.clone(), self.reversed, self.directions.is(2));
        move |b, direction, step| {
            let back = Affine::constant(&steps - &Dim::ONE).sub(step);
            if !both {
                return if reversed[0] { back } else { step.clone() };
            }
            let (direction, zero) = (b.dag.index(direction), b.dag.int(Ty::I64, 0));
            let forward = b.dag.cmp(Cmp::Eq, direction, zero);
            let (step, back) = (b.dag.index(step), b.dag.index(&back));
            let at = b.dag.select(forward, step, back);
            b.dag.computed(at, Some(steps.clone()))
        }
    }
}

/// A state after the step before [direction, batch, step, unit]; `first` [direction, batch, unit] before the first.
fn before(b: &mut Builder, state: NodeId, first: NodeId, at: &[Affine], guard: Option<Id>) -> Result<Id> {
    let mut there = at.to_vec();
    there[2] = at[2].plus(&Dim::from(-1));
    let (step, zero) = (b.dag.index(&there[2]), b.dag.int(Ty::I64, 0));
    let later = b.dag.cmp(Cmp::SGe, step, zero);
    let begins = b.dag.not(later);
    let (when_later, when_first) = (b.dag.both(guard, Some(later)), b.dag.both(guard, Some(begins)));
    let place = b.choices.places.get(&state).cloned();
    let place = place.ok_or_else(|| internal("kernel.place", "a recurrent state has no place"))?;
    let kept = b.stored(state, &place, &there, when_later);
    let initial = b.value(first, &[at[0].clone(), at[1].clone(), at[3].clone()], when_first)?;
    Ok(b.dag.select(later, kept, initial))
}

fn wrong_rank() -> Box<djinn_diag::Diagnostic> {
    internal("kernel.op", "an LSTM's tensors have other ranks")
}
