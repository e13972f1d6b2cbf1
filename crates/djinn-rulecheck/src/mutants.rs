//! Mutants: rules broken on purpose, each by one small change.

use djinn_egraph::functions::{Expr, Function};
use djinn_egraph::rule::{Pattern, Rule, Template, TemplateOperand, Var};
use djinn_ir::attr::AttrKind;
use djinn_ir::ops::traits;
use djinn_ir::{Attr, OpKind};

/// What a mutant changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A side condition is left out.
    Condition,
    /// The right side is another.
    Template,
}

/// A broken rule.
#[derive(Debug, Clone)]
pub(crate) struct Mutant {
    pub(crate) kind: Kind,
    /// What was changed.
    pub(crate) what: String,
    /// The variables of a condition that was left out.
    pub(crate) variables: Vec<Var>,
    pub(crate) rule: Rule,
}

/// Conditions that say where a rule pays, not where it is right: without them it applies more often, and must be
/// right there, too. They are `(weight ?x)` (both sides mean the same when ?x is computed at run time), every
/// `(not (weight ?x))` and `(not (is ?x op))`, comparisons of sizes multiplied with one another (costs), and
/// `(splat ?c)` where nothing takes the `(value ?c)`: it picks constant factors out of all factors.
fn is_profitability(condition: &Expr, rule: &Rule) -> bool {
    let product = |e: &Expr| contains(e, &|e| matches!(e, Expr::Call(Function::Mul, _)));
    let size = |e: &Expr| product(e) && !contains(e, &|e| matches!(e, Expr::Call(Function::Value, _)));
    match condition {
        Expr::Call(Function::Weight, _) => true,
        Expr::Call(Function::Not, args) => matches!(args[0], Expr::Call(Function::Weight | Function::Is, _)),
        Expr::Call(Function::Lt | Function::Le | Function::Gt | Function::Ge, args) => args.iter().all(size),
        Expr::Call(Function::Splat, args) => !takes_value(rule, &args[0]),
        _ => false,
    }
}

/// Does the right side or a condition use the value of this constant?
fn takes_value(rule: &Rule, constant: &Expr) -> bool {
    let value = Expr::Call(Function::Value, vec![constant.clone()]);
    let used = |e: &Expr| contains(e, &|e| *e == value);
    rule.conditions.iter().any(used) || template_uses(&rule.to, &used)
}

fn template_uses(t: &Template, used: &dyn Fn(&Expr) -> bool) -> bool {
    match t {
        Template::Var(_) => false,
        Template::Scalar(e, _) => used(e),
        Template::Op { attrs, operands, .. } => {
            attrs.iter().any(|(_, e)| used(e))
                || operands.iter().any(|o| match o {
                    TemplateOperand::One(t) => template_uses(t, used),
                    TemplateOperand::Splice(_) => false,
                })
        }
    }
}

fn contains(e: &Expr, wanted: &dyn Fn(&Expr) -> bool) -> bool {
    wanted(e)
        || match e {
            Expr::Call(_, args) => args.iter().any(|a| contains(a, wanted)),
            Expr::Var(_) | Expr::Literal(_) => false,
        }
}

fn collect_variables(e: &Expr, out: &mut Vec<Var>) {
    match e {
        Expr::Var(v) => out.push(*v),
        Expr::Call(_, args) => args.iter().for_each(|a| collect_variables(a, out)),
        Expr::Literal(_) => {}
    }
}

/// All mutants of a rule.
pub(crate) fn mutants(rule: &Rule) -> Vec<Mutant> {
    let mut out = Vec::new();
    for (i, condition) in rule.conditions.iter().enumerate().filter(|(_, c)| !is_profitability(c, rule)) {
        let mut broken = rule.clone();
        broken.conditions.remove(i);
        let mut variables = Vec::new();
        collect_variables(condition, &mut variables);
        let what = format!("without {}", show(condition, rule));
        out.push(Mutant { kind: Kind::Condition, what, variables, rule: broken });
    }
    let leaves = tensor_variables(&rule.from);
    for (to, what) in templates(&rule.to, &leaves, rule) {
        if to != rule.to {
            let rule = Rule { to, ..rule.clone() };
            out.push(Mutant { kind: Kind::Template, what, variables: Vec::new(), rule });
        }
    }
    out
}

/// An expression in the syntax of rule files.
fn show(e: &Expr, rule: &Rule) -> String {
    match e {
        Expr::Var(v) => format!("?{}", rule.variables[*v]),
        Expr::Literal(Attr::Int(i)) => i.to_string(),
        Expr::Literal(Attr::Float(v)) => format!("{:?}", v.get()),
        Expr::Literal(Attr::Bool(b)) => b.to_string(),
        Expr::Literal(Attr::Str(s)) => s.to_string(),
        Expr::Literal(Attr::DType(d)) => d.to_string(),
        Expr::Literal(other) => format!("{other:?}"),
        Expr::Call(f, args) => {
            let name =
                djinn_egraph::functions::FUNCTIONS.iter().find(|(g, ..)| g == f).map_or("?", |(_, n, ..)| n);
            let args: Vec<String> = args.iter().map(|a| show(a, rule)).collect();
            format!("({name} {})", args.join(" "))
        }
    }
}

