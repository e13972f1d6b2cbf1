//! Measuring runs of plans: what each kernel and copy took, beside what the cost model predicted.
//!
//! A [`Recorder`] is made for a plan and given every run that counts; leave out the first ones, in which caches fill and
//! processors wake up. What it gives is a [`RunProfile`], to be merged with others, shown ([`shown`]) and fitted to
//! ([`djinn_cost::profile::fit`]).
//!
//! A plan's predictions hold for the largest sizes of an entry. Where a run has others, they are made anew with the device
//! profile, if that is the one that the plan was made with: it gives the plan's figures at the largest sizes.

use djinn_cost::profile::{
    CopyTimes, KernelTimes, RunProfile, Samples, Section, Subject, accuracy, kernel_key, written,
};
use djinn_cost::{CostModel, Features};
use djinn_device::Profile;
use djinn_diag::{Result, input};
use djinn_interp::Env;
use djinn_ir::{Function, Graph, Module, OpId, TensorData, ValueId};
use djinn_plan::{Action, Entry, Plan, ValueRef};
use djinn_report::{Measured, MeasuredEntry};
use djinn_runtime::{RunOutput, Span};
use std::collections::BTreeMap;

pub use djinn_cost::profile::Ran;

/// Runs before those that count, where a caller has no reason for another number.
pub const WARM_UP_RUNS: u32 = 2;

/// Runs that count, where a caller has no reason for another number.
pub const RUNS: u32 = 10;

/// The host device of this machine, running kernels in this way. A build without optimisation is another device.
pub fn host(kernels: djinn_runtime::Kernels) -> Ran {
    use djinn_runtime::Kernels;
    let mode = match kernels {
        Kernels::Evaluator => "evaluator",
        Kernels::Compiled => "compiled",
    };
    let build = if cfg!(debug_assertions) { ", unoptimised build" } else { "" };
    Ran { device: "host".into(), mode: format!("{mode}{build}"), machine: machine() }
}

/// GPUs of this machine, by what [`djinn_runtime::KernelReport::devices`] calls them; where all have one profile, they are
/// called by its name.
pub fn gpus(devices: &[String]) -> Ran {
    let profiles = devices.iter().map(|d| djinn_device::Profile::of_gpu(d).map(|p| p.name.as_str()));
    let mut profiles: Vec<Option<&str>> = profiles.collect();
    profiles.dedup();
    let device = match profiles.as_slice() {
        [Some(one)] => (*one).to_owned(),
        _ => devices.join(", "),
    };
    Ran { device, mode: "cuda".into(), machine: machine() }
}

/// Name of the processor and number of threads, as far as the system tells.
fn machine() -> String {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(':'));
    let name = line.map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    format!("{}, {threads} threads", name.chars().filter(|c| !c.is_control()).take(80).collect::<String>())
}

/// Collects the times of runs of a plan.
pub struct Recorder<'a> {
    plan: &'a Plan,
    module: &'a Module,
    ran: Ran,
    device: Option<&'a Profile>,
    plan_hash: String,
    kinds: BTreeMap<(usize, BTreeMap<String, i64>), Known>,
    profile: RunProfile,
    notes: Vec<String>,
}

/// What is known of an entry at certain sizes.
#[derive(Clone)]
struct Known {
    subject: Subject,
    /// Key, features and prediction of each kernel.
    kernels: Vec<(String, Features, f64)>,
    /// Bytes and prediction of each command that copies.
    copies: BTreeMap<usize, (u64, f64)>,
    /// Prediction of the run.
    step: f64,
    /// Are the predictions those for these sizes?
    exact: bool,
}

