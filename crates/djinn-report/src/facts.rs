//! What text and page say about a plan: commands with names, times and limits; devices; links.
//!
//! Everything that a plan says is taken with care: numbers that point nowhere give no entry, figures that are no finite
//! figures count as 0.

use std::collections::{BTreeMap, BTreeSet};

use djinn_ir::Module;
use djinn_ir::ops::CostClass;
use djinn_plan::{
    Action, ArenaKind, Content, CopyReason, Entry, Kernel, Place, Plan, Timeline, View, simulate,
};

use crate::limit::{Limit, Speeds};
use crate::names::{self, Ops, clean};
use crate::path;
use crate::scopes::pattern;

/// A plan and what can be said of it.
pub(crate) struct Facts<'a> {
    pub(crate) plan: &'a Plan,
    /// One per entry of the plan.
    pub(crate) entries: Vec<EntryFacts<'a>>,
    /// One per device of the plan.
    pub(crate) devices: Vec<DeviceFacts>,
}

/// What a device holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeviceFacts {
    pub(crate) name: String,
    pub(crate) profile: String,
    pub(crate) capacity: u64,
    pub(crate) host: bool,
    /// Bytes of its arenas, in the order of [`KINDS`].
    pub(crate) held: [u64; 4],
    /// Were its speeds read off its kernels because no profile of that name is built in?
    pub(crate) observed: bool,
}

/// The kinds of arenas, in the order in which they are shown.
pub(crate) const KINDS: [ArenaKind; 4] =
    [ArenaKind::Weights, ArenaKind::State, ArenaKind::Activations, ArenaKind::Spill];

/// What an arena is for, in one word.
pub(crate) fn kind_name(kind: ArenaKind) -> &'static str {
    match kind {
        ArenaKind::Weights => "weights",
        ArenaKind::State => "state",
        ArenaKind::Activations => "activations",
        ArenaKind::Spill => "spill",
    }
}

impl DeviceFacts {
    /// Bytes of all arenas.
    pub(crate) fn total(&self) -> u64 {
        self.held.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }
}

/// One entry of the plan.
pub(crate) struct EntryFacts<'a> {
    pub(crate) entry: &'a Entry,
    /// Its simulation, or why there is none.
    pub(crate) timeline: Result<Timeline, String>,
    /// Launches and copies, in the order of the commands.
    pub(crate) tasks: Vec<Task>,
    /// Numbers of tasks on the critical path, first to last.
    pub(crate) path: Vec<usize>,
    /// Times in which a stream stands still until another one is ready.
    pub(crate) waits: Vec<path::Wait>,
    pub(crate) ops: Ops<'a>,
}

/// A launch or a copy.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// Number of the command in the entry.
    pub(crate) command: usize,
    /// The operations, or what is copied.
    pub(crate) name: String,
    /// Module path; empty if it is not known.
    pub(crate) scope: String,
    /// Kind of the operation that costs most, or `copy`.
    pub(crate) kind: String,
    pub(crate) class: Class,
    pub(crate) stream: usize,
    pub(crate) device: Option<usize>,
    /// Seconds since the start of the run; 0 without a simulation.
    pub(crate) start: f64,
    pub(crate) end: f64,
    /// Predicted seconds if nothing else runs.
    pub(crate) seconds: f64,
    pub(crate) flops: f64,
    pub(crate) bytes: f64,
    /// Operations that it runs.
    pub(crate) ops: usize,
    pub(crate) limit: Limit,
    pub(crate) share: f64,
    /// Of a copy: the devices at its ends; `None` is the memory of the caller.
    pub(crate) route: Option<[Option<usize>; 2]>,
    pub(crate) reason: Reason,
}

/// Tasks that are alike.
#[derive(Debug, Clone, Default)]
pub(crate) struct Group<'t> {
    /// In the order of the commands; not empty.
    pub(crate) tasks: Vec<&'t Task>,
    /// Predicted seconds of all of them.
    pub(crate) seconds: f64,
}

