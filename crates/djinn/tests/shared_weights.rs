//! Weights that the entries of a program share are stored once, also where each entry by itself would have them in
//! another form: two weights joined, say, where the other entry multiplies by each.
//!
//! What is held: with `D` the bytes of the distinct weights that the entries read and `X` what the worse of them, planned
//! alone, stores beyond the distinct weights that it reads (a tied embedding that is also needed transposed, say), the
//! weights of the program take at most 1.02 · (D + X). Where both entries read the same weights, D + X is what one of
//! them needs. The larger models are those of `../shared`, where they are.

use djinn::{DEFAULT_PIPELINE, OptimizeOptions, Outcome, PLANNING_PASSES, merge_programs};
use djinn_device::{Profile, Target};
use djinn_ir::{ContentHash, Function, Module, OpKind, Symbol, walk};
use djinn_plan::ArenaKind;
use djinn_planner::{EntrySpec, PlanOptions, SizeRange};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much more than what is needed the weights of a program may take.
const MARGIN: f64 = 1.02;

/// Families of models in `../shared`: what comes first in a run, and what then comes again and again.
const FAMILIES: &[(&[&str], &[&str])] = &[
    (
        &["gpt2_prefill_dyn", "gpt2_prefill_static"],
        &["gpt2_decode_dyn", "gpt2_decode_static_io", "gpt2_decode_staticcache"],
    ),
    (
        &["llama_prefill_dyn", "llama_prefill_static", "llama_optimum_style_dyn"],
        &["llama_decode_dyn", "llama_decode_inputmut", "llama_decode_static_io", "llama_decode_staticcache"],
    ),
    (&["mixtral_prefill_dyn"], &["mixtral_decode_dyn"]),
    (&["qwen3_prefill_dyn"], &["qwen3_decode_dyn"]),
    (&["t5_decoder_prefill_dyn", "t5_encoder_dyn"], &["t5_decoder_step_dyn"]),
    (&["whisper_encoder_dyn"], &["whisper_decoder_step_dyn"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A model, and what it needs alone.
struct Alone {
    name: String,
    module: Module,
    /// Bytes of the weights that its operations read, by content.
    distinct: BTreeMap<ContentHash, u64>,
    /// Bytes that its plan stores.
    stored: u64,
}

impl Alone {
    fn read(name: &str, file: &Path) -> Alone {
        let module = djinn::read(file).unwrap_or_else(|e| panic!("{e}")).module;
        let (stored, _) = stored(&module, &host());
        Alone { name: name.to_owned(), distinct: distinct(&module), stored, module }
    }

    /// What it stores beyond the distinct weights.
    fn excess(&self) -> u64 {
        self.stored.saturating_sub(self.distinct.values().sum())
    }
}

fn distinct(module: &Module) -> BTreeMap<ContentHash, u64> {
    let mut distinct = BTreeMap::new();
    for f in &module.functions {
        walk::for_each_graph(&f.graph, &mut |g| {
            for (_, op) in g.ops().filter(|(_, op)| op.kind == OpKind::Weight) {
                let name = op.attrs.str("name");
                let ty = &module.weights[name].ty;
                let elements =
                    ty.numel().as_const().and_then(|n| u64::try_from(n).ok()).expect("a fixed size");
                let hash = module.weight_hash(name).expect("a weight with values");
                distinct.insert(hash, elements * ty.dtype.size() as u64);
            }
        });
    }
    distinct
}

fn host() -> Target {
    Target::single(Profile::builtin("host").expect("built in"))
}

/// Bytes of weights that a plan stores on the only device, and what was done on the way. Activations are packed quickly:
/// nobody looks at them.
fn stored(module: &Module, target: &Target) -> (u64, Outcome) {
    stored_after(DEFAULT_PIPELINE, module, target)
}

fn stored_after(pipeline: &str, module: &Module, target: &Target) -> (u64, Outcome) {
    let sizes = |symbols: BTreeSet<Symbol>| {
        symbols.into_iter().map(|s| SizeRange { symbol: s.name().to_owned(), min: 16, max: 16 }).collect()
    };
    let mut target = target.clone();
    target.sizes = walk::symbols(module).iter().map(|s| (s.name().to_owned(), 16)).collect();
    let pipeline = pipeline.replace("canonicalize)", &format!("canonicalize,{PLANNING_PASSES})"));
    let options =
        OptimizeOptions { pipeline, target: Some(Arc::new(target.clone())), ..OptimizeOptions::default() };
    let mut module = module.clone();
    let outcome = djinn::optimize(&mut module, &options, None).unwrap_or_else(|e| panic!("{e}"));
    let entry = |f: &Function| {
        let mut symbols = BTreeSet::new();
        walk::for_each_dim(&f.graph, &mut |d| {
            d.visit_symbols(&mut |s| {
                symbols.insert(s.clone());
            })
        });
        EntrySpec { function: f.name.to_string(), sizes: sizes(symbols), ..EntrySpec::default() }
    };
    let entries: Vec<EntrySpec> = module.entries().map(entry).collect();
    let packing = djinn::pack::Limits { climb_steps: 1, search_steps: 1 };
    let options = PlanOptions { packing, ..PlanOptions::default() };
    let plan = djinn_planner::plan(&module, &target, &entries, &options).unwrap_or_else(|e| panic!("{e}"));
    let arenas = plan.arenas.iter().filter(|a| a.kind == ArenaKind::Weights);
    (arenas.map(|a| a.bytes).sum(), outcome)
}

fn program(parts: [&Alone; 2]) -> Module {
    let parts = parts.map(|p| (p.module.clone(), p.name.clone()));
    merge_programs(parts.into(), "program").unwrap_or_else(|e| panic!("{e}"))
}

/// One line of the table; is it within the margin?
fn holds(parts: [&Alone; 2]) -> bool {
    let [a, b] = parts;
    let (both, _) = stored(&program(parts), &host());
    let mut distinct = a.distinct.clone();
    distinct.extend(&b.distinct);
    let needed = distinct.values().sum::<u64>() + a.excess().max(b.excess());
    let ratio = both as f64 / needed as f64;
    println!("| {} + {} | {} | {} | {needed} | {both} | {ratio:.3} |", a.name, b.name, a.stored, b.stored);
    ratio <= MARGIN
}

#[test]
fn both_phases_store_their_weights_once() {
    let folder = root().join("../shared/models");
    println!("| program | first alone | second alone | needed | stored | ratio |\n|---|--:|--:|--:|--:|--:|");
    let mut failed = Vec::new();
    let mut check = |parts: [&Alone; 2]| {
        if !holds(parts) {
            failed.push(parts.map(|p| p.name.clone()));
        }
    };
    let own = ["llama_decode", "llama_staticcache"]
        .map(|name| Alone::read(name, &root().join("testdata/models").join(name).join("model.pt2")));
    check([&own[0], &own[1]]);
    if !folder.is_dir() {
        eprintln!("skipped: ../shared/models is not present");
    }
    for (firsts, agains) in FAMILIES.iter().filter(|_| folder.is_dir()) {
        let read = |names: &[&str]| -> Vec<Alone> {
            names.iter().map(|name| Alone::read(name, &folder.join(name).join("model.pt2"))).collect()
        };
        let (firsts, agains) = (read(firsts), read(agains));
        firsts.iter().for_each(|a| agains.iter().for_each(|b| check([a, b])));
        // The other way round the first entry has chosen other forms.
        check([&agains[0], &firsts[0]]);
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn both_phases_of_full_size_models_store_their_weights_once() {
    let folder = root().join("../shared/models-full");
    if !folder.is_dir() {
        eprintln!("skipped: ../shared/models-full is not present");
        return;
    }
    let h100 = Target::single(Profile::builtin("h100-80").expect("built in"));
    for model in ["gpt2_124m", "llama3.1_8b"] {
        let phases = ["prefill", "decode"].map(|phase| {
            let file = folder.join(format!("full_{model}_{phase}_dyn/model.pt2.gz"));
            (djinn::read(&file).unwrap_or_else(|e| panic!("{e}")).module, phase.to_owned())
        });
        let alone = phases.each_ref().map(|(module, _)| stored(module, &h100).0);
        let program = merge_programs(phases.into(), model).unwrap_or_else(|e| panic!("{e}"));
        let (both, _) = stored(&program, &h100);
        let by_itself = DEFAULT_PIPELINE.replace("saturate", "saturate{memory-worth=0}");
        let (apart, _) = stored_after(&by_itself, &program, &h100);
        println!(
            "| {model} | {} | {} | {both} | {apart} if each phase chooses by itself |",
            alone[0], alone[1]
        );
        assert!(both <= apart, "{model}: {both} bytes, {apart} without sharing");
        assert!(
            both as f64 <= MARGIN * alone[0].max(alone[1]) as f64,
            "{model}: {both} bytes, not {alone:?}"
        );
    }
}

#[test]
fn sharing_is_said() {
    let folder = root().join("../shared/models");
    if !folder.is_dir() {
        eprintln!("skipped: ../shared/models is not present");
        return;
    }
    let [prefill, decode] = ["llama_prefill_dyn", "llama_decode_dyn"]
        .map(|name| Alone::read(name, &folder.join(name).join("model.pt2")));
    let (_, outcome) = stored(&program([&prefill, &decode]), &host());
    // The layer of the second entry and what is around it, in both cuts.
    assert!(outcome.statistics.get("saturate", "bodies that share weights") >= 2);
    assert!(outcome.remarks.iter().any(|r| r.rule == "sharing" && r.pass == "saturate"));
    let (_, alone) = stored(&decode.module, &host());
    assert_eq!(alone.statistics.get("saturate", "bodies that share weights"), 0);
}
