//! Tables and JSON.

use djinn::pass::{RunReport, Statistics};
use djinn::{CheckReport, Model, ModuleStats, ScopeChange};
use std::collections::BTreeSet;
use std::fmt::Write;

/// Operations and cost before and after.
pub(crate) fn stats_table(model: &Model, before: &ModuleStats, after: &ModuleStats) -> String {
    let mut out = String::new();
    let kinds: BTreeSet<&str> = before.operations.keys().chain(after.operations.keys()).copied().collect();
    let _ = writeln!(out, "{:<24} {:>10} {:>10}", "operation", "before", "after");
    for kind in kinds {
        let n = |s: &ModuleStats| s.operations.get(kind).copied().unwrap_or(0);
        let _ = writeln!(out, "{kind:<24} {:>10} {:>10}", n(before), n(after));
    }
    let _ = writeln!(out, "{:<24} {:>10} {:>10}", "total", before.count(), after.count());
    if before.ahead_of_time + after.ahead_of_time > 0 {
        let row = (before.ahead_of_time, after.ahead_of_time);
        let _ = writeln!(out, "{:<24} {:>10} {:>10}", "ahead of time", row.0, row.1);
    }
    let _ = writeln!(
        out,
        "{:<24} {:>10.2} {:>10.2}",
        "modelled time, µs",
        before.seconds * 1e6,
        after.seconds * 1e6
    );
    let _ =
        writeln!(out, "{:<24} {:>10.4} {:>10.4}", "contraction GFLOP", before.flops / 1e9, after.flops / 1e9);
    let mib = |b: u64| b as f64 / (1 << 20) as f64;
    let _ = writeln!(
        out,
        "{:<24} {:>10.3} {:>10.3}",
        "weights, MiB",
        mib(before.weight_bytes),
        mib(after.weight_bytes)
    );
    let opaque: usize = model.opaque.values().sum();
    let _ = writeln!(out, "{:<24} {:>10}", "opaque operations", opaque);
    for (name, n) in &model.opaque {
        let _ = writeln!(out, "  {name:<22} {n:>10}");
    }
    if model.type_checks.0 > 0 {
        let _ = writeln!(
            out,
            "{:<24} {:>10} of {} recorded types differ from the inferred ones",
            "type check", model.type_checks.1, model.type_checks.0
        );
    }
    out
}

/// What was compared and how it went.
pub(crate) fn check_table(report: &CheckReport) -> String {
    let mut out = String::new();
    let source = if report.random_inputs { "random inputs" } else { "the given inputs" };
    let _ = writeln!(out, "{:<40} {:>10} {:>12}  verdict ({source})", "result", "elements", "max |diff|");
    for r in &report.results {
        let verdict = r.failure.as_deref().unwrap_or("agrees");
        let _ = writeln!(out, "{:<40} {:>10} {:>12.3e}  {verdict}", r.name, r.elements, r.max_abs);
    }
    let _ = writeln!(out, "check {}", if report.passed() { "passed" } else { "FAILED" });
    out
}

/// Time per stage and pass.
pub(crate) fn timing_table(stages: &[(String, u64)], run: &RunReport) -> String {
    let mut out = String::new();
    let ms = |ns: u64| ns as f64 / 1e6;
    let _ = writeln!(out, "{:<32} {:>12}", "stage", "ms");
    for (name, ns) in stages {
        let _ = writeln!(out, "{name:<32} {:>12.3}", ms(*ns));
        if name == "optimise" {
            for pass in &run.passes {
                let _ = writeln!(out, "  {:<30} {:>12.3}", pass.pass, ms(pass.time));
            }
        }
    }
    out
}

/// Operations that went and came, per scope.
pub(crate) fn diff_text(changes: &[ScopeChange]) -> String {
    let mut out = String::new();
    for c in changes {
        let _ = writeln!(out, "{}", if c.scope.is_empty() { "(no scope)" } else { &c.scope });
        let kinds: BTreeSet<&str> = c.before.keys().chain(c.after.keys()).copied().collect();
        for kind in kinds {
            let (b, a) = (c.before.get(kind).copied().unwrap_or(0), c.after.get(kind).copied().unwrap_or(0));
            if b > a {
                let _ = writeln!(out, "  - {kind} ×{}", b - a);
            } else if a > b {
                let _ = writeln!(out, "  + {kind} ×{}", a - b);
            }
        }
    }
    if out.is_empty() {
        out.push_str("nothing changed\n");
    }
    out
}

/// Everything as one JSON object.
pub(crate) fn json(
    model: &Model,
    before: &ModuleStats,
    after: &ModuleStats,
    check: Option<&CheckReport>,
    statistics: &Statistics,
    onnx_nodes: Option<usize>,
    stages: &[(String, u64)],
) -> serde_json::Value {
    let side = |s: &ModuleStats| {
        serde_json::json!({
            "operations": s.operations, "count": s.count(), "ahead_of_time": s.ahead_of_time, "modelled_seconds": s.seconds,
            "flops": s.flops, "weight_bytes": s.weight_bytes,
        })
    };
    let check = check.map(|c| {
        let results: Vec<_> = c
            .results
            .iter()
            .map(|r| serde_json::json!({"name": r.name, "elements": r.elements, "max_abs": r.max_abs, "failure": r.failure}))
            .collect();
        serde_json::json!({"passed": c.passed(), "random_inputs": c.random_inputs, "results": results})
    });
    let counters: Vec<_> =
        statistics.iter().map(|(p, n, v)| serde_json::json!({"pass": p, "name": n, "value": v})).collect();
    let stages: serde_json::Map<String, serde_json::Value> =
        stages.iter().map(|(n, ns)| (n.clone(), serde_json::json!(*ns as f64 / 1e9))).collect();
    serde_json::json!({
        "format": model.format.name(), "opaque": model.opaque,
        "type_checks": model.type_checks.0, "type_disagreements": model.type_checks.1,
        "before": side(before), "after": side(after), "check": check,
        "statistics": counters, "onnx_nodes": onnx_nodes, "seconds": stages,
    })
}
