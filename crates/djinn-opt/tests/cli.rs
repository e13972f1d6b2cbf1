//! The command as a user runs it: results, exit codes, one diagnostic, no half-written files.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models").join(name)
}

fn djinn_opt(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_djinn-opt")).args(args).output().expect("djinn-opt starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A private folder for one test.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("the folder can be made");
    path
}

#[test]
fn optimises_checks_and_writes() {
    let out = folder("optimises").join("o.onnx");
    let input = model("llama_decode/model.pt2");
    let run = djinn_opt(&[
        &input.to_string_lossy(),
        "--emit",
        "onnx",
        "-o",
        &out.to_string_lossy(),
        "--check",
        "--stats",
    ]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert!(text(&run.stdout).contains("check passed"));
    assert!(std::fs::metadata(&out).expect("written").len() > 100_000);
}

#[test]
fn given_inputs_are_used() {
    let (input, npz) = (model("bert/model.onnx"), model("bert/inputs.npz"));
    let run = djinn_opt(&[&input.to_string_lossy(), "--check", "--inputs", &npz.to_string_lossy(), "--json"]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let json: serde_json::Value = serde_json::from_slice(&run.stdout).expect("one JSON object");
    assert_eq!(json["check"]["passed"], true);
    assert_eq!(json["check"]["random_inputs"], false);
    assert!(json["after"]["count"].as_u64() < json["before"]["count"].as_u64());
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let dir = folder("determinism");
    let input = model("llama_decode/model.onnx");
    let bytes: Vec<Vec<u8>> = (0..3)
        .map(|i| {
            let out = dir.join(format!("{i}.mlir"));
            let run = djinn_opt(&[&input.to_string_lossy(), "-o", &out.to_string_lossy()]);
            assert!(run.status.success());
            std::fs::read(out).expect("written")
        })
        .collect();
    assert!(bytes.windows(2).all(|w| w[0] == w[1]));
}

#[test]
fn text_form_reads_back_to_the_same_text() {
    let dir = folder("roundtrip");
    let (first, second) = (dir.join("a.mlir"), dir.join("b.mlir"));
    let input = model("whisper_encoder/model.onnx");
    assert!(djinn_opt(&[&input.to_string_lossy(), "-o", &first.to_string_lossy()]).status.success());
    let again = djinn_opt(&[
        &first.to_string_lossy(),
        "--pass-pipeline=builtin.module()",
        "-o",
        &second.to_string_lossy(),
    ]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert_eq!(std::fs::read(first).expect("written"), std::fs::read(second).expect("written"));
}

/// Runs on a file with these bytes and expects one diagnostic with this code, this exit code, and no output file.
fn refuses(name: &str, bytes: &[u8], exit: i32, code: &str) {
    let dir = folder(name);
    let (input, out) = (dir.join("input.bin"), dir.join("out.onnx"));
    std::fs::write(&input, bytes).expect("writable");
    let run = djinn_opt(&[&input.to_string_lossy(), "--emit", "onnx", "-o", &out.to_string_lossy()]);
    let stderr = text(&run.stderr);
    assert_eq!(run.status.code(), Some(exit), "{stderr}");
    assert!(stderr.contains(code), "{stderr}");
    assert!(stderr.contains("input.bin"), "the file is not named: {stderr}");
    assert!(!out.exists());
}

#[test]
fn empty_files_and_directories_are_refused() {
    refuses("empty", b"", 1, "file.empty");
    let run = djinn_opt(&[&folder("directory").to_string_lossy()]);
    assert_eq!(run.status.code(), Some(1));
    assert!(text(&run.stderr).contains("file.directory"));
}

#[test]
fn truncated_models_are_refused() {
    for (name, part) in [("pt2", "lstm/model.pt2"), ("onnx", "lstm/model.onnx")] {
        let bytes = std::fs::read(model(part)).expect("the model is there");
        for cut in [3, 100, bytes.len() / 2, bytes.len() - 1] {
            let dir = folder(&format!("truncated-{name}-{cut}"));
            let (input, out) = (dir.join("input.bin"), dir.join("out.onnx"));
            std::fs::write(&input, &bytes[..cut]).expect("writable");
            let run = djinn_opt(&[&input.to_string_lossy(), "--emit", "onnx", "-o", &out.to_string_lossy()]);
            let code = run.status.code();
            assert!(matches!(code, Some(1 | 3)), "{name} cut at {cut}: {code:?} {}", text(&run.stderr));
            assert!(!out.exists());
        }
    }
}

#[test]
fn flipped_bits_never_crash() {
    for part in ["lstm/model.pt2", "cond_while/model.onnx"] {
        let bytes = std::fs::read(model(part)).expect("the model is there");
        let dir = folder("flipped");
        let (input, out) = (dir.join("input.bin"), dir.join("out.mlir"));
        for i in 0..24usize {
            let mut copy = bytes.clone();
            let at = (i * 2_654_435_761) % copy.len();
            copy[at] ^= 1 << (i % 8);
            std::fs::write(&input, &copy).expect("writable");
            let run = djinn_opt(&[&input.to_string_lossy(), "-o", &out.to_string_lossy()]);
            let code = run.status.code();
            assert!(
                matches!(code, Some(0 | 1 | 3)),
                "{part} bit {} of byte {at}: {code:?} {}",
                i % 8,
                text(&run.stderr)
            );
        }
    }
}

#[test]
#[cfg(unix)]
fn outputs_follow_links_and_replace_nothing_but_files() {
    let dir = folder("outputs");
    let (real, link) = (dir.join("real.mlir"), dir.join("link.mlir"));
    std::fs::write(&real, "old").expect("writable");
    std::os::unix::fs::symlink(&real, &link).expect("linkable");
    let input = model("lstm/model.onnx");
    assert!(djinn_opt(&[&input.to_string_lossy(), "-o", &link.to_string_lossy()]).status.success());
    assert!(std::fs::symlink_metadata(&link).expect("there").is_symlink());
    assert!(std::fs::read_to_string(&real).expect("written").contains("builtin.module"));

    let pipe = dir.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::read_to_string(pipe).expect("readable")
    });
    assert!(djinn_opt(&[&input.to_string_lossy(), "-o", &pipe.to_string_lossy()]).status.success());
    assert!(reader.join().expect("no panic").contains("builtin.module"));
    assert!(!std::fs::metadata(&pipe).expect("there").is_file());

    let run = djinn_opt(&[&input.to_string_lossy(), "-o", &dir.to_string_lossy()]);
    assert_eq!(run.status.code(), Some(1));
    assert!(text(&run.stderr).contains("directory"));
}

#[test]
fn a_dash_is_standard_output() {
    let input = model("lstm/model.onnx").to_string_lossy().into_owned();
    let here = folder("dash");
    let run = |output: &[&str]| {
        let command = env!("CARGO_BIN_EXE_djinn-opt");
        Command::new(command)
            .args([&input, "--emit", "ir"])
            .args(output)
            .current_dir(&here)
            .output()
            .expect("djinn-opt starts")
    };
    let (dash, none) = (run(&["-o", "-"]), run(&[]));
    assert!(dash.status.success() && dash.stdout == none.stdout && !none.stdout.is_empty());
    assert_eq!(std::fs::read_dir(&here).expect("a folder").count(), 0);
}

#[test]
fn a_result_found_wrong_is_not_written() {
    let dir = folder("unsound");
    // A rule that does not hold: relu is not the identity.
    std::fs::write(
        dir.join("wrong.rw"),
        "(rule wrong \"Not true.\" (class exact) (from (relu ?x)) (to ?x) (given (?x f32 (a))))",
    )
    .expect("writable");
    let (input, out) = (model("squeezenet/model.onnx"), dir.join("out.mlir"));
    let args = ["--rules", &dir.to_string_lossy(), "--check", "-o", &out.to_string_lossy()];
    let run = djinn_opt(&[&[&*input.to_string_lossy()][..], &args[..]].concat());
    assert_eq!(run.status.code(), Some(5), "{}", text(&run.stderr));
    assert!(!out.exists());
}

#[test]
fn wrong_pipelines_point_at_the_place() {
    let input = model("lstm/model.onnx");
    let run = djinn_opt(&[&input.to_string_lossy(), "--pass-pipeline=builtin.module(canonicalize,saturat)"]);
    let stderr = text(&run.stderr);
    assert_eq!(run.status.code(), Some(1));
    assert!(stderr.contains("saturat") && stderr.contains("saturate"), "{stderr}");
    let run = djinn_opt(&[&input.to_string_lossy(), "--pass-pipeline=builtin.module(canonicalize"]);
    assert_eq!(run.status.code(), Some(1));
    assert!(text(&run.stderr).contains('^'), "{}", text(&run.stderr));
}

#[test]
fn wrong_command_lines_exit_with_2() {
    let input = model("bert/model.onnx");
    let input = input.to_string_lossy();
    for (args, code) in [
        (vec!["--no-such-option"], ""),
        (vec!["--emit", "ir"], "cli.input"),
        (vec![&*input, &*input], "cli.input"),
        (vec![&*input, "--emit", "onnx"], "cli.output"),
        (vec![&*input, "--emit", "bundle"], "cli.output"),
        (vec![&*input, "--emit", "plan", "--bind", "s0"], "cli.bind"),
        (vec![&*input, "--emit", "plan", "--pin", "layers"], "cli.pin"),
        (vec![&*input, "--emit", "plan", "--memory-limit", "much"], "cli.bytes"),
    ] {
        let run = djinn_opt(&args);
        let told = text(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{args:?}: {told}");
        assert!(told.contains(code), "{args:?}: {told}");
    }
}

#[test]
fn extra_rules_are_used() {
    let dir = folder("rules");
    std::fs::write(
        dir.join("mine.rw"),
        "(rule tanh-odd \"The hyperbolic tangent is odd.\" (class exact) (from (tanh (neg ?x))) (to (neg (tanh ?x)))\n  (given (?x f32 (a))))",
    )
    .expect("writable");
    let input = model("lstm/model.onnx");
    let run = djinn_opt(&[&input.to_string_lossy(), "--rules", &dir.to_string_lossy(), "--stats"]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    std::fs::write(dir.join("bad.rw"), "(rule x").expect("writable");
    let run = djinn_opt(&[&input.to_string_lossy(), "--rules", &dir.to_string_lossy()]);
    assert_eq!(run.status.code(), Some(1));
    assert!(text(&run.stderr).contains("bad.rw"), "{}", text(&run.stderr));
}

#[test]
fn extract_prints_cost_and_bound() {
    let graph = Path::new(env!("CARGO_MANIFEST_DIR")).join("../djinn-extract/testdata/vgg_acyclic.json");
    let out = folder("extract").join("selection.json");
    let run = djinn_opt(&["extract", &graph.to_string_lossy(), "-o", &out.to_string_lossy(), "--json"]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let json: serde_json::Value = serde_json::from_slice(&run.stdout).expect("JSON");
    assert!((json["cost"].as_f64().expect("a number") - 4.866_775).abs() < 1e-5);
    assert!(out.exists());
}
