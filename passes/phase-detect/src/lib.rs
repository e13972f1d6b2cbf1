//! `phase-detect`: workload, phase, residency and modality of every operation, with reasons.
//!
//! What can be found in a graph is a closed set of facts (attention, caches of keys and values, embeddings of tokens,
//! images, time steps, gradients, …); which facts make which answer stands in `rules/*.rules`. The pass works on any
//! spelling: attention may be one operation or a softmax between two products.
//!
//! Requires a verified module. Ensures that every operation carries the annotations `phase`, `residency` and
//! `modality` ([`djinn_srg::Phase`], [`djinn_srg::Residency`], [`djinn_srg::Modality`]), and that the metadata holds
//!
//! | key | value |
//! |---|---|
//! | `workload` | the workloads of all functions, sorted, joined by commas |
//! | `workload.<function>`, `phase.<function>`, `modality.<function>` | one word |
//! | `phase.<function>.when` | the guarded answer, if the phase depends on a symbolic size |
//! | `cache.<function>.arguments`, `cache.<function>.results` | numbers of what lives from call to call, joined by spaces |
//!
//! Preserves operations, types and results. What the frontend annotated stays; where it contradicts what is found, a
//! remark gives both reasons.
//!
//! Conventions:
//! - an operation that depends on weights and constants only is a `persistent_weight`, whatever its users do;
//! - `stateful_kv_cache` is said of a cache with the new keys in, of results that are a cache, and of every update of
//!   a state;
//! - with a cache, one query position is a decode and a symbolic number of them a guarded answer; a fixed handful
//!   (up to 8, and a quarter of the cache) is a speculative decode, more is a chunked prefill;
//! - attention over another source is `fusion` where modalities differ, in the phase of its function; the stream of
//!   its queries keeps its modality;
//! - sound has no phase of its own: it is encoded in a plain `forward`;
//! - plain numbers have the modality `unknown`.

mod attention;
mod findings;
mod gradient;
mod rule;
mod scan;
mod spread;
#[cfg(test)]
mod tests;
mod verdict;

use djinn_diag::{Context, RemarkKind, Result, clipped, input};
use djinn_ir::graph::{ArgumentKind, Op, ResultKind};
use djinn_ir::{Attr, Function, Graph, Module, OpId, ValueId, walk};
use djinn_pass::{OptionInfo, Pass, PassContext, PassInfo, PassOptions};
use djinn_srg::{Modality, Phase, Residency};
use findings::Findings;
use rule::Rules;
use scan::Scan;
use spread::Spread;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use verdict::Verdict;

/// What the pass manager knows of `phase-detect`.
pub static INFO: PassInfo = PassInfo {
    name: "phase-detect",
    summary: "finds workload, phase, residency and modality of every operation, with reasons",
    requires: "a verified module",
    ensures: "every operation has the annotations phase, residency and modality; the metadata has the verdicts",
    preserves: "everything but annotations and metadata; annotations that were given",
    options: &[OptionInfo {
        name: "redo",
        default: "false",
        summary: "forget annotations that are there and find them again (after sizes were bound, say)",
    }],
};

/// End of the metadata key that says that annotations were there before the pass first ran. Without it those that a
/// later run finds are its own, which rewrites may have carried to operations that they do not fit.
const GIVEN: &str = ".given";

/// The annotations that the pass writes.
const ANNOTATIONS: [&str; 3] = ["phase", "residency", "modality"];

/// The pass.
#[derive(Debug, Default)]
pub struct PhaseDetect {
    redo: bool,
}

/// Makes the pass from its options.
///
/// # Errors
/// `redo` must be `true` or `false`.
pub fn make(options: &PassOptions) -> Result<Box<dyn Pass>> {
    Ok(Box::new(PhaseDetect { redo: options.bool("redo")? }))
}

