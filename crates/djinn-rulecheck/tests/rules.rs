//! The project's rules pass the checker, and the checker finds out broken rules.

use djinn_egraph::rule::{Rule, parse_rules};
use djinn_rulecheck::{Config, FieldOutcome, check_rules, mutation_report};
use std::path::PathBuf;

/// Every rule in every rule file of the saturation pass, files in order of their names.
fn project_rules() -> Vec<Rule> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../passes/saturate/rules");
    let entries = std::fs::read_dir(dir).expect("the rules are there");
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("readable").path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "rw"));
    paths.sort();
    let rules = paths.iter().flat_map(|path| {
        let text = std::fs::read_to_string(path).expect("readable");
        let file = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        parse_rules(&file, &text).unwrap_or_else(|e| panic!("{e}"))
    });
    rules.collect()
}

#[test]
fn every_rule_passes() {
    let rules = project_rules();
    assert!(rules.len() >= 150, "only {} rules", rules.len());
    let report = check_rules(&rules, &Config::default());
    let failures: Vec<String> = report.failures().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let checked = report.rules.iter().filter(|r| matches!(r.field, FieldOutcome::Checked(_))).count();
    assert!(
        4 * checked >= 3 * rules.len(),
        "only {checked} of {} rules over finite fields:\n{report}",
        rules.len()
    );
}

#[test]
fn broken_rules_are_found_out() {
    let report = mutation_report(&project_rules(), &Config::default());
    assert!(report.killed() >= 1000, "only {} mutants killed", report.killed());
    assert!(report.kill_rate() >= 0.95, "{report}");
}

#[test]
fn equal_seeds_give_equal_reports() {
    let rules: Vec<Rule> = project_rules().into_iter().take(8).collect();
    let config = Config { seed: 7, ..Config::default() };
    assert_eq!(check_rules(&rules, &config), check_rules(&rules, &config));
    assert_eq!(mutation_report(&rules, &config), mutation_report(&rules, &config));
}
