//! Mutation analysis of the checker: how many broken rules does it find out?

use crate::case::{Case, Verdict, standard_cases};
use crate::check::Config;
use crate::evaluate::Agreement;
use crate::mutants::{Kind, Mutant, mutants};
use crate::perturb::{perturbed_cases, walked_cases};
use djinn_egraph::rule::Rule;
use std::fmt;

/// What became of one mutant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Found out, and how.
    Killed(String),
    /// Not a mutant in meaning: the lost condition follows from the types and the other conditions, since it
    /// decides nothing on any of this many instances on which the left side is well-typed.
    Implied(usize),
    /// Not found out.
    Survived(String),
}

/// Mutants of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// The rule.
    pub rule: String,
    /// What each mutant changes, and what became of it.
    pub mutants: Vec<(String, Outcome)>,
}

/// Mutants of all rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MutationReport {
    /// One entry for each rule.
    pub rules: Vec<Tally>,
}

/// Breaks every rule in many ways, and checks the broken ones.
pub fn mutation_report(rules: &[Rule], config: &Config) -> MutationReport {
    MutationReport { rules: rules.iter().map(|r| tally(r, config)).collect() }
}

/// A case and what the unbroken rule does with it.
struct Known {
    case: Case,
    verdict: Verdict,
}

fn known(rule: &Rule, cases: Vec<Case>) -> Vec<Known> {
    cases.into_iter().map(|case| Known { verdict: case.judge(rule, rule.numerics), case }).collect()
}

/// Perturbed cases, made when the first mutant needs them.
struct Perturbed<'a> {
    rule: &'a Rule,
    seed: u64,
    known: Option<Vec<Known>>,
}

impl Perturbed<'_> {
    fn get(&mut self) -> &[Known] {
        self.known.get_or_insert_with(|| known(self.rule, perturbed_cases(self.rule, self.seed)))
    }
}

fn tally(rule: &Rule, config: &Config) -> Tally {
    let standard = known(rule, standard_cases(rule, config.seed).unwrap_or_default());
    let mut perturbed = Perturbed { rule, seed: config.seed, known: None };
    let mutants = mutants(rule)
        .into_iter()
        .map(|m| {
            let outcome = match m.kind {
                Kind::Template => judge_template(&m, &standard, &mut perturbed),
                Kind::Condition => judge_condition(&m, rule, config.seed, &standard, perturbed.get()),
            };
            (m.what, outcome)
        })
        .collect();
    Tally { rule: rule.name.clone(), mutants }
}

/// How far a verdict is from agreement.
fn severity(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::NotApplied | Verdict::Applied(Agreement::Equal) => 0,
        Verdict::Applied(Agreement::Empty) => 1,
        Verdict::Applied(Agreement::NonFinite(_)) => 2,
        Verdict::Applied(Agreement::Lossy(_)) => 3,
        Verdict::Applied(Agreement::Differs(_)) => 4,
    }
}

/// What tells a mutant from the unbroken rule: a difference that is worse than any the unbroken rule shows.
fn worse(verdict: &Verdict, tolerated: u8) -> Option<String> {
    if severity(verdict) <= tolerated {
        return None;
    }
    match verdict {
        Verdict::Applied(Agreement::NonFinite(m) | Agreement::Lossy(m) | Agreement::Differs(m)) => {
            Some(m.clone())
        }
        Verdict::Applied(Agreement::Empty) => Some("empty tensors are refused".into()),
        Verdict::NotApplied | Verdict::Applied(Agreement::Equal) => None,
    }
}

/// The worst difference that the unbroken rule shows.
fn tolerated<'a>(known: impl IntoIterator<Item = &'a Known>) -> u8 {
    known.into_iter().map(|k| severity(&k.verdict)).max().unwrap_or(0).min(3)
}

fn judge_template(mutant: &Mutant, standard: &[Known], perturbed: &mut Perturbed<'_>) -> Outcome {
    match judge_applications(mutant, standard) {
        Outcome::Survived(_) => judge_applications(mutant, perturbed.get()),
        killed => killed,
    }
}

