//! The independent checker: proves from the data alone that a plan may run.
//!
//! The proof of an entry has three steps. *Structure*: every number, range and figure is sound (`structure`,
//! `production`, `ports`, `budget`, `engines`). *Order*: two commands that touch the same bytes, one of them writing, are
//! ordered by streams and events (`order`, vector clocks). *Values*: executed in the order of the list, every read
//! finds exactly the value that it names (`flow`). The list is one of the orders that streams and events admit, and
//! without an unordered conflict all of those leave the same bytes, so what holds for the list holds for every run.
//!
//! Invariant: shares no code with a planner and computes no placement, offset or order.

mod budget;
mod engines;
mod flow;
mod memory;
mod order;
mod ports;
mod production;
mod structure;

use std::fmt;

use djinn_diag::{Culprit, Diagnostic, clipped};

use crate::plan::{Action, Entry, Operand, Place, Plan, View};

/// Violations that a check reports at most.
pub const MAX_VIOLATIONS: usize = 100;

/// Steps (visits of a piece of an arena) after which the check of an entry gives up with [`Constraint::Limits`].
pub const MAX_STEPS: u64 = 1 << 25;

/// Entries of all vector clocks alive at one time, at most; 4 bytes each.
pub const MAX_CLOCK_CELLS: usize = 1 << 25;

macro_rules! constraints {
    ($($name:ident $label:literal $meaning:literal)*) => {
        /// What a plan must satisfy.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Constraint {$(
            #[doc = $meaning]
            $name,
        )*}

        impl Constraint {
            /// All of them.
            pub const ALL: &'static [Constraint] = &[$(Constraint::$name),*];

            /// The stable label, such as `C10`.
            pub fn label(self) -> &'static str {
                match self { $(Constraint::$name => $label),* }
            }

            /// The code of the diagnostic, such as `plan.C10`.
            pub fn code(self) -> &'static str {
                match self { $(Constraint::$name => concat!("plan.", $label)),* }
            }

            /// The constraint in one sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Constraint::$name => $meaning),* }
            }
        }
    };
}

constraints! {
    Version "C1" "The version of the data is the one that the checker knows."
    Ids "C2" "Every number of a device, arena, buffer, stream, kernel, event, port or entry is in range."
    Figures "C3" "Figures are finite and not negative; bandwidths are above 0; shares are above 0 and at most 1."
    Capacity "C4" "The arenas of a device together fit in its memory."
    Buffers "C5" "Buffers are aligned and lie within their arenas."
    Views "C6" "Views lie within their buffers."
    Contents "C7" "A buffer's content fits its arena's kind; constants and states overlap nothing; state names are unique."
    Devices "C8" "Names of devices are unique; a link joins two different devices, and there is one per pair."
    Events "C9" "Every event is recorded exactly once and before its waits."
    Order "C10" "Streams and events order every two commands of which one writes bytes that the other touches."
    Values "C11" "Every read finds the value that it names, written through the same view."
    Production "C12" "A value has one origin: an operation belongs to at most one kernel, which runs once and writes only its results."
    Locality "C13" "The operands of a kernel lie on the device of its stream; a copy goes along a link of the plan."
    Ownership "C14" "A run's buffers are used by their entry only; constants are bound to their own buffers and never written."
    State "C15" "State leaves its device for the host only, and what a run leaves in it is declared."
    Ports "C16" "Outputs are handed out by exactly one copy, inputs brought by one to each device; resident ones stand in state buffers."
    End "C17" "At the end of a run, resident outputs and updated states hold their values."
    Aliases "C18" "The bytes of an alias are covered by disjoint bytes of its parts in the same buffer; none is made of itself."
    InPlace "C19" "A command's writes are disjoint, and a read that one of them touches is of the same bytes, or a resident input that a kernel outside of engines appends to."
    Symbols "C20" "Symbols have unique names and ranges that are not empty and not negative."
    Budgets "C21" "Budgets agree with the arenas and buffers."
    Copies "C22" "A copy moves as many bytes as it takes, for the reason it gives; only a transfer renames its value."
    Limits "C23" "The plan is small enough to be checked."
    Engines "C24" "An engine's kernels run on its device, its border and figures are theirs, and nothing waits for a part of it while another part waits for that."
    Granularity "C25" "In an entry whose launches are engines, each engine is one kernel of all its operations, which writes what leaves the engine, over nothing that it reads, and has no workspace."
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A constraint that a plan does not satisfy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The constraint.
    pub constraint: Constraint,
    /// Number and function of the entry, if it is about one.
    pub entry: Option<(usize, String)>,
    /// Number of the command in the entry, if it is about one.
    pub command: Option<usize>,
    /// One sentence: what, where, how many bytes.
    pub message: String,
}

