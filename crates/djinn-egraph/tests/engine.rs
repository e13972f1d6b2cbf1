//! The engine on small bodies: matching, limits, counters, fuel, extraction.

use djinn_egraph::region::Region;
use djinn_egraph::rule::{Rule, parse_rules};
use djinn_egraph::saturate::{Limits, StopReason, saturate};
use djinn_ir::graph::Graph as Body;
use djinn_ir::{Attrs, DType, Dim, Module, OpKind, SymbolTable, TensorData, TensorType, ValueId, attrs};

fn rules(text: &str) -> Vec<Rule> {
    parse_rules("test.rw", text).unwrap_or_else(|e| panic!("{e}"))
}

fn matrix() -> TensorType {
    TensorType::new(DType::F32, [Dim::symbol("s"), Dim::from(4)])
}

/// A body with one argument; `make` gives its result.
fn body(make: impl FnOnce(&mut Body, ValueId) -> ValueId) -> Body {
    let mut body = Body::new();
    let x = body.add_argument(matrix());
    let y = make(&mut body, x);
    body.results = vec![y];
    body
}

fn unary(body: &mut Body, kind: OpKind, x: ValueId) -> ValueId {
    body.build1(kind, &[x], Attrs::new()).expect("well typed")
}

/// Every operation but literals costs one.
fn unit_cost(kind: OpKind, _: &Attrs, _: &[&TensorType], _: &[TensorType], _: bool) -> f64 {
    if kind.def().operands.is_empty() { 0.0 } else { 1.0 }
}

fn kinds(body: &Body) -> Vec<&'static str> {
    body.ops().map(|(_, op)| op.kind.name()).collect()
}

const NEG_NEG: &str = r#"(rule neg-neg "Negating twice changes nothing." (class exact)
  (from (neg (neg ?x))) (to ?x) (given (?x f32 (a b))))"#;

#[test]
fn a_rule_is_applied_counted_and_extracted() {
    let b = body(|b, x| {
        let y = unary(b, OpKind::Neg, x);
        let y = unary(b, OpKind::Neg, y);
        unary(b, OpKind::Tanh, y)
    });
    let rules = rules(NEG_NEG);
    let mut region = Region::new(&b, &Module::default(), None);
    let outcome = saturate(&mut region.graph, &rules, &SymbolTable::default(), &Limits::default());
    assert_eq!(outcome.stop, StopReason::Saturated);
    assert_eq!(outcome.rules[0].applied, 1);
    let out = region.extract(&unit_cost, &djinn_extract::Limits::default()).expect("extracted");
    assert_eq!(kinds(&out.body), ["tanh"]);
    assert_eq!((out.original_cost, out.cost), (3.0, 1.0));
    assert!(out.lower_bound <= out.cost);
}

#[test]
fn limits_and_fuel_stop_the_search_and_say_so() {
    // Grows forever: every e-class gets another one.
    let grow = rules(
        r#"(rule grow "For the test." (class exact) (grows) (from (tanh ?x)) (to (neg (neg (tanh (neg (neg ?x))))))
          (given (?x f32 (a))))"#,
    );
    let b = body(|b, x| unary(b, OpKind::Tanh, x));
    let run = |limits: Limits| {
        let mut region = Region::new(&b, &Module::default(), None);
        saturate(&mut region.graph, &grow, &SymbolTable::default(), &limits).stop
    };
    let wide = Limits { growth: usize::MAX / 2, iterations: 10_000, ..Limits::default() };
    assert_eq!(run(Limits { nodes: 500, ..wide.clone() }), StopReason::NodeLimit);
    assert_eq!(run(Limits { memory: 300 * 1024, ..wide.clone() }), StopReason::MemoryLimit);
    assert_eq!(run(Limits { iterations: 3, ..wide.clone() }), StopReason::IterationLimit);
    assert_eq!(run(Limits { fuel: 2, ..wide }), StopReason::Fuel);
    // Rules that grow the graph rest above the growth budget, and the search ends by itself.
    assert_eq!(run(Limits { growth: 2, iterations: 1000, ..Limits::default() }), StopReason::Saturated);
}

