//! Perturbed examples: instances near an example, many of which violate one or two side conditions.
//!
//! A rule must be right on every one of them on which it applies; a mutant that lost a condition is found out
//! by those on which the condition does not hold.

use crate::case::{Case, replace_dtype};
use crate::rng::Rng;
use crate::slots::{Frame, NumberStyle, Plan, Role, Slot, Slots, visit_dims};
use crate::values::Profile;
use djinn_egraph::rule::{Rule, Var};
use djinn_ir::ops::PREDICATES;
use djinn_ir::{Attr, DType, Dim, Symbol};
use std::collections::BTreeSet;

/// Where sizes change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// In the shapes of tensors and in lists of sizes and integers.
    Sizes,
    /// There, and in single integers.
    Everywhere,
    /// In attributes only.
    Attributes,
    /// In the shapes of tensors only.
    Tensors,
}

/// One change of a frame.
#[derive(Debug, Clone)]
enum Change {
    /// This slot of this variable becomes that, in the first member only or in all.
    Slot(Var, usize, Slot, bool),
    /// A list variable loses its last slot.
    Shorter(Var),
    /// Numbers become constants of another shape.
    Numbers(NumberStyle),
    /// Every size equal to the first becomes the second.
    Sizes(i64, i64, Scope),
    /// One entry of one list of integers or sizes grows by one, the same entry of another one shrinks.
    Opposite(Var, Var, usize),
    /// Every size equal to the first becomes a symbol with the second as its value.
    Symbolic(i64, i64),
    /// Every tensor and list of sizes gets one more axis of this size in front.
    Axis(i64),
    /// An element type becomes another everywhere.
    DType(DType, DType),
}

impl Change {
    /// The change in words.
    fn describe(&self, rule: &Rule) -> String {
        let name = |v: &Var| format!("?{}", rule.variables[*v]);
        match self {
            Change::Slot(v, _, slot, true) => format!("{} = {slot}", name(v)),
            Change::Slot(v, _, slot, false) => format!("{} = {slot} in one member", name(v)),
            Change::Shorter(v) => format!("{} one shorter", name(v)),
            Change::Numbers(style) => format!("numbers {style:?}"),
            Change::Sizes(from, to, scope) => format!("{to} for {from} ({scope:?})"),
            Change::Opposite(v, w, at) => format!("entry {at} of {} up, of {} down", name(v), name(w)),
            Change::Symbolic(from, to) => format!("a symbol of value {to} for {from}"),
            Change::Axis(size) => format!("one more axis of {size}"),
            Change::DType(from, to) => format!("{to} for {from}"),
        }
    }
}

fn apply(frame: &Frame, change: &Change) -> Frame {
    let mut out = frame.clone();
    match change {
        Change::Slot(v, k, slot, all) => {
            let count = if *all { out.members.len() } else { 1 };
            for slots in out.members.iter_mut().take(count) {
                if let Some(s) = slots.get_mut(v).and_then(|l| l.get_mut(*k)) {
                    *s = slot.clone();
                }
            }
        }
        Change::Shorter(v) => out.members.iter_mut().for_each(|m| {
            m.get_mut(v).and_then(Vec::pop);
        }),
        Change::Numbers(style) => out.numbers = *style,
        Change::Sizes(from, to, scope) => {
            out.members
                .iter_mut()
                .flat_map(|m| m.values_mut().flatten())
                .for_each(|s| resize(s, *from, *to, *scope));
        }
        Change::Opposite(v, w, at) => out.members.iter_mut().for_each(|m| {
            shift(m, *v, *at, 1);
            shift(m, *w, *at, -1);
        }),
        Change::Symbolic(from, to) => {
            let name = format!("z{from}");
            let symbol = Symbol::new(&name);
            out.members.iter_mut().for_each(|m| {
                visit_dims(m, &mut |d| {
                    if d.is(*from) {
                        *d = Dim::symbol(&name);
                    }
                });
            });
            out.symbols.insert(symbol, *to);
        }
        Change::Axis(size) => out.members.iter_mut().for_each(|m| add_axis(m, *size)),
        Change::DType(from, to) => replace_dtype(&mut out, *from, *to),
    }
    out
}