impl Group<'_> {
    /// What it is called: the name of its task, or what its tasks have in common.
    pub(crate) fn name(&self) -> String {
        let Some(first) = self.tasks.first() else { return String::new() };
        if self.tasks.iter().all(|t| t.name == first.name) {
            return first.name.clone();
        }
        match first.name.split(' ').next() {
            Some("fetch") => "fetches".into(),
            Some(reason) => format!("{reason}s"),
            None => String::new(),
        }
    }

    /// Its scope, with `*` for numbers that differ.
    pub(crate) fn scope(&self) -> String {
        let Some(first) = self.tasks.first() else { return String::new() };
        if self.tasks.iter().all(|t| t.scope == first.scope) {
            first.scope.clone()
        } else {
            pattern(&first.scope)
        }
    }

    /// Multiply-accumulate work of all tasks.
    pub(crate) fn flops(&self) -> f64 {
        self.tasks.iter().map(|t| t.flops).sum()
    }

    /// Bytes that all tasks move.
    pub(crate) fn bytes(&self) -> f64 {
        self.tasks.iter().map(|t| t.bytes).sum()
    }

    /// Where its tasks run.
    pub(crate) fn place(&self, facts: &Facts<'_>) -> String {
        let places: BTreeSet<String> = self
            .tasks
            .iter()
            .map(|t| t.route.map_or_else(|| facts.device(t.device).to_owned(), |r| facts.route(r)))
            .collect();
        match places.len() {
            1 => places.into_iter().next().unwrap_or_default(),
            n if self.tasks.iter().any(|t| t.route.is_some()) => format!("{n} routes"),
            n => format!("{n} devices"),
        }
    }
}

/// Why a task runs where it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// It reads weights that are there.
    Weights,
    /// It reads state that is there.
    State,
    /// Its operands are there.
    Operands,
    /// It is a copy.
    Copy(CopyReason),
}

/// What sort of work a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Multiply-accumulate work.
    Contraction,
    /// Softmax, norms.
    Normalization,
    /// Sums, maxima.
    Reduction,
    /// Moves data within a device.
    Movement,
    /// One pass.
    Elementwise,
    /// Anything else.
    Other,
    /// A copy between memories.
    Copy,
}

impl Class {
    /// Every class, in the order in which legends show them.
    pub(crate) const ALL: [Class; 7] = [
        Class::Contraction,
        Class::Normalization,
        Class::Reduction,
        Class::Movement,
        Class::Elementwise,
        Class::Other,
        Class::Copy,
    ];

    /// The class of an operation.
    pub(crate) fn of(cost: CostClass) -> Class {
        match cost {
            CostClass::Contraction => Class::Contraction,
            CostClass::Normalization => Class::Normalization,
            CostClass::Reduction => Class::Reduction,
            CostClass::Copy => Class::Movement,
            CostClass::Elementwise => Class::Elementwise,
            CostClass::Free | CostClass::Control => Class::Other,
        }
    }

    /// One or two words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Class::Contraction => "contraction",
            Class::Normalization => "normalization",
            Class::Reduction => "reduction",
            Class::Movement => "data movement",
            Class::Elementwise => "elementwise",
            Class::Other => "other",
            Class::Copy => "copy",
        }
    }
}

/// A figure that is finite and not negative, or 0.
pub(crate) fn figure(value: f64) -> f64 {
    if value.is_finite() && value > 0.0 { value } else { 0.0 }
}

impl<'a> Facts<'a> {
    /// Everything about a plan.
    pub(crate) fn new(plan: &'a Plan, module: Option<&'a Module>) -> Facts<'a> {
        let speeds = speeds(plan);
        let mut devices: Vec<DeviceFacts> = plan
            .devices
            .iter()
            .zip(&speeds)
            .map(|(d, s)| DeviceFacts {
                name: clean(&d.name),
                profile: clean(&d.profile),
                capacity: d.memory_bytes,
                host: d.host,
                held: [0; 4],
                observed: s.observed,
            })
            .collect();
        for arena in &plan.arenas {
            let kind = KINDS.iter().position(|k| *k == arena.kind).unwrap_or(0);
            if let Some(device) = devices.get_mut(arena.device.index()) {
                device.held[kind] = device.held[kind].saturating_add(arena.bytes);
            }
        }
        let entries = (0..plan.entries.len()).map(|number| entry_facts(plan, module, &speeds, number));
        Facts { plan, entries: entries.collect(), devices }
    }

    /// The name of a device; `None` is the caller.
    pub(crate) fn device(&self, number: Option<usize>) -> &str {
        number.map_or("caller", |d| self.devices.get(d).map_or("?", |d| d.name.as_str()))
    }

    /// The name of a way of a copy.
    pub(crate) fn route(&self, [from, to]: [Option<usize>; 2]) -> String {
        format!("{} → {}", self.device(from), self.device(to))
    }
}

