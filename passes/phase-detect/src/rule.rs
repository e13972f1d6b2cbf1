//! The rules: named sentences over a closed set of facts, read from `rules/*.rules`.
//!
//! `(rule NAME "sentence" (when FACT… (not FACT)…) CONCLUSION…)`, where a conclusion is one of
//! `(workload WORD)`, `(phase WORD)`, `(phase-if-one WORD)`, `(modality WORD FACT)`; `(within PHASE MODALITY)`
//! in place of `when` makes a rule about single operations. `(source FACT WORD)` says which word in a scope or
//! source file gives a fact. `;` starts a comment.

use djinn_diag::{Result, internal};
use djinn_srg::{Modality, Phase};
use std::sync::OnceLock;

macro_rules! facts {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),* $(,)?) => {
        /// What can be found in a graph. The set is closed: a rule can only combine these.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Fact { $($(#[$doc])* $variant),* }

        impl Fact {
            /// Every fact.
            pub(crate) const ALL: &'static [Fact] = &[$(Fact::$variant),*];

            /// The word used in rules.
            pub(crate) fn word(self) -> &'static str {
                match self { $(Fact::$variant => $text),* }
            }
        }
    };
}

facts! {
    /// An input of whole numbers, one per position, picks rows of a table of weights.
    Tokens = "tokens",
    /// An input of whole numbers without positions (rank 1) picks rows of a table of weights.
    Labels = "labels",
    /// Several tables are looked up by different parts of the input, and nothing gives their entries an order.
    Categories = "categories",
    /// An input of rank 4 or 5 feeds a convolution or a patch embedding.
    Image = "image",
    /// An input of rank 3 feeds a one-dimensional convolution.
    Sound = "sound",
    /// Two or more of text, image and sound come in.
    SeveralModalities = "several-modalities",
    /// The sine and cosine of an input of rank at most 1.
    Timestep = "timestep",
    /// An input comes out in the same shape (of an image: the same height and width).
    Denoised = "denoised",
    /// softmax(Q·Kᵀ)·V.
    Attention = "attention",
    /// Attention masks what comes later.
    Causal = "causal",
    /// Attention whose queries depend on an input that its keys do not see.
    CrossAttention = "cross-attention",
    /// An input from which such keys come.
    Context = "context",
    /// Keys and values of attention are read from what an earlier call left.
    Cached = "cached",
    /// Keys and values of attention are results.
    CacheMade = "cache-made",
    /// The attention that reads the cache has one query position.
    QueryOne = "query-one",
    /// It has a few, and far more keys.
    QueryFew = "query-few",
    /// Their number is symbolic.
    QuerySymbolic = "query-symbolic",
    /// Tokens have one position.
    OneToken = "one-token",
    /// A result has a last axis as long as the table of tokens.
    Vocabulary = "vocabulary",
    /// A convolution over two or more dimensions.
    Convolution = "convolution",
    /// A result is an image, larger than the image that came in, if one did.
    ImageMade = "image-made",
    /// A recurrent cell, or a weight that meets what it made before.
    Recurrence = "recurrence",
    /// A selective scan.
    Scan = "scan",
    /// A scan's state comes in and goes out.
    ScanState = "scan-state",
    /// A result is a product of an activation and of what flows back, shaped like the weight the activation met.
    WeightGradient = "weight-gradient",
    /// The code around cross-attention speaks of speech or audio.
    SpeechCode = "speech-code",
    /// The code around cross-attention speaks of vision.
    VisionCode = "vision-code",
}

/// A set of facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct FactSet(u64);

impl FactSet {
    /// Is it in the set?
    pub(crate) fn has(self, fact: Fact) -> bool {
        self.0 >> fact as u32 & 1 == 1
    }

    /// Puts it into the set.
    pub(crate) fn insert(&mut self, fact: Fact) {
        self.0 |= 1 << fact as u32;
    }
}

/// What a rule concludes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Conclusion {
    /// The function is this kind of model.
    Workload(String),
    /// The function is this phase; with a symbolic number of queries another one if that number is 1.
    Phase(Phase, Option<Phase>),
    /// The values that this fact names carry this modality.
    Modality(Modality, Fact),
}

