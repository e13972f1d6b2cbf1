//! Engines that were built: what they are and what they are made of.

use djinn_ir::Module;
use djinn_plan::{Plan, ValueRef};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::facts::{EntryFacts, Facts};
use crate::names::{clean, scope, shorten};
use crate::scopes::summary;
use crate::table::{Table, paragraph};
use crate::units::{bytes, count, things};

/// Engines that the text lists for an entry.
const MAX_ENGINES: usize = 12;
/// Engines whose layers are counted by kind.
const MAX_KINDS_SHOWN: usize = 4;
/// Kinds of layers that are named.
const MAX_KINDS: usize = 6;

/// Errors from here on stand for results that overflow.
const OVERFLOW: f64 = 1e300;

/// The engines of a bundle.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Built {
    /// Name and version of what built them.
    pub library: String,
    /// Every place where an engine runs.
    pub engines: Vec<BuiltEngine>,
    /// What stays with kernels.
    pub refused: Vec<BuiltRefusal>,
}

/// An engine in the place of some kernels.
#[derive(Debug, Clone, PartialEq)]
pub struct BuiltEngine {
    /// Number of the entry.
    pub entry: u32,
    /// Number of the engine region in the entry.
    pub region: u32,
    /// Kernels that it stands for.
    pub kernels: u64,
    /// Its file: equal where one engine runs in several places.
    pub file: String,
    /// Bytes of this file.
    pub bytes: u64,
    /// Compute capability that it is for, 90 for 9.0.
    pub capability: u32,
    /// Element types inside.
    pub precision: String,
    /// Relative error that they bring, if it was measured.
    pub error: Option<f64>,
    /// What is bound to its inputs.
    pub inputs: Vec<BuiltPort>,
    /// What its outputs are.
    pub outputs: Vec<BuiltPort>,
    /// Its layers.
    pub layers: Arc<Vec<BuiltLayer>>,
    /// Positions in the entry function of the operations of its region.
    pub operations: Vec<u32>,
}

/// An input or output of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltPort {
    /// Its name in the engine.
    pub name: String,
    /// The value, if it is one.
    pub value: Option<ValueRef>,
    /// The symbol whose size its length tells, if it is no value.
    pub length: Option<String>,
}

/// A layer of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltLayer {
    /// Its name.
    pub name: String,
    /// What it does, in TensorRT's word.
    pub kind: String,
    /// Type and sizes of its result.
    pub result: String,
    /// Number of the operation of the region that it is made for.
    pub operation: Option<u32>,
}

/// Kernels of an engine region that are in no engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltRefusal {
    /// Number of the entry.
    pub entry: u32,
    /// Number of the engine region in the entry.
    pub region: u32,
    /// How many kernels.
    pub kernels: u64,
    /// Why.
    pub reason: String,
}

/// The engines of a bundle as text for a terminal: a table for each entry that has any.
pub fn explain_built(plan: &Plan, module: Option<&Module>, built: &Built) -> String {
    let facts = Facts::new(plan, module);
    let mut out = String::new();
    for (number, entry) in facts.entries.iter().enumerate().take(crate::explain::MAX_ENTRIES) {
        let number = number as u32;
        let groups = groups(built, number);
        let refused: Vec<&BuiltRefusal> = built.refused.iter().filter(|r| r.entry == number).collect();
        if groups.is_empty() && refused.is_empty() {
            continue;
        }
        let title = shorten(&format!("Built engines of {}, by {}", entry.title(), clean(&built.library)), 90);
        out.push_str(&format!("\n{title}\n"));
        out.push_str(&table(entry, &groups));
        for refusal in refused.iter().take(MAX_ENGINES) {
            let (n, region) = (things(refusal.kernels as usize, "kernel"), refusal.region);
            let reason = clean(&refusal.reason);
            out.push_str(&paragraph(&format!("{n} of region {region} stay kernels: {reason}.")));
        }
    }
    out
}

