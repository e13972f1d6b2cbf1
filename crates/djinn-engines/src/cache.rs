//! Engines by key in a folder, built once by concurrent askers.
//!
//! The folder holds `secret` (what authenticates), `engines` (one file for each key), `locks` (of the keys that are being
//! built) and `profile` (records of executions).

use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use djinn_cache::{DiskCache, DiskOptions, Folder, FolderLock, Lookup, Refusal};
use djinn_diag::{Diagnostic, Remark, RemarkKind, Result, input, units};

use crate::build::{BuildContext, BuildError};
use crate::flights::{Boarding, Flights};
use crate::key::KeyDigest;
use crate::policy::{Decision, Policy};
use crate::profile::Profile;
use crate::record::{Predicted, Record, Timing};
use crate::secret;
use crate::statistics::{Statistics, words};

/// What the files are, and in which form.
const NAMESPACE: &str = "engine/1";
/// Remarks and warnings kept until they are taken; later ones are dropped.
const MAX_REMARKS: usize = 256;
/// Threads that read engines at the same time, at most: more than memory can keep busy.
const MAX_READERS: usize = 8;

/// Bounds of an [`EngineCache`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheOptions {
    /// Bytes of engines kept on disk, at most.
    pub max_bytes: u64,
    /// For how long a refused region is not tried again. Another version of Djinn tries it at once.
    pub remember_refusals: Duration,
}

impl Default for CacheOptions {
    /// 8 GiB, and 7 days.
    fn default() -> CacheOptions {
        CacheOptions { max_bytes: 8 << 30, remember_refusals: Duration::from_secs(7 * 24 * 3600) }
    }
}

/// The bytes of an engine, in memory that nobody else can change. Clones share them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    bytes: Arc<Vec<u8>>,
    built: bool,
}

/// Engines by key in a folder, shared by threads and processes.
pub struct EngineCache {
    disk: Option<Disk>,
    profile: Profile,
    flights: Flights,
    state: Mutex<State>,
}

struct Disk {
    engines: DiskCache,
    locks: Folder,
}

#[derive(Default)]
struct State {
    statistics: Statistics,
    remarks: Vec<Remark>,
    warnings: Vec<Diagnostic>,
}

/// What came of asking without waiting for other builders.
pub(crate) enum Attempt {
    Done(Result<Engine>),
    /// Somebody else is building it.
    Busy,
}

impl Engine {
    fn new(bytes: Vec<u8>, built: bool) -> Engine {
        Engine { bytes: Arc::new(bytes), built }
    }

    /// Whether it was built now, not found.
    pub fn was_built(&self) -> bool {
        self.built
    }
}

impl Deref for Engine {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl EngineCache {
    /// Opens the cache in a folder, which is made for its user alone if it is not there.
    ///
    /// # Errors
    /// If the folder cannot be made or is not to be trusted: it is a symbolic link, belongs to another user, others may
    /// write to it, or its secret is not secret. The caller may go on with [`EngineCache::without_folder`].
    pub fn open(dir: &Path, options: CacheOptions) -> Result<EngineCache> {
        let parts = || {
            let folder = Folder::open_private(dir)?;
            let secret = secret::load(&folder)?;
            sweep(&folder, ".tmp");
            let [engines, locks, profile] = ["engines", "locks", "profile"].map(|name| folder.child(name));
            Ok((secret, engines?, locks?, profile?))
        };
        let (secret, engines, locks, profile) = parts().map_err(|e| refusal(dir, &e))?;
        sweep(&locks, ".lock");
        let bounds = DiskOptions { max_bytes: options.max_bytes, secret: Some(secret), sync: true };
        let disk = Disk { engines: DiskCache::in_folder(&engines, bounds), locks };
        let profile = Profile::open(Some((profile, secret)), options.remember_refusals);
        Ok(EngineCache::new(Some(disk), profile))
    }

    /// A cache that keeps nothing: engines are built once for those who ask at the same time, and counts last as long as
    /// it does.
    pub fn without_folder(options: CacheOptions) -> EngineCache {
        EngineCache::new(None, Profile::open(None, options.remember_refusals))
    }

