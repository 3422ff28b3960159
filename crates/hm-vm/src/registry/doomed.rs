//! What is about to be removed.
//!
//! A snapshot that an entry loses is entered here in the same transaction, and leaves when it has
//! been removed from the backend. A crash or a failure in between leaves it here, where the next
//! execution finds it. Logs likewise.

use hm_vm_core::SnapshotId;
use rusqlite::Connection;

use super::entries::snapshot;

pub(super) fn doom(connection: &Connection, id: &SnapshotId) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR IGNORE INTO doomed_snapshots VALUES (?1)")?
        .execute([&**id])
        .map(drop)
}

/// Takes a snapshot off the list: it was removed.
pub(super) fn settle(connection: &Connection, id: &SnapshotId) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM doomed_snapshots WHERE snapshot = ?1")?
        .execute([&**id])
        .map(drop)
}

/// Up to `limit` doomed snapshots. One that an entry holds again is none.
pub(super) fn snapshots(
    connection: &Connection,
    limit: usize,
) -> rusqlite::Result<Vec<SnapshotId>> {
    connection
        .prepare_cached(
            "SELECT snapshot FROM doomed_snapshots AS doomed
             WHERE NOT EXISTS (SELECT 1 FROM entries WHERE entries.snapshot = doomed.snapshot)
             LIMIT ?1",
        )?
        .query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
            snapshot(row, 0)
        })?
        .collect()
}

/// All doomed logs.
pub(super) fn logs(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached("SELECT name FROM doomed_logs")?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// Takes a log off the list: its file is gone.
pub(super) fn settle_log(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM doomed_logs WHERE name = ?1")?
        .execute([name])
        .map(drop)
}
