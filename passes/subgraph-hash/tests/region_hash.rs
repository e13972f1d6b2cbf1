//! Hashes of regions on random graphs: what only looks different has one hash and is proved the same; what is
//! different has another one, as a search over all ways to pair the operations of small graphs finds.

use djinn_ir::{
    ArgumentKind, Attr, Attrs, DType, Dim, Function, Graph, Location, Op, OpId, OpKind, ResultKind, Symbol,
    TensorType, ValueId, Visibility, ops::traits, walk,
};
use djinn_subgraph_hash::{Correspondence, function_hash, region_hash, same_function, same_region};
use std::collections::BTreeMap;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }
}

fn push(g: &mut Graph, kind: OpKind, operands: Vec<ValueId>, attrs: Attrs, ty: TensorType) -> ValueId {
    let id = g.push(kind, operands, attrs, Vec::new(), vec![ty], Location::default());
    g.op(id).results[0]
}

fn dim(random: &mut Random) -> Dim {
    const SIZES: [&str; 6] = ["s0", "s1", "8", "2*s0", "s0 + 3*s1", "floordiv(s0 + 1, 2)"];
    SIZES[random.below(SIZES.len())].parse().expect("a size")
}

/// A graph of these many operations; with few kinds and types, so that much of it looks alike.
fn graph(random: &mut Random, ops: usize, plain: bool) -> Graph {
    let mut g = Graph::new();
    let plain_type = TensorType::of(DType::F32, &[8]);
    let ty = |random: &mut Random| match plain {
        true => plain_type.clone(),
        false => TensorType::new([DType::F32, DType::F16][random.below(2)], [dim(random), Dim::from(4)]),
    };
    let mut values: Vec<ValueId> = (0..2 + random.below(2)).map(|_| g.add_argument(ty(random))).collect();
    for i in 0..ops {
        let pick = |random: &mut Random| values[values.len() - 1 - random.below(values.len().min(5))];
        let (x, y) = (pick(random), pick(random));
        let t = ty(random);
        values.push(match random.below(if plain { 4 } else { 8 }) {
            0 => push(&mut g, OpKind::Add, vec![x, y], Attrs::new(), t),
            1 => push(&mut g, OpKind::Sub, vec![x, y], Attrs::new(), t),
            2 => push(&mut g, OpKind::Exp, vec![x], Attrs::new(), t),
            3 => push(&mut g, OpKind::Mul, vec![x, y], Attrs::new(), t),
            4 => {
                let attrs = Attrs::new().with("alpha", random.below(3) as f64);
                push(&mut g, OpKind::LeakyRelu, vec![x], attrs, t)
            }
            5 => {
                let attrs = Attrs::new().with("shape", vec![dim(random), dim(random)]);
                push(&mut g, OpKind::Reshape, vec![x], attrs, t)
            }
            6 => {
                let attrs = Attrs::new().with("name", format!("w{i}")).with("hash", "");
                push(&mut g, OpKind::Weight, vec![], attrs.with("types", vec![t.clone()]), t)
            }
            _ => push(&mut g, OpKind::MatMul, vec![x, y], Attrs::new(), t),
        });
        if random.below(4) == 0 {
            g.annotate(OpId(i as u32), "phase", "forward");
        }
    }
    g.results = vec![values[values.len() - 1]];
    g
}

fn commutative(op: &Op) -> bool {
    op.kind.def().has(traits::COMMUTATIVE) && op.operands.len() == 2
}

/// The graph with operations in another order, operands of commutative operations swapped, and other names of symbols
/// and weights.
fn disguised(g: &Graph, random: &mut Random) -> Graph {
    let names = [("s0", "zeta"), ("s1", "alpha")];
    let g = &walk::substitute(g, &|s: &Symbol| {
        names.iter().find(|(old, _)| *old == s.name()).map(|(_, new)| Dim::symbol(new))
    });
    let mut out = Graph::new();
    let mut values: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for v in &g.arguments {
        values.insert(*v, out.add_argument(g.ty(*v).clone()));
    }
    let mut left: Vec<OpId> = g.ops().map(|(id, _)| id).collect();
    while !left.is_empty() {
        let ready: Vec<usize> = (0..left.len())
            .filter(|i| g.op(left[*i]).operands.iter().all(|v| values.contains_key(v)))
            .collect();
        let op = g.op(left.remove(ready[random.below(ready.len())]));
        let mut operands: Vec<ValueId> = op.operands.iter().map(|v| values[v]).collect();
        if commutative(op) && random.below(2) == 0 {
            operands.swap(0, 1);
        }
        let attrs = match op.kind {
            OpKind::Weight => op.attrs.clone().with("name", format!("other{}", random.below(1 << 20))),
            _ => op.attrs.clone(),
        };
        let types = op.results.iter().map(|v| g.ty(*v).clone()).collect();
        let location = Location { scope: Some("elsewhere".into()), source: None };
        let id = out.push(op.kind, operands, attrs, Vec::new(), types, location);
        for (name, value) in &op.annotations {
            out.annotate(id, name, value.clone());
        }
        for (old, new) in op.results.iter().zip(out.op(id).results.clone()) {
            values.insert(*old, new);
        }
    }
    out.results = g.results.iter().map(|v| values[v]).collect();
    out
}

