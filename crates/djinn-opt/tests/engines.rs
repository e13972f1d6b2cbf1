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

/// How many engines a bundle holds.
fn engines_in(bundle: &Path) -> usize {
    let files = std::fs::read_dir(bundle.join("engines")).expect("a folder").flatten();
    files.filter(|f| f.path().extension().is_some_and(|e| e == "engine")).count()
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
    assert_eq!(engines_in(&out) as u32, built, "one file for each distinct engine");
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
    assert_eq!(built as usize, engines_in(&folder.join("b0")));
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

/// Values of a field of the list of engines, in order.
fn field(out: &Path, name: &str) -> Vec<String> {
    let index = std::fs::read_to_string(out.join("engines.json")).expect("written");
    let mark = format!("      \"{name}\": ");
    let lines = index.lines().filter_map(|l| l.strip_prefix(&mark));
    lines.map(|v| v.trim_end_matches(',').trim_matches('"').to_owned()).collect()
}

#[test]
fn errors_of_narrow_engines_are_measured_and_bounded() {
    let folder = folder("precision");
    let (cache, out, remarks) = (folder.join("cache"), folder.join("b"), folder.join("remarks"));
    let narrow = ["--eager-engines", "--precision", "f16,lm.lm_head=f32"];
    let run = compile(&cache, &out, &narrow).output().expect("it starts");
    if counts("errors_of_narrow_engines_are_measured", &run).is_none() {
        return;
    }
    assert!(field(&out, "precision").iter().all(|p| p == "f16,lm.lm_head=keep"));
    let errors: Vec<f64> = field(&out, "error").iter().filter_map(|e| e.parse().ok()).collect();
    assert!(errors.len() > 2 && errors.iter().all(|e| (1e-6..1e-2).contains(e)), "{errors:?}");
    let inputs = testdata("llama_decode/inputs.npz");
    let run = compile(&cache, &out, &[&narrow[..], &["--inputs", &inputs]].concat()).output();
    said(&run.expect("it starts"));
    let given: Vec<f64> = field(&out, "error").iter().filter_map(|e| e.parse().ok()).collect();
    assert!(given.len() == errors.len() && given != errors, "{given:?}");
    let mut bounded = compile(&cache, &out, &[&narrow[..], &["--max-error", "1e-9"]].concat());
    said(&bounded.arg("--remarks").arg(&remarks).output().expect("it starts"));
    assert_eq!(field(&out, "precision").iter().filter(|p| *p == "keep").count(), errors.len());
    let told = std::fs::read_to_string(&remarks).expect("written");
    assert!(
        told.contains("it keeps its element types: with f16,lm.lm_head=keep its results are off by"),
        "{told}"
    );
    let run =
        compile(&cache, &out, &[&narrow[..], &["--max-error", "-1"]].concat()).output().expect("it starts");
    assert_eq!(run.status.code(), Some(2), "{}", String::from_utf8_lossy(&run.stderr));
}

#[test]
fn reports_show_engines_and_their_layers() {
    let folder = folder("layers");
    let out = folder.join("b");
    let run = compile(&folder.join("cache"), &out, &["--eager-engines"]).output().expect("it starts");
    if counts("reports_show_engines_and_their_layers", &run).is_none() {
        return;
    }
    let report = std::fs::read_to_string(out.join("report.html")).expect("written");
    for shown in
        ["Built engines", "tensorrt-rtx 1.7.", "matrix_multiply", "lm.model.layers.0.self_attn.q_proj"]
    {
        assert!(report.contains(shown), "{shown}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_djinn-opt"));
    let told = command.arg("explain").arg(&out).output().expect("it starts");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("Built engines of forward") && told.contains("element types"), "{told}");
    assert!(told.lines().all(|l| l.chars().count() <= 100));
}

#[test]
fn runs_without_engines_are_counted() {
    let folder = folder("lazy");
    let (cache, out) = (folder.join("cache"), folder.join("b"));
    said(&compile(&cache, &out, &["--no-engines"]).output().expect("it starts"));
    assert!(!cache.exists());
    let mut command = Command::new(env!("CARGO_BIN_EXE_djinn-opt"));
    let run = command.arg("run").arg(&out).args(["--repeat", "20", "--engine-cache"]).arg(&cache).output();
    let said = said(&run.expect("it starts"));
    if said.contains("tensorrt.missing") {
        println!("runs_without_engines_are_counted: skipped: TensorRT is not here");
        return;
    }
    let kept = std::fs::read_dir(cache.join("profile/v1")).expect("counts are kept").count();
    assert!(
        kept > 0 && !said.contains("[engines]"),
        "twenty runs of so small a model pay for nothing: {said}"
    );
}
