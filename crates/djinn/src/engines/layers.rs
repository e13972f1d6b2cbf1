//! The layers of engines: a file of a bundle for each engine, and what reports show of them.

use super::index::{EngineIndex, EngineSource, EngineUse};
use djinn_diag::{Result, input};
use djinn_ir::data::Bytes;
use djinn_plan::Plan;
use djinn_report::{Built, BuiltEngine, BuiltLayer, BuiltPort, BuiltRefusal};
use djinn_tensorrt::Layer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Version of [`Layers`].
const VERSION: u32 = 1;

/// The file of [`EngineUse::layer_file`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layers {
    version: u32,
    layers: Vec<Stored>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    name: String,
    kind: String,
    result: String,
    /// Number of the operation of the region that it is made for.
    operation: Option<u32>,
}

/// The file of an engine's layers.
pub(super) fn to_json(layers: &[Layer]) -> Bytes {
    let stored = |l: &Layer| Stored {
        name: l.name.clone(),
        kind: l.kind.clone(),
        result: l.result.clone(),
        operation: l.operation(),
    };
    let layers = Layers { version: VERSION, layers: layers.iter().map(stored).collect() };
    (serde_json::to_string_pretty(&layers).unwrap_or_default() + "\n").into_bytes().into()
}

fn of_json(bytes: &Bytes) -> Result<Vec<BuiltLayer>> {
    let malformed = |what: String| input("engines.layers", what).help("write the bundle again");
    let layers: Layers = serde_json::from_slice(bytes.as_slice()).map_err(|e| malformed(e.to_string()))?;
    if layers.version != VERSION {
        return Err(malformed(format!("version {}, this is {VERSION}", layers.version)));
    }
    let layer =
        |l: Stored| BuiltLayer { name: l.name, kind: l.kind, result: l.result, operation: l.operation };
    Ok(layers.layers.into_iter().map(layer).collect())
}

/// The engines of a bundle as reports show them; `None` if it has none.
///
/// # Errors
/// `engines.format` and `engines.layers` for malformed lists.
pub fn built_engines(parts: &BTreeMap<String, Bytes>, plan: &Plan) -> Result<Option<Built>> {
    let Some(index) = EngineIndex::of_bundle(parts, plan)? else { return Ok(None) };
    let mut lists: BTreeMap<String, Arc<Vec<BuiltLayer>>> = BTreeMap::new();
    let mut engines = Vec::new();
    for place in &index.uses {
        let name = place.layer_file();
        let layers = match (lists.get(&name), parts.get(&name)) {
            (Some(known), _) => Arc::clone(known),
            (None, Some(bytes)) => Arc::new(of_json(bytes).map_err(|e| e.at(name.clone()))?),
            (None, None) => Arc::default(),
        };
        lists.insert(name, Arc::clone(&layers));
        let bytes = parts.get(&place.file).map_or(0, |b| b.as_slice().len() as u64);
        engines.push(built(place, bytes, layers));
    }
    let refused = index.refused.iter().map(|r| BuiltRefusal {
        entry: r.entry,
        region: r.engine,
        kernels: r.kernels.len() as u64,
        reason: r.reason.clone(),
    });
    Ok(Some(Built { library: index.library.clone(), engines, refused: refused.collect() }))
}

fn built(place: &EngineUse, bytes: u64, layers: Arc<Vec<BuiltLayer>>) -> BuiltEngine {
    let ports = |bindings: &[super::EngineBinding]| -> Vec<BuiltPort> {
        let port = |b: &super::EngineBinding| match &b.source {
            EngineSource::Value(value) => {
                BuiltPort { name: b.name.clone(), value: Some(*value), length: None }
            }
            EngineSource::Length(of) => {
                BuiltPort { name: b.name.clone(), value: None, length: Some(of.clone()) }
            }
        };
        bindings.iter().map(port).collect()
    };
    BuiltEngine {
        entry: place.entry,
        region: place.engine,
        kernels: place.kernels.len() as u64,
        file: place.file.clone(),
        bytes,
        capability: place.capability,
        precision: place.precision.clone(),
        error: place.error,
        inputs: ports(&place.inputs),
        outputs: ports(&place.outputs),
        layers,
        operations: place.operations.clone(),
    }
}
