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
//! # A shared cache
//!
//! A key that has no result here is asked for at a [`RemoteCache`], if there is one, by whoever
//! has the turn for it, before anything runs. What that brings is entered like a result of this machine, and is
//! a hit. Results of this machine are given to it once they are entered. No failure of it is one of the execution.
//!
//! # Dropping
//!
//! The future of `execute` may be dropped at any await. A VM that it had is destroyed: its
//! `destroy` is begun at once and finished on the runtime, and a VM whose `destroy` cannot finish is
//! dropped, which frees it as well (rule V12). A snapshot that nobody has received yet is removed
//! the same way, and recorded for a later execution to remove should the program end first. What a
//! *backend* was doing for a call that is dropped is the backend's to collect (rule B7); a snapshot
//! that was being taken is the case that matters.

mod command;
mod derive;
mod execute;
mod fetch;
mod flight;
mod guard;
mod phases;
mod produce;
mod publish;
mod setup;
mod slot;
mod watch;

pub use slot::VmSlot;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use hm_vm_core::{
    Action, CachingPolicy, Cancellation, EventSink, ExecutionResult, InjectSource, KeyComponents,
    Mount, OutputSink, PrivateNetwork, Secret, SnapshotId, VmBackend, VmConfig,
};

use crate::registry::ImageRegistry;
use crate::remote::RemoteCache;
use execute::Execution;
use flight::Flights;
use setup::Setup;

/// Runs actions on a backend, and skips those whose result is known. See the [module](self).
///
/// Needs a Tokio runtime with time enabled wherever it waits: for a timeout, or for another
/// process.
pub struct HmVm {
    backend: Arc<dyn VmBackend>,
    registry: ImageRegistry,
    config: VmConfig,
    flights: Flights,
    remote: Option<Arc<dyn RemoteCache>>,
}

impl fmt::Debug for HmVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HmVm")
            .field("backend", &self.backend)
            .field("registry", &self.registry)
            .field("config", &self.config)
            .field("remote", &self.remote)
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
    /// Limits and network of this execution's VM, in place of the engine's.
    pub config: Option<VmConfig>,
    /// Further injects, after the action's own: what, and the absolute guest directory.
    pub injects: Vec<(InjectSource, String)>,
    /// The digest that each of [`injects`](Self::injects) must bring, by its place in that list. One that
    /// brings another fails with [`Error::InputChanged`](hm_vm_core::Error::InputChanged) before the command
    /// runs: what the key says of the files would not hold.
    pub inject_digests: Vec<Option<String>>,
    /// Who runs the command: see [`ExecRequest::user`](hm_vm_core::ExecRequest::user).
    pub user: Option<String>,
    /// What the command sees in its file tree beside the VM's files.
    pub mounts: Vec<Mount>,
    /// A network shared with other VMs, for the command to join.
    pub network: Option<Arc<dyn PrivateNetwork>>,
    /// Environment over the action's that is in no log: values are masked in the output, like
    /// [`masked`](Self::masked).
    pub secret_env: Vec<(String, Secret)>,
    /// What is replaced by `***` in the output, before anybody sees it; the content of
    /// [`Mount::Secret`] is as well. For one of several lines, each line of four bytes or more is. Line ends at
    /// the end are no part of it. One of one or two bytes is
    /// [`Error::InvalidInput`](hm_vm_core::Error::InvalidInput): little of the output would be left.
    pub masked: Vec<Secret>,
    /// What is to be done when the action really runs: see [`Preparation`].
    pub preparation: Option<Arc<dyn Preparation>>,
    /// Do not look the key up, but run and enter the result. Waits for its turn nevertheless.
    pub refresh: bool,
    /// A result older than this counts as a miss.
    pub max_age: Option<Duration>,
    /// A result that was made from another snapshot than the action's source counts as a miss. One whose
    /// parent is not known counts.
    pub same_parent: bool,
    /// Take no snapshot when the action is not cached: nobody forks from it.
    pub no_snapshot: bool,
    /// Write the output to this file as well, with times, in the form that
    /// [`LogReader`](crate::output::LogReader) reads; it may be read while it is being written. On a hit it
    /// becomes the stored output. Must not exist, its directory must. Not made when there is no output. That it
    /// cannot be written is a notice, and no failure.
    pub log: Option<PathBuf>,
    /// A VM at rest from an earlier execution, and where to leave this one's.
    pub vm: VmHandover,
}

