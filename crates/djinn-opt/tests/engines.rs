//! Bundles with TensorRT engines as a user makes and runs them. Without TensorRT the tests say that they skip.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn testdata(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata/models")
        .join(name)
        .to_string_lossy()
        .into_owned()
}

fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("engines").join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("the folder can be made");
    path
}

fn compile(cache: &Path, out: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_djinn-opt"));
    command.args([&testdata("llama_decode/model.pt2"), "--device", "h200", "--emit", "bundle", "-o"]);
    command.arg(out).arg("--engine-cache").arg(cache).args(options);
    command
}

fn said(run: &Output) -> String {
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8_lossy(&run.stderr).into_owned()
}

/// What was built and found, by the line that is printed of it; `None` without TensorRT.
fn counts(test: &str, run: &Output) -> Option<(u32, u32)> {
    let said = said(run);
    if said.contains("tensorrt.missing") {
        println!("{test}: skipped: TensorRT is not here");
        return None;
    }
    let number = |word: &str| {
        let before = said.split(word).next()?;
        before.rsplit([';', ',']).next()?.trim().parse().ok()
    };
    Some((number(" built").expect("a number"), number(" found").expect("a number")))
}

#[test]
fn a_second_compile_builds_nothing_and_gives_the_same_bytes() {
    let folder = folder("second");
    let (cache, out) = (folder.join("cache"), folder.join("b"));
    let run = compile(&cache, &out, &[]).output().expect("it starts");
    let Some((built, _)) = counts("a_second_compile_builds_nothing", &run) else { return };
    assert!(built > 0, "{}", said(&run));
    let manifest = std::fs::read(out.join("manifest.json")).expect("written");
    let run = compile(&cache, &out, &[]).output().expect("it starts");
    assert_eq!(counts("", &run).map(|c| c.0), Some(0), "{}", said(&run));
    assert!(std::fs::read(out.join("manifest.json")).expect("written") == manifest);
    let engines = std::fs::read_dir(out.join("engines")).expect("a folder").count();
    assert_eq!(engines as u32, built, "one file for each distinct engine");
    let index = std::fs::read_to_string(out.join("engines.json")).expect("written");
    assert!(index.contains("\"library\": \"tensorrt-rtx 1.7."), "it says what built them");
    let mut command = Command::new(env!("CARGO_BIN_EXE_djinn-opt"));
    let run =
        command.arg("run").arg(&out).args(["--check", "--inputs", &testdata("llama_decode/inputs.npz")]);
    let run = run.output().expect("it starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(String::from_utf8_lossy(&run.stdout).contains("check passed"));
    // One flipped bit in each kept engine: none is used again.
    let kept = std::fs::read_dir(cache.join("engines/v1")).expect("kept").flatten().map(|e| e.path());
    let kept: Vec<PathBuf> = kept.filter(|p| p.extension().is_some_and(|e| e == "blob")).collect();
    assert_eq!(kept.len() as u32, built);
    for path in &kept {
        let mut bytes = std::fs::read(path).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).expect("written");
    }
    let run = compile(&cache, &out, &[]).output().expect("it starts");
    assert_eq!(counts("", &run).map(|c| c.0), Some(built), "{}", said(&run));
}

#[test]
fn eight_compiles_at_once_build_each_engine_once() {
    let folder = folder("eight");
    let cache = folder.join("cache");
    let start = |i: usize| {
        let mut command = compile(&cache, &folder.join(format!("b{i}")), &[]);
        command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
        command.spawn().expect("it starts")
    };
    let running: Vec<_> = (0..8).map(start).collect();
    let runs: Vec<Output> = running.into_iter().map(|c| c.wait_with_output().expect("it ends")).collect();
    let mut built = 0;
    for run in &runs {
        let Some(counts) = counts("eight_compiles_at_once", run) else { return };
        built += counts.0;
    }
    let engines = std::fs::read_dir(folder.join("b0/engines")).expect("a folder").count();
    assert_eq!(built as usize, engines);
    let manifest = |i: usize| std::fs::read(folder.join(format!("b{i}/manifest.json"))).expect("written");
    assert!((1..8).all(|i| manifest(i) == manifest(0)), "all are the same bundle");
}

#[test]
fn no_engines_are_built_where_none_are_wanted() {
    let folder = folder("none");
    let out = folder.join("b");
    let run = compile(&folder.join("cache"), &out, &["--no-engines"]).output().expect("it starts");
    assert!(!said(&run).contains("engines:") && !out.join("engines").exists());
    let run = compile(&folder.join("cache"), &out, &["--no-engines", "--eager-engines"]).output();
    assert_eq!(run.expect("it starts").status.code(), Some(2));
    let run = compile(&folder.join("cache"), &out, &["--precision", "f8"]).output().expect("it starts");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(2), "{said}");
    assert!(said.contains("cli.precision") && said.contains("f16"), "{said}");
}
