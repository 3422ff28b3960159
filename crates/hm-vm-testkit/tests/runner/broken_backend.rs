//! A decorator of the fake backend that breaks one rule.

use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use async_trait::async_trait;
use hm_vm_core::{
    Capabilities, Error, ExecOutcome, ExecRequest, InjectSource, Mount, NetworkPolicy,
    OutputReport, OutputRequest, OutputSink, PrivateNetwork, PrivateNetworkRequest, SnapshotId,
    SnapshotLabel, Vm, VmBackend, VmConfig,
};
use hm_vm_testkit::fake::FakeBackend;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    LeaksVms,
    SwallowsExitCodes,
    SnapshotsAlwaysExist,
    AcceptsAnyLimit,
    AcceptsAnyNetwork,
    ForgetsDeletions,
    OneSnapshotPerLabel,
    FailsSecondDestroy,
    WorksAfterDestroy,
    IgnoresStops,
    TellsNoCause,
    RefusesToRemoveTwice,
    HidesMissingImages,
    SkipsInject,
    RunsInAnyDirectory,
    KeepsDroppedSnapshots,
    RemovesChildren,
    RunsAsAnybody,
    PassesOverCaches,
    PassesOverSecrets,
    HasAnyNetwork,
    IgnoresPatterns,
    CopiesNothing,
    /// Restored VMs know nothing of their image.
    ForgetsImages,
    /// Commands without a directory run in `/`.
    StaysInTheRoot,
}

pub(crate) struct Broken {
    pub(crate) inner: FakeBackend,
    pub(crate) fault: Fault,
    pub(crate) labels: Mutex<Vec<(SnapshotLabel, SnapshotId)>>,
    pub(crate) parents: Mutex<Vec<(SnapshotId, SnapshotId)>>,
    pub(crate) leaked: Mutex<Vec<Box<dyn Vm>>>,
}

struct BrokenVm {
    /// A lock makes it `Sync`, which the futures of `&self` methods need.
    inner: tokio::sync::Mutex<Box<dyn Vm>>,
    backend: Arc<Broken>,
    parent: Option<SnapshotId>,
    destroyed: bool,
    restored: bool,
}

impl std::fmt::Debug for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.fault.fmt(f)
    }
}

/// A handle, because VMs need one to their backend.
#[derive(Debug)]
pub(crate) struct Handle(pub(crate) Arc<Broken>);

impl Handle {
    fn vm(&self, inner: Box<dyn Vm>, parent: Option<SnapshotId>) -> Box<dyn Vm> {
        Box::new(BrokenVm {
            inner: tokio::sync::Mutex::new(inner),
            backend: Arc::clone(&self.0),
            restored: parent.is_some(),
            parent,
            destroyed: false,
        })
    }

    fn config(&self, config: &VmConfig) -> VmConfig {
        match self.0.fault {
            Fault::AcceptsAnyLimit => VmConfig {
                network: config.network,
                ..VmConfig::default()
            },
            Fault::AcceptsAnyNetwork => VmConfig {
                network: NetworkPolicy::None,
                ..config.clone()
            },
            _ => config.clone(),
        }
    }
}

#[async_trait]
impl VmBackend for Handle {
    async fn create(&self, image: &str, config: &VmConfig) -> Result<Box<dyn Vm>> {
        let config = self.config(config);
        let created = self.0.inner.create(image, &config).await;
        match created {
            Err(_) if self.0.fault == Fault::HidesMissingImages => {
                anyhow::bail!("something went wrong")
            }
            created => Ok(self.vm(created?, None)),
        }
    }

    async fn restore(&self, snapshot: &SnapshotId, config: &VmConfig) -> Result<Box<dyn Vm>> {
        let config = self.config(config);
        let restored = self.0.inner.restore(snapshot, &config).await?;
        Ok(self.vm(restored, Some(snapshot.clone())))
    }

    async fn snapshot_exists(&self, snapshot: &SnapshotId) -> Result<bool> {
        let exists = self.0.inner.snapshot_exists(snapshot).await?;
        Ok(exists || self.0.fault == Fault::SnapshotsAlwaysExist)
    }

    async fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<()> {
        if self.0.fault == Fault::RefusesToRemoveTwice && !self.snapshot_exists(snapshot).await? {
            anyhow::bail!("no such snapshot");
        }
        if self.0.fault == Fault::RemovesChildren {
            for (child, parent) in self.0.parents.lock().unwrap().iter() {
                if parent == snapshot {
                    self.0.inner.lose_snapshot(child);
                }
            }
        }
        self.0.inner.remove_snapshot(snapshot).await
    }

    fn capabilities(&self) -> Capabilities {
        self.0.inner.capabilities()
    }

    async fn copy_outputs(
        &self,
        snapshot: &SnapshotId,
        request: &OutputRequest,
    ) -> Result<OutputReport> {
        if self.0.fault == Fault::CopiesNothing {
            return Ok(OutputReport::default());
        }
        self.0.inner.copy_outputs(snapshot, request).await
    }

    async fn private_network(
        &self,
        request: &PrivateNetworkRequest,
    ) -> Result<Arc<dyn PrivateNetwork>> {
        if self.0.fault == Fault::HasAnyNetwork {
            return Ok(Arc::new(NoNetwork));
        }
        self.0.inner.private_network(request).await
    }
}

impl BrokenVm {
    fn fault(&self) -> Fault {
        self.backend.fault
    }
}

