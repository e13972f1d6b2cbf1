//! Writes a function of the IR as an ONNX model.
//!
//! - [`export`] gives the model's bytes and, for large weights, the segments of a file beside it; the caller writes
//!   both. The same module and options always give the same bytes.
//! - Inputs and outputs have the names of the function's arguments and results. A symbolic size is a `dim_param`
//!   with the text of the size. State arguments are inputs like any other and state updates are outputs; the model's
//!   metadata holds `djinn.state.<input>` = the output that is its next value, and `djinn.initial.<input>` = the
//!   weight that is its first. An update whose name is taken already is called `<name>.updated`.
//! - A node's `metadata_props` hold `djinn.scope` (module path), `djinn.source` (`file:line`) and every annotation as
//!   `djinn.<name>`. Nodes that several operations share (shapes, masks, tables) have none.
//! - Weights keep their names; weights and constants of equal content are one initializer. A weight without values is
//!   an external tensor in the file `missing.weights`, which does not exist, noted in the model's metadata as
//!   `djinn.weights` = `missing`: such a model can be read and printed, but not run.
//! - Integer division by zero is undefined in ONNX, whereas the IR gives 0; it is written as a plain `Div`.
//!
//! Invariant: no file system, no clock and no hash-order iteration in this crate.

mod devices;
mod dims;
mod emit;
mod finish;
mod lower;
mod masks;
mod proto;
mod reshape;
mod schema;

use djinn_diag::{Context, Result, input};
use djinn_ir::{ArgumentKind, Function, Module, ResultKind, TensorData, TensorType};
use djinn_onnx_proto as onnx;
use djinn_onnx_proto::prost::Message;
use emit::Emitter;
use std::io::Write;

/// The opsets that can be written, and the IR version that each is written with.
pub const OPSETS: [(i64, i64); 3] = [(20, 10), (23, 11), (24, 12)];

/// Where the weights' bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalData {
    /// Into the model file; an error if they do not fit into one protobuf message.
    Inline,
    /// Into the model file if they fit, else into a file beside it.
    Auto,
    /// Into a file beside the model if they are at least this many bytes in all.
    Threshold(u64),
}

/// Which of several spellings of an operation is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// The standard operator wherever the opset has one: what accelerators recognise, with the fewest nodes.
    Native,
    /// The one that onnxruntime's CPU provider runs fastest.
    Fast,
}

/// What happens to weights without values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingWeights {
    /// They are declared with type and name only.
    Declare,
    /// They are an error.
    Refuse,
}

/// How a model is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportOptions {
    /// ONNX opset: one of [`OPSETS`].
    pub opset: i64,
    /// Name of the function to write; empty for the only one.
    pub function: String,
    /// Where the weights' bytes go.
    pub external_data: ExternalData,
    /// Name of the file beside the model, relative to it.
    pub external_file_name: String,
    /// Which spellings are chosen.
    pub spelling: Spelling,
    /// What happens to weights without values.
    pub missing_weights: MissingWeights,
}

impl Default for ExportOptions {
    fn default() -> Self {
        ExportOptions {
            opset: 23,
            function: String::new(),
            external_data: ExternalData::Auto,
            external_file_name: "model.onnx.data".into(),
            spelling: Spelling::Native,
            missing_weights: MissingWeights::Declare,
        }
    }
}

/// One tensor of the external file.
#[derive(Debug, Clone)]
pub struct Segment {
    /// First byte in the file.
    pub offset: u64,
    /// The content, shared with the module.
    pub data: TensorData,
}

/// The file beside the model.
#[derive(Debug, Clone)]
pub struct External {
    /// Name relative to the model file.
    pub file_name: String,
    /// Tensors in ascending order of their offsets.
    pub segments: Vec<Segment>,
    /// Size of the file in bytes.
    pub length: u64,
}

impl External {
    /// Writes the whole file, with zeros between the segments.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let mut at = 0;
        for segment in &self.segments {
            let gap = usize::try_from(segment.offset - at).unwrap_or(0);
            out.write_all(&vec![0; gap])?;
            out.write_all(segment.data.bytes())?;
            at = segment.offset + segment.data.bytes().len() as u64;
        }
        Ok(())
    }
}

/// A written model.
#[derive(Debug, Clone)]
pub struct Exported {
    /// The bytes of the model file.
    pub model: Vec<u8>,
    /// The file beside it, if there is one.
    pub external: Option<External>,
    /// Number of nodes, those of subgraphs included.
    pub node_count: usize,
}