fn resize(slot: &mut Slot, from: i64, to: i64, scope: Scope) {
    let (old, new) = (Dim::from(from), Dim::from(to));
    match slot {
        Slot::Tensor(t) if scope != Scope::Attributes => {
            t.shape.iter_mut().filter(|d| **d == old).for_each(|d| *d = new.clone());
        }
        Slot::Attr(_) if scope == Scope::Tensors => {}
        Slot::Attr(Attr::Dims(l)) => l.iter_mut().filter(|d| **d == old).for_each(|d| *d = new.clone()),
        Slot::Attr(Attr::Ints(l)) => l.iter_mut().filter(|i| **i == from).for_each(|i| *i = to),
        Slot::Attr(Attr::Int(i)) if scope == Scope::Everywhere && *i == from => *i = to,
        Slot::Tensor(_) | Slot::Attr(_) => {}
    }
}

/// Length of a list attribute, 0 for anything else.
fn list_length(slot: &Slot) -> usize {
    match slot {
        Slot::Attr(Attr::Ints(l)) => l.len(),
        Slot::Attr(Attr::Dims(l)) => l.len(),
        Slot::Tensor(_) | Slot::Attr(_) => 0,
    }
}

/// Adds to one entry of a list attribute.
fn shift(slots: &mut Slots, v: Var, at: usize, by: i64) {
    match slots.get_mut(&v).and_then(|l| l.first_mut()) {
        Some(Slot::Attr(Attr::Ints(l))) => l.iter_mut().skip(at).take(1).for_each(|i| *i += by),
        Some(Slot::Attr(Attr::Dims(l))) => {
            l.iter_mut().skip(at).take(1).for_each(|d| *d = &*d + &Dim::from(by))
        }
        _ => {}
    }
}

fn add_axis(slots: &mut Slots, size: i64) {
    for slot in slots.values_mut().flatten() {
        match slot {
            Slot::Tensor(t) if !t.shape.is_empty() => t.shape.insert(0, Dim::from(size)),
            Slot::Attr(Attr::Dims(d)) => d.insert(0, Dim::from(size)),
            Slot::Tensor(_) | Slot::Attr(_) => {}
        }
    }
}

/// Shapes near a shape.
fn shapes_near(shape: &[Dim]) -> Vec<Vec<Dim>> {
    let mut out = Vec::new();
    for i in 0..shape.len() {
        for size in [Dim::ONE, &shape[i] + &Dim::ONE, &shape[i] * &Dim::from(2i64)] {
            let mut s = shape.to_vec();
            s[i] = size;
            out.push(s);
        }
        let mut shorter = shape.to_vec();
        shorter.remove(i);
        out.push(shorter);
    }
    for size in [1i64, 2] {
        for at in [0, shape.len()] {
            let mut s = shape.to_vec();
            s.insert(at, Dim::from(size));
            out.push(s);
        }
    }
    for i in 1..shape.len() {
        let mut swapped = shape.to_vec();
        swapped.swap(i - 1, i);
        out.push(swapped);
        let mut merged = shape.to_vec();
        let last = merged.remove(i);
        merged[i - 1] = &merged[i - 1] * &last;
        out.push(merged);
    }
    out.extend([
        Vec::new(),
        shape.iter().take(1).cloned().collect(),
        shape.iter().rev().take(1).cloned().collect(),
    ]);
    out
}

/// Roles near a role: other values of a literal. Sizes do not overflow, so integers stay small.
fn roles_near(role: Role, dtype: DType) -> Vec<Role> {
    match role {
        Role::Splat(_) if !dtype.is_float() => {
            let values = [0.0, 1.0, -1.0, 3.0, -3.0, 5.0].map(Role::Splat);
            values.into_iter().chain([Role::Varied, Role::Weight, Role::Input]).collect()
        }
        Role::Splat(v) => {
            let values = [
                0.0,
                -0.0,
                1.0,
                -1.0,
                2.5,
                3.0,
                -3.0,
                2.0 * v,
                v + 1.0,
                f64::NAN,
                f64::INFINITY,
                f64::NEG_INFINITY,
                1e-39,
                1e30,
            ];
            let mut out: Vec<Role> = values.into_iter().map(Role::Splat).collect();
            out.extend([Role::Varied, Role::Halved, Role::Paired, Role::Weight, Role::Input]);
            out
        }
        Role::Positive => vec![Role::Weight],
        Role::Weight => {
            vec![Role::Splat(f64::NEG_INFINITY), Role::Splat(f64::NAN), Role::Splat(2.0), Role::Input]
        }
        Role::Input | Role::Varied | Role::Halved | Role::Paired => Vec::new(),
    }
}

