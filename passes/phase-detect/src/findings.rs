//! What is found in a function: facts, the values that carry them, attention and caches.

use crate::attention::{self, Attention, CacheTrace, Forms};
use crate::gradient;
use crate::rule::{Fact, FactSet, Rules};
use crate::scan::Scan;
use djinn_ir::graph::Op;
use djinn_ir::{Dim, Graph, Module, OpId, OpKind, TensorType, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Query positions that still are a step of generation, at most: guesses that speculative decoding verifies at once
/// (Leviathan et al. 2023, section 3.5, finds 3 to 10 worth while; a fixed prompt is hardly shorter).
const MAX_SPECULATED: i64 = 8;
/// A cache is far longer than the queries from this factor on.
const FAR_LONGER: i64 = 4;
/// Channels of a picture: grey, colour, colour with transparency (or latents).
const PICTURE_CHANNELS: [i64; 3] = [1, 3, 4];
/// Inputs told apart when sources of queries and keys are compared; further ones count as one.
const MAX_SOURCES: u32 = 30;
/// Weights of which chains are looked for, at most.
const MAX_CHAINED_WEIGHTS: u32 = 63;

/// How often a fact was found, and where first.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Evidence {
    pub(crate) count: usize,
    pub(crate) first: Option<OpId>,
}

/// Everything found in a function.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) facts: FactSet,
    pub(crate) evidence: BTreeMap<Fact, Evidence>,
    /// The values that a fact is about.
    pub(crate) values: BTreeMap<Fact, BTreeSet<ValueId>>,
    /// Query of every attention across sources, by the operation that gives its result.
    pub(crate) crossing: BTreeMap<OpId, ValueId>,
    /// Arguments that hold a cache, by number.
    pub(crate) cache_arguments: BTreeSet<usize>,
    /// Values that hold a cache: results, and caches with the new keys in.
    pub(crate) cache_values: BTreeSet<ValueId>,
    /// Query positions of the attention that reads the cache.
    pub(crate) queries: Option<Dim>,
    /// The file froze a cache into a weight, so that its updates are lost.
    pub(crate) frozen_cache: bool,
    /// Operations that belong to the way back.
    pub(crate) gradients: BTreeSet<OpId>,
    attentions: Vec<Attention>,
    tables: BTreeSet<(ValueId, ValueId)>,
    sines: BTreeSet<ValueId>,
    cosines: BTreeSet<ValueId>,
}

impl Findings {
    fn note(&mut self, fact: Fact, op: Option<OpId>) {
        self.facts.insert(fact);
        let evidence = self.evidence.entry(fact).or_default();
        evidence.count += 1;
        evidence.first = evidence.first.or(op);
    }

    fn note_value(&mut self, fact: Fact, op: Option<OpId>, v: ValueId) {
        if self.values.entry(fact).or_default().insert(v) {
            self.note(fact, op);
        }
    }

    fn holders(&self, fact: Fact) -> impl Iterator<Item = ValueId> {
        self.values.get(&fact).into_iter().flatten().copied()
    }
}

/// Looks for everything in the body of a function (or a region, as if it were one).
pub(crate) fn find(module: &Module, graph: &Graph, rules: &Rules) -> Findings {
    let scan = Scan::new(graph);
    let mut found = Findings::default();
    for (id, op) in graph.ops() {
        look_at(&scan, id, op, &mut found);
        for region in &op.regions {
            adopt(&mut found, id, &find(module, region, rules));
        }
    }
    recurrence(&scan, &mut found);
    attentions(&scan, module, rules, &mut found);
    signature(&scan, &mut found);
    if let Some(gradients) = gradient::find(&scan) {
        found.note(Fact::WeightGradient, gradients.first().copied());
        found.gradients = gradients;
    }
    found
}

/// Takes over the facts of a region.
fn adopt(found: &mut Findings, at: OpId, region: &Findings) {
    for fact in region.evidence.keys() {
        found.note(*fact, Some(at));
    }
}

/// Facts that one operation shows.
fn look_at(scan: &Scan<'_>, id: OpId, op: &Op, found: &mut Findings) {
    match op.kind {
        OpKind::Gather => lookup(scan, id, op, found),
        OpKind::Conv => convolution(scan, id, op, found),
        OpKind::ConvTranspose => found.note(Fact::Convolution, Some(id)),
        OpKind::Sin | OpKind::Cos => {
            let input = op.operands.first().and_then(|v| scan.input_of(*v)).filter(|v| scan.rank(*v) <= 1);
            let seen = if op.kind == OpKind::Sin { &mut found.sines } else { &mut found.cosines };
            seen.extend(input);
        }
        OpKind::Exp if decays(scan, op) => found.note(Fact::Scan, Some(id)),
        OpKind::Lstm => found.note(Fact::Recurrence, Some(id)),
        OpKind::Opaque if op.attrs.str("op").contains("backward") => {
            found.note(Fact::WeightGradient, Some(id))
        }
        OpKind::MatMul => patches(scan, id, op, found),
        _ => {}
    }
    if let Some(attention) = attention::find(scan, id, op) {
        found.note(Fact::Attention, Some(id));
        found.attentions.push(attention);
    }
}

