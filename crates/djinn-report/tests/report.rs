//! Text and page of plans: made by hand, at random, and hostile.

mod markup;

use djinn_plan::{Device, DeviceId, Plan, sample};
use djinn_report::{Page, explain, html};
use serde_json::Value;

/// Columns of a terminal.
const COLUMNS: usize = 100;
/// The largest page.
const MAX_PAGE: usize = 3_300_000;

/// A random plan of the usual size.
const SMALL: sample::Size = sample::Size { devices: 2, streams: 2, kernels: 20 };

fn page(plan: &Plan) -> Page<'_> {
    Page {
        title: "a plan",
        plan,
        module: None,
        before: &[],
        after: &[],
        rewrites: &[],
        remarks: &[],
        engines: None,
        measured: None,
    }
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

/// Two devices with a weight each that is kept on the host.
fn streamed(times: usize) -> Plan {
    use djinn_plan::*;
    use sample::{at, kernel, result, view};
    let mut b = sample::Builder::new();
    let host = b.device("host", true);
    let kept = b.arena(host, ArenaKind::Weights);
    for number in 0..2 {
        let device = b.device(&format!("gpu:{number}"), false);
        b.link(host, device);
        let (weight, out) = (ValueRef::Argument(number), result(number));
        let content = Content::Constant { function: "forward".into(), value: weight };
        let from = view(b.buffer(&format!("w{number}"), kept, 3072, content), 0, 3072);
        let arena = b.arena(device, ArenaKind::Activations);
        let to = view(b.scratch("fetched", arena, 3072), 0, 3072);
        let y = view(b.scratch("y", arena, 512), 0, 512);
        let stream = b.stream(device, StreamKind::Compute);
        b.entry.constants.push(at(weight, from));
        for _ in 0..times {
            b.copy(stream, [weight; 2], Place::Buffer(from), Place::Buffer(to), CopyReason::Fetch);
        }
        b.launch(stream, kernel("sum", number, &[at(weight, to)], &[at(out, y)]));
    }
    b.finish()
}

#[test]
fn weights_on_hosts_are_told_of_and_force_nothing() {
    for (times, says) in [
        (1, "6.14 kB of weights stay on hosts and are copied in every run."),
        (2, "6.14 kB of weights stay on hosts; copies of them move 12.3 kB in every run."),
    ] {
        let (text, html) = both(&streamed(times));
        assert!(text.contains(says) && html.contains(says), "{text}");
        let share = "2 devices share the work and hold 7.17 kB; hosts hold the other weights.";
        assert!(
            text.contains(share) && html.contains(share) && !text.contains("exceed one device"),
            "{text}"
        );
    }
    let mut one = streamed(1);
    let idle = one.devices[1].clone();
    one.devices.push(Device { name: "gpu:2".into(), ..idle });
    one.devices[1].memory_bytes *= 2;
    one.arenas[2].device = DeviceId(1);
    let text = both(&one).0;
    assert!(
        text.contains("One device of 7.17 kB holds 7.17 kB; hosts hold the other weights, no other"),
        "{text}"
    );
    assert!(!both(&sample::two_devices()).0.contains("on hosts"));
}

#[test]
fn plans_without_devices_entries_or_commands_are_shown() {
    let empty = both(&sample::empty());
    assert!(empty.0.contains("0 entries") && empty.1.contains("The plan has no entry"), "{}", empty.0);
    let mut plan = sample::empty();
    plan.entries.push(djinn_plan::Entry::empty("forward"));
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

#[test]
fn rates_of_a_decoder_count_the_tokens_of_its_batch() {
    let mut plan = sample::two_devices();
    plan.entries[0].kernels[0].seconds = 0.01;
    assert!(explain(&plan, None).contains("(99.9 runs per second)"), "{}", explain(&plan, None));
    plan.entries[0].phase = Some("llm_decode".into());
    plan.entries[0].symbols = vec![djinn_plan::SymbolRange { name: "b".into(), min: 1, max: 8 }];
    for (ty, tokens) in [
        ("tensor<4x1x32000xf32>", "399 tokens per second at batch 4)"),
        ("tensor<?x1x32000xf32, [\"b\"]>", "799 tokens per second at batch 8)"),
        ("tensor<?x32000xf32, [\"b\"]>", "799 tokens per second at batch 8)"),
        ("tensor<?x32000xf32, [\"b + 1\"]>", "runs per second)"),
        ("tensor<2x7x32000xf32>", "runs per second)"),
        ("", "runs per second)"),
    ] {
        plan.entries[0].outputs[0].ty = ty.into();
        let text = explain(&plan, None);
        assert!(text.contains(tokens), "{ty}: {tokens}\n{text}");
    }
}

#[test]
fn engines_are_shown_with_what_crosses_their_borders() {
    let (text, html) = both(&sample::two_devices());
    assert!(text.contains("Engine 0 takes %arg0 and gives %2, %3. It ends here: gelu runs"), "{text}");
    assert!(
        html.contains("title=\"%2, %3\"") && html.contains("5 kernels with 26.3 % of the time"),
        "{text}"
    );
}
