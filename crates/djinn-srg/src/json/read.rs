//! JSON to SRG.

use super::strict::{
    Fields, Strict, entries, expected, float, index, list, signed, string, truth, unsigned, wrong,
};
use super::{FORMAT, VERSION};
use crate::{
    Modality, Origin, Phase, Residency, Semantics, Srg, SrgEdge, SrgFunction, SrgGraph, SrgNode, SrgValue,
    base64,
};
use djinn_diag::{Context, Diagnostic, Result};
use djinn_ir::ops::OP_TABLE;
use djinn_ir::suggest::did_you_mean;
use djinn_ir::{
    ArgumentKind, Attr, Attrs, ContentHash, DType, Dim, OpKind, ResultKind, Symbol, SymbolInfo, TensorData,
    TensorType, Weight, text, verify,
};
use petgraph::graph::NodeIndex;
use serde_json::Value;
use std::sync::Arc;

/// Gives the content of a weight of this type and hash out of the value of its field `data`.
pub(crate) type WeightSource<'a> = &'a dyn Fn(&Value, &TensorType, ContentHash) -> Result<TensorData>;

/// Reads a program.
///
/// # Errors
/// `srg.json`, with line and column where the text is no JSON, else with the path of the wrong value.
pub fn read(text: &str) -> Result<Srg> {
    read_with(text, &|value, ty, hash| {
        let data = tensor_of(ty, string(value)?)?;
        check_hash(&data, hash)?;
        Ok(data)
    })
}

/// Compares content with the hash that the file gives.
pub(crate) fn check_hash(data: &TensorData, hash: ContentHash) -> Result<()> {
    let actual = data.content_hash();
    if actual == hash { Ok(()) } else { Err(wrong(format!("the content has the hash {actual}, not {hash}"))) }
}

/// Reads a program whose weights have their bytes elsewhere.
pub(crate) fn read_with(text: &str, weights: WeightSource<'_>) -> Result<Srg> {
    let Strict(value) = serde_json::from_str(text).map_err(|e| {
        let place = format!("line {}, column {}", e.line(), e.column());
        wrong(format!("the text is no valid JSON: {e}")).at(place)
    })?;
    program(&value, weights).map_err(joined_path)
}

/// One path out of the steps that were added on the way out.
fn joined_path(mut e: Box<Diagnostic>) -> Box<Diagnostic> {
    // Places of nested readers (of types) are no steps.
    let split = e.place.iter().position(|p| !p.starts_with(['.', '['])).unwrap_or(e.place.len());
    let rest = e.place.split_off(split);
    let path = format!("${}", e.place.concat());
    e.place = std::iter::once(path).chain(rest).collect();
    e
}

fn program(value: &Value, weights: WeightSource<'_>) -> Result<Srg> {
    let known = ["format", "version", "metadata", "symbols", "weights", "functions"];
    let f = Fields::of(value, &known)?;
    f.required("format", |v| match string(v)? {
        FORMAT => Ok(()),
        other => Err(wrong(format!("the format is '{other}', not '{FORMAT}'"))),
    })?;
    f.required("version", |v| match unsigned(v)? {
        VERSION => Ok(()),
        other => Err(wrong(format!("version {other} is not known"))
            .help(format!("this Djinn reads version {VERSION}"))),
    })?;
    let mut srg = Srg::default();
    f.required("metadata", |v| {
        entries(v, |key, v| {
            srg.metadata.insert(Arc::from(key), Arc::from(string(v)?));
            Ok(())
        })
    })?;
    f.required("symbols", |v| {
        entries(v, |name, v| {
            srg.symbols.0.insert(Symbol::new(name), symbol(name, v)?);
            Ok(())
        })
    })?;
    f.required("weights", |v| entries(v, |name, v| weight(name, v, weights, &mut srg)))?;
    srg.functions = f.required("functions", |v| list(v, function))?;
    Ok(srg)
}

