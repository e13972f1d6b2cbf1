//! Rules as data: the `.rw` language.
//!
//! ```text
//! (rule NAME "one sentence"
//!   (class exact | reassoc | (approx TOLERANCE))
//!   (grows)                          ; optional: the right side may be larger; runs under the growth budget
//!   (from PATTERN) (to TEMPLATE)
//!   (where CONDITION…)               ; optional; the closed list stands in `functions`
//!   (given (?x f32 (a b 4)) (?w weight f32 (4 n)) (?v positive f32 (n)) (?c const f32 0.5) (?p attr (1 0))…)   ; at least one example
//! )
//! (siblings NAME "one sentence" (class …) (shared ?x)
//!   (from PATTERN)                   ; every member; all of them share ?x
//!   (to TEMPLATE)                    ; for each member; `?w...` splices the ?w of all members,
//!                                    ; `(before E)` sums E over the members before this one, `(total E)` over all
//!   (where …) (given …))
//! ```
//!
//! A pattern is a variable `?x`, a number (matches a constant all of whose elements have this value), or
//! `(op :attribute ?a-or-expression … operand…)`. Attributes not named match anything. Commutative operations match
//! in both operand orders. The last operand of a variadic operation may be `?xs...`. On the right side every
//! attribute is given; `(scalar E ?x)` makes a rank-0 constant of ?x's element type.

use crate::functions::{Expr, parse_expr};
use crate::sexpr::{self, SExpr, error};
use djinn_diag::{Context, Result};
use djinn_ir::{Attr, DType, Dim, OpKind};
use std::collections::BTreeMap;

/// How the two sides of a rule may differ numerically.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Numerics {
    /// Bit for bit the same.
    Exact,
    /// The same real function, rounded differently.
    Reassoc,
    /// Equal within this relative tolerance.
    Approx(f64),
}

impl std::fmt::Display for Numerics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Numerics::Exact => f.write_str("exact"),
            Numerics::Reassoc => f.write_str("reassoc"),
            Numerics::Approx(tolerance) => write!(f, "approx({tolerance})"),
        }
    }
}

/// A variable: its index into the rule's `variables`.
pub type Var = usize;

/// The left side of a rule.
#[derive(Debug, Clone, PartialEq)]
pub enum Pattern {
    /// Any e-class.
    Var(Var),
    /// A constant whose elements all have this value.
    Number(f64),
    /// An operation.
    Op {
        /// Which.
        kind: OpKind,
        /// Conditions on attributes.
        attrs: Vec<(&'static str, AttrPattern)>,
        /// Operands.
        operands: Vec<Pattern>,
        /// All remaining operands of a variadic operation.
        rest: Option<Var>,
    },
}

/// A condition on one attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum AttrPattern {
    /// Binds the variable, or compares with what it is bound to.
    Var(Var),
    /// Compares with this value.
    Expr(Expr),
}

/// The right side of a rule.
#[derive(Debug, Clone, PartialEq)]
pub enum Template {
    /// What the variable is bound to.
    Var(Var),
    /// A rank-0 constant of the element type of a variable.
    Scalar(Expr, Var),
    /// An operation with all its attributes.
    Op {
        /// Which.
        kind: OpKind,
        /// All attributes.
        attrs: Vec<(&'static str, Expr)>,
        /// Operands.
        operands: Vec<TemplateOperand>,
    },
}

/// An operand of a template.
#[derive(Debug, Clone, PartialEq)]
pub enum TemplateOperand {
    /// One operand.
    One(Template),
    /// All e-classes of a list variable (or of all siblings).
    Splice(Var),
}

/// One variable of an example.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// A run-time tensor of this type.
    Input(DType, Vec<Dim>),
    /// A weight of this type.
    Weight(DType, Vec<Dim>),
    /// A weight of this type whose elements are positive (a variance, say).
    Positive(DType, Vec<Dim>),
    /// A constant of this type, every element of this value.
    Const(DType, Vec<Dim>, f64),
    /// An attribute.
    Attr(Attr),
}

/// An example: what each variable is; sizes may be letters that the checker varies.
pub type Example = BTreeMap<Var, Vec<Given>>;

/// A rewrite rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Unique name.
    pub name: String,
    /// One sentence.
    pub summary: String,
    /// How the sides may differ.
    pub numerics: Numerics,
    /// May the right side be larger than the left?
    pub grows: bool,
    /// The left side; for siblings, that of every member.
    pub from: Pattern,
    /// The right side.
    pub to: Template,
    /// Side conditions, all of which must hold.
    pub conditions: Vec<Expr>,
    /// Examples.
    pub examples: Vec<Example>,
    /// For sibling rules: the variable that all members share.
    pub shared: Option<Var>,
    /// Names of the variables, without `?`.
    pub variables: Vec<String>,
    /// File and line.
    pub place: String,
}

