//! What is left after a loss of power, played by another boot id.

use std::fs;

use hm_vm_store::{Base, Store, StoreError};

use crate::common::{Fixture, assert_clean, entries, read, write};

fn reopen(fixture: &Fixture, boot: &str) -> Store {
    Store::open_in_boot(&fixture.root(), boot.to_owned()).unwrap()
}

#[test]
fn what_was_never_durable_is_dropped() {
    let mut fixture = Fixture::new();
    fixture.store.flush().unwrap();
    let vm = fixture.vm();
    write(&fixture.store, &vm, "a", "1");
    let durable = vm.commit(None).unwrap();
    fixture.store.flush().unwrap();
    drop(vm);
    // A store that gets no time to sync: dropped within the delay.
    fixture.store = reopen(&fixture, "boot one");
    let vm = fixture.store.new_vm(Base::Snapshot(&durable)).unwrap();
    write(&fixture.store, &vm, "b", "2");
    let lost = vm.commit(None).unwrap();
    drop(vm);
    let info = fixture.store.snapshot(&lost).unwrap().unwrap();
    if info.durable {
        // The machine was so slow that the sync came first: nothing to see.
        return;
    }
    // Leave the database as it is now, as a loss of power would.
    let copy = fixture.directory.path().join("copy");
    copy_store(&fixture.root(), &copy);
    let store = Store::open_in_boot(&copy, "boot two".into()).unwrap();
    assert!(store.snapshot_exists(&durable).unwrap());
    assert!(!store.snapshot_exists(&lost).unwrap());
    assert_eq!(read(&store.view(&durable).unwrap(), "/a"), "1");
    assert_clean(&store);
    assert_eq!(entries(&store, "layers"), 2);
}

#[test]
fn within_one_boot_nothing_is_dropped() {
    let fixture = Fixture::new();
    fixture.store.flush().unwrap();
    let store = reopen(&fixture, "boot one");
    let vm = store.new_vm(Base::Image("base")).unwrap();
    write(&store, &vm, "a", "1");
    let snapshot = vm.commit(None).unwrap();
    drop((vm, store));
    let store = reopen(&fixture, "boot one");
    assert_eq!(read(&store.view(&snapshot).unwrap(), "/a"), "1");
}

#[test]
fn an_image_that_was_never_durable_is_dropped_with_what_stands_on_it() {
    let fixture = Fixture::new();
    fixture.store.flush().unwrap();
    let database = rusqlite::Connection::open(fixture.root().join("store.db")).unwrap();
    let vm = fixture.vm();
    write(&fixture.store, &vm, "a", "1");
    let snapshot = vm.commit(None).unwrap();
    drop(vm);
    fixture.store.flush().unwrap();
    database
        .execute_batch(
            "UPDATE layers SET durable = 0, boot = 'old' WHERE kind = 1;
             UPDATE images SET durable = 0, boot = 'old'",
        )
        .unwrap();
    let store = reopen(&fixture, "new");
    assert_eq!(store.images().unwrap(), []);
    assert!(!store.snapshot_exists(&snapshot).unwrap());
    assert!(matches!(
        store.new_vm(Base::Image("base")),
        Err(StoreError::ImageNotFound { .. })
    ));
    assert_clean(&store);
    assert_eq!(entries(&store, "layers"), 0);
}

#[test]
fn the_first_opening_in_a_boot_compares_rows_and_directories() {
    let fixture = Fixture::new();
    let vm = fixture.vm();
    write(&fixture.store, &vm, "a", "1");
    let whole = vm.commit(None).unwrap();
    write(&fixture.store, &vm, "b", "2");
    let broken = vm.commit(None).unwrap();
    drop(vm);
    fixture.store.flush().unwrap();
    let layers = fixture.root().join("layers");
    let newest = fs::read_dir(&layers)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok())
        .max()
        .unwrap();
    fs::remove_dir_all(layers.join(newest.to_string())).unwrap();
    fs::create_dir_all(layers.join("4711/tree")).unwrap();
    fs::create_dir_all(fixture.root().join("vms/4712/upper")).unwrap();
    assert_eq!(fixture.store.leftovers().unwrap().len(), 3);
    let store = reopen(&fixture, "another boot");
    assert!(store.snapshot_exists(&whole).unwrap());
    assert!(!store.snapshot_exists(&broken).unwrap());
    assert_clean(&store);
}

/// Copies a store that may be at work: a file that goes away meanwhile fails the copy, which is
/// then made again.
fn copy_store(from: &std::path::Path, to: &std::path::Path) {
    for _ in 0..50 {
        let status = std::process::Command::new("cp")
            .arg("-a")
            .args([from, to])
            .status()
            .unwrap();
        if status.success() {
            return;
        }
        fs::remove_dir_all(to).unwrap();
    }
    panic!("the store never held still");
}