fn symbol(name: &str, value: &Value) -> Result<SymbolInfo> {
    if !verify::is_symbol_name(name) {
        return Err(wrong(format!("'{name}' is no name of a symbol")));
    }
    let f = Fields::of(value, &["min", "max", "divisor"])?;
    let (min, max) = (f.required("min", signed)?, f.optional("max", signed)?);
    let divisor = f.required("divisor", signed)?;
    if min < 0 || divisor < 1 || max.is_some_and(|max| max < min) {
        return Err(wrong("the range is empty or negative, or the divisor is not positive"));
    }
    Ok(SymbolInfo { min, max, divisor })
}

fn weight(name: &str, value: &Value, source: WeightSource<'_>, srg: &mut Srg) -> Result<()> {
    let f = Fields::of(value, &["type", "hash", "data"])?;
    let ty = f.required("type", tensor_type)?;
    let hash = f.optional("hash", |v| {
        ContentHash::from_hex(string(v)?).ok_or_else(|| wrong("a hash has 32 hexadecimal digits"))
    })?;
    let data = f.optional("data", |v| match hash {
        Some(hash) => Ok((hash, source(v, &ty, hash)?)),
        None => Err(wrong("a weight with 'data' needs its 'hash'")),
    })?;
    let name: Arc<str> = Arc::from(name);
    if let (None, Some(hash)) = (&data, hash) {
        srg.absent.insert(Arc::clone(&name), hash);
    }
    srg.weights.insert(name, Weight { ty, data });
    Ok(())
}

/// A tensor of inline bytes, whose hash the caller compares.
fn tensor_of(ty: &TensorType, data: &str) -> Result<TensorData> {
    let bytes = base64::decode(data).ok_or_else(|| wrong("the bytes are not in base64"))?;
    let shape = ty.const_shape().ok_or_else(|| wrong(format!("{ty} has no constant sizes")))?;
    let count = bytes.len();
    TensorData::new(ty.dtype, shape, bytes).ok_or_else(|| wrong(format!("{count} bytes do not make a {ty}")))
}

fn tensor_type(value: &Value) -> Result<TensorType> {
    text::parse_type(string(value)?)
}

fn dim(value: &Value) -> Result<Dim> {
    string(value)?.parse().map_err(wrong)
}

