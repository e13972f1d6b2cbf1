//! Symbolic dimensions: polynomials over named symbols with floor division, minimum and maximum.
//!
//! A [`Dim`] is kept in a canonical form (sorted sum of sorted products), so that structural equality is
//! equality of polynomials. Arithmetic never panics: a coefficient that leaves `i64` makes the dimension
//! [`Dim::OVERFLOW`], which absorbs everything and which the verifier refuses (`type.C2`).

use crate::hash::Encoder;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A named size, such as `s0`, unknown until run time and never negative.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Symbol(Arc<str>);

impl Symbol {
    /// A symbol of this name.
    pub fn new(name: &str) -> Self {
        Symbol(Arc::from(name))
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// What is known of a symbol's value: an inclusive range and a divisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymbolInfo {
    /// Smallest value.
    pub min: i64,
    /// Largest value, if there is one.
    pub max: Option<i64>,
    /// Every value is a multiple of this (at least 1).
    pub divisor: i64,
}

impl Default for SymbolInfo {
    fn default() -> Self {
        SymbolInfo { min: 0, max: None, divisor: 1 }
    }
}

/// The symbols of a module and what is known of them. Symbols without an entry are any size from 0 up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SymbolTable(pub BTreeMap<Symbol, SymbolInfo>);

impl SymbolTable {
    /// What is known of `symbol`.
    pub fn info(&self, symbol: &Symbol) -> SymbolInfo {
        self.0.get(symbol).cloned().unwrap_or_default()
    }
}

/// A size: a constant or a polynomial over symbols.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dim(Repr);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    Const(i64),
    /// Never a constant: at least one term has a non-empty monomial.
    Poly(Arc<Poly>),
    Overflow,
}

/// Sum of `coefficient × monomial`, sorted by monomial, without zero coefficients.
type Poly = Vec<(Monomial, i64)>;
/// Product of powers of atoms, sorted by atom; empty for the constant term.
type Monomial = Vec<(Atom, u32)>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Atom {
    Symbol(Symbol),
    FloorDiv(Dim, Dim),
    Min(Dim, Dim),
    Max(Dim, Dim),
}

/// Degree of one product, at most: beyond it the dimension counts as overflown. Sizes of real models have degree 4 or so.
const MAX_DEGREE: u32 = 32;

/// Symbols and nested operations in one expression, at most: beyond it the dimension counts as overflown.
const MAX_ATOMS: usize = 512;

/// Terms of one polynomial, at most: beyond it the dimension counts as overflown.
const MAX_TERMS: usize = 256;

impl Dim {
    /// Zero.
    pub const ZERO: Dim = Dim(Repr::Const(0));
    /// One.
    pub const ONE: Dim = Dim(Repr::Const(1));
    /// The result of arithmetic that left `i64`.
    pub const OVERFLOW: Dim = Dim(Repr::Overflow);

    /// The symbol `name` as a dimension.
    pub fn symbol(name: &str) -> Dim {
        Dim::atom(Atom::Symbol(Symbol::new(name)))
    }

    fn atom(atom: Atom) -> Dim {
        if let Atom::FloorDiv(a, b) | Atom::Min(a, b) | Atom::Max(a, b) = &atom {
            let mut budget = MAX_ATOMS;
            if !a.takes(&mut budget) || !b.takes(&mut budget) {
                return Dim::OVERFLOW;
            }
        }
        Dim(Repr::Poly(Arc::new(vec![(vec![(atom, 1)], 1)])))
    }

    /// Takes its atoms, nested ones included, out of the budget; false if they are more.
    fn takes(&self, budget: &mut usize) -> bool {
        let Repr::Poly(p) = &self.0 else { return true };
        p.iter().flat_map(|(m, _)| m).all(|(atom, _)| {
            let left = budget.checked_sub(1);
            *budget = left.unwrap_or(0);
            left.is_some()
                && match atom {
                    Atom::Symbol(_) => true,
                    Atom::FloorDiv(a, b) | Atom::Min(a, b) | Atom::Max(a, b) => {
                        a.takes(budget) && b.takes(budget)
                    }
                }
        })
    }

