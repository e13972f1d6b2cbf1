//! Traces for <https://ui.perfetto.dev> and `chrome://tracing`, in the Trace Event Format: a process per device, a thread
//! per stream, a counter per arena. Simulated and measured times take the same way.

use serde_json::{Map, Value, json};

use crate::plan::{Action, Entry, Plan};
use crate::simulate::Timeline;

/// Something that a stream did.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Number of the stream in the entry.
    pub stream: u32,
    /// What it was.
    pub name: String,
    /// Start, in nanoseconds.
    pub start_ns: u64,
    /// End, in nanoseconds.
    pub end_ns: u64,
    /// Details: names and values.
    pub args: Vec<(String, String)>,
}

/// A figure that changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Counter {
    /// Number of the device that it is about.
    pub device: u32,
    /// Its name.
    pub name: String,
    /// When, in nanoseconds.
    pub at_ns: u64,
    /// The figure from then on.
    pub value: f64,
}

/// The trace of a simulated run.
pub fn trace_json(timeline: &Timeline, plan: &Plan) -> String {
    let Some(entry) = plan.entries.get(timeline.entry) else {
        return spans_json(plan, timeline.entry, &[], &[]);
    };
    spans_json(plan, timeline.entry, &spans(timeline, entry), &memory(timeline, plan))
}

/// The trace of what streams of an entry did, simulated or measured.
pub fn spans_json(plan: &Plan, entry: usize, spans: &[Span], counters: &[Counter]) -> String {
    let streams = plan.entries.get(entry).map_or(&[][..], |e| &e.streams);
    let device = |stream: u32| streams.get(stream as usize).map_or(u32::MAX, |s| s.device.0);
    let mut events = Vec::new();
    let mut name = |kind: &str, pid: u32, tid: u32, name: String| {
        events.push(json!({"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}));
    };
    for (number, d) in (0..).zip(&plan.devices) {
        name("process_name", number, 0, format!("{} ({})", d.name, d.profile));
    }
    for (number, stream) in (0..).zip(streams) {
        name("thread_name", stream.device.0, number, format!("stream {number} ({:?})", stream.kind));
    }
    for span in spans {
        let args: Map<String, Value> =
            span.args.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        let duration = span.end_ns.saturating_sub(span.start_ns);
        events.push(json!({
            "ph": "X", "name": span.name, "pid": device(span.stream), "tid": span.stream,
            "ts": microseconds(span.start_ns), "dur": microseconds(duration), "args": args,
        }));
    }
    for c in counters {
        let args = json!({"value": c.value});
        let at = microseconds(c.at_ns);
        events.push(json!({"ph": "C", "name": c.name, "pid": c.device, "tid": 0, "ts": at, "args": args}));
    }
    json!({"displayTimeUnit": "ns", "traceEvents": events}).to_string()
}

/// The format counts in microseconds, with fractions.
fn microseconds(ns: u64) -> f64 {
    ns as f64 / 1e3
}

fn nanoseconds(seconds: f64) -> u64 {
    // Out of range saturates.
    (seconds * 1e9).round() as u64
}

/// Launches and copies of a simulated run; records and waits take no time.
pub fn spans(timeline: &Timeline, entry: &Entry) -> Vec<Span> {
    let mut spans = Vec::new();
    for (number, (command, time)) in entry.commands.iter().zip(&timeline.commands).enumerate() {
        let mut args = vec![("command".to_owned(), number.to_string())];
        let name = match command.action {
            Action::Launch { kernel } => {
                let Some(kernel) = entry.kernels.get(kernel.index()) else { continue };
                args.push(("ops".into(), kernel.ops.len().to_string()));
                args.push(("flops".into(), kernel.flops.to_string()));
                args.push(("bytes".into(), kernel.traffic.to_string()));
                kernel.name.clone()
            }
            Action::Copy { value, from, to, reason, .. } => {
                args.push(("from".into(), from.to_string()));
                args.push(("to".into(), to.to_string()));
                format!("{reason:?} {value}").to_lowercase()
            }
            Action::Record { .. } | Action::Wait { .. } => continue,
        };
        let (start_ns, end_ns) = (nanoseconds(time.start), nanoseconds(time.end));
        spans.push(Span { stream: command.stream.0, name, start_ns, end_ns, args });
    }
    spans
}

/// Bytes of the buffers in use over time, one counter per arena.
fn memory(timeline: &Timeline, plan: &Plan) -> Vec<Counter> {
    let mut changes: Vec<(usize, u64, i128)> = Vec::new();
    for live in &timeline.live {
        let Some(buffer) = plan.buffers.get(live.buffer.index()) else { continue };
        let (arena, bytes) = (buffer.arena.index(), i128::from(buffer.bytes));
        changes.push((arena, nanoseconds(live.interval.start), bytes));
        changes.push((arena, nanoseconds(live.interval.end), -bytes));
    }
    changes.sort_unstable();
    let mut counters: Vec<Counter> = Vec::new();
    let (mut arena, mut sum) = (usize::MAX, 0);
    for (number, at_ns, bytes) in changes {
        if number != arena {
            (arena, sum) = (number, 0);
        }
        sum += bytes;
        let Some(of) = plan.arenas.get(number) else { continue };
        let name = format!("arena {number} ({:?}), bytes", of.kind);
        counters.push(Counter { device: of.device.0, name, at_ns, value: sum as f64 });
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn a_trace_names_devices_streams_kernels_and_memory() {
        let mut plan = sample::two_devices();
        plan.entries[0].kernels[0].name = "\"quoted\"\n".into();
        let timeline = crate::simulate(&plan, 0).expect("the sample runs");
        let text = trace_json(&timeline, &plan);
        let json: Value = serde_json::from_str(&text).expect("JSON");
        let events = json["traceEvents"].as_array().expect("a list");
        let count = |ph: &str| events.iter().filter(|e| e["ph"] == ph).count();
        assert_eq!((count("M"), count("X")), (3 + 5, 13));
        assert!(count("C") >= 16);
        assert!(events.iter().any(|e| e["name"] == "\"quoted\"\n" && e["dur"] == 1.0));
        // A counter ends where it began.
        let last = events.iter().rev().find(|e| e["ph"] == "C").expect("counters");
        assert_eq!(last["args"]["value"], 0.0);
        assert_eq!(text, trace_json(&timeline, &plan));
    }

    #[test]
    fn measured_spans_need_no_timeline() {
        let span = Span { stream: 9, name: "x".into(), start_ns: 5, end_ns: 3, args: vec![] };
        let text = spans_json(&sample::empty(), 3, &[span], &[]);
        assert!(text.contains("\"dur\":0.0"), "{text}");
    }
}
