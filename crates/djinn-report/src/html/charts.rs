//! Timeline and memory map: the markup that holds them, tables that say the same in words, and the data that the script
//! draws.

use std::collections::BTreeMap;
use std::fmt::Write;

use djinn_plan::{Action, ArenaKind, Content, Place, Plan, StreamKind, ValueRef, View};

use super::markup::{Table, attribute, device_chip, percent};
use super::{MAX_ENTRIES, SECTIONS, entry_name, per_entry};
use crate::facts::{Class, EntryFacts, Facts, Task, figure, kind_name};
use crate::limit::Limit;
use crate::names::clean;
use crate::units::{bytes, count, seconds, things};

/// Tasks of all timelines of a page; further ones are drawn together with their neighbours.
const MAX_TASKS: usize = 10_000;
/// Rectangles of all memory maps of a page; the smallest others are left out.
const MAX_BUFFERS: usize = 10_000;
/// Waits of an entry that are drawn.
const MAX_WAITS: usize = 3_000;
/// Memory maps of an entry, and strips of persistent memory.
const MAX_MAPS: usize = 16;
/// Streams that are drawn.
const MAX_STREAMS: usize = 256;
/// Times are whole parts of the run, of which it has so many.
const TICKS: f64 = 1e9;

/// The timelines.
pub(crate) fn timeline(facts: &Facts<'_>) -> String {
    let intro = "<p class=\"dim\">What every stream does in the simulated run. Drag to move, hold Ctrl and turn the \
                 wheel (or pinch) to zoom, click for details; with the keyboard W, S, A and D, and the arrows for the \
                 next command.</p>\n<noscript><p class=\"warn\">The charts need JavaScript; the tables say the same in \
                 words.</p></noscript>\n";
    per_entry(facts, SECTIONS[2], intro, |number, entry| {
        if entry.timeline.is_err() || entry.tasks.is_empty() {
            return "<p class=\"none\">There is nothing to draw.</p>\n".into();
        }
        let label = format!("Timeline of {}: {}", entry_name(entry), seconds(entry.seconds()));
        let mut out = format!(
            "<div class=\"tl\" data-entry=\"{number}\">\n<div class=\"tools\">\
             <button type=\"button\" data-do=\"in\" aria-label=\"Zoom in\">+</button>\
             <button type=\"button\" data-do=\"out\" aria-label=\"Zoom out\">−</button>\
             <button type=\"button\" data-do=\"fit\">Fit</button>\
             <button type=\"button\" data-do=\"path\" aria-pressed=\"false\">Critical path</button>\
             <label>Colour <select data-do=\"by\"><option value=\"limit\">by limit</option>\
             <option value=\"class\">by operation</option></select></label>\
             <input type=\"search\" data-do=\"find\" placeholder=\"Find a kernel\" aria-label=\"Find a kernel\">\
             <span class=\"hits dim\" role=\"status\"></span></div>\n\
             <div class=\"plot\"><canvas tabindex=\"0\" role=\"img\" aria-label=\"{}\"></canvas></div>\n\
             <div class=\"detail\" aria-live=\"polite\"></div>\n",
            attribute(&label)
        );
        out.push_str(&legends());
        let hidden = entry.tasks.len().saturating_sub(task_limit(facts));
        if hidden > 0 {
            let text = format!(
                "{} of less time are drawn together with their neighbours.",
                things(hidden, "command")
            );
            out.push_str(&format!("<p class=\"none\">{text}</p>\n"));
        }
        out.push_str("</div>\n");
        out.push_str(&streams(facts, entry));
        out
    })
}

fn legends() -> String {
    let item = |class: String, name: &str| format!("<li><span class=\"chip {class}\">{name}</span></li>");
    let limits = Limit::ALL.map(|l| item(format!("l-{}", l.name()), l.name())).concat();
    let classes = Class::ALL.map(|c| item(format!("c-{}", c as usize), c.name())).concat();
    let wait = "<li><span class=\"chip wait\">waits for another stream</span></li>";
    format!(
        "<ul class=\"legend by-limit\">{limits}{wait}</ul>\n<ul class=\"legend by-class\" hidden>{classes}{wait}</ul>\n"
    )
}

