//! What is known of the executions of one region: counts, times, and whether its engine was refused.

use std::time::Duration;

use djinn_diag::{Culprit, Diagnostic, clipped};

/// Characters of a remembered message, at most, from its start and from its end.
const MESSAGE: (usize, usize) = (300, 100);

/// How often something was done and how long that took altogether.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timing {
    /// How often.
    pub count: u64,
    /// Nanoseconds altogether.
    pub nanoseconds: u64,
    /// Nanoseconds of the fastest one.
    pub fastest: u64,
}

/// What is expected before anything was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Predicted {
    /// Time to build the engine.
    pub build: Duration,
    /// Time of one execution without it.
    pub fallback: Duration,
    /// Time of one execution with it.
    pub engine: Duration,
}

/// Why an engine was not built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Code of the builder's diagnostic.
    pub code: String,
    /// Its message.
    pub message: String,
    /// Its advice; empty if it had none.
    pub help: String,
    /// Version of Djinn whose builder it was.
    pub version: String,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// What is known of the executions of one region, in all processes so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Executions without the engine.
    pub fallback: Timing,
    /// Executions with it.
    pub engine: Timing,
    /// Builds of the engine.
    pub build: Timing,
    /// Executions without the engine since it was last built.
    pub waited: u64,
    /// What was expected.
    pub predicted: Option<Predicted>,
    /// Why it cannot be built, if it was refused not too long ago.
    pub failure: Option<Failure>,
}

impl Timing {
    /// So many times, altogether so long, each as long as the others.
    pub fn new(count: u64, time: Duration) -> Timing {
        let nanoseconds = nanoseconds(time);
        Timing { count, nanoseconds, fastest: nanoseconds.checked_div(count).unwrap_or(0) }
    }

    /// Nanoseconds of one time, if there was any.
    pub fn mean(&self) -> Option<u64> {
        self.nanoseconds.checked_div(self.count)
    }

    pub(crate) fn add(&mut self, other: Timing) {
        self.fastest = match (self.count, other.count) {
            (_, 0) => self.fastest,
            (0, _) => other.fastest,
            _ => self.fastest.min(other.fastest),
        };
        self.count = self.count.saturating_add(other.count);
        self.nanoseconds = self.nanoseconds.saturating_add(other.nanoseconds);
    }
}

impl Record {
    /// Adds what happened after this.
    pub(crate) fn merge(&mut self, later: Record) {
        self.fallback.add(later.fallback);
        self.engine.add(later.engine);
        self.build.add(later.build);
        if later.build.count > 0 {
            (self.waited, self.failure) = (later.waited, later.failure);
        } else {
            self.waited = self.waited.saturating_add(later.waited);
            self.failure = later.failure.or(self.failure.take());
        }
        self.predicted = later.predicted.or(self.predicted);
    }

    pub(crate) fn built(&mut self, time: Duration) {
        self.build.add(Timing::new(1, time));
        (self.waited, self.failure) = (0, None);
    }

    pub(crate) fn ran_fallback(&mut self, count: u64, time: Duration) {
        self.fallback.add(Timing::new(count, time));
        self.waited = self.waited.saturating_add(count);
    }
}

impl Failure {
    pub(crate) fn new(diagnostic: &Diagnostic, at: u64) -> Failure {
        Failure {
            code: line(&diagnostic.code),
            message: line(&diagnostic.message),
            help: line(diagnostic.help.as_deref().unwrap_or_default()),
            version: env!("CARGO_PKG_VERSION").into(),
            at,
        }
    }

    /// Whether it still counts: this version of Djinn, and not older than that. One from the future counts as well as one
    /// from the past: clocks are set back and forth.
    pub(crate) fn counts(&self, now: u64, seconds: u64) -> bool {
        self.version == env!("CARGO_PKG_VERSION") && now.abs_diff(self.at) < seconds
    }

    /// What the builder said then.
    pub fn diagnostic(&self) -> Box<Diagnostic> {
        let diagnostic = Box::new(Diagnostic::new(Culprit::Unsupported, &self.code, &self.message));
        match self.help.as_str() {
            "" => diagnostic,
            help => diagnostic.help(help),
        }
    }
}

pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A text as one line of bounded length.
fn line(text: &str) -> String {
    clipped(text, MESSAGE.0, MESSAGE.1).replace(char::is_control, " ")
}
