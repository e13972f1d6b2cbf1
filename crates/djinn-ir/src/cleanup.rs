//! Dead code, common subexpressions and shape arithmetic, removed through patches.
//!
//! These work on one graph; regions are graphs of their own ([`crate::walk::for_each_graph_mut`]). Each function
//! applies one [`Patch`] that uses one unit of fuel for every value it replaces, and stops collecting when the fuel
//! is used up, so that a wrong replacement can be found by bisection.

use crate::attr::Attrs;
use crate::attrs;
use crate::data::TensorData;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::{Definition, Graph, Op, OpId, ValueId, Weight};
use crate::ops::{OpKind, traits};
use crate::patch::{Fuel, Patch, PatchReport};
use crate::symbolic::{self, SymbolicValue};
use crate::types::TensorType;
use djinn_diag::Result;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Removes operations whose results nothing uses. Regions are left alone.
///
/// # Errors
/// Internal diagnostics if the graph is not well formed.
pub fn eliminate_dead_code(graph: &mut Graph, fuel: &mut Fuel) -> Result<PatchReport> {
    let mut patch = Patch::new("dead-code", graph);
    patch.sweep();
    patch.apply(graph, fuel)
}

/// What two operations must share to give the same values: kind, attributes, operands.
type Key = (OpKind, Attrs, Vec<ValueId>);

/// Merges pure operations that are equal: same kind, attributes and operands (in either order, where they commute).
///
/// Weights are equal if their content hashes are, whatever their names; the first one stays. Operations with regions
/// are not compared.
///
/// # Errors
/// Internal diagnostics if the graph is not well formed.
pub fn eliminate_common_subexpressions(graph: &mut Graph, fuel: &mut Fuel) -> Result<PatchReport> {
    let mut patch = Patch::new("common-subexpressions", graph);
    let mut first_of: BTreeMap<Key, OpId> = BTreeMap::new();
    let mut merged: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    let mut count = 0;
    for (id, op) in graph.ops() {
        if !op.kind.def().has(traits::PURE) || !op.regions.is_empty() {
            continue;
        }
        let first = *first_of.entry(key(op, &merged)).or_insert(id);
        let Some(kept) = graph.get_op(first).filter(|_| first != id) else { continue };
        if fuel.left().is_some_and(|left| count + op.results.len() as u64 > left) {
            break;
        }
        for (old, new) in op.results.iter().zip(&kept.results) {
            merged.insert(*old, *new);
            patch.replace(*old, *new);
            count += 1;
        }
    }
    patch.counts_as(count).apply(graph, fuel)
}

fn key(op: &Op, merged: &BTreeMap<ValueId, ValueId>) -> Key {
    let mut operands: Vec<ValueId> =
        op.operands.iter().map(|v| merged.get(v).copied().unwrap_or(*v)).collect();
    if op.kind.def().has(traits::COMMUTATIVE) {
        operands.sort_unstable();
    }
    let mut attrs = op.attrs.clone();
    if op.kind == OpKind::Weight && !attrs.str("hash").is_empty() {
        attrs.set("name", "");
    }
    (op.kind, attrs, operands)
}

/// What is known of the small integer tensors of a graph (regions not entered).
pub fn known_values(graph: &Graph, weights: &BTreeMap<Arc<str>, Weight>) -> BTreeMap<ValueId, SymbolicValue> {
    let mut known: BTreeMap<ValueId, SymbolicValue> = BTreeMap::new();
    for (_, op) in graph.ops() {
        let [result] = op.results.as_slice() else { continue };
        let value = if op.kind == OpKind::Weight {
            let data = weights.get(op.attrs.str("name")).and_then(|w| w.data.as_ref());
            data.and_then(|(_, data)| SymbolicValue::from_data(data))
        } else {
            let operands: Vec<Option<&SymbolicValue>> = op.operands.iter().map(|v| known.get(v)).collect();
            match graph.get_value(*result) {
                Some(value) => symbolic::fold(op.kind, &op.attrs, &operands, &value.ty),
                None => None,
            }
        };
        if let Some(value) = value {
            known.insert(*result, value);
        }
    }
    known
}

/// Replaces integer tensors whose elements are known as sizes by `constant` or `dim_expr` (reshaped and cast where
/// the tensor is not an i64 scalar or vector). Weights stay weights.
///
/// # Errors
/// Internal diagnostics if the graph is not well formed.
pub fn fold_shapes(
    graph: &mut Graph,
    weights: &BTreeMap<Arc<str>, Weight>,
    fuel: &mut Fuel,
) -> Result<PatchReport> {
    let known = known_values(graph, weights);
    let used = graph.use_counts();
    let mut patch = Patch::new("shape-folding", graph);
    let mut count = 0;
    for (id, op) in graph.ops() {
        let [result] = op.results.as_slice() else { continue };
        let Some(value) = known.get(result) else { continue };
        if is_folded(graph, op) || used.get(result.0 as usize).is_none_or(|uses| *uses == 0) {
            continue;
        }
        if fuel.left() == Some(count) {
            break;
        }
        patch.inherit(graph, id);
        if let Some(new) = materialize(graph, &mut patch, value, graph.ty(*result))? {
            patch.replace(*result, new);
            count += 1;
        }
    }
    patch.counts_as(count).apply(graph, fuel)
}