impl Pass for PhaseDetect {
    fn info(&self) -> &'static PassInfo {
        &INFO
    }

    fn run(&self, module: &mut Module, cx: &mut PassContext) -> Result<()> {
        let rules = rule::builtin()?;
        let mut workloads = BTreeSet::new();
        for i in 0..module.functions.len() {
            let name = Arc::clone(&module.functions[i].name);
            let ran_before = module.metadata.contains_key(key("phase", &name, "").as_str());
            let were_given = module.metadata.contains_key(key("phase", &name, GIVEN).as_str());
            let own = ran_before && !were_given;
            let mode = Given { ignore: self.redo || own, spread: !ran_before };
            workloads.insert(run_function(module, i, rules, mode, cx).at(|| format!("function '{name}'"))?);
        }
        let all: Vec<&str> = workloads.into_iter().collect();
        if !all.is_empty() {
            module.metadata.insert(Arc::from("workload"), Arc::from(all.join(",")));
        }
        Ok(())
    }
}

/// What to do with annotations that are there already.
#[derive(Clone, Copy)]
struct Given {
    /// Forget them.
    ignore: bool,
    /// Let given modalities flow on; after an earlier run of this pass they are its own results.
    spread: bool,
}

/// Annotations that were there already, by operation.
#[derive(Default)]
struct GivenWords {
    phase: BTreeMap<OpId, Phase>,
    residency: BTreeMap<OpId, Residency>,
    modality: BTreeMap<OpId, Modality>,
}

impl GivenWords {
    fn any(&self) -> bool {
        !(self.phase.is_empty() && self.residency.is_empty() && self.modality.is_empty())
    }
}

fn key(what: &str, function: &str, more: &str) -> String {
    format!("{what}.{function}{more}")
}

fn run_function<'r>(
    module: &mut Module,
    index: usize,
    rules: &'r Rules,
    mode: Given,
    cx: &mut PassContext,
) -> Result<&'r str> {
    let function = &module.functions[index];
    let graph = &function.graph;
    let given = if mode.ignore { GivenWords::default() } else { given_words(graph)? };
    let mut found = findings::find(module, graph, rules);
    states(function, &mut found);
    let Some(verdict) = verdict::decide(rules, &found) else {
        return Err(djinn_diag::internal("phase-detect.rules", "no rule gives a workload and a phase"));
    };
    let flowing = if mode.spread { &given.modality } else { &BTreeMap::new() };
    let spread = spread::spread(graph, &found, &verdict, flowing);
    let answers = answers(graph, &found, &verdict, &spread);
    let mut remarks = Remarks { cx, function };
    remarks.verdict(&verdict, &found, &spread);
    remarks.cache(&found);
    remarks.contradictions(&answers, &given, &verdict);
    let phase = unanimous(&given.phase, &answers).unwrap_or(verdict.phase);
    let mut entries = metadata(function, &found, &verdict, phase, spread.of_function);
    entries.push((key("phase", &function.name, GIVEN), given.any().then(|| "true".to_owned())));
    let name = Arc::clone(&function.name);
    write_metadata(module, &name, entries, cx);
    let body = &mut module.functions[index].graph;
    cx.count("operations annotated", answers.len() as u64);
    annotate(body, &answers, &given);
    annotate_regions(body, phase, spread.of_function, mode.ignore)?;
    Ok(verdict.workload)
}

/// Adds what the function's signature says of states to what was found of caches.
fn states(function: &Function, found: &mut Findings) {
    for (i, (_, kind)) in function.arguments.iter().enumerate() {
        if matches!(kind, ArgumentKind::State { .. }) {
            found.cache_arguments.insert(i);
        }
    }
    for (v, (_, kind)) in function.graph.results.iter().zip(&function.results) {
        if let ResultKind::Update(argument) = kind
            && found.cache_arguments.contains(&(*argument as usize))
        {
            found.cache_values.insert(*v);
        }
    }
    let scan = Scan::new(&function.graph);
    for v in function.graph.results.iter().filter(|v| scan.rank(**v) >= 3) {
        let cached = |v: ValueId| found.cache_values.contains(&v);
        let end = scan.walk(*v, |op| {
            let made = op.results.first().is_some_and(|v| cached(*v));
            if made { None } else { scan.moved_from(op) }
        });
        if cached(end) {
            found.cache_values.insert(*v);
        }
    }
}

