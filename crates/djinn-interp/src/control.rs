//! Operations with regions.

use crate::env::{Binding, Env};
use crate::eval::Program;
use crate::movement::{concat, reshape};
use crate::run::run_graph;
use crate::tensor::{from_bools, from_bytes, from_ints};
use djinn_diag::{Context, Result, input, unsupported};
use djinn_ir::{Attrs, DType, Graph, TensorData, TensorType};

/// Regions and calls inside each other, at most.
const MAX_DEPTH: usize = 32;
/// Iterations of one loop, at most: a condition that never becomes false ends in a diagnostic.
const MAX_ITERATIONS: i64 = 1 << 20;

fn fail(op: &str, message: &str) -> Box<djinn_diag::Diagnostic> {
    input(format!("interp.{op}"), format!("'{op}': {message}"))
}

/// The element of a scalar.
fn scalar(op: &str, operands: &[TensorData], i: usize, dtype: DType) -> Result<i64> {
    operands
        .get(i)
        .filter(|t| t.dtype() == dtype && t.shape().is_empty())
        .and_then(|t| t.get_i64(0))
        .ok_or_else(|| fail(op, &format!("operand {i} is not a scalar of type {dtype}")))
}

/// Runs a region; its symbols are its own.
fn run_region(
    region: &Graph,
    args: Vec<TensorData>,
    mut env: Env,
    program: &Program<'_>,
) -> Result<Vec<TensorData>> {
    env.depth += 1;
    if env.depth > MAX_DEPTH {
        return Err(unsupported(
            "interp.depth",
            format!("more than {MAX_DEPTH} regions lie inside each other"),
        ));
    }
    run_graph(region, args, &mut env, program, &mut |_, _, _| {})
}

/// Types of a region's arguments, once their number and element types are known to fit.
fn argument_types<'a>(op: &str, region: &'a Graph, args: &[TensorData]) -> Result<Vec<&'a TensorType>> {
    let known = |v: &djinn_ir::ValueId| (v.0 as usize) < region.value_capacity();
    if region.arguments.len() != args.len() || !region.arguments.iter().all(known) {
        return Err(fail(
            op,
            &format!("a region takes {} arguments, not {}", region.arguments.len(), args.len()),
        ));
    }
    let types: Vec<&TensorType> = region.arguments.iter().map(|v| region.ty(*v)).collect();
    match types.iter().zip(args).position(|(t, a)| t.dtype != a.dtype()) {
        Some(i) => Err(fail(op, &format!("argument {i} of a region is {}, not {}", types[i], args[i].ty()))),
        None => Ok(types),
    }
}

fn bind(types: &[&TensorType], args: &[TensorData], env: &mut Env) -> Result<()> {
    let names: Vec<String> = (0..args.len()).map(|i| format!("region argument {i}")).collect();
    let bindings: Vec<Binding> = types
        .iter()
        .zip(args)
        .zip(&names)
        .map(|((ty, arg), what)| Binding { what, ty, shape: arg.shape() })
        .collect();
    env.bind_all(&bindings)
}

/// Runs the first region if the condition is true, else the second.
pub(crate) fn eval_if(
    operands: &[TensorData],
    regions: &[Graph],
    env: &mut Env,
    program: &Program<'_>,
) -> Result<Vec<TensorData>> {
    let cond = scalar("if", operands, 0, DType::Bool)? != 0;
    let [then, other] = regions else { return Err(fail("if", "there must be two regions")) };
    let region = if cond { then } else { other };
    let args = operands[1..].to_vec();
    let mut inner = env.clone();
    bind(&argument_types("if", region, &args)?, &args, &mut inner)?;
    run_region(region, args, inner, program).at(|| format!("region {} of 'if'", usize::from(!cond)))
}

/// The environment of one iteration. Sizes of carried values may change from iteration to iteration; their
/// symbols are then solved anew.
fn iteration_env(types: &[&TensorType], carried: usize, args: &[TensorData], outer: &Env) -> Result<Env> {
    let mut env = outer.clone();
    if bind(types, args, &mut env).is_ok() {
        return Ok(env);
    }
    let mut env = outer.clone();
    types[2..2 + carried].iter().for_each(|ty| env.forget(ty));
    bind(types, args, &mut env)?;
    Ok(env)
}

