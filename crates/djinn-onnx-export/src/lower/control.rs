//! Operations with subgraphs: regions see nothing but their arguments, which are bound to names outside.

use super::Cx;
use crate::finish::prune;
use crate::proto::{graph as graph_attr, int, ints, value_info};
use crate::reshape;
use djinn_diag::Result;
use djinn_ir::{DType, Dim, Graph, Op, TensorType};
use djinn_onnx_proto as onnx;

/// Name and type of a subgraph's own inputs.
type Inputs = Vec<(String, TensorType)>;

/// Writes a region whose arguments have these names; `own` are those that the subgraph itself declares.
fn region(cx: &mut Cx<'_, '_>, graph: &Graph, args: &[String], own: &Inputs) -> Result<onnx::GraphProto> {
    let (scope, metadata) = cx.e.origin();
    cx.e.open_scope();
    let body = lower_region(cx, graph, args);
    let nodes = cx.e.close_scope();
    cx.e.set_origin(&scope, metadata);
    Ok(subgraph(cx, nodes, own, &body?))
}

/// Lowers the region and gives its outputs: each a value of its own that a node inside defines.
fn lower_region(cx: &mut Cx<'_, '_>, graph: &Graph, args: &[String]) -> Result<Inputs> {
    let mut inner = Cx::new(&mut *cx.e, cx.module, graph);
    for (v, name) in graph.arguments.iter().zip(args) {
        inner.bind(*v, name);
    }
    inner.run()?;
    let mut outputs: Inputs = Vec::new();
    for v in &graph.results {
        let (mut name, ty) = (inner.name(*v)?, graph.ty(*v).clone());
        if !inner.e.defined_here(&name) || outputs.iter().any(|(n, _)| *n == name) {
            name = inner.e.node("Identity", &[&name], vec![], ty.clone())?;
        }
        outputs.push((name, ty));
    }
    Ok(outputs)
}

fn subgraph(
    cx: &mut Cx<'_, '_>,
    nodes: Vec<onnx::NodeProto>,
    inputs: &Inputs,
    outputs: &Inputs,
) -> onnx::GraphProto {
    let infos = |values: &Inputs| values.iter().map(|(name, ty)| value_info(name, ty)).collect();
    onnx::GraphProto {
        node: prune(nodes, outputs.iter().map(|(name, _)| name.as_str())),
        name: cx.e.fresh("body"),
        input: infos(inputs),
        output: infos(outputs),
        ..Default::default()
    }
}

fn result_types(cx: &Cx<'_, '_>, op: &Op) -> Vec<TensorType> {
    op.results.iter().map(|v| cx.graph.ty(*v).clone()).collect()
}

pub(super) fn if_op(cx: &mut Cx<'_, '_>, op: &Op) -> Result<Vec<String>> {
    let operands = cx.operands(op)?;
    let mut attrs = Vec::new();
    for (name, body) in ["then_branch", "else_branch"].into_iter().zip(&op.regions) {
        attrs.push(graph_attr(name, region(cx, body, &operands[1..], &Vec::new())?));
    }
    cx.e.nodes("If", &[&operands[0]], attrs, &result_types(cx, op))
}

pub(super) fn loop_op(cx: &mut Cx<'_, '_>, op: &Op) -> Result<Vec<String>> {
    let operands = cx.operands(op)?;
    let carried = usize::try_from(op.attrs.int("carried")).unwrap_or(0);
    let body = &op.regions[0];
    let mut own: Inputs = Vec::new();
    for v in body.arguments.iter().take(2 + carried) {
        let (name, ty) = (cx.e.fresh("iterated"), body.ty(*v).clone());
        cx.e.declare(&name, ty.clone());
        own.push((name, ty));
    }
    let mut args: Vec<String> = own.iter().map(|(name, _)| name.clone()).collect();
    args.extend_from_slice(&operands[(2 + carried).min(operands.len())..]);
    let attrs = vec![graph_attr("body", region(cx, body, &args, &own)?)];
    let inputs: Vec<&str> = operands.iter().take(2 + carried).map(String::as_str).collect();
    cx.e.nodes("Loop", &inputs, attrs, &result_types(cx, op))
}

/// A running product: ONNX's CumProd is younger than the opsets written here, so a Scan multiplies along the axis.
pub(super) fn cumprod(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let ty = cx.result_ty(op);
    let axis = usize::try_from(op.attrs.int("axis")).unwrap_or(0);
    let mut slice_ty = ty.clone();
    slice_ty.shape.remove(axis);
    // A running product of booleans or narrow integers is computed in a type that Mul has.
    let dtype = if ty.dtype.is_float() || ty.dtype.size() >= 4 { ty.dtype } else { DType::I32 };
    slice_ty.dtype = dtype;
    let x = cx.name(op.operands[0])?;
    let x = cx.e.cast(&x, dtype)?;
    let one = cx.e.scalar(dtype, 1.0)?;
    let start = spread(cx, &one, &slice_ty.shape)?;
    let (state, item) = (cx.e.fresh("product"), cx.e.fresh("factor"));
    let own = vec![(state.clone(), slice_ty.clone()), (item.clone(), slice_ty.clone())];
    own.iter().for_each(|(name, ty)| cx.e.declare(name, ty.clone()));
    cx.e.open_scope();
    let outputs = cumprod_body(cx, op, &state, &item, &slice_ty);
    let nodes = cx.e.close_scope();
    let body = subgraph(cx, nodes, &own, &outputs?);
    let direction = [i64::from(op.attrs.bool("reverse"))];
    let attrs = vec![
        graph_attr("body", body),
        int("num_scan_inputs", 1),
        ints("scan_input_axes", &[axis as i64]),
        ints("scan_input_directions", &direction),
        ints("scan_output_axes", &[axis as i64]),
        ints("scan_output_directions", &direction),
    ];
    let names = cx.e.nodes("Scan", &[&start, &x], attrs, &[slice_ty, ty.with_dtype(dtype)])?;
    cx.e.cast(&names[1], ty.dtype)
}

fn spread(cx: &mut Cx<'_, '_>, scalar: &str, shape: &[Dim]) -> Result<String> {
    reshape::expand(cx.e, scalar, shape)
}

fn cumprod_body(cx: &mut Cx<'_, '_>, op: &Op, state: &str, item: &str, ty: &TensorType) -> Result<Inputs> {
    let next = cx.e.node("Mul", &[state, item], vec![], ty.clone())?;
    let shown = if op.attrs.bool("exclusive") { state } else { next.as_str() };
    let shown = cx.e.node("Identity", &[shown], vec![], ty.clone())?;
    Ok(vec![(next, ty.clone()), (shown, ty.clone())])
}
