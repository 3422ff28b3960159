//! The directories that a walk still has to read.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::InjectError;
use super::filter::Choice;
use super::rules::Rules;

/// A directory that is to be read.
pub(super) struct Job {
    pub(super) path: Vec<u8>,
    pub(super) rules: Option<Arc<Rules>>,
    /// What the filter says of it: never that it is left out.
    pub(super) choice: Choice,
}

/// Directories that are to be read.
pub(super) struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

struct QueueState {
    jobs: Vec<Job>,
    /// Number of workers that may still add jobs.
    busy: usize,
    failure: Option<InjectError>,
}

impl Queue {
    pub(super) fn new(first: Job) -> Self {
        Self {
            state: Mutex::new(QueueState {
                jobs: vec![first],
                busy: 0,
                failure: None,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next directory, or `None` when all are done.
    pub(super) fn take(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.failure.is_some() {
                return None;
            }
            if let Some(job) = state.jobs.pop() {
                state.busy += 1;
                return Some(job);
            }
            if state.busy == 0 {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the work on a directory that [`take`](Self::take) gave.
    pub(super) fn done(&self, found: &mut Vec<Job>, result: Result<(), InjectError>) {
        let mut state = self.lock();
        state.jobs.append(found);
        state.busy -= 1;
        if let Err(failure) = result {
            state.failure.get_or_insert(failure);
        }
        self.changed.notify_all();
    }

    pub(super) fn into_failure(self) -> Option<InjectError> {
        self.state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .failure
    }
}
