//! Attention and rotary embeddings, out of layers that TensorRT fuses again.

use super::{Node, movement};
use crate::network::{Net, Val, no_layer};
use djinn_diag::Result;
use djinn_ir::{DType, Dim};
use trtx::{ElementWiseOperation as E, ReduceOperation as R, UnaryOperation as U};

/// softmax(scale·Q·Kᵀ + mask)·V; zeros for a query that sees no key, where softmax would give NaN.
pub(super) fn sdpa<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let heads = Heads::of(net, node)?;
    let [q, k, v] = heads.split(net, node)?;
    let scaled = net.with_number(&q, E::kPROD, node.attrs.float("scale"))?;
    let mut scores = net.matmul(&scaled, &k, true)?;
    let masks = Masks::of(net, node, &heads, &scores)?;
    if let Some(added) = &masks.added {
        scores = net.binary(&scores, added, E::kSUM)?;
    }
    if let Some(seen) = &masks.seen {
        let never = net.number(scores.dtype(), scores.rank(), f64::NEG_INFINITY)?;
        scores = net.select(seen, &scores, &never)?;
    }
    let last = scores.rank() - 1;
    let weights = net.softmax(&scores, last)?;
    let mut out = net.matmul(&weights, &v, false)?;
    if masks.may_hide_all {
        // Softmax of −∞ everywhere is NaN; the largest score tells.
        let most = net.reduce(&scores, R::kMAX, &[last], true)?;
        let sees = net.with_number(&most, E::kGREATER, f64::NEG_INFINITY)?;
        let zero = net.number(out.dtype(), out.rank(), 0.0)?;
        out = net.select(&sees, &out, &zero)?;
    }
    heads.join(net, node, &out)
}

/// How heads are laid out: [batch, key/value heads, queries a head, length, width].
struct Heads {
    batch: Dim,
    query_heads: Dim,
    kv_heads: Dim,
    group: Dim,
    queries: Dim,
    keys: Dim,
    packed: bool,
}

impl Heads {
    fn of(_net: &Net<'_>, node: &Node<'_, '_>) -> Result<Heads> {
        let (q, k) = (node.x(0)?.shape(), node.x(1)?.shape());
        let packed = q.len() == 3;
        let attr = |name: &str| Dim::from(node.attrs.int(name));
        let (query_heads, kv_heads) =
            if packed { (attr("query_heads"), attr("kv_heads")) } else { (q[1].clone(), k[1].clone()) };
        let group = match query_heads == kv_heads {
            true => Dim::ONE,
            false => query_heads.exact_div(&kv_heads).ok_or_else(|| no_layer("heads are not known"))?,
        };
        let length = if packed { 1 } else { 2 };
        let (queries, keys) = (q[length].clone(), k[length].clone());
        Ok(Heads { batch: q[0].clone(), query_heads, kv_heads, group, queries, keys, packed })
    }

    /// Operands as [batch, heads, length, width], or with the queries that share a head on an axis of their own.
    fn split<'n>(&self, net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<[Val<'n>; 3]> {
        let mut parts = Vec::new();
        for (number, heads) in [(0, &self.query_heads), (1, &self.kv_heads), (2, &self.kv_heads)] {
            let mut x = node.x(number)?.clone();
            if self.packed {
                let width = x.shape()[2].exact_div(heads).ok_or_else(|| no_layer("heads are not known"))?;
                let shape = [x.shape()[0].clone(), x.shape()[1].clone(), heads.clone(), width];
                x = net.reshape(&x, &shape)?;
                x = net.transpose(&x, &[0, 2, 1, 3])?;
            }
            if !self.group.is(1) {
                let group = if number == 0 { self.group.clone() } else { Dim::ONE };
                let [batch, _, length, width] = four(&x)?;
                x = net.reshape(&x, &[batch, self.kv_heads.clone(), group, length, width])?;
            }
            parts.push(x);
        }
        <[Val<'n>; 3]>::try_from(parts).map_err(|_| no_layer("attention has three operands"))
    }

    /// A mask of four axes as the scores have them.
    fn mask<'n>(&self, net: &mut Net<'n>, mask: &Val<'n>) -> Result<Val<'n>> {
        let mask = net.at_least_rank(mask, 4)?;
        if self.group.is(1) {
            return Ok(mask);
        }
        let [batch, heads, queries, keys] = four(&mask)?;
        let (heads, group) = match heads.is(1) {
            true => (Dim::ONE, Dim::ONE),
            false => (self.kv_heads.clone(), self.group.clone()),
        };
        net.reshape(&mask, &[batch, heads, group, queries, keys])
    }

    fn join<'n>(&self, net: &mut Net<'n>, node: &Node<'_, 'n>, out: &Val<'n>) -> Result<Val<'n>> {
        let width = out.shape()[out.rank() - 1].clone();
        let shape = [self.batch.clone(), self.query_heads.clone(), self.queries.clone(), width];
        let mut out = net.reshape(out, &shape)?;
        if self.packed {
            out = net.transpose(&out, &[0, 2, 1, 3])?;
            out = net.reshape(&out, &node.types[0].shape)?;
        }
        Ok(out)
    }
}

