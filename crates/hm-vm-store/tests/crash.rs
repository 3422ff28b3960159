//! Death by SIGKILL at random moments.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use hm_vm_store::{Base, Store};

use crate::common::{Fixture, assert_clean, contents, open_after_kill, read, write};
use crate::worker;

/// How long the killing goes on, and how often it happens at most.
const TIME: Duration = Duration::from_secs(20);
const TIMES: u32 = 300;

#[test]
fn a_killed_process_leaves_a_whole_store() {
    let fixture = Fixture::new();
    let root = fixture.root();
    let tree = fixture.directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for number in 0..20 {
        fs::write(tree.join(format!("f{number}")), format!("{number}")).unwrap();
    }
    drop(fixture.store);
    let started = Instant::now();
    let mut killed = 0;
    while killed < TIMES && started.elapsed() < TIME {
        let mut child = worker::start(&root, 1000);
        let moment = Duration::from_micros(2_000 + u64::from(killed) * 7919 % 60_000);
        let alive = Instant::now();
        // Not a sleep that stands for an event: the moment of death is the input of the test.
        std::thread::sleep(moment);
        assert!(alive.elapsed() >= moment);
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
        if killed % 10 == 0 {
            check(&open_after_kill(&root));
        }
    }
    check(&open_after_kill(&root));
    assert!(killed >= 50, "only {killed} kills in {TIME:?}");
}

/// Every snapshot can be read and forked, and nothing is left over.
#[track_caller]
fn check(store: &Store) {
    assert_clean(store);
    assert_eq!(store.stats().unwrap().vms, 0);
    assert_eq!(crate::common::entries(store, "vms"), 0);
    assert_eq!(crate::common::entries(store, "sessions"), 1);
    for cache in store.caches().unwrap() {
        assert!(
            cache.name.starts_with("cache ") && !cache.in_use,
            "{cache:?}"
        );
        assert!(store.try_lock_cache(&cache.name).unwrap().is_some());
    }
    for info in store.snapshots().unwrap() {
        let view = store.view(&info.id).unwrap();
        let label = info.label.unwrap();
        let step: u32 = label.strip_prefix("step ").unwrap().parse().unwrap();
        assert_eq!(read(&view, "/last"), step.to_string());
        let files = contents(&view);
        let expected: BTreeSet<String> = (0..=step)
            .filter(|old| !(old % 3 == 2 && *old < step))
            .map(|old| format!("/d/{old}"))
            .collect();
        let found: BTreeSet<String> = files
            .keys()
            .map(|path| path.display().to_string())
            .filter(|path| path.starts_with("/d/"))
            .collect();
        assert_eq!(found, expected, "{label}");
        let injected = files
            .keys()
            .filter(|path| path.parent() == Some(Path::new("/src")))
            .count();
        assert_eq!(injected, if step >= 5 { 20 } else { 0 }, "{label}");
    }
    let vm = store.new_vm(Base::Image("base")).unwrap();
    write(store, &vm, "last", "x");
    let snapshot = vm.commit(None).unwrap();
    vm.remove().unwrap();
    store.remove_snapshot(&snapshot).unwrap();
    assert_clean(store);
}

#[test]
fn what_a_dead_session_left_is_taken_over() {
    let fixture = Fixture::new();
    let root = fixture.root();
    let tree = fixture.directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let mut child = worker::start(&root, 1_000_000);
    // Until it has a VM.
    while crate::common::entries(&fixture.store, "vms") == 0 {
        assert!(child.try_wait().unwrap().is_none(), "the worker ended");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let leftovers = fixture.store.leftovers().unwrap();
    assert!(
        leftovers
            .iter()
            .any(|leftover| leftover.what.contains("session")),
        "{leftovers:?}"
    );
    let other = Store::open(&root).unwrap();
    assert_clean(&other);
    assert_eq!(crate::common::entries(&other, "vms"), 0);
}
