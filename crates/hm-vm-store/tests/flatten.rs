//! Chains of many snapshots.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hm_vm_core::SnapshotId;
use hm_vm_store::Base;

use crate::common::{Fixture, assert_clean, contents, entries, layer_count, white_out, write};

fn expected(step: u32) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::from([("/counter".into(), step.to_string())]);
    for old in step.saturating_sub(4)..=step {
        files.insert(format!("/d/{old}").into(), old.to_string());
    }
    files
}

fn found(fixture: &Fixture, snapshot: &SnapshotId) -> BTreeMap<PathBuf, String> {
    contents(&fixture.store.view(snapshot).unwrap())
        .into_iter()
        .filter(|(path, _)| path.starts_with("/d/") || path.ends_with("counter"))
        .filter(|(path, _)| path.as_os_str() != "/d")
        .collect()
}

#[test]
fn a_thousand_snapshots_stay_quick_to_restore() {
    let fixture = Fixture::new();
    let mut chain: Vec<SnapshotId> = Vec::new();
    let mut vm = fixture.vm();
    for step in 0..1000u32 {
        write(&fixture.store, &vm, "counter", &step.to_string());
        write(&fixture.store, &vm, &format!("d/{step}"), &step.to_string());
        if let Some(old) = step.checked_sub(5) {
            white_out(&fixture.store, &vm, &format!("d/{old}"));
        }
        chain.push(vm.commit(None).unwrap());
        // Both ways to go on: in the same VM, and in forks.
        if step % 3 == 0 {
            vm = fixture
                .store
                .new_vm(Base::Snapshot(&chain[chain.len() - 1]))
                .unwrap();
        }
        assert!(layer_count(&vm) <= 60, "{} layers", layer_count(&vm));
    }
    drop(vm);
    fixture.store.flush().unwrap();
    let last = fixture.store.snapshot(&chain[999]).unwrap().unwrap();
    assert_eq!(last.depth, 1000);
    assert!(last.layers <= 30, "{} layers", last.layers);
    for step in [0, 1, 7, 8, 9, 63, 64, 500, 998, 999] {
        let index = usize::try_from(step).unwrap();
        assert_eq!(found(&fixture, &chain[index]), expected(step), "{step}");
    }
    let (last, rest) = chain.split_last().unwrap();
    for snapshot in rest {
        fixture.store.remove_snapshot(snapshot).unwrap();
    }
    assert_clean(&fixture.store);
    assert_eq!(found(&fixture, last), expected(999));
    let layers = fixture.store.snapshot(last).unwrap().unwrap().layers;
    assert_eq!(entries(&fixture.store, "layers"), layers as usize);
}

#[test]
fn a_vm_keeps_its_layers_while_its_snapshot_is_flattened() {
    let fixture = Fixture::new();
    let vm = fixture.vm();
    let mut last = None;
    for step in 0..8 {
        write(&fixture.store, &vm, &format!("f{step}"), "x");
        last = Some(vm.commit(None).unwrap());
    }
    let before = vm.lowers();
    fixture.store.flush().unwrap();
    assert_eq!(vm.lowers(), before);
    for lower in before {
        if let hm_vm_store::Lower::Layer(path) = lower {
            assert!(fixture.root().join(path).is_dir());
        }
    }
    let last = last.unwrap();
    assert_eq!(fixture.store.snapshot(&last).unwrap().unwrap().layers, 2);
    // It changes over to the short chain when it commits the next time.
    write(&fixture.store, &vm, "more", "x");
    vm.commit(None).unwrap();
    assert_eq!(layer_count(&vm), 3);
}
