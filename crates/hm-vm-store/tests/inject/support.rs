use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

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

/// Makes all files old enough for the cache to trust them.
pub(super) fn settle(host: &Host) {
    let newest = walk_ctimes(&host.dir).into_iter().max().unwrap();
    while SystemTime::now() < newest + Duration::from_millis(60) {
        std::thread::yield_now();
    }
}

fn walk_ctimes(dir: &Path) -> Vec<SystemTime> {
    use std::os::unix::fs::MetadataExt;
    let mut times = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let stat = entry.metadata().unwrap();
        let nanoseconds = u32::try_from(stat.ctime_nsec()).unwrap();
        let seconds = u64::try_from(stat.ctime()).unwrap();
        times.push(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds));
        if stat.is_dir() {
            times.extend(walk_ctimes(&entry.path()));
        }
    }
    times
}

/// Replaces the hash of every file in the cache by another, with a valid checksum: a scan that
/// uses the cache gives another digest then.
pub(super) fn poison(host: &Host, content: &[u8]) {
    let path = host.cache_file();
    let mut bytes = fs::read(&path).unwrap();
    let hash = blake3::hash(content);
    let at = bytes
        .windows(32)
        .position(|window| window == hash.as_bytes())
        .unwrap();
    bytes[at] ^= 1;
    let end = bytes.len() - 32;
    let checksum = blake3::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(checksum.as_bytes());
    fs::write(&path, bytes).unwrap();
}
