//! `fold-weights`: work on weights and literals, done once ahead of time.

use djinn_diag::{Context, RemarkKind, Result};
use djinn_ir::graph::Op;
use djinn_ir::ops::traits;
use djinn_ir::{
    ArgumentKind, Attrs, Graph, Module, OpKind, Patch, TensorData, ValueId, Weight, walk, weight_attrs,
};
use djinn_pass::{Pass, PassContext, PassInfo};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the pass manager knows of `fold-weights`.
pub static FOLD_WEIGHTS: PassInfo = PassInfo {
    name: "fold-weights",
    summary: "computes what depends on weights and literals only, once, and drops weights that nothing uses",
    requires: "a verified module",
    ensures: "no operation with known content has only weights and literals as operands",
    preserves: "signatures, results up to the rounding of the evaluator",
    options: &[],
};

/// Results of at most this many elements become literals, larger ones weights.
const MAX_LITERAL: usize = 64;

/// A fold that would make more bytes than its operands have by this factor is left to run time (a broadcast, say).
const MAX_EXPANSION: usize = 4;

/// A fold that makes at most this many bytes is always done.
const ALWAYS_FOLDED_BYTES: usize = 1 << 16;

/// The pass.
#[derive(Debug, Default)]
pub struct FoldWeights;

impl Pass for FoldWeights {
    fn info(&self) -> &'static PassInfo {
        &FOLD_WEIGHTS
    }

    fn run(&self, module: &mut Module, cx: &mut PassContext) -> Result<()> {
        let mut names = Names::default();
        for i in 0..module.functions.len() {
            let function = Arc::clone(&module.functions[i].name);
            let mut graph = std::mem::take(&mut module.functions[i].graph);
            let weights = &mut module.weights;
            let outcome =
                walk::for_each_graph_mut(&mut graph, &mut |body| fold_body(body, weights, &mut names, cx));
            module.functions[i].graph = graph;
            outcome.at(|| format!("function '{function}'"))?;
        }
        let before = module.weights.len();
        drop_unused_weights(module);
        cx.count("weights dropped", before.saturating_sub(module.weights.len()) as u64);
        Ok(())
    }
}

/// Gives folded weights names that no weight has.
#[derive(Default)]
struct Names {
    next: usize,
}

impl Names {
    fn fresh(&mut self, weights: &BTreeMap<Arc<str>, Weight>) -> Arc<str> {
        loop {
            let name: Arc<str> = Arc::from(format!("folded.{}", self.next));
            self.next += 1;
            if !weights.contains_key(&name) {
                return name;
            }
        }
    }
}

fn fold_body(
    body: &mut Graph,
    weights: &mut BTreeMap<Arc<str>, Weight>,
    names: &mut Names,
    cx: &mut PassContext,
) -> Result<()> {
    let Some(evaluator) = cx.const_eval.clone() else { return Ok(()) };
    let mut known: BTreeMap<ValueId, TensorData> = BTreeMap::new();
    let mut folded: BTreeSet<ValueId> = BTreeSet::new();
    for (_, op) in body.ops() {
        if let Some(value) = stored_value(op, weights) {
            known.insert(op.results[0], value.clone());
            continue;
        }
        let def = op.kind.def();
        let foldable = def.has(traits::PURE) && !def.has(traits::DATA_DEPENDENT) && op.regions.is_empty();
        // A leaf is known already; a transfer says where its value lies.
        let stays = op.operands.is_empty() || op.kind == OpKind::Transfer;
        if !foldable || stays || op.results.iter().any(|v| body.ty(*v).const_shape().is_none()) {
            continue;
        }
        let Some(operands) = op.operands.iter().map(|v| known.get(v).cloned()).collect::<Option<Vec<_>>>()
        else {
            continue;
        };
        let read: usize = operands.iter().map(|o| o.bytes().len()).sum();
        let written: i64 = op.results.iter().filter_map(|v| bytes_of(body, *v)).sum();
        let limit = (read * MAX_EXPANSION).max(ALWAYS_FOLDED_BYTES);
        if usize::try_from(written).map_or(true, |w| w > limit) {
            continue;
        }
        if let Some(results) = evaluator.eval(op.kind, &op.attrs, &operands, &[]) {
            for (v, data) in op.results.iter().zip(results) {
                known.insert(*v, data);
                folded.insert(*v);
            }
        }
    }
    let frontier = used_elsewhere(body, &folded);
    if frontier.is_empty() {
        return Ok(());
    }
    let mut by_hash: BTreeMap<String, Arc<str>> = weights
        .iter()
        .filter_map(|(n, w)| w.data.as_ref().map(|(h, _)| (h.to_string(), Arc::clone(n))))
        .collect();
    let mut patch = Patch::new(FOLD_WEIGHTS.name, body);
    for v in &frontier {
        let data = known[v].clone();
        if let Some((op, _)) = body.definition(*v) {
            patch.inherit(body, op);
        }
        let new = if data.numel() <= MAX_LITERAL {
            patch.op(body, OpKind::Constant, &[], Attrs::new().with("value", data))?
        } else {
            let weight = Weight::with_data(data);
            let hash = weight.data.as_ref().map(|(h, _)| h.to_string()).unwrap_or_default();
            let name = by_hash.entry(hash).or_insert_with(|| names.fresh(weights)).clone();
            let attrs = weight_attrs(&name, &weight);
            weights.entry(name).or_insert(weight);
            patch.op(body, OpKind::Weight, &[], attrs)?
        };
        patch.replace(*v, new);
    }
    let report = patch.apply(body, &mut cx.fuel)?;
    cx.count("values folded", report.replaced as u64);
    if report.changed() {
        let message = format!(
            "{} values computed ahead of time, {} operations removed",
            report.replaced, report.removed
        );
        cx.remark(RemarkKind::Applied, "fold", "", message);
    }
    Ok(())
}

fn stored_value<'a>(op: &'a Op, weights: &'a BTreeMap<Arc<str>, Weight>) -> Option<&'a TensorData> {
    match op.kind {
        OpKind::Constant => op.attrs.tensor("value"),
        OpKind::Weight => weights.get(op.attrs.str("name"))?.data.as_ref().map(|(_, d)| d),
        _ => None,
    }
}

fn bytes_of(body: &Graph, v: ValueId) -> Option<i64> {
    let ty = body.ty(v);
    ty.numel().as_const()?.checked_mul(ty.dtype.size() as i64)
}

/// The folded values that an operation which is not folded, or a result of the body, uses; in a fixed order.
fn used_elsewhere(body: &Graph, folded: &BTreeSet<ValueId>) -> Vec<ValueId> {
    let mut used: BTreeSet<ValueId> = body.results.iter().copied().filter(|v| folded.contains(v)).collect();
    for (_, op) in body.ops() {
        if op.results.iter().any(|v| !folded.contains(v)) {
            used.extend(op.operands.iter().copied().filter(|v| folded.contains(v)));
        }
    }
    used.into_iter().collect()
}

/// Removes weights that no operation and no state names.
fn drop_unused_weights(module: &mut Module) {
    let mut used: BTreeSet<Arc<str>> = BTreeSet::new();
    for f in &module.functions {
        walk::for_each_graph(&f.graph, &mut |g: &Graph| {
            for (_, op) in g.ops().filter(|(_, op)| op.kind == OpKind::Weight) {
                used.insert(Arc::from(op.attrs.str("name")));
            }
        });
        for (_, kind) in &f.arguments {
            if let ArgumentKind::State { initial: Some(name) } = kind {
                used.insert(Arc::clone(name));
            }
        }
    }
    module.weights.retain(|name, _| used.contains(name));
}
