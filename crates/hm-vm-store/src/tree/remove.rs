//! Removal of whole trees.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::{Errno, Result};

use crate::tree::directory::{list, open_child};

/// Depth from which directories are first moved up, so that neither the stack nor the number of
/// open files depends on what a guest made.
const DEPTH: usize = 48;

/// How far a removal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// Nothing is left.
    Done,
    /// It stopped before the end, because it was asked to.
    Stopped,
}

/// Removes a directory and all below it. Does nothing when it is gone. Nobody
/// else may change the tree meanwhile, but somebody may remove it as well.
pub(crate) fn remove_tree(path: &Path, stop: &AtomicBool) -> io::Result<Removal> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let parent = rustix::fs::open(parent, flags, Mode::empty())?;
    let name = CString::new(std::os::unix::ffi::OsStrExt::as_bytes(name))?;
    let top = match open_for_removal(parent.as_fd(), &name) {
        Err(Errno::NOENT) => return Ok(Removal::Done),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            rustix::fs::unlinkat(&parent, &name, AtFlags::empty())?;
            return Ok(Removal::Done);
        }
        other => other?,
    };
    let mut work = Work {
        top: top.as_fd(),
        stop,
        moved: 0,
    };
    loop {
        let moved = work.moved;
        if work.empty(top.as_fd(), 0)? == Removal::Stopped {
            return Ok(Removal::Stopped);
        }
        if work.moved == moved {
            break;
        }
    }
    match rustix::fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(Removal::Done),
        Err(errno) => Err(errno.into()),
    }
}

struct Work<'a> {
    top: BorrowedFd<'a>,
    stop: &'a AtomicBool,
    /// How many deep directories were moved up so far.
    moved: u64,
}

impl Work<'_> {
    fn empty(&mut self, directory: BorrowedFd<'_>, depth: usize) -> Result<Removal> {
        for (name, kind) in list(directory)? {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Removal::Stopped);
            }
            let removed = match kind {
                FileType::Directory => Err(Errno::ISDIR),
                _ => rustix::fs::unlinkat(directory, &name, AtFlags::empty()),
            };
            match removed {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR) => {}
                Err(errno) => return Err(errno),
            }
            if depth >= DEPTH {
                self.move_up(directory, &name)?;
                continue;
            }
            let child = match open_for_removal(directory, &name) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            if self.empty(child.as_fd(), depth + 1)? == Removal::Stopped {
                return Ok(Removal::Stopped);
            }
            match rustix::fs::unlinkat(directory, &name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(Removal::Done)
    }

    fn move_up(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        loop {
            self.moved += 1;
            let target = format!(".hmvm-deep-{}", self.moved);
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(directory, name, self.top, &target, flags) {
                Err(Errno::EXIST) => {}
                other => return other,
            }
        }
    }
}

/// Opens a directory; makes it accessible first where it is not. overlayfs leaves a `work`
/// directory without any permission, and so may a guest.
fn open_for_removal(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let open = |name| open_child(parent, name);
    match open(name) {
        Err(Errno::ACCESS) => {}
        Ok(directory) => {
            // Listing needs read permission only; emptying needs more.
            let mode = rustix::fs::fstat(&directory)?.st_mode;
            if mode & 0o700 != 0o700 && !rustix::process::geteuid().is_root() {
                let _ = rustix::fs::fchmod(&directory, Mode::RWXU);
            }
            return Ok(directory);
        }
        Err(errno) => return Err(errno),
    }
    rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
    open(name)
}
