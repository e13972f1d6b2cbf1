//! Names the build: a hash of the sources, so that what one build cached is no answer of another.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

fn main() {
    let mut files = Vec::new();
    for folder in ["../../crates", "../../passes"] {
        println!("cargo:rerun-if-changed={folder}");
        collect(Path::new(folder), &mut files);
    }
    files.sort();
    // The keys of this hasher are fixed, so the same sources give the same name.
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(&file).unwrap_or_default().hash(&mut hasher);
    }
    println!("cargo:rustc-env=DJINN_BUILD={:016x}", hasher.finish());
}

/// The files of the crates that decide what a plan looks like.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|e| e.path()) {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            if !["tests", "examples", "benches", "target"].contains(&name.as_str()) {
                collect(&path, files);
            }
        } else if [".rs", ".rw", ".toml"].iter().any(|end| name.ends_with(end)) {
            files.push(path);
        }
    }
}
