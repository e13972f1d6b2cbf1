//! SRG to JSON.

use super::{FORMAT, VERSION};
use crate::{Origin, Semantics, Srg, SrgEdge, SrgFunction, SrgGraph, SrgNode, SrgValue, base64};
use djinn_ir::{ArgumentKind, Attr, ContentHash, ResultKind, SymbolInfo, TensorData, Weight};
use petgraph::visit::EdgeRef;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Whether the bytes of weights are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightBytes {
    /// In base64.
    #[default]
    Inline,
    /// Only types and hashes.
    Omit,
}

/// What stands in place of the bytes of a weight; `None` leaves the field out.
pub(crate) type WeightText<'a> = &'a dyn Fn(&ContentHash, &TensorData) -> Option<Value>;

/// The program as text.
pub fn write(srg: &Srg, weights: WeightBytes) -> String {
    let text = |_: &ContentHash, data: &TensorData| match weights {
        WeightBytes::Inline => Some(Value::from(base64::encode(data.bytes()))),
        WeightBytes::Omit => None,
    };
    format!("{:#}\n", to_value(srg, &text))
}

/// The program as a JSON value.
pub(crate) fn to_value(srg: &Srg, weight: WeightText<'_>) -> Value {
    let metadata = srg.metadata.iter().map(|(k, v)| (k.to_string(), Value::from(&**v)));
    let symbols = srg.symbols.0.iter().map(|(s, info)| (s.name().to_string(), symbol(info)));
    let weights =
        srg.weights.iter().map(|(name, w)| (name.to_string(), self::weight(w, srg.absent.get(name), weight)));
    object([
        ("format", Some(FORMAT.into())),
        ("version", Some(VERSION.into())),
        ("metadata", Some(Value::Object(metadata.collect()))),
        ("symbols", Some(Value::Object(symbols.collect()))),
        ("weights", Some(Value::Object(weights.collect()))),
        ("functions", Some(srg.functions.iter().map(function).collect())),
    ])
}

/// An object of the fields that have values, sorted by name whatever map serde_json was built with.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let sorted: BTreeMap<&str, Value> =
        fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    Value::Object(sorted.into_iter().map(|(name, value)| (name.to_string(), value)).collect::<Map<_, _>>())
}

fn text(text: &Arc<str>) -> Value {
    Value::from(&**text)
}

/// The text, unless it is empty.
fn some_text(text: &Arc<str>) -> Option<Value> {
    (!text.is_empty()).then(|| self::text(text))
}

/// The value, unless it is an object or list without content.
fn some(value: Value) -> Option<Value> {
    let empty = value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
    (!empty).then_some(value)
}

fn symbol(info: &SymbolInfo) -> Value {
    object([
        ("min", Some(info.min.into())),
        ("max", info.max.map(Value::from)),
        ("divisor", Some(info.divisor.into())),
    ])
}

fn weight(weight: &Weight, absent: Option<&ContentHash>, bytes: WeightText<'_>) -> Value {
    let held = weight.data.as_ref();
    let hash = held.map(|(hash, _)| hash).or(absent);
    object([
        ("type", Some(weight.ty.to_string().into())),
        ("hash", hash.map(|h| h.to_string().into())),
        ("data", held.and_then(|(hash, data)| bytes(hash, data))),
    ])
}

fn function(f: &SrgFunction) -> Value {
    let arguments = f.arguments.iter().map(|(name, kind)| {
        let (kind, initial) = match kind {
            ArgumentKind::Input => ("input", None),
            ArgumentKind::Weight => ("weight", None),
            ArgumentKind::State { initial } => ("state", initial.as_ref().map(text)),
        };
        object([("name", Some(text(name))), ("kind", Some(kind.into())), ("initial", initial)])
    });
    let results = f.results.iter().map(|(name, kind)| {
        let (kind, argument) = match kind {
            ResultKind::Output => ("output", None),
            ResultKind::Update(argument) => ("update", Some(Value::from(*argument))),
        };
        object([("name", Some(text(name))), ("kind", Some(kind.into())), ("argument", argument)])
    });
    object([
        ("name", Some(text(&f.name))),
        ("arguments", Some(arguments.collect())),
        ("results", Some(results.collect())),
        ("body", Some(body(&f.body))),
    ])
}

