//! `djinn-opt run --device cuda:0`: with the emulated CUDA driver, and without any.

use std::path::Path;
use std::process::{Command, Output};

fn djinn_opt(args: &[&str], loader_path: Option<&Path>) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_djinn-opt"));
    command.args(args).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    command.env_remove("LD_LIBRARY_PATH");
    if let Some(folder) = loader_path {
        command.env("LD_LIBRARY_PATH", folder);
    }
    let output = command.output().expect("it starts");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output, said)
}

/// A bundle of a small model for an H200, without engines.
fn bundle(folder: &Path) -> String {
    let path = folder.join("b").display().to_string();
    let args = [
        "testdata/models/bert/model.pt2",
        "--device",
        "h200",
        "--emit",
        "bundle",
        "--no-engines",
        "-o",
        &path,
    ];
    let (output, said) = djinn_opt(&args, None);
    assert!(output.status.success(), "{said}");
    path
}

#[test]
fn without_a_gpu_the_host_runs_it_and_a_line_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = bundle(folder.path());
    let (output, said) = djinn_opt(&["run", &path, "--device", "cuda:0", "--check"], None);
    assert!(output.status.success(), "{said}");
    if said.contains("on cuda:0") {
        return println!("skipped: this machine has a GPU");
    }
    assert!(said.contains("note: no CUDA device: this machine has no CUDA driver"), "{said}");
    assert!(said.contains("check passed"), "{said}");
}

#[test]
fn an_emulated_gpu_runs_a_bundle_by_its_kernels() {
    let library = djinn_cuda_emulator::library().expect("cargo has built the emulator");
    let folder = tempfile::tempdir().expect("a folder");
    let path = bundle(folder.path());
    if !Path::new(&path).join("kernels.json").exists() {
        return println!("skipped: the bundle has no kernels: there is no LLVM 22 here");
    }
    let cuda = folder.path().join("cuda");
    djinn_cuda_emulator::install(&library, &cuda).expect("links");
    let (output, said) =
        djinn_opt(&["run", &path, "--device", "cuda:0", "--check", "--repeat", "3"], Some(&cuda));
    assert!(output.status.success(), "{said}");
    for line in ["check passed", "on cuda:0 Djinn emulator, as a CUDA graph", "0 evaluated"] {
        assert!(said.contains(line), "'{line}' is missing:\n{said}");
    }
    let trace = folder.path().join("trace.json").display().to_string();
    let (output, said) =
        djinn_opt(&["run", &path, "--device", "cuda:0", "--trace", &trace, "--repeat", "3"], Some(&cuda));
    assert!(output.status.success() && !said.contains("CUDA graph"), "timed commands are no graph:\n{said}");
    let spans = std::fs::read_to_string(&trace).expect("a trace");
    assert!(spans.contains("traceEvents") && spans.contains("matmul"), "{spans}");
}

#[test]
fn what_is_no_device_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = bundle(folder.path());
    for name in ["gpu", "cuda", "cuda:-1", "cuda:0,host", "cuda:99999999999"] {
        let (output, said) = djinn_opt(&["run", &path, "--device", name], None);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(said.contains("is no device to run on") && said.contains("write host, cuda:0"), "{said}");
    }
    let library = djinn_cuda_emulator::library().expect("cargo has built the emulator");
    let cuda = folder.path().join("cuda");
    djinn_cuda_emulator::install(&library, &cuda).expect("links");
    let (output, said) = djinn_opt(&["run", &path, "--device", "cuda:5"], Some(&cuda));
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("there is no GPU 5: this machine has 1"), "{said}");
    let (output, said) = djinn_opt(&["run", &path, "--device", "cuda:0,cuda:0"], Some(&cuda));
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the plan is for 1 device, and 2 GPUs are to run it"), "{said}");
}
