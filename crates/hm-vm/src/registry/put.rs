//! Entering a snapshot, and evicting for it.

use std::num::NonZeroU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hm_vm_core::{KeyComponents, SnapshotId};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::entries::{self, NEXT_USE, delete_row, is_held, now_us, snapshot};
use super::lost;
use crate::output::RecordedOutput;

/// What is kept beside a snapshot.
#[derive(Debug, Default)]
pub struct PutDetails {
    /// What the key was derived from.
    pub components: Option<KeyComponents>,
    /// The command's output, as the engine recorded it.
    pub output: Option<StoredOutput>,
    /// The snapshot that this one was forked from, if it was.
    pub parent: Option<SnapshotId>,
    /// From the beginning of the VM to the end of its snapshot.
    pub cost: Option<Duration>,
    /// When the snapshot was made, if that was not now. A time to come is now.
    pub created: Option<SystemTime>,
}

/// Output that was recorded and is to be stored with an entry. Made by the engine; dropped without
/// being put, it removes its file.
#[derive(Debug)]
pub struct StoredOutput(pub(crate) RecordedOutput);

/// A `put` that may have to be tried several times.
#[derive(Debug)]
pub(crate) struct Publication {
    key: String,
    snapshot: SnapshotId,
    components: Option<String>,
    pub(super) output: Option<RecordedOutput>,
    parent: Option<SnapshotId>,
    cost_us: Option<i64>,
    created_us: Option<i64>,
    doom: bool,
}

impl Publication {
    /// With `doom`, the snapshots that it hands back are recorded until they are removed.
    pub(crate) fn new(
        key: &str,
        snapshot: &SnapshotId,
        details: PutDetails,
        doom: bool,
    ) -> Result<Self, serde_json::Error> {
        let components = details.components.as_ref();
        Ok(Self {
            key: key.to_owned(),
            snapshot: snapshot.clone(),
            components: components.map(serde_json::to_string).transpose()?,
            output: details.output.map(|output| output.0),
            parent: details.parent,
            cost_us: details
                .cost
                .map(|cost| i64::try_from(cost.as_micros()).unwrap_or(i64::MAX)),
            created_us: details.created.map(|created| {
                let since = created.duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
            }),
            doom,
        })
    }

    pub(super) fn row(&self, capacity: NonZeroU64) -> Row<'_> {
        let output = self.output.as_ref();
        Row {
            key: &self.key,
            snapshot: &self.snapshot,
            components: self.components.as_deref(),
            output_bytes: output.map_or(0, |output| output.bytes),
            log: output.and_then(RecordedOutput::log),
            parent: self.parent.as_deref(),
            cost_us: self.cost_us,
            created_us: self.created_us,
            capacity: capacity.get(),
            doom: self.doom,
        }
    }
}

/// A `put`, in the form that the database takes.
pub(super) struct Row<'a> {
    pub(super) key: &'a str,
    pub(super) snapshot: &'a SnapshotId,
    pub(super) components: Option<&'a str>,
    pub(super) output_bytes: u64,
    pub(super) log: Option<&'a str>,
    pub(super) parent: Option<&'a str>,
    pub(super) cost_us: Option<i64>,
    pub(super) created_us: Option<i64>,
    pub(super) capacity: u64,
    /// Record the snapshots that are handed back until [`super::doomed`] hears of their removal.
    pub(super) doom: bool,
}

/// What a `put` leaves to clean up.
#[derive(Default)]
pub(super) struct Freed {
    /// Evicted, least recently used first; then the replaced one.
    pub(super) snapshots: Vec<SnapshotId>,
    pub(super) logs: Vec<String>,
}

/// An entry that loses its place.
struct Old {
    id: i64,
    snapshot: SnapshotId,
    log: Option<String>,
}

/// Inserts or replaces an entry and evicts what is over capacity, in one transaction.
pub(super) fn put(connection: &mut Connection, row: &Row<'_>) -> rusqlite::Result<Freed> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let replaced = old(&transaction, row.key)?;
    let id = match &replaced {
        Some(replaced) => replace(&transaction, replaced, row)?,
        None => insert(&transaction, row)?,
    };
    if let Some(components) = row.components {
        transaction
            .prepare_cached("INSERT INTO components VALUES (?1, ?2)")?
            .execute(params![id, components])?;
    }
    let before = entries::len(&transaction)?;
    let with_new = before + u64::from(replaced.is_none());
    let evicted = evict(&transaction, id, with_new, row.capacity)?;
    let after = with_new - evicted.len() as u64;
    if after != before {
        transaction
            .prepare_cached("UPDATE state SET entries = ?1")?
            .execute([i64::try_from(after).unwrap_or(i64::MAX)])?;
    }
    let freed = freed(&transaction, evicted.into_iter().chain(replaced), row)?;
    transaction.commit()?;
    Ok(freed)
}

