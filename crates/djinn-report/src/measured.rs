//! Measured times beside predicted ones.

use crate::explain::MAX_ENTRIES;
use crate::facts::{EntryFacts, Facts, Task, figure};
use crate::limit::Limit;
use crate::names::{clean, shorten};
use crate::scopes::pattern;
use crate::table::{Table, paragraph};
use crate::units::{count, percent, seconds, things};
use std::collections::BTreeMap;

/// Accuracy of the step time below which the text raises an alarm.
pub const ALARM: f64 = 0.9;
/// Groups of kernels that are listed.
const MAX_ROWS: usize = 12;

/// What was measured of a plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Measured {
    /// Entries of which runs were measured.
    pub entries: Vec<MeasuredEntry>,
}

/// What was measured of one entry.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredEntry {
    /// Its number in the plan.
    pub entry: usize,
    /// Runs that were measured.
    pub runs: u64,
    /// What ran it and how, in words.
    pub how: String,
    /// Sizes of the runs, in words.
    pub sizes: String,
    /// Are the predictions for what ran it?
    pub comparable: bool,
    /// Was another plan of the program measured? Then only kernels that both have are told of.
    pub other_plan: bool,
    /// Measured seconds of a run.
    pub step: f64,
    /// Predicted seconds of such a run.
    pub predicted: f64,
    /// `1 − |predicted − measured| / measured` of the run.
    pub accuracy: Option<f64>,
    /// By kernel: predicted and measured seconds of a launch, where it was measured.
    pub kernels: Vec<Option<(f64, f64)>>,
}

/// Kernels that are alike: name and scope, how many, predicted and measured seconds of all.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) scope: String,
    pub(crate) number: usize,
    pub(crate) predicted: f64,
    pub(crate) measured: f64,
}

impl Row {
    /// How many times longer than predicted.
    pub(crate) fn ratio(&self) -> String {
        ratio(self.predicted, self.measured)
    }
}

/// How many times longer than predicted something takes.
fn ratio(predicted: f64, measured: f64) -> String {
    let times = measured / predicted;
    if predicted > 0.0 && times.is_finite() && times < 1e6 { format!("{times:.2}") } else { "–".into() }
}

/// Groups of kernels of an entry that were measured; those that take most first.
pub(crate) fn rows(entry: &EntryFacts<'_>, measured: &MeasuredEntry) -> Vec<Row> {
    let mut groups: BTreeMap<(String, &str, Limit), Row> = BTreeMap::new();
    let times = entry.tasks.iter().filter_map(|t: &Task| {
        let kernel = entry.kernel_of(t)?;
        Some((t, measured.kernels.get(kernel).copied().flatten()?))
    });
    for (task, (predicted, took)) in times {
        let key = (pattern(&task.scope), task.name.as_str(), task.limit);
        let scope = key.0.clone();
        let fresh = || Row { name: task.name.clone(), scope, number: 0, predicted: 0.0, measured: 0.0 };
        let row = groups.entry(key).or_insert_with(fresh);
        row.number += 1;
        row.predicted += figure(predicted);
        row.measured += figure(took);
    }
    let mut rows: Vec<Row> = groups.into_values().collect();
    rows.sort_by(|a, b| {
        b.measured.total_cmp(&a.measured).then_with(|| (&a.name, &a.scope).cmp(&(&b.name, &b.scope)))
    });
    rows
}

/// What the runs say of the predicted step time, and the alarm if it is far off.
pub(crate) fn sentences(measured: &MeasuredEntry) -> Vec<String> {
    let sizes = match measured.sizes.as_str() {
        "" => String::new(),
        sizes => format!(" with {}", shorten(&clean(sizes), 60)),
    };
    let runs = things(usize::try_from(measured.runs).unwrap_or(usize::MAX), "run");
    let mut out = vec![format!(
        "{runs}{sizes} on {}: {} measured, {} predicted for one run.",
        shorten(&clean(&measured.how), 120),
        seconds(figure(measured.step)),
        seconds(figure(measured.predicted)),
    )];
    if measured.other_plan {
        out.push("Another plan of the program was measured: what its kernels took is told of those that both have.".into());
    }
    match measured.accuracy {
        _ if !measured.comparable => out.push(
            "The plan is for another device than ran it: its predictions are not judged by these times."
                .into(),
        ),
        Some(accuracy) => {
            let shown = percent(accuracy.max(0.0), 1.0);
            out.push(format!("Accuracy of the step time: {shown} (1 − |predicted − measured| / measured)."));
            if accuracy < ALARM {
                out.push(format!(
                    "ALARM: the accuracy is below {}. djinn-opt calibrate --from PROFILE fits the device's profile to what \
                     was measured; plan again with it.",
                    percent(ALARM, 1.0)
                ));
            }
        }
        None => out.push("No time of a run was measured.".into()),
    }
    out
}

/// Measured beside predicted times, entry by entry, at most 100 columns wide.
pub(crate) fn text(facts: &Facts<'_>, measured: &Measured) -> String {
    let mut out = String::new();
    for entry in measured.entries.iter().take(MAX_ENTRIES) {
        let Some(of_plan) = facts.entries.get(entry.entry) else { continue };
        out.push_str(&format!("\n{}\n", shorten(&format!("Measured: entry {}", of_plan.title()), 100)));
        sentences(entry).iter().for_each(|s| out.push_str(&paragraph(s)));
        let rows = rows(of_plan, entry);
        let all: f64 = rows.iter().map(|r| r.measured).sum();
        let titles = ["<what", "×", "predicted", "measured", "ratio", "share", "<<scope"];
        let mut table = Table::new(&titles);
        for row in rows.iter().take(MAX_ROWS) {
            table.row(vec![
                row.name.clone(),
                count(row.number as u64),
                seconds(row.predicted),
                seconds(row.measured),
                row.ratio(),
                percent(row.measured, all),
                row.scope.clone(),
            ]);
        }
        out.push_str(&table.render());
        let rest = &rows[rows.len().min(MAX_ROWS)..];
        if !rest.is_empty() {
            let time = percent(rest.iter().map(|r| r.measured).sum(), all);
            out.push_str(&format!(
                "  {} with {time} of the time not shown\n",
                things(rest.len(), "other group")
            ));
        }
    }
    out
}
