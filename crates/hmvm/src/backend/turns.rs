//! Whose turn it is at a named cache directory.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use anyhow::Context as _;
use hm_pipeline::pipeline::CacheSharing;
use hm_vm::oci::Digest;
use hm_vm::store::CacheLock;

use super::keeper::Keeper;

/// Holds a turn, until dropped or until the process ends.
#[derive(Debug)]
pub(crate) enum CacheTurn {
    /// At a directory of the store.
    Store {
        /// Held.
        _lock: CacheLock,
    },
    /// At a volume of a daemon.
    Volume {
        /// Locked.
        _file: File,
    },
}

impl Keeper {
    /// Tries to have the turn at a cache directory, alone or with others who share it. `None` while somebody else has it.
    ///
    /// # Errors
    ///
    /// The lock's file cannot be made.
    pub(crate) fn try_turn(
        &self,
        name: &str,
        sharing: CacheSharing,
    ) -> anyhow::Result<Option<CacheTurn>> {
        match self {
            Self::Store(store) => {
                let lock = match sharing {
                    CacheSharing::Locked => store.try_lock_cache(name)?,
                    CacheSharing::Shared => store.try_share_cache(name)?,
                };
                Ok(lock.map(|lock| CacheTurn::Store { _lock: lock }))
            }
            Self::Daemon(daemon) => {
                let file = lock(&daemon.state_directory().join("cache-turns"), name, sharing)?;
                Ok(file.map(|file| CacheTurn::Volume { _file: file }))
            }
        }
    }
}

/// Files are never removed: nobody can lock one that is gone.
fn lock(directory: &Path, name: &str, sharing: CacheSharing) -> anyhow::Result<Option<File>> {
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    // Names may have slashes, and more letters than a file's.
    let digest = Digest::of(name.as_bytes()).to_string();
    let path = directory.join(digest.replace(':', "-"));
    let locking = || format!("locking {}", path.display());
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(locking)?;
    let locked = match sharing {
        CacheSharing::Locked => file.try_lock(),
        CacheSharing::Shared => file.try_lock_shared(),
    };
    match locked {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(locking),
    }
}
