//! Stages of a run: each is timed, its memory measured and its panics caught.

use crate::memory;
use djinn::diag::{Culprit, Diagnostic};
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::time::Instant;

/// How a stage or a whole case went, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    /// As it should be.
    Ok,
    /// Refused by a diagnostic that says so.
    Unsupported,
    /// Values, types or cost are not as they should be.
    Wrong,
    /// A diagnostic that blames the input or Djinn.
    Error,
    /// A panic, a killed process or no answer in time.
    Crash,
}

impl Status {
    /// All of them, in the order of summaries.
    pub(crate) const ALL: [Status; 5] =
        [Status::Ok, Status::Wrong, Status::Unsupported, Status::Crash, Status::Error];

    /// The word in records.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Unsupported => "unsupported",
            Status::Wrong => "wrong",
            Status::Error => "error",
            Status::Crash => "crash",
        }
    }
}

/// Why a stage did not succeed.
#[derive(Debug)]
pub(crate) struct Problem {
    /// What kind of failure.
    pub(crate) status: Status,
    /// The diagnostic's code; empty if there is none.
    pub(crate) code: String,
    /// What happened.
    pub(crate) message: String,
}

impl Problem {
    /// A result that is not as it should be.
    pub(crate) fn wrong(message: impl Into<String>) -> Problem {
        Problem { status: Status::Wrong, code: String::new(), message: message.into() }
    }

    /// Something about the case itself that does not fit.
    pub(crate) fn error(message: impl Into<String>) -> Problem {
        Problem { status: Status::Error, code: String::new(), message: message.into() }
    }
}

impl From<Box<Diagnostic>> for Problem {
    fn from(d: Box<Diagnostic>) -> Problem {
        let status = if d.culprit == Culprit::Unsupported { Status::Unsupported } else { Status::Error };
        Problem { status, code: d.code.clone(), message: d.to_string() }
    }
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps panics off the terminal: stages report them in their records.
pub(crate) fn record_panics() {
    std::panic::set_hook(Box::new(|info| {
        LAST_PANIC.with(|last| *last.borrow_mut() = info.to_string());
    }));
}

/// The record of one run, stage by stage.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    /// Facts beside the stages.
    pub(crate) facts: Map<String, Value>,
    stages: Map<String, Value>,
    worst: Option<(Status, String, String, String)>,
}

impl Stages {
    /// Runs one stage and notes how it went; gives its result if there is one.
    pub(crate) fn run<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T, Problem>) -> Option<T> {
        memory::reset_peak();
        let start = Instant::now();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let seconds = start.elapsed().as_secs_f64();
        let outcome = outcome.unwrap_or_else(|_| {
            let message = LAST_PANIC.with(|last| last.borrow().clone());
            Err(Problem { status: Status::Crash, code: "panic".into(), message })
        });
        let mut entry = json!({"status": "ok", "seconds": seconds, "peak_mib": memory::peak_mib()});
        let result = match outcome {
            Ok(value) => Some(value),
            Err(problem) => {
                entry["status"] = json!(problem.status.word());
                entry["code"] = json!(problem.code);
                entry["message"] = json!(problem.message);
                if self.worst.as_ref().is_none_or(|(worst, ..)| problem.status > *worst) {
                    self.worst = Some((problem.status, name.to_owned(), problem.code, problem.message));
                }
                None
            }
        };
        self.stages.insert(name.to_owned(), entry);
        result
    }

    /// Notes a fact.
    pub(crate) fn note(&mut self, name: &str, value: Value) {
        self.facts.insert(name.to_owned(), value);
    }

    /// The record: facts, stages, and the worst of what happened.
    pub(crate) fn finish(self) -> Value {
        let Stages { mut facts, stages, worst } = self;
        let (status, stage, code, message) = match worst {
            Some((status, stage, code, message)) => (status, stage, code, message),
            None => (Status::Ok, String::new(), String::new(), String::new()),
        };
        facts.insert("status".into(), json!(status.word()));
        facts.insert("stage".into(), json!(stage));
        facts.insert("code".into(), json!(code));
        facts.insert("message".into(), json!(message));
        facts.insert("stages".into(), Value::Object(stages));
        Value::Object(facts)
    }
}
