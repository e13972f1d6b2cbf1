//! Overview, placement, costs and rewrites.

use std::collections::BTreeMap;

use super::markup::{Table, attribute, bar, device_chip, escape, limit_chip, percent, stack};
use super::{Page, SECTIONS, per_entry};
use crate::built::Built;
use crate::engines::{self, engines};
use crate::explain::{
    capacity_sentence, engine_sentence, limit_sentences, link_text, placement_rows, why_several,
};
use crate::facts::{Class, EntryFacts, Facts, KINDS, figure, kind_name};
use crate::limit::Limit;
use crate::measured::{Measured, MeasuredEntry, rows, sentences};
use crate::names::{clean, shorten};
use crate::scopes::pattern;
use crate::units::{bytes, count, flops, seconds, things};

/// Devices and routes that are shown.
const MAX_ROWS: usize = 64;
/// Rows of a list of costs.
const MAX_COSTS: usize = 20;
/// Remarks and counters that are shown.
const MAX_REMARKS: usize = 300;

/// Figures of an entry and what limits it.
pub(crate) fn overview(facts: &Facts<'_>) -> String {
    per_entry(facts, SECTIONS[0], "", |_, entry| {
        let mut out = cards(facts, entry);
        out.push_str("<h3>What limits it</h3>\n");
        let bounds = entry.by_limit(entry.path.iter().filter_map(|t| entry.tasks.get(*t)));
        let whole: f64 = bounds.iter().sum();
        if whole > 0.0 {
            let parts = Limit::ALL.map(|l| {
                let value = bounds[l as usize];
                (l.name().to_owned(), format!("l-{}", l.name()), value, seconds(value))
            });
            out.push_str(&stack(&parts, whole, "Critical path by what bounds it"));
        }
        for sentence in limit_sentences(facts, entry) {
            out.push_str(&format!("<p>{}</p>\n", escape(&sentence)));
        }
        if let Err(message) = &entry.timeline {
            let message = shorten(message, 300);
            out.push_str(&format!(
                "<p class=\"warn\">This entry cannot be simulated: {}</p>\n",
                escape(&message)
            ));
        }
        if let Some(sentence) = capacity_sentence(facts, entry) {
            out.push_str(&format!("<p>{}</p>\n", escape(&sentence)));
        }
        out
    })
}

fn cards(facts: &Facts<'_>, entry: &EntryFacts<'_>) -> String {
    let e = entry.entry;
    let fullest = facts.devices.iter().filter(|d| !d.host && d.capacity > 0);
    let fullest = fullest.max_by(|a, b| {
        (a.total() as f64 / a.capacity as f64).total_cmp(&(b.total() as f64 / b.capacity as f64))
    });
    let time = match &entry.timeline {
        Ok(_) => (seconds(entry.seconds()), "predicted for one run".to_owned()),
        Err(_) => (seconds(entry.work()), "one after the other; not simulated".to_owned()),
    };
    let mut cards = vec![("Run time", time.0, time.1)];
    if let Some(d) = fullest {
        let note = format!("of {} on {}", bytes(d.capacity as f64), d.name);
        cards.push(("Fullest device", bytes(d.total() as f64), note));
    }
    let streams = format!("on {}, {}", things(e.streams.len(), "stream"), things(e.events as usize, "event"));
    cards.push(("Kernels", count(e.kernels.len() as u64), streams));
    let moved: f64 = entry.tasks.iter().filter(|t| t.route.is_some()).map(|t| t.bytes).sum();
    cards.push(("Copies", count(entry.copies() as u64), format!("move {}", bytes(moved))));
    if let Some(sessions) = entry.sessions() {
        let per: u64 = e.budgets.iter().fold(0, |sum, b| sum.saturating_add(b.kv_per_session));
        cards.push(("Sessions", count(sessions), format!("fit, of {} each", bytes(per as f64))));
    }
    let work: f64 = entry.tasks.iter().map(|t| t.flops).sum();
    if work > 0.0 {
        let rate = format!("{}/s on average", flops(work / entry.seconds()));
        cards.push(("Work", flops(work), rate));
    }
    let mut out = String::from("<dl class=\"cards\">\n");
    for (title, value, note) in cards {
        out.push_str(&format!(
            "<div><dt>{title}</dt><dd>{}</dd><dd class=\"dim\">{}</dd></div>\n",
            escape(&value),
            escape(&note)
        ));
    }
    out.push_str("</dl>\n");
    out
}

