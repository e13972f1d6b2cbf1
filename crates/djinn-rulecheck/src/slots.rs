//! What the variables of a rule stand for in one instance: examples with their letters replaced by sizes.

use crate::rng::Rng;
use djinn_egraph::rule::{Example, Given, Rule, Var};
use djinn_ir::attr::AttrKind;
use djinn_ir::{Attr, DType, Dim, Symbol};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Where the elements of a tensor come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Role {
    /// The caller, at run time.
    Input,
    /// The weight table.
    Weight,
    /// The weight table; every element is positive.
    Positive,
    /// A literal with this value everywhere.
    Splat(f64),
    /// A literal with differing elements.
    Varied,
    /// A literal with differing elements, but for both halves of the last axis, which are equal.
    Halved,
    /// A literal with differing elements, but for elements 2i and 2i + 1 of the last axis, which are equal.
    Paired,
}

/// A tensor that a variable stands for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    /// Where its elements come from.
    pub(crate) role: Role,
    /// Element type.
    pub(crate) dtype: DType,
    /// Sizes; symbolic only in symbolic instances.
    pub(crate) shape: Vec<Dim>,
}

/// What one variable stands for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Slot {
    /// A tensor.
    Tensor(Tensor),
    /// An attribute.
    Attr(Attr),
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |items: Vec<String>| format!("({})", items.join(" "));
        match self {
            Slot::Tensor(t) => {
                let shape = list(t.shape.iter().map(ToString::to_string).collect());
                write!(f, "{:?} {} {shape}", t.role, t.dtype)
            }
            Slot::Attr(Attr::Ints(l)) => f.write_str(&list(l.iter().map(ToString::to_string).collect())),
            Slot::Attr(Attr::Dims(l)) => f.write_str(&list(l.iter().map(ToString::to_string).collect())),
            Slot::Attr(Attr::Float(v)) => write!(f, "{:?}", v.get()),
            Slot::Attr(Attr::Int(i)) => write!(f, "{i}"),
            Slot::Attr(Attr::Str(s)) => write!(f, "{s}"),
            Slot::Attr(Attr::DType(d)) => write!(f, "{d}"),
            Slot::Attr(other) => write!(f, "{other:?}"),
        }
    }
}

/// What all variables stand for; list variables have several slots.
pub(crate) type Slots = BTreeMap<Var, Vec<Slot>>;

/// The shape in which numbers of a pattern become constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum NumberStyle {
    /// Rank 0 where the operation takes it.
    Scalar,
    /// Shape [1].
    One,
    /// The shape of the operation's first other operand.
    Full,
    /// The shape of the first other operand with one more axis of size 2 in front.
    Wider,
    /// Rank 0, and zeros are negative.
    NegativeZero,
}

/// Everything that decides an instance but for the random elements.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    /// One entry for a plain rule, one for each member of a sibling rule.
    pub(crate) members: Vec<Slots>,
    /// How numbers become constants.
    pub(crate) numbers: NumberStyle,
    /// Sizes of the letters that stay symbolic in the types.
    pub(crate) symbols: BTreeMap<Symbol, i64>,
}

/// The slots of an example, letters still symbolic.
pub(crate) fn slots_of(example: &Example) -> Slots {
    let slot = |g: &Given| match g {
        Given::Input(d, s) => Slot::Tensor(Tensor { role: Role::Input, dtype: *d, shape: s.clone() }),
        Given::Weight(d, s) => Slot::Tensor(Tensor { role: Role::Weight, dtype: *d, shape: s.clone() }),
        Given::Positive(d, s) => Slot::Tensor(Tensor { role: Role::Positive, dtype: *d, shape: s.clone() }),
        Given::Const(d, s, v) => Slot::Tensor(Tensor { role: Role::Splat(*v), dtype: *d, shape: s.clone() }),
        Given::Attr(a) => Slot::Attr(a.clone()),
    };
    example.iter().map(|(v, givens)| (*v, givens.iter().map(slot).collect())).collect()
}

/// Calls `f` on every size in the slots.
pub(crate) fn visit_dims(slots: &mut Slots, f: &mut dyn FnMut(&mut Dim)) {
    for slot in slots.values_mut().flatten() {
        match slot {
            Slot::Tensor(t) => t.shape.iter_mut().for_each(&mut *f),
            Slot::Attr(Attr::Dims(dims)) => dims.iter_mut().for_each(&mut *f),
            Slot::Attr(Attr::Dim(d)) => f(d),
            Slot::Attr(_) => {}
        }
    }
}

/// Calls `f` on every element type in the slots.
pub(crate) fn visit_dtypes(slots: &mut Slots, f: &mut dyn FnMut(&mut DType)) {
    for slot in slots.values_mut().flatten() {
        match slot {
            Slot::Tensor(t) => f(&mut t.dtype),
            Slot::Attr(Attr::DType(d)) => f(d),
            Slot::Attr(_) => {}
        }
    }
}