fn body(g: &SrgGraph) -> Value {
    let nodes = g.graph.node_weights().map(node);
    let edges = g.graph.edge_references().map(|e| edge(e.source().index(), e.target().index(), e.weight()));
    let result =
        |v: &SrgValue| object([("node", Some(v.node.index().into())), ("result", Some(v.result.into()))]);
    object([
        ("nodes", Some(nodes.collect())),
        ("edges", Some(edges.collect())),
        ("arguments", Some(g.arguments.iter().map(|n| Value::from(n.index())).collect())),
        ("results", Some(g.results.iter().map(result).collect())),
    ])
}

fn edge(from: usize, to: usize, e: &SrgEdge) -> Value {
    object([
        ("from", Some(from.into())),
        ("result", Some(e.result.into())),
        ("to", Some(to.into())),
        ("operand", Some(e.operand.into())),
        ("bytes", Some(e.bytes.to_string().into())),
        ("rate", Some(float(e.rate))),
        ("criticality", Some(float(e.criticality))),
    ])
}

fn node(n: &SrgNode) -> Value {
    let attrs: Map<String, Value> = n.attrs.iter().map(|(name, a)| (name.to_string(), attr(a))).collect();
    object([
        ("op", Some(n.kind.map_or(Value::Null, |kind| kind.name().into()))),
        ("types", Some(n.types.iter().map(|t| Value::from(t.to_string())).collect())),
        ("attrs", some(Value::Object(attrs))),
        ("regions", some(n.regions.iter().map(body).collect())),
        ("origin", some(origin(&n.origin))),
        ("semantics", some(semantics(&n.semantics))),
    ])
}

fn origin(o: &Origin) -> Value {
    let source = o
        .source
        .as_ref()
        .map(|(file, line)| object([("file", Some(text(file))), ("line", Some((*line).into()))]));
    object([
        ("framework_op", some_text(&o.framework_op)),
        ("name", some_text(&o.name)),
        ("scope", o.scope.as_ref().map(text)),
        ("source", source),
    ])
}

fn semantics(s: &Semantics) -> Value {
    object([
        ("phase", s.phase.map(|p| p.word().into())),
        ("residency", s.residency.map(|r| r.word().into())),
        ("modality", s.modality.map(|m| m.word().into())),
        ("device", s.device.as_ref().map(text)),
        ("flops_hint", s.flops_hint.map(Value::from)),
    ])
}

fn float(v: f64) -> Value {
    if v.is_finite() { v.into() } else { format!("0x{:016X}", v.to_bits()).into() }
}

fn attr(a: &Attr) -> Value {
    let (kind, value) = match a {
        Attr::Int(v) => ("int", (*v).into()),
        Attr::Float(v) => ("float", float(v.get())),
        Attr::Bool(v) => ("bool", (*v).into()),
        Attr::Str(v) => ("string", text(v)),
        Attr::Ints(v) => ("ints", v.iter().copied().collect()),
        Attr::Floats(v) => ("floats", v.iter().map(|v| float(v.get())).collect()),
        Attr::Dim(d) => ("dim", d.to_string().into()),
        Attr::Dims(dims) => ("dims", dims.iter().map(ToString::to_string).collect()),
        Attr::DType(d) => ("dtype", d.mlir().into()),
        Attr::Types(types) => ("types", types.iter().map(ToString::to_string).collect()),
        Attr::Tensor(data) => {
            let bytes = base64::encode(data.bytes());
            let ty = data.ty().to_string();
            ("tensor", object([("type", Some(ty.into())), ("data", Some(bytes.into()))]))
        }
    };
    object([(kind, Some(value))])
}