impl EntryFacts<'_> {
    /// Simulated seconds of the run, or the sum of all tasks if it cannot be simulated.
    pub(crate) fn seconds(&self) -> f64 {
        self.timeline.as_ref().map_or_else(|_| self.work(), |t| figure(t.seconds))
    }

    /// Seconds of all tasks one after the other.
    pub(crate) fn work(&self) -> f64 {
        figure(self.tasks.iter().map(|t| t.seconds).sum())
    }

    /// Its name, phase and sizes.
    pub(crate) fn title(&self) -> String {
        clean(&self.entry.function)
    }

    /// Phase and sizes, or nothing.
    pub(crate) fn conditions(&self) -> String {
        let phase = self.entry.phase.iter().map(|p| clean(p));
        let sizes = self.entry.symbols.iter().map(|s| {
            let name = clean(&s.name);
            match (s.min, s.max) {
                (min, max) if min == max => format!("{name} = {min}"),
                (min, i64::MAX) => format!("{name} ≥ {min}"),
                (min, max) => format!("{name} = {min}–{max}"),
            }
        });
        let whole = self.entry.granularity == djinn_plan::Granularity::Engines;
        let launches = whole.then(|| "launching whole engines".to_owned());
        phase.chain(sizes).take(12).chain(launches).collect::<Vec<_>>().join(", ")
    }

    /// Sequences that one run of a decoder goes on with: the first axis of what it hands to the caller, at the largest
    /// sizes. Nothing for other entries, and where it gives more than one position of each.
    pub(crate) fn batch(&self) -> Option<u64> {
        if self.entry.phase.as_deref() != Some("llm_decode") {
            return None;
        }
        let logits = self.entry.outputs.iter().find(|port| !port.resident && port.update_of.is_none())?;
        let (sizes, symbols) =
            logits.ty.strip_prefix("tensor<")?.trim_end_matches('>').split_once(", [").map_or_else(
                || (logits.ty.trim_start_matches("tensor<").trim_end_matches('>'), ""),
                |(sizes, symbols)| (sizes, symbols.trim_end_matches(']')),
            );
        let mut symbols = symbols.split(", ").map(|s| s.trim_matches('"'));
        let mut sizes: Vec<Option<u64>> = sizes
            .split('x')
            .map(|size| match size {
                "?" => {
                    let name = symbols.next()?;
                    let range = self.entry.symbols.iter().find(|r| r.name == name)?;
                    u64::try_from(range.max).ok()
                }
                size => size.parse().ok(),
            })
            .collect();
        // The element type stands last.
        sizes.pop();
        match sizes.as_slice() {
            [batch, _] | [batch, Some(1), _] => *batch,
            _ => None,
        }
    }

    /// Bytes of weights that are kept on hosts and that a run fetches, and the bytes of these copies: more if a weight is
    /// fetched several times.
    pub(crate) fn streamed(&self, plan: &Plan) -> (u64, u64) {
        let on_host = |view: &View| {
            let buffer = plan.buffers.get(view.buffer.index())?;
            let device = plan.devices.get(plan.arenas.get(buffer.arena.index())?.device.index())?;
            Some(device.host && matches!(buffer.content, Content::Constant { .. }))
        };
        let fetched = self.entry.commands.iter().filter_map(|c| match c.action {
            Action::Copy { from: Place::Buffer(view), reason: CopyReason::Fetch, .. } => Some(view),
            _ => None,
        });
        let fetched: Vec<View> = fetched.filter(|view| on_host(view) == Some(true)).collect();
        let each: BTreeSet<View> = fetched.iter().copied().collect();
        let sum = |sum: u64, view: View| sum.saturating_add(view.bytes);
        (each.into_iter().fold(0, sum), fetched.into_iter().fold(0, sum))
    }

    /// The number of the kernel that a task launches.
    pub(crate) fn kernel_of(&self, task: &Task) -> Option<usize> {
        match self.entry.commands.get(task.command)?.action {
            Action::Launch { kernel } => Some(kernel.index()),
            _ => None,
        }
    }

    /// Number of copies.
    pub(crate) fn copies(&self) -> usize {
        self.tasks.iter().filter(|t| t.route.is_some()).count()
    }

    /// Seconds of tasks by what limits them, in the order of [`Limit::ALL`].
    pub(crate) fn by_limit<'t>(&self, tasks: impl Iterator<Item = &'t Task>) -> [f64; 4] {
        let mut sums = [0.0; 4];
        for task in tasks {
            sums[task.limit as usize] += task.seconds;
        }
        sums
    }

    /// Tasks of one name in one place of repeated layers together; the costliest first.
    pub(crate) fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: BTreeMap<(String, &str, Limit), Group<'_>> = BTreeMap::new();
        for task in self.tasks.iter().filter(|t| t.seconds > 0.0) {
            let name =
                if task.route.is_some() { task.name.split(' ').next().unwrap_or("") } else { &task.name };
            let group = groups.entry((pattern(&task.scope), name, task.limit)).or_default();
            group.tasks.push(task);
            group.seconds += task.seconds;
        }
        let mut groups: Vec<Group<'_>> = groups.into_values().collect();
        let first = |g: &Group<'_>| g.tasks.first().map(|t| t.command);
        groups.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then(first(a).cmp(&first(b))));
        groups
    }

    /// Copies by their ends: how many, bytes, seconds.
    pub(crate) fn links(&self) -> BTreeMap<[Option<usize>; 2], (usize, f64, f64)> {
        let mut links: BTreeMap<_, (usize, f64, f64)> = BTreeMap::new();
        for task in &self.tasks {
            if let Some(route) = task.route {
                let link = links.entry(route).or_default();
                *link = (link.0 + 1, link.1 + task.bytes, link.2 + (task.end - task.start).max(0.0));
            }
        }
        links
    }

    /// Tokens of KV cache that fit beside weights and activations of every device that holds a part of it.
    pub(crate) fn tokens(&self, plan: &Plan) -> Option<u64> {
        let per_device = self.entry.budgets.iter().filter(|b| b.kv_per_token > 0).filter_map(|b| {
            let capacity = plan.devices.get(b.device.index())?.memory_bytes;
            Some(capacity.saturating_sub(b.weights).saturating_sub(b.activations) / b.kv_per_token)
        });
        per_device.min()
    }

    /// Sessions that fit on every device that holds a part of their caches.
    pub(crate) fn sessions(&self) -> Option<u64> {
        self.entry.budgets.iter().filter_map(|b| b.sessions).min()
    }
}

