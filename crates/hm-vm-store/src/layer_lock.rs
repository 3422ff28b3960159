//! One maker of a layer at a time, among all threads and processes.
//!
//! Who wants a layer that is not there takes its lock, looks again, and makes it. The lock is a `flock` on
//! `layer-locks/<diff id>`, which dies with its process; its file goes when it is given up.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hm_vm_core::Cancellation;
use hm_vm_oci::Digest;

use crate::error::{Context, StoreError};
use crate::layout::Layout;

/// Between two looks at a lock that somebody else holds: doubled after each, up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// The right to make the layer of a diff id. Held as long as this lives; dies with its process.
///
/// Who needs several takes one after the other, and holds one at a time: nobody waits for ever.
#[derive(Debug)]
pub(crate) struct LayerLock {
    path: PathBuf,
    file: File,
}

impl LayerLock {
    /// Takes the lock, and waits while somebody else has it. When it is had, the layer may be there:
    /// look again.
    ///
    /// # Errors
    ///
    /// [`StoreError::Cancelled`], or a failure of the system.
    pub(crate) fn take(
        layout: &Layout,
        diff_id: &Digest,
        cancel: &Cancellation,
    ) -> Result<Self, StoreError> {
        let mut pause = FIRST_PAUSE;
        loop {
            cancel.check().map_err(StoreError::Cancelled)?;
            if let Some(lock) = Self::try_take(layout, diff_id)? {
                return Ok(lock);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Takes the lock. `None` while somebody else has it.
    ///
    /// # Errors
    ///
    /// A failure of the system.
    pub(crate) fn try_take(layout: &Layout, diff_id: &Digest) -> Result<Option<Self>, StoreError> {
        let path = layout.layer_locks().join(diff_id.hex());
        take(&path).context("locking", &path)
    }

    /// Removes the files of locks whose holders were killed.
    ///
    /// # Errors
    ///
    /// A failure of the system.
    pub(crate) fn collect_dead(layout: &Layout) -> Result<(), StoreError> {
        let directory = layout.layer_locks();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.context("listing", &directory)?,
        };
        for entry in entries {
            let path = entry.context("listing", &directory)?.path();
            // Dropping the lock removes its file.
            drop(take(&path).context("locking", &path)?);
        }
        Ok(())
    }
}

fn take(path: &Path) -> io::Result<Option<LayerLock>> {
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
        // The former holder may have unlinked this file between the open and the lock: then it is another
        // file that counts.
        if is_same_file(&file, path)? {
            return Ok(Some(LayerLock {
                path: path.to_owned(),
                file,
            }));
        }
    }
}

impl Drop for LayerLock {
    fn drop(&mut self) {
        // While it is still locked: nobody else can hold a lock on this path now.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "failed to remove a lock file");
        }
        // Explicitly: a child process that is just being started may have inherited the file.
        if let Err(error) = self.file.unlock() {
            tracing::debug!(path = %self.path.display(), %error, "failed to give a lock up");
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
