//! What narrow element types cost in accuracy: the evaluator computes a region with and without them.
//!
//! Casts stand in the region's module, so what is compared is what the engine computes, but for the order of its sums. The
//! inputs are those that the user gives, as the evaluator finds them at the region's border; where there are none, random
//! ones at small sizes, weights with their values.

use super::EngineRequest;
use crate::random;
use djinn_cost::CostModel;
use djinn_interp::Env;
use djinn_ir::{ContentHash, DType, Dim, Function, Module, OpKind, Symbol, TensorData, TensorType, walk};
use djinn_plan::{Entry, ValueRef};
use djinn_tensorrt::{ArgumentSource, Precision, Region};
use std::collections::BTreeMap;

/// Work of one evaluation of a region, FLOP, at most: some ten seconds.
const MAX_FLOPS: f64 = 1e9;
/// Work of all evaluations of one compilation, FLOP, at most.
const MAX_ALL_FLOPS: f64 = 4e9;
/// Elements that one evaluation makes, at most.
const MAX_ELEMENTS: f64 = 5e7;
/// What a size is in samples, if its range has it; else the nearest end.
const SAMPLE_SIZE: i64 = 3;
/// Seed of random inputs.
const SEED: u64 = 0;

/// What is known of the error of a region.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Accuracy {
    /// Nothing is narrowed.
    Exact,
    /// The largest error, relative to the largest value of each result; `f64::MAX` if a result overflows.
    Error(f64),
    /// Nothing was compared, and why.
    Unknown(&'static str),
}

/// Measures regions, each distinct one once.
pub(super) struct Accuracies<'a> {
    program: &'a Module,
    samples: &'a BTreeMap<String, TensorData>,
    known: BTreeMap<(ContentHash, String), Accuracy>,
    /// What the evaluator finds with the given inputs, by entry function.
    traces: BTreeMap<String, Option<Trace>>,
    flops: f64,
    /// Were inputs given, and a region measured on random ones all the same?
    pub(super) random_instead: bool,
}

/// Values of an entry function.
struct Trace {
    values: BTreeMap<ValueRef, TensorData>,
    env: Env,
}

