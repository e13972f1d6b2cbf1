//! Sizes at run time: symbolic dimensions as i64 tensors computed from the shapes of the network's inputs.

use crate::network::{Net, Val, layer, no_layer};
use djinn_diag::Result;
use djinn_ir::{DType, Dim, Symbol, TensorData, TensorType};
use std::collections::BTreeMap;
use trtx::{ElementWiseOperation, Tensor};

/// Values that a probe of a linear expression is taken at.
const PROBES: [i64; 3] = [1, 2, 5];

/// How every symbol is read off an input, and what has been computed from them.
#[derive(Debug, Default)]
pub(crate) struct Sizes<'n> {
    symbols: BTreeMap<Symbol, Source<'n>>,
    known: BTreeMap<Dim, Val<'n>>,
}

/// `size = slope · symbol + offset` for the size of this axis of this input.
#[derive(Debug, Clone)]
struct Source<'n> {
    input: Val<'n>,
    axis: usize,
    slope: i64,
    offset: i64,
}

impl<'n> Net<'n> {
    /// Notes which symbols the shape of an input gives.
    pub(crate) fn note_sizes(&mut self, input: &Val<'n>) {
        for (axis, dim) in input.shape().iter().enumerate() {
            let Some((symbol, slope, offset)) = linear(dim) else { continue };
            let source = Source { input: input.clone(), axis, slope, offset };
            let simple = slope == 1 && offset == 0;
            let known = self.sizes.symbols.get(&symbol);
            if known.is_none_or(|k| simple && !(k.slope == 1 && k.offset == 0)) {
                self.sizes.symbols.insert(symbol, source);
            }
        }
    }

    /// Sizes as an i64 vector.
    pub(crate) fn shape_tensor(&mut self, dims: &[Dim]) -> Result<Tensor<'n>> {
        let parts: Vec<Val<'n>> = dims.iter().map(|d| self.size(d)).collect::<Result<_>>()?;
        Ok(self.concat(&parts, 0)?.tensor)
    }

    /// A size as an i64 vector of one element.
    pub(crate) fn size(&mut self, dim: &Dim) -> Result<Val<'n>> {
        if let Some(value) = self.sizes.known.get(dim) {
            return Ok(value.clone());
        }
        let value = match (dim.as_const(), dim.as_symbol()) {
            (Some(c), _) => self.integers(&[c])?,
            (_, Some(symbol)) => self.symbol(symbol)?,
            _ => self.expression(dim)?,
        };
        self.sizes.known.insert(dim.clone(), value.clone());
        Ok(value)
    }

    fn integers(&mut self, values: &[i64]) -> Result<Val<'n>> {
        let data = TensorData::from_i64(&[values.len()], values);
        let data = data.ok_or_else(|| no_layer("a vector of sizes cannot be made"))?;
        self.literal(&data)
    }

    fn symbol(&mut self, symbol: &Symbol) -> Result<Val<'n>> {
        let source = self.sizes.symbols.get(symbol).cloned();
        let Some(Source { input, axis, slope, offset }) = source else {
            return Err(no_layer(format!("no input of the engine has a size that gives {}", symbol.name())));
        };
        let shape = TensorType::of(DType::I64, &[input.rank() as i64]);
        let shape = layer!(self, self.inner.add_shape(&input.tensor), shape);
        let mut value = self.slice(&shape, &[Dim::from(axis)], &[Dim::ONE], &[1])?;
        for (number, op) in [(offset, ElementWiseOperation::kSUB), (slope, ElementWiseOperation::kDIV)] {
            let neutral = if op == ElementWiseOperation::kSUB { 0 } else { 1 };
            if number != neutral {
                let number = self.integers(&[number])?;
                value = self.binary(&value, &number, op)?;
            }
        }
        Ok(value)
    }

    /// A polynomial, from the text form of its terms: the IR prints sums of products with nested operations.
    fn expression(&mut self, dim: &Dim) -> Result<Val<'n>> {
        if let Some((symbol, slope, offset)) = linear(dim) {
            let value = self.size(&Dim::symbol(symbol.name()))?;
            let slope = self.integers(&[slope])?;
            let product = self.binary(&value, &slope, ElementWiseOperation::kPROD)?;
            let offset = self.integers(&[offset])?;
            return self.binary(&product, &offset, ElementWiseOperation::kSUM);
        }
        let mut parser = Parser { text: dim.to_string().into_bytes(), at: 0 };
        let value = parser.sum(self)?;
        if parser.at < parser.text.len() {
            return Err(no_layer(format!("the size {dim} is not understood")));
        }
        Ok(value)
    }
}

