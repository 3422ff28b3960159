//! Directories for tests, on a file system where overlays can have their upper directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A temporary directory that is removed in the end, with all that a backend put there.
#[derive(Debug)]
pub struct TestRoot {
    dir: tempfile::TempDir,
}

impl TestRoot {
    /// Makes one. Prefers the directory that cargo gives to tests, then `/var/tmp`, and takes
    /// memory file systems last: not every kernel allows an overlay to write to them.
    ///
    /// # Errors
    ///
    /// When no directory can be made anywhere.
    pub fn new() -> Result<Self> {
        let own = std::env::var_os("HMVM_TEST_TMPDIR").map(PathBuf::from);
        let cargo = std::env::var_os("CARGO_TARGET_TMPDIR").map(PathBuf::from);
        let fixed = ["/var/tmp", "/tmp"].map(PathBuf::from);
        let places: Vec<PathBuf> = own.into_iter().chain(cargo).chain(fixed).collect();
        let (memory, disk): (Vec<_>, Vec<_>) = places
            .into_iter()
            .partition(|place| in_memory_or_overlay(place));
        let mut last = None;
        for place in disk.iter().chain(&memory) {
            // Short names: old kernels take a page of mount options, paths included.
            match tempfile::Builder::new()
                .prefix("hmvm-")
                .rand_bytes(8)
                .tempdir_in(place)
            {
                Ok(dir) => return Ok(Self { dir }),
                Err(error) => last = Some(error),
            }
        }
        let error = last.unwrap_or_else(|| std::io::ErrorKind::NotFound.into());
        Err(error).context("making a directory for a test")
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path below it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for TestRoot {
    fn drop(&mut self) {
        // A backend that still cleans up in the background removes files under our hands, which
        // ends a removal half-way.
        for _ in 0..100 {
            match std::fs::remove_dir_all(self.dir.path()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {}
                _ if self.dir.path().exists() => {}
                _ => return,
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

fn in_memory_or_overlay(place: &Path) -> bool {
    /// `TMPFS_MAGIC` and `OVERLAYFS_SUPER_MAGIC` of `linux/magic.h`.
    const UNFIT: [u64; 2] = [0x0102_1994, 0x794c_7630];
    // A place that cannot be asked is a place that cannot be used either.
    rustix::fs::statfs(place).map_or(true, |stat| UNFIT.contains(&(stat.f_type as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_apart_and_go_away() {
        let one = TestRoot::new().unwrap();
        let two = TestRoot::new().unwrap();
        assert_ne!(one.path(), two.path());
        std::fs::write(one.join("file"), "x").unwrap();
        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists() && two.path().exists());
    }
}
