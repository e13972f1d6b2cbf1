//! Linear forms over loop variables: how positions are written down.
//!
//! A position is Σ coefficient · atom + constant, the coefficients being symbolic sizes. Remainders are written with
//! quotients (`a mod c = a − c·⌊a/c⌋`), so that taking a linear position apart and putting it together again cancels.

use crate::dag::{Bin, Cmp, Dag, Id};
use djinn_ir::{Dim, SymbolTable};

/// Number of an atom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AtomId(pub(crate) u32);

/// What an atom is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum AtomKind {
    /// A loop's variable.
    Var(u32),
    /// The floor of a quotient.
    Quotient(Affine, Dim),
    /// A computed number.
    Value(Id),
}

/// A factor of linear forms.
#[derive(Debug, Clone)]
pub(crate) struct Atom {
    pub(crate) kind: AtomKind,
    /// If known, the atom lies in 0 ≤ atom < extent wherever it is used.
    pub(crate) extent: Option<Dim>,
}

/// A linear form: terms sorted by atom, no coefficient zero.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Affine {
    pub(crate) terms: Vec<(AtomId, Dim)>,
    pub(crate) constant: Dim,
}

impl Affine {
    pub(crate) fn constant(value: Dim) -> Affine {
        Affine { terms: Vec::new(), constant: value }
    }

    pub(crate) fn zero() -> Affine {
        Affine::constant(Dim::ZERO)
    }

    pub(crate) fn atom(atom: AtomId) -> Affine {
        Affine { terms: vec![(atom, Dim::ONE)], constant: Dim::ZERO }
    }

    pub(crate) fn add(&self, other: &Affine) -> Affine {
        let mut terms = self.terms.clone();
        for (atom, c) in &other.terms {
            match terms.binary_search_by_key(atom, |t| t.0) {
                Ok(at) => terms[at].1 = &terms[at].1 + c,
                Err(at) => terms.insert(at, (*atom, c.clone())),
            }
        }
        terms.retain(|(_, c)| !c.is(0));
        Affine { terms, constant: &self.constant + &other.constant }
    }

    pub(crate) fn scale(&self, by: &Dim) -> Affine {
        if by.is(0) {
            return Affine::zero();
        }
        let terms = self.terms.iter().map(|(a, c)| (*a, c * by)).collect();
        Affine { terms, constant: &self.constant * by }
    }

    pub(crate) fn sub(&self, other: &Affine) -> Affine {
        self.add(&other.scale(&Dim::from(-1)))
    }

    pub(crate) fn plus(&self, by: &Dim) -> Affine {
        Affine { terms: self.terms.clone(), constant: &self.constant + by }
    }
}

/// Row-major strides of a shape.
pub(crate) fn strides(shape: &[Dim]) -> Vec<Dim> {
    let mut out = vec![Dim::ONE; shape.len()];
    for i in (0..shape.len().saturating_sub(1)).rev() {
        out[i] = &out[i + 1] * &shape[i + 1];
    }
    out
}

/// The row-major position of an index.
pub(crate) fn linear(index: &[Affine], shape: &[Dim]) -> Affine {
    let mut out = Affine::zero();
    for (i, step) in index.iter().zip(strides(shape)) {
        out = out.add(&i.scale(&step));
    }
    out
}

/// The index of a row-major position.
pub(crate) fn delinear(dag: &mut Dag, position: &Affine, shape: &[Dim]) -> Vec<Affine> {
    let mut rest = position.clone();
    let steps = strides(shape);
    let mut out = Vec::with_capacity(shape.len());
    for (axis, step) in steps.iter().enumerate() {
        if shape[axis].is(1) {
            out.push(Affine::zero());
            continue;
        }
        let last = shape[axis + 1..].iter().all(|d| d.is(1));
        let quotient = if last { rest.clone() } else { dag.quotient(&rest, step) };
        rest = rest.sub(&quotient.scale(step));
        out.push(quotient);
    }
    out
}

fn nonneg(dim: &Dim) -> bool {
    dim.provably_ge(&Dim::ZERO, &SymbolTable::default())
}

impl Dag {
    fn extent(&self, atom: AtomId) -> Option<&Dim> {
        self.atoms[atom.0 as usize].extent.as_ref()
    }

    /// A lower bound (`upper` false) or an upper bound of the form.
    fn bound(&self, a: &Affine, upper: bool) -> Option<Dim> {
        let mut total = a.constant.clone();
        for (atom, c) in &a.terms {
            let extent = self.extent(*atom)?;
            let positive = nonneg(c);
            if !positive && !nonneg(&(&Dim::ZERO - c)) {
                return None;
            }
            if positive == upper {
                total = &total + &(c * &(extent - &Dim::ONE));
            }
        }
        Some(total)
    }

    /// Is the form surely at least 0?
    pub(crate) fn is_nonneg(&self, a: &Affine) -> bool {
        self.bound(a, false).is_some_and(|b| nonneg(&b))
    }

    /// Is the form surely below `limit`?
    pub(crate) fn is_below(&self, a: &Affine, limit: &Dim) -> bool {
        self.bound(a, true).is_some_and(|b| nonneg(&(&(limit - &b) - &Dim::ONE)))
    }

