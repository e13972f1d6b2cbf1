//! The closed list of functions and predicates that rules may use, and their evaluation.
//!
//! Sizes are symbolic: `=` on sizes means *provably* equal, `<=` means provably so for all values of the symbols.
//!
//! | call | value |
//! |---|---|
//! | `(rank ?x)` `(dim ?x i)` `(shape ?x)` `(numel ?x)` `(dtype ?x)` | facts of the type; `i` may be negative |
//! | `(+ a b …)` `(- a b)` `(* a b …)` `(/ a b)` | floats if any operand is one, else sizes (`/` is floor division) |
//! | `(min a b)` `(max a b)` `(sqrt a)` | |
//! | `(value ?c)` | the one value of all elements of a constant, as a float |
//! | `(size ?c)` | the one element of a known integer tensor, as a symbolic size |
//! | `(ints i …)` `(dims d …)` `(repeat v n)` | lists |
//! | `(nth l i)` `(len l)` `(drop l i)` `(insert l i v)` `(replace l i v)` `(take l n)` `(skip l n)` `(join l m)` | list operations; `i` may be negative |
//! | `(identity n)` `(swap n i j)` `(compose p q)` `(inverse p)` | permutations; `compose p q` is first `p`, then `q` |
//! | `(map-axes p axes)` `(find p i)` | operand axes that result axes come from (sorted); position of `i` in `p` |
//! | `(shift axes n)` | adds `n` to every entry |
//! | `(if c a b)` | |
//! | `(before e)` `(total e)` | sibling rules: sum of `e` over earlier members, over all members |
//!
//! Predicates: `= != < <= > >=`, `and`, `or`, `not`, `(same ?x ?y)` (one e-class), `(is ?x op)` (the e-class contains
//! such an operation), `(weight ?x)` (depends on weights only), `(const ?x)` (value known), `(splat ?x)` (value known
//! and one for all elements), `(scalar ?x)` (one element), `(float ?x)` `(int ?x)` `(bool ?x)`, `(broadcasts ?x l)`
//! (numpy broadcast of ?x against the shape `l` gives exactly `l`), `(divides a b)`, `(power-of-two v)`,
//! `(unit-axes-move p ?x)` (the permutation moves only axes of size 1), `(equal-halves ?x)` (both halves of the last
//! axis hold the same values, by construction), `(equal-pairs ?x)` (so do elements 2i and 2i + 1), `(near a b)` (relative difference at most 1e-5), `(fits d e)` (every
//! value of element type `d` is one of `e`), `(finite ?c)` (a constant without NaN and infinities).

use crate::language::{Facts, Graph};
use crate::rule::Var;
use crate::sexpr::{SExpr, error};
use djinn_diag::Result;
use djinn_ir::attr::AttrKind;
use djinn_ir::{Attr, Attrs, Dim, OpKind, SymbolTable, types};
use egg::Id;
use std::sync::Arc;

/// An expression over attributes, sizes and facts.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// A variable.
    Var(Var),
    /// A literal.
    Literal(Attr),
    /// A call of one of the functions or predicates.
    Call(Function, Vec<Expr>),
}

macro_rules! functions {
    ($($variant:ident $name:literal $min:literal $max:expr),* $(,)?) => {
        /// A function or predicate of the rule language; see the module's table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the module's table describes every function under its name")]
        pub enum Function { $($variant),* }

        /// Names and numbers of operands.
        pub const FUNCTIONS: &[(Function, &str, usize, usize)] = &[$((Function::$variant, $name, $min, $max)),*];
    };
}

const MANY: usize = usize::MAX;

