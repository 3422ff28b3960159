//! Sessions: which process holds what is unfinished.
//!
//! A process that has the store open holds a lock on a file of its own. The lock dies with it, by
//! whatever end. Who can take the lock of a session knows that it is dead, and takes over what it
//! left, in one transaction: two processes never clean up the same thing.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;

use rusqlite::{Transaction, params};
use rustix::fs::FlockOperation;

use crate::db::Failure;
use crate::error::Context;
use crate::layout::Layout;

/// The session of this process's use of the store.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: i64,
    /// Locked while the session lives.
    _lock: fs::File,
}

impl Session {
    /// Begins a session. Its row becomes visible to others, at commit, with its lock held already.
    pub(crate) fn begin(tx: &Transaction<'_>, layout: &Layout) -> Result<Self, Failure> {
        tx.prepare_cached("INSERT INTO sessions (pid) VALUES (?1)")?
            .execute([std::process::id()])?;
        let id = tx.last_insert_rowid();
        let path = layout.session_lock(id);
        let lock = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .context("creating", &path)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .context("locking", &path)?;
        Ok(Self { id, _lock: lock })
    }

    /// Takes over everything of sessions whose processes are gone. Returns whether there was any.
    pub(crate) fn take_over_dead(
        &self,
        tx: &Transaction<'_>,
        layout: &Layout,
    ) -> Result<bool, Failure> {
        let dead: Vec<i64> = others(tx, self.id)?
            .into_iter()
            .filter(|&other| !is_alive(layout, other))
            .collect();
        for &other in &dead {
            for table in ["vms", "layers", "leases"] {
                tx.prepare_cached(&format!(
                    "UPDATE {table} SET session = ?1 WHERE session = ?2"
                ))?
                .execute(params![self.id, other])?;
            }
            tx.prepare_cached("DELETE FROM leases WHERE session = ?1")?
                .execute([self.id])?;
            tx.prepare_cached("DELETE FROM sessions WHERE id = ?1")?
                .execute([other])?;
        }
        Ok(!dead.is_empty())
    }
}

/// All sessions but one.
pub(crate) fn others(connection: &rusqlite::Connection, own: i64) -> rusqlite::Result<Vec<i64>> {
    connection
        .prepare_cached("SELECT id FROM sessions WHERE id <> ?1")?
        .query_map([own], |row| row.get(0))?
        .collect()
}

/// Whether the process of a session lives. In doubt it does.
pub(crate) fn is_alive(layout: &Layout, session: i64) -> bool {
    match fs::File::open(layout.session_lock(session)) {
        Ok(file) => rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}
