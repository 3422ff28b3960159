//! What a check works with.

use std::fmt;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use hm_vm_core::{Capabilities, NetworkPolicy, SnapshotId, VmBackend, VmConfig};

use super::guest::Guest;
use super::harness::{Harness, Scale};
use super::host::until_none;
use crate::lock::lock;

/// Notes and snapshots of one check.
#[derive(Debug, Default)]
pub(super) struct Record {
    notes: Mutex<Vec<String>>,
    snapshots: Mutex<Vec<SnapshotId>>,
}

impl Record {
    /// Notes what was done, for the case that the check fails.
    pub(super) fn note(&self, mut what: String) {
        if let Some((end, _)) = what.char_indices().nth(400) {
            what.truncate(end);
            what.push('…');
        }
        let mut notes = lock(&self.notes);
        if notes.len() == 40 {
            notes.remove(0);
        }
        notes.push(what);
    }

    /// Removes this snapshot at the end of the check.
    pub(super) fn keep(&self, id: &SnapshotId) {
        lock(&self.snapshots).push(id.clone());
    }
}

/// Why a check does not come to a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoVerdict {
    /// The backend does not declare what the check is about.
    NotApplicable(String),
    /// The guest or this machine lacks the means.
    Skipped(String),
}

impl fmt::Display for NoVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NotApplicable(reason) | Self::Skipped(reason)) = self;
        f.write_str(reason)
    }
}

impl std::error::Error for NoVerdict {}

/// Ends a check for a capability that is not declared.
pub(super) fn not_applicable(reason: &str) -> anyhow::Error {
    NoVerdict::NotApplicable(reason.to_owned()).into()
}

/// Ends a check for lack of means.
pub(super) fn skipped(reason: impl Into<String>) -> anyhow::Error {
    NoVerdict::Skipped(reason.into()).into()
}

/// What a check works with: a backend on a root of its own.
pub struct Context<'h> {
    pub(super) harness: &'h dyn Harness,
    pub(super) backend: Arc<dyn VmBackend>,
    pub(super) capabilities: Capabilities,
    pub(super) scale: Scale,
    pub(super) record: Arc<Record>,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("backend", &self.backend)
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

impl<'h> Context<'h> {
    pub(super) async fn new(harness: &'h dyn Harness) -> Self {
        let backend = harness.backend().await;
        Self {
            capabilities: backend.capabilities(),
            scale: harness.scale(),
            record: Arc::default(),
            backend,
            harness,
        }
    }

    /// The most isolated configuration that the backend offers.
    pub(super) fn config(&self) -> VmConfig {
        let offered = |policy: &NetworkPolicy| self.capabilities.networks.contains(policy);
        VmConfig {
            network: NetworkPolicy::ALL
                .into_iter()
                .find(offered)
                .unwrap_or_default(),
            ..VmConfig::default()
        }
    }

    pub(super) async fn create(&self) -> Result<Guest> {
        self.create_with(&self.config()).await
    }

    pub(super) async fn create_with(&self, config: &VmConfig) -> Result<Guest> {
        self.create_of(self.harness.image(), config).await
    }

    /// A VM of another image than the harness's.
    pub(super) async fn create_from(&self, image: &str) -> Result<Guest> {
        self.create_of(image, &self.config()).await
    }

    async fn create_of(&self, image: &str, config: &VmConfig) -> Result<Guest> {
        let vm = self.backend.create(image, config).await;
        self.record.note(format!("create => {}", error_of(&vm)));
        Ok(Guest {
            vm: vm.with_context(|| format!("creating a VM of {image:?}"))?,
            record: Arc::clone(&self.record),
        })
    }

    pub(super) async fn restore(&self, snapshot: &SnapshotId) -> Result<Guest> {
        self.restore_with(snapshot, &self.config()).await
    }

    pub(super) async fn restore_with(
        &self,
        snapshot: &SnapshotId,
        config: &VmConfig,
    ) -> Result<Guest> {
        let vm = self.backend.restore(snapshot, config).await;
        self.record
            .note(format!("restore {snapshot} => {}", error_of(&vm)));
        Ok(Guest {
            vm: vm.with_context(|| format!("restoring {snapshot}"))?,
            record: Arc::clone(&self.record),
        })
    }

    pub(super) async fn remove(&self, snapshot: &SnapshotId) -> Result<()> {
        let result = self.backend.remove_snapshot(snapshot).await;
        self.record.note(format!("remove {snapshot} => {result:?}"));
        result.with_context(|| format!("removing {snapshot}"))
    }

    /// Removes all snapshots of the check, and waits until the backend holds nothing.
    pub(super) async fn finish(&self) -> Result<()> {
        let snapshots = std::mem::take(&mut *lock(&self.record.snapshots));
        for snapshot in &snapshots {
            self.remove(snapshot).await?;
        }
        until_none("left behind", || self.harness.leftovers()).await
    }

    /// What was done so far, for a failure message.
    pub(super) async fn state(&self) -> String {
        let notes = lock(&self.record.notes).join("\n  ");
        let leftovers = self.harness.leftovers().await;
        format!("last calls:\n  {notes}\nheld by the backend: {leftovers:#?}")
    }
}

fn error_of<T>(result: &Result<T>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(error) => format!("{error:#}"),
    }
}
