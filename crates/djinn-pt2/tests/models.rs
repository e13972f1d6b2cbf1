//! Every model of the repository's test data agrees with its recorded outputs.

mod support;

use std::path::Path;

#[test]
fn models_agree_with_recorded_outputs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models");
    let Ok(entries) = std::fs::read_dir(&root) else { return };
    let mut folders: Vec<_> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    folders.sort();
    let mut failures = Vec::new();
    for folder in folders.iter().filter(|f| f.join("model.pt2").is_file()) {
        if let Err(e) = support::check_model(folder, "model.pt2") {
            failures.push(format!("{}: {e}", folder.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