fn all(g: &Graph) -> Vec<OpId> {
    g.ops().map(|(id, _)| id).collect()
}

fn function(graph: Graph) -> Function {
    let arguments = graph.arguments.iter().map(|_| ("x".into(), ArgumentKind::Input)).collect();
    let results = graph.results.iter().map(|_| ("y".into(), ResultKind::Output)).collect();
    Function { name: "f".into(), visibility: Visibility::Entry, graph, arguments, results }
}

/// Does the correspondence say what it claims?
fn check(a: &Graph, b: &Graph, found: &Correspondence) {
    let mut values: BTreeMap<ValueId, ValueId> = found.inputs.iter().copied().collect();
    for (x, y) in &found.ops {
        let (x, y) = (a.op(*x), b.op(*y));
        assert_eq!((x.kind, x.operands.len()), (y.kind, y.operands.len()));
        values.extend(x.results.iter().copied().zip(y.results.iter().copied()));
    }
    for (x, y) in &found.ops {
        let (x, y) = (a.op(*x), b.op(*y));
        let mapped: Vec<ValueId> = x.operands.iter().map(|v| values[v]).collect();
        let swapped: Vec<ValueId> = mapped.iter().rev().copied().collect();
        assert!(mapped == y.operands || commutative(x) && swapped == y.operands);
    }
    let renamed = |s: &Symbol| found.symbols.get(s).map(|t| Dim::symbol(t.name()));
    for (v, w) in &values {
        let ty = TensorType::new(a.ty(*v).dtype, a.ty(*v).shape.iter().map(|d| d.substitute(&renamed)));
        assert_eq!(ty, *b.ty(*w));
    }
    for (v, w) in &found.outputs {
        assert_eq!(values[v], *w);
    }
}

#[test]
fn disguises_change_no_hash() {
    let mut random = Random(1);
    for round in 0..400 {
        let size = 1 + random.below(30);
        let g = graph(&mut random, size, round % 2 == 0);
        let other = disguised(&g, &mut random);
        assert_eq!(region_hash(&g, &all(&g)), region_hash(&other, &all(&other)), "round {round}");
        let found = same_region((&g, &all(&g)), (&other, &all(&other))).expect("the same");
        assert_eq!(found.ops.len(), size);
        check(&g, &other, &found);
        let (f, h) = (function(g), function(other));
        assert_eq!(function_hash(&f), function_hash(&h), "round {round}");
        check(&f.graph, &h.graph, &same_function(&f, &h).expect("the same"));
    }
}

#[test]
fn a_region_is_the_same_wherever_it_stands() {
    let mut random = Random(2);
    for _ in 0..100 {
        let layer = graph(&mut random, 8, false);
        // The layer twice in one graph, on values of its own each.
        let mut g = Graph::new();
        let mut regions = Vec::new();
        for _ in 0..2 {
            let mut values: BTreeMap<ValueId, ValueId> = BTreeMap::new();
            for v in &layer.arguments {
                values.insert(*v, g.add_argument(layer.ty(*v).clone()));
            }
            let mut ids = Vec::new();
            for (_, op) in layer.ops() {
                let operands = op.operands.iter().map(|v| values[v]).collect();
                let ty = layer.ty(op.results[0]).clone();
                let id = g.push(op.kind, operands, op.attrs.clone(), vec![], vec![ty], Location::default());
                op.annotations.iter().for_each(|(n, a)| g.annotate(id, n, a.clone()));
                values.insert(op.results[0], g.op(id).results[0]);
                ids.push(id);
            }
            g.results.push(values[&layer.results[0]]);
            regions.push(ids);
        }
        let mut reversed = regions[1].clone();
        reversed.reverse();
        assert_eq!(region_hash(&g, &regions[0]), region_hash(&g, &reversed));
        let found = same_region((&g, &regions[0]), (&g, &reversed)).expect("the same");
        assert!(found.keeps_symbols());
        check(&g, &g, &found);
    }
}

