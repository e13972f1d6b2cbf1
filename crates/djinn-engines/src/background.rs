//! Threads that build engines while something else serves.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use djinn_diag::{Diagnostic, Result, input, internal};

use crate::build::{BuildContext, BuildError};
use crate::cache::{Attempt, Engine, EngineCache};
use crate::key::KeyDigest;

/// A builder that may be asked again if another process that was building dies.
type Builder = dyn Fn(&BuildContext) -> std::result::Result<Vec<u8>, BuildError> + Send + Sync;

/// How far the engine of a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It was not submitted, was cancelled, or was handed out already.
    Unknown,
    /// It waits for a thread.
    Queued,
    /// A thread builds it.
    Building,
    /// Somebody else builds it.
    Elsewhere,
    /// It is there.
    Ready(Engine),
    /// It could not be built.
    Failed(Box<Diagnostic>),
}

/// Threads that build engines while something else serves.
///
/// Dropping it forgets what is queued, asks running builders to give up and waits for them; it never waits for another
/// process.
pub struct Background {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    cache: Arc<EngineCache>,
    inner: Mutex<Inner>,
    /// Signalled when something is queued, or all is to end.
    work: Condvar,
    /// Signalled when a thread is done with a key.
    done: Condvar,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<KeyDigest>,
    jobs: BTreeMap<KeyDigest, Job>,
    closing: bool,
}

struct Job {
    builder: Arc<Builder>,
    context: BuildContext,
    status: Status,
}

impl Background {
    /// So many threads, at least one, that build for a cache.
    ///
    /// # Errors
    /// If the system refuses to start a thread.
    pub fn new(cache: Arc<EngineCache>, threads: usize) -> Result<Background> {
        let shared = Shared { cache, inner: Mutex::default(), work: Condvar::new(), done: Condvar::new() };
        let mut background = Background { shared: Arc::new(shared), threads: Vec::new() };
        for number in 0..threads.max(1) {
            let shared = Arc::clone(&background.shared);
            let thread = std::thread::Builder::new().name(format!("engines-{number}"));
            let handle = thread.spawn(move || shared.work()).map_err(|e| {
                input("engines.thread", format!("cannot start a thread that builds engines: {e}"))
                    .help("allow more threads, or turn engines off")
            })?;
            background.threads.push(handle);
        }
        Ok(background)
    }

    /// Queues the engine of a key. `false`: it is queued, being built or failed already.
    pub fn submit(
        &self,
        key: impl Into<KeyDigest>,
        builder: impl Fn(&BuildContext) -> std::result::Result<Vec<u8>, BuildError> + Send + Sync + 'static,
    ) -> bool {
        let key = key.into();
        let mut inner = self.shared.lock();
        if inner.jobs.contains_key(&key) {
            return false;
        }
        let builder = Arc::new(builder);
        inner.jobs.insert(key, Job { builder, context: BuildContext::default(), status: Status::Queued });
        inner.queue.push_back(key);
        drop(inner);
        self.shared.work.notify_one();
        true
    }

    /// How far the engine of a key is. An engine is handed out once. Never waits; an engine that another process builds
    /// is taken, or built here if that process died, after a poll that finds the other one gone.
    pub fn poll(&self, key: impl Into<KeyDigest>) -> Status {
        let key = key.into();
        let status = self.shared.take(key);
        if status != Status::Elsewhere || self.shared.cache.is_busy(key) {
            return status;
        }
        let mut inner = self.shared.lock();
        match inner.jobs.get_mut(&key) {
            Some(job) if job.status == Status::Elsewhere => job.status = Status::Queued,
            _ => return status,
        }
        inner.queue.push_back(key);
        drop(inner);
        self.shared.work.notify_one();
        Status::Queued
    }

    /// Waits until the engine of a key is there or failed, also if another process builds it.
    pub fn wait(&self, key: impl Into<KeyDigest>) -> Status {
        let key = key.into();
        let mut inner = self.shared.lock();
        while inner.jobs.get(&key).is_some_and(|j| matches!(j.status, Status::Queued | Status::Building)) {
            inner = self.shared.done.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        let elsewhere = inner.jobs.get(&key).filter(|job| job.status == Status::Elsewhere);
        let Some((builder, context)) = elsewhere.map(|j| (Arc::clone(&j.builder), j.context.clone())) else {
            drop(inner);
            return self.shared.take(key);
        };
        drop(inner);
        let result = self.shared.cache.get_or_build_with(key, &context, |c| builder(c));
        self.shared.finish(key, status(result));
        self.shared.take(key)
    }

    /// Forgets a key; a running builder is asked to give up.
    pub fn cancel(&self, key: impl Into<KeyDigest>) {
        let key = key.into();
        let mut inner = self.shared.lock();
        inner.queue.retain(|queued| *queued != key);
        if let Some(job) = inner.jobs.remove(&key) {
            job.context.cancel();
        }
        drop(inner);
        self.shared.done.notify_all();
    }
}

impl Background {
    /// Forgets what is queued and asks running builders to give up, without waiting for them. What one gives all the same
    /// is kept, if the process lives so long.
    pub fn abandon(mut self) {
        self.shared.close();
        self.threads.clear();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.shared.close();
        for thread in self.threads.drain(..) {
            // Builders' panics were caught.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the threads end.
    fn close(&self) {
        let mut inner = self.lock();
        inner.closing = true;
        inner.queue.clear();
        inner.jobs.values().for_each(|job| job.context.cancel());
        drop(inner);
        self.work.notify_all();
    }

    /// What each thread does until the end.
    fn work(&self) {
        while let Some((key, builder, context)) = self.next() {
            let build = || self.cache.try_get_or_build(key, &context, |c| builder(c));
            let status = match catch_unwind(AssertUnwindSafe(build)) {
                Ok(Attempt::Done(result)) => status(result),
                Ok(Attempt::Busy) => Status::Elsewhere,
                Err(panic) => Status::Failed(panicked(key, panic.as_ref())),
            };
            if !context.is_cancelled() {
                self.finish(key, status);
            }
        }
    }

    /// Waits for a key to build; `None` at the end.
    fn next(&self) -> Option<(KeyDigest, Arc<Builder>, BuildContext)> {
        let mut inner = self.lock();
        loop {
            if inner.closing {
                return None;
            }
            let Some(key) = inner.queue.pop_front() else {
                inner = self.work.wait(inner).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if let Some(job) = inner.jobs.get_mut(&key) {
                job.status = Status::Building;
                return Some((key, Arc::clone(&job.builder), job.context.clone()));
            }
        }
    }

    fn finish(&self, key: KeyDigest, status: Status) {
        if let Some(job) = self.lock().jobs.get_mut(&key) {
            job.status = status;
        }
        self.done.notify_all();
    }

    /// The status of a key; an engine is thereby handed out.
    fn take(&self, key: KeyDigest) -> Status {
        let mut inner = self.lock();
        let Some(job) = inner.jobs.get(&key) else { return Status::Unknown };
        let status = job.status.clone();
        if matches!(status, Status::Ready(_)) {
            inner.jobs.remove(&key);
        }
        status
    }
}

fn status(result: Result<Engine>) -> Status {
    match result {
        Ok(engine) => Status::Ready(engine),
        Err(diagnostic) => Status::Failed(diagnostic),
    }
}

fn panicked(key: KeyDigest, panic: &(dyn Any + Send)) -> Box<Diagnostic> {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    internal("engines.panic", format!("the builder of engine {} panicked: {text}", key.short())).shortened()
}
