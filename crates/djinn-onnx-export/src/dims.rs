//! Symbolic sizes at run time: i64 tensors computed from the shapes of values that are at hand.
//!
//! Every node made here is shared through the emitter's cache, so a model computes each size once.

use crate::emit::Emitter;
use crate::proto::int;
use djinn_diag::{Result, internal, unsupported};
use djinn_ir::{DType, Dim, Symbol, TensorType};

/// The i64 type of a vector of `n` sizes.
pub(crate) fn vector_type(n: usize) -> TensorType {
    TensorType::new(DType::I64, [Dim::from(n)])
}

/// A rank-0 i64 value.
pub(crate) fn scalar(e: &mut Emitter<'_>, dim: &Dim) -> Result<String> {
    if let Some(c) = dim.as_const() {
        return e.i64_scalar(c);
    }
    let one = size(e, dim)?;
    e.cached("Squeeze", &[&one], vec![], TensorType::scalar(DType::I64))
}

/// An i64 vector with one element per size.
pub(crate) fn vector(e: &mut Emitter<'_>, dims: &[Dim]) -> Result<String> {
    if let Some(values) = dims.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>() {
        return e.i64s(&values);
    }
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < dims.len() {
        let (piece, taken) = next_piece(e, &dims[at..])?;
        pieces.push(piece);
        at += taken;
    }
    if let [only] = pieces.as_slice() {
        return Ok(only.clone());
    }
    let names: Vec<&str> = pieces.iter().map(String::as_str).collect();
    e.cached("Concat", &names, vec![int("axis", 0)], vector_type(dims.len()))
}

/// A piece of a vector of sizes and how many of the sizes it holds.
fn next_piece(e: &mut Emitter<'_>, dims: &[Dim]) -> Result<(String, usize)> {
    if let Some((name, start, len)) = longest_run(e, dims) {
        return Ok((shape_of(e, &name, start, len)?, len));
    }
    let constants: Vec<i64> = dims.iter().map_while(Dim::as_const).collect();
    if constants.is_empty() {
        return Ok((size(e, &dims[0])?, 1));
    }
    // A longer run may begin at one of these constants: stop in front of it.
    let stop = (1..constants.len()).find(|i| longest_run(e, &dims[*i..]).is_some());
    let taken = stop.unwrap_or(constants.len());
    Ok((e.i64s(&constants[..taken])?, taken))
}

/// The source whose shape holds the longest prefix of `dims` (with a symbol in it): name, first axis, length.
fn longest_run(e: &Emitter<'_>, dims: &[Dim]) -> Option<(String, usize, usize)> {
    let mut best: Option<(String, usize, usize)> = None;
    for source in e.sources() {
        for start in 0..source.shape.len() {
            let same = source.shape[start..].iter().zip(dims).take_while(|(a, b)| a == b).count();
            let symbolic = dims[..same].iter().any(|d| d.as_const().is_none());
            if symbolic && best.as_ref().is_none_or(|(_, _, len)| same > *len) {
                best = Some((source.name.clone(), start, same));
            }
        }
    }
    best
}

fn shape_of(e: &mut Emitter<'_>, name: &str, start: usize, len: usize) -> Result<String> {
    let rank = e.ty(name).map_or(0, TensorType::rank);
    let mut attrs = Vec::new();
    if start > 0 {
        attrs.push(int("start", start as i64));
    }
    if start + len < rank {
        attrs.push(int("end", (start + len) as i64));
    }
    e.cached("Shape", &[name], attrs, vector_type(len))
}

/// An i64 vector with this one size.
pub(crate) fn size(e: &mut Emitter<'_>, dim: &Dim) -> Result<String> {
    if let Some(c) = dim.as_const() {
        return e.i64s(&[c]);
    }
    if let Some((name, start, _)) = longest_run(e, std::slice::from_ref(dim)) {
        return shape_of(e, &name, start, 1);
    }
    match Expr::read(dim)? {
        Expr::Symbol(symbol) => solve(e, &symbol),
        expr => expr.emit(e),
    }
}

/// Is there a symbol in these sizes that no source gives?
pub(crate) fn has_unknown_symbol(e: &Emitter<'_>, shape: &[Dim]) -> bool {
    let mut unknown = false;
    for d in shape {
        d.visit_symbols(&mut |symbol| unknown |= find(e, symbol).is_none());
    }
    unknown
}

/// A source that gives a symbol: name, axis, and `(c, d)` where the size is `c·symbol + d`.
fn find(e: &Emitter<'_>, symbol: &Symbol) -> Option<(String, usize, i64, i64)> {
    e.sources().find_map(|s| {
        let hit = |(axis, d): (usize, &Dim)| linear(d, symbol).map(|(c, rest)| (axis, c, rest));
        s.shape.iter().enumerate().find_map(hit).map(|(axis, c, rest)| (s.name.clone(), axis, c, rest))
    })
}

