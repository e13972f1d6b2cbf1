//! Planning, bundles and solvers as a user runs them: results, one diagnostic for each mistake, nothing half-written.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn model(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models").join(name);
    path.to_string_lossy().into_owned()
}

fn djinn_opt<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_djinn-opt")).args(args).output().expect("djinn-opt starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A private folder for one test.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plans").join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("the folder can be made");
    path
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("written");
    path.to_string_lossy().into_owned()
}

fn succeeds(args: &[&str]) -> String {
    let run = djinn_opt(args);
    assert!(run.status.success(), "{args:?}: {}", text(&run.stderr));
    text(&run.stdout)
}

/// The command is refused with this exit code and one diagnostic of this code.
fn fails(args: &[&str], exit: i32, code: &str) -> String {
    let run = djinn_opt(args);
    let message = text(&run.stderr);
    assert_eq!(run.status.code(), Some(exit), "{args:?}: {message}");
    assert!(message.contains(&format!("[{code}]")), "{args:?}: {message}");
    let label = if exit == 3 { "unsupported[" } else { "error[" };
    assert_eq!(message.matches(label).count(), 1, "{args:?}: {message}");
    assert!(!message.contains("panicked"), "{message}");
    message
}

/// A bundle of a model in a folder of its own.
fn bundle(test: &str, name: &str) -> PathBuf {
    let path = folder(test).join("bundle");
    succeeds(&[&model(name), "--device", "host", "--emit", "bundle", "-o", &path.to_string_lossy()]);
    path
}

#[test]
fn a_bundle_runs_and_agrees() {
    let path = bundle("runs", "llama_staticcache/model.pt2");
    let (bundle, inputs) = (path.to_string_lossy(), model("llama_staticcache/inputs.npz"));
    let folder = folder("runs-out");
    let (outputs, trace) = (folder.join("y.npz"), folder.join("t.json"));
    let said = succeeds(&[
        "run",
        &bundle,
        "--inputs",
        &inputs,
        "--outputs",
        &outputs.to_string_lossy(),
        "--trace",
        &trace.to_string_lossy(),
        "--check",
        "--detect-races",
        "--repeat",
        "3",
    ]);
    assert!(said.contains("check passed") && said.contains("3 runs"), "{said}");
    assert!(std::fs::metadata(&outputs).expect("written").len() > 1000);
    let trace: serde_json::Value =
        serde_json::from_slice(&std::fs::read(trace).expect("written")).expect("the trace is JSON");
    assert!(trace["traceEvents"].as_array().is_some_and(|events| events.len() > 10));
    assert!(succeeds(&["plan-check", &bundle]).contains("accepted"));
    assert!(succeeds(&["explain", &bundle]).contains("host:0"));
}

#[test]
fn a_plan_is_written_in_every_form_and_read_back() {
    let folder = folder("forms");
    let input = model("squeezenet/model.onnx");
    for (emit, name) in [
        ("plan", "p.json"),
        ("plan", "p.bin"),
        ("plan-text", "p.txt"),
        ("trace", "t.json"),
        ("report", "r.html"),
    ] {
        let out = folder.join(name).to_string_lossy().into_owned();
        succeeds(&[&input, "--device", "h200,h200", "--emit", emit, "-o", &out]);
        assert!(std::fs::metadata(&out).expect("written").len() > 1000, "{name}");
    }
    let [json, binary] = ["p.json", "p.bin"].map(|n| folder.join(n).to_string_lossy().into_owned());
    let (a, b) = (succeeds(&["plan-check", &json]), succeeds(&["plan-check", &binary]));
    assert_eq!(a.replace("p.json", "p.bin"), b);
    assert_eq!(succeeds(&["explain", &json]), succeeds(&["explain", &binary]));
}

