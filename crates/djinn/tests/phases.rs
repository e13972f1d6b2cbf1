//! `phase-detect` against the truth table `testdata/phases.toml`: small models always, all graphs of `../shared`
//! where they are, each as `.pt2` and as `.onnx`.

use djinn::OptimizeOptions;
use djinn_diag::Remark;
use djinn_ir::{Function, Module, OpKind, walk};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Small models of `testdata/models` by the name under which they stand in the table.
const SMALL: [(&str, &str); 7] = [
    ("bert", "bert_static"),
    ("cond_while", "cond_while"),
    ("llama_decode", "llama_decode_dyn"),
    ("llama_staticcache", "llama_decode_staticcache"),
    ("lstm", "lstm_bidir"),
    ("squeezenet", "squeezenet1_1"),
    ("whisper_encoder", "whisper_encoder_dyn"),
];

/// A row of the truth table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Truth {
    workload: String,
    phase: String,
    when: Option<String>,
    modality: String,
    runs: BTreeSet<String>,
    #[serde(default)]
    may: BTreeSet<String>,
    #[serde(default)]
    cache_arguments: Names,
    #[serde(default)]
    cache_results: Names,
    #[serde(rename = "why")]
    _why: String,
}

/// Arguments or results by name: `*` at the end stands for anything.
#[derive(Debug, Deserialize, Default)]
struct Names {
    /// How many, in the `.pt2` and in the `.onnx`.
    count: [usize; 2],
    names: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn table() -> BTreeMap<String, Truth> {
    let text =
        std::fs::read_to_string(root().join("testdata/phases.toml")).expect("the truth table is there");
    toml::from_str(&text).expect("the truth table parses")
}

/// Files of a model: format and path.
fn files(folder: &Path) -> Vec<(usize, PathBuf)> {
    let names = [(0, "model.pt2"), (0, "model.pt2.gz"), (1, "model.onnx"), (1, "model.onnx.gz")];
    names.into_iter().map(|(format, name)| (format, folder.join(name))).filter(|(_, p)| p.is_file()).collect()
}

/// The module after a pipeline, and what the passes said.
fn detect(path: &Path, pipeline: &str) -> (Module, Vec<Remark>) {
    let mut module = djinn::read(path).unwrap_or_else(|e| panic!("{e}")).module;
    let options = OptimizeOptions { pipeline: pipeline.to_owned(), ..OptimizeOptions::default() };
    let outcome = djinn::optimize(&mut module, &options, None);
    let outcome = outcome.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (module, outcome.remarks)
}

/// Everything about a module that differs from the truth.
fn differences(module: &Module, truth: &Truth, format: usize) -> Vec<String> {
    let [function] = module.functions.as_slice() else { return vec!["not one function".into()] };
    let held = |key: &str| module.metadata.get(key).map(|v| v.to_string());
    let mut out = Vec::new();
    let mut compare = |what: &str, found: Option<String>, expected: Option<String>| {
        if found != expected {
            out.push(format!("{what} is {found:?}, not {expected:?}"));
        }
    };
    let name = &function.name;
    compare("workload", held("workload"), Some(truth.workload.clone()));
    compare("phase", held(&format!("phase.{name}")), Some(truth.phase.clone()));
    compare("guard", held(&format!("phase.{name}.when")), truth.when.clone());
    compare("modality", held(&format!("modality.{name}")), Some(truth.modality.clone()));
    let arguments: Vec<&str> = function.arguments.iter().map(|(n, _)| &**n).collect();
    let results: Vec<&str> = function.results.iter().map(|(n, _)| &**n).collect();
    for (what, names, expected) in
        [("arguments", arguments, &truth.cache_arguments), ("results", results, &truth.cache_results)]
    {
        let found = held(&format!("cache.{name}.{what}")).unwrap_or_default();
        let found: Vec<&str> =
            found.split_whitespace().map(|i| names[i.parse::<usize>().expect("a number")]).collect();
        let fits = |name: &&str| {
            expected.names.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == pattern,
            })
        };
        if found.len() != expected.count[format] || !found.iter().all(fits) {
            out.push(format!(
                "cache {what} are {found:?}, not {} of {:?}",
                expected.count[format], expected.names
            ));
        }
    }
    out.extend(operations(function, truth));
    out
}