impl<'a> Accuracies<'a> {
    pub(super) fn new(program: &'a Module, request: &'a EngineRequest) -> Accuracies<'a> {
        let (known, traces) = (BTreeMap::new(), BTreeMap::new());
        Accuracies { program, samples: &request.samples, known, traces, flops: 0.0, random_instead: false }
    }

    /// What a precision costs in a region.
    pub(super) fn of(&mut self, entry: &Entry, region: &Region, precision: &Precision) -> Accuracy {
        let Ok(narrow) = precision.apply(region) else { return Accuracy::Unknown("it cannot be narrowed") };
        if narrow.key() == region.key() {
            return Accuracy::Exact;
        }
        let key = (region.key(), precision.name());
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let found = self.measure(entry, region, &narrow);
        self.known.insert(key, found);
        found
    }

    fn measure(&mut self, entry: &Entry, region: &Region, narrow: &Region) -> Accuracy {
        let traced = self.traced(entry).and_then(|trace| bound(trace, region));
        if let Some(inputs) = traced {
            return self.compare(region, narrow, &inputs.0, &inputs.1);
        }
        self.random_instead |= !self.samples.is_empty();
        let sizes = region.symbols.iter().map(|s| (s.name.clone(), SAMPLE_SIZE.max(s.min).min(s.max)));
        let sizes: BTreeMap<String, i64> = sizes.collect();
        let sized = at_sizes(region, &sizes);
        let mut inputs = random::inputs(&sized, &sized.functions[0].name, SEED);
        self.put_weights(entry, region, &mut inputs);
        self.compare(region, narrow, &sizes, &inputs)
    }

    /// Evaluates both, if that is not too much.
    fn compare(
        &mut self,
        region: &Region,
        narrow: &Region,
        sizes: &BTreeMap<String, i64>,
        inputs: &BTreeMap<String, TensorData>,
    ) -> Accuracy {
        let (wide, narrow) = (at_sizes(region, sizes), at_sizes(narrow, sizes));
        let flops = match work(&wide) {
            Some(flops) if self.flops + flops <= MAX_ALL_FLOPS => flops,
            _ => return Accuracy::Unknown("evaluating it takes too long"),
        };
        self.flops += flops;
        let run = |module: &Module| djinn_interp::run(module, &module.functions[0].name, inputs);
        match (run(&wide), run(&narrow)) {
            (Ok(a), Ok(b)) => {
                let pairs = a.outputs.iter().zip(&b.outputs);
                Accuracy::Error(pairs.map(|((_, a), (_, b))| difference(a, b)).fold(0.0, f64::max))
            }
            _ => Accuracy::Unknown("the evaluator does not run it"),
        }
    }

    /// Weights that are arguments of the region, with their values.
    fn put_weights(&self, entry: &Entry, region: &Region, inputs: &mut BTreeMap<String, TensorData>) {
        let Some(function) = self.program.function(&entry.function) else { return };
        let ops: Vec<&djinn_ir::Op> = function.graph.ops().map(|(_, op)| op).collect();
        for argument in &region.arguments {
            let ArgumentSource::Constant(ValueRef::Result { op, .. }) = argument.source else { continue };
            let Some(op) = ops.get(op as usize) else { continue };
            let data = match op.kind {
                OpKind::Weight => {
                    let weight = self.program.weights.get(op.attrs.str("name"));
                    weight.and_then(|w| w.data.as_ref()).map(|(_, data)| data)
                }
                OpKind::Constant => op.attrs.tensor("value"),
                _ => None,
            };
            if let (Some(data), Some(given)) = (data, inputs.get_mut(&*argument.name))
                && (data.dtype(), data.shape()) == (given.dtype(), given.shape())
            {
                *given = data.clone();
            }
        }
    }

    /// All values of an entry with the given inputs; `None` without them, or where that takes too long.
    fn traced(&mut self, entry: &Entry) -> Option<&Trace> {
        if self.samples.is_empty() {
            return None;
        }
        if !self.traces.contains_key(&entry.function) {
            let trace =
                self.program.function(&entry.function).and_then(|f| trace(self.program, f, self.samples));
            self.traces.insert(entry.function.clone(), trace);
        }
        self.traces.get(&entry.function)?.as_ref()
    }
}

fn trace(program: &Module, function: &Function, samples: &BTreeMap<String, TensorData>) -> Option<Trace> {
    let mut env = Env::new();
    let mut values = BTreeMap::new();
    for (number, (name, _)) in function.arguments.iter().enumerate() {
        let Some(value) = samples.get(&**name) else { continue };
        env.bind_shape(name, function.graph.ty(function.graph.arguments[number]), value.shape()).ok()?;
        values.insert(ValueRef::Argument(number as u32), value.clone());
    }
    let sized = walk::substitute(&function.graph, &|s: &Symbol| env.get(s).map(Dim::from));
    let sized = Module {
        functions: vec![Function { graph: sized, ..function.clone() }],
        symbols: program.symbols.clone(),
        ..Module::default()
    };
    work(&sized)?;
    let known = samples.iter().filter(|(n, _)| function.arguments.iter().any(|(name, _)| **name == ***n));
    let known = known.map(|(n, v)| (n.clone(), v.clone())).collect();
    let position: BTreeMap<djinn_ir::OpId, u32> = function.graph.ops().map(|(id, _)| id).zip(0..).collect();
    djinn_interp::run_traced(program, &function.name, &known, &mut |id, _, results| {
        let Some(op) = position.get(&id) else { return };
        let results =
            results.iter().zip(0..).map(|(v, index)| (ValueRef::Result { op: *op, index }, v.clone()));
        values.extend(results);
    })
    .ok()?;
    Some(Trace { values, env })
}