/// The streams in words.
fn streams(facts: &Facts<'_>, entry: &EntryFacts<'_>) -> String {
    let titles =
        ["<Stream", "<Device", "<For", "Kernels", "Copies", "Busy", "Of the run", "Waits", "Waiting"];
    let mut table = Table::new("Streams", &titles);
    for (number, stream) in entry.entry.streams.iter().enumerate().take(MAX_STREAMS) {
        let tasks = || entry.tasks.iter().filter(|t| t.stream == number);
        let busy: f64 = tasks().map(|t| (t.end - t.start).max(0.0)).sum();
        let waits = || entry.waits.iter().filter(|w| w.stream == number && w.end > w.start);
        let device = Some(stream.device.index());
        table.row(vec![
            number.to_string(),
            device_chip(device, facts.device(device)),
            stream_kind(stream.kind).to_owned(),
            count(tasks().filter(|t| t.route.is_none()).count() as u64),
            count(tasks().filter(|t| t.route.is_some()).count() as u64),
            seconds(busy),
            percent(busy, entry.seconds()),
            count(waits().count() as u64),
            seconds(waits().map(|w| w.end - w.start).sum()),
        ]);
    }
    let number = things(entry.entry.streams.len(), "stream");
    format!("<details><summary>{number} in words</summary>\n{}</details>\n", table.render())
}

fn stream_kind(kind: StreamKind) -> &'static str {
    match kind {
        StreamKind::Compute => "compute",
        StreamKind::Copy => "copies",
    }
}

/// The memory maps.
pub(crate) fn memory(facts: &Facts<'_>) -> String {
    let intro = "<p class=\"dim\">Where every value of the run lies in its arena, and how long. The dashed line marks the \
                 bytes that no packing can undercut, whichever way streams overlap.</p>\n";
    let mut section = per_entry(facts, SECTIONS[3], intro, |number, entry| {
        let mut out = String::new();
        let maps = run_arenas(facts, entry, number);
        for (map, (arena, figures)) in maps.iter().take(MAX_MAPS).enumerate() {
            let device = facts.plan.arenas[*arena].device.index();
            out.push_str(&format!(
                "<figure class=\"map\" data-entry=\"{number}\" data-map=\"{map}\">\n<figcaption>{} {figures}</figcaption>\n\
                 <div class=\"plot\"><canvas tabindex=\"0\" role=\"img\" aria-label=\"Memory map of {}\"></canvas></div>\n\
                 </figure>\n",
                device_chip(Some(device), facts.device(Some(device))),
                attribute(facts.device(Some(device))),
            ));
        }
        if maps.is_empty() {
            out.push_str("<p class=\"none\">No value of the run takes memory.</p>\n");
        }
        if maps.len() > MAX_MAPS {
            out.push_str(&format!(
                "<p class=\"none\">{} not shown.</p>\n",
                things(maps.len() - MAX_MAPS, "more arena")
            ));
        }
        let hidden = entry.timeline.as_ref().map_or(0, |t| t.live.len()).saturating_sub(buffer_limit(facts));
        if hidden > 0 {
            let text =
                format!("{} of the fewest bytes and the shortest lives left out.", things(hidden, "value"));
            out.push_str(&format!("<p class=\"none\">{text}</p>\n"));
        }
        out.push_str(&budgets(facts, entry));
        out
    });
    let end = section.rfind("</section>").unwrap_or(section.len());
    section.insert_str(end, &strips(facts));
    section
}

