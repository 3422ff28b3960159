//! Injects, as the store wires them.

use std::fs;

use hm_vm_store::{Base, Lower, StoreError};

use crate::common::{Fixture, assert_clean, entries, read, write};

#[test]
fn an_unchanged_tree_is_not_copied_again() {
    let fixture = Fixture::new();
    let tree = fixture.directory.path().join("tree");
    fs::create_dir_all(tree.join("src")).unwrap();
    fs::write(tree.join("src/main.c"), "int main;").unwrap();
    let vm = fixture.vm();
    let first = vm.inject(&tree, "/work").unwrap();
    assert!(!first.reused);
    assert_eq!(first.files_copied, 1);
    assert_eq!(first.digest, fixture.store.inject_digest(&tree).unwrap());
    let layers = entries(&fixture.store, "layers");
    // Another VM, and after this one is gone as well.
    vm.remove().unwrap();
    let vm = fixture.vm();
    assert!(vm.inject(&tree, "/work").unwrap().reused);
    assert_eq!(entries(&fixture.store, "layers"), layers);
    let snapshot = vm.commit(None).unwrap();
    let view = fixture.store.view(&snapshot).unwrap();
    assert_eq!(read(&view, "/work/src/main.c"), "int main;");
    drop(view);
    vm.remove().unwrap();
    fixture.store.remove_snapshot(&snapshot).unwrap();
    assert_clean(&fixture.store);
    assert_eq!(fixture.store.stats().unwrap().unused_layers, 1);
    assert_eq!(fixture.store.collect_unused().unwrap().layers, 1);
    assert_clean(&fixture.store);
    assert_eq!(entries(&fixture.store, "layers"), 1);
}

#[test]
fn a_second_inject_replaces_the_first_and_spares_what_was_built() {
    let fixture = Fixture::new();
    let tree = fixture.directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("a.c"), "a").unwrap();
    fs::write(tree.join("b.c"), "b").unwrap();
    let vm = fixture.vm();
    vm.inject(&tree, "/work").unwrap();
    write(&fixture.store, &vm, "work/a.o", "object");
    write(&fixture.store, &vm, "work/a.c", "changed by the guest");
    let built = vm.commit(None).unwrap();
    vm.remove().unwrap();

    fs::remove_file(tree.join("b.c")).unwrap();
    let vm = fixture.store.new_vm(Base::Snapshot(&built)).unwrap();
    vm.inject(&tree, "/work").unwrap();
    let snapshot = vm.commit(None).unwrap();
    let view = fixture.store.view(&snapshot).unwrap();
    assert_eq!(read(&view, "/work/a.o"), "object");
    assert_eq!(read(&view, "/work/a.c"), "a");
    assert!(view.metadata("/work/b.c".as_ref()).is_err());
}

#[test]
fn the_same_layer_is_never_twice_in_a_stack() {
    let fixture = Fixture::new();
    let tree = fixture.directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("a"), "host").unwrap();
    let vm = fixture.vm();
    for round in 0..3 {
        vm.inject(&tree, "/work").unwrap();
        write(&fixture.store, &vm, "work/a", &format!("guest {round}"));
        write(&fixture.store, &vm, &format!("made{round}"), "x");
    }
    vm.inject(&tree, "/work").unwrap();
    let lowers = vm.lowers();
    let mut layers: Vec<_> = lowers
        .iter()
        .filter_map(|lower| match lower {
            Lower::Layer(path) => Some(path),
            Lower::HostRoot => None,
        })
        .collect();
    let all = layers.len();
    layers.sort();
    layers.dedup();
    assert_eq!(layers.len(), all);
    let snapshot = vm.commit(None).unwrap();
    let view = fixture.store.view(&snapshot).unwrap();
    assert_eq!(read(&view, "/work/a"), "host");
    assert_eq!(read(&view, "/made0") + &read(&view, "/made2"), "xx");
}

#[test]
fn guest_paths_go_through_links_inside_the_guest() {
    let fixture = Fixture::new();
    let tree = fixture.directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("a"), "host").unwrap();
    let vm = fixture.vm();
    let root = crate::common::upper(&fixture.store, &vm);
    std::os::unix::fs::symlink("/var/real", root.join("work")).unwrap();
    vm.inject(&tree, "/work/sub/../sub").unwrap();
    let snapshot = vm.commit(None).unwrap();
    let view = fixture.store.view(&snapshot).unwrap();
    assert_eq!(read(&view, "/var/real/sub/a"), "host");
    assert_eq!(read(&view, "/work/sub/a"), "host");
}

