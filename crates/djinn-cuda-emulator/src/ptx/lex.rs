//! Words of PTX text, with the lines that they stand on.

/// A word or a punctuation mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) line: u32,
}

fn in_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

/// Splits a text; comments are left out, and strings are one word with their quotes.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let bytes = text.as_bytes();
    let (mut at, mut line, mut out) = (0, 1, Vec::new());
    while at < bytes.len() {
        let begin = at;
        match bytes[at] {
            b'\n' => line += 1,
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                while at + 1 < bytes.len() && bytes[at + 1] != b'\n' {
                    at += 1;
                }
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                at += 2;
                while at < bytes.len() && !bytes[at..].starts_with(b"*/") {
                    line += u32::from(bytes[at] == b'\n');
                    at += 1;
                }
                at += 1;
            }
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += 1;
                }
                out.push(Token { text: text.get(begin..=at).unwrap_or("\""), line });
            }
            c if in_word(c) => {
                while at + 1 < bytes.len() && in_word(bytes[at + 1]) {
                    at += 1;
                }
                out.push(Token { text: &text[begin..=at], line });
            }
            c if c.is_ascii_whitespace() || !c.is_ascii() => {}
            _ => out.push(Token { text: &text[begin..=at], line }),
        }
        at += 1;
    }
    out
}
