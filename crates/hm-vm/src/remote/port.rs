//! What the engine asks of a shared cache.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use async_trait::async_trait;
use hm_vm_core::{Cancellation, KeyComponents, Progress, SnapshotId};

/// A cache beyond this machine.
#[async_trait]
pub trait RemoteCache: Send + Sync + fmt::Debug {
    /// What it has for these keys, in their order. Nothing is fetched but the answer; what is asked again soon is
    /// answered from memory. `None` also when it cannot be asked: a warning says so once.
    async fn look(&self, keys: &[String]) -> Vec<Option<RemoteEntry>>;

    /// Brings what it has for a key into this machine's store, whole and verified: afterwards the snapshot is there under
    /// the id of the entry. `None` when there is nothing, or nothing that can be used here. Called by whoever has
    /// the turn for the key. Dropped or cancelled, it leaves nothing behind. `progress` counts the bytes of the layers.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`](hm_vm_core::Error::Cancelled) alone. All else is `None` and a warning.
    async fn fetch(
        &self,
        key: &str,
        cancel: &Cancellation,
        progress: &Progress,
    ) -> Result<Option<Fetched>>;

    /// Digest of the image at the root of a snapshot's lineage, if that is known here.
    async fn base_digest(&self, snapshot: &SnapshotId) -> Option<String> {
        let _ = snapshot;
        None
    }

    /// Gives it a result. Returns at once; the work goes on beside the run. Does nothing for a read-only cache.
    fn publish(&self, result: Published);

    /// Waits until all that was given is there, or cannot be: no longer than `limit`. A second call waits for
    /// what came since.
    async fn finish(&self, limit: Duration) -> RemoteReport;
}

/// What a shared cache knows of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteEntry {
    /// The snapshot: ids are the same on all machines.
    pub snapshot: SnapshotId,
    /// The snapshot that it was forked from; `None` for one made from an image.
    pub parent: Option<SnapshotId>,
    /// Digest of the image at the root of its lineage, where that is told.
    pub base: Option<String>,
    /// When it was made.
    pub created: SystemTime,
    /// How long that took.
    pub cost: Option<Duration>,
}

/// What was brought here.
#[derive(Debug)]
pub struct Fetched {
    /// What it is.
    pub entry: RemoteEntry,
    /// What its key was derived from.
    pub components: Option<KeyComponents>,
    /// The output of its command, in the form of the registry's logs; `None` when there was none.
    pub log: Option<FetchedLog>,
    /// Bytes that came over the network.
    pub bytes: u64,
    /// Whether the snapshot was not here before: then it belongs to whoever gets this, to enter or remove.
    pub is_new: bool,
}

/// A log that was brought here.
#[derive(Debug)]
pub struct FetchedLog {
    /// The file, for the receiver to move or remove: it lies where crashed processes' files are collected.
    pub file: PathBuf,
    /// Bytes of output in it.
    pub output_bytes: u64,
}

/// A result to share.
#[derive(Clone, Debug)]
pub struct Published {
    /// Its key.
    pub key: String,
    /// What it is.
    pub entry: RemoteEntry,
    /// What its key was derived from.
    pub components: Option<KeyComponents>,
    /// The stored output of its command, opened: it may be removed meanwhile. Its position is of no account.
    pub log: Option<Arc<File>>,
    /// Bytes of that output.
    pub output_bytes: u64,
}

/// What became of the results that were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteReport {
    /// How many are there now, those that were there before included.
    pub published: u64,
    /// Bytes that were sent for them.
    pub bytes: u64,
    /// Why others are not: one text for each.
    pub failed: Vec<String>,
    /// How many were not done when the time was over.
    pub unfinished: u64,
}
