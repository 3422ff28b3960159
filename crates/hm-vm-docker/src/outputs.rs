//! Bringing files of a snapshot to the host.

use anyhow::Result;
use hm_vm_core::{OutputReport, OutputRequest, SnapshotId};

use crate::backend::{Machine, not_yet};

pub(crate) async fn copy(
    machine: &Machine,
    snapshot: &SnapshotId,
    request: &OutputRequest,
) -> Result<OutputReport> {
    let _ = (machine, snapshot, request);
    not_yet("copying files out of a snapshot")
}
