//! The jobs that wait, and the thread that does them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::background::worker;
use crate::error::StoreError;
use crate::store::Core;

/// How long a sync may wait for further ones to join it.
const SYNC_DELAY: Duration = Duration::from_millis(100);
/// How long a sync waits that is for earlier sessions alone. The kernel lets no process end in the middle of one, and
/// a program that finds everything in its cache is over before that.
const EARLIER_DELAY: Duration = Duration::from_secs(2);
/// How long closing a store may wait for its files to be removed and synced.
const PATIENCE: Duration = Duration::from_millis(500);

/// Something for the thread to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Remove doomed layers.
    Doomed,
    /// Remove a directory in `trash`.
    Trash(PathBuf),
    /// Make what is there durable, and measure it.
    Settle,
    /// The same for what an earlier session left. Closing does not wait for it: this session has made nothing
    /// that could be lost.
    SettleEarlier,
    /// See whether the chain of a snapshot has become long.
    Flatten(i64),
}

/// Jobs taken from the queue together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) doomed: bool,
    pub(crate) trash: Vec<PathBuf>,
    pub(crate) sync: bool,
    pub(crate) flatten: Vec<i64>,
}

#[derive(Debug, Default)]
struct Queue {
    doomed: bool,
    trash: Vec<PathBuf>,
    sync_due: Option<Instant>,
    /// The sync is for something of this session.
    sync_own: bool,
    /// The thread is at a sync for earlier sessions, and at nothing else.
    at_earlier: bool,
    flatten: Vec<i64>,
    /// Somebody waits: no delays.
    urgent: usize,
    working: bool,
    error: Option<StoreError>,
}

impl Queue {
    fn is_idle(&self) -> bool {
        !self.working
            && !self.doomed
            && self.trash.is_empty()
            && self.sync_due.is_none()
            && self.flatten.is_empty()
    }

    /// What is done when the store is closed: removal and syncing, once. Chains are flattened when
    /// somebody needs it.
    fn last_batch(&mut self) -> Option<Batch> {
        self.flatten.clear();
        if !self.sync_own {
            self.sync_due = None;
        }
        if self.is_idle() {
            return None;
        }
        self.working = true;
        Some(Batch {
            doomed: std::mem::take(&mut self.doomed),
            trash: std::mem::take(&mut self.trash),
            sync: self.sync_due.take().is_some(),
            flatten: Vec::new(),
        })
    }
}

/// The queue, as the thread sees it.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    idle: Condvar,
    /// The store is being closed: only what must not wait for a later session.
    closing: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    /// Set when the store is being closed.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Set when the thread is to end as soon as it can, with its work undone.
    pub(crate) fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for jobs. `None` when the thread is to end.
    pub(crate) fn next(&self) -> Option<Batch> {
        let mut queue = self.lock();
        queue.working = false;
        queue.at_earlier = false;
        loop {
            if queue.is_idle() {
                self.idle.notify_all();
            }
            if self.is_closing() {
                return queue.last_batch();
            }
            let now = Instant::now();
            let sync = queue
                .sync_due
                .is_some_and(|due| due <= now || queue.urgent > 0);
            if sync || queue.doomed || !queue.trash.is_empty() || !queue.flatten.is_empty() {
                queue.working = true;
                let own = sync && std::mem::take(&mut queue.sync_own);
                if sync {
                    queue.sync_due = None;
                }
                let batch = Batch {
                    doomed: std::mem::take(&mut queue.doomed),
                    trash: std::mem::take(&mut queue.trash),
                    sync,
                    flatten: std::mem::take(&mut queue.flatten),
                };
                let alone = !batch.doomed && batch.trash.is_empty() && batch.flatten.is_empty();
                queue.at_earlier = sync && !own && alone;
                return Some(batch);
            }
            queue = match queue.sync_due {
                Some(due) => {
                    let wait = due.saturating_duration_since(now);
                    let woken = self.wake.wait_timeout(queue, wait);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let woken = self.wake.wait(queue);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// Keeps the first failure for whoever asks.
    pub(crate) fn failed(&self, error: StoreError) {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "background work failed"
        );
        self.lock().error.get_or_insert(error);
    }

    pub(crate) fn add(&self, job: Job) {
        let mut queue = self.lock();
        match job {
            Job::Doomed => queue.doomed = true,
            Job::Trash(path) => queue.trash.push(path),
            Job::Settle | Job::SettleEarlier => {
                let own = matches!(job, Job::Settle);
                queue.sync_own |= own;
                let due = Instant::now() + if own { SYNC_DELAY } else { EARLIER_DELAY };
                queue.sync_due = Some(queue.sync_due.map_or(due, |earlier| earlier.min(due)));
            }
            Job::Flatten(snapshot) => queue.flatten.push(snapshot),
        }
        self.wake.notify_all();
    }
}

/// The background thread of one open store.
#[derive(Debug, Default)]
pub(crate) struct Background {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Background {
    /// Adds a job. Where no thread can be had, the job stays for a later session.
    pub(crate) fn add(&self, core: &Arc<Core>, job: Job) {
        self.shared.add(job);
        self.start(core);
    }

    /// Waits until no job is left, and returns the first failure since the last call.
    pub(crate) fn flush(&self, core: &Arc<Core>) -> Result<(), StoreError> {
        self.shared.add(Job::Doomed);
        self.shared.add(Job::Settle);
        if !self.start(core) {
            return Ok(());
        }
        let mut queue = self.shared.lock();
        queue.urgent += 1;
        self.shared.wake.notify_all();
        while !queue.is_idle() {
            let woken = self.shared.idle.wait(queue);
            queue = woken.unwrap_or_else(PoisonError::into_inner);
        }
        queue.urgent -= 1;
        queue.error.take().map_or(Ok(()), Err)
    }

    fn start(&self, core: &Arc<Core>) -> bool {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_some() {
            return true;
        }
        let (shared, core) = (Arc::clone(&self.shared), Arc::clone(core));
        let started = std::thread::Builder::new()
            .name("hm-vm-store".into())
            .spawn(move || worker::run(&core, &shared));
        match started {
            Ok(handle) => {
                *thread = Some(handle);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "no background thread for the store");
                false
            }
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(thread) = thread.take() else { return };
        let mut queue = self.shared.lock();
        self.shared.closing.store(true, Ordering::Relaxed);
        self.shared.wake.notify_all();
        let deadline = Instant::now() + PATIENCE;
        while !queue.is_idle() {
            let left = deadline.saturating_duration_since(Instant::now());
            let earlier = queue.at_earlier
                && !queue.doomed
                && queue.trash.is_empty()
                && !(queue.sync_own && queue.sync_due.is_some());
            if left.is_zero() || earlier {
                // It ends by itself; what it leaves, a later session does.
                self.shared.stop.store(true, Ordering::Relaxed);
                return;
            }
            let woken = self.shared.idle.wait_timeout(queue, left);
            queue = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(queue);
        let _ = thread.join();
    }
}
