//! What users of the registry see.

use std::fmt;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use hm_vm_core::{KeyComponents, SnapshotId};

use super::connection::Shared;
use super::entries::{self, Entry, Hit};
use super::error::RegistryError;
use super::lost::{self, Lost};
use super::put::{Publication, PutDetails};
use crate::output::LogFiles;

/// A persistent map from cache key to snapshot, with as many entries as its capacity: the least
/// recently used ones make room for new ones. See the [module](super) for order, locking and
/// durability.
///
/// Every operation is one transaction. Several processes may use one file at once.
///
/// The methods without `try_` cannot fail: on a failure they log a warning and answer as if there
/// were nothing. The engine uses the `try_` forms.
///
/// Operations wait for other processes up to 30 s, blocking the thread meanwhile.
pub struct ImageRegistry {
    pub(super) shared: Arc<Shared>,
    pub(super) logs: LogFiles,
    pub(super) capacity: NonZeroU64,
}

impl fmt::Debug for ImageRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageRegistry")
            .field("path", &self.shared.path())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl ImageRegistry {
    /// Opens the registry at `path`, creating it and its parent folders where missing. A smaller
    /// capacity than last time takes effect at the next `put`.
    ///
    /// # Errors
    ///
    /// [`Error::BadState`](hm_vm_core::Error::BadState) when the file is corrupt, foreign, or written by a
    /// newer program: it is not changed then. [`RegistryError`] when it cannot be read or written.
    pub fn open(path: &Path, capacity: NonZeroU64) -> Result<Self> {
        let shared = Shared::open(path).map_err(RegistryError::into_anyhow)?;
        let registry = Self {
            shared: Arc::new(shared),
            logs: LogFiles::beside(path),
            capacity,
        };
        if let Err(error) = registry.collect_dead() {
            tracing::warn!(path = %path.display(), error = %format!("{error:#}"), "failed to collect what dead processes left");
        }
        Ok(registry)
    }

    /// The registry's file.
    pub fn path(&self) -> &Path {
        self.shared.path()
    }

    /// The number of entries beyond which the least recently used ones make room.
    pub fn capacity(&self) -> NonZeroU64 {
        self.capacity
    }

    /// The snapshot stored under `key`. Counts as a use.
    pub fn get(&self, key: &str) -> Option<SnapshotId> {
        quietly("get", self.try_get(key))
    }

    /// Like [`get`](Self::get).
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn try_get(&self, key: &str) -> Result<Option<SnapshotId>> {
        Ok(self.try_hit(key)?.map(|hit| hit.snapshot))
    }

    /// Like [`get`](Self::get), with what else is known.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn try_hit(&self, key: &str) -> Result<Option<Hit>> {
        self.run("look up a key", |connection| {
            entries::touch(connection, key)
        })
    }

    /// Inserts or replaces. Returns the snapshots that the caller must now remove from the
    /// backend: those evicted for capacity, least recently used first, and one that this key held
    /// before when no other key holds it. Never one that a key still holds.
    ///
    /// Pinned entries and the new one are not evicted, even if that leaves more than the capacity.
    pub fn put(&self, key: &str, snapshot: &SnapshotId) -> Vec<SnapshotId> {
        quietly("put", self.try_put(key, snapshot))
    }

    /// Like [`put`](Self::put).
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; nothing is entered then.
    pub fn try_put(&self, key: &str, snapshot: &SnapshotId) -> Result<Vec<SnapshotId>> {
        self.try_put_entry(key, snapshot, PutDetails::default())
    }

    /// Like [`put`](Self::put), with more to keep.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; nothing is entered then.
    pub fn try_put_entry(
        &self,
        key: &str,
        snapshot: &SnapshotId,
        details: PutDetails,
    ) -> Result<Vec<SnapshotId>> {
        self.put_blocking(Publication::new(key, snapshot, details, false)?)
    }

    /// Forgets a key, and returns the snapshot that it held. That may be held by another key too.
    pub fn invalidate(&self, key: &str) -> Option<SnapshotId> {
        quietly("invalidate", self.try_invalidate(key))
    }

    /// Like [`invalidate`](Self::invalidate).
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn try_invalidate(&self, key: &str) -> Result<Option<SnapshotId>> {
        self.remove(key, None, lost::ON_REQUEST)
    }

    /// Forgets a key if it holds `snapshot`: when somebody else has replaced that meanwhile, the
    /// newer entry stays. Returns whether it did.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn try_forget(&self, key: &str, snapshot: &SnapshotId) -> Result<bool> {
        self.try_forget_because(key, snapshot, lost::ON_REQUEST)
    }

    /// Like [`try_forget`](Self::try_forget). `by` is what [`lost`](Self::lost) is to say.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn try_forget_because(&self, key: &str, snapshot: &SnapshotId, by: &str) -> Result<bool> {
        Ok(self.remove(key, Some(snapshot), by)?.is_some())
    }

    /// What became of a key that has no entry now, but had one: when it went, and by what. Known of the
    /// last 100,000 that went. A key whose entry was replaced by a newer result lost nothing.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn lost(&self, key: &str) -> Result<Option<Lost>> {
        self.run("look up a key", |connection| lost::find(connection, key))
    }

    /// Every snapshot that a key holds, once, least recently used first.
    pub fn all_snapshot_ids(&self) -> Vec<SnapshotId> {
        quietly("list", self.try_all_snapshot_ids())
    }

    /// Like [`all_snapshot_ids`](Self::all_snapshot_ids).
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn try_all_snapshot_ids(&self) -> Result<Vec<SnapshotId>> {
        self.run("list the snapshots", |connection| {
            entries::snapshots(connection)
        })
    }

    /// The number of entries.
    pub fn len(&self) -> u64 {
        quietly("count", self.try_len())
    }

    /// Like [`len`](Self::len).
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn try_len(&self) -> Result<u64> {
        self.run("count the entries", |connection| entries::len(connection))
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries, least recently used first.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn entries(&self) -> Result<Vec<Entry>> {
        self.run("list the entries", |connection| entries::all(connection))
    }

    /// One entry. Does not count as a use.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn entry(&self, key: &str) -> Result<Option<Entry>> {
        self.run("read an entry", |connection| {
            entries::entry(connection, key)
        })
    }

    /// The entries of several keys, in the order of these and all of one moment. Does not count as a use.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn entries_of(&self, keys: &[String]) -> Result<Vec<Option<Entry>>> {
        self.run("read entries", |connection| {
            entries::several(connection, keys)
        })
    }

    /// Keeps an entry whatever the capacity, until it is unpinned. A second call does nothing.
    /// `false` when there is no such entry.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn pin(&self, key: &str) -> Result<bool> {
        self.run("pin an entry", |connection| {
            entries::set_pinned(connection, key, true)
        })
    }

    /// Lets an entry be evicted again. A second call does nothing. `false` when there is no such
    /// entry.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn unpin(&self, key: &str) -> Result<bool> {
        self.run("unpin an entry", |connection| {
            entries::set_pinned(connection, key, false)
        })
    }

    /// What the key of an entry was derived from. `None` when there is no such entry, or its key
    /// was not derived.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn components(&self, key: &str) -> Result<Option<KeyComponents>> {
        self.run("read the components of a key", |connection| {
            entries::components(connection, key)
        })
    }

    /// The key that holds a snapshot; the first in the alphabet, if several do.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn key_of(&self, snapshot: &SnapshotId) -> Result<Option<String>> {
        self.run("look up a snapshot", |connection| {
            entries::key_of(connection, snapshot)
        })
    }

    /// The key that begins with `prefix`, or is it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`](hm_vm_core::Error::InvalidInput) when there is none, or more than
    /// one; [`RegistryError`].
    pub fn resolve_key(&self, prefix: &str) -> Result<String> {
        let keys = self.run("look up a key", |connection| {
            entries::keys_with_prefix(connection, prefix)
        })?;
        let reason = match keys.as_slice() {
            [] => "no such key in the cache",
            // In order: the prefix itself comes first.
            [key] => return Ok(key.clone()),
            [key, ..] if key == prefix => return Ok(key.clone()),
            _ => "more than one key begins so",
        };
        let error = RegistryError::NoSuchKey {
            what: format!("key {prefix:?}"),
            reason: reason.into(),
        };
        Err(error.into_anyhow())
    }
}

/// For the methods that cannot fail: a failure is logged, and means "nothing there".
fn quietly<T: Default>(doing: &'static str, result: Result<T>) -> T {
    result.unwrap_or_else(|error| {
        tracing::warn!(doing, error = %format!("{error:#}"), "the registry failed");
        T::default()
    })
}
