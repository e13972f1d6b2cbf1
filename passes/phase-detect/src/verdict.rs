//! From facts to answers: which rules decide, and why.

use crate::findings::Findings;
use crate::rule::{Conclusion, Condition, Fact, FactSet, Rule, Rules};
use djinn_ir::Dim;
use djinn_srg::{Modality, Phase};

/// What a function is.
pub(crate) struct Verdict<'r> {
    pub(crate) workload: &'r str,
    pub(crate) workload_rule: &'r Rule,
    pub(crate) phase: Phase,
    pub(crate) phase_rule: &'r Rule,
    /// The phase if this number of query positions is 1.
    pub(crate) if_one: Option<(Phase, Dim)>,
    /// Rules that say where modalities enter.
    pub(crate) seeds: Vec<(&'r Rule, Modality, Fact)>,
    /// Rules that refine the phase of operations of one modality.
    pub(crate) refinements: Vec<(&'r Rule, Modality, Phase)>,
}

/// Applies the rules; `None` if no rule gives a workload and a phase (the built-in ones always do).
pub(crate) fn decide<'r>(rules: &'r Rules, found: &Findings) -> Option<Verdict<'r>> {
    let holding = || rules.rules.iter().filter(|r| r.holds(found.facts));
    let (workload_rule, workload) = holding().find_map(|r| match &r.conclusion {
        Conclusion::Workload(word) => Some((r, word.as_str())),
        _ => None,
    })?;
    let (phase_rule, phase, one) = holding().find_map(|r| match r.conclusion {
        Conclusion::Phase(phase, one) => Some((r, phase, one)),
        _ => None,
    })?;
    let seeds = holding().filter_map(|r| match r.conclusion {
        Conclusion::Modality(modality, fact) => Some((r, modality, fact)),
        _ => None,
    });
    let refinements = rules.rules.iter().filter_map(|r| match (r.condition, &r.conclusion) {
        (Condition::Within(outer, modality), Conclusion::Phase(inner, _)) if outer == phase => {
            Some((r, modality, *inner))
        }
        _ => None,
    });
    Some(Verdict {
        workload,
        workload_rule,
        phase,
        phase_rule,
        if_one: one.zip(found.queries.clone()),
        seeds: seeds.collect(),
        refinements: refinements.collect(),
    })
}

impl Verdict<'_> {
    /// The answer with its guard, such as `llm_decode when s0 = 1, else llm_prefill`.
    pub(crate) fn guarded(&self) -> Option<String> {
        let (one, queries) = self.if_one.as_ref()?;
        Some(format!("{} when {queries} = 1, else {}", one.word(), self.phase.word()))
    }

    /// The phase of an operation of this modality.
    pub(crate) fn phase_of(&self, modality: Modality) -> Phase {
        self.refinements.iter().find(|(_, m, _)| *m == modality).map_or(self.phase, |(_, _, phase)| *phase)
    }
}

/// The facts behind a rule: how often each was found.
pub(crate) fn evidence(rule: &Rule, found: &Findings) -> String {
    let Condition::Facts(all, _) = rule.condition else { return String::new() };
    let mut parts: Vec<String> = Vec::new();
    for fact in Fact::ALL.iter().filter(|f| FactSet::has(all, **f)) {
        let count = found.evidence.get(fact).map_or(0, |e| e.count);
        parts.push(if count > 1 { format!("{} ×{count}", fact.word()) } else { fact.word().to_owned() });
    }
    parts.join(", ")
}
