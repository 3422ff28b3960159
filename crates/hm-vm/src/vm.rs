//! The engine: looks a key up, or runs the action and keeps its result.
//!
//! # Order
//!
//! A snapshot is entered in the registry the moment the backend has returned it: there is no await
//! in between. The snapshots that it replaces or evicts are removed after that, and stay recorded
//! until they are. So at no moment does a crash leave an entry without its snapshot. A snapshot
//! that a crash leaves without an entry carries the label that the backend was given, and is
//! collected by age ([`gc`](crate::gc)).
//!
//! # Single flight
//!
//! Of several executions of one key, one runs. Within an [`HmVm`] the others queue for the key;
//! between processes (and several `HmVm` of one process) they wait for a lock file beside the
//! registry, which dies with its holder. Whoever gets the turn looks the key up again first. A
//! leader that fails poisons nothing: the next one runs in its turn. Hits take no lock.
//!
//! # Dropping
//!
//! The future of `execute` may be dropped at any await. A VM that it had is destroyed: its
//! `destroy` is begun at once and finished on the runtime, and a VM whose `destroy` cannot finish is
//! dropped, which frees it as well (rule V12). A snapshot that nobody has received yet is removed
//! the same way, and recorded for a later execution to remove should the program end first. What a
//! *backend* was doing for a call that is dropped is the backend's to collect (rule B7); a snapshot
//! that was being taken is the case that matters.

mod derive;
mod execute;
mod flight;
mod guard;
mod phases;
mod produce;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use hm_vm_core::{
    Action, CachingPolicy, Cancellation, EventSink, ExecutionResult, KeyComponents, OutputSink,
    SnapshotId, VmBackend, VmConfig,
};

use crate::registry::ImageRegistry;
use execute::Execution;
use flight::Flights;

/// Runs actions on a backend, and skips those whose result is known. See the [module](self).
///
/// Needs a Tokio runtime with time enabled wherever it waits: for a timeout, or for another
/// process.
pub struct HmVm {
    backend: Arc<dyn VmBackend>,
    registry: ImageRegistry,
    config: VmConfig,
    flights: Flights,
}

impl fmt::Debug for HmVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HmVm")
            .field("backend", &self.backend)
            .field("registry", &self.registry)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// How an action is executed, beyond what it does. Does not change its result.
#[derive(Clone)]
pub struct ExecuteOptions {
    /// Ends the execution early. It fails with [`Error::Cancelled`](hm_vm_core::Error::Cancelled) then
    /// (or [`Error::TimedOut`](hm_vm_core::Error::TimedOut), where that is the cause), after everything that
    /// it made is gone. An execution whose snapshot has been entered already succeeds.
    pub cancel: Option<Cancellation>,
    /// Time between SIGTERM and SIGKILL when the command is cancelled or out of time. 10 s.
    pub grace: Duration,
    /// Keep a snapshot of a command that fails with an exit code, in
    /// [`ExecutionResult::kept`]. A command that is cancelled or out of time leaves none: that is an error, which
    /// has no room for one.
    pub keep_failed: bool,
    /// Gets told of every phase.
    pub events: Option<Arc<dyn EventSink>>,
    /// What the key was derived from, to be kept beside it.
    pub components: Option<KeyComponents>,
}

impl Default for ExecuteOptions {
    fn default() -> Self {
        Self {
            cancel: None,
            grace: Duration::from_secs(10),
            keep_failed: false,
            events: None,
            components: None,
        }
    }
}

impl fmt::Debug for ExecuteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecuteOptions")
            .field("cancel", &self.cancel)
            .field("grace", &self.grace)
            .field("keep_failed", &self.keep_failed)
            .field("events", &self.events.is_some())
            .field("components", &self.components)
            .finish()
    }
}

impl HmVm {
    /// An engine on `backend`, whose VMs all get `config`.
    pub fn new(backend: Arc<dyn VmBackend>, registry: ImageRegistry, config: VmConfig) -> Self {
        Self {
            backend,
            registry,
            config,
            flights: Flights::default(),
        }
    }

    /// Executes an action, or finds that its result is known.
    ///
    /// On a hit the stored output goes to `sink`, and nothing of the backend is called but
    /// `snapshot_exists`. A non-zero exit code is a result, not an error.
    ///
    /// # Errors
    ///
    /// [`Error`](hm_vm_core::Error), found by `downcast_ref`, where it says what happened; else a
    /// failure of the backend or the [registry](crate::registry::RegistryError). The VM is
    /// destroyed in every case.
    pub async fn execute(
        &self,
        action: Action,
        policy: CachingPolicy,
        sink: &dyn OutputSink,
    ) -> Result<ExecutionResult> {
        self.execute_with(action, policy, sink, ExecuteOptions::default())
            .await
    }

    /// Like [`execute`](Self::execute), with options.
    ///
    /// # Errors
    ///
    /// As `execute`.
    pub async fn execute_with(
        &self,
        action: Action,
        policy: CachingPolicy,
        sink: &dyn OutputSink,
        options: ExecuteOptions,
    ) -> Result<ExecutionResult> {
        let mut execution = Execution::new(self, &action, sink, &options);
        match &policy {
            CachingPolicy::None => execution.uncached().await,
            CachingPolicy::Cache { key } => execution.cached(key).await,
        }
    }

    /// Removes a snapshot from the backend. Does nothing when it is gone already. An entry that
    /// holds it is found out, and forgotten, when it is next looked up.
    ///
    /// # Errors
    ///
    /// A failure of the backend.
    pub async fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<()> {
        self.backend.remove_snapshot(snapshot).await
    }

    /// Tries again to remove the snapshots that entries lost and that could not be removed then: a
    /// crash, or a failure of the backend, was in the way. Returns how many are gone now. Executions do this
    /// by and by.
    ///
    /// # Errors
    ///
    /// A failure of the backend, at the first snapshot that it cannot remove, or of the registry.
    pub async fn retry_removals(&self) -> Result<usize> {
        let doomed = self.registry.doomed(usize::MAX).await?;
        for snapshot in &doomed {
            self.backend.remove_snapshot(snapshot).await?;
            self.registry.settle(snapshot).await?;
        }
        Ok(doomed.len())
    }

    /// The registry.
    pub fn registry(&self) -> &ImageRegistry {
        &self.registry
    }

    /// The backend.
    pub fn backend(&self) -> &Arc<dyn VmBackend> {
        &self.backend
    }

    /// The limits and policies that every VM gets.
    pub fn config(&self) -> &VmConfig {
        &self.config
    }
}
