//! A process that uses a store until it is killed. The test program is started again for it, with
//! the store's directory in its environment.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hm_vm_core::SnapshotId;
use hm_vm_store::{Base, Store};

use crate::common::{white_out, write};

const ROOT: &str = "HM_VM_STORE_TEST_WORKER";
const PULL: &str = "HM_VM_STORE_TEST_PULL";
const ROUNDS: &str = "HM_VM_STORE_TEST_ROUNDS";

/// Starts a worker on a store. It ends by itself after `rounds`.
pub(crate) fn start(root: &Path, rounds: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker::work", "--nocapture"])
        .env(ROOT, root)
        .env(ROUNDS, rounds.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Starts a worker that pulls an image until it is killed.
pub(crate) fn start_pulling(root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker::pull", "--nocapture"])
        .env(PULL, root)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// That worker's task. Does nothing in an ordinary test run.
#[test]
fn pull() {
    if let Some(root) = std::env::var_os(PULL) {
        crate::pulling::kill_me(Path::new(&root));
    }
}

/// The worker's task. Does nothing in an ordinary test run.
#[test]
fn work() {
    let Some(root) = std::env::var_os(ROOT) else {
        return;
    };
    let rounds: u32 = std::env::var(ROUNDS).unwrap().parse().unwrap();
    let store = Store::open(&PathBuf::from(root)).unwrap();
    let host = store.root().join("../tree");
    for round in 0..rounds {
        one_round(&store, round, &host);
    }
}

/// A chain of snapshots, some of which are removed again; all hold files that tell their round.
fn one_round(store: &Store, round: u32, host: &Path) {
    let vm = store.new_vm(Base::Image("base")).unwrap();
    let mut kept: Vec<SnapshotId> = Vec::new();
    for step in 0..12 {
        write(store, &vm, &format!("d/{step}"), &format!("{step}"));
        write(store, &vm, "last", &format!("{step}"));
        if step > 0 && step % 3 == 0 {
            white_out(store, &vm, &format!("d/{}", step - 1));
        }
        if step == 5 {
            vm.inject(host, "/src").unwrap();
        }
        kept.push(vm.commit(Some(&format!("step {step}"))).unwrap());
        if step % 4 == 1 {
            store.remove_snapshot(&kept.remove(0)).unwrap();
        }
    }
    use_caches(store, round);
    let fork = store.new_vm(Base::Snapshot(&kept[0])).unwrap();
    write(store, &fork, "forked", "yes");
    if round.is_multiple_of(3) {
        store.collect_unused().unwrap();
    }
    fork.remove().unwrap();
    // All but the last ones go, so that the store does not grow without end.
    for snapshot in &kept[..kept.len() - 2] {
        store.remove_snapshot(snapshot).unwrap();
    }
    for old in store.snapshots().unwrap().iter().rev().skip(40) {
        store.remove_snapshot(&old.id).unwrap();
    }
}

/// Caches come and go, and are held. Other workers may have one just now.
fn use_caches(store: &Store, round: u32) {
    let name = format!("cache {}", round % 3);
    if let Some(lock) = store.try_lock_cache(&name).unwrap() {
        let file = store.root().join(lock.directory()).join("kept");
        std::fs::write(file, &name).unwrap();
    }
    let _ = store.remove_cache(&format!("cache {}", (round + 1) % 3));
}
