//! What a fake backend was asked to do.

use std::path::PathBuf;

use hm_vm_core::{SnapshotId, SnapshotLabel};

/// One call of a method of the backend or of a VM, in the order of their beginnings. VMs are
/// numbered from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "each variant is a method, each field its argument"
)]
pub enum Call {
    Create {
        image: String,
    },
    Restore {
        snapshot: SnapshotId,
    },
    SnapshotExists {
        snapshot: SnapshotId,
    },
    RemoveSnapshot {
        snapshot: SnapshotId,
    },
    Inject {
        vm: u64,
        host_path: PathBuf,
        guest_path: String,
    },
    Exec {
        vm: u64,
        cmd: String,
        env: Vec<(String, String)>,
        working_dir: String,
    },
    Snapshot {
        vm: u64,
        label: SnapshotLabel,
    },
    Destroy {
        vm: u64,
    },
    /// A VM was dropped that nobody had destroyed.
    Dropped {
        vm: u64,
    },
}

/// How often each method was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the method of that name")]
pub struct Counts {
    pub create: usize,
    pub restore: usize,
    pub snapshot_exists: usize,
    pub remove_snapshot: usize,
    pub inject: usize,
    pub exec: usize,
    pub snapshot: usize,
    pub destroy: usize,
    /// VMs that were dropped without `destroy`.
    pub dropped: usize,
}

impl Counts {
    pub(super) fn of(calls: &[Call]) -> Self {
        let mut counts = Self::default();
        for call in calls {
            *match call {
                Call::Create { .. } => &mut counts.create,
                Call::Restore { .. } => &mut counts.restore,
                Call::SnapshotExists { .. } => &mut counts.snapshot_exists,
                Call::RemoveSnapshot { .. } => &mut counts.remove_snapshot,
                Call::Inject { .. } => &mut counts.inject,
                Call::Exec { .. } => &mut counts.exec,
                Call::Snapshot { .. } => &mut counts.snapshot,
                Call::Destroy { .. } => &mut counts.destroy,
                Call::Dropped { .. } => &mut counts.dropped,
            } += 1;
        }
        counts
    }
}
