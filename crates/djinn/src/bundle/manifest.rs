//! The manifest of a bundle: what files it has, and their hashes.

use super::container::Container;
use super::{MAX_MANIFEST_BYTES, failed};
use djinn_diag::{Result, input};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(super) const MANIFEST: &str = "manifest.json";
const FORMAT: &str = "djinn-bundle";
/// Version of the bundle format; a reader refuses every other.
const VERSION: u32 = 2;
/// Bytes of the name of a file, at most.
const MAX_NAME: usize = 200;

/// The manifest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: String,
    version: u32,
    /// Structural hash of the program.
    pub(super) program: String,
    /// Every other file.
    pub(super) files: BTreeMap<String, FileInfo>,
}

/// What a file must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileInfo {
    pub(super) bytes: u64,
    blake3: String,
}

impl FileInfo {
    pub(super) fn of(bytes: &[u8]) -> FileInfo {
        FileInfo { bytes: bytes.len() as u64, blake3: blake3::hash(bytes).to_hex().to_string() }
    }
}

/// The part of a manifest that every version has.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
    #[serde(default)]
    files: BTreeMap<String, serde::de::IgnoredAny>,
}

impl Manifest {
    pub(super) fn new(program: &str, files: BTreeMap<String, FileInfo>) -> Manifest {
        Manifest { format: FORMAT.into(), version: VERSION, program: program.to_owned(), files }
    }

    pub(super) fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n").map_err(|e| failed(e.into()))
    }

    /// Reads the manifest of a bundle.
    pub(super) fn parse(container: &Container) -> Result<Manifest> {
        let bytes = container.read(MANIFEST, MAX_MANIFEST_BYTES)?;
        let malformed = |e: serde_json::Error| {
            input("bundle.manifest", format!("the manifest is malformed: {e}")).help("write it again")
        };
        let head: Head = serde_json::from_slice(bytes.as_slice()).map_err(malformed)?;
        if head.format != FORMAT || head.version != VERSION {
            let message = format!("the bundle has version {}, this is {VERSION}", head.version);
            return Err(
                input("bundle.version", message).help("write it again with this version of djinn-opt")
            );
        }
        let manifest: Manifest = serde_json::from_slice(bytes.as_slice()).map_err(malformed)?;
        match manifest.files.keys().find(|name| !may_be_name(name)) {
            Some(odd) => {
                let message = format!("the manifest names a file that no bundle has: {odd:?}");
                Err(input("bundle.manifest", message).shortened().help("write the bundle again"))
            }
            None => Ok(manifest),
        }
    }
}

/// The files that a manifest of any version names; `None` if the bytes are no manifest of a bundle.
pub(super) fn named_files(bytes: &[u8]) -> Option<Vec<String>> {
    let head: Head = serde_json::from_slice(bytes).ok()?;
    (head.format == FORMAT).then(|| head.files.into_keys().collect())
}

/// May a file of a bundle have this name? At most one folder, nothing hidden, nothing that means something to a system.
pub(super) fn may_be_name(name: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    name.len() <= MAX_NAME && name.split('/').count() <= 2 && name.split('/').all(plain) && name != MANIFEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for name in ["plan.json", "engines/0a1b.engine", "kernels/sm_90.ptx", "a-b_c.d"] {
            assert!(may_be_name(name), "{name}");
        }
        let long = "x".repeat(MAX_NAME + 1);
        for name in [
            "",
            "/",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a/b/c",
            ".x",
            "a/.b",
            "a\\b",
            "c:x",
            "a b",
            "é",
            &long,
        ] {
            assert!(!may_be_name(name), "{name}");
        }
    }
}
