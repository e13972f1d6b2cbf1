//! Prints what the checker finds out about the rules in the files given as arguments; with `--mutants` also how
//! many broken rules it finds out, with `--seed=N` for other random choices.

use djinn_egraph::rule::{Rule, parse_rules};
use djinn_rulecheck::{Config, check_rules, mutation_report};
use std::process::ExitCode;

fn load(paths: &[String]) -> Result<Vec<Rule>, String> {
    let mut rules = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
        rules.extend(parse_rules(path, &text).map_err(|e| e.to_string())?);
    }
    Ok(rules)
}

fn main() -> ExitCode {
    let (options, paths): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let rules = match load(&paths) {
        Ok(rules) => rules,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
    };
    let seed = options.iter().find_map(|o| o.strip_prefix("--seed=")?.parse().ok());
    let config = Config { seed: seed.unwrap_or(Config::default().seed), ..Config::default() };
    let report = check_rules(&rules, &config);
    print!("{report}");
    if options.iter().any(|o| o == "--mutants") {
        print!("{}", mutation_report(&rules, &config));
    }
    if report.failures().next().is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