/// The letters of some slots.
pub(crate) fn letters(slots: &Slots) -> BTreeSet<Symbol> {
    let mut out = BTreeSet::new();
    visit_dims(&mut slots.clone(), &mut |d| {
        d.visit_symbols(&mut |s| {
            out.insert(s.clone());
        });
    });
    out
}

/// Replaces letters by sizes; letters without a size stay.
pub(crate) fn substitute(slots: &mut Slots, sizes: &BTreeMap<Symbol, i64>) {
    visit_dims(slots, &mut |d| *d = d.substitute(&|s| sizes.get(s).map(|v| Dim::from(*v))));
}

/// How the letters of an example get their sizes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Plan {
    /// Distinct primes.
    Distinct,
    /// Each from 1, 2, 3, 5, 7.
    Random,
    /// Distinct primes, but this letter (by number) has this size.
    One(usize, i64),
    /// All the same.
    All(i64),
}

const PRIMES: [i64; 8] = [3, 2, 5, 7, 4, 6, 9, 11];

impl Plan {
    fn size(&self, index: usize, rng: &mut Rng) -> i64 {
        let prime = PRIMES[index % PRIMES.len()];
        match self {
            Plan::Distinct => prime,
            Plan::Random => rng.pick(&[1, 2, 3, 5, 7]),
            Plan::One(i, size) => {
                if *i == index {
                    *size
                } else {
                    prime
                }
            }
            Plan::All(size) => *size,
        }
    }

    /// Makes the letters of an example concrete; `count` members for sibling rules.
    pub(crate) fn frame(&self, rule: &Rule, example: &Example, count: usize, rng: &mut Rng) -> Frame {
        let slots = slots_of(example);
        let all = letters(&slots);
        let of_shared: Slots =
            slots.iter().filter(|(v, _)| Some(**v) == rule.shared).map(|(v, s)| (*v, s.clone())).collect();
        let common = letters(&of_shared);
        let sizes: BTreeMap<Symbol, i64> =
            all.iter().enumerate().map(|(i, s)| (s.clone(), self.size(i, rng))).collect();
        let count = if rule.shared.is_some() { count.max(2) } else { 1 };
        let members = (0..count).map(|m| {
            let mut own = sizes.clone();
            if m > 0 {
                for (i, s) in all.iter().enumerate().filter(|(_, s)| !common.contains(s)) {
                    own.insert(s.clone(), self.size(i + m, rng));
                }
            }
            let mut slots = slots.clone();
            substitute(&mut slots, &own);
            slots
        });
        Frame { members: members.collect(), numbers: NumberStyle::Scalar, symbols: BTreeMap::new() }
    }

    /// As [`Plan::frame`], but letters stay symbolic where the type of no weight or literal has them.
    pub(crate) fn symbolic_frame(&self, rule: &Rule, example: &Example, rng: &mut Rng) -> Frame {
        let slots = slots_of(example);
        let fixed: Slots = slots
            .iter()
            .map(|(v, list)| {
                let constant = |s: &&Slot| matches!(s, Slot::Tensor(t) if t.role != Role::Input);
                (*v, list.iter().filter(constant).cloned().collect())
            })
            .collect();
        let fixed = letters(&fixed);
        let mut frame = Frame { members: Vec::new(), numbers: NumberStyle::Scalar, symbols: BTreeMap::new() };
        let mut constants = BTreeMap::new();
        for (i, s) in letters(&slots).into_iter().enumerate() {
            let size = self.size(i, rng);
            if fixed.contains(&s) {
                constants.insert(s, size)
            } else {
                frame.symbols.insert(s, size)
            };
        }
        let mut slots = slots;
        substitute(&mut slots, &constants);
        frame.members = vec![slots; if rule.shared.is_some() { 2 } else { 1 }];
        frame
    }
}

/// The attribute as the kind that an operation needs: examples write sizes, integers and lists of them alike.
pub(crate) fn coerce(attr: &Attr, kind: AttrKind) -> Attr {
    match (kind, attr) {
        (AttrKind::Dim, Attr::Int(i)) => Attr::Dim(Dim::from(*i)),
        (AttrKind::Dim, Attr::Dims(l)) if l.len() == 1 => Attr::Dim(l[0].clone()),
        (AttrKind::Int, Attr::Dim(d)) => d.as_const().map_or_else(|| attr.clone(), Attr::Int),
        (AttrKind::Int, Attr::Dims(l)) if l.len() == 1 => coerce(&Attr::Dim(l[0].clone()), kind),
        (AttrKind::Float, Attr::Int(i)) => Attr::from(*i as f64),
        (AttrKind::Dims, Attr::Ints(l)) => Attr::Dims(l.iter().map(|i| Dim::from(*i)).collect()),
        (AttrKind::Ints, Attr::Dims(l)) => {
            let consts: Option<Vec<i64>> = l.iter().map(Dim::as_const).collect();
            consts.map_or_else(|| attr.clone(), Attr::Ints)
        }
        _ => attr.clone(),
    }
}
