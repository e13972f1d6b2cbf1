//! Recurrent layers.

use super::Table;
use crate::context::{Call, Cx, Ret, Scalar};
use djinn_diag::Result;
use djinn_ir::{Dim, OpKind, attrs};
use djinn_srg::SrgValue;

pub(super) const TABLE: Table = &[("lstm", lstm)];

/// Layers of one call, at most.
const MAX_LAYERS: i64 = 4096;

/// The parameters of one direction of one layer, in the op table's gate order.
struct Direction {
    w: SrgValue,
    r: SrgValue,
    b: SrgValue,
}

fn lstm<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    if call.overload != "input" {
        return Err(call.unsupported("packed sequences"));
    }
    if call.bool_or("train", false)? && cx.float_or(call, "dropout", 0.0)? != 0.0 {
        return Err(call.unsupported("dropout in training mode; call model.eval() before exporting"));
    }
    let (layers, bidirectional) = (cx.int(call, "num_layers")?, call.bool_or("bidirectional", false)?);
    let has_biases = call.bool_or("has_biases", true)?;
    let batch_first = call.bool_or("batch_first", false)?;
    let (params, state) = (cx.tensors(call, "params")?, cx.tensors(call, "hx")?);
    let directions = if bidirectional { 2 } else { 1 };
    let per_direction = if has_biases { 4 } else { 2 };
    let [h0, c0] = state[..] else { return Err(call.bad("hx", "two tensors")) };
    if !(1..=MAX_LAYERS).contains(&layers) || params.len() != layers as usize * directions * per_direction {
        return Err(call.unsupported("projected LSTMs, or a wrong number of parameters"));
    }
    let mut x = cx.tensor(call, "input")?;
    cx.want_rank(x, "the input", 3, 3)?;
    if batch_first {
        x = cx.transpose(x, vec![1, 0, 2])?;
    }
    let (mut last_h, mut last_c) = (Vec::new(), Vec::new());
    for (layer, chunk) in params.chunks_exact(directions * per_direction).enumerate() {
        let first = Dim::from(layer * directions);
        let limit = &first + &Dim::from(directions);
        let h = cx.slice(h0, 0, first.clone(), limit.clone())?;
        let c = cx.slice(c0, 0, first, limit)?;
        let [y, h, c] = one_layer(cx, call, x, chunk, per_direction, [h, c])?;
        last_h.push(h);
        last_c.push(c);
        x = y;
    }
    if batch_first {
        x = cx.transpose(x, vec![1, 0, 2])?;
    }
    let (h, c) = (cx.concat(&last_h, 0)?, cx.concat(&last_c, 0)?);
    Ok(Ret::Values(vec![Some(x), Some(h), Some(c)]))
}

/// One layer: output [T, B, D·H], last h and c.
fn one_layer<'p>(
    cx: &mut Cx<'p>,
    call: &Call<'p>,
    x: SrgValue,
    params: &[SrgValue],
    per_direction: usize,
    [h, c]: [SrgValue; 2],
) -> Result<[SrgValue; 3]> {
    let mut all = Vec::new();
    for p in params.chunks_exact(per_direction) {
        all.push(direction(cx, p)?);
    }
    let hidden = cx.const_size(h, 2, "hidden size")?;
    let stacked = |cx: &mut Cx<'p>, pick: fn(&Direction) -> SrgValue| -> Result<SrgValue> {
        let parts: Vec<SrgValue> = all.iter().map(|d| cx.unsqueeze(pick(d), 0)).collect::<Result<_>>()?;
        cx.concat(&parts, 0)
    };
    let (w, r, b) = (stacked(cx, |d| d.w)?, stacked(cx, |d| d.r)?, stacked(cx, |d| d.b)?);
    let word = if all.len() == 2 { "bidirectional" } else { "forward" };
    let attrs = attrs! { direction: word, hidden: hidden };
    let out = cx.b.op_with_regions(OpKind::Lstm, &[x, w, r, b, h, c], attrs, Vec::new())?;
    let [y, h, c] = out[..] else { return Err(call.unsupported("has three results")) };
    // [T, D, B, H] to [T, B, D·H].
    let shape = cx.shape(y);
    let y = cx.transpose(y, vec![0, 2, 1, 3])?;
    let y = cx.reshape(y, vec![shape[0].clone(), shape[2].clone(), &shape[1] * &shape[3]])?;
    Ok([y, h, c])
}

/// Parameters w_ih, w_hh and perhaps b_ih, b_hh of one direction, from torch's gate order i, f, g, o to i, o, f, g.
fn direction(cx: &mut Cx<'_>, p: &[SrgValue]) -> Result<Direction> {
    let (w, r) = (reorder(cx, p[0])?, reorder(cx, p[1])?);
    let b = match p {
        [_, _, bi, bh] => {
            let (bi, bh) = (reorder(cx, *bi)?, reorder(cx, *bh)?);
            cx.concat(&[bi, bh], 0)?
        }
        _ => {
            let gates = cx.shape(p[0]).first().cloned().unwrap_or(Dim::ZERO);
            cx.filled(cx.dtype(p[0]), &[&gates * &Dim::from(2i64)], &Scalar::Int(Dim::ZERO))?
        }
    };
    Ok(Direction { w, r, b })
}

fn reorder(cx: &mut Cx<'_>, v: SrgValue) -> Result<SrgValue> {
    let rows = cx.const_size(v, 0, "number of gates")?;
    let quarter = rows / 4;
    let cut = |i: i64| (Dim::from(i * quarter), Dim::from((i + 1) * quarter));
    let (a, b) = cut(0);
    let input = cx.slice(v, 0, a, b)?;
    let (a, b) = cut(3);
    let output = cx.slice(v, 0, a, b)?;
    let middle = cx.slice(v, 0, Dim::from(quarter), Dim::from(3 * quarter))?;
    cx.concat(&[input, output, middle], 0)
}
