//! Snapshots: commit, names, removal, squashing.

use std::time::SystemTime;

use anyhow::Result;
use hm_vm_core::SnapshotId;

use crate::backend::{Machine, not_yet};

/// What is known of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotFacts {
    /// Its id: `sha256:` and the digest of the image.
    pub id: SnapshotId,
    /// The snapshot or image that it was made from.
    pub parent: Option<String>,
    /// The key that it was made for; its first kilobyte where it is longer.
    pub key: Option<String>,
    /// When it was made.
    pub created: SystemTime,
    /// Bytes of all its layers together.
    pub bytes: u64,
    /// Bytes of what it has beyond what it was made from.
    pub own_bytes: u64,
}

pub(crate) async fn remove(machine: &Machine, snapshot: &SnapshotId) -> Result<()> {
    let _ = (machine, snapshot);
    not_yet("removing a snapshot")
}
