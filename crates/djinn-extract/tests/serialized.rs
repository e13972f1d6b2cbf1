//! Reading serialized e-graphs, good and hostile, and writing selections.

use djinn_extract::serialized::{ReadError, read};
use djinn_extract::{ClassId, Limits, StopReason, check, extract};

const VGG: &str = include_str!("../testdata/vgg_acyclic.json");

fn refused(text: &str) -> String {
    match read(text) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{text:?} was accepted"),
    }
}

#[test]
fn real_instance_is_solved_to_optimality() {
    let input = read(VGG).expect("the file is valid");
    let result = extract(&input.problem, &Limits::default(), None).expect("there is a selection");
    assert_eq!(check(&input.problem, &result.choice), Ok(result.cost));
    assert!((result.cost - 4.866775).abs() < 1e-6, "{}", result.cost);
    assert_eq!(result.stopped_by, StopReason::Optimal);
    let written: serde_json::Value =
        serde_json::from_str(&input.write(&result)).expect("the selection is JSON");
    assert_eq!(written["cost"].as_f64(), Some(result.cost));
    assert_eq!(written["lower_bound"].as_f64(), Some(result.lower_bound));
    let choices = written["choices"].as_object().expect("choices is an object");
    assert_eq!(choices.len(), result.choice.iter().flatten().count());
    assert_eq!(choices["95"], "95__0");
}

#[test]
fn missing_cost_is_one_and_other_members_are_ignored() {
    let input = read(
        r#"{"class_data": {"a": {"type": "x"}}, "extra": [1, {"y": null}],
            "nodes": {"n": {"op": "f", "eclass": "a", "children": ["m", "m"]},
                      "m": {"op": "g", "eclass": "b", "cost": 2, "subsumed": false}},
            "root_eclasses": ["a"]}"#,
    )
    .expect("the file is valid");
    assert_eq!(input.class_ids, ["a", "b"]);
    assert_eq!(input.node_ids, ["n", "m"]);
    let result = extract(&input.problem, &Limits::default(), None).expect("there is a selection");
    assert_eq!(result.cost, 3.0);
}

#[test]
fn infinite_and_subsumed_nodes_are_never_chosen() {
    for unusable in [
        r#""cost": "Infinity""#,
        r#""cost": "inf""#,
        r#""cost": null"#,
        r#""cost": 1e300"#,
        r#""cost": 0, "subsumed": true"#,
    ] {
        let text = format!(
            r#"{{"nodes": {{"n": {{"op": "f", "eclass": "a", {unusable}}},
                           "m": {{"op": "g", "eclass": "a", "cost": 5, "children": ["k"]}},
                           "k": {{"op": "k", "eclass": "b", "cost": 1}}}}, "root_eclasses": ["a"]}}"#
        );
        let input = read(&text).expect("the file is valid");
        let result = extract(&input.problem, &Limits::default(), None).expect("there is a selection");
        assert_eq!(result.cost, 6.0, "{unusable}");
        assert_eq!(input.problem.nodes_of(ClassId(0)).len(), 1);
    }
}

#[test]
fn faults_are_named() {
    let one = |node: &str, root: &str| format!(r#"{{"nodes": {{"n": {node}}}, "root_eclasses": [{root}]}}"#);
    let dangling = one(r#"{"op": "f", "eclass": "a", "children": ["zz"]}"#, r#""a""#);
    assert!(refused(&dangling).contains("\"zz\""));
    let negative = one(r#"{"op": "f", "eclass": "a", "cost": -1}"#, r#""a""#);
    assert!(matches!(read(&negative), Err(ReadError::BadCost { .. })));
    let nan = one(r#"{"op": "f", "eclass": "a", "cost": "NaN"}"#, r#""a""#);
    assert!(matches!(read(&nan), Err(ReadError::BadCost { .. })));
    let word = one(r#"{"op": "f", "eclass": "a", "cost": "cheap"}"#, r#""a""#);
    assert!(refused(&word).contains("cheap"));
    let root = one(r#"{"op": "f", "eclass": "a"}"#, r#""b""#);
    assert!(matches!(read(&root), Err(ReadError::UnknownRoot(_))));
    let unusable = one(r#"{"op": "f", "eclass": "a", "subsumed": true}"#, r#""a""#);
    assert!(matches!(read(&unusable), Err(ReadError::UnusableRoot(_))));
    let twice = r#"{"nodes": {"n": {"op": "f", "eclass": "a"}, "n": {"op": "g", "eclass": "b"}},
                    "root_eclasses": []}"#;
    assert!(refused(twice).contains("twice"));
    let huge = one(r#"{"op": "f", "eclass": "a", "cost": 1e999}"#, r#""a""#);
    assert!(matches!(read(&huge), Err(ReadError::Json(_))));
}

#[test]
fn hostile_text_is_an_error() {
    for text in ["", "nul", "[]", "{}", "{\"nodes\": []}", "{\"nodes\": {\"n\": 1}}", "\u{0}"] {
        assert!(matches!(read(text), Err(ReadError::Json(_))), "{text:?}");
    }
    let deep = "[".repeat(1_000_000);
    assert!(matches!(read(&deep), Err(ReadError::Json(_))));
    let inner = format!("{{\"nodes\": {{\"n\": {{\"op\": {deep}");
    assert!(matches!(read(&inner), Err(ReadError::Json(_))));
    for cut in (0..VGG.len()).step_by(97) {
        let _ = read(&VGG[..cut]).map(|_| panic!("a cut file was accepted"));
    }
}
