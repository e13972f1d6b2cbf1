//! Every model of the repository's test data imports without opaque operations, lowers, and agrees with its own
//! declared types.

use std::path::Path;

#[test]
fn models_of_the_test_data_import() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models");
    // The models are optional: a checkout without them has nothing to check here.
    let Ok(entries) = std::fs::read_dir(root) else { return };
    let mut folders: Vec<_> = entries.filter_map(Result::ok).map(|e| e.path()).collect();
    folders.sort();
    for file in folders.iter().map(|f| f.join("model.onnx")).filter(|f| f.is_file()) {
        let imported = djinn_onnx::import_file(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert!(imported.report.opaque.is_empty(), "{}: {:?}", file.display(), imported.report.opaque);
        assert_eq!(imported.report.type_disagreements, 0, "{}", file.display());
        djinn_srg::lower(&imported.srg).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
}
