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

    /// Images go with the snapshot that used them; lists of what was injected stay for a while.
    fn free_unused(&self) -> Result<Freed> {
        let (_, bytes) = self.collect_inject_lists()?;
        Ok(Freed { layers: 0, bytes })
    }
}
