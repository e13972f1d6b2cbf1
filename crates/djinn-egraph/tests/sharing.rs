//! Forms of weights that other bodies store: found in the e-graph, preferred by extraction, at a bounded cost.

use djinn_egraph::extraction::Extracted;
use djinn_egraph::forms::Forms;
use djinn_egraph::region::Region;
use djinn_egraph::rule::parse_rules;
use djinn_egraph::saturate::{Limits, saturate};
use djinn_ir::graph::Graph as Body;
use djinn_ir::{Attrs, DType, Dim, Module, OpKind, SymbolTable, TensorType, ValueId, attrs};
use std::collections::BTreeSet;

const MERGE: &str = r#"(siblings merge "Products of one value with weights are one." (class reassoc) (shared ?x)
  (from (matmul ?x ?w))
  (to (slice :axis 1 :start (before (dim ?w 1)) :limit (+ (before (dim ?w 1)) (dim ?w 1)) :stride 1
        (matmul ?x (concat :axis 1 ?w...))))
  (where (weight ?w) (not (is ?w concat)) (not (weight ?x)))
  (given (?x f32 (a 4)) (?w weight f32 (4 n))))"#;

/// A weight of 128 elements: more than a literal has.
fn weight(body: &mut Body, name: &str) -> ValueId {
    let types = vec![TensorType::of(DType::F32, &[4, 32])];
    body.build1(OpKind::Weight, &[], attrs! { name: name, types: types, hash: "" }).expect("well typed")
}

fn x(body: &mut Body) -> ValueId {
    body.add_argument(TensorType::new(DType::F32, [Dim::symbol("s"), Dim::from(4)]))
}

/// `x · a` and `x · b`, with weights or with arguments that are always weights.
fn products(arguments: bool) -> Body {
    let mut body = Body::new();
    let x = x(&mut body);
    let w = ["a", "b"].map(|name| match arguments {
        true => body.add_argument(TensorType::of(DType::F32, &[4, 32])),
        false => weight(&mut body, name),
    });
    body.results =
        w.iter().map(|w| body.build1(OpKind::MatMul, &[x, *w], Attrs::new()).expect("well typed")).collect();
    body
}

/// Ten for a product, two for everything else at run time: one product with two slices costs 14, two products 20.
fn cost(kind: OpKind, _: &Attrs, _: &[&TensorType], _: &[TensorType], ahead: bool) -> f64 {
    match kind {
        _ if ahead => 0.001,
        OpKind::MatMul => 10.0,
        _ => 2.0,
    }
}

/// The body chosen after `rules` where others store `forms`; `contexts` say what the arguments are.
fn chosen(
    body: &Body,
    rules: &str,
    forms: &Forms,
    contexts: &[Vec<Option<djinn_egraph::forms::FormId>>],
    tolerance: f64,
) -> Extracted {
    let rules = parse_rules("test.rw", rules).unwrap_or_else(|e| panic!("{e}"));
    let weights: BTreeSet<u32> = (1..body.arguments.len() as u32).collect();
    let mut region = Region::with_weight_arguments(body, &Module::default(), None, weights);
    saturate(&mut region.graph, &rules, &SymbolTable::default(), &Limits::default());
    let known = forms.known_in(&region.graph, contexts);
    let limits = djinn_extract::Limits::default();
    region.extract_sharing(&cost, &limits, &known, tolerance).expect("extracted")
}

fn count(body: &Body, kind: OpKind) -> usize {
    body.ops().filter(|(_, op)| op.kind == kind).count()
}

#[test]
fn weights_are_joined_unless_another_body_stores_them_apart() {
    let (body, outside) = (products(false), [vec![None]]);
    let merged = chosen(&body, MERGE, &Forms::default(), &outside, 1.0);
    assert_eq!(count(&merged.body, OpKind::MatMul), 1);
    let mut forms = Forms::default();
    forms.store(&body, &outside[0]);
    let shared = chosen(&body, MERGE, &forms, &outside, 1.0);
    assert_eq!((count(&shared.body, OpKind::MatMul), shared.storage.own), (2, 0.0));
    assert_eq!((shared.storage.own_of_cheapest, shared.storage.cheapest), (1024.0, merged.cost));
    assert!(shared.cost > merged.cost && shared.lower_bound <= merged.cost);
    // The other way round: what is stored is the joined weight.
    let mut forms = Forms::default();
    forms.store(&merged.body, &outside[0]);
    assert_eq!(chosen(&body, MERGE, &forms, &outside, 1.0).body.len(), merged.body.len());
}

