//! Events between streams, and how a failing stream stops the others.

use djinn_diag::Diagnostic;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Locks a mutex whose data is valid at any time, also after a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Event {
    recorded: Mutex<bool>,
    changed: Condvar,
}

/// The events of a run, and the first command that failed.
///
/// A failure stops the commands that come later in the order of issue; earlier ones run to their end, so that the failure
/// reported is the same in every run. They need none of the stopped ones, since waits look back in that order.
pub(crate) struct Board {
    events: Vec<Event>,
    /// Number of the first failing command known.
    limit: AtomicUsize,
    failure: Mutex<Option<(usize, Box<Diagnostic>)>>,
}

impl Board {
    /// No event is recorded.
    pub(crate) fn new(events: usize) -> Board {
        let events = std::iter::repeat_with(Event::default).take(events).collect();
        Board { events, limit: AtomicUsize::new(usize::MAX), failure: Mutex::new(None) }
    }

    /// May this command still run?
    pub(crate) fn may_run(&self, command: usize) -> bool {
        command < self.limit.load(SeqCst)
    }

    /// Marks an event as recorded.
    pub(crate) fn record(&self, event: usize) {
        if let Some(event) = self.events.get(event) {
            *lock(&event.recorded) = true;
            event.changed.notify_all();
        }
    }

    /// Waits for an event; gives `false` if the waiting command may not run any more.
    pub(crate) fn wait(&self, event: usize, command: usize) -> bool {
        let Some(event) = self.events.get(event) else { return false };
        let mut recorded = lock(&event.recorded);
        while !*recorded {
            if !self.may_run(command) {
                return false;
            }
            recorded = event.changed.wait(recorded).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Stops every command from this one on.
    pub(crate) fn fail(&self, command: usize, problem: Box<Diagnostic>) {
        let mut failure = lock(&self.failure);
        if failure.as_ref().is_none_or(|(first, _)| command < *first) {
            *failure = Some((command, problem));
        }
        drop(failure);
        self.limit.fetch_min(command, SeqCst);
        for event in &self.events {
            // A waiter holds the lock between its look at the limit and its sleep.
            drop(lock(&event.recorded));
            event.changed.notify_all();
        }
    }

    /// The first failure.
    pub(crate) fn into_failure(self) -> Option<Box<Diagnostic>> {
        self.failure.into_inner().unwrap_or_else(PoisonError::into_inner).map(|(_, problem)| problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use djinn_diag::input;

    #[test]
    fn waits_end_by_a_record_or_by_an_earlier_failure() {
        let board = Board::new(2);
        std::thread::scope(|s| {
            let recorded = s.spawn(|| board.wait(0, 5));
            let failed = s.spawn(|| board.wait(1, 9));
            board.fail(7, input("b", "later"));
            board.fail(6, input("a", "earlier"));
            board.fail(8, input("c", "last"));
            board.record(0);
            assert!(recorded.join().expect("no panic"));
            assert!(!failed.join().expect("no panic"));
        });
        assert!(board.may_run(5) && !board.may_run(6));
        assert_eq!(board.into_failure().expect("failed").code, "a");
    }
}