/// A symbol out of a size that is linear in it.
fn solve(e: &mut Emitter<'_>, symbol: &Symbol) -> Result<String> {
    let Some((name, axis, factor, rest)) = find(e, symbol) else {
        let message = format!("no value at hand has a shape from which '{}' follows", symbol.name());
        return Err(unsupported("onnx-export.symbol", message));
    };
    let size = shape_of(e, &name, axis, 1)?;
    let without_rest = if rest == 0 { size } else { binary(e, "Sub", &size, rest)? };
    if factor == 1 { Ok(without_rest) } else { binary(e, "Div", &without_rest, factor) }
}

/// `(c, d)` if the size is `c·symbol + d`.
fn linear(dim: &Dim, symbol: &Symbol) -> Option<(i64, i64)> {
    if dim.as_const().is_some() {
        return None;
    }
    if dim.as_symbol() == Some(symbol) {
        return Some((1, 0));
    }
    let at = |v: i64| dim.substitute(&|s| (s == symbol).then_some(Dim::from(v))).as_const();
    let (rest, one) = (at(0)?, at(1)?);
    let factor = one.checked_sub(rest).filter(|c| *c != 0)?;
    let rebuilt = &(&Dim::symbol(symbol.name()) * &Dim::from(factor)) + &Dim::from(rest);
    (rebuilt == *dim).then_some((factor, rest))
}

fn binary(e: &mut Emitter<'_>, op: &str, a: &str, b: i64) -> Result<String> {
    let b = e.i64s(&[b])?;
    e.cached(op, &[a, &b], vec![], vector_type(1))
}

/// The structure of a [`Dim`], read from its text form.
#[derive(Debug, Clone)]
enum Expr {
    Const(i64),
    Symbol(Symbol),
    /// Terms with their signs; never empty.
    Sum(Vec<(bool, Expr)>),
    Product(Vec<Expr>),
    Call(Call, Box<(Expr, Expr)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    FloorDiv,
    Min,
    Max,
}

impl Expr {
    /// Symbols are renamed while the text is read, so that no name can be mistaken for syntax.
    fn read(dim: &Dim) -> Result<Expr> {
        let mut symbols: Vec<Symbol> = Vec::new();
        dim.visit_symbols(&mut |s| {
            if !symbols.contains(s) {
                symbols.push(s.clone());
            }
        });
        let position = |s: &Symbol| symbols.iter().position(|k| k == s);
        let plain = dim.substitute(&|s| position(s).map(|i| Dim::symbol(&format!("q{i}"))));
        let text = plain.to_string();
        let mut reader = Reader { rest: &text, symbols: &symbols };
        let expr = reader.sum();
        match expr {
            Some(expr) if reader.rest.is_empty() => Ok(expr),
            _ => Err(internal("onnx-export.dim", format!("the size '{dim}' cannot be read back"))),
        }
    }

    fn dim(&self) -> Dim {
        match self {
            Expr::Const(c) => Dim::from(*c),
            Expr::Symbol(s) => Dim::symbol(s.name()),
            Expr::Sum(terms) => terms
                .iter()
                .fold(Dim::ZERO, |sum, (minus, t)| if *minus { &sum - &t.dim() } else { &sum + &t.dim() }),
            Expr::Product(factors) => factors.iter().fold(Dim::ONE, |p, f| &p * &f.dim()),
            Expr::Call(call, operands) => {
                let (a, b) = (operands.0.dim(), operands.1.dim());
                match call {
                    Call::FloorDiv => a.floor_div(&b),
                    Call::Min => a.min_of(&b),
                    Call::Max => a.max_of(&b),
                }
            }
        }
    }

