//! One VM.

use std::sync::Arc;

use anyhow::Result;
use hm_vm_core::{SnapshotId, Vm, VmConfig};

use crate::backend::{Machine, not_yet};

pub(crate) async fn create(
    machine: &Arc<Machine>,
    image: &str,
    config: &VmConfig,
) -> Result<Box<dyn Vm>> {
    let _ = (machine, image, config);
    not_yet("VMs")
}

pub(crate) async fn restore(
    machine: &Arc<Machine>,
    snapshot: &SnapshotId,
    config: &VmConfig,
) -> Result<Box<dyn Vm>> {
    let _ = (machine, snapshot, config);
    not_yet("VMs")
}
