//! What a plan does, as text for a terminal.

use djinn_ir::Module;
use djinn_plan::{ArenaKind, Plan, StreamKind};

use crate::engines::{self, engines};
use crate::facts::{DeviceFacts, EntryFacts, Facts, Group, KINDS, Reason, Task, figure};
use crate::limit::Limit;
use crate::measured::Measured;
use crate::names::{clean, shorten};
use crate::scopes::summary;
use crate::table::{Table, WIDTH, paragraph};
use crate::units::{bytes, count, flops, percent, seconds, things};

/// Entries that are explained; further ones are counted.
pub(crate) const MAX_ENTRIES: usize = 16;
/// Devices, links and scopes that are listed.
const MAX_ROWS: usize = 32;
/// Engines that are listed.
const MAX_ENGINES: usize = 12;
/// Engines of which is said what crosses their borders.
const MAX_BORDERS: usize = 4;
/// Kernels and copies in the list of the costliest.
const COSTLIEST: usize = 10;

/// What runs where and why, the costliest kernels and copies, what limits the plan, and where the memory goes: at most
/// 100 columns. The module, if it is the one that the plan was made from, adds names of operations and scopes.
pub fn explain(plan: &Plan, module: Option<&Module>) -> String {
    let facts = Facts::new(plan, module);
    let mut out = headline(&facts);
    out.push_str(&devices(&facts));
    for entry in facts.entries.iter().take(MAX_ENTRIES) {
        out.push_str(&explain_entry(&facts, entry));
    }
    let more = facts.entries.len().saturating_sub(MAX_ENTRIES);
    if more > 0 {
        out.push_str(&format!("\n{} not shown\n", things(more, "more entry")));
    }
    out
}

/// [`explain()`], and what was measured of the plan beside what was predicted; an alarm where a step time is far off.
pub fn explain_measured(plan: &Plan, module: Option<&Module>, measured: &Measured) -> String {
    explain(plan, module) + &crate::measured::text(&Facts::new(plan, module), measured)
}

fn headline(facts: &Facts<'_>) -> String {
    let devices = things(facts.devices.len(), "device");
    let entries = things(facts.entries.len(), "entry");
    format!("Plan of program {} for {devices}: {entries}\n", shorten(&facts.plan.program, 40))
}

/// What every device holds.
fn devices(facts: &Facts<'_>) -> String {
    if facts.devices.is_empty() {
        return section("Devices", "  none\n");
    }
    let spills = facts.devices.iter().any(|d| d.held[3] > 0);
    let mut titles = vec!["device", "<profile", "memory", "weights", "state", "activations", "used", "left"];
    if spills {
        titles.insert(6, "spill");
    }
    let mut table = Table::new(&titles);
    for device in facts.devices.iter().take(MAX_ROWS) {
        let size = |b: u64| if b == 0 { "–".to_owned() } else { bytes(b as f64) };
        let mut row = vec![device.name.clone(), device.profile.clone(), bytes(device.capacity as f64)];
        row.extend(
            KINDS
                .iter()
                .zip(device.held)
                .filter(|(k, _)| spills || **k != ArenaKind::Spill)
                .map(|(_, b)| size(b)),
        );
        row.extend([bytes(device.total() as f64), left(device)]);
        table.row(row);
    }
    let mut text = table.render();
    text.push_str(&left_out(facts.devices.len(), MAX_ROWS, "device"));
    if let Some(why) = why_several(facts) {
        text.push_str(&paragraph(&why));
    }
    for device in facts.devices.iter().filter(|d| d.observed && !d.host).take(1) {
        text.push_str(&paragraph(&format!(
            "No profile '{}' is built in: what limits its kernels is judged by the best of them.",
            device.profile
        )));
    }
    section("Devices", &text)
}

