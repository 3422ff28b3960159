//! A thread on which all requests to the daemon run.

use std::future::Future;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Runtime};

/// Time that is given to what is still to be removed when the last user of the engine goes.
const LAST_WORK: Duration = Duration::from_secs(10);

pub(super) struct Worker {
    /// `None` only while dropping.
    runtime: Option<Runtime>,
    pending: Arc<Pending>,
}

/// What was left for later, counted.
#[derive(Default)]
struct Pending {
    count: Mutex<usize>,
    changed: Condvar,
}

/// One piece of work that was left for later; gone also when it panics, or never runs.
struct Counted(Arc<Pending>);

impl Worker {
    pub(super) fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("hm-vm-docker")
            .enable_all()
            .build()?;
        Ok(Self {
            runtime: Some(runtime),
            pending: Arc::default(),
        })
    }

    fn runtime(&self) -> Result<&Runtime> {
        self.runtime.as_ref().context("the backend is closed")
    }

    pub(super) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let task = self.runtime()?.spawn(work);
        task.await.context("talking to the daemon")?
    }

    pub(super) fn block_on<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        // Not `Runtime::block_on`: this may be called on a thread of another runtime's.
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        self.runtime()?.spawn(async move {
            let _ = tell.send(work.await);
        });
        told.recv().context("talking to the daemon")?
    }

    pub(super) fn spawn<F>(&self, work: F) -> Result<tokio::task::JoinHandle<()>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Ok(self.runtime()?.spawn(work))
    }

    pub(super) fn later<F>(&self, what: String, work: F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let counted = Counted::new(&self.pending);
        let Ok(runtime) = self.runtime() else { return };
        runtime.spawn(async move {
            if let Err(error) = work.await {
                tracing::warn!(error = %format!("{error:#}"), "{what} failed; the next start does it again");
            }
            drop(counted);
        });
    }

    pub(super) fn flush(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut count = self.pending.count();
        while *count > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.pending.changed.wait_timeout(count, left);
            count = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // On the worker's own thread (the last task held the last handle) nobody can be waited for.
        let is_own = std::thread::current().name() == Some("hm-vm-docker");
        if !is_own && !self.flush(LAST_WORK) {
            tracing::warn!(
                "the daemon is slow: what is left to remove is removed at the next start"
            );
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Pending {
    fn count(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn new(pending: &Arc<Pending>) -> Self {
        *pending.count() += 1;
        Self(Arc::clone(pending))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        *self.0.count() -= 1;
        self.0.changed.notify_all();
    }
}
