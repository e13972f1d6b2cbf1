use super::*;
use crate::attrs;
use crate::dtype::DType;
use crate::verify::verify_graph;

fn f32s(dims: &[&str]) -> TensorType {
    TensorType::new(DType::F32, dims.iter().map(|d| d.parse().expect("dimension")))
}

/// exp(relu(x)), with the ids of x, relu and exp.
fn chain() -> (Graph, ValueId, ValueId, ValueId) {
    let mut g = Graph::new();
    let x = g.add_argument(f32s(&["s0", "4"]));
    let location = Location { scope: Some("layer".into()), source: Some(("m.py".into(), 3)) };
    let relu = g.build(OpKind::Relu, &[x], Attrs::new(), vec![], location).expect("relu");
    g.annotate(relu, "phase", "forward");
    let relu = g.op(relu).results[0];
    let exp = g.build1(OpKind::Exp, &[relu], Attrs::new()).expect("exp");
    g.results = vec![exp];
    (g, x, relu, exp)
}

fn code(result: Result<PatchReport>) -> String {
    result.map_or_else(|e| e.code, |report| format!("{:?}", report.outcome))
}

fn kinds(g: &Graph) -> Vec<&'static str> {
    g.ops().map(|(_, op)| op.kind.name()).collect()
}

#[test]
fn replaces_a_value_and_removes_what_became_dead() {
    let (mut g, x, relu, _) = chain();
    let mut p = Patch::new("relu-to-max", &g);
    let zero = crate::TensorData::splat(DType::F32, &[], 0.0).expect("scalar");
    let zero = p.op(&g, OpKind::Constant, &[], attrs! { value: zero }).expect("constant");
    let max = p.op(&g, OpKind::Max, &[x, zero], Attrs::new()).expect("max");
    p.replace(relu, max);
    let report = p.apply(&mut g, &mut Fuel::unlimited()).expect("applies");
    assert_eq!((report.added, report.replaced, report.removed), (2, 1, 1));
    assert_eq!(kinds(&g), ["constant", "max", "exp"]);
    assert!(verify_graph(&g).is_ok());
    // Location and annotations pass on to everything that stands for the old operation.
    for (_, op) in g.ops().take(2) {
        assert_eq!(op.location.scope.as_deref(), Some("layer"));
        assert!(op.annotations.contains_key("phase"));
    }
}

#[test]
fn a_value_can_be_wrapped_in_something_computed_from_it() {
    let (mut g, _, relu, _) = chain();
    let mut p = Patch::new("wrap", &g);
    let wrapped = p.op(&g, OpKind::Neg, &[relu], Attrs::new()).expect("neg");
    p.replace(relu, wrapped);
    assert!(p.apply(&mut g, &mut Fuel::unlimited()).expect("applies").changed());
    assert_eq!(kinds(&g), ["relu", "neg", "exp"]);
    assert!(verify_graph(&g).is_ok());
}

#[test]
fn later_values_are_pulled_in_front_of_their_new_users_stably() {
    let mut g = Graph::new();
    let x = g.add_argument(f32s(&["4"]));
    let a = g.build1(OpKind::Exp, &[x], Attrs::new()).expect("exp");
    let b = g.build1(OpKind::Log, &[a], Attrs::new()).expect("log");
    let c = g.build1(OpKind::Sin, &[x], Attrs::new()).expect("sin");
    g.results = vec![b, c];
    let mut p = Patch::new("move", &g);
    p.replace(a, c);
    p.apply(&mut g, &mut Fuel::unlimited()).expect("applies");
    assert_eq!(kinds(&g), ["sin", "log"]);
    assert!(verify_graph(&g).is_ok());
}

