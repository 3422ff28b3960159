//! A disk that is full.

use std::fs;
use std::path::Path;
use std::process::Command;

use hm_vm_store::{Base, Store, StoreError};

use crate::common::{assert_clean, is_root_or_skip, read, write};

/// A small file system, unmounted when dropped.
struct Small {
    directory: tempfile::TempDir,
}

impl Small {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m,mode=700", "hm-vm-store-test"])
            .arg(directory.path())
            .status()
            .unwrap();
        assert!(status.success());
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.directory.path())
            .status();
    }
}

/// Fills the file system to the last byte.
fn fill(path: &Path) {
    let mut size = 1 << 20;
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    while size > 0 {
        use std::io::Write;
        if file.write_all(&vec![b'x'; size]).is_err() {
            size /= 2;
        }
    }
}

#[test]
fn the_store_stays_whole() {
    if !is_root_or_skip("the_store_stays_whole") {
        return;
    }
    let small = Small::new();
    let store = Store::open(&small.path().join("store")).unwrap();
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), "content").unwrap();
    store.import_image(tree.path(), "base").unwrap();
    let vm = store.new_vm(Base::Image("base")).unwrap();
    write(&store, &vm, "a", "1");
    let snapshot = vm.commit(None).unwrap();
    write(&store, &vm, "b", "2");
    store.flush().unwrap();

    let ballast = small.path().join("ballast");
    fill(&ballast);
    let big = tempfile::tempdir().unwrap();
    fs::write(big.path().join("big"), vec![1; 1 << 20]).unwrap();
    for error in [
        vm.inject(big.path(), "/src").map(|_| ()).unwrap_err(),
        store
            .import_image(big.path(), "other")
            .map(|_| ())
            .unwrap_err(),
    ] {
        assert!(error.is_no_space(), "{error:?}");
        assert!(matches!(
            error.contract(),
            Some(hm_vm_core::Error::NoSpace { .. })
        ));
    }
    // A commit needs little; it works or fails as a whole.
    let committed: Result<_, StoreError> = vm.commit(None);
    assert!(store.snapshot_exists(&snapshot).unwrap());
    assert_eq!(
        read(
            &store.view(&snapshot).unwrap_or_else(|_| {
                fs::remove_file(&ballast).unwrap();
                store.view(&snapshot).unwrap()
            }),
            "/a"
        ),
        "1"
    );
    let _ = fs::remove_file(&ballast);

    let second = committed.or_else(|_| vm.commit(None)).unwrap();
    let view = store.view(&second).unwrap();
    assert_eq!(read(&view, "/a") + &read(&view, "/b"), "12");
    drop(view);
    drop(vm);
    drop(store);
    let store = Store::open(&small.path().join("store")).unwrap();
    assert_clean(&store);
    assert_eq!(store.snapshots().unwrap().len(), 2);
    assert_eq!(store.images().unwrap().len(), 1);
}