    fn emit(&self, e: &mut Emitter<'_>) -> Result<String> {
        match self {
            Expr::Const(_) | Expr::Symbol(_) => size(e, &self.dim()),
            Expr::Sum(terms) => {
                let mut sum: Option<String> = None;
                for (minus, term) in terms {
                    let value = size(e, &term.dim())?;
                    sum = Some(match (sum, minus) {
                        (None, false) => value,
                        (None, true) => e.cached("Neg", &[&value], vec![], vector_type(1))?,
                        (Some(s), false) => e.cached("Add", &[&s, &value], vec![], vector_type(1))?,
                        (Some(s), true) => e.cached("Sub", &[&s, &value], vec![], vector_type(1))?,
                    });
                }
                sum.ok_or_else(|| internal("onnx-export.dim", "an empty sum"))
            }
            Expr::Product(factors) => {
                let mut product = size(e, &factors[0].dim())?;
                for f in &factors[1..] {
                    let value = size(e, &f.dim())?;
                    product = e.cached("Mul", &[&product, &value], vec![], vector_type(1))?;
                }
                Ok(product)
            }
            Expr::Call(Call::FloorDiv, operands) => floor_div(e, &operands.0.dim(), &operands.1.dim()),
            Expr::Call(call, operands) => {
                let (a, b) = (size(e, &operands.0.dim())?, size(e, &operands.1.dim())?);
                let op = if *call == Call::Min { "Min" } else { "Max" };
                e.cached(op, &[&a, &b], vec![], vector_type(1))
            }
        }
    }
}

/// ONNX division truncates, so the dividend is first moved above zero where it may be negative.
fn floor_div(e: &mut Emitter<'_>, a: &Dim, b: &Dim) -> Result<String> {
    let low = a.bounds(e.symbols).0;
    let shift = match (low, b.as_const()) {
        (Some(low), Some(b)) if low < 0 && b > 0 => low.checked_neg().map_or(0, |n| n.div_ceil_signed(b)),
        _ => 0,
    };
    let lifted = a + &(&Dim::from(shift) * b);
    let (a, b) = (size(e, &lifted)?, size(e, b)?);
    let quotient = e.cached("Div", &[&a, &b], vec![], vector_type(1))?;
    if shift == 0 { Ok(quotient) } else { binary(e, "Sub", &quotient, shift) }
}

/// Division of positive numbers, rounded up.
trait DivCeil {
    fn div_ceil_signed(self, by: i64) -> i64;
}

impl DivCeil for i64 {
    fn div_ceil_signed(self, by: i64) -> i64 {
        self / by + i64::from(self % by != 0)
    }
}

/// Reads the canonical text of a dimension whose symbols are `q0`, `q1`, ….
struct Reader<'a> {
    rest: &'a str,
    symbols: &'a [Symbol],
}

impl Reader<'_> {
    fn eat(&mut self, text: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn sum(&mut self) -> Option<Expr> {
        let minus = self.eat("-");
        let mut terms = vec![(minus, self.product()?)];
        loop {
            let minus = if self.eat("+") {
                false
            } else if self.eat("-") {
                true
            } else {
                break;
            };
            terms.push((minus, self.product()?));
        }
        // A leading minus costs a node: begin with a term that is added, if there is one.
        terms.sort_by_key(|(minus, _)| *minus);
        if terms.len() == 1 && !terms[0].0 { terms.pop().map(|(_, t)| t) } else { Some(Expr::Sum(terms)) }
    }

    fn product(&mut self) -> Option<Expr> {
        let mut factors = vec![self.primary()?];
        while self.eat("*") {
            factors.push(self.primary()?);
        }
        if factors.len() == 1 { factors.pop() } else { Some(Expr::Product(factors)) }
    }

    fn primary(&mut self) -> Option<Expr> {
        if self.eat("(") {
            let inner = self.sum()?;
            return self.eat(")").then_some(inner);
        }
        for (word, call) in [("floordiv(", Call::FloorDiv), ("min(", Call::Min), ("max(", Call::Max)] {
            if self.eat(word) {
                let a = self.sum()?;
                let b = if self.eat(",") { self.sum()? } else { return None };
                return self.eat(")").then(|| Expr::Call(call, Box::new((a, b))));
            }
        }
        let symbol = self.eat("q");
        let digits = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let number: i64 = self.rest[..digits].parse().ok()?;
        self.rest = &self.rest[digits..];
        if symbol {
            let index = usize::try_from(number).ok()?;
            return self.symbols.get(index).cloned().map(Expr::Symbol);
        }
        Some(Expr::Const(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structure_is_read_back() {
        for text in
            ["s0", "2*s0*s1 - 3", "floordiv(s0 + 1, 2) + 4", "min(s0, s1)", "7 - s0", "max(2*s0, s1)*s0"]
        {
            let d: Dim = text.parse().expect(text);
            assert_eq!(Expr::read(&d).expect(text).dim(), d, "{text}");
        }
        // A symbol whose name looks like syntax.
        let odd = &Dim::symbol("a + b,(") * &Dim::from(2);
        assert_eq!(Expr::read(&odd).expect("reads").dim(), odd);
    }

    #[test]
    fn linear_sizes_are_solved() {
        let s = Symbol::new("s");
        assert_eq!(linear(&"3*s + 2".parse().expect("dim"), &s), Some((3, 2)));
        assert_eq!(linear(&"s*s".parse().expect("dim"), &s), None);
        assert_eq!(linear(&"s + t".parse().expect("dim"), &s), None);
    }
}
