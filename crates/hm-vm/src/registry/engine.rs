//! What the engine needs of the registry: nothing here blocks an async thread, but what says so.

use std::sync::Arc;

use anyhow::Result;
use hm_vm_core::SnapshotId;

use super::doomed;
use super::entries::{self, Hit};
use super::error::RegistryError;
use super::face::ImageRegistry;
use super::lost;
use super::put::{self, Freed, Publication};
use crate::key_lock::KeyLock;
use crate::output::LogFiles;

const PUT: &str = "enter a snapshot";

/// For the engine.
impl ImageRegistry {
    pub(crate) fn logs(&self) -> &LogFiles {
        &self.logs
    }

    /// [`try_hit`](Self::try_hit) without blocking the thread. When dropped while the file is busy,
    /// the use may be counted nevertheless; likewise for the other methods here.
    pub(crate) async fn hit(&self, key: &str) -> Result<Option<Hit>> {
        let key = key.to_owned();
        self.run_async("look up a key", move |connection| {
            entries::touch(connection, &key)
        })
        .await
    }

    /// Forgets a key whose snapshot the backend has lost. Does not block the thread.
    pub(crate) async fn forget_gone(&self, key: &str, snapshot: &SnapshotId) -> Result<()> {
        let (key, snapshot) = (key.to_owned(), snapshot.clone());
        let removed = self
            .run_async("remove an entry", move |connection| {
                entries::remove(connection, &key, Some(&snapshot), lost::SNAPSHOT_GONE)
            })
            .await?;
        self.discard_logs(removed.and_then(|removed| removed.log).as_slice());
        Ok(())
    }

    /// The snapshot of a key, without counting a use. `None` also when the file is busy.
    pub(crate) fn peek(&self, key: &str) -> Result<Option<SnapshotId>> {
        self.shared
            .attempt("look up a key", |connection| entries::peek(connection, key))
            .map(Option::flatten)
            .map_err(RegistryError::into_anyhow)
    }

    /// Enters a snapshot, without waiting: `None` when the file is busy. What it hands back stays
    /// recorded as doomed until [`settle`](Self::settle).
    pub(crate) fn publish_now(
        &self,
        publication: &mut Publication,
    ) -> Result<Option<Vec<SnapshotId>>> {
        let freed = {
            let row = publication.row(self.capacity);
            self.shared
                .attempt(PUT, |connection| put::put(connection, &row))
                .map_err(RegistryError::into_anyhow)?
        };
        Ok(freed.map(|freed| self.entered(publication, freed)))
    }

    /// Like [`publish_now`](Self::publish_now), but waits, blocking the thread.
    pub(crate) fn publish_blocking(&self, publication: Publication) -> Result<Vec<SnapshotId>> {
        self.put_blocking(publication)
    }

    /// Records that a snapshot is to be removed, so that a later execution does it if this one
    /// cannot.
    pub(crate) async fn doom(&self, snapshot: &SnapshotId) -> Result<()> {
        let snapshot = snapshot.clone();
        self.run_async("record a removal", move |connection| {
            doomed::doom(connection, &snapshot)
        })
        .await
    }

    /// Records that a doomed snapshot was removed.
    pub(crate) async fn settle(&self, snapshot: &SnapshotId) -> Result<()> {
        let snapshot = snapshot.clone();
        self.run_async("record a removal", move |connection| {
            doomed::settle(connection, &snapshot)
        })
        .await
    }

    /// Up to `limit` snapshots whose removal has not succeeded yet.
    pub(crate) async fn doomed(&self, limit: usize) -> Result<Vec<SnapshotId>> {
        self.run_async("list the removals", move |connection| {
            doomed::snapshots(connection, limit)
        })
        .await
    }

    /// A second handle to the same connection, for work that outlives a borrow.
    pub(crate) fn handle(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            logs: self.logs.clone(),
            capacity: self.capacity,
        }
    }

    pub(super) fn run<T>(
        &self,
        doing: &'static str,
        operation: impl FnMut(&mut rusqlite::Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.shared
            .run(doing, operation)
            .map_err(RegistryError::into_anyhow)
    }

    /// Runs an operation on this thread, or, when the file is busy, on one that may block.
    async fn run_async<T: Send + 'static>(
        &self,
        doing: &'static str,
        mut operation: impl FnMut(&mut rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let once = self.shared.attempt(doing, &mut operation);
        if let Some(value) = once.map_err(RegistryError::into_anyhow)? {
            return Ok(value);
        }
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || shared.run(doing, operation))
            .await?
            .map_err(RegistryError::into_anyhow)
    }

    pub(super) fn put_blocking(&self, mut publication: Publication) -> Result<Vec<SnapshotId>> {
        let freed = {
            let row = publication.row(self.capacity);
            self.run(PUT, |connection| put::put(connection, &row))?
        };
        Ok(self.entered(&mut publication, freed))
    }

    /// After the row is there: the log goes to its place, those of lost entries go away.
    fn entered(&self, publication: &mut Publication, freed: Freed) -> Vec<SnapshotId> {
        if let Some(output) = publication.output.take() {
            output.publish();
        }
        self.discard_logs(&freed.logs);
        freed.snapshots
    }

    pub(super) fn remove(
        &self,
        key: &str,
        expected: Option<&SnapshotId>,
        cause: &str,
    ) -> Result<Option<SnapshotId>> {
        let removed = self.run("remove an entry", |connection| {
            entries::remove(connection, key, expected, cause)
        })?;
        Ok(removed.map(|removed| {
            self.discard_logs(removed.log.as_slice());
            removed.snapshot
        }))
    }

    /// Removes the files of doomed logs. What fails is tried again at the next open.
    fn discard_logs(&self, names: &[String]) {
        for name in names {
            let settled = self
                .logs
                .remove(name)
                .map_err(anyhow::Error::from)
                .and_then(|()| {
                    self.run("record a removal", |connection| {
                        doomed::settle_log(connection, name)
                    })
                });
            if let Err(error) = settled {
                tracing::debug!(name, error = %format!("{error:#}"), "failed to remove a log");
            }
        }
    }

    /// Removes the lock files and logs that dead processes left.
    pub(super) fn collect_dead(&self) -> Result<()> {
        KeyLock::collect_dead(self.path())?;
        self.logs.collect_dead(|name, key| {
            self.run("look up a log", |connection| {
                entries::names_log(connection, key, name)
            })
            .map_err(std::io::Error::other)
        })?;
        let doomed = self.run("list the removals", |connection| doomed::logs(connection))?;
        self.discard_logs(&doomed);
        Ok(())
    }
}

/// For collection.
#[cfg(feature = "sandbox")]
impl ImageRegistry {
    /// Removes what is doomed by `remove`, which must succeed for what is gone already.
    pub(crate) fn remove_doomed(&self, remove: impl Fn(&SnapshotId) -> Result<()>) -> Result<()> {
        let doomed = self.run("list the removals", |connection| {
            doomed::snapshots(connection, usize::MAX)
        })?;
        for snapshot in doomed {
            remove(&snapshot)?;
            self.run("record a removal", |connection| {
                doomed::settle(connection, &snapshot)
            })?;
        }
        Ok(())
    }
}
