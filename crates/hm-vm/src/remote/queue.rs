//! Results on their way to a shared cache, and the thread that brings them there.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hm_vm_oci::Digest;
use hm_vm_store::SnapshotHold;
use tokio::sync::Notify;

use super::cache::Shared;
use super::health::Failure;
use super::port::{Published, RemoteReport};
use super::publish::publish;

/// A result that waits. Its layers stay as they are.
#[derive(Debug)]
struct Waiting {
    result: Published,
    hold: SnapshotHold,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// The thread is at one.
    busy: bool,
    started: bool,
    /// Nobody gives anything any more.
    closed: bool,
    report: RemoteReport,
}

#[derive(Debug, Default)]
struct Line {
    state: Mutex<State>,
    more: Condvar,
    idle: Notify,
}

/// The results that wait. Dropped, it gives up those that were not begun.
#[derive(Debug)]
pub(super) struct Queue {
    line: Arc<Line>,
    limit: usize,
}

impl Queue {
    pub(super) fn new(shared: &Shared) -> Self {
        Self {
            line: Arc::default(),
            limit: shared.options.queue,
        }
    }

    /// Adds a result.
    pub(super) fn add(&self, shared: &Arc<Shared>, result: Published) {
        if shared.writing.is_off() {
            let mut state = self.line.state();
            let reason = "the shared cache is not given results any more";
            state.report.failed.push(failed(&result.key, reason));
            return;
        }
        let hold = match shared.store.hold_snapshot(&result.entry.snapshot) {
            Ok(Some(hold)) => hold,
            // It was removed already: nobody wants it.
            Ok(None) => return,
            Err(error) => {
                let text = failed(&result.key, &error.to_string());
                self.line.state().report.failed.push(text);
                return;
            }
        };
        let mut state = self.line.state();
        if state.waiting.len() >= self.limit {
            let text = failed(&result.key, "too many results wait");
            state.report.failed.push(text);
            drop(state);
            return;
        }
        state.waiting.push_back(Waiting { result, hold });
        if !state.started {
            let (line, shared) = (Arc::clone(&self.line), Arc::clone(shared));
            let started = std::thread::Builder::new()
                .name("hm-vm-share".into())
                .spawn(move || work(&line, &shared));
            match started {
                Ok(_) => state.started = true,
                Err(error) => tracing::warn!(%error, "no thread for the shared cache"),
            }
        }
        drop(state);
        self.line.more.notify_one();
    }

    /// Waits until nothing is left to do, no longer than `limit`.
    pub(super) async fn finish(&self, limit: Duration) -> RemoteReport {
        let done = async {
            loop {
                let idle = self.line.idle.notified();
                tokio::pin!(idle);
                // Before the look: a wake-up between the two is not lost.
                idle.as_mut().enable();
                if self.line.state().is_idle() {
                    return;
                }
                idle.await;
            }
        };
        // Whether the time was enough is seen by what is left.
        drop(tokio::time::timeout(limit, done).await);
        let mut state = self.line.state();
        let unfinished = state.waiting.len() as u64 + u64::from(state.busy);
        RemoteReport {
            unfinished,
            ..std::mem::take(&mut state.report)
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut state = self.line.state();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
        self.line.more.notify_all();
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.busy
    }
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next one. `None` at the end.
    fn next(&self) -> Option<Waiting> {
        let mut state = self.state();
        loop {
            if let Some(next) = state.waiting.pop_front() {
                state.busy = true;
                return Some(next);
            }
            if state.closed {
                return None;
            }
            state = self
                .more
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, key: &str, result: Result<Option<u64>, Failure>) {
        let mut state = self.state();
        state.busy = false;
        match result {
            Ok(Some(bytes)) => {
                state.report.published += 1;
                state.report.bytes += bytes;
            }
            Ok(None) => {}
            Err(failure) => state.report.failed.push(failed(key, &failure.to_string())),
        }
        let idle = state.is_idle();
        drop(state);
        if idle {
            self.idle.notify_waiters();
        }
    }
}

fn failed(key: &str, reason: &str) -> String {
    format!("key {key}: {reason}")
}

/// The thread.
fn work(line: &Line, shared: &Shared) {
    // What is known to be there: steps of one lineage have most of their layers in common.
    let mut there: BTreeSet<Digest> = BTreeSet::new();
    while let Some(Waiting { result, hold }) = line.next() {
        let begun = Instant::now();
        let done = if shared.writing.is_off() {
            Err(Failure::Nothing(
                "the shared cache is not given results any more",
            ))
        } else {
            let done = publish(shared, &result, &mut there);
            match &done {
                Ok(_) => shared.writing.fine(),
                Err(failure) => shared.writing.failed(failure, begun.elapsed()),
            }
            done
        };
        drop(hold);
        line.done(&result.key, done);
    }
}