fn old(transaction: &Transaction<'_>, key: &str) -> rusqlite::Result<Option<Old>> {
    transaction
        .prepare_cached("SELECT id, snapshot, log FROM entries WHERE key = ?1")?
        .query_row([key], read_old)
        .optional()
}

fn read_old(row: &rusqlite::Row<'_>) -> rusqlite::Result<Old> {
    Ok(Old {
        id: row.get(0)?,
        snapshot: snapshot(row, 1)?,
        log: row.get(2)?,
    })
}

fn insert(transaction: &Transaction<'_>, row: &Row<'_>) -> rusqlite::Result<i64> {
    lost::forget(transaction, row.key)?;
    transaction
        .prepare_cached(&format!(
            "INSERT INTO entries
                 (key, snapshot, last_use, created_us, last_used_us, output_bytes, log, parent,
                  cost_us)
             VALUES (?1, ?2, {NEXT_USE}, min(?3, ifnull(?8, ?3)), ?3, ?4, ?5, ?6, ?7)"
        ))?
        .insert(params![
            row.key,
            &**row.snapshot,
            now_us(),
            i64::try_from(row.output_bytes).unwrap_or(i64::MAX),
            row.log,
            row.parent,
            row.cost_us,
            row.created_us,
        ])
}

/// Puts a new snapshot into an entry. A pin belongs to the key, and stays.
fn replace(transaction: &Transaction<'_>, old: &Old, row: &Row<'_>) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached(&format!(
            "UPDATE entries
             SET snapshot = ?2, last_use = {NEXT_USE}, hits = 0,
                 created_us = min(?3, ifnull(?8, ?3)), last_used_us = ?3, output_bytes = ?4, log = ?5, parent = ?6, cost_us = ?7
             WHERE id = ?1"
        ))?
        .execute(params![
            old.id,
            &**row.snapshot,
            now_us(),
            i64::try_from(row.output_bytes).unwrap_or(i64::MAX),
            row.log,
            row.parent,
            row.cost_us,
            row.created_us,
        ])?;
    transaction
        .prepare_cached("DELETE FROM components WHERE entry = ?1")?
        .execute([old.id])?;
    if let Some(log) = &old.log {
        transaction
            .prepare_cached("INSERT OR IGNORE INTO doomed_logs VALUES (?1)")?
            .execute([log])?;
    }
    Ok(old.id)
}

/// Removes the least recently used of `entries` beyond the capacity, but no pinned one and not the new one.
fn evict(
    transaction: &Transaction<'_>,
    new: i64,
    entries: u64,
    capacity: u64,
) -> rusqlite::Result<Vec<Old>> {
    let surplus = entries.saturating_sub(capacity);
    if surplus == 0 {
        return Ok(Vec::new());
    }
    let evicted: Vec<(String, Old)> = transaction
        .prepare_cached(
            "SELECT id, snapshot, log, key FROM entries WHERE pinned = 0 AND id <> ?1
             ORDER BY last_use LIMIT ?2",
        )?
        .query_map(
            params![new, i64::try_from(surplus).unwrap_or(i64::MAX)],
            |row| Ok((row.get(3)?, read_old(row)?)),
        )?
        .collect::<rusqlite::Result<_>>()?;
    let cause = lost::capacity(capacity);
    let remove = |(key, old): (String, Old)| {
        delete_row(transaction, old.id, old.log.as_deref())?;
        lost::enter(transaction, &key, &cause)?;
        Ok(old)
    };
    evicted.into_iter().map(remove).collect()
}

/// Of the entries that lost their place: the snapshots that no entry holds any more, each once.
fn freed(
    transaction: &Transaction<'_>,
    lost: impl Iterator<Item = Old>,
    row: &Row<'_>,
) -> rusqlite::Result<Freed> {
    let mut freed = Freed::default();
    // What is being put is wanted again, should it have been doomed earlier.
    transaction
        .prepare_cached("DELETE FROM doomed_snapshots WHERE snapshot = ?1")?
        .execute([&**row.snapshot])?;
    for old in lost {
        freed.logs.extend(old.log);
        if is_held(transaction, &old.snapshot)? || freed.snapshots.contains(&old.snapshot) {
            continue;
        }
        if row.doom {
            super::doomed::doom(transaction, &old.snapshot)?;
        }
        freed.snapshots.push(old.snapshot);
    }
    Ok(freed)
}
