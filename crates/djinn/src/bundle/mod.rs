//! Bundles: a program, its plan and what was compiled for it, in one folder or one file that can be moved and is
//! verified before use.
//!
//! | file | what it is |
//! |---|---|
//! | `manifest.json` | format, version, hash of the program; size and BLAKE3 hash of every other file |
//! | `module.mlir` | the program in the IR's text form, weights by name and hash |
//! | `djinn.irdl.mlir` | what its operations are, for `mlir-opt-22 --irdl-file=djinn.irdl.mlir module.mlir` |
//! | `plan.json` | the plan |
//! | `weights.safetensors` | the weights that have values |
//! | `weights.json` | with [`Weights::Referenced`]: files outside, their hashes, and where in them weights are |
//! | others | [`Bundle::parts`]: engines, kernels, the report |
//!
//! A path that ends in `.djinn` is one file: an uncompressed zip archive whose members begin at multiples of
//! [`archive::ALIGNMENT`] bytes, the manifest first. Every other path is a folder.
//!
//! A bundle is written beside its final place and moved there whole; what is no bundle is never replaced. Where the
//! system can exchange two folders at once, there is a whole bundle in place at every moment.
//!
//! Weights are mapped into memory, so that only those that are used take room; all else is read, so that the bytes that
//! were verified are those that are used.

mod archive;
mod container;
mod folder;
mod manifest;
mod reference;
mod weights;

use container::Container;
use djinn_diag::{Context, Diagnostic, Result, input};
use djinn_ir::Module;
use djinn_ir::data::Bytes;
use djinn_ir::text::PrintOptions;
use djinn_plan::Plan;
use manifest::{FileInfo, MANIFEST, Manifest, may_be_name};
use reference::REFERENCES;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MODULE: &str = "module.mlir";
const PLAN: &str = "plan.json";
const DIALECT: &str = "djinn.irdl.mlir";
const WEIGHTS: &str = "weights.safetensors";
/// Bytes of a manifest, at most.
const MAX_MANIFEST_BYTES: u64 = 16 << 20;
/// What the name of a bundle ends in that is one file.
const EXTENSION: &str = "djinn";

/// A program, its plan, and what was compiled for it.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The program.
    pub module: Module,
    /// Its plan.
    pub plan: Plan,
    /// Further files by name: of letters, digits, `.`, `_` and `-`, with at most one folder before it.
    pub parts: BTreeMap<String, Bytes>,
}

impl Bundle {
    /// A bundle without further files.
    pub fn new(module: Module, plan: Plan) -> Bundle {
        Bundle { module, plan, parts: BTreeMap::new() }
    }
}

/// Where the weights of a bundle are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Weights {
    /// In the bundle.
    #[default]
    Packed,
    /// In these files, as far as they hold them as they are; the others in the bundle. The bundle names the files relative
    /// to the folder that it is in.
    Referenced(Vec<PathBuf>),
}

/// A file of a bundle that is about to be written.
enum Content {
    Bytes(Bytes),
    /// A file elsewhere.
    File(PathBuf),
}

/// Is this the folder or the file of a bundle?
pub fn is_bundle(path: &Path) -> bool {
    path.join(MANIFEST).is_file() || archive::is_archive(path)
}

/// Bytes of the weights of a bundle that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WeightBytes {
    /// In the bundle.
    pub packed: u64,
    /// In files outside.
    pub outside: u64,
}

/// Writes a bundle to the file `path` if it ends in `.djinn`, else to the folder `path`, replacing a bundle that is there.
///
/// # Errors
/// `bundle.place` if something that is no bundle is in the way, `bundle.part` for a name that no file of a bundle may
/// have, and those of the file system.
pub fn write_bundle(path: &Path, bundle: &Bundle) -> Result<()> {
    write_bundle_with(path, bundle, &Weights::Packed).map(drop)
}