functions! {
    Rank "rank" 1 1, Dim "dim" 2 2, Shape "shape" 1 1, Numel "numel" 1 1, DType "dtype" 1 1,
    Add "+" 2 MANY, Sub "-" 2 2, Mul "*" 2 MANY, Div "/" 2 2, Min "min" 2 2, Max "max" 2 2, Sqrt "sqrt" 1 1,
    Value "value" 1 1, Ints "ints" 0 MANY, Dims "dims" 0 MANY,
    Nth "nth" 2 2, Len "len" 1 1, Drop "drop" 2 2, Insert "insert" 3 3, Replace "replace" 3 3,
    Take "take" 2 2, Skip "skip" 2 2, Join "join" 2 2,
    Identity "identity" 1 1, Swap "swap" 3 3, Compose "compose" 2 2, Inverse "inverse" 1 1,
    MapAxes "map-axes" 2 2, Find "find" 2 2, Shift "shift" 2 2, If "if" 3 3, Before "before" 1 1, Total "total" 1 1,
    Eq "=" 2 2, Ne "!=" 2 2, Lt "<" 2 2, Le "<=" 2 2, Gt ">" 2 2, Ge ">=" 2 2,
    And "and" 1 MANY, Or "or" 1 MANY, Not "not" 1 1, Same "same" 2 2, Is "is" 2 2,
    Weight "weight" 1 1, Const "const" 1 1, Splat "splat" 1 1, Scalar "scalar" 1 1,
    Float "float" 1 1, Int "int" 1 1, Bool "bool" 1 1, Broadcasts "broadcasts" 2 2, Divides "divides" 2 2,
    PowerOfTwo "power-of-two" 1 1, UnitAxesMove "unit-axes-move" 2 2, EqualHalves "equal-halves" 1 1, EqualPairs "equal-pairs" 1 1,
    Finite "finite" 1 1, Near "near" 2 2, Fits "fits" 2 2, Repeat "repeat" 2 2, Size "size" 1 1,
}

/// Parses an expression; `lookup` gives the index of a variable.
///
/// # Errors
/// Unknown functions and wrong numbers of operands.
pub fn parse_expr(e: &SExpr, lookup: &mut dyn FnMut(&str) -> Var) -> Result<Expr> {
    match e {
        SExpr::Text(_, line) => Err(error(*line, "text in an expression")),
        SExpr::Atom(a, _) => {
            if let Some(v) = a.strip_prefix('?') {
                return Ok(Expr::Var(lookup(v.strip_suffix("...").unwrap_or(v))));
            }
            Ok(Expr::Literal(match a.as_str() {
                "true" => Attr::Bool(true),
                "false" => Attr::Bool(false),
                _ => match (a.parse::<i64>(), crate::rule::parse_number(a)) {
                    (Ok(i), _) => Attr::Int(i),
                    (_, Some(f)) => Attr::Float(f.into()),
                    _ => match djinn_ir::DType::from_mlir(a) {
                        Some(d) => Attr::DType(d),
                        None => Attr::Str(Arc::from(a.as_str())),
                    },
                },
            }))
        }
        SExpr::List(list, line) => {
            let name = list.first().and_then(SExpr::atom).unwrap_or("");
            let Some((f, _, min, max)) = FUNCTIONS.iter().find(|(_, n, _, _)| *n == name) else {
                return Err(error(*line, format!("unknown function or predicate '{name}'")));
            };
            let count = list.len() - 1;
            if count < *min || count > *max {
                return Err(error(*line, format!("'{name}' does not take {count} operands")));
            }
            let args = list[1..].iter().map(|a| parse_expr(a, lookup)).collect::<Result<_>>()?;
            Ok(Expr::Call(*f, args))
        }
    }
}

/// What a variable is bound to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// One e-class.
    Class(Id),
    /// The remaining operands of a variadic operation.
    Classes(Vec<Id>),
    /// An attribute.
    Attr(Attr),
}

/// Bindings of all variables of a rule.
pub type Bindings = Vec<Option<Bound>>;

/// Everything an expression is evaluated in.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// The e-graph.
    pub graph: &'a Graph,
    /// What is known of symbols.
    pub symbols: &'a SymbolTable,
    /// The bindings.
    pub bindings: &'a Bindings,
    /// For sibling rules: the bindings of all members and the number of this one.
    pub siblings: Option<(&'a [Bindings], usize)>,
}

