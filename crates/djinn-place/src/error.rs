//! Why there is no placement.

use std::fmt;

/// Why there is no placement.
#[derive(Clone, Debug, PartialEq)]
pub enum PlaceError {
    /// A file does not have the form it should have.
    Format(String),
    /// An instance or a problem contradicts itself.
    Invalid(String),
    /// Something that the solvers do not treat.
    Unsupported(String),
    /// No placement respects capacities, colour classes and what devices support.
    Infeasible(String),
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(text) => write!(f, "not a placement instance: {text}"),
            Self::Invalid(text) => write!(f, "not a valid problem: {text}"),
            Self::Unsupported(text) => write!(f, "not supported: {text}"),
            Self::Infeasible(text) => write!(f, "nothing fits: {text}"),
        }
    }
}

impl std::error::Error for PlaceError {}