/// [`write_bundle`], with its weights here or elsewhere; says how much of them is where.
///
/// # Errors
/// As [`write_bundle`], and `bundle.weights` for a file that cannot be read.
pub fn write_bundle_with(path: &Path, bundle: &Bundle, weights: &Weights) -> Result<WeightBytes> {
    write_unplaced(path, bundle, weights).at(|| path.display().to_string())
}

fn write_unplaced(path: &Path, bundle: &Bundle, weights: &Weights) -> Result<WeightBytes> {
    let reserved = [MANIFEST, MODULE, PLAN, DIALECT, WEIGHTS, REFERENCES];
    if let Some(name) = bundle.parts.keys().find(|n| !may_be_name(n) || reserved.contains(&n.as_str())) {
        return Err(input("bundle.part", format!("a bundle cannot hold a file named {name:?}"))
            .help("name it with letters, digits, '.', '_' and '-', in at most one folder"));
    }
    // A link stays a link: what it points to is replaced.
    let target = path.canonicalize();
    if let Err(e) = &target
        && e.kind() == std::io::ErrorKind::NotFound
        && path.is_symlink()
    {
        return Err(input("bundle.place", "the name of the bundle is a link to nothing")
            .help("remove the link, or make what it names"));
    }
    let path = target.as_deref().unwrap_or(path);
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(failed)?;
    let one_file = path.extension().is_some_and(|e| e == EXTENSION) && !path.is_dir();
    let (references, elsewhere) = match weights {
        Weights::Packed => (None, BTreeSet::new()),
        Weights::Referenced(files) => reference::find(&bundle.module, files, parent)?,
    };
    let mut bundle = Cow::Borrowed(bundle);
    if let Some(references) = references {
        bundle.to_mut().parts.insert(REFERENCES.to_owned(), references);
    }
    let write = if one_file { archive::write } else { folder::write };
    write(path, parent, &bundle, &elsewhere)?;
    let mut bytes = WeightBytes::default();
    for (name, weight) in &bundle.module.weights {
        let held = weight.data.as_ref().map_or(0, |(_, data)| data.bytes().len() as u64);
        match elsewhere.contains(name) {
            true => bytes.outside = bytes.outside.saturating_add(held),
            false => bytes.packed = bytes.packed.saturating_add(held),
        }
    }
    Ok(bytes)
}

/// The files of a bundle and their manifest. Weights that are not elsewhere are written into the folder `scratch`.
fn contents(
    bundle: &Bundle,
    elsewhere: &BTreeSet<Arc<str>>,
    scratch: &Path,
) -> Result<(Manifest, Vec<(String, Content)>)> {
    let options = PrintOptions { for_mlir: true, ..PrintOptions::default() };
    let module = djinn_ir::text::print_module_with(&bundle.module, &options);
    let dialect = djinn_mlir::dialect::irdl(&module);
    let mut files = vec![
        (MODULE.to_owned(), Content::Bytes(module.into_bytes().into())),
        (DIALECT.to_owned(), Content::Bytes(dialect.into_bytes().into())),
        (PLAN.to_owned(), Content::Bytes(djinn_plan::to_json(&bundle.plan)?.into_bytes().into())),
    ];
    files.extend(bundle.parts.iter().map(|(name, bytes)| (name.clone(), Content::Bytes(bytes.clone()))));
    let weights = scratch.join(WEIGHTS);
    if weights::write(&bundle.module, elsewhere, &weights)? {
        files.push((WEIGHTS.to_owned(), Content::File(weights)));
    }
    let mut infos = BTreeMap::new();
    for (name, content) in &files {
        let info = match content {
            Content::Bytes(bytes) => FileInfo::of(bytes.as_slice()),
            Content::File(path) => FileInfo::of(container::map(path).map_err(failed)?.as_slice()),
        };
        infos.insert(name.clone(), info);
    }
    Ok((Manifest::new(&bundle.plan.program, infos), files))
}