impl Scope<'_> {
    fn facts(&self, e: &Expr) -> Option<&Facts> {
        Some(&self.graph[self.class(e)?].data)
    }

    /// The e-class that an expression (a variable) stands for.
    pub fn class(&self, e: &Expr) -> Option<Id> {
        match e {
            Expr::Var(v) => match self.bindings[*v].as_ref()? {
                Bound::Class(id) => Some(self.graph.find(*id)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The attributes of an operation of a right side; `None` if one of them has no value.
    pub fn attrs_of(&self, kind: OpKind, attrs: &[(&'static str, Expr)]) -> Option<Attrs> {
        let mut out = Attrs::new();
        for (name, e) in attrs {
            let attr_kind = kind.def().attrs.iter().find(|a| a.name == *name)?.kind;
            out.set(*name, self.eval_as(e, attr_kind)?);
        }
        Some(out)
    }

    /// The e-classes that `?v...` stands for: of a list variable, or of all siblings.
    pub fn splice(&self, v: Var) -> Option<Vec<Id>> {
        match (&self.bindings[v], self.siblings) {
            (Some(Bound::Classes(ids)), None) => Some(ids.iter().map(|i| self.graph.find(*i)).collect()),
            (_, Some((members, _))) => members
                .iter()
                .map(|b| match &b[v] {
                    Some(Bound::Class(id)) => Some(self.graph.find(*id)),
                    _ => None,
                })
                .collect(),
            _ => None,
        }
    }

    /// Does the condition hold? What cannot be evaluated does not hold.
    pub fn holds(&self, condition: &Expr) -> bool {
        matches!(self.eval(condition), Some(Attr::Bool(true)))
    }

    /// The value of an expression as an attribute of this kind.
    pub fn eval_as(&self, e: &Expr, kind: AttrKind) -> Option<Attr> {
        let v = self.eval(e)?;
        let v = match (kind, v) {
            (AttrKind::Dim, Attr::Int(i)) => Attr::Dim(Dim::from(i)),
            (AttrKind::Int, Attr::Dim(d)) => Attr::Int(d.as_const()?),
            (AttrKind::Float, Attr::Int(i)) => Attr::Float((i as f64).into()),
            (AttrKind::Dims, Attr::Ints(l)) => Attr::Dims(l.into_iter().map(Dim::from).collect()),
            (AttrKind::Ints, Attr::Dims(l)) => {
                Attr::Ints(l.iter().map(Dim::as_const).collect::<Option<_>>()?)
            }
            (_, v) => v,
        };
        kind.accepts(&v).then_some(v)
    }

    fn dim(&self, e: &Expr) -> Option<Dim> {
        match self.eval(e)? {
            Attr::Int(i) => Some(Dim::from(i)),
            Attr::Dim(d) => Some(d),
            _ => None,
        }
    }

    fn int(&self, e: &Expr) -> Option<i64> {
        self.dim(e)?.as_const()
    }

    /// A float, or an integer as one; sizes are compared as sizes.
    fn float(&self, e: &Expr) -> Option<f64> {
        match self.eval(e)? {
            Attr::Float(v) => Some(v.get()),
            Attr::Int(i) => Some(i as f64),
            _ => None,
        }
    }

    fn list(&self, e: &Expr) -> Option<Vec<Dim>> {
        match self.eval(e)? {
            Attr::Ints(l) => Some(l.into_iter().map(Dim::from).collect()),
            Attr::Dims(l) => Some(l),
            _ => None,
        }
    }

    fn ints(&self, e: &Expr) -> Option<Vec<i64>> {
        self.list(e)?.iter().map(Dim::as_const).collect()
    }

    fn index(&self, e: &Expr, len: usize) -> Option<usize> {
        types::normalize_axis(self.int(e)?, len)
    }

    /// The value of an expression; `None` if it has none (unbound, wrong kind, out of range, overflow).
    pub fn eval(&self, e: &Expr) -> Option<Attr> {
        match e {
            Expr::Literal(a) => Some(a.clone()),
            Expr::Var(v) => match self.bindings[*v].as_ref()? {
                Bound::Attr(a) => Some(a.clone()),
                _ => None,
            },
            Expr::Call(f, args) => self.call(*f, args),
        }
    }

    fn call(&self, f: Function, args: &[Expr]) -> Option<Attr> {
        use Function as F;
        match f {
            F::Rank | F::Dim | F::Shape | F::Numel | F::DType | F::Value | F::Size => self.fact(f, args),
            F::Add | F::Sub | F::Mul | F::Div | F::Min | F::Max | F::Sqrt => self.arithmetic(f, args),
            F::Ints
            | F::Dims
            | F::Repeat
            | F::Nth
            | F::Len
            | F::Drop
            | F::Insert
            | F::Replace
            | F::Take
            | F::Skip
            | F::Join => self.on_list(f, args),
            F::Identity | F::Swap | F::Compose | F::Inverse | F::MapAxes | F::Find | F::Shift => {
                self.permutation(f, args)
            }
            F::If => self.eval(&args[if self.holds(&args[0]) { 1 } else { 2 }]),
            F::Before | F::Total => self.over_siblings(f, &args[0]),
            _ => self.predicate(f, args).map(Attr::Bool),
        }
    }

    fn fact(&self, f: Function, args: &[Expr]) -> Option<Attr> {
        let facts = self.facts(&args[0])?;
        let ty = facts.ty();
        Some(match f {
            Function::Rank => Attr::Int(ty.rank() as i64),
            Function::Dim => Attr::Dim(ty.shape[self.index(&args[1], ty.rank())?].clone()),
            Function::Shape => Attr::Dims(ty.shape.clone()),
            Function::Numel => Attr::Dim(ty.numel()),
            Function::DType => Attr::DType(ty.dtype),
            Function::Size => Attr::Dim(facts.symbolic.as_ref()?.as_scalar()?.clone()),
            _ => Attr::Float(facts.splat()?.into()),
        })
    }

    fn arithmetic(&self, f: Function, args: &[Expr]) -> Option<Attr> {
        let values: Vec<Attr> = args.iter().map(|a| self.eval(a)).collect::<Option<_>>()?;
        let as_float = |a: &Attr| match a {
            Attr::Float(v) => Some(v.get()),
            Attr::Int(i) => Some(*i as f64),
            Attr::Dim(d) => d.as_const().map(|c| c as f64),
            _ => None,
        };
        if f == Function::Sqrt || values.iter().any(|v| matches!(v, Attr::Float(_))) {
            let v: Vec<f64> = values.iter().map(as_float).collect::<Option<_>>()?;
            let result = match f {
                Function::Add => v.iter().sum(),
                Function::Mul => v.iter().product(),
                Function::Sub => v[0] - v[1],
                Function::Div => v[0] / v[1],
                Function::Min => v[0].min(v[1]),
                Function::Max => v[0].max(v[1]),
                _ => v[0].sqrt(),
            };
            return Some(Attr::Float(result.into()));
        }
        let v: Vec<Dim> = args.iter().map(|a| self.dim(a)).collect::<Option<_>>()?;
        let result = match f {
            Function::Add => v.iter().fold(Dim::ZERO, |a, d| &a + d),
            Function::Mul => v.iter().fold(Dim::ONE, |a, d| &a * d),
            Function::Sub => &v[0] - &v[1],
            Function::Div => v[0].floor_div(&v[1]),
            Function::Min => v[0].min_of(&v[1]),
            _ => v[0].max_of(&v[1]),
        };
        (!result.is_overflow()).then_some(Attr::Dim(result))
    }

    fn on_list(&self, f: Function, args: &[Expr]) -> Option<Attr> {
        if matches!(f, Function::Ints | Function::Dims) {
            return Some(Attr::Dims(args.iter().map(|a| self.dim(a)).collect::<Option<_>>()?));
        }
        if f == Function::Repeat {
            let n = usize::try_from(self.int(&args[1])?).ok().filter(|n| *n <= 64)?;
            return Some(Attr::Dims(vec![self.dim(&args[0])?; n]));
        }
        let mut l = self.list(&args[0])?;
        match f {
            Function::Nth => return Some(Attr::Dim(l[self.index(&args[1], l.len())?].clone())),
            Function::Len => return Some(Attr::Int(l.len() as i64)),
            Function::Drop => {
                l.remove(self.index(&args[1], l.len())?);
            }
            Function::Insert => l.insert(self.index(&args[1], l.len() + 1)?, self.dim(&args[2])?),
            Function::Replace => {
                let i = self.index(&args[1], l.len())?;
                l[i] = self.dim(&args[2])?;
            }
            Function::Take => {
                l.truncate(usize::try_from(self.int(&args[1])?).ok().filter(|n| *n <= l.len())?)
            }
            Function::Skip => {
                l = l.get(usize::try_from(self.int(&args[1])?).ok()?..)?.to_vec();
            }
            _ => l.extend(self.list(&args[1])?),
        }
        Some(Attr::Dims(l))
    }

    fn permutation(&self, f: Function, args: &[Expr]) -> Option<Attr> {
        let identity = |n: i64| (0..n.clamp(0, 64)).collect::<Vec<i64>>();
        let at = |p: &[i64], i: i64| p.get(usize::try_from(i).ok()?).copied();
        Some(Attr::Ints(match f {
            Function::Identity => identity(self.int(&args[0])?),
            Function::Swap => {
                let mut p = identity(self.int(&args[0])?);
                let (i, j) = (self.index(&args[1], p.len())?, self.index(&args[2], p.len())?);
                p.swap(i, j);
                p
            }
            Function::Compose => {
                let (p, q) = (self.ints(&args[0])?, self.ints(&args[1])?);
                q.iter().map(|i| at(&p, *i)).collect::<Option<_>>()?
            }
            Function::Inverse => {
                let p = self.ints(&args[0])?;
                (0..p.len() as i64)
                    .map(|i| p.iter().position(|v| *v == i).map(|v| v as i64))
                    .collect::<Option<_>>()?
            }
            Function::MapAxes => {
                let p = self.ints(&args[0])?;
                let mut axes: Vec<i64> =
                    self.ints(&args[1])?.iter().map(|a| at(&p, *a)).collect::<Option<_>>()?;
                axes.sort_unstable();
                axes
            }
            Function::Shift => {
                let n = self.int(&args[1])?;
                self.ints(&args[0])?.iter().map(|a| a.checked_add(n)).collect::<Option<_>>()?
            }
            _ => {
                let (p, i) = (self.ints(&args[0])?, self.int(&args[1])?);
                return Some(Attr::Int(p.iter().position(|v| *v == i)? as i64));
            }
        }))
    }

    fn over_siblings(&self, f: Function, e: &Expr) -> Option<Attr> {
        let (members, this) = self.siblings?;
        let count = if f == Function::Before { this } else { members.len() };
        let mut sum = Dim::ZERO;
        for bindings in &members[..count] {
            sum = &sum + &Scope { bindings, ..*self }.dim(e)?;
        }
        Some(Attr::Dim(sum))
    }

    fn predicate(&self, f: Function, args: &[Expr]) -> Option<bool> {
        use Function as F;
        Some(match f {
            F::Eq => self.equal(&args[0], &args[1])?,
            F::Ne => !self.equal(&args[0], &args[1])?,
            F::Lt | F::Le | F::Gt | F::Ge => self.ordered(f, &args[0], &args[1])?,
            F::And => args.iter().all(|a| self.holds(a)),
            F::Or => args.iter().any(|a| self.holds(a)),
            F::Not => !self.holds(&args[0]),
            F::Same => self.class(&args[0])? == self.class(&args[1])?,
            F::Is => {
                let Expr::Literal(Attr::Str(name)) = &args[1] else { return None };
                let kind = OpKind::from_name(name)?;
                self.graph[self.class(&args[0])?].nodes.iter().any(|n| n.kind() == Some(kind))
            }
            F::Weight => self.facts(&args[0])?.weight_only,
            F::Const => self.facts(&args[0])?.constant.is_some(),
            F::Splat => self.facts(&args[0])?.splat().is_some(),
            F::Finite => {
                let data = self.facts(&args[0])?.constant.as_ref()?;
                (0..data.numel()).all(|i| data.get_f64(i).is_some_and(f64::is_finite))
            }
            F::Scalar => self.facts(&args[0])?.ty().numel().is(1),
            F::Float => self.facts(&args[0])?.ty().dtype.is_float(),
            F::Int => self.facts(&args[0])?.ty().dtype.is_int(),
            F::Bool => self.facts(&args[0])?.ty().dtype == djinn_ir::DType::Bool,
            F::Broadcasts => {
                let shape = self.list(&args[1])?;
                broadcasts_into(&self.facts(&args[0])?.ty().shape, &shape)
            }
            F::Divides => {
                let (a, b) = (self.dim(&args[0])?, self.dim(&args[1])?);
                !a.is(0) && b.exact_div(&a).is_some()
            }
            F::PowerOfTwo => match self.eval(&args[0])? {
                Attr::Float(v) => {
                    let v = v.get().abs();
                    v.is_normal() && v.to_bits() & ((1 << 52) - 1) == 0
                }
                _ => return None,
            },
            F::UnitAxesMove => {
                let (p, shape) = (self.ints(&args[0])?, &self.facts(&args[1])?.ty().shape);
                let moved: Vec<i64> =
                    p.iter().copied().filter(|a| shape.get(*a as usize).is_some_and(|d| !d.is(1))).collect();
                p.len() == shape.len() && moved.windows(2).all(|w| w[0] < w[1])
            }
            F::Near => {
                let (a, b) = (self.float(&args[0])?, self.float(&args[1])?);
                (a - b).abs() <= 1e-5 * b.abs()
            }
            F::Fits => match (self.eval(&args[0])?, self.eval(&args[1])?) {
                (Attr::DType(a), Attr::DType(b)) => a.fits_in(b),
                _ => return None,
            },
            F::EqualHalves => repeats(self.graph, self.class(&args[0])?, Repeat::Halves, 0),
            F::EqualPairs => repeats(self.graph, self.class(&args[0])?, Repeat::Pairs, 0),
            _ => return None,
        })
    }

    fn equal(&self, a: &Expr, b: &Expr) -> Option<bool> {
        let (x, y) = (self.eval(a)?, self.eval(b)?);
        Some(match (&x, &y) {
            (Attr::Float(_), Attr::Int(i)) => x == Attr::from(*i as f64),
            (Attr::Int(i), Attr::Float(_)) => y == Attr::from(*i as f64),
            (Attr::Int(_) | Attr::Dim(_), Attr::Int(_) | Attr::Dim(_)) => self.dim(a)? == self.dim(b)?,
            (Attr::Ints(_) | Attr::Dims(_), Attr::Ints(_) | Attr::Dims(_)) => {
                self.list(a)? == self.list(b)?
            }
            _ => x == y,
        })
    }

    fn ordered(&self, f: Function, a: &Expr, b: &Expr) -> Option<bool> {
        if matches!(self.eval(a)?, Attr::Float(_)) || matches!(self.eval(b)?, Attr::Float(_)) {
            let (x, y) = (self.float(a)?, self.float(b)?);
            return Some(match f {
                Function::Lt => x < y,
                Function::Le => x <= y,
                Function::Gt => x > y,
                _ => x >= y,
            });
        }
        let (x, y) = (self.dim(a)?, self.dim(b)?);
        let one = Dim::ONE;
        Some(match f {
            Function::Lt => (&y - &one).provably_ge(&x, self.symbols),
            Function::Le => y.provably_ge(&x, self.symbols),
            Function::Gt => (&x - &one).provably_ge(&y, self.symbols),
            _ => x.provably_ge(&y, self.symbols),
        })
    }
}

/// Does `shape` broadcast to exactly `target`?
fn broadcasts_into(shape: &[Dim], target: &[Dim]) -> bool {
    shape.len() <= target.len()
        && shape.iter().zip(&target[target.len() - shape.len()..]).all(|(s, t)| s.is(1) || s == t)
}

/// How the elements of a last axis repeat.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// The second half holds what the first half holds.
    Halves,
    /// Elements 2i and 2i + 1 are the same.
    Pairs,
}

/// How deep [`repeats`] looks.
const REPEAT_DEPTH: usize = 12;

/// Do the elements of the last axis repeat by construction: a concatenation of one value with itself (pairs: along a
/// new last axis, then flattened), looked at through elementwise operations, casts, and movement that keeps the axis?
fn repeats(graph: &Graph, id: Id, how: Repeat, depth: usize) -> bool {
    if depth > REPEAT_DEPTH {
        return false;
    }
    let facts = &graph[id].data;
    let ty = facts.ty();
    let Some(last) = ty.shape.last() else { return false };
    if let Some(value) = &facts.constant {
        return constant_repeats(value, how);
    }
    if last.is(1) {
        // One element is broadcast: it is the same everywhere.
        return depth > 0;
    }
    let last_axis = ty.rank() as i64 - 1;
    graph[id].nodes.iter().any(|n| {
        let (Some(kind), Some(attrs)) = (n.kind(), n.attrs()) else { return false };
        let child = n.children.first().map(|c| graph.find(*c));
        let keeps_last = || child.is_some_and(|c| graph[c].data.ty().shape.last() == Some(last));
        let deeper = || child.is_some_and(|c| repeats(graph, c, how, depth + 1));
        match kind {
            OpKind::Concat if how == Repeat::Halves => {
                attrs.int("axis") == last_axis
                    && n.children.len() == 2
                    && graph.find(n.children[0]) == graph.find(n.children[1])
            }
            OpKind::Cos | OpKind::Sin | OpKind::Cast | OpKind::Neg => deeper(),
            OpKind::Mul => n.children.iter().all(|c| {
                let facts = &graph[*c].data;
                facts.ty().rank() == 0
                    || facts.splat().is_some()
                    || repeats(graph, graph.find(*c), how, depth + 1)
            }),
            OpKind::Reshape if keeps_last() => deeper(),
            OpKind::Reshape if how == Repeat::Pairs => child.is_some_and(|c| is_doubled(graph, c, last)),
            OpKind::Slice | OpKind::Gather | OpKind::Broadcast => {
                let rank = child.map_or(0, |c| graph[c].data.ty().rank()) as i64;
                let along = if kind == OpKind::Broadcast { -1 } else { attrs.int("axis") };
                along + 1 < rank && keeps_last() && deeper()
            }
            _ => false,
        }
    })
}

/// Is the e-class [.., n, 2] with both elements of the last axis the same, where 2n is `flat`?
fn is_doubled(graph: &Graph, id: Id, flat: &Dim) -> bool {
    let shape = &graph[id].data.ty().shape;
    let [.., pairs, two] = shape.as_slice() else { return false };
    if !two.is(2) || &(pairs * two) != flat {
        return false;
    }
    graph[id].nodes.iter().any(|n| match (n.kind(), n.attrs()) {
        (Some(OpKind::Concat), Some(attrs)) => {
            attrs.int("axis") == shape.len() as i64 - 1
                && n.children.len() == 2
                && graph.find(n.children[0]) == graph.find(n.children[1])
        }
        (Some(OpKind::Broadcast), _) => graph[n.children[0]].data.ty().shape.last().is_some_and(|d| d.is(1)),
        _ => false,
    })
}

fn constant_repeats(value: &djinn_ir::TensorData, how: Repeat) -> bool {
    let size = value.dtype().size();
    let width = value.shape().last().copied().unwrap_or(0) * size;
    if width == 0 || !(width / size).is_multiple_of(2) {
        return false;
    }
    value.bytes().chunks_exact(width).all(|row| match how {
        Repeat::Halves => row[..width / 2] == row[width / 2..],
        Repeat::Pairs => row.chunks_exact(2 * size).all(|pair| pair[..size] == pair[size..]),
    })
}