/// The arenas of values of a run, with figures in words.
fn run_arenas(facts: &Facts<'_>, entry: &EntryFacts<'_>, number: usize) -> Vec<(usize, String)> {
    let Ok(timeline) = &entry.timeline else { return Vec::new() };
    let plan = facts.plan;
    let used = |arena: usize| {
        timeline.live.iter().filter_map(|l| plan.buffers.get(l.buffer.index())).filter(move |b| {
            b.arena.index() == arena && b.bytes > 0 && b.content == Content::Run { entry: number as u32 }
        })
    };
    let mut out = Vec::new();
    for (arena, of) in plan.arenas.iter().enumerate() {
        let number = used(arena).count();
        if number == 0 {
            continue;
        }
        let peak = timeline.peaks.get(arena).copied().unwrap_or(0);
        let bound = match bound(entry, of.device.index(), of.kind) {
            Some(bound) => format!("; no packing needs less than <b>{}</b>", bytes(bound as f64)),
            None => String::new(),
        };
        let sum = used(arena).fold(0.0, |sum, b| sum + b.bytes as f64);
        out.push((
            arena,
            format!(
                "{}: <b>{}</b> for {} of {} in all; in this run <b>{}</b> are in use at the peak{bound}",
                kind_name(of.kind),
                bytes(of.bytes as f64),
                things(number, "value"),
                bytes(sum),
                bytes(peak as f64),
            ),
        ));
    }
    out
}

/// What no packing of the activations of a device can undercut.
fn bound(entry: &EntryFacts<'_>, device: usize, kind: ArenaKind) -> Option<u64> {
    let budget = entry.entry.budgets.iter().find(|b| b.device.index() == device)?;
    (kind == ArenaKind::Activations).then_some(budget.activations_bound)
}

fn budgets(facts: &Facts<'_>, entry: &EntryFacts<'_>) -> String {
    let titles = [
        "<Device",
        "Weights",
        "State",
        "Activations",
        "At least",
        "Workspace",
        "KV per token",
        "KV per session",
        "Sessions",
    ];
    let mut table = Table::new("Memory per device", &titles);
    let size = |b: u64| if b == 0 { "–".to_owned() } else { bytes(b as f64) };
    for b in entry.entry.budgets.iter().take(MAX_STREAMS) {
        let device = Some(b.device.index());
        let mut row = vec![device_chip(device, facts.device(device))];
        row.extend([b.weights, b.state, b.activations, b.activations_bound, b.workspace].map(size));
        row.extend([size(b.kv_per_token), size(b.kv_per_session)]);
        row.push(b.sessions.map_or_else(|| "–".into(), count));
        table.row(row);
    }
    if table.is_empty() { String::new() } else { format!("<h3>Needs of this entry</h3>\n{}", table.render()) }
}

/// Weights and state, which lie still.
fn strips(facts: &Facts<'_>) -> String {
    let arenas = persistent_arenas(facts.plan);
    if arenas.is_empty() {
        return String::new();
    }
    let mut out = String::from("<h3>Weights and state</h3>\n");
    for (strip, arena) in arenas.iter().enumerate() {
        let of = &facts.plan.arenas[*arena];
        let device = of.device.index();
        out.push_str(&format!(
            "<figure class=\"strip\" data-strip=\"{strip}\">\n<figcaption>{} {}: <b>{}</b></figcaption>\n\
             <div class=\"plot\"><canvas tabindex=\"0\" role=\"img\" aria-label=\"{} of {}\"></canvas></div>\n</figure>\n",
            device_chip(Some(device), facts.device(Some(device))),
            kind_name(of.kind),
            bytes(of.bytes as f64),
            kind_name(of.kind),
            attribute(facts.device(Some(device))),
        ));
    }
    out
}

fn persistent_arenas(plan: &Plan) -> Vec<usize> {
    let lasting = |kind| matches!(kind, ArenaKind::Weights | ArenaKind::State);
    let mut arenas: Vec<usize> = (0..plan.arenas.len()).filter(|a| lasting(plan.arenas[*a].kind)).collect();
    arenas.sort_by_key(|a| (plan.arenas[*a].device, plan.arenas[*a].kind));
    arenas.truncate(MAX_MAPS);
    arenas
}

fn task_limit(facts: &Facts<'_>) -> usize {
    MAX_TASKS / facts.entries.len().clamp(1, MAX_ENTRIES)
}

fn buffer_limit(facts: &Facts<'_>) -> usize {
    MAX_BUFFERS / 2 / facts.entries.len().clamp(1, MAX_ENTRIES)
}

/// Texts that are written once.
#[derive(Default)]
struct Strings {
    list: Vec<String>,
    numbers: BTreeMap<String, usize>,
}