    /// The value, if it is a constant.
    pub fn as_const(&self) -> Option<i64> {
        match self.0 {
            Repr::Const(c) => Some(c),
            _ => None,
        }
    }

    /// Is it exactly the constant `value`?
    pub fn is(&self, value: i64) -> bool {
        self.as_const() == Some(value)
    }

    /// The symbol, if it is one symbol and nothing else.
    pub fn as_symbol(&self) -> Option<&Symbol> {
        match &self.0 {
            Repr::Poly(p) => match p.as_slice() {
                [(m, 1)] => match m.as_slice() {
                    [(Atom::Symbol(s), 1)] => Some(s),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }

    /// Did arithmetic overflow on the way here?
    pub fn is_overflow(&self) -> bool {
        match &self.0 {
            Repr::Overflow => true,
            Repr::Const(_) => false,
            Repr::Poly(p) => p.iter().any(|(m, _)| {
                m.iter().any(|(a, _)| match a {
                    Atom::Symbol(_) => false,
                    Atom::FloorDiv(x, y) | Atom::Min(x, y) | Atom::Max(x, y) => {
                        x.is_overflow() || y.is_overflow()
                    }
                })
            }),
        }
    }

    fn terms(&self) -> Option<Poly> {
        match &self.0 {
            Repr::Const(0) => Some(Vec::new()),
            Repr::Const(c) => Some(vec![(Vec::new(), *c)]),
            Repr::Poly(p) => Some((**p).clone()),
            Repr::Overflow => None,
        }
    }

    fn from_terms(terms: BTreeMap<Monomial, i64>) -> Dim {
        let poly: Poly = terms.into_iter().filter(|(_, c)| *c != 0).collect();
        if poly.len() > MAX_TERMS {
            return Dim::OVERFLOW;
        }
        match poly.as_slice() {
            [] => Dim::ZERO,
            [(m, c)] if m.is_empty() => Dim(Repr::Const(*c)),
            _ => Dim(Repr::Poly(Arc::new(poly))),
        }
    }

    fn combine(&self, other: &Dim, sign: i64) -> Dim {
        if let (Repr::Const(a), Repr::Const(b)) = (&self.0, &other.0) {
            return match sign.checked_mul(*b).and_then(|b| a.checked_add(b)) {
                Some(c) => Dim(Repr::Const(c)),
                None => Dim::OVERFLOW,
            };
        }
        let (Some(a), Some(b)) = (self.terms(), other.terms()) else { return Dim::OVERFLOW };
        let mut sum: BTreeMap<Monomial, i64> = a.into_iter().collect();
        for (m, c) in b {
            let slot = sum.entry(m).or_insert(0);
            match c.checked_mul(sign).and_then(|c| slot.checked_add(c)) {
                Some(v) => *slot = v,
                None => return Dim::OVERFLOW,
            }
        }
        Dim::from_terms(sum)
    }

    fn multiply(&self, other: &Dim) -> Dim {
        if let (Repr::Const(a), Repr::Const(b)) = (&self.0, &other.0) {
            return a.checked_mul(*b).map_or(Dim::OVERFLOW, |c| Dim(Repr::Const(c)));
        }
        if self.is(1) {
            return other.clone();
        }
        if other.is(1) {
            return self.clone();
        }
        let (Some(a), Some(b)) = (self.terms(), other.terms()) else { return Dim::OVERFLOW };
        if a.len() * b.len() > MAX_TERMS * 4 {
            return Dim::OVERFLOW;
        }
        let mut out: BTreeMap<Monomial, i64> = BTreeMap::new();
        for (ma, ca) in &a {
            for (mb, cb) in &b {
                let Some(c) = ca.checked_mul(*cb) else { return Dim::OVERFLOW };
                let product = monomial_product(ma, mb);
                if product.iter().fold(0u32, |sum, (_, p)| sum.saturating_add(*p)) > MAX_DEGREE {
                    return Dim::OVERFLOW;
                }
                let slot = out.entry(product).or_insert(0);
                let Some(v) = slot.checked_add(c) else { return Dim::OVERFLOW };
                *slot = v;
            }
        }
        Dim::from_terms(out)
    }

    /// `⌊self / divisor⌋`; division by a constant zero is [`Dim::OVERFLOW`].
    pub fn floor_div(&self, divisor: &Dim) -> Dim {
        if divisor.is(1) {
            return self.clone();
        }
        if divisor.is(0) || self.is_overflow() || divisor.is_overflow() {
            return Dim::OVERFLOW;
        }
        if let (Some(a), Some(b)) = (self.as_const(), divisor.as_const()) {
            return a.checked_div_euclid(b).map_or(Dim::OVERFLOW, |q| {
                // Euclidean and floor division differ for negative divisors only.
                if b < 0 && a.rem_euclid(b) != 0 { Dim::from(q - 1) } else { Dim::from(q) }
            });
        }
        if let Some(q) = self.exact_div(divisor) {
            return q;
        }
        if let Some(k) = divisor.as_const().filter(|k| *k > 0) {
            // Terms divisible by k leave the floor: ⌊(k·p + r)/k⌋ = p + ⌊r/k⌋.
            let (mut whole, mut rest) = (BTreeMap::new(), BTreeMap::new());
            for (m, c) in self.terms().unwrap_or_default() {
                if m.is_empty() {
                    whole.insert(m.clone(), c.div_euclid(k));
                    rest.insert(m, c.rem_euclid(k));
                } else if c % k == 0 {
                    whole.insert(m, c / k);
                } else {
                    rest.insert(m, c);
                }
            }
            let rest = Dim::from_terms(rest);
            let tail = match rest.as_const() {
                Some(c) => Dim::from(c.div_euclid(k)),
                None => Dim::atom(Atom::FloorDiv(rest, divisor.clone())),
            };
            return &Dim::from_terms(whole) + &tail;
        }
        Dim::atom(Atom::FloorDiv(self.clone(), divisor.clone()))
    }

    /// `⌈self / divisor⌉`.
    pub fn ceil_div(&self, divisor: &Dim) -> Dim {
        (&(self + divisor) - &Dim::ONE).floor_div(divisor)
    }

    /// `self − divisor·⌊self / divisor⌋`.
    pub fn modulo(&self, divisor: &Dim) -> Dim {
        self - &(divisor * &self.floor_div(divisor))
    }

    /// The smaller of the two; decided at once where their difference is constant.
    pub fn min_of(&self, other: &Dim) -> Dim {
        self.pick(other, true)
    }

    /// The larger of the two; decided at once where their difference is constant.
    pub fn max_of(&self, other: &Dim) -> Dim {
        self.pick(other, false)
    }

    fn pick(&self, other: &Dim, smaller: bool) -> Dim {
        if self.is_overflow() || other.is_overflow() {
            return Dim::OVERFLOW;
        }
        if let Some(d) = (self - other).as_const() {
            return if (d <= 0) == smaller { self.clone() } else { other.clone() };
        }
        let (a, b) = if self <= other { (self, other) } else { (other, self) };
        Dim::atom(if smaller { Atom::Min(a.clone(), b.clone()) } else { Atom::Max(a.clone(), b.clone()) })
    }

    /// The quotient if `divisor` divides this polynomial without remainder.
    pub fn exact_div(&self, divisor: &Dim) -> Option<Dim> {
        if divisor.is(0) {
            return None;
        }
        let den = divisor.terms()?;
        let mut rest = self.terms()?;
        // Long division by the leading term (the largest monomial in the canonical order).
        let (lead_m, lead_c) = den.iter().max_by(|a, b| leading_order(&a.0, &b.0))?.clone();
        let mut quotient = Dim::ZERO;
        for _ in 0..MAX_TERMS {
            let Some((m, c)) = rest.iter().max_by(|a, b| leading_order(&a.0, &b.0)).cloned() else {
                return Some(quotient);
            };
            if c % lead_c != 0 {
                return None;
            }
            let q = monomial_quotient(&m, &lead_m)?;
            let term = Dim::from_terms(BTreeMap::from([(q, c / lead_c)]));
            quotient = &quotient + &term;
            let next = &Dim::from_terms(rest.into_iter().collect()) - &(&term * divisor);
            rest = next.terms()?;
        }
        None
    }

    /// The value once every symbol has one; `None` if a symbol is missing, on overflow and on division by zero.
    pub fn eval(&self, value_of: &dyn Fn(&Symbol) -> Option<i64>) -> Option<i64> {
        match &self.0 {
            Repr::Const(c) => Some(*c),
            Repr::Overflow => None,
            Repr::Poly(p) => {
                let mut sum = 0i64;
                for (m, c) in p.iter() {
                    let mut product = *c;
                    for (atom, power) in m {
                        let v = match atom {
                            Atom::Symbol(s) => value_of(s)?,
                            Atom::FloorDiv(a, b) => Dim::from(a.eval(value_of)?)
                                .floor_div(&Dim::from(b.eval(value_of)?))
                                .as_const()?,
                            Atom::Min(a, b) => a.eval(value_of)?.min(b.eval(value_of)?),
                            Atom::Max(a, b) => a.eval(value_of)?.max(b.eval(value_of)?),
                        };
                        product = product.checked_mul(v.checked_pow(*power)?)?;
                    }
                    sum = sum.checked_add(product)?;
                }
                Some(sum)
            }
        }
    }

    /// This dimension with symbols replaced; symbols for which `with` returns `None` stay.
    #[must_use]
    pub fn substitute(&self, with: &dyn Fn(&Symbol) -> Option<Dim>) -> Dim {
        match &self.0 {
            Repr::Const(_) | Repr::Overflow => self.clone(),
            Repr::Poly(p) => {
                let mut sum = Dim::ZERO;
                for (m, c) in p.iter() {
                    let mut product = Dim::from(*c);
                    for (atom, power) in m {
                        let v = match atom {
                            Atom::Symbol(s) => with(s).unwrap_or_else(|| Dim::atom(Atom::Symbol(s.clone()))),
                            Atom::FloorDiv(a, b) => a.substitute(with).floor_div(&b.substitute(with)),
                            Atom::Min(a, b) => a.substitute(with).min_of(&b.substitute(with)),
                            Atom::Max(a, b) => a.substitute(with).max_of(&b.substitute(with)),
                        };
                        for _ in 0..*power {
                            product = &product * &v;
                        }
                    }
                    sum = &sum + &product;
                }
                sum
            }
        }
    }

    /// Calls `visit` with every symbol in it, in canonical order, repeats included.
    pub fn visit_symbols(&self, visit: &mut dyn FnMut(&Symbol)) {
        if let Repr::Poly(p) = &self.0 {
            for (atom, _) in p.iter().flat_map(|(m, _)| m) {
                match atom {
                    Atom::Symbol(s) => visit(s),
                    Atom::FloorDiv(a, b) | Atom::Min(a, b) | Atom::Max(a, b) => {
                        a.visit_symbols(visit);
                        b.visit_symbols(visit);
                    }
                }
            }
        }
    }

    /// A number that says how it is made, whatever the names of its symbols: `symbol` gives the number of a symbol and
    /// `join` one for several, in order, under a tag. What may stand in any order is added up.
    pub fn structure(
        &self,
        symbol: &dyn Fn(&Symbol) -> u128,
        join: &dyn Fn(&'static str, &[u128]) -> u128,
    ) -> u128 {
        let pair = |tag, a: &Dim, b: &Dim| {
            let (a, b) = (a.structure(symbol, join), b.structure(symbol, join));
            match tag {
                "floordiv" => join(tag, &[a, b]),
                _ => join(tag, &[a.wrapping_add(b)]),
            }
        };
        let atom = |atom: &Atom| match atom {
            Atom::Symbol(s) => symbol(s),
            Atom::FloorDiv(a, b) => pair("floordiv", a, b),
            Atom::Min(a, b) => pair("min", a, b),
            Atom::Max(a, b) => pair("max", a, b),
        };
        match &self.0 {
            Repr::Const(c) => join("const", &[*c as u128]),
            Repr::Overflow => join("overflow", &[]),
            Repr::Poly(p) => {
                let term = |(monomial, c): &(Monomial, i64)| {
                    let factors =
                        monomial.iter().map(|(a, power)| join("power", &[atom(a), u128::from(*power)]));
                    join("term", &[*c as u128, factors.fold(0, u128::wrapping_add)])
                };
                join("sum", &[p.iter().map(term).fold(0, u128::wrapping_add)])
            }
        }
    }

    /// Writes it down for hashing.
    pub(crate) fn encode(&self, e: &mut Encoder) {
        match &self.0 {
            Repr::Const(c) => {
                e.tag(0);
                e.signed(*c);
            }
            Repr::Overflow => e.tag(1),
            Repr::Poly(p) => {
                e.tag(2);
                e.number(p.len() as u64);
                for (monomial, c) in p.iter() {
                    e.signed(*c);
                    e.number(monomial.len() as u64);
                    for (atom, power) in monomial {
                        e.number(u64::from(*power));
                        atom.encode(e);
                    }
                }
            }
        }
    }

    /// Smallest and largest possible value by interval arithmetic; `None` for unbounded.
    pub fn bounds(&self, symbols: &SymbolTable) -> (Option<i64>, Option<i64>) {
        match &self.0 {
            Repr::Const(c) => (Some(*c), Some(*c)),
            Repr::Overflow => (None, None),
            Repr::Poly(p) => {
                let (mut low, mut high) = (Some(0i64), Some(0i64));
                for (m, c) in p.iter() {
                    let (l, h) = monomial_bounds(m, symbols);
                    let scale = |v: Option<i64>| v.and_then(|v| v.checked_mul(*c));
                    let (l, h) = if *c >= 0 { (scale(l), scale(h)) } else { (scale(h), scale(l)) };
                    low = low.zip(l).and_then(|(a, b)| a.checked_add(b));
                    high = high.zip(h).and_then(|(a, b)| a.checked_add(b));
                }
                (low, high)
            }
        }
    }

    /// Is `self ≥ other` for every allowed value of the symbols? `false` means "not proved".
    pub fn provably_ge(&self, other: &Dim, symbols: &SymbolTable) -> bool {
        (self - other).bounds(symbols).0.is_some_and(|l| l >= 0)
    }
}

impl Atom {
    fn encode(&self, e: &mut Encoder) {
        let (tag, a, b) = match self {
            Atom::Symbol(s) => {
                e.tag(0);
                return e.text(s.name());
            }
            Atom::FloorDiv(a, b) => (1, a, b),
            Atom::Min(a, b) => (2, a, b),
            Atom::Max(a, b) => (3, a, b),
        };
        e.tag(tag);
        a.encode(e);
        b.encode(e);
    }
}

/// Interval of a product of non-negative factors; factors that may be negative make it unbounded.
fn monomial_bounds(m: &Monomial, symbols: &SymbolTable) -> (Option<i64>, Option<i64>) {
    let (mut low, mut high) = (Some(1i64), Some(1i64));
    for (atom, power) in m {
        let (l, h) = match atom {
            Atom::Symbol(s) => {
                let info = symbols.info(s);
                (Some(info.min), info.max)
            }
            Atom::FloorDiv(a, b) => match (a.bounds(symbols), b.bounds(symbols)) {
                ((Some(al), ah), (Some(bl), bh)) if al >= 0 && bl > 0 => {
                    (Some(bh.map_or(0, |bh| al / bh)), ah.map(|ah| ah / bl))
                }
                _ => (None, None),
            },
            Atom::Min(a, b) => {
                let ((al, ah), (bl, bh)) = (a.bounds(symbols), b.bounds(symbols));
                let high = match (ah, bh) {
                    (Some(x), Some(y)) => Some(x.min(y)),
                    (x, y) => x.or(y),
                };
                (al.zip(bl).map(|(x, y)| x.min(y)), high)
            }
            Atom::Max(a, b) => {
                let ((al, ah), (bl, bh)) = (a.bounds(symbols), b.bounds(symbols));
                let low = match (al, bl) {
                    (Some(x), Some(y)) => Some(x.max(y)),
                    (x, y) => x.or(y),
                };
                (low, ah.zip(bh).map(|(x, y)| x.max(y)))
            }
        };
        let Some(l) = l.filter(|l| *l >= 0) else { return (None, None) };
        low = low.and_then(|v| v.checked_mul(l.checked_pow(*power)?));
        high = high.zip(h).and_then(|(v, h)| v.checked_mul(h.checked_pow(*power)?));
    }
    (low, high)
}

fn monomial_product(a: &Monomial, b: &Monomial) -> Monomial {
    let mut powers: BTreeMap<Atom, u32> = a.iter().cloned().collect();
    for (atom, p) in b {
        let slot = powers.entry(atom.clone()).or_insert(0);
        *slot = slot.saturating_add(*p);
    }
    powers.into_iter().collect()
}

fn monomial_quotient(a: &Monomial, b: &Monomial) -> Option<Monomial> {
    let mut powers: BTreeMap<Atom, u32> = a.iter().cloned().collect();
    for (atom, p) in b {
        let slot = powers.get_mut(atom)?;
        *slot = slot.checked_sub(*p)?;
    }
    Some(powers.into_iter().filter(|(_, p)| *p > 0).collect())
}

/// Graded lexicographic order (a monomial order, so that long division terminates).
fn leading_order(a: &Monomial, b: &Monomial) -> std::cmp::Ordering {
    let degree = |m: &Monomial| m.iter().map(|(_, p)| u64::from(*p)).sum::<u64>();
    degree(a).cmp(&degree(b)).then_with(|| {
        let (mut i, mut j) = (a.iter().peekable(), b.iter().peekable());
        loop {
            match (i.peek(), j.peek()) {
                (None, None) => return std::cmp::Ordering::Equal,
                (Some(_), None) => return std::cmp::Ordering::Greater,
                (None, Some(_)) => return std::cmp::Ordering::Less,
                (Some((x, p)), Some((y, q))) => match x.cmp(y) {
                    std::cmp::Ordering::Less => return std::cmp::Ordering::Greater,
                    std::cmp::Ordering::Greater => return std::cmp::Ordering::Less,
                    std::cmp::Ordering::Equal if p != q => return p.cmp(q),
                    std::cmp::Ordering::Equal => {
                        i.next();
                        j.next();
                    }
                },
            }
        }
    })
}

impl From<i64> for Dim {
    fn from(value: i64) -> Self {
        Dim(Repr::Const(value))
    }
}

impl From<i32> for Dim {
    fn from(value: i32) -> Self {
        Dim::from(i64::from(value))
    }
}

impl From<usize> for Dim {
    fn from(value: usize) -> Self {
        i64::try_from(value).map_or(Dim::OVERFLOW, Dim::from)
    }
}

impl std::ops::Add for &Dim {
    type Output = Dim;
    fn add(self, other: &Dim) -> Dim {
        self.combine(other, 1)
    }
}

impl std::ops::Sub for &Dim {
    type Output = Dim;
    fn sub(self, other: &Dim) -> Dim {
        self.combine(other, -1)
    }
}

impl std::ops::Mul for &Dim {
    type Output = Dim;
    fn mul(self, other: &Dim) -> Dim {
        self.multiply(other)
    }
}

/// The product of all dimensions (1 for none).
pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
    dims.into_iter().fold(Dim::ONE, |a, d| &a * d)
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Const(c) => write!(f, "{c}"),
            Repr::Overflow => f.write_str("overflow"),
            Repr::Poly(p) => {
                // The constant term sorts first; a reader expects it last.
                let (constant, rest): (Vec<_>, Vec<_>) = p.iter().partition(|(m, _)| m.is_empty());
                for (i, (m, c)) in rest.into_iter().chain(constant).enumerate() {
                    match (i, *c < 0) {
                        (0, false) => {}
                        (0, true) => f.write_str("-")?,
                        (_, false) => f.write_str(" + ")?,
                        (_, true) => f.write_str(" - ")?,
                    }
                    fmt_term(f, m, c.unsigned_abs())?;
                }
                Ok(())
            }
        }
    }
}

fn fmt_term(f: &mut fmt::Formatter<'_>, m: &Monomial, c: u64) -> fmt::Result {
    if m.is_empty() {
        return write!(f, "{c}");
    }
    if c != 1 {
        write!(f, "{c}*")?;
    }
    let mut first = true;
    for (atom, power) in m {
        for _ in 0..*power {
            if !first {
                f.write_str("*")?;
            }
            first = false;
            match atom {
                Atom::Symbol(s) => f.write_str(s.name())?,
                Atom::FloorDiv(a, b) => write!(f, "floordiv({a}, {b})")?,
                Atom::Min(a, b) => write!(f, "min({a}, {b})")?,
                Atom::Max(a, b) => write!(f, "max({a}, {b})")?,
            }
        }
    }
    Ok(())
}

/// Nesting of one dimension expression in text, at most.
const MAX_PARSE_DEPTH: usize = 64;

impl std::str::FromStr for Dim {
    type Err = String;

