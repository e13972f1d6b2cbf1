//! Where the files of a bundle are read from: a folder or an archive.

use super::manifest::MANIFEST;
use super::{altered, archive};
use djinn_diag::{Diagnostic, Result, input};
use djinn_ir::data::Bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file in memory.
pub(super) type Shared = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// An opened bundle.
pub(super) enum Container {
    Folder(PathBuf),
    /// The file, and where its members are.
    Archive(Shared, BTreeMap<String, (usize, usize)>),
}

fn unreadable(e: std::io::Error) -> Box<Diagnostic> {
    input("bundle.file", e.to_string()).help("the bundle is incomplete")
}

fn missing() -> Box<Diagnostic> {
    input("bundle.file", "the archive does not have this file").help("the bundle is incomplete")
}

impl Container {
    /// Opens a bundle.
    ///
    /// # Errors
    /// `bundle.manifest` if it is none.
    pub(super) fn open(path: &Path) -> Result<Container> {
        if path.join(MANIFEST).is_file() {
            return Ok(Container::Folder(path.to_owned()));
        }
        if archive::is_archive(path) {
            let bytes = map_shared(path).map_err(unreadable)?;
            let members = archive::members((*bytes).as_ref())?;
            return Ok(Container::Archive(bytes, members));
        }
        Err(input("bundle.manifest", "this is no bundle: it has no manifest.json").help(
            "djinn-opt MODEL --device host --emit bundle -o FOLDER writes one (as one file if the name ends in .djinn)",
        ))
    }

    /// The bytes of a file of at most so many bytes, read into memory: they stay what they are.
    pub(super) fn read(&self, name: &str, most: u64) -> Result<Bytes> {
        match self {
            Container::Folder(folder) => {
                let file = regular(&folder.join(name))?;
                let mut bytes = Vec::new();
                file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
                if bytes.len() as u64 > most { Err(altered()) } else { Ok(bytes.into()) }
            }
            Container::Archive(..) => {
                let bytes = self.mapped(name)?;
                if bytes.as_slice().len() as u64 > most {
                    return Err(altered());
                }
                Ok(bytes.as_slice().to_vec().into())
            }
        }
    }

    /// The bytes of a file as they stand on disk.
    pub(super) fn mapped(&self, name: &str) -> Result<Bytes> {
        match self {
            Container::Folder(folder) => {
                let path = folder.join(name);
                regular(&path)?;
                map(&path).map_err(unreadable)
            }
            Container::Archive(bytes, members) => {
                let (start, len) = *members.get(name).ok_or_else(missing)?;
                Bytes::window(bytes.clone(), start, len).ok_or_else(missing)
            }
        }
    }
}

/// Opens a regular file; pipes and devices could block or never end.
fn regular(path: &Path) -> Result<File> {
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(input("bundle.file", "this is no regular file").help("write the bundle again"));
    }
    File::open(path).map_err(unreadable)
}

/// A file as bytes in memory that are loaded when they are used.
pub(super) fn map(path: &Path) -> std::io::Result<Bytes> {
    let shared = map_shared(path)?;
    let len = (*shared).as_ref().len();
    Ok(Bytes::window(shared, 0, len).unwrap_or_else(|| Vec::new().into()))
}

#[allow(unsafe_code, reason = "files are mapped into memory so that weights are loaded when they are used")]
fn map_shared(path: &Path) -> std::io::Result<Shared> {
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Arc::new(Vec::new()));
    }
    // SAFETY: the map is only read. A bundle that another program alters while it is in use may give other values
    // (the hashes were of the old ones); bytes are never interpreted in a way that other values make unsound.
    let map = unsafe { memmap2::Mmap::map(&file) }?;
    Ok(Arc::new(map))
}