// A reference to a `dyn Vm` must not live across an await, so a call and its await are two
// statements.
#[async_trait]
impl Vm for BrokenVm {
    async fn inject(&self, host_path: &Path, guest_path: &str) -> Result<()> {
        if self.destroyed && self.fault() == Fault::WorksAfterDestroy {
            return Ok(());
        }
        let empty = tempfile::tempdir()?;
        let source = match self.fault() {
            Fault::SkipsInject if host_path.is_dir() => empty.path(),
            _ => host_path,
        };
        let vm = self.inner.lock().await;
        let run = vm.inject(source, guest_path);
        run.await
    }

    async fn inject_from(&self, source: &InjectSource, guest_path: &str) -> Result<Option<String>> {
        if source.is_plain() || self.fault() == Fault::IgnoresPatterns {
            self.inject(&source.directory, guest_path).await?;
            return Ok(None);
        }
        let vm = self.inner.lock().await;
        let run = vm.inject_from(source, guest_path);
        run.await
    }

    async fn exec(
        &self,
        cmd: &str,
        env: &[(String, String)],
        working_dir: &str,
        sink: &dyn OutputSink,
    ) -> Result<i32> {
        if self.destroyed && self.fault() == Fault::WorksAfterDestroy {
            return Ok(0);
        }
        let vm = self.inner.lock().await;
        let run = vm.exec(cmd, env, working_dir, sink);
        let code = run.await;
        match self.fault() {
            Fault::SwallowsExitCodes => code.map(|code| i32::from(code != 0)),
            Fault::RunsInAnyDirectory if code.is_err() => {
                let run = vm.exec(cmd, env, "/", sink);
                run.await
            }
            _ => code,
        }
    }

    async fn snapshot(&mut self, label: &SnapshotLabel) -> Result<SnapshotId> {
        if self.destroyed && self.fault() == Fault::WorksAfterDestroy {
            return Ok(SnapshotId::new("x"));
        }
        let fault = self.fault();
        let backend = Arc::clone(&self.backend);
        if fault == Fault::OneSnapshotPerLabel {
            let known = backend.labels.lock().unwrap();
            if let Some((_, id)) = known.iter().find(|(known, _)| known == label) {
                return Ok(id.clone());
            }
        }
        if fault == Fault::ForgetsDeletions {
            let undo = "mkdir -p /d; test -e /d/gone || echo 1 > /d/gone";
            let run = self
                .inner
                .get_mut()
                .exec(undo, &[], "/", &hm_vm_core::NullSink);
            run.await?;
        }
        let id = self.inner.get_mut().snapshot(label).await?;
        if fault == Fault::KeepsDroppedSnapshots {
            // The id is not the caller's yet.
            tokio::task::yield_now().await;
        }
        backend
            .labels
            .lock()
            .unwrap()
            .push((label.clone(), id.clone()));
        if let Some(parent) = self.parent.replace(id.clone()) {
            backend.parents.lock().unwrap().push((id.clone(), parent));
        }
        Ok(id)
    }

    async fn destroy(&mut self) -> Result<()> {
        if self.destroyed && self.fault() == Fault::FailsSecondDestroy {
            anyhow::bail!("destroyed already");
        }
        self.destroyed = true;
        if self.fault() == Fault::LeaksVms {
            return Ok(());
        }
        self.inner.get_mut().destroy().await
    }

    async fn exec_with(
        &self,
        request: &ExecRequest<'_>,
        sink: &dyn OutputSink,
    ) -> Result<ExecOutcome> {
        let vm = self.inner.lock().await;
        let never = hm_vm_core::Cancellation::new();
        let mut request = *request;
        let is_cache = |mount: &Mount| matches!(mount, Mount::Cache { .. });
        match self.fault() {
            Fault::ForgetsImages if self.restored && request.working_dir.is_empty() => {
                request.working_dir = "/";
            }
            Fault::StaysInTheRoot if request.working_dir.is_empty() => request.working_dir = "/",
            Fault::IgnoresStops => request.stop = &never,
            Fault::RunsAsAnybody => request.user = None,
            Fault::PassesOverCaches if request.mounts.iter().all(is_cache) => request.mounts = &[],
            Fault::PassesOverSecrets if !request.mounts.iter().any(is_cache) => {
                request.mounts = &[]
            }
            _ => {}
        }
        let run = vm.exec_with(&request, sink);
        let result = run.await;
        match self.fault() {
            Fault::TellsNoCause => result.map_err(|error| match error.downcast_ref() {
                Some(Error::Cancelled { .. }) => anyhow::anyhow!("it was cancelled"),
                _ => error,
            }),
            _ => result,
        }
    }
}

impl Drop for BrokenVm {
    fn drop(&mut self) {
        if self.fault() == Fault::LeaksVms {
            let nothing = Box::new(Gone);
            let vm = std::mem::replace(self.inner.get_mut(), nothing);
            self.backend.leaked.lock().unwrap().push(vm);
        }
    }
}

/// A network that nobody is on.
#[derive(Debug)]
struct NoNetwork;

#[async_trait]
impl PrivateNetwork for NoNetwork {
    async fn accepts(&self, _: u16) -> Result<bool> {
        Ok(false)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// Stands where a leaked VM was.
struct Gone;

#[async_trait]
impl Vm for Gone {
    async fn inject(&self, _: &Path, _: &str) -> Result<()> {
        anyhow::bail!("gone")
    }

    async fn exec(
        &self,
        _: &str,
        _: &[(String, String)],
        _: &str,
        _: &dyn OutputSink,
    ) -> Result<i32> {
        anyhow::bail!("gone")
    }

    async fn snapshot(&mut self, _: &SnapshotLabel) -> Result<SnapshotId> {
        anyhow::bail!("gone")
    }

    async fn destroy(&mut self) -> Result<()> {
        Ok(())
    }
}
