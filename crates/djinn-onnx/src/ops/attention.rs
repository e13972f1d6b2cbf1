//! Attention and rotary position embedding.

use super::{Entry, row};
use crate::node::{Node, Outputs, one, size};
use crate::tensor;
use djinn_diag::Result;
use djinn_ir::{DType, Dim, OpKind as K, attrs};
use djinn_srg::SrgValue;

/// Rows of this family.
pub(crate) const OPS: &[Entry] = &[
    row("Attention", 23, attention),
    row("RotaryEmbedding", 23, rotary),
    Entry { domain: "ai.onnx.preview", name: "FlexAttention", since: 1, handler: flex_attention },
];

/// Operands and attributes of an Attention node.
struct Parts {
    query: SrgValue,
    key: SrgValue,
    value: SrgValue,
    mask: Option<SrgValue>,
    /// Heads of queries and of keys; 0 for rank 4.
    heads: (i64, i64),
    scale: f64,
    causal: bool,
    softcap: f64,
    /// Sizes of the window to the left and to the right, −1 for none.
    window: (i64, i64),
    /// Keys before the first query.
    offset: Dim,
    lengths: Option<SrgValue>,
}

fn attention(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let mut p = parts(n)?;
    let was_rank_3 = n.rank(p.query) == 3;
    let cached = n.opt(4).is_some() || n.wants(1) || n.wants(2);
    let mode_wanted = n.wants(3);
    let decomposed = mode_wanted || p.softcap != 0.0 || p.window != (-1, -1) || p.lengths.is_some();
    if was_rank_3 && (cached || decomposed) {
        let (q, k) = p.heads;
        p.query = split_heads(n, p.query, q)?;
        p.key = split_heads(n, p.key, k)?;
        p.value = split_heads(n, p.value, k)?;
        p.heads = (0, 0);
    }
    if let Some(past) = n.opt(4) {
        p.offset = n.shape(past).get(2).cloned().ok_or_else(|| n.invalid("past_key must have rank 4"))?;
        p.key = n.concat(&[past, p.key], 2)?;
    }
    if let Some(past) = n.opt(5) {
        p.value = n.concat(&[past, p.value], 2)?;
    }
    let (present_key, present_value) = (p.key, p.value);
    p.mask = match p.mask {
        Some(mask) => Some(fit_mask(n, &p, mask)?),
        None => None,
    };
    let (y, scores) = if decomposed { decompose(n, &p)? } else { (sdpa(n, &p)?, None) };
    let y = if was_rank_3 && n.rank(y) == 4 { join_heads(n, y)? } else { y };
    Ok(vec![Some(y), Some(present_key), Some(present_value), scores])
}

fn parts(n: &Node<'_, '_>) -> Result<Parts> {
    let (query, key, value) = (n.x(0)?, n.x(1)?, n.x(2)?);
    let dims = n.shape(query);
    if n.rank(key) != dims.len() || n.rank(value) != dims.len() {
        return Err(n.invalid("query, key and value differ in rank"));
    }
    let (heads, width) = match dims.len() {
        4 => ((0, 0), dims[3].as_const()),
        3 => {
            let heads = n.attrs.int("q_num_heads")?.zip(n.attrs.int("kv_num_heads")?);
            let heads = heads.filter(|(q, k)| *q >= 1 && *k >= 1);
            let heads = heads.ok_or_else(|| n.invalid("operands of rank 3 need the numbers of heads"))?;
            (heads, dims[2].as_const().map(|w| w / heads.0))
        }
        _ => return Err(n.invalid("the operands must have rank 3 or 4")),
    };
    let scale = match (n.attrs.float("scale")?, width) {
        (Some(s), _) => s,
        (None, Some(w)) if w > 0 => 1.0 / (w as f64).sqrt(),
        _ => return Err(n.unsupported("the head width must be known when the model is compiled")),
    };
    Ok(Parts {
        query,
        key,
        value,
        mask: n.opt(3),
        heads,
        scale,
        causal: n.flag("is_causal", false)?,
        softcap: n.float("softcap", 0.0)?,
        window: (n.int("left_window_size", -1)?, n.int("right_window_size", -1)?),
        offset: Dim::ZERO,
        lengths: n.opt(6),
    })
}

/// `[batch, length, heads·width]` to `[batch, heads, length, width]`.
fn split_heads(n: &mut Node<'_, '_>, x: SrgValue, heads: i64) -> Result<SrgValue> {
    let d = n.shape(x);
    if d.len() != 3 {
        return Err(n.invalid("the operands differ in rank"));
    }
    let width = d[2].floor_div(&size(heads));
    let x = n.reshape(x, vec![d[0].clone(), d[1].clone(), size(heads), width])?;
    n.transpose(x, &[0, 2, 1, 3])
}

