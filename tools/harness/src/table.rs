//! Tables in Markdown that are also readable as plain text.

use serde_json::Value;

/// A table with a header; cells of numeric columns stand to the right.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<(&'static str, bool)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns; a leading `>` stands for "to the right".
    pub(crate) fn new(columns: &[&'static str]) -> Table {
        let column = |c: &&'static str| (c.trim_start_matches('>'), c.starts_with('>'));
        Table { header: columns.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row; `|` and line breaks in cells are replaced.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|c| c.replace('|', "\\|").replace('\n', " ")).collect());
    }

    /// The table as text.
    pub(crate) fn render(&self) -> String {
        let cells = |i: usize| self.rows.iter().filter_map(move |r| r.get(i));
        let width = |(i, (title, _)): (usize, &(&str, bool))| {
            cells(i).map(|c| c.chars().count()).max().unwrap_or(0).max(title.len()).max(3)
        };
        let widths: Vec<usize> = self.header.iter().enumerate().map(width).collect();
        let line = |cells: &dyn Fn(usize) -> String| -> String {
            let cell = |(i, w): (usize, &usize)| {
                if self.header[i].1 { format!("{:>w$}", cells(i)) } else { format!("{:<w$}", cells(i)) }
            };
            let cells: Vec<String> = widths.iter().enumerate().map(cell).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule = |i: usize| {
            let dashes = "-".repeat(widths[i] - 1);
            if self.header[i].1 { format!("{dashes}:") } else { format!("{dashes}-") }
        };
        let mut out = line(&|i| self.header[i].0.to_owned());
        out.push_str(&line(&rule));
        for row in &self.rows {
            out.push_str(&line(&|i| row.get(i).cloned().unwrap_or_default()));
        }
        out
    }
}

/// A number with this many decimals; `-` if there is none.
pub(crate) fn number(v: &Value, decimals: usize) -> String {
    v.as_f64().map_or_else(|| "-".into(), |x| format!("{x:.decimals$}"))
}

/// An error in scientific notation; `-` if there is none.
pub(crate) fn error(v: &Value) -> String {
    v.as_f64().map_or_else(|| "-".into(), |x| format!("{x:.1e}"))
}

/// The first line of a text, cut to this many characters.
pub(crate) fn short(text: &str, limit: usize) -> String {
    let line = text.replace('\n', " ");
    if line.chars().count() <= limit {
        return line;
    }
    line.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

/// Writes a text where an option says, if it does.
pub(crate) fn save(path: Option<&std::path::Path>, text: &str) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    djinn::write_atomically(path, &mut |out| out.write_all(text.as_bytes())).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut t = Table::new(&["name", ">n"]);
        t.row(vec!["a|b".into(), "12".into()]);
        assert_eq!(t.render(), "| name |   n |\n| ---- | --: |\n| a\\|b |  12 |\n");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(short("ab\ncd", 10), "ab cd");
        assert_eq!(short("abcdef", 4), "abc…");
    }
}
