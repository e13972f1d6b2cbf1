//! Every operation of the op table is written at every opset, as a well-formed model.

mod cases;

use djinn_ir::ops::OP_TABLE;
use djinn_ir::{Graph, OpKind};
use djinn_onnx_export::{ExportOptions, OPSETS, Spelling, export, model_node_count};
use djinn_onnx_proto::{GraphProto, ModelProto, prost::Message};
use std::collections::BTreeSet;

fn kinds(graph: &Graph, found: &mut BTreeSet<OpKind>) {
    for (_, op) in graph.ops() {
        found.insert(op.kind);
        op.regions.iter().for_each(|r| kinds(r, found));
    }
}

/// Every input is known when it is read, and no name is defined twice.
fn check_graph(graph: &GraphProto, outer: &BTreeSet<String>, case: &str) {
    let mut known = outer.clone();
    let own = graph.input.iter().map(|i| &i.name).chain(graph.initializer.iter().map(|i| &i.name));
    for name in own {
        assert!(known.insert(name.clone()), "{case}: '{name}' is defined twice");
    }
    for node in &graph.node {
        for input in node.input.iter().filter(|i| !i.is_empty()) {
            assert!(known.contains(input), "{case}: {} reads '{input}' too early", node.op_type);
        }
        for body in node.attribute.iter().filter_map(|a| a.g.as_ref()) {
            check_graph(body, &known, case);
        }
        for output in &node.output {
            assert!(known.insert(output.clone()), "{case}: '{output}' is defined twice");
        }
    }
    for output in &graph.output {
        assert!(known.contains(&output.name), "{case}: no node gives '{}'", output.name);
    }
}

#[test]
fn every_operation_has_a_case() {
    let mut found = BTreeSet::new();
    for case in cases::all().0 {
        case.module.functions.iter().for_each(|f| kinds(&f.graph, &mut found));
    }
    for def in OP_TABLE {
        // Opaque operations and calls are refused, weights need a weight table: they have tests of their own.
        let apart = matches!(def.kind, OpKind::Opaque | OpKind::Call | OpKind::Weight);
        assert!(apart || found.contains(&def.kind), "no case for '{}'", def.name);
    }
}

#[test]
fn every_case_is_well_formed_and_deterministic() {
    let mut count = 0;
    for case in cases::all().0 {
        for (opset, ir_version) in OPSETS {
            for spelling in [Spelling::Fast, Spelling::Native, Spelling::Native] {
                let options = ExportOptions { opset, spelling, ..Default::default() };
                let name = format!("{} at opset {opset}", case.name);
                let exported = export(&case.module, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
                let again = export(&case.module, &options).expect("exports again");
                assert_eq!(exported.model, again.model, "{name} is not deterministic");
                let model = ModelProto::decode(exported.model.as_slice()).expect("decodes");
                assert_eq!(model.ir_version, Some(ir_version));
                assert_eq!(model.opset_import[0].version, opset);
                assert_eq!(model_node_count(&model), exported.node_count);
                check_graph(model.graph.as_ref().expect("a graph"), &BTreeSet::new(), &name);
                count += 1;
            }
        }
    }
    assert!(count > 2000, "only {count} models were written");
}