#[test]
fn a_right_side_of_another_type_is_refused_and_counted() {
    let bad = rules(
        r#"(rule bad "Drops an operand that widens the shape." (class exact) (from (add ?x ?y)) (to ?y)
          (given (?x f32 (a b)) (?y f32 (b))))"#,
    );
    let mut b = Body::new();
    let x = b.add_argument(matrix());
    let y = b.add_argument(TensorType::of(DType::F32, &[4]));
    let sum = b.build1(OpKind::Add, &[x, y], Attrs::new()).expect("well typed");
    b.results = vec![sum];
    let mut region = Region::new(&b, &Module::default(), None);
    let outcome = saturate(&mut region.graph, &bad, &SymbolTable::default(), &Limits::default());
    // Commutative matching offers both operands: the narrow one is refused, the wide one (unsound, but typed) is not.
    assert!(outcome.rules[0].refused > 0);
}

#[test]
fn cycles_are_never_extracted() {
    // x·1 = x merges the product with its own operand: the product then depends on itself.
    let one = rules(
        r#"(rule mul-one "A product with one." (class exact) (from (mul ?x 1.0)) (to ?x) (given (?x f32 (a))))"#,
    );
    let b = body(|b, x| {
        let one = TensorData::splat(DType::F32, &[], 1.0).expect("fits");
        let one = b.build1(OpKind::Constant, &[], attrs! { value: one }).expect("well typed");
        let y = unary(b, OpKind::Tanh, x);
        b.build1(OpKind::Mul, &[y, one], Attrs::new()).expect("well typed")
    });
    let mut region = Region::new(&b, &Module::default(), None);
    saturate(&mut region.graph, &one, &SymbolTable::default(), &Limits::default());
    let free = |_: OpKind, _: &Attrs, _: &[&TensorType], _: &[TensorType], _: bool| 0.0;
    let out = region.extract(&free, &djinn_extract::Limits::default()).expect("extracted");
    assert!(djinn_ir::verify::verify_graph(&out.body).is_ok());
}

#[test]
fn siblings_merge_in_one_step_and_pay_together() {
    let merge = rules(
        r#"(siblings merge "Products of one value." (class reassoc) (shared ?x)
          (from (matmul ?x ?w))
          (to (slice :axis 1 :start (before (dim ?w 1)) :limit (+ (before (dim ?w 1)) (dim ?w 1)) :stride 1
                (matmul ?x (concat :axis 1 ?w...))))
          (where (weight ?w) (not (is ?w concat)))
          (given (?x f32 (a 4)) (?w weight f32 (4 n))))"#,
    );
    let mut b = Body::new();
    let x = b.add_argument(matrix());
    for n in [3i64, 5, 2, 7] {
        let w = TensorData::splat(DType::F32, &[4, n as usize], 0.5).expect("fits");
        let w = b.build1(OpKind::Constant, &[], attrs! { value: w }).expect("well typed");
        let y = b.build1(OpKind::MatMul, &[x, w], Attrs::new()).expect("well typed");
        b.results.push(y);
    }
    let mut region = Region::new(&b, &Module::default(), None);
    let outcome = saturate(&mut region.graph, &merge, &SymbolTable::default(), &Limits::default());
    assert_eq!(outcome.rules[0].applied, 4);
    let cost = |kind: OpKind, _: &Attrs, _: &[&TensorType], _: &[TensorType], ahead: bool| match kind {
        _ if ahead => 0.001,
        OpKind::MatMul => 10.0,
        _ => 1.0,
    };
    let out = region.extract(&cost, &djinn_extract::Limits::default()).expect("extracted");
    let count = |k: &str| kinds(&out.body).iter().filter(|x| **x == k).count();
    assert_eq!((count("matmul"), count("slice"), count("concat")), (1, 4, 1));
}

#[test]
fn rule_files_report_line_and_reason() {
    let error = |text: &str| parse_rules("r.rw", text).expect_err("malformed").to_string();
    assert!(error("(rule a").contains("never closed"));
    assert!(
        error("\n(rule a \"b\" (class exact) (from (nope ?x)) (to ?x) (given (?x f32 (a))))")
            .contains("line 2")
    );
    assert!(
        error("(rule a \"b\" (class exact) (from (neg ?x)) (to ?y) (given (?x f32 (a))))")
            .contains("?y is not bound")
    );
    assert!(
        error("(rule a \"b\" (class exact) (from (neg ?x)) (to (softmax ?x)) (given (?x f32 (a))))")
            .contains(":axis")
    );
    assert!(
        error("(rule a \"b\" (class exact) (from (neg ?x)) (to ?x) (where (sorta ?x)) (given (?x f32 (a))))")
            .contains("sorta")
    );
}