fn speeds(plan: &Plan) -> Vec<Speeds> {
    let mut kernels: Vec<Vec<&Kernel>> = vec![Vec::new(); plan.devices.len()];
    for entry in &plan.entries {
        for command in &entry.commands {
            let Action::Launch { kernel } = command.action else { continue };
            let device = entry.streams.get(command.stream.index()).map(|s| s.device.index());
            let of_device = device.and_then(|d| kernels.get_mut(d));
            if let (Some(of_device), Some(kernel)) = (of_device, entry.kernels.get(kernel.index())) {
                of_device.push(kernel);
            }
        }
    }
    plan.devices.iter().zip(&kernels).map(|(d, kernels)| Speeds::new(&d.profile, kernels)).collect()
}

fn entry_facts<'a>(
    plan: &'a Plan,
    module: Option<&'a Module>,
    speeds: &[Speeds],
    number: usize,
) -> EntryFacts<'a> {
    let entry = &plan.entries[number];
    let ops = Ops::new(module, entry);
    let timeline = simulate(plan, number).map_err(|e| clean(&e.message));
    let mut tasks = Vec::new();
    for (number, command) in entry.commands.iter().enumerate() {
        let device = entry.streams.get(command.stream.index()).map(|s| s.device.index());
        let mut task = match &command.action {
            Action::Launch { kernel } => match entry.kernels.get(kernel.index()) {
                Some(kernel) => launch(plan, &ops, kernel, device.and_then(|d| speeds.get(d))),
                None => continue,
            },
            Action::Copy { .. } => copy(plan, entry, &ops, &command.action),
            Action::Record { .. } | Action::Wait { .. } => continue,
        };
        let time = timeline.as_ref().ok().and_then(|t| t.commands.get(number).copied()).unwrap_or_default();
        (task.command, task.stream, task.device) = (number, command.stream.index(), device);
        (task.start, task.end) = (time.start, time.end);
        tasks.push(task);
    }
    let (path, waits) = match &timeline {
        Ok(timeline) => path::trace(entry, timeline, &tasks),
        Err(_) => (Vec::new(), Vec::new()),
    };
    EntryFacts { entry, timeline, tasks, path, waits, ops }
}

