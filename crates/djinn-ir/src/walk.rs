//! Looking at graphs: users, order, nested regions, symbols, and equality up to numbering.

use crate::attr::{Attr, Attrs};
use crate::dim::{Dim, Symbol};
use crate::graph::{ArgumentKind, Definition, Function, Graph, Module, Op, OpId, ValueId};
use crate::ops::{OpKind, traits};
use crate::types::TensorType;
use djinn_diag::{Result, internal};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Which operations use each value and as which operand, in order of execution; indexed by value number.
///
/// Uses by the graph's results are not listed. Operands that name nothing are left out.
pub fn users(graph: &Graph) -> Vec<Vec<(OpId, usize)>> {
    let mut users = vec![Vec::new(); graph.value_capacity()];
    for (id, op) in graph.ops() {
        for (i, v) in op.operands.iter().enumerate() {
            if let Some(list) = users.get_mut(v.0 as usize) {
                list.push((id, i));
            }
        }
    }
    users
}

/// Which operations use `v` and as which operand, in order of execution.
pub fn users_of(graph: &Graph, v: ValueId) -> Vec<(OpId, usize)> {
    let uses = |(id, op): (OpId, &Op)| -> Vec<(OpId, usize)> {
        op.operands.iter().enumerate().filter(|(_, o)| **o == v).map(|(i, _)| (id, i)).collect()
    };
    graph.ops().flat_map(uses).collect()
}

/// Which values are known ahead of time, indexed by value number: weights, constants, what `known` says of the
/// graph's arguments, and what pure operations without regions compute from such values alone; copies (`transfer`) are
/// made in the run.
pub fn ahead_of_time(graph: &Graph, known: impl Fn(usize) -> bool) -> Vec<bool> {
    let mut ahead = vec![false; graph.value_capacity()];
    for (i, v) in graph.arguments.iter().enumerate() {
        if let Some(slot) = ahead.get_mut(v.0 as usize) {
            *slot = known(i);
        }
    }
    for (_, op) in graph.ops() {
        if op_is_ahead_of_time(op, &ahead) {
            op.results.iter().for_each(|v| ahead[v.0 as usize] = true);
        }
    }
    ahead
}

/// [`ahead_of_time`] of a function's body: its weight arguments are known.
pub fn function_ahead_of_time(f: &Function) -> Vec<bool> {
    ahead_of_time(&f.graph, |i| matches!(f.arguments.get(i), Some((_, ArgumentKind::Weight))))
}

/// Which values of a function are computed before any run, by value number: they are known ahead of time and do not
/// depend on a symbolic size.
pub fn known_before_runs(f: &Function) -> Vec<bool> {
    let mut known = function_ahead_of_time(f);
    for (_, op) in f.graph.ops() {
        let sized = op.results.iter().all(|r| has_fixed_sizes(f.graph.ty(*r)))
            && op.attrs.iter().all(|(_, a)| is_free_of_symbols(a));
        if !sized || !op.operands.iter().all(|v| known[v.0 as usize]) {
            op.results.iter().for_each(|r| known[r.0 as usize] = false);
        }
    }
    known
}

fn has_fixed_sizes(ty: &TensorType) -> bool {
    ty.shape.iter().all(|d| d.as_const().is_some())
}

fn is_free_of_symbols(attr: &Attr) -> bool {
    match attr {
        Attr::Dim(d) => d.as_const().is_some(),
        Attr::Dims(dims) => dims.iter().all(|d| d.as_const().is_some()),
        Attr::Types(types) => types.iter().all(has_fixed_sizes),
        _ => true,
    }
}

/// The arguments of the body that are weight arguments of the function.
pub(crate) fn function_weights(f: &Function) -> Vec<ValueId> {
    let arguments = f.arguments.iter().zip(&f.graph.arguments);
    arguments.filter(|((_, kind), _)| *kind == ArgumentKind::Weight).map(|(_, v)| *v).collect()
}

