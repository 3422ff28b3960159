//! Watching that a disk does not get full.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::ImportError;

/// So many bytes at most stay free, and a hundredth of a smaller disk.
const RESERVE: u64 = 256 << 20;

/// The disk is looked at whenever so many bytes were written,
const BYTES: u64 = 32 << 20;

/// or so many entries made.
const ENTRIES: u32 = 8192;

/// Counts what is written, and looks at the disk from time to time.
#[derive(Debug)]
pub(super) struct SpaceWatch {
    bytes: u64,
    entries: u32,
}

impl SpaceWatch {
    pub(super) fn new() -> Self {
        // The disk is looked at before the first entry.
        Self {
            bytes: 0,
            entries: ENTRIES,
        }
    }

    /// An entry is going to be made.
    pub(super) fn entry(&mut self, root: &OwnedFd) -> Result<(), ImportError> {
        self.entries += 1;
        match self.entries > ENTRIES {
            true => self.look(root),
            false => Ok(()),
        }
    }

    /// Bytes were written.
    pub(super) fn bytes(&mut self, root: &OwnedFd, count: u64) -> Result<(), ImportError> {
        self.bytes += count;
        match self.bytes > BYTES {
            true => self.look(root),
            false => Ok(()),
        }
    }

    fn look(&mut self, root: &OwnedFd) -> Result<(), ImportError> {
        (self.bytes, self.entries) = (0, 0);
        let Ok(disk) = rustix::fs::fstatvfs(root) else {
            return Ok(());
        };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let reserve = (disk.f_blocks.saturating_mul(disk.f_frsize) / 100).min(RESERVE);
        // Some file systems do not count.
        if disk.f_blocks > 0 && free < reserve {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(ImportError::file("writing", Path::new("a layer"), full));
        }
        Ok(())
    }
}
