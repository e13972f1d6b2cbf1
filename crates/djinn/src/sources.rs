//! Which results of different functions have the same weights behind them: what tells the cache of one layer from that of
//! another, whatever the file calls it.

use djinn_ir::{ContentHash, Graph, Module, Op, OpKind, ValueId, walk};
use djinn_planner::{OWN_SOURCES, SOURCES};
use std::collections::{BTreeMap, BTreeSet};

/// Operations looked at for all results of a module, at most; what is behind results beyond that is not known.
const MAX_STEPS: usize = 1 << 24;

/// Numbers of weights.
type Weights = BTreeSet<u32>;

/// Notes for every entry function which results have equal sets of weights behind them, in the metadata
/// `cache.<function>.sources`; and in `cache.<function>.own_sources` the same without what is behind other results, which
/// a function may be given where another one makes it (keys and values of an encoder's output). To be called before any
/// pass: passes join weights, and not in all functions alike. A program of one function hands nothing on to others.
pub(crate) fn note(module: &mut Module) {
    if module.entries().count() < 2 {
        return;
    }
    let mut search = Search { module, numbers: BTreeMap::new(), named: BTreeMap::new(), steps: MAX_STEPS };
    let mut notes = Vec::new();
    for (key, own) in [(SOURCES, false), (OWN_SOURCES, true)] {
        let mut words: BTreeMap<Weights, usize> = BTreeMap::new();
        for function in module.entries() {
            let results: BTreeSet<ValueId> = function.graph.results.iter().copied().collect();
            let ends = if own { results } else { BTreeSet::new() };
            let of_result = |v: &ValueId| {
                let weights = search.behind(&function.graph, *v, &ends).filter(|w| !w.is_empty());
                let Some(weights) = weights else { return "-".to_owned() };
                let next = words.len();
                words.entry(weights).or_insert(next).to_string()
            };
            let text: Vec<String> = function.graph.results.iter().map(of_result).collect();
            notes.push((format!("cache.{}.{key}", function.name), text.join(" ")));
        }
    }
    module.metadata.extend(notes.into_iter().map(|(key, words)| (key.into(), words.into())));
}

/// The search for the weights behind results.
struct Search<'a> {
    module: &'a Module,
    /// Numbers by content, or by name where the content is not known.
    numbers: BTreeMap<String, u32>,
    /// Numbers of the weights that were met, by name.
    named: BTreeMap<String, u32>,
    /// Operations that may still be looked at.
    steps: usize,
}

impl Search<'_> {
    /// The weights that a value depends on, not through other values at which the search ends; none if that is not known.
    fn behind(&mut self, graph: &Graph, result: ValueId, ends: &BTreeSet<ValueId>) -> Option<Weights> {
        let mut weights = Weights::new();
        let mut seen = BTreeSet::new();
        let mut open = vec![result];
        while let Some(v) = open.pop() {
            let made = graph.definition(v).filter(|_| v == result || !ends.contains(&v));
            let Some((id, _)) = made.filter(|(id, _)| seen.insert(*id)) else { continue };
            let op = graph.op(id);
            self.steps = self.steps.checked_sub(1)?;
            if op.kind == OpKind::Call || !op.regions.iter().all(|r| self.within(r, &mut weights)) {
                return None;
            }
            weights.extend(self.weight(op));
            open.extend(&op.operands);
        }
        Some(weights)
    }

    /// Adds the weights of a region; are they all?
    fn within(&mut self, region: &Graph, weights: &mut Weights) -> bool {
        let mut all = true;
        walk::for_each_graph(region, &mut |graph| {
            for (_, op) in graph.ops() {
                all &= op.kind != OpKind::Call;
                weights.extend(self.weight(op));
            }
        });
        all
    }

    fn weight(&mut self, op: &Op) -> Option<u32> {
        if op.kind != OpKind::Weight {
            return None;
        }
        let name = op.attrs.str("name");
        if let Some(number) = self.named.get(name) {
            return Some(*number);
        }
        let hash = ContentHash::from_hex(op.attrs.str("hash")).or_else(|| self.module.weight_hash(name));
        let content = hash.map_or_else(|| format!("weight {name}"), |hash| hash.to_string());
        let next = self.numbers.len() as u32;
        let number = *self.numbers.entry(content).or_insert(next);
        self.named.insert(name.to_owned(), number);
        Some(number)
    }
}
