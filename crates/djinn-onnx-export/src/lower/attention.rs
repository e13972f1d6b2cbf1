//! Attention and rotary embedding.
//!
//! From opset 23 on both are ONNX operators. `Attention` also takes the past of a key/value cache and gives the
//! present one, and it takes heads side by side in one axis, which saves the transposes around it.

use super::Cx;
use super::movement::{iota_line, reshaped, transposed, transposed_name};
use crate::dims;
use crate::proto::{flag, float, int};
use crate::reshape;
use djinn_diag::Result;
use djinn_ir::types::broadcast;
use djinn_ir::{DType, Dim, Op, OpKind, TensorData, TensorType, ValueId};

/// Elements of a causal mask that is written as a constant, at most.
const MAX_CONSTANT_MASK: usize = 1 << 16;

/// Heads before lengths: from [batch, length, heads, width] to [batch, heads, length, width] and back.
const SWAP_HEADS: [i64; 4] = [0, 2, 1, 3];

/// Sizes of one attention.
struct Sizes {
    batch: Dim,
    query_heads: Dim,
    kv_heads: Dim,
    queries: Dim,
    keys: Dim,
    width: Dim,
    value_width: Dim,
}

fn sizes(cx: &Cx<'_, '_>, op: &Op) -> Sizes {
    let (q, k, v) = (cx.operand_ty(op, 0), cx.operand_ty(op, 1), cx.operand_ty(op, 2));
    if q.rank() == 4 {
        return Sizes {
            batch: q.shape[0].clone(),
            query_heads: q.shape[1].clone(),
            kv_heads: k.shape[1].clone(),
            queries: q.shape[2].clone(),
            keys: k.shape[2].clone(),
            width: q.shape[3].clone(),
            value_width: v.shape[3].clone(),
        };
    }
    let (hq, hk) = (Dim::from(op.attrs.int("query_heads")), Dim::from(op.attrs.int("kv_heads")));
    Sizes {
        batch: q.shape[0].clone(),
        queries: q.shape[1].clone(),
        keys: k.shape[1].clone(),
        width: q.shape[2].floor_div(&hq),
        value_width: v.shape[2].floor_div(&hk),
        query_heads: hq,
        kv_heads: hk,
    }
}

/// Scaled dot-product attention, native or spelled out. onnxruntime refuses scales that are not above 0.
pub(super) fn sdpa(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let scale = op.attrs.float("scale") as f32;
    if cx.e.opset() >= 23 && scale > 0.0 && scale.is_finite() { native(cx, op) } else { spelled_out(cx, op) }
}

/// Does causality hide any key from any query?
fn hides(cx: &Cx<'_, '_>, op: &Op, s: &Sizes) -> bool {
    let offset = op.attrs.dim("causal_offset");
    op.attrs.bool("causal") && !(&offset + &Dim::ONE).provably_ge(&s.keys, cx.e.symbols)
}

/// May masks and causality together hide every key from some query? Softmax then gives NaN where the IR has zeros.
fn may_hide_all(cx: &Cx<'_, '_>, op: &Op, s: &Sizes) -> bool {
    let offset = op.attrs.dim("causal_offset");
    // Row i sees at least the keys up to i + first.
    let first = match offset.as_const() {
        _ if !hides(cx, op, s) => usize::MAX,
        Some(o) if o >= 0 => usize::try_from(o).unwrap_or(usize::MAX),
        None if offset.provably_ge(&Dim::ZERO, cx.e.symbols) => 0,
        _ => return true,
    };
    op.operands.get(3).is_some_and(|mask| !is_finite(cx, *mask) && !shows_a_key(cx, *mask, first))
}

/// Is this a float mask that can be seen to hold finite numbers only?
fn is_finite(cx: &Cx<'_, '_>, mask: ValueId) -> bool {
    if !cx.graph.ty(mask).dtype.is_float() {
        return false;
    }
    if let Some(data) = cx.known(mask) {
        return (0..data.numel()).all(|i| data.get_f64(i).is_some_and(f64::is_finite));
    }
    let Some((id, _)) = cx.graph.definition(mask) else { return false };
    let op = cx.graph.op(id);
    match op.kind {
        OpKind::Select => op.operands[1..].iter().all(|v| is_finite(cx, *v)),
        OpKind::Reshape | OpKind::Broadcast | OpKind::Transpose | OpKind::Slice => {
            is_finite(cx, op.operands[0])
        }
        _ => false,
    }
}

