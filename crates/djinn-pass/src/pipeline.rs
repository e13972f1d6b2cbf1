//! Pipelines as text, in `mlir-opt`'s grammar.
//!
//! ```text
//! pipeline := "builtin.module(" items ")" | items
//! items    := (item ("," item)*)?
//! item     := pass ("{" (name ("=" value)?)* "}")? | "func(" items ")"
//! value    := characters without space, quotes and braces | "…" with \" and \\ | '…' | {… balanced …}
//! ```
//!
//! An option without value is `true`. `func(…)` (or `djinn.func(…)`) runs its passes on one function at a time.

use djinn_diag::{Diagnostic, Result, input};
use std::fmt;
use std::str::FromStr;

/// The anchor of passes that run on one function at a time.
pub(crate) const FUNC: &str = "func";

/// The anchor of a whole module.
const MODULE: &str = "builtin.module";

/// What a pipeline consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PipelineItem {
    /// A pass and the options given to it.
    Pass {
        /// Its name.
        name: String,
        /// Options, in the order given.
        options: Vec<(String, String)>,
    },
    /// Passes that run on one function at a time.
    Functions(Vec<PipelineItem>),
}

/// Passes in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pipeline {
    /// The passes.
    pub items: Vec<PipelineItem>,
}

impl Pipeline {
    /// Reads a pipeline.
    ///
    /// # Errors
    /// `pipeline.parse` with column, line and caret.
    pub fn parse(text: &str) -> Result<Pipeline> {
        let mut p = Parser { text, pos: 0 };
        p.space();
        let wrapped = p.text[p.pos..].strip_prefix(MODULE).is_some_and(|r| r.trim_start().starts_with('('));
        if wrapped {
            p.pos += MODULE.len();
            p.expect('(')?;
        }
        let items = p.items(false)?;
        if wrapped {
            p.expect(')')?;
        }
        p.space();
        if p.pos != text.len() {
            return Err(p.error("expected ',' or the end of the pipeline"));
        }
        Ok(Pipeline { items })
    }

    /// A pipeline of one pass.
    pub fn of_pass(name: &str, options: Vec<(String, String)>) -> Pipeline {
        Pipeline { items: vec![PipelineItem::Pass { name: name.to_string(), options }] }
    }
}

impl FromStr for Pipeline {
    type Err = Box<Diagnostic>;
    fn from_str(text: &str) -> Result<Pipeline> {
        Pipeline::parse(text)
    }
}

struct Parser<'a> {
    text: &'a str,
    pos: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.pos..]
    }

    fn space(&mut self) {
        self.pos += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, c: char) -> bool {
        self.space();
        let hit = self.rest().starts_with(c);
        if hit {
            self.pos += c.len_utf8();
        }
        hit
    }

    fn expect(&mut self, c: char) -> Result<()> {
        if self.eat(c) { Ok(()) } else { Err(self.error(format!("expected '{c}'"))) }
    }

    fn error(&self, message: impl Into<String>) -> Box<Diagnostic> {
        let column = self.text[..self.pos].chars().count();
        let line: String = self.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let message = format!("{}\n  {line}\n  {}^", message.into(), " ".repeat(column));
        input("pipeline.parse", message).at(format!("pipeline, column {}", column + 1))
    }

    fn items(&mut self, in_function: bool) -> Result<Vec<PipelineItem>> {
        let mut items = Vec::new();
        self.space();
        if self.rest().is_empty() || self.rest().starts_with(')') {
            return Ok(items);
        }
        loop {
            items.push(self.item(in_function)?);
            if !self.eat(',') {
                return Ok(items);
            }
        }
    }

    fn name(&mut self) -> Result<&'a str> {
        self.space();
        let rest = self.rest();
        let len = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
            .unwrap_or(rest.len());
        if len == 0 {
            return Err(self.error("expected a name"));
        }
        self.pos += len;
        Ok(&rest[..len])
    }

    fn item(&mut self, in_function: bool) -> Result<PipelineItem> {
        self.space();
        let start = self.pos;
        let name = self.name()?;
        if self.eat('(') {
            let nested = match name {
                FUNC | "djinn.func" if !in_function => self.items(true)?,
                FUNC | "djinn.func" => {
                    self.pos = start;
                    return Err(self.error("functions do not nest"));
                }
                _ => {
                    self.pos = start;
                    return Err(self.error(format!("'{name}' holds no passes; 'func' does")));
                }
            };
            self.expect(')')?;
            return Ok(PipelineItem::Functions(nested));
        }
        let options = if self.eat('{') { self.options()? } else { Vec::new() };
        Ok(PipelineItem::Pass { name: name.to_string(), options })
    }

    fn options(&mut self) -> Result<Vec<(String, String)>> {
        let mut options = Vec::new();
        while !self.eat('}') {
            let name = self.name()?.to_string();
            let value = if self.rest().starts_with('=') {
                self.pos += 1;
                self.value()?
            } else {
                "true".to_string()
            };
            options.push((name, value));
        }
        Ok(options)
    }

    fn value(&mut self) -> Result<String> {
        let start = self.pos;
        match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote),
            Some('{') => {
                let mut depth = 0usize;
                for (i, c) in self.rest().char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        _ => {}
                    }
                    if depth == 0 {
                        let value = self.rest()[1..i].to_string();
                        self.pos += i + 1;
                        return Ok(value);
                    }
                }
                self.pos = start;
                Err(self.error("the '{' is not closed"))
            }
            _ => {
                let rest = self.rest();
                let len = rest.find(|c| !is_plain(c)).unwrap_or(rest.len());
                self.pos += len;
                Ok(rest[..len].to_string())
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String> {
        let mut value = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((i, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.pos += i + 1;
                    return Ok(value);
                }
                '\\' if quote == '"' => match chars.next() {
                    Some((_, c @ ('"' | '\\'))) => value.push(c),
                    _ => return Err(self.error("after '\\' comes '\"' or '\\'")),
                },
                c => value.push(c),
            }
        }
        Err(self.error("the quote is not closed"))
    }
}

