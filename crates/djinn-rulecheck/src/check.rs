//! The check of one rule, and of all.

use crate::case::{Case, Verdict, standard_cases};
use crate::evaluate::Agreement;
use crate::field::{self, FieldOutcome};
use crate::perturb::{perturbed_cases, walked_cases};
use djinn_egraph::rule::{Numerics, Rule};
use std::collections::BTreeMap;
use std::fmt;

/// How much is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Decides every random choice.
    pub seed: u64,
    /// Random points over the finite fields, for each example.
    pub field_trials: usize,
    /// Try instances near the examples, too.
    pub perturbations: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config { seed: 1, field_trials: 4, perturbations: true }
    }
}

/// What was found out about one rule.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleReport {
    /// The rule.
    pub name: String,
    /// File and line.
    pub place: String,
    /// Its numerics class, in words.
    pub class: String,
    /// Left sides built and evaluated.
    pub instances: usize,
    /// Of these, how many the rule applied to and both sides were compared on.
    pub float_trials: usize,
    /// What the finite fields say.
    pub field: FieldOutcome,
    /// Why the rule is refused; empty if it passes.
    pub failures: Vec<String>,
    /// What is worth knowing of a rule that passes.
    pub notes: Vec<String>,
}

impl RuleReport {
    /// Does the rule pass?
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// The reports of several rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// One entry for each rule, in order.
    pub rules: Vec<RuleReport>,
}

/// How many failures of one rule are reported.
const MAX_FAILURES: usize = 3;

fn class_name(numerics: Numerics) -> String {
    match numerics {
        Numerics::Exact => "exact".into(),
        Numerics::Reassoc => "reassoc".into(),
        Numerics::Approx(t) => format!("approx {t:e}"),
    }
}

/// Checks one rule.
pub fn check_rule(rule: &Rule, config: &Config) -> RuleReport {
    let mut report = RuleReport {
        name: rule.name.clone(),
        place: rule.place.clone(),
        class: class_name(rule.numerics),
        instances: 0,
        float_trials: 0,
        field: FieldOutcome::Skipped("the examples fail".into()),
        failures: Vec::new(),
        notes: Vec::new(),
    };
    match standard_cases(rule, config.seed) {
        Ok(cases) => report.judge(rule, &cases),
        Err(message) => report.failures.push(message),
    }
    if !report.failures.is_empty() {
        return report;
    }
    if config.perturbations {
        report.judge(rule, &perturbed_cases(rule, config.seed));
        walked_cases(rule, &[], config.seed, |case| {
            report.judge(rule, &[case]);
            report.failures.len() < MAX_FAILURES
        });
    }
    report.field = field::check(rule, config.field_trials, config.seed);
    if let FieldOutcome::Failed(message) = &report.field {
        report.failures.push(format!("finite fields: {message}"));
    }
    report
}

impl RuleReport {
    fn judge(&mut self, rule: &Rule, cases: &[Case]) {
        self.instances += cases.len();
        for case in cases {
            let verdict = case.judge(rule, rule.numerics);
            self.float_trials += usize::from(verdict != Verdict::NotApplied);
            match verdict {
                Verdict::NotApplied if case.required => {
                    self.failures
                        .push(format!("the example of rule '{}' does not match ({})", rule.name, case.label));
                }
                Verdict::Applied(Agreement::Differs(message)) if self.failures.len() < MAX_FAILURES => {
                    self.failures.push(format!("{}: {message}", case.label));
                }
                Verdict::Applied(Agreement::NonFinite(_)) => self.note("differs on non-finite values"),
                Verdict::Applied(Agreement::Lossy(_)) => {
                    self.note("loses finite values for non-finite operands")
                }
                Verdict::Applied(Agreement::Empty) => self.note("refuses empty tensors"),
                Verdict::Applied(_) | Verdict::NotApplied => {}
            }
        }
    }

    fn note(&mut self, text: &str) {
        if !self.notes.iter().any(|n| n == text) {
            self.notes.push(text.to_owned());
        }
    }
}

/// Checks rules; their names must be unique.
pub fn check_rules(rules: &[Rule], config: &Config) -> Report {
    let mut reports: Vec<RuleReport> = rules.iter().map(|r| check_rule(r, config)).collect();
    let mut places: BTreeMap<&str, &str> = BTreeMap::new();
    for (rule, report) in rules.iter().zip(&mut reports) {
        if let Some(first) = places.insert(&rule.name, &rule.place) {
            report.failures.push(format!("the rule at {first} has the same name"));
        }
    }
    Report { rules: reports }
}

impl Report {
    /// The rules that fail.
    pub fn failures(&self) -> impl Iterator<Item = &RuleReport> {
        self.rules.iter().filter(|r| !r.passed())
    }

    /// How often each reason kept a rule from the finite fields.
    pub fn skip_reasons(&self) -> BTreeMap<&str, usize> {
        let mut out = BTreeMap::new();
        for r in &self.rules {
            if let FieldOutcome::Skipped(reason) = &r.field {
                *out.entry(reason.as_str()).or_insert(0) += 1;
            }
        }
        out
    }
}

impl fmt::Display for RuleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RuleReport { name, class, instances, float_trials, .. } = self;
        let field = self.field.to_string();
        let notes = self.notes.join(", ");
        write!(f, "{name:34} {class:9} {instances:5} {float_trials:6}  {field:40} {notes}")?;
        self.failures.iter().try_for_each(|m| write!(f, "\n    FAILED ({}): {m}", self.place))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:34} {:9} {:>5} {:>6}  {:40} notes", "rule", "class", "built", "floats", "fields")?;
        self.rules.iter().try_for_each(|r| writeln!(f, "{r}"))?;
        let checked = self.rules.iter().filter(|r| matches!(r.field, FieldOutcome::Checked(_))).count();
        let (all, failed) = (self.rules.len(), self.failures().count());
        writeln!(
            f,
            "{all} rules, {failed} failed; {checked} checked over finite fields; the others were not because of:"
        )?;
        self.skip_reasons().iter().try_for_each(|(reason, n)| writeln!(f, "  {n:3} {reason}"))
    }
}
