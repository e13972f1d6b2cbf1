//! Printing profiles as TOML, in the shape that `read` reads.

use crate::profile::{Figure, LinkFigures, OpClass, Precision, Profile, Rates};
use std::fmt::{Display, Write as _};

/// The profile as TOML, after the lines of `remark` as comments.
pub(crate) fn profile(p: &Profile, remark: &str) -> String {
    let mut out = String::new();
    for line in remark.lines() {
        push(&mut out, format_args!("# {line}"));
    }
    push(&mut out, format_args!("name = {}", quoted(&p.name)));
    push(&mut out, format_args!("summary = {}", quoted(&p.summary)));
    if !p.fuses {
        push(&mut out, "fuses = false");
    }
    if !p.roofline {
        push(&mut out, "roofline = false");
    }
    out.push('\n');
    figure(&mut out, p, "", "memory_bytes", p.memory_bytes as f64);
    figure(&mut out, p, "", "memory_bandwidth", p.memory_bandwidth);
    figure(&mut out, p, "", "l2_bytes", p.l2_bytes as f64);
    figure(&mut out, p, "", "l2_bandwidth", p.l2_bandwidth);
    figure(&mut out, p, "", "launch_seconds", p.launch_seconds);
    if let Some(seconds) = p.own_sync_seconds {
        figure(&mut out, p, "", "sync_seconds", seconds);
    }
    figure(&mut out, p, "", "multiprocessors", f64::from(p.multiprocessors));
    if let Some(capability) = p.compute_capability {
        figure(&mut out, p, "", "compute_capability", f64::from(capability));
    }
    figure(&mut out, p, "", "max_streams", f64::from(p.max_streams));
    if p.sources.contains_key("half_seconds_per_byte") {
        figure(&mut out, p, "", "half_seconds_per_byte", p.half_seconds_per_byte);
    }
    push(&mut out, "\n[peak_flops]");
    for precision in Precision::ALL {
        if let Some(peak) = p.peaks.own(precision) {
            figure(&mut out, p, "peak_flops.", precision.name(), peak);
        }
    }
    link(&mut out, p, "host_link", Some(p.host_link));
    link(&mut out, p, "peer_link", p.peer_link);
    for class in OpClass::ALL {
        let key = format!("class.{class}");
        if p.sources.contains_key(&key) {
            rates(&mut out, p, &key, &p.classes[class as usize]);
        }
    }
    for (name, own) in &p.ops {
        rates(&mut out, p, &format!("op.{name}"), own);
    }
    out
}

fn push(out: &mut String, line: impl Display) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{line}");
}

/// A TOML string: Rust's escapes, but for those that TOML spells otherwise.
fn quoted(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("\"{}\"", clean.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The shortest text that reads back as the same number.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e8 {
        format!("{value}")
    } else if (1e-3..1e6).contains(&value.abs()) {
        format!("{value:?}")
    } else {
        format!("{value:e}")
    }
}

fn figure(out: &mut String, p: &Profile, group: &str, key: &str, value: f64) {
    let unknown = Figure { source: "not given".to_owned(), estimated: true };
    let source = p.sources.get(&format!("{group}{key}")).unwrap_or(&unknown);
    let word = if source.estimated { "estimate" } else { "source" };
    let text = quoted(&source.source);
    push(out, format_args!("{key} = {{ value = {}, {word} = {text} }}", number(value)));
}

fn link(out: &mut String, p: &Profile, key: &str, link: Option<LinkFigures>) {
    if let Some(link) = link {
        push(out, format_args!("\n[{key}]"));
        figure(out, p, &format!("{key}."), "bandwidth", link.bandwidth);
        figure(out, p, &format!("{key}."), "latency_seconds", link.latency_seconds);
    }
}

fn rates(out: &mut String, p: &Profile, key: &str, rates: &Rates) {
    push(out, format_args!("\n[{key}]"));
    let usual = Rates::default();
    for (name, value, usual) in [
        ("compute", rates.compute, usual.compute),
        ("memory", rates.memory, usual.memory),
        ("overhead_seconds", rates.overhead_seconds, 0.0),
        ("per_element", rates.per_element, 0.0),
        ("per_flop", rates.per_flop, 0.0),
        ("per_byte", rates.per_byte, 0.0),
    ] {
        if value != usual {
            push(out, format_args!("{name} = {}", number(value)));
        }
    }
    let source = p.sources.get(key).map_or("not given", |s| s.source.as_str());
    push(out, format_args!("source = {}", quoted(source)));
}