/// Writes one function of the module as an ONNX model.
///
/// # Errors
/// `input` diagnostics for a wrong opset or function name and for weights that do not fit; `unsupported` ones, which
/// name the operation, for what ONNX cannot express.
pub fn export(module: &Module, options: &ExportOptions) -> Result<Exported> {
    let Some((_, ir_version)) = OPSETS.iter().find(|(opset, _)| *opset == options.opset) else {
        let message = format!("opset {} cannot be written", options.opset);
        return Err(input("onnx-export.opset", message).help("choose opset 20, 23 or 24"));
    };
    let function = find_function(module, &options.function)?;
    let softened =
        masks::without_lowest(&function.graph)?.map(|graph| Function { graph, ..function.clone() });
    let function = softened.as_ref().unwrap_or(function);
    let mut e = Emitter::new(options, &module.symbols);
    let names = interface(&mut e, function);
    let outputs =
        lower_function(&mut e, module, function, &names).at(|| format!("function '{}'", function.name))?;
    let mut nodes = finish::name_outputs(&mut e, &outputs)?;
    let configuration = devices::configure(&mut nodes, *ir_version);
    let used = finish::used_initializers(&e.initializers, &nodes);
    let (initializer, external) = finish::lay_out(&used, options)?;
    let missing = used.iter().any(|i| i.data.is_none());
    let arguments = function.graph.arguments.iter().map(|v| function.graph.ty(*v));
    let graph = onnx::GraphProto {
        name: function.name.to_string(),
        input: finish::infos(names.inputs.iter().map(String::as_str).zip(arguments)),
        output: finish::infos(outputs.iter().map(|(name, _, ty)| (name.as_str(), ty))),
        node: nodes,
        initializer,
        ..Default::default()
    };
    let node_count = graph_node_count(&graph);
    let model = onnx::ModelProto {
        ir_version: Some(*ir_version),
        producer_name: "djinn".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        opset_import: vec![onnx::OperatorSetIdProto { domain: String::new(), version: options.opset }],
        metadata_props: model_metadata(module, function, &names, missing),
        graph: Some(graph),
        configuration,
        ..Default::default()
    };
    Ok(Exported { model: model.encode_to_vec(), external, node_count })
}

/// Number of nodes of a model, those of subgraphs and functions included; initializers are no nodes.
pub fn model_node_count(model: &onnx::ModelProto) -> usize {
    let functions: usize = model.functions.iter().map(|f| nodes_count(&f.node)).sum();
    functions + model.graph.as_ref().map_or(0, graph_node_count)
}

fn graph_node_count(graph: &onnx::GraphProto) -> usize {
    nodes_count(&graph.node)
}

fn nodes_count(nodes: &[onnx::NodeProto]) -> usize {
    let inner = |n: &onnx::NodeProto| -> usize {
        let graphs = n.attribute.iter().flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs));
        graphs.map(graph_node_count).sum()
    };
    nodes.iter().map(|n| 1 + inner(n)).sum()
}

fn find_function<'m>(module: &'m Module, name: &str) -> Result<&'m Function> {
    let mut entries = module.entries();
    let found = match (name, entries.next(), entries.next()) {
        ("", Some(only), None) => Some(only),
        _ => module.entries().find(|f| *f.name == *name),
    };
    found.ok_or_else(|| {
        let known: Vec<&str> = module.entries().map(|f| &*f.name).collect();
        let message = match name {
            "" => format!("ONNX holds one entry function, the module has {}", known.len()),
            _ => format!("the module has no function '{name}'"),
        };
        input("onnx-export.function", message).help(match known.len() {
            0 => "a module without an entry function is no model".to_owned(),
            _ => format!("name one of its functions: {}", known.join(", ")),
        })
    })
}

/// The names of a model's inputs and outputs.
struct Interface {
    inputs: Vec<String>,
    outputs: Vec<String>,
}

/// Takes the function's own names, before any other name is made. ONNX wants all of them to be distinct.
fn interface(e: &mut Emitter<'_>, function: &Function) -> Interface {
    let take = |e: &mut Emitter<'_>, name: &str, taken: &str| {
        if !name.is_empty() && e.reserve(name) {
            return name.to_owned();
        }
        let other = format!("{name}.{taken}");
        if e.reserve(&other) { other } else { e.fresh(&other) }
    };
    let inputs = function.arguments.iter().map(|(name, _)| take(e, name, "input")).collect();
    let outputs = function.results.iter().map(|(name, kind)| match kind {
        ResultKind::Output => take(e, name, "output"),
        ResultKind::Update(_) => take(e, name, "updated"),
    });
    Interface { inputs, outputs: outputs.collect() }
}

/// Lowers the body; gives name, value and type of every output.
fn lower_function<'m>(
    e: &mut Emitter<'m>,
    module: &'m Module,
    function: &Function,
    names: &Interface,
) -> Result<Vec<(String, String, TensorType)>> {
    let graph = &function.graph;
    let mut cx = lower::Cx::new(e, module, graph);
    for (v, name) in graph.arguments.iter().zip(&names.inputs) {
        cx.bind(*v, name);
    }
    cx.run()?;
    let named = graph.results.iter().zip(&names.outputs);
    named.map(|(v, name)| Ok((name.clone(), cx.name(*v)?, graph.ty(*v).clone()))).collect()
}

fn model_metadata(
    module: &Module,
    function: &Function,
    names: &Interface,
    missing: bool,
) -> Vec<onnx::StringStringEntryProto> {
    let mut all: Vec<_> = module.metadata.iter().map(|(k, v)| proto::entry(&**k, &**v)).collect();
    for ((_, kind), name) in function.arguments.iter().zip(&names.inputs) {
        if let ArgumentKind::State { initial: Some(weight) } = kind {
            all.push(proto::entry(format!("djinn.initial.{name}"), &**weight));
        }
    }
    for ((_, kind), name) in function.results.iter().zip(&names.outputs) {
        if let ResultKind::Update(argument) = kind {
            let state = names.inputs.get(*argument as usize).map_or("", String::as_str);
            all.push(proto::entry(format!("djinn.state.{state}"), name.as_str()));
        }
    }
    if missing {
        all.push(proto::entry("djinn.weights", "missing"));
    }
    all
}
