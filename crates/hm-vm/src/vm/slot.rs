//! A place for a VM between two executions.

use std::sync::{Arc, Mutex};

use hm_vm_core::{SnapshotId, Vm, VmConfig};

/// Holds a VM at rest, or nothing. Clones are the same place. A VM that is in it when the last clone is dropped
/// is freed.
#[derive(Clone, Default)]
pub struct VmSlot {
    vm: Arc<Mutex<Option<IdleVm>>>,
}

/// A VM at rest, and what is known of it.
pub(super) struct IdleVm {
    pub(super) vm: Box<dyn Vm>,
    /// The snapshot that its files are the same as.
    pub(super) state: SnapshotId,
    pub(super) config: VmConfig,
}

impl std::fmt::Debug for VmSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VmSlot")
    }
}
