//! Caches that stay on their device: which values of which functions stand in one buffer.
//!
//! A growing cache is an input and an output of its function. It takes one buffer where the output can be written over
//! the input ([`djinn_lifetime::storage`]); all entries of the function share it. Other functions of the program share it
//! as well if one of their outputs is the same cache: keys or values of the same layer. That is so if
//!
//! - the same weights are behind both, as [`SOURCES`] says of every result, or failing that the same weights other than
//!   those behind other results, as [`OWN_SOURCES`] says;
//! - both functions have as many caches with these weights behind them, and it is the same one of them in both
//!   (keys before values, where a single product makes both);
//! - both have the same element type, and the same sizes but for the axis along which the cache grows.

use crate::entry::{EntrySpec, Prepared};
use crate::places::Places;
use crate::sizes::max_bytes;
use djinn_diag::{Remark, RemarkKind, Result};
use djinn_ir::graph::Definition;
use djinn_ir::{ArgumentKind, Function, Module, OpKind, TensorType, ValueId};
use djinn_plan::{BufferId, Entry};
use std::collections::{BTreeMap, BTreeSet};

/// The last part of the key of metadata, `cache.<function>.sources`, that has one word for each result of the function:
/// equal words for equal sets of weights that results depend on, `-` where that is not known.
pub const SOURCES: &str = "sources";

/// As [`SOURCES`], for the weights that results depend on by themselves: other results that they depend on count as given.
pub const OWN_SOURCES: &str = "own_sources";

/// What tells caches apart, the surest first.
pub(crate) const LEVELS: [&str; 2] = [SOURCES, OWN_SOURCES];

/// A cache and the buffer that it is to have.
#[derive(Debug)]
struct Cache {
    name: String,
    /// The most over all entries that have it.
    bytes: u64,
    /// By level, the word for the weights behind it.
    sources: Words,
    ty: TensorType,
    /// The axis along which it grows, if it is known.
    axis: Option<usize>,
    device: Option<String>,
}

/// By level, a word.
type Words = [Option<String>; LEVELS.len()];

/// A cache of a function, and its values there.
type Own = (Vec<ValueId>, Cache);

/// All caches of a plan.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    caches: Vec<Cache>,
    /// The cache that a value of a function (by number) is.
    of: BTreeMap<(usize, ValueId), usize>,
}

impl Caches {
    /// The caches of the entries that are prepared.
    pub(crate) fn new(
        module: &Module,
        specs: &[EntrySpec],
        prepared: &[Prepared],
        remarks: &mut Vec<Remark>,
    ) -> Result<Caches> {
        let mut all = Caches::default();
        let functions: BTreeMap<usize, usize> =
            prepared.iter().enumerate().rev().map(|(entry, p)| (p.function, entry)).collect();
        let mut order: Vec<(usize, usize)> = functions.into_iter().map(|(f, entry)| (entry, f)).collect();
        order.sort_unstable();
        for (_, f) in order {
            let entries = specs.iter().zip(prepared).filter(|(_, p)| p.function == f);
            let own = of_function(module, f, entries, remarks)?;
            all.adopt(module, f, own, remarks);
        }
        Ok(all)
    }

    /// Name and bytes of the cache that a value is.
    pub(crate) fn of(&self, f: usize, v: ValueId) -> Option<(usize, &str, u64)> {
        let number = *self.of.get(&(f, v))?;
        let cache = &self.caches[number];
        Some((number, &cache.name, cache.bytes))
    }

    /// Adds the caches of a function: as caches that there are, or as further ones.
    fn adopt(&mut self, module: &Module, f: usize, own: Vec<Own>, remarks: &mut Vec<Remark>) {
        let known = self.caches.len();
        let mut same: BTreeMap<usize, usize> = BTreeMap::new();
        let mut refused: BTreeMap<usize, String> = BTreeMap::new();
        for level in 0..LEVELS.len() {
            let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
            for (i, (_, cache)) in own.iter().enumerate() {
                if let Some(word) = &cache.sources[level] {
                    groups.entry(word).or_default().push(i);
                }
            }
            for (word, mine) in groups {
                if mine.iter().any(|i| same.contains_key(i)) {
                    continue;
                }
                match self.counterparts(known, (level, word), &own, &mine, &same) {
                    Ok(theirs) => same.extend(mine.iter().copied().zip(theirs)),
                    Err(why) => {
                        refused.entry(mine[0]).or_insert(why);
                    }
                }
            }
        }
        for (i, _) in own.iter().enumerate().filter(|(_, (_, cache))| cache.sources == Words::default()) {
            refused.insert(i, "nothing says which cache of another function it is".to_owned());
        }
        for (i, why) in refused.into_iter().filter(|(i, _)| known > 0 && !same.contains_key(i)) {
            let message = format!("'{}' is not shared: {why}", own[i].1.name);
            remarks.push(missed(&module.functions[f].name, message));
        }
        for (i, (values, cache)) in own.into_iter().enumerate() {
            let number = match same.get(&i) {
                Some(number) => {
                    let shared = &mut self.caches[*number];
                    shared.bytes = shared.bytes.max(cache.bytes);
                    shared.axis = shared.axis.or(cache.axis);
                    *number
                }
                None => {
                    let name = self.free_name(module, &cache.name);
                    self.caches.push(Cache { name, ..cache });
                    self.caches.len() - 1
                }
            };
            self.of.extend(values.into_iter().map(|v| ((f, v), number)));
        }
    }

