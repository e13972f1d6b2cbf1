//! Graphviz output.

use djinn_ir::{Module, OpKind};
use std::fmt::Write;

/// The module in Graphviz's DOT language: one cluster per function, weights and literals left out.
pub fn dot(module: &Module) -> String {
    let mut out =
        String::from("digraph djinn {\n  rankdir=TB;\n  node [shape=box, fontname=\"monospace\"];\n");
    for (n, f) in module.functions.iter().enumerate() {
        let _ = writeln!(out, "  subgraph cluster_{n} {{\n    label=\"{}\";", escape(&f.name));
        for ((name, _), v) in f.arguments.iter().zip(&f.graph.arguments) {
            let label = format!("{name}\\n{}", escape(&f.graph.ty(*v).to_string()));
            let _ = writeln!(out, "    f{n}v{} [label=\"{label}\", shape=ellipse];", v.0);
        }
        for (id, op) in f.graph.ops() {
            if matches!(op.kind, OpKind::Weight | OpKind::Constant | OpKind::DimExpr) {
                continue;
            }
            let ty = op.results.first().map(|v| f.graph.ty(*v).to_string()).unwrap_or_default();
            let callee = match op.kind {
                OpKind::Call => format!(" {}", escape(op.attrs.str("callee"))),
                _ => String::new(),
            };
            let label = format!("{}{callee}\\n{}", op.kind.name(), escape(&ty));
            let _ = writeln!(out, "    f{n}o{} [label=\"{label}\"];", id.0);
            for v in &op.operands {
                match f.graph.definition(*v) {
                    None => {
                        let _ = writeln!(out, "    f{n}v{} -> f{n}o{};", v.0, id.0);
                    }
                    Some((source, _)) => {
                        let kind = f.graph.op(source).kind;
                        if !matches!(kind, OpKind::Weight | OpKind::Constant | OpKind::DimExpr) {
                            let _ = writeln!(out, "    f{n}o{} -> f{n}o{};", source.0, id.0);
                        }
                    }
                }
            }
        }
        out.push_str("  }\n");
    }
    out.push_str("}\n");
    out
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
