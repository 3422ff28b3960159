//! Tests of what the face does not show.

use std::num::NonZeroU64;

use hm_vm_core::SnapshotId;
use rusqlite::Connection;

use super::schema::{self, MIGRATIONS, State, VERSION};
use super::{ImageRegistry, RegistryError};

/// Stands for a migration of a later version.
const LATER: &str = "ALTER TABLE entries ADD COLUMN later INTEGER NOT NULL DEFAULT 7";

fn open(path: &std::path::Path) -> anyhow::Result<ImageRegistry> {
    ImageRegistry::open(path, NonZeroU64::MIN)
}

#[test]
fn an_older_file_is_migrated_with_its_entries() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.db");
    open(&path).unwrap().put("k", &SnapshotId::new("s"));
    let mut raw = Connection::open(&path).unwrap();
    let mut migrations = MIGRATIONS.to_vec();
    migrations.push(LATER);
    // Twice: the second time there is nothing to do.
    for _ in 0..2 {
        schema::migrate(&mut raw, &migrations).unwrap();
        assert_eq!(schema::state(&raw).unwrap(), State::Of(VERSION + 1));
    }
    let row: (String, i64) = raw
        .query_row("SELECT key, later FROM entries", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(row, ("k".to_owned(), 7));
    drop(raw);
    let error = open(&path).unwrap_err();
    assert!(error.to_string().contains("newer version"), "{error}");
}

#[test]
fn entries_of_the_first_version_have_no_parent_and_no_cost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.db");
    let mut raw = Connection::open(&path).unwrap();
    schema::migrate(&mut raw, &MIGRATIONS[..1]).unwrap();
    raw.execute_batch(
        "INSERT INTO entries (key, snapshot, last_use, created_us, last_used_us)
         VALUES ('k', 's', 1, 1, 1);
         UPDATE state SET entries = 1",
    )
    .unwrap();
    drop(raw);
    let registry = open(&path).unwrap();
    let entry = registry.entry("k").unwrap().unwrap();
    assert_eq!((entry.parent, entry.cost), (None, None));
    assert_eq!(registry.put("new", &SnapshotId::new("t")), [entry.snapshot]);
    let lost = registry.lost("k").unwrap().unwrap();
    assert_eq!(lost.by, "the limit of 1 entry");
}

#[test]
fn a_migration_that_fails_changes_nothing() {
    let mut raw = Connection::open_in_memory().unwrap();
    let broken = [MIGRATIONS[0], "CREATE TABLE t (x); NONSENSE"];
    assert!(schema::migrate(&mut raw, &broken).is_err());
    assert_eq!(schema::state(&raw).unwrap(), State::Empty);
}

#[test]
fn the_steps_taken_singly_or_together_make_the_same_schema() {
    let tables = |raw: &Connection| -> Vec<String> {
        let mut statement = raw
            .prepare("SELECT ifnull(sql, name) FROM sqlite_schema ORDER BY name")
            .unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let mut together = Connection::open_in_memory().unwrap();
    schema::migrate(&mut together, MIGRATIONS).unwrap();
    let mut singly = Connection::open_in_memory().unwrap();
    for count in 1..=MIGRATIONS.len() {
        schema::migrate(&mut singly, &MIGRATIONS[..count]).unwrap();
    }
    assert_eq!(tables(&together), tables(&singly));
}

/// Often, since an opener must meet the moment at which another one writes the first pages.
#[test]
fn several_openers_of_a_new_file_all_succeed() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..100 {
        let path = directory.path().join(format!("{round}.db"));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| open(&path).unwrap().put("k", &SnapshotId::new("s")));
            }
        });
        assert_eq!(open(&path).unwrap().len(), 1);
    }
}

#[test]
fn a_commit_on_its_way_is_not_taken_for_damage() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.db");
    drop(open(&path).unwrap());
    // The page count is written before the pages.
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(4096).unwrap();
    assert!(super::header::check(&path).is_err());
    std::fs::write(directory.path().join("registry.db-journal"), "pages").unwrap();
    super::header::check(&path).unwrap();
}

#[test]
fn the_clock_does_not_order_entries() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.db");
    let registry = ImageRegistry::open(&path, NonZeroU64::new(3).unwrap()).unwrap();
    for key in ["a", "b", "c"] {
        registry.put(key, &SnapshotId::new(key));
    }
    // As if all had been used in one instant, and the clock had jumped ahead before.
    let raw = Connection::open(&path).unwrap();
    raw.execute_batch("UPDATE entries SET last_used_us = 9000000000000000")
        .unwrap();
    registry.get("a");
    assert_eq!(
        registry.put("d", &SnapshotId::new("d")),
        [SnapshotId::new("b")]
    );
}

#[test]
fn errors_say_what_was_done_to_what_once() {
    let error = RegistryError::BadState {
        path: "/p".into(),
        reason: "broken".into(),
    };
    let error = error.into_anyhow();
    assert_eq!(format!("{error:#}"), "/p cannot be used: broken");
    let error = RegistryError::Io {
        doing: "write",
        path: "/p".into(),
        source: std::io::ErrorKind::StorageFull.into(),
    };
    let error = error.into_anyhow();
    assert!(matches!(
        error.downcast_ref(),
        Some(hm_vm_core::Error::NoSpace { .. })
    ));
    assert!(error.downcast_ref::<RegistryError>().is_some());
}
