//! Attention, fused or spelled out, and the caches that it reads and makes.

use crate::scan::Scan;
use djinn_ir::graph::Op;
use djinn_ir::{Dim, Module, OpId, OpKind, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Operations looked at between a softmax and the product of queries and keys, at most.
const MAX_SCORE_VISITS: usize = 32;
/// Operations looked at to tell what a mask masks, at most.
const MAX_MASK_VISITS: usize = 64;
/// Values looked at between attention and the cache of its keys (or values), at most.
const MAX_CACHE_VISITS: usize = 64;

/// softmax(Q·Kᵀ)·V.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    /// The operation that gives the result.
    pub(crate) op: OpId,
    /// Queries, keys, values.
    pub(crate) query: ValueId,
    pub(crate) key: ValueId,
    pub(crate) value: ValueId,
    /// Number of query and key positions.
    pub(crate) queries: Dim,
    pub(crate) keys: Dim,
    /// Masks: what the operation takes, adds to the scores or selects with.
    masks: Vec<ValueId>,
    causal: bool,
}

/// The attention whose result this operation makes.
pub(crate) fn find(scan: &Scan<'_>, id: OpId, op: &Op) -> Option<Attention> {
    match op.kind {
        OpKind::Sdpa => fused(scan, id, op),
        OpKind::MatMul => spelled_out(scan, id, op),
        _ => None,
    }
}

fn fused(scan: &Scan<'_>, id: OpId, op: &Op) -> Option<Attention> {
    let &[query, key, value, ref masks @ ..] = op.operands.as_slice() else { return None };
    let length = |v: ValueId| scan.graph.ty(v).shape.iter().rev().nth(1).cloned();
    let (queries, keys) = (length(query)?, length(key)?);
    let causal = op.attrs.bool("causal");
    Some(Attention { op: id, query, key, value, queries, keys, masks: masks.to_vec(), causal })
}

fn spelled_out(scan: &Scan<'_>, id: OpId, op: &Op) -> Option<Attention> {
    let &[a, b] = op.operands.as_slice() else { return None };
    let (softmax, value) = match (softmax_behind(scan, a), softmax_behind(scan, b)) {
        (Some(softmax), _) if !scan.is_ahead(b) => (softmax, b),
        (None, Some(softmax)) if !scan.is_ahead(a) => (softmax, a),
        _ => return None,
    };
    let shape = &scan.graph.ty(softmax).shape;
    let (queries, keys) = (shape.iter().rev().nth(1).cloned()?, shape.last().cloned()?);
    let scores = *scan.maker(softmax)?.1.operands.first()?;
    let mut search = ScoreSearch { scan, keys: &keys, masks: Vec::new(), left: MAX_SCORE_VISITS };
    let product = search.product(scores)?;
    let masks = search.masks;
    let &[query, key] = product.operands.as_slice() else { return None };
    Some(Attention { op: id, query, key, value, queries, keys, masks, causal: false })
}

/// The softmax of which the value is a masked, scaled or moved form.
fn softmax_behind(scan: &Scan<'_>, v: ValueId) -> Option<ValueId> {
    let end = scan.walk(v, |op| match op.kind {
        OpKind::Select => op.operands.iter().copied().skip(1).find(|v| scan.is_fed(*v)),
        _ => scan.moved_from(op),
    });
    scan.maker(end).filter(|(_, op)| op.kind == OpKind::Softmax).map(|_| end)
}

struct ScoreSearch<'s, 'a> {
    scan: &'s Scan<'a>,
    keys: &'s Dim,
    masks: Vec<ValueId>,
    left: usize,
}

impl<'a> ScoreSearch<'_, 'a> {
    /// The product of queries and keys behind scores; collects what is added to or selects among them.
    fn product(&mut self, v: ValueId) -> Option<&'a Op> {
        self.left = self.left.checked_sub(1)?;
        let (_, op) = self.scan.maker(v)?;
        match op.kind {
            OpKind::MatMul => {
                let fits = self.scan.graph.ty(v).shape.contains(self.keys);
                let keys_move = op.operands.get(1).is_some_and(|k| !self.scan.is_ahead(*k));
                (fits && keys_move).then_some(op)
            }
            OpKind::Add
            | OpKind::Sub
            | OpKind::Mul
            | OpKind::Div
            | OpKind::Min
            | OpKind::Max
            | OpKind::Select => {
                let found =
                    op.operands.iter().find_map(|operand| Some((*operand, self.product(*operand)?)))?;
                self.masks.extend(op.operands.iter().filter(|v| **v != found.0));
                Some(found.1)
            }
            OpKind::Tanh => self.product(*op.operands.first()?),
            _ => self.product(self.scan.moved_from(op)?),
        }
    }
}

/// Does the attention mask what comes later?
pub(crate) fn is_causal(scan: &Scan<'_>, module: &Module, attention: &Attention) -> bool {
    let mut left = MAX_MASK_VISITS;
    attention.causal || attention.masks.iter().any(|v| masks_later(scan, module, *v, &mut left))
}

