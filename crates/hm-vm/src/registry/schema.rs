//! The tables, and how older files become current ones.

use rusqlite::{Connection, TransactionBehavior};

/// `HmVm` in ASCII: marks a SQLite file as ours.
pub(super) const APPLICATION_ID: i32 = 0x486d_566d;

/// Ordered and append-only: a released entry never changes. The number of entries that a file has
/// seen is its `user_version`.
///
/// A touch rewrites three pages: the entry's own and two of `entries_by_use`. That is why the
/// components, which are long and seldom read, are in a table of their own. `state.entries` counts
/// the entries, as `count(*)` would read all of them; at capacity a `put` leaves it as it is.
///
/// What is doomed has lost its row and is about to be removed: whoever finds it there may finish
/// the removal.
///
/// `lost` says what became of keys that have no entry any more, newest last. A key that is entered
/// again leaves it.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        snapshot TEXT NOT NULL,
        last_use INTEGER NOT NULL,
        pinned INTEGER NOT NULL DEFAULT 0,
        hits INTEGER NOT NULL DEFAULT 0,
        created_us INTEGER NOT NULL,
        last_used_us INTEGER NOT NULL,
        output_bytes INTEGER NOT NULL DEFAULT 0,
        log TEXT
    );
    CREATE INDEX entries_by_use ON entries (pinned, last_use);
    CREATE INDEX entries_by_snapshot ON entries (snapshot);
    CREATE TABLE components (entry INTEGER PRIMARY KEY, json TEXT NOT NULL);
    CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), entries INTEGER NOT NULL);
    INSERT INTO state VALUES (1, 0);
    CREATE TABLE doomed_snapshots (snapshot TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE doomed_logs (name TEXT PRIMARY KEY) WITHOUT ROWID;
",
    "
    ALTER TABLE entries ADD COLUMN parent TEXT;
    ALTER TABLE entries ADD COLUMN cost_us INTEGER;
    CREATE TABLE lost (
        number INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        at_us INTEGER NOT NULL,
        cause TEXT NOT NULL
    );
",
];

/// The version of a current file. Lossless: there will never be 2^31 migrations.
pub(super) const VERSION: i32 = MIGRATIONS.len() as i32;

/// What to tell about a file of a later version.
pub(super) fn newer(version: i32) -> String {
    format!(
        "it was written by a newer version of this program (format {version}, this one knows up \
         to {VERSION}): use that version, or name another file"
    )
}

/// Whether the file is what its name says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing in it yet.
    Empty,
    /// Ours, of this version.
    Of(i32),
    /// Somebody else's.
    Foreign,
}

/// Reads the marks of the file. Writes nothing.
pub(super) fn state(connection: &Connection) -> rusqlite::Result<State> {
    let application: i32 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (application, objects) {
        (APPLICATION_ID, _) => State::Of(version),
        (0, 0) => State::Empty,
        _ => State::Foreign,
    })
}

/// Brings the file to the version of `migrations`, in one exclusive transaction. Does nothing when
/// it is there already, or beyond.
pub(super) fn migrate(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    let done = match state(&transaction)? {
        State::Empty => {
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            0
        }
        State::Of(version) => usize::try_from(version).unwrap_or(usize::MAX),
        // Another program was quicker: the caller looks again, and refuses.
        State::Foreign => return Ok(()),
    };
    for (version, migration) in (1_i32..).zip(migrations).skip(done) {
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", version)?;
    }
    transaction.commit()
}
