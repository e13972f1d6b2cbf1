//! Reads programs of `torch.export` (torch 2.9 or later, schema major 8) into an [`Srg`].
//!
//! - `archive`: the zip container; `weights`: payloads; `schema`: the program JSON; `sympy`: symbolic sizes;
//! - `import`: the signature and the walk over the nodes; `env`: aliasing, and in-place operations made pure;
//! - `ops`: the operator table, target → translation, by family.
//!
//! Both dialects load: the training dialect, whose in-place writes are functionalised here, and the decomposed one.
//! Inputs of the function are the user inputs in their order, then one state argument per mutated buffer, named like
//! the buffer. Results are the user outputs in their order, then the updates in order of their arguments.
//!
//! Invariant: nothing in a file makes this crate panic, execute code or allocate more than a small multiple of the
//! file's size; every problem is one diagnostic that names the place and says what to do.

mod archive;
mod context;
mod emit;
mod env;
mod import;
mod ops;
mod schema;
mod sympy;
mod weights;

use djinn_diag::{Culprit, Diagnostic, Result, input};
use djinn_srg::Srg;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Bytes that a gzip file may unpack to, at most.
const MAX_UNPACKED: usize = 1 << 30;

/// What came out of an import.
#[derive(Debug)]
pub struct Imported {
    /// The program.
    pub srg: Srg,
    /// What was checked and what was not understood.
    pub report: ImportReport,
}

/// What an import checked and did not understand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Operators kept as `opaque` operations, with how often they occur.
    pub opaque: BTreeMap<String, usize>,
    /// Tensor results whose inferred type was compared with the recorded one.
    pub type_checks: usize,
    /// Results whose types differ or are not provably equal: node name, recorded and inferred type.
    pub type_disagreements: Vec<String>,
}

/// Reads a `.pt2` archive, a gzip of one, or program JSON (plain or gzip), told apart by their first bytes.
///
/// # Errors
/// Malformed files are input errors; valid programs that cannot be expressed are unsupported.
pub fn import(bytes: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Result<Imported> {
    import_any(bytes).map_err(advise).map_err(Diagnostic::shortened)
}

fn import_any(bytes: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Result<Imported> {
    let data = (*bytes).as_ref();
    match data {
        [] => Err(input("pt2.empty", "the file is empty").help("export the model again")),
        [0x1F, 0x8B, ..] => {
            let unpacked = djinn_srg::gzip::unpack("pt2.gzip", data, MAX_UNPACKED)?;
            if unpacked.starts_with(&[0x1F, 0x8B]) {
                return Err(input("pt2.gzip", "the file is packed twice").help("unpack it once with gunzip"));
            }
            import_any(Arc::new(unpacked))
        }
        [b'{' | b' ' | b'\n' | b'\t' | b'\r', ..] => import_program_json(data),
        [b'P', b'K', ..] => import::from_archive(bytes),
        _ => Err(input(
            "pt2.zip",
            "this is not a torch.export program: neither a zip archive nor program JSON",
        )
        .help("djinn-opt reads .pt2, .onnx, SRG JSON and IR text; export the model again")),
    }
}

/// Reads a file as [`import()`] does; a plain archive is mapped into memory, and weights point into the map.
///
/// # Errors
/// As [`import()`], and files that cannot be read. Diagnostics do not name the file: the caller knows it.
pub fn import_file(path: &Path) -> Result<Imported> {
    let unreadable = |e: std::io::Error| {
        input("pt2.file", format!("cannot be read: {e}")).help("check the path and its permissions")
    };
    // Asked before opening, which would wait for a writer if the file is a pipe.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(input("pt2.file", "not a regular file").help("name the model file itself"));
    }
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.len() == 0 {
        return import(Arc::new(Vec::new()));
    }
    // SAFETY: the map is read-only and private. If another process shortens the file while it is mapped, reading
    // beyond the new end kills this process; that is the documented price of not copying weights.
    #[allow(unsafe_code, reason = "mapping a file is unsafe by nature; see above")]
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(unreadable)?;
    import(Arc::new(map))
}

/// Reads the program JSON alone; weights come without values.
///
/// # Errors
/// As [`import()`].
pub fn import_program_json(json: &[u8]) -> Result<Imported> {
    import::from_program(json, &weights::Payloads::default()).map_err(advise).map_err(Diagnostic::shortened)
}

/// Adds advice to a diagnostic that has none of its own (those of the op table's constraints).
fn advise(e: Box<Diagnostic>) -> Box<Diagnostic> {
    if e.help.is_some() {
        return e;
    }
    match e.culprit {
        Culprit::Input => {
            e.help("the file is damaged or written by an unknown exporter: export the model again")
        }
        Culprit::Unsupported => {
            e.help("rewrite this part of the model, or ask for support with the model file")
        }
        Culprit::Internal => e,
    }
}