    /// A name that no other cache and no state has.
    fn free_name(&self, module: &Module, name: &str) -> String {
        let arguments = module.functions.iter().flat_map(|f| &f.arguments);
        let states = arguments.filter(|(_, kind)| matches!(kind, ArgumentKind::State { .. }));
        let states: BTreeSet<&str> = states.map(|(name, _)| &**name).collect();
        let taken = |name: &str| states.contains(name) || self.caches.iter().any(|c| c.name == name);
        let mut free = name.to_owned();
        let mut number = 1;
        while taken(&free) {
            number += 1;
            free = format!("{name} {number}");
        }
        free
    }

    /// The caches among the first `known` that those of a function with one source are; `same` are found already.
    fn counterparts(
        &self,
        known: usize,
        (level, word): (usize, &str),
        own: &[Own],
        mine: &[usize],
        same: &BTreeMap<usize, usize>,
    ) -> std::result::Result<Vec<usize>, String> {
        let has_word = |n: &usize| self.caches[*n].sources[level].as_deref() == Some(word);
        let theirs: Vec<usize> = (0..known).filter(has_word).collect();
        if theirs.is_empty() {
            return Err("no cache of another function has the same weights behind it".into());
        }
        if theirs.len() != mine.len() || theirs.iter().any(|n| same.values().any(|s| s == n)) {
            let (here, there) = (mine.len(), theirs.len());
            return Err(format!("{here} caches have these weights behind them, elsewhere {there}"));
        }
        for (a, b) in mine.iter().zip(&theirs) {
            let (a, b) = (&own[*a].1, &self.caches[*b]);
            if !alike(&a.ty, &b.ty, a.axis.or(b.axis)) {
                return Err(format!("its type is {}, that of '{}' {}", a.ty, b.name, b.ty));
            }
            if a.device != b.device {
                return Err(format!("it is on another device than '{}'", b.name));
            }
        }
        Ok(theirs)
    }
}

/// Can a value of one type be one of the other, the axis along which it grows aside?
fn alike(a: &TensorType, b: &TensorType, axis: Option<usize>) -> bool {
    let same = |(i, (a, b)): (usize, (&djinn_ir::Dim, &djinn_ir::Dim))| {
        let either_open = a.as_const().is_none() || b.as_const().is_none();
        axis == Some(i) || either_open || a == b
    };
    a.dtype == b.dtype && a.rank() == b.rank() && a.shape.iter().zip(&b.shape).enumerate().all(same)
}

/// Outputs that stay on their device, and the input that stays there which each may be written over.
pub(crate) fn renewals(function: &Function, spec: &EntrySpec) -> BTreeMap<ValueId, ValueId> {
    let graph = &function.graph;
    let names = function.arguments.iter().map(|a| &a.0).chain(function.results.iter().map(|r| &r.0));
    let ports = graph.arguments.iter().chain(&graph.results).zip(names);
    let kept = ports.filter(|(_, name)| spec.resident.contains(&***name)).map(|(v, _)| *v).collect();
    djinn_lifetime::storage::renewals(function, &kept)
}

/// Takes kernels that write over what stays on the device (caches, states), and read it, out of their engine regions: an
/// engine reads its inputs while it writes its outputs. A region that then waits for itself is cut ([`crate::engines`]).
pub(crate) fn leave_engines(entry: &mut Entry) {
    let kept = entry.inputs.iter().filter(|p| p.resident).filter_map(|p| Some(p.view?.buffer));
    let states = entry.states.iter().map(|s| s.view.buffer);
    let kept: BTreeSet<BufferId> = kept.chain(states).collect();
    for kernel in &mut entry.kernels {
        let mut written = kernel.writes.iter().map(|w| w.view.buffer).filter(|b| kept.contains(b));
        if written.any(|b| kernel.reads.iter().any(|r| r.view.buffer == b)) {
            kernel.engine = None;
        }
    }
}

