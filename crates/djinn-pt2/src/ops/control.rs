//! Branches and loops.

use super::Table;
use crate::context::{Call, Cx, Ret, Scalar};
use crate::env::RootOrigin;
use crate::schema::{Argument, Graph};
use djinn_diag::Result;
use djinn_ir::{DType, Dim, OpKind, TensorType, attrs};
use djinn_srg::{SrgGraph, SrgValue};

pub(super) const TABLE: Table = &[("higher_order.cond", cond), ("higher_order.while_loop", while_loop)];

fn graph_at<'p>(call: &Call<'p>, i: usize) -> Result<&'p Graph> {
    match call.node.inputs.get(i).map(|a| &a.arg) {
        Some(Argument::Graph(g)) => Ok(&g.graph),
        _ => Err(call.bad(&format!("number {i}"), "a graph")),
    }
}

fn tensors_at<'p>(cx: &mut Cx<'p>, call: &Call<'p>, i: usize) -> Result<Vec<SrgValue>> {
    match call.node.inputs.get(i).map(|a| &a.arg) {
        None | Some(Argument::None(_)) => Ok(Vec::new()),
        Some(Argument::Ints(v)) if v.is_empty() => Ok(Vec::new()),
        Some(Argument::Tensors(list)) => list.iter().map(|n| cx.value_named(&n.name)).collect(),
        Some(_) => Err(call.unsupported("operands that are not all tensors")),
    }
}

/// The graph as a region with these arguments.
fn region<'p>(
    cx: &mut Cx<'p>,
    types: Vec<TensorType>,
    body: impl FnOnce(&mut Cx<'p>, &[SrgValue]) -> Result<Vec<SrgValue>>,
) -> Result<SrgGraph> {
    let args = cx.b.begin_region(types);
    match body(cx, &args) {
        Ok(results) => cx.b.end_region(results),
        Err(e) => {
            cx.b.abandon_region();
            Err(e)
        }
    }
}

fn types_of(cx: &Cx<'_>, values: &[SrgValue]) -> Vec<TensorType> {
    values.iter().map(|v| cx.b.ty(*v).clone()).collect()
}

/// The value as a bool scalar.
fn truth(cx: &mut Cx<'_>, v: SrgValue) -> Result<SrgValue> {
    let v = cx.reshape(v, Vec::new())?;
    cx.cast(v, DType::Bool)
}

fn cond<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let pred = match call.node.inputs.first().map(|a| &a.arg) {
        Some(Argument::Tensor(n)) => cx.value_named(&n.name)?,
        _ => return Err(call.unsupported("a condition that is not a tensor")),
    };
    let pred = truth(cx, pred)?;
    let args = tensors_at(cx, call, 3)?;
    let mut regions = Vec::new();
    for i in [1, 2] {
        let graph = graph_at(call, i)?;
        let types = types_of(cx, &args);
        regions.push(region(cx, types, |cx, args| cx.inline(graph, args, RootOrigin::Captured))?);
    }
    let operands = [&[pred][..], &args].concat();
    let results = cx.b.op_with_regions(OpKind::If, &operands, attrs! {}, regions)?;
    Ok(Ret::Values(results.into_iter().map(Some).collect()))
}

/// A loop without trip limit: the condition is computed once before it and at the end of each round.
fn while_loop<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let (test, body) = (graph_at(call, 0)?, graph_at(call, 1)?);
    let carried = tensors_at(cx, call, 2)?;
    let invariant = tensors_at(cx, call, 3)?;
    let args = [&carried[..], &invariant].concat();
    let first = cx.inline(test, &args, RootOrigin::Captured)?;
    let first = first.first().copied().ok_or_else(|| call.bad("cond_fn", "a graph with a result"))?;
    let first = truth(cx, first)?;
    let limit = cx.constant(DType::I64, &Scalar::Int(Dim::from(i64::MAX)))?;
    let result_types = types_of(cx, &carried);
    let mut types = vec![TensorType::scalar(DType::I64), TensorType::scalar(DType::Bool)];
    types.extend(types_of(cx, &args));
    let count = carried.len();
    let loop_body = region(cx, types, |cx, args| {
        let next = cx.inline(body, &args[2..], RootOrigin::Captured)?;
        if next.len() != count {
            return Err(call.bad("body_fn", "a graph that gives what it carries"));
        }
        let again = [&next[..], &args[2 + count..]].concat();
        let test = cx.inline(test, &again, RootOrigin::Captured)?;
        let test = test.first().copied().ok_or_else(|| call.bad("cond_fn", "a graph with a result"))?;
        let test = truth(cx, test)?;
        Ok([&[test][..], &next].concat())
    })?;
    let operands = [&[limit, first][..], &args].concat();
    let attrs = attrs! { carried: count as i64, types: result_types };
    let results = cx.b.op_with_regions(OpKind::Loop, &operands, attrs, vec![loop_body])?;
    Ok(Ret::Values(results.into_iter().map(Some).collect()))
}