/// Is this a constant mask of which every row i shows a key among those up to i + `first`?
fn shows_a_key(cx: &Cx<'_, '_>, mask: ValueId, first: usize) -> bool {
    let Some(data) = cx.known(mask) else { return false };
    let (columns, rows) = match data.shape() {
        [] => (1, 1),
        [columns] => (*columns, 1),
        [.., rows, columns] => (*columns, *rows),
    };
    let is_bool = data.dtype() == DType::Bool;
    let shows = |i: usize| data.get_f64(i).is_some_and(|v| if is_bool { v != 0.0 } else { v.is_finite() });
    let count = data.numel().checked_div(columns).unwrap_or(0);
    (0..count).all(|row| {
        let seen = first.saturating_add(row % rows).saturating_add(1).min(columns);
        (row * columns..row * columns + seen).any(shows)
    })
}

/// Keys and values that are joined to those of earlier steps: (past, new) of each.
struct Past {
    key: (ValueId, ValueId),
    value: (ValueId, ValueId),
}

/// The past of a cache, if attention alone reads the joined keys and values (they may be results of the graph).
fn past(cx: &Cx<'_, '_>, op: &Op) -> Option<Past> {
    let joined = |v: ValueId| {
        let concat = cx.def(v, OpKind::Concat).filter(|_| cx.users(v).len() == 1)?;
        let fits = concat.operands.len() == 2 && concat.attrs.int("axis") == 2 && cx.graph.ty(v).rank() == 4;
        fits.then(|| (concat.operands[0], concat.operands[1]))
    };
    let (key, value) = (joined(op.operands[1])?, joined(op.operands[2])?);
    let length = |v: ValueId| &cx.graph.ty(v).shape[2];
    (op.operands[1] != op.operands[2] && length(key.0) == length(value.0)).then_some(Past { key, value })
}

