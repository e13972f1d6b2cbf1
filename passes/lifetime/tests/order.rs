//! The pass on random graphs: orders against brute force, limits, and results bit for bit.

mod common;

use common::{Random, inputs, module, random_function};
use djinn_ir::ops::{CostClass, traits};
use djinn_ir::{Function, Graph, Module, OpId, OpKind, ValueId, verify};
use djinn_lifetime::Lifetime;
use djinn_pass::{Pass, PassContext};
use std::collections::BTreeMap;

fn bytes(g: &Graph, v: ValueId) -> u64 {
    g.ty(v).numel().as_const().expect("constant") as u64 * 4
}

/// A value that shares the bytes of another one: the first value of its chain of views.
fn owner(g: &Graph, v: ValueId) -> ValueId {
    match g.definition(v).map(|(id, _)| g.op(id)) {
        // Slices along the outer axis of two-dimensional values are contiguous.
        Some(op)
            if matches!(op.kind, OpKind::Slice | OpKind::Reshape)
                && g.definition(op.operands[0]).is_some() =>
        {
            owner(g, op.operands[0])
        }
        _ => v,
    }
}

fn is_view(g: &Graph, id: OpId) -> bool {
    matches!(g.op(id).kind, OpKind::Slice | OpKind::Reshape) && g.definition(g.op(id).operands[0]).is_some()
}

/// Bytes live at once at most when the operations run in this order, computed anew at every step.
fn peak(g: &Graph, order: &[OpId]) -> u64 {
    let mut touched: BTreeMap<ValueId, Vec<usize>> = BTreeMap::new();
    for (position, id) in order.iter().enumerate().filter(|(_, id)| !is_view(g, **id)) {
        let op = g.op(*id);
        for v in op.operands.iter().chain(&op.results) {
            touched.entry(owner(g, *v)).or_default().push(position);
        }
    }
    let mut peak = 0;
    for (position, id) in order.iter().enumerate() {
        let live = touched.iter().filter(|(_, at)| at[0] <= position && position <= at[at.len() - 1]);
        let mut sum: u64 = live.map(|(v, _)| bytes(g, *v)).sum();
        let op = g.op(*id);
        let def = op.kind.def();
        let elementwise = def.cost == CostClass::Elementwise && def.has(traits::BROADCAST);
        let dies = |v: &&ValueId| {
            let root = owner(g, **v);
            let at = touched.get(&root).filter(|_| g.definition(root).is_some());
            bytes(g, root) == bytes(g, op.results[0]) && at.is_some_and(|at| at[at.len() - 1] == position)
        };
        if elementwise && !is_view(g, *id) && op.operands.iter().any(|v| dies(&v)) {
            sum -= bytes(g, op.results[0]);
        }
        peak = peak.max(sum);
    }
    peak
}

/// The lowest peak of all orders.
fn least_peak(g: &Graph, order: &mut Vec<OpId>, all: &[OpId], best: &mut u64) {
    if order.len() == all.len() {
        *best = (*best).min(peak(g, order));
        return;
    }
    for id in all {
        let ready = |v: &ValueId| g.definition(*v).is_none_or(|(made, _)| order.contains(&made));
        if !order.contains(id) && g.op(*id).operands.iter().all(ready) {
            order.push(*id);
            least_peak(g, order, all, best);
            order.pop();
        }
    }
}

fn order_of(g: &Graph) -> Vec<OpId> {
    g.ops().map(|(id, _)| id).collect()
}

fn run(module: &mut Module, pass: Lifetime) -> djinn_diag::Result<PassContext> {
    let mut cx = PassContext::new();
    cx.pass = "lifetime".into();
    pass.run(module, &mut cx)?;
    verify::verify(module).expect("still well formed");
    Ok(cx)
}

fn evaluate(module: &Module, f: &Function) -> djinn_interp::Outputs {
    djinn_interp::run(module, "main", &inputs(f)).expect("runs")
}

#[test]
fn small_graphs_get_the_lowest_peak_of_all_orders() {
    let mut random = Random(11);
    let mut lowered = 0;
    for case in 0..400 {
        let ops = 4 + random.below(4);
        let f = random_function(&mut random, ops, false);
        if f.graph.len() > 8 {
            continue;
        }
        let given = peak(&f.graph, &order_of(&f.graph));
        let mut least = u64::MAX;
        least_peak(&f.graph, &mut Vec::new(), &order_of(&f.graph), &mut least);
        let mut m = module(f.clone());
        let cx = run(&mut m, Lifetime::default()).expect("no limit");
        let g = &m.functions[0].graph;
        assert_eq!(peak(g, &order_of(g)), least, "case {case}, given {given}");
        assert_eq!(cx.statistics.get("lifetime", "peak bytes before"), given, "case {case}");
        assert_eq!(cx.statistics.get("lifetime", "peak bytes after"), least, "case {case}");
        assert_eq!(evaluate(&m, &f), evaluate(&module(f.clone()), &f), "case {case}");
        lowered += u32::from(least < given);
    }
    assert!(lowered > 20, "{lowered}");
}