/// Work around a command that a hit spares: waiting for a lock, reading secrets, starting services.
#[async_trait]
pub trait Preparation: Send + Sync {
    /// Called once the VM is there and everything is injected, right before the command. A failure is that of
    /// the execution. Dropped when the execution is cancelled.
    ///
    /// # Errors
    ///
    /// Whatever prevents the command from running.
    async fn prepare(&self) -> Result<Prepared>;

    /// Called after the command has ended, however it ended, and before a snapshot is taken; also
    /// after a `prepare` that failed or was dropped. Not called when the execution itself is dropped.
    async fn finish(&self);
}

/// What a [`Preparation`] adds to an execution, each to the field of its name in [`ExecuteOptions`].
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    /// Added to [`ExecuteOptions::mounts`].
    pub mounts: Vec<Mount>,
    /// In place of [`ExecuteOptions::network`].
    pub network: Option<Arc<dyn PrivateNetwork>>,
    /// Added to [`ExecuteOptions::secret_env`].
    pub secret_env: Vec<(String, Secret)>,
    /// Added to [`ExecuteOptions::masked`].
    pub masked: Vec<Secret>,
}

/// How one execution hands its VM to the next one, which saves the end of one VM and the start of another.
#[derive(Clone, Debug, Default)]
pub struct VmHandover {
    /// Go on in the VM that is here, if its state is the action's source, and it has the same limits and network.
    /// Else that VM is ended, and one is made as usual.
    pub take: Option<VmSlot>,
    /// Leave the VM here at the end of an execution that took a snapshot. Not one with a limited disk: what
    /// it has written already would count against the next command.
    pub leave: Option<VmSlot>,
}

impl Default for ExecuteOptions {
    fn default() -> Self {
        Self {
            cancel: None,
            grace: Duration::from_secs(10),
            keep_failed: false,
            events: None,
            components: None,
            config: None,
            injects: Vec::new(),
            inject_digests: Vec::new(),
            user: None,
            mounts: Vec::new(),
            network: None,
            secret_env: Vec::new(),
            masked: Vec::new(),
            preparation: None,
            refresh: false,
            max_age: None,
            same_parent: false,
            no_snapshot: false,
            log: None,
            vm: VmHandover::default(),
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
            .field("config", &self.config)
            .field("injects", &self.injects)
            .field("user", &self.user)
            .field("mounts", &self.mounts)
            .field("network", &self.network)
            .field("refresh", &self.refresh)
            .field("max_age", &self.max_age)
            .field("same_parent", &self.same_parent)
            .field("no_snapshot", &self.no_snapshot)
            .field("log", &self.log)
            .field("vm", &self.vm)
            .finish_non_exhaustive()
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
            remote: None,
        }
    }

    /// The same engine with a cache shared with other machines, in place of one that it had.
    #[must_use]
    pub fn with_remote_cache(self, remote: Arc<dyn RemoteCache>) -> Self {
        Self {
            remote: Some(remote),
            ..self
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
        let setup = Setup::new(self, &action, &options)?;
        let mut execution = Execution::new(self, &action, sink, &options, setup);
        let result = match &policy {
            CachingPolicy::None => execution.uncached().await,
            CachingPolicy::Cache { key } => execution.cached(key).await,
        };
        execution.end_idle().await;
        result
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

    /// The cache shared with other machines, if there is one.
    pub fn remote_cache(&self) -> Option<&Arc<dyn RemoteCache>> {
        self.remote.as_ref()
    }

    /// The limits and policies that every VM gets.
    pub fn config(&self) -> &VmConfig {
        &self.config
    }
}
