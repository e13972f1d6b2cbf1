//! Builds the engines of a bundle's plan, each distinct one once, and prints what came of it.
//!
//! `cargo run -p djinn-tensorrt --example bundle_engines -- BUNDLE…`

use djinn_tensorrt::{BuildOptions, Library, Outcome, Precision, Region, build, build_or_split};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

fn main() {
    let library = match Library::load() {
        Ok(library) => library,
        Err(missing) => return println!("skipped: {missing}"),
    };
    println!(
        "| bundle | regions | distinct | built | engine bytes | build s | work in engines % | fallbacks |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for bundle in std::env::args().skip(1) {
        match row(&library, Path::new(&bundle)) {
            Ok(row) => println!("{row}"),
            Err(error) => println!("| {bundle} | {} |", error.replace('\n', " ")),
        }
    }
}

fn row(library: &Library, bundle: &Path) -> Result<String, String> {
    let read = |name: &str| std::fs::read_to_string(bundle.join(name)).map_err(|e| e.to_string());
    let program = djinn_ir::text::parse_module(&read("module.mlir")?).map_err(|e| e.to_string())?;
    let plan = djinn_plan::from_json(&read("plan.json")?).map_err(|e| e.to_string())?;
    let (mut regions, mut flops, mut seconds) = (0, 0.0, 0.0);
    let mut known = BTreeMap::new();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for (entry, engine) in plan.entries.iter().flat_map(|e| e.engines.iter().map(move |g| (e, g))) {
        regions += 1;
        let mut one = |region: &Region| {
            let known = known.entry(region.key()).or_insert_with(|| {
                let begin = Instant::now();
                let built = build(library, region, &BuildOptions::default());
                seconds += begin.elapsed().as_secs_f64();
                built
            });
            known.clone()
        };
        for outcome in build_or_split(&program, entry, engine, &Precision::keep(), &mut one) {
            match outcome {
                Outcome::Built { region, .. } => flops += region.flops,
                Outcome::Refused { kernels, reason, .. } => {
                    let place = reason.place.first().cloned().unwrap_or_default();
                    let place = place.rsplit(", ").next().unwrap_or_default();
                    *reasons.entry(format!("{place}: {}", reason.message)).or_default() += kernels.len();
                }
            }
        }
    }
    let all: f64 = plan.entries.iter().flat_map(|e| &e.kernels).map(|k| k.flops).sum();
    let built = known.values().filter(|e| e.is_ok()).count();
    let bytes: usize = known.values().flatten().map(|e| e.bytes.len()).sum();
    let share = if all > 0.0 { flops / all * 100.0 } else { 100.0 };
    let reasons: Vec<String> = reasons.iter().map(|(r, n)| format!("{n} × {r}")).collect();
    let name = bundle.file_name().unwrap_or_default().to_string_lossy();
    let reasons = reasons.join(" / ").replace(['\n', '|'], " ");
    Ok(format!(
        "| {name} | {regions} | {} | {built} | {bytes} | {seconds:.2} | {share:.1} | {reasons} |",
        known.len()
    ))
}
