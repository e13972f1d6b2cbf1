//! Matrix products and attention.

use super::Table;
use crate::context::{Call, Cx, Ret, Scalar};
use djinn_diag::Result;
use djinn_ir::{DType, Dim, OpKind, attrs};
use djinn_srg::SrgValue;

pub(super) const TABLE: Table = &[
    ("linear", linear),
    ("mm", product),
    ("bmm", product),
    ("matmul", product),
    ("mv", product),
    ("dot", product),
    ("vdot", product),
    ("linalg_matmul", product),
    ("outer", outer),
    ("addmm", addmm),
    ("addbmm", addmm),
    ("baddbmm", addmm),
    ("addmv", addmm),
    ("scaled_dot_product_attention", attention),
    ("_scaled_dot_product_flash_attention_for_cpu", attention),
    ("_scaled_dot_product_flash_attention", attention),
    ("_scaled_dot_product_efficient_attention", attention),
    ("_scaled_dot_product_attention_math", attention),
    ("_scaled_dot_product_cudnn_attention", attention),
];

/// x · weightᵀ + bias.
fn linear<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (x, w) = (cx.tensor(call, "input")?, cx.tensor(call, "weight")?);
    let w = cx.swap_last(w)?;
    let v = cx.op(OpKind::MatMul, &[x, w])?;
    match cx.tensor_opt(call, "bias")? {
        Some(b) => cx.op(OpKind::Add, &[v, b]).map(Ret::Value),
        None => Ok(Ret::Value(v)),
    }
}

fn product<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let second =
        ["mat2", "other", "vec", "tensor"].into_iter().find(|n| call.arg(n).is_some()).unwrap_or("other");
    let first = if call.arg("input").is_some() { "input" } else { "self" };
    let (a, b) = (cx.tensor(call, first)?, cx.tensor(call, second)?);
    let v = cx.op(OpKind::MatMul, &[a, b])?;
    match call.dtype("out_dtype")? {
        Some(to) => cx.cast(v, to).map(Ret::Value),
        None => Ok(Ret::Value(v)),
    }
}

fn outer<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (a, b) = (cx.tensor(call, "self")?, cx.tensor(call, "vec2")?);
    let a = cx.unsqueeze(a, 1)?;
    cx.op(OpKind::Mul, &[a, b]).map(Ret::Value)
}

/// beta·self + alpha·(a · b).
fn addmm<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (a, b) = match call.base {
        "addmm" => ("mat1", "mat2"),
        "addmv" => ("mat", "vec"),
        _ => ("batch1", "batch2"),
    };
    let (x, a, b) = (cx.tensor(call, "self")?, cx.tensor(call, a)?, cx.tensor(call, b)?);
    let mut v = cx.op(OpKind::MatMul, &[a, b])?;
    if call.base == "addbmm" {
        v = cx.reduce(OpKind::ReduceSum, v, vec![0], false)?;
    }
    v = scaled(cx, call, "alpha", v)?;
    if cx.float_opt(call, "beta")? == Some(0.0) {
        return Ok(Ret::Value(v));
    }
    let x = scaled(cx, call, "beta", x)?;
    cx.op(OpKind::Add, &[v, x]).map(Ret::Value)
}

/// The value times a numeric argument that is one by default.
fn scaled<'p>(cx: &mut Cx<'p>, call: &Call<'p>, name: &str, v: SrgValue) -> Result<SrgValue> {
    match cx.scalar_opt(call, name)? {
        None => Ok(v),
        Some(Scalar::Int(d)) if d.is(1) => Ok(v),
        Some(Scalar::Float(1.0)) => Ok(v),
        Some(s) => {
            let s = cx.constant(cx.dtype(v), &s)?;
            cx.op(OpKind::Mul, &[v, s])
        }
    }
}

/// Attention over [batch, heads, length, width]; of lower rank with axes of size 1 put in, of higher rank with the
/// leading axes joined.
fn attention<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    if cx.float_or(call, "dropout_p", 0.0)? != 0.0 {
        return Err(call.unsupported("attention with dropout; call model.eval() before exporting"));
    }
    let (q, k, v) = (cx.tensor(call, "query")?, cx.tensor(call, "key")?, cx.tensor(call, "value")?);
    let mask_name = if call.arg("attn_bias").is_some() { "attn_bias" } else { "attn_mask" };
    let mask = cx.tensor_opt(call, mask_name)?;
    let rank = cx.want_rank(q, "the query", 2, 16)?;
    let width = cx.const_size(q, rank - 1, "head width")?;
    let scale = cx.float_or(call, "scale", 1.0 / (width.max(1) as f64).sqrt())?;
    let shape = cx.shape(q);
    let mut operands = vec![to_rank_4(cx, q)?, to_rank_4(cx, k)?, to_rank_4(cx, v)?];
    let causal = call.bool_or("is_causal", false)?;
    if let Some(mask) = mask {
        operands.push(mask_of(cx, call, mask, rank, cx.dtype(q))?);
    }
    let attrs = attrs! {
        scale: scale, causal: causal, causal_offset: Dim::ZERO, query_heads: 0i64, kv_heads: 0i64,
    };
    let out = cx.b.op(OpKind::Sdpa, &operands, attrs)?;
    let mut result = shape;
    result[rank - 1] = cx.shape(v)[cx.rank(v) - 1].clone();
    let out = cx.reshape(out, result)?;
    if call.base == "scaled_dot_product_attention" {
        return Ok(Ret::Value(out));
    }
    // The other results (statistics, random state) serve the backward pass only.
    let mut all = vec![Some(out)];
    all.resize(cx.output_names(call).len().max(1), None);
    Ok(Ret::Values(all))
}

fn to_rank_4(cx: &mut Cx<'_>, v: SrgValue) -> Result<SrgValue> {
    let shape = cx.shape(v);
    let rank = shape.len();
    let to = match rank {
        4 => return Ok(v),
        0 | 1 => return Ok(v),
        2 => [&[Dim::ONE, Dim::ONE][..], &shape].concat(),
        3 => vec![shape[0].clone(), Dim::ONE, shape[1].clone(), shape[2].clone()],
        _ => [&[djinn_ir::dim::product(&shape[..rank - 3])][..], &shape[rank - 3..]].concat(),
    };
    cx.reshape(v, to)
}

/// The mask for rank-4 attention: bool, or of the query's type.
fn mask_of<'p>(
    cx: &mut Cx<'p>,
    call: &Call<'p>,
    mask: SrgValue,
    rank: usize,
    dtype: DType,
) -> Result<SrgValue> {
    let mask = if cx.dtype(mask) == DType::Bool { mask } else { cx.cast(mask, dtype)? };
    let shape = cx.shape(mask);
    match (rank, shape.len()) {
        (2 | 4, 0..=4) | (3, 0..=2) => Ok(mask),
        (3, 3) => cx.unsqueeze(mask, 1),
        (_, 0..=3) => Ok(mask),
        (_, n) if shape[..n - 3].iter().all(|d| d.is(1)) => cx.reshape(mask, shape[n - 3..].to_vec()),
        (_, n) if n == rank => to_rank_4(cx, mask),
        _ => Err(call.unsupported("a mask whose rank differs from the query's")),
    }
}
