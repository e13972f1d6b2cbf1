//! File tests: every `testdata/filetests/<pass>/<name>.mlir` names its pipeline; the result is a snapshot beside it.
//!
//! Each file runs in several modes that must agree: as it stands, printed and parsed again before the run, and on
//! another thread. Original and result are evaluated on random inputs and compared.

use djinn::{CheckOptions, OptimizeOptions};
use djinn_ir::{Module, text, verify};
use std::path::{Path, PathBuf};

fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/filetests");
    let mut out = Vec::new();
    for folder in std::fs::read_dir(root).expect("the file tests are there") {
        let folder = folder.expect("readable").path();
        if folder.is_dir() {
            out.extend(std::fs::read_dir(folder).expect("readable").map(|e| e.expect("readable").path()));
        }
    }
    out.retain(|p| p.extension().is_some_and(|e| e == "mlir"));
    out.sort();
    out
}

fn run(module: &Module, pipeline: &str) -> Module {
    let mut result = module.clone();
    let options =
        OptimizeOptions { pipeline: pipeline.to_owned(), verify_each: true, ..OptimizeOptions::default() };
    djinn::optimize(&mut result, &options, None).unwrap_or_else(|e| panic!("{e}"));
    result
}

#[test]
fn file_tests() {
    let files = files();
    assert!(files.len() >= 10, "only {} file tests", files.len());
    for path in files {
        let source = std::fs::read_to_string(&path).expect("readable");
        let pipeline =
            source.lines().find_map(|l| l.strip_prefix("// pipeline: ")).expect("a '// pipeline:' line");
        let module = text::parse_module(&source).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        verify::verify(&module).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let result = run(&module, pipeline);
        let printed = text::print_module(&result);

        let again = text::parse_module(&text::print_module(&module)).expect("printed text parses");
        assert_eq!(
            text::print_module(&run(&again, pipeline)),
            printed,
            "{}: printed and parsed again",
            path.display()
        );
        let threaded = std::thread::scope(|s| s.spawn(|| run(&module, pipeline)).join().expect("no panic"));
        assert_eq!(text::print_module(&threaded), printed, "{}: on another thread", path.display());

        let report =
            djinn::check(&module, &result, &CheckOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        assert!(report.passed(), "{}: {report:?}", path.display());

        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(path.parent().expect("a folder"));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        settings.bind(|| insta::assert_snapshot!(name, printed));
    }
}
