//! Finite minima in attention masks.
//!
//! Models hide keys by adding the lowest float. Where a query sees no key at all, softmax then gives the mean of all
//! values, in the IR and by ONNX's definition; onnxruntime's Attention takes the lowest float for −∞ and gives zeros.
//! A large negative number that is not the lowest one means the same in both, so such constants are replaced where
//! they reach nothing but masks.

use djinn_diag::Result;
use djinn_ir::{Attrs, DType, Fuel, Graph, OpKind, Patch, TensorData, ValueId, walk};
use std::collections::BTreeSet;

/// Finite values below this are replaced.
const LOWEST: f64 = -1e37;

/// What they are replaced by: no score reaches it, and sums with scores do not change it in `f32`.
const REPLACEMENT: f64 = -1e30;

/// The graph with finite minima in masks replaced; `None` if there are none.
///
/// # Errors
/// Internal diagnostics only.
pub(crate) fn without_lowest(graph: &Graph) -> Result<Option<Graph>> {
    let flow = mask_flow(graph);
    let users = walk::users(graph);
    let stays_in_masks = |v: ValueId| {
        !graph.results.contains(&v)
            && users[v.0 as usize].iter().all(|(op, operand)| {
                let op = graph.op(*op);
                let is_mask = op.kind == OpKind::Sdpa && *operand == 3;
                is_mask || op.results.iter().all(|r| flow.contains(r))
            })
    };
    // Every value on the way must end in masks, or another use would see the change.
    if flow.iter().any(|v| graph.definition(*v).is_some() && !is_literal(graph, *v) && !stays_in_masks(*v)) {
        return Ok(None);
    }
    let mut patch = Patch::new("masks", graph);
    for v in flow.iter().filter(|v| is_literal(graph, **v) && stays_in_masks(**v)) {
        if let Some(data) = replaced(graph, *v) {
            let new = patch.op(graph, OpKind::Constant, &[], Attrs::new().with("value", data))?;
            patch.replace(*v, new);
        }
    }
    if patch.is_empty() {
        return Ok(None);
    }
    let mut out = graph.clone();
    patch.apply(&mut out, &mut Fuel::unlimited())?;
    Ok(Some(out))
}

/// The values from which masks are made by selection, addition and movement.
fn mask_flow(graph: &Graph) -> BTreeSet<ValueId> {
    let masks =
        graph.ops().filter(|(_, op)| op.kind == OpKind::Sdpa).filter_map(|(_, op)| op.operands.get(3));
    let mut stack: Vec<ValueId> = masks.copied().filter(|v| graph.ty(*v).dtype.is_float()).collect();
    let mut flow = BTreeSet::new();
    while let Some(v) = stack.pop() {
        if !flow.insert(v) {
            continue;
        }
        let Some((id, _)) = graph.definition(v) else { continue };
        let op = graph.op(id);
        match op.kind {
            OpKind::Select => stack.extend(&op.operands[1..]),
            OpKind::Add | OpKind::Concat => stack.extend(&op.operands),
            OpKind::Broadcast | OpKind::Reshape | OpKind::Slice | OpKind::Transpose => {
                stack.push(op.operands[0])
            }
            _ => {}
        }
    }
    flow.retain(|v| graph.ty(*v).dtype.is_float());
    flow
}

fn is_literal(graph: &Graph, v: ValueId) -> bool {
    graph.definition(v).is_some_and(|(id, _)| graph.op(id).kind == OpKind::Constant)
}

/// The literal with its finite minima replaced; `None` if it has none.
fn replaced(graph: &Graph, v: ValueId) -> Option<TensorData> {
    let (id, _) = graph.definition(v)?;
    let data = graph.op(id).attrs.tensor("value")?;
    if !matches!(data.dtype(), DType::F32 | DType::F64 | DType::BF16) {
        return None;
    }
    let values: Vec<f64> = (0..data.numel()).map(|i| data.get_f64(i)).collect::<Option<_>>()?;
    if !values.iter().any(|x| x.is_finite() && *x < LOWEST) {
        return None;
    }
    let encode = |x: f64| {
        let x = if x.is_finite() && x < LOWEST { REPLACEMENT } else { x };
        djinn_ir::data::encode_f64(data.dtype(), x)
    };
    TensorData::new(
        data.dtype(),
        data.shape().to_vec(),
        values.into_iter().flat_map(encode).collect::<Vec<u8>>(),
    )
}
