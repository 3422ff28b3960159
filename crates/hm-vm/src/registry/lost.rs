//! What became of keys that have no entry any more.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, params};

use super::entries::{now_us, time};

/// How many are kept, the newest ones.
const KEPT: i64 = 100_000;

/// A snapshot was not there when its key was looked up.
pub(crate) const SNAPSHOT_GONE: &str = "its snapshot was gone";
/// Somebody called for it.
pub(super) const ON_REQUEST: &str = "a removal on request";

/// There were more entries than that.
pub(super) fn capacity(entries: u64) -> String {
    let s = if entries == 1 { "y" } else { "ies" };
    format!("the limit of {entries} entr{s}")
}

/// The end of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// When it went.
    pub at: SystemTime,
    /// By what, in words: `the limit of 100 entries`.
    pub by: String,
}

/// Records that the entry of `key` is gone.
pub(super) fn enter(connection: &Connection, key: &str, cause: &str) -> rusqlite::Result<()> {
    let number = connection
        .prepare_cached("INSERT OR REPLACE INTO lost (key, at_us, cause) VALUES (?1, ?2, ?3)")?
        .insert(params![key, now_us(), cause])?;
    connection
        .prepare_cached("DELETE FROM lost WHERE number <= ?1")?
        .execute([number - KEPT])
        .map(drop)
}

/// Takes `key` off: it has an entry again.
pub(super) fn forget(connection: &Connection, key: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM lost WHERE key = ?1")?
        .execute([key])
        .map(drop)
}

/// What is known of `key`.
pub(super) fn find(connection: &Connection, key: &str) -> rusqlite::Result<Option<Lost>> {
    connection
        .prepare_cached("SELECT at_us, cause FROM lost WHERE key = ?1")?
        .query_row([key], |row| {
            Ok(Lost {
                at: time(row, 0)?,
                by: row.get(1)?,
            })
        })
        .optional()
}