fn launch(plan: &Plan, ops: &Ops<'_>, kernel: &Kernel, speeds: Option<&Speeds>) -> Task {
    let named = ops.of_kernel(kernel);
    let content = |view: &View| plan.buffers.get(view.buffer.index()).map(|b| &b.content);
    let reads = |of: fn(&Content) -> bool| kernel.reads.iter().any(|o| content(&o.view).is_some_and(of));
    let reason = if reads(|c| matches!(c, Content::Constant { .. })) {
        Reason::Weights
    } else if reads(|c| matches!(c, Content::State { .. })) {
        Reason::State
    } else {
        Reason::Operands
    };
    Task {
        command: 0,
        name: named.name,
        scope: named.scope,
        kind: named.kind,
        class: named.class,
        stream: 0,
        device: None,
        start: 0.0,
        end: 0.0,
        seconds: figure(kernel.seconds),
        flops: figure(kernel.flops),
        bytes: figure(kernel.traffic),
        ops: kernel.ops.len(),
        limit: speeds.map_or(Limit::Launch, |s| s.limit(kernel)),
        share: figure(kernel.share).min(1.0),
        route: None,
        reason,
    }
}

fn copy(plan: &Plan, entry: &Entry, ops: &Ops<'_>, action: &Action) -> Task {
    let Action::Copy { value, from, to, reason, seconds, .. } = *action else { unreachable!("a copy") };
    let buffer = |place| match place {
        Place::Buffer(view) => plan.buffers.get(view.buffer.index()),
        Place::Input(_) | Place::Output(_) => None,
    };
    let end = |place| {
        let arena = buffer(place).and_then(|b| plan.arenas.get(b.arena.index()));
        arena.map(|a| a.device.index())
    };
    let port = |ports: &[djinn_plan::Port], n: u32| ports.get(n as usize).map(|p| clean(&p.name));
    let what = match (from, to) {
        (Place::Input(n), _) => port(&entry.inputs, n),
        (_, Place::Output(n)) => port(&entry.outputs, n),
        _ => buffer(from).map(|b| clean(&b.name)),
    };
    let bytes = [from, to].into_iter().find_map(|place| match place {
        Place::Buffer(view) => Some(view.bytes as f64),
        Place::Input(_) | Place::Output(_) => None,
    });
    let ends = [end(from), end(to)];
    let on_one_device = ends[0].is_some() && ends[0] == ends[1];
    Task {
        command: 0,
        name: format!("{} {}", names::reason(reason), what.unwrap_or_else(|| value.to_string())),
        scope: ops.scope_of(value),
        kind: "copy".into(),
        class: Class::Copy,
        stream: 0,
        device: None,
        start: 0.0,
        end: 0.0,
        seconds: figure(seconds),
        flops: 0.0,
        bytes: bytes.unwrap_or(0.0),
        ops: 0,
        limit: if on_one_device { Limit::Memory } else { Limit::Link },
        share: 0.0,
        route: Some(ends),
        reason: Reason::Copy(reason),
    }
}
