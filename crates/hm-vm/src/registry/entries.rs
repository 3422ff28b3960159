//! Reading, using and pinning entries.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hm_vm_core::{KeyComponents, SnapshotId};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::lost;

/// One entry of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// The snapshot that it stands for.
    pub snapshot: SnapshotId,
    /// When the snapshot was entered.
    pub created: SystemTime,
    /// When it was entered or last looked up. For people: the order of entries is kept apart.
    pub last_used: SystemTime,
    /// How often it was found since it was entered.
    pub hits: u64,
    /// Whether it is kept whatever the capacity.
    pub pinned: bool,
    /// Bytes that the command wrote to its output.
    pub output_bytes: u64,
    /// The snapshot that it was forked from. `None` when it was made from an image, and when that was not
    /// recorded.
    pub parent: Option<SnapshotId>,
    /// From the beginning of the VM to the end of its snapshot, where that was recorded.
    pub cost: Option<Duration>,
}

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Bytes that the command wrote to its output.
    pub output_bytes: u64,
    /// When the snapshot was entered.
    pub created: SystemTime,
    /// As in [`Entry::parent`].
    pub parent: Option<SnapshotId>,
    /// As in [`Entry::cost`].
    pub cost: Option<Duration>,
    /// Name of the file with that output, unless it was empty or could not be recorded.
    pub(crate) log: Option<String>,
}

/// One above the highest number of use there is. Two seeks in `entries_by_use`.
pub(super) const NEXT_USE: &str = "
    max(ifnull((SELECT max(last_use) FROM entries WHERE pinned = 0), 0),
        ifnull((SELECT max(last_use) FROM entries WHERE pinned = 1), 0)) + 1";

const COLUMNS: &str = "key, snapshot, created_us, last_used_us, hits, pinned, output_bytes, \
                       parent, cost_us FROM entries";

/// Finds an entry, and counts that as a use. One statement, so one transaction.
pub(super) fn touch(connection: &mut Connection, key: &str) -> rusqlite::Result<Option<Hit>> {
    // The text is built once: the cache of statements is searched by its content.
    const TOUCH: &str = "
        UPDATE entries
        SET hits = hits + 1, last_used_us = ?2, last_use =
            max(ifnull((SELECT max(last_use) FROM entries WHERE pinned = 0), 0),
                ifnull((SELECT max(last_use) FROM entries WHERE pinned = 1), 0)) + 1
        WHERE key = ?1
        RETURNING snapshot, output_bytes, log, created_us, parent, cost_us";
    connection
        .prepare_cached(TOUCH)?
        .query_row(params![key, now_us()], |row| {
            Ok(Hit {
                snapshot: snapshot(row, 0)?,
                output_bytes: unsigned(row, 1)?,
                log: row.get(2)?,
                created: time(row, 3)?,
                parent: parent(row, 4)?,
                cost: cost(row, 5)?,
            })
        })
        .optional()
}

/// The snapshot of a key, without counting a use.
pub(super) fn peek(connection: &Connection, key: &str) -> rusqlite::Result<Option<SnapshotId>> {
    connection
        .prepare_cached("SELECT snapshot FROM entries WHERE key = ?1")?
        .query_row([key], |row| snapshot(row, 0))
        .optional()
}

pub(super) fn entry(connection: &Connection, key: &str) -> rusqlite::Result<Option<Entry>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} WHERE key = ?1"))?
        .query_row([key], read_entry)
        .optional()
}

/// The entries of several keys, in their order.
pub(super) fn several(
    connection: &Connection,
    keys: &[String],
) -> rusqlite::Result<Vec<Option<Entry>>> {
    let transaction = connection.unchecked_transaction()?;
    let mut statement = transaction.prepare_cached(&format!("SELECT {COLUMNS} WHERE key = ?1"))?;
    keys.iter()
        .map(|key| statement.query_row([key], read_entry).optional())
        .collect()
}

/// All entries, least recently used first.
pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<Entry>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} ORDER BY last_use"))?
        .query_map([], read_entry)?
        .collect()
}

/// Every snapshot that an entry holds, once, least recently used first.
pub(super) fn snapshots(connection: &Connection) -> rusqlite::Result<Vec<SnapshotId>> {
    connection
        .prepare_cached("SELECT snapshot FROM entries GROUP BY snapshot ORDER BY max(last_use)")?
        .query_map([], |row| snapshot(row, 0))?
        .collect()
}

pub(super) fn len(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT entries FROM state")?
        .query_row([], |row| unsigned(row, 0))
}

/// Whether any entry holds the snapshot.
pub(super) fn is_held(connection: &Connection, snapshot: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM entries WHERE snapshot = ?1 LIMIT 1")?
        .exists([snapshot])
}