    /// ⌊a / divisor⌋ for a divisor of at least 1.
    pub(crate) fn quotient(&mut self, a: &Affine, divisor: &Dim) -> Affine {
        if divisor.is(1) {
            return a.clone();
        }
        let (mut whole, mut rest) = (Affine::zero(), Affine::zero());
        for (atom, c) in &a.terms {
            let term = |c: Dim| Affine { terms: vec![(*atom, c)], constant: Dim::ZERO };
            match c.exact_div(divisor) {
                Some(q) => whole = whole.add(&term(q)),
                None => rest = rest.add(&term(c.clone())),
            }
        }
        match (a.constant.as_const(), divisor.as_const(), a.constant.exact_div(divisor)) {
            (_, _, Some(q)) => whole = whole.plus(&q),
            (Some(c), Some(d), None) if d > 0 => {
                whole = whole.plus(&Dim::from(c.div_euclid(d)));
                rest = rest.plus(&Dim::from(c.rem_euclid(d)));
            }
            _ => rest = rest.plus(&a.constant),
        }
        if self.is_nonneg(&rest) && self.is_below(&rest, divisor) {
            return whole;
        }
        self.ask_for_splits(&rest, divisor);
        let extent = self.bound(&rest, true).filter(|_| self.is_nonneg(&rest));
        let extent = extent.map(|e| &e.floor_div(divisor) + &Dim::ONE);
        let atom = self.atom(AtomKind::Quotient(rest, divisor.clone()), extent);
        whole.add(&Affine::atom(atom))
    }

    /// Notes loops whose splitting would make a quotient a variable.
    fn ask_for_splits(&mut self, rest: &Affine, divisor: &Dim) {
        for (atom, c) in &rest.terms {
            let AtomKind::Var(_) = self.atoms[atom.0 as usize].kind else { continue };
            let factor = divisor.exact_div(c).filter(|f| !f.is(1));
            let extent = self.atoms[atom.0 as usize].extent.clone();
            let (Some(factor), Some(extent)) = (factor, extent) else { continue };
            if extent.exact_div(&factor).is_some_and(|n| !n.is(1)) {
                self.splits.push((*atom, factor));
            }
        }
    }

    /// The number that a form stands for.
    pub(crate) fn index(&mut self, a: &Affine) -> Id {
        self.forms.push(a.clone());
        let mut total = None;
        for (atom, c) in &a.terms {
            let value = self.atom_value(*atom);
            let factor = self.size(c);
            let term = self.bin(Bin::Mul, value, factor);
            total = Some(match total {
                None => term,
                Some(sum) => self.bin(Bin::Add, sum, term),
            });
        }
        let constant = self.size(&a.constant);
        match total {
            None => constant,
            Some(sum) => self.bin(Bin::Add, sum, constant),
        }
    }

    fn atom_value(&mut self, atom: AtomId) -> Id {
        match self.atoms[atom.0 as usize].kind.clone() {
            AtomKind::Var(_) => self.var(atom),
            AtomKind::Value(id) => id,
            AtomKind::Quotient(a, divisor) => {
                let never_negative = self.is_nonneg(&a);
                let (a, mut d) = (self.index(&a), self.size(&divisor));
                if self.as_int(d).is_none_or(|d| d < 1) {
                    // No loop runs over an axis without elements, but a hoisted quotient may be computed.
                    let one = self.int(crate::dag::Ty::I64, 1);
                    d = self.bin(Bin::MaxS, d, one);
                }
                self.floor_div(a, d, never_negative)
            }
        }
    }

    /// ⌊a / d⌋ for d ≥ 1.
    pub(crate) fn floor_div(&mut self, a: Id, d: Id, never_negative: bool) -> Id {
        let quotient = self.bin(Bin::DivS, a, d);
        if never_negative {
            return quotient;
        }
        let back = self.bin(Bin::Mul, quotient, d);
        let too_large = self.cmp(Cmp::SGt, back, a);
        let one = self.int(crate::dag::Ty::I64, 1);
        let below = self.bin(Bin::Sub, quotient, one);
        self.select(too_large, below, quotient)
    }

    /// A computed number as a linear form; it lies in 0 ≤ value < extent if an extent is given.
    pub(crate) fn computed(&mut self, id: Id, extent: Option<Dim>) -> Affine {
        match self.as_int(id) {
            Some(c) => Affine::constant(Dim::from(c)),
            None => Affine::atom(self.atom(AtomKind::Value(id), extent)),
        }
    }

    /// Whether 0 ≤ a < size; `None` if that is sure.
    pub(crate) fn inside(&mut self, a: &Affine, size: &Dim) -> Option<Id> {
        let low = (!self.is_nonneg(a)).then(|| {
            let (value, zero) = (self.index(a), self.int(crate::dag::Ty::I64, 0));
            self.cmp(Cmp::SGe, value, zero)
        });
        let high = (!self.is_below(a, size)).then(|| {
            let (value, size) = (self.index(a), self.size(size));
            self.cmp(Cmp::SLt, value, size)
        });
        self.both(low, high)
    }
}