/// Is this one of the forms that [`fold_shapes`] makes, or a source?
fn is_folded(graph: &Graph, op: &Op) -> bool {
    match op.kind {
        OpKind::Constant | OpKind::Weight | OpKind::DimExpr => true,
        OpKind::Cast | OpKind::Reshape => {
            let source = op.operands.first().and_then(|v| graph.get_value(*v));
            match source.map(|v| v.def) {
                Some(Definition::Result(def, _)) => graph.get_op(def).is_some_and(|def| {
                    matches!(def.kind, OpKind::DimExpr | OpKind::Reshape | OpKind::Cast)
                        && is_folded(graph, def)
                }),
                _ => false,
            }
        }
        _ => false,
    }
}

/// Operations that give this value as a tensor of this type; `None` if the element type cannot hold it.
fn materialize(
    graph: &Graph,
    patch: &mut Patch,
    value: &SymbolicValue,
    ty: &TensorType,
) -> Result<Option<ValueId>> {
    if let Some(elements) = value.as_consts() {
        let Some(data) = integers(ty.dtype, &value.shape, &elements) else { return Ok(None) };
        return patch.op(graph, OpKind::Constant, &[], attrs! { value: data }).map(Some);
    }
    if ty.dtype == DType::Bool {
        return Ok(None);
    }
    let scalar = value.shape.is_empty();
    let exprs = attrs! { exprs: value.elements.clone(), scalar: scalar };
    let mut v = patch.op(graph, OpKind::DimExpr, &[], exprs)?;
    if value.shape.len() > 1 {
        let shape: Vec<Dim> = value.shape.iter().map(|d| Dim::from(*d)).collect();
        v = patch.op(graph, OpKind::Reshape, &[v], attrs! { shape: shape })?;
    }
    if ty.dtype != DType::I64 {
        v = patch.op(graph, OpKind::Cast, &[v], attrs! { to: ty.dtype })?;
    }
    Ok(Some(v))
}

