//! The threads on which requests run.

use std::future::Future;
use std::pin::pin;
use std::sync::mpsc;

use futures_util::future::{Either, select};
use hm_vm_core::Cancellation;
use tokio::runtime::{Builder, Handle};

use crate::OciError;

/// Two: encryption of one stream does not hold up the others.
const THREADS: usize = 2;

/// A runtime that may be dropped anywhere, also within another runtime.
#[derive(Debug)]
pub(super) struct Runtime {
    runtime: Option<tokio::runtime::Runtime>,
    handle: Handle,
}

impl Runtime {
    pub(super) fn start() -> Result<Self, OciError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("registry")
            .enable_all()
            .build()
            .map_err(|source| OciError::Io {
                doing: "starting threads for",
                path: "registries".to_owned(),
                source,
            })?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits for a piece of work, which ends early when it is cancelled.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        cancel: &Cancellation,
        work: impl Future<Output = Result<T, OciError>> + Send + 'static,
    ) -> Result<T, OciError> {
        // Not the runtime's own waiting, which the threads of other runtimes must not use.
        let (sender, receiver) = mpsc::sync_channel(1);
        let cancel = cancel.clone();
        self.handle.spawn(async move {
            let _ = sender.send(or_cancelled(&cancel, work).await);
        });
        receiver.recv().unwrap_or_else(|_| Err(broken()))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The outcome of the work, or of its cancellation, whichever is first.
pub(super) async fn or_cancelled<T>(
    cancel: &Cancellation,
    work: impl Future<Output = Result<T, OciError>>,
) -> Result<T, OciError> {
    match select(pin!(cancel.cancelled()), pin!(work)).await {
        Either::Left((cause, _)) => Err(OciError::Cancelled(cause.into())),
        Either::Right((outcome, _)) => outcome,
    }
}

/// The work ended without an outcome: it panicked.
pub(super) fn broken() -> OciError {
    OciError::Answer {
        doing: "working".to_owned(),
        place: "the registry client".to_owned(),
        reason: "nothing: it failed inside".to_owned(),
    }
}
