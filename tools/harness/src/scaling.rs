//! `scaling`: how time and memory grow with the number of repeated layers.
//!
//! A model of fewer layers is made of the file's own: the layers are outlined, the calls after the first N are cut
//! out, and what is left is inlined again. For those, "import" is the time to read the IR text.

use crate::memory;
use djinn::diag::Result;
use djinn::ir::{Function, Module, OpKind, ValueId, text};
use djinn::pass::Event;
use djinn::{DEFAULT_PIPELINE, OptimizeOptions, Watch, optimize, stats};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

/// Arguments of `scaling`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model files
    files: Vec<PathBuf>,
    /// Also make models of this many layers out of each file
    #[arg(long, value_delimiter = ',')]
    layers: Vec<usize>,
    /// The pipeline to measure
    #[arg(long, default_value = DEFAULT_PIPELINE)]
    pass_pipeline: String,
}

/// Prints one line a model.
pub(crate) fn run(args: &Args) -> Result<bool> {
    println!(
        "| model | layers | nodes before | after | ahead of time | modelled µs | bodies saturated | import ms | outline ms | \
         saturate ms | inline ms | other ms | total ms | program hash ms | peak MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for file in &args.files {
        memory::reset_peak();
        let start = Instant::now();
        let model = djinn::read(file)?;
        let import = start.elapsed().as_secs_f64() * 1e3;
        let name = file.parent().and_then(|p| p.file_name()).unwrap_or(file.as_os_str());
        let name = name.to_string_lossy();
        measure(&name, "all", model.module.clone(), import, args)?;
        for layers in &args.layers {
            let module = truncated(model.module.clone(), *layers)?;
            let text = text::print_module(&module);
            drop(module);
            memory::reset_peak();
            let start = Instant::now();
            let module = text::parse_module(&text)?;
            let import = start.elapsed().as_secs_f64() * 1e3;
            measure(&name, &layers.to_string(), module, import, args)?;
        }
    }
    Ok(true)
}

fn measure(name: &str, layers: &str, mut module: Module, import: f64, args: &Args) -> Result<()> {
    let before = stats(&module).count();
    let times: Rc<RefCell<BTreeMap<String, f64>>> = Rc::default();
    let began: Rc<RefCell<Option<Instant>>> = Rc::default();
    let noted = Rc::clone(&times);
    let watch = Watch {
        on_event: Box::new(move |event| match event {
            Event::Before { .. } => *began.borrow_mut() = Some(Instant::now()),
            Event::After { pass, .. } => {
                let spent = began.borrow().map_or(0.0, |b| b.elapsed().as_secs_f64() * 1e3);
                *noted.borrow_mut().entry((*pass).to_string()).or_default() += spent;
            }
            _ => {}
        }),
        clock: None,
    };
    let start = Instant::now();
    let options = OptimizeOptions { pipeline: args.pass_pipeline.clone(), ..Default::default() };
    let outcome = optimize(&mut module, &options, Some(watch))?;
    let total = start.elapsed().as_secs_f64() * 1e3;
    let start = Instant::now();
    let hash = djinn::ir::program_hash(&module);
    let hashing = start.elapsed().as_secs_f64() * 1e3;
    let times = times.borrow();
    let of = |pass: &str| times.get(pass).copied().unwrap_or(0.0);
    let (outline, saturate, inline) = (of("outline"), of("saturate"), of("inline"));
    let after = stats(&module);
    println!(
        "| {name} | {layers} | {before} | {} | {} | {:.2} | {} | {import:.1} | {outline:.1} | {saturate:.1} | {inline:.1} | \
         {:.1} | {:.1} | {hashing:.3} | {:.0} |",
        after.count(),
        after.ahead_of_time,
        after.seconds * 1e6,
        outcome.statistics.get("saturate", "bodies"),
        total - outline - saturate - inline,
        import + total,
        memory::peak_mib().unwrap_or(0.0),
    );
    std::hint::black_box(hash);
    Ok(())
}

/// The model with the first `layers` of its repeated layers.
pub(crate) fn truncated(mut module: Module, layers: usize) -> Result<Module> {
    let pipeline = |text: &str| OptimizeOptions { pipeline: text.into(), ..Default::default() };
    optimize(&mut module, &pipeline("canonicalize,outline"), None)?;
    for i in 0..module.functions.len() {
        if !module.functions[i].is_private() {
            let cut = without_later_calls(&module.functions[i], layers);
            module.functions[i] = cut;
        }
    }
    optimize(&mut module, &pipeline("inline,canonicalize"), None)?;
    Ok(module)
}

/// The function with the first `layers` calls of its most called function only. What used the last call's results
/// uses those of the last call that stays; results of the function that came from the others are dropped.
fn without_later_calls(f: &Function, layers: usize) -> Function {
    let mut f = f.clone();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (_, op) in f.graph.ops().filter(|(_, op)| op.kind == OpKind::Call) {
        *counts.entry(op.attrs.str("callee").to_string()).or_default() += 1;
    }
    let Some(callee) = counts.iter().max_by_key(|(_, n)| **n).map(|(name, _)| name.clone()) else { return f };
    let calls = f.graph.ops().filter(|(_, op)| op.kind == OpKind::Call && op.attrs.str("callee") == callee);
    let calls: Vec<Vec<ValueId>> = calls.map(|(_, op)| op.results.clone()).collect();
    if calls.len() <= layers || layers == 0 {
        return f;
    }
    let dropped: Vec<ValueId> = calls[layers..].iter().flatten().copied().collect();
    let kept = f.results.iter().zip(&f.graph.results).map(|(r, v)| (r.clone(), *v));
    let (results, values) = kept.filter(|(_, v)| !dropped.contains(v)).unzip();
    (f.results, f.graph.results) = (results, values);
    let mut patch = djinn::ir::Patch::new("cut", &f.graph);
    let last = &calls[calls.len() - 1];
    last.iter().zip(&calls[layers - 1]).for_each(|(from, to)| patch.replace(*from, *to));
    patch.sweep();
    let _ = patch.apply(&mut f.graph, &mut djinn::ir::Fuel::unlimited());
    f
}
