//! A place for a VM between two executions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hm_vm_core::{SnapshotId, VmBackend, VmConfig};

use super::guard::LiveVm;

/// Holds a VM at rest, or nothing. Clones are the same place. A VM that is in it when the last clone is dropped
/// is freed.
#[derive(Clone, Default)]
pub struct VmSlot {
    vm: Arc<Mutex<Option<IdleVm>>>,
}

/// A VM at rest, and what is known of it. Dropped, it is destroyed.
pub(super) struct IdleVm {
    pub(super) vm: LiveVm,
    /// Who made it.
    pub(super) backend: Arc<dyn VmBackend>,
    /// The snapshot that its files are the same as.
    pub(super) state: SnapshotId,
    pub(super) config: VmConfig,
}

impl VmSlot {
    /// Whether there is no VM in it.
    pub fn is_empty(&self) -> bool {
        self.vm().is_none()
    }

    pub(super) fn take(&self) -> Option<IdleVm> {
        self.vm().take()
    }

    /// Puts a VM in. One that is there is destroyed.
    pub(super) fn put(&self, vm: IdleVm) {
        let former = self.vm().replace(vm);
        drop(former);
    }

    fn vm(&self) -> MutexGuard<'_, Option<IdleVm>> {
        self.vm.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for VmSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VmSlot")
            .field("is_empty", &self.is_empty())
            .finish()
    }
}
