//! Directories that outlive VMs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use hm_vm_store::{Store, StoreError};

use crate::common::{Fixture, assert_clean};

#[track_caller]
fn assert_in_use(result: Result<bool, StoreError>) {
    let error = result.unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    assert!(matches!(
        error.contract(),
        Some(hm_vm_core::Error::InvalidInput { .. })
    ));
}

#[test]
fn a_cache_is_one_directory_for_all() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let first = store.cache_directory("cargo registry/ä\n").unwrap();
    assert!(first.is_relative());
    let path = store.root().join(&first);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
        0o755
    );
    fs::write(path.join("kept"), "x").unwrap();
    let other = Store::open(&fixture.root()).unwrap();
    assert_eq!(other.cache_directory("cargo registry/ä\n").unwrap(), first);
    assert_ne!(other.cache_directory("another").unwrap(), first);
    assert_eq!(fs::read(path.join("kept")).unwrap(), b"x");
    let names: Vec<String> = store
        .caches()
        .unwrap()
        .into_iter()
        .map(|cache| cache.name)
        .collect();
    assert_eq!(names, ["another", "cargo registry/ä\n"]);
    assert_clean(store);
}

#[test]
fn names_have_limits() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    for name in ["", "a\0b", &"x".repeat(201)] {
        assert!(matches!(
            store.cache_directory(name),
            Err(StoreError::InvalidInput { .. })
        ));
        assert!(store.try_lock_cache(name).is_err());
        assert!(store.remove_cache(name).is_err());
    }
    for name in ["..", "/", ".", &"x".repeat(200)] {
        let tree = store.cache_directory(name).unwrap();
        assert!(
            tree.starts_with("caches") && !tree.to_str().unwrap().contains(".."),
            "{tree:?}"
        );
    }
}

#[test]
fn sizes_and_uses_are_told() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let before = SystemTime::now() - Duration::from_secs(1);
    let tree = store.root().join(store.cache_directory("big").unwrap());
    fs::write(tree.join("data"), vec![1; 1 << 20]).unwrap();
    let caches = store.caches().unwrap();
    assert!(
        caches[0].bytes >= 1 << 20 && !caches[0].in_use,
        "{caches:?}"
    );
    assert!(caches[0].last_used >= before);
    let stats = store.stats().unwrap();
    assert_eq!((stats.caches, stats.cache_bytes), (1, caches[0].bytes));
    let held = store.use_cache("big").unwrap();
    assert!(store.caches().unwrap()[0].in_use);
    drop(held);
    assert!(!store.caches().unwrap()[0].in_use);
    // Made an hour older, and used again.
    let users = tree.parent().unwrap().join("users");
    let old = SystemTime::now() - Duration::from_secs(3600);
    fs::File::options()
        .write(true)
        .open(&users)
        .unwrap()
        .set_modified(old)
        .unwrap();
    assert!(store.caches().unwrap()[0].last_used < before);
    store.cache_directory("big").unwrap();
    assert!(store.caches().unwrap()[0].last_used >= before);
}

#[test]
fn turns_are_taken() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let other = Store::open(&fixture.root()).unwrap();
    let alone = store.try_lock_cache("c").unwrap().unwrap();
    assert_eq!(alone.directory(), store.cache_directory("c").unwrap());
    assert!(store.try_lock_cache("c").unwrap().is_none());
    assert!(other.try_lock_cache("c").unwrap().is_none());
    assert!(other.try_share_cache("c").unwrap().is_none());
    assert!(other.try_lock_cache("d").unwrap().is_some());
    // Who only keeps it from being removed is no hindrance, and has none.
    drop(other.use_cache("c").unwrap());
    drop(alone);
    let shared = store.try_share_cache("c").unwrap().unwrap();
    let other_shared = other.try_share_cache("c").unwrap().unwrap();
    assert!(store.try_lock_cache("c").unwrap().is_none());
    drop(shared);
    assert!(store.try_lock_cache("c").unwrap().is_none());
    drop(other_shared);
    assert!(store.try_lock_cache("c").unwrap().is_some());
}

