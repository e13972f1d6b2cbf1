//! The page.

mod charts;
mod engines;
mod markup;
mod sections;
mod tree;

use djinn_ir::Module;
use djinn_plan::Plan;

use crate::built::Built;
use crate::facts::Facts;
use crate::measured::Measured;
use markup::{attribute, escape};

/// What the page shows.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// Its title: usually the file name of the model.
    pub title: &'a str,
    /// The plan.
    pub plan: &'a Plan,
    /// The module that the plan was made from; without it there are no scopes, operation kinds and shapes.
    pub module: Option<&'a Module>,
    /// Operations by kind before the passes; empty if unknown.
    pub before: &'a [(String, u64)],
    /// Operations by kind after them; empty if unknown.
    pub after: &'a [(String, u64)],
    /// What the passes counted: names (rules, counters) and how often.
    pub rewrites: &'a [(String, u64)],
    /// What passes did and did not do, and why; one sentence each.
    pub remarks: &'a [String],
    /// The engines that were built for the plan, if there are any.
    pub engines: Option<&'a Built>,
    /// What was measured of the plan, if it was run.
    pub measured: Option<&'a Measured>,
}

/// Entries that are shown; further ones are counted.
const MAX_ENTRIES: usize = 8;

const STYLE: &str = include_str!("html/style.css");
const SCRIPT: &str = include_str!("html/script.js");

/// Sections of the page: anchor and title.
const SECTIONS: [(&str, &str); 7] = [
    ("overview", "Overview"),
    ("placement", "Placement"),
    ("timeline", "Timeline"),
    ("memory", "Memory"),
    ("costs", "Costs"),
    ("graph", "Graph"),
    ("rewrites", "Rewrites"),
];

/// One HTML file that fetches nothing.
pub fn html(page: &Page<'_>) -> String {
    let facts = Facts::new(page.plan, page.module);
    let title = crate::names::shorten(page.title, 120);
    let mut out = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    out.push_str("<meta name=\"color-scheme\" content=\"light dark\">\n");
    out.push_str(&format!(
        "<title>{} · Djinn</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
        escape(&title)
    ));
    out.push_str("<a class=\"skip\" href=\"#overview\">Skip to the overview</a>\n");
    out.push_str(&header(&facts, &title));
    out.push_str(&navigation(&facts));
    out.push_str("<main>\n");
    out.push_str(&sections::overview(&facts));
    out.push_str(&sections::placement(&facts, page.engines));
    out.push_str(&charts::timeline(&facts));
    out.push_str(&charts::memory(&facts));
    out.push_str(&sections::costs(&facts, page.measured));
    out.push_str(&tree::graph(&facts));
    out.push_str(&sections::rewrites(page));
    out.push_str("</main>\n");
    let times = match page.measured {
        None => "Times are predictions of Djinn’s cost model and simulator, not measurements. ",
        Some(_) => {
            "Times are predictions of Djinn’s cost model and simulator where they are not said to be measured. "
        }
    };
    out.push_str(&format!("<footer><p>{times}"));
    out.push_str("Sizes are in powers of 1,000.</p></footer>\n");
    out.push_str("<div id=\"tip\" role=\"status\" hidden></div>\n");
    out.push_str(&charts::data(&facts));
    out.push_str(&format!("<script>\n{SCRIPT}</script>\n</body>\n</html>\n"));
    out
}

fn header(facts: &Facts<'_>, title: &str) -> String {
    let mut profiles: Vec<(&str, usize)> = Vec::new();
    for device in &facts.devices {
        match profiles.iter_mut().find(|(p, _)| *p == device.profile) {
            Some((_, n)) => *n += 1,
            None => profiles.push((&device.profile, 1)),
        }
    }
    let profiles: Vec<String> =
        profiles.iter().take(4).map(|(p, n)| format!("{n} × {}", escape(p))).collect();
    let devices = if profiles.is_empty() { "no device".to_owned() } else { profiles.join(", ") };
    format!(
        "<header>\n<p class=\"brand\">Djinn plan report</p>\n<h1>{}</h1>\n<p class=\"sub\">{devices} · {} · program \
         <code>{}</code></p>\n</header>\n",
        escape(title),
        crate::units::things(facts.entries.len(), "entry"),
        escape(&crate::names::shorten(&facts.plan.program, 40)),
    )
}

/// Anchors and, where there are several entries, the choice of one.
fn navigation(facts: &Facts<'_>) -> String {
    let mut out = String::from("<nav aria-label=\"Sections\">\n<ul>\n");
    for (anchor, title) in SECTIONS {
        out.push_str(&format!("<li><a href=\"#{anchor}\">{title}</a></li>\n"));
    }
    out.push_str("</ul>\n");
    if facts.entries.len() > 1 {
        out.push_str("<label class=\"pick\"><span>Entry</span> <select id=\"entry\">\n");
        for (number, entry) in facts.entries.iter().take(MAX_ENTRIES).enumerate() {
            out.push_str(&format!("<option value=\"{number}\">{}</option>\n", escape(&entry_name(entry))));
        }
        out.push_str("</select></label>\n");
    }
    out.push_str("</nav>\n");
    out
}

/// Function, phase and sizes.
fn entry_name(entry: &crate::facts::EntryFacts<'_>) -> String {
    let conditions = entry.conditions();
    let name =
        if conditions.is_empty() { entry.title() } else { format!("{} ({conditions})", entry.title()) };
    crate::names::shorten(&name, 90)
}

/// A section with a part for each entry that is shown; the script shows one at a time.
fn per_entry(
    facts: &Facts<'_>,
    (anchor, title): (&str, &str),
    intro: &str,
    part: impl Fn(usize, &crate::facts::EntryFacts<'_>) -> String,
) -> String {
    let mut out = format!("<section id=\"{anchor}\" aria-labelledby=\"{anchor}-title\">\n");
    out.push_str(&format!("<h2 id=\"{anchor}-title\">{title}</h2>\n{intro}"));
    for (number, entry) in facts.entries.iter().take(MAX_ENTRIES).enumerate() {
        out.push_str(&format!("<div class=\"entry\" data-entry=\"{number}\">\n"));
        if facts.entries.len() > 1 {
            out.push_str(&format!("<h3 class=\"which\">{}</h3>\n", escape(&entry_name(entry))));
        }
        out.push_str(&part(number, entry));
        out.push_str("</div>\n");
    }
    if facts.entries.is_empty() {
        out.push_str("<p class=\"none\">The plan has no entry.</p>\n");
    }
    let more = facts.entries.len().saturating_sub(MAX_ENTRIES);
    if more > 0 && anchor == "overview" {
        let more = crate::units::things(more, "more entry");
        out.push_str(&format!(
            "<p class=\"none\">{} not shown: the page holds the first {MAX_ENTRIES}.</p>\n",
            attribute(&more)
        ));
    }
    out.push_str("</section>\n");
    out
}