impl Strings {
    fn number(&mut self, text: &str) -> usize {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.list.len();
        self.list.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }
}

/// What the script draws, as JSON in a script element that is not run.
pub(crate) fn data(facts: &Facts<'_>) -> String {
    let mut strings = Strings::default();
    let mut entries = Vec::new();
    for (number, entry) in facts.entries.iter().take(MAX_ENTRIES).enumerate() {
        entries.push(entry_data(facts, number, entry, &mut strings));
    }
    let strips = strips_data(facts, &mut strings);
    let devices: Vec<&str> = facts.devices.iter().map(|d| d.name.as_str()).collect();
    // No text may end the script element.
    let json = |list: &[String]| serde_json::json!(list).to_string().replace('<', "\\u003c");
    let devices: Vec<String> = devices.into_iter().map(str::to_owned).collect();
    format!(
        "<script type=\"application/json\" id=\"data\">{{\"strings\":{},\n\"devices\":{},\n\"entries\":[{}],\n\
         \"strips\":[{strips}]}}</script>\n",
        json(&strings.list),
        json(&devices),
        entries.join(",\n")
    )
}

fn entry_data(facts: &Facts<'_>, number: usize, entry: &EntryFacts<'_>, strings: &mut Strings) -> String {
    let mut streams: Vec<(usize, usize, StreamKind)> = Vec::new();
    for (stream, s) in entry.entry.streams.iter().enumerate().take(MAX_STREAMS) {
        streams.push((s.device.index(), stream, s.kind));
    }
    streams.sort_by_key(|(device, stream, kind)| (*device, *kind, *stream));
    let rows: Vec<String> = streams
        .iter()
        .map(|(d, s, kind)| format!("[{d},{s},{}]", strings.number(stream_kind(*kind))))
        .collect();
    let (tasks, waits, path) =
        if entry.timeline.is_ok() { tasks_data(facts, entry, strings) } else { Default::default() };
    let maps = maps_data(facts, number, entry, strings);
    format!(
        "{{\"seconds\":{},\"streams\":[{}],\n\"tasks\":[{tasks}],\n\"waits\":[{waits}],\n\"path\":[{path}],\n\
         \"maps\":[{maps}]}}",
        float(entry.seconds()),
        rows.join(",")
    )
}

/// Tasks, waits and critical path, as lists of numbers.
fn tasks_data(facts: &Facts<'_>, entry: &EntryFacts<'_>, strings: &mut Strings) -> (String, String, String) {
    let whole = entry.seconds();
    let (drawn, place) = merged(entry, task_limit(facts));
    let mut tasks = String::new();
    for group in &drawn {
        let first = &entry.tasks[group[0]];
        let last = &entry.tasks[group[group.len() - 1]];
        let sum = |of: fn(&Task) -> f64| group.iter().map(|t| of(&entry.tasks[*t])).sum::<f64>();
        let name = match group.len() {
            1 => first.name.clone(),
            n => things(n, "short command"),
        };
        let route = first.route.map_or(-1, |r| strings.number(&facts.route(r)) as i64);
        let (start, end) = (ticks(first.start, whole), ticks(last.end, whole));
        let _ = write!(
            tasks,
            "{}{},{start},{},{},{},{},{},{},{},{},{},{route},{}",
            if tasks.is_empty() { "" } else { "," },
            first.stream,
            end.saturating_sub(start),
            strings.number(&name),
            strings.number(&first.scope),
            first.limit as usize,
            first.class as usize,
            float(sum(|t| t.flops)),
            float(sum(|t| t.bytes)),
            float(sum(|t| t.seconds)),
            group.iter().map(|t| entry.tasks[*t].ops).sum::<usize>(),
            if group.len() == 1 { float(first.share) } else { "0".into() },
        );
    }
    let of = |task: Option<usize>| task.and_then(|t| place.get(t).copied()).map_or(-1, |t| t as i64);
    let mut waits: Vec<&crate::path::Wait> =
        entry.waits.iter().filter(|w| ticks(w.end, whole) > ticks(w.start, whole)).collect();
    waits.sort_by(|a, b| (b.end - b.start).total_cmp(&(a.end - a.start)).then(a.stream.cmp(&b.stream)));
    let waits: Vec<String> = waits
        .iter()
        .take(MAX_WAITS)
        .map(|w| {
            let (start, end) = (ticks(w.start, whole), ticks(w.end, whole));
            format!("{},{start},{},{},{}", w.stream, end - start, of(w.task), of(w.then))
        })
        .collect();
    let mut path: Vec<usize> = entry.path.iter().filter_map(|t| place.get(*t).copied()).collect();
    path.dedup();
    let path: Vec<String> = path.iter().map(usize::to_string).collect();
    (tasks, waits.join(","), path.join(","))
}

