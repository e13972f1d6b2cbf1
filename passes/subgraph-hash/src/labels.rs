//! Labels of operations and values that say how they are connected, whatever they are called.
//!
//! Labels are refined as Weisfeiler and Leman do ("The reduction of a graph to canonical form", 1968), but along the
//! order of execution, so that three passes see the whole region: what a value is made of, what is made of it, and what
//! it is made of again, now that inputs differ by their uses. What has the same place in two regions has the same label;
//! the converse holds but for regions of high symmetry.

use djinn_ir::ops::traits;
use djinn_ir::{Attr, Dim, Graph, Op, OpId, OpKind, Symbol, TensorType, ValueId};
use std::collections::{BTreeMap, HashMap};

/// A label, or a sum of labels where order does not count (AdHash of Bellare and Micciancio, Eurocrypt 1997).
pub(crate) type Label = u128;

/// Seeds that look alike times operations, at most, for which seeds are told apart one by one.
const MAX_SYMMETRY_WORK: usize = 1 << 16;

/// Some operations of a graph: values are numbered, inputs first.
pub(crate) struct Part<'g> {
    pub graph: &'g Graph,
    /// The operations, in order of execution.
    pub ops: Vec<(OpId, &'g Op)>,
    /// The values, by number: inputs in order of first use (or of the arguments), then results.
    pub values: Vec<ValueId>,
    /// How many of the values are inputs.
    pub inputs: usize,
    /// For every value, the places at which it leaves the part: 0 if places do not count.
    pub leaves: Vec<Vec<u32>>,
    /// Do inputs and results have places?
    pub ordered: bool,
    /// Do annotations count?
    pub annotated: bool,
    /// Of inputs, by number, what they are if their value counts.
    pub literals: BTreeMap<u32, Label>,
    /// Operands of each operation, by number of the value.
    pub operands: Vec<Vec<u32>>,
    /// Number of the first result of each operation.
    pub first_result: Vec<u32>,
}

/// Labels of a part.
pub(crate) struct Labels {
    /// By number of the value.
    pub values: Vec<Label>,
    /// By position of the operation.
    pub ops: Vec<Label>,
    /// Of symbols.
    pub symbols: BTreeMap<Symbol, Label>,
    /// Of the whole part.
    pub whole: Label,
}

