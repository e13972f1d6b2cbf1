//! Attribute values as they stand in text, before the op table says what they mean.

use super::cursor::{Cursor, Token};
use super::tensor::{self, Contents};
use crate::attr::{Attr, AttrKind, FloatBits};
use crate::data::TensorData;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::types::TensorType;
use djinn_diag::Result;
use std::sync::Arc;

/// A builtin MLIR attribute.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    List(Vec<Literal>),
    Dict(Dict),
    DType(DType),
    Type(TensorType),
    Tensor(TensorData),
}

/// Entries of a dictionary attribute in the order of the text; names are distinct.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Dict(pub(super) Vec<Entry>);

/// One entry and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) value: Literal,
    pub(super) place: usize,
}

impl Dict {
    /// Takes the entry of this name out.
    pub(super) fn take(&mut self, name: &str) -> Option<Literal> {
        let i = self.0.iter().position(|e| e.name == name)?;
        Some(self.0.remove(i).value)
    }
}

/// Reads `{name = value, …}`; the `{` was taken.
pub(super) fn dict(c: &mut Cursor<'_>) -> Result<Dict> {
    let mut names = std::collections::BTreeSet::new();
    let entries = c.list('}', |c| {
        let place = c.place();
        let name = match c.advance()? {
            Token::Text(name) => name,
            Token::Word(name) => name.to_string(),
            _ => return Err(c.error_at(place, "expected the name of an attribute")),
        };
        if !names.insert(name.clone()) {
            return Err(c.error_at(place, format!("'{name}' is given twice")));
        }
        c.expect('=')?;
        let value = literal(c)?;
        Ok(Entry { name, value, place })
    })?;
    Ok(Dict(entries))
}

/// Reads any attribute value.
pub(super) fn literal(c: &mut Cursor<'_>) -> Result<Literal> {
    c.nested(|c| {
        let place = c.place();
        match *c.peek() {
            Token::Text(_) => Ok(Literal::Text(c.expect_text("a string")?)),
            Token::Number(text) => {
                c.advance()?;
                number(c, text, place)
            }
            Token::Punct('[') => {
                c.advance()?;
                Ok(Literal::List(c.list(']', literal)?))
            }
            Token::Punct('{') => {
                c.advance()?;
                Ok(Literal::Dict(dict(c)?))
            }
            Token::Word(word) => self::word(c, word),
            _ => Err(c.unexpected("an attribute value")),
        }
    })
}

fn word(c: &mut Cursor<'_>, word: &str) -> Result<Literal> {
    let place = c.place();
    if word == "tensor" {
        return Ok(Literal::Type(tensor_type(c)?));
    }
    c.advance()?;
    match word {
        "true" => Ok(Literal::Bool(true)),
        "false" => Ok(Literal::Bool(false)),
        "array" => array(c),
        "dense" => dense(c),
        _ => match DType::from_mlir(word) {
            Some(dtype) => Ok(Literal::DType(dtype)),
            None => Err(c.error_at(place, format!("'{word}' is no attribute value"))),
        },
    }
}

/// A number whose text was taken, with its type if one follows.
fn number(c: &mut Cursor<'_>, text: &str, place: usize) -> Result<Literal> {
    let ty = if c.eat(':')? {
        let at = c.place();
        match c.advance()? {
            Token::Word(ty @ ("i64" | "f64")) => Some(ty),
            _ => return Err(c.error_at(at, "numbers in attributes are i64 or f64")),
        }
    } else {
        None
    };
    let bad = |c: &Cursor<'_>, what: &str| c.error_at(place, format!("'{text}' is no {what} number"));
    if ty == Some("f64") || text.contains('.') {
        if ty == Some("i64") {
            return Err(bad(c, "i64"));
        }
        return match float(text) {
            Some(v) => Ok(Literal::Float(v)),
            None => Err(bad(c, "f64")),
        };
    }
    text.parse().map(Literal::Int).map_err(|_| bad(c, "i64"))
}

/// A float in decimal digits, or its bits in hexadecimal.
fn float(text: &str) -> Option<f64> {
    let bytes = tensor::element(DType::F64, text)?;
    Some(f64::from_le_bytes(bytes.try_into().ok()?))
}