/// What a device has left, or lacks.
fn left(device: &DeviceFacts) -> String {
    match device.capacity.checked_sub(device.total()) {
        Some(left) => format!("{} ({})", bytes(left as f64), percent(left as f64, device.capacity as f64)),
        None => format!("{} too much", bytes((device.total() - device.capacity) as f64)),
    }
}

/// Why the plan needs or does not need all its devices, in one sentence.
pub(crate) fn why_several(facts: &Facts<'_>) -> Option<String> {
    let used: Vec<&DeviceFacts> = facts.devices.iter().filter(|d| d.total() > 0 && !d.host).collect();
    let all = used.iter().fold(0u64, |sum, d| sum.saturating_add(d.total()));
    let largest = used.iter().map(|d| d.capacity).max()?;
    let accelerators = facts.devices.iter().filter(|d| !d.host).count();
    if accelerators < 2 {
        return None;
    }
    let (all_text, largest_text) = (bytes(all as f64), bytes(largest as f64));
    if facts.entries.iter().any(|e| e.streamed(facts.plan).1 > 0) {
        // With weights on hosts one device might do: nothing forces several.
        return Some(match used.len() {
            1 => {
                format!(
                    "One device of {largest_text} holds {all_text}; hosts hold the other weights, no other device is used."
                )
            }
            n => {
                let n = things(n, "device");
                format!("{n} share the work and hold {all_text}; hosts hold the other weights.")
            }
        });
    }
    Some(match used.len() {
        1 => format!("One device of {largest_text} holds all {all_text}; the others are left free."),
        n if all > largest => {
            format!("All {all_text} exceed one device of {largest_text}: {} share them.", things(n, "device"))
        }
        n => format!(
            "One device of {largest_text} could hold all {all_text}; {} share the work.",
            things(n, "device")
        ),
    })
}

fn explain_entry(facts: &Facts<'_>, entry: &EntryFacts<'_>) -> String {
    let conditions = entry.conditions();
    let conditions = if conditions.is_empty() { conditions } else { format!(" ({conditions})") };
    let mut text = String::from("\n");
    text.push_str(&shorten(&format!("Entry {}{conditions}", entry.title()), WIDTH));
    text.push('\n');
    text.push_str(&paragraph(&counts(entry)));
    if entry.tasks.is_empty() {
        text.push_str(&paragraph("It runs no kernel and copies nothing."));
    } else {
        text.push_str(&section("What runs where, and why", &placement(facts, entry)));
        if !entry.entry.engines.is_empty() {
            text.push_str(&section("Engines", &engine_table(facts, entry)));
        }
        text.push_str(&section("What costs most", &costliest(facts, entry)));
        text.push_str(&section("What limits it", &limits(facts, entry)));
    }
    if !entry.entry.budgets.is_empty() {
        text.push_str(&section("Memory", &memory(facts, entry)));
    }
    text
}

/// Predicted time; kernels, copies, streams and events.
fn counts(entry: &EntryFacts<'_>) -> String {
    let e = entry.entry;
    let time = match &entry.timeline {
        Ok(timeline) => {
            format!("{} predicted for one run{}", seconds(figure(timeline.seconds)), rates(entry))
        }
        Err(message) => format!("It cannot be simulated ({})", shorten(message, 200)),
    };
    let stated = figure(e.seconds);
    let stated = match &entry.timeline {
        Ok(t) if stated > 0.0 && (stated - t.seconds).abs() > 0.01 * stated => {
            format!(" (the plan itself says {})", seconds(stated))
        }
        _ => String::new(),
    };
    let copying = e.streams.iter().filter(|s| s.kind == StreamKind::Copy).count();
    let streams = match copying {
        0 => things(e.streams.len(), "stream"),
        n => format!("{} ({n} for copies only)", things(e.streams.len(), "stream")),
    };
    format!(
        "{time}{stated}: {}, {}, {streams}, {}.",
        things(e.kernels.len(), "kernel"),
        things(entry.copies(), "copy"),
        things(e.events as usize, "event"),
    )
}