    /// Reads what `Display` writes: `+ - *`, parentheses, `floordiv(a, b)`, `mod(a, b)`, `min(a, b)`, `max(a, b)`.
    fn from_str(text: &str) -> Result<Dim, String> {
        let mut parser = DimParser { text, pos: 0 };
        let dim = parser.sum(0)?;
        parser.skip_space();
        if parser.pos != text.len() {
            return Err(format!("unexpected '{}' in dimension '{text}'", &text[parser.pos..]));
        }
        Ok(dim)
    }
}

struct DimParser<'a> {
    text: &'a str,
    pos: usize,
}

impl DimParser<'_> {
    fn skip_space(&mut self) {
        while self.text[self.pos..].starts_with(' ') {
            self.pos += 1;
        }
    }

    fn eat(&mut self, c: char) -> bool {
        self.skip_space();
        let hit = self.text[self.pos..].starts_with(c);
        if hit {
            self.pos += c.len_utf8();
        }
        hit
    }

    fn sum(&mut self, depth: usize) -> Result<Dim, String> {
        if depth > MAX_PARSE_DEPTH {
            return Err("dimension is nested too deeply".into());
        }
        let negative = self.eat('-');
        let mut acc = self.product(depth, negative)?;
        loop {
            if self.eat('+') {
                acc = &acc + &self.product(depth, false)?;
            } else if self.eat('-') {
                acc = &acc + &self.product(depth, true)?;
            } else {
                return Ok(acc);
            }
        }
    }

    /// A product with its sign, which belongs to its first number: `i64::MIN` has no positive counterpart.
    fn product(&mut self, depth: usize, negative: bool) -> Result<Dim, String> {
        self.skip_space();
        let first_is_number = self.text[self.pos..].starts_with(|c: char| c.is_ascii_digit());
        let mut acc = match (negative, first_is_number) {
            (true, true) => self.primary(depth, "-")?,
            (true, false) => &Dim::ZERO - &self.primary(depth, "")?,
            (false, _) => self.primary(depth, "")?,
        };
        while self.eat('*') {
            acc = &acc * &self.primary(depth, "")?;
        }
        Ok(acc)
    }

    /// A number with this sign, a symbol, a function or something in parentheses.
    fn primary(&mut self, depth: usize, sign: &str) -> Result<Dim, String> {
        if self.eat('(') {
            let inner = self.sum(depth + 1)?;
            return if self.eat(')') { Ok(inner) } else { Err("missing ')' in dimension".into()) };
        }
        let start = self.pos;
        let rest = &self.text[start..];
        let end = rest
            .char_indices()
            .find(|(_, c)| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '$' | ':' | '[' | ']')))
            .map_or(rest.len(), |(i, _)| i);
        let word = &rest[..end];
        self.pos += end;
        if word.is_empty() {
            return Err(format!("expected a number or a symbol at '{rest}' in dimension '{}'", self.text));
        }
        if word.as_bytes()[0].is_ascii_digit() {
            return format!("{sign}{word}")
                .parse::<i64>()
                .map(Dim::from)
                .map_err(|_| format!("bad number '{word}' in dimension"));
        }
        if word == "overflow" {
            return Ok(Dim::OVERFLOW);
        }
        if !matches!(word, "floordiv" | "mod" | "min" | "max") || !self.eat('(') {
            return Ok(Dim::symbol(word));
        }
        let a = self.sum(depth + 1)?;
        if !self.eat(',') {
            return Err(format!("'{word}' takes two operands"));
        }
        let b = self.sum(depth + 1)?;
        if !self.eat(')') {
            return Err("missing ')' in dimension".into());
        }
        Ok(match word {
            "floordiv" => a.floor_div(&b),
            "mod" => a.modulo(&b),
            "min" => a.min_of(&b),
            _ => a.max_of(&b),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(text: &str) -> Dim {
        text.parse().expect(text)
    }

    #[test]
    fn canonical_form_makes_equality_structural() {
        assert_eq!(d("(s0 + 1)*(s0 - 1)"), d("s0*s0 - 1"));
        assert_eq!(d("s0 + s1 - s0"), d("s1"));
        assert_eq!(d("2*s0 - 2*s0 + 3"), Dim::from(3));
    }

    #[test]
    fn floor_division() {
        assert_eq!(d("floordiv(4*s0 + 5, 2)"), d("2*s0 + 2"));
        assert_eq!(d("floordiv(s0*s1*48, s0*s1)"), Dim::from(48));
        assert_eq!(d("floordiv((s0 + 1)*8, s0 + 1)"), Dim::from(8));
        assert_eq!(d("mod(s0*6, 3)"), Dim::ZERO);
        assert_eq!(d("floordiv(s0 + 1, 2)").to_string(), "floordiv(s0 + 1, 2)");
        assert_eq!(d("floordiv(0 - 7, 2)"), Dim::from(-4));
        assert!(d("floordiv(s0, 0)").is_overflow());
    }

    #[test]
    fn text_round_trips() {
        for text in
            ["s0", "2*s0*s1 - 3", "floordiv(s0 + 1, 2) + 4", "min(s0, s1)", "max(2*s0, s1) + 1", "-s0 + 7"]
        {
            assert_eq!(d(text), d(&d(text).to_string()), "{text}");
        }
        for text in ["-9223372036854775808", "s0 - 9223372036854775808", "-9223372036854775808*s0"] {
            assert_eq!(d(text).to_string(), text);
        }
        assert!("s0 +".parse::<Dim>().is_err());
        assert!("(".repeat(10_000).parse::<Dim>().is_err());
    }

    #[test]
    fn overflow_is_absorbing_and_never_panics() {
        let big = Dim::from(i64::MAX);
        assert!((&big + &Dim::ONE).is_overflow());
        assert!((&(&big * &Dim::symbol("s")) * &Dim::from(2)).is_overflow());
        assert!((&Dim::OVERFLOW - &Dim::OVERFLOW).is_overflow());
        let mut power = Dim::symbol("s");
        (0..100).for_each(|_| power = &power * &power);
        assert!(power.is_overflow());
        let mut nested = Dim::symbol("s");
        (0..2000).for_each(|_| nested = (&nested + &Dim::ONE).floor_div(&Dim::from(2)));
        assert!(nested.is_overflow());
        assert!(Dim::from(i64::MIN).floor_div(&Dim::from(-1)).is_overflow());
    }

    #[test]
    fn bounds_prove_inequalities() {
        let mut t = SymbolTable::default();
        t.0.insert(Symbol::new("s0"), SymbolInfo { min: 2, max: Some(10), divisor: 1 });
        assert_eq!(d("3*s0 - 1").bounds(&t), (Some(5), Some(29)));
        assert!(d("s0 + s1").provably_ge(&d("s0"), &t));
        assert!(!d("s0").provably_ge(&d("s1"), &t));
    }

    #[test]
    fn evaluation_and_substitution() {
        let e = d("floordiv(s0 + 1, 2)*s1");
        let v = |s: &Symbol| match s.name() {
            "s0" => Some(6),
            "s1" => Some(5),
            _ => None,
        };
        assert_eq!(e.eval(&v), Some(15));
        assert_eq!(e.substitute(&|s| v(s).map(Dim::from)), Dim::from(15));
        assert_eq!(d("q").eval(&v), None);
    }
}
