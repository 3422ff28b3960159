//! A connection to a daemon, and the thread that it has.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bollard::Docker;

use super::connect;
use super::info::EngineInfo;
use super::runtime::Worker;
use crate::endpoint::Endpoint;

/// A daemon. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    docker: Docker,
    endpoint: Endpoint,
    info: EngineInfo,
    worker: Worker,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("endpoint", &self.shared.endpoint)
            .field("info", &self.shared.info)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Connects, and asks who it is. Blocks the thread; must not be called on a thread of an asynchronous runtime's that cannot
    /// spare it.
    ///
    /// # Errors
    ///
    /// [`hm_vm_core::Error::BackendUnavailable`] when nobody answers there, or somebody who cannot be used.
    pub(crate) fn connect(endpoint: &Endpoint) -> Result<Self> {
        let worker = Worker::start().context("starting a thread for the daemon")?;
        let endpoint = endpoint.clone();
        let asked = endpoint.clone();
        let (docker, info) = worker.block_on(async move { Ok(connect::connect(&asked).await?) })?;
        Ok(Self {
            shared: Arc::new(Shared {
                docker,
                endpoint,
                info,
                worker,
            }),
        })
    }

    /// What is known of the daemon.
    pub(crate) fn info(&self) -> &EngineInfo {
        &self.shared.info
    }

    /// Where it listens.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// The client, for use inside of [`run`](Self::run) and [`later`](Self::later).
    pub(crate) fn docker(&self) -> &Docker {
        &self.shared.docker
    }

    /// Runs `work` on the backend's own thread, to its end: also when the future of this call is dropped. What it
    /// has made must then be given up by a guard in its result.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.shared.worker.run(work).await
    }

    /// As [`run`](Self::run), for callers that may block.
    pub(crate) fn run_blocking<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.shared.worker.block_on(work)
    }

    /// Does `work` in the background: a removal mostly. [`flush`](Self::flush) waits for it; a failure is traced. May be called
    /// anywhere, also in `Drop` and without a runtime. The engine stays until it is done.
    pub(crate) fn later<F>(&self, what: impl Into<String>, work: F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.shared.worker.later(what.into(), work);
    }

    /// Runs `work` in the background until it ends or is aborted. Nobody waits for it, and it must not hold the engine.
    pub(crate) fn spawn<F>(&self, work: F) -> Result<tokio::task::JoinHandle<()>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.shared.worker.spawn(work)
    }

    /// Waits until everything that was left for [`later`](Self::later) is done, or the time is over. Blocks. Returns whether all is done.
    pub(crate) fn flush(&self, limit: Duration) -> bool {
        self.shared.worker.flush(limit)
    }
}
