//! Recurrent layers.

use super::{Entry, row};
use crate::node::{Node, Outputs, size};
use djinn_diag::Result;
use djinn_ir::{DType, Dim, OpKind as K, TensorType, attrs};
use djinn_srg::SrgValue;

/// Rows of this family.
pub(crate) const OPS: &[Entry] =
    &[row("LSTM", 7, lstm), row("GRU", 7, |n| cell(n, Cell::Gru)), row("RNN", 7, |n| cell(n, Cell::Rnn))];

fn lstm(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (mut x, w, r) = (n.x(0)?, n.x(1)?, n.x(2)?);
    let direction = n.text("direction", "forward")?;
    let directions = match direction.as_str() {
        "forward" | "reverse" => 1,
        "bidirectional" => 2,
        other => return Err(n.invalid(format!("'{other}' is no direction"))),
    };
    check_defaults(n, directions)?;
    let batch_first = n.flag("layout", false)?;
    if n.rank(x) != 3 || n.rank(r) != 3 {
        return Err(n.invalid("operand and recurrence weight must have rank 3"));
    }
    if batch_first {
        x = n.transpose(x, &[1, 0, 2])?;
    }
    let (steps, batch) = (n.shape(x)[0].clone(), n.shape(x)[1].clone());
    let hidden = n.shape(r)[2].as_const().or(n.attrs.int("hidden_size")?);
    let hidden = hidden.ok_or_else(|| n.unsupported("the hidden size must be known"))?;
    check_lengths(n, &steps)?;
    let bias = optional(n, 3, vec![size(directions), size(hidden.saturating_mul(8))])?;
    let state = vec![size(directions), batch, size(hidden)];
    let mut first = Vec::new();
    for i in [5, 6] {
        first.push(match n.opt(i) {
            Some(v) if batch_first => n.transpose(v, &[1, 0, 2])?,
            _ => optional(n, i, state.clone())?,
        });
    }
    let a = attrs! { direction: direction, hidden: hidden };
    let operands = [x, w, r, bias, first[0], first[1]];
    let mut out = n.imp.b.op_with_regions(K::Lstm, &operands, a, Vec::new())?;
    if batch_first {
        out[0] = n.transpose(out[0], &[2, 0, 1, 3])?;
        out[1] = n.transpose(out[1], &[1, 0, 2])?;
        out[2] = n.transpose(out[2], &[1, 0, 2])?;
    }
    Ok(out.into_iter().map(Some).collect())
}

/// Operand `i`, or zeros of this shape.
fn optional(n: &mut Node<'_, '_>, i: usize, shape: Vec<Dim>) -> Result<SrgValue> {
    if let Some(v) = n.opt(i) {
        return Ok(v);
    }
    let x = n.x(0)?;
    let zero = n.scalar(n.dtype(x), 0.0)?;
    n.broadcast(zero, shape)
}

/// Refuses what the IR's LSTM does not have.
fn check_defaults(n: &Node<'_, '_>, directions: i64) -> Result<()> {
    let usual = ["sigmoid", "tanh", "tanh"];
    if let Some(given) = n.attrs.texts("activations")? {
        let expected = usual.iter().cycle().take(3 * directions as usize);
        let same = given.len() == 3 * directions as usize
            && given.iter().zip(expected).all(|(a, b)| a.eq_ignore_ascii_case(b));
        if !same && !given.is_empty() {
            return Err(n.unsupported("only the default activations are supported"));
        }
    }
    if n.attrs.has("clip") {
        return Err(n.unsupported("cell clipping is not supported"));
    }
    if n.flag("input_forget", false)? {
        return Err(n.unsupported("coupled input and forget gates are not supported"));
    }
    if n.opt(7).is_some() {
        return Err(n.unsupported("peepholes are not supported"));
    }
    Ok(())
}

/// Sequence lengths are supported where they are all the full length.
fn check_lengths(n: &Node<'_, '_>, steps: &Dim) -> Result<()> {
    let Some(v) = n.opt(4) else { return Ok(()) };
    let full = n.known(v).is_some_and(|l| l.iter().all(|d| d == steps));
    if full { Ok(()) } else { Err(n.unsupported("sequence lengths are not supported")) }
}

/// The recurrent cells that are unrolled into a loop.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cell {
    /// Gates in the order update, reset, hidden.
    Gru,
    /// One gate.
    Rnn,
}

impl Cell {
    fn gates(self) -> i64 {
        match self {
            Cell::Gru => 3,
            Cell::Rnn => 1,
        }
    }
}

/// What all directions of a layer share.
struct Layer {
    cell: Cell,
    /// `[T, B, I]`.
    x: SrgValue,
    hidden: i64,
    /// Multiplies the hidden gate's recurrence by the reset gate after the product rather than before it.
    linear_before_reset: bool,
    /// `[B, 1]`, i64.
    lengths: Option<SrgValue>,
}

