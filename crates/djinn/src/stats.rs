//! Counting operations and their modelled cost.

use djinn_cost::CostModel;
use djinn_ir::ops::CostClass;
use djinn_ir::{Graph, Module, Op, OpKind, TensorType};
use std::collections::BTreeMap;

/// Operations and modelled cost of a module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModuleStats {
    /// Operations of one run by name; literals, weights and what depends on weights only are not counted.
    pub operations: BTreeMap<&'static str, usize>,
    /// Operations that depend on weights only: computed once, before any run. They stay operations where the file
    /// came without the weights' values.
    pub ahead_of_time: usize,
    /// Modelled time of one run, in seconds, on the generic device.
    pub seconds: f64,
    /// Floating-point operations of multiply-accumulate work in one run.
    pub flops: f64,
    /// Bytes of the weights that the module names.
    pub weight_bytes: u64,
}

impl ModuleStats {
    /// Number of operations of one run.
    pub fn count(&self) -> usize {
        self.operations.values().sum()
    }
}

/// Calls inside calls, at most; the verifier refuses recursion.
const MAX_CALL_DEPTH: usize = 64;

/// Counts operations of the entry functions (regions and callees included) and adds up the modelled cost of each,
/// regions once, callees once a call.
pub fn stats(module: &Module) -> ModuleStats {
    let mut out = ModuleStats::default();
    let model = CostModel::generic(&module.symbols);
    for f in module.entries() {
        Counter { module, model: &model, out: &mut out }.add(&f.graph, &[], 0);
    }
    out.weight_bytes = module
        .weights
        .values()
        .map(|w| w.ty.numel().as_const().unwrap_or(0).max(0) as u64 * w.ty.dtype.size() as u64)
        .sum();
    out
}

struct Counter<'a> {
    module: &'a Module,
    model: &'a CostModel<'a>,
    out: &'a mut ModuleStats,
}

impl Counter<'_> {
    /// Adds a body; `known` says which arguments are known ahead of time.
    fn add(&mut self, graph: &Graph, known: &[bool], depth: usize) {
        let mut ahead = vec![false; graph.value_capacity()];
        for (v, known) in graph.arguments.iter().zip(known) {
            ahead[v.0 as usize] = *known;
        }
        for (_, op) in graph.ops() {
            if op.kind == OpKind::Call {
                let known: Vec<bool> = op.operands.iter().map(|v| ahead[v.0 as usize]).collect();
                let callee = self.module.function(op.attrs.str("callee"));
                if let Some(callee) = callee.filter(|_| depth < MAX_CALL_DEPTH) {
                    self.add(&callee.graph, &known, depth + 1);
                }
                continue;
            }
            self.op(graph, op, &mut ahead);
            op.regions.iter().for_each(|r| self.add(r, &[], depth));
        }
    }

    fn op(&mut self, graph: &Graph, op: &Op, ahead: &mut [bool]) {
        let (model, out) = (self.model, &mut *self.out);
        let operands: Vec<&TensorType> = op.operands.iter().map(|v| graph.ty(*v)).collect();
        let results: Vec<TensorType> = op.results.iter().map(|v| graph.ty(*v).clone()).collect();
        let source = matches!(op.kind, OpKind::Weight | OpKind::Constant);
        let depends_on_weights_only = source
            || (!op.operands.is_empty()
                && op.regions.is_empty()
                && op.kind != OpKind::Opaque
                && op.operands.iter().all(|v| ahead[v.0 as usize]));
        for v in &op.results {
            ahead[v.0 as usize] = depends_on_weights_only;
        }
        let counts = op.kind.def().cost != CostClass::Free
            || matches!(op.kind, OpKind::Reshape | OpKind::DynamicReshape);
        if counts && depends_on_weights_only {
            out.ahead_of_time += 1;
        } else if counts {
            *out.operations.entry(op.kind.name()).or_default() += 1;
        }
        out.seconds += model.op(op.kind, &operands, &results, depends_on_weights_only);
        if !depends_on_weights_only {
            out.flops += model.flops(op.kind, &operands, &results);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use djinn_ir::{DType, Graph, TensorData, attrs};

    #[test]
    fn work_on_weights_is_counted_apart() {
        let mut graph = Graph::new();
        let x = graph.add_argument(TensorType::of(DType::F32, &[2, 2]));
        let w = TensorData::splat(DType::F32, &[2, 2], 0.5).expect("fits");
        let w = graph.build1(OpKind::Constant, &[], attrs! { value: w }).expect("well typed");
        let t = graph.build1(OpKind::Transpose, &[w], attrs! { perm: vec![1i64, 0] }).expect("well typed");
        let y = graph.build1(OpKind::MatMul, &[x, t], djinn_ir::Attrs::new()).expect("well typed");
        graph.results = vec![y];
        let function = djinn_ir::Function {
            name: "f".into(),
            visibility: djinn_ir::Visibility::Entry,
            graph,
            arguments: vec![],
            results: vec![],
        };
        let stats = stats(&Module { functions: vec![function], ..Module::default() });
        assert_eq!((stats.count(), stats.ahead_of_time), (1, 1));
    }
}
