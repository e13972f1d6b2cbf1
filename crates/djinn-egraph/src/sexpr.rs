//! S-expressions: the surface syntax of rule files.

use djinn_diag::{Diagnostic, input};

/// Nesting of a rule file, at most.
const MAX_DEPTH: usize = 64;

/// A parsed S-expression with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SExpr {
    /// A bare word: symbol, variable, number, keyword.
    Atom(String, u32),
    /// A quoted text.
    Text(String, u32),
    /// A parenthesised list.
    List(Vec<SExpr>, u32),
}

impl SExpr {
    /// The line it starts on.
    pub fn line(&self) -> u32 {
        match self {
            SExpr::Atom(_, l) | SExpr::Text(_, l) | SExpr::List(_, l) => *l,
        }
    }

    /// The word, if it is an atom.
    pub fn atom(&self) -> Option<&str> {
        match self {
            SExpr::Atom(a, _) => Some(a),
            _ => None,
        }
    }

    /// The elements, if it is a list.
    pub fn list(&self) -> Option<&[SExpr]> {
        match self {
            SExpr::List(l, _) => Some(l),
            _ => None,
        }
    }
}

/// An error at a line of a rule file.
pub fn error(line: u32, message: impl Into<String>) -> Box<Diagnostic> {
    input("rule.syntax", message)
        .at(format!("line {line}"))
        .help("passes/README.md says how a rule is written")
}

/// Parses a whole file. `;` starts a comment.
///
/// # Errors
/// Unbalanced parentheses, unterminated text, too deep nesting.
pub fn parse(text: &str) -> djinn_diag::Result<Vec<SExpr>> {
    let mut stack: Vec<(Vec<SExpr>, u32)> = vec![(Vec::new(), 1)];
    let mut line = 1u32;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' => line += 1,
            c if c.is_whitespace() => {}
            ';' => {
                while chars.peek().is_some_and(|c| *c != '\n') {
                    chars.next();
                }
            }
            '(' => {
                if stack.len() > MAX_DEPTH {
                    return Err(error(line, "nested too deeply"));
                }
                stack.push((Vec::new(), line));
            }
            ')' => {
                let Some((list, start)) = (stack.len() > 1).then(|| stack.pop()).flatten() else {
                    return Err(error(line, "')' without '('"));
                };
                push(&mut stack, SExpr::List(list, start));
            }
            '"' => {
                let start = line;
                let mut out = String::new();
                loop {
                    match chars.next() {
                        None => return Err(error(start, "unterminated text")),
                        Some('"') => break,
                        Some('\n') => {
                            line += 1;
                            out.push('\n');
                        }
                        Some(c) => out.push(c),
                    }
                }
                push(&mut stack, SExpr::Text(out, start));
            }
            c => {
                let mut word = String::from(c);
                while let Some(c) = chars.peek() {
                    if c.is_whitespace() || matches!(c, '(' | ')' | '"' | ';') {
                        break;
                    }
                    word.push(*c);
                    chars.next();
                }
                push(&mut stack, SExpr::Atom(word, line));
            }
        }
    }
    match stack.pop() {
        Some((list, _)) if stack.is_empty() => Ok(list),
        Some((_, start)) => Err(error(start, "'(' is never closed")),
        None => Ok(Vec::new()),
    }
}

fn push(stack: &mut [(Vec<SExpr>, u32)], e: SExpr) {
    if let Some((top, _)) = stack.last_mut() {
        top.push(e);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_reports_lines() {
        let e = parse("; c\n(a \"t\" (b ?x))").expect("valid");
        assert_eq!(e.len(), 1);
        assert_eq!(e[0].line(), 2);
        assert!(parse("(a").is_err());
        assert!(parse(")").is_err());
        assert!(parse("\"a").is_err());
        assert!(parse(&"(".repeat(10_000)).is_err());
    }
}