    fn new(disk: Option<Disk>, profile: Profile) -> EngineCache {
        EngineCache { disk, profile, flights: Flights::default(), state: Mutex::default() }
    }

    /// The engine of a key, if it is there and authentic.
    pub fn get(&self, key: impl Into<KeyDigest>) -> Option<Engine> {
        let found = self.look_up(key.into());
        let statistics = &mut self.lock().statistics;
        *(if found.is_some() { &mut statistics.hits } else { &mut statistics.misses }) += 1;
        found
    }

    /// The engines of many keys, read and authenticated by several threads.
    pub fn get_all(&self, keys: &[KeyDigest]) -> Vec<Option<Engine>> {
        let threads = thread::available_parallelism().map_or(1, |n| n.get()).min(MAX_READERS);
        let share = keys.len().div_ceil(threads).max(1);
        let get = |keys: &[KeyDigest]| keys.iter().map(|key| self.get(*key)).collect::<Vec<_>>();
        thread::scope(|scope| {
            let mut shares = keys.chunks(share);
            let mine = shares.next().unwrap_or_default();
            let read = |keys| thread::Builder::new().spawn_scoped(scope, move || get(keys)).ok();
            let others: Vec<_> = shares.map(|keys| (keys, read(keys))).collect();
            let mut engines = get(mine);
            for (keys, reader) in others {
                // Where no thread could be started, this one reads.
                let read = reader.and_then(|reader| reader.join().ok());
                engines.extend(read.unwrap_or_else(|| get(keys)));
            }
            engines
        })
    }

    /// Whether there is something for a key. It may yet be refused.
    pub fn contains(&self, key: impl Into<KeyDigest>) -> bool {
        let key = key.into();
        self.disk.as_ref().is_some_and(|disk| disk.engines.contains(NAMESPACE, &key.0))
    }

    /// Removes the engine of a key, such as one that a library does not take.
    pub fn remove(&self, key: impl Into<KeyDigest>) {
        if let Some(disk) = &self.disk {
            disk.engines.remove(NAMESPACE, &key.into().0);
        }
    }

    /// The engine of a key; if it is not there, the builder makes it, while all others who ask for it wait.
    ///
    /// Threads of this process share what comes of it, be it an engine or an error. Another process that waited takes the
    /// engine, or the refusal; if the builder only failed, or was killed, it tries itself. A builder may ask for other
    /// engines, but not in a circle.
    ///
    /// # Errors
    /// Those of the builder; and a region that it refused not long ago is refused again without asking it.
    pub fn get_or_build(
        &self,
        key: impl Into<KeyDigest>,
        builder: impl FnOnce(&BuildContext) -> std::result::Result<Vec<u8>, BuildError>,
    ) -> Result<Engine> {
        self.get_or_build_with(key, &BuildContext::default(), builder)
    }

    /// [`EngineCache::get_or_build`] with a context, by which another thread may ask the builder to give up.
    ///
    /// # Errors
    /// Those of [`EngineCache::get_or_build`].
    pub fn get_or_build_with(
        &self,
        key: impl Into<KeyDigest>,
        context: &BuildContext,
        builder: impl FnOnce(&BuildContext) -> std::result::Result<Vec<u8>, BuildError>,
    ) -> Result<Engine> {
        let key = key.into();
        if let Some(engine) = self.get(key) {
            return Ok(engine);
        }
        match self.flights.board(key)? {
            Boarding::Landed(result) => {
                self.lock().statistics.shared += 1;
                result
            }
            Boarding::Leading(flight) => {
                let lock = self.disk.as_ref().map(|disk| disk.locks.lock(&lock_name(key)));
                let _lock = self.usable(lock);
                let result = self.build(key, context, builder);
                flight.land(result.clone());
                result
            }
        }
    }