fn four(x: &Val<'_>) -> Result<[Dim; 4]> {
    <[Dim; 4]>::try_from(x.shape().to_vec()).map_err(|_| no_layer("attention has four axes"))
}

/// What is added to the scores and which of them count.
struct Masks<'n> {
    added: Option<Val<'n>>,
    seen: Option<Val<'n>>,
    /// May a query see no key?
    may_hide_all: bool,
}

impl<'n> Masks<'n> {
    fn of(net: &mut Net<'n>, node: &Node<'_, 'n>, heads: &Heads, scores: &Val<'n>) -> Result<Masks<'n>> {
        let mut masks = Masks { added: None, seen: None, may_hide_all: false };
        if let Some(mask) = node.operands.get(3) {
            let mask = heads.mask(net, mask)?;
            masks.may_hide_all = true;
            match mask.dtype() {
                DType::Bool => masks.seen = Some(mask),
                _ => masks.added = Some(mask),
            }
        }
        if node.attrs.bool("causal") {
            let offset = node.attrs.dim("causal_offset");
            // With an offset of at least 0 every query sees the first key.
            masks.may_hide_all |= !offset.provably_ge(&Dim::ZERO, &net.symbols);
            let causal = causal(net, &heads.queries, &heads.keys, &offset)?;
            let causal = net.at_least_rank(&causal, scores.rank())?;
            masks.seen = Some(match masks.seen.take() {
                Some(seen) => net.binary(&seen, &causal, E::kAND)?,
                None => causal,
            });
        }
        Ok(masks)
    }
}

/// Key j ≤ query i + offset.
fn causal<'n>(net: &mut Net<'n>, queries: &Dim, keys: &Dim, offset: &Dim) -> Result<Val<'n>> {
    let query = movement::counter(net, queries, DType::I64)?;
    let query = net.reshape(&query, &[queries.clone(), Dim::ONE])?;
    let offset = net.size(offset)?;
    let limit = net.binary(&query, &offset, E::kSUM)?;
    let key = movement::counter(net, keys, DType::I64)?;
    let beyond = net.binary(&key, &limit, E::kGREATER)?;
    net.unary(&beyond, U::kNOT)
}

/// Halves (x1, x2) become (x1·cos − x2·sin, x2·cos + x1·sin).
pub(super) fn rope<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let mut x = node.x(0)?.clone();
    let interleaved = node.attrs.bool("interleaved");
    let packed = x.rank() == 3;
    if packed {
        let heads = Dim::from(node.attrs.int("heads"));
        let width = x.shape()[2].exact_div(&heads).ok_or_else(|| no_layer("heads are not known"))?;
        let shape = [x.shape()[0].clone(), x.shape()[1].clone(), heads, width];
        x = net.reshape(&x, &shape)?;
    }
    // cos and sin have an axis for the heads put in: before the length, or after it.
    let at = if packed { 2 } else { 1 };
    let angle = |net: &mut Net<'n>, number: usize| {
        let angle = node.x(number)?.clone();
        let mut shape = angle.shape().to_vec();
        shape.insert(at, Dim::ONE);
        net.reshape(&angle, &shape)
    };
    let (cos, sin) = (angle(net, 1)?, angle(net, 2)?);
    let [a, b] = halves(net, &x, interleaved)?;
    let (ac, bs) = (net.binary(&a, &cos, E::kPROD)?, net.binary(&b, &sin, E::kPROD)?);
    let (bc, as_) = (net.binary(&b, &cos, E::kPROD)?, net.binary(&a, &sin, E::kPROD)?);
    let (first, second) = (net.binary(&ac, &bs, E::kSUB)?, net.binary(&bc, &as_, E::kSUM)?);
    let turned = joined(net, &first, &second, &x, interleaved)?;
    net.reshape(&turned, &node.types[0].shape)
}

/// First and second half of the width, or even and odd elements.
fn halves<'n>(net: &mut Net<'n>, x: &Val<'n>, interleaved: bool) -> Result<[Val<'n>; 2]> {
    let last = x.rank() - 1;
    let half =
        x.shape()[last].exact_div(&Dim::from(2i64)).ok_or_else(|| no_layer("the width is not even"))?;
    let mut sizes = x.shape().to_vec();
    sizes[last] = half.clone();
    let mut strides = vec![1; x.rank()];
    strides[last] = if interleaved { 2 } else { 1 };
    let mut starts = vec![Dim::ZERO; x.rank()];
    let first = net.slice(x, &starts, &sizes, &strides)?;
    starts[last] = if interleaved { Dim::ONE } else { half };
    Ok([first, net.slice(x, &starts, &sizes, &strides)?])
}

fn joined<'n>(
    net: &mut Net<'n>,
    first: &Val<'n>,
    second: &Val<'n>,
    x: &Val<'n>,
    interleaved: bool,
) -> Result<Val<'n>> {
    let last = x.rank() - 1;
    if !interleaved {
        return net.concat(&[first.clone(), second.clone()], last);
    }
    let apart: Vec<Dim> = first.shape().iter().cloned().chain([Dim::ONE]).collect();
    let (first, second) = (net.reshape(first, &apart)?, net.reshape(second, &apart)?);
    let pairs = net.concat(&[first, second], last + 1)?;
    net.reshape(&pairs, x.shape())
}
