//! Contexts, parsing, diagnostics, and running a pipeline of passes.

use melior::Context;
use melior::diagnostic::{Diagnostic, DiagnosticSeverity};
use melior::dialect::DialectRegistry;
use melior::ir::Module;
use melior::ir::operation::{OperationLike, OperationPrintingFlags};
use melior::pass::PassManager;
use melior::utility;
use std::sync::{Arc, Mutex, PoisonError};

/// Text that a context may have read before it is dropped: MLIR never frees the types, attributes and places of a
/// context, so a context that lives for ever grows for ever.
const CONTEXT_TEXT_BYTES: usize = 64 << 20;

/// Diagnostics kept of one failure; the first ones name the cause.
const KEPT_DIAGNOSTICS: usize = 8;

/// Why a module was refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) kind: Kind,
    pub(crate) place: String,
    pub(crate) message: String,
}

/// What refused it. The numbers cross the C interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// The text does not parse, or the module breaks a rule of its dialects.
    Module = 1,
    /// The definition of a dialect does.
    Dialect = 2,
    /// A pass cannot lower it.
    Lowering = 3,
    /// A function is called that exists nowhere.
    Symbol = 4,
    /// The GPU is not known.
    Chip = 5,
    /// Something failed that should not.
    Internal = 6,
}

impl Refusal {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, place: String::new(), message: message.into() }
    }
}

/// The contexts of one compiler: a caller takes one, or a new one if all are taken.
#[derive(Default)]
pub(crate) struct Compiler {
    idle: Mutex<Vec<Session>>,
}

impl Compiler {
    /// Runs `work` in a context that knows the dialect defined by `irdl`.
    pub(crate) fn with<T>(
        &self,
        irdl: Option<&str>,
        text: &str,
        work: impl FnOnce(&Session) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut session = match self.take(irdl) {
            Some(session) => session,
            None => Session::new(irdl)?,
        };
        let result = work(&session);
        session.read += text.len();
        if session.read < CONTEXT_TEXT_BYTES {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        }
        result
    }

    fn take(&self, irdl: Option<&str>) -> Option<Session> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let position = idle.iter().position(|session| session.irdl.as_deref() == irdl)?;
        Some(idle.swap_remove(position))
    }
}

/// One context with all dialects, used by one thread at a time.
pub(crate) struct Session {
    context: Context,
    irdl: Option<String>,
    diagnostics: Arc<Mutex<Vec<(String, String)>>>,
    read: usize,
}

impl Session {
    fn new(irdl: Option<&str>) -> Result<Self, Refusal> {
        utility::register_all_passes();
        let registry = DialectRegistry::new();
        utility::register_all_dialects(&registry);
        let context = Context::new_with_registry(&registry, false);
        context.load_all_available_dialects();
        utility::register_all_llvm_translations(&context);
        // Without a definition, operations of unknown dialects are read as they stand.
        context.set_allow_unregistered_dialects(irdl.is_none());
        let diagnostics = Arc::new(Mutex::new(Vec::new()));
        let sink = diagnostics.clone();
        context.attach_diagnostic_handler(move |diagnostic| {
            note(&mut sink.lock().unwrap_or_else(PoisonError::into_inner), &diagnostic);
            true
        });
        let session = Self { context, irdl: irdl.map(str::to_owned), diagnostics, read: 0 };
        if let Some(irdl) = irdl {
            session.define(irdl)?;
        }
        Ok(session)
    }

    /// Loads the dialects that `irdl` defines.
    fn define(&self, irdl: &str) -> Result<(), Refusal> {
        let module = self.parse(irdl).map_err(|refusal| Refusal { kind: Kind::Dialect, ..refusal })?;
        if utility::load_irdl_dialects(&module) { Ok(()) } else { Err(self.refusal(Kind::Dialect)) }
    }

    /// Reads and verifies a module.
    pub(crate) fn parse(&self, text: &str) -> Result<Module<'_>, Refusal> {
        self.forget();
        Module::parse(&self.context, text).ok_or_else(|| self.refusal(Kind::Module))
    }

    /// Runs a pipeline of passes.
    pub(crate) fn lower(&self, module: &mut Module<'_>, pipeline: &str) -> Result<(), Refusal> {
        self.forget();
        let manager = PassManager::new(&self.context);
        utility::parse_pass_pipeline(manager.as_operation_pass_manager(), pipeline)
            .map_err(|error| Refusal::new(Kind::Internal, error.to_string()))?;
        manager.run(module).map_err(|_| self.refusal(Kind::Lowering))
    }

    /// The module in generic form, with the places that its text gave.
    pub(crate) fn print(&self, module: &Module<'_>) -> Result<String, Refusal> {
        let flags = OperationPrintingFlags::new().print_generic_operation_form().use_local_scope();
        let text = module.as_operation().to_string_with_flags(flags.enable_debug_info(true, false));
        Ok(without_text_places(&text.map_err(|error| Refusal::new(Kind::Internal, error.to_string()))?))
    }

    /// The diagnostics since the last [`Session::forget`], as a refusal.
    pub(crate) fn refusal(&self, kind: Kind) -> Refusal {
        let said = std::mem::take(&mut *self.diagnostics.lock().unwrap_or_else(PoisonError::into_inner));
        let place = said.first().map(|(place, _)| place.clone()).unwrap_or_default();
        let messages: Vec<&str> = said.iter().map(|(_, message)| message.as_str()).collect();
        let message =
            if messages.is_empty() { "MLIR gave no reason".to_owned() } else { messages.join("; ") };
        Refusal { kind, place, message }
    }

    /// Drops earlier diagnostics.
    pub(crate) fn forget(&self) {
        self.diagnostics.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Keeps an error and its notes; warnings and remarks are no reason to refuse.
fn note(said: &mut Vec<(String, String)>, diagnostic: &Diagnostic<'_>) {
    if said.len() >= KEPT_DIAGNOSTICS || !matches!(diagnostic.severity(), DiagnosticSeverity::Error) {
        return;
    }
    said.push((place(&diagnostic.location().to_string()), diagnostic.to_string()));
    for index in 0..diagnostic.note_count().min(2) {
        if let Ok(note) = diagnostic.note(index) {
            said.push((String::new(), note.to_string()));
        }
    }
}

/// The text without the places that MLIR gave what had none: lines of the text that it read.
fn without_text_places(text: &str) -> String {
    const START: &str = " loc(\"-\":";
    let mut out = String::with_capacity(text.len());
    let mut pieces = text.split(START);
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let end = piece.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':');
        match end.strip_prefix(')') {
            Some(rest) => out.push_str(rest),
            None => out.extend([START, piece]),
        }
    }
    out
}

/// `loc("-":3:7)` as `line 3, column 7`; other places as MLIR writes them.
fn place(location: &str) -> String {
    let inner = location.strip_prefix("loc(").and_then(|text| text.strip_suffix(')')).unwrap_or(location);
    match inner.strip_prefix("\"-\":").and_then(|text| text.split_once(':')) {
        Some((line, column)) => format!("line {line}, column {column}"),
        None => inner.to_owned(),
    }
}