/// Variables that stand for one tensor on the left side.
fn tensor_variables(p: &Pattern) -> Vec<usize> {
    let mut out = Vec::new();
    if let Pattern::Var(v) = p {
        out.push(*v);
    }
    if let Pattern::Op { operands, .. } = p {
        for v in operands.iter().flat_map(tensor_variables) {
            if !out.contains(&v) {
                out.push(v);
            }
        }
    }
    out
}

/// What an operation may be mistaken for.
fn siblings(kind: OpKind) -> &'static [OpKind] {
    use OpKind as K;
    match kind {
        K::Add => &[K::Sub, K::Mul],
        K::Sub => &[K::Add],
        K::Mul => &[K::Add, K::Div],
        K::Div => &[K::Mul],
        K::Min => &[K::Max],
        K::Max => &[K::Min],
        K::And => &[K::Or],
        K::Or => &[K::And],
        K::Sin => &[K::Cos],
        K::Cos => &[K::Sin],
        K::Exp => &[K::Softplus],
        K::Sqrt => &[K::Rsqrt, K::Abs],
        K::Rsqrt => &[K::Sqrt, K::Reciprocal],
        K::Reciprocal => &[K::Neg, K::Rsqrt],
        K::Neg => &[K::Abs],
        K::Abs => &[K::Relu],
        K::Relu => &[K::Abs, K::Silu],
        K::Silu => &[K::Mish, K::HardSwish],
        K::Mish => &[K::Silu],
        K::HardSwish => &[K::Silu],
        K::Sigmoid => &[K::Tanh],
        K::Softplus => &[K::Relu],
        K::Softmax => &[K::LogSoftmax],
        K::LogSoftmax => &[K::Softmax],
        K::LayerNorm => &[K::RmsNorm],
        K::RmsNorm => &[K::LayerNorm],
        K::ReduceSum => &[K::ReduceMean, K::ReduceMax],
        K::ReduceMean => &[K::ReduceSum],
        K::ReduceMax => &[K::ReduceMin],
        _ => &[],
    }
}

/// All templates that differ from this one by one change.
fn templates(t: &Template, leaves: &[usize], rule: &Rule) -> Vec<(Template, String)> {
    match t {
        Template::Var(v) => {
            let name = |v: usize| &rule.variables[v];
            leaves
                .iter()
                .filter(|l| *l != v)
                .map(|l| (Template::Var(*l), format!("?{} for ?{}", name(*l), name(*v))))
                .collect()
        }
        Template::Scalar(e, like) => {
            let near = exprs(e, AttrKind::Float, rule);
            near.into_iter().map(|(e, what)| (Template::Scalar(e, *like), what)).collect()
        }
        Template::Op { kind, attrs, operands } => {
            let mut out = changed_operation(*kind, attrs, operands);
            for (i, (name, e)) in attrs.iter().enumerate() {
                let Some(def) = kind.def().attrs.iter().find(|a| a.name == *name) else { continue };
                if without_meaning(attrs, name) {
                    continue;
                }
                for (new, what) in exprs(e, def.kind, rule) {
                    let mut attrs = attrs.clone();
                    attrs[i].1 = new;
                    let t = Template::Op { kind: *kind, attrs, operands: operands.clone() };
                    out.push((t, format!("{what} as {name} of {}", kind.name())));
                }
            }
            for (i, operand) in operands.iter().enumerate() {
                let TemplateOperand::One(inner) = operand else { continue };
                for (new, what) in templates(inner, leaves, rule) {
                    let mut operands = operands.clone();
                    operands[i] = TemplateOperand::One(new);
                    out.push((Template::Op { kind: *kind, attrs: attrs.clone(), operands }, what));
                }
            }
            out
        }
    }
}

