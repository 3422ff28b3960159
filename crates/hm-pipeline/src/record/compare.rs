//! What changed since a run.

use std::collections::BTreeMap;

use hm_vm_core::{ComponentChange, InjectEntry};

use super::model::StepRecord;
use crate::plan::PlannedStep;

/// In what the key of a step now differs from the one on record, by name of the component. Empty when it does not, or when
/// one of the two does not derive from anything that is known.
pub fn compare(old: &StepRecord, new: &PlannedStep) -> Vec<ComponentChange> {
    match (&old.components, &new.components) {
        (Some(old), Some(new)) => old.diff(new),
        _ => Vec::new(),
    }
}

/// Paths that differ between two injects, each list in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileChanges {
    /// Only the newer one has them.
    pub added: Vec<String>,
    /// Only the older one has them.
    pub removed: Vec<String>,
    /// Both have them, with other content or another mode.
    pub changed: Vec<String>,
}

impl FileChanges {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// In what two lists of injected files differ.
pub fn changed_files(old: &[InjectEntry], new: &[InjectEntry]) -> FileChanges {
    let mut before: BTreeMap<&str, &str> = old
        .iter()
        .map(|entry| (entry.path.as_str(), entry.digest.as_str()))
        .collect();
    let mut changes = FileChanges::default();
    for entry in new {
        match before.remove(entry.path.as_str()) {
            None => changes.added.push(entry.path.clone()),
            Some(digest) if digest != entry.digest => changes.changed.push(entry.path.clone()),
            Some(_) => {}
        }
    }
    changes.removed = before.into_keys().map(str::to_owned).collect();
    changes.added.sort_unstable();
    changes.changed.sort_unstable();
    changes
}
