//! Evaluation of a function of a module, and of graphs in general.

use crate::env::{Binding, Env};
use crate::eval::{Program, eval_in};
use djinn_diag::{Context, Diagnostic, Result, input, internal};
use djinn_ir::{ArgumentKind, Function, Graph, Module, Op, OpId, ResultKind, TensorData, ValueId};
use std::collections::BTreeMap;

/// What a run of a function gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outputs {
    /// Names and values of the results handed to the caller, in order.
    pub outputs: Vec<(String, TensorData)>,
    /// Names of updated state arguments and their new values, in order.
    pub updates: Vec<(String, TensorData)>,
}

impl Outputs {
    /// The output of this name.
    pub fn output(&self, name: &str) -> Option<&TensorData> {
        self.outputs.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }

    /// The new value of the state argument of this name.
    pub fn update(&self, name: &str) -> Option<&TensorData> {
        self.updates.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }
}

/// Evaluates a function on inputs by name. State arguments that are not given start as their initial weight.
///
/// # Errors
/// `interp.input` for missing, unknown or ill-typed inputs; otherwise those of [`crate::eval_op`], with the operation as
/// place; the function is for the caller to name.
pub fn run(module: &Module, function: &str, inputs: &BTreeMap<String, TensorData>) -> Result<Outputs> {
    run_traced(module, function, inputs, &mut |_, _, _| {})
}

/// [`run`], calling `on_value` with the results of every operation of the function as they are computed.
///
/// Operations inside regions are not reported.
///
/// # Errors
/// As [`run`].
pub fn run_traced(
    module: &Module,
    function: &str,
    inputs: &BTreeMap<String, TensorData>,
    on_value: &mut dyn FnMut(OpId, &Op, &[TensorData]),
) -> Result<Outputs> {
    let f = module
        .function(function)
        .ok_or_else(|| input("interp.input", format!("the module has no function '{function}'")))?;
    let args = arguments(module, f, inputs)?;
    let mut env = bind_arguments(module, f, &args)?;
    let weights = |name: &str| module.weights.get(name)?.data.as_ref().map(|(_, d)| d.clone());
    let program = Program { weights: &weights, functions: &module.functions };
    let results = run_graph(&f.graph, args, &mut env, &program, on_value)?;
    let mut outputs = Outputs::default();
    for ((name, kind), value) in f.results.iter().zip(results) {
        match kind {
            ResultKind::Output => outputs.outputs.push((name.to_string(), value)),
            ResultKind::Update(n) => {
                let (argument, _) = f.arguments.get(*n as usize).ok_or_else(|| {
                    internal(
                        "interp.update",
                        format!("result '{name}' updates argument {n}, which is not there"),
                    )
                })?;
                outputs.updates.push((argument.to_string(), value));
            }
        }
    }
    Ok(outputs)
}

/// The values of a function's arguments, in order.
fn arguments(
    module: &Module,
    f: &Function,
    inputs: &BTreeMap<String, TensorData>,
) -> Result<Vec<TensorData>> {
    let names: Vec<&str> = f.arguments.iter().map(|(n, _)| &**n).collect();
    if let Some(extra) = inputs.keys().find(|k| !names.contains(&k.as_str())) {
        let known = names.join("', '");
        return Err(input("interp.input", format!("there is no argument '{extra}'"))
            .help(format!("the arguments are '{known}'")));
    }
    let value = |(name, kind): &(std::sync::Arc<str>, ArgumentKind)| {
        if let Some(given) = inputs.get(&**name) {
            return Ok(given.clone());
        }
        match kind {
            ArgumentKind::Input | ArgumentKind::Weight => {
                Err(input("interp.input", format!("argument '{name}' is missing")))
            }
            ArgumentKind::State { initial: None } => {
                Err(input("interp.input", format!("state '{name}' has no first value; it must be given")))
            }
            ArgumentKind::State { initial: Some(weight) } => {
                let data = module.weights.get(weight).and_then(|w| w.data.as_ref());
                data.map(|(_, d)| d.clone()).ok_or_else(|| {
                    input(
                        "interp.input",
                        format!("state '{name}' starts as weight '{weight}', which has no values"),
                    )
                })
            }
        }
    };
    f.arguments.iter().map(value).collect()
}

