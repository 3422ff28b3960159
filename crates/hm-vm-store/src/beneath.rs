//! File work that never leaves a directory, whatever is in it.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

/// What was being done to which path when the system refused it.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {} failed", .path.display())]
pub struct FileFailure {
    /// The action, such as "reading".
    pub doing: &'static str,
    /// Its object.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
}

impl FileFailure {
    pub(crate) fn new(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self {
            doing,
            path: path.to_owned(),
            source: source.into(),
        }
    }

    /// Whether the disk or the quota of the user is full.
    pub fn is_no_space(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

/// How paths below a root are resolved: no symbolic link is followed in any component, and
/// nothing above the root is reached.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// Opens the directory in which to work. The path itself may go through symbolic links.
pub(crate) fn open_root(path: &Path) -> Result<OwnedFd, FileFailure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| FileFailure::new("opening", path, errno))
}

/// Opens what is at `path` below `root`; the root itself when `path` is empty.
pub(crate) fn open_beneath(root: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    open_resolved(root, path, flags, RESOLVE)
}

/// As [`open_beneath`], and fails with `EXDEV` for what is on another mount.
pub(crate) fn open_on_mount(root: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    open_resolved(root, path, flags, RESOLVE | ResolveFlags::NO_XDEV)
}

fn open_resolved(
    root: impl AsFd,
    path: &[u8],
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

/// Flags to open a directory for reading and for work in it.
pub(crate) const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

/// Flags to open a file for reading without waiting, should it turn out to be a fifo.
pub(crate) const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Splits a relative path into the directory's path (empty for the root) and the name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// Puts a name behind a relative directory path.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    path.extend_from_slice(directory);
    if !directory.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// A relative path in bytes, for messages.
pub(crate) fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Opens parents of paths below a root, keeping the last one open: paths mostly come sorted.
#[derive(Debug)]
pub(crate) struct Parents<'root> {
    root: BorrowedFd<'root>,
    path: Vec<u8>,
    directory: Option<OwnedFd>,
}

impl<'root> Parents<'root> {
    pub(crate) fn new(root: BorrowedFd<'root>) -> Self {
        Self {
            root,
            path: Vec::new(),
            directory: None,
        }
    }

    /// The directory that `path` lies in, and its name there.
    pub(crate) fn of<'path>(
        &mut self,
        path: &'path [u8],
    ) -> Result<(BorrowedFd<'_>, &'path [u8]), Errno> {
        let (parent, name) = split(path);
        if parent.is_empty() {
            return Ok((self.root, name));
        }
        if self.directory.is_none() || self.path != parent {
            self.directory = None;
            let directory = open_beneath(self.root, parent, DIRECTORY)?;
            self.path.clear();
            self.path.extend_from_slice(parent);
            self.directory = Some(directory);
        }
        let directory = self.directory.as_ref().map_or(self.root, AsFd::as_fd);
        Ok((directory, name))
    }

    /// Forgets the open directory, because the tree was changed.
    pub(crate) fn forget(&mut self) {
        self.directory = None;
    }
}

/// Reads the names in a directory, `.` and `..` left out.
pub(crate) fn read_names(
    directory: impl AsFd,
    buffer: &mut Vec<u8>,
    each: &mut dyn FnMut(&CStr, FileType),
) -> Result<(), Errno> {
    buffer.clear();
    buffer.reserve(DIRECTORY_BUFFER);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            each(name, entry.file_type());
        }
    }
    Ok(())
}

/// Size in bytes of the buffer for directory entries.
const DIRECTORY_BUFFER: usize = 32 * 1024;

/// Seconds and nanoseconds of a time in nanoseconds since 1970, for both times of a file.
pub(crate) fn timestamps(mtime_ns: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime_ns.div_euclid(1_000_000_000),
        tv_nsec: mtime_ns.rem_euclid(1_000_000_000),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Modification time in nanoseconds since 1970; saturates in the year 2262.
pub(crate) fn mtime_ns(stat: &Stat) -> i64 {
    nanoseconds(stat.st_mtime, stat.st_mtime_nsec)
}

/// Time of the last change of the inode in nanoseconds since 1970.
pub(crate) fn ctime_ns(stat: &Stat) -> i64 {
    nanoseconds(stat.st_ctime, stat.st_ctime_nsec)
}

fn nanoseconds(seconds: i64, nanoseconds: impl TryInto<i64>) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds.try_into().unwrap_or(0))
}