#[test]
fn a_kept_plan_is_the_plan() {
    let folder = folder("cache");
    let cache = folder.join("cache").to_string_lossy().into_owned();
    let input = model("bert/model.onnx");
    let args = [&input, "--device", "h200", "--emit", "plan", "--plan-cache", &cache];
    let (first, second) = (djinn_opt(args), djinn_opt(args));
    assert!(first.status.success() && second.status.success(), "{}", text(&second.stderr));
    assert!(first.stdout == second.stdout && first.stdout.len() > 1000);
}

#[test]
fn mistakes_in_devices_and_sizes_are_explained() {
    let folder = folder("devices");
    let input = model("llama_decode/model.pt2");
    let plan = |more: &[&str], code: &str| {
        let mut args = vec![input.as_str(), "--emit", "plan-text"];
        args.extend(more);
        fails(&args, if code.starts_with("cli.") { 2 } else { 1 }, code)
    };
    let topology = |name: &str, text: &str| write(&folder, name, text);
    assert!(plan(&["--device", "h2000"], "profile.unknown").contains("h200"));
    plan(&["--bind", "s0"], "cli.bind");
    assert!(plan(&["--bind", "nothing=3"], "plan.symbol").contains("s0"));
    plan(&["--memory-limit", "lots"], "cli.bytes");
    let twice = plan(&["--bind", "s0=1..16,9..32"], "plan.buckets");
    assert!(twice.contains("s0 = 1..16") && twice.contains("s0 = 9..32"), "{twice}");
    let twice = plan(&["--bind", "s0=16", "--bind", "s0=1..64"], "plan.buckets");
    assert!(twice.contains("s0 = 16") && twice.contains("s0 = 1..64"), "{twice}");
    assert!(plan(&["--phase", "llm_prefill"], "plan.phase").contains("llm_decode"));
    assert!(plan(&["--memory-limit", "100kB"], "lifetime.memory").contains("may use 100.0 kB"));
    let cyclic = "[[node]]\nname = \"a\"\ninside = \"b\"\n[[node]]\nname = \"b\"\ninside = \"a\"\n\
                  [[device]]\nprofile = \"host\"\nnode = \"a\"\n";
    plan(&["--topology", &topology("cyclic.toml", cyclic)], "topology.cycle");
    let link = "[[device]]\nprofile = \"h200\"\ncount = 2\n[[link]]\nbetween = [\"h200:0\", \"h200:1\"]\n\
                kind = \"custom\"\nbandwidth = 0.0\nlatency = 0.0\n";
    plan(&["--topology", &topology("zero.toml", link)], "topology.bandwidth");
    plan(&["--topology", &topology("text.toml", "not a topology")], "topology.format");
    plan(&["--topology", "missing.toml"], "file.read");
}

#[test]
fn a_pin_to_a_device_that_is_not_there_is_refused() {
    let folder = folder("pins");
    let ir = folder.join("m.mlir").to_string_lossy().into_owned();
    succeeds(&[&model("squeezenet/model.onnx"), "-o", &ir]);
    let pinned = std::fs::read_to_string(&ir).expect("written");
    let at = pinned.find("\"djinn.conv\"").expect("a convolution");
    let open = at + pinned[at..].find('{').expect("attributes");
    let text = format!("{}djinn.device = \"tpu:7\", {}", &pinned[..=open], &pinned[open + 1..]);
    let path = write(&folder, "pinned.mlir", &text);
    let out = folder.join("p.json").to_string_lossy().into_owned();
    let message =
        fails(&[&path, "--device", "h200,h200", "--emit", "plan", "-o", &out], 1, "colocate.device");
    assert!(message.contains("tpu:7") && message.contains("h200:0"), "{message}");
    assert!(!Path::new(&out).exists());
}