fn judge_applications(mutant: &Mutant, known: &[Known]) -> Outcome {
    let tolerated = tolerated(known);
    let mut tried = 0;
    for k in known.iter().filter(|k| k.verdict != Verdict::NotApplied) {
        tried += 1;
        let verdict = k.case.judge(&mutant.rule, mutant.rule.numerics);
        if verdict == Verdict::NotApplied && k.case.required {
            return Outcome::Killed("ill-typed".into());
        }
        if let Some(reason) = worse(&verdict, tolerated) {
            return Outcome::Killed(reason);
        }
    }
    Outcome::Survived(format!("both sides agree in {tried} trials"))
}

/// A condition is needed if, without it, the rule applies to a case on which it did not, and wrongly.
fn judge_condition(
    mutant: &Mutant,
    unbroken: &Rule,
    seed: u64,
    standard: &[Known],
    perturbed: &[Known],
) -> Outcome {
    let tolerated = tolerated(standard.iter().chain(perturbed));
    let (mut fresh, mut tried, mut killed, mut example) =
        (0, standard.len() + perturbed.len(), None, String::new());
    let mut judge = |case: &Case| {
        let verdict = case.judge(&mutant.rule, mutant.rule.numerics);
        killed = worse(&verdict, tolerated);
        if verdict != Verdict::NotApplied {
            fresh += 1;
            example.clone_from(&case.label);
        }
        killed.is_none()
    };
    let quiet = |k: &&Known| k.verdict == Verdict::NotApplied;
    if standard.iter().chain(perturbed).filter(quiet).all(|k| judge(&k.case)) {
        walked_cases(unbroken, &mutant.variables, seed, |case| {
            tried += 1;
            case.judge(unbroken, unbroken.numerics) != Verdict::NotApplied || judge(&case)
        });
    }
    match killed {
        Some(reason) => Outcome::Killed(reason),
        None if fresh == 0 => Outcome::Implied(tried),
        None => {
            Outcome::Survived(format!("it applies on {fresh} more instances, rightly (such as {example})"))
        }
    }
}

impl MutationReport {
    fn count(&self, wanted: impl Fn(&Outcome) -> bool) -> usize {
        self.rules.iter().flat_map(|t| &t.mutants).filter(|(_, o)| wanted(o)).count()
    }

    /// Mutants found out.
    pub fn killed(&self) -> usize {
        self.count(|o| matches!(o, Outcome::Killed(_)))
    }

    /// Mutants not found out.
    pub fn survived(&self) -> usize {
        self.count(|o| matches!(o, Outcome::Survived(_)))
    }

    /// Conditions that follow from types and other conditions.
    pub fn implied(&self) -> usize {
        self.count(|o| matches!(o, Outcome::Implied(_)))
    }

    /// Killed mutants among those that are killed or survive; 1 if there are none.
    pub fn kill_rate(&self) -> f64 {
        let (killed, survived) = (self.killed() as f64, self.survived() as f64);
        if killed + survived == 0.0 { 1.0 } else { killed / (killed + survived) }
    }
}

impl fmt::Display for MutationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for tally in &self.rules {
            for (what, outcome) in &tally.mutants {
                match outcome {
                    Outcome::Survived(reason) => writeln!(f, "survived: {:34} {what}: {reason}", tally.rule)?,
                    Outcome::Implied(n) => {
                        writeln!(f, "implied:  {:34} {what}: decides none of {n} instances", tally.rule)?
                    }
                    Outcome::Killed(_) => {}
                }
            }
        }
        let (killed, survived, implied) = (self.killed(), self.survived(), self.implied());
        let rate = 100.0 * self.kill_rate();
        writeln!(
            f,
            "{killed} mutants killed, {survived} survived, {implied} conditions implied: kill rate {rate:.1} %"
        )
    }
}