/// GRU and RNN: one loop over time steps for each direction.
fn cell(n: &mut Node<'_, '_>, cell: Cell) -> Result<Outputs> {
    let (mut x, r) = (n.x(0)?, n.x(2)?);
    let backwards: &[bool] = match n.text("direction", "forward")?.as_str() {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        other => return Err(n.invalid(format!("'{other}' is no direction"))),
    };
    if n.attrs.has("clip") {
        return Err(n.unsupported("cell clipping is not supported"));
    }
    if n.rank(x) != 3 || n.rank(r) != 3 {
        return Err(n.invalid("operand and recurrence weight must have rank 3"));
    }
    let batch_first = n.flag("layout", false)?;
    if batch_first {
        x = n.transpose(x, &[1, 0, 2])?;
    }
    let hidden = n.shape(r)[2].as_const().or(n.attrs.int("hidden_size")?);
    let hidden = hidden.filter(|h| *h >= 1).ok_or_else(|| n.unsupported("the hidden size must be known"))?;
    let batch = n.shape(x)[1].clone();
    let lengths = match n.opt(4) {
        Some(v) => {
            let v = n.cast(v, DType::I64)?;
            Some(n.reshape(v, vec![batch.clone(), Dim::ONE])?)
        }
        None => None,
    };
    let linear_before_reset = n.flag("linear_before_reset", false)?;
    let layer = Layer { cell, x, hidden, linear_before_reset, lengths };
    let first = match n.opt(5) {
        Some(v) if batch_first => n.transpose(v, &[1, 0, 2])?,
        _ => optional(n, 5, vec![size(backwards.len() as i64), batch, size(hidden)])?,
    };
    let (mut ys, mut lasts) = (Vec::new(), Vec::new());
    for (d, back) in backwards.iter().enumerate() {
        let (y, last) = direction(n, &layer, d as i64, *back, first)?;
        ys.push(n.unsqueeze(y, 1)?);
        lasts.push(n.unsqueeze(last, 0)?);
    }
    let (mut y, mut last) = (n.concat(&ys, 1)?, n.concat(&lasts, 0)?);
    if batch_first {
        y = n.transpose(y, &[2, 0, 1, 3])?;
        last = n.transpose(last, &[1, 0, 2])?;
    }
    Ok(vec![Some(y), Some(last)])
}

/// Entry `d` of a value's first axis.
fn entry(n: &mut Node<'_, '_>, v: SrgValue, d: i64) -> Result<SrgValue> {
    let part = n.slice(v, 0, size(d), size(d + 1))?;
    let shape = n.shape(part)[1..].to_vec();
    n.reshape(part, shape)
}

/// The activation function of direction `d`'s only or hidden gate, which must be tanh or relu.
fn activation(n: &Node<'_, '_>, cell: Cell, d: i64) -> Result<K> {
    let given = n.attrs.texts("activations")?.unwrap_or_default();
    let per_direction = if cell == Cell::Gru { 2 } else { 1 };
    let at = d as usize * per_direction;
    let gate = given.get(at).map(|a| a.to_ascii_lowercase());
    if cell == Cell::Gru && gate.is_some_and(|g| g != "sigmoid") {
        return Err(n.unsupported("only sigmoid gates are supported"));
    }
    match given.get(at + per_direction - 1).map(|a| a.to_ascii_lowercase()).as_deref() {
        None | Some("tanh") => Ok(K::Tanh),
        Some("relu") => Ok(K::Relu),
        Some(_) => Err(n.unsupported("only tanh and relu activations are supported")),
    }
}