/// One random change of an attribute, a type, an annotation, a kind or an operand.
fn changed(g: &Graph, random: &mut Random) -> Graph {
    let victim = random.below(g.len());
    let what = random.below(5);
    let mut out = Graph::new();
    let mut values: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for v in &g.arguments {
        values.insert(*v, out.add_argument(g.ty(*v).clone()));
    }
    for (i, (_, op)) in g.ops().enumerate() {
        let (mut kind, mut attrs, mut ty) = (op.kind, op.attrs.clone(), g.ty(op.results[0]).clone());
        let mut operands: Vec<ValueId> = op.operands.iter().map(|v| values[v]).collect();
        let known: Vec<ValueId> = values.values().copied().collect();
        match (i == victim, what) {
            (true, 0) => ty.dtype = if ty.dtype == DType::F32 { DType::F16 } else { DType::F32 },
            (true, 1) => ty.shape.push(Dim::from(1)),
            (true, 2) if !operands.is_empty() => {
                let at = random.below(operands.len());
                operands[at] = known[random.below(known.len())];
            }
            (true, 3) => {
                kind = match kind {
                    OpKind::Add => OpKind::Sub,
                    OpKind::Sub => OpKind::Mul,
                    OpKind::LeakyRelu => {
                        attrs.set("alpha", 7.5);
                        kind
                    }
                    OpKind::Reshape => {
                        attrs.set("shape", Attr::Dims(vec![Dim::from(1)]));
                        kind
                    }
                    other => other,
                }
            }
            _ => {}
        }
        let id = out.push(kind, operands, attrs, vec![], vec![ty], Location::default());
        op.annotations.iter().for_each(|(n, a)| out.annotate(id, n, a.clone()));
        if i == victim && what == 4 {
            out.annotate(id, "device", "gpu0");
        }
        values.insert(op.results[0], out.op(id).results[0]);
    }
    out.results = g.results.iter().map(|v| values[v]).collect();
    out
}

/// Is there any way to pair the operations? Tries them all. For graphs without symbols.
fn isomorphic(a: &Graph, b: &Graph) -> bool {
    fn extend(
        a: &Graph,
        b: &Graph,
        order: &[OpId],
        values: &mut BTreeMap<ValueId, ValueId>,
        taken: &mut Vec<OpId>,
    ) -> bool {
        let Some((first, rest)) = order.split_first() else {
            return a.results.iter().zip(&b.results).all(|(v, w)| values.get(v) == Some(w));
        };
        let x = a.op(*first);
        for (id, y) in b.ops().filter(|(_, y)| y.kind == x.kind && y.operands.len() == x.operands.len()) {
            let alike = x.attrs == y.attrs
                && x.annotations == y.annotations
                && a.ty(x.results[0]) == b.ty(y.results[0]);
            if taken.contains(&id) || !alike {
                continue;
            }
            let swapped: Vec<ValueId> = y.operands.iter().rev().copied().collect();
            for operands in [y.operands.clone(), swapped].iter().take(if commutative(x) { 2 } else { 1 }) {
                let before = values.clone();
                let bound = x.operands.iter().zip(operands).all(|(v, w)| match values.get(v) {
                    Some(known) => known == w,
                    None => {
                        let free = a.is_argument(*v)
                            && b.is_argument(*w)
                            && a.ty(*v) == b.ty(*w)
                            && !values.values().any(|known| known == w);
                        free && values.insert(*v, *w).is_none()
                    }
                });
                values.insert(x.results[0], y.results[0]);
                taken.push(id);
                if bound && extend(a, b, rest, values, taken) {
                    return true;
                }
                taken.pop();
                *values = before;
            }
        }
        false
    }
    a.len() == b.len() && extend(a, b, &all(a), &mut BTreeMap::new(), &mut Vec::new())
}

#[test]
fn hashes_agree_with_a_search_over_all_pairings() {
    let mut random = Random(3);
    let (mut same, mut different) = (0, 0);
    for round in 0..3000 {
        let size = 2 + random.below(5);
        let g = graph(&mut random, size, true);
        let other = changed(&disguised(&g, &mut random), &mut random);
        let expected = isomorphic(&g, &other);
        let equal = region_hash(&g, &all(&g)) == region_hash(&other, &all(&other));
        assert_eq!(equal, expected, "round {round}");
        assert_eq!(same_region((&g, &all(&g)), (&other, &all(&other))).is_some(), expected);
        *if expected { &mut same } else { &mut different } += 1;
    }
    assert!(same > 300 && different > 300, "{same} {different}");
}