/// Parses the rules of a file; `file` is its name in diagnostics.
///
/// # Errors
/// Syntax errors, unknown operations, attributes and functions, unbound variables on the right side: each with
/// file, line and rule.
pub fn parse_rules(file: &str, text: &str) -> Result<Vec<Rule>> {
    sexpr::parse(text).at(|| file)?.iter().map(|e| parse_rule(file, e).at(|| file)).collect()
}

fn parse_rule(file: &str, e: &SExpr) -> Result<Rule> {
    let line = e.line();
    let list = e.list().unwrap_or_default();
    let [SExpr::Atom(head, _), SExpr::Atom(name, _), SExpr::Text(summary, _), clauses @ ..] = list else {
        return Err(error(line, "expected (rule NAME \"sentence\" …) or (siblings NAME \"sentence\" …)"));
    };
    if !matches!(head.as_str(), "rule" | "siblings") {
        return Err(error(line, format!("expected 'rule' or 'siblings', not '{head}'")));
    }
    let mut parser = RuleParser { variables: Vec::new() };
    let (mut numerics, mut grows, mut shared) = (None, false, None);
    let (mut from, mut to, mut conditions, mut examples) = (None, None, Vec::new(), Vec::new());
    for clause in clauses {
        let at = clause.line();
        let Some([SExpr::Atom(key, _), rest @ ..]) = clause.list() else {
            return Err(error(at, "expected a clause such as (from …)"));
        };
        match (key.as_str(), rest) {
            ("class", [n]) => numerics = Some(parse_numerics(n)?),
            ("grows", []) => grows = true,
            ("shared", [v]) => shared = Some(parser.variable(v)?),
            ("from", [p]) => from = Some(parser.pattern(p)?),
            ("to", [t]) => to = Some(parser.template(t)?),
            ("where", all) => {
                for c in all {
                    conditions.push(parse_expr(c, &mut |v| parser.lookup(v))?);
                }
            }
            ("given", all) => {
                let mut example = Example::new();
                for g in all {
                    let (v, given) = parser.given(g)?;
                    example.entry(v).or_default().push(given);
                }
                examples.push(example);
            }
            _ => return Err(error(at, format!("unknown or malformed clause '{key}' in rule '{name}'"))),
        }
    }
    let missing = |what: &str| error(line, format!("rule '{name}' has no ({what} …)"));
    let rule = Rule {
        name: name.clone(),
        summary: summary.clone(),
        numerics: numerics.ok_or_else(|| missing("class"))?,
        grows,
        from: from.ok_or_else(|| missing("from"))?,
        to: to.ok_or_else(|| missing("to"))?,
        conditions,
        examples,
        shared,
        variables: parser.variables,
        place: format!("{file}:{line}"),
    };
    if (head == "siblings") != shared.is_some() {
        return Err(error(line, format!("rule '{name}': 'siblings' and (shared ?x) go together")));
    }
    if rule.examples.is_empty() {
        return Err(missing("given"));
    }
    check_bound(&rule, line)?;
    Ok(rule)
}

/// Every variable that the right side or a condition uses must be bound by the left side.
fn check_bound(rule: &Rule, line: u32) -> Result<()> {
    let mut bound = vec![false; rule.variables.len()];
    mark_pattern(&rule.from, &mut bound);
    match bound.iter().position(|b| !b) {
        Some(v) => {
            Err(error(line, format!("rule '{}': ?{} is not bound by (from …)", rule.name, rule.variables[v])))
        }
        None => Ok(()),
    }
}

fn mark_pattern(p: &Pattern, bound: &mut [bool]) {
    match p {
        Pattern::Var(v) => bound[*v] = true,
        Pattern::Number(_) => {}
        Pattern::Op { attrs, operands, rest, .. } => {
            for (_, a) in attrs {
                if let AttrPattern::Var(v) = a {
                    bound[*v] = true;
                }
            }
            operands.iter().for_each(|o| mark_pattern(o, bound));
            if let Some(v) = rest {
                bound[*v] = true;
            }
        }
    }
}

fn parse_numerics(e: &SExpr) -> Result<Numerics> {
    match (e.atom(), e.list()) {
        (Some("exact"), _) => Ok(Numerics::Exact),
        (Some("reassoc"), _) => Ok(Numerics::Reassoc),
        (_, Some([SExpr::Atom(a, _), SExpr::Atom(t, _)])) if a == "approx" => {
            t.parse().map(Numerics::Approx).map_err(|_| error(e.line(), "approx takes a tolerance"))
        }
        _ => Err(error(e.line(), "class is exact, reassoc or (approx TOLERANCE)")),
    }
}

