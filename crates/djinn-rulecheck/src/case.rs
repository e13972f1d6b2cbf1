//! Cases: one instance with concrete elements and the value of its left side, against which rules are judged.

use crate::evaluate::{Agreement, Evaluated, agree, evaluate, evaluate_rewritten};
use crate::instance::{Instance, Refusal, build};
use crate::rng::Rng;
use crate::slots::{Frame, Plan, Role, visit_dtypes};
use crate::values::{self, Profile};
use djinn_egraph::region::rewrite_results;
use djinn_egraph::rule::{Numerics, Rule};
use djinn_interp::Env;
use djinn_ir::{DType, TensorData};

/// One instance of a rule's left side, evaluated.
pub(crate) struct Case {
    /// Says how the case was made.
    pub(crate) label: String,
    /// Must the rule match here?
    pub(crate) required: bool,
    /// Is a size zero that was symbolic when the rule was applied?
    empty: bool,
    /// The left side.
    pub(crate) instance: Instance,
    /// Its value.
    left: Evaluated,
}

/// What a rule does with a case.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// It does not match, or its right side is ill-typed.
    NotApplied,
    /// Both sides compare as follows.
    Applied(Agreement),
}

impl Case {
    /// Builds and evaluates the left side. `Ok(None)`: it is ill-typed for this frame or has no value.
    pub(crate) fn new(
        rule: &Rule,
        frame: &Frame,
        profile: Profile,
        label: String,
        seed: u64,
    ) -> Result<Option<Case>, Refusal> {
        let mut rng = Rng::new(seed, &format!("{} {label}", rule.name));
        let instance = match build(rule, frame, profile, &rng) {
            Ok(instance) => instance,
            Err(Refusal::Type(_)) => return Ok(None),
            Err(e) => return Err(e),
        };
        rng.next();
        let mut env = Env::new();
        frame.symbols.iter().for_each(|(s, v)| env.set(s.clone(), *v));
        let arguments = instance.inputs.iter().map(|t| {
            let shape: Option<Vec<usize>> =
                t.shape.iter().map(|d| env.eval(d).and_then(|v| usize::try_from(v).ok())).collect();
            values::tensor(Role::Input, t.dtype, &shape?, profile, &mut rng)
        });
        let Some(arguments) = arguments.collect::<Option<Vec<TensorData>>>() else { return Ok(None) };
        let Ok(left) = evaluate(&instance, &arguments, env) else { return Ok(None) };
        let empty = frame.symbols.values().any(|v| *v == 0);
        Ok(Some(Case { label, required: false, empty, instance, left }))
    }

    /// Applies the rule in every way in which it matches, and compares.
    pub(crate) fn judge(&self, rule: &Rule, numerics: Numerics) -> Verdict {
        let mut verdict = Verdict::NotApplied;
        for body in rewrite_results(&self.instance.body, &self.instance.module, rule) {
            let right = match evaluate_rewritten(&self.left, &body, &self.instance.module) {
                Ok(right) => right,
                Err(e) => {
                    let message = format!("the right side has no value: {}", e.message);
                    return Verdict::Applied(if self.empty {
                        Agreement::Empty
                    } else {
                        Agreement::Differs(message)
                    });
                }
            };
            for (l, r) in self.left.results.iter().zip(&right) {
                match (agree(l, r, numerics, &self.left), &verdict) {
                    (Agreement::Differs(m), _) => return Verdict::Applied(Agreement::Differs(m)),
                    (Agreement::Equal, Verdict::Applied(_)) => {}
                    (agreement, _) => verdict = Verdict::Applied(agreement),
                }
            }
        }
        verdict
    }
}

/// The substitutions of element types under which a rule is checked: what replaces f32 in its examples.
pub(crate) const FLOAT_TYPES: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];

/// Replaces one element type by another in all slots.
pub(crate) fn replace_dtype(frame: &mut Frame, from: DType, to: DType) {
    for slots in &mut frame.members {
        visit_dtypes(slots, &mut |d| {
            if *d == from {
                *d = to;
            }
        });
    }
}

