//! What several tests need.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use hm_vm_store::{Base, FileKind, Lower, Store, View, VmFiles};
use tempfile::TempDir;

/// A store of its own, with an image `base`.
pub(crate) struct Fixture {
    pub(crate) directory: TempDir,
    pub(crate) store: Store,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let root = directory.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
        fs::write(root.join("etc/passwd"), "root:x:0:0\n").unwrap();
        fs::create_dir(root.join("tmp")).unwrap();
        store.import_image(&root, "base").unwrap();
        Self { directory, store }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    pub(crate) fn vm(&self) -> VmFiles {
        self.store.new_vm(Base::Image("base")).unwrap()
    }
}

/// Path of a VM's writable directory.
pub(crate) fn upper(store: &Store, vm: &VmFiles) -> PathBuf {
    store.root().join(vm.upper())
}

/// Writes a file as a command in the VM would.
pub(crate) fn write(store: &Store, vm: &VmFiles, path: &str, content: &str) {
    let path = upper(store, vm).join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Deletes a file of a lower layer as overlayfs does.
pub(crate) fn white_out(store: &Store, vm: &VmFiles, path: &str) {
    make_whiteout(&upper(store, vm).join(path));
}

pub(crate) fn make_whiteout(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
}

pub(crate) fn read(view: &View, path: &str) -> String {
    let mut content = Vec::new();
    view.copy_file_to(Path::new(path), &mut content).unwrap();
    String::from_utf8(content).unwrap()
}

/// Every path of a view, with what is there.
pub(crate) fn contents(view: &View) -> BTreeMap<PathBuf, String> {
    let describe = |entry: hm_vm_store::WalkEntry| {
        let text = match entry.metadata.kind {
            FileKind::File => {
                let mut content = Vec::new();
                view.copy_file_to(&entry.path, &mut content).unwrap();
                String::from_utf8_lossy(&content).into_owned()
            }
            FileKind::Symlink => view.read_link(&entry.path).unwrap().display().to_string(),
            other => format!("{other:?} {:o}", entry.metadata.mode),
        };
        (entry.path, text)
    };
    view.walk().unwrap().into_iter().map(describe).collect()
}

pub(crate) fn layer_count(vm: &VmFiles) -> usize {
    vm.lowers()
        .iter()
        .filter(|lower| matches!(lower, Lower::Layer(_)))
        .count()
}

/// Numbers of entries in a directory of the store.
pub(crate) fn entries(store: &Store, directory: &str) -> usize {
    fs::read_dir(store.root().join(directory)).unwrap().count()
}

/// Nothing is left of what is not referred to.
#[track_caller]
pub(crate) fn assert_clean(store: &Store) {
    store.flush().unwrap();
    assert_eq!(store.leftovers().unwrap(), []);
    assert_eq!(entries(store, "trash"), 0, "trash");
    assert_eq!(entries(store, "tmp"), 0, "tmp");
}

/// Opens a store whose user was killed, once nobody else holds it: work inside a user namespace is done by a process
/// that dies a moment after its parent, and holds the session until then.
pub(crate) fn open_after_kill(root: &std::path::Path) -> Store {
    let began = std::time::Instant::now();
    loop {
        let store = Store::open(root).unwrap();
        if entries(&store, "sessions") == 1 || began.elapsed().as_secs() > 10 {
            return store;
        }
    }
}

/// Skips a test visibly where a privilege is missing; fails it where CI promises the privilege.
#[must_use]
pub(crate) fn is_root_or_skip(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        assert!(
            std::env::var_os("HMVM_TEST_REQUIRE_ALL").is_none(),
            "{test} needs root"
        );
        eprintln!("SKIPPED {test}: needs root");
    }
    is_root
}
