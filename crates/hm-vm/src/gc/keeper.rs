//! Who keeps snapshots, as a collection sees them.

use std::fmt;
use std::time::SystemTime;

use anyhow::Result;
use hm_vm_core::SnapshotId;

/// Keeps the snapshots of one backend. All calls block.
pub trait SnapshotKeeper: fmt::Debug {
    /// Waits until what was done before can be seen and measured.
    ///
    /// # Errors
    ///
    /// A failure of the backend.
    fn settle(&self) -> Result<()>;

    /// All snapshots.
    ///
    /// # Errors
    ///
    /// A failure of the backend.
    fn kept(&self) -> Result<Vec<Kept>>;

    /// Whether a snapshot is there.
    ///
    /// # Errors
    ///
    /// A failure of the backend.
    fn has(&self, snapshot: &SnapshotId) -> Result<bool>;

    /// Removes a snapshot; does nothing where it is gone.
    ///
    /// # Errors
    ///
    /// A failure of the backend.
    fn remove(&self, snapshot: &SnapshotId) -> Result<()>;

    /// Frees what no snapshot, image or VM uses.
    ///
    /// # Errors
    ///
    /// A failure of the backend.
    fn free_unused(&self) -> Result<Freed>;
}

/// One snapshot, as a collection sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its id.
    pub id: SnapshotId,
    /// The snapshot that it was made from. It may be gone.
    pub parent: Option<SnapshotId>,
    /// When it was made.
    pub created: SystemTime,
    /// When it was last forked, as far as that is known.
    pub last_used: SystemTime,
    /// Bytes that it added to its parent. `None` where nobody knows.
    pub own_bytes: Option<u64>,
    /// Bytes that nothing else uses: what its removal frees. `None` where nobody knows.
    pub exclusive_bytes: Option<u64>,
}

/// What was freed because nothing used it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Layers, or whatever the backend keeps.
    pub layers: u64,
    /// Bytes of them.
    pub bytes: u64,
}

#[cfg(any(feature = "docker", feature = "sandbox"))]
impl SnapshotKeeper for hm_vm_store::Store {
    fn settle(&self) -> Result<()> {
        Ok(self.flush()?)
    }

    fn kept(&self) -> Result<Vec<Kept>> {
        let kept = |info: hm_vm_store::SnapshotInfo| Kept {
            id: info.id,
            parent: info.parent,
            created: info.created,
            last_used: info.last_used,
            own_bytes: info.own_bytes,
            exclusive_bytes: info.exclusive_bytes,
        };
        Ok(self.snapshots()?.into_iter().map(kept).collect())
    }

    fn has(&self, snapshot: &SnapshotId) -> Result<bool> {
        Ok(self.snapshot_exists(snapshot)?)
    }

    fn remove(&self, snapshot: &SnapshotId) -> Result<()> {
        Ok(self.remove_snapshot(snapshot)?)
    }

    fn free_unused(&self) -> Result<Freed> {
        let unused = self.collect_unused()?;
        Ok(Freed {
            layers: unused.layers,
            bytes: unused.bytes,
        })
    }
}
