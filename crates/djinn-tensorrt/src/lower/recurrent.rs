//! Recurrent cells, step by step.

use super::Node;
use crate::network::{Net, Val, no_layer};
use djinn_diag::Result;
use djinn_ir::Dim;
use trtx::{ActivationType as A, ElementWiseOperation as E};

/// Steps that are laid out one after the other, at most.
const MAX_STEPS: i64 = 128;

/// Hidden and cell state of one direction.
struct State<'n> {
    hidden: Val<'n>,
    cell: Val<'n>,
}

/// ONNX LSTM: gates in the order i, o, f, c; results are every hidden state, the last one and the last cell.
pub(super) fn lstm<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Vec<Val<'n>>> {
    let steps = node.x(0)?.shape()[0].as_const().filter(|t| (1..=MAX_STEPS).contains(t));
    let steps =
        steps.ok_or_else(|| no_layer(format!("more than {MAX_STEPS} steps, or how many is not known")))?;
    let backward: &[bool] = match node.attrs.str("direction") {
        "forward" => &[false],
        "reverse" => &[true],
        _ => &[false, true],
    };
    let (mut all, mut hidden, mut cell) = (Vec::new(), Vec::new(), Vec::new());
    for (direction, reverse) in backward.iter().enumerate() {
        let (outputs, state) = run(net, node, direction, steps, *reverse)?;
        all.push(outputs);
        hidden.push(state.hidden);
        cell.push(state.cell);
    }
    let y = net.concat(&all, 1)?;
    Ok(vec![y, net.concat(&hidden, 0)?, net.concat(&cell, 0)?])
}

/// Part of an operand: entry `number` of axis 0, which stays.
fn direction_of<'n>(net: &mut Net<'n>, x: &Val<'n>, number: usize) -> Result<Val<'n>> {
    part(net, x, 0, number as i64, 1)
}

fn part<'n>(net: &mut Net<'n>, x: &Val<'n>, axis: usize, start: i64, size: i64) -> Result<Val<'n>> {
    let mut starts = vec![Dim::ZERO; x.rank()];
    starts[axis] = Dim::from(start);
    let mut sizes = x.shape().to_vec();
    sizes[axis] = Dim::from(size);
    net.slice(x, &starts, &sizes, &vec![1; starts.len()])
}

/// One direction: outputs [T, 1, B, H] and the last state, [1, B, H] each.
fn run<'n>(
    net: &mut Net<'n>,
    node: &Node<'_, 'n>,
    direction: usize,
    steps: i64,
    reverse: bool,
) -> Result<(Val<'n>, State<'n>)> {
    let width = node.attrs.int("hidden");
    let w = direction_of(net, node.x(1)?, direction)?;
    let r = direction_of(net, node.x(2)?, direction)?;
    let bias = direction_of(net, node.x(3)?, direction)?;
    let (input, recurrent) = (part(net, &bias, 1, 0, 4 * width)?, part(net, &bias, 1, 4 * width, 4 * width)?);
    let bias = net.binary(&input, &recurrent, E::kSUM)?;
    let x = net.matmul(node.x(0)?, &w, true)?;
    let x = net.binary(&x, &bias, E::kSUM)?;
    let mut state = State {
        hidden: direction_of(net, node.x(4)?, direction)?,
        cell: direction_of(net, node.x(5)?, direction)?,
    };
    let mut outputs = Vec::new();
    for step in 0..steps {
        let at = if reverse { steps - 1 - step } else { step };
        let x = part(net, &x, 0, at, 1)?;
        state = cell(net, &x, &r, &state, width)?;
        let shape: Vec<Dim> = [Dim::ONE].into_iter().chain(state.hidden.shape().iter().cloned()).collect();
        outputs.push(net.reshape(&state.hidden, &shape)?);
    }
    if reverse {
        outputs.reverse();
    }
    Ok((net.concat(&outputs, 0)?, state))
}

/// One step: the gates of `x` are [1, B, 4H] already.
fn cell<'n>(net: &mut Net<'n>, x: &Val<'n>, r: &Val<'n>, state: &State<'n>, width: i64) -> Result<State<'n>> {
    let recurrent = net.matmul(&state.hidden, r, true)?;
    let gates = net.binary(x, &recurrent, E::kSUM)?;
    let mut gate = |number: i64, activation: A| {
        let gate = part(net, &gates, 2, number * width, width)?;
        net.activation(&gate, activation)
    };
    let (input, output) = (gate(0, A::kSIGMOID)?, gate(1, A::kSIGMOID)?);
    let (forget, candidate) = (gate(2, A::kSIGMOID)?, gate(3, A::kTANH)?);
    let kept = net.binary(&forget, &state.cell, E::kPROD)?;
    let added = net.binary(&input, &candidate, E::kPROD)?;
    let cell = net.binary(&kept, &added, E::kSUM)?;
    let bounded = net.activation(&cell, A::kTANH)?;
    Ok(State { hidden: net.binary(&output, &bounded, E::kPROD)?, cell })
}
