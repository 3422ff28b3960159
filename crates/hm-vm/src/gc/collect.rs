//! Removing what was chosen, from the registry and from who keeps snapshots.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use anyhow::Result;
use hm_vm_core::SnapshotId;

use super::keeper::{Kept, SnapshotKeeper};
use super::select::{Candidate, GcPolicy, Reason, select};
use crate::registry::{Entry, ImageRegistry, SNAPSHOT_GONE};

/// What a collection did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcReport {
    /// What was removed, in that order.
    pub removed: Vec<Removed>,
    /// Snapshots that are left.
    pub kept: u64,
    /// Bytes that those take, without their images.
    pub kept_bytes: u64,
    /// Bytes that were freed, layers that nothing used any more included.
    pub freed_bytes: u64,
    /// Layers that nothing used any more. A dry run does not count them.
    pub unused_layers: u64,
}

/// One removal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The keys that held it.
    pub keys: Vec<String>,
    /// Bytes that its removal freed.
    pub bytes: u64,
    /// Why it went.
    pub reason: Reason,
}

/// Collects the keeper's snapshots and the registry's entries, as `policy` says. Blocks the thread:
/// it waits until the keeper has measured what it holds.
///
/// The registry must be the only one with keys for this keeper: snapshots that it does not hold count
/// as unowned. Safe at any time, beside any number of other processes: an entry that is replaced
/// meanwhile stays, VMs go on.
///
/// # Errors
///
/// A failure of the registry or the keeper, at the first removal that fails. What was removed until
/// then is whole.
pub fn collect(
    registry: &ImageRegistry,
    keeper: &dyn SnapshotKeeper,
    policy: &GcPolicy,
) -> Result<GcReport> {
    keeper.settle()?;
    if !policy.dry_run {
        registry.remove_doomed(|snapshot| keeper.remove(snapshot))?;
    }
    let mut entries: HashMap<SnapshotId, Vec<Entry>> = HashMap::new();
    // Entries before snapshots: a snapshot that is entered in between counts as unowned, and as
    // made just now.
    for entry in registry.entries()? {
        entries
            .entry(entry.snapshot.clone())
            .or_default()
            .push(entry);
    }
    let candidates = candidates(keeper, &entries)?;
    let mut keys = |snapshot: &SnapshotId| -> Vec<String> {
        let held = entries.remove(snapshot).unwrap_or_default();
        held.into_iter().map(|entry| entry.key).collect()
    };
    let mut report = GcReport::default();
    for choice in select(&candidates, policy, SystemTime::now()) {
        report.removed.push(Removed {
            keys: keys(&choice.snapshot),
            snapshot: choice.snapshot,
            bytes: choice.bytes,
            reason: choice.reason,
        });
    }
    report.freed_bytes = report.removed.iter().map(|removed| removed.bytes).sum();
    report.kept = (candidates.len() - report.removed.len()) as u64;
    let all: u64 = candidates.iter().map(|candidate| candidate.bytes).sum();
    report.kept_bytes = all - report.freed_bytes;
    for candidate in &candidates {
        entries.remove(&candidate.snapshot);
    }
    add_lost(keeper, entries, &mut report)?;
    if !policy.dry_run {
        remove(registry, keeper, &mut report)?;
    }
    Ok(report)
}

fn candidates(
    keeper: &dyn SnapshotKeeper,
    entries: &HashMap<SnapshotId, Vec<Entry>>,
) -> Result<Vec<Candidate>> {
    let snapshots = keeper.kept()?;
    let parents: HashSet<SnapshotId> = snapshots
        .iter()
        .filter_map(|info| info.parent.clone())
        .collect();
    let candidate = |info: Kept| {
        // A leaf frees what nothing else uses, which can be more than its own (what a removed
        // parent left to it alone) or less. What was forked from frees its own in its turn.
        let bytes = if parents.contains(&info.id) {
            info.own_bytes
        } else {
            info.exclusive_bytes.or(info.own_bytes)
        };
        let held = entries.get(&info.id);
        let uses = held.into_iter().flatten().map(|entry| entry.last_used);
        Candidate {
            last_used: uses.fold(info.last_used.max(info.created), SystemTime::max),
            owned: held.is_some(),
            pinned: held.into_iter().flatten().any(|entry| entry.pinned),
            snapshot: info.id,
            parent: info.parent,
            bytes: bytes.unwrap_or(0),
        }
    };
    Ok(snapshots.into_iter().map(candidate).collect())
}

/// Adds the entries whose snapshot is not there.
fn add_lost(
    keeper: &dyn SnapshotKeeper,
    entries: HashMap<SnapshotId, Vec<Entry>>,
    report: &mut GcReport,
) -> Result<()> {
    for (snapshot, held) in entries {
        // It may have been made after the snapshots were listed.
        if !keeper.has(&snapshot)? {
            report.removed.push(Removed {
                snapshot,
                keys: held.into_iter().map(|entry| entry.key).collect(),
                bytes: 0,
                reason: Reason::Lost,
            });
        }
    }
    Ok(())
}

/// The entry first, then the snapshot: what a crash leaves in between is unowned.
fn remove(
    registry: &ImageRegistry,
    keeper: &dyn SnapshotKeeper,
    report: &mut GcReport,
) -> Result<()> {
    for removed in &report.removed {
        let by = match removed.reason {
            Reason::Lost => SNAPSHOT_GONE.to_owned(),
            reason => format!("collection ({})", reason.describe()),
        };
        for key in &removed.keys {
            registry.try_forget_because(key, &removed.snapshot, &by)?;
        }
        // Somebody may have entered it under another key meanwhile.
        if registry.key_of(&removed.snapshot)?.is_none() {
            keeper.remove(&removed.snapshot)?;
        }
    }
    let unused = keeper.free_unused()?;
    report.unused_layers = unused.layers;
    report.freed_bytes += unused.bytes;
    Ok(())
}