fn table(entry: &EntryFacts<'_>, groups: &[Vec<&BuiltEngine>]) -> String {
    let titles = ["engine", "runs in", "bytes", "layers", "<element types", "error", "<scopes"];
    let mut table = Table::new(&titles);
    for group in groups.iter().take(MAX_ENGINES) {
        let engine = group[0];
        table.row(vec![
            short(&engine.file),
            things(group.len(), "region"),
            bytes(engine.bytes as f64),
            count(engine.layers.len() as u64),
            clean(&engine.precision),
            error(engine),
            scopes(entry, group),
        ]);
    }
    let mut text = table.render();
    for engine in groups.iter().take(MAX_KINDS_SHOWN).map(|group| group[0]) {
        text.push_str(&paragraph(&format!("Layers of {}: {}.", short(&engine.file), kinds(engine))));
    }
    if let more @ 1.. = groups.len().saturating_sub(MAX_ENGINES) {
        text.push_str(&paragraph(&format!("{} not shown.", things(more, "more engine"))));
    }
    text
}

/// The distinct engines of an entry in order of their first place, each with its places.
pub(crate) fn groups(built: &Built, entry: u32) -> Vec<Vec<&BuiltEngine>> {
    let mut groups: Vec<Vec<&BuiltEngine>> = Vec::new();
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    for engine in built.engines.iter().filter(|e| e.entry == entry) {
        let at = *known.entry(&engine.file).or_insert(groups.len());
        match groups.get_mut(at) {
            Some(group) => group.push(engine),
            None => groups.push(vec![engine]),
        }
    }
    groups
}

/// The name of an engine's file in short.
pub(crate) fn short(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    let stem = name.strip_suffix(".engine").unwrap_or(name);
    clean(&stem.chars().take(12).collect::<String>())
}

/// The error in short; a dash if none was measured.
pub(crate) fn error(engine: &BuiltEngine) -> String {
    match engine.error {
        Some(e) if e < OVERFLOW => format!("{e:.1e}"),
        Some(_) => "overflow".to_owned(),
        None => "–".to_owned(),
    }
}

/// Kinds of layers and how many there are, most first.
pub(crate) fn kinds(engine: &BuiltEngine) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    engine.layers.iter().for_each(|l| *counts.entry(&l.kind).or_default() += 1);
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let more = counts.len() > MAX_KINDS;
    let named = counts.iter().take(MAX_KINDS).map(|(kind, n)| format!("{n} {}", clean(kind)));
    let mut named: Vec<String> = named.collect();
    if more {
        named.push("…".to_owned());
    }
    named.join(", ")
}

/// The scopes that the places of an engine stand for.
pub(crate) fn scopes(entry: &EntryFacts<'_>, group: &[&BuiltEngine]) -> String {
    let all = group.iter().flat_map(|engine| engine.operations.iter());
    let all: Vec<String> =
        all.filter_map(|op| entry.ops.at(*op)).map(scope).filter(|s| !s.is_empty()).collect();
    let text = summary(all.iter().map(|s| (s.as_str(), 1.0)), 3);
    if text.is_empty() { "–".to_owned() } else { text }
}

/// The operation of the model that a layer comes from: its kind and scope.
pub(crate) fn origin(
    entry: &EntryFacts<'_>,
    engine: &BuiltEngine,
    layer: &BuiltLayer,
) -> Option<(String, String)> {
    let position = engine.operations.get(usize::try_from(layer.operation?).ok()?)?;
    let op = entry.ops.at(*position)?;
    Some((op.kind.name().to_owned(), scope(op)))
}

/// What is bound to a port, in words.
pub(crate) fn port(entry: &EntryFacts<'_>, port: &BuiltPort) -> [String; 2] {
    match (&port.value, &port.length) {
        (Some(value), _) => {
            let ty = entry.ops.ty(*value).map(ToString::to_string).unwrap_or_default();
            [entry.ops.value(*value), clean(&ty)]
        }
        (None, Some(symbol)) => [format!("any vector as long as {}", clean(symbol)), String::new()],
        (None, None) => ["nothing".to_owned(), String::new()],
    }
}
