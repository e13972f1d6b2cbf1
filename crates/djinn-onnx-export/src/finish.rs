//! The last steps: graph outputs, pruning, and the layout of the weights.

use crate::emit::{Emitter, Initializer};
use crate::proto::{elem_type, entry, value_info};
use crate::{ExportOptions, External, ExternalData, Segment};
use djinn_diag::{Result, input};
use djinn_ir::TensorType;
use djinn_onnx_proto as onnx;
use djinn_onnx_proto::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A protobuf message must stay below 2 GiB; this much is left for what is not weights.
const INLINE_LIMIT: u64 = (1 << 31) - (64 << 20);
/// Tensors below this many bytes stay in the model file.
const SMALL_TENSOR: usize = 1024;
/// Alignment of large tensors in the external file: a page, so that they can be mapped.
const PAGE: u64 = 4096;
/// Alignment of the other tensors in the external file.
const CACHE_LINE: u64 = 64;

/// The file, which does not exist, that would hold the weights without values.
const MISSING_LOCATION: &str = "missing.weights";

/// Every name that a node reads, those that its subgraphs capture included.
fn reads(node: &onnx::NodeProto, visit: &mut dyn FnMut(&str)) {
    node.input.iter().for_each(|name| visit(name));
    for graph in node.attribute.iter().filter_map(|a| a.g.as_ref()) {
        graph.node.iter().for_each(|n| reads(n, visit));
        graph.output.iter().for_each(|o| visit(&o.name));
    }
}

/// The nodes on which the outputs depend, in order.
pub(crate) fn prune<'a>(
    nodes: Vec<onnx::NodeProto>,
    outputs: impl Iterator<Item = &'a str>,
) -> Vec<onnx::NodeProto> {
    let mut needed: BTreeSet<String> = outputs.map(str::to_owned).collect();
    let mut kept = Vec::with_capacity(nodes.len());
    for node in nodes.into_iter().rev() {
        if node.output.iter().any(|o| needed.contains(o)) {
            reads(&node, &mut |name| {
                needed.insert(name.to_owned());
            });
            kept.push(node);
        }
    }
    kept.reverse();
    kept
}

fn rename(nodes: &mut [onnx::NodeProto], names: &BTreeMap<String, String>) {
    let apply = |name: &mut String| {
        if let Some(new) = names.get(name) {
            name.clone_from(new);
        }
    };
    for node in nodes {
        node.input.iter_mut().chain(&mut node.output).for_each(apply);
        for graph in node.attribute.iter_mut().filter_map(|a| a.g.as_mut()) {
            rename(&mut graph.node, names);
            graph.output.iter_mut().for_each(|o| apply(&mut o.name));
        }
    }
}

/// Gives every output its name: the defining node's result is renamed, or copied where that is impossible.
pub(crate) fn name_outputs(
    e: &mut Emitter<'_>,
    outputs: &[(String, String, TensorType)],
) -> Result<Vec<onnx::NodeProto>> {
    let mut renamed: BTreeMap<String, String> = BTreeMap::new();
    let mut copies = Vec::new();
    for (name, value, ty) in outputs {
        if e.defined_here(value) && !renamed.contains_key(value) {
            renamed.insert(value.clone(), name.clone());
        } else {
            let copy = e.node("Identity", &[value], vec![], ty.clone())?;
            copies.push((copy, name.clone()));
        }
    }
    renamed.extend(copies);
    let mut nodes = e.close_scope();
    rename(&mut nodes, &renamed);
    Ok(prune(nodes, outputs.iter().map(|(name, _, _)| name.as_str())))
}

/// The initializers that the nodes read, in order of their creation.
pub(crate) fn used_initializers<'a>(
    initializers: &'a [Initializer],
    nodes: &[onnx::NodeProto],
) -> Vec<&'a Initializer> {
    let mut read = BTreeSet::new();
    for node in nodes {
        reads(node, &mut |name| {
            read.insert(name.to_owned());
        });
    }
    initializers.iter().filter(|i| read.contains(&i.name)).collect()
}

/// The tensors of the model, and what goes into a file beside it.
pub(crate) fn lay_out(
    initializers: &[&Initializer],
    options: &ExportOptions,
) -> Result<(Vec<onnx::TensorProto>, Option<External>)> {
    let total: u64 =
        initializers.iter().filter_map(|i| i.data.as_ref()).map(|d| d.bytes().len() as u64).sum();
    let outside = match options.external_data {
        ExternalData::Inline if total > INLINE_LIMIT => {
            let message = format!("{total} bytes of weights do not fit into one ONNX file");
            return Err(input("onnx-export.size", message).help("let the weights go into an external file"));
        }
        ExternalData::Inline => false,
        ExternalData::Auto => total > INLINE_LIMIT,
        ExternalData::Threshold(bytes) => total >= bytes.min(INLINE_LIMIT),
    };
    let mut external =
        External { file_name: options.external_file_name.clone(), segments: Vec::new(), length: 0 };
    let mut tensors = Vec::with_capacity(initializers.len());
    for i in initializers {
        tensors.push(tensor(i, outside.then_some(&mut external)));
    }
    Ok((tensors, (!external.segments.is_empty()).then_some(external)))
}

fn tensor(i: &Initializer, external: Option<&mut External>) -> onnx::TensorProto {
    let mut proto = onnx::TensorProto {
        dims: i.ty.shape.iter().filter_map(djinn_ir::Dim::as_const).collect(),
        data_type: Some(elem_type(i.ty.dtype)),
        name: i.name.clone(),
        ..Default::default()
    };
    match (&i.data, external) {
        (None, _) => {
            proto.data_location = Some(onnx::DATA_LOCATION_EXTERNAL);
            proto.external_data = vec![entry("location", MISSING_LOCATION)];
        }
        (Some(data), Some(external)) if data.bytes().len() >= SMALL_TENSOR => {
            let length = data.bytes().len() as u64;
            let align = if length >= PAGE { PAGE } else { CACHE_LINE };
            let offset = external.length.next_multiple_of(align);
            external.segments.push(Segment { offset, data: data.clone() });
            external.length = offset + length;
            proto.data_location = Some(onnx::DATA_LOCATION_EXTERNAL);
            proto.external_data = vec![
                entry("location", external.file_name.clone()),
                entry("offset", offset.to_string()),
                entry("length", length.to_string()),
            ];
        }
        (Some(data), _) => proto.raw_data = Some(Bytes::copy_from_slice(data.bytes())),
    }
    proto
}

/// Name and type of the graph's inputs or outputs.
pub(crate) fn infos<'a>(
    values: impl Iterator<Item = (&'a str, &'a TensorType)>,
) -> Vec<onnx::ValueInfoProto> {
    values.map(|(name, ty)| value_info(name, ty)).collect()
}
