//! The schema, as an ordered list of steps. Steps are only ever added.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::error::StoreError;

/// "hmvS": this file is a store's database.
pub(crate) const APPLICATION_ID: i32 = 0x686d_7653;

/// `MIGRATIONS[n]` leads from version n to version n + 1.
const MIGRATIONS: &[&str] = &[VERSION_1, VERSION_2];

const VERSION_1: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE sessions (id INTEGER PRIMARY KEY AUTOINCREMENT, pid INTEGER NOT NULL);

-- One immutable tree. state: 0 pending (a number reserved by its session; the tree may not be
-- there), 1 present, 2 doomed (on the way out, by its session).
CREATE TABLE layers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    state INTEGER NOT NULL,
    session INTEGER,
    kind INTEGER NOT NULL,          -- 0 commit, 1 image, 2 inject, 3 merged
    level INTEGER NOT NULL,         -- 0, or one more than the layers merged into it
    merged TEXT,                    -- the layers merged into it, by number
    bytes INTEGER,                  -- allocated on disk; NULL until measured
    linked_bytes INTEGER,           -- of these, in files that other layers link to as well
    durable INTEGER NOT NULL,
    boot TEXT NOT NULL
);
CREATE INDEX layers_by_session ON layers (session) WHERE session IS NOT NULL;
CREATE INDEX layers_by_merged ON layers (merged) WHERE merged IS NOT NULL;
CREATE INDEX layers_undurable ON layers (boot) WHERE durable = 0 AND state = 1;
CREATE INDEX layers_unmeasured ON layers (id) WHERE bytes IS NULL AND state = 1;

-- An ordered list of layers, shared by all that stand on it. Never changed once made.
CREATE TABLE stacks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    host INTEGER NOT NULL,          -- whether the machine's own root lies below
    base INTEGER NOT NULL           -- how many layers, from the bottom, are the image's
);
CREATE TABLE stack_layers (         -- position 0 is the bottom
    stack INTEGER NOT NULL, position INTEGER NOT NULL, layer INTEGER NOT NULL,
    PRIMARY KEY (stack, position)
) WITHOUT ROWID;
CREATE INDEX stack_layers_by_layer ON stack_layers (layer);
CREATE TABLE stack_injects (        -- what was injected last at a guest path
    stack INTEGER NOT NULL, path TEXT NOT NULL, inject INTEGER NOT NULL,
    PRIMARY KEY (stack, path)
) WITHOUT ROWID;
CREATE INDEX stack_injects_by_inject ON stack_injects (inject);

CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    label TEXT, parent TEXT, image TEXT,
    created INTEGER NOT NULL, last_used INTEGER NOT NULL,   -- microseconds since 1970
    depth INTEGER NOT NULL,
    stack INTEGER NOT NULL,
    own_layers TEXT NOT NULL,       -- the layers that its commit added, a JSON list
    own_bytes INTEGER,
    durable INTEGER NOT NULL,
    boot TEXT NOT NULL
);
CREATE INDEX snapshots_by_stack ON snapshots (stack);
CREATE INDEX snapshots_undurable ON snapshots (boot) WHERE durable = 0;
CREATE INDEX snapshots_unmeasured ON snapshots (id) WHERE own_bytes IS NULL;

CREATE TABLE images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    digest TEXT NOT NULL,
    created INTEGER NOT NULL,
    stack INTEGER NOT NULL,
    bytes INTEGER NOT NULL, entries INTEGER NOT NULL, notices TEXT NOT NULL,
    durable INTEGER NOT NULL,
    boot TEXT NOT NULL
);
CREATE INDEX images_by_stack ON images (stack);
CREATE INDEX images_undurable ON images (boot) WHERE durable = 0;

CREATE TABLE vms (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session INTEGER NOT NULL,
    stack INTEGER NOT NULL
);
CREATE INDEX vms_by_session ON vms (session);
CREATE INDEX vms_by_stack ON vms (stack);

CREATE TABLE leases (               -- readers of a stack
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session INTEGER NOT NULL,
    stack INTEGER NOT NULL
);
CREATE INDEX leases_by_session ON leases (session);
CREATE INDEX leases_by_stack ON leases (stack);

