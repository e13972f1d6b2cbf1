//! The critical path of a simulated run, and where streams wait.

use std::collections::BTreeMap;

use djinn_plan::{Action, Entry, Timeline};

use crate::facts::Task;

/// A stream stands still until another one has come to an event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Wait {
    /// The stream that waits.
    pub(crate) stream: usize,
    /// Seconds since the start of the run.
    pub(crate) start: f64,
    pub(crate) end: f64,
    /// Number of the task that it waits for.
    pub(crate) task: Option<usize>,
    /// Number of the task that goes on.
    pub(crate) then: Option<usize>,
}

/// The task that ends last, and before each the one that it started after: numbers of tasks, first to last. And the
/// waits, one per event and stream.
///
/// In a simulated run a task starts at the moment at which the last of its predecessors ends: the one before it in its
/// stream, or one before an event that the stream has waited for.
pub(crate) fn trace(entry: &Entry, timeline: &Timeline, tasks: &[Task]) -> (Vec<usize>, Vec<Wait>) {
    let task_of: BTreeMap<usize, usize> = tasks.iter().enumerate().map(|(i, t)| (t.command, i)).collect();
    let end = |task: Option<usize>| task.map_or(0.0, |t: usize| tasks[t].end);
    // The task that holds up each stream, and the one that held up the stream that recorded an event.
    let mut last: Vec<Option<usize>> = vec![None; entry.streams.len()];
    let mut own_end = vec![0.0; entry.streams.len()];
    let mut recorded: BTreeMap<u32, Option<usize>> = BTreeMap::new();
    let mut before: Vec<Option<usize>> = vec![None; tasks.len()];
    let mut waits: Vec<Wait> = Vec::new();
    let mut open: Vec<Vec<usize>> = vec![Vec::new(); entry.streams.len()];
    for (number, command) in entry.commands.iter().enumerate() {
        let stream = command.stream.index();
        let Some(held) = last.get(stream).copied() else { continue };
        match command.action {
            Action::Record { event } => {
                recorded.insert(event.0, held);
            }
            Action::Wait { event } => {
                let for_task = recorded.get(&event.0).copied().flatten();
                let until = timeline.commands.get(number).map_or(0.0, |t| t.end);
                open[stream].push(waits.len());
                waits.push(Wait { stream, start: own_end[stream], end: until, task: for_task, then: None });
                own_end[stream] = until.max(own_end[stream]);
                if end(for_task) > end(held) {
                    last[stream] = for_task;
                }
            }
            Action::Launch { .. } | Action::Copy { .. } => {
                let Some(&task) = task_of.get(&number) else { continue };
                before[task] = held;
                last[stream] = Some(task);
                own_end[stream] = tasks[task].end;
                open[stream].drain(..).for_each(|w| waits[w].then = Some(task));
            }
        }
    }
    let mut path = Vec::new();
    let latest = (0..tasks.len()).max_by(|a, b| tasks[*a].end.total_cmp(&tasks[*b].end).then(b.cmp(a)));
    let mut at = latest;
    while let Some(task) = at {
        path.push(task);
        at = before[task];
    }
    path.reverse();
    (path, waits)
}

#[cfg(test)]
mod tests {
    use crate::facts::Facts;
    use djinn_plan::sample;

    #[test]
    fn the_critical_path_has_no_gap_and_lasts_as_long_as_the_run() {
        let mut waited = 0.0;
        for seed in 0..60 {
            let plan = sample::random(sample::Size { devices: 3, streams: 2, kernels: 40 }, seed);
            let facts = Facts::new(&plan, None);
            let entry = &facts.entries[0];
            let tasks: Vec<_> = entry.path.iter().map(|t| &entry.tasks[*t]).collect();
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * entry.seconds();
            assert!(near(tasks[0].start, 0.0) && near(tasks[tasks.len() - 1].end, entry.seconds()), "{seed}");
            assert!(tasks.windows(2).all(|w| near(w[0].end, w[1].start)), "seed {seed}: a gap");
            for wait in entry.waits.iter().filter(|w| w.end > w.start) {
                let task = &entry.tasks[wait.task.expect("of a task")];
                assert!(task.stream != wait.stream && near(task.end, wait.end), "seed {seed}");
                waited += wait.end - wait.start;
            }
        }
        assert!(waited > 0.0);
    }
}
