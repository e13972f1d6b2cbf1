//! How engines stand in the cache: what is known of them, then their bytes.

use djinn_diag::{Diagnostic, Result, internal};
use djinn_tensorrt::{Engine, Layer, Port, Region};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Serialize, Deserialize)]
struct Head {
    inputs: Vec<String>,
    outputs: Vec<String>,
    /// Name, kind and result of each layer.
    layers: Vec<[String; 3]>,
}

fn malformed(what: &str) -> Box<Diagnostic> {
    internal("engines.stored", format!("a stored engine is malformed: {what}"))
}

/// The length of the head in 8 bytes (little-endian), the head in JSON, the engine.
pub(super) fn pack(engine: &Engine) -> Result<Vec<u8>> {
    let names = |ports: &[Port]| ports.iter().map(|p| p.name.clone()).collect();
    let layer = |l: &Layer| [l.name.clone(), l.kind.clone(), l.result.clone()];
    let head = Head {
        inputs: names(&engine.inputs),
        outputs: names(&engine.outputs),
        layers: engine.layers.iter().map(layer).collect(),
    };
    let head = serde_json::to_vec(&head).map_err(|e| malformed(&e.to_string()))?;
    let mut all = (head.len() as u64).to_le_bytes().to_vec();
    all.extend(head);
    all.extend(&engine.bytes);
    Ok(all)
}

/// The engine of a region.
pub(super) fn unpack(bytes: &[u8], region: &Region) -> Result<Engine> {
    let (len, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| malformed("no head"))?;
    let len = usize::try_from(u64::from_le_bytes(*len)).ok().filter(|len| *len <= rest.len());
    let (head, engine) = rest.split_at(len.ok_or_else(|| malformed("a head beyond its end"))?);
    let head: Head = serde_json::from_slice(head).map_err(|e| malformed(&e.to_string()))?;
    let graph = region.graph();
    let arguments = region.arguments.iter().zip(&graph.arguments);
    let types = arguments.map(|(a, v)| (a.name.to_string(), graph.ty(*v).clone()));
    let results = graph.results.iter().enumerate().map(|(i, v)| (format!("o{i}"), graph.ty(*v).clone()));
    let types: BTreeMap<_, _> = types.chain(results).collect();
    let ports = |names: Vec<String>| -> Result<Vec<Port>> {
        let port = |name: String| {
            let ty =
                types.get(&name).cloned().ok_or_else(|| malformed("a port that the region does not have"))?;
            Ok(Port { name, ty })
        };
        names.into_iter().map(port).collect()
    };
    let layers = head.layers.into_iter().map(|[name, kind, result]| Layer { name, kind, result });
    Ok(Engine {
        bytes: engine.to_vec(),
        inputs: ports(head.inputs)?,
        outputs: ports(head.outputs)?,
        layers: layers.collect(),
        messages: Vec::new(),
    })
}
