//! Measuring, showing and calibrating as a user does it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn model(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata/models")
        .join(name)
        .to_string_lossy()
        .into_owned()
}

fn djinn_opt(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_djinn-opt")).args(args).output().expect("djinn-opt starts")
}

fn succeeds(args: &[&str]) -> String {
    let run = djinn_opt(args);
    assert!(run.status.success(), "{args:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8_lossy(&run.stdout).into_owned()
}

fn fails(args: &[&str], exit: i32, code: &str) {
    let run = djinn_opt(args);
    let message = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(exit), "{args:?}: {message}");
    assert!(message.contains(&format!("[{code}]")) && !message.contains("panicked"), "{args:?}: {message}");
}

fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("profiles").join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("the folder can be made");
    path
}

#[test]
fn runs_are_measured_shown_and_fitted_to() {
    let folder = folder("whole");
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (bundle, profile, fitted) = (file("bundle"), file("p.json"), file("host.toml"));
    let (input, inputs) = (model("llama_decode/model.pt2"), model("llama_decode/inputs.npz"));
    succeeds(&[&input, "--device", "host", "--emit", "bundle", "-o", &bundle]);
    let run = ["run", &bundle, "--inputs", &inputs, "--repeat", "3", "--profile", &profile];
    let said = succeeds(&run);
    for part in ["3 runs", "ratio", "median error", "step: predicted", "median of 3", "accuracy"] {
        assert!(said.contains(part), "no '{part}' in\n{said}");
    }
    succeeds(&run);
    let text = std::fs::read_to_string(&profile).expect("written");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["sections"].as_array().map(Vec::len), Some(1), "runs of one plan are one section");
    assert_eq!(json["sections"][0]["times"]["step"]["count"], 6, "runs add up, warm-up runs do not count");
    let said = succeeds(&["explain", &bundle, "--profile", &profile]);
    assert!(said.contains("Measured: entry") && said.contains("Accuracy of the step time"), "{said}");
    let said = succeeds(&["calibrate", "--from", &profile, "-o", &fitted]);
    assert!(said.contains("error before") && said.contains("fitted to"), "{said}");
    let report = file("r.html");
    succeeds(&[&input, "--device", "host", "--emit", "report", "-o", &report, "--profile", &profile]);
    assert!(std::fs::read_to_string(&report).expect("written").contains("<h3>Measured</h3>"));
    succeeds(&[&input, "--device", &fitted, "--emit", "plan", "-o", &file("plan.json")]);
    fails(&["explain", &file("plan.json"), "--profile", &profile], 2, "cli.profile");
    fails(&["calibrate", "--from", &profile, "--device", "h200"], 1, "calibrate.device");
    fails(&["calibrate", "--from", &profile, "--mode", "gpu"], 1, "calibrate.modes");
    fails(&[&input, "--emit", "ir", "--profile", &profile], 2, "cli.profile");
    fails(
        &[&model("lstm/model.pt2"), "--emit", "report", "-o", &report, "--profile", &profile],
        1,
        "profile.program",
    );
    // A file that is no profile stays as it is.
    let other = file("other.json");
    std::fs::write(&other, "{\"version\": 1}").expect("written");
    fails(&["run", &bundle, "--inputs", &inputs, "--profile", &other], 1, "profile.format");
    assert_eq!(std::fs::read_to_string(&other).expect("there"), "{\"version\": 1}");
    std::fs::write(&other, text.replacen("\"version\": 1", "\"version\": 9", 1)).expect("written");
    fails(&["calibrate", "--from", &other], 3, "profile.version");
    fails(&["calibrate", "--from", &file("none.json")], 1, "file.read");
}