/// Sizes and inputs of a region by name, if the values are those that it is made for.
fn bound(trace: &Trace, region: &Region) -> Option<(BTreeMap<String, i64>, BTreeMap<String, TensorData>)> {
    let mut sizes = BTreeMap::new();
    for symbol in &region.symbols {
        let size = trace.env.get(&Symbol::new(&symbol.symbol))?;
        if !(symbol.min..=symbol.max).contains(&size) {
            return None;
        }
        sizes.insert(symbol.name.clone(), size);
    }
    let mut inputs = BTreeMap::new();
    for argument in &region.arguments {
        let value = match argument.source {
            ArgumentSource::Input(value) | ArgumentSource::Constant(value) => {
                trace.values.get(&value)?.clone()
            }
            ArgumentSource::Size(number) => {
                let name = &region.symbols.get(number as usize)?.name;
                TensorData::splat(DType::Bool, &[usize::try_from(*sizes.get(name)?).ok()?], 0.0)?
            }
        };
        inputs.insert(argument.name.to_string(), value);
    }
    Some((sizes, inputs))
}

/// The region's module with its sizes put in.
fn at_sizes(region: &Region, sizes: &BTreeMap<String, i64>) -> Module {
    walk::substitute_module(&region.module, &|s: &Symbol| sizes.get(s.name()).copied().map(Dim::from))
}

/// Multiply-accumulate work of a module, FLOP; `None` if the evaluator takes too long or too much memory for it.
fn work(module: &Module) -> Option<f64> {
    let model = CostModel::generic(&module.symbols);
    let (mut flops, mut elements) = (0.0, 0.0);
    for (_, op) in module.functions.iter().flat_map(|f| f.graph.ops().map(move |o| (f, o.1))) {
        let graph = &module.functions[0].graph;
        let operands: Vec<&TensorType> = op.operands.iter().map(|v| graph.ty(*v)).collect();
        let results: Vec<TensorType> = op.results.iter().map(|v| graph.ty(*v).clone()).collect();
        flops += model.flops(op.kind, &operands, &results);
        elements += results.iter().map(|t| model.bytes(t) / t.dtype.size() as f64).sum::<f64>();
    }
    (flops <= MAX_FLOPS && elements <= MAX_ELEMENTS).then_some(flops)
}

/// The largest difference of two results, relative to the largest value; of results that are not floats, the share of
/// elements that differ.
fn difference(wide: &TensorData, narrow: &TensorData) -> f64 {
    let count = wide.numel();
    if wide.shape() != narrow.shape() {
        return f64::MAX;
    }
    let pairs = || (0..count).filter_map(|i| Some((wide.get_f64(i)?, narrow.get_f64(i)?)));
    if !wide.dtype().is_float() {
        let different = pairs().filter(|(a, b)| a != b).count();
        return different as f64 / count.max(1) as f64;
    }
    let (mut scale, mut worst) = (0f64, 0f64);
    for (a, b) in pairs().filter(|(a, b)| a != b && !(a.is_nan() && b.is_nan())) {
        worst = worst.max(if (a - b).is_finite() { (a - b).abs() } else { f64::MAX });
    }
    for (a, _) in pairs().filter(|(a, _)| a.is_finite()) {
        scale = scale.max(a.abs());
    }
    match (worst, scale) {
        (0.0, _) => 0.0,
        (w, s) if w == f64::MAX || s == 0.0 => f64::MAX,
        (w, s) => w / s,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_largest_value() {
        let floats = |v: &[f32]| TensorData::from_f32(&[v.len()], v).expect("a tensor");
        let a = floats(&[1.0, -4.0, f32::NAN, f32::INFINITY]);
        assert_eq!(difference(&a, &a), 0.0);
        assert_eq!(difference(&a, &floats(&[1.5, -4.0, f32::NAN, f32::INFINITY])), 0.125);
        assert_eq!(difference(&a, &floats(&[1.0, f32::NEG_INFINITY, f32::NAN, f32::INFINITY])), f64::MAX);
        assert_eq!(difference(&a, &floats(&[1.0, -4.0, 0.0, f32::INFINITY])), f64::MAX);
        let integers = |v: &[i64]| TensorData::from_i64(&[v.len()], v).expect("a tensor");
        assert_eq!(difference(&integers(&[1, 2, 3, 4]), &integers(&[1, 2, 3, 5])), 0.25);
    }
}
