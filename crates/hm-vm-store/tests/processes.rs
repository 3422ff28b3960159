//! Several processes, and several threads, on one store at once.

use std::fs;
use std::sync::Arc;

use hm_vm_store::{Base, Store};

use crate::common::{Fixture, assert_clean, entries, read, write};
use crate::worker;

#[test]
fn two_processes_do_not_disturb_each_other() {
    let fixture = Fixture::new();
    let tree = fixture.directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("f"), "x").unwrap();
    let mut children = [
        worker::start(&fixture.root(), 8),
        worker::start(&fixture.root(), 8),
    ];
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let store = Store::open(&fixture.root()).unwrap();
    for info in store.snapshots().unwrap() {
        let step = info.label.unwrap();
        let view = store.view(&info.id).unwrap();
        assert_eq!(format!("step {}", read(&view, "/last")), step);
    }
    assert_clean(&store);
}

#[test]
fn opening_does_not_harm_a_living_session() {
    let fixture = Fixture::new();
    let vm = fixture.vm();
    write(&fixture.store, &vm, "a", "1");
    let other = Store::open(&fixture.root()).unwrap();
    other.collect_unused().unwrap();
    assert_clean(&other);
    let snapshot = vm.commit(None).unwrap();
    assert_eq!(read(&other.view(&snapshot).unwrap(), "/a"), "1");
    other.remove_snapshot(&snapshot).unwrap();
    drop(other);
    write(&fixture.store, &vm, "b", "2");
    let second = vm.commit(None).unwrap();
    let view = fixture.store.view(&second).unwrap();
    assert_eq!(read(&view, "/a") + &read(&view, "/b"), "12");
}

#[test]
fn many_threads_fork_one_snapshot() {
    let fixture = Arc::new(Fixture::new());
    let vm = fixture.vm();
    write(&fixture.store, &vm, "a", "1");
    let base = vm.commit(None).unwrap();
    vm.remove().unwrap();
    let work = |number: usize| {
        let (fixture, base) = (Arc::clone(&fixture), base.clone());
        std::thread::spawn(move || {
            let vm = fixture.store.new_vm(Base::Snapshot(&base)).unwrap();
            write(&fixture.store, &vm, "mine", &number.to_string());
            let snapshot = vm.commit(None).unwrap();
            vm.remove().unwrap();
            let view = fixture.store.view(&snapshot).unwrap();
            assert_eq!(read(&view, "/a"), "1");
            assert_eq!(read(&view, "/mine"), number.to_string());
        })
    };
    for thread in (0..16).map(work).collect::<Vec<_>>() {
        thread.join().unwrap();
    }
    assert_eq!(entries(&fixture.store, "vms"), 0);
    assert_clean(&fixture.store);
}
