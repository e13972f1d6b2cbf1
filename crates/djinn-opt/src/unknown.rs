//! Operations that Djinn does not know: a plan keeps them, but nothing can run them.

use djinn::Model;
use djinn::diag::{Diagnostic, unsupported};
use djinn::ir::{Module, OpKind, walk};
use djinn::srg::SrgGraph;

/// Operations that are named, at most.
const NAMED: usize = 8;

/// What to tell of the unknown operations that a program runs; nothing if there are none.
pub(crate) fn unknown(model: &Model, planned: &Module) -> Option<Box<Diagnostic>> {
    let mut found = Vec::new();
    for function in &planned.functions {
        walk::for_each_graph(&function.graph, &mut |graph| {
            for (_, op) in graph.ops().filter(|(_, op)| op.kind == OpKind::Opaque) {
                let place = match (&op.location.source, &op.location.scope) {
                    (Some((file, line)), _) => format!(" ({file}:{line})"),
                    (None, Some(scope)) if !scope.is_empty() => format!(" (in {scope})"),
                    _ => String::new(),
                };
                found.push(format!("'{}'{place}", op.attrs.str("op")));
            }
        });
    }
    if found.is_empty() {
        return None;
    }
    let count = found.len();
    // The file has names for them.
    let mut nodes = Vec::new();
    for function in model.srg.iter().flat_map(|srg| &srg.functions) {
        named(&function.body, &mut nodes);
    }
    let named = if nodes.is_empty() { found } else { nodes };
    let more = named.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let names = crate::run::printable(&named.into_iter().take(NAMED).collect::<Vec<_>>().join(", "));
    let message = match count {
        1 => format!("an operation is unknown to Djinn and cannot be run: {names}{more}"),
        n => format!("{n} operations are unknown to Djinn and cannot be run: {names}{more}"),
    };
    Some(unsupported("plan.opaque", message).shortened())
}

/// Names of unknown operations as the file has them.
fn named(graph: &SrgGraph, out: &mut Vec<String>) {
    for node in graph.graph.node_weights() {
        if node.kind == Some(OpKind::Opaque) {
            let (op, name) = (&node.origin.framework_op, &node.origin.name);
            out.push(if name.is_empty() { format!("'{op}'") } else { format!("'{op}' at node '{name}'") });
        }
        node.regions.iter().for_each(|region| named(region, out));
    }
}