fn ints_near(list: &[i64]) -> Vec<Attr> {
    let mut out = Vec::new();
    for i in 0..list.len() {
        for by in [-1, 1] {
            let mut l = list.to_vec();
            l[i] += by;
            out.push(Attr::Ints(l));
        }
        let mut shorter = list.to_vec();
        shorter.remove(i);
        out.push(Attr::Ints(shorter));
        for j in 0..i {
            let mut l = list.to_vec();
            l.swap(i, j);
            out.push(Attr::Ints(l));
        }
    }
    for first in [0, list.first().map_or(0, |v| v - 1), 1] {
        let mut longer = list.to_vec();
        longer.insert(0, first);
        out.push(Attr::Ints(longer));
    }
    let mut rotated = list.to_vec();
    if !rotated.is_empty() {
        rotated.rotate_left(1);
        out.push(Attr::Ints(rotated.clone()));
        rotated.rotate_left(1);
        out.push(Attr::Ints(rotated));
    }
    out
}

fn attrs_near(attr: &Attr) -> Vec<Attr> {
    match attr {
        Attr::Int(i) => [i - 1, i + 1, i + 2, 0, 1].into_iter().map(Attr::Int).collect(),
        Attr::Float(v) => [1.5 * v.get(), 0.0, -1.0, 1.0].into_iter().map(Attr::from).collect(),
        Attr::Bool(b) => vec![Attr::Bool(!b)],
        Attr::Ints(l) => ints_near(l),
        Attr::Dims(l) => shapes_near(l).into_iter().map(Attr::Dims).collect(),
        Attr::DType(_) => {
            [DType::Bool, DType::I8, DType::I32, DType::I64, DType::F16, DType::F32, DType::F64]
                .into_iter()
                .map(Attr::DType)
                .collect()
        }
        Attr::Str(_) => PREDICATES.iter().chain(&["none", "tanh"]).map(|w| Attr::from(*w)).collect(),
        Attr::Dim(_) | Attr::Floats(_) | Attr::Types(_) | Attr::Tensor(_) => Vec::new(),
    }
}

fn slots_near(slot: &Slot) -> Vec<Slot> {
    let Slot::Tensor(t) = slot else {
        let Slot::Attr(a) = slot else { return Vec::new() };
        return attrs_near(a).into_iter().map(Slot::Attr).collect();
    };
    let mut out = Vec::new();
    for shape in shapes_near(&t.shape) {
        if matches!(t.role, Role::Splat(_)) {
            out.push(Slot::Tensor(crate::slots::Tensor {
                role: Role::Varied,
                shape: shape.clone(),
                ..t.clone()
            }));
        }
        out.push(Slot::Tensor(crate::slots::Tensor { shape, ..t.clone() }));
    }
    for role in roles_near(t.role, t.dtype) {
        out.push(Slot::Tensor(crate::slots::Tensor { role, ..t.clone() }));
    }
    out
}

/// All single changes of a frame.
fn changes(frame: &Frame) -> Vec<Change> {
    let mut out = Vec::new();
    let mut sizes = BTreeSet::new();
    let Some(first) = frame.members.first() else { return out };
    visit_dims(&mut first.clone(), &mut |d| sizes.extend(d.as_const()));
    for (v, list) in first {
        for (k, slot) in list.iter().enumerate() {
            for near in slots_near(slot) {
                if frame.members.len() > 1 {
                    out.push(Change::Slot(*v, k, near.clone(), false));
                }
                out.push(Change::Slot(*v, k, near, true));
            }
        }
        out.push(Change::Shorter(*v));
    }
    let lists = |v: &Var| first[v].first().map_or(0, list_length);
    for (v, w) in first.keys().flat_map(|v| first.keys().map(move |w| (*v, *w))) {
        if v != w && lists(&v) == lists(&w) {
            out.extend((0..lists(&v)).map(|at| Change::Opposite(v, w, at)));
        }
    }
    let styles = [NumberStyle::One, NumberStyle::Full, NumberStyle::Wider, NumberStyle::NegativeZero];
    out.extend(styles.map(Change::Numbers));
    for from in sizes {
        for to in [1, from + 1, 2 * from] {
            let scopes = [Scope::Sizes, Scope::Everywhere, Scope::Attributes, Scope::Tensors];
            out.extend(scopes.map(|scope| Change::Sizes(from, to, scope)));
        }
        out.extend([from, from + 1, from - 1, 1].map(|to| Change::Symbolic(from, to.max(0))));
    }
    out.extend([Change::Axis(1), Change::Axis(2)]);
    for float in [DType::F16, DType::F32, DType::F64] {
        out.extend([DType::I32, DType::I64, DType::Bool].map(|to| Change::DType(float, to)));
    }
    for int in [DType::I32, DType::I64, DType::Bool] {
        out.extend([DType::F32, DType::I8, DType::I32, DType::Bool].map(|to| Change::DType(int, to)));
    }
    out
}

/// How many random pairs of changes are tried around each base frame.
const PAIRS: usize = 150;