/// A model of one ONNX node that Djinn does not know: protobuf by hand.
fn unknown_operator(folder: &Path, name: &str) -> String {
    let field = |number: u8, content: &[u8]| [&[number << 3 | 2, content.len() as u8], content].concat();
    let value = |name: &str| {
        // FLOAT of shape [4].
        let shape = field(2, &field(1, &[0x08, 4]));
        let tensor = field(1, &[&[0x08, 1][..], &shape].concat());
        [field(1, name.as_bytes()), field(2, &tensor)].concat()
    };
    let node = [
        field(1, b"x"),
        field(2, b"y"),
        field(3, name.as_bytes()),
        field(4, b"Frobnicate"),
        field(7, b"acme"),
    ];
    let parts = [field(1, &node.concat()), field(2, b"g"), field(11, &value("x")), field(12, &value("y"))];
    let acme = [field(1, b"acme"), vec![0x10, 1]].concat();
    let model = [vec![0x08, 8], field(7, &parts.concat()), field(8, &[0x10, 17]), field(8, &acme)].concat();
    let path = folder.join("unknown.onnx");
    std::fs::write(&path, model).expect("written");
    path.to_string_lossy().into_owned()
}

#[test]
fn unknown_operations_are_told_of_before_a_run() {
    let folder = folder("unknown");
    let input = unknown_operator(&folder, "the node");
    let out = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let message = fails(&[&input, "--device", "host", "--emit", "bundle", "-o", &out("b")], 3, "plan.opaque");
    assert!(message.contains("Frobnicate' at node 'the node'"), "{message}");
    assert!(!folder.join("b").exists());
    // The second time the plan comes from the cache.
    let (plan, cache) = (out("p.json"), out("cache"));
    for _ in 0..2 {
        let args = [&input, "--device", "host", "--emit", "plan", "-o", &plan, "--plan-cache", &cache];
        let run = djinn_opt(args);
        let told = text(&run.stderr);
        assert!(run.status.success() && told.contains("warning: ") && told.contains("'the node'"), "{told}");
    }
    let input = unknown_operator(&folder, "the\u{1b}[31m\nno\u{202e}de");
    let run = djinn_opt([&input, "--device", "host", "--emit", "plan", "-o", &plan]);
    let told = text(&run.stderr);
    assert!(run.status.success() && told.contains("'the\u{fffd}[31m\u{fffd}no\u{fffd}de'"), "{told:?}");
    assert!(!told.contains('\u{1b}') && !told.contains('\u{202e}'), "{told:?}");
}

#[test]
fn planning_options_without_a_plan_are_told_of() {
    let input = model("squeezenet/model.onnx");
    let told = |more: &[&str]| {
        let run = djinn_opt([&[input.as_str(), "--pass-pipeline", "builtin.module()"], more].concat());
        assert!(run.status.success(), "{more:?}: {}", text(&run.stderr));
        text(&run.stderr)
    };
    let says = told(&["--emit", "ir", "--stream-weights"]);
    assert!(says.contains("warning: --stream-weights changes nothing"), "{says}");
    let says = told(&["--emit", "dot", "--memory-limit", "1GB", "--pin", "a=b"]);
    assert!(says.contains("warning: --pin, --memory-limit change nothing"), "{says}");
    // Passes know of named devices and their limits.
    assert_eq!(told(&["--emit", "ir", "--device", "host", "--memory-limit", "1GB"]), "");
    assert_eq!(told(&["--emit", "plan-text", "--stream-weights"]), "");
}

