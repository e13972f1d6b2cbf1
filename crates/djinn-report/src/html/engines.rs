//! Built engines on the page: each folded, with its ports and layers.

use super::markup::{Table, attribute, escape};
use crate::built::{self, Built, BuiltEngine, BuiltPort};
use crate::facts::{EntryFacts, Facts};
use crate::names::{clean, shorten};
use crate::units::{bytes, count, things};

/// Engines that are shown for an entry.
const MAX_ENGINES: usize = 32;
/// Rows of the tables of an engine.
const MAX_ROWS: usize = 150;
/// Reasons that are shown.
const MAX_REFUSED: usize = 20;

/// The engines that were built for an entry.
pub(crate) fn built_engines(
    facts: &Facts<'_>,
    number: usize,
    entry: &EntryFacts<'_>,
    built: &Built,
) -> String {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    let groups = built::groups(built, number);
    let refused: Vec<_> = built.refused.iter().filter(|r| r.entry == number).collect();
    if groups.is_empty() && refused.is_empty() {
        return String::new();
    }
    let places: usize = groups.iter().map(Vec::len).sum();
    let size: u64 = groups.iter().map(|g| g[0].bytes).fold(0, u64::saturating_add);
    let mut out = format!(
        "<h3>Built engines</h3>\n<p class=\"dim\">{}: {} of {} in {}.</p>\n",
        escape(&clean(&built.library)),
        escape(&things(groups.len(), "engine")),
        escape(&bytes(size as f64)),
        escape(&things(places, "place")),
    );
    for group in groups.iter().take(MAX_ENGINES) {
        out.push_str(&folded(facts, entry, group));
    }
    if let more @ 1.. = groups.len().saturating_sub(MAX_ENGINES) {
        out.push_str(&format!("<p class=\"none\">{} not shown.</p>\n", things(more, "more engine")));
    }
    if !refused.is_empty() {
        let mut table =
            Table::new("Kernels in no engine", &["Region", "Kernels", "<Why no engine holds them"]);
        for refusal in refused.iter().take(MAX_REFUSED) {
            let reason = escape(&shorten(&refusal.reason, 300));
            table.row(vec![refusal.region.to_string(), count(refusal.kernels), reason]);
        }
        out.push_str(&table.render());
    }
    out
}

fn folded(facts: &Facts<'_>, entry: &EntryFacts<'_>, group: &[&BuiltEngine]) -> String {
    let engine = group[0];
    let layers = things(engine.layers.len(), "layer");
    let types = match engine.error {
        Some(_) => format!("{} (error {})", clean(&engine.precision), built::error(engine)),
        None => clean(&engine.precision),
    };
    let mut out = format!(
        "<details class=\"engine\">\n<summary><code>{}</code> <b>{}</b> · {} · {} · {} <span class=\"dim\">{}</span>\
         </summary>\n",
        escape(&built::short(&engine.file)),
        escape(&bytes(engine.bytes as f64)),
        escape(&layers),
        escape(&types),
        escape(&things(group.len(), "place")),
        escape(&built::scopes(entry, group)),
    );
    out.push_str(&format!("<p class=\"dim\">{}</p>\n", escape(&where_it_runs(facts, entry, group))));
    out.push_str(&ports(entry, engine));
    out.push_str(&layer_table(entry, engine));
    out.push_str("</details>\n");
    out
}

/// Device, regions and what is in it, in sentences.
fn where_it_runs(facts: &Facts<'_>, entry: &EntryFacts<'_>, group: &[&BuiltEngine]) -> String {
    let engine = group[0];
    let mut devices: Vec<&str> = Vec::new();
    for place in group {
        let region = entry.entry.engines.iter().find(|e| e.number == place.region);
        let device = region.map(|r| facts.device(Some(r.device.index())));
        devices.extend(device.filter(|d| !devices.contains(d)));
    }
    let regions: Vec<String> = group.iter().take(12).map(|place| place.region.to_string()).collect();
    let more = if group.len() > 12 { ", …" } else { "" };
    let word = if group.len() > 1 { "regions" } else { "region" };
    format!(
        "For compute capability {}.{}, on {}; in the place of {}, in {word} {}{more}. Layers: {}.",
        engine.capability / 10,
        engine.capability % 10,
        devices.join(", "),
        things(usize::try_from(engine.kernels).unwrap_or(usize::MAX), "kernel"),
        regions.join(", "),
        built::kinds(engine),
    )
}

fn ports(entry: &EntryFacts<'_>, engine: &BuiltEngine) -> String {
    let mut table = Table::new("Inputs and outputs", &["<Port", "<What it is", "<Type"]);
    let mut add = |direction: &str, ports: &[BuiltPort]| {
        for port in ports.iter().take(MAX_ROWS) {
            let [what, ty] = built::port(entry, port);
            let name = format!("{direction} {}", clean(&port.name));
            table.row(vec![escape(&name), escape(&shorten(&what, 90)), escape(&shorten(&ty, 60))]);
        }
    };
    add("in", &engine.inputs);
    add("out", &engine.outputs);
    if table.is_empty() { String::new() } else { table.render() }
}

fn layer_table(entry: &EntryFacts<'_>, engine: &BuiltEngine) -> String {
    let titles = ["<Layer", "<Kind", "<Result", "<Operation", "<Scope"];
    let mut table = Table::new("Layers", &titles);
    for layer in engine.layers.iter().take(MAX_ROWS) {
        let (kind, scope) = built::origin(entry, engine, layer).unwrap_or_default();
        table.row(vec![
            escape(&shorten(&layer.name, 48)),
            escape(&shorten(&layer.kind, 32)),
            escape(&shorten(&layer.result, 40)),
            escape(&kind),
            format!("<span title=\"{}\">{}</span>", attribute(&scope), escape(&shorten(&scope, 60))),
        ]);
    }
    let more = match engine.layers.len().saturating_sub(MAX_ROWS) {
        0 => String::new(),
        n => format!("<p class=\"none\">{} not shown.</p>\n", things(n, "more layer")),
    };
    if table.is_empty() { String::new() } else { table.render() + &more }
}
