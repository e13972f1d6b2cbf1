//! Tables and paragraphs of text.

use crate::names::{columns, shorten, shorten_start};

/// Columns of a terminal, at most.
pub(crate) const WIDTH: usize = 100;
/// Columns below which no text is shortened as long as another can be.
const MIN_TEXT: usize = 10;

/// A table: the first column and those whose title begins with `<` are aligned to the left, the others to the right. One
/// whose title begins with `<<` holds paths: of those the beginning is left out where it is shortened.
/// Where the table would be too wide, the first column and those are shortened before others are.
pub(crate) struct Table {
    titles: Vec<String>,
    left: Vec<bool>,
    paths: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(titles: &[&str]) -> Table {
        let left = titles.iter().enumerate().map(|(i, t)| i == 0 || t.starts_with('<')).collect();
        let paths = titles.iter().map(|t| t.starts_with("<<")).collect();
        let titles = titles.iter().map(|t| t.trim_start_matches('<').to_owned()).collect();
        Table { titles, left, paths, rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Is there no row?
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, indented by two.
    pub(crate) fn render(&self) -> String {
        let cell = |row: &[String], c: usize| row.get(c).cloned().unwrap_or_default();
        let mut widths: Vec<usize> = (0..self.titles.len())
            .map(|c| {
                let cells = self.rows.iter().map(|r| columns(&cell(r, c)));
                cells.chain([columns(&self.titles[c])]).max().unwrap_or(0)
            })
            .collect();
        let gaps = 2 * self.titles.len();
        while widths.iter().sum::<usize>() + gaps > WIDTH {
            let soft = widths.iter().zip(&self.left).any(|(w, left)| *left && *w > MIN_TEXT);
            let shrinks = |c: usize, w: usize| if soft { self.left[c] && w > MIN_TEXT } else { w > 0 };
            let widest =
                widths.iter_mut().enumerate().filter(|(c, w)| shrinks(*c, **w)).max_by_key(|(_, w)| **w);
            let Some((_, widest)) = widest else { break };
            *widest -= 1;
        }
        let mut out = String::new();
        for row in std::iter::once(&self.titles).chain(&self.rows) {
            let mut line = String::new();
            for (c, width) in widths.iter().enumerate() {
                let text = cell(row, c);
                let text = if self.paths[c] { shorten_start(&text, *width) } else { shorten(&text, *width) };
                let pad = " ".repeat(width.saturating_sub(columns(&text)));
                line.push_str("  ");
                line.push_str(&if self.left[c] { text + &pad } else { pad + &text });
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// A paragraph, indented by two and broken between words; words that are too long are shortened.
pub(crate) fn paragraph(text: &str) -> String {
    let mut out = String::new();
    let mut line = String::from(" ");
    for word in text.split_whitespace() {
        let word = shorten(word, WIDTH - 2);
        if columns(&line) + 1 + columns(&word) > WIDTH {
            out.push_str(line.trim_end());
            out.push('\n');
            line = String::from(" ");
        }
        line.push(' ');
        line.push_str(&word);
    }
    if !line.trim().is_empty() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_never_too_wide() {
        let mut table = Table::new(&["name", "n", "<scope"]);
        table.row(vec!["a".into(), "1".into(), "x".repeat(300)]);
        table.row(vec!["bcd".into(), "12,345".into()]);
        let text = table.render();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "  name       n  scope");
        assert_eq!(lines[2], "  bcd   12,345");
        assert!(lines.iter().all(|l| columns(l) <= WIDTH), "{text}");
        assert_eq!(columns(lines[1]), WIDTH);
    }

    #[test]
    fn paragraphs_break_between_words() {
        let text = paragraph(&"word ".repeat(50));
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().all(|l| l.starts_with("  word") && columns(l) <= WIDTH));
        assert_eq!(paragraph("  "), "");
    }
}
