//! The structure of PTX text: entries with their parameters, variables, and statements with their operands.

use super::lex::{Token, tokens};

/// What is wrong with a text, and on which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// The line, counted from 1.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for ParseError {}

pub(crate) type Result<T> = std::result::Result<T, ParseError>;

/// A variable in memory, or a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) space: String,
    pub(crate) name: String,
    pub(crate) align: u64,
    pub(crate) bytes: u64,
    pub(crate) external: bool,
    pub(crate) initial: Vec<u8>,
}

/// An operand of an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operand {
    /// A register, label or variable; true if a `!` stands before it.
    Name(String, bool),
    /// A number as it is written.
    Number(u64),
    /// Memory at a name or number plus an offset.
    Memory(Box<Operand>, i64),
    /// The address of a variable plus an offset.
    Sum(String, i64),
    /// `{a, b}`
    Vector(Vec<Operand>),
    /// `a|b`
    Pair(Box<Operand>, Box<Operand>),
}

/// What stands in a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Statement {
    /// Registers of a width in bits (1 for predicates): a name, and how many of it if numbered.
    Registers { bits: u32, name: String, count: Option<u32> },
    /// A variable.
    Variable(Variable),
    /// A label.
    Label(String),
    /// An instruction: its guard (a predicate, and whether it is negated), its parts and operands.
    Instruction { line: u32, guard: Option<(String, bool)>, parts: Vec<String>, operands: Vec<Operand> },
}

/// A kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) line: u32,
    pub(crate) params: Vec<Variable>,
    pub(crate) body: Vec<Statement>,
}

/// A text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct File {
    pub(crate) entries: Vec<Entry>,
    pub(crate) variables: Vec<Variable>,
}

pub(crate) fn parse(text: &str) -> Result<File> {
    let list = tokens(text);
    Parser { list: &list, at: 0 }.file()
}

struct Parser<'a> {
    list: &'a [Token<'a>],
    at: usize,
}

/// Bits of a type such as `.b32`.
pub(crate) fn bits(ty: &str) -> Option<u32> {
    Some(match ty.trim_start_matches('.') {
        "pred" => 1,
        "b8" | "u8" | "s8" => 8,
        "b16" | "u16" | "s16" | "f16" | "bf16" => 16,
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" => 32,
        "b64" | "u64" | "s64" | "f64" => 64,
        "b128" => 128,
        _ => return None,
    })
}

impl<'a> Parser<'a> {
    fn line(&self) -> u32 {
        self.list.get(self.at).or(self.list.last()).map_or(0, |t| t.line)
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(ParseError { line: self.line(), message: message.into() })
    }

