//! The graph by scope: a tree of module paths.

use super::markup::{bar, device_chip, escape};
use super::{MAX_ENTRIES, SECTIONS, per_entry};
use crate::facts::{EntryFacts, Facts};
use crate::names::shorten;
use crate::scopes::Scope;
use crate::units::{count, seconds};

/// Rows of all trees of a page.
const MAX_ROWS: usize = 3200;
/// Rows that are open at first: a tree is opened down to a level of at most so many.
const OPEN_ROWS: usize = 16;

/// The trees.
pub(crate) fn graph(facts: &Facts<'_>) -> String {
    let intro = "<p class=\"dim\">Operations by the module of the model that they come from, with the predicted time of \
                 their kernels and the devices that run them.</p>\n";
    let rows = MAX_ROWS / facts.entries.len().clamp(1, MAX_ENTRIES);
    per_entry(facts, SECTIONS[5], intro, |_, entry| {
        let mut tree = Tree { facts, entry, left: rows, skipped: 0, out: String::new() };
        tree.out.push_str("<div class=\"tree\">\n<div class=\"row head\" aria-hidden=\"true\"><span class=\"nm\">Scope</span>");
        tree.out.push_str("<span class=\"dv\">Devices</span><span class=\"n\">Ops</span><span class=\"v\">Seconds</span><span></span></div>\n");
        let root = Scope::tree(entry);
        tree.node("(whole graph)", &root, OPEN_ROWS, 0);
        tree.out.push_str("</div>\n");
        if tree.skipped > 0 {
            let text =
                format!("<p class=\"none\">{} more scopes not shown.</p>\n", count(tree.skipped as u64));
            tree.out.push_str(&text);
        }
        tree.out
    })
}

struct Tree<'f, 'a> {
    facts: &'f Facts<'a>,
    entry: &'f EntryFacts<'a>,
    /// Rows that may still be shown.
    left: usize,
    skipped: usize,
    out: String,
}

impl Tree<'_, '_> {
    /// A scope; those with a single scope below are joined with it. `open` rows may be open from here.
    fn node(&mut self, name: &str, scope: &Scope, open: usize, depth: usize) {
        if self.left == 0 {
            self.skipped += 1;
            return;
        }
        self.left -= 1;
        let (mut name, mut scope) = (name.to_owned(), scope);
        while let Some(((_, below), only)) =
            scope.children.first_key_value().filter(|_| scope.children.len() == 1)
        {
            if depth == 0 || !scope.kinds.is_empty() || only.tasks != scope.tasks {
                break;
            }
            (name, scope) = (format!("{name}.{below}"), only);
        }
        let row = self.row(&name, scope);
        if scope.children.is_empty() {
            self.out.push_str(&format!("<div class=\"row leaf\">{row}</div>\n"));
            return;
        }
        let opened = depth == 0 || scope.children.len() <= open;
        let attribute = if opened { " open" } else { "" };
        self.out.push_str(&format!(
            "<details{attribute}><summary class=\"row\">{row}</summary>\n<div class=\"in\">\n"
        ));
        let share = if opened { open.saturating_sub(scope.children.len()) } else { 0 };
        let share = if scope.children.len() > 1 { share / 2 } else { share };
        for ((_, name), child) in &scope.children {
            self.node(name, child, share, depth + 1);
        }
        self.out.push_str("</div></details>\n");
    }

    fn row(&self, name: &str, scope: &Scope) -> String {
        let mut devices: Vec<(&usize, &f64)> = scope.devices.iter().collect();
        devices.sort_by(|a, b| b.1.total_cmp(a.1).then(a.0.cmp(b.0)));
        let more = devices.len().saturating_sub(4);
        let mut chips: String = devices
            .iter()
            .take(4)
            .map(|(d, _)| device_chip(Some(**d), &short(self.facts.device(Some(**d)))))
            .collect();
        if more > 0 {
            chips.push_str(&format!("<span class=\"dim\">+{more}</span>"));
        }
        let kinds: Vec<String> = scope
            .kinds
            .iter()
            .take(6)
            .map(|(kind, n)| if *n > 1 { format!("{kind} ×{n}") } else { kind.clone() })
            .collect();
        let kinds = if scope.children.is_empty() && !kinds.is_empty() {
            format!(" <small>{}</small>", escape(&shorten(&kinds.join(", "), 90)))
        } else {
            String::new()
        };
        format!(
            "<span class=\"nm\">{}{kinds}</span><span class=\"dv\">{chips}</span><span class=\"n\">{}</span>\
             <span class=\"v\">{}</span>{}",
            escape(&shorten(name, 80)),
            count(scope.ops as u64),
            seconds(scope.seconds),
            bar(scope.seconds, self.entry.work(), "c-0"),
        )
    }
}

/// The end of a device's name tells it from others: `h100-80:3` is `:3`.
fn short(name: &str) -> String {
    match name.rfind(':') {
        Some(at) if at > 0 => name[at..].to_owned(),
        _ => shorten(name, 12),
    }
}
