//! Pieces of HTML; every text from outside goes through [`escape`].

use crate::units;

/// Colours of devices: a class name that the style sheet knows.
const DEVICE_COLOURS: usize = 8;

/// Text for between tags and in attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// As [`escape`], by the name that says where it goes.
pub(crate) fn attribute(text: &str) -> String {
    escape(text)
}

/// A share of a whole as markup.
pub(crate) fn percent(part: f64, whole: f64) -> String {
    escape(&units::percent(part, whole)).replace(' ', "\u{a0}")
}

/// A swatch in the colour of a device, and its name.
pub(crate) fn device_chip(number: Option<usize>, name: &str) -> String {
    match number {
        Some(d) => format!("<span class=\"chip d{}\">{}</span>", d % DEVICE_COLOURS, escape(name)),
        None => format!("<span class=\"chip\">{}</span>", escape(name)),
    }
}

/// A swatch in the colour of what limits a kernel, and the word.
pub(crate) fn limit_chip(limit: &str) -> String {
    format!("<span class=\"chip l-{limit}\">{limit}</span>")
}

/// A bar of this part of the width.
pub(crate) fn bar(part: f64, whole: f64, class: &str) -> String {
    let width = share(part, whole);
    format!("<span class=\"bar {class}\" aria-hidden=\"true\"><i style=\"width:{width:.1}%\"></i></span>")
}

/// 0 to 100.
pub(crate) fn share(part: f64, whole: f64) -> f64 {
    let share = if whole > 0.0 { 100.0 * part / whole } else { 0.0 };
    if share.is_finite() { share.clamp(0.0, 100.0) } else { 0.0 }
}

/// A bar of parts of a whole, and its legend: names, classes, figures and their texts.
pub(crate) fn stack(parts: &[(String, String, f64, String)], whole: f64, label: &str) -> String {
    let mut out = format!("<div class=\"stack\" role=\"img\" aria-label=\"{}\">", attribute(label));
    for (name, class, value, text) in parts.iter().filter(|p| p.2 > 0.0) {
        out.push_str(&format!(
            "<i class=\"{class}\" style=\"width:{:.2}%\" title=\"{}: {}\"></i>",
            share(*value, whole),
            attribute(name),
            attribute(text)
        ));
    }
    out.push_str("</div>\n<ul class=\"legend\">");
    for (name, class, value, text) in parts.iter().filter(|p| p.2 > 0.0) {
        let part = percent(*value, whole);
        out.push_str(&format!(
            "<li><span class=\"chip {class}\">{}</span> <b>{}</b> <span class=\"dim\">{part}</span></li>",
            escape(name),
            escape(text)
        ));
    }
    out.push_str("</ul>\n");
    out
}

/// A table that scrolls by itself where it is too wide. Titles that begin with `<` stand to the left.
pub(crate) struct Table {
    label: String,
    titles: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(label: &str, titles: &[&str]) -> Table {
        let titles = titles.iter().map(|t| (*t).to_owned()).collect();
        Table { label: label.to_owned(), titles, rows: Vec::new() }
    }

    /// Adds a row of markup.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Is there no row?
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The markup.
    pub(crate) fn render(&self) -> String {
        let label = attribute(&self.label);
        let mut out = format!(
            "<div class=\"scroll\" role=\"region\" aria-label=\"{label}\" tabindex=\"0\">\n<table>\n<thead><tr>"
        );
        let left = |title: &str| title.starts_with('<');
        for title in &self.titles {
            let class = if left(title) { " class=\"t\"" } else { "" };
            out.push_str(&format!("<th scope=\"col\"{class}>{}</th>", escape(title.trim_start_matches('<'))));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for row in &self.rows {
            out.push_str("<tr>");
            for (cell, title) in row.iter().zip(&self.titles) {
                let class = if left(title) { " class=\"t\"" } else { "" };
                out.push_str(&format!("<td{class}>{cell}</td>"));
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n</table>\n</div>\n");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_names_is_text() {
        assert_eq!(escape("<b a='\"'>&"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;");
        let stacked = stack(&[("<i>".into(), "x".into(), 1.0, "1".into())], 2.0, "\"");
        assert!(!stacked.contains("<i>") && stacked.contains("width:50.00%"), "{stacked}");
        assert_eq!((share(1.0, 0.0), share(f64::NAN, 1.0), share(9.0, 1.0)), (0.0, 0.0, 100.0));
    }
}
