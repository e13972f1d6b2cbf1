//! A bundle as one file: a zip archive without compression, its members at multiples of [`ALIGNMENT`] bytes.

use super::manifest::{MANIFEST, may_be_name};
use super::{Bundle, Content, contents, failed};
use djinn_diag::{Diagnostic, Result, input};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Cursor, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use zip::write::SimpleFileOptions;

/// Members begin at multiples of this many bytes: a page, so that each can be mapped by itself.
pub(crate) const ALIGNMENT: u16 = 4096;
/// Beyond this many bytes a member needs zip's 64-bit fields.
const LARGE: u64 = 1 << 31;
/// Length of a local file header of zip, after which the name stands (APPNOTE.TXT 4.3.7).
const LOCAL_HEADER: usize = 30;

/// Does this file begin as a bundle does: a zip archive, whose first member is the manifest?
pub(super) fn is_archive(path: &Path) -> bool {
    let head = || -> std::io::Result<Vec<u8>> {
        let mut head = Vec::new();
        if std::fs::metadata(path)?.is_file() {
            let most = (LOCAL_HEADER + MANIFEST.len()) as u64;
            File::open(path)?.take(most).read_to_end(&mut head)?;
        }
        Ok(head)
    };
    let head = head().unwrap_or_default();
    head.starts_with(b"PK\x03\x04") && head.get(LOCAL_HEADER..) == Some(MANIFEST.as_bytes())
}

/// Writes a bundle to a file in the folder `parent`.
pub(super) fn write(
    path: &Path,
    parent: &Path,
    bundle: &Bundle,
    elsewhere: &BTreeSet<Arc<str>>,
) -> Result<()> {
    if path.exists() && !is_archive(path) {
        return Err(input("bundle.place", "something that is no bundle is in the way")
            .help("name a file that does not exist yet"));
    }
    // Weights wait in a folder without a name that outlives the process.
    let scratch = tempfile::Builder::new().prefix(".djinn-weights-").tempdir_in(parent).map_err(failed)?;
    let (manifest, files) = contents(bundle, elsewhere, scratch.path())?;
    let manifest = manifest.to_json()?;
    let mut file = tempfile::NamedTempFile::new_in(parent).map_err(failed)?;
    let mut zip = zip::ZipWriter::new(BufWriter::new(file.as_file_mut()));
    put(&mut zip, MANIFEST, manifest.len() as u64, &mut manifest.as_bytes()).map_err(failed)?;
    for (name, content) in &files {
        match content {
            Content::Bytes(bytes) => {
                put(&mut zip, name, bytes.as_slice().len() as u64, &mut bytes.as_slice()).map_err(failed)?;
            }
            Content::File(from) => {
                let mut from = File::open(from).map_err(failed)?;
                let len = from.metadata().map_err(failed)?.len();
                put(&mut zip, name, len, &mut from).map_err(failed)?;
            }
        }
    }
    let mut out = zip.finish().map_err(|e| failed(e.into()))?;
    out.flush().map_err(failed)?;
    drop(out);
    crate::write::make_readable(file.path()).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

fn put<W: Write + Seek>(
    zip: &mut zip::ZipWriter<W>,
    name: &str,
    len: u64,
    from: &mut dyn Read,
) -> std::io::Result<()> {
    let options = SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .large_file(len >= LARGE)
        .with_alignment(ALIGNMENT);
    zip.start_file(name, options)?;
    std::io::copy(from, zip).map(|_| ())
}

/// Where the members of an archive are: first byte and length.
pub(super) fn members(bytes: &[u8]) -> Result<BTreeMap<String, (usize, usize)>> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
    let mut members = BTreeMap::new();
    for i in 0..archive.len() {
        let file = archive.by_index_raw(i).map_err(damaged)?;
        let name = file.name().map_err(damaged)?.into_owned();
        let span = || {
            let start = usize::try_from(file.data_start()?).ok()?;
            let len = usize::try_from(file.size()).ok()?;
            (start.checked_add(len)? <= bytes.len()).then_some((start, len))
        };
        let stored = file.compression() == zip::CompressionMethod::Stored && !file.encrypted();
        let named = name == MANIFEST || may_be_name(&name);
        let span =
            span().filter(|_| stored && named).ok_or_else(|| damaged("a member is not one of a bundle"))?;
        if members.insert(name, span).is_some() {
            return Err(damaged("two members have one name"));
        }
    }
    Ok(members)
}

fn damaged(what: impl std::fmt::Display) -> Box<Diagnostic> {
    input("bundle.archive", format!("the archive is damaged: {what}"))
        .help("copy the bundle again, or write it again")
}
