//! SRG to IR.

use crate::{Semantics, Srg, SrgGraph, SrgNode, SrgValue};
use djinn_diag::{Context, Result, input, internal};
use djinn_ir::{Attr, Function, Graph, Location, Module, TensorType, ValueId, Visibility};
use petgraph::Direction;
use petgraph::visit::EdgeRef;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Lowers a program: every node becomes the operation of the op table that it names, with its annotations.
///
/// # Errors
/// A cyclic graph, dangling operands, and types that contradict the op table's inference.
pub fn lower(srg: &Srg) -> Result<Module> {
    let mut module = Module {
        weights: srg.weights.clone(),
        symbols: srg.symbols.clone(),
        metadata: srg.metadata.clone(),
        absent: srg.absent.clone(),
        ..Module::default()
    };
    for f in &srg.functions {
        let graph = lower_graph(&f.body).at(|| format!("function '{}'", f.name))?;
        module.functions.push(Function {
            name: Arc::clone(&f.name),
            visibility: Visibility::Entry,
            graph,
            arguments: f.arguments.clone(),
            results: f.results.clone(),
        });
    }
    Ok(module)
}

/// Lowers one body.
pub(crate) fn lower_graph(body: &SrgGraph) -> Result<Graph> {
    let order = petgraph::algo::toposort(&body.graph, None).map_err(|c| {
        input("srg.cycle", format!("the graph has a cycle through node {}", c.node_id().index()))
    })?;
    // A topological order that respects node numbers wherever possible keeps the frontend's order.
    let order = if body.graph.edge_references().all(|e| e.source() < e.target()) {
        body.graph.node_indices().collect()
    } else {
        order
    };
    let mut graph = Graph::new();
    let mut values: BTreeMap<SrgValue, ValueId> = BTreeMap::new();
    for node in &body.arguments {
        let ty = body.graph[*node]
            .types
            .first()
            .ok_or_else(|| internal("srg.argument", "an argument has no type"))?;
        let v = graph.add_argument(ty.clone());
        values.insert(SrgValue { node: *node, result: 0 }, v);
    }
    for index in order {
        let node = &body.graph[index];
        let Some(kind) = node.kind else { continue };
        let mut operands: Vec<(u32, SrgValue)> = body
            .graph
            .edges_directed(index, Direction::Incoming)
            .map(|e| (e.weight().operand, SrgValue { node: e.source(), result: e.weight().result }))
            .collect();
        operands.sort_unstable();
        let place = || node_name(node, index.index());
        if operands.iter().enumerate().any(|(i, (n, _))| *n as usize != i) {
            return Err(input("srg.operand", "operand numbers are not 0, 1, 2, …").at(place()));
        }
        let operands: Vec<ValueId> = operands
            .iter()
            .map(|(_, v)| {
                values.get(v).copied().ok_or_else(|| input("srg.operand", "an operand is not defined"))
            })
            .collect::<Result<_>>()
            .at(place)?;
        let regions: Vec<Graph> = node.regions.iter().map(lower_graph).collect::<Result<_>>().at(place)?;
        let location = Location { scope: node.origin.scope.clone(), source: node.origin.source.clone() };
        let id = graph.build(kind, &operands, node.attrs.clone(), regions, location).at(place)?;
        let results = graph.op(id).results.clone();
        check_types(&graph, &results, &node.types).at(place)?;
        annotate(&mut graph, id, &node.semantics);
        for (i, v) in results.into_iter().enumerate() {
            values.insert(SrgValue { node: index, result: i as u32 }, v);
        }
    }
    graph.results = body
        .results
        .iter()
        .map(|v| values.get(v).copied().ok_or_else(|| input("srg.result", "a result is not defined")))
        .collect::<Result<_>>()?;
    Ok(graph)
}

fn node_name(node: &SrgNode, index: usize) -> String {
    if node.origin.name.is_empty() {
        format!("node {index}")
    } else {
        format!("node '{}' ({})", node.origin.name, node.origin.framework_op)
    }
}

fn check_types(graph: &Graph, results: &[ValueId], declared: &[TensorType]) -> Result<()> {
    if results.len() != declared.len() {
        return Err(input(
            "srg.types",
            format!("has {} results, but {} types", results.len(), declared.len()),
        ));
    }
    for (v, declared) in results.iter().zip(declared) {
        let inferred = graph.ty(*v);
        if inferred != declared {
            return Err(input("srg.types", format!("declares {declared}, but its operands give {inferred}")));
        }
    }
    Ok(())
}

fn annotate(graph: &mut Graph, id: djinn_ir::OpId, s: &Semantics) {
    let mut set = |name: &str, value: Option<Attr>| {
        if let Some(value) = value {
            graph.annotate(id, name, value);
        }
    };
    set("phase", s.phase.map(|p| p.word().into()));
    set("residency", s.residency.map(|r| r.word().into()));
    set("modality", s.modality.map(|m| m.word().into()));
    set("device", s.device.as_deref().map(Into::into));
    set("flops_hint", s.flops_hint.and_then(|f| i64::try_from(f).ok()).map(Attr::Int));
}
