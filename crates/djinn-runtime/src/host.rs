//! The host as a machine: a thread for every stream, an allocation for every arena.

use crate::execute::{Run, Setting};
use crate::links::Links;
use crate::machine::{Job, Machine, Ran, shadowed};
use crate::memory::{Memory, Store};
use crate::options::RunOptions;
use djinn_diag::Result;
use djinn_interp::Env;
use djinn_plan::{Granularity, Plan};

/// The host in the place of every device of a plan.
pub(crate) struct HostMachine {
    memory: Memory,
    links: Links,
    /// By entry: is another one better here?
    shadowed: Vec<bool>,
}

/// The entries that the host does not run: it has no engines, and kernels by themselves need less memory.
pub(crate) fn not_for_host(plan: &Plan) -> Vec<bool> {
    shadowed(plan, |entry| u8::from(plan.entries[entry].granularity == Granularity::Kernels))
}

impl HostMachine {
    /// Allocates the arenas.
    pub(crate) fn new(plan: &Plan, options: &RunOptions) -> Result<HostMachine> {
        let memory = Memory::new(plan, options.share_constants, options.poison)?;
        Ok(HostMachine { memory, links: Links::new(plan, options.links), shadowed: not_for_host(plan) })
    }
}

impl Machine for HostMachine {
    fn memory(&self) -> &dyn Store {
        &self.memory
    }

    fn memory_mut(&mut self) -> &mut dyn Store {
        &mut self.memory
    }

    fn takes(&self, entry: usize) -> bool {
        self.shadowed.get(entry) != Some(&true)
    }

    fn execute(&mut self, job: &Job, env: Env) -> Ran {
        let setting = Setting {
            program: job.program,
            code: job.code,
            ranges: &job.plan.entries[job.number].symbols,
            memory: &self.memory,
            links: &self.links,
            inputs: job.inputs,
            poison: job.options.poison,
            record: job.options.detect_races,
        };
        Run::new(setting, env).execute()
    }
}
