//! Single flight: of several executions of one key, one runs.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

/// Between two looks at another process's lock: doubled after each, up to the second.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(1);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(20);

type KeyMutex = Arc<tokio::sync::Mutex<()>>;

/// The keys that executions of one engine are busy with. Each has a fair mutex: whoever holds it has the
/// turn, and gives it to the next one by being dropped, whatever the reason.
#[derive(Debug, Default)]
pub(super) struct Flights {
    keys: Arc<Mutex<HashMap<String, KeyMutex>>>,
}

/// A place in the queue of a key.
pub(super) struct Place {
    keys: Arc<Mutex<HashMap<String, KeyMutex>>>,
    key: String,
    mutex: Option<KeyMutex>,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Flights {
    /// Queues for a key.
    pub(super) fn queue(&self, key: &str) -> Place {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let mutex = Arc::clone(keys.entry(key.to_owned()).or_default());
        Place {
            keys: Arc::clone(&self.keys),
            key: key.to_owned(),
            mutex: Some(mutex),
            turn: None,
        }
    }
}

impl Place {
    /// Takes the turn if it is free. Returns whether it was.
    pub(super) fn try_take(&mut self) -> bool {
        let free = self
            .mutex
            .as_ref()
            .and_then(|mutex| Arc::clone(mutex).try_lock_owned().ok());
        self.turn = free;
        self.turn.is_some()
    }

    /// Waits for the turn. Dropped meanwhile, it leaves the queue.
    pub(super) async fn take(&mut self) {
        if let Some(mutex) = &self.mutex {
            self.turn = Some(Arc::clone(mutex).lock_owned().await);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        self.turn = None;
        self.mutex = None;
        // New places are made under the same lock: a count of one is the map's own.
        if keys
            .get(&self.key)
            .is_some_and(|mutex| Arc::strong_count(mutex) == 1)
        {
            keys.remove(&self.key);
        }
    }
}

/// The lock of a key between processes. Held as long as this lives; dies with its process.
#[derive(Debug)]
pub(super) struct KeyLock {
    path: PathBuf,
    _file: File,
}

impl KeyLock {
    /// Where the lock of `key` is.
    pub(super) fn path(registry: &Path, key: &str) -> PathBuf {
        let mut dir = registry.as_os_str().to_owned();
        dir.push(".locks");
        let hash = blake3::hash(key.as_bytes()).to_hex();
        PathBuf::from(dir).join(&hash[..32])
    }

    /// Takes the lock. `None` while somebody else holds it.
    pub(super) fn try_take(path: &Path) -> io::Result<Option<Self>> {
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
