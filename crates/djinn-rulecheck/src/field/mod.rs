//! Comparison of both sides of a rule over a pair of finite fields.
//!
//! Sums, products, quotients, contractions and exponentials mean what they say; other functions are uninterpreted
//! (random, but consistent), so that agreement is evidence while disagreement is not, unless no such function was
//! met. Integer and boolean tensors, and data movement, are left to the reference evaluator.

mod element;
mod operations;
mod tensor;

use crate::case::replace_dtype;
use crate::instance::build;
use crate::rng::Rng;
use crate::slots::{Plan, Role};
use crate::values::{self, Profile};
use djinn_egraph::region::rewrite_results;
use djinn_egraph::rule::{Numerics, Rule};
use djinn_ir::{DType, Graph, Module};
use operations::Evaluator;
use std::fmt;
use tensor::Value;

/// What the finite fields tell of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldOutcome {
    /// Both sides agreed in this many random trials.
    Checked(usize),
    /// The rule has operations without a meaning in a finite field, or needs the meaning of an uninterpreted one.
    Skipped(String),
    /// Both sides differ.
    Failed(String),
}

impl fmt::Display for FieldOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldOutcome::Checked(n) => write!(f, "{n} trials"),
            FieldOutcome::Skipped(reason) => write!(f, "skipped: {reason}"),
            FieldOutcome::Failed(reason) => write!(f, "FAILED: {reason}"),
        }
    }
}

/// Why an evaluation over the fields stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The operation has no meaning here.
    Unsupported(String),
    /// A division by zero: another random point may do.
    Undefined,
}

/// How often an undefined random point is replaced by another.
const RETRIES: u64 = 4;

/// Compares both sides of every example at random points.
pub(crate) fn check(rule: &Rule, trials: usize, seed: u64) -> FieldOutcome {
    if let Numerics::Approx(_) = rule.numerics {
        return FieldOutcome::Skipped("an approximation is no identity".into());
    }
    let mut agreed = 0;
    for e in 0..rule.examples.len() {
        for t in 0..trials as u64 {
            let outcome = (0..RETRIES)
                .map(|r| trial(rule, e, seed.wrapping_add(t * RETRIES + r)))
                .find(|o| *o != Err(Stop::Undefined));
            match outcome {
                Some(Ok(None)) => agreed += 1,
                Some(Ok(Some(failure))) => return failure,
                Some(Err(Stop::Unsupported(reason))) => return FieldOutcome::Skipped(reason),
                Some(Err(Stop::Undefined)) | None => return FieldOutcome::Skipped("division by zero".into()),
            }
        }
    }
    FieldOutcome::Checked(agreed)
}

/// One random point: `Ok(None)` if both sides agree there.
fn trial(rule: &Rule, e: usize, seed: u64) -> Result<Option<FieldOutcome>, Stop> {
    let unsupported = |reason: &str| Stop::Unsupported(reason.to_owned());
    let mut rng = Rng::new(seed, &format!("{} field {e}", rule.name));
    let mut frame = Plan::Distinct.frame(rule, &rule.examples[e], 3, &mut rng);
    replace_dtype(&mut frame, DType::F32, DType::F64);
    let instance =
        build(rule, &frame, Profile::Normal, &rng).map_err(|_| unsupported("no instance in f64"))?;
    let mut arguments = Vec::new();
    for t in &instance.inputs {
        let shape: Option<Vec<usize>> =
            t.shape.iter().map(|d| d.as_const().and_then(|c| usize::try_from(c).ok())).collect();
        let data = shape.and_then(|s| values::tensor(Role::Input, t.dtype, &s, Profile::Normal, &mut rng));
        let data = data.ok_or_else(|| unsupported("symbolic sizes"))?;
        arguments.push(if t.dtype.is_float() {
            Value::random(data.shape(), rng.next())
        } else {
            Value::Concrete(data)
        });
    }
    let Some(right) = rewrite_results(&instance.body, &instance.module, rule).into_iter().next() else {
        return Err(unsupported("the example does not match in f64"));
    };
    let (left_values, left) = side(&instance.body, &instance.module, &arguments, seed)?;
    let (right_values, right) = side(&right, &instance.module, &arguments, seed)?;
    if left_values.iter().zip(&right_values).all(|(l, r)| l.agrees(r)) {
        return Ok(None);
    }
    Ok(Some(match left.or(right) {
        Some(name) => FieldOutcome::Skipped(format!("needs the meaning of {name}")),
        None => FieldOutcome::Failed(format!("both sides of example {e} differ at a random point")),
    }))
}

/// The results of one side, and the name of an uninterpreted function met on the way.
fn side(
    body: &Graph,
    module: &Module,
    arguments: &[Value],
    seed: u64,
) -> Result<(Vec<Value>, Option<&'static str>), Stop> {
    let mut evaluator = Evaluator::new(body, module, seed);
    let results = evaluator.run(arguments)?;
    Ok((results, evaluator.uninterpreted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use djinn_egraph::rule::parse_rules;

    fn outcome(text: &str) -> FieldOutcome {
        let rules = parse_rules("test.rw", text).unwrap_or_else(|e| panic!("{e}"));
        check(&rules[0], 4, 1)
    }

    #[test]
    fn identities_hold_and_others_fail() {
        let right = r#"(rule r "Distributive." (class reassoc) (from (mul (add ?x ?y) ?z)) (to (add (mul ?x ?z) (mul ?y ?z)))
            (given (?x f32 (a b)) (?y f32 (b)) (?z f32 (a 1))))"#;
        assert_eq!(outcome(right), FieldOutcome::Checked(4));
        let wrong = r#"(rule r "Not distributive." (class reassoc) (from (mul (add ?x ?y) ?z)) (to (add (mul ?x ?z) ?y))
            (given (?x f32 (a b)) (?y f32 (b)) (?z f32 (a b))))"#;
        assert!(matches!(outcome(wrong), FieldOutcome::Failed(_)));
    }

    #[test]
    fn exponentials_have_their_meaning() {
        let right = r#"(rule r "A product of exponentials." (class reassoc) (from (mul (exp ?x) (exp ?y))) (to (exp (add ?x ?y)))
            (given (?x f32 (a b)) (?y f32 (b))))"#;
        assert_eq!(outcome(right), FieldOutcome::Checked(4));
        let wrong = r#"(rule r "Softmax sees a factor." (class reassoc) (from (softmax :axis ?a (mul ?x 2.0))) (to (softmax :axis ?a ?x))
            (given (?x f32 (a b)) (?a attr 1)))"#;
        assert!(matches!(outcome(wrong), FieldOutcome::Failed(_)));
    }

    #[test]
    fn uninterpreted_functions_never_refuse() {
        let odd = r#"(rule r "Sine is odd." (class exact) (from (sin (neg ?x))) (to (neg (sin ?x))) (given (?x f32 (a))))"#;
        assert_eq!(outcome(odd), FieldOutcome::Skipped("needs the meaning of sin".into()));
    }
}