/// Groups of tasks that are drawn as one, and the group of every task: the longest stand alone, others together with
/// their neighbours in the stream.
fn merged(entry: &EntryFacts<'_>, limit: usize) -> (Vec<Vec<usize>>, Vec<usize>) {
    let mut alone = vec![true; entry.tasks.len()];
    if entry.tasks.len() > limit {
        let mut order: Vec<usize> = (0..entry.tasks.len()).collect();
        let length = |t: usize| entry.tasks[t].end - entry.tasks[t].start;
        order.sort_by(|a, b| length(*b).total_cmp(&length(*a)).then(a.cmp(b)));
        // Between two tasks that stand alone there may be a group: half of the limit is for those.
        order.iter().skip(limit / 2).for_each(|t| alone[*t] = false);
    }
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut place = vec![0; entry.tasks.len()];
    let mut last: BTreeMap<usize, usize> = BTreeMap::new();
    for (number, task) in entry.tasks.iter().enumerate() {
        let open = last.get(&task.stream).copied().filter(|g| !alone[number] && !alone[groups[*g][0]]);
        match open {
            Some(group) => groups[group].push(number),
            None => groups.push(vec![number]),
        }
        place[number] = open.unwrap_or(groups.len() - 1);
        last.insert(task.stream, place[number]);
    }
    (groups, place)
}

/// The memory maps of an entry.
fn maps_data(facts: &Facts<'_>, number: usize, entry: &EntryFacts<'_>, strings: &mut Strings) -> String {
    let Ok(timeline) = &entry.timeline else { return String::new() };
    let (plan, whole) = (facts.plan, entry.seconds());
    let values = values(entry);
    let mut live: Vec<(usize, f64, f64)> = timeline
        .live
        .iter()
        .map(|l| (l.buffer.index(), l.interval.start, l.interval.end))
        .filter(|(b, ..)| {
            plan.buffers.get(*b).is_some_and(|b| b.content == Content::Run { entry: number as u32 })
        })
        .collect();
    let area = |(b, start, end): &(usize, f64, f64)| plan.buffers[*b].bytes as f64 * (end - start).max(0.0);
    live.sort_by(|a, b| area(b).total_cmp(&area(a)).then(a.0.cmp(&b.0)));
    live.truncate(buffer_limit(facts));
    live.sort_by_key(|l| l.0);
    let mut maps = Vec::new();
    for (arena, _) in run_arenas(facts, entry, number).into_iter().take(MAX_MAPS) {
        let of = &plan.arenas[arena];
        let mut list: Vec<String> = Vec::new();
        for (buffer, start, end) in live.iter().filter(|(b, ..)| plan.buffers[*b].arena.index() == arena) {
            let b = &plan.buffers[*buffer];
            let ty = values.get(buffer).and_then(|v| type_text(entry, *v)).unwrap_or_default();
            let (name, ty) = (strings.number(&clean(&b.name)), strings.number(&ty));
            let (start, end) = (ticks(*start, whole), ticks(*end, whole));
            list.push(format!("{},{},{start},{},{name},{ty}", b.offset, b.bytes, end.saturating_sub(start)));
        }
        maps.push(format!(
            "{{\"bytes\":{},\"bound\":{},\"peak\":{},\"buffers\":[{}]}}",
            of.bytes,
            bound(entry, of.device.index(), of.kind).map_or("null".into(), |b| b.to_string()),
            timeline.peaks.get(arena).copied().unwrap_or(0),
            list.join(",")
        ));
    }
    maps.join(",\n")
}