#[test]
fn wrong_paths_change_nothing() {
    let fixture = Fixture::new();
    let tree = fixture.directory.path().join("tree");
    let vm = fixture.vm();
    assert!(vm.inject(&tree, "/work").unwrap_err().contract().is_some());
    fs::create_dir(&tree).unwrap();
    for guest in ["work", "", "/etc/hosts", "/etc/hosts/x"] {
        let error = vm.inject(&tree, guest).unwrap_err();
        assert!(
            matches!(
                error.contract(),
                Some(hm_vm_core::Error::InvalidInput { .. })
            ),
            "{guest}: {error:?}"
        );
    }
    assert_eq!(vm.lowers().len(), 1);
    vm.remove().unwrap();
    assert!(matches!(
        vm.inject(&tree, "/work"),
        Err(StoreError::VmRemoved { .. })
    ));
}

#[test]
fn a_part_of_a_directory_replaces_what_was_injected_before() {
    use hm_vm_core::InjectSource;
    let fixture = Fixture::new();
    let tree = fixture.directory.path().join("tree");
    fs::create_dir_all(tree.join("src")).unwrap();
    for path in ["src/a.c", "src/b.c", "notes.md"] {
        fs::write(tree.join(path), path).unwrap();
    }
    let store = &fixture.store;
    let plain = InjectSource::directory(&tree);
    let part = InjectSource {
        include: vec!["/src".into()],
        exclude: vec!["b.c".into()],
        ..plain.clone()
    };
    assert_eq!(
        store.inject_digest(&tree).unwrap(),
        store.inject_digest_of(&plain).unwrap()
    );
    let vm = fixture.vm();
    vm.inject_from(&plain, "/work").unwrap();
    write(store, &vm, "work/made", "by the guest");
    let report = vm.inject_from(&part, "/work").unwrap();
    assert_eq!(report.digest, store.inject_digest_of(&part).unwrap());
    assert_eq!((report.files_copied, report.files_linked), (0, 1));
    let names = |snapshot| {
        let view = store.view(&snapshot).unwrap();
        let names = crate::common::contents(&view).into_keys();
        names
            .filter(|path| path.starts_with("/work"))
            .collect::<Vec<_>>()
    };
    let snapshot = vm.commit(None).unwrap();
    let expected = ["/work", "/work/made", "/work/src", "/work/src/a.c"];
    assert_eq!(
        names(snapshot.clone()),
        expected.map(std::path::PathBuf::from)
    );
    // In a fork, and back to the whole: the layer of the first inject serves again.
    let vm = store.new_vm(Base::Snapshot(&snapshot)).unwrap();
    vm.inject(&tree, "/work").unwrap();
    assert_eq!(names(vm.commit(None).unwrap()).len(), 6);
    let vm = fixture.vm();
    vm.inject_from(&part, "/work").unwrap();
    let other = fixture.vm();
    assert!(other.inject_from(&part, "/work").unwrap().reused);
    let entries = store.inject_entries(&part).unwrap();
    let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["src/a.c"]);
}

#[test]
fn entries_tell_content_and_mode() {
    use hm_vm_core::InjectSource;
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new();
    let tree = fixture.directory.path().join("tree");
    fs::create_dir_all(tree.join("d")).unwrap();
    fs::write(tree.join("d/file"), "1").unwrap();
    std::os::unix::fs::symlink("x", tree.join("link")).unwrap();
    let look = || {
        let source = InjectSource::directory(&tree);
        fixture.store.inject_entries(&source).unwrap()
    };
    let first = look();
    assert_eq!(first.len(), 2);
    assert_eq!(first, look());
    fs::write(tree.join("d/file"), "2").unwrap();
    let second = look();
    assert_ne!(first[0].digest, second[0].digest);
    assert_eq!(first[1], second[1]);
    fs::set_permissions(tree.join("d/file"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_ne!(look()[0].digest, second[0].digest);
    fs::remove_file(tree.join("link")).unwrap();
    std::os::unix::fs::symlink("y", tree.join("link")).unwrap();
    assert_ne!(look()[1].digest, second[1].digest);
}
