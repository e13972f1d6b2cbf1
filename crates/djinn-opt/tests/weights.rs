//! Bundles whose weights stay in the file of their model.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models").join(name)
}

fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("weights").join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("the folder can be made");
    path
}

fn djinn_opt(args: &[&str], paths: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_djinn-opt"));
    let mut paths = paths.iter();
    for arg in args {
        match *arg {
            "@" => command.arg(paths.next().expect("a path for every @")),
            arg => command.arg(arg),
        };
    }
    command.output().expect("it starts")
}

fn good(run: &Output) -> String {
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8_lossy(&run.stdout).into_owned()
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}

#[test]
fn weights_stay_in_the_model_and_move_with_it() {
    let folder = folder("moves");
    for (name, file) in [("llama_decode", "model.pt2"), ("bert_static", "model.onnx")] {
        if !model(name).join(file).is_file() {
            println!("weights_stay_in_the_model: skipped: there is no {name}/{file}");
            continue;
        }
        let place = folder.join(name);
        std::fs::create_dir_all(place.join("models")).expect("made");
        let (source, packed, out) = (place.join("models").join(file), place.join("p"), place.join("b"));
        std::fs::copy(model(name).join(file), &source).expect("copied");
        good(&djinn_opt(&["@", "--device", "host", "--emit", "bundle", "-o", "@"], &[&source, &packed]));
        let refer = ["@", "--device", "host", "--emit", "bundle", "--weights", "reference", "-o", "@"];
        good(&djinn_opt(&refer, &[&source, &out]));
        let list = std::fs::read_to_string(out.join("weights.json")).expect("written");
        assert!(list.contains(&format!("\"name\": \"models/{file}\"")), "{list}");
        let left = size(&out.join("weights.safetensors"));
        assert!(left < size(&packed.join("weights.safetensors")), "{left}");
        // Written twice, it is the same; and as one file it is found as well.
        good(&djinn_opt(&refer, &[&source, &out]));
        assert_eq!(std::fs::read_to_string(out.join("weights.json")).expect("written"), list);
        let one = place.join("one.djinn");
        good(&djinn_opt(&refer, &[&source, &one]));
        for bundle in [&out, &one] {
            let run = djinn_opt(&["run", "@", "--check", "--kernels", "evaluator"], &[bundle]);
            assert!(good(&run).contains("check passed"));
        }
        let moved = folder.join(format!("{name} moved"));
        std::fs::rename(&place, &moved).expect("moved");
        let (out, source) = (moved.join("b"), moved.join("models").join(file));
        good(&djinn_opt(&["run", "@", "--check", "--kernels", "evaluator"], &[&out]));
        let elsewhere = moved.join("renamed");
        std::fs::rename(&source, &elsewhere).expect("moved");
        let run = djinn_opt(&["run", "@"], &[&out]);
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(run.status.code() == Some(1) && said.contains("bundle.weights"), "{said}");
        assert!(said.contains("which is not there") && said.contains("--weights FILE"), "{said}");
        good(&djinn_opt(&["run", "@", "--weights", "@", "--kernels", "evaluator"], &[&out, &elsewhere]));
    }
}

#[test]
fn another_file_is_not_taken_for_the_model() {
    let folder = folder("altered");
    let (source, out) = (folder.join("model.pt2"), folder.join("b"));
    std::fs::copy(model("llama_decode/model.pt2"), &source).expect("copied");
    let refer = ["@", "--device", "host", "--emit", "bundle", "--weights", "reference", "-o", "@"];
    good(&djinn_opt(&refer, &[&source, &out]));
    let mut bytes = std::fs::read(&source).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&source, &bytes).expect("written");
    for truncated in [false, true] {
        if truncated {
            std::fs::write(&source, &bytes[..middle]).expect("written");
        }
        for args in [&["run", "@"][..], &["run", "@", "--weights", "@"]] {
            let run = djinn_opt(args, &[&out, &source]);
            let said = String::from_utf8_lossy(&run.stderr).into_owned();
            assert!(run.status.code() == Some(1) && said.contains("is another file"), "{said}");
        }
    }
}