    /// [`EngineCache::get_or_build_with`], but gives up at once if somebody else is building it.
    pub(crate) fn try_get_or_build(
        &self,
        key: KeyDigest,
        context: &BuildContext,
        builder: impl FnOnce(&BuildContext) -> std::result::Result<Vec<u8>, BuildError>,
    ) -> Attempt {
        if let Some(engine) = self.get(key) {
            return Attempt::Done(Ok(engine));
        }
        let Some(flight) = self.flights.try_board(key) else { return Attempt::Busy };
        let lock = match self.disk.as_ref().map(|disk| disk.locks.try_lock(&lock_name(key))) {
            Some(Ok(None)) => return Attempt::Busy,
            Some(Ok(Some(lock))) => Some(Ok(lock)),
            Some(Err(e)) => Some(Err(e)),
            None => None,
        };
        let _lock = self.usable(lock);
        let result = self.build(key, context, builder);
        flight.land(result.clone());
        Attempt::Done(result)
    }

    /// Whether somebody, here or in another process, is building the engine of a key.
    pub(crate) fn is_busy(&self, key: KeyDigest) -> bool {
        let locked = |disk: &Disk| {
            let name = lock_name(key);
            disk.locks.contains(&name) && matches!(disk.locks.try_lock(&name), Ok(None))
        };
        self.flights.is_up(key) || self.disk.as_ref().is_some_and(locked)
    }

    /// Counts executions without the engine, which took so long altogether.
    pub fn ran_fallback(&self, key: impl Into<KeyDigest>, executions: u64, time: Duration) {
        self.profile.add(key.into(), |record| record.ran_fallback(executions, time));
    }

    /// Counts executions with the engine, which took so long altogether.
    pub fn ran_engine(&self, key: impl Into<KeyDigest>, executions: u64, time: Duration) {
        self.profile.add(key.into(), |record| record.engine.add(Timing::new(executions, time)));
    }

    /// Remembers what is expected of a region.
    pub fn predict(&self, key: impl Into<KeyDigest>, predicted: Predicted) {
        self.profile.add(key.into(), |record| record.predicted = Some(predicted));
    }

    /// What is known of the executions of a region.
    pub fn record(&self, key: impl Into<KeyDigest>) -> Record {
        self.profile.record(key.into())
    }

    /// What to do about an engine that is not there. Depends on the records alone.
    pub fn decide(&self, key: impl Into<KeyDigest>, policy: Policy) -> Decision {
        let record = self.record(key);
        let known = record.build.count > 0 || record.predicted.is_some();
        let others = if known { Timing::default() } else { self.profile.builds() };
        policy.decide(&record, others)
    }

    /// Writes the records now. They are also written now and then, after builds and at the end.
    pub fn flush(&self) {
        self.profile.flush();
    }

    /// What has happened so far.
    pub fn statistics(&self) -> Statistics {
        let mut statistics = self.lock().statistics;
        if let Some(disk) = &self.disk {
            statistics.evictions = disk.engines.counters().evicted;
            statistics.bytes = disk.engines.bytes();
        }
        statistics
    }

    /// What went wrong since the last call.
    pub fn take_warnings(&self) -> Vec<Diagnostic> {
        let mut warnings = std::mem::take(&mut self.lock().warnings);
        warnings.extend(self.disk.iter().flat_map(|disk| disk.engines.take_warnings()));
        warnings.extend(self.profile.take_warnings());
        warnings
    }