impl<'a> Recorder<'a> {
    /// A recorder for runs of this plan of this program. `device` is the device profile that the plan was made with; the
    /// built-in one of the name that the plan gives, if there is none.
    pub fn new(plan: &'a Plan, module: &'a Module, ran: Ran, device: Option<&'a Profile>) -> Recorder<'a> {
        let text = djinn_plan::to_binary(plan).unwrap_or_default();
        let plan_hash = blake3::hash(&text).to_hex()[..32].to_owned();
        let (kinds, profile, notes) = (BTreeMap::new(), RunProfile::default(), Vec::new());
        Recorder { plan, module, ran, device, plan_hash, kinds, profile, notes }
    }

    /// Adds a run. `inputs` are those that it was given: they say which sizes it had.
    ///
    /// # Errors
    /// `profile.run` if the run is not one of the plan; `profile.seconds` if the clock went backwards.
    pub fn record(&mut self, inputs: &BTreeMap<String, TensorData>, output: &RunOutput) -> Result<()> {
        let other = || input("profile.run", "the run is not one of this plan");
        let plan = self.plan;
        let entry = plan.entries.get(output.entry).ok_or_else(other)?;
        let known = self.known(output.entry, entry, inputs)?;
        let empty = Section::new(known.step);
        let section = self.profile.sections.entry(known.subject.clone()).or_insert(empty);
        section.step.add(seconds(output.elapsed_ns))?;
        for span in &output.trace {
            let command = entry.commands.get(span.command as usize).ok_or_else(other)?;
            let took = seconds(span.end_ns.saturating_sub(span.start_ns));
            match command.action {
                Action::Launch { kernel } => {
                    let name = entry.kernels.get(kernel.index()).ok_or_else(other)?.name.as_str();
                    add_kernel(section, &known.kernels[kernel.index()], name, took)?;
                }
                Action::Copy { reason, .. } => {
                    let (bytes, predicted) = known.copies.get(&(span.command as usize)).ok_or_else(other)?;
                    let reason = format!("{reason:?}").to_lowercase();
                    let measured = Samples::default();
                    let fresh = || CopyTimes {
                        reason: reason.clone(),
                        bytes: *bytes,
                        predicted: *predicted,
                        measured,
                    };
                    let copy =
                        section.copies.entry(format!("{reason} {bytes} {predicted:e}")).or_insert_with(fresh);
                    copy.measured.add(took)?;
                }
                Action::Record { .. } | Action::Wait { .. } => {}
            }
        }
        waits(entry, &output.trace).into_iter().try_for_each(|lost| section.waits.add(lost))
    }

    /// What was collected.
    pub fn finish(self) -> (RunProfile, Vec<String>) {
        (self.profile, self.notes)
    }

    /// What is known of an entry at the sizes of a run; analysed once.
    fn known(
        &mut self,
        number: usize,
        entry: &Entry,
        inputs: &BTreeMap<String, TensorData>,
    ) -> Result<Known> {
        let function = crate::entry_function(self.module, Some(&entry.function))?;
        let sizes = sizes(function, entry, inputs);
        let key = (number, sizes);
        if let Some(known) = self.kinds.get(&key) {
            return Ok(known.clone());
        }
        let known = self.analyse(number, entry, function, &key.1)?;
        if !known.exact {
            self.notes.push(format!(
                "predictions of '{}' are those for its largest sizes: the device profile that the plan was made with is \
                 not known",
                entry.function
            ));
        }
        self.kinds.insert(key, known.clone());
        Ok(known)
    }

    fn analyse(
        &self,
        number: usize,
        entry: &Entry,
        function: &Function,
        sizes: &BTreeMap<String, i64>,
    ) -> Result<Known> {
        let largest = largest(entry);
        let at = Kernels::of(self.module, function, entry, sizes)?;
        let mut plan = self.plan.clone();
        let exact = *sizes == largest || self.predict_anew(&mut plan, number, function, &largest, &at)?;
        if exact && *sizes != largest {
            plan.entries[number].seconds = djinn_plan::simulate(&plan, number)?.seconds;
        }
        let planned = &plan.entries[number];
        let predicted = planned.kernels.iter().map(|k| written(k.seconds));
        let devices: Vec<&str> =
            plan.devices.iter().filter(|d| !d.host).map(|d| d.profile.as_str()).collect();
        let mut planned_for: Vec<&str> = if devices.is_empty() {
            plan.devices.iter().map(|d| d.profile.as_str()).collect()
        } else {
            devices
        };
        planned_for.sort_unstable();
        planned_for.dedup();
        let subject = Subject {
            program: plan.program.clone(),
            plan: self.plan_hash.clone(),
            entry: entry.function.clone(),
            sizes: sizes.clone(),
            planned_for: planned_for.join(","),
            ran: self.ran.clone(),
        };
        let copies = planned.commands.iter().enumerate().filter_map(|(i, c)| match c.action {
            Action::Copy { seconds, .. } => Some((i, (at.copied.get(&i).copied()?, written(seconds)))),
            _ => None,
        });
        Ok(Known {
            subject,
            copies: copies.collect(),
            step: written(planned.seconds),
            kernels: at.features.iter().zip(predicted).map(|(f, p)| (kernel_key(f), f.clone(), p)).collect(),
            exact,
        })
    }

    /// Puts predictions for these sizes in place of those for the largest ones. False if the profile is not known that
    /// gives the plan's figures.
    fn predict_anew(
        &self,
        plan: &mut Plan,
        number: usize,
        function: &Function,
        largest: &BTreeMap<String, i64>,
        at: &Kernels,
    ) -> Result<bool> {
        let whole = Kernels::of(self.module, function, &plan.entries[number], largest)?;
        let devices = devices_of_kernels(&plan.entries[number]);
        let name = |kernel: usize| {
            let device = devices.get(&kernel).and_then(|d| plan.devices.get(*d));
            device.map_or("", |d| d.profile.as_str())
        };
        let profiles: Vec<Option<&Profile>> = (0..whole.features.len())
            .map(|k| self.device.filter(|d| d.name == name(k)).or_else(|| Profile::builtin(name(k))))
            .collect();
        let entry = &mut plan.entries[number];
        for (k, kernel) in entry.kernels.iter().enumerate() {
            let Some(profile) = profiles[k] else { return Ok(false) };
            let again = whole.features[k].seconds(profile);
            if !whole.features[k].regions && (again - kernel.seconds).abs() > 1e-6 * kernel.seconds {
                return Ok(false);
            }
        }
        for (k, kernel) in entry.kernels.iter_mut().enumerate() {
            if let Some(profile) = profiles[k].filter(|_| !at.features[k].regions) {
                kernel.seconds = at.features[k].seconds(profile);
            }
        }
        for (i, command) in entry.commands.iter_mut().enumerate() {
            if let Action::Copy { seconds, .. } = &mut command.action
                && let (Some(now), Some(most)) = (at.copied.get(&i), whole.copied.get(&i))
                && *most > 0
            {
                // The time of the bytes is in proportion; latencies are small beside it where sizes differ much.
                *seconds *= *now as f64 / *most as f64;
            }
        }
        Ok(true)
    }
}

fn add_kernel(
    section: &mut Section,
    (key, features, predicted): &(String, Features, f64),
    name: &str,
    took: f64,
) -> Result<()> {
    let fresh = || KernelTimes {
        name: name.to_owned(),
        predicted: *predicted,
        measured: Samples::default(),
        features: features.clone(),
    };
    section.kernels.entry(key.clone()).or_insert_with(fresh).measured.add(took)
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// The kernels and copies of an entry at certain sizes.
struct Kernels {
    features: Vec<Features>,
    /// Bytes by command.
    copied: BTreeMap<usize, u64>,
}

impl Kernels {
    fn of(
        module: &Module,
        function: &Function,
        entry: &Entry,
        sizes: &BTreeMap<String, i64>,
    ) -> Result<Kernels> {
        let graph = &function.graph;
        let ops: Vec<OpId> = graph.ops().map(|(id, _)| id).collect();
        let uses = graph.use_counts();
        let model = CostModel::generic(&module.symbols).with_sizes(sizes);
        let other = || input("profile.run", "the plan is not one of this program");
        let features = entry.kernels.iter().map(|kernel| {
            let ids: Option<Vec<OpId>> = kernel.ops.iter().map(|p| ops.get(*p as usize).copied()).collect();
            ids.map(|ids| model.features(graph, &ids, &uses)).ok_or_else(other)
        });
        let copied = entry.commands.iter().enumerate().filter_map(|(i, c)| match c.action {
            Action::Copy { value, .. } => {
                let ty = graph.ty(value_of(graph, &ops, value)?);
                Some((i, model.bytes(ty) as u64))
            }
            _ => None,
        });
        Ok(Kernels { copied: copied.collect(), features: features.collect::<Result<_>>()? })
    }
}

fn value_of(graph: &Graph, ops: &[OpId], value: ValueRef) -> Option<ValueId> {
    match value {
        ValueRef::Argument(n) => graph.arguments.get(n as usize).copied(),
        ValueRef::Result { op, index } => {
            graph.get_op(*ops.get(op as usize)?)?.results.get(index as usize).copied()
        }
    }
}

/// The device of each kernel that is launched.
fn devices_of_kernels(entry: &Entry) -> BTreeMap<usize, usize> {
    let launches = entry.commands.iter().filter_map(|c| match c.action {
        Action::Launch { kernel } => {
            Some((kernel.index(), entry.streams.get(c.stream.index())?.device.index()))
        }
        _ => None,
    });
    launches.collect()
}

fn largest(entry: &Entry) -> BTreeMap<String, i64> {
    entry.symbols.iter().map(|s| (s.name.clone(), s.max)).collect()
}

/// Sizes of symbols in a run: those of the inputs, else the largest.
fn sizes(function: &Function, entry: &Entry, inputs: &BTreeMap<String, TensorData>) -> BTreeMap<String, i64> {
    let mut env = Env::default();
    let given = function.graph.arguments.iter().zip(&function.arguments);
    let given: Vec<_> = given.filter_map(|(v, (name, _))| Some((name, *v, inputs.get(&**name)?))).collect();
    loop {
        let before = env.iter().count();
        for (name, value, tensor) in &given {
            // What contradicts its type was refused by the run.
            let _ = env.bind_shape(name, function.graph.ty(*value), tensor.shape());
        }
        if env.iter().count() == before {
            break;
        }
    }
    let mut sizes = largest(entry);
    for (name, size) in &mut sizes {
        *size = env.get(&djinn_ir::Symbol::new(name)).unwrap_or(*size);
    }
    sizes
}

/// What streams lose to waits: from when both the stream and what it waits for were ready.
fn waits(entry: &Entry, trace: &[Span]) -> Vec<f64> {
    let (mut recorded, mut free) = (BTreeMap::new(), BTreeMap::new());
    for span in trace {
        if let Some(Action::Record { event }) = entry.commands.get(span.command as usize).map(|c| c.action) {
            recorded.insert(event, span.end_ns);
        }
    }
    let mut lost = Vec::new();
    let mut spans: Vec<&Span> = trace.iter().collect();
    spans.sort_by_key(|s| s.command);
    for span in spans {
        let before = free.insert(span.stream, span.end_ns).unwrap_or(0);
        if let Some(Action::Wait { event }) = entry.commands.get(span.command as usize).map(|c| c.action)
            && let Some(ready) = recorded.get(&event)
        {
            lost.push(seconds(span.end_ns.saturating_sub((*ready).max(before))));
        }
    }
    lost
}

/// What was measured of a plan, for [`djinn_report::explain_measured`] and the page.
///
/// Sections of this very plan count; of a program that was planned anew, kernels that the old plans had too. Of several
/// sections of one entry the one with the most runs counts.
///
/// # Errors
/// `profile.program` if the profile holds nothing of the program.
pub fn shown(profile: &RunProfile, plan: &Plan, module: &Module) -> Result<Measured> {
    let mut measured = Measured::default();
    for (number, entry) in plan.entries.iter().enumerate() {
        let Ok(function) = crate::entry_function(module, Some(&entry.function)) else { continue };
        let of_entry = profile.sections.iter().filter(|(s, section)| {
            let fits = |r: &djinn_plan::SymbolRange| {
                s.sizes.get(&r.name).is_none_or(|n| (r.min..=r.max).contains(n))
            };
            s.entry == entry.function && section.runs() > 0 && entry.symbols.iter().all(fits)
        });
        let mut best: Option<(bool, MeasuredEntry)> = None;
        for (subject, section) in of_entry {
            let mut sizes = largest(entry);
            sizes.extend(subject.sizes.iter().map(|(name, size)| (name.clone(), *size)));
            let at = Kernels::of(module, function, entry, &sizes)?;
            let same = subject.program == plan.program;
            let Some(made) = measured_entry(number, entry, subject, section, &at, same) else { continue };
            if best.as_ref().is_none_or(|b| (b.0, b.1.runs) < (same, made.runs)) {
                best = Some((same, made));
            }
        }
        measured.entries.extend(best.map(|b| b.1));
    }
    if measured.entries.is_empty() {
        let programs: Vec<&str> = profile.sections.keys().map(|s| s.entry.as_str()).take(4).collect();
        return Err(input("profile.program", "the profile holds no run of this program")
            .help(format!("it holds runs of the entries {}; measure this one", programs.join(", "))));
    }
    Ok(measured)
}

/// Of another plan of the program, at least this share of the kernels must be known.
const KNOWN: f64 = 0.5;

fn measured_entry(
    number: usize,
    entry: &Entry,
    subject: &Subject,
    section: &Section,
    at: &Kernels,
    same: bool,
) -> Option<MeasuredEntry> {
    let times: Vec<_> = at.features.iter().map(|f| section.kernels.get(&kernel_key(f))).collect();
    let known = times.iter().flatten().count();
    if !same && (known as f64) < KNOWN * times.len().max(1) as f64 {
        return None;
    }
    let step = section.step.median();
    // The section has the predictions for its sizes; another plan has its own.
    let fixed = entry.symbols.iter().all(|s| s.min == s.max);
    let predicted = if same && !fixed { section.predicted } else { entry.seconds };
    Some(MeasuredEntry {
        entry: number,
        runs: section.runs(),
        how: format!("{} ({}, {})", subject.ran.device, subject.ran.mode, subject.ran.machine),
        sizes: subject.sizes.iter().map(|(n, s)| format!("{n} = {s}")).collect::<Vec<_>>().join(", "),
        comparable: subject.planned_for == subject.ran.device,
        other_plan: !same,
        step,
        predicted,
        accuracy: accuracy(predicted, step),
        kernels: times
            .iter()
            .zip(&entry.kernels)
            .map(|(t, kernel)| {
                let t = (*t)?;
                let predicted = if same && !fixed { t.predicted } else { kernel.seconds };
                Some((predicted, t.measured.median()))
            })
            .collect(),
    })
}
