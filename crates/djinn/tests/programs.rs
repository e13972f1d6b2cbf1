//! Programs of several entry functions, made of real models: every entry computes what its file computes, weights are
//! there once, and equal functions too. The larger models are those of `../shared`, where they are.

use djinn::{OptimizeOptions, PlanRequest, merge_programs, optimize};
use djinn_device::{Profile, Target};
use djinn_ir::{Function, Module, walk};
use djinn_plan::{ArenaKind, Content};
use djinn_subgraph_hash::{function_hash, same_function};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> Module {
    djinn::read(path).unwrap_or_else(|e| panic!("{e}")).module
}

fn merged(parts: &[(&Module, &str)]) -> Module {
    let programs = parts.iter().map(|(m, label)| ((*m).clone(), (*label).to_owned())).collect();
    merge_programs(programs, "program").unwrap_or_else(|e| panic!("{e}"))
}

/// Every entry gives what the only function of its file gives, bit for bit.
fn assert_computes_the_same(program: &Module, parts: &[(&Module, &str)], exact: bool) {
    for (module, label) in parts {
        let own = &module.entries().next().expect("a function").name;
        let inputs = djinn::random::inputs(module, own, 7);
        let expected = djinn::evaluate(module, own, &inputs).unwrap_or_else(|e| panic!("{label}: {e}"));
        let entry = if program.function(label).is_some() { *label } else { &**own };
        let found = djinn::evaluate(program, entry, &inputs).unwrap_or_else(|e| panic!("{label}: {e}"));
        if exact {
            assert_eq!(expected, found, "{label}");
            continue;
        }
        for ((name, x), (_, y)) in expected.outputs.iter().zip(&found.outputs) {
            let close = djinn_interp::compare(x, y, djinn_interp::Tolerance::Reassoc);
            assert!(close.is_ok(), "{label}.{name}: {close:?}");
        }
    }
}

fn optimised(module: &Module, pipeline: &str) -> Module {
    let mut module = module.clone();
    let options =
        OptimizeOptions { pipeline: pipeline.into(), verify_each: true, ..OptimizeOptions::default() };
    optimize(&mut module, &options, None).unwrap_or_else(|e| panic!("{e}"));
    module
}

/// The shared models, if they are there.
fn shared(names: &[&str]) -> Option<Vec<Module>> {
    let folder = root().join("../shared/models");
    if !folder.is_dir() {
        return None;
    }
    Some(names.iter().map(|name| read(&folder.join(name).join("model.pt2"))).collect())
}

#[test]
fn two_models_in_one_program_compute_what_they_computed() {
    let bert = read(&root().join("testdata/models/bert/model.pt2"));
    let llama = read(&root().join("testdata/models/llama_decode/model.pt2"));
    let parts = [(&bert, "bert"), (&llama, "llama")];
    let program = merged(&parts);
    assert_computes_the_same(&program, &parts, true);
    let default = OptimizeOptions::default().pipeline;
    assert_computes_the_same(&optimised(&program, &default), &parts, false);
}

#[test]
fn a_model_given_twice_has_its_weights_and_layers_once() {
    let bert = read(&root().join("testdata/models/bert/model.pt2"));
    let parts = [(&bert, "one"), (&bert, "two")];
    let program = merged(&parts);
    let contents: BTreeSet<_> = bert.weights.keys().map(|n| bert.weight_hash(n)).collect();
    assert_eq!(program.weights.len(), contents.len());
    let once = optimised(&bert, "canonicalize,outline");
    let twice = optimised(&program, "canonicalize,outline");
    let private = |m: &Module| m.functions.iter().filter(|f| f.is_private()).count();
    assert!(private(&once) > 0);
    assert_eq!(private(&once), private(&twice));
    assert_computes_the_same(&twice, &parts, true);
    let back = optimised(&twice, "inline,canonicalize");
    assert_same_but_for_order(&back, &optimised(&program, "inline,canonicalize"));
}

/// The same functions of the same operations, each in its place in the model's code.
fn assert_same_but_for_order(a: &Module, b: &Module) {
    assert_eq!((a.weights.len(), a.functions.len()), (b.weights.len(), b.functions.len()));
    for (f, g) in a.functions.iter().zip(&b.functions) {
        assert_eq!((&f.name, &f.arguments, &f.results), (&g.name, &g.arguments, &g.results));
        assert_eq!(function_hash(f), function_hash(g), "{}", f.name);
        let same = same_function(f, g).expect("the same function");
        assert!(same.keeps_symbols());
        let places = |f: &Function| {
            let mut all: Vec<_> = f.graph.ops().map(|(_, op)| (op.kind, op.location.scope.clone())).collect();
            all.sort();
            all
        };
        assert_eq!(places(f), places(g));
    }
}