#[test]
fn the_peak_never_rises_and_runs_are_equal() {
    let mut random = Random(13);
    for case in 0..150 {
        let ops = 20 + random.below(120);
        let f = random_function(&mut random, ops, case % 2 == 0);
        let mut m = module(f.clone());
        let cx = run(&mut m, Lifetime::default()).expect("no limit");
        let count = |name| cx.statistics.get("lifetime", name);
        assert!(count("peak bytes after") <= count("peak bytes before"), "case {case}");
        if case % 2 == 1 {
            let (old, new) = (&f.graph, &m.functions[0].graph);
            assert!(peak(new, &order_of(new)) <= peak(old, &order_of(old)), "case {case}");
        }
        assert_eq!(evaluate(&m, &f), evaluate(&module(f.clone()), &f), "case {case}");
        let mut again = module(f.clone());
        run(&mut again, Lifetime::default()).expect("no limit");
        assert!(djinn_ir::walk::same_module(&m, &again), "case {case}: equal graphs give equal orders");
    }
}

#[test]
fn a_limit_is_kept_or_refused_with_the_arithmetic() {
    let mut random = Random(17);
    let (mut kept, mut refused, mut freed) = (0, 0, 0);
    for case in 0..200 {
        let ops = 10 + random.below(30);
        let f = random_function(&mut random, ops, false);
        let mut m = module(f.clone());
        let cx = run(&mut m, Lifetime::default()).expect("no limit");
        let reached = cx.statistics.get("lifetime", "peak bytes after");
        let limit = reached * (40 + random.below(60) as u64) / 100;
        match run(&mut m, Lifetime::default().with_memory_limit(limit)) {
            Ok(cx) => {
                kept += 1;
                freed += cx.statistics.get("lifetime", "values freed between uses");
                let g = &m.functions[0].graph;
                assert!(on_device(g) <= limit, "case {case}: {} {limit}", on_device(g));
                assert_eq!(evaluate(&m, &f), evaluate(&module(f.clone()), &f), "case {case}");
            }
            Err(e) => {
                refused += 1;
                assert_eq!(e.code, "lifetime.memory", "case {case}");
                assert!(
                    e.message.contains(&format!("may use {}", djinn_diag::units::bytes(limit))),
                    "{}",
                    e.message
                );
            }
        }
    }
    assert!(kept > 20 && refused > 20 && freed > 40, "{kept} {refused} {freed}");
}

/// The peak of what is not in host memory.
fn on_device(g: &Graph) -> u64 {
    let spilled: Vec<ValueId> = g
        .ops()
        .filter(|(_, op)| op.kind == OpKind::Transfer && op.attrs.str("device") == "host")
        .map(|(_, op)| op.results[0])
        .collect();
    let order = order_of(g);
    let mut touched: BTreeMap<ValueId, (usize, usize)> = BTreeMap::new();
    for (position, id) in order.iter().enumerate().filter(|(_, id)| !is_view(g, **id)) {
        let op = g.op(*id);
        for v in op.operands.iter().chain(&op.results) {
            let root = owner(g, *v);
            if !spilled.contains(&root) {
                touched.entry(root).or_insert((position, position)).1 = position;
            }
        }
    }
    let at = |position: usize| {
        let live = touched.iter().filter(|(_, (a, z))| *a <= position && position <= *z);
        let sum: u64 = live.map(|(v, _)| bytes(g, *v)).sum();
        let op = g.op(order[position]);
        let def = op.kind.def();
        let elementwise = def.cost == CostClass::Elementwise && def.has(traits::BROADCAST);
        let dies = |v: &ValueId| {
            let root = owner(g, *v);
            touched.get(&root).is_some_and(|(_, z)| *z == position)
                && g.definition(root).is_some()
                && bytes(g, root) == bytes(g, op.results[0])
        };
        let saved = if elementwise && op.operands.iter().any(dies) { bytes(g, op.results[0]) } else { 0 };
        sum - saved
    };
    (0..order.len()).map(at).max().unwrap_or(0)
}
