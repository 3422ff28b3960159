//! What a store refuses to open, unchanged.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use hm_vm_store::{Store, StoreError};

use crate::common::{Fixture, is_root_or_skip};

#[track_caller]
fn assert_refused(root: &Path, words: &str) {
    let error = Store::open(root).unwrap_err();
    assert!(matches!(error, StoreError::BadState { .. }), "{error:?}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(error.contract().is_some());
}

#[test]
fn a_directory_with_other_content() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("thesis.tex"), "x").unwrap();
    assert_refused(directory.path(), "thesis.tex");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_newer_or_foreign_format() {
    let fixture = Fixture::new();
    let format = fixture.root().join("format");
    fs::write(&format, "hm-vm store 2\n").unwrap();
    assert_refused(&fixture.root(), "store format 2");
    fs::write(&format, "something else").unwrap();
    assert_refused(&fixture.root(), "format file");
    assert_eq!(fs::read_to_string(&format).unwrap(), "something else");
}

#[test]
fn a_corrupt_foreign_or_newer_database() {
    let fixture = Fixture::new();
    let root = fixture.root();
    drop(fixture.store);
    let path = root.join("store.db");
    for log in ["store.db-wal", "store.db-shm"] {
        let _ = fs::remove_file(root.join(log));
    }
    let garbage = "not a database at all, but long enough to be one ".repeat(50);
    fs::write(&path, &garbage).unwrap();
    assert_refused(&root, "not a database");
    assert_eq!(fs::read_to_string(&path).unwrap(), garbage);

    fs::remove_file(&path).unwrap();
    let foreign = rusqlite::Connection::open(&path).unwrap();
    foreign
        .execute_batch("CREATE TABLE notes (text); INSERT INTO notes VALUES ('mine')")
        .unwrap();
    assert_refused(&root, "another program");
    let text: String = foreign
        .query_row("SELECT text FROM notes", [], |row| row.get(0))
        .unwrap();
    assert_eq!(text, "mine");
    drop(foreign);

    fs::remove_file(&path).unwrap();
    drop(Store::open(&root).unwrap());
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    assert_refused(&root, "schema version 99");
}

#[test]
fn a_directory_that_others_can_write_to() {
    let directory = tempfile::tempdir().unwrap();
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(directory.path(), open).unwrap();
    assert_refused(directory.path(), "chmod 700");
    // Readable by others only: it is closed.
    let readable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory.path(), readable).unwrap();
    drop(Store::open(directory.path()).unwrap());
    let mode = fs::metadata(directory.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_directory_or_link_of_another_user() {
    if !is_root_or_skip("a_directory_or_link_of_another_user") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (theirs, link) = (
        directory.path().join("theirs"),
        directory.path().join("link"),
    );
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(1000), Some(1000)).unwrap();
    assert_refused(&theirs, "belongs to user 1000");
    std::os::unix::fs::chown(&theirs, Some(0), Some(0)).unwrap();
    symlink(&theirs, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(1000), Some(1000)).unwrap();
    assert_refused(&link, "symbolic link made by user 1000");
}

#[test]
fn a_link_of_ones_own_is_fine() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("link");
    fs::create_dir(directory.path().join("real")).unwrap();
    symlink("real", &link).unwrap();
    drop(Store::open(&link).unwrap());
    assert!(directory.path().join("real/format").exists());
}

#[test]
fn what_an_interrupted_creation_left_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("layers")).unwrap();
    fs::write(directory.path().join(".format-1"), "hm-").unwrap();
    drop(Store::open(directory.path()).unwrap());
    drop(Store::open(directory.path()).unwrap());
}