/// Operations without annotations, and pairs of phase and modality that should or should not occur.
fn operations(function: &Function, truth: &Truth) -> Vec<String> {
    let mut out = Vec::new();
    let mut runs: BTreeMap<String, String> = BTreeMap::new();
    for (_, op) in function.graph.ops() {
        let word = |name: &str| match op.annotations.get(name) {
            Some(djinn_ir::Attr::Str(word)) => word.to_string(),
            _ => "missing".to_owned(),
        };
        let stored = matches!(op.kind, OpKind::Weight | OpKind::Constant);
        if stored != (word("residency") == "persistent_weight") && (stored || op.operands.is_empty()) {
            out.push(format!("residency of '{}' is {}", op.kind.name(), word("residency")));
        }
        if word("residency") != "persistent_weight" {
            let place = op.location.scope.as_deref().unwrap_or_default();
            let pair = format!("{}/{}", word("phase"), word("modality"));
            runs.entry(pair).or_insert_with(|| format!("{} at '{place}'", op.kind.name()));
        }
    }
    walk::for_each_graph(&function.graph, &mut |body| {
        let lacks = |op: &djinn_ir::graph::Op| {
            ["phase", "residency", "modality"].iter().any(|name| !op.annotations.contains_key(*name))
        };
        let bare = body.ops().filter(|(_, op)| lacks(op));
        out.extend(bare.map(|(_, op)| format!("'{}' lacks an annotation", op.kind.name())));
    });
    let surplus = runs.iter().filter(|(pair, _)| !truth.runs.contains(*pair) && !truth.may.contains(*pair));
    out.extend(surplus.map(|(pair, first)| format!("{pair} occurs: {first}")));
    out.extend(truth.runs.iter().filter(|p| !runs.contains_key(*p)).map(|p| format!("{p} does not occur")));
    out
}

/// Runs a pipeline over models (folder and name in the table); prints right and wrong, panics if anything is wrong.
fn check(models: &[(PathBuf, String)], pipeline: &str) {
    let table = table();
    let (mut right, mut wrong) = (0, 0);
    for (folder, name) in models {
        let truth = table.get(name).unwrap_or_else(|| panic!("'{name}' is not in the truth table"));
        for (format, path) in files(folder) {
            let (module, remarks) = detect(&path, pipeline);
            let mut differences = differences(&module, truth, format);
            let contradictions = remarks.iter().filter(|r| r.rule == "contradiction");
            differences.extend(contradictions.map(ToString::to_string));
            let label = ["pt2", "onnx"][format];
            if differences.is_empty() {
                right += 1;
                println!("right  {name} ({label})");
            } else {
                wrong += 1;
                println!("WRONG  {name} ({label})");
                differences.iter().for_each(|d| println!("         {d}"));
            }
        }
    }
    println!("{right} right, {wrong} wrong, pipeline {pipeline}");
    assert_eq!(wrong, 0, "see the lines marked WRONG");
    assert!(right >= models.len());
}

/// Every model of a folder of `../shared`, or none with a line that says why.
fn shared(kind: &str) -> Vec<(PathBuf, String)> {
    let above = root().join("../shared");
    let folder = std::env::var_os("DJINN_SHARED").map_or(above, PathBuf::from).join(kind);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: there is no {}; DJINN_SHARED names another place", folder.display());
        return Vec::new();
    };
    let mut models: Vec<PathBuf> =
        entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_dir()).collect();
    models.sort();
    models
        .into_iter()
        .map(|p| (p.clone(), p.file_name().unwrap_or_default().to_string_lossy().into_owned()))
        .collect()
}

#[test]
fn small_models_before_and_after_saturation() {
    let folder = root().join("testdata/models");
    let models: Vec<_> = SMALL.iter().map(|(name, row)| (folder.join(name), (*row).to_owned())).collect();
    check(&models, "builtin.module(canonicalize,phase-detect,phase-detect)");
    check(&models, "builtin.module(canonicalize,saturate,fold-weights,canonicalize,phase-detect)");
}

#[test]
fn shared_models() {
    check(&shared("models"), "builtin.module(canonicalize,phase-detect)");
    check(&shared("models"), "builtin.module(canonicalize,saturate,fold-weights,canonicalize,phase-detect)");
    check(
        &shared("models"),
        "builtin.module(canonicalize,phase-detect,saturate,fold-weights,canonicalize,phase-detect)",
    );
}

#[test]
fn shared_full_size_models() {
    check(&shared("models-full"), "builtin.module(canonicalize,phase-detect)");
}
