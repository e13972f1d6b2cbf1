//! Reasons, contradictions and hostile input.

use crate::PhaseDetect;
use djinn_diag::{Remark, RemarkKind, Result};
use djinn_ir::{Attr, Module, text};
use djinn_pass::{Pass, PassContext};

const GIVEN: &str = include_str!("../../../testdata/filetests/phase-detect/given_annotations_stay.mlir");
const DECODE: &str = include_str!("../../../testdata/filetests/phase-detect/decode_growing_cache.mlir");

fn run(module: &mut Module, redo: bool) -> Result<Vec<Remark>> {
    let mut cx = PassContext::new();
    PhaseDetect { redo }.run(module, &mut cx)?;
    Ok(cx.remarks)
}

fn word(module: &Module, op: usize, name: &str) -> String {
    let (_, op) = module.functions[0].graph.ops().nth(op).expect("there are so many");
    match op.annotations.get(name) {
        Some(Attr::Str(word)) => word.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn every_answer_has_a_reason_with_rule_place_and_facts() {
    let mut module = text::parse_module(DECODE).expect("parses");
    let remarks = run(&mut module, false).expect("runs");
    let of =
        |rule: &str| remarks.iter().find(|r| r.rule == rule).unwrap_or_else(|| panic!("{rule}: {remarks:?}"));
    assert!(of("decode").message.starts_with("phase llm_decode: One query position reads a cache"));
    assert!(of("decode").message.ends_with("(cached, query-one)"));
    assert!(of("language-model").message.starts_with("workload llm: "));
    assert!(of("tokens-are-text").message.starts_with("modality text: "));
    assert_eq!(of("cache-read").message, "arguments that live from call to call: past.key, past.value");
    assert_eq!(
        of("cache-written").message,
        "results that live from call to call: present.key, present.value"
    );
    assert!(remarks.iter().all(|r| r.kind == RemarkKind::Analysis && r.place == "main"));
}

#[test]
fn given_annotations_win_and_contradictions_are_told_with_both_reasons() {
    let mut module = text::parse_module(GIVEN).expect("parses");
    let remarks = run(&mut module, false).expect("runs");
    assert_eq!(word(&module, 1, "modality"), "audio");
    assert_eq!(word(&module, 1, "phase"), "forward");
    let told: Vec<&Remark> = remarks.iter().filter(|r| r.rule == "contradiction").collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].kind, RemarkKind::Missed);
    for part in
        ["phase forward of 1 operations is kept", "given", "found is vision_encoding", "An image goes in"]
    {
        assert!(told[0].message.contains(part), "{}", told[0].message);
    }
}

#[test]
fn redo_forgets_what_was_given() {
    let mut module = text::parse_module(GIVEN).expect("parses");
    let remarks = run(&mut module, true).expect("runs");
    assert_eq!(word(&module, 1, "modality"), "vision");
    assert_eq!(word(&module, 1, "phase"), "vision_encoding");
    assert!(remarks.iter().all(|r| r.rule != "contradiction"));
}

#[test]
fn a_second_run_changes_nothing_and_contradicts_nothing() {
    let mut module = text::parse_module(DECODE).expect("parses");
    run(&mut module, false).expect("runs");
    let once = text::print_module(&module);
    let remarks = run(&mut module, false).expect("runs");
    assert_eq!(text::print_module(&module), once);
    assert!(remarks.iter().all(|r| r.rule != "contradiction"), "{remarks:?}");
}

#[test]
fn a_verdict_in_the_metadata_is_not_replaced_silently() {
    let mut module = text::parse_module(DECODE).expect("parses");
    module.metadata.insert("phase.main".into(), "training".into());
    let remarks = run(&mut module, false).expect("runs");
    assert_eq!(module.metadata.get("phase.main").map(|s| &**s), Some("llm_decode"));
    let told: Vec<&Remark> = remarks.iter().filter(|r| r.rule == "contradiction").collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].message.contains("'phase.main' was 'training' and is 'llm_decode' now"));
}

#[test]
fn unknown_words_are_refused_with_the_culprit() {
    let mut module = text::parse_module(&GIVEN.replace("\"audio\"", "\"smell\"")).expect("parses");
    let error = run(&mut module, false).expect_err("no such modality");
    assert_eq!(error.code, "phase-detect.word");
    assert!(error.message.contains("smell") && error.help.is_some());
}

#[test]
fn guards_name_the_symbolic_size() {
    let source = include_str!("../../../testdata/filetests/phase-detect/decode_or_prefill.mlir");
    let mut module = text::parse_module(source).expect("parses");
    run(&mut module, false).expect("runs");
    let when = module.metadata.get("phase.main.when").map(|s| &**s);
    assert_eq!(when, Some("llm_decode when s1 = 1, else llm_prefill"));
}