/// Devices, what they hold and run, and the links between them.
pub(crate) fn placement(facts: &Facts<'_>, built: Option<&Built>) -> String {
    let intro = why_several(facts).map(|why| format!("<p>{}</p>\n", escape(&why))).unwrap_or_default();
    per_entry(facts, SECTIONS[1], &intro, |number, entry| {
        let rows = placement_rows(facts, entry);
        let mut out = String::from("<div class=\"devices\">\n");
        for number in 0..facts.devices.len().min(MAX_ROWS) {
            out.push_str(&device_card(facts, entry, number, rows.iter().find(|r| r.device == number)));
        }
        out.push_str("</div>\n");
        if facts.devices.len() > MAX_ROWS {
            let more = things(facts.devices.len() - MAX_ROWS, "more device");
            out.push_str(&format!("<p class=\"none\">{more} not shown.</p>\n"));
        }
        out.push_str(&routes(facts, entry));
        out.push_str(&engine_table(facts, entry));
        if let Some(built) = built {
            out.push_str(&super::engines::built_engines(facts, number, entry, built));
        }
        out
    })
}

/// The first reason why an engine ends, and all of them where the pointer is.
fn ends_cell(engine: &djinn_plan::Engine) -> String {
    let Some(first) = engine.ends.first() else { return "–".into() };
    let more = match engine.ends.len() - 1 {
        0 => String::new(),
        n => format!(" <span class=\"dim\">+{n}</span>"),
    };
    let all = attribute(&shorten(&engines::ends(engine), 400));
    format!("<span class=\"wrapped\" title=\"{all}\">{}{more}</span>", escape(&shorten(first, 120)))
}

/// Engine regions; the names of what crosses their borders show where the pointer is.
fn engine_table(facts: &Facts<'_>, entry: &EntryFacts<'_>) -> String {
    let all = engines(entry);
    if all.is_empty() {
        return String::new();
    }
    let titles = [
        "Engine",
        "<Device",
        "Kernels",
        "Ops",
        "In",
        "Out",
        "Weights",
        "Seconds",
        "<",
        "Of the run",
        "Work",
        "<Ends at",
    ];
    let mut table = Table::new("Engine regions", &titles);
    let most = all.first().map_or(0.0, |e| figure(e.seconds));
    for engine in all.iter().take(MAX_ROWS) {
        let border = |values: &[djinn_plan::ValueRef], size: u64| {
            let (names, n) = (attribute(&engines::values(entry, values)), values.len());
            format!(
                "<span class=\"tipped\" title=\"{names}\">{} <span class=\"dim\">×{n}</span></span>",
                bytes(size as f64)
            )
        };
        let kernels = engine.kernels.iter().filter_map(|k| entry.entry.kernels.get(k.index()));
        let names: Vec<String> = kernels.take(12).map(|k| shorten(&k.name, 60)).collect();
        let work = figure(engine.flops);
        table.row(vec![
            engine.number.to_string(),
            device_chip(Some(engine.device.index()), engines::device(facts, engine)),
            format!(
                "<span class=\"tipped\" title=\"{}\">{}</span>",
                attribute(&names.join(", ")),
                count(engine.kernels.len() as u64)
            ),
            count(engine.ops.len() as u64),
            border(&engine.inputs, engine.bytes_in),
            border(&engine.outputs, engine.bytes_out),
            bytes(engine.weight_bytes as f64),
            seconds(figure(engine.seconds)),
            bar(figure(engine.seconds), most, "c-0"),
            percent(figure(engine.seconds), entry.seconds()),
            if work > 0.0 { flops(work) } else { "–".into() },
            ends_cell(engine),
        ]);
    }
    let more = match all.len().saturating_sub(MAX_ROWS) {
        0 => String::new(),
        n => format!("<p class=\"none\">{} not shown.</p>\n", things(n, "more engine")),
    };
    let sentence = escape(&engine_sentence(entry));
    format!("<h3>Engines</h3>\n<p class=\"dim\">{sentence}</p>\n{}{more}", table.render())
}