/// Can the character stand in a value without quotes?
fn is_plain(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '\'' | '{' | '}' | '\\')
}

impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MODULE}(")?;
        write_items(f, &self.items)?;
        f.write_str(")")
    }
}

fn write_items(f: &mut fmt::Formatter<'_>, items: &[PipelineItem]) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(",")?;
        }
        match item {
            PipelineItem::Functions(inner) => {
                write!(f, "{FUNC}(")?;
                write_items(f, inner)?;
                f.write_str(")")?;
            }
            PipelineItem::Pass { name, options } => {
                f.write_str(name)?;
                for (i, (name, value)) in options.iter().enumerate() {
                    write!(f, "{}{name}=", if i == 0 { "{" } else { " " })?;
                    if value.chars().all(is_plain) {
                        f.write_str(value)?;
                    } else {
                        write!(f, "\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))?;
                    }
                }
                f.write_str(if options.is_empty() { "" } else { "}" })?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelines_round_trip() {
        let cases = [
            ("", "builtin.module()"),
            ("a,b{opt=1}", "builtin.module(a,b{opt=1})"),
            (
                "builtin.module(canonicalize,saturate{node-limit=10000 rules=all},func(cse))",
                "builtin.module(canonicalize,saturate{node-limit=10000 rules=all},func(cse))",
            ),
            (
                " builtin.module ( a { x y=\"two words\" z={p=1 q={r}} } , djinn.func( b ) ) ",
                "builtin.module(a{x=true y=\"two words\" z=\"p=1 q={r}\"},func(b))",
            ),
            ("a{x='it \"is\"' y=}", "builtin.module(a{x=\"it \\\"is\\\"\" y=})"),
            ("a{rules=x,y}", "builtin.module(a{rules=x,y})"),
        ];
        for (text, printed) in cases {
            let p = Pipeline::parse(text).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(p.to_string(), printed);
            assert_eq!(Pipeline::parse(printed), Ok(p));
        }
    }

    #[test]
    fn errors_point_at_the_column() {
        let cases = [
            ("a,,b", 3, "expected a name"),
            ("a{x=1", 6, "expected a name"),
            ("a b", 3, "expected ',' or the end"),
            ("builtin.module(a", 17, "expected ')'"),
            ("func(func(a))", 6, "functions do not nest"),
            ("loop(a)", 1, "'loop' holds no passes"),
            ("a{x={y}", 8, "expected a name"),
            ("a{x={y", 5, "not closed"),
            ("a{x=\"y}", 5, "not closed"),
            ("größe", 3, "expected ','"),
        ];
        for (text, column, message) in cases {
            let e = Pipeline::parse(text).expect_err(text);
            assert_eq!(e.place, [format!("pipeline, column {column}")], "{text}");
            assert!(e.code == "pipeline.parse" && e.message.contains(message), "{text}: {e}");
        }
        let e = Pipeline::parse("a b").expect_err("two words");
        assert!(e.message.ends_with("\n  a b\n    ^"), "{e}");
    }
}