/// `array<i64: 1, 2>` after the word.
fn array(c: &mut Cursor<'_>) -> Result<Literal> {
    c.expect('<')?;
    let place = c.place();
    let floats = match c.advance()? {
        Token::Word("i64") => false,
        Token::Word("f64") => true,
        _ => return Err(c.error_at(place, "arrays are of i64 or f64")),
    };
    let mut items: Vec<(usize, &str)> = Vec::new();
    if !c.eat('>')? {
        c.expect(':')?;
        items = c.list('>', |c| {
            let place = c.place();
            match c.advance()? {
                Token::Number(text) => Ok((place, text)),
                _ => Err(c.error_at(place, "expected a number")),
            }
        })?;
    }
    let bad = |place: usize, text: &str| c.error_at(place, format!("'{text}' does not fit the array's type"));
    if floats {
        let read = |(place, text): &(usize, &str)| float(text).ok_or_else(|| bad(*place, text));
        return Ok(Literal::Floats(items.iter().map(read).collect::<Result<_>>()?));
    }
    let read = |(place, text): &(usize, &str)| text.parse().map_err(|_| bad(*place, text));
    Ok(Literal::Ints(items.iter().map(read).collect::<Result<_>>()?))
}

/// `dense<…> : tensor<…>` after the word.
fn dense(c: &mut Cursor<'_>) -> Result<Literal> {
    let place = c.place();
    c.expect('<')?;
    let contents = if *c.peek() == Token::Punct('>') {
        Contents::Empty
    } else if matches!(c.peek(), Token::Text(_)) {
        let at = c.place();
        let text = c.expect_text("bytes")?;
        Contents::Bytes(hex_bytes(&text).ok_or_else(|| c.error_at(at, "expected \"0x…\" with whole bytes"))?)
    } else if *c.peek() == Token::Punct('[') {
        let mut elements = Vec::new();
        let sizes = nested_list(c, &mut elements)?;
        Contents::List(elements, sizes)
    } else {
        Contents::Splat(element(c)?)
    };
    c.expect('>')?;
    c.expect(':')?;
    let ty = tensor_type(c)?;
    let budget = c.splat_bytes();
    match tensor::build(contents, &ty, budget) {
        Ok(data) => Ok(Literal::Tensor(data)),
        Err(message) => Err(c.error_at(place, message)),
    }
}

fn element(c: &mut Cursor<'_>) -> Result<String> {
    let place = c.place();
    match c.advance()? {
        Token::Number(text) => Ok(text.to_string()),
        Token::Word(text @ ("true" | "false")) => Ok(text.to_string()),
        _ => Err(c.error_at(place, "expected an element: a number, true or false")),
    }
}

/// Reads `[[1, 2], [3, 4]]` and gives the sizes of the nested lists.
fn nested_list(c: &mut Cursor<'_>, elements: &mut Vec<String>) -> Result<Vec<usize>> {
    if *c.peek() != Token::Punct('[') {
        elements.push(element(c)?);
        return Ok(Vec::new());
    }
    c.nested(|c| {
        c.expect('[')?;
        let mut inner: Option<Vec<usize>> = None;
        let items = c.list(']', |c| {
            let place = c.place();
            let sizes = nested_list(c, elements)?;
            if inner.as_ref().is_some_and(|first| *first != sizes) {
                return Err(c.error_at(place, "the nested lists have different sizes"));
            }
            inner = Some(sizes);
            Ok(())
        })?;
        let mut sizes = vec![items.len()];
        sizes.extend(inner.unwrap_or_default());
        Ok(sizes)
    })
}

fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x")?.as_bytes();
    let (pairs, rest) = digits.as_chunks::<2>();
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? * 16 + digit(*low)?);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

/// Reads `tensor<?x8xf32, ["s0"]>`.
pub(super) fn tensor_type(c: &mut Cursor<'_>) -> Result<TensorType> {
    let place = c.place();
    c.expect_token(&Token::Word("tensor"))?;
    let shape = c.shape()?;
    let mut symbolic = Vec::new();
    if c.eat(',')? {
        c.expect('[')?;
        symbolic = c.list(']', |c| {
            let place = c.place();
            let text = c.expect_text("a size in quotes")?;
            dim(c, &text, place)
        })?;
    }
    c.expect('>')?;
    let (sizes, dtype) = shape.rsplit_once('x').map_or(("", shape), |(sizes, dtype)| (sizes, dtype));
    let Some(dtype) = DType::from_mlir(dtype) else {
        return Err(c.error_at(place, format!("'{dtype}' is no element type")));
    };
    let mut symbolic = symbolic.into_iter();
    let mut sizes_read = Vec::new();
    for size in sizes.split('x').filter(|_| !sizes.is_empty()) {
        let read = if size == "?" { symbolic.next() } else { size.parse::<i64>().ok().map(Dim::from) };
        match read {
            Some(d) => sizes_read.push(d),
            None if size == "?" => {
                return Err(c.error_at(place, "every '?' needs a size in the list: tensor<?xf32, [\"s0\"]>"));
            }
            None => return Err(c.error_at(place, format!("'{size}' is no size"))),
        }
    }
    if symbolic.next().is_some() {
        return Err(c.error_at(place, "there are more symbolic sizes than '?'"));
    }
    Ok(TensorType::new(dtype, sizes_read))
}