/// `slope · symbol + offset`, if the size is that.
pub(crate) fn linear(dim: &Dim) -> Option<(Symbol, i64, i64)> {
    let mut symbols = Vec::new();
    dim.visit_symbols(&mut |s| symbols.push(s.clone()));
    symbols.dedup();
    let [symbol] = symbols.as_slice() else { return None };
    let at = |v: i64| dim.eval(&|_| Some(v));
    let [one, two, five] = PROBES.map(at);
    let slope = two?.checked_sub(one?)?;
    let offset = one?.checked_sub(slope)?;
    // Three points do not prove it: rebuilding it does.
    let rebuilt = &(&Dim::symbol(symbol.name()) * &Dim::from(slope)) + &Dim::from(offset);
    (slope != 0 && five? == slope.checked_mul(PROBES[2])?.checked_add(offset)? && rebuilt == *dim)
        .then(|| (symbol.clone(), slope, offset))
}

/// Reads the text form of a size and makes layers of it.
struct Parser {
    text: Vec<u8>,
    at: usize,
}

impl Parser {
    fn eat(&mut self, c: u8) -> bool {
        while self.text.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
        let hit = self.text.get(self.at) == Some(&c);
        self.at += usize::from(hit);
        hit
    }

    fn sum<'n>(&mut self, net: &mut Net<'n>) -> Result<Val<'n>> {
        let mut total = None;
        loop {
            let op = match (self.eat(b'-'), total.is_none()) {
                (true, _) => ElementWiseOperation::kSUB,
                (false, true) => ElementWiseOperation::kSUM,
                (false, false) if self.eat(b'+') => ElementWiseOperation::kSUM,
                (false, false) => break,
            };
            let before = match total.take() {
                Some(before) => before,
                None => net.integers(&[0])?,
            };
            let product = self.product(net)?;
            total = Some(net.binary(&before, &product, op)?);
        }
        total.ok_or_else(|| no_layer("a size has no terms"))
    }

    fn product<'n>(&mut self, net: &mut Net<'n>) -> Result<Val<'n>> {
        let mut value = self.atom(net)?;
        while self.eat(b'*') {
            let factor = self.atom(net)?;
            value = net.binary(&value, &factor, ElementWiseOperation::kPROD)?;
        }
        Ok(value)
    }

    fn atom<'n>(&mut self, net: &mut Net<'n>) -> Result<Val<'n>> {
        self.eat(b' ');
        let rest = &self.text[self.at..];
        let end = rest.iter().position(|c| !(c.is_ascii_alphanumeric() || *c == b'_')).unwrap_or(rest.len());
        let word = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.at += end;
        let op = match word.as_str() {
            "floordiv" => ElementWiseOperation::kFLOOR_DIV,
            "min" => ElementWiseOperation::kMIN,
            "max" => ElementWiseOperation::kMAX,
            number if number.starts_with(|c: char| c.is_ascii_digit()) => {
                let number = number.parse().map_err(|_| no_layer("a size is too large"))?;
                return net.integers(&[number]);
            }
            "" | "overflow" => return Err(no_layer("a size is not understood")),
            symbol => return net.size(&Dim::symbol(symbol)),
        };
        let fits = self.eat(b'(');
        let a = self.sum(net)?;
        let fits = fits && self.eat(b',');
        let b = self.sum(net)?;
        match fits && self.eat(b')') {
            true => net.binary(&a, &b, op),
            false => Err(no_layer("a size is not understood")),
        }
    }
}