/// The offset of attention that is not causal decides nothing: mutants of it mean the same.
fn without_meaning(attrs: &[(&'static str, Expr)], name: &str) -> bool {
    let causal = attrs.iter().find(|(n, _)| *n == "causal").map(|(_, e)| e);
    name == "causal_offset" && causal == Some(&Expr::Literal(Attr::Bool(false)))
}

/// Another operation, operands in another order, or one operand alone.
fn changed_operation(
    kind: OpKind,
    attrs: &[(&'static str, Expr)],
    operands: &[TemplateOperand],
) -> Vec<(Template, String)> {
    let make =
        |kind: OpKind, operands: Vec<TemplateOperand>| Template::Op { kind, attrs: attrs.to_vec(), operands };
    let mut out = Vec::new();
    for other in siblings(kind) {
        out.push((make(*other, operands.to_vec()), format!("{} for {}", other.name(), kind.name())));
    }
    for i in 1..operands.len() {
        let commutes = kind.def().has(traits::COMMUTATIVE);
        let single = |o: &TemplateOperand| matches!(o, TemplateOperand::One(_));
        if !commutes && single(&operands[i - 1]) && single(&operands[i]) {
            let mut swapped = operands.to_vec();
            swapped.swap(i - 1, i);
            out.push((make(kind, swapped), format!("operands {} and {i} of {} swapped", i - 1, kind.name())));
        }
    }
    for (i, operand) in operands.iter().enumerate() {
        if let TemplateOperand::One(inner) = operand {
            out.push((inner.clone(), format!("operand {i} of {} alone", kind.name())));
        }
    }
    out
}

/// All expressions that differ from this attribute value by one change.
fn exprs(e: &Expr, kind: AttrKind, rule: &Rule) -> Vec<(Expr, String)> {
    let literal = |i: i64| Expr::Literal(Attr::Int(i));
    let off_by_one = |e: &Expr| Expr::Call(Function::Add, vec![e.clone(), literal(1)]);
    let tenth_more = |e: &Expr| match e {
        Expr::Literal(Attr::Float(v)) => Expr::Literal(Attr::from(changed(v.get()))),
        other => Expr::Call(Function::Mul, vec![other.clone(), Expr::Literal(Attr::from(1.1))]),
    };
    let mut new = Vec::new();
    match kind {
        AttrKind::Int | AttrKind::Dim => new.push(off_by_one(e)),
        AttrKind::Float => new.push(tenth_more(e)),
        AttrKind::Ints if is_involution(e) => {}
        AttrKind::Ints => new.push(Expr::Call(Function::Inverse, vec![e.clone()])),
        AttrKind::Bool => {
            new.push(Expr::Call(Function::Not, vec![e.clone()]));
            if let Expr::Literal(Attr::Bool(b)) = e {
                new = vec![Expr::Literal(Attr::Bool(!b))];
            }
        }
        AttrKind::Word(words) => new.extend(words.iter().map(|w| Expr::Literal(Attr::from(*w)))),
        _ => {}
    }
    if let Expr::Call(f, args) = e {
        new.extend(calls(*f, args));
    }
    let shown = |n: &Expr| format!("{} for {}", show(n, rule), show(e, rule));
    new.into_iter().filter(|n| n != e).map(|n| (n.clone(), shown(&n))).collect()
}

/// A number that is not this one: a tenth more, and one instead of zero.
fn changed(value: f64) -> f64 {
    if value == 0.0 { 1.0 } else { 1.1 * value }
}

/// Is this a permutation, all entries literal, that is its own inverse?
fn is_involution(e: &Expr) -> bool {
    let Expr::Call(Function::Ints, args) = e else { return false };
    let entry = |a: &Expr| match a {
        Expr::Literal(Attr::Int(i)) => usize::try_from(*i).ok(),
        _ => None,
    };
    let p: Option<Vec<usize>> = args.iter().map(entry).collect();
    p.is_some_and(|p| (0..p.len()).all(|i| p.get(p[i]) == Some(&i)))
}

/// All calls that differ from this one by one change.
fn calls(f: Function, args: &[Expr]) -> Vec<Expr> {
    let mut out = Vec::new();
    let ordered = matches!(
        f,
        Function::Sub | Function::Div | Function::Compose | Function::Join | Function::Ints | Function::Dims
    );
    if ordered {
        for i in 1..args.len() {
            let mut swapped = args.to_vec();
            swapped.swap(i - 1, i);
            out.push(Expr::Call(f, swapped));
        }
    }
    if matches!(
        f,
        Function::Add
            | Function::Sub
            | Function::Mul
            | Function::Div
            | Function::Compose
            | Function::Inverse
            | Function::MapAxes
    ) {
        out.extend(args.iter().cloned());
    }
    if matches!(f, Function::Before | Function::Total) {
        let other = if f == Function::Before { Function::Total } else { Function::Before };
        out.push(Expr::Call(other, args.to_vec()));
        out.extend(args.iter().cloned());
    }
    for (i, a) in args.iter().enumerate() {
        let nested = match a {
            Expr::Literal(Attr::Int(v)) => vec![Expr::Literal(Attr::Int(v + 1))],
            Expr::Literal(Attr::Float(v)) => vec![Expr::Literal(Attr::from(changed(v.get())))],
            Expr::Call(g, inner) => calls(*g, inner),
            Expr::Literal(_) | Expr::Var(_) => Vec::new(),
        };
        for n in nested {
            let mut args = args.to_vec();
            args[i] = n;
            out.push(Expr::Call(f, args));
        }
    }
    out
}
