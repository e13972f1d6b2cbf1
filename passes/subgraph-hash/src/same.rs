//! Hashes of regions and functions, and the proof that two of them are the same.
//!
//! A hash stands for what is computed: values, symbols, operations and weights may be called and ordered differently,
//! and operands of commutative operations may be swapped; element types, sizes, attributes, literals and annotations
//! count. Equal hashes are a strong hint (128 bits, and regions of high symmetry may share one); [`same_region`] and
//! [`same_function`] decide, by finding what corresponds to what.

use crate::labels::{Label, Labels, Part, counted_attrs, is_commutative};
use djinn_ir::{Attr, Dim, Function, Graph, Op, OpId, Symbol, TensorType, ValueId};
use std::collections::BTreeMap;
use std::fmt;

/// Operations that are tried out for one pair of regions, at most, for each operation that they have.
const MAX_TRIALS: usize = 64;

/// A hash of 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionHash(pub [u8; 16]);

impl fmt::Display for RegionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// What of one region corresponds to what of another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Correspondence {
    /// Operations, in the order of the first region.
    pub ops: Vec<(OpId, OpId)>,
    /// Values that come from outside, in order of their first use in the first region; those of a function are its
    /// arguments.
    pub inputs: Vec<(ValueId, ValueId)>,
    /// Values that are used outside, in the order of the first region.
    pub outputs: Vec<(ValueId, ValueId)>,
    /// Symbols.
    pub symbols: BTreeMap<Symbol, Symbol>,
}

impl Correspondence {
    /// Has every symbol the same name in both?
    pub fn keeps_symbols(&self) -> bool {
        self.symbols.iter().all(|(a, b)| a == b)
    }
}

/// The hash of some operations of a graph, in whichever order they are given.
///
/// Inputs and outputs have no order; numbers that name no operation of the graph are left out.
pub fn region_hash(graph: &Graph, ops: &[OpId]) -> RegionHash {
    RegionHash(Part::region(graph, ops).labels().whole.to_le_bytes())
}

/// Elements of a literal, at most, that is part of an engine; larger ones are given to it as weights are.
pub const LITERAL_ELEMENTS: usize = 16;

/// The hash of an engine that holds these operations, in whichever order they are given: [`region_hash`] where
/// annotations do not count, and where everything known ahead of time is given to the engine and counts by its
/// type, but literals of up to [`LITERAL_ELEMENTS`] elements by value. Engines of the same hash can be one.
pub fn engine_hash(graph: &Graph, ops: &[OpId]) -> RegionHash {
    RegionHash(Part::engine(graph, ops, LITERAL_ELEMENTS).labels().whole.to_le_bytes())
}

/// What corresponds to what, if engines that hold these operations can be one: [`same_region`] for [`engine_hash`].
pub fn same_engine(a: (&Graph, &[OpId]), b: (&Graph, &[OpId])) -> Option<Correspondence> {
    correspondence(&Part::engine(a.0, a.1, LITERAL_ELEMENTS), &Part::engine(b.0, b.1, LITERAL_ELEMENTS))
}

/// The hash of a body with the order of its arguments and results.
pub fn function_hash(function: &Function) -> RegionHash {
    RegionHash(Part::body(&function.graph).labels().whole.to_le_bytes())
}

/// What corresponds to what, if the regions are the same.
///
/// `None` also where regions are so symmetric that the search for it was given up, after a number of trials that
/// grows with the size of the regions.
pub fn same_region(a: (&Graph, &[OpId]), b: (&Graph, &[OpId])) -> Option<Correspondence> {
    correspondence(&Part::region(a.0, a.1), &Part::region(b.0, b.1))
}

/// What corresponds to what, if the bodies are the same and so is the order of arguments and results.
pub fn same_function(a: &Function, b: &Function) -> Option<Correspondence> {
    correspondence(&Part::body(&a.graph), &Part::body(&b.graph))
}

fn correspondence(a: &Part<'_>, b: &Part<'_>) -> Option<Correspondence> {
    if a.ops.len() != b.ops.len() || a.values.len() != b.values.len() || a.inputs != b.inputs {
        return None;
    }
    let labels = (a.labels(), b.labels());
    if labels.0.whole != labels.1.whole {
        return None;
    }
    let mut search = Search::new(a, b, &labels.0, &labels.1)?;
    search.run()?;
    search.symbols()?;
    Some(search.found())
}