fn device_card(
    facts: &Facts<'_>,
    entry: &EntryFacts<'_>,
    number: usize,
    row: Option<&crate::explain::PlacementRow>,
) -> String {
    let device = &facts.devices[number];
    let mut out = format!(
        "<article class=\"device\">\n<h3>{} <span class=\"dim\">{}</span></h3>\n",
        device_chip(Some(number), &device.name),
        escape(&device.profile)
    );
    let mut parts: Vec<(String, String, f64, String)> = KINDS
        .iter()
        .zip(device.held)
        .map(|(k, b)| (kind_name(*k).to_owned(), format!("m-{}", kind_name(*k)), b as f64, bytes(b as f64)))
        .collect();
    let left = device.capacity.saturating_sub(device.total());
    parts.push(("free".into(), "m-free".into(), left as f64, bytes(left as f64)));
    let whole = device.capacity.max(device.total()) as f64;
    out.push_str(&stack(&parts, whole, &format!("Memory of {}", device.name)));
    let used = entry.timeline.as_ref().ok().and_then(|t| t.devices.get(number));
    match row {
        Some(row) => {
            let [weights, state, operands] = row.because.map(|n| count(n as u64));
            out.push_str(&format!(
                "<p><b>{}</b> busy in <b>{}</b> of the run{}.</p>\n",
                things(row.kernels, "kernel"),
                percent(row.busy, entry.seconds()),
                used.map_or(String::new(), |u| format!(
                    "; on average they fill {} of it",
                    percent(figure(u.occupancy), 1.0)
                )),
            ));
            out.push_str(&format!(
                "<p class=\"dim\">{weights} are here for the weights that they read, {state} for state, {operands} for \
                 their operands.</p>\n"
            ));
            if !row.scopes.is_empty() {
                out.push_str(&format!("<p class=\"scopes\"><code>{}</code></p>\n", escape(&row.scopes)));
            }
        }
        None => out.push_str("<p class=\"dim\">Runs no kernel of this entry.</p>\n"),
    }
    out.push_str("</article>\n");
    out
}

fn routes(facts: &Facts<'_>, entry: &EntryFacts<'_>) -> String {
    let links = entry.links();
    let most = links.values().map(|l| l.1).fold(0.0, f64::max);
    let titles = ["<From", "<To", "Copies", "Bytes", "<", "Seconds", "Of the run", "<Link"];
    let mut table = Table::new("Copies by route", &titles);
    for (route, (number, sum, time)) in links.iter().take(MAX_ROWS) {
        let [from, to] = route.map(|d| device_chip(d, facts.device(d)));
        table.row(vec![
            from,
            to,
            count(*number as u64),
            bytes(*sum),
            bar(*sum, most, "link"),
            seconds(*time),
            percent(*time, entry.seconds()),
            format!("<span class=\"dim\">{}</span>", escape(&shorten(&link_text(facts, *route, true), 90))),
        ]);
    }
    if table.is_empty() {
        return "<p class=\"none\">Nothing is copied.</p>\n".into();
    }
    let more = links.len().saturating_sub(MAX_ROWS);
    let more = if more == 0 {
        String::new()
    } else {
        format!("<p class=\"none\">{more} more routes not shown.</p>\n")
    };
    format!("<h3>Copies by route</h3>\n{}{more}", table.render())
}

/// Where the time goes.
pub(crate) fn costs(facts: &Facts<'_>, measured: Option<&Measured>) -> String {
    let intro = "<p class=\"dim\">Predicted seconds of kernels and copies, each by itself. A kernel counts for the \
                 operation in it that is likely to cost most. In scopes, * stands for the numbers of repeated \
                 layers.</p>\n";
    per_entry(facts, SECTIONS[4], intro, |number, entry| {
        let of_entry = measured.and_then(|m| m.entries.iter().find(|e| e.entry == number));
        let mut out = of_entry.map(|m| measured_table(entry, m)).unwrap_or_default();
        out.push_str("<div class=\"columns\">\n");
        out.push_str(&bars("By operation", entry, |t| (t.kind.clone(), t.class)));
        out.push_str(&bars("By scope", entry, |t| {
            let scope = if t.scope.is_empty() { "(none)".into() } else { pattern(&t.scope) };
            (scope, t.class)
        }));
        out.push_str("</div>\n");
        out.push_str(&costliest(facts, entry));
        out
    })
}