/// One direction: all hidden states `[T, B, H]` and the last one `[B, H]`.
fn direction(
    n: &mut Node<'_, '_>,
    layer: &Layer,
    d: i64,
    back: bool,
    first: SrgValue,
) -> Result<(SrgValue, SrgValue)> {
    let width = layer.hidden.saturating_mul(layer.cell.gates());
    let act = activation(n, layer.cell, d)?;
    let (w, r) = (n.x(1)?, n.x(2)?);
    let (w, r, h) = (entry(n, w, d)?, entry(n, r, d)?, entry(n, first, d)?);
    let (w, r) = (n.swap_last(w)?, n.swap_last(r)?);
    let mut input = n.plain(K::MatMul, &[layer.x, w])?;
    let bias = match n.opt(3) {
        Some(b) => entry(n, b, d)?,
        None => {
            let zero = n.scalar(n.dtype(layer.x), 0.0)?;
            n.broadcast(zero, vec![size(width.saturating_mul(2))])?
        }
    };
    let own = n.slice(bias, 0, Dim::ZERO, size(width))?;
    let recurrent = n.slice(bias, 0, size(width), size(width.saturating_mul(2)))?;
    input = n.plain(K::Add, &[input, own])?;
    let steps = n.shape(layer.x)[0].clone();
    let trip_count = n.imp.b.dim(steps.clone())?;
    let cond = n.scalar(DType::Bool, 1.0)?;
    let mut operands = vec![trip_count, cond, h, input, r, recurrent];
    operands.extend(layer.lengths);
    let mut arguments = vec![TensorType::scalar(DType::I64), TensorType::scalar(DType::Bool)];
    arguments.extend(operands[2..].iter().map(|v| n.ty(*v)));
    let state = n.ty(h);
    let a = n.imp.b.begin_region(arguments);
    let at = if back {
        let last = n.imp.b.dim(&steps - &Dim::ONE)?;
        n.plain(K::Sub, &[last, a[0]])?
    } else {
        a[0]
    };
    let now = n.along(K::Gather, &[a[3], at], 0)?;
    let mut next = match layer.cell {
        Cell::Rnn => rnn_step(n, act, &a, now)?,
        Cell::Gru => gru_step(n, layer, act, &a, now)?,
    };
    let mut out = next;
    if let Some(lengths) = a.get(6) {
        let zero = n.scalar(state.dtype, 0.0)?;
        let inside = n.compare("lt", at, *lengths)?;
        out = n.plain(K::Select, &[inside, next, zero])?;
        next = n.plain(K::Select, &[inside, next, a[2]])?;
    }
    let region = n.imp.b.end_region(vec![a[1], next, out])?;
    let all = TensorType::new(state.dtype, std::iter::once(steps).chain(state.shape.iter().cloned()));
    let attributes = attrs! { carried: 1i64, types: vec![state, all] };
    let results = n.imp.b.op_with_regions(K::Loop, &operands, attributes, vec![region])?;
    let (last, mut y) = (results[0], results[1]);
    if back {
        y = n.op(K::Reverse, &[y], attrs! { axes: vec![0i64] })?;
    }
    Ok((y, last))
}

/// `act(x·W + h·R + b)`; `a` are the region's arguments: iteration, condition, h, inputs, R, recurrent bias.
fn rnn_step(n: &mut Node<'_, '_>, act: K, a: &[SrgValue], now: SrgValue) -> Result<SrgValue> {
    let product = n.plain(K::MatMul, &[a[2], a[4]])?;
    let product = n.plain(K::Add, &[product, a[5]])?;
    let sum = n.plain(K::Add, &[now, product])?;
    n.plain(act, &[sum])
}

/// `(1 − z)·candidate + z·h`.
fn gru_step(n: &mut Node<'_, '_>, layer: &Layer, act: K, a: &[SrgValue], now: SrgValue) -> Result<SrgValue> {
    let (h, hidden) = (a[2], layer.hidden);
    let (one, two, three) = (size(hidden), size(hidden.saturating_mul(2)), size(hidden.saturating_mul(3)));
    let product = n.plain(K::MatMul, &[h, a[4]])?;
    let product = n.plain(K::Add, &[product, a[5]])?;
    let gate = |n: &mut Node<'_, '_>, low: &Dim, high: &Dim| -> Result<SrgValue> {
        let (x, r) =
            (n.slice(now, 1, low.clone(), high.clone())?, n.slice(product, 1, low.clone(), high.clone())?);
        let sum = n.plain(K::Add, &[x, r])?;
        n.plain(K::Sigmoid, &[sum])
    };
    let (update, reset) = (gate(n, &Dim::ZERO, &one)?, gate(n, &one, &two)?);
    let x = n.slice(now, 1, two.clone(), three.clone())?;
    let recurrence = if layer.linear_before_reset {
        let r = n.slice(product, 1, two, three)?;
        n.plain(K::Mul, &[reset, r])?
    } else {
        let weight = n.slice(a[4], 1, two.clone(), three.clone())?;
        let bias = n.slice(a[5], 0, two, three)?;
        let kept = n.plain(K::Mul, &[reset, h])?;
        let r = n.plain(K::MatMul, &[kept, weight])?;
        n.plain(K::Add, &[r, bias])?
    };
    let sum = n.plain(K::Add, &[x, recurrence])?;
    let candidate = n.plain(act, &[sum])?;
    let unit = n.scalar(n.dtype(h), 1.0)?;
    let rest = n.plain(K::Sub, &[unit, update])?;
    let (fresh, old) = (n.plain(K::Mul, &[rest, candidate])?, n.plain(K::Mul, &[update, h])?);
    n.plain(K::Add, &[fresh, old])
}