#[test]
fn sharing_costs_no_more_than_it_may() {
    let (body, outside) = (products(false), [vec![None]]);
    let mut forms = Forms::default();
    forms.store(&body, &outside[0]);
    // Two products cost 20, one product and two slices 14.
    for (tolerance, products) in [(0.0, 1), (0.42, 1), (0.44, 2), (10.0, 2)] {
        let out = chosen(&body, MERGE, &forms, &outside, tolerance);
        assert_eq!(count(&out.body, OpKind::MatMul), products, "{tolerance}");
        assert!(out.cost <= out.storage.cheapest * (1.0 + tolerance) + 1e-6, "{tolerance}");
    }
}

#[test]
fn arguments_are_the_weights_that_callers_hand_over() {
    let (entry, callee) = (products(false), products(true));
    let mut forms = Forms::default();
    forms.store(&entry, &[None]);
    let values = forms.of_body(&entry, &[None]);
    let form = |name: &str| {
        let of = |op: &djinn_ir::Op| op.kind == OpKind::Weight && op.attrs.str("name") == name;
        let (_, op) = entry.ops().find(|(_, op)| of(op)).expect("there");
        values[op.results[0].0 as usize]
    };
    let (known, unknown) = (vec![None, form("a"), form("b")], vec![None, None, None]);
    assert!(known[1].is_some() && known[1] != known[2]);
    let products = |contexts: &[_]| {
        let out = chosen(&callee, MERGE, &forms, contexts, 0.5);
        (count(&out.body, OpKind::MatMul), out.storage.own)
    };
    assert_eq!(products(std::slice::from_ref(&known)), (2, 0.0));
    assert_eq!(products(std::slice::from_ref(&unknown)), (1, 0.0));
    // Half of the calls have nothing to gain, and the other half too little.
    assert_eq!(products(&[known, unknown]), (1, 1024.0));
}

#[test]
fn a_stored_form_is_computed_as_it_is_stored() {
    const FACTOR: &str = r#"(rule negs "The sum of negations is the negation of the sum." (class exact)
      (from (add (neg ?x) (neg ?y))) (to (neg (add ?x ?y))) (given (?x f32 (a)) (?y f32 (a))))"#;
    let mut body = Body::new();
    let x = x(&mut body);
    let (a, b) = (weight(&mut body, "a"), weight(&mut body, "b"));
    let negs = [a, b].map(|w| body.build1(OpKind::Neg, &[w], Attrs::new()).expect("well typed"));
    let sum = body.build1(OpKind::Add, &negs, Attrs::new()).expect("well typed");
    body.results = vec![body.build1(OpKind::MatMul, &[x, sum], Attrs::new()).expect("well typed")];
    let outside = [vec![None]];
    let alone = chosen(&body, FACTOR, &Forms::default(), &outside, 0.1);
    assert_eq!(count(&alone.body, OpKind::Neg), 1);
    let mut forms = Forms::default();
    forms.store(&body, &outside[0]);
    assert_eq!(count(&chosen(&body, FACTOR, &forms, &outside, 0.1).body, OpKind::Neg), 2);
}

#[test]
fn bodies_that_store_other_forms_are_told() {
    let body = products(false);
    let merged = chosen(&body, MERGE, &Forms::default(), &[vec![None]], 0.0).body;
    let mut forms = Forms::default();
    assert!(!forms.differs(&body, &[None]), "nothing is stored yet");
    forms.store(&body, &[None]);
    assert!(!forms.differs(&body, &[None]) && forms.differs(&merged, &[None]));
    let mut other = Body::new();
    let x = x(&mut other);
    let c = weight(&mut other, "c");
    other.results = vec![other.build1(OpKind::MatMul, &[x, c], Attrs::new()).expect("well typed")];
    assert!(!forms.differs(&other, &[None]), "weights of its own");
}
