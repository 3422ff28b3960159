//! A daemon keeps snapshots.

use anyhow::Result;
use hm_vm_core::SnapshotId;
use hm_vm_docker::{DockerBackend, SnapshotFacts};

use super::keeper::{Freed, Kept, SnapshotKeeper};

impl SnapshotKeeper for DockerBackend {
    fn settle(&self) -> Result<()> {
        self.flush();
        Ok(())
    }

    fn kept(&self) -> Result<Vec<Kept>> {
        let kept = |facts: SnapshotFacts| Kept {
            id: facts.id,
            parent: facts.parent.map(SnapshotId::new),
            // Nothing in a daemon tells when an image was last used: the registry of keys knows.
            last_used: facts.created,
            created: facts.created,
            own_bytes: Some(facts.own_bytes),
            exclusive_bytes: None,
        };
        Ok(self.snapshots()?.into_iter().map(kept).collect())
    }

    fn has(&self, snapshot: &SnapshotId) -> Result<bool> {
        let all = self.snapshots()?;
        Ok(all.iter().any(|facts| facts.id == *snapshot))
    }

    fn remove(&self, snapshot: &SnapshotId) -> Result<()> {
        self.remove_snapshot_blocking(snapshot)
    }

    /// What nothing uses goes with the snapshot that used it.
    fn free_unused(&self) -> Result<Freed> {
        Ok(Freed::default())
    }
}