/// Rows of a table of weights, picked by an input.
fn lookup(scan: &Scan<'_>, id: OpId, op: &Op, found: &mut Findings) {
    let &[table, indices] = op.operands.as_slice() else { return };
    let is_table = scan.is_ahead(table) && scan.rank(table) == 2 && op.attrs.int("axis") == 0;
    if !is_table || !scan.graph.ty(table).dtype.is_float() || scan.rank(indices) == 0 {
        return;
    }
    let Some(input) = scan.input_of(indices).filter(|v| scan.graph.ty(*v).dtype.is_int()) else { return };
    let Some(result) = op.results.first() else { return };
    found.tables.insert((table, indices));
    if scan.rank(indices) == 1 {
        found.note_value(Fact::Labels, Some(id), *result);
        return;
    }
    found.note_value(Fact::Tokens, Some(id), *result);
    let rows = scan.graph.ty(table).shape.first();
    let scored = |v: &ValueId| scan.rank(*v) >= 2 && scan.graph.ty(*v).shape.last() == rows;
    if scan.graph.results.iter().any(scored) {
        found.note(Fact::Vocabulary, Some(id));
    }
    if scan.graph.ty(input).shape.last().is_some_and(|d| d.is(1)) {
        found.note(Fact::OneToken, Some(id));
    }
}

fn convolution(scan: &Scan<'_>, id: OpId, op: &Op, found: &mut Findings) {
    let Some(x) = op.operands.first() else { return };
    let flat = scan.rank(*x) == 3;
    if !flat {
        found.note(Fact::Convolution, Some(id));
    }
    let Some(input) = scan.input_of(*x) else { return };
    match scan.rank(input) {
        3 if flat => found.note_value(Fact::Sound, Some(id), input),
        4 | 5 if !flat => found.note_value(Fact::Image, Some(id), input),
        _ => {}
    }
}

/// An image cut into patches by reshaping, each multiplied by a weight.
fn patches(scan: &Scan<'_>, id: OpId, op: &Op, found: &mut Findings) {
    let &[x, weight] = op.operands.as_slice() else { return };
    if !scan.is_ahead(weight) || scan.is_ahead(x) || scan.argument(x).is_some() {
        return;
    }
    let Some(input) = scan.input_of(x).filter(|v| (4..=5).contains(&scan.rank(*v))) else { return };
    let shape = &scan.graph.ty(input).shape;
    let is_channels = |d: Option<&Dim>| d.is_some_and(|d| PICTURE_CHANNELS.iter().any(|c| d.is(*c)));
    if is_channels(shape.get(1)) || is_channels(shape.last()) {
        found.note_value(Fact::Image, Some(id), input);
    }
}

/// exp(Δ·A) with A known ahead of time and Δ a softplus: the decay of a selective scan (Gu and Dao 2023, section 3.2).
fn decays(scan: &Scan<'_>, op: &Op) -> bool {
    let product = op.operands.first().map(|v| scan.walk(*v, |op| scan.moved_from(op)));
    let Some((_, product)) = product.and_then(|v| scan.maker(v)) else { return false };
    if product.kind != OpKind::Mul {
        return false;
    }
    scan.live_operand(product).is_some_and(|step| is_softplus(scan, step))
}

/// A softplus, in one piece, as log(eˣ + 1), or replaced by x where x is large.
fn is_softplus(scan: &Scan<'_>, v: ValueId) -> bool {
    let end = scan.walk(v, |op| scan.moved_from(op));
    let kind_of = |v: ValueId| scan.maker(v).map(|(_, op)| op);
    let is = |v: ValueId, kind: OpKind| kind_of(v).is_some_and(|op| op.kind == kind);
    let is_sum =
        |v: ValueId| kind_of(v).filter(|op| op.kind == OpKind::Add).and_then(|op| scan.live_operand(op));
    kind_of(end).is_some_and(|op| match op.kind {
        OpKind::Softplus => true,
        OpKind::Log => op.operands.first().and_then(|v| is_sum(*v)).is_some_and(|v| is(v, OpKind::Exp)),
        OpKind::Select => op.operands.iter().skip(1).any(|v| is(*v, OpKind::Softplus) || is(*v, OpKind::Log)),
        _ => false,
    })
}