/// Checks the arguments against their types; gives the values of the symbols.
fn bind_arguments(module: &Module, f: &Function, args: &[TensorData]) -> Result<Env> {
    let graph = &f.graph;
    let known = |v: &ValueId| (v.0 as usize) < graph.value_capacity();
    if graph.arguments.len() != args.len() || !graph.arguments.iter().all(known) {
        return Err(internal("interp.arguments", "the function's arguments do not match its graph"));
    }
    let names: Vec<String> = f.arguments.iter().map(|(n, _)| format!("argument '{n}'")).collect();
    let mut bindings = Vec::new();
    for ((v, arg), what) in graph.arguments.iter().zip(args).zip(&names) {
        let ty = graph.ty(*v);
        if ty.dtype != arg.dtype() {
            let message =
                format!("element type of {what} is {}, but its type says {}", arg.dtype(), ty.dtype);
            return Err(input("interp.input", message));
        }
        bindings.push(Binding { what, ty, shape: arg.shape() });
    }
    let mut env = Env::new();
    env.bind_all(&bindings)?;
    env.check(&module.symbols)?;
    Ok(env)
}

/// Values of a graph under evaluation; each is dropped after its last use.
struct Frame {
    values: Vec<Option<TensorData>>,
    uses: Vec<u32>,
}

impl Frame {
    fn new(graph: &Graph) -> Frame {
        let mut uses = vec![0u32; graph.value_capacity()];
        let operands = graph.ops().flat_map(|(_, op)| op.operands.iter());
        for v in operands.chain(&graph.results) {
            if let Some(n) = uses.get_mut(v.0 as usize) {
                *n += 1;
            }
        }
        Frame { values: vec![None; uses.len()], uses }
    }

    fn set(&mut self, v: ValueId, value: TensorData) {
        let i = v.0 as usize;
        if self.uses.get(i).is_some_and(|n| *n > 0) {
            self.values[i] = Some(value);
        }
    }

    fn take(&mut self, v: ValueId) -> Result<TensorData> {
        let i = v.0 as usize;
        let value = self.values.get(i).cloned().flatten();
        let value = value
            .ok_or_else(|| internal("interp.undefined", format!("value {i} is used before it is made")))?;
        self.uses[i] -= 1;
        if self.uses[i] == 0 {
            self.values[i] = None;
        }
        Ok(value)
    }
}

/// Evaluates a graph whose argument types have been bound into `env`.
pub(crate) fn run_graph(
    graph: &Graph,
    args: Vec<TensorData>,
    env: &mut Env,
    program: &Program<'_>,
    on_value: &mut dyn FnMut(OpId, &Op, &[TensorData]),
) -> Result<Vec<TensorData>> {
    let mut frame = Frame::new(graph);
    graph.arguments.iter().zip(args).for_each(|(v, arg)| frame.set(*v, arg));
    for (id, op) in graph.ops() {
        let operands: Vec<TensorData> = op.operands.iter().map(|v| frame.take(*v)).collect::<Result<_>>()?;
        let results = eval_in(op.kind, &op.attrs, &operands, &op.regions, env, program)
            .and_then(|results| check_declared(graph, op, &results, env).map(|()| results))
            .at(|| place(id, op))?;
        on_value(id, op, &results);
        op.results.iter().zip(results).for_each(|(v, value)| frame.set(*v, value));
    }
    graph.results.iter().map(|v| frame.take(*v)).collect()
}

fn place(id: OpId, op: &Op) -> String {
    let scope = op.location.scope.as_deref().map(|s| format!(" in {s}")).unwrap_or_default();
    format!("operation {} '{}'{scope}", id.0, op.kind.name())
}

/// Results must have the types that the graph declares, for the values the symbols have.
fn check_declared(graph: &Graph, op: &Op, results: &[TensorData], env: &mut Env) -> Result<()> {
    if op.results.len() != results.len() {
        let message = format!("{} results are declared, {} were computed", op.results.len(), results.len());
        return Err(internal("interp.results", message));
    }
    for (i, (v, r)) in op.results.iter().zip(results).enumerate() {
        let ty = graph.ty(*v);
        if ty.dtype != r.dtype() {
            return Err(internal("interp.type", format!("result {i} is {}, but its type says {ty}", r.ty())));
        }
        let as_internal = |d: Box<Diagnostic>| internal("interp.type", d.message);
        env.bind_shape(&format!("result {i}"), ty, r.shape()).map_err(as_internal)?;
    }
    Ok(())
}