impl<'g> Part<'g> {
    /// These operations of a graph; what is used outside of them leaves the part.
    pub(crate) fn region(graph: &'g Graph, ops: &[OpId]) -> Part<'g> {
        let known = || ops.iter().filter(|id| graph.get_op(**id).is_some()).map(|id| id.0 as usize);
        let mut wanted = vec![false; known().max().map_or(0, |most| most + 1)];
        known().for_each(|i| wanted[i] = true);
        let is_wanted = |id: OpId| wanted.get(id.0 as usize).copied().unwrap_or(false);
        let mut part = Part::empty(graph, false);
        part.ops = graph.ops().filter(|(id, _)| is_wanted(*id)).collect();
        let numbers = part.number();
        let outside = graph.ops().filter(|(id, _)| !is_wanted(*id)).flat_map(|(_, op)| &op.operands);
        for v in outside.chain(&graph.results) {
            if let Some(n) = numbers.get(v).filter(|n| **n as usize >= part.inputs) {
                part.leaves[*n as usize] = vec![0];
            }
        }
        part
    }

    /// What an engine holds of these operations: not what is known ahead of time, of which literals of up to
    /// `most` elements count by value; annotations do not count.
    pub(crate) fn engine(graph: &'g Graph, ops: &[OpId], most: usize) -> Part<'g> {
        let ahead = djinn_ir::walk::ahead_of_time(graph, |_| false);
        let runs = |id: &OpId| {
            let results = graph.get_op(*id).map_or(&[][..], |op| &op.results);
            results.is_empty() || !results.iter().all(|v| ahead[v.0 as usize])
        };
        let ops: Vec<OpId> = ops.iter().copied().filter(runs).collect();
        let mut part = Part::region(graph, &ops);
        part.annotated = false;
        for (number, v) in (0u32..).zip(&part.values[..part.inputs]) {
            let literal =
                graph.definition(*v).map(|(id, _)| graph.op(id)).filter(|op| op.kind == OpKind::Constant);
            if let Some(value) = literal.and_then(|op| op.attrs.get("value"))
                && matches!(value, Attr::Tensor(data) if data.numel() <= most)
            {
                part.literals.insert(number, attr_label(value, &|_| 0));
            }
        }
        part
    }

    /// A whole body: its arguments and results have places.
    pub(crate) fn body(graph: &'g Graph) -> Part<'g> {
        let mut part = Part::empty(graph, true);
        part.ops = graph.ops().collect();
        part.values.clone_from(&graph.arguments);
        let numbers = part.number();
        for (place, v) in graph.results.iter().enumerate() {
            if let Some(n) = numbers.get(v) {
                part.leaves[*n as usize].push(place as u32 + 1);
            }
        }
        part
    }

    fn empty(graph: &'g Graph, ordered: bool) -> Part<'g> {
        Part {
            graph,
            ops: Vec::new(),
            values: Vec::new(),
            inputs: 0,
            leaves: Vec::new(),
            ordered,
            annotated: true,
            literals: BTreeMap::new(),
            operands: Vec::new(),
            first_result: Vec::new(),
        }
    }

    /// Numbers the values.
    fn number(&mut self) -> HashMap<ValueId, u32> {
        let mut inside: HashMap<ValueId, ()> = HashMap::new();
        inside.extend(self.ops.iter().flat_map(|(_, op)| &op.results).map(|v| (*v, ())));
        let mut numbers: HashMap<ValueId, u32> = self.values.iter().zip(0..).map(|(v, n)| (*v, n)).collect();
        for v in self.ops.iter().flat_map(|(_, op)| &op.operands) {
            if !inside.contains_key(v) && !numbers.contains_key(v) {
                numbers.insert(*v, self.values.len() as u32);
                self.values.push(*v);
            }
        }
        self.inputs = self.values.len();
        for (_, op) in &self.ops {
            self.first_result.push(self.values.len() as u32);
            for v in &op.results {
                numbers.insert(*v, self.values.len() as u32);
                self.values.push(*v);
            }
        }
        let number = |v: &ValueId| numbers.get(v).copied().unwrap_or(u32::MAX);
        self.operands = self.ops.iter().map(|(_, op)| op.operands.iter().map(number).collect()).collect();
        self.leaves = vec![Vec::new(); self.values.len()];
        numbers
    }

    /// The labels, where symbols are told apart by their places.
    pub(crate) fn labels(&self) -> Labels {
        let nameless = |_: &Symbol| 1;
        let mut labels = self.labels_with(&nameless);
        let mut places: BTreeMap<Symbol, Label> = BTreeMap::new();
        self.place_symbols(&labels, &mut places);
        if !places.is_empty() {
            let symbols: BTreeMap<Symbol, Label> =
                places.into_iter().map(|(s, place)| (s, join("symbol", &[place]))).collect();
            labels = self.labels_with(&|s| symbols.get(s).copied().unwrap_or(0));
            labels.symbols = symbols;
        }
        labels
    }

    /// The labels, where a symbol is what `symbol` says.
    fn labels_with(&self, symbol: &dyn Fn(&Symbol) -> Label) -> Labels {
        let own: Vec<Label> =
            self.ops.iter().map(|(_, op)| own_label(self.graph, op, self.annotated, symbol)).collect();
        let types: Vec<Label> = self.values[..self.inputs]
            .iter()
            .enumerate()
            .map(|(i, v)| {
                let place = if self.ordered { i as u128 + 1 } else { 0 };
                let literal = self.literals.get(&(i as u32)).copied().unwrap_or(0);
                join("input", &[type_label(self.graph.ty(*v), symbol), place, literal])
            })
            .collect();
        let made = self.upwards(&own, &types, None);
        let uses = self.downwards(&own, &made);
        let seeds: Vec<Label> = types.iter().zip(&uses).map(|(t, u)| join("used", &[*t, *u])).collect();
        let values = self.upwards(&own, &seeds, Some(&uses));
        let op = |(i, first): (usize, &u32)| {
            let results = self.ops[i].1.results.len();
            let mut parts = vec![own[i]];
            parts.extend(&values[*first as usize..*first as usize + results]);
            join("op", &parts)
        };
        let ops: Vec<Label> = self.first_result.iter().enumerate().map(op).collect();
        let mut whole = vec![self.inputs as u128, self.ops.len() as u128, sum(&values), sum(&ops)];
        whole.push(self.symmetry(&own, &seeds, &uses, &values));
        Labels { values, ops, symbols: BTreeMap::new(), whole: join("whole", &whole) }
    }

    /// What each value is made of, given what the inputs are.
    fn upwards(&self, own: &[Label], inputs: &[Label], uses: Option<&[Label]>) -> Vec<Label> {
        let mut labels = inputs.to_vec();
        labels.resize(self.values.len(), 0);
        let mut parts = Vec::new();
        for (i, (_, op)) in self.ops.iter().enumerate() {
            parts.clear();
            parts.push(own[i]);
            let of = |n: &u32| labels.get(*n as usize).copied().unwrap_or(0);
            if is_commutative(op) {
                parts.push(self.operands[i].iter().map(of).fold(0, u128::wrapping_add));
            } else {
                parts.extend(self.operands[i].iter().map(of));
            }
            let made = join("made", &parts);
            for r in 0..op.results.len() {
                let n = self.first_result[i] as usize + r;
                labels[n] = join("result", &[made, r as u128, uses.map_or(0, |u| u[n])]);
            }
        }
        labels
    }

    /// What is made of each value, given what each is made of.
    fn downwards(&self, own: &[Label], made: &[Label]) -> Vec<Label> {
        let leaving = |(n, places): (usize, &Vec<u32>)| {
            let place = |p: &u32| join("leaves", &[u128::from(*p), made[n]]);
            places.iter().map(place).fold(0, u128::wrapping_add)
        };
        let mut uses: Vec<Label> = self.leaves.iter().enumerate().map(leaving).collect();
        for (i, (_, op)) in self.ops.iter().enumerate().rev() {
            let first = self.first_result[i] as usize;
            let mut parts = vec![own[i]];
            for n in first..first + op.results.len() {
                parts.extend([made[n], uses[n]]);
            }
            let user = join("user", &parts);
            for (j, n) in self.operands[i].iter().enumerate() {
                let place = if is_commutative(op) { 0 } else { j as u128 };
                if let Some(slot) = uses.get_mut(*n as usize) {
                    *slot = slot.wrapping_add(join("use", &[user, place]));
                }
            }
        }
        uses
    }

    /// Tells apart parts that only look alike because inputs or sources in them do: each of those is marked once.
    fn symmetry(&self, own: &[Label], inputs: &[Label], uses: &[Label], values: &[Label]) -> Label {
        let sources = (0..self.ops.len()).filter(|i| self.operands[*i].is_empty());
        let seeds: Vec<usize> =
            (0..self.inputs).chain(sources.map(|i| self.first_result[i] as usize)).collect();
        let mut alike: BTreeMap<Label, Vec<usize>> = BTreeMap::new();
        for n in seeds.into_iter().filter(|n| *n < values.len()) {
            alike.entry(values[n]).or_default().push(n);
        }
        alike.retain(|_, seeds| seeds.len() > 1);
        let work = alike.values().map(Vec::len).sum::<usize>().saturating_mul(self.ops.len());
        if work > MAX_SYMMETRY_WORK {
            return 0;
        }
        let marked = |n: &usize| {
            let (mut inputs, mut uses) = (inputs.to_vec(), uses.to_vec());
            match inputs.get_mut(*n) {
                Some(input) => *input = join("marked", &[*input]),
                None => uses[*n] = join("marked", &[uses[*n]]),
            }
            join("symmetry", &[sum(&self.upwards(own, &inputs, Some(&uses)))])
        };
        alike.values().flatten().map(marked).fold(0, u128::wrapping_add)
    }

    /// Adds up for every symbol where it occurs.
    fn place_symbols(&self, labels: &Labels, places: &mut BTreeMap<Symbol, Label>) {
        let mut note = |dim: &Dim, place: &[Label]| {
            dim.visit_symbols(&mut |s| {
                let marked = |other: &Symbol| if other == s { 2 } else { 1 };
                let mut parts = vec![dim.structure(&marked, &join)];
                parts.extend(place);
                let slot = places.entry(s.clone()).or_default();
                *slot = slot.wrapping_add(join("occurs", &parts));
            });
        };
        for (n, v) in self.values.iter().enumerate() {
            for (axis, dim) in self.graph.ty(*v).shape.iter().enumerate() {
                note(dim, &[labels.values[n], axis as u128]);
            }
        }
        for ((_, op), label) in self.ops.iter().zip(&labels.ops) {
            let attrs = op.attrs.iter().map(|(_, a)| a).chain(op.annotations.values());
            for (i, attr) in attrs.enumerate() {
                for_each_dim(attr, &mut |j, dim| note(dim, &[*label, i as u128, j as u128]));
            }
            for (i, region) in op.regions.iter().enumerate() {
                djinn_ir::walk::for_each_dim(region, &mut |dim| note(dim, &[*label, i as u128]));
            }
        }
    }
}

pub(crate) fn is_commutative(op: &Op) -> bool {
    op.kind.def().has(traits::COMMUTATIVE) && op.operands.len() == 2
}

/// Attributes that count: of a weight neither name nor content does.
pub(crate) fn counted_attrs(op: &Op) -> impl Iterator<Item = (&str, &Attr)> {
    let is_weight = op.kind == OpKind::Weight;
    op.attrs.iter().filter(move |(name, _)| !is_weight || *name == "types")
}

/// Calls `visit` with every size in an attribute and its number there.
fn for_each_dim(attr: &Attr, visit: &mut dyn FnMut(usize, &Dim)) {
    match attr {
        Attr::Dim(d) => visit(0, d),
        Attr::Dims(dims) => dims.iter().enumerate().for_each(|(i, d)| visit(i, d)),
        Attr::Types(types) => {
            types.iter().flat_map(|t| &t.shape).enumerate().for_each(|(i, d)| visit(i, d));
        }
        Attr::Int(_)
        | Attr::Float(_)
        | Attr::Bool(_)
        | Attr::Str(_)
        | Attr::Ints(_)
        | Attr::Floats(_)
        | Attr::DType(_)
        | Attr::Tensor(_) => {}
    }
}

/// One label for several, in order.
pub(crate) fn join(tag: &'static str, parts: &[Label]) -> Label {
    let mut h = blake3::Hasher::new();
    h.update(tag.as_bytes());
    h.update(&[0xff]);
    parts.iter().for_each(|p| {
        h.update(&p.to_le_bytes());
    });
    first_half(&h)
}

fn first_half(h: &blake3::Hasher) -> Label {
    let mut out = [0u8; 16];
    out.copy_from_slice(&h.finalize().as_bytes()[..16]);
    u128::from_le_bytes(out)
}

fn text_label(text: &str) -> Label {
    let mut h = blake3::Hasher::new();
    h.update(text.as_bytes());
    first_half(&h)
}

fn sum(labels: &[Label]) -> Label {
    labels.iter().fold(0, |a, b| a.wrapping_add(join("one", &[*b])))
}

fn type_label(ty: &TensorType, symbol: &dyn Fn(&Symbol) -> Label) -> Label {
    let mut parts = vec![text_label(ty.dtype.mlir())];
    parts.extend(ty.shape.iter().map(|d| dim_label(d, symbol)));
    join("type", &parts)
}

fn dim_label(dim: &Dim, symbol: &dyn Fn(&Symbol) -> Label) -> Label {
    match dim.as_const() {
        // Constants are most sizes by far; no hash is as large as these.
        Some(c) => c as u64 as u128,
        None => dim.structure(symbol, &join),
    }
}

/// What an operation is, by itself.
fn own_label(graph: &Graph, op: &Op, annotated: bool, symbol: &dyn Fn(&Symbol) -> Label) -> Label {
    let mut parts = vec![text_label(op.kind.name()), op.operands.len() as u128];
    parts.extend(counted_attrs(op).map(|(_, a)| attr_label(a, symbol)));
    for (name, a) in op.annotations.iter().filter(|_| annotated) {
        parts.extend([text_label(name), attr_label(a, symbol)]);
    }
    parts.extend(op.results.iter().map(|v| type_label(graph.ty(*v), symbol)));
    parts.extend(op.regions.iter().map(|r| Part::body(r).labels_with(symbol).whole));
    join("own", &parts)
}

fn attr_label(attr: &Attr, symbol: &dyn Fn(&Symbol) -> Label) -> Label {
    let dims = |dims: &[Dim]| dims.iter().map(|d| dim_label(d, symbol)).collect::<Vec<_>>();
    match attr {
        Attr::Int(v) => join("int", &[*v as u128]),
        Attr::Float(v) => join("float", &[u128::from(v.get().to_bits())]),
        Attr::Bool(v) => join("bool", &[u128::from(*v)]),
        Attr::Str(v) => join("str", &[text_label(v)]),
        Attr::Ints(v) => join("ints", &v.iter().map(|v| *v as u128).collect::<Vec<_>>()),
        Attr::Floats(v) => {
            join("floats", &v.iter().map(|v| u128::from(v.get().to_bits())).collect::<Vec<_>>())
        }
        Attr::Dim(v) => join("dim", &[dim_label(v, symbol)]),
        Attr::Dims(v) => join("dims", &dims(v)),
        Attr::DType(v) => join("dtype", &[text_label(v.mlir())]),
        Attr::Types(v) => join("types", &v.iter().map(|t| type_label(t, symbol)).collect::<Vec<_>>()),
        Attr::Tensor(v) => join("tensor", &[u128::from_le_bytes(v.content_hash().0)]),
    }
}