/// Measured beside predicted times of an entry.
fn measured_table(entry: &EntryFacts<'_>, measured: &MeasuredEntry) -> String {
    let mut out = String::from("<h3>Measured</h3>\n");
    for sentence in sentences(measured) {
        let class = if sentence.starts_with("ALARM") { " class=\"warn\"" } else { "" };
        out.push_str(&format!("<p{class}>{}</p>\n", escape(&sentence)));
    }
    let rows = rows(entry, measured);
    let all: f64 = rows.iter().map(|r| r.measured).sum();
    let titles = ["<Kernels", "×", "Predicted", "Measured", "<", "Ratio", "Share", "<Scope"];
    let mut table = Table::new("Measured beside predicted times", &titles);
    let most = rows.first().map_or(0.0, |r| r.measured);
    for row in rows.iter().take(MAX_COSTS) {
        table.row(vec![
            format!("<code>{}</code>", escape(&shorten(&row.name, 60))),
            count(row.number as u64),
            seconds(row.predicted),
            seconds(row.measured),
            bar(row.measured, most, "c-0"),
            row.ratio(),
            percent(row.measured, all),
            format!("<code>{}</code>", escape(&shorten(&row.scope, 70))),
        ]);
    }
    if !table.is_empty() {
        out.push_str(&table.render());
    }
    out
}

/// Seconds by a name; a bar has the colour of the class that costs most in it.
fn bars(title: &str, entry: &EntryFacts<'_>, key: impl Fn(&crate::facts::Task) -> (String, Class)) -> String {
    let mut sums: BTreeMap<String, (f64, usize, BTreeMap<Class, f64>)> = BTreeMap::new();
    for task in &entry.tasks {
        let (name, class) = key(task);
        let sum = sums.entry(name).or_default();
        sum.0 += task.seconds;
        sum.1 += 1;
        *sum.2.entry(class).or_default() += task.seconds;
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|a, b| b.1.0.total_cmp(&a.1.0).then(a.0.cmp(&b.0)));
    let whole = entry.work();
    let most = sums.first().map_or(0.0, |s| s.1.0);
    let mut out = format!("<div><h3>{title}</h3>\n<ul class=\"bars\">\n");
    let row = |name: &str, time: f64, number: usize, class: &str| {
        format!(
            "<li><span class=\"nm\" title=\"{0}\">{0}</span><span class=\"n dim\">×{1}</span><span class=\"v\">{2}</span>\
             <span class=\"p dim\">{3}</span>{4}</li>\n",
            escape(name),
            count(number as u64),
            seconds(time),
            percent(time, whole),
            bar(time, most, class)
        )
    };
    for (name, (time, number, classes)) in sums.iter().take(MAX_COSTS) {
        let class = classes.iter().max_by(|a, b| a.1.total_cmp(b.1)).map_or(Class::Other, |(c, _)| *c);
        out.push_str(&row(&shorten(name, 60), *time, *number, &format!("c-{}", class as usize)));
    }
    let rest = &sums[sums.len().min(MAX_COSTS)..];
    if !rest.is_empty() {
        let (time, number) = rest.iter().fold((0.0, 0), |(t, n), (_, s)| (t + s.0, n + s.1));
        out.push_str(&row(&format!("{} others", count(rest.len() as u64)), time, number, "c-5"));
    }
    if sums.is_empty() {
        out.push_str("<li class=\"none\">Nothing runs.</li>\n");
    }
    out.push_str("</ul></div>\n");
    out
}

fn costliest(facts: &Facts<'_>, entry: &EntryFacts<'_>) -> String {
    let groups = entry.groups();
    let titles =
        ["<Kernels or copies", "×", "Seconds", "Share", "<Bound by", "Work", "Moved", "<Where", "<Scope"];
    let mut table = Table::new("Costliest kernels and copies", &titles);
    for group in groups.iter().take(MAX_COSTS) {
        let work = group.flops();
        table.row(vec![
            format!("<code>{}</code>", escape(&shorten(&group.name(), 60))),
            count(group.tasks.len() as u64),
            seconds(group.seconds),
            percent(group.seconds, entry.work()),
            group.tasks.first().map(|t| limit_chip(t.limit.name())).unwrap_or_default(),
            if work > 0.0 { flops(work) } else { "–".into() },
            bytes(group.bytes()),
            escape(&group.place(facts)),
            format!("<code>{}</code>", escape(&shorten(&group.scope(), 70))),
        ]);
    }
    let rest: f64 = groups.iter().skip(MAX_COSTS).map(|g| g.seconds).sum();
    let more = groups.len().saturating_sub(MAX_COSTS);
    let mut out = format!("<h3>What costs most</h3>\n{}", table.render());
    if more > 0 {
        let share = percent(rest, entry.work());
        out.push_str(&format!(
            "<p class=\"none\">{} with {share} of the time not shown.</p>\n",
            things(more, "other group")
        ));
    }
    let meanings = Limit::ALL.map(|l| format!("<li>{}: {}</li>", limit_chip(l.name()), l.meaning()));
    out.push_str(&format!("<ul class=\"legend\">{}</ul>\n", meanings.concat()));
    out
}

