//! Files: memory maps, gzip, and external data next to the model.

use crate::{Imported, import};
use djinn_diag::{Context, Result, input};
use djinn_onnx_proto::Bytes;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Shared bytes that keep their owner (a memory map, a vector) alive.
pub type ByteSource = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Size of an unzipped model, at most.
const MAX_UNZIPPED: usize = 1 << 30;

/// Imports a `.onnx` file, or a gzipped one; external data is looked for next to it.
///
/// # Errors
/// As [`import`], and if a file cannot be read. Diagnostics do not name the model file: the caller knows it.
pub fn import_file(path: &Path) -> Result<Imported> {
    let bytes = read(path)?;
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let cache: RefCell<BTreeMap<String, Option<ByteSource>>> = RefCell::default();
    let external = |location: &str| {
        if let Some(known) = cache.borrow().get(location) {
            return Ok(known.clone());
        }
        let found = open_external(&folder, location)?;
        cache.borrow_mut().insert(location.to_owned(), found.clone());
        Ok(found)
    };
    import(bytes, &external)
}

fn read(path: &Path) -> Result<Bytes> {
    let source = map(path)?;
    if (*source).as_ref().starts_with(&[0x1f, 0x8b]) {
        return djinn_srg::gzip::unpack("onnx.gzip", (*source).as_ref(), MAX_UNZIPPED).map(Bytes::from);
    }
    Ok(Bytes::from_owner(Owner(source)))
}

/// Lets a [`ByteSource`] own a `bytes::Bytes`.
struct Owner(ByteSource);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

fn map(path: &Path) -> Result<ByteSource> {
    let fail = |e: std::io::Error| {
        input("onnx.file", format!("cannot be read: {e}")).help("check that the path exists and may be read")
    };
    // Asked before opening, which would wait for a writer if the file is a pipe.
    let meta = std::fs::metadata(path).map_err(fail)?;
    if !meta.is_file() {
        return Err(input("onnx.file", "not a regular file").help("name the model file itself"));
    }
    let file = File::open(path).map_err(fail)?;
    let meta = file.metadata().map_err(fail)?;
    if meta.len() == 0 {
        return Ok(Arc::new(Vec::new()));
    }
    // SAFETY: the map is read-only and private. If another process shortens the file while it is mapped the
    // process gets SIGBUS; as with every memory-mapped model format, files must not change while in use.
    #[allow(unsafe_code, reason = "memory maps cannot be made in safe code; see the safety comment")]
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(fail)?;
    Ok(Arc::new(map))
}

/// Opens external data; only plain files in or under the model's folder are allowed.
fn open_external(folder: &Path, location: &str) -> Result<Option<ByteSource>> {
    let refuse = |why: &str| {
        input("onnx.external-data", format!("the external data location '{location}' {why}"))
            .help("keep external data in the model's own folder and name it by a relative path")
    };
    let relative = Path::new(location);
    if location.is_empty() || location.contains('\0') {
        return Err(refuse("is not a file name"));
    }
    if relative.is_absolute() || location.starts_with('\\') || location.contains(':') {
        return Err(refuse("is absolute"));
    }
    let mut path = PathBuf::from(folder);
    for part in relative.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => {
                path.push(name);
                if path.is_symlink() {
                    return Err(refuse("goes through a symbolic link"));
                }
            }
            _ => return Err(refuse("leaves the model's folder")),
        }
    }
    if !path.exists() {
        return Ok(None);
    }
    map(&path).map(Some).at(|| format!("external data '{location}'"))
}