/// A search for what corresponds to what: operation by operation, back to the last choice where it ends.
struct Search<'p, 'g> {
    a: &'p Part<'g>,
    b: &'p Part<'g>,
    labels: (&'p Labels, &'p Labels),
    /// Operations of `b` by label.
    candidates: BTreeMap<Label, Vec<u32>>,
    /// By position in `a`, what stands for it in `b`.
    ops: Vec<u32>,
    taken: Vec<bool>,
    /// By number, both ways.
    values: (Vec<Option<u32>>, Vec<Option<u32>>),
    symbols: (BTreeMap<Symbol, Symbol>, BTreeMap<Symbol, Symbol>),
    trials: usize,
}

/// What a step has bound, to be undone.
#[derive(Default)]
struct Trail {
    values: Vec<(u32, u32)>,
    symbols: Vec<(Symbol, Symbol)>,
}

impl<'p, 'g> Search<'p, 'g> {
    fn new(a: &'p Part<'g>, b: &'p Part<'g>, la: &'p Labels, lb: &'p Labels) -> Option<Self> {
        let mut candidates: BTreeMap<Label, Vec<u32>> = BTreeMap::new();
        for (label, i) in lb.ops.iter().zip(0..) {
            candidates.entry(*label).or_default().push(i);
        }
        let mut search = Search {
            a,
            b,
            labels: (la, lb),
            candidates,
            ops: Vec::new(),
            taken: vec![false; b.ops.len()],
            values: (vec![None; a.values.len()], vec![None; b.values.len()]),
            symbols: Default::default(),
            trials: MAX_TRIALS.saturating_mul(a.ops.len() + 1),
        };
        if a.ordered {
            let mut trail = Trail::default();
            let all = (0..a.inputs as u32).all(|n| search.bind(n, n, &mut trail));
            return all.then_some(search);
        }
        Some(search)
    }

    /// Finds an operation for every one of `a`.
    fn run(&mut self) -> Option<()> {
        // For every operation of `a` so far: which of its choices was taken, and what that bound.
        let mut steps: Vec<(usize, Trail)> = Vec::new();
        let mut choice = 0;
        while steps.len() < self.a.ops.len() {
            match self.step(steps.len(), choice)? {
                Some((taken, trail)) => {
                    steps.push((taken, trail));
                    choice = 0;
                }
                None => {
                    let (taken, trail) = steps.pop()?;
                    self.undo(trail);
                    let op = self.ops.pop()?;
                    self.taken[op as usize] = false;
                    choice = taken + 1;
                }
            }
        }
        Some(())
    }

    /// Takes the first choice for operation `i` of `a`, from this one on, that fits; the outer `None` gives up.
    ///
    /// Choice number 2k is candidate k with its operands in order, 2k + 1 with its two operands swapped.
    fn step(&mut self, i: usize, from: usize) -> Option<Option<(usize, Trail)>> {
        let label = self.labels.0.ops[i];
        let count = self.candidates.get(&label).map_or(0, Vec::len);
        for choice in from..2 * count {
            let j = self.candidates[&label][choice / 2];
            let swapped = choice % 2 == 1;
            if self.taken[j as usize] || (swapped && !is_commutative(self.a.ops[i].1)) {
                continue;
            }
            self.trials = self.trials.checked_sub(1)?;
            let mut trail = Trail::default();
            if self.pair(i, j as usize, swapped, &mut trail) {
                self.ops.push(j);
                self.taken[j as usize] = true;
                return Some(Some((choice, trail)));
            }
            self.undo(trail);
        }
        Some(None)
    }

    fn undo(&mut self, trail: Trail) {
        for (v, w) in trail.values {
            self.values.0[v as usize] = None;
            self.values.1[w as usize] = None;
        }
        for (s, t) in trail.symbols {
            self.symbols.0.remove(&s);
            self.symbols.1.remove(&t);
        }
    }