fn word<T>(value: &Value, all: &[T], word: impl Fn(&T) -> &'static str) -> Result<T>
where
    T: Copy,
{
    let text = string(value)?;
    let words: Vec<&str> = all.iter().map(&word).collect();
    all.iter().copied().find(|v| word(v) == text).ok_or_else(|| {
        let help = did_you_mean(text, words.iter().copied());
        wrong(format!("'{text}' is not known here"))
            .help(help.unwrap_or_else(|| format!("words are: {}", words.join(", "))))
    })
}

fn function(value: &Value) -> Result<SrgFunction> {
    let f = Fields::of(value, &["name", "arguments", "results", "body"])?;
    let name = Arc::from(f.required("name", string)?);
    let arguments = f.required("arguments", |v| list(v, argument))?;
    let results = f.required("results", |v| list(v, result))?;
    let body = f.required("body", |v| body(v, 0))?;
    if body.arguments.len() != arguments.len() || body.results.len() != results.len() {
        return Err(wrong(format!(
            "{} arguments and {} results are named, the body has {} and {}",
            arguments.len(),
            results.len(),
            body.arguments.len(),
            body.results.len()
        )));
    }
    Ok(SrgFunction { name, body, arguments, results })
}

fn argument(value: &Value) -> Result<(Arc<str>, ArgumentKind)> {
    let f = Fields::of(value, &["name", "kind", "initial"])?;
    let name = Arc::from(f.required("name", string)?);
    let initial = f.optional("initial", string)?.map(Arc::from);
    let kind = f.required("kind", |v| word(v, &["input", "weight", "state"], |w| w))?;
    match (kind, initial) {
        ("input", None) => Ok((name, ArgumentKind::Input)),
        ("weight", None) => Ok((name, ArgumentKind::Weight)),
        ("input" | "weight", Some(_)) => Err(wrong("only a state has 'initial'")),
        (_, initial) => Ok((name, ArgumentKind::State { initial })),
    }
}

fn result(value: &Value) -> Result<(Arc<str>, ResultKind)> {
    let f = Fields::of(value, &["name", "kind", "argument"])?;
    let name = Arc::from(f.required("name", string)?);
    let argument = f.optional("argument", index)?;
    let kind = f.required("kind", |v| word(v, &["output", "update"], |w| w))?;
    match (kind, argument) {
        ("output", None) => Ok((name, ResultKind::Output)),
        ("update", Some(argument)) => Ok((name, ResultKind::Update(argument))),
        _ => Err(wrong("an update, and nothing else, has 'argument'")),
    }
}

fn body(value: &Value, depth: usize) -> Result<SrgGraph> {
    if depth > verify::MAX_REGION_DEPTH {
        return Err(wrong("regions are nested too deeply"));
    }
    let f = Fields::of(value, &["nodes", "edges", "arguments", "results"])?;
    let mut g = SrgGraph::default();
    for n in f.required("nodes", |v| list(v, |v| node(v, depth)))? {
        g.graph.add_node(n);
    }
    let edges = f.required("edges", |v| list(v, |v| edge(v, &g)))?;
    g.arguments = f.required("arguments", |v| list(v, |v| argument_node(v, &g)))?;
    g.results = f.required("results", |v| {
        list(v, |v| {
            let f = Fields::of(v, &["node", "result"])?;
            let node = f.required("node", index)?;
            self::value(&g, node, f.required("result", index)?)
        })
    })?;
    for (source, target, edge) in edges {
        g.graph.add_edge(source, target, edge);
    }
    let arguments = g.graph.node_weights().filter(|n| n.kind.is_none()).count();
    let mut distinct = g.arguments.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() != arguments || g.arguments.len() != arguments {
        return Err(wrong("'arguments' must list every node without 'op' once"));
    }
    Ok(g)
}

fn existing(g: &SrgGraph, node: u32) -> Result<(NodeIndex, &SrgNode)> {
    let i = NodeIndex::new(node as usize);
    match g.graph.node_weight(i) {
        Some(n) => Ok((i, n)),
        None => Err(wrong(format!("there is no node {node}"))),
    }
}

fn argument_node(v: &Value, g: &SrgGraph) -> Result<NodeIndex> {
    let (i, n) = existing(g, index(v)?)?;
    if n.kind.is_some() { Err(wrong(format!("node {} is no argument", i.index()))) } else { Ok(i) }
}

/// A result of a node, if there is one of this number.
fn value(g: &SrgGraph, node: u32, result: u32) -> Result<SrgValue> {
    let (i, n) = existing(g, node)?;
    if (result as usize) < n.types.len() {
        Ok(SrgValue { node: i, result })
    } else {
        Err(wrong(format!("node {node} has no result {result}")))
    }
}

fn edge(v: &Value, g: &SrgGraph) -> Result<(NodeIndex, NodeIndex, SrgEdge)> {
    let f = Fields::of(v, &["from", "result", "to", "operand", "bytes", "rate", "criticality"])?;
    let from = value(g, f.required("from", index)?, f.required("result", index)?)?;
    let (to, target) = existing(g, f.required("to", index)?)?;
    if target.kind.is_none() {
        return Err(wrong(format!("node {} is an argument and takes no operands", to.index())));
    }
    let edge = SrgEdge {
        result: from.result,
        operand: f.required("operand", index)?,
        bytes: f.required("bytes", dim)?,
        rate: f.required("rate", float)?,
        criticality: f.required("criticality", float)?,
    };
    Ok((from.node, to, edge))
}

fn node(value: &Value, depth: usize) -> Result<SrgNode> {
    let f = Fields::of(value, &["op", "types", "attrs", "regions", "origin", "semantics"])?;
    let kind = f.required("op", |v| if v.is_null() { Ok(None) } else { op(v).map(Some) })?;
    let types = f.required("types", |v| list(v, tensor_type))?;
    if kind.is_none() && types.len() != 1 {
        return Err(wrong("an argument has one type"));
    }
    let mut attrs = Attrs::new();
    f.optional("attrs", |v| {
        entries(v, |name, v| {
            attrs.set(attr_name(kind, name), attr(v)?);
            Ok(())
        })
    })?;
    Ok(SrgNode {
        kind,
        attrs,
        types,
        regions: f.optional("regions", |v| list(v, |v| body(v, depth + 1)))?.unwrap_or_default(),
        origin: f.optional("origin", origin)?.unwrap_or_default(),
        semantics: f.optional("semantics", semantics)?.unwrap_or_default(),
    })
}

fn op(value: &Value) -> Result<OpKind> {
    let name = string(value)?;
    OpKind::from_name(name).ok_or_else(|| {
        let help = did_you_mean(name, OP_TABLE.iter().map(|d| d.name));
        wrong(format!("there is no operation '{name}'"))
            .help(help.unwrap_or_else(|| "use 'opaque' for what Djinn does not know".into()))
    })
}

/// The name out of the op table, where it has one: it need not be copied.
fn attr_name(kind: Option<OpKind>, name: &str) -> std::borrow::Cow<'static, str> {
    let known = kind.and_then(|k| k.def().attrs.iter().find(|a| a.name == name));
    known.map_or_else(|| name.to_string().into(), |a| a.name.into())
}