fn native(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let s = sizes(cx, op);
    let past = past(cx, op);
    let (key, value) = past.as_ref().map_or((op.operands[1], op.operands[2]), |p| (p.key.1, p.value.1));
    // ONNX aligns causality to the end of the past, which is the start where there is none.
    let aligned = past.as_ref().map_or(Dim::ZERO, |p| cx.graph.ty(p.key.0).shape[2].clone());
    let hides = hides(cx, op, &s);
    let is_causal = hides && op.attrs.dim("causal_offset") == aligned;
    let mask = native_mask(cx, op, &s, hides && !is_causal)?;
    let flat = is_flat(cx, op, key, value);
    let mut attrs = vec![float("scale", op.attrs.float("scale"))];
    if is_causal {
        attrs.push(flag("is_causal", true));
    }
    let mut inputs = Vec::new();
    for v in [op.operands[0], key, value] {
        inputs.push(if flat { flat_name(cx, v)? } else { cx.name(v)? });
    }
    let mut ty = cx.result_ty(op);
    if flat || ty.rank() == 3 {
        for (name, heads) in [("q_num_heads", &s.query_heads), ("kv_num_heads", &s.kv_heads)] {
            attrs.push(int(name, heads.as_const().unwrap_or(0)));
        }
    }
    if flat {
        ty.shape = vec![s.batch.clone(), s.queries.clone(), &s.query_heads * &s.value_width];
    }
    inputs.push(mask);
    if let Some(p) = &past {
        inputs.extend([cx.name(p.key.0)?, cx.name(p.value.0)?]);
    }
    let present = past.is_some() || (flat && presents(cx, op));
    let mut types = vec![ty];
    if present {
        types.extend([cx.operand_ty(op, 1).clone(), cx.operand_ty(op, 2).clone()]);
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let names = cx.e.nodes("Attention", &inputs, attrs, &types)?;
    if present {
        cx.bind(op.operands[1], &names[1]);
        cx.bind(op.operands[2], &names[2]);
    }
    if flat { bind_flat(cx, op, &names[0], &types[0]) } else { Ok(names[0].clone()) }
}

/// Are keys and values results of the graph that nothing but this attention reads, so that it can give them?
fn presents(cx: &Cx<'_, '_>, op: &Op) -> bool {
    let (k, v) = (op.operands[1], op.operands[2]);
    k != v && [k, v].iter().all(|v| cx.result_uses(*v) > 0 && cx.users(*v).len() == 1)
}

/// Can heads stay side by side: do query, key and value come out of, and the result go into, a swap of axes?
fn is_flat(cx: &Cx<'_, '_>, op: &Op, key: ValueId, value: ValueId) -> bool {
    let out = op.results[0];
    let swapped = match cx.users(out) {
        [only] if cx.result_uses(out) == 0 => {
            let user = cx.graph.op(*only);
            user.kind == OpKind::Transpose && user.attrs.ints("perm") == SWAP_HEADS
        }
        _ => false,
    };
    swapped && [op.operands[0], key, value].iter().all(|v| can_be_flat(cx, *v))
}

fn can_be_flat(cx: &Cx<'_, '_>, v: ValueId) -> bool {
    let shape = &cx.graph.ty(v).shape;
    if shape.len() != 4 || shape[1].as_const().is_none() || shape[3].as_const().is_none() {
        return false;
    }
    if let Some(rope) = cx.def(v, OpKind::Rope) {
        return can_be_flat(cx, rope.operands[0]);
    }
    cx.def(v, OpKind::Transpose).is_some_and(|t| t.attrs.ints("perm") == SWAP_HEADS)
}

/// [batch, heads, length, width] as [batch, length, heads·width].
fn flat_name(cx: &mut Cx<'_, '_>, v: ValueId) -> Result<String> {
    let shape = cx.graph.ty(v).shape.clone();
    if let Some(rope) = cx.def(v, OpKind::Rope) {
        let x = flat_name(cx, rope.operands[0])?;
        return native_rope(cx, rope, &x, shape[1].as_const().unwrap_or(0));
    }
    let inner = cx.def(v, OpKind::Transpose).map_or(v, |t| t.operands[0]);
    reshaped(cx, inner, &[shape[0].clone(), shape[2].clone(), &shape[1] * &shape[3]])
}

/// Binds what reads the swapped result to the flat one; gives the result itself, which is then rarely read.
fn bind_flat(cx: &mut Cx<'_, '_>, op: &Op, flat: &str, ty: &TensorType) -> Result<String> {
    let swap = cx.graph.op(cx.users(op.results[0])[0]);
    let split_shape = cx.graph.ty(swap.results[0]).clone();
    for user in cx.users(swap.results[0]).to_vec() {
        let user = cx.graph.op(user);
        if user.kind == OpKind::Reshape && cx.graph.ty(user.results[0]) == ty {
            cx.bind(user.results[0], flat);
        }
    }
    let split = reshape::reshape(cx.e, flat, &split_shape.shape)?;
    cx.bind(swap.results[0], &split);
    transposed_name(cx, &split, &split_shape, &[0, 2, 1, 3])
}

/// The mask input: rank 2 or more with the last two sizes in full, as onnxruntime wants it; empty for none.
fn native_mask(cx: &mut Cx<'_, '_>, op: &Op, s: &Sizes, causal: bool) -> Result<String> {
    let mut name = match (op.operands.get(3), causal) {
        (None, false) => return Ok(String::new()),
        (None, true) => return causal_mask(cx, &s.queries, &s.keys, &op.attrs.dim("causal_offset")),
        (Some(mask), _) => cx.name(*mask)?,
    };
    if causal {
        let hidden = causal_mask(cx, &s.queries, &s.keys, &op.attrs.dim("causal_offset"))?;
        name = join_masks(cx, &hidden, &name)?;
    }
    let mut shape = cx.e.ty(&name).map(|t| t.shape.clone()).unwrap_or_default();
    while shape.len() < 2 {
        shape.insert(0, Dim::ONE);
    }
    let n = shape.len();
    for (slot, full) in shape[n - 2..].iter_mut().zip([&s.queries, &s.keys]) {
        if slot.is(1) {
            *slot = full.clone();
        }
    }
    reshape::expand(cx.e, &name, &shape)
}

/// A causal bool mask and a mask of either kind, as one mask of the latter's kind. Equal pairs are joined once.
fn join_masks(cx: &mut Cx<'_, '_>, causal: &str, mask: &str) -> Result<String> {
    let types = (cx.e.ty(causal).cloned(), cx.e.ty(mask).cloned());
    let (Some(a), Some(b)) = types else { return Ok(mask.to_owned()) };
    let shape = broadcast([a.shape.as_slice(), b.shape.as_slice()]).unwrap_or(b.shape.clone());
    let ty = TensorType::new(b.dtype, shape);
    if b.dtype == DType::Bool {
        return cx.e.cached("And", &[causal, mask], vec![], ty);
    }
    let hidden = cx.e.scalar(b.dtype, f64::NEG_INFINITY)?;
    cx.e.cached("Where", &[causal, mask, &hidden], vec![], ty)
}

/// bool [queries, keys]: key ≤ query + offset.
fn causal_mask(cx: &mut Cx<'_, '_>, queries: &Dim, keys: &Dim, offset: &Dim) -> Result<String> {
    if let (Some(q), Some(k), Some(o)) = (queries.as_const(), keys.as_const(), offset.as_const()) {
        let (rows, columns) = (usize::try_from(q).unwrap_or(0), usize::try_from(k).unwrap_or(0));
        if rows.saturating_mul(columns) <= MAX_CONSTANT_MASK {
            let bytes: Vec<u8> =
                (0..q).flat_map(|i| (0..k).map(move |j| u8::from(j <= i.saturating_add(o)))).collect();
            let data = TensorData::new(DType::Bool, vec![rows, columns], bytes);
            return Ok(cx.e.constant(&data.ok_or_else(crate::emit::too_large)?));
        }
    }
    let line = |n: &Dim| TensorType::new(DType::I64, [n.clone()]);
    let mut rows = iota_line(cx, queries, DType::I64)?;
    if !offset.is(0) {
        let offset = dims::vector(cx.e, std::slice::from_ref(offset))?;
        rows = cx.e.cached("Add", &[&rows, &offset], vec![], line(queries))?;
    }
    let rows = reshape::reshape_cached(cx.e, &rows, &[queries.clone(), Dim::ONE])?;
    let columns = iota_line(cx, keys, DType::I64)?;
    let ty = TensorType::new(DType::Bool, [queries.clone(), keys.clone()]);
    cx.e.cached("LessOrEqual", &[&columns, &rows], vec![], ty)
}

/// MatMul, mask, Softmax, guard against rows without keys, MatMul. Query heads that share a key head are stacked along the length.
fn spelled_out(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let s = sizes(cx, op);
    let dtype = cx.result_ty(op).dtype;
    let ty = |dims: [&Dim; 4]| TensorType::new(dtype, dims.into_iter().cloned());
    let (mut q, kt, v) = spread_heads(cx, op, &s)?;
    let shared = s.query_heads != s.kv_heads;
    let stacked = (&s.query_heads * &s.queries).floor_div(&s.kv_heads);
    if op.attrs.float("scale") != 1.0 {
        let scale = cx.e.scalar(dtype, op.attrs.float("scale"))?;
        q = cx.e.node("Mul", &[&q, &scale], vec![], ty([&s.batch, &s.query_heads, &s.queries, &s.width]))?;
    }
    let scores_ty = ty([&s.batch, &s.query_heads, &s.queries, &s.keys]);
    let masked = op.operands.get(3).is_some() || hides(cx, op, &s);
    let mut inner_ty = scores_ty.clone();
    if shared {
        q = reshape::reshape(
            cx.e,
            &q,
            &[s.batch.clone(), s.kv_heads.clone(), stacked.clone(), s.width.clone()],
        )?;
        inner_ty = ty([&s.batch, &s.kv_heads, &stacked, &s.keys]);
    }
    let mut scores = cx.e.node("MatMul", &[&q, &kt], vec![], inner_ty.clone())?;
    if masked {
        scores = reshape::reshape(cx.e, &scores, &scores_ty.shape)?;
        scores = mask_scores(cx, op, &s, scores, &scores_ty)?;
        scores = softmax(cx, &scores, &scores_ty)?;
        if may_hide_all(cx, op, &s) {
            scores = zeros_for_nan(cx, &scores, &scores_ty)?;
        }
        scores = reshape::reshape(cx.e, &scores, &inner_ty.shape)?;
    } else {
        scores = softmax(cx, &scores, &inner_ty)?;
    }
    let mut out_ty = inner_ty;
    out_ty.shape[3] = s.value_width.clone();
    let out = cx.e.node("MatMul", &[&scores, &v], vec![], out_ty)?;
    let full = ty([&s.batch, &s.query_heads, &s.queries, &s.value_width]);
    let out = reshape::reshape(cx.e, &out, &full.shape)?;
    if cx.result_ty(op).rank() == 4 {
        return Ok(out);
    }
    let out = transposed_name(cx, &out, &full, &[0, 2, 1, 3])?;
    reshape::reshape(cx.e, &out, &cx.result_ty(op).shape)
}

fn softmax(cx: &mut Cx<'_, '_>, scores: &str, ty: &TensorType) -> Result<String> {
    cx.e.node("Softmax", &[scores], vec![int("axis", -1)], ty.clone())
}

/// The IR gives zeros for a query that sees no key, for which Softmax gives NaN.
fn zeros_for_nan(cx: &mut Cx<'_, '_>, x: &str, ty: &TensorType) -> Result<String> {
    let nan = cx.e.node("IsNaN", &[x], vec![], ty.with_dtype(DType::Bool))?;
    let zero = cx.e.scalar(ty.dtype, 0.0)?;
    cx.e.node("Where", &[&nan, &zero, x], vec![], ty.clone())
}

/// Query, transposed key and value with a head axis each.
fn spread_heads(cx: &mut Cx<'_, '_>, op: &Op, s: &Sizes) -> Result<(String, String, String)> {
    if cx.result_ty(op).rank() == 4 {
        let kt = transposed(cx, op.operands[1], &[0, 1, 3, 2])?;
        return Ok((cx.name(op.operands[0])?, kt, cx.name(op.operands[2])?));
    }
    let mut parts = Vec::new();
    let plan: [(usize, [&Dim; 4], [usize; 4]); 3] = [
        (0, [&s.batch, &s.queries, &s.query_heads, &s.width], [0, 2, 1, 3]),
        (1, [&s.batch, &s.keys, &s.kv_heads, &s.width], [0, 2, 3, 1]),
        (2, [&s.batch, &s.keys, &s.kv_heads, &s.value_width], [0, 2, 1, 3]),
    ];
    for (i, shape, perm) in plan {
        let shape: Vec<Dim> = shape.into_iter().cloned().collect();
        let split = reshaped(cx, op.operands[i], &shape)?;
        let ty = TensorType::new(cx.operand_ty(op, i).dtype, shape);
        parts.push(transposed_name(cx, &split, &ty, &perm)?);
    }
    let value = parts.pop().unwrap_or_default();
    let key = parts.pop().unwrap_or_default();
    Ok((parts.pop().unwrap_or_default(), key, value))
}

fn mask_scores(cx: &mut Cx<'_, '_>, op: &Op, s: &Sizes, scores: String, ty: &TensorType) -> Result<String> {
    let mut masks = Vec::new();
    if let Some(mask) = op.operands.get(3) {
        masks.push(cx.name(*mask)?);
    }
    if hides(cx, op, s) {
        let causal = causal_mask(cx, &s.queries, &s.keys, &op.attrs.dim("causal_offset"))?;
        match masks.pop() {
            Some(mask) => masks.push(join_masks(cx, &causal, &mask)?),
            None => masks.push(causal),
        }
    }
    let Some(mask) = masks.pop() else { return Ok(scores) };
    if cx.e.ty(&mask).is_some_and(|t| t.dtype != DType::Bool) {
        return cx.e.node("Add", &[&scores, &mask], vec![], ty.clone());
    }
    let hidden = cx.e.scalar(ty.dtype, f64::NEG_INFINITY)?;
    cx.e.node("Where", &[&mask, &scores, &hidden], vec![], ty.clone())
}

/// Rotary embedding, native or spelled out.
pub(super) fn rope(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let x = cx.name(op.operands[0])?;
    if cx.e.opset() < 23 {
        return rotate(cx, op, &x);
    }
    let heads = op.attrs.int("heads");
    native_rope(cx, op, &x, heads)
}

/// RotaryEmbedding of `x`, of rank 3 if `heads` is not 0. onnxruntime does not broadcast the batch of the caches.
fn native_rope(cx: &mut Cx<'_, '_>, op: &Op, x: &str, heads: i64) -> Result<String> {
    let Some(ty) = cx.e.ty(x).cloned() else { return Ok(x.to_owned()) };
    let mut inputs = vec![x.to_owned()];
    for i in [1, 2] {
        let mut shape = cx.operand_ty(op, i).shape.clone();
        let name = cx.name(op.operands[i])?;
        if shape[0].is(1) {
            shape[0] = ty.shape[0].clone();
        }
        inputs.push(reshape::expand(cx.e, &name, &shape)?);
    }
    let mut attrs = Vec::new();
    if op.attrs.bool("interleaved") {
        attrs.push(int("interleaved", 1));
    }
    if heads != 0 {
        attrs.push(int("num_heads", heads));
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    cx.e.node("RotaryEmbedding", &inputs, attrs, ty)
}

/// x·(cos, cos) + (x2, x1)·(−sin, sin); the tables are shared between layers.
fn rotate(cx: &mut Cx<'_, '_>, op: &Op, x: &str) -> Result<String> {
    let ty = cx.result_ty(op);
    let heads = op.attrs.int("heads");
    let (mut split_ty, head_axis) = (ty.clone(), if heads == 0 { 1 } else { 2 });
    if heads != 0 {
        let width = ty.shape[2].floor_div(&Dim::from(heads));
        split_ty.shape = vec![ty.shape[0].clone(), ty.shape[1].clone(), Dim::from(heads), width];
    }
    let x = reshape::reshape(cx.e, x, &split_ty.shape)?;
    let interleaved = op.attrs.bool("interleaved");
    let (cos, sin) = tables(cx, op, head_axis, interleaved)?;
    let swapped = if interleaved { swap_pairs(cx, &x, &split_ty)? } else { swap_halves(cx, &x, &split_ty)? };
    let straight = cx.e.node("Mul", &[&x, &cos], vec![], split_ty.clone())?;
    let crossed = cx.e.node("Mul", &[&swapped, &sin], vec![], split_ty.clone())?;
    let sum = cx.e.node("Add", &[&straight, &crossed], vec![], split_ty)?;
    reshape::reshape(cx.e, &sum, &ty.shape)
}

/// (cos, cos) and (−sin, sin) over the whole width, with an axis for the heads.
fn tables(cx: &mut Cx<'_, '_>, op: &Op, head_axis: usize, interleaved: bool) -> Result<(String, String)> {
    let half = cx.operand_ty(op, 1).shape[2].as_const().unwrap_or(0);
    // Of every pair, the entry of the first half comes first.
    let order: Vec<i64> = (0..half).flat_map(|i| [i, i + half]).collect();
    let mut tables = Vec::new();
    for i in [1, 2] {
        let name = cx.name(op.operands[i])?;
        let narrow = cx.operand_ty(op, i).clone();
        let mut ty = narrow.clone();
        ty.shape[2] = Dim::from(2 * half);
        let first = if i == 2 { cx.e.cached("Neg", &[&name], vec![], narrow)? } else { name.clone() };
        let mut full = cx.e.cached("Concat", &[&first, &name], vec![int("axis", 2)], ty.clone())?;
        if interleaved {
            let order = cx.e.i64s(&order)?;
            full = cx.e.cached("Gather", &[&full, &order], vec![int("axis", 2)], ty.clone())?;
        }
        ty.shape.insert(head_axis, Dim::ONE);
        tables.push(reshape::reshape_cached(cx.e, &full, &ty.shape)?);
    }
    let sin = tables.pop().unwrap_or_default();
    Ok((tables.pop().unwrap_or_default(), sin))
}

fn swap_halves(cx: &mut Cx<'_, '_>, x: &str, ty: &TensorType) -> Result<String> {
    let half = ty.shape[3].as_const().unwrap_or(0) / 2;
    let mut half_ty = ty.clone();
    half_ty.shape[3] = Dim::from(half);
    let lengths = cx.e.i64s(&[half, half])?;
    let parts = cx.e.nodes("Split", &[x, &lengths], vec![int("axis", 3)], &[half_ty.clone(), half_ty])?;
    cx.e.node("Concat", &[&parts[1], &parts[0]], vec![int("axis", 3)], ty.clone())
}

fn swap_pairs(cx: &mut Cx<'_, '_>, x: &str, ty: &TensorType) -> Result<String> {
    let width = ty.shape[3].as_const().unwrap_or(0);
    let order: Vec<i64> = (0..width).map(|i| i ^ 1).collect();
    let order = cx.e.i64s(&order)?;
    cx.e.node("Gather", &[x, &order], vec![int("axis", 3)], ty.clone())
}