/// The caches of one function, each with its values: those that are an input first.
fn of_function<'a>(
    module: &Module,
    f: usize,
    entries: impl Iterator<Item = (&'a EntrySpec, &'a Prepared)> + Clone,
    remarks: &mut Vec<Remark>,
) -> Result<Vec<Own>> {
    let function = &module.functions[f];
    let mut sources = sources(module, function);
    let failed = entries.clone().flat_map(|(_, prepared)| &prepared.places.not_renewed);
    for (v, why) in failed.collect::<BTreeMap<_, _>>() {
        let message = format!("'{}' takes two buffers: {why}", result_name(function, *v));
        remarks.push(missed(&function.name, message));
        // What could not be renewed in place is not handed on, and what it might be mistaken for is not either.
        let words = function.graph.results.iter().position(|r| r == v).and_then(|r| sources.get(r)).cloned();
        for (level, word) in words.unwrap_or_default().into_iter().enumerate().filter(|(_, w)| w.is_some()) {
            sources.iter_mut().filter(|s| s[level] == word).for_each(|s| *s = Words::default());
        }
    }
    let mut own: Vec<Own> = Vec::new();
    for (spec, prepared) in entries {
        let places = &prepared.places;
        for values in kept(function, spec, prepared) {
            let mut bytes = 0;
            for v in &values {
                bytes = bytes.max(max_bytes(function.graph.ty(*v), &prepared.symbols)?);
            }
            match own.iter_mut().find(|(known, _)| known[0] == values[0]) {
                Some((_, cache)) => cache.bytes = cache.bytes.max(bytes),
                None => {
                    let cache = cache(function, &values, bytes, &sources, places);
                    own.push((values, cache));
                }
            }
        }
    }
    Ok(own)
}

/// The values that stay on their device, those of one buffer together: in the order of the arguments, then of the results.
fn kept(function: &Function, spec: &EntrySpec, prepared: &Prepared) -> Vec<Vec<ValueId>> {
    let graph = &function.graph;
    let places = &prepared.places;
    let renewed: BTreeMap<ValueId, ValueId> = places.renewed.iter().map(|(new, old)| (*old, *new)).collect();
    let mut kept = Vec::new();
    for (v, (name, kind)) in graph.arguments.iter().zip(&function.arguments) {
        if *kind == ArgumentKind::Input && spec.resident.contains(&**name) && !places.is_shared(*v) {
            kept.push(std::iter::once(*v).chain(renewed.get(v).copied()).collect());
        }
    }
    let mut seen = BTreeSet::new();
    for (v, (name, _)) in graph.results.iter().zip(&function.results) {
        let computed = graph.definition(*v).is_some() && !prepared.ahead[v.0 as usize];
        let stays = spec.resident.contains(&**name) && computed && !places.is_shared(*v);
        if stays && !places.renewed.contains_key(v) && seen.insert(*v) {
            kept.push(vec![*v]);
        }
    }
    kept
}

fn cache(function: &Function, values: &[ValueId], bytes: u64, sources: &[Words], places: &Places) -> Cache {
    let graph = &function.graph;
    let (first, last) = (values[0], values[values.len() - 1]);
    let port = match graph.value(first).def {
        Definition::Argument(n) => function.arguments[n as usize].0.to_string(),
        Definition::Result(..) => result_name(function, first),
    };
    // What is an input only is never renewed, and so not handed on.
    let result = graph.results.iter().position(|v| *v == last);
    let appends = graph.definition(last).map(|(id, _)| graph.op(id)).filter(|op| op.kind == OpKind::Concat);
    let axis = appends.filter(|_| values.len() > 1).and_then(|op| usize::try_from(op.attrs.int("axis")).ok());
    Cache {
        name: format!("{}.{port}", function.name),
        bytes,
        sources: result.and_then(|r| sources.get(r).cloned()).unwrap_or_default(),
        ty: graph.ty(last).clone(),
        axis,
        device: places.home(last),
    }
}

/// By result, the words for the weights behind it.
fn sources(module: &Module, function: &Function) -> Vec<Words> {
    let mut all = vec![Words::default(); function.graph.results.len()];
    for (level, key) in LEVELS.iter().enumerate() {
        let words = module.metadata.get(format!("cache.{}.{key}", function.name).as_str());
        let words = words.map(|text| text.split_whitespace()).into_iter().flatten();
        for (slot, word) in all.iter_mut().zip(words).filter(|(_, word)| *word != "-") {
            slot[level] = Some(word.to_owned());
        }
    }
    all
}

fn result_name(function: &Function, v: ValueId) -> String {
    let mut results = function.graph.results.iter().zip(&function.results);
    results.find(|(r, _)| **r == v).map(|(_, (name, _))| name.to_string()).unwrap_or_default()
}

fn missed(function: &str, message: String) -> Remark {
    Remark {
        kind: RemarkKind::Missed,
        pass: "planner".into(),
        rule: "cache".into(),
        place: function.to_owned(),
        message,
    }
}
