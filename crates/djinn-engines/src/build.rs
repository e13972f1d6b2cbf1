//! What a builder of engines is told, and how it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use djinn_diag::{Culprit, Diagnostic};

/// What a builder is told. Clones tell the same.
#[derive(Debug, Clone, Default)]
pub struct BuildContext {
    cancelled: Arc<AtomicBool>,
}

impl BuildContext {
    /// Whether nobody wants the engine any more. A builder that looks here now and then, and returns any error if so,
    /// lets programs end sooner.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Asks the builder to give up.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// Why a builder gave no engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildError {
    /// This region cannot be built with this library: it is remembered and not tried again for some time.
    Refused(Box<Diagnostic>),
    /// It did not work this time: whoever asks next tries again.
    Failed(Box<Diagnostic>),
}

impl BuildError {
    /// What to tell the user.
    pub fn diagnostic(&self) -> &Diagnostic {
        match self {
            BuildError::Refused(diagnostic) | BuildError::Failed(diagnostic) => diagnostic,
        }
    }
}

impl From<Box<Diagnostic>> for BuildError {
    /// What is unsupported is so for good; anything else may work next time.
    fn from(diagnostic: Box<Diagnostic>) -> BuildError {
        match diagnostic.culprit {
            Culprit::Unsupported => BuildError::Refused(diagnostic),
            Culprit::Input | Culprit::Internal => BuildError::Failed(diagnostic),
        }
    }
}

impl From<BuildError> for Box<Diagnostic> {
    fn from(error: BuildError) -> Box<Diagnostic> {
        match error {
            BuildError::Refused(diagnostic) | BuildError::Failed(diagnostic) => diagnostic,
        }
    }
}
