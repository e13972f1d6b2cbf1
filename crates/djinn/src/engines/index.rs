//! The list of engines in a bundle: what there is and where it belongs.

use djinn_diag::{Result, input};
use djinn_ir::data::Bytes;
use djinn_plan::{Plan, ValueRef};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of [`EngineIndex`].
pub(super) const VERSION: u32 = 2;
/// The part of a bundle that lists its engines.
pub(super) const INDEX: &str = "engines.json";

/// The list of engines in a bundle (`engines.json`).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineIndex {
    pub(super) version: u32,
    /// Name and version of the library that built them, empty if nothing was built.
    pub library: String,
    /// Element types inside engines.
    pub precision: String,
    /// Every place where an engine runs, in the order of entries and engine regions.
    pub uses: Vec<EngineUse>,
    /// Engine regions, or parts of them, that stay kernels.
    pub refused: Vec<EngineRefusal>,
}

/// An engine in the place of some kernels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineUse {
    /// Number of the entry.
    pub entry: u32,
    /// Number of the engine region in the entry.
    pub engine: u32,
    /// Kernels that it stands for, in an order in which they can run.
    pub kernels: Vec<u32>,
    /// The file in the bundle.
    pub file: String,
    /// Compute capability that it is for, 90 for 9.0. Where the builder does not know it by name, the engine holds what
    /// every GPU needs, and is compiled to the end on the GPU that loads it.
    pub capability: u32,
    /// What is bound to its inputs, by name in the engine.
    pub inputs: Vec<EngineBinding>,
    /// What its outputs are.
    pub outputs: Vec<EngineBinding>,
    /// Number of layers of the network that it was built from; what they are stands in the file of [`EngineUse::layer_file`].
    pub layers: u32,
    /// For each operation of the engine's region, the operation of the entry function that it stands for, by position.
    pub operations: Vec<u32>,
    /// Element types inside.
    pub precision: String,
    /// Largest error of its results that these element types bring, relative to the largest value of each result, as the
    /// evaluator finds it on sample inputs; absent where nothing is narrowed or nothing was compared.
    pub error: Option<f64>,
}

impl EngineUse {
    /// The file in the bundle that lists the engine's layers.
    pub fn layer_file(&self) -> String {
        let stem = self.file.strip_suffix(".engine").unwrap_or(&self.file);
        format!("{stem}.layers.json")
    }
}

/// An input or output of an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineBinding {
    /// Name in the engine.
    pub name: String,
    /// What it is.
    pub source: EngineSource,
}

/// What is bound to an input of an engine, or what an output is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineSource {
    /// A value of the entry function.
    Value(ValueRef),
    /// Any vector as long as this symbol of the entry; its elements are not read.
    Length(String),
}

/// Kernels of an engine region that are in no engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineRefusal {
    /// Number of the entry.
    pub entry: u32,
    /// Number of the engine region in the entry.
    pub engine: u32,
    /// The kernels.
    pub kernels: Vec<u32>,
    /// Why.
    pub reason: String,
}

impl EngineIndex {
    /// The list of a bundle, if it has one.
    ///
    /// # Errors
    /// `engines.format` if it is malformed, or names files that are not there or things that the plan does not have.
    pub fn of_bundle(parts: &BTreeMap<String, Bytes>, plan: &Plan) -> Result<Option<EngineIndex>> {
        let Some(bytes) = parts.get(INDEX) else { return Ok(None) };
        let malformed = |what: String| input("engines.format", what).at(INDEX).help("write the bundle again");
        let index: EngineIndex =
            serde_json::from_slice(bytes.as_slice()).map_err(|e| malformed(e.to_string()))?;
        if index.version != VERSION {
            return Err(malformed(format!("version {}, this is {VERSION}", index.version)));
        }
        for place in &index.uses {
            let entry = plan.entries.get(place.entry as usize);
            let region = entry.and_then(|e| e.engines.iter().find(|x| x.number == place.engine));
            let known =
                region.is_some_and(|r| place.kernels.iter().all(|k| r.kernels.iter().any(|x| x.0 == *k)));
            if !known || !parts.contains_key(&place.file) {
                return Err(malformed(format!("'{}' has no place in the plan or is not there", place.file)));
            }
        }
        Ok(Some(index))
    }
}