-- What an inject brought, and the layer that brings it again. The layer may be gone: then only
-- the manifest is of use, to know what an earlier inject had.
CREATE TABLE injects (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    request TEXT NOT NULL UNIQUE,   -- hash of all that the layer's content depends on
    place TEXT NOT NULL,            -- the guest directory
    digest TEXT NOT NULL,
    manifest BLOB NOT NULL,
    layer INTEGER,
    last_used INTEGER NOT NULL
);
CREATE INDEX injects_by_place ON injects (place, last_used);
CREATE INDEX injects_by_layer ON injects (layer) WHERE layer IS NOT NULL;
";

const VERSION_2: &str = "
-- What an image was at one moment; never changed once made. Stacks that began with it point to it, so
-- that it outlives the image's name.
CREATE TABLE image_versions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest TEXT NOT NULL UNIQUE,    -- of its content, as keys have it
    config TEXT,                    -- its OCI configuration; NULL where it has none
    layers TEXT                     -- its layers as others have them, bottom first: a JSON list; NULL
);
ALTER TABLE stacks ADD COLUMN version INTEGER;          -- of image_versions
CREATE INDEX stacks_by_version ON stacks (version);
CREATE TRIGGER stacks_deleted AFTER DELETE ON stacks WHEN OLD.version IS NOT NULL BEGIN
    DELETE FROM image_versions WHERE id = OLD.version
        AND NOT EXISTS (SELECT 1 FROM stacks WHERE version = OLD.version);
END;

ALTER TABLE images ADD COLUMN reference TEXT;           -- where it was pulled from, in full
ALTER TABLE images ADD COLUMN manifest TEXT;            -- digest of its manifest there
ALTER TABLE images ADD COLUMN platform TEXT;            -- os/architecture[/variant]
ALTER TABLE images ADD COLUMN checked INTEGER;          -- when the registry was last asked, in microseconds

-- The archives, by digest without compression, that hold what a layer holds.
CREATE TABLE layer_diffs (diff_id TEXT PRIMARY KEY, layer INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX layer_diffs_by_layer ON layer_diffs (layer);
CREATE TRIGGER layers_doomed AFTER UPDATE OF state ON layers WHEN NEW.state = 2 BEGIN
    DELETE FROM layer_diffs WHERE layer = NEW.id;
END;
CREATE TRIGGER layers_deleted AFTER DELETE ON layers BEGIN
    DELETE FROM layer_diffs WHERE layer = OLD.id;
END;

-- What such an archive is when it is compressed.
CREATE TABLE layer_blobs (
    diff_id TEXT NOT NULL, media_type TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (diff_id, media_type)
) WITHOUT ROWID;

-- A snapshot's layers above its image, as other stores name them.
CREATE TABLE snapshot_chains (
    snapshot INTEGER PRIMARY KEY,   -- of snapshots
    chain TEXT NOT NULL,            -- hash of the image's digest and all diff ids, bottom first
    layers TEXT NOT NULL            -- diff ids and blobs: a JSON list
);
CREATE INDEX snapshot_chains_by_chain ON snapshot_chains (chain);
CREATE TRIGGER snapshots_deleted AFTER DELETE ON snapshots BEGIN
    DELETE FROM snapshot_chains WHERE snapshot = OLD.id;
END;

INSERT INTO image_versions (digest) SELECT DISTINCT digest FROM images;
UPDATE stacks SET version = (
    SELECT image_versions.id FROM images JOIN image_versions USING (digest) WHERE images.stack = stacks.id);
";

/// Version of the schema that this program writes.
pub(crate) fn current_version() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// What a database file is.
pub(crate) enum Found {
    Current,
    /// New, or of an older version.
    ToMigrate,
}

/// Examines a database without changing it.
pub(crate) fn examine(connection: &Connection, path: &Path) -> Result<Found, StoreError> {
    let broken = |error: rusqlite::Error| unreadable(path, error);
    // One transaction, so that the marks and the tables are of the same moment: another process
    // may be making them.
    let transaction = connection.unchecked_transaction().map_err(broken)?;
    let connection: &Connection = &transaction;
    let version: i32 = pragma(connection, "user_version").map_err(broken)?;
    let application: i32 = pragma(connection, "application_id").map_err(broken)?;
    if application == APPLICATION_ID {
        return match version {
            1.. if version == current_version() => Ok(Found::Current),
            1.. if version < current_version() => Ok(Found::ToMigrate),
            _ => Err(StoreError::bad_state(
                path,
                format!(
                    "it has schema version {version}, this program knows {}; use the program that \
                     wrote it",
                    current_version()
                ),
            )),
        };
    }
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(broken)?;
    if application == 0 && version == 0 && tables == 0 {
        Ok(Found::ToMigrate)
    } else {
        Err(StoreError::bad_state(
            path,
            "it is the database of another program",
        ))
    }
}

/// Brings the schema to the current version, in one exclusive transaction.
pub(crate) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Database {
        doing: "bringing the schema up to date",
        path: path.to_owned(),
        source,
    };
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .map_err(failed)?;
    let tx = connection
        .transaction_with_behavior(TransactionBehavior::Exclusive)
        .map_err(failed)?;
    let version: i32 = pragma(&tx, "user_version").map_err(failed)?;
    for step in MIGRATIONS
        .iter()
        .skip(usize::try_from(version).unwrap_or(0))
    {
        tx.execute_batch(step).map_err(failed)?;
    }
    tx.pragma_update(None, "user_version", current_version())
        .map_err(failed)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)
        .map_err(failed)?;
    tx.commit().map_err(failed)
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