#[test]
fn outlined_and_inlined_models_are_what_they_were() {
    let mut outlined = 0;
    for folder in std::fs::read_dir(root().join("testdata/models")).expect("the models are there") {
        for file in ["model.pt2", "model.onnx"] {
            let path = folder.as_ref().expect("readable").path().join(file);
            if !path.is_file() {
                continue;
            }
            let plain = optimised(&read(&path), "canonicalize");
            for phase in ["aligned", "shifted"] {
                let once = optimised(&plain, &format!("outline{{phase={phase}}}"));
                outlined += once.functions.len() - plain.functions.len();
                let back = optimised(&once, "inline,canonicalize");
                assert_same_but_for_order(&back, &optimised(&plain, "inline,canonicalize"));
            }
        }
    }
    assert!(outlined > 4, "only {outlined} functions");
}

#[test]
fn prefill_and_decode_share_their_weights_on_the_device() {
    let Some(models) = shared(&["llama_prefill_dyn", "llama_decode_dyn"]) else { return };
    let parts = [(&models[0], "prefill"), (&models[1], "decode")];
    let program = merged(&parts);
    assert_eq!(program.weights.len(), models[0].weights.len().min(distinct(&models[0])));
    assert_computes_the_same(&program, &parts, true);
    let default = OptimizeOptions::default().pipeline;
    assert_computes_the_same(&optimised(&program, &default), &parts, false);

    let host = Profile::builtin("host").expect("built in");
    let bytes = |module: &Module| {
        let mut request = PlanRequest::new(Target::single(host));
        // Without rewriting, weights are stored as they are in the files.
        request.optimize.pipeline = "canonicalize".into();
        let symbols = walk::symbols(module);
        request.sizes = symbols.iter().map(|s| (s.name().to_owned(), vec![(16, 16)])).collect();
        let planned = djinn::plan(&mut module.clone(), &request, None).unwrap_or_else(|e| panic!("{e}"));
        let arenas = planned.plan.arenas.iter().filter(|a| a.kind == ArenaKind::Weights);
        (arenas.map(|a| a.bytes).sum::<u64>(), planned.plan)
    };
    let (alone, _) = bytes(&models[0]);
    let (both, plan) = bytes(&program);
    assert_eq!(plan.entries.len(), 2);
    let of_weight = |c: &Content| matches!(c, Content::Constant { .. });
    assert!(plan.buffers.iter().any(|b| of_weight(&b.content)));
    assert!(both < alone + alone / 4, "{both} bytes of weights for both, {alone} for one");
}

#[test]
fn entries_that_share_forms_of_weights_compute_what_they_computed() {
    let pairs = [
        ["qwen3_prefill_dyn", "qwen3_decode_dyn"],
        ["llama_decode_static_io", "llama_prefill_static"],
        ["t5_decoder_step_dyn", "t5_decoder_prefill_dyn"],
    ];
    for pair in pairs {
        let Some(models) = shared(&pair) else { return };
        let parts = [(&models[0], pair[0]), (&models[1], pair[1])];
        let program = optimised(&merged(&parts), &OptimizeOptions::default().pipeline);
        assert_computes_the_same(&program, &parts, false);
    }
}

fn distinct(module: &Module) -> usize {
    module.weights.keys().map(|n| module.weight_hash(n)).collect::<BTreeSet<_>>().len()
}

#[test]
fn static_cache_decode_keeps_its_states() {
    let Some(models) = shared(&["llama_decode_staticcache", "llama_prefill_dyn"]) else { return };
    let parts = [(&models[0], "decode"), (&models[1], "prefill")];
    let program = merged(&parts);
    assert_computes_the_same(&program, &parts, true);
    // The same states in two entries are one.
    let twice = merged(&[(&models[0], "a"), (&models[0], "b")]);
    let states = |m: &Module| {
        let all = m.entries().flat_map(|f| &f.arguments);
        let state = |(name, kind): &(std::sync::Arc<str>, djinn_ir::ArgumentKind)| {
            matches!(kind, djinn_ir::ArgumentKind::State { .. }).then(|| name.clone())
        };
        all.filter_map(state).collect::<BTreeSet<_>>()
    };
    assert!(!states(&models[0]).is_empty());
    assert_eq!(states(&twice), states(&models[0]));
}

#[test]
fn both_phases_of_a_full_size_model_are_one_plan() {
    let folder = root().join("../shared/models-full");
    if !folder.is_dir() {
        return;
    }
    let model = |phase: &str| read(&folder.join(format!("full_llama3.1_8b_{phase}_dyn/model.pt2.gz")));
    let (prefill, decode) = (model("prefill"), model("decode"));
    let mut program = merged(&[(&prefill, "prefill"), (&decode, "decode")]);
    assert_eq!(program.weights.len(), prefill.weights.len());
    let mut request = PlanRequest::new(Target::single(Profile::builtin("h100-80").expect("built in")));
    let symbols = walk::symbols(&program);
    request.sizes = symbols.iter().map(|s| (s.name().to_owned(), vec![(512, 512)])).collect();
    let planned = djinn::plan(&mut program, &request, None).unwrap_or_else(|e| panic!("{e}"));
    let entries: Vec<&str> = planned.plan.entries.iter().map(|e| e.function.as_str()).collect();
    assert_eq!(entries, ["prefill", "decode"]);
    // The layers of each phase once, in both cuts, and the functions around them.
    assert!(planned.outcome.statistics.get("saturate", "bodies") <= 8);
}