/// The size plans of an example with this many letters, the default first.
fn plans(letters: usize) -> Vec<Plan> {
    let mut out = vec![Plan::Distinct, Plan::Random, Plan::Random, Plan::All(1), Plan::All(3), Plan::All(0)];
    for i in 0..letters {
        out.extend([Plan::One(i, 1), Plan::One(i, 0)]);
    }
    out
}

/// The profiles under which a frame is tried.
fn profiles(plan: &Plan, dtype: DType, numerics: Numerics) -> &'static [Profile] {
    match (plan, dtype, numerics) {
        (Plan::Distinct, _, Numerics::Exact) => {
            &[Profile::Normal, Profile::Wide, Profile::Zeros, Profile::NonFinite, Profile::Extreme]
        }
        (Plan::Distinct, DType::F64, _) => {
            &[Profile::Normal, Profile::Wide, Profile::Zeros, Profile::NonFinite]
        }
        (Plan::Distinct, _, _) => &[Profile::Normal, Profile::Zeros, Profile::NonFinite],
        (Plan::Random, DType::F64 | DType::F32, _) => &[Profile::Normal, Profile::Zeros, Profile::NonFinite],
        (_, DType::F64, _) => &[Profile::Normal],
        _ => &[],
    }
}

/// The cases of all examples of a rule: sizes, element types and kinds of values varied.
///
/// # Errors
/// What an example leaves out.
pub(crate) fn standard_cases(rule: &Rule, seed: u64) -> Result<Vec<Case>, String> {
    let mut out = Vec::new();
    let fail = |r: Refusal| match r {
        Refusal::Example(m) | Refusal::Type(m) => format!("the example of rule '{}': {m}", rule.name),
    };
    for (e, example) in rule.examples.iter().enumerate() {
        let letters = crate::slots::letters(&crate::slots::slots_of(example)).len();
        for (p, plan) in plans(letters).iter().enumerate() {
            let mut rng = Rng::new(seed, &format!("{} sizes {e} {p}", rule.name));
            let frame = plan.frame(rule, example, 2 + rng.below(3), &mut rng);
            for dtype in FLOAT_TYPES {
                let mut typed = frame.clone();
                replace_dtype(&mut typed, DType::F32, dtype);
                if typed == frame && dtype != DType::F32 {
                    continue;
                }
                for (n, profile) in profiles(plan, dtype, rule.numerics).iter().enumerate() {
                    let label = format!("example {e}, {plan:?}, {dtype}, {profile:?} {n}");
                    let case = Case::new(rule, &typed, *profile, label, seed).map_err(fail)?;
                    let required = *plan == Plan::Distinct && dtype == DType::F32 && n == 0;
                    match case {
                        Some(case) => out.push(Case { required, ..case }),
                        None if required => {
                            let reason = build(rule, &typed, *profile, &Rng::new(seed, "reason")).err();
                            let reason = reason.map_or_else(|| "it has no value".to_owned(), fail);
                            return Err(format!("example {e} does not make a left side: {reason}"));
                        }
                        None => {}
                    }
                }
            }
        }
        out.extend(symbolic_cases(rule, e, letters, seed).map_err(fail)?);
    }
    Ok(out)
}

/// Cases whose types keep the letters symbolic: the rule is applied for all sizes at once, then tried at some.
fn symbolic_cases(rule: &Rule, e: usize, letters: usize, seed: u64) -> Result<Vec<Case>, Refusal> {
    let mut out = Vec::new();
    for plan in plans(letters) {
        let mut rng = Rng::new(seed, &format!("{} symbols {e} {plan:?}", rule.name));
        let mut frame = plan.symbolic_frame(rule, &rule.examples[e], &mut rng);
        if frame.symbols.is_empty() {
            continue;
        }
        replace_dtype(&mut frame, DType::F32, DType::F64);
        let label = format!("example {e}, {plan:?}, symbolic");
        out.extend(Case::new(rule, &frame, Profile::Normal, label, seed)?);
    }
    Ok(out)
}