/// A weight that multiplies what depends on what it multiplied before.
fn recurrence(scan: &Scan<'_>, found: &mut Findings) {
    let mut uses: BTreeMap<ValueId, u32> = BTreeMap::new();
    let products = |op: &Op| op.kind == OpKind::MatMul && op.operands.len() == 2;
    for (_, op) in scan.graph.ops().filter(|(_, op)| products(op)) {
        op.operands.iter().filter(|v| scan.is_ahead(**v)).for_each(|v| *uses.entry(*v).or_default() += 1);
    }
    let shared: BTreeMap<ValueId, u32> =
        uses.into_iter().filter(|(_, n)| *n > 1).map(|(v, _)| v).zip(0..MAX_CHAINED_WEIGHTS).collect();
    if shared.is_empty() {
        return;
    }
    let mut met = vec![0u64; scan.graph.value_capacity()];
    for (id, op) in scan.graph.ops() {
        let mut here = op.operands.iter().fold(0, |bits, v| bits | met[v.0 as usize]);
        if products(op) {
            for weight in op.operands.iter().filter_map(|v| shared.get(v)) {
                if here >> weight & 1 == 1 {
                    found.note(Fact::Recurrence, Some(id));
                }
                here |= 1 << weight;
            }
        }
        op.results.iter().for_each(|v| met[v.0 as usize] = here);
    }
}

/// Facts about attention: what it masks, which cache it reads and makes, whether it looks elsewhere.
fn attentions(scan: &Scan<'_>, module: &Module, rules: &Rules, found: &mut Findings) {
    let attentions = std::mem::take(&mut found.attentions);
    if attentions.first().is_some_and(|a| attention::is_causal(scan, module, a)) {
        found.note(Fact::Causal, attentions.first().map(|a| a.op));
    }
    let sources = Sources::new(scan, found);
    let forms = attention::forms_of_results(scan);
    for attention in &attentions {
        cache(scan, &forms, attention, found);
        if sources.differ(attention) {
            found.note(Fact::CrossAttention, Some(attention.op));
            found.crossing.insert(attention.op, attention.query);
            context(scan, attention, rules, found);
        }
    }
}

fn cache(scan: &Scan<'_>, forms: &Forms, attention: &Attention, found: &mut Findings) {
    let trace = |v: ValueId| attention::trace_cache(scan, forms, v);
    let (keys, values) = (trace(attention.key), trace(attention.value));
    let held = |t: &CacheTrace| t.frozen || !t.arguments.is_empty();
    let raw_query = !trace(attention.query).arguments.is_empty();
    let id = Some(attention.op);
    if held(&keys) && held(&values) && !raw_query {
        found.note(Fact::Cached, id);
        found.frozen_cache |= keys.frozen || values.frozen;
        let own = !keys.updated.is_empty() || !values.updated.is_empty();
        if own || found.queries.is_none() {
            found.queries = Some(attention.queries.clone());
            query_facts(attention, found);
        }
        for trace in [&keys, &values] {
            found.cache_arguments.extend(&trace.arguments);
            found.cache_values.extend(trace.results.union(&trace.updated));
        }
    } else if !keys.results.is_empty() && !values.results.is_empty() && keys.results != values.results {
        found.note(Fact::CacheMade, id);
        found.cache_values.extend(keys.results.union(&values.results));
    }
}

fn query_facts(attention: &Attention, found: &mut Findings) {
    let id = Some(attention.op);
    match attention.queries.as_const() {
        Some(1) => found.note(Fact::QueryOne, id),
        Some(n) if n <= MAX_SPECULATED && attention.keys.as_const().is_none_or(|k| k / FAR_LONGER >= n) => {
            found.note(Fact::QueryFew, id);
        }
        Some(_) => {}
        None => found.note(Fact::QuerySymbolic, id),
    }
}

/// The input that cross-attention reads, and what the code around calls it.
fn context(scan: &Scan<'_>, attention: &Attention, rules: &Rules, found: &mut Findings) {
    let id = Some(attention.op);
    for v in [attention.key, attention.value] {
        let end = scan.walk(v, |op| op.operands.iter().copied().find(|v| scan.is_fed(*v)));
        if scan.graph.is_argument(end) && scan.graph.ty(end).dtype.is_float() {
            found.note_value(Fact::Context, id, end);
        }
    }
    let location = &scan.graph.op(attention.op).location;
    let source = location.source.as_ref().and_then(|(path, _)| path.rsplit('/').next());
    for (fact, word) in &rules.sources {
        let speaks = |text: &str| text.to_ascii_lowercase().contains(word.as_str());
        if source.is_some_and(speaks) || location.scope.as_deref().is_some_and(speaks) {
            found.note(*fact, id);
        }
    }
}

/// Which inputs of tokens, images and sound every value depends on.
struct Sources {
    bits: Vec<u32>,
}

/// The value depends on some input.
const ANY_INPUT: u32 = 1 << 31;