fn masks_later(scan: &Scan<'_>, module: &Module, v: ValueId, left: &mut usize) -> bool {
    let Some(fewer) = left.checked_sub(1) else { return false };
    *left = fewer;
    let Some((_, op)) = scan.maker(v) else { return false };
    match op.kind {
        OpKind::Trilu => true,
        OpKind::Constant | OpKind::Weight => module.constant_value(op).is_some_and(is_triangle),
        OpKind::Compare => {
            let ordered = !matches!(op.attrs.str("predicate"), "eq" | "ne");
            ordered && op.operands.iter().all(|v| counts_positions(scan, *v))
        }
        OpKind::Gather | OpKind::GatherNd | OpKind::GatherElements => false,
        _ if op.kind.def().has(djinn_ir::ops::traits::BROADCAST) || scan.moved_from(op).is_some() => {
            op.operands.iter().any(|v| masks_later(scan, module, *v, left))
        }
        _ => false,
    }
}

/// Does a constant treat the last key of the first query otherwise than the first key of the last query?
fn is_triangle(data: &djinn_ir::TensorData) -> bool {
    let &[.., rows, columns] = data.shape() else { return false };
    if rows < 2 || columns < 2 || rows.checked_mul(columns).is_none_or(|size| data.numel() < size) {
        return false;
    }
    let at = |i: usize| data.get_f64(i).or_else(|| data.get_i64(i).map(|v| v as f64));
    let corners = (at(columns - 1), at((rows - 1) * columns), at(0));
    matches!(corners, (Some(later), Some(earlier), Some(same)) if later != earlier && earlier == same)
}

/// Is the value a count of positions, moved about?
fn counts_positions(scan: &Scan<'_>, v: ValueId) -> bool {
    let end = scan.walk(v, |op| match op.kind {
        OpKind::Add | OpKind::Sub => op.operands.iter().copied().find(|v| scan.rank(*v) > 0),
        _ => scan.moved_from(op),
    });
    scan.rank(v) > 0
        && scan
            .maker(end)
            .is_some_and(|(_, op)| matches!(op.kind, OpKind::Iota | OpKind::Range | OpKind::Constant))
}

/// What keys or values are made of, as far as elements are only moved, joined and overwritten.
#[derive(Debug, Default)]
pub(crate) struct CacheTrace {
    /// Arguments that hold earlier keys, by number.
    pub(crate) arguments: BTreeSet<usize>,
    /// Weights that do: a cache that the file froze.
    pub(crate) frozen: bool,
    /// Values that hold the cache after the new keys are in.
    pub(crate) updated: BTreeSet<ValueId>,
    /// Results met on the way.
    pub(crate) results: BTreeSet<ValueId>,
}

/// Results of at least rank 3 by the value of which they are another form.
pub(crate) type Forms = BTreeMap<ValueId, Vec<ValueId>>;

/// The value of which another one is a form: reshaped, transposed, cast.
fn form_of(scan: &Scan<'_>, v: ValueId) -> ValueId {
    use OpKind::{Cast, Reshape, Transpose};
    let same = |op: &Op| matches!(op.kind, Cast | Reshape | Transpose);
    scan.walk(v, |op| if same(op) { op.operands.first().copied() } else { None })
}

/// Which results are forms of which values.
pub(crate) fn forms_of_results(scan: &Scan<'_>) -> Forms {
    let mut forms = Forms::new();
    for v in scan.graph.results.iter().filter(|v| scan.rank(**v) >= 3) {
        forms.entry(form_of(scan, *v)).or_default().push(*v);
    }
    forms
}

/// Follows keys (or values) of an attention back to the cache they come from.
pub(crate) fn trace_cache(scan: &Scan<'_>, forms: &Forms, v: ValueId) -> CacheTrace {
    let mut trace = CacheTrace::default();
    trace.results.extend(forms.get(&form_of(scan, v)).into_iter().flatten());
    let mut left = MAX_CACHE_VISITS;
    reaches_cache(scan, v, &mut trace, &mut left);
    trace
}

/// Does the value hold what an earlier call left?
fn reaches_cache(scan: &Scan<'_>, v: ValueId, trace: &mut CacheTrace, left: &mut usize) -> bool {
    let Some(fewer) = left.checked_sub(1) else { return false };
    *left = fewer;
    let ty = scan.graph.ty(v);
    if !ty.dtype.is_float() && !ty.dtype.is_int() {
        return false;
    }
    if scan.is_result(v) && ty.rank() >= 3 {
        trace.results.insert(v);
    }
    let Some((_, op)) = scan.maker(v) else {
        let cache = ty.rank() >= 3;
        if let (true, Some(i)) = (cache, scan.argument(v)) {
            trace.arguments.insert(i);
        }
        return cache;
    };
    let (old, new): (&[ValueId], Option<ValueId>) = match (op.kind, op.operands.as_slice()) {
        (OpKind::ScatterNd | OpKind::ScatterElements, &[ref old, _, new]) => {
            (std::slice::from_ref(old), Some(new))
        }
        (OpKind::IndexCopy, &[ref old, _, new]) => (std::slice::from_ref(old), Some(new)),
        (OpKind::Select, [_, rest @ ..]) => (rest, None),
        (OpKind::Concat, operands) if operands.iter().any(|v| scan.is_ahead(*v)) => (&[], None),
        (OpKind::Concat, operands) => (operands, None),
        _ => {
            return scan
                .moved_from(op)
                .is_some_and(|from| !scan.is_ahead(from) && reaches_cache(scan, from, trace, left));
        }
    };
    let mut found = false;
    for operand in old {
        let frozen = new.is_some() && scan.is_ahead(*operand) && ty.rank() >= 3;
        trace.frozen |= frozen;
        found |= frozen || (!scan.is_ahead(*operand) && reaches_cache(scan, *operand, trace, left));
    }
    if found {
        trace.updated.insert(v);
    }
    found
}