    /// What was done and found out since the last call.
    pub fn take_remarks(&self) -> Vec<Remark> {
        let mut remarks = std::mem::take(&mut self.lock().remarks);
        remarks.extend(self.disk.iter().flat_map(|disk| disk.engines.take_remarks()));
        remarks
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_up(&self, key: KeyDigest) -> Option<Engine> {
        match self.disk.as_ref()?.engines.lookup(NAMESPACE, &key.0) {
            Lookup::Found(bytes) => Some(Engine::new(bytes, false)),
            Lookup::Missing | Lookup::Unreadable => None,
            Lookup::Refused(why) => {
                self.rejected(key, why);
                None
            }
        }
    }

    fn rejected(&self, key: KeyDigest, why: Refusal) {
        self.lock().statistics.count(why);
        let message = format!("the stored engine was not used and is removed: {}", words(why));
        self.remark(RemarkKind::Missed, "rejected", key, message);
    }

    /// Builds an engine whose lock is held, unless its last holder built it or was refused.
    fn build(
        &self,
        key: KeyDigest,
        context: &BuildContext,
        builder: impl FnOnce(&BuildContext) -> std::result::Result<Vec<u8>, BuildError>,
    ) -> Result<Engine> {
        if let Some(engine) = self.contains(key).then(|| self.look_up(key)).flatten() {
            self.lock().statistics.hits += 1;
            return Ok(engine);
        }
        self.profile.refresh();
        if let Some(failure) = self.record(key).failure {
            self.lock().statistics.remembered += 1;
            return Err(failure.diagnostic());
        }
        let start = Instant::now();
        match builder(context) {
            Ok(bytes) => Ok(self.keep(key, bytes, start.elapsed())),
            Err(error) => {
                self.failed(key, &error, context);
                Err(error.into())
            }
        }
    }

    fn keep(&self, key: KeyDigest, bytes: Vec<u8>, time: Duration) -> Engine {
        let kept = self.disk.as_ref().is_none_or(|disk| disk.engines.put(NAMESPACE, &key.0, &bytes));
        self.profile.add(key, |record| record.built(time));
        self.profile.flush();
        let size = units::bytes(bytes.len() as u64);
        self.remark(RemarkKind::Applied, "built", key, format!("built an engine of {size}"));
        if !kept {
            let message = format!("the engine of {size} could not be kept and will be built again");
            self.remark(RemarkKind::Missed, "dropped", key, message);
        }
        let statistics = &mut self.lock().statistics;
        statistics.builds += 1;
        statistics.dropped += u64::from(!kept);
        Engine::new(bytes, true)
    }

    fn failed(&self, key: KeyDigest, error: &BuildError, context: &BuildContext) {
        self.lock().statistics.failures += 1;
        // A builder that was asked to give up says nothing about the region.
        if let (BuildError::Refused(diagnostic), false) = (error, context.is_cancelled()) {
            self.profile.refused(key, diagnostic);
            self.profile.flush();
        }
        let why = error.diagnostic();
        self.remark(RemarkKind::Missed, "failed", key, format!("no engine: {} [{}]", why.message, why.code));
    }

    /// A lock, or a warning if it could not be had: then the engine may be built more than once.
    fn usable<'a>(&self, lock: Option<std::io::Result<FolderLock<'a>>>) -> Option<FolderLock<'a>> {
        lock?
            .map_err(|e| {
                let mut state = self.lock();
                let message = format!("cannot lock what is being built, so it may be built twice: {e}");
                let warning = *input("engines.lock", message).help("delete the folder or name another one");
                if state.warnings.len() < MAX_REMARKS && !state.warnings.contains(&warning) {
                    state.warnings.push(warning);
                }
            })
            .ok()
    }

    fn remark(&self, kind: RemarkKind, rule: &str, key: KeyDigest, message: String) {
        let remarks = &mut self.lock().remarks;
        if remarks.len() < MAX_REMARKS {
            let place = format!("engine {}", key.short());
            remarks.push(Remark { kind, pass: "engines".into(), rule: rule.into(), place, message });
        }
    }
}

impl Drop for EngineCache {
    fn drop(&mut self) {
        self.profile.flush();
    }
}

fn lock_name(key: KeyDigest) -> String {
    format!("{key}.lock")
}

/// Removes what killed processes left.
fn sweep(folder: &Folder, ending: &str) {
    for entry in folder.entries().unwrap_or_default() {
        if entry.is_file && entry.name.ends_with(ending) {
            folder.sweep(&entry.name);
        }
    }
}

fn refusal(dir: &Path, e: &std::io::Error) -> Box<Diagnostic> {
    input("engines.folder", format!("cannot keep engines in '{}': {e}", dir.display()))
        .shortened()
        .help("engines are code: name a folder that only you may write to, or delete this one to start anew")
}