    /// Lets operation `j` of `b` stand for operation `i` of `a`.
    fn pair(&mut self, i: usize, j: usize, swapped: bool, trail: &mut Trail) -> bool {
        let (x, y) = (self.a.ops[i].1, self.b.ops[j].1);
        if x.kind != y.kind || x.operands.len() != y.operands.len() || x.results.len() != y.results.len() {
            return false;
        }
        let (a, b) = (self.a, self.b);
        let last = x.operands.len().saturating_sub(1);
        let operands = a.operands[i].iter().enumerate().map(|(k, v)| {
            let k = if swapped { last - k } else { k };
            (*v, b.operands[j][k])
        });
        let results = (0..x.results.len() as u32).map(|r| (a.first_result[i] + r, b.first_result[j] + r));
        operands.chain(results).all(|(v, w)| self.bind(v, w, trail)) && self.same_op(x, y, trail)
    }

    /// Lets value `w` of `b` stand for value `v` of `a`.
    fn bind(&mut self, v: u32, w: u32, trail: &mut Trail) -> bool {
        let (i, j) = (v as usize, w as usize);
        let (Some(known), Some(taken)) = (self.values.0.get(i), self.values.1.get(j)) else { return false };
        match (*known, *taken) {
            (Some(known), _) => known == w,
            (None, Some(_)) => false,
            (None, None) => {
                let inputs = (i < self.a.inputs, j < self.b.inputs);
                if inputs.0 != inputs.1 || self.labels.0.values[i] != self.labels.1.values[j] {
                    return false;
                }
                let (x, y) = (self.a.graph.ty(self.a.values[i]), self.b.graph.ty(self.b.values[j]));
                if self.a.leaves[i] != self.b.leaves[j] || !self.same_type(x, y, trail) {
                    return false;
                }
                self.values.0[i] = Some(w);
                self.values.1[j] = Some(v);
                trail.values.push((v, w));
                true
            }
        }
    }

    fn same_type(&mut self, x: &TensorType, y: &TensorType, trail: &mut Trail) -> bool {
        x.dtype == y.dtype && self.same_dims(&x.shape, &y.shape, trail)
    }

    fn same_dims(&mut self, x: &[Dim], y: &[Dim], trail: &mut Trail) -> bool {
        x.len() == y.len() && x.iter().zip(y).all(|(d, e)| self.same_dim(d, e, trail))
    }

    /// Binds symbols that stand alone; the rest is checked in the end.
    fn same_dim(&mut self, x: &Dim, y: &Dim, trail: &mut Trail) -> bool {
        match (x.as_symbol(), y.as_symbol()) {
            (Some(s), Some(t)) => match (self.symbols.0.get(s), self.symbols.1.get(t)) {
                (Some(known), _) => known == t,
                (None, Some(_)) => false,
                (None, None) => {
                    self.symbols.0.insert(s.clone(), t.clone());
                    self.symbols.1.insert(t.clone(), s.clone());
                    trail.symbols.push((s.clone(), t.clone()));
                    true
                }
            },
            (None, None) => x.as_const() == y.as_const(),
            _ => false,
        }
    }

    fn same_op(&mut self, x: &Op, y: &Op, trail: &mut Trail) -> bool {
        let names = |op: &Op| op.annotations.keys().cloned().collect::<Vec<_>>();
        if self.a.annotated && names(x) != names(y) {
            return false;
        }
        let (p, q) = (self.attrs(x), self.attrs(y));
        p.len() == q.len()
            && p.iter().zip(&q).all(|(a, b)| self.same_attr(a, b, trail))
            && x.regions.len() == y.regions.len()
    }

