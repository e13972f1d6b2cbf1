//! Small models built in code.
#![allow(dead_code, reason = "every test file uses a part of it")]

use djinn_ir::{Module, TensorData};
use djinn_onnx::{ImportReport, Imported};
use djinn_onnx_proto::prost::Message;
use djinn_onnx_proto::{
    AttributeProto, Bytes, DimensionProto, FunctionProto, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
    attribute_type, data_type, dimension_proto, type_proto,
};
use std::collections::BTreeMap;

/// A node.
pub(crate) fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    NodeProto {
        op_type: op.into(),
        name: format!("the {op}"),
        input: own(inputs),
        output: own(outputs),
        ..NodeProto::default()
    }
}

/// Adds attributes to a node.
pub(crate) fn with(mut n: NodeProto, attributes: Vec<AttributeProto>) -> NodeProto {
    n.attribute = attributes;
    n
}

/// An integer attribute.
pub(crate) fn int(name: &str, v: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: attribute_type::INT, i: Some(v), ..Default::default() }
}

/// A float attribute.
pub(crate) fn float(name: &str, v: f32) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: attribute_type::FLOAT, f: Some(v), ..Default::default() }
}

/// A list of integers.
pub(crate) fn ints(name: &str, v: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: attribute_type::INTS, ints: v.to_vec(), ..Default::default() }
}

/// A text.
pub(crate) fn text(name: &str, v: &str) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: attribute_type::STRING,
        s: Some(Bytes::from(v.as_bytes().to_vec())),
        ..Default::default()
    }
}

/// A subgraph.
pub(crate) fn graph(name: &str, g: GraphProto) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: attribute_type::GRAPH,
        g: Some(Box::new(g)),
        ..Default::default()
    }
}

/// A reference to an attribute of the enclosing function.
pub(crate) fn reference(name: &str, kind: i32, outer: &str) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: kind, ref_attr_name: outer.into(), ..Default::default() }
}

/// A size in a type: a number or a name.
fn dim(text: &str) -> DimensionProto {
    let value = match text.parse() {
        Ok(v) => Some(dimension_proto::Value::DimValue(v)),
        Err(_) if text == "?" => None,
        Err(_) => Some(dimension_proto::Value::DimParam(text.to_owned())),
    };
    DimensionProto { value }
}

/// A typed value; sizes are numbers, names or `?`.
pub(crate) fn value(name: &str, elem_type: i32, dims: &[&str]) -> ValueInfoProto {
    let shape = Some(TensorShapeProto { dim: dims.iter().map(|d| dim(d)).collect() });
    let tensor = TensorTypeProto { elem_type, shape };
    let ty = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: name.into(), r#type: Some(ty), ..Default::default() }
}

/// An f32 value.
pub(crate) fn f32v(name: &str, dims: &[&str]) -> ValueInfoProto {
    value(name, data_type::FLOAT, dims)
}

/// A value without type.
pub(crate) fn untyped(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: name.into(), ..Default::default() }
}

/// An i64 initializer.
pub(crate) fn i64s(name: &str, dims: &[i64], v: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: Some(data_type::INT64),
        int64_data: v.to_vec(),
        ..Default::default()
    }
}

/// An f32 initializer, in raw form.
pub(crate) fn f32s(name: &str, dims: &[i64], v: &[f32]) -> TensorProto {
    let raw: Vec<u8> = v.iter().flat_map(|v| v.to_le_bytes()).collect();
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: Some(data_type::FLOAT),
        raw_data: Some(Bytes::from(raw)),
        ..Default::default()
    }
}

/// A graph.
pub(crate) fn build(
    nodes: Vec<NodeProto>,
    input: Vec<ValueInfoProto>,
    output: Vec<ValueInfoProto>,
    initializer: Vec<TensorProto>,
) -> GraphProto {
    GraphProto { name: "g".into(), node: nodes, input, output, initializer, ..Default::default() }
}

/// A model of this operator set.
pub(crate) fn model(version: i64, g: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(10),
        graph: Some(g),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version }],
        ..Default::default()
    }
}

/// A model-local function.
pub(crate) fn function(name: &str, input: &[&str], output: &[&str], node: Vec<NodeProto>) -> FunctionProto {
    FunctionProto {
        name: name.into(),
        domain: "local".into(),
        input: input.iter().map(|s| (*s).to_owned()).collect(),
        output: output.iter().map(|s| (*s).to_owned()).collect(),
        node,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 20 }],
        ..Default::default()
    }
}

/// Imports a model whose external data does not exist.
pub(crate) fn import(m: &ModelProto) -> Result<Imported, String> {
    djinn_onnx::import(Bytes::from(m.encode_to_vec()), &|_| Ok(None)).map_err(|e| e.to_string())
}

/// Imports and lowers a model that must be right.
pub(crate) fn lowered(m: &ModelProto) -> (Module, ImportReport) {
    let imported = import(m).unwrap_or_else(|e| panic!("{e}"));
    let module = djinn_srg::lower(&imported.srg).unwrap_or_else(|e| panic!("{e}"));
    (module, imported.report)
}

/// The names of a model's operations, in order.
pub(crate) fn ops(m: &ModelProto) -> Vec<&'static str> {
    let (module, _) = lowered(m);
    module.functions[0].graph.ops().map(|(_, op)| op.kind.name()).collect()
}

/// The type of result number `i` in text form.
pub(crate) fn result_type(m: &ModelProto, i: usize) -> String {
    let (module, _) = lowered(m);
    let graph = &module.functions[0].graph;
    graph.ty(graph.results[i]).to_string()
}

/// Runs a model on the reference evaluator and gives its first result as numbers.
pub(crate) fn run(m: &ModelProto, inputs: &[(&str, TensorData)]) -> Vec<f64> {
    let (module, _) = lowered(m);
    let inputs: BTreeMap<String, TensorData> =
        inputs.iter().map(|(n, d)| ((*n).to_owned(), d.clone())).collect();
    let name = module.functions[0].name.to_string();
    let out = djinn_interp::run(&module, &name, &inputs).unwrap_or_else(|e| panic!("{e}"));
    let data = &out.outputs[0].1;
    (0..data.numel()).map(|i| data.get_f64(i).expect("in range")).collect()
}

/// An f32 tensor.
pub(crate) fn t(shape: &[usize], v: &[f32]) -> TensorData {
    TensorData::from_f32(shape, v).expect("fits")
}

/// The numbers 0, 1, 2, … as an f32 tensor.
pub(crate) fn counting(shape: &[usize]) -> TensorData {
    let n = shape.iter().product::<usize>();
    t(shape, &(0..n).map(|i| i as f32).collect::<Vec<_>>())
}