/// `[batch, heads, length, width]` to `[batch, length, heads·width]`.
fn join_heads(n: &mut Node<'_, '_>, x: SrgValue) -> Result<SrgValue> {
    let x = n.transpose(x, &[0, 2, 1, 3])?;
    let d = n.shape(x);
    n.reshape(x, vec![d[0].clone(), d[1].clone(), &d[2] * &d[3]])
}

/// Number of keys.
fn key_count(n: &Node<'_, '_>, p: &Parts) -> Dim {
    let d = n.shape(p.key);
    d[d.len() - 2].clone()
}

/// Number of queries.
fn query_count(n: &Node<'_, '_>, p: &Parts) -> Dim {
    let d = n.shape(p.query);
    d[d.len() - 2].clone()
}

/// A mask that covers fewer keys than there are masks the rest.
fn fit_mask(n: &mut Node<'_, '_>, p: &Parts, mask: SrgValue) -> Result<SrgValue> {
    let rank = n.rank(mask);
    let keys = key_count(n, p);
    let Some(have) = n.shape(mask).last().cloned() else { return Ok(mask) };
    let missing = &keys - &have;
    if have.is(1) || missing.as_const().is_none_or(|m| m <= 0) {
        return Ok(mask);
    }
    let dtype = n.dtype(mask);
    let fill = n.scalar(dtype, if dtype == DType::Bool { 0.0 } else { f64::NEG_INFINITY })?;
    let mut high = vec![Dim::ZERO; rank];
    high[rank - 1] = missing;
    n.op(K::Pad, &[mask, fill], attrs! { low: vec![Dim::ZERO; rank], high: high, mode: "constant" })
}

fn sdpa(n: &mut Node<'_, '_>, p: &Parts) -> Result<SrgValue> {
    let mut operands = vec![p.query, p.key, p.value];
    operands.extend(p.mask);
    let a = attrs! {
        scale: p.scale,
        causal: p.causal,
        causal_offset: p.offset.clone(),
        query_heads: p.heads.0,
        kv_heads: p.heads.1,
    };
    n.op(K::Sdpa, &operands, a)
}

/// Which keys each query may see, from causality, window and lengths; `None` if all.
fn allowed(n: &mut Node<'_, '_>, p: &Parts) -> Result<Option<SrgValue>> {
    let (queries, keys) = (query_count(n, p), key_count(n, p));
    let column = n.iota(vec![Dim::ONE, keys], 1, DType::I64)?;
    let row = n.iota(vec![queries.clone(), Dim::ONE], 0, DType::I64)?;
    let lengths = match p.lengths {
        Some(v) => {
            let v = n.cast(v, DType::I64)?;
            let batch = n.ty(v).numel();
            Some(n.reshape(v, vec![batch, Dim::ONE, Dim::ONE, Dim::ONE])?)
        }
        None => None,
    };
    let offset = match lengths {
        Some(v) if n.opt(4).is_none() => {
            let queries = n.imp.b.dim(queries)?;
            n.plain(K::Sub, &[v, queries])?
        }
        _ => n.imp.b.dim(p.offset.clone())?,
    };
    let position = n.plain(K::Add, &[row, offset])?;
    let mut rules = Vec::new();
    if p.causal {
        rules.push(n.compare("le", column, position)?);
    }
    if p.window.0 >= 0 {
        let first = n.with_scalar(K::Sub, position, p.window.0 as f64)?;
        rules.push(n.compare("ge", column, first)?);
    }
    if p.window.1 >= 0 {
        let last = n.with_scalar(K::Add, position, p.window.1 as f64)?;
        rules.push(n.compare("le", column, last)?);
    }
    if let Some(v) = lengths {
        rules.push(n.compare("lt", column, v)?);
    }
    let mut rules = rules.into_iter();
    let Some(first) = rules.next() else { return Ok(None) };
    rules.try_fold(first, |a, b| n.plain(K::And, &[a, b])).map(Some)
}