/// The words that operations of the graph carry already.
fn given_words(graph: &Graph) -> Result<GivenWords> {
    let mut given = GivenWords::default();
    for (id, op) in graph.ops() {
        if let Some(phase) = given_word(op, "phase", Phase::from_word)?.filter(|p| *p != Phase::Unknown) {
            given.phase.insert(id, phase);
        }
        if let Some(residency) = given_word(op, "residency", Residency::from_word)? {
            given.residency.insert(id, residency);
        }
        if let Some(modality) =
            given_word(op, "modality", Modality::from_word)?.filter(|m| *m != Modality::Unknown)
        {
            given.modality.insert(id, modality);
        }
    }
    Ok(given)
}

fn given_word<T>(op: &Op, name: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
    let Some(attr) = op.annotations.get(name) else { return Ok(None) };
    let word = if let Attr::Str(word) = attr { read(word) } else { None };
    word.map(Some).ok_or_else(|| {
        let shown = if let Attr::Str(word) = attr { clipped(word, 40, 0) } else { "no text".into() };
        input(
            "phase-detect.word",
            format!("annotation '{name}' of '{}' is no word of its kind: {shown}", op.kind.name()),
        )
        .help("the words stand in the documentation of the SRG; leave the annotation out to have it found")
    })
}

/// Phase, residency and modality of an operation.
type Answer = (Phase, Residency, Modality);

fn answers(graph: &Graph, found: &Findings, verdict: &Verdict<'_>, spread: &Spread) -> Vec<(OpId, Answer)> {
    let scan = Scan::new(graph);
    let mut answers = Vec::with_capacity(graph.len());
    for (id, set) in &spread.of_op {
        let op = graph.op(*id);
        let modality = spread::word_of(*set);
        let residency = residency(&scan, *id, op, found);
        answers.push((*id, (verdict.phase_of(modality), residency, modality)));
    }
    answers
}

fn residency(scan: &Scan<'_>, id: OpId, op: &Op, found: &Findings) -> Residency {
    if op.results.iter().any(|v| found.cache_values.contains(v)) {
        Residency::StatefulKvCache
    } else if op.results.first().is_some_and(|v| scan.is_ahead(*v)) {
        Residency::PersistentWeight
    } else if found.gradients.contains(&id) {
        Residency::Gradient
    } else {
        Residency::EphemeralActivation
    }
}

/// The one phase that was given to more than half of the operations, and no other phase to any.
fn unanimous(given: &BTreeMap<OpId, Phase>, answers: &[(OpId, Answer)]) -> Option<Phase> {
    let first = given.values().next().copied()?;
    (given.len() * 2 > answers.len() && given.values().all(|p| *p == first)).then_some(first)
}

/// Writes what is not there yet.
fn annotate(graph: &mut Graph, answers: &[(OpId, Answer)], given: &GivenWords) {
    let words = Words::new();
    for (id, (phase, residency, modality)) in answers {
        let phase = given.phase.get(id).unwrap_or(phase);
        let residency = given.residency.get(id).unwrap_or(residency);
        let modality = given.modality.get(id).unwrap_or(modality);
        for (name, word) in ANNOTATIONS.into_iter().zip([phase.word(), residency.word(), modality.word()]) {
            graph.annotate(*id, name, words.attr(word));
        }
    }
}

