//! Stands for what hm-vm-docker does not have yet. GOES AWAY.
use std::path::Path;

use hm_vm::docker::DockerBackend;
use hm_vm::{Progress, SnapshotId};

pub(crate) trait Pending {
    fn save_archive_blocking(
        &self,
        _id: &SnapshotId,
        _path: &Path,
        _progress: &Progress,
    ) -> anyhow::Result<()> {
        anyhow::bail!("not built yet")
    }
    fn load_archive_blocking(
        &self,
        _path: &Path,
        _progress: &Progress,
    ) -> anyhow::Result<SnapshotId> {
        anyhow::bail!("not built yet")
    }
}
impl Pending for DockerBackend {}
