//! Text and page of plans: made by hand, at random, and hostile.

mod markup;

use djinn_plan::{Plan, sample};
use djinn_report::{Page, explain, html};
use serde_json::Value;

/// Columns of a terminal.
const COLUMNS: usize = 100;
/// The largest page.
const MAX_PAGE: usize = 3_300_000;

/// A random plan of the usual size.
const SMALL: sample::Size = sample::Size { devices: 2, streams: 2, kernels: 20 };

fn page(plan: &Plan) -> Page<'_> {
    Page { title: "a plan", plan, module: None, before: &[], after: &[], rewrites: &[], remarks: &[] }
}

/// Text and page, each checked and made twice.
fn both(plan: &Plan) -> (String, String) {
    let (text, html) = (explain(plan, None), html(&page(plan)));
    for line in text.lines() {
        // Every test name is of characters that take one column.
        assert!(line.chars().count() <= COLUMNS, "{line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    markup::check(&html).unwrap_or_else(|e| panic!("{e}"));
    assert!(html.len() <= MAX_PAGE, "{} bytes", html.len());
    assert_eq!((&text, &html), (&explain(plan, None), &djinn_report::html(&page(plan))));
    (text, html)
}

#[test]
fn the_text_of_a_plan_for_two_devices() {
    let text = both(&sample::two_devices()).0;
    insta::assert_snapshot!(text);
}

#[test]
fn plans_without_devices_entries_or_commands_are_shown() {
    let empty = both(&sample::empty());
    assert!(empty.0.contains("0 entries") && empty.1.contains("The plan has no entry"), "{}", empty.0);
    let mut plan = sample::empty();
    plan.entries.push(sample::empty_entry("forward"));
    assert!(both(&plan).0.contains("runs no kernel"));
}

#[test]
fn random_plans_are_shown() {
    for seed in 0..40 {
        both(&sample::random(SMALL, seed));
    }
}

#[test]
fn names_are_text_on_the_page() {
    let mut plan = sample::two_devices();
    let evil = "</script><script>alert('x')</script><img src=x onerror=\"alert(1)\">&\u{1b}[31m\n\u{202e}";
    for device in &mut plan.devices {
        device.name = format!("{}{evil}", device.name);
        device.profile = evil.into();
    }
    plan.program = evil.into();
    plan.buffers.iter_mut().for_each(|b| b.name = evil.into());
    plan.links.iter_mut().for_each(|l| l.hops = vec![evil.into()]);
    for entry in &mut plan.entries {
        entry.function = evil.into();
        entry.phase = Some(evil.into());
        entry.kernels.iter_mut().for_each(|k| k.name = format!("{evil} @{evil}.7.{evil}"));
        entry.inputs.iter_mut().chain(&mut entry.outputs).for_each(|p| p.name = evil.into());
    }
    let (text, html) = both(&plan);
    assert!(!html.contains("<img") && !html.contains("<script>alert"));
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
    let (names, numbers) = ([evil.to_owned()], [(evil.to_owned(), u64::MAX), ("add".into(), 3)]);
    let page = Page { title: evil, before: &numbers, rewrites: &numbers, remarks: &names, ..page(&plan) };
    markup::check(&djinn_report::html(&page)).unwrap_or_else(|e| panic!("{e}"));
}

/// Every number and string of a value, one after the other.
fn leaves<'v>(value: &'v mut Value, out: &mut Vec<&'v mut Value>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|v| leaves(v, out)),
        Value::Object(map) => map.values_mut().for_each(|v| leaves(v, out)),
        Value::Number(_) | Value::String(_) => out.push(value),
        Value::Null | Value::Bool(_) => {}
    }
}

#[test]
fn no_number_or_string_of_a_plan_upsets_text_or_page() {
    let original = serde_json::to_value(sample::two_devices()).expect("a plan is JSON");
    let count = {
        let mut copy = original.clone();
        let mut found = Vec::new();
        leaves(&mut copy, &mut found);
        found.len()
    };
    let hostile =
        [Value::from(u64::MAX), Value::from(u32::MAX), 0.into(), 1e308.into(), "x".repeat(20_000).into()];
    let mut shown = 0;
    for number in 0..count {
        // One value for each place, in turn; the values that fit its type are few.
        for value in &hostile {
            let mut changed = original.clone();
            let mut found = Vec::new();
            leaves(&mut changed, &mut found);
            *found[number] = value.clone();
            if let Ok(plan) = serde_json::from_value::<Plan>(changed) {
                shown += 1;
                let (text, html) = (explain(&plan, None), html(&page(&plan)));
                assert!(text.lines().all(|l| l.chars().count() <= COLUMNS), "{text}");
                assert!(html.len() < MAX_PAGE);
            }
        }
    }
    assert!(shown > count, "{shown} of {count} places took a hostile value");
}

#[test]
fn figures_that_are_no_numbers_are_shown() {
    for bad in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        let mut plan = sample::two_devices();
        for entry in &mut plan.entries {
            entry.seconds = bad;
            for kernel in &mut entry.kernels {
                (kernel.seconds, kernel.flops, kernel.traffic, kernel.share) = (bad, bad, bad, bad);
            }
        }
        plan.links.iter_mut().for_each(|l| (l.bandwidth, l.latency) = (bad, bad));
        let (text, html) = both(&plan);
        assert!(text.contains("cannot be simulated") || bad == 1e300, "{text}");
        assert!(!html.contains("NaN%") && !html.contains("inf%"));
    }
}

#[test]
fn large_plans_make_pages_of_bounded_size() {
    let size = sample::Size { kernels: 6_000, ..SMALL };
    let mut plan = sample::random(size, 1);
    for (number, kernel) in plan.entries[0].kernels.iter_mut().enumerate() {
        kernel.name = format!("matmul+add @model.layers.{number}.{}", "a.long.name.of.a.scope".repeat(4));
    }
    let entry = plan.entries[0].clone();
    for number in 1..12 {
        plan.entries.push(djinn_plan::Entry { function: format!("f{number}"), ..entry.clone() });
    }
    let (_, html) = both(&plan);
    assert!(
        html.contains("drawn together with their neighbours") && html.contains("4 more entries not shown")
    );
    assert!(html.contains("more scopes not shown"));
}