#[test]
fn fuel_is_counted_and_its_end_changes_nothing() {
    let (mut g, x, relu, _) = chain();
    let before = g.clone();
    let mut fuel = Fuel::limited(1);
    let patch = |g: &Graph, cost: u64| {
        let mut p = Patch::new("drop", g).counts_as(cost);
        p.replace(relu, x);
        p
    };
    assert_eq!(code(patch(&g, 2).apply(&mut g, &mut fuel)), "OutOfFuel");
    assert!(crate::walk::same_graph(&g, &before));
    assert_eq!(code(Patch::new("empty", &g).apply(&mut g, &mut fuel)), "NothingToDo");
    assert_eq!(code(patch(&g, 1).apply(&mut g, &mut fuel)), "Applied");
    assert!(fuel.is_exhausted());
    assert_eq!((fuel.used(), kinds(&g)), (1, vec!["exp"]));
}

#[test]
fn wrong_patches_are_refused_and_change_nothing() {
    let (mut g, x, relu, exp) = chain();
    let before = g.clone();
    let mut try_patch = |change: &dyn Fn(&Graph, &mut Patch)| {
        let mut p = Patch::new("wrong", &g);
        change(&g, &mut p);
        let code = code(p.apply(&mut g, &mut Fuel::unlimited()));
        assert!(crate::walk::same_graph(&g, &before));
        code
    };
    let other_type = |g: &Graph, p: &mut Patch| {
        let half = p.op(g, OpKind::Cast, &[x], attrs! { to: DType::F16 }).expect("cast");
        p.replace(relu, half);
    };
    assert_eq!(try_patch(&other_type), "patch.type");
    assert_eq!(try_patch(&|_, p| p.replace(relu, exp)), "patch.cycle");
    let swapped = |_: &Graph, p: &mut Patch| {
        p.replace(relu, exp);
        p.replace(exp, relu);
    };
    assert_eq!(try_patch(&swapped), "patch.cycle");
    assert_eq!(try_patch(&|_, p| p.replace(ValueId(99), x)), "patch.value");
    assert_eq!(try_patch(&|_, p| p.annotate(OpId(99), "a", 1i64)), "patch.removed");
    assert_eq!(try_patch(&|_, p| p.set_results(vec![])), "patch.type");
    assert!(Patch::new("p", &g).op(&g, OpKind::Exp, &[ValueId(99)], Attrs::new()).is_err());

    let stale = {
        let mut p = Patch::new("stale", &g);
        p.replace(relu, x);
        p
    };
    g.add_argument(f32s(&[]));
    assert_eq!(code(stale.apply(&mut g, &mut Fuel::unlimited())), "patch.stale");
}

#[test]
fn a_replacement_of_another_symbolic_form_retypes_its_users() {
    let mut g = Graph::new();
    let x = g.add_argument(f32s(&["s0"]));
    let y = g.add_argument(f32s(&["s1"]));
    let e = g.build1(OpKind::Exp, &[x], Attrs::new()).expect("exp");
    g.results = vec![e];
    let mut p = Patch::new("rename", &g);
    p.replace(x, y);
    p.apply(&mut g, &mut Fuel::unlimited()).expect("applies");
    assert_eq!(g.ty(e), &f32s(&["s1"]));
    assert!(verify_graph(&g).is_ok());
}

#[test]
fn bodies_are_replaced_only_by_bodies_of_the_same_type() {
    let (mut g, ..) = chain();
    let mut body = Graph::new();
    let x = body.add_argument(f32s(&["s0", "4"]));
    body.results = vec![x];
    let wrong = Patch::replace_body("wrong", Graph::new());
    assert_eq!(code(wrong.apply(&mut g, &mut Fuel::unlimited())), "patch.type");
    let report = Patch::replace_body("right", body).apply(&mut g, &mut Fuel::unlimited());
    assert_eq!(report.map(|r| r.removed).map_err(|e| e.code), Ok(2));
    assert!(g.is_empty());
}