/// The key under which a snapshot is entered; of several, the first in the alphabet, so that the
/// answer does not depend on the order of use.
pub(super) fn key_of(connection: &Connection, snapshot: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT min(key) FROM entries WHERE snapshot = ?1")?
        .query_row([snapshot], |row| row.get(0))
}

/// Up to two keys that begin with `prefix`: enough to tell one from several.
pub(super) fn keys_with_prefix(
    connection: &Connection,
    prefix: &str,
) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached(
            "SELECT key FROM entries WHERE key >= ?1 AND substr(key, 1, length(?1)) = ?1
             ORDER BY key LIMIT 2",
        )?
        .query_map([prefix], |row| row.get(0))?
        .collect()
}

pub(super) fn components(
    connection: &Connection,
    key: &str,
) -> rusqlite::Result<Option<KeyComponents>> {
    let json: Option<String> = connection
        .prepare_cached("SELECT json FROM components JOIN entries ON id = entry WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()?;
    json.map(|json| {
        serde_json::from_str(&json).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
        })
    })
    .transpose()
}

/// Whether the entry of `key` names this log.
pub(super) fn names_log(connection: &Connection, key: &str, name: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM entries WHERE key = ?1 AND log = ?2")?
        .exists([key, name])
}

/// Pins or unpins an entry. `false` when there is none.
pub(super) fn set_pinned(
    connection: &mut Connection,
    key: &str,
    pinned: bool,
) -> rusqlite::Result<bool> {
    let changed = connection
        .prepare_cached("UPDATE entries SET pinned = ?2 WHERE key = ?1")?
        .execute(params![key, pinned])?;
    Ok(changed > 0)
}

/// What a removed entry leaves to clean up.
pub(super) struct Removed {
    pub(super) snapshot: SnapshotId,
    pub(super) log: Option<String>,
}

/// Removes an entry; with `expected`, only while it holds that snapshot. `cause` is what people are
/// told about its end.
pub(super) fn remove(
    connection: &mut Connection,
    key: &str,
    expected: Option<&SnapshotId>,
    cause: &str,
) -> rusqlite::Result<Option<Removed>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: Option<(i64, SnapshotId, Option<String>)> = transaction
        .prepare_cached("SELECT id, snapshot, log FROM entries WHERE key = ?1")?
        .query_row([key], |row| {
            Ok((row.get(0)?, snapshot(row, 1)?, row.get(2)?))
        })
        .optional()?;
    let Some((id, held, log)) = found else {
        return Ok(None);
    };
    if expected.is_some_and(|expected| *expected != held) {
        return Ok(None);
    }
    delete_row(&transaction, id, log.as_deref())?;
    lost::enter(&transaction, key, cause)?;
    transaction
        .prepare_cached("UPDATE state SET entries = entries - 1")?
        .execute([])?;
    transaction.commit()?;
    Ok(Some(Removed {
        snapshot: held,
        log,
    }))
}

/// Deletes one entry's rows, and dooms its log. The caller counts.
pub(super) fn delete_row(
    connection: &Connection,
    id: i64,
    log: Option<&str>,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM entries WHERE id = ?1")?
        .execute([id])?;
    connection
        .prepare_cached("DELETE FROM components WHERE entry = ?1")?
        .execute([id])?;
    if let Some(log) = log {
        connection
            .prepare_cached("INSERT OR IGNORE INTO doomed_logs VALUES (?1)")?
            .execute([log])?;
    }
    Ok(())
}

fn read_entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        key: row.get(0)?,
        snapshot: snapshot(row, 1)?,
        created: time(row, 2)?,
        last_used: time(row, 3)?,
        hits: unsigned(row, 4)?,
        pinned: row.get(5)?,
        output_bytes: unsigned(row, 6)?,
        parent: parent(row, 7)?,
        cost: cost(row, 8)?,
    })
}

pub(super) fn snapshot(row: &Row<'_>, column: usize) -> rusqlite::Result<SnapshotId> {
    row.get::<_, String>(column).map(SnapshotId::new)
}

fn parent(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<SnapshotId>> {
    let id: Option<String> = row.get(column)?;
    Ok(id.map(SnapshotId::new))
}

fn cost(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Duration>> {
    let micros: Option<i64> = row.get(column)?;
    Ok(micros.map(|micros| Duration::from_micros(u64::try_from(micros).unwrap_or(0))))
}

/// SQLite knows signed integers only; none of ours is negative in a sound file.
fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column)
        .map(|value| u64::try_from(value).unwrap_or(0))
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<SystemTime> {
    unsigned(row, column).map(|micros| UNIX_EPOCH + Duration::from_micros(micros))
}

pub(super) fn now_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
