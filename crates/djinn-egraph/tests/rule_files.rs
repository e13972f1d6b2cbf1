//! The project's rule files parse, and rule names are unique.

use std::collections::BTreeSet;

#[test]
fn rule_files_parse() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../passes/saturate/rules");
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(dir).expect("the rules are there") {
        let path = entry.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        let file = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        for rule in djinn_egraph::rule::parse_rules(&file, &text).unwrap_or_else(|e| panic!("{e}")) {
            assert!(names.insert(rule.name.clone()), "two rules are named '{}'", rule.name);
        }
    }
    assert!(names.len() >= 120, "only {} rules", names.len());
}