/// When a rule applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// All of the first hold and none of the second.
    Facts(FactSet, FactSet),
    /// To operations of this modality in a function of this phase.
    Within(Phase, Modality),
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Unique name.
    pub(crate) name: String,
    /// One sentence, the reason that remarks give.
    pub(crate) sentence: String,
    /// When it applies.
    pub(crate) condition: Condition,
    /// What follows.
    pub(crate) conclusion: Conclusion,
}

impl Rule {
    /// Does it apply to a function with these facts?
    pub(crate) fn holds(&self, facts: FactSet) -> bool {
        matches!(self.condition, Condition::Facts(all, none) if facts.0 & all.0 == all.0 && facts.0 & none.0 == 0)
    }
}

/// Every rule, and the words of the code that give facts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Rules {
    /// Rules, in the order of the files.
    pub(crate) rules: Vec<Rule>,
    /// Facts by words of scopes and source files.
    pub(crate) sources: Vec<(Fact, String)>,
}

/// The rule files.
const FILES: [(&str, &str); 4] = [
    ("modality.rules", include_str!("../rules/modality.rules")),
    ("workload.rules", include_str!("../rules/workload.rules")),
    ("phase.rules", include_str!("../rules/phase.rules")),
    ("sources.rules", include_str!("../rules/sources.rules")),
];

/// The built-in rules.
///
/// # Errors
/// An internal diagnostic if a file is malformed; a test makes sure that none is.
pub(crate) fn builtin() -> Result<&'static Rules> {
    static RULES: OnceLock<std::result::Result<Rules, String>> = OnceLock::new();
    let parse = || {
        let mut rules = Rules::default();
        for (file, text) in FILES {
            parse(text, &mut rules).map_err(|e| format!("{file}: {e}"))?;
        }
        Ok(rules)
    };
    RULES.get_or_init(parse).as_ref().map_err(|e| internal("phase-detect.rules", e.clone()))
}

/// A symbolic expression.
#[derive(Debug, PartialEq, Eq)]
enum Sexp {
    Word(String),
    List(Vec<Sexp>),
}

type Parsed<T> = std::result::Result<T, String>;

fn parse(text: &str, out: &mut Rules) -> Parsed<()> {
    for item in read(text)? {
        let Sexp::List(items) = item else { return Err("expected a list".into()) };
        match words(&items).as_slice() {
            [Some("source"), Some(fact), Some(word)] => {
                out.sources.push((fact_of(fact)?, (*word).to_owned()));
            }
            [Some("rule"), Some(name), Some(sentence), ..] => {
                let rule = rule(name, sentence, items.get(3..).unwrap_or_default())
                    .map_err(|e| format!("rule '{name}': {e}"))?;
                if out.rules.iter().any(|r| r.name == rule.name) {
                    return Err(format!("there are two rules '{name}'"));
                }
                out.rules.push(rule);
            }
            _ => return Err("expected (rule …) or (source …)".into()),
        }
    }
    Ok(())
}

fn rule(name: &str, sentence: &str, clauses: &[Sexp]) -> Parsed<Rule> {
    let mut condition = None;
    let mut conclusion = None;
    for clause in clauses {
        let Sexp::List(items) = clause else { return Err("expected a clause".into()) };
        match words(items).as_slice() {
            [Some("when"), ..] => condition = Some(when(items.get(1..).unwrap_or_default())?),
            [Some("within"), Some(phase), Some(modality)] => {
                condition = Some(Condition::Within(phase_of(phase)?, modality_of(modality)?));
            }
            [Some("workload"), Some(word)] => conclusion = Some(Conclusion::Workload((*word).to_owned())),
            [Some("phase"), Some(word)] => conclusion = Some(Conclusion::Phase(phase_of(word)?, None)),
            [Some("phase-if-one"), Some(word)] => match &mut conclusion {
                Some(Conclusion::Phase(_, one)) => *one = Some(phase_of(word)?),
                _ => return Err("phase-if-one stands after phase".into()),
            },
            [Some("modality"), Some(word), Some(fact)] => {
                conclusion = Some(Conclusion::Modality(modality_of(word)?, fact_of(fact)?));
            }
            _ => return Err("unknown clause".into()),
        }
    }
    let (Some(condition), Some(conclusion)) = (condition, conclusion) else {
        return Err("needs a condition and a conclusion".into());
    };
    Ok(Rule { name: name.to_owned(), sentence: sentence.to_owned(), condition, conclusion })
}

