//! What an execution holds, and what becomes of it when the execution is dropped.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use anyhow::Result;
use hm_vm_core::{SnapshotId, Vm, VmBackend};
use tokio::runtime::Handle;

use crate::registry::ImageRegistry;

/// A VM that is destroyed when this is dropped.
pub(super) struct LiveVm {
    vm: Option<Box<dyn Vm>>,
    runtime: Option<Handle>,
}

impl LiveVm {
    pub(super) fn new(vm: Box<dyn Vm>) -> Self {
        Self {
            vm: Some(vm),
            runtime: Handle::try_current().ok(),
        }
    }

    /// The VM. It is there until [`destroy`](Self::destroy) takes this.
    pub(super) fn get(&mut self) -> Result<&mut Box<dyn Vm>> {
        self.vm
            .as_mut()
            .ok_or_else(|| anyhow::anyhow!("the VM is destroyed"))
    }

    pub(super) async fn destroy(mut self) -> Result<()> {
        let destroyed = self.get()?.destroy().await;
        // A second attempt would not do better; dropping the VM frees what can be freed.
        self.vm = None;
        destroyed
    }
}

impl Drop for LiveVm {
    fn drop(&mut self) {
        if let Some(mut vm) = self.vm.take() {
            finish_later(self.runtime.as_ref(), async move {
                if let Err(error) = vm.destroy().await {
                    tracing::warn!(error = %format!("{error:#}"), "failed to destroy the VM of a dropped execution");
                }
            });
        }
    }
}

/// A snapshot that belongs to nobody: not received yet, or given up. It is removed when this is
/// dropped.
pub(super) struct Unclaimed {
    snapshot: Option<SnapshotId>,
    backend: Arc<dyn VmBackend>,
    registry: ImageRegistry,
    runtime: Option<Handle>,
}

impl Unclaimed {
    pub(super) fn new(
        snapshot: SnapshotId,
        backend: &Arc<dyn VmBackend>,
        registry: &ImageRegistry,
    ) -> Self {
        Self {
            snapshot: Some(snapshot),
            backend: Arc::clone(backend),
            registry: registry.handle(),
            runtime: Handle::try_current().ok(),
        }
    }

    pub(super) fn id(&self) -> Result<&SnapshotId> {
        self.snapshot
            .as_ref()
            .ok_or_else(|| anyhow::anyhow!("the snapshot is removed"))
    }

    /// The snapshot has an owner now.
    pub(super) fn claim(mut self) -> Option<SnapshotId> {
        self.snapshot.take()
    }

    /// Removes the snapshot. Recorded first: should this fail or be dropped, a later execution
    /// tries again.
    pub(super) async fn remove(mut self) -> Result<()> {
        let Some(snapshot) = self.snapshot.clone() else {
            return Ok(());
        };
        let removed = remove_doomed(&self.backend, &self.registry, &snapshot).await;
        self.snapshot = None;
        removed
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        let Some(snapshot) = self.snapshot.take() else {
            return;
        };
        let (backend, registry) = (Arc::clone(&self.backend), self.registry.handle());
        finish_later(self.runtime.as_ref(), async move {
            if let Err(error) = remove_doomed(&backend, &registry, &snapshot).await {
                tracing::warn!(%snapshot, error = %format!("{error:#}"), "failed to remove the snapshot of a dropped execution");
            }
        });
    }
}

/// Removes a snapshot that no entry holds, with a record of it as long as it takes.
async fn remove_doomed(
    backend: &Arc<dyn VmBackend>,
    registry: &ImageRegistry,
    snapshot: &SnapshotId,
) -> Result<()> {
    // Without the record the removal is still worth trying.
    if let Err(error) = registry.doom(snapshot).await {
        tracing::debug!(%snapshot, error = %format!("{error:#}"), "failed to record a removal");
    }
    backend.remove_snapshot(snapshot).await?;
    registry.settle(snapshot).await
}

/// Begins `work` now and lets the runtime finish it, as a drop cannot wait. Many backends are done
/// at once. Without a runtime `work` is dropped where it stands.
fn finish_later(runtime: Option<&Handle>, work: impl Future<Output = ()> + Send + 'static) {
    let mut work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(work);
    let _entered = runtime.map(Handle::enter);
    // A backend that panics here must not abort a program that is unwinding already.
    let first = std::panic::catch_unwind(AssertUnwindSafe(|| {
        work.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }));
    if let (Ok(Poll::Pending), Some(runtime)) = (first, runtime) {
        drop(runtime.spawn(work));
    }
}