impl Sources {
    fn new(scan: &Scan<'_>, found: &Findings) -> Self {
        let facts = [Fact::Tokens, Fact::Labels, Fact::Image, Fact::Sound];
        let seeds: BTreeSet<ValueId> = facts.iter().flat_map(|f| found.holders(*f)).collect();
        let mut bits = vec![0u32; scan.graph.value_capacity()];
        let bit: BTreeMap<ValueId, u32> =
            seeds.into_iter().zip(0u32..).map(|(v, i)| (v, 1 << i.min(MAX_SOURCES))).collect();
        let own = |v: &ValueId| bit.get(v).copied().unwrap_or(0);
        for v in &scan.graph.arguments {
            bits[v.0 as usize] = ANY_INPUT | own(v);
        }
        for (_, op) in scan.graph.ops() {
            let here = op.operands.iter().fold(0, |all, v| all | bits[v.0 as usize]);
            op.results.iter().for_each(|v| bits[v.0 as usize] = here | own(v));
        }
        Sources { bits }
    }

    /// Do the queries depend on a seed that the keys do not see, though they come from some input?
    fn differ(&self, attention: &Attention) -> bool {
        let (query, key) = (self.bits[attention.query.0 as usize], self.bits[attention.key.0 as usize]);
        key & ANY_INPUT != 0 && query & !key & !ANY_INPUT != 0
    }
}

/// Facts that compare inputs, results and what was found between them.
fn signature(scan: &Scan<'_>, found: &mut Findings) {
    let ty = |v: ValueId| scan.graph.ty(v);
    if let Some(v) = found.sines.intersection(&found.cosines).next().copied() {
        found.note_value(Fact::Timestep, None, v);
    }
    categories(found);
    let kinds = [Fact::Tokens, Fact::Image, Fact::Sound];
    if kinds.iter().filter(|f| found.facts.has(**f)).count() > 1 {
        found.note(Fact::SeveralModalities, None);
    }
    if found.facts.has(Fact::Timestep) || found.facts.has(Fact::Scan) {
        carried(scan, found);
    }
    let images: Vec<ValueId> = found.holders(Fact::Image).collect();
    let larger = |r: &ValueId| is_picture(ty(*r)) && images.iter().all(|i| is_larger(ty(*r), ty(*i)));
    if scan.graph.results.iter().any(larger) {
        found.note(Fact::ImageMade, None);
    }
}

/// Inputs that come out in the same shape: what is denoised, or the state of a scan.
fn carried(scan: &Scan<'_>, found: &mut Findings) {
    let ty = |v: ValueId| scan.graph.ty(v);
    let images: Vec<ValueId> = found.holders(Fact::Image).collect();
    for (i, v) in scan.graph.arguments.iter().enumerate() {
        let long = ty(*v).rank() >= 3 && ty(*v).dtype.is_float() && !found.cache_arguments.contains(&i);
        let image = images.contains(v);
        let same = |r: &ValueId| if image { same_picture(ty(*v), ty(*r)) } else { ty(*v) == ty(*r) };
        if long && scan.graph.results.iter().any(same) {
            found.note_value(Fact::Denoised, None, *v);
            if found.facts.has(Fact::Scan) {
                found.note(Fact::ScanState, None);
                found.cache_arguments.insert(i);
                found.cache_values.extend(scan.graph.results.iter().filter(|r| same(r)));
            }
        }
    }
}

fn categories(found: &mut Findings) {
    let structure = [Fact::Attention, Fact::Recurrence, Fact::Convolution, Fact::Scan];
    let tables: BTreeSet<ValueId> = found.tables.iter().map(|(table, _)| *table).collect();
    let indices: BTreeSet<ValueId> = found.tables.iter().map(|(_, index)| *index).collect();
    if tables.len() > 1 && indices.len() > 1 && !structure.iter().any(|f| found.facts.has(*f)) {
        found.note(Fact::Categories, None);
    }
}

/// One height and width, and one rank of at least 4?
fn same_picture(a: &TensorType, b: &TensorType) -> bool {
    let size = |t: &TensorType| t.shape.iter().rev().take(2).cloned().collect::<Vec<_>>();
    a.rank() == b.rank() && a.rank() >= 4 && size(a) == size(b)
}

fn is_picture(ty: &TensorType) -> bool {
    ty.rank() == 4 && PICTURE_CHANNELS.iter().any(|c| ty.shape[1].is(*c)) && ty.shape[2].as_const() != Some(1)
}

fn is_larger(a: &TensorType, b: &TensorType) -> bool {
    let height = |t: &TensorType| t.shape.iter().rev().nth(1).and_then(Dim::as_const);
    matches!((height(a), height(b)), (Some(a), Some(b)) if a > b)
}