/// Names of the functions that the graph calls, regions included, in order of execution; a name may come again.
pub fn callees(graph: &Graph) -> Vec<&str> {
    fn add<'g>(graph: &'g Graph, out: &mut Vec<&'g str>) {
        for (_, op) in graph.ops() {
            if op.kind == OpKind::Call {
                out.push(op.attrs.str("callee"));
            }
            op.regions.iter().for_each(|r| add(r, out));
        }
    }
    let mut out = Vec::new();
    add(graph, &mut out);
    out
}

/// Is the result of this operation known ahead of time if exactly the values marked in `ahead` are?
pub(crate) fn op_is_ahead_of_time(op: &Op, ahead: &[bool]) -> bool {
    match op.kind {
        OpKind::Weight | OpKind::Constant => true,
        // A copy is made in the run: that of a weight brings it from the memory of a host.
        OpKind::Transfer => false,
        _ => {
            op.kind.def().has(traits::PURE)
                && op.regions.is_empty()
                && !op.operands.is_empty()
                && op.operands.iter().all(|v| ahead.get(v.0 as usize).is_some_and(|known| *known))
        }
    }
}

/// Is every value defined before its use (regions not counted)?
///
/// # Errors
/// `graph.C1` for ids that name nothing, `graph.C3` for a use before the definition.
pub fn check_order(graph: &Graph) -> Result<()> {
    let mut defined = vec![false; graph.value_capacity()];
    let define = |values: &[ValueId], defined: &mut Vec<bool>| -> Result<()> {
        for v in values {
            *defined.get_mut(v.0 as usize).ok_or_else(|| no_value(*v))? = true;
        }
        Ok(())
    };
    let check = |values: &[ValueId], defined: &[bool]| -> Result<()> {
        for v in values {
            match defined.get(v.0 as usize) {
                None => return Err(no_value(*v)),
                Some(false) => {
                    return Err(internal("graph.C3", format!("%{} is used before its definition", v.0)));
                }
                Some(true) => {}
            }
        }
        Ok(())
    };
    define(&graph.arguments, &mut defined)?;
    for id in &graph.order {
        let op = graph
            .get_op(*id)
            .ok_or_else(|| internal("graph.C1", format!("operation {} does not exist", id.0)))?;
        check(&op.operands, &defined)?;
        define(&op.results, &mut defined)?;
    }
    check(&graph.results, &defined)
}

fn no_value(v: ValueId) -> Box<djinn_diag::Diagnostic> {
    internal("graph.C1", format!("%{} is no value of this graph", v.0))
}

/// Visits the graph and all regions in it, outermost first, in order of execution.
pub fn for_each_graph(graph: &Graph, visit: &mut dyn FnMut(&Graph)) {
    visit(graph);
    for region in graph.ops().flat_map(|(_, op)| &op.regions) {
        for_each_graph(region, visit);
    }
}

/// Visits all regions in the graph and then the graph itself: innermost first, in order of execution.
///
/// A visitor must not change the types of a region's arguments and results; the verifier would refuse it.
///
/// # Errors
/// Those of `visit`; the walk stops at the first.
pub fn for_each_graph_mut(graph: &mut Graph, visit: &mut dyn FnMut(&mut Graph) -> Result<()>) -> Result<()> {
    for i in 0..graph.order.len() {
        let id = graph.order[i].0 as usize;
        if let Some(op) = graph.ops.get_mut(id).and_then(Option::as_mut) {
            op.regions.iter_mut().try_for_each(|region| for_each_graph_mut(region, visit))?;
        }
    }
    visit(graph)
}

