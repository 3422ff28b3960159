use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hm_vm_store::inject::{StatCache, Tree, scan};
use tempfile::TempDir;

/// A host directory and a place for stat caches.
pub(super) struct Host {
    _root: TempDir,
    pub(super) dir: PathBuf,
    pub(super) caches: PathBuf,
}

impl Host {
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("project");
        fs::create_dir(&dir).unwrap();
        let caches = root.path().join("caches");
        Self {
            _root: root,
            dir,
            caches,
        }
    }

    pub(super) fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(super) fn scan(&self) -> Tree {
        scan(&self.dir, &StatCache::disabled()).unwrap()
    }

    pub(super) fn scan_cached(&self) -> Tree {
        scan(&self.dir, &StatCache::new(&self.caches)).unwrap()
    }

    /// The file of the only cache.
    pub(super) fn cache_file(&self) -> PathBuf {
        let mut files: Vec<_> = fs::read_dir(&self.caches)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files.remove(0)
    }
}

pub(super) fn paths(tree: &Tree) -> Vec<String> {
    tree.entries()
        .map(|entry| String::from_utf8_lossy(entry.path).into_owned())
        .collect()
}

pub(super) fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

pub(super) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
