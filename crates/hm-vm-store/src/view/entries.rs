//! What a view tells of files.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Stat};

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character or block device.
    Device,
}

/// Attributes of a file in a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Its type.
    pub kind: FileKind,
    /// Permission bits with set-id and sticky bits (07777).
    pub mode: u32,
    /// Owner, as the guest sees it.
    pub uid: u32,
    /// Group, as the guest sees it.
    pub gid: u32,
    /// Length in bytes; of a symbolic link, that of its target.
    pub size: u64,
    /// When it was last modified.
    pub modified: SystemTime,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name, any bytes.
    pub name: OsString,
    /// Its attributes; those of a symbolic link itself.
    pub metadata: Metadata,
}

/// An entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkEntry {
    /// Its absolute path.
    pub path: PathBuf,
    /// Its attributes; those of a symbolic link itself.
    pub metadata: Metadata,
}

impl Metadata {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            kind: FileKind::of(stat),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: modified(stat),
        }
    }
}

impl FileKind {
    pub(crate) fn of(stat: &Stat) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::CharacterDevice | FileType::BlockDevice => Self::Device,
            _ => Self::File,
        }
    }
}

fn modified(stat: &Stat) -> SystemTime {
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let fraction = Duration::from_nanos(u64::from(nanoseconds));
    let seconds = Duration::from_secs(stat.st_mtime.unsigned_abs());
    let base = if stat.st_mtime < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    base.and_then(|base| base.checked_add(fraction))
        .unwrap_or(UNIX_EPOCH)
}
