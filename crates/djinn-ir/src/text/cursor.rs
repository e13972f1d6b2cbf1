//! Tokens with their places, and diagnostics that show the line with a caret.

use djinn_diag::{Diagnostic, Result, input};

/// A token; text is borrowed from the source.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'a> {
    /// A string literal, escapes decoded.
    Text(String),
    /// A number with its sign.
    Number(&'a str),
    /// A word: letters, digits, `_`, `$` and `.`.
    Word(&'a str),
    /// `%name`.
    Value(&'a str),
    /// `^name`.
    Block(&'a str),
    /// `->`.
    Arrow,
    /// Any other character.
    Punct(char),
    /// The end of the text.
    End,
}

impl Token<'_> {
    fn describe(&self) -> String {
        match self {
            Token::Text(_) => "a string".into(),
            Token::Number(n) => format!("'{n}'"),
            Token::Word(w) => format!("'{w}'"),
            Token::Value(v) => format!("'%{v}'"),
            Token::Block(b) => format!("'^{b}'"),
            Token::Arrow => "'->'".into(),
            Token::Punct(c) => format!("'{c}'"),
            Token::End => "the end of the text".into(),
        }
    }
}

/// Characters of a line that a diagnostic shows, at most.
const MAX_SHOWN: usize = 100;

/// A place in a text, reading forwards.
pub(super) struct Cursor<'a> {
    text: &'a str,
    /// Where the next token starts, white space skipped.
    start: usize,
    /// Where the text after the next token starts.
    end: usize,
    next: Token<'a>,
    depth: usize,
    splat_bytes: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self> {
        let splat_bytes = super::MAX_SPLAT_BYTES;
        let mut cursor = Cursor { text, start: 0, end: 0, next: Token::End, depth: 0, splat_bytes };
        cursor.read()?;
        Ok(cursor)
    }

    /// What repeated elements may still take, see [`super::MAX_SPLAT_BYTES`].
    pub(super) fn splat_bytes(&mut self) -> &mut usize {
        &mut self.splat_bytes
    }

    /// Place of the next token, for [`Cursor::error_at`].
    pub(super) fn place(&self) -> usize {
        self.start
    }

    pub(super) fn peek(&self) -> &Token<'a> {
        &self.next
    }

    /// Takes the next token.
    pub(super) fn advance(&mut self) -> Result<Token<'a>> {
        let token = std::mem::replace(&mut self.next, Token::End);
        self.read()?;
        Ok(token)
    }

    /// Takes the next token if it is this character.
    pub(super) fn eat(&mut self, c: char) -> Result<bool> {
        let hit = self.next == Token::Punct(c);
        if hit {
            self.advance()?;
        }
        Ok(hit)
    }

    pub(super) fn expect(&mut self, c: char) -> Result<()> {
        if self.eat(c)? { Ok(()) } else { Err(self.unexpected(&format!("'{c}'"))) }
    }

    pub(super) fn expect_token(&mut self, token: &Token<'_>) -> Result<()> {
        if self.next != *token {
            return Err(self.unexpected(&token.describe()));
        }
        self.advance().map(drop)
    }

    pub(super) fn expect_text(&mut self, what: &str) -> Result<String> {
        if !matches!(self.next, Token::Text(_)) {
            return Err(self.unexpected(what));
        }
        match self.advance()? {
            Token::Text(text) => Ok(text),
            _ => Err(self.unexpected(what)),
        }
    }

    /// Reads items separated by commas up to `close`, which is taken too.
    pub(super) fn list<T>(
        &mut self,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut items = Vec::new();
        if self.eat(close)? {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.eat(close)? {
                return Ok(items);
            }
            if !self.eat(',')? {
                return Err(self.unexpected(&format!("',' or '{close}'")));
            }
        }
    }

    /// Reads something nested one deeper.
    pub(super) fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= super::MAX_DEPTH {
            return Err(self.error(format!("nested more than {} deep", super::MAX_DEPTH)));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    pub(super) fn unexpected(&self, wanted: &str) -> Box<Diagnostic> {
        self.error(format!("expected {wanted}, found {}", self.next.describe()))
    }

    pub(super) fn error(&self, message: impl Into<String>) -> Box<Diagnostic> {
        self.error_at(self.start, message)
    }

    /// A diagnostic with line, column, and the line with a caret.
    pub(super) fn error_at(&self, place: usize, message: impl Into<String>) -> Box<Diagnostic> {
        let before = self.text.get(..place).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let number = before.matches('\n').count() + 1;
        let column = before[line_start..].chars().count();
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        // A long line is shown from a little before the place.
        let skipped = if column >= MAX_SHOWN { column - MAX_SHOWN / 2 } else { 0 };
        let shown: String = line.chars().skip(skipped).take(MAX_SHOWN).collect();
        let caret = " ".repeat(column - skipped);
        let message = format!("{}\n  {shown}\n  {caret}^", message.into());
        input("text.parse", message).at(format!("line {number}, column {}", column + 1))
    }

    /// Takes the shape and element type of a tensor type (`?x8xf32`), which do not follow the rules of tokens.
    ///
    /// The `<` before it must be the next token.
    pub(super) fn shape(&mut self) -> Result<&'a str> {
        if self.next != Token::Punct('<') {
            return Err(self.unexpected("'<'"));
        }
        self.start = self.end;
        self.skip_space();
        let rest = &self.text[self.end..];
        let len =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '?' | '-'))).unwrap_or(rest.len());
        let shape = &rest[..len];
        self.end += len;
        self.read()?;
        Ok(shape)
    }

    fn skip_space(&mut self) {
        loop {
            let rest = &self.text[self.end..];
            let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
            self.end += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.end += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    /// Reads the token at `end`.
    fn read(&mut self) -> Result<()> {
        self.skip_space();
        self.start = self.end;
        let text = self.text;
        let rest = &text[self.start..];
        let Some(first) = rest.chars().next() else {
            self.next = Token::End;
            return Ok(());
        };
        let after = &rest[first.len_utf8()..];
        let (token, len) = match first {
            '"' => return self.string(),
            '%' => {
                let n = word_len(after);
                (Token::Value(&after[..n]), n + 1)
            }
            '^' => {
                let n = word_len(after);
                (Token::Block(&after[..n]), n + 1)
            }
            '-' if after.starts_with('>') => (Token::Arrow, 2),
            '-' if after.starts_with(|c: char| c.is_ascii_digit()) => {
                let n = 1 + number_len(after);
                (Token::Number(&rest[..n]), n)
            }
            c if c.is_ascii_digit() => {
                let n = number_len(rest);
                (Token::Number(&rest[..n]), n)
            }
            c if c.is_ascii_alphabetic() || c == '_' => {
                let n = word_len(rest);
                (Token::Word(&rest[..n]), n)
            }
            c => (Token::Punct(c), c.len_utf8()),
        };
        self.end = self.start + len;
        self.next = token;
        Ok(())
    }

    fn string(&mut self) -> Result<()> {
        let source = &self.text.as_bytes()[self.start + 1..];
        let mut bytes = Vec::new();
        let mut i = 0;
        loop {
            match source.get(i) {
                None | Some(b'\n') => return Err(self.error("the string does not end on this line")),
                Some(b'"') => break,
                Some(b'\\') => {
                    let Some((byte, len)) = escape(&source[i + 1..]) else {
                        return Err(self.error_at(self.start + 1 + i, "unknown escape in string"));
                    };
                    bytes.push(byte);
                    i += 1 + len;
                }
                Some(b) => {
                    bytes.push(*b);
                    i += 1;
                }
            }
        }
        self.end = self.start + i + 2;
        self.next = Token::Text(String::from_utf8(bytes).map_err(|_| self.error("the string is no UTF-8"))?);
        Ok(())
    }
}

/// The byte that an escape stands for and its length without the backslash.
fn escape(rest: &[u8]) -> Option<(u8, usize)> {
    match rest.first()? {
        b'n' => Some((b'\n', 1)),
        b't' => Some((b'\t', 1)),
        b'\\' => Some((b'\\', 1)),
        b'"' => Some((b'"', 1)),
        high => {
            let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
            Some((digit(high)? * 16 + digit(rest.get(1)?)?, 2))
        }
    }
}

fn word_len(text: &str) -> usize {
    text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.'))).unwrap_or(text.len())
}

/// Length of the number at the start of `text`, which starts with a digit.
fn number_len(text: &str) -> usize {
    let digits = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        from + rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())
    };
    if let Some(hex) = text.strip_prefix("0x") {
        let n = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        if n > 0 {
            return n + 2;
        }
    }
    let whole = digits(0);
    if !text[whole..].starts_with('.') {
        return whole;
    }
    let fraction = digits(whole + 1);
    let exponent = text[fraction..].strip_prefix(['e', 'E']);
    match exponent.map(|e| e.strip_prefix(['+', '-']).unwrap_or(e)) {
        Some(e) if e.starts_with(|c: char| c.is_ascii_digit()) => digits(text.len() - e.len()),
        _ => fraction,
    }
}
