//! Single flight between processes: a lock file per key that is being produced.
//!
//! The files are in `REGISTRY.locks/`, named after the hash of the key. The lock is `flock`, which
//! dies with its process; the holder removes the file when done, and the next open of the registry
//! removes those of dead processes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The lock of a key between processes. Held as long as this lives; dies with its process.
#[derive(Debug)]
pub(crate) struct KeyLock {
    path: PathBuf,
    _file: File,
}

impl KeyLock {
    /// Where the lock of `key` is.
    pub(crate) fn path(registry: &Path, key: &str) -> PathBuf {
        let hash = blake3::hash(key.as_bytes()).to_hex();
        directory(registry).join(&hash[..32])
    }

    /// Removes the lock files of dead processes.
    pub(crate) fn collect_dead(registry: &Path) -> io::Result<()> {
        let entries = match fs::read_dir(directory(registry)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            // Dropping the lock removes its file.
            drop(Self::try_take(&entry?.path())?);
        }
        Ok(())
    }

    /// Takes the lock. `None` while somebody else holds it.
    pub(crate) fn try_take(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = match open(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    fs::create_dir_all(path.parent().unwrap_or(path))?;
                    continue;
                }
                file => file?,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // The former holder may have unlinked this file between the open and the lock: then it
            // is another file that counts.
            if is_same_file(&file, path)? {
                return Ok(Some(Self {
                    path: path.to_owned(),
                    _file: file,
                }));
            }
        }
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // While it is still locked: nobody else can hold a lock on this path now.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "failed to remove a lock file");
        }
    }
}

fn directory(registry: &Path) -> PathBuf {
    let mut directory = registry.as_os_str().to_owned();
    directory.push(".locks");
    directory.into()
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn is_same_file(file: &File, path: &Path) -> io::Result<bool> {
    let there = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        there => there?,
    };
    let here = file.metadata()?;
    Ok(here.dev() == there.dev() && here.ino() == there.ino())
}