/// Runs per second, one after the other, and of a decoder the tokens that they give.
fn rates(entry: &EntryFacts<'_>) -> String {
    let each = entry.seconds();
    if each <= 0.0 {
        return String::new();
    }
    let tokens = match entry.batch() {
        Some(batch) => {
            format!(", {} tokens per second at batch {}", rate(batch as f64 / each), count(batch))
        }
        None => String::new(),
    };
    format!(" ({} runs per second{tokens})", rate(1.0 / each))
}

/// Three digits of a number, or more if it has more.
fn rate(value: f64) -> String {
    match value {
        v if !v.is_finite() || v >= 1e15 => "?".into(),
        v if v >= 99.95 => count(v.round() as u64),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// Kernels and time per device, with what put them there.
fn placement(facts: &Facts<'_>, entry: &EntryFacts<'_>) -> String {
    let titles = ["device", "kernels", "by weights", "by state", "by operands", "busy", "of run"];
    let mut table = Table::new(&titles);
    let rows = placement_rows(facts, entry);
    for row in rows.iter().take(MAX_ROWS) {
        let of_run = percent(row.busy, entry.seconds());
        table.row(vec![
            facts.device(Some(row.device)).to_owned(),
            count(row.kernels as u64),
            count(row.because[0] as u64),
            count(row.because[1] as u64),
            count(row.because[2] as u64),
            seconds(row.busy),
            of_run,
        ]);
    }
    let idle = facts.devices.iter().filter(|d| !d.host).count().saturating_sub(rows.len());
    let mut text = table.render() + &left_out(rows.len(), MAX_ROWS, "device");
    text.push_str(&paragraph(
        "A kernel is where the weights that it reads are; one without weights where its state is; any other where its \
         operands are.",
    ));
    if idle > 0 {
        text.push_str(&paragraph(&format!("{} without a kernel of this entry.", things(idle, "device"))));
    }
    for row in rows.iter().filter(|r| !r.scopes.is_empty()).take(MAX_ROWS) {
        text.push_str(&paragraph(&format!("{} runs {}.", facts.device(Some(row.device)), row.scopes)));
    }
    text + &links(facts, entry)
}

/// Engine regions and what crosses their borders.
fn engine_table(facts: &Facts<'_>, entry: &EntryFacts<'_>) -> String {
    let titles = ["engine", "<device", "kernels", "ops", "in", "out", "weights", "seconds", "work"];
    let mut table = Table::new(&titles);
    let all = engines(entry);
    let size = |b: u64| if b == 0 { "–".to_owned() } else { bytes(b as f64) };
    for engine in all.iter().take(MAX_ENGINES) {
        let work = figure(engine.flops);
        table.row(vec![
            engine.number.to_string(),
            engines::device(facts, engine).to_owned(),
            count(engine.kernels.len() as u64),
            count(engine.ops.len() as u64),
            size(engine.bytes_in),
            size(engine.bytes_out),
            size(engine.weight_bytes),
            seconds(figure(engine.seconds)),
            if work > 0.0 { flops(work) } else { "–".into() },
        ]);
    }
    let mut text = table.render() + &left_out(all.len(), MAX_ENGINES, "engine");
    text.push_str(&paragraph(&engine_sentence(entry)));
    for engine in all.iter().take(MAX_BORDERS) {
        let (inputs, outputs) =
            (engines::values(entry, &engine.inputs), engines::values(entry, &engine.outputs));
        let ends = match engine.ends.is_empty() {
            true => String::new(),
            false => format!(" It ends here: {}.", engines::ends(engine)),
        };
        let number = engine.number;
        text.push_str(&paragraph(&format!("Engine {number} takes {inputs} and gives {outputs}.{ends}")));
    }
    text
}

/// What an engine is, and what is in none.
pub(crate) fn engine_sentence(entry: &EntryFacts<'_>) -> String {
    let (outside, time) = engines::outside(entry);
    let rest = match outside {
        0 => "every kernel is in one".to_owned(),
        n => format!("{} with {} of the time are in none", things(n, "kernel"), percent(time, entry.work())),
    };
    format!(
        "An engine holds what TensorRT may run as one; in and out are the values that cross its border; {rest}."
    )
}

/// What a device runs of an entry.
pub(crate) struct PlacementRow {
    pub(crate) device: usize,
    pub(crate) kernels: usize,
    /// Seconds in which at least one kernel runs.
    pub(crate) busy: f64,
    /// Kernels that stand there for the weights, for the state and for the operands that they read.
    pub(crate) because: [usize; 3],
    pub(crate) scopes: String,
}

/// One row per device that runs a kernel.
pub(crate) fn placement_rows(facts: &Facts<'_>, entry: &EntryFacts<'_>) -> Vec<PlacementRow> {
    let mut rows = Vec::new();
    for device in 0..facts.devices.len() {
        let here = || entry.tasks.iter().filter(|t| t.device == Some(device) && t.route.is_none());
        let kernels = here().count();
        if kernels == 0 {
            continue;
        }
        let used = entry.timeline.as_ref().ok().and_then(|t| t.devices.get(device));
        rows.push(PlacementRow {
            device,
            kernels,
            busy: used.map_or_else(|| here().map(|t| t.seconds).sum(), |u| figure(u.busy)),
            because: [Reason::Weights, Reason::State, Reason::Operands]
                .map(|reason| here().filter(|t| t.reason == reason).count()),
            scopes: summary(here().map(|t| (t.scope.as_str(), t.seconds)), 3),
        });
    }
    rows
}

/// Copies by where they go.
fn links(facts: &Facts<'_>, entry: &EntryFacts<'_>) -> String {
    let links = entry.links();
    let mut table = Table::new(&["copies", "number", "bytes", "seconds", "of run", "<link"]);
    for (route, (number, sum, time)) in links.iter().take(MAX_ROWS) {
        table.row(vec![
            facts.route(*route),
            count(*number as u64),
            bytes(*sum),
            seconds(*time),
            percent(*time, entry.seconds()),
            link_text(facts, *route, false),
        ]);
    }
    if table.is_empty() { String::new() } else { table.render() + &left_out(links.len(), MAX_ROWS, "route") }
}

/// Bandwidth and latency of a way, if the plan names it; its hops by name or number.
pub(crate) fn link_text(facts: &Facts<'_>, [from, to]: [Option<usize>; 2], hops: bool) -> String {
    if from == to {
        return "within the device".into();
    }
    let link = facts.plan.links.iter().find(|l| Some(l.from.index()) == from && Some(l.to.index()) == to);
    match link {
        Some(l) => {
            let hops = match l.hops.len() {
                0 | 1 if !hops => String::new(),
                n if !hops => format!(", {}", things(n, "hop")),
                0 => String::new(),
                _ => {
                    let names = l.hops.iter().take(4).map(|h| clean(h));
                    format!(" over {}", names.collect::<Vec<_>>().join(", "))
                }
            };
            format!("{}/s, {}{hops}", bytes(figure(l.bandwidth)), seconds(figure(l.latency)))
        }
        None => "host link".into(),
    }
}

fn costliest(facts: &Facts<'_>, entry: &EntryFacts<'_>) -> String {
    let groups = entry.groups();
    let scopes: Vec<String> = groups.iter().take(COSTLIEST).map(Group::scope).collect();
    let within = common(&scopes);
    let title = if within.is_empty() { "<<scope".to_owned() } else { format!("<<in {within}") };
    let titles = ["<what", "×", "seconds", "share", "<bound by", "work", "moved", "<where", &title];
    let mut table = Table::new(&titles);
    for group in groups.iter().take(COSTLIEST) {
        let (work, limit) = (group.flops(), group.tasks.first().map_or("", |t| t.limit.name()));
        table.row(vec![
            group.name(),
            count(group.tasks.len() as u64),
            seconds(group.seconds),
            percent(group.seconds, entry.work()),
            limit.to_owned(),
            if work > 0.0 { flops(work) } else { "–".into() },
            bytes(group.bytes()),
            group.place(facts),
            group.scope().strip_prefix(&within).unwrap_or("").trim_start_matches('.').to_owned(),
        ]);
    }
    if table.is_empty() {
        return "  nothing takes time\n".into();
    }
    let rest: f64 = groups.iter().skip(COSTLIEST).map(|g| g.seconds).sum();
    let more = groups.len().saturating_sub(COSTLIEST);
    if more > 0 {
        let all = [count(more as u64), " others".into()].concat();
        table.row(vec![all, String::new(), seconds(rest), percent(rest, entry.work())]);
    }
    table.render()
}

/// The parts that all paths begin with; paths that are empty have no say.
fn common(scopes: &[String]) -> String {
    let mut paths = scopes.iter().filter(|s| !s.is_empty()).map(|s| s.split('.').collect::<Vec<_>>());
    let first = paths.next().unwrap_or_default();
    let same = |a: &[&str], b: &[&str]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let length = paths.fold(first.len(), |length, path| length.min(same(&first, &path)));
    first[..length].join(".")
}

fn limits(facts: &Facts<'_>, entry: &EntryFacts<'_>) -> String {
    limit_sentences(facts, entry).iter().map(|s| paragraph(s)).collect()
}

/// What limits an entry: critical path, bounds, busiest device and link, waiting.
pub(crate) fn limit_sentences(facts: &Facts<'_>, entry: &EntryFacts<'_>) -> Vec<String> {
    let mut out: Vec<String> = streaming_sentence(facts, entry).into_iter().collect();
    let Ok(timeline) = &entry.timeline else {
        out.push("Without a simulation there is no critical path.".into());
        return out;
    };
    let total = entry.seconds();
    let on_path = || entry.path.iter().filter_map(|t| entry.tasks.get(*t));
    let span = |t: &Task| (t.end - t.start).max(0.0);
    let kernels: Vec<&Task> = on_path().filter(|t| t.route.is_none()).collect();
    let copies: Vec<&Task> = on_path().filter(|t| t.route.is_some()).collect();
    let sum = |tasks: &[&Task]| tasks.iter().map(|t| span(t)).sum::<f64>();
    let waiting = total - sum(&kernels) - sum(&copies);
    let waiting = if waiting > 1e-3 * total {
        format!("; waits for events take the other {}", percent(waiting, total))
    } else {
        String::new()
    };
    out.push(format!(
        "The critical path has {} ({}) and {} ({}){waiting}.",
        things(kernels.len(), "kernel"),
        percent(sum(&kernels), total),
        things(copies.len(), "copy"),
        percent(sum(&copies), total),
    ));
    let bounds = entry.by_limit(on_path());
    let whole: f64 = bounds.iter().sum();
    let mut order: Vec<Limit> = Limit::ALL.into_iter().filter(|l| bounds[*l as usize] > 0.0).collect();
    order.sort_by(|a, b| bounds[*b as usize].total_cmp(&bounds[*a as usize]));
    if let Some(first) = order.first() {
        let parts: Vec<String> =
            order.iter().map(|l| format!("{} {}", l.name(), percent(bounds[*l as usize], whole))).collect();
        out.push(format!("It is bound by {}: {}.", parts.join(", "), first.advice()));
    }
    let busiest =
        timeline.devices.iter().enumerate().max_by(|a, b| a.1.busy.total_cmp(&b.1.busy).then(b.0.cmp(&a.0)));
    if let Some((device, used)) = busiest.filter(|(_, used)| used.busy > 0.0) {
        out.push(format!(
            "The busiest device is {}: it runs kernels in {} of the time; on average they fill {} of it.",
            facts.device(Some(device)),
            percent(figure(used.utilisation), 1.0),
            percent(figure(used.occupancy), 1.0),
        ));
    }
    let links = entry.links();
    let busiest = links
        .iter()
        .filter(|(route, _)| route[0] != route[1])
        .max_by(|a, b| a.1.2.total_cmp(&b.1.2).then(b.0.cmp(a.0)));
    if let Some((route, (number, moved, time))) = busiest {
        let (number, moved) = (things(*number, "copy"), bytes(*moved));
        out.push(format!(
            "The busiest link is {}: {number} of {moved} in all take {} ({} of the run).",
            facts.route(*route),
            seconds(*time),
            percent(*time, total),
        ));
    }
    let overlap = entry.work() / total;
    if overlap > 1.02 && overlap.is_finite() {
        out.push(format!(
            "Streams overlap: one after the other everything would take {} ({overlap:.2} times as long).",
            seconds(entry.work())
        ));
    }
    out
}

/// Memory of an entry per device.
fn memory(facts: &Facts<'_>, entry: &EntryFacts<'_>) -> String {
    let budgets = &entry.entry.budgets;
    let any_cache = budgets.iter().any(|b| b.kv_per_session > 0);
    let mut titles = vec!["device", "weights", "state", "activations", "at least", "workspace"];
    if any_cache {
        titles.extend(["KV/token", "KV/session", "sessions"]);
    }
    let mut table = Table::new(&titles);
    let size = |b: u64| if b == 0 { "–".to_owned() } else { bytes(b as f64) };
    for b in budgets.iter().take(MAX_ROWS) {
        let mut row = vec![facts.device(Some(b.device.index())).to_owned()];
        row.extend([b.weights, b.state, b.activations, b.activations_bound, b.workspace].map(size));
        if any_cache {
            row.extend([size(b.kv_per_token), size(b.kv_per_session)]);
            row.push(b.sessions.map_or_else(|| "–".into(), count));
        }
        table.row(row);
    }
    let mut text = table.render() + &left_out(budgets.len(), MAX_ROWS, "device");
    if let Some(sentence) = capacity_sentence(facts, entry) {
        text.push_str(&paragraph(&sentence));
    }
    text
}

/// How much of the weights a run copies from hosts, if it does.
fn streaming_sentence(facts: &Facts<'_>, entry: &EntryFacts<'_>) -> Option<String> {
    let (kept, moved) = entry.streamed(facts.plan);
    let (kept_text, moved_text) = (bytes(kept as f64), bytes(moved as f64));
    match moved {
        0 => None,
        _ if moved == kept => {
            Some(format!("{kept_text} of weights stay on hosts and are copied in every run."))
        }
        _ => Some(format!(
            "{kept_text} of weights stay on hosts; copies of them move {moved_text} in every run."
        )),
    }
}

/// How many sessions and tokens fit beside weights and activations.
pub(crate) fn capacity_sentence(facts: &Facts<'_>, entry: &EntryFacts<'_>) -> Option<String> {
    let tokens = entry.tokens(facts.plan)?;
    let per_session: u64 = entry.entry.budgets.iter().fold(0, |sum, b| sum.saturating_add(b.kv_per_session));
    let sessions = entry.sessions().map_or(String::new(), |n| {
        let size = bytes(per_session as f64);
        format!("{} at the largest size ({size} of KV cache each), or ", things_u64(n, "session"))
    });
    Some(format!(
        "Beside weights and activations fit the KV caches of {sessions}{} over all sessions.",
        things_u64(tokens, "token")
    ))
}

fn things_u64(number: u64, name: &str) -> String {
    things(usize::try_from(number).unwrap_or(usize::MAX), name)
}

fn section(title: &str, text: &str) -> String {
    format!("\n{title}\n{text}")
}

/// A line that says how many rows are not shown.
fn left_out(all: usize, shown: usize, name: &str) -> String {
    match all.saturating_sub(shown) {
        0 => String::new(),
        n => format!("  {} not shown\n", things(n, &format!("more {name}"))),
    }
}
