//! Reading models of any supported format.

use djinn_diag::{Context, Result, input};
use djinn_ir::Module;
use djinn_srg::Srg;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// The format of a model file, told by its content, not by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A torch.export archive.
    Pt2,
    /// An ONNX model.
    Onnx,
    /// The SRG's JSON or binary form.
    Srg,
    /// Djinn's text form, in MLIR's generic syntax.
    Text,
}

impl Format {
    /// The name used in reports.
    pub fn name(self) -> &'static str {
        match self {
            Format::Pt2 => "pt2",
            Format::Onnx => "onnx",
            Format::Srg => "srg",
            Format::Text => "ir",
        }
    }
}

/// A model as read.
#[derive(Debug)]
pub struct Model {
    /// Which format it came in.
    pub format: Format,
    /// The semantically rich graph; `None` if the file was in text form, which is below it.
    pub srg: Option<Srg>,
    /// The program.
    pub module: Module,
    /// Operations that Djinn does not know, by name, with their number.
    pub opaque: BTreeMap<String, usize>,
    /// Recorded types that were compared with inferred ones, and those that differ.
    pub type_checks: (usize, usize),
}

/// Bytes of a gunzipped text or JSON file, at most.
const MAX_TEXT_BYTES: u64 = 1 << 30;

/// Reads a model file.
///
/// # Errors
/// Unreadable files and everything the frontends refuse; the file's name is the outermost place.
pub fn read(path: &Path) -> Result<Model> {
    read_unplaced(path).at(|| path.display().to_string())
}

fn read_unplaced(path: &Path) -> Result<Model> {
    let metadata =
        std::fs::metadata(path).map_err(|e| input("file.open", e.to_string()).help("check the path"))?;
    if metadata.is_dir() {
        return Err(input("file.directory", "this is a directory, not a model file")
            .help("name the model file inside it, such as model.pt2 or model.onnx"));
    }
    if !metadata.is_file() {
        return Err(input("file.kind", "this is not a regular file").help("save the model to a file first"));
    }
    if metadata.len() == 0 {
        return Err(input("file.empty", "the file is empty").help("export the model again"));
    }
    match sniff(path)? {
        Format::Pt2 => {
            let imported = djinn_pt2::import_file(path)?;
            let report = imported.report;
            let checks = (report.type_checks, report.type_disagreements.len());
            from_srg(Format::Pt2, imported.srg, report.opaque, checks)
        }
        Format::Onnx => {
            let imported = djinn_onnx::import_file(path)?;
            let report = imported.report;
            let opaque = report
                .opaque
                .into_iter()
                .map(|((domain, op, version), n)| {
                    (format!("{domain}{}{op}-{version}", if domain.is_empty() { "" } else { "." }), n)
                })
                .collect();
            from_srg(Format::Onnx, imported.srg, opaque, (0, report.type_disagreements))
        }
        Format::Srg => {
            let bytes = read_all(path)?;
            let srg = djinn_srg::read(Arc::new(bytes))?;
            from_srg(Format::Srg, srg, BTreeMap::new(), (0, 0))
        }
        Format::Text => {
            let bytes = read_all(path)?;
            let text =
                String::from_utf8(bytes).map_err(|_| input("text.encoding", "the file is not UTF-8 text"))?;
            let module = djinn_ir::text::parse_module(&text)?;
            djinn_ir::verify::verify(&module)?;
            Ok(Model {
                format: Format::Text,
                srg: None,
                module,
                opaque: BTreeMap::new(),
                type_checks: (0, 0),
            })
        }
    }
}

fn from_srg(
    format: Format,
    srg: Srg,
    opaque: BTreeMap<String, usize>,
    type_checks: (usize, usize),
) -> Result<Model> {
    let module = djinn_srg::lower(&srg)?;
    djinn_ir::verify::verify(&module)?;
    Ok(Model { format, srg: Some(srg), module, opaque, type_checks })
}

/// Opens a file, gunzipping where its first bytes say so.
fn open(path: &Path) -> Result<Box<dyn Read>> {
    let failed = |e: std::io::Error| input("file.read", e.to_string());
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut magic = [0u8; 2];
    let n = file.read(&mut magic).map_err(failed)?;
    let file = std::fs::File::open(path).map_err(failed)?;
    if n == 2 && magic == [0x1f, 0x8b] {
        Ok(Box::new(flate2::read::MultiGzDecoder::new(std::io::BufReader::new(file))))
    } else {
        Ok(Box::new(std::io::BufReader::new(file)))
    }
}

fn read_all(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?
        .take(MAX_TEXT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| input("file.read", e.to_string()))?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        return Err(input("file.size", "the text is larger than 1 GiB")
            .help("split the model, or use a binary format"));
    }
    Ok(bytes)
}

/// Tells the format by content: zip is `.pt2`, `{` is JSON (of an SRG or of an exported program), `DJNSRG` is the
/// SRG's binary form, text that starts with an MLIR token is the text form, everything else is ONNX.
fn sniff(path: &Path) -> Result<Format> {
    let mut head = Vec::new();
    open(path)?.take(4096).read_to_end(&mut head).map_err(|e| input("file.read", e.to_string()))?;
    let trimmed = head.trim_ascii_start();
    Ok(if head.starts_with(b"PK") {
        Format::Pt2
    } else if djinn_srg::binary::is_binary(&head) {
        Format::Srg
    } else if trimmed.starts_with(b"{") {
        let text = String::from_utf8_lossy(&head);
        if text.contains("djinn-srg") { Format::Srg } else { Format::Pt2 }
    } else if trimmed.starts_with(b"//")
        || trimmed.starts_with(b"\"builtin.module\"")
        || trimmed.starts_with(b"#")
    {
        Format::Text
    } else {
        Format::Onnx
    })
}