    fn peek(&self) -> &'a str {
        self.list.get(self.at).map_or("", |t| t.text)
    }

    fn next(&mut self) -> &'a str {
        let text = self.peek();
        self.at += 1;
        text
    }

    fn accept(&mut self, text: &str) -> bool {
        let found = self.peek() == text;
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, text: &str) -> Result<()> {
        if self.accept(text) {
            Ok(())
        } else {
            self.error(format!("'{text}' expected, found '{}'", self.peek()))
        }
    }

    fn file(&mut self) -> Result<File> {
        let mut out = File::default();
        let (mut version, mut target) = (false, false);
        while self.at < self.list.len() {
            match self.next() {
                ".version" => {
                    version = true;
                    self.next();
                }
                ".target" => {
                    target = true;
                    self.next();
                    while self.accept(",") {
                        self.next();
                    }
                }
                ".address_size" => {
                    if self.next() != "64" {
                        return self.error("addresses have 64 bits");
                    }
                }
                ".visible" | ".weak" | ".common" => {}
                ".entry" => out.entries.push(self.entry()?),
                ".extern" | ".global" | ".const" | ".shared" => {
                    self.at -= 1;
                    out.variables.push(self.variable()?);
                }
                other => return self.error(format!("'{other}' is not known here")),
            }
        }
        if version && target { Ok(out) } else { self.error(".version or .target is missing") }
    }

    fn entry(&mut self) -> Result<Entry> {
        let line = self.line();
        let name = self.next().to_owned();
        let mut params = Vec::new();
        if self.accept("(") {
            while !self.accept(")") {
                params.push(self.declaration()?);
                self.accept(",");
            }
        }
        while !self.accept("{") {
            match self.next() {
                ".maxntid" | ".reqntid" | ".minnctapersm" | ".maxnreg" | ".noreturn" => {}
                "," => {}
                number if number.parse::<u32>().is_ok() => {}
                other => return self.error(format!("the directive '{other}' is not known")),
            }
        }
        let body = self.body()?;
        Ok(Entry { name, line, params, body })
    }

    /// A variable with `;` behind it, and its value if there is one.
    fn variable(&mut self) -> Result<Variable> {
        let external = self.accept(".extern");
        let mut out = self.declaration()?;
        out.external = external;
        if self.accept("=") {
            let width = (out.bytes.min(8), out.bytes);
            out.initial = self.initial(width.1)?;
        }
        self.expect(";")?;
        Ok(out)
    }

    /// Values of a variable; the element size is the variable's size over the number of values.
    fn initial(&mut self, bytes: u64) -> Result<Vec<u8>> {
        let mut values = Vec::new();
        if self.accept("{") {
            while !self.accept("}") {
                values.push(self.number()?);
                self.accept(",");
            }
        } else {
            values.push(self.number()?);
        }
        let size = bytes / (values.len() as u64).max(1);
        if !matches!(size, 1 | 2 | 4 | 8) {
            return self.error("a value of this form is not supported");
        }
        Ok(values.iter().flat_map(|v| v.to_le_bytes().into_iter().take(size as usize)).collect())
    }

    /// `.space .align n .type name[n]`, in any usual order.
    fn declaration(&mut self) -> Result<Variable> {
        let mut out = Variable {
            space: String::new(),
            name: String::new(),
            align: 0,
            bytes: 0,
            external: false,
            initial: Vec::new(),
        };
        let mut size = 0;
        loop {
            match self.next() {
                ".align" => out.align = u64::from(self.next().parse::<u32>().unwrap_or(1)),
                ".ptr" | ".noalias" => {}
                space @ (".param" | ".shared" | ".local" | ".global" | ".const") => {
                    if out.space.is_empty() {
                        out.space = space.to_owned();
                    }
                }
                ty if bits(ty).is_some() && ty.starts_with('.') => {
                    size = u64::from(bits(ty).unwrap_or(8)) / 8
                }
                name if !name.starts_with('.') && !name.is_empty() => {
                    out.name = name.to_owned();
                    break;
                }
                other => return self.error(format!("'{other}' is not known in a declaration")),
            }
        }
        out.bytes = size;
        if out.align == 0 || out.space == ".param" && size > 0 {
            out.align = out.align.max(size);
        }
        while self.accept("[") {
            let n = if self.peek() == "]" { 0 } else { self.number()? };
            out.bytes = out.bytes.saturating_mul(n);
            self.expect("]")?;
        }
        if size == 0 || !out.align.is_power_of_two() {
            return self.error(format!("'{}' has no usable type", out.name));
        }
        Ok(out)
    }

    fn body(&mut self) -> Result<Vec<Statement>> {
        let (mut out, mut depth) = (Vec::new(), 1);
        loop {
            if self.at >= self.list.len() {
                return self.error("a function does not end");
            }
            match self.peek() {
                "}" => {
                    self.at += 1;
                    depth -= 1;
                    if depth == 0 {
                        return Ok(out);
                    }
                }
                "{" => {
                    self.at += 1;
                    depth += 1;
                }
                ".reg" => self.registers(&mut out)?,
                ".pragma" => {
                    while !self.accept(";") && self.at < self.list.len() {
                        self.at += 1;
                    }
                }
                ".local" | ".shared" => out.push(Statement::Variable(self.variable()?)),
                word if self.list.get(self.at + 1).is_some_and(|t| t.text == ":") => {
                    out.push(Statement::Label(word.to_owned()));
                    self.at += 2;
                }
                _ => out.push(self.instruction()?),
            }
        }
    }

    fn registers(&mut self, out: &mut Vec<Statement>) -> Result<()> {
        self.at += 1;
        let ty = self.next();
        let Some(bits) = bits(ty).filter(|b| *b <= 64) else {
            return self.error(format!("registers of type '{ty}' are not supported"));
        };
        loop {
            let name = self.next().to_owned();
            let count = if self.accept("<") {
                let n = u32::try_from(self.number()?).unwrap_or(u32::MAX);
                self.expect(">")?;
                if n > 1 << 20 {
                    return self.error("too many registers");
                }
                Some(n)
            } else {
                None
            };
            out.push(Statement::Registers { bits, name, count });
            if self.accept(";") {
                return Ok(());
            }
            self.expect(",")?;
        }
    }

    fn instruction(&mut self) -> Result<Statement> {
        let line = self.line();
        let mut guard = None;
        if self.accept("@") {
            let negated = self.accept("!");
            guard = Some((self.next().to_owned(), negated));
        }
        let parts: Vec<String> = self.next().split('.').map(str::to_owned).collect();
        let mut operands = Vec::new();
        while !self.accept(";") {
            if self.at >= self.list.len() {
                return self.error("an instruction does not end");
            }
            operands.push(self.operand()?);
            if self.peek() != ";" {
                self.expect(",")?;
            }
        }
        Ok(Statement::Instruction { line, guard, parts, operands })
    }

    fn operand(&mut self) -> Result<Operand> {
        if self.accept("[") {
            let inner = self.operand()?;
            self.expect("]")?;
            return Ok(match inner {
                Operand::Sum(name, offset) => Operand::Memory(Box::new(Operand::Name(name, false)), offset),
                other => Operand::Memory(Box::new(other), 0),
            });
        }
        if self.accept("{") {
            let mut list = Vec::new();
            while !self.accept("}") {
                list.push(self.operand()?);
                if self.peek() != "}" {
                    self.expect(",")?;
                }
            }
            return Ok(Operand::Vector(list));
        }
        let first = self.single()?;
        if self.accept("|") {
            return Ok(Operand::Pair(Box::new(first), Box::new(self.single()?)));
        }
        if matches!(self.peek(), "+" | "-")
            && let Operand::Name(name, false) = &first
        {
            let minus = self.next() == "-";
            let offset = self.number()? as i64;
            return Ok(Operand::Sum(name.clone(), if minus { offset.wrapping_neg() } else { offset }));
        }
        Ok(first)
    }

    fn single(&mut self) -> Result<Operand> {
        if self.accept("!") {
            return Ok(Operand::Name(self.next().to_owned(), true));
        }
        let digit = |w: &str| w.bytes().next().is_some_and(|c| c.is_ascii_digit());
        if self.peek() == "-" || digit(self.peek()) {
            return Ok(Operand::Number(self.number()?));
        }
        match self.next() {
            word if word.bytes().next().is_some_and(|c| c.is_ascii_alphabetic() || b"_$%".contains(&c)) => {
                Ok(Operand::Name(word.to_owned(), false))
            }
            other => self.error(format!("'{other}' is no operand")),
        }
    }

    /// A number: decimal, hexadecimal, octal, binary, or the bits of a float.
    fn number(&mut self) -> Result<u64> {
        let mut minus = false;
        while self.accept("-") {
            minus = !minus;
        }
        self.accept("+");
        let word = self.next();
        match value(word) {
            Some(n) => Ok(if minus { n.wrapping_neg() } else { n }),
            None => self.error(format!("'{word}' is no number")),
        }
    }
}

fn value(word: &str) -> Option<u64> {
    let lower = word.to_ascii_lowercase();
    let word = lower.as_str();
    let radix = |digits: &str, radix| u64::from_str_radix(digits, radix).ok();
    if let Some(rest) = word.strip_prefix("0f").filter(|r| r.len() == 8) {
        return radix(rest, 16);
    }
    if let Some(rest) = word.strip_prefix("0d").filter(|r| r.len() == 16) {
        return radix(rest, 16);
    }
    let word = word.strip_suffix('u').unwrap_or(word);
    if let Some(rest) = word.strip_prefix("0x") {
        return radix(rest, 16);
    }
    if let Some(rest) = word.strip_prefix("0b") {
        return radix(rest, 2);
    }
    if word.len() > 1 && word.starts_with('0') {
        return radix(&word[1..], 8);
    }
    word.parse().ok()
}