#[test]
fn files_that_are_no_plans_are_named_for_what_they_are() {
    let bundle = bundle("no-plans", "bert/model.onnx");
    let manifest = bundle.join("manifest.json").to_string_lossy().into_owned();
    for command in ["explain", "plan-check"] {
        assert!(fails(&[command, &model("bert/model.onnx")], 1, "plan.format").contains("an ONNX model"));
        assert!(fails(&[command, &manifest], 1, "plan.format").contains("name the folder of the bundle"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert!(fails(&[command, source], 1, "plan.format").contains("neither in JSON nor in binary form"));
    }
}

#[test]
fn inputs_of_another_type_are_refused_in_the_words_of_numpy() {
    let bundle = bundle("types", "squeezenet/model.onnx").to_string_lossy().into_owned();
    let inputs = folder("typed-inputs").join("x.npz");
    let read = djinn::npz::read(Path::new(&model("squeezenet/inputs.npz"))).expect("arrays");
    let wrong: Vec<_> = read
        .into_iter()
        .map(|(name, t)| {
            let size = t.shape().iter().product::<usize>() * 8;
            let t = djinn::ir::TensorData::new(djinn::ir::DType::F64, t.shape().to_vec(), vec![0u8; size]);
            (name, t.expect("fits"))
        })
        .collect();
    djinn::npz::write(&inputs, &wrong).expect("written");
    let message = fails(&["run", &bundle, "--inputs", &inputs.to_string_lossy()], 1, "npz.dtype");
    assert!(message.contains("the elements are float64 (<f8); expected float32 (<f4)"), "{message}");
}

#[test]
fn a_trace_has_every_entry() {
    let out = folder("entries").join("t.json").to_string_lossy().into_owned();
    let input = model("llama_decode/model.pt2");
    succeeds(&[&input, "--device", "h200", "--bind", "s0=2..16,17..32", "--emit", "trace", "-o", &out]);
    let trace = std::fs::read_to_string(&out).expect("written");
    for name in ["entry 0 forward (s0 = 2..16", "entry 1 forward (s0 = 17..32"] {
        assert!(trace.contains(name), "{name}");
    }
}

#[test]
fn bundles_with_missing_or_altered_files_are_refused() {
    let path = bundle("altered", "bert/model.onnx");
    let names = ["manifest.json", "module.mlir", "plan.json", "weights.safetensors"];
    for name in names {
        let file = path.join(name);
        let whole = std::fs::read(&file).expect("there");
        std::fs::remove_file(&file).expect("removed");
        let code = if name == "manifest.json" { "bundle.manifest" } else { "bundle.file" };
        fails(&["run", &path.to_string_lossy()], 1, code);
        let mut altered = whole.clone();
        let middle = altered.len() / 2;
        altered[middle] ^= 0x20;
        std::fs::write(&file, &altered).expect("written");
        if name != "manifest.json" {
            fails(&["run", &path.to_string_lossy()], 1, "bundle.altered");
        }
        std::fs::write(&file, &whole).expect("written");
    }
    let manifest = std::fs::read_to_string(path.join("manifest.json")).expect("there");
    let newer = manifest.replace("\"version\": 2", "\"version\": 3");
    assert_ne!(newer, manifest);
    std::fs::write(path.join("manifest.json"), newer).expect("written");
    fails(&["run", &path.to_string_lossy()], 1, "bundle.version");
    std::fs::write(path.join("manifest.json"), manifest).expect("written");
    succeeds(&["run", &path.to_string_lossy()]);
}

#[test]
fn a_bundle_may_be_one_file() {
    let folder = folder("one-file");
    let path = folder.join("b.djinn");
    let (out, inputs) = (path.to_string_lossy(), model("bert/inputs.npz"));
    let make = || succeeds(&[&model("bert/model.onnx"), "--emit", "bundle", "-o", &out]);
    make();
    let whole = std::fs::read(&path).expect("a file");
    make();
    assert!(whole == std::fs::read(&path).expect("replaced"), "the same input gives the same bytes");
    assert_eq!(std::fs::read_dir(&folder).expect("read").count(), 1, "nothing is left beside it");
    let moved = folder.join("moved").to_string_lossy().into_owned();
    std::fs::rename(&path, &moved).expect("moved");
    assert!(succeeds(&["run", &moved, "--inputs", &inputs, "--check"]).contains("check passed"));
    assert!(succeeds(&["plan-check", &moved]).contains("accepted"));
    // Every member begins at a page; one altered byte, wherever it counts, is found.
    let mut altered = whole.clone();
    for at in [whole.len() / 2, 5 * 4096, whole.len() - 100] {
        altered[at] ^= 1;
        std::fs::write(&moved, &altered).expect("written");
        let run = djinn_opt(["run", &moved]);
        assert_eq!(run.status.code(), Some(1), "byte {at}: {}", text(&run.stderr));
        altered[at] ^= 1;
    }
    for len in [0, 10, 60, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&moved, &whole[..len]).expect("written");
        assert_eq!(djinn_opt(["run", &moved]).status.code(), Some(1), "{len} bytes");
    }
    write(&folder, "notes.djinn", "the only copy");
    let notes = folder.join("notes.djinn").to_string_lossy().into_owned();
    fails(&[&model("bert/model.onnx"), "--emit", "bundle", "-o", &notes], 1, "bundle.place");
}

#[test]
fn a_bundle_never_replaces_anything_else() {
    let folder = folder("in-the-way");
    let out = folder.join("notes").to_string_lossy().into_owned();
    std::fs::create_dir(&out).expect("made");
    write(Path::new(&out), "thesis.txt", "the only copy");
    fails(&[&model("bert/model.onnx"), "--emit", "bundle", "-o", &out], 1, "bundle.place");
    assert_eq!(std::fs::read_to_string(Path::new(&out).join("thesis.txt")).expect("kept"), "the only copy");
}

#[test]
fn several_files_make_one_program() {
    let folder = folder("program");
    let out = folder.join("b").to_string_lossy().into_owned();
    let (a, b) = (model("llama_decode/model.pt2"), model("llama_staticcache/model.pt2"));
    fails(&[&a, &b, "--emit", "ir"], 2, "cli.input");
    let onnx = folder.join("m.onnx").to_string_lossy().into_owned();
    let message = fails(&[&a, &b, "--program", "x", "--check", "--emit", "onnx", "-o", &onnx], 2, "cli.emit");
    assert!(message.contains("one entry function") && message.contains("without --program"), "{message}");
    assert!(message.contains("'llama_decode', 'llama_staticcache'") && !Path::new(&onnx).exists());
    let run = djinn_opt([a.as_str(), b.as_str(), "--program", "", "--emit", "ir"]);
    assert_eq!(run.status.code(), Some(2), "{}", text(&run.stderr));
    assert!(text(&run.stderr).contains("a name that is not empty"), "{}", text(&run.stderr));
    succeeds(&[&a, &b, "--program", "llama", "--emit", "bundle", "-o", &out]);
    for function in ["llama_decode", "llama_staticcache"] {
        let said = succeeds(&["run", &out, "--function", function, "--check"]);
        assert!(said.contains("check passed") && said.contains(function), "{said}");
    }
    assert!(fails(&["run", &out, "--function", "other"], 1, "run.function").contains("llama_decode"));
}

#[test]
fn solvers_stand_alone() {
    let folder = folder("solvers");
    let instance =
        write(&folder, "i.csv", "id,lower,upper,size\n1,0,3,4\n2,3,9,4\n3,0,9,4\n4,9,21,4\n5,0,21,4\n");
    let out = folder.join("o.csv").to_string_lossy().into_owned();
    let said = succeeds(&["pack", &instance, "--capacity", "12", "-o", &out]);
    assert!(said.contains("12 bytes"), "{said}");
    let written = std::fs::read_to_string(&out).expect("written");
    assert!(written.starts_with("id,lower,upper,size,offset") && written.lines().count() == 6, "{written}");
    assert_eq!(djinn_opt(["pack", &instance, "--capacity", "11"]).status.code(), Some(5));
    let wrong = write(&folder, "wrong.csv", "id,lower,upper,size\n1,3,0,4\n");
    assert!(fails(&["pack", &wrong], 1, "pack.format").contains("line 2"));
    let wrong = write(&folder, "wrong.json", "{\"nodes\": 3}");
    fails(&["place", &wrong], 1, "place.instance");
}