impl Violation {
    /// The violation as a diagnostic. The culprit is the input for a plan that was read from a file and Djinn for a
    /// plan that it made.
    pub fn diagnostic(&self, culprit: Culprit) -> Box<Diagnostic> {
        let mut diagnostic = Box::new(Diagnostic::new(culprit, self.constraint.code(), self.message.clone()));
        if let Some((number, function)) = &self.entry {
            diagnostic.place.push(format!("entry {number} '{}'", clipped(function, 40, 20)));
        }
        if let Some(command) = self.command {
            diagnostic.place.push(format!("command {command}"));
        }
        if culprit == Culprit::Input {
            diagnostic.help = Some(format!("{} Make the plan anew.", self.constraint.meaning()));
        }
        diagnostic
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", self.constraint.code())?;
        if let Some((number, function)) = &self.entry {
            write!(f, " entry {number} '{}'", clipped(function, 40, 20))?;
        }
        if let Some(command) = self.command {
            write!(f, " command {command}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// What a check has proved. Only [`check`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Proof {
    /// Entries checked.
    pub entries: usize,
    /// Commands checked.
    pub commands: usize,
    /// Reads that find their value.
    pub reads: u64,
    /// Writes that nothing conflicts with.
    pub writes: u64,
    /// Pairs of conflicting accesses that were found ordered.
    pub ordered: u64,
}

/// Proves that a plan may run, or says why it may not (at most [`MAX_VIOLATIONS`] reasons).
pub fn check(plan: &Plan) -> Result<Proof, Vec<Violation>> {
    let mut report = Report::default();
    structure::plan(plan, &mut report);
    let mut proof = Proof { entries: plan.entries.len(), ..Proof::default() };
    // What follows reads the plan by its numbers and ranges, so these have to be sound.
    if report.sound() {
        structure::capacity(plan, &mut report);
        for (number, entry) in plan.entries.iter().enumerate() {
            report.entry = Some((number, entry.function.clone()));
            check_entry(plan, number, entry, &mut report, &mut proof);
            report.command = None;
        }
    }
    if report.violations.is_empty() { Ok(proof) } else { Err(report.violations) }
}

fn check_entry(plan: &Plan, number: usize, entry: &Entry, report: &mut Report, proof: &mut Proof) {
    structure::entry(plan, number, entry, report);
    production::check(entry, report);
    ports::check(plan, entry, report);
    budget::check(plan, number, entry, report);
    engines::check(plan, entry, report);
    flow::check(plan, entry, report, proof);
    proof.commands += entry.commands.len();
}

/// As [`check`], with the first violation as a diagnostic that also says how many others there are.
pub fn require(plan: &Plan, culprit: Culprit) -> djinn_diag::Result<Proof> {
    check(plan).map_err(|violations| match violations.split_first() {
        Some((first, rest)) => {
            let mut diagnostic = first.diagnostic(culprit);
            if !rest.is_empty() {
                let more = if violations.len() == MAX_VIOLATIONS { " or more" } else { "" };
                diagnostic.message.push_str(&format!(" ({}{more} other violations)", rest.len()));
            }
            diagnostic
        }
        None => djinn_diag::internal("plan.check", "the plan was refused without a reason"),
    })
}

/// Are the numbers, buffers and views of the plan sound, so that code may index by them?
pub(crate) fn indexable(plan: &Plan) -> Result<(), Violation> {
    let mut report = Report::default();
    structure::plan(plan, &mut report);
    report.violations.into_iter().find(|v| Report::UNSOUND.contains(&v.constraint)).map_or(Ok(()), Err)
}

/// Violations found so far, and where the check is.
#[derive(Default)]
struct Report {
    entry: Option<(usize, String)>,
    command: Option<usize>,
    violations: Vec<Violation>,
}

impl Report {
    /// Constraints without which a plan cannot be read by its numbers.
    const UNSOUND: &'static [Constraint] = &[
        Constraint::Version,
        Constraint::Ids,
        Constraint::Figures,
        Constraint::Events,
        Constraint::Buffers,
        Constraint::Views,
        Constraint::Limits,
    ];

    fn add(&mut self, constraint: Constraint, message: impl FnOnce() -> String) {
        if self.violations.len() < MAX_VIOLATIONS {
            let (entry, command) = (self.entry.clone(), self.command);
            let message = clipped(&message(), 500, 100);
            self.violations.push(Violation { constraint, entry, command, message });
        }
    }

    /// Adds a violation unless the claim holds.
    fn demand(&mut self, claim: bool, constraint: Constraint, message: impl FnOnce() -> String) {
        if !claim {
            self.add(constraint, message);
        }
    }

    fn full(&self) -> bool {
        self.violations.len() >= MAX_VIOLATIONS
    }

    fn sound(&self) -> bool {
        !self.violations.iter().any(|v| Report::UNSOUND.contains(&v.constraint))
    }
}

/// Bytes of an arena: what two accesses are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    arena: usize,
    start: u64,
    end: u64,
}

impl Range {
    /// The bytes of a view whose plan is sound.
    fn of(plan: &Plan, view: &View) -> Range {
        let buffer = &plan.buffers[view.buffer.index()];
        let start = buffer.offset + view.offset;
        Range { arena: buffer.arena.index(), start, end: start + view.bytes }
    }

    fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    fn overlaps(&self, other: &Range) -> bool {
        self.arena == other.arena && self.start.max(other.start) < self.end.min(other.end)
    }

    /// The bytes of both; empty if there are none.
    fn intersection(&self, other: &Range) -> Range {
        let start = self.start.max(other.start);
        let end = if self.arena == other.arena { self.end.min(other.end).max(start) } else { start };
        Range { arena: self.arena, start, end }
    }
}

/// Two of the ranges that overlap, if any do.
fn overlapping(ranges: impl IntoIterator<Item = Range>) -> Option<(Range, Range)> {
    let mut sorted: Vec<Range> = ranges.into_iter().filter(|r| !r.is_empty()).collect();
    sorted.sort_unstable();
    sorted.windows(2).find(|w| w[0].overlaps(&w[1])).map(|w| (w[0], w[1]))
}

/// Calls `visit` for every view of an entry, with what it is for.
fn each_view<'e>(entry: &'e Entry, mut visit: impl FnMut(&'e View, &dyn Fn() -> String)) {
    for (kind, ports) in [("input", &entry.inputs), ("output", &entry.outputs)] {
        for port in ports {
            if let Some(view) = &port.view {
                visit(view, &|| format!("{kind} '{}'", port.name));
            }
        }
    }
    for state in &entry.states {
        visit(&state.view, &|| format!("the state of argument {}", state.argument));
    }
    for update in &entry.updates {
        visit(&update.view, &|| format!("the update of argument {}", update.argument));
    }
    let mut operand = |operand: &'e Operand, what: &dyn Fn() -> String| {
        visit(&operand.view, &|| format!("{} as {}", operand.value, what()));
    };
    for constant in &entry.constants {
        operand(constant, &|| "a constant".into());
    }
    for (k, kernel) in entry.kernels.iter().enumerate() {
        kernel
            .reads
            .iter()
            .for_each(|o| operand(o, &|| format!("an operand of kernel {k} '{}'", kernel.name)));
        kernel
            .writes
            .iter()
            .for_each(|o| operand(o, &|| format!("a result of kernel {k} '{}'", kernel.name)));
    }
    for alias in &entry.aliases {
        operand(&alias.value, &|| "an alias".into());
        alias.of.iter().for_each(|o| operand(o, &|| format!("a part of {}", alias.value.value)));
    }
    for (k, kernel) in entry.kernels.iter().enumerate() {
        if let Some(view) = &kernel.workspace {
            visit(view, &|| format!("the workspace of kernel {k} '{}'", kernel.name));
        }
    }
    for (c, command) in entry.commands.iter().enumerate() {
        if let Action::Copy { from, to, .. } = &command.action {
            for place in [from, to] {
                if let Place::Buffer(view) = place {
                    visit(view, &|| format!("command {c}, a copy"));
                }
            }
        }
    }
}

/// A view in words, with its buffer's name.
fn describe(plan: &Plan, view: &View) -> String {
    let name = plan.buffers.get(view.buffer.index()).map_or("", |b| &b.name);
    let end = view.offset.saturating_add(view.bytes);
    format!("bytes {}..{end} of buffer {} '{}'", view.offset, view.buffer.0, clipped(name, 40, 20))
}