fn attr(value: &Value) -> Result<Attr> {
    let kinds =
        ["int", "float", "bool", "string", "ints", "floats", "dim", "dims", "dtype", "types", "tensor"];
    Fields::of(value, &kinds)?;
    let one = value.as_object().and_then(|map| map.iter().next().filter(|_| map.len() == 1));
    let Some((kind, v)) = one else {
        return Err(wrong("an attribute is an object with one entry, which names its kind"));
    };
    let read = |v: &Value| -> Result<Attr> {
        Ok(match kind.as_str() {
            "int" => signed(v)?.into(),
            "float" => float(v)?.into(),
            "bool" => truth(v)?.into(),
            "string" => string(v)?.into(),
            "ints" => list(v, signed)?.into(),
            "floats" => list(v, float)?.into(),
            "dim" => dim(v)?.into(),
            "dims" => list(v, dim)?.into(),
            "dtype" => {
                let text = string(v)?;
                DType::from_mlir(text).ok_or_else(|| wrong(format!("'{text}' is no element type")))?.into()
            }
            "types" => list(v, tensor_type)?.into(),
            "tensor" => {
                let f = Fields::of(v, &["type", "data"])?;
                let ty = f.required("type", tensor_type)?;
                f.required("data", |v| tensor_of(&ty, string(v)?))?.into()
            }
            _ => return Err(expected("an attribute", v)),
        })
    };
    read(v).at(|| format!(".{kind}"))
}

fn origin(value: &Value) -> Result<Origin> {
    let f = Fields::of(value, &["framework_op", "name", "scope", "source"])?;
    let text = |name: &str| f.optional(name, string).map(|t| t.map(Arc::from));
    let source = f.optional("source", |v| {
        let f = Fields::of(v, &["file", "line"])?;
        Ok((Arc::from(f.required("file", string)?), f.required("line", index)?))
    })?;
    Ok(Origin {
        framework_op: text("framework_op")?.unwrap_or_default(),
        name: text("name")?.unwrap_or_default(),
        scope: text("scope")?,
        source,
    })
}

fn semantics(value: &Value) -> Result<Semantics> {
    let f = Fields::of(value, &["phase", "residency", "modality", "device", "flops_hint"])?;
    Ok(Semantics {
        phase: f.optional("phase", |v| word(v, Phase::ALL, |w| w.word()))?,
        residency: f.optional("residency", |v| word(v, Residency::ALL, |w| w.word()))?,
        modality: f.optional("modality", |v| word(v, Modality::ALL, |w| w.word()))?,
        device: f.optional("device", string)?.map(Arc::from),
        flops_hint: f.optional("flops_hint", unsigned)?,
    })
}
