//! The lock that a run holds as long as it lives.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Result;

use super::files::doing;

/// Name of the file in a run's directory.
pub(super) const NAME: &str = "lock";

/// What the lock of a run tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Its process lives.
    Alive,
    /// Its process is gone, and left something to clean up.
    Dead,
    /// It is over and done with.
    Settled,
}

/// Makes a run's lock, held as long as the file that is returned is open.
pub(super) fn take(directory: &Path) -> Result<File> {
    let path = directory.join(NAME);
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&path);
    let file = doing(file, "creating", &path)?;
    doing(file.lock(), "locking", &path)?;
    Ok(file)
}

/// Looks whether a run lives. Several may look at once.
pub(super) fn look(directory: &Path) -> Result<Life> {
    let path = directory.join(NAME);
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Life::Settled),
        file => doing(file, "opening", &path)?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Life::Dead),
        Err(TryLockError::WouldBlock) => Ok(Life::Alive),
        Err(TryLockError::Error(error)) => doing(Err(error), "locking", &path),
    }
}
