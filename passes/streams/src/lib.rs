//! `streams`: what runs beside what.
//!
//! Requires: a verified module; reads the annotations `device` and `kernel` and the order of operations.
//! Ensures: every operation that is not known ahead of time has a `stream`, a number within its device; transfers
//! are on copy streams, numbered apart, so that copies run beside kernels. Operations of one kernel group share a
//! stream. Several streams are used only where the simulated time is less by the gain that
//! [`djinn_schedule::assign`] asks for. Preserves: everything but this annotation, also the order of operations,
//! which says what is launched first.

mod units;

use djinn_device::{Objective, Profile, Target};
use djinn_diag::{RemarkKind, Result, internal};
use djinn_ir::{Function, Module, SymbolTable};
use djinn_pass::{OptionInfo, Pass, PassContext, PassInfo, PassOptions};
use djinn_schedule::{
    Dag, Limits, Node, Options, Order, Schedule, ScheduleError, assign, assign_unlimited, simulate,
    synchronise,
};
use std::sync::Arc;
use units::{Units, units};

/// What the pass manager knows of `streams`.
pub static STREAMS: PassInfo = PassInfo {
    name: "streams",
    summary: "gives every operation the stream that it runs on",
    requires: "a verified module; devices and kernel groups are annotated, the order is final",
    ensures: "annotation `stream` on every operation that is not known ahead of time",
    preserves: "everything but this annotation",
    options: &[OptionInfo {
        name: "max-streams",
        default: "4",
        summary: "the most streams of a device for kernels; the target may allow fewer",
    }],
};

/// Copy streams of a device: one, because the copies of one direction share a link and an engine.
const COPY_STREAMS: usize = 1;

/// The pass.
#[derive(Debug)]
pub struct Streams {
    max_streams: usize,
}

/// The pass with these options.
///
/// # Errors
/// `pipeline.option` for a number of streams that is none.
pub fn make(options: &PassOptions) -> Result<Box<dyn Pass>> {
    let max_streams = usize::try_from(options.u64("max-streams")?).unwrap_or(usize::MAX).max(1);
    Ok(Box::new(Streams { max_streams }))
}

impl Pass for Streams {
    fn info(&self) -> &'static PassInfo {
        &STREAMS
    }

    fn run(&self, module: &mut Module, cx: &mut PassContext) -> Result<()> {
        let target = cx.target.clone().unwrap_or_else(|| Arc::new(Target::single(Profile::generic())));
        let symbols = &module.symbols;
        for function in &mut module.functions {
            self.schedule(function, symbols, &target, cx)?;
        }
        Ok(())
    }
}

impl Streams {
    fn schedule(
        &self,
        function: &mut Function,
        symbols: &SymbolTable,
        target: &Target,
        cx: &mut PassContext,
    ) -> Result<()> {
        let units = units(function, target, symbols)?;
        let groups = units.engines.iter().map(|e| match (e.copies, e.device) {
            (true, _) => COPY_STREAMS,
            // Buffers that may be used at the same time cannot share memory.
            _ if target.objective == Objective::Memory => 1,
            (false, Some(device)) => self.max_streams.min(target.streams(device) as usize),
            (false, None) => 1,
        });
        let options =
            Options { groups: groups.collect(), sync_seconds: units.sync_seconds, order: Order::Given };
        let limits = Limits::default();
        let schedule = assign(&units.dag, &units.nodes, &options, &limits).map_err(refused)?;
        // The figure without a budget is asked for only where concurrency was worth a thought.
        let unlimited = match schedule.evaluations {
            0 | 1 => None,
            _ => Some(unlimited_seconds(&units.dag, &units.nodes, &options, &limits).map_err(refused)?),
        };
        report(&function.name, &units, &schedule, unlimited, cx);
        for (id, unit) in &units.unit_of {
            function.graph.annotate(*id, "stream", schedule.number[*unit] as i64);
        }
        Ok(())
    }
}

fn refused(error: ScheduleError) -> Box<djinn_diag::Diagnostic> {
    internal("streams.schedule", format!("the scheduler refuses the units of a function: {error}"))
}

/// Simulated seconds if any two units that are not ordered have different streams.
fn unlimited_seconds(
    dag: &Dag,
    nodes: &[Node],
    options: &Options,
    limits: &Limits,
) -> std::result::Result<f64, ScheduleError> {
    let chains = assign_unlimited(dag, limits).stream;
    // A stream belongs to one device.
    let groups = options.groups.len();
    let stream: Vec<usize> = chains.iter().zip(nodes).map(|(s, node)| s * groups + node.group).collect();
    let order = dag.topological();
    let events = synchronise(dag, order, &stream, limits)?.events;
    Ok(simulate(nodes, order, &stream, &events, options.sync_seconds)?.makespan)
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

/// Counts streams, events and simulated time, and says what limits them.
fn report(name: &str, units: &Units, schedule: &Schedule, unlimited: Option<f64>, cx: &mut PassContext) {
    let streams: usize = schedule.streams.iter().sum();
    cx.count("units", units.nodes.len() as u64);
    cx.count("streams", streams as u64);
    cx.count("events", schedule.events.len() as u64);
    cx.count("schedules simulated", schedule.evaluations as u64);
    cx.count("simulated ns on one stream a device", nanoseconds(schedule.sequential));
    cx.count("simulated ns with streams", nanoseconds(schedule.makespan));
    cx.count("least ns of any schedule", nanoseconds(schedule.bound));
    cx.count("simulated ns with unlimited streams", nanoseconds(unlimited.unwrap_or(schedule.makespan)));
    let us = |seconds: f64| seconds * 1e6;
    let message = match unlimited {
        None => format!(
            "one stream each for kernels and copies of a device: {:.1} µs, and no schedule takes less than {:.1} µs",
            us(schedule.makespan),
            us(schedule.bound)
        ),
        Some(unlimited) => format!(
            "{streams} streams, {} events: {:.1} µs, where one stream takes {:.1} µs, unlimited streams {:.1} µs \
             and no schedule less than {:.1} µs",
            schedule.events.len(),
            us(schedule.makespan),
            us(schedule.sequential),
            us(unlimited),
            us(schedule.bound)
        ),
    };
    cx.remark(RemarkKind::Analysis, "streams", name, message);
    if let Some(stop) = schedule.stop {
        let message = format!("the search for a better schedule was stopped by the limit {stop}");
        cx.remark(RemarkKind::Missed, "streams", name, message);
    }
}