/// The largest value that each buffer holds.
fn values(entry: &EntryFacts<'_>) -> BTreeMap<usize, ValueRef> {
    let mut largest: BTreeMap<usize, (u64, ValueRef)> = BTreeMap::new();
    let mut see = |value: ValueRef, view: &View| {
        let known = largest.entry(view.buffer.index()).or_insert((view.bytes, value));
        if view.bytes > known.0 {
            *known = (view.bytes, value);
        }
    };
    let e = entry.entry;
    for port in e.inputs.iter().chain(&e.outputs) {
        port.view.iter().for_each(|view| see(port.value, view));
    }
    e.states.iter().for_each(|s| see(ValueRef::Argument(s.argument), &s.view));
    e.kernels.iter().flat_map(|k| &k.writes).for_each(|o| see(o.value, &o.view));
    for command in &e.commands {
        if let Action::Copy { result, to: Place::Buffer(view), .. } = &command.action {
            see(*result, view);
        }
    }
    largest.into_iter().map(|(buffer, (_, value))| (buffer, value)).collect()
}

/// The type of a value, such as `1x12x64xf32`.
fn type_text(entry: &EntryFacts<'_>, value: ValueRef) -> Option<String> {
    let text = clean(&entry.ops.ty(value)?.to_string());
    Some(text.strip_prefix("tensor<").and_then(|t| t.strip_suffix('>')).unwrap_or(&text).to_owned())
}

/// Weights and state by arena.
fn strips_data(facts: &Facts<'_>, strings: &mut Strings) -> String {
    let plan = facts.plan;
    let states: Vec<BTreeMap<usize, ValueRef>> = facts.entries.iter().take(MAX_ENTRIES).map(values).collect();
    let arenas = persistent_arenas(plan);
    let mut by_arena: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (number, buffer) in plan.buffers.iter().enumerate() {
        by_arena.entry(buffer.arena.index()).or_default().push(number);
    }
    let limit = MAX_BUFFERS / 2 / arenas.len().max(1);
    let mut out = Vec::new();
    for arena in arenas {
        let mut buffers = by_arena.remove(&arena).unwrap_or_default();
        buffers.sort_by_key(|b| (std::cmp::Reverse(plan.buffers[*b].bytes), *b));
        let hidden = buffers.len().saturating_sub(limit);
        buffers.truncate(limit);
        buffers.sort_by_key(|b| (plan.buffers[*b].offset, *b));
        let mut list = Vec::new();
        for number in buffers {
            let b = &plan.buffers[number];
            let ty = match &b.content {
                Content::Constant { function, value } => {
                    let entry = facts.entries.iter().find(|e| e.entry.function == *function);
                    entry.and_then(|e| type_text(e, *value))
                }
                Content::State { .. } | Content::Run { .. } => {
                    let known = facts.entries.iter().zip(&states);
                    known.filter_map(|(e, s)| type_text(e, *s.get(&number)?)).next()
                }
            };
            let (name, ty) = (strings.number(&clean(&b.name)), strings.number(&ty.unwrap_or_default()));
            list.push(format!("{},{},{name},{ty}", b.offset, b.bytes));
        }
        out.push(format!(
            "{{\"bytes\":{},\"kind\":\"{}\",\"hidden\":{hidden},\"buffers\":[{}]}}",
            plan.arenas[arena].bytes,
            kind_name(plan.arenas[arena].kind),
            list.join(",")
        ));
    }
    out.join(",\n")
}

/// A moment in parts of the run.
fn ticks(time: f64, whole: f64) -> u64 {
    let part = if whole > 0.0 { figure(time / whole) } else { 0.0 };
    (part.min(1.0) * TICKS).round() as u64
}

/// A figure with four digits.
fn float(value: f64) -> String {
    match figure(value) {
        0.0 => "0".into(),
        v if (1.0..1e6).contains(&v) && v.fract() == 0.0 => format!("{v:.0}"),
        v => format!("{v:.3e}"),
    }
}
