//! Values that depend on weights and constants only, computed before the first run.

use crate::resolve::{FunctionTable, type_of, wrong};
use djinn_diag::{Context, Result, input, internal};
use djinn_interp::{Env, eval_op};
use djinn_ir::{Graph, Module, Op, TensorData, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Receives a value that was asked for.
pub(crate) type Sink<'a> = dyn FnMut(ValueId, &TensorData) -> Result<()> + 'a;

/// Computes the wanted values of a function and what they need, each operation once, in the order of the function.
/// Values are dropped after their last use. Gives the values of symbols that operations have determined.
pub(crate) fn compute(
    program: &Module,
    table: &FunctionTable,
    wanted: &BTreeSet<ValueId>,
    sink: &mut Sink,
) -> Result<Env> {
    let graph = &table.function(program).graph;
    let mut uses = needed(program, table, wanted)?;
    let (mut env, mut values) = (Env::new(), BTreeMap::<ValueId, TensorData>::new());
    for (position, id) in table.ops().iter().enumerate() {
        let Some(op) = graph.get_op(*id).filter(|op| op.results.iter().any(|v| uses.contains_key(v))) else {
            continue;
        };
        let mut operands = Vec::with_capacity(op.operands.len());
        for v in &op.operands {
            let value = values.get(v).cloned();
            operands.push(value.ok_or_else(|| wrong(format!("value {} is used before it is made", v.0)))?);
            let left = uses.entry(*v).or_insert(1);
            *left = left.saturating_sub(1);
            if *left == 0 {
                values.remove(v);
            }
        }
        let results = evaluate(program, graph, (position, op), &operands, &mut env)?;
        for (v, value) in op.results.iter().zip(results) {
            if wanted.contains(v) {
                sink(*v, &value)?;
            }
            if uses.get(v).is_some_and(|n| *n > 0) {
                values.insert(*v, value);
            }
        }
    }
    Ok(env)
}

/// The values that the wanted ones are made of, themselves included, with how often operations read each.
fn needed(
    program: &Module,
    table: &FunctionTable,
    wanted: &BTreeSet<ValueId>,
) -> Result<BTreeMap<ValueId, usize>> {
    let graph = &table.function(program).graph;
    let mut uses: BTreeMap<ValueId, usize> = wanted.iter().map(|v| (*v, 0)).collect();
    let (mut open, mut seen): (Vec<ValueId>, _) = (wanted.iter().copied().collect(), BTreeSet::new());
    while let Some(v) = open.pop() {
        let definition = graph.get_value(v).and_then(|_| graph.definition(v));
        let Some((id, op)) = definition.and_then(|(id, _)| Some((id, graph.get_op(id)?))) else {
            return Err(input("runtime.constant", "a constant of the plan depends on an argument")
                .help("only values of weights and constants can be computed before a run"));
        };
        if !seen.insert(id) {
            continue;
        }
        for operand in &op.operands {
            *uses.entry(*operand).or_insert(0) += 1;
            open.push(*operand);
        }
    }
    Ok(uses)
}

/// Evaluates the operation at a position of a function. Gives symbols that it determines their values.
pub(crate) fn evaluate(
    program: &Module,
    graph: &Graph,
    (position, op): (usize, &Op),
    operands: &[TensorData],
    env: &mut Env,
) -> Result<Vec<TensorData>> {
    let weights = |name: &str| program.weights.get(name)?.data.as_ref().map(|(_, d)| d.clone());
    eval_op(op.kind, &op.attrs, operands, &op.regions, env, &weights)
        .and_then(|results| check_results(graph, op, &results, env).map(|()| results))
        .at(|| op_place(position, op))
}

/// Results must have the types that the graph declares, for the values the symbols have.
fn check_results(graph: &Graph, op: &Op, results: &[TensorData], env: &mut Env) -> Result<()> {
    if op.results.len() != results.len() {
        let message = format!("{} results are declared, {} were computed", op.results.len(), results.len());
        return Err(internal("runtime.results", message));
    }
    for (i, (v, result)) in op.results.iter().zip(results).enumerate() {
        let ty = type_of(graph, *v)?;
        if ty.dtype != result.dtype() {
            let message = format!("result {i} is {}, but its type says {ty}", result.ty());
            return Err(internal("runtime.type", message));
        }
        env.bind_shape(&format!("result {i}"), ty, result.shape())?;
    }
    Ok(())
}

/// How messages name an operation.
fn op_place(position: usize, op: &Op) -> String {
    let scope = op.location.scope.as_deref().map(|s| format!(" in {s}")).unwrap_or_default();
    format!("operation {position} '{}'{scope}", op.kind.name())
}