/// Calls `visit` with every size in the graph: of types and attributes, regions included.
pub fn for_each_dim(graph: &Graph, visit: &mut dyn FnMut(&Dim)) {
    for_each_graph(graph, &mut |g| {
        g.values.iter().flat_map(|v| &v.ty.shape).for_each(&mut *visit);
        for (_, op) in g.ops() {
            let annotations = op.annotations.values();
            for attr in op.attrs.iter().map(|(_, a)| a).chain(annotations) {
                match attr {
                    Attr::Dim(d) => visit(d),
                    Attr::Dims(dims) => dims.iter().for_each(&mut *visit),
                    Attr::Types(types) => types.iter().flat_map(|t| &t.shape).for_each(&mut *visit),
                    Attr::Int(_)
                    | Attr::Float(_)
                    | Attr::Bool(_)
                    | Attr::Str(_)
                    | Attr::Ints(_)
                    | Attr::Floats(_)
                    | Attr::DType(_)
                    | Attr::Tensor(_) => {}
                }
            }
        }
    });
}

/// Every symbol that a function of the module mentions.
pub fn symbols(module: &Module) -> BTreeSet<Symbol> {
    let mut all = BTreeSet::new();
    for f in &module.functions {
        for_each_dim(&f.graph, &mut |d| {
            d.visit_symbols(&mut |s| {
                all.insert(s.clone());
            });
        });
    }
    all
}

/// The graph with symbols replaced in all types and attributes; symbols for which `with` gives `None` stay.
#[must_use]
pub fn substitute(graph: &Graph, with: &dyn Fn(&Symbol) -> Option<Dim>) -> Graph {
    let ty = |t: &TensorType| TensorType::new(t.dtype, t.shape.iter().map(|d| d.substitute(with)));
    let attr = |a: &Attr| match a {
        Attr::Dim(d) => Attr::Dim(d.substitute(with)),
        Attr::Dims(dims) => Attr::Dims(dims.iter().map(|d| d.substitute(with)).collect()),
        Attr::Types(types) => Attr::Types(types.iter().map(ty).collect()),
        other => other.clone(),
    };
    let mut out = graph.clone();
    out.values.iter_mut().for_each(|v| v.ty = ty(&v.ty));
    for op in out.ops.iter_mut().flatten() {
        op.attrs = op.attrs.map(&attr);
        op.annotations.values_mut().for_each(|a| *a = attr(a));
        op.regions.iter_mut().for_each(|r| *r = substitute(r, with));
    }
    out
}

/// The module with symbols replaced in all functions. The symbol table stays.
#[must_use]
pub fn substitute_module(module: &Module, with: &dyn Fn(&Symbol) -> Option<Dim>) -> Module {
    let mut out = module.clone();
    out.functions.iter_mut().for_each(|f| f.graph = substitute(&f.graph, with));
    out
}

/// Are the graphs equal but for the numbers of their values and operations?
pub fn same_graph(a: &Graph, b: &Graph) -> bool {
    let numbers = (numbering(a), numbering(b));
    let same_values = |x: &[ValueId], y: &[ValueId]| {
        x.len() == y.len()
            && x.iter().zip(y).all(|(v, w)| {
                let (m, n) = (numbers.0.get(v), numbers.1.get(w));
                m.is_some() && m == n && a.get_value(*v).map(|v| &v.ty) == b.get_value(*w).map(|w| &w.ty)
            })
    };
    same_values(&a.arguments, &b.arguments)
        && same_values(&a.results, &b.results)
        && a.len() == b.len()
        && a.ops().zip(b.ops()).all(|((_, x), (_, y))| {
            x.kind == y.kind
                && x.attrs == y.attrs
                && x.annotations == y.annotations
                && x.location == y.location
                && same_values(&x.operands, &y.operands)
                && same_values(&x.results, &y.results)
                && x.regions.len() == y.regions.len()
                && x.regions.iter().zip(&y.regions).all(|(r, s)| same_graph(r, s))
        })
}

/// Values numbered in order of definition.
fn numbering(graph: &Graph) -> BTreeMap<ValueId, usize> {
    let results = graph.ops().flat_map(|(_, op)| &op.results);
    graph.arguments.iter().chain(results).zip(0..).map(|(v, n)| (*v, n)).collect()
}

