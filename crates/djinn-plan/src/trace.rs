//! Traces for <https://ui.perfetto.dev> and `chrome://tracing`, in the Trace Event Format: a process per device
//! (and entry), a thread per stream, a counter per arena. Simulated and measured times take the same way.

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
    traces_json(std::slice::from_ref(timeline), plan)
}

/// The trace of simulated runs of several entries, side by side: each begins at 0 and has its own group of processes.
pub fn traces_json(timelines: &[Timeline], plan: &Plan) -> String {
    let mut events = Vec::new();
    for (group, timeline) in (0u32..).zip(timelines) {
        let Some(entry) = plan.entries.get(timeline.entry) else { continue };
        let prefix = if timelines.len() > 1 {
            format!("{}: ", entry_name(timeline.entry, entry))
        } else {
            String::new()
        };
        let first = group.saturating_mul(plan.devices.len() as u32);
        let (spans, counters) = (spans(timeline, entry), memory(timeline, plan));
        entry_events(plan, timeline.entry, (&spans, &counters), (first, &prefix), &mut events);
    }
    json!({"displayTimeUnit": "ns", "traceEvents": events}).to_string()
}

/// Number, function and sizes.
fn entry_name(number: usize, entry: &Entry) -> String {
    let sizes: Vec<String> = entry
        .symbols
        .iter()
        .map(|s| match (s.min, s.max) {
            (min, max) if min == max => format!("{} = {min}", s.name),
            (min, max) => format!("{} = {min}..{max}", s.name),
        })
        .collect();
    let sizes = if sizes.is_empty() { String::new() } else { format!(" ({})", sizes.join(", ")) };
    format!("entry {number} {}{sizes}", entry.function)
}

/// The trace of what streams of an entry did, simulated or measured.
pub fn spans_json(plan: &Plan, entry: usize, spans: &[Span], counters: &[Counter]) -> String {
    let mut events = Vec::new();
    entry_events(plan, entry, (spans, counters), (0, ""), &mut events);
    json!({"displayTimeUnit": "ns", "traceEvents": events}).to_string()
}

/// The events of an entry, whose processes are numbered from `first` and named with a prefix.
fn entry_events(
    plan: &Plan,
    entry: usize,
    (spans, counters): (&[Span], &[Counter]),
    (first, prefix): (u32, &str),
    events: &mut Vec<Value>,
) {
    let streams = plan.entries.get(entry).map_or(&[][..], |e| &e.streams);
    let process = |device: u32| first.saturating_add(device);
    let device = |stream: u32| streams.get(stream as usize).map_or(u32::MAX, |s| process(s.device.0));
    let mut name = |kind: &str, pid: u32, tid: u32, name: String| {
        events.push(json!({"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}));
    };
    for (number, d) in (0..).zip(&plan.devices) {
        name("process_name", process(number), 0, format!("{prefix}{} ({})", d.name, d.profile));
    }
    for (number, stream) in (0..).zip(streams) {
        let text = format!("stream {number} ({:?})", stream.kind);
        name("thread_name", process(stream.device.0), number, text);
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
        let pid = process(c.device);
        events.push(json!({"ph": "C", "name": c.name, "pid": pid, "tid": 0, "ts": at, "args": args}));
    }
}

/// The format counts in microseconds, with fractions.
fn microseconds(ns: u64) -> f64 {
    ns as f64 / 1e3
}

fn nanoseconds(seconds: f64) -> u64 {
    // Out of range saturates.
    (seconds * 1e9).round() as u64
}

/// Launches and copies of a simulated run; records and waits are left out.
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
    fn every_entry_has_processes_of_its_own() {
        let mut plan = sample::two_devices();
        let mut second = plan.entries[0].clone();
        second.symbols = vec![crate::SymbolRange { name: "s0".into(), min: 1, max: 8 }];
        plan.entries.push(second);
        let timeline = crate::simulate(&plan, 0).expect("the sample runs");
        let both = [timeline.clone(), Timeline { entry: 1, ..timeline }];
        let json: Value = serde_json::from_str(&traces_json(&both, &plan)).expect("JSON");
        let events = json["traceEvents"].as_array().expect("a list");
        let processes = |e: &&Value| e["name"] == "process_name";
        let names: Vec<&Value> = events.iter().filter(processes).map(|e| &e["args"]["name"]).collect();
        assert_eq!(names.len(), 6);
        assert_eq!(names[0], "entry 0 forward: gpu:0 (test)");
        assert_eq!(names[4], "entry 1 forward (s0 = 1..8): gpu:1 (test)");
        let pids: std::collections::BTreeSet<u64> =
            events.iter().filter(|e| e["ph"] == "X").filter_map(|e| e["pid"].as_u64()).collect();
        assert_eq!(pids.into_iter().collect::<Vec<_>>(), [0, 1, 3, 4]);
    }

    #[test]
    fn measured_spans_need_no_timeline() {
        let span = Span { stream: 9, name: "x".into(), start_ns: 5, end_ns: 3, args: vec![] };
        let text = spans_json(&sample::empty(), 3, &[span], &[]);
        assert!(text.contains("\"dur\":0.0"), "{text}");
    }
}
