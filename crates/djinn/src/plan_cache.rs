//! Plans by what they are the plans of: looked up in microseconds, in memory and in a folder that processes share.

use crate::plan::{PlanRequest, Planned};
use djinn_cache::{DiskCache, MemoryCache};
use djinn_diag::{Diagnostic, Result};
use djinn_ir::Module;
use djinn_plan::Plan;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

/// Plans kept in memory, at most.
const MAX_PLANS: usize = 1024;
/// Bytes of plans kept in memory, at most.
const MAX_MEMORY_BYTES: u64 = 256 << 20;
/// Bytes of plans kept on disk, at most.
const MAX_DISK_BYTES: u64 = 1 << 30;
/// What the blobs on disk are: plans in their binary form.
const NAMESPACE: &str = "plan/3";

/// What a plan depends on: program, devices, sizes, options and the build of Djinn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanKey([u8; 32]);

/// A request for plans of which everything but the program is known: what repeated look-ups share.
#[derive(Debug, Clone)]
pub struct RequestKey([u8; 32]);

impl RequestKey {
    /// The key of a request.
    pub fn new(request: &PlanRequest) -> RequestKey {
        let mut hasher = Hashing(blake3::Hasher::new());
        // Every field that a request has or will have is in its `Debug` form; none is a hash map or an address.
        let _ = write!(hasher, "{}\n{}\n{request:?}", env!("CARGO_PKG_VERSION"), env!("DJINN_BUILD"));
        RequestKey(*hasher.0.finalize().as_bytes())
    }

    /// The key of the plan of a module, as it is before any pass has run.
    pub fn plan_of(&self, module: &Module) -> PlanKey {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(crate::program_hash(module).as_bytes());
        // Passes compute with the values of weights where they are there, not only known by their hash.
        let there: Vec<u8> = module.weights.values().map(|w| u8::from(w.data.is_some())).collect();
        hasher.update(&there);
        PlanKey(*hasher.finalize().as_bytes())
    }
}

/// Text that goes into a hash.
struct Hashing(blake3::Hasher);

impl Write for Hashing {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

/// Where a plan came from.
#[derive(Debug)]
pub enum PlanSource {
    /// It was in memory.
    Memory,
    /// It was on disk, and the checker accepted it again.
    Disk,
    /// It was made now.
    Made {
        /// What was done for it.
        planned: Box<Planned>,
        /// The program that it is the plan of.
        program: Box<Module>,
    },
}

/// Plans in memory and, if a folder was given, on disk. Threads and processes may share it.
///
/// A plan is found only for the very program, request and build that it was made for. What is read from disk is
/// verified by its checksum and by the checker of plans; anything else is a miss.
pub struct PlanCache {
    memory: MemoryCache<PlanKey, Plan>,
    disk: Option<DiskCache>,
}

impl Default for PlanCache {
    fn default() -> Self {
        PlanCache { memory: MemoryCache::new(MAX_PLANS, MAX_MEMORY_BYTES), disk: None }
    }
}

impl PlanCache {
    /// A cache that also keeps plans in a folder, at most 1 GiB. If the folder cannot be used, plans are kept in memory
    /// alone, and [`PlanCache::take_warnings`] says why.
    pub fn with_folder(folder: &Path) -> PlanCache {
        PlanCache { disk: Some(DiskCache::open(folder, MAX_DISK_BYTES)), ..PlanCache::default() }
    }

    /// The plan of a key, if it is in memory.
    pub fn in_memory(&self, key: &PlanKey) -> Option<Arc<Plan>> {
        self.memory.get(key)
    }

    /// The plan of a key, if there is one, and whether it came from disk.
    pub fn get(&self, key: &PlanKey) -> Option<(Arc<Plan>, PlanSource)> {
        if let Some(plan) = self.in_memory(key) {
            return Some((plan, PlanSource::Memory));
        }
        let bytes = self.disk.as_ref()?.get(NAMESPACE, &key.0)?;
        let plan = djinn_plan::from_binary(&bytes).ok().filter(|p| djinn_plan::check(p).is_ok())?;
        let plan = Arc::new(plan);
        self.memory.insert(*key, plan.clone(), bytes.len() as u64);
        Some((plan, PlanSource::Disk))
    }

    /// Keeps a plan.
    ///
    /// # Errors
    /// If the plan has no binary form.
    pub fn put(&self, key: PlanKey, plan: &Arc<Plan>) -> Result<()> {
        let bytes = djinn_plan::to_binary(plan)?;
        self.memory.insert(key, plan.clone(), bytes.len() as u64);
        if let Some(disk) = &self.disk {
            disk.put(NAMESPACE, &key.0, &bytes);
        }
        Ok(())
    }

    /// The plan of a module as it is before any pass has run: the one that is kept, or a new one, which is then kept.
    ///
    /// A plan names operations of the program that the passes make of the module. To run it, keep that program beside
    /// it, as a bundle does, or run the passes again: they make the same program every time.
    ///
    /// # Errors
    /// Those of [`crate::plan`].
    pub fn plan(&self, module: &Module, request: &PlanRequest) -> Result<(Arc<Plan>, PlanSource)> {
        let key = RequestKey::new(request).plan_of(module);
        if let Some(found) = self.get(&key) {
            return Ok(found);
        }
        let mut program = module.clone();
        let planned = crate::plan(&mut program, request, None)?;
        let plan = Arc::new(planned.plan.clone());
        self.put(key, &plan)?;
        Ok((plan, PlanSource::Made { planned: Box::new(planned), program: Box::new(program) }))
    }

    /// What went wrong with the folder since the last call.
    pub fn take_warnings(&self) -> Vec<Diagnostic> {
        self.disk.as_ref().map(DiskCache::take_warnings).unwrap_or_default()
    }
}