/// Are the modules equal but for numbering? Weights are compared by name, type and content hash.
pub fn same_module(a: &Module, b: &Module) -> bool {
    let weights = |m: &Module| -> Vec<_> {
        m.weights.iter().map(|(n, w)| (Arc::clone(n), w.ty.clone(), m.weight_hash(n))).collect()
    };
    a.symbols == b.symbols
        && a.metadata == b.metadata
        && weights(a) == weights(b)
        && a.functions.len() == b.functions.len()
        && a.functions.iter().zip(&b.functions).all(|(f, g)| {
            f.name == g.name
                && f.visibility == g.visibility
                && f.arguments == g.arguments
                && f.results == g.results
                && same_graph(&f.graph, &g.graph)
        })
}

impl Attrs {
    /// The same names with other values.
    #[must_use]
    pub fn map(&self, change: &dyn Fn(&Attr) -> Attr) -> Attrs {
        let mut out = self.clone();
        out.values_mut().for_each(|a| *a = change(a));
        out
    }
}

impl Graph {
    /// Is `v` an argument of this graph?
    pub fn is_argument(&self, v: ValueId) -> bool {
        self.get_value(v).is_some_and(|v| matches!(v.def, Definition::Argument(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attrs;
    use crate::dtype::DType;
    use crate::graph::Location;

    fn sample() -> (Graph, ValueId) {
        let mut g = Graph::new();
        let x = g.add_argument(TensorType::new(DType::F32, [Dim::symbol("s0"), Dim::from(4)]));
        let y = g.build1(OpKind::Add, &[x, x], Attrs::new()).expect("add");
        g.results = vec![y];
        (g, x)
    }

    #[test]
    fn users_are_found_in_order() {
        let (mut g, x) = sample();
        g.build1(OpKind::Relu, &[x], Attrs::new()).expect("relu");
        assert_eq!(users_of(&g, x), [(OpId(0), 0), (OpId(0), 1), (OpId(1), 0)]);
        assert_eq!(users(&g)[x.0 as usize], users_of(&g, x));
        assert!(g.is_argument(x) && !g.is_argument(g.results[0]));
    }

    #[test]
    fn order_and_foreign_ids_are_checked() {
        let (mut g, x) = sample();
        assert!(check_order(&g).is_ok());
        let ty = g.ty(x).clone();
        g.push(OpKind::Relu, vec![ValueId(7)], Attrs::new(), vec![], vec![ty], Location::default());
        assert_eq!(check_order(&g).map_err(|e| e.code), Err("graph.C1".into()));
        g.order.swap(0, 1);
        g.ops[1].as_mut().expect("exists").operands = vec![g.results[0]];
        assert_eq!(check_order(&g).map_err(|e| e.code), Err("graph.C3".into()));
    }

    #[test]
    fn substitution_reaches_types_attributes_and_regions() {
        let (region, _) = sample();
        let mut g = Graph::new();
        let c = g.add_argument(TensorType::scalar(DType::Bool));
        let x = g.add_argument(TensorType::new(DType::F32, [Dim::symbol("s0"), Dim::from(4)]));
        g.build(OpKind::If, &[c, x], Attrs::new(), vec![region.clone(), region], Location::default())
            .expect("if");
        let four = vec![Dim::symbol("s0"), Dim::from(4)];
        g.build1(OpKind::Reshape, &[x], attrs! { shape: four }).expect("reshape");
        let seven = substitute(&g, &|s| (s.name() == "s0").then(|| Dim::from(7)));
        let module = |g: Graph| Module {
            functions: vec![crate::Function {
                name: "f".into(),
                visibility: crate::Visibility::Entry,
                graph: g,
                arguments: vec![],
                results: vec![],
            }],
            ..Module::default()
        };
        assert_eq!(symbols(&module(g.clone())).len(), 1);
        assert!(symbols(&module(seven.clone())).is_empty());
        assert!(crate::verify::verify_graph(&seven).is_ok());
        assert!(same_graph(&seven, &seven) && !same_graph(&g, &seven));
    }
}