/// Attention as primitives; also gives the scores that `qk_matmul_output_mode` asks for.
fn decompose(n: &mut Node<'_, '_>, p: &Parts) -> Result<(SrgValue, Option<SrgValue>)> {
    let dtype = n.dtype(p.query);
    let heads = n.shape(p.query)[1].clone();
    let (key, value) = (repeat_heads(n, p.key, &heads)?, repeat_heads(n, p.value, &heads)?);
    let transposed = n.swap_last(key)?;
    let root = p.scale.abs().sqrt() * if p.scale < 0.0 { -1.0 } else { 1.0 };
    let query = n.with_scalar(K::Mul, p.query, root)?;
    let transposed = n.with_scalar(K::Mul, transposed, root.abs())?;
    let mut scores = n.plain(K::MatMul, &[query, transposed])?;
    if p.softcap > 0.0 {
        let small = n.with_scalar(K::Div, scores, p.softcap)?;
        let bent = n.plain(K::Tanh, &[small])?;
        scores = n.with_scalar(K::Mul, bent, p.softcap)?;
    }
    let raw = scores;
    let never = n.scalar(dtype, f64::NEG_INFINITY)?;
    let zero = n.scalar(dtype, 0.0)?;
    let mut bias: Option<SrgValue> = None;
    for rule in [p.mask, allowed(n, p)?].into_iter().flatten() {
        let part =
            if n.dtype(rule) == DType::Bool { n.plain(K::Select, &[rule, zero, never])? } else { rule };
        bias = Some(match bias {
            Some(b) => n.plain(K::Add, &[b, part])?,
            None => part,
        });
    }
    if let Some(b) = bias {
        scores = n.plain(K::Add, &[scores, b])?;
    }
    let biased = scores;
    if let Some(code) = n.attrs.int("softmax_precision")? {
        let wide = tensor::dtype(i32::try_from(code).unwrap_or(-1))?;
        scores = n.cast(scores, wide)?;
    }
    let mut weights = n.along(K::Softmax, &[scores], 3)?;
    weights = n.cast(weights, dtype)?;
    if let Some(b) = bias {
        // A query that sees no key gets zeros.
        let last = n.rank(b) as i64 - 1;
        let best = n.reduce(K::ReduceMax, b, &[last], true)?;
        let blind = n.compare("eq", best, never)?;
        weights = n.plain(K::Select, &[blind, zero, weights])?;
    }
    let y = n.plain(K::MatMul, &[weights, value])?;
    let wanted = match n.int("qk_matmul_output_mode", 0)? {
        0 | 1 => raw,
        2 => biased,
        3 => weights,
        other => return Err(n.invalid(format!("{other} is no qk_matmul_output_mode"))),
    };
    Ok((y, Some(wanted)))
}

/// Repeats every key/value head for the query heads that it serves.
fn repeat_heads(n: &mut Node<'_, '_>, x: SrgValue, heads: &Dim) -> Result<SrgValue> {
    let d = n.shape(x);
    if d[1] == *heads {
        return Ok(x);
    }
    let group = heads.exact_div(&d[1]).ok_or_else(|| n.invalid("the numbers of heads do not divide"))?;
    let x = n.reshape(x, vec![d[0].clone(), d[1].clone(), Dim::ONE, d[2].clone(), d[3].clone()])?;
    let x = n.broadcast(x, vec![d[0].clone(), d[1].clone(), group, d[2].clone(), d[3].clone()])?;
    n.reshape(x, vec![d[0].clone(), heads.clone(), d[2].clone(), d[3].clone()])
}

/// Attention without masks; the modifier graphs are not supported.
fn flex_attention(n: &mut Node<'_, '_>) -> Result<Outputs> {
    if n.attrs.has("score_mod") || n.attrs.has("prob_mod") {
        return Err(n.unsupported("score and probability modifiers are not supported"));
    }
    let p = parts(n)?;
    one(sdpa(n, &p)?)
}

fn rotary(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, mut cos, mut sin) = (n.x(0)?, n.x(1)?, n.x(2)?);
    if let Some(ids) = n.opt(3) {
        cos = n.along(K::Gather, &[cos, ids], 0)?;
        sin = n.along(K::Gather, &[sin, ids], 0)?;
    }
    let interleaved = n.flag("interleaved", false)?;
    let rotated = n.int("rotary_embedding_dim", 0)?;
    let heads = n.int("num_heads", 0)?;
    let dims = n.shape(x);
    if dims.len() == 3 && heads < 1 {
        return Err(n.invalid("operands of rank 3 need the number of heads"));
    }
    let width = match dims.len() {
        3 => dims[2].floor_div(&size(heads)),
        4 => dims[3].clone(),
        _ => return Err(n.invalid("the operand must have rank 3 or 4")),
    };
    if rotated == 0 || width.is(rotated) {
        let heads = if dims.len() == 3 { heads } else { 0 };
        return one(n.op(K::Rope, &[x, cos, sin], attrs! { interleaved: interleaved, heads: heads })?);
    }
    let all = if dims.len() == 3 { split_heads(n, x, heads)? } else { x };
    let part = n.slice(all, 3, Dim::ZERO, size(rotated))?;
    let rest = n.slice(all, 3, size(rotated), width)?;
    let turned = n.op(K::Rope, &[part, cos, sin], attrs! { interleaved: interleaved, heads: 0i64 })?;
    let y = n.concat(&[turned, rest], 3)?;
    one(if dims.len() == 3 { join_heads(n, y)? } else { y })
}