/// Attribute names of the op table with the text of their values.
type NamedAttrs<'a> = Vec<(&'static str, &'a SExpr)>;

struct RuleParser {
    variables: Vec<String>,
}

impl RuleParser {
    fn lookup(&mut self, name: &str) -> Var {
        if let Some(i) = self.variables.iter().position(|v| v == name) {
            return i;
        }
        self.variables.push(name.to_owned());
        self.variables.len() - 1
    }

    fn variable(&mut self, e: &SExpr) -> Result<Var> {
        match e.atom().and_then(|a| a.strip_prefix('?')) {
            Some(name) => Ok(self.lookup(name)),
            None => Err(error(e.line(), "expected a variable such as ?x")),
        }
    }

    fn op_head(list: &[SExpr], line: u32) -> Result<OpKind> {
        let name = list.first().and_then(SExpr::atom).unwrap_or("");
        OpKind::from_name(name).ok_or_else(|| error(line, format!("unknown operation '{name}'")))
    }

    /// Splits `:name value` pairs from operands.
    fn split_attrs(kind: OpKind, items: &[SExpr]) -> Result<(NamedAttrs<'_>, Vec<&SExpr>)> {
        let (mut attrs, mut operands, mut i) = (Vec::new(), Vec::new(), 0);
        while i < items.len() {
            if let Some(name) = items[i].atom().and_then(|a| a.strip_prefix(':')) {
                let def = kind.def().attrs.iter().find(|d| d.name == name);
                let (Some(def), Some(value)) = (def, items.get(i + 1)) else {
                    let message =
                        format!("'{}' has no attribute '{name}', or it has no value here", kind.name());
                    return Err(error(items[i].line(), message));
                };
                attrs.push((def.name, value));
                i += 2;
            } else {
                operands.push(&items[i]);
                i += 1;
            }
        }
        Ok((attrs, operands))
    }

    fn pattern(&mut self, e: &SExpr) -> Result<Pattern> {
        match e {
            SExpr::Atom(a, line) => {
                if let Some(v) = a.strip_prefix('?') {
                    return Ok(Pattern::Var(self.lookup(v)));
                }
                parse_number(a)
                    .map(Pattern::Number)
                    .ok_or_else(|| error(*line, format!("unexpected '{a}' in a pattern")))
            }
            SExpr::Text(_, line) => Err(error(*line, "text in a pattern")),
            SExpr::List(list, line) => {
                let kind = Self::op_head(list, *line)?;
                let (raw, operands) = Self::split_attrs(kind, &list[1..])?;
                let mut attrs = Vec::new();
                for (name, value) in raw {
                    let pattern = match value.atom().and_then(|a| a.strip_prefix('?')) {
                        Some(v) => AttrPattern::Var(self.lookup(v)),
                        None => AttrPattern::Expr(parse_expr(value, &mut |v| self.lookup(v))?),
                    };
                    attrs.push((name, pattern));
                }
                let (mut parsed, mut rest) = (Vec::new(), None);
                for o in operands {
                    match o.atom().and_then(|a| a.strip_prefix('?')).and_then(|a| a.strip_suffix("...")) {
                        Some(v) => rest = Some(self.lookup(v)),
                        None => parsed.push(self.pattern(o)?),
                    }
                }
                let max = kind.def().max_operands().unwrap_or(usize::MAX);
                if parsed.len() > max || (rest.is_none() && parsed.len() < kind.def().min_operands()) {
                    return Err(error(
                        *line,
                        format!("'{}' does not take {} operands", kind.name(), parsed.len()),
                    ));
                }
                Ok(Pattern::Op { kind, attrs, operands: parsed, rest })
            }
        }
    }

