//! Counting operations and their modelled cost.

use djinn_cost::{CostModel, Device};
use djinn_ir::ops::CostClass;
use djinn_ir::{Graph, Module, OpKind, TensorType};
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

/// Counts operations (regions included) and adds up the modelled cost of each, regions once.
pub fn stats(module: &Module) -> ModuleStats {
    let mut out = ModuleStats::default();
    let model = CostModel { device: &Device::GENERIC, symbols: &module.symbols };
    for f in &module.functions {
        add(&f.graph, &model, &mut out);
    }
    out.weight_bytes = module
        .weights
        .values()
        .map(|w| w.ty.numel().as_const().unwrap_or(0).max(0) as u64 * w.ty.dtype.size() as u64)
        .sum();
    out
}

fn add(graph: &Graph, model: &CostModel<'_>, out: &mut ModuleStats) {
    let mut ahead = vec![false; graph.value_capacity()];
    for (_, op) in graph.ops() {
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
        op.regions.iter().for_each(|r| add(r, model, out));
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
        let function = djinn_ir::Function { name: "f".into(), graph, arguments: vec![], results: vec![] };
        let stats = stats(&Module { functions: vec![function], ..Module::default() });
        assert_eq!((stats.count(), stats.ahead_of_time), (1, 1));
    }
}
