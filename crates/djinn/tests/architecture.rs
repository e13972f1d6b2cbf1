//! The arrows between crates and the invariants of the code map, held by reading manifests and sources.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Tier of every crate; an arrow only goes to a lower tier.
const TIERS: &[(&str, u8)] = &[
    ("djinn-diag", 0),
    ("djinn-extract", 0),
    ("djinn-onnx-proto", 0),
    ("djinn-pack", 0),
    ("djinn-place", 0),
    ("djinn-schedule", 0),
    ("djinn-ir", 1),
    ("djinn-device", 1),
    ("djinn-plan", 1),
    ("djinn-srg", 2),
    ("djinn-interp", 2),
    ("djinn-egraph", 2),
    ("djinn-cost", 2),
    ("djinn-pass", 2),
    ("djinn-onnx", 3),
    ("djinn-pt2", 3),
    ("djinn-onnx-export", 3),
    ("djinn-rulecheck", 3),
    ("djinn-canonicalize", 3),
    ("djinn-saturate", 3),
    ("djinn-phase-detect", 3),
    ("djinn-subgraph-hash", 3),
    ("djinn-colocate", 3),
    ("djinn-partition", 3),
    ("djinn-lifetime", 3),
    ("djinn-streams", 3),
    ("djinn-blas", 3),
    ("djinn-cache", 3),
    ("djinn-cuda-emulator", 3),
    ("djinn-cuda", 3),
    ("djinn-llvm", 3),
    ("djinn-mlir", 3),
    ("djinn-tensorrt", 3),
    ("djinn-kernel", 3),
    ("djinn-planner", 4),
    ("djinn-runtime", 4),
    ("djinn-report", 4),
    ("djinn-engines", 4),
    ("djinn", 5),
    ("djinn-opt", 6),
    ("djinn-harness", 6),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Folder and name of every crate.
fn crates() -> BTreeMap<String, PathBuf> {
    let mut out = BTreeMap::new();
    for group in ["crates", "passes", "tools"] {
        for entry in std::fs::read_dir(root().join(group)).expect("the folder is there") {
            let folder = entry.expect("readable").path();
            if let Ok(manifest) = std::fs::read_to_string(folder.join("Cargo.toml")) {
                let name = manifest.lines().find_map(|l| l.strip_prefix("name = \"")).expect("a name");
                out.insert(name.trim_end_matches('"').to_owned(), folder);
            }
        }
    }
    out
}

/// The project's crates in the `[dependencies]` of a manifest.
fn dependencies(folder: &Path) -> Vec<String> {
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("readable");
    let section = manifest.split("\n[").find(|s| s.starts_with("dependencies]")).unwrap_or("");
    section
        .lines()
        .filter(|l| l.starts_with("djinn"))
        .filter_map(|l| l.split(['.', ' ', '=']).next())
        .map(str::to_owned)
        .collect()
}

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut out = Vec::new();
    let mut stack = vec![folder.join("src")];
    while let Some(path) = stack.pop() {
        if path.is_dir() {
            stack.extend(std::fs::read_dir(&path).expect("readable").map(|e| e.expect("readable").path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).expect("readable");
            out.push((path, text));
        }
    }
    out
}

fn tier(name: &str) -> u8 {
    TIERS.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("{name} has no tier in this test")).1
}

#[test]
fn arrows_go_to_lower_tiers() {
    for (name, folder) in crates() {
        for dependency in dependencies(&folder) {
            assert!(tier(&dependency) < tier(&name), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn passes_do_not_see_one_another() {
    let passes = [
        "djinn-canonicalize",
        "djinn-saturate",
        "djinn-phase-detect",
        "djinn-subgraph-hash",
        "djinn-colocate",
        "djinn-partition",
        "djinn-lifetime",
        "djinn-streams",
    ];
    for (name, folder) in crates() {
        if passes.contains(&name.as_str()) {
            let others = dependencies(&folder);
            assert!(others.iter().all(|d| !passes.contains(&d.as_str())), "{name} depends on a pass");
        }
    }
}

#[test]
fn core_crates_touch_no_file_clock_or_environment() {
    for (name, folder) in crates() {
        if tier(&name) > 2 {
            continue;
        }
        for (path, text) in sources(&folder) {
            // Test modules stand at the end of a file.
            let code = text.split("#[cfg(test)]").next().unwrap_or("");
            for banned in ["std::fs", "std::time", "std::env", "Instant::now", "SystemTime"] {
                assert!(
                    !code.contains(banned) || path.to_string_lossy().ends_with("tests.rs"),
                    "{} uses {banned}",
                    path.display()
                );
            }
        }
    }
}

/// Crates that call foreign or generated code.
const FOREIGN: &[&str] = &[
    "djinn-blas",
    "djinn-cuda",
    "djinn-cuda-emulator",
    "djinn-harness",
    "djinn-llvm",
    "djinn-mlir",
    "djinn-runtime",
    "djinn-tensorrt",
];

#[test]
fn unsafe_stands_only_where_files_are_mapped_or_foreign_code_is_called() {
    for (name, folder) in crates() {
        for (path, text) in sources(&folder) {
            for (i, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or("");
                if code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl") {
                    let around: Vec<&str> = text.lines().skip(i).take(4).collect();
                    let maps = around.iter().any(|l| l.contains("Mmap"));
                    let foreign = FOREIGN.contains(&name.as_str());
                    assert!(maps || foreign, "{}:{} is unsafe and maps no file", path.display(), i + 1);
                    let before = text.lines().take(i).collect::<Vec<_>>();
                    let reason =
                        |l: &&str| l.contains("SAFETY:") || l.contains("# Safety") || l.contains("reason =");
                    let told = maps || before.iter().rev().take(10).any(reason);
                    assert!(told, "{}:{} is unsafe and says no reason", path.display(), i + 1);
                }
            }
        }
    }
}

#[test]
fn every_module_says_what_it_is() {
    for (_, folder) in crates() {
        for (path, text) in sources(&folder) {
            assert!(
                text.starts_with("//!") || path.to_string_lossy().ends_with("tests.rs"),
                "{} has no module text",
                path.display()
            );
        }
    }
}