/// Annotation values that share their text.
struct Words(BTreeMap<&'static str, Attr>);

impl Words {
    fn new() -> Self {
        let phases = Phase::ALL.iter().map(|w| w.word());
        let rest = Residency::ALL.iter().map(|w| w.word()).chain(Modality::ALL.iter().map(|w| w.word()));
        Words(phases.chain(rest).map(|w| (w, Attr::Str(Arc::from(w)))).collect())
    }

    fn attr(&self, word: &'static str) -> Attr {
        self.0.get(word).cloned().unwrap_or_else(|| word.into())
    }
}

/// Operations within regions are of the phase and modality of their function.
fn annotate_regions(graph: &mut Graph, phase: Phase, set: spread::Set, redo: bool) -> Result<()> {
    if graph.ops().all(|(_, op)| op.regions.is_empty()) {
        return Ok(());
    }
    let modality = spread::word_of(set);
    let mut regions = 0usize;
    walk::for_each_graph(graph, &mut |_| regions += 1);
    walk::for_each_graph_mut(graph, &mut |body| {
        // Regions come before the graph that they are in: the function's own body is the last.
        regions -= 1;
        if regions == 0 {
            return Ok(());
        }
        let given = if redo { GivenWords::default() } else { given_words(body)? };
        let scan = Scan::new(body);
        let nothing = Findings::default();
        let answer = |(id, op)| (id, (phase, residency(&scan, id, op, &nothing), modality));
        let answers: Vec<(OpId, Answer)> = body.ops().map(answer).collect();
        annotate(body, &answers, &given);
        Ok(())
    })
}

fn metadata(
    function: &Function,
    found: &Findings,
    verdict: &Verdict<'_>,
    phase: Phase,
    modality: spread::Set,
) -> Vec<(String, Option<String>)> {
    let name = &*function.name;
    let numbers = |list: Vec<usize>| {
        let text: Vec<String> = list.iter().map(ToString::to_string).collect();
        (!text.is_empty()).then(|| text.join(" "))
    };
    let results = (0..function.graph.results.len())
        .filter(|i| found.cache_values.contains(&function.graph.results[*i]));
    vec![
        (key("workload", name, ""), Some(verdict.workload.to_owned())),
        (key("phase", name, ""), Some(phase.word().to_owned())),
        (key("phase", name, ".when"), verdict.guarded().filter(|_| phase == verdict.phase)),
        (key("modality", name, ""), Some(spread::word_of(modality).word().to_owned())),
        (key("cache", name, ".arguments"), numbers(found.cache_arguments.iter().copied().collect())),
        (key("cache", name, ".results"), numbers(results.collect())),
    ]
}

/// Writes the verdict; says so where it replaces another one.
fn write_metadata(
    module: &mut Module,
    function: &str,
    entries: Vec<(String, Option<String>)>,
    cx: &mut PassContext,
) {
    for (key, value) in entries {
        let old = match &value {
            Some(value) => module.metadata.insert(Arc::from(key.as_str()), Arc::from(value.as_str())),
            None => module.metadata.remove(key.as_str()),
        };
        if let Some(old) = old.filter(|old| Some(&**old) != value.as_deref()) {
            let now = value.as_deref().unwrap_or("nothing");
            let message =
                format!("'{key}' was '{}' and is '{}' now", clipped(&old, 60, 20), clipped(now, 60, 20));
            cx.remark(RemarkKind::Missed, "contradiction", function, message);
        }
    }
}

/// Says what was found and why.
struct Remarks<'c, 'f> {
    cx: &'c mut PassContext,
    function: &'f Function,
}

impl Remarks<'_, '_> {
    fn say(&mut self, kind: RemarkKind, rule: &str, place: &str, message: String) {
        self.cx.remark(kind, rule, place, message);
    }

    /// Module scope of an operation, else the function.
    fn place(&self, id: Option<OpId>) -> Arc<str> {
        let scope = id.and_then(|id| self.function.graph.get_op(id)).and_then(|op| op.location.scope.clone());
        scope.unwrap_or_else(|| Arc::clone(&self.function.name))
    }

    fn verdict(&mut self, verdict: &Verdict<'_>, found: &Findings, spread: &Spread) {
        let name = Arc::clone(&self.function.name);
        let rule = verdict.workload_rule;
        let message = format!("workload {}: {}{}", verdict.workload, rule.sentence, because(rule, found));
        self.say(RemarkKind::Analysis, &rule.name, &name, message);
        let rule = verdict.phase_rule;
        let answer = verdict.guarded().unwrap_or_else(|| verdict.phase.word().to_owned());
        let message = format!("phase {answer}: {}{}", rule.sentence, because(rule, found));
        self.say(RemarkKind::Analysis, &rule.name, &name, message);
        let modality = spread::word_of(spread.of_function).word();
        self.say(
            RemarkKind::Analysis,
            "modality",
            &name,
            format!("modality {modality}: what the results carry"),
        );
        for (rule, modality, fact) in &verdict.seeds {
            let place = self.place(found.evidence.get(fact).and_then(|e| e.first));
            let message = format!("modality {}: {}{}", modality.word(), rule.sentence, because(rule, found));
            self.say(RemarkKind::Analysis, &rule.name, &place, message);
        }
        for (rule, modality, phase) in &verdict.refinements {
            let count = spread.of_op.iter().filter(|(_, set)| spread::word_of(*set) == *modality).count();
            if count > 0 {
                let message = format!("phase {} of {count} operations: {}", phase.word(), rule.sentence);
                self.say(RemarkKind::Analysis, &rule.name, &name, message);
            }
        }
    }

    fn cache(&mut self, found: &Findings) {
        let names =
            |list: &mut dyn Iterator<Item = &Arc<str>>| list.map(|n| &**n).collect::<Vec<_>>().join(", ");
        let arguments = names(
            &mut found.cache_arguments.iter().filter_map(|i| Some(&self.function.arguments.get(*i)?.0)),
        );
        let cached = self.function.graph.results.iter().zip(&self.function.results);
        let results = names(&mut cached.filter(|(v, _)| found.cache_values.contains(v)).map(|(_, (n, _))| n));
        let name = Arc::clone(&self.function.name);
        for (rule, list, what) in
            [("cache-read", arguments, "arguments"), ("cache-written", results, "results")]
        {
            if !list.is_empty() {
                let list = clipped(&list, 160, 40);
                self.say(
                    RemarkKind::Analysis,
                    rule,
                    &name,
                    format!("{what} that live from call to call: {list}"),
                );
            }
        }
        if found.frozen_cache {
            let message = "new keys and values are written into a weight, and no result hands them on: the file lost \
                           the update of the cache; export the model with the cache as inputs and outputs";
            self.say(RemarkKind::Missed, "frozen-cache", &name, message.to_owned());
        }
    }

    /// Given annotations that differ from what is found stay; both reasons are told, once a kind.
    fn contradictions(&mut self, answers: &[(OpId, Answer)], given: &GivenWords, verdict: &Verdict<'_>) {
        let mut told: BTreeMap<(&str, &str, &str), (usize, OpId)> = BTreeMap::new();
        for (id, (phase, residency, modality)) in answers {
            let pairs = [
                ("phase", given.phase.get(id).map(|w| w.word()), phase.word()),
                ("residency", given.residency.get(id).map(|w| w.word()), residency.word()),
                ("modality", given.modality.get(id).map(|w| w.word()), modality.word()),
            ];
            for (what, given, found) in pairs {
                if let Some(given) = given.filter(|g| *g != found) {
                    told.entry((what, given, found)).or_insert((0, *id)).0 += 1;
                }
            }
        }
        for ((what, given, found), (count, first)) in told {
            let reason = match what {
                "phase" => verdict.phase_rule.sentence.as_str(),
                "residency" => "it follows from what the value depends on and where it goes.",
                _ => "it follows from the operands.",
            };
            let place = self.place(Some(first));
            let message = format!(
                "{what} {given} of {count} operations is kept because it was given; found is {found}: {reason}"
            );
            self.say(RemarkKind::Missed, "contradiction", &place, message);
        }
    }
}

/// The facts behind a rule, in parentheses.
fn because(rule: &rule::Rule, found: &Findings) -> String {
    match verdict::evidence(rule, found) {
        facts if facts.is_empty() => String::new(),
        facts => format!(" ({facts})"),
    }
}