fn when(items: &[Sexp]) -> Parsed<Condition> {
    let (mut all, mut none) = (FactSet::default(), FactSet::default());
    for item in items {
        match item {
            Sexp::Word(word) => all.insert(fact_of(word)?),
            Sexp::List(items) => match words(items).as_slice() {
                [Some("not"), Some(word)] => none.insert(fact_of(word)?),
                _ => return Err("expected a fact or (not FACT)".into()),
            },
        }
    }
    Ok(Condition::Facts(all, none))
}

fn words(items: &[Sexp]) -> Vec<Option<&str>> {
    items.iter().map(|i| if let Sexp::Word(w) = i { Some(w.as_str()) } else { None }).collect()
}

fn fact_of(word: &str) -> Parsed<Fact> {
    Fact::ALL.iter().copied().find(|f| f.word() == word).ok_or_else(|| format!("there is no fact '{word}'"))
}

fn phase_of(word: &str) -> Parsed<Phase> {
    Phase::from_word(word).ok_or_else(|| format!("there is no phase '{word}'"))
}

fn modality_of(word: &str) -> Parsed<Modality> {
    Modality::from_word(word).ok_or_else(|| format!("there is no modality '{word}'"))
}

/// Reads lists, words and quoted texts.
fn read(text: &str) -> Parsed<Vec<Sexp>> {
    let mut open: Vec<Vec<Sexp>> = vec![Vec::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let item = match c {
            ';' => {
                chars.by_ref().take_while(|c| *c != '\n').for_each(drop);
                continue;
            }
            '(' => {
                open.push(Vec::new());
                continue;
            }
            ')' if open.len() > 1 => Sexp::List(open.pop().unwrap_or_default()),
            ')' => return Err("a ')' too many".into()),
            '"' => Sexp::Word(chars.by_ref().take_while(|c| *c != '"').collect()),
            c if c.is_whitespace() => continue,
            c => {
                let mut word = String::from(c);
                while let Some(c) = chars.next_if(|c| !c.is_whitespace() && !"();\"".contains(*c)) {
                    word.push(c);
                }
                Sexp::Word(word)
            }
        };
        if let Some(list) = open.last_mut() {
            list.push(item);
        }
    }
    match (open.pop(), open.is_empty()) {
        (Some(items), true) => Ok(items),
        _ => Err("a ')' is missing".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_rules_parse_and_are_about_something() {
        let rules = builtin().expect("parses");
        assert!(rules.rules.len() > 30, "{}", rules.rules.len());
        assert!(rules.rules.iter().all(|r| r.sentence.ends_with('.') && r.sentence.len() > 15));
        for fallback in ["generic", "forward"] {
            let rule = rules.rules.iter().find(|r| r.name == fallback).expect("is there");
            assert!(rule.holds(FactSet::default()));
        }
    }

    #[test]
    fn every_fact_is_used_by_a_rule() {
        let text: String = FILES.iter().map(|(_, t)| *t).collect();
        for fact in Fact::ALL {
            assert!(text.contains(fact.word()), "{}", fact.word());
        }
        assert!(Fact::ALL.len() <= 64);
    }

    #[test]
    fn conditions_are_conjunctions() {
        let mut rules = Rules::default();
        parse("(rule a \"A.\" (when tokens (not image)) (workload w)) ; end", &mut rules).expect("parses");
        let mut facts = FactSet::default();
        assert!(!rules.rules[0].holds(facts));
        facts.insert(Fact::Tokens);
        assert!(rules.rules[0].holds(facts));
        facts.insert(Fact::Image);
        assert!(!rules.rules[0].holds(facts));
    }

    #[test]
    fn malformed_rules_are_refused() {
        for text in [
            "(rule a \"A.\" (when tokens))",
            "(rule a \"A.\" (when tokems) (workload w))",
            "(rule a \"A.\" (when (or tokens)) (workload w))",
            "(rule a \"A.\" (when) (phase nophase))",
            "(rule a \"A.\" (when) (phase-if-one forward))",
            "(rule a \"A.\" (when) (modality smell tokens))",
            "(rule a \"A.\" (when) (workload w)) (rule a \"A.\" (when) (workload w))",
            "(rule a",
            "a)",
            "word",
            "(source speech-code)",
            "(rule a \"A.\" word)",
        ] {
            assert!(parse(text, &mut Rules::default()).is_err(), "{text}");
        }
    }
}