/// An integer or boolean tensor; `None` if the element type cannot hold an element.
pub fn integers(dtype: DType, shape: &[usize], elements: &[i64]) -> Option<TensorData> {
    let mut bytes = Vec::with_capacity(elements.len() * dtype.size());
    for v in elements {
        match dtype {
            DType::Bool => bytes.push(u8::from(u8::try_from(*v).ok().filter(|v| *v <= 1)? == 1)),
            DType::I8 => bytes.extend(i8::try_from(*v).ok()?.to_le_bytes()),
            DType::I16 => bytes.extend(i16::try_from(*v).ok()?.to_le_bytes()),
            DType::I32 => bytes.extend(i32::try_from(*v).ok()?.to_le_bytes()),
            DType::I64 => bytes.extend(v.to_le_bytes()),
            DType::U8 => bytes.extend(u8::try_from(*v).ok()?.to_le_bytes()),
            DType::U16 => bytes.extend(u16::try_from(*v).ok()?.to_le_bytes()),
            DType::U32 => bytes.extend(u32::try_from(*v).ok()?.to_le_bytes()),
            DType::U64 => bytes.extend(u64::try_from(*v).ok()?.to_le_bytes()),
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => return None,
        }
    }
    TensorData::new(dtype, shape.to_vec(), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::weight_attrs;
    use crate::verify::verify_graph;

    fn kinds(g: &Graph) -> Vec<&'static str> {
        g.ops().map(|(_, op)| op.kind.name()).collect()
    }

    fn f32s(dims: &[i64]) -> TensorType {
        TensorType::of(DType::F32, dims)
    }

    /// add(exp(x), y) + add(y, exp(x)), everything computed twice.
    fn doubled() -> Graph {
        let mut g = Graph::new();
        let (x, y) = (g.add_argument(f32s(&[4])), g.add_argument(f32s(&[4])));
        let mut half = |swap: bool| {
            let e = g.build1(OpKind::Exp, &[x], Attrs::new()).expect("exp");
            let operands = if swap { [y, e] } else { [e, y] };
            g.build1(OpKind::Add, &operands, Attrs::new()).expect("add")
        };
        let (a, b) = (half(false), half(true));
        let sum = g.build1(OpKind::Mul, &[a, b], Attrs::new()).expect("mul");
        g.results = vec![sum];
        g
    }

    #[test]
    fn equal_operations_are_merged_also_through_each_other() {
        let mut g = doubled();
        let mut fuel = Fuel::unlimited();
        let report = eliminate_common_subexpressions(&mut g, &mut fuel).expect("merges");
        assert_eq!((report.replaced, report.removed, fuel.used()), (2, 2, 2));
        assert_eq!(kinds(&g), ["exp", "add", "mul"]);
        assert!(verify_graph(&g).is_ok());
        assert!(!eliminate_common_subexpressions(&mut g, &mut fuel).expect("again").changed());
    }

    #[test]
    fn fuel_bounds_the_number_of_merged_values() {
        let mut g = doubled();
        let mut fuel = Fuel::limited(1);
        assert_eq!(eliminate_common_subexpressions(&mut g, &mut fuel).map(|r| r.replaced), Ok(1));
        assert!(fuel.is_exhausted());
        assert_eq!(kinds(&g), ["exp", "add", "add", "mul"]);
        assert!(verify_graph(&g).is_ok());
    }

    #[test]
    fn weights_are_merged_by_content_and_opaque_operations_never() {
        let data = TensorData::from_f32(&[1], &[1.0]).expect("one");
        let weight = Weight::with_data(data);
        let absent = Weight { ty: f32s(&[1]), data: None };
        let mut g = Graph::new();
        let mut sources = Vec::new();
        for (name, w) in [("a", &weight), ("b", &weight), ("c", &absent), ("d", &absent)] {
            sources.push(g.build1(OpKind::Weight, &[], weight_attrs(name, w)).expect("weight"));
        }
        let opaque = attrs! { op: "random", payload: "", types: vec![f32s(&[1])] };
        for _ in 0..2 {
            sources.push(g.build1(OpKind::Opaque, &[], opaque.clone()).expect("opaque"));
        }
        g.results = sources;
        eliminate_common_subexpressions(&mut g, &mut Fuel::unlimited()).expect("merges");
        assert_eq!(g.len(), 5);
        assert_eq!(g.results[0], g.results[1]);
        assert_ne!(g.results[4], g.results[5]);
    }

    #[test]
    fn shape_arithmetic_becomes_sizes() {
        let mut g = Graph::new();
        let s = Dim::symbol("s0");
        let d = attrs! { exprs: vec![s.clone(), Dim::from(3)], scalar: false };
        let d = g.build1(OpKind::DimExpr, &[], d).expect("dims");
        let first = |g: &mut Graph, at: i64| {
            let (start, limit) = (Dim::from(at), Dim::from(at + 1));
            let a = attrs! { axis: 0i64, start: start, limit: limit, stride: 1i64 };
            g.build1(OpKind::Slice, &[d], a).expect("slice")
        };
        let (a, b) = (first(&mut g, 0), first(&mut g, 1));
        let product = g.build1(OpKind::Mul, &[a, b], Attrs::new()).expect("mul");
        let narrow = g.build1(OpKind::Cast, &[product], attrs! { to: DType::I32 }).expect("cast");
        let constant = g.build1(OpKind::Neg, &[b], Attrs::new()).expect("neg");
        let table = g.build1(OpKind::Reshape, &[narrow], attrs! { shape: vec![Dim::ONE, Dim::ONE] });
        g.results = vec![product, narrow, constant, table.expect("reshape")];
        let weights = BTreeMap::new();
        let report = fold_shapes(&mut g, &weights, &mut Fuel::unlimited()).expect("folds");
        assert!(report.changed() && verify_graph(&g).is_ok());
        assert!(g.ops().all(|(_, op)| is_folded(&g, op)), "{:?}", kinds(&g));
        let again = fold_shapes(&mut g, &weights, &mut Fuel::unlimited()).expect("folds");
        assert!(!again.changed(), "folding ends");
        let (def, _) = g.definition(g.results[0]).expect("defined");
        assert_eq!(g.op(def).attrs.dims("exprs"), ["3*s0".parse::<Dim>().expect("dimension")]);
        let (def, _) = g.definition(g.results[2]).expect("defined");
        let value = g.op(def).attrs.tensor("value").and_then(TensorData::to_i64s);
        assert_eq!(value, Some(vec![-3]));
    }

    #[test]
    fn integers_are_checked_against_their_type() {
        assert!(integers(DType::I8, &[1], &[127]).is_some());
        assert!(integers(DType::I8, &[1], &[128]).is_none());
        assert!(integers(DType::U64, &[1], &[-1]).is_none());
        assert!(integers(DType::Bool, &[1], &[2]).is_none());
    }

    #[test]
    fn dead_code_is_swept() {
        let mut g = doubled();
        g.results.clear();
        let report = eliminate_dead_code(&mut g, &mut Fuel::unlimited()).expect("sweeps");
        assert_eq!((report.removed, g.len()), (5, 0));
    }
}
