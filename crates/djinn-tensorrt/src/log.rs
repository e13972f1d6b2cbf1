//! What TensorRT says, as diagnostics.

use djinn_diag::{Culprit, Diagnostic};
use std::sync::{Arc, Mutex, PoisonError};
use trtx::{LogHandler, Logger, Severity};

/// Messages kept of one build, at most.
const MAX_MESSAGES: usize = 200;

/// What every build says on a machine without an NVIDIA driver.
const NO_GPU: &str = "CUDA driver version is insufficient";

/// Messages of one build, most severe ones told apart.
#[derive(Debug, Clone, Default)]
pub(crate) struct Messages(Arc<Mutex<Vec<(bool, String)>>>);

struct Collector {
    messages: Messages,
    /// Is it news that there is no GPU?
    needs_gpu: bool,
}

impl LogHandler for Collector {
    fn log(&self, severity: Severity, message: &str) {
        let error = match severity {
            Severity::InternalError | Severity::Error => true,
            Severity::Warning => false,
            Severity::Info | Severity::Verbose => return,
        };
        // Engines are built without a GPU; that there is none is no news.
        if !self.needs_gpu && message.contains(NO_GPU) {
            return;
        }
        let mut messages = self.messages.0.lock().unwrap_or_else(PoisonError::into_inner);
        if messages.len() < MAX_MESSAGES {
            messages.push((error, message.trim().to_owned()));
        }
    }
}

impl Messages {
    /// A logger of builds that writes here.
    pub(crate) fn logger(&self) -> Result<Logger, trtx::Error> {
        Logger::new(Collector { messages: self.clone(), needs_gpu: false })
    }

    /// A logger of what needs a GPU that writes here.
    pub(crate) fn logger_of_runs(&self) -> Result<Logger, trtx::Error> {
        Logger::new(Collector { messages: self.clone(), needs_gpu: true })
    }

    /// Forgets what was said.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Everything that was said, as diagnostics.
    pub(crate) fn diagnostics(&self) -> Vec<Diagnostic> {
        let messages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said = |(error, text): &(bool, String)| {
            let code = if *error { "tensorrt.error" } else { "tensorrt.warning" };
            Diagnostic::new(Culprit::Unsupported, code, text.clone())
        };
        messages.iter().map(said).collect()
    }

    /// The errors in one line; empty if there were none.
    pub(crate) fn errors(&self) -> String {
        let messages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let errors = messages.iter().filter(|(error, _)| *error).map(|(_, text)| text.as_str());
        errors.collect::<Vec<_>>().join("; ")
    }
}