/// The values that a loop has scanned, stacked along a new axis 0.
fn stack(parts: &[TensorData], declared: &TensorType, env: &Env) -> Result<TensorData> {
    let lift = |t: &TensorData| reshape(t, [&[1], t.shape()].concat());
    if !parts.is_empty() {
        return concat(&parts.iter().map(lift).collect::<Result<Vec<_>>>()?, 0);
    }
    // Sizes that no iteration has determined are 0.
    let size = |d| env.eval(d).and_then(|v| usize::try_from(v).ok()).unwrap_or(0);
    let mut shape: Vec<usize> = declared.shape.iter().map(size).collect();
    if let Some(first) = shape.first_mut() {
        *first = 0;
    }
    from_bytes(declared.dtype, &shape, Vec::new())
}

/// Runs a private function. The symbols are those of the module: the callee sees the caller's values.
pub(crate) fn eval_call(
    attrs: &Attrs,
    operands: &[TensorData],
    env: &Env,
    program: &Program<'_>,
) -> Result<Vec<TensorData>> {
    let name = attrs.str("callee");
    let Some(f) = program.functions.iter().find(|f| f.is_private() && *f.name == *name) else {
        return Err(fail("call", &format!("there is no private function '{name}'")));
    };
    let mut inner = env.clone();
    bind(&argument_types("call", &f.graph, operands)?, operands, &mut inner)?;
    run_region(&f.graph, operands.to_vec(), inner, program).at(|| format!("function '{name}'"))
}

/// ONNX Loop.
pub(crate) fn eval_loop(
    attrs: &Attrs,
    operands: &[TensorData],
    regions: &[Graph],
    env: &mut Env,
    program: &Program<'_>,
) -> Result<Vec<TensorData>> {
    let trip_count = scalar("loop", operands, 0, DType::I64)?;
    let mut cond = scalar("loop", operands, 1, DType::Bool)? != 0;
    let [body] = regions else { return Err(fail("loop", "there must be one region")) };
    let (args, types) = (&operands[2..], attrs.types("types"));
    let carried =
        usize::try_from(attrs.int("carried")).ok().filter(|c| *c <= args.len() && *c <= types.len());
    let carried = carried.ok_or_else(|| fail("loop", "more values are carried than there are"))?;
    let mut state = args[..carried].to_vec();
    let mut scanned: Vec<Vec<TensorData>> = vec![Vec::new(); types.len() - carried];
    let mut i = 0;
    while cond && i < trip_count {
        if i >= MAX_ITERATIONS {
            return Err(unsupported(
                "interp.loop",
                format!("a loop runs for more than {MAX_ITERATIONS} iterations"),
            ));
        }
        let mut inputs = vec![from_ints(DType::I64, &[], &[i])?, from_bools(&[], &[cond])?];
        inputs.append(&mut state);
        inputs.extend_from_slice(&args[carried..]);
        let inner = iteration_env(&argument_types("loop", body, &inputs)?, carried, &inputs, env)?;
        let mut results =
            run_region(body, inputs, inner, program).at(|| format!("iteration {i} of 'loop'"))?;
        if results.len() != 1 + types.len() {
            let message = format!("the region gives {} values, not {}", results.len(), 1 + types.len());
            return Err(fail("loop", &message));
        }
        let tail = results.split_off(1 + carried);
        scanned.iter_mut().zip(tail).for_each(|(list, value)| list.push(value));
        cond = scalar("loop", &results, 0, DType::Bool)? != 0;
        state = results.split_off(1);
        i += 1;
    }
    for (list, ty) in scanned.iter().zip(&types[carried..]) {
        state.push(stack(list, ty, env)?);
    }
    for (value, ty) in state.iter().zip(types) {
        if value.dtype() != ty.dtype {
            return Err(fail("loop", &format!("a result is {}, but its type says {ty}", value.ty())));
        }
        env.bind_shape("a result of 'loop'", ty, value.shape())?;
    }
    Ok(state)
}
