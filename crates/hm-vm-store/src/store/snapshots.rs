//! Rows of snapshots.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hm_vm_core::SnapshotId;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::background::Job;
use crate::db::{Failure, stack};
use crate::error::StoreError;
use crate::store::Store;

/// A snapshot, as its row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its id.
    pub id: SnapshotId,
    /// The label given to its commit.
    pub label: Option<String>,
    /// The snapshot that its VM was forked from, or that the VM made before. It may be gone.
    pub parent: Option<SnapshotId>,
    /// Name of the image at the root of its lineage.
    pub image: Option<String>,
    /// When it was made.
    pub created: SystemTime,
    /// When it was last forked; `created` when it never was.
    pub last_used: SystemTime,
    /// Number of snapshots in its lineage, itself included: 1 for one made from an image.
    pub depth: u32,
    /// Number of layers that its tree is put together from, the image's included.
    pub layers: u32,
    /// Bytes on disk of what its own commit added. `None` until measured.
    pub own_bytes: Option<u64>,
    /// Bytes on disk that its removal would free at least: of layers that nothing else uses, less
    /// files in them that other layers have as well. `None` until measured.
    pub exclusive_bytes: Option<u64>,
    /// Whether it survives a loss of power.
    pub durable: bool,
}

const COLUMNS: &str = "
    SELECT name, label, parent, image, created, last_used, depth, own_bytes, durable,
        (SELECT count(*) FROM stack_layers WHERE stack = snapshots.stack),
        (SELECT CASE WHEN count(*) = count(bytes)
                THEN coalesce(sum(bytes - linked_bytes), 0) END
         FROM stack_layers JOIN layers ON layers.id = stack_layers.layer
         WHERE stack_layers.stack = snapshots.stack
           AND (SELECT count(*) FROM snapshots AS other WHERE other.stack = snapshots.stack) = 1
           AND NOT EXISTS (SELECT 1 FROM images WHERE images.stack = snapshots.stack)
           AND NOT EXISTS (SELECT 1 FROM stack_layers AS other
                           WHERE other.layer = stack_layers.layer
                             AND other.stack <> stack_layers.stack))
    FROM snapshots";

impl Store {
    /// Whether there is a snapshot of that id. Quick: one look at an index.
    ///
    /// # Errors
    ///
    /// A failure of the database.
    pub fn snapshot_exists(&self, id: &SnapshotId) -> Result<bool, StoreError> {
        self.core().db.read("looking for a snapshot", |connection| {
            Ok(connection
                .prepare_cached("SELECT 1 FROM snapshots WHERE name = ?1")?
                .exists([id.as_ref()])?)
        })
    }

    /// Removes a snapshot. Layers that nothing else uses are freed in the background; snapshots
    /// forked from it, and VMs that run on it, stay whole. Does nothing when it is gone already.
    ///
    /// # Errors
    ///
    /// A failure of the database.
    pub fn remove_snapshot(&self, id: &SnapshotId) -> Result<(), StoreError> {
        let core = self.core();
        let doomed = core.db.write("removing a snapshot", |tx| {
            let stack: Option<i64> = tx
                .prepare_cached("DELETE FROM snapshots WHERE name = ?1 RETURNING stack")?
                .query_row([id.as_ref()], |row| row.get(0))
                .optional()?;
            match stack {
                Some(stack) => Ok(stack::release(tx, stack, core.session.id)?),
                None => Ok(false),
            }
        })?;
        if doomed {
            self.add_job(Job::Doomed);
        }
        Ok(())
    }

    /// All snapshots, oldest first.
    ///
    /// # Errors
    ///
    /// A failure of the database.
    pub fn snapshots(&self) -> Result<Vec<SnapshotInfo>, StoreError> {
        self.core()
            .db
            .read_state("listing snapshots", |connection| {
                Ok(connection
                    .prepare_cached(&format!("{COLUMNS} ORDER BY id"))?
                    .query_map([], read_info)?
                    .collect::<rusqlite::Result<_>>()?)
            })
    }

    /// One snapshot, if it exists.
    ///
    /// # Errors
    ///
    /// A failure of the database.
    pub fn snapshot(&self, id: &SnapshotId) -> Result<Option<SnapshotInfo>, StoreError> {
        self.core().db.read("reading a snapshot", |connection| {
            Ok(connection
                .prepare_cached(&format!("{COLUMNS} WHERE name = ?1"))?
                .query_row([id.as_ref()], read_info)
                .optional()?)
        })
    }

    /// The snapshot whose id begins with `prefix`.
    ///
    /// # Errors
    ///
    /// [`StoreError::SnapshotNotFound`] when there is none, [`StoreError::InvalidInput`] when
    /// there are several, or a failure of the database.
    pub fn resolve_snapshot(&self, prefix: &str) -> Result<SnapshotId, StoreError> {
        let found = self
            .core()
            .db
            .read("looking for a snapshot", |connection| {
                Ok(names_from(connection, prefix)?)
            })?;
        match found.as_slice() {
            _ if prefix.is_empty() => Err(StoreError::invalid("snapshot id", "it is empty")),
            [] => Err(StoreError::SnapshotNotFound {
                snapshot: SnapshotId::new(prefix),
            }),
            [name] => Ok(SnapshotId::new(name.as_str())),
            [first, second, ..] => Err(StoreError::invalid(
                format!("snapshot {prefix}"),
                format!("several begin so, {first} and {second} for instance"),
            )),
        }
    }
}

/// Up to two names that begin with `prefix`; a whole name only itself.
fn names_from(connection: &Connection, prefix: &str) -> rusqlite::Result<Vec<String>> {
    // Names are hexadecimal: the range ends before the first letter beyond.
    let end = format!("{prefix}g");
    connection
        .prepare_cached(
            "SELECT name FROM snapshots WHERE name >= ?1 AND name < ?2 ORDER BY name LIMIT 2",
        )?
        .query_map(params![prefix, end], |row| row.get(0))?
        .collect()
}

fn read_info(row: &Row<'_>) -> rusqlite::Result<SnapshotInfo> {
    let name: String = row.get(0)?;
    let parent: Option<String> = row.get(2)?;
    Ok(SnapshotInfo {
        id: SnapshotId::new(name),
        label: row.get(1)?,
        parent: parent.map(SnapshotId::new),
        image: row.get(3)?,
        created: time(row.get(4)?),
        last_used: time(row.get(5)?),
        depth: row.get(6)?,
        layers: row.get(9)?,
        own_bytes: row.get(7)?,
        exclusive_bytes: row.get(10)?,
        durable: row.get(8)?,
    })
}

/// Microseconds since 1970, as rows hold times.
pub(crate) fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(i64::MAX)
}

pub(crate) fn time(micros: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// A name that no snapshot ever had: 128 random bits in hexadecimal.
pub(crate) fn new_name() -> Result<String, Failure> {
    let mut bytes = [0u8; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| StoreError::Io {
            doing: "reading",
            path: "/dev/urandom".into(),
            source: errno.into(),
        })?;
    let mut name = String::with_capacity(32);
    for byte in &bytes[..filled] {
        name.push_str(&format!("{byte:02x}"));
    }
    Ok(name)
}