#[test]
fn regions_can_be_replaced() {
    let region = |kind: OpKind| {
        let mut r = Graph::new();
        let x = r.add_argument(f32s(&["4"]));
        let y = r.build1(kind, &[x], Attrs::new()).expect("unary");
        r.results = vec![y];
        r
    };
    let mut g = Graph::new();
    let c = g.add_argument(TensorType::scalar(DType::Bool));
    let x = g.add_argument(f32s(&["4"]));
    let regions = vec![region(OpKind::Exp), region(OpKind::Sin)];
    let op = g.build(OpKind::If, &[c, x], Attrs::new(), regions, Location::default()).expect("if");
    g.results = g.op(op).results.clone();
    let mut p = Patch::new("regions", &g);
    p.set_regions(op, vec![region(OpKind::Cos), region(OpKind::Sin)]);
    assert!(p.apply(&mut g, &mut Fuel::unlimited()).expect("applies").changed());
    assert_eq!(kinds(&g.op(op).regions[0]), ["cos"]);
    let mut p = Patch::new("regions", &g);
    p.set_regions(op, vec![Graph::new(), region(OpKind::Sin)]);
    assert_eq!(code(p.apply(&mut g, &mut Fuel::unlimited())), "if.C2");
    assert_eq!(kinds(&g.op(op).regions[0]), ["cos"]);
}

#[test]
fn dead_code_goes_but_effects_stay() {
    let (mut g, x, _, exp) = chain();
    let dead = g.build1(OpKind::Sin, &[exp], Attrs::new()).expect("sin");
    g.build1(OpKind::Cos, &[dead], Attrs::new()).expect("cos");
    let print = attrs! { op: "print", payload: "", types: Vec::<TensorType>::new() };
    g.build(OpKind::Opaque, &[x], print, vec![], Location::default()).expect("opaque");
    let mut sweep = Patch::new("dce", &g);
    sweep.sweep();
    let report = sweep.apply(&mut g, &mut Fuel::unlimited()).expect("applies");
    assert_eq!(report.removed, 2);
    assert_eq!(kinds(&g), ["relu", "exp", "opaque"]);
    assert_eq!(g.eliminate_dead_code(), 0);
    let mut sweep = Patch::new("dce", &g);
    sweep.sweep();
    assert_eq!(code(sweep.apply(&mut g, &mut Fuel::limited(1))), "NothingToDo");
}

#[test]
fn operations_are_reordered_but_never_before_what_they_need() {
    let mut g = Graph::new();
    let x = g.add_argument(TensorType::of(DType::F32, &[4]));
    let one = |g: &mut Graph, kind| g.build1(kind, &[x], Attrs::new()).expect("one operand");
    let (a, b) = (one(&mut g, OpKind::Exp), one(&mut g, OpKind::Relu));
    let sum = g.build1(OpKind::Add, &[a, b], Attrs::new()).expect("add");
    g.results = vec![sum];
    let reorder = |g: &mut Graph, order: &[u32]| {
        let mut patch = Patch::new("order", g);
        patch.reorder(order.iter().map(|i| OpId(*i)).collect());
        patch.apply(g, &mut Fuel::unlimited()).map(|r| r.outcome).map_err(|e| e.code)
    };
    assert_eq!(reorder(&mut g, &[1, 0, 2]), Ok(PatchOutcome::Applied));
    assert_eq!(g.order, [OpId(1), OpId(0), OpId(2)]);
    assert!(verify_graph(&g).is_ok());
    for wrong in [&[2, 0, 1][..], &[0, 1], &[0, 1, 1, 2], &[0, 1, 2, 3]] {
        assert_eq!(reorder(&mut g, wrong), Err("patch.order".into()), "{wrong:?}");
    }
    assert_eq!(g.order, [OpId(1), OpId(0), OpId(2)], "a refused patch changes nothing");
    // New operations take their listed place, or that of their first user.
    let mut patch = Patch::new("order", &g);
    let new = patch.op(&g, OpKind::Neg, &[a], Attrs::new()).expect("neg");
    patch.replace(b, new);
    patch.reorder(vec![OpId(0), OpId(1), OpId(2)]);
    patch.apply(&mut g, &mut Fuel::unlimited()).expect("applies");
    assert_eq!(g.ops().map(|(_, op)| op.kind.name()).collect::<Vec<_>>(), ["exp", "neg", "add"]);
    assert!(verify_graph(&g).is_ok());
}