#[test]
fn a_cache_in_use_is_not_removed() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    assert!(!store.remove_cache("c").unwrap());
    let tree = store.root().join(store.cache_directory("c").unwrap());
    fs::write(tree.join("f"), "x").unwrap();
    let held = store.use_cache("c").unwrap();
    assert_in_use(store.remove_cache("c"));
    drop(held);
    let shared = store.try_share_cache("c").unwrap();
    assert_in_use(store.remove_cache("c"));
    drop(shared);
    let alone = store.try_lock_cache("c").unwrap();
    assert_in_use(store.remove_cache("c"));
    assert!(tree.join("f").exists());
    drop(alone);
    assert!(store.remove_cache("c").unwrap());
    assert!(!store.remove_cache("c").unwrap());
    assert!(!tree.exists());
    assert_eq!(store.caches().unwrap(), []);
    assert_clean(store);
    // A new one of the same name is empty.
    let tree = store.root().join(store.cache_directory("c").unwrap());
    assert_eq!(fs::read_dir(tree).unwrap().count(), 0);
}

/// Many threads lock and remove one cache: whoever holds it alone is alone, and its directory is there.
#[test]
fn removal_and_locks_do_not_meet() {
    let fixture = Fixture::new();
    let root = fixture.root();
    let work = |number: usize| {
        let store = Store::open(&root).unwrap();
        move || {
            let mut held = 0;
            for round in 0..200 {
                if (round + number).is_multiple_of(5) {
                    // Refused while somebody has it.
                    let _ = store.remove_cache("c");
                    continue;
                }
                let Some(lock) = store.try_lock_cache("c").unwrap() else {
                    std::thread::yield_now();
                    continue;
                };
                let mark = store.root().join(lock.directory()).join("mark");
                let file = fs::File::options().write(true).create_new(true).open(&mark);
                file.expect("somebody else is in there");
                fs::remove_file(&mark).expect("the cache was removed under the lock");
                held += 1;
            }
            held
        }
    };
    let threads: Vec<_> = (0..4)
        .map(|number| std::thread::spawn(work(number)))
        .collect();
    let held: usize = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .sum();
    assert!(held > 0);
    assert_clean(&fixture.store);
}

const HOLDER: &str = "HM_VM_STORE_TEST_CACHE_HOLDER";

/// A process that holds a cache until it is killed. Does nothing in an ordinary test run.
#[test]
fn hold() {
    let Some(root) = std::env::var_os(HOLDER) else {
        return;
    };
    let store = Store::open(root.as_ref()).unwrap();
    let lock = store.try_lock_cache("c").unwrap().unwrap();
    fs::write(store.root().join(lock.directory()).join("ready"), "").unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a_lock_dies_with_its_process() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let ready = store
        .root()
        .join(store.cache_directory("c").unwrap())
        .join("ready");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "caches::hold", "--nocapture"])
        .env(HOLDER, fixture.root())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !ready.exists() {
        assert!(child.try_wait().unwrap().is_none(), "the holder ended");
        std::thread::yield_now();
    }
    assert!(store.try_lock_cache("c").unwrap().is_none());
    assert_in_use(store.remove_cache("c"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(store.try_lock_cache("c").unwrap().is_some());
    assert!(store.remove_cache("c").unwrap());
}

#[test]
fn what_is_no_cache_is_told() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    store.cache_directory("c").unwrap();
    fs::create_dir(store.root().join("caches/stray")).unwrap();
    let leftovers = store.leftovers().unwrap();
    assert_eq!(leftovers.len(), 1, "{leftovers:?}");
    assert!(leftovers[0].path.ends_with("caches/stray"));
    assert_eq!(store.caches().unwrap().len(), 1);
}