#[test]
fn changes_change_the_hash() {
    let mut random = Random(4);
    for round in 0..600 {
        let size = 3 + random.below(20);
        let g = graph(&mut random, size, false);
        let other = changed(&g, &mut random);
        let (a, b) = (region_hash(&g, &all(&g)), region_hash(&other, &all(&other)));
        // The change may be none; then the proof says so.
        let same = same_region((&g, &all(&g)), (&other, &all(&other)));
        assert_eq!(a == b, same.is_some(), "round {round}");
        if let Some(found) = same {
            check(&g, &other, &found);
        }
    }
}

#[test]
fn symmetric_regions_are_told_apart() {
    // Two small circles and a large one, as an example of what refinement alone cannot tell apart.
    let circle = |crossed: bool| {
        let mut g = Graph::new();
        let ty = TensorType::of(DType::F32, &[8]);
        let inputs = [g.add_argument(ty.clone()), g.add_argument(ty.clone())];
        for i in 0..2 {
            let a = push(&mut g, OpKind::Exp, vec![inputs[i]], Attrs::new(), ty.clone());
            let other = inputs[if crossed { 1 - i } else { i }];
            let b = push(&mut g, OpKind::Relu, vec![other], Attrs::new(), ty.clone());
            let c = push(&mut g, OpKind::Sub, vec![a, b], Attrs::new(), ty.clone());
            g.results.push(c);
        }
        g
    };
    let (small, large) = (circle(false), circle(true));
    assert_ne!(region_hash(&small, &all(&small)), region_hash(&large, &all(&large)));
    assert!(same_region((&small, &all(&small)), (&large, &all(&large))).is_none());
    assert!(same_region((&small, &all(&small)), (&small, &all(&small))).is_some());
}

#[test]
fn inputs_have_a_place_in_functions_only() {
    let make = |swapped: bool| {
        let mut g = Graph::new();
        let ty = TensorType::of(DType::F32, &[8]);
        let (x, y) = (g.add_argument(ty.clone()), g.add_argument(ty.clone()));
        let operands = if swapped { vec![y, x] } else { vec![x, y] };
        g.results = vec![push(&mut g, OpKind::Sub, operands, Attrs::new(), ty)];
        g
    };
    let (a, b) = (make(false), make(true));
    assert_eq!(region_hash(&a, &all(&a)), region_hash(&b, &all(&b)));
    let (f, h) = (function(a), function(b));
    assert_ne!(function_hash(&f), function_hash(&h));
    assert!(same_function(&f, &h).is_none());
}

#[test]
fn regions_of_operations_count_under_their_symbols() {
    let make = |symbol: &str, inner: OpKind, pushed_first: bool| {
        let mut g = Graph::new();
        let ty = TensorType::new(DType::F32, [Dim::symbol(symbol)]);
        let c = g.add_argument(TensorType::scalar(DType::Bool));
        let x = g.add_argument(ty.clone());
        let region = |kind: OpKind| {
            let mut r = Graph::new();
            let x = r.add_argument(ty.clone());
            let (first, second) = if pushed_first { (kind, OpKind::Exp) } else { (OpKind::Exp, kind) };
            let a = push(&mut r, first, vec![x], Attrs::new(), ty.clone());
            let b = push(&mut r, second, vec![x], Attrs::new(), ty.clone());
            r.results = vec![push(&mut r, OpKind::Add, vec![a, b], Attrs::new(), ty.clone())];
            r
        };
        let regions = vec![region(inner), region(OpKind::Neg)];
        let id = g.push(OpKind::If, vec![c, x], Attrs::new(), regions, vec![ty.clone()], Location::default());
        g.results = g.op(id).results.clone();
        g
    };
    let hash = |g: &Graph| region_hash(g, &all(g));
    let a = make("s", OpKind::Relu, true);
    for b in [make("t", OpKind::Relu, true), make("s", OpKind::Relu, false)] {
        assert_eq!(hash(&a), hash(&b));
        assert!(same_region((&a, &all(&a)), (&b, &all(&b))).is_some());
    }
    let b = make("s", OpKind::Abs, true);
    assert_ne!(hash(&a), hash(&b));
    assert!(same_region((&a, &all(&a)), (&b, &all(&b))).is_none());
}

#[test]
fn foreign_numbers_and_empty_regions_are_harmless() {
    let g = graph(&mut Random(5), 4, true);
    assert_eq!(region_hash(&g, &[]), region_hash(&Graph::new(), &[OpId(u32::MAX - 1)]));
    assert!(same_region((&g, &[]), (&g, &[OpId(99)])).is_some());
}
