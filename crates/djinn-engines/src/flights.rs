//! What threads of one process are building: the first one that asks for a key leads, the others wait and share.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use djinn_diag::{Result, internal};

use crate::cache::Engine;
use crate::key::KeyDigest;

/// The builds that are under way.
#[derive(Default)]
pub(crate) struct Flights {
    up: Mutex<BTreeMap<KeyDigest, Arc<Flight>>>,
}

struct Flight {
    leader: ThreadId,
    outcome: Mutex<Outcome>,
    ended: Condvar,
}

enum Outcome {
    Open,
    Landed(Result<Engine>),
    /// The leader gave up without a result, or panicked.
    Abandoned,
}

/// How a thread takes part.
pub(crate) enum Boarding<'a> {
    /// It leads.
    Leading(Lead<'a>),
    /// It waited, and this came of it.
    Landed(Result<Engine>),
}

/// The duty to end a flight; dropping it abandons it.
pub(crate) struct Lead<'a> {
    flights: &'a Flights,
    key: KeyDigest,
    flight: Arc<Flight>,
}

impl Flights {
    /// Takes the lead, or waits for the one who has it.
    ///
    /// # Errors
    /// If this thread has it already: a builder asked for what it is to build.
    pub(crate) fn board(&self, key: KeyDigest) -> Result<Boarding<'_>> {
        loop {
            let flight = match self.enter(key) {
                Ok(lead) => return Ok(Boarding::Leading(lead)),
                Err(flight) => flight,
            };
            if flight.leader == thread::current().id() {
                let message = format!("the builder of engine {} asks for that engine", key.short());
                return Err(internal("engines.cycle", message));
            }
            if let Some(result) = flight.wait() {
                return Ok(Boarding::Landed(result));
            }
        }
    }

    /// Takes the lead, if nobody has it.
    pub(crate) fn try_board(&self, key: KeyDigest) -> Option<Lead<'_>> {
        self.enter(key).ok()
    }

    pub(crate) fn is_up(&self, key: KeyDigest) -> bool {
        lock(&self.up).contains_key(&key)
    }

    fn enter(&self, key: KeyDigest) -> std::result::Result<Lead<'_>, Arc<Flight>> {
        let mut up = lock(&self.up);
        if let Some(flight) = up.get(&key) {
            return Err(Arc::clone(flight));
        }
        let flight = Arc::new(Flight {
            leader: thread::current().id(),
            outcome: Mutex::new(Outcome::Open),
            ended: Condvar::new(),
        });
        up.insert(key, Arc::clone(&flight));
        Ok(Lead { flights: self, key, flight })
    }
}

impl Lead<'_> {
    /// Ends the flight: those who wait get the result.
    pub(crate) fn land(self, result: Result<Engine>) {
        *lock(&self.flight.outcome) = Outcome::Landed(result);
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        lock(&self.flights.up).remove(&self.key);
        let mut outcome = lock(&self.flight.outcome);
        if matches!(*outcome, Outcome::Open) {
            *outcome = Outcome::Abandoned;
        }
        drop(outcome);
        self.flight.ended.notify_all();
    }
}

impl Flight {
    /// Waits for the end; `None` if it was abandoned.
    fn wait(&self) -> Option<Result<Engine>> {
        let mut outcome = lock(&self.outcome);
        loop {
            match &*outcome {
                Outcome::Open => {
                    outcome = self.ended.wait(outcome).unwrap_or_else(PoisonError::into_inner);
                }
                Outcome::Landed(result) => return Some(result.clone()),
                Outcome::Abandoned => return None,
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
