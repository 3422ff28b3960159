//! `ephemeral`: the snapshots that are to be removed after a run.

use std::path::Path;

use anyhow::Result;
use hm_vm_core::SnapshotId;

use super::files;

/// Name of the file in a run's directory.
pub(super) const NAME: &str = "ephemeral";

/// The line that notes a snapshot.
pub(super) fn noted(snapshot: &SnapshotId) -> String {
    line('+', snapshot)
}

/// The line that takes that back.
pub(super) fn forgotten(snapshot: &SnapshotId) -> String {
    line('-', snapshot)
}

fn line(sign: char, snapshot: &SnapshotId) -> String {
    let id = serde_json::Value::from(&**snapshot);
    format!("{sign}{id}\n")
}

/// The snapshots that are noted in a run's directory, in the order in which they were. A line that a dying process
/// left unfinished is left out: its snapshot is collected by age.
pub(super) fn read(directory: &Path) -> Result<Vec<SnapshotId>> {
    let content = files::read(&directory.join(NAME))?.unwrap_or_default();
    let mut snapshots: Vec<String> = Vec::new();
    for line in content.split(|byte| *byte == b'\n') {
        let Some((sign, id)) = line.split_first() else {
            continue;
        };
        let Ok(id) = serde_json::from_slice::<String>(id) else {
            continue;
        };
        match sign {
            b'+' => snapshots.push(id),
            _ => snapshots.retain(|noted| *noted != id),
        }
    }
    Ok(snapshots.into_iter().map(SnapshotId::new).collect())
}