/// How many random walks are tried for one set of variables.
const WALKS: usize = 2400;

/// The frames around which a rule's examples are changed.
fn bases(rule: &Rule, seed: u64) -> Vec<(Frame, String)> {
    let mut out = Vec::new();
    for (e, example) in rule.examples.iter().enumerate() {
        for (plan, dtype) in
            [(Plan::Distinct, DType::F64), (Plan::All(4), DType::F64), (Plan::Distinct, DType::F32)]
        {
            let mut rng = Rng::new(seed, &format!("{} base {e} {plan:?} {dtype}", rule.name));
            let mut frame = plan.frame(rule, example, 2, &mut rng);
            replace_dtype(&mut frame, DType::F32, dtype);
            out.push((frame, format!("example {e}, {plan:?}, {dtype}")));
        }
        let mut rng = Rng::new(seed, &format!("{} symbolic base {e}", rule.name));
        let mut frame = Plan::Distinct.symbolic_frame(rule, example, &mut rng);
        if !frame.symbols.is_empty() {
            replace_dtype(&mut frame, DType::F32, DType::F64);
            out.push((frame, format!("example {e}, symbolic")));
        }
    }
    out
}

/// The well-typed perturbed cases of a rule.
pub(crate) fn perturbed_cases(rule: &Rule, seed: u64) -> Vec<Case> {
    let mut out = Vec::new();
    for (frame, place) in bases(rule, seed) {
        let mut rng = Rng::new(seed, &format!("{} near {place}", rule.name));
        let singles = changes(&frame);
        let mut combinations: Vec<Vec<&Change>> = singles.iter().map(|c| vec![c]).collect();
        for _ in 0..PAIRS {
            combinations.push(vec![&singles[rng.below(singles.len())], &singles[rng.below(singles.len())]]);
        }
        let mut tried: Vec<Frame> = vec![frame.clone()];
        for combination in combinations {
            let changed = combination.iter().fold(frame.clone(), |f, c| apply(&f, c));
            if tried.contains(&changed) {
                continue;
            }
            for profile in [Profile::Normal, Profile::Zeros, Profile::NonFinite] {
                let words: Vec<String> = combination.iter().map(|c| c.describe(rule)).collect();
                let label = format!("{place}, {profile:?}, with {}", words.join(" and "));
                let Ok(Some(case)) = Case::new(rule, &changed, profile, label, seed) else { break };
                out.push(case);
            }
            tried.push(changed);
        }
    }
    out
}

/// Calls `found` with cases at the end of short random walks from the examples, until it returns false. The walks
/// mostly change what these variables stand for, such as to violate a condition on them.
pub(crate) fn walked_cases(rule: &Rule, variables: &[Var], seed: u64, mut found: impl FnMut(Case) -> bool) {
    let bases = bases(rule, seed);
    for (frame, place) in &bases {
        let mut rng = Rng::new(seed, &format!("{} walks {variables:?} {place}", rule.name));
        let all: Vec<Change> =
            changes(frame).into_iter().filter(|c| !matches!(c, Change::Slot(..))).collect();
        for n in 0..WALKS / bases.len() {
            let mut changed = frame.clone();
            let profile = if n % 2 == 0 { Profile::Normal } else { Profile::Zeros };
            let mut label = format!("{place}, {profile:?}, walk {n} with");
            for _ in 0..=rng.below(4) {
                let Some(change) = step(&changed, &all, variables, &mut rng) else { continue };
                changed = apply(&changed, &change);
                label = format!("{label} {};", change.describe(rule));
            }
            if let Ok(Some(case)) = Case::new(rule, &changed, profile, label, seed)
                && !found(case)
            {
                return;
            }
        }
    }
}

/// One step of a random walk: a change of one variable, or one of `others`.
fn step(frame: &Frame, others: &[Change], variables: &[Var], rng: &mut Rng) -> Option<Change> {
    let slots = frame.members.first()?;
    if rng.below(5) == 0 {
        return others.get(rng.below(others.len())).cloned();
    }
    let given: Vec<Var> = slots.keys().copied().collect();
    let close: Vec<Var> = variables.iter().copied().filter(|v| slots.contains_key(v)).collect();
    let pool = if close.is_empty() || rng.below(3) == 0 { &given } else { &close };
    let v = *pool.get(rng.below(pool.len()))?;
    let k = rng.below(slots[&v].len());
    let near = slots_near(slots[&v].get(k)?);
    let slot = near.get(rng.below(near.len()))?.clone();
    Some(Change::Slot(v, k, slot, rng.below(2) == 0))
}