fn failed(e: std::io::Error) -> Box<Diagnostic> {
    input("file.write", e.to_string()).help("check the folder and its free space")
}

/// Reads a bundle and verifies it: every file is there and unaltered, the plan is of this program.
///
/// # Errors
/// `bundle.*` names the file that is missing or altered; whatever the parsers and the verifier find.
pub fn read_bundle(path: &Path) -> Result<Bundle> {
    read_bundle_with(path, &[])
}

/// [`read_bundle`], where files that hold its weights may have moved: these are tried first, whatever they are called.
///
/// # Errors
/// As [`read_bundle`], and `bundle.weights` if a file that holds weights is not there or is another one.
pub fn read_bundle_with(path: &Path, weights: &[PathBuf]) -> Result<Bundle> {
    read_unplaced(path, weights).at(|| path.display().to_string())
}

fn read_unplaced(path: &Path, files: &[PathBuf]) -> Result<Bundle> {
    let container = Container::open(path)?;
    let manifest = Manifest::parse(&container).at(|| MANIFEST)?;
    let read = |name: &str| verified(&container, name, &manifest).at(|| name.to_owned());
    let text = |name: &str| -> Result<String> {
        let text = std::str::from_utf8(read(name)?.as_slice()).map(str::to_owned);
        text.map_err(|_| input("text.encoding", "this is not UTF-8 text")).at(|| name.to_owned())
    };
    let mut module = djinn_ir::text::parse_module(&text(MODULE)?).at(|| MODULE)?;
    if manifest.files.contains_key(WEIGHTS) {
        weights::add(&mut module, read(WEIGHTS)?).at(|| WEIGHTS)?;
    }
    if manifest.files.contains_key(REFERENCES) {
        reference::add(&mut module, &read(REFERENCES)?, path, files).at(|| REFERENCES)?;
    }
    djinn_ir::verify::verify(&module).at(|| MODULE)?;
    let plan = djinn_plan::from_json(&text(PLAN)?).at(|| PLAN)?;
    let hash = crate::program_hash(&module);
    if plan.program != hash || manifest.program != hash {
        let message = format!("the plan is for program {}, the module is {hash}", plan.program);
        return Err(input("bundle.program", message).help("write the bundle again"));
    }
    let mut parts = BTreeMap::new();
    for name in
        manifest.files.keys().filter(|n| ![MODULE, PLAN, DIALECT, WEIGHTS, REFERENCES].contains(&n.as_str()))
    {
        parts.insert(name.clone(), read(name)?);
    }
    Ok(Bundle { module, plan, parts })
}

fn altered() -> Box<Diagnostic> {
    input("bundle.altered", "the file is not the one that was written")
        .help("copy the bundle again, or write it again")
}

/// The bytes of a file that are those of the manifest.
fn verified(container: &Container, name: &str, manifest: &Manifest) -> Result<Bytes> {
    let info = manifest.files.get(name).ok_or_else(|| {
        input("bundle.manifest", "the manifest does not name the file").help("write the bundle again")
    })?;
    let bytes = if name == WEIGHTS { container.mapped(name)? } else { container.read(name, info.bytes)? };
    if FileInfo::of(bytes.as_slice()) != *info {
        return Err(altered());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_link_to_nothing_is_named_for_what_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("nothing", &link).expect("linked");
        let bundle = Bundle::new(Module::default(), djinn_plan::sample::empty());
        let e = write_bundle(&link, &bundle).expect_err("refused");
        assert_eq!(e.code, "bundle.place");
        assert!(e.message.contains("is a link to nothing"), "{e}");
        assert!(link.is_symlink() && std::fs::read_dir(folder.path()).expect("read").count() == 1);
        std::fs::create_dir(folder.path().join("nothing")).expect("made");
        write_bundle(&link, &bundle).expect("an empty folder is replaced");
        assert!(link.is_symlink() && is_bundle(&link));
    }
}
