//! The command on small cases: what it says of good, wrong, broken and slow ones.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models").join(name)
}

fn harness(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_djinn-harness")).args(arguments).output().expect("the harness starts")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Runs the cases of a folder; gives the exit code and the records.
fn cases(dir: &Path, more: &[&str]) -> (Option<i32>, Vec<Value>) {
    let out = tempfile::tempdir().expect("a folder");
    let (written, records) = (out.path().join("written"), out.path().join("records.json"));
    let mut arguments = vec!["cases", text(dir), "--out", text(&written), "--json", text(&records)];
    arguments.extend(more);
    let output = harness(&arguments);
    let lines = std::fs::read_to_string(&records).unwrap_or_default();
    let records = lines.lines().map(|l| serde_json::from_str(l).expect("a record")).collect();
    (output.status.code(), records)
}

/// A copy of a case folder, to be damaged.
fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(testdata(name)).expect("the test data") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, folder.path().join(path.file_name().expect("a name"))).expect("a copy");
    }
    folder
}

#[test]
fn a_good_case_passes_every_stage() {
    let (code, records) = cases(&testdata("cond_while"), &["--all-ok", "--all-opsets"]);
    assert_eq!(code, Some(0), "{records:?}");
    assert_eq!(records.len(), 2);
    for record in &records {
        assert_eq!(record["status"], "ok");
        for stage in ["import", "evaluate", "optimise", "cost", "evaluate-optimised", "write"] {
            assert_eq!(record["stages"][stage]["status"], "ok", "{stage}");
        }
        assert_eq!(record["opsets_optimised"]["24"], "ok");
    }
}

#[test]
fn other_results_than_recorded_are_wrong() {
    let folder = copy("cond_while");
    std::fs::copy(folder.path().join("inputs.npz"), folder.path().join("expected.npz")).expect("a copy");
    let (code, records) = cases(folder.path(), &[]);
    assert_eq!(code, Some(1));
    assert!(records.iter().all(|r| r["status"] == "wrong" && r["stage"] == "evaluate"), "{records:?}");
}

#[test]
fn a_damaged_model_is_an_error_and_no_crash() {
    let folder = copy("cond_while");
    for model in ["model.onnx", "model.pt2"] {
        let path = folder.path().join(model);
        let bytes = std::fs::read(&path).expect("a model");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("half a model");
    }
    let (code, records) = cases(folder.path(), &[]);
    assert_eq!(code, Some(1));
    assert!(records.iter().all(|r| r["status"] == "error" && r["stage"] == "import"), "{records:?}");
}

#[test]
fn a_case_without_an_answer_in_time_is_a_crash() {
    let (code, records) = cases(&testdata("cond_while"), &["--timeout", "0"]);
    assert_eq!(code, Some(1));
    assert!(records.iter().all(|r| r["status"] == "crash" && r["stage"] == "process"), "{records:?}");
}

#[test]
fn failures_outside_the_enforced_list_are_reported_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("list.txt");
    std::fs::write(&list, "another_case\n").expect("a file");
    let (code, _) = cases(&testdata("cond_while"), &["--timeout", "0", "--enforce", text(&list)]);
    assert_eq!(code, Some(0));
    let (code, _) =
        cases(&testdata("cond_while"), &["--timeout", "0", "--enforce", text(&list), "--min-ok", "1"]);
    assert_eq!(code, Some(1));
}

#[test]
fn a_wrong_command_line_has_its_own_exit_code() {
    let nowhere = testdata("no_such_case");
    assert_eq!(cases(&nowhere, &[]).0, Some(2));
    assert_eq!(cases(&testdata("cond_while"), &["--formats", "tflite"]).0, Some(2));
}

#[test]
fn runs_give_the_same_bytes() {
    let model = testdata("cond_while").join("model.pt2");
    assert_eq!(harness(&["determinism", text(&model), "--runs", "2"]).status.code(), Some(0));
}

#[test]
fn limits_of_full_models_are_enforced() {
    let dir = testdata("cond_while");
    assert_eq!(harness(&["full", text(&dir)]).status.code(), Some(0));
    assert_eq!(harness(&["full", text(&dir), "--max-mib", "0"]).status.code(), Some(1));
}

#[test]
fn coverage_lists_every_operation() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("coverage.md");
    assert_eq!(harness(&["coverage", "--out", text(&out)]).status.code(), Some(0));
    let table = std::fs::read_to_string(&out).expect("a table");
    assert!(table.contains("| matmul"));
}
