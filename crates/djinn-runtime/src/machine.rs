//! What a plan runs on: memory, and what executes the commands of an entry.

use crate::code::EntryCode;
use crate::hazard::Access;
use crate::launch::WorkTimes;
use crate::memory::Store;
use crate::options::RunOptions;
use crate::output::Span;
use djinn_diag::Diagnostic;
use djinn_interp::Env;
use djinn_ir::{Module, TensorData};
use djinn_plan::Plan;

/// Memory with processors.
pub(crate) trait Machine: Send {
    /// The arenas.
    fn memory(&self) -> &dyn Store;

    /// The arenas, where constants can be put.
    fn memory_mut(&mut self) -> &mut dyn Store;

    /// Is an entry for this machine? Of two for the same sizes, one may be better here.
    fn takes(&self, entry: usize) -> bool;

    /// Runs the commands of an entry to their end, or to a failure.
    fn execute(&mut self, job: &Job, env: Env) -> Ran;
}

/// For every entry: is there another one for the same function and sizes whose rank is higher?
pub(crate) fn shadowed(plan: &Plan, rank: impl Fn(usize) -> u8) -> Vec<bool> {
    let ranks: Vec<u8> = (0..plan.entries.len()).map(rank).collect();
    let ranked = || plan.entries.iter().zip(&ranks);
    let is_beaten = |(one, rank)| ranked().any(|(other, better)| better > rank && other.is_for_same(one));
    ranked().map(is_beaten).collect()
}

/// A run of an entry.
pub(crate) struct Job<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) program: &'a Module,
    /// Number of the entry.
    pub(crate) number: usize,
    pub(crate) code: &'a EntryCode,
    /// By input; `None` for one that the run before has left in its place.
    pub(crate) inputs: &'a [Option<TensorData>],
    pub(crate) options: &'a RunOptions,
}

/// What a run did.
#[derive(Default)]
pub(crate) struct Ran {
    /// By output: what commands have copied to the caller.
    pub(crate) outputs: Vec<Option<TensorData>>,
    /// Sizes, those included that commands have found out.
    pub(crate) env: Env,
    /// In the order of the commands.
    pub(crate) trace: Vec<Span>,
    /// By command; `None` for those that did not run. Empty if accesses are not noted.
    pub(crate) accesses: Vec<Option<Vec<Access>>>,
    pub(crate) elapsed_ns: u64,
    pub(crate) work: WorkTimes,
    /// Was it launched as one graph?
    pub(crate) graph: bool,
    pub(crate) failure: Option<Box<Diagnostic>>,
}