fn dim(c: &Cursor<'_>, text: &str, place: usize) -> Result<Dim> {
    text.parse().map_err(|e: String| c.error_at(place, e))
}

/// The attribute that the op table wants, out of a literal.
pub(super) fn table_attr(c: &Cursor<'_>, kind: AttrKind, value: Literal, place: usize) -> Result<Attr> {
    let wrong = || c.error_at(place, format!("expected {}", describe(kind)));
    let attr = match (kind, value) {
        (AttrKind::Dim, Literal::Text(text)) => Attr::Dim(dim(c, &text, place)?),
        (AttrKind::Dims, Literal::List(items)) => Attr::Dims(dims(c, items, place)?),
        (_, value) => self_describing(c, value, place)?,
    };
    if kind.accepts(&attr) { Ok(attr) } else { Err(wrong()) }
}

fn dims(c: &Cursor<'_>, items: Vec<Literal>, place: usize) -> Result<Vec<Dim>> {
    let read = |item| match item {
        Literal::Text(text) => dim(c, &text, place),
        _ => Err(c.error_at(place, "expected sizes in quotes")),
    };
    items.into_iter().map(read).collect()
}

/// The attribute that a literal is by itself.
pub(super) fn self_describing(c: &Cursor<'_>, value: Literal, place: usize) -> Result<Attr> {
    Ok(match value {
        Literal::Int(v) => Attr::Int(v),
        Literal::Float(v) => Attr::Float(v.into()),
        Literal::Bool(v) => Attr::Bool(v),
        Literal::Text(v) => Attr::Str(Arc::from(v)),
        Literal::Ints(v) => Attr::Ints(v),
        Literal::Floats(v) => Attr::Floats(v.into_iter().map(FloatBits::from).collect()),
        Literal::DType(v) => Attr::DType(v),
        Literal::Tensor(v) => Attr::Tensor(v),
        Literal::List(items) => {
            let read = |item| match item {
                Literal::Type(ty) => Ok(ty),
                _ => Err(c.error_at(place, "expected a list of tensor types")),
            };
            Attr::Types(items.into_iter().map(read).collect::<Result<_>>()?)
        }
        Literal::Dict(mut entries) => match (entries.take("dim"), entries.take("dims")) {
            (Some(Literal::Text(text)), None) if entries.0.is_empty() => Attr::Dim(dim(c, &text, place)?),
            (None, Some(Literal::List(items))) if entries.0.is_empty() => Attr::Dims(dims(c, items, place)?),
            _ => return Err(c.error_at(place, "expected {dim = \"…\"} or {dims = [\"…\"]}")),
        },
        Literal::Type(_) => return Err(c.error_at(place, "a tensor type stands in a list: [tensor<f32>]")),
    })
}

fn describe(kind: AttrKind) -> String {
    match kind {
        AttrKind::Int => "an integer: 1 : i64".into(),
        AttrKind::Float => "a float: 1.0 : f64".into(),
        AttrKind::Bool => "true or false".into(),
        AttrKind::Str => "a string".into(),
        AttrKind::Word(words) => format!("one of \"{}\"", words.join("\", \"")),
        AttrKind::Ints => "integers: array<i64: 0, 1>".into(),
        AttrKind::Floats => "floats: array<f64: 1.0>".into(),
        AttrKind::Dim => "a size: \"s0 + 1\"".into(),
        AttrKind::Dims => "sizes: [\"s0\", \"4\"]".into(),
        AttrKind::DType => "an element type: f32".into(),
        AttrKind::Types => "tensor types: [tensor<4xf32>]".into(),
        AttrKind::Tensor => "a constant: dense<1.0> : tensor<4xf32>".into(),
    }
}
