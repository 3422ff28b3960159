//! Who uses a cache, and whose turn it is.
//!
//! All locks are `flock`s: they end with the process that holds them, by whatever end. Whoever uses a
//! cache holds `users`, shared; removal needs it exclusively. A lock counts only if the directory
//! still is where it was: it may have been removed between opening and locking.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::{Errno, retry_on_intr};

use super::directory::{Place, make, touch};
use crate::error::{Context, StoreError};
use crate::store::{Core, Store};

/// Holds a cache directory, until dropped or until the process ends: it is not removed meanwhile.
#[derive(Debug)]
pub struct CacheLock {
    /// The turn is given up first.
    _turn: Option<Lock>,
    _users: Lock,
    directory: PathBuf,
}

impl CacheLock {
    /// The cache's directory, relative to the store's root.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Store {
    /// Locks a cache for one alone; made when it is missing. `None` while somebody else holds it by this
    /// call or by [`try_share_cache`](Self::try_share_cache), in this process or another.
    ///
    /// # Errors
    ///
    /// As [`cache_directory`](Self::cache_directory).
    pub fn try_lock_cache(&self, name: &str) -> Result<Option<CacheLock>, StoreError> {
        hold(
            self.core(),
            name,
            Some(FlockOperation::NonBlockingLockExclusive),
        )
    }

    /// Locks a cache together with others who share it; made when it is missing. `None` while somebody
    /// has it alone.
    ///
    /// # Errors
    ///
    /// As [`cache_directory`](Self::cache_directory).
    pub fn try_share_cache(&self, name: &str) -> Result<Option<CacheLock>, StoreError> {
        hold(
            self.core(),
            name,
            Some(FlockOperation::NonBlockingLockShared),
        )
    }

    /// Keeps a cache from being removed, and nothing else: whoever has it alone is not asked. For those
    /// who mount it for others. Made when it is missing.
    ///
    /// # Errors
    ///
    /// As [`cache_directory`](Self::cache_directory).
    pub fn use_cache(&self, name: &str) -> Result<CacheLock, StoreError> {
        // Without a turn to wait for, it cannot be refused.
        hold(self.core(), name, None)?
            .ok_or_else(|| StoreError::invalid(format!("cache {name:?}"), "it could not be held"))
    }
}

fn hold(
    core: &Core,
    name: &str,
    turn: Option<FlockOperation>,
) -> Result<Option<CacheLock>, StoreError> {
    let place = Place::of(name)?;
    let path = place.path(core);
    loop {
        make(core, &place)?;
        // Waits for a removal at most, which is a rename.
        let Some(users) = Lock::take(&path, "users", FlockOperation::LockShared)?.have() else {
            continue;
        };
        let turn = match turn
            .map(|turn| Lock::take(&path, "lock", turn))
            .transpose()?
        {
            None => None,
            Some(Taken::Lock(lock)) => Some(lock),
            Some(Taken::Busy) => return Ok(None),
            Some(Taken::Gone) => continue,
        };
        touch(&path.join("users")).context("touching", &path)?;
        return Ok(Some(CacheLock {
            _turn: turn,
            _users: users,
            directory: place.tree(),
        }));
    }
}

/// Locks a cache against everybody, for its removal. `None` when there is none.
pub(super) fn alone(core: &Core, place: &Place) -> Result<Option<Lock>, StoreError> {
    let path = place.path(core);
    match Lock::take(&path, "users", FlockOperation::NonBlockingLockExclusive)? {
        Taken::Lock(lock) => Ok(Some(lock)),
        Taken::Busy => Err(place.in_use()),
        Taken::Gone => Ok(None),
    }
}

/// Whether somebody uses the cache in a directory.
pub(super) fn is_in_use(directory: &Path) -> Result<bool, StoreError> {
    let probe = Lock::take(directory, "users", FlockOperation::NonBlockingLockExclusive)?;
    Ok(matches!(probe, Taken::Busy))
}

/// A lock that is held. Given up explicitly: a child process that is just being started may
/// have inherited the file.
#[derive(Debug)]
pub(super) struct Lock(fs::File);

/// What became of taking a lock.
enum Taken {
    Lock(Lock),
    Busy,
    /// The file is not there, or was removed before the lock was had.
    Gone,
}

impl Taken {
    fn have(self) -> Option<Lock> {
        match self {
            Self::Lock(lock) => Some(lock),
            Self::Busy | Self::Gone => None,
        }
    }
}

impl Lock {
    fn take(directory: &Path, name: &str, operation: FlockOperation) -> Result<Taken, StoreError> {
        let path = directory.join(name);
        let file = match fs::OpenOptions::new().write(true).open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Taken::Gone),
            other => other.context("opening", &path)?,
        };
        match retry_on_intr(|| rustix::fs::flock(&file, operation)) {
            Err(Errno::WOULDBLOCK) => return Ok(Taken::Busy),
            other => other.context("locking", &path)?,
        }
        let lock = Self(file);
        let held = lock.0.metadata().context("examining", &path)?;
        let current = match fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Taken::Gone),
            other => other.context("examining", &path)?,
        };
        if (held.dev(), held.ino()) == (current.dev(), current.ino()) {
            Ok(Taken::Lock(lock))
        } else {
            Ok(Taken::Gone)
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}