    /// What of an operation's attributes and annotations counts.
    fn attrs<'o>(&self, op: &'o Op) -> Vec<&'o Attr> {
        let annotations = op.annotations.values().filter(|_| self.a.annotated);
        counted_attrs(op).map(|(_, a)| a).chain(annotations).collect()
    }

    fn same_attr(&mut self, x: &Attr, y: &Attr, trail: &mut Trail) -> bool {
        match (x, y) {
            (Attr::Dim(d), Attr::Dim(e)) => self.same_dim(d, e, trail),
            (Attr::Dims(d), Attr::Dims(e)) => self.same_dims(d, e, trail),
            (Attr::Types(t), Attr::Types(u)) => {
                t.len() == u.len() && t.iter().zip(u).all(|(t, u)| self.same_type(t, u, trail))
            }
            _ => x == y,
        }
    }

    /// Binds the symbols that never stand alone, by their labels, and checks every size.
    fn symbols(&mut self) -> Option<()> {
        let unbound = |labels: &Labels, bound: &BTreeMap<Symbol, Symbol>| -> Vec<(Label, Symbol)> {
            let free = labels.symbols.iter().filter(|(s, _)| !bound.contains_key(*s));
            let mut free: Vec<(Label, Symbol)> = free.map(|(s, l)| (*l, s.clone())).collect();
            free.sort();
            free
        };
        let (free_a, free_b) =
            (unbound(self.labels.0, &self.symbols.0), unbound(self.labels.1, &self.symbols.1));
        if free_a.len() != free_b.len() {
            return None;
        }
        for ((_, s), (_, t)) in free_a.into_iter().zip(free_b) {
            self.symbols.0.insert(s.clone(), t.clone());
            self.symbols.1.insert(t, s);
        }
        let renamed = |s: &Symbol| self.symbols.0.get(s).map(|t| Dim::symbol(t.name()));
        let same = |d: &Dim, e: &Dim| d.as_const() == e.as_const() && d.substitute(&renamed) == *e;
        let types = |x: &TensorType, y: &TensorType| {
            x.dtype == y.dtype
                && x.shape.len() == y.shape.len()
                && x.shape.iter().zip(&y.shape).all(|(d, e)| same(d, e))
        };
        let values = self.pairs().all(|(_, v, w)| types(self.a.graph.ty(v), self.b.graph.ty(w)));
        let same_attr = |x: &Attr, y: &Attr| match (x, y) {
            (Attr::Dim(d), Attr::Dim(e)) => same(d, e),
            (Attr::Dims(d), Attr::Dims(e)) => d.iter().zip(e).all(|(d, e)| same(d, e)),
            (Attr::Types(t), Attr::Types(u)) => t.iter().zip(u).all(|(t, u)| types(t, u)),
            _ => true,
        };
        let ops = self.ops.iter().enumerate().all(|(i, j)| {
            let (x, y) = (self.a.ops[i].1, self.b.ops[*j as usize].1);
            let nested = |(r, s): (&Graph, &Graph)| self.same_nested(r, s);
            self.attrs(x).iter().zip(self.attrs(y)).all(|(a, b)| same_attr(a, b))
                && x.regions.iter().zip(&y.regions).all(nested)
        });
        (values && ops).then_some(())
    }

    /// Are regions of operations the same under these symbols?
    fn same_nested(&self, a: &Graph, b: &Graph) -> bool {
        let renamed =
            djinn_ir::walk::substitute(a, &|s| self.symbols.0.get(s).map(|t| Dim::symbol(t.name())));
        correspondence(&Part::body(&renamed), &Part::body(b)).is_some_and(|c| c.keeps_symbols())
    }

    /// Values that correspond, with their numbers.
    fn pairs(&self) -> impl Iterator<Item = (usize, ValueId, ValueId)> {
        let pair = |(v, w): (usize, &Option<u32>)| Some((v, self.a.values[v], self.b.values[(*w)? as usize]));
        self.values.0.iter().enumerate().filter_map(pair)
    }

    fn found(&self) -> Correspondence {
        let (inputs, results): (Vec<_>, Vec<_>) = self.pairs().partition(|(n, ..)| *n < self.a.inputs);
        let leaving = results.into_iter().filter(|(n, ..)| !self.a.leaves[*n].is_empty());
        let pair = |(_, v, w)| (v, w);
        Correspondence {
            ops: self
                .ops
                .iter()
                .enumerate()
                .map(|(i, j)| (self.a.ops[i].0, self.b.ops[*j as usize].0))
                .collect(),
            inputs: inputs.into_iter().map(pair).collect(),
            outputs: leaving.map(pair).collect(),
            symbols: self.symbols.0.clone(),
        }
    }
}