/// What the passes did.
pub(crate) fn rewrites(page: &Page<'_>) -> String {
    let mut out = String::from("<section id=\"rewrites\" aria-labelledby=\"rewrites-title\">\n");
    out.push_str("<h2 id=\"rewrites-title\">Rewrites</h2>\n<div class=\"columns\">\n");
    out.push_str(&operations(page));
    out.push_str(&counters(page));
    out.push_str("</div>\n");
    if !page.remarks.is_empty() {
        let number = things(page.remarks.len(), "remark");
        out.push_str(&format!(
            "<details class=\"remarks\"><summary>{number} of the passes</summary>\n<ol>\n"
        ));
        for remark in page.remarks.iter().take(MAX_REMARKS) {
            out.push_str(&format!("<li>{}</li>\n", escape(&shorten(remark, 400))));
        }
        out.push_str("</ol>\n");
        if page.remarks.len() > MAX_REMARKS {
            let more = things(page.remarks.len() - MAX_REMARKS, "more remark");
            out.push_str(&format!("<p class=\"none\">{more} not shown.</p>\n"));
        }
        out.push_str("</details>\n");
    }
    out.push_str("</section>\n");
    out
}

/// Operations before and after.
fn operations(page: &Page<'_>) -> String {
    let mut kinds: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (kind, n) in page.before {
        kinds.entry(clean(kind)).or_default().0 += n;
    }
    for (kind, n) in page.after {
        kinds.entry(clean(kind)).or_default().1 += n;
    }
    if kinds.is_empty() {
        return "<p class=\"none\">Operations before and after were not given.</p>\n".into();
    }
    let change = |(before, after): (u64, u64)| {
        let (class, sign, n) = match before.cmp(&after) {
            std::cmp::Ordering::Greater => ("less", "−", before - after),
            std::cmp::Ordering::Less => ("more", "+", after - before),
            std::cmp::Ordering::Equal => return "<span class=\"dim\">0</span>".to_owned(),
        };
        format!("<span class=\"{class}\">{sign}{}</span>", count(n))
    };
    let sum = kinds.values().fold((0u64, 0u64), |s, k| (s.0.saturating_add(k.0), s.1.saturating_add(k.1)));
    let mut rows: Vec<(&String, &(u64, u64))> = kinds.iter().collect();
    rows.sort_by(|a, b| b.1.0.abs_diff(b.1.1).cmp(&a.1.0.abs_diff(a.1.1)).then(a.0.cmp(b.0)));
    let mut table = Table::new("Operations before and after", &["<Operation", "Before", "After", "Change"]);
    for (kind, n) in rows.iter().take(MAX_ROWS) {
        table.row(vec![format!("<code>{}</code>", escape(kind)), count(n.0), count(n.1), change(**n)]);
    }
    table.row(vec!["<b>All</b>".into(), count(sum.0), count(sum.1), change(sum)]);
    format!("<div><h3>Operations</h3>\n{}</div>\n", table.render())
}

fn counters(page: &Page<'_>) -> String {
    if page.rewrites.is_empty() {
        return "<p class=\"none\">What the passes counted was not given.</p>\n".into();
    }
    // Counters of rules are named `rule NAME`, after their pass.
    let (mut rules, mut others) = (Vec::new(), Vec::new());
    for (name, n) in page.rewrites.iter().filter(|(_, n)| *n > 0) {
        match name.find("rule ").filter(|at| *at == 0 || !name.as_bytes()[at - 1].is_ascii_alphanumeric()) {
            Some(at) => rules.push((&name[at + "rule ".len()..], *n)),
            None => others.push((name.as_str(), *n)),
        }
    }
    rules.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    others.sort();
    let table = |title: &str, column: &str, rows: &[(&str, u64)]| {
        if rows.is_empty() {
            return String::new();
        }
        let mut table = Table::new(title, &[column, "Times"]);
        for (name, n) in rows.iter().take(MAX_REMARKS) {
            table.row(vec![format!("<code>{}</code>", escape(&clean(name))), count(*n)]);
        }
        let more = rows.len().saturating_sub(MAX_REMARKS);
        let more =
            if more == 0 { String::new() } else { format!("<p class=\"none\">{more} more not shown.</p>\n") };
        format!("<h3>{title}</h3>\n<div class=\"tall\">{}</div>{more}", table.render())
    };
    let rules = table("Rules applied", "<Rule", &rules);
    format!("<div>{rules}{}</div>\n", table("Counters of the passes", "<Counter", &others))
}