/// A file that SQLite cannot read is a state to report, not a failed operation.
fn unreadable(path: &Path, error: rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        Some(NotADatabase) => StoreError::bad_state(path, "it is not a database"),
        Some(DatabaseCorrupt) => StoreError::bad_state(path, "the database is corrupt"),
        _ => StoreError::Database {
            doing: "examining",
            path: path.to_owned(),
            source: error,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store as version 1 left it: an image `host`, an imported one, two snapshots of it, one of which outlived
    /// its image.
    const OLD: &str = "
INSERT INTO stacks (id, host, base) VALUES (1, 1, 1), (2, 0, 1), (3, 0, 1), (4, 0, 1);
INSERT INTO layers (id, state, kind, level, durable, boot) VALUES
    (1, 1, 1, 0, 1, 'b'), (2, 1, 1, 0, 1, 'b'), (3, 1, 0, 0, 1, 'b'), (4, 1, 1, 0, 1, 'b');
INSERT INTO stack_layers VALUES (1, 0, 1), (2, 0, 2), (3, 0, 2), (3, 1, 3), (4, 0, 4);
INSERT INTO images (name, digest, created, stack, bytes, entries, notices, durable, boot) VALUES
    ('host', 'h', 1, 1, 0, 0, '[]', 1, 'b'), ('debian', 'd', 2, 2, 7, 3, '[]', 1, 'b');
INSERT INTO snapshots (name, image, created, last_used, depth, stack, own_layers, durable, boot) VALUES
    ('s1', 'debian', 3, 3, 1, 3, '[3]', 1, 'b'), ('s2', 'gone', 3, 3, 1, 4, '[]', 1, 'b');
";

    fn text(connection: &Connection, sql: &str) -> Vec<Option<String>> {
        let mut rows = connection.prepare(sql).unwrap();
        let rows = rows.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    }

    #[test]
    fn a_store_of_version_1_keeps_its_images_and_snapshots() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let mut connection = Connection::open(&path).unwrap();
        connection.execute_batch(VERSION_1).unwrap();
        connection.execute_batch(OLD).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        connection
            .pragma_update(None, "application_id", APPLICATION_ID)
            .unwrap();
        assert!(matches!(examine(&connection, &path), Ok(Found::ToMigrate)));
        migrate(&mut connection, &path).unwrap();
        assert!(matches!(examine(&connection, &path), Ok(Found::Current)));
        let images = crate::store::image_rows::list(&connection).unwrap();
        let names: Vec<&str> = images.iter().map(|image| image.name.as_str()).collect();
        assert_eq!(names, ["debian", "host"]);
        assert_eq!((&*images[0].digest, images[0].bytes), ("d", 7));
        assert_eq!((&images[0].reference, &images[0].manifest), (&None, &None));
        let version = |stack: u32| {
            let sql = format!(
                "SELECT digest FROM stacks LEFT JOIN image_versions v ON v.id = version
                 WHERE stacks.id = {stack}"
            );
            text(&connection, &sql).pop().unwrap()
        };
        assert_eq!(version(1).as_deref(), Some("h"));
        assert_eq!(version(2).as_deref(), Some("d"));
        // Nobody noted then which image a snapshot began with; its layers are all there.
        assert_eq!(
            text(&connection, "SELECT name FROM snapshots ORDER BY name").len(),
            2
        );
        assert_eq!(text(&connection, "PRAGMA foreign_key_check").len(), 0);
        connection
            .execute("DELETE FROM stacks WHERE id = 2", [])
            .unwrap();
        let left = text(&connection, "SELECT digest FROM image_versions");
        assert_eq!(left, [Some("h".to_owned())]);
    }
}
