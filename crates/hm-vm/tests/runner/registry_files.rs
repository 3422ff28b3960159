//! Files that are not what they should be.

use std::fs;
use std::num::NonZeroU64;
use std::path::Path;

use hm_vm::{Error, ImageRegistry, SnapshotId};

fn open(path: &Path) -> anyhow::Result<ImageRegistry> {
    ImageRegistry::open(path, NonZeroU64::new(10).unwrap())
}

/// Asserts that the file is refused, and that neither it nor its directory changes.
fn assert_refused(path: &Path, reason: &str) {
    let listing = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let (before, names) = (fs::read(path).ok(), listing(path));
    let error = open(path).unwrap_err();
    match error.downcast_ref::<Error>() {
        Some(Error::BadState {
            path: named,
            reason: told,
        }) => {
            assert_eq!(named, &path.display().to_string());
            assert!(told.contains(reason), "{told}");
        }
        other => panic!("{reason}: {other:?}: {error:#}"),
    }
    assert_eq!(fs::read(path).ok(), before, "{reason}");
    assert_eq!(listing(path), names, "{reason}");
}

/// A registry with an entry, closed.
fn sound(path: &Path) {
    let registry = open(path).unwrap();
    for number in 0..200 {
        registry.put(
            &format!("key {number}"),
            &SnapshotId::new(format!("s{number}")),
        );
    }
}

#[test]
fn foreign_files_are_refused_and_stay_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.db");
    fs::write(&path, "short").unwrap();
    assert_refused(&path, "too short");
    fs::write(&path, "not a database".repeat(100)).unwrap();
    assert_refused(&path, "not a registry");
    fs::remove_file(&path).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)")
        .unwrap();
    drop(other);
    assert_refused(&path, "another program");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_refused(&path, "not a file");
}

#[test]
fn corrupt_files_are_refused_and_stay_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.db");
    sound(&path);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 4096]).unwrap();
    assert_refused(&path, "cut short");
    let mut garbled = whole.clone();
    garbled[100..4096].fill(0xaa);
    fs::write(&path, &garbled).unwrap();
    let error = open(&path).unwrap_err();
    assert!(
        matches!(error.downcast_ref(), Some(Error::BadState { .. })),
        "{error:#}"
    );
    assert_eq!(fs::read(&path).unwrap(), garbled);

    // Damage behind the first page is found when it is met.
    let mut garbled = whole;
    garbled[4096..].fill(0xaa);
    fs::write(&path, &garbled).unwrap();
    let registry = open(&path).unwrap();
    let error = registry.try_get("key 1").unwrap_err();
    assert!(
        matches!(error.downcast_ref(), Some(Error::BadState { .. })),
        "{error:#}"
    );
    assert_eq!(registry.get("key 1"), None);
    assert!(registry.put("key 1", &SnapshotId::new("x")).is_empty());
    drop(registry);
    assert_eq!(fs::read(&path).unwrap(), garbled);
}

#[test]
fn newer_files_are_refused_and_stay_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.db");
    sound(&path);
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.execute_batch("PRAGMA user_version = 99").unwrap();
    // Still in the WAL: the header of the file itself says nothing of it.
    let before = fs::read(&path).unwrap();
    let error = open(&path).unwrap_err();
    assert!(format!("{error:#}").contains("newer version"), "{error:#}");
    assert_eq!(fs::read(&path).unwrap(), before);
    drop(newer);
    assert_refused(&path, "newer version");
}

#[test]
fn an_empty_file_and_missing_folders_are_filled() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/registry.db");
    sound(&path);
    assert_eq!(open(&path).unwrap().len(), 10);
    let empty = directory.path().join("empty.db");
    fs::write(&empty, "").unwrap();
    sound(&empty);
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open(&file.join("sub/registry.db")).unwrap_err();
    assert!(
        format!("{error:#}").contains("create the directory"),
        "{error:#}"
    );
}
