//! What a run gives.

use crate::hazard::RaceReport;
use crate::launch::WorkTimes;
use djinn_ir::TensorData;
use djinn_plan::{Action, Plan, StreamId};

/// When a command ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Position of the command in the entry's commands.
    pub command: u32,
    /// Its stream.
    pub stream: StreamId,
    /// Nanoseconds from the start of the run to the start of the command.
    pub start_ns: u64,
    /// Nanoseconds from the start of the run to the end of the command. A wait lasts until its event is recorded.
    pub end_ns: u64,
}

/// Outputs of a run, and how it went.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOutput {
    /// Number of the entry that ran.
    pub entry: usize,
    /// Names and values of the outputs, in the order of the entry; those that update an input are in `updates`.
    pub outputs: Vec<(String, TensorData)>,
    /// Names of inputs that the run updates, and their new values. New values of states stay in the runtime.
    pub updates: Vec<(String, TensorData)>,
    /// One span per command, in the order of the entry's commands.
    pub trace: Vec<Span>,
    /// What the race detector found; empty if it is off.
    pub races: Vec<RaceReport>,
    /// Nanoseconds from the start of the streams to their end; resident inputs and outputs are not part of it.
    pub elapsed_ns: u64,
    /// What the streams spent their time on.
    pub work: WorkTimes,
    /// Was it launched as one CUDA graph?
    pub graph: bool,
}

impl RunOutput {
    /// The output of this name.
    pub fn output(&self, name: &str) -> Option<&TensorData> {
        self.outputs.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }

    /// The new value of the input of this name.
    pub fn update(&self, name: &str) -> Option<&TensorData> {
        self.updates.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }

    /// The measured launches and copies for [`djinn_plan::spans_json`]. `plan` is the one that ran.
    pub fn spans(&self, plan: &Plan) -> Vec<djinn_plan::Span> {
        let Some(entry) = plan.entries.get(self.entry) else { return Vec::new() };
        let span = |span: &Span| {
            let name = match entry.commands.get(span.command as usize)?.action {
                Action::Launch { kernel } => entry.kernels.get(kernel.index())?.name.clone(),
                Action::Copy { value, reason, .. } => format!("{reason:?} {value}").to_lowercase(),
                Action::Record { .. } | Action::Wait { .. } => return None,
            };
            let args = vec![("command".to_owned(), span.command.to_string())];
            let Span { start_ns, end_ns, .. } = *span;
            Some(djinn_plan::Span { stream: span.stream.0, name, start_ns, end_ns, args })
        };
        self.trace.iter().filter_map(span).collect()
    }
}

/// A command of an entry for messages.
pub(crate) fn label(plan: &Plan, entry: usize, command: usize) -> String {
    let entry = plan.entries.get(entry);
    let what = entry.and_then(|e| Some((e, &e.commands.get(command)?.action)));
    let what = what.map(|(entry, action)| match action {
        Action::Launch { kernel } => {
            let name = entry.kernels.get(kernel.index()).map_or("", |k| &k.name);
            format!(" (launch '{name}')")
        }
        Action::Copy { reason, .. } => format!(" (copy, {reason:?})").to_lowercase(),
        Action::Record { event } => format!(" (record event {})", event.0),
        Action::Wait { event } => format!(" (wait for event {})", event.0),
    });
    format!("command {command}{}", what.unwrap_or_default())
}