    fn template(&mut self, e: &SExpr) -> Result<Template> {
        if let Some(v) = e.atom().and_then(|a| a.strip_prefix('?')) {
            return Ok(Template::Var(self.lookup(v)));
        }
        let line = e.line();
        let list = e.list().ok_or_else(|| error(line, "a template is a variable or (op …)"))?;
        if let [SExpr::Atom(head, _), value, like] = list
            && head == "scalar"
        {
            return Ok(Template::Scalar(parse_expr(value, &mut |v| self.lookup(v))?, self.variable(like)?));
        }
        let kind = Self::op_head(list, line)?;
        let (raw, operands) = Self::split_attrs(kind, &list[1..])?;
        if let Some(missing) = kind.def().attrs.iter().find(|d| !raw.iter().any(|(n, _)| *n == d.name)) {
            return Err(error(line, format!("'{}' on the right side needs :{}", kind.name(), missing.name)));
        }
        let mut attrs = Vec::new();
        for (name, value) in raw {
            attrs.push((name, parse_expr(value, &mut |v| self.lookup(v))?));
        }
        let mut parsed = Vec::new();
        for o in operands {
            parsed.push(
                match o.atom().and_then(|a| a.strip_prefix('?')).and_then(|a| a.strip_suffix("...")) {
                    Some(v) => TemplateOperand::Splice(self.lookup(v)),
                    None => TemplateOperand::One(self.template(o)?),
                },
            );
        }
        Ok(Template::Op { kind, attrs, operands: parsed })
    }

    fn given(&mut self, e: &SExpr) -> Result<(Var, Given)> {
        let line = e.line();
        let bad = || {
            error(
                line,
                "given takes (?x f32 (a b)), (?w weight f32 (a b)), (?v positive f32 (a)), (?c const f32 0.5), (?a attr VALUE)",
            )
        };
        let list = e.list().ok_or_else(bad)?;
        let (first, rest) = list.split_first().ok_or_else(bad)?;
        let v = match first.atom().and_then(|a| a.strip_prefix('?')) {
            Some(name) => self.lookup(name.strip_suffix("...").unwrap_or(name)),
            None => return Err(bad()),
        };
        let words: Vec<&str> = rest.iter().map(|r| r.atom().unwrap_or("")).collect();
        let given = match (words.as_slice(), rest) {
            (["attr", ..], [_, value]) => Given::Attr(parse_attr(value)?),
            (["weight", d, _], [_, _, shape]) => Given::Weight(parse_dtype(d, line)?, parse_shape(shape)?),
            (["positive", d, _], [_, _, shape]) => {
                Given::Positive(parse_dtype(d, line)?, parse_shape(shape)?)
            }
            (["const", d, v], [_, _, _]) => {
                Given::Const(parse_dtype(d, line)?, vec![], parse_number(v).ok_or_else(bad)?)
            }
            (["const", d, _, v], [_, _, shape, _]) => {
                Given::Const(parse_dtype(d, line)?, parse_shape(shape)?, parse_number(v).ok_or_else(bad)?)
            }
            ([d, _], [_, shape]) => Given::Input(parse_dtype(d, line)?, parse_shape(shape)?),
            _ => return Err(bad()),
        };
        Ok((v, given))
    }
}

/// Numbers, including `inf`, `-inf` and `nan`.
pub(crate) fn parse_number(text: &str) -> Option<f64> {
    match text {
        "inf" => Some(f64::INFINITY),
        "-inf" => Some(f64::NEG_INFINITY),
        "nan" => Some(f64::NAN),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') => text.parse().ok(),
        _ => None,
    }
}

fn parse_dtype(word: &str, line: u32) -> Result<DType> {
    let name = if word == "bool" { "i1" } else { word };
    DType::from_mlir(name).ok_or_else(|| error(line, format!("unknown element type '{word}'")))
}

fn parse_shape(e: &SExpr) -> Result<Vec<Dim>> {
    let list = e.list().ok_or_else(|| error(e.line(), "a shape is a list of sizes"))?;
    let size =
        |s: &SExpr| -> Result<Dim> { s.atom().unwrap_or("").parse().map_err(|m: String| error(s.line(), m)) };
    list.iter().map(size).collect()
}

/// Attribute values in examples: integers, floats (with a dot), true/false, words, lists of sizes, element types.
fn parse_attr(e: &SExpr) -> Result<Attr> {
    if let Some(list) = e.list() {
        let ints: Option<Vec<i64>> = list.iter().map(|i| i.atom().and_then(|a| a.parse().ok())).collect();
        return Ok(match ints {
            Some(ints) => Attr::Ints(ints),
            None => Attr::Dims(parse_shape(e)?),
        });
    }
    let word = e.atom().unwrap_or("");
    Ok(match word {
        "true" => Attr::Bool(true),
        "false" => Attr::Bool(false),
        _ if word.parse::<i64>().is_ok() => Attr::Int(word.parse().unwrap_or(0)),
        _ if parse_number(word).is_some() => Attr::Float(parse_number(word).unwrap_or(0.0).into()),
        _ if DType::from_mlir(word).is_some() => Attr::DType(DType::from_mlir(word).unwrap_or(DType::F32)),
        _ => Attr::Str(word.into()),
    })
}
