//! Diagnostics and remarks.
//!
//! A [`Diagnostic`] says what went wrong, where, whose fault it is ([`Culprit`]) and what to do about it.
//! A [`Remark`] says what a pass did, did not do, or found out, and why.
//!
//! Invariant: this crate knows nothing of files, terminals or the clock; it only carries text.

pub mod suggest;
pub mod units;

use std::fmt;

/// Whose fault a diagnostic is. The command line derives its exit code from this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Culprit {
    /// The input (file, option, pipeline text) is wrong and has to be changed by the user.
    Input,
    /// The input is valid, but Djinn does not support something in it.
    Unsupported,
    /// Djinn itself is wrong. Such a diagnostic asks for a bug report.
    Internal,
}

impl Culprit {
    /// The word used in messages: `error`, `unsupported` or `internal error`.
    pub fn label(self) -> &'static str {
        match self {
            Culprit::Input => "error",
            Culprit::Unsupported => "unsupported",
            Culprit::Internal => "internal error",
        }
    }
}

/// One problem, reported once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whose fault it is.
    pub culprit: Culprit,
    /// Stable code or constraint label, such as `onnx.tensor-type` or `matmul.C2`.
    pub code: String,
    /// One sentence without a final full stop.
    pub message: String,
    /// Where: outermost place first (`model.onnx`, `node 17 'MatMul_3'`).
    pub place: Vec<String>,
    /// What the reader can do about it.
    pub help: Option<String>,
}

/// The result type of everything that can report a diagnostic.
pub type Result<T> = std::result::Result<T, Box<Diagnostic>>;

impl Diagnostic {
    /// Makes a diagnostic; prefer [`input`], [`unsupported`] and [`internal`].
    pub fn new(culprit: Culprit, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { culprit, code: code.into(), message: message.into(), place: Vec::new(), help: None }
    }

    /// Adds advice.
    #[must_use]
    pub fn help(mut self: Box<Self>, help: impl Into<String>) -> Box<Self> {
        self.help = Some(help.into());
        self
    }

    /// This diagnostic with long texts cut: names and values of hostile files may be of any length.
    #[must_use]
    pub fn shortened(mut self: Box<Self>) -> Box<Self> {
        for text in std::iter::once(&mut self.message).chain(&mut self.place) {
            *text = clipped(text, 200, 60);
        }
        self
    }

    /// Adds an enclosing place in front of those already known.
    #[must_use]
    pub fn at(mut self: Box<Self>, place: impl Into<String>) -> Box<Self> {
        self.place.insert(0, place.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]: {}", self.culprit.label(), self.code, self.message)?;
        if !self.place.is_empty() {
            write!(f, "\n  at: {}", self.place.join(", "))?;
        }
        match (&self.help, self.culprit) {
            (Some(help), _) => write!(f, "\n  help: {help}"),
            (None, Culprit::Internal) => {
                write!(f, "\n  help: this is a bug in Djinn; please report it with the input")
            }
            (None, _) => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostic {}

/// The text if it has at most `head` + `tail` characters; else that many of it, with `…` between.
pub fn clipped(text: &str, head: usize, tail: usize) -> String {
    let count = text.chars().count();
    if count <= head + tail {
        return text.to_owned();
    }
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(count - tail).collect();
    format!("{start}…{end}")
}

/// A diagnostic about wrong input.
pub fn input(code: impl Into<String>, message: impl Into<String>) -> Box<Diagnostic> {
    Box::new(Diagnostic::new(Culprit::Input, code, message))
}

/// A diagnostic about valid input that Djinn does not support.
pub fn unsupported(code: impl Into<String>, message: impl Into<String>) -> Box<Diagnostic> {
    Box::new(Diagnostic::new(Culprit::Unsupported, code, message))
}

/// A diagnostic about a bug in Djinn.
pub fn internal(code: impl Into<String>, message: impl Into<String>) -> Box<Diagnostic> {
    Box::new(Diagnostic::new(Culprit::Internal, code, message))
}

/// Adds a place to the error of a result.
pub trait Context<T> {
    /// Adds the place that `place` computes, in front of those already known.
    fn at<S: Into<String>>(self, place: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn at<S: Into<String>>(self, place: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.at(place()))
    }
}

/// What a remark tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RemarkKind {
    /// A transformation was applied.
    Applied,
    /// A transformation was considered and not applied; the message says why.
    Missed,
    /// A fact was found.
    Analysis,
}

/// What a pass did, did not do or found, in the manner of LLVM's optimisation remarks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// What kind of remark it is.
    pub kind: RemarkKind,
    /// The pass that speaks.
    pub pass: String,
    /// The rule, or the name of the fact.
    pub rule: String,
    /// The module scope or function it is about; empty when it is about the whole module.
    pub place: String,
    /// One sentence.
    pub message: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            RemarkKind::Applied => "applied",
            RemarkKind::Missed => "missed",
            RemarkKind::Analysis => "analysis",
        };
        write!(f, "{kind} [{}] {}", self.pass, self.rule)?;
        if !self.place.is_empty() {
            write!(f, " at {}", self.place)?;
        }
        write!(f, ": {}", self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_culprit_place_and_help() {
        let d = input("onnx.empty", "the file is empty").help("export the model again").at("a.onnx");
        assert_eq!(
            d.to_string(),
            "error[onnx.empty]: the file is empty\n  at: a.onnx\n  help: export the model again"
        );
    }

    #[test]
    fn long_texts_are_cut() {
        let e = input("x", "é".repeat(1000)).at("p".repeat(1000)).shortened();
        assert_eq!((e.message.chars().count(), e.place[0].len()), (261, 263));
    }

    #[test]
    fn internal_errors_ask_for_a_report() {
        assert!(internal("ir", "x").to_string().contains("bug in Djinn"));
    }
}
